//! What requests of this node tell all nodes that it concerns, and what they ask Redis for.
//!
//! An order is heard by the nodes that Redis counts: those around it, or, of a room, those that follow it.

use super::super::record::Record;
use super::publish::Heard;
use super::{Command, Core, Expect, ReadRange, Reply};
use crate::ids::RequestId;
use crate::limits::CLUSTER_PAGES_MAX;
use crate::router::cluster::Order;
use crate::router::{HistoryPolicy, Kind, Mail, PageRange, TopicKey, TopicRef};

/// More than any offset.
const OFFSET_MAX: u64 = 1 << 53;

/// A page of a history that a request waits for.
#[derive(Debug)]
pub(super) struct PageRead {
    request: RequestId,
    topic: TopicKey,
    policy: HistoryPolicy,
    range: PageRange,
}

impl Core {
    /// A request gives an order.
    pub(super) fn order(&mut self, request: RequestId, order: Order) {
        if !self.reachable || self.pending.is_full() {
            return self.tell_unavailable(&[request]);
        }
        match order {
            Order::Kick { room, user, reason } => {
                let channel = self.names.topic(TopicRef { kind: Kind::Room, name: &room });
                let kick = Record::Kick { user: &user, reason: &reason };
                self.publish_heard(&channel, &kick, Some(Heard::Order(request)));
            }
            Order::Disconnect { user, revoke_unix_s: None } => self.disconnect(request, &user),
            // Nodes that come later find it in Redis: it has to be there before those that are there hear of it.
            Order::Disconnect { user, revoke_unix_s: Some(unix_s) } => {
                let command = Command::Revoke { key: self.names.revoked(), user: user.clone(), unix_s };
                self.pending.push(command, Expect::Revoke { request, user, unix_s });
            }
        }
    }

    fn disconnect(&mut self, request: RequestId, user: &str) {
        let channel = self.everyone.clone();
        self.publish_heard(&channel, &Record::Disconnect { user }, Some(Heard::Order(request)));
    }

    /// Redis has noted a revocation, or has not.
    pub(super) fn revoke_stored(&mut self, request: RequestId, user: &str, unix_s: u64, reply: &Reply) {
        if *reply != Reply::Revoked || !self.commands_up {
            return self.tell_unavailable(&[request]);
        }
        let channel = self.everyone.clone();
        // On every node the connections are looked for when no more can come.
        self.publish(&channel, &Record::Revoke { user, unix_s });
        self.disconnect(request, user);
    }

    /// So many nodes have heard an order; `None` where Redis did not answer.
    pub(super) fn order_heard(&mut self, request: RequestId, nodes: Option<u64>) {
        match nodes {
            Some(nodes) => self.mail.push(Mail::heard(request, nodes)),
            None => self.tell_unavailable(&[request]),
        }
    }

    /// A request has a history forgotten.
    pub(super) fn purge(&mut self, request: RequestId, topic: &TopicKey, policy: HistoryPolicy) {
        if !self.reachable || self.pending.is_full() {
            return self.tell_unavailable(&[request]);
        }
        let (topic, seed) = (self.names.topic(topic.borrow()), self.seed());
        let expect = Expect::Purge(request, topic.clone());
        self.pending.push(Command::Purge { topic, policy, seed }, expect);
    }

    /// Redis has forgotten a history, or has not.
    pub(super) fn purged(&mut self, request: RequestId, channel: &str, reply: &Reply) {
        let Reply::Purged { end } = reply else { return self.tell_unavailable(&[request]) };
        // Whoever comes back with a position after the answer finds the new epoch.
        if let Some(&at) = self.feeds_by_name.get(channel) {
            self.restart(at, end.clone());
        }
        self.mail.push(Mail::heard(request, 1));
    }

    /// A request reads a page of a history.
    pub(super) fn read_page(
        &mut self,
        request: RequestId,
        topic: &TopicKey,
        policy: HistoryPolicy,
        range: PageRange,
        limit: usize,
    ) {
        if !self.reachable || self.pending.is_full() || self.pages == CLUSTER_PAGES_MAX {
            return self.tell_unavailable(&[request]);
        }
        self.pages += 1;
        let (channel, seed) = (self.names.topic(topic.borrow()), self.seed());
        let read = match range {
            PageRange::Before(before) => ReadRange::NewestBefore { before: before.unwrap_or(OFFSET_MAX), limit },
            PageRange::After(after) => ReadRange::OldestAfter { after, limit },
        };
        let expect = Expect::Page(PageRead { request, topic: topic.clone(), policy, range });
        self.pending.push(Command::Read { topic: channel, policy, seed, range: read }, expect);
    }

    /// Redis has read a page, or has not.
    pub(super) fn page_read(&mut self, page: &PageRead, reply: Reply) {
        self.pages -= 1;
        let &PageRead { request, ref topic, policy, range } = page;
        let Reply::Read { end, now_ms, more, entries } = reply else { return self.tell_unavailable(&[request]) };
        let count = entries.len();
        let offsets = entries.first().zip(entries.last()).map(|(first, last)| (first.offset, last.offset));
        let mut frames = Vec::with_capacity(count);
        for entry in &entries {
            // What is too old is gone, be it there still; what no node has written cannot be shown.
            let is_young = now_ms.saturating_sub(entry.at_ms) < policy.ttl_ms;
            let frame = is_young.then(|| self.frame_with_offset(topic, entry.offset, &entry.entry)).flatten();
            frames.extend(frame.map(|(frame, _)| frame));
        }
        let next = offsets.filter(|_| more).and_then(|(first, last)| match range {
            // Behind what is too old there is only what is older.
            PageRange::Before(_) => (frames.len() == count && first > 1).then_some(first),
            PageRange::After(_) => (last < end.offset).then_some(last),
        });
        self.mail.push(Mail::history_page(request, end, frames, next));
    }
}
