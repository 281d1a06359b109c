//! Topics of one reactor: their names, each hashed once, and the table that finds them.

use std::hash::{BuildHasher, Hasher};

use arcstr::ArcStr;
use foldhash::fast::FixedState;
use hashbrown::HashTable;
use slab::Slab;

use super::homes::HomeState;
use super::members::MemberList;
use crate::growth::Grow;
use crate::ids::ReactorId;
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

/// What stands in front of the names of raw rooms where rooms are named beside them: in permissions and in rules for rooms.
pub const RAW_PREFIX: &str = "raw/";

/// A topic's name, borrowed, as who publishes to it says it.
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

/// The hash of a topic's name: the same on all reactors of a node, and foreseen by no client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct TopicHash(u32);

impl TopicHash {
    /// For a table: its low bits do not depend on those that choose the home.
    #[inline]
    pub(super) fn spread(self) -> u64 {
        // 2^64 over the golden ratio: the table takes the lowest and the highest bits.
        u64::from(self.0).wrapping_mul(0x9E37_79B9_7F4A_7C15)
    }

    /// Bits that do not depend on those that choose the home.
    #[inline]
    pub(super) fn low_bits(self) -> u16 {
        self.0 as u16
    }
}

/// A topic's name, borrowed, with its hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct HashedTopic<'a> {
    pub(super) kind: Kind,
    pub(super) hash: TopicHash,
    pub(super) name: &'a str,
}

impl HashedTopic<'_> {
    /// The same, to be kept: the name is copied.
    pub(super) fn to_key(self) -> TopicKey {
        TopicKey { kind: self.kind, hash: self.hash, name: self.name.into() }
    }
}

/// A topic's name, shared by all that refer to it, with its hash.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TopicKey {
    /// Its namespace.
    pub kind: Kind,
    hash: TopicHash,
    /// Its name there.
    pub name: ArcStr,
}

impl TopicKey {
    /// The topic of everyone.
    pub fn everyone() -> TopicKey {
        TopicKey { kind: Kind::Everyone, hash: EVERYONE_HASH, name: ArcStr::new() }
    }

    /// The same, borrowed.
    pub fn borrow(&self) -> TopicRef<'_> {
        TopicRef { kind: self.kind, name: &self.name }
    }

    /// Its name, if it is a room.
    pub fn room(&self) -> Option<ArcStr> {
        (self.kind == Kind::Room).then(|| self.name.clone())
    }

    #[inline]
    pub(super) fn hashed(&self) -> HashedTopic<'_> {
        HashedTopic { kind: self.kind, hash: self.hash, name: &self.name }
    }

    /// A name that no router looks for; for tests of others.
    #[cfg(test)]
    pub(crate) fn unhashed(kind: Kind, name: &str) -> TopicKey {
        TopicKey { kind, hash: EVERYONE_HASH, name: name.into() }
    }
}

/// Everyone's, which needs no secret.
const EVERYONE_HASH: TopicHash = TopicHash(0);

/// A topic's index in its reactor's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct TopicIndex(pub(super) u32);

/// No open batch.
pub(super) const NO_BATCH: u32 = u32::MAX;

/// A topic on one reactor. What it is: its key, who of this reactor's connections is a member, and, at its home, what
/// the home knows. The count of subscriptions and the index of the batch are built again from those.
#[derive(Debug)]
pub(super) struct Topic {
    pub(super) key: TopicKey,
    /// This reactor's members.
    pub(super) members: MemberList,
    /// What the home knows; vacant on other reactors.
    pub(super) home: HomeState,
    /// Subscriptions of this reactor's connections, confirmed or not.
    pub(super) subscriptions: u32,
    /// The batch of this turn, among the open ones.
    pub(super) batch: u32,
}

/// There are several for each connection.
const _: () = assert!(size_of::<Topic>() <= 40);

impl Topic {
    /// Bytes that it takes in its reactor's table, of which a fifth may be empty, and its name.
    pub(super) fn own_bytes(&self) -> usize {
        let slot = size_of::<Topic>() + size_of::<usize>();
        let index = size_of::<u32>() + 1;
        let name = self.key.name.len() + 2 * size_of::<usize>() + ALLOCATION_BYTES;
        5 * slot / 4 + 3 * index + name
    }
}

/// Hashes names, and finds homes.
#[derive(Clone, Debug)]
pub(super) struct TopicHasher {
    state: FixedState,
    reactors: u16,
}

impl TopicHasher {
    /// `seed` is the same for all of a node, and secret.
    pub(super) fn new(seed: u64, reactors: u16) -> TopicHasher {
        TopicHasher { state: FixedState::with_seed(seed), reactors }
    }

    /// Reactors of the node.
    pub(super) fn reactors(&self) -> u16 {
        self.reactors
    }

