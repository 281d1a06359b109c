//! What a topic's home keeps of its messages: an epoch, an offset for each message, and the newest of them.
//!
//! ```text
//!   append ──► ring [first offset … last offset] ──► slice (since, last) ──► pinned until the connection has sent it
//!                 │ beyond size, age, memory                                 page ──► one reply
//!                 └──► gone; offsets are never given out again in this epoch
//! ```
//!
//! Where nothing is kept, a history is but an epoch and an offset for those who are in the topic.

use std::sync::Arc;

use super::home_request::PageRange;
use super::kept::{Kept, Noted};
use super::slice::Slice;
use crate::compress::{Account, SharedFrame};
use crate::limits::{ALLOCATION_BYTES, CLUSTER_LOAD_AGAIN_MS, HISTORY_EXPIRIES_PER_TURN, HISTORY_PAGE_BYTES_MAX};
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

/// A position in a topic's history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamPosition {
    /// New whenever continuity cannot be proven.
    pub epoch: Arc<str>,
    /// The number of the newest message; 0 before the first.
    pub offset: u64,
}

impl StreamPosition {
    /// The same, borrowed, as messages name it.
    pub fn in_epoch(&self) -> InEpoch<'_> {
        InEpoch { epoch: &self.epoch, offset: self.offset }
    }
}

/// The history of one topic: all of it is what it is, but for the account and what is noted in `kept`.
#[derive(Debug)]
pub(super) struct History {
    epoch: Arc<str>,
    policy: HistoryPolicy,
    last_offset: u64,
    position: Position,
    /// Whether there may be messages in front of those here, in the stream that this is the newest part of.
    older_elsewhere: bool,
    /// Where this began, if it is a part of a stream.
    stream_from: Option<u64>,
    account: Arc<Account>,
    /// `None` where nothing is kept.
    kept: Option<Box<Kept>>,
    /// In front of which offset nothing found room, and when.
    no_room: Option<(u64, Millis)>,
}

/// Whether a client may come back with a position in this epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Position {
    Untold,
    Told,
}

impl History {
    pub(super) fn new(epoch: Arc<str>, policy: HistoryPolicy, account: Arc<Account>) -> History {
        History {
            epoch,
            policy,
            last_offset: 0,
            position: Position::Untold,
            older_elsewhere: false,
            stream_from: None,
            account,
            kept: None,
            no_room: None,
        }
    }

    /// An empty one behind a position, in front of which there is nothing.
    pub(super) fn behind(position: StreamPosition, policy: HistoryPolicy, account: Arc<Account>) -> History {
        History { last_offset: position.offset, ..History::new(position.epoch, policy, account) }
    }

    /// The newest part of a stream that is kept elsewhere: nothing yet, and then what comes behind `position`.
    pub(super) fn of_stream(position: StreamPosition, policy: HistoryPolicy, account: Arc<Account>) -> History {
        History {
            last_offset: position.offset,
            older_elsewhere: position.offset > 0,
            stream_from: Some(position.offset),
            ..History::new(position.epoch, policy, account)
        }
    }

    /// Other bounds hold from now on. What is beyond them goes as messages come, or as it is asked for.
    pub(super) fn set_policy(&mut self, policy: HistoryPolicy) {
        self.policy = policy;
    }

    /// Whether the message with this offset is not here, but may be elsewhere.
    pub(super) fn lacks(&self, offset: u64) -> bool {
        self.older_elsewhere && offset < self.first_offset()
    }

    /// The first offset that is kept at all, here or elsewhere.
    pub(super) fn kept_from(&self) -> u64 {
        (self.last_offset + 1).saturating_sub(u64::from(self.policy.messages_max)).max(1)
    }

    /// Whether messages from `offset` on were here a short while ago, and had to go at once to make room.
    pub(super) fn had_no_room_for(&self, offset: u64, now: Millis) -> bool {
        let found_none = |(first, at): (u64, Millis)| offset < first && now.since(at) < CLUSTER_LOAD_AGAIN_MS;
        self.no_room.is_some_and(found_none)
    }

    /// What was put in front had to go at once.
    pub(super) fn note_no_room(&mut self, now: Millis) {
        self.no_room = Some((self.first_offset(), now));
    }

