//! The connections of a reactor: which is in which slot, and those that the worker is to look at next.
//!
//! What is on its way to them is in [`Egress`](super::egress::Egress); how far each is, only
//! [`connection`](super::connection) changes.

use std::collections::VecDeque;

use slab::Slab;

use super::addresses::AddressRef;
use super::connection::{Connection, Fenced, Handshake, Phase, Terminating};
use super::driver::SlotKey;
use crate::compress::Agreement;
use crate::conn::{CloseReason, Decoder};
use crate::growth::Grow;
use crate::ids::{ConnId, ReactorId, Slot};
use crate::time::Millis;

/// Generations stay below 2^31 so that a driver can put more beside them, see [`SlotKey`].
const GENERATIONS_MASK: u32 = 0x7FFF_FFFF;

/// A step of the time at which a connection opened, in milliseconds.
const OPENED_STEP_MS: u64 = 4;

/// Outdated entries that may stand between those whose request is awaited, beside one for each connection.
const AWAITED_SPARE: usize = 64;

/// See the module's documentation.
pub(super) struct Sessions {
    me: ReactorId,
    slab: Slab<Connection>,
    generations: Vec<u32>,
    /// When the connection in a slot opened, in steps of [`OPENED_STEP_MS`], as far as 32 bits go.
    opened_at: Vec<u32>,
    /// Connections that agreed on compression.
    deflating: usize,
    /// Connections that opened in this turn, with what they sent behind their request head.
    opened: Vec<(SlotKey, Vec<u8>)>,
    /// Connections to which nothing more comes of what they have sent.
    quiesced: Vec<SlotKey>,
    /// Connections that are ended from elsewhere, each with why.
    dismissed: Vec<(SlotKey, CloseReason)>,
    /// Those whose request is awaited, the oldest first. An entry may be outdated.
    awaited: VecDeque<SlotKey>,
    /// Bytes of incomplete incoming messages, and of those that wait to be decoded.
    partial_bytes: usize,
}

impl Sessions {
    pub(super) fn new(me: ReactorId) -> Sessions {
        Sessions {
            me,
            slab: Slab::new(),
            generations: Vec::new(),
            opened_at: Vec::new(),
            deflating: 0,
            opened: Vec::new(),
            quiesced: Vec::new(),
            dismissed: Vec::new(),
            awaited: VecDeque::new(),
            partial_bytes: 0,
        }
    }

    /// The reactor whose connections they are.
    pub(super) fn reactor(&self) -> ReactorId {
        self.me
    }

    /// A client has connected: it gets a slot.
    pub(super) fn insert(&mut self, handshake: Handshake, now: Millis, address: Option<AddressRef>) -> SlotKey {
        self.forget_answered();
        self.slab.make_room_for_one();
        let entry = self.slab.vacant_entry();
        let at = entry.key();
        if at >= self.generations.len() {
            self.generations.make_room_for_one();
            self.generations.push(0);
            self.opened_at.make_room_for_one();
            self.opened_at.push(0);
        }
        let generation = self.generations[at];
        entry.insert(Connection::new(generation, now, handshake, address));
        let slot = SlotKey::new(at as u32, generation);
        self.awaited.push_back(slot);
        slot
    }

    /// Of the connections whose request is awaited, the one that came first.
    pub(super) fn oldest_awaited(&mut self) -> Option<SlotKey> {
        self.forget_answered();
        self.awaited.front().copied()
    }

    /// Takes those out whose request is not awaited any more: up to the first that waits, and the others as well where they
    /// are more than there are connections.
    fn forget_answered(&mut self) {
        let Sessions { slab, awaited, .. } = self;
        let waits = |slot: &SlotKey| {
            let connection = slab.get(slot.index()).filter(|connection| connection.generation == slot.generation());
            connection.is_some_and(|connection| matches!(connection.phase(), Phase::Handshake(_)))
        };
        while awaited.front().is_some_and(|slot| !waits(slot)) {
            awaited.pop_front();
        }
        if awaited.len() > 2 * slab.len() + AWAITED_SPARE {
            awaited.retain(waits);
        }
    }

