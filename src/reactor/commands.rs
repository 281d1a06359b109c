//! From a client's message to the router: what each command means.

use std::borrow::Cow;

use super::connection::{CloseCause, Phase};
use super::driver::{Driver, SlotKey};
use super::worker::Worker;
use crate::conn::{PeerError, validate};
use crate::frame::Opcode;
use crate::ids::{ClientId, ConnId};
use crate::protocol::{self, Body, Command, ErrorCode, Position, Rejection, Request, Rooms, SubscribeOptions};
use crate::router::{Audience, Author, Composed, Draft, JoinError, JoinReply, ManyJoin, Publish, RecoverFrom, key_of};

/// A whole message of a client.
#[derive(Clone, Copy, Debug)]
pub(super) enum Message<'a> {
    Text(&'a str),
    Binary(&'a [u8]),
}

impl Message<'_> {
    pub(super) fn opcode(&self) -> Opcode {
        match self {
            Message::Text(_) => Opcode::Text,
            Message::Binary(_) => Opcode::Binary,
        }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        match self {
            Message::Text(text) => text.as_bytes(),
            Message::Binary(bytes) => bytes,
        }
    }
}

impl<D: Driver> Worker<D> {
    /// A whole message of an open connection.
    #[inline]
    pub(super) fn message(&mut self, slot: SlotKey, message: Message<'_>) {
        self.connections.counts.messages_in += 1;
        let within_rate = match self.within_rate(slot, message.bytes().len()) {
            Ok(within_rate) => within_rate,
            Err(error) => return self.quiesce(slot, CloseCause::Error(error)),
        };
        let Some(connection) = self.connections.get_mut(slot) else { return };
        connection.has_published = true;
        match *connection.phase() {
            // A raw room has no words for an error: over the rate there is only the end.
            Phase::Raw { .. } if !within_rate => self.quiesce(slot, CloseCause::Error(PeerError::RateAbuse)),
            Phase::Raw { .. } if !connection.authority().is_none_or(|authority| authority.may_speak) => {
                self.quiesce(slot, CloseCause::Error(PeerError::NotAllowed));
            }
            Phase::Raw { messages } => self.raw_message(slot, messages, message),
            Phase::Json => self.json_message(slot, within_rate, message),
            Phase::Handshake(_)
            | Phase::Authorizing(_)
            | Phase::Opening(_)
            | Phase::Quiescing(_)
            | Phase::Closing { .. }
            | Phase::Leaving { .. }
            | Phase::Lingering { .. }
            | Phase::Terminating(_) => {}
        }
    }

    fn json_message(&mut self, slot: SlotKey, within_rate: bool, message: Message<'_>) {
        let text = match message {
            Message::Text(text) => Ok(text),
            Message::Binary(bytes) => validate(bytes),
        };
        let outcome = match text {
            Err(_) => Err(Rejection::new(None, ErrorCode::BadJson, "the message is not UTF-8: send JSON as text")),
            Ok(text) => protocol::parse(text).and_then(|request| match within_rate {
                true => Ok(request),
                false => {
                    let message = "too many messages: this one was not handled, slow down";
                    Err(Rejection::new(request.id, ErrorCode::RateLimited, message))
                }
            }),
        };
        let outcome = match outcome {
            Ok(mut request) => self.permit(slot, &mut request).and_then(|()| {
                self.note_owed(slot, &request);
                self.command(slot, request)
            }),
            Err(rejection) => Err(rejection),
        };
        if let Err(rejection) = outcome {
            self.connections.rejected(slot, &rejection);
        }
    }

