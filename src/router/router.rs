//! The router of one reactor: membership on one side, homes on the other, batches between.

use std::fmt;
use std::sync::Arc;

use super::batch::Batch;
use super::mail::{Ack, Ask, Content, Departure, Join, Joined, Leave, Left, Mail, ManyJoin, PresenceOf, Publish};
use super::subscriber::{NO_PLACE, Subscriber, Subscribers, Subscription};
use super::topic::{Kind, NO_BATCH, TopicHasher, TopicIndex, TopicKey, TopicRef, TopicTable};
use crate::frame::{FrameBuilder, Opcode};
use crate::ids::{ConnId, ReactorId, Slot};
use crate::limits::{BATCH_POOL_BYTES_MAX, BATCH_POOL_MAX, FRAME_SHARE_BYTES, PRESENCE_USERS_MAX};
use crate::protocol::{self, Notice};

/// Where the router puts what concerns this reactor's own connections, in order.
pub trait Sink {
    /// Every member gets the batch, but for what is excluded for it.
    fn deliver(&mut self, batch: Batch, members: &[Slot]);
    /// One connection gets one frame, if it is still there.
    fn direct(&mut self, to: ConnId, frame: &[u8]);
    /// A connection gets an answer, if it is still there.
    fn answer(&mut self, to: ConnId, answer: Answer<'_>);
}

/// What a connection is told.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer<'a> {
    /// Its first topic is joined: what is sent to it from now on arrives.
    Connected,
    /// It is a member of a room.
    Joined {
        /// The command's id as JSON text.
        id: Option<&'a str>,
        /// The room.
        room: &'a str,
        /// What to say about recovery, where it was asked for.
        recovered: Option<bool>,
    },
    /// A command with this id is done.
    Acked {
        /// The command's id as JSON text.
        id: &'a str,
    },
}

/// When and how join and leave notices are sent.
#[derive(Clone, Debug)]
pub struct NoticeSettings {
    /// Rooms with more members get none; 0 turns them off.
    pub members_max: u64,
    /// The text of a join, with `{user}` in it.
    pub join_text: String,
    /// The text of a leave, with `{user}` in it.
    pub leave_text: String,
}

/// Why a join is refused. Nothing has changed then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JoinError {
    /// The connection would be in more than `limits.rooms_max` rooms.
    TooManyRooms,
    /// A position was given, but the connection is a member already.
    AlreadyJoined,
}

/// See the module's documentation.
pub struct Router {
    me: ReactorId,
    reactors: u16,
    seed: u64,
    rooms_max: usize,
    notices: NoticeSettings,
    topics: TopicTable,
    everyone: TopicIndex,
    subscribers: Subscribers,
    /// Batches opened in this turn; a sealed or dropped one is `None`.
    open: Vec<Option<(TopicIndex, Batch)>>,
    open_bytes: usize,
    pool: Vec<Vec<u8>>,
    outgoing: Vec<(ReactorId, Mail)>,
    frames: FrameBuilder,
}

impl Router {
    /// The router of reactor `me` of `reactors`; `seed` is the same for all of a node and secret.
    pub fn new(me: ReactorId, reactors: u16, seed: u64, rooms_max: usize, notices: NoticeSettings) -> Router {
        assert!(me.0 < reactors);
        let mut topics = TopicTable::new(TopicHasher::new(seed, reactors));
        let hash = topics.hasher().hash(TopicRef::EVERYONE);
        let everyone = topics.find_or_insert(hash, &TopicKey { kind: Kind::Everyone, name: "".into() });
        topics.get_mut(everyone).subscriptions = 1;
        Router {
            me,
            reactors,
            seed,
            rooms_max,
            notices,
            topics,
            everyone,
            subscribers: Subscribers::default(),
            open: Vec::new(),
            open_bytes: 0,
            pool: Vec::new(),
            outgoing: Vec::new(),
            frames: FrameBuilder::default(),
        }
    }

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

    /// The connection is gone: it leaves everything at once.
    pub fn disconnect(&mut self, conn: ConnId, sink: &mut impl Sink) {
        let Some(subscriber) = self.subscribers.remove(conn) else { return };
        if subscriber.everyone != NO_PLACE {
            self.take_from_members(self.everyone, subscriber.everyone);
        }
        for subscription in subscriber.subscriptions {
            if subscription.place != NO_PLACE {
                self.take_from_members(subscription.topic, subscription.place);
            }
            let topic = self.topics.get_mut(subscription.topic);
            topic.subscriptions -= 1;
            let key = topic.key.clone();
            if subscription.wanted {
                let user = subscriber.user.clone();
                let leave = Leave { topic: key.clone(), member: conn, user, why: Departure::Gone };
                self.to_home(&key, Content::Leave(Box::new(leave)), sink);
            }
            self.drop_topic_if_unused(&key);
        }
    }

