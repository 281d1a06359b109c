//! Counters of a node: written by the reactor that owns them once a turn, read by anyone.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Log lines of this process that were dropped: no room was left in the queue, or they could not be written.
pub static LOG_LINES_DROPPED: AtomicU64 = AtomicU64::new(0);

/// How an open connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The client sent its close frame first.
    Client,
    /// The stream ended or broke without a close frame.
    Lost,
    /// Nothing came for a whole heartbeat interval after a ping.
    Silent,
    /// The node is going away: 1001.
    GoingAway,
    /// The client broke RFC 6455: 1002.
    ProtocolError,
    /// The client sent text that is not UTF-8: 1007.
    InvalidUtf8,
    /// The client broke a rule of the server's: 1008.
    Policy,
    /// The client sent a message over `limits.message_bytes_max`: 1009.
    TooBig,
    /// The node's memory for messages was full: 1013.
    AtCapacity,
    /// The client did not read in time: 4008.
    SlowConsumer,
    /// The client's token came to its end: 4001.
    Expired,
    /// A newer connection of the same user took its place: 4009.
    Replaced,
}

impl Ending {
    /// How many there are.
    pub const COUNT: usize = Ending::ALL.len();

    /// All of them, each at its own index.
    pub const ALL: [Ending; 12] = [
        Ending::Client,
        Ending::Lost,
        Ending::Silent,
        Ending::GoingAway,
        Ending::ProtocolError,
        Ending::InvalidUtf8,
        Ending::Policy,
        Ending::TooBig,
        Ending::AtCapacity,
        Ending::SlowConsumer,
        Ending::Expired,
        Ending::Replaced,
    ];

    /// A stable word for metrics and logs.
    pub fn name(self) -> &'static str {
        match self {
            Ending::Client => "client",
            Ending::Lost => "lost",
            Ending::Silent => "silent",
            Ending::GoingAway => "going_away",
            Ending::ProtocolError => "protocol_error",
            Ending::InvalidUtf8 => "invalid_utf8",
            Ending::Policy => "policy",
            Ending::TooBig => "too_big",
            Ending::AtCapacity => "at_capacity",
            Ending::SlowConsumer => "slow_consumer",
            Ending::Expired => "expired",
            Ending::Replaced => "replaced",
        }
    }
}

/// Open connections that ended, by how they did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Endings([u64; Ending::COUNT]);

impl Endings {
    /// One more ended so.
    #[inline]
    pub fn count(&mut self, ending: Ending) {
        self.0[ending as usize] += 1;
    }

    /// How many ended so.
    pub fn of(&self, ending: Ending) -> u64 {
        self.0[ending as usize]
    }

    /// How many ended in all.
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }
}

/// What a reactor's TLS has done since it started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TlsCounts {
    /// Handshakes with a signature.
    pub full: u64,
    /// Handshakes by the ticket of an earlier session.
    pub resumed: u64,
    /// Handshakes and sessions that broke.
    pub failed: u64,
    /// Sessions there are now, those in their handshake among them.
    pub sessions: u64,
}

/// Why a socket was given up, or a request refused, before it became a connection: what concerns strangers in numbers. Other
/// refusals are answers to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Its address has `address.connections_max` connections: 429.
    AddressConnections,
    /// From its address have come `address.handshakes_per_second` in this second: closed at once, or 429 behind a proxy.
    AddressHandshakes,
    /// Its address has `address.half_open_max` sockets whose request is not answered: as above.
    AddressHalfOpen,
    /// It is no trusted proxy and came to a listener for these: closed at once.
    UntrustedProxy,
    /// It came to a listener for proxies without a PROXY header: closed at once.
    NoProxyHeader,
    /// It was the oldest without a request when a new one found no place: closed.
    Displaced,
    /// The node's memory for messages was full, and it held some of it before it was a connection: 503.
    Shed,
}

impl Refusal {
    /// How many there are.
    pub const COUNT: usize = Refusal::ALL.len();

