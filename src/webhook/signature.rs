//! The header field by which a receiver knows that a request is from here, and how old it is.
//!
//! `X-Fanfare-Signature: t=T,v1=HEX`, where `HEX` is HMAC-SHA256 (RFC 2104) over `T`, a point and the body. `T` is when the
//! attempt began, in Unix milliseconds.

use std::fmt;

use data_encoding::HEXLOWER_PERMISSIVE;
use ring::hmac;

/// The header field's name.
pub const SIGNATURE_FIELD: &str = "x-fanfare-signature";

/// What requests to one receiver are signed with. It is shown to nobody.
#[derive(Clone)]
pub struct SigningSecret(hmac::Key);

impl SigningSecret {
    /// A secret as receivers have it.
    pub fn new(secret: &[u8]) -> SigningSecret {
        SigningSecret(hmac::Key::new(hmac::HMAC_SHA256, secret))
    }

    /// The header field's value for a body that is sent at a time.
    pub fn sign(&self, time_unix_ms: u64, body: &[u8]) -> String {
        let tag = hmac::sign(&self.0, &signed(time_unix_ms, body));
        format!("t={time_unix_ms},v1={}", HEXLOWER_PERMISSIVE.encode(tag.as_ref()))
    }

    /// Checks such a value: when the attempt began.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check(&self, value: &str, body: &[u8]) -> Result<u64, SignatureError> {
        let mut time = None;
        let mut tags = Vec::new();
        for part in value.split(',') {
            match part.trim().split_once('=') {
                Some(("t", text)) => time = text.parse::<u64>().ok(),
                Some(("v1", text)) => tags.extend(HEXLOWER_PERMISSIVE.decode(text.as_bytes()).ok()),
                // Other versions may stand beside it.
                _ => {}
            }
        }
        let time = time.ok_or(SignatureError::Malformed)?;
        if tags.is_empty() {
            return Err(SignatureError::Malformed);
        }
        let signed = signed(time, body);
        match tags.iter().any(|tag| hmac::verify(&self.0, &signed, tag).is_ok()) {
            true => Ok(time),
            false => Err(SignatureError::Wrong),
        }
    }
}

impl fmt::Debug for SigningSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Why a request is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignatureError {
    /// The value has no `t` or no `v1`.
    Malformed,
    /// It is of another body, time or secret.
    Wrong,
}

impl fmt::Display for SignatureError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SignatureError::Malformed => "the signature is not t=T,v1=HEX",
            SignatureError::Wrong => "the signature is wrong: compare the secrets of both sides",
        })
    }
}

fn signed(time_unix_ms: u64, body: &[u8]) -> Vec<u8> {
    let mut signed = format!("{time_unix_ms}.").into_bytes();
    signed.extend_from_slice(body);
    signed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_of_one_body_time_and_secret() {
        let secret = SigningSecret::new(b"key");
        let value = secret.sign(7, b"The quick brown fox");
        assert_eq!(secret.check(&value, b"The quick brown fox"), Ok(7));
        assert_eq!(secret.check(&format!("v0=1,{value}"), b"The quick brown fox"), Ok(7));
        assert_eq!(secret.check(&value, b"The quick brown fax"), Err(SignatureError::Wrong));
        assert_eq!(secret.check(&value.replace("t=7", "t=8"), b"The quick brown fox"), Err(SignatureError::Wrong));
        assert_eq!(SigningSecret::new(b"kez").check(&value, b"The quick brown fox"), Err(SignatureError::Wrong));
        for malformed in ["", "t=7", "v1=00", "t=x,v1=00", "t=7,v1=zz"] {
            assert_eq!(secret.check(malformed, b""), Err(SignatureError::Malformed), "{malformed}");
        }
        assert_eq!(format!("{secret:?}"), "***");
    }

    #[test]
    fn a_signature_is_the_one_that_openssl_makes() {
        // printf '1700000000000.{}' | openssl dgst -sha256 -hmac secret
        let value = SigningSecret::new(b"secret").sign(1_700_000_000_000, b"{}");
        assert_eq!(value, "t=1700000000000,v1=8399216d111287e3bb28e25c0f4f31dffdf831c68c9ee2b96c2f67c9b81d341b");
    }
}
