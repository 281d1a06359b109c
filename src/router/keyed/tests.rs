//! Keyed rooms of a node against a naive list of all updates, over sockets that take as much as the test says.

mod slow;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::frame::whole_frames;
use crate::ids::{ConnId, PeerId, ReplyTo};
use crate::protocol::keyed::Body;
use crate::protocol::{Mode, keyed_tail};
use crate::router::batch::{Batch, Excluded, Round};
use crate::router::mail::{JoinReply, Mail, RecoverFrom};
use crate::router::policy::{KeyedPolicy, KeyedRooms, KeyedSettings};
use crate::router::slice::Slice;
use crate::router::topic::{Kind, TopicRef};
use crate::router::{Answer, HistorySettings, NoticeSettings, Router, RouterSettings, Sink};
use crate::time::Stamp;

const ROOM: &str = "px";
const ITEMS: [&str; 6] = ["a", "b", "c", "d", "e", "f"];
const REACTORS: u16 = 2;
const MEMBERS: u32 = 4;
/// No member: it publishes.
const PUBLISHER: u32 = 9;

/// One message of the room, as a subscriber sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    item: String,
    seq: u64,
    offset: u64,
    /// `None` where the item was removed.
    content: Option<String>,
}

/// What a subscriber is told, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Told {
    Update(Seen),
    Joined { offset: u64, epoch: String, recovered: Option<bool> },
    Tuned { offset: u64 },
    Other(String),
}

/// The sockets of one reactor.
#[derive(Default)]
struct Sockets {
    reactor: u16,
    /// Slots that take nothing.
    full: BTreeSet<u32>,
    /// How many frames a slot takes of the next rounds, before it is full.
    room_left: BTreeMap<u32, usize>,
    told: BTreeMap<u32, Vec<Told>>,
    /// Rounds of which a slot has taken only so many frames.
    short: Vec<(u32, Rc<Round>, usize)>,
}

fn seen(frame: &[u8]) -> Told {
    let text = std::str::from_utf8(crate::frame::split_frame(frame).1).unwrap();
    let value: serde_json::Value = serde_json::from_str(text).unwrap();
    match value["type"].as_str() {
        Some("room_msg") => Told::Update(Seen {
            item: value["item"].as_str().unwrap().into(),
            seq: value["seq"].as_u64().unwrap(),
            offset: value["offset"].as_u64().unwrap(),
            content: value.get("content").map(ToString::to_string),
        }),
        _ => Told::Other(text.into()),
    }
}

impl Sockets {
    fn tell(&mut self, slot: Slot, told: Told) {
        self.told.entry(slot.0).or_default().push(told);
    }

    fn take(&mut self, slot: Slot, round: &Rc<Round>, frames: &[u8]) {
        let count = round.offsets.len();
        let takes = match self.room_left.get_mut(&slot.0) {
            _ if self.full.contains(&slot.0) => 0,
            Some(left) => {
                let takes = count.min(*left);
                *left -= takes;
                takes
            }
            None => count,
        };
        for frame in whole_frames(frames).take(takes) {
            self.tell(slot, seen(frame));
        }
        if takes < count {
            self.room_left.remove(&slot.0);
            self.full.insert(slot.0);
            self.short.push((slot.0, round.clone(), takes));
        }
    }
}

impl Sink for Sockets {
    fn deliver(&mut self, batch: Batch, members: &[Slot]) {
        for &member in members {
            if let Some(round) = &batch.round {
                self.take(member, round, batch.bytes());
                continue;
            }
            let own = |start: usize| {
                let is_own = |excluded: &Excluded| {
                    let conn = excluded.conn;
                    (conn.reactor.0, conn.slot) == (self.reactor, member) && excluded.start as usize == start
                };
                batch.excluded.iter().any(is_own)
            };
            let mut at = 0;
            let mut told = Vec::new();
            for frame in whole_frames(batch.bytes()) {
                if !own(at) {
                    told.push(seen(frame));
                }
                at += frame.len();
            }
            told.into_iter().for_each(|told| self.tell(member, told));
        }
    }

    fn takes_rounds(&self, member: Slot) -> bool {
        !self.full.contains(&member.0)
    }

    fn recover(&mut self, to: ConnId, slice: Slice) {
        for frame in slice.frames() {
            self.tell(to.slot, seen(frame.plain()));
        }
    }

    fn direct(&mut self, to: ConnId, frame: &[u8], _: Stamp) {
        self.tell(to.slot, seen(frame));
    }

