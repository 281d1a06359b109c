//! One run: guests that do what the dice say, turns in the order the dice say, and rests at which all is judged.

use std::collections::{BTreeSet, VecDeque};

use fanfare::limits::PUBLISH_KEY_MS_MAX;
use fanfare::reactor::sim::Ending;
use fanfare_simulated::end::End;
use fanfare_simulated::message::room_name;
use fanfare_simulated::replies::Replies;
use fanfare_simulated::seeds::Outcome;
use fanfare_simulated::tally::Tally;
use fanfare_simulated::trace::Trace;

use super::EXPECTED;
use super::node::Node;
use super::notices::Audience;
use super::oracle::{GuestAt, OpAt, Oracle, Topic, TopicAt};
use super::plan::{Finale, Plan};
use super::streams::Streams;

/// Rounds in which a network must come to rest; a run needs some thousands.
const ROUNDS_MAX: usize = 200_000;

/// A sleeper whose time comes this soon is waited for before the network counts as resting.
const REST_MS: u64 = 50;

/// Longer than any closing handshake, lingering close or deadline of a jumpy run.
const FAREWELL_MS: u64 = 10_000;

/// One client.
pub struct Guest {
    pub end: End,
    pub role: Role,
    pub phase: Phase,
    /// The user, once it is known.
    pub user: Option<String>,
    pub client_id: Option<String>,
    /// Whether it reads what comes.
    pub reads: bool,
    /// Whether it answers pings.
    pub answers: bool,
    /// Whether its way takes everything at once.
    pub is_wide: bool,
    pub replies: Replies<OpAt>,
    /// The rooms it is in once all that it said is done.
    pub rooms: BTreeSet<String>,
    /// Pings that have no pong yet.
    pub pings: VecDeque<Vec<u8>>,
}

/// What a client came for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    Json,
    Raw {
        room: TopicAt,
        echo: bool,
    },
    /// Plain HTTP, with its whole request.
    Http(Vec<u8>),
}

/// How far a client's connection is, as it sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// It has asked for a connection.
    Asking,
    /// It has its 101, and its welcome if there is one.
    Open,
    /// It has said a close with this code.
    Leaving(u16),
    /// It has broken RFC 6455.
    Misbehaved,
    /// It has had a close frame.
    Told,
    /// Its request was refused.
    Refused,
    /// The connection is over.
    Over,
}

/// See the module's documentation.
pub struct Run {
    pub plan: Plan,
    pub random: fastrand::Rng,
    pub trace: Trace,
    pub tally: Tally,
    pub node: Node,
    pub guests: Vec<Guest>,
    pub oracle: Oracle,
    pub streams: Streams,
    pub everyone: TopicAt,
    pub draining: bool,
    /// Whether presence is asked for while nothing else happens.
    pub is_resting: bool,
    pub ids: u64,
    /// Client ids given out, none twice.
    pub client_ids: BTreeSet<String>,
    /// A worker that gets no turn for a while.
    stalled: Option<usize>,
}

/// Runs a seed to its end.
pub fn run(seed: u64, in_words: bool) -> Outcome {
    let mut run = Run::new(Plan::of(seed), Trace::new(in_words));
    for _ in 0..run.plan.steps {
        run.step();
    }
    match run.plan.finale {
        Finale::AllLeave => run.all_leave(),
        Finale::Drain if run.plan.mailboxes_are_small() => run.settle(),
        Finale::Drain => {}
    }
    run.drain();
    run.tally.add("a message came", run.oracle.received);
    run.tally.add("a message came live from history", run.streams.live);
    run.tally.add("a message had to come", run.oracle.demanded);
    run.tally.add("a message came to nobody", run.oracle.unheard);
    let answers = run.node.world.answers();
    run.tally.add("a queued send was taken whole", answers.whole);
    run.tally.add("a queued send fell short", answers.short);
    run.tally.add("a queued send was broken", answers.broken);
    run.tally.add("a socket was released later", answers.released);
    run.tally.add("a socket was handed over later", answers.detached);
    run.tally.add("a completion came after the end", answers.late);
    Outcome { hash: run.trace.hash(), tally: run.tally }
}

impl Run {
    fn new(plan: Plan, mut trace: Trace) -> Run {
        trace.note(&[], || format!("{plan:?}"));
        let mut oracle = Oracle::default();
        oracle.notices.audience = match plan.notice_members_max {
            0 => Audience::Nobody,
            100.. => Audience::All,
            _ => Audience::Few,
        };
        Run {
            random: fastrand::Rng::with_seed(plan.seed),
            node: Node::new(&plan),
            guests: Vec::new(),
            everyone: oracle.topic(&Topic::Everyone),
            oracle,
            streams: Streams::new(plan.history, plan.is_forgetful),
            draining: false,
            is_resting: false,
            ids: 0,
            client_ids: BTreeSet::new(),
            stalled: None,
            tally: Tally::new(&EXPECTED),
            plan,
            trace,
        }
    }

