//! `logins`: what those who are connected notice when others log in at once, as after a restart.
//!
//! The open loop of `latency` runs on, and is measured twice in each round: in calm, and from the first login's packet
//! until the last of them is welcomed and has joined a room. The others log in on a thread of their own, which stands
//! back where the two share a core: what the measured ones wait for is the server.

use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::connect::Watch;
use super::crowd::Crowd;
use super::halves::{Half, Twice};
use super::ledger::Faults;
use super::limits::{LOGINS_NICENESS, LOGINS_PER_ROOM};
use super::load::{self, Load, seats};
use super::progress::Progress;
use super::report::{Figure, Report, Round};
use super::runner::Runner;
use super::schedule::Schedule;
use super::seat::Seat;
use super::times::Times;
use super::{BenchError, Options};
use crate::niceness::stand_back;

/// Runs the scenario.
pub(super) fn run(options: &Options, progress: &mut Progress) -> Result<Report, BenchError> {
    let mut report = load::report(options);
    report.setting("logins", options.logins as u64);
    report.setting("handshakes", options.handshakes as u64);
    let mut crowd = Crowd::new(options, seats(options))?;
    let mut load = Load::new(options, crowd.mask());
    crowd.open(options.connections + options.publishers, &mut load, progress)?;
    load.open_loop(Schedule::start(options.rate_per_s, &mut crowd)?);
    let mut runner = Runner::new(options, crowd, load, progress);
    let mut ended = Faults::default();
    for number in 1..=options.rounds {
        let newcomers = newcomers(options)?;
        runner.warm_up()?;
        let calm = Half::measure(options, || runner.round(&format!("round {number} in calm"), &mut report))?;
        if runner.is_over() {
            break;
        }
        let storm = LoginStorm::start(newcomers, options.logins)?;
        let title = format!("round {number} while others log in");
        let beside = Half::measure(options, || runner.round_beside(&title, &mut report, || storm.is_running()))?;
        let tally = storm.tally()?;
        let mut round = Half::pair(&calm, &beside, &TWICE, "p99_storm_by_calm");
        tally.figures(options, &mut round);
        report.round(round);
        ended.add(tally.faults);
    }
    let mut faults = runner.settle()?.close();
    faults.add(ended);
    report.faults(faults);
    Ok(report)
}

/// The figures that stand in a report twice, and their two names.
const TWICE: [Twice; 11] = [
    ("seconds", "calm_seconds", "storm_seconds"),
    ("deliveries_per_s", "calm_deliveries_per_s", "storm_deliveries_per_s"),
    ("p50_us", "calm_p50_us", "storm_p50_us"),
    ("p99_us", "calm_p99_us", "storm_p99_us"),
    ("p99_9_us", "calm_p99_9_us", "storm_p99_9_us"),
    ("max_us", "calm_max_us", "storm_max_us"),
    ("sent_late_max_us", "calm_sent_late_max_us", "storm_sent_late_max_us"),
    ("generator_busy_percent", "calm_generator_busy_percent", "storm_generator_busy_percent"),
    ("generator_waited_percent", "calm_generator_waited_percent", "storm_generator_waited_percent"),
    ("server_busy_percent", "calm_server_busy_percent", "storm_server_busy_percent"),
    ("server_waited_percent", "calm_server_waited_percent", "storm_server_waited_percent"),
];

/// Those who will log in, each into a room of a few that is not the measured one.
fn newcomers(options: &Options) -> Result<Crowd, BenchError> {
    let rooms = |at: usize| vec![format!("l{:06}", at / LOGINS_PER_ROOM)];
    let seat = |at: usize| Seat::new(format!("l{at:06}"), rooms(at)).offering(options.deflate);
    Crowd::new(options, (0..options.logins).map(seat))
}

/// Logins under way.
struct LoginStorm(JoinHandle<Result<LoginTally, BenchError>>);

/// What became of them.
struct LoginTally {
    /// They stay connected as long as this lives.
    crowd: Crowd,
    took: Duration,
    faults: Faults,
}

impl LoginStorm {
    fn start(mut crowd: Crowd, count: usize) -> Result<LoginStorm, BenchError> {
        let log_in = move || {
            stand_back(LOGINS_NICENESS);
            let (start, mut watch) = (Instant::now(), Watch::default());
            crowd.open(count, &mut watch, &mut Progress::hidden())?;
            Ok(LoginTally { crowd, took: start.elapsed(), faults: watch.faults })
        };
        Ok(LoginStorm(std::thread::Builder::new().name("logins".to_owned()).spawn(log_in)?))
    }

    /// Whether some are not in yet.
    fn is_running(&self) -> bool {
        !self.0.is_finished()
    }

    fn tally(self) -> Result<LoginTally, BenchError> {
        self.0.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

impl LoginTally {
    fn figures(&self, options: &Options, round: &mut Round) {
        let mut times = Times::new();
        self.crowd.opened().iter().for_each(|time| times.record(*time));
        let seconds = self.took.as_secs_f64().max(f64::MIN_POSITIVE);
        round.push(Figure { name: "logins_per_s", value: options.logins as f64 / seconds });
        for (name, quantile) in [("login_p50_us", 0.5), ("login_p99_us", 0.99), ("login_max_us", 1.0)] {
            round.push(Figure { name, value: times.quantile(quantile) });
        }
    }
}
