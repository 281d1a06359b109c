//! Keyed rooms: one order and the same newest values on all nodes, whatever happens between them.

use std::collections::BTreeMap;
use std::thread;

use fanfare_testing::items::{View, join_latest, latest, removal, update};
use fanfare_testing::{ApiKey, Client, Cluster, Data, Redis, eventually};
use serde_json::{Value, json};
use tungstenite::Message;

use crate::{insist, position};

/// Rooms whose names begin with `px` are keyed, those with `pxh` keep history too; no notices.
const KEYED: &[&str] = &[
    "--room",
    "match=pxh*,keyed=true,history.size=20000,history.ttl=1h",
    "--room",
    "match=px*,keyed=true",
    "--rooms.notice_members_max",
    "0",
];

#[test]
fn all_nodes_have_one_order_and_end_with_the_same_values() {
    const NODES: usize = 3;
    const EACH: u64 = 400;
    for room in ["px", "pxh"] {
        let cluster = Cluster::start(NODES, KEYED);
        let at = |node: usize, user: &str| Client::connect(&cluster.at(node), user);
        let mut all: Vec<Client> = (0..NODES).map(|node| at(node, "all")).collect();
        let mut newest: Vec<Client> = (0..NODES).map(|node| at(node, "newest")).collect();
        let joined: Vec<_> = all.iter_mut().map(|client| position(&client.join(room))).collect();
        assert!(joined.iter().all(|place| *place == joined[0]), "{joined:?}");
        let mut views: Vec<View> = newest.iter_mut().map(|client| join_latest(client, room).0).collect();
        thread::scope(|scope| {
            for node in 0..NODES {
                let mut client = at(node, "publisher");
                scope.spawn(move || publish_all(&mut client, room, node, EACH));
            }
        });
        let total = EACH as usize * NODES * 2;
        let mut orders = all.iter_mut().map(|client| -> Vec<Value> {
            (0..total)
                .map(|_| client.recv_type("room_msg"))
                .map(|message| json!([message["item"], message["content"], message["seq"], message["offset"]]))
                .collect()
        });
        let first = orders.next().expect("one of them");
        orders.for_each(|order| assert!(order == first, "another order"));
        assert!(first.iter().map(|message| message[3].as_u64()).eq((1..=total as u64).map(Some)));
        let mut seqs = BTreeMap::new();
        for message in &first {
            let seq = seqs.entry(message[0].to_string()).or_insert(0);
            *seq += 1;
            assert_eq!(message[2].as_u64(), Some(*seq), "{message}");
        }
        let ends: Vec<&Value> = first[total - 1..].iter().collect();
        for (view, client) in views.iter_mut().zip(&mut newest) {
            view.until(client, ends[0][0].as_str().expect("an item"), &ends[0][1]);
        }
        assert!(views.iter().all(|view| *view == views[0]), "{views:?}");
        all.iter_mut().for_each(|client| client.nothing_for(20));
    }
}

/// Publishes `[node, number]` to an item of its own and to one of all, many at a time, in lists of two.
fn publish_all(client: &mut Client, room: &str, node: usize, count: u64) {
    for number in 0..count {
        let updates = json!([
            {"item": format!("own {node}"), "content": [node, number]},
            {"item": "shared", "content": [node, number]},
        ]);
        client.send(&json!({"type": "room_msgs", "roomId": room, "updates": updates, "id": number}));
    }
    let acks: Vec<u64> = (0..count).map(|number| position(&client.reply(&json!(number))).1).collect();
    assert!(acks.is_sorted(), "a publisher's own order");
}

#[test]
fn a_later_snapshot_on_any_node_contains_what_was_acked() {
    let cluster = Cluster::start(3, KEYED);
    let mut publisher = Client::connect(&cluster.at(0), "p");
    // A member makes its node follow the room; other nodes come anew.
    let mut member = Client::connect(&cluster.at(1), "m");
    member.join("px");
    for number in 0..60_u64 {
        let ack = publisher.publish(update("px", "A", number));
        let mut reader = Client::connect(&cluster.at(1 + number as usize % 2), "r");
        let (view, joined) = join_latest(&mut reader, "px");
        assert_eq!(view.contents(), BTreeMap::from([("A", &json!(number))]), "{joined}");
        assert_eq!(position(&joined), position(&ack));
        reader.leave();
    }
}

