//! One reactor's driver in a [`World`].

use std::collections::{BTreeSet, VecDeque};
use std::io::{self, IoSlice, Read};
use std::net::{Ipv4Addr, SocketAddr};

use super::{Client, GivenTo, Hold, Reads, Socket, World};
use crate::limits::READ_BYTES;
use crate::reactor::driver::{
    Accepted, Completion, Detach, Driver, ListenerId, Release, RemoteAddr, Sent, Shortfall, SlotKey,
};

/// Unix time, in milliseconds, at which the world's clock began.
const UNIX_MS_BEGIN: u64 = 1_700_000_000_000;

/// Looks for which something of a socket that was given up may be under way.
const LOOKS_MAX: usize = 4;

/// One reactor's driver in a [`World`]. It answers at once or later as the dice say, and panics where the worker breaks
/// the contract: where queued bytes have moved, changed or are not told of when they are submitted, where a slot is used
/// with a send under way or after it was given up, where a lent buffer is not given back.
pub struct SimDriver {
    world: World,
    reactor: usize,
    /// What is looked at in this turn, in an order the dice chose.
    ready: VecDeque<Look>,
    queued: Vec<Queued>,
    shortfalls: Vec<(SlotKey, Shortfall)>,
    /// Numbers of the buffers that the worker has.
    lent: BTreeSet<u64>,
    lent_ever: u64,
}

#[derive(Clone, Copy, Debug)]
enum Look {
    Accept,
    Socket(u32),
}

/// A send that waits to be submitted.
struct Queued {
    slot: SlotKey,
    /// Where each part of it is, and a copy.
    parts: Vec<(usize, Vec<u8>)>,
    is_rechecked: bool,
}

/// Received bytes, lent.
#[derive(Debug)]
pub struct LentBuffer {
    number: u64,
    bytes: Vec<u8>,
}

impl AsMut<[u8]> for LentBuffer {
    fn as_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }
}

impl SimDriver {
    pub(super) fn new(world: World, reactor: usize) -> SimDriver {
        SimDriver {
            world,
            reactor,
            ready: VecDeque::new(),
            queued: Vec::new(),
            shortfalls: Vec::new(),
            lent: BTreeSet::new(),
            lent_ever: 0,
        }
    }

    fn look(&mut self, look: Look) -> Option<Completion<Client, LentBuffer>> {
        match look {
            Look::Accept => {
                let client = self.world.0.borrow_mut().doors[self.reactor].backlog.pop_front()?;
                // The ways in take turns: a TCP port and a Unix socket.
                let (listener, remote) = match client.0 % 2 {
                    0 => (0, RemoteAddr::Tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, client.0 as u16)))),
                    _ => (1, RemoteAddr::Unix),
                };
                Some(Completion::Accepted(Accepted { stream: client, listener: ListenerId(listener), remote }))
            }
            Look::Socket(slot) => {
                let socket = *self.world.0.borrow().doors[self.reactor].slots.get(&slot)?;
                let key = SlotKey::new(slot, socket.generation);
                match socket.hold {
                    Hold::Open => self.look_at_open(key, socket.client),
                    Hold::GivenUp { to, looks_left } => self.look_at_given_up(key, socket.client, to, looks_left),
                }
            }
        }
    }

    fn look_at_open(&mut self, slot: SlotKey, client: Client) -> Option<Completion<Client, LentBuffer>> {
        let inner = &mut *self.world.0.borrow_mut();
        let wire = &mut inner.wires[client.0];
        if wire.blocked && wire.has_room() {
            wire.blocked = false;
            return Some(Completion::Writable(slot));
        }
        let reads = inner.doors[self.reactor].reads(slot.slot());
        if reads == Reads::Nothing {
            return None;
        }
        if reads == Reads::All && !wire.to_server.is_empty() {
            let most = wire.to_server.len().min(wire.link.read_bytes_max).min(READ_BYTES);
            let mut bytes = vec![0; inner.random.usize(1..=most)];
            wire.to_server.read_exact(&mut bytes).expect("so many bytes are there");
            wire.heard_at = inner.now;
            return Some(Completion::Received(slot, lend(&mut self.lent, &mut self.lent_ever, bytes)));
        }
        (wire.client_closed && !std::mem::replace(&mut wire.end_told, true)).then_some(Completion::Ended(slot))
    }

    /// The slot is free in the end. Before that, what was under way may come: it is told even where it is nothing new.
    fn look_at_given_up(
        &mut self,
        slot: SlotKey,
        client: Client,
        to: GivenTo,
        looks_left: usize,
    ) -> Option<Completion<Client, LentBuffer>> {
        let inner = &mut *self.world.0.borrow_mut();
        let door = &mut inner.doors[self.reactor];
        let wire = &mut inner.wires[client.0];
        if looks_left == 0 {
            door.slots.remove(&slot.slot());
            return Some(match to {
                GivenTo::Closing => {
                    wire.end(inner.now);
                    inner.answers.released += 1;
                    Completion::Released(slot)
                }
                GivenTo::Http => {
                    inner.answers.detached += 1;
                    Completion::Detached(slot, client)
                }
            });
        }
        if let Some(Socket { hold, .. }) = door.slots.get_mut(&slot.slot()) {
            *hold = Hold::GivenUp { to, looks_left: looks_left - 1 };
        }
        let late = match inner.random.usize(0..4) {
            0 if !wire.to_server.is_empty() => {
                let most = wire.to_server.len().min(wire.link.read_bytes_max).min(READ_BYTES);
                let mut bytes = vec![0; inner.random.usize(1..=most)];
                wire.to_server.read_exact(&mut bytes).expect("so many bytes are there");
                Some(Completion::Received(slot, lend(&mut self.lent, &mut self.lent_ever, bytes)))
            }
            1 => Some(Completion::Writable(slot)),
            2 => Some(Completion::Ended(slot)),
            _ => None,
        };
        inner.answers.late += u64::from(late.is_some());
        late
    }

    fn assert_idle(&self, slot: SlotKey) {
        assert!(self.queued.iter().all(|send| send.slot != slot), "{slot:?} has a send under way");
    }

    /// Gives up a socket: at once, or as late as the dice say. Its client, where it was at once.
    fn give_up(&mut self, slot: SlotKey, to: GivenTo) -> Option<Client> {
        self.assert_idle(slot);
        let inner = &mut *self.world.0.borrow_mut();
        let door = &mut inner.doors[self.reactor];
        let socket = door.slots.get_mut(&slot.slot()).expect("a slot that is given up is taken");
        assert_eq!((socket.generation, socket.hold), (slot.generation(), Hold::Open), "{slot:?} is given up once");
        let client = socket.client;
        if inner.habit.defers(&mut inner.random) {
            socket.hold = Hold::GivenUp { to, looks_left: inner.random.usize(0..=LOOKS_MAX) };
            return None;
        }
        door.slots.remove(&slot.slot());
        Some(client)
    }
}

