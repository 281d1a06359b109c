//! What one call of the script that updates items is made of: the commands of many publishers to one room.

use foldhash::fast::FixedState;
use hashbrown::HashTable;
use std::hash::BuildHasher;

use super::record::{ItemRecord, UpdateRule};
use crate::ids::ConnId;
use crate::router::{ItemState, ItemUpdates};

/// What the records begin with, as they are published.
pub(in super::super) const RECORDS: u8 = b'V';

/// A command is known by a key.
const KEY: u8 = 1;
/// Items that a command does not name are removed.
const REPLACES: u8 = 2;

/// Bytes of a record in front of the name.
const NAME_AT: usize = 5;

/// The commands, as the script takes them. An update names its item by number, so a name goes there once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ItemsCall {
    /// Of each command its flags and how many updates it has.
    pub(in super::super) commands: Vec<u8>,
    /// Of each update the number of its item's name, its flags, and the bytes of its record.
    pub(in super::super) updates: Vec<u8>,
    /// The records, behind what they are published with.
    pub(in super::super) records: Vec<u8>,
    /// Of each command that replaces what stands behind the name in the records of its removals.
    pub(in super::super) removals: Vec<Vec<u8>>,
    /// Of each command that has one its key.
    pub(in super::super) keys: Vec<Box<str>>,
    names: Vec<Name>,
    count: usize,
}

/// Where a name stands in the records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Name {
    at: u32,
    length: u8,
}

/// One command of a call.
#[derive(Clone, Copy, Debug)]
pub struct NewItems<'a> {
    /// Its updates.
    pub updates: &'a ItemUpdates,
    /// A connection that is not to get them where it gets each update, with its node's run.
    pub exclude: Option<(u64, ConnId)>,
    /// By which a retry is known.
    pub key: Option<&'a str>,
}

/// A call that is being put together. The table is built again from the names.
#[derive(Debug)]
pub(in super::super) struct ItemsGather {
    call: ItemsCall,
    table: HashTable<u32>,
    hasher: FixedState,
}

impl ItemsCall {
    /// None of anything.
    fn new() -> ItemsCall {
        ItemsCall {
            commands: Vec::new(),
            updates: Vec::new(),
            records: vec![RECORDS],
            removals: Vec::new(),
            keys: Vec::new(),
            names: Vec::new(),
            count: 0,
        }
    }

    /// Commands in it.
    pub fn count(&self) -> usize {
        self.count
    }

    /// The names of items, each once, in the order of their numbers.
    pub(in super::super) fn names(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        self.names.iter().map(|name| &self.records[name.at as usize..][..usize::from(name.length)])
    }

    /// About what it takes.
    pub(in super::super) fn bytes(&self) -> usize {
        let removals: usize = self.removals.iter().map(Vec::len).sum();
        let (keys, names) = (self.keys.iter().map(|key| key.len() + 32).sum::<usize>(), self.names.len() * 32);
        self.commands.len() + self.updates.len() + self.records.len() + removals + keys + names
    }

    /// Forgets all that is not needed to understand the answer.
    pub(in super::super) fn strip(&mut self) {
        let count = self.count;
        *self = ItemsCall { count, ..ItemsCall::new() };
    }
}

/// One command of a call, as it is read from it.
#[cfg(any(test, debug_assertions))]
#[derive(Clone, Debug)]
pub struct CallCommand<'a> {
    /// Its records.
    pub records: Vec<&'a [u8]>,
    /// By which a retry is known.
    pub key: Option<&'a str>,
    /// Where items that it does not name are removed, what stands behind the name in the records of that.
    pub removal: Option<&'a [u8]>,
}

#[cfg(any(test, debug_assertions))]
impl ItemsCall {
    /// What it says, command by command; for tests.
    pub fn read(&self) -> Vec<CallCommand<'_>> {
        let mut records = super::read_records(&self.records[1..]).map(|(_, bytes)| bytes);
        let (mut keys, mut removals) = (self.keys.iter(), self.removals.iter());
        let mut commands = Vec::new();
        for command in self.commands.chunks_exact(5) {
            let count = u32::from_be_bytes([command[1], command[2], command[3], command[4]]);
            let records = records.by_ref().take(count as usize).collect();
            let key = (command[0] & KEY != 0).then(|| keys.next()).flatten().map(|key| &**key);
            let removal = (command[0] & REPLACES != 0).then(|| removals.next()).flatten().map(|rest| &rest[..]);
            commands.push(CallCommand { records, key, removal });
        }
        commands
    }
}

impl ItemsGather {
    /// Nothing yet; `seed` is not to be known outside.
    pub(in super::super) fn new(seed: u64) -> ItemsGather {
        ItemsGather { call: ItemsCall::new(), table: HashTable::new(), hasher: FixedState::with_seed(seed) }
    }

