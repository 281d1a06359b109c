//! Who is in a room, on whatever node.
//!
//! ```text
//!   ask ──► Waits ── its turn ──► Asked ── all nodes have answered ──► Rests ── for a while ──► forgotten
//!             ▲  who asks meanwhile shares the next question              │
//!             └───────────────────────────────────────────────────────────┘
//! ```
//!
//! Nothing about it is stored: the node asks its own home first, then on the room's channel, and each node with members
//! says who they are, in pieces. Redis tells how many nodes got the question, so that is how many answers there will be. A
//! node that is gone is not asked, and one that hangs is not waited for longer than [`CLUSTER_PRESENCE_MS_MAX`].
//!
//! A room is asked about once at a time, for all who have asked before that began: so a reply knows of every join that was
//! answered before it was asked for. How long the room rests then follows from what the answers took, so that a client
//! that asks again and again costs so many bytes a second, however large the room. How many questions are under way follows
//! from what they may bring at once.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::hash::Hasher;
use std::sync::Arc;

use arcstr::ArcStr;
use siphasher::sip::SipHasher13;

use super::super::record::{self, Present, Record};
use super::Core;
use super::fences::Ticket;
use super::publish::Heard;
use crate::ids::{ReactorId, ReplyTo};
use crate::limits::{
    CLUSTER_ASKER_BYTES, CLUSTER_ASKERS_BYTES_MAX, CLUSTER_CENSUS_BYTES_MAX, CLUSTER_PRESENCE_BYTES_PER_MS,
    CLUSTER_PRESENCE_MS_MAX, CLUSTER_PRESENCE_REST_MS, CLUSTER_PRESENT_BYTES, CLUSTER_PRESENT_OWED_BYTES_MAX,
    PRESENCE_USERS_MAX,
};
use crate::protocol;
use crate::router::cluster::{FromCluster, Question};
use crate::router::{Census, Crowd, CrowdKey, Mail, Sketch, TopicKey};
use crate::time::Millis;

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Presence {
    rooms: HashMap<ArcStr, Room>,
    /// Rooms that wait for their turn, in order, each since when.
    turn: VecDeque<(Millis, ArcStr)>,
    /// Questions under way, by their numbers.
    asking: BTreeMap<u64, Asking>,
    /// Rooms that rest, by until when.
    resting: BTreeSet<(Millis, ArcStr)>,
    questions: u64,
    askers_bytes: usize,
    /// What may be on its way here, by questions.
    owed_bytes: usize,
    /// What is held of answers.
    census_bytes: usize,
}

/// A room that is asked about, or was a moment ago.
#[derive(Debug)]
struct Room {
    topic: TopicKey,
    home: ReactorId,
    /// Those for whom the next question is.
    next: Option<Askers>,
}

#[derive(Debug)]
struct Askers {
    askers: Vec<Asker>,
    /// That of the first.
    ticket: Ticket,
}

#[derive(Debug)]
struct Asker {
    to: ReplyTo,
    id: Option<Box<str>>,
}

impl Asker {
    fn bytes(&self) -> usize {
        CLUSTER_ASKER_BYTES + self.id.as_ref().map_or(0, |id| id.len())
    }
}

/// A question that is being answered.
#[derive(Debug)]
struct Asking {
    room: ArcStr,
    askers: Askers,
    census: Census,
    remote: Remote,
    /// What it may have on its way here.
    owed_bytes: usize,
    /// What its answers took.
    weight_bytes: u64,
    /// Nodes that are asked for their next piece when there is room for it.
    held_back: Vec<u64>,
}

/// How far the other nodes are.
#[derive(Debug)]
enum Remote {
    /// Those here are not known yet.
    NotAsked,
    Asked {
        /// How many nodes got the question, this one included if it follows the room; `None` until Redis says so.
        nodes: Option<u64>,
        answers: u64,
        /// When the last piece came, or the first was asked for.
        heard_at: Millis,
    },
}

impl Presence {
    /// Whether no asker waits for an answer.
    #[cfg(any(test, debug_assertions))]
    pub(super) fn is_idle(&self) -> bool {
        self.asking.is_empty() && self.rooms.values().all(|room| room.next.is_none())
    }

    /// The tickets of those who wait.
    #[cfg(any(test, debug_assertions))]
    pub(super) fn tickets(&self) -> impl Iterator<Item = u64> {
        let next = self.rooms.values().filter_map(|room| room.next.as_ref());
        next.chain(self.asking.values().map(|asking| &asking.askers)).map(|askers| askers.ticket.number())
    }

    /// When the first of the rooms that rest has rested.
    pub(super) fn rested_at(&self) -> Option<Millis> {
        self.resting.first().map(|(at, _)| *at)
    }

    fn take_rested(&mut self, now: Millis) -> Option<ArcStr> {
        self.resting.first().filter(|(at, _)| *at <= now)?;
        self.resting.pop_first().map(|(_, room)| room)
    }

