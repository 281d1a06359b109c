//! Request heads that cost more to read than to send.

use std::cell::Cell;
use std::time::{Duration, Instant};

use fanfare::conn::{HeadReader, HttpRefusal, field_elements, parse_head};
use fanfare_testing::raw::{RawConn, header_of, status_of, upgrade_request};
use fanfare_testing::{Client, PATIENCE, Server, metric};

use crate::counting::{cost_of, peak_bytes, resident_bytes};
use crate::parts::HEAD;

const MIB: u64 = 1 << 20;

/// What the tungstenite of 2023 was sent.
const HUGE_HEAD_BYTES: usize = 20_000_000;

/// tungstenite up to 0.20.0 parsed a request head anew, from its first byte, each time that more of it had come: a
/// header of 20 million bytes took minutes of a core (CVE-2023-43669). Here only what came is searched for the end of
/// the head; the head is parsed once, when it is
/// whole, and refused once 8 KiB hold no end.
#[test]
fn cve_2023_43669_a_head_is_searched_once() {
    let mut head = b"GET / HTTP/1.1\r\nHost: x\r\nX-Filler: ".to_vec();
    head.resize(HUGE_HEAD_BYTES, b'x');
    let mut looked_at = 0;
    let mut reader = HeadReader::default();
    let (cost, (taken, refusal)) = cost_of(|| {
        let mut refused = head.iter().enumerate().filter_map(|(at, byte)| {
            let found = reader.push_searching(&[*byte], HEAD, |bytes| {
                looked_at += bytes.len();
                bytes.iter().position(|byte| *byte == b'\n')
            });
            Some((at + 1, found.err()?))
        });
        refused.next().expect("a head of 20 MB is refused")
    });
    assert_eq!((taken, refusal), (HEAD.bytes_max, HttpRefusal::HeadTooLarge), "of {HUGE_HEAD_BYTES}");
    assert_eq!(looked_at, HEAD.bytes_max, "each byte is looked at once, behind the end of its line");
    assert!(reader.held_bytes() <= HEAD.bytes_max, "{} bytes held", reader.held_bytes());
    assert!(cost.allocations <= 16 && cost.peak_bytes <= 2 * HEAD.bytes_max as u64, "{cost:?}");

    // As it was done: all of it, each time.
    let mut parsed = 0;
    for end in 1..=HEAD.bytes_max {
        let mut headers = [httparse::EMPTY_HEADER; 64];
        let whole = httparse::Request::new(&mut headers).parse(&head[..end]).expect("a head so far");
        assert!(whole.is_partial());
        parsed += end;
    }
    assert!(parsed > 1_000 * HEAD.bytes_max, "the faulty way breaks the bound even within 8 KiB: {parsed} bytes");
}

/// The same against the built binary: 20 MB, the first 8 KiB of them byte by byte. What comes behind the refusal is
/// thrown away as it comes.
#[test]
fn cve_2023_43669_a_head_of_20_mb_answers_431_and_is_not_held() {
    let server = Server::start(&[]);
    let mut bystander = Client::connect(&server, "bystander");
    let mut head = upgrade_request("/?userId=mallory", &[]).into_bytes();
    head.truncate(head.len() - 2);
    head.extend_from_slice(b"X-Filler: ");
    head.resize(HUGE_HEAD_BYTES, b'x');
    let before = peak_bytes(&server);
    let mut conn = RawConn::connect(&server);
    for byte in &head[..HEAD.bytes_max - 1] {
        conn.send(&[*byte]);
    }
    // The server may close before it has read all of it.
    conn.try_send(&head[HEAD.bytes_max - 1..]);
    assert_eq!(status_of(&conn.read_head()), 431);
    conn.expect_end("a head of 20 MB");
    let grown = peak_bytes(&server).saturating_sub(before);
    assert!(grown <= MIB, "{grown} bytes for a head of {HUGE_HEAD_BYTES}");
    bystander.barrier();
}

/// Clients with a request that has no end yet, and its bytes, just below what a head may have.
const HALF_OPEN: usize = 4_000;
const HALF_OPEN_BYTES: usize = 8_000;

/// What a crowd of half-open requests has taken goes back to the kernel when it is gone. With an allocator that keeps
/// what it once had, 136 of 152 MB stayed for as long as the process lived.
#[test]
fn memory_of_half_open_heads_is_given_back() {
    let server = Server::start(&["--limits.handshake_timeout", "60s"]);
    let mut bystander = Client::connect(&server, "bystander");
    let before = resident_bytes(&server);
    let mut head = b"GET / HTTP/1.1\r\nHost: x\r\nX-Filler: ".to_vec();
    head.resize(HALF_OPEN_BYTES, b'x');
    let mut crowd: Vec<RawConn> = (0..HALF_OPEN).map(|_| RawConn::connect(&server)).collect();
    // In two pieces: the first is kept until the next has come.
    for piece in [&head[..HALF_OPEN_BYTES / 2], &head[HALF_OPEN_BYTES / 2..]] {
        crowd.iter_mut().for_each(|conn| conn.send(piece));
    }
    let deadline = Instant::now() + 3 * PATIENCE;
    let all = (HALF_OPEN * HALF_OPEN_BYTES) as u64;
    while resident_bytes(&server) < before + all {
        assert!(Instant::now() < deadline, "{HALF_OPEN} heads of {HALF_OPEN_BYTES} bytes are held");
        std::thread::sleep(Duration::from_millis(20));
    }
    let grown = peak_bytes(&server) - before;
    drop(crowd);
    // The allocator takes ten seconds to give back what is not asked for again.
    let deadline = Instant::now() + 6 * PATIENCE;
    // The bystander and, perhaps, the one that asks.
    while metric(&server, "fanfare_sockets") > 2 {
        assert!(Instant::now() < deadline, "sockets are left over");
    }
    loop {
        let left = resident_bytes(&server).saturating_sub(before);
        if left <= grown / 4 {
            break;
        }
        assert!(Instant::now() < deadline, "{left} of {grown} bytes are kept");
        std::thread::sleep(Duration::from_millis(100));
    }
    bystander.barrier();
}

