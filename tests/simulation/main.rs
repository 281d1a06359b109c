//! A whole node under a seed: several reactors in one thread, clients that read and write in pieces, stall, vanish
//! and misbehave, and a shadow model that demands of every message that it reached exactly those it should.
//!
//! `SIM_SEEDS=N` runs the seeds from 0 to N; `SIM_SEED=K` replays one with everything that happened in words.
//! The same seed is the same run.

mod act;
mod hear;
mod keyed;
mod node;
mod notices;
mod oracle;
mod past;
mod plan;
mod run;
mod streams;

use fanfare_simulated::seeds::sweep;

/// Seeds of a usual run.
const SEEDS: u64 = 300;

/// Of keyed rooms, whose runs are longer.
const KEYED_SEEDS: u64 = 120;

/// Seeds that are run twice.
const SEEDS_TWICE: u64 = 10;

/// Everything that is to come up in a usual sweep.
const EXPECTED: [&str; 36] = [
    "a greedy guest asked",
    "a message came live from history",
    "a message was placed",
    "a message was recovered",
    "all that was missed was recovered",
    "nothing was missed",
    "something could not be recovered",
    "a page came",
    "an inbox was resumed",
    "a message was said again",
    "a message came",
    "a message had to come",
    "a large message came",
    "a compressed message came",
    "a message came to nobody",
    "a presence at rest",
    "a worker paused reading",
    "refused: at capacity",
    "refused: too slow a request",
    "plain HTTP handed over",
    "closed as slow",
    "closed for room",
    "closed by drain",
    "closed for a violation",
    "closed by the client",
    "vanished in the middle of a frame",
    "cut off for silence",
    "cut off in the middle of a frame",
    "drained at rest",
    "drained while busy",
    "a queued send was taken whole",
    "a queued send fell short",
    "a queued send was broken",
    "a socket was released later",
    "a socket was handed over later",
    "a completion came after the end",
];

#[test]
fn every_message_reaches_exactly_those_it_should() {
    sweep("simulation every_message", SEEDS, &EXPECTED, run::run);
}

#[test]
fn every_subscriber_of_a_keyed_room_ends_with_the_newest_values() {
    sweep("simulation every_subscriber", KEYED_SEEDS, &keyed::EXPECTED, keyed::run);
}

#[test]
fn the_same_seed_is_the_same_run() {
    for seed in 0..SEEDS_TWICE {
        assert_eq!(run::run(seed, false).hash, run::run(seed, false).hash, "seed {seed}");
    }
}
