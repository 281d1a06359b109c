//! A keyed room under a seed: subscribers of every mode that stall, come back and change what they want, and one that
//! sees every update and so knows what the others must end with.

use std::sync::Arc;

use fanfare::limits::INTAKE_BYTES_MAX;
use fanfare::reactor::sim::Link;
use fanfare::router::{HistoryPolicy, KeyedPolicy, KeyedRooms, KeyedSettings, RoomPolicies};
use fanfare_simulated::end::{End, Heard, TEXT};
use fanfare_simulated::keyed::{Change, Membership, Subscriber, Wanted};
use fanfare_simulated::seeds::Outcome;
use fanfare_simulated::tally::Tally;
use fanfare_simulated::trace::Trace;
use serde_json::{Value, json};

use super::node::Node;
use super::plan::Plan;

/// Everything that is to come up in a usual sweep.
pub const EXPECTED: [&str; 10] = [
    "a join was answered",
    "a position was resumed",
    "a position could not be resumed",
    "terms were changed",
    "an update was left out",
    "an item was removed",
    "an update was stale",
    "a subscriber stalled",
    "a subscriber came back",
    "a gap was told",
];

const ROOM: &str = "px.den";
const ITEMS: usize = 12;
/// Rounds in which all comes to rest; a run that needs more hangs.
const ROUNDS_MAX: usize = 60_000;

/// A subscriber and its connection.
struct Guest {
    end: End,
    is_open: bool,
    reads: bool,
    subscriber: Subscriber,
}

struct Run {
    random: fastrand::Rng,
    plan: Plan,
    node: Node,
    /// The first sees every update, the second publishes.
    guests: Vec<Guest>,
    content: u64,
    keeps_history: bool,
    trace: Trace,
    tally: Tally,
}

const WITNESS: usize = 0;
const PUBLISHER: usize = 1;

/// Runs one seed.
pub fn run(seed: u64, in_words: bool) -> Outcome {
    let mut run = Run::new(seed, in_words);
    run.begin();
    for _ in 0..run.random.usize(300..4_000) {
        run.step();
    }
    run.come_to_rest();
    run.judge();
    Outcome { hash: run.trace.hash(), tally: run.tally }
}

impl Run {
    fn new(seed: u64, in_words: bool) -> Run {
        let mut random = fastrand::Rng::with_seed(seed ^ 0x51ED);
        let plan = Plan {
            jumpy: false,
            tight_outbox: false,
            tight_node_budget: false,
            rooms_max: 1_000,
            connections_max: 1_000,
            intake_bytes_max: INTAKE_BYTES_MAX,
            large_permille: if random.bool() { 0 } else { 1 },
            history: None,
            ..Plan::of(seed)
        };
        let mut settings = plan.settings();
        let policy = KeyedPolicy {
            items_max: [100, 100, 8][random.usize(0..3)],
            bytes_max: 1 << 20,
            ttl_ms: None,
            removed_ttl_ms: [50, 1_000_000][random.usize(0..2)],
            stale_after_ms: random.bool().then_some(200),
        };
        settings.router.keyed = KeyedSettings {
            rooms: Some(KeyedRooms(Arc::new(move |room: &str| room.starts_with("px.").then_some(policy)))),
            node_items_max: 1 << 20,
            node_bytes_max: 1 << 30,
            subscription_bytes_max: 1 << 16,
        };
        let keeps_history = random.usize(0..3) == 0;
        if keeps_history {
            let history = HistoryPolicy { messages_max: 20, ttl_ms: 1_000_000 };
            settings.router.history.rooms = Some(RoomPolicies(Arc::new(move |_: &str| Some(history))));
            settings.router.history.bytes_max = 1 << 24;
            settings.router.history.pinned_bytes_max = 1 << 24;
        }
        let mut node = Node::with(&plan, &settings);
        node.permit_answers_of(1 << 20);
        let (trace, tally) = (Trace::new(in_words), Tally::new(&EXPECTED));
        Run { random, plan, node, guests: Vec::new(), content: 0, keeps_history, trace, tally }
    }

