//! A keyed room under a seed: subscribers of every mode that stall, come back and change what they want, and one that
//! sees every update and so knows what the others must end with.

use std::collections::BTreeMap;
use std::sync::Arc;

use fanfare::limits::INTAKE_BYTES_MAX;
use fanfare::reactor::sim::Link;
use fanfare::router::{HistoryPolicy, KeyedPolicy, KeyedRooms, KeyedSettings, RoomPolicies};
use fanfare_simulated::end::{End, Heard, TEXT};
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

/// An item as a subscriber knows it: seq, offset, and its content if it has one.
type Known = (u64, u64, Option<String>);

/// What a subscriber knows, and waits for.
struct Guest {
    end: End,
    user: String,
    is_open: bool,
    reads: bool,
    membership: Membership,
    mode: &'static str,
    items: Vec<String>,
    view: BTreeMap<String, Known>,
    /// What came since it has asked to join, before it was answered.
    incoming: BTreeMap<String, Known>,
    position: Option<(String, u64)>,
    /// Terms that it has asked for, in order.
    tunes: Vec<Vec<String>>,
    /// In mode `all` of all items, the offset of the next update.
    next_offset: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Membership {
    None,
    Joining,
    Member,
    Leaving,
}

impl Guest {
    fn new(end: End, user: &str) -> Guest {
        Guest {
            end,
            user: user.to_owned(),
            is_open: false,
            reads: true,
            membership: Membership::None,
            mode: "all",
            items: vec!["*".into()],
            view: BTreeMap::new(),
            incoming: BTreeMap::new(),
            position: None,
            tunes: Vec::new(),
            next_offset: None,
        }
    }

    fn wants_all(&self) -> bool {
        self.items == ["*"]
    }
}

fn wants(items: &[String], item: &str) -> bool {
    items.iter().any(|wanted| match wanted.strip_suffix('*') {
        Some(prefix) => item.starts_with(prefix),
        None => wanted == item,
    })
}

struct Run {
    random: fastrand::Rng,
    plan: Plan,
    node: Node,
    /// The first sees every update, the second publishes.
    guests: Vec<Guest>,
    content: u64,
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
        if random.usize(0..3) == 0 {
            let history = HistoryPolicy { messages_max: 20, ttl_ms: 1_000_000 };
            settings.router.history.rooms = Some(RoomPolicies(Arc::new(move |_: &str| Some(history))));
            settings.router.history.bytes_max = 1 << 24;
            settings.router.history.pinned_bytes_max = 1 << 24;
        }
        let mut node = Node::with(&plan, &settings);
        node.permit_answers_of(1 << 20);
        let (trace, tally) = (Trace::new(in_words), Tally::new(&EXPECTED));
        Run { random, plan, node, guests: Vec::new(), content: 0, trace, tally }
    }

    fn begin(&mut self) {
        for user in ["witness", "publisher", "ann", "ben", "cat", "dan"] {
            let guest = self.connect(user);
            self.guests.push(guest);
        }
        self.come_to_rest();
        self.join(WITNESS, "all", vec!["*".into()], None);
        self.come_to_rest();
    }

    fn connect(&mut self, user: &str) -> Guest {
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
        Guest::new(end, user)
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
        self.trace.note(text.as_bytes(), || format!("{} says {text}", self.guests[at].user));
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
        match (self.random.usize(0..10), self.guests[at].membership) {
            (0..4, Membership::None) => {
                let (mode, items) = (self.mode(), self.items());
                let since = self.guests[at].position.clone().filter(|_| self.random.bool());
                self.join(at, mode, items, since);
            }
            (0, Membership::Member) if self.guests[at].tunes.is_empty() => {
                self.guests[at].membership = Membership::Leaving;
                self.say(at, &json!({"type": "leave_room", "roomId": ROOM, "id": "left"}));
            }
            (1..4, Membership::Member) if self.guests[at].tunes.len() < 8 => {
                let (mode, items) = (self.mode(), self.items());
                let interval = self.interval();
                self.guests[at].tunes.push(items.clone());
                (self.guests[at].mode, self.guests[at].next_offset) = (mode, None);
                let tune = json!({"type": "tune", "roomId": ROOM, "id": "tuned", "mode": mode, "items": items, "interval": interval});
                self.say(at, &tune);
            }
            (4 | 5, _) => {
                self.tally.count("a subscriber stalled");
                self.guests[at].reads = !self.guests[at].reads;
            }
            (6, Membership::Member) if self.guests[at].tunes.is_empty() => self.come_back(at),
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

    fn join(&mut self, at: usize, mode: &'static str, items: Vec<String>, since: Option<(String, u64)>) {
        let interval = self.interval();
        let mut command = json!({"type": "join_room", "roomId": ROOM, "id": "joined", "mode": mode, "items": items, "interval": interval});
        match since {
            Some((epoch, offset)) => command["since"] = json!({"epoch": epoch, "offset": offset}),
            None => command["snapshot"] = json!(true),
        }
        let guest = &mut self.guests[at];
        (guest.membership, guest.mode, guest.items) = (Membership::Joining, mode, items);
        (guest.next_offset, guest.incoming) = (None, BTreeMap::new());
        self.say(at, &command);
    }

    /// A subscriber is gone, and is there again with the position that it had, if that is good.
    fn come_back(&mut self, at: usize) {
        self.tally.count("a subscriber came back");
        self.node.world.close(self.guests[at].end.client);
        let user = self.guests[at].user.clone();
        let mut guest = self.connect(&user);
        std::mem::swap(&mut guest, &mut self.guests[at]);
        let knows = guest.wants_all();
        let now = &mut self.guests[at];
        (now.view, now.position) = (guest.view, guest.position.filter(|_| knows));
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
                Heard::Close(code, reason) => panic!("{} is closed: {code:?} {reason}", self.guests[at].user),
            }
        }
    }

