//! A node: its reactors, and the cluster's core with its two connections, driven as its thread drives them.

use std::collections::VecDeque;
use std::sync::Arc;

use fanfare::cluster::core::{Core, Identity, Input, Output};
use fanfare::ids::{ClientIdCodec, ConnId, PeerId};
use fanfare::limits::{CLUSTER_CONNECT_MS_MAX, CLUSTER_RETRY_MS_MAX, CLUSTER_RETRY_MS_MIN};
use fanfare::metrics::NodeMetrics;
use fanfare::reactor::sim::{SimWaker, World, post_office_of, wakers};
use fanfare::reactor::{Mailbox, NodeState, Parcel};
use fanfare::time::Millis;
use fanfare_simulated::seats::Seats;

use super::plan::Plan;
use super::redis::{Event, Kind, LineAt, NodeAt, Redis, Request};

/// See the module's documentation.
pub struct Node {
    /// Which of all nodes that there ever were.
    pub at: NodeAt,
    pub run: u64,
    pub seats: Seats,
    pub thread: Thread,
    codec: ClientIdCodec,
    /// Until when nothing of it runs.
    pub stalled_until: Millis,
}

impl Node {
    /// The node with this number, which starts at `now`.
    pub fn new(plan: &Plan, at: NodeAt, now: Millis) -> Node {
        let seed = plan.seed.wrapping_mul(1_000).wrapping_add(at as u64);
        let mut random = fastrand::Rng::with_seed(seed);
        let (key, number, run) = (random.u128(..).to_le_bytes(), random.u16(..), random.u64(..));
        let codec = ClientIdCodec::new(key, number);
        let world = World::new(plan.reactors, seed);
        world.pass(now.since(world.now()));
        let peers = PeerId::reactors(plan.reactors as u16).chain([PeerId::Cluster]);
        let (mut bells, wakes) = wakers(peers);
        let (_, mut mailboxes) = post_office_of(wakes, plan.parcels_max);
        let (bell, mailbox) = bells.pop().zip(mailboxes.pop()).expect("the last is the cluster's");
        let state = NodeState {
            metrics: Arc::new(NodeMetrics::new(plan.reactors).in_cluster()),
            codec: codec.clone(),
            seed: random.u64(..),
            run,
        };
        let identity = Identity { run, codec: codec.clone(), key, reactors: plan.reactors as u16 };
        let seats = Seats::new(world, mailboxes, bells, &plan.settings(), &state, seed);
        let thread = Thread::new(at, Core::new(identity, super::said::PREFIX), mailbox, bell, random);
        Node { at, run, seats, thread, codec, stalled_until: Millis(0) }
    }

    /// The connection that a client id names.
    pub fn conn(&self, client_id: &str) -> ConnId {
        self.codec.decode(client_id).expect("the node reads its own ids").conn
    }

    /// Whether nothing of it waits for anything.
    pub fn check_at_rest(&self) {
        self.seats.check_at_rest();
        for (at, worker) in self.seats.workers() {
            assert_eq!(worker.waiting_topics(), 0, "node {}, reactor {at}: a topic waits for the cluster", self.at);
        }
        self.thread.check_at_rest(self.at);
    }
}

/// The cluster's thread, as `src/cluster/thread.rs` runs it.
pub struct Thread {
    node: NodeAt,
    pub core: Core,
    mailbox: Mailbox,
    bell: Arc<SimWaker>,
    is_woken: bool,
    random: fastrand::Rng,
    inbox: VecDeque<(LineAt, Event)>,
    commands: Way,
    subscriber: Way,
    sleep: Sleep,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sleep {
    Awake,
    /// Some mail found no room: until then.
    Spilled(Millis),
    /// Until it is woken, or until then.
    Asleep(Millis),
}

/// A connection that is there, or is being made.
#[derive(Debug, Default)]
struct Way {
    line: Option<LineAt>,
    is_up: bool,
    attempts: u32,
    /// When it is tried next.
    try_at: Option<Millis>,
    /// Until when it must be there.
    within: Option<Millis>,
}

impl Thread {
    fn new(node: NodeAt, core: Core, mailbox: Mailbox, bell: Arc<SimWaker>, random: fastrand::Rng) -> Thread {
        let way = || Way { try_at: Some(Millis(0)), attempts: 1, ..Way::default() };
        Thread {
            node,
            core,
            mailbox,
            bell,
            is_woken: false,
            random,
            inbox: VecDeque::new(),
            commands: way(),
            subscriber: way(),
            sleep: Sleep::Awake,
        }
    }

