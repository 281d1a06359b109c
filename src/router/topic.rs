//! Topics of one reactor: their names, members and, where this reactor is the home, what the home knows.

use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;

use foldhash::fast::FixedState;
use hashbrown::HashTable;
use slab::Slab;
use smallvec::SmallVec;

use super::history::History;
use super::home::Home;
use super::link::Link;
use crate::ids::{ReactorId, Slot};
use crate::limits::ALLOCATION_BYTES;

/// The namespaces of topics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// Every JSON connection of the node. It has no name.
    Everyone,
    /// A room.
    Room,
    /// All connections of one user.
    Inbox,
    /// A raw room.
    Raw,
}

/// A topic's name, borrowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TopicRef<'a> {
    /// Its namespace.
    pub kind: Kind,
    /// Its name there.
    pub name: &'a str,
}

impl TopicRef<'static> {
    /// The topic of everyone.
    pub const EVERYONE: TopicRef<'static> = TopicRef { kind: Kind::Everyone, name: "" };
}

/// A topic's name, shared by all that refer to it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TopicKey {
    /// Its namespace.
    pub kind: Kind,
    /// Its name there.
    pub name: Arc<str>,
}

impl TopicKey {
    /// The same, borrowed.
    pub fn borrow(&self) -> TopicRef<'_> {
        TopicRef { kind: self.kind, name: &self.name }
    }
}

/// A topic's place in its reactor's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TopicIndex(pub(super) u32);

/// No open batch.
pub(super) const NO_BATCH: u32 = u32::MAX;

#[derive(Debug)]
pub(super) struct Topic {
    pub(super) key: TopicKey,
    /// Slots of this reactor's members, dense, in no order.
    pub(super) members: SmallVec<[Slot; 4]>,
    /// What the home knows; empty on other reactors.
    pub(super) home: Home,
    /// What the home keeps of its messages.
    pub(super) keeps: Keeps,
    /// How the home stands with the cluster, where there is one.
    pub(super) link: Link,
    /// Subscriptions of this reactor's connections, confirmed or not.
    pub(super) subscriptions: u32,
    /// The batch of this turn, in the router's list.
    pub(super) batch: u32,
}

/// What a topic's home keeps of its messages.
#[derive(Debug)]
pub(super) enum Keeps {
    /// Nobody has asked for it yet, or this is not its home.
    Unknown,
    Nothing,
    History(Box<History>),
}

impl Topic {
    /// What it takes in its reactor's table, which may be half empty, and its name.
    pub(super) fn own_bytes(&self) -> usize {
        let slot = size_of::<Topic>() + size_of::<usize>();
        let index = size_of::<u32>() + 1;
        let name = self.key.name.len() + 2 * size_of::<usize>() + ALLOCATION_BYTES;
        2 * slot + 3 * index + name
    }

    /// Whether nothing is kept of it.
    pub(super) fn keeps_nothing(&self) -> bool {
        match &self.keeps {
            Keeps::Unknown | Keeps::Nothing => true,
            Keeps::History(history) => history.is_empty(),
        }
    }
}

/// The hash of names, the same on all reactors of a node: it finds both the home and the table's entry.
#[derive(Clone, Debug)]
pub(super) struct TopicHasher {
    state: FixedState,
    reactors: u64,
}

impl TopicHasher {
    pub(super) fn new(seed: u64, reactors: u16) -> TopicHasher {
        TopicHasher { state: FixedState::with_seed(seed), reactors: u64::from(reactors) }
    }

    #[inline]
    pub(super) fn hash(&self, topic: TopicRef<'_>) -> u64 {
        let mut hasher = self.state.build_hasher();
        hasher.write_u8(topic.kind as u8);
        hasher.write(topic.name.as_bytes());
        hasher.finish()
    }

    /// Bits the table does not use choose the home; everyone's is reactor 0.
    #[inline]
    pub(super) fn home(&self, kind: Kind, hash: u64) -> ReactorId {
        match kind {
            Kind::Everyone => ReactorId(0),
            Kind::Room | Kind::Inbox | Kind::Raw => {
                let bits = (hash >> 24) & 0xFFFF_FFFF;
                ReactorId(((bits * self.reactors) >> 32) as u16)
            }
        }
    }
}

#[derive(Debug)]
pub(super) struct TopicTable {
    topics: Slab<Topic>,
    index: HashTable<u32>,
    hasher: TopicHasher,
}

impl TopicTable {
    pub(super) fn new(hasher: TopicHasher) -> TopicTable {
        TopicTable { topics: Slab::new(), index: HashTable::new(), hasher }
    }

    pub(super) fn hasher(&self) -> &TopicHasher {
        &self.hasher
    }

    #[inline]
    pub(super) fn find(&self, hash: u64, topic: TopicRef<'_>) -> Option<TopicIndex> {
        self.index.find(hash, |&at| self.topics[at as usize].key.borrow() == topic).map(|&at| TopicIndex(at))
    }

    pub(super) fn find_or_insert(&mut self, hash: u64, key: &TopicKey) -> TopicIndex {
        if let Some(found) = self.find(hash, key.borrow()) {
            return found;
        }
        let at = self.topics.insert(Topic {
            key: key.clone(),
            members: SmallVec::new(),
            home: Home::default(),
            keeps: Keeps::Unknown,
            link: Link::Apart,
            subscriptions: 0,
            batch: NO_BATCH,
        });
        let at = u32::try_from(at).expect("fewer than 2^32 topics");
        let (topics, hasher) = (&self.topics, &self.hasher);
        self.index.insert_unique(hash, at, |&at| hasher.hash(topics[at as usize].key.borrow()));
        TopicIndex(at)
    }

    pub(super) fn remove(&mut self, index: TopicIndex) {
        let topic = self.topics.remove(index.0 as usize);
        let hash = self.hasher.hash(topic.key.borrow());
        if let Ok(entry) = self.index.find_entry(hash, |&at| at == index.0) {
            entry.remove();
        }
    }

    #[inline]
    pub(super) fn get(&self, index: TopicIndex) -> &Topic {
        &self.topics[index.0 as usize]
    }

    #[inline]
    pub(super) fn get_mut(&mut self, index: TopicIndex) -> &mut Topic {
        &mut self.topics[index.0 as usize]
    }

    pub(super) fn history(&self, index: TopicIndex) -> Option<&History> {
        match &self.topics.get(index.0 as usize)?.keeps {
            Keeps::Unknown | Keeps::Nothing => None,
            Keeps::History(history) => Some(history),
        }
    }

    pub(super) fn history_mut(&mut self, index: TopicIndex) -> Option<&mut History> {
        match &mut self.topics.get_mut(index.0 as usize)?.keeps {
            Keeps::Unknown | Keeps::Nothing => None,
            Keeps::History(history) => Some(history),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.topics.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (TopicIndex, &Topic)> {
        self.topics.iter().map(|(at, topic)| (TopicIndex(at as u32), topic))
    }
}
