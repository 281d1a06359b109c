//! The scripts of keyed rooms in a real Redis, beside their model.

use std::sync::Arc;
use std::time::Duration;

use fanfare_testing::redis::Redis;
use redis::{Connection, Value};

use super::super::core::{Command, ItemsFound, ItemsRange, ItemsRead, ReadItems, Reply, StreamEntry, UpdateItems};
use super::super::items::model::{ModelCall, ModelOutcome, ModelRoom};
use super::super::items::{ItemsCall, ItemsGather, NewItems, write_entry};
use super::{Mode, ReadRange, Scripts, reply};
use crate::ids::{ConnId, ReactorId, Slot};
use crate::limits::CLUSTER_ITEMS_LOG_BYTES_MAX;
use crate::router::cluster::ItemsPolicy;
use crate::router::{HistoryPolicy, ItemState, ItemUpdates, KeyedPolicy, StreamPosition};

const SEEDS: u64 = 12;
const CALLS: usize = 60;
const TOPIC: &str = "p:room:{px}";
const NAMES: [&str; 7] = ["A", "B", "C", "D", "E", "a longer name", "\u{20ac}"];

/// A Redis with the scripts, and one that listens to the room's channel.
struct Real {
    connection: Connection,
    subscriber: Connection,
    scripts: Scripts,
}

impl Real {
    fn new(redis: &Redis) -> Real {
        let client = redis::Client::open(redis.url()).expect("a URL");
        let mut connection = client.get_connection().expect("it runs");
        redis::cmd("FLUSHALL").exec(&mut connection).expect("it obeys");
        let answers: Vec<Value> = Scripts::preparation(Mode::Alone).query(&mut connection).expect("it prepares");
        let scripts = Scripts::at(&answers, Mode::Alone).expect("it tells its run");
        let mut subscriber = client.get_connection().expect("it runs");
        subscriber.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
        subscriber
            .send_packed_command(&redis::cmd("SUBSCRIBE").arg(TOPIC).get_packed_command())
            .expect("it subscribes");
        subscriber.recv_response().expect("it confirms");
        Real { connection, subscriber, scripts }
    }

    fn run(&mut self, command: &Command) -> Reply {
        let mut pipeline = redis::pipe();
        self.scripts.add(&mut pipeline, command);
        let mut answers: Vec<Value> = pipeline.query(&mut self.connection).expect("it does as it is told");
        reply(command, answers.pop().expect("an answer"))
    }

    fn hear(&mut self) -> Vec<u8> {
        let Value::Array(parts) = self.subscriber.recv_response().expect("a message") else { panic!("a message") };
        let Some(Value::BulkString(payload)) = parts.into_iter().next_back() else { panic!("a payload") };
        payload
    }
}

/// Random calls, with everything that commands may have.
struct Caller {
    random: fastrand::Rng,
    offsets: u64,
}

impl Caller {
    fn call(&mut self) -> ItemsCall {
        let mut gather = ItemsGather::new(1);
        for _ in 0..self.random.usize(1..=4) {
            match self.random.usize(0..8) {
                0 => {
                    let items: Vec<_> = (0..2).map(|_| (self.name(), self.random.u64(0..=self.offsets))).collect();
                    gather.push_expiry(items.into_iter(), b",\"removed\":true,\"time\":1}");
                }
                _ => {
                    let updates = self.updates();
                    let conn = ConnId { reactor: ReactorId(1), slot: Slot(2), generation: 3 };
                    let exclude = self.random.bool().then_some((7, conn));
                    let key = (self.random.usize(0..3) == 0).then(|| format!("k{}", self.random.u8(0..30)));
                    gather.push(&NewItems { updates: &updates, exclude, key: key.as_deref() });
                }
            }
        }
        gather.finish()
    }

    fn updates(&mut self) -> ItemUpdates {
        let mut updates = ItemUpdates::default();
        let count = if self.random.usize(0..20) == 0 { 230 } else { self.random.usize(0..6) };
        for _ in 0..count {
            let state = if self.random.usize(0..3) == 0 { ItemState::Removed } else { ItemState::Present };
            let versions = [i64::MIN, i64::MIN + 1, -1, 0, 1, 1 << 53, (1 << 53) + 1, i64::MAX - 1, i64::MAX];
            let version = (self.random.usize(0..4) == 0).then(|| versions[self.random.usize(0..versions.len())]);
            let tail = vec![self.random.u8(..); self.random.usize(1..60)];
            updates.push(self.name(), version, state, |out| out.extend_from_slice(&tail));
        }
        if self.random.usize(0..6) == 0 {
            updates.replace(|out| out.extend_from_slice(b",\"removed\":true}"));
        }
        updates
    }

    fn name(&mut self) -> &'static str {
        NAMES[self.random.usize(0..NAMES.len())]
    }
}