    /// Whether the loop has a reason to go round.
    pub fn has_reason(&mut self, now: Millis) -> bool {
        self.is_woken |= self.bell.take();
        match self.sleep {
            Sleep::Awake => true,
            Sleep::Spilled(until) => until <= now,
            Sleep::Asleep(until) => until <= now || self.is_woken || !self.inbox.is_empty(),
        }
    }

    /// When it has one without anything else happening, or a connection has something to do.
    pub fn next_due(&self) -> Option<Millis> {
        let loop_at = match self.sleep {
            Sleep::Awake => None,
            Sleep::Spilled(until) | Sleep::Asleep(until) => Some(until),
        };
        let ways = [&self.commands, &self.subscriber];
        ways.into_iter().flat_map(|way| [way.try_at, way.within]).chain([loop_at]).flatten().min()
    }

    /// Whether both connections are there.
    pub fn is_up(&self) -> bool {
        self.commands.is_up && self.subscriber.is_up
    }

    /// A connection tells something.
    pub fn hear(&mut self, line: LineAt, event: Event) {
        let is_current = |way: &Way| way.line == Some(line);
        if let Some(way) = [&mut self.commands, &mut self.subscriber].into_iter().find(|way| is_current(way)) {
            if matches!(event, Event::Up) {
                way.within = None;
            }
            self.inbox.push_back((line, event));
        }
    }

    /// Whether making connections has something to do.
    pub fn has_task(&self, now: Millis) -> bool {
        let is_due = |at: Option<Millis>| at.is_some_and(|at| at <= now);
        [&self.commands, &self.subscriber].into_iter().any(|way| is_due(way.try_at) || is_due(way.within))
    }

    /// The tasks that make connections go on.
    pub fn run_tasks(&mut self, now: Millis, redis: &mut Redis) {
        let ways = [(Kind::Commands, &mut self.commands), (Kind::Subscriber, &mut self.subscriber)];
        for (kind, way) in ways {
            if way.try_at.take_if(|at| *at <= now).is_some() {
                way.line = Some(redis.connect(self.node, kind));
                way.within = Some(now.saturating_add(CLUSTER_CONNECT_MS_MAX));
            }
            if let (Some(_), Some(line)) = (way.within.take_if(|at| *at <= now), way.line) {
                redis.give_up(line);
                self.inbox.push_back((line, Event::Down));
            }
        }
    }

    /// The loop goes round once.
    pub fn turn(&mut self, now: Millis, redis: &mut Redis) {
        if let Sleep::Asleep(_) = self.sleep {
            // Of what wakes it, something that was told is handled at once, or not.
            if self.random.bool()
                && let Some((line, event)) = self.inbox.pop_front()
            {
                self.take(line, event, now, redis);
            }
            self.mailbox.wake_up();
        }
        self.bell.take();
        self.is_woken = false;
        self.core.handle_time(now);
        self.take_mail();
        while let Some((line, event)) = self.inbox.pop_front() {
            self.take(line, event, now, redis);
        }
        self.hand_out(now, redis);
        for (to, mail) in self.core.poll_mail() {
            self.mailbox.gather(to, mail);
        }
        let has_posted = self.mailbox.post();
        self.sleep = match has_posted {
            false => Sleep::Spilled(now.saturating_add(1)),
            true if self.mailbox.fall_asleep() => Sleep::Asleep(self.core.next_at()),
            true => Sleep::Awake,
        };
    }

