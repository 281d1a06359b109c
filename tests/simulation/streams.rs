//! Topics with history, as somebody who sees only the clients: what is known of each epoch, and where each connection
//! is in it.
//!
//! ```text
//!   join ──► Asking ── joined ──► Live ── leave ──► (gone with its ack)
//!   inbox:              welcome ──► Live ── resume ──► Live, and what is recovered beside it ── resumed ──► Live
//! ```
//!
//! An offset is known once an ack, a message, a page or a recovery tells of it, and from then on nothing may tell
//! otherwise. A connection gets what follows its position live, once and in order; what it misses is its own, which it
//! does not get. What it asks of the past comes whole, or not at all where some of it may be gone.

use std::collections::{BTreeMap, BTreeSet};

use fanfare::router::HistoryPolicy;
use fanfare_simulated::message::{Page, Position, Serial, Wish};

use super::oracle::{GuestAt, TopicAt};

/// Bytes of messages from which on a page may be shorter than was asked for: what one holds, less the largest message.
const FULL_PAGE_BYTES: usize = 180_000;

/// A message in an epoch, as far as it concerns this.
#[derive(Clone, Copy, Debug)]
struct Written {
    serial: Serial,
    by: GuestAt,
    not_to_sender: bool,
    /// When it was said. It was kept then or later.
    said_ms: u64,
}

/// A message that came out of history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Came {
    pub offset: u64,
    pub serial: Serial,
    pub bytes: usize,
}

/// One epoch of one topic.
#[derive(Debug, Default)]
struct Epoch {
    written: BTreeMap<u64, Written>,
}

/// One connection as it reads one topic.
#[derive(Debug)]
enum Reader {
    /// Everything that comes before it is told where it is comes out of history.
    Asking(Asked),
    Live {
        at: Position,
        /// Of an inbox: the place it was welcomed at, and what it asked for from in front of that.
        resumed: Option<(u64, Option<Asked>)>,
        is_leaving: bool,
    },
}

#[derive(Debug)]
struct Asked {
    wish: Wish,
    came: Vec<Came>,
}

/// What an answer shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    NothingAsked,
    /// What was there came, and it was something or nothing.
    Recovered(usize),
    NotRecovered,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Streams {
    /// `None` where nothing keeps any.
    policy: Option<HistoryPolicy>,
    /// Whether there is hardly any room, so that anything may be gone.
    is_forgetful: bool,
    epochs: BTreeMap<(TopicAt, String), Epoch>,
    readers: BTreeMap<(GuestAt, TopicAt), Reader>,
    /// Messages that are known to have a place.
    placed: BTreeSet<Serial>,
    /// What somebody did not get, and what therefore has to be its own: to be known when all rests.
    skipped: BTreeSet<(GuestAt, TopicAt, String, u64)>,
    /// Messages that came live with an offset.
    pub live: u64,
}

impl Streams {
    /// Nothing was said so far.
    pub fn new(policy: Option<HistoryPolicy>, is_forgetful: bool) -> Streams {
        let (epochs, readers) = (BTreeMap::new(), BTreeMap::new());
        let (placed, skipped) = (BTreeSet::new(), BTreeSet::new());
        Streams { policy, is_forgetful, epochs, readers, placed, skipped, live: 0 }
    }

    /// A position that somebody may have, by two throws: any that is known of the topic, or one that is still to come.
    pub fn some_position(&self, topic: TopicAt, random: &mut fastrand::Rng) -> Option<Position> {
        let epochs = self.epochs.range((topic, String::new())..(TopicAt(topic.0 + 1), String::new()));
        let known: Vec<_> = epochs.collect();
        // Mostly in the one that is known best, which is the newest where there are several of a size.
        let newest = known.iter().max_by_key(|(_, epoch)| epoch.written.len()).copied();
        let ((_, epoch), written) = if random.u8(0..4) == 0 { random.choice(known).or(newest) } else { newest }?;
        let last = written.written.last_key_value().map_or(0, |(&offset, _)| offset);
        let offset = if random.bool() { random.u64(last.saturating_sub(4)..=last) } else { random.u64(0..=last + 1) };
        Some(Position { epoch: epoch.clone(), offset })
    }

    /// Whether a guest neither is in a topic nor about to be.
    pub fn is_out(&self, guest: GuestAt, topic: TopicAt) -> bool {
        !self.readers.contains_key(&(guest, topic))
    }

