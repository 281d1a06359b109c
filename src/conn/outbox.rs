//! What waits to be sent to one connection: references into shared segments, never copies.
//!
//! ```text
//!   segment (bytes, shared by reference count) ◄── chunk [start..end) ◄── queue of one connection
//!                                              ◄── chunk [start..end) ◄── queue of another
//! ```
//!
//! Messages of a topic's history are not queued one by one: the queue holds a [`FrameSource`], from which they are pulled
//! as the connection takes them. Rounds of keyed rooms do not wait at all: where the socket takes less than it is given,
//! what of them has not begun goes ([`Outbox::cut_rounds`]), since a newer round has what is newer.
//!
//! An idle connection's outbox is one empty pointer. Bytes are counted once in the reactor's ledger however many
//! queues refer to them, for that is what memory holds.

use std::collections::VecDeque;

use super::segment::{Cause, Chunk, Ledger, RoundNumber, Segment, Unit};
use super::source::{FrameSource, Pull};
use crate::limits::SCRAP_FACTOR;
use crate::time::Millis;

/// The queue of one connection.
#[derive(Debug, Default)]
pub struct Outbox {
    queue: Option<Box<Queue>>,
}

#[derive(Debug)]
struct Queue {
    entries: VecDeque<Entry>,
    /// Of chunks that count for the queue's bounds: what a source has is held elsewhere.
    bytes: usize,
    /// Bytes of answers among them, and of what sources take for this connection.
    own_bytes: usize,
    sources: usize,
    /// Chunks of rounds.
    rounds: usize,
    /// When bytes were sent last, or something began to wait that counts.
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
            rounds: 0,
            progress_at: now,
            is_begun: false,
        })
    }

    /// Whether something waits that counts for the queue's bounds.
    fn is_counted(&self) -> bool {
        self.bytes > 0 || self.sources > 0
    }

    /// A chunk comes in.
    fn count(&mut self, chunk: &Chunk) {
        self.bytes += chunk.counted_bytes();
        self.own_bytes += chunk.own_bytes();
        self.rounds += usize::from(is_round(chunk));
    }

    /// A chunk goes, or is about to change.
    fn discount(&mut self, chunk: &Chunk) {
        self.bytes -= chunk.counted_bytes();
        self.own_bytes -= chunk.own_bytes();
        self.rounds -= usize::from(is_round(chunk));
    }
}

