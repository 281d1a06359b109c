//! The routers of a node against a naive model, with the mail between them delivered in any order that keeps each
//! pair's own.

mod requests;
mod users;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use proptest::prelude::*;

use super::*;
use crate::frame::{FrameBuilder, Opcode};
use crate::ids::{ConnId, PeerId, ReactorId, Slot};

/// What each connection was told, in order.
#[derive(Default)]
pub(super) struct Told {
    reactor: u16,
    by_slot: BTreeMap<u32, Vec<String>>,
}

impl Told {
    /// What a connection was told.
    pub(super) fn of(&mut self, slot: Slot) -> &mut Vec<String> {
        self.by_slot.entry(slot.0).or_default()
    }

    fn tell(&mut self, slot: u32, what: String) {
        self.by_slot.entry(slot).or_default().push(what);
    }
}

/// The payloads of whole server frames.
fn payloads(mut frames: &[u8]) -> Vec<String> {
    let mut found = Vec::new();
    while !frames.is_empty() {
        let (header_bytes, payload_bytes) = match frames[1] {
            126 => (4, usize::from(u16::from_be_bytes([frames[2], frames[3]]))),
            127 => (10, u64::from_be_bytes(frames[2..10].try_into().unwrap()) as usize),
            short => (2, usize::from(short)),
        };
        let end = header_bytes + payload_bytes;
        found.push(String::from_utf8_lossy(&frames[header_bytes..end]).into_owned());
        frames = &frames[end..];
    }
    found
}

impl Sink for Told {
    fn deliver(&mut self, batch: Batch, members: &[Slot]) {
        assert_eq!(payloads(batch.bytes()).len(), batch.frames as usize);
        for member in members {
            let mut bytes = Vec::new();
            let mut from = 0;
            let own = |excluded: &&Excluded| excluded.conn.reactor.0 == self.reactor && excluded.conn.slot == *member;
            for excluded in batch.excluded.iter().filter(own) {
                bytes.extend_from_slice(&batch.bytes()[from..excluded.start as usize]);
                from = excluded.end as usize;
            }
            bytes.extend_from_slice(&batch.bytes()[from..]);
            for payload in payloads(&bytes) {
                self.tell(member.0, payload);
            }
        }
    }

    fn takes_rounds(&self, _: Slot) -> bool {
        true
    }

    fn recover(&mut self, to: ConnId, slice: Slice) {
        for frame in slice.frames() {
            self.direct(to, frame.plain(), Stamp::default());
        }
    }

    fn reply(&mut self, to: ConnId, frame: &[u8]) {
        self.direct(to, frame, Stamp::default());
    }

    fn direct(&mut self, to: ConnId, frame: &[u8], _: Stamp) {
        for payload in payloads(frame) {
            self.tell(to.slot.0, payload);
        }
    }

    fn answer(&mut self, to: ConnId, answer: Answer<'_>) {
        match answer {
            Answer::Keyed(_) => unreachable!("no room is keyed"),
            Answer::Connected { .. } => self.tell(to.slot.0, "connected".into()),
            Answer::Joined { room, .. } => self.tell(to.slot.0, format!("joined {room}")),
            Answer::Resumed { recovered, .. } => self.tell(to.slot.0, format!("resumed {recovered}")),
            Answer::Acked { id, .. } => self.tell(to.slot.0, format!("ack {id}")),
            Answer::Fenced => self.tell(to.slot.0, "fenced".into()),
            Answer::Left { room, .. } => self.tell(to.slot.0, format!("left {room}")),
            Answer::Forbidden { room, .. } => self.tell(to.slot.0, format!("forbidden {room}")),
            Answer::Disconnected => self.tell(to.slot.0, "disconnected".into()),
            Answer::Full => self.tell(to.slot.0, "full".into()),
            Answer::Replaced => self.tell(to.slot.0, "replaced".into()),
            Answer::Unavailable { id, room: _ } => self.tell(to.slot.0, format!("unavailable {}", id.unwrap_or("-"))),
        }
    }
    fn disconnect(&mut self, user: &str) {
        panic!("no order was given, and yet {user} is to go");
    }
}

