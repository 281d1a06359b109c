//! How long to wait before the next attempt, so that clients which a server lost at once do not come back at once.

use std::time::Duration;

use super::error::Retry;

/// The longest that the first pause may be.
const FIRST_MS_MAX: u64 = 500;

/// The longest that any pause may be.
const PAUSE_MS_MAX: u64 = 20_000;

/// The longest that a server's own word is obeyed.
const TOLD_MS_MAX: u64 = 60_000;

/// A connection that lived for so long ends a row of failures.
pub(super) const STEADY: Duration = Duration::from_secs(20);

/// Full jitter: any pause from none to a bound that doubles with every failure.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The pause after a connection that lived for `lived`; none for an attempt that came to nothing. `None` where
    /// coming back has no point.
    pub(super) fn pause(&mut self, retry: Retry, lived: Duration) -> Option<Duration> {
        if lived >= STEADY {
            self.failures = 0;
        }
        let bound_ms = self.bound_ms();
        match retry {
            Retry::Never => None,
            Retry::After(told) => Some(told.min(Duration::from_millis(TOLD_MS_MAX))),
            Retry::Backoff => {
                self.failures = self.failures.saturating_add(1);
                Some(Duration::from_millis(fastrand::u64(0..=bound_ms)))
            }
        }
    }

    fn bound_ms(&self) -> u64 {
        // Six doublings are beyond the bound already.
        (FIRST_MS_MAX << self.failures.min(6)).min(PAUSE_MS_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_doubles_up_to_twenty_seconds_and_a_steady_connection_ends_the_row() {
        let mut backoff = Backoff::default();
        let mut bounds = Vec::new();
        for _ in 0..8 {
            bounds.push(backoff.bound_ms());
            let bound = Duration::from_millis(backoff.bound_ms());
            assert!(backoff.pause(Retry::Backoff, Duration::ZERO).unwrap() <= bound);
        }
        assert_eq!(bounds, [500, 1000, 2000, 4000, 8000, 16_000, 20_000, 20_000]);
        backoff.pause(Retry::Backoff, STEADY - Duration::from_millis(1)).unwrap();
        assert_eq!(backoff.bound_ms(), 20_000);
        backoff.pause(Retry::Backoff, STEADY).unwrap();
        assert_eq!(backoff.bound_ms(), 1000);
    }

    #[test]
    fn pauses_are_spread_over_all_of_the_bound() {
        let pauses = || (0..1000).map(|_| Backoff::default().pause(Retry::Backoff, Duration::ZERO).unwrap());
        assert!(pauses().any(|pause| pause < Duration::from_millis(50)));
        assert!(pauses().any(|pause| pause > Duration::from_millis(450)));
    }

    #[test]
    fn the_servers_word_is_obeyed_within_reason() {
        let mut backoff = Backoff::default();
        let told = |ms| Retry::After(Duration::from_millis(ms));
        assert_eq!(backoff.pause(told(1234), Duration::ZERO), Some(Duration::from_millis(1234)));
        assert_eq!(backoff.pause(told(86_400_000), Duration::ZERO), Some(Duration::from_secs(60)));
        assert_eq!(backoff.pause(Retry::Never, Duration::ZERO), None);
    }
}
