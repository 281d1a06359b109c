//! What the router does at a keyed room's home: it gives updates their place, and sends them to those who mirror the room.

use std::sync::Arc;

use arcstr::ArcStr;

use super::answer::KeyedAnswer;
use super::at_member::KeyedJoin;
use super::items::{Applied, ItemState, Items};
use super::room::KeyedRoom;
use super::schedule::Schedule;
use super::updates::{CommandKind, ItemUpdate, ItemUpdates, TooManyItems, Updated};
use super::{HeldSum, Keyed};
use crate::compress::SharedFrame;
use crate::frame::{FrameBuilder, Opcode};
use crate::ids::{ConnId, PeerId, ReactorId, ReplyTo};
use crate::limits::{HISTORY_PAGE_BYTES_MAX, ITEM_CHORES_PER_TURN};
use crate::protocol::{self, keyed::Body};
use crate::router::batches::Delivery;
use crate::router::history::StreamPosition;
use crate::router::mail::{Ack, Content, HomeMail, Mail};
use crate::router::policy::KeyedPolicy;
use crate::router::publish_many::{commands_of_id, id_of_commands};
use crate::router::topic::{HashedTopic, Kind, TopicIndex, TopicKey, TopicRef};
use crate::router::{Answer, Router, Sink, conn_of};
use crate::time::Stamp;

/// Updates of items on their way to their room's home.
#[derive(Debug)]
pub(in crate::router) struct ItemsUpdate {
    pub(in crate::router) topic: TopicKey,
    pub(in crate::router) updates: ItemUpdates,
    pub(in crate::router) exclude: Option<ConnId>,
    pub(in crate::router) key: Option<Box<str>>,
    pub(in crate::router) publisher: ReplyTo,
    pub(in crate::router) published_at: Option<Stamp>,
    /// Where the publisher wants an ack: the command's id as JSON text, and of a request which of its commands they are, as
    /// [`id_of_commands`] says it.
    pub(in crate::router) id: Option<Box<str>>,
}

impl ItemsUpdate {
    /// Bytes that it takes: of a single small update more than its text.
    pub(in crate::router) fn bytes(&self) -> usize {
        let (key, id) = (self.key.as_ref().map_or(0, |key| key.len()), self.id.as_ref().map_or(0, |id| id.len()));
        size_of::<ItemsUpdate>() + self.topic.name.len() + key + id + self.updates.bytes()
    }
}

/// Updates for the mirrors of a room.
#[derive(Debug)]
pub(in crate::router) struct ItemsMail {
    pub(in crate::router) applied: Vec<Applied>,
    pub(in crate::router) exclude: Option<ConnId>,
    pub(in crate::router) published_at: Stamp,
}

/// Updates of items of one room, as they are published.
#[derive(Clone, Copy, Debug)]
pub struct PublishItems<'a> {
    /// To which room.
    pub topic: TopicRef<'a>,
    /// The updates.
    pub updates: &'a ItemUpdates,
    /// A member that is not to get them in mode `all`.
    pub exclude: Option<ConnId>,
    /// What a retry by the same publisher is known by.
    pub key: Option<&'a str>,
    /// Whose command it is.
    pub publisher: ReplyTo,
}

impl Router {
    /// Publishes updates of items to a keyed room. With an `id` the publisher is told when they are stored.
    pub fn publish_items(&mut self, publish: PublishItems<'_>, id: Option<&str>, sink: &mut impl Sink) {
        let name = self.topics.hashed(publish.topic);
        if self.topics.home(name) == self.me && self.cluster.is_none() {
            return self.items_at_home(name, publish, id, sink);
        }
        let PublishItems { topic: _, updates, exclude, key, publisher } = publish;
        let update = ItemsUpdate {
            topic: name.to_key(),
            updates: updates.clone(),
            exclude,
            key: key.map(Into::into),
            publisher,
            published_at: Some(self.turn_began_at),
            id: id.map(Into::into),
        };
        self.send_home(HomeMail::Items(Box::new(update)), sink);
    }

