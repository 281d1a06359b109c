//! What guests do: come, read, speak, and go, some of them to come back elsewhere.

use std::collections::{BTreeMap, BTreeSet};

use fanfare::ids::{ConnId, ReactorId, Slot};
use fanfare_simulated::end::{BINARY, End, TEXT};
use fanfare_simulated::message::{Page, Serial, Wish};

use super::plain::Due;
use super::plan::WIDE;
use super::run::{Guest, Member, Phase, Run, Stage, Waiting};
use super::said::{GuestAt, KEPT, Memory, Said, Topic};

/// Commands a guest says without having had their replies.
const OWED_MAX: usize = 6;

impl Run {
    /// One guest does something.
    pub fn act(&mut self) {
        let here: Vec<GuestAt> = (0..self.guests.len()).filter(|&at| self.guests[at].phase != Phase::Over).collect();
        let comes = here.len() < self.plan.guests_max && self.one_in(6);
        let Some(&at) = self.random.choice(&here).filter(|_| !comes) else { return self.arrive() };
        if self.random.usize(0..1_000) < self.plan.churn_permille {
            return if self.one_in(2) { self.leave(at) } else { self.vanish(at) };
        }
        match self.random.usize(0..100) {
            0..30 => _ = self.flush(at),
            30..60 => _ = self.read(at),
            _ => self.speak(at),
        }
    }

    fn arrive(&mut self) {
        let node = self.random.usize(0..self.nodes.len());
        let reactor = self.random.usize(0..self.plan.reactors);
        let memory = match self.memories.is_empty() || self.one_in(4) {
            true => Memory { user: format!("user{}", self.random.usize(0..self.plan.users)), ..Memory::default() },
            false => self.memories.swap_remove(self.random.usize(0..self.memories.len())),
        };
        let raw = self.one_in(7).then(|| "raw".to_owned());
        let mut end = End::new(self.nodes[node].seats.world.connect(reactor, WIDE));
        let target = match &raw {
            Some(room) => format!("/raw/{room}"),
            None => format!("/ws?userId={}", memory.user),
        };
        end.ask_upgrade(&target, &mut self.random);
        let at = self.guests.len();
        self.trace.note(&[b'a', at as u8], || format!("guest {at} comes to node {node} with {memory:?}, raw: {raw:?}"));
        let nobody = ConnId { reactor: ReactorId(0), slot: Slot(0), generation: 0 };
        let membership = self.number();
        self.guests.push(Guest {
            node,
            node_at: self.nodes[node].at,
            end,
            raw,
            phase: Phase::Asking,
            user: memory.user.clone(),
            client_id: None,
            conn: (self.nodes[node].run, nobody),
            membership,
            since_rest: 0,
            rooms: BTreeMap::new(),
            waits: BTreeMap::new(),
            memory,
        });
    }

    /// Whether anything was there to flush.
    pub fn flush(&mut self, at: GuestAt) -> bool {
        let guest = &mut self.guests[at];
        if guest.end.unsent() == 0 || guest.phase == Phase::Over {
            return false;
        }
        self.trace.note(&[b'f', at as u8], || format!("guest {at} writes"));
        guest.end.flush(&self.nodes[guest.node].seats.world, usize::MAX);
        true
    }

