//! What a topic's home keeps of its messages: an epoch, an offset for each message, and the newest of them.
//!
//! ```text
//!   append ──► ring [first offset … last offset] ──► slice (since, last) ──► pinned until the connection has sent it
//!                 │ beyond size, age, memory                                 page ──► one reply
//!                 └──► gone; offsets are never given out again in this epoch
//! ```

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use crate::compress::{OwedBytes, SharedFrame};
use crate::frame::split_frame;
use crate::limits::{HISTORY_ENTRY_BYTES, HISTORY_PAGE_BYTES_MAX, PUBLISH_KEY_MS_MAX, PUBLISH_KEYS_MAX};
use crate::protocol::InEpoch;
use crate::time::Millis;

/// What is kept of a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HistoryPolicy {
    /// Messages, at least 1.
    pub messages_max: u32,
    /// How long each is kept.
    pub ttl_ms: u64,
}

/// A place in a topic's history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// New whenever continuity cannot be proven.
    pub epoch: Arc<str>,
    /// The number of the newest message; 0 before the first.
    pub offset: u64,
}

impl Place {
    /// The same, borrowed, as messages name it.
    pub fn in_epoch(&self) -> InEpoch<'_> {
        InEpoch { epoch: &self.epoch, offset: self.offset }
    }
}

/// Messages of a history, oldest first. They live as long as the slice does, whatever the history drops meanwhile.
#[derive(Clone, Debug)]
pub struct Slice {
    snapshot: Arc<Snapshot>,
    from: usize,
    to: usize,
}

impl Slice {
    /// The messages' frames.
    pub fn frames(&self) -> &[SharedFrame] {
        &self.snapshot.frames[self.from..self.to]
    }
}

/// All of a ring at one time. What it takes is counted, and so are its messages from when the ring has dropped them.
#[derive(Debug)]
struct Snapshot {
    frames: Box<[SharedFrame]>,
    owed: Arc<OwedBytes>,
}

impl Snapshot {
    fn new(frames: Box<[SharedFrame]>, owed: Arc<OwedBytes>) -> Snapshot {
        owed.add(size_of_val(&*frames));
        Snapshot { frames, owed }
    }
}

impl Drop for Snapshot {
    fn drop(&mut self) {
        self.owed.remove(size_of_val(&*self.frames));
    }
}

/// The history of one topic.
#[derive(Debug)]
pub(super) struct History {
    epoch: Arc<str>,
    policy: HistoryPolicy,
    ring: VecDeque<Entry>,
    last_offset: u64,
    /// Where no message is left: since when somebody may have been told of this epoch. It is kept as long as a message.
    idle_since: Option<Millis>,
    /// All of the ring, as it was asked for last.
    snapshot: Option<Arc<Snapshot>>,
    owed: Arc<OwedBytes>,
    keys: Keys,
    bytes: usize,
    /// Whether there may be messages in front of those here, in the stream that this is the newest part of.
    older_elsewhere: bool,
    /// Where this began, if it is a part of a stream.
    stream_from: Option<u64>,
}

#[derive(Debug)]
struct Entry {
    frame: SharedFrame,
    kept_at: Millis,
}

impl Entry {
    fn bytes(&self) -> usize {
        self.frame.plain().len() + HISTORY_ENTRY_BYTES
    }
}

/// By which publish a message came, so that a retry is known.
#[derive(Debug, Default)]
struct Keys {
    offsets: HashMap<Arc<str>, u64>,
    order: VecDeque<(Millis, Arc<str>)>,
}

impl History {
    pub(super) fn new(epoch: Arc<str>, policy: HistoryPolicy, owed: Arc<OwedBytes>) -> History {
        History {
            epoch,
            policy,
            ring: VecDeque::new(),
            last_offset: 0,
            idle_since: None,
            snapshot: None,
            owed,
            keys: Keys::default(),
            bytes: 0,
            older_elsewhere: false,
            stream_from: None,
        }
    }

    /// The newest part of a stream that is kept elsewhere: nothing yet, and then what comes behind `place`.
    pub(super) fn of_stream(place: Place, policy: HistoryPolicy, owed: Arc<OwedBytes>) -> History {
        History {
            last_offset: place.offset,
            older_elsewhere: place.offset > 0,
            stream_from: Some(place.offset),
            ..History::new(place.epoch, policy, owed)
        }
    }