/// A node whose mail waits until the test carries it.
struct Node {
    routers: Vec<Router>,
    told: Vec<Told>,
    mail: BTreeMap<(u16, u16), VecDeque<Mail>>,
    /// What came for the control thread.
    answers: Vec<Mail>,
    homeward: Homeward,
}

const NO_NOTICES: u64 = 0;

impl Node {
    fn new(reactors: u16, seed: u64, notice_members_max: u64) -> Node {
        Node::bounded(reactors, seed, notice_members_max, None)
    }

    fn bounded(reactors: u16, seed: u64, notice_members_max: u64, user_connections: Option<UserConnections>) -> Node {
        Node::with_history(reactors, seed, notice_members_max, user_connections, HistorySettings::none())
    }

    /// One whose rooms all keep this.
    fn keeping(reactors: u16, seed: u64, policy: HistoryPolicy) -> Node {
        let rooms = Some(RoomPolicies(std::sync::Arc::new(move |_: &str| Some(policy))));
        let history =
            HistorySettings { rooms, bytes_max: 1 << 20, pinned_bytes_max: 1 << 20, ..HistorySettings::none() };
        Node::with_history(reactors, seed, NO_NOTICES, None, history)
    }

    fn with_history(
        reactors: u16,
        seed: u64,
        notice_members_max: u64,
        user_connections: Option<UserConnections>,
        history: HistorySettings,
    ) -> Node {
        let notices = NoticeSettings {
            members_max: notice_members_max,
            join_text: "{user} joined".into(),
            leave_text: "{user} left".into(),
        };
        let settings = RouterSettings {
            rooms_max: 8,
            notices,
            history,
            keyed: KeyedSettings::none(),
            user_connections,
            cluster: false,
        };
        let router = |me| Router::new(ReactorId(me), reactors, seed, 1, settings.clone());
        Node {
            routers: (0..reactors).map(router).collect(),
            told: (0..reactors).map(|reactor| Told { reactor, ..Told::default() }).collect(),
            mail: BTreeMap::new(),
            answers: Vec::new(),
            homeward: Homeward::new(seed, reactors),
        }
    }

    fn with<T>(&mut self, reactor: u16, act: impl FnOnce(&mut Router, &mut Told) -> T) -> T {
        let (router, told) = (&mut self.routers[reactor as usize], &mut self.told[reactor as usize]);
        let outcome = act(router, told);
        for (to, mail) in router.poll_mail() {
            match to {
                PeerId::Reactor(ReactorId(to)) => self.mail.entry((reactor, to)).or_default().push_back(mail),
                PeerId::Control => self.answers.push(mail),
                PeerId::Cluster | PeerId::Webhooks => panic!("there is neither"),
            }
        }
        outcome
    }

    /// Carries one piece of mail of the `choice`-th pair that has any; whether there was one.
    fn carry(&mut self, choice: usize) -> bool {
        let pairs: Vec<(u16, u16)> =
            self.mail.iter().filter(|(_, queue)| !queue.is_empty()).map(|(pair, _)| *pair).collect();
        if pairs.is_empty() {
            return false;
        }
        let (from, to) = pairs[choice % pairs.len()];
        let mail = self.mail.get_mut(&(from, to)).and_then(VecDeque::pop_front).unwrap();
        self.with(to, |router, told| router.handle_mail(mail, told));
        true
    }

    fn carry_all(&mut self) {
        while self.carry(0) {}
        for reactor in 0..self.routers.len() as u16 {
            self.with(reactor, |router, told| router.end_turn(told));
            self.routers[reactor as usize].check_invariants();
        }
    }

    fn publish(&mut self, from: ConnId, topic: TopicRef<'_>, text: &str, exclude: bool) {
        let mut frames = FrameBuilder::default();
        let frame = frames.build(Opcode::Text, |out| out.extend_from_slice(text.as_bytes())).to_vec();
        self.with(from.reactor.0, |router, told| {
            let publish =
                Publish { topic, frame: &frame, exclude: exclude.then_some(from), key: None, publisher: from.into() };
            router.publish(publish, None, told);
        });
    }

