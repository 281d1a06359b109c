//! Messages to a user, to one connection, and to everyone.

use fanfare_testing::{Client, Way};
use serde_json::{Value, json};

pub fn private_msg_reaches_every_connection_of_a_user(way: Way) {
    let server = way.start(&[]);
    let mut alice = Client::connect(&server, "alice");
    let mut alice_too = Client::connect(&server, "alice");
    let mut bobs: Vec<Client> = (0..4).map(|_| Client::connect(&server, "bob")).collect();
    let mut carol = Client::connect(&server, "carol");

    alice.publish(json!({"type": "private_msg", "toUser": "bob", "content": {"n": 1}}));
    let received: Vec<Value> = bobs.iter_mut().map(|bob| bob.recv_type("private_msg")).collect();
    for message in &received {
        assert_eq!(message["from"], "alice");
        assert_eq!(message["content"], json!({"n": 1}));
        assert!(message["time"].as_u64().is_some_and(is_unix_ms));
        assert_eq!(message["time"], received[0]["time"], "one time for all receivers");
    }

    alice.publish(json!({"type": "private_msg", "toUser": "carol", "content": "marker"}));
    assert_eq!(carol.recv_type("private_msg")["content"], "marker", "carol's first");
    for other in [&mut alice, &mut alice_too] {
        other.nothing_for(50);
    }
}

pub fn private_msg_to_oneself_reaches_the_sender_too(way: Way) {
    let server = way.start(&[]);
    let mut one = Client::connect(&server, "alice");
    let mut other = Client::connect(&server, "alice");
    one.publish(json!({"type": "private_msg", "toUser": "alice", "content": "note"}));
    for client in [&mut one, &mut other] {
        let message = client.recv_type("private_msg");
        assert_eq!((&message["from"], &message["content"]), (&json!("alice"), &json!("note")));
    }
}

pub fn private_reaches_one_connection(way: Way) {
    let server = way.start(&[]);
    let mut alice = Client::connect(&server, "alice");
    let mut targets: Vec<Client> = (0..4).map(|_| Client::connect(&server, "bob")).collect();
    targets.extend((0..4).map(|_| Client::anonymous(&server)));
    for (at, target) in targets.iter().enumerate() {
        alice.publish(json!({"type": "private", "to": target.client_id(), "data": {"for": at, "list": [1, null]}}));
    }
    for (at, target) in targets.iter_mut().enumerate() {
        let message = target.recv_type("private");
        assert_eq!(message["data"], json!({"for": at, "list": [1, null]}));
        assert_eq!(message["from"], "alice");
        target.nothing_for(10);
    }
    let own = alice.client_id().to_owned();
    alice.publish(json!({"type": "private", "to": own, "data": "to myself"}));
    assert_eq!(alice.recv_type("private")["data"], "to myself");
}

pub fn private_to_a_gone_connection_reaches_nobody(way: Way) {
    let server = way.start(&[]);
    let mut alice = Client::connect(&server, "alice");
    let gone: Vec<String> = (0..4)
        .map(|_| {
            let client = Client::connect(&server, "gone");
            let id = client.client_id().to_owned();
            client.leave();
            id
        })
        .collect();
    let mut heirs: Vec<Client> = (0..4).map(|_| Client::connect(&server, "heir")).collect();
    for id in &gone {
        alice.publish(json!({"type": "private", "to": id, "data": "for the dead"}));
    }
    for heir in &mut heirs {
        alice.publish(json!({"type": "private", "to": heir.client_id(), "data": "marker"}));
        assert_eq!(heir.recv_type("private")["data"], "marker", "a reused slot is not the gone client");
    }
}

pub fn publishing_to_nobody_is_no_error(way: Way) {
    let server = way.start(&[]);
    let mut alice = Client::connect(&server, "alice");
    for command in [
        json!({"type": "private_msg", "toUser": "nobody", "content": 1}),
        json!({"type": "private", "to": "6f6d1f4e-3c52-4d0a-9f35-0e6b6b1f2a77", "data": 1}),
        json!({"type": "room_msg", "roomId": "empty", "content": 1}),
        json!({"type": "broadcast", "content": 1}),
    ] {
        alice.publish(command);
    }
    alice.nothing_for(20);
}

pub fn broadcast_content_spares_the_sender(way: Way) {
    let server = way.start(&[]);
    let mut alice = Client::connect(&server, "alice");
    let mut others = vec![
        Client::connect(&server, "alice"),
        Client::connect(&server, "bob"),
        Client::connect(&server, "bob"),
        Client::anonymous(&server),
    ];
    alice.publish(json!({"type": "broadcast", "content": ["for", "others"]}));
    let mut times = Vec::new();
    for other in &mut others {
        let message = other.recv_type("broadcast");
        assert_eq!(message["from"], "alice");
        assert_eq!(message["content"], json!(["for", "others"]));
        times.push(message["time"].as_u64().expect("a broadcast with content has a time"));
    }
    assert!(is_unix_ms(times[0]) && times.iter().all(|time| *time == times[0]), "{times:?}");
    // Everyone is one topic, so this one can only come behind the first.
    alice.publish(json!({"type": "broadcast", "data": "marker"}));
    assert_eq!(alice.recv_type("broadcast")["data"], "marker", "the sender's first");
}

pub fn broadcast_data_reaches_the_sender_too(way: Way) {
    let server = way.start(&[]);
    let mut clients = vec![
        Client::anonymous(&server),
        Client::anonymous(&server),
        Client::connect(&server, "alice"),
        Client::connect(&server, "alice"),
    ];
    let from = clients[0].user_id().to_owned();
    clients[0].publish(json!({"type": "broadcast", "data": {"tick": 7}}));
    for client in &mut clients {
        let message = client.recv_type("broadcast");
        assert_eq!(message["data"], json!({"tick": 7}));
        assert_eq!(message["from"], from.as_str());
        client.nothing_for(10);
    }
}

pub fn user_ids_are_escaped_in_events(way: Way) {
    let server = way.start(&[]);
    let mut bob = Client::connect(&server, "bob");
    for (at, user) in
        ["quo\"te", "back\\slash", "two\nlines", "nul\0", "🦀 crab", "a&b=c+d", "{user}"].into_iter().enumerate()
    {
        let mut client = Client::connect(&server, user);
        client.publish(json!({"type": "private_msg", "toUser": "bob", "content": 1}));
        assert_eq!(bob.recv_type("private_msg")["from"], user);
        bob.publish(json!({"type": "private_msg", "toUser": user, "content": 2}));
        assert_eq!(client.recv_type("private_msg")["content"], 2, "{user:?}");
        client.join(&format!("room-{at}"));
        let notice = client.expect_type("system");
        assert_eq!(notice["userId"], user);
        assert_eq!(notice["content"], format!("{user} joined"));
    }
}

/// Between 2020 and 2100: milliseconds, not seconds and not nanoseconds.
fn is_unix_ms(time: u64) -> bool {
    (1_577_836_800_000..4_102_444_800_000).contains(&time)
}
