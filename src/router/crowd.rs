//! Who is in a room, as nodes tell each other: names as far as they are shown, the hashes of all others, and, where they are
//! too many for that, a sketch.
//!
//! The node that asks puts what it hears together in a [`Census`]: each user once, whatever nodes it is on.

use std::hash::Hasher;
use std::sync::Arc;

use arcstr::ArcStr;
use foldhash::fast::FixedState;
use hashbrown::HashSet;
use siphasher::sip::SipHasher13;

use super::sketch::Sketch;
use crate::limits::{PRESENCE_EXACT_MAX, PRESENCE_USERS_MAX};
use crate::protocol::UserCount;

/// What users are hashed with for one question: the same on all nodes, and known to no client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CrowdKey(pub [u64; 2]);

impl CrowdKey {
    /// The hash of a user.
    pub fn hash(self, user: &str) -> u64 {
        let mut hasher = SipHasher13::new_with_keys(self.0[0], self.0[1]);
        hasher.write(user.as_bytes());
        hasher.finish()
    }
}

/// Who is in a room on one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Crowd {
    /// How many, each once.
    pub users: u64,
    /// Some of them by name.
    pub names: Vec<ArcStr>,
    /// The rest.
    pub others: Others,
}

/// Those of a [`Crowd`] that are not named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Others {
    /// Each by its hash.
    Hashes(Vec<u64>),
    /// All of the crowd, those with a name too.
    Sketch(Box<Sketch>),
}

impl Crowd {
    /// `users` with as many names as are asked for, and no more hashes than [`PRESENCE_EXACT_MAX`].
    pub fn of<'a>(users: impl Iterator<Item = &'a ArcStr> + Clone, names_max: usize, key: CrowdKey) -> Crowd {
        let names: Vec<ArcStr> = users.clone().take(names_max.min(PRESENCE_USERS_MAX)).cloned().collect();
        let others = users.clone().skip(names.len());
        let mut hashes: Vec<u64> = others.clone().take(PRESENCE_EXACT_MAX + 1).map(|user| key.hash(user)).collect();
        if names.len() + hashes.len() <= PRESENCE_EXACT_MAX {
            hashes.shrink_to_fit();
            return Crowd { users: (names.len() + hashes.len()) as u64, names, others: Others::Hashes(hashes) };
        }
        let mut sketch = Sketch::default();
        let mut count = 0;
        users.for_each(|user| {
            sketch.add(key.hash(user));
            count += 1;
        });
        Crowd { users: count, names, others: Others::Sketch(Box::new(sketch)) }
    }

    /// Bytes that it takes, but for the names, which are the room's.
    pub(super) fn bytes(&self) -> usize {
        let others_bytes = match &self.others {
            Others::Hashes(hashes) => size_of_val(&hashes[..]),
            Others::Sketch(_) => size_of::<Sketch>(),
        };
        size_of_val(&self.names[..]) + others_bytes
    }

    /// The same with a sketch in place of the hashes.
    pub fn sketched(mut self, key: CrowdKey) -> Crowd {
        if let Others::Hashes(hashes) = &self.others {
            let mut sketch = Sketch::default();
            hashes.iter().for_each(|&hash| sketch.add(hash));
            self.names.iter().for_each(|name| sketch.add(key.hash(name)));
            self.others = Others::Sketch(Box::new(sketch));
        }
        self
    }
}

/// Who is in a room on all nodes that have said so.
#[derive(Debug)]
pub struct Census {
    key: CrowdKey,
    names: Vec<Arc<str>>,
    /// The hashes of those that have a name here.
    named: HashSet<u64, FixedState>,
    seen: Seen,
}

#[derive(Debug)]
enum Seen {
    Each(HashSet<u64, FixedState>),
    About(Box<Sketch>),
}

impl Census {
    /// No user yet; users are hashed with `key`.
    pub fn new(key: CrowdKey) -> Census {
        let seen = Seen::Each(HashSet::with_hasher(FixedState::default()));
        Census { key, names: Vec::new(), named: HashSet::with_hasher(FixedState::default()), seen }
    }

    /// What users are hashed with.
    pub fn key(&self) -> CrowdKey {
        self.key
    }

    /// All of a crowd.
    pub fn add_crowd(&mut self, crowd: &Crowd) {
        crowd.names.iter().for_each(|name| self.add_name(name));
        match &crowd.others {
            Others::Hashes(hashes) => hashes.iter().for_each(|&hash| self.add(hash)),
            Others::Sketch(sketch) => self.add_sketch(sketch),
        }
    }

