//! Histories of a whole reactor: who comes back gets all that was missed or is told, whatever went to make room.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::compress::{Deflater, SharedFrame, WindowBits};
use crate::frame::{Opcode, split_frame};
use crate::limits::HISTORY_EXPIRIES_PER_TURN;

/// What the connection that acts is told.
#[derive(Default)]
struct Told {
    position: Option<StreamPosition>,
    recovered: Option<bool>,
    frames: Vec<SharedFrame>,
}

impl Told {
    /// The numbers of the messages out of history.
    fn numbers(&self) -> Vec<u64> {
        let number = |frame: &SharedFrame| {
            let text = String::from_utf8_lossy(split_frame(frame.plain()).1).into_owned();
            text["{\"n\":".len()..].split(',').next().unwrap().parse().unwrap()
        };
        self.frames.iter().map(number).collect()
    }
}

impl Sink for Told {
    fn deliver(&mut self, _: Batch, _: &[Slot]) {}
    fn takes_rounds(&self, _: Slot) -> bool {
        true
    }
    fn recover(&mut self, _: ConnId, slice: Slice) {
        self.frames.extend_from_slice(slice.frames());
    }
    fn reply(&mut self, to: ConnId, frame: &[u8]) {
        self.direct(to, frame, Stamp::default());
    }

    fn direct(&mut self, _: ConnId, _: &[u8], _: Stamp) {}
    fn answer(&mut self, _: ConnId, answer: Answer<'_>) {
        let owned = |position: InEpoch<'_>| StreamPosition { epoch: position.epoch.into(), offset: position.offset };
        match answer {
            Answer::Keyed(_) => unreachable!("no room is keyed"),
            Answer::Joined { position, recovered, .. } => {
                (self.position, self.recovered) = (position.map(owned), recovered)
            }
            Answer::Connected { inbox: position } | Answer::Acked { position, .. } => {
                self.position = position.map(owned)
            }
            Answer::Resumed { .. }
            | Answer::Fenced
            | Answer::Left { .. }
            | Answer::Forbidden { .. }
            | Answer::Disconnected
            | Answer::Full
            | Answer::Replaced
            | Answer::Unavailable { .. } => {}
        }
    }
    fn disconnect(&mut self, _: &str) {}
}

const TTL_MS: u64 = 100;
const MESSAGES_MAX: u32 = 4;

struct Node {
    router: Router,
    now_ms: u64,
    published: u64,
}

impl Node {
    fn new(bytes_max: usize) -> Node {
        let policy = HistoryPolicy { messages_max: MESSAGES_MAX, ttl_ms: TTL_MS };
        let history = HistorySettings {
            rooms: Some(RoomPolicies(Arc::new(move |_| Some(policy)))),
            inbox: Some(policy),
            bytes_max,
            pinned: Arc::default(),
            pinned_bytes_max: 1 << 20,
        };
        let notices = NoticeSettings { members_max: 0, join_text: String::new(), leave_text: String::new() };
        let settings = RouterSettings {
            rooms_max: 8,
            notices,
            history,
            keyed: KeyedSettings::none(),
            user_connections: None,
            cluster: false,
        };
        let mut router = Router::new(ReactorId(0), 1, 1, 1, settings);
        for slot in 0..CONNS {
            router.connect(conn(slot), "u", &mut Told::default());
        }
        Node { router, now_ms: 0, published: 0 }
    }

    fn sleep(&mut self, ms: u64) {
        self.router.end_turn(&mut Told::default());
        self.now_ms += ms;
        self.router.begin_turn(Millis(self.now_ms));
    }

    fn join(&mut self, who: u32, room: &str, reply: JoinReply) -> Told {
        let mut told = Told::default();
        self.router.join(conn(who), room, reply, &mut told).unwrap();
        told
    }

    fn leave(&mut self, who: u32, room: &str) {
        self.router.leave(conn(who), room, None, &mut Told::default());
    }

    /// The message's number, and its position.
    fn publish(&mut self, room: &str, bytes: usize, key: Option<&str>) -> (u64, StreamPosition) {
        let (mut told, mut frames) = (Told::default(), FrameBuilder::default());
        self.published += 1;
        let text = format!("{{\"n\":{},\"x\":\"{}\"}}", self.published, "x".repeat(bytes));
        let frame = frames.build(Opcode::Text, |out| out.extend_from_slice(text.as_bytes()));
        let topic = TopicRef { kind: Kind::Room, name: room };
        let publish = Publish { topic, frame, exclude: None, key, publisher: conn(0).into() };
        self.router.publish(publish, Some("1"), &mut told);
        (self.published, told.position.unwrap())
    }
}

