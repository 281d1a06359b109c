//! The backend decides who a connection is.

use std::collections::HashSet;
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use fanfare_testing::raw::{RawConn, header_of, status_of, upgrade_request};
use fanfare_testing::{Client, Server, await_metric, eventually, free_addr, metric};
use serde_json::{Value, json};

use super::service::{Reply, Seen, Service};
use super::tokens::{Guarded, now_ms};

/// A server whose connections this service decides about, without a key.
fn decided_by(service: &Service, reactors: usize, settings: &[&str]) -> Server {
    let url = service.url("/connect");
    Server::with_reactors(reactors, &[&["--auth.connect_url", &url, "--auth.url_cache", "0"], settings].concat())
}

/// A request is sent; its answer is not awaited.
fn knock(server: &Server, target: &str, fields: &[(&str, &str)]) -> RawConn {
    let mut conn = RawConn::connect(server);
    conn.send(upgrade_request(target, fields).as_bytes());
    conn
}

fn status(server: &Server, target: &str, fields: &[(&str, &str)]) -> u16 {
    status_of(&knock(server, target, fields).read_head())
}

fn welcomed(conn: &mut RawConn) -> Value {
    assert_eq!(status_of(&conn.read_head()), 101);
    serde_json::from_str(&conn.read_text()).unwrap()
}

/// Who sends the cookie `user=NAME` is NAME, and nobody else is let in.
fn by_cookie(seen: &Seen) -> Reply {
    match seen.all("cookie").first().and_then(|cookie| cookie.strip_prefix("user=")) {
        Some("banned") => Reply::Json(403, json!({})),
        Some(user) => Reply::Json(200, json!({"user": user, "fanfare": {"join": ["chat.*"], "publish": ["chat.*"]}})),
        None => Reply::Json(401, json!({"error": "who are you?"})),
    }
}

