//! Keyed rooms in a cluster under a seed: subscribers of every mode on all nodes, publishers, and trouble. What Redis has
//! in the end is what all subscribers have to show; on the way none may be shown a value older than one before.

use std::collections::BTreeMap;

use fanfare::router::ItemState;
use fanfare_simulated::end::{End, Heard, TEXT};
use fanfare_simulated::seeds::Outcome;
use fanfare_simulated::trace::Trace;
use serde_json::{Value, json};

use super::plan::{Plan, WIDE};
use super::run::{FORGOTTEN_MS, HEALED_MS, Run};
use super::said::PREFIX;

/// Everything that is to come up in a usual sweep.
pub const EXPECTED: [&str; 21] = [
    "a snapshot came",
    "a position was resumed",
    "a position could not be resumed",
    "an update came",
    "an update was left out",
    "an item was removed",
    "an update was stale",
    "an update was refused",
    "a command was refused as unavailable",
    "a gap was told in an epoch",
    "a gap was told into another epoch",
    "a subscriber came back",
    "a rest showed the newest values",
    "a join showed what was acked before",
    "a connection was lost",
    "a connection fell silent",
    "Redis was paused",
    "Redis was restarted",
    "another server became the primary",
    "a node stalled",
    "a node died",
];

/// One keeps history too.
const ROOMS: [&str; 2] = ["px.a", "kept.px"];
const ITEMS: usize = 8;
const GUESTS: usize = 8;
/// So many of them only publish: nobody who gets every update gets its own.
const PUBLISHERS: usize = 2;
const ROUNDS_MAX: usize = 100_000;
/// Within so long behind all trouble items have gone that nobody updates, and rounds have told of it, in milliseconds.
const CALM_MS: u64 = 4_000;

/// Seq and offset of an item, and whether it has a value.
type Known = (u64, u64, bool);

/// What a subscriber knows of the room that it is in.
#[derive(Debug, Default)]
struct View {
    room: &'static str,
    is_latest: bool,
    is_joined: bool,
    epoch: String,
    items: BTreeMap<String, Known>,
    /// Of one that gets every update: the offset of the next, where it is known.
    next_offset: Option<u64>,
    /// Whether what it knows may lack something, as it was told.
    lacks_some: bool,
    /// The highest offset that it has seen.
    position: u64,
    /// What it knew of before, and has asked for the changes of.
    held: BTreeMap<String, Known>,
    acked_before: Option<(String, u64)>,
}

struct Guest {
    user: String,
    node: usize,
    node_at: usize,
    end: End,
    is_open: bool,
    view: Option<View>,
    /// Whether it has asked to leave the room.
    leaves: bool,
    /// Rooms and positions that it had before.
    memory: Option<View>,
}

struct Market {
    run: Run,
    guests: Vec<Guest>,
    content: u64,
    /// Of each room the newest that was acked.
    acked: BTreeMap<&'static str, (String, u64)>,
    /// How often all data had been deleted when everything rested.
    flushes: u64,
}

/// Runs a seed.
pub fn run(seed: u64, in_words: bool) -> Outcome {
    let plan = Plan { inbox_policy: None, ..Plan::of(seed ^ 0x4B45_5945) };
    let steps = plan.steps / 2;
    let mut market = Market {
        run: Run::new(plan, Trace::new(in_words), &EXPECTED),
        guests: Vec::new(),
        content: 0,
        acked: BTreeMap::new(),
        flushes: 0,
    };
    for at in 0..GUESTS {
        let guest = market.connect(&format!("user{at}"));
        market.guests.push(guest);
    }
    for _ in 0..steps {
        market.step();
    }
    market.rest();
    market.all_leave();
    Outcome { hash: market.run.trace.hash(), tally: market.run.tally }
}

impl Market {
    fn connect(&mut self, user: &str) -> Guest {
        let node = self.run.random.usize(0..self.run.nodes.len());
        let reactor = self.run.random.usize(0..self.run.plan.reactors);
        let world = &self.run.nodes[node].seats.world;
        let mut end = End::new(world.connect(reactor, WIDE));
        end.ask_upgrade(&format!("/?userId={user}"), &mut self.run.random);
        let node_at = self.run.nodes[node].at;
        Guest { user: user.to_owned(), node, node_at, end, is_open: false, view: None, leaves: false, memory: None }
    }

    fn step(&mut self) {
        if self.run.one_in(self.run.plan.rest_one_in) {
            self.rest();
        }
        self.mourn();
        let at = self.run.random.usize(0..GUESTS);
        match self.run.random.usize(0..100) {
            0..12 => self.publish(at % PUBLISHERS),
            12..20 => self.act(at),
            20..40 => {
                self.flush(at);
                self.read(at);
            }
            _ => self.run.step_without_guests(),
        }
    }

