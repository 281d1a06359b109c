//! The reactors of a node: its workers, who of them sleeps, and what must hold inside of them.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use fanfare::ids::ReactorId;
use fanfare::limits::{INFLATE_STEP_BYTES, INFLATE_STREAM_BYTES};
use fanfare::metrics::NodeMetrics;
use fanfare::reactor::sim::{Client, Inside, Rest, SimDriver, SimWaker, World};
use fanfare::reactor::{Assignment, Handover, Mailbox, NodeState, Settings, Turn, Worker};
use fanfare::router::Watched;
use fanfare::time::Millis;

/// Bytes that a node may hold for each byte that came: of a message its frame on every reactor, plain and compressed; of a
/// short command the notices and the answer that it makes.
const HELD_PER_BYTE: u64 = 4;

/// Bytes of the largest answer in a simulation, and of those that may be under way to a connection: who is in a room.
const ANSWER_BYTES_MAX: u64 = 5 * 1_000;

/// Turns over which that is measured.
const TURNS_PER_WINDOW: u64 = 300;

/// Turns between two looks at a worker's tables, where runs are long.
const TURNS_PER_CHECK: u64 = 16;

/// Turns between two times that a router builds again what it can.
const TURNS_PER_REBUILD: u64 = 75;

/// Connections handed over as plain HTTP, with their bytes.
pub type Handed = Rc<RefCell<Vec<(Client, Vec<u8>)>>>;

struct Seat {
    /// None once it has ended.
    worker: Option<Worker<SimDriver>>,
    waker: Arc<SimWaker>,
    woken: bool,
    /// Awake until it has lain down.
    rest: Rest,
    /// Whether it has looked for a reason to stay awake since its last turn.
    has_lain_down: bool,
    turns: u64,
    /// What it held for its connections behind its last turn.
    held_bytes: u64,
}

/// See the module's documentation.
pub struct Seats {
    /// The network and the clock.
    pub world: World,
    /// What was handed to the control thread so far.
    pub handed: Handed,
    seats: Vec<Seat>,
    outbox_bytes_max: usize,
    turns_per_check: u64,
    /// What one connection may hold for its own commands.
    share_bytes: u64,
    metrics: Arc<NodeMetrics>,
    turns: u64,
    window: Window,
}

/// Some turns, over which what came in is compared with what is held.
#[derive(Clone, Copy, Debug, Default)]
struct Window {
    /// Bytes that were held when it began.
    held_bytes: u64,
    /// Bytes that had come when it began, and when the one before began: what those brought may still be under way.
    bytes_in: u64,
    bytes_in_before: u64,
}

impl Seats {
    /// One worker for each mailbox, before its first turn; `bells` wake their owners.
    pub fn new(
        world: World,
        mailboxes: Vec<Mailbox>,
        bells: Vec<Arc<SimWaker>>,
        settings: &Settings,
        state: &NodeState,
        seed: u64,
    ) -> Seats {
        let handed = Handed::default();
        let reactors = mailboxes.len() as u16;
        let seat = |((at, mailbox), waker): ((usize, _), _)| {
            let to = handed.clone();
            let handoff =
                Box::new(move |handover: Handover<Client>| to.borrow_mut().push((handover.stream, handover.read)));
            let (me, settings, node) = (ReactorId(at as u16), settings.clone(), state.clone());
            let assignment = Assignment {
                me,
                reactors,
                mailbox,
                settings,
                node,
                watched: Watched::default(),
                jitter_seed: seed + at as u64,
            };
            let worker = Worker::new(assignment, world.driver(at), handoff);
            Seat {
                worker: Some(worker),
                waker,
                woken: false,
                rest: Rest::Awake,
                has_lain_down: true,
                turns: 0,
                held_bytes: 0,
            }
        };
        let seats = mailboxes.into_iter().enumerate().zip(bells).map(seat).collect();
        // What waits behind messages of a history is bounded by age and by the node's budget alone.
        let history = &settings.router.history;
        let replays = history.rooms.is_some() || history.inbox.is_some();
        let inflating_bytes = settings.deflate.map_or(0, |_| INFLATE_STREAM_BYTES + INFLATE_STEP_BYTES);
        Seats {
            world,
            handed,
            seats,
            outbox_bytes_max: if replays { usize::MAX } else { settings.outbox_bytes_max },
            turns_per_check: TURNS_PER_CHECK,
            share_bytes: settings.intake_bytes_max as u64 + ANSWER_BYTES_MAX + inflating_bytes as u64,
            metrics: state.metrics.clone(),
            turns: 0,
            window: Window::default(),
        }
    }

    /// As much as this may be under way to a connection that has used up its share.
    pub fn permit_answers_of(&mut self, bytes: usize) {
        self.share_bytes += bytes as u64;
    }

    /// Looks at a worker's tables behind each of its turns.
    pub fn check_each_turn(&mut self) {
        self.turns_per_check = 1;
    }

    /// How many reactors there are, ended ones included.
    pub fn reactors(&self) -> usize {
        self.seats.len()
    }

    /// Whether a worker has a reason to turn.
    pub fn has_reason(&mut self, at: usize) -> bool {
        let seat = &mut self.seats[at];
        seat.woken |= seat.waker.take();
        let due = match seat.rest {
            Rest::Awake => true,
            Rest::Asleep(until) => until.is_some_and(|until| until <= self.world.now()),
        };
        seat.worker.is_some() && (seat.woken || due || self.world.is_ready(at))
    }

    /// Whether a worker has not ended.
    pub fn is_running(&self, at: usize) -> bool {
        self.seats[at].worker.is_some()
    }

    /// The workers that have a reason to turn.
    pub fn with_reason(&mut self) -> Vec<usize> {
        (0..self.seats.len()).filter(|&at| self.has_reason(at)).collect()
    }

