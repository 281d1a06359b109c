//! The upgrade: who is who, what is refused, and HTTP beside it.

use std::time::{Duration, Instant};

use fanfare_testing::raw::{RawConn, header_of, status_of, upgrade_request};
use fanfare_testing::{Client, PATIENCE, Server, Way, http_get};
use serde_json::{Value, json};

pub fn welcome_names_client_user_and_heartbeat(way: Way) {
    let server = way.start(&[]);
    for target in ["/?userId=alice", "/ws?userId=alice", "/ws?x=1&userId=alice"] {
        let client = Client::greeted(&server, target);
        assert_eq!(client.user_id(), "alice", "{target}");
        assert_eq!(client.welcome()["heartbeat"], json!(30_000), "{target}");
        assert_uuid_v4(client.client_id());
    }
    let (one, other) = (Client::connect(&server, "alice"), Client::connect(&server, "alice"));
    assert_ne!(one.client_id(), other.client_id());
}

pub fn heartbeat_is_the_configured_one(way: Way) {
    let server = way.start(&["--heartbeat.interval", "12s"]);
    let client = Client::connect(&server, "alice");
    assert_eq!(client.welcome()["heartbeat"], json!(12_000));
}

pub fn anonymous_user_id_is_the_client_id(way: Way) {
    let server = way.start(&[]);
    for target in ["/", "/ws", "/ws?other=1"] {
        let client = Client::greeted(&server, target);
        assert_uuid_v4(client.client_id());
        assert_eq!(client.user_id(), client.client_id(), "{target}");
    }
    let mut anonymous = Client::anonymous(&server);
    let mut alice = Client::connect(&server, "alice");
    alice.publish(json!({"type": "private_msg", "toUser": anonymous.user_id(), "content": "by user id"}));
    assert_eq!(anonymous.recv_type("private_msg")["content"], "by user id");
}

pub fn user_ids_are_percent_decoded(way: Way) {
    let server = way.start(&[]);
    let long = "u".repeat(128);
    let many_bytes = "%E2%82%AC".repeat(42);
    let many_chars = "€".repeat(42);
    let cases = [
        ("a+b", "a+b"),
        ("a%2Bb", "a+b"),
        ("a%20b", "a b"),
        ("a%26b%3Dc", "a&b=c"),
        ("%22quoted%22", "\"quoted\""),
        ("two%0Alines", "two\nlines"),
        ("back%5Cslash", "back\\slash"),
        ("nul%00byte", "nul\0byte"),
        ("%F0%9F%A6%80", "🦀"),
        ("%e2%82%ac", "€"),
        ("%41lice", "Alice"),
        (long.as_str(), long.as_str()),
        (many_bytes.as_str(), many_chars.as_str()),
    ];
    for (encoded, user) in cases {
        let client = Client::greeted(&server, &format!("/?userId={encoded}"));
        assert_eq!(client.user_id(), user, "{encoded}");
    }
}

pub fn bad_user_ids_are_refused(way: Way) {
    let server = way.start(&[]);
    let long = "u".repeat(129);
    let many_bytes = "%E2%82%AC".repeat(43);
    for encoded in ["", "&x=1", "%FF", "%C0%AF", "%ED%A0%80", "a%E2%82", long.as_str(), many_bytes.as_str()] {
        for path in ["/", "/ws"] {
            let rejection = Client::try_open(&server, &format!("{path}?userId={encoded}")).err();
            assert_eq!(rejection.map(|rejection| rejection.status), Some(400), "{path} with userId={encoded}");
        }
    }
}

pub fn other_paths_are_not_found(way: Way) {
    let server = way.start(&[]);
    for target in ["/nope?userId=alice", "/ws/more?userId=alice", "/wss", "/raw/a/b", "/health/live"] {
        let rejection = Client::try_open(&server, target).err();
        assert_eq!(rejection.map(|rejection| rejection.status), Some(404), "{target}");
    }
}

pub fn only_our_subprotocol_is_echoed(way: Way) {
    let server = way.start(&[]);
    let cases = [
        (None, None),
        (Some("fanfare.v1"), Some("fanfare.v1")),
        (Some("chat, fanfare.v1, other"), Some("fanfare.v1")),
        (Some("chat"), None),
        (Some("fanfare.v2"), None),
    ];
    for (offered, echoed) in cases {
        let offer: Vec<(&str, &str)> = offered.iter().map(|offered| ("Sec-WebSocket-Protocol", *offered)).collect();
        let mut conn = RawConn::connect(&server);
        conn.send(upgrade_request("/?userId=alice", &offer).as_bytes());
        let head = conn.read_head();
        assert_eq!(status_of(&head), 101, "{offered:?}: {head}");
        assert_eq!(header_of(&head, "Sec-WebSocket-Protocol"), echoed, "{offered:?}: {head}");
        assert_eq!(
            header_of(&head, "Sec-WebSocket-Accept"),
            Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="),
            "the example of RFC 6455, 1.3"
        );
    }
}

