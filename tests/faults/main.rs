//! The fault ledger: nodes and Redis are killed, stopped, emptied and cut off under load, and every publish and every
//! delivery is written down and judged.
//!
//! `tests/faults/run [EPISODES]` runs it by hand; `FAULTS_SEED` chooses another order of faults. `cargo test` runs
//! twenty episodes. `FAULTS_ALONE=1` does it to one node without Redis.
//!
//! ```text
//! director ─► plan (which faults)          publisher, subscriber ─► audit (what was sent and heard) ─► judge ─► report
//!    └─────► fanfare_testing::Cluster ◄── link ───────┘
//! ```

mod audit;
mod director;
mod judge;
mod ladder;
mod link;
mod market;
mod plan;
mod proof;
mod publisher;
mod report;
mod subscriber;

use std::process::ExitCode;

use fanfare_testing::{Cluster, Redis};

/// Every kind of fault twice.
const EPISODES: u64 = 2 * plan::OF_CLUSTER.len() as u64;
const SEED: u64 = 1;
const NODES: usize = 3;
/// Of each node's log, after a failure.
const LOG_LINES: usize = 60;

const SETTINGS: &[&str] = &[
    "--room",
    "match=long*,history.size=100000,history.ttl=1h",
    "--room",
    "match=short,history.size=40,history.ttl=1h",
    "--room",
    "match=px,keyed=true",
    "--rooms.notice_members_max",
    "0",
];

fn main() -> ExitCode {
    // `cargo test NAME` gives the name to every test binary.
    if std::env::args().skip(1).any(|argument| !argument.starts_with('-') && !"faults".contains(&argument)) {
        return ExitCode::SUCCESS;
    }
    proof::prove();
    ladder::prove();
    println!("the judge sees what it should ... ok");
    let episodes_count = number_from("FAULTS_EPISODES", EPISODES);
    let seed = number_from("FAULTS_SEED", SEED);
    let alone = std::env::var_os("FAULTS_ALONE").is_some();
    let (cluster, kinds) = if alone {
        (Cluster::alone(2, SETTINGS), plan::OF_ONE_NODE)
    } else {
        let cluster = Cluster::around(Redis::durable(), NODES, SETTINGS);
        cluster.await_ready();
        (cluster, plan::OF_CLUSTER)
    };
    let nodes = cluster.nodes_count();
    let episodes = plan::episodes(seed, usize::try_from(episodes_count).expect("64-bit sizes"), kinds, nodes);
    let record = director::run(cluster, &episodes, seed);
    let verdict = judge::judge(&record.publishes, &record.journals, &record.ends);
    let command =
        format!("{}FAULTS_SEED={seed} tests/faults/run {episodes_count}", if alone { "FAULTS_ALONE=1 " } else { "" });
    let report = report::report(&command, nodes, &record, &verdict);
    println!("\n{report}");
    if let Some(path) = std::env::var_os("FAULTS_REPORT") {
        std::fs::write(&path, &report).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }
    if verdict.is_clean() && record.market.is_clean() && record.failures.is_empty() {
        return ExitCode::SUCCESS;
    }
    for (node, log) in record.logs.iter().enumerate() {
        println!("---- the last of node {node}'s log ----");
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES)..].iter().for_each(|line| println!("{line}"));
    }
    ExitCode::FAILURE
}

fn number_from(variable: &str, default: u64) -> u64 {
    match std::env::var(variable) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{variable}={text}: a whole number was expected")),
        Err(_) => default,
    }
}
