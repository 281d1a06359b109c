//! Membership, on the side of the reactor that has the connection: what is wanted, and what the home has confirmed.

use std::sync::Arc;

use super::histories::Recovery;
use super::history::Place;
use super::mail::{Ask, Content, Departure, Expulsion, Join, Joined, Leave, Left, Outcome};
use super::subscriber::{NO_PLACE, Subscriber, Subscription};
use super::topic::{Kind, TopicIndex, TopicKey, TopicRef};
use super::{Answer, JoinError, Router, Sink};
use crate::ids::ConnId;

impl Router {
    /// A connection that speaks JSON: it joins its user's inbox, and everyone once that is confirmed. Then it is
    /// told [`Answer::Connected`].
    pub fn connect(&mut self, conn: ConnId, user: &str, sink: &mut impl Sink) {
        let user: Arc<str> = user.into();
        self.subscribers.insert(conn, user.clone());
        self.subscribe(conn, TopicKey { kind: Kind::Inbox, name: user }, Ask::Silent, sink);
    }

    /// A member of a raw room, and of nothing else. It is told [`Answer::Connected`] when it is one.
    pub fn connect_raw(&mut self, conn: ConnId, room: &str, sink: &mut impl Sink) {
        let room: Arc<str> = room.into();
        self.subscribers.insert(conn, room.clone());
        self.subscribe(conn, TopicKey { kind: Kind::Raw, name: room }, Ask::Silent, sink);
    }

    /// The user of a JSON connection, the room of a raw one.
    pub fn name(&self, conn: ConnId) -> Option<&Arc<str>> {
        self.subscribers.get(conn).map(|subscriber| &subscriber.user)
    }

    /// The connection is gone, or about to be: it leaves everything at once. What was published so far still goes to
    /// it, so that its close frame comes behind it.
    pub fn disconnect(&mut self, conn: ConnId, sink: &mut impl Sink) {
        let Some(subscriber) = self.subscribers.remove(conn) else { return };
        if subscriber.everyone != NO_PLACE {
            self.seal(self.everyone, sink);
            self.take_from_members(self.everyone, subscriber.everyone);
        }
        for subscription in subscriber.subscriptions {
            if subscription.place != NO_PLACE {
                self.seal(subscription.topic, sink);
                self.take_from_members(subscription.topic, subscription.place);
            }
            let topic = self.topics.get_mut(subscription.topic);
            topic.subscriptions -= 1;
            let key = topic.key.clone();
            if subscription.is_wanted() {
                let user = subscriber.user.clone();
                let leave = Leave { topic: key.clone(), member: conn, user, counts: true, why: Departure::Gone };
                self.send_home(&key, Content::Leave(Box::new(leave)), sink);
            }
            self.drop_topic_if_unused(&key);
        }
    }

    /// Joins one room. `resumes` tells whether the client wants what came since a position.
    ///
    /// # Errors
    /// [`JoinError`]; nothing has changed then.
    pub fn join(
        &mut self,
        conn: ConnId,
        room: &str,
        ask: Ask,
        resumes: bool,
        sink: &mut impl Sink,
    ) -> Result<(), JoinError> {
        self.check_join(conn, &[room], resumes)?;
        self.subscribe(conn, TopicKey { kind: Kind::Room, name: room.into() }, ask, sink);
        Ok(())
    }

    /// Joins several rooms, or none of them. With [`Ask::Many`] an empty list is acked at once.
    ///
    /// # Errors
    /// [`JoinError`]; nothing has changed then.
    pub fn join_many(
        &mut self,
        conn: ConnId,
        rooms: &[impl AsRef<str>],
        ask: Ask,
        resumes: bool,
        sink: &mut impl Sink,
    ) -> Result<(), JoinError> {
        let rooms: Vec<&str> = rooms.iter().map(AsRef::as_ref).collect();
        self.check_join(conn, &rooms, resumes)?;
        if let (Ask::Many(many), []) = (&ask, &rooms[..]) {
            sink.answer(conn, Answer::Acked { id: &many.id, place: None });
        }
        for room in rooms {
            self.subscribe(conn, TopicKey { kind: Kind::Room, name: room.into() }, ask.clone(), sink);
        }
        Ok(())
    }

    /// Leaves a room; answered with an ack where there is an `id`: once what was asked for before is confirmed, at
    /// once if it was no member.
    pub fn leave(&mut self, conn: ConnId, room: &str, id: Option<&str>, sink: &mut impl Sink) {
        let room = TopicRef { kind: Kind::Room, name: room };
        let found = self.topics.find(self.topics.hasher().hash(room), room);
        let Some(subscriber) = self.subscribers.get_mut(conn) else { return };
        let user = subscriber.user.clone();
        let subscription = found.and_then(|topic| subscriber.find(topic));
        match (subscription, id) {
            (Some(subscription), _) => {
                let counts = subscription.ask(false);
                let key = self.topics.get(subscription.topic).key.clone();
                let why = Departure::Asked(id.map(Into::into));
                let leave = Leave { topic: key.clone(), member: conn, user, counts, why };
                self.send_home(&key, Content::Leave(Box::new(leave)), sink);
            }
            (None, Some(id)) => sink.answer(conn, Answer::Acked { id, place: None }),
            (None, None) => {}
        }
    }

