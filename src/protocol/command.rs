//! What a client asks for: one text message in, one command or one refusal out.
//!
//! The scanner finds and validates the spans of the envelope. A string without
//! an escape is a slice of the input; one with escapes that the server itself
//! needs is copied and decoded by `simd-json`, which changes what it reads and
//! so never sees the input. `content`, `data` and `id` stay the exact text that
//! was sent. A command without escapes in its envelope costs no allocation,
//! `roomIds` excepted.

use super::scan::{Elements, Kind, Malformed, Member, Members, RawString, RawValue};
use super::{ErrorCode, PUBLISH_KEY_BYTES_MAX, REQUEST_ID_BYTES_MAX, ROOM_IDS_ECHO_BYTES_MAX, ROOM_IDS_MAX};
use crate::limits::{ROOM_ID_BYTES_MAX, TOKEN_REFRESH_BYTES_MAX, USER_ID_BYTES_MAX};
use simd_json::{Buffers, Node, to_tape_with_buffers};
use std::borrow::Cow;

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
    },
    /// `leave_room`: be a member no longer.
    LeaveRoom {
        /// 1 to [`ROOM_ID_BYTES_MAX`] bytes.
        room: Cow<'a, str>,
    },
    /// `room_msg`: to the other members of a room.
    RoomMsg {
        /// 1 to [`ROOM_ID_BYTES_MAX`] bytes.
        room: Cow<'a, str>,
        /// Any JSON value, its text untouched.
        content: &'a str,
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
        return Err(Refusal::malformed(malformed).about(None));
    }
    let id = match envelope.request_id() {
        Ok(id) => id,
        Err(refusal) => return Err(refusal.about(None)),
    };
    match envelope.command(&mut decoder) {
        Ok(command) => Ok(Request { id, command }),
        Err(refusal) => Err(refusal.about(id)),
    }
}

impl<'a> Rejection<'a> {
    /// There is no such command here.
    pub fn unknown_type(id: Option<&'a str>) -> Rejection<'a> {
        Refusal::unknown_type().about(id)
    }
}

/// The fields the server knows, as they stand in the message.
#[derive(Default)]
struct Envelope<'a> {
    /// `type`.
    kind: Option<RawValue<'a>>,
    id: Option<RawValue<'a>>,
    room_id: Option<RawValue<'a>>,
    room_ids: Option<RawValue<'a>>,
    to_user: Option<RawValue<'a>>,
    to: Option<RawValue<'a>>,
    content: Option<RawValue<'a>>,
    data: Option<RawValue<'a>>,
    since: Option<RawValue<'a>>,
    last: Option<RawValue<'a>>,
    inbox: Option<RawValue<'a>>,
    before: Option<RawValue<'a>>,
    limit: Option<RawValue<'a>>,
    key: Option<RawValue<'a>>,
    token: Option<RawValue<'a>>,
}

/// The longest name of a field, in the envelope and in `since`.
const KEY_BYTES_MAX: usize = "content".len();

/// The longest name of a command.
const TYPE_BYTES_MAX: usize = "private_msg".len();

/// The longest escape, `\u0041`, stands for at least one byte: a string of more
/// than this many times the bytes allowed is too long whatever it holds.
const ESCAPE_BYTES_MAX: usize = 6;

const UNKNOWN_TYPE: &str = "`type` must be one of the commands: private_msg, private, broadcast, \
                            join_room, leave_room, room_msg, history, resume, presence, ping";

const ROOM_ID_RULE: &str = "`roomId` must be a string";
const ROOM_IDS_RULE: &str = "`roomIds` must be an array of strings, each";

impl<'a> Envelope<'a> {
    #[inline]
    fn read(&mut self, text: &'a str, decoder: &mut Decoder) -> Result<(), Malformed> {
        let mut members = Members::new(text);
        while let Some(Member { key, value }) = members.next_member()? {
            if let Some(field) = self.field(key, decoder) {
                *field = Some(value);
            }
        }
        Ok(())
    }

