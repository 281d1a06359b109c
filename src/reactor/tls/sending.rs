//! From bytes to records, and what of them is owed.

use std::io::IoSlice;

use super::Tls;
use super::queued::Queued;
use crate::limits::TLS_RECORD_BYTES_MAX;
use crate::reactor::driver::{Completion, Driver, Sent, Shortfall, SlotKey};
use crate::tls::Secured;

impl<D: Driver> Tls<D> {
    pub(super) fn note_owing(&mut self, slot: SlotKey) {
        let Some(found) = self.get_mut(slot) else { return };
        let owes = !found.secured.owed.is_empty() || found.is_finishing;
        if owes && !found.is_blocked && !found.is_going && !std::mem::replace(&mut found.is_owing, true) {
            self.owing.push(slot);
        }
    }

    /// Sends what is owed by itself: nothing of the worker's is under way.
    pub(super) fn send_owed(&mut self) {
        let mut owing = std::mem::take(&mut self.owing);
        for slot in owing.drain(..) {
            let Some(found) = self.get_mut(slot) else { continue };
            found.is_owing = false;
            if found.is_blocked || found.is_going {
                continue;
            }
            let Some(record) = self.change(slot, |found| std::mem::take(&mut found.secured.owed)) else { continue };
            if record.is_empty() {
                self.owed_taken(slot, record, 0);
                continue;
            }
            match self.inner.send(slot, &record) {
                Sent::Took(taken_bytes) => self.owed_taken(slot, record, taken_bytes),
                Sent::Queued => self.queued.push(Queued::owed(slot, record)),
                Sent::Broken => self.broken(slot, record),
            }
        }
        self.owing = owing;
        if self.queued.is_empty() {
            return;
        }
        if D::RECHECKS {
            for Queued { slot, record, .. } in &self.queued {
                self.inner.recheck(*slot, &[IoSlice::new(record)]);
            }
        }
        self.inner.submit();
        while let Some((slot, shortfall)) = self.inner.next_shortfall() {
            let Some(at) = self.queued.iter().position(|queued| queued.slot == slot) else { continue };
            let Queued { record, .. } = self.queued.swap_remove(at);
            match shortfall {
                Shortfall::Took(taken_bytes) => self.owed_taken(slot, record, taken_bytes),
                Shortfall::Broken => self.broken(slot, record),
            }
        }
        for Queued { slot, record, .. } in std::mem::take(&mut self.queued) {
            let taken_bytes = record.len();
            self.owed_taken(slot, record, taken_bytes);
        }
    }

    pub(super) fn broken(&mut self, slot: SlotKey, record: Vec<u8>) {
        self.records.give_back(record);
        self.end(slot);
    }

    /// So much of what was owed was taken.
    pub(super) fn owed_taken(&mut self, slot: SlotKey, record: Vec<u8>, taken_bytes: usize) {
        let finishes = self.change(slot, |found| {
            if taken_bytes < record.len() {
                found.is_blocked = true;
                found.secured.owed = record[taken_bytes..].to_vec();
            }
            found.secured.owed.is_empty() && std::mem::take(&mut found.is_finishing)
        });
        self.records.give_back(record);
        if finishes == Some(true) {
            self.inner.finish(slot);
        }
    }

    /// Apart from the path of a node without TLS, which is all that it would make longer.
    #[inline(never)]
    pub(super) fn send_by_slot(&mut self, slot: SlotKey, bytes: &[u8]) -> Sent {
        match self.get_mut(slot) {
            None => self.inner.send(slot, bytes),
            Some(_) => self.seal_and_send(slot, std::iter::once(bytes)),
        }
    }

    /// Seals and sends as many records as the socket takes at once, or one that is queued.
    pub(super) fn seal_and_send<'b>(&mut self, slot: SlotKey, slices: impl Iterator<Item = &'b [u8]> + Clone) -> Sent {
        let given_bytes: usize = slices.clone().map(<[u8]>::len).sum();
        let mut taken_bytes = 0;
        while taken_bytes < given_bytes {
            // What is owed and the next record take no more than one record does.
            let owed_bytes = self.get(slot).map_or(0, |found| found.secured.owed.len());
            let bytes_max = TLS_RECORD_BYTES_MAX.saturating_sub(owed_bytes).max(1);
            let plain = self.records.gather(slices.clone(), taken_bytes, bytes_max);
            let plain_bytes = plain.len();
            let mut record = self.records.take();
            let sealed = self.change(slot, |found| {
                if found.is_blocked {
                    return None;
                }
                let Secured { session, owed } = &mut *found.secured;
                record.append(owed);
                *owed = Vec::new();
                let known = usize::from(found.is_first_byte_sealed);
                found.is_first_byte_sealed = false;
                Some(session.seal(&plain[known..], &mut record))
            });
            self.records.put_plain(plain);
            match sealed {
                Some(Some(Ok(()))) => {}
                Some(None) => {
                    self.records.give_back(record);
                    return Sent::Took(taken_bytes);
                }
                Some(Some(Err(_))) | None => {
                    self.records.give_back(record);
                    return Sent::Broken;
                }
            }
            match self.inner.send(slot, &record) {
                Sent::Took(bytes) if bytes == record.len() => {
                    self.records.give_back(record);
                    taken_bytes += plain_bytes;
                }
                Sent::Took(bytes) => {
                    self.fell_short(slot, record, bytes);
                    return Sent::Took(taken_bytes + plain_bytes - 1);
                }
                Sent::Queued => {
                    let sealed_bytes = taken_bytes + plain_bytes;
                    self.queued.push(Queued { slot, record, sealed_bytes, given_bytes });
                    return Sent::Queued;
                }
                Sent::Broken => {
                    self.records.give_back(record);
                    return Sent::Broken;
                }
            }
        }
        Sent::Took(taken_bytes)
    }

    /// The socket took only so much of a record: the rest is owed, and the worker keeps its last byte.
    pub(super) fn fell_short(&mut self, slot: SlotKey, record: Vec<u8>, taken_bytes: usize) {
        self.change(slot, |found| {
            found.is_blocked = true;
            found.is_first_byte_sealed = true;
            found.secured.owed = record[taken_bytes..].to_vec();
        });
        self.records.give_back(record);
    }

    /// What a queued record of which not all was taken comes to.
    pub(super) fn shortfall(&mut self, slot: SlotKey, shortfall: Shortfall) -> (SlotKey, Shortfall) {
        let Ok(at) = self.queued.binary_search_by_key(&slot, |queued| queued.slot) else { return (slot, shortfall) };
        let Queued { record, sealed_bytes, .. } = self.queued.remove(at);
        match shortfall {
            Shortfall::Took(taken_bytes) => {
                self.fell_short(slot, record, taken_bytes);
                (slot, Shortfall::Took(sealed_bytes - 1))
            }
            Shortfall::Broken => {
                self.records.give_back(record);
                (slot, Shortfall::Broken)
            }
        }
    }

    /// The next of the queued records, all of which were taken whole, behind which there is more to send.
    pub(super) fn next_unsealed(&mut self) -> Option<(SlotKey, Shortfall)> {
        while let Some(Queued { slot, record, sealed_bytes, given_bytes }) = self.queued.pop() {
            self.records.give_back(record);
            if sealed_bytes < given_bytes {
                // The socket takes more, as far as is known.
                self.ready.push_back(Completion::Writable(slot));
                return Some((slot, Shortfall::Took(sealed_bytes)));
            }
        }
        None
    }
}