#[test]
fn a_node_that_comes_later_has_all_items() {
    let cluster = Cluster::start(2, KEYED);
    let mut publisher = Client::connect(&cluster.at(0), "p");
    let big = "x".repeat(500);
    for part in 0..20 {
        let updates: Vec<Value> =
            (0..100).map(|item| json!({"item": format!("I{}", part * 100 + item), "content": [part, big]})).collect();
        publisher.publish(json!({"type": "room_msgs", "roomId": "px", "updates": updates}));
    }
    publisher.publish(removal("px", "I7"));
    let mut reader = Client::connect(&cluster.at(1), "r");
    let (view, joined) = join_latest(&mut reader, "px");
    assert_eq!((view.items.len(), position(&joined).1), (1_999, 2_001));
    // Then it follows.
    publisher.publish(update("px", "I7", "back"));
    let message = reader.recv_type("room_msg");
    assert_eq!((&message["item"], &message["seq"], &message["offset"]), (&json!("I7"), &json!(3), &json!(2_002)));
}

#[test]
fn a_position_is_good_on_another_node() {
    let cluster = Cluster::start(2, KEYED);
    let mut publisher = Client::connect(&cluster.at(0), "p");
    for item in ["A", "B", "C"] {
        publisher.publish(update("px", item, 1));
    }
    let mut first = Client::connect(&cluster.at(0), "r");
    let (_, joined) = join_latest(&mut first, "px");
    let (epoch, offset) = position(&joined);
    first.leave();
    publisher.publish(update("px", "B", 2));
    publisher.publish(removal("px", "C"));
    publisher.publish(update("px", "B", 3));
    let mut second = Client::connect(&cluster.at(1), "r");
    let mut command = latest("px");
    command["since"] = json!({"epoch": epoch, "offset": offset});
    command["id"] = json!("join");
    second.send(&command);
    let got: Vec<Value> = (0..3).map(|_| second.recv_json()).collect();
    assert_eq!((&got[0]["item"], &got[0]["removed"], &got[0]["offset"]), (&json!("C"), &json!(true), &json!(5)));
    assert_eq!((&got[1]["item"], &got[1]["content"], &got[1]["offset"]), (&json!("B"), &json!(3), &json!(6)));
    assert_eq!((&got[2]["recovered"], &got[2]["offset"]), (&json!(true), &json!(6)));
    command["since"] = json!({"epoch": epoch, "offset": 99});
    let mut third = Client::connect(&cluster.at(1), "r");
    third.send(&command);
    let got: Vec<Value> = (0..3).map(|_| third.recv_json()).collect();
    assert_eq!((&got[0]["item"], &got[1]["item"], &got[2]["recovered"]), (&json!("A"), &json!("B"), &json!(false)));
}

#[test]
fn versions_keys_and_bounds_count_for_all_nodes() {
    let settings = ["--room", "match=px,keyed=true,items.max=3", "--rooms.notice_members_max", "0"];
    let cluster = Cluster::start(2, &settings);
    let mut one = Client::connect(&cluster.at(0), "p");
    let mut other = Client::connect(&cluster.at(1), "p");
    let versioned = |item: &str, version: i64| json!({"type": "room_msg", "roomId": "px", "item": item, "content": version, "version": version});
    assert_eq!(one.publish(versioned("A", i64::MAX - 1))["offset"], 1);
    let stale = other.publish(versioned("A", i64::MAX - 1));
    assert_eq!((&stale["stale"], &stale["offset"]), (&json!(true), &json!(1)));
    assert_eq!(other.publish(versioned("A", i64::MAX))["offset"], 2);
    let updates = json!([
        {"item": "A", "content": 0, "version": 3},
        {"item": "B", "content": 0, "version": -4},
        {"item": "B", "content": 0, "version": -4},
    ]);
    let ack = one.publish(json!({"type": "room_msgs", "roomId": "px", "updates": updates, "key": "k"}));
    assert_eq!((&ack["stale"], &ack["offset"]), (&json!([0, 2]), &json!(3)));
    let again = other.publish(json!({"type": "room_msgs", "roomId": "px", "updates": updates, "key": "k"}));
    assert_eq!((&again["stale"], &again["offset"]), (&json!([0, 2]), &json!(3)));
    let updates = json!([{"item": "C", "content": 0}, {"item": "D", "content": 0}]);
    let refused = other.request(json!({"type": "room_msgs", "roomId": "px", "updates": updates}));
    assert_eq!(
        (&refused["code"], &refused["index"], &refused["roomId"]),
        (&json!("too_many_items"), &json!(1), &json!("px"))
    );
    let ack = other.publish(json!({"type": "room_msgs", "roomId": "px", "updates": updates, "replace": true}));
    assert_eq!(ack["offset"], 7, "two new ones and two removals");
    let mut reader = Client::connect(&cluster.at(0), "r");
    let (view, _) = join_latest(&mut reader, "px");
    assert_eq!(view.items.keys().collect::<Vec<_>>(), ["C", "D"]);
}

