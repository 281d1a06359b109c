//! How this node is doing: what its reactors have observed since it was asked last.

use std::time::Instant;

use crate::metrics::{NodeMetrics, ReactorMetrics, Snapshot, Vitals};
use crate::process;

/// What had been observed when it was asked last.
#[derive(Debug)]
pub(super) struct Pulse {
    at: Instant,
    deliveries: u64,
    delivery_latency: Option<Snapshot>,
    turn_time: Option<Snapshot>,
}

impl Pulse {
    /// Nothing yet.
    pub(super) fn new(now: Instant) -> Pulse {
        Pulse { at: now, deliveries: 0, delivery_latency: None, turn_time: None }
    }

    /// How the node has been doing since the last time.
    pub(super) fn take(&mut self, metrics: &NodeMetrics, now: Instant) -> Vitals {
        let (mut connections, mut deliveries) = (0, 0);
        for counts in metrics.reactors.iter().map(ReactorMetrics::read) {
            connections += counts.connections;
            deliveries += counts.deliveries;
        }
        let elapsed_ms = now.saturating_duration_since(self.at).as_millis().max(1) as u64;
        let vitals = Vitals {
            connections,
            deliveries_per_s: (deliveries - self.deliveries) * 1000 / elapsed_ms,
            delivery_latency_p99_us: p99_us(&mut self.delivery_latency, metrics, |reactor| {
                reactor.delivery_latency.read()
            }),
            turn_p99_us: p99_us(&mut self.turn_time, metrics, |reactor| reactor.turn_time.read()),
            resident_bytes: process::resident_bytes(),
        };
        (self.at, self.deliveries) = (now, deliveries);
        vitals
    }
}

/// Of what all reactors have observed since `before`, which is moved on.
fn p99_us(before: &mut Option<Snapshot>, metrics: &NodeMetrics, read: fn(&ReactorMetrics) -> Snapshot) -> Option<u64> {
    let all = metrics.reactors.iter().map(read).reduce(|all, one| all.plus(&one))?;
    let recent = match before {
        Some(before) => all.since(before),
        None => all.clone(),
    };
    *before = Some(all);
    recent.quantile(0.99).map(|seconds| (seconds * 1e6) as u64)
}
