//! What a client is still owed: every command with an id exactly one reply, and those without what they always get.

use std::collections::BTreeMap;

use super::oracle::{OpAt, Serial};
use super::streams::Page;

/// The reply that one command waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Awaited {
    /// `ack` of something published.
    Published(Serial),
    /// `ack` of a leave.
    Left(OpAt),
    /// `ack` of what changes nothing.
    Ack,
    Joined {
        room: String,
        op: OpAt,
        resumes: bool,
    },
    /// A `joined` a room, in any order, then the `ack`.
    Many {
        rooms: Vec<(String, OpAt)>,
        resumes: bool,
    },
    Presence {
        room: String,
    },
    /// A page of a room's history.
    Page {
        room: String,
        page: Page,
    },
    /// What came to the inbox before the welcome.
    Resumed,
    Pong,
    Error(&'static str),
}

/// A reply that came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply<'a> {
    Ack,
    Joined { room: &'a str, recovered: Option<bool> },
    Presence { room: &'a str },
    Page { room: &'a str },
    Resumed,
    Pong,
    Error(&'a str),
}

/// What a reply tells the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    Nothing,
    Routed(Serial),
    Done(OpAt),
    Page(Page),
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct Replies {
    by_id: BTreeMap<String, Awaited>,
    without_id: Vec<Awaited>,
}

impl Replies {
    /// A command was said.
    pub fn await_one(&mut self, id: Option<&str>, awaited: Awaited) {
        match id {
            Some(id) => {
                let before = self.by_id.insert(id.to_owned(), awaited);
                assert!(before.is_none(), "the simulation's ids are distinct");
            }
            None => self.without_id.push(awaited),
        }
    }

    /// How many commands wait for something.
    pub fn len(&self) -> usize {
        self.by_id.len() + self.without_id.len()
    }

    /// A reply has come: it must be one that is owed.
    pub fn take(&mut self, id: Option<&str>, reply: &Reply<'_>) -> News {
        let Some(id) = id else {
            let at = self.without_id.iter().position(|awaited| answers(awaited, reply));
            let at = at.unwrap_or_else(|| panic!("{reply:?} without id answers nothing: {self:?}"));
            return news(&self.without_id.remove(at));
        };
        let Some(awaited) = self.by_id.get_mut(id) else {
            panic!("{reply:?} with id {id}: no command waits for it, or it had its reply already")
        };
        if let (Awaited::Many { rooms, resumes }, Reply::Joined { room, recovered }) = (&mut *awaited, reply) {
            assert_eq!(recovered.is_some(), *resumes, "id {id}");
            let at = rooms.iter().position(|(name, _)| name == room);
            let at = at.unwrap_or_else(|| panic!("id {id}: {room} was joined already or never asked for"));
            return News::Done(rooms.remove(at).1);
        }
        assert!(answers(awaited, reply), "{reply:?} with id {id} is no reply to {awaited:?}");
        let news = news(awaited);
        self.by_id.remove(id);
        news
    }
}

fn answers(awaited: &Awaited, reply: &Reply<'_>) -> bool {
    match (awaited, reply) {
        (Awaited::Published(_) | Awaited::Left(_) | Awaited::Ack, Reply::Ack) => true,
        (Awaited::Many { rooms, .. }, Reply::Ack) => rooms.is_empty(),
        (Awaited::Joined { room, resumes, .. }, Reply::Joined { room: told, recovered }) => {
            room == told && recovered.is_some() == *resumes
        }
        (Awaited::Presence { room }, Reply::Presence { room: told }) => room == told,
        (Awaited::Page { room, .. }, Reply::Page { room: told }) => room == told,
        (Awaited::Resumed, Reply::Resumed) | (Awaited::Pong, Reply::Pong) => true,
        (Awaited::Error(code), Reply::Error(told)) => code == told,
        _ => false,
    }
}

fn news(awaited: &Awaited) -> News {
    match awaited {
        Awaited::Published(serial) => News::Routed(*serial),
        Awaited::Left(op) | Awaited::Joined { op, .. } => News::Done(*op),
        Awaited::Page { page, .. } => News::Page(*page),
        Awaited::Ack
        | Awaited::Many { .. }
        | Awaited::Presence { .. }
        | Awaited::Resumed
        | Awaited::Pong
        | Awaited::Error(_) => News::Nothing,
    }
}