    /// Updates that have come to the home of their room.
    pub(in crate::router) fn home_items(&mut self, update: ItemsUpdate, sink: &mut impl Sink) {
        if self.cluster.is_some() {
            return self.items_to_cluster(update, sink);
        }
        let ItemsUpdate { topic, updates, exclude, key, publisher, published_at, id } = update;
        let before = self.batches.deliver_as_of(published_at.unwrap_or(self.turn_began_at));
        let publish =
            PublishItems { topic: topic.borrow(), updates: &updates, exclude, key: key.as_deref(), publisher };
        self.items_at_home(topic.hashed(), publish, id.as_deref(), sink);
        self.batches.deliver_as_of(before);
    }

    /// Updates of a room that is at home here, on a node alone.
    fn items_at_home(
        &mut self,
        name: HashedTopic<'_>,
        publish: PublishItems<'_>,
        id: Option<&str>,
        sink: &mut impl Sink,
    ) {
        let PublishItems { topic: _, updates, exclude, key, publisher } = publish;
        let index = self.topics.find(name).unwrap_or_else(|| self.topics.find_or_insert(&name.to_key()));
        if !self.open_keyed(index) {
            // The settings have changed since the publisher looked at them.
            return self.drop_if_unused(index);
        }
        match (self.update_items(index, updates, exclude, key, sink), id) {
            (Ok(_), None) => {}
            (Ok(Updated { position, stale }), Some(id)) => {
                let ack = Ack { to: publisher, id: id.into(), position: Some(position), stale: Some(stale) };
                self.send(publisher.peer(), Content::Acked(Box::new(ack)), sink);
            }
            (Err(_), Some(id)) if updates.kind() == CommandKind::Each && updates.len() > 1 => {
                for (command, updates) in commands_of_id(id).zip(updates.one_by_one()) {
                    let (publish, id) =
                        (PublishItems { updates: &updates, ..publish }, id_of_commands(command..command + 1));
                    self.items_at_home(name, publish, Some(&id), sink);
                }
                return;
            }
            (Err(error), id) => {
                let refused = ItemsRefused { to: publisher, id: id.map(Into::into), room: name.name.into(), error };
                self.send(publisher.peer(), Content::ItemsRefused(Box::new(refused)), sink);
            }
        }
        // Updates that were stale or refused, and removals of what was not there, leave nothing behind.
        self.drop_if_unused(index);
    }

    /// The keyed room of a topic that is at home here, whether it was there or not; `false` where the topic is none.
    pub(in crate::router) fn open_keyed(&mut self, index: TopicIndex) -> bool {
        if self.keyed.has(index) {
            return true;
        }
        let topic = self.topics.get(index);
        if self.cluster.is_some() || self.homes.policy(topic.key.hashed(), Some(topic)).keyed.is_none() {
            return false;
        }
        self.open_home(index);
        let Some(home) = self.homes.get(self.topics.get(index)) else { return false };
        let Some(policy) = home.policy.keyed else { return false };
        let position = match home.history.as_deref() {
            Some(history) => history.position(),
            None => StreamPosition { epoch: self.retention.new_epoch(), offset: 0 },
        };
        let name = self.topics.get(index).key.name.clone();
        self.keyed.begin(index, &name, position, policy);
        true
    }