    fn reply(&mut self, to: ConnId, frame: &[u8]) {
        self.tell(to.slot, seen(frame));
    }

    fn answer(&mut self, to: ConnId, answer: Answer<'_>) {
        let told = match answer {
            Answer::Keyed(KeyedAnswer::Joined { position, recovered, .. }) => {
                Told::Joined { offset: position.offset, epoch: position.epoch.into(), recovered }
            }
            Answer::Keyed(KeyedAnswer::Tuned { position, .. }) => Told::Tuned { offset: position.offset },
            other => Told::Other(format!("{other:?}")),
        };
        self.tell(to.slot, told);
    }

    fn disconnect(&mut self, _: &str) {}
}

/// What a test knows of one subscriber.
#[derive(Clone, Debug, Default)]
struct Subscriber {
    is_member: bool,
    /// Since when it is the one that it is, among what it was told.
    from: usize,
    terms: Terms,
    /// What it resumed from.
    position: Option<(String, u64)>,
    /// From which of what it was told on it wants only these items, and forgets the others.
    narrowed: Vec<(usize, ItemFilter)>,
}

struct Node {
    routers: Vec<Router>,
    sockets: Vec<Sockets>,
    mail: BTreeMap<(u16, u16), VecDeque<Mail>>,
    now_ms: u64,
    next_content: u64,
}

impl Node {
    fn new(removed_ttl_ms: u64) -> Node {
        let policy =
            KeyedPolicy { items_max: 100, bytes_max: 1 << 20, ttl_ms: None, removed_ttl_ms, stale_after_ms: None };
        Node::of(policy, 0)
    }

    /// A room has notices while it has at most so many members.
    fn of(policy: KeyedPolicy, noticed_max: u64) -> Node {
        let keyed = KeyedSettings {
            rooms: Some(KeyedRooms(Arc::new(move |_: &str| Some(policy)))),
            node_items_max: 1_000,
            node_bytes_max: 1 << 24,
            subscription_bytes_max: 1 << 16,
        };
        let notices = NoticeSettings {
            members_max: noticed_max,
            join_text: "{user}".to_owned(),
            leave_text: "{user}".to_owned(),
        };
        let settings = RouterSettings {
            rooms_max: 8,
            notices,
            history: HistorySettings::none(),
            keyed,
            user_connections: None,
            cluster: false,
        };
        let router = |me| Router::new(ReactorId(me), REACTORS, 7, 1, settings.clone());
        let mut node = Node {
            routers: (0..REACTORS).map(router).collect(),
            sockets: (0..REACTORS).map(|reactor| Sockets { reactor, ..Sockets::default() }).collect(),
            mail: BTreeMap::new(),
            now_ms: 10_000,
            next_content: 0,
        };
        for member in (0..MEMBERS).chain([PUBLISHER]) {
            let conn = conn(member);
            node.with(conn.reactor.0, |router, sockets| router.connect(conn, &format!("user{member}"), sockets));
        }
        node.settle();
        node
    }

    fn with<T>(&mut self, reactor: u16, act: impl FnOnce(&mut Router, &mut Sockets) -> T) -> T {
        let (router, sockets) = (&mut self.routers[reactor as usize], &mut self.sockets[reactor as usize]);
        let outcome = act(router, sockets);
        for (to, mail) in router.poll_mail() {
            let PeerId::Reactor(ReactorId(to)) = to else { panic!("there are reactors alone") };
            self.mail.entry((reactor, to)).or_default().push_back(mail);
        }
        outcome
    }

    /// A turn of one reactor: its mail, what is due, and what its sockets take.
    fn turn(&mut self, reactor: u16) {
        let now = Millis(self.now_ms);
        self.with(reactor, |router, _| {
            router.turn_began(Stamp::default(), 0);
            router.begin_turn(now);
        });
        for from in 0..REACTORS {
            let waiting = self.mail.get_mut(&(from, reactor)).map(std::mem::take).unwrap_or_default();
            for mail in waiting {
                self.with(reactor, |router, sockets| router.handle_mail(mail, sockets));
            }
        }
        self.end_turn(reactor);
    }

    fn end_turn(&mut self, reactor: u16) {
        for _ in 0..3 {
            self.with(reactor, |router, sockets| router.end_turn(sockets));
            for (slot, round, taken) in std::mem::take(&mut self.sockets[reactor as usize].short) {
                self.with(reactor, |router, _| router.fell_behind(conn(slot), &round, taken));
            }
        }
        self.routers[reactor as usize].check_invariants();
    }