    fn told(&self, conn: ConnId) -> Vec<String> {
        self.told[conn.reactor.0 as usize].by_slot.get(&conn.slot.0).cloned().unwrap_or_default()
    }
}

fn conn(reactor: u16, slot: u32) -> ConnId {
    ConnId { reactor: ReactorId(reactor), slot: Slot(slot), generation: 0 }
}

fn room(name: &str) -> TopicRef<'_> {
    TopicRef { kind: Kind::Room, name }
}

fn joined() -> JoinReply {
    JoinReply::Joined { id: None, recover: None, subscribe: None }
}

fn many(id: &str, recover: Option<RecoverFrom>, rooms: u32) -> JoinReply {
    JoinReply::Many(ManyJoin::new(id, recover, rooms))
}

#[test]
fn a_member_gets_exactly_what_the_home_ordered_between_join_and_leave() {
    for seed in 0..20 {
        let mut node = Node::new(2, seed, NO_NOTICES);
        let (alice, bob) = (conn(0, 0), conn(1, 0));
        for (who, user) in [(alice, "alice"), (bob, "bob")] {
            node.with(who.reactor.0, |router, told| router.connect(who, user, told));
        }
        node.carry_all();
        node.publish(alice, room("r"), "before", true);
        node.carry_all();
        node.with(1, |router, told| router.join(bob, "r", joined(), told)).unwrap();
        node.carry_all();
        node.publish(alice, room("r"), "between", true);
        node.carry_all();
        node.with(1, |router, told| router.leave(bob, "r", Some("1"), told));
        node.carry_all();
        node.publish(alice, room("r"), "after", true);
        node.carry_all();
        assert_eq!(node.told(bob), ["connected", "joined r", "between", "ack 1"]);
        assert_eq!(node.told(alice), ["connected"]);
    }
}

#[test]
fn join_leave_join_in_one_breath_ends_as_a_member_once() {
    for seed in 0..20 {
        let mut node = Node::new(2, seed, NO_NOTICES);
        let bob = conn(1, 0);
        node.with(1, |router, told| router.connect(bob, "bob", told));
        node.carry_all();
        node.with(1, |router, told| {
            router.join(bob, "r", joined(), told).unwrap();
            router.leave(bob, "r", Some("1"), told);
            router.join(bob, "r", joined(), told).unwrap();
            router.join(bob, "r", joined(), told).unwrap();
        });
        node.carry_all();
        node.publish(conn(0, 9), room("r"), "once", true);
        node.carry_all();
        assert_eq!(node.told(bob), ["connected", "joined r", "ack 1", "joined r", "joined r", "once"]);
    }
}

#[test]
fn every_join_and_leave_of_a_pipelined_series_is_answered_in_order() {
    for seed in 0..20 {
        let mut node = Node::new(2, seed, NO_NOTICES);
        let bob = conn(1, 0);
        node.with(1, |router, told| router.connect(bob, "bob", told));
        node.carry_all();
        node.with(1, |router, told| {
            for id in ["1", "2", "3"] {
                router.join(bob, "r", joined(), told).unwrap();
                router.leave(bob, "r", Some(id), told);
            }
            router.leave(bob, "r", Some("4"), told);
        });
        node.carry_all();
        let expected = ["connected", "joined r", "ack 1", "joined r", "ack 2", "joined r", "ack 3", "ack 4"];
        assert_eq!(node.told(bob), expected);
        assert!(node.routers.iter().all(|router| router.topics_count() <= 2), "the room is gone");
    }
}

#[test]
fn a_message_published_before_a_join_of_the_same_turn_stays_away_from_the_joiner() {
    let mut node = Node::new(1, 7, NO_NOTICES);
    let (alice, bob) = (conn(0, 0), conn(0, 1));
    node.with(0, |router, told| {
        router.connect(alice, "alice", told);
        router.connect(bob, "bob", told);
        router.join(alice, "r", joined(), told).unwrap();
    });
    node.publish(bob, room("r"), "early", true);
    node.with(0, |router, told| router.join(bob, "r", joined(), told)).unwrap();
    node.publish(alice, room("r"), "late", false);
    node.carry_all();
    assert_eq!(node.told(alice), ["connected", "joined r", "early", "late"]);
    assert_eq!(node.told(bob), ["connected", "joined r", "late"]);
}

