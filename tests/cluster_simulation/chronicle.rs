//! What was ever written into each epoch of each history: what clients are told and get is held against it.

use std::collections::BTreeMap;
use std::sync::Arc;

use fanfare::cluster::record::Entry;
use fanfare::ids::ConnId;
use fanfare_simulated::message::{Serial, serial_in};

/// A message in an epoch.
#[derive(Clone, Debug)]
pub struct Written {
    pub serial: Serial,
    /// The connection that is not to get it, with its node's run.
    pub exclude: Option<(u64, ConnId)>,
    /// Whether it was written in this epoch, and not kept over from one before.
    is_new: bool,
}

/// One epoch of one history.
#[derive(Debug, Default)]
pub struct Epoch {
    /// When it began: the number of epochs that had begun before.
    pub begun: u64,
    /// Its messages by their offsets, those that are gone by now included.
    pub written: BTreeMap<u64, Written>,
    /// Where it began and where it ends.
    pub first: u64,
    pub last: u64,
    /// Up to here it is gone from some server: what a replica still has does not count.
    trimmed: u64,
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct Chronicle {
    epochs: BTreeMap<(Arc<str>, Arc<str>), Epoch>,
    begun: u64,
}

impl Chronicle {
    /// A topic's epoch begins behind `last`, with what is in the stream already.
    pub fn begin<'a>(
        &mut self,
        topic: &Arc<str>,
        epoch: &Arc<str>,
        last: u64,
        kept: impl Iterator<Item = (u64, &'a [u8])>,
    ) {
        self.begun += 1;
        let mut begun = Epoch { begun: self.begun, first: last, last, ..Epoch::default() };
        for (offset, entry) in kept {
            begun.written.insert(offset, written(entry, false));
        }
        let before = self.epochs.insert((topic.clone(), epoch.clone()), begun);
        assert!(before.is_none(), "{topic}: {epoch} is an epoch for the second time");
    }

    /// A message is written into an epoch.
    pub fn write(&mut self, topic: &Arc<str>, epoch: &Arc<str>, offset: u64, entry: &[u8]) {
        let begun = self.epochs.get_mut(&(topic.clone(), epoch.clone())).expect("an epoch begins before it is written");
        assert_eq!(offset, begun.last + 1, "{topic}: the next offset of {epoch}");
        let written = written(entry, true);
        let serial = written.serial;
        let twice = begun.written.values().any(|other| other.is_new && other.serial == serial);
        assert!(!twice, "{topic}: #{serial}# is written into {epoch} twice");
        begun.written.insert(offset, written);
        begun.last = offset;
    }

    /// All up to a message is dropped.
    pub fn trim(&mut self, topic: &Arc<str>, epoch: &Arc<str>, offset: u64) {
        if let Some(begun) = self.epochs.get_mut(&(topic.clone(), epoch.clone())) {
            begun.trimmed = begun.trimmed.max(offset);
        }
    }

    /// Whether a message was dropped.
    pub fn is_trimmed(&self, topic: &str, epoch: &str, offset: u64) -> bool {
        self.epoch(topic, epoch).is_some_and(|begun| offset <= begun.trimmed)
    }

    /// An epoch of a topic.
    pub fn epoch(&self, topic: &str, epoch: &str) -> Option<&Epoch> {
        self.epochs.get(&(topic.into(), epoch.into()))
    }

    /// How many epochs have begun so far.
    pub fn begun(&self) -> u64 {
        self.begun
    }

    /// What is written at a place.
    ///
    /// # Panics
    /// Where nothing is.
    pub fn written(&self, topic: &str, epoch: &str, offset: u64) -> &Written {
        let found = self.epoch(topic, epoch).and_then(|begun| begun.written.get(&offset));
        found.unwrap_or_else(|| panic!("{topic}: nothing was ever at offset {offset} of epoch {epoch}"))
    }
}

impl Epoch {
    /// Whether anything was written into it.
    pub fn has_new(&self) -> bool {
        self.last > self.first
    }
}

fn written(entry: &[u8], is_new: bool) -> Written {
    let read = Entry::read(entry).expect("what is kept is an entry");
    Written { serial: serial_in(read.payload), exclude: read.exclude, is_new }
}
