//! What a reactor counts: plain numbers on its own side, published once a turn, and histograms that it writes itself.

use std::sync::atomic::{AtomicU64, Ordering};

use super::histogram::{Histogram, Unit};
use super::label::{Counters, Label, Tally, label};

label! {
    /// How an open connection ended.
    pub enum Ending as "reason" {
        /// The client sent its close frame first.
        Client = "client",
        /// The stream ended or broke without a close frame.
        Lost = "lost",
        /// Nothing came for a whole heartbeat interval after a ping.
        Silent = "silent",
        /// The node is going away: 1001.
        GoingAway = "going_away",
        /// The client broke RFC 6455: 1002.
        ProtocolError = "protocol_error",
        /// The client sent text that is not UTF-8: 1007.
        InvalidUtf8 = "invalid_utf8",
        /// The client broke a rule of the server's: 1008.
        Policy = "policy",
        /// The client sent a message over `limits.message_bytes_max`: 1009.
        TooBig = "too_big",
        /// The node's memory for messages was full: 1013.
        AtCapacity = "at_capacity",
        /// The client did not read in time: 4008.
        SlowConsumer = "slow_consumer",
        /// The client's token came to its end: 4001.
        Expired = "expired",
        /// A newer connection of the same user took its place: 4009.
        Replaced = "replaced",
    }
}

/// Open connections that ended, by how they did.
pub type Endings = Tally<Ending, { Ending::COUNT }>;

label! {
    /// Why a socket was given up, or a request refused, before it became a connection: what concerns strangers in numbers. Other
    /// refusals are answers to a request.
    pub enum Refusal as "reason" {
        /// Its address has `address.connections_max` connections: 429.
        AddressConnections = "address_connections",
        /// From its address have come `address.handshakes_per_second` in this second: closed at once, or 429 behind a proxy.
        AddressHandshakes = "address_handshakes",
        /// Its address has `address.half_open_max` sockets whose request is not answered: as above.
        AddressHalfOpen = "address_half_open",
        /// It is no trusted proxy and came to a listener for these: closed at once.
        UntrustedProxy = "untrusted_proxy",
        /// It came to a listener for proxies without a PROXY header: closed at once.
        NoProxyHeader = "no_proxy_header",
        /// It was the oldest without a request when a new one found no place: closed.
        Displaced = "displaced",
        /// The node's memory for messages was full, and it held some of it before it was a connection: 503.
        Shed = "shed",
    }
}

/// Sockets and requests that were refused, by why.
pub type Refusals = Tally<Refusal, { Refusal::COUNT }>;

label! {
    /// Why a request was answered without a connection.
    pub enum RequestRefusal as "reason" {
        /// It is malformed: 400.
        Bad = "bad_request",
        /// It brings no token, or none that is understood: 401.
        TokenMissing = "token_missing",
        /// It brings several tokens, and they differ: 401.
        TokenSeveral = "token_several",
        /// Its token is not valid: 401.
        TokenInvalid = "token_invalid",
        /// The backend does not know who asks: 401.
        Unknown = "unknown",
        /// Whoever asks may not: 403.
        Forbidden = "forbidden",
        /// There is nothing at its path: 404.
        NotFound = "not_found",
        /// It did not come in time: 408.
        Timeout = "timeout",
        /// Its upgrade was lost on its way, or is to another version: 426.
        Upgrade = "upgrade",
        /// Its address has all that one may have: 429.
        TooMany = "too_many",
        /// Its head is too large: 431.
        HeadTooLarge = "head_too_large",
        /// Whoever decides who gets in does not answer: 503.
        Undecided = "undecided",
        /// The node is full, or going away: 503.
        AtCapacity = "at_capacity",
    }
}

/// Requests that were answered without a connection, by why.
pub type RequestRefusals = Tally<RequestRefusal, { RequestRefusal::COUNT }>;