    /// Whether the message with this offset is not here, but may be elsewhere.
    pub(super) fn lacks(&self, offset: u64) -> bool {
        self.older_elsewhere && offset < self.first_offset()
    }

    /// Whether of the `count` messages in front of `end` some are not here, but may be elsewhere.
    pub(super) fn lacks_of(&self, end: u64, count: u64) -> bool {
        let count = count.min(u64::from(self.policy.messages_max));
        count > 0 && self.lacks(end.saturating_sub(count).max(1))
    }

    /// Puts the messages in front of those here that the stream has there, oldest first and without a gap.
    pub(super) fn prepend(&mut self, older: impl DoubleEndedIterator<Item = (SharedFrame, Millis)>) {
        self.older_elsewhere = false;
        self.forget_idle();
        for (frame, kept_at) in older.rev() {
            if self.ring.len() == self.policy.messages_max as usize {
                break;
            }
            let entry = Entry { frame, kept_at };
            self.bytes += entry.bytes();
            self.ring.push_front(entry);
        }
        self.snapshot = None;
    }

    /// Where the next message comes behind.
    pub(super) fn place(&self) -> Place {
        self.place_of(self.last_offset)
    }

    /// Behind which place a member gets everything live that was told `place` when it came.
    pub(super) fn live_from(&self, place: Option<&Place>) -> Option<Place> {
        match place {
            Some(place) if place.epoch == self.epoch => Some(place.clone()),
            Some(_) | None => self.stream_from.map(|offset| self.place_of(offset)),
        }
    }

