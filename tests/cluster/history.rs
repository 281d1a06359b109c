//! Rooms and inboxes with history: one order and one position on all nodes, and coming back to another node.

use std::collections::BTreeMap;
use std::thread;

use fanfare_testing::{Client, Cluster};
use serde_json::{Value, json};

use crate::{KEPT, join_since, next_messages, offset_of, position, room_msg};

type Place = (Value, u64);

fn numbered(range: std::ops::RangeInclusive<u64>) -> Vec<(Value, u64)> {
    range.map(|number| (json!(number), number)).collect()
}

/// Publishes a number, which has to become its offset.
#[track_caller]
fn publish_numbers(client: &mut Client, room: &str, range: std::ops::RangeInclusive<u64>) {
    for number in range {
        assert_eq!(client.publish(room_msg(room, number))["offset"], number);
    }
}

#[test]
fn one_order_for_subscribers_on_all_nodes() {
    const NODES: usize = 3;
    const EACH: u64 = 300;
    let cluster = Cluster::start(NODES, KEPT);
    let mut subscribers: Vec<Client> = (0..2 * NODES).map(|at| Client::connect(&cluster.at(at % NODES), "s")).collect();
    let joined: Vec<Place> = subscribers.iter_mut().map(|subscriber| position(&subscriber.join("kept"))).collect();
    assert!(joined.iter().all(|place| *place == (joined[0].0.clone(), 0)), "{joined:?}");

    let total = EACH as usize * NODES;
    let (orders, acks) = thread::scope(|scope| {
        let publishers: Vec<_> = (0..NODES)
            .map(|node| {
                let mut client = Client::connect(&cluster.at(node), "p");
                scope.spawn(move || publish_all(&mut client, node, EACH))
            })
            .collect();
        let readers: Vec<_> =
            subscribers.iter_mut().map(|reader| scope.spawn(move || next_messages(reader, total))).collect();
        let orders: Vec<Vec<(Value, u64)>> =
            readers.into_iter().map(|reader| reader.join().expect("a reader")).collect();
        let acks: Vec<(Value, Place)> =
            publishers.into_iter().flat_map(|publisher| publisher.join().expect("a publisher")).collect();
        (orders, acks)
    });
    for (at, order) in orders.iter().enumerate() {
        assert!(*order == orders[0], "subscriber {at} saw another order than subscriber 0");
    }
    assert!(orders[0].iter().map(|(_, offset)| *offset).eq(1..=total as u64), "offsets grow by one");
    for node in 0..NODES {
        let own = orders[0].iter().filter(|(content, _)| content[0] == node).map(|(content, _)| content[1].as_u64());
        assert!(own.eq((0..EACH).map(Some)), "publisher {node}'s own order");
    }
    // Each ack names the place at which everybody got the message.
    let places: BTreeMap<u64, &Value> = orders[0].iter().map(|(content, offset)| (*offset, content)).collect();
    for (content, (epoch, offset)) in &acks {
        assert_eq!((epoch, Some(&content)), (&joined[0].0, places.get(offset)));
    }
    subscribers.iter_mut().for_each(|subscriber| subscriber.nothing_for(20));
}

/// Publishes `[node, number]` to `kept`, many at a time; each content with the place that its ack named.
fn publish_all(client: &mut Client, node: usize, count: u64) -> Vec<(Value, Place)> {
    for number in 0..count {
        let mut message = room_msg("kept", json!([node, number]));
        message["id"] = json!(number);
        client.send(&message);
    }
    let place_of = |number: u64| (json!([node, number]), position(&client.reply(&json!(number))));
    (0..count).map(place_of).collect()
}

#[test]
fn positions_are_the_same_on_all_nodes() {
    let cluster = Cluster::start(3, KEPT);
    let mut publishers: Vec<Client> = (0..3).map(|node| Client::connect(&cluster.at(node), "p")).collect();
    let mut places = Vec::new();
    for number in 1..=9 {
        let ack = publishers[number as usize % 3].publish(room_msg("kept", number));
        places.push(position(&ack));
    }
    assert!(places.iter().map(|(_, offset)| *offset).eq(1..=9));
    assert!(places.iter().all(|(epoch, _)| *epoch == places[0].0));
    for node in 0..3 {
        let mut client = Client::connect(&cluster.at(node), "late");
        assert_eq!(position(&client.join("kept")), (places[0].0.clone(), 9));
        assert_eq!(position(&client.request(json!({"type": "history", "roomId": "kept"}))), (places[0].0.clone(), 9));
    }
}