    /// A connection's slot is free.
    ///
    /// # Panics
    /// Where it is not there.
    pub(super) fn remove(&mut self, slot: SlotKey) -> Connection {
        let generation = &mut self.generations[slot.index()];
        assert_eq!(*generation, slot.generation(), "a slot is freed once");
        *generation = (*generation + 1) & GENERATIONS_MASK;
        let connection = self.slab.remove(slot.index());
        self.partial_bytes -= connection.partial_bytes as usize;
        self.deflating -= usize::from(connection.agreement.is_some());
        connection
    }

    /// A connection has no socket any more, and its slot is not free yet.
    pub(super) fn terminate(&mut self, slot: SlotKey, terminating: Terminating) {
        if let Some(connection) = self.get_mut(slot) {
            connection.terminate(terminating);
            self.count_partial(slot);
        }
    }

    /// This was agreed about compression with a client.
    pub(super) fn set_agreement(&mut self, slot: SlotKey, agreement: Agreement) {
        if let Some(connection) = self.get_mut(slot) {
            connection.agreement = Some(agreement);
            connection.decoder = Decoder::new(Some(agreement));
            self.deflating += 1;
        }
    }

    /// Whether a connection here has agreed on compression.
    pub(super) fn is_deflating(&self) -> bool {
        self.deflating > 0
    }

    /// Counts what is held of a connection's input now.
    #[inline]
    pub(super) fn count_partial(&mut self, slot: SlotKey) {
        if let Some(connection) = self.get_mut(slot) {
            let held_bytes = connection.stranger_bytes()
                + connection.decoder.held_bytes()
                + connection.intake.held_bytes()
                + connection.pending_bytes();
            let before_bytes = connection.partial_bytes as usize;
            if before_bytes != held_bytes {
                connection.partial_bytes = u32::try_from(held_bytes)
                    .expect("a message is at most 256 MiB, and what waits behind it a few reads");
                self.partial_bytes = self.partial_bytes - before_bytes + held_bytes;
            }
        }
    }

    /// Bytes held of what connections have sent.
    pub(super) fn partial_bytes(&self) -> usize {
        self.partial_bytes
    }

    /// A connection, if it is still the one in its slot. Mail and completions may be late.
    #[inline]
    pub(super) fn get(&self, slot: SlotKey) -> Option<&Connection> {
        match self.slab.get(slot.index()) {
            Some(connection) if connection.generation == slot.generation() => Some(connection),
            Some(_) | None => None,
        }
    }

    /// As [`Sessions::get`].
    #[inline]
    pub(super) fn get_mut(&mut self, slot: SlotKey) -> Option<&mut Connection> {
        match self.slab.get_mut(slot.index()) {
            Some(connection) if connection.generation == slot.generation() => Some(connection),
            Some(_) | None => None,
        }
    }

    /// What a connection is to the router.
    #[inline]
    pub(super) fn id(&self, slot: SlotKey) -> ConnId {
        ConnId { reactor: self.me, slot: Slot(slot.slot()), generation: slot.generation() }
    }

    /// The connection that the router has as a member, which is there for as long as it is one.
    #[inline]
    pub(super) fn member(&self, Slot(slot): Slot) -> SlotKey {
        SlotKey::new(slot, self.slab[slot as usize].generation)
    }

    /// As [`Sessions::member`], with what it is.
    #[inline]
    pub(super) fn member_mut(&mut self, Slot(slot): Slot) -> (SlotKey, &mut Connection) {
        let connection = &mut self.slab[slot as usize];
        (SlotKey::new(slot, connection.generation), connection)
    }

    /// The connection that is in a slot now.
    pub(super) fn occupant(&self, slot: u32) -> Option<SlotKey> {
        let connection = self.slab.get(slot as usize)?;
        Some(SlotKey::new(slot, connection.generation))
    }

    /// Slots that were ever taken: each is below this.
    pub(super) fn slots(&self) -> u32 {
        u32::try_from(self.generations.len()).unwrap_or(u32::MAX)
    }

    /// Slots that are taken.
    pub(super) fn len(&self) -> usize {
        self.slab.len()
    }

    /// All connections.
    pub(super) fn iter(&self) -> impl Iterator<Item = (SlotKey, &Connection)> {
        self.slab.iter().map(|(at, connection)| (SlotKey::new(at as u32, connection.generation), connection))
    }

