//! Subscribers: members of every room that come back, like good clients, to another node with their positions.

use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::audit::{Content, Heard, Journal, Place, ROOMS, Shared};
use super::link::{Link, Lost};

/// Before a join that was `unavailable` is sent again.
const RETRY_MS: u64 = 150;
/// A join that is not answered for so long shows that the connection is dead.
const ANSWER_MS_MAX: u64 = 6_000;

/// Where a room stands on the current connection.
#[derive(Clone, Copy)]
enum Standing {
    Outside { again_at: Instant },
    Asked { at: Instant },
    Member,
}

pub struct Subscriber<'a> {
    shared: &'a Shared,
    id: usize,
    random: fastrand::Rng,
    node: usize,
    journals: [Journal; ROOMS.len()],
    /// Up to where it has everything, as far as it can tell.
    places: [Option<Place>; ROOMS.len()],
    standings: [Standing; ROOMS.len()],
}

impl<'a> Subscriber<'a> {
    pub fn new(shared: &'a Shared, id: usize, seed: u64) -> Subscriber<'a> {
        Subscriber {
            shared,
            id,
            random: fastrand::Rng::with_seed(seed),
            node: id,
            journals: std::array::from_fn(|room| Journal { subscriber: id, is_page: false, room, entries: Vec::new() }),
            places: [None; ROOMS.len()],
            standings: [Standing::Outside { again_at: Instant::now() }; ROOMS.len()],
        }
    }

    /// Listens until everything is over; the journals.
    pub fn run(mut self) -> [Journal; ROOMS.len()] {
        while !self.shared.is_over() {
            let addr = self.shared.addrs[self.node % self.shared.addrs.len()];
            if let Ok(link) = Link::connect(addr, &format!("subscriber-{}", self.id)) {
                self.standings = [Standing::Outside { again_at: Instant::now() }; ROOMS.len()];
                // How it ended does not matter: the next one goes elsewhere.
                let _ = self.listen(link);
                self.shared.progress()[self.id] = [None; ROOMS.len()];
            }
            self.node += 1;
            thread::sleep(Duration::from_millis(self.random.u64(10..150)));
        }
        self.journals
    }

    fn listen(&mut self, mut link: Link) -> Result<(), Lost> {
        let drops = self.shared.drops();
        while !self.shared.is_over() && self.shared.drops() == drops {
            for room in 0..ROOMS.len() {
                match self.standings[room] {
                    Standing::Outside { again_at } if again_at <= Instant::now() => self.ask(&mut link, room)?,
                    Standing::Asked { at } if at.elapsed() > Duration::from_millis(ANSWER_MS_MAX) => return Err(Lost),
                    Standing::Outside { .. } | Standing::Asked { .. } | Standing::Member => {}
                }
            }
            if let Some(message) = link.receive(Duration::from_millis(50))? {
                self.take(&message);
            }
        }
        Ok(())
    }

    fn ask(&mut self, link: &mut Link, room: usize) -> Result<(), Lost> {
        let since = self.places[room];
        let mut command = json!({"type": "join_room", "roomId": ROOMS[room], "id": room});
        if let Some(place) = since {
            command["since"] = json!({"epoch": self.shared.epoch_name(place.epoch), "offset": place.offset});
        }
        self.standings[room] = Standing::Asked { at: Instant::now() };
        self.note(room, Heard::Asked { since });
        link.send(&command)
    }

    fn take(&mut self, message: &Value) {
        let named = message["roomId"].as_str().and_then(|name| ROOMS.iter().position(|room| *room == name));
        let answered = message["id"].as_u64().and_then(|id| usize::try_from(id).ok()).filter(|id| *id < ROOMS.len());
        let Some(room) = named.or(answered) else { return };
        match message["type"].as_str() {
            Some("room_msg") => {
                let (Some(offset), Some(content)) = (message["offset"].as_u64(), Content::of(&message["content"]))
                else {
                    panic!("a message without its place: {message}")
                };
                self.note(room, Heard::Message { offset, content });
                if let Some(place) = &mut self.places[room] {
                    place.offset = place.offset.max(offset);
                }
            }
            Some("joined") => {
                let place = self.shared.place_of(message).expect("a room with history has a position");
                self.standings[room] = Standing::Member;
                self.places[room] = Some(place);
                self.note(room, Heard::Joined { place, recovered: message["recovered"].as_bool() });
            }
            Some("gap") => {
                let place = self.shared.place_of(message).expect("a gap has a position");
                self.places[room] = Some(place);
                self.note(room, Heard::Gap { place });
            }
            Some("error") => {
                let again_at = Instant::now() + Duration::from_millis(RETRY_MS + self.random.u64(0..100));
                self.standings[room] = Standing::Outside { again_at };
                self.note(room, Heard::Unavailable);
            }
            _ => return,
        }
        let is_member = matches!(self.standings[room], Standing::Member);
        self.shared.progress()[self.id][room] = self.places[room].filter(|_| is_member);
    }

    fn note(&mut self, room: usize, heard: Heard) {
        self.journals[room].entries.push((self.shared.episode(), heard));
    }
}
