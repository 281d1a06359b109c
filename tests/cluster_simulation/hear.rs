//! What guests hear, and what it tells the model.

use std::collections::BTreeSet;

use fanfare_simulated::end::Heard;
use fanfare_simulated::message::{Position, Serial, serial_in};
use serde_json::Value;

use super::kept::Told;
use super::run::{Guest, Phase, Run, Stage, Waiting};
use super::said::{GuestAt, Topic};

impl Run {
    /// A guest reads what has come; whether there was anything, the end included.
    pub fn read(&mut self, at: GuestAt) -> bool {
        let Guest { phase, node, end, .. } = &mut self.guests[at];
        if *phase == Phase::Over {
            return false;
        }
        let world = self.nodes[*node].seats.world.clone();
        let bytes = world.receive(end.client, usize::MAX);
        let mut heard = Vec::new();
        end.take(&bytes, |one| heard.push(one));
        for one in heard {
            self.hear(at, one);
        }
        if world.ending(self.guests[at].end.client).is_none() {
            return !bytes.is_empty();
        }
        assert_eq!(self.guests[at].phase, Phase::Leaving, "guest {at}: its connection ended without a reason");
        world.close(self.guests[at].end.client);
        self.over(at);
        true
    }

    fn hear(&mut self, at: GuestAt, heard: Heard) {
        self.trace.note(&[], || match &heard {
            Heard::Message(_, payload) => format!("guest {at} hears {}", String::from_utf8_lossy(payload)),
            other => format!("guest {at} hears {other:?}"),
        });
        match heard {
            Heard::Status(101) if self.guests[at].raw.is_some() => self.open(at),
            Heard::Status(101) | Heard::Ping(_) | Heard::Pong(_) => {}
            Heard::Status(other) => panic!("guest {at}: its request is good, and it is answered {other}"),
            Heard::Message(_, bytes) => match self.guests[at].raw.clone() {
                Some(room) => self.receive(at, &Topic::Raw(room), serial_in(&bytes), None),
                None => {
                    let message = serde_json::from_slice(&bytes).expect("messages are JSON");
                    self.hear_json(at, &message);
                }
            },
            Heard::Close(code, reason) => {
                let is_answer = self.guests[at].phase == Phase::Leaving && code == Some(1000);
                assert!(is_answer, "guest {at} is sent away with {code:?} {reason}");
            }
        }
    }

    fn open(&mut self, at: GuestAt) {
        let rests = self.rests;
        let guest = &mut self.guests[at];
        guest.since_rest = rests;
        if guest.phase == Phase::Asking {
            guest.phase = Phase::Open;
        }
    }

    fn hear_json(&mut self, at: GuestAt, message: &Value) {
        let kind = message["type"].as_str().expect("messages have a type");
        if self.guests[at].phase == Phase::Asking {
            assert_eq!(kind, "welcome", "guest {at}: the first message is the welcome");
            return self.hear_welcome(at, message);
        }
        let user = self.guests[at].user.clone();
        match kind {
            "room_msg" => self.hear_message(at, &Topic::Room(text(message, "roomId")), "content", message),
            "private_msg" => self.hear_message(at, &Topic::Inbox(user), "content", message),
            "private" => self.hear_message(at, &Topic::One(at), "data", message),
            "broadcast" => {
                let field = if message.get("content").is_some() { "content" } else { "data" };
                self.hear_message(at, &Topic::Everyone, field, message);
            }
            "system" => {
                let room = text(message, "roomId");
                assert!(self.guests[at].rooms.contains_key(&room), "guest {at} is no member of {room}: {message}");
            }
            "gap" => {
                let (topic, place) = match message.get("inbox") {
                    Some(inbox) => (Topic::Inbox(user), position(inbox)),
                    None => (Topic::Room(text(message, "roomId")), position(message)),
                };
                let place = place.expect("a gap tells where it goes on");
                let told = self.with_kept(|kept, facts| kept.gap(at, &topic, place, facts));
                self.tally_told(told);
            }
            _ => {
                let id = message["id"].as_u64().unwrap_or_else(|| panic!("guest {at}: nobody asked for {message}"));
                let waiting = self.guests[at].waits.remove(&id);
                let waiting = waiting.unwrap_or_else(|| panic!("guest {at}: nothing waits for {message}"));
                self.hear_reply(at, id, waiting, kind, message);
            }
        }
    }