    /// When the first sleeper's time comes.
    pub fn next_due(&self) -> Option<Millis> {
        let due = |seat: &Seat| match seat.rest {
            Rest::Asleep(until) if seat.worker.is_some() => until,
            Rest::Asleep(_) | Rest::Awake => None,
        };
        self.seats.iter().filter_map(due).min()
    }

    /// Lets a worker fall asleep, if it finds no reason to stay awake.
    pub fn lie_down(&mut self, at: usize) {
        let seat = &mut self.seats[at];
        seat.has_lain_down = true;
        if let Some(worker) = &mut seat.worker {
            seat.rest = worker.rest();
        }
    }

    /// What each worker's next wait would be.
    pub fn rests(&mut self) -> impl Iterator<Item = Option<Rest>> {
        self.seats.iter_mut().map(|seat| seat.worker.as_mut().map(Worker::rest))
    }

    /// One turn of one worker, unless it falls asleep instead. It does not lie down right behind its last turn:
    /// whatever happened in between must keep it awake.
    pub fn turn(&mut self, at: usize) {
        if !self.seats[at].has_lain_down {
            self.lie_down(at);
            if !self.has_reason(at) {
                return;
            }
        }
        let seat = &mut self.seats[at];
        let Some(worker) = &mut seat.worker else { return };
        seat.waker.take();
        seat.woken = false;
        seat.turns += 1;
        let turned = worker.turn().expect("the world's driver does not fail");
        let inside = worker.inside();
        let backlog_bytes = inside.backlog_bytes;
        assert!(backlog_bytes <= self.outbox_bytes_max, "reactor {at}: {backlog_bytes} bytes wait for one connection");
        seat.held_bytes = inside.held_bytes;
        let own_bytes = inside.own_bytes as u64;
        assert!(own_bytes <= self.share_bytes, "reactor {at}: {own_bytes} bytes of answers wait for one connection");
        match turned {
            Turn::Continues => {
                if seat.turns.is_multiple_of(self.turns_per_check) {
                    check_tables(worker);
                }
                if seat.turns.is_multiple_of(TURNS_PER_REBUILD) {
                    rebuild(worker);
                }
                seat.rest = Rest::Awake;
                seat.has_lain_down = false;
            }
            Turn::Ended => {
                check_tables(worker);
                assert_eq!((inside.connections, inside.held_bytes), (0, 0), "reactor {at} has ended: {inside:?}");
                seat.worker = None;
            }
        }
        self.check_amplification();
    }

    /// Checks that what the node holds grows by no more than a multiple of what its clients send.
    fn check_amplification(&mut self) {
        let held_bytes: u64 = self.seats.iter().map(|seat| seat.held_bytes).sum();
        let bytes_in = self.bytes_in();
        let received = bytes_in - self.window.bytes_in_before;
        let connections = self.metrics.sockets.load(Ordering::Relaxed) as u64;
        let held_max = self.window.held_bytes + HELD_PER_BYTE * received + connections * self.share_bytes;
        assert!(
            held_bytes <= held_max,
            "{held_bytes} bytes are held, {} were: {connections} connections have sent {received}",
            self.window.held_bytes
        );
        self.turns += 1;
        if self.turns.is_multiple_of(TURNS_PER_WINDOW) {
            self.window = Window { held_bytes, bytes_in, bytes_in_before: self.window.bytes_in };
        }
    }

    /// Bytes that came from clients, and what those of them held that were compressed.
    fn bytes_in(&self) -> u64 {
        self.metrics
            .reactors
            .iter()
            .map(|reactor| reactor.read())
            .map(|counts| counts.bytes_in + counts.inflated_bytes)
            .sum()
    }

    /// Checks every worker's tables, and that no queue holds anything.
    pub fn check_at_rest(&self) {
        for (at, worker) in self.workers() {
            check_tables(worker);
            assert_eq!(worker.inside().held_bytes, 0, "reactor {at}: all is said and read, and bytes are held");
        }
    }

    /// Checks that nothing is left of any client.
    pub fn check_empty(&self) {
        for (at, worker) in self.workers() {
            let expected = Inside { topics: 1, connections: 0, held_bytes: 0, backlog_bytes: 0, own_bytes: 0 };
            assert_eq!(worker.inside(), expected, "reactor {at}: all are gone, only everyone's topic is left");
        }
        self.check_places(0);
    }

    /// Checks the node's count of sockets and of connections against the one that should be.
    pub fn check_places(&self, places: usize) {
        let sockets = self.metrics.sockets.load(Ordering::Relaxed);
        let connections = self.metrics.connections.load(Ordering::Relaxed);
        assert_eq!((sockets, connections), (places, places), "the node's sockets and connections");
    }

    /// The control thread answers nothing here: it closes what it was handed.
    pub fn hang_up_handed(&self) {
        for (client, _) in self.handed.borrow().iter() {
            self.world.hang_up(*client);
        }
    }

    /// The workers that have not ended, each with its number.
    pub fn workers(&self) -> impl Iterator<Item = (usize, &Worker<SimDriver>)> {
        self.seats.iter().enumerate().filter_map(|(at, seat)| Some((at, seat.worker.as_ref()?)))
    }
}

#[cfg(debug_assertions)]
fn check_tables(worker: &Worker<SimDriver>) {
    worker.check_invariants();
}

/// A release build has no checks inside.
#[cfg(not(debug_assertions))]
fn check_tables(_: &Worker<SimDriver>) {}

#[cfg(debug_assertions)]
fn rebuild(worker: &mut Worker<SimDriver>) {
    worker.rebuild();
    worker.check_invariants();
}

/// Nor does it build anything again.
#[cfg(not(debug_assertions))]
fn rebuild(_: &mut Worker<SimDriver>) {}
