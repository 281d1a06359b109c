//! One reactor's loop: a turn takes what is ready, routes it, and flushes every connection it concerned once.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::connection::{Admission, Connection};
use super::connections::Connections;
use super::drain::Draining;
use super::driver::{Completion, Driver, SlotKey};
use super::flush::Flush;
use super::gate::{Asked, Gate};
use super::handover::{Handover, Returns};
use super::intake::Resumable;
use super::mailbox::{Mailbox, Order, Parcel, Told};
use super::pressure::Newest;
use crate::compress::{Deflater, Inflaters, WindowBits};
use crate::conn::{HeadLimits, MessageLimits};
use crate::ids::{ClientIdCodec, ReactorId};
use crate::limits::{
    BATCH_POOL_BYTES_MAX, ENDS_PER_TURN, MAIL_PER_TURN, PARCELS_PER_TURN, TIMERS_PER_TURN, TURN_BYTES_MAX,
};
use crate::metrics::{NodeMetrics, ReactorMetrics};
use crate::router::{Composer, ItemUpdates, Router, RouterSettings, Watched};
use crate::time::{Millis, Stamp, wheel::Wheel};

/// What a worker is told to do; the units are in the names, what each means is in the configuration's table.
#[derive(Clone, Debug)]
pub struct Settings {
    /// WebSocket connections of the whole node.
    pub connections_max: usize,
    /// Sockets of the whole node beyond that many: in their handshake, or being refused.
    pub handshakes_max: usize,
    /// Bounds of one message of a client.
    pub message: MessageLimits,
    /// Compression; `None` agrees on none.
    pub deflate: Option<DeflateSettings>,
    /// Who gets in.
    pub gate: Gate,
    /// Bounds of a request head.
    pub head: HeadLimits,
    /// From the accept to the complete request.
    pub handshake_ms_max: u64,
    /// Between two pings, and from a ping to the end of a silent connection.
    pub heartbeat_ms: u64,
    /// Bytes that may wait behind the message being sent.
    pub outbox_bytes_max: usize,
    /// How long the kernel may take nothing of what waits.
    pub outbox_age_ms_max: u64,
    /// Bytes in all queues of the node.
    pub outbox_node_bytes_max: u64,
    /// Incoming messages of one connection; 0 is no limit.
    pub messages_per_second: u64,
    /// Incoming bytes of one connection; 0 is no limit.
    pub bytes_per_second: u64,
    /// Bytes of answers that a connection may cause before they are sent, see [`limits::INTAKE_BYTES_MAX`](crate::limits::INTAKE_BYTES_MAX).
    pub intake_bytes_max: usize,
    /// Rooms, notices, history.
    pub router: RouterSettings,
}

impl Settings {
    /// What one of so many reactors is told, of what the node is.
    fn divide(&mut self, reactors: u16) {
        // Topics are spread evenly.
        self.router.history.bytes_max /= usize::from(reactors);
        // A client does not become a slow consumer by asking.
        self.intake_bytes_max = self.intake_bytes_max.min(self.outbox_bytes_max / 2);
    }
}

/// How messages are compressed.
#[derive(Clone, Copy, Debug)]
pub struct DeflateSettings {
    /// zlib's level, 1 to 9.
    pub level: u32,
    /// Bytes of payload from which a message is compressed.
    pub min_bytes: usize,
    /// The window that clients are told to keep to, where they would.
    pub client_bits_max: WindowBits,
    /// Connections of the node whose client may refer to its earlier messages.
    pub contexts_max: usize,
    /// Bytes of the node that these may take.
    pub memory_bytes_max: usize,
}

/// What the workers of a node have in common.
#[derive(Clone)]
pub struct NodeState {
    /// The counts that bound the node and the metrics of each reactor.
    pub metrics: Arc<NodeMetrics>,
    /// The cipher of the node's client ids.
    pub codec: ClientIdCodec,
    /// The secret seed of topic hashes, the same for all reactors.
    pub seed: u64,
    /// A number that no other run of a server has: epochs are made from it.
    pub run: u64,
}

