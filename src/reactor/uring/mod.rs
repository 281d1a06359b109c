//! The driver of a real machine on io_uring: what a turn asks of the kernel goes to it in one call.
//!
//! ```text
//!   attach ─► receive, which goes on ──► completions ──► received ─► Completion::Received
//!                  ▲        │ no buffer was free, or it was cancelled       (the buffer goes back when it was read)
//!                  └─ again ◄
//!   send, send, … ─► submit: each is tried at once, and only what was not all taken completes
//!   release, detach ─► cancel what is under way ─► its last completion ─► Released, Detached
//! ```
//!
//! One request to receive stays for as long as the connection, and holds no buffer while nothing comes. Listeners and the
//! waker are polled, by one request each that stays as well: clients are accepted as many at a time as a turn takes, as with
//! epoll.
//!
//! This is the only module with `unsafe` code, in `ring` and `buffers`: requests point to memory, and the kernel fills
//! buffers. What it relies on beyond these two files is the contract of [`Driver`]: bytes that are queued stay where they
//! are until `submit` has returned.

#![expect(unsafe_code, reason = "io_uring takes addresses, see the module's documentation")]

mod buffers;
mod ring;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFlags, eventfd};
use rustix::io::Errno;
use socket2::Socket;

use self::buffers::Buffers;
pub use self::buffers::RingBuffer;
use self::ring::{Completed, Ring};
use super::driver::{Completion, Detach, Driver, ListenerId, Release, Sent, Shortfall, SlotKey};
use super::listeners::Listeners;
use super::mailbox::Wake;
use super::socket::{bound_unsent, finish};
use crate::clock;
use crate::growth::Grow;
use crate::limits::{EVENTS_PER_TURN, RING_BUFFERS_KEPT};

/// Wakes a reactor that waits for its ring.
pub struct UringWaker(OwnedFd);

impl Wake for UringWaker {
    fn wake(&self) {
        // It fails only where nothing has been read of it 2^64 times: it is awake then.
        let _ = rustix::io::write(&self.0, &1_u64.to_ne_bytes());
    }
}

/// What a request is, and of which connection; its name in the ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Request {
    Receive(SlotKey),
    Send(SlotKey),
    /// Room for what a socket did not take.
    Room(SlotKey),
    /// The end of a connection whose bytes are not taken.
    Breaking(SlotKey),
    Listener(u32),
    Waker,
    Cancel,
}

/// Slots are below this, and generations below 2^31: with three bits for the kind they make a name.
const SLOTS_MAX: u32 = 1 << 30;

impl Request {
    fn name(self) -> u64 {
        let (kind, slot, generation) = match self {
            Request::Receive(slot) => (0, slot.slot(), slot.generation()),
            Request::Send(slot) => (1, slot.slot(), slot.generation()),
            Request::Room(slot) => (2, slot.slot(), slot.generation()),
            Request::Breaking(slot) => (3, slot.slot(), slot.generation()),
            Request::Listener(at) => (4, at, 0),
            Request::Waker => (5, 0, 0),
            Request::Cancel => (6, 0, 0),
        };
        kind << 61 | u64::from(generation) << 30 | u64::from(slot)
    }

    fn of(name: u64) -> Request {
        let slot = (name & u64::from(SLOTS_MAX - 1)) as u32;
        let key = SlotKey::new(slot, (name >> 30) as u32 & (u32::MAX >> 1));
        match name >> 61 {
            0 => Request::Receive(key),
            1 => Request::Send(key),
            2 => Request::Room(key),
            3 => Request::Breaking(key),
            4 => Request::Listener(slot),
            5 => Request::Waker,
            _ => Request::Cancel,
        }
    }
}

/// Where a socket stands with receiving.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Receiving {
    /// No request is under way: it is paused, has ended, or is about to be asked for again.
    Idle,
    /// A request is under way.
    UnderWay,
    /// And is being cancelled.
    Cancelled,
}

/// What becomes of a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Going {
    Stays,
    /// It is released, or detached, once nothing of it is under way.
    Released,
    Detached,
}

