//! Keyed rooms: what a home hears of a room, whatever is lost on the way, and how commands gather.

use std::collections::{BTreeMap, VecDeque};

use proptest::prelude::*;

use super::*;
use crate::cluster::items::model::{ModelCall, ModelRoom};
use crate::cluster::items::{ItemsGather, NewItems};
use crate::limits::CLUSTER_ITEMS_CALLS_MAX;
use crate::router::cluster::{FromCluster, ItemsCommand, ItemsPolicy};
use crate::router::{ItemState, ItemUpdates, KeyedPolicy};

const KEYED: KeyedPolicy =
    KeyedPolicy { items_max: 4, bytes_max: 1_000_000, ttl_ms: None, removed_ttl_ms: 1_000_000, stale_after_ms: None };
const ROOM: ItemsPolicy = ItemsPolicy { keyed: KEYED, history: None };
const CHANNEL: &str = "p:room:{r}";

/// What is read in one go, and how much is logged: little, so that most takes several and much is gone.
const PART: usize = 2;
const LOG_BYTES: usize = 400;

/// What a home knows of a room.
#[derive(Debug, Default)]
struct View {
    position: Option<StreamPosition>,
    items: BTreeMap<String, (u64, u64, ItemState)>,
    is_open: bool,
    checks: usize,
}

impl View {
    fn hear(&mut self, news: FromCluster) {
        match news {
            FromCluster::ItemsLoaded { loaded, .. } => {
                match loaded.since {
                    None => self.items.clear(),
                    Some(since) => {
                        let here = self.position.as_ref().expect("it has something");
                        assert_eq!((&here.epoch, here.offset), (&loaded.position.epoch, since));
                    }
                }
                let mut last = loaded.since.unwrap_or(0);
                for (applied, _) in loaded.items {
                    assert!(applied.offset > last && applied.offset <= loaded.position.offset, "in order");
                    last = applied.offset;
                    self.items.insert(applied.item.to_string(), (applied.offset, applied.seq, applied.state));
                }
                self.position = Some(loaded.position);
            }
            FromCluster::Items { came, .. } => {
                let position = self.position.as_mut().expect("it has the items first");
                for applied in came.applied {
                    assert_eq!(applied.offset, position.offset + 1, "the next one, once");
                    position.offset += 1;
                    let before =
                        self.items.insert(applied.item.to_string(), (applied.offset, applied.seq, applied.state));
                    let follows = |(_, seq, state): (u64, u64, ItemState)| {
                        // Behind a removal that is forgotten it begins anew, above.
                        seq + 1 == applied.seq || state == ItemState::Removed && seq < applied.seq
                    };
                    assert!(before.is_none_or(follows), "none is missing");
                }
            }
            FromCluster::Attached { position, .. } => {
                assert_eq!(position, self.position, "it is opened where its items are");
                self.is_open = true;
            }
            FromCluster::Checked { .. } => self.checks += 1,
            _ => {}
        }
    }
}

/// A Redis with one keyed room, which delays what it says.
#[derive(Default)]
struct Redis {
    room: ModelRoom,
    epoch: u64,
    last: u64,
    now_ms: u64,
    channel: VecDeque<Vec<u8>>,
    is_subscribed: bool,
}

impl Redis {
    fn epoch(&self) -> Arc<str> {
        self.epoch.to_string().into()
    }

    fn update(&mut self, names: &[u8], removes: bool, replaces: bool) {
        let mut updates = ItemUpdates::default();
        for name in names {
            let state = if removes { ItemState::Removed } else { ItemState::Present };
            updates.push(&format!("{}", name % 6), None, state, |out| out.extend_from_slice(b",\"time\":1}"));
        }
        if replaces {
            updates.replace(|out| out.extend_from_slice(b",\"time\":1}"));
        }
        let mut gather = ItemsGather::new(1);
        gather.push(&NewItems { updates: &updates, exclude: None, key: None });
        let (epoch, call) = (self.epoch(), gather.finish());
        self.now_ms += 1;
        let (last, now_ms, policy, log_bytes_max) = (self.last, self.now_ms, ROOM, LOG_BYTES);
        let removal_head = "";
        let of = ModelCall { epoch: &epoch, last, now_ms, policy, log_bytes_max, removal_head, call: &call };
        let outcome = self.room.update(&of);
        self.last = outcome.last;
        if self.is_subscribed {
            self.channel.extend(outcome.published.into_iter().flatten());
        }
    }

