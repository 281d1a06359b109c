//! Whole nodes with one keyed room, and sockets that take what they like: what each subscriber has been sent, beside what
//! the room's home holds.

mod acts;

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;

use super::*;
use crate::ids::{ConnId, PeerId, ReactorId, Slot};
use crate::protocol::{Mode, keyed::Body, keyed_tail};
use crate::router::batch::{Batch, Round};
use crate::router::policy::{KeyedPolicy, KeyedRooms, KeyedSettings};
use crate::router::topic::{Kind, TopicRef};
use crate::router::{
    Answer, HistorySettings, JoinReply, Mail, NoticeSettings, PublishItems, RecoverFrom, Router, RouterSettings, Sink,
    Slice, Subscribe,
};
use crate::time::{Millis, Stamp};

const ROOM: &str = "px";
const SUBSCRIBERS: usize = 5;

#[derive(Debug)]
enum Out {
    Round(Rc<Round>, Vec<String>),
    Frame(String),
    Joined { id: u32, epoch: String, offset: u64, recovered: Option<bool> },
    Tuned { id: u32, offset: u64 },
    Left,
}

/// A value as a subscriber has it, or knows that it was removed.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Shown {
    offset: u64,
    seq: u64,
    removed: bool,
}

#[derive(Clone, Debug)]
struct Sub {
    terms: Terms,
    /// Commands that are not answered: the terms that each leads to.
    asked: VecDeque<(u32, Terms)>,
    joined: bool,
    view: BTreeMap<String, Shown>,
    /// What it had before it came back.
    before: BTreeMap<String, Shown>,
    position: (String, u64),
    /// Since its last answer: how often each item came, from when on.
    counts: BTreeMap<String, u64>,
    answered_at: u64,
}

struct Socket {
    conn: ConnId,
    takes: bool,
    /// Fewer frames than this are taken at a time.
    pace: usize,
    queue: Vec<Out>,
    sub: Option<Sub>,
    /// View and position for coming back.
    kept: Option<Kept>,
}

/// What a client has when it goes: values, the epoch and offset up to which they are complete, and of what.
type Kept = (BTreeMap<String, Shown>, (String, u64), Terms);

#[derive(Default)]
struct Net {
    sockets: BTreeMap<u32, Socket>,
}

fn payloads(mut frames: &[u8]) -> Vec<String> {
    let mut found = Vec::new();
    while !frames.is_empty() {
        let (header, len) = match frames[1] {
            126 => (4, usize::from(u16::from_be_bytes([frames[2], frames[3]]))),
            short => (2, usize::from(short)),
        };
        found.push(String::from_utf8_lossy(&frames[header..header + len]).into_owned());
        frames = &frames[header + len..];
    }
    found
}

impl Sink for Net {
    fn deliver(&mut self, batch: Batch, members: &[Slot]) {
        let texts = payloads(batch.bytes());
        for member in members {
            let Some(socket) = self.sockets.get_mut(&member.0) else { panic!("{member:?} is gone") };
            match &batch.round {
                Some(round) => {
                    assert!(socket.takes, "only who takes rounds gets them");
                    assert_eq!(round.offsets.len(), texts.len());
                    socket.queue.push(Out::Round(round.clone(), texts.clone()));
                }
                None => socket.queue.extend(texts.iter().cloned().map(Out::Frame)),
            }
        }
    }

    fn takes_rounds(&self, member: Slot) -> bool {
        self.sockets[&member.0].takes
    }

    fn recover(&mut self, to: ConnId, slice: Slice) {
        for frame in slice.frames() {
            self.direct(to, frame.plain(), Stamp::default());
        }
    }

    fn direct(&mut self, to: ConnId, frame: &[u8], _: Stamp) {
        if let Some(socket) = self.sockets.get_mut(&to.slot.0).filter(|socket| socket.conn == to) {
            socket.queue.extend(payloads(frame).into_iter().map(Out::Frame));
        }
    }

    fn reply(&mut self, to: ConnId, frame: &[u8]) {
        self.direct(to, frame, Stamp::default());
    }

