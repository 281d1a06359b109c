//! Time as the sans-IO layers see it: a number of milliseconds that comes in from outside, and a
//! timer wheel turned by it.
//!
//! Owns the [`Millis`] newtype and the [`wheel::Wheel`]. Never reads a clock, sleeps or spawns.
//! Imports nothing of the crate.

pub mod wheel;

/// A moment: milliseconds since the node's own clock started. Monotone, and unrelated to Unix time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Millis(pub u64);

impl Millis {
    /// The moment the clock started.
    pub const ZERO: Self = Self(0);

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adding_stops_at_the_end_of_time() {
        assert_eq!(Millis(5).saturating_add(7), Millis(12));
        assert_eq!(Millis(u64::MAX - 1).saturating_add(7), Millis(u64::MAX));
    }

    #[test]
    fn since_is_never_negative() {
        assert_eq!(Millis(12).since(Millis(5)), 7);
        assert_eq!(Millis(5).since(Millis(12)), 0);
        assert_eq!(Millis(5).since(Millis::ZERO), 5);
    }
}
