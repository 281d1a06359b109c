//! `hostile`: what those who behave notice of those who do not.
//!
//! The open loop of `latency` runs on, and is measured twice in each round: in calm, and beside attackers. The
//! difference is what the attack costs the others. What the server's memory grows by is its peak beside attackers less
//! what was resident before they came.

use super::attack::{Attack, Tally};
use super::bombers::{Blasts, Charge};
use super::crowd::Crowd;
use super::greedy::Spoils;
use super::halves::{Half, Twice};
use super::limits::BOMB_BYTES_MIN;
use super::load::{self, Load, seats};
use super::progress::Progress;
use super::report::{Figure, Report, Round};
use super::runner::Runner;
use super::schedule::Schedule;
use super::stage::{fill_history, members, peer_members};
use super::{BenchError, Options};

/// Runs the scenario.
pub(super) fn run(options: &Options, progress: &mut Progress) -> Result<Report, BenchError> {
    let mut report = report(options);
    let mut crowd = Crowd::new(options, seats(options).chain(members(options, 'a')))?;
    let mask = crowd.mask();
    let mut load = Load::new(options, mask);
    crowd.open(options.connections + options.publishers + options.members, &mut load, progress)?;
    let peers = peer_members(options, &mut load, progress)?;
    fill_history(options, mask)?;
    // Without bombers no bomb need be made.
    let bomb_bytes = if options.bombers > 0 { options.bomb_bytes } else { BOMB_BYTES_MIN };
    let (bomb, fragments) = (Charge::bomb(bomb_bytes, mask), Charge::empty_fragments());
    load.open_loop(Schedule::start(options.rate_per_s, &mut crowd)?);
    let mut runner = Runner::new(options, crowd, load, progress);
    for number in 1..=options.rounds {
        runner.warm_up()?;
        let calm = Half::measure(options, || runner.round(&format!("round {number} in calm"), &mut report))?;
        if runner.is_over() {
            break;
        }
        let attack = Attack::start(options, &bomb, &fragments, mask)?;
        let title = format!("round {number} beside attackers");
        let mut attacked = Half::measure(options, || runner.round(&title, &mut report))?;
        attack.end();
        runner.while_waiting("waiting for the attackers' end", || attack.is_running())?;
        // What the attack has kept from arriving in time counts as well.
        attacked.replace(&runner.timed());
        let mut round = Half::pair(&calm, &attacked, &TWICE, "p99_attacked_by_calm");
        if let Some(grown) = attacked.grown_bytes() {
            round.push(Figure { name: "attacked_resident_grown_bytes", value: grown });
        }
        tell(&attack.tally()?, &mut round);
        report.round(round);
    }
    report.faults(runner.settle()?.close());
    drop(peers);
    Ok(report)
}

fn report(options: &Options) -> Report {
    let mut report = load::report(options);
    report.setting("attack", options.attack.name());
    let siege = [("dribblers", options.dribblers), ("bombers", options.bombers), ("fragmenters", options.fragmenters)];
    for (name, count) in siege {
        report.setting(name, count as u64);
    }
    report.setting("bombs", options.bombs as u64);
    report.setting("bomb_bytes", options.bomb_bytes);
    report.setting("attackers", options.attackers as u64);
    report.setting("attack_commands", options.attack_commands as u64);
    report.setting("attack_deflate", options.attack_deflate);
    report.setting("attack_deaf", options.attack_deaf);
    report.setting("members", options.members as u64);
    report
}

/// The figures that stand in a report twice, and their two names.
const TWICE: [Twice; 10] = [
    ("deliveries_per_s", "calm_deliveries_per_s", "attacked_deliveries_per_s"),
    ("p50_us", "calm_p50_us", "attacked_p50_us"),
    ("p99_us", "calm_p99_us", "attacked_p99_us"),
    ("p99_9_us", "calm_p99_9_us", "attacked_p99_9_us"),
    ("max_us", "calm_max_us", "attacked_max_us"),
    ("sent_late_max_us", "calm_sent_late_max_us", "attacked_sent_late_max_us"),
    ("generator_busy_percent", "calm_generator_busy_percent", "attacked_generator_busy_percent"),
    ("server_busy_percent", "calm_server_busy_percent", "attacked_server_busy_percent"),
    ("server_cpu_us_each", "calm_server_cpu_us_each", "attacked_server_cpu_us_each"),
    ("resident_peak_bytes", "calm_resident_peak_bytes", "attacked_resident_peak_bytes"),
];

fn tell(tally: &Tally, round: &mut Round) {
    let Tally { dribblers_left, dribbled_bytes, bombs, fragments, spoils, greedy_left } = tally;
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
    let Spoils { sent_bytes, received_bytes, replies, refused, closed, code, cut } = spoils;
    push("attackers_sent_bytes", *sent_bytes as f64);
    push("attackers_received_bytes", *received_bytes as f64);
    push("attackers_replies", *replies as f64);
    push("attackers_refused", *refused as f64);
    push("attackers_closed", *closed as f64);
    push("attackers_close_code", f64::from(*code));
    push("attackers_cut", *cut as f64);
    push("attackers_left", *greedy_left as f64);
}