#[test]
fn notices_stop_where_a_room_grows_and_come_back_where_it_shrinks() {
    let mut node = Node::new(1, 7, 2);
    let members: Vec<ConnId> = (0..3).map(|slot| conn(0, slot)).collect();
    for (at, &member) in members.iter().enumerate() {
        node.with(0, |router, told| {
            router.connect(member, &format!("u{at}"), told);
            router.join(member, "r", JoinReply::Silent, told).unwrap();
        });
    }
    node.with(0, |router, told| router.disconnect(members[2], told));
    node.with(0, |router, told| router.disconnect(members[1], told));
    node.carry_all();
    let notices: Vec<String> = node.told(members[0]).into_iter().filter(|told| told.contains("system")).collect();
    let events: Vec<bool> = notices.iter().map(|notice| notice.contains("\"join\"")).collect();
    assert_eq!(events, [true, true, false, false], "{notices:?}");
}

#[test]
fn many_rooms_are_all_joined_or_none() {
    let mut node = Node::new(1, 7, NO_NOTICES);
    let bob = conn(0, 0);
    node.with(0, |router, told| router.connect(bob, "bob", told));
    let names: Vec<String> = (0..9).map(|at| format!("r{at}")).collect();
    let refused = node.with(0, |router, told| router.join_many(bob, &names, many("1", None, 9), told));
    assert_eq!(refused, Err(JoinError::TooManyRooms));
    node.with(0, |router, told| router.join_many(bob, &["a", "b", "a"], many("2", None, 3), told)).unwrap();
    let since = || Some(RecoverFrom::Since { epoch: "e".into(), offset: 1 });
    let resuming = JoinReply::Joined { id: None, recover: since(), subscribe: None };
    let again = node.with(0, |router, told| router.join(bob, "a", resuming, told));
    assert_eq!(again, Err(JoinError::AlreadyJoined));
    for names in [[&names[..], &["a".into()]].concat(), [&["a".into()], &names[..]].concat()] {
        let again = node.with(0, |router, told| router.join_many(bob, &names, many("3", since(), 10), told));
        assert_eq!(again, Err(JoinError::AlreadyJoined), "in whatever order they are named");
    }
    node.carry_all();
    assert_eq!(node.told(bob), ["connected", "joined a", "joined b", "joined a", "ack 2"]);
}

#[test]
fn a_large_frame_is_shared_and_keeps_its_place_in_the_order() {
    let mut node = Node::new(2, 3, NO_NOTICES);
    let members = [conn(0, 0), conn(1, 0)];
    for member in members {
        node.with(member.reactor.0, |router, told| {
            router.connect(member, "u", told);
            router.join(member, "r", JoinReply::Silent, told).unwrap();
        });
    }
    node.carry_all();
    let large = "x".repeat(100_000);
    for text in ["a", &large, "b"] {
        node.publish(members[0], room("r"), text, false);
    }
    node.carry_all();
    for member in members {
        assert_eq!(node.told(member), ["connected", "a", &large, "b"]);
    }
}

