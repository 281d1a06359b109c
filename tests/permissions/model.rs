//! What clients do, and what has to come of it.

use std::collections::{BTreeMap, BTreeSet};

use fanfare::reactor::sim::{Client, Link};
use fanfare_simulated::end::{End, Heard, TEXT, upgrade_request};
use fanfare_simulated::tally::Tally;
use ring::rand::SystemRandom;
use serde_json::{Value, json};

use super::backend::may_join;
use super::{Decider, EXPIRING_BEFORE_MS, Node};

const USERS: usize = 6;
const ROOMS: usize = 5;
const CONNECTIONS: usize = 10;
const BATCHES: usize = 60;
const OPERATIONS: usize = 24;
const ROUNDS_MAX: usize = 100_000;

/// Where the world's Unix time begins.
const UNIX_MS_BEGIN: u64 = 1_700_000_000_000;

/// What a token allows.
#[derive(Clone, Debug)]
struct May {
    join: BTreeSet<usize>,
    publish: BTreeSet<usize>,
    presence: BTreeSet<usize>,
    private: bool,
    broadcast: bool,
}

struct Guest {
    end: End,
    user: usize,
    may: May,
    expires_ms: u64,
    /// The end of the token that is in force until a refresh is answered.
    before_ms: Option<u64>,
    is_open: bool,
    told: bool,
    closed: Option<u16>,
    rooms: BTreeSet<usize>,
    /// Rooms that it has asked to join or leave since the last rest, or was made to leave.
    touched: BTreeSet<usize>,
    /// Rooms that it may have been in at some moment since then.
    maybe: BTreeSet<usize>,
    /// What is to be answered, in any order between commands: by the command's id.
    owed: BTreeMap<u64, Vec<Owed>>,
    /// Rooms whose join may be overtaken, with the id of the join.
    joins: BTreeMap<usize, Vec<u64>>,
    left: BTreeSet<usize>,
    heard: BTreeMap<u64, usize>,
}

/// One answer.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Owed {
    Reply(&'static str),
    Error(&'static str),
    Joined(usize),
    /// Answered before the refresh with this id, or forbidden.
    JoinedOrForbidden(usize),
    ForbiddenRoom(usize),
    Refreshed {
        expires_ms: u64,
        leaves: BTreeSet<usize>,
        maybe: BTreeSet<usize>,
    },
}

/// Who is to hear a message.
#[derive(Debug)]
enum To {
    Room(usize),
    User(usize),
    Everyone,
    Nobody,
}

/// See the module's documentation.
pub struct Run<'a> {
    node: &'a mut Node,
    tally: &'a mut Tally,
    random: fastrand::Rng,
    guests: Vec<Guest>,
    said: Vec<(u64, usize, To)>,
    serial: u64,
    rng: SystemRandom,
}

