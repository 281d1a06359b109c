//! Key sets (JWKS, RFC 7517): documents of public keys, from somebody who may be anybody.

use std::borrow::Cow;
use std::fmt;

use data_encoding::BASE64URL_NOPAD;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::json::object;
use super::key::{Alg, Key, KeyError};
use super::public::PublicKey;
use crate::limits::{KEY_SET_BYTES_MAX, TOKEN_KEYS_MAX};

/// Longest `kid`, in bytes.
const KID_BYTES_MAX: usize = 256;

/// The keys of a set, and how many were left out.
///
/// Reading takes memory for up to 16 times the document's bytes, which are bounded, and time linear in them.
#[derive(Debug)]
pub struct KeySet {
    /// Those that tokens may be signed by, at least one.
    pub keys: Vec<Key>,
    /// Those that are for something else, of an unknown kind, secret, or broken (RFC 7517 §5: left out, the others hold).
    pub skipped: usize,
}

/// Why a set is refused. Holds nothing of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeySetError {
    /// Longer than the bound.
    TooLong,
    /// Not an object with an array `keys`.
    Malformed,
    /// So many keys.
    TooMany(usize),
    /// None of its keys, of which there are so many, can be used.
    Unusable(usize),
}

impl fmt::Display for KeySetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KeySetError::TooLong => write!(f, "the key set has more than {KEY_SET_BYTES_MAX} bytes"),
            KeySetError::Malformed => f.write_str("it is no key set: a JSON object with an array `keys` (RFC 7517)"),
            KeySetError::TooMany(keys) => {
                write!(f, "the key set has {keys} keys; at most {TOKEN_KEYS_MAX} are allowed")
            }
            KeySetError::Unusable(keys) => write!(
                f,
                "of its {keys} keys none can be used; it takes public keys for signatures by RS256, PS256, ES256 or EdDSA"
            ),
        }
    }
}

impl std::error::Error for KeySetError {}

#[derive(Deserialize)]
struct Document<'a> {
    #[serde(borrow)]
    keys: Vec<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(bound(deserialize = "'de: 'a"))]
struct Jwk<'a> {
    kty: Cow<'a, str>,
    #[serde(rename = "use")]
    purpose: Option<Cow<'a, str>>,
    key_ops: Option<Vec<Cow<'a, str>>>,
    alg: Option<Cow<'a, str>>,
    kid: Option<Cow<'a, str>>,
    crv: Option<Cow<'a, str>>,
    n: Option<Cow<'a, str>>,
    e: Option<Cow<'a, str>>,
    x: Option<Cow<'a, str>>,
    y: Option<Cow<'a, str>>,
}

/// Reads a key set. A key without `alg` is for the usual one of its kind: RS256, ES256, EdDSA. Secrets (`oct`) are never
/// taken from one: whoever can read it could sign.
///
/// # Errors
///
/// It is too long, no key set, or without a key that can be used.
pub fn key_set(document: &[u8]) -> Result<KeySet, KeySetError> {
    if document.len() > KEY_SET_BYTES_MAX {
        return Err(KeySetError::TooLong);
    }
    let text = str::from_utf8(document).map_err(|_| KeySetError::Malformed)?;
    let document: Document<'_> = object(text).map_err(|_| KeySetError::Malformed)?;
    let found = document.keys.len();
    if found > TOKEN_KEYS_MAX {
        return Err(KeySetError::TooMany(found));
    }
    let keys: Vec<Key> = document.keys.iter().filter_map(|raw| key(raw.get())).collect();
    match keys.is_empty() {
        true => Err(KeySetError::Unusable(found)),
        false => Ok(KeySet { skipped: found - keys.len(), keys }),
    }
}

/// The key, if it is one that tokens may be signed by.
fn key(text: &str) -> Option<Key> {
    let jwk: Jwk<'_> = object(text).ok()?;
    let is_for_signatures = jwk.purpose.as_deref().is_none_or(|purpose| purpose == "sig")
        && jwk.key_ops.as_ref().is_none_or(|ops| ops.iter().any(|op| op == "verify"));
    if !is_for_signatures || jwk.kid.as_ref().is_some_and(|kid| kid.len() > KID_BYTES_MAX) {
        return None;
    }
    let (public, usual) = jwk.public().ok()??;
    let alg = match &jwk.alg {
        Some(name) => Alg::find(name)?,
        None => usual,
    };
    Key::public(alg, jwk.kid.as_deref(), public).ok()
}

impl Jwk<'_> {
    /// The key, and the usual `alg` of its kind; `None` for a kind that is not known.
    fn public(&self) -> Result<Option<(PublicKey, Alg)>, KeyError> {
        match (&*self.kty, self.crv.as_deref()) {
            ("RSA", _) => Ok(Some((PublicKey::rsa(&bytes(&self.n)?, &bytes(&self.e)?)?, Alg::Rs256))),
            ("EC", Some("P-256")) => {
                let (x, y) = (bytes(&self.x)?, bytes(&self.y)?);
                // RFC 7518 §6.2.1.2: each of its full length.
                if x.len() != 32 {
                    return Err(KeyError::Malformed);
                }
                Ok(Some((PublicKey::p256(&[&[4], &*x, &*y].concat())?, Alg::Es256)))
            }
            ("OKP", Some("Ed25519")) => Ok(Some((PublicKey::ed25519(&bytes(&self.x)?)?, Alg::EdDsa))),
            _ => Ok(None),
        }
    }
}

fn bytes(number: &Option<Cow<'_, str>>) -> Result<Vec<u8>, KeyError> {
    let number = number.as_deref().ok_or(KeyError::Malformed)?;
    BASE64URL_NOPAD.decode(number.as_bytes()).map_err(|_| KeyError::Malformed)
}
