//! What a command to publish says: from the text of its object to a draft. The text of `content` stays what was sent.

use std::borrow::Cow;

use utoipa::ToSchema;

use super::error::Code;
use super::{Api, ApiError, Caller};
use crate::config::Verb;
use crate::control::publication::{Publication, RoomUpdate, Said};
use crate::limits::{ROOM_ID_BYTES_MAX, USER_ID_BYTES_MAX};
use crate::protocol::scan::{Malformed, RawString, RawValue, Walk};
use crate::protocol::{Decoder, ErrorCode, KeyedFields, PUBLISH_KEY_BYTES_MAX, Update, keyed};
use crate::router::{ApiKeyed, Draft};

/// A command to publish, as a request or an entry of a batch says it.
#[derive(Debug, PartialEq, Eq, ToSchema)]
#[schema(rename_all = "camelCase")]
pub(super) enum Command<'a> {
    /// To the members of a room. Needs the verb `publish` and the room.
    Publish(Publish<'a>),
    /// To every connection of a user. Needs the verb `private` and all rooms.
    Private(Private<'a>),
    /// To every connection. Needs the verb `broadcast` and all rooms.
    Broadcast(Broadcast<'a>),
}

/// A message for the members of a room.
#[derive(Debug, PartialEq, Eq, ToSchema)]
#[schema(rename_all = "camelCase")]
pub(super) struct Publish<'a> {
    /// The room: 1 to 255 bytes in UTF-8.
    #[schema(value_type = String, min_length = 1, max_length = 255, example = "den")]
    room_id: Cow<'a, str>,
    /// What receivers get, its text untouched. Absent only where `remove` is true.
    #[schema(value_type = Option<serde_json::Value>)]
    content: Option<&'a str>,
    /// Who receivers are told it is from, 1 to 128 bytes in UTF-8: the name of the key where it is absent.
    #[schema(value_type = Option<String>, min_length = 1, max_length = 128, example = "shop", nullable = false)]
    from: Option<Cow<'a, str>>,
    /// What a retry is known by, 1 to 64 bytes in UTF-8. For 5 minutes the same from keys of the same name to the same
    /// topic is one message. It works where history is kept, and in keyed rooms.
    #[schema(value_type = Option<String>, min_length = 1, max_length = 64, example = "order-7", nullable = false)]
    key: Option<Cow<'a, str>>,
    /// In a keyed room, where it is required: the item that is updated, 1 to 128 bytes in UTF-8 without `*`. Elsewhere it is
    /// ignored, as are `remove` and `version`.
    #[schema(value_type = Option<String>, min_length = 1, max_length = 128, example = "AAPL", nullable = false)]
    item: Option<Cow<'a, str>>,
    /// In a keyed room: whether the item is removed; then there is no `content`.
    #[schema(value_type = Option<bool>, nullable = false)]
    remove: Option<bool>,
    /// In a keyed room: an update that is not above the item's last version is dropped.
    #[schema(value_type = Option<i64>, nullable = false)]
    version: Option<i64>,
}

/// A message for every connection of a user.
#[derive(Debug, PartialEq, Eq, ToSchema)]
#[schema(rename_all = "camelCase")]
pub(super) struct Private<'a> {
    /// The user: 1 to 128 bytes in UTF-8.
    #[schema(value_type = String, min_length = 1, max_length = 128, example = "alice")]
    to_user: Cow<'a, str>,
    /// What receivers get, its text untouched.
    #[schema(value_type = serde_json::Value)]
    content: &'a str,
    /// Who receivers are told it is from, 1 to 128 bytes in UTF-8: the name of the key where it is absent.
    #[schema(value_type = Option<String>, min_length = 1, max_length = 128, example = "shop", nullable = false)]
    from: Option<Cow<'a, str>>,
    /// What a retry is known by, 1 to 64 bytes in UTF-8. For 5 minutes the same from keys of the same name to the same
    /// topic is one message. It works where history is kept.
    #[schema(value_type = Option<String>, min_length = 1, max_length = 64, example = "order-7", nullable = false)]
    key: Option<Cow<'a, str>>,
}

/// A message for every connection.
#[derive(Debug, PartialEq, Eq, ToSchema)]
#[schema(rename_all = "camelCase")]
pub(super) struct Broadcast<'a> {
    /// What receivers get, its text untouched.
    #[schema(value_type = serde_json::Value)]
    content: &'a str,
    /// Who receivers are told it is from, 1 to 128 bytes in UTF-8: the name of the key where it is absent.
    #[schema(value_type = Option<String>, min_length = 1, max_length = 128, example = "shop", nullable = false)]
    from: Option<Cow<'a, str>>,
}