    /// Whether the connection wants to be, or is, a member of a room.
    pub(super) fn is_member(&mut self, conn: ConnId, room: &str) -> bool {
        let room = TopicRef { kind: Kind::Room, name: room };
        let topic = self.topics.find(self.topics.hasher().hash(room), room);
        let subscriber = self.subscribers.get_mut(conn);
        topic
            .zip(subscriber)
            .and_then(|(topic, subscriber)| subscriber.find(topic))
            .is_some_and(|subscription| subscription.is_wanted())
    }

    /// What was published to the connection's inbox so far is handed out.
    pub(super) fn seal_inbox(&mut self, conn: ConnId, sink: &mut impl Sink) {
        let Some(subscriber) = self.subscribers.get(conn) else { return };
        let inbox = TopicRef { kind: Kind::Inbox, name: &subscriber.user };
        if let Some(index) = self.topics.find(self.topics.hasher().hash(inbox), inbox) {
            self.seal(index, sink);
        }
    }

    pub(super) fn check_join(&mut self, conn: ConnId, rooms: &[&str], resumes: bool) -> Result<(), JoinError> {
        // Before anything else, so that the answer does not depend on the order of the rooms.
        if resumes && rooms.iter().any(|name| self.is_member(conn, name)) {
            return Err(JoinError::AlreadyJoined);
        }
        let mut fresh: Vec<&str> = Vec::new();
        for &name in rooms {
            match self.is_member(conn, name) {
                true => {}
                false if fresh.contains(&name) => {}
                false if fresh.len() == self.rooms_max => return Err(JoinError::TooManyRooms),
                false => fresh.push(name),
            }
        }
        let wanted = |subscription: &&Subscription| {
            subscription.is_wanted() && self.topics.get(subscription.topic).key.kind == Kind::Room
        };
        let joined =
            self.subscribers.get(conn).map_or(0, |subscriber| subscriber.subscriptions.iter().filter(wanted).count());
        if !fresh.is_empty() && joined + fresh.len() > self.rooms_max {
            return Err(JoinError::TooManyRooms);
        }
        Ok(())
    }

    /// Notes what the connection wants and tells the topic's home.
    pub(super) fn subscribe(&mut self, conn: ConnId, key: TopicKey, ask: Ask, sink: &mut impl Sink) {
        let Some(subscriber) = self.subscribers.get_mut(conn) else { return };
        let hash = self.topics.hasher().hash(key.borrow());
        let index = self.topics.find_or_insert(hash, &key);
        let topic = self.topics.get_mut(index);
        let key = topic.key.clone();
        let fresh = match subscriber.find(index) {
            Some(subscription) => !subscription.ask(true),
            None => {
                topic.subscriptions += 1;
                subscriber.subscriptions.push(Subscription::joining(index));
                true
            }
        };
        let join = Join { topic: key.clone(), member: conn, user: subscriber.user.clone(), fresh, ask };
        self.send_home(&key, Content::Join(Box::new(join)), sink);
    }

    /// The home has confirmed a join.
    pub(super) fn joined(&mut self, joined: Joined, sink: &mut impl Sink) {
        let Joined { topic: key, member, fresh, ask, outcome } = joined;
        let Outcome::Member(Recovery { place, slice, recovered }) = outcome else {
            return self.join_refused(&key, member, fresh, &ask, sink);
        };
        let hash = self.topics.hasher().hash(key.borrow());
        let Some(index) = self.topics.find(hash, key.borrow()) else { return };
        let Some(subscription) = self.subscribers.get_mut(member).and_then(|subscriber| subscriber.find(index)) else {
            return;
        };
        subscription.confirm();
        if fresh && subscription.place == NO_PLACE {
            subscription.place = self.topics.get(index).members.len() as u32;
            self.seal(index, sink);
            self.topics.get_mut(index).members.push(member.slot);
        }
        if let Some(slice) = slice {
            // What was published before this join goes to its members of then, and what it wished for behind that.
            self.seal(index, sink);
            sink.recover(member, slice);
        }
        let in_epoch = place.as_ref().map(Place::in_epoch);
        match (key.kind, ask) {
            (Kind::Inbox, _) => {
                self.join_everyone(member, sink);
                sink.answer(member, Answer::Connected { inbox: in_epoch });
                if let (Some(place), Some(subscriber)) = (place, self.subscribers.get_mut(member)) {
                    subscriber.inbox = Some(Box::new(place));
                }
            }
            (Kind::Raw, _) => sink.answer(member, Answer::Connected { inbox: None }),
            (Kind::Room | Kind::Everyone, Ask::Silent) => {}
            (Kind::Room | Kind::Everyone, Ask::Joined { id, .. }) => {
                let answer = Answer::Joined { id: id.as_deref(), room: &key.name, place: in_epoch, recovered };
                sink.answer(member, answer);
            }
            (Kind::Room | Kind::Everyone, Ask::Many(many)) => {
                let id = &*many.id;
                let answer = Answer::Joined { id: Some(id), room: &key.name, place: in_epoch, recovered };
                sink.answer(member, answer);
                if many.answered() && !many.has_failed() {
                    sink.answer(member, Answer::Acked { id, place: None });
                }
            }
        }
    }

