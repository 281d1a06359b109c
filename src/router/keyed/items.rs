//! The items of a keyed room: of each the newest value, in the order of the last change.
//!
//! ```text
//!   entries   name ─► offset, seq, version, frame (shared, framed once)
//!   log       (offset, entry) … (offset, entry)      by offset; a place whose entry has a newer offset is dead
//!                       ▲
//!                       └ what changed behind an offset: a binary search, then forward, dead places skipped
//! ```
//!
//! An update puts a place at the log's end and leaves a dead one behind. When more than half of the log is dead it is
//! compacted, so its length follows the items and an update costs the same however many there are. A removed item stays for
//! a while without a value, so that those who knew it are told; then it is forgotten, and a position in front of that
//! cannot be resumed from.

use std::collections::VecDeque;
use std::hash::BuildHasher;
use std::sync::Arc;

use arcstr::ArcStr;
use foldhash::fast::FixedState;
use hashbrown::HashTable;
use slab::Slab;

use crate::compress::SharedFrame;
use crate::limits::{ALLOCATION_BYTES, ITEMS_COMPACT_MIN};
use crate::router::history::StreamPosition;
use crate::time::Millis;

/// One update of one item, with its place in the room's order.
#[derive(Clone, Debug)]
pub struct Applied {
    /// Which item.
    pub item: ArcStr,
    /// The item's own count of its updates.
    pub seq: u64,
    /// The room's count of all updates.
    pub offset: u64,
    /// The version that it has from now on, if its publishers give versions.
    pub version: Option<i64>,
    /// What members get: a whole frame.
    pub frame: SharedFrame,
    /// Whether it has a value.
    pub state: ItemState,
}

/// Whether an item has a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ItemState {
    /// It has one.
    Present,
    /// It was removed.
    Removed,
}

/// An item's index in its room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct ItemIndex(u32);

/// An item as it is.
#[derive(Debug)]
pub(super) struct Item {
    pub(super) name: ArcStr,
    pub(super) seq: u64,
    pub(super) offset: u64,
    pub(super) version: Option<i64>,
    pub(super) frame: SharedFrame,
    pub(super) state: ItemState,
    pub(super) updated_at: Millis,
    /// Who waits for this very item, as the room's subscribers know it.
    pub(super) watch: Option<u32>,
}

impl Item {
    pub(super) fn bytes(&self) -> usize {
        item_bytes(&self.name, self.frame.plain().len())
    }
}

/// What an item takes with a frame of so many bytes.
pub(super) fn item_bytes(name: &str, frame_bytes: usize) -> usize {
    name.len() + ITEM_BYTES + frame_bytes
}

/// What an item takes beside its name and its frame: entry, two places in the log, its place in the table, allocations.
const ITEM_BYTES: usize = size_of::<Item>() + 2 * size_of::<Place>() + 8 + 2 * ALLOCATION_BYTES;

/// Where the next update of an item comes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Next {
    hash: u64,
    pub(super) found: Option<ItemIndex>,
    pub(super) seq: u64,
    pub(super) offset: u64,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    offset: u64,
    at: u32,
}

/// See the module's documentation. The table, the counts and the dead places of the log are built again from the entries.
#[derive(Debug)]
pub(super) struct Items {
    epoch: Arc<str>,
    last_offset: u64,
    /// The offset of the newest removal that is not remembered.
    forgotten_to: u64,
    entries: Slab<Item>,
    table: HashTable<u32>,
    log: VecDeque<Place>,
    /// Removals by age. One whose entry has a newer offset is dead.
    removals: VecDeque<Place>,
    present: usize,
    bytes: usize,
    /// Items up to this offset have been looked at for their age: none of them has a value.
    aged_to: u64,
    hasher: FixedState,
}

impl Items {
    /// None yet, behind an offset. `seed` is the node's secret.
    pub(super) fn new(position: StreamPosition, seed: u64) -> Items {
        Items {
            epoch: position.epoch,
            last_offset: position.offset,
            forgotten_to: position.offset,
            entries: Slab::new(),
            table: HashTable::new(),
            log: VecDeque::new(),
            removals: VecDeque::new(),
            present: 0,
            bytes: 0,
            aged_to: 0,
            hasher: FixedState::with_seed(seed),
        }
    }