/// Which command it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Publish,
    Private,
    Broadcast,
}

impl Kind {
    /// The kind with this name in a batch.
    pub(super) fn named(name: &str) -> Option<Kind> {
        match name {
            "publish" => Some(Kind::Publish),
            "private" => Some(Kind::Private),
            "broadcast" => Some(Kind::Broadcast),
            _ => None,
        }
    }
}

/// The fields that are known, as they stand in the object; of those that stand twice the last.
#[derive(Default)]
pub(super) struct Fields<'a> {
    room_id: Option<RawValue<'a>>,
    to_user: Option<RawValue<'a>>,
    content: Option<RawValue<'a>>,
    from: Option<RawValue<'a>>,
    key: Option<RawValue<'a>>,
    item: Option<RawValue<'a>>,
    remove: Option<RawValue<'a>>,
    version: Option<RawValue<'a>>,
}

/// Whether rooms of commands are keyed: many commands in a row are for one room.
pub(super) struct RoomsNamed<'a> {
    api: &'a Api,
    last: Option<(Box<str>, bool)>,
}

impl RoomsNamed<'_> {
    pub(super) fn new(api: &Api) -> RoomsNamed<'_> {
        RoomsNamed { api, last: None }
    }

    fn is_keyed(&mut self, room: &str) -> bool {
        if self.api.settings.keyed.is_none() {
            return false;
        }
        match &self.last {
            Some((last, is_keyed)) if **last == *room => *is_keyed,
            _ => {
                let is_keyed = self.api.is_keyed(room);
                self.last = Some((room.into(), is_keyed));
                is_keyed
            }
        }
    }
}

/// The longest name of a field.
const NAME_BYTES_MAX: usize = "version".len();

impl<'a> Fields<'a> {
    /// The fields of the object that begins where `walk` is.
    pub(super) fn read(walk: &mut Walk<'a>, decoder: &mut Decoder) -> Result<Fields<'a>, Malformed> {
        let mut fields = Fields::default();
        walk.enter_object()?;
        while let Some(name) = walk.next_member()? {
            fields.put(name, walk.value()?, decoder);
        }
        Ok(fields)
    }

    fn put(&mut self, name: RawString<'a>, value: RawValue<'a>, decoder: &mut Decoder) {
        let Some(name) = decoder.decode_within(name, NAME_BYTES_MAX) else { return };
        let field = match &*name {
            "roomId" => &mut self.room_id,
            "toUser" => &mut self.to_user,
            "content" => &mut self.content,
            "from" => &mut self.from,
            "key" => &mut self.key,
            "item" => &mut self.item,
            "remove" => &mut self.remove,
            "version" => &mut self.version,
            _ => return,
        };
        *field = Some(value);
    }

    /// What they mean.
    ///
    /// # Errors
    /// What is wrong with them.
    pub(super) fn command(
        self,
        kind: Kind,
        decoder: &mut Decoder,
        rooms: &mut RoomsNamed<'_>,
    ) -> Result<Command<'a>, ApiError> {
        Ok(match kind {
            Kind::Publish => Command::Publish(self.publish(decoder, rooms)?),
            Kind::Private => Command::Private(Private {
                to_user: self.user(decoder)?,
                content: self.content()?,
                from: self.from(decoder)?,
                key: self.key(decoder)?,
            }),
            Kind::Broadcast => Command::Broadcast(Broadcast { content: self.content()?, from: self.from(decoder)? }),
        })
    }

    fn publish(&self, decoder: &mut Decoder, rooms: &mut RoomsNamed<'_>) -> Result<Publish<'a>, ApiError> {
        let room_id = self.room(decoder)?;
        let (from, key) = (self.from(decoder)?, self.key(decoder)?);
        if !rooms.is_keyed(&room_id) {
            let content = Some(self.content()?);
            return Ok(Publish { room_id, content, from, key, item: None, remove: None, version: None });
        }
        let raw = |field: Option<RawValue<'a>>| field.map(|value| value.raw);
        let keyed = KeyedFields { item: raw(self.item), remove: raw(self.remove), version: raw(self.version) };
        let update = keyed.update(raw(self.content));
        let Update { item, version, body } = update.map_err(|error| ApiError::wire(error.code, error.message))?;
        let (content, remove) = match body {
            keyed::Body::Content(content) => (Some(content), None),
            keyed::Body::Removal => (None, Some(true)),
        };
        Ok(Publish { room_id, content, from, key, item: Some(item), remove, version })
    }

    fn content(&self) -> Result<&'a str, ApiError> {
        needed(self.content, "content").map(|content| content.raw)
    }