    /// Where a guest is that is in a topic, and has not said that it leaves.
    pub fn live_at(&self, guest: GuestAt, topic: TopicAt) -> Option<&Position> {
        match self.readers.get(&(guest, topic))? {
            Reader::Live { at, is_leaving: false, .. } => Some(at),
            Reader::Live { is_leaving: true, .. } | Reader::Asking(_) => None,
        }
    }

    /// A guest joins a room.
    pub fn join(&mut self, guest: GuestAt, topic: TopicAt, wish: Wish) {
        let before = self.readers.insert((guest, topic), Reader::Asking(Asked { wish, came: Vec::new() }));
        assert!(before.is_none(), "the simulation joins where it is out");
    }

    /// A guest's inbox is open.
    pub fn welcome(&mut self, guest: GuestAt, topic: TopicAt, at: Position) {
        self.epoch(topic, &at.epoch);
        let resumed = Some((at.offset, None));
        self.readers.insert((guest, topic), Reader::Live { at, resumed, is_leaving: false });
    }

    /// A guest asks for what came to its inbox before it was welcomed; `false` where it does already.
    pub fn resume(&mut self, guest: GuestAt, topic: TopicAt, from: Position) -> bool {
        match self.readers.get_mut(&(guest, topic)) {
            Some(Reader::Live { resumed: Some((_, asked @ None)), .. }) => {
                *asked = Some(Asked { wish: Wish::Since(from), came: Vec::new() });
                true
            }
            Some(Reader::Live { .. } | Reader::Asking(_)) | None => false,
        }
    }

    /// A guest says that it leaves a room.
    pub fn leave(&mut self, guest: GuestAt, topic: TopicAt) {
        if let Some(Reader::Live { is_leaving, .. }) = self.readers.get_mut(&(guest, topic)) {
            *is_leaving = true;
        }
    }

    /// A guest's leave is acked, which may be one that it said before it joined.
    pub fn left(&mut self, guest: GuestAt, topic: TopicAt) {
        if let Some(Reader::Live { is_leaving: true, .. }) = self.readers.get(&(guest, topic)) {
            self.readers.remove(&(guest, topic));
        }
    }

    /// A connection is over.
    pub fn end(&mut self, guest: GuestAt) {
        self.readers.retain(|(other, _), _| *other != guest);
        self.skipped.retain(|(other, ..)| *other != guest);
    }

    /// A message is known to have a place.
    pub fn learn(&mut self, topic: TopicAt, at: &Position, said: Said) {
        let Said { serial, by, not_to_sender, said_ms } = said;
        let epoch = self.epoch(topic, &at.epoch);
        let written = epoch.written.entry(at.offset).or_insert(Written { serial, by, not_to_sender, said_ms });
        assert_eq!(written.serial, serial, "two messages are at {at:?}");
        let before = epoch.written.range(..at.offset).next_back();
        let elsewhere = before.into_iter().chain(epoch.written.range(at.offset + 1..).next());
        for (offset, other) in elsewhere {
            assert_ne!(other.serial, serial, "#{serial}# is at {offset} and at {at:?}");
        }
        self.placed.insert(serial);
        assert!(at.offset > 0, "offsets begin with 1: #{serial}# is at {at:?}");
    }

    /// A message has come with an offset: whether it came live, and not out of history.
    pub fn receive(&mut self, guest: GuestAt, topic: TopicAt, came: Came, said: Said) -> bool {
        let Came { offset, serial, .. } = came;
        let reader = self.readers.get_mut(&(guest, topic));
        let reader = reader.unwrap_or_else(|| panic!("guest {guest} gets #{serial}# of a history it does not read"));
        let at = match reader {
            Reader::Asking(asked) => {
                asked.came.push(came);
                return false;
            }
            Reader::Live { resumed: Some((welcomed_at, asked)), .. } if offset <= *welcomed_at => {
                let asked = asked.as_mut();
                let asked = asked.unwrap_or_else(|| panic!("guest {guest} gets #{serial}#, which nobody asked for"));
                asked.came.push(came);
                return false;
            }
            Reader::Live { at, .. } => at,
        };
        let what = format!("guest {guest}, which is at {at:?}, gets #{serial}# as {offset}");
        assert!(offset > at.offset, "{what}");
        assert!(!(said.not_to_sender && said.by == guest), "{what}, which is its own");
        for missed in at.offset + 1..offset {
            self.skipped.insert((guest, topic, at.epoch.clone(), missed));
        }
        at.offset = offset;
        let at = at.clone();
        self.learn(topic, &at, said);
        self.live += 1;
        true
    }

