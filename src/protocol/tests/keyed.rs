use super::super::keyed::{Body, Mode, SubscribeOptions, Update, UpdateError, is_item, raw_update, read_updates};
use super::super::{Command, ErrorCode, KeyedFields, Position, Rejection, Request, Rooms, parse};
use crate::limits::{ITEM_BYTES_MAX, ITEM_PATTERNS_MAX, ITEM_UPDATES_MAX, ROUND_INTERVAL_MS_MAX};
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

/// The update that a `room_msg` with these fields is in a keyed room.
fn update(fields: &str) -> Result<Update<'static>, UpdateError> {
    let text = format!(r#"{{"type":"room_msg","roomId":"px",{fields}}}"#);
    let Command::RoomMsg { content, keyed, .. } = command(&text) else { panic!("{text} is a room message") };
    let found = keyed.update(content).map(|update| (update.item.into_owned(), update.version, body_of(update.body)));
    found.map(|(item, version, body)| Update { item: Cow::Owned(item), version, body })
}

/// The same for as long as the tests run.
fn body_of(body: Body<'_>) -> Body<'static> {
    match body {
        Body::Content(content) => Body::Content(content.to_owned().leak()),
        Body::Removal => Body::Removal,
    }
}

fn options(fields: &str) -> Result<SubscribeOptions<'static>, ErrorCode> {
    let text = format!(r#"{{"type":"join_room","roomId":"px",{fields}}}"#);
    match parse(&text) {
        Ok(Request { command: Command::JoinRoom { options: Some(options), .. }, .. }) => Ok(options.into_owned()),
        Ok(request) => panic!("{text}: {request:?}"),
        Err(rejection) => {
            assert_eq!(rejection.room.as_deref(), Some("px"), "{text}");
            Err(rejection.code)
        }
    }
}

#[test]
fn a_room_msg_carries_what_a_keyed_room_needs() {
    let content =
        |item: &'static str, version, content| Update { item: item.into(), version, body: Body::Content(content) };
    let removal = |item: &'static str, version| Update { item: item.into(), version, body: Body::Removal };
    let cases = [
        (r#""item":"AAPL","content":{"bid" : 1e400}"#, content("AAPL", None, r#"{"bid" : 1e400}"#)),
        (r#""item":"AAPL","content":null,"version":7"#, content("AAPL", Some(7), "null")),
        (r#""item":"é\u0041","content":1,"version":-9223372036854775808"#, content("éA", Some(i64::MIN), "1")),
        (r#""item":"AAPL","content":1,"remove":false"#, content("AAPL", None, "1")),
        (r#""item":"AAPL","remove":true"#, removal("AAPL", None)),
        (r#""item":"A","item":"B","remove":false,"remove":true,"version":1,"version":2"#, removal("B", Some(2))),
    ];
    for (fields, expected) in cases {
        assert_eq!(update(fields), Ok(expected), "{fields}");
    }
}

#[test]
fn what_is_no_update_says_why() {
    let longest = "i".repeat(ITEM_BYTES_MAX);
    assert!(update(&format!(r#""item":"{longest}","content":1"#)).is_ok());
    let too_long = format!(r#""item":"{longest}i","content":1"#);
    let cases = [
        (r#""content":1"#, ErrorCode::MissingField, "`item`"),
        (r#""remove":true"#, ErrorCode::MissingField, "`item`"),
        (r#""item":"A""#, ErrorCode::MissingField, "`content`"),
        (r#""item":"A","remove":false"#, ErrorCode::MissingField, "`content`"),
        (r#""item":"","content":1"#, ErrorCode::BadItem, "`item`"),
        (r#""item":"A*","content":1"#, ErrorCode::BadItem, "`item`"),
        (r#""item":"\u002a","content":1"#, ErrorCode::BadItem, "`item`"),
        (r#""item":"\ud800","content":1"#, ErrorCode::BadItem, "`item`"),
        (r#""item":7,"content":1"#, ErrorCode::BadItem, "`item`"),
        (r#""item":null,"content":1"#, ErrorCode::BadItem, "`item`"),
        (&too_long, ErrorCode::BadItem, "`item`"),
        (r#""item":"A","content":1,"remove":true"#, ErrorCode::BadItem, "`remove`"),
        (r#""item":"A","content":1,"remove":1"#, ErrorCode::BadItem, "`remove`"),
        (r#""item":"A","content":1,"remove":null"#, ErrorCode::BadItem, "`remove`"),
        (r#""item":"A","content":1,"version":1.0"#, ErrorCode::BadItem, "`version`"),
        (r#""item":"A","content":1,"version":1e3"#, ErrorCode::BadItem, "`version`"),
        (r#""item":"A","content":1,"version":"1""#, ErrorCode::BadItem, "`version`"),
        (r#""item":"A","content":1,"version":null"#, ErrorCode::BadItem, "`version`"),
        (r#""item":"A","content":1,"version":9223372036854775808"#, ErrorCode::BadItem, "`version`"),
    ];
    for (fields, code, name) in cases {
        let error = update(fields).expect_err(fields);
        assert_eq!((error.index, error.code), (None, code), "{fields}");
        assert!(error.message.contains(name), "{fields}: {}", error.message);
    }
}

/// Only a keyed room gives `item` a meaning: what is wrong with it is no matter elsewhere.
#[test]
fn fields_for_keyed_rooms_do_not_trouble_others() {
    let text = r#"{"type":"room_msg","roomId":"den","content":1,"item":7,"remove":"x","version":[]}"#;
    assert!(matches!(command(text), Command::RoomMsg { content: Some("1"), .. }));
    let text = r#"{"type":"ping","item":7,"mode":7,"items":7,"interval":7,"snapshot":7,"updates":7,"replace":7}"#;
    assert_eq!(command(text), Command::Ping);
    let text = r#"{"type":"room_msg","roomId":"den","version":7,"id":1}"#;
    let refused = rejection(text);
    assert_eq!((refused.code, refused.room.as_deref()), (ErrorCode::MissingField, Some("den")));
    assert_eq!(refused, Rejection::content_missing(Some("1"), "den".into()));
}

/// What came of the `updates` of a command.
fn updates(raw: &str) -> Result<Vec<(String, Option<i64>, String)>, UpdateError> {
    let text = format!(r#"{{"type":"room_msgs","roomId":"px","updates":{raw}}}"#);
    let Command::RoomMsgs { updates, .. } = command(&text) else { panic!("{text} is updates") };
    let found = read_updates(updates)?;
    let told = |update: Update<'_>| match update.body {
        Body::Content(content) => (update.item.into_owned(), update.version, content.to_owned()),
        Body::Removal => (update.item.into_owned(), update.version, "removed".to_owned()),
    };
    Ok(found.into_iter().map(told).collect())
}

#[test]
fn updates_are_read_in_their_order() {
    let text = r#"{"type":"room_msgs","roomId":"px","updates":[ ],"replace":true,"key":"k","id":"x"}"#;
    let Command::RoomMsgs { room, updates: raw, replace, key } = command(text) else { panic!("it is updates") };
    assert_eq!((&*room, raw.raw, replace, key.as_deref()), ("px", "[ ]", true, Some("k")));
    assert_eq!(updates("[]"), Ok(vec![]));
    let raw = r#"[{"item":"A","content":[1, "x"]}, {"remove":true,"version":3,"item":"B","x":{}},
                  {"it\u0065m":"\u0041","content":1,"content":{}}]"#;
    let expected = [("A", None, r#"[1, "x"]"#), ("B", Some(3), "removed"), ("A", None, "{}")];
    assert_eq!(updates(raw), Ok(expected.map(|(item, version, body)| (item.into(), version, body.into())).to_vec()));
}

#[test]
fn the_first_bad_update_is_named() {
    for (raw, index) in [
        (r#"[7]"#, 0),
        (r#"[{"item":"A","content":1},null]"#, 1),
        (r#"[{"item":"A","content":1},{"item":"B"},{}]"#, 1),
        (r#"[{"item":"A","content":1},{"content":1}]"#, 1),
        (r#"[{"item":"A","content":1},{"item":"A","remove":true},{"item":"*","content":1}]"#, 2),
        (r#"[{"item":"A","content":1,"remove":true}]"#, 0),
        (r#"[{"item":"A","content":1,"version":0.5}]"#, 0),
    ] {
        let error = updates(raw).expect_err(raw);
        assert_eq!((error.index, error.code), (Some(index), ErrorCode::BadItem), "{raw}");
        let rejection = error.about(Some("1"), "px".into());
        assert_eq!((rejection.id, rejection.room.as_deref(), rejection.index), (Some("1"), Some("px"), Some(index)));
    }
    let many = |count: usize| format!("[{}]", vec![r#"{"item":"A","content":1}"#; count].join(","));
    assert_eq!(updates(&many(ITEM_UPDATES_MAX)).map(|found| found.len()), Ok(ITEM_UPDATES_MAX));
    let error = updates(&many(ITEM_UPDATES_MAX + 1)).expect_err("it is one too many");
    assert_eq!((error.index, error.code), (Some(ITEM_UPDATES_MAX), ErrorCode::TooManyItems));
}

#[test]
fn room_msgs_needs_an_array_and_takes_a_switch() {
    for (fields, code) in [
        (r#""x":1"#, ErrorCode::MissingField),
        (r#""updates":{}"#, ErrorCode::BadItem),
        (r#""updates":"[]""#, ErrorCode::BadItem),
        (r#""updates":[],"replace":1"#, ErrorCode::BadOptions),
        (r#""updates":[],"key":"""#, ErrorCode::BadKey),
    ] {
        let text = format!(r#"{{"type":"room_msgs","roomId":"px",{fields}}}"#);
        let rejection = rejection(&text);
        assert_eq!((rejection.code, rejection.room.as_deref()), (code, Some("px")), "{text}");
    }
    let rejection = rejection(r#"{"type":"room_msgs","updates":[]}"#);
    assert_eq!((rejection.code, rejection.room), (ErrorCode::MissingField, None));
}

#[test]
fn options_of_a_subscription_are_read() {
    let none = SubscribeOptions::default;
    let items = |items: &[&'static str]| Some(items.iter().map(|item| Cow::Borrowed(*item)).collect());
    let cases = [
        (r#""mode":"all""#, SubscribeOptions { mode: Some(Mode::All), ..none() }),
        (r#""mode":"l\u0061test""#, SubscribeOptions { mode: Some(Mode::Latest), ..none() }),
        (r#""interval":0"#, SubscribeOptions { interval_ms: Some(0), ..none() }),
        (r#""interval":100"#, SubscribeOptions { interval_ms: Some(100), ..none() }),
        (r#""interval":3600001"#, SubscribeOptions { interval_ms: Some(ROUND_INTERVAL_MS_MAX), ..none() }),
        (r#""items":[]"#, SubscribeOptions { items: items(&[]), ..none() }),
        (r#""items":["*"]"#, SubscribeOptions { items: items(&["*"]), ..none() }),
        (r#""items":["A", "fx.*","A","é\n"]"#, SubscribeOptions { items: items(&["A", "fx.*", "A", "é\n"]), ..none() }),
        (r#""snapshot":false"#, SubscribeOptions { snapshot: Some(false), ..none() }),
    ];
    for (fields, expected) in cases {
        assert_eq!(options(fields), Ok(expected), "{fields}");
    }
    let text = r#"{"type":"join_room","roomId":"px","last":1,"mode":"latest"}"#;
    let options = Some(Box::new(SubscribeOptions { mode: Some(Mode::Latest), ..none() }));
    let rooms = Rooms::One("px".into());
    assert_eq!(command(text), Command::JoinRoom { rooms, position: Some(Position::Last(1)), options });
}

#[test]
fn options_that_are_none_are_refused() {
    let too_long = format!(r#""items":["{}*"]"#, "i".repeat(ITEM_BYTES_MAX));
    for fields in [
        r#""mode":"newest""#,
        r#""mode":"All""#,
        r#""mode":null"#,
        r#""mode":7"#,
        r#""interval":-1"#,
        r#""interval":0.5"#,
        r#""interval":"100""#,
        r#""interval":18446744073709551616"#,
        r#""snapshot":1"#,
        r#""snapshot":"true""#,
        r#""items":"*""#,
        r#""items":{}"#,
        r#""items":[7]"#,
        r#""items":[""]"#,
        r#""items":["A","*A"]"#,
        r#""items":["A**"]"#,
        r#""items":["A*B"]"#,
        r#""items":["\ud800"]"#,
        &too_long,
    ] {
        assert_eq!(options(fields), Err(ErrorCode::BadOptions), "{fields}");
    }
    let named = |count: usize| json!({"items": vec!["A"; count]}).to_string();
    let fields = |count: usize| named(count).trim_matches(['{', '}']).to_owned();
    assert!(options(&fields(ITEM_PATTERNS_MAX)).is_ok());
    assert_eq!(options(&fields(ITEM_PATTERNS_MAX + 1)), Err(ErrorCode::TooManyItems));
}

#[test]
fn options_go_with_one_room() {
    for field in [r#""mode":"all""#, r#""interval":1"#, r#""items":[]"#, r#""snapshot":true"#] {
        let text = format!(r#"{{"type":"join_room","roomIds":["px"],{field}}}"#);
        let rejection = rejection(&text);
        assert_eq!((rejection.code, rejection.room), (ErrorCode::BadOptions, None), "{field}");
    }
}

#[test]
fn a_tune_says_what_changes() {
    let text = r#"{"type":"tune","roomId":"px","mode":"all","interval":5,"items":["A"],"snapshot":true}"#;
    let options = Box::new(SubscribeOptions {
        mode: Some(Mode::All),
        interval_ms: Some(5),
        items: Some(vec!["A".into()]),
        snapshot: None,
    });
    assert_eq!(command(text), Command::Tune { room: "px".into(), options });
    let text = r#"{"type":"tune","roomId":"px"}"#;
    assert_eq!(command(text), Command::Tune { room: "px".into(), options: Box::default() });
    assert_eq!(rejection(r#"{"type":"tune","mode":"all"}"#).code, ErrorCode::MissingField);
    assert_eq!(rejection(r#"{"type":"tune","roomId":"px","mode":1}"#).code, ErrorCode::BadOptions);
}

#[test]
fn a_refusal_about_a_room_names_it() {
    for (text, room) in [
        (r#"{"type":"room_msg","roomId":"R"}"#, Some("R")),
        (r#"{"type":"room_msg","roomId":"\u0052","content":1,"key":1}"#, Some("R")),
        (r#"{"type":"join_room","roomId":"R","last":-1}"#, Some("R")),
        (r#"{"type":"history","roomId":"R","limit":"x"}"#, Some("R")),
        (r#"{"type":"room_msg","roomId":"","content":1}"#, None),
        (r#"{"type":"join_room","roomId":"R","roomIds":[]}"#, None),
        (r#"{"type":"private_msg","roomId":"R"}"#, None),
        (r#"{"type":"nonsense","roomId":"R"}"#, None),
        (r#"{"roomId":"R"}"#, None),
    ] {
        assert_eq!(rejection(text).room.as_deref(), room, "{text}");
    }
}

fn any_field_value() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[a-c*]{0,3}".prop_map(Value::from),
        prop::sample::select(vec!["all", "latest"]).prop_map(Value::from),
        prop::collection::vec("[a-c*]{0,3}", 0..4).prop_map(Value::from),
    ]
}

fn any_update() -> impl Strategy<Value = Value> {
    let name = prop::sample::select(vec!["item", "content", "remove", "version", "x"]);
    let wrong = prop::collection::btree_map(name, any_field_value(), 0..5).prop_map(|fields| json!(fields));
    let right = ("[a-cé\"]{1,3}", any::<String>(), any::<bool>(), any::<Option<i64>>());
    let right = right.prop_map(|(item, content, removed, version)| {
        let mut update = json!({"item": item});
        let (name, value) = if removed { ("remove", json!(true)) } else { ("content", json!(content)) };
        update[name] = value;
        if let Some(version) = version {
            update["version"] = json!(version);
        }
        update
    });
    prop_oneof![4 => right, 1 => wrong]
}

/// The rules again, of values that another reader has read.
fn is_update(update: &Value) -> bool {
    let item = update["item"].as_str().is_some_and(is_item);
    let remove = update.get("remove").map_or(Some(false), Value::as_bool);
    let version = update.get("version").is_none_or(Value::is_i64);
    item && version && remove.is_some_and(|remove| remove != update.get("content").is_some())
}

proptest! {
    #[test]
    fn updates_are_what_another_reader_makes_of_them(all in prop::collection::vec(any_update(), 0..6)) {
        let raw = Value::from(all.clone()).to_string();
        match updates(&raw) {
            Ok(found) => {
                prop_assert_eq!(found.len(), all.len());
                for ((item, version, body), update) in found.iter().zip(&all) {
                    prop_assert!(is_update(update));
                    prop_assert_eq!(Some(item.as_str()), update["item"].as_str());
                    prop_assert_eq!(*version, update.get("version").and_then(Value::as_i64));
                    let content = update.get("content").map_or("removed".to_owned(), Value::to_string);
                    prop_assert_eq!(body, &content);
                }
            }
            Err(error) => prop_assert_eq!(error.index, all.iter().position(|update| !is_update(update))),
        }
        for update in &all {
            let mut message = update.clone();
            message["type"] = json!("room_msg");
            message["roomId"] = json!("px");
            let text = message.to_string();
            let found = match parse(&text).map(|request| request.command) {
                Ok(Command::RoomMsg { content, keyed, .. }) => keyed.update(content).is_ok(),
                Ok(command) => panic!("{command:?}"),
                Err(rejection) => {
                    prop_assert_eq!(rejection.code, ErrorCode::MissingField);
                    false
                }
            };
            prop_assert_eq!(found, is_update(update), "{}", text);
        }
    }

    #[test]
    fn any_options_are_read_or_refused(
        fields in prop::collection::btree_map(
            prop::sample::select(vec!["mode", "interval", "items", "snapshot"]), any_field_value(), 1..5,
        ),
    ) {
        let mut message = json!(fields);
        message["type"] = json!("join_room");
        message["roomId"] = json!("px");
        let text = message.to_string();
        let is_pattern = |pattern: &Value| {
            let pattern = pattern.as_str().unwrap_or_default();
            !pattern.is_empty() && pattern.find('*').is_none_or(|at| at == pattern.len() - 1)
        };
        let is_good = |(name, value): (&&str, &Value)| match *name {
            "mode" => *value == "all" || *value == "latest",
            "interval" => value.is_u64(),
            "items" => value.as_array().is_some_and(|items| items.iter().all(is_pattern)),
            _ => value.is_boolean(),
        };
        match parse(&text) {
            Ok(Request { command: Command::JoinRoom { options: Some(options), .. }, .. }) => {
                prop_assert!(fields.iter().all(is_good), "{}", text);
                prop_assert_eq!(options.snapshot, fields.get("snapshot").and_then(Value::as_bool));
                prop_assert_eq!(json!(options.items), fields.get("items").cloned().unwrap_or_default());
            }
            Ok(request) => panic!("{request:?}"),
            Err(rejection) => {
                prop_assert_eq!(rejection.code, ErrorCode::BadOptions);
                prop_assert!(!fields.iter().all(is_good), "{}", text);
            }
        }
    }

    #[test]
    fn garbage_in_fields_never_panics(text: String) {
        let raw = Value::from(text.as_str()).to_string();
        let message = format!(r#"{{"type":"room_msg","roomId":"px","item":{raw},"content":{raw},"version":{raw}}}"#);
        if let Command::RoomMsg { content, keyed, .. } = command(&message) {
            let _ = keyed.update(content);
            let _ = KeyedFields { version: None, ..keyed }.update(content);
        }
        let _ = parse(&format!(r#"{{"type":"tune","roomId":"px","items":[{raw}],"mode":{raw}}}"#));
        if let Ok(Request { command: Command::RoomMsgs { updates, .. }, .. }) =
            parse(&format!(r#"{{"type":"room_msgs","roomId":"px","updates":[{text}]}}"#))
        {
            let _ = read_updates(updates);
        }
    }
}

#[test]
fn a_raw_update_is_an_item_behind_its_length_and_a_payload() {
    let raw = |item: &[u8], payload: &[u8]| [&(item.len() as u16).to_be_bytes(), item, payload].concat();
    let long = [b'x'; ITEM_BYTES_MAX + 1];
    assert_eq!(raw_update(&raw("fx.é".as_bytes(), b"\0\xff")), Some(("fx.é", &b"\0\xff"[..])));
    assert_eq!(raw_update(&raw(&long[1..], b"")), Some((str::from_utf8(&long[1..]).unwrap(), &b""[..])));
    for malformed in [raw(b"", b"x"), raw(&long, b"x"), raw(b"\xff", b"x"), raw(b"a*", b"x"), vec![0, 2, b'a'], vec![0]]
    {
        assert_eq!(raw_update(&malformed), None, "{malformed:?}");
    }
    assert_eq!(raw_update(b""), None);
}
