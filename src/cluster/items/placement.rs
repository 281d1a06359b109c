//! Which of the records of one message counts, and where its place is.

use super::super::record::{line, number};
use super::record::ItemRecord;

/// What a placement begins with.
pub(in super::super) const PLACEMENT: u8 = b'P';

/// What the script has made of records that come in the message behind this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placement<'a> {
    /// The room's epoch.
    pub epoch: &'a str,
    /// The offset of the first update.
    pub first: u64,
    segments: &'a [u8],
}

/// An update with its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placed<'a> {
    /// The room's count of all updates.
    pub offset: u64,
    /// The item's own count of its updates.
    pub seq: u64,
    /// The update.
    pub record: ItemRecord<'a>,
    /// The same as bytes.
    pub bytes: &'a [u8],
}

/// The records that came, each as bytes.
pub fn read_records(mut bytes: &[u8]) -> impl Iterator<Item = (ItemRecord<'_>, &[u8])> {
    std::iter::from_fn(move || next_record(&mut bytes))
}

fn next_record<'a>(bytes: &mut &'a [u8]) -> Option<(ItemRecord<'a>, &'a [u8])> {
    let (record, behind) = ItemRecord::read(bytes)?;
    let own = &bytes[..bytes.len() - behind.len()];
    *bytes = behind;
    Some((record, own))
}

impl<'a> Placement<'a> {
    /// As the script writes it; `None` where it has not.
    pub fn read(bytes: &'a [u8]) -> Option<Placement<'a>> {
        let (epoch, rest) = line(bytes.strip_prefix(&[PLACEMENT])?)?;
        let (first, segments) = number(rest)?;
        Some(Placement { epoch, first, segments })
    }

    /// The updates that count, in order, of these records. `None` where placement and records do not belong together.
    pub fn place(self, mut records: &'a [u8]) -> Option<Vec<Placed<'a>>> {
        let (mut placed, mut segments) = (Vec::new(), self.segments);
        while let Some((&kind, rest)) = segments.split_first() {
            let (count, mut rest) = rest.split_first_chunk::<4>()?;
            for _ in 0..u32::from_be_bytes(*count) {
                let (seq, behind) = number(rest)?;
                rest = behind;
                let (record, bytes) = next_record(if kind == 0 { &mut records } else { &mut rest })?;
                if seq > 0 {
                    let offset = self.first.checked_add(placed.len() as u64)?;
                    placed.push(Placed { offset, seq, record, bytes });
                }
            }
            segments = rest;
        }
        records.is_empty().then_some(placed)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::record::UpdateRule;
    use super::*;
    use crate::router::ItemState;

    fn record(item: &str) -> Vec<u8> {
        let mut bytes = Vec::new();
        let (rule, tail) = (UpdateRule::Always, &b",\"time\":1}"[..]);
        ItemRecord { item, state: ItemState::Present, rule, exclude: None, tail }.write(&mut bytes);
        bytes
    }

    #[test]
    fn what_counts_gets_one_offset_after_the_other() {
        let records: Vec<u8> = ["A", "B", "C"].into_iter().flat_map(record).collect();
        let seqs = |seqs: &[u64]| seqs.iter().flat_map(|seq| seq.to_be_bytes()).collect::<Vec<u8>>();
        let placement = [
            b"Pe\n",
            &7_u64.to_be_bytes()[..],
            &[0, 0, 0, 0, 2],
            &seqs(&[4, 0]),
            &[1, 0, 0, 0, 1],
            &seqs(&[9]),
            &record("X"),
            &[0, 0, 0, 0, 1],
            &seqs(&[1]),
        ]
        .concat();
        let placement = Placement::read(&placement).expect("a placement");
        let placed = placement.place(&records).expect("they belong together");
        let told: Vec<_> = placed.iter().map(|placed| (placed.offset, placed.record.item, placed.seq)).collect();
        assert_eq!(told, [(7, "A", 4), (8, "X", 9), (9, "C", 1)]);
        assert_eq!(placed[1].bytes, record("X"));
        assert_eq!(placement.place(&records[1..]), None);
        assert_eq!(placement.place(&[&records[..], &record("D")].concat()), None, "one more than it is about");
    }

    proptest! {
        #[test]
        fn whatever_comes_is_read_or_passed_over(
            segments in proptest::collection::vec(any::<u8>(), 8..60),
            records in proptest::collection::vec(any::<u8>(), 0..60),
        ) {
            let placement = [b"Pe\n", &segments[..]].concat();
            let placed = Placement::read(&placement).and_then(|placement| placement.place(&records));
            prop_assert!(placed.is_none_or(|placed| placed.len() < segments.len()));
        }
    }
}
