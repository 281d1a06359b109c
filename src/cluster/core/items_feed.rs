//! From Redis to here, for keyed rooms: what a feed follows beside its position, and how all items of a room come here.
//!
//! ```text
//!             the position is known               the last part is here          the position has reached
//!   Awaiting ───────────────────────► Reading ─────────────────────────► Scanned ─────────────────────────► the home has
//!      ▲                                │ a part could not be read                 what was scanned          the items
//!      └───────── Failed ◄──────────────┘
//! ```
//!
//! While items are read, updates that come live are put to them: of each item the one with the higher offset counts. So
//! what was read early and what was updated since come out right in whatever order they come.
//!
//! A feed whose position has jumped over a gap reads what was updated behind the last position that its home has; one that
//! cannot go on from there, because of another epoch or forgotten removals, reads all items.

use std::collections::{HashMap, VecDeque};

use super::super::follower::LiveMessage;
use super::super::items::{ItemRecord, Placed, Placement, StoredItem, UpdateRule, read_entry, write_entry};
use super::fences::Release;
use super::messages::{ItemsFound, ItemsRange, ItemsRead, ReadItems};
use super::{Command, Core, Expect, FeedId, Reply};
use crate::compress::SharedFrame;
use crate::frame::Opcode;
use crate::ids::ConnId;
use crate::limits::CLUSTER_ITEMS_LOADS_MAX;
use crate::protocol;
use crate::router::cluster::{AttachId, FromCluster, ItemsCame, ItemsLoaded, ItemsPolicy};
use crate::router::{Applied, ItemsOrigin, KeyedPolicy, Kind, StreamPosition, TopicKey};

/// What a feed follows of a keyed room beside its stream.
///
/// What the home has is state; what is being read can be read again.
#[derive(Debug)]
pub(super) struct ItemsFeed {
    pub(super) policy: KeyedPolicy,
    /// What is made of the records that come next.
    placement: Option<Vec<u8>>,
    /// Up to where all updates have come, or are being read.
    reached: Option<StreamPosition>,
    /// Up to where the home has all updates; `None` where it has none.
    home: Option<StreamPosition>,
    load: Option<ItemsLoad>,
}

impl ItemsFeed {
    pub(super) fn new(policy: KeyedPolicy) -> ItemsFeed {
        ItemsFeed { policy, placement: None, reached: None, home: None, load: None }
    }

    /// Whether the home is not up to date.
    pub(super) fn is_loading(&self) -> bool {
        self.load.is_some()
    }

    /// The stream goes on from this position.
    pub(super) fn jump(&mut self, position: StreamPosition) {
        self.reached = Some(position);
    }
}

/// Items on their way here.
#[derive(Debug)]
struct ItemsLoad {
    /// Tells it from those that the feed had before.
    number: u64,
    /// Behind which offset updates are wanted; `None` wants all items.
    since: Option<u64>,
    state: LoadState,
    forgotten_to: u64,
    found: HashMap<Box<str>, FoundItem>,
}

/// See the module's documentation.
#[derive(Clone, Debug, PartialEq, Eq)]
enum LoadState {
    /// It is not known yet where the room is.
    Awaiting,
    /// The part behind this cursor is asked for, or waits for its turn.
    Reading(String),
    /// A part could not be read: it begins again.
    Failed,
    /// All is here as of this offset.
    Scanned(u64),
}

/// The newest update of an item, as far as is known.
#[derive(Debug)]
struct FoundItem {
    offset: u64,
    seq: u64,
    version: Option<i64>,
    /// Milliseconds since it was made, when it was read.
    age_ms: u64,
    record: Vec<u8>,
}

/// The loads of all feeds.
#[derive(Debug, Default)]
pub(super) struct ItemsLoads {
    begun: u64,
    /// Those that are being read.
    reading: usize,
    /// Those that wait for their turn.
    next: VecDeque<(FeedId, u64)>,
}

impl Core {
    /// The home needs all items, or, where it has them up to a position, what was updated since.
    pub(super) fn begin_items_load(&mut self, at: usize) {
        self.items_loads.begun += 1;
        let number = self.items_loads.begun;
        let feed = &mut self.feeds[at];
        if feed.attachment.attach().is_none() {
            return;
        }
        let Some(stream) = &mut feed.stream else { return };
        let Some(items) = &mut stream.items else { return };
        let epoch = items.reached.as_ref().map(|reached| &reached.epoch);
        let home = items.home.as_ref().filter(|home| Some(&home.epoch) == epoch);
        items.load = Some(ItemsLoad {
            number,
            since: home.map(|home| home.offset),
            state: LoadState::Awaiting,
            forgotten_to: 0,
            found: HashMap::new(),
        });
    }

