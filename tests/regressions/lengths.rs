//! Frames whose announced length is a lie, an overflow or too much.

use std::time::Instant;

use fanfare_testing::raw::{BINARY, CONTINUATION, FIN, RawConn, TEXT, masked};
use fanfare_testing::{Client, PATIENCE, Server, metric};

use crate::counting::{cost_of, peak_bytes};
use crate::parts::{Inbound, MESSAGE_BYTES_MAX, header_of_64_bits};

/// Blocks and bytes for a frame that is received in pieces: its state, once, and its first bytes.
const STATE_BYTES_MAX: u64 = 512;

/// NATS before 2.11.14 and 2.12.5 took the eight bytes of a length for a signed number: one frame with the top bit set,
/// sent before logging in, became a negative length and ended the server for everybody (CVE-2026-27889); swift-nio
/// trapped on the same bit (CVE-2026-43678). Here such a length is a protocol error (1002) seen in the header, and so
/// is one that a shorter form could have held (RFC 6455 §5.2); neither allocates anything.
#[test]
fn cve_2026_27889_a_length_with_the_top_bit_set_is_refused_from_the_header() {
    let top_bit = [1 << 63, 1 << 63 | 1, u64::MAX - 1, u64::MAX];
    let not_minimal = [0, 1, 125, 126, 65_535];
    for length in top_bit.into_iter().chain(not_minimal) {
        let (mut inbound, mut header) = (Inbound::default(), header_of_64_bits(BINARY, length));
        let (cost, answer) = cost_of(|| inbound.take(&mut header, 64));
        assert_eq!(answer, Err(1002), "length {length:#x}");
        assert_eq!(cost.allocations, 0, "length {length:#x}: {cost:?}");
    }
    // As it was done: the clamp to what is there lets a negative length through.
    let (length, received) = (u64::MAX as i64, 100);
    assert!(length.min(received) < 0, "the faulty way counts backwards");
}

/// undici before 7.24.0 took a length of 64 bits into arithmetic of its parser that could not hold it: one frame ended
/// the process (CVE-2026-1528). Here a length is compared with what a message may have before anything is done with it:
/// 1009 from the header alone, and nothing is allocated for what was only announced.
#[test]
fn cve_2026_1528_a_length_over_the_limit_is_refused_before_allocating() {
    for length in [MESSAGE_BYTES_MAX as u64 + 1, u64::from(u32::MAX), 1 << 53, 1 << 62, u64::MAX >> 1] {
        // Byte by byte the header has to be held somewhere.
        for (piece_bytes, allocations_max) in [(64, 0), (1, 1)] {
            let (mut inbound, mut header) = (Inbound::default(), header_of_64_bits(BINARY, length));
            let (cost, answer) = cost_of(|| inbound.take(&mut header, piece_bytes));
            assert_eq!(answer, Err(1009), "length {length:#x} in pieces of {piece_bytes}");
            assert!(cost.allocations <= allocations_max && cost.peak_bytes <= STATE_BYTES_MAX, "{length:#x}: {cost:?}");
        }
    }
    // Within the limit, too, memory follows what arrives.
    let mut frame = masked(BINARY, &vec![0; MESSAGE_BYTES_MAX]);
    let mut inbound = Inbound::default();
    let (cost, events) = cost_of(|| inbound.take(&mut frame[..100], 100));
    assert_eq!(events, Ok(0));
    assert!(cost.peak_bytes <= STATE_BYTES_MAX && inbound.held_bytes() <= 256, "{cost:?}");

    // As it is often done: room for what was announced, at once.
    let (cost, _) = cost_of(|| Vec::<u8>::with_capacity(MESSAGE_BYTES_MAX));
    assert!(cost.peak_bytes > 1_000 * STATE_BYTES_MAX, "the faulty way breaks the bound: {cost:?}");
}

