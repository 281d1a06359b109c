//! What guests say: messages with serials, topics and their names in Redis.

use std::collections::BTreeMap;
use std::sync::Arc;

use fanfare::cluster::names::Names;
use fanfare::router::{Kind, TopicRef};
use fanfare_simulated::message::{Position, Serial};

/// What all names in Redis begin with.
pub const PREFIX: &str = "sim";

/// One client's connection.
pub type GuestAt = usize;

/// What is published to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Topic {
    Everyone,
    Room(String),
    Inbox(String),
    Raw(String),
    /// One connection.
    One(GuestAt),
}

impl Topic {
    /// The topic's channel, with which the names of its keys begin.
    pub fn channel(&self) -> Arc<str> {
        let (kind, name) = match self {
            Topic::Everyone | Topic::One(_) => (Kind::Everyone, ""),
            Topic::Room(name) => (Kind::Room, &**name),
            Topic::Inbox(name) => (Kind::Inbox, &**name),
            Topic::Raw(name) => (Kind::Raw, &**name),
        };
        Names::new(PREFIX).topic(TopicRef { kind, name })
    }
}

/// A message that somebody has said.
#[derive(Clone, Debug)]
pub struct Said {
    pub by: GuestAt,
    pub user: String,
    pub topic: Topic,
    /// Whether the connection that said it does not get it.
    pub not_to_sender: bool,
    /// What a retry is known by.
    pub key: Option<String>,
}

/// All messages, each at its serial.
#[derive(Debug, Default)]
pub struct AllSaid(Vec<Said>);

impl AllSaid {
    /// One more message.
    pub fn add(&mut self, said: Said) -> Serial {
        self.0.push(said);
        self.0.len() - 1
    }

    /// A message that was said.
    pub fn get(&self, serial: Serial) -> &Said {
        self.0.get(serial).unwrap_or_else(|| panic!("#{serial}# was never said"))
    }
}

/// What a client keeps when its connection ends.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    pub user: String,
    pub rooms: BTreeMap<String, Position>,
    pub inbox: Option<Position>,
    /// Messages of which it does not know what became.
    pub unsure: Vec<Serial>,
}

/// Rooms with this in front of their names keep history.
pub const KEPT: &str = "kept";
