//! What waits to be sent to one connection: references into shared segments, never copies.
//!
//! ```text
//!   segment (bytes, shared by reference count) ◄── chunk [start..end) ◄── queue of one connection
//!                                              ◄── chunk [start..end) ◄── queue of another
//! ```
//!
//! Messages of a topic's history are not queued one by one: the queue holds a [`FrameSource`], from which they are pulled
//! as the connection takes them.
//!
//! An idle connection's outbox is one empty pointer. Bytes are counted once in the reactor's ledger however many
//! queues refer to them, for that is what memory holds.

use std::cell::Cell;
use std::collections::VecDeque;
use std::ops::Range;
use std::rc::Rc;

use super::source::{FrameSource, Pull};
use crate::compress::SharedFrame;
use crate::frame::frame_boundary;
use crate::limits::SCRAP_FACTOR;
use crate::time::Millis;

/// Bytes held by all segments of one reactor.
#[derive(Clone, Debug, Default)]
pub struct Ledger(Rc<Cell<usize>>);

impl Ledger {
    /// Bytes of all living segments.
    pub fn bytes(&self) -> usize {
        self.0.get()
    }
}

/// Whole server frames, one after another, or an HTTP response; shared by the connections of one reactor.
#[derive(Debug)]
pub struct Segment {
    body: Body,
    unit: Unit,
    cause: Cause,
    ledger: Ledger,
}

/// Who has caused a segment's frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Others, who published or sent them.
    Others,
    /// The connection that gets them: answers to its commands.
    Own,
}

/// Where a segment may be cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Between its frames.
    Frames,
    /// Nowhere: it is an HTTP response, with the welcome behind it where it is a 101.
    Whole,
}

#[derive(Debug)]
enum Body {
    /// Built on this reactor.
    Local(Vec<u8>),
    /// One frame shared with other reactors.
    Shared(SharedFrame),
}

impl Segment {
    /// A segment built on this reactor.
    pub fn local(bytes: Vec<u8>, unit: Unit, cause: Cause, ledger: &Ledger) -> Rc<Segment> {
        Segment::count(Body::Local(bytes), unit, cause, ledger)
    }

    /// A segment of one frame that other reactors may share.
    pub fn shared(frame: SharedFrame, ledger: &Ledger) -> Rc<Segment> {
        Segment::count(Body::Shared(frame), Unit::Frames, Cause::Others, ledger)
    }

    /// The frames.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        match &self.body {
            Body::Local(bytes) => bytes,
            Body::Shared(frame) => frame.plain(),
        }
    }

    /// Where a stream cut at byte `at` may stop without cutting what belongs together.
    fn boundary(&self, at: usize) -> usize {
        match self.unit {
            Unit::Frames => frame_boundary(self.bytes(), at),
            // Not even in front of it: without the response nothing behind it has a meaning.
            Unit::Whole => self.bytes().len(),
        }
    }

    fn count(body: Body, unit: Unit, cause: Cause, ledger: &Ledger) -> Rc<Segment> {
        let segment = Segment { body, unit, cause, ledger: ledger.clone() };
        ledger.0.set(ledger.0.get() + segment.bytes().len());
        Rc::new(segment)
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        self.ledger.0.set(self.ledger.0.get() - self.bytes().len());
    }
}

/// A part of a segment: 16 bytes.
#[derive(Clone, Debug)]
pub struct Chunk {
    segment: Rc<Segment>,
    start: u32,
    end: u32,
}

const _: () = assert!(size_of::<Chunk>() == 16);

impl Chunk {
    /// Bytes `start..end` of a segment; segments are far below 4 GiB (`limits.message_bytes_max` is at most 256 MiB).
    pub fn new(segment: Rc<Segment>, start: usize, end: usize) -> Chunk {
        assert!(start <= end && end <= segment.bytes().len() && end <= u32::MAX as usize);
        Chunk { segment, start: start as u32, end: end as u32 }
    }

    fn bytes(&self) -> &[u8] {
        &self.segment.bytes()[self.start as usize..self.end as usize]
    }

    fn len(&self) -> usize {
        (self.end - self.start) as usize
    }

    /// Its part of its segment, which all who refer to that hold together.
    fn pinned_bytes(&self) -> usize {
        self.segment.bytes().len() / Rc::strong_count(&self.segment)
    }

    /// The same bytes, or some of them, in a segment of their own.
    fn copy(&self, range: Range<usize>, unit: Unit, ledger: &Ledger) -> Chunk {
        let bytes = self.segment.bytes()[range].to_vec();
        let len = bytes.len();
        Chunk::new(Segment::local(bytes, unit, self.segment.cause, ledger), 0, len)
    }

