//! What guests do: come, read, write, speak, fall silent, misbehave and go.

use std::collections::{BTreeSet, VecDeque};

use fanfare::limits::USER_ID_BYTES_MAX;
use fanfare_simulated::end::{BINARY, End, TEXT};
use fanfare_simulated::message::{Serial, json, percent, room_name};
use fanfare_simulated::replies::{Awaited, Replies};

use super::oracle::{Body, GuestAt, OpAt, Topic, TopicAt};
use super::plan::Plan;
use super::run::{Guest, Phase, Role, Run};

/// Commands a hasty guest says without having had their replies.
const OWED_MAX: usize = 8;

/// Questions a greedy guest asks in one go.
const GREED_MAX: usize = 600;

/// How a message is said.
struct Form<'a> {
    kind: &'static str,
    room: Option<&'a str>,
    /// What its value is called.
    field: &'static str,
    /// The part of the command that names its receivers.
    to: &'a str,
}

impl Run {
    /// One guest does something.
    pub fn act(&mut self) {
        let here: Vec<GuestAt> = (0..self.guests.len()).filter(|&at| self.guests[at].phase != Phase::Over).collect();
        let comes = !self.draining && here.len() < self.plan.guests_max && self.one_in(6);
        let Some(&at) = self.random.choice(&here).filter(|_| !comes) else {
            if !self.draining {
                self.arrive();
            }
            return;
        };
        if self.random.usize(0..1_000) < self.plan.churn_permille {
            return self.leave_somehow(at);
        }
        match self.random.usize(0..100) {
            0..25 => {
                let bytes_max = if self.one_in(3) { self.random.usize(1..200) } else { usize::MAX };
                self.flush(at, bytes_max);
            }
            25..50 => {
                let bytes_max = if self.one_in(3) { self.random.usize(1..200) } else { usize::MAX };
                if self.guests[at].reads {
                    self.read(at, bytes_max);
                }
            }
            50..96 => {
                let burst = if self.plan.hasty && self.one_in(4) { self.random.usize(2..OWED_MAX) } else { 1 };
                (0..burst).for_each(|_| self.speak(at));
            }
            96..98 => self.guests[at].reads = !self.guests[at].reads || self.guests[at].is_wide,
            _ => self.guests[at].answers = !self.guests[at].answers || !self.plan.jumpy,
        }
    }

    fn arrive(&mut self) {
        let reactor = self.random.usize(0..self.node.reactors());
        let link = self.plan.link(&mut self.random);
        let is_wide = !link.short_writes;
        let mut end = End::new(self.node.world.connect(reactor, link));
        let at = self.oracle.arrive();
        let sent = self.oracle.tick();
        let mut user = None;
        let role = match self.random.usize(0..20) {
            0 => {
                let request = b"GET /healthz HTTP/1.1\r\nHost: sim\r\n\r\n".to_vec();
                end.say_raw(&request);
                Role::Http(request)
            }
            1..5 => {
                let (room, echo) = (room_name(self.random.usize(0..2)), self.random.bool());
                let query = if echo { "?echo=1" } else { "" };
                end.ask_upgrade(&format!("/raw/{}{query}", percent(&room)), &mut self.random);
                let room = self.oracle.topic(&Topic::Raw(room));
                self.oracle.op(at, room, true, true, sent);
                Role::Raw { room, echo }
            }
            5..9 => {
                end.ask_upgrade("/", &mut self.random);
                Role::Json
            }
            _ => {
                let name = user_name(self.random.usize(0..self.plan.users));
                end.ask_upgrade(&format!("/ws?userId={}", percent(&name)), &mut self.random);
                self.know(at, &name, sent);
                user = Some(name);
                Role::Json
            }
        };
        self.trace.note(&[b'a', at as u8], || {
            format!("guest {at} comes to reactor {reactor} as {user:?}, {role:?}, {link:?}")
        });
        self.guests.push(Guest {
            end,
            role,
            phase: Phase::Asking,
            user,
            client_id: None,
            reads: true,
            answers: true,
            is_wide,
            replies: Replies::default(),
            rooms: BTreeSet::new(),
            pings: VecDeque::new(),
        });
    }

    /// A guest's user is known: what is sent to the user, to everyone or to the connection may come from now on.
    pub fn know(&mut self, at: GuestAt, user: &str, sent: u64) {
        self.oracle.name(at, user);
        for (topic, sent) in [(Topic::Inbox(user.to_owned()), sent), (Topic::Everyone, 0), (Topic::One(at), sent)] {
            let topic = self.oracle.topic(&topic);
            self.oracle.op(at, topic, true, true, sent);
        }
    }

