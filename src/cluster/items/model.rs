//! What the scripts do to a keyed room, done naively; for tests. Epoch, end and history are the caller's.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use super::super::core::{ItemsFound, ItemsRange, Updated};
use super::call::CallCommand;
use super::record::{ItemRecord, UpdateRule};
use super::{ItemsCall, PLACEMENT};
use crate::limits::{CLUSTER_ITEM_BYTES, PUBLISH_KEY_MS_MAX};
use crate::router::ItemState;
use crate::router::cluster::ItemsPolicy;

/// Removals that one call forgets, at most, beside those that it makes.
const FORGOTTEN_MAX: usize = 100;

/// Items that one call removes by itself, at most.
const SWEPT_MAX: usize = 100;

/// See the module's documentation.
#[derive(Clone, Debug, Default)]
pub struct ModelRoom {
    items: BTreeMap<String, ModelItem>,
    forgotten_to: u64,
    keys: BTreeMap<Box<str>, Known>,
    log: VecDeque<Logged>,
    log_half_from: u64,
    log_half_bytes: usize,
}

/// An item as it is.
#[derive(Clone, Debug)]
struct ModelItem {
    offset: u64,
    at_ms: u64,
    seq: u64,
    version: Option<i64>,
    state: ItemState,
    record: Vec<u8>,
}

/// What has become of a command with a key.
#[derive(Clone, Debug)]
struct Known {
    epoch: Arc<str>,
    updated: Updated,
    until_ms: u64,
}

#[derive(Clone, Debug)]
struct Logged {
    last: u64,
    placement: Vec<u8>,
    records: Vec<u8>,
}

/// A call, and where the room is.
#[derive(Clone, Copy, Debug)]
pub struct ModelCall<'a> {
    /// The room's epoch.
    pub epoch: &'a Arc<str>,
    /// The offset of its last update.
    pub last: u64,
    /// Redis' time.
    pub now_ms: u64,
    /// What is kept.
    pub policy: ItemsPolicy,
    /// Bytes of the log beyond which its older half goes.
    pub log_bytes_max: usize,
    /// What is told of the removal of an item that nobody has updated, in front of its time; nothing where it is empty.
    pub removal_head: &'a str,
    /// The commands.
    pub call: &'a ItemsCall,
}

/// What a call comes to.
#[derive(Clone, Debug)]
pub struct ModelOutcome {
    /// The offset of the last update.
    pub last: u64,
    /// For the publishers.
    pub outcomes: Vec<Result<Updated, u32>>,
    /// Placement and records, where anything counts.
    pub published: Option<[Vec<u8>; 2]>,
    /// What counts: of each its seq and its record.
    pub applied: Vec<(u64, Vec<u8>)>,
}

/// What a call has done so far.
#[derive(Clone, Debug)]
struct Progress {
    last: u64,
    applied: Vec<(u64, Vec<u8>)>,
    segments: Vec<u8>,
    /// Seqs of updates that are not in the segments yet.
    seqs: Vec<u64>,
    touched: BTreeSet<String>,
}

impl Progress {
    fn close_segment(&mut self) {
        self.segments.push(0);
        self.segments.extend((self.seqs.len() as u32).to_be_bytes());
        self.segments.extend(self.seqs.drain(..).flat_map(u64::to_be_bytes));
    }
}

impl ModelRoom {
    /// The script that updates items.
    pub fn update(&mut self, of: &ModelCall<'_>) -> ModelOutcome {
        let mut progress = Progress {
            last: of.last,
            applied: Vec::new(),
            segments: Vec::new(),
            seqs: Vec::new(),
            touched: BTreeSet::new(),
        };
        self.sweep(of, &mut progress);
        let mut outcomes = Vec::new();
        for CallCommand { records, key, removal } in of.call.read() {
            let known = key.and_then(|key| self.keys.get(key));
            if let Some(known) = known.filter(|known| known.until_ms > of.now_ms && known.epoch == *of.epoch) {
                outcomes.push(Ok(known.updated.clone()));
                progress.seqs.extend(records.iter().map(|_| 0));
                continue;
            }
            let (items, before) = (self.items.clone(), progress.clone());
            let outcome = self.run(of, &records, removal, &mut progress);
            match &outcome {
                Ok(updated) => {
                    let (epoch, until_ms) = (of.epoch.clone(), of.now_ms + PUBLISH_KEY_MS_MAX);
                    let known = |_| Known { epoch, updated: updated.clone(), until_ms };
                    self.keys.extend(key.map(|key| (key.into(), known(()))));
                }
                Err(_) => {
                    (self.items, progress) = (items, before);
                    progress.seqs.extend(records.iter().map(|_| 0));
                }
            }
            outcomes.push(outcome);
        }
        progress.close_segment();
        let published = (progress.last > of.last).then(|| {
            self.forget(of, &progress.touched);
            let placement =
                [&[PLACEMENT], of.epoch.as_bytes(), b"\n", &(of.last + 1).to_be_bytes(), &progress.segments].concat();
            let published = [placement, of.call.records.clone()];
            self.log(of, progress.last, &published);
            published
        });
        ModelOutcome { last: progress.last, outcomes, published, applied: progress.applied }
    }

