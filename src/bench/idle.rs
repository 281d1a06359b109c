//! `idle`: connections that do nothing, and the memory that each of them takes.

use std::time::{Duration, Instant};

use super::crowd::{Crowd, Receiver};
use super::inbox::Inbox;
use super::meter::Stretch;
use super::process::{Sample, resident_bytes};
use super::progress::Progress;
use super::report::{Figure, Report};
use super::seat::{Seat, room_name};
use super::wire::Tag;
use super::{BenchError, Options};

/// Opens the base, then the rest, each with a user id and one room, and looks at the server after each; holds them;
/// and in the end asks every one whether it is still served. One round: a server's memory never starts afresh.
pub(super) fn run(options: &Options, progress: &mut Progress) -> Result<Report, BenchError> {
    let settings = [
        ("connections", options.connections as u64),
        ("base", options.base as u64),
        ("rooms", options.rooms as u64),
        ("hold_ms", options.duration.as_millis() as u64),
    ];
    let mut report = Report::new(options, &settings);
    let rooms = options.rooms;
    let seat = |at| Seat::new(format!("u{at:06}"), vec![room_name(at % rooms)]).offering(options.deflate);
    let seats = (0..options.connections).map(seat);
    let mut crowd = Crowd::new(options, seats)?;
    let tags = (0..options.connections).map(|at| Tag::new((at % rooms) as u32));
    let mut idlers = Idlers { inbox: Inbox::new(options.dialect, tags) };

    crowd.open(options.base, &mut idlers, progress)?;
    hold(&mut crowd, &mut idlers, options.warmup, progress)?;
    let base_bytes = options.server_pid.map(resident_bytes).transpose()?;
    crowd.open(options.connections, &mut idlers, progress)?;
    hold(&mut crowd, &mut idlers, options.warmup, progress)?;
    let from = Sample::take(options)?;
    hold(&mut crowd, &mut idlers, options.duration, progress)?;
    let stretch = Stretch { from, to: Sample::take(options)? };
    let all_bytes = options.server_pid.map(resident_bytes).transpose()?;

    idlers.inbox.raise_barrier(&mut crowd, options);
    let start = Instant::now();
    while idlers.inbox.is_before_barrier() && start.elapsed() < options.timeout {
        crowd.turn(&mut idlers, None)?;
    }
    let mut round = vec![
        Figure { name: "connections", value: options.connections as f64 },
        Figure { name: "unanswered", value: idlers.inbox.unanswered() as f64 },
    ];
    if let Some((base, all)) = base_bytes.zip(all_bytes) {
        let slope = (all as f64 - base as f64) / (options.connections - options.base) as f64;
        round.push(Figure { name: "resident_base_bytes", value: base as f64 });
        round.push(Figure { name: "resident_bytes", value: all as f64 });
        round.push(Figure { name: "each_connection_bytes", value: slope });
    }
    stretch.cpu(options.connections as u64, &mut round, &mut report);
    report.round(round);
    let unanswered = idlers.inbox.unanswered() as u64;
    let mut faults = idlers.inbox.close(|_| 0);
    if unanswered > 0 {
        faults.missing += unanswered;
        faults.tell(|text| text.push_str(&format!("{unanswered} connections did not answer a ping in the end")));
    }
    report.faults(faults);
    Ok(report)
}

/// Lets time pass, answering what the server asks.
fn hold(crowd: &mut Crowd, idlers: &mut Idlers, time: Duration, progress: &mut Progress) -> Result<(), BenchError> {
    let start = Instant::now();
    while start.elapsed() < time {
        crowd.turn(idlers, Some(time.saturating_sub(start.elapsed())))?;
        progress.show("holding", start.elapsed().as_secs_f64() / time.as_secs_f64());
    }
    Ok(())
}

/// Nothing is published, so whatever bears a stamp is misrouted.
struct Idlers {
    inbox: Inbox,
}

impl Receiver for Idlers {
    fn message(&mut self, at: usize, payload: &[u8], _reply: &mut Vec<u8>) {
        if let Some(stamp) = self.inbox.stamp(at, payload) {
            self.inbox.deliver(at, stamp, 0);
        }
    }

    fn pong(&mut self) {
        self.inbox.pong();
    }

    fn ended(&mut self, at: usize, why: &str) {
        self.inbox.ended(at, why);
    }
}
