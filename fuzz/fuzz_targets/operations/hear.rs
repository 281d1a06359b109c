//! What comes to clients, and whether it may.

use std::collections::BTreeSet;

use fanfare::reactor::sim::Ending;
use fanfare_seeds::frame::{CLOSE, Frame, PONG};
use fanfare_simulated::end::{BINARY, Heard, TEXT};
use fanfare_simulated::message::{Fields, fields, number, recovered, string};
use fanfare_simulated::replies::{News, Reply};

use super::Run;
use super::guest::{Phase, Role, WILD_USER};
use super::model::{Body, GuestAt, Topic};

impl Run {
    /// A client reads what has come; whether there was anything, the end included.
    pub fn read(&mut self, at: GuestAt, bytes_max: usize) -> bool {
        if self.guests[at].phase == Phase::Over {
            return false;
        }
        let client = self.guests[at].end.client;
        let bytes = self.node.world.receive(client, bytes_max);
        let mut heard = Vec::new();
        self.guests[at].end.take(&bytes, |one| heard.push(one));
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
        self.note(|| format!("client {at} hears {heard:?}"));
        let is_tame = self.guests[at].is_tame();
        let is_raw = matches!(self.guests[at].role, Role::Raw { .. });
        match heard {
            Heard::Status(status) => self.hear_status(at, status),
            Heard::Message(TEXT, bytes) => {
                let text = String::from_utf8(bytes).expect("what is sent as text is UTF-8");
                self.hear_text(at, text);
            }
            Heard::Message(..) | Heard::Ping(_) | Heard::Pong(_) | Heard::Close(..) if !is_tame => {}
            Heard::Message(BINARY, bytes) if is_raw => self.model.hear(at, &Body::Binary(bytes), None, false),
            Heard::Message(opcode, bytes) => panic!("client {at}: JSON comes as text, and here is {opcode}: {bytes:?}"),
            Heard::Ping(payload) => {
                if self.guests[at].phase == Phase::Open {
                    self.guests[at].send(&self.node.world, &Frame::new(PONG, payload));
                }
            }
            Heard::Pong(_) => panic!("client {at} asked for no pong"),
            Heard::Close(code, _) => self.hear_close(at, code),
        }
    }

    fn hear_text(&mut self, at: GuestAt, text: String) {
        match self.guests[at].role {
            Role::Json => self.hear_json(at, &text),
            Role::Raw { .. } => self.model.hear(at, &Body::Text(text), None, false),
            Role::Wild => self.overhear(at, &text),
            Role::WildRaw => {}
        }
    }

    fn hear_status(&mut self, at: GuestAt, status: u16) {
        let guest = &mut self.guests[at];
        assert_eq!(guest.phase, Phase::Asking, "client {at}: one response to one request");
        let may_be_refused = match status {
            101 => {
                self.accepted += 1;
                guest.phase = Phase::Open;
                if let Role::Raw { room, .. } = &guest.role {
                    self.model.done(Topic::Raw(room.clone()), at, 1);
                }
                return;
            }
            503 => self.hard.few_places || self.hard.tight_node || self.draining || self.hard.jumpy,
            408 => self.hard.jumpy,
            400 | 404 | 426 | 431 => false,
            other => panic!("client {at}: no response has the status {other}"),
        };
        assert!(may_be_refused || !guest.is_tame(), "client {at}: its good request is answered {status}");
        guest.phase = Phase::Refused;
    }

    fn hear_close(&mut self, at: GuestAt, code: Option<u16>) {
        let guest = &mut self.guests[at];
        let mine = match guest.phase {
            Phase::Closing(code) => Some(code),
            Phase::Asking | Phase::Open | Phase::Told | Phase::Refused | Phase::Over => None,
        };
        let may_be_slow = self.hard.tight_outbox || self.hard.tight_node || self.hard.jumpy;
        let is_allowed = match code {
            Some(4008) => may_be_slow,
            Some(1013) => self.hard.tight_node,
            Some(1001) if self.draining => true,
            other => mine.is_some() && other == mine,
        };
        assert!(is_allowed, "client {at} is closed with {code:?} in {:?}", guest.phase);
        if guest.phase == Phase::Open {
            let code = code.unwrap_or(1000);
            guest.send(&self.node.world, &Frame::new(CLOSE, code.to_be_bytes()));
        }
        guest.phase = Phase::Told;
    }

    /// The connection is over: whether the server was allowed to end it, and like this.
    fn judge_ending(&mut self, at: GuestAt, ending: Ending) {
        let guest = &self.guests[at];
        // One that breaks the rules while it is told to go is not told twice.
        let tight = self.hard.tight_outbox || self.hard.tight_node || self.draining;
        let may_be_cut = self.hard.jumpy || !guest.is_tame() && tight;
        assert!(!guest.end.is_cut() || may_be_cut, "client {at}: its connection ends inside of a frame: {ending:?}");
        let is_allowed = match guest.phase {
            Phase::Told | Phase::Refused => true,
            Phase::Asking => self.hard.jumpy || self.draining,
            Phase::Open | Phase::Closing(_) => self.hard.jumpy,
            Phase::Over => unreachable!("a connection ends once"),
        };
        assert!(is_allowed || !guest.is_tame(), "client {at} is cut off in {:?}: {ending:?}", guest.phase);
        self.over(at);
    }

