//! A whole node, and clients that do what the input says.
//!
//! Several reactors run in one thread over the simulated driver. Tame clients join, leave, publish, ask, close and
//! vanish; wild ones send any request, frame or bytes. Ways between are wide or narrow, time passes or jumps, mailboxes
//! and queues are large or tiny, and at the end the node drains.
//!
//! - After every turn the worker's tables agree with each other.
//! - What comes to any client is one response and then whole frames of RFC 6455, and ends between two of them.
//! - Every command with an id has exactly one reply of its kind, wild clients or not.
//! - Answers that wait for a connection are bounded, however many questions it asks, wild clients too.
//! - Every message reaches whom it must, and nobody twice or for nothing (`model`).
//! - Workers are turned only where they have a reason. So a wake that is lost shows as a reply that never comes.
//! - When all have gone, no connection, topic, byte or place is left, and what opened has ended.
//!
//! Nothing of that is sampled: every input is checked so, after every turn. What is saved is the engine's own work:
//! `fuzz/run` looks for inputs in a build without AddressSanitizer and without a record of comparisons, and then runs
//! the corpus once in a build with both.
//!
//! Input: [`fanfare_seeds::script`]. With `FUZZ_WORDS` set, a replay tells in words what happens.

#![no_main]

mod guest;
mod hear;
mod model;
mod node;
mod say;

use fanfare_seeds::frame::{CLOSE, Frame};
use fanfare_seeds::script::{Hard, Script, Step, Who};
use fanfare_simulated::end::{KEY, upgrade_request};
use fanfare_simulated::message::{json, percent};
use fanfare_simulated::node::{Node, link};
use fanfare_simulated::replies::Awaited;
use guest::{Guest, Phase, Role, WILD_USER, room_name, user_name};
use libfuzzer_sys::fuzz_target;
use model::{GuestAt, Model, Topic};
use say::LARGE_SIZE;

/// Clients at one time; more do not come.
const GUESTS_MAX: usize = 10;

/// Rests in a script, and large messages: both take long, so more are left out.
const RESTS_MAX: u32 = 4;
const LARGE_MAX: u32 = 2;

/// Rounds in which the network must come to rest.
const ROUNDS_MAX: usize = 100_000;

/// A sleeper whose time comes this soon is waited for before the network counts as resting.
const REST_MS: u64 = 50;

/// Longer than any closing handshake, lingering close or deadline of a jumpy run.
const FAREWELL_MS: u64 = 10_000;

fuzz_target!(|input: &[u8]| {
    let script = Script::read(input);
    let mut run = Run::new(&script);
    for (turns, step) in &script.steps {
        run.step(step);
        run.node.some_turns(usize::from(*turns));
    }
    run.all_leave();
    run.drain();
    run.end();
});

/// A node and its clients.
struct Run {
    hard: Hard,
    node: Node,
    guests: Vec<Guest>,
    model: Model,
    ids: u32,
    draining: bool,
    /// Whether presence is asked for while nothing else happens.
    is_resting: bool,
    /// Clients that had a 101.
    accepted: u64,
    /// Clients that were gone before they had any response.
    unheard: u64,
    rests: u32,
    large: u32,
    in_words: bool,
}

impl Run {
    fn new(script: &Script) -> Run {
        Run {
            hard: script.hard,
            node: node::node(script),
            guests: Vec::new(),
            model: Model::default(),
            ids: 0,
            draining: false,
            is_resting: false,
            accepted: 0,
            unheard: 0,
            rests: 0,
            large: 0,
            in_words: std::env::var_os("FUZZ_WORDS").is_some(),
        }
    }

    /// Tells what happens.
    fn note(&self, words: impl FnOnce() -> String) {
        if self.in_words {
            eprintln!("{}", words());
        }
    }

