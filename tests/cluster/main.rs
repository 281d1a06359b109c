//! What only a cluster has: two and three nodes around a real Redis, some of which end, stop and come back.
//!
//! Clients connect to the node that a case names. Everything else that clients may rely on is in `tests/e2e/main.rs`, which
//! runs on two nodes as well. What happens when faults come one after another under load is in `tests/faults/main.rs`.

mod delivery;
mod history;
mod items;
mod orders;
mod outages;
mod presence;
mod repair;
mod requests;
mod subscriptions;

use fanfare_testing::{Client, eventually};
use serde_json::{Value, json};

/// Rooms whose names begin with `kept` keep more history than any case needs; no notices.
const KEPT: &[&str] = &["--room", "match=kept*,history.size=20000,history.ttl=1h", "--rooms.notice_members_max", "0"];

/// No notices, no history.
const PLAIN: &[&str] = &["--rooms.notice_members_max", "0"];

fn room_msg(room: &str, content: impl Into<Value>) -> Value {
    json!({"type": "room_msg", "roomId": room, "content": content.into()})
}

/// Joins from a position; the answer.
#[track_caller]
fn join_since(client: &mut Client, room: &str, epoch: &Value, offset: u64) -> Value {
    client.request(json!({"type": "join_room", "roomId": room, "since": {"epoch": epoch, "offset": offset}}))
}

/// Sends a command again and again until it is not `unavailable`; the answer. What it publishes should have a `key`.
#[track_caller]
fn insist(client: &mut Client, command: &Value) -> Value {
    let mut answer = Value::Null;
    eventually("an answer other than `unavailable`", || {
        answer = client.request(command.clone());
        answer["code"] != "unavailable"
    });
    answer
}

/// The epoch and offset of an answer.
#[track_caller]
fn position(answer: &Value) -> (Value, u64) {
    let offset = answer["offset"].as_u64().unwrap_or_else(|| panic!("an offset in {answer}"));
    (answer["epoch"].clone(), offset)
}

/// The contents and offsets of the next messages, all of them of rooms.
#[track_caller]
fn next_messages(client: &mut Client, count: usize) -> Vec<(Value, u64)> {
    (0..count)
        .map(|_| client.recv_type("room_msg"))
        .map(|message| (message["content"].clone(), offset_of(&message)))
        .collect()
}

/// The offset of a message, 0 where it has none.
fn offset_of(message: &Value) -> u64 {
    message["offset"].as_u64().unwrap_or(0)
}

/// The users of a presence, sorted.
fn users_of(presence: &Value) -> Vec<String> {
    let users = presence["users"].as_array().unwrap_or_else(|| panic!("users in {presence}"));
    let mut users: Vec<String> = users.iter().filter_map(|user| user.as_str().map(str::to_owned)).collect();
    users.sort_unstable();
    users
}
