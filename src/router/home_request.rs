//! What a request of the control thread asks of one room's home: to remove a user, to forget the history, or a page of it.
//!
//! In a cluster the home only knows what is kept of the room: Redis has the history, and the cluster's thread answers.

use arcstr::ArcStr;

use super::cluster::{Order, ToCluster};
use super::history::{History, HistoryPolicy, StreamPosition};
use super::mail::{Content, Expulsion, HomeMail, Mail};
use super::requests::Homeward;
use super::slice::Slice;
use super::topic::{Kind, TopicIndex, TopicKey};
use super::{Router, Sink};
use crate::compress::{HeldBytes, SharedFrame};
use crate::frame::split_frame;
use crate::ids::{PeerId, RequestId};
use crate::limits::HISTORY_PAGE_MAX;

/// A request for a room's home.
#[derive(Debug)]
pub(super) struct HomeRequest {
    pub(super) request: RequestId,
    pub(super) room: TopicKey,
    pub(super) what: HomeAct,
}

/// What the home does.
#[derive(Debug)]
pub(super) enum HomeAct {
    /// Removes a user from the room, on a node alone.
    Kick { user: ArcStr, reason: Box<str> },
    /// Forgets the room's history.
    Purge,
    /// Reads a page of it.
    Read { range: PageRange, limit: usize },
    /// Reads a page of its items.
    ReadItems { after: u64, limit: usize },
}

/// Which messages of a history make a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageRange {
    /// The newest in front of this offset; `None` is the end.
    Before(Option<u64>),
    /// The oldest behind this offset.
    After(u64),
}

/// A page of a room's history, or of its items, on its way to the control thread.
#[derive(Debug)]
pub(super) struct HistoryPage {
    pub(super) request: RequestId,
    /// `None` where nothing is kept of the room.
    pub(super) position: Option<StreamPosition>,
    pub(super) messages: Slice,
    /// Where the next page begins, in the same direction; `None` where there is none.
    pub(super) next: Option<u64>,
}

impl HistoryPage {
    /// Appends the messages as a JSON array.
    pub(super) fn write_messages(&self, out: &mut Vec<u8>) {
        out.push(b'[');
        for (at, frame) in self.messages.frames().iter().enumerate() {
            if at > 0 {
                out.push(b',');
            }
            out.extend_from_slice(split_frame(frame.plain()).1);
        }
        out.push(b']');
    }
}

/// A page whose messages no history here has.
pub(super) fn page_apart(
    request: RequestId,
    position: StreamPosition,
    frames: Vec<SharedFrame>,
    next: Option<u64>,
) -> HistoryPage {
    // What waits to be sent is bounded by the requests under way.
    let messages = Slice::apart(frames, &std::sync::Arc::<HeldBytes>::default());
    HistoryPage { request, position: Some(position), messages, next }
}

impl Homeward {
    /// The mail that has nodes do something, and to whom. Of a node alone only [`Order::Kick`].
    pub fn order(&self, request: RequestId, order: Order) -> (PeerId, Mail) {
        match order {
            order if self.is_clustered() => {
                (PeerId::Cluster, Mail(Content::ToCluster(Box::new(ToCluster::Order { request, order }))))
            }
            Order::Kick { room, user, reason } => {
                self.home_request(request, &room, HomeAct::Kick { user: (&*user).into(), reason })
            }
            Order::Disconnect { .. } => unreachable!("each reactor is told by itself"),
        }
    }

    /// The mail that has a room's history forgotten, and to whom.
    pub fn purge(&self, request: RequestId, room: &str) -> (PeerId, Mail) {
        self.home_request(request, room, HomeAct::Purge)
    }

    /// The mail that reads a page of a room's history, and to whom: at most `limit` messages, and no more than
    /// [`HISTORY_PAGE_MAX`].
    pub fn read(&self, request: RequestId, room: &str, range: PageRange, limit: usize) -> (PeerId, Mail) {
        self.home_request(request, room, HomeAct::Read { range, limit: limit.min(HISTORY_PAGE_MAX) })
    }

    /// The mail that reads a page of a keyed room's items, and to whom: those behind an offset that have a value, at most
    /// `limit`, and no more than [`HISTORY_PAGE_MAX`].
    pub fn read_items(&self, request: RequestId, room: &str, after: u64, limit: usize) -> (PeerId, Mail) {
        self.home_request(request, room, HomeAct::ReadItems { after, limit: limit.min(HISTORY_PAGE_MAX) })
    }

