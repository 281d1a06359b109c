//! What a scenario's connections receive, judged and counted; and the barrier at the end of a run.

use super::crowd::Crowd;
use super::dialect::{Dialect, ReplyKind};
use super::ledger::{Faults, Ledger, Verdict};
use super::wire::{Opcode, Stamp, StampScanner, Tag, masked};
use super::{Options, Scenario};

/// The messages of all connections.
#[derive(Debug)]
pub(super) struct Inbox {
    dialect: Dialect,
    ledger: Ledger,
    scanner: StampScanner,
    delivered: u64,
    /// Connections whose pong is awaited.
    pongs_left: usize,
}

impl Inbox {
    /// One listener for each tag, which names its stream.
    pub(super) fn new(dialect: Dialect, tags: impl Iterator<Item = Tag>) -> Inbox {
        Inbox { dialect, ledger: Ledger::new(tags), scanner: StampScanner::default(), delivered: 0, pongs_left: 0 }
    }

    /// Looks for the stamp of a message; what has none is a reply, and is taken care of.
    #[inline]
    pub(super) fn stamp(&mut self, at: usize, payload: &[u8]) -> Option<Stamp> {
        let stamp = self.scanner.find(payload);
        if stamp.is_none() {
            self.reply(at, payload);
        }
        stamp
    }

    /// Judges a delivery: whether it counts. `published` is how many messages the listener's stream has had.
    #[inline]
    pub(super) fn deliver(&mut self, listener: usize, stamp: Stamp, published: u32) -> bool {
        match self.ledger.delivered(listener, stamp, published) {
            Verdict::Counted => {
                self.delivered += 1;
                true
            }
            Verdict::Fault => false,
        }
    }

    /// What a listener's next message is, if the server does right: all that is known of one that is not read.
    #[inline]
    pub(super) fn next(&self, listener: usize) -> Stamp {
        self.ledger.next(listener)
    }

    /// Takes a delivery whose content is not what was published.
    #[cold]
    pub(super) fn altered(&mut self, listener: usize, sequence: u32) {
        let faults = self.ledger.faults_mut();
        faults.altered += 1;
        faults.tell(|text| text.push_str(&format!("listener {listener} got another message {sequence} than was sent")));
    }

    /// Takes a message of a connection that listens to nothing: a publisher's.
    #[cold]
    pub(super) fn reply(&mut self, at: usize, payload: &[u8]) {
        match self.dialect.reply_kind(payload) {
            ReplyKind::Pong => self.pong(),
            ReplyKind::Error => {
                let faults = self.ledger.faults_mut();
                faults.refused += 1;
                faults.tell(|text| {
                    text.push_str(&format!("connection {at} was refused: {}", String::from_utf8_lossy(payload)));
                });
            }
            ReplyKind::Welcome | ReplyKind::Joined | ReplyKind::Other => {}
        }
    }

    /// Takes a pong, of either kind.
    #[cold]
    pub(super) fn pong(&mut self) {
        self.pongs_left = self.pongs_left.saturating_sub(1);
    }

    /// Counts a delivery that was judged elsewhere.
    #[inline]
    pub(super) fn count(&mut self) {
        self.delivered += 1;
    }

    /// For faults that were found elsewhere.
    pub(super) fn faults_mut(&mut self) -> &mut Faults {
        self.ledger.faults_mut()
    }

    /// Takes the end of a connection, which is a fault.
    pub(super) fn ended(&mut self, at: usize, why: &str) {
        let faults = self.ledger.faults_mut();
        faults.ended += 1;
        faults.tell(|text| text.push_str(&format!("connection {at}: {why}")));
    }

    /// Deliveries that count, so far.
    pub(super) fn delivered(&self) -> u64 {
        self.delivered
    }

    /// Whether a fault has been found.
    pub(super) fn is_faulty(&self) -> bool {
        !self.ledger.faults().is_empty()
    }

    /// Asks each connection but the publishers for a pong: what a server sent twice stands before it.
    pub(super) fn raise_barrier(&mut self, crowd: &mut Crowd, options: &Options) {
        // An answer that may come compressed could not be told from a delivery where these are not inflated. A control
        // frame never is (RFC 7692 §6).
        // An echo knows no other.
        let by_frame = options.scenario == Scenario::Echo || options.deflate;
        let ping = match by_frame && self.dialect.has_one_message_a_frame() {
            true => masked(Opcode::Ping, b"", crowd.mask()),
            false => masked(Opcode::Text, self.dialect.barrier().as_bytes(), crowd.mask()),
        };
        self.pongs_left = options.connections;
        for at in 0..options.connections {
            crowd.send(at, &ping);
        }
    }

    /// Whether a pong is still awaited.
    pub(super) fn is_before_barrier(&self) -> bool {
        self.pongs_left > 0
    }

    /// Connections whose pong is still awaited.
    pub(super) fn unanswered(&self) -> usize {
        self.pongs_left
    }

    /// Closes the books: [`Ledger::close`].
    pub(super) fn close(self, published: impl Fn(usize) -> u32) -> Faults {
        self.ledger.close(published)
    }
}
