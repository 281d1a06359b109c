//! What a connection is: whose it is, and what it may do.
//!
//! A guest's identity is made here, from its request; an authenticator makes one from a token instead, and what it grants
//! goes into [`Grant`]. It is part of what a connection *is*, and cannot be built again from anything else.

use crate::conn::{PeerError, Target, TokenBucket};
use crate::ids::ClientId;
use crate::limits::{RATE_FORGIVEN_MS, RATE_STRIKES_MAX};
use crate::time::Millis;

/// What a connection is. Once it is open, its subject is the name of the first topic that it is subscribed to, and the
/// connection itself holds the grant alone: an idle one without a grant takes no bytes for it.
#[derive(Debug)]
pub(super) struct Identity {
    pub(super) subject: Subject,
    /// `None` where no bound is set.
    pub(super) grant: Option<Box<Grant>>,
}

/// Whose a connection is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Subject {
    /// A user's, who speaks JSON and has an inbox.
    User(String),
    /// A raw room's member, who has no name.
    RawRoom(String),
}

/// What a connection may do, where it is bounded: the cold part of a connection.
#[derive(Debug)]
pub(super) struct Grant {
    pub(super) rate: Rate,
}

/// What a connection may still send.
#[derive(Debug)]
pub(super) struct Rate {
    messages: Option<TokenBucket>,
    bytes: Option<TokenBucket>,
    /// Messages over the rate, since the last second without any.
    strikes: u32,
    strike_at: Millis,
}

impl Identity {
    /// Whoever comes without a token is what the request says: a user by its own word, or else by the client id.
    pub(super) fn of_guest(target: &Target, client_id: impl FnOnce() -> ClientId, rate: Option<Rate>) -> Identity {
        let subject = match target {
            Target::Json { user: Some(user) } => Subject::User(user.clone()),
            Target::Json { user: None } => Subject::User(client_id().to_string()),
            Target::Raw { room, .. } => Subject::RawRoom(room.clone()),
        };
        Identity { subject, grant: rate.map(|rate| Box::new(Grant { rate })) }
    }
}

impl Rate {
    /// So many messages and bytes in a second, from `now` on; 0 is no limit, and of both there is no rate.
    pub(super) fn new(messages_per_second: u64, bytes_per_second: u64, now: Millis) -> Option<Rate> {
        let bucket = |per_second: u64| (per_second > 0).then(|| TokenBucket::new(per_second, now));
        let (messages, bytes) = (bucket(messages_per_second), bucket(bytes_per_second));
        (messages.is_some() || bytes.is_some()).then_some(Rate { messages, bytes, strikes: 0, strike_at: now })
    }

    /// Whether a message of so many bytes is within the rate.
    ///
    /// # Errors
    /// [`PeerError::RateAbuse`] after more than `limits::RATE_STRIKES_MAX` messages over it, counted from the
    /// last time that nothing was over it for `limits::RATE_FORGIVEN_MS`.
    pub(super) fn take(&mut self, bytes: u64, now: Millis) -> Result<bool, PeerError> {
        let within = self.messages.as_mut().is_none_or(|bucket| bucket.take(1, now))
            && self.bytes.as_mut().is_none_or(|bucket| bucket.take(bytes, now));
        if within {
            if now.since(self.strike_at) >= RATE_FORGIVEN_MS {
                self.strikes = 0;
            }
            return Ok(true);
        }
        self.strikes += 1;
        self.strike_at = now;
        match self.strikes > RATE_STRIKES_MAX {
            true => Err(PeerError::RateAbuse),
            false => Ok(false),
        }
    }
}
