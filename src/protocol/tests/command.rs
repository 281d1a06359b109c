use super::super::{
    Body, Command, ErrorCode, KeyedFields, Position, REQUEST_ID_BYTES_MAX, ROOM_IDS_MAX, Rejection, Request, Rooms,
    parse,
};
use crate::limits::{ROOM_ID_BYTES_MAX, USER_ID_BYTES_MAX};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::borrow::Cow;

fn command(text: &str) -> Command<'_> {
    parse(text).unwrap_or_else(|e| panic!("{text}: {e:?}")).command
}

fn rejection(text: &str) -> Rejection<'_> {
    match parse(text) {
        Ok(request) => panic!("{text}: {request:?}"),
        Err(rejection) => rejection,
    }
}

fn code(text: &str) -> ErrorCode {
    rejection(text).code
}

/// A `room_msg` without anything for keyed rooms.
fn plain_room_msg<'a>(room: &'a str, content: &'a str) -> Command<'a> {
    Command::RoomMsg { room: room.into(), content: Some(content), key: None, keyed: KeyedFields::default() }
}

/// `text` as a JSON string in which every UTF-16 unit is an escape.
fn all_escaped(text: &str) -> String {
    let units = text.encode_utf16();
    let escapes: String = units.map(|unit| format!("\\u{unit:04x}")).collect();
    format!("\"{escapes}\"")
}

