//! What the router does where the subscriber of a keyed room is: it joins, asks for other terms, and leaves.

use std::sync::Arc;

use super::answer::KeyedAnswer;
use super::at_home::ItemsMail;
use super::cohort::Terms;
use super::items::{Items, ItemsCopy};
use super::lag::{Entering, Held, HeldItems, Promised, Tune};
use super::room::KeyedRoom;
use super::{ItemFilter, Keyed};
use crate::compress::SharedFrame;
use crate::frame::split_frame;
use crate::ids::{ConnId, Slot};
use crate::limits::TUNES_WAITING_MAX;
use crate::protocol::{self, Mode};
use crate::router::batch::Batch;
use crate::router::history::StreamPosition;
use crate::router::mail::{HomeMail, JoinReply, Membership, RecoverFrom};
use crate::router::policy::KeyedPolicy;
use crate::router::retention::Recovery;
use crate::router::slice::Slice;
use crate::router::topic::{Kind, TopicIndex, TopicKey, TopicRef};
use crate::router::{Answer, Router, Sink};

/// How a connection wants to be a member of a keyed room.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subscribe {
    /// What it is to get.
    pub terms: Terms,
    /// Whether the current values come first; by default in [`Mode::Latest`].
    pub snapshot: Option<bool>,
}

/// What a keyed room's home tells a reactor with a join.
#[derive(Debug)]
pub(in crate::router) struct KeyedJoin {
    /// The items, where the reactor has no mirror of them.
    pub(in crate::router) copy: Option<Arc<ItemsCopy>>,
    pub(in crate::router) policy: KeyedPolicy,
    pub(in crate::router) is_stale: bool,
}

/// A command for other terms, to the room's home and back: so it comes behind the join.
#[derive(Debug)]
pub(in crate::router) struct TuneOf {
    pub(in crate::router) topic: TopicKey,
    pub(in crate::router) member: ConnId,
    pub(in crate::router) tune: Tune,
}

/// A confirmed join of a keyed room.
pub(in crate::router) struct Entrance<'a> {
    pub(in crate::router) index: TopicIndex,
    pub(in crate::router) member: ConnId,
    pub(in crate::router) membership: Membership,
    pub(in crate::router) reply: &'a JoinReply,
    /// What the room's history has for it.
    pub(in crate::router) recovery: Recovery,
}

/// What is said of a join in `joined`, where that is not said later.
struct Entered {
    position: StreamPosition,
    recovered: Option<bool>,
    interval_ms: Option<u32>,
}

impl KeyedJoin {
    /// Bytes that it takes, those of frames not counted.
    pub(in crate::router) fn bytes(&self) -> usize {
        self.copy.as_ref().map_or(0, |copy| copy.bytes())
    }
}

impl Router {
    /// Asks for other terms in a keyed room; `false` where the connection is no member.
    pub fn tune(&mut self, member: ConnId, room: &str, tune: Tune, sink: &mut impl Sink) -> bool {
        let topic = self.topics.hashed(TopicRef { kind: Kind::Room, name: room });
        if !self.members.is_member(&self.topics, member, topic) {
            return false;
        }
        let tune = TuneOf { topic: topic.to_key(), member, tune };
        self.send_home(HomeMail::Tune(Box::new(tune)), sink);
        true
    }

    /// Bytes of the items that a connection has listed in all its keyed rooms but one.
    pub fn items_listed_bytes(&self, conn: ConnId, but: &str) -> usize {
        let Some(subscriber) = self.members.get(conn) else { return 0 };
        let bytes = |topic: TopicIndex| match *self.topics.get(topic).key.name == *but {
            true => 0,
            false => self.keyed.listed_bytes(topic, conn),
        };
        subscriber.subscriptions.iter().map(|subscription| bytes(subscription.topic)).sum()
    }

