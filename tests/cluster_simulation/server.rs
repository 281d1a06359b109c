//! One Redis server: channels, histories as `append.lua` and `read.lua` keep them, and keyed rooms as `update_items.lua` and
//! `read_items.lua` do.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use fanfare::cluster::core::{Command, ItemsRead, NewEntry, ReadItems, ReadRange, Reply, StreamEntry, UpdateItems};
use fanfare::cluster::items::model::{ModelCall, ModelOutcome, ModelRoom};
use fanfare::cluster::items::{read_entry, write_entry};
use fanfare::limits::PUBLISH_KEY_MS_MAX;
use fanfare::router::cluster::Wanted;
use fanfare::router::{HistoryPolicy, ItemState, StreamPosition};

use super::chronicle::Chronicle;
use super::redis::LineAt;

/// Messages that one append drops because of their age, at most.
const EXPIRED_PER_APPEND: usize = 100;

/// Messages in one read: few, so that most take several.
const READ_MAX: usize = 3;

/// Bytes that are logged of a keyed room: little, so that much is gone.
const LOG_BYTES_MAX: usize = 2_000;

/// Of a keyed room that keeps no history.
const NO_HISTORY: HistoryPolicy = HistoryPolicy { messages_max: 0, ttl_ms: 0 };

/// What a server keeps: it may outlive the server.
pub type Data = BTreeMap<Arc<str>, History>;

/// The keys of one topic.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// Epoch and end.
    meta: Option<(Arc<str>, u64)>,
    stream: VecDeque<StreamEntry>,
    stream_until_ms: u64,
    keys: BTreeMap<Box<str>, Known>,
    ttl_ms: u64,
    items: ModelRoom,
}

/// Where the message of a key is, and how long that is known.
#[derive(Clone, Debug)]
struct Known {
    epoch: Arc<str>,
    offset: u64,
    until_ms: u64,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Server {
    /// What epochs begin with here.
    pub run: String,
    pub data: Data,
    pub channels: BTreeMap<Arc<str>, BTreeSet<LineAt>>,
    /// Whether it refuses what needs memory.
    pub refuses: bool,
}

/// What a command comes to.
pub struct Outcome {
    pub reply: Reply,
    /// What goes to the subscribers of channels.
    pub published: Vec<(Arc<str>, Arc<[u8]>)>,
}

impl Outcome {
    fn of(reply: Reply) -> Outcome {
        Outcome { reply, published: Vec::new() }
    }
}

impl Server {
    /// A server that has just started with what was kept.
    pub fn new(run: String, data: Data) -> Server {
        Server { run, data, channels: BTreeMap::new(), refuses: false }
    }

    /// How many subscribe to a channel.
    pub fn subscribers(&self, channel: &str) -> u64 {
        self.channels.get(channel).map_or(0, |lines| lines.len() as u64)
    }

    /// A connection subscribes to a channel.
    pub fn subscribe(&mut self, channel: &Arc<str>, line: LineAt) {
        self.channels.entry(channel.clone()).or_default().insert(line);
    }

    /// It does no more.
    pub fn unsubscribe(&mut self, channel: &Arc<str>, line: LineAt) {
        if let Some(lines) = self.channels.get_mut(channel) {
            lines.remove(&line);
            if lines.is_empty() {
                self.channels.remove(channel);
            }
        }
    }

    /// A connection is gone.
    pub fn forget(&mut self, line: LineAt) {
        self.channels.values_mut().for_each(|lines| _ = lines.remove(&line));
        self.channels.retain(|_, lines| !lines.is_empty());
    }

    /// Does a command that came on a connection which was prepared at the server with this run.
    pub fn execute(&mut self, run: &str, command: &Command, now_ms: u64, chronicle: &mut Chronicle) -> Outcome {
        match command {
            Command::Publish { channel, payload } => {
                let published = vec![(channel.clone(), payload[..].into())];
                Outcome { reply: Reply::Published(self.subscribers(channel)), published }
            }
            Command::Tell(_) => unreachable!("no webhook is simulated"),
            Command::Append { .. }
            | Command::Read { .. }
            | Command::Purge { .. }
            | Command::Revoke { .. }
            | Command::Revocations { .. }
            | Command::UpdateItems(_)
            | Command::ReadItems(_)
                if self.refuses =>
            {
                Outcome::of(Reply::Failed)
            }
            Command::Append { topic, policy, seed, entries } => {
                let history = self.data.entry(topic.clone()).or_default();
                let next = Next { topic, run, seed, policy: *policy, now_ms };
                history.append(&next, entries, chronicle)
            }
            Command::Read { topic, policy, seed, range } => {
                let history = self.data.entry(topic.clone()).or_default();
                let next = Next { topic, run, seed, policy: *policy, now_ms };
                Outcome::of(history.read(&next, *range, chronicle))
            }
            Command::Purge { topic, policy, seed } => {
                let history = self.data.entry(topic.clone()).or_default();
                let next = Next { topic, run, seed, policy: *policy, now_ms };
                history.purge(&next, chronicle)
            }
            Command::UpdateItems(update) => {
                let UpdateItems { topic, policy, seed, .. } = &**update;
                let history = self.data.entry(topic.clone()).or_default();
                let policy = policy.history.unwrap_or(NO_HISTORY);
                history.update_items(&Next { topic, run, seed, policy, now_ms }, update, chronicle)
            }
            Command::ReadItems(read) => {
                let ReadItems { topic, policy, seed, .. } = &**read;
                let history = self.data.entry(topic.clone()).or_default();
                let policy = policy.history.unwrap_or(NO_HISTORY);
                Outcome::of(history.read_items(&Next { topic, run, seed, policy, now_ms }, read, chronicle))
            }
            // No connection here has a token.
            Command::Revoke { .. } => Outcome::of(Reply::Revoked),
            Command::Revocations { .. } => Outcome::of(Reply::Revocations { cursor: 0, entries: Vec::new() }),
        }
    }