fn is_round(chunk: &Chunk) -> bool {
    matches!(chunk.cause(), Cause::Round(_))
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

    /// Bytes that wait and count for the queue's bounds: those of sources do not, nor rounds and pings.
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
                // A round is gone before anything else happens.
                Entry::Chunk(chunk) if is_scrap(chunk) && !is_round(chunk) => {
                    // Only at the front is it not where a frame begins.
                    let begun_bytes = chunk.begun_bytes(false);
                    let first = (begun_bytes > 0).then(|| chunk.copy_begun(begun_bytes, chunk.cause(), ledger));
                    match (first, begun_bytes < chunk.len()) {
                        (Some(first), false) => *chunk = first,
                        (first, _) => {
                            *chunk = chunk.copy_behind(begun_bytes, ledger);
                            begun = first.or(begun);
                        }
                    }
                }
                Entry::Chunk(_) | Entry::Source(_) => {}
            }
        }
        if let Some(begun) = begun {
            queue.entries.push_front(Entry::Chunk(begun));
        }
    }

    /// The socket took less than it was given: of the rounds in the queue the rest of a frame stays that has begun, in a
    /// segment of its own, and all else goes. `told` hears of each that lost frames, in their order, with how many of its
    /// frames were sent or have begun.
    pub fn cut_rounds(&mut self, ledger: &Ledger, mut told: impl FnMut(RoundNumber, usize)) {
        let Some(queue) = &mut self.queue else { return };
        if queue.rounds == 0 {
            return;
        }
        let mut is_begun = queue.is_begun;
        queue.entries.retain_mut(|entry| {
            let is_begun = std::mem::take(&mut is_begun);
            let Entry::Chunk(chunk) = entry else { return true };
            let Cause::Round(number) = chunk.cause() else { return true };
            let begun_bytes = chunk.begun_bytes(is_begun);
            if begun_bytes < chunk.len() {
                told(number, chunk.frames_before(begun_bytes));
            }
            if begun_bytes > 0 {
                *chunk = chunk.copy_begun(begun_bytes, Cause::Begun, ledger);
            }
            begun_bytes > 0
        });
        queue.rounds = 0;
        if queue.entries.is_empty() {
            self.queue = None;
        }
    }

    /// Whether a ping waits.
    pub fn has_ping(&self) -> bool {
        self.chunks().any(|chunk| chunk.cause() == Cause::Heartbeat)
    }

    fn chunks(&self) -> impl Iterator<Item = &Chunk> {
        self.queue.iter().flat_map(|queue| &queue.entries).filter_map(|entry| match entry {
            Entry::Chunk(chunk) => Some(chunk),
            Entry::Source(_) => None,
        })
    }

    /// Since when nothing of what waits and counts was sent: when the kernel last took bytes, or when it began to wait.
    /// `None` where there is nothing of the kind.
    pub fn progress_at(&self) -> Option<Millis> {
        self.queue.as_ref().filter(|queue| queue.is_counted()).map(|queue| queue.progress_at)
    }

    /// Appends a chunk.
    pub fn push(&mut self, chunk: Chunk, now: Millis) {
        if chunk.len() == 0 {
            return;
        }
        let queue = self.queue.get_or_insert_with(|| Queue::new(now));
        if !queue.is_counted() {
            queue.progress_at = now;
        }
        queue.count(&chunk);
        queue.entries.push_back(Entry::Chunk(chunk));
    }

    /// Appends a source, unless it has nothing.
    pub fn push_source(&mut self, source: Box<dyn FrameSource>, now: Millis) {
        let Some(pull) = Pull::new(source) else { return };
        let queue = self.queue.get_or_insert_with(|| Queue::new(now));
        if !queue.is_counted() {
            queue.progress_at = now;
        }
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
        while let Some(front) = queue.entries.pop_front() {
            match front {
                Entry::Chunk(mut chunk) => {
                    queue.discount(&chunk);
                    if sent < chunk.len() {
                        chunk.advance(sent);
                        queue.count(&chunk);
                        queue.entries.push_front(Entry::Chunk(chunk));
                        return;
                    }
                    sent -= chunk.len();
                }
                Entry::Source(mut pull) => {
                    sent = pull.advance(sent);
                    if !pull.is_over() {
                        assert!(sent == 0, "nothing behind a source is sent before its end is known");
                        queue.entries.push_front(Entry::Source(pull));
                        return;
                    }
                    queue.sources -= 1;
                    queue.own_bytes -= pull.reference_bytes();
                }
            }
        }
        assert!(sent == 0, "the kernel cannot take more than there was");
        self.queue = None;
    }

    /// Bytes that wait and count, those of the first such message left out. This is what `outbox.bytes_max` bounds, so that
    /// an outbox where no other message waits takes one of any permitted size.
    pub fn bytes_behind_first(&self) -> usize {
        let Some(queue) = &self.queue else { return 0 };
        for entry in &queue.entries {
            match entry {
                Entry::Chunk(chunk) if chunk.counted_bytes() == 0 => {}
                Entry::Chunk(chunk) => return queue.bytes - chunk.begun_bytes(true),
                Entry::Source(_) => return queue.bytes,
            }
        }
        queue.bytes
    }

    /// Drops everything but the rest of a frame of which a part was sent already: a stream may end only between
    /// frames.
    pub fn truncate_to_frame(&mut self, ledger: &Ledger) {
        let Some(queue) = &mut self.queue else { return };
        let front = match queue.entries.pop_front() {
            Some(Entry::Chunk(mut front)) => {
                front.truncate(front.begun_bytes(queue.is_begun));
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
        (queue.bytes, queue.own_bytes, queue.sources, queue.rounds) = (0, 0, 0, 0);
        queue.count(&front);
        queue.entries.push_back(Entry::Chunk(front));
    }
}

#[cfg(test)]
mod tests;
