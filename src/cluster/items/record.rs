//! One update of one item as bytes, and an item as it is stored.

use super::super::record::{number, read_conn, write_conn};
use crate::ids::ConnId;
use crate::router::ItemState;

/// The item has no value from here on.
const REMOVED: u8 = 1;
/// The publisher gives a version.
const VERSION: u8 = 2;
/// It counts only while the item's last update is at an offset.
const CONDITION: u8 = 4;
/// A connection is not to get it.
const EXCLUDED: u8 = 8;

/// What the script is told of a record beside its bytes.
pub(super) const SCRIPT_FLAGS: u8 = REMOVED | VERSION | CONDITION;

/// Bytes that an entry of a history begins with where it is an update of an item. No node's run is this number.
const ENTRY_MARK: u64 = u64::MAX;

/// See the module's documentation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ItemRecord<'a> {
    /// Which item: at most 255 bytes.
    pub item: &'a str,
    /// Whether it has a value from here on.
    pub state: ItemState,
    /// When it counts.
    pub rule: UpdateRule,
    /// A connection that is not to get it where it gets each update, with its node's run.
    pub exclude: Option<(u64, ConnId)>,
    /// Of the message, what stands behind `offset`; of a raw room, the payload.
    pub tail: &'a [u8],
}

/// When an update counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpdateRule {
    /// Always.
    Always,
    /// Where the item has no version that is as high.
    AboveVersion(i64),
    /// While the item's last update is the one at this offset. It is not told of where it does not.
    AtOffset(u64),
}

impl<'a> ItemRecord<'a> {
    /// Appends the record; its flags, as the script is told of them.
    ///
    /// # Panics
    /// Where the name is too long.
    pub fn write(&self, out: &mut Vec<u8>) -> u8 {
        let at = out.len();
        out.extend_from_slice(&[0; 4]);
        out.push(u8::try_from(self.item.len()).expect("an item's name is short"));
        out.extend_from_slice(self.item.as_bytes());
        let flags = self.flags();
        self.write_rest(flags, out);
        let length = u32::try_from(out.len() - at - 4).expect("a record is shorter than 4 GiB");
        out[at..at + 4].copy_from_slice(&length.to_be_bytes());
        flags & SCRIPT_FLAGS
    }

    /// What stands in the record behind the name.
    pub(super) fn rest(&self) -> Vec<u8> {
        let mut rest = Vec::with_capacity(32 + self.tail.len());
        self.write_rest(self.flags(), &mut rest);
        rest
    }

    fn flags(&self) -> u8 {
        let rule = match self.rule {
            UpdateRule::Always => 0,
            UpdateRule::AboveVersion(_) => VERSION,
            UpdateRule::AtOffset(_) => CONDITION,
        };
        let removed = match self.state {
            ItemState::Present => 0,
            ItemState::Removed => REMOVED,
        };
        rule | removed | if self.exclude.is_some() { EXCLUDED } else { 0 }
    }

    fn write_rest(&self, flags: u8, out: &mut Vec<u8>) {
        out.push(flags);
        match self.rule {
            UpdateRule::Always => {}
            UpdateRule::AboveVersion(version) => out.extend_from_slice(&version_bytes(version)),
            UpdateRule::AtOffset(offset) => out.extend_from_slice(&offset.to_be_bytes()),
        }
        if let Some((run, conn)) = self.exclude {
            out.extend_from_slice(&run.to_be_bytes());
            write_conn(out, conn);
        }
        out.extend_from_slice(self.tail);
    }

    /// The record at the front, and what is behind it; `None` where there is none.
    pub fn read(bytes: &'a [u8]) -> Option<(ItemRecord<'a>, &'a [u8])> {
        let (length, rest) = bytes.split_first_chunk::<4>()?;
        let (record, behind) = rest.split_at_checked(u32::from_be_bytes(*length) as usize)?;
        let (&length, rest) = record.split_first()?;
        let (item, rest) = rest.split_at_checked(usize::from(length))?;
        let (&flags, rest) = rest.split_first()?;
        let (rule, rest) = match flags & (VERSION | CONDITION) {
            0 => (UpdateRule::Always, rest),
            VERSION => {
                let (version, rest) = number(rest)?;
                (UpdateRule::AboveVersion(version_of(version)), rest)
            }
            CONDITION => {
                let (offset, rest) = number(rest)?;
                (UpdateRule::AtOffset(offset), rest)
            }
            _ => return None,
        };
        let (exclude, tail) = match flags & EXCLUDED {
            0 => (None, rest),
            _ => {
                let (run, rest) = number(rest)?;
                let (conn, rest) = read_conn(rest)?;
                (Some((run, conn)), rest)
            }
        };
        let state = if flags & REMOVED == 0 { ItemState::Present } else { ItemState::Removed };
        Some((ItemRecord { item: std::str::from_utf8(item).ok()?, state, rule, exclude, tail }, behind))
    }