    /// A keyed room's items come to this reactor, or come anew.
    pub(in crate::router) fn mirror(&mut self, index: TopicIndex, keyed: &KeyedJoin) {
        let KeyedJoin { copy, policy, is_stale } = keyed;
        if let Some(copy) = copy {
            let TopicKey { kind, name, .. } = self.topics.get(index).key.clone();
            self.keyed.mirror(index, &name, copy, *policy);
            match (self.keyed.rooms.get_mut(&index), kind) {
                (Some(room), Kind::Raw) => room.set_freshness_silently(*is_stale),
                (Some(room), Kind::Room | Kind::Inbox | Kind::Everyone) => room.is_stale = *is_stale,
                (None, _) => {}
            }
            self.keyed.note_chore(index);
        }
    }

    /// The home of a keyed room has confirmed a join.
    pub(in crate::router) fn joined_keyed(&mut self, entrance: Entrance<'_>, sink: &mut impl Sink) {
        let Entrance { index, member, reply, .. } = entrance;
        let topic = self.topics.get(index).key.clone();
        if topic.kind == Kind::Raw {
            sink.answer(member, Answer::Connected { inbox: None });
        }
        let Some(entered) = self.enter_keyed(entrance, sink) else { return };
        let Entered { position, recovered, interval_ms } = entered;
        let in_epoch = position.in_epoch();
        let joined = |id| {
            let position = in_epoch;
            Answer::Keyed(KeyedAnswer::Joined { id, room: &topic.name, position, recovered, interval_ms })
        };
        match reply {
            JoinReply::Silent => {}
            JoinReply::Raw { .. } => {
                let recovered = recovered == Some(true);
                let end = KeyedAnswer::SnapshotEnd { position: in_epoch, recovered };
                sink.answer(member, Answer::Keyed(end));
            }
            JoinReply::Joined { id, .. } => sink.answer(member, joined(id.as_deref())),
            JoinReply::Many(many) => {
                sink.answer(member, joined(Some(&many.id)));
                if many.answered() && !many.has_failed() {
                    sink.answer(member, Answer::Acked { id: &many.id, position: None });
                }
            }
        }
        if topic.kind == Kind::Room && self.keyed.is_stale(index) {
            let offset = position.offset;
            let told = KeyedAnswer::Freshness { room: &topic.name, offset, is_stale: true };
            sink.answer(member, Answer::Keyed(told));
        }
    }

    /// Puts a new member where it is to stand. What is said of it now; `None` where it is told when it has been sent what it
    /// wants first.
    fn enter_keyed(&mut self, entrance: Entrance<'_>, sink: &mut impl Sink) -> Option<Entered> {
        let Entrance { index, member, membership, reply, recovery } = entrance;
        let room = self.keyed.rooms.get(&index).expect("a keyed room is there with its first member");
        let position = room.items.position();
        if membership == Membership::Unchanged || self.members.is_listed(member, index) {
            let interval_ms = room.interval_ms(member);
            return Some(Entered { position, recovered: None, interval_ms });
        }
        let Subscribe { terms, snapshot } = reply.subscribe().cloned().unwrap_or_default();
        let keeps_history = recovery.position.is_some();
        let (held, recovered) = match reply.recover_from() {
            Some(RecoverFrom::Since { epoch, offset }) if !keeps_history || terms.mode == Mode::Latest => {
                match room.items.knows_since(epoch, *offset) {
                    true => (all_of(*offset), Some(true)),
                    false => (Held::nothing(position.offset), Some(false)),
                }
            }
            Some(RecoverFrom::Since { .. } | RecoverFrom::Last(_)) => (all_of(position.offset), recovery.recovered),
            None if snapshot.unwrap_or(terms.mode == Mode::Latest) => (Held::nothing(position.offset), None),
            None => (all_of(position.offset), None),
        };
        match terms.mode {
            Mode::Latest => {
                let answer = match reply {
                    JoinReply::Raw { .. } => Promised::Raw { recovered: recovered == Some(true) },
                    JoinReply::Silent | JoinReply::Joined { .. } | JoinReply::Many(_) => {
                        Promised::Joined { id: reply.id().map(Into::into), recovered }
                    }
                };
                self.enter_rounds(index, member, terms, held, answer, sink);
                None
            }
            Mode::All => {
                if let Some(slice) = recovery.slice {
                    self.batches.seal(self.topics.get_mut(index), &self.members, sink);
                    sink.recover(member, self.wanted_of(slice, &terms.filter));
                }
                self.send_lacking(index, member, &terms.filter, &held, sink);
                self.stand_among_all(index, member, terms, sink);
                Some(Entered { position, recovered, interval_ms: None })
            }
        }
    }

