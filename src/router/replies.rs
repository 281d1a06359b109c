//! Answers that may be large. A home sends what they are made of, references into its tables; the message is made where
//! the connection is, when there is room for it.

use std::sync::Arc;

use arcstr::ArcStr;

use super::Sink;
use super::history::Place;
use super::slice::Slice;
use super::topic::TopicKey;
use crate::frame::{FrameBuilder, Opcode, split_frame};
use crate::ids::ConnId;
use crate::protocol::{self, UserCount};

/// A page of a room's history for a connection.
#[derive(Debug)]
pub(super) struct Page {
    pub(super) to: ConnId,
    /// The command's id as JSON text.
    pub(super) id: Option<Box<str>>,
    pub(super) room: TopicKey,
    /// `None` where the room keeps no history.
    pub(super) place: Option<Place>,
    pub(super) messages: Slice,
}

/// Who is in a room of a node alone.
#[derive(Debug)]
pub(super) struct Users {
    pub(super) to: ConnId,
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
    pub(super) to: ConnId,
    /// The command's id as JSON text.
    pub(super) id: Option<Box<str>>,
    pub(super) head: Arc<[u8]>,
}

impl Page {
    pub(super) fn reply(&self, frames: &mut FrameBuilder, sink: &mut impl Sink) {
        let Page { to, id, room, place, messages } = self;
        let frame = frames.build(Opcode::Text, |out| {
            let messages = messages.frames().iter().map(|frame| split_frame(frame.plain()).1);
            protocol::history(out, id.as_deref(), &room.name, place.as_ref().map(Place::in_epoch), messages);
        });
        sink.reply(*to, frame);
    }
}

impl Users {
    pub(super) fn reply(&self, frames: &mut FrameBuilder, sink: &mut impl Sink) {
        let Users { to, id, room, count, names } = self;
        let frame = frames.build(Opcode::Text, |out| {
            let names = names.iter().map(|name| &**name);
            protocol::presence(out, id.as_deref(), &room.name, UserCount::Exact(*count), names);
        });
        sink.reply(*to, frame);
    }
}

impl Counted {
    pub(super) fn reply(&self, frames: &mut FrameBuilder, sink: &mut impl Sink) {
        let Counted { to, id, head } = self;
        let frame = frames.build(Opcode::Text, |out| {
            out.extend_from_slice(head);
            protocol::presence_end(out, id.as_deref());
        });
        sink.reply(*to, frame);
    }
}
