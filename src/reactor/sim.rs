//! The simulated driver: several reactors in one thread, under a seed.
//!
//! A [`World`] holds the network, the clock and the dice. Everything that a real machine leaves to chance is a throw
//! of its dice: how many bytes a read gets, how many a send takes, what a wait tells of at once, how long a listener
//! keeps a client waiting. The same seed throws the same. Time passes only when the world is told so.
//!
//! Nothing blocks here, so sleep is a state the scheduler sees: after each turn [`Worker::rest`] asks the worker how
//! long its next wait would take. One that is [`Rest::Asleep`] needs no turn until its [`SimWaker`] was rung, its
//! time has come or [`World::is_ready`] tells of something from outside. A scheduler that turns it only then finds a
//! lost wake as a node that rests with its work undone.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::{self, IoSlice, Read};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::driver::{Completion, Driver, Sent, Token};
use super::mailbox::{self, Mailbox, PostOffice, Wake};
use super::worker::Worker;
use crate::time::Millis;

/// Unix time, in milliseconds, at which the world's clock began.
const UNIX_MS_BEGIN: u64 = 1_700_000_000_000;

/// One client's connection in the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Client(usize);

/// What the way between a client and its reactor is like.
#[derive(Clone, Copy, Debug)]
pub struct Link {
    /// Bytes the socket holds for a client that does not read.
    pub socket_bytes_max: usize,
    /// Most bytes one read gets.
    pub read_bytes_max: usize,
    /// Most bytes one send takes.
    pub send_bytes_max: usize,
    /// Whether a send may take fewer bytes than there is room for, down to none.
    pub short_writes: bool,
}

/// How the server ended its side of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ending {
    /// When.
    pub at: Millis,
    /// When the server last read something from the client.
    pub heard_at: Millis,
    /// Since when the socket owed a send that took less than it was given, if no later one took everything.
    pub short_since: Option<Millis>,
}

/// See the module's documentation. Clones are the same world.
#[derive(Clone)]
pub struct World(Rc<RefCell<Inner>>);

struct Inner {
    random: fastrand::Rng,
    now: Millis,
    wires: Vec<Wire>,
    doors: Vec<Door>,
}

/// What one reactor sees of the world.
#[derive(Debug)]
struct Door {
    /// Clients not accepted yet.
    backlog: VecDeque<Client>,
    accepting: bool,
    reading: bool,
    /// The generation and the client in each slot.
    slots: BTreeMap<u32, (u32, Client)>,
    /// Slots whose bytes the worker does not take now.
    paused: BTreeSet<u32>,
}

/// What a reactor is told of a socket's input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reads {
    All,
    /// The socket is paused: what broke it is told, and what was not read is lost then.
    Ends,
    Nothing,
}

impl Door {
    fn reads(&self, slot: u32) -> Reads {
        match (self.reading, self.paused.contains(&slot)) {
            (false, _) => Reads::Nothing,
            (true, true) => Reads::Ends,
            (true, false) => Reads::All,
        }
    }
}

/// The two directions between a client and its reactor.
#[derive(Debug)]
struct Wire {
    link: Link,
    to_server: VecDeque<u8>,
    to_client: VecDeque<u8>,
    client_closed: bool,
    /// The server was told of the end.
    end_told: bool,
    heard_at: Millis,
    /// The last send took less than it was given, and the server was not told since that there is room.
    blocked: bool,
    /// Since when no send has taken everything it was given.
    short_since: Option<Millis>,
    /// The server sends nothing more.
    ending: Option<Ending>,
}

impl Wire {
    fn end(&mut self, at: Millis) {
        let Wire { heard_at, short_since, .. } = *self;
        self.ending.get_or_insert(Ending { at, heard_at, short_since });
    }

    fn has_room(&self) -> bool {
        self.to_client.len() < self.link.socket_bytes_max
    }

    /// Whether its reactor would be told something, given what it reads.
    fn is_ready(&self, reads: Reads) -> bool {
        let (bytes, end) = (!self.to_server.is_empty(), self.client_closed && !self.end_told);
        let input = match reads {
            Reads::All => bytes || end,
            Reads::Ends => end,
            Reads::Nothing => false,
        };
        (self.blocked && self.has_room()) || input
    }
}

