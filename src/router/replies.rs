//! Answers that may be large. A home sends what they are made of, references into its tables; the message is made where
//! the asker is, when there is room for it.

use std::sync::Arc;

use arcstr::ArcStr;

use super::history::StreamPosition;
use super::slice::Slice;
use super::topic::TopicKey;
use crate::frame::split_frame;
use crate::ids::ReplyTo;
use crate::protocol::{self, UserCount};

/// A page of a room's history.
#[derive(Debug)]
pub(super) struct Page {
    pub(super) to: ReplyTo,
    /// The command's id as JSON text.
    pub(super) id: Option<Box<str>>,
    pub(super) room: TopicKey,
    /// `None` where the room keeps no history.
    pub(super) position: Option<StreamPosition>,
    pub(super) messages: Slice,
}

/// Who is in a room of a node alone.
#[derive(Debug)]
pub(super) struct Users {
    pub(super) to: ReplyTo,
    /// The command's id as JSON text.
    pub(super) id: Option<Box<str>>,
    pub(super) room: TopicKey,
    pub(super) count: u64,
    /// As many as are listed.
    pub(super) names: Vec<ArcStr>,
}

/// Who is in a room of a cluster: the message but for its end, for all who asked.
#[derive(Debug)]
pub(super) struct Counted {
    pub(super) to: ReplyTo,
    /// The command's id as JSON text.
    pub(super) id: Option<Box<str>>,
    pub(super) head: Arc<[u8]>,
}

impl Page {
    /// Appends the message.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        let messages = self.messages.frames().iter().map(|frame| split_frame(frame.plain()).1);
        let position = self.position.as_ref().map(StreamPosition::in_epoch);
        protocol::history(out, self.id.as_deref(), &self.room.name, position, messages);
    }
}

impl Users {
    /// Appends the message.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        let names = self.names.iter().map(|name| &**name);
        protocol::presence(out, self.id.as_deref(), &self.room.name, UserCount::Exact(self.count), names);
    }
}

impl Counted {
    /// Appends the message.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.head);
        protocol::presence_end(out, self.id.as_deref());
    }
}