    /// These items, in the order of their offsets, of a room that is at a position and has forgotten removals up to an offset.
    pub(super) fn of<'a>(
        items: impl IntoIterator<Item = (&'a Applied, Millis)>,
        position: &StreamPosition,
        forgotten_to: u64,
        seed: u64,
    ) -> Items {
        let mut all = Items::new(StreamPosition { offset: 0, ..position.clone() }, seed);
        for (applied, at) in items {
            all.apply(applied, at);
        }
        all.set_end(position.offset, forgotten_to);
        all
    }

    /// The same items for another reactor.
    pub(super) fn of_copy(copy: &ItemsCopy, seed: u64, now: Millis) -> Items {
        let items = copy.items.iter().map(|applied| (applied, now));
        Items::of(items, &copy.position, copy.forgotten_to, seed)
    }

    /// For [`Items::of_copy`].
    pub(super) fn copy(&self) -> ItemsCopy {
        let items = self.changed(0, u64::MAX).map(|(_, item)| item.applied()).collect();
        ItemsCopy { position: self.position(), forgotten_to: self.forgotten_to, items }
    }

    /// Where the next update comes behind.
    pub(super) fn position(&self) -> StreamPosition {
        StreamPosition { epoch: self.epoch.clone(), offset: self.last_offset }
    }

    /// The items keep their places in another epoch.
    pub(super) fn set_epoch(&mut self, epoch: Arc<str>) {
        self.epoch = epoch;
    }

    /// The room is at this offset, and removals up to that one may be forgotten: of which nothing else shows it.
    pub(super) fn set_end(&mut self, last_offset: u64, forgotten_to: u64) {
        self.last_offset = self.last_offset.max(last_offset);
        self.forgotten_to = self.forgotten_to.max(forgotten_to);
    }

    pub(super) fn last_offset(&self) -> u64 {
        self.last_offset
    }

    /// The offset of the newest removal that is not remembered.
    pub(super) fn forgotten_to(&self) -> u64 {
        self.forgotten_to
    }

    /// Items with a value.
    pub(super) fn present(&self) -> usize {
        self.present
    }

    /// Whether nothing is known of any item.
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// What all items take, those that were removed included.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether all that changed behind an offset of an epoch is known.
    pub(super) fn knows_since(&self, epoch: &str, offset: u64) -> bool {
        *epoch == *self.epoch && (self.forgotten_to..=self.last_offset).contains(&offset)
    }

    pub(super) fn get(&self, at: ItemIndex) -> &Item {
        &self.entries[at.0 as usize]
    }

    pub(super) fn find(&self, name: &str) -> Option<ItemIndex> {
        self.look_up(self.hasher.hash_one(name), name)
    }

    fn look_up(&self, hash: u64, name: &str) -> Option<ItemIndex> {
        let found = self.table.find(hash, |&at| *self.entries[at as usize].name == *name);
        found.map(|&at| ItemIndex(at))
    }

    /// Where an update of an item would come.
    pub(super) fn next(&self, name: &str) -> Next {
        let hash = self.hasher.hash_one(name);
        let found = self.look_up(hash, name);
        let seq = match found {
            Some(at) => self.get(at).seq + 1,
            None if self.forgotten_to == 0 => 1,
            // Above every seq that a forgotten item may have had, and above the room's offset.
            None => self.last_offset + 2,
        };
        Next { hash, found, seq, offset: self.last_offset + 1 }
    }

    /// Takes an update that comes behind all others.
    pub(super) fn apply(&mut self, applied: &Applied, now: Millis) -> ItemIndex {
        let hash = self.hasher.hash_one(&*applied.item);
        let found = self.look_up(hash, &applied.item);
        self.put(hash, found, applied, now)
    }

    /// Takes an update where [`Items::next`] said that it comes.
    pub(super) fn put_next(&mut self, next: Next, applied: &Applied, now: Millis) -> ItemIndex {
        assert!(next.offset == applied.offset && next.seq == applied.seq, "an update comes where it was asked about");
        self.put(next.hash, next.found, applied, now)
    }

