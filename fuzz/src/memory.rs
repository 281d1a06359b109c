//! Bytes that are allocated, not only those that the code under test says it holds. Whoever uses this module counts
//! every allocation of its process but the engine's, which has another allocator.

use std::alloc::System;

use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Bytes allocated since a moment.
pub struct Watch(Region<'static, System>);

impl Watch {
    /// From now on.
    pub fn start() -> Watch {
        Watch(Region::new(ALLOCATOR))
    }

    /// Bytes that were allocated since then and are not freed. What was there before must not be freed meanwhile.
    pub fn live_bytes(&self) -> usize {
        let change = self.0.change();
        change.bytes_allocated - change.bytes_deallocated
    }
}