/// Which reactor of a node a worker runs, and what it is told.
pub struct Assignment {
    /// The reactor.
    pub me: ReactorId,
    /// How many reactors the node has.
    pub reactors: u16,
    /// The reactor's mailbox.
    pub mailbox: Mailbox,
    /// What all workers of the node are told.
    pub settings: Settings,
    /// What they have in common.
    pub node: NodeState,
    /// Of which topics the webhooks' thread is told.
    pub watched: Watched,
    /// Drives jitter only.
    pub jitter_seed: u64,
}

/// Takes a socket whose request is plain HTTP.
pub type HttpHandoff<S> = Box<dyn FnMut(Handover<S>)>;

/// Whether a worker goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// There will be more.
    Continues,
    /// Drained: every connection is gone.
    Ended,
}

/// See the module's documentation.
pub struct Worker<D: Driver> {
    pub(super) me: ReactorId,
    reactors: u16,
    pub(super) driver: D,
    pub(super) mailbox: Mailbox,
    pub(super) router: Router,
    pub(super) connections: Connections,
    pub(super) wheel: Wheel,
    pub(super) settings: Settings,
    pub(super) node: NodeState,
    pub(super) http: HttpHandoff<D::Stream>,
    /// Where sockets come back from there.
    pub(super) returns: Option<Returns<D::Stream>>,
    pub(super) random: fastrand::Rng,
    /// Where messages are composed before they are published.
    pub(super) composer: Composer,
    /// Where updates of items are composed; empty between two commands, but for its buffers.
    pub(super) updates: ItemUpdates,
    pub(super) inflaters: Inflaters,
    pub(super) now: Millis,
    /// Unix time of this turn, in milliseconds.
    pub(super) unix_ms: u64,
    pub(super) flush: Flush,
    /// What the wheel has just let go.
    let_go: Vec<u32>,
    /// Connections whose timer went off and was not looked at yet.
    expired: VecDeque<SlotKey>,
    /// Connections that have ended, and were not looked at yet.
    ended: VecDeque<SlotKey>,
    /// How much of [`ENDS_PER_TURN`] is left in this turn, in quarters.
    ends_left: usize,
    /// Connections that opened last.
    pub(super) newest: Newest,
    /// Paused connections that go on in the next turn.
    pub(super) resumable: Resumable,
    /// Tokens that wait for other threads.
    pub(super) asked: Asked,
    /// Whether mail is left that found no room.
    pub(super) spilled: bool,
    /// Whether it goes away, and how.
    pub(super) draining: Option<Draining>,
}

impl<D: Driver> Worker<D> {
    /// A worker before its first turn.
    pub fn new(assignment: Assignment, driver: D, http: HttpHandoff<D::Stream>) -> Worker<D> {
        let Assignment { me, reactors, mailbox, mut settings, node, watched, jitter_seed } = assignment;
        settings.divide(reactors);
        let revocations = settings.gate.auth.as_ref().map_or_else(Arc::default, |auth| auth.revocations().clone());
        let mut router = Router::new(me, reactors, node.seed, node.run, settings.router.clone());
        router.watch(watched);
        let deflater = settings.deflate.map(|deflate| Box::new(Deflater::new(deflate.level, deflate.min_bytes)));
        Worker {
            me,
            reactors,
            mailbox,
            router,
            connections: Connections::new(me, node.codec.clone(), settings.heartbeat_ms, deflater, revocations),
            wheel: Wheel::new(),
            http,
            returns: None,
            random: fastrand::Rng::with_seed(jitter_seed),
            composer: Composer::default(),
            updates: ItemUpdates::default(),
            inflaters: Inflaters::default(),
            now: driver.now(),
            unix_ms: driver.unix_ms(),
            driver,
            settings,
            node,
            flush: Flush::default(),
            let_go: Vec::new(),
            expired: VecDeque::new(),
            ended: VecDeque::new(),
            ends_left: 0,
            newest: Newest::default(),
            resumable: Resumable::default(),
            asked: Asked::default(),
            spilled: false,
            draining: None,
        }
    }

