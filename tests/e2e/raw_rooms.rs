//! Raw rooms: bytes in, the same bytes out.

use std::time::Duration;

use fanfare_testing::{Client, Way};
use serde_json::json;
use tungstenite::Message;

pub fn raw_messages_keep_bytes_and_opcode(way: Way) {
    let server = way.start(&[]);
    let mut alice = Client::open(&server, "/raw/den?userId=alice");
    let mut bob = Client::open(&server, "/raw/den?userId=bob");
    let mut nameless = Client::open(&server, "/raw/den");
    settle(&mut [&mut alice, &mut bob, &mut nameless]);
    let every_byte: Vec<u8> = (0..=255).collect();
    for message in [
        Message::text("no JSON at all"),
        Message::text(""),
        Message::text("🦀 \u{0} {\"type\":\"ping\"}"),
        Message::binary(every_byte),
        Message::binary(Vec::new()),
        Message::binary(vec![0xAB; 60_000]),
    ] {
        alice.send_message(message.clone());
        assert_eq!(bob.recv(), message);
        assert_eq!(nameless.recv(), message);
    }
    nameless.send_message(Message::text("from nobody"));
    assert_eq!(alice.recv(), Message::text("from nobody"), "alice got none of her own");
    assert_eq!(bob.recv(), Message::text("from nobody"));
    bob.leave();
    alice.nothing_for(50);
    nameless.nothing_for(0);
}

pub fn raw_echo_reaches_the_sender(way: Way) {
    let server = way.start(&[]);
    let mut echoing = Client::open(&server, "/raw/den?echo=1");
    let mut plain = Client::open(&server, "/raw/den?userId=bob&echo=0");
    for at in 0..100 {
        let message =
            if at % 2 == 0 { Message::text(at.to_string()) } else { Message::binary(vec![at; usize::from(at)]) };
        echoing.send_message(message.clone());
        assert_eq!(echoing.recv(), message, "from the first message on");
    }
    // The plain one is a member once it hears the other; then both read on to a marker.
    let (probe, marker) = (Message::text("probe"), Message::text("marker"));
    for sent in 0.. {
        assert!(sent < 500, "the plain connection hears nothing");
        echoing.send_message(probe.clone());
        assert_eq!(echoing.recv(), probe);
        if hears(&mut plain, &probe) {
            break;
        }
    }
    echoing.send_message(marker.clone());
    assert_eq!(echoing.recv(), marker);
    while plain.recv() != marker {}
    plain.send_message(Message::text("once"));
    assert_eq!(echoing.recv(), Message::text("once"));
    echoing.send_message(Message::text("twice"));
    assert_eq!(plain.recv(), Message::text("twice"), "without echo nothing comes back");
    assert_eq!(echoing.recv(), Message::text("twice"));
}

pub fn an_echo_sends_back_each_message_and_nothing_else(way: Way) {
    let server = way.start(&["--echo", "/echo", "--echo.paths", "/raw/den"]);
    let mut echo = Client::open(&server, "/echo?userId=alice");
    let mut other = Client::open(&server, "/echo?userId=%ff");
    let mut named_like_a_room = Client::open(&server, "/raw/den?x=1");
    let mut json = Client::connect(&server, "alice");
    json.publish(json!({"type": "private_msg", "toUser": "alice", "content": 1}));
    json.publish(json!({"type": "broadcast", "content": 1}));
    let sent = [
        Message::text(""),
        Message::text("🦀 \u{0} {\"type\":\"ping\"}"),
        Message::binary((0..=255).collect::<Vec<u8>>()),
        Message::binary(vec![0xAB; 200_000]),
        Message::binary(Vec::new()),
    ];
    for message in sent.iter().cycle().take(50) {
        echo.send_message(message.clone());
    }
    for message in sent.iter().cycle().take(50) {
        assert_eq!(echo.recv(), *message);
    }
    named_like_a_room.send_message(Message::text("x"));
    assert_eq!(named_like_a_room.recv(), Message::text("x"), "such a path means nothing else");
    for client in [&mut echo, &mut other, &mut named_like_a_room] {
        client.nothing_for(20);
    }
    echo.leave();
}

