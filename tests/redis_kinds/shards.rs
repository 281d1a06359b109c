//! A Redis Cluster: every topic on its shard, and what happens when shards lose connections, slots and primaries.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use fanfare_testing::{Client, Cluster, eventually, run_fanfare};
use serde_json::{Value, json};

use crate::servers::Shards;
use crate::{assert_works, insist, nodes, room_msg};

/// A member on each node in rooms with history, one on each shard, and a publisher.
struct Rooms {
    names: Vec<String>,
    members: Vec<Client>,
    publisher: Client,
}

impl Rooms {
    #[track_caller]
    fn open(shards: &Shards, cluster: &Cluster) -> Rooms {
        let names: Vec<String> = (0..Shards::PRIMARIES).map(|shard| shards.room_at(shard, "kept")).collect();
        let members = (0..2).map(|node| {
            let mut member = Client::connect(&cluster.at(node), "member");
            names.iter().for_each(|room| drop(member.join(room)));
            member
        });
        Rooms { members: members.collect(), publisher: Client::connect(&cluster.at(1), "publisher"), names }
    }

    /// Publishes into every room once the cluster takes it; every member gets each once and in order, without a gap.
    #[track_caller]
    fn exchange(&mut self, content: u64) {
        let acks: Vec<Value> = self.names.iter().map(|room| insist(&mut self.publisher, room, content)).collect();
        for member in &mut self.members {
            let mut messages: Vec<Value> = acks.iter().map(|_| member.recv_type("room_msg")).collect();
            messages.sort_by_key(|message| self.names.iter().position(|room| message["roomId"] == **room));
            for (message, ack) in messages.iter().zip(&acks) {
                assert_eq!((&message["content"], &message["offset"]), (&json!(content), &ack["offset"]));
            }
        }
    }
}

#[test]
fn topics_of_all_shards_work() {
    let shards = Shards::start(0);
    let cluster = nodes(&shards.url(), &[]);
    assert_works(&cluster);
    let mut rooms = Rooms::open(&shards, &cluster);
    (1..=20).for_each(|content| rooms.exchange(content));
    for (shard, room) in rooms.names.iter().enumerate() {
        let channel = format!("fanfare:room:{{{room}}}");
        assert_eq!(
            shards.servers[shard].command(&["PUBSUB", "SHARDNUMSUB", &channel]),
            format!("{channel}\n2"),
            "both nodes subscribe to {room} where it is"
        );
    }
    let kick = run_fanfare(&["kick", &rooms.names[2], "nobody", "--redis", &shards.url()], &[]);
    assert_eq!(kick, (Some(0), "2 nodes have heard it\n".to_owned(), String::new()));
    // A room without a member on a node is none of its business any more.
    rooms.members.pop().expect("two members").leave();
    for (shard, room) in rooms.names.iter().enumerate() {
        let channel = format!("fanfare:room:{{{room}}}");
        eventually("the node without a member unsubscribes", || {
            shards.servers[shard].command(&["PUBSUB", "SHARDNUMSUB", &channel]) == format!("{channel}\n1")
        });
    }
}

/// The connections that subscribe end on one shard after the other while messages flow: what was missed is repaired from
/// the stream, whichever shard it was.
#[test]
fn a_lost_subscription_of_any_shard_is_noticed_and_repaired() {
    let shards = Shards::start(0);
    let cluster = nodes(&shards.url(), &[]);
    let mut rooms = Rooms::open(&shards, &cluster);
    let mut content = 0;
    for shard in 0..Shards::PRIMARIES {
        for _ in 0..3 {
            let killed = shards.servers[shard].kill_pubsub();
            assert_eq!(killed, 2, "each node subscribes at every shard");
            // Into the room on this shard, while the nodes may not know yet.
            let (room, node) = (rooms.names[shard].clone(), content as usize % 2);
            let mut publisher = Client::connect(&cluster.at(node), "another");
            publisher.send(&room_msg(&room, "meanwhile"));
            eventually("the nodes are back", || {
                shards.servers[shard].command(&["CLIENT", "LIST", "TYPE", "PUBSUB"]).lines().count() == 2
            });
            publisher.barrier();
            for member in &mut rooms.members {
                let message = member.recv_type("room_msg");
                assert_eq!((&message["roomId"], &message["content"]), (&json!(room), &json!("meanwhile")));
            }
            content += 1;
            rooms.exchange(content);
        }
    }
}

/// A shard hangs so that nothing of it comes and nothing is closed. It has no replica, so that nobody takes its place.
#[test]
fn a_shard_that_hangs_is_noticed_and_repaired() {
    let shards = Shards::start(0);
    let cluster = nodes(&shards.url(), &[]);
    let mut rooms = Rooms::open(&shards, &cluster);
    rooms.exchange(1);
    shards.servers[0].stop();
    cluster.await_readiness(503);
    shards.servers[0].cont();
    rooms.exchange(2);
    // The other shards may take this one for dead for a moment, even now.
    eventually("all shards work together", || {
        shards.servers.iter().all(|server| server.command(&["CLUSTER", "INFO"]).contains("cluster_state:ok"))
    });
    cluster.await_ready();
    assert_works(&cluster);
}

