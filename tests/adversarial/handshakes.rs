//! Request heads that never end, never fit or never make sense.

use fanfare_testing::Server;
use fanfare_testing::raw::{RawConn, header_of, status_of, upgrade_request};

use crate::Bystanders;

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

/// Whoever speaks something else, or ends lines otherwise, waits for an answer and sends no more: it comes with the byte
/// that shows it, not when the time for the handshake is over.
pub fn what_is_no_head_is_refused_at_once(reactors: usize) {
    let server = Server::with_reactors(reactors, &["--limits.handshake_timeout", "5m"]);
    let mut bystanders = Bystanders::of(&server);
    let bare = upgrade_request("/?userId=mallory", &[]).replace("\r\n", "\n");
    let cases: [(&[u8], &str); 5] = [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "does not speak TLS"),
        (b"\x81\x85\x37\xfa\x21\x3d", "is not HTTP"),
        (b"\x05\x01\x00", "is not HTTP"),
        (bare.as_bytes(), "bare line feed"),
        (b"GET / HTTP/1.1\nHost: x\n\n", "bare line feed"),
    ];
    for (bytes, sentence) in cases {
        let mut conn = RawConn::connect(&server);
        conn.send(bytes);
        let head = conn.read_head();
        assert_eq!(status_of(&head), 400, "{}", bytes.escape_ascii());
        assert_eq!(header_of(&head, "Connection"), Some("close"));
        let body = conn.read_to_end("what it was refused for");
        assert!(String::from_utf8_lossy(&body).contains(sentence), "{}", body.escape_ascii());
        bystanders.are_served();
    }
}
