//! HTTP/2 frame by frame: many streams on one connection, and what a client may not do.

use fanfare_testing::raw::RawConn;
use fanfare_testing::{Client, Server, http_get};

use crate::kept::Kept;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

const HEADERS: u8 = 1;
const RESET: u8 = 3;
const SETTINGS: u8 = 4;
const GO_AWAY: u8 = 7;
const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// `GET http://x/nothing`, by the static table (RFC 7541, appendix A).
const GET: &[u8] = b"\x82\x86\x04\x08/nothing\x01\x01x";

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("short").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A connection whose settings are said.
fn begun(server: &Server) -> RawConn {
    let mut conn = RawConn::connect(server);
    conn.send(&[PREFACE, &frame(SETTINGS, 0, 0, &[])].concat());
    conn
}

/// Reads frames up to the one that ends the connection: how many answers came before it, and its error code.
#[track_caller]
fn answers_before_the_end(mut conn: RawConn) -> (usize, u32) {
    let mut answers = 0;
    loop {
        let header = conn.read_bytes(9);
        let length = u32::from_be_bytes([0, header[0], header[1], header[2]]);
        let payload = conn.read_bytes(length as usize);
        match header[3] {
            HEADERS => answers += 1,
            GO_AWAY => return (answers, u32::from_be_bytes(payload[4..8].try_into().expect("four bytes"))),
            _ => {}
        }
    }
}

/// Reads to the head of so many answers: their streams.
#[track_caller]
fn answered(conn: &mut RawConn, count: usize) -> Vec<u32> {
    let mut streams = Vec::new();
    while streams.len() < count {
        let header = conn.read_bytes(9);
        let length = u32::from_be_bytes([0, header[0], header[1], header[2]]);
        let payload = conn.read_bytes(length as usize);
        if header[3] == HEADERS {
            // 404, by the static table.
            assert_eq!(payload[0], 0x8D, "{}", payload.escape_ascii());
            streams.push(u32::from_be_bytes(header[5..9].try_into().expect("four bytes")));
        }
    }
    streams
}

/// As many as a client may have under way (`HTTP2_STREAMS_MAX`), several times over.
pub fn all_streams_of_a_connection_are_answered(reactors: usize) {
    let server = Server::with_reactors(reactors, &[]);
    let mut conn = begun(&server);
    for round in 0..4_u32 {
        let streams: Vec<u32> = (128 * round..128 * (round + 1)).map(|at| 2 * at + 1).collect();
        let all = streams.iter().flat_map(|stream| frame(HEADERS, END_HEADERS | END_STREAM, *stream, GET));
        conn.send(&all.collect::<Vec<u8>>());
        let mut answered = answered(&mut conn, streams.len());
        answered.sort_unstable();
        assert_eq!(answered, streams);
    }
}

const ENHANCE_YOUR_CALM: u32 = 11;

/// CVE-2023-44487: each stream is reset as soon as it is asked for, and so none of them counts as one that is open.
pub fn a_flood_of_resets_ends_its_connection_alone(reactors: usize) {
    let server = Server::with_reactors(reactors, &[]);
    let mut bystander = Client::connect(&server, "bystander");
    let mut conn = begun(&server);
    let cancel = 8_u32.to_be_bytes();
    let flood: Vec<u8> = (0..2_000_u32)
        .flat_map(|at| {
            let stream = 2 * at + 1;
            [frame(HEADERS, END_HEADERS | END_STREAM, stream, GET), frame(RESET, 0, stream, &cancel)].concat()
        })
        .collect();
    // It may be ended before it has said all.
    conn.try_send(&flood);
    let (answers, code) = answers_before_the_end(conn);
    assert_eq!(code, ENHANCE_YOUR_CALM);
    assert!(answers < 500, "{answers} of 2000 were answered");
    bystander.barrier();
    assert_eq!(http_get(&server, "/nothing").status, 404);
}

/// CVE-2024-27316: a head that never ends, in frames that nobody can look into before its end.
pub fn a_flood_of_continuations_ends_its_connection_alone(reactors: usize) {
    let server = Server::with_reactors(reactors, &[]);
    let mut bystander = Client::connect(&server, "bystander");
    let mut conn = begun(&server);
    let mut flood = frame(HEADERS, END_STREAM, 1, GET);
    let field = [&b"\x00\x01a\x7f\x81\x06"[..], &[b'x'; 256]].concat();
    for _ in 0..2_000 {
        flood.extend_from_slice(&frame(CONTINUATION, 0, 1, &field));
    }
    conn.try_send(&flood);
    let (answers, _) = answers_before_the_end(conn);
    assert_eq!(answers, 0);
    bystander.barrier();
    assert_eq!(http_get(&server, "/nothing").status, 404);
}

/// As many as there are places for pages (`HTTP_CONNECTIONS_MAX`).
const PLACES: usize = 256;

pub fn a_preface_that_goes_no_further_takes_no_place_from_others(reactors: usize) {
    let server = Server::with_reactors(reactors, &[]);
    let mut silent: Vec<RawConn> = (0..PLACES).map(|_| begun(&server)).collect();
    for conn in &mut silent {
        assert_eq!(conn.read_bytes(9)[3], SETTINGS, "it has its place");
    }
    let mut asking: Vec<Kept> = (0..8).map(|_| Kept::connect(&server)).collect();
    for kept in &mut asking {
        assert_eq!(kept.get("/nothing"), 404);
    }
}