    /// Whose node has died comes back to another.
    fn mourn(&mut self) {
        for at in 0..self.guests.len() {
            if self.run.nodes[self.guests[at].node].at != self.guests[at].node_at {
                self.replace(at);
            }
        }
    }

    fn replace(&mut self, at: usize) {
        self.run.tally.count("a subscriber came back");
        let user = self.guests[at].user.clone();
        let new = self.connect(&user);
        let old = std::mem::replace(&mut self.guests[at], new);
        // Who is answered knows where it is.
        let view = old.view.filter(|view| view.is_joined && !view.lacks_some);
        self.guests[at].memory = view.or(old.memory);
    }

    fn say(&mut self, at: usize, command: &Value) {
        let text = command.to_string();
        self.run.trace.note(text.as_bytes(), || format!("{} says {text}", self.guests[at].user));
        self.guests[at].end.say(TEXT, text.as_bytes(), 1, None, &mut self.run.random);
    }

    fn update(&mut self) -> Value {
        self.content += 1;
        let random = &mut self.run.random;
        let item = format!("I{}", random.usize(0..ITEMS));
        match random.usize(0..8) {
            0 => json!({"type": "room_msg", "item": item, "remove": true}),
            1 => json!({"type": "room_msg", "item": item, "content": self.content, "version": random.i64(-2..3)}),
            _ => json!({"type": "room_msg", "item": item, "content": self.content}),
        }
    }

    fn publish(&mut self, at: usize) {
        if !self.guests[at].is_open {
            return;
        }
        let room = ROOMS[self.run.random.usize(0..ROOMS.len())];
        let mut command = match self.run.random.bool() {
            true => self.update(),
            false => {
                let updates: Vec<Value> = (0..self.run.random.usize(0..5)).map(|_| self.update()).collect();
                let replace = self.run.random.usize(0..12) == 0;
                json!({"type": "room_msgs", "updates": updates, "replace": replace})
            }
        };
        if self.run.random.usize(0..4) == 0 {
            command["key"] = json!(format!("k{}", self.run.random.usize(0..30)));
        }
        self.publish_into(at, room, command);
    }

    fn publish_into(&mut self, at: usize, room: &str, mut command: Value) {
        (command["roomId"], command["id"]) = (json!(room), json!(room));
        self.say(at, &command);
    }

    fn act(&mut self, at: usize) {
        if !self.guests[at].is_open {
            return;
        }
        match (self.run.random.usize(0..6), &self.guests[at].view) {
            (0..4, None) if at >= PUBLISHERS => self.join(at),
            (0, Some(view)) if view.is_joined && !self.guests[at].leaves => {
                let room = view.room;
                self.guests[at].leaves = true;
                self.say(at, &json!({"type": "leave_room", "roomId": room, "id": "left"}));
            }
            (1, view) if view.is_some() || at < PUBLISHERS => {
                let Guest { node, ref end, .. } = self.guests[at];
                self.run.nodes[node].seats.world.close(end.client);
                self.replace(at);
            }
            _ => {}
        }
    }

    fn join(&mut self, at: usize) {
        let room = ROOMS[self.run.random.usize(0..ROOMS.len())];
        let is_latest = self.run.random.usize(0..3) > 0;
        let mode = if is_latest { "latest" } else { "all" };
        let interval = [0, 20, 200][self.run.random.usize(0..3)];
        let mut command =
            json!({"type": "join_room", "roomId": room, "id": "joined", "mode": mode, "interval": interval});
        let mut view = View { room, is_latest, acked_before: self.acked.get(room).cloned(), ..View::default() };
        let memory = self.guests[at].memory.take().filter(|memory| memory.room == room);
        match memory {
            // History answers in mode `all`, message by message.
            Some(memory) if is_latest || room == ROOMS[0] => {
                command["since"] = json!({"epoch": memory.epoch, "offset": memory.position});
                view.held = memory.items;
            }
            _ => command["snapshot"] = json!(true),
        }
        self.guests[at].view = Some(view);
        self.say(at, &command);
    }

    fn flush(&mut self, at: usize) -> bool {
        let bytes = self.run.random.usize(1..=600);
        let Guest { node, ref mut end, .. } = self.guests[at];
        let is_owed = end.unsent() > 0;
        if is_owed {
            end.flush(&self.run.nodes[node].seats.world, bytes);
        }
        is_owed
    }

