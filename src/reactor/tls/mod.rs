//! TLS over another driver: a worker above sees plain bytes, the driver below sees records.
//!
//! ```text
//!   worker    send ──► seal: one record ──► inner send          Received(plain) ◄── open ◄── Received(records)
//!                       │ what it owes goes in front                                  │ handshakes, tickets, alerts
//!                       └─ not all taken: the rest is owed            owed ◄──────────┘ sent before the next wait
//! ```
//!
//! A record cannot be taken back once it is begun, and its bytes cannot be sealed again. So where the socket takes only
//! a part of it, the rest is *owed*, and the worker is told that all but the last byte was taken. It keeps that byte as
//! it keeps every rest, at the front and unbreakable, and waits, ages and is accounted for as ever; when it sends that
//! byte again, the layer knows that it is in the record. A stalled connection so costs one record beyond its outbox, which
//! [`Driver::held_bytes`] tells.
//!
//! A handshake's signature takes as long as a hundred sends. A turn takes `limits::TLS_HANDSHAKES_PER_TURN` steps of
//! handshakes; other clients' bytes are kept, within `limits::TLS_HANDSHAKE_BYTES_MAX`, for the next turns.
//!
//! Where no listener speaks TLS the layer costs a comparison.

mod queued;
mod receiving;
mod sending;

use std::collections::VecDeque;
use std::io::{self, IoSlice};

use queued::{Queued, Records};

use super::driver::{Accepted, Completion, Detach, Driver, Release, Sent, Shortfall, SlotKey};
use crate::limits::TLS_HANDSHAKES_PER_TURN;
use crate::metrics::TlsCounts;
use crate::tls::{Acceptor, ClientName, Layer, Secured, Stream};

/// Received bytes, lent: the inner driver's, or opened ones.
#[derive(Debug)]
pub enum Buffer<B> {
    /// Without TLS.
    Lent(B),
    /// What records held.
    Opened(Vec<u8>),
}

impl<B: AsMut<[u8]>> AsMut<[u8]> for Buffer<B> {
    #[inline]
    fn as_mut(&mut self) -> &mut [u8] {
        match self {
            Buffer::Lent(bytes) => bytes.as_mut(),
            Buffer::Opened(bytes) => bytes,
        }
    }
}

/// A slot whose socket speaks TLS. All of it is what the connection is.
#[derive(Debug)]
struct SecuredSlot {
    generation: u32,
    secured: Box<Secured>,
    /// The socket took less than it was given, and has not told since that it takes more.
    is_blocked: bool,
    /// The first byte that the worker sends next is in a record already, which is owed.
    is_first_byte_sealed: bool,
    /// It stands among those whose handshake waits for a turn.
    is_waiting: bool,
    /// It stands among those that owe something.
    is_owing: bool,
    /// No more will be sent once nothing is owed.
    is_finishing: bool,
    /// The worker takes no bytes of it.
    is_paused: bool,
    /// It is to be released or detached, and the inner driver has something of it under way: nothing is sent any more.
    is_going: bool,
    /// Whether its handshake was counted.
    is_counted: bool,
    input: Input,
}

/// Whether something more comes from a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Input {
    Open,
    /// The peer has ended its side, or broken it behind its handshake: the worker is told when it has had the bytes before
    /// that, and takes more.
    Ending,
    /// The handshake failed. The peer is told why, and ends the connection, or its time does.
    Refused,
    /// The worker was told.
    Ended,
}

impl SecuredSlot {
    fn held_bytes(&self) -> usize {
        self.secured.owed.capacity() + self.secured.session.partial_bytes()
    }
}

/// See the module's documentation.
pub struct Tls<D: Driver> {
    inner: D,
    /// By listener; `None` where it speaks no TLS.
    acceptors: Vec<Option<Acceptor>>,
    slots: Vec<Option<Box<SecuredSlot>>>,
    /// Opened bytes; empty while they are lent.
    opened: Vec<u8>,
    records: Records,
    queued: Vec<Queued>,
    /// Told before anything of the inner driver.
    ready: VecDeque<Told<D>>,
    /// Handshakes that go on in the next turn. An entry may be outdated.
    waiting: VecDeque<SlotKey>,
    handshakes_left: usize,
    /// Connections that owe something. An entry may be outdated.
    owing: Vec<SlotKey>,
    /// Connections whose end is told in the next turn: the one of the bytes before it may use them first.
    ending: Vec<SlotKey>,
    reading: bool,
    held_bytes: usize,
    counts: TlsCounts,
}

impl<D: Driver> Tls<D> {
    /// TLS over `inner`, for the listeners that have an acceptor.
    pub fn new(inner: D, acceptors: Vec<Option<Acceptor>>) -> Tls<D> {
        Tls {
            inner,
            acceptors,
            slots: Vec::new(),
            opened: Vec::new(),
            records: Records::default(),
            queued: Vec::new(),
            ready: VecDeque::new(),
            waiting: VecDeque::new(),
            handshakes_left: TLS_HANDSHAKES_PER_TURN,
            owing: Vec::new(),
            ending: Vec::new(),
            reading: true,
            held_bytes: 0,
            counts: TlsCounts::default(),
        }
    }