pub fn who_the_backend_knows_is_let_in_as_it_says(reactors: usize) {
    let service = Service::start(by_cookie);
    let server = decided_by(&service, reactors, &["--auth.forward_headers", "cookie,x-session"]);
    let fields = [
        ("Cookie", "user=alice"),
        ("X-Session", "s1"),
        ("X-Other", "o1"),
        ("X-Forwarded-For", "6.6.6.6"),
        ("Content-Length", "0"),
        ("Origin", "http://127.0.0.1:3000"),
    ];
    let mut conn = knock(&server, "/?userId=mallory", &fields);
    // Messages may stand right behind the request, while it is decided.
    conn.send_frame(0x81, br#"{"type":"join_room","roomId":"chat.a","id":1}"#);
    conn.send_frame(0x81, br#"{"type":"join_room","roomId":"other","id":2}"#);
    assert_eq!(welcomed(&mut conn)["userId"], "alice");
    let answers: Vec<Value> = std::iter::repeat_with(|| serde_json::from_str(&conn.read_text()).unwrap())
        .filter(|message: &Value| !message["id"].is_null())
        .take(2)
        .collect();
    let of = |id: u64| answers.iter().find(|answer| answer["id"] == id).unwrap();
    assert_eq!((&of(1)["type"], &of(2)["code"]), (&json!("joined"), &json!("forbidden")));
    let seen = service.last();
    assert_eq!((&*seen.method, &*seen.path), ("POST", "/connect"));
    assert_eq!(
        seen.body,
        json!({"protocol": "json", "address": "127.0.0.1", "origin": "http://127.0.0.1:3000", "refresh": false})
    );
    let names: HashSet<&str> = seen.fields.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, HashSet::from(["host", "content-type", "accept", "content-length", "cookie", "x-session"]));
    assert_eq!((seen.all("cookie"), seen.all("x-session")), (vec!["user=alice"], vec!["s1"]));
    assert!(!server.log().contains("user=alice") && !server.log().contains("s1"), "{}", server.log());
}

pub fn who_the_backend_refuses_is_told_so(reactors: usize) {
    let service = Service::start(by_cookie);
    let server = decided_by(&service, reactors, &[]);
    let mut conn = knock(&server, "/?userId=alice", &[]);
    let head = conn.read_head();
    assert_eq!((status_of(&head), header_of(&head, "www-authenticate")), (401, Some("Bearer")));
    assert_eq!(status(&server, "/", &[("Cookie", "user=banned")]), 403);
    assert_eq!(status(&server, "/nowhere", &[]), 404);
    assert_eq!(status(&server, "/", &[("Origin", "https://evil.example")]), 403);
    assert_eq!(service.count(), 2, "what is refused anyway is not asked about");
}

pub fn a_token_is_checked_first_and_the_backend_wins(reactors: usize) {
    let service = Service::start(|seen| match seen.all("authorization").first() {
        Some(_) => Reply::Json(200, json!({"user": format!("{}-of-us", seen.body["user"].as_str().unwrap())})),
        None => Reply::Json(200, json!({"user": "visitor"})),
    });
    let url = service.url("/connect");
    for guarded in [
        Guarded::start(reactors, &["--auth.connect_url", &url, "--auth.default.join", "lobby"]),
        Guarded::with_public_key(reactors, &["--auth.connect_url", &url, "--auth.default.join", "lobby"]),
    ] {
        let before = service.count();
        for (target, fields) in [("/?token=x", vec![]), ("/?token=x", vec![("Authorization", "Bearer y")])] {
            assert_eq!(status(&guarded.server, target, &fields), 401);
        }
        assert_eq!(service.count(), before, "a token that is not valid is refused before");
        let token = guarded.token("alice", json!({"join": ["chat.*"]}));
        let mut client = Client::greeted(&guarded.server, &format!("/?token={token}"));
        assert_eq!(client.user_id(), "alice-of-us");
        assert_eq!(client.request(json!({"type": "join_room", "roomId": "chat.a"}))["code"], "forbidden");
        client.join("lobby");
        assert_eq!(service.last().all("authorization"), [format!("Bearer {token}")]);
        assert_eq!(service.last().body["user"], "alice");
        assert_eq!(Client::greeted(&guarded.server, "/").user_id(), "visitor");
        assert!(!guarded.server.log().contains(&token));
    }
}

pub fn what_is_no_answer_lets_nobody_in(reactors: usize) {
    let elsewhere = Service::start(|_| Reply::Json(200, json!({"user": "alice"})));
    let target = elsewhere.url("/connect");
    let service = Service::start(|_| Reply::Silence);
    let settings = ["--auth.url_timeout", "200ms", "--auth.default.join", "*"];
    let server = decided_by(&service, reactors, &settings);
    let bytes = |text: &str| Reply::Bytes(text.as_bytes().to_vec());
    let answers = [
        Reply::Silence,
        Reply::Endless,
        Reply::Held(200, json!({"user": "alice"})),
        Reply::Json(200, json!({})),
        Reply::Json(200, json!({"user": ""})),
        Reply::Json(200, json!({"user": 7})),
        Reply::Json(200, json!({"user": null})),
        Reply::Json(200, json!({"user": "u".repeat(129)})),
        Reply::Json(200, json!(["alice"])),
        Reply::Json(200, json!({"user": "alice", "fanfare": {"join": "*"}})),
        Reply::Json(200, json!({"user": "alice", "fanfare": null})),
        Reply::Json(200, json!({"user": "alice", "expires": "soon"})),
        Reply::Json(200, json!({"user": "alice", "more": "x".repeat(70_000)})),
        Reply::Json(201, json!({"user": "alice"})),
        Reply::Json(404, json!({"user": "alice"})),
        Reply::Json(500, json!({"user": "alice"})),
        bytes("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"user\":\"alice\"}"),
        bytes("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno"),
        bytes(&format!("HTTP/1.1 302 Found\r\nLocation: {target}\r\nContent-Length: 0\r\n\r\n")),
        bytes(&format!("HTTP/1.1 307 Temporary Redirect\r\nLocation: {target}\r\nContent-Length: 0\r\n\r\n")),
        bytes(&format!("HTTP/1.1 200 OK\r\nX: {}\r\nContent-Length: 2\r\n\r\n{{}}", "x".repeat(20_000))),
        bytes("SSH-2.0-OpenSSH\r\n"),
        bytes(""),
    ];
    let asked = answers.len();
    for (at, answer) in answers.into_iter().enumerate() {
        let told = format!("{answer:.80?}");
        service.behave(move |_| answer.clone());
        let head = knock(&server, "/", &[]).read_head();
        assert_eq!(status_of(&head), 503, "{told}");
        assert!(header_of(&head, "retry-after").is_some(), "{told}");
        assert_eq!(metric(&server, "fanfare_connections_opened_total"), 0, "{told}");
        assert_eq!(unavailable(&server), at as u64 + 1, "{told}");
    }
    assert_eq!((service.count(), elsewhere.count()), (asked, 0), "asked once each, and never elsewhere");
    service.behave(|_| Reply::Json(200, json!({"user": "alice"})));
    assert_eq!(Client::greeted(&server, "/").user_id(), "alice");
    assert!(!server.log().contains("alice"), "what was answered is in no line: {}", server.log());
}

/// Questions about connections that nobody has answered.
fn unavailable(server: &Server) -> u64 {
    metric(server, "fanfare_backend_questions_total{about=\"connect\",outcome=\"unavailable\"}")
}

pub fn a_backend_that_is_down_lets_nobody_in_and_is_asked_again(reactors: usize) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    drop(listener);
    let url = format!("http://{addr}/connect");
    let server = Server::with_reactors(reactors, &["--auth.connect_url", &url]);
    assert_eq!(status(&server, "/", &[]), 503);
    let service = Service::at(TcpListener::bind(addr).unwrap(), by_cookie);
    assert_eq!(status(&server, "/", &[("Cookie", "user=alice")]), 101);
    assert_eq!(service.count(), 1);
}

