//! What a client asks for: one text message in, one command or one refusal out.
//!
//! The scanner finds and validates the spans of the envelope. A string without
//! an escape is a slice of the input; one with escapes that the server itself
//! needs is copied and decoded by `simd-json`, which changes what it reads and
//! so never sees the input. `content`, `data` and `id` stay the exact text that
//! was sent. A command without escapes in its envelope costs no allocation,
//! `roomIds` and the options of a subscription excepted.

use super::ErrorCode;
use super::decoder::Decoder;
use super::envelope::{Envelope, Refusal};
use super::keyed::{KeyedFields, SubscribeOptions};
use super::scan::RawValue;
use std::borrow::Cow;

#[cfg(doc)]
use super::{PUBLISH_KEY_BYTES_MAX, REQUEST_ID_BYTES_MAX, ROOM_IDS_MAX};
#[cfg(doc)]
use crate::limits::{ROOM_ID_BYTES_MAX, TOKEN_REFRESH_BYTES_MAX, USER_ID_BYTES_MAX};

/// A command with what its reply needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request<'a> {
    /// The JSON text of `id`, a string or a number, as it was sent; at most
    /// [`REQUEST_ID_BYTES_MAX`] bytes.
    pub id: Option<&'a str>,
    /// What to do.
    pub command: Command<'a>,
}

/// What a client asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command<'a> {
    /// `private_msg`: to every connection of a user.
    PrivateMsg {
        /// 1 to [`USER_ID_BYTES_MAX`] bytes.
        to_user: Cow<'a, str>,
        /// Any JSON value, its text untouched.
        content: &'a str,
        /// `key`: by which a retry is known, 1 to [`PUBLISH_KEY_BYTES_MAX`] bytes.
        key: Option<Cow<'a, str>>,
    },
    /// `private`: to one connection.
    Private {
        /// What the sender takes for a client id: any string.
        to: Cow<'a, str>,
        /// Any JSON value, its text untouched.
        data: &'a str,
    },
    /// `broadcast`: to every connection.
    Broadcast(Body<'a>),
    /// `join_room`: become a member of one room or of many.
    JoinRoom {
        /// The rooms.
        rooms: Rooms<'a>,
        /// From where to be sent what was missed, where the client says so.
        position: Option<Position<'a>>,
        /// What is wanted of a keyed room, where the client says so; never
        /// with several rooms.
        options: Option<Box<SubscribeOptions<'a>>>,
    },
    /// `tune`: a subscription of a keyed room is changed while it runs.
    Tune {
        /// 1 to [`ROOM_ID_BYTES_MAX`] bytes.
        room: Cow<'a, str>,
        /// What changes. It never says whether to send a snapshot.
        options: Box<SubscribeOptions<'a>>,
    },
    /// `leave_room`: be a member no longer.
    LeaveRoom {
        /// 1 to [`ROOM_ID_BYTES_MAX`] bytes.
        room: Cow<'a, str>,
    },
    /// `room_msg`: to the other members of a room; an update of an item in a
    /// keyed one.
    RoomMsg {
        /// 1 to [`ROOM_ID_BYTES_MAX`] bytes.
        room: Cow<'a, str>,
        /// Any JSON value, its text untouched. `None` only where it may be an
        /// update: only a keyed room can go without.
        content: Option<&'a str>,
        /// `key`: by which a retry is known, 1 to [`PUBLISH_KEY_BYTES_MAX`] bytes.
        key: Option<Cow<'a, str>>,
        /// What has a meaning in a keyed room alone.
        keyed: KeyedFields<'a>,
    },
    /// `room_msgs`: updates of items of a keyed room.
    RoomMsgs {
        /// 1 to [`ROOM_ID_BYTES_MAX`] bytes.
        room: Cow<'a, str>,
        /// An array, which [`keyed::read_updates`](super::keyed::read_updates) reads.
        updates: RawValue<'a>,
        /// Whether items that it does not name are removed.
        replace: bool,
        /// `key`: by which a retry is known, 1 to [`PUBLISH_KEY_BYTES_MAX`] bytes.
        key: Option<Cow<'a, str>>,
    },
    /// `history`: a page of what a room has kept.
    History {
        /// 1 to [`ROOM_ID_BYTES_MAX`] bytes.
        room: Cow<'a, str>,
        /// Only messages with a smaller offset.
        before: Option<u64>,
        /// At most so many, the newest of them.
        limit: Option<u64>,
    },
    /// `resume`: what came to the user's inbox before this connection's welcome.
    Resume {
        /// The epoch in which the offset counts; any string.
        epoch: Cow<'a, str>,
        /// The last message the client has.
        offset: u64,
    },
    /// `presence`: who is in a room.
    Presence {
        /// 1 to [`ROOM_ID_BYTES_MAX`] bytes.
        room: Cow<'a, str>,
    },
    /// `ping`: answer with `pong`.
    Ping,
    /// `refresh`: the connection's token is replaced.
    Refresh {
        /// The token, which may be anything. Empty where the field is no string
        /// of at most [`TOKEN_REFRESH_BYTES_MAX`] bytes; `None` where it is missing.
        token: Option<Cow<'a, str>>,
    },
}