    /// Applies a command's updates, all of them or none.
    fn update_items(
        &mut self,
        index: TopicIndex,
        updates: &ItemUpdates,
        exclude: Option<ConnId>,
        key: Option<&str>,
        sink: &mut impl Sink,
    ) -> Result<Updated, TooManyItems> {
        let now = self.keyed.schedule.now;
        let room = self.keyed.rooms.get_mut(&index).expect("it was opened");
        if let Some(known) = key.and_then(|key| room.known(key, now)) {
            let stale = updates.kind().stale(Vec::new());
            return Ok(Updated { position: room.position_at(known), stale });
        }
        room.find_room_for(updates, self.keyed.held, self.keyed.bounds)?;
        if room.is_stale && !updates.is_empty() {
            self.tell_freshness(index, false, sink);
        }
        let room = self.keyed.rooms.get_mut(&index).expect("it is there");
        let before = room.held();
        let topic = self.topics.get(index).key.clone();
        self.keyed.schedule.published_at = self.batches.published_at();
        let (applied, stale) = place(room, &topic, updates, exclude, &mut self.frames, &mut self.keyed.schedule);
        let source = room.source.as_deref_mut().expect("it is at home here");
        source.published_at = Some(now);
        let position = room.items.position();
        if let Some(key) = key {
            source.keys.get_or_insert_default().remember(key.into(), position.offset, now);
        }
        let after = room.held();
        self.keyed.held.change(before, after);
        self.keep_items(index, &applied);
        self.fan_out_items(index, applied, exclude, sink);
        self.keyed.note_chore(index);
        Ok(Updated { position, stale: updates.kind().stale(stale) })
    }

    /// A room that keeps history too keeps each update there, under the same offset.
    pub(super) fn keep_items(&mut self, index: TopicIndex, applied: &[Applied]) {
        let now = self.retention.now();
        self.retention.change(&self.topics, &mut self.homes, index, |history| {
            for update in applied {
                assert_eq!(history.next_offset(), update.offset, "items and history count the same");
                history.append(update.frame.clone(), None, now);
            }
        });
        self.make_room();
    }

    /// Updates that have their place go to all reactors with members, and to the members here.
    pub(in crate::router) fn fan_out_items(
        &mut self,
        index: TopicIndex,
        applied: Vec<Applied>,
        exclude: Option<ConnId>,
        sink: &mut impl Sink,
    ) {
        let published_at = self.batches.published_at();
        self.deliver_items(index, &applied, exclude, sink);
        let mirrors = self.keyed.rooms[&index].mirrors();
        if mirrors.is_empty() || applied.is_empty() {
            return;
        }
        let topic = &self.topics.get(index).key;
        let mail = Arc::new(ItemsMail { applied, exclude, published_at });
        for &mirror in mirrors {
            let content = Content::Items { topic: topic.clone(), items: mail.clone() };
            self.outgoing.push((PeerId::Reactor(mirror), Mail(content)));
        }
    }

    /// Updates go to the plain members here.
    pub(in crate::router) fn deliver_items(
        &mut self,
        index: TopicIndex,
        applied: &[Applied],
        exclude: Option<ConnId>,
        sink: &mut impl Sink,
    ) {
        for update in applied {
            let delivery = Delivery { frame: update.frame.plain(), shared: Some(&update.frame), exclude };
            self.batches.deliver(&mut self.topics, &self.members, index, delivery, sink);
        }
    }

    /// Members are told that nothing was published for a while, or that it goes on, here and on other reactors.
    pub(in crate::router) fn tell_freshness(&mut self, index: TopicIndex, is_stale: bool, sink: &mut impl Sink) {
        let Some(room) = self.keyed.rooms.get(&index) else { return };
        let (offset, topic) = (room.items.last_offset(), self.topics.get(index).key.clone());
        for &mirror in room.mirrors() {
            let content = Content::Freshness { topic: topic.clone(), offset, is_stale };
            self.outgoing.push((PeerId::Reactor(mirror), Mail(content)));
        }
        self.freshness(index, offset, is_stale, sink);
    }

