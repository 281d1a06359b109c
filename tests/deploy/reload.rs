//! nginx reads its configuration again while messages flow: what its old workers cut comes back and has missed nothing.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use fanfare_testing::raw::{CLOSE, PING, PONG, RawConn, TEXT, masked};
use fanfare_testing::{Cluster, Entrance, Proxy, eventually};
use serde_json::{Value, json};

const SUBSCRIBERS: usize = 20;
const RELOADS: usize = 3;

/// More than is published in the time that one takes to come back.
const HISTORY: &[&str] =
    &["--room", "match=kept,history.size=100000,history.ttl=1h", "--rooms.notice_members_max", "0"];

/// Tells the publisher to end, also where the test fails.
struct Over<'t>(&'t AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// How far a subscriber has come.
struct Position {
    epoch: Value,
    offset: u64,
}

#[test]
fn reloads_of_nginx_under_load_lose_nothing() {
    // An old worker cuts its connections after two seconds in place of ten minutes.
    let cluster = Cluster::behind_changed(
        Proxy::Nginx,
        HISTORY,
        &[("worker_shutdown_timeout 10m", "worker_shutdown_timeout 2s")],
    );
    let front = cluster.front().addr();
    // How often each subscriber has joined.
    let joins = [const { AtomicUsize::new(0) }; SUBSCRIBERS];
    let all_joined = |times: usize| joins.iter().all(|joins| joins.load(Ordering::SeqCst) >= times);
    let is_over = AtomicBool::new(false);
    let (published, positions) = thread::scope(|scope| {
        let over = Over(&is_over);
        let subscribers: Vec<_> = joins.iter().map(|joins| scope.spawn(|| subscribe(&front, joins))).collect();
        eventually("all have joined", || all_joined(1));
        let publisher = scope.spawn(|| publish(&front, &is_over));
        for reload in 1..=RELOADS {
            cluster.front().reload();
            eventually("all subscribers were cut and are back", || all_joined(1 + reload));
        }
        drop(over);
        let published = publisher.join().expect("the publisher");
        let positions: Vec<Position> =
            subscribers.into_iter().map(|subscriber| subscriber.join().expect("a subscriber")).collect();
        (published, positions)
    });
    assert!(published > 100, "messages flowed: {published}");
    for position in &positions {
        assert_eq!((position.offset, &position.epoch), (published, &positions[0].epoch));
    }
}

/// Publishes numbers, each until it is acked, and an end when all reloads are over; how many messages that were.
fn publish(front: &dyn Entrance, is_over: &AtomicBool) -> u64 {
    let mut conn = RawConn::connect_as(front, "publisher");
    for number in 1.. {
        let content = if is_over.load(Ordering::SeqCst) { json!("end") } else { json!(number) };
        let message = json!({
            "type": "room_msg", "roomId": "kept", "content": content, "id": number, "key": format!("key-{number}")
        });
        let ack = loop {
            let is_sent = conn.try_send(&masked(TEXT, message.to_string().as_bytes()));
            match is_sent.then(|| next_json(&mut conn)).flatten() {
                Some(ack) => break ack,
                // What was sent may have been stored: the same key makes it one message.
                None => conn = RawConn::connect_as(front, "publisher"),
            }
        };
        assert_eq!((&ack["type"], &ack["id"], &ack["offset"]), (&json!("ack"), &json!(number), &json!(number)));
        if content == "end" {
            return number;
        }
    }
    unreachable!("numbers do not end")
}

/// Joins, and joins again from its position whenever the connection ends, until the end is published. Every message has to
/// come once and in order.
fn subscribe(front: &dyn Entrance, joins: &AtomicUsize) -> Position {
    let mut position: Option<Position> = None;
    loop {
        // A connect that is refused, or gets another answer than the upgrade, fails here.
        let mut conn = RawConn::connect_as(front, "subscriber");
        let mut join = json!({"type": "join_room", "roomId": "kept", "id": 0});
        if let Some(Position { epoch, offset, .. }) = &position {
            join["since"] = json!({"epoch": epoch, "offset": offset});
        }
        // Where it is not taken, the next read tells that the connection has ended.
        conn.try_send(&masked(TEXT, join.to_string().as_bytes()));
        while let Some(message) = next_json(&mut conn) {
            match (message["type"].as_str(), &mut position) {
                (Some("joined"), None) => {
                    let offset = message["offset"].as_u64().expect("an offset");
                    position = Some(Position { epoch: message["epoch"].clone(), offset });
                    joins.fetch_add(1, Ordering::SeqCst);
                }
                (Some("joined"), Some(position)) => {
                    assert_eq!(
                        (&message["recovered"], &message["epoch"]),
                        (&json!(true), &position.epoch),
                        "{message}"
                    );
                    joins.fetch_add(1, Ordering::SeqCst);
                }
                (Some("room_msg"), Some(position)) => {
                    assert_eq!(message["offset"], position.offset + 1, "neither gap nor double: {message}");
                    position.offset += 1;
                    if message["content"] == "end" {
                        return Position { epoch: position.epoch.clone(), offset: position.offset };
                    }
                }
                _ => panic!("unexpected: {message}"),
            }
        }
    }
}

/// The next JSON message; none where the connection ended.
fn next_json(conn: &mut RawConn) -> Option<Value> {
    loop {
        let frame = conn.read_frame()?;
        match frame.first {
            TEXT => return Some(serde_json::from_slice(&frame.payload).expect("it is JSON")),
            CLOSE => return None,
            PING | PONG => {}
            other => panic!("a frame {other:#04x}"),
        }
    }
}
