//! What a message costs that goes from one node to another, beside the same through Redis alone.
//!
//! ```text
//!   raw:      publisher ── PUBLISH ──► Redis ──► subscriber
//!   fanfare:  publisher ──► node A ──► Redis ──► node B ──► subscriber
//! ```
//!
//! Starts a `redis-server` and two nodes on free ports of 127.0.0.1. Each round measures both ways one after the other,
//! with messages of the same size: as many as go through with a window of them under way, and the time of one at 1,000 a
//! second. What is told is the median of the rounds' ratios.
//!
//! Before that it measures one message outstanding (`outstanding.rs`), with every process bound to a core.
//!
//! Run with `cargo bench --bench cluster`; `-- --rounds 5 --seconds 2` is the default. `--against PATH` measures another
//! build of the server in turn with this one where one message is outstanding, and `--outstanding-only` ends after that.
//! `--items-only` measures updates of a keyed room (`items.rs`) and nothing else.

mod ends;
mod items;
mod outstanding;
mod processes;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use ends::{Publisher, Subscriber, fanfare_ends, raw_ends};
use processes::{Node, Redis};

/// Bytes of a message as the subscriber gets it.
const MESSAGE_BYTES: usize = 128;

/// Messages under way at most.
const WINDOW: u64 = 8_192;

/// Messages in one write of the publisher.
const BURST: u64 = 512;

struct Options {
    rounds: usize,
    measured: Duration,
    /// Another build of the server.
    against: Option<PathBuf>,
    scope: Scope,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Scope {
    OutstandingOnly,
    ItemsOnly,
    Everything,
}

fn main() {
    let options = options();
    if options.scope != Scope::ItemsOnly {
        outstanding::run(&options);
    }
    if options.scope == Scope::Everything {
        throughput_and_latency(&options);
    }
    if options.scope != Scope::OutstandingOnly {
        items::run(&options);
    }
}

fn throughput_and_latency(options: &Options) {
    let redis = Redis::start();
    let nodes = [Node::start(&redis), Node::start(&redis)];
    println!("messages of {MESSAGE_BYTES} bytes, at most {WINDOW} under way, {} rounds", options.rounds);
    let mut rounds = Vec::new();
    for round in 0..options.rounds {
        let (mut publisher, mut subscriber) = raw_ends(redis.port, &format!("raw{round}"));
        let raw = measure(&mut *publisher, &mut *subscriber, options.measured);
        let (mut publisher, mut subscriber) = fanfare_ends(&nodes[0], &nodes[1], &format!("room{round}"));
        let plain = measure(&mut *publisher, &mut *subscriber, options.measured);
        let (mut publisher, mut subscriber) = fanfare_ends(&nodes[0], &nodes[1], &format!("kept.{round}"));
        let kept = measure(&mut *publisher, &mut *subscriber, options.measured);
        for (name, figures) in [("Redis", &raw), ("nodes", &plain), ("nodes, history", &kept)] {
            println!(
                "  {name:<15} {:>9.0} messages/s   p50 {:>6} µs   p99 {:>6} µs",
                figures.per_second,
                figures.p50.as_micros(),
                figures.p99.as_micros()
            );
        }
        rounds.push((raw, plain, kept));
    }
    println!("median over the rounds, against Redis alone:");
    let tell = |name: &str, of: &dyn Fn(&(Figures, Figures, Figures)) -> f64| {
        println!("  {name:<32} {:>8.2}", median(rounds.iter().map(of).collect()));
    };
    let added = |with: &Figures, raw: &Figures| (with.p50.as_secs_f64() - raw.p50.as_secs_f64()) * 1e6;
    tell("throughput, ×", &|(raw, plain, _)| plain.per_second / raw.per_second);
    tell("throughput with history, ×", &|(raw, _, kept)| kept.per_second / raw.per_second);
    tell("added to p50, µs", &|(raw, plain, _)| added(plain, raw));
    tell("added to p50 with history, µs", &|(raw, _, kept)| added(kept, raw));
}

fn options() -> Options {
    let args: Vec<String> = std::env::args().collect();
    let value = |name: &str| args.iter().position(|arg| arg == name).and_then(|at| args.get(at + 1));
    let number = |name: &str, default: f64| value(name).map_or(default, |value| value.parse().expect("a number"));
    Options {
        rounds: number("--rounds", 5.0) as usize,
        measured: Duration::from_secs_f64(number("--seconds", 2.0)),
        against: value("--against").map(PathBuf::from),
        scope: match ["--outstanding-only", "--items-only"].map(|name| args.iter().any(|arg| arg == name)) {
            [true, _] => Scope::OutstandingOnly,
            [false, true] => Scope::ItemsOnly,
            [false, false] => Scope::Everything,
        },
    }
}

/// What several rounds are told by.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

struct Figures {
    per_second: f64,
    p50: Duration,
    p99: Duration,
}

fn measure(publisher: &mut dyn Publisher, subscriber: &mut dyn Subscriber, measured: Duration) -> Figures {
    let per_second = throughput(publisher, subscriber, measured);
    let mut times = latencies(publisher, subscriber, measured);
    times.sort_unstable();
    Figures { per_second, p50: times[times.len() / 2], p99: times[times.len() * 99 / 100] }
}

/// Messages a second with a full window.
fn throughput(publisher: &mut dyn Publisher, subscriber: &mut dyn Subscriber, measured: Duration) -> f64 {
    let (mut sent, mut received) = (0, 0);
    let warm_up = measured / 4;
    let start = Instant::now();
    let (mut counted_from, mut counted) = (None, 0);
    while start.elapsed() < warm_up + measured {
        while sent + BURST <= received + WINDOW {
            publisher.publish(BURST);
            sent += BURST;
        }
        received += subscriber.receive();
        match counted_from {
            None if start.elapsed() >= warm_up => counted_from = Some((Instant::now(), received)),
            None => {}
            Some((_, from)) => counted = received - from,
        }
    }
    let (from, _) = counted_from.expect("the warm-up is shorter than the whole");
    let per_second = counted as f64 / from.elapsed().as_secs_f64();
    while received < sent {
        received += subscriber.receive();
    }
    assert_eq!(received, sent, "every message once");
    per_second
}

/// How long a message takes, at 1,000 a second.
fn latencies(publisher: &mut dyn Publisher, subscriber: &mut dyn Subscriber, measured: Duration) -> Vec<Duration> {
    const EVERY: Duration = Duration::from_millis(1);
    let mut times = Vec::new();
    let start = Instant::now();
    let mut next = start;
    while start.elapsed() < measured {
        while Instant::now() < next {
            std::hint::spin_loop();
        }
        let at = Instant::now();
        next = at + EVERY;
        publisher.publish(1);
        let mut received = 0;
        while received == 0 {
            received = subscriber.receive();
        }
        assert_eq!(received, 1, "every message once");
        times.push(at.elapsed());
    }
    times
}