impl World {
    /// A world for so many reactors; `seed` throws its dice.
    pub fn new(reactors: usize, seed: u64) -> World {
        let door = || Door {
            backlog: VecDeque::new(),
            accepting: true,
            reading: true,
            slots: BTreeMap::new(),
            paused: BTreeSet::new(),
        };
        World(Rc::new(RefCell::new(Inner {
            random: fastrand::Rng::with_seed(seed),
            now: Millis(1),
            wires: Vec::new(),
            doors: std::iter::repeat_with(door).take(reactors).collect(),
        })))
    }

    /// The driver of one reactor.
    pub fn driver(&self, reactor: usize) -> SimDriver {
        SimDriver { world: self.clone(), reactor, ready: VecDeque::new(), question: Question::None }
    }

    /// A client connects to a reactor; it is accepted in one of its turns, or turned away if its listener is closed.
    pub fn connect(&self, reactor: usize, link: Link) -> Client {
        let inner = &mut *self.0.borrow_mut();
        let client = Client(inner.wires.len());
        inner.wires.push(Wire {
            link,
            to_server: VecDeque::new(),
            to_client: VecDeque::new(),
            client_closed: false,
            end_told: false,
            heard_at: inner.now,
            blocked: false,
            short_since: None,
            ending: None,
        });
        match inner.doors[reactor].accepting {
            true => inner.doors[reactor].backlog.push_back(client),
            false => inner.wires[client.0].end(inner.now),
        }
        client
    }

    /// The client sends bytes.
    pub fn send(&self, client: Client, bytes: &[u8]) {
        self.0.borrow_mut().wires[client.0].to_server.extend(bytes);
    }

    /// The client reads at most `bytes_max` of what has come.
    pub fn receive(&self, client: Client, bytes_max: usize) -> Vec<u8> {
        let mut inner = self.0.borrow_mut();
        let wire = &mut inner.wires[client.0];
        let mut bytes = vec![0; wire.to_client.len().min(bytes_max)];
        wire.to_client.read_exact(&mut bytes).expect("so many bytes are there");
        bytes
    }

    /// The client is gone without a word.
    pub fn close(&self, client: Client) {
        self.0.borrow_mut().wires[client.0].client_closed = true;
    }

    /// Whoever a connection was handed to closes it.
    pub fn hang_up(&self, client: Client) {
        let inner = &mut *self.0.borrow_mut();
        inner.wires[client.0].end(inner.now);
    }

    /// How the server ended its side, once the client has read everything.
    pub fn ending(&self, client: Client) -> Option<Ending> {
        let inner = self.0.borrow();
        let wire = &inner.wires[client.0];
        wire.ending.filter(|_| wire.to_client.is_empty())
    }

    /// Bytes that have come for the client.
    pub fn readable(&self, client: Client) -> usize {
        self.0.borrow().wires[client.0].to_client.len()
    }

    /// Whether a reactor's wait would find something from outside.
    pub fn is_ready(&self, reactor: usize) -> bool {
        let inner = self.0.borrow();
        let door = &inner.doors[reactor];
        let mut wires = door.slots.iter().map(|(slot, (_, client))| (slot, &inner.wires[client.0]));
        !door.backlog.is_empty() || wires.any(|(slot, wire)| wire.is_ready(door.reads(*slot)))
    }

    /// Whether a reactor takes bytes from its clients: it does not while mail of it finds no room.
    pub fn is_reading(&self, reactor: usize) -> bool {
        self.0.borrow().doors[reactor].reading
    }

    /// The time on the world's clock.
    pub fn now(&self) -> Millis {
        self.0.borrow().now
    }

