//! Answers that wait: acks until the message is here, and fences until all that was asked before them is answered.
//!
//! A publisher that has its ack finds its message in the next page of history it asks for, as on one node. So the ack
//! waits until the message has come back on the channel, where the topic is followed here and the channel is up.
//!
//! A fence comes behind what a connection has asked for and goes back behind the answers: to commands, to openings, to
//! questions who is in a room, and to acks that wait.

use std::collections::{BTreeSet, VecDeque};

use super::feeds::Feed;
use super::{Core, Subscriber};
use crate::ids::{ConnId, ReactorId, ReplyTo};
use crate::router::cluster::FromCluster;
use crate::router::{Mail, StaleUpdates, StreamPosition};

/// Held by what waits for something other than commands. It is given back when that has come.
#[derive(Debug)]
pub(super) struct Ticket(u64);

impl Ticket {
    #[cfg(any(test, debug_assertions))]
    pub(super) fn number(&self) -> u64 {
        self.0
    }
}

/// All tickets, numbered in the order in which they were taken.
#[derive(Debug, Default)]
pub(super) struct Tickets {
    taken: u64,
    outstanding: BTreeSet<u64>,
}

impl Tickets {
    pub(super) fn take(&mut self) -> Ticket {
        self.taken += 1;
        self.outstanding.insert(self.taken);
        Ticket(self.taken)
    }

    pub(super) fn give_back(&mut self, ticket: Ticket) {
        self.outstanding.remove(&ticket.0);
    }

    /// Those that were taken and not given back.
    #[cfg(any(test, debug_assertions))]
    pub(super) fn outstanding(&self) -> &BTreeSet<u64> {
        &self.outstanding
    }
}

/// A message that Redis has stored, and the publisher that wants to know.
#[derive(Debug)]
pub(super) struct Stored {
    pub(super) publisher: ReplyTo,
    pub(super) id: Box<str>,
    pub(super) position: StreamPosition,
    /// Of updates of items, which were stale.
    pub(super) stale: Option<StaleUpdates>,
}

/// An ack that waits until its message is here.
#[derive(Debug)]
pub(super) struct HeldAck {
    stored: Stored,
    pub(super) ticket: Ticket,
}

/// Which of a feed's acks go out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Release {
    /// Those whose message is here.
    Reached,
    /// All: nothing more is to be waited for.
    All,
}

/// The fences that are held back, in the order in which they came: none goes before an earlier one.
pub(super) type Fences = VecDeque<Fence>;

/// A fence of one connection.
#[derive(Debug)]
pub(super) struct Fence {
    reactor: ReactorId,
    member: ConnId,
    rounds_left: u8,
    /// The last batch of commands in front of it.
    batch: u64,
    /// The last ticket that was taken before it.
    ticket: u64,
}

impl Core {
    /// The message is stored: its publisher is told when it is here, too.
    pub(super) fn acknowledge(&mut self, feed: Option<usize>, stored: Stored) {
        let is_up = self.subscriber == Subscriber::Up;
        let feed = feed.and_then(|at| self.feeds.get_mut(at)).filter(|feed| is_up && feed.is_behind(&stored.position));
        match feed.and_then(|feed| feed.attachment.as_attached_mut()) {
            None => self.tell_stored(stored),
            Some(attached) => {
                let ticket = self.tickets.take();
                attached.acks.push_back(HeldAck { stored, ticket });
            }
        }
    }

    fn tell_stored(&mut self, stored: Stored) {
        let Stored { publisher, id, position, stale } = stored;
        self.mail.push((publisher.peer(), Mail::stored(publisher, id, position, stale)));
    }

    /// Acks of a feed go out.
    pub(super) fn release_acks(&mut self, at: usize, which: Release) {
        while let Some(attached) = self.feeds[at].attachment.as_attached_mut()
            && let Some(ack) = attached.acks.pop_front()
        {
            let feed = &mut self.feeds[at];
            match which {
                Release::Reached if feed.is_behind(&ack.stored.position) => {
                    if let Some(attached) = feed.attachment.as_attached_mut() {
                        attached.acks.push_front(ack);
                    }
                    return;
                }
                Release::Reached | Release::All => self.send_ack(ack),
            }
        }
    }

    pub(super) fn send_ack(&mut self, ack: HeldAck) {
        let HeldAck { stored, ticket } = ack;
        self.tickets.give_back(ticket);
        self.tell_stored(stored);
    }

    pub(super) fn release_all_acks(&mut self) {
        let has_acks = |feed: &Feed| feed.attached().is_some_and(|attached| !attached.acks.is_empty());
        let waiting = self.feeds.iter().filter(|(_, feed)| has_acks(feed)).map(|(at, _)| at);
        for at in waiting.collect::<Vec<usize>>() {
            self.release_acks(at, Release::All);
        }
    }

    /// A fence of a connection comes through a reactor.
    pub(super) fn fence(&mut self, reactor: ReactorId, member: ConnId, rounds_left: u8) {
        self.flush_envelopes();
        let batch = self.pending.last_batch();
        self.fences.push_back(Fence { reactor, member, rounds_left, batch, ticket: self.tickets.taken });
    }

    /// Fences behind which everything is answered go back. What they cost does not depend on how many topics there are.
    pub(super) fn pass_fences(&mut self) {
        let batch = self.pending.first_unanswered().unwrap_or(u64::MAX);
        let ticket = self.tickets.outstanding.first().copied().unwrap_or(u64::MAX);
        let passes = |fence: &Fence| fence.batch < batch && fence.ticket < ticket;
        while self.fences.front().is_some_and(passes)
            && let Some(Fence { reactor, member, rounds_left, .. }) = self.fences.pop_front()
        {
            self.notify(reactor, FromCluster::Fenced { member, rounds_left });
        }
    }
}

impl Feed {
    /// Whether a message is not here yet, but will be.
    fn is_behind(&self, position: &StreamPosition) -> bool {
        self.attached().is_some()
            && self.position().is_some_and(|here| here.epoch == position.epoch && here.offset < position.offset)
    }
}
