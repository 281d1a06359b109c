//! Frames cut and joined in every legal way.

use fanfare_testing::Way;
use fanfare_testing::raw::{
    BINARY, CLOSE, CONTINUATION, FIN, PING, PONG, RawConn, TEXT, masked, status_of, upgrade_request,
};
use serde_json::{Value, json};

pub fn many_messages_in_one_segment(way: Way) {
    const COUNT: u64 = 500;
    let server = way.start(&[]);
    let mut conn = RawConn::connect(&server);
    // The messages follow the request head without waiting for the answer.
    let mut bytes = upgrade_request("/?userId=alice", &[]).into_bytes();
    for id in 0..COUNT {
        let command = json!({"type": "ping", "id": id}).to_string();
        bytes.extend(masked(TEXT, command.as_bytes()));
    }
    conn.send(&bytes);
    assert_eq!(status_of(&conn.read_head()), 101);
    assert_eq!(json_of(&conn.read_text())["type"], "welcome");
    for id in 0..COUNT {
        let reply = json_of(&conn.read_text());
        assert_eq!((&reply["type"], &reply["id"]), (&json!("pong"), &json!(id)));
    }
}

pub fn messages_byte_by_byte(way: Way) {
    let server = way.start(&[]);
    let mut conn = RawConn::connect(&server);
    for byte in upgrade_request("/?userId=alice", &[]).bytes() {
        conn.send(&[byte]);
    }
    assert_eq!(status_of(&conn.read_head()), 101);
    assert_eq!(json_of(&conn.read_text())["userId"], "alice");
    let long_id = "i".repeat(200);
    let command = json!({"type": "ping", "id": long_id}).to_string();
    for byte in masked(TEXT, command.as_bytes()) {
        conn.send(&[byte]);
    }
    assert_eq!(json_of(&conn.read_text())["id"], long_id);
}

pub fn fragments_make_one_message(way: Way) {
    let server = way.start(&[]);
    let mut echo = RawConn::upgrade(&server, "/raw/den?echo=1");
    let text = "héllo 🦀 wörld".as_bytes();
    for cut in 0..=text.len() {
        echo.send_frame(TEXT & !FIN, &text[..cut]);
        echo.send_frame(CONTINUATION & !FIN, b"");
        echo.send_frame(CONTINUATION, &text[cut..]);
        let frame = echo.read_frame().expect("the message");
        assert_eq!((frame.first, frame.payload.as_slice()), (TEXT, text), "cut at {cut}");
    }
    let bytes: Vec<u8> = (0..=255).collect();
    echo.send_frame(BINARY & !FIN, &bytes[..1]);
    for byte in &bytes[1..] {
        echo.send_frame(CONTINUATION & !FIN, &[*byte]);
    }
    echo.send_frame(CONTINUATION, b"");
    let frame = echo.read_frame().expect("the message");
    assert_eq!((frame.first, frame.payload), (BINARY, bytes));

    let mut alice = RawConn::connect_as(&server, "alice");
    alice.send_frame(TEXT & !FIN, br#"{"type":"#);
    alice.send_frame(CONTINUATION & !FIN, br#""pi"#);
    alice.send_frame(CONTINUATION, br#"ng","id":3}"#);
    assert_eq!(json_of(&alice.read_text())["id"], 3);
}

pub fn control_frames_between_fragments(way: Way) {
    let server = way.start(&[]);
    let mut alice = RawConn::connect_as(&server, "alice");
    alice.send_frame(TEXT & !FIN, br#"{"type":"pi"#);
    alice.send_frame(PING, b"between");
    alice.send_frame(PONG, b"unasked");
    let pong = alice.read_frame().expect("a pong before the message is complete");
    assert_eq!((pong.first, pong.payload.as_slice()), (PONG, &b"between"[..]));
    alice.send_frame(CONTINUATION, br#"ng","id":4}"#);
    assert_eq!(json_of(&alice.read_text())["id"], 4);
}

pub fn a_close_is_answered_with_its_code(way: Way) {
    let server = way.start(&[]);
    for code in [1000_u16, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999] {
        let mut conn = RawConn::connect_as(&server, "alice");
        let mut payload = code.to_be_bytes().to_vec();
        payload.extend_from_slice("bye €".as_bytes());
        conn.send_frame(CLOSE, &payload);
        conn.expect_close(code, &format!("a close with {code}"));
    }
    let mut conn = RawConn::connect_as(&server, "alice");
    conn.send_frame(CLOSE, b"");
    let answer = conn.read_frame().expect("a close frame");
    assert_eq!(answer.first, CLOSE);
    assert!(answer.payload.is_empty() || answer.payload[..2] == 1000_u16.to_be_bytes(), "{:?}", answer.payload);
    conn.expect_end("an empty close");
}

fn json_of(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error} in {text:?}"))
}