struct Connected {
    socket: Socket,
    generation: u32,
    receiving: Receiving,
    going: Going,
    is_paused: bool,
    /// The peer has ended its side behind the last bytes, and a paused connection was not told.
    has_ended: bool,
    /// It waits in `again`.
    is_again: bool,
    /// Whether requests are under way that wait for room and for its breaking.
    awaits_room: bool,
    awaits_breaking: bool,
}

impl Connected {
    fn is_under_way(&self) -> bool {
        self.receiving != Receiving::Idle || self.awaits_room || self.awaits_breaking
    }
}

/// What a socket has brought, in the order in which it came.
enum Arrived {
    Bytes(RingBuffer),
    /// The peer has ended its side.
    End,
    /// The connection broke.
    Broken,
    /// Its socket is to be taken out of its slot, and nothing of it is under way.
    Detached,
}

/// What there is to tell beside bytes.
enum Event {
    Room(SlotKey),
    /// A connection broke whose bytes are not taken.
    Broken(SlotKey),
    Released(SlotKey),
}

/// See the module's documentation.
pub struct Uring {
    /// Dropped before its buffers.
    ring: Ring,
    buffers: Buffers,
    started: Instant,
    waker: Arc<UringWaker>,
    sockets: Vec<Option<Connected>>,
    listeners: Listeners,
    reading: bool,
    events: VecDeque<Event>,
    arrived: VecDeque<(SlotKey, Arrived)>,
    /// Connections to be asked for bytes again in the next wait.
    again: VecDeque<SlotKey>,
    shortfalls: VecDeque<(SlotKey, Shortfall)>,
    /// The ring takes no requests any more.
    broken: Option<io::Error>,
}

impl Uring {
    /// A driver for `listeners`, which must not block, with the clock that began at `started`. It belongs to the thread that
    /// waits first.
    ///
    /// # Errors
    /// Where the kernel is older than 6.1, or refuses io_uring to this process (`kernel.io_uring_disabled`, a seccomp
    /// filter), or descriptors have run out.
    pub fn new(listeners: Vec<(ListenerId, Socket)>, started: Instant) -> io::Result<(Uring, Arc<UringWaker>)> {
        let buffers = Buffers::new();
        let mut ring = Ring::new(&buffers)?;
        let waker = Arc::new(UringWaker(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?));
        ring.watch(waker.0.as_raw_fd(), PollFlags::IN, Request::Waker.name());
        let listeners = Listeners::new(listeners);
        for (at, descriptor) in listeners.descriptors().enumerate() {
            ring.watch(descriptor, PollFlags::IN, Request::Listener(at as u32).name());
        }
        let driver = Uring {
            ring,
            buffers,
            started,
            waker: waker.clone(),
            sockets: Vec::new(),
            listeners,
            reading: true,
            events: VecDeque::new(),
            arrived: VecDeque::new(),
            again: VecDeque::new(),
            shortfalls: VecDeque::new(),
            broken: None,
        };
        Ok((driver, waker))
    }

    #[inline]
    fn connected(&mut self, slot: SlotKey) -> Option<&mut Connected> {
        let connected = self.sockets.get_mut(slot.index())?.as_mut();
        connected.filter(|found| found.generation == slot.generation())
    }

    #[inline]
    fn in_slot(&self, slot: SlotKey) -> Option<&Socket> {
        self.sockets.get(slot.index())?.as_ref().map(|connected| &connected.socket)
    }

    /// How long the wait may be, given what is known to be ready already.
    fn timeout(&self, timeout_ms: Option<u64>) -> Option<Duration> {
        let receiving = self.reading && !self.arrived.is_empty();
        if receiving || !self.events.is_empty() || self.listeners.is_ready() {
            return Some(Duration::ZERO);
        }
        let pause_ms = self.listeners.pause_ms(self.now());
        let timeout_ms = [timeout_ms, pause_ms].into_iter().flatten().min();
        timeout_ms.map(Duration::from_millis)
    }

    /// Asks again for the bytes of those who were not served, before anything else comes.
    fn receive_again(&mut self) {
        // One that finds no buffer again is back in the queue only when this has been told.
        for _ in 0..self.again.len().min(self.buffers.free()) {
            let Some(slot) = self.again.pop_front() else { return };
            let Some(connected) = self.connected(slot) else { continue };
            connected.is_again = false;
            if connected.receiving == Receiving::Idle && connected.going == Going::Stays && !connected.is_paused {
                connected.receiving = Receiving::UnderWay;
                let socket = connected.socket.as_raw_fd();
                self.ring.receive(socket, Request::Receive(slot).name());
            }
        }
    }

