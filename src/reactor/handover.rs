//! Sockets between reactors and the threads of plain HTTP: out with a request that is no upgrade, and back with one that
//! is.
//!
//! ```text
//!   reactor ── Handover: socket, TLS session, bytes read, where it came from ──► thread of plain HTTP
//!      ▲                                                                              │ a later request asks for an upgrade
//!      └──── bounded queue, and a nudge ◄── the same, the request's head in front ────┘
//! ```
//!
//! A socket goes back to the reactor that accepted it: the kernel has spread sockets evenly when they came. There it is what
//! it was before its first request: it counts for its address, takes one of the node's places, and has the time of a
//! handshake. Where it finds no place it is refused.

use std::net::SocketAddr;

use crossbeam_channel::{Receiver, Sender, bounded};

use super::addresses::AddressRef;
use super::connection::Admission;
use super::driver::{Driver, Provenance, RemoteAddr};
use super::mailbox::PostOffice;
use super::worker::Worker;
use crate::conn::client_among;
use crate::ids::ReactorId;
use crate::limits::RETURNS_WAITING_MAX;
use crate::metrics::Refusal;
use crate::network::Networks;

/// Where a socket came from, whatever its requests say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// As the socket says, or a PROXY header in front of its bytes.
    pub provenance: Provenance,
    /// Whether a PROXY header came that names no client: its address is the proxy's.
    pub is_unnamed: bool,
}

impl Arrival {
    /// Where a request really comes from: from whom trusted proxies have passed it on for, by its fields
    /// `X-Forwarded-For`, in their order. Behind a PROXY header that names no client, what a request says stands there as the
    /// client wrote it: such a proxy passes bytes on as they are.
    pub fn of_request<'f>(
        self,
        forwarded_for: impl DoubleEndedIterator<Item = &'f [u8]>,
        trusted: &Networks,
    ) -> Provenance {
        let Arrival { provenance, is_unnamed } = self;
        if is_unnamed || !trusts(trusted, provenance.remote) {
            return provenance;
        }
        let peer = provenance.remote.tcp().map(|remote| remote.ip());
        match client_among(forwarded_for, peer, |hop| trusted.contain(hop)) {
            Some(client) if peer != Some(client) => {
                Provenance { remote: RemoteAddr::Tcp(SocketAddr::new(client, 0)), proxied: true, ..provenance }
            }
            Some(_) | None => provenance,
        }
    }
}

/// Whether a proxy connects from there that is believed.
pub(super) fn trusts(trusted: &Networks, remote: RemoteAddr) -> bool {
    match remote {
        RemoteAddr::Tcp(remote) => trusted.contain(remote.ip()),
        RemoteAddr::Unix => trusted.contain_unix(),
    }
}

/// What is to be done with a socket that is handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Errand {
    /// To a thread of plain HTTP: serve it. Its first request's head is whole. To a reactor: the same, and it asks for an
    /// upgrade.
    Serve,
    /// The node has no place for it, and nothing was read: serve it if it asks about health.
    FindOut,
    /// It found no place on its way back: refuse it.
    Refuse,
}

/// A socket on its way.
#[derive(Debug)]
pub struct Handover<S> {
    /// The socket, with what is spoken over it.
    pub stream: S,
    /// What was read from it and not answered.
    pub read: Vec<u8>,
    /// Where it came from.
    pub arrival: Arrival,
    /// What is to be done with it.
    pub errand: Errand,
}

/// The sockets that come back to a reactor.
#[derive(Debug)]
pub struct Returns<S>(Receiver<Handover<S>>);

/// Gives sockets back to the reactors.
pub struct WayBack<S> {
    post: PostOffice,
    queues: Vec<Sender<Handover<S>>>,
}

impl<S> WayBack<S> {
    /// The way to so many reactors, and what each of them takes its sockets from.
    pub fn new(post: PostOffice, reactors: usize) -> (WayBack<S>, Vec<Returns<S>>) {
        let (queues, returns) = (0..reactors)
            .map(|_| bounded(RETURNS_WAITING_MAX))
            .map(|(queue, returns)| (queue, Returns(returns)))
            .unzip();
        (WayBack { post, queues }, returns)
    }

    /// Gives a socket back.
    ///
    /// # Errors
    /// The socket, where `limits::RETURNS_WAITING_MAX` wait for the reactor already, or it has ended.
    pub fn give(&self, to: ReactorId, handover: Handover<S>) -> Result<(), Box<Handover<S>>> {
        match self.queues.get(usize::from(to.0)) {
            None => return Err(Box::new(handover)),
            Some(queue) => queue.try_send(handover).map_err(|error| Box::new(error.into_inner()))?,
        }
        self.post.nudge(usize::from(to.0));
        Ok(())
    }
}

impl<D: Driver> Worker<D> {
    /// From now on sockets come back this way as well.
    #[must_use]
    pub fn with_returns(mut self, returns: Returns<D::Stream>) -> Worker<D> {
        self.returns = Some(returns);
        self
    }

    /// Takes the sockets that have come back.
    pub(super) fn take_returned(&mut self) {
        for _ in 0..RETURNS_WAITING_MAX {
            let next = self.returns.as_ref().and_then(|returns| returns.0.try_recv().ok());
            let Some(returned) = next else { break };
            self.returned(returned);
            self.settle();
        }
    }

    /// A socket has come back with a request for an upgrade: all of its request is there.
    fn returned(&mut self, returned: Handover<D::Stream>) {
        let Handover { stream, mut read, arrival, .. } = returned;
        let refused = |stream| Handover { stream, read: Vec::new(), arrival, errand: Errand::Refuse };
        let Ok(address) = self.welcome_back(arrival) else { return (self.http)(refused(stream)) };
        if self.is_draining() || !self.take_socket() {
            self.leave_address(address, Admission::Socket);
            return (self.http)(refused(stream));
        }
        if let Some(slot) = self.seat(stream, arrival, address) {
            self.received(slot, &mut read);
        }
    }

    /// As [`Worker::welcome`], for a socket whose PROXY header, if it had one, was read when it came.
    fn welcome_back(&mut self, arrival: Arrival) -> Result<Option<AddressRef>, Refusal> {
        match self.settings.gate.trusts(arrival.provenance.remote) {
            true => Ok(None),
            false => self.count_address(arrival.provenance),
        }
    }
}
