//! Subscribers of a keyed room that want the same, in the same way: they share what is made for them.

use crate::ids::Slot;
use crate::protocol::Mode;
use crate::time::Millis;

use super::super::Sink;
use super::super::batch::Batch;
use super::filter::ItemFilter;
use super::schedule::{Place, Schedule};

/// What a subscriber has asked for. Equal terms of one room share a cohort.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Terms {
    /// Which updates of an item.
    pub mode: Mode,
    /// Between two rounds; 0 in [`Mode::All`].
    pub interval_ms: u32,
    /// Of which items.
    pub filter: ItemFilter,
}

impl Terms {
    /// Every update of every item: what a plain member of the topic gets.
    pub fn is_plain(&self) -> bool {
        self.mode == Mode::All && self.filter == ItemFilter::All
    }
}

impl Default for Terms {
    fn default() -> Terms {
        Terms { mode: Mode::All, interval_ms: 0, filter: ItemFilter::All }
    }
}

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Cohort {
    pub(super) terms: Terms,
    /// Of the room's watches, those of its names, where it wants nothing else.
    pub(super) watches: Option<Box<[u32]>>,
    /// Who gets what is sent, in no order.
    pub(super) members: Vec<Slot>,
    /// Who has a position of its own, in no order.
    pub(super) lagging: Vec<Slot>,
    pub(super) sending: Sending,
}

impl Cohort {
    /// Hands out the batch of one that gets each update.
    pub(super) fn seal(&mut self, sink: &mut impl Sink) {
        if let Sending::Each(batch) = &mut self.sending
            && let Some(batch) = batch.take()
        {
            sink.deliver(batch, &self.members);
        }
    }
}

/// How a cohort is sent updates.
#[derive(Debug)]
pub(super) enum Sending {
    /// Each of them, in one batch for each turn.
    Each(Option<Batch>),
    /// Rounds of what has changed.
    Rounds(Rounds),
}

/// ```text
///   Quiet ──change──► At(next_at) ──time──► Ready ──end of turn──► Running ──all sent──► Quiet
///     └──change, and the interval is over─────┘▲                      │ changed meanwhile
///                                              └──── At(next_at) ◄────┘
/// ```
#[derive(Debug)]
pub(super) struct Rounds {
    /// Up to this offset all members have been sent what they want.
    pub(super) since: u64,
    /// Up to this one the round goes that is running.
    pub(super) target: u64,
    due: Due,
    /// Before this the next round does not begin.
    next_at: Millis,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Due {
    /// Nothing wanted has changed.
    Quiet,
    /// The next round begins then.
    At(Millis),
    /// It begins when this turn ends; it was to begin then.
    Ready(Millis),
    /// It has begun, and ends at its target.
    Running { was_due_at: Millis, changed: bool },
}

impl Rounds {
    pub(super) fn new(since: u64) -> Rounds {
        Rounds { since, target: since, due: Due::Quiet, next_at: Millis::ZERO }
    }

    /// Whether nothing wanted has changed behind `since`.
    pub(super) fn is_quiet(&self) -> bool {
        self.due == Due::Quiet
    }

    pub(super) fn is_running(&self) -> bool {
        matches!(self.due, Due::Running { .. })
    }

    /// Something wanted has changed, and nothing between where all are and `since`.
    pub(super) fn wake(&mut self, since: u64, place: Place, schedule: &mut Schedule) {
        match &mut self.due {
            Due::Quiet => {
                (self.since, self.target) = (since, since);
                self.plan(place, schedule);
            }
            Due::At(_) | Due::Ready(_) => {}
            Due::Running { changed, .. } => *changed = true,
        }
    }

    fn plan(&mut self, place: Place, schedule: &mut Schedule) {
        if self.next_at <= schedule.now {
            self.due = Due::Ready(schedule.now);
            schedule.ready.push_back(place);
        } else {
            self.due = Due::At(self.next_at);
            schedule.due.insert((self.next_at, place));
        }
    }

    /// The time has come that it waited for.
    pub(super) fn come_due(&mut self, place: Place, schedule: &mut Schedule) {
        if let Due::At(at) = self.due {
            self.due = Due::Ready(at);
            schedule.ready.push_back(place);
        }
    }

    /// A round that is ready begins, and goes up to `target`; whether it begins now.
    pub(super) fn begin(&mut self, target: u64) -> bool {
        let Due::Ready(was_due_at) = self.due else { return false };
        self.due = Due::Running { was_due_at, changed: false };
        self.target = target;
        true
    }

    /// Something of the round is sent: the next one begins an interval later. One that is late does not move those behind
    /// it, unless it is late by a whole interval.
    pub(super) fn sent(&mut self, interval_ms: u32, now: Millis) {
        let Due::Running { was_due_at, .. } = self.due else { return };
        let interval_ms = u64::from(interval_ms);
        let from = if now.since(was_due_at) < interval_ms { was_due_at } else { now };
        self.next_at = from.saturating_add(interval_ms);
    }

    /// The round has come to its target.
    pub(super) fn end(&mut self, place: Place, schedule: &mut Schedule) {
        let Due::Running { changed, .. } = self.due else { return };
        self.due = Due::Quiet;
        if changed {
            self.plan(place, schedule);
        }
    }

    /// It goes: nothing waits for it any more.
    pub(super) fn cancel(&self, place: Place, schedule: &mut Schedule) {
        if let Due::At(at) = self.due {
            schedule.due.remove(&(at, place));
        }
    }
}
