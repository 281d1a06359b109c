//! The node under test: workers that are turned only where they have a reason, and what must hold inside of them.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use fanfare::conn::{HeadLimits, MessageLimits};
use fanfare::ids::{ClientIdCodec, ReactorId};
use fanfare::metrics::NodeMetrics;
use fanfare::reactor::sim::{Client, Inside, Rest, SimDriver, SimWaker, World, post_office_of, wakers};
use fanfare::reactor::{NodeState, Order, PostOffice, Settings, Turn, Worker};
use fanfare::router::{HistorySettings, NoticeSettings, RouterSettings};
use fanfare::time::Millis;
use fanfare_seeds::script::{Hard, Script};

/// Bytes of answers that a connection may cause before they are sent.
const SHARE_BYTES: usize = 1_024;

/// Bytes of the answers that may go beyond: five of the largest, which repeats a long id.
const ANSWERS_BYTES_MAX: usize = 5 * 2_000;

/// Longer than any clock goes where it is calm.
const NEVER_MS: u64 = 1_000_000_000;

/// More bytes than any script sends.
pub const ENDLESS_BYTES: usize = 1 << 30;

/// Sockets whose request was plain HTTP.
type Handed = Rc<RefCell<Vec<Client>>>;

struct Seat {
    /// None once it has ended.
    worker: Option<Worker<SimDriver>>,
    waker: Arc<SimWaker>,
    woken: bool,
    rest: Rest,
    /// Whether it has looked for a reason to stay awake since its last turn.
    has_lain_down: bool,
}

/// See the module's documentation.
pub struct Node {
    pub world: World,
    pub dice: fastrand::Rng,
    handed: Handed,
    seats: Vec<Seat>,
    office: PostOffice,
    metrics: Arc<NodeMetrics>,
    outbox_bytes_max: usize,
}

impl Node {
    /// The node of a script, before its first turn.
    pub fn new(script: &Script) -> Node {
        let (reactors, seed) = (usize::from(script.reactors), u64::from(script.seed));
        let world = World::new(reactors, seed);
        let metrics = Arc::new(NodeMetrics::new(reactors));
        let handed = Handed::default();
        let (bells, wakes) = wakers(reactors);
        let (office, mailboxes) = post_office_of(wakes, if script.hard.small_mailboxes { 1 } else { 1_024 });
        let state = NodeState { metrics: metrics.clone(), codec: ClientIdCodec::new([7; 16], 0), seed, run: seed };
        let settings = settings(script.hard);
        let outbox_bytes_max = settings.outbox_bytes_max;
        let seat = |((at, mailbox), waker): ((usize, _), _)| {
            let to = handed.clone();
            let worker = Worker::new(
                ReactorId(at as u16),
                reactors as u16,
                world.driver(at),
                mailbox,
                settings.clone(),
                state.clone(),
                Box::new(move |client, _| to.borrow_mut().push(client)),
                seed + at as u64,
            );
            Seat { worker: Some(worker), waker, woken: false, rest: Rest::Awake, has_lain_down: true }
        };
        let seats = mailboxes.into_iter().enumerate().zip(bells).map(seat).collect();
        Node { world, dice: fastrand::Rng::with_seed(seed), handed, seats, office, metrics, outbox_bytes_max }
    }

    /// How many reactors there are, ended ones included.
    pub fn reactors(&self) -> usize {
        self.seats.len()
    }

    /// Whether a worker has not ended.
    pub fn is_running(&self) -> bool {
        self.seats.iter().any(|seat| seat.worker.is_some())
    }

    /// The workers that have a reason to turn.
    pub fn with_reason(&mut self) -> Vec<usize> {
        (0..self.seats.len()).filter(|&at| self.has_reason(at)).collect()
    }

    fn has_reason(&mut self, at: usize) -> bool {
        let seat = &mut self.seats[at];
        seat.woken |= seat.waker.take();
        let due = match seat.rest {
            Rest::Awake => true,
            Rest::Asleep(until) => until.is_some_and(|until| until <= self.world.now()),
        };
        seat.worker.is_some() && (seat.woken || due || self.world.is_ready(at))
    }

    /// When the first sleeper's time comes.
    pub fn next_due(&self) -> Option<Millis> {
        let due = |seat: &Seat| match seat.rest {
            Rest::Asleep(until) if seat.worker.is_some() => until,
            Rest::Asleep(_) | Rest::Awake => None,
        };
        self.seats.iter().filter_map(due).min()
    }

