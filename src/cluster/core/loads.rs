//! Older messages than a home has: read back from where its own begin, piece by piece, as far as it wants them.
//!
//! One load a topic is under way, and [`CLUSTER_LOADS_MAX`] of all wait for Redis at once. What a piece may be is bounded
//! by the script that reads it. A home that has no room for more says [`ToCluster::Enough`].
//!
//! [`ToCluster::Enough`]: crate::router::cluster::ToCluster::Enough

use std::collections::VecDeque;
use std::sync::Arc;

use super::attachment::Attached;
use super::fences::Ticket;
use super::{Command, Core, Expect, FeedId, ReadRange, Reply, StreamEntry};
use crate::limits::CLUSTER_LOADS_MAX;
use crate::router::cluster::{FromCluster, Older, Rest, Wanted};
use crate::router::{HistoryPolicy, TopicKey, TopicRef};

/// What a home waits for.
#[derive(Debug)]
pub(super) struct Load {
    /// Tells it from those that the feed had before.
    number: u64,
    /// The first offset wanted.
    from: u64,
    /// In front of which offset it goes on.
    before: u64,
    wanted: Wanted,
    pub(super) ticket: Ticket,
}

/// The loads of all feeds.
#[derive(Debug, Default)]
pub(super) struct Loads {
    begun: u64,
    /// Those that Redis has not answered.
    asked: usize,
    /// Those whose next piece waits for its turn.
    next: VecDeque<(FeedId, u64)>,
}

/// Which messages were read.
struct OlderRead<'a> {
    topic: &'a TopicKey,
    /// In front of which offset.
    before: u64,
    /// Redis' time.
    now_ms: u64,
    ttl_ms: u64,
}

impl Core {
    /// A home wants what a history has from one offset up to what it has itself.
    pub(super) fn load(&mut self, topic: TopicRef<'_>, from: u64, before: u64, wanted: Wanted) {
        let Some(at) = self.feed(topic) else { return };
        self.end_load(at);
        let feed = &mut self.feeds[at];
        let (Some(attached), true) = (feed.attachment.as_attached_mut(), feed.stream.is_some()) else { return };
        self.loads.begun += 1;
        let (number, ticket) = (self.loads.begun, self.tickets.take());
        attached.load = Some(Load { number, from, before, wanted, ticket });
        self.loads.next.push_back((FeedId { at, generation: feed.generation }, number));
        self.begin_loads();
    }

    /// The home has no use for more.
    pub(super) fn enough(&mut self, topic: TopicRef<'_>) {
        if let Some(at) = self.feed(topic) {
            self.end_load(at);
        }
    }

    /// What still comes of a feed's load is dropped.
    pub(super) fn end_load(&mut self, at: usize) {
        let attached = self.feeds[at].attachment.as_attached_mut();
        if let Some(load) = attached.and_then(|attached| attached.load.take()) {
            self.tickets.give_back(load.ticket);
        }
    }

    fn begin_loads(&mut self) {
        while self.loads.asked < CLUSTER_LOADS_MAX
            && let Some((feed, number)) = self.loads.next.pop_front()
        {
            let Some((range, topic, policy)) = self.next_piece(feed, number) else { continue };
            match self.commands_up {
                true => {
                    let seed = self.seed();
                    self.loads.asked += 1;
                    self.pending.push(Command::Read { topic, policy, seed, range }, Expect::Load(feed, number));
                }
                false => self.piece_came(feed, number, Reply::Failed),
            }
        }
    }

    fn next_piece(&self, feed: FeedId, number: u64) -> Option<(ReadRange, Arc<str>, HistoryPolicy)> {
        let found = self.feeds.get(feed.at).filter(|found| found.generation == feed.generation)?;
        let load = found.attached()?.load.as_ref().filter(|load| load.number == number)?;
        let range = ReadRange::Back { from: load.from, before: load.before, wanted: load.wanted };
        Some((range, found.channel.clone(), found.stream.as_ref()?.history?))
    }

    /// Redis has answered for a load.
    pub(super) fn loaded(&mut self, feed: FeedId, number: u64, reply: Reply) {
        self.loads.asked -= 1;
        self.piece_came(feed, number, reply);
        self.begin_loads();
    }

    fn piece_came(&mut self, feed: FeedId, number: u64, reply: Reply) {
        let Some(found) = self.feeds.get(feed.at).filter(|found| found.generation == feed.generation) else { return };
        let Some(&Attached { attach, load: Some(ref load), .. }) = found.attached() else { return };
        if load.number != number {
            return;
        }
        let &Load { from, before, wanted, .. } = load;
        let (home, topic) = (found.home, found.topic.clone());
        let history = found.stream.as_ref().and_then(|stream| stream.history);
        let (older, rest) = match (reply, history) {
            (Reply::Read { end, now_ms, more, entries }, Some(policy)) => {
                let is_same = found.position().is_some_and(|here| here.epoch == end.epoch);
                let asked = entries.len();
                let read = OlderRead { topic: &topic, before, now_ms, ttl_ms: policy.ttl_ms };
                let older = if is_same { self.older(entries, &read) } else { Vec::new() };
                let first = before - older.len() as u64;
                let rest = match older.len() == asked && is_same {
                    true if more => Rest::More,
                    // Where the first is gone it is not said what there is behind it.
                    true if (first <= from && from > 1) || (wanted == Wanted::All && asked == 0) => Rest::Unread,
                    true | false => Rest::Nothing,
                };
                (Some(older), rest)
            }
            (_, _) => (None, Rest::Unread),
        };
        let first = before - older.as_ref().map_or(0, Vec::len) as u64;
        self.notify(home, FromCluster::Loaded { topic, attach, before, older, rest });
        let attached = self.feeds[feed.at].attachment.as_attached_mut();
        match (rest, attached.and_then(|attached| attached.load.as_mut())) {
            (Rest::More, Some(load)) => {
                load.before = first;
                self.loads.next.push_back((feed, number));
            }
            (_, _) => self.end_load(feed.at),
        }
    }

    /// The messages without a gap in front of `before`, of those that are young enough and can be read.
    fn older(&mut self, entries: Vec<StreamEntry>, read: &OlderRead<'_>) -> Vec<Older> {
        let OlderRead { topic, before, now_ms, ttl_ms } = *read;
        let mut older = Vec::new();
        let mut expected = before;
        for StreamEntry { offset, at_ms, entry } in entries.into_iter().rev() {
            let age_ms = now_ms.saturating_sub(at_ms);
            if offset + 1 != expected || age_ms >= ttl_ms {
                break;
            }
            let Some((frame, _)) = self.frame_with_offset(topic, offset, &entry) else { break };
            older.push(Older { frame, age_ms });
            expected = offset;
        }
        older.reverse();
        older
    }
}
