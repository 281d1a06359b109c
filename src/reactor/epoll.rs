//! The driver of a real machine: mio's epoll, edge-triggered, over plain descriptors.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, IoSlice, Read, Write};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Waker};
use rustix::net::{SocketFlags, accept_with};
use socket2::Socket;
use std::os::fd::AsRawFd;

use super::driver::{Completion, Driver, Sent, Token};
use super::mailbox::Wake;
use crate::conn::{HttpRefusal, write_refusal};
use crate::limits::{ACCEPT_PAUSE_MS, ACCEPTS_PER_TURN, EVENTS_PER_TURN, REFUSALS_PER_PAUSE};
use crate::time::Millis;

/// Tokens from here up are not connections: listeners, then the waker.
const LISTENERS_FROM: usize = usize::MAX - 4096;
const WAKER: usize = usize::MAX;

/// Held by every accept, and alone by a reactor that answers with its reserve: descriptors are the process's, and
/// another reactor would take the one that the reserve gives up. It could not be had back then, and whoever waits in
/// this reactor's backlog would wait in vain.
static ACCEPTING: RwLock<()> = RwLock::new(());

/// Wakes a reactor that waits in epoll.
pub struct EpollWaker(Waker);

impl Wake for EpollWaker {
    fn wake(&self) {
        // It fails only where the process has run out of memory; the reactor then wakes with its next timer.
        let _ = self.0.wake();
    }
}

struct Connected {
    socket: Socket,
    generation: u32,
}

#[derive(Clone, Copy)]
struct Readable {
    token: Token,
    /// The peer has ended its side: the end lies behind the last bytes, and no further event will tell of it.
    ended: bool,
}

struct Listener {
    socket: Socket,
    /// Whether the backlog may hold more.
    ready: bool,
}

/// See the module's documentation.
pub struct Epoll {
    poll: Poll,
    events: Events,
    started: Instant,
    sockets: Vec<Option<Connected>>,
    listeners: Vec<Listener>,
    /// Accepts left in this turn.
    accepts_left: usize,
    accept_again_at: Option<Millis>,
    /// Kept open, so that there is one descriptor to answer with when they have run out.
    reserve: Option<File>,
    reading: bool,
    readable: VecDeque<Readable>,
    /// Sockets with more to read: after the others, in the next turn.
    again: VecDeque<Readable>,
    writable: VecDeque<Token>,
}

impl Epoll {
    /// A driver for `listeners`, which must not block, with the clock that began at `started`.
    ///
    /// # Errors
    /// Whatever the kernel refuses.
    pub fn new(listeners: Vec<Socket>, started: Instant) -> io::Result<(Epoll, Arc<EpollWaker>)> {
        let poll = Poll::new()?;
        let waker = Waker::new(poll.registry(), mio::Token(WAKER))?;
        for (at, listener) in listeners.iter().enumerate() {
            poll.registry().register(
                &mut SourceFd(&listener.as_raw_fd()),
                mio::Token(LISTENERS_FROM + at),
                Interest::READABLE,
            )?;
        }
        let driver = Epoll {
            poll,
            events: Events::with_capacity(EVENTS_PER_TURN),
            started,
            sockets: Vec::new(),
            listeners: listeners.into_iter().map(|socket| Listener { socket, ready: false }).collect(),
            accepts_left: 0,
            accept_again_at: None,
            reserve: File::open("/dev/null").ok(),
            reading: true,
            readable: VecDeque::new(),
            again: VecDeque::new(),
            writable: VecDeque::new(),
        };
        Ok((driver, Arc::new(EpollWaker(waker))))
    }

    fn socket(&self, token: Token) -> Option<&Socket> {
        let connected = self.sockets.get(token.slot as usize)?.as_ref()?;
        (connected.generation == token.generation).then_some(&connected.socket)
    }

    fn in_slot(&self, slot: u32) -> Option<&Socket> {
        self.sockets.get(slot as usize)?.as_ref().map(|connected| &connected.socket)
    }

    /// How long the wait may be, given what is known to be ready already.
    fn timeout(&self, timeout_ms: Option<u64>) -> Option<Duration> {
        let accepting = self.accept_again_at.is_none() && self.listeners.iter().any(|listener| listener.ready);
        let receiving = self.reading && !(self.again.is_empty() && self.readable.is_empty());
        if accepting || receiving || !self.writable.is_empty() {
            return Some(Duration::ZERO);
        }
        let pause_ms = self.accept_again_at.map(|at| at.since(self.now()) + 1);
        let timeout_ms = [timeout_ms, pause_ms].into_iter().flatten().min();
        timeout_ms.map(Duration::from_millis)
    }

    fn take_events(&mut self) {
        for event in &self.events {
            match event.token().0 {
                WAKER => {}
                listener if listener >= LISTENERS_FROM => {
                    if let Some(listener) = self.listeners.get_mut(listener - LISTENERS_FROM) {
                        listener.ready = true;
                    }
                }
                token => {
                    let token = Token { slot: token as u32, generation: (token >> 32) as u32 };
                    if event.is_readable() || event.is_read_closed() || event.is_error() {
                        self.readable.push_back(Readable { token, ended: event.is_read_closed() });
                    }
                    if event.is_writable() {
                        self.writable.push_back(token);
                    }
                }
            }
        }
    }

