//! One routing primitive, sans-IO: everything that is sent goes to a topic.
//!
//! A topic is a room, a user's inbox, a raw room or everyone. Every topic has a *home* reactor, found by hash. The
//! home knows which reactors have members and orders everything that happens to the topic:
//!
//! ```text
//!   join, leave, publish, presence ──► home reactor ──► Joined, Left, Deliver ──► reactors with members
//!                     (mail)             one order            (mail, FIFO per pair of reactors)
//! ```
//!
//! A join takes effect where the home put it in that order, so "joined" is answered exactly between what the member
//! misses and what it gets. Where the home is this very reactor, the same steps are plain calls.
//!
//! The router is a thin front over parts that own their fields:
//!
//! ```text
//!   topics      names, each hashed once; for every topic of this reactor what each part knows of it
//!   members     this reactor's connections: what they want, what is confirmed, the lists that fan-out walks
//!   homes       topics at home here: which reactors have members, who is there, the policy, the history
//!   retention   how much those histories hold together, and which goes first
//!   keyed       items of keyed rooms, here and mirrored from their homes; who wants which
//!   cluster     the other nodes: each home's ClusterSubscription, what is published for them
//!   batches     what goes to members here at the end of the turn
//! ```
//!
//! Owns topics, membership, fan-out batches and presence. Never sees sockets, clocks or threads: calls come in, mail
//! goes to `poll_mail`, and what concerns this reactor's own connections goes to the [`Sink`]. May import `compress`,
//! `protocol`, `frame`, `ids`, `limits`, `time`.

mod at_cluster;
mod at_home;
mod at_member;
mod batch;
mod batches;
pub mod cluster;
mod cluster_subscription;
mod compose;
mod crowd;
mod edge;
mod history;
mod home_request;
mod homes;
mod kept;
mod keyed;
mod keys;
mod mail;
mod members;
mod needs;
mod policy;
mod publish_many;
#[cfg(any(test, debug_assertions))]
mod rebuild;
mod remote_publish;
mod replies;
mod requests;
mod retention;
mod sketch;
mod slice;
mod survey;
mod topic;
mod users;

#[cfg(test)]
mod cluster_tests;
#[cfg(test)]
mod history_tests;
#[cfg(test)]
mod tests;

use std::fmt;

pub use batch::{Batch, BatchBody, Excluded, Round};
pub use compose::{Audience, Author, Composed, Composer, Draft, key_of};
pub use crowd::{Census, Crowd, CrowdKey, Others};
pub use edge::{Edge, Turned, Watched};
pub use history::{HistoryPolicy, StreamPosition};
pub use home_request::PageRange;
pub use keyed::{
    Applied, CommandKind, ItemFilter, ItemState, ItemUpdate, ItemUpdates, ItemsOrigin, KeyedAnswer, PublishItems,
    StaleUpdates, Subscribe, Terms, TermsChange, TooManyItems, Tune, Updated,
};
pub use mail::{JoinReply, Mail, ManyJoin, Publish, RecoverFrom};
pub use policy::{KeyedPolicy, KeyedPolicyOfRoom, KeyedRooms, KeyedSettings, PolicyOfRoom, RoomPolicies, TopicPolicy};
pub use publish_many::{AddressedTopic, ApiKeyed, CommandId, Fate, PublishMany};
pub use requests::{HistoryRead, Homeward, Question, Reply, Told};
pub use retention::HistorySettings;
pub use sketch::{SKETCH_BYTES, Sketch};
pub use slice::Slice;
pub use survey::{
    ConnectionFound, ConnectionsFound, Described, Found, NodeFound, RoomFilter, RoomFound, RoomsFound, RoomsQuery,
    Survey, SurveyId,
};
pub use topic::{Kind, RAW_PREFIX, TopicKey, TopicRef};

use at_cluster::Cluster;
use batches::{Batches, Delivery};
use homes::Homes;
use keyed::{Keyed, KeyedBounds};
use mail::{Ack, Content, HistoryOf, HomeMail, PresenceOf, Published, Resume};
use members::Members;
use needs::Answered;
use retention::Retention;
use topic::{HashedTopic, TopicIndex, Topics};

