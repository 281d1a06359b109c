//! Who gets in: the page that asks, then the token, then the backend, then what is allowed, then whether there is room.
//! Whoever is refused at one step learns nothing about the next.
//!
//! ```text
//!   admit ─┬─► look_at_token ─┬─► (verifier's thread) ─► judge ─┬─► ask_about_request ─► (backend) ─► decided ─┬─► pass ─► enter
//!          │                  └─► (newer keys are fetched) ─┘   └──────────────────────────────────────┘
//!          └── no token ──────────────────────────────────────────► the same
//! ```

use std::collections::VecDeque;
use std::sync::Arc;

use super::addresses::Addresses;
use super::backend::{BackendAccess, KeysOutcome, KeysWanted, Token};
use super::connection::{Authorizing, Connection, Phase};
use super::counted;
use super::driver::{Driver, ListenerId, Provenance, RemoteAddr, SlotKey};
use super::handover::trusts;
use super::identity::{Passport, Pending, raw_room};
use super::lifecycle::TOO_EARLY;
use super::verifier::{Job, Verdict, Verifier};
use super::worker::Worker;
use crate::auth::{Auth, Cost, Grant, Origins, TokenError, When, says_port};
use crate::conn::{Credentials, HeadRules, HttpRefusal, Naming, Presented, Target, Unauthorized, Upgrade};
use crate::limits::{EARLY_BYTES_MAX, RETRY_AFTER_S_MAX, VERIFICATIONS_UNDER_WAY};
use crate::metrics::TokenFault;
use crate::network::Networks;
use crate::time::Millis;
use crate::tls::ClientName;

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
    /// By listener: its port, where it is bound to a loopback address.
    pub loopback_ports: Arc<[Option<u16>]>,
    /// Listeners that serve pages and no WebSocket.
    pub pages_only: Arc<[ListenerId]>,
    /// What each address may have of the node; `None` counts none.
    pub addresses: Option<Arc<Addresses>>,
    /// Proxies that are believed when they say whose a connection or a request is.
    pub trusted: Arc<Networks>,
    /// By listener: whether its connections begin with a PROXY header, as its driver sees to. One beyond the list has none.
    pub proxied_listeners: Arc<[bool]>,
    /// The team's backend, and keys from elsewhere; `None` where there are none.
    pub backend: Option<BackendAccess>,
    /// Paths whose connections get back what they send.
    pub echo: Arc<[Box<str>]>,
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

    /// How request heads are read.
    pub(super) fn head_rules(&self) -> HeadRules<'_> {
        HeadRules { naming: self.naming(), forward: self.forward(), echo: &self.echo }
    }

    /// Whether a proxy connects from there that is believed.
    pub(super) fn trusts(&self, remote: RemoteAddr) -> bool {
        trusts(&self.trusted, remote)
    }

    /// Whether connections of a listener begin with a PROXY header.
    pub(super) fn wants_proxy_header(&self, listener: ListenerId) -> bool {
        self.proxied_listeners.get(usize::from(listener.0)).is_some_and(|wants_header| *wants_header)
    }

    /// The fields of a request that are passed on.
    pub(super) fn forward(&self) -> &[String] {
        self.backend.as_ref().filter(|access| access.decides_connects).map_or(&[], |access| &access.forward)
    }

    pub(super) fn decides_connects(&self) -> bool {
        self.backend.as_ref().is_some_and(|access| access.decides_connects)
    }

    pub(super) fn decides_joins(&self) -> bool {
        self.backend.as_ref().is_some_and(|access| access.decides_joins)
    }

    /// A browser that reaches a loopback listener itself says the listener's own port in `Host`, and a proxy's client the
    /// proxy's. With that port, a name that is none of this machine was made to lead here (DNS rebinding): a page of the same
    /// name is not one of this server's. Pages of this machine need no such name.
    fn check_origin(&self, credentials: &Credentials, provenance: Provenance) -> Result<(), HttpRefusal> {
        let (Some(origins), Some(origin)) = (&self.origins, &credentials.origin) else { return Ok(()) };
        let host = &*credentials.host;
        let loopback_port = self.loopback_ports.get(usize::from(provenance.listener.0)).copied().flatten();
        let is_direct = loopback_port.is_some_and(|port| !provenance.proxied && says_port(host, port));
        match origins.allow(origin, (!is_direct).then_some(host)) {
            true => Ok(()),
            false => Err(HttpRefusal::Forbidden("pages of this origin may not connect here: see auth.origins")),
        }
    }

    /// Whether whoever brings this token waits for another thread.
    fn waits(&self, auth: &Auth, token: &Token) -> bool {
        match self.way(auth, &token.0) {
            Way::Here => self.decides_connects(),
            Way::Verifier | Way::NewerKeys => true,
        }
    }

    /// Where a token is looked at.
    pub(super) fn way(&self, auth: &Auth, token: &str) -> Way {
        match auth.cost(token) {
            Cost::Slow if self.verifier.is_some() => Way::Verifier,
            Cost::KeyMissing if self.backend.as_ref().is_some_and(|access| access.has_keys) => Way::NewerKeys,
            Cost::Inline | Cost::Slow | Cost::KeyMissing => Way::Here,
        }
    }
}