    /// Lets time pass.
    pub fn pass(&self, ms: u64) {
        let mut inner = self.0.borrow_mut();
        inner.now = inner.now.saturating_add(ms);
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

/// The mailboxes of a node, one per waker, with room for `parcels_max` parcels each: small ones spill.
pub fn post_office_of(wakers: Vec<Arc<dyn Wake>>, parcels_max: usize) -> (PostOffice, Vec<Mailbox>) {
    mailbox::post_office_of(wakers, parcels_max)
}

/// What a worker would do if it were left alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rest {
    /// Turn again at once.
    Awake,
    /// Sleep until it is woken, something comes from outside, or the time has come.
    Asleep(Option<Millis>),
}

/// Sizes of a worker's tables and queues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inside {
    /// Topics, everyone's included.
    pub topics: usize,
    /// Slots taken, whatever their connections are doing.
    pub connections: usize,
    /// Bytes held for connections: their queues, and their incomplete messages.
    pub held_bytes: u64,
    /// Most bytes that wait for one open connection behind the message being sent.
    pub backlog_bytes: usize,
    /// Most bytes that wait for one open connection and that it caused itself.
    pub own_bytes: usize,
}

impl Worker<SimDriver> {
    /// What the worker's next wait would be. If that is sleep, then from now on its peers wake it.
    ///
    /// # Panics
    /// If it would sleep although there is mail.
    pub fn rest(&mut self) -> Rest {
        self.driver.question = Question::HowLong;
        let turned = self.turn();
        assert!(turned.is_err(), "a turn whose wait fails does nothing");
        match std::mem::replace(&mut self.driver.question, Question::None) {
            Question::Answered(Some(0)) => Rest::Awake,
            Question::Answered(timeout_ms) => {
                assert!(self.mailbox.fall_asleep(), "no worker sleeps on its mail");
                Rest::Asleep(timeout_ms.map(|ms| self.driver.now().saturating_add(ms)))
            }
            Question::None | Question::HowLong => unreachable!("every turn waits"),
        }
    }

    /// Topics at home here that wait for the cluster.
    pub fn waiting_topics(&self) -> usize {
        self.router.waiting_topics()
    }

    /// The sizes of its tables and queues now.
    pub fn inside(&self) -> Inside {
        let open = || self.connections.iter().filter(|(_, connection)| connection.is_open());
        Inside {
            topics: self.router.topics_count(),
            connections: self.connections.len(),
            held_bytes: self.connections.held_bytes(),
            backlog_bytes: open().map(|(_, connection)| connection.outbox.bytes_behind_first()).max().unwrap_or(0),
            own_bytes: open().map(|(_, connection)| connection.outbox.own_bytes()).max().unwrap_or(0),
        }
    }
}

/// One reactor's driver in a [`World`].
pub struct SimDriver {
    world: World,
    reactor: usize,
    /// What is looked at in this turn, in an order the dice chose.
    ready: VecDeque<Look>,
    question: Question,
}

/// What [`Worker::rest`] asks of the next wait.
#[derive(Clone, Copy, Debug)]
enum Question {
    None,
    /// Not to wait, but to note how long it would be.
    HowLong,
    Answered(Option<u64>),
}

#[derive(Clone, Copy, Debug)]
enum Look {
    Accept,
    Socket(u32),
}

impl SimDriver {
    fn look(&mut self, look: Look, buffer: &mut [u8]) -> Option<Completion<Client>> {
        let inner = &mut *self.world.0.borrow_mut();
        let door = &mut inner.doors[self.reactor];
        match look {
            Look::Accept => door.backlog.pop_front().map(Completion::Accepted),
            Look::Socket(slot) => {
                let (generation, client) = *door.slots.get(&slot)?;
                let wire = &mut inner.wires[client.0];
                let token = Token { slot, generation };
                if wire.blocked && wire.has_room() {
                    wire.blocked = false;
                    return Some(Completion::Writable(token));
                }
                let reads = door.reads(slot);
                if reads == Reads::Nothing {
                    return None;
                }
                if reads == Reads::All && !wire.to_server.is_empty() {
                    let most = wire.to_server.len().min(wire.link.read_bytes_max).min(buffer.len());
                    let got = inner.random.usize(1..=most);
                    wire.to_server.read_exact(&mut buffer[..got]).expect("so many bytes are there");
                    wire.heard_at = inner.now;
                    return Some(Completion::Received(token, got));
                }
                (wire.client_closed && !std::mem::replace(&mut wire.end_told, true)).then_some(Completion::Ended(token))
            }
        }
    }
}