use crate::frame::{FrameBuilder, Opcode};
use crate::ids::{ClientId, ConnId, PeerId, ReactorId, ReplyTo, Slot};
use crate::limits::{BATCH_POOL_BYTES_MAX, HISTORY_PAGE_MAX, POLICIES_PER_TURN};
use crate::protocol::InEpoch;
use crate::time::{Millis, Stamp};

/// Where the router puts what concerns this reactor's own connections, in order.
pub trait Sink {
    /// Every member gets the batch, but for what is excluded for it.
    fn deliver(&mut self, batch: Batch, members: &[Slot]);

    /// Whether a member's socket takes bytes now, as far as is known: then it gets rounds of keyed rooms.
    fn takes_rounds(&self, member: Slot) -> bool;

    /// One connection gets messages of a history, if it is still there.
    fn recover(&mut self, to: ConnId, slice: Slice);

    /// One connection gets one frame that another one sent to it, if it is still there.
    fn direct(&mut self, to: ConnId, frame: &[u8], published_at: Stamp);

    /// One connection gets an answer as a whole frame, if it is still there.
    fn reply(&mut self, to: ConnId, frame: &[u8]);

    /// A connection gets an answer, if it is still there.
    fn answer(&mut self, to: ConnId, answer: Answer<'_>);

    /// The connections of a user here end that are not found by the user's inbox: those to raw rooms, and those that are
    /// about to open.
    fn disconnect(&mut self, user: &str);

    /// What it knows of a connection, if that is still there.
    fn describe(&self, _conn: ConnId) -> Option<Described> {
        None
    }

    /// Tokens of a user that were made in this Unix second or before, or do not say when, are good no more.
    fn revoke(&mut self, _user: &str, _unix_s: u64) {}
}

/// What a connection is told.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer<'a> {
    /// Its first topic is joined: what is sent to it from now on arrives.
    Connected {
        /// Where its inbox is, if that keeps history.
        inbox: Option<InEpoch<'a>>,
    },
    /// It is a member of a room.
    Joined {
        /// The command's id as JSON text.
        id: Option<&'a str>,
        /// The room.
        room: &'a str,
        /// Where the room is, if it keeps history.
        position: Option<InEpoch<'a>>,
        /// What to say about recovery, where it was asked for.
        recovered: Option<bool>,
    },
    /// Of a keyed room.
    Keyed(KeyedAnswer<'a>),
    /// What its inbox had was sent.
    Resumed {
        /// The command's id as JSON text.
        id: Option<&'a str>,
        /// Where its inbox was when it was welcomed, if that keeps history.
        position: Option<InEpoch<'a>>,
        /// Whether all that was missed was sent.
        recovered: bool,
    },
    /// A reactor has routed all that came from it before it asked; see [`Router::fence`].
    Fenced,
    /// A command with this id is done.
    Acked {
        /// The command's id as JSON text.
        id: &'a str,
        /// Where the message is, if it was put into history.
        position: Option<InEpoch<'a>>,
    },
    /// It was removed from a room, and gets nothing more of it.
    Left {
        /// The room.
        room: &'a str,
        /// As the operator says it, or `forbidden`.
        reason: &'a str,
    },
    /// A room that it has asked to join is not for it any more.
    Forbidden {
        /// The command's id as JSON text.
        id: Option<&'a str>,
        /// The room.
        room: &'a str,
    },
    /// It is to end: an operator says so.
    Disconnected,
    /// It is to end: its user has as many connections as allowed.
    Full,
    /// It is to end: a newer connection of its user takes its place.
    Replaced,
    /// A command needs Redis, which does not answer.
    Unavailable {
        /// The command's id as JSON text.
        id: Option<&'a str>,
        /// The room that the command was about, where it was about one.
        room: Option<&'a str>,
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

/// What a router is told to do.
#[derive(Clone, Debug)]
pub struct RouterSettings {
    /// Rooms of one connection.
    pub rooms_max: usize,
    /// Join and leave notices.
    pub notices: NoticeSettings,
    /// What is kept of messages.
    pub history: HistorySettings,
    /// What is kept of items.
    pub keyed: KeyedSettings,
    /// Connections of one user on the node that speak JSON; `None` is no limit.
    pub user_connections: Option<UserConnections>,
    /// Whether the node is one of a cluster: then there is [`PeerId::Cluster`].
    pub cluster: bool,
}

/// How many connections one user may have on a node. The home of the user's inbox decides, so it holds over all reactors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UserConnections {
    /// So many, at least one.
    pub max: usize,
    /// What becomes of one more.
    pub policy: UserConnectionsPolicy,
}

/// What becomes of a connection more than its user may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UserConnectionsPolicy {
    /// It is not let in: [`Answer::Full`].
    Refuse,
    /// The user's oldest makes room: [`Answer::Replaced`].
    Replace,
}

/// Why a join is refused. Nothing has changed then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JoinError {
    /// The connection would be in more than `limits.rooms_max` rooms.
    TooManyRooms,
    /// A position was given, but the connection is a member already.
    AlreadyJoined,
}

