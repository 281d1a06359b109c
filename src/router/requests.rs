//! What requests of the control thread ask of topics' homes, and what they are told.
//!
//! A request asks as a connection does, by the same mail. It is no member of anything, and gets its reply by mail, which
//! the control thread reads with [`Mail::into_told`]. Publishes go in pieces of many ([`PublishMany`]).

use std::sync::Arc;

use smallvec::SmallVec;

use super::history::StreamPosition;
use super::home_request::HistoryPage;
use super::keyed::StaleUpdates;
use super::mail::{Ack, Content, HistoryOf, HomeMail, Mail, PresenceOf};
use super::publish_many::{CommandId, Fate, PublishMany, commands_of_id};
use super::survey::{NodeFound, Surveyed};
use super::topic::{HashedTopic, Kind, TopicHasher, TopicKey, TopicRef};
use crate::ids::{PeerId, ReactorId, ReplyTo, RequestId};
use crate::limits::HISTORY_PAGE_MAX;

/// What a request asks. Each question has one reply.
#[derive(Debug)]
pub enum Question {
    /// A page of what a room has kept; answered with `history`.
    History {
        /// The room.
        room: String,
        /// Only messages with a smaller offset.
        before: Option<u64>,
        /// At most so many, the newest of them.
        limit: Option<u64>,
    },
    /// Who is in a room; answered with `presence`.
    Presence {
        /// The room.
        room: String,
    },
}

/// What a request is told.
#[derive(Debug, PartialEq, Eq)]
pub enum Reply {
    /// The JSON text of a message, as a connection would get it without an `id`.
    Message(Vec<u8>),
    /// A page of a room's history, or of its items.
    History(HistoryRead),
    /// So many nodes have heard an order.
    Heard(u64),
    /// What all reactors have found.
    Found(Arc<Vec<NodeFound>>),
    /// What it needs Redis for, which does not answer.
    Unavailable,
}

/// A page of a room's history, or of its items: of each the message of its last update.
#[derive(Debug, PartialEq, Eq)]
pub struct HistoryRead {
    /// Where the room is; `None` where nothing is kept of the room.
    pub position: Option<StreamPosition>,
    /// The messages as a JSON array, oldest first.
    pub messages: Vec<u8>,
    /// Where the next page begins, in the same direction; `None` where there is none.
    pub next: Option<u64>,
}

/// What the control thread is told by mail.
#[derive(Debug)]
pub enum Told {
    /// The one reply to a question.
    Reply(RequestId, Reply),
    /// Publishes are routed, but for those whose fate is open.
    Published(PublishMany),
    /// What has become of some of those, or of updates of items.
    Fates(SmallVec<[(CommandId, Fate); 1]>),
    /// A reactor's answer to a survey, or those of all reactors of all nodes in one.
    Found(RequestId, Arc<Vec<NodeFound>>),
}

/// Addresses questions to the topics' homes.
#[derive(Clone, Debug)]
pub struct Homeward {
    hasher: TopicHasher,
    is_clustered: bool,
}

impl Homeward {
    /// For a node of so many reactors; `seed` is that of its routers.
    pub fn new(seed: u64, reactors: u16) -> Homeward {
        Homeward { hasher: TopicHasher::new(seed, reactors), is_clustered: false }
    }

    /// The same for a node of a cluster, or of none.
    pub fn in_cluster(self, is_clustered: bool) -> Homeward {
        Homeward { is_clustered, ..self }
    }

    pub(super) fn is_clustered(&self) -> bool {
        self.is_clustered
    }

    /// Reactors of the node.
    pub fn reactors(&self) -> u16 {
        self.hasher.reactors()
    }

    /// The mail that asks, and whom.
    pub fn ask(&self, request: RequestId, question: Question) -> (PeerId, Mail) {
        let asker = ReplyTo::Request(request);
        let mail = match question {
            Question::History { room, before, limit } => {
                let room = self.key(Kind::Room, &room);
                let limit = limit.map_or(HISTORY_PAGE_MAX, |limit| limit.min(HISTORY_PAGE_MAX as u64) as usize);
                HomeMail::History(Box::new(HistoryOf { room, asker, id: None, before, limit }))
            }
            Question::Presence { room } => {
                let room = self.key(Kind::Room, &room);
                HomeMail::Presence(Box::new(PresenceOf { room, asker, id: None }))
            }
        };
        let home = self.hasher.home(mail.topic().hashed());
        (home.into(), Mail(Content::Home(mail)))
    }

