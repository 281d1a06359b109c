//! What one reactor keeps of messages: the histories of the topics at home here, how much they hold together, and which
//! goes first.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::JoinReply;
use super::cluster::{Older, Rest};
use super::history::{History, HistoryPolicy, StreamPosition};
use super::homes::{Home, Homes};
#[cfg(any(test, debug_assertions))]
use super::kept::Noted;
use super::mail::{RecoverFrom, Resume};
use super::needs::Piece;
use super::policy::RoomPolicies;
use super::slice::Slice;
use super::topic::{Kind, Topic, TopicIndex, Topics};
use crate::compress::{Account, HeldBytes, SharedFrame};
use crate::ids::ReactorId;
use crate::limits::HISTORY_EXPIRIES_PER_TURN;
use crate::time::Millis;

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
    pub pinned: Arc<HeldBytes>,
    /// How much that may be; beyond it no connection recovers anything.
    pub pinned_bytes_max: u64,
}

impl HistorySettings {
    /// Nothing is kept.
    pub fn none() -> HistorySettings {
        HistorySettings { rooms: None, inbox: None, bytes_max: 0, pinned: Arc::default(), pinned_bytes_max: 0 }
    }
}

/// The bounds on all histories of a reactor, which are in the homes of their topics. The run, the count of epochs and the
/// time are what it is; the orders, and what is noted in each history, are built again from the histories.
#[derive(Debug)]
pub(super) struct Retention {
    bytes_max: usize,
    pinned_bytes_max: u64,
    /// What begins every epoch's word: no other run of a server has it.
    run: String,
    epochs: u64,
    /// The time of this turn.
    now: Millis,
    bytes: usize,
    account: Arc<Account>,
    /// Topics by the age of the oldest that they keep, each once while it keeps something. An entry may have been
    /// overtaken: then the topic is put in again when its turn comes.
    oldest: Order,
    /// The same by when something of theirs is due to go.
    expiries: Order,
    /// How many messages and keys may still go in this turn because they are too old.
    expiries_left: usize,
}

type Order = BTreeSet<(Millis, u32)>;

/// What a join is told of a topic's history.
#[derive(Debug, Default)]
pub(super) struct Recovery {
    pub(super) position: Option<StreamPosition>,
    pub(super) slice: Option<Slice>,
    pub(super) recovered: Option<bool>,
}

impl Retention {
    pub(super) fn new(settings: &HistorySettings, run: u64, me: ReactorId) -> Retention {
        let account = Account { pinned: settings.pinned.clone(), ..Account::default() };
        Retention {
            bytes_max: settings.bytes_max,
            pinned_bytes_max: settings.pinned_bytes_max,
            run: format!("{run:016x}-{:x}", me.0),
            epochs: 0,
            now: Millis(0),
            bytes: 0,
            account: Arc::new(account),
            oldest: Order::new(),
            expiries: Order::new(),
            expiries_left: 0,
        }
    }

    /// The time of this turn.
    pub(super) fn now(&self) -> Millis {
        self.now
    }

    /// Bytes that all histories hold.
    pub(super) fn held_bytes(&self) -> usize {
        self.bytes + self.account.compressed.get() as usize
    }

    /// An empty history in an epoch of its own.
    pub(super) fn begin(&mut self, policy: HistoryPolicy) -> History {
        History::new(self.new_epoch(), policy, self.account.clone())
    }

    /// The word of an epoch that nothing else has.
    pub(super) fn new_epoch(&mut self) -> Arc<str> {
        self.epochs += 1;
        format!("{}-{:x}", self.run, self.epochs).into()
    }

    /// An empty history behind a position, in front of which there is nothing.
    pub(super) fn begin_behind(&self, position: StreamPosition, policy: HistoryPolicy) -> History {
        History::behind(position, policy, self.account.clone())
    }

    /// A history that is the newest part of a stream.
    pub(super) fn begin_at(&self, position: StreamPosition, policy: HistoryPolicy) -> History {
        History::of_stream(position, policy, self.account.clone())
    }

    /// Messages that no history has.
    pub(super) fn slice_of(&self, frames: Vec<SharedFrame>) -> Slice {
        Slice::apart(frames, &self.account.pinned)
    }

    /// A turn begins.
    pub(super) fn begin_turn(&mut self, now: Millis) {
        self.now = now;
        self.expiries_left = HISTORY_EXPIRIES_PER_TURN;
    }