label! {
    /// What is wrong with a token, at the handshake or in a `refresh`.
    pub enum TokenFault as "fault" {
        /// It is no token, or signed by no key of this server.
        Signature = "signature",
        /// A claim is missing, or not what it has to be.
        Claims = "claims",
        /// Its `iss` is another one.
        Issuer = "issuer",
        /// Its `aud` names others.
        Audience = "audience",
        /// It has expired.
        Expired = "expired",
        /// It is not valid yet.
        NotYet = "not_yet",
        /// The operator has revoked it.
        Revoked = "revoked",
    }
}

/// Tokens that were not valid, by what is wrong with them.
pub type TokenFaults = Tally<TokenFault, { TokenFault::COUNT }>;

label! {
    /// Why a command of a client was refused.
    pub enum CommandRefusal as "reason" {
        /// It, or a field of it, is not what it has to be.
        Malformed = "malformed",
        /// The connection sends more than its rate allows.
        RateLimited = "rate_limited",
        /// It names, or the connection is in, more rooms than allowed.
        TooManyRooms = "too_many_rooms",
        /// There would be more items of keyed rooms than allowed.
        TooManyItems = "too_many_items",
        /// What was asked for is for others only.
        Forbidden = "forbidden",
        /// The token of a `refresh` is not valid.
        Unauthorized = "unauthorized",
        /// What is needed for it cannot be reached.
        Unavailable = "unavailable",
    }
}

/// Commands that were refused, by why.
pub type CommandRefusals = Tally<CommandRefusal, { CommandRefusal::COUNT }>;

/// A number of one reactor, or several of a kind, as others see them.
trait Published: Default {
    /// The same on the reactor's own side.
    type Own: Copy;

    fn publish(&self, own: &Self::Own);

    fn read(&self) -> Self::Own;
}

impl Published for AtomicU64 {
    type Own = u64;

    fn publish(&self, own: &u64) {
        self.store(*own, Ordering::Relaxed);
    }

    fn read(&self) -> u64 {
        self.load(Ordering::Relaxed)
    }
}

impl<L: Label, const N: usize> Published for Counters<L, N> {
    type Own = Tally<L, N>;

    fn publish(&self, own: &Tally<L, N>) {
        Counters::publish(self, own);
    }

    fn read(&self) -> Tally<L, N> {
        Counters::read(self)
    }
}