#[derive(Clone, Debug)]
enum Act {
    Connect(u8),
    Disconnect(u8),
    Join(u8, u8),
    Leave(u8, u8),
    Publish(u8, u8, bool),
    Broadcast(u8, bool),
    Private(u8, u8),
    Carry(u8),
    EndTurn(u8),
    /// A user is removed from a room.
    Kick(u8, u8),
    /// What can be built again is, on one reactor.
    Rebuild(u8),
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let who = 0_u8..6;
    let what = 0_u8..3;
    let act = prop_oneof![
        2 => who.clone().prop_map(Act::Connect),
        1 => who.clone().prop_map(Act::Disconnect),
        4 => (who.clone(), what.clone()).prop_map(|(who, room)| Act::Join(who, room)),
        2 => (who.clone(), what.clone()).prop_map(|(who, room)| Act::Leave(who, room)),
        5 => (who.clone(), what, any::<bool>()).prop_map(|(who, room, echo)| Act::Publish(who, room, echo)),
        1 => (who.clone(), any::<bool>()).prop_map(|(who, echo)| Act::Broadcast(who, echo)),
        1 => (who.clone(), who.clone()).prop_map(|(who, to)| Act::Private(who, to)),
        8 => any::<u8>().prop_map(Act::Carry),
        2 => (0_u8..3).prop_map(Act::EndTurn),
        1 => (0_u8..3, 0_u8..3).prop_map(|(user, room)| Act::Kick(user, room)),
        1 => (0_u8..3).prop_map(Act::Rebuild),
    ];
    proptest::collection::vec(act, 1..120)
}

/// Who is connected (in which generation of its slot) and in which rooms, as an observer who sees everything at once.
#[derive(Default)]
struct Model {
    generations: BTreeMap<u8, u32>,
    rooms: BTreeMap<u8, BTreeSet<u8>>,
}

impl Model {
    /// Rooms with members, in the order of their names, with the numbers of members and of users.
    fn listed(&self) -> Vec<(String, u64, u64)> {
        let mut listed = Vec::new();
        for at in 0..3 {
            let members: Vec<u8> =
                self.rooms.iter().filter(|(_, rooms)| rooms.contains(&at)).map(|(who, _)| *who).collect();
            let users: BTreeSet<u8> = members.iter().map(|who| who / 2).collect();
            if !members.is_empty() {
                listed.push((format!("room{at}"), members.len() as u64, users.len() as u64));
            }
        }
        listed
    }

    fn conn(&self, who: u8, reactors: u16) -> ConnId {
        let generation = self.generations.get(&who).copied().unwrap_or(0);
        ConnId { reactor: ReactorId(u16::from(who) % reactors), slot: Slot(u32::from(who)), generation }
    }
}