    /// A guest is in a room, or has had what there was of its inbox. `recovered` as it was said; what came of the past
    /// is known by `said`.
    pub fn answer(&mut self, guest: GuestAt, topic: TopicAt, answer: Answer, said: impl Fn(Serial) -> Said) -> Told {
        let Answer { at, recovered, now_ms, .. } = answer.clone();
        let reader = self.readers.get_mut(&(guest, topic));
        let reader = reader.unwrap_or_else(|| panic!("guest {guest} is told {at:?} of a history it does not read"));
        let asked = match reader {
            Reader::Asking(asked) => {
                let asked = Asked { wish: asked.wish.clone(), came: std::mem::take(&mut asked.came) };
                *reader = Reader::Live { at: at.clone(), resumed: None, is_leaving: false };
                asked
            }
            Reader::Live { resumed: Some((welcomed_at, asked @ Some(_))), at: live, .. } if recovered.is_some() => {
                let place = Position { epoch: live.epoch.clone(), offset: *welcomed_at };
                assert_eq!(at, place, "guest {guest} resumes up to where it was welcomed");
                asked.take().expect("it was just there")
            }
            Reader::Live { at: live, .. } => {
                assert_eq!(at.epoch, live.epoch, "guest {guest} is told {at:?}, and is at {live:?}");
                return Told::NothingAsked;
            }
        };
        let what = format!("guest {guest}, which wished for {asked:?}, is told {recovered:?}, {at:?}");
        self.epoch(topic, &at.epoch);
        for came in &asked.came {
            let position = Position { epoch: at.epoch.clone(), offset: came.offset };
            self.learn(topic, &position, said(came.serial));
        }
        let offsets: Vec<u64> = asked.came.iter().map(|came| came.offset).collect();
        assert_eq!(recovered.is_some(), matches!(asked.wish, Wish::Since(_)), "{what}");
        match asked.wish {
            Wish::Nothing => assert!(offsets.is_empty(), "{what}"),
            Wish::Last(count) => {
                let end = at.offset;
                let first = at.offset + 1 - offsets.len() as u64;
                assert!(offsets.len() as u64 <= count, "{what}");
                assert!(offsets.iter().copied().eq(first..=at.offset), "{what}");
                let is_all = offsets.len() as u64 == count || first == 1;
                let is_there = |offset| self.is_there(topic, &at.epoch, end, offset, now_ms);
                assert!(is_all || !is_there(first - 1), "{what}, and {} is there", first - 1);
            }
            Wish::Since(from) if recovered == Some(true) => {
                assert_eq!(from.epoch, at.epoch, "{what}");
                assert!(offsets.iter().copied().eq(from.offset + 1..=at.offset), "{what}");
            }
            Wish::Since(from) => {
                assert!(offsets.is_empty(), "{what}");
                self.judge_loss(topic, &from, &answer, &what);
                return Told::NotRecovered;
            }
        }
        Told::Recovered(offsets.len())
    }

    /// A page has come.
    pub fn page(&mut self, topic: TopicAt, page: Page, answer: Answer, came: &[Came], said: impl Fn(Serial) -> Said) {
        let Answer { at, now_ms, .. } = answer;
        let what = format!("{came:?} up to {at:?} come for {page:?}");
        let end = page.before.unwrap_or(u64::MAX).min(at.offset + 1);
        assert!(came.len() as u64 <= page.limit, "{what}");
        let first = end.saturating_sub(came.len() as u64);
        assert!(came.iter().map(|one| one.offset).eq(first..end), "{what}");
        for one in came {
            self.learn(topic, &Position { epoch: at.epoch.clone(), offset: one.offset }, said(one.serial));
        }
        let bytes: usize = came.iter().map(|one| one.bytes).sum();
        let is_all = came.len() as u64 == page.limit || first <= 1 || bytes >= FULL_PAGE_BYTES;
        let is_there = |offset| self.is_there(topic, &at.epoch, at.offset, offset, now_ms);
        assert!(is_all || !is_there(first - 1), "{what}, and there is more");
    }

