//! Memory of the process runs short: who comes is refused first, then the newest connections go, and in both those whose user
//! no one has vouched for go before others.
//!
//! ```text
//!   of limits.memory_max    ⅞ ────────────────► 95 % ─────────────► 100 % ──►
//!   new, without a user        503                503                 503
//!   new, with one                                 503                 503
//!   open                                                              1013, a few of the newest with each look
//! ```
//!
//! What is looked at is what the process takes of the machine, a few times a second, by a thread of the server's. Memory that
//! was freed goes back to the machine late, so few connections go at a time.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;

use super::driver::{Driver, SlotKey};
use super::identity::Passport;
use super::worker::Worker;
use crate::conn::{CloseReason, HttpRefusal};
use crate::limits::{MEMORY_SCARCE_PERMILLE, MEMORY_TIGHT_PERMILLE, NEWEST_MAX, SHED_SHARE};
use crate::metrics::Refusal;

/// The connections that opened last, and what was shed.
#[derive(Debug, Default)]
pub(super) struct Newest {
    /// The newest last, each with whether a token, the backend or a certificate names its user. An entry may be outdated.
    slots: VecDeque<(SlotKey, bool)>,
    /// The look at memory after which connections were shed last.
    look: u32,
}

impl Newest {
    /// A connection is let in.
    fn note(&mut self, slot: SlotKey, is_vouched: bool) {
        if self.slots.len() == NEWEST_MAX {
            self.slots.pop_front();
        }
        self.slots.push_back((slot, is_vouched));
    }

    /// Takes so many out that are there still: the newest without a user that is vouched for, and then the newest of the
    /// others.
    fn take(&mut self, count: usize, is_there: impl Fn(SlotKey) -> bool) -> Vec<SlotKey> {
        self.slots.retain(|(slot, _)| is_there(*slot));
        let newest = |vouched: bool| self.slots.iter().rev().filter(move |(_, found)| *found == vouched);
        let taken: Vec<SlotKey> = newest(false).chain(newest(true)).take(count).map(|(slot, _)| *slot).collect();
        self.slots.retain(|(slot, _)| !taken.contains(slot));
        taken
    }
}

impl<D: Driver> Worker<D> {
    /// Whether there is memory for one more connection of this kind, which is noted then.
    ///
    /// # Errors
    /// The refusal to answer with.
    pub(super) fn admit_to_memory(&mut self, slot: SlotKey, passport: &Passport) -> Result<(), HttpRefusal> {
        let is_vouched = passport.user().is_some();
        let used = self.node.metrics.memory_permille.load(Ordering::Relaxed);
        let bound = if is_vouched { MEMORY_SCARCE_PERMILLE } else { MEMORY_TIGHT_PERMILLE };
        if used >= bound {
            self.connections.counts.refusals.count(Refusal::Shed);
            tracing::warn!(used_permille = used, "memory is short (limits.memory_max): new connections are refused");
            return Err(self.at_capacity());
        }
        self.newest.note(slot, is_vouched);
        Ok(())
    }

    /// Once for each look at memory that found all of it taken: closes a few of the newest connections.
    pub(super) fn relieve_memory(&mut self) {
        let metrics = &self.node.metrics;
        let look = metrics.memory_looks.load(Ordering::Acquire);
        if look == self.newest.look {
            return;
        }
        self.newest.look = look;
        let used = metrics.memory_permille.load(Ordering::Relaxed);
        let open = self.connections.counts.connections as usize;
        if used < 1_000 || open == 0 {
            return;
        }
        let sessions = &self.connections.sessions;
        let is_open = |slot| sessions.get(slot).is_some_and(|connection| connection.is_open());
        let count = open.div_ceil(SHED_SHARE);
        let mut shed = self.newest.take(count, is_open);
        if shed.is_empty() {
            // None of those that are known as new is left.
            shed.extend(
                sessions.iter().filter(|(_, connection)| connection.is_open()).map(|(slot, _)| slot).take(count),
            );
        }
        tracing::warn!(
            reactor = self.me.0,
            used_permille = used,
            connections = shed.len(),
            "memory is used up (limits.memory_max): the newest connections are closed"
        );
        for slot in shed {
            self.close(slot, CloseReason::AtCapacity);
        }
        self.settle();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_go_first_and_those_without_a_user_before_others() {
        let mut newest = Newest::default();
        let slot = |at: u32| SlotKey::new(at, 0);
        for at in 0..6 {
            newest.note(slot(at), at % 2 == 1);
        }
        let taken = |newest: &mut Newest, count| -> Vec<u32> {
            newest.take(count, |slot| slot.slot() != 2).iter().map(|slot| slot.slot()).collect()
        };
        assert_eq!(taken(&mut newest, 1), [4]);
        assert_eq!(taken(&mut newest, 2), [0, 5], "2 has gone by itself");
        assert_eq!(taken(&mut newest, 9), [3, 1]);
        assert_eq!(taken(&mut newest, 9), [0; 0]);
        for at in 0..2 * NEWEST_MAX as u32 {
            newest.note(slot(at), false);
        }
        assert_eq!(newest.slots.len(), NEWEST_MAX);
        assert_eq!(taken(&mut newest, 1), [2 * NEWEST_MAX as u32 - 1]);
    }
}