    /// Drops what is too old of one topic, as far as the turn allows; the topic, or `None` where no more is to be done.
    pub(super) fn expire_next(&mut self, topics: &Topics, homes: &mut Homes) -> Option<TopicIndex> {
        let &(at, topic) = self.expiries.first()?;
        if self.expiries_left == 0 || at > self.now {
            return None;
        }
        self.expiries.pop_first();
        let (index, now, left) = (TopicIndex(topic), self.now, self.expiries_left);
        let dropped = self.change(topics, homes, index, |history| {
            history.noted_mut().expect("it is in the order").expiry = None;
            history.expire_some(now, left)
        });
        self.expiries_left = left.saturating_sub(dropped.unwrap_or(0).max(1));
        Some(index)
    }

    /// Where the histories hold more than they may, the oldest goes; of which topic.
    pub(super) fn make_room(&mut self, topics: &Topics, homes: &mut Homes) -> Option<TopicIndex> {
        if self.held_bytes() <= self.bytes_max {
            return None;
        }
        let (at, topic) = self.oldest.pop_first()?;
        let index = TopicIndex(topic);
        self.change(topics, homes, index, |history| {
            history.noted_mut().expect("it is in the order").oldest = None;
            if history.oldest_at() == Some(at) {
                history.drop_for_room();
            }
        });
        Some(index)
    }

    /// Changes a topic's history, and notes what it keeps then. `None` where it has none.
    pub(super) fn change<T>(
        &mut self,
        topics: &Topics,
        homes: &mut Homes,
        index: TopicIndex,
        change: impl FnOnce(&mut History) -> T,
    ) -> Option<T> {
        let topic = topics.get(index);
        let home = homes.get_mut(topic)?;
        let result = change(home.history.as_deref_mut()?);
        self.note(index, topic, home);
        Some(result)
    }

    /// Replaces what is kept of a topic.
    pub(super) fn replace(&mut self, topics: &Topics, homes: &mut Homes, index: TopicIndex, history: Option<History>) {
        self.change(topics, homes, index, History::clear);
        if let Some(home) = homes.get_mut(topics.get(index)) {
            home.history = history.map(Box::new);
        }
    }

    /// A member of a topic has left. If it was the last, a position that was told is kept for a while.
    pub(super) fn keep_position(&mut self, topics: &Topics, homes: &mut Homes, index: TopicIndex) {
        if homes.is_empty(topics.get(index)) {
            let now = self.now;
            self.change(topics, homes, index, |history| history.left(now));
        }
    }

    /// What a join finds of the topic's history.
    pub(super) fn recovery(
        &mut self,
        topics: &Topics,
        homes: &mut Homes,
        index: TopicIndex,
        reply: &JoinReply,
    ) -> Recovery {
        let (now, may_recover) = (self.now, self.may_recover());
        let topic = topics.get(index);
        let is_told = topic.key.kind == Kind::Inbox || !matches!(reply, JoinReply::Silent);
        let from = reply.recover_from();
        self.change(topics, homes, index, |history| {
            history.expire(now);
            history.entered();
            if is_told {
                history.tell();
            }
        });
        let Some(history) = homes.get_mut(topic).and_then(|home| home.history.as_deref_mut()) else {
            let recovered = matches!(from, Some(RecoverFrom::Since { .. })).then_some(false);
            return Recovery { recovered, ..Recovery::default() };
        };
        let position = history.position();
        let (slice, recovered) = match from {
            None => (None, None),
            Some(RecoverFrom::Last(_)) if !may_recover => (None, None),
            Some(RecoverFrom::Since { .. }) if !may_recover => (None, Some(false)),
            Some(RecoverFrom::Last(count)) => (Some(history.last(*count)), None),
            Some(RecoverFrom::Since { epoch, offset }) => {
                let slice = history.since(epoch, *offset, position.offset);
                let recovered = slice.is_some();
                (slice, Some(recovered))
            }
        };
        Recovery { position: Some(position), slice, recovered }
    }

