//! Keyed rooms with Redis of every kind: nobody is shown a value older than one before, and the last value of each item
//! arrives, whichever server has the room by then.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use fanfare_testing::items::{View, join_latest, join_with, latest, removal, update};
use fanfare_testing::{Client, Cluster, Redis, eventually};
use serde_json::{Value, json};

use crate::access::{allow, assert_nothing_refused, documented};
use crate::servers::{Sentinel, Shards};
use crate::{ROOMS, insist_on, nodes};

const ITEMS: u64 = 5;

/// One who gets the newest values of a room, numbers that grow with each update.
struct Reader {
    client: Client,
    view: View,
    /// Of each item the highest number that was shown since the last gap.
    shown: BTreeMap<String, u64>,
    gaps: usize,
}

impl Reader {
    #[track_caller]
    fn join(cluster: &Cluster, node: usize, room: &str) -> Reader {
        let mut client = Client::connect(&cluster.at(node), "reader");
        let view = join_latest(&mut client, room).0;
        Reader { client, view, shown: BTreeMap::new(), gaps: 0 }
    }

    /// Takes what comes until each item has this number.
    #[track_caller]
    fn until_all(&mut self, number: u64) {
        let is_there = |view: &View, item| view.items.get(&item_name(item)).is_some_and(|(_, known)| *known == number);
        while !(0..ITEMS).all(|item| is_there(&self.view, item)) {
            let message = self.client.recv_json();
            self.take(&message);
        }
    }

    #[track_caller]
    fn take(&mut self, message: &Value) {
        self.view.take(message);
        match (message["type"].as_str(), message["content"].as_u64()) {
            (Some("gap"), _) => {
                self.gaps += 1;
                self.shown.clear();
            }
            (_, Some(number)) => {
                let item = message["item"].as_str().expect("an item").to_owned();
                let before = self.shown.insert(item, number);
                assert!(before.is_none_or(|before| before < number), "{message} is older than {before:?}");
            }
            (_, None) => {}
        }
    }
}

fn item_name(number: u64) -> String {
    format!("I{}", number % ITEMS)
}

/// Publishes a number to one item after the other until it is told to stop and its acks name another epoch than the first, and then the same
/// number to all of them; the epochs that acks named, and the last number. A primary that is being replaced may still ack
/// what goes with it.
fn publish_numbers(mut client: Client, room: &str, first: &Value, is_over: &AtomicBool) -> (Vec<Value>, u64) {
    let mut epochs: Vec<Value> = Vec::new();
    let mut publish = |epochs: &mut Vec<Value>, item: u64, number: u64| {
        let mut command = update(room, &item_name(item), number);
        command["key"] = json!(format!("{item} {number}"));
        let ack = insist_on(&mut client, &command);
        if epochs.last() != Some(&ack["epoch"]) {
            epochs.push(ack["epoch"].clone());
        }
    };
    let mut number = 0;
    while !is_over.load(Ordering::Relaxed) || number < 50 || epochs.last() == Some(first) {
        number += 1;
        publish(&mut epochs, number, number);
    }
    number += 1;
    (0..ITEMS).for_each(|item| publish(&mut epochs, item, number));
    (epochs, number)
}

/// Updates flow into a room while `trouble` happens, until the room has got another epoch: who was there ends with the
/// last values, and so does who comes late or comes back.
#[track_caller]
fn assert_nothing_goes_back(cluster: &Cluster, room: &str, trouble: impl FnOnce()) {
    let mut readers: Vec<Reader> = (0..2).map(|node| Reader::join(cluster, node, room)).collect();
    let first = Client::connect(&cluster.at(0), "p").publish(update(room, "first", "there"));
    let (publisher, is_over) = (Client::connect(&cluster.at(1), "publisher"), AtomicBool::new(false));
    let (epochs, last) = thread::scope(|scope| {
        let publishing = scope.spawn(|| publish_numbers(publisher, room, &first["epoch"], &is_over));
        trouble();
        let mut observer = Client::connect(&cluster.at(0), "observer");
        eventually("another epoch", || {
            let (_, joined) = join_latest(&mut observer, room);
            let is_other = joined["type"] == "joined" && joined["epoch"] != first["epoch"];
            if joined["type"] == "joined" {
                observer.request(json!({"type": "leave_room", "roomId": room}));
            }
            is_other
        });
        is_over.store(true, Ordering::Relaxed);
        publishing.join().expect("every number is acked")
    });
    for reader in &mut readers {
        reader.until_all(last);
        assert!(reader.gaps >= 1, "another server is another epoch, which is told");
    }
    assert_eq!(readers[0].view, readers[1].view, "both nodes show the same");
    assert_ne!(epochs.last(), Some(&first["epoch"]));
    cluster.await_ready();
    assert_late_and_back(cluster, room, &readers[0].view, &first);
}

