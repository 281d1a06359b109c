//! What the backend decides: who a client is, in its handshake or with another token, and which rooms may be joined.
//!
//! Whoever waits for a decision gets one: where there is none in time, a handshake is answered 503 and a command
//! `unavailable`, and nothing has happened.

use std::borrow::Cow;

use super::backend::{Decided, Inquiry, Token};
use super::connection::{Authorizing, Phase};
use super::driver::{Driver, RemoteAddr, SlotKey};
use super::identity::{Passport, Pending};
use super::worker::Worker;
use crate::auth::{Decision, Denial, Grant, Protocol, Question, RoomDecision, TokenSays, Visitor};
use crate::conn::{Forwarded, HttpRefusal, Target, Unauthorized};
use crate::limits::RETRY_AFTER_S_MAX;
use crate::protocol::{self, Command, ErrorCode, Position, Rejection, Request, Rooms};

impl<D: Driver> Worker<D> {
    /// Asks who a client is whose request waits. What it has shown is good.
    pub(super) fn ask_about_request(&mut self, slot: SlotKey, shown: Option<(Token, Grant)>) {
        let authorizing = self.connections.get_mut(slot).and_then(|connection| connection.authorizing_mut());
        let Some(Authorizing { upgrade, remote, origin, forwarded, .. }) = authorizing else { return };
        let protocol = match upgrade.as_ref().map(|upgrade| &upgrade.target) {
            Some(Target::Raw { room, .. }) => Protocol::Raw(room.clone()),
            Some(Target::Json { .. }) | None => Protocol::Json,
        };
        let address = match remote {
            RemoteAddr::Tcp(addr) => Some(addr.ip().to_canonical().to_string()),
            RemoteAddr::Unix => None,
        };
        let (origin, forwarded) = (origin.take(), std::mem::take(forwarded));
        let (token, says) = shown.map(|(token, grant)| (token, says(grant))).unzip();
        let visitor = Visitor { protocol, address, origin, token: says, is_open: false };
        if !self.ask(slot, Question::Connect(visitor), token, forwarded) {
            self.decided(Decided { slot, decision: Decision::Denied(Denial::Unavailable) });
        }
    }

    /// Asks about another token of an open connection, which is good; whether the question is under way.
    pub(super) fn ask_about_token(&self, slot: SlotKey, token: Token, grant: Grant) -> bool {
        let (protocol, token_says) = (Protocol::Json, Some(says(grant)));
        let visitor = Visitor { protocol, address: None, origin: None, token: token_says, is_open: true };
        self.ask(slot, Question::Connect(visitor), Some(token), Forwarded::default())
    }

    /// The token of a `refresh` has waited, and is good.
    pub(super) fn ask_about_refresh(&mut self, slot: SlotKey, token: Token, grant: Grant) {
        let authority = self.connections.get_mut(slot).and_then(|connection| connection.authority_mut());
        let Some(pending) = authority.and_then(|authority| authority.pending.as_deref_mut()) else { return };
        let Pending::Verifying { id } = pending else { return };
        *pending = Pending::Deciding { id: id.take() };
        if !self.ask_about_token(slot, token, grant) {
            self.decided(Decided { slot, decision: Decision::Denied(Denial::Unavailable) });
        }
    }

    /// Asks whether a raw room may be joined, which its connection waits for in its handshake.
    pub(super) fn ask_about_raw_room(&mut self, slot: SlotKey, passport: Passport, room: String) {
        let client_id = self.connections.codec().encode(self.connections.id(slot)).to_string();
        let user = passport.user().map_or_else(|| client_id.clone(), str::to_owned);
        let authorizing = self.connections.get_mut(slot).and_then(|connection| connection.authorizing_mut());
        let Some(authorizing) = authorizing else { return };
        authorizing.passport = Some(passport);
        let question = Question::Join { user, client_id, rooms: vec![room], is_list: false };
        if !self.ask(slot, question, None, Forwarded::default()) {
            self.decided(Decided { slot, decision: Decision::Denied(Denial::Unavailable) });
        }
    }

