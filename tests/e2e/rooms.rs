//! Rooms: membership, notices, messages, presence and their limits.

use std::collections::BTreeSet;

use fanfare_testing::{Client, Server, Way};
use serde_json::{Value, json};

pub fn join_and_leave_are_told(way: Way) {
    let server = way.start(&[]);
    let mut alice = Client::connect(&server, "alice");
    let mut bob = Client::connect(&server, "bob");
    alice.send(&json!({"type": "join_room", "roomId": "den"}));
    assert_notice(&alice.recv_json(), "join", "alice", "alice joined");
    server.settle();
    bob.send(&json!({"type": "join_room", "roomId": "den"}));
    for client in [&mut alice, &mut bob] {
        assert_notice(&client.recv_json(), "join", "bob", "bob joined");
    }
    bob.publish(json!({"type": "leave_room", "roomId": "den"}));
    assert_notice(&alice.recv_json(), "leave", "bob", "bob left");
    alice.publish(json!({"type": "room_msg", "roomId": "den", "content": "unheard"}));
    bob.nothing_for(50);
    alice.nothing_for(0);
}

pub fn disconnect_leaves_every_room(way: Way) {
    let server = way.start(&[]);
    let mut alice = Client::connect(&server, "alice");
    let rooms = ["r0", "r1", "r2", "r3"];
    for room in rooms {
        alice.join(room);
        alice.expect_type("system");
    }
    for goodbye in [true, false] {
        let mut bob = Client::connect(&server, "bob");
        for room in rooms {
            bob.join(room);
        }
        for _ in rooms {
            assert_eq!(alice.recv_type("system")["event"], "join");
        }
        if goodbye {
            bob.leave();
        } else {
            drop(bob);
        }
        let mut left = BTreeSet::new();
        for _ in rooms {
            let notice = alice.recv_type("system");
            assert_eq!((&notice["event"], &notice["content"]), (&json!("leave"), &json!("bob left")));
            left.insert(notice["roomId"].as_str().unwrap_or_default().to_owned());
        }
        assert_eq!(left, rooms.map(str::to_owned).into());
    }
    alice.nothing_for(20);
}

pub fn joining_twice_is_joining_once(way: Way) {
    let server = way.start(&[]);
    let mut alice = Client::connect(&server, "alice");
    let mut bob = Client::connect(&server, "bob");
    alice.join("den");
    alice.expect_type("system");
    alice.join("den");
    bob.publish(json!({"type": "room_msg", "roomId": "den", "content": 1}));
    let message = alice.recv_json();
    assert_eq!(message["type"], "room_msg", "no second notice, and the message: {message}");
    alice.nothing_for(20);
    let presence = bob.request(json!({"type": "presence", "roomId": "den"}));
    assert_eq!(presence["count"], 1);
    alice.publish(json!({"type": "leave_room", "roomId": "den"}));
    let presence = bob.request(json!({"type": "presence", "roomId": "den"}));
    assert_eq!(presence["count"], 0, "one leave undoes both joins");
}

pub fn many_rooms_in_one_join(way: Way) {
    let server = way.start(&["--rooms.notice_members_max", "0"]);
    let mut alice = Client::connect(&server, "alice");
    let mut bob = Client::connect(&server, "bob");
    let rooms = ["one", "two", "three", "four", "five"];
    alice.send(&json!({"type": "join_room", "roomIds": rooms, "id": 42}));
    let replies = alice.until(|json| json["type"] == "ack");
    let ack = replies.last().expect("never empty");
    assert_eq!(ack["id"], 42);
    let joined: Vec<&str> = replies[..replies.len() - 1]
        .iter()
        .map(|reply| {
            assert_eq!(reply["type"], "joined", "{reply}");
            reply["roomId"].as_str().expect("a room id")
        })
        .collect();
    assert_eq!(joined.len(), rooms.len(), "one `joined` per room: {joined:?}");
    assert_eq!(BTreeSet::from_iter(joined), BTreeSet::from(rooms));
    for room in rooms {
        bob.publish(json!({"type": "room_msg", "roomId": room, "content": room}));
        let message = alice.recv_type("room_msg");
        assert_eq!((&message["roomId"], &message["content"]), (&json!(room), &json!(room)));
    }
    // Without an id there is neither `joined` nor `ack`.
    bob.send(&json!({"type": "join_room", "roomIds": rooms}));
    bob.nothing_for(50);
}