/// A snapshot of a late one is what the others have; a position is good on the other node, and one of before the trouble is
/// answered with everything.
#[track_caller]
fn assert_late_and_back(cluster: &Cluster, room: &str, truth: &View, old: &Value) {
    let mut late = Client::connect(&cluster.at(0), "late");
    let (view, joined) = join_latest(&mut late, room);
    assert_eq!(view, *truth, "a snapshot is what the others have");
    late.leave();
    let mut publisher = Client::connect(&cluster.at(0), "p");
    publisher.publish(update(room, "I1", "new"));
    let removed = publisher.publish(removal(room, "I2"));
    let since = |position: &Value| {
        let mut command = latest(room);
        command["since"] = json!({"epoch": position["epoch"], "offset": position["offset"]});
        command
    };
    let (changed, back) = join_with(&mut Client::connect(&cluster.at(1), "back"), since(&joined));
    assert_eq!((&back["recovered"], &back["offset"]), (&json!(true), &removed["offset"]), "{back}");
    assert_eq!(changed.contents(), BTreeMap::from([("I1", &json!("new")), ("I2", &Value::Null)]), "what has changed");
    let (all, back) = join_with(&mut Client::connect(&cluster.at(1), "back"), since(old));
    assert_eq!(back["recovered"], false, "{back}");
    assert_eq!(all.items.len(), truth.items.len() - 1, "everything but what was removed");
}

/// Updates, lists, versions, keys and removals go from one node to the other; a late node has the snapshot.
#[track_caller]
pub(crate) fn assert_items_work(cluster: &Cluster) {
    let room = "px";
    let mut publisher = Client::connect(&cluster.at(0), "publisher");
    let mut all = Client::connect(&cluster.at(1), "all");
    all.join(room);
    publisher.publish(update(room, "A", 1));
    let mut command = update(room, "A", 2);
    (command["version"], command["key"]) = (json!(7), json!("once"));
    publisher.publish(command.clone());
    assert_eq!(publisher.publish(command.clone())["offset"], 2, "the same key is the same update");
    command["key"] = json!("twice");
    assert_eq!(publisher.publish(command)["stale"], true);
    let updates = json!([{"item": "B", "content": 3}, {"item": "C", "content": 4}]);
    publisher.publish(json!({"type": "room_msgs", "roomId": room, "updates": updates, "replace": true}));
    publisher.publish(removal(room, "C"));
    for offset in 1..=6_u64 {
        assert_eq!(all.recv_type("room_msg")["offset"], offset);
    }
    let mut late = Client::connect(&cluster.at(1), "late");
    let (view, joined) = join_latest(&mut late, room);
    assert_eq!((view.contents(), &joined["offset"]), (BTreeMap::from([("B", &json!(3))]), &json!(6)));
    late.leave();
    publisher.publish(update(room, "D", 5));
    let mut back = latest(room);
    back["since"] = json!({"epoch": joined["epoch"], "offset": joined["offset"]});
    let (changed, joined) = join_with(&mut Client::connect(&cluster.at(0), "back"), back);
    assert_eq!((changed.contents(), &joined["recovered"]), (BTreeMap::from([("D", &json!(5))]), &json!(true)));
}

#[test]
fn values_go_on_behind_another_primary() {
    for dies in [false, true] {
        let mut sentinel = Sentinel::start(&[], "");
        let cluster = nodes(&format!("redis+sentinel://{}/{}", sentinel.host(), Sentinel::NAME), &[]);
        assert_nothing_goes_back(&cluster, "px", || match dies {
            true => sentinel.servers[0].kill(),
            false => sentinel.fail_over(),
        });
        assert_eq!(sentinel.primary(), 1);
    }
}

