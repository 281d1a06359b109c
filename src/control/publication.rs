//! What requests publish: messages, and updates of items of keyed rooms.

use std::ops::Range;

use crate::protocol::{self, keyed};
use crate::router::{ApiKeyed, CommandKind, Draft, ItemState, ItemUpdates};

/// One publish of a request.
#[derive(Clone, Copy, Debug)]
pub struct Publication<'a> {
    /// Who receivers are told it is from.
    pub from: &'a str,
    /// What, and to whom.
    pub what: Said<'a>,
    /// What a retry is known by.
    pub key: Option<ApiKeyed<'a>>,
}

/// What is published, and to whom.
#[derive(Clone, Copy, Debug)]
pub enum Said<'a> {
    /// A message to a topic that is not keyed.
    Message(Draft<'a>),
    /// An update of an item of a keyed room.
    Update(RoomUpdate<'a>),
}

/// An update of an item of a keyed room.
#[derive(Clone, Copy, Debug)]
pub struct RoomUpdate<'a> {
    /// The room.
    pub room: &'a str,
    /// The item's name.
    pub item: &'a str,
    /// Not above the item's last one, it is stale.
    pub version: Option<i64>,
    /// What becomes of the item.
    pub body: keyed::Body<'a>,
}

/// Updates of one room by commands of a request, one behind the other: they go together.
pub(super) struct UpdateRun<'a> {
    pub(super) room: &'a str,
    pub(super) commands: Range<u32>,
    pub(super) key: Option<ApiKeyed<'a>>,
    pub(super) updates: ItemUpdates,
}

impl<'a> UpdateRun<'a> {
    /// None yet; the first is that of a command with this index.
    pub(super) fn new(room: &'a str, index: u32, key: Option<ApiKeyed<'a>>) -> UpdateRun<'a> {
        let mut updates = ItemUpdates::default();
        updates.begin(if key.is_some() { CommandKind::One } else { CommandKind::Each });
        UpdateRun { room, commands: index..index, key, updates }
    }

    /// Whether a command's update goes with those that are there.
    pub(super) fn takes(&self, index: u32, room: &str, key: Option<ApiKeyed<'_>>) -> bool {
        self.commands.end == index && self.room == room && self.key.is_none() && key.is_none()
    }

    pub(super) fn push(&mut self, from: &str, unix_ms: u64, update: &RoomUpdate<'_>) {
        let state = match update.body {
            keyed::Body::Content(_) => ItemState::Present,
            keyed::Body::Removal => ItemState::Removed,
        };
        let tail = |out: &mut Vec<u8>| protocol::keyed_tail(out, Some(from), update.body, unix_ms);
        self.updates.push(update.item, update.version, state, tail);
        self.commands.end += 1;
    }
}
