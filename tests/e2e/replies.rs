//! Replies: pongs, acks, errors, and the ids that tie them to their commands.

use fanfare_testing::raw::{CLOSE, RawConn, TEXT};
use fanfare_testing::{Client, Way};
use serde_json::{Value, json};
use tungstenite::{Bytes, Message};

pub fn ping_is_answered(way: Way) {
    let server = way.start(&[]);
    let mut alice = Client::connect(&server, "alice");
    alice.send(&json!({"type": "ping"}));
    let pong = alice.recv_type("pong");
    assert!(pong.get("id").is_none(), "no id was sent: {pong}");
    assert_eq!(alice.request(json!({"type": "ping"}))["type"], "pong");
}

pub fn protocol_ping_is_answered(way: Way) {
    let server = way.start(&[]);
    let mut conn = RawConn::connect_as(&server, "alice");
    for payload in [&b""[..], b"x", &[0xFF; 125]] {
        conn.send_frame(0x89, payload);
        let pong = conn.read_frame().expect("a pong");
        assert_eq!((pong.first, pong.payload.as_slice()), (0x8A, payload));
    }
    let mut alice = Client::connect(&server, "alice");
    alice.send_message(Message::Pong(Bytes::from_static(b"nobody asked")));
    alice.nothing_for(20);
}