    /// A user by name.
    pub fn add_name(&mut self, name: &str) {
        let hash = self.key.hash(name);
        if self.names.len() < PRESENCE_USERS_MAX && self.named.insert(hash) {
            self.names.push(name.into());
        }
        self.add(hash);
    }

    /// A user by its hash.
    pub fn add(&mut self, hash: u64) {
        match &mut self.seen {
            Seen::Each(hashes) => {
                hashes.insert(hash);
                if hashes.len() > PRESENCE_EXACT_MAX {
                    self.sketch();
                }
            }
            Seen::About(sketch) => sketch.add(hash),
        }
    }

    /// All that a sketch has counted.
    pub fn add_sketch(&mut self, other: &Sketch) {
        self.sketch().merge(other);
    }

    fn sketch(&mut self) -> &mut Sketch {
        if let Seen::Each(hashes) = &self.seen {
            let mut sketch = Box::new(Sketch::default());
            hashes.iter().for_each(|&hash| sketch.add(hash));
            self.seen = Seen::About(sketch);
        }
        match &mut self.seen {
            Seen::About(sketch) => sketch,
            Seen::Each(_) => unreachable!("it was put in place"),
        }
    }

    /// How many there are.
    pub fn count(&self) -> UserCount {
        match &self.seen {
            Seen::Each(hashes) => UserCount::Exact(hashes.len() as u64),
            Seen::About(sketch) => UserCount::About(sketch.estimate().max(self.names.len() as u64)),
        }
    }

    /// Some of them, at most [`PRESENCE_USERS_MAX`].
    pub fn names(&self) -> &[Arc<str>] {
        &self.names
    }

    /// About how much it holds.
    pub fn bytes(&self) -> usize {
        const ENTRY_BYTES: usize = 16;
        let seen = match &self.seen {
            Seen::Each(hashes) => hashes.len() * ENTRY_BYTES,
            Seen::About(sketch) => sketch.as_bytes().len(),
        };
        seen + self.names.iter().map(|name| name.len() + 2 * ENTRY_BYTES).sum::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    const KEY: CrowdKey = CrowdKey([3, 4]);

    fn users(range: std::ops::Range<usize>) -> Vec<ArcStr> {
        range.map(|at| format!("user-{at}").into()).collect()
    }

    #[test]
    fn up_to_a_hundred_thousand_users_on_several_nodes_are_counted_exactly() {
        let (one, other) = (users(0..70_000), users(30_000..100_000));
        let mut census = Census::new(KEY);
        census.add_crowd(&Crowd::of(one.iter(), 1_000, KEY));
        census.add_crowd(&Crowd::of(other.iter(), 0, KEY));
        assert_eq!(census.count(), UserCount::Exact(100_000));
        assert_eq!(census.names().len(), 1_000);
        census.add_name("one-more");
        let UserCount::About(about) = census.count() else { panic!("{:?}", census.count()) };
        assert!(about.abs_diff(100_001) < 3_000, "{about}");
    }

    #[test]
    fn one_node_with_more_than_a_hundred_thousand_sends_a_sketch() {
        let crowd = Crowd::of(users(0..100_001).iter(), 1_000, KEY);
        assert_eq!((crowd.users, crowd.names.len()), (100_001, 1_000));
        assert!(matches!(crowd.others, Others::Sketch(_)));
        let exact = Crowd::of(users(0..100_000).iter(), 1_000, KEY);
        assert!(matches!(&exact.others, Others::Hashes(hashes) if hashes.len() == 99_000));
    }

    proptest! {
        #[test]
        fn each_user_counts_once_and_all_are_named_while_they_are_few(
            nodes in proptest::collection::vec(proptest::collection::btree_set(0_usize..1_500, 0..900), 0..4),
        ) {
            let mut census = Census::new(KEY);
            for node in &nodes {
                let here: Vec<ArcStr> = node.iter().map(|at| format!("user-{at}").into()).collect();
                let names_max = if census.names().len() == 1_000 { 0 } else { 1_000 };
                census.add_crowd(&Crowd::of(here.iter(), names_max, KEY));
            }
            let all: BTreeSet<usize> = nodes.into_iter().flatten().collect();
            prop_assert_eq!(census.count(), UserCount::Exact(all.len() as u64));
            prop_assert_eq!(census.names().len(), all.len().min(1_000));
            let named: BTreeSet<&Arc<str>> = census.names().iter().collect();
            prop_assert_eq!(named.len(), census.names().len());
            prop_assert!(named.iter().all(|name| name[5..].parse().is_ok_and(|at: usize| all.contains(&at))));
        }
    }
}