    /// Turns until there is nothing to do at once.
    fn settle(&mut self) {
        for _ in 0..50 {
            (0..REACTORS).for_each(|reactor| self.turn(reactor));
            let has_mail = self.mail.values().any(|waiting| !waiting.is_empty());
            let now = Millis(self.now_ms);
            let has_work = self.routers.iter().any(|router| router.next_at().is_some_and(|at| at <= now));
            if !has_mail && !has_work {
                return;
            }
        }
        panic!("it does not come to rest");
    }

    fn publish(&mut self, updates: &[(usize, bool)], replace: bool, publisher: u32) {
        let mut composed = ItemUpdates::default();
        composed.begin(CommandKind::Many);
        for &(item, is_removal) in updates {
            self.next_content += 1;
            let content = self.next_content.to_string();
            let (state, body) = match is_removal {
                true => (ItemState::Removed, Body::Removal),
                false => (ItemState::Present, Body::Content(&content)),
            };
            composed.push(ITEMS[item], None, state, |out| keyed_tail(out, Some("user"), body, 0));
        }
        if replace {
            composed.replace(|out| keyed_tail(out, Some("user"), Body::Removal, 0));
        }
        let conn = conn(publisher);
        let publish = PublishItems {
            topic: TopicRef { kind: Kind::Room, name: ROOM },
            updates: &composed,
            exclude: Some(conn),
            key: None,
            publisher: ReplyTo::Conn(conn),
        };
        self.with(conn.reactor.0, |router, sockets| router.publish_items(publish, None, sockets));
    }

    fn told(&self, member: u32) -> &[Told] {
        self.sockets[conn(member).reactor.0 as usize].told.get(&member).map_or(&[], |told| &told[..])
    }
}

fn conn(slot: u32) -> ConnId {
    ConnId { reactor: ReactorId((slot % u32::from(REACTORS)) as u16), slot: Slot(slot), generation: 0 }
}

/// What a test does.
#[derive(Clone, Debug)]
enum Act {
    Publish {
        updates: Vec<(usize, bool)>,
        replace: bool,
        publisher: u32,
    },
    Join {
        member: u32,
        terms: Terms,
        resume: bool,
    },
    Leave {
        member: u32,
    },
    Tune {
        member: u32,
        change: TermsChange,
    },
    /// So many more frames find room, and then none until it takes bytes again.
    Stall {
        member: u32,
        after: usize,
    },
    TakeAgain {
        member: u32,
    },
    Turn {
        reactor: u16,
    },
    Pass {
        ms: u64,
    },
    Rebuild,
}

fn filters() -> impl Strategy<Value = ItemFilter> {
    let list = proptest::collection::vec(prop_oneof!["[a-f]", Just("z".to_owned()), Just("b*".to_owned())], 0..4);
    prop_oneof![Just(ItemFilter::All), list.prop_map(|list| ItemFilter::new(list.iter().map(String::as_str)))]
}

fn modes() -> impl Strategy<Value = Mode> {
    prop_oneof![1 => Just(Mode::All), 3 => Just(Mode::Latest)]
}

fn intervals() -> impl Strategy<Value = u32> {
    prop_oneof![Just(0_u32), Just(5), Just(20)]
}

fn acts() -> impl Strategy<Value = Act> {
    let member = 0..MEMBERS;
    let updates = proptest::collection::vec((0..ITEMS.len(), prop::bool::weighted(0.2)), 0..4);
    let terms = (modes(), intervals(), filters()).prop_map(|(mode, interval_ms, filter)| {
        let interval_ms = if mode == Mode::All { 0 } else { interval_ms };
        Terms { mode, interval_ms, filter }
    });
    let change = (proptest::option::of(modes()), proptest::option::of(intervals()), proptest::option::of(filters()))
        .prop_map(|(mode, interval_ms, filter)| TermsChange { mode, interval_ms, filter });
    prop_oneof![
        8 => (updates, prop::bool::weighted(0.1), prop_oneof![Just(PUBLISHER), 0..MEMBERS])
            .prop_map(|(updates, replace, publisher)| Act::Publish { updates, replace, publisher }),
        4 => (member.clone(), terms, any::<bool>())
            .prop_map(|(member, terms, resume)| Act::Join { member, terms, resume }),
        2 => member.clone().prop_map(|member| Act::Leave { member }),
        3 => (member.clone(), change).prop_map(|(member, change)| Act::Tune { member, change }),
        3 => (member.clone(), 0_usize..6).prop_map(|(member, after)| Act::Stall { member, after }),
        3 => member.prop_map(|member| Act::TakeAgain { member }),
        8 => (0..REACTORS).prop_map(|reactor| Act::Turn { reactor }),
        4 => (1_u64..30).prop_map(|ms| Act::Pass { ms }),
        1 => Just(Act::Rebuild),
    ]
}

