//! Requests behind a request, for a proxy that has stopped looking.

use fanfare_testing::raw::{RawConn, TEXT, header_of, masked, status_of, upgrade_request};
use fanfare_testing::{Client, Server, metric};

const SECOND: &str = "GET /stats HTTP/1.1\r\nHost: x\r\n\r\n";

/// A proxy that sees `Upgrade: websocket` may pass on everything behind it unread, whatever the answer is: Varnish and
/// Envoy up to 1.8.0 did (0ang3el/websocket-smuggle, 2019). Kemal, a framework for Crystal, refused an upgrade with 403
/// and kept the connection, so that the next request on it was answered past all rules of the proxy (kemalcr/kemal#767,
/// August 2026). Here a refused upgrade is the last thing that is answered on its connection, and what comes behind it
/// is thrown away.
#[test]
fn nothing_behind_a_refused_upgrade_is_answered() {
    for reactors in [1, 2] {
        let server = Server::with_reactors(reactors, &[]);
        let mut bystander = Client::connect(&server, "bystander");
        // A reactor publishes its counters at the end of a turn: with an answer from a later one, that was done.
        bystander.barrier();
        assert_eq!(opened_and_heard(&server), (1, 0), "the bystander's");
        for (refused, status) in refused_upgrades() {
            for second in [SECOND.to_owned(), upgrade_request("/?userId=mallory", &[])] {
                // In one piece with the first, in a piece of its own, and once the refusal has been read.
                for pause in [false, true] {
                    let mut conn = RawConn::connect(&server);
                    match pause {
                        false => conn.send(format!("{refused}{second}").as_bytes()),
                        true => conn.send(refused.as_bytes()),
                    }
                    let head = conn.read_head();
                    assert_eq!(status_of(&head), status, "{}", refused.escape_debug());
                    // The server may have closed already.
                    conn.try_send(second.as_bytes());
                    is_the_last_answer(conn, &head);
                }
            }
        }
        bystander.barrier();
        assert_eq!(opened_and_heard(&server), (1, 0), "connections opened and messages taken");
    }
}

/// A full server refuses as well.
#[test]
fn nothing_behind_a_503_is_answered() {
    let server = Server::start(&["--limits.connections_max", "1"]);
    let _only = Client::connect(&server, "only");
    let mut conn = RawConn::connect(&server);
    conn.send(format!("{}{SECOND}", upgrade_request("/?userId=mallory", &[])).as_bytes());
    let head = conn.read_head();
    assert_eq!(status_of(&head), 503);
    is_the_last_answer(conn, &head);
}

/// Health is answered by a thread of its own, which closes behind its answer. Behind other pages the next request is
/// answered, and an upgrade meets a reactor again: `transport` has that.
#[test]
fn nothing_behind_health_is_answered() {
    let server = Server::start(&[]);
    for second in [SECOND.to_owned(), upgrade_request("/?userId=mallory", &[])] {
        let mut conn = RawConn::connect(&server);
        conn.send(format!("GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n{second}").as_bytes());
        let head = conn.read_head();
        assert_eq!(status_of(&head), 200);
        is_the_last_answer(conn, &head);
    }
    assert_eq!(opened_and_heard(&server), (0, 0));
}

/// Behind an upgrade that is accepted there are frames and nothing else: a request is a frame with reserved bits.
#[test]
fn a_request_behind_an_accepted_upgrade_is_a_protocol_error() {
    let server = Server::start(&[]);
    let mut conn = RawConn::connect(&server);
    conn.send(format!("{}{SECOND}", upgrade_request("/raw/den", &[])).as_bytes());
    assert_eq!(status_of(&conn.read_head()), 101);
    conn.expect_close(1002, "a request in the place of a frame");
}

/// Requests to upgrade that are refused, each in its own way. Two announce the second request as their body.
fn refused_upgrades() -> Vec<(String, u16)> {
    let good = upgrade_request("/?userId=mallory", &[]);
    let length = SECOND.len().to_string();
    let filler = "x".repeat(9_000);
    vec![
        (good.replace("Version: 13", "Version: 1337"), 426),
        (good.replace("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", ""), 400),
        (good.replace("Connection: Upgrade", "Connection: keep-alive"), 426),
        (good.replace("Host: 127.0.0.1\r\n", "Connection: keep-alive\r\n"), 400),
        (good.replace("GET ", "POST "), 400),
        (good.replace("HTTP/1.1", "HTTP/1.0"), 426),
        (good.replace("Upgrade: websocket\r\n", ""), 426),
        (good.replace("Host: 127.0.0.1\r\n", "Host: 127.0.0.1\r\nHost: 127.0.0.1\r\n"), 400),
        (good.replace("\r\n", "\n"), 400),
        (upgrade_request("/elsewhere", &[("Connection", "keep-alive")]), 404),
        (upgrade_request("/?userId=mallory", &[("Content-Length", &length)]), 400),
        (upgrade_request("/?userId=mallory", &[("Transfer-Encoding", "chunked")]), 400),
        (upgrade_request("/?userId=mallory", &[("X-Filler", &filler)]), 431),
        (upgrade_request("/?userId=mallory", &[("X-Filler", "x"); 64]), 431),
        (format!("not\0 a request\r\n\r\n{}", String::from_utf8_lossy(&masked(TEXT, b"hi"))), 400),
    ]
}

/// Reads to the end of the connection: the answer with this head is the last, and not a byte comes behind it.
#[track_caller]
fn is_the_last_answer(mut conn: RawConn, head: &str) {
    let options = header_of(head, "Connection").unwrap_or_default();
    assert!(options.split(", ").any(|option| option.eq_ignore_ascii_case("close")), "{head}");
    let body_bytes: usize = header_of(head, "Content-Length").expect("a length").parse().expect("a number");
    let rest = conn.read_to_end("the connection of a last answer");
    assert_eq!(rest.len(), body_bytes, "behind {head}: {}", rest.escape_ascii());
}

fn opened_and_heard(server: &Server) -> (u64, u64) {
    (metric(server, "fanfare_connections_opened_total"), metric(server, "fanfare_messages_in_total"))
}
