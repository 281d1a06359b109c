//! How many connections a user has.

use fanfare_testing::raw::{CLOSE, RawConn, TEXT, upgrade_request};
use fanfare_testing::{Client, Server, await_metric, eventually, metric};
use serde_json::json;

fn settings<'s>(max: &'s str, policy: &'s str) -> [&'s str; 4] {
    ["--limits.user_connections_max", max, "--limits.user_connections_policy", policy]
}

/// The close frame's code and reason, in front of which nothing comes.
#[track_caller]
fn closed(conn: &mut RawConn) -> (u16, String) {
    let frame = conn.read_frame().expect("a close frame");
    assert_eq!(frame.first, CLOSE, "{:?}", String::from_utf8_lossy(&frame.payload));
    let reason = String::from_utf8(frame.payload[2..].to_vec()).expect("a reason is text");
    (u16::from_be_bytes([frame.payload[0], frame.payload[1]]), reason)
}

pub fn one_connection_more_is_told_why_and_closed(reactors: usize) {
    let server = Server::with_reactors(reactors, &settings("2", "refuse"));
    let mut first = Client::connect(&server, "alice");
    let second = Client::connect(&server, "alice");
    for _ in 0..10 {
        let mut refused = RawConn::upgrade(&server, "/?userId=alice");
        assert_eq!(closed(&mut refused), (1008, "too many connections of this user: close another one first".into()));
    }
    let _others: Vec<Client> = (0..3).map(|_| Client::greeted(&server, "/")).collect();
    let _raw: Vec<RawConn> = (0..3).map(|_| RawConn::upgrade(&server, "/raw/den?userId=alice")).collect();
    let mut bob = Client::connect(&server, "bob");
    bob.publish(json!({"type": "private_msg", "toUser": "alice", "content": "still here"}));
    first.expect(|json| json["content"] == "still here");
    second.leave();
    // Its home hears of the leave before the next one comes, or refuses that one.
    let mut again = Vec::new();
    eventually("the place is free again", || {
        let mut conn = RawConn::upgrade(&server, "/?userId=alice");
        let is_in = conn.read_frame().expect("a frame").first == TEXT;
        again.push(conn);
        is_in
    });
}

pub fn the_oldest_connection_makes_room(reactors: usize) {
    let server = Server::with_reactors(reactors, &settings("2", "replace"));
    let mut all: Vec<RawConn> = (0..5).map(|_| RawConn::connect_as(&server, "alice")).collect();
    for conn in &mut all[..3] {
        assert_eq!(closed(conn), (4009, "replaced by a newer connection of the same user".into()));
    }
    await_metric(&server, "fanfare_connections", 2);
    let mut bob = Client::connect(&server, "bob");
    bob.publish(json!({"type": "private_msg", "toUser": "alice", "content": "newest"}));
    for conn in &mut all[3..] {
        assert!(conn.read_text().contains("newest"));
    }
}

pub fn of_many_at_once_no_more_stay_than_allowed(reactors: usize) {
    const MANY: usize = 60;
    for (policy, let_in) in [("refuse", 3), ("replace", MANY)] {
        let server = Server::with_reactors(reactors, &settings("3", policy));
        let mut conns: Vec<RawConn> = (0..MANY).map(|_| RawConn::connect(&server)).collect();
        for conn in &mut conns {
            conn.send(upgrade_request("/?userId=alice", &[]).as_bytes());
        }
        let mut welcomed = 0;
        for conn in &mut conns {
            conn.read_head();
            welcomed += usize::from(conn.read_frame().expect("a frame").first == TEXT);
        }
        assert_eq!(welcomed, let_in, "{policy}");
        await_metric(&server, "fanfare_connections", 3);
        assert_eq!(metric(&server, "fanfare_connections_closed_total"), (MANY - 3) as u64, "{policy}");
    }
}
