//! One message outstanding: the next is published when the last has arrived. Every process is bound to a core, as
//! where a machine has no core to spare:
//!
//! ```text
//!   core 0: the nodes        core 1: Redis, and the client that publishes and subscribes
//! ```
//!
//! Each round measures Redis alone, one node without Redis, and two nodes, one after the other; what is told is the
//! median of the rounds, and their ratio to Redis alone in the same round.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use core_affinity::CoreId;

use super::ends::{Publisher, Subscriber, fanfare_ends, raw_ends};
use super::processes::{Node, Redis};
use super::{MESSAGE_BYTES, Options, median};

/// Messages in front of those that are measured.
const WARM_UP: usize = 200;

/// Where the nodes run.
const NODES_CORE: CoreId = CoreId { id: 0 };

/// Where Redis and the client run.
const OTHERS_CORE: CoreId = CoreId { id: 1 };

/// One build of the server: two nodes with a Redis of their own, and one by itself.
struct Contender {
    name: String,
    alone: Node,
    nodes: [Node; 2],
    _redis: Redis,
}

impl Contender {
    fn start(name: &str, binary: &Path) -> Contender {
        let redis = Redis::start();
        bind(NODES_CORE);
        let nodes = [(); 2].map(|()| Node::start_binary(binary, Some(&redis)));
        let alone = Node::start_binary(binary, None);
        bind(OTHERS_CORE);
        Contender { name: name.to_owned(), alone, nodes, _redis: redis }
    }
}

struct Times {
    p50_us: f64,
    p99_us: f64,
}

/// The times of one way a message can take, one for each round.
struct Row {
    name: String,
    rounds: Vec<Times>,
}

/// Measures and prints.
pub(super) fn run(options: &Options) {
    // In a thread of its own, so that what is measured afterwards is bound to no core.
    std::thread::scope(|scope| scope.spawn(|| run_bound(options)).join()).expect("it measures");
}

fn run_bound(options: &Options) {
    bind(OTHERS_CORE);
    let redis = Redis::start();
    let this = PathBuf::from(env!("CARGO_BIN_EXE_fanfare"));
    let builds = std::iter::once(("this build", &this)).chain(options.against.iter().map(|path| ("the other", path)));
    let contenders: Vec<Contender> = builds.map(|(name, binary)| Contender::start(name, binary)).collect();
    println!("one message of {MESSAGE_BYTES} bytes outstanding, nodes on core 0, Redis and the client on core 1");
    let mut rows: Vec<Row> = Vec::new();
    for round in 0..options.rounds {
        let mut at = 0;
        let mut note = |name: String, (publisher, subscriber): (Box<dyn Publisher>, Box<dyn Subscriber>)| {
            let times = one_by_one(publisher, subscriber, options.measured);
            println!("  {name:<24} p50 {:>6.0} µs   p99 {:>6.0} µs", times.p50_us, times.p99_us);
            if rows.len() == at {
                rows.push(Row { name, rounds: Vec::new() });
            }
            rows[at].rounds.push(times);
            at += 1;
        };
        note("Redis".to_owned(), raw_ends(redis.port, &format!("raw{round}")));
        for Contender { name, alone, nodes, .. } in &contenders {
            let room = format!("room{round}");
            note(format!("one node, {name}"), fanfare_ends(alone, alone, &room));
            note(format!("two nodes, {name}"), fanfare_ends(&nodes[0], &nodes[1], &room));
        }
    }
    println!("median over the rounds:");
    let raw: Vec<f64> = rows[0].rounds.iter().map(|times| times.p50_us).collect();
    for Row { name, rounds } in &rows {
        let (p50, p99) = rounds.iter().map(|times| (times.p50_us, times.p99_us)).unzip();
        let ratio = rounds.iter().zip(&raw).map(|(times, raw)| times.p50_us / raw).collect();
        let (p50, p99, ratio) = (median(p50), median(p99), median(ratio));
        println!("  {name:<24} p50 {p50:>6.0} µs   p99 {p99:>6.0} µs   p50 {ratio:>5.2} × Redis");
    }
}

fn bind(core: CoreId) {
    assert!(core_affinity::set_for_current(core), "the thread can be bound to core {}", core.id);
}

fn one_by_one(mut publisher: Box<dyn Publisher>, mut subscriber: Box<dyn Subscriber>, measured: Duration) -> Times {
    let mut times_us = Vec::new();
    let mut left = WARM_UP;
    let mut start = Instant::now();
    while left > 0 || start.elapsed() < measured {
        let at = Instant::now();
        publisher.publish(1);
        while subscriber.receive() == 0 {}
        match left {
            0 => times_us.push(at.elapsed().as_secs_f64() * 1e6),
            1.. => {
                left -= 1;
                start = Instant::now();
            }
        }
    }
    times_us.sort_by(f64::total_cmp);
    Times { p50_us: times_us[times_us.len() / 2], p99_us: times_us[times_us.len() * 99 / 100] }
}
