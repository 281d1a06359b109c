//! From records to bytes: handshakes and their turns, and how a peer's side ends.

use super::{Buffer, Input, Received, Tls};
use crate::reactor::driver::{Completion, Driver, SlotKey};
use crate::tls::{Progress, Secured};

impl<D: Driver> Tls<D> {
    /// Records have come.
    pub(super) fn received(&mut self, slot: SlotKey, mut buffer: D::Buffer) -> Received<D> {
        let (reading, handshakes_left) = (self.reading, self.handshakes_left);
        let Some(found) = self.get_mut(slot) else {
            return Some(Completion::Received(slot, Buffer::Lent(buffer)));
        };
        // Whose signature was made goes on: it would be wasted on a client whose time is over.
        let awaits_hello = found.secured.session.awaits_hello();
        let waits = found.is_waiting || !reading || handshakes_left == 0;
        let completion = match awaits_hello && waits {
            true => self.wait_for_turn(slot, buffer.as_mut()),
            false => self.open(slot, buffer.as_mut()),
        };
        self.inner.give_back(buffer);
        completion
    }

    /// A handshake goes on in another turn.
    pub(super) fn wait_for_turn(&mut self, slot: SlotKey, bytes: &[u8]) -> Received<D> {
        let kept = self.change(slot, |found| found.secured.session.keep(bytes))?;
        if kept.is_err() {
            self.fail(slot);
            return None;
        }
        let found = self.get_mut(slot)?;
        if !std::mem::replace(&mut found.is_waiting, true) {
            self.waiting.push_back(slot);
        }
        None
    }

    /// The next handshake that waited.
    pub(super) fn next_waiting(&mut self) -> Received<D> {
        while self.reading && self.handshakes_left > 0 {
            let slot = self.waiting.pop_front()?;
            let Some(found) = self.get_mut(slot) else { continue };
            found.is_waiting = false;
            if let Some(completion) = self.open(slot, &mut []) {
                return Some(completion);
            }
        }
        None
    }

    /// Opens records: what they say is the worker's, what is to be said because of them is owed.
    pub(super) fn open(&mut self, slot: SlotKey, bytes: &mut [u8]) -> Received<D> {
        let mut opened = std::mem::take(&mut self.opened);
        opened.clear();
        let outcome = self.change(slot, |found| {
            if found.input != Input::Open {
                return (Progress::Open, false, None);
            }
            let Secured { session, owed } = &mut *found.secured;
            let awaited_hello = session.awaits_hello();
            let progress = session.receive(bytes, &mut opened, owed);
            let kind = if found.is_counted { None } else { session.is_resumed() };
            found.is_counted |= kind.is_some();
            (progress, awaited_hello, kind)
        });
        let (progress, awaited_hello, kind) = outcome?;
        self.handshakes_left -= usize::from(awaited_hello && self.handshakes_left > 0);
        match kind {
            Some(true) => self.counts.resumed += 1,
            Some(false) => self.counts.full += 1,
            None => {}
        }
        self.note_owing(slot);
        match progress {
            Progress::Open => {}
            Progress::PeerClosed => self.end(slot),
            Progress::Failed(error) => {
                tracing::debug!(slot = slot.slot(), %error, "TLS failed");
                self.fail(slot);
            }
        }
        if opened.is_empty() {
            self.opened = opened;
            return None;
        }
        Some(Completion::Received(slot, Buffer::Opened(opened)))
    }

    /// A session has failed, and owes the alert that says so. Behind its handshake the connection ends. Before that the peer
    /// has time to read the alert: closing at once would make a reset of it where more came than was read.
    pub(super) fn fail(&mut self, slot: SlotKey) {
        self.counts.failed += 1;
        let Some(found) = self.get_mut(slot) else { return };
        if found.secured.session.is_handshaking() {
            (found.input, found.is_finishing) = (Input::Refused, true);
            self.note_owing(slot);
        } else {
            self.end(slot);
        }
    }

    /// Nothing more comes from the peer: the worker is told in the next turn.
    pub(super) fn end(&mut self, slot: SlotKey) {
        let Some(found) = self.get_mut(slot) else { return };
        if found.input == Input::Open {
            found.input = Input::Ending;
            self.ending.push(slot);
        }
    }

    /// The ends that are due: not those of paused connections, whose earlier bytes the worker has not used yet.
    pub(super) fn tell_ends(&mut self) {
        if !self.reading {
            return;
        }
        for slot in std::mem::take(&mut self.ending) {
            match self.get_mut(slot) {
                Some(found) if found.input == Input::Ending && !found.is_paused => {
                    found.input = Input::Ended;
                    self.ready.push_back(Completion::Ended(slot));
                }
                // It comes again with `resume`.
                Some(_) | None => {}
            }
        }
    }
}
