//! The claims of a token (RFC 7519 §4). One that stands twice, is `null`, or of another type than it has to be is refused,
//! whether it is asked for or not; claims of other names are ignored.

use std::borrow::Cow;

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::Settings;
use super::json::{object, present};
use super::token::TokenError;
use crate::limits::USER_ID_BYTES_MAX;

/// The last second that a time may name: the end of the year 9999.
const SECONDS_MAX: f64 = 253_402_300_799.0;

#[derive(Deserialize)]
pub(super) struct Claims<'a> {
    #[serde(borrow, default)]
    pub(super) sub: Cow<'a, str>,
    #[serde(default, deserialize_with = "present")]
    exp: Option<Time>,
    #[serde(default, deserialize_with = "present")]
    nbf: Option<Time>,
    #[serde(default, deserialize_with = "present")]
    pub(super) iat: Option<Time>,
    #[serde(borrow, default, deserialize_with = "present")]
    iss: Option<Cow<'a, str>>,
    #[serde(default, deserialize_with = "present")]
    aud: Option<Audience>,
    #[serde(borrow, default, deserialize_with = "present")]
    pub(super) fanfare: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Several(Vec<String>),
}

/// A moment in Unix seconds, which may have a fraction.
#[derive(Clone, Copy)]
pub(super) struct Time(f64);

pub(super) fn read(payload: &[u8]) -> Result<Claims<'_>, TokenError> {
    let text = str::from_utf8(payload).map_err(|_| TokenError::Malformed)?;
    object(text).map_err(|error| match error.is_data() {
        true => TokenError::Claims,
        false => TokenError::Malformed,
    })
}

impl Claims<'_> {
    /// When the token ends, if all claims are as they have to be.
    pub(super) fn check(&self, wanted: &Settings, now_ms: u64, leeway_ms: u64) -> Result<Option<u64>, TokenError> {
        match self.sub.len() {
            0 => return Err(TokenError::Missing("sub")),
            1..=USER_ID_BYTES_MAX => {}
            _ => return Err(TokenError::Claim("sub")),
        }
        if wanted.issuer.is_some() && wanted.issuer.as_deref() != self.iss.as_deref() {
            return Err(TokenError::Issuer);
        }
        if wanted.audience.as_ref().is_some_and(|own| !self.is_for(own)) {
            return Err(TokenError::Audience);
        }
        match self.exp {
            None if wanted.expiry_required => return Err(TokenError::Missing("exp")),
            Some(exp) if exp.as_ms().saturating_add(leeway_ms) <= now_ms => return Err(TokenError::Expired),
            None | Some(_) => {}
        }
        if self.nbf.is_some_and(|nbf| nbf.as_ms() > now_ms.saturating_add(leeway_ms)) {
            return Err(TokenError::NotYet);
        }
        Ok(self.exp.map(Time::as_ms))
    }

    fn is_for(&self, own: &str) -> bool {
        match &self.aud {
            None => false,
            Some(Audience::One(one)) => one == own,
            Some(Audience::Several(several)) => several.iter().any(|one| one == own),
        }
    }
}

impl Time {
    /// Whole seconds.
    pub(super) fn as_s(self) -> u64 {
        self.as_ms() / 1_000
    }

    fn as_ms(self) -> u64 {
        // Within 0 and the year 9999: nothing is lost.
        (self.0 * 1_000.0) as u64
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Time, D::Error> {
        let seconds = f64::deserialize(deserializer)?;
        match (0.0..=SECONDS_MAX).contains(&seconds) {
            true => Ok(Time(seconds)),
            false => Err(serde::de::Error::custom("no time")),
        }
    }
}
