//! Compressed messages that are none, or too much: each ends its connection with the right code and disturbs nobody.

use fanfare_testing::deflate::{Packer, RSV1};
use fanfare_testing::raw::{BINARY, CLOSE, CONTINUATION, FIN, PING, PONG, RawConn, TEXT, masked};
use fanfare_testing::{Server, await_metric};

use crate::Bystanders;

const OFFER: &str = "permessage-deflate";
const TARGETS: [&str; 2] = ["/?userId=mallory", "/raw/den?echo=1"];

pub fn misplaced_marks_close_with_1002(reactors: usize) {
    let server = Server::with_reactors(reactors, &[]);
    let mut bystanders = Bystanders::of(&server);
    let hello = Packer::new(15, false).pack(b"hello");
    let compressed_start = masked(TEXT & !FIN | RSV1, &hello[..2]);
    let plain_start = masked(TEXT & !FIN, b"he");
    let marked_rest = masked(CONTINUATION | RSV1, &hello[2..]);
    let cases: [(&str, Vec<u8>); 10] = [
        ("RSV1 on a ping", masked(PING | RSV1, b"")),
        ("RSV1 on a pong", masked(PONG | RSV1, &hello)),
        ("RSV1 on a close", masked(CLOSE | RSV1, &1000_u16.to_be_bytes())),
        ("RSV1 on a continuation of nothing", marked_rest.clone()),
        ("RSV1 on a continuation of a compressed message", [&compressed_start[..], &marked_rest].concat()),
        ("RSV1 on a continuation of a plain message", [plain_start, marked_rest].concat()),
        ("RSV2", masked(TEXT | 0x20, b"hello")),
        ("RSV3", masked(BINARY | 0x10, b"hello")),
        ("RSV1 and RSV2", masked(TEXT | RSV1 | 0x20, &hello)),
        ("a new message inside a compressed one", [&compressed_start[..], &masked(TEXT | RSV1, &hello)].concat()),
    ];
    for (what, bytes) in &cases {
        for target in TARGETS {
            let (mut conn, _) = RawConn::deflating(&server, target, OFFER);
            // The server may close before it has read all of it.
            conn.try_send(bytes);
            conn.expect_close(1002, &format!("{what} on {target}"));
        }
        bystanders.are_served();
    }
    for offers in [&[][..], &["permessage-deflate; unknown"]] {
        for target in TARGETS {
            let (mut conn, answer) = RawConn::offer(&server, target, offers);
            assert_eq!(answer, None);
            conn.try_send(&masked(TEXT | RSV1, &hello));
            conn.expect_close(1002, &format!("RSV1 where {offers:?} was offered on {target}"));
        }
    }
    bystanders.are_served();
}

pub fn malformed_messages_close_with_1007(reactors: usize) {
    let server = Server::with_reactors(reactors, &[]);
    let mut bystanders = Bystanders::of(&server);
    let cases: [(&str, &[u8]); 10] = [
        ("a block of the reserved type", &[0x06]),
        ("a stored block whose lengths contradict each other", &[0x00, 0x05, 0x00, 0x05, 0x00, b'h']),
        ("a reference before the start", &[0xF2, 0x00, 0x11, 0x00, 0x00]),
        ("a code table of too many codes", &[0xFC, 0xFF, 0xFF, 0xFF]),
        ("plain text", b"hello, this is no stream"),
        ("all ones", &[0xFF; 40]),
        ("garbage behind the end of a stream", &[0xF3, 0x48, 0xCD, 0xC9, 0xC9, 0x07, 0x00, 0xFF, 0xFF]),
        ("a stored block of 100 bytes, and 5 of them", &[0x00, 0x64, 0x00, 0x9B, 0xFF, b'h', b'e', b'l', b'l', b'o']),
        ("a block cut off within a symbol", &[0xF2, 0x48, 0xCD]),
        ("a gzip header", &[0x1F, 0x8B, 0x08, 0x00, 0x00, 0x00, 0x00, 0x00]),
    ];
    for (what, payload) in cases {
        for target in TARGETS {
            for first in [TEXT, BINARY] {
                let (mut conn, _) = RawConn::deflating(&server, target, OFFER);
                conn.send_frame(first | RSV1, payload);
                conn.expect_close(1007, &format!("{what} on {target}"));

                let (mut conn, _) = RawConn::deflating(&server, target, OFFER);
                conn.send_frame(first & !FIN | RSV1, &payload[..1]);
                // The server may close before it has read all of it.
                for byte in &payload[1..] {
                    conn.try_send(&masked(CONTINUATION & !FIN, &[*byte]));
                }
                conn.try_send(&masked(CONTINUATION, b""));
                conn.expect_close(1007, &format!("{what} in single bytes on {target}"));
            }
        }
        bystanders.are_served();
    }
}