pub fn the_handshakes_deadline_holds_while_the_backend_thinks(reactors: usize) {
    let service = Service::start(|_| Reply::Held(200, json!({"user": "late"})));
    let settings = ["--limits.handshake_timeout", "300ms", "--auth.url_timeout", "1m"];
    let server = decided_by(&service, reactors, &settings);
    let mut conn = knock(&server, "/", &[]);
    assert_eq!(status_of(&conn.read_head()), 503);
    service.let_go();
    conn.read_to_end("a refusal ends the connection");
    assert_eq!(Client::greeted(&server, "/").user_id(), "late");
}

pub fn no_more_is_asked_at_once_than_is_allowed_and_the_others_wait(reactors: usize) {
    let service = Service::start(|seen| match by_cookie(seen) {
        Reply::Json(status, body) => Reply::Held(status, body),
        other => other,
    });
    let settings = ["--auth.url_concurrency", "2", "--auth.url_timeout", "1m", "--limits.handshake_timeout", "1m"];
    let server = decided_by(&service, reactors, &settings);
    let knocks = (0..8).map(|user| knock(&server, "/", &[("Cookie", &format!("user=u{user}"))]));
    let mut conns: Vec<RawConn> = knocks.collect();
    service.await_count(2);
    // As much as any of the others would have needed.
    std::thread::sleep(std::time::Duration::from_millis(200));
    assert_eq!(service.count(), 2);
    service.let_go();
    for (user, conn) in conns.iter_mut().enumerate() {
        assert_eq!(welcomed(conn)["userId"], format!("u{user}"));
    }
    assert_eq!(service.count(), 8);
}

pub fn those_who_wait_too_long_for_their_turn_take_no_time_from_who_is_asked_about(reactors: usize) {
    let service = Service::start(|_| Reply::Held(200, json!({"user": "alice"})));
    let settings = ["--auth.url_concurrency", "1", "--auth.url_timeout", "6s", "--limits.handshake_timeout", "1m"];
    let server = decided_by(&service, reactors, &settings);
    let mut first = knock(&server, "/", &[]);
    service.await_count(1);
    let mut others: Vec<RawConn> = (0..5).map(|_| knock(&server, "/", &[])).collect();
    for conn in &mut others {
        assert_eq!(status_of(&conn.read_head()), 503);
    }
    service.let_go();
    assert_eq!(welcomed(&mut first)["userId"], "alice", "there was time left for its answer");
    assert_eq!(service.count(), 1, "the others were not asked about when it was too late");
}

