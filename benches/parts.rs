//! The parts of the frame path, each beside what a library or the plain way does with the same work.
//!
//! `cargo bench --bench parts`, or with a filter behind `--`: `cargo bench --bench parts -- unmask`. Measuring times
//! are short, for the whole file to be done within a minute; `-- --measurement-time 5` makes them longer. `ours` is
//! fanfare's part in every group.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::hint::black_box;
use std::io::Cursor;
use std::sync::Arc;
use std::time::Duration;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use crossbeam_channel::bounded;
use fanfare::auth::{Alg, Allowance, Auth, Key, Permissions, Settings, SigningKey, When};
use fanfare::compress::SharedFrame;
use fanfare::config::Pattern;
use fanfare::conn::{Cause, Chunk, Ledger, Outbox, Segment, parse_header, unmask, validate};
use fanfare::frame::{FrameBuilder, Opcode, encode_header};
use fanfare::ids::{ConnId, ReactorId, Slot};
use fanfare::limits::MAILBOX_PARCELS;
use fanfare::metrics::{Counts, Ending, ReactorMetrics};
use fanfare::protocol;
use fanfare::router::{
    Answer, Batch, BatchBody, HistoryPolicy, HistorySettings, JoinReply, KeyedSettings, Kind, Mail, NoticeSettings,
    Publish, RecoverFrom, RoomPolicies, Router, RouterSettings, Sink, Slice, TopicRef,
};
use fanfare::time::{Millis, Stamp, wheel::Wheel};
use ring::rand::SystemRandom;
use ring::signature::{self, KeyPair, UnparsedPublicKey, VerificationAlgorithm};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::pki_types::pem::PemObject;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Data, OpCode};

/// Who publishes, where nobody is told of it.
const NOBODY: ConnId = ConnId { reactor: ReactorId(0), slot: Slot(0), generation: 0 };

/// Members of the largest room.
const MEMBERS_MAX: usize = 1_000;

const KEY: [u8; 4] = [0x37, 0xFA, 0x21, 0x3D];

fn settings() -> Criterion {
    Criterion::default()
        .warm_up_time(Duration::from_millis(100))
        .measurement_time(Duration::from_millis(400))
        .sample_size(20)
        .without_plots()
        .configure_from_args()
}

criterion_group! {
    name = parts;
    config = settings();
    targets = read_header, write_header, unmasking, utf8, command, event, fan_out, hop, history, room_tables, mailbox, wheel, outbox, counters, permissions, tokens
}
criterion_main!(parts);

/// The header of a client's frame, masked.
fn client_header(payload_bytes: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode_header(&mut bytes, Opcode::Text, payload_bytes);
    bytes[1] |= 0x80;
    bytes.extend_from_slice(&KEY);
    bytes
}

fn read_header(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("header_read");
    for payload_bytes in [100, 1_000, 100_000] {
        let bytes = client_header(payload_bytes);
        group.bench_with_input(BenchmarkId::new("ours", payload_bytes), &bytes, |bencher, bytes| {
            bencher.iter(|| parse_header(black_box(bytes), false).unwrap().unwrap());
        });
        group.bench_with_input(BenchmarkId::new("tungstenite", payload_bytes), &bytes, |bencher, bytes| {
            bencher.iter(|| FrameHeader::parse(&mut Cursor::new(black_box(&bytes[..]))).unwrap().unwrap());
        });
    }
}

fn write_header(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("header_write");
    let mut out = Vec::with_capacity(16);
    group.bench_function("ours/1000", |bencher| {
        bencher.iter(|| {
            out.clear();
            encode_header(&mut out, Opcode::Text, black_box(1_000));
            black_box(&out);
        });
    });
    let header = FrameHeader { opcode: OpCode::Data(Data::Text), ..FrameHeader::default() };
    group.bench_function("tungstenite/1000", |bencher| {
        bencher.iter(|| {
            out.clear();
            header.format(black_box(1_000), &mut out).unwrap();
            black_box(&out);
        });
    });
}