    /// Of messages of a history, those of items that are wanted.
    fn wanted_of(&self, slice: Slice, wanted: &ItemFilter) -> Slice {
        if *wanted == ItemFilter::All {
            return slice;
        }
        let is_wanted = |frame: &&SharedFrame| {
            let (_, message) = split_frame(frame.plain());
            protocol::keyed::item_of(message).is_some_and(|item| wanted.wants(&item))
        };
        self.retention.slice_of(slice.frames().iter().filter(is_wanted).cloned().collect())
    }

    /// A subscriber that gets every update is sent first what it lacks.
    fn send_lacking(
        &mut self,
        index: TopicIndex,
        member: ConnId,
        wanted: &ItemFilter,
        held: &Held,
        sink: &mut impl Sink,
    ) {
        let room = &self.keyed.rooms[&index];
        let lacking: Vec<SharedFrame> = room.lacking(wanted, held).map(|item| item.frame.clone()).collect();
        if !lacking.is_empty() {
            sink.recover(member, self.retention.slice_of(lacking));
        }
    }

    /// A subscriber gets rounds from now on; before that what it lacks, and then the answer.
    fn enter_rounds(
        &mut self,
        index: TopicIndex,
        member: ConnId,
        terms: Terms,
        held: Held,
        answer: Promised,
        sink: &mut impl Sink,
    ) {
        let since = held.cursor(&terms.filter);
        self.members.enlist_apart(member, index);
        let Keyed { rooms, schedule, .. } = &mut self.keyed;
        let room = rooms.get_mut(&index).expect("it is there");
        let entering = Entering::new(answer, held, room.items.last_offset());
        room.enter(member, terms, since, Some(entering), schedule, sink);
    }

    /// A subscriber gets every update that it wants from now on.
    fn stand_among_all(&mut self, index: TopicIndex, member: ConnId, terms: Terms, sink: &mut impl Sink) {
        if terms.is_plain() {
            self.batches.seal(self.topics.get_mut(index), &self.members, sink);
            return self.members.enlist(&mut self.topics, member, index);
        }
        self.members.enlist_apart(member, index);
        let Keyed { rooms, schedule, .. } = &mut self.keyed;
        let room = rooms.get_mut(&index).expect("it is there");
        let since = room.items.last_offset();
        room.enter(member, terms, since, None, schedule, sink);
    }

    /// A command for other terms is back from the room's home.
    pub(in crate::router) fn tuned(&mut self, tuned: TuneOf, sink: &mut impl Sink) {
        let TuneOf { topic, member, tune } = tuned;
        let found = self.topics.find(topic.hashed());
        let index = found.filter(|&index| self.keyed.has(index) && self.members.is_listed(member, index));
        match index {
            Some(index) => self.change_terms(index, member, tune, sink),
            None => {
                sink.answer(member, Answer::Keyed(KeyedAnswer::NotJoined { id: tune.id.as_deref(), room: &topic.name }))
            }
        }
    }