pub fn who_is_gone_is_not_asked_about(reactors: usize) {
    const MANY: u64 = 50;
    let service = Service::start(|_| Reply::Held(200, json!({"user": "alice"})));
    let settings = ["--auth.url_concurrency", "1", "--auth.url_timeout", "1m", "--limits.handshake_timeout", "1m"];
    let server = decided_by(&service, reactors, &settings);
    let first = knock(&server, "/", &[]);
    service.await_count(1);
    let gone: Vec<RawConn> = (0..MANY).map(|at| knock(&server, "/", &[("Cookie", &format!("c={at}"))])).collect();
    await_metric(&server, "fanfare_sockets", MANY + 1);
    drop(gone);
    let withdrawn = "fanfare_backend_questions_total{about=\"connect\",outcome=\"withdrawn\"}";
    await_metric(&server, withdrawn, MANY);
    drop(first);
    await_metric(&server, "fanfare_sockets", 0);
    service.let_go();
    assert_eq!(Client::greeted(&server, "/").user_id(), "alice");
    assert_eq!(service.count(), 2, "whom it was under way for, and who is there");
}

pub fn a_decision_holds_for_a_while_for_the_same_question(reactors: usize) {
    let service = Service::start(by_cookie);
    let url = service.url("/connect");
    let server = Server::with_reactors(reactors, &["--auth.connect_url", &url, "--auth.url_cache", "1m"]);
    for _ in 0..3 {
        assert_eq!(status(&server, "/", &[("Cookie", "user=alice")]), 101);
        assert_eq!(status(&server, "/", &[("Cookie", "user=bob")]), 101);
        assert_eq!(status(&server, "/", &[]), 401);
        assert_eq!(status(&server, "/", &[("Cookie", "user=banned")]), 403);
    }
    assert_eq!(service.count(), 4);
    assert_eq!(metric(&server, "fanfare_backend_questions_total{about=\"connect\",outcome=\"cached\"}"), 8);
    service.behave(|_| Reply::Json(500, json!({})));
    for _ in 0..2 {
        assert_eq!(status(&server, "/", &[("Cookie", "user=carol")]), 503);
        assert_eq!(status(&server, "/", &[("Cookie", "user=alice")]), 101);
    }
    assert_eq!(service.count(), 6, "what was no answer is asked again");
}

pub fn visitors_of_whom_nothing_is_known_are_asked_about_one_by_one(reactors: usize) {
    let guests = AtomicUsize::new(0);
    let service = Service::start(move |_| {
        let guest = guests.fetch_add(1, Ordering::Relaxed);
        Reply::Json(200, json!({"user": format!("guest-{guest}")}))
    });
    let url = service.url("/connect");
    let server = Server::with_reactors(reactors, &["--auth.connect_url", &url, "--auth.url_cache", "1m"]);
    for visitor in 0..3 {
        assert_eq!(Client::greeted(&server, "/").user_id(), format!("guest-{visitor}"), "nobody is another");
    }
    for _ in 0..2 {
        assert_eq!(welcomed(&mut knock(&server, "/", &[("Cookie", "a=b")]))["userId"], "guest-3");
    }
    assert_eq!(service.count(), 4);
}