    /// The home wants nothing of a feed any more.
    pub(super) fn end_items_load(&mut self, at: usize) {
        if let Some(items) = self.feeds[at].items_mut() {
            (items.load, items.home) = (None, None);
        }
    }

    /// All that Redis had is here, or being read.
    pub(super) fn items_up_to_date(&mut self, at: usize) {
        let feed = &mut self.feeds[at];
        let id = FeedId { at, generation: feed.generation };
        let Some(load) = feed.items_mut().and_then(|items| items.load.as_mut()) else { return };
        match load.state {
            LoadState::Awaiting | LoadState::Failed => {
                load.state = LoadState::Reading("0".to_owned());
                load.found.clear();
                self.items_loads.next.push_back((id, load.number));
                self.read_next_items();
            }
            LoadState::Reading(_) => {}
            LoadState::Scanned(_) => self.finish_items_load(at),
        }
    }

    fn read_next_items(&mut self) {
        while self.items_loads.reading < CLUSTER_ITEMS_LOADS_MAX
            && let Some((feed, number)) = self.items_loads.next.pop_front()
        {
            self.items_loads.reading += usize::from(self.ask_for_items(feed, number));
        }
    }

    /// Asks for the next part, if that is wanted and Redis can be asked.
    fn ask_for_items(&mut self, feed: FeedId, number: u64) -> bool {
        let Some(command) = self.next_items_part(feed, number) else { return false };
        match self.commands_up {
            true => self.pending.push(command, Expect::ItemsRead(feed, number)),
            false => _ = self.part_came(feed, number, Reply::Failed),
        }
        self.commands_up
    }

    fn next_items_part(&mut self, feed: FeedId, number: u64) -> Option<Command> {
        let seed = self.seed();
        let found = self.feeds.get(feed.at).filter(|found| found.generation == feed.generation)?;
        let stream = found.stream.as_ref()?;
        let items = stream.items.as_ref()?;
        let load = items.load.as_ref().filter(|load| load.number == number)?;
        let LoadState::Reading(cursor) = &load.state else { return None };
        let range = ItemsRange::Changed { since: load.since.unwrap_or(0), cursor: cursor.clone() };
        let policy = ItemsPolicy { keyed: items.policy, history: stream.history };
        Some(Command::ReadItems(Box::new(ReadItems { topic: found.channel.clone(), policy, seed, range })))
    }

    /// A part of the items was read, or could not be.
    pub(super) fn items_read(&mut self, feed: FeedId, number: u64, reply: Reply) {
        let state = self.part_came(feed, number, reply);
        match state {
            Some(LoadState::Reading(_)) if self.ask_for_items(feed, number) => return,
            Some(LoadState::Scanned(_)) => self.finish_items_load(feed.at),
            Some(LoadState::Reading(_) | LoadState::Awaiting | LoadState::Failed) | None => {}
        }
        self.items_loads.reading -= 1;
        self.read_next_items();
    }

    /// The state of the load after it; `None` where it is not wanted any more.
    fn part_came(&mut self, feed: FeedId, number: u64, reply: Reply) -> Option<LoadState> {
        let found = self.feeds.get_mut(feed.at).filter(|found| found.generation == feed.generation)?;
        let stream = found.stream.as_mut()?;
        let ItemsFeed { load, reached, .. } = stream.items.as_mut()?;
        let load = load.as_mut().filter(|load| load.number == number)?;
        let epoch = reached.as_ref().map(|reached| &reached.epoch);
        let Some(part) = part_of(reply).filter(|part| Some(&part.end.epoch) == epoch) else {
            // Where it stands with the room has to be seen first.
            load.state = LoadState::Failed;
            self.failed.push(feed);
            return Some(LoadState::Failed);
        };
        let Part { end, forgotten_to, now_ms, items, next } = part;
        load.forgotten_to = forgotten_to;
        if load.since.is_some_and(|since| since < forgotten_to) {
            // Which items are gone shows by those that are left.
            (load.since, load.state) = (None, LoadState::Reading("0".to_owned()));
            return Some(load.state.clone());
        }
        for (stored, record) in items {
            self.counts.unreadable += u64::from(!load.take(&stored, record, now_ms));
        }
        load.state = next.map_or(LoadState::Scanned(end.offset), LoadState::Reading);
        Some(load.state.clone())
    }

