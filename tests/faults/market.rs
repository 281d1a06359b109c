//! A keyed room under the same faults: publishers of numbers that only grow, subscribers of every kind, and what all of
//! them have to show in the end.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::audit::{Place, Shared};
use super::ladder::{Flaws, Ladder, Tick};
use super::link::{Link, Lost};

const ROOM: &str = "px";
/// The item of the updates that show whether everybody has caught up.
const MARK: &str = "mark";
const ITEMS: u64 = 15;
/// Between two commands of a publisher.
const PERIOD_MS: u64 = 15;
const UPDATES: u64 = 3;
const OPEN_MAX: usize = 32;
const ANSWER_MS_MAX: u64 = 6_000;
const RETRY_MS: u64 = 150;

pub const PUBLISHERS: u64 = 2;
/// How the subscribers subscribe.
const SUBSCRIBERS: [&str; 5] = [
    r#"{"mode":"latest","interval":0}"#,
    r#"{"mode":"latest","interval":100}"#,
    r#"{"mode":"latest","interval":20,"items":["p0*","mark"]}"#,
    r#"{"mode":"all","snapshot":true}"#,
    r#"{"mode":"all","snapshot":true,"items":["p1-3","mark"]}"#,
];
pub const SUBSCRIBERS_COUNT: usize = SUBSCRIBERS.len();

/// A command of a publisher: the numbers of its updates, and where it was acked.
#[derive(Clone, Debug)]
struct Sent {
    publisher: u64,
    first: u64,
    acked: Option<(Place, bool)>,
}

/// What all of the market share.
pub struct Market<'a> {
    shared: &'a Shared,
    ladders: Mutex<Vec<Ladder>>,
    /// What was heard at a place, by anybody.
    heard: Mutex<HashMap<Place, (String, u64)>>,
    sent: Mutex<Vec<Sent>>,
    contradictions: Mutex<u64>,
    marks: Mutex<u64>,
}

/// What it came to. What `is_clean` asks for must be zero.
#[derive(Clone, Copy, Debug, Default)]
pub struct MarketVerdict {
    pub updates: u64,
    pub acked: u64,
    pub heard: u64,
    pub gaps: u64,
    pub older: u64,
    pub missed: u64,
    pub contradictions: u64,
    pub false_acks: u64,
    pub left_behind: u64,
}

impl MarketVerdict {
    pub fn is_clean(&self) -> bool {
        self.older + self.missed + self.contradictions + self.false_acks + self.left_behind == 0
    }
}

