//! What history holds: never more than it may, all of it counted, and nothing that no client can come back for.

use std::cell::Cell;
use std::sync::Arc;

use fanfare::frame::{FrameBuilder, Opcode};
use fanfare::ids::{ConnId, ReactorId, Slot};
use fanfare::limits::HISTORY_EXPIRIES_PER_TURN;
use fanfare::router::{
    Answer, Batch, HistoryPolicy, HistorySettings, JoinReply, KeyedSettings, Kind, NoticeSettings, Publish,
    RecoverFrom, RoomPolicies, Router, RouterSettings, Sink, Slice, TopicRef,
};
use fanfare::time::{Millis, Stamp};
use stats_alloc::Region;

use super::ALLOCATOR;

const BYTES_MAX: usize = 8 << 20;
const TTL_MS: u64 = 3_600_000;
const NAMES: usize = 200_000;

/// So many bytes at most are counted for each that is allocated: tables may be half empty, and what the allocator adds
/// to each allocation is counted as well.
const COUNTED_FOR_ALLOCATED: f64 = 1.6;

/// What a router has without history: tables that have grown, buffers.
const OTHER_BYTES: i64 = 64 * 1024;

/// Counts what connections are told.
#[derive(Default)]
struct Told {
    places: Cell<usize>,
    recovered: Cell<usize>,
}

impl Sink for &Told {
    fn deliver(&mut self, _: Batch, _: &[Slot]) {}
    fn takes_rounds(&self, _: Slot) -> bool {
        true
    }
    fn recover(&mut self, _: ConnId, slice: Slice) {
        self.recovered.set(self.recovered.get() + slice.frames().len());
    }
    fn reply(&mut self, to: ConnId, frame: &[u8]) {
        self.direct(to, frame, Stamp::default());
    }

    fn direct(&mut self, _: ConnId, _: &[u8], _: Stamp) {}
    fn answer(&mut self, _: ConnId, answer: Answer<'_>) {
        if let Answer::Connected { inbox: Some(_) } | Answer::Joined { position: Some(_), .. } = answer {
            self.places.set(self.places.get() + 1);
        }
    }
    fn disconnect(&mut self, _: &str) {}
}

const ALICE: ConnId = ConnId { reactor: ReactorId(0), slot: Slot(0), generation: 0 };
const BOB: ConnId = ConnId { reactor: ReactorId(0), slot: Slot(1), generation: 0 };

/// A reactor alone, and its turns.
struct Node {
    router: Router,
    told: Told,
    now_ms: u64,
    frame: Vec<u8>,
}