    /// Joins one room. `with_position` tells whether the client gave a position to resume from.
    ///
    /// # Errors
    /// [`JoinError`]; nothing has changed then.
    pub fn join(
        &mut self,
        conn: ConnId,
        room: &str,
        ask: Ask,
        with_position: bool,
        sink: &mut impl Sink,
    ) -> Result<(), JoinError> {
        self.check_join(conn, &[room], with_position)?;
        self.subscribe(conn, TopicKey { kind: Kind::Room, name: room.into() }, ask, sink);
        Ok(())
    }

    /// Joins several rooms, or none of them.
    ///
    /// # Errors
    /// [`JoinError`]; nothing has changed then.
    pub fn join_many<'r>(
        &mut self,
        conn: ConnId,
        rooms: &[impl AsRef<str>],
        id: Option<&'r str>,
        with_position: bool,
        sink: &mut impl Sink,
    ) -> Result<(), JoinError> {
        let rooms: Vec<&str> = rooms.iter().map(AsRef::as_ref).collect();
        self.check_join(conn, &rooms, with_position)?;
        let ask = match id {
            Some(id) if rooms.is_empty() => {
                sink.answer(conn, Answer::Acked { id });
                return Ok(());
            }
            Some(id) => Ask::Many(ManyJoin::new(id, with_position.then_some(false), rooms.len() as u32)),
            None => Ask::Silent,
        };
        for room in rooms {
            self.subscribe(conn, TopicKey { kind: Kind::Room, name: room.into() }, ask.clone(), sink);
        }
        Ok(())
    }

    /// Leaves a room; answered with an ack where there is an `id`, at once if it was no member.
    pub fn leave(&mut self, conn: ConnId, room: &str, id: Option<&str>, sink: &mut impl Sink) {
        let room = TopicRef { kind: Kind::Room, name: room };
        let found = self.topics.find(self.topics.hasher().hash(room), room);
        let subscriber = self.subscribers.get_mut(conn);
        let member = found.zip(subscriber).and_then(|(topic, subscriber)| {
            let user = subscriber.user.clone();
            subscriber.find(topic).filter(|subscription| subscription.wanted).map(|subscription| {
                subscription.wanted = false;
                (topic, user)
            })
        });
        match member {
            Some((topic, user)) => {
                let key = self.topics.get(topic).key.clone();
                let why = Departure::Asked(id.map(Into::into));
                let leave = Leave { topic: key.clone(), member: conn, user, why };
                self.to_home(&key, Content::Leave(Box::new(leave)), sink);
            }
            None => {
                if let Some(id) = id {
                    sink.answer(conn, Answer::Acked { id });
                }
            }
        }
    }

    /// Publishes a whole frame to a topic, to all members but `exclude`. With `ack` the publisher is told when the
    /// topic's home has routed it.
    #[inline]
    pub fn publish(
        &mut self,
        topic: TopicRef<'_>,
        frame: &[u8],
        exclude: Option<ConnId>,
        ack: Option<(ConnId, &str)>,
        sink: &mut impl Sink,
    ) {
        let hash = self.topics.hasher().hash(topic);
        let home = self.topics.hasher().home(topic.kind, hash);
        if home == self.me {
            self.fan_out(hash, topic, frame, None, exclude, sink);
            if let Some((to, id)) = ack {
                sink.answer(to, Answer::Acked { id });
            }
            return;
        }
        let publish = Publish {
            topic: TopicKey { kind: topic.kind, name: topic.name.into() },
            frame: frame.into(),
            exclude,
            ack: ack.map(|(to, id)| Ack { to, id: id.into() }),
        };
        self.outgoing.push((home, Mail(Content::Publish(Box::new(publish)))));
    }

    /// Sends a whole frame to one connection, wherever it is.
    pub fn direct(&mut self, to: ConnId, frame: &[u8], ack: Option<(ConnId, &str)>, sink: &mut impl Sink) {
        if to.reactor == self.me {
            sink.direct(to, frame);
            if let Some((to, id)) = ack {
                sink.answer(to, Answer::Acked { id });
            }
        } else if to.reactor.0 < self.reactors {
            let ack = ack.map(|(to, id)| Box::new(Ack { to, id: id.into() }));
            self.outgoing.push((to.reactor, Mail(Content::Direct { to, frame: frame.into(), ack })));
        } else if let Some((to, id)) = ack {
            sink.answer(to, Answer::Acked { id });
        }
    }

    /// Asks a room's home who is in it; `asker` gets the reply as a message.
    pub fn presence(&mut self, asker: ConnId, room: &str, id: Option<&str>, sink: &mut impl Sink) {
        let key = TopicKey { kind: Kind::Room, name: room.into() };
        let question = PresenceOf { room: key.clone(), asker, id: id.map(Into::into) };
        self.to_home(&key, Content::Presence(Box::new(question)), sink);
    }

    /// Takes mail that reactor `from` sent.
    pub fn handle_mail(&mut self, from: ReactorId, mail: Mail, sink: &mut impl Sink) {
        match mail.0 {
            Content::Join(join) => self.home_join(from, *join, sink),
            Content::Leave(leave) => self.home_leave(from, *leave, sink),
            Content::Publish(publish) => {
                let Publish { topic, frame, exclude, ack } = *publish;
                let hash = self.topics.hasher().hash(topic.borrow());
                self.fan_out(hash, topic.borrow(), &frame, Some(&frame), exclude, sink);
                if let Some(ack) = ack {
                    self.send(from, Content::Acked(Box::new(ack)), sink);
                }
            }
            Content::Presence(question) => self.home_presence(from, *question, sink),
            Content::Joined(joined) => self.joined(*joined, sink),
            Content::Left(left) => self.left(*left, sink),
            Content::Deliver { topic, frame, exclude } => {
                let hash = self.topics.hasher().hash(topic.borrow());
                if let Some(index) = self.topics.find(hash, topic.borrow()) {
                    self.deliver_here(index, &frame, Some(&frame), exclude, sink);
                }
            }
            Content::Direct { to, frame, ack } => {
                sink.direct(to, &frame);
                if let Some(ack) = ack {
                    self.send(from, Content::Acked(ack), sink);
                }
            }
            Content::Acked(ack) => sink.answer(ack.to, Answer::Acked { id: &ack.id }),
        }
    }

    /// Mail for other reactors, in order; to be posted before any connection is flushed.
    pub fn poll_mail(&mut self) -> impl Iterator<Item = (ReactorId, Mail)> {
        self.outgoing.drain(..)
    }

    /// Bytes gathered in open batches: beyond `limits::TURN_BYTES_MAX` the turn is to be flushed early.
    pub fn open_bytes(&self) -> usize {
        self.open_bytes
    }

    /// The turn ends: hands every open batch to the members.
    pub fn end_turn(&mut self, sink: &mut impl Sink) {
        for (topic, batch) in self.open.drain(..).flatten() {
            let topic = self.topics.get_mut(topic);
            topic.batch = NO_BATCH;
            sink.deliver(batch, &topic.members);
        }
        self.open_bytes = 0;
        self.frames.shrink(BATCH_POOL_BYTES_MAX);
    }

    /// Takes back the buffer of a joined batch that nothing refers to any more.
    pub fn recycle(&mut self, mut buffer: Vec<u8>) {
        if self.pool.len() < BATCH_POOL_MAX && buffer.capacity() <= BATCH_POOL_BYTES_MAX {
            buffer.clear();
            self.pool.push(buffer);
        }
    }

    /// Topics in this reactor's table, everyone's included.
    pub fn topics_count(&self) -> usize {
        self.topics.len()
    }

    fn check_join(&mut self, conn: ConnId, rooms: &[&str], with_position: bool) -> Result<(), JoinError> {
        let mut fresh: Vec<&str> = Vec::new();
        for &name in rooms {
            let room = TopicRef { kind: Kind::Room, name };
            let topic = self.topics.find(self.topics.hasher().hash(room), room);
            let subscriber = self.subscribers.get_mut(conn);
            let member = topic
                .zip(subscriber)
                .and_then(|(topic, subscriber)| subscriber.find(topic))
                .is_some_and(|subscription| subscription.wanted);
            match member {
                true if with_position => return Err(JoinError::AlreadyJoined),
                true => {}
                false if fresh.contains(&name) => {}
                false => fresh.push(name),
            }
        }
        let wanted = |subscription: &&Subscription| {
            subscription.wanted && self.topics.get(subscription.topic).key.kind == Kind::Room
        };
        let joined =
            self.subscribers.get(conn).map_or(0, |subscriber| subscriber.subscriptions.iter().filter(wanted).count());
        if !fresh.is_empty() && joined + fresh.len() > self.rooms_max {
            return Err(JoinError::TooManyRooms);
        }
        Ok(())
    }

    /// Notes what the connection wants and tells the topic's home.
    fn subscribe(&mut self, conn: ConnId, key: TopicKey, ask: Ask, sink: &mut impl Sink) {
        let Some(subscriber) = self.subscribers.get_mut(conn) else { return };
        let hash = self.topics.hasher().hash(key.borrow());
        let index = self.topics.find_or_insert(hash, &key);
        let topic = self.topics.get_mut(index);
        let key = topic.key.clone();
        let fresh = match subscriber.find(index) {
            Some(subscription) => !std::mem::replace(&mut subscription.wanted, true),
            None => {
                topic.subscriptions += 1;
                subscriber.subscriptions.push(Subscription { topic: index, place: NO_PLACE, wanted: true });
                true
            }
        };
        let join = Join { topic: key.clone(), member: conn, user: subscriber.user.clone(), fresh, ask };
        self.to_home(&key, Content::Join(Box::new(join)), sink);
    }

    fn to_home(&mut self, topic: &TopicKey, content: Content, sink: &mut impl Sink) {
        let hash = self.topics.hasher().hash(topic.borrow());
        let home = self.topics.hasher().home(topic.kind, hash);
        self.send(home, content, sink);
    }

    /// To another reactor by mail, to this one by a call.
    fn send(&mut self, to: ReactorId, content: Content, sink: &mut impl Sink) {
        match to == self.me {
            true => self.handle_mail(to, Mail(content), sink),
            false => self.outgoing.push((to, Mail(content))),
        }
    }

    fn home_join(&mut self, from: ReactorId, join: Join, sink: &mut impl Sink) {
        let Join { topic: key, member, user, fresh, ask } = join;
        let hash = self.topics.hasher().hash(key.borrow());
        let index = self.topics.find_or_insert(hash, &key);
        let room = key.kind == Kind::Room;
        if fresh {
            self.topics.get_mut(index).home.add(from, room.then_some(&user), self.seed);
        }
        self.send(from, Content::Joined(Box::new(Joined { topic: key.clone(), member, fresh, ask })), sink);
        if fresh && room {
            self.notice(hash, &key, Notice::Join, &user, sink);
        }
    }

    fn home_leave(&mut self, from: ReactorId, leave: Leave, sink: &mut impl Sink) {
        let Leave { topic: key, member, user, why } = leave;
        let hash = self.topics.hasher().hash(key.borrow());
        let index = self.topics.find(hash, key.borrow()).expect("a topic with members is in its home's table");
        let room = key.kind == Kind::Room;
        self.topics.get_mut(index).home.remove(from, room.then_some(&user));
        match why {
            Departure::Asked(id) => {
                self.send(from, Content::Left(Box::new(Left { topic: key.clone(), member, id })), sink);
            }
            Departure::Gone => {}
        }
        if room {
            self.notice(hash, &key, Notice::Leave, &user, sink);
        }
        self.drop_topic_if_unused(&key);
    }

    fn home_presence(&mut self, from: ReactorId, question: PresenceOf, sink: &mut impl Sink) {
        let PresenceOf { room, asker, id } = question;
        let hash = self.topics.hasher().hash(room.borrow());
        let home = self.topics.find(hash, room.borrow()).map(|index| &self.topics.get(index).home);
        let count = home.map_or(0, |home| home.users_count());
        let users = home.into_iter().flat_map(|home| home.users()).take(PRESENCE_USERS_MAX);
        let truncated = count > PRESENCE_USERS_MAX;
        let frame = self.frames.build(Opcode::Text, |out| {
            protocol::presence(out, id.as_deref(), &room.name, count, users, truncated);
        });
        match from == self.me {
            true => sink.direct(asker, frame),
            false => {
                let content = Content::Direct { to: asker, frame: frame.into(), ack: None };
                self.outgoing.push((from, Mail(content)));
            }
        }
    }

    /// A notice to the members a room has now, while it has few enough.
    fn notice(&mut self, hash: u64, room: &TopicKey, notice: Notice, user: &str, sink: &mut impl Sink) {
        let members = match self.topics.find(hash, room.borrow()) {
            Some(index) => self.topics.get(index).home.members(),
            None => 0,
        };
        if members == 0 || members > self.notices.members_max {
            return;
        }
        let template = match notice {
            Notice::Join => &self.notices.join_text,
            Notice::Leave => &self.notices.leave_text,
        };
        let text = template.replace("{user}", user);
        let mut frames = std::mem::take(&mut self.frames);
        let frame = frames.build(Opcode::Text, |out| protocol::notice(out, &room.name, notice, user, &text));
        self.fan_out(hash, room.borrow(), frame, None, None, sink);
        self.frames = frames;
    }

    /// At home: the frame goes to every reactor with members. `shared` is the frame where it is shared already.
    #[inline]
    fn fan_out(
        &mut self,
        hash: u64,
        topic: TopicRef<'_>,
        frame: &[u8],
        shared: Option<&Arc<[u8]>>,
        exclude: Option<ConnId>,
        sink: &mut impl Sink,
    ) {
        let Some(index) = self.topics.find(hash, topic) else { return };
        let mut shared = shared.cloned();
        let me = self.me;
        let found = self.topics.get(index);
        let mut post = |reactor: ReactorId| {
            let frame = shared.get_or_insert_with(|| frame.into()).clone();
            self.outgoing.push((reactor, Mail(Content::Deliver { topic: found.key.clone(), frame, exclude })));
        };
        match topic.kind {
            Kind::Everyone => (0..self.reactors).map(ReactorId).filter(|&at| at != me).for_each(&mut post),
            Kind::Room | Kind::Inbox | Kind::Raw => found.home.reactors().filter(|&at| at != me).for_each(&mut post),
        }
        self.deliver_here(index, frame, shared.as_ref(), exclude, sink);
    }

    /// The frame goes to this reactor's members: into the topic's batch of this turn, or, if large, as it is.
    #[inline]
    fn deliver_here(
        &mut self,
        index: TopicIndex,
        frame: &[u8],
        shared: Option<&Arc<[u8]>>,
        exclude: Option<ConnId>,
        sink: &mut impl Sink,
    ) {
        if self.topics.get(index).members.is_empty() {
            return;
        }
        if frame.len() >= FRAME_SHARE_BYTES {
            self.seal(index, sink);
            let frame = shared.cloned().unwrap_or_else(|| frame.into());
            sink.deliver(Batch::of_frame(frame, exclude), &self.topics.get(index).members);
            return;
        }
        let topic = self.topics.get_mut(index);
        if topic.batch == NO_BATCH {
            topic.batch = self.open.len() as u32;
            self.open.push(Some((index, Batch::joined(self.pool.pop().unwrap_or_default()))));
        }
        if let Some((_, batch)) = &mut self.open[topic.batch as usize] {
            batch.push(frame, exclude);
            self.open_bytes += frame.len();
        }
    }

    /// Membership is about to change, or order would: what was published so far goes to the members of now.
    fn seal(&mut self, index: TopicIndex, sink: &mut impl Sink) {
        if let Some(batch) = self.take_batch(index) {
            sink.deliver(batch, &self.topics.get(index).members);
        }
    }

    fn take_batch(&mut self, index: TopicIndex) -> Option<Batch> {
        let at = std::mem::replace(&mut self.topics.get_mut(index).batch, NO_BATCH);
        let (_, batch) = self.open.get_mut(at as usize)?.take()?;
        self.open_bytes = self.open_bytes.saturating_sub(batch.bytes().len());
        Some(batch)
    }

    /// The home has confirmed a join.
    fn joined(&mut self, joined: Joined, sink: &mut impl Sink) {
        let Joined { topic: key, member, fresh, ask } = joined;
        let hash = self.topics.hasher().hash(key.borrow());
        let Some(index) = self.topics.find(hash, key.borrow()) else { return };
        let Some(subscription) = self.subscribers.get_mut(member).and_then(|subscriber| subscriber.find(index)) else {
            return;
        };
        if fresh && subscription.place == NO_PLACE {
            subscription.place = self.topics.get(index).members.len() as u32;
            self.seal(index, sink);
            self.topics.get_mut(index).members.push(member.slot);
        }
        match (key.kind, ask) {
            (Kind::Inbox, _) => {
                self.join_everyone(member, sink);
                sink.answer(member, Answer::Connected);
            }
            (Kind::Raw, _) => sink.answer(member, Answer::Connected),
            (Kind::Room | Kind::Everyone, Ask::Silent) => {}
            (Kind::Room | Kind::Everyone, Ask::Joined { id, recovered }) => {
                sink.answer(member, Answer::Joined { id: id.as_deref(), room: &key.name, recovered });
            }
            (Kind::Room | Kind::Everyone, Ask::Many(many)) => {
                let (id, recovered) = (&*many.id, many.recovered);
                sink.answer(member, Answer::Joined { id: Some(id), room: &key.name, recovered });
                if many.answered() {
                    sink.answer(member, Answer::Acked { id });
                }
            }
        }
    }

    fn join_everyone(&mut self, member: ConnId, sink: &mut impl Sink) {
        self.seal(self.everyone, sink);
        let Some(subscriber) = self.subscribers.get_mut(member) else { return };
        if subscriber.everyone == NO_PLACE {
            let members = &mut self.topics.get_mut(self.everyone).members;
            subscriber.everyone = members.len() as u32;
            members.push(member.slot);
        }
    }

    /// The home has confirmed a leave.
    fn left(&mut self, left: Left, sink: &mut impl Sink) {
        let Left { topic: key, member, id } = left;
        let hash = self.topics.hasher().hash(key.borrow());
        let Some(index) = self.topics.find(hash, key.borrow()) else { return };
        let Some(subscription) = self.subscribers.get_mut(member).and_then(|subscriber| subscriber.find(index)) else {
            return;
        };
        let place = std::mem::replace(&mut subscription.place, NO_PLACE);
        let wanted = subscription.wanted;
        if place != NO_PLACE {
            self.seal(index, sink);
            self.take_from_members(index, place);
        }
        if !wanted && let Some(subscriber) = self.subscribers.get_mut(member) {
            subscriber.subscriptions.retain(|subscription| subscription.topic != index);
            self.topics.get_mut(index).subscriptions -= 1;
            self.drop_topic_if_unused(&key);
        }
        if let Some(id) = id {
            sink.answer(member, Answer::Acked { id: &id });
        }
    }

    /// Takes the member at `place` out; the last one takes its place.
    fn take_from_members(&mut self, index: TopicIndex, place: u32) {
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

    fn drop_topic_if_unused(&mut self, key: &TopicKey) {
        let hash = self.topics.hasher().hash(key.borrow());
        let Some(index) = self.topics.find(hash, key.borrow()) else { return };
        let topic = self.topics.get(index);
        if topic.subscriptions == 0 && topic.home.is_empty() {
            if let Some(Batch { body: super::BatchBody::Joined(buffer), .. }) = self.take_batch(index) {
                self.recycle(buffer);
            }
            self.topics.remove(index);
        }
    }

    /// Checks the tables against each other; for tests.
    ///
    /// # Panics
    /// Where they contradict each other.
    #[cfg(any(test, debug_assertions))]
    pub fn check_invariants(&self) {
        for (slot, subscriber) in self.subscribers.iter() {
            if subscriber.everyone != NO_PLACE {
                assert_eq!(self.topics.get(self.everyone).members[subscriber.everyone as usize], slot);
            }
            for subscription in &subscriber.subscriptions {
                let topic = self.topics.get(subscription.topic);
                assert!(topic.subscriptions > 0);
                if subscription.place != NO_PLACE {
                    assert_eq!(topic.members[subscription.place as usize], slot);
                }
            }
        }
        for (index, topic) in self.topics.iter() {
            let of = |(_, subscriber): (Slot, &Subscriber)| match index == self.everyone {
                true => (u32::from(subscriber.everyone != NO_PLACE), 1),
                false => {
                    let mine = subscriber.subscriptions.iter().filter(|s| s.topic == index);
                    mine.fold((0, 0), |(places, all), s| (places + u32::from(s.place != NO_PLACE), all + 1))
                }
            };
            let (places, all) = self.subscribers.iter().map(of).fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
            assert_eq!(places as usize, topic.members.len(), "members of {:?}", topic.key);
            if index != self.everyone {
                assert_eq!(all, topic.subscriptions, "subscriptions of {:?}", topic.key);
                assert!(all > 0 || !topic.home.is_empty(), "{:?} is unused", topic.key);
            }
        }
    }
}

fn set_place(subscriber: &mut Subscriber, topic: TopicIndex, place: u32) {
    let subscription = subscriber.find(topic).expect("a member has a subscription");
    subscription.place = place;
}

impl fmt::Debug for Router {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Router").field("me", &self.me).field("topics", &self.topics.len()).finish_non_exhaustive()
    }
}