    #[inline]
    fn field(&mut self, key: RawString<'_>, decoder: &mut Decoder) -> Option<&mut Option<RawValue<'a>>> {
        if key.escaped {
            let key = decoder.decode_within(key, KEY_BYTES_MAX)?;
            self.field_named(&key)
        } else {
            self.field_named(key.inner)
        }
    }

    #[inline]
    fn field_named(&mut self, key: &str) -> Option<&mut Option<RawValue<'a>>> {
        match key {
            "type" => Some(&mut self.kind),
            "id" => Some(&mut self.id),
            "roomId" => Some(&mut self.room_id),
            "roomIds" => Some(&mut self.room_ids),
            "toUser" => Some(&mut self.to_user),
            "to" => Some(&mut self.to),
            "content" => Some(&mut self.content),
            "data" => Some(&mut self.data),
            "since" => Some(&mut self.since),
            "last" => Some(&mut self.last),
            "inbox" => Some(&mut self.inbox),
            "before" => Some(&mut self.before),
            "limit" => Some(&mut self.limit),
            "key" => Some(&mut self.key),
            "token" => Some(&mut self.token),
            _ => None,
        }
    }

    fn request_id(&self) -> Result<Option<&'a str>, Refusal> {
        let raw = match self.id {
            None => return Ok(None),
            Some(RawValue { raw, kind }) => match kind {
                Kind::PlainString | Kind::EscapedString | Kind::Number => raw,
                Kind::Object | Kind::Array | Kind::Literal => {
                    let message = "`id` must be a string or a number";
                    return Err(Refusal::new(ErrorCode::BadId, message));
                }
            },
        };
        if raw.len() > REQUEST_ID_BYTES_MAX {
            let message = format!("`id` must not be longer than {REQUEST_ID_BYTES_MAX} bytes");
            return Err(Refusal::new(ErrorCode::BadId, message));
        }
        Ok(Some(raw))
    }

    #[inline]
    fn command(&self, decoder: &mut Decoder) -> Result<Command<'a>, Refusal> {
        if self.content.is_some() && self.data.is_some() {
            let message = "`content` and `data` exclude each other";
            return Err(Refusal::new(ErrorCode::BadJson, message));
        }
        let kind = needed(self.kind, "every command", "type")?;
        let kind = kind.as_string().and_then(|kind| decoder.decode_within(kind, TYPE_BYTES_MAX));
        let Some(kind) = kind else {
            return Err(Refusal::unknown_type());
        };
        match &*kind {
            "room_msg" => Ok(Command::RoomMsg {
                room: self.room("room_msg", decoder)?,
                content: needed(self.content, "room_msg", "content")?.raw,
                key: self.publish_key(decoder)?,
            }),
            "private_msg" => Ok(Command::PrivateMsg {
                to_user: self.to_user(decoder)?,
                content: needed(self.content, "private_msg", "content")?.raw,
                key: self.publish_key(decoder)?,
            }),
            "private" => {
                Ok(Command::Private { to: self.to(decoder)?, data: needed(self.data, "private", "data")?.raw })
            }
            "broadcast" => Ok(Command::Broadcast(self.body()?)),
            "join_room" => Ok(Command::JoinRoom { rooms: self.rooms(decoder)?, position: self.position(decoder)? }),
            "leave_room" => Ok(Command::LeaveRoom { room: self.room("leave_room", decoder)? }),
            "presence" => Ok(Command::Presence { room: self.room("presence", decoder)? }),
            "history" => Ok(Command::History {
                room: self.room("history", decoder)?,
                before: optional_integer(self.before, "before")?,
                limit: optional_integer(self.limit, "limit")?,
            }),
            "resume" => self.resume(decoder),
            "ping" => Ok(Command::Ping),
            "refresh" => Ok(Command::Refresh { token: self.token.map(|token| refresh_token(token, decoder)) }),
            _ => Err(Refusal::unknown_type()),
        }
    }

    #[inline]
    fn room(&self, command: &'static str, decoder: &mut Decoder) -> Result<Cow<'a, str>, Refusal> {
        room(needed(self.room_id, command, "roomId")?, decoder).ok_or_else(|| Refusal::bad_room_id(ROOM_ID_RULE))
    }

    fn rooms(&self, decoder: &mut Decoder) -> Result<Rooms<'a>, Refusal> {
        let Some(room_ids) = self.room_ids else {
            return self.room("join_room", decoder).map(Rooms::One);
        };
        if self.room_id.is_some() {
            let message = "`roomId` and `roomIds` exclude each other";
            return Err(Refusal::new(ErrorCode::BadJson, message));
        }
        if room_ids.kind != Kind::Array {
            return Err(Refusal::bad_room_id(ROOM_IDS_RULE));
        }
        let mut elements = Elements::new(room_ids.raw);
        let mut rooms = Vec::new();
        while let Some(element) = elements.next_element().map_err(Refusal::malformed)? {
            if rooms.len() == ROOM_IDS_MAX {
                let message =
                    format!("`roomIds` must not have more than {ROOM_IDS_MAX} entries: join in several commands");
                return Err(Refusal::new(ErrorCode::TooManyRooms, message));
            }
            rooms.push(room(element, decoder).ok_or_else(|| Refusal::bad_room_id(ROOM_IDS_RULE))?);
        }
        let id_bytes = self.id.map_or(0, |id| id.raw.len());
        if rooms.len() * id_bytes > ROOM_IDS_ECHO_BYTES_MAX {
            let message = format!(
                "each room is answered with the `id`, which makes more than {ROOM_IDS_ECHO_BYTES_MAX} bytes: use a shorter `id`, or join in several commands"
            );
            return Err(Refusal::new(ErrorCode::TooManyRooms, message));
        }
        Ok(Rooms::Many(rooms))
    }

    #[inline]
    fn to_user(&self, decoder: &mut Decoder) -> Result<Cow<'a, str>, Refusal> {
        let to_user = needed(self.to_user, "private_msg", "toUser")?;
        to_user
            .as_string()
            .and_then(|user| decoder.decode_within(user, USER_ID_BYTES_MAX))
            .filter(|user| !user.is_empty())
            .ok_or_else(|| {
                let message = format!("`toUser` must be a string of 1 to {USER_ID_BYTES_MAX} bytes in UTF-8");
                Refusal::new(ErrorCode::BadUserId, message)
            })
    }

    #[inline]
    fn to(&self, decoder: &mut Decoder) -> Result<Cow<'a, str>, Refusal> {
        let to = needed(self.to, "private", "to")?;
        to.as_string()
            .and_then(|to| decoder.decode(to))
            .ok_or_else(|| Refusal::new(ErrorCode::BadClientId, "`to` must be a client id"))
    }

    #[inline]
    fn body(&self) -> Result<Body<'a>, Refusal> {
        match self.data {
            Some(data) => Ok(Body::Data(data.raw)),
            None => {
                let content = needed(self.content, "broadcast", "content` or `data")?;
                Ok(Body::Content(content.raw))
            }
        }
    }

    #[inline]
    fn publish_key(&self, decoder: &mut Decoder) -> Result<Option<Cow<'a, str>>, Refusal> {
        let Some(key) = self.key else { return Ok(None) };
        key.as_string()
            .and_then(|key| decoder.decode_within(key, PUBLISH_KEY_BYTES_MAX))
            .filter(|key| !key.is_empty())
            .map(Some)
            .ok_or_else(|| {
                let message = format!("`key` must be a string of 1 to {PUBLISH_KEY_BYTES_MAX} bytes in UTF-8");
                Refusal::new(ErrorCode::BadKey, message)
            })
    }

    fn resume(&self, decoder: &mut Decoder) -> Result<Command<'a>, Refusal> {
        match since_position(needed(self.inbox, "resume", "inbox")?, decoder) {
            Some(Position::Since { epoch, offset }) => Ok(Command::Resume { epoch, offset }),
            Some(Position::Last(_)) | None => {
                let message = "`inbox` must be a position, like {\"epoch\":\"…\",\"offset\":7}";
                Err(Refusal::new(ErrorCode::BadPosition, message))
            }
        }
    }

    fn position(&self, decoder: &mut Decoder) -> Result<Option<Position<'a>>, Refusal> {
        let position = match (self.since, self.last) {
            (None, None) => return Ok(None),
            (Some(since), None) => since_position(since, decoder),
            (None, Some(last)) => integer(last).map(Position::Last),
            (Some(_), Some(_)) => None,
        };
        position.map(Some).ok_or_else(|| {
            let message = "the position must be either `since`, like {\"epoch\":\"…\",\"offset\":7}, or `last`, like 7";
            Refusal::new(ErrorCode::BadPosition, message)
        })
    }
}