impl Node {
    fn new(bytes_max: usize, messages_max: u32) -> Node {
        let policy = HistoryPolicy { messages_max, ttl_ms: TTL_MS };
        let history = HistorySettings {
            rooms: Some(RoomPolicies(Arc::new(move |_| Some(policy)))),
            inbox: Some(policy),
            bytes_max,
            pinned: Arc::default(),
            pinned_bytes_max: bytes_max as u64,
        };
        let notices = NoticeSettings { members_max: 0, join_text: String::new(), leave_text: String::new() };
        let settings = RouterSettings {
            rooms_max: 128,
            notices,
            history,
            keyed: KeyedSettings::none(),
            user_connections: None,
            cluster: false,
        };
        let frame = FrameBuilder::default().build(Opcode::Text, |out| out.extend_from_slice(br#"{"a":1}"#)).to_vec();
        let mut node =
            Node { router: Router::new(ReactorId(0), 1, 1, 1, settings), told: Told::default(), now_ms: 0, frame };
        node.router.connect(ALICE, "alice", &mut &node.told);
        node
    }

    fn turn(&mut self) {
        self.router.end_turn(&mut &self.told);
        self.now_ms += 1;
        self.router.begin_turn(Millis(self.now_ms));
    }

    fn visit(&mut self, room: &str, ask: JoinReply) {
        self.router.join(ALICE, room, ask, &mut &self.told).unwrap();
        self.router.leave(ALICE, room, None, &mut &self.told);
    }

    fn publish(&mut self, kind: Kind, name: &str, key: Option<&str>) {
        let topic = TopicRef { kind, name };
        let publish = Publish { topic, frame: &self.frame, exclude: None, key, publisher: ALICE.into() };
        self.router.publish(publish, None, &mut &self.told);
    }
}

fn told() -> JoinReply {
    JoinReply::Joined { id: Some("1".into()), recover: None, subscribe: None }
}

fn last(count: u64) -> JoinReply {
    JoinReply::Joined { id: None, recover: Some(RecoverFrom::Last(count)), subscribe: None }
}

/// Bytes that are allocated after some work and were not before.
fn held_after(work: impl FnOnce()) -> i64 {
    let region = Region::new(ALLOCATOR);
    work();
    let change = region.change();
    change.bytes_allocated as i64 - change.bytes_deallocated as i64
}

/// Does something with so many names, which fills history to its bound; all of it is given back when it is too old.
fn fills_to_the_bound(what: &str, mut act: impl FnMut(&mut Node, usize)) {
    let mut node = Node::new(BYTES_MAX, 1_000);
    let topics = node.router.topics_count();
    let held = held_after(|| {
        for number in 0..NAMES {
            act(&mut node, number);
            node.turn();
        }
    });
    let counted = node.router.history_bytes();
    println!("  {what}: {counted} bytes counted, {held} allocated, {} topics", node.router.topics_count());
    assert!((BYTES_MAX * 9 / 10..=BYTES_MAX).contains(&counted), "{what}: {counted} bytes counted");
    assert!(held - OTHER_BYTES <= counted as i64, "{what}: {held} bytes are held, {counted} counted");
    assert!(counted as f64 <= COUNTED_FOR_ALLOCATED * held as f64, "{what}: {held} bytes are held, {counted} counted");

    node.now_ms += TTL_MS;
    // What is too old goes in several turns.
    (0..BYTES_MAX / HISTORY_EXPIRIES_PER_TURN / 100).for_each(|_| node.turn());
    assert_eq!((node.router.history_bytes(), node.router.topics_count()), (0, topics), "{what}");
}

pub fn what_history_holds_is_bounded_and_counted() {
    fills_to_the_bound("rooms joined and left", |node, number| {
        node.visit(&format!("room-{number}"), told());
    });
    fills_to_the_bound("users come and gone", |node, number| {
        let user = ConnId { generation: number as u32, ..BOB };
        node.router.connect(user, &format!("user-{number}"), &mut &node.told);
        node.router.disconnect(user, &mut &node.told);
    });
    fills_to_the_bound("one message to each of many rooms", |node, number| {
        node.publish(Kind::Room, &format!("room-{number}"), None);
    });
    fills_to_the_bound("one message to each of many users", |node, number| {
        node.publish(Kind::Inbox, &format!("user-{number}"), None);
    });
    fills_to_the_bound("one message with a key to each of many rooms", |node, number| {
        node.publish(Kind::Room, &format!("room-{number}"), Some(&format!("5:alice{number}")));
    });
    fills_to_the_bound("many messages to some rooms", |node, number| {
        node.publish(Kind::Room, &format!("room-{}", number % 100), None);
    });
    fills_to_the_bound("many messages with keys to some rooms", |node, number| {
        node.publish(Kind::Room, &format!("room-{}", number % 50), Some(&format!("5:alice{number}")));
    });
}

pub fn nothing_is_kept_where_nobody_was_told_a_position() {
    let mut node = Node::new(BYTES_MAX, 1_000);
    let topics = node.router.topics_count();
    let held = held_after(|| {
        for number in 0..NAMES {
            node.visit(&format!("room-{number}"), JoinReply::Silent);
            node.turn();
        }
    });
    assert_eq!((node.router.history_bytes(), node.router.topics_count()), (0, topics));
    assert!(held <= OTHER_BYTES, "{held} bytes are held");
}

/// Bytes and allocations of a join that asks for the newest message, a leave and a publish, in a room with so many.
fn cost_of_last_one(messages: u32) -> (usize, usize) {
    const ROUNDS: usize = 100;
    // As many in both cases, so that their offsets have as many digits.
    const MESSAGES: usize = 200_000;
    let mut node = Node::new(1 << 30, messages);
    for _ in 0..MESSAGES {
        node.publish(Kind::Room, "den", None);
    }
    node.visit("den", last(1));
    let recovered = node.told.recovered.replace(0);
    assert_eq!(recovered, 1);
    let region = Region::new(ALLOCATOR);
    for _ in 0..ROUNDS {
        node.publish(Kind::Room, "den", None);
        node.visit("den", last(1));
    }
    let change = region.change();
    assert_eq!(node.told.recovered.get(), ROUNDS);
    (change.allocations + change.reallocations, change.bytes_allocated)
}

pub fn the_newest_message_costs_the_same_however_many_there_are() {
    let (few, many) = (cost_of_last_one(100), cost_of_last_one(100_000));
    println!("  of 100: {few:?} allocations and bytes; of 100,000: {many:?}");
    assert_eq!(few, many);
}