impl<'a> Command<'a> {
    /// The one room that it is about, if it is about one.
    pub fn room(&self) -> Option<&Cow<'a, str>> {
        match self {
            Command::JoinRoom { rooms: Rooms::One(room), .. }
            | Command::Tune { room, .. }
            | Command::LeaveRoom { room }
            | Command::RoomMsg { room, .. }
            | Command::RoomMsgs { room, .. }
            | Command::History { room, .. }
            | Command::Presence { room } => Some(room),
            Command::JoinRoom { rooms: Rooms::Many(_), .. }
            | Command::PrivateMsg { .. }
            | Command::Private { .. }
            | Command::Broadcast(_)
            | Command::Resume { .. }
            | Command::Ping
            | Command::Refresh { .. } => None,
        }
    }
}

/// The body of a broadcast; its name decides whether the sender gets it too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body<'a> {
    /// `content`: for all but the sending connection. Any JSON value, its text
    /// untouched.
    Content(&'a str),
    /// `data`: for all, the sending connection too. Any JSON value, its text
    /// untouched.
    Data(&'a str),
}

/// The rooms to join, each of 1 to [`ROOM_ID_BYTES_MAX`] bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rooms<'a> {
    /// `roomId`.
    One(Cow<'a, str>),
    /// `roomIds`, in the order sent and with its repetitions: none to
    /// [`ROOM_IDS_MAX`] of them.
    Many(Vec<Cow<'a, str>>),
}

impl Rooms<'_> {
    /// Their names.
    pub fn names(&self) -> &[Cow<'_, str>] {
        match self {
            Rooms::One(room) => std::slice::from_ref(room),
            Rooms::Many(rooms) => rooms,
        }
    }
}

/// Where in a room's history a joining client wants to begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Position<'a> {
    /// `since`: after the message with this offset.
    Since {
        /// The epoch in which the offset counts; any string.
        epoch: Cow<'a, str>,
        /// The last message the client has.
        offset: u64,
    },
    /// `last`: with the newest so many messages.
    Last(u64),
}

impl Position<'_> {
    /// The same, which borrows nothing.
    pub fn into_owned(self) -> Position<'static> {
        match self {
            Position::Since { epoch, offset } => Position::Since { epoch: Cow::Owned(epoch.into_owned()), offset },
            Position::Last(count) => Position::Last(count),
        }
    }
}

/// A message that is no command, with what the `error` reply says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection<'a> {
    /// The JSON text of `id`, where it could be read.
    pub id: Option<&'a str>,
    /// For programs.
    pub code: ErrorCode,
    /// For people: what is wrong, and what would be right.
    pub message: Cow<'static, str>,
    /// The room that the command was about, where it was about one.
    pub room: Option<Cow<'a, str>>,
    /// The first of several updates that is at fault, from 0.
    pub index: Option<usize>,
}

/// Reads one message of a client, which must be one JSON object.
///
/// Unknown fields must be valid JSON and are otherwise ignored; of fields with
/// the same name the last counts.
///
/// # Errors
/// A [`Rejection`], to be sent as `error`. It carries the `id` unless the text
/// is not valid JSON or the `id` itself is at fault.
pub fn parse(text: &str) -> Result<Request<'_>, Rejection<'_>> {
    let mut envelope = Envelope::default();
    let mut decoder = Decoder::default();
    if let Err(malformed) = envelope.read(text, &mut decoder) {
        return Err(Refusal::malformed(malformed).about(None, None));
    }
    let id = match envelope.request_id() {
        Ok(id) => id,
        Err(refusal) => return Err(refusal.about(None, None)),
    };
    match envelope.command(&mut decoder) {
        Ok(command) => Ok(Request { id, command }),
        Err(refusal) => Err(refusal.about(id, envelope.room_at_fault(&mut decoder))),
    }
}

impl<'a> Rejection<'a> {
    /// Of a command that is about no room, or of one that it does not matter for.
    pub fn new(id: Option<&'a str>, code: ErrorCode, message: impl Into<Cow<'static, str>>) -> Rejection<'a> {
        Rejection { id, code, message: message.into(), room: None, index: None }
    }

    /// The same, of a command about this room.
    #[must_use]
    pub fn about(self, room: Cow<'a, str>) -> Rejection<'a> {
        Rejection { room: Some(room), ..self }
    }

    /// There is no such command here.
    pub fn unknown_type(id: Option<&'a str>) -> Rejection<'a> {
        Refusal::unknown_type().about(id, None)
    }

    /// A `room_msg` without `content` for a room that is not keyed.
    pub fn content_missing(id: Option<&'a str>, room: Cow<'a, str>) -> Rejection<'a> {
        Refusal::missing("room_msg", "content").about(id, Some(room))
    }
}
