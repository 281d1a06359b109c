//! How tables grow that there are many of, on many reactors: by a quarter, where doubling would leave up to half of each
//! empty.

use slab::Slab;
use smallvec::{Array, SmallVec};

/// How many entries more a full table gets room for.
fn step(len: usize) -> usize {
    (len / 4).max(4)
}

/// A table that has to have room for one more entry.
pub(crate) trait Grow {
    /// Makes room, if there is none.
    fn make_room_for_one(&mut self);
}

impl<T> Grow for Vec<T> {
    fn make_room_for_one(&mut self) {
        if self.len() == self.capacity() {
            self.reserve_exact(step(self.len()));
        }
    }
}

impl<T> Grow for Slab<T> {
    fn make_room_for_one(&mut self) {
        if self.len() == self.capacity() {
            self.reserve_exact(step(self.len()));
        }
    }
}

impl<A: Array> Grow for SmallVec<A> {
    fn make_room_for_one(&mut self) {
        if self.len() == self.capacity() {
            self.reserve_exact(step(self.len()));
        }
    }
}