    fn step(&mut self, step: &Step) {
        self.note(|| format!("{step:?}"));
        match step {
            Step::Connect { reactor, way, who } => self.connect(*reactor, *way, who),
            Step::Say { guest, word, about, size } => {
                if let Some(at) = self.guest(*guest, Guest::is_tame) {
                    self.large += u32::from(*size >= LARGE_SIZE);
                    let size = if self.large > LARGE_MAX { *size % LARGE_SIZE } else { *size };
                    self.say(at, *word, *about, size);
                }
            }
            Step::Read { guest, amount } => {
                if let Some(at) = self.guest(*guest, |_| true) {
                    self.read(at, if *amount == 0 { usize::MAX } else { usize::from(*amount) * 16 });
                }
            }
            Step::Close { guest, code } => {
                if let Some(at) = self.guest(*guest, |guest| guest.is_tame() && guest.phase == Phase::Open) {
                    self.close(at, [1000, 1001, 3000, 4999][usize::from(*code) % 4]);
                }
            }
            Step::Vanish { guest } => {
                if let Some(at) = self.guest(*guest, |_| true) {
                    self.over(at);
                }
            }
            Step::WildFrame { guest, first, payload } => {
                if let Some(at) = self.guest(*guest, |guest| !guest.is_tame()) {
                    let frame = Frame::new(first & 0xF, payload.as_slice());
                    let frame = Frame { fin: first & 0x80 != 0, reserved: first >> 4 & 7, ..frame };
                    self.guests[at].send(&self.node.world, &frame);
                }
            }
            Step::WildBytes { guest, bytes } => {
                if let Some(at) = self.guest(*guest, |guest| !guest.is_tame()) {
                    self.guests[at].say_raw(&self.node.world, bytes);
                }
            }
            Step::Pass { ms } => self.node.world.pass(u64::from(if self.hard.jumpy { *ms } else { ms % 4 })),
            Step::Turn { reactor } => self.node.turn(usize::from(*reactor) % self.node.reactors()),
            Step::Rest if self.rests < RESTS_MAX => {
                self.rests += 1;
                self.rest();
            }
            Step::Rest => {}
            Step::Drain => self.drain(),
        }
    }

    /// One of the clients that are here and of this sort.
    fn guest(&self, choice: u8, is_meant: impl Fn(&Guest) -> bool) -> Option<GuestAt> {
        let is_here = |at: &GuestAt| self.guests[*at].phase != Phase::Over && is_meant(&self.guests[*at]);
        let here: Vec<GuestAt> = (0..self.guests.len()).filter(is_here).collect();
        here.get(usize::from(choice).checked_rem(here.len())?).copied()
    }

    fn connect(&mut self, reactor: u8, way: u8, who: &Who) {
        let here = self.guests.iter().filter(|guest| guest.phase != Phase::Over).count();
        if here >= GUESTS_MAX {
            return;
        }
        let client = self.node.world.connect(usize::from(reactor) % self.node.reactors(), link(way));
        let at = self.guests.len();
        let (role, user, request) = match who {
            Who::User(user) => {
                let user = user_name(*user);
                self.know(at, &user);
                let request = upgrade_request(&format!("/ws?userId={}", percent(&user)), "");
                (Role::Json, Some(user), request)
            }
            Who::Anonymous => (Role::Json, None, upgrade_request("/", "")),
            Who::Raw { room, echo } => {
                let (room, echo) = (room_name(*room), *echo);
                self.model.join(Topic::Raw(room.clone()), at);
                let query = if echo { "?echo=1" } else { "" };
                let request = upgrade_request(&format!("/raw/{}{query}", percent(&room)), "");
                (Role::Raw { room, echo }, None, request)
            }
            Who::Wild => (Role::Wild, None, upgrade_request(&format!("/ws?userId={WILD_USER}"), "")),
            Who::WildRaw => (Role::WildRaw, None, upgrade_request("/raw/wild", "")),
            // Of several parameters the first counts, so it is this user whatever follows.
            Who::WildHead(bytes) => {
                (Role::Wild, None, [format!("GET /ws?userId={WILD_USER}&").as_bytes(), bytes].concat())
            }
        };
        self.note(|| format!("client {at} asks for {}", String::from_utf8_lossy(&request)));
        let mut guest = Guest::new(client, role, user);
        if !String::from_utf8_lossy(&request).contains(KEY) {
            guest.end.has_other_key();
        }
        guest.say_raw(&self.node.world, &request);
        self.guests.push(guest);
    }

    /// What is sent to a user, to everyone or to the connection may come from now on.
    fn know(&mut self, at: GuestAt, user: &str) {
        for topic in [Topic::User(user.to_owned()), Topic::Everyone, Topic::One(at)] {
            self.model.join(topic, at);
        }
    }

