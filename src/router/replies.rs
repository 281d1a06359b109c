//! Answers that may be large. A home sends what they are made of, references into its tables; the message is made where
//! the connection is, when there is room for it.

use std::sync::Arc;

use super::history::Place;
use super::slice::Slice;
use super::topic::TopicKey;
use super::{Router, Sink};
use crate::frame::{Opcode, split_frame};
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
    pub(super) names: Vec<Arc<str>>,
}

/// Who is in a room of a cluster: the message but for its end, for all who asked.
#[derive(Debug)]
pub(super) struct Counted {
    pub(super) to: ConnId,
    /// The command's id as JSON text.
    pub(super) id: Option<Box<str>>,
    pub(super) head: Arc<[u8]>,
}

impl Router {
    pub(super) fn reply_page(&mut self, page: &Page, sink: &mut impl Sink) {
        let Page { to, id, room, place, messages } = page;
        let frame = self.frames.build(Opcode::Text, |out| {
            let messages = messages.frames().iter().map(|frame| split_frame(frame.plain()).1);
            protocol::history(out, id.as_deref(), &room.name, place.as_ref().map(Place::in_epoch), messages);
        });
        sink.reply(*to, frame);
    }

    pub(super) fn reply_users(&mut self, users: &Users, sink: &mut impl Sink) {
        let Users { to, id, room, count, names } = users;
        let frame = self.frames.build(Opcode::Text, |out| {
            let names = names.iter().map(|name| &**name);
            protocol::presence(out, id.as_deref(), &room.name, UserCount::Exact(*count), names);
        });
        sink.reply(*to, frame);
    }

    pub(super) fn reply_counted(&mut self, counted: &Counted, sink: &mut impl Sink) {
        let Counted { to, id, head } = counted;
        let frame = self.frames.build(Opcode::Text, |out| {
            out.extend_from_slice(head);
            protocol::presence_end(out, id.as_deref());
        });
        sink.reply(*to, frame);
    }
}
