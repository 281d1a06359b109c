//! The envelope of a message: its fields as they stand in it, and what they
//! come to.

use super::command::{Body, Command, Position, Rejection, Rooms};
use super::decoder::Decoder;
use super::keyed::{self, KeyedFields, SubscribeOptions};
use super::scan::{Elements, Kind, Malformed, Member, Members, RawString, RawValue};
use super::{ErrorCode, PUBLISH_KEY_BYTES_MAX, REQUEST_ID_BYTES_MAX, ROOM_IDS_ECHO_BYTES_MAX, ROOM_IDS_MAX};
use crate::limits::{ROOM_ID_BYTES_MAX, TOKEN_REFRESH_BYTES_MAX, USER_ID_BYTES_MAX};
use std::borrow::Cow;

/// The fields the server knows, as they stand in the message.
#[derive(Default)]
pub(super) struct Envelope<'a> {
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
    item: Option<RawValue<'a>>,
    remove: Option<RawValue<'a>>,
    version: Option<RawValue<'a>>,
    updates: Option<RawValue<'a>>,
    replace: Option<RawValue<'a>>,
    mode: Option<RawValue<'a>>,
    interval: Option<RawValue<'a>>,
    items: Option<RawValue<'a>>,
    snapshot: Option<RawValue<'a>>,
}

/// The longest name of a field, in the envelope and in `since`.
const KEY_BYTES_MAX: usize = "snapshot".len();

/// The longest name of a command.
const TYPE_BYTES_MAX: usize = "private_msg".len();

const UNKNOWN_TYPE: &str = "`type` must be one of the commands: private_msg, private, broadcast, \
                            join_room, tune, leave_room, room_msg, room_msgs, history, resume, presence, ping";

const ROOM_ID_RULE: &str = "`roomId` must be a string";
const ROOM_IDS_RULE: &str = "`roomIds` must be an array of strings, each";

