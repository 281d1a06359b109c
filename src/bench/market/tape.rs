//! What is published: which item is updated next, and what with.

use super::quote::{MARK_BYTES, Mark, item_name};
use crate::bench::Options;
use crate::bench::limits::SEQUENCE_MAX;
use crate::bench::scenario::Payload;

/// What a delivered value has beside its content, with a seq and an offset of usual length.
const ENVELOPE: &str = r#"{"type":"room_msg","roomId":"r000000","item":"i000000","seq":100000,"offset":10000000,"from":"p000000","content":,"time":1700000000000}"#;

/// Every update of every item, in the order in which they are published.
#[derive(Debug)]
pub(super) struct Tape {
    /// Updates of each item so far.
    published: Vec<u32>,
    /// The items of each publisher, in the order of their turns; which of them is next.
    turns: Vec<(Vec<u32>, usize)>,
    payload: Payload,
    /// Letters behind a value's mark.
    filler: String,
    removals: u32,
}

/// An update.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Update {
    /// The number of the item.
    pub(super) item: u32,
    /// The number of the update among those of the item, from 0.
    pub(super) number: u32,
}

impl Tape {
    /// Nothing is published yet.
    pub(super) fn new(options: &Options) -> Tape {
        let beside = ENVELOPE.len() + 2 + MARK_BYTES + if options.payload == Payload::Json { JSON_BYTES } else { 0 };
        Tape {
            published: vec![0; options.market.instruments],
            turns: turns(options.market.instruments, options.publishers),
            payload: options.payload,
            filler: "x".repeat(options.payload_bytes.saturating_sub(beside)),
            removals: options.market.removals,
        }
    }

    /// Of so many items and one publisher, for tests of others.
    #[cfg(test)]
    pub(super) fn of_items(instruments: usize) -> Tape {
        let (payload, filler) = (Payload::Filler, String::new());
        Tape { published: vec![0; instruments], turns: turns(instruments, 1), payload, filler, removals: 0 }
    }

    /// The next update of a publisher; `None` where the item has had as many as can be numbered.
    pub(super) fn take(&mut self, publisher: usize) -> Option<Update> {
        let (items, next) = &mut self.turns[publisher];
        let item = items[*next];
        let number = self.published[item as usize];
        if number == SEQUENCE_MAX {
            return None;
        }
        self.published[item as usize] += 1;
        *next = (*next + 1) % items.len();
        Some(Update { item, number })
    }

    /// The first update of every item, before any other is taken.
    pub(super) fn take_first(&mut self) -> impl Iterator<Item = Update> + use<> {
        self.published.fill(1);
        (0..self.published.len() as u32).map(|item| Update { item, number: 0 })
    }

    /// How many updates an item has had.
    pub(super) fn published(&self, item: u32) -> u32 {
        self.published[item as usize]
    }

    /// Items.
    pub(super) fn instruments(&self) -> u32 {
        self.published.len() as u32
    }

    /// Whether some updates remove their items.
    pub(super) fn has_removals(&self) -> bool {
        self.removals > 0
    }

    /// Whether an update removes its item.
    pub(super) fn is_removal(&self, number: u32) -> bool {
        self.removals > 0 && number % self.removals == self.removals - 1
    }