    #[inline]
    fn get_mut(&mut self, slot: SlotKey) -> Option<&mut SecuredSlot> {
        let found = self.slots.get_mut(slot.index())?.as_deref_mut()?;
        (found.generation == slot.generation()).then_some(found)
    }

    fn get(&self, slot: SlotKey) -> Option<&SecuredSlot> {
        let found = self.slots.get(slot.index())?.as_deref()?;
        (found.generation == slot.generation()).then_some(found)
    }

    /// Does something to a slot that may change what it holds.
    fn change<T>(&mut self, slot: SlotKey, change: impl FnOnce(&mut SecuredSlot) -> T) -> Option<T> {
        let found = self.get_mut(slot)?;
        let before = found.held_bytes();
        let outcome = change(found);
        let after = found.held_bytes();
        self.held_bytes = self.held_bytes + after - before;
        Some(outcome)
    }

    fn forget(&mut self, slot: SlotKey) -> Option<Box<SecuredSlot>> {
        let held_bytes = self.get_mut(slot)?.held_bytes();
        self.held_bytes -= held_bytes;
        self.counts.sessions -= 1;
        self.slots[slot.index()].take()
    }

    fn accepted(&self, accepted: Accepted<D::Stream>) -> Accepted<Stream<D::Stream>> {
        let Accepted { stream: socket, listener, remote } = accepted;
        let acceptor = self.acceptors.get(usize::from(listener.0)).and_then(Option::as_ref);
        let layer = acceptor.map_or(Layer::Plain, |acceptor| Layer::Wanted(acceptor.get()));
        Accepted { stream: Stream { socket, layer }, listener, remote }
    }

    fn go(&mut self, slot: SlotKey) {
        if let Some(found) = self.get_mut(slot) {
            found.is_going = true;
        }
    }

    fn detached(&mut self, slot: SlotKey, socket: D::Stream) -> Stream<D::Stream> {
        let layer = self.forget(slot).map_or(Layer::Plain, |found| Layer::Open(found.secured));
        Stream { socket, layer }
    }
}

/// What a worker above this driver is told.
type Told<D> = Completion<Stream<<D as Driver>::Stream>, Buffer<<D as Driver>::Buffer>>;

type Received<D> = Option<Told<D>>;

impl<D: Driver> Driver for Tls<D> {
    type Stream = Stream<D::Stream>;
    type Buffer = Buffer<D::Buffer>;

    const RECHECKS: bool = D::RECHECKS;

    fn wait(&mut self, timeout_ms: Option<u64>) -> io::Result<()> {
        self.send_owed();
        self.tell_ends();
        self.records.shrink();
        let has_more = !self.ready.is_empty() || (self.reading && !self.waiting.is_empty());
        self.inner.wait(if has_more { Some(0) } else { timeout_ms })?;
        self.handshakes_left = TLS_HANDSHAKES_PER_TURN;
        Ok(())
    }

    fn next(&mut self) -> Option<Completion<Self::Stream, Self::Buffer>> {
        if let Some(completion) = self.ready.pop_front() {
            return Some(completion);
        }
        loop {
            if let Some(completion) = self.next_waiting() {
                return Some(completion);
            }
            let completion = match self.inner.next()? {
                Completion::Accepted(accepted) => Some(Completion::Accepted(self.accepted(accepted))),
                Completion::Received(slot, buffer) => self.received(slot, buffer),
                Completion::Writable(slot) => {
                    if let Some(found) = self.get_mut(slot) {
                        found.is_blocked = false;
                        self.note_owing(slot);
                    }
                    Some(Completion::Writable(slot))
                }
                Completion::Proxied(slot, client) => Some(Completion::Proxied(slot, client)),
                Completion::NotProxied(slot) => Some(Completion::NotProxied(slot)),
                Completion::Ended(slot) => Some(Completion::Ended(slot)),
                Completion::Detached(slot, socket) => {
                    let stream = self.detached(slot, socket);
                    Some(Completion::Detached(slot, stream))
                }
                Completion::Released(slot) => {
                    self.forget(slot);
                    Some(Completion::Released(slot))
                }
            };
            if completion.is_some() {
                return completion;
            }
        }
    }

    fn give_back(&mut self, buffer: Self::Buffer) {
        match buffer {
            Buffer::Lent(buffer) => self.inner.give_back(buffer),
            Buffer::Opened(opened) => self.opened = opened,
        }
    }

