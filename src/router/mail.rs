//! What reactors tell each other about topics. Mail between two reactors arrives in the order it was sent.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::topic::TopicKey;
use crate::compress::SharedFrame;
use crate::ids::ConnId;
#[cfg(test)]
use crate::ids::{ReactorId, Slot};

/// One piece of mail. The first four go to a topic's home, the others come from it.
#[derive(Debug)]
pub struct Mail(pub(super) Content);

#[cfg(test)]
impl Mail {
    /// Mail for nobody, told apart by its number.
    pub(crate) fn numbered(number: u8) -> Mail {
        let nobody = ConnId { reactor: ReactorId(0), slot: Slot(0), generation: 0 };
        Mail(Content::Direct { to: nobody, frame: [number][..].into(), ack: None })
    }

    /// The number it was made with.
    pub(crate) fn number(&self) -> u8 {
        match &self.0 {
            Content::Direct { frame, .. } => frame.plain()[0],
            other => panic!("{other:?} has no number"),
        }
    }
}

#[derive(Debug)]
pub(super) enum Content {
    Join(Box<Join>),
    Leave(Box<Leave>),
    Publish(Box<Publish>),
    Presence(Box<PresenceOf>),
    Joined(Box<Joined>),
    Left(Box<Left>),
    Deliver {
        topic: TopicKey,
        frame: SharedFrame,
        exclude: Option<ConnId>,
    },
    Direct {
        to: ConnId,
        frame: SharedFrame,
        ack: Option<Box<Ack>>,
    },
    Acked(Box<Ack>),
    /// Goes behind all that `from` has sent this way, and comes back as `Fenced` behind what became of it.
    Fence {
        from: ConnId,
    },
    Fenced {
        to: ConnId,
    },
}

#[derive(Debug)]
pub(super) struct Join {
    pub(super) topic: TopicKey,
    pub(super) member: ConnId,
    pub(super) user: Arc<str>,
    /// Whether it was no member, as its own reactor sees it.
    pub(super) fresh: bool,
    pub(super) ask: Ask,
}

#[derive(Debug)]
pub(super) struct Joined {
    pub(super) topic: TopicKey,
    pub(super) member: ConnId,
    pub(super) fresh: bool,
    pub(super) ask: Ask,
}

#[derive(Debug)]
pub(super) struct Leave {
    pub(super) topic: TopicKey,
    pub(super) member: ConnId,
    pub(super) user: Arc<str>,
    /// Whether it was a member, as its own reactor sees it.
    pub(super) counts: bool,
    pub(super) why: Departure,
}

/// Why a member leaves.
#[derive(Debug)]
pub(super) enum Departure {
    /// It said so and may want an answer with this id.
    Asked(Option<Box<str>>),
    /// Its connection ended: nobody is left to answer.
    Gone,
}

#[derive(Debug)]
pub(super) struct Left {
    pub(super) topic: TopicKey,
    pub(super) member: ConnId,
    pub(super) counts: bool,
    pub(super) id: Option<Box<str>>,
}

#[derive(Debug)]
pub(super) struct Publish {
    pub(super) topic: TopicKey,
    pub(super) frame: SharedFrame,
    pub(super) exclude: Option<ConnId>,
    pub(super) ack: Option<Ack>,
}

#[derive(Debug)]
pub(super) struct PresenceOf {
    pub(super) room: TopicKey,
    pub(super) asker: ConnId,
    pub(super) id: Option<Box<str>>,
}

/// An `ack` to be sent to a connection.
#[derive(Debug)]
pub(super) struct Ack {
    pub(super) to: ConnId,
    pub(super) id: Box<str>,
}

/// How a join is to be answered.
#[derive(Clone, Debug)]
pub enum Ask {
    /// Not at all: the notice says it.
    Silent,
    /// With `joined`; the raw id, and `recovered` where a position was given.
    Joined {
        /// The command's id as JSON text.
        id: Option<Box<str>>,
        /// What to say about recovery, where the client asked for it.
        recovered: Option<bool>,
    },
    /// With `joined`, and after the last of several with `ack`.
    Many(Arc<ManyJoin>),
}

/// One command that joins many rooms.
#[derive(Debug)]
pub struct ManyJoin {
    /// The command's id as JSON text.
    pub id: Box<str>,
    /// What to say about recovery, where the client asked for it.
    pub recovered: Option<bool>,
    rooms_left: AtomicU32,
}

impl ManyJoin {
    /// A command for `rooms` rooms.
    pub fn new(id: &str, recovered: Option<bool>, rooms: u32) -> Arc<ManyJoin> {
        Arc::new(ManyJoin { id: id.into(), recovered, rooms_left: AtomicU32::new(rooms) })
    }

    /// One room is answered; whether it was the last.
    pub fn answered(&self) -> bool {
        self.rooms_left.fetch_sub(1, Ordering::Relaxed) == 1
    }
}
