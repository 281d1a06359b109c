//! Histograms with exponential buckets, as Prometheus' native histograms have them: eight to each power of two.
//!
//! A bucket is found with integer operations only, in constant time. One thread records, any thread reads: buckets are plain
//! loads and stores, so a reactor pays some twenty instructions for one observation, whatever it stands for.

use std::sync::atomic::{AtomicU64, Ordering};

/// Prometheus' resolution: bucket `i` ends at 2^(i / 2^SCHEMA), that end included.
pub const SCHEMA: u32 = 3;

/// Buckets to each power of two.
const STEPS: usize = 1 << SCHEMA;

/// Buckets of a histogram, from the least value to the greatest that are told apart.
const BUCKETS: usize = POWERS * STEPS + 1;

/// Powers of two that they cover.
const POWERS: usize = 26;

/// What a histogram's values are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Nanoseconds, shown in seconds: from 2^-20 s (a microsecond) to 2^6 s are told apart.
    Nanoseconds,
    /// Numbers of something: from 1 to 2^26 are told apart.
    Count,
}

impl Unit {
    /// What is recorded, in the unit that buckets are found in: 2^-30 s, or 1.
    #[inline]
    fn fine(self, value: u64) -> u64 {
        match self {
            // 2^30 / 10^9, in 2^-32.
            Unit::Nanoseconds => {
                // Three centuries: what takes longer is counted as that.
                let value = value.min(1 << 63);
                ((u128::from(value) * 4_611_686_018) >> 32) as u64
            }
            Unit::Count => value,
        }
    }

    /// Powers of two between that unit and the end of the first bucket.
    const fn least(self) -> u32 {
        match self {
            Unit::Nanoseconds => 10,
            Unit::Count => 0,
        }
    }

    /// The power of two that is the end of the first bucket, in the unit shown.
    const fn exponent(self) -> i32 {
        match self {
            Unit::Nanoseconds => -20,
            Unit::Count => 0,
        }
    }

    /// What is added up: coarse enough that no sum is ever full.
    #[inline]
    fn coarse(self, fine: u64) -> u64 {
        match self {
            // 2^-24 s, rounded.
            Unit::Nanoseconds => (fine + 32) >> 6,
            Unit::Count => fine,
        }
    }

    /// How many of what is added up make one of what is shown.
    fn shown(self) -> f64 {
        match self {
            Unit::Nanoseconds => f64::from(1 << 24),
            Unit::Count => 1.0,
        }
    }
}

/// 2^(63 + i/8), for i from 1 on: between two of them lies one step. The last is never exceeded.
const THRESHOLDS: [u64; STEPS] = [
    10_058_158_527_438_640_870,
    10_968_499_650_544_839_023,
    11_961_233_684_655_323_370,
    13_043_817_825_332_782_212,
    14_224_384_202_002_324_189,
    15_511_800_964_685_064_948,
    16_915_738_899_553_466_670,
    u64::MAX,
];

/// What has been observed: written by one thread, read by any.
#[derive(Debug)]
pub struct Histogram {
    unit: Unit,
    buckets: [AtomicU64; BUCKETS],
    sum: AtomicU64,
}

impl Histogram {
    /// Nothing so far.
    pub fn new(unit: Unit) -> Histogram {
        Histogram { unit, buckets: std::array::from_fn(|_| AtomicU64::new(0)), sum: AtomicU64::new(0) }
    }

    /// Something was observed `times` times; called by the owner only. What is below the first bucket is counted there, what
    /// is above the last in the last.
    #[inline]
    pub fn record(&self, value: u64, times: u64) {
        let more = |counter: &AtomicU64, by| {
            counter.store(counter.load(Ordering::Relaxed).wrapping_add(by), Ordering::Relaxed);
        };
        let fine = self.unit.fine(value);
        more(&self.buckets[bucket(self.unit, fine)], times);
        more(&self.sum, self.unit.coarse(fine).wrapping_mul(times));
    }

    /// What has been observed so far. Each bucket is as it was a moment ago, not all of them at the same moment.
    pub fn read(&self) -> Snapshot {
        Snapshot {
            unit: self.unit,
            buckets: self.buckets.each_ref().map(|bucket| bucket.load(Ordering::Relaxed)).into(),
            sum: self.sum.load(Ordering::Relaxed),
        }
    }
}

/// The bucket of a value as [`Unit::fine`] has it.
#[inline]
fn bucket(unit: Unit, fine: u64) -> usize {
    let fine = fine.max(1);
    let zeros = fine.leading_zeros();
    // The highest bit stands first; the next three say in which step it is, but for the one threshold within.
    let mantissa = fine << zeros;
    let guess = (mantissa >> (63 - SCHEMA)) as usize & (STEPS - 1);
    let within = usize::from(mantissa > THRESHOLDS[guess]);
    // A power of two itself is the end of the step before.
    let beyond = usize::from(mantissa > 1 << 63);
    let at = (63 - zeros) as usize * STEPS + guess + within + beyond;
    at.saturating_sub(unit.least() as usize * STEPS).min(BUCKETS - 1)
}

/// What a histogram has observed.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot {
    unit: Unit,
    buckets: Box<[u64]>,
    sum: u64,
}

impl Snapshot {
    /// Observations.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// All values together, in seconds or as the number they are.
    pub fn sum(&self) -> f64 {
        self.sum as f64 / self.unit.shown()
    }

    /// Buckets that have something: each with its index as Prometheus numbers them, and how many.
    pub fn native(&self) -> impl Iterator<Item = (i32, u64)> {
        let first = self.unit.exponent() * STEPS as i32;
        let used = self.buckets.iter().enumerate().filter(|(_, count)| **count > 0);
        used.map(move |(at, count)| (first + at as i32, *count))
    }