/// See the module's documentation. Its parts own what they are for; the front gives each input to them in order.
pub struct Router {
    me: ReactorId,
    reactors: u16,
    /// Names, each hashed once, and what each part knows of a topic.
    topics: Topics,
    everyone: TopicIndex,
    /// This reactor's connections, and of what they are members.
    members: Members,
    /// Topics at home here.
    homes: Homes,
    /// How much the histories of those hold.
    retention: Retention,
    /// The other nodes, if there are any.
    cluster: Option<Cluster>,
    /// Items of keyed rooms, and who wants which.
    keyed: Keyed,
    /// What goes to members here at the end of the turn.
    batches: Batches,
    /// Of which topics edges are told.
    watched: Watched,
    outgoing: Vec<(PeerId, Mail)>,
    frames: FrameBuilder,
    /// When this turn began.
    turn_began_at: Stamp,
    /// Unix time of this turn, in milliseconds.
    unix_ms: u64,
    /// Topics from this index on have a policy of before the settings changed.
    stale_from: Option<u32>,
}

impl Router {
    /// The router of reactor `me` of `reactors`; `seed` is the same for all of a node and secret, `run` is that of no
    /// other run of a server.
    pub fn new(me: ReactorId, reactors: u16, seed: u64, run: u64, settings: RouterSettings) -> Router {
        assert!(me.0 < reactors);
        let mut topics = Topics::new(seed, reactors);
        let everyone = topics.find_or_insert(&TopicKey::everyone());
        topics.get_mut(everyone).subscriptions = 1;
        Router {
            me,
            reactors,
            topics,
            everyone,
            members: Members::new(everyone, settings.rooms_max),
            homes: Homes::new(&settings, seed),
            retention: Retention::new(&settings.history, run, me),
            cluster: settings.cluster.then(Cluster::new),
            keyed: Keyed::new(me, seed, keyed_bounds(&settings, reactors)),
            batches: Batches::new(),
            watched: Watched::default(),
            outgoing: Vec::new(),
            frames: FrameBuilder::default(),
            turn_began_at: Stamp::default(),
            unix_ms: 0,
            stale_from: None,
        }
    }

    /// Other settings hold from now on. Topics that are there take theirs within the next turns: see
    /// [`Router::has_stale_policies`]. Whether one of them, or an inbox, keeps history does not change, nor which rooms are
    /// keyed, nor whether the node is one of a cluster.
    pub fn change(&mut self, settings: &RouterSettings) {
        self.members.set_rooms_max(settings.rooms_max);
        self.homes.change(settings);
        self.retention.set_bytes_max(settings.history.bytes_max);
        self.keyed.set_bounds(keyed_bounds(settings, self.reactors));
        self.stale_from = Some(0);
    }

    /// Whether there are topics that have not taken their settings yet: the next turns are wanted for it.
    pub fn has_stale_policies(&self) -> bool {
        self.stale_from.is_some()
    }

    fn refresh_policies(&mut self) {
        for _ in 0..POLICIES_PER_TURN {
            let Some(from) = self.stale_from else { return };
            let found = self.topics.first_from(from);
            self.stale_from = found.map(|index| index.0 + 1);
            if let Some(index) = found {
                let topic = self.topics.get(index);
                self.homes.resolve_again(topic);
                if let Some(policy) = self.homes.get(topic).and_then(|home| home.policy.keyed) {
                    self.keyed.set_policy(index, policy);
                }
            }
        }
    }

