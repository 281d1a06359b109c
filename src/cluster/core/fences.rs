//! Answers that wait: acks until the message is here, and fences until all that was asked before them is answered.
//!
//! A publisher that has its ack finds its message in the next page of history it asks for, as on one node. So the ack
//! waits until the message has come back on the channel, where the topic is followed here and the channel is up.
//!
//! A fence comes behind what a connection has asked for and goes back behind the answers: to commands, to openings, to
//! questions who is in a room, and to acks that wait.

use super::feeds::Feed;
use super::{Core, Subscriber};
use crate::ids::{ConnId, ReactorId};
use crate::router::cluster::FromCluster;
use crate::router::{Mail, Place};

/// An ack that waits until its message is here.
#[derive(Debug)]
pub(super) struct HeldAck {
    pub(super) publisher: ConnId,
    pub(super) id: Box<str>,
    pub(super) place: Place,
    number: u64,
}

/// A fence of one connection.
#[derive(Debug)]
pub(super) struct Fence {
    reactor: ReactorId,
    member: ConnId,
    rounds_left: u8,
    /// The last batch of commands in front of it.
    batch: u64,
    /// The last of what waits for something else.
    number: u64,
}

impl Core {
    /// The message is stored: its publisher is told when it is here, too.
    pub(super) fn acknowledge(&mut self, feed: Option<usize>, publisher: ConnId, id: Box<str>, place: Place) {
        let is_up = self.subscriber == Subscriber::Up;
        let feed = feed.and_then(|at| self.feeds.get_mut(at)).filter(|feed| is_up && feed.is_behind(&place));
        match feed {
            None => self.mail.push((publisher.reactor, Mail::stored(publisher, id, place))),
            Some(feed) => {
                self.numbers += 1;
                feed.acks.push_back(HeldAck { publisher, id, place, number: self.numbers });
            }
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
            let HeldAck { publisher, id, place, .. } = ack;
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
        self.fences.push(Fence { reactor, member, rounds_left, batch, number: self.numbers });
    }

    /// Fences behind which everything is answered go back.
    pub(super) fn pass_fences(&mut self) {
        if self.fences.is_empty() {
            return;
        }
        let batch = self.pending.first_unanswered().unwrap_or(u64::MAX);
        let asked = self.asking.keys().copied().min().unwrap_or(u64::MAX);
        let of_feeds = self.feeds.iter().filter_map(|(_, feed)| feed.oldest_waiting()).min().unwrap_or(u64::MAX);
        let number = asked.min(of_feeds);
        let (passed, held) = std::mem::take(&mut self.fences)
            .into_iter()
            .partition::<Vec<Fence>, _>(|fence| fence.batch < batch && fence.number < number);
        self.fences = held;
        for Fence { reactor, member, rounds_left, .. } in passed {
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

    fn oldest_waiting(&self) -> Option<u64> {
        let opening = self.waits_since();
        let ack = self.acks.front().map(|ack| ack.number);
        opening.into_iter().chain(ack).min()
    }
}