    /// The home gets the items, where all that belongs to them is here.
    fn finish_items_load(&mut self, at: usize) {
        let Some(stream) = &mut self.feeds[at].stream else { return };
        let Some(items) = &mut stream.items else { return };
        let Some(position) = items.reached.clone() else { return };
        let is_over = |load: &mut ItemsLoad| matches!(load.state, LoadState::Scanned(end) if end <= position.offset);
        let Some(load) = items.load.take_if(is_over) else { return };
        items.home = Some(position.clone());
        // Otherwise the rest of what was read comes first.
        let is_current = stream.follower.is_current() && stream.follower.position() == Some(&position);
        let ItemsLoad { since, forgotten_to, found, .. } = load;
        let mut found: Vec<FoundItem> = found.into_values().collect();
        found.sort_unstable_by_key(|item| item.offset);
        let (topic, attach) = (self.feeds[at].topic.clone(), self.feeds[at].attachment.attach());
        let mut items = Vec::with_capacity(found.len());
        for FoundItem { offset, seq, version, age_ms, record } in found {
            if let Some((record, bytes)) = ItemRecord::read(&record).map(|(read, _)| (read, &record[..])) {
                let applied = self.applied(&topic, &Placed { offset, seq, record, bytes });
                items.push((Applied { version, ..applied }, age_ms));
            }
        }
        let Some(attach) = attach else { return };
        let loaded = Box::new(ItemsLoaded { position, forgotten_to, since, items });
        self.counts.gaps += u64::from(self.feeds[at].attached().is_some());
        self.notify(self.feeds[at].home, FromCluster::ItemsLoaded { topic, attach, loaded });
        if is_current {
            self.notify_up_to_date(at);
        }
    }

    /// What the script has made of records that come next.
    pub(super) fn received_placement(&mut self, channel: &str, payload: &[u8]) {
        let found = self.feeds_by_name.get(channel);
        if let Some(items) = found.and_then(|&at| self.feeds[at].items_mut()) {
            items.placement = Some(payload.to_vec());
        }
    }

    /// Those records.
    pub(super) fn received_records(&mut self, channel: &str, records: &[u8]) {
        let Some(&at) = self.feeds_by_name.get(channel) else { return };
        let Some(placement) = self.feeds[at].items_mut().and_then(|items| items.placement.take()) else { return };
        let placement = Placement::read(&placement);
        let Some((placement, placed)) = placement.and_then(|placement| Some((placement, placement.place(records)?)))
        else {
            self.counts.unreadable += 1;
            return;
        };
        let Some(stream) = &mut self.feeds[at].stream else { return };
        match stream.follower.live_run(placement.epoch, placement.first, placed.len() as u64) {
            Some(steps) => {
                self.hand_over(at, &placed);
                self.release_acks(at, Release::Reached);
                self.take_steps(at, steps);
            }
            None => {
                for update in placed {
                    let entry = write_entry(update.seq, update.bytes);
                    let message = LiveMessage { epoch: placement.epoch.into(), offset: update.offset, entry };
                    let Some(stream) = &mut self.feeds[at].stream else { return };
                    let steps = stream.follower.live(message);
                    self.take_steps(at, steps);
                }
            }
        }
    }

    /// An update that the follower delivers.
    pub(super) fn deliver_item(&mut self, at: usize, offset: u64, entry: &[u8]) {
        match read_entry(entry) {
            Some((seq, record)) => self.hand_over(at, &[Placed { offset, seq, record, bytes: &entry[16..] }]),
            // Written by something else: it cannot be shown.
            None => {
                self.counts.unreadable += 1;
                self.begin_items_load(at);
                self.items_up_to_date(at);
            }
        }
    }