#[test]
fn every_command_is_read() {
    let cases: Vec<(&str, Command<'_>)> = vec![
        (
            r#"{"type":"private_msg","toUser":"bob","content":{"a" : 1}}"#,
            Command::PrivateMsg { to_user: "bob".into(), content: r#"{"a" : 1}"#, key: None },
        ),
        (r#"{"type":"private","to":"0b-1c","data":[1]}"#, Command::Private { to: "0b-1c".into(), data: "[1]" }),
        (r#"{"type":"broadcast","content":null}"#, Command::Broadcast(Body::Content("null"))),
        (r#"{"type":"broadcast","data":"\ud800"}"#, Command::Broadcast(Body::Data(r#""\ud800""#))),
        (
            r#"{"type":"join_room","roomId":"R"}"#,
            Command::JoinRoom { rooms: Rooms::One("R".into()), position: None, options: None },
        ),
        (
            r#"{"type":"join_room","roomIds":["R", "S","R"]}"#,
            Command::JoinRoom {
                rooms: Rooms::Many(vec!["R".into(), "S".into(), "R".into()]),
                position: None,
                options: None,
            },
        ),
        (
            r#"{"type":"join_room","roomIds":[]}"#,
            Command::JoinRoom { rooms: Rooms::Many(vec![]), position: None, options: None },
        ),
        (r#"{"type":"leave_room","roomId":"R"}"#, Command::LeaveRoom { room: "R".into() }),
        (r#"{"type":"room_msg","roomId":"R","content":1e400}"#, plain_room_msg("R", "1e400")),
        (r#"{"type":"presence","roomId":"R"}"#, Command::Presence { room: "R".into() }),
        (r#"{"type":"ping"}"#, Command::Ping),
    ];
    for (text, expected) in cases {
        assert_eq!(parse(text), Ok(Request { id: None, command: expected }), "{text}");
    }
}

#[test]
fn content_is_a_slice_of_the_input() {
    let content = r#"{"b":1, "a":123456789012345678901234567890,"b" : [1.50, "\u0041\/"] }"#;
    let text = format!(r#" {{"content" :  {content} ,"type":"room_msg","roomId":"R"}} "#);
    let Command::RoomMsg { content: Some(found), .. } = command(&text) else {
        panic!("a room message");
    };
    assert_eq!(found, content);
    assert_eq!(found.as_ptr(), text[text.find(content).unwrap()..].as_ptr());
}

#[test]
fn strings_without_escapes_are_borrowed() {
    let Command::RoomMsg { room, .. } = command(r#"{"type":"room_msg","roomId":"é","content":1}"#) else {
        panic!("a room message");
    };
    assert!(matches!(room, Cow::Borrowed("é")));
}

#[test]
fn strings_with_escapes_are_decoded() {
    let text = r#"{"\u0074yp\u0065":"room\u005fmsg","room\u0049d":"a\"\\\/\b\f\n\r\t\u00e9\ud83d\ude00","content":1}"#;
    let room = "a\"\\/\u{8}\u{c}\n\r\té😀";
    assert_eq!(command(text), plain_room_msg(room, "1"));
    let text = format!(
        r#"{{{}:{},{}:{},{}:{}}}"#,
        all_escaped("type"),
        all_escaped("private_msg"),
        all_escaped("toUser"),
        all_escaped("bob😀"),
        all_escaped("content"),
        all_escaped("x")
    );
    let content = all_escaped("x");
    let to_user = "bob😀".into();
    assert_eq!(command(&text), Command::PrivateMsg { to_user, content: &content, key: None });
}

#[test]
fn of_duplicates_the_last_counts() {
    let text = r#"{"type":7,"roomId":"","content":1,"type":"room_msg","id":1,"roomId":"R","\u0063ontent":2,"id":2}"#;
    let expected = plain_room_msg("R", "2");
    assert_eq!(parse(text), Ok(Request { id: Some("2"), command: expected }));
    assert_eq!(code(r#"{"type":"ping","id":1,"id":null}"#), ErrorCode::BadId);
    let text = r#"{"type":"join_room","roomId":"R","since":1,"since":{"offset":-1,"offset":3,"epoch":1,"epoch":"E"}}"#;
    let position = Some(Position::Since { epoch: "E".into(), offset: 3 });
    let rooms = Rooms::One("R".into());
    assert_eq!(command(text), Command::JoinRoom { rooms, position, options: None });
}

#[test]
fn unknown_fields_are_ignored_but_must_be_valid() {
    let text = r#"{"x":{"type":"y"},"type":"ping","roomId":7,"\u0078":[],"a very long \n name":1,"\ud800":2}"#;
    assert_eq!(command(text), Command::Ping);
    assert_eq!(code(r#"{"type":"ping","x":01}"#), ErrorCode::BadJson);
}

#[test]
fn names_are_exact() {
    for name in ["Type", "typ", "typee", " type", "type\\u0000", "\\u0054ype"] {
        let text = format!(r#"{{"{name}":"ping"}}"#);
        assert_eq!(code(&text), ErrorCode::MissingField, "{name}");
    }
}

#[test]
fn what_is_no_object_is_bad_json() {
    let texts = [
        "",
        " ",
        "1",
        "null",
        "\"ping\"",
        "[]",
        "[{\"type\":\"ping\"}]",
        "{",
        "{\"type\":\"ping\"",
        "{\"type\":\"ping\"}x",
        "{\"id\":1,\"type\":\"ping\",}",
        "ping",
    ];
    for text in texts {
        let rejection = rejection(text);
        assert_eq!((rejection.code, rejection.id), (ErrorCode::BadJson, None), "{text}");
    }
    let message = rejection("{\"type\":\"ping\"}x").message;
    assert!(message.ends_with("text after the end of the value, at byte 15"), "{message}");
}

#[test]
fn nesting_of_a_value_is_bounded() {
    let nested = |levels: usize| {
        let (open, close) = ("[".repeat(levels), "]".repeat(levels));
        format!(r#"{{"type":"broadcast","data":{open}{close}}}"#)
    };
    let text = nested(128);
    assert!(matches!(command(&text), Command::Broadcast(Body::Data(data)) if data.len() == 256));
    assert_eq!(code(&nested(129)), ErrorCode::BadJson);
}

#[test]
fn content_and_data_exclude_each_other() {
    for kind in ["broadcast", "room_msg", "private", "private_msg", "ping"] {
        let text =
            format!(r#"{{"type":"{kind}","id":"7","roomId":"R","to":"c","toUser":"u","content":1,"data":null}}"#);
        let rejection = rejection(&text);
        assert_eq!((rejection.code, rejection.id), (ErrorCode::BadJson, Some("\"7\"")), "{kind}");
    }
}

#[test]
fn the_type_must_be_known() {
    assert_eq!(code("{}"), ErrorCode::MissingField);
    assert_eq!(rejection(r#"{"id":7}"#).id, Some("7"));
    let kinds = ["7", "null", "\"\"", "\"Ping\"", "\"ping \"", "[]", "{}", "\"\\ud800\"", "\"histories\""];
    for kind in kinds {
        let text = format!(r#"{{"type":{kind},"id":"a\n"}}"#);
        let rejection = rejection(&text);
        assert_eq!(rejection.code, ErrorCode::UnknownType, "{kind}");
        assert_eq!(rejection.id, Some(r#""a\n""#), "{kind}");
    }
    let long = format!(r#"{{"type":"\u0070{}"}}"#, "x".repeat(1000));
    assert_eq!(code(&long), ErrorCode::UnknownType);
}

#[test]
fn missing_fields_are_named() {
    let cases = [
        (r#"{"type":"private_msg","content":1}"#, "`toUser`"),
        (r#"{"type":"private_msg","toUser":"u","data":1}"#, "`content`"),
        (r#"{"type":"private","data":1}"#, "`to`"),
        (r#"{"type":"private","to":"c","content":1}"#, "`data`"),
        (r#"{"type":"broadcast"}"#, "`content` or `data`"),
        (r#"{"type":"join_room"}"#, "`roomId`"),
        (r#"{"type":"leave_room","roomIds":["R"]}"#, "`roomId`"),
        (r#"{"type":"room_msg","content":1}"#, "`roomId`"),
        (r#"{"type":"room_msg","roomId":"R"}"#, "`content`"),
        (r#"{"type":"presence"}"#, "`roomId`"),
        ("{}", "`type`"),
    ];
    for (text, name) in cases {
        let rejection = rejection(text);
        assert_eq!(rejection.code, ErrorCode::MissingField, "{text}");
        assert!(rejection.message.contains(name), "{text}: {}", rejection.message);
    }
}

#[test]
fn room_ids_are_bounded_strings() {
    let longest = "é".repeat(127) + "x";
    assert_eq!(longest.len(), ROOM_ID_BYTES_MAX);
    for raw in [format!("\"{longest}\""), all_escaped(&longest)] {
        let text = format!(r#"{{"type":"presence","roomId":{raw}}}"#);
        assert_eq!(command(&text), Command::Presence { room: longest.as_str().into() });
    }
    let too_long = "x".repeat(ROOM_ID_BYTES_MAX + 1);
    let huge = "\\u0041".repeat(10_000);
    let raws = [
        "7".into(),
        "null".into(),
        "[]".into(),
        "{}".into(),
        "\"\"".into(),
        "\"\\ud800\"".into(),
        "\"a\\udc00\"".into(),
        format!("\"{too_long}\""),
        all_escaped(&too_long),
        format!("\"{huge}\""),
    ];
    for raw in &raws {
        for kind in ["join_room", "leave_room", "room_msg", "presence"] {
            let text = format!(r#"{{"type":"{kind}","id":1,"roomId":{raw},"content":1}}"#);
            let rejection = rejection(&text);
            assert_eq!((rejection.code, rejection.id), (ErrorCode::BadRoomId, Some("1")), "{text}");
        }
        let text = format!(r#"{{"type":"join_room","roomIds":["R",{raw}]}}"#);
        assert_eq!(code(&text), ErrorCode::BadRoomId, "{text}");
    }
    for raw in ["\"R\"", "{}", "null", "7"] {
        let text = format!(r#"{{"type":"join_room","roomIds":{raw}}}"#);
        assert_eq!(code(&text), ErrorCode::BadRoomId, "{text}");
    }
}

#[test]
fn surrogates_must_come_in_pairs() {
    let units = [0x41, 0xd7ff, 0xd800, 0xdbff, 0xdc00, 0xdfff, 0xe000];
    for first in units {
        for second in units {
            for third in units {
                let room = [first, second, third];
                let raw: String = room.iter().map(|unit| format!("\\u{unit:04X}")).collect();
                let text = format!(r#"{{"type":"presence","roomId":"{raw}"}}"#);
                match String::from_utf16(&room) {
                    Ok(room) => assert_eq!(command(&text), Command::Presence { room: room.into() }),
                    Err(_) => assert_eq!(code(&text), ErrorCode::BadRoomId, "{text}"),
                }
            }
        }
    }
}

#[test]
fn one_join_names_one_room_or_a_bounded_list() {
    assert_eq!(code(r#"{"type":"join_room","roomId":"R","roomIds":["S"]}"#), ErrorCode::BadJson);
    let join = |count: usize| json!({"type": "join_room", "roomIds": vec!["R"; count]}).to_string();
    let text = join(ROOM_IDS_MAX);
    let Command::JoinRoom { rooms: Rooms::Many(rooms), .. } = command(&text) else {
        panic!("a join of many rooms");
    };
    assert_eq!(rooms.len(), ROOM_IDS_MAX);
    assert_eq!(code(&join(ROOM_IDS_MAX + 1)), ErrorCode::TooManyRooms);
}

#[test]
fn user_ids_are_bounded_strings() {
    let longest = "u".repeat(USER_ID_BYTES_MAX);
    for raw in [format!("\"{longest}\""), all_escaped(&longest)] {
        let text = format!(r#"{{"type":"private_msg","toUser":{raw},"content":1}}"#);
        let to_user = longest.as_str().into();
        assert_eq!(command(&text), Command::PrivateMsg { to_user, content: "1", key: None });
    }
    let too_long = format!("{longest}u");
    let raws = ["7", "null", "\"\"", "\"\\udfff\"", &format!("\"{too_long}\""), &all_escaped(&too_long)];
    for raw in raws {
        let text = format!(r#"{{"type":"private_msg","toUser":{raw},"content":1}}"#);
        assert_eq!(code(&text), ErrorCode::BadUserId, "{text}");
    }
}

#[test]
fn client_ids_are_strings() {
    let to_any = r#"{"type":"private","to":"","data":1}"#;
    assert_eq!(command(to_any), Command::Private { to: "".into(), data: "1" });
    for raw in ["7", "null", "[\"c\"]", "\"\\ud800\""] {
        let text = format!(r#"{{"type":"private","to":{raw},"data":1}}"#);
        assert_eq!(code(&text), ErrorCode::BadClientId, "{text}");
    }
}

#[test]
fn request_ids_are_kept_as_they_were_sent() {
    for raw in ["0", "-1.50e+3", "\"\"", "\"a\\u0041\\ud800\"", "12345678901234567890123"] {
        let text = format!(r#"{{"id": {raw} ,"type":"ping"}}"#);
        assert_eq!(parse(&text), Ok(Request { id: Some(raw), command: Command::Ping }));
    }
    for raw in ["null", "true", "[]", "{}"] {
        let text = format!(r#"{{"id":{raw},"type":"nonsense"}}"#);
        let rejection = rejection(&text);
        assert_eq!((rejection.code, rejection.id), (ErrorCode::BadId, None), "{raw}");
    }
    let with_id_of = |bytes: usize| format!(r#"{{"type":"ping","id":"{}"}}"#, "i".repeat(bytes - 2));
    assert!(parse(&with_id_of(REQUEST_ID_BYTES_MAX)).is_ok());
    assert_eq!(code(&with_id_of(REQUEST_ID_BYTES_MAX + 1)), ErrorCode::BadId);
}

#[test]
fn positions_are_read() {
    let position = |fields: &str| {
        let text = format!(r#"{{"type":"join_room","roomId":"R",{fields}}}"#);
        match parse(&text).map(|request| request.command) {
            Ok(Command::JoinRoom { position: Some(Position::Last(last)), .. }) => Ok(last.to_string()),
            Ok(Command::JoinRoom { position: Some(Position::Since { epoch, offset }), .. }) => {
                Ok(format!("{epoch}/{offset}"))
            }
            Ok(command) => panic!("{command:?}"),
            Err(rejection) => Err(rejection.code),
        }
    };
    assert_eq!(position(r#""last":0"#).unwrap(), "0");
    assert_eq!(position(r#""last":18446744073709551615"#).unwrap(), u64::MAX.to_string());
    assert_eq!(position(r#""since":{"epoch":"E","offset":0}"#).unwrap(), "E/0");
    assert_eq!(position(r#""since":{ "offset":7,"x":[{}],"\u0065poch":"\u0045" }"#).unwrap(), "E/7");
    let malformed = [
        r#""last":-1"#,
        r#""last":1.0"#,
        r#""last":1e3"#,
        r#""last":"1""#,
        r#""last":null"#,
        r#""last":18446744073709551616"#,
        r#""since":7"#,
        r#""since":null"#,
        r#""since":{}"#,
        r#""since":["E",7]"#,
        r#""since":{"epoch":"E"}"#,
        r#""since":{"offset":7}"#,
        r#""since":{"epoch":7,"offset":7}"#,
        r#""since":{"epoch":"E","offset":"7"}"#,
        r#""since":{"epoch":"E","offset":-7}"#,
        r#""since":{"epoch":"\ud800","offset":7}"#,
        r#""since":{"epoch":"E","offset":7},"last":7"#,
    ];
    for fields in malformed {
        assert_eq!(position(fields), Err(ErrorCode::BadPosition), "{fields}");
    }
}

#[test]
fn positions_go_with_many_rooms_too() {
    let text = r#"{"type":"join_room","roomIds":["R"],"last":7}"#;
    let rooms = Rooms::Many(vec!["R".into()]);
    let position = Some(Position::Last(7));
    assert_eq!(command(text), Command::JoinRoom { rooms, position, options: None });
}

/// Field values that are right, wrong, or right only for some fields.
fn any_field_value() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<i32>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        prop::sample::select(vec!["room_msg", "join_room", "private_msg", "broadcast", "presence"])
            .prop_map(Value::from),
        prop::collection::vec(any::<String>(), 0..3).prop_map(Value::from),
        (any::<String>(), any::<u64>()).prop_map(|(e, o)| json!({"epoch": e, "offset": o})),
    ]
}

fn any_field_name() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "type", "id", "roomId", "roomIds", "toUser", "to", "content", "data", "since", "last", "x",
    ])
}

proptest! {
    #[test]
    fn every_way_to_write_a_string_is_the_same(
        room in "\\PC{1,40}|[\u{0}-\u{1f}\"\\\\a-z😀é]{1,40}",
        content in any::<String>(),
    ) {
        let content = Value::from(content).to_string();
        for raw in [Value::from(room.as_str()).to_string(), all_escaped(&room)] {
            let text = format!(r#"{{"roomId":{raw},"content":{content},"type":"room_msg"}}"#);
            let expected = plain_room_msg(&room, &content);
            prop_assert_eq!(command(&text), expected);
        }
    }

    #[test]
    fn any_fields_give_a_command_or_a_refusal_with_the_id(
        fields in prop::collection::btree_map(any_field_name(), any_field_value(), 0..8),
    ) {
        let text = json!(fields).to_string();
        let id = fields.get("id").filter(|id| id.is_string() || id.is_number());
        let id = id.map(Value::to_string);
        let found = match parse(&text) {
            Ok(request) => request.id,
            Err(rejection) => {
                prop_assert!(!rejection.message.is_empty());
                rejection.id
            }
        };
        prop_assert_eq!(found.map(str::to_owned), id);
    }

    #[test]
    fn garbage_never_panics(text: String, cut in any::<prop::sample::Index>()) {
        let _ = parse(&text);
        let text = format!(r#"{{"type":"room_msg","roomId":"{text}","content":"{text}"}}"#);
        let _ = parse(&text);
        let ends: Vec<usize> = text.char_indices().map(|(end, _)| end).collect();
        let start = &text[..ends[cut.index(ends.len())]];
        // The text may hold `"}`: then a start of it is a whole object.
        if serde_json::from_str::<Value>(start).is_err() {
            prop_assert_eq!(code(start), ErrorCode::BadJson);
        }
    }
}