    /// All rests: who is in a topic has all that is known of it but what is its own. `own` tells which messages a guest
    /// has said to a topic and does not get itself.
    pub fn settle(&mut self, is_open: impl Fn(GuestAt) -> bool, own: impl Fn(GuestAt, TopicAt) -> Vec<Serial>) {
        let mut unknown: BTreeMap<(GuestAt, TopicAt), usize> = BTreeMap::new();
        for (guest, topic, epoch, offset) in std::mem::take(&mut self.skipped) {
            match self.epochs.get(&(topic, epoch.clone())).and_then(|known| known.written.get(&offset)) {
                Some(written) => assert!(
                    written.by == guest && written.not_to_sender,
                    "guest {guest} never got #{}#, which is at {offset} of {epoch}",
                    written.serial
                ),
                None => *unknown.entry((guest, topic)).or_default() += 1,
            }
        }
        for ((guest, topic), missed) in unknown {
            let own = own(guest, topic).iter().filter(|serial| !self.placed.contains(serial)).count();
            assert!(
                missed <= own,
                "guest {guest} has missed {missed} messages, and can have said {own} of them itself"
            );
        }
        for ((guest, topic), reader) in &self.readers {
            if !is_open(*guest) {
                continue;
            }
            let Reader::Live { at, resumed, is_leaving: false } = reader else {
                panic!("guest {guest}: all rests, and {reader:?} waits")
            };
            let is_answered = !matches!(resumed, Some((_, Some(_))));
            assert!(is_answered, "guest {guest}: all rests, and what it asked of its inbox is not answered");
            let known = self.epochs.get(&(*topic, at.epoch.clone()));
            for (offset, written) in known.into_iter().flat_map(|epoch| epoch.written.range(at.offset + 1..)) {
                let is_own = written.by == *guest && written.not_to_sender;
                assert!(is_own, "guest {guest} is at {at:?}, and #{}# is at {offset}", written.serial);
            }
        }
    }

    fn epoch(&mut self, topic: TopicAt, epoch: &str) -> &mut Epoch {
        self.epochs.entry((topic, epoch.to_owned())).or_default()
    }

    /// Whether a message that was written must still be there: neither too many came behind it, up to `end`, nor is it
    /// too old. What stands before it was kept before it.
    fn is_there(&self, topic: TopicAt, epoch: &str, end: u64, offset: u64, now_ms: u64) -> bool {
        let Some(known) = self.epochs.get(&(topic, epoch.to_owned())) else { return false };
        let Some(policy) = self.policy.filter(|_| !self.is_forgetful) else { return false };
        let is_young = |written: &Written| written.said_ms + policy.ttl_ms > now_ms;
        offset + u64::from(policy.messages_max) > end
            && known.written.range(..=offset).any(|(_, written)| is_young(written))
    }

    /// What is said to be lost has to be.
    fn judge_loss(&self, topic: TopicAt, from: &Position, answer: &Answer, what: &str) {
        let Answer { at, said_count, now_ms, .. } = answer;
        let is_there = |offset| self.is_there(topic, &from.epoch, *said_count, offset, *now_ms);
        if from.epoch == at.epoch {
            assert!(self.is_forgetful || from.offset != at.offset, "{what}, and it has missed nothing");
            let is_gone = from.offset > at.offset || !is_there(from.offset + 1);
            assert!(is_gone, "{what}, and the next one is there");
        } else if let Some(known) = self.epochs.get(&(topic, from.epoch.clone())) {
            let has_some = known.written.keys().any(|&offset| is_there(offset));
            assert!(!has_some, "{what}, and there are messages in {from:?}");
        }
    }
}

/// What is known of a message that was said.
#[derive(Clone, Copy, Debug)]
pub struct Said {
    pub serial: Serial,
    pub by: GuestAt,
    pub not_to_sender: bool,
    pub said_ms: u64,
}

/// What a connection is told of a history.
#[derive(Clone, Debug)]
pub struct Answer {
    pub at: Position,
    pub recovered: Option<bool>,
    /// How many messages were ever said to the topic: no more can have a place in it by now.
    pub said_count: u64,
    pub now_ms: u64,
}