    #[inline]
    pub(super) fn hash(&self, topic: TopicRef<'_>) -> TopicHash {
        if topic.kind == Kind::Everyone {
            return EVERYONE_HASH;
        }
        let mut hasher = self.state.build_hasher();
        hasher.write_u8(topic.kind as u8);
        hasher.write(topic.name.as_bytes());
        let hash = hasher.finish();
        TopicHash((hash ^ (hash >> 32)) as u32)
    }

    /// The highest bits choose the home; everyone's is reactor 0.
    #[inline]
    pub(super) fn home(&self, topic: HashedTopic<'_>) -> ReactorId {
        match topic.kind {
            Kind::Everyone => ReactorId(0),
            Kind::Room | Kind::Inbox | Kind::Raw => {
                ReactorId(((u64::from(topic.hash.0) * u64::from(self.reactors)) >> 32) as u16)
            }
        }
    }
}

/// The topics of one reactor. What they are stands in `topics`; the index by hash is built again from that.
#[derive(Debug)]
pub(super) struct Topics {
    topics: Slab<Topic>,
    index: HashTable<u32>,
    hasher: TopicHasher,
}

impl Topics {
    /// None yet. `seed` is the same for all reactors of a node, and secret.
    pub(super) fn new(seed: u64, reactors: u16) -> Topics {
        Topics { topics: Slab::new(), index: HashTable::new(), hasher: TopicHasher::new(seed, reactors) }
    }

    /// A name with its hash: from here on it is not hashed again, whichever reactors it goes to.
    #[inline]
    pub(super) fn hashed<'a>(&self, topic: TopicRef<'a>) -> HashedTopic<'a> {
        HashedTopic { kind: topic.kind, hash: self.hasher.hash(topic), name: topic.name }
    }

    /// A name to be kept, with its hash.
    pub(super) fn key(&self, kind: Kind, name: ArcStr) -> TopicKey {
        TopicKey { kind, hash: self.hasher.hash(TopicRef { kind, name: &name }), name }
    }

    /// The topic's home.
    #[inline]
    pub(super) fn home(&self, topic: HashedTopic<'_>) -> ReactorId {
        self.hasher.home(topic)
    }

    #[inline]
    pub(super) fn find(&self, topic: HashedTopic<'_>) -> Option<TopicIndex> {
        let found = self.index.find(topic.hash.spread(), |&at| self.topics[at as usize].key.hashed() == topic);
        found.map(|&at| TopicIndex(at))
    }

    pub(super) fn find_or_insert(&mut self, key: &TopicKey) -> TopicIndex {
        self.find(key.hashed()).unwrap_or_else(|| self.insert(key.clone()))
    }

    fn insert(&mut self, key: TopicKey) -> TopicIndex {
        let hash = key.hash;
        self.topics.make_room_for_one();
        let at = self.topics.insert(Topic {
            key,
            members: MemberList::Empty,
            home: HomeState::Vacant,
            subscriptions: 0,
            batch: NO_BATCH,
        });
        let at = u32::try_from(at).expect("fewer than 2^32 topics");
        let topics = &self.topics;
        self.index.insert_unique(hash.spread(), at, |&at| topics[at as usize].key.hash.spread());
        TopicIndex(at)
    }

    pub(super) fn remove(&mut self, index: TopicIndex) {
        let topic = self.topics.remove(index.0 as usize);
        if let Ok(entry) = self.index.find_entry(topic.key.hash.spread(), |&at| at == index.0) {
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

    /// The first topic from this index on.
    pub(super) fn first_from(&self, at: u32) -> Option<TopicIndex> {
        // Slots are never given back: an empty one is stepped over.
        let end = u32::try_from(self.topics.capacity()).unwrap_or(u32::MAX);
        (at..end).find(|&at| self.topics.contains(at as usize)).map(TopicIndex)
    }

    pub(super) fn len(&self) -> usize {
        self.topics.len()
    }

    #[cfg(any(test, debug_assertions))]
    pub(super) fn iter(&self) -> impl Iterator<Item = (TopicIndex, &Topic)> {
        self.topics.iter().map(|(at, topic)| (TopicIndex(at as u32), topic))
    }

    /// Everything that is not what the topics are is built again, their indices included: `renamed` is told the old
    /// index and the new one of each.
    #[cfg(any(test, debug_assertions))]
    pub(super) fn rebuild(&mut self, mut renamed: impl FnMut(TopicIndex, TopicIndex)) {
        let mut before: Vec<(usize, Topic)> = std::mem::take(&mut self.topics).into_iter().collect();
        self.index = HashTable::new();
        // Another order than before, the same in every run.
        before.sort_by_key(|(_, topic)| topic.key.hash.0.reverse_bits());
        for (at, topic) in before {
            let Topic { key, members, home, .. } = topic;
            let key = self.key(key.kind, key.name);
            let index = self.insert(key);
            let topic = self.get_mut(index);
            (topic.members, topic.home) = (members, home);
            renamed(TopicIndex(at as u32), index);
        }
    }
}