/// Lends bytes to the worker.
fn lend(lent: &mut BTreeSet<u64>, lent_ever: &mut u64, bytes: Vec<u8>) -> LentBuffer {
    *lent_ever += 1;
    lent.insert(*lent_ever);
    LentBuffer { number: *lent_ever, bytes }
}

impl Driver for SimDriver {
    type Stream = Client;
    type Buffer = LentBuffer;

    const RECHECKS: bool = true;

    fn wait(&mut self, _timeout_ms: Option<u64>) -> io::Result<()> {
        assert!(self.lent.is_empty(), "what was lent is given back before a wait");
        assert!(self.queued.is_empty() && self.shortfalls.is_empty(), "a flush is over before a wait");
        let inner = &mut *self.world.0.borrow_mut();
        let door = &inner.doors[self.reactor];
        let sockets = door.slots.keys().map(|&slot| Look::Socket(slot));
        let accepts = door.backlog.iter().map(|_| Look::Accept);
        let mut looks: Vec<Look> = sockets.chain(accepts).collect();
        inner.random.shuffle(&mut looks);
        // Not everything that is ready is told in the same turn.
        let told = if looks.is_empty() { 0 } else { inner.random.usize(1..=looks.len()) };
        self.ready.extend(&looks[..told]);
        Ok(())
    }

    fn next(&mut self) -> Option<Completion<Client, LentBuffer>> {
        assert!(self.queued.is_empty() && self.shortfalls.is_empty(), "a flush is over before the next completion");
        while let Some(look) = self.ready.pop_front() {
            if let Some(completion) = self.look(look) {
                return Some(completion);
            }
        }
        None
    }

    fn give_back(&mut self, buffer: LentBuffer) {
        assert!(self.lent.remove(&buffer.number), "only what was lent is given back");
    }

    fn attach(&mut self, slot: SlotKey, stream: Client) -> io::Result<()> {
        let mut inner = self.world.0.borrow_mut();
        let door = &mut inner.doors[self.reactor];
        door.paused.remove(&slot.slot());
        let socket = Socket { generation: slot.generation(), client: stream, hold: Hold::Open };
        let before = door.slots.insert(slot.slot(), socket);
        assert!(before.is_none(), "a slot is free before it is taken");
        Ok(())
    }

    fn send(&mut self, slot: SlotKey, bytes: &[u8]) -> Sent {
        self.send_slices(slot, &[IoSlice::new(bytes)])
    }