    fn home_request(&self, request: RequestId, room: &str, what: HomeAct) -> (PeerId, Mail) {
        let room = self.key(Kind::Room, room);
        let home = self.home(room.hashed());
        (home.into(), Mail(Content::Home(HomeMail::Request(Box::new(HomeRequest { request, room, what })))))
    }
}

impl Router {
    /// Carries out what a request asks of a room that is at home here.
    pub(super) fn home_request(&mut self, asked: HomeRequest, sink: &mut impl Sink) {
        let HomeRequest { request, room, what } = asked;
        let found = self.topics.find(room.hashed());
        let policy = self.homes.policy(room.hashed(), found.map(|index| self.topics.get(index)));
        match (what, policy.history.filter(|_| self.cluster.is_some())) {
            (HomeAct::Kick { user, reason }, _) => {
                let nodes = u64::from(found.is_some_and(|index| !self.homes.is_empty(self.topics.get(index))));
                self.home_expel(&Expulsion { topic: room, user, reason }, sink);
                self.heard(request, nodes, sink);
            }
            (HomeAct::Purge, Some(policy)) => self.ask_cluster(ToCluster::Purge { request, topic: room, policy }),
            (HomeAct::Purge, None) => {
                if let (Some(index), Some(policy)) = (found, policy.history) {
                    self.purge(index, policy, sink);
                }
                self.heard(request, 1, sink);
            }
            (HomeAct::Read { range, limit }, Some(policy)) => {
                self.ask_cluster(ToCluster::Read { request, topic: room, policy, range, limit });
            }
            (HomeAct::ReadItems { after, limit }, _) if self.cluster.is_some() && policy.keyed.is_some() => {
                self.read_items_in_cluster(request, room, after, limit);
            }
            (HomeAct::ReadItems { after, limit }, _) => {
                let page = self.read_items(request, found, after, limit);
                self.send(PeerId::Control, Content::HistoryPage(Box::new(page)), sink);
            }
            (HomeAct::Read { range, limit }, None) => {
                let page = self.read_page(request, found, range, limit);
                self.send(PeerId::Control, Content::HistoryPage(Box::new(page)), sink);
            }
        }
    }

    fn heard(&mut self, request: RequestId, nodes: u64, sink: &mut impl Sink) {
        self.send(PeerId::Control, Content::Heard { request, nodes }, sink);
    }

    /// A history is forgotten: the members are told where the new one begins.
    fn purge(&mut self, index: TopicIndex, policy: HistoryPolicy, sink: &mut impl Sink) {
        let empty = match self.keyed.has(index) {
            true => self.begin_anew(index, policy, sink),
            false => self.retention.begin(policy),
        };
        self.retention.replace(&self.topics, &mut self.homes, index, Some(empty));
        if self.homes.is_empty(self.topics.get(index)) {
            return self.drop_if_unused(index);
        }
        self.retention.change(&self.topics, &mut self.homes, index, |history| history.tell());
        self.tell_gap(index, sink);
    }

    /// An empty history for a keyed room: the items keep their places, in a new epoch.
    fn begin_anew(&mut self, index: TopicIndex, policy: HistoryPolicy, sink: &mut impl Sink) -> History {
        let epoch = self.retention.new_epoch();
        let topic = &self.topics.get(index).key;
        for mirror in self.keyed.mirrors(index) {
            let content = Content::NewEpoch { topic: topic.clone(), epoch: epoch.clone() };
            self.outgoing.push((PeerId::Reactor(mirror), Mail(content)));
        }
        self.keyed.set_epoch(index, &epoch, sink);
        self.retention.begin_behind(self.keyed.position(index), policy)
    }

    fn read_items(&self, request: RequestId, found: Option<TopicIndex>, after: u64, limit: usize) -> HistoryPage {
        let page = found.and_then(|index| self.keyed.page(index, after, limit));
        let (position, frames, next) = match page {
            Some((position, frames, next)) => (Some(position), frames, next),
            None => (None, Vec::new(), None),
        };
        HistoryPage { request, position, messages: self.retention.slice_of(frames), next }
    }

    fn read_page(
        &mut self,
        request: RequestId,
        found: Option<TopicIndex>,
        range: PageRange,
        limit: usize,
    ) -> HistoryPage {
        let now = self.retention.now();
        let read = found.and_then(|index| {
            self.retention.change(&self.topics, &mut self.homes, index, |history| {
                history.expire(now);
                history.tell();
                (history.position(), history.read(range, limit))
            })
        });
        match read {
            Some((position, (messages, next))) => HistoryPage { request, position: Some(position), messages, next },
            None => HistoryPage { request, position: None, messages: Slice::default(), next: None },
        }
    }
}
