//! A keyed room on a whole node: any interleaving of updates, lists, removals and versions with subscribers that join in any
//! way, change what they want, read little, leave, and come back.
//!
//! Several reactors run in one thread over the simulated driver. One publisher sends what the input says, so that its answers
//! tell what the list of all updates is (`model`). Subscribers keep values as a client does
//! ([`fanfare_simulated::keyed`]).
//!
//! - Every answer to the publisher is the list's: offset, what was stale, what found no room and which of it.
//! - Every update that anybody is sent stands in the list, at its offset, with the count that its item has there.
//! - Nobody is sent a value older than one before, or one twice, or what it does not want; in mode `all` nothing is left
//!   out.
//! - At rest every command is answered, and every member has the newest value of each item that it wants.
//! - After every turn the worker's tables agree with each other, and workers are turned only where they have a reason.
//! - When all have gone, no connection and no byte is left of them.
//!
//! Input: [`fanfare_seeds::market`]. With `FUZZ_WORDS` set, a replay tells in words what happens.

#![no_main]

mod model;

use std::sync::Arc;

use fanfare::conn::MessageLimits;
use fanfare::reactor::Settings;
use fanfare::router::{
    HistoryPolicy, HistorySettings, KeyedPolicy, KeyedRooms, KeyedSettings, RoomPolicies, RouterSettings,
};
use fanfare_seeds::market::{Kind, Market, Room, Step, Terms};
use fanfare_simulated::end::{End, Heard, TEXT};
use fanfare_simulated::keyed::{Change, Known, Membership, Subscriber, Wanted};
use fanfare_simulated::node::{Make, Node, calm, link};
use libfuzzer_sys::fuzz_target;
use model::{Command, Model, Update};
use serde_json::{Value, json};

const ROOM: &str = "px";

/// Subscribers, who are there from the start.
const GUESTS: usize = 4;

/// Names of items: two beginnings, four of each.
const ITEMS: u8 = 8;

/// In milliseconds.
const INTERVALS: [u64; 4] = [0, 5, 50, 200];

/// Tunes of one subscriber that are not answered; more are not sent.
const TUNES_MAX: usize = 6;

/// Rests in a script; more are left out, since they take long.
const RESTS_MAX: u32 = 6;

/// Bytes of answers beyond a connection's share: a snapshot's piece.
const ANSWERS_BYTES_MAX: usize = 1 << 20;

/// More than the largest batch.
const MESSAGE_BYTES_MAX: usize = 1 << 16;

/// Rounds in which the network must come to rest.
const ROUNDS_MAX: usize = 100_000;

/// A sleeper whose time comes this soon is waited for before the network counts as resting: longer than any interval.
const REST_MS: u64 = 250;

/// Longer than any lingering close.
const FAREWELL_MS: u64 = 10_000;

fuzz_target!(|input: &[u8]| {
    let market = Market::read(input);
    let mut run = Run::new(&market);
    for (turns, step) in &market.steps {
        run.step(step);
        run.node.some_turns(usize::from(*turns));
    }
    run.rest();
    run.all_leave();
});

/// A subscriber and its connection.
struct Guest {
    end: End,
    is_open: bool,
    subscriber: Subscriber,
    /// What it was sent and nobody has looked up in the list.
    heard: Vec<(String, Known)>,
}

/// A node, its room, and who is there.
struct Run {
    room: Room,
    node: Node,
    publisher: End,
    guests: Vec<Guest>,
    model: Model,
    content: u64,
    rests: u32,
    in_words: bool,
}