#[test]
fn late_joiners_and_pages_on_every_node() {
    let cluster = Cluster::start(2, KEPT);
    let mut publisher = Client::connect(&cluster.at(0), "p");
    publish_numbers(&mut publisher, "kept", 1..=50);
    for node in 0..2 {
        let mut late = Client::connect(&cluster.at(node), "late");
        let joined = late.request(json!({"type": "join_room", "roomId": "kept", "last": 7}));
        assert_eq!((&joined["type"], &joined["offset"]), (&json!("joined"), &json!(50)));
        assert_eq!(next_messages(&mut late, 7), numbered(44..=50));
        for (before, limit, page) in [(51, 10, 41..=50), (41, 10, 31..=40), (4, 10, 1..=3)] {
            let answer = late.request(json!({"type": "history", "roomId": "kept", "before": before, "limit": limit}));
            let messages = answer["messages"].as_array().expect("a page");
            let found: Vec<(Value, u64)> =
                messages.iter().map(|message| (message["content"].clone(), offset_of(message))).collect();
            assert_eq!(found, numbered(page), "before {before} on node {node}");
        }
        late.nothing_for(0);
    }
}

#[test]
fn who_lost_a_node_comes_back_to_another() {
    let mut cluster = Cluster::start(3, KEPT);
    let mut publishers: Vec<Client> = (0..2).map(|node| Client::connect(&cluster.at(node), "p")).collect();
    let mut away: Vec<Client> = (0..3).map(|_| Client::connect(&cluster.at(0), "away")).collect();
    let joined: Vec<Place> = away.iter_mut().map(|client| position(&client.join("kept"))).collect();
    let epoch = joined[0].0.clone();
    publish_numbers(&mut publishers[0], "kept", 1..=10);
    for client in &mut away {
        assert_eq!(next_messages(client, 10), numbered(1..=10));
    }
    // What a node has acked outlives it.
    publish_numbers(&mut publishers[0], "kept", 11..=20);
    cluster.kill(0);
    drop((away, publishers.remove(0)));
    publish_numbers(&mut publishers[0], "kept", 21..=30);
    for node in [1, 2] {
        let mut back = Client::connect(&cluster.at(node), "away");
        let joined = join_since(&mut back, "kept", &epoch, 10);
        assert_eq!(
            (&joined["recovered"], position(&joined)),
            (&json!(true), (epoch.clone(), 30)),
            "on node {node}: {joined}"
        );
        assert_eq!(next_messages(&mut back, 20), numbered(11..=30));
        back.nothing_for(0);
    }
    cluster.restart(0);
    cluster.await_ready();
    let mut back = Client::connect(&cluster.at(0), "away");
    assert_eq!(join_since(&mut back, "kept", &epoch, 30)["recovered"], true, "the node that was killed knows it too");
    publish_numbers(&mut publishers[0], "kept", 31..=31);
    assert_eq!(next_messages(&mut back, 1), numbered(31..=31));
}

/// The seam between what was missed and what is live, again and again while publishers on both nodes go on.
#[test]
fn coming_back_in_a_flood_has_neither_gap_nor_double() {
    const EACH: u64 = 600;
    let cluster = Cluster::start(2, KEPT);
    let mut witness = Client::connect(&cluster.at(0), "w");
    let (epoch, _) = position(&witness.join("kept"));
    thread::scope(|scope| {
        for node in 0..2 {
            let mut publisher = Client::connect(&cluster.at(node), "p");
            scope.spawn(move || {
                for number in 0..EACH {
                    publisher.publish(room_msg("kept", number));
                }
            });
        }
        for reader in 0..4 {
            let (cluster, epoch) = (&cluster, epoch.clone());
            scope.spawn(move || {
                let mut offset = 0;
                for round in 0.. {
                    let mut client = Client::connect(&cluster.at((reader + round) % 2), "r");
                    let joined = join_since(&mut client, "kept", &epoch, offset);
                    assert_eq!(joined["recovered"], true, "since {offset}: {joined}");
                    // What was missed, and some of what is live.
                    let until = (offset_of(&joined) + 20).min(2 * EACH);
                    while offset < until {
                        let message = client.recv_type("room_msg");
                        assert_eq!(offset_of(&message), offset + 1, "contiguous in round {round}");
                        offset += 1;
                    }
                    if offset == 2 * EACH {
                        client.nothing_for(0);
                        return;
                    }
                }
            });
        }
    });
    let all = next_messages(&mut witness, 2 * EACH as usize);
    assert!(all.iter().map(|(_, offset)| *offset).eq(1..=2 * EACH));
    witness.nothing_for(0);
}

