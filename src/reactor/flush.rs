//! From queues to sockets, and what becomes of a consumer that does not keep up.

use std::io::IoSlice;

use super::connection::{Connection, NO_BATCH, Phase, Then};
use super::driver::{Driver, Sent};
use super::worker::Worker;
use crate::conn::CloseReason;
use crate::limits::{LINGER_MS_MAX, SEND_SLICES_MAX};

/// What a flush found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flushed {
    /// Nothing is left.
    Empty,
    /// The kernel takes no more for now.
    Waiting,
    /// The connection broke.
    Broken,
}

impl<D: Driver> Worker<D> {
    /// Sends to every connection that something was queued for.
    pub(super) fn flush_dirty(&mut self) {
        let dirty = self.connections.take_dirty();
        for &slot in &dirty {
            let Some(connection) = self.connections.get_mut(slot) else { continue };
            if !connection.dirty {
                continue;
            }
            connection.dirty = false;
            let is_paused = connection.intake.is_paused();
            self.flush(slot);
            if is_paused {
                self.resume_if_drained(slot);
            }
        }
        self.connections.give_back_dirty(dirty);
    }

    /// The socket takes bytes again.
    pub(super) fn writable(&mut self, slot: u32) {
        if let Some(connection) = self.connections.get_mut(slot)
            && connection.blocked
        {
            connection.blocked = false;
            self.connections.mark_dirty(slot);
        }
    }

    /// The node's queues are over their budget: who holds the most memory goes first, on the reactor that holds the most.
    pub(super) fn enforce_node_budget(&mut self) {
        let budget_bytes = self.settings.outbox_node_bytes_max;
        let mine = self.connections.held_bytes();
        if mine == 0 || self.node_queue_bytes() <= budget_bytes {
            return;
        }
        let most = self.other_reactors().map(|(at, reactor)| (reactor.queue_bytes(), at)).max();
        if let Some((bytes, reactor)) = most
            && bytes > mine
        {
            return self.mailbox.nudge(reactor);
        }
        self.connections.copy_scraps();
        let sizes = |(slot, connection): (u32, &Connection)| {
            let (out_bytes, in_bytes) = (connection.outbox.pinned_bytes(), connection.partial_bytes as usize);
            let reason = if out_bytes >= in_bytes { CloseReason::SlowConsumer } else { CloseReason::AtCapacity };
            (connection.is_open() && out_bytes + in_bytes > 0).then_some((out_bytes + in_bytes, slot, reason))
        };
        let mut fullest: Vec<_> = self.connections.iter().filter_map(sizes).collect();
        fullest.sort_unstable_by_key(|(bytes, ..)| std::cmp::Reverse(*bytes));
        for (_, slot, reason) in fullest {
            if self.node_queue_bytes() <= budget_bytes {
                break;
            }
            self.close(slot, reason);
        }
        self.flush_all();
        self.publish_counts();
    }

    /// Sends what one connection has, then looks at what is left.
    fn flush(&mut self, slot: u32) {
        match self.send_queued(slot) {
            Flushed::Broken => self.release(slot),
            Flushed::Empty => self.on_drained(slot),
            Flushed::Waiting => {
                let Some(connection) = self.connections.get(slot) else { return };
                let bytes_max = self.settings.outbox_bytes_max;
                let outbox = &connection.outbox;
                // The first comparison is cheap, and nearly always enough.
                let over =
                    outbox.bytes() > bytes_max && outbox.bytes_behind_first() > bytes_max && !outbox.is_replaying();
                if connection.is_open() && over {
                    self.close(slot, CloseReason::SlowConsumer);
                } else {
                    self.arm(slot);
                }
            }
        }
    }

    #[inline]
    fn send_queued(&mut self, slot: u32) -> Flushed {
        let Some(connection) = self.connections.get(slot) else { return Flushed::Empty };
        if connection.outbox.is_empty() && !connection.blocked {
            if connection.batch == NO_BATCH {
                return Flushed::Empty;
            }
            let bytes = self.connections.batch_bytes(connection.batch);
            let len = bytes.len();
            let sent = self.driver.send(slot, bytes);
            self.connections.counts.sends += 1;
            let Sent::Took(taken) = sent else { return Flushed::Broken };
            self.connections.counts.bytes_out += taken as u64;
            let Some(connection) = self.connections.get_mut(slot) else { return Flushed::Empty };
            if taken == len {
                connection.batch = NO_BATCH;
                return Flushed::Empty;
            }
            connection.blocked = true;
            self.connections.queue_batch(slot, taken);
            return Flushed::Waiting;
        }
        self.connections.queue_batch(slot, 0);
        self.send_outbox(slot)
    }

    fn send_outbox(&mut self, slot: u32) -> Flushed {
        loop {
            let now = self.now;
            let Some(connection) = self.connections.get_mut(slot) else { return Flushed::Empty };
            if connection.outbox.is_empty() {
                return Flushed::Empty;
            }
            if connection.blocked {
                return Flushed::Waiting;
            }
            let mut slices = [IoSlice::new(&[]); SEND_SLICES_MAX];
            let mut used = 0;
            for (place, bytes) in slices.iter_mut().zip(connection.outbox.slices(SEND_SLICES_MAX)) {
                *place = IoSlice::new(bytes);
                used += 1;
            }
            let given: usize = slices[..used].iter().map(|slice| slice.len()).sum();
            let sent = match &slices[..used] {
                [one] => self.driver.send(slot, one),
                many => self.driver.send_slices(slot, many),
            };
            let Sent::Took(taken) = sent else { return Flushed::Broken };
            connection.outbox.advance(taken, now);
            connection.blocked = taken < given;
            self.connections.counts.sends += 1;
            self.connections.counts.bytes_out += taken as u64;
        }
    }

    /// Everything is out: a connection that was only waiting for that ends.
    fn on_drained(&mut self, slot: u32) {
        let Some(connection) = self.connections.get_mut(slot) else { return };
        match connection.phase {
            Phase::Leaving { then: Then::Release, .. } => self.release(slot),
            Phase::Leaving { then: Then::Linger, .. } => {
                connection.phase = Phase::Lingering { until: self.now.saturating_add(LINGER_MS_MAX) };
                self.driver.finish(slot);
                self.arm(slot);
            }
            Phase::Handshake(_)
            | Phase::Opening(_)
            | Phase::Quiescing(_)
            | Phase::Json
            | Phase::Raw { .. }
            | Phase::Closing { .. }
            | Phase::Lingering { .. } => {}
        }
    }
}
