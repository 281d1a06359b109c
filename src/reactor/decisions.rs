//! What the backend decides: who a client is, in its handshake or with another token, and which rooms may be joined.
//!
//! Whoever waits for a decision gets one: where there is none in time, a handshake is answered 503 and a command
//! `unavailable`, and nothing has happened.

use std::borrow::Cow;
use std::sync::Arc;

use super::backend::{Asker, Decided, Inquiry, Ticket, Token};
use super::connection::{Authorizing, Connection, Phase};
use super::driver::{Driver, SlotKey};
use super::identity::{AskedRooms, Passport, Pending};
use super::worker::Worker;
use crate::auth::{Decision, Denial, Grant, Protocol, Question, RoomDecision, TokenSays, Visitor};
use crate::conn::{Forwarded, HttpRefusal, Target, Unauthorized};
use crate::limits::RETRY_AFTER_S_MAX;
use crate::protocol::{Command, ErrorCode, Position, Rejection, Request, Rooms, SubscribeOptions};
use crate::tls::ClientName;

impl<D: Driver> Worker<D> {
    /// Asks who a client is whose request waits. What it has shown is good.
    pub(super) fn ask_about_request(&mut self, slot: SlotKey, shown: Option<(Token, Grant)>) {
        let authorizing = self.connections.get_mut(slot).and_then(|connection| connection.authorizing_mut());
        let Some(Authorizing { upgrade, remote, certified, origin, forwarded, .. }) = authorizing else { return };
        let protocol = match upgrade.as_ref().map(|upgrade| &upgrade.target) {
            Some(Target::Raw { room, .. }) => Protocol::Raw(room.clone()),
            Some(Target::Echo) => Protocol::Echo,
            Some(Target::Json { .. }) | None => Protocol::Json,
        };
        let address = remote.tcp().map(|address| address.ip().to_canonical().to_string());
        let (origin, certificate_user, forwarded) = (origin.take(), certified.take(), std::mem::take(forwarded));
        let (token, says) = shown.map(|(token, grant)| (token, says(grant))).unzip();
        let visitor = Visitor { protocol, address, origin, certificate_user, token: says, is_open: false };
        let ticket = self.ask(slot, Question::Connect(visitor), token, forwarded);
        self.await_decision(slot, ticket);
    }

    /// A request waits for the backend, if that could be asked.
    fn await_decision(&mut self, slot: SlotKey, ticket: Option<Ticket>) {
        let Some(ticket) = ticket else {
            return self.decided(Decided { slot, decision: Decision::Denied(Denial::Unavailable) });
        };
        let authorizing = self.connections.get_mut(slot).and_then(|connection| connection.authorizing_mut());
        if let Some(authorizing) = authorizing {
            authorizing.ticket = Some(ticket);
        }
        self.connections.sessions.count_partial(slot);
    }

    /// Asks about another token of an open connection, which is good; `None` where it cannot be asked now.
    pub(super) fn ask_about_token(&self, slot: SlotKey, token: Token, grant: Grant) -> Option<Ticket> {
        let visitor = Visitor {
            protocol: Protocol::Json,
            address: None,
            origin: None,
            certificate_user: match self.driver.client_name(slot) {
                ClientName::User(user) => Some(user),
                // Who names nobody by its certificate is not let in.
                ClientName::NotShown | ClientName::Nameless => None,
            },
            token: Some(says(grant)),
            is_open: true,
        };
        self.ask(slot, Question::Connect(visitor), Some(token), Forwarded::default())
    }

    /// The token of a `refresh` has waited, and is good.
    pub(super) fn ask_about_refresh(&mut self, slot: SlotKey, token: Token, grant: Grant) {
        let Some(ticket) = self.ask_about_token(slot, token, grant) else { return self.refresh_undecided(slot) };
        let authority = self.connections.get_mut(slot).and_then(|connection| connection.authority_mut());
        let Some(pending) = authority.and_then(|authority| authority.pending.as_deref_mut()) else { return };
        let Pending::Verifying { id } = pending else { return };
        *pending = Pending::Deciding { id: id.take(), ticket };
        self.connections.sessions.count_partial(slot);
    }