    /// From now on edges of these topics are told to [`PeerId::Webhooks`]. To be called before there is a member.
    pub fn watch(&mut self, watched: Watched) {
        self.watched = watched;
    }

    /// Takes mail. What it is about says who is answered.
    pub fn handle_mail(&mut self, mail: Mail, sink: &mut impl Sink) {
        match mail.0 {
            Content::Home(mail) => self.home_mail(mail, sink),
            Content::Resumed(resumed) => self.resumed(*resumed, sink),
            Content::Joined(joined) => self.joined(*joined, sink),
            Content::Left(left) => self.left(*left, sink),
            Content::Deliver { topic, frame, exclude, published_at } => {
                if let Some(index) = self.topics.find(topic.hashed()) {
                    let before = self.batches.deliver_as_of(published_at);
                    let delivery = Delivery { frame: frame.plain(), shared: Some(&frame), exclude };
                    self.deliver_here(index, delivery, sink);
                    self.batches.deliver_as_of(before);
                }
            }
            Content::DeliverMany { topic, frames, published_at } => {
                if let Some(index) = self.topics.find(topic.hashed()) {
                    let before = self.batches.deliver_as_of(published_at);
                    self.batches.deliver_many(&mut self.topics, &self.members, index, &frames, sink);
                    self.batches.deliver_as_of(before);
                }
            }
            Content::Direct { to, frame, ack, published_at } => {
                sink.direct(to, frame.plain(), published_at.unwrap_or(self.turn_began_at));
                if let Some(ack) = ack {
                    self.send(ack.to.peer(), Content::Acked(ack), sink);
                }
            }
            Content::Page(page) => self.reply(page.to, |out| page.write(out), sink),
            Content::Users(users) => self.reply(users.to, |out| users.write(out), sink),
            Content::Counted(counted) => self.reply(counted.to, |out| counted.write(out), sink),
            Content::Fence { from: member } if self.cluster.is_some() => self.fence_cluster(member),
            Content::Fence { from: member } => self.send(member.reactor, Content::Fenced { to: member }, sink),
            Content::Fenced { to } => sink.answer(to, Answer::Fenced),
            Content::Acked(ack) => sink.answer(conn_of(ack.to), ack.answer()),
            Content::ItemsRefused(refused) => refused.answer(sink),
            Content::Items { topic, items } => self.mirrored(&topic, &items, sink),
            Content::Reload { topic, reload } => self.mirror_reloaded(&topic, &reload, sink),
            Content::NewEpoch { topic, epoch } => {
                if let Some(index) = self.topics.find(topic.hashed()) {
                    self.keyed.set_epoch(index, &epoch, sink);
                }
            }
            Content::Freshness { topic, offset, is_stale } => {
                if let Some(index) = self.topics.find(topic.hashed()) {
                    self.freshness(index, offset, is_stale, sink);
                }
            }
            Content::Tuned(tuned) => self.tuned(*tuned, sink),
            Content::Expel(expulsion) => self.expel(&expulsion, sink),
            Content::Replaced { member } => sink.answer(member, Answer::Replaced),
            Content::Unavailable { to, id, room } => {
                sink.answer(conn_of(to), Answer::Unavailable { id: id.as_deref(), room: room.as_deref() });
            }
            Content::FromCluster(news) => self.cluster_news(*news, sink),
            Content::PublishMany(many) => self.publish_many(many, sink),
            Content::PublishedMany(many) => unreachable!("{many:?} is for the control thread"),
            Content::Survey(of) => self.surveyed(*of, sink),
            Content::Surveyed(_) | Content::HistoryPage(_) | Content::Heard { .. } => {
                unreachable!("it is for the control thread")
            }
            Content::ToCluster(request) => unreachable!("{request:?} is for the cluster's thread"),
            Content::Edge(edge) => unreachable!("{edge:?} is for the webhooks' thread"),
        }
    }

