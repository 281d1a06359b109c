//! What one seed decides before anything happens: the nodes, what is kept, and what the weather is like.

use std::sync::Arc;

use fanfare::conn::{HeadLimits, MessageLimits};
use fanfare::limits::INTAKE_BYTES_MAX;
use fanfare::reactor::Settings;
use fanfare::reactor::sim::Link;
use fanfare::router::{
    HistoryPolicy, HistorySettings, KeyedPolicy, KeyedRooms, KeyedSettings, NoticeSettings, RoomPolicies,
    RouterSettings,
};

use fanfare_simulated::node::{ENDLESS_BYTES, calm};

use super::said::KEPT;

/// What may happen to Redis, to the ways there, and to nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    LoseCommands,
    LoseSubscriber,
    SilenceCommands,
    SilenceSubscriber,
    Pause,
    RestartKept,
    RestartLagging,
    RestartEmptied,
    Failover,
    Flush,
    Refuse,
    Stall,
    Die,
}

impl Trouble {
    const ALL: [Trouble; 13] = [
        Trouble::LoseCommands,
        Trouble::LoseSubscriber,
        Trouble::SilenceCommands,
        Trouble::SilenceSubscriber,
        Trouble::Pause,
        Trouble::RestartKept,
        Trouble::RestartLagging,
        Trouble::RestartEmptied,
        Trouble::Failover,
        Trouble::Flush,
        Trouble::Refuse,
        Trouble::Stall,
        Trouble::Die,
    ];
}

/// See the module's documentation.
#[derive(Clone, Debug)]
pub struct Plan {
    pub seed: u64,
    pub nodes: usize,
    /// Of each node.
    pub reactors: usize,
    /// Parcels a mailbox holds.
    pub parcels_max: usize,
    pub delay_ms_max: u64,
    pub policy: HistoryPolicy,
    pub inbox_policy: Option<HistoryPolicy>,
    /// Bytes of answers that a connection may cause before they are sent.
    pub intake_bytes_max: usize,
    /// Whether reactors have hardly any room for history.
    pub is_forgetful: bool,
    pub notice_members_max: u64,
    pub guests_max: usize,
    pub rooms: usize,
    pub users: usize,
    pub steps: usize,
    pub troubles: Vec<Trouble>,
    /// One in so many steps is trouble.
    pub trouble_one_in: usize,
    /// One in so many steps is followed by a rest.
    pub rest_one_in: usize,
    /// Of a thousand of the guests' acts, how many are ends of connections.
    pub churn_permille: usize,
    /// What is kept of the items of keyed rooms.
    pub keyed: KeyedPolicy,
}

impl Plan {
    /// The plan of a seed.
    pub fn of(seed: u64) -> Plan {
        let mut random = fastrand::Rng::with_seed(seed ^ 0x9E37_79B9_7F4A_7C15);
        let ttl_ms = [3_600_000, 3_600_000, 2_000][random.usize(0..3)];
        let policy = HistoryPolicy { messages_max: [2, 5, 20, 1_000][random.usize(0..4)], ttl_ms };
        let kinds = random.usize(0..6);
        let troubles = random.choose_multiple(Trouble::ALL, if kinds == 5 { Trouble::ALL.len() } else { kinds });
        Plan {
            seed,
            nodes: random.usize(2..=3),
            reactors: random.usize(1..=2),
            parcels_max: [1, 2, 1_024, 1_024][random.usize(0..4)],
            delay_ms_max: [0, 2, 10, 40][random.usize(0..4)],
            policy,
            inbox_policy: random.bool().then_some(policy),
            is_forgetful: random.usize(0..5) == 0,
            notice_members_max: [0, 100][random.usize(0..2)],
            intake_bytes_max: [100, 2_000, INTAKE_BYTES_MAX][random.usize(0..3)],
            guests_max: random.usize(2..=10),
            rooms: random.usize(1..=3),
            users: random.usize(1..=4),
            steps: random.usize(500..=8_000),
            troubles,
            trouble_one_in: [100, 400, 1_500][random.usize(0..3)],
            rest_one_in: [500, 2_000, 10_000][random.usize(0..3)],
            churn_permille: [5, 20, 60][random.usize(0..3)],
            keyed: KeyedPolicy {
                items_max: [4, 100, 100][random.usize(0..3)],
                bytes_max: 1 << 20,
                ttl_ms: (random.usize(0..4) == 0).then_some(2_000),
                removed_ttl_ms: [1_000, 1_000_000][random.usize(0..2)],
                stale_after_ms: None,
            },
        }
    }

    /// What the workers of its nodes are told to do.
    pub fn settings(&self) -> Settings {
        let (policy, keyed) = (self.policy, self.keyed);
        let policy_of = move |room: &str| room.starts_with(KEPT).then_some(policy);
        let calm = calm();
        Settings {
            message: MessageLimits { bytes_max: 256 * 1024, fragments_max: 131_072 },
            head: HeadLimits { bytes_max: 8 * 1024, headers_max: 64 },
            intake_bytes_max: self.intake_bytes_max,
            router: RouterSettings {
                notices: NoticeSettings { members_max: self.notice_members_max, ..calm.router.notices },
                history: HistorySettings {
                    rooms: Some(RoomPolicies(Arc::new(policy_of))),
                    inbox: self.inbox_policy,
                    bytes_max: if self.is_forgetful { 1_000 } else { ENDLESS_BYTES },
                    pinned: Arc::default(),
                    pinned_bytes_max: if self.is_forgetful { 2_000 } else { ENDLESS_BYTES as u64 },
                },
                keyed: KeyedSettings {
                    rooms: Some(KeyedRooms(Arc::new(move |room: &str| room.contains("px").then_some(keyed)))),
                    node_items_max: 1 << 20,
                    node_bytes_max: 1 << 30,
                    subscription_bytes_max: 1 << 16,
                },
                cluster: true,
                ..calm.router
            },
            ..calm
        }
    }
}

/// A client's way, which takes all it is given at once.
pub const WIDE: Link = Link {
    socket_bytes_max: ENDLESS_BYTES,
    read_bytes_max: 70_000,
    send_bytes_max: ENDLESS_BYTES,
    short_writes: false,
};
