//! Frames that are decided when a connection takes them: a history that is sent again, or values of which only the newest
//! count.
//!
//! ```text
//!   cursor ─► frame 0 ─ frame 1 ─ … ─ frame n-1 │ not decided
//!             └────── pulled for one send ──────┘
//!             └ begun: stays ┘└ decided anew by the next pull ┘
//! ```

use std::fmt;

/// Where frames come from, from a cursor on.
pub trait FrameSource: fmt::Debug {
    /// Decides the next frames behind the cursor, at most `frames_max` (more than 0), and how many they are: fewer than
    /// that only where nothing is left behind them; the source is not asked again then. What an earlier pull decided and
    /// the cursor has not passed is decided anew, but for the front where that was begun. Until the next pull the frames
    /// neither change nor move.
    fn pull(&mut self, front: Front, frames_max: usize) -> usize;

    /// One of the frames that were pulled, counted from the cursor.
    ///
    /// # Panics
    /// Where so many were not pulled.
    fn frame(&self, at: usize) -> &[u8];

    /// So many of the frames that were pulled were sent: the cursor stands behind them. The others are where they were.
    fn advance(&mut self, frames: usize);

    /// Bytes that the source takes for this connection, beside frames that others hold as well; always the same.
    fn reference_bytes(&self) -> usize;
}

/// Whether the frame at the cursor may still become another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Front {
    /// Nothing of it was sent.
    Open,
    /// A part of it was sent.
    Begun,
}

/// A source in a connection's queue.
#[derive(Debug)]
pub(super) struct Pull {
    source: Box<dyn FrameSource>,
    /// Frames that were pulled and not sent whole.
    pulled: usize,
    /// Bytes of the first of them that were sent.
    sent_bytes: usize,
    behind: Behind,
}

/// What is behind the frames that were pulled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Behind {
    Unknown,
    Nothing,
}

impl Pull {
    /// A source in front of its first frame; `None` where it has none.
    pub(super) fn new(source: Box<dyn FrameSource>) -> Option<Pull> {
        let mut pull = Pull { source, pulled: 0, sent_bytes: 0, behind: Behind::Unknown };
        (pull.pull(1, false) > 0).then_some(pull)
    }

    /// Has the source decide the next frames; how many there are. `is_begun` says that the first has begun, though nothing of
    /// it was sent.
    pub(super) fn pull(&mut self, frames_max: usize, is_begun: bool) -> usize {
        let front = if self.sent_bytes > 0 || is_begun { Front::Begun } else { Front::Open };
        self.pulled = self.source.pull(front, frames_max);
        assert!(self.pulled > 0 || front == Front::Open, "a frame that was begun stays");
        self.behind = if self.pulled < frames_max { Behind::Nothing } else { Behind::Unknown };
        self.pulled
    }

    /// The pulled frames, but for what was sent of the first.
    pub(super) fn slices(&self) -> impl Iterator<Item = &[u8]> {
        (0..self.pulled).map(|at| {
            let frame = self.source.frame(at);
            if at == 0 { &frame[self.sent_bytes..] } else { frame }
        })
    }

    /// Takes `bytes` that were sent; what is left of them behind the pulled frames.
    pub(super) fn advance(&mut self, mut bytes: usize) -> usize {
        let mut whole = 0;
        while whole < self.pulled {
            let left = self.source.frame(whole).len() - self.sent_bytes;
            if bytes < left {
                self.sent_bytes += bytes;
                bytes = 0;
                break;
            }
            bytes -= left;
            (whole, self.sent_bytes) = (whole + 1, 0);
        }
        self.source.advance(whole);
        self.pulled -= whole;
        bytes
    }

    /// Whether all of it was sent, as far as is known without another pull.
    pub(super) fn is_over(&self) -> bool {
        self.pulled == 0 && self.behind == Behind::Nothing
    }

    /// The rest of a frame of which a part was sent, or that has begun all the same.
    pub(super) fn begun(&self, is_begun: bool) -> Option<&[u8]> {
        (self.sent_bytes > 0 || is_begun).then(|| &self.source.frame(0)[self.sent_bytes..])
    }