    /// Puts messages in front of those here that the stream has there, oldest first and without a gap. `are_all` says
    /// that there are none in front of them.
    pub(super) fn prepend(&mut self, older: impl DoubleEndedIterator<Item = (SharedFrame, Millis)>, are_all: bool) {
        self.older_elsewhere &= !are_all;
        if older.size_hint().0 == 0 {
            return;
        }
        let kept = self.kept.get_or_insert_default();
        for (frame, kept_at) in older.rev() {
            if kept.ring().len() >= self.policy.messages_max as usize {
                break;
            }
            frame.keep(&self.account);
            kept.push_front(frame, kept_at);
        }
    }

    /// Where the next message comes behind.
    pub(super) fn position(&self) -> StreamPosition {
        self.place_of(self.last_offset)
    }

    /// Behind which position a member gets everything live that was told `position` when it came.
    pub(super) fn live_from(&self, position: Option<&StreamPosition>) -> Option<StreamPosition> {
        match position {
            Some(position) if position.epoch == self.epoch => Some(position.clone()),
            Some(_) | None => self.stream_from.map(|offset| self.place_of(offset)),
        }
    }

    /// Bytes of what it keeps, those for finding it included.
    pub(super) fn bytes(&self) -> usize {
        self.kept.as_ref().map_or(0, |kept| kept.bytes())
    }

    /// Bytes that it takes whether it keeps anything or not.
    pub(super) fn own_bytes(&self) -> usize {
        let epoch = self.epoch.len() + 2 * size_of::<usize>() + ALLOCATION_BYTES;
        size_of::<History>() + ALLOCATION_BYTES + epoch
    }

    pub(super) fn is_empty(&self) -> bool {
        self.kept.as_ref().is_none_or(|kept| kept.is_empty())
    }

    /// What is noted of it, while it keeps anything.
    pub(super) fn noted_mut(&mut self) -> Option<&mut Noted> {
        self.kept.as_mut().map(|kept| &mut kept.noted)
    }

    /// The same, to be looked at.
    #[cfg(any(test, debug_assertions))]
    pub(super) fn noted(&self) -> Option<&Noted> {
        self.kept.as_ref().map(|kept| &kept.noted)
    }

    /// Drops all that it keeps.
    pub(super) fn clear(&mut self) {
        if let Some(kept) = &mut self.kept {
            kept.clear();
        }
    }

    /// It keeps nothing: what it would take to keep something is given back.
    pub(super) fn close(&mut self) {
        self.kept = None;
    }

    /// When the oldest of all that it keeps was kept.
    pub(super) fn oldest_at(&self) -> Option<Millis> {
        self.kept.as_ref()?.oldest_at()
    }

    /// A client is told where the history is.
    pub(super) fn tell(&mut self) {
        self.position = Position::Told;
    }

    /// A member has come: as long as there is one, the epoch is known.
    pub(super) fn entered(&mut self) {
        if let Some(kept) = &mut self.kept {
            kept.set_told(None);
        }
    }

    /// The last member has left. Where one was told a position the epoch is kept as long as a message, for it to come
    /// back.
    pub(super) fn left(&mut self, now: Millis) {
        if self.position == Position::Told {
            self.kept.get_or_insert_default().set_told(Some(now));
        }
    }

    /// When something of it is due to go.
    pub(super) fn expires_at(&self) -> Option<Millis> {
        self.kept.as_ref()?.expires_at(self.policy.ttl_ms)
    }

    /// The position of the message that was published with this key already.
    pub(super) fn known(&self, key: &str) -> Option<StreamPosition> {
        self.kept.as_ref()?.known(key).map(|offset| self.place_of(offset))
    }

    /// The offset of the next message.
    pub(super) fn next_offset(&self) -> u64 {
        self.last_offset + 1
    }

    /// Keeps a message that carries [`History::next_offset`].
    pub(super) fn append(&mut self, frame: SharedFrame, key: Option<Arc<str>>, now: Millis) -> StreamPosition {
        self.last_offset += 1;
        frame.keep(&self.account);
        let kept = self.kept.get_or_insert_default();
        kept.push_back(frame, now);
        // One, but for bounds that have become narrower.
        for _ in 0..HISTORY_EXPIRIES_PER_TURN {
            if kept.ring().len() <= self.policy.messages_max as usize {
                break;
            }
            kept.pop_front();
        }
        if let Some(key) = key {
            kept.remember(key, self.last_offset, now);
        }
        self.position()
    }

