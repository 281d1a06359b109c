//! What an open connection may do.

use fanfare_testing::Client;
use fanfare_testing::raw::RawConn;
use serde_json::{Value, json};

use super::tokens::Guarded;

pub fn each_command_is_asked_for(reactors: usize) {
    let guarded = Guarded::start(reactors, &[]);
    let mut able = guarded.connect(
        "able",
        json!({"join": ["chat.*"], "publish": ["chat.*"], "presence": ["chat.*"], "private": true, "broadcast": true}),
    );
    let mut other = guarded.connect("other", json!({"join": ["chat.*"]}));
    let mut unable = guarded.connect("unable", json!({}));
    other.join("chat.a");
    let commands = |to: &str| {
        [
            (json!({"type": "join_room", "roomId": "chat.a"}), "joined"),
            (json!({"type": "room_msg", "roomId": "chat.a", "content": 1}), "ack"),
            (json!({"type": "history", "roomId": "chat.a"}), "history"),
            (json!({"type": "presence", "roomId": "chat.a"}), "presence"),
            (json!({"type": "private_msg", "toUser": "other", "content": 2}), "ack"),
            (json!({"type": "private", "to": to, "data": 3}), "ack"),
            (json!({"type": "broadcast", "content": 4}), "ack"),
            (json!({"type": "broadcast", "data": 5}), "ack"),
        ]
    };
    let to = other.client_id().to_owned();
    for (command, reply) in commands(&to) {
        let refused = unable.request(command.clone());
        assert_eq!((&refused["type"], &refused["code"]), (&json!("error"), &json!("forbidden")), "{command}");
        assert_eq!(able.request(command.clone())["type"], reply, "{command}");
    }
    for (command, reply) in
        [(json!({"type": "leave_room", "roomId": "chat.a"}), "ack"), (json!({"type": "ping"}), "pong")]
    {
        assert_eq!(unable.request(command.clone())["type"], reply, "{command}");
    }
    for command in ["join_room", "tune", "leave_room", "room_msg", "room_msgs", "history", "presence"] {
        let refused = able.request(json!({"type": command, "roomId": "raw/x", "content": 1, "updates": []}));
        assert_eq!(refused["code"], "bad_room_id", "{command}");
    }
    // Everything was said twice, and heard once.
    let heard: Vec<u64> = std::iter::from_fn(|| other.try_recv(std::time::Duration::from_millis(300)))
        .filter_map(|message| serde_json::from_str::<Value>(message.to_text().ok()?).ok())
        .filter_map(|message| message["content"].as_u64().or(message["data"].as_u64()))
        .collect();
    assert_eq!(heard.len(), 5, "{heard:?}");
}

pub fn of_many_rooms_those_that_are_forbidden_are_told_and_the_others_joined(reactors: usize) {
    let guarded = Guarded::start(reactors, &["--rooms.notice_members_max", "0"]);
    let mut client = guarded.connect("alice", json!({"join": ["chat.*"]}));
    client.send(&json!({"type": "join_room", "roomIds": ["chat.a", "x", "chat.b", "y"], "id": 7}));
    let mut said = client.until(|message| message["type"] == "ack");
    assert_eq!(said.pop().unwrap(), json!({"type": "ack", "id": 7}));
    said.sort_by_key(|message| message["roomId"].as_str().unwrap().to_owned());
    let forbidden = |room: &str| json!({"type": "error", "id": 7, "code": "forbidden", "roomId": room});
    let joined = |room: &str| json!({"type": "joined", "id": 7, "roomId": room});
    assert_eq!(said, [joined("chat.a"), joined("chat.b"), forbidden("x"), forbidden("y")]);
    client.send(&json!({"type": "join_room", "roomIds": ["x"], "id": 8}));
    assert_eq!(client.recv_json()["code"], "forbidden");
    assert_eq!(client.recv_json(), json!({"type": "ack", "id": 8}));
    client.send(&json!({"type": "join_room", "roomIds": ["chat.c", "raw/x"], "id": 9}));
    let refused = client.recv_json();
    assert_eq!((&refused["id"], &refused["code"]), (&json!(9), &json!("bad_room_id")), "{refused}");
}

pub fn publishing_needs_membership(reactors: usize) {
    let guarded = Guarded::start(reactors, &[]);
    let may = json!({"join": ["r"], "publish": ["r"]});
    let (mut alice, mut bob) = (guarded.connect("alice", may.clone()), guarded.connect("bob", may));
    bob.join("r");
    let say = |content: u64| json!({"type": "room_msg", "roomId": "r", "content": content});
    assert_eq!(alice.request(say(1))["code"], "forbidden");
    // In one go: the second is said by a member.
    alice.send(&json!({"type": "join_room", "roomId": "r"}));
    alice.publish(say(2));
    alice.send(&json!({"type": "leave_room", "roomId": "r"}));
    assert_eq!(alice.request(say(3))["code"], "forbidden");
    assert_eq!(bob.expect_type("room_msg")["content"], 2);
    bob.barrier();
}

