//! `content` and `data` come out as the text that went in.

use fanfare_testing::{Client, Way};
use serde_json::{Value, json};
use tungstenite::Message;

/// Values that a JSON library would change, refuse or lose.
const UNTOUCHABLE: &[&str] = &[
    "1e400",
    "-1E-400",
    "123456789012345678901234567890",
    "0.10000000000000000000000000001",
    "-0",
    "-0.0",
    "1.0",
    "1E+2",
    "null",
    "true",
    "false",
    r#""""#,
    "[]",
    "{}",
    r#"{"z":1,"a":2,"m":{"y":[],"b":{}}}"#,
    r#"{"same":1,"same":2}"#,
    r#"{"type":"ping","id":7,"content":1,"data":2}"#,
    r#"{ "spaced" : [ 1 , 2 ] }"#,
    "[\r\n\t1\n]",
    r#""\u0041\/\b\f\n\r\t\"\\""#,
    r#""\ud83e\udd80""#,
    r#""\ud800""#,
    r#""\udfff\ud800 lone""#,
    r#""\uD800\u0041""#,
    r#"{"\ud800":"key"}"#,
    r#""\u0000""#,
    "\"🦀 \u{2028} \u{7f} \u{10ffff}\"",
    r#""},{\"type\":\"ping\"}""#,
];

pub fn content_passes_byte_for_byte(way: Way) {
    let server = way.start(&["--rooms.notice_members_max", "0"]);
    let mut alice = Client::connect(&server, "alice");
    let mut bob = Client::connect(&server, "bob");
    bob.join("den");
    let bob_id = bob.client_id().to_owned();
    for value in UNTOUCHABLE {
        for (command, field) in [
            (r#""type":"room_msg","roomId":"den""#.to_owned(), "content"),
            (r#""type":"private_msg","toUser":"bob""#.to_owned(), "content"),
            (format!(r#""type":"private","to":"{bob_id}""#), "data"),
            (r#""type":"broadcast""#.to_owned(), "content"),
        ] {
            alice.send_text(&format!(r#"{{{command},"{field}":{value}}}"#));
            assert_carries(&bob.recv_text(), field, value);
            alice.send_text(&format!(r#"{{"{field}":{value},{command}}}"#));
            assert_carries(&bob.recv_text(), field, value);
        }
    }
    alice.nothing_for(0);
    for value in UNTOUCHABLE {
        alice.send_text(&format!(r#"{{"type":"broadcast","data":{value}}}"#));
        assert_carries(&alice.recv_text(), "data", value);
        assert_carries(&bob.recv_text(), "data", value);
    }
}

pub fn whitespace_around_members_is_accepted(way: Way) {
    let server = way.start(&[]);
    let mut alice = Client::connect(&server, "alice");
    alice.send_text("\r\n\t {\n \"type\" :\t\"broadcast\" , \"data\" : [ 1 ]  \n} \t");
    assert_carries(&alice.recv_text(), "data", "[ 1 ]");
}

pub fn nesting_is_limited_to_128(way: Way) {
    let server = way.start(&[]);
    let mut alice = Client::connect(&server, "alice");
    for (open, close) in [("[", "]"), ("{\"k\":", "}")] {
        let inner = if open == "[" { "" } else { "1" };
        let deep = format!("{}{inner}{}", open.repeat(128), close.repeat(128));
        alice.send_text(&format!(r#"{{"type":"broadcast","data":{deep}}}"#));
        assert_carries(&alice.recv_text(), "data", &deep);
        for levels in [129, 130, 10_000] {
            let deeper = format!("{}{inner}{}", open.repeat(levels), close.repeat(levels));
            alice.send_text(&format!(r#"{{"type":"broadcast","data":{deeper}}}"#));
            let error = alice.recv_type("error");
            assert_eq!(error["code"], "bad_json", "{levels} levels");
        }
    }
    alice.nothing_for(0);
}

pub fn binary_messages_are_commands_too(way: Way) {
    let server = way.start(&["--rooms.notice_members_max", "0"]);
    let mut alice = Client::connect(&server, "alice");
    let mut bob = Client::connect(&server, "bob");
    bob.join("den");
    alice.send_message(Message::binary(r#"{"type":"ping","id":1}"#.as_bytes()));
    assert_eq!(alice.recv_type("pong")["id"], 1);
    alice.send_message(Message::binary(r#"{"type":"room_msg","roomId":"den","content":"héllo"}"#.as_bytes()));
    assert_carries(&bob.recv_text(), "content", "\"héllo\"");
}

pub fn long_content_passes(way: Way) {
    let server = way.start(&["--rooms.notice_members_max", "0"]);
    let mut alice = Client::connect(&server, "alice");
    let mut bob = Client::connect(&server, "bob");
    bob.join("den");
    // Around the borders of the frame header's three length encodings, and a size that spans many reads.
    for length in [1, 20, 60, 125, 126, 127, 256, 1_000, 30_000, 60_000] {
        let content: String = ('a'..='z').cycle().take(length).collect();
        alice.publish(json!({"type": "room_msg", "roomId": "den", "content": content}));
        assert_eq!(bob.recv_type("room_msg")["content"], Value::from(content), "{length} characters");
    }
}

/// The raw text of a member, whatever stands around it.
#[track_caller]
fn assert_carries(message: &str, field: &str, value: &str) {
    let member = format!("\"{field}\":{value}");
    let found = message.match_indices(&member).any(|(at, _)| {
        let before = message[..at].chars().next_back();
        let after = message[at + member.len()..].chars().next();
        matches!(before, Some('{' | ',')) && matches!(after, Some('}' | ','))
    });
    assert!(found, "expected {member} in {message}");
}
