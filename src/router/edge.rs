//! Edges: a topic's first member on this node has come, or its last one has gone. Homes tell them to the webhooks' thread,
//! where a webhook is configured.

use super::mail::{Content, Mail};
use super::topic::{Kind, TopicKey};

/// Of which topics edges are told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Watched {
    /// Rooms and raw rooms.
    pub rooms: bool,
    /// Users' inboxes.
    pub inboxes: bool,
}

impl Watched {
    /// Whether edges of topics of this kind are told.
    pub(super) fn covers(self, kind: Kind) -> bool {
        match kind {
            Kind::Room | Kind::Raw => self.rooms,
            Kind::Inbox => self.inboxes,
            Kind::Everyone => false,
        }
    }
}

/// A topic has become occupied or vacant on this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edge {
    /// A room, a raw room or an inbox.
    pub topic: TopicKey,
    /// What it has become.
    pub turned: Turned,
}

/// What a topic has become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turned {
    /// It has a member.
    Occupied,
    /// It has none.
    Vacant {
        /// Within how many milliseconds the client that left last was told to come back (1001); 0 where it was not.
        back_ms: u32,
    },
}

impl Mail {
    /// The edge in it.
    ///
    /// # Panics
    /// Where it is other mail.
    pub fn into_edge(self) -> Edge {
        match self.0 {
            Content::Edge(edge) => edge,
            other => panic!("{other:?} is not for webhooks"),
        }
    }
}