    /// The same for the members here.
    pub(in crate::router) fn freshness(
        &mut self,
        index: TopicIndex,
        offset: u64,
        is_stale: bool,
        sink: &mut impl Sink,
    ) {
        let Some(room) = self.keyed.rooms.get_mut(&index) else { return };
        let topic = self.topics.get(index);
        if topic.key.kind != Kind::Room {
            return room.set_freshness_silently(is_stale);
        }
        let mut frames = std::mem::take(&mut self.frames);
        let name = topic.key.name.clone();
        let frame = frames.build(Opcode::Text, |out| protocol::freshness(out, &name, offset, is_stale));
        let delivery = Delivery { frame, shared: None, exclude: None };
        self.batches.deliver(&mut self.topics, &self.members, index, delivery, sink);
        self.frames = frames;
        self.keyed.seal_all(index, sink);
        self.keyed.tell_freshness_apart(index, &name, is_stale, sink);
    }

    /// What a reactor has to know of a keyed room that one of its connections joins.
    pub(in crate::router) fn keyed_join(&mut self, index: TopicIndex, reactor: ReactorId) -> Option<Box<KeyedJoin>> {
        let is_here = reactor == self.me;
        let room = self.keyed.rooms.get_mut(&index)?;
        let source = room.source.as_deref_mut()?;
        let is_new = !is_here && !source.mirrors.contains(&reactor);
        if is_new {
            source.mirrors.push(reactor);
        }
        let copy = is_new.then(|| Arc::new(room.items.copy()));
        Some(Box::new(KeyedJoin { copy, policy: room.policy, is_stale: room.is_stale }))
    }

    /// What keyed rooms have for the members here, at the end of a turn.
    pub(in crate::router) fn end_turn_of_keyed(&mut self, sink: &mut impl Sink) {
        self.keyed.send_as_of(self.turn_began_at);
        for (index, member, tunes) in self.keyed.send(&self.topics, &mut self.batches, sink) {
            for tune in tunes {
                self.change_terms(index, member, tune, sink);
            }
        }
    }

    /// What keyed rooms have to do by themselves, a bounded part of it.
    pub(in crate::router) fn do_chores(&mut self, sink: &mut impl Sink) {
        self.keyed.wake_due();
        for _ in 0..ITEM_CHORES_PER_TURN {
            let Some(index) = self.keyed.schedule.next_chore() else { return };
            let Some(room) = self.keyed.rooms.get_mut(&index) else { return };
            let now = self.keyed.schedule.now;
            let before = room.held();
            room.forget(now);
            let (is_home, after) = (room.source.is_some(), room.held());
            let (aged, is_overdue) = (room.aged(now), room.is_overdue(now));
            if is_home {
                self.keyed.held.change(before, after);
            }
            if !aged.is_empty() && self.cluster.is_some() {
                self.expire_in_cluster(index, &aged);
            } else if !aged.is_empty() {
                let updates = removals(self.topics.get(index).key.kind, &aged, self.unix_ms);
                self.remove_aged(index, &updates, sink);
            }
            if is_overdue {
                self.tell_freshness(index, true, sink);
            }
            self.keyed.note_chore(index);
            self.drop_if_unused(index);
        }
    }

    /// Items that were not updated for too long are removed, as by an update.
    fn remove_aged(&mut self, index: TopicIndex, updates: &ItemUpdates, sink: &mut impl Sink) {
        let Some(room) = self.keyed.rooms.get(&index) else { return };
        let (was_published_at, was_stale) =
            (room.source.as_deref().and_then(|source| source.published_at), room.is_stale);
        // What the server does is no publish.
        if let Some(room) = self.keyed.rooms.get_mut(&index) {
            room.is_stale = false;
        }
        let removed = self.update_items(index, updates, None, None, sink);
        assert!(removed.is_ok(), "a removal always finds room");
        if let Some(room) = self.keyed.rooms.get_mut(&index) {
            room.is_stale = was_stale;
            if let Some(source) = &mut room.source {
                source.published_at = was_published_at;
            }
        }
    }
}

/// Updates of a keyed room that were refused, on their way to who published them.
#[derive(Debug)]
pub(in crate::router) struct ItemsRefused {
    pub(in crate::router) to: ReplyTo,
    pub(in crate::router) id: Option<Box<str>>,
    pub(in crate::router) room: Box<str>,
    pub(in crate::router) error: TooManyItems,
}