    fn speak(&mut self, at: GuestAt) {
        let guest = &self.guests[at];
        if guest.phase != Phase::Open || guest.waits.len() >= OWED_MAX {
            return;
        }
        if let Some(room) = guest.raw.clone() {
            return self.say_raw(at, &room);
        }
        match self.random.usize(0..34) {
            0..8 => self.say_room_msg(at),
            8..11 => self.say_private_msg(at),
            11..13 => self.say_private(at),
            13 => self.say_broadcast(at, true),
            14 => self.say_broadcast(at, false),
            15..20 => self.say_join(at),
            20 => self.say_join_many(at),
            21..24 => self.say_leave(at),
            24 => {
                let room = self.some_room();
                self.ask_who(at, &room, None);
            }
            25..28 => self.ask_page(at),
            28..31 => self.say_resume(at),
            31..33 => self.say_again(at),
            _ => self.command(at, r#""type":"ping""#, Waiting::Ping),
        }
    }

    /// A close frame, and no word after it.
    pub fn leave(&mut self, at: GuestAt) {
        if self.guests[at].phase != Phase::Open {
            return;
        }
        self.trace.note(&[b'l', at as u8], || format!("guest {at} closes"));
        self.guests[at].end.close(1000, &mut self.random);
        self.guests[at].phase = Phase::Leaving;
    }

    /// Gone without a word.
    pub fn vanish(&mut self, at: GuestAt) {
        self.trace.note(&[b'v', at as u8], || format!("guest {at} vanishes"));
        let guest = &self.guests[at];
        self.nodes[guest.node].seats.world.close(guest.end.client);
        self.over(at);
    }

    /// A connection is over: what its client knows by then may be of use to another.
    pub fn over(&mut self, at: GuestAt) {
        self.guests[at].phase = Phase::Over;
        if self.guests[at].raw.is_none() {
            let mut memory = std::mem::take(&mut self.guests[at].memory);
            memory.user = self.guests[at].user.clone();
            for room in self.guests[at].rooms.keys() {
                if let Some(live) = self.kept.position(at, &Topic::Room(room.clone())) {
                    memory.rooms.insert(room.clone(), live.clone());
                }
            }
            // What it could have resumed and did not is to be resumed by the next.
            if memory.inbox.is_none() {
                let inbox = Topic::Inbox(memory.user.clone());
                memory.inbox = self.kept.position(at, &inbox).cloned();
            }
            for waiting in self.guests[at].waits.values() {
                if let Waiting::Publish(serial) = waiting {
                    memory.unsure.push(*serial);
                }
            }
            self.memories.push(memory);
        }
        self.kept.die(at);
    }

    /// How much longer a message is than it has to be.
    fn padding(&mut self) -> usize {
        match self.random.usize(0..50) {
            0 => 20_000,
            1 => 600,
            _ => 0,
        }
    }

    fn some_room(&mut self) -> String {
        let rooms = self.rooms();
        self.random.choice(rooms).unwrap_or_default()
    }

    fn say_raw(&mut self, at: GuestAt, room: &str) {
        let serial = self.publish(at, Topic::Raw(room.to_owned()), true, false);
        let opcode = if self.random.bool() { TEXT } else { BINARY };
        self.say(at, opcode, format!("#{serial}#").as_bytes());
    }

    fn say_room_msg(&mut self, at: GuestAt) {
        let room = self.some_room();
        let serial = self.publish(at, Topic::Room(room), true, true);
        self.say_message(at, serial);
    }

    fn say_private_msg(&mut self, at: GuestAt) {
        let user = format!("user{}", self.random.usize(0..self.plan.users));
        let serial = self.publish(at, Topic::Inbox(user), false, true);
        self.say_message(at, serial);
    }

    /// A message to a room or a user, for the first time or again.
    fn say_message(&mut self, at: GuestAt, serial: Serial) {
        let said = self.said.get(serial);
        let address = match &said.topic {
            Topic::Room(room) => format!(r#""type":"room_msg","roomId":"{room}""#),
            Topic::Inbox(user) => format!(r#""type":"private_msg","toUser":"{user}""#),
            Topic::Everyone | Topic::Raw(_) | Topic::One(_) => unreachable!("it is said otherwise"),
        };
        let key = said.key.as_ref().map_or_else(String::new, |key| format!(r#","key":"{key}""#));
        let padding = "x".repeat(self.padding());
        let text = format!(r##"{address},"content":"#{serial}#{padding}"{key}"##);
        self.command(at, &text, Waiting::Publish(serial));
    }

    fn say_private(&mut self, at: GuestAt) {
        let to = self.random.usize(0..self.guests.len());
        let Some(client_id) = self.guests[to].client_id.clone() else { return };
        let serial = self.publish(at, Topic::One(to), false, false);
        let text = format!(r##""type":"private","to":"{client_id}","data":"#{serial}#""##);
        self.command(at, &text, Waiting::Publish(serial));
    }

    fn say_broadcast(&mut self, at: GuestAt, is_content: bool) {
        let serial = self.publish(at, Topic::Everyone, is_content, false);
        let field = if is_content { "content" } else { "data" };
        self.command(at, &format!(r##""type":"broadcast","{field}":"#{serial}#""##), Waiting::Publish(serial));
    }

    /// Something is said that nobody has said before; who must get it.
    fn publish(&mut self, at: GuestAt, topic: Topic, not_to_sender: bool, may_have_key: bool) -> Serial {
        let keeps = self.keeps(&topic);
        let key = (keeps && may_have_key && self.one_in(3)).then(|| format!("k{}", self.number()));
        let user = self.guests[at].user.clone();
        let serial = self.said.add(Said { by: at, user, topic: topic.clone(), not_to_sender, key });
        self.serials = serial + 1;
        if !keeps {
            let due = self.due(at, &topic, not_to_sender);
            self.plain.publish(serial, due);
        }
        serial
    }

    fn due(&self, by: GuestAt, topic: &Topic, not_to_sender: bool) -> Due {
        let mut due = Due::default();
        for (at, guest) in self.guests.iter().enumerate() {
            let is_named = !matches!(topic, Topic::One(named) if *named != at);
            if guest.phase != Phase::Open || (not_to_sender && at == by) || !is_named {
                continue;
            }
            match guest.membership_of(topic) {
                Some((membership, _)) if guest.node_at == self.guests[by].node_at => due.here.push((at, membership)),
                Some((membership, since_rest)) if self.is_calm && since_rest < self.rests => {
                    due.elsewhere.push((at, membership));
                }
                Some(_) | None => {}
            }
        }
        due
    }

    /// Something said before is said again, with the key by which that is known.
    fn say_again(&mut self, at: GuestAt) {
        let unsure = &mut self.guests[at].memory.unsure;
        let Some(serial) = unsure.pop() else { return };
        if self.said.get(serial).key.is_some() {
            self.tally.count("a message was said again");
            self.say_message(at, serial);
        }
    }

    fn say_join(&mut self, at: GuestAt) {
        let room = self.some_room();
        let guest = &self.guests[at];
        let is_kept = room.starts_with(KEPT);
        let known = guest.memory.rooms.get(&room).cloned().filter(|_| is_kept);
        let wish = match (known, self.random.usize(0..4)) {
            (Some(position), 0..3) => Wish::Since(position),
            (_, 1) if is_kept => Wish::Last(self.random.u64(0..8)),
            _ => Wish::Nothing,
        };
        // Joining as a member is joining once; with a wish it would be something else.
        let is_in = match guest.rooms.get(&room).map(|member| member.stage) {
            Some(Stage::In) if !is_kept => true,
            Some(_) => return,
            None => false,
        };
        if !is_in {
            self.join(at, &room, wish.clone());
        }
        let text = format!(r#""type":"join_room","roomId":"{room}"{}"#, wish.fields());
        self.command(at, &text, Waiting::Join(room));
    }

    fn say_join_many(&mut self, at: GuestAt) {
        let mut rooms = self.rooms();
        rooms.retain(|room| !self.guests[at].rooms.contains_key(room));
        let rooms = self.random.choose_multiple(rooms, 3);
        for room in &rooms {
            self.join(at, room, Wish::Nothing);
        }
        let names: Vec<String> = rooms.iter().map(|room| format!("\"{room}\"")).collect();
        let text = format!(r#""type":"join_room","roomIds":[{}]"#, names.join(","));
        self.command(at, &text, Waiting::Many(rooms, false));
    }

    fn join(&mut self, at: GuestAt, room: &str, wish: Wish) {
        let member = Member { stage: Stage::Joining, membership: self.number(), since_rest: 0 };
        self.guests[at].rooms.insert(room.to_owned(), member);
        let topic = Topic::Room(room.to_owned());
        if self.keeps(&topic) {
            let conn = self.guests[at].conn;
            self.with_kept(|kept, facts| kept.join(at, &topic, conn, wish, facts));
        }
    }

    fn say_leave(&mut self, at: GuestAt) {
        let is_in = |(room, member): (&String, &Member)| (member.stage == Stage::In).then(|| room.clone());
        let rooms: Vec<String> = self.guests[at].rooms.iter().filter_map(is_in).collect();
        let Some(room) = self.random.choice(rooms) else { return };
        if let Some(member) = self.guests[at].rooms.get_mut(&room) {
            member.stage = Stage::Leaving;
        }
        self.command(at, &format!(r#""type":"leave_room","roomId":"{room}""#), Waiting::Leave(room));
    }

    /// Asks who is in a room; who must be named, if that is known.
    pub fn ask_who(&mut self, at: GuestAt, room: &str, users: Option<BTreeSet<String>>) {
        let waiting = Waiting::Presence(room.to_owned(), users);
        self.command(at, &format!(r#""type":"presence","roomId":"{room}""#), waiting);
    }

    fn ask_page(&mut self, at: GuestAt) {
        let is_in = |(room, member): (&String, &Member)| {
            (member.stage == Stage::In && room.starts_with(KEPT)).then(|| room.clone())
        };
        let rooms: Vec<String> = self.guests[at].rooms.iter().filter_map(is_in).collect();
        let Some(room) = self.random.choice(rooms) else { return };
        let end = self.kept.position(at, &Topic::Room(room.clone())).map_or(0, |live| live.offset);
        let before = self.random.bool().then(|| self.random.u64(0..=end + 2));
        let page = Page { before, limit: self.random.u64(0..8) };
        let text = format!(r#""type":"history","roomId":"{room}"{}"#, page.fields());
        self.command(at, &text, Waiting::Page(room, page));
    }

    fn say_resume(&mut self, at: GuestAt) {
        if self.plan.inbox_policy.is_none()
            || self.guests[at].waits.values().any(|waiting| matches!(waiting, Waiting::Resume))
        {
            return;
        }
        let Some(from) = self.guests[at].memory.inbox.take() else { return };
        let text = format!(r#""type":"resume","inbox":{{"epoch":"{}","offset":{}}}"#, from.epoch, from.offset);
        let topic = Topic::Inbox(self.guests[at].user.clone());
        self.with_kept(|kept, facts| kept.resume(at, &topic, from, facts));
        self.command(at, &text, Waiting::Resume);
    }

    fn command(&mut self, at: GuestAt, text: &str, waiting: Waiting) {
        let id = self.number();
        self.guests[at].waits.insert(id, waiting);
        self.say(at, TEXT, format!(r#"{{{text},"id":{id}}}"#).as_bytes());
    }

    fn say(&mut self, at: GuestAt, opcode: u8, payload: &[u8]) {
        self.trace.note(payload, || format!("guest {at} says {}", String::from_utf8_lossy(payload)));
        self.guests[at].end.say(opcode, payload, 1, None, &mut self.random);
    }
}