const CONNS: u32 = 2;

fn conn(slot: u32) -> ConnId {
    ConnId { reactor: ReactorId(0), slot: Slot(slot), generation: 0 }
}

fn recover(recover: Option<RecoverFrom>) -> JoinReply {
    JoinReply::Joined { id: None, recover, subscribe: None }
}

fn since(position: &StreamPosition) -> JoinReply {
    recover(Some(RecoverFrom::Since { epoch: (*position.epoch).into(), offset: position.offset }))
}

#[test]
fn a_position_of_a_room_that_nobody_is_in_is_known_for_a_while() {
    let mut node = Node::new(1 << 20);
    let position = node.join(0, "r", recover(None)).position.unwrap();
    node.sleep(10 * TTL_MS);
    node.leave(0, "r");
    node.sleep(TTL_MS - 1);
    let (number, _) = node.publish("r", 1, None);
    let back = node.join(0, "r", since(&position));
    assert_eq!((back.recovered, back.numbers()), (Some(true), vec![number]));
    node.leave(0, "r");
    node.sleep(TTL_MS);
    assert_eq!(node.router.history_bytes(), 0);
    let late = node.join(0, "r", since(&position));
    assert_eq!(late.recovered, Some(false));
    assert_ne!(late.position.unwrap().epoch, position.epoch);
}

#[test]
fn who_asks_for_a_page_is_told_a_position() {
    let mut node = Node::new(1 << 20);
    node.join(0, "r", JoinReply::Silent);
    node.leave(0, "r");
    assert_eq!(node.router.history_bytes(), 0, "no client was told a position");
    node.join(0, "r", JoinReply::Silent);
    assert!(node.router.history(conn(0), "r", None, None, None, &mut Told::default()));
    node.leave(0, "r");
    assert!(node.router.history_bytes() > 0);
}

#[test]
fn what_is_compressed_later_counts_as_well() {
    let mut node = Node::new(1 << 20);
    node.publish("r", 1_000, None);
    let before = node.router.history_bytes();
    let frames = node.join(0, "r", recover(Some(RecoverFrom::Last(1)))).frames;
    let occupied = node.router.history_bytes();
    assert!(occupied < before, "the room is there for its member");
    let deflated = frames[0].deflated(WindowBits::MAX, &mut Deflater::new(6, 1)).len();
    assert!(node.router.history_bytes() >= occupied + deflated);

    node.router.retention.set_bytes_max(occupied);
    node.sleep(1);
    assert_eq!(node.router.history_bytes(), 0, "there is no room for it");
}

#[test]
fn many_that_are_too_old_go_in_several_turns_and_nobody_gets_them() {
    let mut node = Node::new(1 << 20);
    let rooms = 2 * HISTORY_EXPIRIES_PER_TURN / MESSAGES_MAX as usize;
    for room in 0..rooms {
        (0..MESSAGES_MAX).for_each(|_| drop(node.publish(&format!("r{room}"), 1, None)));
    }
    node.sleep(TTL_MS);
    let topics = node.router.topics_count();
    let left = node.join(0, &format!("r{}", rooms - 1), recover(Some(RecoverFrom::Last(1))));
    assert_eq!(
        (left.numbers(), left.position.map(|position| position.offset)),
        (vec![], Some(u64::from(MESSAGES_MAX)))
    );
    assert!(node.router.history_bytes() > 0);
    node.sleep(0);
    assert_eq!(node.router.history_bytes(), 0);
    assert_eq!(node.router.topics_count(), topics - rooms / 2 + 1, "but for the one with a member");
}

