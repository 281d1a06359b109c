//! What a request of the control thread asks of every reactor, in a cluster of those of all nodes: which rooms there are,
//! which connections a user has, or that those end.
//!
//! ```text
//!   control ── Survey ─► each reactor ── Found ─► control                                   (a node alone)
//!   control ── Survey ─► cluster ─► each node: each reactor ── Found ─► cluster ─► control
//! ```
//!
//! Rooms are walked in the order of their names, so that what one answer leaves out the next begins with, whatever came
//! and went meanwhile, on this node or on others. An answer of one reactor is bounded in rooms looked at, rooms listed and
//! bytes, and says how far it has come.

use std::fmt;
use std::ops::Bound;
use std::sync::Arc;

use arcstr::ArcStr;

use super::cluster::ToCluster;
use super::mail::{Content, Expulsion, Mail};
use super::requests::Homeward;
use super::topic::{Kind, TopicRef};
use super::{Router, Sink};
use crate::ids::{ClientId, ConnId, PeerId, RequestId};
use crate::limits::{SURVEY_BYTES_MAX, SURVEY_BYTES_MIN, SURVEY_ROOMS_MAX, SURVEY_VISITED_MAX};

/// What is asked of each reactor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Survey {
    /// The next rooms with members.
    Rooms(RoomsQuery),
    /// A user's connections that speak JSON.
    Connections {
        /// Whose.
        user: ArcStr,
    },
    /// All connections of a user are to end.
    Disconnect {
        /// Whose.
        user: ArcStr,
    },
}

/// Which rooms are asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoomsQuery {
    /// Behind which name; empty is from the first on.
    pub after: ArcStr,
    /// Which of them.
    pub filter: RoomFilter,
}

/// Rooms that any of some patterns means, and one more where there is one.
#[derive(Clone)]
pub struct RoomFilter {
    /// Of these patterns one has to match.
    pub any_of: Arc<[Box<str>]>,
    /// And this one, where there is one.
    pub matching: Option<Box<str>>,
    /// What the names of all such rooms begin with.
    pub prefix: Box<str>,
    /// Whether a room is meant.
    pub test: Arc<dyn Fn(&str) -> bool + Send + Sync>,
}

/// What one reactor has found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// For [`Survey::Rooms`].
    Rooms(RoomsFound),
    /// For [`Survey::Connections`].
    Connections(ConnectionsFound),
    /// For [`Survey::Disconnect`]: they end.
    Done,
}

/// Rooms in the order of their names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RoomsFound {
    /// Some rooms.
    pub rooms: Vec<RoomFound>,
    /// Up to which name there are no others; `None` where there are no others at all.
    pub up_to: Option<ArcStr>,
}

/// A room with members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoomFound {
    /// Its id.
    pub name: ArcStr,
    /// Members on the reactors of the node.
    pub members: u64,
    /// Distinct users among them.
    pub users: u64,
}

/// Some of a user's connections.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConnectionsFound {
    /// In no order.
    pub connections: Vec<ConnectionFound>,
    /// Whether there are more, or more rooms of one, than an answer holds.
    pub is_truncated: bool,
}

/// A connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionFound {
    /// As clients know it: 36 characters.
    pub client_id: Box<str>,
    /// When it opened, in Unix milliseconds.
    pub since_unix_ms: u64,
    /// Rooms that it is a member of.
    pub rooms: Vec<ArcStr>,
}

/// What one node's reactor has found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeFound {
    /// The run of the node; `None` is this one.
    pub run: Option<u64>,
    /// What was found there.
    pub found: Found,
}

/// What the router does not know of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Described {
    /// As clients know it.
    pub client_id: ClientId,
    /// When it opened, in Unix milliseconds.
    pub since_unix_ms: u64,
}

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SurveyId {
    /// The run of the node that asks.
    pub run: u64,
    /// The number of its survey.
    pub number: u64,
}

/// A survey of a node alone, on its way to one reactor.
#[derive(Debug)]
pub(super) struct SurveyOf {
    pub(super) request: RequestId,
    pub(super) survey: Survey,
}

/// What was found, on its way to the control thread.
#[derive(Debug)]
pub(super) struct Surveyed {
    pub(super) request: RequestId,
    pub(super) found: Arc<Vec<NodeFound>>,
}

impl RoomFilter {
    /// Of patterns in which `*` stands for any run of characters; what they mean [`RoomFilter::tested_by`] says.
    pub fn new(any_of: &[&str], matching: Option<&str>) -> RoomFilter {
        let prefix_of = |pattern: &&str| pattern.len() - pattern.split_once('*').map_or(0, |(_, rest)| rest.len() + 1);
        let texts = matching.iter().chain(if let [only] = any_of { Some(only) } else { None });
        let longest = texts.max_by_key(|pattern| prefix_of(pattern));
        RoomFilter {
            any_of: any_of.iter().map(|pattern| Box::from(*pattern)).collect(),
            matching: matching.map(Box::from),
            prefix: longest.map_or("", |pattern| &pattern[..prefix_of(pattern)]).into(),
            test: Arc::new(|_| false),
        }
    }

    /// The same with the test that the patterns mean.
    pub fn tested_by(self, test: impl Fn(&str) -> bool + Send + Sync + 'static) -> RoomFilter {
        RoomFilter { test: Arc::new(test), ..self }
    }

    /// Patterns that may have to be looked at for one room.
    fn patterns(&self) -> usize {
        self.any_of.len() + usize::from(self.matching.is_some())
    }
}