    /// Items that are too old go, but for those that the call is about; the script looks at a part of them at a time.
    fn sweep(&mut self, of: &ModelCall<'_>, progress: &mut Progress) {
        let Some(ttl_ms) = of.policy.keyed.ttl_ms else { return };
        let named: BTreeSet<&[u8]> = of.call.names().collect();
        let is_old = |name: &str, item: &ModelItem| {
            item.is_present() && item.at_ms + ttl_ms <= of.now_ms && !named.contains(name.as_bytes())
        };
        let old =
            self.items.iter().filter(|(name, item)| is_old(name, item)).map(|(name, item)| (item.offset, name.clone()));
        let old: BTreeSet<(u64, String)> = old.take(SWEPT_MAX).collect();
        if old.is_empty() {
            return;
        }
        progress.segments.push(1);
        progress.segments.extend((old.len() as u32).to_be_bytes());
        let tail = match of.removal_head {
            "" => String::new(),
            head => format!("{head}{}}}", of.now_ms),
        };
        for (offset, item) in &old {
            let (state, rule) = (ItemState::Removed, UpdateRule::AtOffset(*offset));
            let record = ItemRecord { item, state, rule, exclude: None, tail: tail.as_bytes() };
            let mut bytes = Vec::new();
            record.write(&mut bytes);
            let seq = self.put(of, &record, &bytes, progress);
            progress.segments.extend(seq.to_be_bytes());
            progress.segments.extend(bytes);
        }
    }

