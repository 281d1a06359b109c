//! `fanout`, `rooms` and `latency`: publishers, rooms, subscribers. Other scenarios publish in the same way.
//!
//! In a closed loop each room has a fixed number of messages outstanding: a message is done when every subscriber of
//! its room has it, and then the room's publisher sends the next. In an open loop messages leave at fixed times,
//! whatever the server does, and each delivery is timed from the moment its message should have left.
//!
//! Every delivery is numbered and counted. Of some the content is compared as well, and with compression no others are
//! even inflated: they count as the next message of their connection.

use super::body::Bodies;
use super::crowd::{Crowd, Receiver};
use super::inbox::Inbox;
use super::ledger::Faults;
use super::limits::{COMPARED_EVERY, COMPARED_FIRST, SEQUENCE_MAX};
use super::progress::Progress;
use super::report::{Figure, Report, Round};
use super::runner::{Runner, Workload};
use super::scenario::Scenario;
use super::schedule::Schedule;
use super::seat::{Seat, room_name};
use super::times::Times;
use super::wire::{Stamp, Tag};
use super::{BenchError, Options};

/// Runs one of the three scenarios.
pub(super) fn run(options: &Options, progress: &mut Progress) -> Result<Report, BenchError> {
    let mut report = report(options);
    let mut crowd = Crowd::new(options, seats(options))?;
    let mut load = Load::new(options, crowd.mask());
    crowd.open(options.sockets(), &mut load, progress)?;
    match options.scenario {
        Scenario::Latency => load.open_loop(Schedule::start(options.rate_per_s, &mut crowd)?),
        Scenario::Fanout
        | Scenario::Rooms
        | Scenario::Private
        | Scenario::Echo
        | Scenario::Idle
        | Scenario::Connect
        | Scenario::Resume
        | Scenario::Hostile
        | Scenario::Logins
        | Scenario::Market
        | Scenario::Storm => load.closed_loop(options.outstanding),
    }
    let load = Runner::new(options, crowd, load, progress).run(&mut report)?;
    report.faults(load.close());
    Ok(report)
}

/// A report that names what shapes the load.
pub(super) fn report(options: &Options) -> Report {
    let pace = match options.scenario {
        Scenario::Latency | Scenario::Hostile | Scenario::Logins => ("rate_per_s", options.rate_per_s),
        Scenario::Fanout
        | Scenario::Rooms
        | Scenario::Private
        | Scenario::Echo
        | Scenario::Idle
        | Scenario::Connect
        | Scenario::Resume
        | Scenario::Market
        | Scenario::Storm => ("outstanding", options.outstanding as u64),
    };
    let settings = [
        ("connections", options.connections as u64),
        ("rooms", options.rooms as u64),
        ("publishers", options.publishers as u64),
        ("payload_bytes", options.payload_bytes as u64),
        pace,
    ];
    let mut report = Report::new(options, &settings);
    report.setting("payload", options.payload.name());
    report
}

/// The seats of the subscribers, then of the publishers. A room's subscribers do not sit side by side.
pub(super) fn seats(options: &Options) -> impl Iterator<Item = Seat> {
    let rooms = options.rooms;
    let deflate = options.deflate;
    let subscriber = move |at: usize| Seat::new(format!("u{at:06}"), vec![room_name(at % rooms)]).offering(deflate);
    // As members they get nothing of what they publish themselves, and no one else publishes into these rooms.
    let is_member = are_publishers_members(options);
    let node = usize::from(!options.peers.is_empty());
    let own_rooms = move |at: usize| (at..rooms).step_by(options.publishers).filter(move |_| is_member);
    let publisher = move |at: usize| {
        let rooms = own_rooms(at).map(room_name).collect();
        Seat { node, ..Seat::new(format!("p{at:06}"), rooms) }
    };
    (0..options.connections).map(subscriber).chain((0..options.publishers).map(publisher))
}

/// Whether those who publish have to be in the room.
pub(super) fn are_publishers_members(options: &Options) -> bool {
    options.credentials.ask_for_membership() && options.dialect.asks_for_membership()
}

