//! What a connection is told of keyed rooms.

use super::updates::{StaleUpdates, TooManyItems};
use crate::protocol::InEpoch;

/// What a connection is told of a keyed room.
#[derive(Debug, PartialEq, Eq)]
pub enum KeyedAnswer<'a> {
    /// It is a member.
    Joined {
        /// The command's id as JSON text.
        id: Option<&'a str>,
        /// The room.
        room: &'a str,
        /// Up to where it was sent all that it wants.
        position: InEpoch<'a>,
        /// What to say about recovery, where it was asked for.
        recovered: Option<bool>,
        /// What is in force between rounds, in milliseconds, if it gets any.
        interval_ms: Option<u32>,
    },
    /// It gets what it has asked for.
    Tuned {
        /// The command's id as JSON text.
        id: &'a str,
        /// Up to where it was sent all that it wants.
        position: InEpoch<'a>,
        /// What is in force between rounds, in milliseconds, if it gets any.
        interval_ms: Option<u32>,
    },
    /// It is no member of the room that its command names.
    NotJoined {
        /// The command's id as JSON text.
        id: Option<&'a str>,
        /// The room.
        room: &'a str,
    },
    /// Something was not told that it had to be: what is there is sent anew.
    Gap {
        /// The room.
        room: &'a str,
        /// Where the room is.
        position: InEpoch<'a>,
    },
    /// A raw room has sent what there was.
    SnapshotEnd {
        /// Up to where.
        position: InEpoch<'a>,
        /// Whether it was what has changed since a position.
        recovered: bool,
    },
    /// Nothing has been published for a while, or something is again.
    Freshness {
        /// The room.
        room: &'a str,
        /// Where the room is.
        offset: u64,
        /// Whether nothing was.
        is_stale: bool,
    },
    /// Its updates are stored.
    Updated {
        /// The command's id as JSON text.
        id: &'a str,
        /// Where the last one is.
        position: InEpoch<'a>,
        /// Which were not above their items' versions.
        stale: &'a StaleUpdates,
    },
    /// Its updates are refused, all of the command.
    Refused {
        /// The command's id as JSON text.
        id: Option<&'a str>,
        /// The room.
        room: &'a str,
        /// Why.
        error: TooManyItems,
    },
}