#[inline]
fn needed<'a>(field: Option<RawValue<'a>>, command: &'static str, name: &'static str) -> Result<RawValue<'a>, Refusal> {
    field.ok_or_else(|| {
        let message = format!("{command} needs the field `{name}`");
        Refusal::new(ErrorCode::MissingField, message)
    })
}

#[inline]
fn room<'a>(value: RawValue<'a>, decoder: &mut Decoder) -> Option<Cow<'a, str>> {
    value.as_string().and_then(|room| decoder.decode_within(room, ROOM_ID_BYTES_MAX)).filter(|room| !room.is_empty())
}

fn refresh_token<'a>(value: RawValue<'a>, decoder: &mut Decoder) -> Cow<'a, str> {
    value.as_string().and_then(|token| decoder.decode_within(token, TOKEN_REFRESH_BYTES_MAX)).unwrap_or_default()
}

fn since_position<'a>(value: RawValue<'a>, decoder: &mut Decoder) -> Option<Position<'a>> {
    if value.kind != Kind::Object {
        return None;
    }
    let (mut epoch, mut offset) = (None, None);
    let mut members = Members::new(value.raw);
    while let Some(Member { key, value }) = members.next_member().ok()? {
        match decoder.decode_within(key, KEY_BYTES_MAX).as_deref() {
            Some("epoch") => epoch = Some(value),
            Some("offset") => offset = Some(value),
            _ => {}
        }
    }
    let epoch = decoder.decode(epoch?.as_string()?)?;
    let offset = integer(offset?)?;
    Some(Position::Since { epoch, offset })
}

