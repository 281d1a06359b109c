//! What a connection is: whose it is, and what it may do.
//!
//! A guest's identity is made here, from its request; where tokens are asked for it comes from what the token grants
//! ([`Passport`]), and what it may do is in its [`Authority`]. All of it is part of what a connection *is*, and cannot be
//! built again from anything else.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use super::backend::{Ticket, Token};
use crate::auth;
use crate::auth::Permissions;
use crate::conn::{PeerError, Target, TokenBucket};
use crate::ids::ClientId;
use crate::limits::{EXPIRY_JITTER_MS_MAX, RATE_FORGIVEN_MS, RATE_STRIKES_MAX};
use crate::protocol::{Position, Rejection, SubscribeOptions};
use crate::router::RAW_PREFIX;
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
    /// An echo, which is in no room.
    Echo,
}

/// As what a request gets in.
#[derive(Debug)]
pub(super) enum Passport {
    /// Nobody asks for tokens.
    Guest,
    /// It has no token, and needs none for this much.
    Anonymous(Arc<Permissions>),
    /// The client's TLS certificate says who it is; `None` where nobody asks for tokens.
    Certificate { user: String, permissions: Option<Arc<Permissions>> },
    /// Its token says who it is, or the backend.
    Token(auth::Grant),
}

/// What a connection may do, where it is bounded: the cold part of a connection.
#[derive(Debug)]
pub(super) enum Grant {
    /// Anything, at this rate.
    Guest(Rate),
    /// Anything, in a raw room, as the user of a certificate.
    Certified(Box<Certified>),
    /// What its token says.
    Token(Box<Authority>),
}

/// A connection without a token takes no more than its rate.
const _: () = assert!(size_of::<Grant>() == size_of::<Rate>());

/// A raw room's member where nobody asks for tokens.
#[derive(Debug)]
pub(super) struct Certified {
    user: Box<str>,
    rate: Option<Rate>,
}

/// What a token allows, or the backend, and for how long.
#[derive(Debug)]
pub(super) struct Authority {
    pub(super) permissions: Arc<Permissions>,
    pub(super) rate: Option<Rate>,
    pub(super) expiry: Option<Expiry>,
    /// Whether it may speak in its raw room; `true` where it is in none.
    pub(super) may_speak: bool,
    /// Whose it is, where it is a raw room's member and has been named: the others are found by their inbox.
    raw_user: Option<Box<str>>,
    /// What was decided about publishing into rooms that it has joined, in place of its permissions.
    publish: Option<Box<PublishDecisions>>,
    /// The command that waits for others: none of its later commands is looked at before it is answered.
    pub(super) pending: Option<Box<Pending>>,
}

/// By room.
#[derive(Debug, Default)]
struct PublishDecisions(HashMap<Box<str>, bool>);

/// When a token ends. Times are Unix milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Expiry {
    pub(super) ends_unix_ms: u64,
    /// So much later the connection is closed, so that not all of a login storm end at once.
    jitter_ms: u64,
    /// Whether the client was told that it comes.
    pub(super) told: bool,
}

/// How far a `refresh` or a join is, with the command's id as JSON text.
///
/// ```text
///   refresh ─► Waiting ─► Verifying ─┬─► Deciding ─┬─► Leaving ─► answered
///                                    └─────────────┴────────────► answered
///   join ────► Joining ─► answered
/// ```
#[derive(Debug)]
pub(super) enum Pending {
    /// The token waits until it can be looked at elsewhere, or until newer keys are here.
    Waiting { id: Option<Box<str>>, token: Token },
    /// It is looked at elsewhere.
    Verifying { id: Option<Box<str>> },
    /// The backend decides about it.
    Deciding { id: Option<Box<str>>, ticket: Ticket },
    /// It is in force, and the rooms that it does not allow are being left.
    Leaving { id: Box<str>, expires_unix_ms: Option<u64> },
    /// The backend decides about these rooms.
    Joining {
        id: Option<Box<str>>,
        rooms: AskedRooms,
        position: Option<Position<'static>>,
        options: Option<Box<SubscribeOptions<'static>>>,
        ticket: Ticket,
    },
}

/// Rooms that the backend is asked about, in the order of the command; its question has the same ones.
#[derive(Clone, Debug)]
pub(super) struct AskedRooms {
    pub(super) names: Arc<[String]>,
    /// Whether they stand in a list, be it of one.
    pub(super) is_list: bool,
}

impl AskedRooms {
    /// The refusal of a command that joins them, which is about the room where there is one alone.
    pub(super) fn rejection_of<'a>(&self, rejection: Rejection<'a>) -> Rejection<'a> {
        match (self.is_list, self.names.first()) {
            (false, Some(room)) => rejection.about(Cow::Owned(room.clone())),
            (true, _) | (false, None) => rejection,
        }
    }
}

impl Pending {
    /// Bytes that it holds of what its connection has sent.
    pub(super) fn held_bytes(&self) -> usize {
        match self {
            Pending::Waiting { token, .. } => token.0.len(),
            Pending::Deciding { ticket, .. } | Pending::Joining { ticket, .. } => ticket.bytes,
            Pending::Verifying { .. } | Pending::Leaving { .. } => 0,
        }
    }