    /// Its bytes where the connection caused them itself.
    fn own_bytes(&self) -> usize {
        match self.segment.cause {
            Cause::Own => self.len(),
            Cause::Others => 0,
        }
    }
}

/// The queue of one connection.
#[derive(Debug, Default)]
pub struct Outbox {
    queue: Option<Box<Queue>>,
}

#[derive(Debug)]
struct Queue {
    entries: VecDeque<Entry>,
    /// Of chunks: what a source has is held elsewhere.
    bytes: usize,
    /// Bytes of answers among them, and of what sources take for this connection.
    own_bytes: usize,
    sources: usize,
    progress_at: Millis,
    /// The driver has sealed the byte at the front: a frame that begins there has begun.
    is_begun: bool,
}

#[derive(Debug)]
enum Entry {
    Chunk(Chunk),
    Source(Box<Pull>),
}

const _: () = assert!(size_of::<Entry>() == 16);

impl Queue {
    fn new(now: Millis) -> Box<Queue> {
        Box::new(Queue {
            entries: VecDeque::with_capacity(4),
            bytes: 0,
            own_bytes: 0,
            sources: 0,
            progress_at: now,
            is_begun: false,
        })
    }
}

impl Outbox {
    /// Whether nothing waits.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.queue.is_none()
    }

    /// Whether a source waits to be pulled from.
    pub fn is_pulling(&self) -> bool {
        self.queue.as_ref().is_some_and(|queue| queue.sources > 0)
    }

    /// Bytes that wait, those of sources not counted.
    pub fn bytes(&self) -> usize {
        self.queue.as_ref().map_or(0, |queue| queue.bytes)
    }

    /// Bytes that this connection caused itself: answers to its commands, and references to messages of a history that
    /// it wants. What others publish and send is not among them.
    #[inline]
    pub fn own_bytes(&self) -> usize {
        self.queue.as_ref().map_or(0, |queue| queue.own_bytes)
    }

    /// Bytes of memory that this queue holds: of each segment it refers to, its part among all references.
    pub fn pinned_bytes(&self) -> usize {
        self.chunks().map(Chunk::pinned_bytes).sum()
    }

    /// Copies scraps out of the segments that they hold: where a queue's part of a segment is much more than what it
    /// will send of it, see `limits::SCRAP_FACTOR`.
    pub fn copy_scraps(&mut self, ledger: &Ledger) {
        let Some(queue) = &mut self.queue else { return };
        let is_scrap = |chunk: &Chunk| chunk.pinned_bytes() > SCRAP_FACTOR * chunk.len();
        let mut begun = None;
        for entry in &mut queue.entries {
            match entry {
                Entry::Chunk(chunk) if is_scrap(chunk) => {
                    // Only at the front is it not where a frame begins.
                    let cut = chunk.segment.boundary(chunk.start as usize).min(chunk.end as usize);
                    let (start, end) = (chunk.start as usize, chunk.end as usize);
                    if start < cut && cut < end {
                        begun = Some(chunk.copy(start..cut, Unit::Whole, ledger));
                    }
                    let (from, unit) = if cut < end { (cut, chunk.segment.unit) } else { (start, Unit::Whole) };
                    *chunk = chunk.copy(from..end, unit, ledger);
                }
                Entry::Chunk(_) | Entry::Source(_) => {}
            }
        }
        if let Some(begun) = begun {
            queue.entries.push_front(Entry::Chunk(begun));
        }
    }

    fn chunks(&self) -> impl Iterator<Item = &Chunk> {
        self.queue.iter().flat_map(|queue| &queue.entries).filter_map(|entry| match entry {
            Entry::Chunk(chunk) => Some(chunk),
            Entry::Source(_) => None,
        })
    }

    /// When the kernel last took bytes, or when the queue began; `None` when it is empty.
    pub fn progress_at(&self) -> Option<Millis> {
        self.queue.as_ref().map(|queue| queue.progress_at)
    }

    /// Appends a chunk.
    pub fn push(&mut self, chunk: Chunk, now: Millis) {
        if chunk.len() == 0 {
            return;
        }
        let queue = self.queue.get_or_insert_with(|| Queue::new(now));
        queue.bytes += chunk.len();
        queue.own_bytes += chunk.own_bytes();
        queue.entries.push_back(Entry::Chunk(chunk));
    }

    /// Appends a source, unless it has nothing.
    pub fn push_source(&mut self, source: Box<dyn FrameSource>, now: Millis) {
        let Some(pull) = Pull::new(source) else { return };
        let queue = self.queue.get_or_insert_with(|| Queue::new(now));
        queue.sources += 1;
        queue.own_bytes += pull.reference_bytes();
        queue.entries.push_back(Entry::Source(Box::new(pull)));
    }

    /// Has the sources decide what of theirs is among the next `slices_max` slices. The queue may be empty then.
    #[inline]
    pub fn pull(&mut self, slices_max: usize) {
        if self.is_pulling() {
            self.pull_sources(slices_max);
        }
    }

    fn pull_sources(&mut self, slices_max: usize) {
        let Some(queue) = &mut self.queue else { return };
        let (mut at, mut left) = (0, slices_max);
        while left > 0
            && let Some(entry) = queue.entries.get_mut(at)
        {
            let slices = match entry {
                Entry::Chunk(_) => 1,
                Entry::Source(pull) => pull.pull(left, at == 0 && queue.is_begun),
            };
            if slices > 0 {
                (at, left) = (at + 1, left - slices);
            } else if let Some(Entry::Source(pull)) = queue.entries.remove(at) {
                queue.sources -= 1;
                queue.own_bytes -= pull.reference_bytes();
            }
        }
        if queue.entries.is_empty() {
            self.queue = None;
        }
    }

    /// The waiting bytes from the front, at most `slices_max` slices: of sources, what [`Outbox::pull`] had them decide for
    /// as many slices.
    pub fn slices(&self, slices_max: usize) -> impl Iterator<Item = &[u8]> {
        let entries = self.queue.iter().flat_map(|queue| queue.entries.iter());
        let slices = entries.flat_map(|entry| {
            let (chunk, pull) = match entry {
                Entry::Chunk(chunk) => (Some(chunk.bytes()), None),
                Entry::Source(pull) => (None, Some(pull.slices())),
            };
            chunk.into_iter().chain(pull.into_iter().flatten())
        });
        slices.take(slices_max)
    }

    /// The byte at the front is a part of what the peer gets next, whatever else happens: of a frame that begins with it the
    /// rest stays.
    pub fn begin_front(&mut self) {
        if let Some(queue) = &mut self.queue {
            queue.is_begun = true;
        }
    }

    /// The kernel took `sent` bytes from the front.
    pub fn advance(&mut self, mut sent: usize, now: Millis) {
        let Some(queue) = &mut self.queue else { return };
        if sent > 0 {
            queue.progress_at = now;
            queue.is_begun = false;
        }
        while let Some(front) = queue.entries.front_mut() {
            match front {
                Entry::Chunk(chunk) if sent < chunk.len() => {
                    let own_bytes = chunk.own_bytes();
                    chunk.start += sent as u32;
                    queue.bytes -= sent;
                    queue.own_bytes -= own_bytes - chunk.own_bytes();
                    return;
                }
                Entry::Chunk(chunk) => {
                    sent -= chunk.len();
                    queue.bytes -= chunk.len();
                    queue.own_bytes -= chunk.own_bytes();
                }
                Entry::Source(pull) => {
                    sent = pull.advance(sent);
                    if !pull.is_over() {
                        assert!(sent == 0, "nothing behind a source is sent before its end is known");
                        return;
                    }
                    queue.sources -= 1;
                    queue.own_bytes -= pull.reference_bytes();
                }
            }
            queue.entries.pop_front();
        }
        assert!(sent == 0, "the kernel cannot take more than there was");
        self.queue = None;
    }

    /// Bytes that wait behind the message at the front. This is what `outbox.bytes_max` bounds, so that an empty
    /// outbox takes one message of any permitted size.
    pub fn bytes_behind_first(&self) -> usize {
        let Some(queue) = &self.queue else { return 0 };
        match queue.entries.front() {
            Some(Entry::Chunk(front)) => queue.bytes - (first_frame_end(front) - front.start as usize),
            Some(Entry::Source(_)) | None => queue.bytes,
        }
    }

    /// Drops everything but the rest of a frame of which a part was sent already: a stream may end only between
    /// frames.
    pub fn truncate_to_frame(&mut self, ledger: &Ledger) {
        let Some(queue) = &mut self.queue else { return };
        let front = match queue.entries.pop_front() {
            Some(Entry::Chunk(mut front)) => {
                let cut = front.segment.boundary(front.start as usize + usize::from(queue.is_begun));
                front.end = front.end.min(cut as u32);
                Some(front).filter(|front| front.len() > 0)
            }
            Some(Entry::Source(pull)) => pull.begun(queue.is_begun).map(|rest| {
                let segment = Segment::local(rest.to_vec(), Unit::Whole, Cause::Own, ledger);
                Chunk::new(segment, 0, rest.len())
            }),
            None => None,
        };
        let Some(front) = front else {
            self.queue = None;
            return;
        };
        queue.entries.clear();
        (queue.bytes, queue.own_bytes, queue.sources) = (front.len(), front.own_bytes(), 0);
        queue.entries.push_back(Entry::Chunk(front));
    }
}