/// Gives updates their offsets, and puts them into the room; those that were stale are told apart.
fn place(
    room: &mut KeyedRoom,
    topic: &TopicKey,
    updates: &ItemUpdates,
    exclude: Option<ConnId>,
    frames: &mut FrameBuilder,
    schedule: &mut Schedule,
) -> (Vec<Applied>, Vec<u32>) {
    let (mut applied, mut stale) = (Vec::with_capacity(updates.len()), Vec::new());
    let mut put = |room: &mut KeyedRoom, update: ItemUpdate<'_>| {
        let next = room.items.next(update.item);
        let known = next.found.map(|at| room.items.get(at));
        let version_before = known.and_then(|item| item.version);
        if update.is_stale(version_before) {
            return false;
        }
        let frame = frame_of(topic, &update, next.seq, next.offset, frames);
        let item = known.map_or_else(|| update.item.into(), |item| item.name.clone());
        let version = update.version.or(version_before);
        let update = Applied { item, seq: next.seq, offset: next.offset, version, frame, state: update.state };
        room.put(next, &update, exclude, schedule);
        applied.push(update);
        true
    };
    for (index, update) in updates.iter().enumerate() {
        if !put(room, update) {
            stale.push(index as u32);
        }
    }
    if let Some(tail) = updates.removal() {
        for item in room.present_but(&updates.names()) {
            put(room, ItemUpdate { item: &item, version: None, state: ItemState::Removed, tail });
        }
    }
    // Not before: an item's version counts until the whole command is placed, as it does where its room is looked for.
    room.forget_surplus(applied.len());
    (applied, stale)
}

/// Where a room is, messages of items, and behind which offset there are more.
pub(in crate::router) type ItemsPage = (StreamPosition, Vec<SharedFrame>, Option<u64>);

/// The message of an update, as a whole frame.
pub(in crate::router) fn frame_of(
    topic: &TopicKey,
    update: &ItemUpdate<'_>,
    seq: u64,
    offset: u64,
    frames: &mut FrameBuilder,
) -> SharedFrame {
    let frame = match topic.kind {
        Kind::Raw => {
            frames.build(Opcode::Binary, |out| protocol::raw_keyed(out, update.item, seq, offset, update.tail))
        }
        Kind::Room | Kind::Inbox | Kind::Everyone => frames.build(Opcode::Text, |out| {
            protocol::keyed_head(out, &topic.name, update.item, seq, offset);
            out.extend_from_slice(update.tail);
        }),
    };
    frame.into()
}

/// Removals that no publisher asked for.
fn removals(kind: Kind, items: &[ArcStr], unix_ms: u64) -> ItemUpdates {
    let mut updates = ItemUpdates::default();
    updates.begin(CommandKind::Many);
    for item in items {
        updates.push(item, None, ItemState::Removed, |out| match kind {
            Kind::Raw => {}
            Kind::Room | Kind::Inbox | Kind::Everyone => protocol::keyed_tail(out, None, Body::Removal, unix_ms),
        });
    }
    updates
}

impl ItemsMail {
    /// Bytes that it takes, of which the frames are shared.
    pub(in crate::router) fn bytes(&self) -> usize {
        let of = |update: &Applied| size_of::<Applied>() + update.frame.plain().len();
        self.applied.iter().map(of).sum()
    }
}

impl ItemsRefused {
    /// The publisher is told.
    pub(in crate::router) fn answer(&self, sink: &mut impl Sink) {
        let ItemsRefused { to, id, room, error } = self;
        sink.answer(conn_of(*to), Answer::Keyed(KeyedAnswer::Refused { id: id.as_deref(), room, error: *error }));
    }
}

