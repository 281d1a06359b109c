//! Messages that hold more than they weigh, and windows that are not what was agreed on.

use std::thread;
use std::time::{Duration, Instant};

use fanfare_testing::deflate::{Packer, RSV1, try_unpack, unpack};
use fanfare_testing::raw::{BINARY, FIN, RawConn, TEXT, header_of, masked, status_of, upgrade_request};
use fanfare_testing::{PATIENCE, Server, metric};
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress};

use crate::counting::peak_bytes;

const OFFER: &str = "permessage-deflate";
const EXTENSIONS: &str = "Sec-WebSocket-Extensions";
const MIB: usize = 1 << 20;

/// What a message may hold unless the operator says otherwise.
const MESSAGE_BYTES_MAX: u64 = MIB as u64;

/// undici before 6.24.0 and 7.24.0 decompressed whatever it was sent: 6 MB became 1 GB of memory (CVE-2026-1526). Here
/// decompressing stops at the byte that is one too many, so that a gigabyte out of a megabyte costs a megabyte: 1009.
#[test]
fn cve_2026_1526_a_bomb_is_decompressed_up_to_the_bound() {
    let bomb = zeros_compressed(1024);
    assert!((MIB - MIB / 20..MIB + MIB / 20).contains(&bomb.len()), "a gigabyte in {} bytes", bomb.len());
    for reactors in [1, 2] {
        let server = Server::with_reactors(reactors, &[]);
        // The server's own start, and the buffers of a message of usual size, are not the bomb's.
        let (mut warm, _) = RawConn::offer(&server, "/raw/den?echo=1", &[OFFER]);
        warm.send_frame(BINARY | RSV1, &Packer::new(15, false).pack(&[b'a'; 1_000]));
        warm.read_frame().expect("an echo");
        let (bytes_before, inflated_before) = (peak_bytes(&server), metric(&server, "fanfare_inflated_bytes_total"));

        for in_pieces in [false, true] {
            let (mut conn, answer) = RawConn::offer(&server, "/raw/den", &[OFFER]);
            assert!(answer.is_some(), "compression is agreed on");
            // The server may close before it has read all of it.
            match in_pieces {
                false => drop(conn.try_send(&masked(BINARY | RSV1, &bomb))),
                true => drop(conn.try_send(&masked(BINARY & !FIN | RSV1, &bomb[..bomb.len() / 2]))),
            }
            conn.expect_close(1009, "a bomb");
        }

        let inflated = published(&server, "fanfare_inflated_bytes_total", inflated_before + 2 * MESSAGE_BYTES_MAX);
        assert!(inflated - inflated_before <= 2 * (MESSAGE_BYTES_MAX + 4096), "{inflated} bytes decompressed");
        let extra_bytes = peak_bytes(&server) - bytes_before;
        // A message's worth, and what it has grown out of: the allocator gives that back a little later.
        assert!(extra_bytes < 4 * MIB as u64, "{extra_bytes} bytes more than before");
    }

    // As it was done: until the end, and this is a sixteenth of it.
    let mut zlib = Decompress::new(false);
    let mut page = vec![0; 64 * 1024];
    let mut input = &bomb[..bomb.len() / 16];
    while !input.is_empty() {
        let before = zlib.total_in();
        zlib.decompress(input, &mut page, FlushDecompress::Sync).expect("it is a stream");
        input = &input[(zlib.total_in() - before) as usize..];
    }
    assert!(zlib.total_out() > 50 * MESSAGE_BYTES_MAX, "the faulty way breaks the bound: {} bytes", zlib.total_out());
}

/// The NATS server decompressed what came before a client had said who it is, without a bound (CVE-2026-27571). Here
/// nothing is decompressed on a connection that is not open, and a refused one never is.
#[test]
fn cve_2026_27571_nothing_is_decompressed_before_a_connection_is_open() {
    let bomb = zeros_compressed(32);
    for reactors in [1, 2] {
        let server = Server::with_reactors(reactors, &[]);
        for (target, status) in [("/nowhere", 404), ("/?userId=", 400)] {
            let mut conn = RawConn::connect(&server);
            conn.send(upgrade_request(target, &[(EXTENSIONS, OFFER)]).as_bytes());
            conn.try_send(&masked(BINARY | RSV1, &bomb));
            let head = conn.read_head();
            assert_eq!(status_of(&head), status);
            assert_eq!(header_of(&head, EXTENSIONS), None);
            conn.read_to_end("a refused request");
        }
        let (mut after, _) = RawConn::offer(&server, "/raw/den?echo=1", &[]);
        after.send_frame(TEXT, b"still here");
        assert_eq!(after.read_frame().expect("an echo").payload, b"still here");
        assert_eq!(metric(&server, "fanfare_inflated_bytes_total"), 0);
    }
}