    /// Drops what is too old.
    pub(super) fn expire(&mut self, now: Millis) {
        self.expire_some(now, usize::MAX);
    }

    /// Drops what is too old, at most so many messages and keys; how many.
    pub(super) fn expire_some(&mut self, now: Millis, max: usize) -> usize {
        self.kept.as_mut().map_or(0, |kept| kept.expire(now, self.policy.ttl_ms, max))
    }

    /// Makes room: the oldest goes. A message of a stream is still elsewhere.
    pub(super) fn drop_for_room(&mut self) {
        let Some(kept) = &mut self.kept else { return };
        let messages = kept.ring().len();
        kept.drop_oldest();
        self.older_elsewhere |= self.stream_from.is_some() && kept.ring().len() < messages;
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

    /// The newest messages in front of offset `before`: at most `limit`, and together no more than
    /// `limits::HISTORY_PAGE_BYTES_MAX` unless the newest alone is larger.
    pub(super) fn page(&mut self, before: Option<u64>, limit: usize) -> Slice {
        let first = self.first_offset();
        let end = before.unwrap_or(u64::MAX).clamp(first, self.last_offset + 1);
        let count = self.kept.as_ref().map_or(0, |kept| {
            let end = (end - first) as usize;
            let newest = kept.ring().range(end.saturating_sub(limit)..end).map(|entry| &entry.frame);
            newest_within(newest, HISTORY_PAGE_BYTES_MAX)
        });
        self.slice(end - 1 - count as u64, end - 1)
    }

    /// A page of at most `limit` messages and `limits::HISTORY_PAGE_BYTES_MAX`, of which one message may go beyond, and
    /// where the next one begins.
    pub(super) fn read(&mut self, range: PageRange, limit: usize) -> (Slice, Option<u64>) {
        let first = self.first_offset();
        match range {
            PageRange::Before(before) => {
                let page = self.page(before, limit);
                let end = before.unwrap_or(u64::MAX).clamp(first, self.last_offset + 1);
                let begin = end - page.frames().len() as u64;
                (page, (begin > first && begin < end).then_some(begin))
            }
            PageRange::After(after) => {
                let after = after.clamp(first - 1, self.last_offset);
                let count = self.kept.as_ref().map_or(0, |kept| {
                    let oldest = kept.ring().range((after + 1 - first) as usize..).take(limit);
                    oldest_within(oldest.map(|entry| &entry.frame), HISTORY_PAGE_BYTES_MAX)
                });
                let end = after + count as u64;
                (self.slice(after, end), (after < end && end < self.last_offset).then_some(end))
            }
        }
    }

    fn place_of(&self, offset: u64) -> StreamPosition {
        StreamPosition { epoch: self.epoch.clone(), offset }
    }

    /// The offset of the oldest message that is left, or of the next one.
    pub(super) fn first_offset(&self) -> u64 {
        self.last_offset + 1 - self.kept.as_ref().map_or(0, |kept| kept.ring().len()) as u64
    }

    /// The messages `after+1..=to`, all of which are here.
    fn slice(&mut self, after: u64, to: u64) -> Slice {
        let first = self.first_offset();
        self.kept.as_mut().map_or_else(Slice::default, |kept| kept.slice(first, after, to, &self.account.pinned))
    }
}

/// How many of the first frames hold no more than so many bytes together: at least one, if there is one.
pub(super) fn oldest_within<'a>(frames: impl Iterator<Item = &'a SharedFrame>, bytes_max: usize) -> usize {
    let sums = frames.scan(0, |sum, frame| {
        *sum += frame.plain().len();
        Some(*sum)
    });
    sums.enumerate().take_while(|(at, bytes)| *at == 0 || *bytes <= bytes_max).count()
}

