//! Positions, history and resume: what a client that was away gets, and what it is told where that is not all.

use std::thread;
use std::time::Duration;

use fanfare_testing::{Client, Server, Way};
use serde_json::{Value, json};

const FIVE: &[&str] = &["--room", "match=kept*,history.size=5,history.ttl=1h", "--rooms.notice_members_max", "0"];

fn publish(client: &mut Client, room: &str, content: impl Into<Value>) -> Value {
    client.publish(json!({"type": "room_msg", "roomId": room, "content": content.into()}))
}

fn since(client: &mut Client, room: &str, epoch: &Value, offset: u64) -> Value {
    client.request(json!({"type": "join_room", "roomId": room, "since": {"epoch": epoch, "offset": offset}}))
}

/// The contents and offsets of what came before a reply, in order.
fn contents(messages: &[Value]) -> Vec<(Value, u64)> {
    messages.iter().map(|message| (message["content"].clone(), message["offset"].as_u64().unwrap_or(0))).collect()
}

/// All messages that are held or come up to one with `content`, without it.
fn received(client: &mut Client, count: usize) -> Vec<(Value, u64)> {
    let messages: Vec<Value> = (0..count).map(|_| client.recv_json()).collect();
    contents(&messages)
}

fn numbered(range: std::ops::RangeInclusive<u64>) -> Vec<(Value, u64)> {
    range.map(|number| (json!(number), number)).collect()
}

pub fn messages_and_answers_carry_their_place(way: Way) {
    let server = way.start(FIVE);
    let mut alice = Client::connect(&server, "alice");
    let mut bob = Client::connect(&server, "bob");
    let joined = alice.join("kept");
    assert_eq!(joined["offset"], 0);
    let epoch = joined["epoch"].as_str().expect("a word").to_owned();
    assert_eq!(bob.join("kept")["epoch"], epoch.as_str());
    for number in 1..=3 {
        let ack = publish(&mut alice, "kept", number);
        assert_eq!((&ack["epoch"], &ack["offset"]), (&json!(epoch), &json!(number)));
    }
    assert_eq!(received(&mut bob, 3), numbered(1..=3));
    alice.nothing_for(20);

    let other = alice.join("kept-too");
    assert_ne!(other["epoch"], epoch.as_str(), "each room has its own epoch");
    let plain = alice.join("not so");
    assert!(plain.get("epoch").is_none() && plain.get("offset").is_none(), "{plain}");
    let ack = publish(&mut alice, "not so", 1);
    assert!(ack.get("epoch").is_none() && ack.get("offset").is_none(), "{ack}");
}

pub fn who_comes_back_gets_what_was_missed(way: Way) {
    let server = way.start(FIVE);
    let mut publisher = Client::connect(&server, "publisher");
    for room in ["kept", "kept-1", "kept-2", "kept-3"] {
        let mut away = Client::connect(&server, "away");
        let epoch = away.join(room)["epoch"].clone();
        for number in 1..=2 {
            publish(&mut publisher, room, number);
        }
        assert_eq!(received(&mut away, 2), numbered(1..=2));
        // Its own counts as well.
        publish(&mut away, room, 3);
        drop(away);
        for number in 4..=5 {
            publish(&mut publisher, room, number);
        }

        let mut back = Client::connect(&server, "away");
        let joined = since(&mut back, room, &epoch, 2);
        assert_eq!((&joined["recovered"], &joined["offset"]), (&json!(true), &json!(5)));
        assert_eq!(received(&mut back, 3), numbered(3..=5), "they come before the answer");
        publish(&mut publisher, room, 6);
        assert_eq!(received(&mut back, 1), numbered(6..=6));

        let again = since(&mut back, room, &epoch, 2);
        assert_eq!(again["code"], "already_joined");
        let mut none_missed = Client::connect(&server, "other");
        assert_eq!(since(&mut none_missed, room, &epoch, 6)["recovered"], true);
        none_missed.nothing_for(20);
    }
}