    /// The home could not let a connection in: it leaves again, if it is not about to anyway.
    fn join_refused(&mut self, key: &TopicKey, member: ConnId, fresh: bool, ask: &Ask, sink: &mut impl Sink) {
        let hash = self.topics.hasher().hash(key.borrow());
        let Some(index) = self.topics.find(hash, key.borrow()) else { return };
        let Some(subscriber) = self.subscribers.get_mut(member) else { return };
        let user = subscriber.user.clone();
        let Some(subscription) = subscriber.find(index) else { return };
        subscription.confirm();
        if fresh && subscription.is_wanted() {
            let counts = subscription.ask(false);
            let leave = Leave { topic: key.clone(), member, user, counts, why: Departure::Refused };
            self.send_home(key, Content::Leave(Box::new(leave)), sink);
        }
        let id = match ask {
            Ask::Silent => None,
            Ask::Joined { id, .. } => id.as_deref(),
            Ask::Many(many) => {
                // The rooms that could be joined are answered one by one; the command as a whole has failed once.
                many.answered();
                Some(&*many.id).filter(|_| many.fail())
            }
        };
        if !matches!(ask, Ask::Many(_)) || id.is_some() {
            sink.answer(member, Answer::Unavailable { id });
        }
    }

    pub(super) fn join_everyone(&mut self, member: ConnId, sink: &mut impl Sink) {
        self.seal(self.everyone, sink);
        let Some(subscriber) = self.subscribers.get_mut(member) else { return };
        if subscriber.everyone == NO_PLACE {
            let members = &mut self.topics.get_mut(self.everyone).members;
            subscriber.everyone = members.len() as u32;
            members.push(member.slot);
        }
    }

    /// The home has confirmed a leave.
    pub(super) fn left(&mut self, left: Left, sink: &mut impl Sink) {
        let Left { topic: key, member, counts, id, removed } = left;
        let hash = self.topics.hasher().hash(key.borrow());
        let Some(index) = self.topics.find(hash, key.borrow()) else { return };
        let Some(subscription) = self.subscribers.get_mut(member).and_then(|subscriber| subscriber.find(index)) else {
            return;
        };
        subscription.confirm();
        let over = subscription.is_over();
        let place = if counts { std::mem::replace(&mut subscription.place, NO_PLACE) } else { NO_PLACE };
        if place != NO_PLACE {
            self.seal(index, sink);
            self.take_from_members(index, place);
        }
        if over && let Some(subscriber) = self.subscribers.get_mut(member) {
            subscriber.subscriptions.retain(|subscription| subscription.topic != index);
            self.topics.get_mut(index).subscriptions -= 1;
            self.drop_topic_if_unused(&key);
        }
        if let Some(id) = id {
            sink.answer(member, Answer::Acked { id: &id, place: None });
        }
        if let Some(reason) = removed {
            sink.answer(member, Answer::Left { room: &key.name, reason: &reason });
        }
    }

    /// An operator's order for the members here.
    pub(super) fn expel(&mut self, expulsion: &Expulsion, sink: &mut impl Sink) {
        let Expulsion { topic: key, user, reason } = expulsion;
        let hash = self.topics.hasher().hash(key.borrow());
        let Some(index) = self.topics.find(hash, key.borrow()) else { return };
        for slot in self.topics.get(index).members.clone() {
            let subscriber = self.subscribers.at(slot);
            let member = ConnId { reactor: self.me, slot, generation: subscriber.generation };
            match key.kind {
                Kind::Inbox => sink.answer(member, Answer::Disconnected),
                Kind::Room | Kind::Raw | Kind::Everyone if subscriber.user == *user => {
                    let user = user.clone();
                    let Some(subscription) = subscriber.find(index).filter(|found| found.is_wanted()) else { continue };
                    let counts = subscription.ask(false);
                    let leave =
                        Leave { topic: key.clone(), member, user, counts, why: Departure::Removed(reason.clone()) };
                    self.send_home(key, Content::Leave(Box::new(leave)), sink);
                }
                Kind::Room | Kind::Raw | Kind::Everyone => {}
            }
        }
    }

    /// Takes the member at `place` out; the last one takes its place.
    pub(super) fn take_from_members(&mut self, index: TopicIndex, place: u32) {
        let everyone = self.everyone;
        let members = &mut self.topics.get_mut(index).members;
        members.swap_remove(place as usize);
        if let Some(&moved) = members.get(place as usize) {
            let subscriber = self.subscribers.at(moved);
            match index == everyone {
                true => subscriber.everyone = place,
                false => set_place(subscriber, index, place),
            }
        }
    }
}

fn set_place(subscriber: &mut Subscriber, topic: TopicIndex, place: u32) {
    let subscription = subscriber.find(topic).expect("a member has a subscription");
    subscription.place = place;
}