pub fn room_msg_spares_only_the_sending_connection(way: Way) {
    let server = way.start(&["--rooms.notice_members_max", "0"]);
    let mut members: Vec<Client> =
        ["alice", "alice", "bob", "bob", "carol"].iter().map(|user| Client::connect(&server, user)).collect();
    let mut stranger = Client::connect(&server, "stranger");
    for member in &mut members {
        member.join("den");
    }
    members[0].publish(json!({"type": "room_msg", "roomId": "den", "content": {"k": "v"}}));
    // The same room is the same topic: this one comes second everywhere, on another node once all have the first.
    server.settle();
    members[4].publish(json!({"type": "room_msg", "roomId": "den", "content": "marker"}));
    let mut times = BTreeSet::new();
    for member in &mut members[1..] {
        let message = member.recv_type("room_msg");
        assert_eq!(message["roomId"], "den");
        assert_eq!(message["from"], "alice");
        assert_eq!(message["content"], json!({"k": "v"}));
        times.insert(message["time"].as_u64().expect("a time"));
    }
    assert_eq!(times.len(), 1, "one time for all receivers: {times:?}");
    assert_eq!(members[0].recv_type("room_msg")["content"], "marker", "the sender's first");
    for member in &mut members[1..4] {
        assert_eq!(member.recv_type("room_msg")["content"], "marker");
    }
    members[4].nothing_for(20);
    stranger.nothing_for(20);
}

pub fn notices_are_per_connection(way: Way) {
    let server = way.start(&[]);
    let mut watcher = Client::connect(&server, "watcher");
    watcher.join("den");
    watcher.expect_type("system");
    let mut one = Client::connect(&server, "alice");
    let mut other = Client::connect(&server, "alice");
    for client in [&mut one, &mut other] {
        client.join("den");
        assert_notice(&watcher.recv_json(), "join", "alice", "alice joined");
    }
    one.leave();
    assert_notice(&watcher.recv_json(), "leave", "alice", "alice left");
    let presence = watcher.request(json!({"type": "presence", "roomId": "den"}));
    assert_eq!(presence["count"], 2, "alice is still there: {presence}");
    other.publish(json!({"type": "leave_room", "roomId": "den"}));
    assert_notice(&watcher.recv_json(), "leave", "alice", "alice left");
}

pub fn anyone_may_publish_in_open_mode(way: Way) {
    let server = way.start(&[]);
    let mut alice = Client::connect(&server, "alice");
    let mut stranger = Client::connect(&server, "stranger");
    alice.join("den");
    stranger.publish(json!({"type": "room_msg", "roomId": "den", "content": "hello"}));
    assert_eq!(alice.expect_type("room_msg")["from"], "stranger");
    stranger.nothing_for(0);
}

pub fn presence_counts_distinct_users(way: Way) {
    let server = way.start(&["--rooms.notice_members_max", "0"]);
    let mut asker = Client::connect(&server, "asker");
    let empty = asker.request(json!({"type": "presence", "roomId": "den"}));
    assert_eq!(empty["type"], "presence");
    assert_eq!(empty["roomId"], "den");
    assert_eq!((&empty["count"], &empty["users"]), (&json!(0), &json!([])));
    let mut members: Vec<Client> =
        ["alice", "alice", "bob", "carol", "carol"].iter().map(|user| Client::connect(&server, user)).collect();
    for member in &mut members {
        member.join("den");
    }
    // Without an id it is answered as well.
    asker.send(&json!({"type": "presence", "roomId": "den"}));
    let presence = asker.recv_type("presence");
    assert_eq!(presence["count"], 3);
    assert_eq!(users_of(&presence), ["alice", "bob", "carol"]);
    assert!(presence["truncated"].as_bool() != Some(true), "{presence}");
    members[2].publish(json!({"type": "leave_room", "roomId": "den"}));
    members[0].publish(json!({"type": "leave_room", "roomId": "den"}));
    let presence = asker.request(json!({"type": "presence", "roomId": "den"}));
    assert_eq!(presence["count"], 2);
    assert_eq!(users_of(&presence), ["alice", "carol"]);
}