    /// All of them, each at its own index.
    pub const ALL: [Refusal; 7] = [
        Refusal::AddressConnections,
        Refusal::AddressHandshakes,
        Refusal::AddressHalfOpen,
        Refusal::UntrustedProxy,
        Refusal::NoProxyHeader,
        Refusal::Displaced,
        Refusal::Shed,
    ];

    /// A stable word for metrics and logs.
    pub fn name(self) -> &'static str {
        match self {
            Refusal::AddressConnections => "address_connections",
            Refusal::AddressHandshakes => "address_handshakes",
            Refusal::AddressHalfOpen => "address_half_open",
            Refusal::UntrustedProxy => "untrusted_proxy",
            Refusal::NoProxyHeader => "no_proxy_header",
            Refusal::Displaced => "displaced",
            Refusal::Shed => "shed",
        }
    }
}

/// Sockets and requests that were refused, by why.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Refusals([u64; Refusal::COUNT]);

impl Refusals {
    /// One more was refused so.
    pub fn count(&mut self, refusal: Refusal) {
        self.0[refusal as usize] += 1;
    }

    /// How many were refused so.
    pub fn of(&self, refusal: Refusal) -> u64 {
        self.0[refusal as usize]
    }

    /// How many were refused in all.
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }
}

/// What one reactor has done since it started; plain numbers on the reactor's own side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// WebSocket connections open now.
    pub connections: u64,
    /// WebSocket connections opened; those not in `endings` are open.
    pub opened: u64,
    /// WebSocket connections that ended.
    pub endings: Endings,
    /// Sockets and requests of strangers that were refused.
    pub refusals: Refusals,
    /// Messages received from clients.
    pub messages_in: u64,
    /// Messages queued for clients, each receiver counted, answers included.
    pub messages_out: u64,
    /// Messages queued for the members of their topic or for one connection, each receiver counted: `messages_out`
    /// without the welcome and the answers to a connection's own commands.
    pub deliveries: u64,
    /// Bytes received from sockets.
    pub bytes_in: u64,
    /// Bytes the kernel took for sockets.
    pub bytes_out: u64,
    /// Calls to the kernel that sent something.
    pub sends: u64,
    /// Times that a connection's input waited until its socket had taken its answers.
    pub pauses: u64,
    /// Messages compressed, each once however many connections get it.
    pub compressions: u64,
    /// Messages that another reactor had compressed first, at the same moment.
    pub compressions_discarded: u64,
    /// Bytes that compressed messages from clients held.
    pub inflated_bytes: u64,
    /// Bytes held for connections now: segments that queues refer to, shared ones once, and incomplete messages.
    pub queue_bytes: u64,
    /// Turns of the loop.
    pub turns: u64,
    /// TLS with clients.
    pub tls: TlsCounts,
}

/// One reactor's published counters, on cache lines of their own.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct ReactorMetrics {
    connections: AtomicU64,
    opened: AtomicU64,
    endings: [AtomicU64; Ending::COUNT],
    refusals: [AtomicU64; Refusal::COUNT],
    messages_in: AtomicU64,
    messages_out: AtomicU64,
    deliveries: AtomicU64,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
    sends: AtomicU64,
    pauses: AtomicU64,
    compressions: AtomicU64,
    compressions_discarded: AtomicU64,
    inflated_bytes: AtomicU64,
    queue_bytes: AtomicU64,
    turns: AtomicU64,
    tls_full: AtomicU64,
    tls_resumed: AtomicU64,
    tls_failed: AtomicU64,
    tls_sessions: AtomicU64,
}

