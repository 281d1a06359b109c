//! What the front does where the connection is: it tells homes what a connection wants, and the connection what they say.

use arcstr::ArcStr;

use super::history::StreamPosition;
use super::keyed::Entrance;
use super::mail::{
    Departure, Expulsion, HomeMail, Join, Joined, Leave, Left, Membership, Outcome, RecoverFrom, Resumed,
};
use super::retention::Recovery;
use super::topic::{HashedTopic, Kind, TopicIndex, TopicKey, TopicRef};
use super::{Answer, JoinError, JoinReply, Router, Sink};
use crate::ids::{ConnId, Slot};

impl Router {
    /// A connection that speaks JSON: it joins its user's inbox, and everyone once that is confirmed. Then it is
    /// told [`Answer::Connected`].
    pub fn connect(&mut self, conn: ConnId, user: &str, sink: &mut impl Sink) {
        self.connect_to(conn, Kind::Inbox, user, JoinReply::Silent, sink);
    }

    /// A member of a raw room, and of nothing else. It is told [`Answer::Connected`] when it is one.
    pub fn connect_raw(&mut self, conn: ConnId, room: &str, reply: JoinReply, sink: &mut impl Sink) {
        self.connect_to(conn, Kind::Raw, room, reply, sink);
    }

    fn connect_to(&mut self, conn: ConnId, kind: Kind, name: &str, reply: JoinReply, sink: &mut impl Sink) {
        // A user's connections here share the name.
        let topic = self.shared_key(self.topics.hashed(TopicRef { kind, name }));
        self.members.insert(conn);
        self.subscribe(conn, topic.name.clone(), &topic, reply, sink);
    }

    /// The user of a JSON connection, the room of a raw one.
    pub fn name(&self, conn: ConnId) -> Option<&ArcStr> {
        self.members.get(conn).map(|subscriber| subscriber.name(&self.topics))
    }

    /// How many topics a connection leaves when it ends.
    pub fn topics_of(&self, conn: ConnId) -> usize {
        self.members.get(conn).map_or(0, |subscriber| subscriber.subscriptions.len())
    }

    /// The connection is gone, or about to be: it leaves everything at once. What was published so far still goes to
    /// it, so that its close frame comes behind it.
    pub fn disconnect(&mut self, conn: ConnId, sink: &mut impl Sink) {
        self.send_away(conn, 0, sink);
    }

    /// As [`Router::disconnect`], for a client that was told to come back within so many milliseconds.
    pub fn send_away(&mut self, conn: ConnId, back_ms: u32, sink: &mut impl Sink) {
        for index in self.members.listed_in(conn) {
            self.batches.seal(self.topics.get_mut(index), &self.members, sink);
            if self.keyed.has(index) {
                self.keyed.leave(index, conn.slot, sink);
            }
        }
        let Some(subscriber) = self.members.remove(&mut self.topics, conn) else { return };
        let name = subscriber.name(&self.topics).clone();
        for subscription in subscriber.subscriptions {
            let topic = self.topics.get(subscription.topic).key.clone();
            if subscription.is_wanted() {
                let (topic, user) = (topic.clone(), name.clone());
                let (membership, why) = (Membership::Changed, Departure::Gone { back_ms });
                self.send_leave(Leave { topic, member: conn, user, membership, why }, sink);
            }
            if let Some(index) = self.topics.find(topic.hashed()) {
                self.drop_if_unused(index);
            }
        }
    }

    /// Joins one room.
    ///
    /// # Errors
    /// [`JoinError`]; nothing has changed then.
    pub fn join(&mut self, conn: ConnId, room: &str, reply: JoinReply, sink: &mut impl Sink) -> Result<(), JoinError> {
        let room = self.topics.hashed(TopicRef { kind: Kind::Room, name: room });
        self.members.check_join(&self.topics, conn, &[room], reply.recover_from())?;
        self.join_room(conn, room, reply, sink);
        Ok(())
    }

    /// Joins several rooms, or none of them. With [`JoinReply::Many`] an empty list is acked at once.
    ///
    /// # Errors
    /// [`JoinError`]; nothing has changed then.
    pub fn join_many(
        &mut self,
        conn: ConnId,
        rooms: &[impl AsRef<str>],
        reply: JoinReply,
        sink: &mut impl Sink,
    ) -> Result<(), JoinError> {
        let rooms = self.hashed_rooms(rooms);
        self.members.check_join(&self.topics, conn, &rooms, reply.recover_from())?;
        if let (JoinReply::Many(many), []) = (&reply, &rooms[..]) {
            sink.answer(conn, Answer::Acked { id: &many.id, position: None });
        }
        for room in rooms {
            self.join_room(conn, room, reply.clone(), sink);
        }
        Ok(())
    }

