//! What breaks RFC 6455 closes the connection with the right code; what only breaks JSON does not.

use fanfare_testing::Server;
use fanfare_testing::raw::{BINARY, CLOSE, CONTINUATION, FIN, PING, PONG, RawConn, TEXT, masked};
use serde_json::Value;

use crate::Bystanders;

const MASKED: u8 = 0x80;

pub fn protocol_errors_close_with_1002(reactors: usize) {
    let server = Server::with_reactors(reactors, &[]);
    let mut bystanders = Bystanders::of(&server);
    let long_ping = masked(PING, &[b'p'; 126]);
    let mut cases: Vec<(String, Vec<u8>)> = vec![
        ("an unmasked text frame".into(), b"\x81\x02hi".to_vec()),
        ("an unmasked ping".into(), b"\x89\x00".to_vec()),
        ("RSV1 without an extension".into(), masked(TEXT | 0x40, b"hi")),
        ("RSV2".into(), masked(TEXT | 0x20, b"hi")),
        ("RSV3".into(), masked(BINARY | 0x10, b"hi")),
        ("RSV1 on a ping".into(), masked(PING | 0x40, b"")),
        ("a fragmented ping".into(), masked(PING & !FIN, b"p")),
        ("a fragmented pong".into(), masked(PONG & !FIN, b"p")),
        ("a fragmented close".into(), masked(CLOSE & !FIN, &1000_u16.to_be_bytes())),
        ("a ping of 126 bytes".into(), long_ping.clone()),
        ("the header alone of a ping of 126 bytes".into(), long_ping[..2].to_vec()),
        ("a 16-bit length for 125 bytes".into(), header(&[TEXT, MASKED | 126, 0, 125], 125)),
        ("a 16-bit length for no bytes".into(), header(&[TEXT, MASKED | 126, 0, 0], 0)),
        ("a 64-bit length for 65535 bytes".into(), header(&[TEXT, MASKED | 127, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF], 65_535)),
        ("a length with the top bit set".into(), header(&[TEXT, MASKED | 127, 0x80, 0, 0, 0, 0, 0, 0, 1], 1)),
        ("a close of one byte".into(), masked(CLOSE, b"\x03")),
    ];
    for opcode in [0x3, 0x4, 0x5, 0x6, 0x7, 0xB, 0xC, 0xD, 0xE, 0xF] {
        cases.push((format!("opcode {opcode:#x}"), masked(FIN | opcode, b"")));
    }
    for (what, bytes) in cases {
        for target in ["/?userId=mallory", "/raw/den"] {
            let mut conn = RawConn::upgrade(&server, target);
            // The server may close before it has read all of it.
            conn.try_send(&bytes);
            conn.expect_close(1002, &format!("{what} on {target}"));
        }
        bystanders.are_served();
    }
}

pub fn a_bad_sequence_of_fragments_closes_with_1002(reactors: usize) {
    let server = Server::with_reactors(reactors, &[]);
    let mut bystanders = Bystanders::of(&server);
    let cases: [(&str, &[u8]); 4] = [
        ("a continuation of nothing", &[CONTINUATION]),
        ("a continuation of nothing that goes on", &[CONTINUATION & !FIN]),
        ("text inside a message", &[TEXT & !FIN, TEXT]),
        ("binary inside a message", &[BINARY & !FIN, CONTINUATION & !FIN, BINARY & !FIN]),
    ];
    for (what, frames) in cases {
        let mut conn = RawConn::connect_as(&server, "mallory");
        for first in frames {
            conn.try_send(&masked(*first, b"a"));
        }
        conn.expect_close(1002, what);
        bystanders.are_served();
    }
}

pub fn bad_close_codes_close_with_1002(reactors: usize) {
    let server = Server::with_reactors(reactors, &[]);
    let mut bystanders = Bystanders::of(&server);
    for code in [0_u16, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535] {
        let mut conn = RawConn::connect_as(&server, "mallory");
        conn.send_frame(CLOSE, &code.to_be_bytes());
        conn.expect_close(1002, &format!("close code {code}"));
    }
    bystanders.are_served();
}