    pub(super) fn key(&self, kind: Kind, name: &str) -> TopicKey {
        self.hashed(TopicRef { kind, name }).to_key()
    }

    pub(super) fn hashed<'a>(&self, topic: TopicRef<'a>) -> HashedTopic<'a> {
        HashedTopic { kind: topic.kind, hash: self.hasher.hash(topic), name: topic.name }
    }

    pub(super) fn home(&self, topic: HashedTopic<'_>) -> ReactorId {
        self.hasher.home(topic)
    }
}

impl Mail {
    /// What the control thread is told.
    ///
    /// # Panics
    /// Where the mail is for another peer.
    pub fn into_told(self) -> Told {
        let text = |to, write: &dyn Fn(&mut Vec<u8>)| {
            let mut out = Vec::new();
            write(&mut out);
            Told::Reply(request_of(to), Reply::Message(out))
        };
        match self.0 {
            Content::PublishedMany(many) => Told::Published(many),
            Content::Surveyed(surveyed) => {
                let Surveyed { request, found } = *surveyed;
                Told::Found(request, found)
            }
            Content::Heard { request, nodes } => Told::Reply(request, Reply::Heard(nodes)),
            Content::HistoryPage(page) => Told::Reply(page.request, Reply::History(read(*page))),
            Content::Acked(ack) => {
                let Ack { to, id, position, stale } = *ack;
                match (position, stale) {
                    (Some(position), Some(stale)) => Told::Fates(updated(request_of(to), &id, &position, &stale)),
                    (position, _) => same_for_each(to, &id, &Fate::Acked(position)),
                }
            }
            Content::ItemsRefused(refused) => {
                let id = refused.id.as_deref().expect("a publish of a request has an id");
                same_for_each(refused.to, id, &Fate::TooManyItems)
            }
            Content::Unavailable { to, id: Some(id), room: _ } => same_for_each(to, &id, &Fate::Unavailable),
            Content::Unavailable { to, id: None, room: _ } => Told::Reply(request_of(to), Reply::Unavailable),
            Content::Page(page) => text(page.to, &|out| page.write(out)),
            Content::Users(users) => text(users.to, &|out| users.write(out)),
            Content::Counted(counted) => text(counted.to, &|out| counted.write(out)),
            other => panic!("{other:?} is not for a request"),
        }
    }
}

fn request_of(to: ReplyTo) -> RequestId {
    match to {
        ReplyTo::Request(request) => request,
        ReplyTo::Conn(conn) => panic!("an answer for {conn:?} came to the control thread"),
    }
}

fn same_for_each(to: ReplyTo, id: &str, fate: &Fate) -> Told {
    let request = request_of(to);
    Told::Fates(commands_of_id(id).map(|index| (CommandId { request, index }, fate.clone())).collect())
}

/// What has become of updates that were put in one behind the other: `position` is where the last one is. What was stale has
/// no offset of its own.
fn updated(
    request: RequestId,
    id: &str,
    position: &StreamPosition,
    stale: &StaleUpdates,
) -> SmallVec<[(CommandId, Fate); 1]> {
    let (commands, stale) = (commands_of_id(id), stale.indexes());
    let stored = (commands.len() - stale.len()) as u64;
    let mut offset = position.offset.saturating_sub(stored);
    let fate = |(at, index): (u32, u32)| {
        let is_stale = stale.binary_search(&at).is_ok();
        offset += u64::from(!is_stale);
        let position = StreamPosition { epoch: position.epoch.clone(), offset };
        (CommandId { request, index }, Fate::Updated { position, is_stale })
    };
    (0..).zip(commands).map(fate).collect()
}

fn read(page: HistoryPage) -> HistoryRead {
    let mut messages = Vec::new();
    page.write_messages(&mut messages);
    HistoryRead { position: page.position, messages, next: page.next }
}