/// Where a token is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// On the reactor.
    Here,
    /// By the thread that checks signatures by public keys.
    Verifier,
    /// Here, once newer keys were fetched.
    NewerKeys,
}

/// A reactor's tokens that wait for other threads.
#[derive(Debug, Default)]
pub(super) struct Asked {
    under_way: usize,
    /// Connections whose token waits for the verifier, first come, first served. An entry may be outdated.
    waiting: VecDeque<SlotKey>,
    /// Connections whose token waits for newer keys: then these were asked for. An entry may be outdated.
    keyless: Vec<SlotKey>,
}

impl<D: Driver> Worker<D> {
    /// The request is well formed.
    pub(super) fn admit(
        &mut self,
        slot: SlotKey,
        mut upgrade: Upgrade,
        early: Vec<u8>,
        until: Millis,
        provenance: Provenance,
    ) {
        let certified = match self.driver.client_name(slot) {
            ClientName::NotShown => None,
            ClientName::User(user) => Some(user),
            ClientName::Nameless => {
                return self.refuse(slot, HttpRefusal::Forbidden("the subject of your certificate names no user"));
            }
        };
        let Some(credentials) = upgrade.credentials.take() else {
            return self.upgrade(slot, upgrade, early, until, guest(certified), None);
        };
        if let Err(refusal) = self.settings.gate.check_origin(&credentials, provenance) {
            return self.refuse(slot, refusal);
        }
        let Some(auth) = self.settings.gate.auth.clone() else {
            return self.upgrade(slot, upgrade, early, until, guest(certified), None);
        };
        let Credentials { token, origin, host: _, forwarded } = *credentials;
        let (token, passport) = match token {
            Presented::Several => return self.refuse(slot, HttpRefusal::Unauthorized(Unauthorized::Several)),
            Presented::Token(token) => (Some(Token(token)), None),
            Presented::Nothing if self.settings.gate.decides_connects() => (None, None),
            Presented::Nothing => match (certified.clone(), auth.anonymous()) {
                (Some(user), _) => {
                    let permissions = Some(auth.default_permissions());
                    (None, Some(Passport::Certificate { user, permissions }))
                }
                (None, Some(permissions)) => (None, Some(Passport::Anonymous(permissions))),
                (None, None) => return self.refuse(slot, HttpRefusal::Unauthorized(Unauthorized::Missing)),
            },
        };
        let has_token = token.is_some();
        let waits = match &token {
            Some(token) => self.settings.gate.waits(&auth, token),
            None => passport.is_none(),
        };
        if waits && early.len() > EARLY_BYTES_MAX {
            return self.refuse(slot, TOO_EARLY);
        }
        let Some(connection) = self.connections.get_mut(slot) else { return };
        let upgrade = Some(upgrade);
        connection.begin_authorizing(Authorizing {
            upgrade,
            token,
            passport: None,
            remote: provenance.remote,
            certified,
            origin,
            forwarded,
            ticket: None,
            early,
            until,
        });
        match passport {
            Some(passport) => self.pass(slot, passport),
            None if has_token => self.look_at_token(slot),
            None => self.ask_about_request(slot, None),
        }
    }