    /// Whether a throw of so many sides shows its one.
    pub fn one_in(&mut self, sides: usize) -> bool {
        self.random.usize(0..sides) == 0
    }

    fn step(&mut self) {
        if self.one_in(40) {
            self.stalled = self.one_in(3).then(|| self.random.usize(0..self.node.reactors()));
        }
        if self.one_in(600) {
            self.settle();
        }
        match self.random.usize(0..100) {
            percent if percent < self.plan.turns_percent => self.some_turn(),
            percent if percent < 95 => self.act(),
            _ => self.pass_some_time(),
        }
    }

    /// A turn of one of the workers; in a lazy run only of those that have a reason.
    pub fn some_turn(&mut self) {
        let may = match self.plan.lazy {
            true => self.node.with_reason(),
            false => (0..self.node.reactors()).filter(|&at| self.node.is_running(at)).collect(),
        };
        let may: Vec<usize> = may.into_iter().filter(|&at| Some(at) != self.stalled).collect();
        if let Some(&at) = self.random.choice(&may) {
            self.turn(at);
        }
    }

    fn turn(&mut self, at: usize) {
        self.trace.note(&[b't', at as u8], || format!("turn of reactor {at}"));
        self.node.turn(at);
        if self.random.bool() {
            self.node.lie_down(at);
        }
        if !self.node.world.is_reading(at) {
            self.tally.count("a worker paused reading");
        }
    }

    fn pass_some_time(&mut self) {
        let jumps = self.plan.jumpy && self.one_in(6);
        let ms = if jumps { self.random.u64(100..4_000) } else { self.random.u64(0..3) };
        self.pass(ms);
    }

    fn pass(&mut self, ms: u64) {
        self.trace.note(&ms.to_le_bytes(), || format!("{ms} ms pass"));
        self.node.world.pass(ms);
    }

    /// Lets everything come to rest, with workers turned only where they have a reason, then judges.
    pub fn settle(&mut self) {
        self.trace.note(b"settle", || "settling".into());
        self.come_to_rest();
        self.judge_rest();
        self.ask_presence();
    }

    /// Everything said arrives, everything sent is read, and every worker with a reason turns.
    fn come_to_rest(&mut self) {
        for _ in 0..ROUNDS_MAX {
            let mut is_busy = false;
            for guest in 0..self.guests.len() {
                is_busy |= self.flush(guest, usize::MAX);
                is_busy |= self.read(guest, usize::MAX);
            }
            let mut ready = self.node.with_reason();
            self.random.shuffle(&mut ready);
            is_busy |= !ready.is_empty();
            for at in ready {
                self.turn(at);
            }
            if is_busy {
                continue;
            }
            let now = self.node.world.now();
            match self.node.next_due() {
                Some(due) if due.since(now) <= REST_MS => self.pass(due.since(now)),
                _ => return,
            }
        }
        panic!("the node does not come to rest");
    }

    fn judge_rest(&mut self) {
        self.node.check_at_rest();
        for (at, guest) in self.guests.iter().enumerate() {
            match guest.phase {
                Phase::Asking => panic!("guest {at}: everything rests and its request is not answered: a lost wake?"),
                Phase::Open => {
                    let owed = &guest.replies;
                    assert_eq!(owed.len(), 0, "guest {at}: everything rests and replies are owed: {owed:?}");
                    assert!(guest.pings.is_empty(), "guest {at}: everything rests and a ping has no pong");
                }
                Phase::Leaving(_) => panic!("guest {at}: everything rests and its close is not answered"),
                Phase::Misbehaved => panic!("guest {at}: everything rests and its violation is not answered"),
                Phase::Told | Phase::Refused | Phase::Over => {}
            }
            assert!(!guest.end.is_cut() || guest.phase == Phase::Over, "guest {at}: a frame is not whole");
        }
        self.oracle.settle(self.draining);
        if !self.draining {
            let (guests, oracle) = (&self.guests, &self.oracle);
            self.streams.settle(|at| guests[at].phase == Phase::Open, |guest, topic| oracle.own(guest, topic));
        }
    }

    /// At rest, the first open client asks who is in each room, and in one where nobody ever was.
    fn ask_presence(&mut self) {
        let asks = |guest: &Guest| guest.phase == Phase::Open && guest.role == Role::Json;
        let Some(asker) = self.guests.iter().position(asks) else { return };
        for room in 0..=self.plan.rooms {
            let room = room_name(room);
            self.trace.note(b"presence", || format!("guest {asker} asks who is in {room}"));
            self.say_presence(asker, &room);
        }
        self.is_resting = true;
        self.come_to_rest();
        self.is_resting = false;
        // The asker may have been ended meanwhile: an answer is as much to read as anything else.
        let owed = self.guests[asker].replies.len();
        assert!(owed == 0 || self.guests[asker].phase != Phase::Open, "guest {asker}: presence is not answered");
        self.oracle.settle(self.draining);
    }

