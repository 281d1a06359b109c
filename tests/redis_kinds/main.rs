//! Redis of every kind behind two nodes: with TLS, behind a socket, as a user of its access control list, found through
//! Sentinels, as a Redis Cluster; what works with each, and what happens when primaries fail.

mod access;
mod feeding;
mod keyed;
mod mistakes;
mod sentinel;
mod servers;
mod shards;
mod tls;

use std::fs;
use std::path::PathBuf;
use std::sync::LazyLock;

use fanfare_testing::{Client, Cluster, eventually, metric, temporary_path};
use serde_json::{Value, json};

/// Rooms whose names begin with `kept` keep more history than any case needs, those with `px` in front are keyed; no notices.
const ROOMS: &[&str] = &[
    "--room",
    "match=kept*,history.size=1000,history.ttl=1h",
    "--room",
    "match=px*,keyed=true",
    "--rooms.notice_members_max",
    "0",
];

/// Two nodes around the Redis behind this URL. Returns once both are ready.
#[track_caller]
fn nodes(url: &str, settings: &[&str]) -> Cluster {
    // Nobody takes the events: how many there are shows what Redis does.
    static SECRET: LazyLock<PathBuf> = LazyLock::new(|| {
        let path = temporary_path("secret");
        fs::write(&path, "what no request is checked with").expect("a file can be written");
        path
    });
    let webhook = format!("url=http://127.0.0.1:1/,secret_file={},events=user_online", SECRET.display());
    let cluster = Cluster::at_url(url, 2, &[ROOMS, &["--webhook", &webhook], settings].concat());
    cluster.await_ready();
    cluster
}

/// Everything that goes through Redis goes from one node to the other: rooms with and without history, keyed ones, a user's
/// inbox, a single connection, presence, a page of history, and the events of webhooks.
#[track_caller]
fn assert_works(cluster: &Cluster) {
    let mut alice = Client::connect(&cluster.at(0), "alice");
    let mut bob = Client::connect(&cluster.at(1), "bob");
    for room in ["plain", "kept"] {
        alice.join(room);
        bob.join(room);
        for number in 1..=3_u64 {
            let ack = alice.publish(room_msg(room, number));
            let message = bob.recv_type("room_msg");
            assert_eq!((&message["roomId"], &message["content"]), (&json!(room), &json!(number)));
            assert_eq!(message["offset"], ack["offset"]);
            assert_eq!(ack["offset"].as_u64(), (room == "kept").then_some(number), "{ack}");
        }
    }
    keyed::assert_items_work(cluster);
    bob.publish(json!({"type": "private_msg", "toUser": "alice", "content": "psst"}));
    assert_eq!(alice.recv_type("private_msg")["content"], "psst");
    bob.publish(json!({"type": "private", "to": alice.client_id(), "data": 1}));
    assert_eq!(alice.recv_type("private")["from"], "bob");
    let presence = bob.request(json!({"type": "presence", "roomId": "plain"}));
    assert_eq!(presence["count"], 2, "{presence}");
    let page = bob.request(json!({"type": "history", "roomId": "kept", "limit": 2}));
    let contents: Vec<&Value> = page["messages"].as_array().expect("messages").iter().map(|m| &m["content"]).collect();
    assert_eq!(contents, [2, 3]);
    eventually("both users are told of", || metric(cluster, "fanfare_webhook_events_total{outcome=\"queued\"}") >= 2);
}

fn room_msg(room: &str, content: impl Into<Value>) -> Value {
    json!({"type": "room_msg", "roomId": room, "content": content.into()})
}

/// Publishes a message under a key again and again until it is acked; the ack.
#[track_caller]
fn insist(client: &mut Client, room: &str, content: u64) -> Value {
    let mut command = room_msg(room, content);
    command["key"] = json!(content.to_string());
    insist_on(client, &command)
}

/// The same of a command that has its key.
#[track_caller]
fn insist_on(client: &mut Client, command: &Value) -> Value {
    let mut answer = Value::Null;
    eventually("an ack", || {
        answer = client.request(command.clone());
        answer["code"] != "unavailable"
    });
    assert_eq!(answer["type"], "ack", "{answer}");
    answer
}