impl Driver for SimDriver {
    type Stream = Client;

    fn wait(&mut self, timeout_ms: Option<u64>) -> io::Result<()> {
        if let Question::HowLong = self.question {
            self.question = Question::Answered(timeout_ms);
            return Err(io::ErrorKind::Interrupted.into());
        }
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

    fn next(&mut self, buffer: &mut [u8]) -> Option<Completion<Client>> {
        while let Some(look) = self.ready.pop_front() {
            if let Some(completion) = self.look(look, buffer) {
                return Some(completion);
            }
        }
        None
    }

    fn attach(&mut self, token: Token, stream: Client) -> io::Result<()> {
        let mut inner = self.world.0.borrow_mut();
        let door = &mut inner.doors[self.reactor];
        door.paused.remove(&token.slot);
        let before = door.slots.insert(token.slot, (token.generation, stream));
        assert!(before.is_none(), "a slot is free before it is taken");
        Ok(())
    }

    fn send(&mut self, slot: u32, bytes: &[u8]) -> Sent {
        self.send_slices(slot, &[IoSlice::new(bytes)])
    }

    fn send_slices(&mut self, slot: u32, slices: &[IoSlice<'_>]) -> Sent {
        let inner = &mut *self.world.0.borrow_mut();
        let Some((_, client)) = inner.doors[self.reactor].slots.get(&slot) else { return Sent::Broken };
        let wire = &mut inner.wires[client.0];
        assert!(wire.ending.is_none() && !wire.blocked, "nothing is sent after the end, or to a full socket");
        if wire.client_closed {
            return Sent::Broken;
        }
        let given: usize = slices.iter().map(|slice| slice.len()).sum();
        let room = wire.link.socket_bytes_max.saturating_sub(wire.to_client.len());
        let most = given.min(room).min(wire.link.send_bytes_max);
        let short = wire.link.short_writes && inner.random.bool();
        let taken = if short { inner.random.usize(0..=most) } else { most };
        let mut left = taken;
        for slice in slices {
            let part = slice.len().min(left);
            wire.to_client.extend(&slice[..part]);
            left -= part;
        }
        wire.blocked = taken < given;
        wire.short_since = wire.blocked.then(|| wire.short_since.unwrap_or(inner.now));
        Sent::Took(taken)
    }

    fn finish(&mut self, slot: u32) {
        let inner = &mut *self.world.0.borrow_mut();
        if let Some((_, client)) = inner.doors[self.reactor].slots.get(&slot) {
            inner.wires[client.0].end(inner.now);
        }
    }

    fn release(&mut self, slot: u32) {
        let inner = &mut *self.world.0.borrow_mut();
        if let Some((_, client)) = inner.doors[self.reactor].slots.remove(&slot) {
            inner.wires[client.0].end(inner.now);
        }
    }

    fn detach(&mut self, slot: u32) -> Option<Client> {
        self.world.0.borrow_mut().doors[self.reactor].slots.remove(&slot).map(|(_, client)| client)
    }

    fn set_reading(&mut self, reading: bool) {
        self.world.0.borrow_mut().doors[self.reactor].reading = reading;
    }

    fn pause(&mut self, slot: u32) {
        self.world.0.borrow_mut().doors[self.reactor].paused.insert(slot);
    }

    fn resume(&mut self, slot: u32) {
        self.world.0.borrow_mut().doors[self.reactor].paused.remove(&slot);
    }

    fn stop_accepting(&mut self) {
        let inner = &mut *self.world.0.borrow_mut();
        let door = &mut inner.doors[self.reactor];
        door.accepting = false;
        for client in door.backlog.drain(..) {
            inner.wires[client.0].end(inner.now);
        }
    }

    fn now(&self) -> Millis {
        self.world.0.borrow().now
    }

    fn unix_ms(&self) -> u64 {
        UNIX_MS_BEGIN + self.world.0.borrow().now.0
    }
}