    fn answer(&self, command: &Command) -> Reply {
        match command {
            Command::ReadItems(read) => Reply::ItemsRead(Box::new(ItemsRead {
                end: StreamPosition { epoch: self.epoch(), offset: self.last },
                forgotten_to: self.room.forgotten_to(),
                now_ms: self.now_ms,
                found: self.room.read(&read.range, PART),
            })),
            Command::Revocations { .. } => Reply::Revocations { cursor: 0, entries: Vec::new() },
            _ => Reply::Published(1),
        }
    }

    /// Either with its items, or without.
    fn restart(&mut self, empties: bool) {
        self.epoch += 1;
        if empties {
            (self.room, self.last) = (ModelRoom::default(), 0);
        }
    }
}

fn hear(node: &mut Node, view: &mut View) {
    for (_, mail) in node.core.poll_mail().collect::<Vec<_>>() {
        if let Ok(news) = mail.news_or_reply() {
            view.hear(news);
        }
    }
}

fn open(node: &mut Node) {
    let (policy, keyed) = (None, Some(KEYED));
    node.core.handle_mail(HOME.into(), ToCluster::Attach { topic: room(), attach: AttachId(1), policy, keyed });
    node.hand_out();
}

fn lose_subscriber(node: &mut Node, redis: &mut Redis) {
    node.core.handle(Input::SubscriberDown);
    redis.channel.clear();
    redis.is_subscribed = false;
    node.subscribed.clear();
    node.core.handle(Input::SubscriberUp);
    node.hand_out();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]
    #[test]
    fn a_home_ends_with_what_redis_has(
        steps in proptest::collection::vec((0_u8..24, proptest::collection::vec(any::<u8>(), 0..4)), 0..160),
    ) {
        let (mut node, mut redis, mut view) = (Node::connected(), Redis::default(), View::default());
        open(&mut node);
        let mut checks = 0;
        for (step, names) in steps {
            match step {
                0..=6 => redis.update(&names, false, false),
                7 => redis.update(&names, true, false),
                8 => redis.update(&names, false, true),
                9 if names.len() > 2 => redis.restart(names[0] % 2 == 0),
                10 if names.len() > 2 => lose_subscriber(&mut node, &mut redis),
                11 => {
                    redis.is_subscribed = true;
                    node.confirm();
                }
                12 if view.is_open => {
                    node.core.handle_mail(HOME.into(), ToCluster::Check { topic: room() });
                    checks += 1;
                }
                13 if names.len() > 2 => {
                    node.core.handle(Input::CommandsDown);
                    node.sent.clear();
                    node.core.handle(Input::CommandsUp);
                }
                14..=18 => {
                    if let Some(payload) = redis.channel.pop_front() {
                        node.core.handle(Input::Received { channel: CHANNEL, payload: &payload });
                    }
                }
                _ => {
                    node.hand_out();
                    if let Some((batch, commands)) = node.sent.pop_front() {
                        let replies = commands.iter().map(|command| redis.answer(command)).collect();
                        node.core.handle(Input::Replies { batch, replies });
                    }
                }
            }
            node.hand_out();
            hear(&mut node, &mut view);
            node.core.check_invariants();
        }
        // In the end all that is under way arrives, and the subscription is made once more.
        lose_subscriber(&mut node, &mut redis);
        redis.is_subscribed = true;
        node.confirm();
        for round in 0..60 {
            while let Some((batch, commands)) = node.sent.pop_front() {
                let replies = commands.iter().map(|command| redis.answer(command)).collect();
                node.core.handle(Input::Replies { batch, replies });
                node.hand_out();
            }
            while let Some(payload) = redis.channel.pop_front() {
                node.core.handle(Input::Received { channel: CHANNEL, payload: &payload });
            }
            node.at(1_000 * (round + 1));
            hear(&mut node, &mut view);
        }
        prop_assert!(view.is_open);
        prop_assert_eq!(&view.position, &Some(StreamPosition { epoch: redis.epoch(), offset: redis.last }));
        let expected = redis.room.current();
        for (name, item) in &expected {
            prop_assert_eq!(view.items.get(name), Some(item));
        }
        for (name, (offset, _, state)) in view.items {
            let is_forgotten = state == ItemState::Removed && offset <= redis.room.forgotten_to();
            prop_assert!(expected.contains_key(&name) || is_forgotten, "{} is not there any more", name);
        }
        prop_assert!(checks == 0 || view.checks > 0);
    }
}