    /// Whether these rooms may be joined as far as the connection's own are concerned, of which nothing is changed.
    ///
    /// # Errors
    /// [`JoinError`], as of [`Router::join_many`].
    pub fn check_join(
        &mut self,
        conn: ConnId,
        rooms: &[impl AsRef<str>],
        from: Option<&RecoverFrom>,
    ) -> Result<(), JoinError> {
        let rooms = self.hashed_rooms(rooms);
        self.members.check_join(&self.topics, conn, &rooms, from)
    }

    fn hashed_rooms<'r>(&self, rooms: &'r [impl AsRef<str>]) -> Vec<HashedTopic<'r>> {
        let hashed = |room: &'r _| self.topics.hashed(TopicRef { kind: Kind::Room, name: AsRef::<str>::as_ref(room) });
        rooms.iter().map(hashed).collect()
    }

    fn join_room(&mut self, conn: ConnId, room: HashedTopic<'_>, reply: JoinReply, sink: &mut impl Sink) {
        let topic = self.shared_key(room);
        let Some(user) = self.name(conn).cloned() else { return };
        self.subscribe(conn, user, &topic, reply, sink);
    }

    /// The topic's key, with the name that is here already, if there is one.
    fn shared_key(&self, topic: HashedTopic<'_>) -> TopicKey {
        match self.topics.find(topic) {
            Some(index) => self.topics.get(index).key.clone(),
            None => topic.to_key(),
        }
    }

    /// Leaves a room; answered with an ack where there is an `id`: once what was asked for before is confirmed, at
    /// once if it was no member.
    pub fn leave(&mut self, conn: ConnId, room: &str, id: Option<&str>, sink: &mut impl Sink) {
        let found = self.topics.find(self.topics.hashed(TopicRef { kind: Kind::Room, name: room }));
        let Some(subscriber) = self.members.get_mut(conn) else { return };
        let user = subscriber.name(&self.topics).clone();
        let subscription = found.and_then(|topic| subscriber.find(topic));
        match (subscription, id) {
            (Some(subscription), _) => {
                let membership = subscription.ask_leave();
                let topic = self.topics.get(subscription.topic).key.clone();
                let why = Departure::Asked(id.map(Into::into));
                self.send_leave(Leave { topic, member: conn, user, membership, why }, sink);
            }
            (None, Some(id)) => sink.answer(conn, Answer::Acked { id, position: None }),
            (None, None) => {}
        }
    }

    /// Whether the connection is a member of a room, or has asked to be.
    pub fn is_member(&mut self, conn: ConnId, room: &str) -> bool {
        let room = self.topics.hashed(TopicRef { kind: Kind::Room, name: room });
        self.members.is_member(&self.topics, conn, room)
    }

    /// A connection leaves every room that `allowed` does not name, and is told [`Answer::Left`] for this reason; a join
    /// that is not confirmed yet is answered [`Answer::Forbidden`] instead. Whether there was such a room: then
    /// [`Router::fence`] goes behind all that comes of it.
    pub fn forbid(
        &mut self,
        member: ConnId,
        allowed: impl Fn(&str) -> bool,
        reason: &str,
        sink: &mut impl Sink,
    ) -> bool {
        let forbidden = self.members.forbid(&self.topics, member, allowed);
        let Some(user) = self.name(member).cloned() else { return false };
        let was_there = !forbidden.is_empty();
        for (index, membership) in forbidden {
            let (topic, user) = (self.topics.get(index).key.clone(), user.clone());
            self.send_leave(Leave { topic, member, user, membership, why: Departure::Removed(reason.into()) }, sink);
        }
        was_there
    }

    fn send_leave(&mut self, leave: Leave, sink: &mut impl Sink) {
        self.send_home(HomeMail::Leave(Box::new(leave)), sink);
    }

    /// Notes what the connection wants and tells the topic's home.
    fn subscribe(&mut self, conn: ConnId, user: ArcStr, topic: &TopicKey, reply: JoinReply, sink: &mut impl Sink) {
        let index = self.topics.find_or_insert(topic);
        let Some(membership) = self.members.subscribe(&mut self.topics, conn, index) else { return };
        let join = Join { topic: topic.clone(), member: conn, user, membership, reply, is_checked: false };
        self.send_home(HomeMail::Join(Box::new(join)), sink);
    }

    /// The home has confirmed a join.
    pub(super) fn joined(&mut self, joined: Joined, sink: &mut impl Sink) {
        let Some(index) = self.topics.find(joined.topic.hashed()) else { return };
        // Whoever has asked may be gone; its reactor has a mirror from now on all the same, as the home knows.
        if let Some(keyed) = &joined.keyed {
            self.mirror(index, keyed);
        }
        let Some(is_forbidden) = self.members.confirm(joined.member, index) else { return };
        let Joined { topic, member, membership, reply, outcome, keyed } = joined;
        if is_forbidden {
            // It has been told to leave already.
            return forbid(member, &topic.name, &reply, sink);
        }
        let recovery = match outcome {
            Outcome::Member(recovery) => recovery,
            // A raw connection is in nothing else: it is told so and ends, and with that leaves.
            Outcome::Unavailable if topic.kind == Kind::Raw => return refuse(member, &topic.name, &reply, sink),
            Outcome::Unavailable => {
                let room = topic.name.clone();
                self.leave_refused(index, topic, member, membership, sink);
                return refuse(member, &room, &reply, sink);
            }
            // It is told so and ends, and with that leaves.
            Outcome::Full => return sink.answer(member, Answer::Full),
        };
        if keyed.is_some() {
            return self.joined_keyed(Entrance { index, member, membership, reply: &reply, recovery }, sink);
        }
        let Recovery { position, slice, recovered } = recovery;
        if membership == Membership::Changed && !self.members.is_listed(member, index) {
            self.batches.seal(self.topics.get_mut(index), &self.members, sink);
            self.members.enlist(&mut self.topics, member, index);
        }
        self.topics.get_mut(index).key.name = topic.name.clone();
        if let Some(slice) = slice {
            // What was published before this join goes to its members of then, and what it recovers behind that.
            self.batches.seal(self.topics.get_mut(index), &self.members, sink);
            sink.recover(member, slice);
        }
        let in_epoch = position.as_ref().map(StreamPosition::in_epoch);
        match (topic.kind, reply) {
            (Kind::Inbox, _) => {
                self.join_everyone(member, sink);
                sink.answer(member, Answer::Connected { inbox: in_epoch });
                if let (Some(position), Some(subscriber)) = (position, self.members.get_mut(member)) {
                    subscriber.welcomed_at = Some(Box::new(position));
                }
            }
            (Kind::Raw, _) => sink.answer(member, Answer::Connected { inbox: None }),
            (Kind::Room | Kind::Everyone, JoinReply::Silent | JoinReply::Raw { .. }) => {}
            (Kind::Room | Kind::Everyone, JoinReply::Joined { id, .. }) => {
                let answer = Answer::Joined { id: id.as_deref(), room: &topic.name, position: in_epoch, recovered };
                sink.answer(member, answer);
            }
            (Kind::Room | Kind::Everyone, JoinReply::Many(many)) => {
                let id = &*many.id;
                let answer = Answer::Joined { id: Some(id), room: &topic.name, position: in_epoch, recovered };
                sink.answer(member, answer);
                if many.answered() && !many.has_failed() {
                    sink.answer(member, Answer::Acked { id, position: None });
                }
            }
        }
    }

    /// The home could not let a connection in: it leaves again, if it is not about to anyway.
    fn leave_refused(
        &mut self,
        index: TopicIndex,
        topic: TopicKey,
        member: ConnId,
        membership: Membership,
        sink: &mut impl Sink,
    ) {
        let Some(subscriber) = self.members.get_mut(member) else { return };
        let user = subscriber.name(&self.topics).clone();
        let wanted = subscriber.find(index).filter(|subscription| subscription.is_wanted());
        if let (Membership::Changed, Some(subscription)) = (membership, wanted) {
            let membership = subscription.ask_leave();
            self.send_leave(Leave { topic, member, user, membership, why: Departure::Refused }, sink);
        }
    }

    fn join_everyone(&mut self, member: ConnId, sink: &mut impl Sink) {
        self.batches.seal(self.topics.get_mut(self.everyone), &self.members, sink);
        if self.members.joins_everyone(member) {
            self.members.enlist_in_everyone(&mut self.topics, member);
        }
    }

    /// The home has confirmed a leave.
    pub(super) fn left(&mut self, left: Left, sink: &mut impl Sink) {
        let Left { topic, member, membership, id, removed } = left;
        let Some(index) = self.topics.find(topic.hashed()) else { return };
        if self.members.confirm(member, index).is_none() {
            return;
        }
        let was_listed = membership == Membership::Changed && self.members.is_listed(member, index);
        if was_listed {
            self.batches.seal(self.topics.get_mut(index), &self.members, sink);
            if self.keyed.has(index) {
                self.leave_keyed(index, member, sink);
            }
            self.members.delist(&mut self.topics, member, index);
        }
        if self.members.forget_if_over(&mut self.topics, member, index) {
            self.drop_if_unused(index);
        }
        if let Some(id) = id {
            sink.answer(member, Answer::Acked { id: &id, position: None });
        }
        // Whoever was not let in is not told that it has left.
        if let Some(reason) = removed.filter(|_| was_listed) {
            sink.answer(member, Answer::Left { room: &topic.name, reason: &reason });
        }
    }

    /// An operator's order for the members here.
    pub(super) fn expel(&mut self, expulsion: &Expulsion, sink: &mut impl Sink) {
        let Expulsion { topic, user, reason } = expulsion;
        let Some(index) = self.topics.find(topic.hashed()) else { return };
        let listed = self.members.of(self.topics.get(index)).iter().copied();
        let slots: Vec<Slot> = listed.chain(self.keyed.apart(index)).collect();
        for slot in slots {
            let (generation, name) = self.members.at(&self.topics, slot);
            let member = ConnId { reactor: self.me, slot, generation };
            match topic.kind {
                Kind::Inbox => sink.answer(member, Answer::Disconnected),
                Kind::Room | Kind::Raw | Kind::Everyone if name == user => {
                    let subscription = self.members.subscription(member, index);
                    let Some(subscription) = subscription.filter(|found| found.is_wanted()) else { continue };
                    let membership = subscription.ask_leave();
                    let why = Departure::Removed(reason.clone());
                    let (topic, user) = (topic.clone(), user.clone());
                    self.send_leave(Leave { topic, member, user, membership, why }, sink);
                }
                Kind::Room | Kind::Raw | Kind::Everyone => {}
            }
        }
    }

    /// The home has looked: what was missed, then the answer.
    pub(super) fn resumed(&mut self, resumed: Resumed, sink: &mut impl Sink) {
        let Resumed { to, position, slice, id } = resumed;
        let recovered = slice.is_some();
        if let Some(slice) = slice {
            self.seal_inbox(to, sink);
            sink.recover(to, slice);
        }
        sink.answer(
            to,
            Answer::Resumed { id: id.as_deref(), position: position.as_ref().map(StreamPosition::in_epoch), recovered },
        );
    }

    /// What was published to the connection's inbox so far is handed out.
    fn seal_inbox(&mut self, conn: ConnId, sink: &mut impl Sink) {
        let Some(subscriber) = self.members.get(conn) else { return };
        let inbox = self.topics.hashed(TopicRef { kind: Kind::Inbox, name: subscriber.name(&self.topics) });
        if let Some(index) = self.topics.find(inbox) {
            self.batches.seal(self.topics.get_mut(index), &self.members, sink);
        }
    }
}

