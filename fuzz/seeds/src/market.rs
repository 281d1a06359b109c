//! What happens to a keyed room, step by step.
//!
//! ```text
//!  reactors │ seed of the world's dice │ what the room is like (bits) │ steps
//!  step: kind in the low four bits, turns of workers behind it in the high four │ what the kind needs
//! ```
//!
//! Every input is a script: numbers are taken modulo what there is, and what is missing at the end is 0.

use crate::steps::{self, Head, Input};

/// Most steps of a script; the rest is not read.
pub const STEPS_MAX: usize = 200;

/// Most updates of a batch.
pub const BATCH_MAX: u8 = 12;

/// A script.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Market {
    /// Reactors of the node, 1 to 3.
    pub reactors: u8,
    /// What the world's dice begin with.
    pub seed: u8,
    /// What the room is like.
    pub room: Room,
    /// What happens, each with the number of turns that workers have behind it.
    pub steps: Vec<(u8, Step)>,
}

/// What the room and its node are like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Room {
    /// A mailbox holds one parcel.
    pub small_mailboxes: bool,
    /// It has places for fewer items than there are names.
    pub few_items: bool,
    /// Removals are forgotten soon.
    pub forgets: bool,
    /// It is told when nothing has been published for a while.
    pub gets_stale: bool,
    /// It keeps history too.
    pub keeps_history: bool,
    /// Time passes in long steps.
    pub jumpy: bool,
}

/// An update of an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Update {
    /// Which item.
    pub item: u8,
    /// Its kind in the low two bits, how large its content is in the others: see [`Update::kind`].
    pub what: u8,
    /// Its version, where it has one.
    pub version: i8,
}

/// What an update does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It gives the item a value.
    Value,
    /// The same, with a version.
    Versioned,
    /// It removes the item.
    Removal,
    /// The same, with a version.
    VersionedRemoval,
}

/// What a subscriber asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Mode in the lowest bit, interval in the next two; of a tune, what it leaves as it is in the three behind them.
    pub bits: u8,
    /// Which sort of filter.
    pub filter: u8,
    /// A bit for each item that is named, where items are.
    pub names: u8,
}

/// Something that happens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// One update.
    Publish(Update),
    /// Several at once.
    Batch {
        /// Whether items that are not named are removed.
        replace: bool,
        /// Which.
        updates: Vec<Update>,
    },
    /// A subscriber joins.
    Join {
        /// Which.
        guest: u8,
        /// What it wants.
        terms: Terms,
        /// Whether it comes with its position, if it has one.
        resumes: bool,
    },
    /// A subscriber asks for something else.
    Tune {
        /// Which.
        guest: u8,
        /// What it wants from now on.
        terms: Terms,
    },
    /// A subscriber leaves.
    Leave {
        /// Which.
        guest: u8,
    },
    /// The connection of a subscriber ends, and it has another one.
    Return {
        /// Which.
        guest: u8,
        /// The reactor that it comes to.
        reactor: u8,
        /// The sort of way that it comes over.
        way: u8,
    },
    /// A subscriber reads so many times 16 bytes; 0 is everything.
    Read {
        /// Which.
        guest: u8,
        /// How much.
        amount: u8,
    },
    /// Time passes.
    Pass {
        /// How much.
        ms: u8,
    },
    /// One worker has a turn.
    Turn {
        /// Which.
        reactor: u8,
    },
    /// Everything said arrives, and everything is judged.
    Rest,
}

impl Market {
    /// The script that any bytes are.
    pub fn read(input: &[u8]) -> Market {
        let (Head { reactors, seed, bits }, steps) = steps::read(input, STEPS_MAX, Step::read);
        Market { reactors, seed, room: Room::from_bits(bits), steps }
    }

    /// Its bytes.
    pub fn write(&self) -> Vec<u8> {
        let head = Head { reactors: self.reactors, seed: self.seed, bits: self.room.bits() };
        steps::write(&head, &self.steps, Step::write)
    }
}

impl Room {
    fn from_bits(bits: u8) -> Room {
        let is_set = |bit| steps::is_set(bits, bit);
        Room {
            small_mailboxes: is_set(0),
            few_items: is_set(1),
            forgets: is_set(2),
            gets_stale: is_set(3),
            keeps_history: is_set(4),
            jumpy: is_set(5),
        }
    }

    fn bits(self) -> u8 {
        let Room { small_mailboxes, few_items, forgets, gets_stale, keeps_history, jumpy } = self;
        let all = [small_mailboxes, few_items, forgets, gets_stale, keeps_history, jumpy];
        steps::bits(all)
    }
}

