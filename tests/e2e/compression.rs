//! Compressed messages to clients: who gets which form of a message, how often one is compressed, and which ones.

use std::collections::BTreeMap;

use fanfare_testing::deflate::{RSV1, try_unpack};
use fanfare_testing::raw::{BINARY, PONG, RawConn, TEXT};
use fanfare_testing::{Client, Server, Signal, Way, await_metric, metric_samples, one_per_reactor};
use serde_json::{Value, json};
use tungstenite::Message;

const COMPRESSIONS: &str = "fanfare_compressions_total";
const NO_NOTICES: [&str; 2] = ["--rooms.notice_members_max", "0"];

/// Of every five members three have the usual window.
const OFFERS: [&str; 5] = [
    "permessage-deflate",
    "permessage-deflate; client_max_window_bits",
    "permessage-deflate; server_no_context_takeover; client_no_context_takeover",
    "permessage-deflate; server_max_window_bits=9",
    "permessage-deflate; server_max_window_bits=10; client_max_window_bits",
];

/// The windows in them.
const WINDOWS: u64 = 3;

pub fn a_room_message_is_compressed_once_for_each_window(reactors: usize) {
    const ROOMS: [&str; 4] = ["den", "attic", "cellar", "yard"];
    const BURST: u64 = 20;
    let server = Server::with_reactors(reactors, &NO_NOTICES);
    let mut deflating = Vec::new();
    for offer in OFFERS.repeat(2 / reactors) {
        deflating.extend(one_per_reactor(&server, reactors, || Client::deflating(&server, "/?userId=d", offer)));
    }
    assert_eq!(deflating.len(), 10);
    let mut plain: Vec<Client> = (0..3).map(|_| Client::connect(&server, "p")).collect();
    for member in deflating.iter_mut().chain(&mut plain) {
        ROOMS.iter().for_each(|room| drop(member.join(room)));
    }
    let tallies: Vec<(u64, u64)> = deflating.iter().map(|member| member.tally().counts()).collect();

    let mut publisher = Client::connect(&server, "alice");
    let mut sent: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for room in ROOMS {
        // 16 KiB is where a frame is shared instead of copied.
        for bytes in [300, 1_000, 5_000, 16_200, 16_400, 70_000, 300_000] {
            let content = lines(room, bytes);
            publisher.publish(json!({"type": "room_msg", "roomId": room, "content": content}));
            sent.entry(room).or_default().push(content);
        }
    }
    // Several messages in a turn.
    for at in 0..BURST {
        for room in ROOMS {
            let content = lines(&format!("{room} {at}"), 400);
            publisher.send(&json!({"type": "room_msg", "roomId": room, "content": content}));
            sent.entry(room).or_default().push(content);
        }
    }
    let messages: usize = sent.values().map(Vec::len).sum();

    let mut first_texts = None;
    for (at, member) in deflating.iter_mut().chain(&mut plain).enumerate() {
        let mut texts: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for _ in 0..messages {
            let text = member.recv_text();
            let message: Value = serde_json::from_str(&text).expect("a message is JSON");
            texts.entry(message["roomId"].as_str().expect("a room").to_owned()).or_default().push(text);
        }
        member.barrier();
        member.nothing_for(0);
        for (room, expected) in &sent {
            let contents = texts[*room].iter().map(|text| serde_json::from_str::<Value>(text).expect("JSON"));
            assert!(contents.map(|message| message["content"].clone()).eq(expected.iter().cloned()), "{room} of {at}");
        }
        // Byte for byte the same for all, the time in it too.
        assert!(*first_texts.get_or_insert_with(|| texts.clone()) == texts, "member {at} got other texts");
    }
    for (member, (compressed, plain)) in deflating.iter().zip(tallies) {
        assert_eq!(member.tally().counts(), (compressed + messages as u64, plain), "all came compressed");
    }
    await_metric(&server, COMPRESSIONS, messages as u64 * WINDOWS);
}

