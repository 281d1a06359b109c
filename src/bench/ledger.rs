//! The judge: which messages each connection should have received, and what went wrong instead.
//!
//! A listener is one connection's interest in one stream, whose messages are numbered from 0. Sees no socket and no
//! clock.

use std::collections::BTreeSet;
use std::fmt::Write;

use super::limits::{FAULTS_TOLD_MAX, SKIPPED_MAX};
use super::wire::{Stamp, Tag};

/// What a server did wrong, counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Faults {
    /// Deliveries that never came.
    pub(super) missing: u64,
    /// Deliveries that came again.
    pub(super) doubled: u64,
    /// Deliveries that came after a later one.
    pub(super) reordered: u64,
    /// Deliveries of a stream that the connection does not listen to, or of a message that was never published.
    pub(super) misrouted: u64,
    /// Deliveries whose content is not what was published.
    pub(super) altered: u64,
    /// Rounds that came sooner than their interval allows.
    pub(super) hurried: u64,
    /// Connections that ended, or broke the protocol.
    pub(super) ended: u64,
    /// Commands answered with an error.
    pub(super) refused: u64,
    /// The first of them, in words.
    pub(super) told: Vec<String>,
}

impl Faults {
    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.counts().iter().all(|(_, count)| *count == 0)
    }

    /// Every kind with its count.
    pub(super) fn counts(&self) -> [(&'static str, u64); 8] {
        [
            ("missing", self.missing),
            ("doubled", self.doubled),
            ("reordered", self.reordered),
            ("misrouted", self.misrouted),
            ("altered", self.altered),
            ("hurried", self.hurried),
            ("ended", self.ended),
            ("refused", self.refused),
        ]
    }

    /// Adds what else was found.
    pub(super) fn add(&mut self, other: Faults) {
        let Faults { missing, doubled, reordered, misrouted, altered, hurried, ended, refused, told } = other;
        self.missing += missing;
        self.doubled += doubled;
        self.reordered += reordered;
        self.misrouted += misrouted;
        self.altered += altered;
        self.hurried += hurried;
        self.ended += ended;
        self.refused += refused;
        told.into_iter().for_each(|what| self.tell(|text| *text = what));
    }

    /// Describes a fault, if not enough are described already.
    pub(super) fn tell(&mut self, what: impl FnOnce(&mut String)) {
        if self.told.len() < FAULTS_TOLD_MAX {
            let mut text = String::new();
            what(&mut text);
            self.told.push(text);
        }
    }
}

/// What a delivery was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Delivered for the first time: it counts, in order or not.
    Counted,
    /// Delivered again, or to the wrong connection: a fault that counts for nothing else.
    Fault,
}

/// What one listener expects.
#[derive(Clone, Copy, Debug)]
struct Expectation {
    tag: Tag,
    /// The number of the next message.
    next: u32,
}

/// What every listener expects.
#[derive(Debug)]
pub(super) struct Ledger {
    expectations: Vec<Expectation>,
    /// Listener and number of what was overtaken: missing, until it comes.
    skipped: BTreeSet<(usize, u32)>,
    faults: Faults,
}

impl Ledger {
    /// One listener for each tag, which names its stream.
    pub(super) fn new(tags: impl Iterator<Item = Tag>) -> Ledger {
        let expectations = tags.map(|tag| Expectation { tag, next: 0 }).collect();
        Ledger { expectations, skipped: BTreeSet::new(), faults: Faults::default() }
    }

    /// Judges a delivery to a listener. `published` is how many messages its stream has had so far.
    #[inline]
    pub(super) fn delivered(&mut self, listener: usize, stamp: Stamp, published: u32) -> Verdict {
        let expected = &mut self.expectations[listener];
        if stamp.tag == expected.tag && stamp.sequence == expected.next && stamp.sequence < published {
            expected.next += 1;
            return Verdict::Counted;
        }
        self.unexpected(listener, stamp, published)
    }

    /// What a listener expects next.
    #[inline]
    pub(super) fn next(&self, listener: usize) -> Stamp {
        let Expectation { tag, next } = self.expectations[listener];
        Stamp { tag, sequence: next }
    }

    /// What has been found so far.
    pub(super) fn faults(&self) -> &Faults {
        &self.faults
    }

    /// For what the connections' owner finds.
    pub(super) fn faults_mut(&mut self) -> &mut Faults {
        &mut self.faults
    }

