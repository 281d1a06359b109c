//! When everybody goes at once, or comes while memory is short.

use std::fs;

use fanfare_testing::raw::{RawConn, TEXT, header_of, status_of, upgrade_request};
use fanfare_testing::{Client, Server, Signal, eventually, http_get, metric, run_fanfare};
use serde_json::json;

use super::reload::{File, start};

/// Who comes and what is delivered waits for a few ends, and not for those of all who are gone.
#[test]
fn a_mass_disconnect_is_spread_over_turns() {
    const CLIENTS: usize = 1_000;
    const ROOMS: usize = 16;
    let server = Server::start(&["--rooms.notice_members_max", "0", "--limits.rooms_max", "16"]);
    let rooms: Vec<String> = (0..ROOMS).map(|at| format!("room-{at}")).collect();
    let join = json!({ "type": "join_room", "roomIds": rooms, "id": 1 }).to_string();
    let mut witness = Client::connect(&server, "witness");
    let mut crowd: Vec<RawConn> = (0..CLIENTS).map(|at| RawConn::connect_as(&server, &format!("user-{at}"))).collect();
    for conn in &mut crowd {
        conn.send_frame(TEXT, join.as_bytes());
        while !conn.read_text().contains("\"ack\"") {}
    }
    let count =
        |witness: &mut Client| witness.request(json!({ "type": "presence", "roomId": "room-0" }))["count"].clone();
    witness.join("room-0");
    assert_eq!(count(&mut witness), CLIENTS + 1);
    let before = metric(&server, "fanfare_turns_total");
    server.signal(Signal::STOP);
    drop(crowd);
    server.signal(Signal::CONT);
    eventually("all have left", || count(&mut witness) == 1);
    let turns = metric(&server, "fanfare_turns_total") - before;
    // A turn has room for 256 ends, or fewer where rooms are left: each of these leaves 16, and two topics of its own.
    let ends_per_turn = 4 * 256 / (4 + ROOMS as u64 + 2) + 1;
    assert!(turns >= CLIENTS as u64 / ends_per_turn, "{turns} turns for {CLIENTS} ends, {ends_per_turn} in each");
}

/// Bytes that the server's process takes of the machine.
fn resident_bytes(server: &Server) -> u64 {
    let statm = fs::read_to_string(format!("/proc/{}/statm", server.pid())).expect("a running server");
    let pages: u64 = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok()).expect("a number");
    pages * rustix::param::page_size() as u64
}

#[test]
fn short_of_memory_strangers_are_refused_first_and_then_the_newest_go() {
    let auth =
        "[auth]\nanonymous = true\n[[auth.key]]\nalg = \"HS256\"\nsecret = \"a secret of at least 32 bytes, here\"\n";
    let file = File::new(auth);
    let server = start(&file, &[]);
    let (code, token, stderr) = run_fanfare(&["token", "--config", file.path(), "--sub", "alice"], &[]);
    assert_eq!(code, Some(0), "{stderr}");
    let with_token = format!("/?token={}", token.trim());
    let come = |target: &str| {
        let mut conn = RawConn::connect(&server);
        conn.send(upgrade_request(target, &[]).as_bytes());
        let head = conn.read_head();
        let status = status_of(&head);
        assert!(status == 101 || header_of(&head, "Retry-After").is_some(), "{head}");
        (status, conn)
    };
    // So much of what it may take is taken, in percent.
    let set_taken = |percent: u64| {
        let memory_max = resident_bytes(&server) * 100 / percent;
        file.write(&format!("[limits]\nmemory_max = {memory_max}\n{auth}"));
        server.signal(Signal::HUP);
    };
    let mut old = Client::greeted(&server, &with_token);
    let mut stranger = Client::anonymous(&server);
    let mut new = Client::greeted(&server, &with_token);
    set_taken(91);
    eventually("strangers are refused", || come("/").0 == 503);
    assert_eq!(come(&with_token).0, 101, "who has a token gets in");
    set_taken(97);
    eventually("everybody new is refused", || come(&with_token).0 == 503);
    assert_eq!(come("/").0, 503);
    old.barrier();
    set_taken(150);
    assert_eq!(stranger.close_frame().0, 1013, "a stranger goes first");
    assert_eq!(new.close_frame().0, 1013, "then who came last");
    assert_eq!(http_get(&server, "/health/live").status, 200);
    set_taken(10);
    eventually("there is room again", || come("/").0 == 101);
}
