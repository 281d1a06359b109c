//! Time as the sans-IO layers see it: a number of milliseconds that comes in from outside, and a
//! timer wheel turned by it.
//!
//! Owns the [`Millis`] and [`Stamp`] newtypes and the [`wheel::Wheel`]. Never reads a clock, sleeps or spawns.
//! Imports nothing of the crate.

pub mod wheel;

/// A moment: milliseconds since the node's own clock started. Monotone, and unrelated to Unix time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Millis(pub u64);

impl Millis {
    /// The moment the clock started.
    pub const ZERO: Self = Self(0);

    /// The moment so many nanoseconds after the clock started.
    #[must_use]
    pub const fn from_ns(ns: u64) -> Self {
        Self(ns / 1_000_000)
    }

    /// The moment `ms` milliseconds later; stops at the end of time instead of wrapping.
    #[must_use]
    pub const fn saturating_add(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms))
    }

    /// Milliseconds from `earlier` to `self`; 0 where `earlier` is not earlier.
    #[must_use]
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// A moment that a short time is measured from: units of 1,024 ns of the node's own clock, which come round after 73 minutes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stamp(u32);

impl Stamp {
    /// The moment so many nanoseconds after the node's own clock started.
    #[must_use]
    pub const fn from_ns(ns: u64) -> Self {
        Self((ns >> 10) as u32)
    }

    /// Nanoseconds from `earlier` to `self`, rounded to units; 0 where `earlier` is not earlier.
    #[must_use]
    pub const fn ns_since(self, earlier: Self) -> u64 {
        let units = self.0.wrapping_sub(earlier.0) as i32;
        if units < 0 { 0 } else { (units as u64) << 10 }
    }

    /// The earlier of both.
    #[must_use]
    pub const fn earlier(self, other: Self) -> Self {
        if (self.0.wrapping_sub(other.0) as i32) < 0 { self } else { other }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adding_stops_at_the_end_of_time() {
        assert_eq!(Millis(5).saturating_add(7), Millis(12));
        assert_eq!(Millis(u64::MAX - 1).saturating_add(7), Millis(u64::MAX));
    }

    #[test]
    fn a_stamp_tells_short_times_also_where_it_comes_round() {
        let round = 1 << 42;
        for begin in [0, 5_000_000, round - 1_000_000] {
            let (before, after) = (Stamp::from_ns(begin), Stamp::from_ns(begin + 2_048_000));
            assert_eq!((after.ns_since(before), before.ns_since(after)), (2_048_000, 0));
            assert_eq!((before.earlier(after), after.earlier(before)), (before, before));
        }
    }

    #[test]
    fn since_is_never_negative() {
        assert_eq!(Millis(12).since(Millis(5)), 7);
        assert_eq!(Millis(5).since(Millis(12)), 0);
        assert_eq!(Millis(5).since(Millis::ZERO), 5);
    }
}