    /// Closes the books: what has not come now is missing. `published` says how many messages a listener's stream
    /// has had.
    pub(super) fn close(mut self, published: impl Fn(usize) -> u32) -> Faults {
        for (listener, sequence) in std::mem::take(&mut self.skipped) {
            self.missing(listener, sequence, 1);
        }
        for listener in 0..self.expectations.len() {
            let next = self.expectations[listener].next;
            let left = published(listener).saturating_sub(next);
            if left > 0 {
                self.missing(listener, next, left);
            }
        }
        self.faults
    }

    #[cold]
    fn unexpected(&mut self, listener: usize, stamp: Stamp, published: u32) -> Verdict {
        let Stamp { tag, sequence } = stamp;
        let Expectation { tag: expected_tag, next } = self.expectations[listener];
        if tag != expected_tag || sequence >= published {
            self.faults.misrouted += 1;
            self.faults.tell(|text| {
                let _ = write!(
                    text,
                    "listener {listener} got message {sequence} of a stream that is not its own, or before it was sent"
                );
            });
            return Verdict::Fault;
        }
        if sequence > next {
            for skipped in next..sequence {
                if self.skipped.len() < SKIPPED_MAX {
                    self.skipped.insert((listener, skipped));
                } else {
                    self.missing(listener, skipped, 1);
                }
            }
            self.expectations[listener].next = sequence + 1;
            return Verdict::Counted;
        }
        if self.skipped.remove(&(listener, sequence)) {
            self.faults.reordered += 1;
            self.faults.tell(|text| {
                let _ = write!(text, "listener {listener} got message {sequence} after a later one");
            });
            return Verdict::Counted;
        }
        self.faults.doubled += 1;
        self.faults.tell(|text| {
            let _ = write!(text, "listener {listener} got message {sequence} again");
        });
        Verdict::Fault
    }

    fn missing(&mut self, listener: usize, sequence: u32, count: u32) {
        self.faults.missing += u64::from(count);
        self.faults.tell(|text| {
            let _ = match count {
                1 => write!(text, "listener {listener} never got message {sequence}"),
                _ => write!(text, "listener {listener} never got {count} messages from {sequence} on"),
            };
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PUBLISHED: u32 = 100;

    /// The counts after these numbers of the listener's own stream.
    fn judged(sequences: impl IntoIterator<Item = u32>) -> (u64, u64, u64, u64) {
        let mut ledger = Ledger::new([Tag::new(7)].into_iter());
        for sequence in sequences {
            ledger.delivered(0, Stamp { tag: Tag::new(7), sequence }, PUBLISHED);
        }
        let faults = ledger.close(|_| PUBLISHED);
        (faults.missing, faults.doubled, faults.reordered, faults.misrouted)
    }

    #[test]
    fn all_in_order_is_no_fault() {
        assert_eq!(judged(0..PUBLISHED), (0, 0, 0, 0));
    }

    #[test]
    fn foreign_and_unpublished_messages_are_misrouted() {
        let mut ledger = Ledger::new([Tag::new(7)].into_iter());
        assert_eq!(ledger.delivered(0, Stamp { tag: Tag::new(8), sequence: 0 }, 1), Verdict::Fault);
        assert_eq!(ledger.delivered(0, Stamp { tag: Tag::new(7), sequence: 0 }, 0), Verdict::Fault);
        assert_eq!(ledger.delivered(0, Stamp { tag: Tag::new(7), sequence: 0 }, 1), Verdict::Counted);
        let faults = ledger.close(|_| 1);
        assert_eq!((faults.misrouted, faults.missing, faults.told.len()), (2, 0, 2));
    }

    proptest! {
        #[test]
        fn a_dropped_message_is_missing(at in 0..PUBLISHED) {
            prop_assert_eq!(judged((0..PUBLISHED).filter(|sequence| *sequence != at)), (1, 0, 0, 0));
        }

        #[test]
        fn a_repeated_message_is_doubled(at in 0..PUBLISHED, later in 0..PUBLISHED) {
            let mut sequences: Vec<u32> = (0..PUBLISHED).collect();
            sequences.insert(at.max(later) as usize + 1, at.min(later));
            prop_assert_eq!(judged(sequences), (0, 1, 0, 0));
        }

        #[test]
        fn a_swapped_message_is_reordered(at in 0..PUBLISHED - 1) {
            let mut sequences: Vec<u32> = (0..PUBLISHED).collect();
            sequences.swap(at as usize, at as usize + 1);
            prop_assert_eq!(judged(sequences), (0, 0, 1, 0));
        }
    }
}
