//! What the front does at a topic's home: it gives joins, leaves, publishes and questions one order.

use arcstr::ArcStr;

use super::batches::Delivery;
use super::cluster::ToCluster;
use super::cluster_subscription::Redis;
use super::edge::{Edge, Turned};
use super::history::{History, StreamPosition};
use super::homes::{Admittance, HomeState};
use super::mail::{
    Ack, Content, Departure, Expulsion, HistoryOf, HomeMail, Join, Joined, Leave, Left, Mail, Membership, Outcome,
    PresenceOf, Publish, Published, Resume, Resumed,
};
use super::replies::{Page, Users};
use super::slice::Slice;
use super::topic::{HashedTopic, Kind, TopicIndex, TopicKey};
use super::{Router, Sink};
use crate::compress::SharedFrame;
use crate::frame::{Opcode, split_frame};
use crate::ids::{PeerId, ReactorId};
use crate::limits::PRESENCE_USERS_MAX;
use crate::protocol::{self, Notice};

impl Router {
    /// What a home is asked for is carried out.
    pub(super) fn home_act(&mut self, mail: HomeMail, sink: &mut impl Sink) {
        match mail {
            HomeMail::Join(join) => self.home_join(*join, sink),
            HomeMail::Leave(leave) => self.home_leave(*leave, sink),
            HomeMail::Publish(publish) => self.home_publish(*publish, sink),
            HomeMail::Presence(question) => self.home_presence(*question, sink),
            HomeMail::History(question) => self.home_history(*question, sink),
            HomeMail::Resume(resume) => self.home_resume(*resume, sink),
            HomeMail::Request(request) => self.home_request(*request, sink),
            HomeMail::Items(update) => self.home_items(*update, sink),
            HomeMail::Tune(tune) => self.send(tune.member.reactor, Content::Tuned(tune), sink),
        }
    }

    pub(super) fn home_join(&mut self, join: Join, sink: &mut impl Sink) {
        let Join { topic, member, user, membership, reply, is_checked: _ } = join;
        let index = self.topics.find_or_insert(&topic);
        if self.homes.needs_open(topic.kind) {
            self.open_home(index);
        }
        if membership == Membership::Changed {
            self.add_member(index, member.reactor, &user);
            match self.homes.admit(self.topics.get(index), member) {
                Admittance::Granted => {}
                Admittance::Replaces(oldest) => {
                    self.send(oldest.reactor, Content::Replaced { member: oldest }, sink);
                }
                Admittance::Refused => {
                    let joined = Joined { topic, member, membership, reply, outcome: Outcome::Full, keyed: None };
                    return self.send(member.reactor, Content::Joined(Box::new(joined)), sink);
                }
            }
        }
        self.open_keyed(index);
        let recovery = self.retention.recovery(&self.topics, &mut self.homes, index, &reply);
        // With the name as it stands here, so that all reactors share one.
        let topic = self.topics.get(index).key.clone();
        let keyed = self.keyed_join(index, member.reactor);
        let joined = Joined { topic, member, membership, reply, outcome: Outcome::Member(recovery), keyed };
        self.send(member.reactor, Content::Joined(Box::new(joined)), sink);
        if membership == Membership::Changed {
            self.notice(index, Notice::Join, &user, sink);
        }
    }

    /// The history of a room is out of reach. The member is counted as any other, and leaves when its reactor hears of it:
    /// so joins and leaves still come in pairs.
    pub(super) fn home_refuse_join(&mut self, join: Join, sink: &mut impl Sink) {
        let Join { topic, member, user, membership, reply, is_checked: _ } = join;
        let index = self.topics.find_or_insert(&topic);
        if membership == Membership::Changed {
            self.add_member(index, member.reactor, &user);
        }
        let joined = Joined { topic, member, membership, reply, outcome: Outcome::Unavailable, keyed: None };
        self.send(member.reactor, Content::Joined(Box::new(joined)), sink);
    }

