//! What a driver of a real machine accepts: its listeners in turns, a bounded number of clients in a turn, and an answer
//! for those who come while there are no descriptors.

use std::fs::File;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::{PoisonError, RwLock};

use rustix::net::{SocketAddrAny, SocketFlags, acceptfrom_with};
use socket2::Socket;

use super::driver::{Accepted, ListenerId, RemoteAddr};
use crate::conn::{HttpRefusal, write_refusal};
use crate::limits::{ACCEPT_PAUSE_MS, ACCEPTS_PER_TURN, REFUSALS_PER_PAUSE};
use crate::time::Millis;

/// Held by every accept, and alone by a reactor that answers with its reserve: descriptors are the process's, and
/// another reactor would take the one that the reserve gives up. It could not be had back then, and the client that waits in
/// this reactor's backlog would wait in vain.
static ACCEPTING: RwLock<()> = RwLock::new(());

struct Listener {
    id: ListenerId,
    socket: Socket,
    /// Whether the backlog may hold more.
    ready: bool,
}

/// The listeners of one driver.
pub(super) struct Listeners {
    listeners: Vec<Listener>,
    /// Accepts left in this turn.
    accepts_left: usize,
    accept_again_at: Option<Millis>,
    /// When this turn began.
    now: Millis,
    /// Kept open, so that there is one descriptor to answer with when they have run out.
    reserve: Option<File>,
    /// The listener to be asked first, so that a busy one does not keep the others waiting.
    next_listener: usize,
}

impl Listeners {
    /// Listeners that do not block, of which none is ready yet.
    pub(super) fn new(listeners: Vec<(ListenerId, Socket)>) -> Listeners {
        Listeners {
            listeners: listeners.into_iter().map(|(id, socket)| Listener { id, socket, ready: false }).collect(),
            accepts_left: 0,
            accept_again_at: None,
            now: Millis(0),
            reserve: File::open("/dev/null").ok(),
            next_listener: 0,
        }
    }

    /// Their descriptors, in order.
    pub(super) fn descriptors(&self) -> impl Iterator<Item = RawFd> {
        self.listeners.iter().map(|listener| listener.socket.as_raw_fd())
    }

    /// The backlog of the listener at `at` may hold a client.
    pub(super) fn note_ready(&mut self, at: usize) {
        if let Some(listener) = self.listeners.get_mut(at) {
            listener.ready = true;
        }
    }

    /// Whether a client may be there to be accepted.
    pub(super) fn is_ready(&self) -> bool {
        self.accept_again_at.is_none() && self.listeners.iter().any(|listener| listener.ready)
    }

    /// How long accepting still pauses, in milliseconds, if it does.
    pub(super) fn pause_ms(&self, now: Millis) -> Option<u64> {
        self.accept_again_at.map(|at| at.since(now) + 1)
    }

    /// A turn begins.
    pub(super) fn begin_turn(&mut self, now: Millis) {
        (self.accepts_left, self.now) = (ACCEPTS_PER_TURN, now);
        if self.accept_again_at.is_some_and(|at| at <= now) {
            self.accept_again_at = None;
        }
    }

    /// Closes them all.
    pub(super) fn close(&mut self) {
        self.listeners.clear();
    }

    /// The next client of this turn.
    pub(super) fn accept(&mut self) -> Option<Accepted<Socket>> {
        if self.accept_again_at.is_some() {
            return None;
        }
        while self.accepts_left > 0 {
            let count = self.listeners.len();
            let in_turn = (0..count).map(|step| (self.next_listener + step) % count);
            let at = in_turn.into_iter().find(|&at| self.listeners[at].ready)?;
            self.next_listener = at + 1;
            let listener = &mut self.listeners[at];
            let accepting = ACCEPTING.read().unwrap_or_else(PoisonError::into_inner);
            // One call instead of three: the socket comes as it has to be, with its address.
            let accepted = acceptfrom_with(&listener.socket, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC);
            drop(accepting);
            match accepted.map_err(io::Error::from) {
                Ok((socket, address)) => {
                    self.accepts_left -= 1;
                    return Some(Accepted {
                        stream: socket.into(),
                        listener: listener.id,
                        remote: remote_addr(address),
                    });
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => listener.ready = false,
                Err(error) if is_exhaustion(&error) => {
                    self.answer_without_descriptors();
                    return None;
                }
                // The client gave up between its arrival and the accept; the next one may not have.
                Err(_) => self.accepts_left -= 1,
            }
        }
        None
    }

    /// Descriptors have run out: with the one in reserve a few clients are told so instead of being left hanging;
    /// then accepting pauses, so that it never spins.
    fn answer_without_descriptors(&mut self) {
        let mut response = Vec::new();
        write_refusal(&mut response, HttpRefusal::AtCapacity { retry_after_s: 1 });
        let alone = ACCEPTING.write().unwrap_or_else(PoisonError::into_inner);
        for _ in 0..REFUSALS_PER_PAUSE {
            self.reserve = None;
            let Some(listener) = self.listeners.iter_mut().find(|listener| listener.ready) else { break };
            match listener.socket.accept() {
                Ok((socket, _)) => refuse(&socket, &response),
                Err(error) => {
                    listener.ready = error.kind() != io::ErrorKind::WouldBlock;
                    break;
                }
            }
        }
        self.reserve = File::open("/dev/null").ok();
        drop(alone);
        self.accept_again_at = Some(self.now.saturating_add(ACCEPT_PAUSE_MS));
        tracing::warn!("out of descriptors: new connections are refused; raise the limit (ulimit -n)");
    }
}

/// Sends what the kernel takes at once of a last word to a socket that gets no slot. A client that is not told here finds
/// the connection closed: that is all there is to do for it.
fn refuse(mut socket: &Socket, response: &[u8]) {
    let _ = socket.set_nonblocking(true);
    let _ = socket.write(response);
    let _ = socket.shutdown(std::net::Shutdown::Write);
}

fn is_exhaustion(error: &io::Error) -> bool {
    let exhausted =
        [rustix::io::Errno::MFILE, rustix::io::Errno::NFILE, rustix::io::Errno::NOBUFS, rustix::io::Errno::NOMEM];
    error.raw_os_error().is_some_and(|code| exhausted.iter().any(|errno| errno.raw_os_error() == code))
}

fn remote_addr(address: Option<SocketAddrAny>) -> RemoteAddr {
    // A socket for both families, which only others open, gives IPv4 addresses as mapped ones.
    let canonical = |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
    let address = address.and_then(|address| SocketAddr::try_from(address).ok());
    address.map(canonical).map_or(RemoteAddr::Unix, RemoteAddr::Tcp)
}