fn unmasking(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("unmask");
    for len in [16, 128, 4_096, 65_536] {
        let mut bytes = vec![b'x'; len];
        group.throughput(Throughput::Bytes(len as u64));
        group.bench_function(BenchmarkId::new("ours", len), |bencher| {
            bencher.iter(|| unmask(black_box(&mut bytes), black_box(KEY), 0));
        });
        group.bench_function(BenchmarkId::new("byte_loop", len), |bencher| {
            bencher.iter(|| {
                let key = black_box(KEY);
                for (at, byte) in black_box(&mut bytes).iter_mut().enumerate() {
                    *byte ^= key[at & 3];
                }
            });
        });
    }
}

fn utf8(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("utf8");
    for (name, text) in [
        ("ascii_16", "x".repeat(16)),
        ("ascii_128", "x".repeat(128)),
        ("ascii_4k", "x".repeat(4_096)),
        ("mixed_132", "Grüße, мир! 🎉 ".repeat(6)),
        ("mixed_4k", "Grüße, мир! 🎉 ".repeat(186)),
    ] {
        group.throughput(Throughput::Bytes(text.len() as u64));
        group.bench_function(BenchmarkId::new("ours", name), |bencher| {
            bencher.iter(|| validate(black_box(text.as_bytes())).unwrap());
        });
        group.bench_function(BenchmarkId::new("std", name), |bencher| {
            bencher.iter(|| std::str::from_utf8(black_box(text.as_bytes())).unwrap());
        });
    }
}

/// A command as serde reads it: the envelope borrowed, the content untouched.
#[derive(Deserialize)]
#[expect(dead_code, reason = "only the reading counts")]
struct Envelope<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    #[serde(rename = "roomId")]
    room: Option<&'a str>,
    #[serde(rename = "toUser")]
    to_user: Option<&'a str>,
    #[serde(borrow)]
    content: Option<&'a RawValue>,
}