    pub(super) fn change_terms(&mut self, index: TopicIndex, member: ConnId, tune: Tune, sink: &mut impl Sink) {
        let room = self.keyed.rooms.get_mut(&index).expect("it is there");
        if let Some(entering) = room.entering_mut(member) {
            match entering.tunes.len() < TUNES_WAITING_MAX {
                true => entering.tunes.push(tune),
                false => {
                    let room = Some(&*self.topics.get(index).key.name);
                    sink.answer(member, Answer::Unavailable { id: tune.id.as_deref(), room });
                }
            }
            return;
        }
        let (is_stale, owed) = (room.is_stale, room.take_owed(member));
        if let Some(offset) = owed.freshness_at {
            let room = &self.topics.get(index).key.name;
            sink.answer(member, Answer::Keyed(KeyedAnswer::Freshness { room, offset, is_stale }));
        }
        let plain = Terms::default();
        let (before, since) = room.terms(member).unwrap_or((&plain, room.items.last_offset()));
        let terms = tune.change.applied_to(before);
        let held = Held { since, items: HeldItems::Wanted(before.filter.clone()) };
        let (is_lost, position) = (owed.is_lost || since < room.items.forgotten_to(), room.items.position());
        self.stand_nowhere(index, member, sink);
        let held = match is_lost {
            // A removal was forgotten of which it was not told, or other items are there.
            true => {
                let topic = &self.topics.get(index).key;
                let gap = KeyedAnswer::Gap { room: &topic.name, position: position.in_epoch() };
                sink.answer(member, Answer::Keyed(gap));
                Held::nothing(position.offset)
            }
            false => held,
        };
        match terms.mode {
            Mode::Latest => self.enter_rounds(index, member, terms, held, Promised::Tuned { id: tune.id }, sink),
            Mode::All => {
                self.send_lacking(index, member, &terms.filter, &held, sink);
                self.stand_among_all(index, member, terms, sink);
                if let Some(id) = &tune.id {
                    let tuned = KeyedAnswer::Tuned { id, position: position.in_epoch(), interval_ms: None };
                    sink.answer(member, Answer::Keyed(tuned));
                }
            }
        }
    }

    /// A subscriber is taken out of where it stands. What was published so far goes to it.
    fn stand_nowhere(&mut self, index: TopicIndex, member: ConnId, sink: &mut impl Sink) {
        self.batches.seal(self.topics.get_mut(index), &self.members, sink);
        self.members.delist(&mut self.topics, member, index);
        let Keyed { rooms, schedule, .. } = &mut self.keyed;
        if let Some(room) = rooms.get_mut(&index) {
            room.leave(member.slot, schedule, sink);
        }
    }

    /// A member leaves a room: what it was promised is said first.
    pub(in crate::router) fn leave_keyed(&mut self, index: TopicIndex, member: ConnId, sink: &mut impl Sink) {
        let Keyed { rooms, schedule, .. } = &mut self.keyed;
        let Some(room) = rooms.get_mut(&index) else { return };
        let waiting = match room.take_entering(member) {
            Some(entering) => super::rounds::promise(room, member, entering, &self.topics, sink),
            None => Vec::new(),
        };
        for tune in waiting {
            let room = &self.topics.get(index).key.name;
            sink.answer(member, Answer::Keyed(KeyedAnswer::NotJoined { id: tune.id.as_deref(), room }));
        }
        room.leave(member.slot, schedule, sink);
    }

    /// Updates of a room's home, for the mirror here.
    pub(in crate::router) fn mirrored(&mut self, topic: &TopicKey, mail: &ItemsMail, sink: &mut impl Sink) {
        let Some(index) = self.topics.find(topic.hashed()) else { return };
        let Keyed { rooms, schedule, .. } = &mut self.keyed;
        let Some(room) = rooms.get_mut(&index) else { return };
        schedule.published_at = mail.published_at;
        for update in &mail.applied {
            room.apply(update, mail.exclude, schedule);
        }
        let before = self.batches.deliver_as_of(mail.published_at);
        self.deliver_items(index, &mail.applied, mail.exclude, sink);
        self.batches.deliver_as_of(before);
        self.keyed.note_chore(index);
    }
}

/// Whoever is to be sent nothing that is there.
fn all_of(offset: u64) -> Held {
    Held { since: offset, items: HeldItems::Wanted(ItemFilter::All) }
}

impl Keyed {
    /// Whether a topic is a keyed room that is known here.
    #[inline]
    pub(in crate::router) fn has(&self, index: TopicIndex) -> bool {
        !self.rooms.is_empty() && self.rooms.contains_key(&index)
    }