    /// Asks whether a raw room may be joined, which its connection waits for in its handshake.
    pub(super) fn ask_about_raw_room(&mut self, slot: SlotKey, passport: Passport, room: String) {
        let client_id = self.connections.codec().encode(self.connections.id(slot)).to_string();
        let user = passport.user().map_or_else(|| client_id.clone(), str::to_owned);
        let authorizing = self.connections.get_mut(slot).and_then(|connection| connection.authorizing_mut());
        let Some(authorizing) = authorizing else { return };
        authorizing.passport = Some(passport);
        let question = Question::Join { user, client_id, rooms: Arc::new([room]), is_list: false };
        let ticket = self.ask(slot, question, None, Forwarded::default());
        self.await_decision(slot, ticket);
    }

    /// Asks which of these rooms may be joined: one question, however many they are. It holds up the commands behind it.
    /// What the connection's own rooms do not allow is not asked about.
    pub(super) fn ask_about_rooms<'a>(
        &mut self,
        slot: SlotKey,
        rooms: Rooms<'a>,
        position: Option<Position<'a>>,
        options: Option<Box<SubscribeOptions<'a>>>,
        id: Option<&'a str>,
    ) -> Result<(), Rejection<'a>> {
        let me = self.connections.id(slot);
        if rooms.names().is_empty() {
            return self.join(me, rooms, position, options, id);
        }
        self.check_join(me, &rooms, position.as_ref(), options.as_deref(), id)?;
        let rooms = match rooms {
            Rooms::One(room) => AskedRooms { names: Arc::new([room.into_owned()]), is_list: false },
            Rooms::Many(rooms) => AskedRooms { names: rooms.into_iter().map(Cow::into_owned).collect(), is_list: true },
        };
        let question = Question::Join {
            user: self.router.name(me).map(ToString::to_string).unwrap_or_default(),
            client_id: self.connections.codec().encode(me).to_string(),
            rooms: rooms.names.clone(),
            is_list: rooms.is_list,
        };
        let asked = self.ask(slot, question, None, Forwarded::default());
        let mut ticket = asked.ok_or_else(|| rooms.rejection_of(undecided(id)))?;
        let position = position.map(Position::into_owned);
        let options = options.map(|options| Box::new(options.into_owned()));
        ticket.bytes += options.as_ref().map_or(0, |options| options.held_bytes());
        self.hold_up(slot, Pending::Joining { id: id.map(Into::into), rooms, position, options, ticket });
        Ok(())
    }

    /// What a question that is under way is held by; `None` where it cannot be asked now.
    fn ask(&self, slot: SlotKey, question: Question, token: Option<Token>, forwarded: Forwarded) -> Option<Ticket> {
        let (access, auth) = (self.settings.gate.backend.as_ref()?, self.settings.gate.auth.clone()?);
        let asker = Asker { reactor: self.me, slot };
        let is_open = self.connections.get(slot).is_some_and(Connection::is_open);
        let inquiry = Inquiry { asker, question, token, forwarded, auth, is_open };
        let bytes = inquiry.held_bytes();
        let mut ticket = access.backend.ask(inquiry)?;
        ticket.bytes = bytes;
        Some(ticket)
    }

    /// The backend has decided, or did not in time.
    pub(super) fn decided(&mut self, decided: Decided) {
        let Decided { slot, decision } = decided;
        let Some(connection) = self.connections.get_mut(slot) else { return };
        match connection.phase() {
            Phase::Authorizing(_) => self.decided_in_handshake(slot, decision),
            Phase::Json => self.decided_for_command(slot, decision),
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

    fn decided_in_handshake(&mut self, slot: SlotKey, decision: Decision) {
        let refusal = match decision {
            Decision::Grant(grant) => return self.pass(slot, Passport::Token(grant)),
            Decision::Rooms(rooms) => {
                let authorizing = self.connections.get_mut(slot).and_then(|connection| connection.authorizing_mut());
                let passport = authorizing.and_then(|authorizing| authorizing.passport.take());
                match (passport, rooms.first()) {
                    (Some(passport), Some(RoomDecision { allow: true, publish })) => {
                        return self.enter(slot, passport, *publish);
                    }
                    _ => HttpRefusal::Forbidden("this room is not among those that you may join"),
                }
            }
            Decision::Denied(Denial::Unauthorized) => HttpRefusal::Unauthorized(Unauthorized::Unknown),
            Decision::Denied(Denial::Forbidden) => HttpRefusal::Forbidden("you may not connect here"),
            Decision::Denied(Denial::Unavailable) => {
                HttpRefusal::Undecided { retry_after_s: self.random.u32(1..=RETRY_AFTER_S_MAX) }
            }
        };
        self.refuse(slot, refusal);
    }

    fn decided_for_command(&mut self, slot: SlotKey, decision: Decision) {
        let authority = self.connections.get_mut(slot).and_then(|connection| connection.authority_mut());
        let Some(pending) = authority.and_then(|authority| authority.pending.take()) else { return };
        let id = match &*pending {
            Pending::Deciding { id, .. } | Pending::Joining { id, .. } => id.clone(),
            // Nothing of these waits for a decision.
            Pending::Waiting { .. } | Pending::Verifying { .. } | Pending::Leaving { .. } => None,
        };
        let id = id.as_deref();
        let outcome = match *pending {
            Pending::Deciding { .. } => self.refresh_decided(slot, decision, id),
            Pending::Joining { rooms, position, options, .. } => {
                self.join_decided(slot, &rooms, (position, options), decision, id)
            }
            Pending::Waiting { .. } | Pending::Verifying { .. } | Pending::Leaving { .. } => Ok(()),
        };
        self.answer_held_up(slot, outcome);
    }

    fn refresh_decided<'a>(
        &mut self,
        slot: SlotKey,
        decision: Decision,
        id: Option<&'a str>,
    ) -> Result<(), Rejection<'a>> {
        let (code, message) = match decision {
            Decision::Grant(grant) => return self.replace_grant(slot, grant, id),
            Decision::Denied(Denial::Unauthorized | Denial::Forbidden) => {
                (ErrorCode::Unauthorized, "the backend refuses the token; what was granted before stays in force")
            }
            Decision::Denied(Denial::Unavailable) | Decision::Rooms(_) => return Err(undecided(id)),
        };
        Err(Rejection::new(id, code, message))
    }

    /// Joins what is allowed. Of many rooms those that are not are told one by one.
    fn join_decided<'a>(
        &mut self,
        slot: SlotKey,
        asked: &AskedRooms,
        (position, options): (Option<Position<'static>>, Option<Box<SubscribeOptions<'static>>>),
        decision: Decision,
        id: Option<&'a str>,
    ) -> Result<(), Rejection<'a>> {
        let Decision::Rooms(decisions) = decision else { return Err(asked.rejection_of(undecided(id))) };
        let decided = |at: usize| decisions.get(at).copied().unwrap_or(RoomDecision { allow: false, publish: None });
        let mut allowed = Vec::new();
        for (at, room) in asked.names.iter().enumerate() {
            match (decided(at), asked.is_list) {
                (RoomDecision { allow: true, publish }, _) => allowed.push((room.as_str(), publish)),
                (RoomDecision { allow: false, .. }, false) => {
                    let message = "the backend does not allow joining this room";
                    return Err(asked.rejection_of(Rejection::new(id, ErrorCode::Forbidden, message)));
                }
                (RoomDecision { allow: false, .. }, true) => {
                    self.connections.forbidden_room(slot, id, room);
                }
            }
        }
        let rooms = match (asked.is_list, &allowed[..]) {
            (false, [(room, _)]) => Rooms::One(Cow::Borrowed(*room)),
            (_, allowed) => Rooms::Many(allowed.iter().map(|(room, _)| Cow::Borrowed(*room)).collect()),
        };
        let request = Request { id, command: Command::JoinRoom { rooms, position, options } };
        self.note_owed(slot, &request);
        if let Command::JoinRoom { rooms, position, options } = request.command {
            self.join(self.connections.id(slot), rooms, position, options, id)?;
        }
        self.note_publish(slot, &allowed);
        Ok(())
    }

    /// Keeps what was decided about publishing into rooms that are joined. What is kept about others is forgotten where it
    /// would be more than a connection may have rooms: they are decided about again before they are joined again.
    fn note_publish(&mut self, slot: SlotKey, allowed: &[(&str, Option<bool>)]) {
        let (me, rooms_max) = (self.connections.id(slot), self.settings.router.rooms_max);
        let authority = self.connections.get_mut(slot).and_then(|connection| connection.authority_mut());
        let Some(authority) = authority else { return };
        for (room, publish) in allowed {
            authority.note_publish(room, *publish);
        }
        authority.forget_publish(rooms_max, |room| self.router.is_member(me, room));
    }
}

/// What of a good token the backend's answer builds on.
fn says(grant: Grant) -> TokenSays {
    let Grant { user, expires_unix_ms, issued_unix_s, permissions: _ } = grant;
    TokenSays { user, expires_unix_ms, issued_unix_s }
}

pub(super) fn undecided<'a>(id: Option<&'a str>) -> Rejection<'a> {
    let message = "it cannot be found out now whether this is allowed: try again later";
    Rejection::new(id, ErrorCode::Unavailable, message)
}
