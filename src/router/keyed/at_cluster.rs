//! What the router does at a keyed room's home in a cluster: Redis gives updates their place, and what counts comes back.
//!
//! ```text
//!   publish ──► home ──► cluster ──► Redis ──► every node's cluster ──► home: items ──► mirrors, members
//! ```
//!
//! Where updates were missed the items come anew: those that were updated behind the last position, or all of them. Who
//! gets each update is told of a gap then; who gets rounds is sent the newest values, and told of the gap only where what
//! it was sent before says nothing of the items now.

use std::sync::Arc;

use arcstr::ArcStr;

use super::at_home::{ItemsRefused, ItemsUpdate};
use super::items::{Applied, ItemState, Items, ItemsCopy};
use super::room::KeyedRoom;
use super::{CommandKind, ItemUpdates, Keyed, TooManyItems};
use crate::frame::Opcode;
use crate::ids::RequestId;
use crate::limits::ITEMS_EXPIRY_AGAIN_MS;
use crate::protocol::{self, keyed::Body};
use crate::router::batches::Delivery;
use crate::router::cluster::{ItemsCame, ItemsCommand, ItemsExpiry, ItemsLoaded, ItemsPage, ItemsPolicy, ToCluster};
use crate::router::history::StreamPosition;
use crate::router::mail::{Content, Mail};
use crate::router::publish_many::{commands_of_id, id_of_commands};
use crate::router::topic::{HashedTopic, Kind, TopicIndex, TopicKey};
use crate::router::{Router, Sink};
use crate::time::Millis;

/// Items of a keyed room that come to a mirror anew.
#[derive(Debug)]
pub(in crate::router) struct Reload {
    /// Behind which offset those were updated that are here; `None` where these are all.
    since: Option<u64>,
    items: ItemsCopy,
}

impl Reload {
    /// Bytes that it takes, of which the frames are shared.
    pub(in crate::router) fn bytes(&self) -> usize {
        self.items.bytes()
    }
}

impl Router {
    /// A command's updates at the home of their room. What the room may hold is seen to in Redis, what the node may here: as
    /// far as the node follows the room.
    pub(super) fn items_to_cluster(&mut self, update: ItemsUpdate, sink: &mut impl Sink) {
        let ItemsUpdate { topic, updates, exclude, key, publisher, published_at: _, id } = update;
        // Otherwise the settings have changed since the publisher looked at them.
        let Some(policy) = self.items_policy(topic.hashed()) else { return };
        let refused = self.keyed.is_full().then(|| self.first_new_item(&topic, &updates)).flatten();
        let command = ItemsCommand { topic, policy, updates, exclude, key, publisher, id };
        match (refused, command.updates.kind()) {
            (None, _) => self.ask_cluster(ToCluster::UpdateItems(Box::new(command))),
            (Some(_), CommandKind::Each) if command.updates.len() > 1 => self.items_one_by_one(command, sink),
            (Some(index), kind) => {
                let ItemsCommand { topic, publisher, id, .. } = command;
                let index = (kind == CommandKind::Many).then_some(index as u32);
                let (room, error) = (topic.name.as_str().into(), TooManyItems { index });
                let refused = ItemsRefused { to: publisher, id, room, error };
                self.send(publisher.peer(), Content::ItemsRefused(Box::new(refused)), sink);
            }
        }
    }

    /// Commands of a request that were refused as a whole.
    pub(in crate::router) fn items_one_by_one(&mut self, commands: ItemsCommand, sink: &mut impl Sink) {
        let ItemsCommand { topic, policy: _, updates, exclude, key: _, publisher, id } = commands;
        let Some(id) = id else { return };
        for (command, updates) in commands_of_id(&id).zip(updates.one_by_one()) {
            let (topic, id) = (topic.clone(), Some(id_of_commands(command..command + 1)));
            let update = ItemsUpdate { topic, updates, exclude, key: None, publisher, published_at: None, id };
            self.items_to_cluster(update, sink);
        }
    }

