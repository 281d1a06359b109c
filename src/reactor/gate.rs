//! Who gets in: the page that asks, then the token, then what the token allows, then whether there is room. Whoever is
//! refused at one step learns nothing about the next.

use std::collections::VecDeque;
use std::sync::Arc;

use super::addresses::Addresses;
use super::connection::{Authorizing, Phase, Token};
use super::driver::{Driver, ListenerId, RemoteAddr, SlotKey};
use super::identity::{Passport, Refreshing, raw_room};
use super::verifier::{Job, Verdict, Verifier};
use super::worker::Worker;
use crate::auth::{Auth, Cost, Grant, Origins, TokenError, When};
use crate::conn::{Credentials, HttpRefusal, Naming, Presented, Target, Unauthorized, Upgrade};
use crate::limits::VERIFICATIONS_UNDER_WAY;
use crate::network::Networks;
use crate::time::Millis;

/// Who gets in. The default: everybody.
#[derive(Clone, Debug, Default)]
pub struct Gate {
    /// What tokens are checked with; `None` asks for none.
    pub auth: Option<Arc<Auth>>,
    /// Pages that may connect; `None` asks no page.
    pub origins: Option<Arc<Origins>>,
    /// So long before a token's end its client is told.
    pub expiring_before_ms: u64,
    /// Where signatures by public keys are checked; `None` checks them on the reactor.
    pub verifier: Option<Verifier>,
    /// Listeners that serve pages and no WebSocket.
    pub pages_only: Arc<[ListenerId]>,
    /// What each address may have of the node; `None` counts none.
    pub addresses: Option<Arc<Addresses>>,
    /// Proxies that are believed when they say whose a connection or a request is.
    pub trusted: Arc<Networks>,
    /// By listener: whether its connections begin with a PROXY header, as its driver sees to. One beyond the list has none.
    pub proxied_listeners: Arc<[bool]>,
}

impl Gate {
    /// By what a request says whose it is.
    pub(super) fn naming(&self) -> Naming {
        match (&self.auth, &self.origins) {
            (Some(_), _) => Naming::Token,
            (None, Some(_)) => Naming::OwnWordAndOrigin,
            (None, None) => Naming::OwnWord,
        }
    }

    /// Whether a proxy connects from there that is believed.
    pub(super) fn trusts(&self, remote: RemoteAddr) -> bool {
        match remote {
            RemoteAddr::Tcp(remote) => self.trusted.contain(remote.ip()),
            RemoteAddr::Unix => self.trusted.contain_unix(),
        }
    }

    /// Whether connections of a listener begin with a PROXY header.
    pub(super) fn wants_proxy_header(&self, listener: ListenerId) -> bool {
        self.proxied_listeners.get(usize::from(listener.0)).is_some_and(|wants_header| *wants_header)
    }

    fn check_origin(&self, credentials: &Credentials) -> Result<(), HttpRefusal> {
        let (Some(origins), Some(origin)) = (&self.origins, &credentials.origin) else { return Ok(()) };
        match origins.allow(origin, Some(&credentials.host)) {
            true => Ok(()),
            false => Err(HttpRefusal::Forbidden("pages of this origin may not connect here: see auth.origins")),
        }
    }
}

/// A reactor's tokens that are looked at elsewhere.
#[derive(Debug, Default)]
pub(super) struct Asked {
    under_way: usize,
    /// Connections whose token waits, first come, first served. An entry may be outdated.
    waiting: VecDeque<SlotKey>,
}

impl<D: Driver> Worker<D> {
    /// The request is well formed.
    pub(super) fn admit(&mut self, slot: SlotKey, mut upgrade: Upgrade, early: Vec<u8>, until: Millis) {
        let certified = self.driver.certified_user(slot);
        let Some(credentials) = upgrade.credentials.take() else {
            return self.upgrade(slot, upgrade, early, until, guest(certified));
        };
        if let Err(refusal) = self.settings.gate.check_origin(&credentials) {
            return self.refuse(slot, refusal);
        }
        let Some(auth) = &self.settings.gate.auth else {
            return self.upgrade(slot, upgrade, early, until, guest(certified));
        };
        match credentials.token {
            Presented::Nothing => match (certified, auth.anonymous()) {
                (Some(user), _) => {
                    let permissions = Some(auth.default_permissions());
                    self.pass(slot, upgrade, early, until, Passport::Certificate { user, permissions });
                }
                (None, Some(permissions)) => {
                    self.pass(slot, upgrade, early, until, Passport::Anonymous(permissions));
                }
                (None, None) => self.refuse(slot, HttpRefusal::Unauthorized(Unauthorized::Missing)),
            },
            Presented::Several => self.refuse(slot, HttpRefusal::Unauthorized(Unauthorized::Several)),
            Presented::Token(token) if self.is_for_elsewhere(auth, &token) => {
                let Some(connection) = self.connections.get_mut(slot) else { return };
                connection.begin_authorizing(Authorizing {
                    upgrade: Some(upgrade),
                    token: Some(Token(token)),
                    early,
                    until,
                });
                self.ask_elsewhere(slot);
            }
            Presented::Token(token) => match auth.verify(&token, self.unix_ms, When::Handshake) {
                Ok(grant) => self.pass(slot, upgrade, early, until, Passport::Token(grant)),
                Err(error) => self.refuse(slot, refusal_of(error)),
            },
        }
    }

