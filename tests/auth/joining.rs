//! The backend decides which rooms may be joined.

use std::time::Duration;

use fanfare_testing::raw::{RawConn, status_of, upgrade_request};
use fanfare_testing::{Client, Server, await_metric, eventually, metric};
use serde_json::{Value, json};

use super::service::{Reply, Seen, Service};
use super::tokens::Guarded;

/// Rooms that begin with `ok` may be joined; those that end with `speak` may be published into, those that end with `hush`
/// may not.
fn by_name(seen: &Seen) -> Reply {
    let may_join = |room: &str| room.trim_start_matches("raw/").starts_with("ok");
    let publish = |room: &str| match room {
        room if room.ends_with("speak") => Some(true),
        room if room.ends_with("hush") => Some(false),
        _ => None,
    };
    match (&seen.body["roomId"], &seen.body["roomIds"]) {
        (Value::String(room), Value::Null) => match publish(room) {
            Some(publish) => Reply::Json(200, json!({"allow": may_join(room), "publish": publish})),
            None => Reply::Json(200, json!({"allow": may_join(room)})),
        },
        (Value::Null, Value::Array(rooms)) => {
            let rooms = rooms.iter().map(|room| room.as_str().unwrap());
            Reply::Json(200, json!({"allow": rooms.filter(|room| may_join(room)).collect::<Vec<_>>()}))
        }
        (room, rooms) => panic!("{room} and {rooms}"),
    }
}

/// A server with keys whose joins this service decides about.
fn decided_by(service: &Service, reactors: usize, settings: &[&str]) -> Guarded {
    let url = service.url("/join");
    let own = ["--auth.join_url", url.as_str(), "--auth.url_cache", "0", "--rooms.notice_members_max", "0"];
    Guarded::start(reactors, &[&own, settings].concat())
}

pub fn a_room_is_joined_where_the_backend_allows_it(reactors: usize) {
    let service = Service::start(by_name);
    let guarded = decided_by(&service, reactors, &[]);
    let mut client = guarded.connect("alice", json!({"join": ["no.*"], "publish": ["*"]}));
    client.join("ok.a");
    let seen = service.last();
    assert_eq!((&*seen.method, &*seen.path), ("POST", "/join"));
    assert_eq!(seen.body, json!({"user": "alice", "clientId": client.client_id(), "roomId": "ok.a"}));
    assert!(seen.all("authorization").is_empty() && seen.all("cookie").is_empty());
    let refused = client.request(json!({"type": "join_room", "roomId": "no.b"}));
    assert_eq!(refused["code"], "forbidden", "what the token allows does not count: {refused}");
    assert_eq!(client.request(json!({"type": "join_room", "roomId": "raw/x"}))["code"], "bad_room_id");
    // Members read its history; the others do not.
    assert_eq!(client.request(json!({"type": "history", "roomId": "ok.a"}))["type"], "history");
    assert_eq!(client.request(json!({"type": "history", "roomId": "no.b"}))["code"], "forbidden");
    assert_eq!(client.request(json!({"type": "leave_room", "roomId": "ok.a"}))["type"], "ack");
    assert_eq!(service.count(), 2);
}

pub fn many_rooms_are_one_question(reactors: usize) {
    let service = Service::start(by_name);
    let guarded = decided_by(&service, reactors, &[]);
    let mut client = guarded.connect("alice", json!({}));
    client.send(&json!({"type": "join_room", "roomIds": ["ok.a", "no.x", "ok.b", "no.y"], "id": 7}));
    let mut said = client.until(|message| message["type"] == "ack");
    assert_eq!(said.pop().unwrap(), json!({"type": "ack", "id": 7}));
    said.sort_by_key(|message| message["roomId"].as_str().unwrap().to_owned());
    let forbidden = |room: &str| json!({"type": "error", "id": 7, "code": "forbidden", "roomId": room});
    let joined = |room: &str| json!({"type": "joined", "id": 7, "roomId": room});
    assert_eq!(said, [forbidden("no.x"), forbidden("no.y"), joined("ok.a"), joined("ok.b")]);
    assert_eq!(service.count(), 1);
    assert_eq!(
        service.last().body,
        json!({"user": "alice", "clientId": client.client_id(), "roomIds": ["ok.a", "no.x", "ok.b", "no.y"]})
    );
    assert_eq!(client.request(json!({"type": "join_room", "roomIds": []}))["type"], "ack");
    assert_eq!(service.count(), 1, "nothing is no question");
    let rooms: Vec<String> = (0..1_024).map(|room| format!("ok.{room:0>250}")).collect();
    let guarded = decided_by(&service, reactors, &["--limits.rooms_max", "2000"]);
    let mut client = guarded.connect("bob", json!({}));
    client.send(&json!({"type": "join_room", "roomIds": rooms, "id": 8}));
    let said = client.until(|message| message["type"] == "ack");
    assert_eq!(said.iter().filter(|message| message["type"] == "joined").count(), 1_024);
    assert_eq!(service.count(), 2);
}

