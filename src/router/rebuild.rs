//! What a router is, apart from what can be built again from it; for tests.

use std::collections::HashMap;

use super::Router;
use super::homes::HomeState;
use super::topic::{TopicIndex, TopicKey};
use crate::frame::FrameBuilder;

impl Router {
    /// Everything that can be built again is thrown away and built again: indices, hashes, lists, counts, orders, caches.
    /// No client can tell.
    pub fn rebuild(&mut self) {
        let mut names: HashMap<u32, TopicIndex> = HashMap::new();
        self.topics.rebuild(|before, after| {
            names.insert(before.0, after);
        });
        let renamed = |index: TopicIndex| names[&index.0];
        self.everyone = self.topics.find_or_insert(&TopicKey::everyone());
        self.members.rebuild(&mut self.topics, renamed);
        self.batches.rebuild(&mut self.topics, renamed);
        self.keyed.rebuild(renamed);
        self.homes.rebuild();
        self.retention.rebuild(&self.topics, &mut self.homes);
        self.frames = FrameBuilder::default();
    }

    /// Checks the parts against each other.
    ///
    /// # Panics
    /// Where they contradict each other.
    pub fn check_invariants(&self) {
        self.members.check(&self.topics);
        self.homes.check(self.topics.iter(), |index| self.keyed.keeps(index));
        self.retention.check(&self.topics, &self.homes);
        self.keyed.check();
        for (index, topic) in self.topics.iter() {
            let needed = topic.subscriptions > 0 || topic.home != HomeState::Vacant;
            assert!(needed || index == self.everyone, "{:?} is unused", topic.key);
        }
    }
}
