//! What guests hear, and what it tells the model.

use std::collections::BTreeSet;

use fanfare::limits::FRAME_SHARE_BYTES;
use fanfare_simulated::end::{BINARY, Heard, TEXT};
use fanfare_simulated::message::{Fields, Serial, fields, number, position, recovered, serial_in, string};
use fanfare_simulated::replies::{News, Reply};

use super::oracle::{Body, GuestAt, Topic};
use super::plan::PLACES_ENOUGH;
use super::run::{Phase, Role, Run};

impl Run {
    /// A guest reads what has come; whether there was anything, the end included.
    pub fn read(&mut self, at: GuestAt, bytes_max: usize) -> bool {
        if self.guests[at].phase == Phase::Over {
            return false;
        }
        let client = self.guests[at].end.client;
        let bytes = self.node.world.receive(client, bytes_max);
        let mut heard = Vec::new();
        if !bytes.is_empty() {
            self.trace.note(&bytes, || format!("guest {at} reads {} bytes", bytes.len()));
            let end = &mut self.guests[at].end;
            let before = end.compressed;
            end.take(&bytes, |one| heard.push(one));
            if end.compressed > before {
                self.tally.add("a compressed message came", end.compressed - before);
            }
        }
        for one in heard {
            self.hear(at, one);
        }
        self.node.hang_up_handed();
        match self.node.world.ending(client) {
            Some(ending) => self.judge_ending(at, ending),
            None => return !bytes.is_empty(),
        }
        true
    }

    fn hear(&mut self, at: GuestAt, heard: Heard) {
        self.trace.note(&[], || match &heard {
            Heard::Message(_, payload) => {
                format!("guest {at} hears {}", String::from_utf8_lossy(&payload[..payload.len().min(160)]))
            }
            other => format!("guest {at} hears {other:?}"),
        });
        let is_raw = matches!(self.guests[at].role, Role::Raw { .. });
        match heard {
            Heard::Status(status) => self.hear_status(at, status),
            Heard::Message(opcode, bytes) if is_raw => self.hear_raw(at, opcode, bytes),
            Heard::Message(opcode, bytes) => {
                assert_eq!(opcode, TEXT, "guest {at}: JSON comes as text");
                self.hear_json(at, &String::from_utf8(bytes).expect("text is UTF-8"));
            }
            Heard::Ping(payload) => {
                let guest = &mut self.guests[at];
                if guest.answers && guest.phase == Phase::Open {
                    guest.end.pong(&payload, &mut self.random);
                }
            }
            Heard::Pong(payload) => {
                let owed = self.guests[at].pings.pop_front();
                assert_eq!(owed, Some(payload), "guest {at}: a pong answers its ping, in order");
            }
            Heard::Close(code, reason) => self.hear_close(at, code, &reason),
        }
    }

    fn hear_status(&mut self, at: GuestAt, status: u16) {
        let guest = &mut self.guests[at];
        assert_eq!(guest.phase, Phase::Asking, "guest {at}: one response to one request");
        match status {
            101 => {
                if let Role::Raw { room, .. } = guest.role {
                    guest.phase = Phase::Open;
                    self.oracle.confirm(at, room);
                }
            }
            503 => {
                let is_full = self.plan.connections_max < PLACES_ENOUGH;
                assert!(is_full || self.draining || self.plan.jumpy, "guest {at} is turned away for no reason");
                self.tally.count("refused: at capacity");
                self.refused(at);
            }
            408 if self.plan.jumpy => {
                self.tally.count("refused: too slow a request");
                self.refused(at);
            }
            other => panic!("guest {at}: its request is good, and it is answered {other}"),
        }
    }

    fn refused(&mut self, at: GuestAt) {
        self.guests[at].phase = Phase::Refused;
        self.oracle.die(at, false);
    }

