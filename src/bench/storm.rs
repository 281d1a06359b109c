//! `storm`: all connections are dropped at once and come back, as after a network's failure.

use std::time::Instant;

use super::crowd::Crowd;
use super::ledger::Faults;
use super::load::{Load, seats};
use super::meter::Stretch;
use super::process::Sample;
use super::progress::Progress;
use super::report::{Figure, Report};
use super::runner::Workload;
use super::{BenchError, Options};

/// Opens all; then in each round drops all, opens all, and publishes one message to every room: the round is over when
/// every subscriber has its room's.
pub(super) fn run(options: &Options, progress: &mut Progress) -> Result<Report, BenchError> {
    let settings = [
        ("connections", options.connections as u64),
        ("rooms", options.rooms as u64),
        ("publishers", options.publishers as u64),
        ("handshakes", options.handshakes as u64),
    ];
    let mut report = Report::new(options, &settings);
    let mut crowd = Crowd::new(options, seats(options))?;
    let mut faults = serve(options, &mut crowd, progress)?.faults;
    for _ in 0..options.rounds {
        if !faults.is_empty() {
            break;
        }
        let from = Sample::take(options)?;
        crowd.drop_all();
        let served = serve(options, &mut crowd, progress)?;
        let stretch = Stretch { from, to: Sample::take(options)? };
        let ms = |time: std::time::Duration| time.as_secs_f64() * 1e3;
        let mut round = vec![
            Figure { name: "opened_ms", value: ms(served.opened_at.saturating_duration_since(stretch.from.at)) },
            Figure { name: "served_ms", value: ms(stretch.elapsed()) },
            Figure { name: "connections_per_s", value: stretch.per_second(options.sockets() as u64) },
        ];
        stretch.cpu(options.sockets() as u64, &mut round, &mut report);
        report.round(round);
        faults = served.faults;
    }
    report.faults(faults);
    Ok(report)
}

struct Served {
    opened_at: Instant,
    faults: Faults,
}

/// Opens all connections and waits until a message has reached each.
fn serve(options: &Options, crowd: &mut Crowd, progress: &mut Progress) -> Result<Served, BenchError> {
    let mut load = Load::new(options, crowd.mask());
    crowd.open(options.sockets(), &mut load, progress)?;
    let opened_at = Instant::now();
    load.closed_loop(1);
    load.stop();
    while load.is_waiting() && opened_at.elapsed() < options.timeout {
        load.send(crowd)?;
        crowd.turn(&mut load, None)?;
    }
    Ok(Served { opened_at, faults: load.close() })
}
