//! Membership, on the side of the reactor that has the connection: what is wanted, what the home has confirmed, and the
//! dense lists that fan-out walks.
//!
//! A [`Subscriber`] and what it asked for is what it is. The lists, the indices into them and the counts of subscriptions
//! are built again from that.

use arcstr::ArcStr;
use slab::Slab;
use smallvec::SmallVec;

use super::JoinError;
use super::history::StreamPosition;
use super::mail::{Membership, RecoverFrom};
use super::topic::{HashedTopic, Kind, Topic, TopicIndex, Topics};
use crate::growth::Grow;
use crate::ids::{ConnId, Slot};

/// Not (yet, or any more) among a topic's members.
const NOT_LISTED: u32 = u32::MAX;

/// A member that stands in no list of the topic's: a keyed room has it.
const LISTED_APART: u32 = u32::MAX - 1;

/// The slots of a topic's members, dense, in no order. Most topics have one member on a reactor, which needs no list.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum MemberList {
    Empty,
    One(Slot),
    /// In this reactor's lists.
    Listed(u32),
}

/// A connection's subscription to one topic.
#[derive(Clone, Copy, Debug)]
pub(super) struct Subscription {
    pub(super) topic: TopicIndex,
    /// Its index in the topic's list of members, [`NOT_LISTED`] until the home has confirmed, or [`LISTED_APART`].
    member_index: u32,
    /// Twice the joins and leaves the home has not confirmed, and one where a membership is wanted: in one number,
    /// for there are many subscriptions.
    asked: u32,
}

impl Subscription {
    /// What the client last asked for: a member, or gone as soon as the home confirms.
    pub(super) fn is_wanted(&self) -> bool {
        self.asked & 1 == 1
    }

    /// The client asks for a join; whether it was no member before.
    fn ask_join(&mut self) -> Membership {
        Membership::changed_if(!self.ask(1))
    }

    /// The client asks for a leave; whether it was a member before.
    pub(super) fn ask_leave(&mut self) -> Membership {
        Membership::changed_if(self.ask(0))
    }

    fn ask(&mut self, wanted: u32) -> bool {
        let before = self.is_wanted();
        self.asked = ((self.asked & !1) + 2) | wanted;
        before
    }

    /// The home has confirmed one of them.
    pub(super) fn confirm(&mut self) {
        self.asked -= 2;
    }

    /// Whether nothing is wanted and nothing is awaited.
    fn is_over(&self) -> bool {
        self.asked == 0
    }

    fn is_listed(&self) -> bool {
        self.member_index != NOT_LISTED
    }

    /// Its index in the topic's list of members, if it stands there.
    fn list_index(&self) -> Option<u32> {
        Some(self.member_index).filter(|&index| index < LISTED_APART)
    }
}

#[derive(Debug)]
pub(super) struct Subscriber {
    generation: u32,
    /// Its index among everyone, or [`NOT_LISTED`].
    everyone_index: u32,
    /// Where its inbox was when it was welcomed, if that keeps history.
    pub(super) welcomed_at: Option<Box<StreamPosition>>,
    pub(super) subscriptions: SmallVec<[Subscription; 2]>,
}

impl Subscriber {
    /// The user of a JSON connection, the room of a raw one: it is the name of its first topic, which a connection never
    /// leaves.
    #[inline]
    pub(super) fn name<'t>(&self, topics: &'t Topics) -> &'t ArcStr {
        &topics.get(self.subscriptions[0].topic).key.name
    }

    pub(super) fn find(&mut self, topic: TopicIndex) -> Option<&mut Subscription> {
        self.subscriptions.iter_mut().find(|subscription| subscription.topic == topic)
    }
}

/// The connections of a reactor as subscribers, and who is a member of what.
#[derive(Debug)]
pub(super) struct Members {
    /// By slot.
    subscribers: Vec<Option<Subscriber>>,
    lists: Slab<Vec<Slot>>,
    everyone: TopicIndex,
    rooms_max: usize,
    /// Joins that were asked for and not confirmed when their rooms were forbidden: they are refused when they are.
    /// Nearly always empty, and at most as many as there are subscriptions under way.
    forbidden: Vec<Forbidden>,
}

