//! What tame clients say, and what they may expect of it.

use fanfare_seeds::frame::{BINARY, Frame, TEXT};
use fanfare_seeds::script::WORDS;
use fanfare_simulated::message::json;
use fanfare_simulated::replies::Awaited;

use super::Run;
use super::guest::{Change, Phase, Role, room_name, user_name};
use super::model::{Body, GuestAt, Serial, Topic};

/// Bytes a client sends without having had the answer to its request; the server takes 64 KiB.
const EARLY_BYTES_MAX: usize = 40_000;

/// From this size on, a message is large.
pub const LARGE_SIZE: u8 = 254;

/// From this bit on in `about`, a command has no id.
const NO_ID: u8 = 0x80;

impl Run {
    /// A client says one of [`WORDS`]; in a raw room a message, whatever the word.
    pub fn say(&mut self, at: GuestAt, word: u8, about: u8, size: u8) {
        let guest = &self.guests[at];
        let is_early = guest.phase == Phase::Asking && guest.early_bytes < EARLY_BYTES_MAX;
        // An anonymous one must know its own name first: it stands in what it says.
        let is_known = guest.user.is_some() || guest.role != Role::Json;
        if !is_known || !(guest.phase == Phase::Open || is_early) {
            return;
        }
        if let Role::Raw { room, echo } = &guest.role {
            let (topic, echo) = (Topic::Raw(room.clone()), *echo);
            return self.say_raw(at, topic, echo, size);
        }
        let room = room_name(about);
        let has_id = about & NO_ID == 0;
        match WORDS[usize::from(word) % WORDS.len()] {
            "room_msg" => {
                let address = format!(r#""roomId":{},"#, json(&room));
                self.publish(at, Topic::Room(room), "room_msg", "content", &address, (has_id, size));
            }
            "private_msg" => {
                let user = match self.guests.get(usize::from(about & !NO_ID)).and_then(|guest| guest.user.clone()) {
                    Some(user) => user,
                    None => user_name(about),
                };
                let address = format!(r#""toUser":{},"#, json(&user));
                self.publish(at, Topic::User(user), "private_msg", "content", &address, (has_id, size));
            }
            "private" => {
                let to = usize::from(about & !NO_ID) % self.guests.len();
                let client_id = self.guests[to].client_id.clone().unwrap_or_else(|| "nobody".into());
                let address = format!(r#""to":{},"#, json(&client_id));
                self.publish(at, Topic::One(to), "private", "data", &address, (has_id, size));
            }
            "broadcast content" => self.publish(at, Topic::Everyone, "broadcast", "content", "", (has_id, size)),
            "broadcast data" => self.publish(at, Topic::Everyone, "broadcast", "data", "", (has_id, size)),
            "join_room" => self.join(at, room, false, has_id),
            "join_room from a position" => self.join(at, room, true, has_id),
            "join_room of many" => self.join_many(at, about),
            "leave_room" => {
                let text = format!(r#""type":"leave_room","roomId":{}"#, json(&room));
                self.guests[at].rooms.remove(&room);
                let change = self.model.leave(Topic::Room(room.clone()), at);
                self.command(at, &text, has_id.then_some(Awaited::Left((room, change))));
            }
            "presence" => self.say_presence(at, room),
            "presence many times" => (0..=size).for_each(|_| self.say_presence(at, room.clone())),
            "ping" => self.command(at, r#""type":"ping""#, Some(Awaited::Pong)),
            _ => {
                let (text, code) = match about % 3 {
                    0 => (r#""type":"dance""#, "unknown_type"),
                    1 => (r#""type":"room_msg","content":1"#, "missing_field"),
                    _ => (r#""type":"join_room","roomId":"""#, "bad_room_id"),
                };
                self.command(at, text, Some(Awaited::Error(code)));
            }
        }
    }

    fn say_presence(&mut self, at: GuestAt, room: String) {
        let text = format!(r#""type":"presence","roomId":{}"#, json(&room));
        self.command(at, &text, Some(Awaited::Presence { room }));
    }

    fn say_raw(&mut self, at: GuestAt, topic: Topic, echo: bool, size: u8) {
        let is_text = size.is_multiple_of(2);
        let serial = self.model.say(at, topic, !echo, |serial| {
            let text = format!("#{serial}#{}", padding(size));
            if is_text { Body::Text(text) } else { Body::Binary([text.as_bytes(), &[0xFF]].concat()) }
        });
        let text = format!("#{serial}#{}", padding(size));
        let frame = match is_text {
            true => Frame::new(TEXT, text),
            false => Frame::new(BINARY, [text.as_bytes(), &[0xFF]].concat()),
        };
        self.guests[at].send(&self.node.world, &frame);
    }

    fn publish(
        &mut self,
        at: GuestAt,
        topic: Topic,
        kind: &'static str,
        field: &'static str,
        address: &str,
        (has_id, size): (bool, u8),
    ) {
        let from = self.guests[at].user.clone().unwrap_or_default();
        let not_to_sender = kind == "room_msg" || kind == "broadcast" && field == "content";
        let serial =
            self.model.say(at, topic, not_to_sender, |serial| Body::Json { kind, from, value: value(serial, size) });
        let text = format!(r#"{address}"type":"{kind}", "{field}" : {} "#, value(serial, size));
        self.command(at, &text, has_id.then_some(Awaited::Ack));
    }

    fn join(&mut self, at: GuestAt, room: String, resumes: bool, has_id: bool) {
        let position = if resumes { r#","since":{"epoch":"e","offset":1}"# } else { "" };
        let text = format!(r#""type":"join_room","roomId":{}{position}"#, json(&room));
        if let Some(code) = self.join_refusal(at, std::slice::from_ref(&room), resumes) {
            return self.command(at, &text, Some(Awaited::Error(code)));
        }
        let change = self.joins(at, &room);
        let has_reply = has_id || resumes;
        self.command(
            at,
            &text,
            has_reply.then_some(Awaited::Joined { room: room.clone(), op: (room, change), resumes }),
        );
    }

    fn join_many(&mut self, at: GuestAt, about: u8) {
        let rooms: Vec<String> = (0..4).filter(|room| about >> room & 1 == 1).map(room_name).collect();
        let resumes = about & 0x40 != 0;
        let names: Vec<String> = rooms.iter().map(|room| json(room)).collect();
        let position = if resumes { r#","since":{"epoch":"e","offset":1}"# } else { "" };
        let text = format!(r#""type":"join_room","roomIds":[{}]{position}"#, names.join(","));
        if let Some(code) = self.join_refusal(at, &rooms, resumes) {
            return self.command(at, &text, Some(Awaited::Error(code)));
        }
        let rooms = rooms.into_iter().map(|room| (room.clone(), (room.clone(), self.joins(at, &room)))).collect();
        self.command(at, &text, Some(Awaited::Many { rooms, resumes }));
    }

    fn joins(&mut self, at: GuestAt, room: &str) -> u32 {
        self.guests[at].rooms.insert(room.to_owned());
        self.model.join(Topic::Room(room.to_owned()), at)
    }

    /// The code with which a join is refused, if it is.
    fn join_refusal(&self, at: GuestAt, rooms: &[String], resumes: bool) -> Option<&'static str> {
        let known = &self.guests[at].rooms;
        if resumes && rooms.iter().any(|room| known.contains(room)) {
            return Some("already_joined");
        }
        let fresh = rooms.iter().filter(|room| !known.contains(*room)).count();
        let rooms_max = if self.hard.few_rooms { 2 } else { usize::MAX };
        (fresh > 0 && known.len() + fresh > rooms_max).then_some("too_many_rooms")
    }

    /// Sends a command; it has an id where a reply is awaited.
    pub fn command(&mut self, at: GuestAt, text: &str, awaited: Option<Awaited<Change>>) {
        let guest = &mut self.guests[at];
        let text = match awaited {
            None => format!("{{{text}}}"),
            Some(awaited) => {
                self.ids += 1;
                let number = self.ids;
                let id = if number.is_multiple_of(2) { number.to_string() } else { format!("\"c{number}\"") };
                let text = format!(r#"{{{text},"id":{id}}}"#);
                guest.replies.await_one(Some(&id), awaited);
                text
            }
        };
        guest.send(&self.node.world, &Frame::new(TEXT, text));
    }
}

/// A value with the message's serial in it.
fn value(serial: Serial, size: u8) -> String {
    match size % 4 {
        0 => format!(r##"{{"b":"#{serial}#{}","a":1e400,"a":123456789012345678901234567890}}"##, padding(size)),
        1 => format!(r##"["\ud800 #{serial}#" , null,"{}"]"##, padding(size)),
        _ => format!(r##""#{serial}#{}""##, padding(size)),
    }
}

/// How much longer a message is than it has to be: the largest is shared instead of copied.
fn padding(size: u8) -> String {
    let bytes = match size {
        255 => 17_000,
        LARGE_SIZE => 3_000,
        size => usize::from(size),
    };
    "x".repeat(bytes)
}