#[derive(Clone, Debug)]
enum Act {
    Join {
        who: u32,
        room: usize,
        position: Option<usize>,
    },
    JoinSilently {
        who: u32,
        room: usize,
    },
    Leave {
        who: u32,
        room: usize,
    },
    Publish {
        room: usize,
        bytes: usize,
        key: Option<u8>,
    },
    Sleep(u64),
    /// What can be built again is.
    Rebuild,
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let (who, room) = (0..CONNS, 0_usize..4);
    let act = prop_oneof![
        4 => (who.clone(), room.clone(), proptest::option::of(0_usize..100))
            .prop_map(|(who, room, position)| Act::Join { who, room, position }),
        1 => (who.clone(), room.clone()).prop_map(|(who, room)| Act::JoinSilently { who, room }),
        4 => (who, room.clone()).prop_map(|(who, room)| Act::Leave { who, room }),
        4 => (room, 0_usize..600, proptest::option::of(0_u8..10))
            .prop_map(|(room, bytes, key)| Act::Publish { room, bytes, key }),
        2 => (0_u64..TTL_MS).prop_map(Act::Sleep),
        1 => Just(Act::Rebuild),
    ];
    proptest::collection::vec(act, 1..80)
}

/// A position that a client was told, how many messages the room had then, and when it was told.
type Position = (StreamPosition, usize, u64);

#[derive(Default)]
struct Model {
    /// What was published to each room, with the time.
    published: BTreeMap<usize, Vec<(u64, u64)>>,
    told: BTreeMap<usize, Vec<Position>>,
}

impl Model {
    fn tell(&mut self, room: usize, position: Option<StreamPosition>, now_ms: u64) {
        let messages = self.published.entry(room).or_default().len();
        self.told.entry(room).or_default().extend(position.map(|position| (position, messages, now_ms)));
    }

    fn check(&self, room: usize, position: &Position, told: &Told, has_room: bool, now_ms: u64) {
        let (_, messages, told_at) = position;
        let missed = &self.published[&room][*messages..];
        let numbers: Vec<u64> = missed.iter().map(|(number, _)| *number).collect();
        match told.recovered {
            Some(true) => assert_eq!(told.numbers(), numbers),
            _ => assert_eq!(told.numbers(), Vec::<u64>::new()),
        }
        let is_fresh = missed.iter().all(|(_, at)| at + TTL_MS > now_ms) && told_at + TTL_MS > now_ms;
        if has_room && is_fresh && missed.len() <= MESSAGES_MAX as usize {
            assert_eq!(told.recovered, Some(true), "{position:?} at {now_ms}");
        }
    }
}

fn run(node: &mut Node, model: &mut Model, has_room: bool, act: Act) {
    let name = |room: usize| format!("room{room}");
    match act {
        Act::Join { who, room, position } => {
            let positions = model.told.get(&room).filter(|positions| !positions.is_empty());
            let position = position.zip(positions).map(|(at, positions)| positions[at % positions.len()].clone());
            // A position is for those who are not in the room.
            node.leave(who, &name(room));
            let told = node.join(who, &name(room), position.as_ref().map_or_else(|| recover(None), |at| since(&at.0)));
            if let Some(position) = &position {
                model.check(room, position, &told, has_room, node.now_ms);
            }
            model.tell(room, told.position, node.now_ms);
        }
        Act::JoinSilently { who, room } => drop(node.join(who, &name(room), JoinReply::Silent)),
        Act::Leave { who, room } => node.leave(who, &name(room)),
        Act::Publish { room, bytes, key } => {
            let key = key.map(|key| format!("5:alice{key}"));
            let (number, position) = node.publish(&name(room), bytes, key.as_deref());
            let is_repeat = model.told.get(&room).is_some_and(|told| {
                told.iter().any(|(known, ..)| known.epoch == position.epoch && known.offset >= position.offset)
            });
            if !is_repeat {
                model.published.entry(room).or_default().push((number, node.now_ms));
                model.tell(room, Some(position), node.now_ms);
            }
        }
        Act::Sleep(ms) => node.sleep(ms),
        Act::Rebuild => node.router.rebuild(),
    }
}

proptest! {
    #[test]
    fn who_comes_back_gets_all_that_was_missed_or_is_told(
        bytes_max in prop_oneof![Just(0_usize), 1_000..8_000_usize, Just(1 << 20)],
        acts in acts(),
    ) {
        let (mut node, mut model) = (Node::new(bytes_max), Model::default());
        for act in acts {
            run(&mut node, &mut model, bytes_max == 1 << 20, act);
            node.router.check_invariants();
            prop_assert!(node.router.history_bytes() <= bytes_max);
        }
    }
}
