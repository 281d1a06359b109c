//! What percentiles of a recent time are made of: what reactors have observed, to be compared with an earlier look.

use super::{ReactorMetrics, Snapshot};

/// What a reactor has observed.
#[derive(Clone, Debug)]
pub struct Recent {
    /// From publish to the last send.
    pub delivery_latency: Snapshot,
    /// Of its turns.
    pub turn_time: Snapshot,
}

impl Recent {
    /// Of each reactor, since it started.
    pub fn of_all(reactors: &[ReactorMetrics]) -> Vec<Recent> {
        let of = |reactor: &ReactorMetrics| Recent {
            delivery_latency: reactor.delivery_latency.read(),
            turn_time: reactor.turn_time.read(),
        };
        reactors.iter().map(of).collect()
    }

    /// Of both together.
    #[must_use]
    pub fn plus(self, other: Recent) -> Recent {
        Recent {
            delivery_latency: self.delivery_latency.plus(&other.delivery_latency),
            turn_time: self.turn_time.plus(&other.turn_time),
        }
    }

    /// What was observed since an earlier look at the same reactor.
    #[must_use]
    pub fn since(&self, earlier: &Recent) -> Recent {
        Recent {
            delivery_latency: self.delivery_latency.since(&earlier.delivery_latency),
            turn_time: self.turn_time.since(&earlier.turn_time),
        }
    }
}