pub fn what_is_gone_is_told_and_nothing_is_sent(way: Way) {
    let server = way.start(FIVE);
    let mut publisher = Client::connect(&server, "publisher");
    let epoch = publisher.join("kept")["epoch"].clone();
    for number in 1..=7 {
        publish(&mut publisher, "kept", number);
    }
    for (epoch, offset, recovered) in
        [(epoch.clone(), 1, false), (epoch.clone(), 2, true), (json!("another"), 6, false), (epoch.clone(), 8, false)]
    {
        let mut client = Client::connect(&server, "c");
        let joined = since(&mut client, "kept", &epoch, offset);
        assert_eq!(joined["recovered"], recovered, "since {offset} of {epoch}");
        assert_eq!(joined["offset"], 7);
        match recovered {
            true => assert_eq!(received(&mut client, 5), numbered(3..=7)),
            false => client.nothing_for(20),
        }
    }
    let mut client = Client::connect(&server, "c");
    assert_eq!(since(&mut client, "not so", &epoch, 0)["recovered"], false);
}

pub fn a_late_joiner_gets_the_newest(way: Way) {
    let server = way.start(FIVE);
    let mut publisher = Client::connect(&server, "publisher");
    for number in 1..=7 {
        publish(&mut publisher, "kept", number);
    }
    for (last, from) in [(2, 6), (5, 3), (100, 3)] {
        let mut client = Client::connect(&server, "late");
        let joined = client.request(json!({"type": "join_room", "roomId": "kept", "last": last}));
        assert_eq!((&joined["type"], &joined["offset"]), (&json!("joined"), &json!(7)));
        assert!(joined.get("recovered").is_none(), "{joined}");
        assert_eq!(received(&mut client, (8 - from) as usize), numbered(from..=7));
        publish(&mut client, "kept-else", 0);
        client.nothing_for(5);
    }
    let mut client = Client::connect(&server, "none");
    client.request(json!({"type": "join_room", "roomId": "kept", "last": 0}));
    client.nothing_for(20);

    let mut many = Client::connect(&server, "many");
    many.send(&json!({"type": "join_room", "roomIds": ["kept", "plain", "kept-new"], "last": 1, "id": 9}));
    let told = many.until(|message| message["type"] == "ack");
    let joined = told.iter().filter(|message| message["type"] == "joined").count();
    let messages: Vec<&Value> = told.iter().filter(|message| message["type"] == "room_msg").collect();
    assert_eq!((joined, messages.len()), (3, 1), "{told:?}");
    assert_eq!(messages[0]["offset"], 7);
}

pub fn members_read_pages(way: Way) {
    let server = way.start(FIVE);
    let mut alice = Client::connect(&server, "alice");
    let epoch = alice.join("kept")["epoch"].clone();
    for number in 1..=7 {
        publish(&mut alice, "kept", number);
    }
    let mut page = |extra: Value| {
        let mut command = json!({"type": "history", "roomId": "kept"});
        command.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        let page = alice.request(command);
        assert_eq!((&page["type"], &page["epoch"], &page["offset"]), (&json!("history"), &epoch, &json!(7)), "{page}");
        contents(page["messages"].as_array().expect("messages"))
    };
    assert_eq!(page(json!({})), numbered(3..=7));
    assert_eq!(page(json!({"limit": 2})), numbered(6..=7));
    assert_eq!(page(json!({"before": 6, "limit": 2})), numbered(4..=5));
    assert_eq!(page(json!({"before": 3})), []);
    assert_eq!(page(json!({"before": 4, "limit": 9})), numbered(3..=3));
    assert_eq!(page(json!({"limit": 0})), []);

    let mut stranger = Client::connect(&server, "stranger");
    assert_eq!(stranger.request(json!({"type": "history", "roomId": "kept"}))["code"], "forbidden");
    stranger.join("plain");
    let page = stranger.request(json!({"type": "history", "roomId": "plain"}));
    assert_eq!((&page["messages"], page.get("epoch")), (&json!([]), None));
    let refused = stranger.request(json!({"type": "history", "roomId": "plain", "before": "x"}));
    assert_eq!(refused["code"], "bad_position");
}