impl<'a> Envelope<'a> {
    #[inline]
    pub(super) fn read(&mut self, text: &'a str, decoder: &mut Decoder) -> Result<(), Malformed> {
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
            "item" => Some(&mut self.item),
            "remove" => Some(&mut self.remove),
            "version" => Some(&mut self.version),
            "updates" => Some(&mut self.updates),
            "replace" => Some(&mut self.replace),
            "mode" => Some(&mut self.mode),
            "interval" => Some(&mut self.interval),
            "items" => Some(&mut self.items),
            "snapshot" => Some(&mut self.snapshot),
            _ => None,
        }
    }

    pub(super) fn request_id(&self) -> Result<Option<&'a str>, Refusal> {
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
    pub(super) fn command(&self, decoder: &mut Decoder) -> Result<Command<'a>, Refusal> {
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
                content: self.room_content()?,
                key: self.publish_key(decoder)?,
                keyed: self.keyed(),
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
            "room_msgs" => Ok(Command::RoomMsgs {
                room: self.room("room_msgs", decoder)?,
                updates: self.updates()?,
                replace: self.replaces()?,
                key: self.publish_key(decoder)?,
            }),
            "join_room" => self.join(decoder),
            "tune" => Ok(Command::Tune {
                room: self.room("tune", decoder)?,
                options: Box::new(SubscribeOptions { snapshot: None, ..self.options(decoder)?.unwrap_or_default() }),
            }),
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

    /// `content` of a `room_msg`, which an update in a keyed room may lack.
    #[inline]
    fn room_content(&self) -> Result<Option<&'a str>, Refusal> {
        match self.content {
            Some(content) => Ok(Some(content.raw)),
            None if self.item.is_some() || self.remove.is_some() => Ok(None),
            None => Err(Refusal::missing("room_msg", "content")),
        }
    }

    #[inline]
    fn keyed(&self) -> KeyedFields<'a> {
        let raw = |value: RawValue<'a>| value.raw;
        KeyedFields { item: self.item.map(raw), remove: self.remove.map(raw), version: self.version.map(raw) }
    }

    fn updates(&self) -> Result<RawValue<'a>, Refusal> {
        let updates = needed(self.updates, "room_msgs", "updates")?;
        match updates.kind {
            Kind::Array => Ok(updates),
            Kind::PlainString | Kind::EscapedString | Kind::Number | Kind::Object | Kind::Literal => {
                Err(Refusal::new(ErrorCode::BadItem, "`updates` must be an array of objects"))
            }
        }
    }

    fn replaces(&self) -> Result<bool, Refusal> {
        let Some(replace) = self.replace else { return Ok(false) };
        keyed::switch(replace)
            .ok_or_else(|| Refusal::new(ErrorCode::BadOptions, "`replace` must be either true or false"))
    }

    fn join(&self, decoder: &mut Decoder) -> Result<Command<'a>, Refusal> {
        let (rooms, position) = (self.rooms(decoder)?, self.position(decoder)?);
        let options = self.options(decoder)?;
        match (&rooms, &options) {
            (Rooms::Many(_), Some(_)) => {
                let message = "`mode`, `interval`, `items` and `snapshot` go with one `roomId`, not with `roomIds`";
                Err(Refusal::new(ErrorCode::BadOptions, message))
            }
            (Rooms::One(_), _) | (Rooms::Many(_), None) => {
                Ok(Command::JoinRoom { rooms, position, options: options.map(Box::new) })
            }
        }
    }

    /// What is wanted of a keyed room; `None` where the client does not say.
    fn options(&self, decoder: &mut Decoder) -> Result<Option<SubscribeOptions<'a>>, Refusal> {
        let Envelope { mode, interval, items, snapshot, .. } = *self;
        if mode.is_none() && interval.is_none() && items.is_none() && snapshot.is_none() {
            return Ok(None);
        }
        Ok(Some(SubscribeOptions {
            mode: mode.map(|mode| keyed::mode(mode, decoder)).transpose()?,
            interval_ms: interval.map(keyed::interval).transpose()?,
            items: items.map(|items| keyed::patterns(items, decoder)).transpose()?,
            snapshot: snapshot.map(keyed::snapshot).transpose()?,
        }))
    }

    /// The room that a command at fault is about, if it is about one.
    #[cold]
    pub(super) fn room_at_fault(&self, decoder: &mut Decoder) -> Option<Cow<'a, str>> {
        let kind = decoder.decode_within(self.kind?.as_string()?, TYPE_BYTES_MAX)?;
        let is_about_room = match &*kind {
            "join_room" => self.room_ids.is_none(),
            "room_msg" | "room_msgs" | "tune" | "leave_room" | "history" | "presence" => true,
            _ => false,
        };
        if is_about_room { room(self.room_id?, decoder) } else { None }
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
    field.ok_or_else(|| Refusal::missing(command, name))
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
pub(super) fn integer(value: RawValue<'_>) -> Option<u64> {
    match value.kind {
        Kind::Number => value.raw.parse().ok(),
        Kind::PlainString | Kind::EscapedString | Kind::Object | Kind::Array | Kind::Literal => None,
    }
}

/// A [`Rejection`] that does not know the `id` yet.
pub(super) struct Refusal {
    code: ErrorCode,
    message: Cow<'static, str>,
}

impl Refusal {
    pub(super) fn new(code: ErrorCode, message: impl Into<Cow<'static, str>>) -> Self {
        let message = message.into();
        Self { code, message }
    }

    #[cold]
    pub(super) fn malformed(malformed: Malformed) -> Self {
        let message = format!("a message must be one JSON object (RFC 8259): {malformed}");
        Self::new(ErrorCode::BadJson, message)
    }

    #[cold]
    pub(super) fn unknown_type() -> Self {
        Self::new(ErrorCode::UnknownType, UNKNOWN_TYPE)
    }

    #[cold]
    fn bad_room_id(rule: &'static str) -> Self {
        let message = format!("{rule} of 1 to {ROOM_ID_BYTES_MAX} bytes in UTF-8");
        Self::new(ErrorCode::BadRoomId, message)
    }

    #[cold]
    pub(super) fn missing(command: &'static str, name: &'static str) -> Self {
        Self::new(ErrorCode::MissingField, format!("{command} needs the field `{name}`"))
    }

    pub(super) fn about<'a>(self, id: Option<&'a str>, room: Option<Cow<'a, str>>) -> Rejection<'a> {
        let Self { code, message } = self;
        Rejection { id, code, message, room, index: None }
    }
}
