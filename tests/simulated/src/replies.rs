//! What a client is still owed: every command with an id exactly one reply, and those without what they always get.
//!
//! `C` is a join or a leave, as the model knows it.

use std::collections::BTreeMap;
use std::fmt::Debug;

use crate::message::{Page, Serial};

/// The reply that one command waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Awaited<C> {
    /// `ack` of something published.
    Published(Serial),
    /// `ack` of a leave.
    Left(C),
    /// `ack` of what changes nothing.
    Ack,
    /// `joined` of one room.
    Joined {
        /// The room.
        room: String,
        /// The join.
        op: C,
        /// Whether it has a position to go on from.
        resumes: bool,
    },
    /// A `joined` a room, in any order, then the `ack`.
    Many {
        /// The rooms whose `joined` has not come, with their joins.
        rooms: Vec<(String, C)>,
        /// Whether they have a position to go on from.
        resumes: bool,
    },
    /// Who is in a room.
    Presence {
        /// The room.
        room: String,
    },
    /// A page of a room's history.
    Page {
        /// The room.
        room: String,
        /// What was asked for.
        page: Page,
    },
    /// What came to the inbox before the welcome.
    Resumed,
    /// `pong`.
    Pong,
    /// An error with this code.
    Error(&'static str),
}

/// A reply that came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply<'a> {
    /// `ack`.
    Ack,
    /// `joined`.
    Joined {
        /// The room.
        room: &'a str,
        /// Whether all that was missed came.
        recovered: Option<bool>,
    },
    /// `presence`.
    Presence {
        /// The room.
        room: &'a str,
    },
    /// `history`.
    Page {
        /// The room.
        room: &'a str,
    },
    /// `resumed`.
    Resumed,
    /// `pong`.
    Pong,
    /// `error`, and its code.
    Error(&'a str),
}

/// What a reply tells the model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News<C> {
    /// What it knew.
    Nothing,
    /// A message has its place in its topic's order.
    Routed(Serial),
    /// A join or a leave has.
    Done(C),
    /// This page has come.
    Page(Page),
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Replies<C> {
    by_id: BTreeMap<String, Awaited<C>>,
    without_id: Vec<Awaited<C>>,
}

impl<C> Default for Replies<C> {
    fn default() -> Replies<C> {
        Replies { by_id: BTreeMap::new(), without_id: Vec::new() }
    }
}

impl<C: Clone + Debug> Replies<C> {
    /// A command was said.
    ///
    /// # Panics
    /// Where its id was said before.
    pub fn await_one(&mut self, id: Option<&str>, awaited: Awaited<C>) {
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

    /// Whether no command waits for anything.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A reply has come.
    ///
    /// # Panics
    /// Where it is not owed.
    pub fn take(&mut self, id: Option<&str>, reply: &Reply<'_>) -> News<C> {
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

fn answers<C>(awaited: &Awaited<C>, reply: &Reply<'_>) -> bool {
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

fn news<C: Clone>(awaited: &Awaited<C>) -> News<C> {
    match awaited {
        Awaited::Published(serial) => News::Routed(*serial),
        Awaited::Left(op) | Awaited::Joined { op, .. } => News::Done(op.clone()),
        Awaited::Page { page, .. } => News::Page(*page),
        Awaited::Ack
        | Awaited::Many { .. }
        | Awaited::Presence { .. }
        | Awaited::Resumed
        | Awaited::Pong
        | Awaited::Error(_) => News::Nothing,
    }
}