    /// Whether it waits for a thread that is no reactor.
    pub(super) fn is_elsewhere(&self) -> bool {
        match self {
            Pending::Waiting { .. }
            | Pending::Verifying { .. }
            | Pending::Deciding { .. }
            | Pending::Joining { .. } => true,
            Pending::Leaving { .. } => false,
        }
    }
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

/// The configured rates, in units per second; 0 is no limit.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rates {
    pub(super) messages: u64,
    pub(super) bytes: u64,
}

impl Passport {
    /// The user that a token or a certificate names, or the backend.
    pub(super) fn user(&self) -> Option<&str> {
        match self {
            Passport::Token(grant) => Some(&grant.user),
            Passport::Certificate { user, .. } => Some(user),
            Passport::Guest | Passport::Anonymous(_) => None,
        }
    }

    /// What it allows; `None` is anything.
    pub(super) fn permissions(&self) -> Option<&Arc<Permissions>> {
        match self {
            Passport::Guest | Passport::Certificate { permissions: None, .. } => None,
            Passport::Anonymous(permissions) | Passport::Certificate { permissions: Some(permissions), .. } => {
                Some(permissions)
            }
            Passport::Token(grant) => Some(&grant.permissions),
        }
    }
}

impl Identity {
    /// Whoever comes without a token is what the request says: a user by its own word, or else by the client id.
    /// `may_publish` is what was decided about its raw room, in place of its permissions.
    pub(super) fn new(
        target: &Target,
        passport: Passport,
        client_id: impl FnOnce() -> ClientId,
        rates: Rates,
        now: Millis,
        jitter: impl FnOnce(u64) -> u64,
        may_publish: Option<bool>,
    ) -> Identity {
        let subject = match (target, passport.user()) {
            (Target::Json { .. }, Some(user)) => Subject::User(user.to_owned()),
            (Target::Json { user: Some(user) }, None) => Subject::User(user.clone()),
            (Target::Json { user: None }, None) => Subject::User(client_id().to_string()),
            (Target::Raw { room, .. }, _) => Subject::RawRoom(room.clone()),
            (Target::Echo, _) => Subject::Echo,
        };
        let raw_room = match target {
            Target::Raw { room, .. } => Some(raw_room(room)),
            Target::Json { .. } | Target::Echo => None,
        };
        let may_speak = |permissions: &Permissions| {
            may_publish.unwrap_or_else(|| raw_room.is_none_or(|room| permissions.may_publish(&room)))
        };
        let raw_user = match target {
            Target::Raw { .. } | Target::Echo => passport.user().map(Box::from),
            Target::Json { .. } => None,
        };
        let authority = |permissions: Arc<Permissions>, expiry, raw_user| {
            let may_speak = may_speak(&permissions);
            Grant::Token(Box::new(Authority { raw_user, may_speak, ..Authority::new(permissions, expiry, rates, now) }))
        };
        let grant = match passport {
            Passport::Guest => Rate::new(rates.messages, rates.bytes, now).map(Grant::Guest),
            Passport::Certificate { permissions: None, .. } => {
                let rate = Rate::new(rates.messages, rates.bytes, now);
                match raw_user {
                    Some(user) => Some(Grant::Certified(Box::new(Certified { user, rate }))),
                    None => rate.map(Grant::Guest),
                }
            }
            Passport::Anonymous(permissions) | Passport::Certificate { permissions: Some(permissions), .. } => {
                Some(authority(permissions, None, raw_user))
            }
            Passport::Token(auth::Grant { permissions, expires_unix_ms, .. }) => {
                Some(authority(permissions, expires_unix_ms.map(|ends| Expiry::new(ends, jitter)), raw_user))
            }
        };
        Identity { subject, grant: grant.map(Box::new) }
    }
}

/// How permissions call a raw room.
pub(super) fn raw_room(room: &str) -> String {
    format!("{RAW_PREFIX}{room}")
}

impl Grant {
    pub(super) fn rate_mut(&mut self) -> Option<&mut Rate> {
        match self {
            Grant::Guest(rate) => Some(rate),
            Grant::Certified(certified) => certified.rate.as_mut(),
            Grant::Token(authority) => authority.rate.as_mut(),
        }
    }

    /// Whose it is, where it is a raw room's member and has been named.
    pub(super) fn raw_user(&self) -> Option<&str> {
        match self {
            Grant::Guest(_) => None,
            Grant::Certified(certified) => Some(&certified.user),
            Grant::Token(authority) => authority.raw_user.as_deref(),
        }
    }

    pub(super) fn authority(&self) -> Option<&Authority> {
        match self {
            Grant::Guest(_) | Grant::Certified(_) => None,
            Grant::Token(authority) => Some(authority),
        }
    }

    pub(super) fn authority_mut(&mut self) -> Option<&mut Authority> {
        match self {
            Grant::Guest(_) | Grant::Certified(_) => None,
            Grant::Token(authority) => Some(authority),
        }
    }
}

