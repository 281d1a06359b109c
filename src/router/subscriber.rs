//! What each connection of this reactor is a member of.

use std::sync::Arc;

use smallvec::SmallVec;

use super::history::Place;
use super::topic::TopicIndex;
use crate::ids::{ConnId, Slot};

/// Not (yet, or any more) among a topic's members.
pub(super) const NO_PLACE: u32 = u32::MAX;

/// A connection's subscription to one topic.
#[derive(Clone, Copy, Debug)]
pub(super) struct Subscription {
    pub(super) topic: TopicIndex,
    /// Its place among the topic's members, or [`NO_PLACE`] until the home has confirmed.
    pub(super) place: u32,
    /// Twice the joins and leaves the home has not confirmed, and one where a membership is wanted: in one number,
    /// for there are many subscriptions.
    asked: u32,
}

impl Subscription {
    /// A first join, not confirmed yet.
    pub(super) fn joining(topic: TopicIndex) -> Subscription {
        let mut subscription = Subscription { topic, place: NO_PLACE, asked: 0 };
        subscription.ask(true);
        subscription
    }

    /// What the client last asked for: a member, or gone as soon as the home confirms.
    pub(super) fn is_wanted(&self) -> bool {
        self.asked & 1 == 1
    }

    /// The client asks for a join or a leave; what it wanted before.
    pub(super) fn ask(&mut self, wanted: bool) -> bool {
        let before = self.is_wanted();
        self.asked = ((self.asked & !1) + 2) | u32::from(wanted);
        before
    }

    /// The home has confirmed one of them.
    pub(super) fn confirm(&mut self) {
        self.asked -= 2;
    }

    /// Whether nothing is wanted and nothing is awaited.
    pub(super) fn is_over(&self) -> bool {
        self.asked == 0
    }
}

#[derive(Debug)]
pub(super) struct Subscriber {
    pub(super) generation: u32,
    /// Its place among everyone, or [`NO_PLACE`].
    pub(super) everyone: u32,
    pub(super) user: Arc<str>,
    /// Where its inbox was when it was welcomed, if that keeps history.
    pub(super) inbox: Option<Box<Place>>,
    pub(super) subscriptions: SmallVec<[Subscription; 2]>,
}

impl Subscriber {
    pub(super) fn find(&mut self, topic: TopicIndex) -> Option<&mut Subscription> {
        self.subscriptions.iter_mut().find(|subscription| subscription.topic == topic)
    }
}

/// All subscribers, by slot.
#[derive(Debug, Default)]
pub(super) struct Subscribers {
    slots: Vec<Option<Subscriber>>,
}

impl Subscribers {
    pub(super) fn insert(&mut self, conn: ConnId, user: Arc<str>) {
        let at = conn.slot.0 as usize;
        if at >= self.slots.len() {
            self.slots.resize_with(at + 1, || None);
        }
        assert!(self.slots[at].is_none(), "a slot's connection was disconnected before the next");
        self.slots[at] = Some(Subscriber {
            generation: conn.generation,
            everyone: NO_PLACE,
            user,
            inbox: None,
            subscriptions: SmallVec::new(),
        });
    }

    pub(super) fn remove(&mut self, conn: ConnId) -> Option<Subscriber> {
        self.get(conn)?;
        self.slots[conn.slot.0 as usize].take()
    }

    /// The subscriber, if this very connection is still there.
    #[inline]
    pub(super) fn get(&self, conn: ConnId) -> Option<&Subscriber> {
        self.slots.get(conn.slot.0 as usize)?.as_ref().filter(|subscriber| subscriber.generation == conn.generation)
    }

    #[inline]
    pub(super) fn get_mut(&mut self, conn: ConnId) -> Option<&mut Subscriber> {
        self.slots.get_mut(conn.slot.0 as usize)?.as_mut().filter(|subscriber| subscriber.generation == conn.generation)
    }

    /// Whoever is in this slot; a topic's member always is.
    pub(super) fn at(&mut self, slot: Slot) -> &mut Subscriber {
        self.slots[slot.0 as usize].as_mut().expect("a member's slot is taken")
    }

    #[cfg(any(test, debug_assertions))]
    pub(super) fn iter(&self) -> impl Iterator<Item = (Slot, &Subscriber)> {
        self.slots.iter().enumerate().filter_map(|(at, slot)| Some((Slot(at as u32), slot.as_ref()?)))
    }
}
