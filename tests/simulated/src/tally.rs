//! How often what runs are meant to go through came up: a sweep in which something never did shows nothing about it.

use std::collections::BTreeMap;

/// See the module's documentation.
#[derive(Debug)]
pub struct Tally {
    /// Everything that is to come up in a usual sweep.
    expected: &'static [&'static str],
    counts: BTreeMap<&'static str, u64>,
}

impl Tally {
    /// Nothing came up so far.
    pub fn new(expected: &'static [&'static str]) -> Tally {
        Tally { expected, counts: BTreeMap::new() }
    }

    /// One more of these.
    pub fn count(&mut self, what: &'static str) {
        self.add(what, 1);
    }

    /// So many more of these.
    pub fn add(&mut self, what: &'static str, times: u64) {
        debug_assert!(self.expected.contains(&what), "{what}");
        *self.counts.entry(what).or_default() += times;
    }

    /// Takes in another run's.
    pub fn merge(&mut self, other: &Tally) {
        other.counts.iter().for_each(|(what, times)| self.add(what, *times));
    }

    /// What never came up.
    pub fn missing(&self) -> Vec<&'static str> {
        self.expected.iter().copied().filter(|what| self.counts.get(what).is_none_or(|&times| times == 0)).collect()
    }
}