#[test]
fn values_go_on_where_a_shard_fails_and_others_notice_nothing() {
    let shards = Shards::start(1);
    let cluster = nodes(&shards.url(), &[]);
    let (room, other) = (shards.room_at(0, "px"), shards.room_at(1, "px"));
    let mut untouched = Reader::join(&cluster, 0, &other);
    let mut publisher = Client::connect(&cluster.at(1), "p");
    publisher.publish(update(&other, "A", 1));
    let replica = &shards.servers[Shards::PRIMARIES];
    assert_nothing_goes_back(&cluster, &room, || {
        eventually("the failover begins", || replica.command(&["CLUSTER", "FAILOVER"]) == "OK");
        eventually("the replica is the primary", || replica.command(&["ROLE"]).starts_with("master"));
    });
    publisher.publish(update(&other, "A", 2));
    untouched.view.until(&mut untouched.client, "A", &json!(2));
    assert_eq!(untouched.view.items["A"].0, 2, "the same epoch");
    assert_eq!(untouched.gaps, 0);
}

#[test]
fn values_go_on_where_a_slot_moves() {
    let shards = Shards::start(0);
    let cluster = nodes(&shards.url(), &[]);
    let room = shards.room_at(2, "px");
    assert_nothing_goes_back(&cluster, &room, || shards.move_slot(shards.slot_of(&room), 2, 0));
}

/// Scripts may touch keys of one slot only, and move with it.
#[test]
fn all_keys_of_a_room_are_in_its_slot() {
    let shards = Shards::start(0);
    let cluster = nodes(&shards.url(), &["--room", "match=both*,keyed=true,history.size=10"]);
    for (shard, server) in shards.servers.iter().enumerate() {
        let mut publisher = Client::connect(&cluster.at(0), "p");
        for prefix in ["px", "both"] {
            let room = shards.room_at(shard, prefix);
            let mut command = update(&room, "A", 1);
            command["key"] = json!("k");
            publisher.publish(command);
            publisher.publish(removal(&room, "B"));
            let found = server.command(&["KEYS", &format!("*{{{room}}}*")]);
            let slot = shards.slot_of(&room).to_string();
            let keys: Vec<&str> = found.lines().collect();
            assert!(keys.len() >= 4, "{room}: {keys:?}");
            assert!(keys.iter().all(|key| server.command(&["CLUSTER", "KEYSLOT", key]) == slot), "{room}: {keys:?}");
        }
    }
}

/// What the document lists for keyed rooms is enough without what it lists for webhooks, also where items age, removals are
/// forgotten, and members have to be told anew.
#[test]
fn the_documented_user_is_enough_for_keyed_rooms() {
    let redis = Redis::start();
    documented()[..2].iter().for_each(|line| allow(&redis, line));
    let settings = ["--room", "match=short,keyed=true,items.ttl=1s,items.removed_ttl=1s,history.size=5"];
    let url = format!("redis://fanfare:PASSWORD@{}/", redis.addr());
    let cluster = Cluster::at_url(&url, 2, &[ROOMS, &settings].concat());
    cluster.await_ready();
    assert_items_work(&cluster);
    let mut member = Client::connect(&cluster.at(1), "member");
    member.join("short");
    let mut publisher = Client::connect(&cluster.at(0), "p");
    let first = publisher.publish(update("short", "I0", 0));
    (1..20).for_each(|number: u64| drop(publisher.publish(update("short", &item_name(number), number))));
    let removed = member.until(|message| message["removed"] == true);
    assert!(removed.iter().filter(|message| message["type"] == "room_msg").count() > 20, "{removed:?}");
    eventually("removals are forgotten", || {
        publisher.publish(update("short", "another", 0));
        let mut late = latest("short");
        late["since"] = json!({"epoch": first["epoch"], "offset": first["offset"]});
        join_with(&mut Client::connect(&cluster.at(0), "late"), late).1["recovered"] == false
    });
    redis.kill_pubsub();
    publisher.publish(update("px", "A", "again"));
    let mut reader = Client::connect(&cluster.at(1), "r");
    let mut view = View::default();
    // Until the node has its subscriptions again a join is refused.
    eventually("the newest value", || {
        let (found, answer) = join_latest(&mut reader, "px");
        view = found;
        assert!(answer["type"] == "joined" || answer["code"] == "unavailable", "{answer}");
        answer["type"] == "joined"
    });
    assert_eq!(view.contents()["A"], "again");
    assert_nothing_refused(&redis);
}
