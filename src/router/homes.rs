//! What the homes of topics know: which reactors have members, how many there are, and, for rooms, who they are.
//!
//! All of a [`Home`] is what it is, but for the table of a large room's users, which is built again by adding them.

use std::collections::BTreeSet;
use std::ops::Bound;

use arcstr::ArcStr;
use slab::Slab;
use smallvec::SmallVec;

use super::cluster_subscription::ClusterSubscription;
use super::history::History;
use super::mail::HomeMail;
use super::policy::{Policies, TopicPolicy};
use super::topic::{HashedTopic, Kind, Topic};
use super::users::Users;
use super::{NoticeSettings, RouterSettings, UserConnections, UserConnectionsPolicy};
use crate::frame::{FrameBuilder, Opcode};
use crate::growth::Grow;
use crate::ids::{ConnId, ReactorId};
use crate::protocol::{self, Notice};

/// What a topic's home knows. A user's inbox with members on one reactor, of which nothing is kept, needs no more than
/// two numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HomeState {
    /// Nothing: this is another reactor, or there is no member.
    Vacant,
    /// Members on one reactor.
    One { reactor: ReactorId, members: u32 },
    /// All else, in this reactor's homes.
    Open(u32),
}

/// A topic at its home.
#[derive(Debug)]
pub(super) struct Home {
    /// Members on each reactor that has any.
    interest: SmallVec<[(ReactorId, u32); 2]>,
    /// Who they are, where that is kept.
    present: Present,
    pub(super) policy: TopicPolicy,
    /// What is kept of its messages.
    pub(super) history: Option<Box<History>>,
    /// How it stands with the cluster, where there is one.
    pub(super) subscription: ClusterSubscription<HomeMail>,
}

/// Who the members of a topic are.
#[derive(Debug)]
enum Present {
    /// Of a room, its users; of other topics nobody.
    Users(Users),
    /// Of a user's inbox, the connections that count for `user_connections`.
    Connections(Box<Connections>),
}

/// There is one in each home, and most are of rooms.
const _: () = assert!(size_of::<Present>() == size_of::<Users>());

/// A user's connections, oldest first. A member that was refused or replaced is not among them, and leaves.
#[derive(Debug, Default)]
struct Connections(Vec<ConnId>);

impl Home {
    /// Bytes that it takes among the homes, of which a fifth may be empty.
    pub(super) const OWN_BYTES: usize = 5 * (size_of::<Home>() + size_of::<usize>()) / 4;

    fn new(policy: TopicPolicy) -> Home {
        Home {
            interest: SmallVec::new(),
            present: Present::Users(Users::default()),
            policy,
            history: None,
            subscription: ClusterSubscription::Detached,
        }
    }

    /// Whether no reactor has a member.
    pub(super) fn is_empty(&self) -> bool {
        self.interest.is_empty()
    }

    /// Whether it knows nothing that is not known without it.
    fn is_unused(&self) -> bool {
        self.is_empty()
            && self.subscription.is_detached()
            && self.history.as_ref().is_none_or(|history| history.is_empty())
    }

    /// The users in the room, in no order, each once and to be shared.
    pub(super) fn users(&self) -> impl Iterator<Item = &ArcStr> + Clone {
        match &self.present {
            Present::Users(users) => Some(users),
            Present::Connections(_) => None,
        }
        .into_iter()
        .flat_map(Users::iter)
    }

    /// How many users are in the room, each once.
    pub(super) fn users_count(&self) -> usize {
        match &self.present {
            Present::Users(users) => users.count(),
            Present::Connections(_) => 0,
        }
    }

    /// The connections that count for the user whose inbox it is.
    fn connections(&mut self) -> &mut Vec<ConnId> {
        if let Present::Users(_) = self.present {
            self.present = Present::Connections(Box::default());
        }
        match &mut self.present {
            Present::Connections(connections) => &mut connections.0,
            Present::Users(_) => unreachable!("they have just been put in the users' place"),
        }
    }

    fn add(&mut self, reactor: ReactorId, user: Option<&ArcStr>, seed: u64) {
        match self.interest.iter_mut().find(|(at, _)| *at == reactor) {
            Some((_, members)) => *members += 1,
            None => {
                self.interest.make_room_for_one();
                self.interest.push((reactor, 1));
            }
        }
        if let (Some(user), Present::Users(users)) = (user, &mut self.present) {
            users.add(user, seed);
        }
    }

