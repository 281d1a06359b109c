//! The process: where it listens, what it refuses, how it goes.

use std::net::{Shutdown, TcpListener};
use std::os::unix::net::UnixStream;

use fanfare_testing::raw::{RawConn, TEXT};
use fanfare_testing::{Client, Server, Signal, refused_start, remove_socket, socket_path};
use serde_json::{Value, json};

pub fn sigterm_closes_with_1001(reactors: usize) {
    let mut server = Server::with_reactors(reactors, &["--drain.timeout", "5s"]);
    let mut clients: Vec<Client> = (0..20).map(|at| Client::connect(&server, &format!("user-{at}"))).collect();
    clients.push(Client::open(&server, "/raw/den"));
    for client in &mut clients[..20] {
        client.join("den");
    }
    server.signal(Signal::TERM);
    for client in &mut clients {
        let (code, reason) = client.close_frame();
        assert_eq!(code, 1001, "{reason}");
        let reason: Value =
            serde_json::from_str(&reason).unwrap_or_else(|error| panic!("{error} in reason {reason:?}"));
        assert!(reason["retry_ms"].as_u64().is_some(), "{reason}");
    }
    drop(clients);
    assert_eq!(server.wait_exit().code(), Some(0));
}

pub fn a_second_signal_leaves_at_once(reactors: usize) {
    let mut server = Server::with_reactors(reactors, &["--drain.timeout", "1h"]);
    let mut silent = RawConn::connect_as(&server, "silent");
    server.signal(Signal::INT);
    // It is told, and does not answer: the drain waits for it.
    silent.read_frame().expect("a close frame");
    assert!(server.is_running());
    server.signal(Signal::TERM);
    assert_eq!(server.wait_exit().code(), Some(0));
    assert!(server.log().contains("leaving at once"), "{}", server.log());
}

pub fn a_drain_ends_with_its_timeout(reactors: usize) {
    let mut server = Server::with_reactors(reactors, &["--drain.timeout", "300ms"]);
    let _silent = RawConn::connect_as(&server, "silent");
    server.signal(Signal::TERM);
    assert_eq!(server.wait_exit().code(), Some(0));
    assert!(server.log().contains("drain.timeout is over"), "{}", server.log());
}

/// A client that has sent nothing, or half a request, has nothing to be told.
pub fn a_drain_does_not_wait_for_half_a_handshake(reactors: usize) {
    let mut server = Server::with_reactors(reactors, &["--limits.handshake_timeout", "5m", "--drain.timeout", "1h"]);
    let _idle = RawConn::connect(&server);
    let mut half = RawConn::connect(&server);
    half.send(b"GET /?userId=half HTTP/1.1\r\n");
    Client::connect(&server, "alice").barrier();
    server.signal(Signal::TERM);
    assert_eq!(server.wait_exit().code(), Some(0));
    assert!(server.log().contains("drained"), "{}", server.log());
}

/// The kernel tells of bytes and of the end behind them in one event.
pub fn an_end_right_behind_a_message_is_seen(reactors: usize) {
    let server = Server::with_reactors(reactors, &[]);
    let mut watcher = Client::connect(&server, "watcher");
    watcher.join("den");
    for at in 0..50 {
        let user = format!("hasty-{at}");
        let mut hasty = RawConn::connect_as(&server, &user);
        hasty.send_frame(TEXT, br#"{"type":"join_room","roomId":"den"}"#);
        watcher.expect(|json| json["userId"] == user && json["event"] == "join");
        let writer = hasty.writer();
        hasty.send_frame(TEXT, br#"{"type":"room_msg","roomId":"den","content":"bye"}"#);
        writer.shutdown(Shutdown::Write).expect("an open connection");
        watcher.expect(|json| json["type"] == "room_msg");
        watcher.expect(|json| json["userId"] == user && json["event"] == "leave");
    }
}

pub fn ipv6_is_served(reactors: usize) {
    if TcpListener::bind("[::1]:0").is_err() {
        eprintln!("this machine has no IPv6 loopback: nothing to test");
        return;
    }
    let server = Server::with_reactors(reactors, &["--listen", "[::1]:0"]);
    let listener = &server.listeners()[0];
    assert!(listener.starts_with("http://[::1]:"), "{listener}");
    assert_eq!(Client::connect(&server, "alice").user_id(), "alice");
}

pub fn a_unix_socket_is_served(reactors: usize) {
    let path = socket_path();
    let listen = format!("unix:{}", path.display());
    let server = Server::with_reactors(reactors, &["--listen", &listen]);
    assert_eq!(server.listeners(), [listen.as_str()]);
    let connect = |user: &str| {
        let stream = UnixStream::connect(&path).expect("the server should accept");
        let url = format!("ws://localhost/?userId={user}");
        let mut client =
            Client::over(Box::new(stream), &url).unwrap_or_else(|rejection| panic!("{url}: {rejection:?}"));
        client.take_welcome();
        client
    };
    let mut clients: Vec<Client> = (0..4).map(|_| connect("alice")).collect();
    clients[0].publish(json!({"type": "private_msg", "toUser": "alice", "content": 1}));
    for client in &mut clients {
        assert_eq!(client.recv_type("private_msg")["from"], "alice");
    }
    drop(server);
    // A socket file left by a killed server is no obstacle to the next one.
    let server = Server::with_reactors(reactors, &["--listen", &listen]);
    connect("bob").barrier();
    drop(server);
    remove_socket(&path);
}

pub fn a_port_in_use_is_one_line() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let addr = taken.local_addr().expect("a bound socket").to_string();
    let refusal = refused_start(&["--listen", &addr]);
    assert_eq!(refusal.code, Some(2), "{}", refusal.stderr);
    assert_eq!(refusal.stderr.trim_end().lines().count(), 1, "{refusal:?}");
    assert!(refusal.stderr.contains(&addr), "{refusal:?}");
}

/// `SO_REUSEPORT` lets reactors share a port; a second server must not share it unasked.
pub fn a_port_of_another_fanfare_is_in_use() {
    let mut server = Server::start(&[]);
    let addr = server.addr().to_string();
    let refusal = refused_start(&["--listen", &addr]);
    assert_eq!(refusal.code, Some(2), "{}", refusal.stderr);
    assert!(refusal.stderr.contains(&addr), "{refusal:?}");
    assert!(server.is_running());
    Client::connect(&server, "alice").barrier();
}

pub fn other_than_loopback_needs_open() {
    for listen in ["0.0.0.0:0", "[::]:0"] {
        let refusal = refused_start(&["--listen", listen]);
        assert_eq!(refusal.code, Some(2), "{listen}: {}", refusal.stderr);
        assert!(refusal.stderr.contains("--open"), "{refusal:?}");
    }
}