    fn read(&mut self, at: usize) -> bool {
        let world = &self.run.nodes[self.guests[at].node].seats.world;
        let bytes = world.receive(self.guests[at].end.client, usize::MAX);
        let mut heard = Vec::new();
        self.guests[at].end.take(&bytes, |what| heard.push(what));
        for heard in heard {
            match heard {
                Heard::Status(status) => assert_eq!(status, 101),
                Heard::Message(_, payload) => self.hear(at, &payload),
                Heard::Ping(payload) => self.guests[at].end.pong(&payload, &mut self.run.random),
                Heard::Pong(_) => {}
                Heard::Close(code, reason) => panic!("{} is closed: {code:?} {reason}", self.guests[at].user),
            }
        }
        !bytes.is_empty()
    }

    fn hear(&mut self, at: usize, payload: &[u8]) {
        self.run.trace.note(payload, || format!("{} hears {}", self.guests[at].user, String::from_utf8_lossy(payload)));
        let message: Value = serde_json::from_slice(payload).expect("the server sends JSON");
        match (message["type"].as_str().unwrap_or_default(), message["id"].as_str()) {
            ("welcome", _) => self.guests[at].is_open = true,
            ("room_msg", _) => self.hear_update(at, &message),
            ("joined", _) => self.hear_joined(at, &message),
            ("ack", Some("left")) => (self.guests[at].view, self.guests[at].leaves) = (None, false),
            ("ack", Some(room)) => self.hear_ack(room, &message),
            ("gap", _) => self.hear_gap(at, &message),
            ("error", Some("joined")) => {
                assert_eq!(message["code"], "unavailable", "{message}");
                self.run.tally.count("a command was refused as unavailable");
                self.guests[at].view = None;
            }
            ("error", _) if message["code"] == "unavailable" => {
                self.run.tally.count("a command was refused as unavailable");
            }
            ("error", _) => {
                assert_eq!(message["code"], "too_many_items", "{message}");
                self.run.tally.count("an update was refused");
            }
            ("system", _) => {}
            _ => panic!("{} hears {message}", self.guests[at].user),
        }
    }

    fn hear_ack(&mut self, room: &str, message: &Value) {
        if message.get("stale").is_some_and(|stale| *stale != json!([])) {
            self.run.tally.count("an update was stale");
        }
        let room = ROOMS.into_iter().find(|known| *known == room).expect("a room of ours");
        let (epoch, offset) = position(message);
        let newest = self.acked.entry(room).or_default();
        if newest.0 != epoch || newest.1 < offset {
            *newest = (epoch, offset);
        }
    }

    fn hear_update(&mut self, at: usize, message: &Value) {
        self.run.tally.count("an update came");
        let Guest { ref user, ref mut view, .. } = self.guests[at];
        let view = view.as_mut().expect("who hears of updates is in a room, or about to be");
        let number = |field: &str| message[field].as_u64().expect("it is a number");
        let (seq, offset) = (number("seq"), number("offset"));
        let has_value = message.get("removed").is_none();
        let item = message["item"].as_str().expect("it has a name").to_owned();
        if !has_value {
            self.run.tally.count("an item was removed");
        }
        if let Some(next) = view.next_offset {
            assert_eq!(next, offset, "{user} is sent every update, once");
            view.next_offset = Some(next + 1);
        }
        view.position = view.position.max(offset);
        let before = view.items.insert(item, (seq, offset, has_value));
        if let Some(before) = before {
            assert!(before.1 < offset, "{user} was sent an older value: {message} behind {before:?}");
            if seq > before.0 + 1 && before.2 {
                assert!(view.is_latest || view.lacks_some, "{user} misses updates: {message} behind {before:?}");
                self.run.tally.count("an update was left out");
            }
        }
    }

    fn hear_joined(&mut self, at: usize, message: &Value) {
        let (epoch, offset) = position(message);
        let Guest { ref user, ref mut view, .. } = self.guests[at];
        let view = view.as_mut().expect("it has asked");
        match message["recovered"].as_bool() {
            Some(true) => {
                self.run.tally.count("a position was resumed");
                let changed = std::mem::replace(&mut view.items, std::mem::take(&mut view.held));
                view.items.extend(changed);
            }
            Some(false) => self.run.tally.count("a position could not be resumed"),
            None => self.run.tally.count("a snapshot came"),
        }
        if let Some((acked_epoch, acked)) = &view.acked_before
            && *acked_epoch == epoch
        {
            assert!(offset >= *acked, "{user}: what was acked is in a later snapshot: {message}, {acked}");
            self.run.tally.count("a join showed what was acked before");
        }
        (view.is_joined, view.epoch, view.position) = (true, epoch, offset);
        view.next_offset = (!view.is_latest).then_some(offset + 1);
    }