    /// One more command.
    pub(in super::super) fn push(&mut self, new: &NewItems<'_>) {
        let NewItems { updates, exclude, key } = *new;
        for update in updates.iter() {
            let rule = update.version.map_or(UpdateRule::Always, UpdateRule::AboveVersion);
            self.push_record(&ItemRecord { item: update.item, state: update.state, rule, exclude, tail: update.tail });
        }
        let removal = updates.removal().map(|tail| {
            ItemRecord { item: "", state: ItemState::Removed, rule: UpdateRule::Always, exclude, tail }.rest()
        });
        let flags = if key.is_some() { KEY } else { 0 } | if removal.is_some() { REPLACES } else { 0 };
        self.push_command(flags, updates.len());
        self.call.removals.extend(removal);
        self.call.keys.extend(key.map(Box::from));
    }

    /// A command that removes items, each while its last update is the one at an offset.
    pub(in super::super) fn push_expiry<'a>(
        &mut self,
        items: impl ExactSizeIterator<Item = (&'a str, u64)>,
        tail: &[u8],
    ) {
        let count = items.len();
        for (item, offset) in items {
            let (state, rule) = (ItemState::Removed, UpdateRule::AtOffset(offset));
            self.push_record(&ItemRecord { item, state, rule, exclude: None, tail });
        }
        self.push_command(0, count);
    }

    /// About what it takes.
    pub(in super::super) fn bytes(&self) -> usize {
        self.call.bytes()
    }

    /// All of it.
    pub(in super::super) fn finish(self) -> ItemsCall {
        self.call
    }

    fn push_command(&mut self, flags: u8, updates: usize) {
        let updates = u32::try_from(updates).expect("a command has fewer than 2^32 updates");
        self.call.commands.push(flags);
        self.call.commands.extend_from_slice(&updates.to_be_bytes());
        self.call.count += 1;
    }

    fn push_record(&mut self, record: &ItemRecord<'_>) {
        let at = self.call.records.len();
        let flags = record.write(&mut self.call.records);
        let length = self.call.records.len() - at;
        let number = self.number_of(record.item, at + NAME_AT);
        let updates = &mut self.call.updates;
        updates.extend_from_slice(&number.to_be_bytes());
        updates.push(flags);
        updates.extend_from_slice(&u32::try_from(length).expect("a call is shorter than 4 GiB").to_be_bytes());
    }

    /// The number of a name that stands at a place in the records, from 1.
    fn number_of(&mut self, item: &str, at: usize) -> u32 {
        let ItemsGather { call: ItemsCall { names, records, .. }, table, hasher } = self;
        let hash = hasher.hash_one(item.as_bytes());
        let name = |number: u32| {
            let name = names[number as usize - 1];
            &records[name.at as usize..][..usize::from(name.length)]
        };
        if let Some(&known) = table.find(hash, |&number| *name(number) == *item.as_bytes()) {
            return known;
        }
        let number = u32::try_from(names.len() + 1).expect("a call has fewer than 2^32 names");
        table.insert_unique(hash, number, |&number| hasher.hash_one(name(number)));
        let at = u32::try_from(at).expect("a call is shorter than 4 GiB");
        names.push(Name { at, length: u8::try_from(item.len()).expect("an item's name is short") });
        number
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn updates(items: &[&str]) -> ItemUpdates {
        let mut updates = ItemUpdates::default();
        for item in items {
            updates.push(item, None, ItemState::Present, |out| out.extend_from_slice(b",\"time\":1}"));
        }
        updates
    }

    #[test]
    fn a_name_goes_into_a_call_once() {
        let mut gather = ItemsGather::new(1);
        let (first, mut second) = (updates(&["A", "B", "A"]), updates(&["B", "C"]));
        second.replace(|out| out.extend_from_slice(b",\"removed\":true,\"time\":2}"));
        gather.push(&NewItems { updates: &first, exclude: None, key: Some("k") });
        gather.push(&NewItems { updates: &second, exclude: None, key: None });
        gather.push_expiry([("D", 9)].into_iter(), b",\"time\":3}");
        let mut call = gather.finish();
        assert_eq!(call.names().collect::<Vec<_>>(), [b"A", b"B", b"C", b"D"]);
        let numbers: Vec<u8> = call.updates.chunks(9).map(|update| update[3]).collect();
        assert_eq!(numbers, [1, 2, 1, 2, 3, 4]);
        let commands = call.read();
        let items = |at: usize| -> Vec<_> {
            commands[at].records.iter().map(|bytes| ItemRecord::read(bytes).expect("a record").0.item).collect()
        };
        assert_eq!((items(0), commands[0].key, commands[0].removal.is_some()), (vec!["A", "B", "A"], Some("k"), false));
        assert_eq!((items(1), commands[1].key, commands[1].removal.is_some()), (vec!["B", "C"], None, true));
        assert_eq!(items(2), ["D"]);
        call.strip();
        assert_eq!((call.count(), call.names().len()), (3, 0));
    }
}