    fn send_slices(&mut self, slot: SlotKey, slices: &[IoSlice<'_>]) -> Sent {
        self.assert_idle(slot);
        assert!(self.shortfalls.is_empty(), "all outcomes are taken before anything is sent again");
        let inner = &mut *self.world.0.borrow_mut();
        let socket = inner.doors[self.reactor].slots.get(&slot.slot()).expect("a slot that is sent to is taken");
        assert_eq!((socket.generation, socket.hold), (slot.generation(), Hold::Open), "nothing is sent to who is gone");
        let wire = &mut inner.wires[socket.client.0];
        assert!(wire.ending.is_none() && !wire.blocked, "nothing is sent after the end, or to a full socket");
        let given: usize = slices.iter().map(|slice| slice.len()).sum();
        assert!(given > 0, "there is something to send");
        if inner.habit.defers(&mut inner.random) {
            let parts = slices.iter().map(|slice| (slice.as_ptr().addr(), slice.to_vec())).collect();
            self.queued.push(Queued { slot, parts, is_rechecked: false });
            return Sent::Queued;
        }
        if wire.client_closed {
            return Sent::Broken;
        }
        let parts = slices.iter().map(|slice| &**slice);
        Sent::Took(wire.take(parts, given, inner.now, &mut inner.random))
    }

    fn recheck(&mut self, slot: SlotKey, slices: &[IoSlice<'_>]) {
        let send = self.queued.iter_mut().find(|send| send.slot == slot).expect("what is under way was queued");
        let now = slices.iter().map(|slice| (slice.as_ptr().addr(), &**slice));
        assert!(
            now.eq(send.parts.iter().map(|(at, bytes)| (*at, &**bytes))),
            "the bytes of a queued send stay where and as they are"
        );
        send.is_rechecked = true;
    }

    fn submit(&mut self) {
        let inner = &mut *self.world.0.borrow_mut();
        for Queued { slot, parts, is_rechecked } in self.queued.drain(..) {
            assert!(is_rechecked, "the worker knows of all that is under way");
            let Socket { client, .. } = inner.doors[self.reactor].slots[&slot.slot()];
            let wire = &mut inner.wires[client.0];
            if wire.client_closed {
                inner.answers.broken += 1;
                self.shortfalls.push((slot, Shortfall::Broken));
                continue;
            }
            let given = parts.iter().map(|(_, bytes)| bytes.len()).sum();
            let taken = wire.take(parts.iter().map(|(_, bytes)| &**bytes), given, inner.now, &mut inner.random);
            match taken < given {
                true => {
                    inner.answers.short += 1;
                    self.shortfalls.push((slot, Shortfall::Took(taken)));
                }
                false => inner.answers.whole += 1,
            }
        }
        inner.random.shuffle(&mut self.shortfalls);
    }

    fn next_shortfall(&mut self) -> Option<(SlotKey, Shortfall)> {
        self.shortfalls.pop()
    }

    fn finish(&mut self, slot: SlotKey) {
        self.assert_idle(slot);
        let inner = &mut *self.world.0.borrow_mut();
        if let Some(socket) = inner.doors[self.reactor].slots.get(&slot.slot()) {
            inner.wires[socket.client.0].end(inner.now);
        }
    }

    fn release(&mut self, slot: SlotKey) -> Release {
        match self.give_up(slot, GivenTo::Closing) {
            Some(client) => {
                let inner = &mut *self.world.0.borrow_mut();
                inner.wires[client.0].end(inner.now);
                Release::Done
            }
            None => Release::Later,
        }
    }

    fn detach(&mut self, slot: SlotKey) -> Detach<Client> {
        self.give_up(slot, GivenTo::Http).map_or(Detach::Later, Detach::Done)
    }

    fn bound_unsent(&mut self, slot: SlotKey) {
        self.assert_idle(slot);
        let inner = self.world.0.borrow();
        let socket = inner.doors[self.reactor].slots.get(&slot.slot()).expect("a slot that is bounded is taken");
        assert_eq!((socket.generation, socket.hold), (slot.generation(), Hold::Open), "who is gone is not bounded");
    }

    fn set_reading(&mut self, reading: bool) {
        self.world.0.borrow_mut().doors[self.reactor].reading = reading;
    }

    fn pause(&mut self, slot: SlotKey) {
        self.world.0.borrow_mut().doors[self.reactor].paused.insert(slot.slot());
    }

    fn resume(&mut self, slot: SlotKey) {
        self.world.0.borrow_mut().doors[self.reactor].paused.remove(&slot.slot());
    }

    fn stop_accepting(&mut self) {
        let inner = &mut *self.world.0.borrow_mut();
        let door = &mut inner.doors[self.reactor];
        door.accepting = false;
        for client in door.backlog.drain(..) {
            inner.wires[client.0].end(inner.now);
        }
    }

    fn clock_ns(&self) -> u64 {
        self.world.0.borrow().now.0 * 1_000_000
    }

    fn unix_ms(&self) -> u64 {
        UNIX_MS_BEGIN + self.world.0.borrow().now.0
    }
}