pub fn publishing_into_a_keyed_room_needs_no_membership(reactors: usize) {
    let guarded = Guarded::start(reactors, &["--room", "match=px.*,keyed=true"]);
    let mut feed = guarded.connect("feed", json!({"publish": ["px.*", "den"]}));
    let mut reader = guarded.connect("reader", json!({"join": ["px.*"]}));
    let update = |room: &str| json!({"type": "room_msg", "roomId": room, "item": "a", "content": 1});
    let updates = |room: &str| json!({"type": "room_msgs", "roomId": room, "updates": [{"item": "a", "content": 1}]});
    for command in [update("px.a"), updates("px.a")] {
        assert_ne!(feed.request(command.clone())["code"], "forbidden", "{command}");
        let refused = reader.request(command);
        assert_eq!((&refused["code"], &refused["roomId"]), (&json!("forbidden"), &json!("px.a")), "{refused}");
    }
    let refused = feed.request(update("den"));
    assert_eq!((&refused["code"], &refused["roomId"]), (&json!("forbidden"), &json!("den")), "{refused}");
    assert_eq!(feed.request(json!({"type": "join_room", "roomId": "px.a"}))["code"], "forbidden");
    assert_eq!(feed.request(json!({"type": "tune", "roomId": "px.a", "interval": 1}))["code"], "not_joined");
}

pub fn raw_rooms_are_asked_for_by_their_name(reactors: usize) {
    let guarded = Guarded::start(reactors, &[]);
    let target = |room: &str, may: Value| format!("/raw/{room}?echo=1&token={}", guarded.token("alice", may));
    let status = |target: &str| Client::try_open(&guarded.server, target).err().map(|rejection| rejection.status);
    let both = json!({"join": ["raw/r"], "publish": ["raw/r"]});
    assert_eq!(status(&target("r", json!({"join": ["r"], "publish": ["r"]}))), Some(403));
    assert_eq!(status(&target("other", both.clone())), Some(403));
    assert_eq!(status("/raw/r"), Some(401));
    let mut speaker = RawConn::upgrade(&guarded.server, &target("r", both));
    let mut listener = RawConn::upgrade(&guarded.server, &target("r", json!({"join": ["raw/*"]})));
    speaker.send_frame(0x82, b"bytes");
    assert_eq!(speaker.read_frame().unwrap().payload, b"bytes");
    assert_eq!(listener.read_frame().unwrap().payload, b"bytes");
    listener.send_frame(0x82, b"not allowed");
    listener.expect_close(1008, "who may only listen");
    speaker.nothing_more();
}

pub fn keyed_raw_rooms_need_the_same_permissions(reactors: usize) {
    let guarded = Guarded::start(reactors, &["--room", "match=raw/px,keyed=true"]);
    let target = |may: Value| format!("/raw/px?mode=latest&token={}", guarded.token("alice", may));
    let bad = target(json!({"join": ["den"]})).replace("latest", "newest");
    let refused = Client::try_open(&guarded.server, &bad).err().map(|rejection| rejection.status);
    assert_eq!(refused, Some(403), "what is wrong with the options is for members to know");
    let mut speaker = RawConn::upgrade(&guarded.server, &target(json!({"join": ["raw/*"], "publish": ["raw/px"]})));
    let mut listener = RawConn::upgrade(&guarded.server, &target(json!({"join": ["raw/px"]})));
    for client in [&mut speaker, &mut listener] {
        let end = client.read_frame().unwrap().payload;
        assert_eq!(end[..18], [0; 18], "no snapshot, at no offset");
    }
    speaker.send_frame(0x82, b"\0\x01ax");
    let update = [&[0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1][..], b"ax"].concat();
    assert_eq!(speaker.read_frame().unwrap().payload, update);
    assert_eq!(listener.read_frame().unwrap().payload, update);
    listener.send_frame(0x82, b"\0\x01ay");
    listener.expect_close(1008, "who may only listen");
    speaker.nothing_more();
}

pub fn the_tokens_rate_replaces_the_configured_one(reactors: usize) {
    let guarded = Guarded::start(reactors, &["--rate.messages_per_second", "3"]);
    let limited_after = |client: &mut Client| {
        let limited = |_: &u64| client.request(json!({"type": "ping"}))["code"] == "rate_limited";
        (0..40).find(limited)
    };
    assert_eq!(limited_after(&mut guarded.connect("usual", json!({}))), Some(3));
    let own = |rate: u64| json!({"rate": {"messages_per_second": rate}});
    assert_eq!(limited_after(&mut guarded.connect("own", own(10))), Some(10));
    assert_eq!(limited_after(&mut guarded.connect("endless", own(0))), None);
}