    fn attach(&mut self, slot: SlotKey, stream: Self::Stream) -> io::Result<()> {
        let Stream { socket, layer } = stream;
        let secured = layer.into_secured().map_err(io::Error::other)?;
        self.inner.attach(slot, socket)?;
        let Some(secured) = secured else { return Ok(()) };
        if slot.index() >= self.slots.len() {
            self.slots.resize_with(slot.index() + 1, || None);
        }
        let found = SecuredSlot {
            generation: slot.generation(),
            is_counted: secured.session.is_resumed().is_some(),
            secured,
            is_blocked: false,
            is_first_byte_sealed: false,
            is_waiting: false,
            is_owing: false,
            is_finishing: false,
            is_paused: false,
            is_going: false,
            input: Input::Open,
        };
        self.held_bytes += found.held_bytes();
        self.counts.sessions += 1;
        self.slots[slot.index()] = Some(Box::new(found));
        self.note_owing(slot);
        Ok(())
    }

    #[inline]
    fn send(&mut self, slot: SlotKey, bytes: &[u8]) -> Sent {
        match self.slots.is_empty() {
            true => self.inner.send(slot, bytes),
            false => self.send_by_slot(slot, bytes),
        }
    }

    fn send_slices(&mut self, slot: SlotKey, slices: &[IoSlice<'_>]) -> Sent {
        match self.get_mut(slot) {
            None => self.inner.send_slices(slot, slices),
            Some(_) => self.seal_and_send(slot, slices.iter().map(|slice| &**slice)),
        }
    }

    fn recheck(&mut self, slot: SlotKey, slices: &[IoSlice<'_>]) {
        match self.queued.iter().find(|queued| queued.slot == slot) {
            Some(queued) => self.inner.recheck(slot, &[IoSlice::new(&queued.record)]),
            None => self.inner.recheck(slot, slices),
        }
    }

    fn submit(&mut self) {
        self.inner.submit();
        self.queued.sort_unstable_by_key(|queued| queued.slot);
    }

    fn next_shortfall(&mut self) -> Option<(SlotKey, Shortfall)> {
        match self.inner.next_shortfall() {
            Some((slot, shortfall)) => Some(self.shortfall(slot, shortfall)),
            None => self.next_unsealed(),
        }
    }

    fn finish(&mut self, slot: SlotKey) {
        let is_secured = self.change(slot, |found| {
            let Secured { session, owed } = &mut *found.secured;
            session.close(owed);
            found.is_finishing = true;
        });
        match is_secured {
            Some(()) => self.note_owing(slot),
            None => self.inner.finish(slot),
        }
    }

    fn release(&mut self, slot: SlotKey) -> Release {
        let is_open = self.change(slot, |found| {
            let Secured { session, owed } = &mut *found.secured;
            if !found.is_blocked && found.input != Input::Refused {
                session.close(owed);
            }
            found.is_finishing = false;
        });
        if is_open.is_some() {
            self.note_owing(slot);
            self.send_owed();
        }
        let release = self.inner.release(slot);
        match release {
            Release::Done => drop(self.forget(slot)),
            Release::Later => self.go(slot),
        }
        release
    }

    fn detach(&mut self, slot: SlotKey) -> Detach<Self::Stream> {
        match self.inner.detach(slot) {
            Detach::Done(socket) => Detach::Done(self.detached(slot, socket)),
            Detach::Later => {
                self.go(slot);
                Detach::Later
            }
            Detach::Lost => {
                self.forget(slot);
                Detach::Lost
            }
        }
    }

    fn bound_unsent(&mut self, slot: SlotKey) {
        self.inner.bound_unsent(slot);
    }

    fn set_reading(&mut self, reading: bool) {
        self.reading = reading;
        self.inner.set_reading(reading);
    }

    fn pause(&mut self, slot: SlotKey) {
        if let Some(found) = self.get_mut(slot) {
            found.is_paused = true;
        }
        self.inner.pause(slot);
    }

    fn resume(&mut self, slot: SlotKey) {
        if let Some(found) = self.get_mut(slot) {
            found.is_paused = false;
            if found.input == Input::Ending {
                self.ending.push(slot);
            }
        }
        self.inner.resume(slot);
    }

    fn stop_accepting(&mut self) {
        self.inner.stop_accepting();
    }

    fn held_bytes(&self) -> usize {
        self.held_bytes + self.inner.held_bytes()
    }

    fn held_in(&self, slot: SlotKey) -> usize {
        self.get(slot).map_or(0, SecuredSlot::held_bytes) + self.inner.held_in(slot)
    }

    fn is_ahead(&self, slot: SlotKey) -> bool {
        self.get(slot).is_some_and(|found| found.is_first_byte_sealed)
    }

    fn client_name(&self, slot: SlotKey) -> ClientName {
        self.get(slot).map_or(ClientName::NotShown, |found| found.secured.session.client_name())
    }

    fn tls_counts(&self) -> TlsCounts {
        self.counts
    }

    fn clock_ns(&self) -> u64 {
        self.inner.clock_ns()
    }

    fn unix_ms(&self) -> u64 {
        self.inner.unix_ms()
    }
}

#[cfg(test)]
mod tests;