impl PartialEq for RoomFilter {
    /// The test follows from the patterns.
    fn eq(&self, other: &RoomFilter) -> bool {
        self.any_of == other.any_of && self.matching == other.matching
    }
}

impl Eq for RoomFilter {}

impl fmt::Debug for RoomFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RoomFilter({:?}, {:?})", self.any_of, self.matching)
    }
}

impl Found {
    /// About the bytes that it takes.
    pub fn bytes(&self) -> usize {
        match self {
            Found::Rooms(found) => found.rooms.iter().map(RoomFound::bytes).sum(),
            Found::Connections(found) => found.connections.iter().map(ConnectionFound::bytes).sum(),
            Found::Done => 0,
        }
    }
}

impl RoomFound {
    fn bytes(&self) -> usize {
        self.name.len() + 24
    }
}

impl ConnectionFound {
    fn bytes(&self) -> usize {
        64 + self.rooms.iter().map(|room| room.len() + 4).sum::<usize>()
    }
}

impl Homeward {
    /// The mail that asks all reactors: each of a node alone, or the cluster's thread; how many answers there will be. In a
    /// cluster an order goes as [`Homeward::order`].
    pub fn survey(&self, request: RequestId, survey: &Survey) -> Vec<(PeerId, Mail)> {
        match self.is_clustered() {
            true => {
                let survey = survey.clone();
                vec![(PeerId::Cluster, Mail(Content::ToCluster(Box::new(ToCluster::Survey { request, survey }))))]
            }
            false => {
                let of = || Box::new(SurveyOf { request, survey: survey.clone() });
                PeerId::reactors(self.reactors()).map(|reactor| (reactor, Mail(Content::Survey(of())))).collect()
            }
        }
    }
}

impl Router {
    /// The survey of a request of this node alone.
    pub(super) fn surveyed(&mut self, of: SurveyOf, sink: &mut impl Sink) {
        let SurveyOf { request, survey } = of;
        let found = NodeFound { run: None, found: self.survey(&survey, sink) };
        self.send(PeerId::Control, Content::Surveyed(Box::new(Surveyed { request, found: vec![found].into() })), sink);
    }

    /// What this reactor has to say to a survey. Takes time in proportion to its bounds, and for
    /// [`Survey::Disconnect`] to the connections here.
    pub(super) fn survey(&mut self, survey: &Survey, sink: &mut impl Sink) -> Found {
        match survey {
            Survey::Rooms(query) => Found::Rooms(self.rooms_found(query)),
            Survey::Connections { user } => Found::Connections(self.connections_found(user, sink)),
            Survey::Disconnect { user } => {
                let topic = self.topics.key(Kind::Inbox, user.clone());
                self.expel(&Expulsion { topic, user: user.clone(), reason: "".into() }, sink);
                sink.disconnect(user);
                Found::Done
            }
        }
    }

    /// The bytes that an answer of this reactor may have.
    fn survey_bytes_max(&self) -> usize {
        (SURVEY_BYTES_MAX / usize::from(self.reactors)).max(SURVEY_BYTES_MIN)
    }

    fn rooms_found(&self, query: &RoomsQuery) -> RoomsFound {
        let RoomsQuery { after, filter } = query;
        let visited_max = SURVEY_VISITED_MAX / filter.patterns().max(1);
        let bytes_max = self.survey_bytes_max();
        let from = match **after < *filter.prefix {
            true => Bound::Included(&*filter.prefix),
            false => Bound::Excluded(&**after),
        };
        let mut found = RoomsFound::default();
        let (mut bytes, mut last) = (0, None::<ArcStr>);
        for (visited, name) in self.homes.rooms_from(from).enumerate() {
            if !name.starts_with(&*filter.prefix) {
                break;
            }
            if visited > visited_max || found.rooms.len() == SURVEY_ROOMS_MAX || bytes > bytes_max {
                found.up_to = last;
                break;
            }
            last = Some(name.clone());
            let index = self.topics.find(self.topics.hashed(TopicRef { kind: Kind::Room, name }));
            if let Some(topic) = index.map(|index| self.topics.get(index)).filter(|_| (filter.test)(name)) {
                let users = self.homes.get(topic).map_or(0, |home| home.users_count()) as u64;
                let room = RoomFound { name: name.clone(), members: self.homes.members(topic), users };
                bytes += room.bytes();
                found.rooms.push(room);
            }
        }
        found
    }

    fn connections_found(&self, user: &ArcStr, sink: &impl Sink) -> ConnectionsFound {
        let mut found = ConnectionsFound::default();
        let inbox = self.topics.find(self.topics.hashed(TopicRef { kind: Kind::Inbox, name: user }));
        let Some(inbox) = inbox.map(|index| self.topics.get(index)) else { return found };
        let mut bytes = 0;
        for &slot in self.members.of(inbox) {
            if bytes > self.survey_bytes_max() {
                found.is_truncated = true;
                break;
            }
            let (generation, _) = self.members.at(&self.topics, slot);
            let conn = ConnId { reactor: self.me, slot, generation };
            let Some(Described { client_id, since_unix_ms }) = sink.describe(conn) else { continue };
            let mut connection =
                ConnectionFound { client_id: client_id.as_str().into(), since_unix_ms, rooms: Vec::new() };
            bytes += connection.bytes();
            for room in self.members.rooms_of(&self.topics, conn) {
                if bytes > self.survey_bytes_max() {
                    found.is_truncated = true;
                    break;
                }
                bytes += room.len() + 4;
                connection.rooms.push(room.clone());
            }
            found.connections.push(connection);
        }
        found
    }
}
