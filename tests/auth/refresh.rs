//! Another token for an open connection, and the end of one.

use std::thread::sleep;
use std::time::Duration;

use fanfare_testing::Client;
use fanfare_testing::raw::RawConn;
use serde_json::{Value, json};

use super::tokens::{Guarded, now_ms, now_s};

/// With a secret, and with a public key whose signatures are checked elsewhere.
fn both(reactors: usize, settings: &[&str]) -> [Guarded; 2] {
    [Guarded::start(reactors, settings), Guarded::with_public_key(reactors, settings)]
}

fn refresh(client: &mut Client, token: &str) -> Value {
    client.request(json!({"type": "refresh", "token": token}))
}

pub fn other_permissions_are_in_force_at_once(reactors: usize) {
    for guarded in both(reactors, &[]) {
        let mut client = guarded.connect("alice", json!({}));
        let join = json!({"type": "join_room", "roomId": "r"});
        assert_eq!(client.request(join.clone())["code"], "forbidden");
        let ends_s = now_s() + 100;
        let token = guarded.sign(&json!({"sub": "alice", "exp": ends_s, "fanfare": {"join": ["r"]}}));
        let reply = refresh(&mut client, &token);
        assert_eq!((&reply["type"], &reply["expires"]), (&json!("ack"), &json!(ends_s * 1_000)), "{reply}");
        assert_eq!(client.request(join)["type"], "joined");
    }
}

pub fn what_is_no_good_token_changes_nothing(reactors: usize) {
    for guarded in both(reactors, &[]) {
        let mut client = guarded.connect("alice", json!({"join": ["r"]}));
        client.join("r");
        let expired = guarded.sign(&json!({"sub": "alice", "exp": now_s() - 1}));
        let long = guarded.token("alice", json!({"join": vec!["a room with a long name"; 400]}));
        for token in ["", "x", "a.b.c", &expired, &long] {
            let reply = refresh(&mut client, token);
            assert_eq!(reply["code"], "unauthorized", "{reply}");
            assert!(token.len() < 10 || !reply.to_string().contains(token));
        }
        let reply = refresh(&mut client, &guarded.token("bob", json!({})));
        assert_eq!(reply["code"], "forbidden", "{reply}");
        assert_eq!(client.request(json!({"type": "refresh", "token": 7}))["code"], "unauthorized");
        assert_eq!(client.request(json!({"type": "refresh"}))["code"], "missing_field");
        assert_eq!(client.request(json!({"type": "history", "roomId": "r"}))["type"], "history");
    }
}

pub fn rooms_that_are_forbidden_are_left_before_the_answer(reactors: usize) {
    let rooms: Vec<String> = (0..20).map(|room| format!("r{room}")).collect();
    for guarded in both(reactors, &["--rooms.notice_members_max", "0"]) {
        let may = json!({"join": rooms, "publish": ["*"]});
        let mut client = guarded.connect("alice", may.clone());
        let mut speaker = guarded.connect("bob", may);
        for client in [&mut client, &mut speaker] {
            client.send(&json!({"type": "join_room", "roomIds": rooms, "id": 0}));
            client.until(|message| message["type"] == "ack");
        }
        let token = guarded.token("alice", json!({"join": ["r1*"]}));
        client.send(&json!({"type": "refresh", "token": token, "id": 1}));
        let mut said = client.until(|message| message["type"] == "ack");
        assert_eq!(said.pop().unwrap()["id"], 1);
        let mut left: Vec<&str> = said.iter().map(|message| message["roomId"].as_str().unwrap()).collect();
        assert!(said.iter().all(|message| message["type"] == "left" && message["reason"] == "forbidden"), "{said:?}");
        left.sort_unstable();
        assert_eq!(left, ["r0", "r2", "r3", "r4", "r5", "r6", "r7", "r8", "r9"]);
        for room in &rooms {
            speaker.publish(json!({"type": "room_msg", "roomId": room, "content": 1}));
        }
        let heard = (0..11).map(|_| client.recv_type("room_msg")["roomId"].as_str().unwrap().to_owned());
        assert!(heard.collect::<Vec<_>>().iter().all(|room| room.starts_with("r1")));
        client.nothing_for(100);
    }
}

pub fn what_stands_behind_a_refresh_waits_for_it(reactors: usize) {
    for guarded in both(reactors, &["--rooms.notice_members_max", "0"]) {
        let mut client = guarded.connect("alice", json!({"join": ["a", "c"]}));
        client.join("c");
        let token = guarded.token("alice", json!({"join": ["b"]}));
        client.send(&json!({"type": "join_room", "roomId": "b", "id": 1}));
        client.send(&json!({"type": "join_room", "roomId": "a", "id": 2}));
        client.send(&json!({"type": "refresh", "token": token, "id": 3}));
        client.send(&json!({"type": "join_room", "roomId": "b", "id": 4}));
        client.send(&json!({"type": "join_room", "roomId": "a", "id": 5}));
        client.send(&json!({"type": "ping", "id": 6}));
        assert_eq!(client.reply(&json!(1))["code"], "forbidden");
        // Whether it was confirmed before the token was another one is not certain.
        let second = client.reply(&json!(2));
        assert!(second["type"] == "joined" || second["code"] == "forbidden", "{second}");
        assert_eq!(client.reply(&json!(3))["type"], "ack");
        assert_eq!(client.reply(&json!(4))["type"], "joined");
        assert_eq!(client.reply(&json!(5))["code"], "forbidden");
        assert_eq!(client.reply(&json!(6))["type"], "pong");
        let mut left = Vec::new();
        while left.len() < 1 + usize::from(second["type"] == "joined") {
            left.push(client.recv_type("left")["roomId"].as_str().unwrap().to_owned());
        }
        left.sort_unstable();
        assert_eq!(left, if second["type"] == "joined" { vec!["a", "c"] } else { vec!["c"] });
    }
}

pub fn a_token_that_ends_closes_its_connection(reactors: usize) {
    let guarded = Guarded::start(reactors, &["--auth.expiring_before", "1s"]);
    let ends_s = now_s() + 3;
    let token = guarded.sign(&json!({"sub": "alice", "exp": ends_s, "fanfare": {"join": ["raw/r"]}}));
    let mut client = Client::greeted(&guarded.server, &format!("/?token={token}"));
    let mut raw = RawConn::upgrade(&guarded.server, &format!("/raw/r?token={token}"));
    let told = client.recv_type("expiring");
    assert!((1..=1_000).contains(&told["in"].as_u64().unwrap()), "{told}");
    assert!(now_ms() < ends_s * 1_000, "it is told before");
    let (code, _) = client.close_frame();
    assert_eq!(code, 4001);
    assert!((ends_s * 1_000..=ends_s * 1_000 + 5_000).contains(&now_ms()), "in time");
    raw.expect_close(4001, "the token has ended");
}

pub fn a_refresh_keeps_the_connection(reactors: usize) {
    for guarded in both(reactors, &["--auth.expiring_before", "5s"]) {
        let ends_s = now_s() + 2;
        let token = |ends_s: u64| guarded.sign(&json!({"sub": "alice", "exp": ends_s}));
        let mut client = Client::greeted(&guarded.server, &format!("/?token={}", token(ends_s)));
        client.recv_type("expiring");
        assert_eq!(refresh(&mut client, &token(ends_s + 60))["expires"], (ends_s + 60) * 1_000);
        sleep(Duration::from_millis((ends_s * 1_000 + 5_200).saturating_sub(now_ms())));
        assert_eq!(client.request(json!({"type": "ping"}))["type"], "pong");
    }
}