pub fn ids_come_back_as_sent(way: Way) {
    let server = way.start(&[]);
    let mut alice = Client::connect(&server, "alice");
    for id in [r#""""#, r#""x""#, r#""a \"quoted\" id""#, r#""🦀""#, "0", "7", "-7", "2.5", "9007199254740993"] {
        for (command, kind) in [
            (r#""type":"ping""#, "pong"),
            (r#""type":"room_msg","roomId":"den","content":1"#, "ack"),
            (r#""type":"nope""#, "error"),
        ] {
            alice.send_text(&format!("{{\"id\":{id},{command}}}"));
            let reply = alice.recv_text();
            assert!(reply.contains(&format!("\"type\":\"{kind}\"")), "{id}: {reply}");
            let sent: Value = serde_json::from_str(id).expect("the ids above are JSON");
            let got: Value = serde_json::from_str(&reply).expect("a reply is JSON");
            assert_eq!(got["id"], sent, "{reply}");
        }
    }
}

pub fn every_command_with_an_id_has_one_reply(way: Way) {
    let server = way.start(&["--rooms.notice_members_max", "0"]);
    let mut alice = Client::connect(&server, "alice");
    let own = alice.client_id().to_owned();
    for (command, kind) in [
        (json!({"type": "join_room", "roomId": "den"}), "joined"),
        (json!({"type": "join_room", "roomId": "den"}), "joined"),
        (json!({"type": "presence", "roomId": "den"}), "presence"),
        (json!({"type": "room_msg", "roomId": "den", "content": 1}), "ack"),
        (json!({"type": "private_msg", "toUser": "bob", "content": 1}), "ack"),
        (json!({"type": "private", "to": own, "data": 1}), "ack"),
        (json!({"type": "broadcast", "content": 1}), "ack"),
        (json!({"type": "broadcast", "data": 1}), "ack"),
        (json!({"type": "leave_room", "roomId": "den"}), "ack"),
        (json!({"type": "ping"}), "pong"),
    ] {
        let reply = alice.request(command.clone());
        assert_eq!(reply["type"], kind, "{command}: {reply}");
        for message in alice.drain() {
            let json: Value = serde_json::from_str(message.to_text().expect("text")).expect("a message is JSON");
            assert!(json.get("id").is_none(), "{command} had its reply before {json}");
        }
    }
    let reply = alice.request(json!({"type": "leave_room", "roomId": "never joined"}));
    assert!(reply["type"] == "ack" || reply["type"] == "error", "{reply}");
    alice.nothing_for(20);
}

pub fn commands_without_id_have_no_ack(way: Way) {
    let server = way.start(&["--rooms.notice_members_max", "0"]);
    let mut alice = Client::connect(&server, "alice");
    for command in [
        json!({"type": "join_room", "roomId": "den"}),
        json!({"type": "room_msg", "roomId": "den", "content": 1}),
        json!({"type": "private_msg", "toUser": "bob", "content": 1}),
        json!({"type": "broadcast", "content": 1}),
        json!({"type": "leave_room", "roomId": "den"}),
    ] {
        alice.send(&command);
    }
    alice.nothing_for(50);
}

pub fn bad_json_is_told(way: Way) {
    let server = way.start(&[]);
    let mut alice = Client::connect(&server, "alice");
    for text in [
        "",
        " ",
        "hello",
        "[]",
        r#"[{"type":"ping"}]"#,
        r#""ping""#,
        "42",
        "null",
        "{",
        r#"{"type":"ping""#,
        r#"{"type":"ping",}"#,
        r#"{"type":"ping"} extra"#,
        r#"{"type":"ping"}{"type":"ping"}"#,
        r#"{type:"ping"}"#,
        r#"{'type':'ping'}"#,
        r#"{"type" "ping"}"#,
        r#"{"type":"broadcast","content":1,"data":2}"#,
        r#"{"type":"broadcast","content":01}"#,
        r#"{"type":"broadcast","content":.5}"#,
        r#"{"type":"broadcast","content":1.}"#,
        r#"{"type":"broadcast","content":+1}"#,
        r#"{"type":"broadcast","content":NaN}"#,
        r#"{"type":"broadcast","content":tru}"#,
        r#"{"type":"broadcast","content":[1,]}"#,
        r#"{"type":"broadcast","content":{"a"}}"#,
        r#"{"type":"broadcast","content":"\q"}"#,
        r#"{"type":"broadcast","content":"\ud8"}"#,
        "{\"type\":\"broadcast\",\"content\":\"raw\nnewline\"}",
        "{\"type\":\"broadcast\",\"content\":\"open",
    ] {
        alice.send_text(text);
        assert_error(&alice.recv_json(), &["bad_json"], text);
    }
    alice.send_message(Message::binary(&b"\xFF\xFE{}"[..]));
    assert_error(&alice.recv_json(), &["bad_json"], "a binary message that is no UTF-8");
    let error = alice.request(json!({"type": "broadcast", "content": 1, "data": 2}));
    assert_error(&error, &["bad_json"], "content and data together");
    alice.nothing_for(0);
}

pub fn unknown_types_are_told(way: Way) {
    let server = way.start(&[]);
    let mut alice = Client::connect(&server, "alice");
    for kind in ["nope", "", "PING", "welcome", "system", "ack"] {
        alice.send(&json!({"type": kind}));
        let error = alice.recv_json();
        assert_error(&error, &["unknown_type"], kind);
        assert!(error.get("id").is_none(), "no id was sent: {error}");
        let error = alice.request(json!({"type": kind}));
        assert_error(&error, &["unknown_type"], kind);
    }
    for text in ["{}", r#"{"content":1}"#, r#"{"type":7}"#, r#"{"type":null}"#] {
        alice.send_text(text);
        assert_error(&alice.recv_json(), &["missing_field", "unknown_type", "bad_json"], text);
    }
}

pub fn missing_fields_are_told(way: Way) {
    let server = way.start(&[]);
    let mut alice = Client::connect(&server, "alice");
    for command in [
        json!({"type": "private_msg", "content": 1}),
        json!({"type": "private_msg", "toUser": "bob"}),
        json!({"type": "private", "data": 1}),
        json!({"type": "private", "to": "6f6d1f4e-3c52-4d0a-9f35-0e6b6b1f2a77"}),
        json!({"type": "broadcast"}),
        json!({"type": "join_room"}),
        json!({"type": "leave_room"}),
        json!({"type": "room_msg", "content": 1}),
        json!({"type": "room_msg", "roomId": "den"}),
        json!({"type": "presence"}),
    ] {
        let error = alice.request(command.clone());
        assert_error(&error, &["missing_field"], &command.to_string());
    }
    alice.publish(json!({"type": "broadcast", "content": null}));
}

pub fn bad_room_ids_are_told(way: Way) {
    let server = way.start(&[]);
    let mut alice = Client::connect(&server, "alice");
    let long = "r".repeat(10_000);
    for room in ["", long.as_str()] {
        for command in [
            json!({"type": "join_room", "roomId": room}),
            json!({"type": "join_room", "roomIds": ["fine", room]}),
            json!({"type": "leave_room", "roomId": room}),
            json!({"type": "room_msg", "roomId": room, "content": 1}),
            json!({"type": "presence", "roomId": room}),
        ] {
            let error = alice.request(command);
            assert_error(&error, &["bad_room_id"], &format!("{} bytes", room.len()));
        }
    }
    for wrong in [json!(7), json!(null), json!({}), json!(["den"])] {
        let error = alice.request(json!({"type": "room_msg", "roomId": wrong, "content": 1}));
        assert_error(&error, &["bad_room_id", "missing_field", "bad_json"], "a room id that is no string");
    }
}

pub fn since_as_a_member_is_refused(way: Way) {
    let server = way.start(&[]);
    let mut alice = Client::connect(&server, "alice");
    alice.join("den");
    let error = alice.request(json!({"type": "join_room", "roomId": "den", "since": {"epoch": "e", "offset": 0}}));
    assert_error(&error, &["already_joined"], "since as a member");
    let presence = alice.request(json!({"type": "presence", "roomId": "den"}));
    assert_eq!(presence["count"], 1, "still a member");
}

pub fn errors_about_a_room_name_it(way: Way) {
    let server = way.start(&["--limits.rooms_max", "1", "--rooms.notice_members_max", "0"]);
    let mut alice = Client::connect(&server, "alice");
    alice.join("den");
    for (command, code) in [
        (json!({"type": "room_msg", "roomId": "den"}), "missing_field"),
        (json!({"type": "room_msg", "roomId": "den", "content": 1, "key": 7}), "bad_key"),
        (json!({"type": "join_room", "roomId": "den", "last": -1}), "bad_position"),
        (json!({"type": "join_room", "roomId": "den", "since": {"epoch": "e", "offset": 0}}), "already_joined"),
        (json!({"type": "join_room", "roomId": "\"lobby\""}), "too_many_rooms"),
        (json!({"type": "history", "roomId": "lobby"}), "forbidden"),
    ] {
        let refused = alice.request(command.clone());
        assert_eq!((&refused["code"], &refused["roomId"]), (&json!(code), &command["roomId"]), "{refused}");
    }
    for command in [
        json!({"type": "join_room", "roomIds": ["lobby"]}),
        json!({"type": "leave_room", "roomId": 7}),
        json!({"type": "private_msg", "roomId": "den"}),
    ] {
        let refused = alice.request(command);
        assert_eq!((&refused["type"], refused.get("roomId")), (&json!("error"), None), "{refused}");
    }
}

pub fn what_is_for_keyed_rooms_is_refused_elsewhere(way: Way) {
    let server = way.start(&["--room", "match=px,keyed=true", "--rooms.notice_members_max", "0"]);
    let (mut alice, mut bob) = (Client::connect(&server, "alice"), Client::connect(&server, "bob"));
    alice.join("den");
    bob.join("den");
    for command in [
        json!({"type": "join_room", "roomId": "den", "mode": "latest"}),
        json!({"type": "join_room", "roomId": "lobby", "items": ["a"]}),
        json!({"type": "join_room", "roomId": "px", "interval": "soon"}),
        json!({"type": "tune", "roomId": "den", "interval": 100}),
        json!({"type": "room_msgs", "roomId": "den", "updates": []}),
    ] {
        let refused = alice.request(command.clone());
        assert_eq!((&refused["code"], &refused["roomId"]), (&json!("bad_options"), &command["roomId"]), "{refused}");
    }
    assert_eq!(alice.request(json!({"type": "join_room", "roomIds": ["px"], "mode": "all"}))["code"], "bad_options");
    for (command, code) in [
        (json!({"type": "tune", "roomId": "px", "interval": 100}), "not_joined"),
        (json!({"type": "room_msg", "roomId": "px", "content": 1}), "missing_field"),
        (json!({"type": "room_msg", "roomId": "px", "item": "a*", "content": 1}), "bad_item"),
        (json!({"type": "room_msg", "roomId": "den", "remove": true}), "missing_field"),
    ] {
        let refused = alice.request(command.clone());
        assert_eq!((&refused["code"], &refused["roomId"]), (&json!(code), &command["roomId"]), "{refused}");
    }
    let updates = json!([{"item": "a", "content": 1}, {"item": "b"}]);
    let refused = alice.request(json!({"type": "room_msgs", "roomId": "px", "updates": updates}));
    assert_eq!((&refused["code"], &refused["index"]), (&json!("bad_item"), &json!(1)), "{refused}");
    // Elsewhere an item is a field like any that nobody knows.
    let said = json!({"type": "room_msg", "roomId": "den", "item": 7, "version": "x", "content": 1});
    assert_eq!(alice.request(said)["type"], "ack");
    let heard = bob.expect_type("room_msg");
    assert_eq!((&heard["content"], heard.get("item")), (&json!(1), None), "{heard}");
}

pub fn rates_are_limited(way: Way) {
    let server = way.start(&["--rate.messages_per_second", "5"]);
    let mut conn = RawConn::connect_as(&server, "alice");
    for id in 0..200 {
        let command = json!({"type": "ping", "id": id}).to_string();
        if !conn.try_send(&fanfare_testing::raw::masked(TEXT, command.as_bytes())) {
            break;
        }
    }
    let (mut pongs, mut refused) = (0, 0);
    while pongs + refused < 200 {
        let Some(frame) = conn.read_frame() else {
            break;
        };
        if frame.first == CLOSE {
            assert_eq!(frame.payload[..2], 1008_u16.to_be_bytes(), "policy");
            refused += 1;
            break;
        }
        let reply: Value = serde_json::from_slice(&frame.payload).expect("a reply is JSON");
        match reply["type"].as_str() {
            Some("pong") => pongs += 1,
            _ => {
                assert_error(&reply, &["rate_limited"], "too many messages");
                refused += 1;
            }
        }
    }
    assert!(pongs >= 1, "the first message is within the rate");
    assert!(refused >= 1, "200 messages at once are above 5 per second: {pongs} pongs");
    Client::connect(&server, "bob").barrier();
}

pub fn the_last_of_duplicate_keys_wins(way: Way) {
    let server = way.start(&[]);
    let mut alice = Client::connect(&server, "alice");
    alice.send_text(r#"{"type":"nope","type":"ping","id":1,"id":2}"#);
    let pong = alice.recv_type("pong");
    assert_eq!(pong["id"], 2);
    alice.send_text(r#"{"type":"broadcast","data":"first","data":"last"}"#);
    assert_eq!(alice.recv_type("broadcast")["data"], "last");
}

pub fn escaped_keys_are_keys(way: Way) {
    let server = way.start(&[]);
    let mut alice = Client::connect(&server, "alice");
    alice.send_text(r#"{"t\u0079pe":"p\u0069ng","\u0069d":"\u0041"}"#);
    assert_eq!(alice.recv_type("pong")["id"], "A");
    alice.send_text(r#"{"type":"join_room","roomId":"d\u0065n"}"#);
    assert_eq!(alice.recv_type("system")["roomId"], "den");
}

#[track_caller]
fn assert_error(reply: &Value, codes: &[&str], what: &str) {
    assert_eq!(reply["type"], "error", "{what}: {reply}");
    let code = reply["code"].as_str().unwrap_or_default();
    assert!(codes.contains(&code), "{what}: {reply}");
    assert!(
        reply["message"].as_str().is_some_and(|message| !message.is_empty()),
        "{what}: an error has a message for people: {reply}"
    );
}
