//! How a reactor goes away: how fast its connections are told, and when each comes back.
//!
//! ```text
//!   told   ├──── closes, within ¾ of the time ────┤
//!   back   ├───────── each after its own retry_ms, below a second and what so many need ─────────┤
//! ```
//!
//! What is not told early is told late: who is getting a history finishes that first, and who has just connected gets to say
//! what it wants.

use std::sync::atomic::Ordering;

use super::connection::{Connection, Phase};
use super::driver::{Driver, SlotKey};
use super::worker::Worker;
use crate::conn::CloseReason;
use crate::limits::{
    DRAIN_CLOSES_PER_TURN, DRAIN_CLOSES_PER_TURN_MIN, DRAIN_HANDSHAKE_MS, DRAIN_PACE_MS, DRAIN_SLOTS_PER_TURN,
    RETRY_MS_MIN, RETRY_SPREAD_MS_MAX, RETURNS_PER_SECOND,
};
use crate::time::Millis;

/// How many are told at once, and how widely they are spread when they come back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Pace {
    /// Connections told in one step; a step follows [`DRAIN_PACE_MS`] after the one before.
    per_step: usize,
    /// Each is told a random time below this, in milliseconds.
    retry_ms_max: u64,
}

impl Pace {
    /// For a reactor with `mine` of the node's connections, which are to be gone within `within_ms`.
    fn of(node: u64, mine: usize, within_ms: u64) -> Pace {
        let spread_ms = (node * 1_000 / RETURNS_PER_SECOND).min(RETRY_SPREAD_MS_MAX);
        let closing_ms = spread_ms.min(within_ms / 4 * 3);
        let steps = usize::try_from(closing_ms / DRAIN_PACE_MS).unwrap_or(usize::MAX).max(1);
        let per_step = mine.div_ceil(steps).clamp(DRAIN_CLOSES_PER_TURN_MIN, DRAIN_CLOSES_PER_TURN);
        Pace { per_step, retry_ms_max: RETRY_MS_MIN + spread_ms }
    }
}

/// A reactor that goes away.
#[derive(Debug)]
pub(super) struct Draining {
    pace: Pace,
    /// When the next connections are told.
    next_at: Millis,
    /// From then on nothing is waited for.
    patient_until: Millis,
    /// The slot that is looked at next.
    slot: u32,
}

impl Draining {
    /// When it has something to do.
    pub(super) fn next_at(&self) -> Millis {
        self.next_at
    }
}

impl<D: Driver> Worker<D> {
    /// Nothing more is accepted, and all connections are told to go within `within_ms`.
    pub(super) fn begin_drain(&mut self, within_ms: u64) {
        self.driver.stop_accepting();
        if self.draining.is_some() {
            return;
        }
        let node = self.node.metrics.connections.load(Ordering::Relaxed) as u64;
        let pace = Pace::of(node, self.connections.sessions.len(), within_ms);
        let patient_until = self.now.saturating_add(within_ms / 4 * 3);
        self.draining = Some(Draining { pace, next_at: self.now, patient_until, slot: 0 });
    }

    /// Tells some connections of a draining reactor to go away.
    pub(super) fn drain_some(&mut self) {
        let Some(draining) = self.draining.as_mut().filter(|draining| draining.next_at <= self.now) else { return };
        draining.next_at = self.now.saturating_add(DRAIN_PACE_MS);
        let Pace { per_step, retry_ms_max } = draining.pace;
        let is_patient = self.now < draining.patient_until;
        let sessions = &self.connections.sessions;
        let slots = sessions.slots();
        let mut told: Vec<SlotKey> = Vec::new();
        for _ in 0..slots.min(DRAIN_SLOTS_PER_TURN) {
            if told.len() == per_step {
                break;
            }
            draining.slot = if draining.slot + 1 < slots { draining.slot + 1 } else { 0 };
            let Some(slot) = sessions.occupant(draining.slot) else { continue };
            let Some(connection) = sessions.get(slot) else { continue };
            let is_here = connection.is_open() || connection.is_beginning();
            let busy_until = busy_until(connection, self.settings.handshake_ms_max);
            if is_here && !(is_patient && busy_until.is_some_and(|until| self.now < until)) {
                told.push(slot);
            }
        }
        for slot in told {
            self.go_away(slot, retry_ms_max);
        }
        self.settle();
    }