    fn hear(&mut self, at: usize, payload: &[u8]) {
        self.trace.note(payload, || format!("{} hears {}", self.guests[at].user, String::from_utf8_lossy(payload)));
        let message: Value = serde_json::from_slice(payload).expect("the server sends JSON");
        match (message["type"].as_str().unwrap_or_default(), message["id"].as_str()) {
            ("welcome", _) => self.guests[at].is_open = true,
            ("room_msg", _) => self.hear_update(at, &message),
            ("joined", Some("joined")) => self.hear_joined(at, &message),
            ("ack", Some("tuned")) => {
                self.tally.count("terms were changed");
                let guest = &mut self.guests[at];
                guest.items = guest.tunes.remove(0);
                let items = guest.items.clone();
                guest.view.retain(|item, _| wants(&items, item));
                self.note_position(at, &message);
            }
            ("ack", Some("left")) => self.guests[at].membership = Membership::None,
            ("ack", None) if message.get("stale").is_some() => self.tally.count("an update was stale"),
            ("gap", _) => {
                self.tally.count("a gap was told");
                let guest = &mut self.guests[at];
                guest.view.clear();
                guest.incoming.clear();
            }
            ("ack" | "system" | "stale" | "live", _) => {}
            ("error", _) => assert_eq!(message["code"], "too_many_items", "{message}"),
            _ => panic!("{} hears {message}", self.guests[at].user),
        }
    }

    fn hear_update(&mut self, at: usize, message: &Value) {
        let item = message["item"].as_str().expect("it has a name").to_owned();
        let number = |field: &str| message[field].as_u64().expect("it is a number");
        let known = (number("seq"), number("offset"), message.get("content").map(ToString::to_string));
        let guest = &mut self.guests[at];
        let is_wanted = wants(&guest.items, &item) || guest.tunes.iter().any(|items| wants(items, &item));
        assert!(is_wanted, "{} does not want {item}", guest.user);
        let view = match guest.membership {
            Membership::Joining => &mut guest.incoming,
            Membership::None | Membership::Member | Membership::Leaving => &mut guest.view,
        };
        if let Some(before) = view.get(&item) {
            assert!(before.1 <= known.1, "{} was sent an older value of {item}", guest.user);
            // An item that was removed and forgotten begins again, above the room's offset.
            if known.0 > before.0 + 1 && before.2.is_some() {
                assert!(guest.mode == "latest" || !guest.tunes.is_empty(), "{} misses updates of {item}", guest.user);
                self.tally.count("an update was left out");
            }
        }
        if known.2.is_none() {
            self.tally.count("an item was removed");
        }
        if let Some(next) = guest.next_offset {
            assert_eq!(next, known.1, "{} is sent every update, once", guest.user);
            guest.next_offset = Some(next + 1);
        }
        view.insert(item, known);
        self.note_position(at, message);
    }

    fn hear_joined(&mut self, at: usize, message: &Value) {
        self.tally.count("a join was answered");
        let guest = &mut self.guests[at];
        let incoming = std::mem::take(&mut guest.incoming);
        match message.get("recovered").and_then(Value::as_bool) {
            Some(true) => {
                self.tally.count("a position was resumed");
                let items = guest.items.clone();
                guest.view.retain(|item, _| wants(&items, item));
                guest.view.extend(incoming);
            }
            Some(false) => {
                self.tally.count("a position could not be resumed");
                guest.view = incoming;
            }
            None => guest.view = incoming,
        }
        guest.membership = Membership::Member;
        guest.position = None;
        let offset = message["offset"].as_u64().expect("it has an offset");
        guest.next_offset = (guest.mode == "all" && guest.wants_all()).then_some(offset + 1);
        let epoch = message["epoch"].as_str().expect("it has an epoch").to_owned();
        guest.position = Some((epoch, offset));
    }

    fn note_position(&mut self, at: usize, message: &Value) {
        let offset = message["offset"].as_u64().expect("it has an offset");
        if let Some((_, position)) = &mut self.guests[at].position {
            *position = offset.max(*position);
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
        let truth = &self.guests[WITNESS].view;
        for guest in self.guests.iter().filter(|guest| guest.membership == Membership::Member) {
            assert!(guest.tunes.is_empty(), "{} is told of all changes", guest.user);
            for (item, (seq, offset, content)) in truth {
                match guest.view.get(item) {
                    _ if !wants(&guest.items, item) => {}
                    Some(known) => assert_eq!(known, &(*seq, *offset, content.clone()), "{} knows {item}", guest.user),
                    None => assert_eq!(content, &None, "{} has never heard of {item}", guest.user),
                }
            }
        }
    }
}
