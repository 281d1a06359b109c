//! By which publishes messages came, so that a retry is known.

use std::collections::VecDeque;
use std::hash::RandomState;
use std::sync::Arc;

use hashbrown::HashMap;

use super::kept::{SPARE_MIN, deque_bytes, shrink};
use crate::limits::{ALLOCATION_BYTES, PUBLISH_KEY_MS_MAX, PUBLISH_KEYS_MAX};
use crate::time::Millis;

/// The keys of a topic's publishes, at most [`PUBLISH_KEYS_MAX`] of them, the oldest goes first.
#[derive(Debug, Default)]
pub(super) struct Keys {
    offsets: HashMap<Arc<str>, u64, RandomState>,
    order: VecDeque<(Millis, Arc<str>)>,
    /// Of all keys.
    text_bytes: usize,
}

impl Keys {
    /// What they take.
    pub(super) fn bytes(&self) -> usize {
        let own = size_of::<Keys>() + 2 * ALLOCATION_BYTES;
        own + self.offsets.allocation_size() + deque_bytes(&self.order) + self.text_bytes
    }

    pub(super) fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// The offset of what was published with this key.
    pub(super) fn known(&self, key: &str) -> Option<u64> {
        self.offsets.get(key).copied()
    }

    pub(super) fn remember(&mut self, key: Arc<str>, offset: u64, now: Millis) {
        if self.order.len() == PUBLISH_KEYS_MAX {
            self.forget_oldest();
        }
        self.text_bytes += Keys::text_bytes(&key);
        self.offsets.insert(key.clone(), offset);
        self.order.push_back((now, key));
    }

    pub(super) fn oldest_at(&self) -> Option<Millis> {
        self.order.front().map(|(at, _)| *at)
    }

    /// Forgets what is too old to be known.
    pub(super) fn expire(&mut self, now: Millis) {
        while self.oldest_at().is_some_and(|at| at.saturating_add(PUBLISH_KEY_MS_MAX) <= now) {
            self.forget_oldest();
        }
    }

    pub(super) fn forget_oldest(&mut self) {
        let Some((_, key)) = self.order.pop_front() else { return };
        self.text_bytes -= Keys::text_bytes(&key);
        self.offsets.remove(&key);
        shrink(&mut self.order);
        if self.offsets.capacity() > SPARE_MIN && 4 * self.offsets.len() < self.offsets.capacity() {
            self.offsets.shrink_to(2 * self.offsets.len());
        }
    }

    fn text_bytes(key: &str) -> usize {
        key.len() + 2 * size_of::<usize>() + ALLOCATION_BYTES
    }
}