/// Of what a connection has asked of a topic, the next few confirmations are of before the topic was forbidden to it.
#[derive(Debug)]
struct Forbidden {
    conn: ConnId,
    topic: TopicIndex,
    left: u32,
}

impl Members {
    /// No connection yet. `everyone` is everyone's topic.
    /// Another bound holds from now on; who is in more rooms stays there.
    pub(super) fn set_rooms_max(&mut self, rooms_max: usize) {
        self.rooms_max = rooms_max;
    }

    pub(super) fn new(everyone: TopicIndex, rooms_max: usize) -> Members {
        Members { subscribers: Vec::new(), lists: Slab::new(), everyone, rooms_max, forbidden: Vec::new() }
    }

    /// A connection comes. The slot's earlier one is gone.
    pub(super) fn insert(&mut self, conn: ConnId) {
        let at = conn.slot.0 as usize;
        if at >= self.subscribers.len() {
            self.subscribers.make_room_for_one();
            self.subscribers.resize_with(at + 1, || None);
        }
        assert!(self.subscribers[at].is_none(), "a slot's connection was disconnected before the next");
        self.subscribers[at] = Some(Subscriber {
            generation: conn.generation,
            everyone_index: NOT_LISTED,
            welcomed_at: None,
            subscriptions: SmallVec::new(),
        });
    }

    /// The subscriber, if this very connection is still there.
    #[inline]
    pub(super) fn get(&self, conn: ConnId) -> Option<&Subscriber> {
        let subscriber = self.subscribers.get(conn.slot.0 as usize)?.as_ref();
        subscriber.filter(|subscriber| subscriber.generation == conn.generation)
    }

    #[inline]
    pub(super) fn get_mut(&mut self, conn: ConnId) -> Option<&mut Subscriber> {
        let subscriber = self.subscribers.get_mut(conn.slot.0 as usize)?.as_mut();
        subscriber.filter(|subscriber| subscriber.generation == conn.generation)
    }

    /// The connection's subscription to a topic, if both are there.
    pub(super) fn subscription(&mut self, conn: ConnId, topic: TopicIndex) -> Option<&mut Subscription> {
        self.get_mut(conn)?.find(topic)
    }