/// How many of the newest frames hold no more than so many bytes together: at least one, if there is one.
pub(super) fn newest_within<'a>(frames: impl DoubleEndedIterator<Item = &'a SharedFrame>, bytes_max: usize) -> usize {
    oldest_within(frames.rev(), bytes_max)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::slice::SNAPSHOT_BYTES;
    use super::*;
    use crate::frame::{FrameBuilder, Opcode, split_frame};
    use crate::limits::{PUBLISH_KEY_MS_MAX, PUBLISH_KEYS_MAX};

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
    }

    #[test]
    fn the_oldest_goes_first_be_it_a_message_a_key_or_a_position() {
        let mut history = history(10, 1_000_000);
        history.tell();
        history.append(frame(1), Some("a".into()), Millis(1));
        history.append(frame(2), Some("b".into()), Millis(2));
        history.left(Millis(3));
        let mut seen = Vec::new();
        while let Some(at) = history.oldest_at() {
            seen.push((at.0, history.first_offset(), history.known("a").is_some(), history.known("b").is_some()));
            history.drop_for_room();
        }
        let expected =
            [(1, 1, true, true), (1, 2, true, true), (2, 2, false, true), (2, 3, false, true), (3, 3, false, false)];
        assert_eq!(seen, expected);
        assert!(history.is_empty());
    }

    #[test]
    fn keys_outlive_the_messages_and_go_when_there_is_no_room() {
        let mut history = history(10, 1_000);
        history.append(frame(1), Some("a".into()), Millis(1));
        history.expire(Millis(2_000));
        assert_eq!((history.first_offset(), history.oldest_at()), (2, Some(Millis(1))), "the key is left");
        history.drop_for_room();
        assert!(history.is_empty());
    }

    #[test]
    fn a_position_is_known_as_long_as_a_message_from_when_the_last_member_leaves() {
        let mut history = history(10, 1_000);
        history.left(Millis(0));
        assert!(history.is_empty(), "no client was told");
        history.tell();
        history.left(Millis(5_000));
        history.entered();
        assert!(history.is_empty(), "it is in the topic again");
        history.left(Millis(6_000));
        history.expire(Millis(6_999));
        assert_eq!(history.expires_at(), Some(Millis(7_000)));
        history.expire(Millis(7_000));
        assert!(history.is_empty());
    }

    #[test]
    fn what_is_owed_is_counted_until_it_is_sent() {
        let mut history = history(2, 1_000_000);
        let pinned = history.account.pinned.clone();
        for offset in 1..=2 {
            history.append(frame(offset), None, Millis(0));
        }
        let (slice, same) = (history.last(2), history.last(1));
        let snapshot_bytes = (2 * size_of::<SharedFrame>() + SNAPSHOT_BYTES) as u64;
        assert_eq!(pinned.get(), snapshot_bytes, "the ring holds the messages itself");
        let frame_bytes = frame(1).bytes() as u64;
        for offset in 3..=5 {
            history.append(frame(offset), None, Millis(0));
        }
        assert_eq!(pinned.get(), snapshot_bytes + 2 * frame_bytes, "of the three dropped, no slice holds the third");
        drop(slice);
        assert_eq!(pinned.get(), snapshot_bytes + 2 * frame_bytes, "all of a snapshot lives as long as any of it");
        let others = history.last(2);
        history.clear();
        assert_eq!(pinned.get(), 2 * snapshot_bytes + 4 * frame_bytes, "whatever becomes of the history");
        drop((same, others));
        assert_eq!(pinned.get(), 0);
    }

    #[test]
    fn a_slice_holds_what_was_asked_for_and_not_the_ring() {
        let mut history = history(1_000, 1_000_000);
        let pinned = history.account.pinned.clone();
        for offset in 1..=1_000 {
            history.append(frame(offset), None, Millis(0));
        }
        let bytes = |messages: usize| (messages * size_of::<SharedFrame>() + SNAPSHOT_BYTES) as u64;
        let one = history.last(1);
        assert_eq!(pinned.get(), bytes(1));
        let (all, most) = (history.last(1_000), history.last(600));
        assert_eq!(pinned.get(), bytes(1) + bytes(1_000), "about the same messages are shared");
        let few = history.last(400);
        assert_eq!(pinned.get(), bytes(1) + bytes(1_000) + bytes(400), "few do not hold many");
        drop((all, most));
        assert_eq!(pinned.get(), bytes(1) + bytes(400), "and nothing is held for who may ask later");
        drop((one, few));
        assert_eq!(pinned.get(), 0);
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
                        let page = offsets(&history.page(before, 3));
                        prop_assert_eq!(page, kept[kept.len().saturating_sub(3)..].to_vec());
                    }
                }
                prop_assert_eq!(history.oldest_at(), model.first().map(|(_, at)| Millis(*at)));
            }
        }
    }
}