/// Runs acts, and checks what every subscriber was told.
struct Run {
    node: Node,
    subscribers: Vec<Subscriber>,
}

impl Run {
    fn new(removed_ttl_ms: u64) -> Run {
        Run { node: Node::new(removed_ttl_ms), subscribers: vec![Subscriber::default(); MEMBERS as usize] }
    }

    fn act(&mut self, act: Act) {
        match act {
            Act::Publish { updates, replace, publisher } => self.node.publish(&updates, replace, publisher),
            Act::Join { member, terms, resume } => self.join(member, terms, resume),
            Act::Leave { member } => self.leave(member),
            Act::Tune { member, change } => self.tune(member, change),
            Act::Stall { member, after } => {
                let sockets = &mut self.node.sockets[conn(member).reactor.0 as usize];
                sockets.room_left.insert(member, after);
            }
            Act::TakeAgain { member } => self.take_again(member),
            Act::Turn { reactor } => self.node.turn(reactor),
            Act::Pass { ms } => self.node.now_ms += ms,
            Act::Rebuild => {
                for router in &mut self.node.routers {
                    router.rebuild();
                    router.check_invariants();
                }
            }
        }
    }

    fn join(&mut self, member: u32, terms: Terms, resume: bool) {
        if self.subscribers[member as usize].is_member {
            return;
        }
        let subscriber = &mut self.subscribers[member as usize];
        let position = subscriber.position.take().filter(|_| resume);
        *subscriber = Subscriber {
            is_member: true,
            from: self.node.told(member).len(),
            terms: terms.clone(),
            position: position.clone(),
            narrowed: Vec::new(),
        };
        let recover = position.map(|(epoch, offset)| RecoverFrom::Since { epoch: epoch.into(), offset });
        let subscribe = Some(Box::new(Subscribe { terms, snapshot: Some(true) }));
        let reply = JoinReply::Joined { id: Some("1".into()), recover, subscribe };
        let conn = conn(member);
        let joined = self.node.with(conn.reactor.0, |router, sockets| router.join(conn, ROOM, reply, sockets));
        assert_eq!(joined, Ok(()));
    }

    /// Once all is at rest, so that what comes after it is told apart.
    fn leave(&mut self, member: u32) {
        if !self.subscribers[member as usize].is_member {
            return;
        }
        self.settle_all();
        self.check(member);
        let conn = conn(member);
        self.node.with(conn.reactor.0, |router, sockets| router.leave(conn, ROOM, None, sockets));
        self.node.settle();
        let position = self.position(member);
        let subscriber = &mut self.subscribers[member as usize];
        (subscriber.is_member, subscriber.position) = (false, position);
        // A position is good for a client that holds all items up to it.
        if subscriber.terms.filter != ItemFilter::All {
            subscriber.position = None;
        }
    }

    fn tune(&mut self, member: u32, change: TermsChange) {
        if !self.subscribers[member as usize].is_member {
            return;
        }
        self.settle_all();
        self.check(member);
        let terms = change.applied_to(&self.subscribers[member as usize].terms);
        let (tune, conn) = (Tune { id: Some("2".into()), change }, conn(member));
        assert!(self.node.with(conn.reactor.0, |router, sockets| router.tune(conn, ROOM, tune, sockets)));
        let narrowed = (self.since_join(member).len(), terms.filter.clone());
        let subscriber = &mut self.subscribers[member as usize];
        subscriber.narrowed.push(narrowed);
        subscriber.terms = terms;
    }

    fn take_again(&mut self, member: u32) {
        let conn = conn(member);
        let sockets = &mut self.node.sockets[conn.reactor.0 as usize];
        sockets.full.remove(&member);
        sockets.room_left.remove(&member);
        self.node.with(conn.reactor.0, |router, _| {
            router.takes_again(conn);
        });
    }

    /// All sockets take all, and all rounds are over.
    fn settle_all(&mut self) {
        (0..MEMBERS).for_each(|member| self.take_again(member));
        for _ in 0..8 {
            self.node.settle();
            self.node.now_ms += 20;
        }
        self.node.settle();
    }