    fn command<'a>(&mut self, slot: SlotKey, request: Request<'a>) -> Result<(), Rejection<'a>> {
        let me = self.connections.id(slot);
        let Request { id, command } = request;
        match command {
            Command::PrivateMsg { to_user, content, key } => {
                self.publish(me, Draft::PrivateMsg { to: &to_user, content }, key.as_deref(), id);
            }
            Command::Private { to, data } => self.private(me, &to, data, id),
            Command::Broadcast(Body::Content(content)) => self.publish(me, Draft::BroadcastContent(content), None, id),
            Command::Broadcast(Body::Data(data)) => self.publish(me, Draft::BroadcastData(data), None, id),
            Command::RoomMsg { room, content, key, keyed } => {
                self.room_msg(me, room, (content, keyed), key.as_deref(), id)?;
            }
            Command::RoomMsgs { room, updates, replace, key } => {
                self.room_msgs(me, room, (updates, replace), key.as_deref(), id)?;
            }
            Command::JoinRoom { rooms, position, options } if self.settings.gate.decides_joins() => {
                self.ask_about_rooms(slot, rooms, position, options, id)?;
            }
            Command::JoinRoom { rooms, position, options } => self.join(me, rooms, position, options, id)?,
            Command::Tune { room, options } => self.tune(me, room, *options, id)?,
            Command::LeaveRoom { room } => self.router.leave(me, &room, id, &mut self.connections),
            Command::History { room, before, limit } => {
                if !self.router.history(me, &room, id, before, limit, &mut self.connections) {
                    let message = "the history of a room is for its members: join it first";
                    return Err(Rejection::new(id, ErrorCode::Forbidden, message).about(room));
                }
            }
            Command::Resume { epoch, offset } => {
                self.router.resume(me, &epoch, offset, id, &mut self.connections);
            }
            Command::Presence { room } => self.router.presence(me, &room, id, &mut self.connections),
            Command::Refresh { token } => self.refresh(slot, token, id)?,
            Command::Ping => self.connections.message(slot, |out| protocol::pong(out, id)),
        }
        Ok(())
    }

    /// Composes a message of this user's once and gives it to its topic's home.
    #[inline]
    pub(super) fn publish(&mut self, me: ConnId, draft: Draft<'_>, key: Option<&str>, id: Option<&str>) {
        let user = self.router.name(me).map_or("", |user| user);
        let key = key.map(|key| key_of(user, key));
        let Composed { topic, frame, audience } = self.composer.compose(Author { user, unix_ms: self.unix_ms }, draft);
        let exclude = match audience {
            Audience::Everyone => None,
            Audience::Others => Some(me),
        };
        let publish = Publish { topic, frame, exclude, key: key.as_deref(), publisher: me.into() };
        self.router.publish(publish, id, &mut self.connections);
    }

    /// To one connection, wherever it is. A client id that was never given out, or whose connection is gone, is
    /// no connection's: that is no error.
    fn private(&mut self, me: ConnId, to: &str, data: &str, id: Option<&str>) {
        let codec = self.connections.codec();
        let here = codec.decode(to).filter(|decoded| decoded.node == codec.node());
        let user = self.router.name(me).map_or("", |user| user);
        let author = Author { user, unix_ms: self.unix_ms };
        if let Some(to) = here {
            let frame = self.composer.private(author, data);
            return self.router.direct(to.conn, frame, id.map(|id| (me, id)), &mut self.connections);
        }
        if let Some(to) = ClientId::parse(to).filter(|_| self.router.is_clustered()) {
            let frame = self.composer.private(author, data);
            self.router.direct_elsewhere(to, frame);
        }
        if let Some(id) = id {
            self.connections.message(me.into(), |out| protocol::ack(out, id, None));
        }
    }

    /// Joins rooms, with what is wanted of a keyed one.
    ///
    /// # Errors
    /// A [`Rejection`]; nothing has changed then.
    pub(super) fn join<'a>(
        &mut self,
        me: ConnId,
        rooms: Rooms<'_>,
        position: Option<Position<'_>>,
        options: Option<Box<SubscribeOptions<'_>>>,
        id: Option<&'a str>,
    ) -> Result<(), Rejection<'a>> {
        self.check_options(me, &rooms, options.as_deref(), id)?;
        match rooms {
            Rooms::One(room) if self.is_keyed(&room) => {
                self.subscribe(me, room, position, options.map(|options| *options), id)
            }
            Rooms::One(room) => {
                let recover = position.map(recover_from);
                let reply = match id.is_some() || recover.is_some() {
                    true => JoinReply::Joined { id: id.map(Into::into), recover, subscribe: None },
                    false => JoinReply::Silent,
                };
                let joined = self.router.join(me, &room, reply, &mut self.connections);
                joined.map_err(|error| self.join_rejection(error, &Rooms::One(room), id))
            }
            Rooms::Many(rooms) => {
                let recover = position.map(recover_from);
                let reply = match (id, recover) {
                    (Some(id), recover) => JoinReply::Many(ManyJoin::new(id, recover, rooms.len() as u32)),
                    (None, recover @ Some(_)) => JoinReply::Joined { id: None, recover, subscribe: None },
                    (None, None) => JoinReply::Silent,
                };
                let joined = self.router.join_many(me, &rooms, reply, &mut self.connections);
                joined.map_err(|error| self.join_rejection(error, &Rooms::Many(rooms), id))
            }
        }
    }

    /// Whether a connection may be in these rooms beside its own; nothing changes.
    ///
    /// # Errors
    /// As of [`Worker::join`].
    pub(super) fn check_join<'a>(
        &mut self,
        me: ConnId,
        rooms: &Rooms<'_>,
        position: Option<&Position<'_>>,
        options: Option<&SubscribeOptions<'_>>,
        id: Option<&'a str>,
    ) -> Result<(), Rejection<'a>> {
        self.check_options(me, rooms, options, id)?;
        let recover = position.cloned().map(recover_from);
        let checked = self.router.check_join(me, rooms.names(), recover.as_ref());
        checked.map_err(|error| self.join_rejection(error, rooms, id))
    }

    pub(super) fn join_rejection<'a>(&self, error: JoinError, rooms: &Rooms<'_>, id: Option<&'a str>) -> Rejection<'a> {
        let (code, message) = match error {
            JoinError::TooManyRooms => {
                let rooms_max = self.settings.router.rooms_max;
                let message = format!("a connection may be in {rooms_max} rooms: leave some first");
                (ErrorCode::TooManyRooms, Cow::Owned(message))
            }
            JoinError::AlreadyJoined => {
                let message = "already in this room: leave it before joining from a position";
                (ErrorCode::AlreadyJoined, Cow::Borrowed(message))
            }
        };
        let room = match rooms {
            Rooms::One(room) => Some(Cow::Owned(room.clone().into_owned())),
            Rooms::Many(_) => None,
        };
        Rejection { room, ..Rejection::new(id, code, message) }
    }
}

pub(super) fn recover_from(position: Position<'_>) -> RecoverFrom {
    match position {
        Position::Since { epoch, offset } => RecoverFrom::Since { epoch: epoch.into(), offset },
        Position::Last(count) => RecoverFrom::Last(count),
    }
}
