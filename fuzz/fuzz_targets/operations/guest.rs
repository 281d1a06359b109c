//! A client: what it sends, and what it is owed.

use std::collections::{BTreeMap, BTreeSet};

use fanfare::reactor::sim::{Client, World};
use fanfare_seeds::frame::Frame;

use super::ear::Ear;

/// The key of RFC 6455 §1.3.
pub const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

/// The user of every wild client: who hears it knows that anything may have been said.
pub const WILD_USER: &str = "wild";

/// What a client came for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    Json,
    Raw {
        room: String,
        echo: bool,
    },
    /// A JSON connection that may send anything, so that nothing is demanded for it but what all are promised.
    Wild,
    /// The same in a raw room of such clients, where anything may be heard.
    WildRaw,
}

/// How far its connection is, as it sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// It has asked for a connection.
    Asking,
    /// It has its 101, and its welcome if there is one.
    Open,
    /// It has sent a close frame with this code.
    Closing(u16),
    /// It has had a close frame.
    Told,
    /// Its request was refused.
    Refused,
    /// The connection is over.
    Over,
}

/// The reply that a command waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Awaited {
    Ack,
    /// The ack of a leave, with the number of the change.
    Left(String, u32),
    Joined {
        room: String,
        change: u32,
        resumes: bool,
    },
    /// A `joined` for each room, in any order, then the ack.
    Many {
        rooms: Vec<(String, u32)>,
        resumes: bool,
    },
    Presence(String),
    Pong,
    Error(&'static str),
}

/// See the module's documentation.
pub struct Guest {
    pub client: Client,
    pub role: Role,
    pub phase: Phase,
    pub ear: Ear,
    /// The user, once it is known.
    pub user: Option<String>,
    pub client_id: Option<String>,
    /// The rooms it is in once everything said is done.
    pub rooms: BTreeSet<String>,
    /// What its commands wait for, by their id.
    pub awaited: BTreeMap<String, Awaited>,
    /// Bytes sent behind the request, without having had the answer.
    pub early_bytes: usize,
}

impl Guest {
    /// A client that has connected and asks for this.
    pub fn new(client: Client, role: Role, user: Option<String>) -> Guest {
        Guest {
            client,
            role,
            phase: Phase::Asking,
            ear: Ear::default(),
            user,
            client_id: None,
            rooms: BTreeSet::new(),
            awaited: BTreeMap::new(),
            early_bytes: 0,
        }
    }

    /// Whether it keeps to the rules.
    pub fn is_tame(&self) -> bool {
        !matches!(self.role, Role::Wild | Role::WildRaw)
    }

    /// Sends a frame.
    pub fn send(&mut self, world: &World, frame: &Frame) {
        let bytes = frame.bytes();
        if self.phase == Phase::Asking {
            self.early_bytes += bytes.len();
        }
        world.send(self.client, &bytes);
    }
}

/// A request for a connection.
pub fn request(target: &str) -> Vec<u8> {
    format!(
        "GET {target} HTTP/1.1\r\nHost: sim\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    .into_bytes()
}

/// Text as a JSON string.
pub fn json(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// Text for a path or a query.
pub fn percent(text: &str) -> String {
    let one = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => char::from(byte).to_string(),
        other => format!("%{other:02X}"),
    };
    text.bytes().map(one).collect()
}

/// The users' names: one needs escapes in JSON and in queries.
pub fn user_name(at: u8) -> String {
    match at % 4 {
        1 => "Zoë + \"Q\" \\".into(),
        at => format!("user{at}"),
    }
}

/// The rooms' names: one needs escapes in JSON and in paths.
pub fn room_name(at: u8) -> String {
    match at % 4 {
        1 => "\"größe\" & more".into(),
        at => format!("room{at}"),
    }
}