    /// What a subscriber was told since it joined.
    fn since_join(&self, member: u32) -> &[Told] {
        &self.node.told(member)[self.subscribers[member as usize].from..]
    }

    fn position(&self, member: u32) -> Option<(String, u64)> {
        let told = self.since_join(member);
        let epoch = told.iter().find_map(|told| match told {
            Told::Joined { epoch, .. } => Some(epoch.clone()),
            Told::Update(_) | Told::Tuned { .. } | Told::Other(_) => None,
        })?;
        let offsets = told.iter().filter_map(|told| match told {
            Told::Joined { offset, .. } | Told::Tuned { offset } => Some(*offset),
            Told::Update(seen) => Some(seen.offset),
            Told::Other(_) => None,
        });
        Some((epoch, offsets.max()?))
    }

    /// The room as its home has it: the newest state of each item.
    fn truth(&self) -> BTreeMap<String, (u64, u64, ItemState)> {
        let home = self.node.routers.iter().flat_map(|router| router.keyed.rooms.values());
        let room = home.into_iter().find(|room| room.source.is_some());
        let Some(room) = room else { return BTreeMap::new() };
        let items = room.items.changed(0, u64::MAX).map(|(_, item)| item);
        items.map(|item| (item.name.to_string(), (item.seq, item.offset, item.state))).collect()
    }

    /// Everything is at rest: a subscriber has the newest of all that it wants, and was told it in order.
    fn check(&self, member: u32) {
        let subscriber = &self.subscribers[member as usize];
        let told = self.since_join(member);
        let joins = told.iter().filter(|told| matches!(told, Told::Joined { .. })).count();
        assert_eq!(joins, 1, "a join is answered once: {told:?}");
        let (mut last_of, mut offset) = (BTreeMap::<String, Seen>::new(), 0);
        for (at, told) in told.iter().enumerate() {
            for (_, filter) in subscriber.narrowed.iter().filter(|(from, _)| *from == at) {
                last_of.retain(|item, _| filter.wants(item));
            }
            match told {
                Told::Update(seen) => {
                    let before = last_of.insert(seen.item.clone(), seen.clone());
                    // An item that is new to the subscription comes again, though the client may have it from before.
                    assert!(
                        before.is_none_or(|before| before.offset <= seen.offset),
                        "no value is older than one seen"
                    );
                    offset = offset.max(seen.offset);
                }
                Told::Joined { offset: joined, .. } | Told::Tuned { offset: joined } => {
                    assert!(*joined >= offset, "nothing newer than its offset comes in front of an answer");
                    offset = *joined;
                }
                Told::Other(_) => {}
            }
        }
        let recovered = told.iter().any(|told| matches!(told, Told::Joined { recovered: Some(true), .. }));
        for (item, (seq, offset, state)) in self.truth() {
            if !subscriber.terms.filter.wants(&item) {
                continue;
            }
            match last_of.get(&item) {
                Some(seen) => {
                    // In mode `all` what it published itself is not among it; no test publisher is a member then.
                    assert_eq!((seen.seq, seen.offset), (seq, offset), "the last state of {item} has arrived");
                    assert_eq!(seen.content.is_none(), state == ItemState::Removed);
                }
                // What it holds from before it resumed is not known behind a change of its filter.
                None if recovered && !subscriber.narrowed.is_empty() => {}
                None if recovered => {
                    let since = subscriber.position.as_ref().map_or(0, |(_, offset)| *offset);
                    assert!(offset <= since, "{item} has changed behind the position and was not sent");
                }
                None => assert_eq!(state, ItemState::Removed, "{item} has a value and was not sent"),
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 20_000, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_each_subscriber_has_the_newest_of_what_it_wants(
        acts in proptest::collection::vec(acts(), 1..60),
        removed_ttl_ms in prop_oneof![Just(1_000_000_u64), Just(40)],
    ) {
        let mut run = Run::new(removed_ttl_ms);
        for act in acts {
            // What a member in mode `all` publishes itself it is not sent: so here it publishes only in mode `latest`.
            let act = match act {
                Act::Publish { updates, replace, publisher } => {
                    let is_excluded = run.subscribers.get(publisher as usize)
                        .is_some_and(|subscriber| subscriber.terms.mode == Mode::All);
                    let publisher = if is_excluded { PUBLISHER } else { publisher };
                    Act::Publish { updates, replace, publisher }
                }
                other => other,
            };
            run.act(act);
        }
        run.settle_all();
        for member in 0..MEMBERS {
            if run.subscribers[member as usize].is_member {
                run.check(member);
            }
        }
    }
}