fn command(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("json_command");
    let text = format!(r#""{}""#, "x".repeat(126));
    let nested = format!("[{}]", [r#"{"a":[1,2.5,true,null],"b":"text","c":{"d":"e"}}"#; 80].join(","));
    for (name, command) in [
        ("room_128", format!(r#"{{"type":"room_msg","roomId":"room-000042","content":{text}}}"#)),
        ("private_128", format!(r#"{{"type":"private_msg","toUser":"u000042","content":{text},"id":"m-17"}}"#)),
        ("room_nested_4k", format!(r#"{{"type":"room_msg","roomId":"room-000042","content":{nested}}}"#)),
    ] {
        group.throughput(Throughput::Bytes(command.len() as u64));
        group.bench_with_input(BenchmarkId::new("ours", name), &command, |bencher, command| {
            bencher.iter(|| protocol::parse(black_box(command)).unwrap());
        });
        group.bench_with_input(BenchmarkId::new("serde_json_raw_value", name), &command, |bencher, command| {
            bencher.iter(|| serde_json::from_str::<Envelope<'_>>(black_box(command)).unwrap());
        });
        // It changes what it reads, so that the content is lost unless the message is copied first.
        let (mut copy, mut buffers) = (Vec::new(), simd_json::Buffers::default());
        group.bench_with_input(BenchmarkId::new("simd_json_copied", name), &command, |bencher, command| {
            bencher.iter(|| {
                copy.clear();
                copy.extend_from_slice(black_box(command).as_bytes());
                simd_json::to_tape_with_buffers(&mut copy, &mut buffers).unwrap().0.len()
            });
        });
    }
}

/// A room's message as serde writes it.
#[derive(Serialize)]
struct RoomMsg<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    #[serde(rename = "roomId")]
    room: &'a str,
    from: &'a str,
    content: &'a RawValue,
    time: u64,
}

fn event(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("event");
    let content = format!(r#""{}""#, "x".repeat(126));
    let raw: &RawValue = serde_json::from_str(&content).unwrap();
    let (room, from, time) = ("room-000042", "u000042", 1_800_000_000_000);
    let of = || RoomMsg { kind: "room_msg", room: black_box(room), from: black_box(from), content: raw, time };
    let mut out = Vec::new();
    group.bench_function("ours", |bencher| {
        bencher.iter(|| {
            out.clear();
            protocol::room_msg(&mut out, black_box(room), black_box(from), &content, time);
            black_box(&out);
        });
    });
    group.bench_function("serde_json_to_string", |bencher| bencher.iter(|| serde_json::to_string(&of()).unwrap()));
    group.bench_function("serde_json_to_buffer", |bencher| {
        bencher.iter(|| {
            out.clear();
            serde_json::to_writer(&mut out, &of()).unwrap();
            black_box(&out);
        });
    });
    let mut frames = FrameBuilder::default();
    group.bench_function("ours_framed", |bencher| {
        bencher.iter(|| {
            let frame = frames.build(Opcode::Text, |out| {
                protocol::room_msg(out, black_box(room), black_box(from), &content, time);
            });
            black_box(frame.len())
        });
    });
}

/// Notes for each member what a reactor notes, counts, and keeps the buffers that go back to the router.
#[derive(Default)]
struct Counter {
    deliveries: u64,
    batches: u32,
    /// The last batch of each connection in this turn; 0 is none.
    noted: Vec<u32>,
    dirty: Vec<u32>,
    emptied: Vec<Vec<u8>>,
}

impl Counter {
    fn new() -> Counter {
        Counter { noted: vec![0; MEMBERS_MAX], ..Counter::default() }
    }

    fn end_turn(&mut self, router: &mut Router) {
        router.end_turn(self);
        self.dirty.drain(..).for_each(|slot| self.noted[slot as usize] = 0);
        self.emptied.drain(..).for_each(|buffer| router.recycle(buffer));
        self.batches = 0;
    }
}

impl Sink for Counter {
    fn deliver(&mut self, batch: Batch, members: &[Slot]) {
        self.deliveries += u64::from(batch.frames) * members.len() as u64;
        self.batches += 1;
        for &Slot(slot) in members {
            if std::mem::replace(&mut self.noted[slot as usize], self.batches) == 0 {
                self.dirty.push(slot);
            }
        }
        if let BatchBody::Joined(buffer) = batch.body {
            self.emptied.push(buffer);
        }
    }

    fn takes_rounds(&self, _: Slot) -> bool {
        true
    }

    fn recover(&mut self, _: ConnId, _: Slice) {}

    fn reply(&mut self, to: ConnId, frame: &[u8]) {
        self.direct(to, frame, Stamp::default());
    }

    fn direct(&mut self, _: ConnId, _: &[u8], _: Stamp) {
        self.deliveries += 1;
    }

    fn answer(&mut self, _: ConnId, _: Answer<'_>) {}

    fn disconnect(&mut self, _: &str) {}
}

/// The routers of a node of two reactors, with mail carried by hand.
struct Routers {
    routers: [Router; 2],
    sinks: [Counter; 2],
}

impl Routers {
    fn new() -> Routers {
        let notices = NoticeSettings { members_max: 0, join_text: String::new(), leave_text: String::new() };
        let settings = RouterSettings {
            rooms_max: 128,
            notices,
            history: HistorySettings::none(),
            keyed: KeyedSettings::none(),
            user_connections: None,
            cluster: false,
        };
        let router = |me| Router::new(ReactorId(me), 2, 1, 1, settings.clone());
        Routers { routers: [router(0), router(1)], sinks: [Counter::new(), Counter::new()] }
    }

    /// So many members of a room on reactor 0, the room's home being reactor `home`; the room's name.
    fn with_members(home: usize, members: u32) -> (Routers, String) {
        let mut routers = Routers::new();
        let names = (0..).map(|number| format!("room-{number:06}"));
        let room = names.into_iter().find(|name| routers.home(name) == home).unwrap();
        for slot in 0..members {
            let conn = ConnId { reactor: ReactorId(0), slot: Slot(slot), generation: 0 };
            routers.routers[0].connect(conn, &format!("u{slot}"), &mut routers.sinks[0]);
            routers.carry_mail();
            routers.routers[0].join(conn, &room, JoinReply::Silent, &mut routers.sinks[0]).unwrap();
            routers.carry_mail();
        }
        routers.sinks = [Counter::new(), Counter::new()];
        routers.publish(&room, b"frame");
        routers.carry_mail();
        routers.end_turn();
        assert_eq!(routers.sinks[0].deliveries, u64::from(members), "all of them are members");
        (routers, room)
    }

    /// A topic without members: its home drops a publish, the other reactor sends it there.
    fn home(&mut self, room: &str) -> usize {
        self.publish(room, b"frame");
        self.routers[0].poll_mail().count()
    }

    fn publish(&mut self, room: &str, frame: &[u8]) {
        let topic = TopicRef { kind: Kind::Room, name: room };
        let publish = Publish { topic, frame, exclude: None, key: None, publisher: NOBODY.into() };
        self.routers[0].publish(publish, None, &mut self.sinks[0]);
    }

    fn carry_mail(&mut self) {
        let [first, second] = &mut self.routers;
        let mut moved = true;
        while std::mem::take(&mut moved) {
            for (_, mail) in first.poll_mail() {
                second.handle_mail(mail, &mut self.sinks[1]);
                moved = true;
            }
            for (_, mail) in second.poll_mail() {
                first.handle_mail(mail, &mut self.sinks[0]);
                moved = true;
            }
        }
    }

    fn end_turn(&mut self) {
        for (router, sink) in self.routers.iter_mut().zip(&mut self.sinks) {
            sink.end_turn(router);
        }
    }
}

/// The plan alone: from a publish to a batch with its members, without a socket.
fn fan_out(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("fan_out");
    let frame = [b'x'; 130];
    for members in [1, 10, MEMBERS_MAX as u32] {
        let (mut routers, room) = Routers::with_members(0, members);
        group.throughput(Throughput::Elements(u64::from(members)));
        group.bench_function(BenchmarkId::new("ours", members), |bencher| {
            bencher.iter(|| {
                routers.publish(black_box(&room), &frame);
                routers.end_turn();
            });
        });
        // As it is mostly written: a map of rooms, and for each member an entry in a queue of its own.
        let rooms = HashMap::from([(room.clone(), (0..members as usize).collect::<Vec<_>>())]);
        let mut queues: Vec<VecDeque<Arc<[u8]>>> = vec![VecDeque::new(); members as usize];
        group.bench_function(BenchmarkId::new("map_and_queues", members), |bencher| {
            bencher.iter(|| {
                let frame: Arc<[u8]> = black_box(&frame)[..].into();
                for &member in &rooms[black_box(&room)] {
                    queues[member].push_back(frame.clone());
                }
                queues.iter_mut().for_each(VecDeque::clear);
            });
        });
        group.throughput(Throughput::Elements(32 * u64::from(members)));
        group.bench_function(BenchmarkId::new("ours_32_in_a_turn", members), |bencher| {
            bencher.iter(|| {
                for _ in 0..32 {
                    routers.publish(black_box(&room), &frame);
                }
                routers.end_turn();
            });
        });
    }
}

/// What it costs that a topic's home is another reactor: two pieces of mail, a shared frame, two more look-ups. The
/// threads' wakes are not in it.
fn hop(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("hop");
    let frame = [b'x'; 130];
    for members in [1, 10, MEMBERS_MAX as u32] {
        for (name, home) in [("home_here", 0), ("home_elsewhere", 1)] {
            let (mut routers, room) = Routers::with_members(home, members);
            group.bench_function(BenchmarkId::new(name, members), |bencher| {
                bencher.iter(|| {
                    routers.publish(black_box(&room), &frame);
                    routers.carry_mail();
                    routers.end_turn();
                });
            });
        }
    }
}

/// The router of a node with one reactor, without notices, whose rooms keep what `of` says.
fn router_that_keeps(of: impl Fn(&str) -> Option<HistoryPolicy> + Send + Sync + 'static) -> Router {
    let history = HistorySettings {
        rooms: Some(RoomPolicies(Arc::new(of))),
        inbox: None,
        bytes_max: usize::MAX,
        pinned: Arc::default(),
        pinned_bytes_max: u64::MAX,
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
    Router::new(ReactorId(0), 1, 1, 1, settings)
}

/// A message into a history that is full, and a join that asks for the newest behind each, beside a copy of all that
/// there is.
fn history(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("history");
    let frame = [b"\x81\x7e\x00\x7e".as_slice(), &[b'x'; 125], b"}"].concat();
    for messages in [100, 100_000] {
        let policy = HistoryPolicy { messages_max: messages, ttl_ms: u64::MAX };
        let (mut router, mut sink) = (router_that_keeps(move |_| Some(policy)), Counter::new());
        router.connect(NOBODY, "alice", &mut sink);
        let topic = TopicRef { kind: Kind::Room, name: "room" };
        let publish = Publish { topic, frame: &frame, exclude: None, key: None, publisher: NOBODY.into() };
        (0..messages).for_each(|_| router.publish(publish, None, &mut sink));
        group.bench_function(BenchmarkId::new("publish", messages), |bencher| {
            bencher.iter(|| router.publish(black_box(publish), None, &mut sink));
        });
        group.bench_function(BenchmarkId::new("publish_and_join_last_1", messages), |bencher| {
            bencher.iter(|| {
                router.publish(black_box(publish), None, &mut sink);
                let last = JoinReply::Joined { id: None, recover: Some(RecoverFrom::Last(1)), subscribe: None };
                router.join(NOBODY, "room", last, &mut sink).unwrap();
                router.leave(NOBODY, "room", None, &mut sink);
            });
        });
        let ring: VecDeque<SharedFrame> = (0..messages).map(|_| SharedFrame::from(&frame[..])).collect();
        group.bench_function(BenchmarkId::new("copy_of_the_ring", messages), |bencher| {
            bencher.iter(|| black_box(&ring).iter().cloned().collect::<Box<[SharedFrame]>>());
        });
    }
}

/// A message into a room with history, where it is the first of so many `[[room]]` tables that matches, and one into a
/// room that keeps nothing and has no member.
fn room_tables(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("room_tables");
    let frame = [b"\x81\x7e\x00\x7e".as_slice(), &[b'x'; 125], b"}"].concat();
    for tables in [1, 200] {
        let pattern = |at: usize| format!("market{at:03}.*").parse::<Pattern>().unwrap();
        let patterns: Vec<Pattern> = (0..tables).rev().map(pattern).collect();
        let policy = HistoryPolicy { messages_max: 100, ttl_ms: u64::MAX };
        let of = move |room: &str| patterns.iter().find(|pattern| pattern.matches(room)).map(|_| policy);
        let (mut router, mut sink) = (router_that_keeps(of), Counter::new());
        for (what, name) in [("publish", "market000.gold"), ("publish_to_no_member", "den")] {
            let topic = TopicRef { kind: Kind::Room, name };
            let publish = Publish { topic, frame: &frame, exclude: None, key: None, publisher: NOBODY.into() };
            (0..100).for_each(|_| router.publish(publish, None, &mut sink));
            group.bench_function(BenchmarkId::new(what, tables), |bencher| {
                bencher.iter(|| router.publish(black_box(publish), None, &mut sink));
            });
        }
    }
}

/// Some mail to reactor 0.
fn mail(router: &mut Router) -> Mail {
    let publish =
        Publish { topic: TopicRef::EVERYONE, frame: &[b'x'; 130], exclude: None, key: None, publisher: NOBODY.into() };
    router.publish(publish, None, &mut Counter::new());
    router.poll_mail().next().map(|(_, mail)| mail).unwrap()
}

/// Mail over a bounded channel: one by one, and in parcels that are emptied and used again, as reactors send it.
fn mailbox(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("mailbox");
    let mut router = Routers::new().routers.into_iter().nth(1).unwrap();
    for pieces in [1, 64] {
        group.throughput(Throughput::Elements(pieces as u64));
        let (sender, receiver) = bounded::<Mail>(MAILBOX_PARCELS);
        let mut held: Vec<Mail> = (0..pieces).map(|_| mail(&mut router)).collect();
        group.bench_function(BenchmarkId::new("one_by_one", pieces), |bencher| {
            bencher.iter(|| {
                held.drain(..).for_each(|mail| sender.try_send(mail).unwrap());
                held.extend(receiver.try_iter());
            });
        });
        let (sender, receiver) = bounded::<Vec<Mail>>(MAILBOX_PARCELS);
        let mut spare = Vec::new();
        group.bench_function(BenchmarkId::new("parcels", pieces), |bencher| {
            bencher.iter(|| {
                let mut parcel = std::mem::take(&mut spare);
                parcel.append(&mut held);
                sender.try_send(parcel).unwrap();
                let mut parcel = receiver.try_recv().unwrap();
                held.append(&mut parcel);
                spare = parcel;
            });
        });
    }
}

const TIMERS: u32 = 50_000;
const HEARTBEAT_MS: u64 = 30_000;

fn wheel(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("wheel");
    let mut random = fastrand::Rng::with_seed(1);
    let mut deadlines: Vec<u64> = (0..TIMERS).map(|_| random.u64(0..HEARTBEAT_MS)).collect();
    let mut wheel = Wheel::new();
    let mut tree = BTreeSet::new();
    for (slot, &at) in (0..).zip(&deadlines) {
        wheel.arm(slot, Millis(at));
        tree.insert((at, slot));
    }
    // One timer is set anew, as where a queue begins to wait.
    group.bench_function("rearm/ours", |bencher| {
        bencher.iter(|| wheel.arm(black_box(random.u32(0..TIMERS)), Millis(random.u64(0..HEARTBEAT_MS))));
    });
    group.bench_function("rearm/btree", |bencher| {
        bencher.iter(|| {
            let (slot, at) = (black_box(random.u32(0..TIMERS)), random.u64(0..HEARTBEAT_MS));
            tree.remove(&(deadlines[slot as usize], slot));
            tree.insert((at, slot));
            deadlines[slot as usize] = at;
        });
    });
    // A turn of 8 ms: some 13 connections are due, and armed for their next heartbeat.
    let (mut now, mut expired) = (0, Vec::new());
    group.bench_function("turn/ours", |bencher| {
        bencher.iter(|| {
            now += 8;
            wheel.expire(Millis(now), &mut expired);
            for slot in expired.drain(..) {
                wheel.arm(slot, Millis(now + HEARTBEAT_MS - random.u64(0..HEARTBEAT_MS / 10)));
            }
            wheel.next_at()
        });
    });
    let mut now = 0;
    group.bench_function("turn/btree", |bencher| {
        bencher.iter(|| {
            now += 8;
            while let Some(&(at, slot)) = tree.first()
                && at <= now
            {
                tree.pop_first();
                tree.insert((now + HEARTBEAT_MS - random.u64(0..HEARTBEAT_MS / 10), slot));
            }
            tree.first().map(|&(at, _)| at)
        });
    });
}

/// A frame queued for 100 slow consumers, which then take it.
fn outbox(criterion: &mut Criterion) {
    const CONSUMERS: usize = 100;
    let mut group = criterion.benchmark_group("outbox");
    for frame_bytes in [130, 16_384] {
        let frame = SharedFrame::from(&vec![b'x'; frame_bytes][..]);
        let ledger = Ledger::default();
        group.throughput(Throughput::Elements(CONSUMERS as u64));
        group.bench_function(BenchmarkId::new("ours", frame_bytes), |bencher| {
            let consumers = || -> Vec<Outbox> { (0..CONSUMERS).map(|_| Outbox::default()).collect() };
            let queue = |mut consumers: Vec<Outbox>| {
                let segment = Segment::shared(frame.clone(), Cause::Others, &ledger);
                for consumer in &mut consumers {
                    consumer.push(Chunk::new(segment.clone(), 0, frame_bytes), Millis(0));
                    black_box(consumer.slices(64).map(<[u8]>::len).sum::<usize>());
                    consumer.advance(frame_bytes / 2, Millis(1));
                    consumer.advance(frame_bytes - frame_bytes / 2, Millis(2));
                }
                consumers
            };
            bencher.iter_batched(consumers, queue, BatchSize::SmallInput);
        });
        group.bench_function(BenchmarkId::new("copies", frame_bytes), |bencher| {
            let consumers = || -> Vec<VecDeque<Vec<u8>>> { (0..CONSUMERS).map(|_| VecDeque::new()).collect() };
            let queue = |mut consumers: Vec<VecDeque<Vec<u8>>>| {
                for consumer in &mut consumers {
                    consumer.push_back(black_box(frame.plain()).to_vec());
                    black_box(consumer.iter().map(Vec::len).sum::<usize>());
                    let sent = black_box(frame_bytes / 2);
                    if consumer.front().is_some_and(|front| sent + frame_bytes - frame_bytes / 2 == front.len()) {
                        consumer.pop_front();
                    }
                }
                consumers
            };
            bencher.iter_batched(consumers, queue, BatchSize::SmallInput);
        });
    }
}

/// What metrics cost a reactor: once a turn its counts are published, however many messages the turn had.
fn counters(criterion: &mut Criterion) {
    let metrics = ReactorMetrics::default();
    let mut counts = Counts::default();
    criterion.bench_function("counters/published_in_a_turn", |bencher| {
        bencher.iter(|| {
            counts.turns += 1;
            counts.endings.count(black_box(Ending::Lost));
            black_box(&metrics).publish(black_box(&counts));
        });
    });
}

/// Whether a room may be published into, with twenty patterns of each form; `plain` asks them one by one.
fn permissions(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("permission");
    for (form, text) in [("prefixes", "team.N.*"), ("names", "team.N.chat"), ("middle", "team.*.N.chat")] {
        let patterns: Vec<Pattern> =
            (0..20).map(|at| text.replace('N', &at.to_string()).parse().expect("a pattern")).collect();
        let compiled = Permissions::new(&Allowance { publish: patterns.clone(), ..Allowance::default() });
        for (end, room) in [("hit", "team.9.chat"), ("miss", "team.99.other")] {
            let name = format!("{form}_{end}");
            group.bench_function(BenchmarkId::new("ours", &name), |bencher| {
                bencher.iter(|| compiled.may_publish(black_box(room)));
            });
            group.bench_function(BenchmarkId::new("plain", &name), |bencher| {
                bencher.iter(|| patterns.iter().any(|pattern| pattern.matches(black_box(room))));
            });
        }
    }
    group.finish();
}

/// A whole token, from its text to what it grants, by the way it is signed; `bare` is the signature alone, as the library
/// checks it.
fn tokens(criterion: &mut Criterion) {
    let random = SystemRandom::new();
    let secret = b"0123456789abcdef0123456789abcdef";
    let settings = || Settings {
        issuer: None,
        audience: None,
        anonymous: false,
        leeway_ms: 0,
        expiry_required: true,
        default: Allowance::default(),
    };
    let claims = r#"{"sub":"alice","exp":1800000060,"fanfare":{"join":["chat.*"],"publish":["chat.lobby"]}}"#;
    let mut group = criterion.benchmark_group("token");
    let mut row = |name: &str, key: Key, token: String| {
        let auth = Auth::new(settings(), vec![key]);
        group.bench_function(BenchmarkId::new("ours", name), |bencher| {
            bencher.iter(|| auth.verify(black_box(&token), 1_800_000_000_000, When::Handshake).expect("it is good"));
        });
    };
    for alg in [Alg::Hs256, Alg::Hs512] {
        let signer = SigningKey::secret(alg, secret).expect("a key");
        let token = signer.sign(None, claims, &random).expect("there is randomness");
        row(alg.as_str(), Key::secret(alg, None, secret).expect("a key"), token);
    }
    for (alg, private, public) in [
        (Alg::Rs256, RSA_PRIVATE, RSA_PUBLIC),
        (Alg::Ps256, RSA_PRIVATE, RSA_PUBLIC),
        (Alg::Es256, P256_PRIVATE, P256_PUBLIC),
        (Alg::EdDsa, ED25519_PRIVATE, ED25519_PUBLIC),
    ] {
        let signer = SigningKey::private_pem(alg, private.as_bytes(), &random).expect("a key");
        let token = signer.sign(None, claims, &random).expect("there is randomness");
        row(alg.as_str(), Key::public_pem(alg, None, public.as_bytes()).expect("a key"), token);
    }
    let ecdsa = &signature::ECDSA_P256_SHA256_FIXED_SIGNING;
    let p256 = signature::EcdsaKeyPair::from_pkcs8(ecdsa, &der(P256_PRIVATE), &random).expect("a key");
    let ed25519 = signature::Ed25519KeyPair::from_pkcs8_maybe_unchecked(&der(ED25519_PRIVATE)).expect("a key");
    let p256_signature = p256.sign(&random, claims.as_bytes()).expect("there is randomness");
    let (p256, ed25519_signature) = (p256.public_key().as_ref(), ed25519.sign(claims.as_bytes()));
    let mut bare = |alg: Alg, verification: &'static dyn VerificationAlgorithm, key: &[u8], signature: &[u8]| {
        let key = UnparsedPublicKey::new(verification, key);
        group.bench_function(BenchmarkId::new("bare", alg.as_str()), |bencher| {
            bencher.iter(|| key.verify(black_box(claims.as_bytes()), signature).expect("it is good"));
        });
    };
    bare(Alg::Es256, &signature::ECDSA_P256_SHA256_FIXED, p256, p256_signature.as_ref());
    bare(Alg::EdDsa, &signature::ED25519, ed25519.public_key().as_ref(), ed25519_signature.as_ref());
    group.finish();
}

/// What stands in a private key's PEM.
fn der(pem: &str) -> Vec<u8> {
    PrivatePkcs8KeyDer::from_pem_slice(pem.as_bytes()).expect("a key").secret_pkcs8_der().to_vec()
}

/// The keys of the tests, which were made for them.
const RSA_PRIVATE: &str = include_str!("../src/auth/tests/keys/rsa-private.pem");
const RSA_PUBLIC: &str = include_str!("../src/auth/tests/keys/rsa-public.pem");
const P256_PRIVATE: &str = include_str!("../src/auth/tests/keys/p256-private.pem");
const P256_PUBLIC: &str = include_str!("../src/auth/tests/keys/p256-public.pem");
const ED25519_PRIVATE: &str = include_str!("../src/auth/tests/keys/ed25519-private.pem");
const ED25519_PUBLIC: &str = include_str!("../src/auth/tests/keys/ed25519-public.pem");
