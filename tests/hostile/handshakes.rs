//! Request heads that never end, never fit or never make sense.

use crate::Bystanders;
use crate::common::Server;
use crate::common::raw::{RawConn, status_of, upgrade_request};

pub fn half_a_handshake_is_ended(reactors: usize) {
    let server = Server::with_reactors(reactors, &["--limits.handshake_timeout", "300ms"]);
    let mut bystanders = Bystanders::of(&server);
    let request = upgrade_request("/?userId=mallory", &[]);
    for cut in [1, 20, request.len() - 1] {
        let mut conn = RawConn::connect(&server);
        conn.send(&request.as_bytes()[..cut]);
        bystanders.are_served();
        conn.expect_end(&format!("{cut} bytes of a handshake"));
    }
    bystanders.are_served();
}

pub fn silence_before_the_handshake_is_ended(reactors: usize) {
    let server = Server::with_reactors(reactors, &["--limits.handshake_timeout", "300ms"]);
    let mut bystanders = Bystanders::of(&server);
    let mut conn = RawConn::connect(&server);
    bystanders.are_served();
    conn.expect_end("a connection without a byte");
    bystanders.are_served();
}

pub fn broken_requests_are_refused(reactors: usize) {
    let server = Server::with_reactors(reactors, &[]);
    let mut bystanders = Bystanders::of(&server);
    let good = upgrade_request("/?userId=mallory", &[]);
    let cases = [
        good.replace("Sec-WebSocket-Version: 13", "Sec-WebSocket-Version: 8"),
        good.replace("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", ""),
        good.replace("dGhlIHNhbXBsZSBub25jZQ==", "short"),
        good.replace("GET ", "POST "),
        "\0\0\0\0\r\n\r\n".to_owned(),
        "GET\r\n\r\n".to_owned(),
        format!("GET / HTTP/1.1\r\nbad header{good}"),
    ];
    for request in cases {
        let mut conn = RawConn::connect(&server);
        conn.send(request.as_bytes());
        let status = status_of(&conn.read_head());
        assert!((400..500).contains(&status), "{status} for {}", request.escape_debug());
        bystanders.are_served();
    }
}
