//! Many connections, and too many: one node's limits met for real.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use fanfare_testing::raw::{RawConn, upgrade_request};
use fanfare_testing::{Client, PATIENCE, Server, http_get};
use serde_json::{Value, json};

/// As many as fit under the descriptor limits of an ordinary machine (20,000) with some to spare.
const CROWD: usize = 15_000;

/// A connection without the buffers of a client library.
struct Lean {
    stream: TcpStream,
    received: Vec<u8>,
}

impl Lean {
    fn connect(server: &Server, user: &str) -> Lean {
        let mut stream = TcpStream::connect(server.addr()).expect("the server should accept");
        stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a timeout above zero");
        stream.write_all(upgrade_request(&format!("/?userId={user}"), &[]).as_bytes()).expect("a request is taken");
        let mut lean = Lean { stream, received: Vec::new() };
        lean.read_until(b"\"type\":\"welcome\"");
        lean.read_until(b"}");
        lean
    }

    /// Reads until `wanted` has come, and forgets everything up to its end.
    fn read_until(&mut self, wanted: &[u8]) {
        let mut buffer = [0; 1024];
        loop {
            if let Some(at) = self.received.windows(wanted.len()).position(|window| window == wanted) {
                self.received.drain(..at + wanted.len());
                return;
            }
            let read = self.stream.read(&mut buffer).expect("the server should send");
            assert!(read > 0, "the server closed the connection");
            self.received.extend_from_slice(&buffer[..read]);
        }
    }
}

fn stat(server: &Server, name: &str) -> u64 {
    let stats: Value = serde_json::from_str(&http_get(server, "/stats").body).expect("statistics are JSON");
    stats["reactors"]
        .as_array()
        .expect("an entry a reactor")
        .iter()
        .map(|reactor| reactor[name].as_u64().unwrap())
        .sum()
}

#[test]
fn fifteen_thousand_connections_all_receive_one_broadcast() {
    let server = Server::with_reactors(2, &["--limits.handshake_timeout", "60s"]);
    let mut crowd: Vec<Lean> = (0..CROWD).map(|at| Lean::connect(&server, &format!("user-{at}"))).collect();
    let mut speaker = Client::connect(&server, "speaker");
    assert_eq!(stat(&server, "connections"), CROWD as u64 + 1);
    speaker.publish(json!({"type": "broadcast", "content": "to everyone"}));
    for lean in &mut crowd {
        lean.read_until(b"{\"type\":\"broadcast\",\"from\":\"speaker\",\"content\":\"to everyone\"");
    }
    speaker.publish(json!({"type": "private_msg", "toUser": "user-14999", "content": "to one"}));
    crowd[14_999].read_until(b"\"content\":\"to one\"");
    drop(crowd);
    let deadline = Instant::now() + PATIENCE;
    while stat(&server, "connections") > 1 {
        assert!(Instant::now() < deadline, "connections are left over");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn over_the_nodes_budget_the_fullest_queue_goes_and_the_others_get_everything() {
    let server = Server::start(&[
        "--outbox.node_bytes_max",
        "4MiB",
        "--outbox.bytes_max",
        "64MiB",
        "--outbox.age_max",
        "1h",
        "--tcp.send_buffer",
        "16KiB",
    ]);
    let mut publisher = Client::connect(&server, "publisher");
    let _fuller = RawConn::connect_as(&server, "fuller");
    let mut full = Client::connect(&server, "full");
    let filler = "f".repeat(60_000);
    let mut sent = 0;
    // The slow ones read nothing; what the kernel does not hold waits in the node's queues.
    while stat(&server, "slow_consumers") == 0 {
        assert!(sent < 200, "the budget is never reached");
        for to in ["fuller", "full", "fuller"] {
            publisher.publish(json!({"type": "private_msg", "toUser": to, "content": {"n": sent, "filler": filler}}));
        }
        sent += 1;
    }
    assert!(stat(&server, "queue_bytes") <= 4 << 20);
    assert_eq!(stat(&server, "slow_consumers"), 1, "one was enough");
    for n in 0..sent {
        assert_eq!(full.recv_json()["content"]["n"], n, "the less full consumer gets everything in order");
    }
}

#[test]
fn a_queue_without_progress_ends_by_age() {
    let server =
        Server::start(&["--outbox.age_max", "300ms", "--tcp.send_buffer", "16KiB", "--outbox.bytes_max", "64MiB"]);
    let mut publisher = Client::connect(&server, "publisher");
    let mut stuck = RawConn::connect_as(&server, "stuck");
    let filler = "f".repeat(60_000);
    while stat(&server, "queue_bytes") == 0 {
        publisher.publish(json!({"type": "private_msg", "toUser": "stuck", "content": filler}));
    }
    let deadline = Instant::now() + PATIENCE;
    while stat(&server, "slow_consumers") == 0 {
        assert!(Instant::now() < deadline, "the stuck consumer stays");
        std::thread::sleep(Duration::from_millis(20));
    }
    stuck.expect_close(4008, "a consumer without progress");
}

#[test]
fn an_empty_outbox_takes_one_message_of_any_permitted_size() {
    let server = Server::start(&[
        "--outbox.bytes_max",
        "64KiB",
        "--limits.message_bytes_max",
        "8MiB",
        "--tcp.send_buffer",
        "16KiB",
    ]);
    let mut publisher = Client::connect(&server, "publisher");
    let mut reader = Client::connect(&server, "reader");
    let filler = "f".repeat(4 << 20);
    for n in 0..3 {
        publisher.publish(json!({"type": "private_msg", "toUser": "reader", "content": {"n": n, "filler": filler}}));
        let message = reader.recv_json();
        assert_eq!(
            (message["content"]["n"].as_i64(), message["content"]["filler"].as_str()),
            (Some(n), Some(&*filler))
        );
    }
}