    fn take_completions(&mut self) -> usize {
        let mut taken = 0;
        while let Some(completed) = self.ring.next() {
            taken += 1;
            match Request::of(completed.name) {
                Request::Receive(slot) => self.receive_completed(slot, completed),
                Request::Send(slot) => self.send_fell_short(slot, completed.result),
                Request::Room(slot) => self.room_regained(slot),
                Request::Breaking(slot) => self.breaking(slot, completed),
                Request::Listener(at) => self.listener_ready(at, completed.more),
                Request::Waker if !completed.more => self.await_waking(),
                Request::Waker | Request::Cancel => {}
            }
        }
        taken
    }

    fn receive_completed(&mut self, slot: SlotKey, completed: Completed) {
        let Completed { result, buffer, more, .. } = completed;
        let Some(connected) = self.connected(slot) else { return };
        if !more {
            connected.receiving = Receiving::Idle;
        }
        let wants_more = !connected.is_paused && connected.going == Going::Stays;
        let is_wanted = connected.going != Going::Released;
        let bytes = buffer.map(|buffer| self.buffers.take(buffer, result.unwrap_or_default() as usize));
        let arrived = match (result, bytes) {
            (Ok(1..), Some(bytes)) if is_wanted => Some(Arrived::Bytes(bytes)),
            (result, bytes) => {
                bytes.into_iter().for_each(|bytes| self.buffers.give_back(bytes));
                match result {
                    Ok(1..) | Err(Errno::NOBUFS | Errno::CANCELED | Errno::INTR | Errno::AGAIN) => None,
                    Ok(0) => Some(Arrived::End),
                    Err(_) => Some(Arrived::Broken),
                }
            }
        };
        let is_over = matches!(arrived, Some(Arrived::End | Arrived::Broken));
        self.arrived.extend(arrived.map(|arrived| (slot, arrived)));
        if !more && !is_over && wants_more {
            self.ask_again(slot);
        }
        self.go(slot);
    }

    fn ask_again(&mut self, slot: SlotKey) {
        if let Some(connected) = self.connected(slot)
            && !std::mem::replace(&mut connected.is_again, true)
        {
            self.again.push_back(slot);
        }
    }

    fn send_fell_short(&mut self, slot: SlotKey, result: Result<u32, Errno>) {
        let shortfall = match result {
            Ok(taken) => Shortfall::Took(taken as usize),
            Err(Errno::AGAIN | Errno::INTR) => Shortfall::Took(0),
            Err(_) => Shortfall::Broken,
        };
        self.shortfalls.push_back((slot, shortfall));
        if shortfall != Shortfall::Broken {
            self.await_room(slot);
        }
    }

    fn await_room(&mut self, slot: SlotKey) {
        if let Some(connected) = self.connected(slot)
            && !std::mem::replace(&mut connected.awaits_room, true)
        {
            let socket = connected.socket.as_raw_fd();
            self.ring.poll(socket, PollFlags::OUT, Request::Room(slot).name());
        }
    }

    fn room_regained(&mut self, slot: SlotKey) {
        let Some(connected) = self.connected(slot) else { return };
        connected.awaits_room = false;
        if connected.going == Going::Stays {
            self.events.push_back(Event::Room(slot));
        }
        self.go(slot);
    }

    fn breaking(&mut self, slot: SlotKey, completed: Completed) {
        let Some(connected) = self.connected(slot) else { return };
        connected.awaits_breaking &= completed.more;
        // A peer that has only ended its side is told of behind its bytes. Where those are taken, receiving tells of all.
        let broken = u32::from((PollFlags::HUP | PollFlags::ERR).bits());
        let is_broken = completed.result.is_ok_and(|ready| ready & broken != 0);
        if is_broken && connected.is_paused && connected.going == Going::Stays {
            self.events.push_back(Event::Broken(slot));
        }
        self.go(slot);
    }