#[test]
fn what_is_too_old_is_removed_once() {
    let settings = ["--room", "match=px,keyed=true,items.ttl=1s", "--rooms.notice_members_max", "0"];
    let cluster = Cluster::start(2, &settings);
    let mut members: Vec<Client> = (0..2).map(|node| Client::connect(&cluster.at(node), "m")).collect();
    members.iter_mut().for_each(|member| drop(member.join("px")));
    let mut publisher = Client::connect(&cluster.at(0), "p");
    publisher.publish(update("px", "A", 1));
    for member in &mut members {
        assert_eq!(member.recv_type("room_msg")["content"], 1);
        let removed = member.recv_type("room_msg");
        assert_eq!((&removed["removed"], &removed["seq"], &removed["offset"]), (&json!(true), &json!(2), &json!(2)));
        assert!(removed.get("from").is_none(), "{removed}");
    }
    members.iter_mut().for_each(|member| member.nothing_for(1_500));
}

/// Nobody is in the room, on no node: it is published into, and read over HTTP.
#[test]
fn what_is_too_old_goes_where_nobody_listens_too() {
    let key = ApiKey::new("backend", "publish read");
    for room in ["px", "pxh"] {
        let settings = [
            "--api.key",
            key.settings(),
            "--room",
            "match=pxh,keyed=true,items.ttl=2s,items.max=5,history.size=100",
            "--room",
            "match=px,keyed=true,items.ttl=2s,items.max=5",
            "--rooms.notice_members_max",
            "0",
        ];
        let cluster = Cluster::start(2, &settings);
        let mut publisher = Client::connect(&cluster.at(0), "p");
        let updates: Vec<Value> = (0..5).map(|item| json!({"item": format!("I{item}"), "content": 0})).collect();
        let ack = publisher.publish(json!({"type": "room_msgs", "roomId": room, "updates": updates}));
        assert_eq!(ack["offset"], 5);
        let items = |node: usize| key.get(&cluster.at(node), &format!("/api/v1/rooms/{room}/items")).json();
        eventually("they are too old to be listed", || items(1)["items"] == json!([]));
        assert_eq!(items(0)["offset"], 5, "they are still there");
        let mut other = Client::connect(&cluster.at(1), "p");
        eventually("there is room for new ones", || other.request(update(room, "new", 1))["type"] == "ack");
        let page = items(0);
        let listed = page["items"].as_array().expect("items");
        assert!(listed.iter().all(|item| item["item"] == "new"), "{page}");
        assert_eq!(page["offset"], 11, "five removals, and the update");
        let mut command = latest(room);
        command["since"] = json!({"epoch": ack["epoch"], "offset": 5});
        let mut reader = Client::connect(&cluster.at(0), "r");
        reader.send(&command);
        for item in 0..5 {
            let removed = reader.recv_type("room_msg");
            let told = (&removed["item"], &removed["removed"], &removed["seq"], &removed["offset"]);
            assert_eq!(told, (&json!(format!("I{item}")), &json!(true), &json!(2), &json!(6 + item)), "{removed}");
            assert!(removed["time"].is_u64() && removed.get("from").is_none(), "{removed}");
        }
        assert_eq!(reader.recv_type("room_msg")["item"], "new");
        assert_eq!(reader.recv_type("joined")["recovered"], true);
    }
}

#[test]
fn lost_subscriptions_are_made_good() {
    for room in ["px", "pxh"] {
        let cluster = Cluster::start(2, KEYED);
        let mut all: Vec<Client> = (0..2).map(|node| Client::connect(&cluster.at(node), "all")).collect();
        all.iter_mut().for_each(|client| drop(client.join(room)));
        let mut newest = Client::connect(&cluster.at(1), "newest");
        let mut view = join_latest(&mut newest, room).0;
        let mut publisher = Client::connect(&cluster.at(0), "p");
        let mut last = 0;
        for round in 0..4 {
            for number in 0..50 {
                last = round * 1_000 + number;
                publisher.publish(update(room, &format!("I{}", number % 7), last));
            }
            cluster.redis().kill_pubsub();
        }
        view.until(&mut newest, &format!("I{}", 49 % 7), &json!(last));
        for client in &mut all {
            let offsets: Vec<Option<u64>> = (0..200).map(|_| client.recv_json()["offset"].as_u64()).collect();
            assert!(offsets.into_iter().eq((1..=200).map(Some)), "none is missing, and no gap is told");
        }
    }
}

