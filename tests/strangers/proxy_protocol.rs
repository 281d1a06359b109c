//! Proxies that say in front of a connection whose it is.

use std::net::SocketAddr;
use std::time::Duration;

use fanfare_testing::raw::{RawConn, status_of, upgrade_request};
use fanfare_testing::{Server, http_get};

use crate::{ALICE, BOB, ask, await_refused};

/// A server with a plain listener, and one for proxies on another address.
pub struct Behind {
    pub server: Server,
    pub proxied: SocketAddr,
}

impl Behind {
    pub fn start(reactors: usize, settings: &[&str]) -> Behind {
        let listen = ["--listen", "127.0.0.1:0", "--listen", "127.0.0.4:0"];
        let entry = ["--listener", "address=127.0.0.4:0,proxy_protocol=true", "--address.exempt", ""];
        let server = Server::with_reactors(reactors, &[&listen[..], &entry, settings].concat());
        let listener = server.listeners()[1].trim_start_matches("http://").trim_end_matches('/');
        let proxied = listener.parse().unwrap_or_else(|error| panic!("`{listener}` is no address: {error}"));
        Behind { server, proxied }
    }
}

/// A header of version 1 that names this client.
fn text(client: &str) -> Vec<u8> {
    format!("PROXY TCP4 {client} 10.0.0.1 4711 80\r\n").into_bytes()
}