    fn close(&mut self, at: GuestAt, code: u16) {
        let guest = &mut self.guests[at];
        guest.send(&self.node.world, &Frame::new(CLOSE, code.to_be_bytes()));
        guest.phase = Phase::Closing(code);
    }

    /// From here on nothing comes to a client and nothing is sent.
    fn over(&mut self, at: GuestAt) {
        self.note(|| format!("client {at} is gone"));
        self.unheard += u64::from(self.guests[at].phase == Phase::Asking);
        self.model.end(at);
        self.guests[at].phase = Phase::Over;
        self.node.world.close(self.guests[at].end.client);
    }

    /// Everything said arrives, everything sent is read, every worker with a reason turns; then all is judged.
    fn rest(&mut self) {
        self.come_to_rest();
        self.judge_rest();
        self.ask_presence();
    }

    fn come_to_rest(&mut self) {
        for _ in 0..ROUNDS_MAX {
            let mut is_busy = false;
            for at in 0..self.guests.len() {
                is_busy |= self.read(at, usize::MAX);
            }
            is_busy |= self.node.turn_all();
            if !is_busy && !self.node.pass_to_next(REST_MS) {
                return;
            }
        }
        panic!("the node does not come to rest");
    }

    fn judge_rest(&mut self) {
        self.note(|| "all rests".into());
        for (at, guest) in self.guests.iter().enumerate().filter(|(_, guest)| guest.is_tame()) {
            match guest.phase {
                Phase::Asking => panic!("client {at}: all rests, and its request is not answered"),
                Phase::Open => assert!(guest.replies.is_empty(), "client {at} has no reply: {:?}", guest.replies),
                Phase::Closing(_) => panic!("client {at}: all rests, and its close is not answered"),
                Phase::Told | Phase::Refused | Phase::Over => {}
            }
        }
        if !self.guests.iter().any(|guest| !guest.is_tame() && guest.phase != Phase::Over) {
            self.node.check_at_rest();
        }
        let guests = &self.guests;
        self.model.settle(|at| !self.draining && guests[at].phase == Phase::Open);
    }

    /// At rest, the first open client asks who is in each room.
    fn ask_presence(&mut self) {
        let asks = |guest: &Guest| guest.role == Role::Json && guest.phase == Phase::Open;
        let Some(at) = self.guests.iter().position(asks) else { return };
        for room in 0..4 {
            let room = room_name(room);
            let text = format!(r#""type":"presence","roomId":{}"#, json(&room));
            self.command(at, &text, Some(Awaited::Presence { room }));
        }
        self.is_resting = true;
        self.come_to_rest();
        self.is_resting = false;
        self.judge_rest();
    }

    /// Everybody goes, and nothing may be left of them.
    fn all_leave(&mut self) {
        self.rest();
        for at in 0..self.guests.len() {
            match self.guests[at].phase {
                Phase::Open if self.guests[at].is_tame() => self.close(at, 1000),
                Phase::Over => {}
                Phase::Open | Phase::Asking | Phase::Closing(_) | Phase::Told | Phase::Refused => self.over(at),
            }
        }
        self.rest();
        self.node.world.pass(FAREWELL_MS);
        self.come_to_rest();
        self.node.check_empty();
    }

    /// The node is told to go away.
    fn drain(&mut self) {
        if self.draining {
            return;
        }
        if self.hard.small_mailboxes {
            self.come_to_rest();
        }
        self.node.drain();
        self.draining = true;
    }

    /// All workers end, and what the clients have seen is what was counted.
    fn end(&mut self) {
        for _ in 0..ROUNDS_MAX {
            self.come_to_rest();
            if !self.node.is_running() {
                break;
            }
            self.node.world.pass(1);
        }
        assert!(!self.node.is_running(), "not all workers have drained");
        self.node.check_empty();
        let (opened, accepted, unheard) = (self.node.opened(), self.accepted, self.unheard);
        let is_right = (accepted..=accepted + unheard).contains(&opened);
        assert!(
            is_right,
            "{opened} opened, {accepted} were told so, and {unheard} were gone before they heard anything"
        );
    }
}
