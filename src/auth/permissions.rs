//! What a user may do, compiled once and shared by all who may do the same.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::json::{object, present};
use super::patterns::Patterns;
use super::token::TokenError;
use crate::config::Pattern;
use crate::limits::{PERMISSIONS_KEPT_BYTES_MAX, PERMISSIONS_KEPT_MAX, TOKEN_PATTERNS_MAX};

/// What may be done, as it is written. The default allows nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Allowance {
    /// Rooms that may be joined; history goes with it.
    pub join: Vec<Pattern>,
    /// Rooms that may be published into.
    pub publish: Vec<Pattern>,
    /// Rooms whose members may be asked for.
    pub presence: Vec<Pattern>,
    /// Messages to users and to connections.
    pub private: bool,
    /// Messages to all.
    pub broadcast: bool,
    /// Messages per second in place of the configured ones; 0 is no limit.
    pub messages_per_second: Option<u64>,
}

/// What may be done, compiled for many questions: each costs two searches by halving and, for patterns with a `*` elsewhere
/// than at their end, up to [`TOKEN_PATTERNS_MAX`] comparisons linear in pattern and room id.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Permissions {
    join: Patterns,
    publish: Patterns,
    presence: Patterns,
    private: bool,
    broadcast: bool,
    messages_per_second: Option<u64>,
}

impl Permissions {
    /// Compiles what is written. Raw rooms are asked for as `raw/ROOM`.
    pub fn new(allowance: &Allowance) -> Permissions {
        Permissions {
            join: Patterns::new(&allowance.join),
            publish: Patterns::new(&allowance.publish),
            presence: Patterns::new(&allowance.presence),
            private: allowance.private,
            broadcast: allowance.broadcast,
            messages_per_second: allowance.messages_per_second,
        }
    }

    /// Whether the room may be joined, and its history read.
    pub fn may_join(&self, room: &str) -> bool {
        self.join.match_room(room)
    }

    /// Whether the room may be published into.
    pub fn may_publish(&self, room: &str) -> bool {
        self.publish.match_room(room)
    }

    /// Whether it may be asked who is in the room.
    pub fn may_presence(&self, room: &str) -> bool {
        self.presence.match_room(room)
    }

    /// Whether messages to users and to connections may be sent.
    pub fn may_private(&self) -> bool {
        self.private
    }

    /// Whether messages to all may be sent.
    pub fn may_broadcast(&self) -> bool {
        self.broadcast
    }

    /// Messages per second in place of the configured ones; `Some(0)` is no limit.
    pub fn messages_per_second(&self) -> Option<u64> {
        self.messages_per_second
    }

    fn is_bounded(&self) -> bool {
        [&self.join, &self.publish, &self.presence].iter().all(|patterns| patterns.others() <= TOKEN_PATTERNS_MAX)
    }
}

/// The claim `fanfare`. What is absent comes from the default; other names in it are ignored.
#[derive(Deserialize)]
struct Claim<'a> {
    #[serde(default, deserialize_with = "patterns")]
    join: Option<Vec<Pattern>>,
    #[serde(default, deserialize_with = "patterns")]
    publish: Option<Vec<Pattern>>,
    #[serde(default, deserialize_with = "patterns")]
    presence: Option<Vec<Pattern>>,
    #[serde(default, deserialize_with = "present")]
    private: Option<bool>,
    #[serde(default, deserialize_with = "present")]
    broadcast: Option<bool>,
    #[serde(borrow, default, deserialize_with = "present")]
    rate: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Rate {
    #[serde(default, deserialize_with = "present")]
    messages_per_second: Option<u64>,
}

/// The permissions of claims. Equal claims get the same ones as long as somebody has them.
#[derive(Debug)]
pub(super) struct Compiled {
    allowance: Allowance,
    default: Arc<Permissions>,
    /// By the claim's text. At most [`PERMISSIONS_KEPT_MAX`] of at most [`PERMISSIONS_KEPT_BYTES_MAX`]. It can be built
    /// again.
    kept: Mutex<HashMap<Box<str>, Weak<Permissions>>>,
}

