//! Any text as a command.
//!
//! `protocol::parse` must take it for what a second reader does, which knows nothing of the scanner: `serde_json` says
//! what is valid JSON and where the members of the object are, and the rules of `docs/wire.md` follow in their order.
//! Both must come to the same command, or to the same code and `id`. (Values are kept raw in both: numbers of any
//! size, lone surrogates, and any depth up to the limit.)
//!
//! What is kept as it was sent is a slice of the input itself, and what is built of it is valid JSON that says the
//! same again. Updates of keyed rooms are read as if the room were one, and compared in the same way.
//!
//! Input: the text.

#![no_main]

use std::borrow::Cow;
use std::fmt;

use fanfare::limits::{
    ITEM_BYTES_MAX, ITEM_PATTERNS_MAX, ITEM_UPDATES_MAX, ROOM_ID_BYTES_MAX, ROUND_INTERVAL_MS_MAX,
    TOKEN_REFRESH_BYTES_MAX, USER_ID_BYTES_MAX,
};
use fanfare::protocol::keyed::{self, read_updates};
use fanfare::protocol::scan::RawValue as Scanned;
use fanfare::protocol::{
    self, Body, Command, ErrorCode, KeyedFields, Mode, NESTING_MAX, PUBLISH_KEY_BYTES_MAX, Position,
    REQUEST_ID_BYTES_MAX, ROOM_IDS_MAX, Rejection, Request, Rooms, SubscribeOptions, Update, UpdateError, parse,
};
use libfuzzer_sys::fuzz_target;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

fuzz_target!(|text: &str| {
    let found = parse(text);
    match (&found, expected(text)) {
        (Ok(request), Ok(expected)) => {
            assert_eq!(*request, expected, "{text:?}");
            check_slices(request, text);
            check_message(request);
            check_updates(request, text);
        }
        (Err(rejection), Err((id, code))) => {
            assert_eq!((rejection.id, rejection.code), (id, code), "{text:?}: {}", rejection.message);
            check_error(rejection);
        }
        (found, expected) => panic!("{text:?} is {found:?} and should be {expected:?}"),
    }
});

type Refused<'a> = (Option<&'a str>, ErrorCode);

/// What a text is by the document, read with `serde_json`.
fn expected(text: &str) -> Result<Request<'_>, Refused<'_>> {
    let bad_json = (None, ErrorCode::BadJson);
    let fields = Fields::read(text).filter(|_| depth(text) <= NESTING_MAX).ok_or(bad_json)?;
    let id = fields.get("id");
    if id.is_some_and(|id| !id.starts_with(['"', '-']) && !id.starts_with(|first: char| first.is_ascii_digit())) {
        return Err((None, ErrorCode::BadId));
    }
    if id.is_some_and(|id| id.len() > REQUEST_ID_BYTES_MAX) {
        return Err((None, ErrorCode::BadId));
    }
    command(&fields).map(|command| Request { id, command }).map_err(|code| (id, code))
}

