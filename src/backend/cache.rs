//! Decisions that hold for a while: the same question again, with the same header fields and the same token, gets the same
//! decision. All of it can be built again.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use ring::digest;

use crate::auth::Decision;
use crate::limits::DECISIONS_KEPT_MAX;

/// A question, and all that is sent with it, by its hash: what is kept holds no secret.
pub(super) type QuestionKey = [u8; digest::SHA256_OUTPUT_LEN];

/// The hash of what is sent, part by part.
pub(super) fn key_of<'p>(parts: impl IntoIterator<Item = &'p [u8]>) -> QuestionKey {
    let mut context = digest::Context::new(&digest::SHA256);
    for part in parts {
        // With its length, so that no two lists of parts look alike.
        context.update(&(part.len() as u64).to_le_bytes());
        context.update(part);
    }
    let mut key = [0; digest::SHA256_OUTPUT_LEN];
    key.copy_from_slice(context.finish().as_ref());
    key
}

/// See the module's documentation. At most [`DECISIONS_KEPT_MAX`]; beyond it the oldest is forgotten.
#[derive(Debug)]
pub(super) struct Cache {
    hold: Duration,
    kept: HashMap<QuestionKey, (Instant, Decision)>,
    /// The keys by age; all hold for the same time.
    ages: VecDeque<(Instant, QuestionKey)>,
}

impl Cache {
    /// Decisions hold so long; zero is not at all.
    pub(super) fn new(hold: Duration) -> Cache {
        Cache { hold, kept: HashMap::new(), ages: VecDeque::new() }
    }

    pub(super) fn find(&mut self, key: &QuestionKey, now: Instant) -> Option<Decision> {
        self.forget_old(now);
        self.kept.get(key).map(|(_, decision)| decision.clone())
    }

    pub(super) fn keep(&mut self, key: QuestionKey, decision: &Decision, now: Instant) {
        if self.hold.is_zero() {
            return;
        }
        self.forget_old(now);
        if self.ages.len() >= DECISIONS_KEPT_MAX {
            self.forget_oldest();
        }
        self.kept.insert(key, (now, decision.clone()));
        self.ages.push_back((now, key));
    }

    fn forget_old(&mut self, now: Instant) {
        while self.ages.front().is_some_and(|(at, _)| now.saturating_duration_since(*at) >= self.hold) {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        let Some((at, key)) = self.ages.pop_front() else { return };
        // Two who asked the same at once have both kept it: the later one counts.
        if self.kept.get(&key).is_some_and(|(kept_at, _)| *kept_at == at) {
            self.kept.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::Denial;

    fn key(number: usize) -> QuestionKey {
        key_of([&number.to_le_bytes()[..]])
    }

    #[test]
    fn a_decision_holds_for_its_time_and_no_longer() {
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let mut cache = Cache::new(Duration::from_millis(100));
        cache.keep(key(1), &Decision::Denied(Denial::Forbidden), at(0));
        assert!(matches!(cache.find(&key(1), at(99)), Some(Decision::Denied(Denial::Forbidden))));
        assert!(cache.find(&key(2), at(99)).is_none());
        assert!(cache.find(&key(1), at(100)).is_none());
        cache.keep(key(1), &Decision::Denied(Denial::Forbidden), at(100));
        cache.keep(key(1), &Decision::Denied(Denial::Unauthorized), at(150));
        assert!(matches!(cache.find(&key(1), at(210)), Some(Decision::Denied(Denial::Unauthorized))));
        assert!(cache.find(&key(1), at(250)).is_none());
        assert!(cache.kept.is_empty() && cache.ages.is_empty());
        let mut none = Cache::new(Duration::ZERO);
        none.keep(key(1), &Decision::Denied(Denial::Forbidden), at(0));
        assert!(none.find(&key(1), at(0)).is_none());
    }

    #[test]
    fn the_oldest_goes_where_there_are_many() {
        let now = Instant::now();
        let mut cache = Cache::new(Duration::from_secs(100));
        for number in 0..DECISIONS_KEPT_MAX + 10 {
            cache.keep(key(number), &Decision::Denied(Denial::Forbidden), now + Duration::from_millis(number as u64));
        }
        assert_eq!((cache.kept.len(), cache.ages.len()), (DECISIONS_KEPT_MAX, DECISIONS_KEPT_MAX));
        let later = now + Duration::from_secs(50);
        assert!(cache.find(&key(9), later).is_none() && cache.find(&key(10), later).is_some());
    }

    #[test]
    fn parts_are_told_apart_by_where_they_end() {
        let of = |parts: &[&str]| key_of(parts.iter().map(|part| part.as_bytes()));
        assert_ne!(of(&["ab", "c"]), of(&["a", "bc"]));
        assert_ne!(of(&["ab"]), of(&["ab", ""]));
        assert_eq!(of(&["ab", "c"]), of(&["ab", "c"]));
    }
}