    /// A turn begins: what is due to go from history goes.
    pub fn begin_turn(&mut self, now: Millis) {
        self.retention.begin_turn(now);
        self.keyed.begin_turn(now);
        while let Some(index) = self.retention.expire_next(&self.topics, &mut self.homes) {
            self.drop_if_empty(index);
        }
        // What was compressed since is counted only now.
        self.make_room();
        self.refresh_policies();
    }

    /// When the turn began, as far as latencies are concerned: what is published in it, was then.
    pub fn turn_began(&mut self, at: Stamp, unix_ms: u64) {
        (self.turn_began_at, self.unix_ms) = (at, unix_ms);
        self.batches.deliver_as_of(at);
    }

    /// The turn ends: hands every open batch to the members.
    pub fn end_turn(&mut self, sink: &mut impl Sink) {
        self.do_chores(sink);
        self.batches.end_turn(&mut self.topics, &self.members, sink);
        self.end_turn_of_keyed(sink);
        self.post_remote();
        self.frames.shrink(BATCH_POOL_BYTES_MAX);
    }

    /// When the router has something to do by itself, in a turn that begins then; `None` where it has not.
    pub fn next_at(&self) -> Option<Millis> {
        self.keyed.next_at()
    }

    /// A connection's socket took only the first `taken` frames of a round, one that it has begun included: it is sent no
    /// others of it. The connection may have left the room, or ended, since it was given the round.
    pub fn fell_behind(&mut self, conn: ConnId, round: &Round, taken: usize) {
        if let Some(index) = self.topics.find(round.topic.hashed()) {
            self.keyed.fell_behind(index, conn, round, taken);
        }
    }

    /// All that a connection had was sent, and its socket takes more: where it lags, it gets what it lacks of keyed rooms
    /// from the end of this turn on.
    pub fn takes_again(&mut self, conn: ConnId) {
        self.keyed.takes_again(conn.slot);
    }

    /// Publishes to a topic. With an `id` the publisher is told when the topic's home has routed it, or when it is in
    /// history.
    #[inline]
    pub fn publish(&mut self, publish: Publish<'_>, id: Option<&str>, sink: &mut impl Sink) {
        let name = self.topics.hashed(publish.topic);
        if self.topics.home(name) == self.me
            && let Some(position) = self.publish_at_home(name, &publish, sink)
        {
            if let Some(id) = id {
                self.acknowledge(publish.publisher, id, position, sink);
            }
            return;
        }
        let Publish { topic: _, frame, exclude, key, publisher } = publish;
        let (key, id) = (key.map(Into::into), id.map(Into::into));
        let (topic, frame, published_at) = (name.to_key(), frame.into(), Some(self.turn_began_at));
        let published = Published { topic, frame, exclude, key, publisher, published_at, id };
        self.send_home(HomeMail::Publish(Box::new(published)), sink);
    }

    /// Publishes to a topic that is at home here; its position, if it was put into history. `None` where that can't be done
    /// at once, and nothing has happened.
    #[inline]
    fn publish_at_home(
        &mut self,
        name: HashedTopic<'_>,
        publish: &Publish<'_>,
        sink: &mut impl Sink,
    ) -> Option<Option<StreamPosition>> {
        let found = self.topics.find(name);
        if !self.routes_at_once(name, found) {
            return None;
        }
        if let Some(cluster) = &mut self.cluster {
            cluster.remote.push(name, publish.frame);
        }
        Some(self.keep_and_fan_out(name, found, publish, None, sink))
    }

    /// Whether a publish at the topic's home concerns the members only, here and elsewhere: Redis keeps nothing of it, and
    /// nothing is being waited for.
    #[inline]
    fn routes_at_once(&mut self, name: HashedTopic<'_>, found: Option<TopicIndex>) -> bool {
        if self.cluster.is_none() {
            return true;
        }
        let topic = found.map(|index| self.topics.get(index));
        let home = topic.and_then(|topic| self.homes.get(topic));
        let is_pending = home.is_some_and(|home| home.subscription.is_pending());
        !is_pending && self.homes.policy(name, topic).history.is_none()
    }

