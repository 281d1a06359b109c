//! Pages of a keyed room's items for requests, read from Redis whether the room is followed here or not.
//!
//! A page is the items with the lowest offsets behind one. Redis has them in no order, so all of the room are looked at,
//! and of those no more are held than a page takes.

use std::collections::BTreeMap;

use super::super::items::{ItemRecord, StoredItem};
use super::items_feed::part_of;
use super::messages::{ItemsRange, ReadItems};
use super::{Command, Core, Expect, Reply};
use crate::ids::RequestId;
use crate::limits::{CLUSTER_PAGES_MAX, HISTORY_PAGE_BYTES_MAX};
use crate::router::cluster::{ItemsPage, ItemsPolicy};
use crate::router::{ItemState, Mail, StreamPosition, TopicKey};

/// A page that a request waits for.
#[derive(Debug)]
pub(super) struct ItemsPageRead {
    request: RequestId,
    topic: TopicKey,
    policy: ItemsPolicy,
    after: u64,
    limit: usize,
    /// By their offsets, with their seqs; one more than the page may have, where there is one.
    found: BTreeMap<u64, (u64, Vec<u8>)>,
}

impl Core {
    /// A request reads a page of a keyed room's items.
    pub(super) fn read_items_page(&mut self, page: ItemsPage) {
        let ItemsPage { request, topic, policy, after, limit } = page;
        if !self.reachable || self.pending.is_full() || self.pages == CLUSTER_PAGES_MAX {
            return self.tell_unavailable(&[request]);
        }
        self.pages += 1;
        let read = ItemsPageRead { request, topic, policy, after, limit, found: BTreeMap::new() };
        self.ask_for_page(read, "0".to_owned());
    }

    fn ask_for_page(&mut self, page: ItemsPageRead, cursor: String) {
        let (topic, seed) = (self.names.topic(page.topic.borrow()), self.seed());
        let range = ItemsRange::Changed { since: page.after, cursor };
        let read = ReadItems { topic, policy: page.policy, seed, range };
        self.pending.push(Command::ReadItems(Box::new(read)), Expect::ItemsPage(Box::new(page)));
    }

    /// Redis has read a part of the items, or has not.
    pub(super) fn items_page_read(&mut self, mut page: ItemsPageRead, reply: Reply) {
        let Some(part) = part_of(reply).filter(|_| self.commands_up) else {
            self.pages -= 1;
            return self.tell_unavailable(&[page.request]);
        };
        // What is too old is as good as gone, in a room that no node follows too.
        let kept_from_ms = page.policy.keyed.ttl_ms.map_or(0, |ttl_ms| (part.now_ms + 1).saturating_sub(ttl_ms));
        for (stored, record) in part.items {
            page.take(&stored, record, kept_from_ms);
        }
        match part.next {
            Some(cursor) => self.ask_for_page(page, cursor),
            None => self.tell_page(page, part.end),
        }
    }

    fn tell_page(&mut self, page: ItemsPageRead, end: StreamPosition) {
        self.pages -= 1;
        let ItemsPageRead { request, topic, limit, found, .. } = page;
        let count = found.len();
        let (mut frames, mut bytes, mut last) = (Vec::new(), 0, 0);
        for (offset, (seq, record)) in found.into_iter().take(limit) {
            let Some((record, _)) = ItemRecord::read(&record) else { continue };
            let frame = self.item_frame(&topic, &record, seq, offset);
            bytes += frame.plain().len();
            if bytes > HISTORY_PAGE_BYTES_MAX && !frames.is_empty() {
                break;
            }
            frames.push(frame);
            last = offset;
        }
        let next = (frames.len() < count).then_some(last);
        self.mail.push(Mail::history_page(request, end, frames, next));
    }
}

impl ItemsPageRead {
    fn take(&mut self, stored: &[u8], record: Vec<u8>, kept_from_ms: u64) {
        let Some(item) = StoredItem::read(stored).filter(|item| item.at_ms >= kept_from_ms) else { return };
        let has_value = ItemRecord::read(&record).is_some_and(|(read, _)| read.state == ItemState::Present);
        if has_value {
            self.found.insert(item.offset, (item.seq, record));
        }
        while self.found.len() > self.limit + 1 {
            self.found.pop_last();
        }
    }
}