    /// The next updates, in order.
    fn hand_over(&mut self, at: usize, placed: &[Placed<'_>]) {
        self.counts.received += placed.len() as u64;
        let feed = &mut self.feeds[at];
        let Some(stream) = &mut feed.stream else { return };
        let Some(ItemsFeed { reached: Some(reached), home, load, .. }) = &mut stream.items else { return };
        let Some(last) = placed.last() else { return };
        reached.offset = last.offset;
        if let Some(load) = load {
            placed.iter().for_each(|update| load.take_live(update));
            return self.finish_items_load(at);
        }
        let Some(attach) = feed.attachment.attach() else { return };
        *home = Some(reached.clone());
        self.notify_items(at, attach, placed);
    }

    /// Updates go to the home, those behind each other that one connection is not to get as one piece.
    fn notify_items(&mut self, at: usize, attach: AttachId, placed: &[Placed<'_>]) {
        let (home, topic) = (self.feeds[at].home, self.feeds[at].topic.clone());
        let run = self.me.run;
        let here = |update: &Placed<'_>| update.record.exclude.filter(|(of, _)| *of == run).map(|(_, conn)| conn);
        let of = |update: &Placed<'_>| (here(update), origin_of(update));
        for piece in placed.chunk_by(|one, other| of(one) == of(other)) {
            let (exclude, origin): (Option<ConnId>, ItemsOrigin) = of(&piece[0]);
            let applied = piece.iter().map(|update| self.applied(&topic, update)).collect();
            let came = ItemsCame { applied, exclude, origin };
            self.notify(home, FromCluster::Items { topic: topic.clone(), attach, came });
        }
    }

    /// An update as homes take it.
    fn applied(&mut self, topic: &TopicKey, update: &Placed<'_>) -> Applied {
        let Placed { offset, seq, ref record, .. } = *update;
        let frame = self.item_frame(topic, record, seq, offset);
        Applied { item: record.item.into(), seq, offset, version: record.version(), frame, state: record.state }
    }

    /// The message of an update, as a whole frame.
    pub(super) fn item_frame(
        &mut self,
        topic: &TopicKey,
        record: &ItemRecord<'_>,
        seq: u64,
        offset: u64,
    ) -> SharedFrame {
        let ItemRecord { item, tail, .. } = *record;
        let frame = match topic.kind {
            Kind::Raw => self.frames.build(Opcode::Binary, |out| protocol::raw_keyed(out, item, seq, offset, tail)),
            Kind::Room | Kind::Inbox | Kind::Everyone => self.frames.build(Opcode::Text, |out| {
                protocol::keyed_head(out, &topic.name, item, seq, offset);
                out.extend_from_slice(tail);
            }),
        };
        frame.into()
    }

    /// What was published lately, read as the stream of a history is.
    pub(super) fn log_entries(published: &[(Vec<u8>, Vec<u8>)]) -> Vec<(u64, Vec<u8>)> {
        let mut entries = Vec::new();
        for (placement, records) in published {
            let records = records.get(1..).unwrap_or_default();
            let placed = Placement::read(placement).and_then(|placement| placement.place(records)).unwrap_or_default();
            entries.extend(placed.iter().map(|update| (update.offset, write_entry(update.seq, update.bytes))));
        }
        entries
    }

    /// A room without history is read for its follower.
    pub(super) fn read_items_log(&mut self, at: usize, keyed: KeyedPolicy, range: ItemsRange) {
        let (seed, feed) = (self.seed(), &self.feeds[at]);
        let policy = ItemsPolicy { keyed, history: None };
        let command = Command::ReadItems(Box::new(ReadItems { topic: feed.channel.clone(), policy, seed, range }));
        self.pending.push(command, Expect::Follow(FeedId { at, generation: feed.generation }));
    }

    /// All that Redis has is here: who waits for that hears of it, once the home has it.
    pub(super) fn up_to_date(&mut self, at: usize) {
        match self.feeds[at].items_mut().is_some_and(|items| items.is_loading()) {
            true => self.items_up_to_date(at),
            false => self.notify_up_to_date(at),
        }
    }
}

fn origin_of(update: &Placed<'_>) -> ItemsOrigin {
    match update.record.rule {
        UpdateRule::AtOffset(_) => ItemsOrigin::Expiry,
        UpdateRule::Always | UpdateRule::AboveVersion(_) => ItemsOrigin::Publisher,
    }
}

/// A part of the items as it was read.
pub(super) struct Part {
    /// Where the room is.
    pub(super) end: StreamPosition,
    forgotten_to: u64,
    /// Redis' time.
    pub(super) now_ms: u64,
    /// As they are stored, each with its record.
    pub(super) items: Vec<(Vec<u8>, Vec<u8>)>,
    /// Where the next part begins, if there is one.
    pub(super) next: Option<String>,
}

/// A part of the items; `None` where it could not be read.
pub(super) fn part_of(reply: Reply) -> Option<Part> {
    let Reply::ItemsRead(read) = reply else { return None };
    let ItemsRead { end, forgotten_to, now_ms, found } = *read;
    let ItemsFound::Items { items, next } = found else { return None };
    Some(Part { end, forgotten_to, now_ms, items, next })
}

impl ItemsLoad {
    /// An item as it was read; `false` where no node has written it.
    fn take(&mut self, stored: &[u8], record: Vec<u8>, now_ms: u64) -> bool {
        let Some(StoredItem { offset, at_ms, seq, version }) = StoredItem::read(stored) else { return false };
        let Some((read, _)) = ItemRecord::read(&record) else { return false };
        let age_ms = now_ms.saturating_sub(at_ms);
        let name = read.item.into();
        self.put(name, FoundItem { offset, seq, version, age_ms, record });
        true
    }

    /// An update that has come live.
    fn take_live(&mut self, update: &Placed<'_>) {
        let Placed { offset, seq, ref record, bytes } = *update;
        let version = record.version();
        self.put(record.item.into(), FoundItem { offset, seq, version, age_ms: 0, record: bytes.to_vec() });
    }

    fn put(&mut self, name: Box<str>, item: FoundItem) {
        match self.found.entry(name) {
            std::collections::hash_map::Entry::Occupied(mut known) => {
                if known.get().offset < item.offset {
                    known.insert(item);
                }
            }
            std::collections::hash_map::Entry::Vacant(place) => _ = place.insert(item),
        }
    }
}