    /// Appends the fields of an update: its item, and its content or that it is a removal.
    pub(super) fn write(&self, update: Update, at_us: u64, out: &mut String) {
        out.push_str(r#""item":""#);
        out.push_str(&item_name(update.item));
        if self.is_removal(update.number) {
            out.push_str(r#"","remove":true"#);
        } else {
            out.push_str(r#"","content":"#);
            self.write_content(update, at_us, out);
        }
    }

    /// Appends an update's content.
    fn write_content(&self, Update { item, number }: Update, at_us: u64, out: &mut String) {
        let mark = Mark { item, update: number, at_us };
        match self.payload {
            Payload::Filler => {
                out.push('"');
                mark.write(out);
            }
            Payload::Json => {
                // Prices that differ from update to update, and not by much.
                let cents = 10_000 + item % 977 * 10 + number.wrapping_mul(2_654_435_761) % 97;
                let (bid, ask, size) = (cents, cents + 1 + number % 4, 100 * (1 + number % 9));
                let money = |cents: u32| format!("{:04}.{:02}", cents / 100, cents % 100);
                out.push_str(&format!(
                    r#"{{"bid":"{}","ask":"{}","bidSize":{size:03},"askSize":{size:03},"id":""#,
                    money(bid),
                    money(ask)
                ));
                mark.write(out);
                out.push_str(r#"","venue":""#);
            }
        }
        out.push_str(&self.filler);
        out.push_str(if self.payload == Payload::Json { r#""}"# } else { "\"" });
    }
}

/// The items of each publisher, in no order that items of one subscriber have in common, and the same in every run.
fn turns(instruments: usize, publishers: usize) -> Vec<(Vec<u32>, usize)> {
    let mut random = fastrand::Rng::with_seed(SEED);
    let mut of = |publisher: usize| {
        let mut items: Vec<u32> = (publisher..instruments).step_by(publishers).map(|item| item as u32).collect();
        random.shuffle(&mut items);
        (items, 0)
    };
    (0..publishers).map(&mut of).collect()
}

/// From which the order of items is made: any number would do.
const SEED: u64 = 0x7A9E;

/// What a content of JSON has beside a mark, two quotes and filler.
const JSON_BYTES: usize =
    r#"{"bid":"0000.00","ask":"0000.00","bidSize":000,"askSize":000,"id":"","venue":""}"#.len() - 2;

#[cfg(test)]
mod tests {
    use super::*;

    fn tape(instruments: usize, publishers: usize, payload: Payload, removals: u32) -> Tape {
        let (published, turns) = (vec![0; instruments], turns(instruments, publishers));
        Tape { published, turns, payload, filler: "x".repeat(20), removals }
    }

    #[test]
    fn each_item_has_one_publisher_and_its_turn() {
        let mut tape = tape(5, 2, Payload::Filler, 0);
        for (publisher, own) in [(0, &[0, 2, 4][..]), (1, &[1, 3])] {
            for round in 0..3 {
                let mut taken: Vec<_> = own.iter().map(|_| tape.take(publisher).unwrap()).collect();
                assert!(taken.iter().all(|update| update.number == round));
                taken.sort_by_key(|update| update.item);
                assert!(taken.iter().map(|update| &update.item).eq(own), "{taken:?}");
            }
        }
        assert_eq!((0..5).map(|item| tape.published(item)).collect::<Vec<_>>(), [3; 5]);
    }

    #[test]
    fn an_update_is_json_with_its_mark_or_a_removal() {
        for payload in [Payload::Filler, Payload::Json] {
            let tape = tape(5, 1, payload, 3);
            let mut text = String::from("{");
            tape.write(Update { item: 4, number: 7 }, 1_700_000_000_000_000, &mut text);
            let parsed: serde_json::Value = serde_json::from_str(&format!("{text}}}")).unwrap();
            assert_eq!(parsed["item"], "i000004");
            assert!(parsed["content"].to_string().contains("#000004:00000007@1700000000000000"), "{text}");
            let mut text = String::new();
            tape.write(Update { item: 4, number: 8 }, 1, &mut text);
            assert_eq!(text, r#""item":"i000004","remove":true"#);
        }
    }

    #[test]
    fn a_content_has_the_length_that_was_reckoned_with() {
        for (payload, beside) in [(Payload::Filler, 0), (Payload::Json, JSON_BYTES)] {
            let mut text = String::new();
            tape(5, 1, payload, 0).write_content(Update { item: 4, number: 7 }, 1, &mut text);
            assert_eq!(text.len(), 2 + MARK_BYTES + 20 + beside, "{text}");
        }
    }
}
