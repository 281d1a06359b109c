//! `connect`: how fast a server takes new connections.

use super::crowd::{Crowd, Receiver};
use super::ledger::Faults;
use super::meter::Stretch;
use super::process::Sample;
use super::progress::Progress;
use super::report::{Figure, Report};
use super::seat::{Seat, room_name};
use super::times::Times;
use super::{BenchError, Options};

/// Opens all connections, so many handshakes at a time, until each is welcomed, and has joined its room where it is to;
/// drops them; and again each round.
pub(super) fn run(options: &Options, progress: &mut Progress) -> Result<Report, BenchError> {
    let settings = [("connections", options.connections as u64), ("handshakes", options.handshakes as u64)];
    let mut report = Report::new(options, &settings);
    report.setting("join", options.join);
    report.setting("rooms", options.rooms as u64);
    let rooms = |at: usize| if options.join { vec![room_name(at % options.rooms)] } else { Vec::new() };
    let seat = |at| Seat::new(format!("u{at:06}"), rooms(at)).offering(options.deflate);
    let seats = (0..options.connections).map(seat);
    let mut crowd = Crowd::new(options, seats)?;
    let mut watch = Watch::default();
    for _ in 0..options.rounds {
        // What the last round left behind is the server's to clean up before the next.
        crowd.drop_all();
        std::thread::sleep(options.warmup);
        let from = Sample::take(options)?;
        crowd.open(options.connections, &mut watch, progress)?;
        let stretch = Stretch { from, to: Sample::take(options)? };
        let mut times = Times::new();
        crowd.opened().iter().for_each(|time| times.record(*time));
        let mut round = vec![
            Figure { name: "seconds", value: stretch.elapsed().as_secs_f64() },
            Figure { name: "connections_per_s", value: stretch.per_second(options.connections as u64) },
        ];
        times.figures(&mut round);
        stretch.cpu(options.connections as u64, &mut round, &mut report);
        report.round(round);
    }
    report.faults(watch.faults);
    Ok(report)
}

/// Takes note of connections that end; what they receive does not matter.
#[derive(Debug, Default)]
pub(super) struct Watch {
    /// What was found.
    pub(super) faults: Faults,
}

impl Receiver for Watch {
    fn message(&mut self, _at: usize, _payload: &[u8], _reply: &mut Vec<u8>) {}

    fn ended(&mut self, at: usize, why: &str) {
        self.faults.ended += 1;
        self.faults.tell(|text| text.push_str(&format!("connection {at}: {why}")));
    }
}
