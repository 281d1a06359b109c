//! The simulated driver: several reactors in one thread, under a seed.
//!
//! A [`World`] holds the network, the clock and the dice. Everything that a real machine leaves to chance is a throw
//! of its dice: how many bytes a read gets, how many a send takes and whether at once or when it is submitted, how long
//! a socket that was given up is still under way, what a wait tells of at once, how long a listener keeps a client
//! waiting. The same seed throws the same. Time passes only when the world is told so. What the contract of
//! [`Driver`] asks of a worker is checked: see [`SimDriver`].
//!
//! Nothing blocks here, so sleep is a state the scheduler sees: after each turn [`Worker::rest`] asks the worker when it
//! has something to do by itself. One that is [`Rest::Asleep`] needs no turn until its [`SimWaker`] was rung, its
//! time has come or [`World::is_ready`] tells of something from outside. A scheduler that turns it only then finds a
//! lost wake as a node that rests with its work undone.

mod driver;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::Read;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

pub use driver::SimDriver;

use super::driver::Driver;
use super::mailbox::{self, Mailbox, PostOffice, Wake, Wakers};
use super::worker::Worker;
use crate::ids::PeerId;
use crate::time::Millis;

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

/// How often the drivers of a world have not answered at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Answers {
    /// Sends that were taken whole when they were submitted.
    pub whole: u64,
    /// Sends that fell short when they were submitted.
    pub short: u64,
    /// Sends whose connection was broken when they were submitted.
    pub broken: u64,
    /// Sockets that were released later.
    pub released: u64,
    /// Sockets that were handed over later.
    pub detached: u64,
    /// Completions that came for a socket that was given up.
    pub late: u64,
}

/// See the module's documentation. Clones are the same world.
#[derive(Clone)]
pub struct World(Rc<RefCell<Inner>>);

struct Inner {
    random: fastrand::Rng,
    habit: Habit,
    answers: Answers,
    now: Millis,
    wires: Vec<Wire>,
    doors: Vec<Door>,
}

/// When the drivers of a world answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Habit {
    /// At once, as epoll does.
    AtOnce,
    /// Later, as a ring does.
    Later,
    /// As the dice say, each time anew.
    Mixed,
}

impl Habit {
    /// Whether this answer comes later.
    fn defers(self, random: &mut fastrand::Rng) -> bool {
        match self {
            Habit::AtOnce => false,
            Habit::Later => true,
            Habit::Mixed => random.bool(),
        }
    }
}

/// A client's socket in its slot.
#[derive(Clone, Copy, Debug)]
struct Socket {
    generation: u32,
    client: Client,
    hold: Hold,
}

/// Whether a socket is the worker's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hold {
    /// It is.
    Open,
    /// It is to be released, or detached: something of it is under way for so many looks at it.
    GivenUp { to: GivenTo, looks_left: usize },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum GivenTo {
    /// It is closed.
    Closing,
    /// The threads of plain HTTP.
    Http,
}

/// What one reactor sees of the world.
#[derive(Debug)]
struct Door {
    /// Clients not accepted yet.
    backlog: VecDeque<Client>,
    accepting: bool,
    reading: bool,
    slots: BTreeMap<u32, Socket>,
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
    /// Takes bytes for the client, of which there are `given`: as many as there is room for, or fewer if the dice want
    /// it so. How many it took.
    fn take<'b>(
        &mut self,
        parts: impl IntoIterator<Item = &'b [u8]>,
        given: usize,
        now: Millis,
        random: &mut fastrand::Rng,
    ) -> usize {
        let room = self.link.socket_bytes_max.saturating_sub(self.to_client.len());
        let most = given.min(room).min(self.link.send_bytes_max);
        let short = self.link.short_writes && random.bool();
        let taken = if short { random.usize(0..=most) } else { most };
        let mut left = taken;
        for bytes in parts {
            let part = bytes.len().min(left);
            self.to_client.extend(&bytes[..part]);
            left -= part;
        }
        self.blocked = taken < given;
        self.short_since = self.blocked.then(|| self.short_since.unwrap_or(now));
        taken
    }

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
        let mut random = fastrand::Rng::with_seed(seed);
        let habit = [Habit::AtOnce, Habit::Later, Habit::Mixed, Habit::Mixed][random.usize(0..4)];
        World(Rc::new(RefCell::new(Inner {
            random,
            habit,
            answers: Answers::default(),
            now: Millis(1),
            wires: Vec::new(),
            doors: std::iter::repeat_with(door).take(reactors).collect(),
        })))
    }

    /// The driver of one reactor.
    pub fn driver(&self, reactor: usize) -> SimDriver {
        SimDriver::new(self.clone(), reactor)
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
        let mut sockets = door.slots.iter();
        let is_ready = |(slot, socket): (&u32, &Socket)| match socket.hold {
            Hold::Open => inner.wires[socket.client.0].is_ready(door.reads(*slot)),
            Hold::GivenUp { .. } => true,
        };
        !door.backlog.is_empty() || sockets.any(is_ready)
    }

    /// Whether a reactor takes bytes from its clients: it does not while mail of it finds no room.
    pub fn is_reading(&self, reactor: usize) -> bool {
        self.0.borrow().doors[reactor].reading
    }

    /// How often its drivers have not answered at once.
    pub fn answers(&self) -> Answers {
        self.0.borrow().answers
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

/// Makes wakers of these peers for a post office.
pub fn wakers(peers: impl Iterator<Item = PeerId>) -> (Vec<Arc<SimWaker>>, Wakers) {
    let named: Vec<(PeerId, Arc<SimWaker>)> = peers.map(|peer| (peer, Arc::default())).collect();
    let mine = named.iter().map(|(_, waker)| waker.clone()).collect();
    let theirs = named.into_iter().map(|(peer, waker)| (peer, waker as Arc<dyn Wake>)).collect();
    (mine, theirs)
}

/// The mailboxes of a node, one for each peer, with room for `parcels_max` parcels each: small ones spill.
pub fn post_office_of(wakers: Wakers, parcels_max: usize) -> (PostOffice, Vec<Mailbox>) {
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
    /// What the worker would do now. If that is sleep, then from now on its peers wake it.
    pub fn rest(&mut self) -> Rest {
        if !self.mailbox.fall_asleep() {
            return Rest::Awake;
        }
        match self.next_at() {
            Some(at) if at <= self.driver.now() => {
                self.mailbox.wake_up();
                Rest::Awake
            }
            next_at => Rest::Asleep(next_at),
        }
    }

    /// Topics at home here that wait for the cluster.
    pub fn waiting_topics(&self) -> usize {
        self.router.waiting_topics()
    }

    /// The sizes of its tables and queues now.
    pub fn inside(&self) -> Inside {
        let open = || self.connections.sessions.iter().filter(|(_, connection)| connection.is_open());
        Inside {
            topics: self.router.topics_count(),
            connections: self.connections.sessions.len(),
            held_bytes: self.held_bytes(),
            backlog_bytes: open().map(|(_, connection)| connection.outbox.bytes_behind_first()).max().unwrap_or(0),
            own_bytes: open().map(|(_, connection)| connection.outbox.own_bytes()).max().unwrap_or(0),
        }
    }
}