#[test]
fn many_rooms_with_and_without_history_in_one_join() {
    let cluster = Cluster::start(2, KEPT);
    let mut alice = Client::connect(&cluster.at(0), "alice");
    let rooms: Vec<String> = (0..60).flat_map(|at| [format!("kept-{at}"), format!("plain-{at}")]).collect();
    for room in &rooms {
        alice.publish(room_msg(room, "old"));
        alice.publish(room_msg(room, "newest"));
    }
    // What was said in a room without history before somebody joins may still be on its way.
    cluster.settle();
    let mut bob = Client::connect(&cluster.at(1), "bob");
    bob.send(&json!({"type": "join_room", "roomIds": rooms, "last": 1, "id": 1}));
    let replies = bob.until(|reply| reply["type"] == "ack");
    let mut joined: Vec<&str> = Vec::new();
    let mut newest: Vec<&str> = Vec::new();
    for reply in &replies {
        let room = reply["roomId"].as_str().unwrap_or_default();
        match reply["type"].as_str() {
            Some("joined") => {
                assert_eq!(reply.get("epoch").is_some(), room.starts_with("kept"), "{reply}");
                joined.push(room);
            }
            Some("room_msg") => {
                assert_eq!((&reply["content"], &reply["offset"]), (&json!("newest"), &json!(2)));
                newest.push(room);
            }
            _ => assert_eq!(reply["type"], "ack"),
        }
    }
    let mut expected: Vec<&str> = rooms.iter().map(String::as_str).collect();
    [&mut expected, &mut joined, &mut newest].into_iter().for_each(|names| names.sort_unstable());
    assert_eq!(joined, expected);
    expected.retain(|room| room.starts_with("kept"));
    assert_eq!(newest, expected);
    rooms.iter().for_each(|room| drop(alice.publish(room_msg(room, "live"))));
    for _ in &rooms {
        assert_eq!(bob.recv_type("room_msg")["content"], "live");
    }
    bob.nothing_for(20);
}

#[test]
fn a_key_sent_again_to_another_node_is_the_same_message() {
    let cluster = Cluster::start(3, KEPT);
    let mut bob = Client::connect(&cluster.at(2), "bob");
    bob.join("kept");
    let mut alices: Vec<Client> = (0..3).map(|node| Client::connect(&cluster.at(node), "alice")).collect();
    let keyed = |key: &str| json!({"type": "room_msg", "roomId": "kept", "content": key, "key": key});
    let first = position(&alices[0].publish(keyed("first")));
    alices[1].publish(room_msg("kept", "between"));
    for alice in &mut alices {
        assert_eq!(position(&alice.publish(keyed("first"))), first);
    }
    // All at once.
    for round in 0..30 {
        let key = format!("round-{round}");
        for alice in &mut alices {
            let mut command = keyed(&key);
            command["id"] = json!(key);
            alice.send(&command);
        }
        let places: Vec<Place> = alices.iter_mut().map(|alice| position(&alice.reply(&json!(key)))).collect();
        assert!(places.iter().all(|place| *place == places[0]), "{places:?}");
    }
    // Of another user it is another message.
    let mut carol = Client::connect(&cluster.at(0), "carol");
    assert_eq!(carol.publish(keyed("first"))["offset"], 33);
    let heard = next_messages(&mut bob, 33);
    assert!(heard.iter().map(|(_, offset)| *offset).eq(1..=33));
    let rounds = heard[2..32].iter().map(|(content, _)| content.clone());
    assert!(rounds.eq((0..30).map(|round| json!(format!("round-{round}")))), "{heard:?}");
    bob.nothing_for(20);
}

#[test]
fn an_inbox_is_resumed_on_another_node() {
    let mut cluster = Cluster::start(3, &["--inbox.history.size", "100"]);
    let bob = Client::connect(&cluster.at(0), "bob");
    let inbox = bob.welcome()["inbox"].clone();
    assert_eq!(inbox["offset"], 0);
    let mut alice = Client::connect(&cluster.at(1), "alice");
    let private =
        |number: u64| json!({"type": "private_msg", "toUser": "bob", "content": number, "key": number.to_string()});
    cluster.kill(0);
    drop(bob);
    for number in 1..=5 {
        let ack = alice.publish(private(number));
        assert_eq!(position(&ack), (inbox["epoch"].clone(), number));
    }
    let mut elsewhere = Client::connect(&cluster.at(2), "alice");
    assert_eq!(elsewhere.publish(private(5))["offset"], 5, "a key is known on every node");
    let mut bobs: Vec<Client> = [1, 2].map(|node| Client::connect(&cluster.at(node), "bob")).into();
    for bob in &mut bobs {
        assert_eq!(bob.welcome()["inbox"], json!({"epoch": inbox["epoch"], "offset": 5}));
        let resumed = bob.request(json!({"type": "resume", "inbox": inbox}));
        assert_eq!((&resumed["recovered"], &resumed["offset"]), (&json!(true), &json!(5)));
        for number in 1..=5 {
            let message = bob.recv_type("private_msg");
            assert_eq!((&message["content"], &message["offset"]), (&json!(number), &json!(number)));
        }
    }
    alice.publish(private(6));
    for bob in &mut bobs {
        assert_eq!(bob.recv_type("private_msg")["offset"], 6);
        bob.nothing_for(20);
    }
}