    /// The connection is over: whether the server was allowed to end it, and like this.
    pub fn judge_ending(&mut self, at: GuestAt, ending: Ending) {
        let settings = self.plan.settings();
        let guest = &self.guests[at];
        let silent = ending.at.since(ending.heard_at) >= settings.heartbeat_ms;
        let is_blocked = ending.short_since.is_some();
        // One that breaks the rules while it is told to go is not told twice.
        let broke_in = guest.phase == Phase::Misbehaved && (self.plan.tight_outbox || self.draining);
        let forced = self.plan.jumpy && (silent || is_blocked) || broke_in && is_blocked;
        assert!(!guest.end.is_cut() || forced, "guest {at}: its connection ended inside of a frame: {ending:?}");
        let is_allowed = match guest.phase {
            Phase::Told | Phase::Refused => true,
            Phase::Asking => match &guest.role {
                Role::Http(request) => {
                    let handed = self.was_handed(at, request);
                    self.tally.add("plain HTTP handed over", u64::from(handed));
                    handed || self.draining || self.plan.jumpy
                }
                Role::Json | Role::Raw { .. } => self.draining || self.plan.jumpy,
            },
            Phase::Open | Phase::Leaving(_) | Phase::Misbehaved => forced,
            Phase::Over => unreachable!("a connection ends once"),
        };
        if guest.end.is_cut() {
            self.tally.count("cut off in the middle of a frame");
        }
        if guest.phase == Phase::Open && silent {
            self.tally.count("cut off for silence");
        }
        assert!(is_allowed, "guest {at}: its connection ended without a word in phase {:?}: {ending:?}", guest.phase);
        self.end(at);
    }

    fn was_handed(&self, at: GuestAt, request: &[u8]) -> bool {
        let handed = self.node.handed.borrow();
        let mine: Vec<&Vec<u8>> =
            handed.iter().filter(|(client, _)| *client == self.guests[at].end.client).map(|(_, bytes)| bytes).collect();
        mine.len() == 1 && request.starts_with(mine[0])
    }

    /// From here on nothing comes and nothing is sent.
    pub fn end(&mut self, at: GuestAt) {
        self.trace.note(&[b'e', at as u8], || format!("guest {at} is gone"));
        self.oracle.die(at, false);
        self.streams.end(at);
        self.guests[at].phase = Phase::Over;
        self.node.world.close(self.guests[at].end.client);
    }

    /// Everybody goes, and nothing may be left of them.
    fn all_leave(&mut self) {
        self.settle();
        for at in 0..self.guests.len() {
            let phase = self.guests[at].phase;
            match phase {
                Phase::Open if self.one_in(2) => self.leave(at),
                Phase::Open | Phase::Asking => self.vanish(at),
                Phase::Leaving(_) | Phase::Misbehaved | Phase::Told | Phase::Refused | Phase::Over => {}
            }
        }
        self.settle();
        self.pass(FAREWELL_MS);
        self.settle();
        self.outlive_history();
        self.node.check_empty();
    }

    /// Lets all histories grow too old.
    fn outlive_history(&mut self) {
        let Some(policy) = self.plan.history else { return };
        for _ in 0..3 {
            self.pass(policy.ttl_ms.max(PUBLISH_KEY_MS_MAX) + FAREWELL_MS);
            (0..self.node.reactors()).for_each(|at| self.turn(at));
            self.settle();
        }
    }

    /// The node goes away under its guests, who keep on for a while.
    fn drain(&mut self) {
        self.trace.note(b"drain", || "the node drains".into());
        let is_busy = !self.node.with_reason().is_empty();
        self.tally.count(if is_busy { "drained while busy" } else { "drained at rest" });
        self.node.drain(self.plan.mailboxes_are_small());
        self.draining = true;
        self.stalled = None;
        for _ in 0..self.random.usize(0..200) {
            self.step_of_drain();
        }
        for _ in 0..ROUNDS_MAX {
            if (0..self.node.reactors()).all(|at| !self.node.is_running(at)) {
                break;
            }
            self.come_to_rest();
            let due = self.node.next_due().map_or(0, |due| due.since(self.node.world.now()));
            assert!(due <= FAREWELL_MS || self.plan.jumpy, "a draining node waits {due} ms");
            self.pass(due.max(1));
        }
        self.come_to_rest();
        assert!((0..self.node.reactors()).all(|at| !self.node.is_running(at)), "not all workers have drained");
        for (at, guest) in self.guests.iter().enumerate() {
            assert_eq!(guest.phase, Phase::Over, "guest {at} outlives the node");
        }
        self.oracle.settle(true);
        self.node.check_places(0);
    }

    fn step_of_drain(&mut self) {
        match self.random.usize(0..100) {
            0..40 => self.some_turn(),
            40..95 => self.act(),
            _ => self.pass_some_time(),
        }
    }
}
