//! The end of a connection right behind its own messages: what comes back of them comes before the server's close frame.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::common::deflate::RSV1;
use crate::common::raw::{BINARY, CLOSE, PING, RawConn, TEXT, masked};
use crate::common::{Client, Server};

/// So many that some have their home on each reactor, whatever the seed.
const ROOMS: usize = 20;

const MESSAGES: u64 = 30;

/// A last word and the close code that answers it.
fn last_words() -> [(Vec<u8>, u16); 4] {
    let mut going = 3210_u16.to_be_bytes().to_vec();
    going.extend_from_slice(b"that is all");
    [
        (masked(CLOSE, &going), 3210),
        (masked(PING | 0x20, b""), 1002),
        (masked(TEXT, b"no UTF-8: \xFF"), 1007),
        // Its length alone is too much.
        (vec![BINARY, 0x80 | 127, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0], 1009),
    ]
}

pub fn echoes_come_before_the_close(reactors: usize) {
    let server = Server::with_reactors(reactors, &[]);
    for room in 0..ROOMS {
        for (last_word, code) in last_words() {
            for offer in [None, Some("permessage-deflate")] {
                let offers: Vec<&str> = offer.into_iter().collect();
                let (mut conn, _) = RawConn::offer(&server, &format!("/raw/room-{room}?echo=1"), &offers);
                let messages: Vec<String> = (0..MESSAGES).map(|at| format!("{at} ").repeat(at as usize * 10)).collect();
                let mut bytes: Vec<u8> = messages.iter().flat_map(|text| masked(TEXT, text.as_bytes())).collect();
                bytes.extend(&last_word);
                conn.send(&bytes);
                for (at, text) in messages.iter().enumerate() {
                    let received = conn.read_message(15);
                    assert!(received.bytes == text.as_bytes(), "message {at} in room {room} before a {code}");
                    assert!(offer.is_some() || !received.compressed);
                }
                closes_at_once(&mut conn, code);
            }
        }
    }
}

pub fn replies_come_before_the_close(reactors: usize) {
    let server = Server::with_reactors(reactors, &["--rooms.notice_members_max", "0"]);
    for user in 0..ROOMS {
        for (last_word, code) in last_words() {
            let mut conn = RawConn::connect_as(&server, &format!("user-{user}"));
            let mut bytes = Vec::new();
            let mut expected = BTreeSet::new();
            let mut own = Vec::new();
            for id in 0..MESSAGES {
                // Several rooms, so several homes; to oneself, which comes back; to everyone, which does too.
                let (command, kind) = match id % 5 {
                    0 => (json!({"type": "join_room", "roomId": format!("room-{id}"), "id": id}), "joined"),
                    1 => (
                        json!({"type": "private_msg", "toUser": format!("user-{user}"), "content": id, "id": id}),
                        "ack",
                    ),
                    2 => (json!({"type": "broadcast", "data": id, "id": id}), "ack"),
                    3 => (json!({"type": "presence", "roomId": format!("room-{id}"), "id": id}), "presence"),
                    _ => (json!({"type": "room_msg", "roomId": format!("room-{id}"), "content": id, "id": id}), "ack"),
                };
                own.extend(matches!(id % 5, 1 | 2).then_some(id));
                expected.insert((id, kind.to_owned()));
                bytes.extend(masked(TEXT, command.to_string().as_bytes()));
            }
            bytes.extend(&last_word);
            conn.send(&bytes);
            let (mut replies, mut back) = (BTreeSet::new(), BTreeSet::new());
            while replies.len() + back.len() < expected.len() + own.len() {
                let message: Value = serde_json::from_str(&conn.read_text()).expect("a message is JSON");
                let kind = message["type"].as_str().expect("a type").to_owned();
                let new = match message["id"].as_u64() {
                    Some(id) => replies.insert((id, kind)),
                    None => back.insert(message["content"].as_u64().or(message["data"].as_u64()).expect("a number")),
                };
                assert!(new, "twice: {message}");
            }
            assert_eq!(replies, expected, "user {user} before a {code}");
            assert!(back.iter().eq(&own), "user {user} before a {code}: {back:?}");
            closes_at_once(&mut conn, code);
        }
    }
}

/// What a client sends behind its last word has no meaning, and to others its end is one as soon as it comes.
pub fn nothing_counts_behind_the_last_word(reactors: usize) {
    let server = Server::with_reactors(reactors, &[]);
    let mut witness = Client::connect(&server, "witness");
    for room in 0..ROOMS {
        let room = format!("room-{room}");
        witness.join(&room);
        witness.recv_type("system");
        for (last_word, code) in last_words() {
            let mut conn = RawConn::connect_as(&server, "mallory");
            let say = |content: &str| json!({"type": "room_msg", "roomId": room, "content": content}).to_string();
            let mut bytes = masked(TEXT, json!({"type": "join_room", "roomId": room}).to_string().as_bytes());
            bytes.extend(masked(TEXT, say("before").as_bytes()));
            bytes.extend(&last_word);
            bytes.extend(masked(TEXT, say("behind").as_bytes()));
            bytes.extend(masked(PING, b"behind"));
            conn.send(&bytes);
            // Its own notice, and the close.
            assert!(conn.read_text().contains("mallory joined"));
            closes_at_once(&mut conn, code);
            assert_eq!(witness.recv_type("system")["event"], "join");
            assert_eq!(witness.recv_type("room_msg")["content"], "before");
            assert_eq!(witness.recv_type("system")["event"], "leave");
        }
        witness.publish(json!({"type": "leave_room", "roomId": room}));
    }
    witness.nothing_for(0);
}

/// The next frame is a close frame with this code, and the connection ends.
#[track_caller]
fn closes_at_once(conn: &mut RawConn, code: u16) {
    let frame = conn.read_frame().expect("a close frame");
    assert_eq!(frame.first & !RSV1, CLOSE, "{:?}", frame.payload);
    assert_eq!(frame.first & RSV1, 0, "a control frame is never compressed");
    assert_eq!(frame.payload[..2], code.to_be_bytes(), "{}", frame.payload.escape_ascii());
    conn.expect_end("behind the close frame");
}