    /// Epoch and end of a topic, if they are known.
    pub fn end(&self, topic: &str) -> Option<&(Arc<str>, u64)> {
        self.data.get(topic)?.meta.as_ref()
    }

    /// What is known of the items of a keyed room: of each its offset, its seq, and whether it has a value.
    pub fn items(&self, topic: &str) -> BTreeMap<String, (u64, u64, ItemState)> {
        self.data.get(topic).map(|history| history.items.current()).unwrap_or_default()
    }

    /// Whether a message is there and young enough to be given out.
    pub fn holds(&self, topic: &str, epoch: &str, offset: u64, now_ms: u64) -> bool {
        let Some(history) = self.data.get(topic) else { return false };
        let is_current = history.meta.as_ref().is_some_and(|(current, _)| **current == *epoch);
        let found = history.stream.iter().find(|kept| kept.offset == offset);
        let is_young = |kept: &StreamEntry| now_ms.saturating_sub(kept.at_ms) < history.ttl_ms;
        is_current && now_ms < history.stream_until_ms && found.is_some_and(is_young)
    }
}

/// What the scripts get beside what they are to do.
struct Next<'a> {
    topic: &'a Arc<str>,
    run: &'a str,
    seed: &'a str,
    policy: HistoryPolicy,
    now_ms: u64,
}

impl History {
    fn append(&mut self, next: &Next<'_>, entries: &[NewEntry], chronicle: &mut Chronicle) -> Outcome {
        let Next { topic, policy, now_ms, .. } = *next;
        let (epoch, mut last) = self.begin(next, chronicle);
        let first = last + 1;
        let (mut offsets, mut published) = (Vec::new(), Vec::new());
        for NewEntry { key, entry } in entries {
            let known = key.as_ref().and_then(|key| self.keys.get(key));
            if let Some(known) = known.filter(|known| known.until_ms > now_ms && known.epoch == epoch) {
                offsets.push(known.offset);
                continue;
            }
            last += 1;
            chronicle.write(topic, &epoch, last, entry);
            self.stream.push_back(StreamEntry { offset: last, at_ms: now_ms, entry: entry.clone() });
            if self.stream.len() > policy.messages_max as usize
                && let Some(dropped) = self.stream.pop_front()
            {
                chronicle.trim(topic, &epoch, dropped.offset);
            }
            if let Some(key) = key {
                let known = Known { epoch: epoch.clone(), offset: last, until_ms: now_ms + PUBLISH_KEY_MS_MAX };
                self.keys.insert(key.clone(), known);
            }
            published.extend((entry.len() as u32).to_be_bytes());
            published.extend(entry);
            offsets.push(last);
        }
        let reply = Reply::Appended { epoch: epoch.clone(), offsets };
        if published.is_empty() {
            return Outcome::of(reply);
        }
        for _ in 0..EXPIRED_PER_APPEND {
            match self.stream.front() {
                Some(oldest) if now_ms - oldest.at_ms >= policy.ttl_ms => {
                    chronicle.trim(topic, &epoch, oldest.offset);
                    self.stream.pop_front();
                }
                Some(_) | None => break,
            }
        }
        let payload = [format!("H{epoch}\n{first}\n").as_bytes(), &published].concat();
        self.meta = Some((epoch, last));
        self.stream_until_ms = now_ms + policy.ttl_ms;
        Outcome { reply, published: vec![(topic.clone(), payload.into())] }
    }

