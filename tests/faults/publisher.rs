//! Publishers: steady load on the rooms over whichever node takes it, each message written down with what became of it.
//!
//! Half of them give each message a key and send it again until it is acked. The others send it once.

use std::collections::{BTreeMap, VecDeque};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::audit::{Content, Outcome, Publish, ROOMS, Shared};
use super::link::{Link, Lost};

/// Between two messages of a publisher, outside of floods.
const PERIOD_MS: u64 = 6;
/// In a flood it sends so many as fast as they are answered, about once in so many others.
const FLOOD: u32 = 600;
const FLOOD_ONE_IN: u32 = 300;
/// While so many messages of a publisher are not answered, it sends no more.
const OPEN_MAX: usize = 32;
/// A message that is not answered for so long shows that the connection is dead.
const ANSWER_MS_MAX: u64 = 6_000;
/// Before a message that was `unavailable` is sent again.
const RETRY_MS: u64 = 200;

pub struct Publisher<'a> {
    shared: &'a Shared,
    id: u32,
    keyed: bool,
    random: fastrand::Rng,
    node: usize,
    connections: u32,
    next_at: Instant,
    flood_left: u32,
    log: Vec<Publish>,
    /// The messages on the connection, by number, with the time they were sent.
    open: BTreeMap<u32, Instant>,
    /// The numbers of those to be sent again, and when.
    again: VecDeque<(Instant, u32)>,
}

impl<'a> Publisher<'a> {
    pub fn new(shared: &'a Shared, id: u32, keyed: bool, seed: u64) -> Publisher<'a> {
        Publisher {
            shared,
            id,
            keyed,
            random: fastrand::Rng::with_seed(seed),
            node: id as usize,
            connections: 0,
            next_at: Instant::now(),
            flood_left: 0,
            log: Vec::new(),
            open: BTreeMap::new(),
            again: VecDeque::new(),
        }
    }

    /// Publishes until there is to be no more load and everything is answered; the log.
    pub fn run(mut self) -> Vec<Publish> {
        while !self.shared.is_over() && (self.shared.has_load() || !self.is_settled()) {
            self.node += 1;
            let addr = self.shared.addrs[self.node % self.shared.addrs.len()];
            if let Ok(link) = Link::connect(addr, &format!("publisher-{}", self.id)) {
                self.connections += 1;
                // How it ended does not matter: the next one goes elsewhere.
                let _ = self.serve(link);
                self.settle_open();
            }
            thread::sleep(Duration::from_millis(self.random.u64(20..200)));
        }
        self.log
    }

    /// Publishes over one connection, until it is lost or everything is done.
    fn serve(&mut self, mut link: Link) -> Result<(), Lost> {
        let drops = self.shared.drops();
        while !self.shared.is_over() && self.shared.drops() == drops {
            let now = Instant::now();
            while self.again.front().is_some_and(|(due, _)| *due <= now) {
                let (_, number) = self.again.pop_front().expect("there is one");
                self.send(&mut link, number)?;
            }
            if self.shared.has_load() {
                self.send_what_is_due(&mut link, now)?;
            } else if self.is_settled() {
                return Ok(());
            }
            if let Some(answer) = link.receive(Duration::from_millis(2))? {
                self.take(&answer);
            }
            let oldest = self.open.values().min();
            if oldest.is_some_and(|sent| sent.elapsed() > Duration::from_millis(ANSWER_MS_MAX)) {
                self.shared.count_unanswered();
                return Err(Lost);
            }
        }
        Ok(())
    }

    /// The next message where it is time for it, in a flood as many as may be unanswered.
    fn send_what_is_due(&mut self, link: &mut Link, now: Instant) -> Result<(), Lost> {
        while self.open.len() < OPEN_MAX && (self.flood_left > 0 || now >= self.next_at) {
            match self.flood_left.checked_sub(1) {
                Some(left) => self.flood_left = left,
                None if self.random.u32(..FLOOD_ONE_IN) == 0 => self.flood_left = FLOOD,
                None => self.next_at = now + Duration::from_millis(PERIOD_MS),
            }
            let number = self.new_message();
            self.send(link, number)?;
        }
        Ok(())
    }

    fn is_settled(&self) -> bool {
        self.open.is_empty() && self.again.is_empty()
    }

    fn new_message(&mut self) -> u32 {
        let number = u32::try_from(self.log.len()).expect("fewer messages");
        self.log.push(Publish {
            room: self.random.usize(..ROOMS.len()),
            content: Content { publisher: self.id, number },
            connection: 0,
            attempts: 0,
            episode: self.shared.episode(),
            outcome: Outcome::Unknown,
        });
        number
    }

    fn send(&mut self, link: &mut Link, number: u32) -> Result<(), Lost> {
        let publish = &mut self.log[number as usize];
        publish.attempts += 1;
        publish.connection = self.connections;
        let mut command = json!({
            "type": "room_msg", "roomId": ROOMS[publish.room], "content": publish.content.to_json(), "id": number,
        });
        if self.keyed {
            command["key"] = json!(number.to_string());
        }
        self.open.insert(number, Instant::now());
        link.send(&command)
    }

    fn take(&mut self, answer: &Value) {
        let Some(number) = answer["id"].as_u64().and_then(|id| u32::try_from(id).ok()) else { return };
        if self.open.remove(&number).is_none() {
            return;
        }
        let outcome = match (answer["type"].as_str(), answer["code"].as_str()) {
            (Some("ack"), _) => self.shared.place_of(answer).map_or(Outcome::AckedNowhere, Outcome::Acked),
            (_, Some("unavailable")) if self.keyed => {
                self.again.push_back((Instant::now() + Duration::from_millis(RETRY_MS), number));
                Outcome::Unknown
            }
            (_, Some("unavailable")) => Outcome::Unknown,
            (_, code) => Outcome::Refused(code.unwrap_or("an answer that is none").to_owned()),
        };
        self.log[number as usize].outcome = outcome;
    }

    /// The connection is gone, and with it the answers.
    fn settle_open(&mut self) {
        for (number, _) in std::mem::take(&mut self.open) {
            if self.keyed {
                self.again.push_back((Instant::now(), number));
            }
        }
    }
}

/// Publishes one message with a key until it is acked.
///
/// # Errors
///
/// The last answer, where none was an ack before the deadline.
pub fn publish_marker(shared: &Shared, publish: &mut Publish, deadline: Instant) -> Result<(), String> {
    let Content { publisher, number } = publish.content;
    let command = json!({
        "type": "room_msg", "roomId": ROOMS[publish.room], "content": publish.content.to_json(), "id": number,
        "key": number.to_string(),
    });
    let mut last = "no connection".to_owned();
    while Instant::now() < deadline {
        let addr = shared.addrs[(publish.attempts as usize + publish.room) % shared.addrs.len()];
        publish.attempts += 1;
        let answer = Link::connect(addr, &format!("publisher-{publisher}")).and_then(|mut link| {
            link.send(&command)?;
            link.receive(Duration::from_millis(ANSWER_MS_MAX))
        });
        if let Ok(Some(answer)) = answer {
            if answer["type"] == "ack" {
                publish.outcome = shared.place_of(&answer).map_or(Outcome::AckedNowhere, Outcome::Acked);
                return Ok(());
            }
            last = answer.to_string();
        }
        thread::sleep(Duration::from_millis(20));
    }
    Err(last)
}
