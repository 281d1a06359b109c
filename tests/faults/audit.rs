//! What is written down: every publish with what became of it, and everything that a subscriber heard of a room.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard};

use serde_json::Value;

/// The rooms. What the first two keep is more than anybody misses; the last keeps less than that.
pub const ROOMS: [&str; 3] = ["long-1", "long-2", "short"];

/// Whether a room keeps more than anybody misses, so that nobody need be told of a gap within an epoch.
pub fn keeps_all(room: usize) -> bool {
    ROOMS[room].starts_with("long")
}

/// A position in a room. Epochs are numbered as they come up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place {
    pub epoch: u32,
    pub offset: u64,
}

/// What a message says: who published it, and the how many-th it is of theirs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Content {
    pub publisher: u32,
    pub number: u32,
}

impl Content {
    /// From the `content` of a message.
    pub fn of(value: &Value) -> Option<Content> {
        let part = |at: usize| value[at].as_u64().and_then(|number| u32::try_from(number).ok());
        Some(Content { publisher: part(0)?, number: part(1)? })
    }

    pub fn to_json(self) -> Value {
        serde_json::json!([self.publisher, self.number])
    }
}

/// One message that somebody tried to publish.
#[derive(Clone, Debug)]
pub struct Publish {
    pub room: usize,
    pub content: Content,
    /// The publisher's how many-th connection it went over, the last one if it was sent again.
    pub connection: u32,
    /// How often it was sent. More than once only with a key.
    pub attempts: u32,
    pub episode: u16,
    pub outcome: Outcome,
}

/// What became of a publish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Acknowledged, with its place.
    Acked(Place),
    /// Acknowledged without a place, which no room with history may do.
    AckedNowhere,
    /// Refused: it must never appear.
    Refused(String),
    /// `unavailable`, or no answer: it may appear.
    Unknown,
}

/// Something that a subscriber heard of a room, or did about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// A join was sent on a connection that is not in the room.
    Asked { since: Option<Place> },
    /// The join was answered with an error.
    Unavailable,
    /// The join was answered.
    Joined { place: Place, recovered: Option<bool> },
    /// A member was told that messages are missing.
    Gap { place: Place },
    /// A message.
    Message { offset: u64, content: Content },
}

/// What one subscriber heard of one room, with the episode in which it was.
#[derive(Clone, Debug)]
pub struct Journal {
    pub subscriber: usize,
    /// Nobody heard it: it is a page of history, as of somebody who was there all the time.
    pub is_page: bool,
    pub room: usize,
    pub entries: Vec<(u16, Heard)>,
}

/// What the threads of a run share.
pub struct Shared {
    pub addrs: Vec<SocketAddr>,
    episode: AtomicU16,
    /// Grows when all clients are to drop their connections.
    drops: AtomicU32,
    unanswered: AtomicU32,
    load: AtomicBool,
    over: AtomicBool,
    epochs: Mutex<Vec<String>>,
    /// For each subscriber and room the place up to which it has everything, while it is a member.
    progress: Mutex<Vec<[Option<Place>; ROOMS.len()]>>,
}

impl Shared {
    pub fn new(addrs: Vec<SocketAddr>, subscribers: usize) -> Shared {
        Shared {
            addrs,
            episode: AtomicU16::new(0),
            drops: AtomicU32::new(0),
            unanswered: AtomicU32::new(0),
            load: AtomicBool::new(true),
            over: AtomicBool::new(false),
            epochs: Mutex::new(Vec::new()),
            progress: Mutex::new(vec![[None; ROOMS.len()]; subscribers]),
        }
    }

    /// The running episode, 0 before the first.
    pub fn episode(&self) -> u16 {
        self.episode.load(Ordering::Relaxed)
    }

    pub fn begin_episode(&self, episode: u16) {
        self.episode.store(episode, Ordering::Relaxed);
    }

    /// Tells every client to drop its connection.
    pub fn drop_all(&self) {
        self.drops.fetch_add(1, Ordering::Relaxed);
    }

    pub fn drops(&self) -> u32 {
        self.drops.load(Ordering::Relaxed)
    }

    /// A publish got no answer for long on a connection that lives.
    pub fn count_unanswered(&self) {
        self.unanswered.fetch_add(1, Ordering::Relaxed);
    }

    pub fn unanswered(&self) -> u32 {
        self.unanswered.load(Ordering::Relaxed)
    }

    /// Publishers send nothing new from now on.
    pub fn end_load(&self) {
        self.load.store(false, Ordering::Relaxed);
    }

    pub fn has_load(&self) -> bool {
        self.load.load(Ordering::Relaxed)
    }

    /// Everybody ends.
    pub fn end(&self) {
        self.load.store(false, Ordering::Relaxed);
        self.over.store(true, Ordering::Relaxed);
    }

    pub fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    /// The position in an answer or a notice of a gap.
    pub fn place_of(&self, message: &Value) -> Option<Place> {
        let epoch = message["epoch"].as_str()?;
        let offset = message["offset"].as_u64()?;
        let mut epochs = self.epochs.lock().expect("no holder panics");
        let known = epochs.iter().position(|known| known == epoch);
        let at = known.unwrap_or_else(|| {
            epochs.push(epoch.to_owned());
            epochs.len() - 1
        });
        Some(Place { epoch: u32::try_from(at).expect("few epochs"), offset })
    }

    /// The epoch's own name.
    pub fn epoch_name(&self, epoch: u32) -> String {
        self.epochs.lock().expect("no holder panics")[epoch as usize].clone()
    }

    pub fn epochs_count(&self) -> usize {
        self.epochs.lock().expect("no holder panics").len()
    }

    /// Where every subscriber stands.
    pub fn progress(&self) -> MutexGuard<'_, Vec<[Option<Place>; ROOMS.len()]>> {
        self.progress.lock().expect("no holder panics")
    }
}
