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
//! Owns topics, membership, fan-out batches and presence. Never sees sockets, clocks or threads: calls come in, mail
//! goes to `poll_mail`, and what concerns this reactor's own connections goes to the [`Sink`]. May import `compress`,
//! `protocol`, `frame`, `ids`, `limits`.

mod abroad;
mod batch;
pub mod cluster;
mod crowd;
mod fanout;
mod histories;
mod history;
mod home;
mod homes;
mod kept;
mod link;
mod mail;
mod members;
mod needs;
mod replies;
mod sketch;
mod slice;
mod subscriber;
mod topic;

#[cfg(test)]
mod history_tests;
#[cfg(test)]
mod link_tests;
#[cfg(test)]
mod tests;

use std::fmt;

pub use batch::{Batch, BatchBody, Excluded};
pub use crowd::{Census, Crowd, CrowdKey, Others};
pub use histories::{HistorySettings, PolicyOfRoom, RoomPolicies};
pub use history::{HistoryPolicy, Place};
pub use mail::{Ask, Mail, ManyJoin, Publish, Wish};
pub use sketch::{SKETCH_BYTES, Sketch};
pub use slice::Slice;
pub use topic::{Kind, TopicKey, TopicRef};

use abroad::Abroad;
use cluster::ToCluster;
use histories::Histories;
use mail::Content;
use needs::Aside;
use subscriber::Subscribers;
#[cfg(any(test, debug_assertions))]
use subscriber::{NO_PLACE, Subscriber};
use topic::{TopicHasher, TopicIndex, TopicTable};

use crate::frame::FrameBuilder;
use crate::ids::{ConnId, ReactorId, Slot};
use crate::limits::CLUSTER_FENCE_ROUNDS;
use crate::protocol::InEpoch;
use crate::time::Millis;

/// Where the router puts what concerns this reactor's own connections, in order.
pub trait Sink {
    /// Every member gets the batch, but for what is excluded for it.
    fn deliver(&mut self, batch: Batch, members: &[Slot]);

    /// One connection gets messages of a history, if it is still there.
    fn recover(&mut self, to: ConnId, slice: Slice);

    /// One connection gets one frame that another one sent to it, if it is still there.
    fn direct(&mut self, to: ConnId, frame: &[u8]);

    /// One connection gets an answer as a whole frame, if it is still there.
    fn reply(&mut self, to: ConnId, frame: &[u8]);

    /// A connection gets an answer, if it is still there.
    fn answer(&mut self, to: ConnId, answer: Answer<'_>);
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
        place: Option<InEpoch<'a>>,
        /// What to say about recovery, where it was asked for.
        recovered: Option<bool>,
    },
    /// What its inbox had was sent.
    Resumed {
        /// The command's id as JSON text.
        id: Option<&'a str>,
        /// Where its inbox was when it was welcomed, if that keeps history.
        place: Option<InEpoch<'a>>,
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
        place: Option<InEpoch<'a>>,
    },
    /// It was removed from a room, and gets nothing more of it.
    Left {
        /// The room.
        room: &'a str,
        /// As the operator says it.
        reason: &'a str,
    },
    /// It is to end: an operator says so.
    Disconnected,
    /// A command needs Redis, which does not answer.
    Unavailable {
        /// The command's id as JSON text.
        id: Option<&'a str>,
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
    /// Whether the node is one of a cluster: then mail for it goes to [`cluster::cluster_mailbox`].
    pub cluster: bool,
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
    compress_from_bytes: usize,
    histories: Histories,
    /// Where mail for the cluster goes, if there is one.
    cluster: Option<ReactorId>,
    cluster_reachable: bool,
    abroad: Abroad,
    /// A page for those who are answered now.
    aside: Option<Aside>,
    /// Topics that were opened in the cluster so far.
    openings: u64,
    /// The time of this turn.
    now: Millis,
}

impl Router {
    /// The router of reactor `me` of `reactors`; `seed` is the same for all of a node and secret, `run` is that of no
    /// other run of a server.
    pub fn new(me: ReactorId, reactors: u16, seed: u64, run: u64, settings: RouterSettings) -> Router {
        let RouterSettings { rooms_max, notices, history, cluster } = settings;
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
            compress_from_bytes: usize::MAX,
            histories: Histories::new(history, run, me),
            cluster: cluster.then(|| cluster::cluster_mailbox(reactors)),
            cluster_reachable: false,
            abroad: Abroad::default(),
            aside: None,
            openings: 0,
            now: Millis(0),
        }
    }