pub fn connection_limit_answers_503(reactors: usize) {
    let server = Server::with_reactors(reactors, &["--limits.connections_max", "2"]);
    let first = Client::connect(&server, "alice");
    let mut second = Client::connect(&server, "bob");
    let rejection = Client::try_open(&server, "/?userId=carol").err().expect("a third connection should be refused");
    assert_eq!(rejection.status, 503);
    let retry_after = rejection.retry_after.expect("a Retry-After header");
    assert!(retry_after.parse::<u32>().is_ok(), "Retry-After: {retry_after}");
    second.barrier();
    first.leave();
    let deadline = Instant::now() + PATIENCE;
    while Client::try_open(&server, "/?userId=carol").is_err() {
        assert!(Instant::now() < deadline, "the place of a closed connection should be free again");
        std::thread::sleep(Duration::from_millis(20));
    }
}

pub fn http_is_served_on_the_same_port(way: Way) {
    let server = way.start(&[]);
    let mut alice = Client::connect(&server, "alice");
    for target in ["/", "/?user=carol", "/health/live", "/health/ready", "/stats"] {
        let answer = http_get(&server, target);
        assert_eq!(answer.status, 200, "GET {target}: {}", answer.head);
    }
    let page = http_get(&server, "/");
    assert!(page.body.to_ascii_lowercase().contains("<html"), "GET / is the console page");
    let stats = http_get(&server, "/stats");
    serde_json::from_str::<Value>(&stats.body).expect("GET /stats is JSON");
    assert_eq!(http_get(&server, "/nope").status, 404);
    // What is only there for WebSocket says so, and the absolute form is its path alone (RFC 9112 §3.2.2).
    for target in ["/ws", "/raw/den", "wss://x/ws", "HTTPS://x/raw/den"] {
        let answer = http_get(&server, target);
        assert_eq!(answer.status, 426, "GET {target}: {}", answer.head);
        assert!(answer.head.to_ascii_lowercase().contains("upgrade: websocket"), "{}", answer.head);
    }
    for target in ["https://x/health/live", "ws://x:80", "HTTP://x?a/ws", "hTTp://x/console/tokens"] {
        assert_eq!(http_get(&server, target).status, 200, "GET {target}");
    }
    alice.barrier();
}

/// A balancer's check is often an `OPTIONS`, and of HTTP/1.0, which has no hosts.
pub fn options_is_a_check(way: Way) {
    let server = way.start(&[]);
    let fields = "\r\nHost: x\r\nConnection: close";
    for line in [
        "OPTIONS / HTTP/1.0".to_owned(),
        format!("OPTIONS * HTTP/1.1{fields}"),
        format!("OPTIONS /raw/den HTTP/1.1{fields}"),
    ] {
        let mut conn = RawConn::connect(&server);
        conn.send(format!("{line}\r\n\r\n").as_bytes());
        let head = conn.read_head();
        assert_eq!((status_of(&head), header_of(&head, "Allow")), (200, Some("GET, HEAD, OPTIONS")), "{line}");
        assert_eq!(conn.read_to_end("an answer without a body"), b"");
    }
    for (line, status) in [("OPTIONS /health/ready HTTP/1.0", 200), ("OPTIONS /nope HTTP/1.0", 404)] {
        let mut conn = RawConn::connect(&server);
        conn.send(format!("{line}\r\n\r\n").as_bytes());
        assert_eq!(status_of(&conn.read_head()), status, "{line}");
    }
}

/// A proxy that passes on a handshake without what makes it one gets no page of the console in answer.
pub fn a_handshake_without_its_upgrade_is_told_of_proxies(way: Way) {
    let server = way.start(&[]);
    for target in ["/", "/ws", "/raw/den", "/nope"] {
        let good = upgrade_request(target, &[]);
        for lost in [
            good.replace("Upgrade: websocket\r\n", ""),
            good.replace("Connection: Upgrade\r\n", "Connection: close\r\n"),
            good.replace("Connection: Upgrade\r\nUpgrade: websocket\r\n", "").replace("HTTP/1.1", "HTTP/1.0"),
        ] {
            let mut conn = RawConn::connect(&server);
            conn.send(lost.as_bytes());
            let head = conn.read_head();
            assert_eq!((status_of(&head), header_of(&head, "Upgrade")), (426, Some("websocket")), "{lost}");
            let body = String::from_utf8(conn.read_to_end("a refusal")).expect("text");
            assert!(body.contains("proxy"), "{body}");
        }
    }
}

pub fn a_request_has_one_host(way: Way) {
    let server = way.start(&[]);
    for request in ["GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(), upgrade_request("/", &[])] {
        let mut conn = RawConn::connect(&server);
        conn.send(request.replace("Host: ", "Host: y\r\nHost: ").as_bytes());
        assert_eq!(status_of(&conn.read_head()), 400, "{request}");
    }
}

#[track_caller]
fn assert_uuid_v4(id: &str) {
    let groups: Vec<&str> = id.split('-').collect();
    let lengths: Vec<usize> = groups.iter().map(|group| group.len()).collect();
    assert_eq!(lengths, [8, 4, 4, 4, 12], "{id}");
    assert!(groups.concat().bytes().all(|byte| byte.is_ascii_hexdigit()), "{id}");
    assert!(groups[2].starts_with('4'), "version 4: {id}");
    assert!(groups[3].starts_with(['8', '9', 'a', 'b']), "variant of RFC 9562: {id}");
}
