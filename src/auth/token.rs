//! The form of a token: three words between points (RFC 7515 §7.1), and what can be wrong with one.

use std::borrow::Cow;
use std::fmt;

use data_encoding::BASE64URL_NOPAD;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::json::{object, present};
use super::key::Alg;

/// Why a token is refused. Holds nothing of the token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenError {
    /// Longer than the bound.
    TooLong,
    /// Not three words of base64url with JSON in the first two.
    Malformed,
    /// `alg` is none of those that there are; `none` is one of these.
    Alg,
    /// The header has `crit`: something has to be understood that is not.
    Critical,
    /// No key has its `kid`; or it has none, and all keys have one.
    UnknownKey,
    /// The key that it names is for another `alg`, or no key without a `kid` is for its own.
    KeyAlg,
    /// No key has made the signature.
    Signature,
    /// The claims are no JSON object, or one of them stands twice or is of another type than it has to be.
    Claims,
    /// This claim is missing.
    Missing(&'static str),
    /// This claim is not what it has to be.
    Claim(&'static str),
    /// `iss` is another one.
    Issuer,
    /// `aud` does not name this server.
    Audience,
    /// `exp` has passed.
    Expired,
    /// `nbf` has not come.
    NotYet,
    /// The operator has revoked it.
    Revoked,
}

impl fmt::Display for TokenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TokenError::TooLong => f.write_str("the token is too long"),
            TokenError::Malformed => {
                f.write_str("the token is no JWT: three words of base64url, two of them JSON objects")
            }
            TokenError::Alg => {
                f.write_str("the token's alg is not one of HS256, HS384, HS512, RS256, PS256, ES256, EdDSA")
            }
            TokenError::Critical => f.write_str("the token's header has crit, none of which is known here"),
            TokenError::UnknownKey => f.write_str("no key has the token's kid (or it has none and every key has one)"),
            TokenError::KeyAlg => f.write_str("the key for the token is for another alg"),
            TokenError::Signature => f.write_str("the token's signature is wrong"),
            TokenError::Claims => {
                f.write_str("a claim of the token stands twice or is of another type than it has to be")
            }
            TokenError::Missing(claim) => write!(f, "the token has no {claim}"),
            TokenError::Claim(claim) => write!(f, "the token's {claim} is not what it has to be"),
            TokenError::Issuer => f.write_str("the token's iss is not auth.issuer"),
            TokenError::Audience => f.write_str("the token's aud does not name auth.audience"),
            TokenError::Expired => f.write_str("the token has expired"),
            TokenError::NotYet => f.write_str("the token is not valid yet (nbf)"),
            TokenError::Revoked => f.write_str("the token is revoked: it was made before its user's tokens were"),
        }
    }
}

impl std::error::Error for TokenError {}

/// What stands in a token as its header and its claims, for people: none of it is checked.
///
/// # Errors
///
/// It is no token.
pub fn texts(token: &str) -> Result<(String, String), TokenError> {
    let mut words = token.split('.').map(decode);
    let mut text = || String::from_utf8(words.next().ok_or(TokenError::Malformed)??).map_err(|_| TokenError::Malformed);
    Ok((text()?, text()?))
}

/// A token in its parts, nothing of which is checked but the form.
pub(super) struct Token<'a> {
    signed: &'a str,
    payload: &'a str,
    signature: &'a str,
    header: Header,
}

/// What the header says that matters here. Everything else in it is ignored, keys and addresses of keys above all.
#[derive(Debug)]
pub(super) struct Header {
    alg: Option<Alg>,
    kid: Option<String>,
}

#[derive(Deserialize)]
struct RawHeader<'a> {
    #[serde(borrow)]
    alg: Cow<'a, str>,
    #[serde(borrow, default, deserialize_with = "present")]
    kid: Option<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "present")]
    crit: Option<&'a RawValue>,
}

impl<'a> Token<'a> {
    pub(super) fn split(token: &'a str) -> Result<Token<'a>, TokenError> {
        let (signed, signature) = token.rsplit_once('.').ok_or(TokenError::Malformed)?;
        let (header, payload) = signed.split_once('.').ok_or(TokenError::Malformed)?;
        if payload.contains('.') {
            return Err(TokenError::Malformed);
        }
        let header = String::from_utf8(decode(header)?).map_err(|_| TokenError::Malformed)?;
        let raw: RawHeader<'_> = object(&header).map_err(|_| TokenError::Malformed)?;
        if raw.crit.is_some() {
            return Err(TokenError::Critical);
        }
        let header = Header { alg: Alg::find(&raw.alg), kid: raw.kid.map(Cow::into_owned) };
        Ok(Token { signed, payload, signature, header })
    }

    pub(super) fn header(&self) -> &Header {
        &self.header
    }

    /// What the signature is made over.
    pub(super) fn signed(&self) -> &'a [u8] {
        self.signed.as_bytes()
    }

    pub(super) fn payload(&self) -> Result<Vec<u8>, TokenError> {
        decode(self.payload)
    }

    pub(super) fn signature(&self) -> Result<Vec<u8>, TokenError> {
        decode(self.signature)
    }
}

impl Header {
    pub(super) fn alg(&self) -> Option<Alg> {
        self.alg
    }

    pub(super) fn kid(&self) -> Option<&str> {
        self.kid.as_deref()
    }
}

fn decode(word: &str) -> Result<Vec<u8>, TokenError> {
    BASE64URL_NOPAD.decode(word.as_bytes()).map_err(|_| TokenError::Malformed)
}