/// One room's messages.
#[derive(Debug)]
struct Stream {
    publisher: usize,
    /// Messages published so far; also the number of the next.
    published: u32,
    /// The oldest message that is not done.
    oldest: u32,
}

/// When the next message leaves.
#[derive(Debug)]
enum Pace {
    /// Not at all: before the start and after the end.
    Stopped,
    /// When the oldest of so many is done.
    Closed { outstanding: u32 },
    /// At its time.
    Open(Schedule),
}

/// What is published, received and waited for.
pub(super) struct Load {
    bodies: Bodies,
    streams: Vec<Stream>,
    subscribers_per_room: u32,
    connections: usize,
    /// The room of each subscriber.
    room_of: Vec<u32>,
    /// Deliveries to come for each outstanding message of a closed loop: a ring for each stream.
    left: Vec<u32>,
    inbox: Inbox,
    pace: Pace,
    done: u64,
    /// Deliveries that all messages published so far will make.
    expected: u64,
    /// Frames to send at the end of the turn, by publisher.
    batches: Vec<Vec<u8>>,
    /// Publishers with such frames.
    dirty: Vec<usize>,
    times: Times,
    exhausted: bool,
}

impl Load {
    /// Nothing is published yet.
    pub(super) fn new(options: &Options, mask: [u8; 4]) -> Load {
        let rooms = options.rooms as u32;
        let stream = |number: u32| Stream { publisher: number as usize % options.publishers, published: 0, oldest: 0 };
        let room_of: Vec<u32> = (0..options.connections as u32).map(|at| at % rooms).collect();
        Load {
            bodies: Bodies::new(options.dialect, options.payload, options.payload_bytes, mask),
            streams: (0..rooms).map(stream).collect(),
            subscribers_per_room: (options.connections / options.rooms) as u32,
            connections: options.connections,
            inbox: Inbox::new(options.dialect, room_of.iter().map(|room| Tag::new(*room))),
            room_of,
            left: Vec::new(),
            pace: Pace::Stopped,
            done: 0,
            expected: 0,
            batches: vec![Vec::new(); options.publishers],
            dirty: Vec::new(),
            times: Times::new(),
            exhausted: false,
        }
    }

    /// Publishes so many messages into each room, and from then on the next where one is done.
    pub(super) fn closed_loop(&mut self, outstanding: usize) {
        self.left = vec![0; self.streams.len() * outstanding];
        self.pace = Pace::Closed { outstanding: outstanding as u32 };
        for room in 0..self.streams.len() {
            for _ in 0..outstanding {
                self.publish(room);
            }
        }
    }

    /// Publishes into each room at the schedule's times.
    pub(super) fn open_loop(&mut self, schedule: Schedule) {
        self.pace = Pace::Open(schedule);
    }

    /// Closes the books.
    pub(super) fn close(self) -> Faults {
        let published: Vec<u32> = self.streams.iter().map(|stream| stream.published).collect();
        self.inbox.close(|at| published[self.room_of[at] as usize])
    }

    #[inline]
    fn publish(&mut self, room: usize) {
        let stream = &mut self.streams[room];
        let batch = &mut self.batches[stream.publisher];
        if batch.is_empty() {
            self.dirty.push(stream.publisher);
        }
        self.bodies.append(room as u32, stream.published, batch);
        if let Pace::Closed { outstanding } = self.pace {
            self.left[room * outstanding as usize + (stream.published % outstanding) as usize] =
                self.subscribers_per_room;
        }
        stream.published += 1;
        self.exhausted |= stream.published == SEQUENCE_MAX;
        self.expected += u64::from(self.subscribers_per_room);
    }

    /// Whether a connection's message of this number is compared with what was published.
    #[inline]
    fn compares(at: usize, sequence: u32) -> bool {
        sequence < COMPARED_FIRST || at.is_multiple_of(COMPARED_EVERY)
    }

    #[cold]
    fn compare(&mut self, at: usize, payload: &[u8], room: usize, sequence: u32) {
        if !self.bodies.carries(payload, room as u32, sequence) {
            self.inbox.altered(at, sequence);
        }
    }