    fn hear_welcome(&mut self, at: GuestAt, message: &Value) {
        self.open(at);
        let client_id = text(message, "clientId");
        let guest = &mut self.guests[at];
        let node = &self.nodes[guest.node];
        guest.conn = (node.run, node.conn(&client_id));
        guest.client_id = Some(client_id);
        let topic = Topic::Inbox(guest.user.clone());
        if self.keeps(&topic) {
            let place = message.get("inbox").and_then(position);
            assert!(place.is_some() || !self.is_calm, "guest {at}: Redis was there all the time: {message}");
            let conn = self.guests[at].conn;
            self.kept.welcome(at, &topic, conn, place);
        }
    }

    fn hear_message(&mut self, at: GuestAt, topic: &Topic, field: &str, message: &Value) {
        let serial = serial_in(text(message, field).as_bytes());
        assert_eq!(text(message, "from"), self.said.get(serial).user, "guest {at}: {message}");
        self.receive(at, topic, serial, message["offset"].as_u64());
    }

    fn receive(&mut self, at: GuestAt, topic: &Topic, serial: Serial, offset: Option<u64>) {
        let said = self.said.get(serial);
        assert_eq!(said.topic, *topic, "guest {at} gets #{serial}#");
        if let Topic::Room(room) = topic {
            assert!(self.guests[at].rooms.contains_key(room), "guest {at} gets #{serial}# and is no member of {room}");
        }
        match (self.keeps(topic), offset) {
            (true, Some(offset)) => self.with_kept(|kept, facts| kept.receive(at, topic, offset, serial, facts)),
            (false, None) => {
                assert!(!said.not_to_sender || said.by != at, "guest {at} gets #{serial}#, which is its own");
                self.plain.receive(at, topic, serial, &self.said);
            }
            (_, offset) => panic!("guest {at} gets #{serial}# of {topic:?} as {offset:?}"),
        }
    }

    fn hear_reply(&mut self, at: GuestAt, id: u64, waiting: Waiting, kind: &str, message: &Value) {
        match (waiting, kind) {
            (Waiting::Publish(serial), "ack") => self.hear_ack(at, serial, message),
            (Waiting::Join(room), "joined") => self.hear_joined(at, &room, message),
            (Waiting::Many(mut rooms, has_failed), "joined") => {
                let room = text(message, "roomId");
                let place = rooms.iter().position(|other| *other == room);
                rooms.remove(place.unwrap_or_else(|| panic!("guest {at}: {room} was not asked for: {message}")));
                self.guests[at].waits.insert(id, Waiting::Many(rooms, has_failed));
                self.hear_joined(at, &room, message);
            }
            (Waiting::Many(rooms, false), "ack") => assert!(rooms.is_empty(), "guest {at}: {rooms:?} are not joined"),
            (Waiting::Leave(room), "ack") => {
                let topic = Topic::Room(room.clone());
                if let Some(live) = self.kept.position(at, &topic).cloned() {
                    self.guests[at].memory.rooms.insert(room.clone(), live);
                }
                self.out_of(at, &room);
            }
            (Waiting::Presence(room, expected), "presence") => self.hear_presence(at, &room, expected, message),
            (Waiting::Page(room, page), "history") => {
                let messages = message["messages"].as_array().expect("a page has messages");
                let one = |message: &Value| {
                    (message["offset"].as_u64().unwrap_or(0), serial_in(text(message, "content").as_bytes()))
                };
                let messages: Vec<(u64, Serial)> = messages.iter().map(one).collect();
                let place = position(message).expect("a page of a room that keeps history has a place");
                let topic = Topic::Room(room);
                self.with_kept(|kept, facts| kept.page(at, &topic, &page, &place, &messages, facts));
                self.tally.add("a page came", u64::from(!messages.is_empty()));
            }
            (Waiting::Resume, "resumed") => {
                let topic = Topic::Inbox(self.guests[at].user.clone());
                let (place, recovered) = (position(message), message["recovered"].as_bool());
                let told = self.with_kept(|kept, facts| kept.answer(at, &topic, place, recovered, facts));
                self.tally_told(told);
            }
            (Waiting::Ping, "pong") => {}
            (waiting, "error") => {
                assert_eq!(message["code"], "unavailable", "guest {at}: {waiting:?} is refused with {message}");
                assert!(!self.is_calm, "guest {at}: {waiting:?} is refused, and nothing was in trouble");
                self.hear_unavailable(at, id, waiting);
            }
            (waiting, _) => panic!("guest {at}: {message} is no answer to {waiting:?}"),
        }
    }