    /// Its version, where it has one.
    pub fn version(&self) -> Option<i64> {
        match self.rule {
            UpdateRule::AboveVersion(version) => Some(version),
            UpdateRule::Always | UpdateRule::AtOffset(_) => None,
        }
    }
}

/// In the order of these bytes, versions are in theirs.
fn version_bytes(version: i64) -> [u8; 8] {
    (version.cast_unsigned() ^ (1 << 63)).to_be_bytes()
}

fn version_of(number: u64) -> i64 {
    (number ^ (1 << 63)).cast_signed()
}

/// What Redis keeps of an item beside its record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoredItem {
    /// The offset of its last update.
    pub offset: u64,
    /// When that was, in milliseconds since 1970.
    pub at_ms: u64,
    /// The item's own count of its updates.
    pub seq: u64,
    /// Its version, if it has one.
    pub version: Option<i64>,
}

impl StoredItem {
    /// As the script stores it; `None` where it has not.
    pub fn read(bytes: &[u8]) -> Option<StoredItem> {
        let (offset, rest) = number(bytes)?;
        let (at_ms, rest) = number(rest)?;
        let (seq, rest) = number(rest)?;
        let (&state, rest) = rest.split_first()?;
        let (_, rest) = rest.split_first_chunk::<4>()?;
        let version = if state & VERSION == 0 { None } else { Some(version_of(number(rest)?.0)) };
        Some(StoredItem { offset, at_ms, seq, version })
    }
}

/// An update in the stream of a history.
pub fn write_entry(seq: u64, record: &[u8]) -> Vec<u8> {
    [&ENTRY_MARK.to_be_bytes(), &seq.to_be_bytes(), record].concat()
}

/// The seq and the record of an entry of a history; `None` where that is no update of an item.
pub fn read_entry(bytes: &[u8]) -> Option<(u64, ItemRecord<'_>)> {
    let (mark, rest) = number(bytes)?;
    let (seq, rest) = number(rest)?;
    let (record, behind) = ItemRecord::read(rest)?;
    (mark == ENTRY_MARK && behind.is_empty()).then_some((seq, record))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ids::{ReactorId, Slot};

    const CONN: ConnId = ConnId { reactor: ReactorId(1), slot: Slot(2), generation: 3 };

    fn rules() -> impl Strategy<Value = UpdateRule> {
        prop_oneof![
            Just(UpdateRule::Always),
            any::<i64>().prop_map(UpdateRule::AboveVersion),
            any::<u64>().prop_map(UpdateRule::AtOffset),
        ]
    }

    proptest! {
        #[test]
        fn a_record_is_read_as_it_was_written(
            item in ".{1,40}", is_removed: bool, rule in rules(), run in proptest::option::of(any::<u64>()),
            tail in proptest::collection::vec(any::<u8>(), 0..50), behind in proptest::collection::vec(any::<u8>(), 0..9),
            seq in 1_u64..,
        ) {
            let state = if is_removed { ItemState::Removed } else { ItemState::Present };
            let exclude = run.map(|run| (run, CONN));
            let record = ItemRecord { item: &item, state, rule, exclude, tail: &tail };
            let mut bytes = Vec::new();
            record.write(&mut bytes);
            let entry = write_entry(seq, &bytes);
            prop_assert_eq!(read_entry(&entry), Some((seq, record)));
            bytes.extend_from_slice(&behind);
            prop_assert_eq!(ItemRecord::read(&bytes), Some((record, &behind[..])));
        }

        #[test]
        fn versions_are_in_the_order_of_their_bytes(one: i64, other: i64) {
            prop_assert_eq!(one.cmp(&other), version_bytes(one).cmp(&version_bytes(other)));
            prop_assert_eq!(version_of(u64::from_be_bytes(version_bytes(one))), one);
        }

        #[test]
        fn whatever_comes_is_read_or_passed_over(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            if let Some((record, behind)) = ItemRecord::read(&bytes) {
                prop_assert!(record.item.len() + record.tail.len() + behind.len() < bytes.len());
            }
            let _ = (read_entry(&bytes), StoredItem::read(&bytes));
        }
    }
}