impl Compiled {
    pub(super) fn new(allowance: Allowance) -> Compiled {
        let default = Arc::new(Permissions::new(&allowance));
        Compiled { allowance, default, kept: Mutex::default() }
    }

    pub(super) fn default_permissions(&self) -> Arc<Permissions> {
        self.default.clone()
    }

    pub(super) fn permissions(&self, claim: Option<&str>) -> Result<Arc<Permissions>, TokenError> {
        let Some(claim) = claim else {
            return Ok(self.default.clone());
        };
        let is_kept = claim.len() <= PERMISSIONS_KEPT_BYTES_MAX;
        if is_kept && let Some(known) = self.find(claim) {
            return Ok(known);
        }
        let permissions = Arc::new(self.compile(claim)?);
        if is_kept {
            self.keep(claim, &permissions);
        }
        Ok(permissions)
    }

    fn compile(&self, claim: &str) -> Result<Permissions, TokenError> {
        let wrong = |_| TokenError::Claim("fanfare");
        let claim: Claim<'_> = object(claim).map_err(wrong)?;
        let rate = claim.rate.map(|rate| object::<Rate>(rate.get())).transpose().map_err(wrong)?;
        let default = &self.allowance;
        let own = |said: &Option<Vec<Pattern>>, default: &[Pattern]| Patterns::new(said.as_deref().unwrap_or(default));
        let permissions = Permissions {
            join: own(&claim.join, &default.join),
            publish: own(&claim.publish, &default.publish),
            presence: own(&claim.presence, &default.presence),
            private: claim.private.unwrap_or(default.private),
            broadcast: claim.broadcast.unwrap_or(default.broadcast),
            messages_per_second: rate.and_then(|rate| rate.messages_per_second).or(default.messages_per_second),
        };
        match permissions.is_bounded() {
            true => Ok(permissions),
            false => Err(TokenError::Claim("fanfare")),
        }
    }

    fn find(&self, claim: &str) -> Option<Arc<Permissions>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).get(claim)?.upgrade()
    }

    fn keep(&self, claim: &str, permissions: &Arc<Permissions>) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= PERMISSIONS_KEPT_MAX {
            kept.retain(|_, permissions| permissions.strong_count() > 0);
            // Still many: looking through them again and again would cost more than it saves.
            if kept.len() >= PERMISSIONS_KEPT_MAX / 2 {
                kept.clear();
            }
        }
        kept.insert(claim.into(), Arc::downgrade(permissions));
    }
}

fn patterns<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<Pattern>>, D::Error> {
    let texts = Vec::<String>::deserialize(deserializer)?;
    let patterns = texts.iter().map(|text| text.parse()).collect::<Result<_, String>>();
    patterns.map(Some).map_err(serde::de::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(number: usize) -> String {
        format!("{{\"join\":[\"room-{number}\"]}}")
    }

    #[test]
    fn as_many_claims_are_found_again_as_the_bound_says() {
        let compiled = Compiled::new(Allowance::default());
        let permissions = |number| compiled.permissions(Some(&claim(number))).expect("a good claim");
        let kept = || compiled.kept.lock().expect("no panic").len();
        let held: Vec<_> = (0..PERMISSIONS_KEPT_MAX).map(permissions).collect();
        assert_eq!(kept(), PERMISSIONS_KEPT_MAX);
        assert!(held.iter().enumerate().all(|(number, held)| Arc::ptr_eq(held, &permissions(number))));
        // All are in use: they begin anew.
        let _one_more = permissions(PERMISSIONS_KEPT_MAX);
        assert_eq!(kept(), 1);
        drop(held);
        let some: Vec<_> = (0..100).map(permissions).collect();
        (100..PERMISSIONS_KEPT_MAX - 1).for_each(|number| drop(permissions(number)));
        assert_eq!(kept(), PERMISSIONS_KEPT_MAX);
        // Few are in use: those stay.
        let _another = permissions(PERMISSIONS_KEPT_MAX + 1);
        assert_eq!(kept(), some.len() + 2);
        assert!(some.iter().enumerate().all(|(number, some)| Arc::ptr_eq(some, &permissions(number))));
    }
}
