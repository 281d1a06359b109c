//! What small requests cost Redis: a bounded multiple of what they are, however much there is.

use std::thread;
use std::time::{Duration, Instant};

use fanfare_testing::{Client, Cluster, Redis};
use serde_json::{Value, json};

use crate::{KEPT, PLAIN, join_since, next_messages, offset_of, position, room_msg, users_of};

/// What a node says to Redis and hears from it of its own accord while a case lasts, and more than that.
const IDLE_BYTES: u64 = 100_000;

/// Bytes that Redis has sent to all its clients so far.
fn sent_by(redis: &Redis) -> u64 {
    let stats = redis.command(&["INFO", "stats"]);
    let found = stats.lines().find_map(|line| line.trim().strip_prefix("total_net_output_bytes:"));
    found.and_then(|bytes| bytes.parse().ok()).expect("Redis counts what it sends")
}

/// What Redis has sent while something was done.
fn cost(cluster: &Cluster, work: impl FnOnce()) -> u64 {
    let before = sent_by(cluster.redis());
    work();
    sent_by(cluster.redis()) - before
}

/// Messages of so many bytes in a room, published on a node; all of them are stored.
fn fill(cluster: &Cluster, node: usize, room: &str, messages: usize, bytes: usize) {
    let mut publisher = Client::connect(&cluster.at(node), "publisher");
    let content = "x".repeat(bytes);
    for at in 0..messages {
        let mut message = room_msg(room, content.as_str());
        if (at + 1) % 500 == 0 {
            message["id"] = json!(at);
        }
        publisher.send(&message);
        if (at + 1) % 500 == 0 {
            assert_eq!(publisher.reply(&json!(at))["type"], "ack");
        }
    }
}

#[test]
fn who_comes_and_goes_costs_redis_what_is_asked_for_and_only_once() {
    const LOOPS: u64 = 300;
    let cluster = Cluster::start(2, KEPT);
    fill(&cluster, 1, "kept", 5_000, 300);
    let mut client = Client::connect(&cluster.at(0), "c");
    let bytes = cost(&cluster, || {
        for _ in 0..LOOPS {
            client.send(&json!({"type": "join_room", "roomId": "kept", "last": 1}));
            assert_eq!(next_messages(&mut client, 1)[0].1, 5_000);
            assert_eq!(client.recv_type("joined")["offset"], 5_000);
            client.publish(json!({"type": "leave_room", "roomId": "kept"}));
        }
    });
    assert!(bytes < IDLE_BYTES, "{bytes} bytes for one message of 5,000, {LOOPS} times");
}

#[test]
fn a_page_further_back_costs_redis_that_page() {
    let cluster = Cluster::start(2, KEPT);
    fill(&cluster, 1, "kept", 3_000, 1_000);
    let mut client = Client::connect(&cluster.at(0), "c");
    client.join("kept");
    let page = json!({"type": "history", "roomId": "kept", "before": 101, "limit": 50});
    let bytes = cost(&cluster, || {
        for _ in 0..2 {
            let answer = client.request(page.clone());
            let messages = answer["messages"].as_array().expect("a page");
            assert_eq!(messages.iter().map(offset_of).collect::<Vec<u64>>(), (51..=100).collect::<Vec<u64>>());
            assert_eq!(answer["offset"], 3_000);
        }
    });
    assert!(bytes < IDLE_BYTES + 2 * 50 * 1_200, "{bytes} bytes for fifty messages of 3,000, twice");
}

/// What is missed comes in pieces, all of it, and from Redis once.
#[test]
fn all_that_was_missed_is_read_piece_by_piece() {
    let cluster = Cluster::start(2, &[KEPT, &["--outbox.bytes_max", "32MiB"]].concat());
    let mut client = Client::connect(&cluster.at(0), "c");
    let (epoch, offset) = position(&client.join("kept"));
    client.publish(json!({"type": "leave_room", "roomId": "kept"}));
    // Until the room does not linger on the node any more.
    thread::sleep(Duration::from_millis(5_600));
    fill(&cluster, 1, "kept", 3_000, 1_000);
    let bytes = cost(&cluster, || {
        for _ in 0..2 {
            client.send(&json!({"type": "join_room", "roomId": "kept", "since": {"epoch": epoch, "offset": offset}}));
            let offsets: Vec<u64> = next_messages(&mut client, 3_000).into_iter().map(|(_, offset)| offset).collect();
            assert_eq!(offsets, (1..=3_000).collect::<Vec<u64>>());
            assert_eq!(client.recv_type("joined")["recovered"], true);
            client.publish(json!({"type": "leave_room", "roomId": "kept"}));
        }
    });
    assert!(bytes < IDLE_BYTES + 3_000 * 1_200, "{bytes}");
}