impl<'a> Run<'a> {
    pub fn new(node: &'a mut Node, seed: u64, tally: &'a mut Tally) -> Run<'a> {
        let random = fastrand::Rng::with_seed(seed);
        Run { node, tally, random, guests: Vec::new(), said: Vec::new(), serial: 0, rng: SystemRandom::new() }
    }

    pub fn go(mut self) {
        for _ in 0..BATCHES {
            while self.guests.iter().filter(|guest| guest.is_open).count() < CONNECTIONS {
                self.log_in();
            }
            for _ in 0..self.random.usize(1..=OPERATIONS) {
                let open: Vec<usize> = (0..self.guests.len()).filter(|&at| self.guests[at].is_open).collect();
                let at = open[self.random.usize(..open.len())];
                // Some say much at once, and a refresh overtakes a join that is not confirmed yet.
                for _ in 0..self.random.choice([1, 1, 1, 6]).unwrap_or(1) {
                    self.act(at);
                }
                if self.random.bool() {
                    self.some_turn();
                }
            }
            self.come_to_rest();
            self.judge();
            self.let_time_pass();
        }
    }

    fn unix_ms(&self) -> u64 {
        UNIX_MS_BEGIN + self.node.seats.world.now().0
    }

    fn some(&mut self) -> BTreeSet<usize> {
        (0..ROOMS).filter(|_| self.random.u8(..4) > 0).collect()
    }

    fn may(&mut self) -> May {
        let (join, publish, presence) = (self.some(), self.some(), self.some());
        May { join, publish, presence, private: self.random.bool(), broadcast: self.random.bool() }
    }

    fn token(&self, user: usize, may: &May, expires_ms: u64) -> String {
        let rooms = |rooms: &BTreeSet<usize>| rooms.iter().map(|room| format!("r{room}")).collect::<Vec<_>>();
        let claims = json!({"sub": format!("u{user}"), "exp": expires_ms as f64 / 1_000.0, "fanfare": {
            "join": rooms(&may.join), "publish": rooms(&may.publish), "presence": rooms(&may.presence),
            "private": may.private, "broadcast": may.broadcast,
        }});
        self.node.signer.sign(None, &claims.to_string(), &self.rng).unwrap()
    }

    fn expires_ms(&mut self) -> u64 {
        // Whole milliseconds that a fraction of a second holds exactly.
        (self.unix_ms() / 500 + self.random.u64(20..200)) * 500
    }

    fn connect(&mut self) -> (Client, End) {
        let link = Link {
            socket_bytes_max: 1 << 20,
            read_bytes_max: [50, 5_000, 100_000][self.random.usize(..3)],
            send_bytes_max: [30, 3_000, 100_000][self.random.usize(..3)],
            short_writes: self.random.bool(),
        };
        let client = self.node.seats.world.connect(self.random.usize(..self.node.seats.reactors()), link);
        (client, End::new(client))
    }

    fn log_in(&mut self) {
        let (client, mut end) = self.connect();
        let (user, may, expires_ms) = (self.random.usize(..USERS), self.may(), self.expires_ms());
        let bad = match self.random.u8(..8) {
            0 => Some(String::new()),
            1 => Some(format!("{}x", self.token(user, &may, expires_ms))),
            2 => Some(self.token(user, &may, self.unix_ms().saturating_sub(1_000))),
            _ => None,
        };
        let token = bad.clone().unwrap_or_else(|| self.token(user, &may, expires_ms));
        let (target, more) = match self.random.u8(..3) {
            0 => (format!("/?userId=mallory&token={token}"), String::new()),
            1 => ("/ws?userId=mallory".into(), format!("Authorization: Bearer {token}\r\n")),
            _ => ("/".into(), format!("Sec-WebSocket-Protocol: fanfare.v1, bearer.{token}\r\n")),
        };
        end.say_raw(&upgrade_request(&target, &more));
        end.flush(&self.node.seats.world, usize::MAX);
        let mut status = None;
        let mut welcome = None;
        for _ in 0..ROUNDS_MAX {
            let bytes = self.node.seats.world.receive(client, usize::MAX);
            end.take(&bytes, |heard| match heard {
                Heard::Status(code) => status = Some(code),
                Heard::Message(TEXT, text) => {
                    let message: Value = serde_json::from_slice(&text).unwrap();
                    if message["type"] == "welcome" {
                        welcome = Some(message);
                    } else {
                        // Whoever has just come hears at most what is for everyone, or for its user.
                        assert!(message["type"] == "broadcast" || message["type"] == "private_msg", "{message}");
                    }
                }
                _ => {}
            });
            if welcome.is_some() || status.is_some_and(|status| status != 101) {
                break;
            }
            self.all_turn();
        }
        if bad.is_some() {
            assert_eq!(status, Some(401));
            self.tally.count("a login was refused");
            self.node.seats.world.close(client);
            return;
        }
        let welcome = welcome.unwrap_or_else(|| panic!("not welcomed: {status:?}"));
        assert_eq!(welcome["userId"], format!("u{user}"));
        self.guests.push(Guest {
            end,
            user,
            may,
            expires_ms,
            before_ms: None,
            is_open: true,
            told: false,
            closed: None,
            rooms: BTreeSet::new(),
            touched: BTreeSet::new(),
            maybe: BTreeSet::new(),
            owed: BTreeMap::new(),
            joins: BTreeMap::new(),
            left: BTreeSet::new(),
            heard: BTreeMap::new(),
        });
    }

    fn act(&mut self, at: usize) {
        self.serial += 1;
        let id = self.serial;
        let room = self.random.usize(..ROOMS);
        let name = format!("r{room}");
        let by_rule = self.joins_by_rule();
        let guest = &mut self.guests[at];
        let mut to = To::Nobody;
        let (command, owed) = match self.random.u8(..16) {
            0..3 => (json!({"type": "join_room", "roomId": name}), vec![guest.join(room, id, by_rule)]),
            3 => self.join_many(at, id),
            4 => {
                guest.rooms.remove(&room);
                guest.touched.insert(room);
                // A refresh finds nothing of it any more.
                guest.joins.remove(&room);
                (json!({"type": "leave_room", "roomId": name}), vec![Owed::Reply("ack")])
            }
            5..9 => {
                let allowed = guest.may.publish.contains(&room) && guest.rooms.contains(&room);
                if allowed {
                    to = To::Room(room);
                }
                (json!({"type": "room_msg", "roomId": name, "content": id}), vec![allowed_or(allowed, "ack")])
            }
            9 => {
                let user = self.random.usize(..USERS);
                if guest.may.private {
                    to = To::User(user);
                }
                let command = json!({"type": "private_msg", "toUser": format!("u{user}"), "content": id});
                (command, vec![allowed_or(guest.may.private, "ack")])
            }
            10 => {
                if guest.may.broadcast {
                    to = To::Everyone;
                }
                (json!({"type": "broadcast", "content": id}), vec![allowed_or(guest.may.broadcast, "ack")])
            }
            11 => {
                let allowed = guest.may.presence.contains(&room);
                (json!({"type": "presence", "roomId": name}), vec![allowed_or(allowed, "presence")])
            }
            12 => {
                let allowed = (by_rule || guest.may.join.contains(&room)) && guest.rooms.contains(&room);
                (json!({"type": "history", "roomId": name}), vec![allowed_or(allowed, "history")])
            }
            13 => (json!({"type": "join_room", "roomId": format!("raw/{name}")}), vec![Owed::Error("bad_room_id")]),
            _ => self.refresh(at),
        };
        self.say(at, id, command, owed, to);
    }

    fn join_many(&mut self, at: usize, id: u64) -> (Value, Vec<Owed>) {
        let by_rule = self.joins_by_rule();
        let guest = &mut self.guests[at];
        let rooms: Vec<usize> = (0..ROOMS).filter(|_| self.random.bool()).collect();
        let names: Vec<String> = rooms.iter().map(|room| format!("r{room}")).collect();
        let mut owed: Vec<Owed> = rooms.iter().map(|&room| guest.join(room, id, by_rule)).collect();
        for (owed, &room) in owed.iter_mut().zip(&rooms) {
            if let Owed::Error(_) = owed {
                self.tally.count("some of many joins were refused");
            }
            if *owed == Owed::Error("forbidden") {
                *owed = Owed::ForbiddenRoom(room);
            }
        }
        owed.push(Owed::Reply("ack"));
        (json!({"type": "join_room", "roomIds": names}), owed)
    }

    /// Sends a command, and keeps what is owed for it and who is to hear of it.
    fn say(&mut self, at: usize, id: u64, mut command: Value, owed: Vec<Owed>, to: To) {
        command["id"] = id.into();
        for owed in &owed {
            match owed {
                Owed::Error("forbidden") if command["type"] == "join_room" => self.tally.count("a join was refused"),
                Owed::Error("forbidden") if command["type"] == "room_msg" => self.tally.count("a message was refused"),
                _ => {}
            }
        }
        let guest = &mut self.guests[at];
        guest.owed.insert(id, owed);
        if matches!(command["type"].as_str(), Some("room_msg" | "private_msg" | "broadcast")) {
            self.said.push((id, at, to));
        }
        guest.end.say(TEXT, command.to_string().as_bytes(), 1, None, &mut self.random);
        let bytes = if self.random.bool() { usize::MAX } else { self.random.usize(1..200) };
        guest.end.flush(&self.node.seats.world, bytes);
    }

    fn refresh(&mut self, at: usize) -> (Value, Vec<Owed>) {
        let (user, may, expires_ms) = (self.guests[at].user, self.may(), self.expires_ms());
        let (token, owed) = match self.random.u8(..6) {
            0 => (self.token((user + 1) % USERS, &may, expires_ms), Owed::Error("forbidden")),
            1 => (self.token(user, &may, self.unix_ms() - 1_000), Owed::Error("unauthorized")),
            2 => ("a.b.c".to_owned(), Owed::Error("unauthorized")),
            _ => {
                let token = self.token(user, &may, expires_ms);
                // What the backend has allowed stays so.
                let kept = if self.joins_by_rule() { (0..ROOMS).collect() } else { may.join.clone() };
                let guest = &mut self.guests[at];
                let gone: BTreeSet<usize> = guest.rooms.difference(&kept).copied().collect();
                let mut leaves = BTreeSet::new();
                let mut maybe = BTreeSet::new();
                for &room in &gone {
                    match guest.joins.remove(&room) {
                        None => leaves.insert(room),
                        Some(ids) => {
                            for id in ids {
                                for owed in guest.owed.get_mut(&id).into_iter().flatten() {
                                    if *owed == Owed::Joined(room) {
                                        *owed = Owed::JoinedOrForbidden(room);
                                    }
                                }
                            }
                            maybe.insert(room)
                        }
                    };
                }
                guest.rooms = guest.rooms.intersection(&kept).copied().collect();
                guest.touched.extend(&gone);
                guest.before_ms.get_or_insert(guest.expires_ms);
                (guest.may, guest.expires_ms, guest.told) = (may, expires_ms, false);
                (token, Owed::Refreshed { expires_ms, leaves, maybe })
            }
        };
        self.tally.count(match owed {
            Owed::Error("forbidden") => "a refresh of another user",
            Owed::Error(_) => "a refresh with a bad token",
            _ => "a refresh was in force",
        });
        (json!({"type": "refresh", "token": token}), vec![owed])
    }

    /// Whether joins are not allowed by tokens, but by the backend's rule.
    fn joins_by_rule(&self) -> bool {
        self.node.decider == Decider::Backend { joins: true }
    }

    /// The backend answers one of its questions; whether there was one.
    fn decide_one(&mut self) -> bool {
        let random = &mut self.random;
        let about = self.node.backend.answer_one(&self.node.office, |waiting| random.usize(..waiting));
        about.into_iter().for_each(|about| self.tally.count(about));
        about.is_some()
    }

    fn some_turn(&mut self) {
        if self.random.bool() {
            self.decide_one();
        }
        if self.random.bool() && self.node.jobs.run_one(&self.node.office) {
            self.tally.count("a token was looked at elsewhere");
        }
        let ready = self.node.seats.with_reason();
        if let Some(&at) = self.random.choice(&ready) {
            self.node.seats.turn(at);
        }
        let at = self.random.usize(..self.guests.len());
        self.read(at);
    }

    /// Whether anything happened.
    fn all_turn(&mut self) -> bool {
        let mut is_busy = self.decide_one();
        if self.node.jobs.run_one(&self.node.office) {
            self.tally.count("a token was looked at elsewhere");
            is_busy = true;
        }
        for at in self.node.seats.with_reason() {
            self.node.seats.turn(at);
            is_busy = true;
        }
        is_busy
    }

    fn come_to_rest(&mut self) {
        for _ in 0..ROUNDS_MAX {
            let mut is_busy = false;
            for at in 0..self.guests.len() {
                let end = &mut self.guests[at].end;
                is_busy |= end.unsent() > 0;
                end.flush(&self.node.seats.world, usize::MAX);
                is_busy |= self.read(at);
            }
            is_busy |= self.all_turn();
            if !is_busy {
                return;
            }
        }
        panic!("the node does not come to rest");
    }

    fn read(&mut self, at: usize) -> bool {
        let guest = &mut self.guests[at];
        let bytes = self.node.seats.world.receive(guest.end.client, usize::MAX);
        let mut heard = Vec::new();
        guest.end.take(&bytes, |one| heard.push(one));
        let something = !bytes.is_empty();
        for one in heard {
            match one {
                Heard::Message(TEXT, text) => self.hear(at, &serde_json::from_slice(&text).unwrap()),
                Heard::Close(code, _) => {
                    self.guests[at].closed = code;
                    self.guests[at].is_open = false;
                    self.node.seats.world.close(self.guests[at].end.client);
                }
                other => panic!("guest {at}: {other:?}"),
            }
        }
        something
    }

    fn hear(&mut self, at: usize, message: &Value) {
        let guest = &mut self.guests[at];
        match message["type"].as_str().unwrap() {
            "room_msg" | "private_msg" | "broadcast" => {
                *guest.heard.entry(message["content"].as_u64().unwrap()).or_default() += 1;
            }
            "expiring" => {
                assert!(!guest.told, "guest {at} is told once");
                guest.told = true;
                self.tally.count("a token's end was told");
            }
            "left" => {
                assert_eq!(message["reason"], "forbidden");
                let room = room_of(message);
                assert!(guest.left.insert(room), "guest {at} leaves {room} twice");
                self.tally.count("a room was left because of a refresh");
            }
            kind => {
                let id = message["id"].as_u64().unwrap_or_else(|| panic!("{message}"));
                let owed = guest.owed.get_mut(&id).unwrap_or_else(|| panic!("guest {at}: {message} is not owed"));
                let code = message["code"].as_str().unwrap_or_default();
                let found = owed.iter().position(|owed| match owed {
                    Owed::Reply(reply) => *reply == kind && kind != "error",
                    Owed::Error(error) => kind == "error" && *error == code,
                    Owed::Joined(room) => kind == "joined" && room_of(message) == *room,
                    Owed::JoinedOrForbidden(room) => {
                        (kind == "joined" || code == "forbidden") && room_of(message) == *room
                    }
                    Owed::ForbiddenRoom(room) => code == "forbidden" && room_of(message) == *room,
                    Owed::Refreshed { expires_ms, .. } => kind == "ack" && message["expires"] == *expires_ms,
                });
                let Some(found) = found else { panic!("guest {at}: {message}, and {owed:?} is owed") };
                assert!(owed[found] != Owed::Reply("ack") || owed.len() == 1, "the ack of many joins comes last");
                match owed.remove(found) {
                    Owed::Refreshed { leaves, maybe, expires_ms } => {
                        guest.before_ms = (expires_ms != guest.expires_ms).then_some(expires_ms);
                        guest.told = false;
                        let left = std::mem::take(&mut guest.left);
                        assert!(leaves.is_subset(&left), "guest {at}: {leaves:?} are left before the ack: {left:?}");
                        let more: BTreeSet<usize> = left.difference(&leaves).copied().collect();
                        assert!(more.is_subset(&maybe), "guest {at}: {more:?} were left for no reason");
                    }
                    Owed::JoinedOrForbidden(_) if code == "forbidden" => {
                        self.tally.count("a join was overtaken by a refresh");
                    }
                    _ => {}
                }
            }
        }
    }

    fn judge(&mut self) {
        let now_ms = self.unix_ms();
        for (at, guest) in self.guests.iter_mut().enumerate().filter(|(_, guest)| guest.is_open) {
            guest.owed.retain(|_, owed| !owed.is_empty());
            assert!(guest.owed.is_empty(), "guest {at}: everything rests, and this is owed: {:?}", guest.owed);
            assert!(guest.left.is_empty(), "guest {at}: left {:?} for no reason", guest.left);
            assert!(now_ms < guest.expires_ms + 5_000, "guest {at} is open behind its token's end");
            assert!(guest.told || now_ms + EXPIRING_BEFORE_MS < guest.expires_ms, "guest {at} is not told of its end");
        }
        for (serial, sender, to) in std::mem::take(&mut self.said) {
            // Its token may have ended while a refresh waited, and what stood behind that was not done.
            let is_sure = self.guests[sender].is_open;
            for (at, guest) in self.guests.iter_mut().enumerate().filter(|(_, guest)| guest.is_open) {
                let times = guest.heard.remove(&serial).unwrap_or(0);
                let (least, most, kind) = match to {
                    To::Nobody => (0, 0, "a message had to stay away"),
                    To::Room(_) if at == sender => (0, 0, "a message had to stay away"),
                    To::Room(room) if guest.touched.contains(&room) => {
                        (0, usize::from(guest.maybe.contains(&room)), "")
                    }
                    To::Room(room) if guest.rooms.contains(&room) => (1, 1, "a message had to come"),
                    To::Room(_) => (0, 0, "a message had to stay away"),
                    To::User(user) if user == guest.user => (1, 1, "a private message had to come"),
                    To::User(_) => (0, 0, ""),
                    To::Everyone if at == sender => (0, 0, ""),
                    To::Everyone => (1, 1, "a broadcast had to come"),
                };
                let least = if is_sure { least } else { 0 };
                assert!((least..=most).contains(&times), "guest {at} heard {serial} of {sender} {times} times: {to:?}");
                if !kind.is_empty() {
                    self.tally.count(kind);
                }
            }
        }
        for (at, guest) in self.guests.iter_mut().enumerate() {
            if guest.is_open {
                assert!(guest.heard.is_empty(), "guest {at} heard what nobody said: {:?}", guest.heard);
            }
            guest.touched.clear();
            guest.joins.clear();
            guest.maybe = guest.rooms.clone();
        }
    }

    fn let_time_pass(&mut self) {
        for _ in 0..self.random.usize(1..4) {
            self.node.seats.world.pass(self.random.u64(100..3_000));
            self.come_to_rest();
            let now_ms = self.unix_ms();
            for (at, guest) in self.guests.iter_mut().enumerate() {
                match guest.closed.take() {
                    None => {}
                    Some(code) => {
                        assert_eq!(code, 4001, "guest {at}");
                        let ends_ms = guest.before_ms.map_or(guest.expires_ms, |before| before.min(guest.expires_ms));
                        assert!(ends_ms <= now_ms, "guest {at} is closed before its token's end");
                        self.tally.count("a token's end closed a connection");
                    }
                }
            }
        }
        self.guests.retain(|guest| guest.is_open);
    }
}

impl Guest {
    fn join(&mut self, room: usize, id: u64, by_rule: bool) -> Owed {
        let allowed = if by_rule { may_join(self.user, room) } else { self.may.join.contains(&room) };
        if !allowed {
            return Owed::Error("forbidden");
        }
        self.rooms.insert(room);
        self.touched.insert(room);
        self.maybe.insert(room);
        self.joins.entry(room).or_default().push(id);
        Owed::Joined(room)
    }
}

fn allowed_or(allowed: bool, reply: &'static str) -> Owed {
    if allowed { Owed::Reply(reply) } else { Owed::Error("forbidden") }
}

fn room_of(message: &Value) -> usize {
    message["roomId"].as_str().unwrap()[1..].parse().unwrap()
}
