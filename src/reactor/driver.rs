//! The contract between a worker and what does its input and output.
//!
//! A driver says what happened ([`Driver::next`]) and is told what to do. What is sent in one flush ends with
//! [`Driver::submit`], so that a driver may hand all of it to the kernel at once:
//!
//! ```text
//!   send ─┬─ Took(n) or Broken: the bytes are the worker's again
//!         └─ Queued ─► submit ─┬─ nothing is said of it: all was taken
//!                              └─ next_shortfall: Took(less) or Broken
//!           │◄─ the bytes stay ─►│ where they are, as they are
//!
//!   release ─┬─ Done: the slot is free
//!            └─ Later ─► Released        detach ─┬─ Done(stream) or Lost
//!                                                └─ Later ─► Detached, or Released where the socket was lost
//! ```
//!
//! Between a `Later` and its end, completions of what was under way for the slot may still come.

use std::io::{self, IoSlice};
use std::net::SocketAddr;

use crate::ids::ConnId;
use crate::metrics::TlsCounts;
use crate::time::Millis;
use crate::tls::ClientName;

/// One connection's slot and which of the slot's connections it is: what a driver calls its socket, and how a reactor
/// names its own connections. A late completion for an earlier connection in the same slot is told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SlotKey {
    slot: u32,
    generation: u32,
}

impl SlotKey {
    /// The connection number `generation` (below 2^31) in a slot of the worker's slab.
    pub const fn new(slot: u32, generation: u32) -> SlotKey {
        SlotKey { slot, generation }
    }

    /// Index in the worker's slab.
    #[inline]
    pub fn index(self) -> usize {
        self.slot as usize
    }

    /// The slot.
    #[inline]
    pub fn slot(self) -> u32 {
        self.slot
    }

    /// Which of the slot's connections.
    #[inline]
    pub fn generation(self) -> u32 {
        self.generation
    }
}

impl From<ConnId> for SlotKey {
    #[inline]
    fn from(id: ConnId) -> SlotKey {
        SlotKey { slot: id.slot.0, generation: id.generation }
    }
}

/// A listener of a driver, by its index among those it was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ListenerId(pub u16);

/// Where a client connected from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RemoteAddr {
    /// Over TCP, from this address.
    Tcp(SocketAddr),
    /// Through a Unix socket, whose clients have no address.
    Unix,
}

impl RemoteAddr {
    /// The address, where there is one.
    pub fn tcp(self) -> Option<SocketAddr> {
        match self {
            RemoteAddr::Tcp(address) => Some(address),
            RemoteAddr::Unix => None,
        }
    }
}

/// Where what a client sends came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Provenance {
    /// The listener that it came through.
    pub listener: ListenerId,
    /// The client, as the socket names it, or a proxy: in front of its bytes, or in its request (then with port 0).
    pub remote: RemoteAddr,
    /// Whether the socket is a proxy's.
    pub proxied: bool,
}

/// A client that connected.
#[derive(Debug)]
pub struct Accepted<S> {
    /// Its socket, in no slot yet.
    pub stream: S,
    /// The listener that it came through.
    pub listener: ListenerId,
    /// Where it came from.
    pub remote: RemoteAddr,
}

/// Something that happened. `S` is a driver's stream, `B` its buffer.
#[derive(Debug)]
pub enum Completion<S, B> {
    /// A client connected.
    Accepted(Accepted<S>),
    /// A client connected through a proxy whose header is whole: where it really connected from, `None` where the proxy
    /// does not say. Only on listeners that want headers, and before any byte of the client.
    Proxied(SlotKey, Option<SocketAddr>),
    /// On such a listener something else came than a header: the connection is to be released.
    NotProxied(SlotKey),
    /// Bytes came; the buffer that holds them is lent and goes back with [`Driver::give_back`].
    Received(SlotKey, B),
    /// A socket that had taken fewer bytes than it was given takes more now.
    Writable(SlotKey),
    /// The peer has closed its side, or the connection broke.
    Ended(SlotKey),
    /// The socket of a slot that was to be detached, which is free now.
    Detached(SlotKey, S),
    /// The slot is free: nothing of its connection is under way any more.
    Released(SlotKey),
}

/// What became of bytes handed to a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// So many were taken; if fewer than given, [`Completion::Writable`] follows.
    Took(usize),
    /// They are sent by [`Driver::submit`]. Until that has returned they neither move nor change, and nothing else is
    /// sent to the slot, nor is it finished, released or detached.
    Queued,
    /// The connection is broken.
    Broken,
}

impl From<io::Result<usize>> for Sent {
    /// What a system call says that sends on a socket that does not block.
    fn from(result: io::Result<usize>) -> Sent {
        match result {
            Ok(taken) => Sent::Took(taken),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                Sent::Took(0)
            }
            Err(_) => Sent::Broken,
        }
    }
}

/// What became of queued bytes that were not all taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shortfall {
    /// So many were taken, fewer than were given; [`Completion::Writable`] follows.
    Took(usize),
    /// The connection is broken.
    Broken,
}