    /// A wild client gets no tame message twice either.
    fn overhear(&mut self, at: GuestAt, text: &str) {
        if let Ok(fields) = serde_json::from_str(text)
            && let Some(body) = body(&fields)
        {
            self.model.hear(at, &body, number(&fields, "time"), true);
        }
    }

    fn hear_json(&mut self, at: GuestAt, text: &str) {
        let fields = fields(text);
        if let Some(body) = body(&fields) {
            return self.model.hear(at, &body, number(&fields, "time"), false);
        }
        let kind = string(&fields, "type");
        let is_from_wild = || fields.contains_key("from") && string(&fields, "from") == WILD_USER;
        match kind.as_str() {
            "welcome" => self.hear_welcome(at, &fields),
            "system" => {
                let (room, user) = (Topic::Room(string(&fields, "roomId")), string(&fields, "userId"));
                assert!(user == WILD_USER || self.hard.notices, "client {at}: notices are off");
                assert!(self.model.may(&room, at), "client {at}: a notice of {room:?}, in which it is not");
            }
            "ack" | "pong" | "error" | "joined" | "presence" => self.hear_reply(at, &kind, &fields),
            _ => assert!(is_from_wild(), "client {at}: nothing a server says now: {text}"),
        }
    }

    fn hear_welcome(&mut self, at: GuestAt, fields: &Fields) {
        let (client_id, user) = (string(fields, "clientId"), string(fields, "userId"));
        let guest = &mut self.guests[at];
        let is_accepted = matches!(guest.phase, Phase::Open | Phase::Closing(_));
        assert!(is_accepted && guest.client_id.is_none(), "client {at} is welcomed once, behind the 101");
        match &guest.user {
            Some(known) => assert_eq!(user, *known, "client {at}: its user is who it said it is"),
            None => assert_eq!(user, client_id, "client {at}: an anonymous user is named like its connection"),
        }
        let is_anonymous = guest.user.is_none();
        guest.client_id = Some(client_id);
        guest.user = Some(user.clone());
        if is_anonymous {
            self.know(at, &user);
        }
        for topic in [Topic::User(user), Topic::Everyone, Topic::One(at)] {
            self.model.done(topic, at, 1);
        }
    }

    fn hear_reply(&mut self, at: GuestAt, kind: &str, fields: &Fields) {
        let id = fields.get("id").unwrap_or_else(|| panic!("client {at}: {kind} without an id")).get();
        let room = fields.contains_key("roomId").then(|| string(fields, "roomId"));
        let room = room.as_deref().unwrap_or_default();
        let code = fields.contains_key("code").then(|| string(fields, "code"));
        let recovered = recovered(fields);
        assert_ne!(recovered, Some(true), "client {at}: no room keeps history");
        let reply = match kind {
            "ack" => Reply::Ack,
            "pong" => Reply::Pong,
            "joined" => Reply::Joined { room, recovered },
            "presence" => Reply::Presence { room },
            _ => Reply::Error(code.as_deref().unwrap_or_default()),
        };
        if kind == "presence" {
            self.judge_presence(at, room, fields);
        }
        match self.guests[at].replies.take(Some(id), &reply) {
            News::Done((room, change)) => self.model.done(Topic::Room(room), at, change),
            News::Nothing | News::Routed(_) | News::Page(_) => {}
        }
    }

    /// Each user is told of once; at rest they are the model's, and the wild one perhaps.
    fn judge_presence(&mut self, at: GuestAt, room: &str, fields: &Fields) {
        let users: Vec<String> = serde_json::from_str(fields["users"].get()).expect("users are strings");
        let mut told: BTreeSet<&str> = users.iter().map(String::as_str).collect();
        assert_eq!(fields["count"].get(), users.len().to_string(), "client {at}: {room}");
        assert_eq!(told.len(), users.len(), "client {at}: {room}: a user is told of once");
        if self.is_resting {
            told.remove(WILD_USER);
            let topic = Topic::Room(room.to_owned());
            let is_in = |at: &GuestAt| self.guests[*at].phase == Phase::Open && self.model.wants(&topic, *at);
            let inside = (0..self.guests.len()).filter(is_in);
            let expected: BTreeSet<&str> = inside.filter_map(|at| self.guests[at].user.as_deref()).collect();
            assert_eq!(told, expected, "client {at}: who is in {room}");
        }
    }
}

/// The message of a tame client that these fields are, if they are one.
fn body(fields: &Fields) -> Option<Body> {
    let kind = fields.get("type")?.get();
    let kinds = ["room_msg", "private_msg", "private", "broadcast"];
    let kind = kinds.into_iter().find(|known| kind.trim_matches('"') == *known)?;
    let value = fields.get("content").or_else(|| fields.get("data"))?.get().to_owned();
    let from = string(fields, "from");
    (from != WILD_USER).then_some(Body::Json { kind, from, value })
}
