//! What this node tells others about who is in a room: piece by piece, each when the asking node has asked for it, so that no
//! more is on its way to a node than it has agreed to. Nothing is kept of an answer that is one piece.

use std::collections::BTreeMap;
use std::mem::size_of;

use super::super::record::{self, Present, Record};
use super::Core;
use crate::limits::{CLUSTER_PRESENCE_MS_MAX, CLUSTER_PRESENT_BYTES, CLUSTER_TELLING_BYTES_MAX};
use crate::router::cluster::Question;
use crate::router::{Crowd, Others};
use crate::time::Millis;

/// Answers of which the asking node has not asked the rest yet, by its run and its question.
#[derive(Debug, Default)]
pub(super) struct Tellings {
    tellings: BTreeMap<(u64, u64), Telling>,
    bytes: usize,
}

#[derive(Debug)]
struct Telling {
    crowd: Crowd,
    /// How much of it is told.
    names: usize,
    hashes: usize,
    told_at: Millis,
}

/// A piece as it is sent.
struct Piece {
    names: Vec<u8>,
    hashes: Vec<u8>,
    sketch: Vec<u8>,
    more: bool,
}

impl Telling {
    fn bytes(&self) -> usize {
        let others = match &self.crowd.others {
            Others::Hashes(hashes) => hashes.len() * size_of::<u64>(),
            Others::Sketch(sketch) => sketch.as_bytes().len(),
        };
        size_of::<Telling>()
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

impl Tellings {
    /// Whoever has not asked for the next piece for so long does not want it any more.
    pub(super) fn forget_old(&mut self, now: Millis) {
        let is_old = |telling: &Telling| now.since(telling.told_at) > 3 * CLUSTER_PRESENCE_MS_MAX;
        for (_, telling) in self.tellings.extract_if(.., |_, telling| is_old(telling)) {
            self.bytes -= telling.bytes();
        }
    }

    fn keep(&mut self, question: (u64, u64), telling: Telling) {
        self.bytes += telling.bytes();
        if let Some(before) = self.tellings.insert(question, telling) {
            self.bytes -= before.bytes();
        }
    }

    fn take(&mut self, question: (u64, u64)) -> Option<Telling> {
        let telling = self.tellings.remove(&question)?;
        self.bytes -= telling.bytes();
        Some(telling)
    }
}

impl Core {
    /// A home answers what another node has asked.
    pub(super) fn answer_presence(&mut self, question: Question, crowd: Crowd) {
        let Question { run, number, key } = question;
        let telling = Telling { crowd, names: 0, hashes: 0, told_at: self.now };
        let is_too_much = self.tellings.bytes + telling.bytes() > CLUSTER_TELLING_BYTES_MAX;
        let telling = match is_too_much && telling.bytes() > CLUSTER_PRESENT_BYTES {
            true => Telling { crowd: telling.crowd.sketched(key), ..telling },
            false => telling,
        };
        self.tell_piece((run, number), telling);
    }

    /// The asking node wants the next piece.
    pub(super) fn tell_more(&mut self, run: u64, number: u64) {
        if let Some(telling) = self.tellings.take((run, number)) {
            self.tell_piece((run, number), telling);
        }
    }

    fn tell_piece(&mut self, (run, number): (u64, u64), mut telling: Telling) {
        // Who asks does not wait for long.
        if !self.commands_up || self.pending.is_full() {
            return;
        }
        let Piece { names, hashes, sketch, more } = telling.piece();
        let users = telling.crowd.users;
        let present = Present { number, users, more, names: &names, hashes: &hashes, sketch: &sketch };
        let channel = self.names.node(run);
        self.say(&channel, &Record::Present(present));
        if more {
            telling.told_at = self.now;
            self.tellings.keep((run, number), telling);
        }
    }
}
