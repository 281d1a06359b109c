//! What an open connection may do by its token, and for how long.
//!
//! Permissions are asked in one place, [`Worker::permit`], before a command has any effect. A `refresh` replaces them at
//! once: what the connection sent behind it is looked at when it is answered, and its answer comes behind every `left`
//! that comes of it.

use std::borrow::Cow;

use super::backend::Token;
use super::connection::Phase;
use super::decisions::undecided;
use super::driver::{Driver, SlotKey};
use super::gate::{Way, what_is_wrong};
use super::identity::{Expiry, Pending, Rates};
use super::worker::{Settings, Worker};
use crate::auth::{Grant, Permissions, TokenError, When};
use crate::conn::CloseReason;
use crate::protocol::{self, Command, ErrorCode, Rejection, Request, Rooms};
use crate::router::{Kind, RAW_PREFIX, TopicRef};
use crate::time::Millis;

/// The reason of a `left` that comes of a `refresh`.
const FORBIDDEN: &str = "forbidden";

impl<D: Driver> Worker<D> {
    /// Whether a connection may do what it asks for. Of many rooms to join those that it may not are taken out, and it is
    /// told of each.
    ///
    /// # Errors
    /// A [`Rejection`]; nothing has happened then.
    #[inline]
    pub(super) fn permit<'a>(&mut self, slot: SlotKey, request: &mut Request<'a>) -> Result<(), Rejection<'a>> {
        match (&self.settings.gate.auth, &request.command) {
            (None, Command::Refresh { .. }) => Err(Rejection::unknown_type(request.id)),
            (None, _) => Ok(()),
            (Some(_), _) => {
                let permitted = self.permit_by_token(slot, request);
                permitted.map_err(|rejection| Rejection { room: request.command.room().cloned(), ..rejection })
            }
        }
    }

    fn permit_by_token<'a>(&mut self, slot: SlotKey, request: &mut Request<'a>) -> Result<(), Rejection<'a>> {
        let Request { id, command } = request;
        let (id, me) = (*id, self.connections.id(slot));
        // Whoever is open has one; without it, nothing is allowed.
        let Some(authority) = self.connections.get(slot).and_then(|connection| connection.authority()) else {
            return Err(forbidden(id, "the connection has no token"));
        };
        let permissions = &authority.permissions;
        check_room_ids(id, command)?;
        let (allowed, what) = match command {
            Command::PrivateMsg { .. } | Command::Private { .. } => {
                (permissions.may_private(), "the token does not allow private messages")
            }
            Command::Broadcast(_) => (permissions.may_broadcast(), "the token does not allow broadcasts"),
            Command::RoomMsg { room, .. } | Command::RoomMsgs { room, .. } => {
                if !authority.may_publish(room) {
                    return Err(forbidden(id, "the token does not allow publishing into this room"));
                }
                let may =
                    self.router.is_member(me, room) || self.router.is_keyed(TopicRef { kind: Kind::Room, name: room });
                (may, "a room that is not keyed is published into by its members: join it first")
            }
            // Before they are joined; their history is for members.
            Command::JoinRoom { .. } | Command::History { .. } if self.settings.gate.decides_joins() => return Ok(()),
            Command::JoinRoom { rooms: Rooms::One(room), .. } => {
                (permissions.may_join(room), "the token does not allow joining this room")
            }
            Command::JoinRoom { rooms: Rooms::Many(rooms), .. } => {
                let refused = take_refused(rooms, permissions);
                for room in refused {
                    self.connections.forbidden_room(slot, id, &room);
                }
                return Ok(());
            }
            Command::History { room, .. } => {
                (permissions.may_join(room), "the token does not allow joining this room, nor reading its history")
            }
            Command::Presence { room } => {
                (permissions.may_presence(room), "the token does not allow asking who is in this room")
            }
            // Who may not join is no member, and has nothing to tune.
            Command::Tune { .. }
            | Command::LeaveRoom { .. }
            | Command::Resume { .. }
            | Command::Ping
            | Command::Refresh { .. } => {
                return Ok(());
            }
        };
        if allowed { Ok(()) } else { Err(forbidden(id, what)) }
    }

    /// The connection's token is to be replaced. An answer that is not there yet holds up what comes behind the command.
    pub(super) fn refresh<'a>(
        &mut self,
        slot: SlotKey,
        token: Option<Cow<'a, str>>,
        id: Option<&'a str>,
    ) -> Result<(), Rejection<'a>> {
        let Some(token) = token else {
            let message = Cow::Borrowed("refresh needs the field `token`");
            return Err(Rejection::new(id, ErrorCode::MissingField, message));
        };
        let Some(auth) = &self.settings.gate.auth else { return Err(Rejection::unknown_type(id)) };
        match self.settings.gate.way(auth, &token) {
            Way::Here => {
                let outcome = auth.verify(&token, self.unix_ms, When::Refresh);
                let grant = match outcome {
                    Ok(grant) if self.settings.gate.decides_connects() => grant,
                    outcome => return self.replace_token(slot, outcome, id),
                };
                let ticket = self.ask_about_token(slot, Token(token.into_owned()), grant);
                let ticket = ticket.ok_or_else(|| undecided(id))?;
                self.hold_up(slot, Pending::Deciding { id: id.map(Into::into), ticket });
            }
            Way::Verifier | Way::NewerKeys => {
                let waiting = Pending::Waiting { id: id.map(Into::into), token: Token(token.into_owned()) };
                self.hold_up(slot, waiting);
                self.look_at_token(slot);
            }
        }
        Ok(())
    }

    /// The token of a `refresh` that has waited was looked at.
    pub(super) fn refresh_judged(&mut self, slot: SlotKey, outcome: Result<Grant, TokenError>) {
        let authority = self.connections.get_mut(slot).and_then(|connection| connection.authority_mut());
        let Some(pending) = authority.and_then(|authority| authority.pending.take()) else { return };
        let (Pending::Verifying { id } | Pending::Waiting { id, .. }) = *pending else { return };
        let outcome = self.replace_token(slot, outcome, id.as_deref());
        self.answer_held_up(slot, outcome);
    }

    /// Whether the token of a `refresh` is good cannot be found out.
    pub(super) fn refresh_undecided(&mut self, slot: SlotKey) {
        let authority = self.connections.get_mut(slot).and_then(|connection| connection.authority_mut());
        let Some(pending) = authority.and_then(|authority| authority.pending.take()) else { return };
        let (Pending::Verifying { id } | Pending::Waiting { id, .. }) = *pending else { return };
        self.answer_held_up(slot, Err(undecided(id.as_deref())));
    }

    /// The command that has held up the others is done, or refused.
    pub(super) fn answer_held_up(&mut self, slot: SlotKey, outcome: Result<(), Rejection<'_>>) {
        if let Err(rejection) = outcome {
            self.connections.rejected(slot, &rejection);
        }
        self.connections.sessions.count_partial(slot);
        self.resume_held_up(slot);
    }

    fn replace_token<'a>(
        &mut self,
        slot: SlotKey,
        outcome: Result<Grant, TokenError>,
        id: Option<&'a str>,
    ) -> Result<(), Rejection<'a>> {
        let grant = outcome.map_err(|error| {
            let message = format!("the token is not valid: {}; the one before stays in force", what_is_wrong(error));
            Rejection::new(id, ErrorCode::Unauthorized, message)
        })?;
        self.replace_grant(slot, grant, id)
    }

    /// Another grant takes the place of the one before.
    pub(super) fn replace_grant<'a>(
        &mut self,
        slot: SlotKey,
        grant: Grant,
        id: Option<&'a str>,
    ) -> Result<(), Rejection<'a>> {
        let me = self.connections.id(slot);
        if self.router.name(me).is_none_or(|user| **user != *grant.user) {
            return Err(forbidden(id, "the token is another user's: its sub must be the connection's user id"));
        }
        let Settings { messages_per_second, bytes_per_second, .. } = self.settings;
        let rates = Rates { messages: messages_per_second, bytes: bytes_per_second };
        let expiry = grant.expires_unix_ms.map(|ends| Expiry::new(ends, |most| self.random.u64(0..=most)));
        let authority = self.connections.get_mut(slot).and_then(|connection| connection.authority_mut());
        let Some(authority) = authority else { return Ok(()) };
        authority.replace(grant.permissions.clone(), expiry, rates, self.now);
        // Where the backend decides about joins, it has allowed the rooms that the connection is in.
        let is_decided = self.settings.gate.decides_joins();
        let allowed = |room: &str| is_decided || grant.permissions.may_join(room);
        let leaves = self.router.forbid(me, allowed, FORBIDDEN, &mut self.connections);
        self.arm(slot);
        let Some(id) = id else { return Ok(()) };
        let expires_unix_ms = grant.expires_unix_ms;
        match leaves && !self.router.is_alone() {
            true => self.hold_up(slot, Pending::Leaving { id: id.into(), expires_unix_ms }),
            false => self.connections.message(slot, |out| protocol::refreshed(out, id, expires_unix_ms)),
        }
        Ok(())
    }

    /// Nothing more of what the connection sent is looked at, until this command is answered.
    pub(super) fn hold_up(&mut self, slot: SlotKey, pending: Pending) {
        let Some(connection) = self.connections.get_mut(slot) else { return };
        connection.intake.exhaust();
        if let Some(authority) = connection.authority_mut() {
            authority.pending = Some(Box::new(pending));
        }
        self.connections.sessions.count_partial(slot);
    }

    /// When something is to be done about the end of a connection's token.
    pub(super) fn expiry_at(&self, slot: SlotKey) -> Option<Millis> {
        let connection = self.connections.get(slot)?;
        let expiry = connection.authority()?.expiry?;
        let tells = !expiry.told && matches!(connection.phase(), Phase::Json);
        let at_unix_ms = match tells {
            true => expiry.ends_unix_ms.saturating_sub(self.settings.gate.expiring_before_ms),
            false => expiry.closes_unix_ms(),
        };
        Some(self.now.saturating_add(at_unix_ms.saturating_sub(self.unix_ms)))
    }

    /// Does what is due about the end of a connection's token; whether it is closed.
    pub(super) fn expire(&mut self, slot: SlotKey) -> bool {
        let (now_ms, before_ms) = (self.unix_ms, self.settings.gate.expiring_before_ms);
        let Some(connection) = self.connections.get_mut(slot) else { return true };
        let is_json = connection.is_json();
        let Some(expiry) = connection.authority_mut().and_then(|authority| authority.expiry.as_mut()) else {
            return false;
        };
        if expiry.closes_unix_ms() <= now_ms {
            self.close(slot, CloseReason::Expired);
            return true;
        }
        if is_json && !expiry.told && expiry.ends_unix_ms.saturating_sub(before_ms) <= now_ms {
            expiry.told = true;
            let in_ms = expiry.ends_unix_ms.saturating_sub(now_ms);
            self.connections.message(slot, |out| protocol::expiring(out, in_ms));
        }
        false
    }
}

