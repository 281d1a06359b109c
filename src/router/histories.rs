//! All histories of one reactor: which topics keep one, how much they hold together, and who goes first.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use super::cluster::{Older, Rest};
use super::history::{History, HistoryPolicy, Place};
use super::mail::{Ask, Content, HistoryOf, Publish, Resume, Resumed};
use super::replies::Page;
use super::slice::Slice;
#[cfg(any(test, debug_assertions))]
use super::topic::TopicTable;
use super::topic::{Keeps, Kind, Topic, TopicIndex, TopicKey, TopicRef};
use super::{Answer, Router, Sink, Wish};
use crate::compress::{Account, HeldBytes, SharedFrame};
use crate::frame::{Opcode, split_frame};
use crate::ids::{ConnId, ReactorId};
use crate::limits::{HISTORY_EXPIRIES_PER_TURN, HISTORY_PAGE_MAX};
use crate::protocol;
use crate::time::Millis;

/// Which rooms keep history, by their names.
#[derive(Clone)]
pub struct RoomPolicies(pub Arc<PolicyOfRoom>);

/// What is kept of the room with a name.
pub type PolicyOfRoom = dyn Fn(&str) -> Option<HistoryPolicy> + Send + Sync;

impl fmt::Debug for RoomPolicies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RoomPolicies")
    }
}

/// What is kept, and how much of it.
#[derive(Clone, Debug)]
pub struct HistorySettings {
    /// Rooms; `None` where none keeps any.
    pub rooms: Option<RoomPolicies>,
    /// Users' inboxes.
    pub inbox: Option<HistoryPolicy>,
    /// Bytes of all that the histories of this reactor keep, what is told of topics without messages included; beyond it
    /// the oldest goes first.
    pub bytes_max: usize,
    /// What the node holds only because recovering connections have not sent it yet.
    pub owed: Arc<HeldBytes>,
    /// How much that may be; beyond it nobody recovers anything.
    pub owed_bytes_max: u64,
}

impl HistorySettings {
    /// Nothing is kept.
    pub fn none() -> HistorySettings {
        HistorySettings { rooms: None, inbox: None, bytes_max: 0, owed: Arc::default(), owed_bytes_max: 0 }
    }

    pub(super) fn policy(&self, topic: TopicRef<'_>) -> Option<HistoryPolicy> {
        match topic.kind {
            Kind::Room => self.rooms.as_ref().and_then(|rooms| (rooms.0)(topic.name)),
            Kind::Inbox => self.inbox,
            Kind::Everyone | Kind::Raw => None,
        }
    }

    fn keeps_none(&self, kind: Kind) -> bool {
        match kind {
            Kind::Room => self.rooms.is_none(),
            Kind::Inbox => self.inbox.is_none(),
            Kind::Everyone | Kind::Raw => true,
        }
    }
}

/// The bounds on all histories of a reactor.
pub(super) struct Histories {
    settings: HistorySettings,
    /// What begins every epoch's word: no other run of a server has it.
    run: String,
    epochs: u64,
    bytes: usize,
    account: Arc<Account>,
    /// Topics by the age of the oldest that they keep, each once while it keeps something. An entry may have been
    /// overtaken: then the topic is put in again when its turn comes.
    oldest: Order,
    /// The same by when something of theirs is due to go.
    expiries: Order,
}

type Order = BTreeSet<(Millis, u32)>;

impl Histories {
    pub(super) fn new(settings: HistorySettings, run: u64, me: ReactorId) -> Histories {
        let account = Account { owed: settings.owed.clone(), ..Account::default() };
        Histories {
            settings,
            run: format!("{run:016x}-{:x}", me.0),
            epochs: 0,
            bytes: 0,
            account: Arc::new(account),
            oldest: Order::new(),
            expiries: Order::new(),
        }
    }

    /// What is kept of a topic.
    pub(super) fn policy(&self, topic: TopicRef<'_>) -> Option<HistoryPolicy> {
        match self.settings.keeps_none(topic.kind) {
            true => None,
            false => self.settings.policy(topic),
        }
    }