impl ReactorMetrics {
    /// Publishes; called by the owner only.
    pub fn publish(&self, counts: &Counts) {
        let set = |counter: &AtomicU64, value| counter.store(value, Ordering::Relaxed);
        set(&self.connections, counts.connections);
        set(&self.opened, counts.opened);
        for (counter, value) in self.endings.iter().zip(counts.endings.0) {
            set(counter, value);
        }
        for (counter, value) in self.refusals.iter().zip(counts.refusals.0) {
            set(counter, value);
        }
        set(&self.messages_in, counts.messages_in);
        set(&self.messages_out, counts.messages_out);
        set(&self.deliveries, counts.deliveries);
        set(&self.bytes_in, counts.bytes_in);
        set(&self.bytes_out, counts.bytes_out);
        set(&self.sends, counts.sends);
        set(&self.pauses, counts.pauses);
        set(&self.compressions, counts.compressions);
        set(&self.compressions_discarded, counts.compressions_discarded);
        set(&self.inflated_bytes, counts.inflated_bytes);
        set(&self.queue_bytes, counts.queue_bytes);
        set(&self.turns, counts.turns);
        set(&self.tls_full, counts.tls.full);
        set(&self.tls_resumed, counts.tls.resumed);
        set(&self.tls_failed, counts.tls.failed);
        set(&self.tls_sessions, counts.tls.sessions);
    }

    /// What was published last; the numbers may stem from neighbouring turns.
    pub fn read(&self) -> Counts {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts {
            connections: get(&self.connections),
            opened: get(&self.opened),
            endings: Endings(self.endings.each_ref().map(get)),
            refusals: Refusals(self.refusals.each_ref().map(get)),
            messages_in: get(&self.messages_in),
            messages_out: get(&self.messages_out),
            deliveries: get(&self.deliveries),
            bytes_in: get(&self.bytes_in),
            bytes_out: get(&self.bytes_out),
            sends: get(&self.sends),
            pauses: get(&self.pauses),
            compressions: get(&self.compressions),
            compressions_discarded: get(&self.compressions_discarded),
            inflated_bytes: get(&self.inflated_bytes),
            queue_bytes: get(&self.queue_bytes),
            turns: get(&self.turns),
            tls: TlsCounts {
                full: get(&self.tls_full),
                resumed: get(&self.tls_resumed),
                failed: get(&self.tls_failed),
                sessions: get(&self.tls_sessions),
            },
        }
    }

    /// Bytes in this reactor's queues.
    pub fn queue_bytes(&self) -> u64 {
        self.queue_bytes.load(Ordering::Relaxed)
    }
}

/// The families of a cluster's counters: each with its name in `/stats` and, behind `fanfare_cluster_`, in `/metrics`,
/// whether it only ever grows, and what it counts.
macro_rules! cluster_counts {
    ($($(#[doc = $doc:literal])+ $name:ident: $grows:literal,)+) => {
        /// What a node of a cluster has done since it started.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct ClusterCounts {
            $($(#[doc = $doc])+ pub $name: u64,)+
        }

        /// The same, published.
        #[derive(Debug, Default)]
        pub struct ClusterMetrics {
            $($name: AtomicU64,)+
        }

        impl ClusterMetrics {
            /// Publishes; called by the cluster's thread only.
            pub fn publish(&self, counts: &ClusterCounts) {
                $(self.$name.store(counts.$name, Ordering::Relaxed);)+
            }

            /// What was published last.
            pub fn read(&self) -> ClusterCounts {
                ClusterCounts { $($name: self.$name.load(Ordering::Relaxed),)+ }
            }
        }

        impl ClusterCounts {
            /// Each with its name, whether it only ever grows, and its meaning.
            pub fn families(&self) -> Vec<(&'static str, bool, &'static str, u64)> {
                vec![$((stringify!($name), $grows, concat!($($doc),+), self.$name),)+]
            }
        }
    };
}

cluster_counts! {
    /// 1 while Redis can be reached, else 0.
    reachable: false,
    /// Other nodes that were heard of lately.
    peers: false,
    /// Topics that are followed.
    feeds: false,
    /// Messages given to Redis for other nodes.
    published: true,
    /// Messages without history that could not be given to Redis.
    dropped: true,
    /// Messages stored in history.
    stored: true,
    /// Publishes into history that were answered `unavailable`.
    refused: true,
    /// Messages that came from Redis, live or read again.
    received: true,
    /// Reads of streams because something was missing, or might be.
    repairs: true,
    /// Gaps that were told to members.
    gaps: true,
    /// Messages on channels that no node of this version wrote.
    unreadable: true,
}

/// How the fetch of a key set has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fetch {
    /// With keys.
    Good,
    /// Without an answer of 200 within the bounds.
    Failed,
    /// With an answer in which there are no keys.
    Unusable,
}

impl Fetch {
    /// All of them, each at its own index.
    pub const ALL: [Fetch; 3] = [Fetch::Good, Fetch::Failed, Fetch::Unusable];

    /// A stable word for metrics.
    pub fn name(self) -> &'static str {
        match self {
            Fetch::Good => "good",
            Fetch::Failed => "failed",
            Fetch::Unusable => "unusable",
        }
    }
}

/// What the backend is asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum About {
    /// Connections.
    Connect,
    /// Joins.
    Join,
}

