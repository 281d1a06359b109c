//! Which faults a run meets, in which order and for how long: all of it follows from the seed.

use std::fmt;

/// What happens in an episode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A node gets SIGKILL and is started again.
    NodeKilled,
    /// A node gets SIGSTOP and goes on.
    NodeStopped,
    /// Redis gets SIGSTOP and goes on.
    RedisStopped,
    /// Redis gets SIGKILL and is started again with all it had confirmed.
    RedisKept,
    /// Redis gets SIGKILL and is started again with nothing.
    RedisEmptied,
    /// Redis closes every subscription, again and again.
    SubscriptionsKilled,
    /// Redis lets all commands wait.
    RedisPaused,
    /// All clients drop their connections at once, without a goodbye.
    ClientsDropped,
    /// A node stands still while Redis is started again with nothing.
    NodeMissedRestart,
    /// A node is killed while Redis stands still.
    NodeKilledInPause,
}

/// Every kind that a cluster can meet.
pub const OF_CLUSTER: &[Kind] = &[
    Kind::NodeKilled,
    Kind::NodeStopped,
    Kind::RedisStopped,
    Kind::RedisKept,
    Kind::RedisEmptied,
    Kind::SubscriptionsKilled,
    Kind::RedisPaused,
    Kind::ClientsDropped,
    Kind::NodeMissedRestart,
    Kind::NodeKilledInPause,
];

/// Those that a node without Redis can meet.
pub const OF_ONE_NODE: &[Kind] = &[Kind::NodeKilled, Kind::NodeStopped, Kind::ClientsDropped];

impl Kind {
    /// How long such a fault lasts at most. Short ones are to be survived without notice, long ones are noticed by
    /// clients, nodes and Redis alike.
    fn ms_max(self) -> u64 {
        match self {
            Kind::NodeStopped | Kind::RedisStopped => 6_000,
            Kind::RedisPaused | Kind::NodeMissedRestart => 4_000,
            Kind::NodeKilled | Kind::NodeKilledInPause | Kind::RedisKept | Kind::RedisEmptied => 2_500,
            Kind::SubscriptionsKilled => 1_000,
            Kind::ClientsDropped => 0,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Kind::NodeKilled => "a node killed and restarted",
            Kind::NodeStopped => "a node stopped for a while",
            Kind::RedisStopped => "Redis stopped for a while",
            Kind::RedisKept => "Redis killed, restarted with its data",
            Kind::RedisEmptied => "Redis killed, restarted empty",
            Kind::SubscriptionsKilled => "Redis closes all subscriptions",
            Kind::RedisPaused => "Redis pauses its clients",
            Kind::ClientsDropped => "all clients drop their connections",
            Kind::NodeMissedRestart => "a stopped node misses Redis' restart",
            Kind::NodeKilledInPause => "a node killed while Redis is stopped",
        })
    }
}

/// One fault.
#[derive(Clone, Copy, Debug)]
pub struct Episode {
    pub kind: Kind,
    /// The node it happens to, where it happens to one.
    pub node: usize,
    /// How long it lasts.
    pub hold_ms: u64,
    /// How long the load runs before it.
    pub lead_ms: u64,
    /// Whether the next one waits until everybody has caught up with this one.
    pub is_waited_for: bool,
}

/// So many episodes: every kind once in a random order, then all of them again. A quarter of them strike before everybody
/// has caught up with the one before.
pub fn episodes(seed: u64, count: usize, kinds: &[Kind], nodes: usize) -> Vec<Episode> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut bag: Vec<Kind> = Vec::new();
    (0..count)
        .map(|at| {
            if bag.is_empty() {
                bag = kinds.to_vec();
                random.shuffle(&mut bag);
            }
            let kind = bag.pop().expect("there are kinds");
            // As many short ones as long ones.
            let ms_max = if random.bool() { kind.ms_max() } else { kind.ms_max() / 8 };
            Episode {
                kind,
                node: random.usize(..nodes),
                hold_ms: random.u64(0..=ms_max),
                lead_ms: random.u64(200..=700),
                is_waited_for: at + 1 == count || random.u8(..4) != 0,
            }
        })
        .collect()
}