fn forbidden<'a>(id: Option<&'a str>, message: &'static str) -> Rejection<'a> {
    Rejection::new(id, ErrorCode::Forbidden, message)
}

/// Takes the rooms out that may not be joined.
fn take_refused<'a>(rooms: &mut Vec<Cow<'a, str>>, permissions: &Permissions) -> Vec<Cow<'a, str>> {
    let (allowed, refused) = std::mem::take(rooms).into_iter().partition(|room| permissions.may_join(room));
    *rooms = allowed;
    refused
}

/// Permissions call raw rooms so: no other room has such a name.
fn check_room_ids<'a>(id: Option<&'a str>, command: &Command<'_>) -> Result<(), Rejection<'a>> {
    let is_raw = match command {
        Command::RoomMsg { room, .. }
        | Command::RoomMsgs { room, .. }
        | Command::JoinRoom { rooms: Rooms::One(room), .. }
        | Command::Tune { room, .. }
        | Command::LeaveRoom { room }
        | Command::History { room, .. }
        | Command::Presence { room } => room.starts_with(RAW_PREFIX),
        Command::JoinRoom { rooms: Rooms::Many(rooms), .. } => rooms.iter().any(|room| room.starts_with(RAW_PREFIX)),
        Command::PrivateMsg { .. }
        | Command::Private { .. }
        | Command::Broadcast(_)
        | Command::Resume { .. }
        | Command::Ping
        | Command::Refresh { .. } => false,
    };
    match is_raw {
        false => Ok(()),
        true => {
            let message = "a room id must not begin with raw/: that is how tokens call raw rooms";
            Err(Rejection::new(id, ErrorCode::BadRoomId, message))
        }
    }
}