#[test]
fn what_was_joined_goes_on_when_redis_is_back() {
    for data in [Data::Kept, Data::Emptied] {
        let redis = if data == Data::Kept { Redis::durable() } else { Redis::start() };
        let mut cluster = Cluster::around(redis, 2, KEYED);
        cluster.await_ready();
        let mut publisher = Client::connect(&cluster.at(0), "p");
        publisher.publish(update("px", "A", 1));
        publisher.publish(update("px", "B", 1));
        let mut newest = Client::connect(&cluster.at(1), "newest");
        let (mut view, joined) = join_latest(&mut newest, "px");
        let mut all = Client::connect(&cluster.at(1), "all");
        all.join("px");
        cluster.redis_mut().kill();
        eventually("publishes are refused", || publisher.request(update("px", "A", 2))["code"] == "unavailable");
        let mut late = Client::connect(&cluster.at(1), "late");
        eventually("joins are refused", || late.request(latest("px"))["code"] == "unavailable");
        cluster.redis_mut().restart(data);
        let mut command = update("px", "A", 3);
        command["key"] = json!("k");
        let ack = insist(&mut publisher, &command);
        assert_ne!(ack["epoch"], joined["epoch"], "it is another epoch");
        view.until(&mut newest, "A", &json!(3));
        let expected = if data == Data::Kept { vec!["A", "B"] } else { vec!["A"] };
        assert_eq!(view.items.keys().collect::<Vec<_>>(), expected, "all values, in the new epoch");
        let gap = all.expect_type("gap");
        assert_eq!((&gap["roomId"], &gap["recovered"]), (&json!("px"), &json!(false)));
        assert_eq!(gap["epoch"], ack["epoch"]);
        cluster.await_ready();
        let (view, joined) = join_latest(&mut Client::connect(&cluster.at(0), "r"), "px");
        assert_eq!((view.contents()["A"], &joined["epoch"]), (&json!(3), &ack["epoch"]));
    }
}

#[test]
fn programs_publish_items_and_read_them_at_any_node() {
    let key = ApiKey::new("backend", "publish read kick");
    let settings = ["--api.key", key.settings(), "--room", "match=px,keyed=true,items.max=5,history.size=10"];
    let cluster = Cluster::start(2, &settings);
    let mut member = Client::connect(&cluster.at(1), "m");
    member.join("px");
    let one = |item: usize| json!({"publish": {"roomId": "px", "item": format!("I{item}"), "content": item}});
    let commands: Vec<Value> = (0..7).chain([0]).map(one).collect();
    let body = json!({"commands": commands}).to_string();
    let answer = key.post(&cluster.at(0), "/api/v1/batch", &body).json();
    let offsets: Vec<Option<u64>> =
        answer["results"].as_array().expect("results").iter().map(|result| result["offset"].as_u64()).collect();
    assert_eq!(offsets, [Some(1), Some(2), Some(3), Some(4), Some(5), None, None, Some(6)], "{answer}");
    assert_eq!(answer["results"][5]["error"]["code"], "too_many_items");
    assert_eq!(member.expect(|message| message["offset"] == 6)["item"], "I0");
    let page = key.get(&cluster.at(1), "/api/v1/rooms/px/items?limit=2").json();
    let items = |page: &Value| -> Vec<Value> {
        page["items"].as_array().expect("items").iter().map(|item| item["item"].clone()).collect()
    };
    assert_eq!((items(&page), &page["offset"]), (vec![json!("I1"), json!("I2")], &json!(6)), "{page}");
    let next = format!(
        "/api/v1/rooms/px/items?limit=9&after={}",
        page["next"].as_str().map_or_else(|| page["next"].to_string(), str::to_owned)
    );
    let page = key.get(&cluster.at(0), &next).json();
    assert_eq!((items(&page), &page["next"]), (vec![json!("I3"), json!("I4"), json!("I0")], &Value::Null), "{page}");
    // What was kept of messages goes, and the items stay.
    assert_eq!(key.ask(&cluster.at(0), "DELETE", "/api/v1/rooms/px/history", "", "").status, 200);
    let gap = member.expect_type("gap");
    assert_ne!(gap["epoch"], page["epoch"]);
    let (view, joined) = join_latest(&mut Client::connect(&cluster.at(1), "r"), "px");
    assert_eq!((view.items.len(), &joined["epoch"], &joined["offset"]), (5, &gap["epoch"], &json!(6)));
    let update = json!({"roomId": "px", "item": "I0", "content": "new"}).to_string();
    assert_eq!(key.post(&cluster.at(0), "/api/v1/publish", &update).json()["offset"], 7);
    assert_eq!(member.expect_type("room_msg")["offset"], 7);
}

