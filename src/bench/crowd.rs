//! Many connections on one thread: opening them, reading what they receive, writing what they send.
//!
//! One epoll, one receive buffer for all, edge-triggered readiness: a turn reads each ready socket in large pieces and
//! hands every message to a [`Receiver`]. Knows the welcome and the join, and inflates what is to be read; what
//! messages mean is the scenario's business.

use std::io::{self, ErrorKind, Read};
use std::time::{Duration, Instant};

use mio::event::Source;
use mio::{Events, Interest, Poll, Token};

use super::deflate::{Inflater, Reading};
use super::dialect::{Dialect, ReplyKind, StreamPosition};
use super::handshake::{Consent, Handshake};
use super::limits::{EVENTS_PER_TURN, RECEIVE_BYTES, TURN_MS_MAX};
use super::link::{Link, State};
use super::meter::Traffic;
use super::progress::Progress;
use super::seat::Seat;
use super::target::Target;
use super::wire::{Frame, Opcode, Parsed, masked, parse};
use super::{BenchError, Options};
use crate::client::tls_failure;

/// Takes the messages of connections that are ready.
pub(super) trait Receiver {
    /// A message for connection `at`. Frames appended to `reply` are sent on that connection at the end of this read.
    fn message(&mut self, at: usize, payload: &[u8], reply: &mut Vec<u8>);

    /// Whether the compressed messages of connection `at` are still to be inflated. Once they are not, they never are.
    fn reads(&self, _at: usize) -> bool {
        true
    }

    /// A compressed message for connection `at` that is not to be inflated.
    fn unread(&mut self, _at: usize) {}

    /// A control pong.
    fn pong(&mut self) {}

    /// The answer to the join of connection `at`.
    fn joined(&mut self, _at: usize, _answer: &[u8]) {}

    /// Connection `at` has ended without having been asked to.
    fn ended(&mut self, at: usize, why: &str);
}

/// A crowd of connections.
pub(super) struct Crowd {
    poll: Poll,
    events: Events,
    links: Vec<Link>,
    buffer: Vec<u8>,
    reply: Vec<u8>,
    inflater: Inflater,
    inflated: Vec<u8>,
    handshake: Handshake,
    /// With the other nodes, in the order of the options.
    peers: Vec<Handshake>,
    dialect: Dialect,
    handshakes_max: usize,
    timeout: Duration,
    mask: [u8; 4],
    traffic: Traffic,
    /// Connections that are open.
    open: usize,
    /// Connections that are being opened.
    opening: usize,
    /// Whether a connection that does not come through is no failure.
    is_forgiving: bool,
    /// What made opening fail.
    failure: Option<String>,
    /// How long each connection took to open, in order of arrival.
    opened: Vec<Duration>,
    /// What the last answer to a join said of where its room stands.
    position: Option<StreamPosition>,
}

const TIMER: Token = Token(usize::MAX);

/// What is said of a server that breaks the protocol.
const UNASKED: &str = "the server sent a frame that was not asked for";

impl Crowd {
    /// No client is connected yet.
    pub(super) fn new(options: &Options, seats: impl IntoIterator<Item = Seat>) -> Result<Crowd, BenchError> {
        let handshake = Handshake::new(options);
        let peers = options.peers.iter().map(|target| Handshake::with(target, options)).collect();
        // Tokens are made before anything is measured.
        let vacant = |seat: Seat| {
            let token = handshake.token(&seat.user)?;
            Ok(Link::vacant(seat, token))
        };
        Ok(Crowd {
            poll: Poll::new()?,
            events: Events::with_capacity(EVENTS_PER_TURN),
            links: seats.into_iter().map(vacant).collect::<Result<_, BenchError>>()?,
            buffer: vec![0; RECEIVE_BYTES],
            reply: Vec::new(),
            inflater: Inflater::new(),
            inflated: Vec::new(),
            handshake,
            peers,
            dialect: options.dialect,
            handshakes_max: options.handshakes,
            timeout: options.timeout,
            mask: fastrand::u32(1..).to_le_bytes(),
            traffic: Traffic::default(),
            open: 0,
            opening: 0,
            is_forgiving: false,
            failure: None,
            opened: Vec::new(),
            position: None,
        })
    }

