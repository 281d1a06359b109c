//! What one connection may send per second: a token bucket for what it is allowed, and a count of its control frames.

use super::close::PeerError;
use crate::limits::{CONTROL_FRAMES_PER_SECOND_MAX, RATE_STRIKES_MAX};
use crate::time::Millis;

/// Levels are kept in thousandths of a unit: `per_second` of those flow in every millisecond, so
/// the arithmetic is exact and nothing drifts.
const MILLI: u64 = 1000;

/// Largest rate and largest request in units: beyond, their thousandths would not fit 64 bits.
const UNITS_MAX: u64 = u64::MAX / MILLI;

/// A token bucket of integers: `per_second` units flow in evenly, and one second's worth may be
/// taken at once.
///
/// In any stretch of T ms it grants at most `max(burst, largest request) + per_second × T / 1000`
/// units.
#[derive(Clone, Copy, Debug)]
pub struct TokenBucket {
    per_second: u64,
    /// What is missing to a full bucket; more than the burst holds where a debt is open.
    missing_milli: u64,
    refilled_at: Millis,
}

impl TokenBucket {
    /// A full bucket. `per_second` is both the rate in units per second and the burst in units; 0
    /// grants nothing, and what is above 2⁶⁴ / 1000 counts as that.
    #[must_use]
    pub const fn new(per_second: u64, now: Millis) -> Self {
        let per_second = if per_second < UNITS_MAX { per_second } else { UNITS_MAX };
        Self { per_second, missing_milli: 0, refilled_at: now }
    }

    /// The same bucket at another rate: what was taken stays taken.
    #[must_use]
    pub fn at_rate(mut self, per_second: u64, now: Millis) -> Self {
        self.refill(now);
        let other = Self::new(per_second, now);
        Self { missing_milli: self.missing_milli.min(other.per_second * MILLI), ..other }
    }

    /// Takes `n` units at `now`; where they are not there nothing is taken and the answer is
    /// `false`.
    ///
    /// A request above the burst is granted by a full bucket and leaves a debt that is worked off
    /// at `per_second` before anything else is granted: a message larger than the burst is never
    /// impossible. Only one above 2⁶⁴ / 1000 is refused always. A `now` before that of an
    /// earlier call brings no refill and takes none away.
    pub fn take(&mut self, n: u64, now: Millis) -> bool {
        self.refill(now);
        let burst_milli = self.per_second * MILLI;
        let Some(wanted_milli) = n.checked_mul(MILLI) else {
            return false;
        };
        let is_full = self.missing_milli == 0 && self.per_second > 0;
        let fits = burst_milli.checked_sub(self.missing_milli).is_some_and(|there_milli| wanted_milli <= there_milli);
        if !fits && !is_full {
            return false;
        }
        // Fits: what is missing stays within the burst. Does not: it was zero.
        self.missing_milli += wanted_milli;
        true
    }

    fn refill(&mut self, now: Millis) {
        let inflow_milli = now.since(self.refilled_at).saturating_mul(self.per_second);
        self.missing_milli = self.missing_milli.saturating_sub(inflow_milli);
        self.refilled_at = self.refilled_at.max(now);
    }
}

/// The control frames of one connection in the current second, in four bytes: every connection has it, also where no
/// rate is set. Seconds begin with the clock's, so that two may come back to back.
#[derive(Clone, Copy, Debug, Default)]
pub struct ControlFrames {
    /// Which second, of a day's quarter: a connection that comes back to the same one after that begins with what it had.
    second: u16,
    frames: u16,
}