    /// The generation and the name of the connection in a slot. A member's slot is always taken.
    pub(super) fn at<'t>(&self, topics: &'t Topics, slot: Slot) -> (u32, &'t ArcStr) {
        let subscriber = self.subscribers[slot.0 as usize].as_ref().expect("a member's slot is taken");
        (subscriber.generation, subscriber.name(topics))
    }

    /// A topic's members here.
    #[inline]
    pub(super) fn of<'a>(&'a self, topic: &'a Topic) -> &'a [Slot] {
        match &topic.members {
            MemberList::Empty => &[],
            MemberList::One(slot) => std::slice::from_ref(slot),
            MemberList::Listed(list) => &self.lists[*list as usize],
        }
    }

    /// Whether these rooms may be joined. Where the client wants all behind a position it may be in none of them.
    ///
    /// # Errors
    /// [`JoinError`].
    pub(super) fn check_join(
        &mut self,
        topics: &Topics,
        conn: ConnId,
        rooms: &[HashedTopic<'_>],
        from: Option<&RecoverFrom>,
    ) -> Result<(), JoinError> {
        let is_member: SmallVec<[bool; 8]> = rooms.iter().map(|room| self.is_member(topics, conn, *room)).collect();
        // Before anything else, so that the answer does not depend on the order of the rooms.
        if matches!(from, Some(RecoverFrom::Since { .. })) && is_member.contains(&true) {
            return Err(JoinError::AlreadyJoined);
        }
        let mut added: SmallVec<[HashedTopic<'_>; 8]> = SmallVec::new();
        for (room, is_member) in rooms.iter().zip(is_member) {
            match is_member {
                true => {}
                false if added.contains(room) => {}
                false if added.len() == self.rooms_max => return Err(JoinError::TooManyRooms),
                false => added.push(*room),
            }
        }
        let wanted = |subscription: &&Subscription| {
            subscription.is_wanted() && topics.get(subscription.topic).key.kind == Kind::Room
        };
        let joined = self.get(conn).map_or(0, |subscriber| subscriber.subscriptions.iter().filter(wanted).count());
        match added.is_empty() || joined + added.len() <= self.rooms_max {
            true => Ok(()),
            false => Err(JoinError::TooManyRooms),
        }
    }

    /// The home has confirmed a join or a leave; whether it was asked for before the topic was forbidden. `None` where
    /// the connection is gone.
    pub(super) fn confirm(&mut self, conn: ConnId, topic: TopicIndex) -> Option<bool> {
        self.subscription(conn, topic)?.confirm();
        if self.forbidden.is_empty() {
            return Some(false);
        }
        let is_meant = |forbidden: &Forbidden| forbidden.conn == conn && forbidden.topic == topic;
        let Some(at) = self.forbidden.iter().position(is_meant) else { return Some(false) };
        self.forbidden[at].left -= 1;
        if self.forbidden[at].left == 0 {
            self.forbidden.swap_remove(at);
        }
        Some(true)
    }

    /// Of a connection's rooms, those that it wants and `allowed` does not name: it wants them no more, and what it has
    /// asked of them so far is refused.
    pub(super) fn forbid(
        &mut self,
        topics: &Topics,
        conn: ConnId,
        allowed: impl Fn(&str) -> bool,
    ) -> Vec<(TopicIndex, Membership)> {
        let Some(subscriber) = self.subscribers.get_mut(conn.slot.0 as usize).and_then(Option::as_mut) else {
            return Vec::new();
        };
        if subscriber.generation != conn.generation {
            return Vec::new();
        }
        let mut left = Vec::new();
        for subscription in &mut subscriber.subscriptions {
            let key = &topics.get(subscription.topic).key;
            if key.kind != Kind::Room || !subscription.is_wanted() || allowed(&key.name) {
                continue;
            }
            let (topic, awaited) = (subscription.topic, subscription.asked >> 1);
            let is_meant = |forbidden: &&mut Forbidden| forbidden.conn == conn && forbidden.topic == topic;
            match self.forbidden.iter_mut().find(is_meant) {
                Some(forbidden) => forbidden.left = awaited,
                None if awaited > 0 => self.forbidden.push(Forbidden { conn, topic, left: awaited }),
                None => {}
            }
            left.push((topic, subscription.ask_leave()));
        }
        left
    }

    /// The rooms that a connection is a member of.
    pub(super) fn rooms_of<'t>(&self, topics: &'t Topics, conn: ConnId) -> impl Iterator<Item = &'t ArcStr> {
        let subscriptions = self.get(conn).map_or(&[][..], |subscriber| &subscriber.subscriptions[..]);
        let listed = subscriptions.iter().filter(|subscription| subscription.is_listed() && subscription.is_wanted());
        let keys = listed.map(|subscription| &topics.get(subscription.topic).key);
        keys.filter(|key| key.kind == Kind::Room).map(|key| &key.name)
    }

    /// Whether the connection wants to be, or is, a member of a topic.
    pub(super) fn is_member(&mut self, topics: &Topics, conn: ConnId, topic: HashedTopic<'_>) -> bool {
        let topic = topics.find(topic);
        topic.and_then(|topic| self.subscription(conn, topic)).is_some_and(|subscription| subscription.is_wanted())
    }

    /// Notes that the connection wants a topic; whether it did not before. `None` where it is gone.
    pub(super) fn subscribe(&mut self, topics: &mut Topics, conn: ConnId, topic: TopicIndex) -> Option<Membership> {
        let subscriber = self.get_mut(conn)?;
        if let Some(subscription) = subscriber.find(topic) {
            return Some(subscription.ask_join());
        }
        let mut subscription = Subscription { topic, member_index: NOT_LISTED, asked: 0 };
        subscription.ask(1);
        subscriber.subscriptions.push(subscription);
        topics.get_mut(topic).subscriptions += 1;
        Some(Membership::Changed)
    }

    /// Forgets a subscription of which nothing is wanted and nothing awaited; whether it is forgotten.
    pub(super) fn forget_if_over(&mut self, topics: &mut Topics, conn: ConnId, topic: TopicIndex) -> bool {
        let Some(subscriber) = self.get_mut(conn) else { return false };
        if !subscriber.find(topic).is_some_and(|subscription| subscription.is_over()) {
            return false;
        }
        subscriber.subscriptions.retain(|subscription| subscription.topic != topic);
        topics.get_mut(topic).subscriptions -= 1;
        true
    }

    /// Whether the connection is in a topic's list.
    pub(super) fn is_listed(&mut self, conn: ConnId, topic: TopicIndex) -> bool {
        self.subscription(conn, topic).is_some_and(|subscription| subscription.is_listed())
    }

    /// Puts a subscriber of a topic into its list.
    pub(super) fn enlist(&mut self, topics: &mut Topics, conn: ConnId, topic: TopicIndex) {
        let member_index = self.push(topics.get_mut(topic), conn.slot);
        if let Some(subscription) = self.subscription(conn, topic) {
            subscription.member_index = member_index;
        }
    }

    /// Notes that a subscriber of a topic is a member that stands in no list.
    pub(super) fn enlist_apart(&mut self, conn: ConnId, topic: TopicIndex) {
        if let Some(subscription) = self.subscription(conn, topic) {
            assert!(subscription.list_index().is_none(), "a member stands in one place");
            subscription.member_index = LISTED_APART;
        }
    }

    /// Takes a subscriber of a topic out of its list, if it stands there.
    pub(super) fn delist(&mut self, topics: &mut Topics, conn: ConnId, topic: TopicIndex) {
        let Some(subscription) = self.subscription(conn, topic) else { return };
        let listed = subscription.list_index();
        subscription.member_index = NOT_LISTED;
        if let Some(member_index) = listed {
            self.swap_remove(topics, topic, member_index);
        }
    }

    /// Whether the connection is still to be put among everyone.
    pub(super) fn joins_everyone(&self, conn: ConnId) -> bool {
        self.get(conn).is_some_and(|subscriber| subscriber.everyone_index == NOT_LISTED)
    }

    /// Puts a connection among everyone.
    pub(super) fn enlist_in_everyone(&mut self, topics: &mut Topics, conn: ConnId) {
        let index = self.push(topics.get_mut(self.everyone), conn.slot);
        if let Some(subscriber) = self.get_mut(conn) {
            subscriber.everyone_index = index;
        }
    }

    /// In which lists a connection is.
    pub(super) fn listed_in(&self, conn: ConnId) -> SmallVec<[TopicIndex; 4]> {
        let Some(subscriber) = self.get(conn) else { return SmallVec::new() };
        let everyone = (subscriber.everyone_index != NOT_LISTED).then_some(self.everyone);
        let listed = subscriber.subscriptions.iter().filter(|subscription| subscription.is_listed());
        everyone.into_iter().chain(listed.map(|subscription| subscription.topic)).collect()
    }

    /// A connection goes: it is taken out of all lists, and what is left of it is what it had asked for.
    pub(super) fn remove(&mut self, topics: &mut Topics, conn: ConnId) -> Option<Subscriber> {
        self.get(conn)?;
        self.forbidden.retain(|forbidden| forbidden.conn != conn);
        let subscriber = self.subscribers[conn.slot.0 as usize].take()?;
        if subscriber.everyone_index != NOT_LISTED {
            self.swap_remove(topics, self.everyone, subscriber.everyone_index);
        }
        for subscription in &subscriber.subscriptions {
            if let Some(member_index) = subscription.list_index() {
                self.swap_remove(topics, subscription.topic, member_index);
            }
            topics.get_mut(subscription.topic).subscriptions -= 1;
        }
        Some(subscriber)
    }

    /// The index of the new member.
    fn push(&mut self, topic: &mut Topic, slot: Slot) -> u32 {
        match topic.members {
            MemberList::Empty => {
                topic.members = MemberList::One(slot);
                0
            }
            MemberList::One(first) => {
                topic.members = MemberList::Listed(self.lists.insert(vec![first, slot]) as u32);
                1
            }
            MemberList::Listed(list) => {
                let list = &mut self.lists[list as usize];
                list.push(slot);
                list.len() as u32 - 1
            }
        }
    }

    /// Takes a member out; the last one gets its index.
    fn swap_remove(&mut self, topics: &mut Topics, index: TopicIndex, member_index: u32) {
        let topic = topics.get_mut(index);
        let MemberList::Listed(at) = topic.members else {
            assert!(topic.members != MemberList::Empty && member_index == 0, "who is taken out is in");
            topic.members = MemberList::Empty;
            return;
        };
        let list = &mut self.lists[at as usize];
        list.swap_remove(member_index as usize);
        if let Some(&moved) = list.get(member_index as usize) {
            let subscriber = self.subscribers[moved.0 as usize].as_mut().expect("a member's slot is taken");
            match index == self.everyone {
                true => subscriber.everyone_index = member_index,
                false => subscriber.find(index).expect("a member has a subscription").member_index = member_index,
            }
        } else if list.is_empty() {
            self.lists.remove(at as usize);
            topic.members = MemberList::Empty;
        }
    }
}