    /// The mask of every frame.
    pub(super) fn mask(&self) -> [u8; 4] {
        self.mask
    }

    /// What has been received so far.
    pub(super) fn traffic(&self) -> Traffic {
        self.traffic
    }

    /// How long each connection took from its first packet until it was welcomed and had joined.
    pub(super) fn opened(&self) -> &[Duration] {
        &self.opened
    }

    /// Where the room that was joined last stands, if it keeps history.
    pub(super) fn position(&self) -> Option<&StreamPosition> {
        self.position.as_ref()
    }

    /// Has a timer end the waiting of turns.
    pub(super) fn watch(&mut self, source: &mut impl Source) -> Result<(), BenchError> {
        Ok(self.poll.registry().register(source, TIMER, Interest::READABLE)?)
    }

    /// Opens the first `count` connections that are not open yet, so many handshakes at a time, until all are welcomed
    /// and have joined.
    ///
    /// # Errors
    ///
    /// At the first connection that is refused, or where none comes through for the timeout.
    pub(super) fn open(
        &mut self,
        count: usize,
        receiver: &mut impl Receiver,
        progress: &mut Progress,
    ) -> Result<(), BenchError> {
        let mut next = 0;
        let mut seen = (self.open, Instant::now());
        while self.open < count {
            while next < count && self.opening < self.handshakes_max {
                if matches!(self.links[next].state, State::Vacant) {
                    self.connect(next)?;
                }
                next += 1;
            }
            self.turn(receiver, None)?;
            if let Some(failure) = self.failure.take() {
                return Err(BenchError::Server(failure));
            }
            if self.open > seen.0 {
                seen = (self.open, Instant::now());
            } else if seen.1.elapsed() > self.timeout {
                let what = format!("{} of {count} connections were welcomed, then none", self.open);
                return Err(BenchError::Silent { what, patience: self.timeout });
            }
            progress.show(&format!("{} of {count} connections", self.open), self.open as f64 / count as f64);
        }
        Ok(())
    }

    /// Drops every connection, without a goodbye.
    pub(super) fn drop_all(&mut self) {
        self.links.iter_mut().for_each(Link::vacate);
        self.open = 0;
        self.opening = 0;
        self.opened.clear();
    }

    /// Drops one connection, without a goodbye.
    pub(super) fn drop_one(&mut self, at: usize) {
        self.leave(at);
        self.links[at].vacate();
    }

    /// Opens a connection again, with a node (0: the one that is measured) and perhaps with a position in its room. Where
    /// it does not come through, the receiver is told that it has ended.
    pub(super) fn come_back(
        &mut self,
        at: usize,
        node: usize,
        since: Option<StreamPosition>,
        receiver: &mut impl Receiver,
    ) {
        self.is_forgiving = true;
        let link = &mut self.links[at];
        link.vacate();
        (link.seat.node, link.seat.since) = (node, since);
        if let Err(error) = self.connect(at) {
            self.links[at].state = State::Ended;
            receiver.ended(at, &error.to_string());
        }
    }

    /// Reads nothing more of a connection.
    pub(super) fn stall(&mut self, at: usize) {
        self.links[at].is_stalled = true;
    }

    /// Reads it again, and what has come meanwhile.
    pub(super) fn wake(&mut self, at: usize, receiver: &mut impl Receiver) {
        self.links[at].is_stalled = false;
        self.receive(at, true, receiver);
    }

    /// Whether a connection is welcomed and in its room.
    pub(super) fn is_open(&self, at: usize) -> bool {
        matches!(self.links[at].state, State::Open)
    }

    /// Bytes that a connection's socket has not taken.
    pub(super) fn unsent_bytes(&self, at: usize) -> usize {
        self.links[at].unsent.len()
    }

    /// Sends whole frames on an open connection; what its socket does not take follows when it does.
    pub(super) fn send(&mut self, at: usize, frames: &[u8]) {
        self.links[at].send(frames);
    }