    /// Few buckets: each with its end, and how many observations are not above it. Without the one that has no end.
    pub fn classic(&self) -> Vec<(f64, u64)> {
        let mut below = 0;
        let mut ends = Vec::new();
        for (power, buckets) in powers(&self.buckets) {
            below += buckets.iter().sum::<u64>();
            if power % CLASSIC_POWERS == 0 && power < POWERS as i32 {
                ends.push((f64::exp2(f64::from(self.unit.exponent() + power)), below));
            }
        }
        ends
    }

    /// The value that a share of all observations (0 to 1) is not above, as far as the buckets tell: within 9 %. `None`
    /// where there are none.
    pub fn quantile(&self, share: f64) -> Option<f64> {
        let count = self.count();
        let rank = ((count as f64 * share).ceil() as u64).max(1);
        let mut below = 0;
        let at = self.buckets.iter().position(|count| {
            below += count;
            below >= rank
        })?;
        Some(f64::exp2(f64::from(self.unit.exponent()) + at as f64 / STEPS as f64))
    }

    /// The same of durations, in whole microseconds.
    pub fn quantile_us(&self, share: f64) -> Option<u64> {
        self.quantile(share).map(|seconds| (seconds * 1e6).round() as u64)
    }

    /// What was observed since an earlier look at the same histogram.
    #[must_use]
    pub fn since(&self, earlier: &Snapshot) -> Snapshot {
        let buckets =
            self.buckets.iter().zip(&earlier.buckets).map(|(now, before)| now.saturating_sub(*before)).collect();
        Snapshot { unit: self.unit, buckets, sum: self.sum.wrapping_sub(earlier.sum) }
    }

    /// The same of both together, which are in the same unit.
    #[must_use]
    pub fn plus(mut self, other: &Snapshot) -> Snapshot {
        assert_eq!(self.unit, other.unit, "seconds are not added to counts");
        self.buckets.iter_mut().zip(&other.buckets).for_each(|(bucket, more)| *bucket += more);
        self.sum = self.sum.wrapping_add(other.sum);
        self
    }
}

/// Powers of two from one classic bucket to the next.
const CLASSIC_POWERS: i32 = 2;

/// For each power of two, behind the end of the first bucket, the buckets that end up to it and behind the one before.
fn powers(buckets: &[u64]) -> impl Iterator<Item = (i32, &[u64])> {
    let first = std::iter::once((0, &buckets[..1]));
    first.chain(buckets[1..].chunks(STEPS).enumerate().map(|(at, chunk)| (at as i32 + 1, chunk)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn index(unit: Unit, value: u64) -> i32 {
        let histogram = Histogram::new(unit);
        histogram.record(value, 1);
        let snapshot = histogram.read();
        let (index, count) = snapshot.native().next().expect("it was recorded");
        assert_eq!((count, snapshot.count()), (1, 1));
        index
    }

    #[test]
    fn a_bucket_includes_its_end() {
        for power in 0..26 {
            let end = 1_u64 << power;
            assert_eq!(index(Unit::Count, end), power * 8, "2^{power}");
        }
        assert_eq!((index(Unit::Count, 5), index(Unit::Count, 3)), (19, 13));
        assert_eq!((index(Unit::Count, 0), index(Unit::Count, u64::MAX)), (0, 208));
        assert_eq!((index(Unit::Nanoseconds, 0), index(Unit::Nanoseconds, u64::MAX)), (-160, 48));
        assert_eq!((index(Unit::Nanoseconds, 1_000_000_000), index(Unit::Nanoseconds, 1_000_000_010)), (0, 1));
    }

    #[test]
    fn few_buckets_hold_what_many_do() {
        let histogram = Histogram::new(Unit::Nanoseconds);
        for (value, times) in [(1, 1), (50_000, 2), (1_000_000_000, 3), (3_000_000_000, 4), (1 << 50, 5)] {
            histogram.record(value, times);
        }
        let snapshot = histogram.read();
        let classic = snapshot.classic();
        assert_eq!(classic.len(), 13);
        assert_eq!((classic[0], classic[2]), ((f64::exp2(-20.0), 1), (f64::exp2(-16.0), 1)));
        assert_eq!((classic[3], classic[10], classic[11]), ((f64::exp2(-14.0), 3), (1.0, 6), (4.0, 10)));
        assert_eq!((classic[12], snapshot.count()), ((16.0, 10), 15));
        assert_eq!(snapshot.quantile(0.4), Some(1.0));
        assert!(snapshot.quantile(0.2).is_some_and(|p20| (50e-6..55e-6).contains(&p20)));
        assert_eq!(Histogram::new(Unit::Count).read().quantile(0.5), None);
        let doubled = snapshot.clone().plus(&snapshot);
        assert_eq!((doubled.count(), doubled.sum()), (30, 2.0 * snapshot.sum()));
    }

    proptest! {
        #[test]
        fn integers_find_the_bucket_that_logarithms_do(value in 1_u64..1 << 26) {
            let exact = ((value as f64).log2() * 8.0 - 1e-9).ceil() as i32;
            prop_assert_eq!(index(Unit::Count, value), exact);
        }

        #[test]
        fn a_time_is_in_the_bucket_of_its_seconds(ns in 1_000_u64..60_000_000_000) {
            let at = index(Unit::Nanoseconds, ns);
            let (low, high) = (f64::exp2(f64::from(at - 1) / 8.0), f64::exp2(f64::from(at) / 8.0));
            let seconds = ns as f64 / 1e9;
            // Nanoseconds are whole.
            let off = 1.1e-9 + 1e-9 * seconds;
            prop_assert!(low - off <= seconds && seconds <= high + off, "{} is not in {}..{}", seconds, low, high);
        }
    }
}