pub fn endless_streams_in_one_message_close_with_1007(reactors: usize) {
    let server = Server::with_reactors(reactors, &[]);
    let mut bystanders = Bystanders::of(&server);
    let (mut conn, agreed) = RawConn::deflating(&server, "/raw/den?echo=1", OFFER);
    conn.send_frame(BINARY | RSV1, &[&[0x03, 0x00].repeat(15)[..], &[0x00]].concat());
    assert_eq!(conn.read_message(agreed.server_bits).bytes, b"", "fifteen streams that end, and one that does not");
    conn.send_frame(BINARY | RSV1, &[0x03, 0x00].repeat(16));
    conn.expect_close(1007, "sixteen streams");

    let (mut conn, _) = RawConn::deflating(&server, "/raw/den?echo=1", OFFER);
    conn.try_send(&masked(BINARY | RSV1, &[0x03, 0x00].repeat(400_000)));
    conn.expect_close(1007, "streams without end in one frame");

    let (mut conn, _) = RawConn::deflating(&server, "/raw/den?echo=1", OFFER);
    conn.send_frame(BINARY & !FIN | RSV1, b"");
    for _ in 0..16 {
        conn.try_send(&masked(CONTINUATION & !FIN, &[0x03]));
        conn.try_send(&masked(CONTINUATION & !FIN, &[0x00]));
    }
    conn.expect_close(1007, "streams without end in fragments");
    bystanders.are_served();
}

pub fn compressed_text_must_be_utf8(reactors: usize) {
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
        for target in TARGETS {
            let (mut conn, _) = RawConn::deflating(&server, target, OFFER);
            conn.send_frame(TEXT | RSV1, &Packer::new(15, false).pack(bytes));
            conn.expect_close(1007, &format!("text {} on {target}", bytes.escape_ascii()));
        }
        // The same is fine as bytes.
        let (mut conn, agreed) = RawConn::deflating(&server, "/raw/attic?echo=1", OFFER);
        conn.send_frame(BINARY | RSV1, &Packer::new(15, false).pack(bytes));
        assert_eq!(conn.read_message(agreed.server_bits).bytes, bytes);
    }
    bystanders.are_served();
}

/// The message is never finished: the close comes at the first byte that cannot be right.
pub fn bad_utf8_in_a_compressed_fragment_closes_at_once(reactors: usize) {
    let server = Server::with_reactors(reactors, &[]);
    let mut bystanders = Bystanders::of(&server);
    for target in TARGETS {
        for (good, bad) in [
            ("good so far, ".as_bytes(), &b"\xFF"[..]),
            ("cut inside of a letter: \u{20AC}".as_bytes().split_last().map_or(&b""[..], |(_, most)| most), b"a"),
            (b"the first half of a pair: \xED", b"\xA0"),
            (b"beyond the last letter: \xF4", b"\x90"),
        ] {
            let mut conn = welcomed(&server, target);
            let mut packer = Packer::new(15, false);
            conn.send_frame(TEXT & !FIN | RSV1, &packer.part(good));
            conn.nothing_more();
            conn.send_frame(CONTINUATION & !FIN, &packer.part(bad));
            conn.expect_close(1007, &format!("{} {} on {target}", good.escape_ascii(), bad.escape_ascii()));
        }
        // The last letter is cut: known only at the end.
        let mut conn = welcomed(&server, target);
        let mut packer = Packer::new(15, false);
        conn.send_frame(TEXT & !FIN | RSV1, &packer.part(b"cut off: \xE2\x82"));
        conn.nothing_more();
        conn.send_frame(CONTINUATION, &[0]);
        conn.expect_close(1007, &format!("a cut letter on {target}"));
    }
    bystanders.are_served();
}

pub fn too_much_in_a_compressed_message_closes_with_1009(reactors: usize) {
    const LIMIT: usize = 64 * 1024;
    let server = Server::with_reactors(reactors, &["--limits.message_bytes_max", "64KiB"]);
    let mut bystanders = Bystanders::of(&server);
    for target in TARGETS {
        for bytes in [LIMIT + 1, 100 * LIMIT] {
            let payload = Packer::new(15, false).pack(&vec![b' '; bytes]);
            let (mut conn, _) = RawConn::deflating(&server, target, OFFER);
            conn.send_frame(TEXT | RSV1, &payload);
            conn.expect_close(1009, &format!("{bytes} bytes in {} on {target}", payload.len()));
        }
        // In fragments, without an end: the limit is exact.
        let mut conn = welcomed(&server, target);
        let mut packer = Packer::new(15, false);
        conn.send_frame(BINARY & !FIN | RSV1, &packer.part(&[b' '; LIMIT]));
        conn.nothing_more();
        conn.send_frame(CONTINUATION & !FIN, &packer.part(b" "));
        conn.expect_close(1009, &format!("one byte more on {target}"));
        // What is announced is too much, whatever it would hold.
        let mut header = vec![BINARY | RSV1, 0x80 | 127];
        header.extend_from_slice(&(2 * LIMIT as u64).to_be_bytes());
        header.extend_from_slice(&[0; 4]);
        let (mut conn, _) = RawConn::deflating(&server, target, OFFER);
        conn.send(&header);
        conn.expect_close(1009, &format!("a header on {target}"));
        bystanders.are_served();
    }
    // Each was decompressed to the limit and one byte, at most.
    let refused = 2 * (LIMIT as u64 + 1) + (LIMIT as u64 + 1);
    await_metric(&server, "fanfare_inflated_bytes_total", TARGETS.len() as u64 * refused);
}

/// Connects and takes the welcome, where one comes.
#[track_caller]
fn welcomed(server: &Server, target: &str) -> RawConn {
    let (mut conn, _) = RawConn::deflating(server, target, OFFER);
    if !target.starts_with("/raw/") {
        assert!(conn.read_text().contains("welcome"));
    }
    conn
}