    /// Messages that no history has.
    pub(super) fn slice_of(&self, frames: Vec<SharedFrame>) -> Slice {
        Slice::apart(frames, &self.account.owed)
    }

    /// A history that is the newest part of a stream.
    pub(super) fn begin_at(&self, place: Place, policy: HistoryPolicy) -> History {
        History::of_stream(place, policy, self.account.clone())
    }

    /// Whether there is room for another recovery.
    fn may_recover(&self) -> bool {
        self.settings.owed.get() <= self.settings.owed_bytes_max
    }

    /// Bytes that all histories hold.
    fn held_bytes(&self) -> usize {
        self.bytes + self.account.compressed.get() as usize
    }

    fn is_over(&self) -> bool {
        self.held_bytes() > self.settings.bytes_max
    }

    /// Notes what a topic's history keeps now, and gives back what it takes to keep something where that is nothing.
    fn note(&mut self, index: TopicIndex, topic: &mut Topic) {
        let topic_bytes = topic.own_bytes();
        let is_occupied = !topic.home.is_empty();
        let Keeps::History(history) = &mut topic.keeps else { return };
        // A topic with members is there anyway.
        let alone_bytes = if is_occupied { 0 } else { topic_bytes + history.own_bytes() };
        let bytes = history.bytes() + alone_bytes;
        let (oldest, expiry) = (history.oldest_at(), history.expires_at());
        let Some(noted) = history.noted_mut() else { return };
        let kept = oldest.is_some();
        self.bytes -= std::mem::replace(&mut noted.bytes, if kept { bytes } else { 0 });
        self.bytes += noted.bytes;
        note_in(&mut self.oldest, index, &mut noted.oldest, oldest);
        note_in(&mut self.expiries, index, &mut noted.expiry, expiry);
        if !kept {
            history.close();
        }
    }

    /// Changes the bound.
    #[cfg(test)]
    pub(super) fn set_bytes_max(&mut self, bytes_max: usize) {
        self.settings.bytes_max = bytes_max;
    }

    /// Checks what is noted against what is kept.
    #[cfg(any(test, debug_assertions))]
    pub(super) fn check(&self, topics: &TopicTable) {
        let mut bytes = 0;
        let mut kept = 0;
        for (index, topic) in topics.iter() {
            let Some(noted) = topics.history(index).and_then(History::noted) else { continue };
            kept += 1;
            bytes += noted.bytes;
            let (oldest, expiry) = (noted.oldest.expect("in the order"), noted.expiry.expect("in the order"));
            assert!(self.oldest.contains(&(oldest, index.0)), "{:?} has its place by age", topic.key);
            assert!(self.expiries.contains(&(expiry, index.0)), "{:?} has its place by what goes", topic.key);
            let history = topics.history(index).expect("it has one");
            assert!(Some(oldest) <= history.oldest_at() && Some(expiry) <= history.expires_at(), "{:?}", topic.key);
        }
        assert_eq!((self.bytes, self.oldest.len(), self.expiries.len()), (bytes, kept, kept));
    }

    fn begin(&mut self, policy: HistoryPolicy) -> History {
        self.epochs += 1;
        History::new(format!("{}-{:x}", self.run, self.epochs).into(), policy, self.account.clone())
    }
}

/// Moves a topic to its place in an order, unless it is in front of that, where it is found in time.
fn note_in(order: &mut Order, index: TopicIndex, noted: &mut Option<Millis>, at: Option<Millis>) {
    if noted.is_some() && at.is_some() && *noted <= at {
        return;
    }
    if let Some(noted) = noted.take() {
        order.remove(&(noted, index.0));
    }
    if let Some(at) = at {
        order.insert((at, index.0));
    }
    *noted = at;
}