/// What became of a slot that was to be released.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Release {
    /// It is free.
    Done,
    /// Something of it is under way: [`Completion::Released`] says when it is free.
    Later,
}

/// What became of a socket that was to be taken out of its slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detach<S> {
    /// Here it is, and the slot is free.
    Done(S),
    /// Something of it is under way: [`Completion::Detached`] brings it, or [`Completion::Released`] says that it was
    /// lost.
    Later,
    /// The socket was lost; the slot is free.
    Lost,
}

/// Input and output of one reactor. Nothing blocks but `wait`, and that no longer than it is told.
pub trait Driver {
    /// An accepted socket that belongs to no slot (yet, or any more).
    type Stream;

    /// Received bytes: a buffer of the driver's, lent. The worker holds one at a time, and none in a `wait`.
    type Buffer: AsMut<[u8]> + Send;

    /// Whether [`Driver::recheck`] is called.
    const RECHECKS: bool = false;

    /// Waits for something to happen, at most `timeout_ms` (`None`: as long as it takes). Returns at once where
    /// completions of an earlier wait are left.
    ///
    /// # Errors
    /// Only what makes the reactor unable to go on.
    fn wait(&mut self, timeout_ms: Option<u64>) -> io::Result<()>;

    /// The next completion of this turn.
    fn next(&mut self) -> Option<Completion<Self::Stream, Self::Buffer>>;

    /// Takes a buffer back that [`Completion::Received`] has lent.
    fn give_back(&mut self, buffer: Self::Buffer);

    /// Puts the socket that was told of as accepted last into a slot, before anything else is asked of the driver;
    /// completions for it begin. One that is not attached is closed by being dropped.
    ///
    /// # Errors
    /// The socket is lost then.
    fn attach(&mut self, slot: SlotKey, stream: Self::Stream) -> io::Result<()>;

    /// Sends bytes on the socket in a slot.
    fn send(&mut self, slot: SlotKey, bytes: &[u8]) -> Sent;

    /// Sends several slices in one go. The bytes are as those of [`Driver::send`]; the list of slices is free at once.
    fn send_slices(&mut self, slot: SlotKey, slices: &[IoSlice<'_>]) -> Sent;

    /// Shows the bytes of a queued send again, right before they are submitted: a driver for tests sees whether they
    /// have moved or changed.
    fn recheck(&mut self, _slot: SlotKey, _slices: &[IoSlice<'_>]) {}

    /// The flush ends: what was queued is sent. Then [`Driver::next_shortfall`] tells what was not taken whole, and only
    /// when it has told all of it are the bytes free and is anything sent again.
    fn submit(&mut self);

    /// A send of the last [`Driver::submit`] of which not everything was taken, in no particular order.
    fn next_shortfall(&mut self) -> Option<(SlotKey, Shortfall)>;

    /// No more will be sent: the peer sees the end of the stream.
    fn finish(&mut self, slot: SlotKey);

    /// Closes the socket in a slot.
    fn release(&mut self, slot: SlotKey) -> Release;

    /// Takes the socket out of its slot, for the threads of plain HTTP.
    fn detach(&mut self, slot: SlotKey) -> Detach<Self::Stream>;

    /// From now on the socket in a slot takes little more than it sends at once ([`limits::UNSENT_BYTES_MAX`]), where the
    /// system knows of such a bound: what it has taken, nothing newer replaces.
    ///
    /// [`limits::UNSENT_BYTES_MAX`]: crate::limits::UNSENT_BYTES_MAX
    fn bound_unsent(&mut self, slot: SlotKey);

    /// Stops or resumes taking bytes from clients; accepting goes on.
    fn set_reading(&mut self, reading: bool);

    /// Takes no bytes from the socket in a slot; its breaking is still told. What was received already is the worker's.
    fn pause(&mut self, slot: SlotKey);

    /// Takes bytes from the socket in a slot again.
    fn resume(&mut self, slot: SlotKey);

    /// Closes the listeners.
    fn stop_accepting(&mut self);

    /// Bytes that the driver itself holds for connections, beyond what the kernel does.
    fn held_bytes(&self) -> usize {
        0
    }

    /// Those of one connection.
    fn held_in(&self, _slot: SlotKey) -> usize {
        0
    }

    /// Whether the first byte of what was not taken is on its way all the same: it cannot be withdrawn, and what it begins
    /// has to follow.
    fn is_ahead(&self, _slot: SlotKey) -> bool {
        false
    }

    /// What the client's certificate says of who it is.
    fn client_name(&self, _slot: SlotKey) -> ClientName {
        ClientName::NotShown
    }

    /// What TLS has done.
    fn tls_counts(&self) -> TlsCounts {
        TlsCounts::default()
    }

    /// The node's own clock: nanoseconds since it started.
    fn clock_ns(&self) -> u64;

    /// The same in the unit of deadlines.
    fn now(&self) -> Millis {
        Millis::from_ns(self.clock_ns())
    }

    /// Unix time in milliseconds, for the messages.
    fn unix_ms(&self) -> u64;
}
