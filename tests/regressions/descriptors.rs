//! Nothing left to accept with.

use std::time::Instant;

use fanfare_testing::raw::{RawConn, header_of, status_of, upgrade_request};
use fanfare_testing::{Client, PATIENCE, Server, metric, metric_in};
use serde_json::json;

const DESCRIPTORS: u64 = 96;
const CROWD: u64 = 300;

/// Turns of the loop for each client that comes: its arrival, its request, its answer and its end, with one to spare.
const TURNS_PER_CLIENT: u64 = 5;

/// Out of descriptors, `accept` fails and the connection stays in the backlog, so that the next wait returns at once.
/// Bun spun so, at 100 % of a core, 98,000 failures in ten seconds, for as long as it lasted (oven-sh/bun#32705); as
/// did uWebSockets and many before them. Here a descriptor in reserve answers those in the backlog with 503, accepting
/// pauses in between, and turns of the loop are bounded by the clients that come. Those who are in are served, and
/// with descriptors everything is as before.
#[test]
fn out_of_descriptors_is_answered_not_spun_on_and_recovered_from() {
    for reactors in ["1", "4"] {
        let server = Server::start(&["--reactors", reactors, "--limits.handshake_timeout", "5m"]);
        // Fewer than it has divided at its start: as where the machine runs out.
        server.limit_descriptors(DESCRIPTORS);
        let mut speaker = Client::connect(&server, "speaker");
        let mut listener = Client::connect(&server, "listener");
        listener.join("den");
        let turns_before = metric(&server, "fanfare_turns_total");

        // All at once, and far more than there are descriptors.
        let request = upgrade_request("/?userId=crowd", &[]);
        let crowd: Vec<RawConn> = (0..CROWD)
            .map(|_| {
                let mut conn = RawConn::connect(&server);
                conn.try_send(request.as_bytes());
                conn
            })
            .collect();
        speaker.publish(json!({"type": "room_msg", "roomId": "den", "content": "still served"}));
        listener.expect(|json| json["content"] == "still served");
        let (let_in, refused) = each_is_answered(crowd);
        assert!(!let_in.is_empty() && refused >= CROWD - DESCRIPTORS, "{refused} of {CROWD} refused");

        drop(let_in);
        let deadline = Instant::now() + PATIENCE;
        let mut comers = CROWD;
        let page = loop {
            assert!(Instant::now() < deadline, "still refused");
            comers += 2;
            if Client::try_open(&server, "/?userId=late").is_ok()
                && let Some(page) = metrics_unless_refused(&server)
            {
                break page;
            }
        };
        let turns = metric_in(&page, "fanfare_turns_total") - turns_before;
        assert!(turns <= TURNS_PER_CLIENT * comers, "{turns} turns for {comers} clients");
    }
}

/// The page of metrics, `None` where this client is refused as well.
fn metrics_unless_refused(server: &Server) -> Option<String> {
    let mut conn = RawConn::connect(server);
    conn.try_send(format!("GET /metrics HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", server.addr()).as_bytes());
    let head = conn.read_head();
    (status_of(&head) == 200).then(|| String::from_utf8(conn.read_to_end("the metrics")).expect("metrics are text"))
}

/// Those let in, and how many were refused: a 503 that says when to come back.
fn each_is_answered(crowd: Vec<RawConn>) -> (Vec<RawConn>, u64) {
    let mut let_in = Vec::new();
    let mut refused = 0;
    for mut conn in crowd {
        let head = conn.read_head();
        match status_of(&head) {
            101 => let_in.push(conn),
            503 => {
                assert!(header_of(&head, "Retry-After").is_some(), "{head}");
                refused += 1;
            }
            other => panic!("answered {other}"),
        }
    }
    (let_in, refused)
}