pub fn presence_lists_at_most_a_thousand(way: Way) {
    let server = way.start(&["--rooms.notice_members_max", "0"]);
    let mut members: Vec<Client> = (0..1_000).map(|at| Client::connect(&server, &format!("user-{at}"))).collect();
    for member in &mut members {
        member.join("hall");
    }
    let full = members[0].request(json!({"type": "presence", "roomId": "hall"}));
    assert_eq!(full["count"], 1_000);
    assert_eq!(users_of(&full).len(), 1_000);
    assert!(full["truncated"].as_bool() != Some(true));
    let mut last = Client::connect(&server, "one too many");
    last.join("hall");
    let truncated = last.request(json!({"type": "presence", "roomId": "hall"}));
    assert_eq!(truncated["count"], 1_001, "the count stays exact");
    let users = users_of(&truncated);
    assert_eq!(users.len(), 1_000);
    assert_eq!(users.iter().collect::<BTreeSet<_>>().len(), 1_000, "distinct users");
    assert_eq!(truncated["truncated"], true);
}

pub fn notices_stop_above_the_limit(reactors: usize) {
    let server = Server::with_reactors(reactors, &["--rooms.notice_members_max", "2"]);
    let mut alice = Client::connect(&server, "alice");
    let mut bob = Client::connect(&server, "bob");
    let mut carol = Client::connect(&server, "carol");
    alice.join("den");
    assert_notice(&alice.recv_json(), "join", "alice", "alice joined");
    bob.join("den");
    for client in [&mut alice, &mut bob] {
        assert_notice(&client.recv_json(), "join", "bob", "bob joined");
    }
    // The room has three members now, one more than the limit.
    carol.join("den");
    alice.publish(json!({"type": "room_msg", "roomId": "den", "content": "marker"}));
    for client in [&mut bob, &mut carol] {
        assert_eq!(client.recv_json()["type"], "room_msg", "no notice before it");
    }
    alice.nothing_for(20);
    carol.publish(json!({"type": "leave_room", "roomId": "den"}));
    bob.publish(json!({"type": "leave_room", "roomId": "den"}));
    let notices = alice.until(|json| json["userId"] == "bob");
    assert_notice(notices.last().expect("never empty"), "leave", "bob", "bob left");
}

pub fn notices_can_be_turned_off(way: Way) {
    let server = way.start(&["--rooms.notice_members_max", "0"]);
    let mut alice = Client::connect(&server, "alice");
    let mut bob = Client::connect(&server, "bob");
    alice.join("den");
    bob.join("den");
    bob.publish(json!({"type": "leave_room", "roomId": "den"}));
    bob.publish(json!({"type": "room_msg", "roomId": "den", "content": "marker"}));
    assert_eq!(alice.recv_json()["type"], "room_msg", "no notice before it");
    alice.nothing_for(20);
}

pub fn rooms_are_limited_per_connection(way: Way) {
    let server = way.start(&["--limits.rooms_max", "3"]);
    let mut alice = Client::connect(&server, "alice");
    for room in ["a", "b", "c"] {
        alice.join(room);
    }
    let refused = alice.request(json!({"type": "join_room", "roomId": "d"}));
    assert_eq!((&refused["type"], &refused["code"]), (&json!("error"), &json!("too_many_rooms")));
    alice.join("a");
    alice.publish(json!({"type": "leave_room", "roomId": "b"}));
    alice.join("d");
    // The limit counts a connection's rooms, not a user's.
    Client::connect(&server, "alice").join("e");
}

#[track_caller]
fn assert_notice(notice: &Value, event: &str, user: &str, text: &str) {
    assert_eq!(notice["type"], "system", "{notice}");
    assert_eq!(notice["roomId"], "den", "{notice}");
    assert_eq!(notice["event"], event, "{notice}");
    assert_eq!(notice["userId"], user, "{notice}");
    assert_eq!(notice["content"], text, "{notice}");
}

/// The listed users, sorted: their order is not promised.
fn users_of(presence: &Value) -> Vec<&str> {
    let mut users: Vec<&str> = presence["users"]
        .as_array()
        .expect("a list of users")
        .iter()
        .map(|user| user.as_str().expect("user ids are strings"))
        .collect();
    users.sort_unstable();
    users
}