    /// Waits, at most for `wait` and at most for [`TURN_MS_MAX`], and handles what is ready.
    pub(super) fn turn(&mut self, receiver: &mut impl Receiver, wait: Option<Duration>) -> Result<(), BenchError> {
        let longest = Duration::from_millis(TURN_MS_MAX);
        match self.poll.poll(&mut self.events, Some(wait.map_or(longest, |wait| wait.min(longest)))) {
            Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(()),
            outcome => outcome?,
        }
        // The events are lent to the loop, which needs the rest of the crowd.
        let events = std::mem::replace(&mut self.events, Events::with_capacity(0));
        for event in &events {
            if event.token() == TIMER {
                continue;
            }
            let at = event.token().0;
            if event.is_writable() {
                self.writable(at, receiver);
            }
            if (event.is_readable() || event.is_read_closed()) && !self.links[at].is_stalled {
                self.receive(at, event.is_read_closed(), receiver);
            }
        }
        self.events = events;
        Ok(())
    }

    fn connect(&mut self, at: usize) -> Result<(), BenchError> {
        let target = self.handshake_of(at).target();
        let mut stream = target.dial().map_err(|error| unreachable(target, &error))?;
        self.poll.registry().register(stream.socket_mut(), Token(at), Interest::READABLE | Interest::WRITABLE)?;
        let link = &mut self.links[at];
        link.stream = Some(stream);
        link.state = State::Connecting;
        link.started = Instant::now();
        self.opening += 1;
        Ok(())
    }

    fn writable(&mut self, at: usize, receiver: &mut impl Receiver) {
        match self.links[at].state {
            State::Connecting => self.connected(at, receiver),
            State::Upgrading | State::Entering { .. } | State::Open => self.links[at].flush(),
            State::Vacant | State::Ended => {}
        }
    }

    fn connected(&mut self, at: usize, receiver: &mut impl Receiver) {
        let link = &self.links[at];
        let Some(stream) = &link.stream else { return };
        let stream = stream.socket();
        let broken = match stream.peer_addr() {
            Ok(_) => None,
            Err(error) if error.kind() == ErrorKind::NotConnected => match stream.take_error() {
                Ok(None) => return,
                Ok(Some(error)) | Err(error) => Some(error),
            },
            Err(error) => Some(error),
        };
        let handshake = self.handshake_of(at);
        if let Some(error) = broken {
            let why = unreachable(handshake.target(), &error).to_string();
            return self.fail(at, &why, receiver);
        }
        // Where the kernel has no such option the figures are its own doing.
        let _ = stream.set_nodelay(true);
        let request = handshake.request_with(&link.seat.user, link.token.as_deref(), link.seat.deflate);
        let link = &mut self.links[at];
        link.state = State::Upgrading;
        link.send(request.as_bytes());
    }

    fn handshake_of(&self, at: usize) -> &Handshake {
        match self.links[at].seat.node.checked_sub(1) {
            Some(peer) => &self.peers[peer],
            None => &self.handshake,
        }
    }