/// ws before 8.17.1 asked a request for its `Upgrade` header without looking whether it was there. Node keeps 2,000
/// header fields and drops the rest, so a request with more of them in front ended the process (CVE-2024-37890). Here
/// a request with more than 64 fields is refused as a whole, before anything asks what is among them.
#[test]
fn cve_2024_37890_many_header_fields_answer_431() {
    for reactors in [1, 2] {
        let server = Server::with_reactors(reactors, &[]);
        let mut bystander = Client::connect(&server, "bystander");
        for (fields, status) in [(64, 101), (65, 431), (1_000, 431), (3_000, 431)] {
            let mut conn = RawConn::connect(&server);
            // The server may close before it has read all of it.
            conn.try_send(request_with_fields(fields).as_bytes());
            assert_eq!(status_of(&conn.read_head()), status, "{fields} fields on {reactors} reactors");
            bystander.barrier();
        }
    }
}

/// Fields beyond the bound are not kept until they are counted: as many as fit into a head cost no memory at all.
#[test]
fn cve_2024_37890_many_header_fields_allocate_nothing() {
    for fields in [65, 200, 1_300] {
        let head = request_with_fields(fields);
        assert!(head.len() <= HEAD.bytes_max, "{} bytes fit", head.len());
        let (cost, parsed) = cost_of(|| parse_head(head.as_bytes(), HEAD));
        assert_eq!(parsed, Err(HttpRefusal::TooManyHeaders), "{fields} fields");
        assert_eq!(cost.allocations, 0, "{fields} fields: {cost:?}");
    }
}

/// A good request with this many fields, those of the handshake behind all others, as in the report on ws.
fn request_with_fields(fields: usize) -> String {
    let good = upgrade_request("/?userId=mallory", &[]);
    let (line, own) = good.split_once("\r\n").expect("a request line");
    format!("{line}\r\n{}{own}", "a:b\r\n".repeat(fields - 5))
}

/// ws before 7.4.6 split `Sec-WebSocket-Protocol` at ` *, *`: on a run of blanks without a comma behind it, that
/// expression was tried from every blank to the last (CVE-2021-32640). Here every character is asked at most three
/// times what it is: once whether it is a comma, and from both ends of an element whether it is a blank.
#[test]
fn cve_2021_32640_a_list_of_subprotocols_is_read_in_linear_time() {
    const BLANKS: usize = 8_000;
    let one_blank = |text: &str| format!("b{}x", text.repeat(BLANKS));
    for value in [one_blank(" "), one_blank(" ,"), one_blank(", "), ",".repeat(BLANKS), " ".repeat(BLANKS)] {
        let asked = Cell::new(0);
        let ask = |answer: bool| {
            asked.set(asked.get() + 1);
            answer
        };
        let found = field_elements(&value, |letter| ask(letter == ','), |letter| ask(letter.is_whitespace())).count();
        assert_eq!(found, value.matches(',').count() + 1);
        assert!(asked.get() <= 3 * value.len(), "{} questions about {} bytes", asked.get(), value.len());
    }

    // As it was done: a search for ` *, *` that begins anew behind every place where it failed.
    let value = one_blank(" ").into_bytes();
    let steps: usize =
        (0..value.len()).map(|at| 1 + value[at..].iter().take_while(|byte| **byte == b' ').count()).sum();
    assert!(steps > 1_000 * value.len(), "the faulty way breaks the bound: {steps} steps");
}

/// The header that ws choked on, as long as a head may be, is an offer of no subprotocol known here.
#[test]
fn cve_2021_32640_blanks_in_the_list_of_subprotocols_are_no_obstacle() {
    let server = Server::start(&[]);
    let mut bystander = Client::connect(&server, "bystander");
    for offer in [format!("b{}x", " ".repeat(7_500)), ",".repeat(7_500)] {
        let mut conn = RawConn::connect(&server);
        conn.send(upgrade_request("/?userId=mallory", &[("Sec-WebSocket-Protocol", &offer)]).as_bytes());
        let head = conn.read_head();
        assert_eq!((status_of(&head), header_of(&head, "Sec-WebSocket-Protocol")), (101, None));
        bystander.barrier();
    }
}