    /// The node is going away: the client is told when to come back.
    fn go_away(&mut self, slot: SlotKey, retry_ms_max: u64) {
        let Some(connection) = self.connections.get(slot) else { return };
        match connection.phase() {
            Phase::Json | Phase::Raw { .. } => {
                let retry_ms = self.random.u64(0..retry_ms_max);
                self.close(slot, CloseReason::GoingAway { retry_ms });
            }
            // Nothing was asked: there is nothing to answer.
            Phase::Handshake(handshake) if handshake.reader.held_bytes() == 0 => self.release(slot),
            Phase::Handshake(_) | Phase::Authorizing(_) | Phase::Opening(_) => {
                let refusal = self.at_capacity();
                self.refuse(slot, refusal);
            }
            Phase::Quiescing(_)
            | Phase::Closing { .. }
            | Phase::Leaving { .. }
            | Phase::Lingering { .. }
            | Phase::Terminating(_) => {}
        }
    }
}

/// Until when a connection is in the middle of something that it is left to finish, if it is.
fn busy_until(connection: &Connection, handshake_ms_max: u64) -> Option<Millis> {
    match connection.phase() {
        // A history is on its way.
        Phase::Json => connection.outbox.is_pulling().then_some(Millis(u64::MAX)),
        // Its request may be on its way.
        Phase::Handshake(handshake) => {
            Some(Millis(handshake.until.0.saturating_sub(handshake_ms_max)).saturating_add(DRAIN_HANDSHAKE_MS))
        }
        Phase::Authorizing(authorizing) => Some(authorizing.until),
        Phase::Opening(opening) => Some(opening.until),
        Phase::Raw { .. }
        | Phase::Quiescing(_)
        | Phase::Closing { .. }
        | Phase::Leaving { .. }
        | Phase::Lingering { .. }
        | Phase::Terminating(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_are_gone_at_once_and_a_million_come_back_over_minutes() {
        assert_eq!(Pace::of(100, 100, 10_000), Pace { per_step: 50, retry_ms_max: 1_020 });
        assert_eq!(Pace::of(15_000, 7_500, 10_000), Pace { per_step: 25, retry_ms_max: 4_000 });
        let million = Pace::of(1_000_000, 125_000, 10_000);
        assert_eq!(million, Pace { per_step: 167, retry_ms_max: 201_000 });
        assert_eq!(Pace::of(1_000_000, 125_000, 0), Pace { per_step: DRAIN_CLOSES_PER_TURN, ..million });
        assert_eq!(Pace::of(0, 0, 3_600_000), Pace { per_step: DRAIN_CLOSES_PER_TURN_MIN, retry_ms_max: 1_000 });
        assert_eq!(Pace::of(u64::MAX / 1_000, 1, 10_000).retry_ms_max, RETRY_MS_MIN + RETRY_SPREAD_MS_MAX);
    }

    #[test]
    fn all_are_told_in_time_where_one_reactor_can() {
        for node in [1, 1_000, 15_000, 100_000, 1_000_000_u64] {
            for within_ms in [1_000, 10_000, 60_000] {
                let steps = usize::try_from(within_ms / 4 * 3 / DRAIN_PACE_MS).unwrap();
                let Pace { per_step, .. } = Pace::of(node, node as usize, within_ms);
                let told = (per_step * steps).min(node as usize);
                assert!(told == node as usize || per_step == DRAIN_CLOSES_PER_TURN, "{node} within {within_ms} ms");
            }
        }
    }
}