impl Update {
    /// What it does.
    pub fn kind(self) -> Kind {
        // Values come most often.
        match self.what % 8 {
            0..=3 => Kind::Value,
            4 | 5 => Kind::Versioned,
            6 => Kind::Removal,
            _ => Kind::VersionedRemoval,
        }
    }

    /// Bytes that its content has beside a number.
    pub fn padding(self) -> usize {
        [0, 0, 0, 10, 100, 300, 1_000, 3_000][usize::from(self.what >> 3) % 8]
    }

    fn read(input: &mut Input<'_>) -> Update {
        Update { item: input.byte(), what: input.byte(), version: input.byte().cast_signed() }
    }

    fn bytes(self) -> [u8; 3] {
        [self.item, self.what, self.version.cast_unsigned()]
    }
}

impl Terms {
    fn read(input: &mut Input<'_>) -> Terms {
        Terms { bits: input.byte(), filter: input.byte(), names: input.byte() }
    }

    fn bytes(self) -> [u8; 3] {
        [self.bits, self.filter, self.names]
    }
}

impl Step {
    fn read(kind: u8, input: &mut Input<'_>) -> Step {
        match kind {
            0 | 1 => Step::Publish(Update::read(input)),
            2 | 3 => {
                let count = input.byte() % (BATCH_MAX + 1);
                Step::Batch { replace: kind == 3, updates: (0..count).map(|_| Update::read(input)).collect() }
            }
            4 | 5 => Step::Join { guest: input.byte(), terms: Terms::read(input), resumes: kind == 5 },
            6 => Step::Tune { guest: input.byte(), terms: Terms::read(input) },
            7 => Step::Leave { guest: input.byte() },
            8 => Step::Return { guest: input.byte(), reactor: input.byte(), way: input.byte() },
            9..=11 => Step::Read { guest: input.byte(), amount: input.byte() },
            12 | 13 => Step::Pass { ms: input.byte() },
            14 => Step::Turn { reactor: input.byte() },
            _ => Step::Rest,
        }
    }

    fn write(&self, turns: u8, out: &mut Vec<u8>) {
        let mut kind = |kind: u8, needs: &[u8]| {
            out.push(turns << 4 | kind);
            out.extend_from_slice(needs);
        };
        match self {
            Step::Publish(update) => kind(0, &update.bytes()),
            Step::Batch { replace, updates } => {
                let count = u8::try_from(updates.len()).expect("a batch of a script is short");
                kind(if *replace { 3 } else { 2 }, &[count]);
                updates.iter().for_each(|update| out.extend(update.bytes()));
            }
            Step::Join { guest, terms, resumes } => {
                kind(if *resumes { 5 } else { 4 }, &[&[*guest][..], &terms.bytes()].concat());
            }
            Step::Tune { guest, terms } => kind(6, &[&[*guest][..], &terms.bytes()].concat()),
            Step::Leave { guest } => kind(7, &[*guest]),
            Step::Return { guest, reactor, way } => kind(8, &[*guest, *reactor, *way]),
            Step::Read { guest, amount } => kind(9, &[*guest, *amount]),
            Step::Pass { ms } => kind(12, &[*ms]),
            Step::Turn { reactor } => kind(14, &[*reactor]),
            Step::Rest => kind(15, &[]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let update = Update { item: 1, what: 0x1C, version: -3 };
        let terms = Terms { bits: 5, filter: 2, names: 0x81 };
        let steps = [
            Step::Publish(update),
            Step::Batch { replace: false, updates: vec![] },
            Step::Batch { replace: true, updates: vec![update; usize::from(BATCH_MAX)] },
            Step::Join { guest: 1, terms, resumes: true },
            Step::Join { guest: 2, terms, resumes: false },
            Step::Tune { guest: 3, terms },
            Step::Leave { guest: 3 },
            Step::Return { guest: 1, reactor: 2, way: 1 },
            Step::Read { guest: 1, amount: 0 },
            Step::Pass { ms: 255 },
            Step::Turn { reactor: 2 },
            Step::Rest,
        ];
        let steps = steps.into_iter().enumerate().map(|(at, step)| (at as u8, step)).collect();
        let room = Room { forgets: true, keeps_history: true, ..Room::default() };
        let market = Market { reactors: 3, seed: 7, room, steps };
        assert_eq!(Market::read(&market.write()), market);
    }

    #[test]
    fn a_script_may_end_anywhere() {
        assert_eq!(Market::read(&[]).steps, []);
        let cut = Market::read(&[0, 0, 0, 0x10]);
        assert_eq!(cut.steps, [(1, Step::Publish(Update { item: 0, what: 0, version: 0 }))]);
    }
}