    /// All connections.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Connection> {
        self.slab.iter_mut().map(|(_, connection)| connection)
    }

    /// A connection opens now.
    pub(super) fn note_opened_at(&mut self, slot: SlotKey, now: Millis) {
        self.opened_at[slot.index()] = (now.0 / OPENED_STEP_MS) as u32;
    }

    /// For how long an open connection is, in milliseconds: exact to [`OPENED_STEP_MS`], and up to half a year.
    pub(super) fn open_ms(&self, slot: SlotKey, now: Millis) -> u64 {
        let steps = ((now.0 / OPENED_STEP_MS) as u32).wrapping_sub(self.opened_at[slot.index()]);
        u64::from(steps) * OPENED_STEP_MS
    }

    /// A connection is open: the worker is to begin with what it sent behind its request head.
    pub(super) fn note_opened(&mut self, slot: SlotKey, early: Vec<u8>) {
        self.opened.push((slot, early));
    }

    /// A connection that opened in this turn, with what it sent behind its request head.
    pub(super) fn next_opened(&mut self) -> Option<(SlotKey, Vec<u8>)> {
        self.opened.pop()
    }

    /// A reactor has sent all that it had of what this connection has sent. Whether its flush is to look at it.
    pub(super) fn fenced(&mut self, slot: SlotKey) -> bool {
        let Some(connection) = self.get_mut(slot) else { return false };
        match connection.fenced() {
            Fenced::Quiesced => {
                self.quiesced.push(slot);
                false
            }
            Fenced::Answered => true,
            Fenced::Awaiting => false,
        }
    }

    /// A connection that has had all it is to have before it ends.
    pub(super) fn next_quiesced(&mut self) -> Option<SlotKey> {
        self.quiesced.pop()
    }

    /// It is ended from elsewhere: by an operator, or because of its user's other connections.
    /// [`Sessions::next_dismissed`] says so to the worker.
    pub(super) fn dismiss(&mut self, slot: SlotKey, reason: CloseReason) {
        self.dismissed.push((slot, reason));
    }

    /// A user's connections to raw rooms, and those that are about to open, are ended from elsewhere. Takes time linear in
    /// the connections here: it is for an operator's order alone, and a raw room has no table of users.
    pub(super) fn dismiss_others(&mut self, user: &str, reason: CloseReason) {
        let Sessions { slab, dismissed, .. } = self;
        let is_theirs =
            |connection: &Connection| connection.raw_user() == Some(user) || connection.opening_user() == Some(user);
        let theirs = slab.iter().filter(|(_, connection)| is_theirs(connection));
        dismissed.extend(theirs.map(|(at, connection)| (SlotKey::new(at as u32, connection.generation), reason)));
    }

    /// A connection that is ended from elsewhere.
    pub(super) fn next_dismissed(&mut self) -> Option<(SlotKey, CloseReason)> {
        self.dismissed.pop()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conn::HeadReader;
    use crate::reactor::driver::{ListenerId, Provenance, RemoteAddr};
    use crate::reactor::handover::Arrival;

    fn come(sessions: &mut Sessions) -> SlotKey {
        let provenance = Provenance { listener: ListenerId(0), remote: RemoteAddr::Unix, proxied: false };
        let arrival = Arrival { provenance, is_unnamed: false };
        let handshake = Handshake { reader: HeadReader::default(), arrival, until: Millis(1) };
        sessions.insert(handshake, Millis::ZERO, None)
    }

    #[test]
    fn the_oldest_whose_request_is_awaited_is_found_however_many_have_come_and_gone() {
        let mut sessions = Sessions::new(ReactorId(0));
        let (first, second) = (come(&mut sessions), come(&mut sessions));
        for _ in 0..10_000 {
            let passing = come(&mut sessions);
            sessions.remove(passing);
            assert!(sessions.awaited.len() <= 2 * sessions.len() + AWAITED_SPARE + 1, "outdated entries are bounded");
            assert_eq!(sessions.oldest_awaited(), Some(first));
        }
        sessions.remove(first);
        assert_eq!(sessions.oldest_awaited(), Some(second));
        sessions.terminate(second, Terminating::Released);
        assert_eq!(sessions.oldest_awaited(), None);
    }
}