    /// Whether anything was there to flush.
    pub fn flush(&mut self, at: GuestAt, bytes_max: usize) -> bool {
        let guest = &mut self.guests[at];
        if guest.end.unsent() == 0 || guest.phase == Phase::Over {
            return false;
        }
        self.trace.note(&[b'f', at as u8], || format!("guest {at} writes {} bytes", guest.end.unsent().min(bytes_max)));
        guest.end.flush(&self.node.world, bytes_max);
        true
    }

    fn speak(&mut self, at: GuestAt) {
        let guest = &self.guests[at];
        let early = self.plan.hasty && guest.phase == Phase::Asking && guest.user.is_some();
        let owed_max = if self.plan.hasty { OWED_MAX } else { 0 };
        if !(guest.phase == Phase::Open || early) || guest.replies.len() > owed_max {
            return;
        }
        let role = guest.role.clone();
        match role {
            Role::Http(_) => {}
            Role::Raw { room, echo } => self.say_raw(at, room, echo),
            Role::Json if self.plan.greedy && self.one_in(40) => self.ask_greedily(at),
            Role::Json if self.plan.history.is_some() && self.one_in(8) => match self.random.bool() {
                true => {
                    let room = room_name(self.random.usize(0..self.plan.rooms));
                    self.ask_page(at, room);
                }
                false => self.say_resume(at),
            },
            Role::Json => match self.random.usize(0..24) {
                0..7 => self.say_room_msg(at),
                7..10 => self.say_private_msg(at),
                10..12 => self.say_private(at),
                12 => self.say_broadcast(at, true),
                13 => self.say_broadcast(at, false),
                14..17 => self.say_join(at),
                17 => self.say_join_many(at),
                18..21 => self.say_leave(at),
                21 => {
                    let room = room_name(self.random.usize(0..self.plan.rooms));
                    self.say_presence(at, &room);
                }
                22 => self.say_ping(at),
                _ => self.say_nonsense(at),
            },
        }
    }

    fn leave_somehow(&mut self, at: GuestAt) {
        match self.random.usize(0..5) {
            0..2 => self.leave(at),
            2..4 => self.vanish(at),
            _ => self.misbehave(at),
        }
    }

    /// A close frame, and no word after it.
    pub fn leave(&mut self, at: GuestAt) {
        let guest = &mut self.guests[at];
        if guest.phase != Phase::Open {
            return;
        }
        let code = *self.random.choice(&[1000, 1001, 3000, 4999]).unwrap_or(&1000);
        self.trace.note(&[b'l', at as u8], || format!("guest {at} closes with {code}"));
        guest.end.close(code, &mut self.random);
        guest.phase = Phase::Leaving(code);
        let is_certain = self.may_not_be_ended(at);
        self.oracle.die(at, is_certain);
    }

    /// Gone without a word, in the middle of whatever it was saying.
    pub fn vanish(&mut self, at: GuestAt) {
        let is_certain = self.may_not_be_ended(at);
        if self.guests[at].end.is_speaking() {
            self.tally.count("vanished in the middle of a frame");
        }
        self.trace.note(&[b'v', at as u8], || format!("guest {at} vanishes"));
        self.oracle.die(at, is_certain);
        self.end(at);
    }

    /// Whether nothing but a guest itself can have ended its connection so far.
    fn may_not_be_ended(&self, at: GuestAt) -> bool {
        let Plan { jumpy, tight_outbox, tight_node_budget, .. } = self.plan;
        !jumpy && !tight_node_budget && !self.draining && (!tight_outbox || self.guests[at].is_wide)
    }

    fn misbehave(&mut self, at: GuestAt) {
        let guest = &mut self.guests[at];
        if guest.phase == Phase::Open {
            self.trace.note(&[b'm', at as u8], || format!("guest {at} sends a frame without a mask"));
            guest.end.say_raw(&[0x81, 0x02, b'{', b'}']);
            guest.phase = Phase::Misbehaved;
            self.oracle.die(at, false);
        }
    }

    /// A guest is about to say something to a topic.
    fn publish(&mut self, at: GuestAt, topic: TopicAt, not_to_sender: bool) -> Serial {
        let now = self.node.world.now();
        self.oracle.publish(at, topic, not_to_sender, now.0)
    }

