//! The driver of a real machine: mio's epoll, edge-triggered, over plain descriptors.

use std::collections::VecDeque;
use std::io::{self, IoSlice, Read};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Waker};
use socket2::Socket;
use std::os::fd::AsRawFd;

use super::driver::{Completion, Detach, Driver, ListenerId, Release, Sent, Shortfall, SlotKey};
use super::listeners::Listeners;
use super::mailbox::Wake;
use super::socket::{bound_unsent, finish};
use crate::clock;
use crate::growth::Grow;
use crate::limits::{EVENTS_PER_TURN, READ_BYTES};

/// Epoll's tokens from here up are not connections: listeners, then the waker.
const LISTENERS_FROM: usize = usize::MAX - 4096;
const WAKER: usize = usize::MAX;

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
    reading: Reading,
    /// The peer has ended its side: the end lies behind the last bytes, and no further event will tell of it.
    ended: bool,
}

/// Where a socket stands with reading. A socket has at most one entry in the queues of the readable, so that no client
/// gets more than one read in a turn, however fast it sends.
///
/// ```text
///            event, or more to read                      pause
///   Awaited ────────────────────────► Queued ◄───────────────────────► Paused(Queued)
///      ▲   ◄────────────────────────  │                  resume            │ taken out
///      │            read              ▼                                    ▼
///      └───────────────────────── Paused(Empty) ──── event ────► Paused(Ready) ──► Queued (resume)
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reading {
    /// The next event tells of bytes.
    Awaited,
    /// It has its entry in the queues.
    Queued,
    /// The worker takes no bytes of it.
    Paused(Unread),
}

/// What is known of a paused socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unread {
    /// It was read to the end.
    Empty,
    /// There may be bytes.
    Ready,
    /// There may be bytes, and its entry still stands in a queue.
    Queued,
}

/// The reactor's one buffer, lent with what was read.
#[derive(Debug)]
pub struct ReadBuffer {
    bytes: Vec<u8>,
    filled: usize,
}

impl AsMut<[u8]> for ReadBuffer {
    #[inline]
    fn as_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[..self.filled]
    }
}

/// See the module's documentation.
pub struct Epoll {
    poll: Poll,
    events: Events,
    started: Instant,
    sockets: Vec<Option<Connected>>,
    listeners: Listeners,
    /// What is read goes here; empty while it is lent, and before the first read.
    buffer: Vec<u8>,
    reading: bool,
    readable: VecDeque<SlotKey>,
    /// Sockets with more to read: after the others, in the next turn.
    again: VecDeque<SlotKey>,
    writable: VecDeque<SlotKey>,
    /// Paused sockets whose connection broke.
    broken: VecDeque<SlotKey>,
}

impl Epoll {
    /// A driver for `listeners`, which must not block, with the clock that began at `started`. A listener may have several
    /// sockets, and other drivers may watch the same: who comes first gets the client.
    ///
    /// # Errors
    /// Whatever the kernel refuses.
    pub fn new(listeners: Vec<(ListenerId, Socket)>, started: Instant) -> io::Result<(Epoll, Arc<EpollWaker>)> {
        let poll = Poll::new()?;
        let waker = Waker::new(poll.registry(), mio::Token(WAKER))?;
        let listeners = Listeners::new(listeners);
        for (at, descriptor) in listeners.descriptors().enumerate() {
            let token = mio::Token(LISTENERS_FROM + at);
            poll.registry().register(&mut SourceFd(&descriptor), token, Interest::READABLE)?;
        }
        let driver = Epoll {
            poll,
            events: Events::with_capacity(EVENTS_PER_TURN),
            started,
            sockets: Vec::new(),
            listeners,
            buffer: Vec::new(),
            reading: true,
            readable: VecDeque::new(),
            again: VecDeque::new(),
            writable: VecDeque::new(),
            broken: VecDeque::new(),
        };
        Ok((driver, Arc::new(EpollWaker(waker))))
    }

