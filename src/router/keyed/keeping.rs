//! What a keyed room may hold, and what of it goes by itself.

use std::collections::{HashMap, HashSet};

use arcstr::ArcStr;

use super::HeldSum;
use super::KeyedBounds;
use super::items::{ItemState, item_bytes};
use super::room::KeyedRoom;
use super::updates::{CommandKind, ItemUpdates, TooManyItems};
use crate::limits::ITEMS_PER_CHORE;
use crate::router::history::StreamPosition;
use crate::time::Millis;

impl KeyedRoom {
    /// What it counts as among all of its reactor.
    pub(super) fn held(&self) -> HeldSum {
        let keys = self.source.as_deref().and_then(|source| source.keys.as_deref());
        let bytes = self.items.bytes() + keys.map_or(0, |keys| keys.bytes());
        HeldSum { items: self.items.present(), bytes }
    }

    /// Whether it knows nothing that is not known without it.
    pub(super) fn is_unused(&self) -> bool {
        let keys = self.source.as_deref().and_then(|source| source.keys.as_deref());
        self.items.is_empty() && keys.is_none()
    }

    /// The offset of what was published with this key a short while ago.
    pub(super) fn known(&mut self, key: &str, now: Millis) -> Option<u64> {
        let keys = self.source.as_deref_mut()?.keys.as_deref_mut()?;
        keys.expire(now);
        keys.known(key)
    }

    /// An offset in its epoch.
    pub(super) fn position_at(&self, offset: u64) -> StreamPosition {
        StreamPosition { offset, ..self.items.position() }
    }

    /// Whether a command's updates find room. The sums that are made first are nearly always enough.
    ///
    /// # Errors
    /// [`TooManyItems`], with the first update that does not.
    pub(super) fn find_room_for(
        &self,
        updates: &ItemUpdates,
        all: HeldSum,
        bounds: KeyedBounds,
    ) -> Result<(), TooManyItems> {
        let own = self.held();
        let items_max = (self.policy.items_max as usize).min((bounds.items_max + own.items).saturating_sub(all.items));
        let bytes_max = (self.policy.bytes_max as usize).min((bounds.bytes_max + own.bytes).saturating_sub(all.bytes));
        let more_bytes: usize =
            updates.iter().map(|update| item_bytes(update.item, update.tail.len() + self.head_bytes())).sum();
        if own.items + updates.len() <= items_max && own.bytes + more_bytes <= bytes_max {
            return Ok(());
        }
        let (mut items, mut bytes) = match updates.removal() {
            // Those that are not named leave their places.
            Some(_) => (0, 0),
            None => (own.items, own.bytes),
        };
        let mut changed: HashMap<&str, (ItemState, usize)> = HashMap::new();
        for (index, update) in updates.iter().enumerate() {
            let known = self.items.find(update.item).map(|at| self.items.get(at));
            let is_counted = updates.removal().is_none();
            let before = changed
                .get(update.item)
                .copied()
                .or_else(|| known.filter(|_| is_counted).map(|item| (item.state, item.bytes())));
            let (state_before, bytes_before) = before.unwrap_or((ItemState::Removed, 0));
            let bytes_after = item_bytes(update.item, update.tail.len() + self.head_bytes());
            items = items + usize::from(update.state == ItemState::Present)
                - usize::from(state_before == ItemState::Present);
            bytes = (bytes + bytes_after).saturating_sub(bytes_before);
            let grows = update.state == ItemState::Present && (items > items_max || bytes > bytes_max);
            if grows && (state_before == ItemState::Removed || bytes_after > bytes_before) {
                return Err(TooManyItems { index: (updates.kind() == CommandKind::Many).then_some(index as u32) });
            }
            changed.insert(update.item, (update.state, bytes_after));
        }
        Ok(())
    }

    /// Names of items with a value that are not among these, in the order of their last change.
    pub(super) fn present_but(&self, named: &HashSet<&str>) -> Vec<ArcStr> {
        let present = self.items.changed(0, u64::MAX).map(|(_, item)| item);
        let others = present.filter(|item| item.state == ItemState::Present && !named.contains(&*item.name));
        others.map(|item| item.name.clone()).collect()
    }

    /// Forgets removals that are too old, or too many; a bounded part of them.
    pub(super) fn forget(&mut self, now: Millis) {
        if let Some(keys) = self.source.as_deref_mut().and_then(|source| source.keys.as_deref_mut()) {
            keys.expire(now);
        }
        if let Some(source) = &mut self.source {
            source.keys.take_if(|keys| keys.is_empty());
        }
        let Some(before) = now.0.checked_sub(self.policy.removed_ttl_ms) else { return };
        for watch in self.items.forget(Millis(before), self.policy.items_max as usize, ITEMS_PER_CHORE) {
            self.unwatch(watch);
        }
    }

    /// Items that nobody has updated for as long as they are kept, a bounded part of them.
    pub(super) fn aged(&mut self, now: Millis) -> Vec<ArcStr> {
        let ttl_ms = self.policy.ttl_ms.filter(|_| self.source.is_some());
        match ttl_ms.and_then(|ttl_ms| now.0.checked_sub(ttl_ms)) {
            Some(before) => self.items.aged(Millis(before), ITEMS_PER_CHORE),
            None => Vec::new(),
        }
    }

    /// Whether members are to be told that nothing has been published for a while.
    pub(super) fn is_overdue(&self, now: Millis) -> bool {
        !self.is_stale && self.stale_at().is_some_and(|at| at <= now)
    }

    fn stale_at(&self) -> Option<Millis> {
        let published_at = self.source.as_deref()?.published_at?;
        Some(published_at.saturating_add(self.policy.stale_after_ms?))
    }

    /// When it has something to do by itself.
    pub(super) fn next_chore_at(&self) -> Option<Millis> {
        let is_home = self.source.is_some();
        let stale_at = self.stale_at().filter(|_| !self.is_stale);
        let aged_at = self.policy.ttl_ms.filter(|_| is_home).zip(self.items.oldest_at());
        let aged_at = aged_at.map(|(ttl_ms, at)| at.saturating_add(ttl_ms));
        let forgotten_at = self.items.oldest_removal_at().map(|at| at.saturating_add(self.policy.removed_ttl_ms));
        let keys = self.source.as_deref().and_then(|source| source.keys.as_deref());
        let key_at = keys.and_then(|keys| keys.oldest_at());
        let key_at = key_at.map(|at| at.saturating_add(crate::limits::PUBLISH_KEY_MS_MAX));
        [stale_at, aged_at, forgotten_at, key_at].into_iter().flatten().min()
    }

    /// Bytes of a message in front of what its publisher composes: room and item are counted where they are known.
    fn head_bytes(&self) -> usize {
        self.name_bytes + crate::limits::ITEM_HEAD_BYTES
    }
}
