//! A histogram of durations: microseconds, three digits.

use std::time::Duration;

use hdrhistogram::Histogram;

use super::report::{Figure, Round};

/// The longest duration told apart; a longer one counts as this, in microseconds.
const TIME_US_MAX: u64 = 60_000_000;

const DIGITS: u8 = 3;

/// Durations of one kind.
#[derive(Debug)]
pub(super) struct Times {
    histogram: Histogram<u64>,
}

impl Times {
    /// None yet.
    pub(super) fn new() -> Times {
        let histogram = Histogram::new_with_bounds(1, TIME_US_MAX, DIGITS).expect("bounds that fit each other");
        Times { histogram }
    }

    /// Adds one.
    #[inline]
    pub(super) fn record(&mut self, time: Duration) {
        self.histogram.saturating_record(time.as_micros() as u64);
    }

    /// Adds those of another.
    pub(super) fn add(&mut self, other: &Times) {
        self.histogram.add(&other.histogram).expect("the same bounds");
    }

    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.histogram.is_empty()
    }

    /// Forgets all.
    pub(super) fn reset(&mut self) {
        self.histogram.reset();
    }

    /// The time that this share of them did not exceed, in microseconds.
    pub(super) fn quantile(&self, share: f64) -> f64 {
        self.histogram.value_at_quantile(share) as f64
    }

    /// Appends the quantiles.
    pub(super) fn figures(&self, round: &mut Round) {
        let quantiles = [("p50_us", 0.5), ("p90_us", 0.9), ("p99_us", 0.99), ("p99_9_us", 0.999)];
        for (name, quantile) in quantiles {
            round.push(Figure { name, value: self.quantile(quantile) });
        }
        round.push(Figure { name: "max_us", value: self.histogram.max() as f64 });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_of_what_was_recorded() {
        let mut times = Times::new();
        for us in 1..=1000 {
            times.record(Duration::from_micros(us));
        }
        times.record(Duration::from_secs(3600));
        let mut round = Round::new();
        times.figures(&mut round);
        let value = |name| round.iter().find(|figure| figure.name == name).unwrap().value;
        assert_eq!((value("p50_us"), value("p90_us")), (501.0, 901.0));
        assert!(value("max_us") >= TIME_US_MAX as f64);
    }
}
