//! From queues to sockets, and what becomes of a consumer that does not keep up.
//!
//! ```text
//!   every dirty connection: send ─┬─ Took, Broken ──────────────────────────────► what follows
//!                                 └─ Queued ─► under way ─► submit, shortfalls ──┘     │
//!                                                 ▲            │ more than one send    ▼
//!                                                 └────────────┘            release, close, resume, …
//! ```
//!
//! What follows comes last, since it may write to any connection: while sends are under way nothing touches what they
//! point at.

use std::io::IoSlice;

use super::connection::{Connection, NO_BATCH, Phase, Room, Then};
use super::connections::Connections;
use super::driver::{Driver, Sent, Shortfall, SlotKey};
use super::lifecycle::ending_of;
use super::worker::Worker;
use crate::conn::CloseReason;
use crate::limits::{LINGER_MS_MAX, SEND_SLICES_MAX};

/// What a flush found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flushed {
    /// Nothing is left.
    Empty,
    /// The kernel takes no more for now.
    Waiting,
    /// The connection broke.
    Broken,
}

/// A send that the driver has queued.
#[derive(Clone, Copy, Debug)]
pub(super) struct UnderWay {
    slot: SlotKey,
    source: Source,
    given_bytes: usize,
    /// `None` where all was taken, as far as is known.
    shortfall: Option<Shortfall>,
}

/// Where the bytes of a send are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    /// They are a whole batch of the turn.
    Batch(u32),
    /// They are the front of the connection's outbox.
    Outbox,
}

/// The sends of one flush, and what is still to be done because of them. Both are empty between flushes.
#[derive(Debug, Default)]
pub(super) struct Flush {
    under_way: Vec<UnderWay>,
    follow_ups: Vec<(SlotKey, Flushed)>,
}

impl<D: Driver> Worker<D> {
    /// Sends to every connection that something was queued for.
    pub(super) fn flush_dirty(&mut self) {
        while let Some(slot) = self.connections.egress.next_new_to_rounds() {
            if self.connections.get(slot).is_some_and(|connection| connection.has_rounds) {
                self.driver.bound_unsent(slot);
            }
        }
        let dirty = self.connections.egress.take_dirty();
        for &slot in &dirty {
            self.send_dirty(slot);
        }
        self.connections.egress.give_back_dirty(dirty);
        while !self.flush.under_way.is_empty() {
            self.submit();
        }
        let mut follow_ups = std::mem::take(&mut self.flush.follow_ups);
        for (slot, flushed) in follow_ups.drain(..) {
            self.follow_up(slot, flushed);
        }
        self.flush.follow_ups = follow_ups;
    }

    /// The socket takes bytes again.
    pub(super) fn writable(&mut self, slot: SlotKey) {
        if let Some(connection) = self.connections.get_mut(slot)
            && connection.room == Room::None
        {
            connection.room = Room::Regained;
            self.connections.mark_dirty(slot);
        }
    }

    /// The node's queues are over their budget: who holds the most memory goes first, on the reactor that holds the most.
    pub(super) fn enforce_node_budget(&mut self) {
        let budget_bytes = self.settings.outbox_node_bytes_max;
        let mine = self.held_bytes();
        if mine == 0 || self.node_queue_bytes() <= budget_bytes {
            return;
        }
        let most = self.other_reactors().map(|(at, reactor)| (reactor.queue_bytes(), at)).max();
        if let Some((bytes, reactor)) = most
            && bytes > mine
        {
            return self.mailbox.nudge(reactor);
        }
        self.shed_ending(budget_bytes);
        self.shed_strangers(budget_bytes);
        self.connections.copy_scraps();
        let driver = &self.driver;
        let sizes = |(slot, connection): (SlotKey, &Connection)| {
            let out_bytes = connection.outbox.pinned_bytes() + driver.held_in(slot);
            let in_bytes = connection.partial_bytes as usize;
            let reason = if out_bytes >= in_bytes { CloseReason::SlowConsumer } else { CloseReason::AtCapacity };
            (connection.is_open() && out_bytes + in_bytes > 0).then_some((out_bytes + in_bytes, slot, reason))
        };
        let mut fullest: Vec<_> = self.connections.sessions.iter().filter_map(sizes).collect();
        fullest.sort_unstable_by_key(|(bytes, ..)| std::cmp::Reverse(*bytes));
        for (_, slot, reason) in fullest {
            if self.node_queue_bytes() <= budget_bytes {
                break;
            }
            // What the driver holds is free only with its socket.
            match self.driver.held_in(slot) {
                0 => self.close(slot, reason),
                _ => self.release_as(slot, ending_of(reason)),
            }
        }
        self.flush_all();
        self.publish_counts();
    }

    /// Whoever is being closed waits no longer where the driver holds something of it.
    fn shed_ending(&mut self, budget_bytes: u64) {
        let held = |(slot, connection): (SlotKey, &Connection)| {
            let is_ending = !connection.is_open() && !connection.is_beginning();
            (is_ending && self.driver.held_in(slot) > 0).then_some(slot)
        };
        let ending: Vec<SlotKey> = self.connections.sessions.iter().filter_map(held).collect();
        for slot in ending {
            if self.node_queue_bytes() <= budget_bytes {
                break;
            }
            self.release(slot);
        }
    }

