//! Bytes that several connections of a reactor have to send, and the references of each into them.

use std::cell::Cell;
use std::ops::Range;
use std::rc::Rc;

use crate::compress::SharedFrame;
use crate::frame::{count_frames, frame_boundary};

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
    /// The server asks whether the client is there.
    Heartbeat,
    /// They are a round of a keyed room. What of it a socket does not take is not kept ([`Outbox::cut_rounds`]).
    ///
    /// [`Outbox::cut_rounds`]: super::Outbox::cut_rounds
    Round(RoundNumber),
    /// It is the rest of a frame of a round, of which the first byte is on its way.
    Begun,
}

/// Which of a reactor's rounds that are on their way, as who hands them out numbers them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RoundNumber(pub u32);

/// Where a segment may be cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Between its frames.
    Frames,
    /// Nowhere: it is an HTTP response, with the welcome behind it where it is a 101, or the rest of a frame.
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
    pub fn shared(frame: SharedFrame, cause: Cause, ledger: &Ledger) -> Rc<Segment> {
        Segment::count(Body::Shared(frame), Unit::Frames, cause, ledger)
    }

    /// The buffer of a segment that was built on this reactor, where nothing else refers to it.
    pub fn into_buffer(segment: Rc<Segment>) -> Option<Vec<u8>> {
        let mut segment = Rc::into_inner(segment)?;
        match &mut segment.body {
            Body::Local(bytes) => {
                let buffer = std::mem::take(bytes);
                segment.ledger.0.set(segment.ledger.0.get() - buffer.len());
                Some(buffer)
            }
            Body::Shared(_) => None,
        }
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
    pub(super) fn boundary(&self, at: usize) -> usize {
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

    pub(super) fn bytes(&self) -> &[u8] {
        &self.segment.bytes()[self.start as usize..self.end as usize]
    }

    pub(super) fn len(&self) -> usize {
        (self.end - self.start) as usize
    }

    pub(super) fn cause(&self) -> Cause {
        self.segment.cause
    }

    /// Its bytes where they count for the bounds of a queue: what the server sends in its own time does not.
    pub(super) fn counted_bytes(&self) -> usize {
        match self.segment.cause {
            Cause::Others | Cause::Own => self.len(),
            Cause::Heartbeat | Cause::Round(_) | Cause::Begun => 0,
        }
    }

    /// Its bytes where the connection caused them itself.
    pub(super) fn own_bytes(&self) -> usize {
        match self.segment.cause {
            Cause::Own => self.len(),
            Cause::Others | Cause::Heartbeat | Cause::Round(_) | Cause::Begun => 0,
        }
    }

    /// Its part of its segment, which all who refer to that hold together.
    pub(super) fn pinned_bytes(&self) -> usize {
        self.segment.bytes().len() / Rc::strong_count(&self.segment)
    }

    /// So many bytes from its front were sent, fewer than it has.
    pub(super) fn advance(&mut self, sent_bytes: usize) {
        assert!(sent_bytes < self.len());
        self.start += sent_bytes as u32;
    }

    /// Bytes at its front that are the rest of a frame of which a part was sent, or that `is_begun` all the same; none in
    /// front of a frame that has not begun.
    pub(super) fn begun_bytes(&self, is_begun: bool) -> usize {
        let start = self.start as usize;
        self.segment.boundary(start + usize::from(is_begun)).min(self.end as usize) - start
    }

    /// Drops what is behind its first `bytes`.
    pub(super) fn truncate(&mut self, bytes: usize) {
        self.end = self.end.min(self.start + bytes as u32);
    }

    /// How many frames of its segment stand in front of its byte `at`, which is where a frame ends.
    pub(super) fn frames_before(&self, at: usize) -> usize {
        count_frames(&self.segment.bytes()[..self.start as usize + at])
    }

    /// Its first `bytes` in a segment of their own, which is not to be cut.
    pub(super) fn copy_begun(&self, bytes: usize, cause: Cause, ledger: &Ledger) -> Chunk {
        self.copy(0..bytes, Unit::Whole, cause, ledger)
    }

    /// All but its first `bytes` in a segment of their own.
    pub(super) fn copy_behind(&self, bytes: usize, ledger: &Ledger) -> Chunk {
        self.copy(bytes..self.len(), self.segment.unit, self.segment.cause, ledger)
    }

    fn copy(&self, range: Range<usize>, unit: Unit, cause: Cause, ledger: &Ledger) -> Chunk {
        let bytes = self.bytes()[range].to_vec();
        let len = bytes.len();
        Chunk::new(Segment::local(bytes, unit, cause, ledger), 0, len)
    }
}