    fn run(
        &mut self,
        of: &ModelCall<'_>,
        records: &[&[u8]],
        removal: Option<&[u8]>,
        progress: &mut Progress,
    ) -> Result<Updated, u32> {
        fn read(record: &[u8]) -> ItemRecord<'_> {
            ItemRecord::read(record).expect("a call is made of records").0
        }
        let named: BTreeSet<&str> = records.iter().map(|record| read(record).item).collect();
        let unnamed = self.items.iter().filter(|(name, item)| item.is_present() && !named.contains(&***name));
        let unnamed = unnamed.filter(|_| removal.is_some()).map(|(name, item)| (item.offset, name.clone()));
        let in_order: BTreeSet<(u64, String)> = unnamed.collect();
        let unnamed: Vec<String> = in_order.into_iter().map(|(_, name)| name).collect();
        let mut stale = Vec::new();
        for (index, bytes) in records.iter().enumerate() {
            let record = read(bytes);
            let known = self.items.get(record.item);
            let is_stale = match record.rule {
                UpdateRule::Always => false,
                UpdateRule::AboveVersion(version) => {
                    known.and_then(|known| known.version).is_some_and(|known| version <= known)
                }
                UpdateRule::AtOffset(offset) => known.map_or(0, |known| known.offset) != offset,
            };
            if is_stale {
                progress.seqs.push(0);
                if !matches!(record.rule, UpdateRule::AtOffset(_)) {
                    stale.push(index as u32);
                }
                continue;
            }
            let before = known.map(|known| (known.state, known.record.len()));
            let seq = self.put(of, &record, bytes, progress);
            progress.seqs.push(seq);
            let (has_too_many, has_too_much) = self.is_too_large(of, &unnamed);
            let is_refused = match (record.state, before) {
                (ItemState::Present, Some((ItemState::Present, length))) => has_too_much && bytes.len() > length,
                (ItemState::Present, Some((ItemState::Removed, _)) | None) => has_too_many || has_too_much,
                (ItemState::Removed, Some(_)) => false,
                (ItemState::Removed, None) => has_too_much,
            };
            if is_refused {
                return Err(index as u32);
            }
        }
        if !unnamed.is_empty() {
            progress.close_segment();
            progress.segments.push(1);
            progress.segments.extend((unnamed.len() as u32).to_be_bytes());
        }
        for name in unnamed {
            let rest = removal.unwrap_or_default();
            let length = (1 + name.len() + rest.len()) as u32;
            let bytes = [&length.to_be_bytes(), &[name.len() as u8][..], name.as_bytes(), rest].concat();
            let seq = self.put(of, &read(&bytes), &bytes, progress);
            progress.segments.extend(seq.to_be_bytes());
            progress.segments.extend(bytes);
        }
        Ok(Updated { offset: progress.last, stale })
    }

    fn put(&mut self, of: &ModelCall<'_>, record: &ItemRecord<'_>, bytes: &[u8], progress: &mut Progress) -> u64 {
        let known = self.items.get(record.item);
        let seq = match known {
            Some(known) => known.seq + 1,
            None if self.forgotten_to == 0 => 1,
            None => progress.last + 2,
        };
        progress.last += 1;
        let version = record.version().or(known.and_then(|known| known.version));
        let (offset, at_ms, state) = (progress.last, of.now_ms, record.state);
        let item = ModelItem { offset, at_ms, seq, version, state, record: bytes.to_vec() };
        self.items.insert(record.item.to_owned(), item);
        progress.applied.push((seq, bytes.to_vec()));
        progress.touched.insert(record.item.to_owned());
        seq
    }

    /// Whether there are more items than may be, and more bytes, those items apart that are about to go.
    fn is_too_large(&self, of: &ModelCall<'_>, unnamed: &[String]) -> (bool, bool) {
        let counted = || self.items.iter().filter(|(name, _)| !unnamed.contains(name)).map(|(_, item)| item);
        let present = counted().filter(|item| item.is_present()).count();
        let bytes: usize = counted().map(|item| item.record.len() + CLUSTER_ITEM_BYTES).sum();
        (present > of.policy.keyed.items_max as usize, bytes as u64 > of.policy.keyed.bytes_max)
    }

    fn forget(&mut self, of: &ModelCall<'_>, touched: &BTreeSet<String>) {
        let removed = self.items.iter().filter(|(_, item)| !item.is_present());
        let mut removed: Vec<(u64, String)> = removed.map(|(name, item)| (item.at_ms, name.clone())).collect();
        removed.sort();
        let new = removed.iter().filter(|(_, name)| touched.contains(name)).count();
        let count_max = FORGOTTEN_MAX + 2 * new;
        let before = of.now_ms.saturating_sub(of.policy.keyed.removed_ttl_ms);
        let old = removed.iter().filter(|(at_ms, _)| *at_ms <= before).count();
        let excess = removed.len().saturating_sub(of.policy.keyed.items_max as usize);
        for (_, name) in removed.iter().take(old.max(excess).min(count_max)) {
            let forgotten = self.items.remove(name).map_or(0, |item| item.offset);
            self.forgotten_to = self.forgotten_to.max(forgotten);
        }
    }

    fn log(&mut self, of: &ModelCall<'_>, last: u64, published: &[Vec<u8>; 2]) {
        if of.policy.history.is_some() {
            return;
        }
        let [placement, records] = published.clone();
        self.log_half_bytes += placement.len() + records.len();
        self.log.push_back(Logged { last, placement, records });
        if self.log_half_bytes > of.log_bytes_max / 2 {
            self.log.retain(|logged| logged.last > self.log_half_from);
            (self.log_half_from, self.log_half_bytes) = (last, 0);
        }
    }

    /// Up to this offset removals are forgotten.
    pub fn forgotten_to(&self) -> u64 {
        self.forgotten_to
    }

    /// Whether nothing is known of any item.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Of each item that is known its offset, its seq, and whether it has a value.
    pub fn current(&self) -> BTreeMap<String, (u64, u64, ItemState)> {
        self.items.iter().map(|(name, item)| (name.clone(), (item.offset, item.seq, item.state))).collect()
    }

    /// The script that reads them, in parts of so many.
    pub fn read(&self, range: &ItemsRange, count_max: usize) -> ItemsFound {
        match range {
            ItemsRange::End => ItemsFound::End,
            ItemsRange::Log(from) => {
                let mut wanted = self.log.iter().filter(|logged| logged.last >= *from);
                let part = wanted.by_ref().take(count_max);
                let published = part.map(|logged| (logged.placement.clone(), logged.records.clone())).collect();
                ItemsFound::Log { published, more: wanted.next().is_some() }
            }
            ItemsRange::Changed { since, cursor } => {
                let behind = cursor.strip_prefix('-').unwrap_or_default();
                let mut rest = self.items.iter().filter(|(name, _)| &***name > behind);
                let part: Vec<_> = rest.by_ref().take(count_max).collect();
                let next = part.last().filter(|_| rest.next().is_some()).map(|(name, _)| format!("-{name}"));
                let changed = part.into_iter().map(|(_, item)| item).filter(|item| item.offset > *since);
                ItemsFound::Items { items: changed.map(|item| (item.stored(), item.record.clone())).collect(), next }
            }
        }
    }
}

impl ModelItem {
    fn is_present(&self) -> bool {
        match self.state {
            ItemState::Present => true,
            ItemState::Removed => false,
        }
    }

    fn stored(&self) -> Vec<u8> {
        let state = u8::from(!self.is_present()) + if self.version.is_some() { 2 } else { 0 };
        let version = self.version.map(|version| (version.cast_unsigned() ^ (1 << 63)).to_be_bytes());
        let mut stored = [self.offset, self.at_ms, self.seq].map(u64::to_be_bytes).concat();
        stored.push(state);
        stored.extend((self.record.len() as u32).to_be_bytes());
        stored.extend(version.into_iter().flatten());
        stored
    }
}