impl<'a> Market<'a> {
    pub fn new(shared: &'a Shared) -> Market<'a> {
        let ladder = |terms: &&str| Ladder::new(terms.contains(r#""all""#), wants(terms, "other"));
        Market {
            shared,
            ladders: Mutex::new(SUBSCRIBERS.iter().map(ladder).collect()),
            heard: Mutex::default(),
            sent: Mutex::default(),
            contradictions: Mutex::default(),
            marks: Mutex::default(),
        }
    }

    fn ladders(&self) -> MutexGuard<'_, Vec<Ladder>> {
        self.ladders.lock().expect("no holder panics")
    }

    /// Publishes until there is to be no more load and everything is answered.
    pub fn publish(&self, id: u64, mut random: fastrand::Rng) {
        let (mut node, mut next, mut again) = (id as usize, 0_u64, Vec::new());
        while !self.shared.is_over() && (self.shared.has_load() || !again.is_empty()) {
            node += 1;
            let addr = self.shared.addrs[node % self.shared.addrs.len()];
            if let Ok(link) = Link::connect(addr, &format!("market-{id}")) {
                let mut open = BTreeMap::new();
                // How it ended does not matter: the next one goes elsewhere.
                let _ = self.serve(id, link, &mut next, &mut open, &mut again);
                if id == 0 {
                    again.extend(open.into_keys());
                    again.sort_unstable();
                }
            }
            thread::sleep(Duration::from_millis(random.u64(20..200)));
        }
    }

    fn serve(
        &self,
        id: u64,
        mut link: Link,
        next: &mut u64,
        open: &mut BTreeMap<u64, Instant>,
        again: &mut Vec<u64>,
    ) -> Result<(), Lost> {
        let (drops, mut due) = (self.shared.drops(), Instant::now());
        while !self.shared.is_over() && self.shared.drops() == drops {
            // In order, so that none is behind a later one.
            while let Some(first) = again.first().copied().filter(|_| open.len() < OPEN_MAX && due <= Instant::now()) {
                again.remove(0);
                open.insert(first, Instant::now());
                link.send(&command(id, first))?;
            }
            if self.shared.has_load() && again.is_empty() && open.len() < OPEN_MAX && due <= Instant::now() {
                due = Instant::now() + Duration::from_millis(PERIOD_MS);
                self.sent.lock().expect("no holder panics").push(Sent { publisher: id, first: *next, acked: None });
                open.insert(*next, Instant::now());
                link.send(&command(id, *next))?;
                *next += UPDATES;
            } else if !self.shared.has_load() && open.is_empty() && again.is_empty() {
                return Ok(());
            }
            if let Some(answer) = link.receive(Duration::from_millis(2))? {
                let Some(first) = answer["id"].as_u64().filter(|first| open.remove(first).is_some()) else { continue };
                match self.shared.place_of(&answer).filter(|_| answer["type"] == "ack") {
                    Some(place) => self.acked(id, first, place, &answer),
                    None if id == 0 => {
                        again.push(first);
                        again.sort_unstable();
                        due = Instant::now() + Duration::from_millis(RETRY_MS);
                    }
                    None => {}
                }
            }
            if open.values().any(|sent| sent.elapsed() > Duration::from_millis(ANSWER_MS_MAX)) {
                self.shared.count_unanswered();
                return Err(Lost);
            }
        }
        Ok(())
    }

    fn acked(&self, id: u64, first: u64, place: Place, answer: &Value) {
        let mut sent = self.sent.lock().expect("no holder panics");
        let is_whole = answer["stale"].as_array().is_none_or(Vec::is_empty);
        if let Some(sent) = sent.iter_mut().rev().find(|sent| (sent.publisher, sent.first) == (id, first)) {
            sent.acked = Some((place, is_whole));
        }
    }

    /// Listens until everything is over.
    pub fn subscribe(&self, id: usize, mut random: fastrand::Rng) {
        let mut node = id;
        while !self.shared.is_over() {
            let addr = self.shared.addrs[node % self.shared.addrs.len()];
            if let Ok(link) = Link::connect(addr, &format!("screen-{id}")) {
                // How it ended does not matter: the next one goes elsewhere.
                let _ = self.listen(id, link);
            }
            self.ladders()[id].is_member = false;
            node += 1;
            thread::sleep(Duration::from_millis(random.u64(10..150)));
        }
    }

    fn listen(&self, id: usize, mut link: Link) -> Result<(), Lost> {
        let (drops, mut again_at, mut asked_at) = (self.shared.drops(), Some(Instant::now()), Instant::now());
        while !self.shared.is_over() && self.shared.drops() == drops {
            if again_at.take_if(|at| *at <= Instant::now()).is_some() {
                asked_at = Instant::now();
                link.send(&self.join(id))?;
            }
            let is_member = self.ladders()[id].is_member;
            if again_at.is_none() && !is_member && asked_at.elapsed() > Duration::from_millis(ANSWER_MS_MAX) {
                return Err(Lost);
            }
            let Some(message) = link.receive(Duration::from_millis(50))? else { continue };
            match message["type"].as_str() {
                Some("error") => again_at = Some(Instant::now() + Duration::from_millis(RETRY_MS)),
                _ => self.take(id, &message),
            }
        }
        Ok(())
    }

    fn join(&self, id: usize) -> Value {
        let mut command: Value = serde_json::from_str(SUBSCRIBERS[id]).expect("terms are JSON");
        command["type"] = json!("join_room");
        command["roomId"] = json!(ROOM);
        command["id"] = json!("join");
        let ladder = &mut self.ladders()[id];
        ladder.ask();
        if let Some(place) = ladder.place.filter(|_| !ladder.lacks_some) {
            command["since"] = json!({"epoch": self.shared.epoch_name(place.epoch), "offset": place.offset});
        }
        command
    }

    fn take(&self, id: usize, message: &Value) {
        let mut ladders = self.ladders();
        let ladder = &mut ladders[id];
        match message["type"].as_str() {
            Some("room_msg") => {
                let tick = tick_of(message);
                if let Some(epoch) = ladder.hear(tick.clone()) {
                    self.note(epoch, &tick);
                }
            }
            Some("joined") => {
                let place = self.shared.place_of(message).expect("a keyed room has a position");
                let ticks = ladder.join(place, message["recovered"].as_bool());
                ticks.iter().for_each(|tick| self.note(place.epoch, tick));
            }
            Some("gap") => ladder.gap(self.shared.place_of(message).expect("a gap has a position")),
            _ => {}
        }
    }

    /// At one place everybody hears the same.
    fn note(&self, epoch: u32, tick: &Tick) {
        let mut heard = self.heard.lock().expect("no holder panics");
        let said = (tick.item.clone(), tick.number);
        let known = heard.entry(Place { epoch, offset: tick.offset }).or_insert_with(|| said.clone());
        *self.contradictions.lock().expect("no holder panics") += u64::from(*known != said);
    }

    /// Returns when the room has taken an update that every subscriber then shows.
    pub fn catch_up(&self, deadline: Instant) -> Result<(), String> {
        let number = self.mark(deadline)?;
        let shows = |ladder: &Ladder| ladder.shown.get(MARK).is_some_and(|tick| tick.number >= number);
        // Who gets each update and was told of a gap has the items that were updated since.
        while !self.ladders().iter().all(|ladder| ladder.is_member && shows(ladder)) {
            if Instant::now() > deadline {
                let marks: Vec<_> = self.ladders().iter().map(|ladder| ladder.shown.get(MARK).cloned()).collect();
                return Err(format!("{ROOM} has mark {number}, and subscribers show {marks:?}"));
            }
            thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    fn mark(&self, deadline: Instant) -> Result<u64, String> {
        let number = {
            let mut marks = self.marks.lock().expect("no holder panics");
            *marks += 1;
            *marks
        };
        let command = json!({
            "type": "room_msg", "roomId": ROOM, "item": MARK, "content": number, "version": number, "id": "mark",
        });
        let mut last = "no connection".to_owned();
        for attempt in 0.. {
            if Instant::now() > deadline {
                break;
            }
            let addr = self.shared.addrs[attempt % self.shared.addrs.len()];
            let answer = Link::connect(addr, "marker").and_then(|mut link| {
                link.send(&command)?;
                link.receive(Duration::from_millis(ANSWER_MS_MAX))
            });
            match answer {
                Ok(Some(answer)) if answer["type"] == "ack" => return Ok(number),
                Ok(Some(answer)) => last = answer.to_string(),
                Ok(None) | Err(Lost) => {}
            }
            thread::sleep(Duration::from_millis(20));
        }
        Err(format!("{ROOM} takes no update: {last}"))
    }

    /// What every node has in the end, and what everybody shows: to be called when all is settled.
    pub fn judge(&self, deadline: Instant) -> Result<MarketVerdict, String> {
        self.catch_up(deadline)?;
        // Rounds that are still to come.
        thread::sleep(Duration::from_millis(300));
        let snapshots: Vec<Ladder> =
            self.shared.addrs.iter().map(|addr| self.snapshot(*addr)).collect::<Option<_>>().ok_or("no snapshot")?;
        let mut verdict = MarketVerdict {
            contradictions: *self.contradictions.lock().expect("no holder panics"),
            ..MarketVerdict::default()
        };
        let truth = &snapshots[0].shown;
        verdict.contradictions += snapshots.iter().filter(|snapshot| snapshot.shown != *truth).count() as u64;
        for (ladder, terms) in self.ladders().iter().zip(SUBSCRIBERS) {
            let Flaws { older, missed } = ladder.flaws;
            verdict.older += older;
            verdict.missed += missed;
            verdict.heard += ladder.heard;
            verdict.gaps += ladder.gaps;
            let wanted = truth.iter().filter(|(item, _)| wants(terms, item));
            let differs = |item: &String, tick: &Tick| match ladder.shown.get(item) {
                Some(shown) => shown != tick,
                None => !ladder.lacks_some,
            };
            verdict.left_behind += wanted.filter(|(item, tick)| differs(item, tick)).count() as u64;
        }
        let heard = self.heard.lock().expect("no holder panics");
        let end = snapshots[0].place.ok_or("a snapshot has a position")?;
        for sent in self.sent.lock().expect("no holder panics").iter() {
            verdict.updates += UPDATES;
            let Some((place, is_whole)) = sent.acked else { continue };
            verdict.acked += UPDATES;
            let last = sent.first + UPDATES - 1;
            let item = item_of(sent.publisher, last);
            let stands = heard.get(&place).is_none_or(|said| *said == (item.clone(), last));
            let is_in = truth.get(&item).is_some_and(|tick| tick.number >= last);
            let is_false = (is_whole && !stands) || (place.epoch == end.epoch && !is_in);
            verdict.false_acks += u64::from(is_false);
        }
        Ok(verdict)
    }

    fn snapshot(&self, addr: std::net::SocketAddr) -> Option<Ladder> {
        let mut link = Link::connect(addr, "snapshot").ok()?;
        let join = json!({"type": "join_room", "roomId": ROOM, "id": "join", "mode": "latest"});
        link.send(&join).ok()?;
        let mut ladder = Ladder::default();
        ladder.ask();
        loop {
            let message = link.receive(Duration::from_secs(5)).ok()??;
            match message["type"].as_str() {
                Some("room_msg") => _ = ladder.hear(tick_of(&message)),
                Some("joined") => {
                    ladder.join(self.shared.place_of(&message)?, None);
                    return Some(ladder);
                }
                _ => {}
            }
        }
    }
}

fn tick_of(message: &Value) -> Tick {
    let number_of = |field: &str| message[field].as_u64();
    let (Some(offset), Some(seq), Some(item), Some(number)) =
        (number_of("offset"), number_of("seq"), message["item"].as_str(), number_of("content"))
    else {
        panic!("an update without its place or its number: {message}")
    };
    Tick { offset, seq, item: item.to_owned(), number }
}

fn item_of(publisher: u64, number: u64) -> String {
    format!("p{publisher}-{}", number % ITEMS)
}

/// A list of updates from a number on. Its version keeps one that comes late from hiding a later one.
fn command(publisher: u64, first: u64) -> Value {
    let update = |number: u64| json!({"item": item_of(publisher, number), "content": number, "version": number});
    let updates: Vec<Value> = (first..first + UPDATES).map(update).collect();
    let mut command = json!({"type": "room_msgs", "roomId": ROOM, "updates": updates, "id": first});
    if publisher == 0 {
        command["key"] = json!(first.to_string());
    }
    command
}

fn wants(terms: &str, item: &str) -> bool {
    let terms: Value = serde_json::from_str(terms).expect("terms are JSON");
    let Some(items) = terms["items"].as_array() else { return true };
    items.iter().filter_map(Value::as_str).any(|wanted| match wanted.strip_suffix('*') {
        Some(prefix) => item.starts_with(prefix),
        None => wanted == item,
    })
}
