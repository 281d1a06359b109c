//! What the reactors wait with: io_uring or epoll, with PROXY headers and TLS above.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use socket2::Socket;

use super::error::{ServeError, io_error};
use crate::config::Io;
use crate::ids::PeerId;
use crate::reactor::epoll::Epoll;
use crate::reactor::uring::Uring;
use crate::reactor::{Driver, ListenerId, Proxied, Tls, Wake};
use crate::tls::Acceptor;

/// A driver as the workers have it.
pub(super) type Layered<D> = Tls<Proxied<D>>;

/// One for each reactor, all of one kind.
pub(super) enum Drivers {
    /// On epoll.
    Epoll(Vec<Layered<Epoll>>),
    /// On io_uring.
    Uring(Vec<Layered<Uring>>),
}

/// What wakes each reactor.
pub(super) type ReactorWakers = Vec<(PeerId, Arc<dyn Wake>)>;

/// Listeners of one reactor.
pub(super) type OwnListeners = Vec<(ListenerId, Socket)>;

/// What all drivers of a node have in common.
pub(super) struct DriverSettings {
    /// Which kind is wanted.
    pub(super) io: Io,
    /// What the node's clock counts from.
    pub(super) started: Instant,
    /// By listener: whether its connections begin with a header of the PROXY protocol.
    pub(super) proxied: Vec<bool>,
    /// By listener: how its TLS is accepted, where it has any.
    pub(super) acceptors: Vec<Option<Acceptor>>,
}

impl DriverSettings {
    /// A driver for each reactor's listeners.
    ///
    /// # Errors
    /// Where the kernel does not offer what was asked for.
    pub(super) fn make(&self, listeners: Vec<OwnListeners>) -> Result<(Drivers, ReactorWakers), ServeError> {
        match self.io {
            Io::Auto | Io::Epoll => {
                let (drivers, wakers) = self.layer(listeners, Epoll::new, "cannot set up epoll")?;
                Ok((Drivers::Epoll(drivers), wakers))
            }
            Io::Uring => {
                let (drivers, wakers) = self.layer(listeners, Uring::new, NO_URING)?;
                Ok((Drivers::Uring(drivers), wakers))
            }
        }
    }

    fn layer<D: Driver<Stream = Socket>, W: Wake + 'static>(
        &self,
        listeners: Vec<OwnListeners>,
        new: impl Fn(OwnListeners, Instant) -> io::Result<(D, Arc<W>)>,
        what: &'static str,
    ) -> Result<(Vec<Layered<D>>, ReactorWakers), ServeError> {
        let (mut drivers, mut wakers) = (Vec::new(), ReactorWakers::new());
        for (peer, sockets) in PeerId::reactors(listeners.len() as u16).zip(listeners) {
            let (driver, waker) = new(sockets, self.started).map_err(io_error(what))?;
            let driver = Proxied::new(driver, self.proxied.clone());
            drivers.push(Tls::new(driver, self.acceptors.clone()));
            wakers.push((peer, waker));
        }
        Ok((drivers, wakers))
    }
}

const NO_URING: &str = "cannot set up io_uring, which needs Linux 6.1 or newer and may be forbidden here \
    (kernel.io_uring_disabled, a container's seccomp filter); use --io epoll";

impl Drivers {
    /// How many reactors there are.
    pub(super) fn len(&self) -> usize {
        match self {
            Drivers::Epoll(drivers) => drivers.len(),
            Drivers::Uring(drivers) => drivers.len(),
        }
    }

    /// What they are called in the configuration.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Drivers::Epoll(_) => "epoll",
            Drivers::Uring(_) => "uring",
        }
    }
}