    /// Asks which of these rooms may be joined: one question, however many they are. It holds up the commands behind it.
    pub(super) fn ask_about_rooms<'a>(
        &mut self,
        slot: SlotKey,
        rooms: Rooms<'a>,
        position: Option<Position<'a>>,
        id: Option<&'a str>,
    ) -> Result<(), Rejection<'a>> {
        let me = self.connections.id(slot);
        if rooms.names().is_empty() {
            return self.join(me, rooms, position, id);
        }
        let client_id = self.connections.codec().encode(me).to_string();
        let question = Question::Join {
            user: self.router.name(me).map(ToString::to_string).unwrap_or_default(),
            client_id,
            rooms: rooms.names().iter().map(ToString::to_string).collect(),
            is_list: matches!(rooms, Rooms::Many(_)),
        };
        if !self.ask(slot, question, None, Forwarded::default()) {
            return Err(undecided(id));
        }
        let (rooms, position) = (rooms.into_owned(), position.map(Position::into_owned));
        self.hold_up(slot, Pending::Joining { id: id.map(Into::into), rooms, position });
        Ok(())
    }

    /// Whether the question is under way.
    fn ask(&self, slot: SlotKey, question: Question, token: Option<Token>, forwarded: Forwarded) -> bool {
        let (Some(access), Some(auth)) = (&self.settings.gate.backend, &self.settings.gate.auth) else { return false };
        let asker = super::backend::Asker { reactor: self.me, slot };
        access.backend.ask(Inquiry { asker, question, token, forwarded, auth: auth.clone() })
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
            Pending::Deciding { id } | Pending::Joining { id, .. } => id.clone(),
            // Nothing of these waits for a decision.
            Pending::Waiting { .. } | Pending::Verifying { .. } | Pending::Leaving { .. } => None,
        };
        let id = id.as_deref();
        let outcome = match *pending {
            Pending::Deciding { .. } => self.refresh_decided(slot, decision, id),
            Pending::Joining { rooms, position, .. } => self.join_decided(slot, rooms, position, decision, id),
            Pending::Waiting { .. } | Pending::Verifying { .. } | Pending::Leaving { .. } => Ok(()),
        };
        if let Err(rejection) = outcome {
            self.connections.message(slot, |out| {
                protocol::error(out, rejection.id, rejection.code, &rejection.message);
            });
        }
        self.resume_held_up(slot);
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
        Err(Rejection { id, code, message: Cow::Borrowed(message) })
    }

    /// Joins what is allowed. Of many rooms those that are not are told one by one.
    fn join_decided<'a>(
        &mut self,
        slot: SlotKey,
        rooms: Rooms<'static>,
        position: Option<Position<'static>>,
        decision: Decision,
        id: Option<&'a str>,
    ) -> Result<(), Rejection<'a>> {
        let Decision::Rooms(decisions) = decision else { return Err(undecided(id)) };
        let decided = |at: usize| decisions.get(at).copied().unwrap_or(RoomDecision { allow: false, publish: None });
        let mut allowed = Vec::new();
        for (at, room) in rooms.names().iter().enumerate() {
            match (decided(at), &rooms) {
                (RoomDecision { allow: true, publish }, _) => allowed.push((room.to_string(), publish)),
                (RoomDecision { allow: false, .. }, Rooms::One(_)) => {
                    let message = Cow::Borrowed("the backend does not allow joining this room");
                    return Err(Rejection { id, code: ErrorCode::Forbidden, message });
                }
                (RoomDecision { allow: false, .. }, Rooms::Many(_)) => {
                    self.connections.message(slot, |out| protocol::forbidden_room(out, id, room));
                }
            }
        }
        let rooms = match rooms {
            Rooms::One(room) => Rooms::One(room),
            Rooms::Many(_) => Rooms::Many(allowed.iter().map(|(room, _)| Cow::Owned(room.clone())).collect()),
        };
        let request = Request { id, command: Command::JoinRoom { rooms, position } };
        self.note_owed(slot, &request);
        if let Command::JoinRoom { rooms, position } = request.command {
            self.join(self.connections.id(slot), rooms, position, id)?;
        }
        self.note_publish(slot, allowed);
        Ok(())
    }

    /// Keeps what was decided about publishing into rooms that are joined. What is kept about others is forgotten where it
    /// would be more than a connection may have rooms: they are decided about again before they are joined again.
    fn note_publish(&mut self, slot: SlotKey, allowed: Vec<(String, Option<bool>)>) {
        let (me, rooms_max) = (self.connections.id(slot), self.settings.router.rooms_max);
        let authority = self.connections.get_mut(slot).and_then(|connection| connection.authority_mut());
        let Some(authority) = authority else { return };
        for (room, publish) in allowed {
            authority.note_publish(&room, publish);
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
    let message = Cow::Borrowed("it cannot be found out now whether this is allowed: try again later");
    Rejection { id, code: ErrorCode::Unavailable, message }
}
