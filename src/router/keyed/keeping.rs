//! What a keyed room may hold, and what of it goes by itself.

use std::collections::{HashMap, HashSet};

use arcstr::ArcStr;

use super::HeldSum;
use super::KeyedBounds;
use super::items::{Item, ItemState, item_bytes};
use super::room::KeyedRoom;
use super::updates::{CommandKind, ItemUpdates, TooManyItems};
use crate::limits::{FORGET_AGAIN_MS, ITEMS_PER_CHORE};
use crate::router::history::StreamPosition;
use crate::router::keys::Keys;
use crate::time::Millis;

/// An item as a command leaves it, for what the room may hold.
#[derive(Clone, Copy)]
struct Counted {
    state: ItemState,
    bytes: usize,
    version: Option<i64>,
}

impl Counted {
    fn of(item: &Item) -> Counted {
        Counted { state: item.state, bytes: item.bytes(), version: item.version }
    }
}

impl KeyedRoom {
    /// What it counts as among all of its reactor.
    pub(super) fn held(&self) -> HeldSum {
        let bytes = self.items.bytes() + self.keys().map_or(0, Keys::bytes);
        HeldSum { items: self.items.present(), bytes }
    }

    /// Whether it knows nothing that is not known without it.
    pub(super) fn is_unused(&self) -> bool {
        self.items.is_empty() && self.keys().is_none()
    }

    /// Publishes that a retry is known by.
    fn keys(&self) -> Option<&Keys> {
        self.source.as_deref()?.keys.as_deref()
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
        let (mut items, mut bytes) = (own.items, own.bytes);
        if updates.removal().is_some() {
            // Those that are not named leave their places. Those that are may stay, where their updates are stale.
            for item in self.present_items_but(&updates.names()) {
                (items, bytes) = (items - 1, bytes - item.bytes());
            }
        }
        let mut changed: HashMap<&str, Counted> = HashMap::new();
        for (index, update) in updates.iter().enumerate() {
            let known = self.items.find(update.item).map(|at| Counted::of(self.items.get(at)));
            let before = changed.get(update.item).copied().or(known);
            let version_before = before.and_then(|before| before.version);
            if update.is_stale(version_before) {
                continue;
            }
            let was_present = before.is_some_and(|before| before.state == ItemState::Present);
            let bytes_before = before.map_or(0, |before| before.bytes);
            let bytes_after = item_bytes(update.item, update.tail.len() + self.head_bytes());
            items = items + usize::from(update.state == ItemState::Present) - usize::from(was_present);
            bytes = (bytes + bytes_after).saturating_sub(bytes_before);
            let is_refused = match update.state {
                ItemState::Present if was_present => bytes_after > bytes_before && bytes > bytes_max,
                ItemState::Present => items > items_max || bytes > bytes_max,
                // What is known may always go. What is not takes a place as well, since the removal is remembered.
                ItemState::Removed => before.is_none() && bytes > bytes_max,
            };
            if is_refused {
                return Err(TooManyItems { index: (updates.kind() == CommandKind::Many).then_some(index as u32) });
            }
            let version = update.version.or(version_before);
            changed.insert(update.item, Counted { state: update.state, bytes: bytes_after, version });
        }
        Ok(())
    }

    /// Names of items with a value that are not among these, in the order of their last change.
    pub(super) fn present_but(&self, named: &HashSet<&str>) -> Vec<ArcStr> {
        self.present_items_but(named).map(|item| item.name.clone()).collect()
    }

    fn present_items_but(&self, named: &HashSet<&str>) -> impl Iterator<Item = &Item> {
        let present = self.items.changed(0, u64::MAX).map(|(_, item)| item);
        present.filter(|item| item.state == ItemState::Present && !named.contains(&*item.name))
    }

    /// Forgets removals that are too old, or too many; a bounded part of them.
    pub(super) fn forget(&mut self, now: Millis) {
        if let Some(keys) = self.source.as_deref_mut().and_then(|source| source.keys.as_deref_mut()) {
            keys.expire(now);
        }
        if let Some(source) = &mut self.source {
            source.keys.take_if(|keys| keys.is_empty());
        }
        // A removal is remembered for whoever has not been sent it yet, be it that its round comes much later, or that its
        // socket is full.
        let sent_to = self.sent_to();
        let before = now.0.checked_sub(self.policy.removed_ttl_ms).map(Millis);
        self.forget_removals(before.map(|before| (before, sent_to)), ITEMS_PER_CHORE);
        if self.items.oldest_removal().is_some_and(|(_, offset)| offset > sent_to) {
            self.forget_from = now.saturating_add(FORGET_AGAIN_MS);
        }
    }