    #[inline]
    fn in_slot(&self, slot: SlotKey) -> Option<&Socket> {
        self.sockets.get(slot.index())?.as_ref().map(|connected| &connected.socket)
    }

    /// How long the wait may be, given what is known to be ready already.
    fn timeout(&self, timeout_ms: Option<u64>) -> Option<Duration> {
        let receiving = self.reading && !(self.again.is_empty() && self.readable.is_empty());
        if self.listeners.is_ready() || receiving || !self.writable.is_empty() || !self.broken.is_empty() {
            return Some(Duration::ZERO);
        }
        let pause_ms = self.listeners.pause_ms(self.now());
        let timeout_ms = [timeout_ms, pause_ms].into_iter().flatten().min();
        timeout_ms.map(Duration::from_millis)
    }

    fn take_events(&mut self) {
        for event in &self.events {
            match event.token().0 {
                WAKER => {}
                listener if listener >= LISTENERS_FROM => {
                    self.listeners.note_ready(listener - LISTENERS_FROM);
                }
                token => {
                    let slot = SlotKey::new(token as u32, (token >> 32) as u32);
                    if event.is_readable() || event.is_read_closed() || event.is_error() {
                        let connected = self.sockets.get_mut(slot.index()).and_then(Option::as_mut);
                        let Some(connected) = connected.filter(|found| found.generation == slot.generation()) else {
                            continue;
                        };
                        connected.ended |= event.is_read_closed();
                        match connected.reading {
                            Reading::Awaited => {
                                connected.reading = Reading::Queued;
                                self.readable.push_back(slot);
                            }
                            Reading::Queued => {}
                            // The worker does not read it, and so misses the error.
                            Reading::Paused(_) if event.is_error() || event.is_write_closed() => {
                                self.broken.push_back(slot);
                            }
                            Reading::Paused(Unread::Empty) => connected.reading = Reading::Paused(Unread::Ready),
                            Reading::Paused(Unread::Ready | Unread::Queued) => {}
                        }
                    }
                    if event.is_writable() {
                        self.writable.push_back(slot);
                    }
                }
            }
        }
    }