impl About {
    /// Both, each at its own index.
    pub const ALL: [About; 2] = [About::Connect, About::Join];

    /// A stable word for metrics.
    pub fn name(self) -> &'static str {
        match self {
            About::Connect => "connect",
            About::Join => "join",
        }
    }
}

/// How a question to the backend was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answered {
    /// All of it is allowed.
    Allowed,
    /// Not all of it is.
    Refused,
    /// As the same question a moment ago, without a request.
    Cached,
    /// Not at all, or not in a way that is understood.
    Unavailable,
    /// Not asked: the connection was gone before its turn came.
    Withdrawn,
}

impl Answered {
    /// All of them, each at its own index.
    pub const ALL: [Answered; 5] =
        [Answered::Allowed, Answered::Refused, Answered::Cached, Answered::Unavailable, Answered::Withdrawn];

    /// A stable word for metrics.
    pub fn name(self) -> &'static str {
        match self {
            Answered::Allowed => "allowed",
            Answered::Refused => "refused",
            Answered::Cached => "cached",
            Answered::Unavailable => "unavailable",
            Answered::Withdrawn => "withdrawn",
        }
    }
}

/// What the team's services were asked, and have answered.
#[derive(Debug, Default)]
pub struct BackendMetrics {
    fetches: [AtomicU64; Fetch::ALL.len()],
    answers: [[AtomicU64; Answered::ALL.len()]; About::ALL.len()],
    crowded: AtomicU64,
}

