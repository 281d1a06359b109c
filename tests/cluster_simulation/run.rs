//! One run: guests that do what the dice say, nodes and Redis that take turns as the dice say, trouble, and rests at
//! which all is judged.

use std::collections::{BTreeMap, BTreeSet};

use fanfare::ids::ConnId;
use fanfare::time::Millis;
use fanfare_simulated::end::End;
use fanfare_simulated::message::{Page, Serial};
use fanfare_simulated::seeds::Outcome;
use fanfare_simulated::tally::Tally;
use fanfare_simulated::trace::Trace;

use super::EXPECTED;
use super::kept::{Facts, Kept};
use super::node::Node;
use super::plain::{Membership, Plain};
use super::plan::Plan;
use super::redis::{NodeAt, Redis};
use super::said::{AllSaid, GuestAt, KEPT, Memory, Topic};
use super::weather::Weather;

/// Rounds in which everything must come to rest.
const ROUNDS_MAX: usize = 100_000;

/// After so long without trouble everything works again, in milliseconds.
pub const HEALED_MS: u64 = 5_000;

/// Within so long there is a moment in which nothing is under way, in milliseconds.
const QUIET_MS: u64 = 2_000;

/// As long as a topic without members may stay subscribed to, and longer, in milliseconds.
pub const FORGOTTEN_MS: u64 = 12_000;

/// One client's connection.
pub struct Guest {
    /// The place of its node among those that are there now, and which one that is.
    pub node: usize,
    pub node_at: NodeAt,
    pub end: End,
    /// The raw room it is in, if that is what it came for.
    pub raw: Option<String>,
    pub phase: Phase,
    pub user: String,
    pub client_id: Option<String>,
    /// Its connection, with the node's run.
    pub conn: (u64, ConnId),
    /// Its membership in what it is in as long as it lives, and how many rests there were when that began.
    pub membership: Membership,
    pub since_rest: u64,
    pub rooms: BTreeMap<String, Member>,
    pub waits: BTreeMap<u64, Waiting>,
    /// What it knows of before.
    pub memory: Memory,
}

/// How far a connection is, as its client sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Asking,
    Open,
    /// It has said a close.
    Leaving,
    Over,
}

/// One in a room.
#[derive(Clone, Debug)]
pub struct Member {
    pub stage: Stage,
    pub membership: Membership,
    pub since_rest: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    Joining,
    In,
    Leaving,
}

/// What a command waits for.
#[derive(Clone, Debug)]
pub enum Waiting {
    Publish(Serial),
    Join(String),
    /// Several rooms; whether one of them was refused.
    Many(Vec<String>, bool),
    Leave(String),
    /// Who is in a room, if that is known.
    Presence(String, Option<BTreeSet<String>>),
    Page(String, Page),
    Resume,
    Ping,
}

/// See the module's documentation.
pub struct Run {
    pub plan: Plan,
    pub random: fastrand::Rng,
    pub trace: Trace,
    pub tally: Tally,
    pub now: Millis,
    pub redis: Redis,
    pub nodes: Vec<Node>,
    pub nodes_ever: NodeAt,
    pub weather: Weather,
    /// Whether nothing was in trouble since the last rest.
    pub is_calm: bool,
    pub rests: u64,
    pub guests: Vec<Guest>,
    pub memories: Vec<Memory>,
    pub said: AllSaid,
    pub serials: Serial,
    pub kept: Kept,
    pub plain: Plain,
    pub numbers: u64,
}

/// Runs a seed to its end.
pub fn run(seed: u64, in_words: bool) -> Outcome {
    let mut run = Run::new(Plan::of(seed), Trace::new(in_words), &EXPECTED);
    for _ in 0..run.plan.steps {
        run.step();
    }
    run.rest();
    run.all_leave();
    run.tally.add("a message came live from history", run.kept.live);
    run.tally.add("a message was recovered", run.kept.recovered);
    run.tally.add("a message without history came", run.plain.received);
    run.tally.add("a message had to come on its node", run.plain.demanded_here);
    run.tally.add("a message had to come on another node", run.plain.demanded_elsewhere);
    Outcome { hash: run.trace.hash(), tally: run.tally }
}