pub fn bad_utf8_closes_with_1007(reactors: usize) {
    let server = Server::with_reactors(reactors, &[]);
    let mut bystanders = Bystanders::of(&server);
    for bytes in [
        &b"\xFF"[..],
        b"{\"type\":\"ping\",\"id\":\"\xC3\"}",
        b"\xC0\x80",
        b"\xED\xA0\x80",
        b"\xF4\x90\x80\x80",
        b"valid until the cut \xE2\x82",
    ] {
        for target in ["/?userId=mallory", "/raw/den"] {
            let mut conn = RawConn::upgrade(&server, target);
            conn.send_frame(TEXT, bytes);
            conn.expect_close(1007, &format!("text {} on {target}", bytes.escape_ascii()));
        }
        let mut conn = RawConn::upgrade(&server, "/raw/den");
        for (at, byte) in bytes.iter().enumerate() {
            let opcode = if at == 0 { TEXT } else { CONTINUATION };
            let fin = if at == bytes.len() - 1 { FIN } else { 0 };
            // The server may close at the first byte that cannot be right.
            conn.try_send(&masked(opcode & !FIN | fin, &[*byte]));
        }
        conn.expect_close(1007, &format!("fragments {}", bytes.escape_ascii()));

        let mut conn = RawConn::connect_as(&server, "mallory");
        let mut payload = 1000_u16.to_be_bytes().to_vec();
        payload.extend_from_slice(bytes);
        conn.send_frame(CLOSE, &payload);
        conn.expect_close(1007, &format!("close reason {}", bytes.escape_ascii()));
    }
    bystanders.are_served();
}

pub fn the_size_limit_is_exact(reactors: usize) {
    let server = Server::with_reactors(reactors, &["--limits.message_bytes_max", "64KiB"]);
    let mut conn = RawConn::upgrade(&server, "/raw/den?echo=1");
    let payload = vec![0x5A; 65_536];
    conn.send_frame(BINARY, &payload);
    let frame = conn.read_frame().expect("64 KiB are within the limit");
    assert!(frame.payload == payload, "{} bytes came back", frame.payload.len());
    conn.send_frame(BINARY & !FIN, &payload[..65_000]);
    conn.send_frame(CONTINUATION, &payload[65_000..]);
    let frame = conn.read_frame().expect("so are they in fragments");
    assert!(frame.payload == payload, "{} bytes came back", frame.payload.len());
}

pub fn bad_commands_leave_the_connection_open(reactors: usize) {
    let server = Server::with_reactors(reactors, &[]);
    let mut bystanders = Bystanders::of(&server);
    let mut conn = RawConn::connect_as(&server, "mallory");
    for (text, code) in [
        ("GET / HTTP/1.1", "bad_json"),
        ("[[[[[[", "bad_json"),
        (r#"{"type":"drop table"}"#, "unknown_type"),
        (r#"{"type":"join_room"}"#, "missing_field"),
        (r#"{"type":"join_room","roomId":""}"#, "bad_room_id"),
    ] {
        for _ in 0..50 {
            conn.send_frame(TEXT, text.as_bytes());
            let reply: Value = serde_json::from_str(&conn.read_text()).expect("a reply is JSON");
            assert_eq!(reply["type"], "error", "{text}: {reply}");
            assert_eq!(reply["code"], code, "{text}: {reply}");
        }
        bystanders.are_served();
    }
    conn.send_frame(TEXT, br#"{"type":"ping"}"#);
    assert!(conn.read_text().contains(r#""type":"pong""#));
}

/// A hand-made frame header, a mask of zeros and as many payload bytes.
fn header(header: &[u8], payload_bytes: usize) -> Vec<u8> {
    let mut frame = header.to_vec();
    frame.extend_from_slice(&[0; 4]);
    frame.extend(std::iter::repeat_n(b'a', payload_bytes));
    frame
}