    fn read(&mut self, next: &Next<'_>, range: ReadRange, chronicle: &mut Chronicle) -> Reply {
        let (epoch, last) = self.begin(next, chronicle);
        self.meta = Some((epoch.clone(), last));
        let is_in = |kept: &&StreamEntry, from, to: u64| kept.offset >= from && kept.offset <= to.min(last);
        let (entries, more) = match range {
            ReadRange::End => (Vec::new(), false),
            ReadRange::From(from) => {
                let wanted = self.stream.iter().filter(|kept| is_in(kept, from, u64::MAX));
                let entries: Vec<StreamEntry> = wanted.clone().take(READ_MAX).cloned().collect();
                (entries, wanted.count() > READ_MAX)
            }
            ReadRange::Back { from, before, wanted } => {
                let part = self.stream.iter().filter(|kept| is_in(kept, from, before.saturating_sub(1)));
                let has_first = part.clone().next().is_some_and(|first| first.offset == from);
                let count = if wanted == Wanted::All && !has_first { 0 } else { part.clone().count() };
                let skipped = count.saturating_sub(READ_MAX);
                let entries = part.take(count).skip(skipped).cloned().collect();
                (entries, skipped > 0)
            }
            ReadRange::NewestBefore { before, limit } => {
                let part = self.stream.iter().filter(|kept| is_in(kept, 1, before.saturating_sub(1)));
                let skipped = part.clone().count().saturating_sub(limit);
                (part.skip(skipped).cloned().collect(), skipped > 0)
            }
            ReadRange::OldestAfter { after, limit } => {
                let part = self.stream.iter().filter(|kept| is_in(kept, after + 1, u64::MAX));
                (part.clone().take(limit).cloned().collect(), part.count() > limit)
            }
        };
        Reply::Read { end: StreamPosition { epoch, offset: last }, now_ms: next.now_ms, more, entries }
    }

    fn purge(&mut self, next: &Next<'_>, chronicle: &mut Chronicle) -> Outcome {
        let epoch: Arc<str> = format!("{}-{}", next.run, next.seed).into();
        // Where items are, offsets go on behind theirs.
        let last =
            self.meta.as_ref().map_or(0, |(_, last)| *last).min(if self.items.is_empty() { 0 } else { u64::MAX });
        self.stream.clear();
        self.meta = Some((epoch.clone(), last));
        chronicle.begin(next.topic, &epoch, last, std::iter::empty());
        let payload = format!("H{epoch}\n{}\n", last + 1).into_bytes();
        let end = StreamPosition { epoch, offset: last };
        Outcome { reply: Reply::Purged { end }, published: vec![(next.topic.clone(), payload.into())] }
    }

    fn update_items(&mut self, next: &Next<'_>, update: &UpdateItems, chronicle: &mut Chronicle) -> Outcome {
        let Next { topic, policy, now_ms, .. } = *next;
        let (epoch, last) = self.begin(next, chronicle);
        let (log_bytes_max, of, removal_head) = (LOG_BYTES_MAX, update.policy, update.removal_head);
        let call =
            ModelCall { epoch: &epoch, last, now_ms, policy: of, log_bytes_max, removal_head, call: &update.call };
        let ModelOutcome { last: end, outcomes, published, applied } = self.items.update(&call);
        for (offset, (seq, record)) in (last + 1..).zip(applied).filter(|_| of.history.is_some()) {
            self.stream.push_back(StreamEntry { offset, at_ms: now_ms, entry: write_entry(seq, &record) });
        }
        while self.stream.len() > policy.messages_max as usize {
            self.stream.pop_front();
        }
        self.meta = Some((epoch.clone(), end));
        self.stream_until_ms = now_ms + policy.ttl_ms;
        let published = published.into_iter().flatten().map(|payload| (topic.clone(), payload.into())).collect();
        Outcome { reply: Reply::ItemsUpdated { epoch, outcomes }, published }
    }

    fn read_items(&mut self, next: &Next<'_>, read: &ReadItems, chronicle: &mut Chronicle) -> Reply {
        let (epoch, offset) = self.begin(next, chronicle);
        self.meta = Some((epoch.clone(), offset));
        Reply::ItemsRead(Box::new(ItemsRead {
            end: StreamPosition { epoch, offset },
            forgotten_to: self.items.forgotten_to(),
            now_ms: next.now_ms,
            found: self.items.read(&read.range, READ_MAX),
        }))
    }

    /// The epoch and the end, with which both scripts begin.
    fn begin(&mut self, next: &Next<'_>, chronicle: &mut Chronicle) -> (Arc<str>, u64) {
        let Next { topic, run, seed, policy, now_ms } = *next;
        self.ttl_ms = policy.ttl_ms;
        if self.stream_until_ms <= now_ms || self.meta.is_none() {
            self.stream.clear();
        }
        let last = self.meta.as_ref().map_or(0, |(_, last)| *last);
        match &self.meta {
            Some((epoch, _)) if epoch.starts_with(run) => (epoch.clone(), last),
            Some(_) | None => {
                let epoch: Arc<str> = format!("{run}-{seed}").into();
                let messages = self.stream.iter().filter(|kept| read_entry(&kept.entry).is_none());
                let kept = messages.map(|kept| (kept.offset, &kept.entry[..]));
                chronicle.begin(topic, &epoch, last, kept);
                (epoch, last)
            }
        }
    }
}