fn command<'a>(fields: &Fields<'a>) -> Result<Command<'a>, ErrorCode> {
    let needed = |name| fields.get(name).ok_or(ErrorCode::MissingField);
    let room = || name_of(needed("roomId")?, ROOM_ID_BYTES_MAX).ok_or(ErrorCode::BadRoomId);
    if fields.get("content").is_some() && fields.get("data").is_some() {
        return Err(ErrorCode::BadJson);
    }
    let kind = string_of(needed("type")?).ok_or(ErrorCode::UnknownType)?;
    Ok(match kind.as_str() {
        "room_msg" => room_msg(fields, room()?)?,
        "room_msgs" => Command::RoomMsgs {
            room: room()?,
            updates: Some(needed("updates")?)
                .filter(|updates| updates.starts_with('['))
                .map(Scanned::of)
                .ok_or(ErrorCode::BadItem)?,
            replace: optional_switch(fields, "replace", ErrorCode::BadOptions)?.unwrap_or(false),
            key: key_of(fields)?,
        },
        "tune" => {
            let (room, options) = (room()?, options_of(fields)?.unwrap_or_default());
            Command::Tune { room, options: Box::new(SubscribeOptions { snapshot: None, ..options }) }
        }
        "private_msg" => Command::PrivateMsg {
            to_user: name_of(needed("toUser")?, USER_ID_BYTES_MAX).ok_or(ErrorCode::BadUserId)?,
            content: needed("content")?,
            key: key_of(fields)?,
        },
        "private" => Command::Private {
            to: string_of(needed("to")?).ok_or(ErrorCode::BadClientId)?.into(),
            data: needed("data")?,
        },
        "broadcast" => Command::Broadcast(match fields.get("data") {
            Some(data) => Body::Data(data),
            None => Body::Content(needed("content")?),
        }),
        "join_room" => Command::JoinRoom {
            rooms: match fields.get("roomIds") {
                None => Rooms::One(room()?),
                Some(_) if fields.get("roomId").is_some() => return Err(ErrorCode::BadJson),
                Some(rooms) => Rooms::Many(rooms_of(rooms)?),
            },
            position: position_of(fields)?,
            options: match (options_of(fields)?, fields.get("roomIds")) {
                (Some(_), Some(_)) => return Err(ErrorCode::BadOptions),
                (options, _) => options.map(Box::new),
            },
        },
        "leave_room" => Command::LeaveRoom { room: room()? },
        "presence" => Command::Presence { room: room()? },
        "history" => Command::History {
            room: room()?,
            before: optional_integer(fields, "before")?,
            limit: optional_integer(fields, "limit")?,
        },
        "resume" => {
            let (epoch, offset) = place_of(needed("inbox")?).ok_or(ErrorCode::BadPosition)?;
            Command::Resume { epoch, offset }
        }
        "ping" => Command::Ping,
        "refresh" => Command::Refresh {
            token: fields.get("token").map(|token| {
                let token = string_of(token).filter(|token| token.len() <= TOKEN_REFRESH_BYTES_MAX);
                token.unwrap_or_default().into()
            }),
        },
        _ => return Err(ErrorCode::UnknownType),
    })
}

fn room_msg<'a>(fields: &Fields<'a>, room: Cow<'a, str>) -> Result<Command<'a>, ErrorCode> {
    Ok(Command::RoomMsg {
        room,
        content: match fields.get("content") {
            None if fields.get("item").or(fields.get("remove")).is_none() => return Err(ErrorCode::MissingField),
            content => content,
        },
        key: key_of(fields)?,
        keyed: KeyedFields { item: fields.get("item"), remove: fields.get("remove"), version: fields.get("version") },
    })
}

fn options_of<'a>(fields: &Fields<'a>) -> Result<Option<SubscribeOptions<'a>>, ErrorCode> {
    let bad = ErrorCode::BadOptions;
    let names = ["mode", "interval", "items", "snapshot"];
    if names.iter().all(|name| fields.get(name).is_none()) {
        return Ok(None);
    }
    let mode = |mode| match string_of(mode).as_deref() {
        Some("all") => Ok(Mode::All),
        Some("latest") => Ok(Mode::Latest),
        _ => Err(bad),
    };
    let interval = |interval| integer_of(interval).map(|ms| ms.min(ROUND_INTERVAL_MS_MAX)).ok_or(bad);
    Ok(Some(SubscribeOptions {
        mode: fields.get("mode").map(mode).transpose()?,
        interval_ms: fields.get("interval").map(interval).transpose()?,
        items: fields.get("items").map(patterns_of).transpose()?,
        snapshot: optional_switch(fields, "snapshot", bad)?,
    }))
}

fn patterns_of(items: &str) -> Result<Vec<Cow<'_, str>>, ErrorCode> {
    let items: Vec<&RawValue> = serde_json::from_str(items).map_err(|_| ErrorCode::BadOptions)?;
    let ends_in_star = |pattern: &Cow<'_, str>| pattern.find('*').is_none_or(|at| at + 1 == pattern.len());
    let pattern =
        |item: &&'_ RawValue| name_of(item.get(), ITEM_BYTES_MAX).filter(ends_in_star).map(|name| name.into_owned());
    let named =
        items.iter().take(ITEM_PATTERNS_MAX).map(pattern).collect::<Option<Vec<_>>>().ok_or(ErrorCode::BadOptions)?;
    if items.len() > ITEM_PATTERNS_MAX {
        Err(ErrorCode::TooManyItems)
    } else {
        Ok(named.into_iter().map(Cow::Owned).collect())
    }
}