    fn answer(&mut self, to: ConnId, answer: Answer<'_>) {
        let Some(socket) = self.sockets.get_mut(&to.slot.0).filter(|socket| socket.conn == to) else { return };
        let id_of = |id: &str| id.parse::<u32>().unwrap();
        match answer {
            Answer::Keyed(KeyedAnswer::Joined { id, position, recovered, .. }) => socket.queue.push(Out::Joined {
                id: id_of(id.unwrap()),
                epoch: position.epoch.into(),
                offset: position.offset,
                recovered,
            }),
            Answer::Keyed(KeyedAnswer::Tuned { id, position, .. }) => {
                socket.queue.push(Out::Tuned { id: id_of(id), offset: position.offset });
            }
            Answer::Keyed(KeyedAnswer::NotJoined { .. }) => {}
            Answer::Left { .. } => socket.queue.push(Out::Left),
            Answer::Keyed(_) | Answer::Connected { .. } | Answer::Unavailable { .. } => {}
            other => panic!("{other:?}"),
        }
    }

    fn disconnect(&mut self, _: &str) {}
}

/// Throws that follow from a seed (splitmix64).
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((mixed ^ (mixed >> 31)) % end as u64) as usize
    }
}

struct World {
    routers: Vec<Router>,
    nets: Vec<Net>,
    mail: BTreeMap<(u16, u16), VecDeque<Mail>>,
    now: u64,
    random: Dice,
    generation: u32,
    commands: u32,
    home: usize,
    seed: u64,
}