    /// Whether there is room for a question that may bring so much at once.
    fn has_room(&self, owed_bytes: usize) -> bool {
        let fits = self.owed_bytes + owed_bytes <= CLUSTER_PRESENT_OWED_BYTES_MAX;
        self.asking.is_empty() || fits && self.census_bytes <= CLUSTER_CENSUS_BYTES_MAX
    }
}

impl Core {
    /// A connection of this node asks.
    pub(super) fn ask_presence(&mut self, home: ReactorId, topic: TopicKey, asker: ReplyTo, id: Option<Box<str>>) {
        let asker = Asker { to: asker, id };
        if self.presence.askers_bytes + asker.bytes() > CLUSTER_ASKERS_BYTES_MAX {
            self.mail.push((asker.to.peer(), Mail::unavailable(asker.to, asker.id, topic.room())));
            return;
        }
        self.presence.askers_bytes += asker.bytes();
        let name = topic.name.clone();
        let room = self.presence.rooms.entry(name.clone()).or_insert_with(|| {
            self.presence.turn.push_back((self.now, name));
            Room { topic, home, next: None }
        });
        let next = room.next.get_or_insert_with(|| Askers { askers: Vec::new(), ticket: self.tickets.take() });
        next.askers.push(asker);
        self.begin_questions();
    }

    /// Questions whose turn has come begin: with those who are here.
    fn begin_questions(&mut self) {
        let owed_bytes = self.peers.count().max(1) * CLUSTER_PRESENT_BYTES;
        while self.presence.has_room(owed_bytes)
            && let Some((_, name)) = self.presence.turn.pop_front()
        {
            let Some(room) = self.presence.rooms.get_mut(&name) else { continue };
            let Some(askers) = room.next.take() else { continue };
            let (topic, home) = (room.topic.clone(), room.home);
            self.presence.questions += 1;
            let number = self.presence.questions;
            let key = self.crowd_key(number);
            let question = Question { run: self.me.run, number, key };
            let asking = Asking {
                room: name,
                askers,
                census: Census::new(key),
                remote: Remote::NotAsked,
                owed_bytes,
                weight_bytes: 0,
                held_back: Vec::new(),
            };
            self.presence.owed_bytes += owed_bytes;
            self.presence.asking.insert(number, asking);
            self.notify(home, FromCluster::Asked { topic, question, names: PRESENCE_USERS_MAX });
        }
    }

    /// What users are hashed with for one question. No client can know it.
    fn crowd_key(&self, number: u64) -> CrowdKey {
        CrowdKey([0, 1].map(|part| {
            let mut hasher = SipHasher13::new_with_key(&self.me.key);
            hasher.write_u64(number);
            hasher.write_u8(part);
            hasher.finish()
        }))
    }

    /// Those who are here are known: now the other nodes are asked.
    pub(super) fn presence_here(&mut self, number: u64, crowd: &Crowd) {
        let Some(asking) = self.presence.asking.get_mut(&number) else { return };
        asking.weight_bytes += 8 * crowd.users;
        asking.census.add_crowd(crowd);
        self.presence.census_bytes += asking.census.bytes();
        asking.remote = Remote::Asked { nodes: None, answers: 0, heard_at: self.now };
        if !self.reachable || self.pending.is_full() {
            return self.finish_presence(number);
        }
        let (room, key) = (asking.room.clone(), asking.census.key());
        // As many as are shown are named here already, or all of another node may have to be.
        let names = if asking.census.names().len() == PRESENCE_USERS_MAX { 0 } else { PRESENCE_USERS_MAX as u16 };
        let Some(topic) = self.presence.rooms.get(&room).map(|room| room.topic.clone()) else { return };
        let channel = self.names.topic(topic.borrow());
        let question = Record::Presence { number, key: key.0, names };
        self.publish_heard(&channel, &question, Some(Heard::Presence(number)));
    }

    /// Redis has given the question to so many nodes, or to none.
    pub(super) fn presence_asked(&mut self, number: u64, given_to: Option<u64>) {
        if let Some(Asking { remote: Remote::Asked { nodes, .. }, .. }) = self.presence.asking.get_mut(&number) {
            *nodes = Some(given_to.unwrap_or(0));
            self.finish_if_complete(number);
        }
    }

    /// The question has come to this node, whose users are known.
    pub(super) fn presence_echoed(&mut self, number: u64) {
        if let Some(Asking { remote: Remote::Asked { answers, .. }, .. }) = self.presence.asking.get_mut(&number) {
            *answers += 1;
            self.finish_if_complete(number);
        }
    }

