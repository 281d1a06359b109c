//! A cluster under a seed: nodes with reactors and cores of their own and a Redis, all in one thread, with connections
//! that delay and reorder what they carry, are lost or fall silent, and with clients that come back elsewhere. A shadow
//! model knows what was ever written into each history, and demands of every connection that it reads one epoch after
//! another without a break that it was not told of.
//!
//! `SIM_SEEDS=N` runs the seeds from 0 to N; `SIM_SEED=K` replays one with everything that happened in words.
//! The same seed is the same run.

mod act;
mod chronicle;
mod hear;
mod kept;
mod keyed;
mod node;
mod plain;
mod plan;
mod redis;
mod run;
mod said;
mod server;
mod weather;

use fanfare_simulated::seeds::sweep;

/// Seeds of a usual run.
const SEEDS: u64 = 200;

/// Seeds that are run twice.
const SEEDS_TWICE: u64 = 10;

/// Everything that is to come up in a usual sweep.
const EXPECTED: [&str; 22] = [
    "a message came live from history",
    "a message was recovered",
    "a message was acked as stored",
    "a message was said again",
    "a message without history came",
    "a message had to come on its node",
    "a message had to come on another node",
    "all that was missed was recovered",
    "nothing was missed",
    "something could not be recovered",
    "a gap in an epoch",
    "a gap into another epoch",
    "a page came",
    "a presence at rest named somebody",
    "a command was refused as unavailable",
    "a connection was lost",
    "a connection fell silent",
    "Redis was paused",
    "Redis was restarted",
    "another server became the primary",
    "a node stalled",
    "a node died",
];

#[test]
fn every_reader_gets_one_stream_or_is_told() {
    sweep("cluster_simulation every_reader", SEEDS, &EXPECTED, run::run);
}

#[test]
fn every_subscriber_of_a_keyed_room_ends_with_the_newest_values() {
    sweep("cluster_simulation every_subscriber", SEEDS, &keyed::EXPECTED, keyed::run);
}

#[test]
fn the_same_seed_is_the_same_run() {
    for seed in 0..SEEDS_TWICE {
        assert_eq!(run::run(seed, false).hash, run::run(seed, false).hash, "seed {seed}");
    }
}