fn field(text: &str, name: &str) -> Option<u64> {
    let at = text.find(&format!("\"{name}\":"))? + name.len() + 3;
    text[at..].split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

fn item_of(text: &str) -> Option<String> {
    let at = text.find("\"item\":\"")? + 8;
    Some(text[at..].split('"').next()?.to_owned())
}

impl World {
    fn new(seed: u64) -> World {
        let mut random = Dice(seed);
        let reactors = (1 + random.below(2)) as u16;
        let policy = KeyedPolicy {
            items_max: 1_000,
            bytes_max: 1 << 24,
            ttl_ms: None,
            removed_ttl_ms: if random.below(2) == 0 { 1 << 40 } else { 500 },
            stale_after_ms: None,
        };
        let rooms = Some(KeyedRooms(Arc::new(move |_: &str| Some(policy))));
        let settings = RouterSettings {
            rooms_max: 8,
            notices: NoticeSettings { members_max: 0, join_text: String::new(), leave_text: String::new() },
            history: HistorySettings { pinned_bytes_max: 1 << 30, ..HistorySettings::none() },
            keyed: KeyedSettings {
                rooms,
                node_items_max: 1 << 20,
                node_bytes_max: 1 << 30,
                subscription_bytes_max: 1 << 20,
            },
            user_connections: None,
            cluster: false,
        };
        let routers: Vec<Router> =
            (0..reactors).map(|me| Router::new(ReactorId(me), reactors, seed, 1, settings.clone())).collect();
        let key = routers[0].topics.hashed(TopicRef { kind: Kind::Room, name: ROOM });
        let home = routers[0].topics.home(key).0 as usize;
        let mut world = World {
            nets: (0..reactors).map(|_| Net::default()).collect(),
            routers,
            mail: BTreeMap::new(),
            now: 1_000,
            random,
            generation: 0,
            commands: 0,
            home,
            seed,
        };
        for at in 0..=SUBSCRIBERS {
            world.connect(at);
        }
        world.settle();
        world
    }

    fn place(&self, at: usize) -> (usize, u32) {
        (at % self.routers.len(), at as u32)
    }

    fn connect(&mut self, at: usize) {
        let (reactor, slot) = self.place(at);
        self.generation += 1;
        let conn = ConnId { reactor: ReactorId(reactor as u16), slot: Slot(slot), generation: self.generation };
        let kept = self.nets[reactor].sockets.remove(&slot).and_then(|old| old.kept);
        let pace = [6, 60, 400, usize::MAX][self.random.below(4)];
        let socket = Socket { conn, takes: true, pace, queue: Vec::new(), sub: None, kept };
        self.nets[reactor].sockets.insert(slot, socket);
        self.with(reactor, |router, net| router.connect(conn, &format!("u{slot}"), net));
    }

    fn with<T>(&mut self, reactor: usize, act: impl FnOnce(&mut Router, &mut Net) -> T) -> T {
        let outcome = act(&mut self.routers[reactor], &mut self.nets[reactor]);
        let mail: Vec<_> = self.routers[reactor].poll_mail().collect();
        for (to, mail) in mail {
            let PeerId::Reactor(to) = to else { panic!("there are only reactors") };
            self.mail.entry((reactor as u16, to.0)).or_default().push_back(mail);
        }
        outcome
    }

    fn carry_one(&mut self) -> bool {
        let pairs: Vec<_> = self.mail.iter().filter(|(_, mail)| !mail.is_empty()).map(|(pair, _)| *pair).collect();
        if pairs.is_empty() {
            return false;
        }
        let pair = pairs[self.random.below(pairs.len())];
        let mail = self.mail.get_mut(&pair).unwrap().pop_front().unwrap();
        self.with(pair.1 as usize, |router, net| router.handle_mail(mail, net));
        true
    }

    fn turn(&mut self, reactor: usize) {
        let now = self.now;
        self.with(reactor, |router, _| {
            router.turn_began(Stamp::default(), now);
            router.begin_turn(Millis(now));
        });
        self.flush(reactor);
    }

    fn flush(&mut self, reactor: usize) {
        for pass in 0.. {
            assert!(pass < 10_000, "a turn ends");
            self.with(reactor, |router, net| router.end_turn(net));
            if self.nets[reactor].sockets.values().all(|socket| socket.queue.is_empty()) {
                break;
            }
            self.flush_sockets(reactor);
        }
        self.routers[reactor].check_invariants();
    }

    fn flush_sockets(&mut self, reactor: usize) {
        let slots: Vec<u32> = self.nets[reactor].sockets.keys().copied().collect();
        for slot in slots {
            let socket = self.nets[reactor].sockets.get_mut(&slot).unwrap();
            let (conn, takes, outs) = (socket.conn, socket.takes, std::mem::take(&mut socket.queue));
            let mut budget = if socket.pace < usize::MAX { self.random.below(socket.pace) } else { usize::MAX };
            let mut is_blocked = !takes;
            for out in outs {
                match out {
                    Out::Round(round, texts) => {
                        let taken = if is_blocked { 0 } else { texts.len().min(budget) };
                        budget -= taken;
                        for text in &texts[..taken] {
                            self.hear(reactor, slot, text);
                        }
                        if taken < texts.len() {
                            is_blocked = true;
                            self.routers[reactor].fell_behind(conn, &round, taken);
                        }
                    }
                    Out::Frame(text) => self.hear(reactor, slot, &text),
                    Out::Joined { id, epoch, offset, recovered } => {
                        self.answered(reactor, slot, id, epoch, offset, recovered);
                    }
                    Out::Tuned { id, offset } => {
                        let epoch = self.nets[reactor].sockets[&slot].sub.as_ref().map(|sub| sub.position.0.clone());
                        self.answered(reactor, slot, id, epoch.unwrap_or_default(), offset, None);
                    }
                    Out::Left => {}
                }
            }
            self.nets[reactor].sockets.get_mut(&slot).unwrap().takes = !is_blocked;
        }
    }

    fn hear(&mut self, reactor: usize, slot: u32, text: &str) {
        let (seed, now) = (self.seed, self.now);
        let Some(sub) = &mut self.nets[reactor].sockets.get_mut(&slot).unwrap().sub else { return };
        let Some(item) = item_of(text) else { return };
        let shown = Shown {
            offset: field(text, "offset").unwrap(),
            seq: field(text, "seq").unwrap(),
            removed: text.contains("\"removed\":true"),
        };
        if let Some(before) = sub.view.get(&item) {
            assert!(before.offset <= shown.offset, "seed {seed}: slot {slot} is shown an older value of {item}");
            assert!(before.offset < shown.offset, "seed {seed}: slot {slot} is shown {item} at {} twice", shown.offset);
            assert!(before.seq < shown.seq, "seed {seed}: slot {slot}: seq of {item} does not grow");
        }
        sub.position.1 = sub.position.1.max(shown.offset);
        sub.view.insert(item.clone(), shown);
        if sub.joined && sub.asked.is_empty() && sub.terms.mode == Mode::Latest {
            let count = sub.counts.entry(item.clone()).or_default();
            *count += 1;
            if let Some(most) = (now - sub.answered_at).checked_div(u64::from(sub.terms.interval_ms)) {
                assert!(*count <= most + 2, "seed {seed}: slot {slot} is sent {item} too often: {count} times");
            }
        }
    }

    fn answered(&mut self, reactor: usize, slot: u32, id: u32, epoch: String, offset: u64, recovered: Option<bool>) {
        let now = self.now;
        let Some(sub) = &mut self.nets[reactor].sockets.get_mut(&slot).unwrap().sub else { return };
        if sub.asked.front().is_none_or(|(asked, _)| *asked != id) {
            return;
        }
        let (_, terms) = sub.asked.pop_front().unwrap();
        sub.terms = terms;
        if !sub.joined {
            sub.joined = true;
            if recovered == Some(true) {
                let mut view = std::mem::take(&mut sub.before);
                for (item, shown) in &sub.view {
                    if let Some(before) = view.get(item) {
                        assert!(before.offset < shown.offset, "seed {}: {item} had not changed", self.seed);
                    }
                }
                view.extend(std::mem::take(&mut sub.view));
                sub.view = view;
            }
            sub.before.clear();
        }
        sub.position = (epoch, sub.position.1.max(offset));
        // What it does not want any more is not kept up to date.
        let wanted = sub.terms.filter.clone();
        sub.view.retain(|item, _| wanted.wants(item));
        sub.counts.clear();
        sub.answered_at = now;
        let sub = sub.clone();
        self.compare(slot, &sub, offset);
    }

    /// What a subscriber wants, and is not behind this offset at the room's home, it has.
    fn compare(&self, slot: u32, sub: &Sub, offset: u64) {
        let router = &self.routers[self.home];
        let key = router.topics.hashed(TopicRef { kind: Kind::Room, name: ROOM });
        let Some(index) = router.topics.find(key) else { return };
        let Some(room) = router.keyed.rooms.get(&index) else { return };
        for (_, item) in room.items.changed(0, u64::MAX) {
            if item.offset > offset || !sub.terms.filter.wants(&item.name) {
                continue;
            }
            let shown = sub.view.get(&*item.name);
            let is_right = match item.state {
                ItemState::Present => shown.is_some_and(|shown| shown.offset == item.offset),
                ItemState::Removed => shown.is_none_or(|shown| shown.offset == item.offset),
            };
            assert!(
                is_right,
                "seed {}: slot {slot} up to {offset}: {} is at {}, shown {shown:?}, {:?}",
                self.seed, item.name, item.offset, sub.terms
            );
        }
        for (name, shown) in &sub.view {
            let item = room.items.changed(0, u64::MAX).find(|(_, item)| *item.name == **name);
            assert!(
                item.is_some() || shown.removed || !sub.terms.filter.wants(name) || shown.offset > offset,
                "seed {}: slot {slot} still has {name}, which is forgotten",
                self.seed
            );
        }
    }
}

#[test]
fn who_is_answered_while_a_round_is_running_gets_the_rest_of_it() {
    for seed in 0..10 {
        let mut world = World::new(seed);
        let latest = |interval_ms| Terms { mode: Mode::Latest, interval_ms, filter: ItemFilter::All };
        world.publish_all(400, 600);
        world.join_as(0, latest(0), usize::MAX);
        world.join_as(1, latest(0), 90);
        for _ in 0..200 {
            world.writable(1);
            world.publish_all(400, 600);
            if world.is_answered(1) {
                break;
            }
        }
        assert!(world.is_answered(1), "in the end it is");
        world.come_to_rest();
    }
}

#[test]
fn the_interval_holds_for_who_lags_alone() {
    for seed in 0..10 {
        let mut world = World::new(seed);
        world.publish_all(10, 10);
        world.join_as(1, Terms { mode: Mode::Latest, interval_ms: 10_000, filter: ItemFilter::All }, 10);
        for _ in 0..300 {
            world.publish_all(10, 10);
            world.writable(1);
            world.settle();
            world.now += 1;
        }
    }
}

/// Whatever is published, joined, tuned, left and stalled: nobody is shown an older value than before, no answer comes
/// before what it promises, and in the end everybody has the newest.
#[test]
fn each_subscriber_has_the_newest_of_what_it_wants() {
    let count = std::env::var("SIM_SEEDS").ok().and_then(|count| count.parse().ok()).unwrap_or(20);
    let only: Option<u64> = std::env::var("SIM_SEED").ok().and_then(|seed| seed.parse().ok());
    for seed in only.map_or(0..count, |seed| seed..seed + 1) {
        let mut world = World::new(seed);
        (0..600).for_each(|_| world.step());
        world.come_to_rest();
    }
}