    /// A page of the items of a room that is at home here.
    pub(in crate::router) fn read_items_in_cluster(
        &mut self,
        request: RequestId,
        topic: TopicKey,
        after: u64,
        limit: usize,
    ) {
        let Some(policy) = self.items_policy(topic.hashed()) else { return };
        let page = ItemsPage { request, topic, policy, after, limit };
        self.ask_cluster(ToCluster::ReadItems(Box::new(page)));
    }

    fn first_new_item(&self, topic: &TopicKey, updates: &ItemUpdates) -> Option<usize> {
        let index = self.topics.find(topic.hashed())?;
        self.keyed.rooms.get(&index)?.first_new(updates)
    }

    fn items_policy(&mut self, name: HashedTopic<'_>) -> Option<ItemsPolicy> {
        let found = self.topics.find(name).map(|index| self.topics.get(index));
        let policy = self.homes.policy(name, found);
        Some(ItemsPolicy { keyed: policy.keyed?, history: policy.history })
    }

    /// Items that nobody has updated for too long are to be removed, wherever they were not updated meanwhile.
    pub(super) fn expire_in_cluster(&mut self, index: TopicIndex, aged: &[ArcStr]) {
        let topic = self.topics.get(index).key.clone();
        let Some(policy) = self.items_policy(topic.hashed()) else { return };
        let now = self.keyed.schedule.now;
        let Some(room) = self.keyed.rooms.get_mut(&index) else { return };
        if let Some(source) = &mut room.source {
            source.expires_again_at = Some(now.saturating_add(ITEMS_EXPIRY_AGAIN_MS));
        }
        let items = &room.items;
        let offset_of = |name: &ArcStr| items.find(name).map(|at| (name.clone(), items.get(at).offset));
        let items = aged.iter().filter_map(offset_of).collect();
        let mut tail = Vec::new();
        if topic.kind == Kind::Room {
            protocol::keyed_tail(&mut tail, None, Body::Removal, self.unix_ms);
        }
        self.ask_cluster(ToCluster::ExpireItems(Box::new(ItemsExpiry { topic, policy, items, tail })));
    }

    /// The next updates of a room that is at home here.
    pub(in crate::router) fn items_came(&mut self, index: TopicIndex, came: ItemsCame, sink: &mut impl Sink) {
        let ItemsCame { applied, exclude, origin } = came;
        let now = self.keyed.schedule.now;
        let Some(room) = self.keyed.rooms.get_mut(&index) else { return };
        if origin == ItemsOrigin::Publisher {
            if let Some(source) = &mut room.source {
                source.published_at = Some(now);
            }
            if room.is_stale {
                self.tell_freshness(index, false, sink);
            }
        }
        self.keyed.schedule.published_at = self.batches.published_at();
        let Keyed { rooms, schedule, held, .. } = &mut self.keyed;
        let Some(room) = rooms.get_mut(&index) else { return };
        let before = room.held();
        for update in &applied {
            room.apply(update, exclude, schedule);
        }
        held.change(before, room.held());
        self.keep_items(index, &applied);
        self.fan_out_items(index, applied, exclude, sink);
        self.keyed.note_chore(index);
    }

    /// The items of a room that is at home here have come, or come anew.
    pub(in crate::router) fn items_loaded(&mut self, index: TopicIndex, loaded: ItemsLoaded, sink: &mut impl Sink) {
        let ItemsLoaded { position, forgotten_to, since, items } = loaded;
        let now = self.keyed.schedule.now;
        let newest_ms = items.last().map(|(_, age_ms)| *age_ms);
        let at = |age_ms: u64| Millis(now.0.saturating_sub(age_ms));
        let applied: Vec<(Applied, Millis)> =
            items.into_iter().map(|(applied, age_ms)| (applied, at(age_ms))).collect();
        let mirrors = self.keyed.mirrors(index);
        let reload = (!mirrors.is_empty()).then(|| {
            let items = applied.iter().map(|(applied, _)| applied.clone()).collect();
            Arc::new(Reload { since, items: ItemsCopy::new(position.clone(), forgotten_to, items) })
        });
        let is_new = !self.keyed.has(index);
        if is_new {
            let name = self.topics.get(index).key.name.clone();
            let Some(policy) = self.homes.get(self.topics.get(index)).and_then(|home| home.policy.keyed) else {
                return;
            };
            self.keyed.begin(index, &name, position.clone(), policy);
        }
        self.reload_items(index, since, &position, forgotten_to, &applied);
        if let Some(room) = self.keyed.rooms.get_mut(&index)
            && let Some(source) = &mut room.source
        {
            let newest_at = newest_ms.map(at);
            source.published_at = source.published_at.max(newest_at);
        }
        if !is_new {
            self.tell_items_gap(index, since, &position, sink);
        }
        let topic = &self.topics.get(index).key;
        for mirror in mirrors {
            let reload = reload.clone().expect("there are mirrors");
            self.outgoing.push((mirror.into(), Mail(Content::Reload { topic: topic.clone(), reload })));
        }
        self.keyed.note_chore(index);
    }

