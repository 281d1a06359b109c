//! A node for the fuzzers: workers that are turned only where they have a reason, and what must hold inside of them. And calm
//! settings, for the simulations as well.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use super::seats::Seats;
use fanfare::conn::{HeadLimits, MessageLimits};
use fanfare::ids::{ClientIdCodec, PeerId};
use fanfare::metrics::NodeMetrics;
use fanfare::reactor::sim::{Link, World, post_office_of, wakers};
use fanfare::reactor::{Gate, NodeState, Order, PostOffice, Settings};
use fanfare::router::{HistorySettings, KeyedSettings, NoticeSettings, RouterSettings};

/// Bytes of answers that a connection may cause before they are sent.
const SHARE_BYTES: usize = 1_024;

/// Longer than any clock goes where it is calm.
pub const NEVER_MS: u64 = 1_000_000_000;

/// More bytes than any script sends.
pub const ENDLESS_BYTES: usize = 1 << 30;

/// What a node is made of beside its settings.
#[derive(Clone, Copy, Debug)]
pub struct Make {
    /// How many reactors it has.
    pub reactors: u8,
    /// What its dice and the world's begin with.
    pub seed: u8,
    /// Whether a mailbox holds one parcel.
    pub small_mailboxes: bool,
    /// Bytes of the answers that may go beyond a connection's share.
    pub answers_bytes_max: usize,
}

/// See the module's documentation.
pub struct Node {
    seats: Seats,
    /// The dice of a run.
    pub dice: fastrand::Rng,
    office: PostOffice,
    metrics: Arc<NodeMetrics>,
}

impl Node {
    /// A node before its first turn.
    pub fn new(make: Make, settings: &Settings) -> Node {
        let (reactors, seed) = (usize::from(make.reactors), u64::from(make.seed));
        let world = World::new(reactors, seed);
        let metrics = Arc::new(NodeMetrics::new(reactors));
        let (bells, wakes) = wakers(PeerId::reactors(make.reactors.into()));
        let (office, mailboxes) = post_office_of(wakes, if make.small_mailboxes { 1 } else { 1_024 });
        let state = NodeState { metrics: metrics.clone(), codec: ClientIdCodec::new([7; 16], 0), seed, run: seed };
        let mut seats = Seats::new(world, mailboxes, bells, settings, &state, seed);
        seats.permit_answers_of(make.answers_bytes_max);
        seats.check_each_turn();
        Node { seats, dice: fastrand::Rng::with_seed(seed), office, metrics }
    }

    /// Whether a worker has not ended.
    pub fn is_running(&self) -> bool {
        self.workers().next().is_some()
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
        self.seats.turn(at);
        if self.dice.bool() {
            self.lie_down(at);
        }
    }

    /// One turn of each worker that has a reason, in any order; whether there was one.
    pub fn turn_all(&mut self) -> bool {
        let mut ready = self.with_reason();
        self.dice.shuffle(&mut ready);
        ready.iter().for_each(|&at| self.turn(at));
        !ready.is_empty()
    }

    /// Nobody has a reason: time passes up to the next sleeper whose time comes within so many milliseconds; whether there is
    /// one.
    pub fn pass_to_next(&mut self, within_ms: u64) -> bool {
        let now = self.world.now();
        let Some(due_ms) = self.next_due().map(|due| due.since(now)).filter(|ms| *ms <= within_ms) else {
            return false;
        };
        self.world.pass(due_ms);
        true
    }

    /// Checks that nothing is left of any client, and that every connection that opened has ended.
    pub fn check_empty(&self) {
        self.seats.check_empty();
        for reactor in &self.metrics.reactors {
            let counts = reactor.read();
            assert_eq!((counts.connections, counts.endings.total(), counts.queue_bytes), (0, counts.opened, 0));
        }
    }

    /// WebSocket connections that opened so far.
    pub fn opened(&self) -> u64 {
        self.metrics.reactors.iter().map(|reactor| reactor.read().opened).sum()
    }

    /// Tells all workers to drain. With small mailboxes all must be at rest, since an order waits for room.
    pub fn drain(&mut self) {
        self.office.order(Order::Drain { within_ms: 10_000 });
    }
}

impl Deref for Node {
    type Target = Seats;

    fn deref(&self) -> &Seats {
        &self.seats
    }
}

impl DerefMut for Node {
    fn deref_mut(&mut self) -> &mut Seats {
        &mut self.seats
    }
}

/// What workers are told to do where nothing is hard: no deadline comes, and nothing is kept of a room.
pub fn calm() -> Settings {
    Settings {
        connections_max: 10_000,
        handshakes_max: 1_024,
        message: MessageLimits { bytes_max: 20_000, fragments_max: 131_072 },
        deflate: None,
        gate: Gate::default(),
        head: HeadLimits { bytes_max: 1_000, headers_max: 16 },
        handshake_ms_max: NEVER_MS,
        heartbeat_ms: NEVER_MS,
        outbox_bytes_max: ENDLESS_BYTES,
        outbox_age_ms_max: NEVER_MS,
        outbox_node_bytes_max: ENDLESS_BYTES as u64,
        messages_per_second: 0,
        bytes_per_second: 0,
        intake_bytes_max: SHARE_BYTES,
        router: RouterSettings {
            rooms_max: 1_000,
            notices: NoticeSettings {
                members_max: 0,
                join_text: "{user} joined".into(),
                leave_text: "{user} left".into(),
            },
            history: HistorySettings::none(),
            keyed: KeyedSettings::none(),
            user_connections: None,
            cluster: false,
        },
    }
}

/// A way: a wide one takes all it is given at once, the others do not.
pub fn link(way: u8) -> Link {
    match way % 3 {
        0 => Link {
            socket_bytes_max: ENDLESS_BYTES,
            read_bytes_max: 70_000,
            send_bytes_max: ENDLESS_BYTES,
            short_writes: false,
        },
        1 => Link { socket_bytes_max: 9_000, read_bytes_max: 5_000, send_bytes_max: 5_000, short_writes: true },
        _ => Link { socket_bytes_max: 700, read_bytes_max: 50, send_bytes_max: 300, short_writes: true },
    }
}
