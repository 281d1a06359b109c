//! The seeds of a simulation: all below a number, or one in words.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::tally::Tally;

/// What came of a run.
pub struct Outcome {
    /// Of everything that happened.
    pub hash: u64,
    /// How often what is expected came up.
    pub tally: Tally,
}

/// Runs a seed to its end; in words if the second argument says so.
pub type Run = fn(u64, bool) -> Outcome;

/// Runs the seed that `SIM_SEED` names, or as many as `SIM_SEEDS` says, or `usual` of them. `test` is how cargo is told
/// which test it is.
///
/// # Panics
/// Where a seed fails, or where something never came up in all that are usual.
pub fn sweep(test: &str, usual: u64, expected: &'static [&'static str], run: Run) {
    if let Some(seed) = number_from("SIM_SEED") {
        run(seed, true);
        return;
    }
    let seeds = number_from("SIM_SEEDS").unwrap_or(usual);
    let mut tally = Tally::new(expected);
    let failed: Vec<u64> = (0..seeds).filter(|&seed| !is_fine(test, seed, &mut tally, run)).collect();
    println!("{seeds} seeds: {tally:#?}");
    assert!(failed.is_empty(), "{} of {seeds} seeds failed: {failed:?}", failed.len());
    assert!(seeds < usual || tally.missing().is_empty(), "this never came up: {:?}", tally.missing());
}

fn is_fine(test: &str, seed: u64, tally: &mut Tally, run: Run) -> bool {
    let outcome = catch_unwind(AssertUnwindSafe(|| run(seed, false)));
    match &outcome {
        Ok(outcome) => tally.merge(&outcome.tally),
        Err(_) => {
            eprintln!("seed {seed} failed, as told above; replay it with");
            eprintln!("  SIM_SEED={seed} cargo test --test {test} -- --nocapture");
        }
    }
    outcome.is_ok()
}

fn number_from(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} must be a whole number, not {text:?}")))
}