    /// Bytes held, those for finding them included.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ring.is_empty() && self.idle_since.is_none() && self.keys.order.is_empty()
    }

    /// When the oldest message was kept, or the epoch told.
    pub(super) fn oldest_at(&self) -> Option<Millis> {
        self.ring.front().map(|entry| entry.kept_at).or(self.idle_since)
    }

    /// Somebody is told where the history is.
    pub(super) fn touch(&mut self, now: Millis) {
        if self.ring.is_empty() {
            self.forget_idle();
            self.idle_since = Some(now);
            self.bytes += HISTORY_ENTRY_BYTES;
        }
    }

    fn forget_idle(&mut self) {
        if self.idle_since.take().is_some() {
            self.bytes -= HISTORY_ENTRY_BYTES;
        }
    }

    /// When something of it is due to go.
    pub(super) fn expires_at(&self) -> Option<Millis> {
        let message = self.oldest_at().map(|at| at.saturating_add(self.policy.ttl_ms));
        let key = self.keys.order.front().map(|(at, _)| at.saturating_add(PUBLISH_KEY_MS_MAX));
        message.into_iter().chain(key).min()
    }

    /// The place of the message that was published with this key already.
    pub(super) fn known(&self, key: &str) -> Option<Place> {
        self.keys.offsets.get(key).map(|&offset| self.place_of(offset))
    }

    /// The offset of the next message.
    pub(super) fn next_offset(&self) -> u64 {
        self.last_offset + 1
    }

    /// Keeps a message that carries [`History::next_offset`].
    pub(super) fn append(&mut self, frame: SharedFrame, key: Option<Arc<str>>, now: Millis) -> Place {
        self.last_offset += 1;
        self.forget_idle();
        let entry = Entry { frame, kept_at: now };
        self.bytes += entry.bytes();
        self.ring.push_back(entry);
        self.snapshot = None;
        if self.ring.len() > self.policy.messages_max as usize {
            self.drop_oldest();
        }
        if let Some(key) = key {
            self.remember(key, now);
        }
        self.place()
    }

    /// Drops what is too old.
    pub(super) fn expire(&mut self, now: Millis) {
        while self.oldest_at().is_some_and(|at| at.saturating_add(self.policy.ttl_ms) <= now) {
            self.drop_oldest();
        }
        while self.keys.order.front().is_some_and(|(at, _)| at.saturating_add(PUBLISH_KEY_MS_MAX) <= now) {
            self.forget_key();
        }
    }

    /// Makes room: the oldest message goes. Of a stream it is still elsewhere.
    pub(super) fn drop_for_room(&mut self) {
        self.older_elsewhere |= self.stream_from.is_some() && !self.ring.is_empty();
        self.drop_oldest();
    }

    fn drop_oldest(&mut self) {
        match self.ring.pop_front() {
            Some(entry) => {
                self.bytes -= entry.bytes();
                self.snapshot = None;
                entry.frame.give_up(&self.owed);
            }
            None => self.forget_idle(),
        }
    }

    /// Makes room where no message is left.
    pub(super) fn forget_keys(&mut self) {
        while !self.keys.order.is_empty() {
            self.forget_key();
        }
    }

    /// What came behind `offset` of `epoch`, up to `to`; `None` where any of it is gone, or never was.
    pub(super) fn since(&mut self, epoch: &str, offset: u64, to: u64) -> Option<Slice> {
        let is_known = *epoch == *self.epoch && offset <= to && to <= self.last_offset;
        // What is asked for begins behind `offset`, so that all of it being gone is no loss where it is nothing.
        if !is_known || (offset < to && offset + 1 < self.first_offset()) {
            return None;
        }
        Some(self.slice(offset, to))
    }

    /// The newest messages, at most `count`.
    pub(super) fn last(&mut self, count: u64) -> Slice {
        let from = self.last_offset.saturating_sub(count).max(self.first_offset() - 1);
        self.slice(from, self.last_offset)
    }

    /// The payloads of the newest messages in front of offset `before`, oldest first: at most `limit`, and together no
    /// more than `limits::HISTORY_PAGE_BYTES_MAX` unless the newest alone is larger.
    pub(super) fn page(&self, before: Option<u64>, limit: usize) -> impl Iterator<Item = &[u8]> {
        let end = before.unwrap_or(u64::MAX).clamp(self.first_offset(), self.last_offset + 1);
        let end = (end - self.first_offset()) as usize;
        let newest = self.ring.range(end.saturating_sub(limit)..end).rev();
        let bytes = newest.scan(0, |sum, entry| {
            *sum += entry.frame.plain().len();
            Some(*sum)
        });
        let count = bytes.enumerate().take_while(|(at, bytes)| *at == 0 || *bytes <= HISTORY_PAGE_BYTES_MAX).count();
        self.ring.range(end - count..end).map(|entry| split_frame(entry.frame.plain()).1)
    }

    fn place_of(&self, offset: u64) -> Place {
        Place { epoch: self.epoch.clone(), offset }
    }

    /// The offset of the oldest message that is left, or of the next one.
    pub(super) fn first_offset(&self) -> u64 {
        self.last_offset + 1 - self.ring.len() as u64
    }

    /// The messages `after+1..=to`, all of which are here.
    fn slice(&mut self, after: u64, to: u64) -> Slice {
        let ring = &self.ring;
        let snapshot = || {
            let frames = ring.iter().map(|entry| entry.frame.clone()).collect();
            Arc::new(Snapshot::new(frames, self.owed.clone()))
        };
        let snapshot = self.snapshot.get_or_insert_with(snapshot).clone();
        let count = snapshot.frames.len();
        let first = self.last_offset + 1 - count as u64;
        let at = |offset: u64| ((offset + 1).saturating_sub(first) as usize).min(count);
        Slice { from: at(after), to: at(to), snapshot }
    }

    fn remember(&mut self, key: Arc<str>, now: Millis) {
        if self.keys.order.len() == PUBLISH_KEYS_MAX {
            self.forget_key();
        }
        self.bytes += key.len() + HISTORY_ENTRY_BYTES;
        self.keys.offsets.insert(key.clone(), self.last_offset);
        self.keys.order.push_back((now, key));
    }

    fn forget_key(&mut self) {
        if let Some((_, key)) = self.keys.order.pop_front() {
            self.bytes -= key.len() + HISTORY_ENTRY_BYTES;
            self.keys.offsets.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::frame::{FrameBuilder, Opcode};

    fn frame(offset: u64) -> SharedFrame {
        FrameBuilder::default().build(Opcode::Text, |out| out.extend_from_slice(offset.to_string().as_bytes())).into()
    }

    fn offsets(slice: &Slice) -> Vec<u64> {
        slice.frames().iter().map(|frame| number(split_frame(frame.plain()).1)).collect()
    }

    fn number(payload: &[u8]) -> u64 {
        std::str::from_utf8(payload).unwrap().parse().unwrap()
    }

    fn history(messages_max: u32, ttl_ms: u64) -> History {
        History::new("e".into(), HistoryPolicy { messages_max, ttl_ms }, Arc::default())
    }

    #[test]
    fn a_retry_is_known_for_five_minutes() {
        let mut history = history(2, 1_000_000);
        let first = history.append(frame(1), Some("alice\0k".into()), Millis(0));
        history.append(frame(2), None, Millis(1));
        history.append(frame(3), None, Millis(2));
        assert_eq!(history.known("alice\0k"), Some(first), "even where the message itself is gone");
        history.expire(Millis(PUBLISH_KEY_MS_MAX));
        assert_eq!(history.known("alice\0k"), None);
    }

    #[test]
    fn keys_are_bounded_in_number() {
        let mut history = history(1, 1_000_000);
        for n in 0..PUBLISH_KEYS_MAX as u64 + 5 {
            history.append(frame(n + 1), Some(n.to_string().into()), Millis(0));
        }
        assert_eq!(history.known("4"), None);
        assert!(history.known("5").is_some());
        history.drop_for_room();
        history.forget_keys();
        assert!(history.is_empty() && history.bytes() == 0);
    }

    #[test]
    fn what_is_owed_is_counted_until_it_is_sent() {
        let mut history = history(2, 1_000_000);
        for offset in 1..=2 {
            history.append(frame(offset), None, Millis(0));
        }
        let (slice, same) = (history.last(2), history.last(1));
        let snapshot_bytes = 2 * size_of::<SharedFrame>() as u64;
        assert_eq!(history.owed.get(), snapshot_bytes, "the ring holds the messages itself");
        let frame_bytes = frame(1).plain().len() as u64;
        for offset in 3..=5 {
            history.append(frame(offset), None, Millis(0));
        }
        assert_eq!(
            history.owed.get(),
            snapshot_bytes + 2 * frame_bytes,
            "of the three dropped, nobody waits for the third"
        );
        drop(slice);
        assert_eq!(
            history.owed.get(),
            snapshot_bytes + 2 * frame_bytes,
            "all of a snapshot lives as long as any of it"
        );
        drop(same);
        assert_eq!(history.owed.get(), 0);
    }

    #[test]
    fn another_epoch_or_the_future_is_not_recovered() {
        let mut history = history(5, 1_000);
        assert!(history.since("e", 0, 0).is_some(), "nothing was missed of nothing");
        history.append(frame(1), None, Millis(0));
        assert!(history.since("f", 1, 1).is_none());
        assert!(history.since("e", 2, 1).is_none());
        assert_eq!(offsets(&history.since("e", 1, 1).unwrap()), Vec::<u64>::new());
    }

    proptest! {
        #[test]
        fn whatever_is_asked_for_equals_a_list(
            steps in proptest::collection::vec((0_u8..6, 0_u64..12, 0_u64..12), 1..80),
            messages_max in 1_u32..8,
        ) {
            let mut history = history(messages_max, 10);
            let mut model: Vec<(u64, u64)> = Vec::new();
            let mut last = 0;
            let mut now = 0;
            for (step, a, b) in steps {
                match step {
                    0 | 1 => {
                        last += 1;
                        prop_assert_eq!(history.next_offset(), last);
                        history.append(frame(last), None, Millis(now));
                        model.push((last, now));
                        if model.len() > messages_max as usize {
                            model.remove(0);
                        }
                    }
                    2 => {
                        now += a;
                        history.expire(Millis(now));
                        model.retain(|(_, at)| at + 10 > now);
                    }
                    3 => {
                        let (from, to) = (last.saturating_sub(a), last.saturating_sub(b));
                        let kept: Vec<u64> = model.iter().map(|(offset, _)| *offset).filter(|&o| o > from && o <= to).collect();
                        let whole = from <= to && kept.len() as u64 == to - from;
                        let slice = history.since("e", from, to);
                        prop_assert_eq!(slice.as_ref().map(offsets), whole.then_some(kept));
                    }
                    4 => {
                        let kept: Vec<u64> = model.iter().map(|(offset, _)| *offset).collect();
                        let newest = kept[kept.len().saturating_sub(a as usize)..].to_vec();
                        prop_assert_eq!(offsets(&history.last(a)), newest);
                    }
                    _ => {
                        let before = (b > 0).then_some(a);
                        let kept: Vec<u64> = model.iter().map(|(offset, _)| *offset)
                            .filter(|&offset| before.is_none_or(|before| offset < before)).collect();
                        let page: Vec<u64> = history.page(before, 3).map(number).collect();
                        prop_assert_eq!(page, kept[kept.len().saturating_sub(3)..].to_vec());
                    }
                }
                prop_assert_eq!(history.oldest_at(), model.first().map(|(_, at)| Millis(*at)));
            }
        }
    }
}