    fn remove(&mut self, reactor: ReactorId, user: Option<&ArcStr>) {
        let at = self.interest.iter().position(|(at, _)| *at == reactor).expect("a member leaves where it joined");
        self.interest[at].1 -= 1;
        if self.interest[at].1 == 0 {
            self.interest.swap_remove(at);
        }
        if let (Some(user), Present::Users(users)) = (user, &mut self.present) {
            users.remove(user);
        }
    }
}

/// Whether one more connection of a user is let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Admittance {
    /// It is.
    Granted,
    /// It is, and takes the place of this one.
    Replaces(ConnId),
    /// The user has as many as allowed.
    Refused,
}

/// The homes on one reactor.
#[derive(Debug)]
pub(super) struct Homes {
    homes: Slab<Home>,
    /// The names of rooms with members. It follows from the topics.
    rooms: BTreeSet<ArcStr>,
    policies: Policies,
    notices: NoticeSettings,
    /// That of a large room's table.
    seed: u64,
    user_connections: Option<UserConnections>,
    /// Whether every topic with a member has to be attached to the cluster.
    clustered: bool,
}

impl Homes {
    pub(super) fn new(settings: &RouterSettings, seed: u64) -> Homes {
        let RouterSettings { notices, user_connections, cluster, .. } = settings;
        let (user_connections, clustered) = (*user_connections, *cluster);
        let policies = Policies::new(settings);
        let (homes, rooms, notices) = (Slab::new(), BTreeSet::new(), notices.clone());
        Homes { homes, rooms, policies, notices, seed, user_connections, clustered }
    }

    /// Other settings hold from now on: for topics that come into being at once, for others once
    /// [`Homes::resolve_again`] was called.
    pub(super) fn change(&mut self, settings: &RouterSettings) {
        self.policies.change(settings);
        self.notices = settings.notices.clone();
        self.user_connections = settings.user_connections;
    }

    /// Resolves the policy of a topic again. What other nodes keep as well stays as it is, until the topic comes into being
    /// again.
    pub(super) fn resolve_again(&mut self, topic: &Topic) {
        let HomeState::Open(at) = topic.home else { return };
        let home = &mut self.homes[at as usize];
        let mut policy = self.policies.resolve_again(topic.key.hashed(), home.policy);
        if self.clustered {
            policy.history = home.policy.history;
        }
        home.policy = policy;
        if let (Some(history), Some(policy)) = (&mut home.history, policy.history) {
            history.set_policy(policy);
        }
    }

    /// What is known of a topic beside its members on one reactor.
    #[inline]
    pub(super) fn get(&self, topic: &Topic) -> Option<&Home> {
        match topic.home {
            HomeState::Vacant | HomeState::One { .. } => None,
            HomeState::Open(at) => Some(&self.homes[at as usize]),
        }
    }

    #[inline]
    pub(super) fn get_mut(&mut self, topic: &Topic) -> Option<&mut Home> {
        match topic.home {
            HomeState::Vacant | HomeState::One { .. } => None,
            HomeState::Open(at) => Some(&mut self.homes[at as usize]),
        }
    }

    /// The same for a topic of which more has to be known from now on: its policy is resolved now, if it is not yet.
    pub(super) fn open(&mut self, topic: &mut Topic) -> &mut Home {
        let at = match topic.home {
            HomeState::Open(at) => at,
            HomeState::Vacant | HomeState::One { .. } => {
                let mut home = Home::new(self.policies.resolve(topic.key.hashed()));
                if let HomeState::One { reactor, members } = topic.home {
                    home.interest.push((reactor, members));
                }
                self.homes.make_room_for_one();
                let at = u32::try_from(self.homes.insert(home)).expect("fewer homes than topics");
                topic.home = HomeState::Open(at);
                at
            }
        };
        &mut self.homes[at as usize]
    }

    /// Whether more has to be known of a topic with members than where they are.
    pub(super) fn needs_open(&self, kind: Kind) -> bool {
        match kind {
            Kind::Room => true,
            Kind::Inbox if self.user_connections.is_some() => true,
            Kind::Raw if self.policies.has_keyed() => true,
            Kind::Inbox | Kind::Raw => self.clustered || !self.policies.keeps_none(kind),
            Kind::Everyone => false,
        }
    }

