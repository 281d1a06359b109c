//! Pings and pongs cost whoever sends them.

use std::time::Instant;

use fanfare_testing::raw::{CLOSE, PING, PONG, RawConn, TEXT, masked};
use fanfare_testing::{Client, Server};
use serde_json::json;

/// Pongs up to the close frame, and its code.
#[track_caller]
fn pongs_to_the_close(conn: &mut RawConn) -> (u64, u16) {
    let mut pongs = 0;
    loop {
        let frame = conn.read_frame().expect("a close frame comes");
        match frame.first {
            CLOSE => return (pongs, u16::from_be_bytes([frame.payload[0], frame.payload[1]])),
            PONG => pongs += 1,
            PING => {}
            other => panic!("a frame that begins with {other:#x}"),
        }
    }
}

pub fn a_flood_of_pings_is_not_answered_and_ends(reactors: usize) {
    let server = Server::with_reactors(reactors, &[]);
    let mut alice = Client::connect(&server, "alice");
    for frame in [masked(PING, &[b'p'; 125]), masked(PONG, b"")] {
        for target in ["/raw/den", "/?userId=mallory"] {
            let mut conn = RawConn::upgrade(&server, target);
            if target != "/raw/den" {
                assert_eq!(conn.read_frame().expect("a welcome").first, TEXT);
            }
            let began = Instant::now();
            let mut writer = conn.writer();
            let flood = frame.repeat(30_000);
            // The server may have closed before it has read all of it.
            let writing = std::thread::spawn(move || _ = std::io::Write::write_all(&mut writer, &flood));
            let (pongs, code) = pongs_to_the_close(&mut conn);
            let most = 1_000 * (began.elapsed().as_secs() + 2);
            assert!(pongs <= most && code == 1008, "{pongs} of at most {most} pongs, then {code}");
            drop(conn);
            writing.join().expect("the writer ends");
        }
    }
    alice.publish(json!({"type": "private_msg", "toUser": "alice", "content": 1}));
    alice.expect(|json| json["content"] == 1);
}

pub fn control_frames_take_from_the_rate(reactors: usize) {
    let server = Server::with_reactors(reactors, &["--rate.messages_per_second", "3"]);
    let mut conn = RawConn::connect_as(&server, "mallory");
    let began = Instant::now();
    conn.send(&masked(PING, b"").repeat(160));
    let (pongs, code) = pongs_to_the_close(&mut conn);
    let most = 3 * (began.elapsed().as_secs() + 2);
    assert!((3..=most).contains(&pongs) && code == 1008, "{pongs} of at most {most} pongs, then {code}");
}

pub fn who_answers_our_pings_pays_nothing(reactors: usize) {
    let settings = ["--heartbeat.interval", "20ms", "--rate.messages_per_second", "1"];
    let server = Server::with_reactors(reactors, &settings);
    let mut conn = RawConn::connect_as(&server, "alice");
    // More than it would have strikes.
    for _ in 0..150 {
        let frame = conn.read_frame().expect("whoever answers stays");
        assert_eq!(frame.first, PING);
        conn.send_frame(PONG, &frame.payload);
    }
    conn.send_frame(TEXT, br#"{"type":"ping","id":1}"#);
    assert!(conn.read_text().contains("pong"), "it has its rate for what it says itself");
}