    fn home_leave(&mut self, leave: Leave, sink: &mut impl Sink) {
        let Leave { topic, member, user, membership, why } = leave;
        let found = self.topics.find(topic.hashed());
        if membership == Membership::Changed {
            let index = found.expect("a topic with members is in its home's table");
            let back_ms = match why {
                Departure::Gone { back_ms } => back_ms,
                Departure::Asked(_) | Departure::Refused | Departure::Removed(_) => 0,
            };
            self.remove_member(index, member.reactor, &user, back_ms);
            self.homes.dismiss(self.topics.get(index), member);
            self.retention.keep_position(&self.topics, &mut self.homes, index);
            self.make_room_beside(&topic);
        }
        let left = |id, removed| Left { topic: topic.clone(), member, membership, id, removed };
        let (left, noticed) = match why {
            Departure::Asked(id) => (Some(left(id, None)), true),
            Departure::Removed(reason) => (Some(left(None, Some(reason))), true),
            Departure::Refused => (Some(left(None, None)), false),
            Departure::Gone { .. } => (None, true),
        };
        if let Some(left) = left {
            self.send(member.reactor, Content::Left(Box::new(left)), sink);
        }
        let Some(index) = self.topics.find(topic.hashed()) else { return };
        if membership == Membership::Changed && noticed {
            self.notice(index, Notice::Leave, &user, sink);
        }
        self.settle(index, sink);
    }

    fn add_member(&mut self, index: TopicIndex, reactor: ReactorId, user: &ArcStr) {
        let topic = self.topics.get_mut(index);
        let was_vacant = self.homes.is_empty(topic);
        let kind = topic.key.kind;
        self.homes.add(topic, reactor, listed(kind, user));
        if was_vacant {
            self.tell_edge(index, Turned::Occupied);
        }
    }

    fn remove_member(&mut self, index: TopicIndex, reactor: ReactorId, user: &ArcStr, back_ms: u32) {
        let topic = self.topics.get_mut(index);
        let kind = topic.key.kind;
        self.homes.remove(topic, reactor, listed(kind, user));
        if self.keyed.has(index) && !self.homes.reactors(self.topics.get(index)).any(|at| at == reactor) {
            self.keyed.forget_mirror(index, reactor);
        }
        if self.homes.is_empty(self.topics.get(index)) {
            self.tell_edge(index, Turned::Vacant { back_ms });
        }
    }

    /// The webhooks' thread hears of it, where it wants to.
    fn tell_edge(&mut self, index: TopicIndex, turned: Turned) {
        let topic = &self.topics.get(index).key;
        if self.watched.covers(topic.kind) {
            let edge = Edge { topic: topic.clone(), turned };
            self.outgoing.push((PeerId::Webhooks, Mail(Content::Edge(edge))));
        }
    }

    /// Published on another reactor, or while the topic could not be published to at once.
    fn home_publish(&mut self, published: Published, sink: &mut impl Sink) {
        let Some(published) = self.append_or_share(published) else { return };
        let Published { topic, frame, exclude, key, publisher, published_at, id } = published;
        let before = self.batches.deliver_as_of(published_at.unwrap_or(self.turn_began_at));
        let publish = Publish { topic: topic.borrow(), frame: frame.plain(), exclude, key: key.as_deref(), publisher };
        let found = self.topics.find(topic.hashed());
        let position = self.keep_and_fan_out(topic.hashed(), found, &publish, Some(&frame), sink);
        self.batches.deliver_as_of(before);
        if let Some(id) = id {
            self.send(
                publisher.peer(),
                Content::Acked(Box::new(Ack { to: publisher, id, position, stale: None })),
                sink,
            );
        }
    }

    fn home_presence(&mut self, question: PresenceOf, sink: &mut impl Sink) {
        let PresenceOf { room, asker, id } = question;
        if self.cluster.as_ref().is_some_and(|cluster| cluster.redis == Redis::Reachable) {
            return self.ask_cluster(ToCluster::Presence { topic: room, asker, id });
        }
        let found = self.topics.find(room.hashed());
        let home = found.and_then(|index| self.homes.get(self.topics.get(index)));
        let count = home.map_or(0, |home| home.users_count()) as u64;
        let users = home.into_iter().flat_map(|home| home.users());
        let names = users.take(PRESENCE_USERS_MAX).cloned().collect();
        self.send(asker.peer(), Content::Users(Box::new(Users { to: asker, id, room, count, names })), sink);
    }