impl Keyed {
    /// A reactor has no member of a room any more: it has no mirror either.
    pub(in crate::router) fn forget_mirror(&mut self, index: TopicIndex, reactor: ReactorId) {
        if let Some(source) = self.rooms.get_mut(&index).and_then(|room| room.source.as_deref_mut()) {
            source.mirrors.retain(|mirror| *mirror != reactor);
        }
    }

    /// Items of a room that changed behind an offset and have a value, in the order of their last change, as many as make a
    /// page: where the room is, their messages, and behind which offset the next page begins. `None` where nothing is known of
    /// the room.
    pub(in crate::router) fn page(&self, index: TopicIndex, after: u64, limit: usize) -> Option<ItemsPage> {
        let items = &self.rooms.get(&index)?.items;
        let present = items.changed(after, u64::MAX).map(|(_, item)| item);
        let mut present = present.filter(|item| item.state == ItemState::Present).peekable();
        let (mut frames, mut bytes, mut last) = (Vec::new(), 0, after);
        while let Some(item) = present.peek() {
            bytes += item.frame.plain().len();
            if frames.len() == limit || (bytes > HISTORY_PAGE_BYTES_MAX && !frames.is_empty()) {
                break;
            }
            last = item.offset;
            frames.extend(present.next().map(|item| item.frame.clone()));
        }
        let next = present.peek().map(|_| last);
        Some((items.position(), frames, next))
    }

    /// A room begins at home here.
    pub(super) fn begin(&mut self, index: TopicIndex, name: &str, position: StreamPosition, policy: KeyedPolicy) {
        let items = Items::new(position, self.seed);
        let mut room = KeyedRoom::new(index, name, items, policy);
        room.source = Some(Box::default());
        self.rooms.insert(index, Box::new(room));
    }

    /// When a room has something to do next is noted.
    pub(in crate::router) fn note_chore(&mut self, index: TopicIndex) {
        let Keyed { rooms, schedule, .. } = self;
        if let Some(room) = rooms.get_mut(&index) {
            let at = room.next_chore_at();
            schedule.note_chore(index, &mut room.chore, at);
        }
    }
}

impl HeldSum {
    pub(super) fn change(&mut self, before: HeldSum, after: HeldSum) {
        self.items = self.items + after.items - before.items;
        self.bytes = self.bytes + after.bytes - before.bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::router::topic::Topics;

    #[test]
    fn a_version_counts_until_the_whole_command_is_placed() {
        let policy = KeyedPolicy {
            items_max: 2,
            bytes_max: 1 << 20,
            ttl_ms: None,
            removed_ttl_ms: 60_000,
            stale_after_ms: None,
        };
        let items = Items::new(StreamPosition { epoch: "e".into(), offset: 0 }, 7);
        let mut room = KeyedRoom::new(TopicIndex(0), "px", items, policy);
        let topic = Topics::new(7, 1).hashed(TopicRef { kind: Kind::Room, name: "px" }).to_key();
        let place = |room: &mut KeyedRoom, list: &[(&str, i64, ItemState)]| {
            let mut updates = ItemUpdates::default();
            updates.begin(CommandKind::Many);
            for (item, version, state) in list {
                updates.push(item, Some(*version), *state, |_| {});
            }
            let (mut frames, mut schedule) = (FrameBuilder::default(), Schedule::new(ReactorId(0)));
            place(room, &topic, &updates, None, &mut frames, &mut schedule).1
        };
        let (gone, there) = (ItemState::Removed, ItemState::Present);
        place(&mut room, &[("a", 5, gone), ("b", 5, gone)]);
        // One removal more than are remembered: it makes no room for what was not looked for.
        assert_eq!(place(&mut room, &[("c", 5, gone), ("a", 5, there)]), [1]);
        assert_eq!((room.items.present(), room.items.forgotten_to()), (0, 1), "then the oldest is forgotten");
        assert_eq!(place(&mut room, &[("a", 5, there)]), [0; 0]);
    }
}