    /// Sends what one connection has, if it is still to be flushed. Nothing changes but its own queue and the list of
    /// batches.
    #[inline]
    fn send_dirty(&mut self, slot: SlotKey) {
        let Connections { sessions, egress, counts, .. } = &mut self.connections;
        let Some(connection) = sessions.get_mut(slot) else { return };
        if !std::mem::replace(&mut connection.dirty, false) {
            return;
        }
        let batch = connection.batch;
        if batch == NO_BATCH || !connection.outbox.is_empty() || connection.room == Room::None {
            egress.queue_batch(connection, 0);
            return self.send_outbox(slot);
        }
        let bytes = egress.batch_bytes(batch);
        let given_bytes = bytes.len();
        counts.sends += 1;
        match self.driver.send(slot, bytes) {
            Sent::Took(taken_bytes) if taken_bytes == given_bytes => {
                connection.batch = NO_BATCH;
                counts.bytes_out += taken_bytes as u64;
                if connection.awaits_flush() {
                    self.flush.follow_ups.push((slot, Flushed::Empty));
                }
            }
            Sent::Took(taken_bytes) => self.batch_fell_short(slot, taken_bytes),
            Sent::Queued => {
                let source = Source::Batch(batch);
                self.flush.under_way.push(UnderWay { slot, source, given_bytes, shortfall: None });
            }
            Sent::Broken => self.note_flushed(slot, Flushed::Broken),
        }
    }

    /// A socket took less than the batch that its connection has taken note of.
    fn batch_fell_short(&mut self, slot: SlotKey, taken_bytes: usize) {
        self.connections.counts.bytes_out += taken_bytes as u64;
        self.connections.queue_batch(slot, taken_bytes);
        let is_ahead = self.driver.is_ahead(slot);
        if let Some(connection) = self.connections.get_mut(slot) {
            connection.room = Room::None;
            if is_ahead {
                connection.outbox.begin_front();
            }
        }
        self.cut_rounds(slot);
        self.note_flushed(slot, Flushed::Waiting);
    }

    fn send_outbox(&mut self, slot: SlotKey) {
        loop {
            let Some(connection) = self.connections.get_mut(slot) else { return };
            if connection.room != Room::None {
                connection.outbox.pull(SEND_SLICES_MAX);
            }
            if connection.outbox.is_empty() {
                return self.note_flushed(slot, Flushed::Empty);
            }
            if connection.room == Room::None {
                return self.note_flushed(slot, Flushed::Waiting);
            }
            let mut slices = [IoSlice::new(&[]); SEND_SLICES_MAX];
            let slices = gather(&mut slices, connection.outbox.slices(SEND_SLICES_MAX));
            let given_bytes: usize = slices.iter().map(|slice| slice.len()).sum();
            let sent = match slices {
                [one] => self.driver.send(slot, one),
                many => self.driver.send_slices(slot, many),
            };
            self.connections.counts.sends += 1;
            match sent {
                Sent::Took(taken_bytes) => self.outbox_took(slot, taken_bytes, given_bytes),
                Sent::Queued => {
                    let source = Source::Outbox;
                    return self.flush.under_way.push(UnderWay { slot, source, given_bytes, shortfall: None });
                }
                Sent::Broken => return self.note_flushed(slot, Flushed::Broken),
            }
        }
    }

    fn outbox_took(&mut self, slot: SlotKey, taken_bytes: usize, given_bytes: usize) {
        let now = self.now;
        self.connections.counts.bytes_out += taken_bytes as u64;
        let Some(connection) = self.connections.get_mut(slot) else { return };
        connection.outbox.advance(taken_bytes, now);
        if taken_bytes < given_bytes {
            connection.room = Room::None;
            if self.driver.is_ahead(slot) {
                connection.outbox.begin_front();
            }
            self.cut_rounds(slot);
        }
    }

    /// A socket took less than it was given: what of rounds has not begun is not sent, and the router hears of it.
    fn cut_rounds(&mut self, slot: SlotKey) {
        let id = self.connections.id(slot);
        let Connections { sessions, egress, counts, .. } = &mut self.connections;
        let Some(connection) = sessions.get_mut(slot) else { return };
        egress.cut_rounds(connection, |round, taken| {
            let dropped = (round.offsets.len() - taken) as u64;
            counts.messages_out -= dropped;
            counts.deliveries -= dropped;
            self.router.fell_behind(id, round, taken);
        });
    }