fn optional_switch(fields: &Fields<'_>, name: &str, code: ErrorCode) -> Result<Option<bool>, ErrorCode> {
    fields.get(name).map(|value| value.parse().map_err(|_| code)).transpose()
}

/// Updates as they are read where the room is keyed, beside what the document makes of them.
fn check_updates(request: &Request<'_>, text: &str) {
    let (found, expected) = match &request.command {
        Command::RoomMsg { content, keyed, .. } => {
            let missing = keyed.item.is_none();
            let fields = Fields::read(text).expect("it is an object");
            let expected = update_of(&fields).map(|update| vec![update]).map_err(|is_missing| {
                (None, if missing || is_missing { ErrorCode::MissingField } else { ErrorCode::BadItem })
            });
            (keyed.update(*content).map(|update| vec![update]), expected)
        }
        Command::RoomMsgs { updates, .. } => {
            let all: Vec<&RawValue> = serde_json::from_str(updates.raw).expect("it is an array");
            let expected = all.into_iter().enumerate().map(|(at, update)| numbered(at, update)).collect();
            return compare_updates(read_updates(*updates), expected, text);
        }
        _ => return,
    };
    compare_updates(found, expected, text);
}

/// One of several updates by the document.
fn numbered(at: usize, update: &RawValue) -> Result<Update<'_>, BadUpdate> {
    if at == ITEM_UPDATES_MAX {
        return Err((Some(at), ErrorCode::TooManyItems));
    }
    let bad = (Some(at), ErrorCode::BadItem);
    Fields::read(update.get()).ok_or(bad).and_then(|fields| update_of(&fields).map_err(|_| bad))
}

type BadUpdate = (Option<usize>, ErrorCode);

fn compare_updates(
    found: Result<Vec<Update<'_>>, UpdateError>,
    expected: Result<Vec<Update<'_>>, BadUpdate>,
    text: &str,
) {
    let found = found.map_err(|error| (error.index, error.code));
    assert_eq!(found, expected, "{text:?}");
    for update in found.iter().flatten() {
        let mut out = Vec::new();
        protocol::keyed_head(&mut out, "px", &update.item, 1, 2);
        protocol::keyed_tail(&mut out, None, update.body, 3);
        let message = str::from_utf8(&out).expect("a message is text");
        let fields = Fields::read(message).unwrap_or_else(|| panic!("{message} is no JSON"));
        assert_eq!(fields.get("item").and_then(string_of).as_deref(), Some(&*update.item), "{message}");
        let content = match update.body {
            keyed::Body::Content(content) => Some(content),
            keyed::Body::Removal => None,
        };
        assert_eq!(fields.get("content"), content, "{message}");
    }
}

/// An update by the document; else whether a field that it needs is missing, which is the first thing wrong with it.
fn update_of<'a>(fields: &Fields<'a>) -> Result<Update<'a>, bool> {
    let item =
        name_of(fields.get("item").ok_or(true)?, ITEM_BYTES_MAX).filter(|item| !item.contains('*')).ok_or(false)?;
    let remove = optional_switch(fields, "remove", ErrorCode::BadItem).map_err(|_| false)?.unwrap_or(false);
    let body = match (fields.get("content"), remove) {
        (Some(content), false) => keyed::Body::Content(content),
        (None, true) => keyed::Body::Removal,
        (Some(_), true) => return Err(false),
        (None, false) => return Err(true),
    };
    let version = fields.get("version").map(|version| version.parse().map_err(|_| false)).transpose()?;
    Ok(Update { item, version, body })
}

fn rooms_of(rooms: &str) -> Result<Vec<Cow<'_, str>>, ErrorCode> {
    let rooms: Vec<&RawValue> = serde_json::from_str(rooms).map_err(|_| ErrorCode::BadRoomId)?;
    let names = rooms.iter().take(ROOM_IDS_MAX).map(|room| name_of(room.get(), ROOM_ID_BYTES_MAX));
    let names = names.collect::<Option<_>>().ok_or(ErrorCode::BadRoomId)?;
    if rooms.len() > ROOM_IDS_MAX { Err(ErrorCode::TooManyRooms) } else { Ok(names) }
}

