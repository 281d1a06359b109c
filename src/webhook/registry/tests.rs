use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::router::Kind;

/// `tell.lua`, as what it keeps and answers; `tests/webhooks` and `tests/redis_kinds` run the real one.
#[derive(Default)]
struct Redis {
    epoch: Option<String>,
    last: u64,
    teller: Option<(String, u64)>,
    nodes: BTreeMap<String, u64>,
    sets: BTreeMap<String, BTreeSet<String>>,
    told: BTreeSet<String>,
    due: BTreeMap<String, u64>,
    events: BTreeMap<u64, String>,
}

impl Redis {
    fn has(&self, subject: &str) -> bool {
        self.sets.values().any(|set| set.contains(subject))
    }

    fn compare(&mut self, subject: &str, due: u64) {
        match self.has(subject) == self.told.contains(subject) {
            true => _ = self.due.remove(subject),
            false => _ = self.due.insert(subject.to_owned(), due),
        }
    }

    fn run(&mut self, tell: &Tell, now: u64) -> Told {
        let epoch = self.epoch.get_or_insert_with(|| tell.seed.clone()).clone();
        let none = Told { epoch: epoch.clone(), ..Told::default() };
        let own = &tell.registration;
        if !tell.is_first && self.nodes.get(own).is_none_or(|until| *until <= now) {
            return none;
        }
        self.nodes.insert(own.clone(), now + tell.lease_ms);
        for earlier in &tell.earlier {
            if let Some(until) = self.nodes.get_mut(earlier) {
                *until = if tell.earlier_are_over { 0 } else { now + tell.lease_ms };
            }
        }
        tell.finished.iter().for_each(|number| _ = self.events.remove(number));
        for change in &tell.changes {
            self.change(own, change, now);
        }
        let is_mine = self.teller.as_ref().is_some_and(|(teller, _)| *teller == tell.caller);
        if is_mine && tell.teller_lease_ms == 0 {
            self.teller = None;
            return Told { is_registered: true, ..none };
        }
        let is_free = self.teller.as_ref().is_none_or(|(_, until)| *until <= now);
        if !(is_mine || tell.volunteers && is_free) {
            return Told { is_registered: true, ..none };
        }
        self.teller = Some((tell.caller.clone(), now + tell.teller_lease_ms));
        let mut has_more = false;
        let limit = if tell.sweeps { now } else { 0 };
        if let Some(dead) = self.nodes.iter().find(|(_, until)| **until <= limit).map(|(name, _)| name.clone()) {
            self.nodes.remove(&dead);
            for subject in self.sets.remove(&dead).unwrap_or_default() {
                if !self.has(&subject) {
                    self.compare(&subject, now + tell.sweep_hold_ms);
                }
            }
            has_more = true;
        }
        if is_mine && tell.makes_events && self.last >= tell.last {
            let due: Vec<String> =
                self.due.iter().filter(|(_, due)| **due <= now).map(|(subject, _)| subject.clone()).collect();
            for subject in due.into_iter().take(tell.events_max.saturating_sub(self.events.len())) {
                self.due.remove(&subject);
                let is_present = self.has(&subject);
                self.last += 1;
                self.events.insert(self.last, format!("{}{epoch}-{} {subject}", u8::from(is_present), self.last));
                match is_present {
                    true => _ = self.told.insert(subject),
                    false => _ = self.told.remove(&subject),
                }
            }
        }
        let events = self.events.iter().filter(|(number, _)| !is_mine || **number > tell.last);
        let events = events.take(tell.events_wanted).map(|(number, text)| (*number, text.clone())).collect();
        let reads = is_mine && tell.told_cursor.is_some();
        Told {
            is_registered: true,
            epoch,
            is_teller: true,
            has_become_teller: !is_mine,
            last: self.last,
            has_more,
            told_cursor: if reads { "0".to_owned() } else { String::new() },
            told: if reads { self.told.iter().cloned().collect() } else { Vec::new() },
            events,
        }
    }

    fn change(&mut self, own: &str, change: &Change, now: u64) {
        match change {
            Change::Present(subject, hold_ms) => {
                let was = self.has(subject);
                self.sets.entry(own.to_owned()).or_default().insert(subject.clone());
                if !was {
                    self.compare(subject, now + hold_ms);
                }
            }
            Change::Absent(subject, hold_ms) => {
                let was = self.has(subject);
                self.sets.entry(own.to_owned()).or_default().remove(subject);
                if was && !self.has(subject) {
                    self.compare(subject, now + hold_ms);
                }
            }
            Change::ClearTold => self.told.clear(),
            Change::WasTold(subject, hold_ms) => {
                self.told.insert(subject.clone());
                self.compare(subject, now + hold_ms);
            }
            Change::Last(number) => self.last = self.last.max(*number),
            Change::Event(text, number) => {
                let number = if *number == 0 { self.last + 1 } else { *number };
                self.last = self.last.max(number);
                self.events.insert(number, text.clone());
            }
        }
    }
}

/// One node, and what its receiver has taken.
struct Node {
    registry: Registry,
    to_deliver: VecDeque<Arc<Event>>,
    is_alive: bool,
}

