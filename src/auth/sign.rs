//! Making tokens: for an operator at a command line, and for tests.

use std::fmt;

use data_encoding::BASE64URL_NOPAD;
use ring::rand::SecureRandom;
use ring::{hmac, signature};
use rustls::pki_types::pem::{PemObject, SectionKind};

use super::key::{Alg, KeyError, SECRET_BYTES_MIN};

/// A key that makes tokens. Debug shows nothing of it.
pub struct SigningKey {
    alg: Alg,
    signer: Signer,
}

enum Signer {
    Secret(hmac::Key),
    Rsa(Box<signature::RsaKeyPair>),
    P256(Box<signature::EcdsaKeyPair>),
    Ed25519(Box<signature::Ed25519KeyPair>),
}

impl SigningKey {
    /// From the secret that checks them, too.
    ///
    /// # Errors
    ///
    /// As [`super::Key::secret`].
    pub fn secret(alg: Alg, secret: &[u8]) -> Result<SigningKey, KeyError> {
        let hmac = alg.hmac().ok_or(KeyError::WrongKind(alg, "a secret"))?;
        if secret.len() < SECRET_BYTES_MIN {
            return Err(KeyError::ShortSecret(secret.len()));
        }
        Ok(SigningKey { alg, signer: Signer::Secret(hmac::Key::new(hmac, secret)) })
    }

    /// From a private key in PEM (`-----BEGIN PRIVATE KEY-----`, for RSA also `RSA PRIVATE KEY`).
    ///
    /// # Errors
    ///
    /// It is something else, weak, or not for this `alg`.
    pub fn private_pem(alg: Alg, pem: &[u8], random: &dyn SecureRandom) -> Result<SigningKey, KeyError> {
        let (kind, der) = <(SectionKind, Vec<u8>)>::from_pem_slice(pem).map_err(|_| KeyError::NoPem)?;
        match kind {
            SectionKind::PrivateKey | SectionKind::RsaPrivateKey => {}
            SectionKind::EcPrivateKey => {
                return Err(KeyError::OtherPem(
                    "a private key in the older form",
                    "turn it into the newer one: `openssl pkcs8 -topk8 -nodes -in FILE`",
                ));
            }
            SectionKind::PublicKey => return Err(KeyError::OtherPem("a public key", "signing takes the private one")),
            _ => return Err(KeyError::NoPem),
        }
        let rejected = |_| KeyError::WrongKind(alg, "a key of another kind, or a broken one");
        let signer = match alg {
            Alg::Hs256 | Alg::Hs384 | Alg::Hs512 => return Err(KeyError::WrongKind(alg, "a private key")),
            Alg::Rs256 | Alg::Ps256 => {
                let pair = match kind {
                    SectionKind::RsaPrivateKey => signature::RsaKeyPair::from_der(&der),
                    _ => signature::RsaKeyPair::from_pkcs8(&der),
                };
                Signer::Rsa(Box::new(pair.map_err(rejected)?))
            }
            Alg::Es256 => {
                let kind = &signature::ECDSA_P256_SHA256_FIXED_SIGNING;
                Signer::P256(Box::new(signature::EcdsaKeyPair::from_pkcs8(kind, &der, random).map_err(rejected)?))
            }
            Alg::EdDsa => {
                let pair = signature::Ed25519KeyPair::from_pkcs8_maybe_unchecked(&der).map_err(rejected)?;
                Signer::Ed25519(Box::new(pair))
            }
        };
        Ok(SigningKey { alg, signer })
    }

    /// A token with these claims, a JSON object as text. `None` where the source of randomness fails.
    pub fn sign(&self, kid: Option<&str>, claims: &str, random: &dyn SecureRandom) -> Option<String> {
        let mut header = serde_json::json!({ "alg": self.alg.as_str(), "typ": "JWT" });
        if let Some(kid) = kid {
            header["kid"] = kid.into();
        }
        let header = BASE64URL_NOPAD.encode(header.to_string().as_bytes());
        let signed = format!("{header}.{}", BASE64URL_NOPAD.encode(claims.as_bytes()));
        let signature = self.signature(signed.as_bytes(), random)?;
        Some(format!("{signed}.{}", BASE64URL_NOPAD.encode(&signature)))
    }

    fn signature(&self, signed: &[u8], random: &dyn SecureRandom) -> Option<Vec<u8>> {
        Some(match &self.signer {
            Signer::Secret(key) => hmac::sign(key, signed).as_ref().to_vec(),
            Signer::Rsa(pair) => {
                let padding: &dyn signature::RsaEncoding = match self.alg {
                    Alg::Ps256 => &signature::RSA_PSS_SHA256,
                    _ => &signature::RSA_PKCS1_SHA256,
                };
                let mut signature = vec![0; pair.public().modulus_len()];
                pair.sign(padding, random, signed, &mut signature).ok()?;
                signature
            }
            Signer::P256(pair) => pair.sign(random, signed).ok()?.as_ref().to_vec(),
            Signer::Ed25519(pair) => pair.sign(signed).as_ref().to_vec(),
        })
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey").field("alg", &self.alg).finish_non_exhaustive()
    }
}