    /// Takes mail that reactor `from` sent.
    pub fn handle_mail(&mut self, from: ReactorId, mail: Mail, sink: &mut impl Sink) {
        match mail.0 {
            content @ (Content::Join(_)
            | Content::Leave(_)
            | Content::Publish(_)
            | Content::Presence(_)
            | Content::History(_)
            | Content::Resume(_)) => self.home_mail(from, content, sink),
            Content::Resumed(resumed) => self.resumed(*resumed, sink),
            Content::Joined(joined) => self.joined(*joined, sink),
            Content::Left(left) => self.left(*left, sink),
            Content::Deliver { topic, frame, exclude } => {
                let hash = self.topics.hasher().hash(topic.borrow());
                if let Some(index) = self.topics.find(hash, topic.borrow()) {
                    self.deliver_here(index, frame.plain(), Some(&frame), exclude, sink);
                }
            }
            Content::DeliverMany { topic, frames } => {
                let hash = self.topics.hasher().hash(topic.borrow());
                if let Some(index) = self.topics.find(hash, topic.borrow()) {
                    self.deliver_many_here(index, &frames, sink);
                }
            }
            Content::Direct { to, frame, ack } => {
                sink.direct(to, frame.plain());
                if let Some(ack) = ack {
                    self.send(from, Content::Acked(ack), sink);
                }
            }
            Content::Page(page) => self.reply_page(&page, sink),
            Content::Users(users) => self.reply_users(&users, sink),
            Content::Counted(counted) => self.reply_counted(&counted, sink),
            Content::Fence { from: member } if self.cluster.is_some() => {
                self.ask_cluster(ToCluster::Fence { member, rounds_left: CLUSTER_FENCE_ROUNDS });
            }
            Content::Fence { from: member } => self.send(from, Content::Fenced { to: member }, sink),
            Content::Fenced { to } => sink.answer(to, Answer::Fenced),
            Content::Acked(ack) => {
                let place = ack.place.as_ref().map(Place::in_epoch);
                sink.answer(ack.to, Answer::Acked { id: &ack.id, place });
            }
            Content::Expel(expulsion) => self.expel(&expulsion, sink),
            Content::Unavailable { to, id } => sink.answer(to, Answer::Unavailable { id: id.as_deref() }),
            Content::FromCluster(news) => self.cluster_news(*news, sink),
            Content::ToCluster(request) => unreachable!("{request:?} is for the cluster's thread"),
        }
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

    /// Mail for other reactors, in order; to be posted before any connection is flushed.
    pub fn poll_mail(&mut self) -> impl Iterator<Item = (ReactorId, Mail)> {
        self.outgoing.drain(..)
    }

    /// Topics in this reactor's table, everyone's included.
    pub fn topics_count(&self) -> usize {
        self.topics.len()
    }

    /// Topics at home here that wait for the cluster.
    pub fn waiting_topics(&self) -> usize {
        self.topics.iter().filter(|(_, topic)| topic.link.is_waiting()).count()
    }

    fn send_home(&mut self, topic: &TopicKey, content: Content, sink: &mut impl Sink) {
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

    fn drop_topic_if_unused(&mut self, key: &TopicKey) {
        let hash = self.topics.hasher().hash(key.borrow());
        let Some(index) = self.topics.find(hash, key.borrow()) else { return };
        let topic = self.topics.get(index);
        if topic.subscriptions == 0 && topic.home.is_empty() && topic.link.is_apart() && topic.keeps_nothing() {
            if let Some(Batch { body: BatchBody::Joined(buffer), .. }) = self.take_batch(index) {
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
        self.histories.check(&self.topics);
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
                let needed = !topic.home.is_empty() || !topic.keeps_nothing() || !topic.link.is_apart();
                assert!(all > 0 || needed, "{:?} is unused", topic.key);
            }
        }
    }
}

impl fmt::Debug for Router {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Router").field("me", &self.me).field("topics", &self.topics.len()).finish_non_exhaustive()
    }
}