    fn hear_ack(&mut self, at: GuestAt, serial: Serial, message: &Value) {
        let topic = &self.said.get(serial).topic;
        let place = position(message);
        assert_eq!(place.is_some(), self.keeps(topic), "guest {at}: {message} for #{serial}# to {topic:?}");
        if let Some(Position { epoch, offset }) = place {
            let written = self.redis.chronicle.written(&topic.channel(), &epoch, offset);
            assert_eq!(written.serial, serial, "guest {at}: {message} for #{serial}#");
            self.tally.count("a message was acked as stored");
        }
    }

    fn hear_joined(&mut self, at: GuestAt, room: &str, message: &Value) {
        assert_eq!(text(message, "roomId"), room, "guest {at}");
        let rests = self.rests;
        let Some(member) = self.guests[at].rooms.get_mut(room) else {
            panic!("guest {at}: {message}, which it has left")
        };
        if member.stage == Stage::Joining {
            (member.stage, member.since_rest) = (Stage::In, rests);
        }
        let topic = Topic::Room(room.to_owned());
        let (place, recovered) = (position(message), message["recovered"].as_bool());
        assert_eq!(place.is_some(), self.keeps(&topic), "guest {at}: {message}");
        if place.is_some() {
            let told = self.with_kept(|kept, facts| kept.answer(at, &topic, place, recovered, facts));
            self.tally_told(told);
        }
    }

    fn hear_presence(&mut self, at: GuestAt, room: &str, expected: Option<BTreeSet<String>>, message: &Value) {
        let users = message["users"].as_array().expect("presence names users");
        let told: BTreeSet<String> = users.iter().filter_map(|user| user.as_str().map(str::to_owned)).collect();
        assert_eq!((told.len(), message["count"].as_u64()), (users.len(), Some(users.len() as u64)), "{message}");
        if let Some(expected) = expected {
            assert_eq!(told, expected, "guest {at}: who is in {room}");
            self.tally.add("a presence at rest named somebody", u64::from(!told.is_empty()));
        }
    }

    fn hear_unavailable(&mut self, at: GuestAt, id: u64, waiting: Waiting) {
        self.tally.count("a command was refused as unavailable");
        match waiting {
            Waiting::Publish(serial) => self.guests[at].memory.unsure.push(serial),
            Waiting::Join(room) => self.out_of(at, &room),
            Waiting::Many(rooms, has_failed) => {
                assert!(!has_failed, "guest {at}: a command fails once");
                self.guests[at].waits.insert(id, Waiting::Many(rooms, true));
            }
            Waiting::Resume => {
                let topic = Topic::Inbox(self.guests[at].user.clone());
                self.kept.refuse_resume(at, &topic);
            }
            Waiting::Page(..) => {}
            Waiting::Leave(_) | Waiting::Presence(..) | Waiting::Ping => {
                panic!("guest {at}: {waiting:?} needs no history")
            }
        }
    }

    fn out_of(&mut self, at: GuestAt, room: &str) {
        self.guests[at].rooms.remove(room);
        self.kept.leave(at, &Topic::Room(room.to_owned()));
    }

    fn tally_told(&mut self, told: Told) {
        match told {
            Told::Nothing => {}
            Told::Recovered => self.tally.count("all that was missed was recovered"),
            Told::RecoveredNothing => self.tally.count("nothing was missed"),
            Told::NotRecovered => self.tally.count("something could not be recovered"),
            Told::GapInEpoch => self.tally.count("a gap in an epoch"),
            Told::NewEpoch => self.tally.count("a gap into another epoch"),
        }
    }
}

fn text(message: &Value, field: &str) -> String {
    message[field].as_str().unwrap_or_else(|| panic!("no {field} in {message}")).to_owned()
}

fn position(message: &Value) -> Option<Position> {
    let epoch = message.get("epoch")?.as_str().expect("an epoch is a word").to_owned();
    let offset = message["offset"].as_u64().expect("an epoch comes with an offset");
    Some(Position { epoch, offset })
}
