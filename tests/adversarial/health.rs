//! Everything taken, and health still answered: who does not answer it is restarted.

use fanfare_testing::raw::{RawConn, header_of, status_of, upgrade_request};
use fanfare_testing::{Client, Server, eventually, http_get};

use crate::Bystanders;

/// As many as find a place (`HTTP_CONNECTIONS_MAX`), and some more.
const PAGES: usize = 256;
const READERS: usize = PAGES + 4;

const PAGE: &[u8] = b"GET /assets/pane.js HTTP/1.1\r\nHost: x\r\n\r\n";

/// With send buffers as small as a million connections want them, an answer waits for its reader. Those who ask for a
/// large page and do not read it take all places for pages; they are cut after two seconds, and health has places of its
/// own.
pub fn pages_that_nobody_reads_do_not_silence_health(reactors: usize) {
    let server = Server::with_reactors(reactors, &["--tcp.send_buffer", "4KiB"]);
    let mut bystanders = Bystanders::of(&server);
    let before = descriptors(&server);
    let whole = http_get(&server, "/assets/pane.js").body.len();
    let mut readers: Vec<RawConn> = (0..READERS)
        .map(|_| {
            let mut conn = RawConn::narrow(&server, 2_048);
            conn.send(PAGE);
            conn
        })
        .collect();
    // All were answered as far as they go: their heads are there.
    let answers: Vec<u16> = readers.iter_mut().map(|reader| status_of(&reader.read_head())).collect();
    let refused = answers.iter().filter(|status| **status == 503).count();
    assert_eq!(answers.iter().filter(|status| **status == 200).count() + refused, READERS);
    // The page that was read whole above may hold its place for a moment longer than its reader knows.
    assert!(refused <= READERS - PAGES + 1, "{refused} of {READERS} refused");
    health_is_answered(&server);
    bystanders.are_served();

    // Nobody has read on or gone, and yet all are cut.
    eventually("their descriptors are free", || descriptors(&server) <= before);
    assert_eq!(http_get(&server, "/").status, 200);
    let cut = readers.into_iter().zip(answers).filter(|(_, status)| *status == 200).map(|(mut reader, _)| {
        let read = reader.read_until_it_breaks();
        assert!(read < whole, "{read} bytes of {whole}");
    });
    assert!(cut.count() >= PAGES - (READERS - PAGES), "nearly all were cut");
    health_is_answered(&server);
}

/// A node cuts `limits.connections_max` to what its descriptors allow, so that they never run out: when all places are
/// taken, and every place for a handshake and for a page as well, there is one left to say that the node lives.
pub fn connections_that_use_everything_do_not_silence_health(reactors: usize) {
    let reactors = reactors.to_string();
    let server = Server::with_descriptors(
        160,
        &["--reactors", &reactors, "--limits.handshake_timeout", "5m", "--tcp.send_buffer", "4KiB"],
    );
    let mut bystanders = Bystanders::of(&server);
    let mut members = Vec::new();
    let rejection = loop {
        assert!(members.len() < 160, "more connections than descriptors");
        match Client::try_open(&server, "/?userId=crowd") {
            Ok(member) => members.push(member),
            Err(rejection) => break rejection,
        }
    };
    assert_eq!(rejection.status, 503);
    let own = 64 + 4 * reactors.parse::<usize>().expect("a number");
    assert_eq!(members.len() + 2, (160 - own) - (160 - own).div_ceil(4), "three quarters of what is not its own");
    health_is_answered(&server);

    // Many times as many as there are places left: those that stay are silent, and the last is no better than the first.
    let mut crowd: Vec<RawConn> = (0..300).map(|_| RawConn::narrow(&server, 2_048)).collect();
    for page in crowd.iter_mut().take(20) {
        page.try_send(PAGE);
    }
    eventually("the crowd is in or was sent away", || http_get(&server, "/health/live").status == 200);
    for _ in 0..20 {
        health_is_answered(&server);
    }
    bystanders.are_served();
    // And nobody else gets in.
    let mut late = RawConn::connect(&server);
    late.send(upgrade_request("/?userId=late", &[]).as_bytes());
    let head = late.read_head();
    assert_eq!(status_of(&head), 503);
    assert!(header_of(&head, "Retry-After").is_some(), "{head}");
    let log = server.log();
    assert_eq!(log.matches("limits.connections_max is cut").count(), 1, "{log}");
    assert!(!log.contains("out of descriptors"), "{log}");
    drop((crowd, members));
    eventually("room again", || Client::try_open(&server, "/?userId=late").is_ok());
}

/// Descriptors that the server has open.
fn descriptors(server: &Server) -> usize {
    let folder = format!("/proc/{}/fd", server.pid());
    std::fs::read_dir(folder).expect("the server runs").count()
}

#[track_caller]
fn health_is_answered(server: &Server) {
    for target in ["/health/live", "/health/ready"] {
        let answer = http_get(server, target);
        assert_eq!(answer.status, 200, "{target}: {}{}", answer.head, answer.body);
    }
}