    fn put(&mut self, hash: u64, found: Option<ItemIndex>, applied: &Applied, now: Millis) -> ItemIndex {
        assert!(applied.offset > self.last_offset, "updates come in order");
        let Applied { item, seq, offset, version, frame, state } = applied.clone();
        self.last_offset = offset;
        let at = match found {
            Some(at) => {
                let entry = &mut self.entries[at.0 as usize];
                self.bytes -= entry.bytes();
                self.present -= usize::from(entry.state == ItemState::Present);
                (entry.seq, entry.offset, entry.version) = (seq, offset, version);
                (entry.frame, entry.state, entry.updated_at) = (frame, state, now);
                at
            }
            None => {
                let entry = Item { name: item, seq, offset, version, frame, state, updated_at: now, watch: None };
                let at = u32::try_from(self.entries.insert(entry)).expect("fewer than 2^32 items");
                let (entries, hasher) = (&self.entries, &self.hasher);
                self.table.insert_unique(hash, at, |&at| hasher.hash_one(&*entries[at as usize].name));
                ItemIndex(at)
            }
        };
        let place = Place { offset, at: at.0 };
        self.bytes += self.get(at).bytes();
        match state {
            ItemState::Present => self.present += 1,
            ItemState::Removed => self.removals.push_back(place),
        }
        self.log.push_back(place);
        self.leave_front(at.0);
        self.compact();
        at
    }

    /// An entry has left its place: where that was the first of the log, the log begins with the next that is alive, so
    /// that the oldest item is found at once.
    fn leave_front(&mut self, at: u32) {
        if self.log.front().is_none_or(|front| front.at != at) {
            return;
        }
        while let Some(front) = self.log.front()
            && !is_alive(&self.entries, front)
        {
            self.log.pop_front();
        }
    }

    /// Takes dead places out where there are too many: so that each is paid for by the update that left it.
    fn compact(&mut self) {
        let entries = &self.entries;
        if self.log.len() > 2 * entries.len() + ITEMS_COMPACT_MIN {
            self.log.retain(|place| is_alive(entries, place));
        }
        if self.removals.len() > 2 * (entries.len() - self.present) + ITEMS_COMPACT_MIN {
            self.removals.retain(|place| is_alive(entries, place));
        }
    }

    pub(super) fn set_watch(&mut self, at: ItemIndex, watch: Option<u32>) {
        self.entries[at.0 as usize].watch = watch;
    }

    /// What changed behind `since` and not behind `to`, in the order of offsets: of each item its last change.
    pub(super) fn changed(&self, since: u64, to: u64) -> impl Iterator<Item = (ItemIndex, &Item)> {
        let from = self.log.partition_point(|place| place.offset <= since);
        let places = self.log.range(from..).take_while(move |place| place.offset <= to);
        places.filter_map(|place| {
            let item = self.entries.get(place.at as usize).filter(|item| item.offset == place.offset)?;
            Some((ItemIndex(place.at), item))
        })
    }

    /// Items with a value whose last update was so long ago, the oldest first, at most so many.
    pub(super) fn aged(&mut self, before: Millis, max: usize) -> Vec<ArcStr> {
        let mut aged = Vec::new();
        let mut aged_to = self.aged_to;
        for (_, item) in self.changed(self.aged_to, u64::MAX) {
            if item.updated_at > before || aged.len() == max {
                break;
            }
            match item.state {
                ItemState::Present => aged.push(item.name.clone()),
                // Up to the first that has a value nothing has to be looked at again.
                ItemState::Removed if aged.is_empty() => aged_to = item.offset,
                ItemState::Removed => {}
            }
        }
        self.aged_to = aged_to;
        aged
    }

    /// When the oldest item with a value was updated, as far as is known: some time before, never after.
    pub(super) fn oldest_at(&self) -> Option<Millis> {
        if self.present == 0 {
            return None;
        }
        self.changed(self.aged_to, u64::MAX).next().map(|(_, item)| item.updated_at)
    }

    /// When the oldest removal was, and its offset.
    pub(super) fn oldest_removal(&self) -> Option<(Millis, u64)> {
        let oldest = self.removals.front()?;
        let item = self.entries.get(oldest.at as usize).filter(|item| item.offset == oldest.offset);
        // A dead one is due at once.
        Some(item.map_or((Millis::ZERO, 0), |item| (item.updated_at, item.offset)))
    }