pub fn a_retry_with_the_same_key_is_one_message(way: Way) {
    let server = way.start(FIVE);
    let mut alice = Client::connect(&server, "alice");
    let mut bob = Client::connect(&server, "bob");
    bob.join("kept");
    let keyed = |key: &str| json!({"type": "room_msg", "roomId": "kept", "content": key, "key": key});
    let first = alice.publish(keyed("k"));
    publish(&mut alice, "kept", "between");
    let mut retry = Client::connect(&server, "alice");
    let second = retry.publish(keyed("k"));
    assert_eq!((&second["epoch"], &second["offset"]), (&first["epoch"], &first["offset"]));
    assert_eq!(retry.publish(keyed("l"))["offset"], 3);
    assert_eq!(bob.publish(keyed("k"))["offset"], 4, "another user's key is another key");
    assert_eq!(received(&mut bob, 3), [(json!("k"), 1), (json!("between"), 2), (json!("l"), 3)]);
    for key in [json!(""), json!("x".repeat(65)), json!(7)] {
        let refused = alice.request(json!({"type": "room_msg", "roomId": "kept", "content": 1, "key": key}));
        assert_eq!(refused["code"], "bad_key");
    }
    bob.nothing_for(20);
}

pub fn an_inbox_is_resumed(way: Way) {
    let server = way.start(&["--inbox.history.size", "5"]);
    let mut alice = Client::connect(&server, "alice");
    let bob = Client::connect(&server, "bob");
    let inbox = bob.welcome()["inbox"].clone();
    assert_eq!(inbox["offset"], 0);
    drop(bob);
    for number in 1..=3 {
        let ack = alice.publish(json!({"type": "private_msg", "toUser": "bob", "content": number}));
        assert_eq!((&ack["epoch"], &ack["offset"]), (&inbox["epoch"], &json!(number)));
    }
    let mut bob = Client::connect(&server, "bob");
    assert_eq!(bob.welcome()["inbox"]["offset"], 3);
    alice.publish(json!({"type": "private_msg", "toUser": "bob", "content": 4}));
    assert_eq!(received(&mut bob, 1), numbered(4..=4), "a live one");
    let resumed = bob.request(json!({"type": "resume", "inbox": inbox}));
    assert_eq!(
        (&resumed["type"], &resumed["epoch"], &resumed["offset"], &resumed["recovered"]),
        (&json!("resumed"), &inbox["epoch"], &json!(3), &json!(true))
    );
    assert_eq!(received(&mut bob, 3), numbered(1..=3), "up to the welcome's");
    let elsewhere = bob.request(json!({"type": "resume", "inbox": {"epoch": "another", "offset": 1}}));
    assert_eq!(elsewhere["recovered"], false);
    for number in 5..=9 {
        alice.publish(json!({"type": "private_msg", "toUser": "bob", "content": number}));
    }
    server.settle();
    let mut late = Client::connect(&server, "bob");
    assert_eq!(late.request(json!({"type": "resume", "inbox": inbox}))["recovered"], false, "the first ones are gone");
    // In a cluster its node may have been behind when it welcomed it: what came since then comes now.
    let welcomed_at = late.welcome()["inbox"]["offset"].as_u64().expect("an offset");
    assert_eq!(received(&mut late, (9 - welcomed_at) as usize), numbered(welcomed_at + 1..=9));
    late.nothing_for(20);

    let plain = way.start(&[]);
    let mut carol = Client::connect(&plain, "carol");
    assert!(carol.welcome().get("inbox").is_none());
    let resumed = carol.request(json!({"type": "resume", "inbox": inbox}));
    assert_eq!((&resumed["recovered"], resumed.get("epoch")), (&json!(false), None));
}