    fn listener_ready(&mut self, at: u32, more: bool) {
        self.listeners.note_ready(at as usize);
        if !more && let Some(descriptor) = self.listeners.descriptors().nth(at as usize) {
            self.ring.watch(descriptor, PollFlags::IN, Request::Listener(at).name());
        }
    }

    fn await_waking(&mut self) {
        self.ring.watch(self.waker.0.as_raw_fd(), PollFlags::IN, Request::Waker.name());
    }

    /// Whoever goes is gone when nothing is under way.
    fn go(&mut self, slot: SlotKey) {
        let Some(connected) = self.connected(slot).filter(|connected| !connected.is_under_way()) else { return };
        match connected.going {
            Going::Stays => {}
            Going::Released => {
                self.sockets[slot.index()] = None;
                self.events.push_back(Event::Released(slot));
            }
            // Behind what it has brought.
            Going::Detached => self.arrived.push_back((slot, Arrived::Detached)),
        }
    }

    /// What is under way for a slot is cancelled. `false`: nothing is.
    fn begin_to_go(&mut self, slot: SlotKey, going: Going) -> bool {
        let Some(connected) = self.connected(slot).filter(|connected| connected.is_under_way()) else { return false };
        connected.going = going;
        let is_receiving = connected.receiving == Receiving::UnderWay;
        if is_receiving {
            connected.receiving = Receiving::Cancelled;
        }
        let under_way = [
            (is_receiving, Request::Receive(slot)),
            (connected.awaits_room, Request::Room(slot)),
            (connected.awaits_breaking, Request::Breaking(slot)),
        ];
        for (_, request) in under_way.into_iter().filter(|(is_under_way, _)| *is_under_way) {
            self.ring.cancel(request.name(), Request::Cancel.name());
        }
        true
    }

    /// What a socket has brought, if it is to be told.
    fn tell_arrived(&mut self, slot: SlotKey, arrived: Arrived) -> Option<Completion<Socket, RingBuffer>> {
        let connected = self.connected(slot).filter(|connected| connected.going != Going::Released);
        match (arrived, connected) {
            (Arrived::Bytes(bytes), Some(_)) => Some(Completion::Received(slot, bytes)),
            (Arrived::Bytes(bytes), None) => {
                self.buffers.give_back(bytes);
                None
            }
            (Arrived::End | Arrived::Broken | Arrived::Detached, None) => None,
            (Arrived::Detached, Some(_)) => {
                let connected = self.sockets[slot.index()].take()?;
                Some(Completion::Detached(slot, connected.socket))
            }
            (Arrived::End, Some(connected)) if connected.is_paused => {
                connected.has_ended = true;
                None
            }
            (Arrived::End | Arrived::Broken, Some(connected)) => {
                (connected.going == Going::Stays).then_some(Completion::Ended(slot))
            }
        }
    }
}

impl Driver for Uring {
    type Stream = Socket;
    type Buffer = RingBuffer;

    fn wait(&mut self, timeout_ms: Option<u64>) -> io::Result<()> {
        if let Some(error) = self.broken.take() {
            return Err(error);
        }
        self.ring.enable()?;
        self.receive_again();
        let timeout = self.timeout(timeout_ms);
        self.ring.wait(timeout)?;
        let mut taken = self.take_completions();
        // The kernel does a few of the requests that are ready in each wait.
        while taken < EVENTS_PER_TURN && self.buffers.free() > RING_BUFFERS_KEPT && self.ring.has_more() {
            self.ring.wait(Some(Duration::ZERO))?;
            match self.take_completions() {
                0 => break,
                more => taken += more,
            }
        }
        self.listeners.begin_turn(self.now());
        Ok(())
    }

    fn next(&mut self) -> Option<Completion<Socket, RingBuffer>> {
        if let Some(event) = self.events.pop_front() {
            return Some(match event {
                Event::Room(slot) => Completion::Writable(slot),
                Event::Broken(slot) => Completion::Ended(slot),
                Event::Released(slot) => Completion::Released(slot),
            });
        }
        if let Some(accepted) = self.listeners.accept() {
            return Some(Completion::Accepted(accepted));
        }
        while self.reading
            && let Some((slot, arrived)) = self.arrived.pop_front()
        {
            if let Some(completion) = self.tell_arrived(slot, arrived) {
                return Some(completion);
            }
        }
        None
    }