    /// Forgets removals up to an offset that were not after a time, and the oldest of more than `removals_max`, at most `max`
    /// of them; the watches that waited for the items.
    pub(super) fn forget(&mut self, due: Option<(Millis, u64)>, removals_max: usize, max: usize) -> Vec<u32> {
        let mut watches = Vec::new();
        for _ in 0..max {
            let Some(&oldest) = self.removals.front() else { break };
            let item = self.entries.get(oldest.at as usize).filter(|item| item.offset == oldest.offset);
            let is_due = |item: &Item| due.is_some_and(|(at, to)| item.updated_at <= at && item.offset <= to);
            if item.is_some_and(|item| !is_due(item)) && self.entries.len() - self.present <= removals_max {
                break;
            }
            let is_removed = item.is_some();
            self.removals.pop_front();
            if is_removed {
                watches.extend(self.remove(oldest).watch);
            }
        }
        self.compact();
        watches
    }

    fn remove(&mut self, place: Place) -> Item {
        let hash = self.hasher.hash_one(&*self.entries[place.at as usize].name);
        if let Ok(entry) = self.table.find_entry(hash, |&at| at == place.at) {
            entry.remove();
        }
        let item = self.entries.remove(place.at as usize);
        self.bytes -= item.bytes();
        self.forgotten_to = self.forgotten_to.max(item.offset);
        self.leave_front(place.at);
        item
    }
}

fn is_alive(entries: &Slab<Item>, place: &Place) -> bool {
    entries.get(place.at as usize).is_some_and(|item| item.offset == place.offset)
}

impl Item {
    fn applied(&self) -> Applied {
        let Item { name, seq, offset, version, frame, state, .. } = self;
        Applied {
            item: name.clone(),
            seq: *seq,
            offset: *offset,
            version: *version,
            frame: frame.clone(),
            state: *state,
        }
    }
}

/// All items of a room, for another reactor. The frames are shared.
#[derive(Debug)]
pub(in crate::router) struct ItemsCopy {
    position: StreamPosition,
    forgotten_to: u64,
    items: Vec<Applied>,
}

impl ItemsCopy {
    /// Items in the order of their offsets, of a room that is at a position.
    pub(super) fn new(position: StreamPosition, forgotten_to: u64, items: Vec<Applied>) -> ItemsCopy {
        ItemsCopy { position, forgotten_to, items }
    }

    /// Where the room is, up to where removals may be forgotten, and the items.
    pub(super) fn parts(&self) -> (&StreamPosition, u64, &[Applied]) {
        (&self.position, self.forgotten_to, &self.items)
    }

    /// Bytes that it takes, the frames not counted.
    pub(in crate::router) fn bytes(&self) -> usize {
        size_of_val(&self.items[..])
    }
}

#[cfg(any(test, debug_assertions))]
impl Items {
    /// The table is built again, and dead places go.
    pub(super) fn rebuild(&mut self) {
        self.table.clear();
        for (at, item) in &self.entries {
            let (entries, hasher) = (&self.entries, &self.hasher);
            let rehash = |&at: &u32| hasher.hash_one(&*entries[at as usize].name);
            self.table.insert_unique(self.hasher.hash_one(&*item.name), at as u32, rehash);
        }
        let entries = &self.entries;
        self.log.retain(|place| is_alive(entries, place));
        self.removals.retain(|place| is_alive(entries, place));
        self.aged_to = 0;
    }

    /// Checks the parts against each other.
    pub(super) fn check(&self) {
        let alive: Vec<_> = self.log.iter().filter(|place| is_alive(&self.entries, place)).collect();
        assert_eq!(alive.len(), self.entries.len(), "each item has its place in the log");
        assert!(self.log.iter().is_sorted_by(|one, other| one.offset < other.offset), "the log is in order");
        assert!(self.log.front().is_none_or(|place| is_alive(&self.entries, place)), "the log begins with the oldest");
        assert!(self.log.len() <= 2 * self.entries.len() + ITEMS_COMPACT_MIN + 1, "dead places go");
        assert_eq!(self.table.len(), self.entries.len());
        let present = self.entries.iter().filter(|(_, item)| item.state == ItemState::Present).count();
        assert_eq!(present, self.present);
        assert_eq!(self.bytes, self.entries.iter().map(|(_, item)| item.bytes()).sum::<usize>());
        for (at, item) in &self.entries {
            assert_eq!(self.find(&item.name), Some(ItemIndex(at as u32)));
            assert!(item.offset <= self.last_offset);
        }
        let removed = self.removals.iter().filter(|place| is_alive(&self.entries, place)).count();
        assert_eq!(removed, self.entries.len() - self.present, "each removal is found when it is due");
    }
}