    /// The same for a mirror.
    pub(in crate::router) fn mirror_reloaded(&mut self, topic: &TopicKey, reload: &Reload, sink: &mut impl Sink) {
        let Some(index) = self.topics.find(topic.hashed()).filter(|&index| self.keyed.has(index)) else { return };
        let now = self.keyed.schedule.now;
        let (position, forgotten_to, items) = reload.items.parts();
        let applied: Vec<(Applied, Millis)> = items.iter().map(|applied| (applied.clone(), now)).collect();
        self.reload_items(index, reload.since, position, forgotten_to, &applied);
        self.tell_items_gap(index, reload.since, position, sink);
        self.keyed.note_chore(index);
    }

    fn reload_items(
        &mut self,
        index: TopicIndex,
        since: Option<u64>,
        position: &StreamPosition,
        forgotten_to: u64,
        applied: &[(Applied, Millis)],
    ) {
        let Keyed { rooms, schedule, seed, held, .. } = &mut self.keyed;
        let Some(room) = rooms.get_mut(&index) else { return };
        let before = room.held();
        match since {
            Some(_) => {
                applied.iter().for_each(|(update, at)| room.catch_up(update, *at, schedule));
                room.items.set_end(position.offset, forgotten_to);
            }
            None => {
                let items = applied.iter().map(|(update, at)| (update, *at));
                room.replace_items(Items::of(items, position, forgotten_to, *seed), schedule);
            }
        }
        if room.source.is_some() {
            held.change(before, room.held());
        }
    }

    /// Members here are told that they have missed updates: those who get each one, and where all items have come anew, all.
    fn tell_items_gap(
        &mut self,
        index: TopicIndex,
        since: Option<u64>,
        position: &StreamPosition,
        sink: &mut impl Sink,
    ) {
        let topic = self.topics.get(index).key.clone();
        let mut frames = std::mem::take(&mut self.frames);
        let frame = match topic.kind {
            Kind::Raw => frames.build(Opcode::Binary, |out| {
                protocol::raw_keyed(out, "", 0, position.offset, position.epoch.as_bytes());
            }),
            Kind::Room | Kind::Inbox | Kind::Everyone => {
                frames.build(Opcode::Text, |out| protocol::gap(out, &topic.name, position.in_epoch()))
            }
        };
        let delivery = Delivery { frame, shared: None, exclude: None };
        self.batches.deliver(&mut self.topics, &self.members, index, delivery, sink);
        match since {
            None => {
                self.keyed.lose_stalled(index, sink);
                self.keyed.deliver_apart(index, frame, sink);
            }
            Some(_) => self.keyed.deliver_to_each(index, frame, sink),
        }
        self.frames = frames;
    }
}

/// Who has made updates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ItemsOrigin {
    /// A publisher.
    Publisher,
    /// A node, for nobody had updated the items for too long.
    Expiry,
}

impl Keyed {
    /// Whether the rooms at home here hold as much as they may.
    fn is_full(&self) -> bool {
        self.held.items >= self.bounds.items_max || self.held.bytes >= self.bounds.bytes_max
    }
}

impl KeyedRoom {
    /// The index of the first update that would make a new item.
    pub(super) fn first_new(&self, updates: &ItemUpdates) -> Option<usize> {
        let is_known = |item: &str| {
            let known = self.items.find(item).map(|at| self.items.get(at));
            known.is_some_and(|known| known.state == ItemState::Present)
        };
        updates.iter().position(|update| update.state == ItemState::Present && !is_known(update.item))
    }
}