    /// Sends a whole frame to one connection, wherever it is.
    pub fn direct(&mut self, to: ConnId, frame: &[u8], ack: Option<(ConnId, &str)>, sink: &mut impl Sink) {
        if to.reactor == self.me {
            sink.direct(to, frame, self.turn_began_at);
            if let Some((to, id)) = ack {
                sink.answer(to, Answer::Acked { id, position: None });
            }
        } else if to.reactor.0 < self.reactors {
            let ack = ack.map(|(to, id)| Box::new(Ack { to: to.into(), id: id.into(), position: None, stale: None }));
            let (frame, published_at) = (frame.into(), Some(self.turn_began_at));
            self.outgoing.push((to.reactor.into(), Mail(Content::Direct { to, frame, ack, published_at })));
        } else if let Some((to, id)) = ack {
            sink.answer(to, Answer::Acked { id, position: None });
        }
    }

    /// Whether a room keeps history, wherever its home is.
    pub fn keeps_history(&mut self, room: &str) -> bool {
        let room = self.topics.hashed(TopicRef { kind: Kind::Room, name: room });
        !self.homes.keeps_none(Kind::Room) && self.homes.policy(room, None).history.is_some()
    }

    /// Whether a room or a raw room is keyed, wherever its home is. All reactors answer alike, and always the same.
    #[inline]
    pub fn is_keyed(&mut self, topic: TopicRef<'_>) -> bool {
        self.homes.has_keyed() && self.homes.is_keyed(self.topics.hashed(topic))
    }

    /// Whether there are other nodes.
    pub fn is_clustered(&self) -> bool {
        self.cluster.is_some()
    }

    /// Sends a whole frame to a connection of another node of the cluster, if there is one with this id.
    pub fn direct_elsewhere(&mut self, to: ClientId, frame: &[u8]) {
        self.ask_cluster(cluster::ToCluster::Direct { to, frame: frame.into() });
    }

    /// Asks a room's home for a page of its history; `asker` gets the reply as a message. `false` where it is no member.
    pub fn history(
        &mut self,
        asker: ConnId,
        room: &str,
        id: Option<&str>,
        before: Option<u64>,
        limit: Option<u64>,
        sink: &mut impl Sink,
    ) -> bool {
        let room = self.topics.hashed(TopicRef { kind: Kind::Room, name: room });
        if !self.members.is_member(&self.topics, asker, room) {
            return false;
        }
        let limit = limit.map_or(HISTORY_PAGE_MAX, |limit| limit.min(HISTORY_PAGE_MAX as u64) as usize);
        let room = room.to_key();
        let question = HistoryOf { room, asker: asker.into(), id: id.map(Into::into), before, limit };
        self.send_home(HomeMail::History(Box::new(question)), sink);
        true
    }

    /// Asks for what came to the connection's inbox between a position and its welcome.
    pub fn resume(&mut self, conn: ConnId, epoch: &str, offset: u64, id: Option<&str>, sink: &mut impl Sink) {
        let Some(subscriber) = self.members.get(conn) else { return };
        let inbox = self.topics.key(Kind::Inbox, subscriber.name(&self.topics).clone());
        let welcomed_at = subscriber.welcomed_at.as_deref().cloned();
        let resume = Resume { inbox, to: conn, epoch: epoch.into(), offset, welcomed_at, id: id.map(Into::into) };
        self.send_home(HomeMail::Resume(Box::new(resume)), sink);
    }

    /// Asks a room's home who is in it; `asker` gets the reply as a message.
    pub fn presence(&mut self, asker: ConnId, room: &str, id: Option<&str>, sink: &mut impl Sink) {
        let room = self.topics.key(Kind::Room, room.into());
        let question = PresenceOf { room, asker: asker.into(), id: id.map(Into::into) };
        self.send_home(HomeMail::Presence(Box::new(question)), sink);
    }

    /// Whether every topic is at home here and nothing comes by mail.
    pub fn is_alone(&self) -> bool {
        self.reactors == 1 && self.cluster.is_none()
    }

    /// Asks every other reactor, and in a cluster this one too, to answer [`Answer::Fenced`] behind all that it has for
    /// `conn` of what `conn` has sent so far; how many were asked.
    pub fn fence(&mut self, conn: ConnId, sink: &mut impl Sink) -> u16 {
        let spared = self.cluster.is_none().then_some(self.me);
        let mut asked = 0;
        for reactor in (0..self.reactors).map(ReactorId).filter(|&reactor| Some(reactor) != spared) {
            asked += 1;
            self.send(reactor, Content::Fence { from: conn }, sink);
        }
        asked
    }

