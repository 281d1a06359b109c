//! How this node is doing: what its reactors have observed since the other nodes were told last.

use std::time::Instant;

use crate::metrics::{NodeMetrics, ReactorMetrics, Recent, Vitals};
use crate::process;

/// What had been observed when the other nodes were told last.
#[derive(Debug)]
pub(super) struct LastTold {
    at: Instant,
    deliveries: u64,
    observed: Option<Recent>,
}

impl LastTold {
    /// Nothing yet.
    pub(super) fn new(now: Instant) -> LastTold {
        LastTold { at: now, deliveries: 0, observed: None }
    }

    /// How the node has been doing since then; this is the last time from now on.
    pub(super) fn take(&mut self, metrics: &NodeMetrics, now: Instant) -> Vitals {
        let (mut connections, mut deliveries) = (0, 0);
        for counts in metrics.reactors.iter().map(ReactorMetrics::read) {
            connections += counts.connections;
            deliveries += counts.deliveries;
        }
        let elapsed_ms = now.saturating_duration_since(self.at).as_millis().max(1) as u64;
        let observed = Recent::of_all(&metrics.reactors).into_iter().reduce(Recent::plus);
        let recent = match (&observed, &self.observed) {
            (Some(observed), Some(before)) => Some(observed.since(before)),
            (_, _) => observed.clone(),
        };
        let vitals = Vitals {
            connections,
            deliveries_per_s: (deliveries - self.deliveries) * 1000 / elapsed_ms,
            delivery_latency_p99_us: recent.as_ref().and_then(|recent| recent.delivery_latency.quantile_us(0.99)),
            turn_p99_us: recent.as_ref().and_then(|recent| recent.turn_time.quantile_us(0.99)),
            resident_bytes: process::resident_bytes(),
        };
        *self = LastTold { at: now, deliveries, observed };
        vitals
    }
}
