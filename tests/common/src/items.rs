//! Keyed rooms as a client sees them: commands, and what a subscriber of the newest values knows.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::Client;

/// The newest value of each item as a subscriber was told. It checks that none ever goes back.
#[derive(Debug, Default, PartialEq)]
pub struct View {
    /// Of each item the offset of its last update, and its content; null where that was a removal.
    pub items: BTreeMap<String, (u64, Value)>,
}

impl View {
    /// Takes what the subscriber gets until an item has this value.
    #[track_caller]
    pub fn until(&mut self, client: &mut Client, item: &str, content: &Value) {
        while self.items.get(item).is_none_or(|(_, known)| known != content) {
            let message = client.recv_json();
            self.take(&message);
        }
    }

    /// Takes a message.
    #[track_caller]
    pub fn take(&mut self, message: &Value) {
        match message["type"].as_str() {
            Some("room_msg") => {
                let item = message["item"].as_str().expect("an item").to_owned();
                let offset = message["offset"].as_u64().expect("an offset");
                let before = self.items.insert(item, (offset, message["content"].clone()));
                assert!(before.is_none_or(|(before, _)| before < offset), "{message} is older than what was shown");
            }
            Some("gap") => self.items.clear(),
            _ => {}
        }
    }

    /// Of each item its content.
    pub fn contents(&self) -> BTreeMap<&str, &Value> {
        self.items.iter().map(|(item, (_, content))| (&**item, content)).collect()
    }
}

/// An update of an item.
pub fn update(room: &str, item: &str, content: impl Into<Value>) -> Value {
    json!({"type": "room_msg", "roomId": room, "item": item, "content": content.into()})
}

/// The removal of one.
pub fn removal(room: &str, item: &str) -> Value {
    json!({"type": "room_msg", "roomId": room, "item": item, "remove": true})
}

/// A join for the newest values.
pub fn latest(room: &str) -> Value {
    json!({"type": "join_room", "roomId": room, "mode": "latest"})
}

/// Joins for the newest values; what was sent in front of the answer, and the answer.
#[track_caller]
pub fn join_latest(client: &mut Client, room: &str) -> (View, Value) {
    join_with(client, latest(room))
}

/// The same with this command.
#[track_caller]
pub fn join_with(client: &mut Client, mut command: Value) -> (View, Value) {
    command["id"] = json!("join");
    client.send(&command);
    let mut view = View::default();
    loop {
        let message = client.recv_json();
        if message["id"] == "join" {
            return (view, message);
        }
        view.take(&message);
    }
}