impl Node {
    fn new(run: u64) -> Node {
        Node { registry: Registry::new("p", run, 1_000), to_deliver: VecDeque::new(), is_alive: true }
    }

    /// A call, if one is due; `is_lost` says whether it comes to nothing, and whether before or behind Redis.
    fn call(&mut self, redis: Option<&mut Redis>, lost_behind: bool, now: u64) {
        let Some(tell) = self.registry.next_call(Millis(now)) else { return };
        let Some(redis) = redis else { return self.registry.failed(false, 500, Millis(now)) };
        let told = redis.run(&tell, now);
        if lost_behind {
            return self.registry.failed(true, 500, Millis(now));
        }
        for news in self.registry.answered(told, Millis(now)) {
            match news {
                News::Event(event) => self.to_deliver.push_back(event),
                News::Forget => self.to_deliver.clear(),
            }
        }
    }
}

struct World {
    redis: Redis,
    is_reachable: bool,
    nodes: Vec<Node>,
    /// Who has which room, by node.
    rooms: Vec<BTreeSet<u8>>,
    now: u64,
    /// What the receiver has taken, each id once.
    taken: Vec<(String, bool)>,
    ids: HashSet<String>,
}

fn room(name: u8) -> Subject {
    Subject::of_topic(Kind::Room, &name.to_string().into()).expect("a room")
}

impl World {
    fn new(nodes: u64) -> World {
        World {
            redis: Redis::default(),
            is_reachable: true,
            nodes: (1..=nodes).map(Node::new).collect(),
            rooms: (0..nodes).map(|_| BTreeSet::new()).collect(),
            now: 1,
            taken: Vec::new(),
            ids: HashSet::new(),
        }
    }

    fn turn(&mut self, node: usize, name: u8, is_present: bool) {
        if !self.nodes[node].is_alive {
            return;
        }
        let has_changed = match is_present {
            true => self.rooms[node].insert(name),
            false => self.rooms[node].remove(&name),
        };
        if has_changed {
            self.nodes[node].registry.turned(room(name), is_present, WEBHOOK_HOLD_MS, Millis(self.now));
        }
    }

    fn pass(&mut self, ms: u64) {
        let end = self.now + ms;
        while self.now < end {
            self.now += 50;
            for node in self.nodes.iter_mut().filter(|node| node.is_alive) {
                node.call(self.is_reachable.then_some(&mut self.redis), false, self.now);
                if !node.registry.may_deliver(Millis(self.now)) {
                    continue;
                }
                while let Some(event) = node.to_deliver.pop_front() {
                    node.registry.finished(event.number, Millis(self.now));
                    if self.ids.insert(event.id.to_string()) {
                        self.taken.push((event.subject.encode(), event.is_present));
                    }
                }
            }
        }
    }

    /// Which rooms the receiver believes to be occupied, where events of a room take turns.
    fn believed(&self) -> Result<BTreeSet<String>, String> {
        let mut believed = BTreeSet::new();
        for (subject, is_present) in &self.taken {
            let is_news = if *is_present { believed.insert(subject.clone()) } else { believed.remove(subject) };
            if !is_news {
                return Err(format!("{subject} twice in {:?}", self.taken));
            }
        }
        Ok(believed)
    }

    fn actual(&self) -> BTreeSet<String> {
        let living = self.rooms.iter().zip(&self.nodes).filter(|(_, node)| node.is_alive);
        living.flat_map(|(rooms, _)| rooms).map(|name| room(*name).encode()).collect()
    }
}

#[test]
fn an_edge_of_several_nodes_is_told_once() {
    let mut world = World::new(3);
    world.pass(3_000);
    (0..3).for_each(|node| world.turn(node, 1, true));
    world.pass(5_000);
    (0..2).for_each(|node| world.turn(node, 1, false));
    world.pass(5_000);
    assert_eq!(world.taken, [("r1".to_owned(), true)]);
    world.turn(2, 1, false);
    world.pass(1_000);
    world.turn(0, 1, true);
    world.pass(10_000);
    assert_eq!(world.taken.len(), 1, "it was away for a second");
    world.turn(0, 1, false);
    world.pass(5_000);
    assert_eq!(world.taken, [("r1".to_owned(), true), ("r1".to_owned(), false)]);
}

#[test]
fn the_first_edges_of_a_new_cluster_are_not_late() {
    let mut world = World::new(2);
    world.turn(1, 1, true);
    world.pass(WEBHOOK_HOLD_MS + 1_000);
    assert_eq!(world.taken, [("r1".to_owned(), true)]);
}

#[test]
fn a_dead_node_is_told_of_within_twenty_seconds_whoever_it_was() {
    for dies in 0..2 {
        let mut world = World::new(2);
        world.turn(0, 1, true);
        world.turn(1, 2, true);
        world.pass(6_000);
        world.nodes[dies].is_alive = false;
        world.pass(WEBHOOK_SWEEP_HOLD_MS);
        assert_eq!(world.taken.len(), 2, "it may be back");
        world.pass(20_000 - WEBHOOK_SWEEP_HOLD_MS);
        assert_eq!(world.taken.last(), Some(&(format!("r{}", dies + 1), false)));
    }
}

