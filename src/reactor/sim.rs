//! The simulated driver: several reactors in one thread, under a seed.
//!
//! A [`World`] holds the network, the clock and the dice. Everything that a real machine leaves to chance is a throw
//! of its dice: how many bytes a read gets, how many a send takes, when a wake arrives, how long a listener keeps a
//! client waiting. The same seed throws the same. Time passes only when the world is told so.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::io::{self, IoSlice};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::driver::{Completion, Driver, Sent, Token};
use super::mailbox::Wake;
use crate::time::Millis;

/// One client's connection in the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Client(usize);

/// The dice and the size of everything.
#[derive(Clone, Copy, Debug)]
pub struct WorldSettings {
    /// Throws the dice.
    pub seed: u64,
    /// Bytes a socket holds for a client that does not read.
    pub socket_bytes_max: usize,
    /// Most bytes one read gets.
    pub read_bytes_max: usize,
    /// Most bytes one send takes.
    pub send_bytes_max: usize,
}

/// See the module's documentation. Clones are the same world.
#[derive(Clone)]
pub struct World(Rc<RefCell<Inner>>);

struct Inner {
    settings: WorldSettings,
    random: fastrand::Rng,
    now: Millis,
    wires: Vec<Wire>,
    /// Clients each reactor has not accepted yet.
    backlogs: Vec<VecDeque<usize>>,
    accepting: Vec<bool>,
    /// Which wire is in which slot of which reactor.
    slots: Vec<BTreeMap<u32, (u32, usize)>>,
}

/// The two directions between a client and its reactor.
#[derive(Debug, Default)]
struct Wire {
    to_server: VecDeque<u8>,
    to_client: VecDeque<u8>,
    client_closed: bool,
    server_finished: bool,
    server_closed: bool,
    /// The server was told of the end.
    end_told: bool,
    /// A send took less than it was given.
    blocked: bool,
}

impl World {
    /// A world for so many reactors.
    pub fn new(reactors: usize, settings: WorldSettings) -> World {
        World(Rc::new(RefCell::new(Inner {
            settings,
            random: fastrand::Rng::with_seed(settings.seed),
            now: Millis(1),
            wires: Vec::new(),
            backlogs: vec![VecDeque::new(); reactors],
            accepting: vec![true; reactors],
            slots: vec![BTreeMap::new(); reactors],
        })))
    }

    /// The driver of one reactor.
    pub fn driver(&self, reactor: usize) -> SimDriver {
        SimDriver { world: self.clone(), reactor, reading: true, ready: VecDeque::new() }
    }

    /// A client connects to a reactor; it is accepted in one of its turns.
    pub fn connect(&self, reactor: usize) -> Client {
        let mut inner = self.0.borrow_mut();
        inner.wires.push(Wire::default());
        let client = inner.wires.len() - 1;
        inner.backlogs[reactor].push_back(client);
        Client(client)
    }

    /// The client sends bytes.
    pub fn send(&self, client: Client, bytes: &[u8]) {
        self.0.borrow_mut().wires[client.0].to_server.extend(bytes);
    }

    /// The client reads at most `bytes_max` of what has come.
    pub fn receive(&self, client: Client, bytes_max: usize) -> Vec<u8> {
        let mut inner = self.0.borrow_mut();
        let wire = &mut inner.wires[client.0];
        let bytes = wire.to_client.len().min(bytes_max);
        wire.to_client.drain(..bytes).collect()
    }

    /// The client is gone without a word.
    pub fn close(&self, client: Client) {
        self.0.borrow_mut().wires[client.0].client_closed = true;
    }

    /// Whether the server has ended its side and the client has read everything.
    pub fn is_over(&self, client: Client) -> bool {
        let inner = self.0.borrow();
        let wire = &inner.wires[client.0];
        (wire.server_closed || wire.server_finished) && wire.to_client.is_empty()
    }

    /// Bytes on the way to the server that it has not read.
    pub fn unread(&self, client: Client) -> usize {
        self.0.borrow().wires[client.0].to_server.len()
    }

    /// Lets time pass.
    pub fn pass(&self, ms: u64) {
        let mut inner = self.0.borrow_mut();
        inner.now = inner.now.saturating_add(ms);
    }

    /// A throw of the world's dice: below `end`.
    pub fn throw(&self, end: usize) -> usize {
        self.0.borrow_mut().random.usize(0..end)
    }
}

/// A wake in the world: a flag the scheduler sees when it likes.
#[derive(Debug, Default)]
pub struct SimWaker(AtomicBool);

impl SimWaker {
    /// Whether a wake was written since the last call.
    pub fn take(&self) -> bool {
        self.0.swap(false, Ordering::Relaxed)
    }
}

impl Wake for SimWaker {
    fn wake(&self) {
        assert!(!self.0.swap(true, Ordering::Relaxed), "one wake a sleep");
    }
}

/// Makes wakers for a post office.
pub fn wakers(reactors: usize) -> (Vec<Arc<SimWaker>>, Vec<Arc<dyn Wake>>) {
    let mine: Vec<Arc<SimWaker>> = (0..reactors).map(|_| Arc::new(SimWaker::default())).collect();
    let theirs = mine.iter().map(|waker| waker.clone() as Arc<dyn Wake>).collect();
    (mine, theirs)
}

/// One reactor's driver in a [`World`].
pub struct SimDriver {
    world: World,
    reactor: usize,
    reading: bool,
    /// What is looked at in this turn, in an order the dice chose.
    ready: VecDeque<Look>,
}