    /// Whether a room or raw room may be keyed.
    #[inline]
    pub(super) fn has_keyed(&self) -> bool {
        self.policies.has_keyed()
    }

    /// Whether a topic is keyed, which follows from its name.
    pub(super) fn is_keyed(&mut self, name: HashedTopic<'_>) -> bool {
        self.policies.of_absent(name).keyed.is_some()
    }

    /// Whether no topic of this kind keeps history.
    #[inline]
    pub(super) fn keeps_none(&self, kind: Kind) -> bool {
        self.policies.keeps_none(kind)
    }

    /// What holds for a topic, whether it is there or not.
    #[inline]
    pub(super) fn policy(&mut self, name: HashedTopic<'_>, topic: Option<&Topic>) -> TopicPolicy {
        match topic.and_then(|topic| self.get(topic)) {
            Some(home) => home.policy,
            None => self.policies.of_absent(name),
        }
    }

    /// One more member; a `user` where the topic keeps presence.
    pub(super) fn add(&mut self, topic: &mut Topic, reactor: ReactorId, user: Option<&ArcStr>) {
        if topic.key.kind == Kind::Room && self.is_empty(topic) {
            self.rooms.insert(topic.key.name.clone());
        }
        let seed = self.seed;
        match &mut topic.home {
            HomeState::Open(at) => self.homes[*at as usize].add(reactor, user, seed),
            HomeState::One { reactor: only, members } if *only == reactor && user.is_none() => *members += 1,
            HomeState::Vacant if user.is_none() => topic.home = HomeState::One { reactor, members: 1 },
            HomeState::Vacant | HomeState::One { .. } => self.open(topic).add(reactor, user, seed),
        }
    }

    /// Whether a connection may join its user's inbox. It counts from now on if so.
    pub(super) fn admit(&mut self, topic: &Topic, member: ConnId) -> Admittance {
        let Some(UserConnections { max, policy }) = self.user_connections.filter(|_| topic.key.kind == Kind::Inbox)
        else {
            return Admittance::Granted;
        };
        let home = self.get_mut(topic).expect("the home of an inbox is open where connections are counted");
        let connections = home.connections();
        let admittance = match (connections.len() < max, policy) {
            (true, _) => Admittance::Granted,
            (false, UserConnectionsPolicy::Refuse) => return Admittance::Refused,
            (false, UserConnectionsPolicy::Replace) => Admittance::Replaces(connections.remove(0)),
        };
        connections.push(member);
        admittance
    }

    /// A connection has left its user's inbox, whether it counted or not.
    pub(super) fn dismiss(&mut self, topic: &Topic, member: ConnId) {
        if let Some(Home { present: Present::Connections(connections), .. }) = self.get_mut(topic) {
            connections.0.retain(|conn| *conn != member);
        }
    }

    /// One member less.
    pub(super) fn remove(&mut self, topic: &mut Topic, reactor: ReactorId, user: Option<&ArcStr>) {
        match &mut topic.home {
            HomeState::Open(at) => self.homes[*at as usize].remove(reactor, user),
            HomeState::One { reactor: only, members } => {
                assert_eq!(*only, reactor, "a member leaves where it joined");
                *members -= 1;
                if *members == 0 {
                    topic.home = HomeState::Vacant;
                }
            }
            HomeState::Vacant => panic!("a topic with members has a home"),
        }
        if topic.key.kind == Kind::Room && self.is_empty(topic) {
            self.rooms.remove(&topic.key.name);
        }
    }

    /// Rooms with members in the order of their names, from one on.
    pub(super) fn rooms_from(&self, from: Bound<&str>) -> impl Iterator<Item = &ArcStr> {
        self.rooms.range::<str, _>((from, Bound::Unbounded))
    }

    /// Whether no reactor has a member.
    pub(super) fn is_empty(&self, topic: &Topic) -> bool {
        match topic.home {
            HomeState::Vacant => true,
            HomeState::One { .. } => false,
            HomeState::Open(at) => self.homes[at as usize].is_empty(),
        }
    }

