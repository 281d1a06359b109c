//! Who gets in.

use fanfare_testing::raw::{RawConn, TEXT, header_of, masked, status_of, upgrade_request};
use fanfare_testing::{Client, Server};
use serde_json::json;

use super::tokens::{Guarded, now_s};

/// The head that answers a request with these fields, and what comes behind it where it is a refusal.
fn answer(server: &Server, target: &str, fields: &[(&str, &str)]) -> (u16, String) {
    let mut conn = RawConn::connect(server);
    conn.send(upgrade_request(target, fields).as_bytes());
    let mut head = conn.read_head();
    let status = status_of(&head);
    if status != 101 {
        head.push_str(&String::from_utf8(conn.read_to_end("a refusal ends the connection")).unwrap());
    }
    (status, head)
}

pub fn a_token_names_the_user_wherever_it_stands(reactors: usize) {
    for guarded in [Guarded::start(reactors, &[]), Guarded::with_public_key(reactors, &[])] {
        let token = guarded.token("alice", json!({}));
        for target in ["/?token=", "/ws?userId=bob&token=", "/?userId=&token="] {
            assert_eq!(Client::greeted(&guarded.server, &format!("{target}{token}")).user_id(), "alice", "{target}");
        }
        let bearer = format!("Bearer {token}");
        let (status, _) = answer(&guarded.server, "/ws", &[("Authorization", &bearer)]);
        assert_eq!(status, 101);
        let offer = format!("bearer.{token}, fanfare.v1");
        let (status, head) = answer(&guarded.server, "/ws?userId=bob", &[("Sec-WebSocket-Protocol", &offer)]);
        assert_eq!((status, header_of(&head, "sec-websocket-protocol")), (101, Some("fanfare.v1")));
        assert!(!head.contains(&token), "a token is never echoed: {head}");
        let (status, _) = answer(&guarded.server, &format!("/?token={token}"), &[("Authorization", &bearer)]);
        assert_eq!(status, 101, "the same token twice is one token");
    }
}

pub fn who_has_no_good_token_is_refused_and_told_how_to_get_one(reactors: usize) {
    let guarded = Guarded::start(reactors, &[]);
    let (alice, bob) = (guarded.token("alice", json!({})), guarded.token("bob", json!({})));
    let other = Guarded::with_public_key(reactors, &[]).token("alice", json!({}));
    let claims = |claims| guarded.sign(&claims);
    let expired = claims(json!({ "sub": "alice", "exp": now_s() - 60 }));
    let endless = claims(json!({ "sub": "alice" }));
    let nobody = claims(json!({ "exp": now_s() + 60 }));
    let later = claims(json!({ "sub": "alice", "exp": now_s() + 600, "nbf": now_s() + 300 }));
    let broken = format!("{}x", &alice[..alice.len() - 1]);
    let target = |token: &str| format!("/?token={token}");
    let bearer = |token: &str| format!("Bearer {token}");
    for (target, fields, challenge) in [
        ("/".to_owned(), vec![], "Bearer"),
        ("/?userId=alice".to_owned(), vec![], "Bearer"),
        ("/raw/r?userId=alice".to_owned(), vec![], "Bearer"),
        (target(""), vec![], "Bearer error=\"invalid_token\""),
        (target("x"), vec![], "Bearer error=\"invalid_token\""),
        (target(&broken), vec![], "Bearer error=\"invalid_token\""),
        (target(&other), vec![], "Bearer error=\"invalid_token\""),
        (target(&expired), vec![], "Bearer error=\"invalid_token\""),
        (target(&endless), vec![], "Bearer error=\"invalid_token\""),
        (target(&nobody), vec![], "Bearer error=\"invalid_token\""),
        (target(&later), vec![], "Bearer error=\"invalid_token\""),
        (target(&alice), vec![("Authorization", bearer(&bob))], "Bearer error=\"invalid_request\""),
        (format!("/?token={alice}&token={bob}"), vec![], "Bearer error=\"invalid_request\""),
    ] {
        let fields: Vec<(&str, &str)> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let (status, said) = answer(&guarded.server, &target, &fields);
        assert_eq!((status, header_of(&said, "www-authenticate")), (401, Some(challenge)), "{target}: {said}");
        for token in [&alice, &bob, &broken, &other, &expired] {
            assert!(!said.contains(token.as_str()) && !guarded.server.log().contains(token.as_str()), "{said}");
        }
    }
    // What the path is, is no secret; who may be there is.
    assert_eq!(answer(&guarded.server, "/nowhere", &[]).0, 404);
}

pub fn anonymous_lets_in_who_has_no_token_and_nobody_with_a_bad_one(reactors: usize) {
    let settings = ["--auth.anonymous", "true", "--auth.default.join", "chat.*"];
    let guarded = Guarded::start(reactors, &settings);
    for target in ["/", "/ws?userId=alice"] {
        let mut client = Client::greeted(&guarded.server, target);
        assert_eq!(client.user_id(), client.client_id(), "{target}");
        client.join("chat.a");
        let refused = client.request(json!({"type": "join_room", "roomId": "other"}));
        assert_eq!(refused["code"], "forbidden");
        let refused = client.request(json!({"type": "broadcast", "content": 1}));
        assert_eq!(refused["code"], "forbidden");
    }
    assert_eq!(answer(&guarded.server, "/?token=x", &[]).0, 401);
    let named = guarded.connect("alice", json!({"broadcast": true}));
    assert_eq!(named.user_id(), "alice");
}