/// What a join is told of a topic's history.
#[derive(Debug, Default)]
pub(super) struct Recovery {
    pub(super) place: Option<Place>,
    pub(super) slice: Option<Slice>,
    pub(super) recovered: Option<bool>,
}

impl Router {
    /// A turn begins: what is due to go from history goes.
    pub fn begin_turn(&mut self, now: Millis) {
        self.now = now;
        let mut left = HISTORY_EXPIRIES_PER_TURN;
        while left > 0
            && let Some(&(at, topic)) = self.histories.expiries.first()
            && at <= now
        {
            self.histories.expiries.pop_first();
            let index = TopicIndex(topic);
            let dropped = self.change(index, |history| {
                history.noted_mut().expect("it is in the order").expiry = None;
                history.expire_some(now, left)
            });
            left = left.saturating_sub(dropped.unwrap_or(0).max(1));
            self.drop_if_empty(index);
        }
        // What was compressed since is counted only now.
        self.make_room();
    }

    /// Bytes that all histories of this reactor hold.
    pub fn history_bytes(&self) -> usize {
        self.histories.held_bytes()
    }

    /// Asks a room's home for a page of its history; `asker` gets the reply as a message. `false` where it is no member.
    pub fn history(
        &mut self,
        asker: ConnId,
        room: &str,
        id: Option<&str>,
        before: Option<u64>,
        limit: Option<u64>,
        sink: &mut impl Sink,
    ) -> bool {
        if !self.is_member(asker, room) {
            return false;
        }
        let key = TopicKey { kind: Kind::Room, name: room.into() };
        let limit = limit.map_or(HISTORY_PAGE_MAX, |limit| limit.min(HISTORY_PAGE_MAX as u64) as usize);
        let question = HistoryOf { room: key.clone(), asker, id: id.map(Into::into), before, limit };
        self.send_home(&key, Content::History(Box::new(question)), sink);
        true
    }

    /// Asks for what came to the connection's inbox between a position and its welcome.
    pub fn resume(&mut self, conn: ConnId, epoch: &str, offset: u64, id: Option<&str>, sink: &mut impl Sink) {
        let Some(subscriber) = self.subscribers.get(conn) else { return };
        let key = TopicKey { kind: Kind::Inbox, name: subscriber.user.clone() };
        let welcomed_at = subscriber.inbox.as_deref().cloned();
        let id = id.map(Into::into);
        let resume = Resume { inbox: key.clone(), to: conn, epoch: epoch.into(), offset, welcomed_at, id };
        self.send_home(&key, Content::Resume(Box::new(resume)), sink);
    }

    /// At home: puts a publish into the topic's history, if it keeps one, and fans it out. Its place, for the ack.
    pub(super) fn keep_and_fan_out(
        &mut self,
        hash: u64,
        publish: &Publish<'_>,
        shared: Option<&SharedFrame>,
        sink: &mut impl Sink,
    ) -> Option<Place> {
        let Publish { topic, frame, exclude, key, publisher: _ } = *publish;
        if self.cluster.is_some() || self.histories.settings.keeps_none(topic.kind) {
            self.fan_out(hash, topic, frame, shared, exclude, sink);
            return None;
        }
        let index = self.home_topic(hash, topic);
        let now = self.now;
        if let (Some(index), Some(_)) = (index, key) {
            // A key that is too old is not known any more.
            self.change(index, |history| history.expire(now));
        }
        let Some(history) = index.and_then(|index| self.topics.history_mut(index)) else {
            self.fan_out(hash, topic, frame, shared, exclude, sink);
            return None;
        };
        if let Some(known) = key.and_then(|key| history.known(key)) {
            return Some(known);
        }
        let offset = history.next_offset();
        let placed: SharedFrame =
            self.frames.build(Opcode::Text, |out| protocol::put_offset(out, split_frame(frame).1, offset)).into();
        let index = index.expect("it has a history");
        let place = self.change(index, |history| history.append(placed.clone(), key.map(Into::into), now))?;
        self.fan_out(hash, topic, placed.plain(), Some(&placed), exclude, sink);
        self.make_room();
        Some(place)
    }