    /// What is under way is sent, and each connection is told how much was taken; what it has beyond one send is under
    /// way then.
    fn submit(&mut self) {
        if D::RECHECKS {
            self.recheck();
        }
        self.driver.submit();
        let mut under_way = std::mem::take(&mut self.flush.under_way);
        if let Some(first) = self.driver.next_shortfall() {
            under_way.sort_unstable_by_key(|send| send.slot);
            let others = std::iter::from_fn(|| self.driver.next_shortfall());
            for (slot, shortfall) in std::iter::once(first).chain(others) {
                let at = under_way.binary_search_by_key(&slot, |send| send.slot);
                let at = at.expect("a driver tells only of what it has queued");
                under_way[at].shortfall = Some(shortfall);
            }
        }
        let submitted = under_way.len();
        self.flush.under_way = under_way;
        for at in 0..submitted {
            self.take_outcome(self.flush.under_way[at]);
        }
        self.flush.under_way.drain(..submitted);
    }

    fn take_outcome(&mut self, send: UnderWay) {
        let UnderWay { slot, source, given_bytes, shortfall } = send;
        match (source, shortfall) {
            (_, Some(Shortfall::Broken)) => self.note_flushed(slot, Flushed::Broken),
            (Source::Batch(_), Some(Shortfall::Took(taken_bytes))) => self.batch_fell_short(slot, taken_bytes),
            (Source::Batch(_), None) => {
                self.connections.counts.bytes_out += given_bytes as u64;
                if let Some(connection) = self.connections.get_mut(slot) {
                    connection.batch = NO_BATCH;
                }
                self.note_flushed(slot, Flushed::Empty);
            }
            (Source::Outbox, shortfall) => {
                let taken_bytes = match shortfall {
                    Some(Shortfall::Took(taken_bytes)) => taken_bytes,
                    Some(Shortfall::Broken) | None => given_bytes,
                };
                self.outbox_took(slot, taken_bytes, given_bytes);
                self.send_outbox(slot);
            }
        }
    }

    /// Shows the driver all that is under way where it is now.
    fn recheck(&mut self) {
        for send in &self.flush.under_way {
            let mut slices = [IoSlice::new(&[]); SEND_SLICES_MAX];
            let Some(connection) = self.connections.get(send.slot) else { continue };
            let slices = match send.source {
                Source::Batch(batch) => gather(&mut slices, [self.connections.egress.batch_bytes(batch)]),
                Source::Outbox => gather(&mut slices, connection.outbox.slices(SEND_SLICES_MAX)),
            };
            self.driver.recheck(send.slot, slices);
        }
    }

    /// A connection was flushed: where something follows from that, it does when all are.
    #[inline]
    fn note_flushed(&mut self, slot: SlotKey, flushed: Flushed) {
        let Some(connection) = self.connections.get(slot) else { return };
        if flushed != Flushed::Empty || connection.awaits_flush() {
            self.flush.follow_ups.push((slot, flushed));
        }
    }

    fn follow_up(&mut self, slot: SlotKey, flushed: Flushed) {
        match flushed {
            Flushed::Broken => return self.release(slot),
            Flushed::Empty => self.on_drained(slot),
            Flushed::Waiting => self.on_waiting(slot),
        }
        self.resume_if_drained(slot);
    }

    /// Its socket takes no more for now: it may wait, unless too much does.
    fn on_waiting(&mut self, slot: SlotKey) {
        let Some(connection) = self.connections.get(slot) else { return };
        let bytes_max = self.settings.outbox_bytes_max;
        let outbox = &connection.outbox;
        // The first comparison is cheap, and nearly always enough.
        let over = outbox.bytes() > bytes_max && outbox.bytes_behind_first() > bytes_max && !outbox.is_pulling();
        if connection.is_open() && over {
            self.close(slot, CloseReason::SlowConsumer);
        } else {
            self.arm(slot);
        }
    }

    /// Everything is out: a connection that was only waiting for that ends, and one that lags gets more.
    fn on_drained(&mut self, slot: SlotKey) {
        let id = self.connections.id(slot);
        let Some(connection) = self.connections.get_mut(slot) else { return };
        // What came before in this flush may have had something for it.
        if !connection.outbox.is_empty() || connection.batch != NO_BATCH {
            return;
        }
        if connection.room == Room::Regained {
            connection.room = Room::Some;
            self.router.takes_again(id);
        }
        match connection.phase() {
            Phase::Leaving { then: Then::Release, .. } => self.release(slot),
            Phase::Leaving { then: Then::Linger, .. } => {
                connection.linger(self.now.saturating_add(LINGER_MS_MAX));
                self.driver.finish(slot);
                self.arm(slot);
            }
            Phase::Handshake(_)
            | Phase::Authorizing(_)
            | Phase::Opening(_)
            | Phase::Quiescing(_)
            | Phase::Json
            | Phase::Raw { .. }
            | Phase::Closing { .. }
            | Phase::Lingering { .. }
            | Phase::Terminating(_) => {}
        }
    }
}

/// Puts slices into a list for the driver; what of the list is used.
fn gather<'l, 'b>(list: &'l mut [IoSlice<'b>], slices: impl IntoIterator<Item = &'b [u8]>) -> &'l [IoSlice<'b>] {
    let mut used = 0;
    for (entry, bytes) in list.iter_mut().zip(slices) {
        *entry = IoSlice::new(bytes);
        used += 1;
    }
    &list[..used]
}
