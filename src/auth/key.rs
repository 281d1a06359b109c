//! Keys that tokens are checked by: each has one `alg`, whatever a token says.

use std::fmt;

use ring::{hmac, signature};

use super::public::PublicKey;

/// Shortest secret, in bytes. A shorter one is refused.
pub(super) const SECRET_BYTES_MIN: usize = 32;

/// How a signature is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Alg {
    /// HMAC with SHA-256.
    Hs256,
    /// HMAC with SHA-384.
    Hs384,
    /// HMAC with SHA-512.
    Hs512,
    /// RSA, PKCS #1 v1.5, with SHA-256.
    Rs256,
    /// RSA, PSS, with SHA-256.
    Ps256,
    /// ECDSA on P-256 with SHA-256.
    Es256,
    /// Ed25519.
    EdDsa,
}

impl Alg {
    const ALL: [Alg; 7] = [Alg::Hs256, Alg::Hs384, Alg::Hs512, Alg::Rs256, Alg::Ps256, Alg::Es256, Alg::EdDsa];

    /// The one of this name, if there is one.
    pub fn find(name: &str) -> Option<Alg> {
        Alg::ALL.into_iter().find(|alg| alg.as_str() == name)
    }

    /// Its name in tokens and settings.
    pub fn as_str(self) -> &'static str {
        match self {
            Alg::Hs256 => "HS256",
            Alg::Hs384 => "HS384",
            Alg::Hs512 => "HS512",
            Alg::Rs256 => "RS256",
            Alg::Ps256 => "PS256",
            Alg::Es256 => "ES256",
            Alg::EdDsa => "EdDSA",
        }
    }

    /// Whether who checks can sign as well, with the same secret.
    pub fn is_hmac(self) -> bool {
        self.hmac().is_some()
    }

    pub(super) fn hmac(self) -> Option<hmac::Algorithm> {
        match self {
            Alg::Hs256 => Some(hmac::HMAC_SHA256),
            Alg::Hs384 => Some(hmac::HMAC_SHA384),
            Alg::Hs512 => Some(hmac::HMAC_SHA512),
            Alg::Rs256 | Alg::Ps256 | Alg::Es256 | Alg::EdDsa => None,
        }
    }

    /// What key it takes, in words.
    fn key_noun(self) -> &'static str {
        match self {
            Alg::Hs256 | Alg::Hs384 | Alg::Hs512 => "a secret",
            Alg::Rs256 | Alg::Ps256 => "an RSA key",
            Alg::Es256 => "an EC key on the curve P-256",
            Alg::EdDsa => "an Ed25519 key",
        }
    }
}

/// Why a key is refused. Displays as what it is and what to do, without the key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyError {
    /// A secret of so few bytes.
    ShortSecret(usize),
    /// Another kind of key than its `alg` takes: this one.
    WrongKind(Alg, &'static str),
    /// There is no PEM in it, or of a kind that nothing is known of.
    NoPem,
    /// PEM of this kind where another belongs; what to do.
    OtherPem(&'static str, &'static str),
    /// What the PEM or the JWK holds is no key.
    Malformed,
    /// An RSA key of so many bits, less than 2048 or more than 8192.
    RsaBits(usize),
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KeyError::ShortSecret(bytes) => write!(
                f,
                "the secret has {bytes} bytes, few enough to be guessed; make one of at least {SECRET_BYTES_MIN} with \
                 `openssl rand -base64 48`"
            ),
            KeyError::WrongKind(alg, found) => {
                write!(f, "{} takes {}, and this is {found}; change one of the two", alg.as_str(), alg.key_noun())
            }
            KeyError::NoPem => f.write_str("there is no key in PEM in it; it starts with -----BEGIN PUBLIC KEY-----"),
            KeyError::OtherPem(found, what_to_do) => write!(f, "it is {found}; {what_to_do}"),
            KeyError::Malformed => {
                f.write_str("what it holds is no key, or one of a kind that tokens are not signed by here")
            }
            KeyError::RsaBits(bits) => write!(f, "the RSA key has {bits} bits; make one of 2048 to 8192"),
        }
    }
}

impl std::error::Error for KeyError {}

/// A key: its `alg`, its name, and what checks a signature. Debug shows neither secret nor key.
#[derive(Clone)]
pub struct Key {
    alg: Alg,
    kid: Option<Box<str>>,
    verifier: Verifier,
}

#[derive(Clone)]
enum Verifier {
    Secret(hmac::Key),
    Public(PublicKey),
}

impl Key {
    /// A secret that both who signs and this server have.
    ///
    /// # Errors
    ///
    /// It is shorter than 32 bytes, or `alg` takes none.
    pub fn secret(alg: Alg, kid: Option<&str>, secret: &[u8]) -> Result<Key, KeyError> {
        let hmac = alg.hmac().ok_or(KeyError::WrongKind(alg, "a secret"))?;
        if secret.len() < SECRET_BYTES_MIN {
            return Err(KeyError::ShortSecret(secret.len()));
        }
        Ok(Key { alg, kid: kid.map(Into::into), verifier: Verifier::Secret(hmac::Key::new(hmac, secret)) })
    }

    /// A public key in PEM (`-----BEGIN PUBLIC KEY-----`).
    ///
    /// # Errors
    ///
    /// It is something else, weak, or not for this `alg`.
    pub fn public_pem(alg: Alg, kid: Option<&str>, pem: &[u8]) -> Result<Key, KeyError> {
        Key::public(alg, kid, PublicKey::from_pem(pem)?)
    }

    /// A public key for this `alg`, if it is of the kind.
    pub(super) fn public(alg: Alg, kid: Option<&str>, key: PublicKey) -> Result<Key, KeyError> {
        match (alg, &key) {
            (Alg::Rs256 | Alg::Ps256, PublicKey::Rsa(_))
            | (Alg::Es256, PublicKey::P256(_))
            | (Alg::EdDsa, PublicKey::Ed25519(_)) => {
                Ok(Key { alg, kid: kid.map(Into::into), verifier: Verifier::Public(key) })
            }
            _ => Err(KeyError::WrongKind(alg, key.noun())),
        }
    }

    /// The only `alg` it is for.
    pub fn alg(&self) -> Alg {
        self.alg
    }

    /// Its name, by which tokens ask for it.
    pub fn kid(&self) -> Option<&str> {
        self.kid.as_deref()
    }

    /// Whether it has made this signature, in constant time where it is a secret.
    pub(super) fn verify(&self, signed: &[u8], signature: &[u8]) -> bool {
        match &self.verifier {
            Verifier::Secret(key) => hmac::verify(key, signed, signature).is_ok(),
            Verifier::Public(PublicKey::Rsa(key)) => {
                let padding = match self.alg {
                    Alg::Ps256 => &signature::RSA_PSS_2048_8192_SHA256,
                    _ => &signature::RSA_PKCS1_2048_8192_SHA256,
                };
                key.verify(padding, signed, signature).is_ok()
            }
            Verifier::Public(PublicKey::P256(point)) => {
                let key = signature::UnparsedPublicKey::new(&signature::ECDSA_P256_SHA256_FIXED, &point[..]);
                key.verify(signed, signature).is_ok()
            }
            Verifier::Public(PublicKey::Ed25519(point)) => {
                signature::UnparsedPublicKey::new(&signature::ED25519, &point[..]).verify(signed, signature).is_ok()
            }
        }
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key").field("alg", &self.alg).field("kid", &self.kid).finish_non_exhaustive()
    }
}
