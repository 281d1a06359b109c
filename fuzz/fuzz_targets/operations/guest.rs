//! A client: what it sends, and what it is owed.

use std::collections::BTreeSet;

use fanfare::reactor::sim::{Client, World};
use fanfare_seeds::frame::Frame;
use fanfare_simulated::end::End;
use fanfare_simulated::message;
use fanfare_simulated::replies::Replies;

/// A join or a leave: the room, and the number of the change.
pub type Change = (String, u32);

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

/// See the module's documentation.
pub struct Guest {
    pub end: End,
    pub role: Role,
    pub phase: Phase,
    /// The user, once it is known.
    pub user: Option<String>,
    pub client_id: Option<String>,
    /// The rooms it is in once everything said is done.
    pub rooms: BTreeSet<String>,
    pub replies: Replies<Change>,
    /// Bytes sent behind the request, without having had the answer.
    pub early_bytes: usize,
}

impl Guest {
    /// A client that has connected and asks for this.
    pub fn new(client: Client, role: Role, user: Option<String>) -> Guest {
        Guest {
            end: End::new(client),
            role,
            phase: Phase::Asking,
            user,
            client_id: None,
            rooms: BTreeSet::new(),
            replies: Replies::default(),
            early_bytes: 0,
        }
    }

    /// Whether it keeps to the rules.
    pub fn is_tame(&self) -> bool {
        !matches!(self.role, Role::Wild | Role::WildRaw)
    }

    /// Sends any bytes.
    pub fn say_raw(&mut self, world: &World, bytes: &[u8]) {
        self.end.say_raw(bytes);
        self.end.flush(world, usize::MAX);
    }

    /// Sends a frame.
    pub fn send(&mut self, world: &World, frame: &Frame) {
        let bytes = frame.bytes();
        if self.phase == Phase::Asking {
            self.early_bytes += bytes.len();
        }
        self.say_raw(world, &bytes);
    }
}

/// The users' names: one needs escapes in JSON and in queries.
pub fn user_name(at: u8) -> String {
    match at % 4 {
        1 => "Zoë + \"Q\" \\".into(),
        at => format!("user{at}"),
    }
}

/// The name of a room.
pub fn room_name(at: u8) -> String {
    message::room_name(usize::from(at % 4))
}
