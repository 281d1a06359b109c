//! What a mailbox is shared through: atomics, a fence, and the bounded channel of crossbeam.
//!
//! With the feature `loom` the unit tests get loom's models of them instead. Loom runs a test once for every order
//! its threads can run in and every value a load may return; `loom_tests` says how.

#[cfg(not(all(test, feature = "loom")))]
mod real {
    pub(in crate::reactor) use std::sync::atomic::{AtomicBool, Ordering, fence};

    pub(in crate::reactor) use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
}

#[cfg(all(test, feature = "loom"))]
mod model;

#[cfg(all(test, feature = "loom"))]
pub(super) use model::*;
#[cfg(not(all(test, feature = "loom")))]
pub(super) use real::*;