#[test]
fn raw_rooms_pass_items_between_nodes() {
    let cluster = Cluster::start(2, &["--room", "match=raw/px,keyed=true"]);
    let update = |item: &str, payload: &[u8]| {
        Message::binary([&(item.len() as u16).to_be_bytes(), item.as_bytes(), payload].concat())
    };
    let recv = |client: &mut Client| -> (u64, u64, String) {
        let Message::Binary(bytes) = client.recv() else { panic!("binary messages") };
        let number = |from: usize| u64::from_be_bytes(bytes[from..from + 8].try_into().expect("eight bytes"));
        (number(0), number(8), String::from_utf8_lossy(&bytes[18..]).into_owned())
    };
    let mut publisher = Client::open(&cluster.at(0), "/raw/px");
    publisher.send_message(update("A", b"1"));
    publisher.send_message(update("A", b"2"));
    publisher.send_message(update("B", b"1"));
    let mut all = Client::open(&cluster.at(1), "/raw/px");
    eventually("it has come to Redis", || cluster.redis().command(&["HLEN", "fanfare:raw:{px}:i"]).contains('2'));
    let mut newest = Client::open(&cluster.at(1), "/raw/px?mode=latest");
    assert_eq!(recv(&mut newest), (2, 2, "A2".to_owned()));
    assert_eq!(recv(&mut newest), (1, 3, "B1".to_owned()));
    let (seq, offset, _) = recv(&mut newest);
    assert_eq!((seq, offset), (0, 3), "the end of the snapshot");
    publisher.send_message(update("B", b""));
    assert_eq!(recv(&mut newest), (2, 4, "B".to_owned()));
    loop {
        if recv(&mut all) == (2, 4, "B".to_owned()) {
            break;
        }
    }
}

#[test]
fn without_redis_keyed_rooms_say_so_and_are_there_when_it_is_back() {
    let settings = ["--room", "match=px,keyed=true", "--room", "match=raw/px,keyed=true"];
    let mut cluster = Cluster::around(Redis::absent(false), 2, &settings);
    let targets = ["/raw/px", "/raw/px?mode=latest", "/raw/px?items=A"];
    let message = || Message::binary([&1_u16.to_be_bytes(), &b"A1"[..]].concat());
    for node in 0..2 {
        let mut client = Client::connect(&cluster.at(node), "c");
        let commands = [
            latest("px"),
            json!({"type": "join_room", "roomId": "px"}),
            json!({"type": "join_room", "roomId": "px", "since": {"epoch": "e", "offset": 1}}),
            update("px", "A", 1),
            json!({"type": "room_msgs", "roomId": "px", "updates": [{"item": "A", "content": 1}]}),
        ];
        for command in commands {
            let answer = client.request(command);
            assert_eq!((&answer["code"], &answer["roomId"]), (&json!("unavailable"), &json!("px")), "{answer}");
        }
        for target in targets {
            let (code, reason) = Client::open(&cluster.at(node), target).close_frame();
            assert_eq!(code, 1013, "{target}: {reason}");
        }
        // It is in no room: there is nothing to tune.
        assert_eq!(client.request(json!({"type": "tune", "roomId": "px", "interval": 1}))["code"], "not_joined");
    }
    cluster.redis_mut().restart(Data::Emptied);
    cluster.await_ready();
    for node in 0..2 {
        let mut client = Client::connect(&cluster.at(node), "c");
        assert_eq!(insist(&mut client, &latest("px"))["offset"], 0);
    }
    let mut raw: Vec<Client> = targets.iter().map(|target| Client::open(&cluster.at(0), target)).collect();
    for client in &mut raw {
        assert!(matches!(client.recv(), Message::Binary(end) if end[16..18] == [0, 0]), "the end of the snapshot");
    }
    cluster.redis_mut().kill();
    cluster.await_readiness(503);
    let (code, reason) = {
        raw[0].send_message(message());
        raw[0].close_frame()
    };
    assert_eq!(code, 1013, "a publish: {reason}");
}
