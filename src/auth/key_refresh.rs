//! When a key set is fetched: by itself now and then, and at once where a token asks for a key that is not there. However
//! many tokens do that, the second kind comes once in [`KEYS_WANTED_MS_MIN`] at most.
//!
//! ```text
//!   Due(at) ── begin ─► under way ── end ─► Due(next)
//!      ▲
//!      └── want: now, unless a want has had its fetch a moment ago
//! ```
//!
//! Times are milliseconds of any clock that only goes forward.

use crate::limits::{KEYS_RETRY_MS_MAX, KEYS_RETRY_MS_MIN, KEYS_WANTED_MS_MIN};

/// What becomes of those who want a key that is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Want {
    /// The set is fetched now: they wait for that.
    Wait,
    /// It was fetched for such a want a moment ago: there is nothing newer to be had.
    Settled,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct KeyRefresh {
    every_ms: u64,
    due_at: u64,
    /// When it was wanted last, if that was granted.
    wanted_at: Option<u64>,
    /// Fetches in a row that brought nothing.
    failed: u32,
}

impl KeyRefresh {
    /// Due at once, and then at this interval.
    pub fn new(every_ms: u64, now_ms: u64) -> KeyRefresh {
        KeyRefresh { every_ms, due_at: now_ms, wanted_at: None, failed: 0 }
    }

    /// When the next fetch is due.
    pub fn due_at(&self) -> u64 {
        self.due_at
    }

    /// Whether the last fetch brought a good set.
    pub fn is_good(&self) -> bool {
        self.failed == 0
    }

    /// A token asks for a key that is not there.
    pub fn want(&mut self, now_ms: u64) -> Want {
        if self.due_at <= now_ms {
            return Want::Wait;
        }
        if self.wanted_at.is_some_and(|at| now_ms.saturating_sub(at) < KEYS_WANTED_MS_MIN) {
            return Want::Settled;
        }
        self.wanted_at = Some(now_ms);
        self.due_at = now_ms;
        Want::Wait
    }

    /// A fetch has ended, with a good set or without one. `jitter` gives a number up to what it is told, so that the nodes
    /// of a cluster do not fetch in step.
    pub fn ended(&mut self, now_ms: u64, is_good: bool, jitter: impl FnOnce(u64) -> u64) {
        let wait_ms = match is_good {
            true => {
                self.failed = 0;
                self.every_ms
            }
            false => {
                let doubled_ms = KEYS_RETRY_MS_MIN << self.failed.min(16);
                self.failed = self.failed.saturating_add(1);
                doubled_ms.min(KEYS_RETRY_MS_MAX).min(self.every_ms)
            }
        };
        let tenth_ms = wait_ms / 10;
        self.due_at = now_ms.saturating_add(wait_ms - tenth_ms).saturating_add(jitter(2 * tenth_ms));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVERY_MS: u64 = 300_000;

    fn middle(most: u64) -> u64 {
        most / 2
    }

    #[test]
    fn it_is_fetched_at_the_start_and_at_its_interval() {
        let mut refresh = KeyRefresh::new(EVERY_MS, 7);
        assert_eq!(refresh.due_at(), 7);
        refresh.ended(100, true, middle);
        assert_eq!(refresh.due_at(), 100 + EVERY_MS);
        refresh.ended(100, true, |_| 0);
        assert_eq!(refresh.due_at(), 100 + EVERY_MS * 9 / 10);
        refresh.ended(100, true, |most| most);
        assert_eq!(refresh.due_at(), 100 + EVERY_MS * 11 / 10);
    }

    #[test]
    fn a_failed_fetch_comes_again_ever_later_and_never_later_than_a_good_one() {
        let mut refresh = KeyRefresh::new(EVERY_MS, 0);
        let mut waits = Vec::new();
        for _ in 0..80 {
            refresh.ended(0, false, middle);
            waits.push(refresh.due_at());
        }
        assert_eq!(
            waits[..4],
            [KEYS_RETRY_MS_MIN, 2 * KEYS_RETRY_MS_MIN, 4 * KEYS_RETRY_MS_MIN, 8 * KEYS_RETRY_MS_MIN]
        );
        assert_eq!(waits[79], KEYS_RETRY_MS_MAX);
        refresh.ended(0, true, middle);
        refresh.ended(0, false, middle);
        assert_eq!(refresh.due_at(), KEYS_RETRY_MS_MIN, "a good one forgives");
        assert!(!refresh.is_good());
        refresh.ended(0, true, middle);
        assert!(refresh.is_good());
        let mut often = KeyRefresh::new(10_000, 0);
        (0..80).for_each(|_| often.ended(0, false, middle));
        assert_eq!(often.due_at(), 10_000);
    }

    #[test]
    fn made_up_kids_cause_one_fetch_while_it_rests() {
        let mut refresh = KeyRefresh::new(EVERY_MS, 0);
        refresh.ended(0, true, middle);
        let mut fetches = 0;
        for now_ms in 0..3 * KEYS_WANTED_MS_MIN {
            let want = refresh.want(now_ms);
            if refresh.due_at() <= now_ms {
                assert_eq!(want, Want::Wait);
                fetches += 1;
                refresh.ended(now_ms, now_ms % 2 == 0, middle);
            } else {
                assert_eq!(want, Want::Settled);
            }
        }
        // Those that failed are tried again by themselves.
        assert!((3..=10).contains(&fetches), "{fetches}");
    }

    #[test]
    fn a_want_waits_for_a_fetch_that_is_due_anyway_and_does_not_use_up_its_own() {
        let mut refresh = KeyRefresh::new(EVERY_MS, 0);
        refresh.ended(0, true, middle);
        assert_eq!(refresh.want(1), Want::Wait, "the first fetch was nobody's wish");
        refresh.ended(2, true, middle);
        assert_eq!(refresh.want(3), Want::Settled);
        assert_eq!(refresh.want(2 + EVERY_MS), Want::Wait);
        refresh.ended(3 + EVERY_MS, true, middle);
        assert_eq!(refresh.want(4 + EVERY_MS), Want::Wait, "that one was due anyway");
        refresh.ended(5 + EVERY_MS, true, middle);
        assert_eq!(refresh.want(6 + EVERY_MS), Want::Settled);
    }
}