    /// Mail for other peers, in order; to be posted before any connection is flushed.
    pub fn poll_mail(&mut self) -> impl Iterator<Item = (PeerId, Mail)> {
        self.outgoing.drain(..)
    }

    /// Takes back the buffer of a joined batch that nothing refers to any more.
    pub fn recycle(&mut self, buffer: Vec<u8>) {
        self.batches.recycle(buffer);
    }

    /// From which size on a frame is worth compressing for a connection here; `usize::MAX` where none agreed on that.
    pub fn compress_from(&mut self, frame_bytes: usize) {
        self.batches.compress_from(frame_bytes);
    }

    /// Bytes gathered in open batches, and for other nodes: beyond `limits::TURN_BYTES_MAX` the turn is to be flushed early.
    pub fn open_bytes(&self) -> usize {
        self.batches.bytes()
            + self.keyed.open_bytes()
            + self.cluster.as_ref().map_or(0, |cluster| cluster.remote.bytes())
    }

    /// Bytes that all histories of this reactor hold.
    pub fn history_bytes(&self) -> usize {
        self.retention.held_bytes()
    }

    /// Topics in this reactor's table, everyone's included.
    pub fn topics_count(&self) -> usize {
        self.topics.len()
    }

    /// Topics at home here that wait for the cluster.
    pub fn waiting_topics(&self) -> usize {
        self.homes.pending()
    }

    /// Mail for a topic that is at home here.
    fn home_mail(&mut self, mail: HomeMail, sink: &mut impl Sink) {
        match self.cluster.is_some() {
            true => self.arrived(mail, Answered::Nothing, sink),
            false => self.home_act(mail, sink),
        }
    }

    fn send_home(&mut self, mail: HomeMail, sink: &mut impl Sink) {
        let home = self.topics.home(mail.topic().hashed());
        self.send(home, Content::Home(mail), sink);
    }

    /// Tells a publisher that its message is routed or kept.
    #[inline]
    fn acknowledge(&mut self, to: ReplyTo, id: &str, position: Option<StreamPosition>, sink: &mut impl Sink) {
        match to {
            ReplyTo::Conn(conn) if conn.reactor == self.me => {
                sink.answer(conn, Answer::Acked { id, position: position.as_ref().map(StreamPosition::in_epoch) });
            }
            ReplyTo::Conn(_) | ReplyTo::Request(_) => {
                let ack = Ack { to, id: id.into(), position, stale: None };
                self.send(to.peer(), Content::Acked(Box::new(ack)), sink);
            }
        }
    }

    /// A connection of this reactor gets an answer as a message.
    fn reply(&mut self, to: ReplyTo, write: impl FnOnce(&mut Vec<u8>), sink: &mut impl Sink) {
        sink.reply(conn_of(to), self.frames.build(Opcode::Text, write));
    }

    /// To another peer by mail, to this reactor by a call.
    fn send(&mut self, to: impl Into<PeerId>, content: Content, sink: &mut impl Sink) {
        let to = to.into();
        match to == PeerId::Reactor(self.me) {
            true => self.handle_mail(Mail(content), sink),
            false => self.outgoing.push((to, Mail(content))),
        }
    }
}

/// A reactor's part of what keyed rooms of a node may hold: topics are spread evenly.
fn keyed_bounds(settings: &RouterSettings, reactors: u16) -> KeyedBounds {
    let part = |all: u64| usize::try_from(all / u64::from(reactors)).unwrap_or(usize::MAX);
    KeyedBounds { items_max: part(settings.keyed.node_items_max), bytes_max: part(settings.keyed.node_bytes_max) }
}

/// The connection that mail to a reactor answers.
fn conn_of(to: ReplyTo) -> ConnId {
    match to {
        ReplyTo::Conn(conn) => conn,
        ReplyTo::Request(request) => unreachable!("{request:?} is the control thread's"),
    }
}

impl fmt::Debug for Router {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Router").field("me", &self.me).field("topics", &self.topics.len()).finish_non_exhaustive()
    }
}