#[test]
fn asking_who_is_there_again_and_again_is_asking_a_few_times() {
    const USERS: usize = 150;
    const ASKS: usize = 1_700;
    let cluster = Cluster::start(2, &[PLAIN, &["--outbox.bytes_max", "64MiB"]].concat());
    let _members: Vec<Client> = (0..2 * USERS)
        .map(|at| {
            let mut member = Client::connect(&cluster.at(at % 2), &format!("a-user-of-the-room-{at}"));
            member.join("den");
            member
        })
        .collect();
    let mut asker = Client::connect(&cluster.at(0), "asker");
    let began = Instant::now();
    let bytes = cost(&cluster, || {
        (0..ASKS).for_each(|id| asker.send(&json!({"type": "presence", "roomId": "den", "id": id})));
        for id in 0..ASKS {
            let presence = asker.recv_type("presence");
            assert_eq!((&presence["id"], presence["count"].as_u64()), (&json!(id), Some(2 * USERS as u64)));
            assert_eq!(users_of(&presence).len(), 2 * USERS);
        }
    });
    // The room is asked about every ten milliseconds at most, and each answer has the names of one node.
    let questions_max = began.elapsed().as_millis() as u64 / 10 + 2;
    assert!(bytes < IDLE_BYTES + questions_max * (USERS * 25) as u64, "{bytes} bytes for {ASKS} questions");
}

/// The stream's keys are the operator's, too: what stands there and is no message costs nobody the room.
#[test]
fn an_entry_that_no_node_has_written_is_a_gap_and_the_room_stays() {
    const STREAM: &str = "fanfare:room:{kept}:s";
    const META: &str = "fanfare:room:{kept}:m";
    let cluster = Cluster::start(2, KEPT);
    let mut clients: Vec<Client> = (0..2).map(|node| Client::connect(&cluster.at(node), "c")).collect();
    let epochs: Vec<Value> = clients.iter_mut().map(|client| position(&client.join("kept")).0).collect();
    let epoch = &epochs[0];
    let mut publisher = Client::connect(&cluster.at(1), "publisher");
    let mut publish = |content: &str| {
        let answer = publisher.request(room_msg("kept", content));
        assert_eq!(answer["type"], "ack", "{answer}");
        offset_of(&answer)
    };
    assert_eq!(publish("1"), 1);
    // Behind the end it is in the way of the next message.
    cluster.redis().command(&["XADD", STREAM, "*", "some", "thing"]);
    assert_eq!(publish("2"), 2);
    for client in &mut clients {
        assert_eq!(next_messages(client, 2), [("1".into(), 1), ("2".into(), 2)]);
    }
    // In the middle it stands where a message would.
    cluster.redis().command(&["XADD", STREAM, "3-0", "some", "thing"]);
    cluster.redis().command(&["HSET", META, "n", "3"]);
    assert_eq!(publish("4"), 4);
    for client in &mut clients {
        let gap = client.recv_type("gap");
        assert_eq!((&gap["epoch"], gap["offset"].as_u64()), (epoch, Some(3)));
        assert_eq!(next_messages(client, 1), [("4".into(), 4)]);
    }
    // Who comes later, and asks Redis for it.
    for client in &mut clients {
        client.publish(json!({"type": "leave_room", "roomId": "kept"}));
    }
    thread::sleep(Duration::from_millis(5_600));
    let mut late = Client::connect(&cluster.at(0), "late");
    let joined = join_since(&mut late, "kept", epoch, 1);
    assert_eq!((&joined["type"], &joined["recovered"]), (&json!("joined"), &json!(false)));
    let page = late.request(json!({"type": "history", "roomId": "kept"}));
    let contents: Vec<&Value> =
        page["messages"].as_array().expect("a page").iter().map(|one| &one["content"]).collect();
    assert_eq!(contents, ["4"], "what stands behind it");
    assert_eq!(publish("5"), 5);
    assert_eq!(next_messages(&mut late, 1), [("5".into(), 5)]);
}