#[cfg(any(test, debug_assertions))]
impl Members {
    /// The lists, the indices into them and the counts are built again, for topics with other indices than before.
    pub(super) fn rebuild(&mut self, topics: &mut Topics, renamed: impl Fn(TopicIndex) -> TopicIndex) {
        let all: Vec<TopicIndex> = topics.iter().map(|(index, _)| index).collect();
        for index in all {
            let topic = topics.get_mut(index);
            (topic.members, topic.subscriptions) = (MemberList::Empty, 0);
        }
        self.lists = Slab::new();
        self.everyone = renamed(self.everyone);
        for forbidden in &mut self.forbidden {
            forbidden.topic = renamed(forbidden.topic);
        }
        topics.get_mut(self.everyone).subscriptions = 1;
        for slot in (0..self.subscribers.len()).rev() {
            let Some(mut subscriber) = self.subscribers[slot].take() else { continue };
            let slot = Slot(slot as u32);
            if subscriber.everyone_index != NOT_LISTED {
                subscriber.everyone_index = self.push(topics.get_mut(self.everyone), slot);
            }
            for subscription in &mut subscriber.subscriptions {
                subscription.topic = renamed(subscription.topic);
                let topic = topics.get_mut(subscription.topic);
                topic.subscriptions += 1;
                if subscription.list_index().is_some() {
                    subscription.member_index = self.push(topic, slot);
                }
            }
            self.subscribers[slot.0 as usize] = Some(subscriber);
        }
    }

