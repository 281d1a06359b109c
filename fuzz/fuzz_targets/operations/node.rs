//! The node under test: workers that are turned only where they have a reason, and what must hold inside of them.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use fanfare::conn::{HeadLimits, MessageLimits};
use fanfare::ids::{ClientIdCodec, PeerId};
use fanfare::metrics::NodeMetrics;
use fanfare::reactor::sim::{World, post_office_of, wakers};
use fanfare::reactor::{Gate, NodeState, Order, PostOffice, Settings};
use fanfare::router::{HistorySettings, KeyedSettings, NoticeSettings, RouterSettings};
use fanfare_seeds::script::{Hard, Script};
use fanfare_simulated::seats::Seats;

/// Bytes of answers that a connection may cause before they are sent.
const SHARE_BYTES: usize = 1_024;

/// Bytes of the answers that may go beyond, more than in the simulations: five of the largest repeat a long id.
const ANSWERS_BYTES_MAX: usize = 5 * 1_000;

/// Longer than any clock goes where it is calm.
const NEVER_MS: u64 = 1_000_000_000;

/// More bytes than any script sends.
pub const ENDLESS_BYTES: usize = 1 << 30;

/// See the module's documentation.
pub struct Node {
    seats: Seats,
    pub dice: fastrand::Rng,
    office: PostOffice,
    metrics: Arc<NodeMetrics>,
}

impl Node {
    /// The node of a script, before its first turn.
    pub fn new(script: &Script) -> Node {
        let (reactors, seed) = (usize::from(script.reactors), u64::from(script.seed));
        let world = World::new(reactors, seed);
        let metrics = Arc::new(NodeMetrics::new(reactors));
        let (bells, wakes) = wakers(PeerId::reactors(script.reactors.into()));
        let (office, mailboxes) = post_office_of(wakes, if script.hard.small_mailboxes { 1 } else { 1_024 });
        let state = NodeState { metrics: metrics.clone(), codec: ClientIdCodec::new([7; 16], 0), seed, run: seed };
        let mut seats = Seats::new(world, mailboxes, bells, &settings(script.hard), &state, seed);
        seats.permit_answers_of(ANSWERS_BYTES_MAX);
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

/// What the workers are told to do.
fn settings(hard: Hard) -> Settings {
    let calm_or = |ms| if hard.jumpy { ms } else { NEVER_MS };
    Settings {
        connections_max: if hard.few_places { 3 } else { 10_000 },
        handshakes_max: 1_024,
        message: MessageLimits { bytes_max: 20_000, fragments_max: 131_072 },
        deflate: None,
        gate: Gate::default(),
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
            keyed: KeyedSettings::none(),
            user_connections: None,
            cluster: false,
        },
    }
}