    fn say_raw(&mut self, at: GuestAt, room: TopicAt, echo: bool) {
        let serial = self.publish(at, room, !echo);
        let opcode = if self.random.bool() { TEXT } else { BINARY };
        let mut bytes = format!("#{serial}#").into_bytes();
        let padding = self.padding(at);
        bytes.extend((0..padding).map(|_| if opcode == TEXT { b'x' } else { self.random.u8(..) }));
        self.oracle.set_body(serial, Body::Raw { opcode, bytes: bytes.clone() });
        self.say(at, opcode, &bytes);
    }

    fn say_room_msg(&mut self, at: GuestAt) {
        let room = room_name(self.random.usize(0..self.plan.rooms));
        let topic = self.oracle.topic(&Topic::Room(room.clone()));
        let serial = self.publish(at, topic, true);
        let value = self.value(at, serial);
        let to = format!(r#""roomId":{},"#, json(&room));
        self.message(at, serial, Form { kind: "room_msg", room: Some(&room), field: "content", to: &to }, &value);
    }

    fn say_private_msg(&mut self, at: GuestAt) {
        // Now and then to an anonymous user, or to one that is not there.
        let user = match self.guests[self.random.usize(0..self.guests.len())].user.clone() {
            Some(user) => user,
            None => user_name(self.random.usize(0..self.plan.users)),
        };
        let topic = self.oracle.topic(&Topic::Inbox(user.clone()));
        let serial = self.publish(at, topic, false);
        let value = self.value(at, serial);
        let to = format!(r#""toUser":{},"#, json(&user));
        self.message(at, serial, Form { kind: "private_msg", room: None, field: "content", to: &to }, &value);
    }

    fn say_private(&mut self, at: GuestAt) {
        let to = self.random.usize(0..self.guests.len());
        match self.guests[to].client_id.clone() {
            Some(client_id) => {
                let topic = self.oracle.topic(&Topic::One(to));
                let serial = self.publish(at, topic, false);
                let value = self.value(at, serial);
                let to = format!(r#""to":{},"#, json(&client_id));
                self.message(at, serial, Form { kind: "private", room: None, field: "data", to: &to }, &value);
            }
            None => self.command(at, r#""type":"private","to":"nobody","data":1"#, Some(Awaited::Ack), None),
        }
    }

    fn say_broadcast(&mut self, at: GuestAt, is_content: bool) {
        let serial = self.publish(at, self.everyone, is_content);
        let value = self.value(at, serial);
        let field = if is_content { "content" } else { "data" };
        self.message(at, serial, Form { kind: "broadcast", room: None, field, to: "" }, &value);
    }

    fn message(&mut self, at: GuestAt, serial: Serial, form: Form<'_>, value: &str) {
        let Form { kind, room, field, to } = form;
        let from = self.guests[at].user.clone().unwrap_or_default();
        let (room, value) = (room.map(Into::into), value.to_owned());
        let is_kept = self.keeps(self.oracle.said(serial).1);
        // What has a key is one message, however often it is said while that is known.
        let is_retried = is_kept && !self.plan.is_forgetful && self.one_in(8);
        let key = if is_retried { format!(r#","key":"k{serial}""#) } else { String::new() };
        let text = format!(r#"{to}"type":"{kind}", "{field}" : {value} {key}"#);
        self.oracle.set_body(serial, Body::Json { kind, room, from, field, value });
        self.command(at, &text, Some(Awaited::Published(serial)), None);
        if is_retried {
            self.tally.count("a message was said again");
            self.command(at, &text, Some(Awaited::Published(serial)), None);
        }
    }

    fn say_join(&mut self, at: GuestAt) {
        let room = room_name(self.random.usize(0..self.plan.rooms));
        let topic = self.oracle.topic(&Topic::Room(room.clone()));
        if self.keeps(topic) {
            return self.say_kept_join(at, room, topic);
        }
        let id = self.some_id();
        let (position, resumes) = self.position();
        let text = format!(r#""type":"join_room","roomId":{}{position}"#, json(&room));
        if let Some(code) = self.join_refusal(at, std::slice::from_ref(&room), resumes) {
            return self.command_as(at, &text, id, Some(Awaited::Error(code)));
        }
        let has_reply = id.is_some() || !position.is_empty();
        let op = self.join(at, &room, has_reply);
        let awaited = has_reply.then_some(Awaited::Joined { room, op, resumes });
        self.command_as(at, &text, id, awaited);
    }

    fn say_join_many(&mut self, at: GuestAt) {
        let count = self.random.usize(0..4);
        let mut rooms: Vec<String> = (0..count).map(|_| room_name(self.random.usize(0..self.plan.rooms))).collect();
        // What keeps history is joined on its own.
        rooms.retain(|room| self.plan.policy(&Topic::Room(room.clone())).is_none());
        let names: Vec<String> = rooms.iter().map(|room| json(room)).collect();
        let id = self.some_id();
        let (position, resumes) = self.position();
        let text = format!(r#""type":"join_room","roomIds":[{}]{position}"#, names.join(","));
        if let Some(code) = self.join_refusal(at, &rooms, resumes) {
            return self.command_as(at, &text, id, Some(Awaited::Error(code)));
        }
        let has_reply = id.is_some() || !position.is_empty();
        let mut joins = Vec::new();
        for room in rooms {
            let op = self.join(at, &room, has_reply);
            joins.push((room, op));
        }
        let awaited = match id {
            Some(_) => Some(Awaited::Many { rooms: joins, resumes }),
            None => {
                let asked = joins.into_iter().filter(|_| has_reply);
                asked.for_each(|(room, op)| {
                    self.guests[at].replies.await_one(None, Awaited::Joined { room, op, resumes });
                });
                None
            }
        };
        self.command_as(at, &text, id, awaited);
    }

    /// A guest is about to say that it joins a room.
    pub fn join(&mut self, at: GuestAt, room: &str, has_reply: bool) -> OpAt {
        self.guests[at].rooms.insert(room.to_owned());
        let topic = self.oracle.topic(&Topic::Room(room.to_owned()));
        let sent = self.oracle.tick();
        self.oracle.op(at, topic, true, has_reply, sent)
    }

    /// From where a join wants to be sent what it missed, and whether that is a position of its own.
    fn position(&mut self) -> (&'static str, bool) {
        match self.random.usize(0..8) {
            0 => (r#","last":3"#, false),
            1 => (r#","since":{"epoch":"e","offset":1}"#, true),
            _ => ("", false),
        }
    }

    /// The code with which a join is refused, if it is.
    pub fn join_refusal(&self, at: GuestAt, rooms: &[String], resumes: bool) -> Option<&'static str> {
        let known = &self.guests[at].rooms;
        if resumes && rooms.iter().any(|room| known.contains(room)) {
            return Some("already_joined");
        }
        let fresh: BTreeSet<&String> = rooms.iter().filter(|room| !known.contains(*room)).collect();
        (!fresh.is_empty() && known.len() + fresh.len() > self.plan.rooms_max).then_some("too_many_rooms")
    }

    fn say_leave(&mut self, at: GuestAt) {
        let room = room_name(self.random.usize(0..self.plan.rooms));
        let topic = self.oracle.topic(&Topic::Room(room.clone()));
        let mut id = self.some_id();
        if !self.streams.is_out(at, topic) {
            if self.streams.live_at(at, topic).is_none() {
                return;
            }
            id = id.or_else(|| Some(self.next_id()));
            self.streams.leave(at, topic);
        }
        let sent = self.oracle.tick();
        let op = self.oracle.op(at, topic, false, id.is_some(), sent);
        self.guests[at].rooms.remove(&room);
        let text = format!(r#""type":"leave_room","roomId":{}"#, json(&room));
        let awaited = id.is_some().then_some(Awaited::Left(op));
        self.command_as(at, &text, id, awaited);
    }

    /// Asks who is in a room.
    pub fn say_presence(&mut self, at: GuestAt, room: &str) {
        let awaited = Awaited::Presence { room: room.to_owned() };
        let text = format!(r#""type":"presence","roomId":{}"#, json(room));
        self.command(at, &text, Some(awaited.clone()), Some(awaited));
    }

    /// Asks for the largest answers in the smallest commands, and may not read them for a while.
    fn ask_greedily(&mut self, at: GuestAt) {
        self.tally.count("a greedy guest asked");
        let room = room_name(self.random.usize(0..self.plan.rooms));
        for _ in 0..self.random.usize(50..GREED_MAX) {
            match self.random.usize(0..8) {
                0 => self.say_nonsense(at),
                1 => self.say_ping(at),
                _ => self.say_presence(at, &room),
            }
        }
        self.guests[at].reads = self.guests[at].is_wide;
    }

    fn say_ping(&mut self, at: GuestAt) {
        self.command(at, r#""type":"ping","more":[{}]"#, Some(Awaited::Pong), Some(Awaited::Pong));
    }

    fn say_nonsense(&mut self, at: GuestAt) {
        let (text, code) = match self.random.usize(0..4) {
            0 => (r#""type":"dance""#, "unknown_type"),
            1 => (r#""type":"room_msg","content":1"#, "missing_field"),
            2 => (r#""type":"join_room","roomId":"""#, "bad_room_id"),
            _ => {
                self.guests[at].replies.await_one(None, Awaited::Error("bad_json"));
                return self.say(at, TEXT, b"{\"type\":\"ping\",\"id\":7");
            }
        };
        self.command(at, text, Some(Awaited::Error(code)), Some(Awaited::Error(code)));
    }

    /// Says a command, with an id or without; what it waits for in either case.
    fn command(&mut self, at: GuestAt, text: &str, with_id: Option<Awaited<OpAt>>, without_id: Option<Awaited<OpAt>>) {
        let id = self.some_id();
        let awaited = if id.is_some() { with_id } else { without_id };
        self.command_as(at, text, id, awaited);
    }

    fn command_as(&mut self, at: GuestAt, text: &str, id: Option<String>, awaited: Option<Awaited<OpAt>>) {
        let text = match &id {
            Some(id) if self.random.bool() => format!(r#"{{{text},"id":{id}}}"#),
            Some(id) => format!(r#"{{"id" : {id},{text}}}"#),
            None => format!("{{{text}}}"),
        };
        if let Some(awaited) = awaited {
            self.guests[at].replies.await_one(id.as_deref(), awaited);
        }
        let opcode = if self.one_in(8) { BINARY } else { TEXT };
        self.say(at, opcode, text.as_bytes());
    }

    fn say(&mut self, at: GuestAt, opcode: u8, payload: &[u8]) {
        self.trace.note(payload, || {
            let shown = &payload[..payload.len().min(160)];
            format!("guest {at} says {}", String::from_utf8_lossy(shown))
        });
        let fragments = if self.one_in(4) { self.random.usize(2..5) } else { 1 };
        let ping = (fragments > 1 && self.random.bool()).then(|| payload.len().to_string().into_bytes());
        let guest = &mut self.guests[at];
        guest.end.say(opcode, payload, fragments, ping.as_deref(), &mut self.random);
        guest.pings.extend(ping);
    }

    /// Says a command that has an id.
    pub fn command_with_id(&mut self, at: GuestAt, text: &str, awaited: Awaited<OpAt>) {
        let id = self.next_id();
        self.command_as(at, text, Some(id), Some(awaited));
    }

    fn next_id(&mut self) -> String {
        self.ids += 1;
        self.ids.to_string()
    }

    fn some_id(&mut self) -> Option<String> {
        self.ids += 1;
        let number = self.ids;
        match self.random.usize(0..4) {
            0 => None,
            1 => Some(format!("\"c{number}\"")),
            _ => Some(number.to_string()),
        }
    }

    /// A value for `content` or `data` with the message's serial in it.
    fn value(&mut self, at: GuestAt, serial: Serial) -> String {
        let padding = "x".repeat(self.padding(at));
        match self.random.usize(0..4) {
            0 => format!(r##"{{"b":"#{serial}#","a":1e400,"a":123456789012345678901234567890}}"##),
            1 => format!(r##"["\ud800 #{serial}#" , null,"{padding}"]"##),
            _ => format!(r##""#{serial}#{padding}""##),
        }
    }

    /// How much longer a message is than it has to be. Nothing large goes over a narrow way or ahead of a handshake.
    fn padding(&mut self, at: GuestAt) -> usize {
        let may_be_large = self.guests[at].is_wide && self.guests[at].phase == Phase::Open;
        match self.random.usize(0..1_000) {
            permille if permille < self.plan.large_permille && may_be_large => {
                *self.random.choice(&[16_384, 20_000, 70_000]).unwrap_or(&0)
            }
            900..1_000 => self.random.usize(100..400),
            _ => self.random.usize(0..30),
        }
    }
}

/// The users' names: one needs escapes in JSON and in queries, most are long.
fn user_name(at: usize) -> String {
    match at {
        1 => "Zoë + \"Q\" \\".into(),
        // As long as a name may be, and nothing to compress: who is in a room is a long answer to a short question.
        2.. => {
            let mut random = fastrand::Rng::with_seed(at as u64);
            (0..USER_ID_BYTES_MAX).map(|_| random.alphanumeric()).collect()
        }
        at => format!("user{at}"),
    }
}