pub fn a_backend_that_hangs_delays_nobody_who_is_open(reactors: usize) {
    let service = Service::start(|seen| match by_cookie(seen) {
        Reply::Json(200, body) => Reply::Json(200, body),
        _ => Reply::Silence,
    });
    let server = decided_by(&service, reactors, &["--auth.url_timeout", "1m", "--limits.handshake_timeout", "1m"]);
    let mut open: Vec<RawConn> = ["user=alice", "user=bob"].map(|user| knock(&server, "/", &[("Cookie", user)])).into();
    open.iter_mut().for_each(|conn| drop(welcomed(conn)));
    let waiting: Vec<RawConn> = (0..50).map(|_| knock(&server, "/", &[])).collect();
    eventually("the backend hangs", || service.count() > 2);
    for conn in &mut open {
        conn.send_frame(0x81, br#"{"type":"join_room","roomId":"chat.a","id":1}"#);
        while !conn.read_text().contains("\"joined\"") {}
    }
    for content in 0..20 {
        let message = json!({"type": "room_msg", "roomId": "chat.a", "content": content});
        open[0].send_frame(0x81, message.to_string().as_bytes());
        while !open[1].read_text().contains(&format!("\"content\":{content}")) {}
    }
    drop(waiting);
}

/// The one of the documents.
pub fn the_example_decides(reactors: usize) {
    let addr = free_addr();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/backend.py");
    let mut example = Command::new("python3");
    example.args([script, &addr.port().to_string()]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut example = example.spawn().expect("python3 is there");
    eventually("the example listens", || TcpStream::connect(addr).is_ok());
    let (connect, join) = (format!("http://{addr}/connect"), format!("http://{addr}/join"));
    let server = Server::with_reactors(reactors, &["--auth.connect_url", &connect, "--auth.join_url", &join]);
    assert_eq!(status(&server, "/", &[]), 401);
    assert_eq!(status(&server, "/", &[("Cookie", "session=s-mallory")]), 401);
    let mut bob = knock(&server, "/", &[("Cookie", "theme=dark; session=s-bob")]);
    assert_eq!(welcomed(&mut bob)["userId"], "bob");
    let mut ask = |command: Value, reply: &str| {
        bob.send_frame(0x81, command.to_string().as_bytes());
        loop {
            let said: Value = serde_json::from_str(&bob.read_text()).unwrap();
            if said["id"] == command["id"] {
                return assert!(said["type"] == reply || said["code"] == reply, "{command}: {said}");
            }
        }
    };
    ask(json!({"type": "join_room", "roomId": "board", "id": 1}), "forbidden");
    ask(json!({"type": "join_room", "roomId": "team", "id": 2}), "joined");
    ask(json!({"type": "room_msg", "roomId": "team", "content": 1, "id": 3}), "ack");
    ask(json!({"type": "join_room", "roomIds": ["board"], "id": 4}), "forbidden");
    example.kill().unwrap();
    example.wait().unwrap();
}

pub fn a_connection_ends_when_the_backend_says(reactors: usize) {
    let ends_ms = now_ms() + 2_500;
    let service = Service::start(move |_| Reply::Json(200, json!({"user": "alice", "expires": ends_ms})));
    let server = decided_by(&service, reactors, &["--auth.expiring_before", "1s"]);
    let mut client = Client::greeted(&server, "/");
    client.recv_type("expiring");
    assert_eq!(client.close_frame().0, 4001);
    assert!((ends_ms..=ends_ms + 5_000).contains(&now_ms()), "in time");
}

pub fn the_backend_decides_about_another_token(reactors: usize) {
    let service = Service::start(|seen| {
        let may = if seen.body["refresh"] == true { json!({"join": ["b"]}) } else { json!({"join": ["a"]}) };
        match seen.body["user"].as_str() {
            Some("banned") => Reply::Json(403, json!({})),
            Some("lost") => Reply::Json(500, json!({})),
            Some(user) => Reply::Json(200, json!({"user": user, "fanfare": may})),
            None => Reply::Json(401, json!({})),
        }
    });
    let settings = ["--auth.connect_url", &service.url("/connect"), "--rooms.notice_members_max", "0"];
    for guarded in [Guarded::start(reactors, &settings), Guarded::with_public_key(reactors, &settings)] {
        let everything = json!({"join": ["*"], "broadcast": true});
        let mut client = guarded.connect("alice", everything.clone());
        client.join("a");
        let refresh = |user: &str| json!({"type": "refresh", "token": guarded.token(user, everything.clone())});
        assert_eq!(client.request(refresh("bob"))["code"], "forbidden");
        assert_eq!(client.request(refresh("banned"))["code"], "unauthorized");
        assert_eq!(client.request(refresh("lost"))["code"], "unavailable");
        assert_eq!(client.request(json!({"type": "refresh", "token": "x"}))["code"], "unauthorized");
        assert_eq!(client.request(json!({"type": "join_room", "roomId": "b"}))["code"], "forbidden");
        // What the token allows is no way past the backend; what stands behind the command waits for it.
        let mut command = refresh("alice");
        command["id"] = json!(1);
        client.send(&command);
        client.send(&json!({"type": "join_room", "roomId": "b", "id": 2}));
        client.send(&json!({"type": "broadcast", "content": 1, "id": 3}));
        assert_eq!(client.reply(&json!(1))["type"], "ack");
        assert_eq!(client.reply(&json!(2))["type"], "joined");
        assert_eq!(client.reply(&json!(3))["code"], "forbidden");
        assert_eq!(client.recv_type("left")["roomId"], "a");
        let last = service.last();
        assert_eq!(last.body, json!({"protocol": "json", "user": "alice", "refresh": true}));
        assert_eq!(last.all("authorization").len(), 1);
    }
}