    /// Members on all reactors.
    pub(super) fn members(&self, topic: &Topic) -> u64 {
        match topic.home {
            HomeState::Vacant => 0,
            HomeState::One { members, .. } => u64::from(members),
            HomeState::Open(at) => {
                self.homes[at as usize].interest.iter().map(|(_, members)| u64::from(*members)).sum()
            }
        }
    }

    /// The reactors that have members.
    #[inline]
    pub(super) fn reactors(&self, topic: &Topic) -> impl Iterator<Item = ReactorId> {
        let (one, more) = match topic.home {
            HomeState::Vacant => (None, [].as_slice()),
            HomeState::One { reactor, .. } => (Some(reactor), [].as_slice()),
            HomeState::Open(at) => (None, self.homes[at as usize].interest.as_slice()),
        };
        one.into_iter().chain(more.iter().map(|(reactor, _)| *reactor))
    }

    /// Gives back what is not needed to know what is left of a topic.
    pub(super) fn close_if_unused(&mut self, topic: &mut Topic) {
        if let HomeState::Open(at) = topic.home
            && self.homes[at as usize].is_unused()
        {
            self.homes.remove(at as usize);
            topic.home = HomeState::Vacant;
        }
    }

    /// Topics that wait for the cluster.
    pub(super) fn pending(&self) -> usize {
        self.homes.iter().filter(|(_, home)| home.subscription.is_pending()).count()
    }

    /// A notice as a whole frame, where the room's members are told: it has few enough.
    pub(super) fn notice<'f>(
        &self,
        topic: &Topic,
        notice: Notice,
        user: &str,
        frames: &'f mut FrameBuilder,
    ) -> Option<&'f [u8]> {
        let members_max = self.get(topic).map_or(0, |home| home.policy.notice_members_max);
        let members = self.members(topic);
        if members_max == 0 || members > members_max || (members == 0 && !self.clustered) {
            return None;
        }
        let template = match notice {
            Notice::Join => &self.notices.join_text,
            Notice::Leave => &self.notices.leave_text,
        };
        let text = template.replace("{user}", user);
        Some(frames.build(Opcode::Text, |out| protocol::notice(out, &topic.key.name, notice, user, &text)))
    }

    /// Whether a notice of another node is for the members here: each node knows its own.
    pub(super) fn takes_notice(&self, topic: &Topic) -> bool {
        self.members(topic) <= self.notices.members_max
    }

    /// What can be built again is.
    #[cfg(any(test, debug_assertions))]
    pub(super) fn rebuild(&mut self) {
        self.policies.rebuild();
        let seed = self.seed;
        for (_, home) in &mut self.homes {
            match &mut home.present {
                Present::Users(users) => users.rebuild(seed),
                Present::Connections(_) => {}
            }
        }
    }

    /// Checks that each home has a topic, and is of use; for tests.
    #[cfg(any(test, debug_assertions))]
    pub(super) fn check<'a>(
        &self,
        topics: impl Iterator<Item = (super::topic::TopicIndex, &'a Topic)>,
        keeps_items: impl Fn(super::topic::TopicIndex) -> bool,
    ) {
        let (mut open, mut rooms) = (0, 0);
        for (index, topic) in topics {
            if topic.key.kind == Kind::Room && !self.is_empty(topic) {
                rooms += 1;
                assert!(self.rooms.contains(&topic.key.name), "{:?} is found by its name", topic.key);
            }
            let Some(home) = self.get(topic) else { continue };
            open += 1;
            assert!(!home.is_unused() || keeps_items(index), "the home of {:?} is unused", topic.key);
            let connections = match &home.present {
                Present::Users(_) => 0,
                Present::Connections(connections) => connections.0.len(),
            };
            assert!(connections as u64 <= self.members(topic), "who counts for {:?} is a member", topic.key);
            assert!(self.user_connections.is_none_or(|bound| connections <= bound.max), "{:?} has too many", topic.key);
            let resolved = self.policies.resolve_again(topic.key.hashed(), home.policy);
            assert_eq!(home.policy, resolved, "the policy of {:?}", topic.key);
        }
        assert_eq!(open, self.homes.len(), "each home has a topic");
        assert_eq!(rooms, self.rooms.len(), "each room with members is found by its name");
    }
}