    /// Takes what has come. Where the end may have come with it, it is read for: no further event tells of it.
    fn receive(&mut self, at: usize, may_have_ended: bool, receiver: &mut impl Receiver) {
        let mut buffer = std::mem::take(&mut self.buffer);
        loop {
            let link = &mut self.links[at];
            let Some(stream) = &mut link.stream else { break };
            let is_emptied_by_short_read = stream.is_emptied_by_short_read() && !may_have_ended;
            let held = link.partial.len();
            buffer[..held].copy_from_slice(&link.partial);
            match stream.read(&mut buffer[held..]) {
                Ok(0) => {
                    self.fail(at, "the server ended the connection", receiver);
                    break;
                }
                Ok(taken) => {
                    self.traffic.bytes += taken as u64;
                    let filled = held + taken;
                    let used = self.handle(at, &buffer[..filled], receiver);
                    let link = &mut self.links[at];
                    link.partial.clear();
                    link.partial.extend_from_slice(&buffer[used..filled]);
                    if filled < buffer.len() && is_emptied_by_short_read {
                        break;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => {
                    let why = tls_failure(&error).unwrap_or_else(|| format!("the connection broke: {error}"));
                    self.fail(at, &why, receiver);
                    break;
                }
            }
        }
        self.buffer = buffer;
    }

    /// Handles what was received and says how many bytes were used up.
    fn handle(&mut self, at: usize, bytes: &[u8], receiver: &mut impl Receiver) -> usize {
        let mut used = 0;
        if matches!(self.links[at].state, State::Connecting | State::Upgrading) {
            match self.handshake_of(at).consent(bytes, self.links[at].seat.deflate) {
                Ok(None) => return 0,
                Ok(Some(Consent { head_bytes, deflate })) => {
                    used = head_bytes;
                    self.links[at].reading = Reading::new(deflate);
                }
                Err(why) => {
                    self.fail(at, &why, receiver);
                    return bytes.len();
                }
            }
            let link = &mut self.links[at];
            link.state = State::Entering { welcomed: false, joined: link.seat.rooms.is_empty() };
            let entrance = self.dialect.entrance(link.token.as_deref(), &link.seat);
            if let Some(entrance) = entrance {
                link.send(&masked(Opcode::Text, entrance.as_bytes(), self.mask));
            }
            if link.seat.is_echo {
                self.note_open(at);
            }
        }
        let mut reply = std::mem::take(&mut self.reply);
        loop {
            match parse(&bytes[used..]) {
                Parsed::Frame(frame, frame_bytes) => {
                    used += frame_bytes;
                    self.frame(at, &frame, receiver, &mut reply);
                }
                Parsed::Partial => break,
                Parsed::Malformed => {
                    self.fail(at, UNASKED, receiver);
                    used = bytes.len();
                    break;
                }
            }
        }
        if !reply.is_empty() {
            self.links[at].send(&reply);
            reply.clear();
        }
        self.reply = reply;
        used
    }

    #[inline]
    fn frame(&mut self, at: usize, frame: &Frame<'_>, receiver: &mut impl Receiver, reply: &mut Vec<u8>) {
        match (frame, &self.links[at].state) {
            (Frame::Message(payload), _) => {
                self.messages(at, payload, receiver, reply);
            }
            (Frame::Compressed(payload), _) => self.compressed(at, payload, receiver, reply),
            (Frame::First { payload, is_compressed }, _) => {
                if !self.links[at].fragments.begin(payload, *is_compressed) {
                    self.fail(at, UNASKED, receiver);
                }
            }
            (Frame::Further { payload, is_last }, _) => match self.links[at].fragments.go_on(payload, *is_last) {
                Ok(None) => {}
                Ok(Some(whole)) if whole.is_compressed => self.compressed(at, &whole.payload, receiver, reply),
                Ok(Some(whole)) => {
                    self.messages(at, &whole.payload, receiver, reply);
                }
                Err(()) => self.fail(at, UNASKED, receiver),
            },
            (Frame::Ping(payload), _) => reply.extend_from_slice(&masked(Opcode::Pong, payload, self.mask)),
            (Frame::Pong, _) => receiver.pong(),
            (Frame::Close(payload), _) => {
                let code = payload.first_chunk().map_or(1005, |code| u16::from_be_bytes(*code));
                let reason = String::from_utf8_lossy(payload.get(2..).unwrap_or_default()).into_owned();
                self.fail(at, &format!("the server closed the connection: {code} {reason:?}"), receiver);
            }
        }
    }

    /// Handles the messages of a frame: usually one, and how many there are.
    #[inline]
    fn messages(&mut self, at: usize, payload: &[u8], receiver: &mut impl Receiver, reply: &mut Vec<u8>) -> u64 {
        let dialect = self.dialect;
        let mut count = 0;
        for message in dialect.messages(payload) {
            if let Some(pong) = dialect.pong(message) {
                reply.extend_from_slice(&masked(Opcode::Text, pong, self.mask));
                continue;
            }
            count += 1;
            match self.links[at].state {
                State::Open => receiver.message(at, message, reply),
                _ => self.entering(at, message, receiver, reply),
            }
        }
        self.traffic.messages += count;
        count
    }

    #[inline]
    fn compressed(&mut self, at: usize, payload: &[u8], receiver: &mut impl Receiver, reply: &mut Vec<u8>) {
        let link = &mut self.links[at];
        if matches!(link.reading, Reading::Alone | Reading::Window(_))
            && matches!(link.state, State::Open)
            && self.dialect.has_one_message_a_frame()
            && !receiver.reads(at)
        {
            link.reading = Reading::Unread;
        }
        let mut inflated = std::mem::take(&mut self.inflated);
        let outcome = match &mut link.reading {
            Reading::Unread => {
                self.inflated = inflated;
                self.traffic.messages += 1;
                self.traffic.compressed += 1;
                return receiver.unread(at);
            }
            Reading::Forbidden => Err("the server sent a compressed message without an agreement".to_owned()),
            Reading::Alone => {
                self.inflater.reset();
                self.inflater.inflate(payload, &mut inflated)
            }
            Reading::Window(window) => {
                window.get_or_insert_with(|| Box::new(Inflater::new())).inflate(payload, &mut inflated)
            }
        };
        match outcome {
            Ok(()) => {
                let count = self.messages(at, &inflated, receiver, reply);
                self.traffic.compressed += count;
                self.traffic.inflated += count;
            }
            Err(why) => self.fail(at, &why, receiver),
        }
        self.inflated = inflated;
    }

    /// Looks for the welcome and for the answer to the join; anything else is the scenario's.
    #[cold]
    fn entering(&mut self, at: usize, message: &[u8], receiver: &mut impl Receiver, reply: &mut Vec<u8>) {
        let link = &mut self.links[at];
        let State::Entering { welcomed, joined } = &mut link.state else { return };
        match self.dialect.reply_kind(message) {
            ReplyKind::Welcome => *welcomed = true,
            ReplyKind::Joined => {
                *joined = true;
                receiver.joined(at, message);
                let answer = self.dialect.joined(message);
                self.position = answer.position;
                self.traffic.messages += answer.messages.len() as u64;
                answer.messages.into_iter().for_each(|message| receiver.message(at, message, reply));
            }
            ReplyKind::Error => {
                let why = format!("the server refused to let it in: {}", String::from_utf8_lossy(message));
                return self.fail(at, &why, receiver);
            }
            ReplyKind::Pong | ReplyKind::Other => receiver.message(at, message, reply),
        }
        if *welcomed && *joined {
            self.note_open(at);
        }
    }

    fn note_open(&mut self, at: usize) {
        let link = &mut self.links[at];
        link.state = State::Open;
        self.opened.push(link.started.elapsed());
        self.opening -= 1;
        self.open += 1;
    }

    #[cold]
    fn fail(&mut self, at: usize, why: &str, receiver: &mut impl Receiver) {
        let is_told = match self.leave(at) {
            State::Connecting | State::Upgrading | State::Entering { .. } if !self.is_forgiving => {
                self.failure.get_or_insert_with(|| format!("connection {at}: {why}"));
                false
            }
            State::Connecting | State::Upgrading | State::Entering { .. } | State::Open => true,
            State::Vacant | State::Ended => false,
        };
        if is_told {
            receiver.ended(at, why);
        }
    }

    /// Takes the connection out of the counts. It was in this state.
    fn leave(&mut self, at: usize) -> State {
        let link = &mut self.links[at];
        link.stream = None;
        let state = std::mem::replace(&mut link.state, State::Ended);
        match state {
            State::Connecting | State::Upgrading | State::Entering { .. } => self.opening -= 1,
            State::Open => self.open -= 1,
            State::Vacant | State::Ended => {}
        }
        state
    }
}

fn unreachable(target: &Target, error: &io::Error) -> BenchError {
    BenchError::Server(format!("cannot connect to {}: {error}; start the server, or name it with --url", target.url))
}