    fn begin(&mut self) {
        for user in ["witness", "publisher", "ann", "ben", "cat", "dan"] {
            let end = self.connect(user);
            let subscriber = Subscriber::new(user, ROOM, self.keeps_history);
            self.guests.push(Guest { end, is_open: false, reads: true, subscriber });
        }
        self.come_to_rest();
        let command = self.guests[WITNESS].subscriber.join(everything(), false);
        self.say(WITNESS, &command);
        self.come_to_rest();
    }

    fn connect(&mut self, user: &str) -> End {
        let reactor = self.random.usize(0..self.node.reactors());
        let mut link = self.plan.link(&mut self.random);
        if matches!(user, "witness" | "publisher") {
            // They set the pace.
            link = Link {
                socket_bytes_max: 1 << 20,
                read_bytes_max: 70_000,
                send_bytes_max: 1 << 20,
                short_writes: false,
            };
        }
        let mut end = End::new(self.node.world.connect(reactor, link));
        end.ask_upgrade(&format!("/?userId={user}"), &mut self.random);
        end
    }

    fn step(&mut self) {
        let at = self.random.usize(0..self.guests.len());
        match self.random.usize(0..100) {
            0..20 => self.publish(),
            20..30 => self.act(at),
            30..45 => self.flush(at, 300),
            45..60 => self.read(at, 400),
            60..64 => self.node.world.pass(self.random.u64(1..40)),
            _ => {
                let reactor = self.random.usize(0..self.node.reactors());
                if self.node.has_reason(reactor) {
                    self.node.turn(reactor);
                }
            }
        }
    }

    fn say(&mut self, at: usize, command: &Value) {
        let text = command.to_string();
        self.trace.note(text.as_bytes(), || format!("{} says {text}", self.guests[at].subscriber.name));
        self.guests[at].end.say(TEXT, text.as_bytes(), 1, None, &mut self.random);
    }

    fn publish(&mut self) {
        let update = |run: &mut Run| {
            run.content += 1;
            let item = format!("I{:02}", run.random.usize(0..ITEMS));
            match run.random.usize(0..8) {
                0 => json!({"item": item, "remove": true}),
                1 => json!({"item": item, "content": run.content, "version": run.random.u64(0..5)}),
                _ => json!({"item": item, "content": run.content}),
            }
        };
        let command = match self.random.bool() {
            true => {
                let mut command = update(self);
                let fields = command.as_object_mut().expect("it is an object");
                fields.extend([
                    ("type".into(), json!("room_msg")),
                    ("roomId".into(), json!(ROOM)),
                    ("id".into(), json!(1)),
                ]);
                command
            }
            false => {
                let updates: Vec<Value> = (0..self.random.usize(0..6)).map(|_| update(self)).collect();
                let replace = self.random.usize(0..10) == 0;
                json!({"type": "room_msgs", "roomId": ROOM, "updates": updates, "replace": replace, "id": 2})
            }
        };
        self.say(PUBLISHER, &command);
    }

    /// A subscriber joins, leaves, asks for something else, stalls, or goes and comes back.
    fn act(&mut self, at: usize) {
        if at <= PUBLISHER || !self.guests[at].is_open {
            return;
        }
        let (membership, tunes) = (self.guests[at].subscriber.membership(), self.guests[at].subscriber.tunes());
        match (self.random.usize(0..10), membership) {
            (0..4, Membership::None) => {
                let (mode, items, interval) = (self.mode(), self.items(), self.interval());
                let resumes = self.random.bool();
                let command = self.guests[at].subscriber.join(Wanted { mode, interval, items }, resumes);
                self.say(at, &command);
            }
            (0, Membership::Member) if tunes == 0 => {
                let command = self.guests[at].subscriber.leave();
                self.say(at, &command);
            }
            (1..4, Membership::Member) if tunes < 8 => {
                let change = Change {
                    mode: self.random.bool().then(|| self.mode()),
                    interval: self.random.bool().then(|| self.interval()),
                    items: self.random.bool().then(|| self.items()),
                };
                let command = self.guests[at].subscriber.tune(change);
                self.say(at, &command);
            }
            (4 | 5, _) => {
                self.tally.count("a subscriber stalled");
                self.guests[at].reads = !self.guests[at].reads;
            }
            (6, Membership::Member) if tunes == 0 => self.come_back(at),
            _ => {}
        }
    }