fn position_of<'a>(fields: &Fields<'a>) -> Result<Option<Position<'a>>, ErrorCode> {
    let position = match (fields.get("since"), fields.get("last")) {
        (None, None) => return Ok(None),
        (Some(_), Some(_)) => None,
        (None, Some(last)) => integer_of(last).map(Position::Last),
        (Some(since), None) => place_of(since).map(|(epoch, offset)| Position::Since { epoch, offset }),
    };
    position.map(Some).ok_or(ErrorCode::BadPosition)
}

fn place_of<'a>(place: &str) -> Option<(Cow<'a, str>, u64)> {
    let fields = Fields::read(place)?;
    Some((string_of(fields.get("epoch")?)?.into(), integer_of(fields.get("offset")?)?))
}

fn key_of<'a>(fields: &Fields<'a>) -> Result<Option<Cow<'a, str>>, ErrorCode> {
    let key = fields.get("key").map(|key| name_of(key, PUBLISH_KEY_BYTES_MAX).ok_or(ErrorCode::BadKey));
    key.transpose()
}

fn optional_integer(fields: &Fields<'_>, name: &str) -> Result<Option<u64>, ErrorCode> {
    fields.get(name).map(|value| integer_of(value).ok_or(ErrorCode::BadPosition)).transpose()
}

fn integer_of(value: &str) -> Option<u64> {
    value.bytes().all(|byte| byte.is_ascii_digit()).then(|| value.parse().ok())?
}

/// The text of a JSON string, if it is one of Unicode.
fn string_of(value: &str) -> Option<String> {
    serde_json::from_str(value).ok()
}

/// The same, if it is not empty nor longer than so many bytes.
fn name_of(value: &str, bytes_max: usize) -> Option<Cow<'_, str>> {
    string_of(value).filter(|name| (1..=bytes_max).contains(&name.len())).map(Cow::Owned)
}

/// Levels of nesting of a valid text.
fn depth(text: &str) -> u32 {
    let (mut depth, mut depth_max, mut in_string, mut escaped) = (0_u32, 0, false, false);
    for byte in text.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => in_string = !in_string,
            b'{' | b'[' if !in_string => depth += 1,
            b'}' | b']' if !in_string => depth -= 1,
            _ => {}
        }
        depth_max = depth_max.max(depth);
    }
    depth_max
}

/// The members of an object in their order, each as its text.
struct Fields<'a>(Vec<(&'a RawValue, &'a RawValue)>);

impl<'a> Fields<'a> {
    /// None where the text is no object.
    fn read(text: &'a str) -> Option<Fields<'a>> {
        serde_json::from_str(text).ok()
    }

    /// The last of this name.
    fn get(&self, name: &str) -> Option<&'a str> {
        let is_named = |key: &RawValue| string_of(key.get()).is_some_and(|key| key == name);
        self.0.iter().rfind(|(key, _)| is_named(key)).map(|(_, value)| value.get())
    }
}

impl<'de> Deserialize<'de> for Fields<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;

        impl<'de> Visitor<'de> for InOrder {
            type Value = Fields<'de>;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields<'de>, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Fields(members))
            }
        }

        deserializer.deserialize_map(InOrder)
    }
}

/// What is kept as it was sent lies in the input, and so does every name without escapes.
fn check_slices(request: &Request<'_>, text: &str) {
    let lies_inside = |slice: &str| {
        let (outer, inner) = (text.as_bytes().as_ptr_range(), slice.as_bytes().as_ptr_range());
        assert!(outer.start <= inner.start && inner.end <= outer.end, "{slice:?} is a copy");
    };
    let name_lies_inside = |name: &Cow<'_, str>| match name {
        Cow::Borrowed(name) => lies_inside(name),
        Cow::Owned(_) => assert!(text.contains('\\'), "{name:?} is a copy for no reason"),
    };
    request.id.into_iter().for_each(lies_inside);
    match &request.command {
        Command::RoomMsg { room: name, content, key, keyed } => {
            name_lies_inside(name);
            content.iter().for_each(|content| lies_inside(content));
            [keyed.item, keyed.remove, keyed.version].into_iter().flatten().for_each(lies_inside);
            key.iter().for_each(name_lies_inside);
        }
        Command::RoomMsgs { room: name, updates: Scanned { raw: value, .. }, key, .. }
        | Command::PrivateMsg { to_user: name, content: value, key } => {
            name_lies_inside(name);
            lies_inside(value);
            key.iter().for_each(name_lies_inside);
        }
        Command::Private { to: name, data: value } => {
            name_lies_inside(name);
            lies_inside(value);
        }
        Command::Broadcast(Body::Content(value) | Body::Data(value)) => lies_inside(value),
        Command::JoinRoom { rooms: Rooms::Many(rooms), .. } => rooms.iter().for_each(name_lies_inside),
        Command::JoinRoom { rooms: Rooms::One(room), options: Some(options), .. } | Command::Tune { room, options } => {
            name_lies_inside(room);
            options.items.iter().flatten().for_each(name_lies_inside);
        }
        Command::JoinRoom { rooms: Rooms::One(room), options: None, .. }
        | Command::LeaveRoom { room }
        | Command::History { room, .. }
        | Command::Presence { room } => name_lies_inside(room),
        Command::Resume { epoch, .. } => name_lies_inside(epoch),
        Command::Refresh { token } => {
            token.iter().filter(|token| !token.is_empty()).for_each(name_lies_inside);
        }
        Command::Ping => {}
    }
}