    pub(super) fn reference_bytes(&self) -> usize {
        self.source.reference_bytes()
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::collections::BTreeMap;
    use std::rc::Rc;

    use super::super::outbox::Outbox;
    use super::super::segment::{Cause, Chunk, Ledger, Segment, Unit};
    use super::*;
    use crate::frame::{Opcode, encode_header};
    use crate::time::Millis;

    /// The newest value of each key, in the order of the last change.
    #[derive(Clone, Debug, Default)]
    struct Values(Rc<RefCell<BTreeMap<u64, Value>>>);

    /// A key, and the frame of its newest value.
    type Value = (char, Rc<[u8]>);

    impl Values {
        fn set(&self, key: char, value: u8) {
            let mut values = self.0.borrow_mut();
            values.retain(|_, (other, _)| *other != key);
            let next = values.last_key_value().map_or(1, |(at, _)| at + 1);
            values.insert(next, (key, frame(key, value).into()));
        }
    }

    fn frame(key: char, value: u8) -> Vec<u8> {
        let mut bytes = Vec::new();
        encode_header(&mut bytes, Opcode::Text, 2);
        bytes.extend_from_slice(&[key as u8, b'0' + value]);
        bytes
    }

    /// What changed since, newest values only.
    #[derive(Debug)]
    struct Newest {
        values: Values,
        since: u64,
        pulled: Vec<(u64, Rc<[u8]>)>,
    }

    impl FrameSource for Newest {
        fn pull(&mut self, front: Front, frames_max: usize) -> usize {
            self.pulled.truncate(match front {
                Front::Open => 0,
                Front::Begun => 1,
            });
            let from = self.pulled.last().map_or(self.since, |(at, _)| *at);
            let values = self.values.0.borrow();
            let next = values.range(from + 1..).map(|(at, (_, frame))| (*at, frame.clone()));
            self.pulled.extend(next.take(frames_max - self.pulled.len()));
            self.pulled.len()
        }

        fn frame(&self, at: usize) -> &[u8] {
            &self.pulled[at].1
        }

        fn advance(&mut self, frames: usize) {
            if let Some((at, _)) = self.pulled.drain(..frames).next_back() {
                self.since = at;
            }
        }

        fn reference_bytes(&self) -> usize {
            0
        }
    }

    fn outbox_of(values: &Values) -> Outbox {
        let mut outbox = Outbox::default();
        let source = Newest { values: values.clone(), since: 0, pulled: Vec::new() };
        outbox.push_source(Box::new(source), Millis(0));
        outbox
    }

    /// Pulls as much as one send may have, and sends so many bytes of it.
    fn send(outbox: &mut Outbox, slices_max: usize, bytes_max: usize) -> Vec<u8> {
        outbox.pull(slices_max);
        let mut bytes: Vec<u8> = outbox.slices(slices_max).flatten().copied().collect();
        bytes.truncate(bytes_max);
        outbox.advance(bytes.len(), Millis(1));
        bytes
    }

    fn frames(expected: &[(char, u8)]) -> Vec<u8> {
        expected.iter().flat_map(|(key, value)| frame(*key, *value)).collect()
    }

    #[test]
    fn what_is_not_begun_is_decided_when_it_is_pulled() {
        let values = Values::default();
        ['a', 'b', 'c'].into_iter().for_each(|key| values.set(key, 1));
        let mut outbox = outbox_of(&values);
        let ledger = Ledger::default();
        let behind = Segment::local(frame('z', 9), Unit::Frames, Cause::Others, &ledger);
        outbox.push(Chunk::new(behind, 0, 4), Millis(0));
        // Between the push and the first send.
        values.set('a', 2);
        let mut got = send(&mut outbox, 2, 3);
        assert_eq!(got, frames(&[('b', 1)])[..3]);
        // What was begun stays though it is outdated; what was only pulled does not.
        values.set('b', 2);
        values.set('c', 2);
        got.extend(send(&mut outbox, 2, 5));
        got.extend(send(&mut outbox, 16, usize::MAX));
        assert_eq!(got, frames(&[('b', 1), ('a', 2), ('b', 2), ('c', 2), ('z', 9)]));
        assert!(outbox.is_empty());
        assert_eq!(ledger.bytes(), 0);
    }

    #[test]
    fn bytes_handed_out_stay_while_what_they_come_from_changes() {
        let values = Values::default();
        ['a', 'b'].into_iter().for_each(|key| values.set(key, 1));
        let mut outbox = outbox_of(&values);
        outbox.pull(16);
        values.set('a', 2);
        assert_eq!(outbox.slices(16).flatten().copied().collect::<Vec<u8>>(), frames(&[('a', 1), ('b', 1)]));
        outbox.advance(8, Millis(1));
        outbox.pull(16);
        // It had ended with the last pull: what changed since is for the one who pushes a source again.
        assert!(outbox.is_empty());
    }

    #[test]
    fn a_source_that_ran_dry_is_taken_out_of_the_queue() {
        let values = Values::default();
        let mut outbox = outbox_of(&values);
        assert!(outbox.is_empty(), "it has nothing");
        values.set('a', 1);
        outbox = outbox_of(&values);
        assert!(outbox.is_pulling());
        // Exactly as many frames as a send may have: whether there are more, only another pull can say.
        assert_eq!(send(&mut outbox, 1, usize::MAX), frames(&[('a', 1)]));
        assert!(!outbox.is_empty());
        outbox.pull(1);
        assert!(outbox.is_empty());
    }

    #[test]
    fn truncation_leaves_the_rest_of_what_was_begun() {
        let values = Values::default();
        ['a', 'b'].into_iter().for_each(|key| values.set(key, 1));
        for (sent, left) in [(0, 0), (1, 3), (4, 0), (6, 2)] {
            let mut outbox = outbox_of(&values);
            send(&mut outbox, 16, sent);
            values.set('c', 1);
            outbox.truncate_to_frame(&Ledger::default());
            assert_eq!(outbox.bytes(), left, "after {sent} sent");
        }
    }
}