impl ControlFrames {
    /// One more; whether it is handled.
    ///
    /// # Errors
    /// [`PeerError::RateAbuse`] for the first of a second that is more than `limits::RATE_STRIKES_MAX` beyond
    /// `limits::CONTROL_FRAMES_PER_SECOND_MAX`.
    pub fn take(&mut self, now: Millis) -> Result<bool, PeerError> {
        let second = (now.0 / 1_000) as u16;
        if self.second != second {
            *self = ControlFrames { second, frames: 0 };
        }
        self.frames = self.frames.saturating_add(1);
        match self.frames.checked_sub(CONTROL_FRAMES_PER_SECOND_MAX) {
            None | Some(0) => Ok(true),
            Some(beyond) if u32::from(beyond) <= RATE_STRIKES_MAX => Ok(false),
            Some(_) => Err(PeerError::RateAbuse),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn grants_a_burst_and_then_the_rate() {
        let mut bucket = TokenBucket::new(10, Millis(5));
        assert_eq!((0..20).filter(|_| bucket.take(1, Millis(5))).count(), 10);
        assert!(!bucket.take(1, Millis(104)));
        assert!(bucket.take(1, Millis(105)));
        assert!(!bucket.take(1, Millis(204)));
        assert!(!bucket.take(3, Millis(404)));
        assert!(bucket.take(3, Millis(405)));
    }

    #[test]
    fn another_rate_gives_back_nothing() {
        let mut bucket = TokenBucket::new(10, Millis::ZERO);
        assert!(bucket.take(8, Millis::ZERO));
        let mut faster = bucket.at_rate(20, Millis(100));
        assert!(!faster.take(14, Millis(100)) && faster.take(13, Millis(100)));
        let mut slower = bucket.at_rate(2, Millis(100));
        assert!(!slower.take(1, Millis(100)) && slower.take(1, Millis(600)));
    }

    #[test]
    fn never_holds_more_than_the_burst() {
        let mut bucket = TokenBucket::new(10, Millis::ZERO);
        let now = Millis(1_000_000);
        assert_eq!((0..50).filter(|_| bucket.take(1, now)).count(), 10);
    }

    #[test]
    #[cfg_attr(miri, ignore = "60,000 steps of arithmetic")]
    fn asking_every_millisecond_loses_no_fraction() {
        let mut bucket = TokenBucket::new(7, Millis::ZERO);
        let granted = (0..=60_000).filter(|ms| bucket.take(1, Millis(*ms))).count();
        assert_eq!(granted, 7 + 7 * 60);
    }

    #[test]
    fn a_request_above_the_burst_waits_for_a_full_bucket_and_leaves_a_debt() {
        let mut bucket = TokenBucket::new(100, Millis::ZERO);
        assert!(bucket.take(1, Millis::ZERO));
        assert!(!bucket.take(250, Millis(9)));
        assert!(bucket.take(250, Millis(10)));
        assert!(!bucket.take(1, Millis(10)));
        // 150 units of debt, then the one asked for.
        assert!(!bucket.take(1, Millis(10 + 1_509)));
        assert!(bucket.take(1, Millis(10 + 1_510)));
        assert!(!bucket.take(1, Millis(10 + 1_510)));
        assert!(!bucket.take(250, Millis(10 + 2_509)));
        assert!(bucket.take(250, Millis(10 + 2_510)));
    }

    #[test]
    fn control_frames_are_handled_then_passed_over_then_abuse() {
        let mut frames = ControlFrames::default();
        let (handled, passed_over) = (usize::from(CONTROL_FRAMES_PER_SECOND_MAX), RATE_STRIKES_MAX as usize);
        for second in [0, 1, 70_000] {
            let now = Millis(second * 1_000 + 999);
            let outcomes: Vec<_> = (0..=handled + passed_over).map(|_| frames.take(now)).collect();
            assert_eq!(outcomes.iter().filter(|outcome| **outcome == Ok(true)).count(), handled);
            assert_eq!(outcomes.iter().filter(|outcome| **outcome == Ok(false)).count(), passed_over);
            assert_eq!(outcomes.last(), Some(&Err(PeerError::RateAbuse)));
        }
    }

    #[test]
    fn a_rate_of_zero_grants_nothing() {
        let mut bucket = TokenBucket::new(0, Millis::ZERO);
        assert!(!bucket.take(1, Millis::ZERO));
        assert!(!bucket.take(1, Millis(u64::MAX)));
        assert!(bucket.take(0, Millis(u64::MAX)));
    }

    #[test]
    fn extremes_do_not_overflow() {
        let mut bucket = TokenBucket::new(u64::MAX, Millis::ZERO);
        assert!(!bucket.take(u64::MAX, Millis::ZERO));
        assert!(bucket.take(UNITS_MAX, Millis::ZERO));
        assert!(!bucket.take(1, Millis::ZERO));
        assert!(bucket.take(UNITS_MAX, Millis(u64::MAX)));

        let mut slow = TokenBucket::new(1, Millis::ZERO);
        assert!(slow.take(UNITS_MAX, Millis::ZERO));
        assert!(!slow.take(1, Millis(1 << 53)));
        assert!(slow.take(1, Millis(u64::MAX)));
    }

    #[test]
    fn a_clock_set_back_changes_nothing() {
        let mut bucket = TokenBucket::new(10, Millis(1_000));
        assert!(bucket.take(10, Millis(1_000)));
        assert!(!bucket.take(1, Millis(0)));
        assert!(!bucket.take(1, Millis(1_099)));
        assert!(bucket.take(1, Millis(1_100)));
    }

    /// A rate, and steps of milliseconds to wait and units to ask for.
    fn schedule() -> impl Strategy<Value = (u64, Vec<(u64, u64)>)> {
        prop_oneof![0u64..20, 0u64..5_000, 0u64..1 << 40].prop_flat_map(|rate| {
            let units = prop_oneof![4 => 0..=rate, 1 => 0..=rate * 4];
            let wait_ms = prop_oneof![Just(0u64), 0u64..50, 0u64..3_000];
            let steps = proptest::collection::vec((wait_ms, units), 1..80);
            (Just(rate), steps)
        })
    }

    proptest! {
        #[test]
        fn no_stretch_of_time_is_granted_too_much((rate, steps) in schedule()) {
            let mut bucket = TokenBucket::new(rate, Millis::ZERO);
            let mut now = Millis::ZERO;
            let mut granted: Vec<(Millis, u128)> = Vec::new();
            let largest = steps.iter().map(|(_, n)| *n).max().unwrap_or(0);
            for (wait_ms, n) in steps {
                now = now.saturating_add(wait_ms);
                if bucket.take(n, now) {
                    granted.push((now, u128::from(n)));
                }
            }
            for first in 0..granted.len() {
                let mut sum = 0;
                for (at, n) in &granted[first..] {
                    sum += n;
                    let stretch_ms = u128::from(at.since(granted[first].0));
                    let burst = u128::from(rate.max(largest));
                    prop_assert!(sum * 1000 <= burst * 1000 + u128::from(rate) * stretch_ms);
                }
            }
        }

        #[test]
        fn equals_exact_fractions((rate, steps) in schedule()) {
            let mut bucket = TokenBucket::new(rate, Millis::ZERO);
            let burst_milli = i128::from(rate) * 1000;
            let mut level_milli = burst_milli;
            let mut now = Millis::ZERO;
            for (wait_ms, n) in steps {
                now = now.saturating_add(wait_ms);
                level_milli = burst_milli.min(level_milli + i128::from(wait_ms) * i128::from(rate));
                let wanted_milli = i128::from(n) * 1000;
                let granted = wanted_milli <= level_milli
                    || (wanted_milli > burst_milli && level_milli == burst_milli && rate > 0);
                prop_assert_eq!(bucket.take(n, now), granted);
                if granted {
                    level_milli -= wanted_milli;
                }
            }
        }

        #[test]
        fn a_second_is_enough_for_any_request_without_debt(
            rate in 1u64..1 << 40, n in 0u64..1 << 40,
        ) {
            let mut bucket = TokenBucket::new(rate, Millis::ZERO);
            prop_assert!(bucket.take(rate, Millis::ZERO));
            prop_assert!(bucket.take(n, Millis(1000)));
        }
    }
}