    fn mode(&mut self) -> &'static str {
        ["all", "latest", "latest"][self.random.usize(0..3)]
    }

    fn interval(&mut self) -> u64 {
        [0, 5, 50][self.random.usize(0..3)]
    }

    fn items(&mut self) -> Vec<String> {
        match self.random.usize(0..4) {
            0 | 1 => vec!["*".into()],
            2 => (0..self.random.usize(0..4)).map(|_| format!("I{:02}", self.random.usize(0..ITEMS))).collect(),
            _ => vec!["I0*".into()],
        }
    }

    /// A subscriber is gone, and is there again.
    fn come_back(&mut self, at: usize) {
        self.tally.count("a subscriber came back");
        self.node.world.close(self.guests[at].end.client);
        let user = self.guests[at].subscriber.name.clone();
        let end = self.connect(&user);
        let guest = &mut self.guests[at];
        guest.subscriber.lose();
        (guest.end, guest.is_open, guest.reads) = (end, false, true);
    }

    fn flush(&mut self, at: usize, bytes_max: usize) {
        let bytes = self.random.usize(1..=bytes_max);
        let guest = &mut self.guests[at];
        if guest.end.unsent() > 0 {
            guest.end.flush(&self.node.world, bytes);
        }
    }

    fn read(&mut self, at: usize, bytes_max: usize) {
        if !self.guests[at].reads {
            return;
        }
        let bytes = self.node.world.receive(self.guests[at].end.client, bytes_max);
        let mut heard = Vec::new();
        self.guests[at].end.take(&bytes, |what| heard.push(what));
        for heard in heard {
            match heard {
                Heard::Status(status) => assert_eq!(status, 101),
                Heard::Message(_, payload) => self.hear(at, &payload),
                Heard::Ping(payload) => self.guests[at].end.pong(&payload, &mut self.random),
                Heard::Pong(_) => {}
                Heard::Close(code, reason) => {
                    panic!("{} is closed: {code:?} {reason}", self.guests[at].subscriber.name)
                }
            }
        }
    }

    fn hear(&mut self, at: usize, payload: &[u8]) {
        self.trace.note(payload, || {
            format!("{} hears {}", self.guests[at].subscriber.name, String::from_utf8_lossy(payload))
        });
        let message: Value = serde_json::from_slice(payload).expect("the server sends JSON");
        match (message["type"].as_str().unwrap_or_default(), message["id"].as_str()) {
            ("welcome", _) => self.guests[at].is_open = true,
            ("ack", None) if message.get("stale").is_some() => self.tally.count("an update was stale"),
            ("ack", None) => {}
            ("error", _) => assert_eq!(message["code"], "too_many_items", "{message}"),
            _ => self.guests[at].subscriber.hear(&message, |what| self.tally.count(what)),
        }
    }

    /// Everything said arrives, everything sent is read, and every round is over.
    fn come_to_rest(&mut self) {
        (0..self.guests.len()).for_each(|at| self.guests[at].reads = true);
        let mut calm = 0;
        for _ in 0..ROUNDS_MAX {
            let mut is_busy = false;
            for at in 0..self.guests.len() {
                let client = self.guests[at].end.client;
                is_busy |= self.guests[at].end.unsent() > 0 || self.node.world.readable(client) > 0;
                self.flush(at, 100_000);
                self.read(at, usize::MAX);
            }
            let ready = self.node.with_reason();
            is_busy |= !ready.is_empty();
            ready.into_iter().for_each(|reactor| self.node.turn(reactor));
            calm = if is_busy { 0 } else { calm + 1 };
            self.node.world.pass(1);
            // Longer than the longest round.
            if calm > 120 {
                return;
            }
        }
        panic!("it does not come to rest");
    }

    /// Every member ends with the newest value of all that it wants.
    fn judge(&self) {
        let truth = self.guests[WITNESS].subscriber.view();
        self.guests.iter().for_each(|guest| guest.subscriber.judge(truth));
    }
}

fn everything() -> Wanted {
    Wanted { mode: "all", interval: 0, items: vec!["*".into()] }
}