    /// A page of a room's history.
    fn home_history(&mut self, question: HistoryOf, sink: &mut impl Sink) {
        let HistoryOf { room, asker, id, before, limit } = question;
        let (found, now) = (self.topics.find(room.hashed()), self.retention.now());
        let aside = self.cluster.as_ref().and_then(|cluster| cluster.page.as_ref());
        let aside = aside.zip(found).and_then(|(page, index)| page.page(index, before, limit));
        let page = found.and_then(|index| {
            self.retention.change(&self.topics, &mut self.homes, index, |history| {
                history.expire(now);
                history.tell();
                (history.position(), aside.unwrap_or_else(|| history.page(before, limit)))
            })
        });
        let (position, messages) = page.map_or((None, Slice::default()), |(position, page)| (Some(position), page));
        self.send(asker.peer(), Content::Page(Box::new(Page { to: asker, id, room, position, messages })), sink);
    }

    /// What an inbox has of what came before a welcome.
    fn home_resume(&mut self, resume: Resume, sink: &mut impl Sink) {
        let found = self.topics.find(resume.inbox.hashed());
        let (position, slice) =
            found.map(|index| self.retention.resume(&self.topics, &mut self.homes, index, &resume)).unwrap_or_default();
        let Resume { to, welcomed_at, id, .. } = resume;
        let resumed = Resumed { to, position: position.or(welcomed_at), slice, id };
        self.send(to.reactor, Content::Resumed(Box::new(resumed)), sink);
    }

    /// An operator's order: it goes to every reactor that has members.
    pub(super) fn home_expel(&mut self, expulsion: &Expulsion, sink: &mut impl Sink) {
        let Some(index) = self.topics.find(expulsion.topic.hashed()) else { return };
        let reactors: Vec<ReactorId> = self.homes.reactors(self.topics.get(index)).collect();
        for reactor in reactors {
            self.send(reactor, Content::Expel(Box::new(expulsion.clone())), sink);
        }
    }

    /// A notice to the members a room has now, here and on other nodes, while it has few enough.
    fn notice(&mut self, index: TopicIndex, notice: Notice, user: &str, sink: &mut impl Sink) {
        let mut frames = std::mem::take(&mut self.frames);
        let topic = self.topics.get(index);
        if let Some(frame) = self.homes.notice(topic, notice, user, &mut frames) {
            if self.cluster.is_some() {
                let topic = topic.key.clone();
                self.ask_cluster(ToCluster::Notice { topic, frame: frame.to_vec() });
            }
            self.fan_out(index, Delivery { frame, shared: None, exclude: None }, sink);
        }
        self.frames = frames;
    }

    /// Puts a publish into the topic's history, if it keeps one here, and fans it out. Its position, for the ack.
    pub(super) fn keep_and_fan_out(
        &mut self,
        name: HashedTopic<'_>,
        found: Option<TopicIndex>,
        publish: &Publish<'_>,
        shared: Option<&SharedFrame>,
        sink: &mut impl Sink,
    ) -> Option<StreamPosition> {
        let Publish { frame, exclude, key, .. } = *publish;
        if self.cluster.is_some() || self.homes.keeps_none(name.kind) || !self.keeps(name, found) {
            if let Some(index) = found {
                self.fan_out(index, Delivery { frame, shared, exclude }, sink);
            }
            return None;
        }
        let index = found.unwrap_or_else(|| self.topics.find_or_insert(&name.to_key()));
        self.open_home(index);
        let now = self.retention.now();
        let frames = &mut self.frames;
        // A retry is the message that is there already.
        let kept = self.retention.change(&self.topics, &mut self.homes, index, |history| {
            if let Some(key) = key {
                // A key that is too old is not known any more.
                history.expire(now);
                if let Some(known) = history.known(key) {
                    return (known, None);
                }
            }
            let offset = history.next_offset();
            let with_offset: SharedFrame =
                frames.build(Opcode::Text, |out| protocol::put_offset(out, split_frame(frame).1, offset)).into();
            (history.append(with_offset.clone(), key.map(Into::into), now), Some(with_offset))
        });
        let (position, with_offset) = kept?;
        if let Some(frame) = with_offset {
            self.fan_out(index, Delivery { frame: frame.plain(), shared: Some(&frame), exclude }, sink);
            self.make_room();
        }
        Some(position)
    }

