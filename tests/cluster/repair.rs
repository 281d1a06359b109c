//! Redis hesitates, or drops connections, and keeps what it has: nothing is lost in rooms with history, and nobody is
//! told of a gap.

use std::collections::BTreeMap;
use std::thread;
use std::time::Duration;

use fanfare_testing::{Client, Cluster, eventually};
use serde_json::{Value, json};

use crate::{KEPT, insist, offset_of, position, room_msg};

const NODES: usize = 3;

/// Two members and a publisher on each node, and what they have heard and sent.
struct Room {
    cluster: Cluster,
    members: Vec<Client>,
    publishers: Vec<Client>,
    sent: u64,
}

impl Room {
    fn start() -> Room {
        let cluster = Cluster::start(NODES, KEPT);
        let at = |node: usize, user: &str| Client::connect(&cluster.at(node), user);
        let mut members: Vec<Client> = (0..2 * NODES).map(|member| at(member % NODES, "m")).collect();
        members.iter_mut().for_each(|member| drop(member.join("kept")));
        let publishers = (0..NODES).map(|node| at(node, "p")).collect();
        Room { cluster, members, publishers, sent: 0 }
    }

    /// Sends a message on each node, without waiting for its answer.
    fn send(&mut self) {
        for publisher in &mut self.publishers {
            self.sent += 1;
            publisher.send(&keyed(self.sent));
        }
    }

    /// Every message was answered with `ack`, or is sent again by its key until it is; then each member has each message
    /// once, all in the same order without a gap, and nothing else.
    #[track_caller]
    fn assert_whole(mut self) {
        let mut places: BTreeMap<u64, u64> = BTreeMap::new();
        for number in 1..=self.sent {
            let publisher = &mut self.publishers[(number as usize - 1) % NODES];
            let mut answer = publisher.reply(&json!(number));
            if answer["code"] == "unavailable" {
                let mut again = keyed(number);
                again.as_object_mut().expect("an object").remove("id");
                answer = insist(publisher, &again);
            }
            let (_, offset) = position(&answer);
            assert_eq!(places.insert(offset, number), None, "two messages acked with one place");
        }
        assert!(places.keys().copied().eq(1..=self.sent), "each message has one place: {places:?}");
        for (at, member) in self.members.iter_mut().enumerate() {
            for (offset, content) in &places {
                let message = member.recv_type("room_msg");
                assert_eq!((offset_of(&message), &message["content"]), (*offset, &json!(content)), "member {at}");
            }
        }
        self.members.iter_mut().for_each(|member| member.nothing_for(50));
    }
}

fn keyed(number: u64) -> Value {
    json!({"type": "room_msg", "roomId": "kept", "content": number, "key": format!("key-{number}"), "id": number})
}

#[test]
fn killed_subscriptions_lose_nothing() {
    let mut room = Room::start();
    let mut killed = 0;
    for _ in 0..10 {
        (0..20).for_each(|_| room.send());
        killed += room.cluster.redis().kill_pubsub();
        (0..20).for_each(|_| room.send());
        // Some of them hit a node that has subscribed again already, and some do not.
        thread::sleep(Duration::from_millis(100));
    }
    assert!(killed >= NODES, "{killed} connections subscribed to something");
    room.assert_whole();
}

/// The last messages before silence: nothing that comes later shows that they are missing.
#[test]
fn a_gap_before_silence_is_repaired() {
    let mut room = Room::start();
    room.cluster.redis().kill_pubsub();
    room.send();
    room.assert_whole();
}

#[test]
fn a_paused_redis_loses_nothing() {
    let mut room = Room::start();
    for pause_ms in [100, 700, 3_000] {
        (0..10).for_each(|_| room.send());
        room.cluster.redis().pause_clients(pause_ms);
        (0..10).for_each(|_| room.send());
        // Answers only when the pause is over.
        assert!(room.cluster.redis().answers());
    }
    room.assert_whole();
}

#[test]
fn a_stopped_redis_loses_nothing() {
    let mut room = Room::start();
    for stop_ms in [200, 6_000] {
        (0..10).for_each(|_| room.send());
        room.cluster.redis().stop();
        (0..10).for_each(|_| room.send());
        thread::sleep(Duration::from_millis(stop_ms));
        room.cluster.redis().cont();
    }
    room.assert_whole();
}

#[test]
fn a_stopped_node_catches_up() {
    let mut room = Room::start();
    (0..10).for_each(|_| room.send());
    room.cluster.stop(1);
    // Long enough for Redis to fill what waits for the node's subscriptions, or to give it up.
    for _ in 0..200 {
        room.send();
        thread::sleep(Duration::from_millis(10));
    }
    room.cluster.cont(1);
    room.assert_whole();
}

/// Redis ends connections whose output grows too large: a subscriber that stands still in a flood.
#[test]
fn a_node_cut_off_by_redis_catches_up() {
    let mut room = Room::start();
    let mut ballast = Client::connect(&room.cluster.at(2), "ballast");
    ballast.join("plain");
    let limit = "pubsub 64kb 32kb 1";
    assert_eq!(room.cluster.redis().command(&["CONFIG", "SET", "client-output-buffer-limit", limit]), "OK");
    let subscribed = |room: &Room| {
        let clients = room.cluster.redis().command(&["CLIENT", "LIST", "TYPE", "pubsub"]);
        clients.lines().filter(|line| !line.is_empty()).count()
    };
    let before = subscribed(&room);
    room.cluster.stop(2);
    // More than the kernel holds for a process that stands still.
    let filler = "x".repeat(100_000);
    for _ in 0..200 {
        room.publishers[0].publish(room_msg("plain", filler.as_str()));
    }
    (0..10).for_each(|_| room.send());
    eventually("Redis gives up the node", || subscribed(&room) < before);
    room.cluster.cont(2);
    room.assert_whole();
}

/// Without history there is nothing to repair from, but nothing comes twice either, and everything works again.
#[test]
fn plain_rooms_go_on_after_their_subscriptions_were_killed() {
    let cluster = Cluster::start(2, KEPT);
    let mut alice = Client::connect(&cluster.at(0), "alice");
    let mut bobs: Vec<Client> = [0, 1].map(|node| Client::connect(&cluster.at(node), "bob")).into();
    bobs.iter_mut().for_each(|bob| drop(bob.join("plain")));
    let (mut number, mut heard) = (0, 0);
    for _ in 0..5 {
        cluster.redis().kill_pubsub();
        let from = number;
        eventually("the far one hears again", || {
            number += 1;
            alice.publish(room_msg("plain", number));
            while let Some(message) = bobs[1].try_recv(Duration::from_millis(20)) {
                let content: Value = serde_json::from_str(message.to_text().expect("text")).expect("JSON");
                let content = content["content"].as_u64().expect("a number");
                assert!(content > heard, "{content} after {heard}");
                heard = content;
            }
            heard == number
        });
        // The near one does not need Redis.
        for expected in from + 1..=number {
            assert_eq!(bobs[0].recv_type("room_msg")["content"], expected);
        }
    }
    bobs.iter_mut().for_each(|bob| bob.nothing_for(20));
}
