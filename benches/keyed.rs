//! Keyed rooms in the router, without sockets: an update in a small and in a large room, and rounds of a cohort.
//!
//! `cargo bench --bench keyed`

use std::hint::black_box;
use std::sync::Arc;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

use fanfare::compress::SharedFrame;
use fanfare::frame::{FrameBuilder, Opcode};
use fanfare::ids::{ConnId, ReactorId, Slot};
use fanfare::protocol::keyed::Body;
use fanfare::protocol::{Mode, keyed_head, keyed_tail};
use fanfare::router::{
    Answer, Batch, BatchBody, CommandKind, HistorySettings, ItemFilter, ItemState, ItemUpdates, JoinReply, KeyedPolicy,
    KeyedRooms, KeyedSettings, Kind, NoticeSettings, PublishItems, Router, RouterSettings, Sink, Slice, Subscribe,
    Terms, TopicRef,
};
use fanfare::time::{Millis, Stamp};

const ROOM: TopicRef<'static> = TopicRef { kind: Kind::Room, name: "px" };

/// Counts what it is given, and gives buffers back.
#[derive(Default)]
struct Counter {
    frames: u64,
    buffers: Vec<Vec<u8>>,
}

impl Sink for Counter {
    fn deliver(&mut self, batch: Batch, members: &[Slot]) {
        self.frames += u64::from(batch.frames) * members.len() as u64;
        if let BatchBody::Joined(buffer) = batch.body {
            self.buffers.push(buffer);
        }
    }

    fn takes_rounds(&self, _: Slot) -> bool {
        true
    }

    fn recover(&mut self, _: ConnId, _: Slice) {}

    fn direct(&mut self, _: ConnId, _: &[u8], _: Stamp) {}

    fn reply(&mut self, _: ConnId, _: &[u8]) {}

    fn answer(&mut self, _: ConnId, _: Answer<'_>) {}

    fn disconnect(&mut self, _: &str) {}
}

/// One reactor with a keyed room.
struct Room {
    router: Router,
    sink: Counter,
    updates: ItemUpdates,
    now_ms: u64,
}

fn conn(slot: u32) -> ConnId {
    ConnId { reactor: ReactorId(0), slot: Slot(slot), generation: 0 }
}

impl Room {
    fn new() -> Room {
        let policy = KeyedPolicy {
            items_max: u32::MAX,
            bytes_max: u64::MAX >> 1,
            ttl_ms: None,
            removed_ttl_ms: 1_000,
            stale_after_ms: None,
        };
        let keyed = KeyedSettings {
            rooms: Some(KeyedRooms(Arc::new(move |_: &str| Some(policy)))),
            node_items_max: u64::MAX >> 1,
            node_bytes_max: u64::MAX >> 1,
            subscription_bytes_max: usize::MAX,
        };
        let notices = NoticeSettings { members_max: 0, join_text: String::new(), leave_text: String::new() };
        let settings = RouterSettings {
            rooms_max: 8,
            notices,
            history: HistorySettings::none(),
            keyed,
            user_connections: None,
            cluster: false,
        };
        let router = Router::new(ReactorId(0), 1, 1, 1, settings);
        let mut room = Room { router, sink: Counter::default(), updates: ItemUpdates::default(), now_ms: 1_000 };
        room.router.connect(conn(0), "feed", &mut room.sink);
        room
    }

    fn update(&mut self, items: impl Iterator<Item = usize>) {
        self.updates.begin(CommandKind::Many);
        for item in items {
            let tail = |out: &mut Vec<u8>| keyed_tail(out, Some("feed"), Body::Content(CONTENT), 1_796_071_334_467);
            self.updates.push(&name(item), None, ItemState::Present, tail);
        }
        let (updates, publisher) = (&self.updates, conn(0).into());
        let publish = PublishItems { topic: ROOM, updates, exclude: Some(conn(0)), key: None, publisher };
        self.router.publish_items(publish, None, &mut self.sink);
    }

    fn turn(&mut self, ms: u64) {
        self.now_ms += ms;
        self.router.begin_turn(Millis(self.now_ms));
        self.router.end_turn(&mut self.sink);
        while let Some(buffer) = self.sink.buffers.pop() {
            self.router.recycle(buffer);
        }
    }

    fn subscribe(&mut self, slot: u32, terms: Terms) {
        let subscribe = Some(Box::new(Subscribe { terms, snapshot: Some(false) }));
        self.router.connect(conn(slot), &format!("user{slot}"), &mut self.sink);
        let reply = JoinReply::Joined { id: None, recover: None, subscribe };
        self.router.join(conn(slot), "px", reply, &mut self.sink).unwrap();
    }
}

const CONTENT: &str = r#"{"bid":187.24,"ask":187.26,"bidSize":300,"askSize":1200}"#;

fn name(item: usize) -> String {
    format!("I{item:06}")
}

/// One update of one item, beside the frame of it alone.
fn update(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("update");
    let mut frames = FrameBuilder::default();
    group.bench_function("frame_alone", |bencher| {
        bencher.iter(|| {
            let frame = frames.build(Opcode::Text, |out| {
                keyed_head(out, "px", black_box("I000042"), 7, 4711);
                keyed_tail(out, Some("feed"), Body::Content(CONTENT), 1_796_071_334_467);
            });
            SharedFrame::from(frame)
        });
    });
    for items in [100, 100_000] {
        let mut room = Room::new();
        room.update(0..items);
        room.turn(1);
        let mut at = 0;
        group.throughput(Throughput::Elements(100));
        group.bench_function(BenchmarkId::new("of_items_by_hundreds", items), |bencher| {
            bencher.iter(|| {
                // Far apart, so that no cache has them.
                let next = |_| {
                    at = (at + 7_919) % items;
                    at
                };
                room.update((0..100).map(next));
            });
        });
    }
    group.finish();
}

/// A round of all that changed for a cohort of a thousand, and rounds of a thousand subscribers with 20 items of their own.
fn rounds(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("round");
    let terms = |filter| Terms { mode: Mode::Latest, interval_ms: 100, filter };
    let mut one = Room::new();
    (1..=1_000).for_each(|slot| one.subscribe(slot, terms(ItemFilter::All)));
    one.update(0..1_000);
    one.turn(100);
    group.bench_function("a_thousand_items_to_one_cohort", |bencher| {
        bencher.iter(|| {
            one.update(0..1_000);
            one.turn(100);
        });
    });
    let mut own = Room::new();
    for slot in 1..=1_000_u32 {
        let names: Vec<String> = (0..20).map(|at| name((slot as usize * 37 + at * 499) % 10_000)).collect();
        own.subscribe(slot, terms(ItemFilter::new(names.iter().map(String::as_str))));
    }
    own.update(0..10_000);
    own.turn(100);
    group.bench_function("ten_thousand_items_to_cohorts_of_their_own", |bencher| {
        bencher.iter(|| {
            own.update(0..10_000);
            // As many turns as the bytes of a turn allow.
            (0..8).for_each(|turn| own.turn(if turn == 0 { 100 } else { 0 }));
        });
    });
    group.finish();
    assert!(one.sink.frames > 0 && own.sink.frames > 0);
}

criterion_group!(benches, update, rounds);
criterion_main!(benches);