    /// What an inbox has of what came before a welcome, and up to where that is.
    pub(super) fn resume(
        &mut self,
        topics: &Topics,
        homes: &mut Homes,
        index: TopicIndex,
        resume: &Resume,
    ) -> (Option<StreamPosition>, Option<Slice>) {
        let (now, may_recover) = (self.now, self.may_recover());
        let Resume { epoch, offset, welcomed_at, .. } = resume;
        let found = self.change(topics, homes, index, |history| {
            history.expire(now);
            // What is live came behind the welcome, or, where that is of another epoch, behind the gap that was told.
            let position = history.live_from(welcomed_at.as_ref());
            let slice = position.as_ref().filter(|_| may_recover).and_then(|position| {
                // A client that knows a newer position has missed nothing in front of it.
                history.since(epoch, *offset, position.offset.max(*offset))
            });
            (position, slice)
        });
        found.unwrap_or_default()
    }

    /// Puts what the cluster has kept in front of a history that begins at offset `before`; whether it still does.
    pub(super) fn put_older(&mut self, topics: &Topics, homes: &mut Homes, index: TopicIndex, piece: Piece) -> bool {
        let (now, Piece { before, older, rest }) = (self.now, piece);
        let put = self.change(topics, homes, index, |history| {
            // It may have gone on from another position meanwhile, or lost its first messages to make room.
            if history.first_offset() != before {
                return false;
            }
            let age = |Older { frame, age_ms }| (frame, Millis(now.0.saturating_sub(age_ms)));
            history.prepend(older.into_iter().map(age), rest == Rest::Nothing);
            true
        });
        put == Some(true)
    }

    /// Whether all that was put in front of a history, from offset `first` on, has found room. What has not is not asked
    /// for again for a while.
    pub(super) fn has_kept_from(&mut self, topics: &Topics, homes: &mut Homes, index: TopicIndex, first: u64) -> bool {
        let now = self.now;
        let kept = self.change(topics, homes, index, |history| {
            let has_room = history.first_offset() == first;
            if !has_room {
                history.note_no_room(now);
            }
            has_room
        });
        kept == Some(true)
    }

    /// Whether there is room for another recovery.
    fn may_recover(&self) -> bool {
        self.account.pinned.get() <= self.pinned_bytes_max
    }

    /// Notes what a topic's history keeps now, and gives back what it takes to keep something where that is nothing.
    fn note(&mut self, index: TopicIndex, topic: &Topic, home: &mut Home) {
        let is_empty = home.is_empty();
        let Some(history) = home.history.as_deref_mut() else { return };
        // A topic with members is there anyway.
        let own_bytes = if is_empty { topic.own_bytes() + Home::OWN_BYTES + history.own_bytes() } else { 0 };
        let bytes = history.bytes() + own_bytes;
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

    /// Another bound holds from now on: what is beyond it goes when room is made next.
    pub(super) fn set_bytes_max(&mut self, bytes_max: usize) {
        self.bytes_max = bytes_max;
    }

    /// The orders, and what is noted in them, are built again.
    #[cfg(any(test, debug_assertions))]
    pub(super) fn rebuild(&mut self, topics: &Topics, homes: &mut Homes) {
        (self.bytes, self.oldest, self.expiries) = (0, Order::new(), Order::new());
        for (index, topic) in topics.iter() {
            let Some(home) = homes.get_mut(topic) else { continue };
            if let Some(noted) = home.history.as_deref_mut().and_then(History::noted_mut) {
                *noted = Noted::default();
            }
            self.note(index, topic, home);
        }
    }

    /// Checks what is noted against what is kept.
    #[cfg(any(test, debug_assertions))]
    pub(super) fn check(&self, topics: &Topics, homes: &Homes) {
        let mut bytes = 0;
        let mut kept = 0;
        for (index, topic) in topics.iter() {
            let Some(history) = homes.get(topic).and_then(|home| home.history.as_deref()) else { continue };
            let Some(noted) = history.noted() else { continue };
            kept += 1;
            bytes += noted.bytes;
            let (oldest, expiry) = (noted.oldest.expect("in the order"), noted.expiry.expect("in the order"));
            assert!(self.oldest.contains(&(oldest, index.0)), "{:?} has its place by age", topic.key);
            assert!(self.expiries.contains(&(expiry, index.0)), "{:?} has its place by what goes", topic.key);
            assert!(Some(oldest) <= history.oldest_at() && Some(expiry) <= history.expires_at(), "{:?}", topic.key);
        }
        assert_eq!((self.bytes, self.oldest.len(), self.expiries.len()), (bytes, kept, kept));
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
