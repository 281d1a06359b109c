//! What a mailbox is shared through: atomics, a fence, and the bounded channel of crossbeam.
//!
//! Under `--cfg fanfare_loom` the unit tests get loom's models of them instead. Loom runs a test once for every order
//! its threads can run in and every value a load may return; `loom_tests` says how.

#[cfg(not(all(test, fanfare_loom)))]
mod real {
    pub(in crate::reactor) use std::sync::atomic::{AtomicBool, Ordering, fence};

    pub(in crate::reactor) use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
}

#[cfg(all(test, fanfare_loom))]
mod model;

#[cfg(all(test, fanfare_loom))]
pub(super) use model::*;
#[cfg(not(all(test, fanfare_loom)))]
pub(super) use real::*;