    fn hear_gap(&mut self, at: usize, message: &Value) {
        let (epoch, offset) = position(message);
        let view = self.guests[at].view.as_mut().expect("it is in a room, or about to be");
        let is_same = epoch == view.epoch;
        self.run.tally.count(match is_same {
            true => "a gap was told in an epoch",
            false => "a gap was told into another epoch",
        });
        view.items.clear();
        // Who gets rounds is sent everything anew; others would have to ask.
        view.lacks_some = !view.is_latest;
        view.next_offset = (!view.is_latest && view.is_joined).then_some(offset + 1);
        (view.epoch, view.position) = (epoch, offset);
    }

    /// No more trouble until everything has come to rest; then all is judged.
    fn rest(&mut self) {
        self.run.trace.note(b"rest", || "resting".into());
        self.run.clear_up();
        self.come_to_rest(HEALED_MS + CALM_MS);
        // What was deleted under a server that goes on is noticed by who reads or publishes next.
        if std::mem::replace(&mut self.flushes, self.run.weather.flushes) < self.run.weather.flushes {
            for room in ROOMS {
                let update = self.update();
                self.publish_into(PUBLISHERS - 1, room, update);
            }
            self.come_to_rest(CALM_MS);
        }
        self.judge();
        self.run.is_calm = true;
    }

    fn come_to_rest(&mut self, ms: u64) {
        let until = self.run.now.saturating_add(ms);
        for _ in 0..ROUNDS_MAX {
            self.mourn();
            let mut is_busy = false;
            for at in 0..self.guests.len() {
                is_busy |= self.flush(at);
                is_busy |= self.read(at);
            }
            is_busy |= self.run.do_all();
            if is_busy {
                continue;
            }
            if self.run.now >= until && self.run.is_quiet() {
                return;
            }
            let due = self.run.next_due().unwrap_or(until).max(self.run.now.saturating_add(1));
            self.run.pass(due.since(self.run.now));
        }
        panic!("everything works again, and does not come to rest");
    }

    fn judge(&mut self) {
        for node in &self.run.nodes {
            node.check_at_rest();
        }
        for guest in &self.guests {
            let Some(view) = guest.view.as_ref() else { continue };
            assert!(view.is_joined, "{} is answered", guest.user);
            let channel = format!("{PREFIX}:room:{{{}}}", view.room);
            let server = self.run.redis.primary().expect("it runs");
            let (truth, end) = (server.items(&channel), server.end(&channel));
            let end = end.map_or((String::new(), 0), |(epoch, offset)| (epoch.to_string(), *offset));
            assert_eq!(view.epoch, end.0, "{}: the epoch that it was told of", guest.user);
            if let Some(next) = view.next_offset {
                assert_eq!(next, end.1 + 1, "{} has every update", guest.user);
            }
            if view.lacks_some {
                continue;
            }
            for (item, (offset, seq, state)) in &truth {
                let known = view.items.get(item).copied();
                match (state, known) {
                    (ItemState::Removed, None) => {}
                    _ => {
                        assert_eq!(known, Some((*seq, *offset, *state == ItemState::Present)), "{}: {item}", guest.user)
                    }
                }
            }
            let shown = view.items.iter().filter(|(item, known)| known.2 && !truth.contains_key(*item));
            assert_eq!(shown.count(), 0, "{} shows what is not there", guest.user);
            self.run.tally.count("a rest showed the newest values");
        }
    }

    fn all_leave(&mut self) {
        for at in 0..self.guests.len() {
            let Guest { node, ref end, .. } = self.guests[at];
            self.run.nodes[node].seats.world.close(end.client);
        }
        self.guests.clear();
        self.come_to_rest(FORGOTTEN_MS);
        for node in &self.run.nodes {
            for (reactor, worker) in node.seats.workers() {
                let inside = worker.inside();
                assert_eq!((inside.topics, inside.connections), (1, 0), "node {}, reactor {reactor}", node.at);
            }
            assert_eq!(node.thread.core.counts().feeds, 0, "node {} follows topics for nobody", node.at);
            assert_eq!(node.thread.core.counts().unreadable, 0, "node {}: all that was said can be read", node.at);
        }
    }
}

fn position(message: &Value) -> (String, u64) {
    let epoch = message["epoch"].as_str().unwrap_or_else(|| panic!("an epoch in {message}"));
    (epoch.to_owned(), message["offset"].as_u64().unwrap_or_else(|| panic!("an offset in {message}")))
}