    /// A node has answered, or has said a piece of its answer.
    pub(super) fn presence_answered(&mut self, run: u64, present: &Present<'_>) {
        let &Present { number, users, more, names, hashes, sketch } = present;
        let Some(asking) = self.presence.asking.get_mut(&number) else { return };
        let Remote::Asked { answers, heard_at, .. } = &mut asking.remote else { return };
        *heard_at = self.now;
        *answers += u64::from(!more);
        let bytes_before = asking.census.bytes();
        record::users(names).for_each(|name| asking.census.add_name(name));
        record::hashes(hashes).for_each(|hash| asking.census.add(hash));
        if let Some(sketch) = Sketch::from_bytes(sketch) {
            asking.census.add_sketch(&sketch);
        }
        asking.weight_bytes += names.len() as u64 + if more { 0 } else { 8 * users };
        self.presence.census_bytes = self.presence.census_bytes + asking.census.bytes() - bytes_before;
        match more {
            true => {
                asking.held_back.push(run);
                self.ask_for_more();
            }
            false => self.finish_if_complete(number),
        }
    }

    /// Next pieces are asked for, while there is room for them: those of the oldest question always.
    fn ask_for_more(&mut self) {
        let mut wanted: Vec<(u64, u64)> = Vec::new();
        let mut has_room = true;
        for (number, asking) in &mut self.presence.asking {
            if let (true, false, Remote::Asked { heard_at, .. }) =
                (has_room, asking.held_back.is_empty(), &mut asking.remote)
            {
                wanted.extend(asking.held_back.drain(..).map(|run| (run, *number)));
                *heard_at = self.now;
            }
            has_room = self.presence.census_bytes <= CLUSTER_CENSUS_BYTES_MAX;
        }
        for (run, number) in wanted {
            let channel = self.names.node(run);
            self.publish(&channel, &Record::PresentMore { number });
        }
    }

    fn finish_if_complete(&mut self, number: u64) {
        let is_complete = |asking: &Asking| match asking.remote {
            Remote::NotAsked => false,
            Remote::Asked { nodes, answers, .. } => nodes.is_some_and(|nodes| answers >= nodes),
        };
        if self.presence.asking.get(&number).is_some_and(is_complete) {
            self.finish_presence(number);
        }
    }

    /// Time has passed: those who have waited long enough get what there is, and rooms that have rested are asked about.
    pub(super) fn presence_goes_on(&mut self) {
        let now = self.now;
        let is_overdue = |asking: &Asking| match asking.remote {
            Remote::Asked { heard_at, .. } => {
                asking.held_back.is_empty() && now.since(heard_at) > CLUSTER_PRESENCE_MS_MAX
            }
            Remote::NotAsked => false,
        };
        let overdue = self.presence.asking.iter().filter(|(_, asking)| is_overdue(asking)).map(|(number, _)| *number);
        for number in overdue.collect::<Vec<u64>>() {
            self.finish_presence(number);
        }
        while let Some(name) = self.presence.take_rested(now) {
            let Some(room) = self.presence.rooms.get(&name) else { continue };
            match room.next {
                Some(_) => self.presence.turn.push_back((now, name)),
                None => _ = self.presence.rooms.remove(&name),
            }
        }
        self.begin_questions();
        while let Some((since, name)) = self.presence.turn.pop_front() {
            if now.since(since) <= CLUSTER_PRESENCE_MS_MAX {
                self.presence.turn.push_front((since, name));
                break;
            }
            if let Some(askers) = self.presence.rooms.remove(&name).and_then(|room| room.next) {
                self.answer_askers(askers, |to, id| Mail::unavailable(to, id, Some(name.clone())));
            }
        }
    }

    fn answer_askers(&mut self, askers: Askers, mail: impl Fn(ReplyTo, Option<Box<str>>) -> Mail) {
        let Askers { askers, ticket } = askers;
        self.tickets.give_back(ticket);
        for asker in askers {
            self.presence.askers_bytes -= asker.bytes();
            self.mail.push((asker.to.peer(), mail(asker.to, asker.id)));
        }
    }

    /// All who have asked get what has come.
    fn finish_presence(&mut self, number: u64) {
        let Some(asking) = self.presence.asking.remove(&number) else { return };
        let Asking { room, askers, census, owed_bytes, weight_bytes, .. } = asking;
        self.presence.owed_bytes -= owed_bytes;
        self.presence.census_bytes -= census.bytes();
        let mut head = Vec::new();
        protocol::presence_head(&mut head, &room, census.count(), census.names().iter().map(|name| &**name));
        let head: Arc<[u8]> = head.into();
        self.answer_askers(askers, |asker, id| Mail::counted(asker, id, head.clone()));
        let ms = CLUSTER_PRESENCE_REST_MS + weight_bytes / CLUSTER_PRESENCE_BYTES_PER_MS;
        self.presence.resting.insert((self.now.saturating_add(ms.min(CLUSTER_PRESENCE_MS_MAX)), room));
        self.ask_for_more();
        self.begin_questions();
    }
}