    /// So many updates have come. Of more removals than a room remembers the oldest are forgotten at once: a publisher that
    /// removes what it has just put there, or what never was there, makes no memory. Two places for each that comes, since
    /// one may be dead.
    pub(super) fn forget_surplus(&mut self, updates: usize) {
        self.forget_removals(None, 2 * updates);
    }

    fn forget_removals(&mut self, due: Option<(Millis, u64)>, max: usize) {
        for watch in self.items.forget(due, self.policy.items_max as usize, max) {
            self.unwatch(watch);
        }
    }

    /// Items that nobody has updated for as long as they are kept, a bounded part of them.
    pub(super) fn aged(&mut self, now: Millis) -> Vec<ArcStr> {
        let again_at = self.source.as_deref().map(|source| source.expires_again_at);
        let is_due = again_at.is_some_and(|again_at| again_at.is_none_or(|at| at <= now));
        let ttl_ms = self.policy.ttl_ms.filter(|_| is_due);
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
        // Looked for only where it is asked for.
        let oldest = |ttl_ms| Some((ttl_ms, self.items.oldest_at()?));
        let aged_at = self.policy.ttl_ms.filter(|_| is_home).and_then(oldest);
        let again_at = self.source.as_deref().and_then(|source| source.expires_again_at);
        let aged_at = aged_at.map(|(ttl_ms, at)| at.saturating_add(ttl_ms).max(again_at.unwrap_or(at)));
        let forgotten_at = self.items.oldest_removal().map(|(at, _)| at.saturating_add(self.policy.removed_ttl_ms));
        let forgotten_at = forgotten_at.map(|at| at.max(self.forget_from));
        let key_at = self.keys().and_then(Keys::oldest_at);
        let key_at = key_at.map(|at| at.saturating_add(crate::limits::PUBLISH_KEY_MS_MAX));
        [stale_at, aged_at, forgotten_at, key_at].into_iter().flatten().min()
    }

    /// Bytes of a message in front of what its publisher composes: room and item are counted where they are known.
    fn head_bytes(&self) -> usize {
        self.name_bytes + crate::limits::ITEM_HEAD_BYTES
    }
}

#[cfg(test)]
mod tests {
    use super::super::items::{Applied, Items};
    use super::super::schedule::Schedule;
    use super::super::{ItemFilter, Terms};
    use super::*;
    use crate::frame::{FrameBuilder, Opcode};
    use crate::ids::{ConnId, ReactorId, Slot};
    use crate::protocol::Mode;
    use crate::router::batch::Batch;
    use crate::router::policy::KeyedPolicy;
    use crate::router::slice::Slice;
    use crate::router::topic::TopicIndex;
    use crate::router::{Answer, Sink};
    use crate::time::Stamp;

    const ITEMS_MAX: u32 = 10;

    /// Nothing is sent in these tests.
    struct NoSink;

    impl Sink for NoSink {
        fn deliver(&mut self, _: Batch, _: &[Slot]) {}
        fn takes_rounds(&self, _: Slot) -> bool {
            true
        }
        fn recover(&mut self, _: ConnId, _: Slice) {}
        fn direct(&mut self, _: ConnId, _: &[u8], _: Stamp) {}
        fn reply(&mut self, _: ConnId, _: &[u8]) {}
        fn answer(&mut self, _: ConnId, _: Answer<'_>) {}
        fn disconnect(&mut self, _: &str) {}
    }

    fn room(bytes_max: u64) -> KeyedRoom {
        let policy =
            KeyedPolicy { items_max: ITEMS_MAX, bytes_max, ttl_ms: None, removed_ttl_ms: 60_000, stale_after_ms: None };
        let items = Items::new(StreamPosition { epoch: "e".into(), offset: 0 }, 7);
        KeyedRoom::new(TopicIndex(0), "px", items, policy)
    }

    fn put(room: &mut KeyedRoom, name: &str, state: ItemState) {
        let next = room.items.next(name);
        let frame = FrameBuilder::default().build(Opcode::Text, |out| out.extend_from_slice(name.as_bytes())).into();
        let (seq, offset) = (next.seq, next.offset);
        let applied = Applied { item: name.into(), seq, offset, version: None, frame, state };
        room.put(next, &applied, None, &mut Schedule::new(ReactorId(0)));
        room.forget_surplus(1);
    }