pub fn publishing_is_as_the_backend_says_and_else_as_the_token(reactors: usize) {
    let service = Service::start(by_name);
    let guarded = decided_by(&service, reactors, &["--limits.rooms_max", "4"]);
    let mut client = guarded.connect("alice", json!({"publish": ["ok.token", "ok.hush"]}));
    let say = |room: &str| json!({"type": "room_msg", "roomId": room, "content": 1});
    for (room, reply) in [("ok.speak", "ack"), ("ok.hush", "error"), ("ok.token", "ack"), ("ok.other", "error")] {
        client.join(room);
        assert_eq!(client.request(say(room))["type"], reply, "{room}");
    }
    // What is decided about rooms that were left is forgotten, and decided anew.
    for round in 0..10 {
        client.request(json!({"type": "leave_room", "roomId": "ok.token"}));
        let room = format!("ok.{round}.speak");
        client.join(&room);
        assert_eq!(client.request(say(&room))["type"], "ack");
        client.request(json!({"type": "leave_room", "roomId": room}));
    }
    assert_eq!(client.request(say("ok.hush"))["code"], "forbidden");
    assert_eq!(client.request(say("ok.speak"))["type"], "ack");
    assert_eq!(client.request(say("ok.0.speak"))["code"], "forbidden", "it is a member no longer");
}

pub fn what_stands_behind_a_join_waits_for_it(reactors: usize) {
    let service = Service::start(|seen| match by_name(seen) {
        Reply::Json(status, body) => Reply::Held(status, body),
        other => other,
    });
    let guarded = decided_by(&service, reactors, &["--auth.url_timeout", "1m"]);
    let mut client = guarded.connect("alice", json!({"publish": ["*"]}));
    client.send(&json!({"type": "ping", "id": 1}));
    client.send(&json!({"type": "join_room", "roomId": "ok.a", "id": 2}));
    client.send(&json!({"type": "room_msg", "roomId": "ok.a", "content": 1, "id": 3}));
    client.send(&json!({"type": "leave_room", "roomId": "ok.a", "id": 4}));
    client.send(&json!({"type": "room_msg", "roomId": "ok.a", "content": 1, "id": 5}));
    assert_eq!(client.recv_json()["type"], "pong");
    service.await_count(1);
    assert!(client.try_recv(Duration::from_millis(100)).is_none());
    service.let_go();
    assert_eq!(client.reply(&json!(2))["type"], "joined");
    assert_eq!(client.reply(&json!(3))["type"], "ack");
    assert_eq!(client.reply(&json!(4))["type"], "ack");
    assert_eq!(client.reply(&json!(5))["code"], "forbidden");
    assert_eq!(service.count(), 1);
}

pub fn a_connection_may_go_while_its_join_is_decided(reactors: usize) {
    let service = Service::start(|_| Reply::Held(200, json!({"allow": true})));
    let guarded = decided_by(&service, reactors, &["--auth.url_timeout", "1m"]);
    let mut staying = guarded.connect("bob", json!({"presence": ["*"]}));
    for _ in 0..3 {
        let mut client = guarded.connect("alice", json!({}));
        client.send(&json!({"type": "join_room", "roomId": "ok.a", "id": 1}));
        drop(client);
    }
    service.await_count(3);
    staying.barrier();
    service.let_go();
    await_metric(&guarded.server, "fanfare_connections", 1);
    staying.join("ok.b");
    let present = staying.request(json!({"type": "presence", "roomId": "ok.a"}));
    assert_eq!(present["count"], 0, "{present}");
}