pub fn raw_rooms_are_a_namespace_of_their_own(way: Way) {
    let server = way.start(&[]);
    let mut json_member = Client::connect(&server, "alice");
    json_member.join("den");
    json_member.expect_type("system");
    let mut raw = Client::open(&server, "/raw/den?userId=bob");
    let mut raw_sender = Client::open(&server, "/raw/den");
    let mut elsewhere = Client::open(&server, "/raw/attic");
    settle(&mut [&mut raw, &mut raw_sender]);
    let presence = json_member.request(json!({"type": "presence", "roomId": "den"}));
    assert_eq!(presence["users"], json!(["alice"]));
    json_member.publish(json!({"type": "room_msg", "roomId": "den", "content": 1}));
    json_member.publish(json!({"type": "private_msg", "toUser": "bob", "content": 1}));
    json_member.publish(json!({"type": "broadcast", "content": 1}));
    raw.nothing_for(50);
    raw_sender.send_message(Message::text("raw"));
    assert_eq!(raw.recv(), Message::text("raw"), "no envelope reached a raw connection");
    json_member.nothing_for(50);
    elsewhere.nothing_for(0);
}

pub fn raw_room_names_are_percent_decoded(way: Way) {
    let server = way.start(&[]);
    for (one, other) in [
        ("den", "%64en"),
        ("a%20b", "a%20%62"),
        ("a%2Fb", "%61%2fb"),
        ("a+b", "a%2Bb"),
        ("%F0%9F%A6%80", "%f0%9f%a6%80"),
    ] {
        let mut alice = Client::open(&server, &format!("/raw/{one}"));
        let mut bob = Client::open(&server, &format!("/raw/{other}"));
        settle(&mut [&mut alice, &mut bob]);
    }
}

pub fn raw_rooms_keep_order(way: Way) {
    const COUNT: u32 = 1_000;
    let server = way.start(&[]);
    let mut sender = Client::open(&server, "/raw/den");
    let mut receivers: Vec<Client> = (0..4).map(|_| Client::open(&server, "/raw/den")).collect();
    let mut all: Vec<&mut Client> = vec![&mut sender];
    all.extend(receivers.iter_mut());
    settle(&mut all);
    std::thread::scope(|scope| {
        for receiver in &mut receivers {
            scope.spawn(move || {
                for at in 0..COUNT {
                    let expected = if at % 3 == 0 {
                        Message::binary(at.to_be_bytes().to_vec())
                    } else {
                        Message::text(at.to_string())
                    };
                    assert_eq!(receiver.recv(), expected, "message {at}");
                }
            });
        }
        for at in 0..COUNT {
            sender.send_message(if at % 3 == 0 {
                Message::binary(at.to_be_bytes().to_vec())
            } else {
                Message::text(at.to_string())
            });
        }
    });
}

/// Returns when each client hears every other. A raw room tells nobody that it has been joined, so each sends
/// numbered probes until every other has heard one, and last a marker that all read on to.
#[track_caller]
fn settle(clients: &mut [&mut Client]) {
    for sender in 0..clients.len() {
        for receiver in (0..clients.len()).filter(|at| *at != sender) {
            let probe = Message::text(format!("probe {sender} {receiver}"));
            let mut sent = 0;
            while !hears(clients[receiver], &probe) {
                assert!(sent < 500, "{receiver} does not hear {sender}");
                clients[sender].send_message(probe.clone());
                sent += 1;
            }
        }
    }
    let marker = |sender: usize| Message::text(format!("marker {sender}"));
    for (sender, client) in clients.iter_mut().enumerate() {
        client.send_message(marker(sender));
    }
    for at in 0..clients.len() {
        let mut missing: Vec<Message> = (0..clients.len()).filter(|sender| *sender != at).map(marker).collect();
        while !missing.is_empty() {
            let message = clients[at].recv();
            missing.retain(|marker| *marker != message);
        }
    }
}

/// Reads until `probe` or until nothing comes for a moment.
fn hears(client: &mut Client, probe: &Message) -> bool {
    while let Some(message) = client.try_recv(Duration::from_millis(20)) {
        if message == *probe {
            return true;
        }
    }
    false
}