#[test]
fn what_was_not_delivered_another_teller_delivers() {
    let mut world = World::new(2);
    world.pass(4_000);
    let teller = world.nodes.iter().position(|node| node.registry.is_teller()).expect("one");
    world.turn(1 - teller, 1, true);
    while world.redis.events.is_empty() {
        world.now += 50;
        let (redis, now) = (&mut world.redis, world.now);
        world.nodes.iter_mut().for_each(|node| node.call(Some(&mut *redis), false, now));
    }
    world.nodes[teller].is_alive = false;
    world.pass(20_000);
    assert_eq!(world.taken, [("r1".to_owned(), true)]);
    assert!(world.redis.events.is_empty(), "it is finished");
}

#[test]
fn a_teller_that_goes_away_does_not_keep_another_waiting() {
    let mut world = World::new(2);
    world.pass(4_000);
    let old = world.nodes.iter().position(|node| node.registry.is_teller()).expect("one");
    world.nodes[old].registry.leave(Millis(world.now));
    world.pass(WEBHOOK_CALL_MS + 1_000);
    assert!(!world.nodes[old].registry.is_teller(), "it has given it up");
    assert!(world.nodes[1 - old].registry.is_teller(), "and the other one has it");
    world.nodes[1 - old].is_alive = false;
    world.pass(WEBHOOK_LEASE_MS + 2_000);
    assert!(!world.nodes[old].registry.is_teller(), "whoever leaves does not take it again");
}

#[test]
fn a_teller_that_stood_still_delivers_nothing_any_more() {
    let mut world = World::new(2);
    world.pass(4_000);
    let old = world.nodes.iter().position(|node| node.registry.is_teller()).expect("one");
    world.nodes[old].is_alive = false;
    world.pass(WEBHOOK_LEASE_MS + 2_000);
    assert!(world.nodes[1 - old].registry.is_teller());
    assert!(!world.nodes[old].registry.may_deliver(Millis(world.now)), "its lease is over");
    world.nodes[old].is_alive = true;
    world.pass(2_000);
    assert!(!world.nodes[old].registry.is_teller());
    world.turn(old, 1, true);
    world.pass(5_000);
    assert_eq!(world.taken, [("r1".to_owned(), true)]);
}

#[derive(Clone, Debug)]
enum Step {
    Turn(usize, u8, bool),
    Pass(u64),
    /// A call of this node is carried out, and its answer is lost.
    Lose(usize),
    Away,
    Back,
    /// Redis comes back, and has forgotten everything.
    Emptied,
    Kill(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => (0_usize..3, 0_u8..4, any::<bool>()).prop_map(|(node, name, is_present)| Step::Turn(node, name, is_present)),
        6 => (1_u64..6_000).prop_map(Step::Pass),
        2 => (0_usize..3).prop_map(Step::Lose),
        1 => Just(Step::Away),
        1 => Just(Step::Back),
        1 => Just(Step::Emptied),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    /// Whatever is lost: events of a room take turns, none comes twice, and at the end the receiver knows what is true. The
    /// last node to be the teller lives when Redis has forgotten.
    #[test]
    fn receivers_come_to_know_what_is_true(
        steps in prop::collection::vec(step(), 1..60),
        kill in prop::option::of((0_usize..60, 0_usize..3)),
    ) {
        let mut world = World::new(3);
        world.pass(4_000);
        let mut steps = steps;
        if let Some((at, node)) = kill {
            steps.insert(at.min(steps.len()), Step::Kill(node));
        }
        let has_died_at = steps.iter().position(|step| matches!(step, Step::Kill(_)));
        for (at, step) in steps.into_iter().enumerate() {
            match step {
                Step::Turn(node, name, is_present) => world.turn(node, name, is_present),
                Step::Pass(ms) => world.pass(ms),
                Step::Lose(node) if world.is_reachable && world.nodes[node].is_alive => {
                    world.now += 1_000;
                    let (redis, now) = (&mut world.redis, world.now);
                    world.nodes[node].call(Some(redis), true, now);
                }
                Step::Lose(_) => {}
                Step::Away => world.is_reachable = false,
                Step::Back => world.is_reachable = true,
                // The copy of what was told goes with the teller.
                Step::Emptied if has_died_at.is_none_or(|died| at < died) => {
                    world.is_reachable = false;
                    world.pass(1_000);
                    world.redis = Redis::default();
                    world.is_reachable = true;
                    world.pass(1_000);
                }
                Step::Emptied => {}
                Step::Kill(node) => {
                    world.is_reachable = true;
                    world.pass(20_000);
                    world.nodes[node].is_alive = false;
                }
            }
        }
        world.is_reachable = true;
        world.pass(60_000);
        let believed = world.believed();
        prop_assert_eq!(believed, Ok(world.actual()));
        prop_assert!(world.redis.events.is_empty() && world.redis.due.is_empty());
        for node in world.nodes.iter().filter(|node| node.is_alive) {
            prop_assert!(node.registry.is_settled());
        }
        prop_assert_eq!(world.redis.nodes.len(), world.nodes.iter().filter(|node| node.is_alive).count());
    }
}
