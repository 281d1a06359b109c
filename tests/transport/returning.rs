//! The way back to a reactor: a request for an upgrade behind other requests.

use fanfare_testing::raw::{RawConn, TEXT, header_of, masked, status_of, upgrade_request};
use fanfare_testing::{Certificates, Client, Entrance, Server, Signal, TlsTunnel, await_metric};

use crate::kept::{Kept, get};

/// Asks for pages and then for an upgrade, joins a room, and hears what the other says there.
#[track_caller]
fn converses(server: &dyn Entrance, other: &mut Client) {
    let mut kept = Kept::connect(server);
    for target in ["/", "/nothing"] {
        kept.get(target);
    }
    kept.0.send(upgrade_request("/?userId=alice", &[]).as_bytes());
    hears(kept.0, other);
}

#[track_caller]
fn hears(mut conn: RawConn, other: &mut Client) {
    let head = conn.read_head();
    assert_eq!(status_of(&head), 101, "{head}");
    assert!(conn.read_text().contains(r#""userId":"alice""#));
    conn.send_frame(TEXT, br#"{"type":"join_room","roomId":"den","id":1}"#);
    while !conn.read_text().contains("joined") {}
    other.publish(serde_json::json!({"type": "room_msg", "roomId": "den", "content": "back again"}));
    while !conn.read_text().contains("back again") {}
}

/// In the room, and alone in it.
fn other(server: &Server, way: &dyn Entrance) -> Client {
    let mut other = Client::connect(way, "bob");
    other.join("den");
    assert!(server.addr().port() > 0);
    other
}

pub fn an_upgrade_behind_requests_is_a_connection(reactors: usize) {
    let mut server = Server::with_reactors(reactors, &[]);
    let mut bob = other(&server, &server);
    for _ in 0..20 {
        converses(&server, &mut bob);
    }
    await_metric(&server, "fanfare_connections", 1);
    await_metric(&server, "fanfare_connections_opened_total", 21);
    bob.leave();
    // It waits for every socket that is counted.
    server.signal(Signal::TERM);
    assert!(server.wait_exit().success());
}

pub fn an_upgrade_comes_in_pieces_and_with_what_is_behind_it(reactors: usize) {
    let server = Server::with_reactors(reactors, &[]);
    let mut bob = other(&server, &server);
    let upgrade = upgrade_request("/?userId=alice", &[]);
    let ping = br#"{"type":"ping","id":"early"}"#;
    // In one piece with requests before it: all of these are answered first.
    let mut kept = Kept::connect(&server);
    kept.0.send(format!("{}{}{upgrade}", get("/nothing"), get("/")).as_bytes());
    for status in [404, 200] {
        assert_eq!(status_of(&kept.answer().0), status);
    }
    hears(kept.0, &mut bob);
    // Byte by byte.
    let mut kept = Kept::connect(&server);
    assert_eq!(kept.get("/"), 200);
    upgrade.as_bytes().chunks(1).for_each(|byte| kept.0.send(byte));
    hears(kept.0, &mut bob);
    // With a frame behind it, whole or begun.
    let frame = masked(TEXT, ping);
    for cut in [frame.len(), 1, 9] {
        let mut kept = Kept::connect(&server);
        assert_eq!(kept.get("/"), 200);
        kept.0.send(&[upgrade.as_bytes(), &frame[..cut]].concat());
        assert_eq!(status_of(&kept.0.read_head()), 101);
        kept.0.send(&frame[cut..]);
        assert!(kept.0.read_text().contains("welcome"));
        assert!(kept.0.read_text().contains(r#""id":"early""#));
    }
}

pub fn an_upgrade_over_tls_goes_on_with_its_session(reactors: usize) {
    let certificates = Certificates::make();
    let (certificate, key) = (certificates.path("server.pem"), certificates.path("server.key"));
    let server = Server::with_reactors(reactors, &["--tls.certificate", &certificate, "--tls.key", &key]);
    let way = TlsTunnel::to(server.addr(), &certificates).addr();
    let mut bob = other(&server, &way);
    for _ in 0..10 {
        converses(&way, &mut bob);
    }
    let mut kept = Kept::connect(&way);
    kept.0.send(format!("{}{}", get("/nothing"), upgrade_request("/?userId=alice", &[])).as_bytes());
    assert_eq!(status_of(&kept.answer().0), 404);
    hears(kept.0, &mut bob);
}

pub fn what_is_refused_to_others_is_refused_behind_requests(reactors: usize) {
    let server = Server::with_reactors(reactors, &[]);
    let good = upgrade_request("/", &[]);
    for (request, status) in [
        (upgrade_request("/nowhere", &[]), 404),
        (good.replace("Version: 13", "Version: 12"), 426),
        (good.replace("Upgrade: websocket\r\n", ""), 426),
        (good.replace("Connection: Upgrade\r\n", ""), 426),
        (good.replace("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", ""), 400),
        (good.replace("HTTP/1.1", "HTTP/1.0"), 426),
        (upgrade_request(&format!("/?userId={}", "x".repeat(200)), &[]), 400),
    ] {
        let mut kept = Kept::connect(&server);
        assert_eq!(kept.get("/"), 200);
        // What stands behind it is answered by nobody.
        kept.0.send(format!("{request}{}", get("/")).as_bytes());
        let head = kept.0.read_head();
        assert_eq!(status_of(&head), status, "{request}");
        let length = header_of(&head, "content-length").expect("a length").parse().expect("a number");
        kept.0.read_bytes(length);
        assert_eq!(kept.0.read_to_end("a refusal is the last answer"), b"", "{request}");
    }
    await_metric(&server, "fanfare_connections_opened_total", 0);
}

pub fn a_full_node_refuses_it(reactors: usize) {
    let server = Server::with_reactors(reactors, &["--limits.connections_max", "1"]);
    let only = Client::connect(&server, "only");
    let mut kept = Kept::connect(&server);
    assert_eq!(kept.get("/"), 200);
    kept.0.send(upgrade_request("/?userId=late", &[]).as_bytes());
    let head = kept.0.read_head();
    assert_eq!(status_of(&head), 503);
    assert!(header_of(&head, "retry-after").is_some(), "{head}");
    only.leave();
}

/// A socket counts for its address while a reactor has it, from each time on that it comes.
pub fn addresses_are_counted_as_they_come_back(reactors: usize) {
    let settings =
        ["--address.connections_max", "2", "--address.exempt", "192.0.2.1", "--address.handshakes_per_second", "0"];
    let server = Server::with_reactors(reactors, &settings);
    let mut open = Vec::new();
    for status in [101, 101, 429, 429] {
        let mut kept = Kept::connect(&server);
        assert_eq!(kept.get("/"), 200, "pages do not count");
        kept.0.send(upgrade_request("/", &[]).as_bytes());
        assert_eq!(status_of(&kept.0.read_head()), status);
        open.push(kept);
    }
    drop(open);
    await_metric(&server, "fanfare_connections", 0);
    let mut kept = Kept::connect(&server);
    assert_eq!(kept.get("/"), 200);
    kept.0.send(upgrade_request("/", &[]).as_bytes());
    assert_eq!(status_of(&kept.0.read_head()), 101, "the places are free again");
}