/// A join was asked for while it was allowed, and is not any more.
fn forbid(member: ConnId, room: &str, reply: &JoinReply, sink: &mut impl Sink) {
    match reply {
        JoinReply::Silent | JoinReply::Raw { .. } => sink.answer(member, Answer::Forbidden { id: None, room }),
        JoinReply::Joined { id, .. } => sink.answer(member, Answer::Forbidden { id: id.as_deref(), room }),
        JoinReply::Many(many) => {
            sink.answer(member, Answer::Forbidden { id: Some(&many.id), room });
            if many.answered() && !many.has_failed() {
                sink.answer(member, Answer::Acked { id: &many.id, position: None });
            }
        }
    }
}

/// A connection that could not be let into a room is told so: the rooms of one command that could be joined are answered
/// one by one, and the command as a whole has failed once.
fn refuse(member: ConnId, room: &str, reply: &JoinReply, sink: &mut impl Sink) {
    let room = Some(room);
    match reply {
        JoinReply::Silent | JoinReply::Raw { .. } => sink.answer(member, Answer::Unavailable { id: None, room }),
        JoinReply::Joined { id, .. } => sink.answer(member, Answer::Unavailable { id: id.as_deref(), room }),
        JoinReply::Many(many) => {
            many.answered();
            if many.fail() {
                sink.answer(member, Answer::Unavailable { id: Some(&many.id), room: None });
            }
        }
    }
}