    fn from(&self, decoder: &mut Decoder) -> Result<Option<Cow<'a, str>>, ApiError> {
        let from = self.from.map(|from| name(from, "from", USER_ID_BYTES_MAX, ErrorCode::BadUserId, decoder));
        from.transpose()
    }

    fn key(&self, decoder: &mut Decoder) -> Result<Option<Cow<'a, str>>, ApiError> {
        let key = self.key.map(|key| name(key, "key", PUBLISH_KEY_BYTES_MAX, ErrorCode::BadKey, decoder));
        key.transpose()
    }

    fn room(&self, decoder: &mut Decoder) -> Result<Cow<'a, str>, ApiError> {
        name(needed(self.room_id, "roomId")?, "roomId", ROOM_ID_BYTES_MAX, ErrorCode::BadRoomId, decoder)
    }

    fn user(&self, decoder: &mut Decoder) -> Result<Cow<'a, str>, ApiError> {
        name(needed(self.to_user, "toUser")?, "toUser", USER_ID_BYTES_MAX, ErrorCode::BadUserId, decoder)
    }
}

fn needed<'a>(field: Option<RawValue<'a>>, name: &'static str) -> Result<RawValue<'a>, ApiError> {
    field.ok_or_else(|| ApiError::wire(ErrorCode::MissingField, format!("the field `{name}` is missing")))
}

/// A string of 1 to `bytes_max` bytes.
fn name<'a>(
    value: RawValue<'a>,
    field: &'static str,
    bytes_max: usize,
    code: ErrorCode,
    decoder: &mut Decoder,
) -> Result<Cow<'a, str>, ApiError> {
    let text = value.as_string().and_then(|text| decoder.decode_within(text, bytes_max));
    text.filter(|text| !text.is_empty())
        .ok_or_else(|| ApiError::wire(code, format!("`{field}` must be a string of 1 to {bytes_max} bytes in UTF-8")))
}

impl Command<'_> {
    /// Whether this server does it for whoever asks.
    ///
    /// # Errors
    /// What stands against it.
    pub(super) fn check(&self, api: &Api, caller: &Caller) -> Result<(), ApiError> {
        let content = match self {
            Command::Publish(Publish { room_id, content, .. }) => {
                caller.needs_room(Verb::Publish, room_id)?;
                api.check_room_id(room_id)?;
                content.unwrap_or_default()
            }
            Command::Private(Private { content, .. }) => {
                caller.needs_all_rooms(Verb::Private)?;
                content
            }
            Command::Broadcast(Broadcast { content, .. }) => {
                caller.needs_all_rooms(Verb::Broadcast)?;
                content
            }
        };
        let bytes_max = api.settings.message_bytes_max;
        match content.len() > bytes_max {
            true => Err(ApiError::new(Code::TooLarge, format!("`content` is larger than {bytes_max} bytes"))),
            false => Ok(()),
        }
    }

    /// Bytes of the content, and of an item's name.
    pub(super) fn content_bytes(&self) -> usize {
        match self {
            Command::Publish(Publish { content, item, .. }) => {
                content.unwrap_or_default().len() + item.as_deref().unwrap_or_default().len()
            }
            Command::Private(Private { content, .. }) | Command::Broadcast(Broadcast { content, .. }) => content.len(),
        }
    }

    /// The same, to be published.
    pub(super) fn publication<'c>(&'c self, caller: &'c Caller) -> Publication<'c> {
        let (what, from, key) = match self {
            Command::Publish(Publish { room_id: room, content, from, key, item, remove: _, version }) => {
                let what = match (item, *content) {
                    (Some(item), content) => {
                        let body = content.map_or(keyed::Body::Removal, keyed::Body::Content);
                        Said::Update(RoomUpdate { room, item, version: *version, body })
                    }
                    (None, content) => {
                        Said::Message(Draft::RoomMsg { room, content: content.expect("only an item is removed") })
                    }
                };
                (what, from, key.as_deref())
            }
            Command::Private(Private { to_user, content, from, key }) => {
                (Said::Message(Draft::PrivateMsg { to: to_user, content }), from, key.as_deref())
            }
            Command::Broadcast(Broadcast { content, from }) => {
                (Said::Message(Draft::BroadcastContent(content)), from, None)
            }
        };
        let key = key.map(|key| ApiKeyed { name: caller.name(), key });
        Publication { from: from.as_deref().unwrap_or_else(|| caller.name()), what, key }
    }
}
