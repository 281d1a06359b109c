//! The way out: what is told first, how fast, and what is finished before.

use std::collections::BTreeSet;

use fanfare_testing::raw::RawConn;
use fanfare_testing::{Client, Server, Signal, eventually, http_get};
use serde_json::{Value, json};

fn retry_ms(client: &mut Client) -> u64 {
    let (code, reason) = client.close_frame();
    assert_eq!(code, 1001, "{reason}");
    let reason: Value = serde_json::from_str(&reason).expect("the reason is JSON");
    reason["retry_ms"].as_u64().expect("a number")
}

#[test]
fn balancers_hear_of_it_first_and_nobody_else_until_the_delay_is_over() {
    let mut server = Server::with_reactors(2, &["--drain.delay", "1h"]);
    let mut before = Client::connect(&server, "before");
    server.signal(Signal::TERM);
    eventually("it is not ready", || http_get(&server, "/health/ready").status == 503);
    assert_eq!(http_get(&server, "/health/live").status, 200);
    let mut after = Client::connect(&server, "after");
    after.publish(json!({"type": "private_msg", "toUser": "before", "content": 1}));
    assert_eq!(before.recv_json()["content"], 1, "it serves as before");
    server.signal(Signal::TERM);
    assert_eq!(server.wait_exit().code(), Some(0));
    assert!(server.log().contains("leaving at once"), "{}", server.log());
}

#[test]
fn the_drain_begins_behind_the_delay() {
    let mut server = Server::start(&["--drain.delay", "100ms"]);
    let mut client = Client::connect(&server, "alice");
    server.signal(Signal::TERM);
    retry_ms(&mut client);
    drop(client);
    assert_eq!(server.wait_exit().code(), Some(0));
    assert!(server.log().contains("drained"), "{}", server.log());
}

/// Who presses ^C has no balancer.
#[test]
fn an_interrupt_does_not_wait() {
    let mut server = Server::start(&["--drain.delay", "1h"]);
    let mut client = Client::connect(&server, "alice");
    server.signal(Signal::INT);
    retry_ms(&mut client);
    drop(client);
    assert_eq!(server.wait_exit().code(), Some(0));
}

/// A thousand clients that come back within the second in which ten do would be a storm.
#[test]
fn hints_differ_and_grow_with_the_number_of_clients() {
    let mut widest = Vec::new();
    for clients in [10, 1_000] {
        let mut server = Server::with_reactors(2, &["--drain.timeout", "1h"]);
        let mut clients: Vec<Client> = (0..clients).map(|at| Client::connect(&server, &format!("user-{at}"))).collect();
        server.signal(Signal::TERM);
        let hints: BTreeSet<u64> = clients.iter_mut().map(retry_ms).collect();
        let count = clients.len();
        let bound = 1_000 + count as u64 / 5;
        assert!(hints.iter().all(|ms| *ms < bound), "below {bound}: {hints:?}");
        assert!(hints.len() > count / 4, "{} hints for {count} clients", hints.len());
        widest.push(hints.last().copied().expect("a hint"));
        drop(clients);
        assert_eq!(server.wait_exit().code(), Some(0));
    }
    // Of a thousand the largest is above what ten may be told, but for one case in e^160.
    assert!(widest[1] > 1_002, "{widest:?}");
}

/// What a client asked for before the drain began comes whole, however slowly it reads: then it is told to go.
#[test]
fn a_history_that_is_on_its_way_is_finished() {
    const MESSAGES: u64 = 400;
    let settings = ["--room", "match=kept,history.size=1000,history.ttl=1h", "--drain.timeout", "1h"];
    let mut server = Server::with_reactors(2, &settings);
    let mut publisher = Client::connect(&server, "publisher");
    // More than the sockets between hold.
    let content = "x".repeat(64 * 1024);
    let mut epoch = Value::Null;
    publisher.join("kept");
    for _ in 0..MESSAGES {
        epoch = publisher.publish(json!({"type": "room_msg", "roomId": "kept", "content": content}))["epoch"].clone();
    }
    let mut slow = Client::connect(&server, "slow");
    let since = json!({"type": "join_room", "roomId": "kept", "id": 1, "since": {"epoch": epoch, "offset": 0}});
    slow.send(&since);
    assert_eq!(slow.expect(|message| message["type"] == "room_msg")["offset"], 1);
    let mut bystander = RawConn::connect_as(&server, "bystander");
    server.signal(Signal::TERM);
    bystander.expect_close(1001, "who waits for nothing is told at once");
    for offset in 2..=MESSAGES {
        assert_eq!(slow.expect(|message| message["type"] == "room_msg")["offset"], offset);
    }
    let joined = slow.expect_type("joined");
    assert_eq!((&joined["recovered"], &joined["offset"]), (&json!(true), &json!(MESSAGES)));
    retry_ms(&mut slow);
    drop((slow, publisher, bystander));
    assert_eq!(server.wait_exit().code(), Some(0));
    assert!(server.log().contains("drained"), "{}", server.log());
}