pub fn nothing_is_compressed_for_plain_members(reactors: usize) {
    let server = Server::with_reactors(reactors, &NO_NOTICES);
    let mut members: Vec<Client> = (0..6).map(|at| Client::connect(&server, &format!("plain-{at}"))).collect();
    members.iter_mut().for_each(|member| drop(member.join("den")));
    // Someone elsewhere on each reactor would get it compressed.
    let mut elsewhere = one_per_reactor(&server, reactors, || Client::deflating(&server, "/?userId=d", OFFERS[0]));
    elsewhere.iter_mut().for_each(|client| drop(client.join("attic")));
    let mut publisher = Client::connect(&server, "alice");
    for bytes in [300, 5_000, 20_000] {
        let content = lines("plain", bytes);
        publisher.publish(json!({"type": "room_msg", "roomId": "den", "content": content}));
        publisher.publish(json!({"type": "private_msg", "toUser": "plain-0", "content": content}));
        for member in &mut members {
            assert_eq!(member.recv_type("room_msg")["content"], content.as_str());
        }
        assert_eq!(members[0].recv_type("private_msg")["content"], content.as_str());
    }
    members.iter_mut().chain(&mut elsewhere).for_each(|client| client.nothing_for(0));
    await_metric(&server, COMPRESSIONS, 0);
}

/// Where the only member of a window is the sender, nobody would get the message compressed for it.
pub fn nothing_is_compressed_for_its_own_sender(reactors: usize) {
    const COUNT: u64 = 10;
    let server = Server::with_reactors(reactors, &NO_NOTICES);
    let mut sender = Client::deflating(&server, "/?userId=alice", "permessage-deflate; server_max_window_bits=9");
    let mut plain: Vec<Client> = (0..3).map(|_| Client::connect(&server, "bob")).collect();
    plain.iter_mut().for_each(|member| drop(member.join("den")));
    sender.join("den");
    let message = |text: &str, bytes| json!({"type": "room_msg", "roomId": "den", "content": lines(text, bytes)});
    for _ in 0..COUNT {
        sender.publish(message("alone", 500));
        sender.publish(message("alone", 20_000));
    }
    for member in &mut plain {
        (0..2 * COUNT).for_each(|_| drop(member.recv_type("room_msg")));
        member.nothing_for(0);
    }
    sender.nothing_for(0);
    await_metric(&server, COMPRESSIONS, 0);

    // Together with messages of others, in one turn: those are for the sender.
    server.signal(Signal::STOP);
    for _ in 0..COUNT {
        sender.send(&message("own", 500));
        plain[0].send(&message("others", 500));
    }
    server.signal(Signal::CONT);
    for _ in 0..COUNT {
        assert_eq!(sender.recv_type("room_msg")["from"], "bob");
        plain[0].recv_type("room_msg");
    }
    for member in &mut plain[1..] {
        (0..2 * COUNT).for_each(|_| drop(member.recv_type("room_msg")));
    }
    sender.nothing_for(0);
    plain.iter_mut().for_each(|member| member.nothing_for(0));
    await_metric(&server, COMPRESSIONS, COUNT);
}

pub fn messages_are_compressed_from_the_configured_size_on(way: Way) {
    // Around the sizes where the header of a frame grows, and the default.
    for (setting, from) in [(Some("100"), 100), (Some("126"), 126), (None, 256), (Some("64KiB"), 65_536)] {
        let settings = setting.map_or(vec![], |bytes| vec!["--deflate.min_bytes", bytes]);
        let server = way.start(&settings);
        let (mut raw, agreed) = RawConn::deflating(&server, "/raw/den?echo=1", "permessage-deflate");
        for (bytes, compressed) in [(1, false), (from - 1, false), (from, true), (from + 1, true)] {
            for first in [TEXT, BINARY] {
                let message = vec![b'a'; bytes];
                raw.send_frame(first, &message);
                let received = raw.read_message(agreed.server_bits);
                assert_eq!((received.text, received.compressed), (first == TEXT, compressed), "{bytes} of {from}");
                assert!(received.bytes == message, "{bytes} of {from}");
            }
        }
        raw.nothing_more();
        await_metric(&server, COMPRESSIONS, 4);

        let (mut alice, agreed) = RawConn::deflating(&server, "/?userId=alice", "permessage-deflate");
        alice.read_message(agreed.server_bits);
        if from > 1_024 {
            continue;
        }
        let overhead = br#"{"type":"pong","id":""}"#.len();
        for (bytes, compressed) in [(from - 1, false), (from, true)] {
            let id = "i".repeat(bytes - overhead);
            alice.send_frame(TEXT, json!({"type": "ping", "id": id}).to_string().as_bytes());
            let received = alice.read_message(agreed.server_bits);
            assert_eq!((received.bytes.len(), received.compressed), (bytes, compressed), "a reply");
        }
        alice.nothing_more();
        await_metric(&server, COMPRESSIONS, 5);
    }
}