fn optional_integer(value: Option<RawValue<'_>>, name: &'static str) -> Result<Option<u64>, Refusal> {
    let Some(value) = value else { return Ok(None) };
    integer(value).map(Some).ok_or_else(|| {
        let message = format!("`{name}` must be a whole number, like 7");
        Refusal::new(ErrorCode::BadPosition, message)
    })
}

/// A number without sign, fraction and exponent that fits 64 bits.
fn integer(value: RawValue<'_>) -> Option<u64> {
    match value.kind {
        Kind::Number => value.raw.parse().ok(),
        Kind::PlainString | Kind::EscapedString | Kind::Object | Kind::Array | Kind::Literal => None,
    }
}

/// Decodes strings. Keeps what `simd-json` needs for it from one string of a
/// message to the next, so that a message full of escapes costs no allocation
/// for each; nothing is allocated before the first.
#[derive(Default)]
pub struct Decoder {
    buffers: Option<Buffers>,
    copy: Vec<u8>,
}

impl Decoder {
    /// The string that `string` stands for; `None` if it is longer than
    /// `bytes_max`, or no Unicode text.
    #[inline]
    pub fn decode_within<'a>(&mut self, string: RawString<'a>, bytes_max: usize) -> Option<Cow<'a, str>> {
        if string.inner.len() > bytes_max * ESCAPE_BYTES_MAX {
            return None;
        }
        self.decode(string).filter(|decoded| decoded.len() <= bytes_max)
    }

    /// The string that `string` stands for; `None` if it is no Unicode text,
    /// since an escape in it is half a surrogate pair.
    #[inline]
    pub fn decode<'a>(&mut self, string: RawString<'a>) -> Option<Cow<'a, str>> {
        if string.escaped {
            self.decode_escapes(string.inner).map(Cow::Owned)
        } else {
            Some(Cow::Borrowed(string.inner))
        }
    }

    #[cold]
    fn decode_escapes(&mut self, inner: &str) -> Option<String> {
        self.copy.clear();
        self.copy.push(b'"');
        self.copy.extend_from_slice(inner.as_bytes());
        self.copy.push(b'"');
        let buffers = self.buffers.get_or_insert_with(|| Buffers::new(inner.len()));
        let tape = to_tape_with_buffers(&mut self.copy, buffers).ok()?;
        match tape.0.as_slice() {
            [Node::String(decoded)] => Some((*decoded).to_owned()),
            _ => None,
        }
    }
}

/// A [`Rejection`] that does not know the `id` yet.
struct Refusal {
    code: ErrorCode,
    message: Cow<'static, str>,
}

impl Refusal {
    fn new(code: ErrorCode, message: impl Into<Cow<'static, str>>) -> Self {
        let message = message.into();
        Self { code, message }
    }

    #[cold]
    fn malformed(malformed: Malformed) -> Self {
        let message = format!("a message must be one JSON object (RFC 8259): {malformed}");
        Self::new(ErrorCode::BadJson, message)
    }

    #[cold]
    fn unknown_type() -> Self {
        Self::new(ErrorCode::UnknownType, UNKNOWN_TYPE)
    }

    #[cold]
    fn bad_room_id(rule: &'static str) -> Self {
        let message = format!("{rule} of 1 to {ROOM_ID_BYTES_MAX} bytes in UTF-8");
        Self::new(ErrorCode::BadRoomId, message)
    }

    fn about(self, id: Option<&str>) -> Rejection<'_> {
        let Self { code, message } = self;
        Rejection { id, code, message }
    }
}
