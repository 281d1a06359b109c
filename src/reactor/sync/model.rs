//! Loom's atomics, and a bounded channel made of them that promises what crossbeam's promises, and no more.
//!
//! A queue behind loom's `Mutex` would not do: its lock orders whatever stands around it, and so a mailbox without its
//! fences would pass.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

pub(in crate::reactor) use crossbeam_channel::TrySendError;
use crossbeam_channel::{SendError, TryRecvError};
use loom::sync::atomic::AtomicUsize;
pub(in crate::reactor) use loom::sync::atomic::{Ordering, fence};

/// A flag that is stored by one thread and swapped by others.
///
/// Loom knows no order between a store and a swap that has read the value before it, although the swap comes first: the
/// two are one step. So a later load could see the swap's value as if it were newer, which no machine does. A store that
/// is itself a swap is ordered; loads see old values all the same.
pub(in crate::reactor) struct AtomicBool(loom::sync::atomic::AtomicBool);

impl AtomicBool {
    pub(in crate::reactor) fn new(value: bool) -> AtomicBool {
        AtomicBool(loom::sync::atomic::AtomicBool::new(value))
    }

    pub(in crate::reactor) fn load(&self, ordering: Ordering) -> bool {
        self.0.load(ordering)
    }

    pub(in crate::reactor) fn store(&self, value: bool, ordering: Ordering) {
        self.0.swap(value, ordering);
    }

    pub(in crate::reactor) fn swap(&self, value: bool, ordering: Ordering) -> bool {
        self.0.swap(value, ordering)
    }
}

struct Channel<T> {
    room: usize,
    /// How many were ever sent and taken. As in crossbeam's channel, these alone say whether it is full or empty.
    sent: AtomicUsize,
    taken: AtomicUsize,
    /// Loom does not know this lock, and it is never held across one of loom's operations: it orders nothing.
    queue: Mutex<VecDeque<T>>,
}

/// One of many senders, as the post office shares them.
pub(in crate::reactor) struct Sender<T>(Arc<Channel<T>>);

/// The one receiver.
pub(in crate::reactor) struct Receiver<T>(Arc<Channel<T>>);

/// A channel with room for so many.
pub(in crate::reactor) fn bounded<T>(room: usize) -> (Sender<T>, Receiver<T>) {
    let (sent, taken) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let channel = Arc::new(Channel { room, sent, taken, queue: Mutex::new(VecDeque::new()) });
    (Sender(channel.clone()), Receiver(channel))
}

impl<T> Sender<T> {
    /// Takes a place, which publishes it, and fills it. No thread runs in between, where crossbeam's receiver spins.
    pub(in crate::reactor) fn try_send(&self, item: T) -> Result<(), TrySendError<T>> {
        let Channel { room, sent, taken, queue } = &*self.0;
        let mut position = sent.load(Ordering::Relaxed);
        loop {
            if position.saturating_sub(taken.load(Ordering::Acquire)) >= *room {
                return Err(TrySendError::Full(item));
            }
            match sent.compare_exchange(position, position + 1, Ordering::Release, Ordering::Relaxed) {
                Ok(_) => break,
                Err(latest) => position = latest,
            }
        }
        queue.lock().unwrap().push_back(item);
        Ok(())
    }

    /// Waits for room.
    pub(in crate::reactor) fn send(&self, mut item: T) -> Result<(), SendError<T>> {
        loop {
            match self.try_send(item) {
                Ok(()) => return Ok(()),
                Err(refused) => item = refused.into_inner(),
            }
            loom::thread::yield_now();
        }
    }
}

impl<T> Receiver<T> {
    pub(in crate::reactor) fn is_empty(&self) -> bool {
        self.0.sent.load(Ordering::Acquire) == self.0.taken.load(Ordering::Relaxed)
    }

    pub(in crate::reactor) fn try_recv(&self) -> Result<T, TryRecvError> {
        if self.is_empty() {
            return Err(TryRecvError::Empty);
        }
        let item = self.0.queue.lock().unwrap().pop_front();
        self.0.taken.fetch_add(1, Ordering::Release);
        item.ok_or(TryRecvError::Empty)
    }
}
