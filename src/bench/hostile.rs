//! `hostile`: what those who behave notice of those who do not.
//!
//! The open loop of `latency` runs on, and is measured twice in each round: in calm, and beside attackers. The
//! difference is what the attack costs the others.

use super::attack::{Attack, Tally};
use super::bombers::{Blasts, Charge};
use super::crowd::Crowd;
use super::load::{self, Load, seats};
use super::process::resident_peak_bytes;
use super::progress::Progress;
use super::report::{Figure, Report, Round};
use super::runner::Runner;
use super::schedule::Schedule;
use super::{BenchError, Options};

/// Runs the scenario.
pub(super) fn run(options: &Options, progress: &mut Progress) -> Result<Report, BenchError> {
    let mut report = load::report(options);
    let counts = [("dribblers", options.dribblers), ("bombers", options.bombers), ("fragmenters", options.fragmenters)];
    for (name, count) in counts {
        report.setting(name, count as u64);
    }
    report.setting("bombs", options.bombs as u64);
    report.setting("bomb_bytes", options.bomb_bytes);
    let mut crowd = Crowd::new(options, seats(options))?;
    let mask = crowd.mask();
    let mut load = Load::new(options, mask);
    crowd.open(options.connections + options.publishers, &mut load, progress)?;
    let (bomb, fragments) = (Charge::bomb(options.bomb_bytes, mask), Charge::empty_fragments());
    load.open_loop(Schedule::start(options.rate_per_s, &mut crowd)?);
    let mut runner = Runner::new(options, crowd, load, progress);
    for number in 1..=options.rounds {
        runner.warm_up()?;
        let calm = Half::measure(&mut runner, options, &format!("round {number} in calm"), &mut report)?;
        if runner.is_over() {
            break;
        }
        let attack = Attack::start(options, &bomb, &fragments)?;
        let attacked = Half::measure(&mut runner, options, &format!("round {number} beside attackers"), &mut report)?;
        attack.end();
        runner.while_waiting("waiting for the attackers' end", || attack.is_running())?;
        let mut round = Half::pair(&calm, &attacked);
        tell(&attack.tally()?, &mut round);
        report.round(round);
    }
    report.faults(runner.settle()?.close());
    Ok(report)
}

/// The figures that stand in a report twice, and their two names.
const TWICE: [(&str, &str, &str); 10] = [
    ("deliveries_per_s", "calm_deliveries_per_s", "attacked_deliveries_per_s"),
    ("p50_us", "calm_p50_us", "attacked_p50_us"),
    ("p99_us", "calm_p99_us", "attacked_p99_us"),
    ("p99_9_us", "calm_p99_9_us", "attacked_p99_9_us"),
    ("max_us", "calm_max_us", "attacked_max_us"),
    ("sent_late_max_us", "calm_sent_late_max_us", "attacked_sent_late_max_us"),
    ("generator_busy_percent", "calm_generator_busy_percent", "attacked_generator_busy_percent"),
    ("server_busy_percent", "calm_server_busy_percent", "attacked_server_busy_percent"),
    ("server_cpu_us_each", "calm_server_cpu_us_each", "attacked_server_cpu_us_each"),
    (PEAK, "calm_resident_peak_bytes", "attacked_resident_peak_bytes"),
];

const PEAK: &str = "resident_peak_bytes";

/// One half of a round.
struct Half(Round);

impl Half {
    fn measure(
        runner: &mut Runner<'_, Load>,
        options: &Options,
        title: &str,
        report: &mut Report,
    ) -> Result<Half, BenchError> {
        let mut figures = runner.round(title, report)?;
        // A process that an attack has ended has no memory; that its connections ended is a fault and told as one.
        if let Some(Ok(bytes)) = options.server_pid.map(resident_peak_bytes) {
            figures.push(Figure { name: PEAK, value: bytes as f64 });
        }
        Ok(Half(figures))
    }

    fn value(&self, name: &str) -> Option<f64> {
        self.0.iter().find(|figure| figure.name == name).map(|figure| figure.value)
    }

    fn pair(calm: &Half, attacked: &Half) -> Round {
        let mut round = Round::new();
        for (name, calm_name, attacked_name) in TWICE {
            let (Some(in_calm), Some(beside)) = (calm.value(name), attacked.value(name)) else { continue };
            round.push(Figure { name: calm_name, value: in_calm });
            round.push(Figure { name: attacked_name, value: beside });
        }
        let p99 = |half: &Half| half.value("p99_us").unwrap_or_default().max(1.0);
        round.push(Figure { name: "p99_attacked_by_calm", value: p99(attacked) / p99(calm) });
        round
    }
}

fn tell(tally: &Tally, round: &mut Round) {
    let Tally { dribblers_left, dribbled_bytes, bombs, fragments } = tally;
    let mut push = |name, value| round.push(Figure { name, value });
    push("dribblers_left", *dribblers_left as f64);
    push("dribbled_bytes", *dribbled_bytes as f64);
    let blasts = [
        (bombs, ["bombs_sent", "bombs_closed", "bombs_close_code"]),
        (fragments, ["fragment_bombs_sent", "fragment_bombs_closed", "fragment_bombs_close_code"]),
    ];
    for (Blasts { sent, closed, code }, names) in blasts {
        for (name, value) in names.into_iter().zip([*sent as f64, *closed as f64, f64::from(*code)]) {
            push(name, value);
        }
    }
}
