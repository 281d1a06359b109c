//! The end of a connection right behind its own messages: what comes back of them comes before the server's close frame.

use std::collections::BTreeSet;

use fanfare_testing::deflate::RSV1;
use fanfare_testing::raw::{BINARY, CLOSE, Frame, PING, RawConn, TEXT, masked};
use fanfare_testing::{Client, Way};
use serde_json::{Value, json};

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

pub fn echoes_come_before_the_close(way: Way) {
    let server = way.start(&[]);
    for room in 0..ROOMS {
        for (last_word, code) in last_words() {
            for offer in [None, Some("permessage-deflate")] {
                let offers: Vec<&str> = offer.into_iter().collect();
                // Rooms of their own: in a cluster, what one said may still be on its way to the next one's node.
                let room = format!("room-{room}-{code}-{}", offers.len());
                let (mut conn, _) = RawConn::offer(&server, &format!("/raw/{room}?echo=1"), &offers);
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

pub fn replies_come_before_the_close(way: Way) {
    let server = way.start(&["--rooms.notice_members_max", "0"]);
    for user in 0..ROOMS {
        for (last_word, code) in last_words() {
            let mut conn = RawConn::connect_as(&server, &format!("user-{user}"));
            let mut bytes = Vec::new();
            let mut expected = BTreeSet::new();
            let mut own = BTreeSet::new();
            for id in 0..MESSAGES {
                // Several rooms, so several homes; to oneself, which comes back; to everyone, which does too.
                let body = json!([user, code, id]);
                let (command, kind) = match id % 5 {
                    0 => (json!({"type": "join_room", "roomId": format!("room-{id}"), "id": id}), "joined"),
                    1 => {
                        let to = format!("user-{user}");
                        (json!({"type": "private_msg", "toUser": to, "content": body, "id": id}), "ack")
                    }
                    2 => (json!({"type": "broadcast", "data": body, "id": id}), "ack"),
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
            for message in messages_to_the_close(&mut conn, code) {
                let body = if message["data"].is_null() { &message["content"] } else { &message["data"] };
                let new = match (message["id"].as_u64(), body[2].as_u64()) {
                    (Some(id), _) => replies.insert((id, message["type"].as_str().expect("a type").to_owned())),
                    (None, Some(id)) if body[0] == user && body[1] == code => back.insert(id),
                    // In a cluster, what the one before said may still have been on its way.
                    (None, _) => true,
                };
                assert!(new, "twice: {message}");
            }
            assert_eq!(replies, expected, "user {user} before a {code}");
            assert_eq!(back, own, "user {user} before a {code}");
        }
    }
}

/// What a client sends behind its last word has no meaning, and to others its end is one as soon as it comes.
pub fn nothing_counts_behind_the_last_word(way: Way) {
    let server = way.start(&[]);
    let mut witness = Client::connect(&server, "witness");
    for room in 0..ROOMS {
        for (last_word, code) in last_words() {
            // A room of its own: in a cluster, what one said may still be on its way to the next one's node.
            let room = format!("room-{room}-{code}");
            witness.join(&room);
            witness.recv_type("system");
            server.settle();
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
            witness.publish(json!({"type": "leave_room", "roomId": room}));
        }
    }
    witness.nothing_for(0);
}

/// Every message in front of a close frame with this code, behind which the connection ends.
#[track_caller]
fn messages_to_the_close(conn: &mut RawConn, code: u16) -> Vec<Value> {
    let mut messages = Vec::new();
    loop {
        let frame = conn.read_frame().expect("a message or a close frame");
        if frame.first != TEXT {
            assert_close(&frame, code);
            conn.expect_end("behind the close frame");
            return messages;
        }
        messages.push(serde_json::from_slice(&frame.payload).expect("a message is JSON"));
    }
}

/// The next frame is a close frame with this code, and the connection ends.
#[track_caller]
fn closes_at_once(conn: &mut RawConn, code: u16) {
    assert_close(&conn.read_frame().expect("a close frame"), code);
    conn.expect_end("behind the close frame");
}

#[track_caller]
fn assert_close(frame: &Frame, code: u16) {
    assert_eq!(frame.first & !RSV1, CLOSE, "{:?}", frame.payload);
    assert_eq!(frame.first & RSV1, 0, "a control frame is never compressed");
    assert_eq!(frame.payload[..2], code.to_be_bytes(), "{}", frame.payload.escape_ascii());
}