/// zlib cannot write for a window of 8 bits and silently takes 9, so that servers which agreed to 8 sent what the client
/// could not read (zlib's own `deflateInit2` says so; ws, uWebSockets and others had to learn it). Here 8 is declined,
/// and a window that is agreed on is kept to: its client reads every message with no more than that.
#[test]
fn windows_are_kept_to_or_declined() {
    // The same 100 bytes again behind 600 others: 9 bits are too few to refer to them.
    let far: Vec<u8> = (0..700_u32).map(|at| (at % 600).wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect();
    for reactors in [1, 2] {
        let server = Server::with_reactors(reactors, &["--deflate.min_bytes", "0"]);
        for offer in ["permessage-deflate; server_max_window_bits=8", "permessage-deflate; client_max_window_bits=8"] {
            assert_eq!(RawConn::offer(&server, "/raw/den", &[offer]).1, None, "{offer}");
        }
        for bits in 9..=15 {
            let offer = format!("{OFFER}; server_max_window_bits={bits}");
            let (mut conn, answer) = RawConn::offer(&server, &format!("/raw/of-{bits}?echo=1"), &[&offer]);
            assert!(answer.expect("an agreement").ends_with(&format!("server_max_window_bits={bits}")));
            let text = b"a".repeat(256);
            let message = [&far[..], &text].concat();
            conn.send_frame(BINARY, &message);
            let frame = conn.read_frame().expect("an echo");
            assert_eq!(frame.first, BINARY | RSV1, "it becomes smaller");
            assert_eq!(unpack(bits, &frame.payload), message);
        }
    }
    // As it was done: agreed to 9, sent for 15.
    let mut wide = Vec::with_capacity(far.len() * 2);
    Compress::new(Compression::best(), false).compress_vec(&far, &mut wide, FlushCompress::Sync).expect("room enough");
    wide.truncate(wide.len() - 4);
    assert_eq!(try_unpack(15, &wide), Some(far));
    assert_eq!(try_unpack(9, &wide), None, "the faulty way cannot be read");
}

/// RFC 7692 §7.1.2.2 forbids to answer `client_max_window_bits` to a client that did not offer it, and clients end the
/// connection then: Chromium did with servers that answered it to all.
#[test]
fn client_max_window_bits_is_never_answered_unasked() {
    let server = Server::start(&[]);
    for (offer, answered) in [
        ("permessage-deflate", false),
        ("permessage-deflate; server_max_window_bits=10", false),
        ("permessage-deflate; server_no_context_takeover; client_no_context_takeover", false),
        ("permessage-deflate; client_max_window_bits", true),
    ] {
        let answer = RawConn::offer(&server, "/raw/den", &[offer]).1.expect("an agreement");
        assert_eq!(answer.contains("client_max_window_bits"), answered, "{offer}: {answer}");
    }
}

/// So many MiB of zeros as one message: each megabyte after the first refers to the one before.
fn zeros_compressed(mebibytes: usize) -> Vec<u8> {
    let mut zlib = Compress::new(Compression::best(), false);
    let mut part = || {
        let mut out = Vec::with_capacity(64 * 1024);
        zlib.compress_vec(&vec![0; MIB], &mut out, FlushCompress::Sync).expect("room enough");
        out
    };
    let first = part();
    let mut message = [&first[..], &part().repeat(mebibytes - 1)].concat();
    message.truncate(message.len() - 4);
    message
}

/// The value of a counter once it is at least `expected`: a reactor publishes at the end of a turn.
fn published(server: &Server, family: &str, expected: u64) -> u64 {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let found = metric(server, family);
        if found >= expected {
            return found;
        }
        assert!(Instant::now() < deadline, "{family} is {found}, and less than {expected}");
        thread::sleep(Duration::from_millis(2));
    }
}