/// gorilla/websocket before 1.4.1 added the lengths of a message's frames up in a signed number and compared the sum
/// with the limit: a second frame long enough made the sum negative, and the limit was gone (CVE-2020-27813). Here
/// nothing is added: a frame may have what the limit leaves over.
#[test]
fn cve_2020_27813_the_sum_of_fragments_does_not_overflow() {
    for length in [MESSAGE_BYTES_MAX as u64, u64::MAX >> 1, (u64::MAX >> 1) - 1] {
        for first in [CONTINUATION, CONTINUATION & !FIN] {
            let mut inbound = Inbound::default();
            assert_eq!(inbound.take(&mut masked(BINARY & !FIN, b"two"), 64), Ok(0));
            let mut header = header_of_64_bits(first, length);
            let (cost, answer) = cost_of(|| inbound.take(&mut header, 64));
            assert_eq!(answer, Err(1009), "length {length:#x}");
            assert_eq!(cost.allocations, 0, "length {length:#x}: {cost:?}");
            assert!(inbound.held_bytes() <= 64, "{} bytes held", inbound.held_bytes());
        }
    }
    // As it was done.
    let sum = 3_i64.wrapping_add(i64::MAX);
    assert!(sum < MESSAGE_BYTES_MAX as i64, "the faulty way finds {sum} to be within the limit");
}

/// All three against the built binary: the header is enough for the answer, and nobody else notices.
#[test]
fn too_big_closes_with_1009_from_the_header_alone() {
    for reactors in [1, 2] {
        let server = Server::with_reactors(reactors, &["--limits.message_bytes_max", "64KiB"]);
        let mut bystander = Client::connect(&server, "bystander");
        let cases =
            [(65_537, 1009), (1 << 53, 1009), (u64::MAX >> 1, 1009), (1 << 63, 1002), (u64::MAX, 1002), (1, 1002)];
        for (length, code) in cases {
            let mut conn = RawConn::connect_as(&server, "mallory");
            conn.send(&header_of_64_bits(BINARY, length));
            conn.expect_close(code, &format!("a length of {length:#x}"));
            bystander.barrier();
        }
        // Fragments count together: the second header says that it will be too much.
        for length in [537, u64::MAX >> 1] {
            let mut conn = RawConn::connect_as(&server, "mallory");
            conn.send_frame(TEXT & !FIN, &vec![b'a'; 65_000]);
            match u16::try_from(length) {
                Ok(short) => {
                    conn.send(&[&[CONTINUATION, 0x80 | 126], &short.to_be_bytes()[..], &[1, 2, 3, 4]].concat())
                }
                Err(_) => conn.send(&header_of_64_bits(CONTINUATION, length)),
            }
            conn.expect_close(1009, &format!("65,000 bytes and {length:#x}"));
            bystander.barrier();
        }
    }
}

/// What 200 connections announce, 200 MiB, is within the limits of each. The server holds what they sent.
#[test]
fn announced_lengths_hold_no_memory() {
    const CONNECTIONS: u64 = 200;
    let server = Server::start(&[]);
    let announcement = masked(BINARY, &vec![0; MESSAGE_BYTES_MAX]);
    let mut bystander = Client::connect(&server, "bystander");
    let before = peak_bytes(&server);
    let liars: Vec<RawConn> = (0..CONNECTIONS)
        .map(|_| {
            let mut conn = RawConn::upgrade(&server, "/raw/den");
            conn.send(&announcement[..100]);
            conn
        })
        .collect();
    let arrived = CONNECTIONS * (100 - 14);
    let deadline = Instant::now() + PATIENCE;
    while metric(&server, "fanfare_queue_bytes") < arrived {
        assert!(Instant::now() < deadline, "what arrived is held");
    }
    let held = metric(&server, "fanfare_queue_bytes");
    assert!(held <= 2 * arrived, "{held} bytes held of {arrived} that arrived");
    let grown = peak_bytes(&server).saturating_sub(before);
    assert!(grown <= CONNECTIONS * 16 * 1024, "{grown} bytes for {CONNECTIONS} connections");
    bystander.barrier();
    drop(liars);
}