pub fn without_an_answer_nothing_is_joined(reactors: usize) {
    let service = Service::start(|_| Reply::Silence);
    let guarded = decided_by(&service, reactors, &["--auth.url_timeout", "200ms"]);
    let mut client = guarded.connect("alice", json!({"join": ["*"], "publish": ["*"], "presence": ["*"]}));
    let answers = [
        Reply::Silence,
        Reply::Endless,
        Reply::Json(500, json!({"allow": true})),
        Reply::Json(200, json!({})),
        Reply::Json(200, json!({"allow": "yes"})),
        Reply::Json(200, json!({"allow": null})),
        Reply::Json(200, json!({"allow": true, "publish": "yes"})),
        Reply::Json(200, json!([true])),
        Reply::Bytes(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".to_vec()),
    ];
    for answer in answers {
        let told = format!("{answer:.80?}");
        service.behave(move |_| answer.clone());
        for join in [json!({"type": "join_room", "roomId": "ok.a"}), json!({"type": "join_room", "roomIds": ["ok.a"]})]
        {
            let refused = client.request(join.clone());
            assert_eq!((&refused["code"], &refused["roomId"]), (&json!("unavailable"), &join["roomId"]), "{told}");
        }
        let say = json!({"type": "room_msg", "roomId": "ok.a", "content": 1});
        assert_eq!(client.request(say)["code"], "forbidden", "{told}");
    }
    for status in [401, 403] {
        service.behave(move |_| Reply::Json(status, json!({})));
        assert_eq!(client.request(json!({"type": "join_room", "roomId": "ok.a"}))["code"], "forbidden");
    }
    let present = client.request(json!({"type": "presence", "roomId": "ok.a"}));
    assert_eq!(present["count"], 0, "{present}");
    service.behave(by_name);
    client.join("ok.a");
}

pub fn raw_rooms_are_asked_about_by_their_name(reactors: usize) {
    let service = Service::start(by_name);
    let guarded = decided_by(&service, reactors, &[]);
    let target = |room: &str, may: Value| format!("/raw/{room}?echo=1&token={}", guarded.token("alice", may));
    let status = |target: &str| Client::try_open(&guarded.server, target).err().map(|rejection| rejection.status);
    assert_eq!(status(&target("no", json!({"join": ["raw/no"]}))), Some(403));
    let mut speaker = RawConn::upgrade(&guarded.server, &target("ok.speak", json!({})));
    let seen = service.last().body;
    assert_eq!((&seen["user"], &seen["roomId"]), (&json!("alice"), &json!("raw/ok.speak")));
    assert_eq!(seen["clientId"].as_str().unwrap().len(), 36);
    speaker.send_frame(0x82, b"bytes");
    assert_eq!(speaker.read_frame().unwrap().payload, b"bytes");
    let mut hushed = RawConn::upgrade(&guarded.server, &target("ok.hush", json!({"publish": ["*"]})));
    hushed.send_frame(0x82, b"not allowed");
    hushed.expect_close(1008, "who may only listen");
    service.behave(|_| Reply::Json(500, json!({})));
    assert_eq!(status(&target("ok.speak", json!({"join": ["*"]}))), Some(503));
}

pub fn both_decisions_meet_in_a_raw_room(reactors: usize) {
    let service = Service::start(|seen| match &*seen.path {
        "/connect" => Reply::Json(200, json!({"user": "alice"})),
        _ => by_name(seen),
    });
    let (connect, join) = (service.url("/connect"), service.url("/join"));
    let server = Server::with_reactors(reactors, &["--auth.connect_url", &connect, "--auth.join_url", &join]);
    let mut conn = RawConn::connect(&server);
    conn.send(upgrade_request("/raw/ok.speak?echo=1", &[("Cookie", "a=b")]).as_bytes());
    conn.send_frame(0x81, b"early");
    assert_eq!(status_of(&conn.read_head()), 101);
    assert_eq!(conn.read_frame().unwrap().payload, b"early");
    let seen = service.seen();
    assert_eq!(seen.len(), 2);
    assert_eq!(
        seen[0].body,
        json!({"protocol": "raw", "roomId": "ok.speak", "address": "127.0.0.1", "refresh": false})
    );
    assert_eq!((&seen[1].body["user"], &seen[1].body["roomId"]), (&json!("alice"), &json!("raw/ok.speak")));
    assert!(seen[1].all("cookie").is_empty());
    let mut conn = RawConn::connect(&server);
    conn.send(upgrade_request("/raw/no", &[]).as_bytes());
    assert_eq!(status_of(&conn.read_head()), 403);
}

pub fn joins_do_not_wait_behind_handshakes(reactors: usize) {
    let service = Service::start(|seen| match &*seen.path {
        "/connect" if seen.all("cookie").is_empty() => Reply::Silence,
        "/connect" => Reply::Json(200, json!({"user": "alice"})),
        _ => by_name(seen),
    });
    let (connect, join) = (service.url("/connect"), service.url("/join"));
    let urls = ["--auth.connect_url", &connect, "--auth.join_url", &join];
    let patient = ["--auth.url_concurrency", "4", "--auth.url_timeout", "1m", "--limits.handshake_timeout", "1m"];
    let server = Server::with_reactors(reactors, &[&urls[..], &patient].concat());
    let mut open = RawConn::connect(&server);
    open.send(upgrade_request("/", &[("Cookie", "a=b")]).as_bytes());
    assert_eq!(status_of(&open.read_head()), 101);
    let strangers: Vec<RawConn> = (0..20)
        .map(|_| {
            let mut stranger = RawConn::connect(&server);
            stranger.send(upgrade_request("/", &[]).as_bytes());
            stranger
        })
        .collect();
    service.await_count(1 + 3);
    for id in 0..10 {
        let room = format!("ok.{id}");
        open.send_frame(0x81, json!({"type": "join_room", "roomId": room, "id": id}).to_string().as_bytes());
        while !open.read_text().contains("\"joined\"") {}
    }
    assert_eq!(service.count(), 1 + 3 + 10);
    drop(strangers);
}

pub fn more_rooms_than_there_may_be_are_not_asked_about(reactors: usize) {
    let service = Service::start(by_name);
    let guarded = decided_by(&service, reactors, &["--limits.rooms_max", "2"]);
    let mut client = guarded.connect("alice", json!({}));
    let rooms = json!({"type": "join_room", "roomIds": ["ok.a", "ok.b", "ok.c"]});
    assert_eq!(client.request(rooms)["code"], "too_many_rooms");
    assert_eq!(service.count(), 0);
    client.join("ok.a");
    client.join("ok.b");
    assert_eq!(client.request(json!({"type": "join_room", "roomId": "ok.c"}))["code"], "too_many_rooms");
    let again = json!({"type": "join_room", "roomId": "ok.a", "since": {"epoch": "e", "offset": 1}});
    assert_eq!(client.request(again)["code"], "already_joined");
    assert_eq!(service.count(), 2);
    client.join("ok.a");
    assert_eq!(service.count(), 3, "a room that it is in takes no other place");
}

pub fn what_a_waiting_join_holds_is_counted_once(reactors: usize) {
    const MANY: usize = 500;
    let service = Service::start(|seen| match by_name(seen) {
        Reply::Json(status, body) => Reply::Held(status, body),
        other => other,
    });
    let settings = ["--auth.url_timeout", "1m", "--limits.rooms_max", "1000"];
    let guarded = decided_by(&service, reactors, &settings);
    let mut client = guarded.connect("alice", json!({}));
    let rooms: Vec<String> = (0..MANY).map(|room| format!("ok.{room:0>200}")).collect();
    let held_bytes = || metric(&guarded.server, "fanfare_queue_bytes") as usize;
    client.send(&json!({"type": "join_room", "roomIds": rooms, "id": 1}));
    service.await_count(1);
    let bytes = MANY * 203;
    eventually("it is counted", || held_bytes() >= bytes);
    assert!(held_bytes() < bytes + bytes / 2, "{} of {bytes} bytes", held_bytes());
    service.let_go();
    assert_eq!(client.until(|message| message["type"] == "ack").len(), MANY + 1);
    eventually("it is let go of", || held_bytes() == 0);
}