/// Declares numbers with what they are published as.
macro_rules! published {
    (
        $(#[$own_meta:meta])* pub struct $own:ident;
        $(#[$shared_meta:meta])* struct $shared:ident;
        $($(#[doc = $doc:literal])+ $name:ident: $own_type:ty => $published:ty,)+
    ) => {
        $(#[$own_meta])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct $own {
            $($(#[doc = $doc])+ pub $name: $own_type,)+
        }

        $(#[$shared_meta])*
        #[derive(Debug, Default)]
        struct $shared {
            $($name: $published,)+
        }

        impl Published for $shared {
            type Own = $own;

            fn publish(&self, own: &$own) {
                $(self.$name.publish(&own.$name);)+
            }

            fn read(&self) -> $own {
                $own { $($name: self.$name.read(),)+ }
            }
        }
    };
}

published! {
    /// What a reactor's TLS has done since it started.
    pub struct TlsCounts;
    struct PublishedTls;

    /// Handshakes with a signature.
    full: u64 => AtomicU64,
    /// Handshakes by the ticket of an earlier session.
    resumed: u64 => AtomicU64,
    /// Handshakes and sessions that broke.
    failed: u64 => AtomicU64,
    /// Sessions there are now, those in their handshake among them.
    sessions: u64 => AtomicU64,
}

published! {
    /// What one reactor has done since it started; plain numbers on the reactor's own side.
    pub struct Counts;
    struct PublishedCounts;

    /// WebSocket connections open now.
    connections: u64 => AtomicU64,
    /// WebSocket connections opened; those not in `endings` are open.
    opened: u64 => AtomicU64,
    /// WebSocket connections that ended.
    endings: Endings => Counters<Ending, { Ending::COUNT }>,
    /// Sockets and requests of strangers that were refused.
    refusals: Refusals => Counters<Refusal, { Refusal::COUNT }>,
    /// Requests that were answered without a connection.
    request_refusals: RequestRefusals => Counters<RequestRefusal, { RequestRefusal::COUNT }>,
    /// Tokens that were not valid.
    token_faults: TokenFaults => Counters<TokenFault, { TokenFault::COUNT }>,
    /// Commands that were refused.
    command_refusals: CommandRefusals => Counters<CommandRefusal, { CommandRefusal::COUNT }>,
    /// Messages received from clients.
    messages_in: u64 => AtomicU64,
    /// Messages queued for clients, each receiver counted, answers included.
    messages_out: u64 => AtomicU64,
    /// Messages queued for the members of their topic or for one connection, each receiver counted: `messages_out`
    /// without the welcome and the answers to a connection's own commands.
    deliveries: u64 => AtomicU64,
    /// Bytes received from sockets.
    bytes_in: u64 => AtomicU64,
    /// Bytes the kernel took for sockets.
    bytes_out: u64 => AtomicU64,
    /// Calls to the kernel that sent something.
    sends: u64 => AtomicU64,
    /// Times that a connection's input waited until its socket had taken its answers.
    pauses: u64 => AtomicU64,
    /// Messages compressed, each once however many connections get it.
    compressions: u64 => AtomicU64,
    /// Messages that another reactor had compressed first, at the same moment.
    compressions_discarded: u64 => AtomicU64,
    /// Bytes of payload that were compressed, those that did not become smaller included.
    compressed_bytes_before: u64 => AtomicU64,
    /// Bytes of what they became.
    compressed_bytes_after: u64 => AtomicU64,
    /// Bytes of compressed messages from clients, as they came.
    deflated_bytes_in: u64 => AtomicU64,
    /// Bytes that compressed messages from clients held.
    inflated_bytes: u64 => AtomicU64,
    /// Bytes held for connections now: segments that queues refer to, shared ones once, and incomplete messages.
    queue_bytes: u64 => AtomicU64,
    /// Bytes that the histories of topics at home here hold now.
    history_bytes: u64 => AtomicU64,
    /// Turns of the loop.
    turns: u64 => AtomicU64,
    /// TLS with clients.
    tls: TlsCounts => PublishedTls,
}

/// One reactor's published counters, on cache lines of their own.
#[derive(Debug)]
#[repr(align(128))]
pub struct ReactorMetrics {
    counts: PublishedCounts,
    /// From a publish to the end of the flush that sent it to the members on this reactor.
    pub delivery_latency: Histogram,
    /// From the moment a turn has something to do to its end.
    pub turn_time: Histogram,
    /// Members on this reactor of each message that was delivered here.
    pub fan_out: Histogram,
}

impl Default for ReactorMetrics {
    fn default() -> ReactorMetrics {
        ReactorMetrics {
            counts: PublishedCounts::default(),
            delivery_latency: Histogram::new(Unit::Nanoseconds),
            turn_time: Histogram::new(Unit::Nanoseconds),
            fan_out: Histogram::new(Unit::Count),
        }
    }
}

impl ReactorMetrics {
    /// Publishes; called by the owner only.
    pub fn publish(&self, counts: &Counts) {
        self.counts.publish(counts);
    }

    /// What was published last; the numbers may stem from neighbouring turns.
    pub fn read(&self) -> Counts {
        self.counts.read()
    }

    /// Turns of this reactor's loop. Read with what the turn before has published.
    pub fn turns(&self) -> u64 {
        self.counts.turns.load(Ordering::Relaxed)
    }

    /// Bytes in this reactor's queues.
    pub fn queue_bytes(&self) -> u64 {
        self.counts.queue_bytes.load(Ordering::Relaxed)
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
        counts.request_refusals.count(RequestRefusal::Undecided);
        counts.token_faults.count(TokenFault::NotYet);
        counts.command_refusals.count(CommandRefusal::Unavailable);
        let metrics = ReactorMetrics::default();
        metrics.publish(&counts);
        assert_eq!(metrics.read(), counts);
        assert_eq!((counts.endings.of(Ending::Silent), counts.endings.total()), (1, 2));
    }
}