impl BackendMetrics {
    /// A fetch of the key set has ended so.
    pub fn count_fetch(&self, fetch: Fetch) {
        self.fetches[fetch as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// A question was answered so.
    pub fn count_answer(&self, about: About, answered: Answered) {
        self.answers[about as usize][answered as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// A question was not asked: too many are under way.
    pub fn count_crowded(&self) {
        self.crowded.fetch_add(1, Ordering::Relaxed);
    }

    /// How many fetches have ended so.
    pub fn fetches(&self, fetch: Fetch) -> u64 {
        self.fetches[fetch as usize].load(Ordering::Relaxed)
    }

    /// How many questions were answered so.
    pub fn answers(&self, about: About, answered: Answered) -> u64 {
        self.answers[about as usize][answered as usize].load(Ordering::Relaxed)
    }

    /// How many questions were not asked.
    pub fn crowded(&self) -> u64 {
        self.crowded.load(Ordering::Relaxed)
    }
}

/// What the reactors of a node share: the counts that bound it, and the metrics of each reactor.
#[derive(Debug)]
pub struct NodeMetrics {
    /// WebSocket connections of the node, those in their handshake included from the moment they are let in.
    pub connections: AtomicUsize,
    /// Sockets of the node, whatever they are doing.
    pub sockets: AtomicUsize,
    /// Connections whose client may refer to its earlier compressed messages.
    pub deflate_contexts: AtomicUsize,
    /// Bytes these may take.
    pub deflate_bytes: AtomicUsize,
    /// Of a node of a cluster.
    pub cluster: Option<ClusterMetrics>,
    /// Of a node that asks the team's services.
    pub backend: Option<Arc<BackendMetrics>>,
    /// One entry a reactor.
    pub reactors: Vec<ReactorMetrics>,
}

impl NodeMetrics {
    /// For a node of so many reactors.
    pub fn new(reactors: usize) -> NodeMetrics {
        NodeMetrics {
            connections: AtomicUsize::new(0),
            sockets: AtomicUsize::new(0),
            deflate_contexts: AtomicUsize::new(0),
            deflate_bytes: AtomicUsize::new(0),
            cluster: None,
            backend: None,
            reactors: (0..reactors).map(|_| ReactorMetrics::default()).collect(),
        }
    }

    /// The same, for a node of a cluster.
    pub fn in_cluster(self) -> NodeMetrics {
        NodeMetrics { cluster: Some(ClusterMetrics::default()), ..self }
    }

    /// The same, for a node that asks the team's services.
    pub fn with_backend(self, backend: Option<Arc<BackendMetrics>>) -> NodeMetrics {
        NodeMetrics { backend, ..self }
    }

    /// Takes one of `max` permits of a count; `false` where all are taken.
    pub fn take_permit(count: &AtomicUsize, max: usize) -> bool {
        NodeMetrics::take(count, 1, max)
    }

    /// Gives a permit back.
    pub fn give_permit(count: &AtomicUsize) {
        count.fetch_sub(1, Ordering::Relaxed);
    }

    /// Takes room for one compression context of so many bytes, of `contexts_max` and `bytes_max` in all; `false` where
    /// there is none.
    pub fn take_context(&self, bytes: usize, contexts_max: usize, bytes_max: usize) -> bool {
        if !NodeMetrics::take(&self.deflate_contexts, 1, contexts_max) {
            return false;
        }
        let taken = NodeMetrics::take(&self.deflate_bytes, bytes, bytes_max);
        if !taken {
            NodeMetrics::give_permit(&self.deflate_contexts);
        }
        taken
    }

    /// Gives the room of a context back.
    pub fn give_context(&self, bytes: usize) {
        NodeMetrics::give_permit(&self.deflate_contexts);
        self.deflate_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    fn take(count: &AtomicUsize, amount: usize, max: usize) -> bool {
        if count.fetch_add(amount, Ordering::Relaxed).saturating_add(amount) <= max {
            return true;
        }
        count.fetch_sub(amount, Ordering::Relaxed);
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_counted_is_at_its_own_index_under_its_own_name() {
        for (at, ending) in Ending::ALL.into_iter().enumerate() {
            assert_eq!(ending as usize, at);
            assert_eq!(Ending::ALL.iter().filter(|other| other.name() == ending.name()).count(), 1);
        }
        for (at, refusal) in Refusal::ALL.into_iter().enumerate() {
            assert_eq!(refusal as usize, at);
            assert_eq!(Refusal::ALL.iter().filter(|other| other.name() == refusal.name()).count(), 1);
        }
    }

    #[test]
    fn what_is_published_is_read() {
        let mut counts = Counts { connections: 1, opened: 2, messages_in: 3, messages_out: 4, ..Counts::default() };
        counts = Counts { deliveries: 5, bytes_in: 6, bytes_out: 7, sends: 8, queue_bytes: 9, turns: 10, ..counts };
        counts = Counts { tls: TlsCounts { full: 15, resumed: 16, failed: 17, sessions: 18 }, ..counts };
        counts = Counts { compressions: 11, compressions_discarded: 14, inflated_bytes: 12, ..counts };
        counts.endings.count(Ending::Silent);
        counts.endings.count(Ending::SlowConsumer);
        counts.refusals.count(Refusal::Displaced);
        let metrics = ReactorMetrics::default();
        metrics.publish(&counts);
        assert_eq!(metrics.read(), counts);
        assert_eq!((counts.endings.of(Ending::Silent), counts.endings.total()), (1, 2));
    }
}