    fn mirror(&mut self, index: TopicIndex, name: &str, copy: &ItemsCopy, policy: KeyedPolicy) {
        let items = Items::of_copy(copy, self.seed, self.schedule.now);
        let Keyed { rooms, schedule, .. } = self;
        match rooms.get_mut(&index) {
            Some(room) => room.replace_items(items, schedule),
            None => {
                rooms.insert(index, Box::new(KeyedRoom::new(index, name, items, policy)));
            }
        }
    }

    /// One frame that is no update goes to the subscribers that are no plain members. For who gets rounds, and takes none now,
    /// it does not wait: nothing of this room makes a queue for it.
    pub(in crate::router) fn deliver_apart(&mut self, index: TopicIndex, frame: &[u8], sink: &mut impl Sink) {
        let slots = self.rooms.get(&index).map(|room| room.slots_that_take(sink));
        self.deliver_to(index, frame, &slots.unwrap_or_default(), sink);
    }

    /// What subscribers were sent says nothing of the items any more: who is not told of it by a frame, since its socket is
    /// full, is told later.
    pub(in crate::router) fn lose_stalled(&mut self, index: TopicIndex, sink: &mut impl Sink) {
        let Keyed { rooms, schedule, .. } = self;
        if let Some(room) = rooms.get_mut(&index) {
            room.lose_stalled(schedule, sink);
        }
    }

    /// Who is no plain member is told whether nothing is published, each with its own position: it has not been sent what is
    /// behind that.
    pub(in crate::router) fn tell_freshness_apart(
        &mut self,
        index: TopicIndex,
        name: &str,
        is_stale: bool,
        sink: &mut impl Sink,
    ) {
        let Keyed { rooms, schedule, .. } = self;
        let Some(room) = rooms.get_mut(&index) else { return };
        for (member, offset) in room.set_freshness(is_stale, schedule, sink) {
            sink.answer(member, Answer::Keyed(KeyedAnswer::Freshness { room: name, offset, is_stale }));
        }
    }

    /// One frame that is no update goes to those of them who get each update that they want.
    pub(in crate::router) fn deliver_to_each(&mut self, index: TopicIndex, frame: &[u8], sink: &mut impl Sink) {
        let slots = self.rooms.get(&index).map(|room| room.slots_of_each());
        self.deliver_to(index, frame, &slots.unwrap_or_default(), sink);
    }

    fn deliver_to(&mut self, index: TopicIndex, frame: &[u8], slots: &[Slot], sink: &mut impl Sink) {
        let Some(room) = self.rooms.get_mut(&index).filter(|_| !slots.is_empty()) else { return };
        room.seal_all(sink);
        let mut batch = Batch::joined(Vec::new(), self.schedule.published_at);
        batch.push(frame, None);
        sink.deliver(batch, slots);
    }

    fn listed_bytes(&self, index: TopicIndex, conn: ConnId) -> usize {
        let room = self.rooms.get(&index);
        room.and_then(|room| room.terms(conn)).map_or(0, |(terms, _)| terms.filter.bytes())
    }

    /// Whether members of a room were told that nothing is published any more.
    fn is_stale(&self, index: TopicIndex) -> bool {
        self.rooms.get(&index).is_some_and(|room| room.is_stale)
    }

    /// A subscriber of a room is gone.
    pub(in crate::router) fn leave(&mut self, index: TopicIndex, slot: Slot, sink: &mut impl Sink) {
        let Keyed { rooms, schedule, .. } = self;
        if let Some(room) = rooms.get_mut(&index) {
            room.leave(slot, schedule, sink);
        }
    }

    /// Forgets a room, which has no subscribers here.
    pub(in crate::router) fn drop_room(&mut self, index: TopicIndex) {
        let Keyed { rooms, schedule, held, .. } = self;
        let Some(mut room) = rooms.remove(&index) else { return };
        schedule.note_chore(index, &mut room.chore, None);
        if room.source.is_some() {
            held.change(room.held(), super::HeldSum::default());
        }
    }
}
