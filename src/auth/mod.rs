//! Who a client is and what it may do: a token and the time in, a [`Grant`] out.
//!
//! Owns the keys that tokens are checked by and when new ones are fetched ([`KeyRefresh`]), the checks of their claims, and
//! what the claims allow, compiled ([`Permissions`]); what the team's backend is asked, and what its answers mean
//! ([`Question`]). Never reads a file, a clock or a socket, and never writes: what could be logged of a token is a
//! [`TokenError`], which holds nothing of it.
//!
//! Programs of the operator have keys of their own ([`ApiKeys`]).
//!
//! [`Auth`] is immutable and shared. Where keys change, a new one takes its place; grants of the one before stay what they
//! are.
//!
//! Imports `config` for the patterns that rooms are meant by and for the verbs of keys, and `limits`.

mod api_key;
mod backend;
mod claims;
mod json;
mod key;
mod key_refresh;
mod key_set;
mod mint;
mod origin;
mod patterns;
mod permissions;
mod public;
mod revocations;
mod sign;
#[cfg(test)]
mod tests;
mod token;

use std::sync::Arc;

pub use api_key::{ApiGrant, ApiKeyError, ApiKeys};
pub use backend::{Decision, Denial, Fault, Protocol, Question, RoomDecision, TokenSays, Visitor};
pub use key::{Alg, Key, KeyError};
pub use key_refresh::{KeyRefresh, Want};
pub use key_set::{KeySet, KeySetError, key_set};
pub use mint::Mint;
pub use origin::{Origins, says_port};
pub use permissions::{Allowance, Permissions};
pub use revocations::{Revocations, RevocationsFull};
pub use sign::SigningKey;
pub use token::{TokenError, texts};

use crate::limits::{TOKEN_BYTES_MAX, TOKEN_REFRESH_BYTES_MAX};
use permissions::Compiled;
use token::Token;

/// What tokens have to be like beside their signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// What `iss` has to equal; `None` takes any, and none.
    pub issuer: Option<String>,
    /// What `aud` has to name; `None` takes any, and none.
    pub audience: Option<String>,
    /// Whether who has no token gets in, with what [`Settings::default`] allows.
    pub anonymous: bool,
    /// By how much `exp` and `nbf` may be missed at the handshake, in milliseconds.
    pub leeway_ms: u64,
    /// Whether a token without `exp` is refused.
    pub expiry_required: bool,
    /// What a token that says nothing allows.
    pub default: Allowance,
}

/// When a token comes, which decides how exact its times are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// With the request: the leeway counts, and the request head bounds the token.
    Handshake,
    /// In `refresh`: no leeway, and a bound of its own.
    Refresh,
}

/// What checking a token costs, which decides where it is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cost {
    /// A microsecond or two: a symmetric signature, or nothing that could be one.
    Inline,
    /// A signature by a public key: tens of microseconds for each key that it is tried with.
    Slow,
    /// As `Inline`: it is not good. But it may be signed by a public key that is not here, or not yet.
    KeyMissing,
}

/// What a token says, and that it is true.
#[derive(Debug, Clone)]
pub struct Grant {
    /// The user id: 1 to 128 bytes.
    pub user: Box<str>,
    /// What the user may do.
    pub permissions: Arc<Permissions>,
    /// When it ends (`exp`), in Unix milliseconds; `None` never. At the handshake it may have passed already, by the leeway
    /// at most.
    pub expires_unix_ms: Option<u64>,
    /// When the token was made (`iat`), in whole Unix seconds.
    pub issued_unix_s: Option<u64>,
}

/// Keys and settings that tokens are checked with.
///
/// A token costs time and memory linear in its length, and one verification for each key that it may be meant for: the one
/// of its `kid`, or all of its `alg` without one.
#[derive(Debug)]
pub struct Auth {
    settings: Arc<Settings>,
    keys: Vec<Key>,
    compiled: Arc<Compiled>,
    revocations: Arc<Revocations>,
    generation: u64,
}

