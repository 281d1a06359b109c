//! Sockets that are no connection yet.

use fanfare_testing::raw::{RawConn, TEXT, masked, status_of, upgrade_request};
use fanfare_testing::{Client, Server, eventually};
use serde_json::json;

use crate::refused;

pub fn the_oldest_without_a_request_makes_room(reactors: usize) {
    let settings = ["--limits.connections_max", "10", "--limits.handshake_timeout", "5m"];
    let server = Server::with_reactors(reactors, &settings);
    let mut alice = Client::connect(&server, "alice");
    let mut silent: Vec<RawConn> = (0..1_200).map(|_| RawConn::connect(&server)).collect();
    for at in 0..9 {
        let mut conn = RawConn::connect(&server);
        conn.send(upgrade_request(&format!("/?userId=user-{at}"), &[]).as_bytes());
        assert_eq!(status_of(&conn.read_head()), 101, "whoever says its request finds a place");
        silent.push(conn);
    }
    let displaced = refused(&server, "displaced");
    assert!((150..300).contains(&displaced), "{displaced} of 1,200 had to go");
    assert_eq!(silent[0].read_until_it_breaks(), 0, "the oldest");
    alice.publish(json!({"type": "private_msg", "toUser": "alice", "content": 1}));
    alice.expect(|json| json["content"] == 1);
}

pub fn whoever_is_no_connection_yet_is_shed_first(reactors: usize) {
    let settings = ["--outbox.node_bytes_max", "1MiB", "--limits.handshake_timeout", "5m"];
    let server = Server::with_reactors(reactors, &settings);
    // It holds more than any of the others, and is a connection.
    let mut alice = RawConn::connect_as(&server, "alice");
    let message = json!({"type": "private_msg", "toUser": "alice", "content": "c".repeat(100_000)}).to_string();
    let frame = masked(TEXT, message.as_bytes());
    let (most, rest) = frame.split_at(frame.len() - 100);
    alice.send(most);
    let head = format!("GET / HTTP/1.1\r\nHost: x\r\nX-Filler: {}", "f".repeat(7_000));
    let strangers: Vec<RawConn> = (0..300)
        .map(|_| {
            let mut conn = RawConn::connect(&server);
            conn.try_send(head.as_bytes());
            conn
        })
        .collect();
    eventually("those beyond the budget are gone", || refused(&server, "shed") >= 150);
    let shed = refused(&server, "shed");
    assert!(shed <= 200, "{shed} of 300 that together hold twice the budget");
    drop(strangers);
    alice.send(rest);
    assert!(alice.read_text().contains("cccc"), "a connection stays while others can go");
}
