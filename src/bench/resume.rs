//! `resume`: clients that come back with the position they had, and get what they have missed from the history.

use std::time::Instant;

use super::body::Bodies;
use super::crowd::{Crowd, Receiver};
use super::dialect::StreamPosition;
use super::inbox::Inbox;
use super::ledger::Faults;
use super::load;
use super::meter::Stretch;
use super::process::Sample;
use super::progress::Progress;
use super::report::{Figure, Report};
use super::seat::{Seat, room_name};
use super::times::Times;
use super::wire::Tag;
use super::{BenchError, Options};

/// Connections that see to a room's history: one listens, one publishes.
pub(super) const KEEPERS: usize = 2;

/// In each round a room of its own: a listener learns where it stands, `--missed` messages are published, and then all
/// clients come back with that position, so many handshakes at a time, until each has its room again and all it missed.
pub(super) fn run(options: &Options, progress: &mut Progress) -> Result<Report, BenchError> {
    let mut report = Report::new(
        options,
        &[
            ("connections", options.connections as u64),
            ("missed", options.missed.into()),
            ("handshakes", options.handshakes as u64),
            ("payload_bytes", options.payload_bytes as u64),
        ],
    );
    report.setting("payload", options.payload.name());
    let mut faults = Faults::default();
    for room in 0..options.rounds as u32 {
        let keepers = Keepers::fill(options, room, progress)?;
        faults.add(come_back(options, room, &keepers.position, &mut report, progress)?);
        faults.add(keepers.absent.inbox.close(|_| options.missed));
        if !faults.is_empty() {
            break;
        }
    }
    report.faults(faults);
    Ok(report)
}

/// The clients of a round, and what it found wrong.
fn come_back(
    options: &Options,
    room: u32,
    since: &StreamPosition,
    report: &mut Report,
    progress: &mut Progress,
) -> Result<Faults, BenchError> {
    let seat = |at| Seat {
        since: Some(since.clone()),
        ..Seat::new(format!("u{at:06}"), vec![room_name(room as usize)]).offering(options.deflate)
    };
    let mut crowd = Crowd::new(options, (0..options.connections).map(seat))?;
    let mut absent = Absent::new(options, room, options.connections);
    absent.published = options.missed;
    // What came before is the server's to finish.
    std::thread::sleep(options.warmup);
    let from = Sample::take(options)?;
    crowd.open(options.connections, &mut absent, progress)?;
    let stretch = Stretch { from, to: Sample::take(options)? };
    let mut times = Times::new();
    crowd.opened().iter().for_each(|time| times.record(*time));
    let (count, delivered) = (options.connections as u64, absent.inbox.delivered());
    let mut round = vec![
        Figure { name: "seconds", value: stretch.elapsed().as_secs_f64() },
        Figure { name: "resumes_per_s", value: stretch.per_second(count) },
        Figure { name: "deliveries_per_s", value: stretch.per_second(delivered) },
    ];
    times.figures(&mut round);
    stretch.traffic(crowd.traffic(), delivered, options.deflate, &mut round, report);
    stretch.cpu(count, &mut round, report);
    report.round(round);
    Ok(absent.inbox.close(|_| options.missed))
}

/// Those who are in a room while its history grows: without them some servers would forget it.
struct Keepers {
    /// They stay as long as this lives.
    _crowd: Crowd,
    absent: Absent,
    /// Where the room stood before anything was published.
    position: StreamPosition,
}

impl Keepers {
    /// Publishes what is to be missed, and waits until it has been delivered.
    fn fill(options: &Options, room: u32, progress: &mut Progress) -> Result<Keepers, BenchError> {
        let rooms = vec![room_name(room as usize)];
        let is_member = load::are_publishers_members(options);
        let publisher = Seat::new("p000000".to_owned(), if is_member { rooms.clone() } else { Vec::new() });
        let listener = Seat::new("l000000".to_owned(), rooms);
        let mut crowd = Crowd::new(options, [listener, publisher])?;
        let mut absent = Absent::new(options, room, 1);
        crowd.open(1, &mut absent, progress)?;
        let Some(position) = crowd.position().cloned() else {
            let what = "the server keeps no history of the room: turn history on for rooms whose names begin with r";
            return Err(BenchError::Server(what.to_owned()));
        };
        crowd.open(KEEPERS, &mut absent, progress)?;
        let mut bodies = Bodies::new(options.dialect, options.payload, options.payload_bytes, crowd.mask());
        let mut frames = Vec::new();
        (0..options.missed).for_each(|sequence| bodies.append(room, sequence, &mut frames));
        absent.published = options.missed;
        crowd.send(1, &frames);
        let mut seen = (0, Instant::now());
        while absent.inbox.delivered() < options.missed.into() && !absent.inbox.is_faulty() {
            crowd.turn(&mut absent, None)?;
            if absent.inbox.delivered() > seen.0 {
                seen = (absent.inbox.delivered(), Instant::now());
            } else if seen.1.elapsed() > options.timeout {
                let what = format!("{} of {} messages came that were to be missed", seen.0, options.missed);
                return Err(BenchError::Silent { what, patience: options.timeout });
            }
        }
        Ok(Keepers { _crowd: crowd, absent, position })
    }
}

/// Takes the messages of a room, live or from its history.
struct Absent {
    inbox: Inbox,
    /// Connections that listen: the first ones.
    listeners: usize,
    published: u32,
}

impl Absent {
    fn new(options: &Options, room: u32, listeners: usize) -> Absent {
        let tags = std::iter::repeat_n(Tag::new(room), listeners);
        Absent { inbox: Inbox::new(options.dialect, tags), listeners, published: 0 }
    }
}

impl Receiver for Absent {
    fn message(&mut self, at: usize, payload: &[u8], _reply: &mut Vec<u8>) {
        if at >= self.listeners {
            return self.inbox.reply(at, payload);
        }
        if let Some(stamp) = self.inbox.stamp(at, payload) {
            self.inbox.deliver(at, stamp, self.published);
        }
    }

    fn ended(&mut self, at: usize, why: &str) {
        self.inbox.ended(at, why);
    }
}
