//! Records on their way, and the buffers they are made in.

use crate::limits::TLS_POOL_BYTES_MAX;
use crate::reactor::driver::SlotKey;

/// A record that the inner driver has queued: it stays where it is until its outcome is told.
#[derive(Debug)]
pub(super) struct Queued {
    pub(super) slot: SlotKey,
    pub(super) record: Vec<u8>,
    /// Bytes of the worker's that are in it, or were taken before it.
    pub(super) sealed_bytes: usize,
    /// Bytes that the worker gave.
    pub(super) given_bytes: usize,
}

impl Queued {
    /// One that holds nothing of the worker's.
    pub(super) fn owed(slot: SlotKey, record: Vec<u8>) -> Queued {
        Queued { slot, record, sealed_bytes: 0, given_bytes: 0 }
    }
}

/// Buffers for records and for what goes into one.
#[derive(Debug, Default)]
pub(super) struct Records {
    spare: Vec<Vec<u8>>,
    spare_bytes: usize,
    plain: Vec<u8>,
}

impl Records {
    /// An empty buffer for a record.
    pub(super) fn take(&mut self) -> Vec<u8> {
        let record = self.spare.pop().unwrap_or_default();
        self.spare_bytes -= record.capacity();
        record
    }

    /// A record's buffer is free again.
    pub(super) fn give_back(&mut self, mut record: Vec<u8>) {
        if record.capacity() > 0 {
            record.clear();
            self.spare_bytes += record.capacity();
            self.spare.push(record);
        }
    }

    /// Puts together what stands in `slices` from `from` on, at most so many bytes. It is given back by
    /// [`Records::put_plain`].
    pub(super) fn gather<'b>(
        &mut self,
        slices: impl Iterator<Item = &'b [u8]>,
        from: usize,
        bytes_max: usize,
    ) -> Vec<u8> {
        let mut plain = std::mem::take(&mut self.plain);
        plain.clear();
        let mut skip = from;
        for slice in slices {
            if skip >= slice.len() {
                skip -= slice.len();
                continue;
            }
            let rest = &slice[std::mem::take(&mut skip)..];
            let room = bytes_max - plain.len();
            if rest.len() >= room {
                plain.extend_from_slice(&rest[..room]);
                break;
            }
            plain.extend_from_slice(rest);
        }
        plain
    }

    pub(super) fn put_plain(&mut self, plain: Vec<u8>) {
        self.plain = plain;
    }

    /// Between flushes few are kept.
    pub(super) fn shrink(&mut self) {
        while self.spare_bytes > TLS_POOL_BYTES_MAX
            && let Some(record) = self.spare.pop()
        {
            self.spare_bytes -= record.capacity();
        }
    }
}