fn run(node: &mut Node, model: &mut Model, act: &Act, serial: usize) {
    let reactors = node.routers.len() as u16;
    let room_name = |at: u8| format!("room{at}");
    match *act {
        Act::Connect(who) if !model.rooms.contains_key(&who) => {
            let id = model.conn(who, reactors);
            model.rooms.insert(who, BTreeSet::new());
            node.with(id.reactor.0, |router, told| router.connect(id, &format!("user{}", who / 2), told));
        }
        Act::Disconnect(who) if model.rooms.remove(&who).is_some() => {
            let id = model.conn(who, reactors);
            node.with(id.reactor.0, |router, told| router.disconnect(id, told));
            *model.generations.entry(who).or_default() += 1;
        }
        Act::Join(who, at) => {
            if let Some(rooms) = model.rooms.get_mut(&who) {
                rooms.insert(at);
                let id = model.conn(who, reactors);
                node.with(id.reactor.0, |router, told| router.join(id, &room_name(at), joined(), told)).unwrap();
            }
        }
        Act::Leave(who, at) => {
            if let Some(rooms) = model.rooms.get_mut(&who) {
                rooms.remove(&at);
                let id = model.conn(who, reactors);
                node.with(id.reactor.0, |router, told| router.leave(id, &room_name(at), None, told));
            }
        }
        Act::Publish(who, at, echo) if model.rooms.contains_key(&who) => {
            let id = model.conn(who, reactors);
            node.publish(id, room(&room_name(at)), &format!("room{at} {serial}"), !echo);
        }
        Act::Broadcast(who, echo) if model.rooms.contains_key(&who) => {
            let id = model.conn(who, reactors);
            node.publish(id, TopicRef::EVERYONE, &format!("all {serial}"), !echo);
        }
        Act::Private(who, to) if model.rooms.contains_key(&who) => {
            let id = model.conn(who, reactors);
            let user = format!("user{}", to / 2);
            node.publish(id, TopicRef { kind: Kind::Inbox, name: &user }, &format!("{user} {serial}"), false);
        }
        Act::Carry(choice) => {
            node.carry(choice as usize);
        }
        Act::Rebuild(at) => {
            let router = &mut node.routers[usize::from(u16::from(at) % reactors)];
            router.rebuild();
            router.check_invariants();
        }
        Act::Kick(user, at) => {
            node.carry_all();
            node.kick(&room_name(at), &format!("user{user}"));
            node.carry_all();
            let theirs = model.rooms.iter_mut().filter(|(who, _)| *who / 2 == user);
            theirs.for_each(|(_, rooms)| _ = rooms.remove(&at));
        }
        Act::EndTurn(at) => node.with(u16::from(at) % reactors, |router, told| router.end_turn(told)),
        Act::Connect(_) | Act::Disconnect(_) | Act::Publish(..) | Act::Broadcast(..) | Act::Private(..) => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 4 } else { 400 }))]

    /// Whatever happened in whatever order: once all mail is carried, a message to any topic reaches exactly the
    /// members the model knows, and each topic's messages reach all its members in one order, each at most once.
    #[test]
    fn the_router_equals_a_naive_model(acts in acts(), reactors in 1_u16..4, seed in 0_u64..50) {
        let mut node = Node::new(reactors, seed, NO_NOTICES);
        let mut model = Model::default();
        for (serial, act) in acts.iter().enumerate() {
            run(&mut node, &mut model, act, serial);
        }
        node.carry_all();
        let histories = node.told.iter().flat_map(|told| told.by_slot.values()).cloned().collect::<Vec<_>>();
        check_orders(&histories)?;
        let listed = node.rooms(RoomFilter::new(&["*"], None).tested_by(|_| true));
        prop_assert_eq!(listed, model.listed(), "each room with its members and users");

        let outsider = conn(0, 1_000);
        for at in 0..3 {
            node.publish(outsider, room(&format!("room{at}")), &format!("final room{at}"), false);
        }
        for user in 0..3 {
            let name = format!("user{user}");
            node.publish(outsider, TopicRef { kind: Kind::Inbox, name: &name }, &format!("final {name}"), false);
        }
        node.publish(outsider, TopicRef::EVERYONE, "final all", false);
        node.carry_all();
        for who in 0..6 {
            let got = node.told(model.conn(who, reactors));
            let finals: BTreeSet<String> = got.iter().filter(|told| told.starts_with("final ")).cloned().collect();
            let count = got.iter().filter(|told| told.starts_with("final ")).count();
            let mut expected = BTreeSet::new();
            if let Some(rooms) = model.rooms.get(&who) {
                expected.extend(rooms.iter().map(|at| format!("final room{at}")));
                expected.insert(format!("final user{}", who / 2));
                expected.insert("final all".to_owned());
            }
            prop_assert_eq!(&finals, &expected, "connection {}", who);
            prop_assert_eq!(count, expected.len(), "each once");
        }
        for (who, _) in std::mem::take(&mut model.rooms) {
            let id = model.conn(who, reactors);
            node.with(id.reactor.0, |router, told| router.disconnect(id, told));
        }
        node.carry_all();
        for router in &node.routers {
            prop_assert_eq!(router.topics_count(), 1, "only everyone's topic is left");
        }
    }
}

/// For every topic (the first word): no message twice at one receiver, and any two receivers agree on the order of
/// what both got.
fn check_orders(histories: &[Vec<String>]) -> Result<(), TestCaseError> {
    for prefix in ["room0 ", "room1 ", "room2 ", "all ", "user0 ", "user1 ", "user2 "] {
        let of_topic: Vec<Vec<&String>> =
            histories.iter().map(|history| history.iter().filter(|told| told.starts_with(prefix)).collect()).collect();
        for one in &of_topic {
            prop_assert_eq!(one.iter().collect::<BTreeSet<_>>().len(), one.len(), "nothing twice");
            for other in &of_topic {
                let mine: Vec<_> = one.iter().filter(|told| other.contains(told)).collect();
                let theirs: Vec<_> = other.iter().filter(|told| one.contains(told)).collect();
                prop_assert_eq!(mine, theirs, "one order of {}", prefix);
            }
        }
    }
    Ok(())
}
