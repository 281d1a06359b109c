//! What this node answers others that ask who is in a room: piece by piece, each when the asking node has asked for it, so that no
//! more is on its way to a node than it has agreed to. Nothing is kept of an answer that is one piece.

use std::collections::BTreeMap;
use std::mem::size_of;

use super::super::record::{self, Present, Record};
use super::Core;
use crate::limits::{CLUSTER_PRESENCE_ANSWERS_BYTES_MAX, CLUSTER_PRESENCE_MS_MAX, CLUSTER_PRESENT_BYTES};
use crate::router::cluster::Question;
use crate::router::{Crowd, Others};
use crate::time::Millis;

/// Answers of which the asking node has not asked the rest yet, by its run and its question.
#[derive(Debug, Default)]
pub(super) struct PresenceAnswers {
    answers: BTreeMap<(u64, u64), PresenceAnswer>,
    bytes: usize,
}

#[derive(Debug)]
struct PresenceAnswer {
    crowd: Crowd,
    /// How much of it is published.
    names: usize,
    hashes: usize,
    published_at: Millis,
}

/// A piece as it is sent.
struct Piece {
    names: Vec<u8>,
    hashes: Vec<u8>,
    sketch: Vec<u8>,
    more: bool,
}

impl PresenceAnswer {
    fn bytes(&self) -> usize {
        let others = match &self.crowd.others {
            Others::Hashes(hashes) => hashes.len() * size_of::<u64>(),
            Others::Sketch(sketch) => sketch.as_bytes().len(),
        };
        size_of::<PresenceAnswer>()
            + others
            + self.crowd.names.iter().map(|name| size_of_val(name) + name.len()).sum::<usize>()
    }

    fn piece(&mut self) -> Piece {
        let mut piece = Piece { names: Vec::new(), hashes: Vec::new(), sketch: Vec::new(), more: false };
        while let Some(name) = self.crowd.names.get(self.names) {
            if piece.names.len() + size_of::<u16>() + name.len() > CLUSTER_PRESENT_BYTES {
                piece.more = true;
                return piece;
            }
            record::write_user(&mut piece.names, name);
            self.names += 1;
        }
        let room = CLUSTER_PRESENT_BYTES - piece.names.len();
        match &self.crowd.others {
            Others::Hashes(hashes) => {
                let rest = &hashes[self.hashes..];
                let next = &rest[..rest.len().min(room / size_of::<u64>())];
                piece.hashes = next.iter().flat_map(|hash| hash.to_be_bytes()).collect();
                piece.more = next.len() < rest.len();
                self.hashes += next.len();
            }
            Others::Sketch(sketch) if sketch.as_bytes().len() <= room => piece.sketch = sketch.as_bytes().to_vec(),
            Others::Sketch(_) => piece.more = true,
        }
        piece
    }
}

impl PresenceAnswers {
    /// Whoever has not asked for the next piece for so long does not want it any more.
    pub(super) fn forget_old(&mut self, now: Millis) {
        let is_old = |answer: &PresenceAnswer| now.since(answer.published_at) > 3 * CLUSTER_PRESENCE_MS_MAX;
        for (_, answer) in self.answers.extract_if(.., |_, answer| is_old(answer)) {
            self.bytes -= answer.bytes();
        }
    }

    fn keep(&mut self, question: (u64, u64), answer: PresenceAnswer) {
        self.bytes += answer.bytes();
        if let Some(before) = self.answers.insert(question, answer) {
            self.bytes -= before.bytes();
        }
    }

    fn take(&mut self, question: (u64, u64)) -> Option<PresenceAnswer> {
        let answer = self.answers.remove(&question)?;
        self.bytes -= answer.bytes();
        Some(answer)
    }
}

impl Core {
    /// A home answers what another node has asked.
    pub(super) fn answer_presence(&mut self, question: Question, crowd: Crowd) {
        let Question { run, number, key } = question;
        let answer = PresenceAnswer { crowd, names: 0, hashes: 0, published_at: self.now };
        let is_too_much = self.presence_answers.bytes + answer.bytes() > CLUSTER_PRESENCE_ANSWERS_BYTES_MAX;
        let answer = match is_too_much && answer.bytes() > CLUSTER_PRESENT_BYTES {
            true => PresenceAnswer { crowd: answer.crowd.sketched(key), ..answer },
            false => answer,
        };
        self.publish_piece((run, number), answer);
    }

    /// The asking node wants the next piece.
    pub(super) fn publish_next_piece(&mut self, run: u64, number: u64) {
        if let Some(answer) = self.presence_answers.take((run, number)) {
            self.publish_piece((run, number), answer);
        }
    }

    fn publish_piece(&mut self, (run, number): (u64, u64), mut answer: PresenceAnswer) {
        // Who asks does not wait for long.
        if !self.commands_up || self.pending.is_full() {
            return;
        }
        let Piece { names, hashes, sketch, more } = answer.piece();
        let users = answer.crowd.users;
        let present = Present { number, users, more, names: &names, hashes: &hashes, sketch: &sketch };
        let channel = self.names.node(run);
        self.publish(&channel, &Record::Present(present));
        if more {
            answer.published_at = self.now;
            self.presence_answers.keep((run, number), answer);
        }
    }
}