fn policy_of(random: &mut fastrand::Rng) -> ItemsPolicy {
    let keyed = KeyedPolicy {
        items_max: [2, 4, 100][random.usize(0..3)],
        bytes_max: [700, 1_200, 1_000_000][random.usize(0..3)],
        ttl_ms: random.bool().then_some(60_000),
        removed_ttl_ms: [0, 60_000][random.usize(0..2)],
        stale_after_ms: None,
    };
    let history = random.bool().then(|| HistoryPolicy { messages_max: random.u32(1..40), ttl_ms: 60_000 });
    ItemsPolicy { keyed, history }
}

#[test]
fn the_scripts_of_keyed_rooms_do_what_their_model_does() {
    let (redis, mut done) = (Redis::start(), 0);
    for seed in 0..SEEDS {
        let mut real = Real::new(&redis);
        let mut random = fastrand::Rng::with_seed(seed);
        let policy = policy_of(&mut random);
        let epoch: Arc<str> = format!("{}-first", real.scripts.run).into();
        let (mut model, mut last, mut kept) = (ModelRoom::default(), 0, Vec::new());
        let mut caller = Caller { random, offsets: 0 };
        for at in 0..CALLS {
            // Each call has a millisecond of its own, as the model has it.
            std::thread::sleep(Duration::from_millis(2));
            let call = caller.call();
            let log_bytes_max = CLUSTER_ITEMS_LOG_BYTES_MAX;
            let now_ms = 1_000_000 + at as u64;
            let removal_head = ",\"removed\":true,\"time\":";
            let model_call =
                ModelCall { epoch: &epoch, last, now_ms, policy, log_bytes_max, removal_head, call: &call };
            let ModelOutcome { last: end, outcomes, published, applied } = model.update(&model_call);
            let (topic, seed_of_epoch) = (TOPIC.into(), if at == 0 { "first" } else { "none" }.to_owned());
            let update = UpdateItems { topic, policy, seed: seed_of_epoch, removal_head, call: call.clone() };
            let answer = real.run(&Command::UpdateItems(Box::new(update)));
            let expected = Reply::ItemsUpdated { epoch: epoch.clone(), outcomes };
            assert_eq!(answer, expected, "seed {seed}, call {at} with {policy:?}: {:?}", call.read());
            for message in published.into_iter().flatten() {
                assert_eq!(real.hear(), message, "seed {seed}, call {at} with {policy:?}: {:?}", call.read());
            }
            kept.extend((last + 1..).zip(applied.iter().map(|(seq, record)| write_entry(*seq, record))));
            last = end;
            caller.offsets = last;
            if at % 10 == 9 {
                compare(&mut real, &model, policy, &StreamPosition { epoch: epoch.clone(), offset: last }, &kept);
            }
        }
        done += last;
    }
    assert!(done > SEEDS * CALLS as u64, "hardly anything was done: {done}");
}

/// What can be read of the room, in all ways.
fn compare(real: &mut Real, model: &ModelRoom, policy: ItemsPolicy, end: &StreamPosition, kept: &[(u64, Vec<u8>)]) {
    for range in [
        ItemsRange::End,
        ItemsRange::Log(end.offset.saturating_sub(9)),
        ItemsRange::Changed { since: 0, cursor: "0".to_owned() },
        ItemsRange::Changed { since: end.offset / 2, cursor: "0".to_owned() },
    ] {
        let expected = model.read(&range, usize::MAX);
        let read = ReadItems { topic: TOPIC.into(), policy, seed: "none".to_owned(), range };
        let Reply::ItemsRead(read) = real.run(&Command::ReadItems(Box::new(read))) else { panic!("it is read") };
        let ItemsRead { end: read_end, forgotten_to, found, .. } = *read;
        assert_eq!((&read_end, forgotten_to), (end, model.forgotten_to()));
        assert_eq!(in_order(found), in_order(expected));
    }
    if let Some(history) = policy.history {
        let (topic, seed, range) = (TOPIC.into(), "none".to_owned(), ReadRange::From(1));
        let read = real.run(&Command::Read { topic, policy: history, seed, range });
        let Reply::Read { entries, .. } = read else { panic!("it is read") };
        let entries: Vec<_> = entries.into_iter().map(|StreamEntry { offset, entry, .. }| (offset, entry)).collect();
        assert_eq!(entries, kept[kept.len().saturating_sub(history.messages_max as usize)..]);
    }
}

/// Items without the times that the model does not know, in the order of their names.
fn in_order(found: ItemsFound) -> ItemsFound {
    let ItemsFound::Items { mut items, next } = found else { return found };
    items.iter_mut().for_each(|(stored, _)| stored[8..16].fill(0));
    items.sort();
    ItemsFound::Items { items, next }
}