    /// Reads once from a socket that has its entry in the queue; it gets a new one where there may be more.
    fn receive(&mut self, slot: SlotKey) -> Option<Completion<Socket, ReadBuffer>> {
        let connected = self.sockets.get_mut(slot.index())?.as_mut();
        let connected = connected.filter(|found| found.generation == slot.generation())?;
        match connected.reading {
            Reading::Queued => connected.reading = Reading::Awaited,
            Reading::Paused(Unread::Queued) => {
                connected.reading = Reading::Paused(Unread::Ready);
                return None;
            }
            Reading::Awaited | Reading::Paused(Unread::Empty | Unread::Ready) => return None,
        }
        if self.buffer.is_empty() {
            self.buffer.resize(READ_BYTES, 0);
        }
        loop {
            match connected.socket.read_into(&mut self.buffer) {
                Ok(0) => return Some(Completion::Ended(slot)),
                Ok(filled) => {
                    let bytes = std::mem::take(&mut self.buffer);
                    if connected.ended || filled == bytes.len() {
                        connected.reading = Reading::Queued;
                        self.again.push_back(slot);
                    }
                    return Some(Completion::Received(slot, ReadBuffer { bytes, filled }));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return None,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Some(Completion::Ended(slot)),
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

impl Driver for Epoll {
    type Stream = Socket;
    type Buffer = ReadBuffer;

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
        self.listeners.begin_turn(self.now());
        Ok(())
    }

    fn next(&mut self) -> Option<Completion<Socket, ReadBuffer>> {
        if let Some(slot) = self.writable.pop_front() {
            return Some(Completion::Writable(slot));
        }
        if let Some(slot) = self.broken.pop_front() {
            return Some(Completion::Ended(slot));
        }
        if let Some(accepted) = self.listeners.accept() {
            return Some(Completion::Accepted(accepted));
        }
        while self.reading
            && let Some(slot) = self.readable.pop_front()
        {
            if let Some(completion) = self.receive(slot) {
                return Some(completion);
            }
        }
        None
    }

    fn give_back(&mut self, buffer: ReadBuffer) {
        self.buffer = buffer.bytes;
    }

    fn attach(&mut self, slot: SlotKey, stream: Socket) -> io::Result<()> {
        let token = slot.index() | (slot.generation() as usize) << 32;
        assert!(token < LISTENERS_FROM, "generations stay below the listeners' tokens");
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.poll.registry().register(&mut SourceFd(&stream.as_raw_fd()), mio::Token(token), interest)?;
        let at = slot.index();
        if at >= self.sockets.len() {
            self.sockets.make_room_for_one();
            self.sockets.resize_with(at + 1, || None);
        }
        let generation = slot.generation();
        self.sockets[at] = Some(Connected { socket: stream, generation, reading: Reading::Awaited, ended: false });
        Ok(())
    }

    #[inline]
    fn send(&mut self, slot: SlotKey, bytes: &[u8]) -> Sent {
        match self.in_slot(slot) {
            Some(socket) => Sent::from(socket.send(bytes)),
            None => Sent::Broken,
        }
    }

    fn send_slices(&mut self, slot: SlotKey, slices: &[IoSlice<'_>]) -> Sent {
        match self.in_slot(slot) {
            Some(socket) => Sent::from(socket.send_vectored(slices)),
            None => Sent::Broken,
        }
    }

    fn submit(&mut self) {
        // Every send was answered at once.
    }

    fn next_shortfall(&mut self) -> Option<(SlotKey, Shortfall)> {
        None
    }

    fn finish(&mut self, slot: SlotKey) {
        if let Some(socket) = self.in_slot(slot) {
            finish(socket);
        }
    }

    fn release(&mut self, slot: SlotKey) -> Release {
        // Closing the descriptor takes it out of epoll as well: no one else holds it.
        self.sockets[slot.index()] = None;
        Release::Done
    }

    fn detach(&mut self, slot: SlotKey) -> Detach<Socket> {
        let Some(connected) = self.sockets.get_mut(slot.index()).and_then(Option::take) else { return Detach::Lost };
        match self.poll.registry().deregister(&mut SourceFd(&connected.socket.as_raw_fd())) {
            Ok(()) => Detach::Done(connected.socket),
            Err(_) => Detach::Lost,
        }
    }

    fn bound_unsent(&mut self, slot: SlotKey) {
        if let Some(socket) = self.in_slot(slot) {
            bound_unsent(socket);
        }
    }

    fn set_reading(&mut self, reading: bool) {
        self.reading = reading;
    }

    fn pause(&mut self, slot: SlotKey) {
        if let Some(connected) = self.sockets.get_mut(slot.index()).and_then(Option::as_mut) {
            connected.reading = match connected.reading {
                Reading::Awaited => Reading::Paused(Unread::Empty),
                Reading::Queued => Reading::Paused(Unread::Queued),
                paused @ Reading::Paused(_) => paused,
            };
        }
    }

    fn resume(&mut self, slot: SlotKey) {
        let Some(connected) = self.sockets.get_mut(slot.index()).and_then(Option::as_mut) else { return };
        connected.reading = match connected.reading {
            Reading::Paused(Unread::Empty) => Reading::Awaited,
            Reading::Paused(Unread::Queued) => Reading::Queued,
            Reading::Paused(Unread::Ready) => {
                self.again.push_back(slot);
                Reading::Queued
            }
            reading @ (Reading::Awaited | Reading::Queued) => reading,
        };
    }

    fn stop_accepting(&mut self) {
        self.listeners.close();
    }

    fn clock_ns(&self) -> u64 {
        self.started.elapsed().as_nanos() as u64
    }

    fn unix_ms(&self) -> u64 {
        clock::unix_ms()
    }
}

#[cfg(test)]
mod tests;
