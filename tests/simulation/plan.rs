//! What one seed decides before anything happens: the size of the node, its limits, and what is hard about the run.

use std::sync::Arc;

use fanfare::compress::WindowBits;
use fanfare::conn::{HeadLimits, MessageLimits};
use fanfare::limits::INTAKE_BYTES_MAX;
use fanfare::reactor::sim::Link;
use fanfare::reactor::{DeflateSettings, Gate, Settings};
use fanfare::router::{HistoryPolicy, HistorySettings, KeyedSettings, NoticeSettings, RoomPolicies, RouterSettings};
use fanfare_simulated::message::room_name;

use super::oracle::Topic;

/// Longer than any run's clock goes where it is calm.
const NEVER_MS: u64 = 1_000_000_000;

/// More bytes than any run sends.
const ENDLESS_BYTES: usize = 1 << 30;

/// More connections than any run has.
pub const PLACES_ENOUGH: usize = 10_000;

/// How a run ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finale {
    /// Everybody leaves, the node is looked at, then it drains.
    AllLeave,
    /// The node drains under its clients.
    Drain,
}

/// See the module's documentation.
#[derive(Clone, Debug)]
pub struct Plan {
    pub seed: u64,
    pub reactors: usize,
    /// Parcels a mailbox holds.
    pub parcels_max: usize,
    /// Whether a worker is turned only when it was woken, has something from outside, or its time has come.
    pub lazy: bool,
    /// Whether the clock jumps, so that heartbeats and deadlines come.
    pub jumpy: bool,
    /// Whether slow consumers are ended soon.
    pub tight_outbox: bool,
    pub tight_node_budget: bool,
    pub notice_members_max: u64,
    pub rooms_max: usize,
    pub connections_max: usize,
    /// Whether there are clients that ask for much in one go.
    pub greedy: bool,
    /// Bytes of answers that a connection may cause before they are sent.
    pub intake_bytes_max: usize,
    /// Whether compression is agreed on with those who offer it, and how many of them may refer to earlier messages.
    pub deflates: bool,
    pub contexts_max: usize,
    pub guests_max: usize,
    pub rooms: usize,
    pub users: usize,
    pub steps: usize,
    /// Of a hundred steps, how many are turns of workers.
    pub turns_percent: usize,
    /// Of a thousand messages, how many are large.
    pub large_permille: usize,
    /// Of a thousand of the guests' acts, how many are ends of connections.
    pub churn_permille: usize,
    /// Whether commands are sent faster than replies come.
    pub hasty: bool,
    pub finale: Finale,
    /// What the first rooms keep, and perhaps inboxes.
    pub history: Option<HistoryPolicy>,
    pub inboxes_keep: bool,
    /// Whether reactors have hardly any room for history.
    pub is_forgetful: bool,
}

/// Rooms that keep history where the plan has any; the others never do.
const KEPT_ROOMS: usize = 2;

impl Plan {
    /// The plan of a seed.
    pub fn of(seed: u64) -> Plan {
        let mut random = fastrand::Rng::with_seed(seed ^ 0x9E37_79B9_7F4A_7C15);
        let mut one_in = |n: usize| random.usize(0..n) == 0;
        let (lazy, jumpy, tight_outbox, hasty) = (!one_in(4), one_in(3), one_in(3), one_in(2));
        let tight_node_budget = tight_outbox && one_in(3);
        let few_places = one_in(8);
        let few_rooms = one_in(4);
        let (deflates, contexts_max) = (one_in(2), if one_in(2) { PLACES_ENOUGH } else { 2 });
        let finale = if one_in(2) { Finale::AllLeave } else { Finale::Drain };
        Plan {
            seed,
            reactors: random.usize(1..=4),
            parcels_max: [1, 1, 2, 8, 1024, 1024][random.usize(0..6)],
            lazy,
            jumpy,
            tight_outbox,
            tight_node_budget,
            notice_members_max: [0, 2, 100, 100, 100][random.usize(0..5)],
            rooms_max: if few_rooms { 2 } else { 1_000 },
            connections_max: if few_places { 3 } else { PLACES_ENOUGH },
            deflates,
            contexts_max,
            greedy: random.usize(0..3) == 0,
            intake_bytes_max: [100, 2_000, INTAKE_BYTES_MAX][random.usize(0..3)],
            guests_max: random.usize(2..=14),
            rooms: random.usize(1..=5),
            users: random.usize(1..=6),
            steps: random.usize(1_000..=25_000),
            turns_percent: [20, 40, 60][random.usize(0..3)],
            large_permille: [0, 0, 5, 30][random.usize(0..4)],
            churn_permille: [2, 10, 40][random.usize(0..3)],
            hasty,
            finale,
            history: random.bool().then(|| HistoryPolicy {
                messages_max: [2, 5, 20, 1_000][random.usize(0..4)],
                ttl_ms: [2_000, 3_600_000, 3_600_000][random.usize(0..3)],
            }),
            inboxes_keep: random.bool(),
            is_forgetful: random.usize(0..5) == 0,
        }
    }