    /// A connection's token is to be looked at, here or by another thread.
    pub(super) fn look_at_token(&mut self, slot: SlotKey) {
        let Some(auth) = self.settings.gate.auth.clone() else { return };
        let Some(way) = self.way_of_token(slot, &auth) else { return };
        match way {
            Way::Verifier => {
                self.asked.waiting.push_back(slot);
                self.ask_verifier();
            }
            Way::NewerKeys => {
                let was_asked = !self.asked.keyless.is_empty();
                self.asked.keyless.push(slot);
                if let (false, Some(access)) = (was_asked, &self.settings.gate.backend) {
                    access.backend.want_keys(KeysWanted { reactor: self.me, generation: auth.generation() });
                }
            }
            Way::Here => self.judge_here(slot, &auth),
        }
    }

    fn judge_here(&mut self, slot: SlotKey, auth: &Auth) {
        let Some((token, when)) = self.take_token(slot) else { return };
        let outcome = auth.verify(&token.0, self.unix_ms, when);
        self.judge(slot, token, outcome);
    }

    fn ask_verifier(&mut self) {
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

    /// There are no newer keys to be had than those that are here.
    pub(super) fn keys_settled(&mut self, outcome: KeysOutcome) {
        let Some(auth) = self.settings.gate.auth.clone() else { return };
        for slot in std::mem::take(&mut self.asked.keyless) {
            match (self.way_of_token(slot, &auth), outcome) {
                (None, _) => {}
                (Some(Way::Verifier), _) => self.asked.waiting.push_back(slot),
                (Some(Way::NewerKeys), KeysOutcome::Unavailable) => self.leave_undecided(slot),
                (Some(Way::Here | Way::NewerKeys), _) => self.judge_here(slot, &auth),
            }
        }
        self.ask_verifier();
    }

    /// Whether the token is good that a connection waits with cannot be found out now.
    fn leave_undecided(&mut self, slot: SlotKey) {
        match self.connections.get(slot).is_some_and(Connection::is_beginning) {
            true => {
                let retry_after_s = self.random.u32(1..=RETRY_AFTER_S_MAX);
                self.refuse(slot, HttpRefusal::Undecided { retry_after_s });
            }
            false => self.refresh_undecided(slot),
        }
    }

    /// Where the token is looked at that a connection waits with, if it is there still.
    fn way_of_token(&self, slot: SlotKey, auth: &Auth) -> Option<Way> {
        let connection = self.connections.get(slot)?;
        let token =
            match (connection.phase(), connection.authority().and_then(|authority| authority.pending.as_deref())) {
                (Phase::Authorizing(authorizing), _) => authorizing.token.as_ref()?,
                (_, Some(Pending::Waiting { token, .. })) => token,
                (_, _) => return None,
            };
        Some(self.settings.gate.way(auth, &token.0))
    }

    /// The token that a connection waits with, taken out.
    fn take_token(&mut self, slot: SlotKey) -> Option<(Token, When)> {
        let connection = self.connections.get_mut(slot)?;
        if let Some(authorizing) = connection.authorizing_mut() {
            return Some((authorizing.token.take()?, When::Handshake));
        }
        let pending = connection.authority_mut()?.pending.as_deref_mut()?;
        match pending {
            Pending::Waiting { id, token } => {
                let (id, token) = (id.take(), std::mem::replace(token, Token(String::new())));
                *pending = Pending::Verifying { id };
                Some((token, When::Refresh))
            }
            Pending::Verifying { .. }
            | Pending::Deciding { .. }
            | Pending::Joining { .. }
            | Pending::Leaving { .. } => None,
        }
    }

    /// Another thread has looked at a token.
    pub(super) fn judged(&mut self, verdict: Verdict) {
        let Verdict { slot, token, outcome } = verdict;
        self.asked.under_way -= 1;
        self.ask_verifier();
        self.judge(slot, token, outcome);
    }

    /// A token was looked at: what follows for the connection that waits with it.
    fn judge(&mut self, slot: SlotKey, token: Token, outcome: Result<Grant, TokenError>) {
        let revocations = &self.connections.revocations;
        // It may have been revoked while it was looked at elsewhere.
        let outcome = outcome.and_then(|grant| match revocations.refuse(&grant.user, grant.issued_unix_s) {
            true => Err(TokenError::Revoked),
            false => Ok(grant),
        });
        if let Err(error) = &outcome {
            self.connections.counts.token_faults.count(counted::token_fault(error));
        }
        let Some(connection) = self.connections.get_mut(slot) else { return };
        match (connection.phase(), outcome) {
            (Phase::Authorizing(_), Err(error)) => self.refuse(slot, refusal_of(error)),
            (Phase::Authorizing(_), Ok(grant)) if self.settings.gate.decides_connects() => {
                self.ask_about_request(slot, Some((token, grant)));
            }
            (Phase::Json, Ok(grant)) if self.settings.gate.decides_connects() => {
                self.ask_about_refresh(slot, token, grant);
            }
            (Phase::Authorizing(_), Ok(grant)) => self.pass(slot, Passport::Token(grant)),
            (Phase::Json, outcome) => self.refresh_judged(slot, outcome),
            (
                Phase::Handshake(_)
                | Phase::Opening(_)
                | Phase::Raw { .. }
                | Phase::Quiescing(_)
                | Phase::Closing { .. }
                | Phase::Leaving { .. }
                | Phase::Lingering { .. }
                | Phase::Terminating(_),
                _,
            ) => {}
        }
    }

    /// It is known who asks: a raw room is for those only who may join it.
    pub(super) fn pass(&mut self, slot: SlotKey, passport: Passport) {
        let authorizing = self.connections.get_mut(slot).and_then(|connection| connection.authorizing_mut());
        let Some(Authorizing { upgrade: Some(upgrade), .. }) = authorizing else { return };
        let Target::Raw { room, .. } = &upgrade.target else { return self.enter(slot, passport, None) };
        let room = raw_room(room);
        if self.settings.gate.decides_joins() {
            return self.ask_about_raw_room(slot, passport, room);
        }
        match passport.permissions().is_none_or(|permissions| permissions.may_join(&room)) {
            true => self.enter(slot, passport, None),
            false => {
                self.refuse(slot, HttpRefusal::Forbidden("this room is not among those that you may join"));
            }
        }
    }

    /// Nothing is left to be found out. `may_publish` is what was decided about its raw room.
    pub(super) fn enter(&mut self, slot: SlotKey, passport: Passport, may_publish: Option<bool>) {
        let authorizing = self.connections.get_mut(slot).and_then(|connection| connection.authorizing_mut());
        let Some(Authorizing { upgrade, early, until, .. }) = authorizing else { return };
        let (Some(upgrade), early, until) = (upgrade.take(), std::mem::take(early), *until) else { return };
        self.upgrade(slot, upgrade, early, until, passport, may_publish);
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
    match counted::token_fault(&error) {
        TokenFault::Signature => "it is not signed by a key of this server (fanfare token --inspect says more)",
        TokenFault::Claims => "a claim is missing, or not what it has to be (fanfare token --inspect says which)",
        TokenFault::Issuer => "its iss is another one",
        TokenFault::Audience => "its aud names others",
        TokenFault::Expired => "it has expired: get a new one",
        TokenFault::NotYet => "it is not valid yet",
        TokenFault::Revoked => "it is revoked: get a new one",
    }
}