/// A header of version 2 that names this client, with an extension behind it.
fn binary(client: [u8; 4]) -> Vec<u8> {
    let told = [&client[..], &[10, 0, 0, 1], &[0x12, 0x67, 0, 80], &[0x04, 0, 2, 1, 2]].concat();
    [&b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0"[..], &[told.len() as u8], &told].concat()
}

pub fn a_header_names_the_client(reactors: usize) {
    let Behind { server, proxied } = Behind::start(reactors, &["--address.connections_max", "2"]);
    let mut open = Vec::new();
    for (header, expected) in [
        (text("192.0.2.7"), 101),
        (binary([192, 0, 2, 7]), 101),
        (text("192.0.2.7"), 429),
        (binary([192, 0, 2, 7]), 429),
        (binary([192, 0, 2, 8]), 101),
        // The proxy itself, of which no more is known than from where it connects.
        (b"PROXY UNKNOWN\r\n".to_vec(), 101),
        (b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0".to_vec(), 101),
        (b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0".to_vec(), 429),
    ] {
        let (status, conn) = ask(ALICE, proxied, &header, &[]);
        assert_eq!(status, expected, "{}", header.escape_ascii());
        open.push(conn);
    }
    await_refused(&server, "address_connections", 3);
}

pub fn a_header_may_come_in_pieces_and_with_everything_behind_it(reactors: usize) {
    let Behind { server: _server, proxied } = Behind::start(reactors, &[]);
    for header in [text("192.0.2.7"), binary([192, 0, 2, 7])] {
        let all = [&header, upgrade_request("/raw/den?echo=1", &[]).as_bytes()].concat();
        let mut whole = RawConn::connect_from(ALICE, proxied);
        whole.send(&all);
        assert_eq!(status_of(&whole.read_head()), 101);
        let mut pieces = RawConn::connect_from(ALICE, proxied);
        for byte in all {
            pieces.send(&[byte]);
            std::thread::sleep(Duration::from_micros(200));
        }
        assert_eq!(status_of(&pieces.read_head()), 101);
    }
    // Plain HTTP goes the same way.
    let mut conn = RawConn::connect_from(ALICE, proxied);
    conn.send(&[&text("192.0.2.7")[..], b"GET /health/live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"].concat());
    assert_eq!(status_of(&conn.read_head()), 200);
}

pub fn what_is_no_header_ends_the_connection(reactors: usize) {
    let Behind { server, proxied } = Behind::start(reactors, &["--limits.handshake_timeout", "5m"]);
    let cases: [&[u8]; 6] = [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"PROXY TCP4 192.0.2.7 10.0.0.1 4711\r\n",
        b"PROXY TCP6 192.0.2.7 10.0.0.1 4711 80\r\n",
        b"\r\n\r\n\0\r\nQUIT\n\x11",
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xFF\xFF",
        &[b'x'; 4_000],
    ];
    for bytes in cases {
        let mut conn = RawConn::connect_from(ALICE, proxied);
        conn.send(bytes);
        assert_eq!(conn.read_until_it_breaks(), 0, "{}", bytes[..16].escape_ascii());
    }
    await_refused(&server, "no_proxy_header", cases.len() as u64);
    // Whoever says half a header and goes is no more than gone.
    let mut conn = RawConn::connect_from(ALICE, proxied);
    conn.send(b"PROXY TCP4 192.0");
    drop(conn);
    assert_eq!(ask(ALICE, proxied, &text("192.0.2.7"), &[]).0, 101);

    let Behind { server: _server, proxied } = Behind::start(reactors, &["--limits.handshake_timeout", "300ms"]);
    for half in [&b""[..], b"PROXY TCP4 192.0"] {
        let mut conn = RawConn::connect_from(ALICE, proxied);
        conn.send(half);
        conn.expect_end("half a header");
    }
}

pub fn only_trusted_proxies_may_connect_where_some_are(reactors: usize) {
    let Behind { server, proxied } = Behind::start(reactors, &["--proxy.trusted", "127.0.0.2/32"]);
    assert_eq!(ask(ALICE, proxied, &text("192.0.2.7"), &[]).0, 101);
    for _ in 0..3 {
        let mut conn = RawConn::connect_from(BOB, proxied);
        conn.try_send(&text("192.0.2.7"));
        assert_eq!(conn.read_until_it_breaks(), 0);
    }
    await_refused(&server, "untrusted_proxy", 3);
    assert_eq!(ask(BOB, server.addr(), b"", &[]).0, 101, "the other listener is for all");
}

pub fn proxies_may_stand_in_front_of_each_other(reactors: usize) {
    let settings = ["--address.connections_max", "1", "--proxy.trusted", "127.0.0.2,10.0.0.0/8"];
    let Behind { server: _server, proxied } = Behind::start(reactors, &settings);
    // 127.0.0.2 speaks for 10.0.0.9, which is trusted as well and says whose request it is.
    let named = |client| ask(ALICE, proxied, &text("10.0.0.9"), &[("X-Forwarded-For", client)]);
    let (status, _open) = named("192.0.2.7");
    assert_eq!((status, named("192.0.2.7").0, named("192.0.2.8").0), (101, 429, 101));
    // A client that is no proxy may say what it likes.
    let forged = |client| ask(ALICE, proxied, &text("192.0.2.9"), &[("X-Forwarded-For", client)]);
    let (status, _open) = forged("192.0.2.10");
    assert_eq!((status, forged("192.0.2.11").0), (101, 429));
}

/// A proxy that speaks of connections passes on what stands in requests as it came.
pub fn what_an_unnamed_client_says_of_itself_is_not_heard(reactors: usize) {
    let settings = ["--address.connections_max", "1", "--proxy.trusted", "127.0.0.2"];
    let Behind { server: _server, proxied } = Behind::start(reactors, &settings);
    let unix = [&b"\r\n\r\n\0\r\nQUIT\n\x21\x31\0\xD8"[..], &[0; 216]].concat();
    let unnamed =
        [&b"PROXY UNKNOWN\r\n"[..], b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0", b"\r\n\r\n\0\r\nQUIT\n\x21\0\0\0", &unix];
    let mut open = Vec::new();
    for (at, header) in unnamed.into_iter().enumerate() {
        let client = format!("192.0.2.{at}");
        let (status, conn) = ask(ALICE, proxied, header, &[("X-Forwarded-For", &client)]);
        // All of them are the proxy.
        assert_eq!(status, if at == 0 { 101 } else { 429 }, "{}", header.escape_ascii());
        open.push(conn);
    }
}

pub fn other_listeners_want_no_header(reactors: usize) {
    let Behind { server, .. } = Behind::start(reactors, &[]);
    assert_eq!(ask(ALICE, server.addr(), b"", &[]).0, 101);
    assert_eq!(ask(ALICE, server.addr(), &text("192.0.2.7"), &[]).0, 400);
    assert_eq!(http_get(&server, "/health/live").status, 200);
}
