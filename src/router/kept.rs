//! What a history keeps, and what it takes: messages, keys of publishes, and a position that a client was told.
//!
//! Everything here is counted in bytes, structures and spare room included; what is compressed of a message is counted
//! by its frame.

use std::collections::VecDeque;
use std::sync::Arc;

use super::keys::Keys;
use super::slice::{SNAPSHOT_BYTES, Slice, Slicer};
use crate::compress::{HeldBytes, SharedFrame};
use crate::limits::{ALLOCATION_BYTES, HISTORY_ORDER_BYTES, PUBLISH_KEY_MS_MAX};
use crate::time::Millis;

/// See the module's documentation. What is noted, the sum of bytes and the slicer's snapshot are built again.
#[derive(Debug, Default)]
pub(super) struct Kept {
    ring: VecDeque<Entry>,
    /// Of all messages.
    message_bytes: usize,
    /// Since when no client is in the topic that was told a position. It is kept as long as a message.
    told_at: Option<Millis>,
    keys: Option<Box<Keys>>,
    slicer: Slicer,
    pub(super) noted: Noted,
}

/// What is noted of a history among all of its reactor.
#[derive(Debug, Default)]
pub(super) struct Noted {
    pub(super) bytes: usize,
    /// By the age of the oldest that it keeps. It may have been overtaken.
    pub(super) oldest: Option<Millis>,
    /// By when something is due to go. It may have been overtaken.
    pub(super) expiry: Option<Millis>,
}

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) frame: SharedFrame,
    kept_at: Millis,
}

impl Kept {
    /// What it takes, the places in the orders included.
    pub(super) fn bytes(&self) -> usize {
        let own = size_of::<Kept>() + ALLOCATION_BYTES + SNAPSHOT_BYTES + 2 * HISTORY_ORDER_BYTES;
        let keys = self.keys.as_ref().map_or(0, |keys| keys.bytes());
        own + deque_bytes(&self.ring) + self.message_bytes + keys
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ring.is_empty() && self.told_at.is_none() && self.keys.is_none()
    }

    pub(super) fn ring(&self) -> &VecDeque<Entry> {
        &self.ring
    }

    pub(super) fn push_back(&mut self, frame: SharedFrame, kept_at: Millis) {
        self.told_at = None;
        self.message_bytes += frame.bytes();
        if self.ring.capacity() == 0 {
            // Many topics have one message and no more.
            self.ring.reserve_exact(1);
        }
        self.ring.push_back(Entry { frame, kept_at });
    }

    pub(super) fn push_front(&mut self, frame: SharedFrame, kept_at: Millis) {
        self.told_at = None;
        self.message_bytes += frame.bytes();
        self.ring.push_front(Entry { frame, kept_at });
    }

    pub(super) fn pop_front(&mut self) {
        let Some(entry) = self.ring.pop_front() else { return };
        self.message_bytes -= entry.frame.bytes();
        shrink(&mut self.ring);
        entry.frame.evict();
    }

    /// The messages `after+1..=to`, all of which are here, with `first` at the front.
    pub(super) fn slice(&mut self, first: u64, after: u64, to: u64, pinned: &Arc<HeldBytes>) -> Slice {
        let ring = &self.ring;
        self.slicer.cut(after, to, pinned, || {
            // Nothing is asked for in front of what is here, unless it is nothing.
            let at = |offset: u64| (offset + 1 - first) as usize;
            ring.range(at(after)..at(to)).map(|entry| entry.frame.clone())
        })
    }

    /// The last of those who know the position leaves, or, with `None`, one of them is in the topic.
    pub(super) fn set_told(&mut self, left_at: Option<Millis>) {
        self.told_at = left_at;
    }

    /// When the oldest of all that is here was kept.
    pub(super) fn oldest_at(&self) -> Option<Millis> {
        let message = self.ring.front().map(|entry| entry.kept_at);
        message.into_iter().chain(self.oldest_key_at()).chain(self.told_at).min()
    }

    /// When something of it is due to go.
    pub(super) fn expires_at(&self, ttl_ms: u64) -> Option<Millis> {
        let message = self.ring.front().map(|entry| entry.kept_at.saturating_add(ttl_ms));
        let told = self.told_at.map(|at| at.saturating_add(ttl_ms));
        let key = self.oldest_key_at().map(|at| at.saturating_add(PUBLISH_KEY_MS_MAX));
        message.into_iter().chain(told).chain(key).min()
    }

    /// Drops what is too old, at most so many; how many.
    pub(super) fn expire(&mut self, now: Millis, ttl_ms: u64, max: usize) -> usize {
        let mut dropped = 0;
        while dropped < max && self.ring.front().is_some_and(|entry| entry.kept_at.saturating_add(ttl_ms) <= now) {
            self.pop_front();
            dropped += 1;
        }
        if self.told_at.is_some_and(|at| at.saturating_add(ttl_ms) <= now) {
            self.told_at = None;
        }
        while dropped < max && self.oldest_key_at().is_some_and(|at| at.saturating_add(PUBLISH_KEY_MS_MAX) <= now) {
            self.forget_key();
            dropped += 1;
        }
        dropped
    }

    /// Drops everything. Who has not sent a message yet holds it from now on.
    pub(super) fn clear(&mut self) {
        self.ring.drain(..).for_each(|entry| entry.frame.evict());
        (self.message_bytes, self.told_at, self.keys) = (0, None, None);
    }

    /// Drops the oldest, of a message and its key the message first.
    pub(super) fn drop_oldest(&mut self) {
        let oldest_at = self.oldest_at();
        let is_oldest = |at: Option<Millis>| at.is_some() && at == oldest_at;
        if is_oldest(self.ring.front().map(|entry| entry.kept_at)) {
            self.pop_front();
        } else if is_oldest(self.oldest_key_at()) {
            self.forget_key();
        } else {
            self.told_at = None;
        }
    }

    /// The offset of the message that was published with this key.
    pub(super) fn known(&self, key: &str) -> Option<u64> {
        self.keys.as_ref()?.known(key)
    }

    pub(super) fn remember(&mut self, key: Arc<str>, offset: u64, now: Millis) {
        self.keys.get_or_insert_default().remember(key, offset, now);
    }

    fn oldest_key_at(&self) -> Option<Millis> {
        self.keys.as_ref()?.oldest_at()
    }

    fn forget_key(&mut self) {
        let Some(keys) = &mut self.keys else { return };
        keys.forget_oldest();
        if keys.is_empty() {
            self.keys = None;
        }
    }
}

/// Room for fewer is not given back.
pub(super) const SPARE_MIN: usize = 32;

/// Gives back room that is not needed any more: so that each time is paid for by those that went before it, not at once.
pub(super) fn shrink<T>(deque: &mut VecDeque<T>) {
    if deque.capacity() > SPARE_MIN && 4 * deque.len() < deque.capacity() {
        deque.shrink_to(2 * deque.len());
    }
}

pub(super) fn deque_bytes<T>(deque: &VecDeque<T>) -> usize {
    deque.capacity() * size_of::<T>() + ALLOCATION_BYTES
}
