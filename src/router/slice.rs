//! Messages of a history on their way to one connection.

use std::sync::{Arc, Weak};

use crate::compress::{HeldBytes, SharedFrame};
use crate::limits::ALLOCATION_BYTES;

/// Messages of a history, oldest first. They live as long as the slice does, whatever the history drops meanwhile.
#[derive(Clone, Debug, Default)]
pub struct Slice {
    /// `None` where there are none.
    snapshot: Option<Arc<Snapshot>>,
    from: usize,
    to: usize,
}

impl Slice {
    /// Messages that no history has.
    pub(super) fn apart(frames: Vec<SharedFrame>, pinned: &Arc<HeldBytes>) -> Slice {
        let to = frames.len();
        // No slicer knows it, so nothing is looked up in it by offset.
        Slice { snapshot: Some(Arc::new(Snapshot::new(0, frames.into(), pinned.clone()))), from: 0, to }
    }

    /// The messages' frames.
    pub fn frames(&self) -> &[SharedFrame] {
        match &self.snapshot {
            Some(snapshot) => &snapshot.frames[self.from..self.to],
            None => &[],
        }
    }
}

/// Messages of a history at one time. What it takes is counted, and so are its messages from when the history has
/// dropped them.
#[derive(Debug)]
struct Snapshot {
    /// The offset of the first.
    first: u64,
    frames: Box<[SharedFrame]>,
    pinned: Arc<HeldBytes>,
}

impl Snapshot {
    fn new(first: u64, frames: Box<[SharedFrame]>, pinned: Arc<HeldBytes>) -> Snapshot {
        let snapshot = Snapshot { first, frames, pinned };
        snapshot.pinned.add(snapshot.bytes());
        snapshot
    }

    fn bytes(&self) -> usize {
        size_of_val(&*self.frames) + SNAPSHOT_BYTES
    }

    fn covers(&self, after: u64, to: u64) -> bool {
        self.first <= after + 1 && to < self.first + self.frames.len() as u64
    }
}

impl Drop for Snapshot {
    fn drop(&mut self) {
        self.pinned.remove(self.bytes());
    }
}

/// What a snapshot takes beside its references to messages: itself, the counts of its `Arc`, two allocations.
pub(super) const SNAPSHOT_BYTES: usize = size_of::<Snapshot>() + 2 * size_of::<usize>() + 2 * ALLOCATION_BYTES;

/// Cuts slices, each at a cost in proportion to what is in it. Slices of about the same messages share one snapshot for
/// as long as one of them waits to be sent.
#[derive(Debug, Default)]
pub(super) struct Slicer {
    /// The largest of the newest.
    last: Weak<Snapshot>,
}

impl Slicer {
    /// The messages `after+1..=to`, which `frames` gives where no snapshot has them.
    pub(super) fn cut<F>(&mut self, after: u64, to: u64, pinned: &Arc<HeldBytes>, frames: impl FnOnce() -> F) -> Slice
    where
        F: Iterator<Item = SharedFrame>,
    {
        let count = (to - after) as usize;
        if count == 0 {
            return Slice::default();
        }
        let last = self.last.upgrade().filter(|last| last.covers(after, to));
        // A snapshot lives whole: so who asks for a few messages does not share a large one.
        let shared = last.as_ref().filter(|last| last.frames.len() <= 2 * count).cloned();
        let snapshot = shared.unwrap_or_else(|| {
            let snapshot = Arc::new(Snapshot::new(after + 1, frames().collect(), pinned.clone()));
            if last.is_none() {
                self.last = Arc::downgrade(&snapshot);
            }
            snapshot
        });
        let from = (after + 1 - snapshot.first) as usize;
        Slice { from, to: from + count, snapshot: Some(snapshot) }
    }
}
