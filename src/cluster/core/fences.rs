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
use crate::ids::{ConnId, ReactorId};
use crate::router::cluster::FromCluster;
use crate::router::{Mail, Place};

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

/// An ack that waits until its message is here.
#[derive(Debug)]
pub(super) struct HeldAck {
    pub(super) publisher: ConnId,
    pub(super) id: Box<str>,
    pub(super) place: Place,
    pub(super) ticket: Ticket,
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
    pub(super) fn acknowledge(&mut self, feed: Option<usize>, publisher: ConnId, id: Box<str>, place: Place) {
        let is_up = self.subscriber == Subscriber::Up;
        let feed = feed.and_then(|at| self.feeds.get_mut(at)).filter(|feed| is_up && feed.is_behind(&place));
        match feed {
            None => self.mail.push((publisher.reactor, Mail::stored(publisher, id, place))),
            Some(feed) => feed.acks.push_back(HeldAck { publisher, id, place, ticket: self.tickets.take() }),
        }
    }

    /// What the feed has reached is acked; or all of it, where nothing more is to be waited for.
    pub(super) fn release_acks(&mut self, at: usize, all: bool) {
        let feed = &mut self.feeds[at];
        while let Some(ack) = feed.acks.pop_front() {
            if !all && feed.is_behind(&ack.place) {
                feed.acks.push_front(ack);
                return;
            }
            let HeldAck { publisher, id, place, ticket } = ack;
            self.tickets.give_back(ticket);
            self.mail.push((publisher.reactor, Mail::stored(publisher, id, place)));
        }
    }

    pub(super) fn release_all_acks(&mut self) {
        let waiting = self.feeds.iter().filter(|(_, feed)| !feed.acks.is_empty()).map(|(at, _)| at);
        for at in waiting.collect::<Vec<usize>>() {
            self.release_acks(at, true);
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
            self.tell(reactor, FromCluster::Fenced { member, rounds_left });
        }
    }
}

impl Feed {
    /// Whether a message is not here yet, but will be.
    fn is_behind(&self, place: &Place) -> bool {
        self.is_told_of_messages()
            && self.place().is_some_and(|here| here.epoch == place.epoch && here.offset < place.offset)
    }
}
