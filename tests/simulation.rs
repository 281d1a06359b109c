//! A whole node under a seed: several reactors in one thread, clients that read and write in pieces, stall, vanish
//! and misbehave, and a shadow model that demands of every message that it reached exactly those it should.
//!
//! `SIM_SEEDS=N` runs the seeds from 0 to N; `SIM_SEED=K` replays one with everything that happened in words.
//! The same seed is the same run.

#[path = "simulation/act.rs"]
mod act;
#[path = "simulation/end.rs"]
mod end;
#[path = "simulation/hear.rs"]
mod hear;
#[path = "simulation/node.rs"]
mod node;
#[path = "simulation/notices.rs"]
mod notices;
#[path = "simulation/oracle.rs"]
mod oracle;
#[path = "simulation/plan.rs"]
mod plan;
#[path = "simulation/replies.rs"]
mod replies;
#[path = "simulation/run.rs"]
mod run;
#[path = "simulation/tally.rs"]
mod tally;
#[path = "simulation/trace.rs"]
mod trace;

use std::panic::{AssertUnwindSafe, catch_unwind};

use tally::Tally;

/// Seeds of a usual run.
const SEEDS: u64 = 300;

/// Seeds that are run twice.
const SEEDS_TWICE: u64 = 10;

#[test]
fn every_message_reaches_exactly_those_it_should() {
    if let Some(seed) = number_from("SIM_SEED") {
        run::run(seed, true);
        return;
    }
    let seeds = number_from("SIM_SEEDS").unwrap_or(SEEDS);
    let mut tally = Tally::default();
    let failed: Vec<u64> = (0..seeds).filter(|&seed| !is_fine(seed, &mut tally)).collect();
    println!("{seeds} seeds: {tally:#?}");
    assert!(failed.is_empty(), "{} of {seeds} seeds failed: {failed:?}", failed.len());
    assert!(seeds < SEEDS || tally.missing().is_empty(), "this never came up: {:?}", tally.missing());
}

#[test]
fn the_same_seed_is_the_same_run() {
    for seed in 0..SEEDS_TWICE {
        assert_eq!(run::run(seed, false).hash, run::run(seed, false).hash, "seed {seed}");
    }
}

fn is_fine(seed: u64, tally: &mut Tally) -> bool {
    let outcome = catch_unwind(AssertUnwindSafe(|| run::run(seed, false)));
    match &outcome {
        Ok(outcome) => tally.merge(&outcome.tally),
        Err(_) => eprintln!("seed {seed} failed, as told above; replay it with\n  {}", replay(seed)),
    }
    outcome.is_ok()
}

fn replay(seed: u64) -> String {
    format!("SIM_SEED={seed} cargo test --test simulation every_message -- --nocapture")
}

fn number_from(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} must be a whole number, not {text:?}")))
}
