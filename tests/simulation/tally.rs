//! How often what runs are meant to go through came up: a sweep in which something never did shows nothing about it.

use std::collections::BTreeMap;

/// Everything that is to come up in a usual sweep.
const EXPECTED: [&str; 20] = [
    "a message came",
    "a message had to come",
    "a large message came",
    "a compressed message came",
    "a message came to nobody",
    "a presence at rest",
    "a worker paused reading",
    "refused: at capacity",
    "refused: too slow a request",
    "plain HTTP handed over",
    "closed as slow",
    "closed for room",
    "closed by drain",
    "closed for a violation",
    "closed by the client",
    "vanished in the middle of a frame",
    "cut off for silence",
    "cut off in the middle of a frame",
    "drained at rest",
    "drained while busy",
];

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct Tally(BTreeMap<&'static str, u64>);

impl Tally {
    /// One more of these.
    pub fn count(&mut self, what: &'static str) {
        self.add(what, 1);
    }

    /// So many more of these.
    pub fn add(&mut self, what: &'static str, times: u64) {
        debug_assert!(EXPECTED.contains(&what), "{what}");
        *self.0.entry(what).or_default() += times;
    }

    /// Takes in another run's.
    pub fn merge(&mut self, other: &Tally) {
        other.0.iter().for_each(|(what, times)| self.add(what, *times));
    }

    /// What never came up.
    pub fn missing(&self) -> Vec<&'static str> {
        EXPECTED.into_iter().filter(|what| !self.0.contains_key(what)).collect()
    }
}