/// What the server sends on account of a command says the same as the command.
fn check_message(request: &Request<'_>) {
    let mut out = Vec::new();
    let (from, time_ms) = ("\"from\"\n", 1);
    let (field, value) = match &request.command {
        Command::RoomMsg { room, content: Some(content), .. } => {
            protocol::room_msg(&mut out, room, from, content, time_ms);
            ("content", *content)
        }
        Command::PrivateMsg { content, .. } => {
            protocol::private_msg(&mut out, from, content, time_ms);
            ("content", *content)
        }
        Command::Private { data, .. } => {
            protocol::private(&mut out, from, data);
            ("data", *data)
        }
        Command::Broadcast(Body::Content(content)) => {
            protocol::broadcast_content(&mut out, from, content, time_ms);
            ("content", *content)
        }
        Command::Broadcast(Body::Data(data)) => {
            protocol::broadcast_data(&mut out, from, data);
            ("data", *data)
        }
        Command::JoinRoom { rooms: Rooms::One(room), .. } => {
            protocol::joined(&mut out, request.id, room, None, None);
            return check_reply(&out, request.id, Some(room));
        }
        Command::History { room, .. } => {
            protocol::history(&mut out, request.id, room, None, []);
            return check_reply(&out, request.id, Some(room));
        }
        Command::Resume { .. } => {
            protocol::resumed(&mut out, request.id, None, false);
            return check_reply(&out, request.id, None);
        }
        Command::Presence { room } => {
            protocol::presence(&mut out, request.id, room, protocol::UserCount::Exact(2), [from]);
            return check_reply(&out, request.id, Some(room));
        }
        Command::Tune { room, .. } => {
            protocol::error(&mut out, &Rejection::new(request.id, ErrorCode::NotJoined, "no").about(room.clone()));
            return check_reply(&out, request.id, Some(room));
        }
        Command::JoinRoom { rooms: Rooms::Many(_), .. }
        | Command::RoomMsg { content: None, .. }
        | Command::RoomMsgs { .. }
        | Command::LeaveRoom { .. }
        | Command::Refresh { .. }
        | Command::Ping => {
            protocol::pong(&mut out, request.id);
            return check_reply(&out, request.id, None);
        }
    };
    let text = str::from_utf8(&out).expect("a message is text");
    let fields = Fields::read(text).unwrap_or_else(|| panic!("{text} is no JSON"));
    assert_eq!(fields.get(field), Some(value), "{text}");
    assert_eq!(fields.get("from").and_then(string_of).as_deref(), Some(from), "{text}");
    if let Command::RoomMsg { room, .. } = &request.command {
        assert_eq!(fields.get("roomId").and_then(string_of).as_deref(), Some(&**room), "{text}");
    }
}

fn check_error(rejection: &Rejection<'_>) {
    let mut out = Vec::new();
    protocol::error(&mut out, rejection);
    check_reply(&out, rejection.id, rejection.room.as_deref());
}

fn check_reply(reply: &[u8], id: Option<&str>, room: Option<&str>) {
    let text = str::from_utf8(reply).expect("a reply is text");
    let fields = Fields::read(text).unwrap_or_else(|| panic!("{text} is no JSON"));
    assert_eq!(fields.get("id"), id, "{text}");
    assert_eq!(fields.get("roomId").and_then(string_of).as_deref(), room, "{text}");
}