    fn keeps(&mut self, name: HashedTopic<'_>, found: Option<TopicIndex>) -> bool {
        self.homes.policy(name, found.map(|index| self.topics.get(index))).history.is_some()
    }

    /// A frame goes to every reactor with members.
    #[inline]
    pub(super) fn fan_out(&mut self, index: TopicIndex, delivery: Delivery<'_>, sink: &mut impl Sink) {
        let Delivery { frame, shared, exclude } = delivery;
        let mut shared = shared.cloned();
        let published_at = self.batches.published_at();
        self.post_to_members(index, |topic| {
            let frame = shared.get_or_insert_with(|| frame.into()).clone();
            Content::Deliver { topic, frame, exclude, published_at }
        });
        self.deliver_here(index, Delivery { frame, shared: shared.as_ref(), exclude }, sink);
    }

    /// A frame goes to the members here.
    #[inline]
    pub(super) fn deliver_here(&mut self, index: TopicIndex, delivery: Delivery<'_>, sink: &mut impl Sink) {
        self.batches.deliver(&mut self.topics, &self.members, index, delivery, sink);
        if self.keyed.has(index) {
            self.keyed.deliver_apart(index, delivery.frame, sink);
        }
    }

    /// Mail to every other reactor with members.
    #[inline]
    pub(super) fn post_to_members(&mut self, index: TopicIndex, mut content: impl FnMut(TopicKey) -> Content) {
        let (me, topic) = (self.me, self.topics.get(index));
        let outgoing = &mut self.outgoing;
        let mut post = |reactor: ReactorId| outgoing.push((reactor.into(), Mail(content(topic.key.clone()))));
        match topic.key.kind {
            Kind::Everyone => (0..self.reactors).map(ReactorId).filter(|&at| at != me).for_each(&mut post),
            Kind::Room | Kind::Inbox | Kind::Raw => {
                self.homes.reactors(topic).filter(|&at| at != me).for_each(&mut post);
            }
        }
    }

    /// More has to be known of a topic than where its members are. What it keeps begins now, unless the cluster keeps it.
    pub(super) fn open_home(&mut self, index: TopicIndex) {
        let topic = self.topics.get_mut(index);
        if let HomeState::Open(_) = topic.home {
            return;
        }
        let home = self.homes.open(topic);
        if let Some(policy) = home.policy.history.filter(|_| self.cluster.is_none()) {
            home.history = Some(Box::new(self.retention.begin(policy)));
        }
    }

    /// The histories hold more than they may: the oldest goes first.
    pub(super) fn make_room(&mut self) {
        while let Some(index) = self.retention.make_room(&self.topics, &mut self.homes) {
            self.drop_if_empty(index);
        }
    }

    /// The same while a topic is in use.
    fn make_room_beside(&mut self, used: &TopicKey) {
        while let Some(index) = self.retention.make_room(&self.topics, &mut self.homes) {
            if self.topics.get(index).key != *used {
                self.drop_if_empty(index);
            }
        }
    }

    /// A history has lost something, and its topic may be of no use any more.
    pub(super) fn drop_if_empty(&mut self, index: TopicIndex) {
        let home = self.homes.get(self.topics.get(index));
        if home.and_then(|home| home.history.as_deref()).is_none_or(History::is_empty) {
            self.drop_if_unused(index);
        }
    }

    /// Forgets a topic that has no member here, and of which the home has nothing to know.
    pub(super) fn drop_if_unused(&mut self, index: TopicIndex) {
        let topic = self.topics.get_mut(index);
        if !self.keyed.keeps(index) {
            self.homes.close_if_unused(topic);
        }
        if topic.subscriptions == 0 && topic.home == HomeState::Vacant {
            self.keyed.drop_room(index);
            self.batches.discard(topic);
            self.topics.remove(index);
        }
    }
}

/// The user as presence lists it.
fn listed(kind: Kind, user: &ArcStr) -> Option<&ArcStr> {
    match kind {
        Kind::Room => Some(user),
        Kind::Everyone | Kind::Inbox | Kind::Raw => None,
    }
}
