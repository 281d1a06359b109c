//! Updates of items as a publisher's reactor composes them, on their way to the room's home.

use std::collections::HashSet;
use std::ops::Range;

use super::items::ItemState;
use crate::router::history::StreamPosition;

/// Updates of items of one room, of one command or of several: what follows `offset` in each message is composed already.
#[derive(Clone, Debug, Default)]
pub struct ItemUpdates {
    kind: CommandKind,
    text: Vec<u8>,
    updates: Vec<Composed>,
    /// Items that are not named are removed, with this behind `offset`.
    removal: Option<Range<u32>>,
}

#[derive(Clone, Debug)]
struct Composed {
    item: Range<u32>,
    tail: Range<u32>,
    version: Option<i64>,
    state: ItemState,
}

/// One update of [`ItemUpdates`].
#[derive(Clone, Copy, Debug)]
pub struct ItemUpdate<'a> {
    /// Which item.
    pub item: &'a str,
    /// The version that its publisher gives it.
    pub version: Option<i64>,
    /// Whether the item has a value from now on.
    pub state: ItemState,
    /// Of the message, what stands behind `offset`; of a raw room, the payload.
    pub tail: &'a [u8],
}

impl ItemUpdate<'_> {
    /// Whether it is dropped, where the item has this version.
    pub(super) fn is_stale(&self, version_before: Option<i64>) -> bool {
        matches!((version_before, self.version), (Some(before), Some(version)) if version <= before)
    }
}

impl ItemUpdates {
    /// None, in the same buffers, of a command of this kind.
    pub fn begin(&mut self, kind: CommandKind) {
        self.kind = kind;
        self.text.clear();
        self.updates.clear();
        self.removal = None;
    }

    /// What kind of command they are of.
    pub fn kind(&self) -> CommandKind {
        self.kind
    }

    /// One more. `tail` appends what follows `offset`.
    pub fn push(&mut self, item: &str, version: Option<i64>, state: ItemState, tail: impl FnOnce(&mut Vec<u8>)) {
        let item = self.append(|text| text.extend_from_slice(item.as_bytes()));
        let tail = self.append(tail);
        self.updates.push(Composed { item, tail, version, state });
    }

    /// Those of several commands, as one command each.
    pub(super) fn one_by_one(&self) -> impl Iterator<Item = ItemUpdates> {
        self.iter().map(|update| {
            let mut alone = ItemUpdates::default();
            alone.begin(CommandKind::One);
            alone.push(update.item, update.version, update.state, |out| out.extend_from_slice(update.tail));
            alone
        })
    }

    /// Items that are not named are removed in the same step.
    pub fn replace(&mut self, tail: impl FnOnce(&mut Vec<u8>)) {
        self.removal = Some(self.append(tail));
    }

    fn append(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> Range<u32> {
        let start = self.text.len() as u32;
        write(&mut self.text);
        start..self.text.len() as u32
    }

    /// Forgets them, and gives back buffers that take more than so many bytes.
    pub fn shrink(&mut self, bytes_max: usize) {
        if self.text.capacity() + self.updates.capacity() * size_of::<Composed>() > bytes_max {
            *self = ItemUpdates::default();
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.updates.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.updates.is_empty()
    }

    /// Bytes of all of them.
    pub fn bytes(&self) -> usize {
        self.text.len() + size_of_val(&self.updates[..])
    }

    /// The updates, in order.
    pub fn iter(&self) -> impl Iterator<Item = ItemUpdate<'_>> {
        self.updates.iter().map(|Composed { item, tail, version, state }| ItemUpdate {
            item: std::str::from_utf8(self.text_of(item)).expect("it was a string"),
            version: *version,
            state: *state,
            tail: self.text_of(tail),
        })
    }

    /// The items that they name.
    pub(super) fn names(&self) -> HashSet<&str> {
        self.iter().map(|update| update.item).collect()
    }

    /// Where items that are not named are removed, what follows `offset` then.
    pub fn removal(&self) -> Option<&[u8]> {
        self.removal.as_ref().map(|range| self.text_of(range))
    }

    fn text_of(&self, range: &Range<u32>) -> &[u8] {
        &self.text[range.start as usize..range.end as usize]
    }
}

/// What has become of a command's updates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Updated {
    /// Where the last one is, or, where all were stale, the room.
    pub position: StreamPosition,
    /// Which of them were dropped.
    pub stale: StaleUpdates,
}

/// Whether updates are a command's only one, or its list, or of several commands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CommandKind {
    /// One.
    #[default]
    One,
    /// A list, of which one is named by its index.
    Many,
    /// Several, of one update each, that came one behind the other: what is refused of them is refused alone.
    Each,
}

/// Updates that were not above their items' versions, and were dropped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StaleUpdates {
    /// Whether the only one was.
    One(bool),
    /// Their indexes in the command, or among the commands, in order.
    Of(Box<[u32]>),
}

impl StaleUpdates {
    /// Their indexes, in order.
    pub(in crate::router) fn indexes(&self) -> &[u32] {
        match self {
            StaleUpdates::One(true) => &[0],
            StaleUpdates::One(false) => &[],
            StaleUpdates::Of(indexes) => indexes,
        }
    }
}

impl CommandKind {
    /// From the indexes of those that were dropped.
    pub fn stale(self, indexes: Vec<u32>) -> StaleUpdates {
        match self {
            CommandKind::One => StaleUpdates::One(!indexes.is_empty()),
            CommandKind::Many | CommandKind::Each => StaleUpdates::Of(indexes.into()),
        }
    }
}

/// A command's updates are refused, all of them: the room, or the node, would hold more items, or more bytes of them, than
/// it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooManyItems {
    /// The index of the first with which it would, where the command has a list.
    pub index: Option<u32>,
}