/// The slot of a room moves to another shard with what the room has kept: members are told of a gap, since another server
/// has the room now, and go on. The other rooms notice nothing.
#[test]
fn a_slot_that_moves_is_followed() {
    let shards = Shards::start(0);
    let cluster = nodes(&shards.url(), &[]);
    let mut rooms = Rooms::open(&shards, &cluster);
    rooms.exchange(1);
    let room = rooms.names[0].clone();
    let plain = shards.room_at(1, "plain");
    rooms.members.iter_mut().for_each(|member| drop(member.join(&plain)));
    shards.move_slot(shards.slot_of(&room), 0, 2);
    shards.move_slot(shards.slot_of(&plain), 1, 0);
    for member in &mut rooms.members {
        let gap = member.recv_type("gap");
        assert_eq!((&gap["roomId"], &gap["offset"]), (&json!(room), &json!(1)), "{gap}");
    }
    (2..=5).for_each(|content| rooms.exchange(content));
    rooms.publisher.publish(room_msg(&plain, "there"));
    for member in &mut rooms.members {
        assert_eq!(member.recv_type("room_msg")["content"], "there");
        member.nothing_for(20);
    }
    let history = rooms.publisher.request(json!({"type": "join_room", "roomId": room, "last": 100}));
    assert_eq!(history["offset"], 5, "what was kept has moved, too: {history}");
    assert!(!cluster.log(0).contains("lost the"), "no connection is given up for it:\n{}", cluster.log(0));
}

/// Messages flow while the slot of their room moves back and forth: each is acked once and seen once, in order, or the
/// members are told of a gap in front of what they see next.
#[test]
fn nothing_is_doubled_or_reordered_while_a_slot_moves() {
    let shards = Shards::start(0);
    let cluster = nodes(&shards.url(), &[]);
    let room = shards.room_at(0, "kept");
    let mut member = Client::connect(&cluster.at(0), "member");
    member.join(&room);
    let (addr, moved) = (cluster.at(1), Arc::new(AtomicBool::new(false)));
    let publishing = {
        let (room, moved) = (room.clone(), moved.clone());
        thread::spawn(move || {
            let mut publisher = Client::connect(&addr, "publisher");
            let mut offsets = Vec::new();
            // Some after the last move.
            let mut left = 20;
            while left > 0 {
                left -= u64::from(moved.load(Ordering::Relaxed));
                let ack = insist(&mut publisher, &room, offsets.len() as u64);
                offsets.push(ack["offset"].as_u64().expect("an offset"));
            }
            offsets
        })
    };
    for (from, to) in [(0, 1), (1, 2), (2, 0)] {
        thread::sleep(Duration::from_millis(100));
        shards.move_slot(shards.slot_of(&room), from, to);
    }
    moved.store(true, Ordering::Relaxed);
    let offsets = publishing.join().expect("the publisher has its acks");
    assert!(offsets.windows(2).all(|pair| pair[0] < pair[1]), "each has a place of its own, in order: {offsets:?}");
    let (mut seen, mut gaps) = (0, 0);
    while seen < *offsets.last().expect("some") {
        let message = member.recv_json();
        let offset = message["offset"].as_u64().unwrap_or_else(|| panic!("an offset in {message}"));
        match message["type"].as_str() {
            Some("gap") => {
                gaps += 1;
                assert!(offset >= seen, "{message} after {seen}");
            }
            _ => assert_eq!(offset, seen + 1, "{message}"),
        }
        seen = offset;
    }
    assert!(gaps >= 1, "each move is told, unless another one follows before it was noticed");
    member.nothing_for(20);
}

/// The primary of one shard dies and its replica takes over; then the two change places by an operator's hand.
#[test]
fn a_failover_of_one_shard_is_told_in_its_rooms_only() {
    let mut shards = Shards::start(1);
    let cluster = nodes(&shards.url(), &[]);
    let mut rooms = Rooms::open(&shards, &cluster);
    rooms.exchange(1);
    let replica = Shards::PRIMARIES;
    eventually("the replica has what was published", || {
        shards.servers[0].command(&["INFO", "replication"]).contains("lag=0")
            || shards.servers[0].command(&["WAIT", "1", "100"]) == "1"
    });
    assert_eq!(shards.servers[replica].command(&["CLUSTER", "FAILOVER"]), "OK");
    assert_gap(&mut rooms);
    rooms.exchange(2);
    eventually("the old primary follows", || {
        shards.servers[0].command(&["INFO", "replication"]).contains("master_link_status:up")
    });
    shards.servers[replica].kill();
    assert_gap(&mut rooms);
    rooms.exchange(3);
    cluster.await_ready();
    assert_works(&cluster);
}

/// The members are told of a gap in the first shard's room, and of none else.
#[track_caller]
fn assert_gap(rooms: &mut Rooms) {
    for member in &mut rooms.members {
        let gap = member.recv_type("gap");
        assert_eq!(gap["roomId"], *rooms.names[0], "{gap}");
    }
}