    #[test]
    fn more_removals_than_a_room_remembers_go_as_they_come() {
        let mut room = room(1 << 20);
        for number in 0..1_000 {
            let name = format!("i{number}");
            // Of what never was, of what was put there just before, and twice of the same.
            if number % 3 == 0 {
                put(&mut room, &name, ItemState::Present);
            }
            put(&mut room, &name, ItemState::Removed);
            if number % 3 == 1 {
                put(&mut room, &name, ItemState::Removed);
            }
            room.items.check();
            assert!(room.held().bytes <= ITEMS_MAX as usize * item_bytes(&name, 16), "{} bytes", room.held().bytes);
        }
        let last = room.items.last_offset();
        assert!(room.items.knows_since("e", last - 5), "the newest are remembered");
        assert!(!room.items.knows_since("e", 1), "who comes from far back has to begin anew");
    }

    #[test]
    fn a_removal_is_remembered_until_everybody_has_been_sent_it() {
        let mut room = room(1 << 20);
        let far = Millis(1_000_000);
        put(&mut room, "a", ItemState::Present);
        let conn = ConnId { reactor: ReactorId(0), slot: Slot(1), generation: 1 };
        let terms = Terms { mode: Mode::Latest, interval_ms: 3_600_000, filter: ItemFilter::All };
        let since = room.items.last_offset();
        let mut schedule = Schedule::new(ReactorId(0));
        room.enter(conn, terms, since, None, &mut schedule, &mut NoSink);
        put(&mut room, "a", ItemState::Removed);
        room.forget(far);
        assert!(room.items.find("a").is_some(), "the next round has to say it");
        assert_eq!(
            room.next_chore_at(),
            Some(far.saturating_add(FORGET_AGAIN_MS)),
            "it is looked at again, and not at once"
        );
        room.leave(conn.slot, &mut schedule, &mut NoSink);
        room.forget(far);
        assert!(room.items.find("a").is_none(), "nobody waits for it");
    }

    #[test]
    fn the_removal_of_what_is_not_there_needs_a_place_as_well() {
        let mut room = room(1_000);
        let bounds = KeyedBounds { items_max: 100, bytes_max: 1 << 20 };
        let removal_of = |name: &str| {
            let mut updates = ItemUpdates::default();
            updates.begin(CommandKind::One);
            updates.push(name, None, ItemState::Removed, |out| out.extend_from_slice(b"{}"));
            updates
        };
        while room.held().bytes < 1_000 {
            let name = format!("i{}", room.items.last_offset());
            put(&mut room, &name, ItemState::Present);
        }
        let held = room.held();
        assert!(room.find_room_for(&removal_of("other"), held, bounds).is_err());
        assert_eq!(room.find_room_for(&removal_of("i0"), held, bounds), Ok(()), "what is there may always go");
    }

    #[test]
    fn items_that_stay_since_their_updates_are_stale_have_their_places() {
        let mut room = room(1 << 20);
        let bounds = KeyedBounds { items_max: 100, bytes_max: 1 << 20 };
        for number in 0..ITEMS_MAX {
            let next = room.items.next(&format!("i{number}"));
            let frame = FrameBuilder::default().build(Opcode::Text, |out| out.extend_from_slice(b"{}")).into();
            let item = format!("i{number}").into();
            let (seq, offset, state) = (next.seq, next.offset, ItemState::Present);
            let applied = Applied { item, seq, offset, version: Some(5), frame, state };
            room.put(next, &applied, None, &mut Schedule::new(ReactorId(0)));
        }
        let held = room.held();
        let list = |version: i64, replaces: bool| {
            let mut updates = ItemUpdates::default();
            updates.begin(CommandKind::Many);
            for number in 0..2 {
                updates.push(&format!("i{number}"), Some(version), ItemState::Removed, |_| {});
            }
            for number in 0..ITEMS_MAX {
                updates.push(&format!("new{number}"), None, ItemState::Present, |_| {});
            }
            if replaces {
                updates.replace(|_| {});
            }
            updates
        };
        let refused_at = |index| Err(TooManyItems { index: Some(index) });
        assert_eq!(room.find_room_for(&list(5, true), held, bounds), refused_at(ITEMS_MAX), "two stay");
        assert_eq!(room.find_room_for(&list(6, true), held, bounds), Ok(()), "all others go");
        assert_eq!(room.find_room_for(&list(5, false), held, bounds), refused_at(2), "none goes");
        assert_eq!(room.find_room_for(&list(6, false), held, bounds), refused_at(4), "two go");
    }
}