pub fn what_does_not_become_smaller_comes_plain(way: Way) {
    let server = way.start(&["--deflate.min_bytes", "0"]);
    let (mut raw, agreed) = RawConn::deflating(&server, "/raw/den?echo=1", "permessage-deflate");
    let noise: Vec<u8> = noise(40_000);
    for (message, compressed) in [
        (&b""[..], false),
        (b"a", false),
        (b"aaaa", false),
        (&[b'a'; 30], true),
        (&noise[..300], false),
        (&noise[..17_000], false),
        (&noise, false),
    ] {
        raw.send_frame(BINARY, message);
        let received = raw.read_message(agreed.server_bits);
        assert_eq!(received.compressed, compressed, "{} bytes", message.len());
        assert!(received.bytes == message, "{} bytes", message.len());
    }
    // A control frame never is (RFC 7692 §6.1).
    raw.send_frame(fanfare_testing::raw::PING, &[b'a'; 125]);
    assert_eq!(raw.read_frame().expect("a pong").first, PONG);
}

pub fn a_member_of_a_compressed_batch_gets_none_of_its_own(reactors: usize) {
    const SENT: usize = 4;
    let server = Server::with_reactors(reactors, &NO_NOTICES);
    let small = "permessage-deflate; server_max_window_bits=9";
    let offers = [OFFERS[0], OFFERS[1], small, OFFERS[0], OFFERS[0], small];
    let users: Vec<String> = (0..=offers.len()).map(|at| format!("user-{at}")).collect();
    let targets = users.iter().map(|user| format!("/?userId={user}"));
    let mut members: Vec<Client> =
        offers.iter().zip(targets).map(|(offer, target)| Client::deflating(&server, &target, offer)).collect();
    members.push(Client::connect(&server, &users[offers.len()]));
    members.iter_mut().for_each(|member| drop(member.join("den")));
    for round in 0..5 {
        // What a stopped server finds when it goes on, it takes in one turn.
        server.signal(Signal::STOP);
        for at in 0..SENT {
            for (member, user) in members.iter_mut().zip(&users) {
                // One of them is shared, not copied, and one stays below what is compressed.
                let bytes = [400, 17_000, 20, 2_000][at];
                let content = lines(&format!("{user} {round} {at}"), bytes);
                member.send(&json!({"type": "room_msg", "roomId": "den", "content": content}));
            }
        }
        server.signal(Signal::CONT);
        let mut order: Vec<Vec<String>> = Vec::new();
        for (member, user) in members.iter_mut().zip(&users) {
            let expected = SENT * (users.len() - 1);
            let texts: Vec<String> = (0..expected).map(|_| member.recv_text()).collect();
            member.nothing_for(0);
            assert!(!texts.iter().any(|text| text.contains(&format!("\"from\":\"{user}\""))), "none of its own");
            order.push(texts);
        }
        // Seen by two, the messages of all others stand in the same order.
        for (at, texts) in order.iter().enumerate() {
            let other = (at + 1) % users.len();
            let of_others = |texts: &[String]| -> Vec<String> {
                let own = |text: &String| [at, other].iter().any(|&by| text.contains(&format!("\"{}\"", users[by])));
                texts.iter().filter(|text| !own(text)).cloned().collect()
            };
            assert!(of_others(texts) == of_others(&order[other]), "{at} and {other} saw another order");
        }
    }
    let compressible = 5 * (SENT - 1) * users.len();
    await_metric(&server, COMPRESSIONS, compressible as u64 * 2);
}

