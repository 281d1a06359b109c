//! Keys that tokens are checked by: each has one `alg`, whatever a token says.

use std::fmt;

use ring::hmac;

/// Shortest secret, in bytes. A shorter one is refused.
const SECRET_BYTES_MIN: usize = 32;

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
}

/// Why a key is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyError {
    /// A secret of so few bytes.
    ShortSecret(usize),
    /// A secret for a public key's `alg`, or the other way round.
    WrongKind(Alg),
}

/// A key: its `alg`, its name, and what checks a signature. Debug shows neither secret nor key.
pub struct Key {
    alg: Alg,
    kid: Option<Box<str>>,
    verifier: Verifier,
}

enum Verifier {
    Secret(hmac::Key),
}

impl Key {
    /// A secret that both who signs and this server have.
    ///
    /// # Errors
    ///
    /// It is shorter than 32 bytes, or `alg` takes none.
    pub fn secret(alg: Alg, kid: Option<&str>, secret: &[u8]) -> Result<Key, KeyError> {
        let hmac = alg.hmac().ok_or(KeyError::WrongKind(alg))?;
        if secret.len() < SECRET_BYTES_MIN {
            return Err(KeyError::ShortSecret(secret.len()));
        }
        Ok(Key { alg, kid: kid.map(Into::into), verifier: Verifier::Secret(hmac::Key::new(hmac, secret)) })
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
        }
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key").field("alg", &self.alg).field("kid", &self.kid).finish_non_exhaustive()
    }
}
