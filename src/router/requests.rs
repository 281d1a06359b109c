//! What requests of the control thread ask of topics' homes, and what they are told.
//!
//! A request asks as a connection does, by the same mail. It is no member of anything, and gets its reply by mail, which
//! the control thread reads with [`Mail::into_reply`].

use super::history::StreamPosition;
use super::mail::{Ack, Content, HistoryOf, HomeMail, Mail, PresenceOf, Published};
use super::topic::{HashedTopic, Kind, TopicHasher, TopicKey, TopicRef};
use crate::compress::SharedFrame;
use crate::ids::{PeerId, ReplyTo, RequestId};
use crate::limits::HISTORY_PAGE_MAX;

/// What a request asks. Each question has one reply.
#[derive(Debug)]
pub enum Question {
    /// Publishes; answered with [`Reply::Acked`].
    Publish {
        /// The topic's namespace.
        kind: Kind,
        /// Its name there.
        name: String,
        /// A whole frame.
        frame: SharedFrame,
        /// What a retry by the same publisher is known by.
        key: Option<String>,
    },
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
    /// The publish is routed, or in history.
    Acked {
        /// Where the message is, if it was put into history.
        position: Option<StreamPosition>,
    },
    /// The JSON text of a message, as a connection would get it without an `id`.
    Message(Vec<u8>),
    /// What it needs Redis for, which does not answer.
    Unavailable,
}

/// Addresses questions to the topics' homes.
#[derive(Clone, Debug)]
pub struct Homeward {
    hasher: TopicHasher,
}

impl Homeward {
    /// For a node of so many reactors; `seed` is that of its routers.
    pub fn new(seed: u64, reactors: u16) -> Homeward {
        Homeward { hasher: TopicHasher::new(seed, reactors) }
    }

    /// The mail that asks, and whom.
    pub fn ask(&self, request: RequestId, question: Question) -> (PeerId, Mail) {
        let asker = ReplyTo::Request(request);
        let mail = match question {
            Question::Publish { kind, name, frame, key } => {
                let topic = self.key(kind, &name);
                // What is told apart by an id among a connection's commands is told apart by the request.
                let id = Some(Box::default());
                let key = key.map(Into::into);
                HomeMail::Publish(Box::new(Published { topic, frame, exclude: None, key, publisher: asker, id }))
            }
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

    fn key(&self, kind: Kind, name: &str) -> TopicKey {
        let topic = TopicRef { kind, name };
        HashedTopic { kind, hash: self.hasher.hash(topic), name }.to_key()
    }
}

impl Mail {
    /// What the control thread tells a request.
    ///
    /// # Panics
    /// Where the mail is for another peer.
    pub fn into_reply(self) -> (RequestId, Reply) {
        let text = |write: &dyn Fn(&mut Vec<u8>)| {
            let mut out = Vec::new();
            write(&mut out);
            Reply::Message(out)
        };
        let (to, reply) = match self.0 {
            Content::Acked(ack) => {
                let Ack { to, id: _, position } = *ack;
                (to, Reply::Acked { position })
            }
            Content::Unavailable { to, id: _ } => (to, Reply::Unavailable),
            Content::Page(page) => (page.to, text(&|out| page.write(out))),
            Content::Users(users) => (users.to, text(&|out| users.write(out))),
            Content::Counted(counted) => (counted.to, text(&|out| counted.write(out))),
            other => panic!("{other:?} is not for a request"),
        };
        match to {
            ReplyTo::Request(request) => (request, reply),
            ReplyTo::Conn(conn) => panic!("{reply:?} is for {conn:?}"),
        }
    }
}