impl Run {
    fn new(market: &Market) -> Run {
        let room = market.room;
        let make = Make {
            reactors: market.reactors,
            seed: market.seed,
            small_mailboxes: room.small_mailboxes,
            answers_bytes_max: ANSWERS_BYTES_MAX,
        };
        let policy = policy(room);
        let mut node = Node::new(make, &settings(room, policy));
        let publisher = connect(&mut node, 0, 0, "publisher");
        let guests = (0..GUESTS).map(|at| {
            let name = format!("guest{at}");
            Guest {
                end: connect(&mut node, at as u8, at as u8, &name),
                is_open: false,
                subscriber: Subscriber::new(&name, ROOM, room.keeps_history),
                heard: Vec::new(),
            }
        });
        let guests = guests.collect();
        // A room remembers as many removals as it has places for items.
        let model = Model::new(policy.items_max as usize, room.forgets || room.few_items);
        let in_words = std::env::var_os("FUZZ_WORDS").is_some();
        let mut run = Run { room, node, publisher, guests, model, content: 0, rests: 0, in_words };
        run.come_to_rest();
        run
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
            Step::Publish(update) => self.publish(&[*update], false, false),
            Step::Batch { replace, updates } => self.publish(updates, true, *replace),
            Step::Join { guest, terms, resumes } => self.join(at(*guest), *terms, *resumes),
            Step::Tune { guest, terms } => self.tune(at(*guest), *terms),
            Step::Leave { guest } => self.leave(at(*guest)),
            Step::Return { guest, reactor, way } => self.come_back(at(*guest), *reactor, *way),
            Step::Read { guest, amount } => {
                self.read(at(*guest), if *amount == 0 { usize::MAX } else { usize::from(*amount) * 16 });
            }
            Step::Pass { ms } => self.node.world.pass(u64::from(*ms) * if self.room.jumpy { 50 } else { 1 }),
            Step::Turn { reactor } => self.node.turn(usize::from(*reactor) % self.node.reactors()),
            Step::Rest if self.rests < RESTS_MAX => {
                self.rests += 1;
                self.rest();
            }
            Step::Rest => {}
        }
    }

    fn publish(&mut self, updates: &[fanfare_seeds::market::Update], is_list: bool, replaces: bool) {
        let updates: Vec<Update> = updates.iter().map(|update| self.update(*update)).collect();
        let mut command = match (is_list, updates.first()) {
            (false, Some(update)) => {
                let mut command = written(update);
                command["type"] = json!("room_msg");
                command
            }
            _ => {
                let list: Vec<Value> = updates.iter().map(written).collect();
                json!({"type": "room_msgs", "updates": list, "replace": replaces})
            }
        };
        (command["roomId"], command["id"]) = (json!(ROOM), json!(self.content));
        self.model.ask(Command { updates, is_list, replaces });
        self.note(|| format!("the publisher says {command}"));
        say(&mut self.publisher, &mut self.node, &command);
    }

    fn update(&mut self, update: fanfare_seeds::market::Update) -> Update {
        self.content += 1;
        let content = json!([self.content, "x".repeat(update.padding())]).to_string();
        let version = Some(i64::from(update.version));
        let (content, version) = match update.kind() {
            Kind::Value => (Some(content), None),
            Kind::Versioned => (Some(content), version),
            Kind::Removal => (None, None),
            Kind::VersionedRemoval => (None, version),
        };
        Update { item: item_name(update.item), content, version }
    }

    fn say(&mut self, at: usize, command: &Value) {
        self.note(|| format!("{} says {command}", self.guests[at].subscriber.name));
        say(&mut self.guests[at].end, &mut self.node, command);
    }

    fn join(&mut self, at: usize, terms: Terms, resumes: bool) {
        let guest = &mut self.guests[at];
        if guest.is_open && guest.subscriber.membership() == Membership::None {
            let command = guest.subscriber.join(wanted(terms), resumes);
            // What came in another epoch has to be looked up before.
            self.look_up(at);
            self.say(at, &command);
        }
    }

    fn tune(&mut self, at: usize, terms: Terms) {
        let subscriber = &mut self.guests[at].subscriber;
        if subscriber.membership() == Membership::Member && subscriber.tunes() < TUNES_MAX {
            let Wanted { mode, interval, items } = wanted(terms);
            let is_given = |bit: u8| terms.bits >> bit & 1 == 0;
            let command = subscriber.tune(Change {
                mode: is_given(3).then_some(mode),
                interval: is_given(4).then_some(interval),
                items: is_given(5).then_some(items),
            });
            self.say(at, &command);
        }
    }

    fn leave(&mut self, at: usize) {
        let subscriber = &mut self.guests[at].subscriber;
        if subscriber.membership() == Membership::Member && subscriber.tunes() == 0 {
            let command = subscriber.leave();
            self.say(at, &command);
        }
    }

    fn come_back(&mut self, at: usize, reactor: u8, way: u8) {
        self.node.world.close(self.guests[at].end.client);
        let guest = &mut self.guests[at];
        guest.subscriber.lose();
        (guest.end, guest.is_open) = (connect(&mut self.node, reactor, way, &guest.subscriber.name), false);
    }

    /// A subscriber reads; whether there was anything.
    fn read(&mut self, at: usize, bytes_max: usize) -> bool {
        let bytes = self.node.world.receive(self.guests[at].end.client, bytes_max);
        for message in messages(&mut self.guests[at].end, &bytes) {
            self.note(|| format!("{} hears {message}", self.guests[at].subscriber.name));
            let guest = &mut self.guests[at];
            match message["type"].as_str() {
                Some("welcome") => guest.is_open = true,
                Some("room_msg") => {
                    guest.heard.push(Known::of(&message));
                    guest.subscriber.hear(&message, |_| {});
                }
                _ => guest.subscriber.hear(&message, |_| {}),
            }
        }
        !bytes.is_empty()
    }

    /// The publisher reads; whether there was anything.
    fn read_answers(&mut self) -> bool {
        let bytes = self.node.world.receive(self.publisher.client, usize::MAX);
        for message in messages(&mut self.publisher, &bytes) {
            self.note(|| format!("the publisher hears {message}"));
            if message["type"] != "welcome" {
                self.model.hear_answer(&message);
            }
        }
        !bytes.is_empty()
    }

    /// Everything said arrives, everything sent is read, every worker with a reason turns; then all is judged.
    fn rest(&mut self) {
        self.come_to_rest();
        self.note(|| "all rests".into());
        assert_eq!(self.model.asked(), 0, "every command is answered");
        self.node.check_at_rest();
        for at in 0..GUESTS {
            self.look_up(at);
        }
        for guest in &self.guests {
            let is_member = guest.subscriber.membership() == Membership::Member;
            let truth = guest.subscriber.epoch().filter(|_| is_member).map(|epoch| self.model.newest_of(epoch));
            guest.subscriber.judge(&truth.unwrap_or_default());
        }
    }
}