    /// Checks lists, indices and counts against each other.
    pub(super) fn check(&self, topics: &Topics) {
        let taken = || self.subscribers.iter().enumerate().filter_map(|(at, slot)| Some((at as u32, slot.as_ref()?)));
        let mut lists = 0;
        for (slot, subscriber) in taken() {
            if subscriber.everyone_index != NOT_LISTED {
                assert_eq!(self.of(topics.get(self.everyone))[subscriber.everyone_index as usize], Slot(slot));
            }
            for subscription in &subscriber.subscriptions {
                let Some(member_index) = subscription.list_index() else { continue };
                let members = self.of(topics.get(subscription.topic));
                assert_eq!(members[member_index as usize], Slot(slot));
            }
        }
        for (index, topic) in topics.iter() {
            lists += usize::from(matches!(topic.members, MemberList::Listed(_)));
            let is_everyone = index == self.everyone;
            let (mut listed, mut all) = (0, u32::from(is_everyone));
            for (_, subscriber) in taken() {
                listed += usize::from(is_everyone && subscriber.everyone_index != NOT_LISTED);
                let mine = subscriber.subscriptions.iter().filter(|subscription| subscription.topic == index);
                for subscription in mine {
                    listed += usize::from(subscription.list_index().is_some());
                    all += 1;
                }
            }
            assert_eq!(listed, self.of(topic).len(), "members of {:?}", topic.key);
            assert_eq!(all, topic.subscriptions, "subscriptions of {:?}", topic.key);
        }
        assert_eq!(lists, self.lists.len(), "each list has a topic");
    }
}