pub fn private_messages_and_broadcasts_are_compressed(reactors: usize) {
    let server = Server::with_reactors(reactors, &[]);
    let mut alice = Client::connect(&server, "alice");
    let mut bob: Vec<Client> = (0..3).map(|_| Client::deflating(&server, "/?userId=bob", OFFERS[0])).collect();
    bob.push(Client::connect(&server, "bob"));
    let ids: Vec<String> = bob.iter().map(|client| client.client_id().to_owned()).collect();
    let mut compressions = 0;
    for bytes in [300, 9_000, 20_000] {
        let content = lines("private", bytes);
        // To the user: once for all three.
        alice.publish(json!({"type": "private_msg", "toUser": "bob", "content": content}));
        // To each connection: for each of the three.
        for id in &ids {
            alice.publish(json!({"type": "private", "to": id, "data": content}));
        }
        // To everyone, and to everyone else.
        alice.publish(json!({"type": "broadcast", "data": content}));
        alice.publish(json!({"type": "broadcast", "content": content}));
        compressions += 1 + 3 + 2;
        for client in &mut bob {
            let mut kinds: Vec<String> = Vec::new();
            for _ in 0..4 {
                let message = client.recv_json();
                let body = if message["data"].is_null() { &message["content"] } else { &message["data"] };
                assert_eq!(body, content.as_str());
                kinds.push(message["type"].as_str().expect("a type").to_owned());
            }
            kinds.sort();
            assert_eq!(kinds, ["broadcast", "broadcast", "private", "private_msg"]);
            client.nothing_for(0);
        }
        assert_eq!(alice.recv_type("broadcast")["data"], content.as_str());
        alice.nothing_for(0);
        await_metric(&server, COMPRESSIONS, compressions);
    }
    for client in &bob[..3] {
        assert_eq!(client.tally().counts(), (12, 1), "all but the welcome came compressed");
    }
}

pub fn raw_rooms_are_compressed(reactors: usize) {
    let server = Server::with_reactors(reactors, &[]);
    let mut echoing = Client::deflating(&server, "/raw/den?echo=1", OFFERS[0]);
    let mut others: Vec<Client> = (0..2).map(|_| Client::deflating(&server, "/raw/den", OFFERS[4])).collect();
    let mut plain = Client::open(&server, "/raw/den");
    let messages = [
        Message::text(lines("raw", 300)),
        Message::binary(lines("raw", 5_000).into_bytes()),
        Message::text("below the size"),
        Message::text(lines("raw 🦀", 20_000)),
        Message::binary(vec![0; 200_000]),
        Message::binary(Vec::new()),
    ];
    for message in &messages {
        echoing.send_message(message.clone());
        assert_eq!(echoing.recv(), *message);
        for member in others.iter_mut().chain([&mut plain]) {
            assert_eq!(member.recv(), *message);
        }
    }
    // Four of six, in two windows.
    await_metric(&server, COMPRESSIONS, 8);
    others[0].send_message(messages[0].clone());
    for member in [&mut echoing, &mut plain] {
        assert_eq!(member.recv(), messages[0]);
        member.nothing_for(0);
    }
    assert_eq!(others[1].recv(), messages[0]);
    others.iter_mut().for_each(|member| member.nothing_for(0));
    assert_eq!(echoing.tally().counts(), (5, 2));
    assert_eq!(others[0].tally().counts(), (4, 2), "none of its own");
    assert_eq!(others[1].tally().counts(), (5, 2));
    await_metric(&server, COMPRESSIONS, 10);
}

pub fn replies_are_compressed(way: Way) {
    let server = way.start(&NO_NOTICES);
    let users: Vec<String> = (0..20).map(|at| format!("a-user-with-a-long-name-{at}")).collect();
    let mut crowd: Vec<Client> = users.iter().map(|user| Client::connect(&server, user)).collect();
    crowd.iter_mut().for_each(|client| drop(client.join("den")));
    let mut alice = Client::deflating(&server, "/?userId=alice", OFFERS[0]);
    let presence = alice.request(json!({"type": "presence", "roomId": "den"}));
    assert_eq!(presence["count"], 20);
    let mut named: Vec<&str> = presence["users"].as_array().expect("names").iter().filter_map(Value::as_str).collect();
    let mut expected: Vec<&str> = users.iter().map(String::as_str).collect();
    named.sort_unstable();
    expected.sort_unstable();
    assert_eq!(named, expected);
    assert_eq!(alice.tally().counts(), (1, 1), "the presence, and before it the welcome");
    let id = json!("i".repeat(900));
    for (at, (command, kind)) in [
        (json!({"type": "ping"}), "pong"),
        (json!({"type": "join_room", "roomId": "den"}), "joined"),
        (json!({"type": "room_msg", "roomId": "empty", "content": 1}), "ack"),
        (json!({"type": "private", "to": "nobody", "data": 1}), "ack"),
        (json!({"type": "nonsense"}), "error"),
        (json!({"type": "leave_room", "roomId": "den"}), "ack"),
    ]
    .into_iter()
    .enumerate()
    {
        let mut command = command;
        command["id"] = id.clone();
        alice.send(&command);
        let reply = alice.reply(&id);
        assert_eq!((&reply["type"], &reply["id"]), (&json!(kind), &id));
        assert_eq!(alice.tally().counts(), (at as u64 + 2, 1), "{command}");
    }
    alice.nothing_for(0);
    await_metric(&server, COMPRESSIONS, 7);
}