#[derive(Clone, Copy, Debug)]
enum Look {
    Accept,
    Socket(u32),
}

impl SimDriver {
    fn look(&mut self, look: Look, buffer: &mut [u8]) -> Option<Completion<usize>> {
        let inner = &mut *self.world.0.borrow_mut();
        match look {
            Look::Accept => {
                let client = match inner.accepting[self.reactor] {
                    true => inner.backlogs[self.reactor].pop_front()?,
                    false => return None,
                };
                Some(Completion::Accepted(client))
            }
            Look::Socket(slot) => {
                let (generation, wire) = *inner.slots[self.reactor].get(&slot)?;
                let wire = &mut inner.wires[wire];
                let token = Token { slot, generation };
                if wire.blocked && wire.to_client.len() < inner.settings.socket_bytes_max {
                    wire.blocked = false;
                    return Some(Completion::Writable(token));
                }
                if !self.reading {
                    return None;
                }
                if !wire.to_server.is_empty() {
                    let most = wire.to_server.len().min(inner.settings.read_bytes_max).min(buffer.len());
                    let got = inner.random.usize(1..=most);
                    buffer.iter_mut().zip(wire.to_server.drain(..got)).for_each(|(to, byte)| *to = byte);
                    return Some(Completion::Received(token, got));
                }
                (wire.client_closed && !std::mem::replace(&mut wire.end_told, true)).then_some(Completion::Ended(token))
            }
        }
    }
}

impl Driver for SimDriver {
    type Stream = usize;

    fn wait(&mut self, _timeout_ms: Option<u64>) -> io::Result<()> {
        let inner = &mut *self.world.0.borrow_mut();
        let sockets = inner.slots[self.reactor].keys().map(|&slot| Look::Socket(slot));
        let accepts = inner.backlogs[self.reactor].iter().map(|_| Look::Accept);
        let mut looks: Vec<Look> = sockets.chain(accepts).collect();
        inner.random.shuffle(&mut looks);
        // Not everything that is ready is told in the same turn.
        let told = if looks.is_empty() { 0 } else { inner.random.usize(1..=looks.len()) };
        self.ready.extend(&looks[..told]);
        Ok(())
    }

    fn next(&mut self, buffer: &mut [u8]) -> Option<Completion<usize>> {
        while let Some(look) = self.ready.pop_front() {
            if let Some(completion) = self.look(look, buffer) {
                return Some(completion);
            }
        }
        None
    }

    fn attach(&mut self, token: Token, stream: usize) -> io::Result<()> {
        let mut inner = self.world.0.borrow_mut();
        let before = inner.slots[self.reactor].insert(token.slot, (token.generation, stream));
        assert!(before.is_none(), "a slot is free before it is taken");
        Ok(())
    }

    fn send(&mut self, slot: u32, bytes: &[u8]) -> Sent {
        self.send_slices(slot, &[IoSlice::new(bytes)])
    }

    fn send_slices(&mut self, slot: u32, slices: &[IoSlice<'_>]) -> Sent {
        let inner = &mut *self.world.0.borrow_mut();
        let Some((_, wire)) = inner.slots[self.reactor].get(&slot) else { return Sent::Broken };
        let wire = &mut inner.wires[*wire];
        assert!(!wire.server_finished && !wire.blocked, "nothing is sent after the end, or to a full socket");
        if wire.client_closed {
            return Sent::Broken;
        }
        let given: usize = slices.iter().map(|slice| slice.len()).sum();
        let room = inner.settings.socket_bytes_max.saturating_sub(wire.to_client.len());
        let most = given.min(room).min(inner.settings.send_bytes_max);
        let taken = if inner.random.bool() { most } else { inner.random.usize(0..=most) };
        wire.to_client.extend(slices.iter().flat_map(|slice| slice.iter()).take(taken));
        wire.blocked = taken < given;
        Sent::Took(taken)
    }

    fn finish(&mut self, slot: u32) {
        let inner = &mut *self.world.0.borrow_mut();
        if let Some((_, wire)) = inner.slots[self.reactor].get(&slot) {
            inner.wires[*wire].server_finished = true;
        }
    }

    fn release(&mut self, slot: u32) {
        let inner = &mut *self.world.0.borrow_mut();
        if let Some((_, wire)) = inner.slots[self.reactor].remove(&slot) {
            inner.wires[wire].server_closed = true;
        }
    }

    fn detach(&mut self, slot: u32) -> Option<usize> {
        self.world.0.borrow_mut().slots[self.reactor].remove(&slot).map(|(_, wire)| wire)
    }

    fn refuse(&mut self, stream: usize, response: &[u8]) {
        let wire = &mut self.world.0.borrow_mut().wires[stream];
        wire.to_client.extend(response);
        wire.server_closed = true;
    }

    fn set_reading(&mut self, reading: bool) {
        self.reading = reading;
    }

    fn stop_accepting(&mut self) {
        let inner = &mut *self.world.0.borrow_mut();
        inner.accepting[self.reactor] = false;
        for wire in inner.backlogs[self.reactor].drain(..) {
            inner.wires[wire].server_closed = true;
        }
    }

    fn now(&self) -> Millis {
        self.world.0.borrow().now
    }

    fn unix_ms(&self) -> u64 {
        1_700_000_000_000 + self.world.0.borrow().now.0
    }
}