    /// What is kept of a topic.
    pub fn policy(&self, topic: &Topic) -> Option<HistoryPolicy> {
        match topic {
            Topic::Room(name) => self.history.filter(|_| is_kept(name)),
            Topic::Inbox(_) => self.history.filter(|_| self.inboxes_keep),
            Topic::Everyone | Topic::Raw(_) | Topic::One(_) => None,
        }
    }

    fn history_settings(&self) -> HistorySettings {
        let Some(policy) = self.history else { return HistorySettings::none() };
        HistorySettings {
            rooms: Some(RoomPolicies(Arc::new(move |name| is_kept(name).then_some(policy)))),
            inbox: self.inboxes_keep.then_some(policy),
            bytes_max: if self.is_forgetful { 3_000 } else { ENDLESS_BYTES },
            pinned: Arc::default(),
            pinned_bytes_max: if self.is_forgetful { 2_000 } else { ENDLESS_BYTES as u64 },
        }
    }

    /// What its workers are told to do.
    pub fn settings(&self) -> Settings {
        let calm_or = |ms| if self.jumpy { ms } else { NEVER_MS };
        Settings {
            connections_max: self.connections_max,
            handshakes_max: 1_024,
            message: MessageLimits { bytes_max: 256 * 1024, fragments_max: 131_072 },
            deflate: self.deflates.then_some(DeflateSettings {
                level: 6,
                min_bytes: 64,
                client_bits_max: WindowBits::MAX,
                contexts_max: self.contexts_max,
                memory_bytes_max: ENDLESS_BYTES,
            }),
            gate: Gate::default(),
            head: HeadLimits { bytes_max: 8 * 1024, headers_max: 64 },
            handshake_ms_max: calm_or(1_000),
            heartbeat_ms: calm_or(3_000),
            outbox_bytes_max: if self.tight_outbox { 2_000 } else { ENDLESS_BYTES },
            outbox_age_ms_max: calm_or(2_000),
            outbox_node_bytes_max: if self.tight_node_budget { 4_000 } else { ENDLESS_BYTES as u64 },
            messages_per_second: 0,
            bytes_per_second: 0,
            intake_bytes_max: self.intake_bytes_max,
            router: RouterSettings {
                rooms_max: self.rooms_max,
                notices: NoticeSettings {
                    members_max: self.notice_members_max,
                    join_text: "{user} joined".into(),
                    leave_text: "{user} left".into(),
                },
                history: self.history_settings(),
                keyed: KeyedSettings::none(),
                user_connections: None,
                cluster: false,
            },
        }
    }

    /// Whether mailboxes may be full, so that an order would wait.
    pub fn mailboxes_are_small(&self) -> bool {
        self.parcels_max < 1_024
    }

    /// A client's way: a wide one takes all it is given at once, the others do not.
    pub fn link(&self, random: &mut fastrand::Rng) -> Link {
        match random.usize(0..4) {
            // Large messages would take ages.
            0 if self.large_permille == 0 => {
                Link { socket_bytes_max: 64, read_bytes_max: 7, send_bytes_max: 64, short_writes: true }
            }
            0 | 1 => Link { socket_bytes_max: 700, read_bytes_max: 200, send_bytes_max: 300, short_writes: true },
            2 => Link { socket_bytes_max: 100_000, read_bytes_max: 70_000, send_bytes_max: 9_000, short_writes: true },
            _ => Link {
                socket_bytes_max: ENDLESS_BYTES,
                read_bytes_max: 70_000,
                send_bytes_max: ENDLESS_BYTES,
                short_writes: false,
            },
        }
    }
}

fn is_kept(room: &str) -> bool {
    (0..KEPT_ROOMS).any(|at| room == room_name(at))
}