    /// Turns until drained.
    ///
    /// # Errors
    /// Where the driver cannot go on.
    pub fn run(&mut self) -> io::Result<()> {
        while self.turn()? == Turn::Continues {}
        Ok(())
    }

    /// One turn: waits, takes what is ready, routes it, flushes.
    ///
    /// # Errors
    /// Where the driver cannot go on.
    pub fn turn(&mut self) -> io::Result<Turn> {
        let timeout_ms = match self.mailbox.fall_asleep() {
            true => self.next_at().map(|at| at.since(self.now)),
            false => Some(0),
        };
        let waited = self.driver.wait(timeout_ms);
        self.mailbox.wake_up();
        waited?;
        let began_ns = self.driver.clock_ns();
        self.now = Millis::from_ns(began_ns);
        self.unix_ms = self.driver.unix_ms();
        self.router.turn_began(Stamp::from_ns(began_ns), self.unix_ms);
        self.connections.begin_turn(self.now, self.unix_ms);
        self.router.begin_turn(self.now);

        self.ends_left = 4 * ENDS_PER_TURN;
        self.take_mail();
        self.take_returned();
        self.resume_some();
        self.take_ended();
        self.take_completions();
        self.take_timers();
        self.relieve_memory();
        self.drain_some();
        self.end_turn(began_ns);
        // Not before the others: their connections may need a topic that is at home here.
        match self.draining.is_some() && self.node.metrics.sockets.load(Ordering::Relaxed) == 0 && !self.spilled {
            true => Ok(Turn::Ended),
            false => Ok(Turn::Continues),
        }
    }

    /// What the router can build again from what it is, it builds again; for tests.
    #[cfg(any(test, debug_assertions))]
    pub fn rebuild(&mut self) {
        self.router.rebuild();
    }

    /// When the worker has something to do by itself: it misses nothing where it waits until then. A moment that is not
    /// behind this turn's means at once; `None`, that only its driver or its mail can bring work.
    pub fn next_at(&self) -> Option<Millis> {
        // A full peer does not tell when it has room again.
        let spill_at = self.spilled.then_some(self.now.saturating_add(1));
        let has_more = !self.expired.is_empty()
            || !self.ended.is_empty()
            || self.router.has_stale_policies()
            || (!self.resumable.is_empty() && !self.spilled);
        let more_at = has_more.then_some(self.now);
        let drain_at = self.draining.as_ref().map(Draining::next_at);
        [spill_at, more_at, self.wheel.next_at(), self.router.next_at(), drain_at].into_iter().flatten().min()
    }

    /// Checks the tables against each other; for tests.
    ///
    /// # Panics
    /// Where they contradict each other.
    #[cfg(any(test, debug_assertions))]
    pub fn check_invariants(&self) {
        self.router.check_invariants();
        let open = self.connections.sessions.iter().filter(|(_, connection)| connection.is_open()).count();
        let counts = &self.connections.counts;
        assert_eq!(open as u64, counts.connections, "open connections are counted");
        assert_eq!(counts.opened, counts.connections + counts.endings.total(), "what opened is open or has ended");
    }

    fn take_completions(&mut self) {
        while let Some(completion) = self.driver.next() {
            match completion {
                Completion::Accepted(accepted) => self.accept(accepted),
                Completion::Received(slot, mut buffer) => {
                    self.received(slot, buffer.as_mut());
                    self.driver.give_back(buffer);
                }
                Completion::Proxied(slot, source) => self.proxied(slot, source),
                Completion::NotProxied(slot) => self.not_proxied(slot),
                Completion::Writable(slot) => self.writable(slot),
                Completion::Ended(slot) => self.end(slot),
                Completion::Detached(slot, stream) => self.detached(slot, stream),
                Completion::Released(slot) => self.released(slot),
            }
            self.settle();
        }
    }