    fn give_back(&mut self, buffer: RingBuffer) {
        self.buffers.give_back(buffer);
    }

    fn attach(&mut self, slot: SlotKey, stream: Socket) -> io::Result<()> {
        assert!(slot.slot() < SLOTS_MAX, "a request's name has room for the slot");
        let at = slot.index();
        if at >= self.sockets.len() {
            self.sockets.make_room_for_one();
            self.sockets.resize_with(at + 1, || None);
        }
        self.ring.receive(stream.as_raw_fd(), Request::Receive(slot).name());
        self.sockets[at] = Some(Connected {
            socket: stream,
            generation: slot.generation(),
            receiving: Receiving::UnderWay,
            going: Going::Stays,
            is_paused: false,
            has_ended: false,
            is_again: false,
            awaits_room: false,
            awaits_breaking: false,
        });
        Ok(())
    }

    #[inline]
    fn send(&mut self, slot: SlotKey, bytes: &[u8]) -> Sent {
        let Some(socket) = self.in_slot(slot).map(AsRawFd::as_raw_fd) else { return Sent::Broken };
        self.ring.send(socket, bytes, Request::Send(slot).name());
        Sent::Queued
    }

    fn send_slices(&mut self, slot: SlotKey, slices: &[IoSlice<'_>]) -> Sent {
        let Some(socket) = self.in_slot(slot) else { return Sent::Broken };
        let given: usize = slices.iter().map(|slice| slice.len()).sum();
        let sent = Sent::from(socket.send_vectored(slices));
        if matches!(sent, Sent::Took(taken) if taken < given) {
            self.await_room(slot);
        }
        sent
    }

    fn submit(&mut self) {
        if let Err(error) = self.ring.submit() {
            self.broken.get_or_insert(error);
        }
        self.take_completions();
    }

    fn next_shortfall(&mut self) -> Option<(SlotKey, Shortfall)> {
        self.shortfalls.pop_front()
    }

    fn finish(&mut self, slot: SlotKey) {
        if let Some(socket) = self.in_slot(slot) {
            finish(socket);
        }
    }

    fn release(&mut self, slot: SlotKey) -> Release {
        if self.begin_to_go(slot, Going::Released) {
            return Release::Later;
        }
        self.sockets[slot.index()] = None;
        Release::Done
    }

    fn detach(&mut self, slot: SlotKey) -> Detach<Socket> {
        if self.begin_to_go(slot, Going::Detached) {
            return Detach::Later;
        }
        match self.sockets.get_mut(slot.index()).and_then(Option::take) {
            Some(connected) => Detach::Done(connected.socket),
            None => Detach::Lost,
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
        let Some(connected) = self.connected(slot) else { return };
        connected.is_paused = true;
        let (is_receiving, is_watched) = (connected.receiving == Receiving::UnderWay, connected.awaits_breaking);
        if is_receiving {
            connected.receiving = Receiving::Cancelled;
        }
        connected.awaits_breaking = true;
        let socket = connected.socket.as_raw_fd();
        if is_receiving {
            self.ring.cancel(Request::Receive(slot).name(), Request::Cancel.name());
        }
        if !is_watched {
            self.ring.watch(socket, PollFlags::empty(), Request::Breaking(slot).name());
        }
    }

    fn resume(&mut self, slot: SlotKey) {
        let Some(connected) = self.connected(slot) else { return };
        connected.is_paused = false;
        if std::mem::take(&mut connected.has_ended) {
            self.arrived.push_back((slot, Arrived::End));
        } else if connected.receiving == Receiving::Idle {
            self.ask_again(slot);
        }
    }

    fn stop_accepting(&mut self) {
        for at in 0..self.listeners.descriptors().count() {
            self.ring.cancel(Request::Listener(at as u32).name(), Request::Cancel.name());
        }
        self.listeners.close();
    }

    fn clock_ns(&self) -> u64 {
        self.started.elapsed().as_nanos() as u64
    }

    fn unix_ms(&self) -> u64 {
        clock::unix_ms()
    }
}
