//! Where the kernel puts what it receives: buffers of the ring, of which an idle connection holds none.
//!
//! ```text
//!   the ring ──── a completion names it ────► lent as a RingBuffer ──── give_back ────► the ring
//! ```

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::types::BufRingEntry;

use crate::limits::{RING_BUFFER_BYTES, RING_BUFFERS};

/// What the kernel asks of a ring's address.
const PAGE_BYTES: usize = 4096;

/// Received bytes, in a buffer that belongs to no ring until it is given back.
#[derive(Debug)]
pub struct RingBuffer {
    bytes: Box<[u8]>,
    filled: usize,
    id: u16,
}

impl AsMut<[u8]> for RingBuffer {
    #[inline]
    fn as_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[..self.filled]
    }
}

/// The buffers of one ring.
pub(super) struct Buffers {
    /// The entries that the kernel takes buffers from, [`RING_BUFFERS`] of them at the start of a page.
    entries: NonNull<BufRingEntry>,
    /// By number: the buffer, while the ring has it; `None` while it is lent.
    in_ring: Vec<Option<NonNull<u8>>>,
    /// Entries written so far, as the kernel counts them.
    tail: u16,
    /// Buffers that the kernel has, or has named in a completion that was not looked at yet.
    free: usize,
}

// SAFETY: the entries and the buffers in the ring belong to this alone, and no thread has an address of its own.
unsafe impl Send for Buffers {}

impl Buffers {
    /// All buffers are in the ring, which the kernel does not know of yet.
    pub(super) fn new() -> Buffers {
        let layout = Buffers::layout();
        // SAFETY: the layout has a size.
        let entries = unsafe { alloc_zeroed(layout) };
        let Some(entries) = NonNull::new(entries.cast::<BufRingEntry>()) else { handle_alloc_error(layout) };
        let mut buffers = Buffers { entries, in_ring: vec![None; usize::from(RING_BUFFERS)], tail: 0, free: 0 };
        for id in 0..RING_BUFFERS {
            buffers.give_back(RingBuffer { bytes: vec![0; RING_BUFFER_BYTES].into(), filled: 0, id });
        }
        buffers
    }

    fn layout() -> Layout {
        let bytes = usize::from(RING_BUFFERS) * size_of::<BufRingEntry>();
        Layout::from_size_align(bytes, PAGE_BYTES).expect("a page is a power of two")
    }

    /// Where the entries are, for the kernel.
    pub(super) fn address(&self) -> u64 {
        self.entries.as_ptr() as u64
    }

    /// Buffers that are not lent.
    pub(super) fn free(&self) -> usize {
        self.free
    }

    /// The buffer that a completion names, with so many bytes in it. Each completion is looked at once.
    pub(super) fn take(&mut self, id: u16, filled: usize) -> RingBuffer {
        let bytes = self.in_ring[usize::from(id)].take().expect("the kernel names buffers that it has");
        self.free -= 1;
        // SAFETY: `give_back` has got it from a box of that size, and the kernel, which has named it, writes to it no more.
        let bytes = unsafe { Box::from_raw(std::ptr::slice_from_raw_parts_mut(bytes.as_ptr(), RING_BUFFER_BYTES)) };
        RingBuffer { bytes, filled: filled.min(RING_BUFFER_BYTES), id }
    }

    /// Puts a buffer into the ring.
    pub(super) fn give_back(&mut self, buffer: RingBuffer) {
        let RingBuffer { bytes, filled: _, id } = buffer;
        let bytes = NonNull::from(Box::leak(bytes)).cast::<u8>();
        self.in_ring[usize::from(id)] = Some(bytes);
        self.free += 1;
        let at = usize::from(self.tail & (RING_BUFFERS - 1));
        // SAFETY: the index is below RING_BUFFERS. The kernel reads no entry from the tail on, and at most RING_BUFFERS
        // are before it, as there are no more buffers. The fields are set one by one, since the first entry holds the tail.
        unsafe {
            let entry = &mut *self.entries.as_ptr().add(at);
            entry.set_addr(bytes.as_ptr() as u64);
            entry.set_len(RING_BUFFER_BYTES as u32);
            entry.set_bid(id);
        }
        self.tail = self.tail.wrapping_add(1);
        // SAFETY: the tail lies in the first entry, where none of the fields is that are set above; it is aligned, and is
        // read and written as an atomic by the kernel and here.
        let tail = unsafe { AtomicU16::from_ptr(BufRingEntry::tail(self.entries.as_ptr()).cast_mut()) };
        tail.store(self.tail, Ordering::Release);
    }
}

impl Drop for Buffers {
    /// The ring is closed before this: what it had under way is cancelled by threads of the kernel, which have no access to
    /// the memory here.
    fn drop(&mut self) {
        for bytes in self.in_ring.drain(..).flatten() {
            // SAFETY: as in `take`.
            drop(unsafe { Box::from_raw(std::ptr::slice_from_raw_parts_mut(bytes.as_ptr(), RING_BUFFER_BYTES)) });
        }
        // SAFETY: allocated in `new` with the same layout; the kernel keeps pages of its own of what was registered.
        unsafe { dealloc(self.entries.as_ptr().cast(), Buffers::layout()) };
    }
}
