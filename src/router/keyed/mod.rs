//! Keyed rooms: of every item the newest value, at the rate each subscriber can take.
//!
//! ```text
//!   publish ──► home: items (offset, seq, one frame) ──► mirrors on other reactors with members
//!                       │                                    │
//!                       ├──► plain members: every update, by the topic's batch
//!                       ├──► cohorts that want each update of some items: a batch for each cohort
//!                       └──► cohorts that want the latest: rounds ──► who keeps up: the same bytes
//!                                                               └──► who does not: a position of its own, pieces
//! ```
//!
//! What a subscriber has been sent is one number, and *what has changed since* is one walk over the items: a snapshot, a
//! resumption, a round and what a slow reader missed are the same.
//!
//! The front, [`Keyed`], holds the rooms of one reactor and what they are about to do. `at_home` and `at_member` are
//! the router's steps.

mod answer;
mod at_cluster;
mod at_home;
mod at_member;
mod cohort;
mod filter;
mod items;
mod keeping;
mod lag;
#[cfg(test)]
mod model_tests;
mod piece;
mod room;
mod rounds;
mod schedule;
mod source;
mod updates;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;

use foldhash::fast::FixedState;

pub use answer::KeyedAnswer;
pub use at_cluster::ItemsOrigin;
pub(super) use at_cluster::Reload;
pub use at_home::PublishItems;
pub(super) use at_home::{ItemsMail, ItemsRefused, ItemsUpdate};
pub use at_member::Subscribe;
pub(super) use at_member::{Entrance, KeyedJoin, TuneOf};
pub use cohort::Terms;
pub use filter::ItemFilter;
pub use items::{Applied, ItemState};
pub use lag::{TermsChange, Tune};
pub use updates::{CommandKind, ItemUpdate, ItemUpdates, StaleUpdates, TooManyItems, Updated};

use room::KeyedRoom;
use schedule::Schedule;

use super::Sink;
use super::history::StreamPosition;
use super::policy::KeyedPolicy;
use super::topic::TopicIndex;
use crate::ids::{ReactorId, Slot};
use crate::time::{Millis, Stamp};

/// The keyed rooms of one reactor: those at home here, and the mirrors of others that have members here.
#[derive(Debug)]
pub(super) struct Keyed {
    rooms: HashMap<TopicIndex, Box<KeyedRoom>, FixedState>,
    schedule: Schedule,
    seed: u64,
    /// Items with a value, and bytes, of the rooms at home here.
    held: HeldSum,
    /// How much may be held.
    bounds: KeyedBounds,
}

/// What all keyed rooms at home on a reactor hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct HeldSum {
    pub(super) items: usize,
    pub(super) bytes: usize,
}

/// How much the keyed rooms of a node may hold; of a reactor, its part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct KeyedBounds {
    /// Items with a value.
    pub items_max: usize,
    /// Bytes of items, those that were removed a short while ago included.
    pub bytes_max: usize,
}

impl Keyed {
    /// None yet, on reactor `me`. `seed` is the node's secret.
    pub(super) fn new(me: ReactorId, seed: u64, bounds: KeyedBounds) -> Keyed {
        Keyed { rooms: HashMap::default(), schedule: Schedule::new(me), seed, held: HeldSum::default(), bounds }
    }

    /// Other bounds hold from now on. What is held stays.
    pub(super) fn set_bounds(&mut self, bounds: KeyedBounds) {
        self.bounds = bounds;
    }

    /// A turn begins.
    pub(super) fn begin_turn(&mut self, now: Millis) {
        (self.schedule.now, self.schedule.sent_bytes) = (now, 0);
    }

    /// What is sent now was published then, as far as latencies are concerned.
    pub(super) fn send_as_of(&mut self, at: Stamp) {
        self.schedule.published_at = at;
    }

    /// Bytes gathered for the end of the turn.
    pub(super) fn open_bytes(&self) -> usize {
        self.schedule.open_bytes
    }

    /// When there is something to do; not after this turn where it is to be done at once.
    pub(super) fn next_at(&self) -> Option<Millis> {
        self.schedule.next_at()
    }

    /// Whether a room that is at home here has to be known although nobody is in it.
    pub(super) fn keeps(&self, index: TopicIndex) -> bool {
        self.rooms.get(&index).is_some_and(|room| room.source.is_some() && !room.is_unused())
    }

    /// The subscribers of a room that stand in no list of the topic's.
    pub(super) fn apart(&self, index: TopicIndex) -> impl Iterator<Item = Slot> {
        self.rooms.get(&index).into_iter().flat_map(|room| room.slots())
    }

    /// Where a room that is known here is.
    pub(super) fn position(&self, index: TopicIndex) -> StreamPosition {
        self.rooms[&index].items.position()
    }

    /// Reactors that mirror a room that is at home here.
    pub(super) fn mirrors(&self, index: TopicIndex) -> Vec<ReactorId> {
        self.rooms.get(&index).map_or_else(Vec::new, |room| room.mirrors().to_vec())
    }

    /// Other bounds hold for a room from now on.
    pub(super) fn set_policy(&mut self, index: TopicIndex, policy: KeyedPolicy) {
        if let Some(room) = self.rooms.get_mut(&index) {
            room.policy = policy;
            self.note_chore(index);
        }
    }

    /// Updates of a room so far go to those who get each: what comes next comes behind them.
    pub(super) fn seal_all(&mut self, index: TopicIndex, sink: &mut impl Sink) {
        if let Some(room) = self.rooms.get_mut(&index) {
            room.seal_all(sink);
        }
    }

    /// A room's items keep their places, in another epoch.
    pub(super) fn set_epoch(&mut self, index: TopicIndex, epoch: &Arc<str>, sink: &mut impl Sink) {
        let Keyed { rooms, schedule, .. } = self;
        if let Some(room) = rooms.get_mut(&index) {
            room.items.set_epoch(epoch.clone());
            room.lose_stalled(schedule, sink);
        }
    }
}

#[cfg(any(test, debug_assertions))]
impl Keyed {
    /// What can be built again is, for topics with other indices than before.
    pub(super) fn rebuild(&mut self, renamed: impl Fn(TopicIndex) -> TopicIndex) {
        self.schedule.rename(&renamed);
        for (index, mut room) in std::mem::take(&mut self.rooms) {
            room.topic = renamed(index);
            room.items.rebuild();
            self.rooms.insert(room.topic, room);
        }
    }

    /// Checks what is held against what is there.
    pub(super) fn check(&self) {
        let mut held = HeldSum::default();
        for (index, room) in &self.rooms {
            assert_eq!(*index, room.topic);
            room.check();
            if room.source.is_some() {
                let own = room.held();
                held = HeldSum { items: held.items + own.items, bytes: held.bytes + own.bytes };
            }
        }
        assert_eq!(held, self.held, "what rooms hold is counted");
    }
}