impl Run {
    pub fn new(plan: Plan, mut trace: Trace, expected: &'static [&'static str]) -> Run {
        trace.note(&[], || format!("{plan:?}"));
        let now = Millis(1);
        Run {
            random: fastrand::Rng::with_seed(plan.seed),
            tally: Tally::new(expected),
            now,
            redis: Redis::new(plan.seed, plan.delay_ms_max),
            nodes: (0..plan.nodes).map(|at| Node::new(&plan, at, now)).collect(),
            nodes_ever: plan.nodes,
            weather: Weather::default(),
            is_calm: false,
            rests: 0,
            guests: Vec::new(),
            memories: Vec::new(),
            said: AllSaid::default(),
            serials: 0,
            kept: Kept::default(),
            plain: Plain::default(),
            numbers: 0,
            plan,
            trace,
        }
    }

    /// Whether a throw of so many sides shows its one.
    pub fn one_in(&mut self, sides: usize) -> bool {
        self.random.usize(0..sides) == 0
    }

    /// A number that nothing else has.
    pub fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    /// The model of what is kept, with what it may know.
    pub fn with_kept<T>(&mut self, tell: impl FnOnce(&mut Kept, Facts<'_>) -> T) -> T {
        let facts = Facts {
            redis: &self.redis,
            is_calm: self.is_calm,
            is_forgetful: self.plan.is_forgetful,
            is_flushed: self.weather.flushes > 0,
        };
        tell(&mut self.kept, facts)
    }

    /// Whether a topic keeps history.
    pub fn keeps(&self, topic: &Topic) -> bool {
        match topic {
            Topic::Room(name) => name.starts_with(KEPT),
            Topic::Inbox(_) => self.plan.inbox_policy.is_some(),
            Topic::Everyone | Topic::Raw(_) | Topic::One(_) => false,
        }
    }

    fn step(&mut self) {
        if !self.plan.troubles.is_empty() && self.one_in(self.plan.trouble_one_in) {
            self.make_trouble();
        }
        if self.one_in(self.plan.rest_one_in) {
            self.rest();
        }
        match self.random.usize(0..100) {
            0..30 => self.some_turn(),
            30..45 => self.some_request(),
            45..58 => self.some_event(),
            58..88 => self.act(),
            _ => {
                let ms = if self.one_in(12) { self.random.u64(0..120) } else { self.random.u64(0..3) };
                self.pass(ms);
            }
        }
    }

    /// Something happens that no client does.
    pub fn step_without_guests(&mut self) {
        if !self.plan.troubles.is_empty() && self.one_in(self.plan.trouble_one_in) {
            self.make_trouble();
        }
        match self.random.usize(0..70) {
            0..30 => self.some_turn(),
            30..45 => self.some_request(),
            45..58 => self.some_event(),
            _ => {
                let ms = if self.one_in(12) { self.random.u64(0..120) } else { self.random.u64(0..3) };
                self.pass(ms);
            }
        }
    }

    /// Whether nothing is on its way, and every node reaches Redis.
    pub fn is_quiet(&self) -> bool {
        self.redis.is_quiet() && self.nodes.iter().all(|node| node.thread.is_up())
    }

    /// When something has to be done.
    pub fn next_due(&self) -> Option<Millis> {
        let dues = self.nodes.iter().flat_map(|node| [node.seats.next_due(), node.thread.next_due()]);
        dues.chain([self.redis.next_due()]).flatten().min()
    }

    /// A turn of a worker or a core that has a reason, now and then of one that has none.
    fn some_turn(&mut self) {
        let node = self.random.usize(0..self.nodes.len());
        if self.nodes[node].stalled_until > self.now {
            return;
        }
        let is_eager = self.one_in(10);
        let reactors = self.plan.reactors;
        let at = self.random.usize(0..=reactors);
        let has_reason = match at < reactors {
            true => self.nodes[node].seats.has_reason(at),
            false => self.nodes[node].thread.has_reason(self.now),
        };
        if has_reason || is_eager {
            self.turn(node, at);
        }
    }

    fn turn(&mut self, node: usize, at: usize) {
        self.trace.note(&[b't', node as u8, at as u8], || match at < self.plan.reactors {
            true => format!("turn of node {node}, reactor {at}"),
            false => format!("turn of node {node}, cluster"),
        });
        let Node { seats, thread, .. } = &mut self.nodes[node];
        match at < self.plan.reactors {
            true => {
                seats.turn(at);
                if self.random.bool() {
                    seats.lie_down(at);
                }
            }
            false => thread.turn(self.now, &mut self.redis),
        }
    }

    /// Redis does one of the commands that have arrived.
    fn some_request(&mut self) {
        let ready = self.redis.with_requests();
        if let Some(&line) = self.random.choice(&ready) {
            let words = self.redis.execute(line);
            self.trace.note(words.as_bytes(), || format!("Redis: {words}"));
        }
    }

    /// A node hears something that has come from Redis.
    fn some_event(&mut self) {
        let ready = self.redis.with_events();
        if let Some(&line) = self.random.choice(&ready) {
            self.hear_line(line);
        }
        for node in 0..self.nodes.len() {
            self.run_tasks(node);
        }
    }

    fn hear_line(&mut self, line: super::redis::LineAt) -> bool {
        let at = self.redis.node_of(line);
        let Some(node) = self.nodes.iter().position(|node| node.at == at) else {
            return self.redis.take_event(line).is_some();
        };
        if self.nodes[node].stalled_until > self.now {
            return false;
        }
        let Some(event) = self.redis.take_event(line) else { return false };
        self.trace.note(&[b'h', line.0 as u8], || format!("node {node} hears of {line:?}: {event:?}"));
        self.nodes[node].thread.hear(line, event);
        true
    }

    fn run_tasks(&mut self, node: usize) -> bool {
        let Node { thread, stalled_until, .. } = &mut self.nodes[node];
        let has_task = *stalled_until <= self.now && thread.has_task(self.now);
        if has_task {
            thread.run_tasks(self.now, &mut self.redis);
        }
        has_task
    }

    /// Time passes, everywhere.
    pub fn pass(&mut self, ms: u64) {
        self.trace.note(&ms.to_le_bytes(), || format!("{ms} ms pass"));
        self.now = self.now.saturating_add(ms);
        self.redis.pass_to(self.now);
        self.nodes.iter().for_each(|node| node.seats.world.pass(ms));
        self.weather_changes();
    }

    /// No more trouble, until everything has come to rest; then all is judged.
    pub fn rest(&mut self) {
        self.trace.note(b"rest", || "resting".into());
        self.clear_up();
        self.come_to_rest(HEALED_MS);
        self.judge_rest();
        self.ask_presence();
        self.rests += 1;
        self.is_calm = true;
    }

    /// At least so long passes in which nothing is said, and in the end nothing is on its way.
    fn come_to_rest(&mut self, ms: u64) {
        let until = self.now.saturating_add(ms);
        for _ in 0..ROUNDS_MAX {
            if self.do_all() {
                continue;
            }
            let is_up = self.nodes.iter().all(|node| node.thread.is_up());
            if self.now >= until && is_up && self.redis.is_quiet() {
                return;
            }
            assert!(
                self.now < until.saturating_add(QUIET_MS),
                "everything works again, and something is always under way"
            );
            let due = self.next_due();
            let due = due.unwrap_or(until).max(self.now.saturating_add(1));
            self.pass(due.since(self.now));
        }
        panic!("everything works again, and does not come to rest");
    }

    /// Everything that can be done at this moment; whether there was anything.
    pub fn do_all(&mut self) -> bool {
        let mut is_busy = false;
        for guest in 0..self.guests.len() {
            is_busy |= self.flush(guest);
            is_busy |= self.read(guest);
        }
        for node in 0..self.nodes.len() {
            for at in self.nodes[node].seats.with_reason() {
                self.turn(node, at);
                is_busy = true;
            }
            is_busy |= self.run_tasks(node);
            if self.nodes[node].thread.has_reason(self.now) {
                self.turn(node, self.plan.reactors);
                is_busy = true;
            }
        }
        for line in self.redis.with_requests() {
            let words = self.redis.execute(line);
            self.trace.note(words.as_bytes(), || format!("Redis: {words}"));
            is_busy = true;
        }
        for line in self.redis.with_events() {
            is_busy |= self.hear_line(line);
        }
        is_busy
    }

    fn judge_rest(&mut self) {
        for node in &self.nodes {
            node.check_at_rest();
        }
        for (at, guest) in self.guests.iter_mut().enumerate() {
            // The rooms that are not answered are those because of which the command failed.
            let refused = guest.waits.extract_if(.., |_, waiting| matches!(waiting, Waiting::Many(_, true)));
            for (_, waiting) in refused {
                let Waiting::Many(rooms, _) = waiting else { continue };
                for room in rooms {
                    guest.rooms.remove(&room);
                    self.kept.leave(at, &Topic::Room(room));
                }
            }
            match guest.phase {
                Phase::Asking => panic!("guest {at}: everything rests and its request is not answered"),
                Phase::Open => assert!(guest.waits.is_empty(), "guest {at}: it is owed {:?}", guest.waits),
                Phase::Leaving => panic!("guest {at}: everything rests and its close is not answered"),
                Phase::Over => {}
            }
        }
        self.with_kept(|kept, facts| kept.judge_rest(facts));
        let guests = &self.guests;
        let is_open = |at: GuestAt| guests[at].phase == Phase::Open;
        let is_member = |at: GuestAt, topic: &Topic, membership| {
            is_open(at) && guests[at].membership_of(topic).is_some_and(|member| member.0 == membership)
        };
        self.plain.judge_rest(&self.said, self.serials, self.is_calm, is_open, is_member);
    }

    /// Somebody on each node asks who is in each room.
    fn ask_presence(&mut self) {
        for node in 0..self.nodes.len() {
            let asks = |guest: &Guest| guest.phase == Phase::Open && guest.raw.is_none() && guest.node == node;
            let Some(asker) = self.guests.iter().position(asks) else { continue };
            for room in self.rooms() {
                let is_in = |guest: &&Guest| guest.phase == Phase::Open && guest.rooms.contains_key(&room);
                let users = self.guests.iter().filter(is_in).map(|guest| guest.user.clone()).collect();
                self.ask_who(asker, &room, Some(users));
            }
        }
        // A connection's questions are asked a few at a time.
        let is_owed = |guest: &Guest| guest.phase == Phase::Open && !guest.waits.is_empty();
        for _ in 0..self.rooms().len() {
            self.come_to_rest(100);
        }
        assert!(!self.guests.iter().any(is_owed), "presence is not answered");
    }

    /// Everybody goes, and nothing may be left of them.
    fn all_leave(&mut self) {
        for at in 0..self.guests.len() {
            let phase = self.guests[at].phase;
            match phase {
                Phase::Open if self.one_in(2) => self.leave(at),
                Phase::Open => self.vanish(at),
                Phase::Asking | Phase::Leaving | Phase::Over => {}
            }
        }
        self.come_to_rest(FORGOTTEN_MS);
        self.judge_rest();
        for node in &self.nodes {
            for (reactor, worker) in node.seats.workers() {
                let inside = worker.inside();
                assert_eq!((inside.topics, inside.connections), (1, 0), "node {}, reactor {reactor}", node.at);
            }
            assert_eq!(node.thread.core.counts().feeds, 0, "node {} follows topics for nobody", node.at);
            assert_eq!(node.thread.core.counts().unreadable, 0, "node {}: all that was said can be read", node.at);
        }
        let channels = self.redis.primary().map_or(0, |primary| primary.channels.len());
        assert_eq!(channels, 1 + self.nodes.len(), "that of everyone and one for each node");
    }

    /// The names of all rooms.
    pub fn rooms(&self) -> Vec<String> {
        (0..self.plan.rooms).flat_map(|at| [format!("{KEPT}{at}"), format!("room{at}")]).collect()
    }
}

impl Guest {
    /// Its membership in a topic, if it is sure of that, and how many rests there were when that began.
    pub fn membership_of(&self, topic: &Topic) -> Option<(Membership, u64)> {
        let mine = (self.membership, self.since_rest);
        match topic {
            Topic::Room(name) => {
                let member = self.rooms.get(name).filter(|member| member.stage == Stage::In)?;
                Some((member.membership, member.since_rest))
            }
            Topic::Raw(name) => (self.raw.as_ref() == Some(name)).then_some(mine),
            Topic::Inbox(user) => (self.raw.is_none() && self.user == *user).then_some(mine),
            Topic::Everyone => self.raw.is_none().then_some(mine),
            Topic::One(_) => Some(mine),
        }
    }
}
