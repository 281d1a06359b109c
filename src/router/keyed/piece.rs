//! Frames of a keyed room put together for one send.

use std::rc::Rc;

use super::items::Item;
use crate::compress::SharedFrame;
use crate::limits::ROUND_PIECE_BYTES;
use crate::router::batch::{Batch, Round};
use crate::router::topic::TopicKey;
use crate::time::Stamp;

/// A part of a round, of a snapshot or of what a slow subscriber has missed: whole frames in the order of their offsets.
#[derive(Debug)]
pub(super) struct Piece {
    bytes: Vec<u8>,
    offsets: Vec<u64>,
    /// Those worth compressing, by where they start.
    shared: Vec<(u32, SharedFrame)>,
    compress_from_bytes: usize,
}

impl Piece {
    /// An empty one, in a spare buffer.
    pub(super) fn new(buffer: Vec<u8>, compress_from_bytes: usize) -> Piece {
        Piece { bytes: buffer, offsets: Vec::new(), shared: Vec::new(), compress_from_bytes }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.offsets.is_empty()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Takes items until it holds [`ROUND_PIECE_BYTES`], of which one may go beyond; up to which offset it goes then:
    /// `target` where that was all.
    pub(super) fn fill<'a>(&mut self, items: impl Iterator<Item = &'a Item>, target: u64) -> u64 {
        for item in items {
            if self.bytes.len() >= ROUND_PIECE_BYTES {
                return self.offsets.last().copied().unwrap_or(target);
            }
            let frame = item.frame.plain();
            if frame.len() >= self.compress_from_bytes {
                self.shared.push((self.bytes.len() as u32, item.frame.clone()));
            }
            self.bytes.extend_from_slice(frame);
            self.offsets.push(item.offset);
        }
        target
    }

    /// The same as a batch, of which who takes nothing stands at `since`.
    pub(super) fn into_batch(self, topic: TopicKey, since: u64, published_at: Stamp) -> Batch {
        let Piece { bytes, offsets, shared, compress_from_bytes: _ } = self;
        let mut batch = Batch::joined(bytes, published_at);
        batch.frames = offsets.len() as u32;
        (batch.compressible, batch.shared) = (!shared.is_empty(), shared);
        batch.round = Some(Rc::new(Round { topic, since, offsets }));
        batch
    }

    /// The buffer of one that is not sent.
    pub(super) fn into_buffer(mut self) -> Vec<u8> {
        self.bytes.clear();
        self.bytes
    }
}