impl Auth {
    /// From keys as they stand in the settings and in key sets, all together.
    pub fn new(settings: Settings, keys: Vec<Key>) -> Auth {
        let compiled = Arc::new(Compiled::new(settings.default.clone()));
        let (settings, revocations) = (Arc::new(settings), Arc::default());
        Auth { settings, keys, compiled, revocations, generation: 0 }
    }

    /// The same with other keys, of the next generation.
    pub fn with_keys(&self, keys: Vec<Key>) -> Auth {
        let (settings, compiled) = (self.settings.clone(), self.compiled.clone());
        let revocations = self.revocations.clone();
        Auth { settings, keys, compiled, revocations, generation: self.generation + 1 }
    }

    /// The same with other settings and keys, of the next generation.
    pub fn with(&self, settings: Settings, keys: Vec<Key>) -> Auth {
        if settings == *self.settings {
            return self.with_keys(keys);
        }
        let revocations = self.revocations.clone();
        Auth { revocations, generation: self.generation + 1, ..Auth::new(settings, keys) }
    }

    /// How often the keys have changed.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Whether a token is good, and what it says.
    ///
    /// # Errors
    ///
    /// Why it is not: the first reason found, the signature before any claim.
    pub fn verify(&self, token: &str, now_unix_ms: u64, when: When) -> Result<Grant, TokenError> {
        let (bytes_max, leeway_ms) = match when {
            When::Handshake => (TOKEN_BYTES_MAX, self.settings.leeway_ms),
            When::Refresh => (TOKEN_REFRESH_BYTES_MAX, 0),
        };
        if token.len() > bytes_max {
            return Err(TokenError::TooLong);
        }
        let token = Token::split(token)?;
        self.check_signature(&token)?;
        let payload = token.payload()?;
        let claims = claims::read(&payload)?;
        let expires_unix_ms = claims.check(&self.settings, now_unix_ms, leeway_ms)?;
        let issued_unix_s = claims.iat.map(|at| at.as_s());
        if self.revocations.refuse(&claims.sub, issued_unix_s) {
            return Err(TokenError::Revoked);
        }
        Ok(Grant {
            user: claims.sub.as_ref().into(),
            permissions: self.compiled.permissions(claims.fanfare.map(|raw| raw.get()))?,
            expires_unix_ms,
            issued_unix_s,
        })
    }

    /// What [`Auth::verify`] would cost, by what the token says of itself.
    pub fn cost(&self, token: &str) -> Cost {
        let Ok(token) = Token::split(token) else { return Cost::Inline };
        let header = token.header();
        match header.alg() {
            Some(alg) if alg.is_hmac() => Cost::Inline,
            Some(_) if self.keys.iter().any(|key| key.kid() == header.kid()) => Cost::Slow,
            Some(_) => Cost::KeyMissing,
            None => Cost::Inline,
        }
    }

    /// What who has no token may do; `None` where a token is needed.
    pub fn anonymous(&self) -> Option<Arc<Permissions>> {
        self.settings.anonymous.then(|| self.compiled.default_permissions())
    }

    /// What a token that says nothing allows.
    pub fn default_permissions(&self) -> Arc<Permissions> {
        self.compiled.default_permissions()
    }

    /// Whose tokens are revoked. It outlives the keys.
    pub fn revocations(&self) -> &Arc<Revocations> {
        &self.revocations
    }

    /// The settings.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    fn check_signature(&self, token: &Token<'_>) -> Result<(), TokenError> {
        let header = token.header();
        let alg = header.alg().ok_or(TokenError::Alg)?;
        // With a kid the key of that name alone; without one those that have none.
        let mut named = self.keys.iter().filter(|key| key.kid() == header.kid()).peekable();
        if named.peek().is_none() {
            return Err(TokenError::UnknownKey);
        }
        let mut fitting = named.filter(|key| key.alg() == alg).peekable();
        if fitting.peek().is_none() {
            return Err(TokenError::KeyAlg);
        }
        let signature = token.signature()?;
        match fitting.any(|key| key.verify(token.signed(), &signature)) {
            true => Ok(()),
            false => Err(TokenError::Signature),
        }
    }
}