impl Run {
    fn come_to_rest(&mut self) {
        for _ in 0..ROUNDS_MAX {
            let mut is_busy = self.read_answers();
            for at in 0..GUESTS {
                is_busy |= self.read(at, usize::MAX);
            }
            is_busy |= self.node.turn_all();
            if !is_busy && !self.node.pass_to_next(REST_MS) {
                return;
            }
        }
        panic!("the node does not come to rest");
    }

    /// What a subscriber was sent stands in the list, as far as it knows in which.
    fn look_up(&mut self, at: usize) {
        let guest = &mut self.guests[at];
        let heard = std::mem::take(&mut guest.heard);
        if let Some(epoch) = guest.subscriber.epoch() {
            heard.iter().for_each(|(item, known)| self.model.hear_update(epoch, item, known));
        }
    }

    /// Everybody goes, and nothing may be left of them.
    fn all_leave(&mut self) {
        self.node.world.close(self.publisher.client);
        self.guests.iter().for_each(|guest| self.node.world.close(guest.end.client));
        while self.node.turn_all() {}
        self.node.world.pass(FAREWELL_MS);
        while self.node.turn_all() {}
        for (at, worker) in self.node.workers() {
            let inside = worker.inside();
            assert_eq!((inside.connections, inside.held_bytes), (0, 0), "reactor {at}: all are gone");
        }
        self.node.check_places(0);
    }
}

