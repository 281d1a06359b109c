//! Messages in pieces that weigh more than what is in them.

use fanfare_testing::raw::{CONTINUATION, FIN, PING, PONG, RawConn, TEXT, masked};
use fanfare_testing::{Server, metric};

use crate::counting::{Cost, cost_of};
use crate::parts::{FRAGMENTS_MAX, Inbound, fragments};

/// Bytes of a message in fragments of one byte, all of them: it may be held in a buffer of twice the size.
const SINGLE_BYTES_MAX: u64 = 2 * FRAGMENTS_MAX as u64;

/// ws before 8.21.0 kept an object for each fragment: a megabyte of fragments of one byte held many times that in
/// memory, below any limit on the message's size (CVE-2026-48779, May 2026). The bound on fragments that followed did
/// not count the empty ones, so that these never ended (websockets/ws#2329). Here memory goes by the bytes of a message, never by its
/// fragments, and every fragment counts: one more than 131,072 is 1008.
#[test]
fn cve_2026_48779_empty_fragments_are_counted_and_hold_nothing() {
    let mut empty = fragments(TEXT, FRAGMENTS_MAX, b"");
    let mut inbound = Inbound::default();
    let (cost, events) = cost_of(|| inbound.take(&mut empty, 64 * 1024));
    assert_eq!((events, inbound.held_bytes()), (Ok(0), 0));
    // The state of a message that is not whole yet: once, not for each fragment.
    assert!(cost.allocations <= 1 && cost.peak_bytes <= 512, "{cost:?} for {FRAGMENTS_MAX} empty fragments");
    assert_eq!(inbound.take(&mut masked(CONTINUATION & !FIN, b""), 64), Err(1008), "one more");
}

/// The same with a byte in each: what is held is the bytes.
#[test]
fn cve_2026_48779_memory_goes_by_bytes_not_by_fragments() {
    let within = |cost: Cost| cost.allocations <= 32 && cost.peak_bytes <= SINGLE_BYTES_MAX + 512;
    let mut single = fragments(TEXT, FRAGMENTS_MAX, b"a");
    let mut inbound = Inbound::default();
    let (cost, events) = cost_of(|| inbound.take(&mut single, 64 * 1024));
    assert_eq!(events, Ok(0));
    assert!(inbound.held_bytes() as u64 <= SINGLE_BYTES_MAX, "{} bytes held", inbound.held_bytes());
    assert!(within(cost), "{cost:?} for {FRAGMENTS_MAX} fragments of one byte");

    // As it was done: each fragment on its own until the last one comes.
    let (cost, kept) = cost_of(|| (0..FRAGMENTS_MAX).map(|_| vec![b'a']).collect::<Vec<_>>());
    assert_eq!(kept.len(), FRAGMENTS_MAX);
    assert!(!within(cost) && cost.peak_bytes > 10 * SINGLE_BYTES_MAX, "the faulty way breaks the bound: {cost:?}");
}

/// Both against the built binary.
#[test]
fn cve_2026_48779_the_server_holds_the_bytes_and_closes_with_1008() {
    for reactors in [1, 2] {
        let server = Server::with_reactors(reactors, &[]);
        for (payload, held_bytes_max) in [(&b""[..], 0), (b"a", SINGLE_BYTES_MAX)] {
            let mut conn = RawConn::upgrade(&server, "/raw/den");
            conn.send(&fragments(TEXT, FRAGMENTS_MAX, payload));
            // The first pong: all fragments were taken. The second: that turn's counters were published.
            for _ in 0..2 {
                conn.send_frame(PING, b"");
                assert_eq!(conn.read_frame().expect("a pong").first, PONG);
            }
            let held_bytes = metric(&server, "fanfare_queue_bytes");
            assert!(held_bytes <= held_bytes_max, "{held_bytes} bytes held");
            assert!(held_bytes >= (FRAGMENTS_MAX * payload.len()) as u64, "the message is counted");
            conn.send_frame(CONTINUATION & !FIN, payload);
            conn.expect_close(1008, "a fragment too many");
        }
    }
}