/// The end, in its segment, of the frame at the front of a chunk, of which a part may have been sent.
fn first_frame_end(front: &Chunk) -> usize {
    front.segment.boundary(front.start as usize + 1).min(front.end as usize)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{Opcode, encode_header};
    use proptest::prelude::*;

    fn frames(payloads: &[usize]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for &payload in payloads {
            encode_header(&mut bytes, Opcode::Binary, payload);
            bytes.resize(bytes.len() + payload, payload as u8);
        }
        bytes
    }

    #[test]
    fn a_frame_whose_first_byte_is_on_its_way_is_not_dropped() {
        let ledger = Ledger::default();
        let segment = Segment::local(frames(&[10, 20, 30]), Unit::Frames, Cause::Others, &ledger);
        for (is_begun, left) in [(false, 0), (true, 22)] {
            let mut outbox = Outbox::default();
            outbox.push(Chunk::new(segment.clone(), 0, 66), Millis(0));
            outbox.advance(12, Millis(0));
            if is_begun {
                outbox.begin_front();
            }
            outbox.truncate_to_frame(&ledger);
            assert_eq!(outbox.bytes(), left, "the first frame was sent whole");
            if is_begun {
                // Once bytes of it are sent it is as any other.
                outbox.push(Chunk::new(segment.clone(), 0, 66), Millis(0));
                outbox.advance(22 + 12, Millis(0));
                outbox.truncate_to_frame(&ledger);
                assert_eq!(outbox.bytes(), 0);
            }
        }
    }

    #[test]
    fn bytes_are_counted_once_however_many_refer_to_them() {
        let ledger = Ledger::default();
        let segment = Segment::local(frames(&[100]), Unit::Frames, Cause::Others, &ledger);
        let mut outboxes: Vec<Outbox> = (0..50).map(|_| Outbox::default()).collect();
        for outbox in &mut outboxes {
            outbox.push(Chunk::new(segment.clone(), 0, 102), Millis(0));
        }
        drop(segment);
        assert_eq!(ledger.bytes(), 102);
        drop(outboxes);
        assert_eq!(ledger.bytes(), 0);
    }

    #[test]
    fn the_message_at_the_front_does_not_count_against_the_bound() {
        let ledger = Ledger::default();
        let mut outbox = Outbox::default();
        let bytes = frames(&[5_000, 10, 20]);
        let len = bytes.len();
        outbox.push(Chunk::new(Segment::local(bytes, Unit::Frames, Cause::Others, &ledger), 0, len), Millis(0));
        assert_eq!(outbox.bytes_behind_first(), 34);
        outbox.advance(4_000, Millis(1));
        assert_eq!(outbox.bytes_behind_first(), 34);
        outbox.advance(1_004, Millis(1));
        assert_eq!(outbox.bytes_behind_first(), 22, "the frame of 10 is at the front now");
    }

    #[test]
    fn truncation_leaves_the_rest_of_a_begun_frame_only() {
        let ledger = Ledger::default();
        let bytes = frames(&[50, 60]);
        for (sent, left) in [(0, 0), (1, 51), (51, 1), (52, 0), (53, 61)] {
            let mut outbox = Outbox::default();
            outbox.push(
                Chunk::new(Segment::local(bytes.clone(), Unit::Frames, Cause::Others, &ledger), 0, bytes.len()),
                Millis(0),
            );
            outbox.push(
                Chunk::new(Segment::local(bytes.clone(), Unit::Frames, Cause::Others, &ledger), 0, bytes.len()),
                Millis(0),
            );
            outbox.advance(sent, Millis(0));
            outbox.truncate_to_frame(&ledger);
            assert_eq!(outbox.bytes(), left, "after {sent} sent");
            assert_eq!(outbox.is_empty(), left == 0);
        }
        assert_eq!(ledger.bytes(), 0);
    }

    #[test]
    fn a_response_is_never_cut_nor_dropped() {
        let ledger = Ledger::default();
        let response = b"HTTP/1.1 101 Switching Protocols\r\n\r\n".to_vec();
        let len = response.len();
        for sent in [0, 5] {
            let mut outbox = Outbox::default();
            outbox.push(
                Chunk::new(Segment::local(response.clone(), Unit::Whole, Cause::Others, &ledger), 0, len),
                Millis(0),
            );
            outbox
                .push(Chunk::new(Segment::local(frames(&[7]), Unit::Frames, Cause::Others, &ledger), 0, 9), Millis(0));
            outbox.advance(sent, Millis(0));
            assert_eq!(outbox.bytes_behind_first(), 9);
            outbox.truncate_to_frame(&ledger);
            assert_eq!(outbox.bytes(), len - sent);
        }
    }

    #[test]
    fn a_scrap_is_copied_out_and_a_segment_that_others_hold_is_not() {
        let ledger = Ledger::default();
        let bytes = frames(&[10, 50_000, 10]);
        let len = bytes.len();
        let segment = Segment::local(bytes.clone(), Unit::Frames, Cause::Others, &ledger);
        let mut outboxes: [Outbox; 2] = Default::default();
        for outbox in &mut outboxes {
            outbox.push(Chunk::new(segment.clone(), 0, 12), Millis(0));
            outbox.push(Chunk::new(segment.clone(), len - 12, len), Millis(0));
        }
        drop(segment);
        assert_eq!(outboxes[0].pinned_bytes(), len / 4 * 2, "two of four references");
        let [mut front, mut back] = outboxes;
        front.advance(12, Millis(0));
        back.advance(15, Millis(0));
        front.copy_scraps(&ledger);
        back.copy_scraps(&ledger);
        assert_eq!(ledger.bytes(), 12 + 9, "what is still to be sent");
        assert_eq!((front.pinned_bytes(), back.pinned_bytes()), (12, 9));
        assert_eq!(back.slices(9).flatten().copied().collect::<Vec<u8>>(), &bytes[len - 9..]);
        back.truncate_to_frame(&ledger);
        assert_eq!(back.bytes(), 9, "the rest of a frame of which a part was sent");
        front.truncate_to_frame(&ledger);
        assert_eq!(front.bytes(), 0);
    }

    #[test]
    fn a_scrap_is_cut_behind_the_frame_that_was_begun() {
        let ledger = Ledger::default();
        let bytes = frames(&[50_000, 10, 20]);
        let len = bytes.len();
        let mut outbox = Outbox::default();
        outbox.push(Chunk::new(Segment::local(bytes, Unit::Frames, Cause::Others, &ledger), 0, len), Millis(0));
        outbox.advance(49_000, Millis(0));
        let left = outbox.bytes();
        outbox.copy_scraps(&ledger);
        assert_eq!((outbox.bytes(), outbox.bytes_behind_first(), ledger.bytes()), (left, 34, left));
        outbox.truncate_to_frame(&ledger);
        assert_eq!(outbox.bytes(), left - 34);
    }

    #[test]
    fn progress_is_when_the_kernel_took_bytes() {
        let mut outbox = Outbox::default();
        assert_eq!(outbox.progress_at(), None);
        outbox.push(Chunk::new(Segment::shared(frames(&[9])[..].into(), &Ledger::default()), 0, 11), Millis(5));
        outbox.advance(0, Millis(7));
        assert_eq!(outbox.progress_at(), Some(Millis(5)));
        outbox.advance(1, Millis(9));
        assert_eq!(outbox.progress_at(), Some(Millis(9)));
    }

    proptest! {
        #[test]
        fn what_goes_in_comes_out_in_order(
            payloads in proptest::collection::vec(proptest::collection::vec(0_usize..300, 1..4), 1..20),
            sends in proptest::collection::vec(1_usize..500, 1..50),
        ) {
            let ledger = Ledger::default();
            let mut outbox = Outbox::default();
            let mut expected = Vec::new();
            for group in &payloads {
                let bytes = frames(group);
                expected.extend_from_slice(&bytes);
                let len = bytes.len();
                outbox.push(Chunk::new(Segment::local(bytes, Unit::Frames, Cause::Others, &ledger), 0, len), Millis(0));
            }
            let mut got = Vec::new();
            for send in sends.iter().cycle().take(10_000) {
                prop_assert_eq!(outbox.bytes(), expected.len() - got.len());
                if outbox.is_empty() {
                    break;
                }
                let all: Vec<u8> = outbox.slices(64).flatten().copied().collect();
                let sent = (*send).min(all.len());
                got.extend_from_slice(&all[..sent]);
                outbox.advance(sent, Millis(1));
            }
            prop_assert_eq!(got, expected);
            prop_assert_eq!(ledger.bytes(), 0);
        }
    }
}