    /// A message has reached one more subscriber.
    #[inline]
    fn delivered(&mut self, room: usize, sequence: u32) {
        match &self.pace {
            Pace::Closed { outstanding } => {
                let outstanding = *outstanding;
                let ring = room * outstanding as usize;
                let left = &mut self.left[ring + (sequence % outstanding) as usize];
                *left -= 1;
                if *left == 0 {
                    self.finished(room, outstanding);
                }
            }
            Pace::Open(schedule) => self.times.record(schedule.intended(sequence).elapsed()),
            Pace::Stopped => {}
        }
    }

    /// A message is done: the next leaves when no older one is outstanding.
    fn finished(&mut self, room: usize, outstanding: u32) {
        let ring = room * outstanding as usize;
        loop {
            let Stream { oldest, published, .. } = self.streams[room];
            if oldest == published || self.left[ring + (oldest % outstanding) as usize] > 0 {
                return;
            }
            self.streams[room].oldest += 1;
            self.done += 1;
            // Those published in this very loop have all their deliveries before them.
            self.publish(room);
        }
    }
}

impl Receiver for Load {
    #[inline]
    fn message(&mut self, at: usize, payload: &[u8], _reply: &mut Vec<u8>) {
        let Some(room) = self.room_of.get(at) else { return self.inbox.reply(at, payload) };
        let room = *room as usize;
        let Some(stamp) = self.inbox.stamp(at, payload) else { return };
        if self.inbox.deliver(at, stamp, self.streams[room].published) {
            if Load::compares(at, stamp.sequence) {
                self.compare(at, payload, room, stamp.sequence);
            }
            self.delivered(room, stamp.sequence);
        }
    }

    /// Publishers are not subscribers, and what is said to them is read.
    #[inline]
    fn reads(&self, at: usize) -> bool {
        at >= self.connections || Load::compares(at, self.inbox.next(at).sequence)
    }

    #[inline]
    fn unread(&mut self, at: usize) {
        let room = self.room_of[at] as usize;
        let stamp @ Stamp { sequence, .. } = self.inbox.next(at);
        if self.inbox.deliver(at, stamp, self.streams[room].published) {
            self.delivered(room, sequence);
        }
    }

    fn pong(&mut self) {
        self.inbox.pong();
    }

    fn ended(&mut self, at: usize, why: &str) {
        self.inbox.ended(at, why);
    }
}

impl Workload for Load {
    fn inbox(&mut self) -> &mut Inbox {
        &mut self.inbox
    }

    fn done(&self) -> u64 {
        match self.pace {
            Pace::Closed { .. } => self.done,
            Pace::Open(_) | Pace::Stopped => self.inbox.delivered() / u64::from(self.subscribers_per_room),
        }
    }

    fn is_waiting(&mut self) -> bool {
        self.inbox.delivered() < self.expected
    }

    fn send(&mut self, crowd: &mut Crowd) -> Result<(), BenchError> {
        if let Pace::Open(schedule) = &mut self.pace {
            for _ in 0..schedule.release() {
                for room in 0..self.streams.len() {
                    self.publish(room);
                }
            }
        }
        for publisher in self.dirty.drain(..) {
            crowd.send(self.connections + publisher, &self.batches[publisher]);
            self.batches[publisher].clear();
        }
        if self.exhausted {
            return Err(BenchError::Options(format!("a room has had {SEQUENCE_MAX} messages; run for a shorter time")));
        }
        Ok(())
    }

    fn stop(&mut self) {
        self.pace = Pace::Stopped;
    }

    fn begin_round(&mut self) {
        self.times.reset();
        if let Pace::Open(schedule) = &mut self.pace {
            schedule.take_late_max();
        }
    }

    fn figures(&mut self, round: &mut Round) {
        if let Pace::Open(schedule) = &mut self.pace {
            self.times.figures(round);
            round.push(Figure { name: "sent_late_max_us", value: schedule.take_late_max().as_secs_f64() * 1e6 });
        }
    }
}