    /// At home: what a join finds of the topic's history.
    pub(super) fn recovery(&mut self, index: TopicIndex, ask: &Ask) -> Recovery {
        let (now, may_recover) = (self.now, self.histories.may_recover());
        let is_told = self.topics.get(index).key.kind == Kind::Inbox || !matches!(ask, Ask::Silent);
        let wish = ask.wish();
        self.change(index, |history| {
            history.expire(now);
            history.entered();
            if is_told {
                history.tell();
            }
        });
        let Some(history) = self.topics.history_mut(index) else {
            let recovered = matches!(wish, Some(Wish::Since { .. })).then_some(false);
            return Recovery { recovered, ..Recovery::default() };
        };
        let place = history.place();
        let (slice, recovered) = match wish {
            None => (None, None),
            Some(Wish::Last(_)) if !may_recover => (None, None),
            Some(Wish::Since { .. }) if !may_recover => (None, Some(false)),
            Some(Wish::Last(count)) => (Some(history.last(*count)), None),
            Some(Wish::Since { epoch, offset }) => {
                let slice = history.since(epoch, *offset, place.offset);
                let recovered = slice.is_some();
                (slice, Some(recovered))
            }
        };
        Recovery { place: Some(place), slice, recovered }
    }

    /// At home: the next message of a history that the cluster keeps.
    pub(super) fn keep_from_cluster(&mut self, index: TopicIndex, offset: u64, frame: &SharedFrame) {
        let now = self.now;
        self.change(index, |history| {
            assert_eq!(history.next_offset(), offset, "the cluster gives every message in order");
            history.append(frame.clone(), None, now);
        });
        self.make_room();
    }

    /// At home: what the cluster has kept of a history in front of offset `before`; whether there was room for it.
    pub(super) fn put_older(&mut self, index: TopicIndex, before: u64, older: Vec<Older>, rest: Rest) -> bool {
        let (now, first) = (self.now, before - older.len() as u64);
        // It may have gone on from another place meanwhile, or lost its first messages to make room.
        if self.topics.history(index).is_none_or(|history| history.first_offset() != before) {
            return false;
        }
        let kept = older.into_iter().map(|Older { frame, age_ms }| (frame, Millis(now.0.saturating_sub(age_ms))));
        self.change(index, |history| history.prepend(kept, rest == Rest::Nothing));
        self.make_room();
        let history = self.topics.history_mut(index);
        history.is_some_and(|history| {
            let has_room = history.first_offset() == first;
            if !has_room {
                history.note_no_room(now);
            }
            has_room
        })
    }

    /// At home: a page of a room's history.
    pub(super) fn home_history(&mut self, from: ReactorId, question: HistoryOf, sink: &mut impl Sink) {
        let HistoryOf { room, asker, id, before, limit } = question;
        let hash = self.topics.hasher().hash(room.borrow());
        let found = self.topics.find(hash, room.borrow());
        let now = self.now;
        if let Some(index) = found {
            self.change(index, |history| {
                history.expire(now);
                history.tell();
            });
        }
        let aside = self.aside.as_ref().zip(found).and_then(|(aside, index)| aside.page(index, before, limit));
        let history = found.and_then(|index| self.topics.history_mut(index));
        let place = history.as_deref().map(History::place);
        let here = || history.map_or_else(Slice::default, |history| history.page(before, limit));
        let messages = aside.unwrap_or_else(here);
        self.send(from, Content::Page(Box::new(Page { to: asker, id, room, place, messages })), sink);
    }

