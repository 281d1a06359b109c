//! Who must and who may get what, as far as the clients can tell.
//!
//! A membership is sure from the moment its client hears of it until the client says that it leaves; it is possible
//! from the moment the client says that it joins until it hears that it left. A message must reach whoever was sure
//! when it was said, and has stayed sure until all has come to rest; it may reach whoever is possible; and it reaches
//! nobody twice, nor its sender where that is left out, nor anybody behind what the same sender said later to the same
//! topic. Everything else is left open, which is much less than the clients are promised (`tests/simulation` asks for
//! more); it is enough to notice what is lost, doubled, misrouted or out of order.

use std::collections::{BTreeMap, BTreeSet};

/// One client.
pub type GuestAt = usize;

/// One message.
pub type Serial = usize;

/// What is published to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Topic {
    Everyone,
    User(String),
    Room(String),
    Raw(String),
    One(GuestAt),
}

#[derive(Debug, Default)]
struct Member {
    /// Whether it is one once everything said is done.
    wanted: bool,
    may: bool,
    /// The number of the next message when it became sure.
    sure_since: Option<Serial>,
    /// Joins and leaves it has said.
    changes: u32,
}

/// A message as all its receivers must see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    Json { kind: &'static str, from: String, value: String },
    Text(String),
    Binary(Vec<u8>),
}

struct Message {
    topic: Topic,
    by: GuestAt,
    /// Whether the connection that said it does not get it.
    not_to_sender: bool,
    body: Body,
    time_ms: Option<u64>,
    receivers: BTreeSet<GuestAt>,
    settled: bool,
}

/// See the module's documentation.
#[derive(Default)]
pub struct Model {
    members: BTreeMap<(Topic, GuestAt), Member>,
    messages: Vec<Message>,
    first_unsettled: Serial,
    /// The last message that each got from each to each topic.
    last: BTreeMap<(GuestAt, GuestAt, Topic), Serial>,
}

impl Model {
    /// A client says that it joins; the number of this change.
    pub fn join(&mut self, topic: Topic, guest: GuestAt) -> u32 {
        let member = self.members.entry((topic, guest)).or_default();
        (member.wanted, member.may) = (true, true);
        member.changes += 1;
        member.changes
    }

    /// A client says that it leaves; the number of this change.
    pub fn leave(&mut self, topic: Topic, guest: GuestAt) -> u32 {
        let member = self.members.entry((topic, guest)).or_default();
        (member.wanted, member.sure_since) = (false, None);
        member.changes += 1;
        member.changes
    }

    /// A client hears that a change is done.
    pub fn done(&mut self, topic: Topic, guest: GuestAt, change: u32) {
        let next = self.messages.len();
        let member = self.members.entry((topic, guest)).or_default();
        if member.changes == change {
            match member.wanted {
                true => _ = member.sure_since.get_or_insert(next),
                false => member.may = false,
            }
        }
    }

    /// A client says something. The serial is to stand in the message, between two signs.
    pub fn say(&mut self, by: GuestAt, topic: Topic, not_to_sender: bool, body: impl FnOnce(Serial) -> Body) -> Serial {
        let serial = self.messages.len();
        let (body, time_ms, receivers, settled) = (body(serial), None, BTreeSet::new(), false);
        self.messages.push(Message { topic, by, not_to_sender, body, time_ms, receivers, settled });
        serial
    }

    /// A message has come. A wild client may be anywhere.
    pub fn hear(&mut self, guest: GuestAt, body: &Body, time_ms: Option<u64>, is_wild: bool) {
        let serial = serial_in(body);
        let Some(message) = self.messages.get_mut(serial) else { panic!("{body:?} was never said") };
        let what = format!("message {serial} to {:?} at client {guest}", message.topic);
        assert_eq!(*body, message.body, "{what} is what was said");
        assert!(!(message.not_to_sender && message.by == guest), "{what}: its sender does not get it");
        assert!(message.receivers.insert(guest), "{what} comes twice");
        assert!(!message.settled, "{what} comes when all had come to rest");
        match message.time_ms {
            None => message.time_ms = time_ms,
            Some(_) => assert_eq!(message.time_ms, time_ms, "{what}: its time is the same for all"),
        }
        let place = (guest, message.by, message.topic.clone());
        let earlier = self.last.insert(place, serial);
        assert!(earlier < Some(serial), "{what} comes behind what was said later");
        let may = self.may(&self.messages[serial].topic, guest);
        assert!(is_wild || may, "{what}: it is no member");
    }

    /// Whether a client may be a member.
    pub fn may(&self, topic: &Topic, guest: GuestAt) -> bool {
        self.members.get(&(topic.clone(), guest)).is_some_and(|member| member.may)
    }

    /// Whether a client is a member once everything said is done.
    pub fn wants(&self, topic: &Topic, guest: GuestAt) -> bool {
        self.members.get(&(topic.clone(), guest)).is_some_and(|member| member.wanted)
    }

    /// A client is gone, and a member of nothing.
    pub fn end(&mut self, guest: GuestAt) {
        self.members.retain(|(_, known), _| *known != guest);
    }

    /// All has come to rest: what must have come has. `is_open` tells whose connection is open; nothing is demanded
    /// for the others, nor of what they said.
    pub fn settle(&mut self, is_open: impl Fn(GuestAt) -> bool) {
        let next = self.messages.len();
        let members = &self.members;
        for (serial, message) in self.messages.iter_mut().enumerate().skip(self.first_unsettled) {
            message.settled = true;
            let of_topic = members.range((message.topic.clone(), 0)..=(message.topic.clone(), GuestAt::MAX));
            for ((topic, guest), member) in of_topic {
                let is_sure = member.sure_since.is_some_and(|since| since <= serial);
                let is_left_out = message.not_to_sender && message.by == *guest;
                if is_sure && !is_left_out && is_open(*guest) && is_open(message.by) {
                    let has_come = message.receivers.contains(guest);
                    assert!(has_come, "message {serial} to {topic:?} never came to client {guest}");
                }
            }
        }
        self.first_unsettled = next;
        for member in self.members.values_mut() {
            member.may = member.wanted;
            if member.wanted {
                member.sure_since.get_or_insert(next);
            }
        }
    }
}

/// The serial that every message carries between two signs.
fn serial_in(body: &Body) -> Serial {
    let bytes = match body {
        Body::Json { value: text, .. } | Body::Text(text) => text.as_bytes(),
        Body::Binary(bytes) => bytes,
    };
    let digits = bytes.split(|&byte| byte == b'#').nth(1).and_then(|digits| std::str::from_utf8(digits).ok());
    digits.and_then(|digits| digits.parse().ok()).unwrap_or_else(|| panic!("{body:?} was never said"))
}