pub fn a_page_from_elsewhere_is_refused_before_its_token_is_looked_at(reactors: usize) {
    let guarded = Guarded::start(reactors, &[]);
    let target = format!("/?token={}", guarded.token("alice", json!({})));
    let from = |target: &str, origin: &str| answer(&guarded.server, target, &[("Origin", origin)]).0;
    for origin in ["http://127.0.0.1:3000", "https://localhost", "http://[::1]:8080"] {
        assert_eq!(from(&target, origin), 101, "{origin}");
    }
    for origin in ["https://evil.example", "null", "https://127.0.0.1.evil.example"] {
        assert_eq!(from(&target, origin), 403, "{origin}");
        assert_eq!(from("/?token=bad", origin), 403, "{origin}");
        assert_eq!(from("/", origin), 403, "{origin}");
    }
    // A name that leads to this machine makes no page of its own, and one that a proxy serves does.
    let port = guarded.server.addr().port();
    let asked_as = |host: &str, origin: &str| {
        let request = upgrade_request(&target, &[("Origin", origin)]).replace("127.0.0.1", host);
        let mut conn = RawConn::connect(&guarded.server);
        conn.send(request.as_bytes());
        status_of(&conn.read_head())
    };
    let rebound = format!("evil.example:{port}");
    for (host, origin, status) in [
        (&*rebound, &*format!("http://{rebound}"), 403),
        (&rebound, "http://evil.example", 403),
        (&rebound, "http://localhost:3000", 101),
        ("app.example.com", "https://app.example.com", 101),
        ("app.example.com:8443", "https://app.example.com:8443", 101),
        (&format!("localhost:{port}"), "http://localhost:3000", 101),
    ] {
        assert_eq!(asked_as(host, origin), status, "{host} {origin}");
    }
    let guarded = Guarded::start(reactors, &["--auth.origins", "https://*.example.com"]);
    let target = format!("/?token={}", guarded.token("alice", json!({})));
    for (origin, status) in [("https://app.example.com", 101), ("http://127.0.0.1", 403)] {
        assert_eq!(answer(&guarded.server, &target, &[("Origin", origin)]).0, status, "{origin}");
    }
    assert_eq!(answer(&guarded.server, &target, &[]).0, 101, "who is no page is not asked");
}

pub fn many_tokens_of_a_public_key_at_once(reactors: usize) {
    const MANY: usize = 300;
    let guarded = Guarded::with_public_key(reactors, &[]);
    let mut conns: Vec<RawConn> = (0..MANY).map(|_| RawConn::connect(&guarded.server)).collect();
    for (at, conn) in conns.iter_mut().enumerate() {
        let token = guarded.token(&format!("user-{at}"), json!({}));
        conn.send(upgrade_request(&format!("/?token={token}"), &[]).as_bytes());
    }
    for (at, conn) in conns.iter_mut().enumerate() {
        assert_eq!(status_of(&conn.read_head()), 101);
        assert!(conn.read_text().contains(&format!("\"userId\":\"user-{at}\"")));
    }
}

pub fn a_token_of_a_public_key_that_is_not_good(reactors: usize) {
    let guarded = Guarded::with_public_key(reactors, &[]);
    let expired = guarded.sign(&json!({ "sub": "alice", "exp": now_s() - 60 }));
    let good = guarded.token("alice", json!({}));
    let foreign = Guarded::with_public_key(reactors, &[]).token("alice", json!({}));
    for token in [expired, foreign, good[..good.len() - 2].to_owned()] {
        assert_eq!(answer(&guarded.server, &format!("/?token={token}"), &[]).0, 401);
    }
    // Messages may stand right behind the request, while its token is looked at.
    let mut conn = RawConn::connect(&guarded.server);
    conn.send(upgrade_request(&format!("/?token={good}"), &[]).as_bytes());
    conn.send_frame(0x81, br#"{"type":"ping","id":1}"#);
    assert_eq!(status_of(&conn.read_head()), 101);
    assert!(conn.read_text().contains("welcome"));
    assert_eq!(conn.read_text(), r#"{"type":"pong","id":1}"#);
}

/// Until its token was looked at, which another thread does, a client may send little behind its request.
pub fn little_may_come_before_a_token_was_looked_at(reactors: usize) {
    let ping = masked(TEXT, json!({"type": "ping", "id": "x".repeat(980)}).to_string().as_bytes());
    for (guarded, cases) in [
        (Guarded::with_public_key(reactors, &[]), [(1, 101), (8, 101), (9, 400), (60, 400)]),
        (Guarded::start(reactors, &[]), [(1, 101), (8, 101), (9, 101), (60, 101)]),
    ] {
        let token = guarded.token("alice", json!({}));
        for (pings, status) in cases {
            let mut conn = RawConn::connect(&guarded.server);
            let request = upgrade_request(&format!("/?token={token}"), &[]);
            conn.send(&[request.as_bytes(), &ping.repeat(pings)].concat());
            assert_eq!(status_of(&conn.read_head()), status, "{pings} pings of {} bytes", ping.len());
            if status == 101 {
                // The welcome, and what it has asked.
                (0..=pings).for_each(|_| drop(conn.read_text()));
            }
        }
    }
}