    /// At home: what an inbox has of what came before a welcome.
    pub(super) fn home_resume(&mut self, from: ReactorId, resume: Resume, sink: &mut impl Sink) {
        let Resume { inbox, to, epoch, offset, welcomed_at, id } = resume;
        let may_recover = self.histories.may_recover();
        let hash = self.topics.hasher().hash(inbox.borrow());
        let found = self.topics.find(hash, inbox.borrow());
        let now = self.now;
        if let Some(index) = found {
            self.change(index, |history| history.expire(now));
        }
        let history = found.and_then(|index| self.topics.history_mut(index));
        // What is live came behind the welcome, or, where that is of another epoch, behind the gap that was told.
        let place = history.as_ref().and_then(|history| history.live_from(welcomed_at.as_ref()));
        let slice = place.as_ref().zip(history).filter(|_| may_recover).and_then(|(place, history)| {
            // A client that knows a newer place has missed nothing in front of it.
            history.since(&epoch, offset, place.offset.max(offset))
        });
        let resumed = Resumed { to, place: place.or(welcomed_at), slice, id };
        self.send(from, Content::Resumed(Box::new(resumed)), sink);
    }

    /// The home has looked: what was missed, then the answer.
    pub(super) fn resumed(&mut self, resumed: Resumed, sink: &mut impl Sink) {
        let Resumed { to, place, slice, id } = resumed;
        let recovered = slice.is_some();
        if let Some(slice) = slice {
            self.seal_inbox(to, sink);
            sink.recover(to, slice);
        }
        sink.answer(to, Answer::Resumed { id: id.as_deref(), place: place.as_ref().map(Place::in_epoch), recovered });
    }

    /// The topic as its home sees it; it is put into the table where it keeps history, or is there already.
    pub(super) fn home_topic(&mut self, hash: u64, topic: TopicRef<'_>) -> Option<TopicIndex> {
        let found = self.topics.find(hash, topic);
        if self.cluster.is_some() {
            return found;
        }
        let unknown = found.is_none_or(|index| matches!(self.topics.get(index).keeps, Keeps::Unknown));
        if !unknown {
            return found;
        }
        let policy = self.histories.settings.policy(topic);
        let index = match (found, policy) {
            (Some(index), _) => index,
            (None, None) => return None,
            (None, Some(_)) => {
                let key = TopicKey { kind: topic.kind, name: topic.name.into() };
                self.topics.find_or_insert(hash, &key)
            }
        };
        self.topics.get_mut(index).keeps = match policy {
            Some(policy) => Keeps::History(Box::new(self.histories.begin(policy))),
            None => Keeps::Nothing,
        };
        Some(index)
    }

    /// A member of a topic has left. If it was the last, a position that was told is kept for a while.
    pub(super) fn keep_position(&mut self, index: TopicIndex) {
        if self.topics.get(index).home.is_empty() {
            let now = self.now;
            self.change(index, |history| history.left(now));
            self.make_room();
        }
    }

    /// Replaces what is kept of a topic here.
    pub(super) fn set_history(&mut self, index: TopicIndex, history: Option<History>) {
        self.change(index, History::clear);
        self.topics.get_mut(index).keeps = match history {
            Some(history) => Keeps::History(Box::new(history)),
            None => Keeps::Unknown,
        };
    }

    /// Changes a history, and notes what it keeps then.
    fn change<T>(&mut self, index: TopicIndex, change: impl FnOnce(&mut History) -> T) -> Option<T> {
        let result = change(self.topics.history_mut(index)?);
        self.histories.note(index, self.topics.get_mut(index));
        Some(result)
    }

    /// The histories hold more than they may: the oldest goes first.
    fn make_room(&mut self) {
        while self.histories.is_over()
            && let Some((at, topic)) = self.histories.oldest.pop_first()
        {
            let index = TopicIndex(topic);
            self.change(index, |history| {
                history.noted_mut().expect("it is in the order").oldest = None;
                if history.oldest_at() == Some(at) {
                    history.drop_for_room();
                }
            });
            self.drop_if_empty(index);
        }
    }

    fn drop_if_empty(&mut self, index: TopicIndex) {
        if self.topics.get(index).keeps_nothing() {
            self.drop_topic_if_unused(&self.topics.get(index).key.clone());
        }
    }
}