pub fn a_small_window_is_kept_to(reactors: usize) {
    let server = Server::with_reactors(reactors, &["--deflate.level", "9"]);
    // What is repeated lies further back than all windows but the largest reach.
    let block = noise(300);
    let mut message = block.clone();
    message.extend(lines("gap", 20_000).into_bytes());
    message.extend(&block);
    let (mut widest, _) = RawConn::deflating(&server, "/raw/den", "permessage-deflate");
    let mut narrow: Vec<(RawConn, u8)> = (9..=15)
        .map(|bits| {
            let offer = format!("permessage-deflate; server_max_window_bits={bits}");
            let (conn, agreed) = RawConn::deflating(&server, "/raw/den", &offer);
            assert_eq!(agreed.server_bits, bits);
            (conn, bits)
        })
        .collect();
    let mut sender = RawConn::upgrade(&server, "/raw/den");
    sender.send_frame(BINARY, &message);
    for (conn, bits) in &mut narrow {
        let received = conn.read_message(*bits);
        assert!(received.compressed && received.bytes == message, "{bits} bits");
    }
    let frame = widest.read_frame().expect("the message");
    assert_eq!(frame.first, BINARY | RSV1);
    assert!(try_unpack(15, &frame.payload) == Some(message));
    assert!(try_unpack(14, &frame.payload).is_none(), "what this test is about: that reaches too far back");
    narrow.iter_mut().for_each(|(conn, _)| conn.nothing_more());
    await_metric(&server, COMPRESSIONS, 7);
}

/// Joins and leaves change who gets which form from one message to the next.
pub fn members_come_and_go(reactors: usize) {
    let server = Server::with_reactors(reactors, &NO_NOTICES);
    let mut publisher = Client::connect(&server, "alice");
    let mut constant = Client::connect(&server, "bob");
    constant.join("den");
    let mut expected = 0;
    for round in 0..20 {
        let mut visitor = Client::deflating(&server, "/?userId=visitor", OFFERS[round % OFFERS.len()]);
        visitor.join("den");
        let content = lines(&format!("round {round}"), 600);
        publisher.publish(json!({"type": "room_msg", "roomId": "den", "content": content}));
        expected += 1;
        assert_eq!(visitor.recv_type("room_msg")["content"], content.as_str());
        visitor.publish(json!({"type": "leave_room", "roomId": "den"}));
        publisher.publish(json!({"type": "room_msg", "roomId": "den", "content": content}));
        for _ in 0..2 {
            assert_eq!(constant.recv_type("room_msg")["content"], content.as_str());
        }
        visitor.nothing_for(0);
        if round % 2 == 0 {
            visitor.leave();
        }
    }
    constant.nothing_for(0);
    await_metric(&server, COMPRESSIONS, expected);
    assert_eq!(metric_samples(&server, COMPRESSIONS).len(), reactors);
}

/// Text of so many bytes, or a few more, that becomes smaller.
fn lines(about: &str, bytes: usize) -> String {
    let mut text = String::new();
    for line in 0.. {
        if text.len() >= bytes {
            break;
        }
        text.push_str(&format!("{about}: line {line} of many, much like the one before\n"));
    }
    text
}

/// Bytes that do not become smaller.
fn noise(bytes: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(7);
    (0..bytes).map(|_| random.u8(..)).collect()
}
