//! What nodes ask Redis for: the topics in which they have members, and no others.

use std::collections::BTreeMap;

use fanfare_testing::{Client, Cluster, eventually};
use serde_json::json;

use crate::PLAIN;

/// How many nodes subscribe to each channel.
fn subscribers(cluster: &Cluster) -> BTreeMap<String, u64> {
    let channels = cluster.redis().command(&["PUBSUB", "CHANNELS"]);
    let names: Vec<&str> = channels.lines().collect();
    let counts = cluster.redis().command(&[&["PUBSUB", "NUMSUB"], &names[..]].concat());
    let lines: Vec<&str> = counts.lines().collect();
    lines.chunks(2).map(|pair| (pair[0].to_owned(), pair[1].parse().expect("a count"))).collect()
}

fn subscriptions_count(cluster: &Cluster) -> u64 {
    subscribers(cluster).values().sum()
}

#[track_caller]
fn await_subscriptions(cluster: &Cluster, expected: u64) {
    eventually(&format!("{expected} subscriptions"), || subscriptions_count(cluster) == expected);
}

#[test]
fn nodes_subscribe_to_topics_with_members() {
    const ROOMS: u64 = 50;
    let cluster = Cluster::start(3, PLAIN);
    let idle = subscriptions_count(&cluster);
    let mut publisher = Client::connect(&cluster.at(2), "publisher");
    let mut members: Vec<Client> = [0, 0, 1].map(|node| Client::connect(&cluster.at(node), "member")).into();
    // Three inboxes: two users on three nodes.
    await_subscriptions(&cluster, idle + 3);
    let before = subscribers(&cluster);
    let rooms: Vec<String> = (0..ROOMS).map(|at| format!("room-{at}")).collect();
    // Publishing to a room is not being in it.
    rooms.iter().for_each(|room| drop(publisher.publish(json!({"type": "room_msg", "roomId": room, "content": 0}))));
    assert_eq!(subscribers(&cluster), before);
    for (expected, member) in [ROOMS, ROOMS, 2 * ROOMS].into_iter().zip(&mut members) {
        member.send(&json!({"type": "join_room", "roomIds": rooms, "id": "many"}));
        member.until(|reply| reply["type"] == "ack");
        assert_eq!(subscriptions_count(&cluster), idle + 3 + expected, "joined, and so subscribed");
    }
    // As long as one member is left on a node, the node stays.
    members.remove(0).leave();
    for room in &rooms[1..] {
        members[1].publish(json!({"type": "leave_room", "roomId": room}));
    }
    await_subscriptions(&cluster, idle + 3 + ROOMS + 1);
    drop(members);
    await_subscriptions(&cluster, idle + 1);
    publisher.leave();
    await_subscriptions(&cluster, idle);
}

#[test]
fn raw_rooms_are_subscribed_to_while_somebody_is_there() {
    let cluster = Cluster::start(2, PLAIN);
    let idle = subscriptions_count(&cluster);
    let clients: Vec<Client> = [0, 0, 1].map(|node| Client::open(&cluster.at(node), "/raw/den")).into();
    await_subscriptions(&cluster, idle + 2);
    drop(clients);
    await_subscriptions(&cluster, idle);
}

/// Rooms that nobody is in leave nothing behind in Redis, as long as they keep no history.
#[test]
fn empty_rooms_leave_no_keys_behind() {
    let cluster = Cluster::start(2, PLAIN);
    let keys = || cluster.redis().command(&["DBSIZE"]).parse::<u64>().expect("a count");
    let mut clients: Vec<Client> = [0, 1].map(|node| Client::connect(&cluster.at(node), "c")).into();
    let before = keys();
    for client in &mut clients {
        for room in 0..100 {
            client.join(&format!("room-{room}"));
        }
        client.request(json!({"type": "presence", "roomId": "room-0"}));
    }
    for client in clients {
        client.leave();
    }
    eventually("the keys of the rooms are gone", || keys() <= before);
}