    /// Whether a token is to be looked at by another thread.
    pub(super) fn is_for_elsewhere(&self, auth: &Auth, token: &str) -> bool {
        self.settings.gate.verifier.is_some() && auth.cost(token) == Cost::Slow
    }

    /// A connection has a token for another thread.
    pub(super) fn ask_elsewhere(&mut self, slot: SlotKey) {
        self.asked.waiting.push_back(slot);
        self.ask_next();
    }

    fn ask_next(&mut self) {
        while self.asked.under_way < VERIFICATIONS_UNDER_WAY {
            let Some(slot) = self.asked.waiting.pop_front() else { break };
            let Some((token, when)) = self.take_token(slot) else { continue };
            let (Some(auth), Some(verifier)) = (&self.settings.gate.auth, &self.settings.gate.verifier) else {
                continue;
            };
            self.asked.under_way += 1;
            let (reactor, unix_ms, auth) = (self.me, self.unix_ms, auth.clone());
            verifier.send(Job { reactor, slot, token, unix_ms, when, auth });
        }
    }

    /// The token that a connection waits with, if it is there still.
    fn take_token(&mut self, slot: SlotKey) -> Option<(String, When)> {
        let connection = self.connections.get_mut(slot)?;
        if let Some(authorizing) = connection.authorizing_mut() {
            return Some((authorizing.token.take()?.0, When::Handshake));
        }
        let refreshing = connection.authority_mut()?.refreshing.as_deref_mut()?;
        match refreshing {
            Refreshing::Waiting { id, token } => {
                let (id, token) = (id.take(), std::mem::take(&mut token.0));
                *refreshing = Refreshing::Verifying { id };
                Some((token, When::Refresh))
            }
            Refreshing::Verifying { .. } | Refreshing::Leaving { .. } => None,
        }
    }

    /// Another thread has looked at a token.
    pub(super) fn judged(&mut self, verdict: Verdict) {
        let Verdict { slot, outcome } = verdict;
        self.asked.under_way -= 1;
        self.ask_next();
        let Some(connection) = self.connections.get_mut(slot) else { return };
        match connection.phase() {
            Phase::Authorizing(_) => self.authorized(slot, outcome),
            Phase::Json => self.refresh_judged(slot, outcome),
            Phase::Handshake(_)
            | Phase::Opening(_)
            | Phase::Raw { .. }
            | Phase::Quiescing(_)
            | Phase::Closing { .. }
            | Phase::Leaving { .. }
            | Phase::Lingering { .. }
            | Phase::Terminating(_) => {}
        }
    }

    fn authorized(&mut self, slot: SlotKey, outcome: Result<Grant, TokenError>) {
        match outcome {
            Err(error) => self.refuse(slot, refusal_of(error)),
            Ok(grant) => {
                let authorizing = self.connections.get_mut(slot).and_then(|connection| connection.authorizing_mut());
                let Some(Authorizing { upgrade, early, until, token: _ }) = authorizing else { return };
                let (Some(upgrade), early, until) = (upgrade.take(), std::mem::take(early), *until) else { return };
                self.pass(slot, upgrade, early, until, Passport::Token(grant));
            }
        }
    }

    /// It is known who asks: a raw room is for those only who may join it.
    fn pass(&mut self, slot: SlotKey, upgrade: Upgrade, early: Vec<u8>, until: Millis, passport: Passport) {
        if let (Target::Raw { room, .. }, Some(permissions)) = (&upgrade.target, passport.permissions())
            && !permissions.may_join(&raw_room(room))
        {
            return self.refuse(slot, HttpRefusal::Forbidden("this room is not among those that you may join"));
        }
        self.upgrade(slot, upgrade, early, until, passport);
    }
}

/// As what a connection gets in where nobody asks for tokens.
fn guest(certified: Option<String>) -> Passport {
    match certified {
        Some(user) => Passport::Certificate { user, permissions: None },
        None => Passport::Guest,
    }
}

fn refusal_of(error: TokenError) -> HttpRefusal {
    HttpRefusal::Unauthorized(Unauthorized::Invalid(what_is_wrong(error)))
}

/// What is told of a token that is not valid. Up to the signature all is one: nobody finds out by trying which keys there
/// are.
pub(super) fn what_is_wrong(error: TokenError) -> &'static str {
    match error {
        TokenError::TooLong
        | TokenError::Malformed
        | TokenError::Alg
        | TokenError::Critical
        | TokenError::UnknownKey
        | TokenError::KeyAlg
        | TokenError::Signature => "it is not signed by a key of this server (fanfare token --inspect says more)",
        TokenError::Claims | TokenError::Missing(_) | TokenError::Claim(_) => {
            "a claim is missing, or not what it has to be (fanfare token --inspect says which)"
        }
        TokenError::Issuer => "its iss is another one",
        TokenError::Audience => "its aud names others",
        TokenError::Expired => "it has expired: get a new one",
        TokenError::NotYet => "it is not valid yet",
    }
}