    fn hear_close(&mut self, at: GuestAt, code: Option<u16>, reason: &str) {
        let guest = &mut self.guests[at];
        let mine = match guest.phase {
            Phase::Leaving(mine) => Some(mine),
            Phase::Asking | Phase::Open | Phase::Misbehaved | Phase::Told | Phase::Refused | Phase::Over => None,
        };
        let may_be_slow = !guest.is_wide && (self.plan.tight_outbox || self.plan.jumpy);
        match code {
            Some(1001) if mine.is_none() || reason.contains("retry_ms") => {
                assert!(self.draining, "guest {at} is sent away for no reason");
                let retry = reason.strip_prefix(r#"{"retry_ms":"#).and_then(|rest| rest.strip_suffix('}'));
                let retry_ms: Option<u64> = retry.and_then(|ms| ms.parse().ok());
                assert!(retry_ms.is_some_and(|ms| ms < 5_000), "guest {at}: {reason}");
            }
            Some(4008) => assert!(may_be_slow, "guest {at} reads all it gets, and is called slow"),
            Some(1013) => assert!(self.plan.tight_node_budget, "guest {at}: there is room for all it says"),
            Some(1002) => assert_eq!(guest.phase, Phase::Misbehaved, "guest {at} broke no rule"),
            other => assert_eq!(other, mine, "guest {at}: a close is answered with its own code"),
        }
        self.tally.count(match code {
            _ if code == mine => "closed by the client",
            Some(1001) => "closed by drain",
            Some(4008) => "closed as slow",
            Some(1013) => "closed for room",
            _ => "closed for a violation",
        });
        // Some answer the close, and some leave it to the server to give up on them.
        if guest.phase == Phase::Open && self.random.bool() {
            guest.end.close(code.unwrap_or(1000), &mut self.random);
        }
        guest.phase = Phase::Told;
        self.oracle.die(at, false);
    }

    fn hear_raw(&mut self, at: GuestAt, opcode: u8, bytes: Vec<u8>) {
        assert!(opcode == TEXT || opcode == BINARY);
        let serial = serial_in(&bytes);
        self.note_size(bytes.len());
        self.oracle.receive(at, serial, &Body::Raw { opcode, bytes }, None);
    }

    fn hear_json(&mut self, at: GuestAt, text: &str) {
        let fields = fields(text);
        let kind = string(&fields, "type");
        if self.guests[at].phase == Phase::Asking {
            assert_eq!(kind, "welcome", "guest {at}: the first message is the welcome");
            return self.hear_welcome(at, &fields);
        }
        let id = fields.get("id").map(|id| id.get());
        match kind.as_str() {
            "room_msg" => self.hear_message(at, "room_msg", "content", &fields),
            "private_msg" => self.hear_message(at, "private_msg", "content", &fields),
            "private" => self.hear_message(at, "private", "data", &fields),
            "broadcast" if fields.contains_key("content") => self.hear_message(at, "broadcast", "content", &fields),
            "broadcast" => self.hear_message(at, "broadcast", "data", &fields),
            "system" => self.hear_notice(at, &fields),
            "ack" => self.hear_reply(at, id, &Reply::Ack, &fields),
            "pong" => self.hear_reply(at, id, &Reply::Pong, &fields),
            "error" => self.hear_reply(at, id, &Reply::Error(&string(&fields, "code")), &fields),
            "joined" => {
                let room = string(&fields, "roomId");
                let recovered = recovered(&fields);
                self.hear_joined(at, &room, recovered, position(&fields));
                self.hear_reply(at, id, &Reply::Joined { room: &room, recovered }, &fields);
            }
            "history" => {
                let room = string(&fields, "roomId");
                self.hear_reply(at, id, &Reply::Page { room: &room }, &fields);
            }
            "resumed" => {
                self.hear_resumed(at, &fields);
                self.hear_reply(at, id, &Reply::Resumed, &fields);
            }
            "presence" => {
                let room = string(&fields, "roomId");
                self.judge_presence(at, &room, &fields);
                self.hear_reply(at, id, &Reply::Presence { room: &room }, &fields);
            }
            other => panic!("guest {at}: {other} is nothing a server says now: {text}"),
        }
    }

    fn hear_welcome(&mut self, at: GuestAt, fields: &Fields) {
        let (client_id, user) = (string(fields, "clientId"), string(fields, "userId"));
        assert_eq!(fields["heartbeat"].get(), self.plan.settings().heartbeat_ms.to_string());
        assert!(self.client_ids.insert(client_id.clone()), "client ids are given out once");
        match self.guests[at].user.clone() {
            Some(known) => assert_eq!(user, known, "guest {at}: its user is who it said it is"),
            None => {
                assert_eq!(user, client_id, "guest {at}: an anonymous user is named like its connection");
                let sent = self.oracle.tick();
                self.know(at, &user, sent);
            }
        }
        let guest = &mut self.guests[at];
        guest.client_id = Some(client_id);
        guest.user = Some(user.clone());
        guest.phase = Phase::Open;
        self.hear_of_inbox(at, &user, fields);
        for topic in [Topic::Inbox(user), Topic::Everyone, Topic::One(at)] {
            let topic = self.oracle.topic(&topic);
            self.oracle.confirm(at, topic);
        }
    }

    fn hear_message(&mut self, at: GuestAt, kind: &'static str, field: &'static str, fields: &Fields) {
        let (serial, body, time_ms) = self.message_of(at, kind, field, fields);
        if self.is_live(at, serial, fields) {
            self.oracle.receive(at, serial, &body, time_ms);
        } else {
            self.oracle.recall(at, serial, &body, time_ms);
        }
    }

    /// A message as it came: its serial, what it is, and its time.
    pub fn message_of(
        &mut self,
        at: GuestAt,
        kind: &'static str,
        field: &'static str,
        fields: &Fields,
    ) -> (Serial, Body, Option<u64>) {
        let value = fields.get(field).map_or_else(String::new, |value| value.get().to_owned());
        let serial = serial_in(value.as_bytes());
        self.note_size(value.len());
        let room = fields.contains_key("roomId").then(|| string(fields, "roomId"));
        let time_ms = number(fields, "time");
        assert_eq!(time_ms.is_some(), field == "content", "guest {at}: what has content has a time");
        let body = Body::Json { kind, room, from: string(fields, "from"), field, value };
        (serial, body, time_ms)
    }

    fn note_size(&mut self, bytes: usize) {
        if bytes >= FRAME_SHARE_BYTES {
            self.tally.count("a large message came");
        }
    }

    fn hear_notice(&mut self, at: GuestAt, fields: &Fields) {
        let (room, event, user) = (string(fields, "roomId"), string(fields, "event"), string(fields, "userId"));
        let (joins, text) = match event.as_str() {
            "join" => (true, format!("{user} joined")),
            "leave" => (false, format!("{user} left")),
            other => panic!("guest {at}: no notice tells of {other}"),
        };
        assert_eq!(string(fields, "content"), text);
        let room = self.oracle.topic(&Topic::Room(room));
        self.oracle.notices.hear(room, at, &user, joins);
    }

    fn hear_reply(&mut self, at: GuestAt, id: Option<&str>, reply: &Reply<'_>, fields: &Fields) {
        match self.guests[at].replies.take(id, reply) {
            News::Nothing => {}
            News::Routed(serial) => {
                self.oracle.routed(serial);
                self.hear_placed(at, serial, position(fields));
            }
            News::Done(op) => {
                self.oracle.done(op);
                if *reply == Reply::Ack {
                    self.streams.left(at, op.topic);
                }
            }
            News::Page(page) => self.hear_page(at, page, fields),
        }
    }

    /// The count is of the users told of, each once; at rest they are the model's.
    fn judge_presence(&mut self, at: GuestAt, room: &str, fields: &Fields) {
        let users: Vec<String> = serde_json::from_str(fields["users"].get()).expect("users are strings");
        let told: BTreeSet<&str> = users.iter().map(String::as_str).collect();
        assert_eq!(fields["count"].get(), users.len().to_string(), "guest {at}: {room}");
        assert_eq!(told.len(), users.len(), "guest {at}: {room}: a user is told of once");
        if self.is_resting {
            self.tally.count("a presence at rest");
            let room = self.oracle.topic(&Topic::Room(room.to_owned()));
            assert_eq!(told, self.oracle.users(room), "guest {at}: who is in {room:?}");
        }
    }
}