    fn take_mail(&mut self) {
        let mut taken = 0;
        for _ in 0..PARCELS_PER_TURN {
            if taken >= MAIL_PER_TURN {
                break;
            }
            match self.mailbox.take() {
                None => break,
                // A reactor has ended by then.
                Some(Parcel::Order(Order::Finish)) => {}
                Some(Parcel::News(news)) => self.told(news.0),
                Some(Parcel::Order(Order::Drain { within_ms })) => self.begin_drain(within_ms),
                Some(Parcel::Mail(_, mut parcel)) => {
                    taken += parcel.len();
                    for mail in parcel.drain(..) {
                        self.router.handle_mail(mail, &mut self.connections);
                        // One parcel may bring as many large replies as it holds mail.
                        if self.connections.egress.turn_bytes() > TURN_BYTES_MAX {
                            self.settle();
                        }
                    }
                    self.mailbox.give_back(parcel);
                }
            }
            self.settle();
        }
    }

    fn told(&mut self, told: Told) {
        match told {
            Told::Judged(verdict) => self.judged(verdict),
            Told::Decided(decided) => self.decided(decided),
            Told::Keys(auth) => self.settings.gate.auth = Some(auth),
            Told::KeysSettled(outcome) => self.keys_settled(outcome),
            Told::Settings(settings) => self.change(*settings),
        }
    }

    /// Does other things from now on. What tokens are checked with comes another way, and so that it is in order; heartbeat
    /// and compression were agreed with the clients that are there.
    fn change(&mut self, mut settings: Settings) {
        settings.divide(self.reactors);
        settings.gate.auth = self.settings.gate.auth.take();
        (settings.heartbeat_ms, settings.deflate) = (self.settings.heartbeat_ms, self.settings.deflate);
        self.router.change(&settings.router);
        self.settings = settings;
    }

    /// The end of a connection is taken where the turn has room for it.
    fn end(&mut self, slot: SlotKey) {
        if self.ends_left == 0 || !self.ended.is_empty() {
            return self.ended.push_back(slot);
        }
        let rooms = self.router.topics_of(self.connections.id(slot));
        self.ends_left = self.ends_left.saturating_sub(4 + rooms);
        self.release(slot);
    }

    /// Takes ends that had no room in earlier turns.
    fn take_ended(&mut self) {
        let mut waiting = std::mem::take(&mut self.ended);
        while self.ends_left > 0
            && let Some(slot) = waiting.pop_front()
        {
            self.end(slot);
            self.settle();
        }
        self.ended = waiting;
    }

    fn take_timers(&mut self) {
        self.wheel.expire(self.now, &mut self.let_go);
        let sessions = &self.connections.sessions;
        self.expired.extend(self.let_go.drain(..).filter_map(|slot| sessions.occupant(slot)));
        // The others come in the next turns: ten thousand handshakes that time out at once delay no one else for long.
        for _ in 0..self.expired.len().min(TIMERS_PER_TURN) {
            let Some(slot) = self.expired.pop_front() else { break };
            self.timer(slot);
        }
        self.settle();
    }

    /// After each input: what opened begins, mail is gathered, and a turn that grew too large is flushed in between.
    pub(super) fn settle(&mut self) {
        while let Some((slot, mut early)) = self.connections.sessions.next_opened() {
            self.opened(slot, &mut early);
        }
        while let Some(slot) = self.connections.sessions.next_quiesced() {
            self.quiesced(slot);
        }
        while let Some((slot, reason)) = self.connections.sessions.next_dismissed() {
            self.dismissed(slot, reason);
        }
        self.router.compress_from(self.connections.compress_from_bytes());
        self.gather_mail();
        if self.router.open_bytes() + self.connections.egress.turn_bytes() > TURN_BYTES_MAX {
            self.flush_all();
        }
    }

