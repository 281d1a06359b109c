//! Percentiles of a recent time: what histograms have gained since they were looked at some seconds ago.
//!
//! Nothing ticks: who asks moves the marks on. Where nobody has asked for long, the first answer is of all that time.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::limits::STATS_WINDOW_MS;
use crate::metrics::Recent;

/// When each reactor had observed what.
#[derive(Clone, Debug)]
struct Mark {
    at: Instant,
    reactors: Vec<Recent>,
}

/// Two marks, the newer one at most the window old while somebody asks.
#[derive(Debug, Default)]
pub struct Window(Mutex<Marks>);

#[derive(Debug, Default)]
struct Marks {
    older: Option<Mark>,
    newer: Option<Mark>,
}

impl Window {
    /// What was observed between the older mark, or the node's start, and now; how long that was: between one and two windows
    /// while somebody asks all the time.
    pub(super) fn look(&self, at: Instant, now: Vec<Recent>, started: Instant) -> (Duration, Vec<Recent>) {
        let mut marks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let window = Duration::from_millis(STATS_WINDOW_MS);
        if marks.newer.as_ref().is_none_or(|newer| at.saturating_duration_since(newer.at) >= window) {
            marks.older = marks.newer.take();
            marks.newer = Some(Mark { at, reactors: now.clone() });
        }
        match &marks.older {
            None => (at.saturating_duration_since(started), now),
            Some(older) => {
                let recent = now.iter().zip(&older.reactors).map(|(now, older)| now.since(older)).collect();
                (at.saturating_duration_since(older.at), recent)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::ReactorMetrics;

    #[test]
    fn percentiles_are_of_the_last_seconds_while_somebody_asks() {
        let reactors = [ReactorMetrics::default()];
        let (window, started) = (Window::default(), Instant::now());
        let look = |seconds| {
            let at = started + Duration::from_secs(seconds);
            let (long, recent) = window.look(at, Recent::of_all(&reactors), started);
            (long.as_secs(), recent[0].delivery_latency.count())
        };
        reactors[0].delivery_latency.record(1_000_000, 100);
        assert_eq!(look(1), (1, 100));
        reactors[0].delivery_latency.record(1_000_000, 10);
        assert_eq!((look(5), look(11)), ((5, 110), (10, 10)));
        reactors[0].delivery_latency.record(1_000_000, 1);
        assert_eq!((look(15), look(21), look(31)), ((14, 11), (10, 1), (10, 0)));
    }
}