/// A connection to a reactor over this sort of way, which has asked for its upgrade.
fn connect(node: &mut Node, reactor: u8, way: u8, user: &str) -> End {
    let reactor = usize::from(reactor) % node.reactors();
    let mut end = End::new(node.world.connect(reactor, link(way)));
    end.ask_upgrade(&format!("/?userId={user}"), &mut node.dice);
    end.flush(&node.world, usize::MAX);
    end
}

fn say(end: &mut End, node: &mut Node, command: &Value) {
    end.say(TEXT, command.to_string().as_bytes(), 1, None, &mut node.dice);
    end.flush(&node.world, usize::MAX);
}

/// The messages that became whole.
fn messages(end: &mut End, bytes: &[u8]) -> Vec<Value> {
    let mut messages = Vec::new();
    end.take(bytes, |heard| match heard {
        Heard::Status(status) => assert_eq!(status, 101),
        Heard::Message(_, payload) => {
            messages.push(serde_json::from_slice(&payload).expect("the server sends JSON"));
        }
        Heard::Ping(_) | Heard::Pong(_) | Heard::Close(..) => panic!("nobody is pinged or closed: {heard:?}"),
    });
    messages
}

fn at(guest: u8) -> usize {
    usize::from(guest) % GUESTS
}

fn item_name(item: u8) -> String {
    let item = item % ITEMS;
    format!("{}{}", if item < ITEMS / 2 { 'a' } else { 'b' }, item % (ITEMS / 2))
}

fn wanted(terms: Terms) -> Wanted {
    let named = (0..ITEMS).filter(|bit| terms.names >> bit & 1 == 1).map(item_name);
    let items = match terms.filter % 4 {
        0 | 1 => vec!["*".to_owned()],
        2 => named.collect(),
        _ => named.take(1).chain(["b*".to_owned()]).collect(),
    };
    let mode = if terms.bits & 1 == 1 { "latest" } else { "all" };
    Wanted { mode, interval: INTERVALS[usize::from(terms.bits >> 1) % INTERVALS.len()], items }
}

/// An update as its publisher writes it.
fn written(update: &Update) -> Value {
    let mut written = json!({"item": update.item});
    match &update.content {
        Some(content) => written["content"] = serde_json::from_str(content).expect("JSON of ours"),
        None => written["remove"] = json!(true),
    }
    if let Some(version) = update.version {
        written["version"] = json!(version);
    }
    written
}

fn policy(room: Room) -> KeyedPolicy {
    KeyedPolicy {
        items_max: if room.few_items { 4 } else { 100 },
        bytes_max: 1 << 20,
        ttl_ms: None,
        removed_ttl_ms: if room.forgets { 50 } else { 1 << 40 },
        stale_after_ms: room.gets_stale.then_some(100),
    }
}

fn settings(room: Room, policy: KeyedPolicy) -> Settings {
    let calm = calm();
    let keyed = KeyedSettings {
        rooms: Some(KeyedRooms(Arc::new(move |_: &str| Some(policy)))),
        node_items_max: 1 << 20,
        node_bytes_max: 1 << 30,
        subscription_bytes_max: 1 << 16,
    };
    let kept = HistoryPolicy { messages_max: 10, ttl_ms: 1 << 40 };
    let history = match room.keeps_history {
        true => HistorySettings {
            rooms: Some(RoomPolicies(Arc::new(move |_: &str| Some(kept)))),
            bytes_max: 1 << 24,
            pinned_bytes_max: 1 << 24,
            ..HistorySettings::none()
        },
        false => HistorySettings::none(),
    };
    let message = MessageLimits { bytes_max: MESSAGE_BYTES_MAX, ..calm.message };
    Settings { message, router: RouterSettings { keyed, history, ..calm.router.clone() }, ..calm }
}