    /// Turns some workers that have a reason.
    pub fn some_turns(&mut self, turns: usize) {
        for _ in 0..turns {
            let may = self.with_reason();
            let Some(&at) = self.dice.choice(&may) else { return };
            self.turn(at);
        }
    }

    /// One turn of one worker, unless it falls asleep instead. Sometimes it lies down only later, so that whatever
    /// happens in between has to keep it awake.
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
        let turned = worker.turn().expect("the world's driver does not fail");
        worker.check_invariants();
        let inside = worker.inside();
        assert!(inside.backlog_bytes <= self.outbox_bytes_max, "reactor {at}: {inside:?}");
        assert!(inside.own_bytes <= SHARE_BYTES + ANSWERS_BYTES_MAX, "reactor {at}: {inside:?}");
        match turned {
            Turn::Continues => {
                seat.rest = Rest::Awake;
                seat.has_lain_down = false;
                if self.dice.bool() {
                    self.lie_down(at);
                }
            }
            Turn::Ended => {
                assert_eq!((inside.connections, inside.held_bytes), (0, 0), "reactor {at} has ended: {inside:?}");
                seat.worker = None;
            }
        }
    }

    fn lie_down(&mut self, at: usize) {
        let seat = &mut self.seats[at];
        seat.has_lain_down = true;
        if let Some(worker) = &mut seat.worker {
            seat.rest = worker.rest();
        }
    }

    /// The control thread answers nothing here: it closes what it was handed.
    pub fn hang_up_handed(&mut self) {
        for client in self.handed.borrow().iter() {
            self.world.hang_up(*client);
        }
    }

    /// Checks that nothing is left of anybody, and that every connection that opened has ended.
    pub fn check_empty(&self) {
        for (at, seat) in self.seats.iter().enumerate() {
            if let Some(worker) = &seat.worker {
                let expected = Inside { topics: 1, connections: 0, held_bytes: 0, backlog_bytes: 0, own_bytes: 0 };
                assert_eq!(worker.inside(), expected, "reactor {at}: only everyone's topic is left");
            }
            let counts = self.metrics.reactors[at].read();
            assert_eq!((counts.connections, counts.endings.total(), counts.queue_bytes), (0, counts.opened, 0));
        }
        let places = (&self.metrics.sockets, &self.metrics.connections);
        assert_eq!((places.0.load(Ordering::Relaxed), places.1.load(Ordering::Relaxed)), (0, 0), "no place is taken");
    }

    /// WebSocket connections that opened so far.
    pub fn opened(&self) -> u64 {
        self.metrics.reactors.iter().map(|reactor| reactor.read().opened).sum()
    }

    /// Tells all workers to drain. With small mailboxes all must be at rest, since an order waits for room.
    pub fn drain(&mut self) {
        self.office.order(Order::Drain);
    }

    /// Checks that no queue holds anything.
    pub fn check_nothing_held(&self) {
        for (at, seat) in self.seats.iter().enumerate() {
            if let Some(worker) = &seat.worker {
                let held_bytes = worker.inside().held_bytes;
                assert_eq!(held_bytes, 0, "reactor {at}: all is said and read, and bytes are held");
            }
        }
    }
}

/// What the workers are told to do.
fn settings(hard: Hard) -> Settings {
    let calm_or = |ms| if hard.jumpy { ms } else { NEVER_MS };
    Settings {
        connections_max: if hard.few_places { 3 } else { 10_000 },
        handshakes_max: 1_024,
        message: MessageLimits { bytes_max: 20_000, fragments_max: 131_072 },
        deflate: None,
        head: HeadLimits { bytes_max: 1_000, headers_max: 16 },
        handshake_ms_max: calm_or(1_000),
        heartbeat_ms: calm_or(3_000),
        outbox_bytes_max: if hard.tight_outbox { 2_000 } else { ENDLESS_BYTES },
        outbox_age_ms_max: calm_or(2_000),
        outbox_node_bytes_max: if hard.tight_node { 4_000 } else { ENDLESS_BYTES as u64 },
        messages_per_second: 0,
        bytes_per_second: 0,
        intake_bytes_max: SHARE_BYTES,
        router: RouterSettings {
            rooms_max: if hard.few_rooms { 2 } else { 1_000 },
            notices: NoticeSettings {
                members_max: if hard.notices { 100 } else { 0 },
                join_text: "{user} joined".into(),
                leave_text: "{user} left".into(),
            },
            history: HistorySettings::none(),
            cluster: false,
        },
    }
}