impl Authority {
    fn new(permissions: Arc<Permissions>, expiry: Option<Expiry>, rates: Rates, now: Millis) -> Authority {
        let messages = permissions.messages_per_second().unwrap_or(rates.messages);
        let rate = Rate::new(messages, rates.bytes, now);
        Authority { permissions, rate, expiry, may_speak: true, raw_user: None, publish: None, pending: None }
    }

    /// Whether it may publish into a room, as a member.
    pub(super) fn may_publish(&self, room: &str) -> bool {
        let decided = self.publish.as_ref().and_then(|decided| decided.0.get(room));
        decided.copied().unwrap_or_else(|| self.permissions.may_publish(room))
    }

    /// Notes what was decided about publishing into a room; `None` leaves it to the permissions.
    pub(super) fn note_publish(&mut self, room: &str, publish: Option<bool>) {
        match publish {
            Some(publish) => _ = self.publish.get_or_insert_default().0.insert(room.into(), publish),
            None => _ = self.publish.as_mut().and_then(|decided| decided.0.remove(room)),
        }
    }

    /// Where more than `rooms_max` of these are noted, those are forgotten that `is_member` does not name.
    pub(super) fn forget_publish(&mut self, rooms_max: usize, mut is_member: impl FnMut(&str) -> bool) {
        if let Some(decided) = self.publish.as_mut().filter(|decided| decided.0.len() > rooms_max) {
            decided.0.retain(|room, _| is_member(room));
        }
    }

    /// Another token takes the place of the one before. What was sent counts on.
    pub(super) fn replace(&mut self, permissions: Arc<Permissions>, expiry: Option<Expiry>, rates: Rates, now: Millis) {
        let messages = permissions.messages_per_second().unwrap_or(rates.messages);
        self.rate = match self.rate.take() {
            Some(rate) => rate.at_rate(messages, now),
            None => Rate::new(messages, rates.bytes, now),
        };
        self.permissions = permissions;
        self.expiry = expiry;
    }
}

impl Expiry {
    pub(super) fn new(ends_unix_ms: u64, jitter: impl FnOnce(u64) -> u64) -> Expiry {
        Expiry { ends_unix_ms, jitter_ms: jitter(EXPIRY_JITTER_MS_MAX), told: false }
    }

    /// When the connection is closed.
    pub(super) fn closes_unix_ms(&self) -> u64 {
        self.ends_unix_ms.saturating_add(self.jitter_ms)
    }
}

impl Rate {
    /// So many messages and bytes in a second, from `now` on; 0 is no limit, and of both there is no rate.
    pub(super) fn new(messages_per_second: u64, bytes_per_second: u64, now: Millis) -> Option<Rate> {
        let bucket = |per_second: u64| (per_second > 0).then(|| TokenBucket::new(per_second, now));
        let (messages, bytes) = (bucket(messages_per_second), bucket(bytes_per_second));
        (messages.is_some() || bytes.is_some()).then_some(Rate { messages, bytes, strikes: 0, strike_at: now })
    }

    /// With so many messages in a second from now on.
    fn at_rate(mut self, messages_per_second: u64, now: Millis) -> Option<Rate> {
        self.messages = (messages_per_second > 0).then(|| match self.messages {
            Some(bucket) => bucket.at_rate(messages_per_second, now),
            None => TokenBucket::new(messages_per_second, now),
        });
        (self.messages.is_some() || self.bytes.is_some()).then_some(self)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::Allowance;
    use crate::conn::ItemOptions;

    fn raw_user(target: &Target, passport: Passport) -> Option<String> {
        let client_id = || panic!("it has a name, or needs none");
        let rates = Rates { messages: 0, bytes: 0 };
        let identity = Identity::new(target, passport, client_id, rates, Millis(0), |_| 0, None);
        identity.grant.and_then(|grant| grant.raw_user().map(str::to_owned))
    }

    #[test]
    fn a_raw_rooms_member_keeps_its_users_name_and_a_guest_keeps_nothing() {
        let raw = Target::Raw { room: "den".to_owned(), echo: false, options: ItemOptions::None };
        let json = Target::Json { user: Some("alice".to_owned()) };
        let permissions = || Arc::new(Permissions::new(&Allowance::default()));
        let certificate = |permissions| Passport::Certificate { user: "alice".to_owned(), permissions };
        let token = || {
            let user = "alice".into();
            Passport::Token(auth::Grant {
                user,
                permissions: permissions(),
                expires_unix_ms: None,
                issued_unix_s: None,
            })
        };
        for named in [certificate(None), certificate(Some(permissions())), token()] {
            assert_eq!(raw_user(&raw, named).as_deref(), Some("alice"));
        }
        for named in [certificate(None), certificate(Some(permissions())), token()] {
            assert_eq!(raw_user(&json, named), None, "it is found by its inbox");
        }
        for unnamed in [Passport::Guest, Passport::Anonymous(permissions())] {
            assert_eq!(raw_user(&raw, unnamed), None);
        }
        let rates = Rates { messages: 0, bytes: 0 };
        let guest = Identity::new(&raw, Passport::Guest, || panic!("it has no name"), rates, Millis(0), |_| 0, None);
        assert!(guest.grant.is_none());
    }
}