    /// What must hold when nothing is under way.
    fn check_at_rest(&self, node: NodeAt) {
        assert!(self.inbox.is_empty(), "node {node}: something is told and not heard");
        assert!(!matches!(self.sleep, Sleep::Spilled(_)), "node {node}: mail finds no room");
        check_core(&self.core, node);
    }

    fn take_mail(&mut self) {
        while let Some(parcel) = self.mailbox.take() {
            if let Parcel::Mail(from, mut parcel) = parcel {
                parcel.drain(..).for_each(|mail| self.core.handle_mail(from, mail.into_cluster()));
                self.mailbox.give_back(parcel);
            }
        }
    }

    fn take(&mut self, line: LineAt, event: Event, now: Millis, redis: &mut Redis) {
        let kind = match line {
            line if self.commands.line == Some(line) => Kind::Commands,
            line if self.subscriber.line == Some(line) => Kind::Subscriber,
            // Of a connection that was given up.
            _ => return,
        };
        let way = if kind == Kind::Commands { &mut self.commands } else { &mut self.subscriber };
        match (event, kind) {
            (Event::Up, kind) => {
                (way.is_up, way.attempts) = (true, 0);
                self.core.handle(if kind == Kind::Commands { Input::CommandsUp } else { Input::SubscriberUp });
            }
            (Event::Down, kind) => {
                if std::mem::take(&mut way.is_up) {
                    self.core.handle(if kind == Kind::Commands { Input::CommandsDown } else { Input::SubscriberDown });
                }
                self.connect(kind, now, redis);
            }
            (Event::Replies { batch, replies }, _) => self.core.handle(Input::Replies { batch, replies }),
            (Event::Subscribed(channels), _) => self.core.handle(Input::Subscribed(channels)),
            (Event::Received { channel, payload }, _) => {
                self.core.handle(Input::Received { channel: &channel, payload: &payload });
            }
        }
    }

    fn hand_out(&mut self, now: Millis, redis: &mut Redis) {
        while let Some(output) = self.core.poll_output() {
            match output {
                Output::Commands { batch, commands } => {
                    let Some(line) = self.commands.line.filter(|_| self.commands.is_up) else { continue };
                    let last = commands.len() - 1;
                    for (at, command) in commands.into_iter().enumerate() {
                        redis.send(line, Request::Command { batch, command, is_last: at == last });
                    }
                }
                Output::Subscribe(channels) => self.say(redis, Request::Subscribe(channels)),
                Output::Unsubscribe(channels) => self.say(redis, Request::Unsubscribe(channels)),
                Output::ResetCommands => {
                    self.commands.is_up = false;
                    self.connect(Kind::Commands, now, redis);
                }
                Output::ResetSubscriber => {
                    self.subscriber.is_up = false;
                    self.connect(Kind::Subscriber, now, redis);
                }
            }
        }
    }

    fn say(&mut self, redis: &mut Redis, request: Request) {
        if let Some(line) = self.subscriber.line.filter(|_| self.subscriber.is_up) {
            redis.send(line, request);
        }
    }

    /// Gives up what there is and makes another connection, after a while.
    fn connect(&mut self, kind: Kind, now: Millis, redis: &mut Redis) {
        let way = if kind == Kind::Commands { &mut self.commands } else { &mut self.subscriber };
        if let Some(line) = way.line.take() {
            redis.give_up(line);
        }
        let delay_ms = match way.attempts {
            0 => 0,
            attempts => {
                let ms_max = (CLUSTER_RETRY_MS_MIN << (attempts - 1).min(16)).min(CLUSTER_RETRY_MS_MAX);
                self.random.u64(ms_max / 2..=ms_max)
            }
        };
        way.attempts += 1;
        (way.try_at, way.within) = (Some(now.saturating_add(delay_ms)), None);
    }
}

#[cfg(debug_assertions)]
fn check_core(core: &Core, node: NodeAt) {
    core.check_invariants();
    assert_eq!(core.under_way(), None, "node {node}: everything rests");
}

/// A release build has no checks inside.
#[cfg(not(debug_assertions))]
fn check_core(_: &Core, _: NodeAt) {}
