//! What guests ask of histories, and what they hear of them.

use fanfare_simulated::message::{Fields, Page, Position, Serial, Wish, json, number, position, recovered, string};
use fanfare_simulated::replies::Awaited;

use super::oracle::{GuestAt, Topic, TopicAt};
use super::run::{Phase, Run};
use super::streams::{Answer, Came, Told};

/// Messages that a guest asks for at most.
const ASKED_MAX: u64 = 8;

impl Run {
    /// Whether a topic keeps history.
    pub fn keeps(&self, topic: TopicAt) -> bool {
        self.plan.policy(self.oracle.topic_at(topic)).is_some()
    }

    /// A guest that is out of a room which keeps history joins it, and may ask for what was; a member asks in vain.
    pub fn say_kept_join(&mut self, at: GuestAt, room: String, topic: TopicAt) {
        let wish = match self.random.usize(0..4) {
            0..2 => self.streams.some_position(topic, &mut self.random).map_or(Wish::Nothing, Wish::Since),
            2 => Wish::Last(self.random.u64(0..ASKED_MAX)),
            _ => Wish::Nothing,
        };
        let resumes = matches!(wish, Wish::Since(_));
        if !(self.streams.is_out(at, topic) || resumes && self.streams.live_at(at, topic).is_some()) {
            return;
        }
        let text = format!(r#""type":"join_room","roomId":{}{}"#, json(&room), wish.fields());
        if let Some(code) = self.join_refusal(at, std::slice::from_ref(&room), resumes) {
            return self.command_with_id(at, &text, Awaited::Error(code));
        }
        let op = self.join(at, &room, true);
        self.streams.join(at, topic, wish);
        self.command_with_id(at, &text, Awaited::Joined { room, op, resumes });
    }

    /// A member asks for a page.
    pub fn ask_page(&mut self, at: GuestAt, room: String) {
        let topic = self.oracle.topic(&Topic::Room(room.clone()));
        let Some(end) = self.streams.live_at(at, topic).map(|live| live.offset) else { return };
        let before = self.random.bool().then(|| self.random.u64(0..=end + 2));
        let page = Page { before, limit: self.random.u64(0..ASKED_MAX) };
        let text = format!(r#""type":"history","roomId":{}{}"#, json(&room), page.fields());
        self.command_with_id(at, &text, Awaited::Page { room, page });
    }

    /// A guest asks for what came to its inbox before it was welcomed.
    pub fn say_resume(&mut self, at: GuestAt) {
        let Some(user) = self.guests[at].user.clone() else { return };
        let inbox = self.oracle.topic(&Topic::Inbox(user));
        let Some(from) = self.streams.some_position(inbox, &mut self.random) else { return };
        let Position { epoch, offset } = from.clone();
        if self.guests[at].phase == Phase::Open && self.streams.resume(at, inbox, from) {
            let text = format!(r#""type":"resume","inbox":{{"epoch":"{epoch}","offset":{offset}}}"#);
            self.command_with_id(at, &text, Awaited::Resumed);
        }
    }

    /// A connection is told where its inbox is.
    pub fn hear_of_inbox(&mut self, at: GuestAt, user: &str, fields: &Fields) {
        let inbox = self.oracle.topic(&Topic::Inbox(user.to_owned()));
        let place = fields.get("inbox").map(|place| {
            let place = serde_json::from_str(place.get()).expect("a place is an object");
            position(&place).expect("a place has an epoch")
        });
        assert_eq!(place.is_some(), self.keeps(inbox), "guest {at}: {fields:?}");
        if let Some(place) = place {
            self.streams.welcome(at, inbox, place);
        }
    }

    /// Whether a message that came is no past one.
    pub fn is_live(&mut self, at: GuestAt, serial: Serial, fields: &Fields) -> bool {
        let (said, topic) = self.oracle.said(serial);
        let offset = number(fields, "offset");
        assert_eq!(offset.is_some(), self.keeps(topic), "guest {at}: {fields:?}");
        let Some(offset) = offset else { return true };
        let is_live = self.streams.receive(at, topic, Came { offset, serial, bytes: 0 }, said);
        self.tally.add("a message was recovered", u64::from(!is_live));
        is_live
    }

    /// A message was acked, with its place if it has one.
    pub fn hear_placed(&mut self, at: GuestAt, serial: Serial, place: Option<Position>) {
        let (said, topic) = self.oracle.said(serial);
        assert_eq!(place.is_some(), self.keeps(topic), "guest {at}: the ack of #{serial}#");
        if let Some(place) = place {
            self.streams.learn(topic, &place, said);
            self.tally.count("a message was placed");
        }
    }

    /// A guest is in a room.
    pub fn hear_joined(&mut self, at: GuestAt, room: &str, recovered: Option<bool>, place: Option<Position>) {
        let topic = self.oracle.topic(&Topic::Room(room.to_owned()));
        assert_eq!(place.is_some(), self.keeps(topic), "guest {at} joins {room}");
        match place {
            Some(place) => self.hear_answer(at, topic, recovered, place),
            None => assert_ne!(recovered, Some(true), "guest {at} recovers what {room} never kept"),
        }
    }

    /// A guest has had what there was of its inbox.
    pub fn hear_resumed(&mut self, at: GuestAt, fields: &Fields) {
        let user = self.guests[at].user.clone().expect("it was welcomed");
        let inbox = self.oracle.topic(&Topic::Inbox(user));
        let place = position(fields).expect("an inbox that keeps history has a place");
        self.hear_answer(at, inbox, recovered(fields), place);
        self.tally.count("an inbox was resumed");
    }

    fn hear_answer(&mut self, at: GuestAt, topic: TopicAt, recovered: Option<bool>, place: Position) {
        let answer = self.answer(topic, recovered, place);
        let oracle = &self.oracle;
        match self.streams.answer(at, topic, answer, |serial| oracle.said(serial).0) {
            Told::NotRecovered => self.tally.count("something could not be recovered"),
            Told::Recovered(0) if recovered == Some(true) => self.tally.count("nothing was missed"),
            Told::Recovered(_) if recovered == Some(true) => self.tally.count("all that was missed was recovered"),
            Told::Recovered(_) | Told::NothingAsked => {}
        }
    }

    /// A page has come.
    pub fn hear_page(&mut self, at: GuestAt, page: Page, fields: &Fields) {
        let topic = self.oracle.topic(&Topic::Room(string(fields, "roomId")));
        let messages: Vec<Fields> = serde_json::from_str(fields["messages"].get()).expect("a page has messages");
        let mut came = Vec::new();
        for message in &messages {
            let (serial, body, time_ms) = self.message_of(at, "room_msg", "content", message);
            self.oracle.recall(at, serial, &body, time_ms);
            assert_eq!(self.oracle.said(serial).1, topic, "guest {at}: #{serial}# in a page");
            let offset = number(message, "offset").expect("a message in a history has an offset");
            came.push(Came { offset, serial, bytes: message["content"].get().len() });
        }
        self.tally.add("a page came", u64::from(!came.is_empty()));
        let place = position(fields).expect("a page of a room that keeps history has a place");
        let answer = self.answer(topic, None, place);
        let oracle = &self.oracle;
        self.streams.page(topic, page, answer, &came, |serial| oracle.said(serial).0);
    }

    fn answer(&self, topic: TopicAt, recovered: Option<bool>, at: Position) -> Answer {
        Answer { at, recovered, said_count: self.oracle.said_count(topic), now_ms: self.node.world.now().0 }
    }
}