    /// Whether the node is going away.
    pub(super) fn is_draining(&self) -> bool {
        self.draining.is_some()
    }

    fn end_turn(&mut self, began_ns: u64) {
        let ended_ns = self.flush_all();
        self.metrics().turn_time.record(ended_ns - began_ns, 1);
        self.connections.counts.turns += 1;
        // Before the budget: a reactor that is nudged because of it looks at these counts.
        self.publish_counts();
        self.enforce_node_budget();
        self.composer.shrink(BATCH_POOL_BYTES_MAX);
        self.updates.shrink(BATCH_POOL_BYTES_MAX);
    }

    pub(super) fn publish_counts(&mut self) {
        self.connections.counts.inflated_bytes = self.inflaters.inflated_bytes();
        self.connections.counts.deflated_bytes_in = self.inflaters.deflated_bytes();
        self.connections.counts.history_bytes = self.router.history_bytes() as u64;
        self.connections.counts.queue_bytes = self.held_bytes();
        self.connections.counts.tls = self.driver.tls_counts();
        self.metrics().publish(&self.connections.counts);
    }

    /// What this reactor has published.
    fn metrics(&self) -> &ReactorMetrics {
        &self.node.metrics.reactors[self.me.0 as usize]
    }

    /// Hands out all batches, posts the mail, then flushes: a client is told of nothing that other reactors do not have yet.
    /// When all was sent, on the driver's clock.
    pub(super) fn flush_all(&mut self) -> u64 {
        loop {
            self.router.end_turn(&mut self.connections);
            self.gather_mail();
            self.post_mail();
            if !self.connections.egress.is_dirty() {
                break;
            }
            self.flush_dirty();
        }
        let sent_ns = self.driver.clock_ns();
        let (router, metrics) = (&mut self.router, &self.node.metrics.reactors[self.me.0 as usize]);
        self.connections.end_turn(Stamp::from_ns(sent_ns), metrics, |buffer| router.recycle(buffer));
        sent_ns
    }

    fn gather_mail(&mut self) {
        for (to, mail) in self.router.poll_mail() {
            self.mailbox.gather(to, mail);
        }
    }

    /// Posts what was gathered; while some of it finds no room, clients are not read.
    fn post_mail(&mut self) {
        let spilled = !self.mailbox.post();
        if spilled != self.spilled {
            self.spilled = spilled;
            self.driver.set_reading(!spilled);
        }
    }

    /// Bytes in the queues of all reactors, this one's as of now.
    pub(super) fn node_queue_bytes(&self) -> u64 {
        let others: u64 = self.other_reactors().map(|(_, reactor)| reactor.queue_bytes()).sum();
        self.held_bytes() + others
    }

    /// Bytes that this reactor holds for its connections, its driver's included.
    pub(super) fn held_bytes(&self) -> u64 {
        self.connections.held_bytes() + self.driver.held_bytes() as u64
    }

    /// The published metrics of all reactors but this one, each with its index.
    pub(super) fn other_reactors(&self) -> impl Iterator<Item = (usize, &ReactorMetrics)> {
        self.node.metrics.reactors.iter().enumerate().filter(|(at, _)| *at != self.me.0 as usize)
    }

    /// Gives back the node's permits that a connection had whose slot is free.
    pub(super) fn give_permits(&self, connection: &Connection) {
        if connection.admission == Admission::WebSocket {
            NodeMetrics::give_permit(&self.node.metrics.connections);
        }
        if let Some(agreement) = connection.agreement.filter(|agreement| agreement.client_takeover) {
            self.node.metrics.give_context(agreement.history_bytes_max());
        }
        self.leave_address(connection.address, connection.admission);
        self.node.metrics.sockets.fetch_sub(1, Ordering::Relaxed);
    }
}
