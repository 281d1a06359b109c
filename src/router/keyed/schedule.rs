//! What the keyed rooms of a reactor are about to do, and when.

use std::collections::{BTreeSet, HashMap, VecDeque};

use foldhash::fast::FixedState;
use smallvec::SmallVec;

use crate::ids::{ReactorId, Slot};
use crate::router::topic::TopicIndex;
use crate::time::{Millis, Stamp};

/// A cohort of a room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) topic: TopicIndex,
    pub(super) cohort: u32,
}

/// Which of the places among those who catch up is meant: a slot that has left its room may be in it again, and its earlier
/// place is none any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Queued(u64);

/// All of it follows from cohorts and lags, and is built again from those.
#[derive(Debug)]
pub(super) struct Schedule {
    pub(super) me: ReactorId,
    /// The time of this turn.
    pub(super) now: Millis,
    /// When what is delivered now was published.
    pub(super) published_at: Stamp,
    /// From which size on a frame is worth compressing.
    pub(super) compress_from_bytes: usize,
    /// Bytes in open batches of cohorts.
    pub(super) open_bytes: usize,
    /// Bytes of rounds and pieces that were put together in this turn.
    pub(super) sent_bytes: usize,
    /// Rounds that begin later.
    pub(super) due: BTreeSet<(Millis, Place)>,
    /// Rounds that go on when the turn ends.
    pub(super) ready: VecDeque<Place>,
    /// Cohorts with an open batch.
    pub(super) open: Vec<Place>,
    /// Who lags and can take more when the turn ends.
    pub(super) catching_up: VecDeque<(TopicIndex, Slot, Queued)>,
    /// How often one was queued there.
    queued_ever: u64,
    /// In which rooms a slot lags.
    lagging: HashMap<Slot, SmallVec<[TopicIndex; 1]>, FixedState>,
    /// When a room has something to do by itself.
    chores: BTreeSet<(Millis, TopicIndex)>,
}

impl Schedule {
    /// Nothing yet.
    pub(super) fn new(me: ReactorId) -> Schedule {
        Schedule {
            me,
            now: Millis::ZERO,
            published_at: Stamp::default(),
            compress_from_bytes: usize::MAX,
            open_bytes: 0,
            sent_bytes: 0,
            due: BTreeSet::new(),
            ready: VecDeque::new(),
            open: Vec::new(),
            catching_up: VecDeque::new(),
            queued_ever: 0,
            lagging: HashMap::default(),
            chores: BTreeSet::new(),
        }
    }

    /// A slot that lags in a room gets a place among those that are about to be sent a piece.
    pub(super) fn queue(&mut self, topic: TopicIndex, slot: Slot) -> Queued {
        self.queued_ever += 1;
        let queued = Queued(self.queued_ever);
        self.catching_up.push_back((topic, slot, queued));
        queued
    }

    /// The rooms in which a slot lags.
    pub(super) fn lags_in(&self, slot: Slot) -> SmallVec<[TopicIndex; 1]> {
        self.lagging.get(&slot).cloned().unwrap_or_default()
    }

    /// A slot lags in a room from now on.
    pub(super) fn begin_lag(&mut self, topic: TopicIndex, slot: Slot) {
        self.lagging.entry(slot).or_default().push(topic);
    }

    /// It lags there no more.
    pub(super) fn end_lag(&mut self, topic: TopicIndex, slot: Slot) {
        let Some(rooms) = self.lagging.get_mut(&slot) else { return };
        rooms.retain(|room| *room != topic);
        if rooms.is_empty() {
            self.lagging.remove(&slot);
        }
    }

    /// A room has something to do at `at` and not before, or nothing; `noted` is what it had noted.
    pub(super) fn note_chore(&mut self, topic: TopicIndex, noted: &mut Option<Millis>, at: Option<Millis>) {
        if *noted == at {
            return;
        }
        if let Some(before) = noted.take() {
            self.chores.remove(&(before, topic));
        }
        if let Some(at) = at {
            self.chores.insert((at, topic));
        }
        *noted = at;
    }

    /// The next room that is due to do something by itself.
    pub(super) fn next_chore(&self) -> Option<TopicIndex> {
        self.chores.first().filter(|(at, _)| *at <= self.now).map(|(_, topic)| *topic)
    }

    /// When there is something to do; not after now where it is to be done at once.
    pub(super) fn next_at(&self) -> Option<Millis> {
        let at_once = (!self.ready.is_empty() || !self.catching_up.is_empty()).then_some(self.now);
        let round = self.due.first().map(|(at, _)| *at);
        let chore = self.chores.first().map(|(at, _)| *at);
        [at_once, round, chore].into_iter().flatten().min()
    }

    /// Topics have other indices than before.
    #[cfg(any(test, debug_assertions))]
    pub(super) fn rename(&mut self, renamed: &impl Fn(TopicIndex) -> TopicIndex) {
        let place = |place: Place| Place { topic: renamed(place.topic), ..place };
        self.due = self.due.iter().map(|&(at, of)| (at, place(of))).collect();
        self.ready.iter_mut().for_each(|of| *of = place(*of));
        self.open.iter_mut().for_each(|of| *of = place(*of));
        self.catching_up.iter_mut().for_each(|(topic, ..)| *topic = renamed(*topic));
        self.lagging.values_mut().flatten().for_each(|topic| *topic = renamed(*topic));
        self.chores = self.chores.iter().map(|&(at, topic)| (at, renamed(topic))).collect();
    }
}