pub fn what_is_too_old_is_gone(way: Way) {
    let settings = ["--room", "match=*,history.size=100,history.ttl=1s"];
    let server = way.start(&settings);
    let mut alice = Client::connect(&server, "alice");
    let epoch = alice.join("short")["epoch"].clone();
    publish(&mut alice, "short", 1);
    thread::sleep(Duration::from_millis(1_200));
    publish(&mut alice, "short", 2);
    let mut late = Client::connect(&server, "late");
    assert_eq!(since(&mut late, "short", &epoch, 0)["recovered"], false);
    let mut later = Client::connect(&server, "later");
    assert_eq!(since(&mut later, "short", &epoch, 1)["recovered"], true);
    later.expect(|message| message["content"] == 2);
}

/// The oldest of all rooms go first, and whoever had to have them is told.
pub fn memory_is_bounded_over_all_rooms(reactors: usize) {
    let settings = ["--room", "match=*,history.size=1000,history.ttl=1h", "--history.memory_max", "1MiB"];
    let server = Server::with_reactors(reactors, &settings);
    let mut alice = Client::connect(&server, "alice");
    let rooms: Vec<String> = (0..8).map(|room| format!("room-{room}")).collect();
    let epochs: Vec<Value> = rooms.iter().map(|room| alice.join(room)["epoch"].clone()).collect();
    let filler = "x".repeat(10_000);
    // More than a reactor's share in each room: where the rooms are at home is chance.
    for _ in 0..120 {
        for room in &rooms {
            publish(&mut alice, room, filler.as_str());
        }
    }
    let mut late = Client::connect(&server, "late");
    let mut kept = 0;
    for (room, epoch) in rooms.iter().zip(&epochs) {
        assert_eq!(since(&mut late, room, epoch, 0)["recovered"], false, "the first of {room} are gone");
        kept += late.request(json!({"type": "history", "roomId": room}))["messages"].as_array().unwrap().len();
    }
    assert!((45..=104).contains(&kept), "{kept} messages of 10 kB in 1 MiB");
}

/// A long history does not make its reader a slow consumer, however small the bound.
pub fn a_long_history_arrives_whole(way: Way) {
    let room = "match=*,history.size=5000,history.ttl=1h";
    let settings = ["--room", room, "--outbox.bytes_max", "16KiB", "--rooms.notice_members_max", "0"];
    let server = way.start(&settings);
    let mut alice = Client::connect(&server, "alice");
    let filler = "y".repeat(2_000);
    for (room, offer) in [("plain", None), ("deflated", Some("permessage-deflate"))] {
        let epoch = alice.join(room)["epoch"].clone();
        for number in 1..=4_000 {
            let message = json!({"type": "room_msg", "roomId": room, "content": {"n": number, "filler": filler}});
            match number % 500 {
                0 => drop(alice.publish(message)),
                _ => alice.send(&message),
            }
        }
        let mut slow = match offer {
            None => Client::connect(&server, "slow"),
            Some(offer) => Client::deflating(&server, "/?userId=slow", offer),
        };
        slow.send(&json!({"type": "join_room", "roomId": room, "since": {"epoch": epoch, "offset": 0}, "id": 1}));
        // What comes meanwhile waits behind it.
        thread::sleep(Duration::from_millis(100));
        publish(&mut alice, room, "live");
        for number in 1..=4_000 {
            let message = slow.recv_json();
            assert_eq!(message["content"]["n"], number, "{message}");
        }
        // In a cluster the join may be answered as late as that.
        let mut last = [slow.recv_json(), slow.recv_json()];
        last.sort_by_key(|message| message["type"].to_string());
        assert_eq!((&last[0]["recovered"], &last[1]["content"]), (&json!(true), &json!("live")));
    }
}
