//! Too much of what is allowed: joins, messages for one who never reads, connections that stay half open.

use std::io::Write;
use std::sync::mpsc::{Receiver, Sender, channel};

use fanfare_testing::raw::{CLOSE, RawConn, TEXT, masked, upgrade_request};
use fanfare_testing::{Client, Server};
use serde_json::{Value, json};

use crate::Bystanders;

pub fn ten_thousand_joins(reactors: usize) {
    const JOINS: usize = 10_000;
    const ROOMS_MAX: usize = 128;
    let server = Server::with_reactors(reactors, &["--limits.rooms_max", "128", "--rooms.notice_members_max", "0"]);
    let mut bystanders = bystanders_without_notices(&server);
    let mut conn = RawConn::connect_as(&server, "mallory");
    let mut writer = conn.writer();
    let flood = std::thread::spawn(move || {
        for at in 0..JOINS {
            let join = json!({"type": "join_room", "roomId": format!("room-{at}"), "id": at});
            writer.write_all(&masked(TEXT, join.to_string().as_bytes())).expect("the server should read on");
        }
    });
    let (mut joined, mut refused) = (0, 0);
    for at in 0..JOINS {
        let reply: Value = serde_json::from_str(&conn.read_text()).expect("a reply is JSON");
        match reply["type"].as_str() {
            Some("joined") => joined += 1,
            Some("error") => {
                assert_eq!(reply["code"], "too_many_rooms", "{reply}");
                refused += 1;
            }
            _ => panic!("neither joined nor refused: {reply}"),
        }
        if at % 1_000 == 0 {
            bystanders.are_served();
        }
    }
    flood.join().expect("the flood should be read to its end");
    assert_eq!((joined, refused), (ROOMS_MAX, JOINS - ROOMS_MAX));
    bystanders.are_served();
}

pub fn a_slow_consumer_delays_nobody(reactors: usize) {
    /// Enough for any pair of socket buffers and the outbox: 128 MiB.
    const BATCHES_MAX: usize = 2_000;
    const BATCH: usize = 16;
    const READERS: usize = 3;
    let server = Server::with_reactors(reactors, &["--outbox.bytes_max", "256KiB"]);
    let mut watcher = Client::connect(&server, "watcher");
    watcher.join("den");
    let mut slow = RawConn::connect_as(&server, "slow");
    slow.send_frame(TEXT, br#"{"type":"join_room","roomId":"den"}"#);
    watcher.expect(|json| json["userId"] == "slow");

    let (done, done_batches) = channel();
    let readers: Vec<_> = (0..READERS)
        .map(|at| {
            let mut client = Client::connect(&server, &format!("reader-{at}"));
            client.join("den");
            let done = done.clone();
            let (stop, stopped) = channel();
            let thread = std::thread::spawn(move || read_batches(client, BATCH, &done, &stopped));
            (thread, stop)
        })
        .collect();
    let mut publisher = Client::connect(&server, "publisher");
    let filler = "f".repeat(4_000);
    let mut batches = 0;
    let mut slow_left = false;
    while !slow_left {
        assert!(batches < BATCHES_MAX, "the slow consumer is still there");
        for at in 0..BATCH {
            publisher.send(
                &json!({"type": "room_msg", "roomId": "den", "content": {"n": batches * BATCH + at, "filler": filler}}),
            );
        }
        batches += 1;
        // Each reader has the whole batch before the next one: only the slow one can fall behind.
        for _ in 0..READERS {
            done_batches.recv().expect("every reader receives every message");
        }
        let mut in_batch = 0;
        while in_batch < BATCH {
            let message = watcher.recv_json();
            match message["type"].as_str() {
                Some("room_msg") => in_batch += 1,
                _ => slow_left |= message["userId"] == "slow" && message["event"] == "leave",
            }
        }
    }
    for (thread, stop) in readers {
        stop.send(batches * BATCH).expect("the reader still reads");
        thread.join().expect("every message once and in order");
    }
    slow.expect_end("a slow consumer");
}

/// Its queue is dropped, but what it reads is whole frames up to the close frame, the handshake's answer included.
pub fn a_slow_consumer_is_never_cut_inside_a_frame(reactors: usize) {
    let settings = ["--outbox.bytes_max", "1KiB", "--tcp.send_buffer", "1KiB"];
    let server = Server::with_reactors(reactors, &settings);
    // Together below 64 KiB: what comes before the handshake is answered is held, but not more of it.
    for pings in [1, 10, 60, 80] {
        let mut slow = RawConn::connect(&server);
        let mut request = upgrade_request("/?userId=slow", &[]).into_bytes();
        for at in 0..pings {
            let ping = json!({"type": "ping", "id": format!("{at}-{}", "x".repeat(700))});
            request.extend_from_slice(&masked(TEXT, ping.to_string().as_bytes()));
        }
        slow.send(&request);
        assert!(slow.read_head().starts_with("HTTP/1.1 101"));
        let mut answered = 0;
        let end = loop {
            let Some(frame) = slow.read_frame() else { break "the end" };
            match frame.first {
                text if text == TEXT => {
                    serde_json::from_slice::<Value>(&frame.payload).expect("every text frame is whole JSON");
                    answered += 1;
                }
                close if close == CLOSE => break "a close frame",
                other => panic!("a frame that begins with {other:#x}"),
            }
            if answered == pings + 1 {
                break "all";
            }
        };
        assert!(answered == pings + 1 || end == "a close frame", "{answered} of {pings}, then {end}");
    }
}

pub fn many_half_open_connections(reactors: usize) {
    let server = Server::with_reactors(reactors, &["--limits.handshake_timeout", "60s"]);
    let mut bystanders = Bystanders::of(&server);
    let request = upgrade_request("/?userId=mallory", &[]);
    let mut half_open: Vec<RawConn> = (0..500)
        .map(|_| {
            let mut conn = RawConn::connect(&server);
            conn.send(&request.as_bytes()[..40]);
            conn
        })
        .collect();
    bystanders.are_served();
    let mut last = half_open.pop().expect("five hundred of them");
    last.send(&request.as_bytes()[40..]);
    assert!(last.read_head().starts_with("HTTP/1.1 101"), "each may still complete");
    drop(half_open);
    bystanders.are_served();
}

fn bystanders_without_notices(server: &Server) -> Bystanders {
    let speaker = Client::connect(server, "speaker");
    let mut listener = Client::connect(server, "listener");
    listener.join("bystanders");
    Bystanders { speaker, listener, count: 0 }
}

/// Counts messages, tells of every full batch, and ends at the total that `total` names.
fn read_batches(mut client: Client, batch: usize, done: &Sender<()>, total: &Receiver<usize>) {
    let mut count = 0;
    loop {
        if total.try_recv().is_ok_and(|total| total == count) {
            client.nothing_for(20);
            return;
        }
        let Some(message) = client.try_recv(std::time::Duration::from_millis(50)) else {
            continue;
        };
        let message: Value = serde_json::from_str(message.to_text().expect("text")).expect("a message is JSON");
        if message["type"] != "room_msg" {
            continue;
        }
        assert_eq!(message["content"]["n"], count, "every message once and in order");
        count += 1;
        if count % batch == 0 {
            done.send(()).expect("the test waits for this");
        }
    }
}