    fn accept(&mut self) -> Option<Socket> {
        if self.accept_again_at.is_some() {
            return None;
        }
        while self.accepts_left > 0 {
            let listener = self.listeners.iter_mut().find(|listener| listener.ready)?;
            let accepting = ACCEPTING.read().unwrap_or_else(PoisonError::into_inner);
            // One call instead of three: no address is wanted, and the socket comes as it has to be.
            let accepted = accept_with(&listener.socket, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC);
            drop(accepting);
            match accepted.map_err(io::Error::from) {
                Ok(socket) => {
                    self.accepts_left -= 1;
                    return Some(socket.into());
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
                Ok((socket, _)) => self.refuse(socket, &response),
                Err(error) => {
                    listener.ready = error.kind() != io::ErrorKind::WouldBlock;
                    break;
                }
            }
        }
        self.reserve = File::open("/dev/null").ok();
        drop(alone);
        self.accept_again_at = Some(self.now().saturating_add(ACCEPT_PAUSE_MS));
        tracing::warn!("out of descriptors: new connections are refused; raise the limit (ulimit -n)");
    }

    fn receive(&mut self, readable: Readable, buffer: &mut [u8]) -> Option<Completion<Socket>> {
        let Readable { token, ended } = readable;
        loop {
            match self.socket(token)?.read_into(buffer) {
                Ok(0) => return Some(Completion::Ended(token)),
                Ok(received) => {
                    if ended || received == buffer.len() {
                        self.again.push_back(readable);
                    }
                    return Some(Completion::Received(token, received));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return None,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Some(Completion::Ended(token)),
            }
        }
    }
}

trait ReadInto {
    fn read_into(&self, buffer: &mut [u8]) -> io::Result<usize>;
}

impl ReadInto for Socket {
    fn read_into(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut socket = self;
        socket.read(buffer)
    }
}

fn is_exhaustion(error: &io::Error) -> bool {
    let exhausted =
        [rustix::io::Errno::MFILE, rustix::io::Errno::NFILE, rustix::io::Errno::NOBUFS, rustix::io::Errno::NOMEM];
    error.raw_os_error().is_some_and(|code| exhausted.iter().any(|errno| errno.raw_os_error() == code))
}

fn sent(result: io::Result<usize>) -> Sent {
    match result {
        Ok(taken) => Sent::Took(taken),
        Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Sent::Took(0),
        Err(_) => Sent::Broken,
    }
}

impl Driver for Epoll {
    type Stream = Socket;

    fn wait(&mut self, timeout_ms: Option<u64>) -> io::Result<()> {
        let timeout = self.timeout(timeout_ms);
        match self.poll.poll(&mut self.events, timeout) {
            Ok(()) => self.take_events(),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        if self.reading {
            self.readable.append(&mut self.again);
        }
        self.accepts_left = ACCEPTS_PER_TURN;
        if self.accept_again_at.is_some_and(|at| at <= self.now()) {
            self.accept_again_at = None;
        }
        Ok(())
    }

    fn next(&mut self, buffer: &mut [u8]) -> Option<Completion<Socket>> {
        if let Some(token) = self.writable.pop_front() {
            return Some(Completion::Writable(token));
        }
        if let Some(stream) = self.accept() {
            return Some(Completion::Accepted(stream));
        }
        while self.reading
            && let Some(readable) = self.readable.pop_front()
        {
            if let Some(completion) = self.receive(readable, buffer) {
                return Some(completion);
            }
        }
        None
    }

    fn attach(&mut self, token: Token, stream: Socket) -> io::Result<()> {
        let key = token.slot as usize | (token.generation as usize) << 32;
        assert!(key < LISTENERS_FROM, "generations stay below the listeners' tokens");
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.poll.registry().register(&mut SourceFd(&stream.as_raw_fd()), mio::Token(key), interest)?;
        let at = token.slot as usize;
        if at >= self.sockets.len() {
            self.sockets.resize_with(at + 1, || None);
        }
        self.sockets[at] = Some(Connected { socket: stream, generation: token.generation });
        Ok(())
    }

    #[inline]
    fn send(&mut self, slot: u32, bytes: &[u8]) -> Sent {
        match self.in_slot(slot) {
            Some(socket) => sent(socket.send(bytes)),
            None => Sent::Broken,
        }
    }

    fn send_slices(&mut self, slot: u32, slices: &[IoSlice<'_>]) -> Sent {
        match self.in_slot(slot) {
            Some(socket) => sent(socket.send_vectored(slices)),
            None => Sent::Broken,
        }
    }

    fn finish(&mut self, slot: u32) {
        if let Some(socket) = self.in_slot(slot) {
            // A connection that broke meanwhile has nothing to finish.
            let _ = socket.shutdown(std::net::Shutdown::Write);
        }
    }

    fn release(&mut self, slot: u32) {
        // Closing the descriptor takes it out of epoll as well: nobody else holds it.
        self.sockets[slot as usize] = None;
    }

    fn detach(&mut self, slot: u32) -> Option<Socket> {
        let connected = self.sockets.get_mut(slot as usize)?.take()?;
        self.poll.registry().deregister(&mut SourceFd(&connected.socket.as_raw_fd())).ok()?;
        Some(connected.socket)
    }

    fn refuse(&mut self, stream: Socket, response: &[u8]) {
        // A client that is not told here finds the connection closed: that is all there is to do for it.
        let _ = stream.set_nonblocking(true);
        let mut socket = &stream;
        let _ = socket.write(response);
        let _ = stream.shutdown(std::net::Shutdown::Write);
    }

    fn set_reading(&mut self, reading: bool) {
        self.reading = reading;
    }

    fn stop_accepting(&mut self) {
        self.listeners.clear();
    }

    fn now(&self) -> Millis {
        Millis(self.started.elapsed().as_millis() as u64)
    }

    fn unix_ms(&self) -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
    }
}