fn update(node: &mut Node, id: &str) {
    let mut updates = ItemUpdates::default();
    updates.push("A", None, ItemState::Present, |out| out.extend_from_slice(b",\"time\":1}"));
    let (publisher, id) = (conn().into(), Some(id.into()));
    let update = ItemsCommand { topic: room(), policy: ROOM, updates, exclude: None, key: None, publisher, id };
    node.core.handle_mail(HOME.into(), ToCluster::UpdateItems(Box::new(update)));
}

/// How many commands are in each call that was sent.
fn calls(node: &Node) -> Vec<usize> {
    let commands = node.sent.iter().flat_map(|(_, commands)| commands);
    let counts = commands.filter_map(|command| match command {
        Command::UpdateItems(update) => Some(update.call.count()),
        _ => None,
    });
    counts.collect()
}

fn updated(command: &Command) -> Reply {
    let Command::UpdateItems(update) = command else { return Reply::Published(1) };
    let outcome = |at| if at == 1 { Err(0) } else { Ok(Updated { offset: 7 + at, stale: Vec::new() }) };
    Reply::ItemsUpdated { epoch: "e".into(), outcomes: (0..update.call.count() as u64).map(outcome).collect() }
}

#[test]
fn commands_gather_while_calls_are_under_way() {
    let mut node = Node::connected();
    for id in 0..CLUSTER_ITEMS_CALLS_MAX {
        update(&mut node, &id.to_string());
        node.hand_out();
    }
    for id in 10..13 {
        update(&mut node, &id.to_string());
        node.hand_out();
    }
    assert_eq!(calls(&node), [1; CLUSTER_ITEMS_CALLS_MAX]);
    node.answer(updated);
    let mail = node.mail().concat();
    assert!(mail.contains(r#"id: "0""#) && !mail.contains(r#"id: "10""#), "{mail}");
    node.answer(updated);
    assert_eq!(calls(&node), [3], "those that had gathered");
    node.mail();
    node.answer(updated);
    let mail = node.mail();
    assert_eq!(mail.len(), 3, "{mail:?}");
    assert!(mail[0].contains("offset: 7") && mail[2].contains("offset: 9"), "{mail:?}");
    assert!(!mail[1].contains("offset"), "it is refused: {mail:?}");
    assert!(node.core.is_idle());
    node.core.check_invariants();
}

#[test]
fn what_gathers_is_unavailable_when_the_connection_is_lost() {
    let mut node = Node::connected();
    for id in 0..4 {
        update(&mut node, &id.to_string());
        node.hand_out();
    }
    node.core.handle(Input::CommandsDown);
    node.hand_out();
    assert_eq!(node.mail().concat().matches("Unavailable").count(), 4);
    update(&mut node, "5");
    assert_eq!(node.mail().concat().matches("Unavailable").count(), 1);
    node.core.check_invariants();
}

#[test]
fn a_fence_waits_for_what_gathers() {
    let mut node = Node::connected();
    for id in 0..=CLUSTER_ITEMS_CALLS_MAX {
        update(&mut node, &id.to_string());
        node.hand_out();
    }
    node.core.handle_mail(HOME.into(), ToCluster::Fence { member: conn(), rounds_left: 0 });
    for _ in 0..CLUSTER_ITEMS_CALLS_MAX {
        node.answer(updated);
        assert!(!node.mail().concat().contains("Fenced"));
    }
    node.answer(updated);
    assert!(node.mail().concat().contains("Fenced"));
}

#[test]
fn an_ack_waits_until_its_update_is_here() {
    let (mut node, mut redis, mut view) =
        (Node::connected(), Redis { is_subscribed: true, ..Redis::default() }, View::default());
    open(&mut node);
    node.confirm();
    while !node.sent.is_empty() {
        let reply = |command: &Command| redis.answer(command);
        node.answer(reply);
    }
    hear(&mut node, &mut view);
    assert!(view.is_open);
    update(&mut node, "7");
    redis.update(&[1], false, false);
    let outcomes = vec![Ok(Updated { offset: 1, stale: Vec::new() })];
    node.answer(|_| Reply::ItemsUpdated { epoch: "0".into(), outcomes: outcomes.clone() });
    assert_eq!(node.mail(), Vec::<String>::new(), "Redis has it, and this node does not");
    for payload in redis.channel.drain(..) {
        node.core.handle(Input::Received { channel: CHANNEL, payload: &payload });
    }
    let mail = node.mail();
    assert!(mail[0].contains("Items") && mail[1].contains(r#"id: "7""#), "{mail:?}");
    node.core.check_invariants();
}
