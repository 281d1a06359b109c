//! What a topic's home knows: which reactors have members, how many there are, and, for rooms, who they are.

use std::sync::Arc;

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use smallvec::SmallVec;

use crate::ids::ReactorId;

#[derive(Debug, Default)]
pub(super) struct Home {
    /// Members on each reactor that has any.
    interest: SmallVec<[(ReactorId, u32); 2]>,
    users: Option<Box<Users>>,
}

impl Home {
    pub(super) fn is_empty(&self) -> bool {
        self.interest.is_empty()
    }

    /// Members on all reactors.
    pub(super) fn members(&self) -> u64 {
        self.interest.iter().map(|(_, members)| u64::from(*members)).sum()
    }

    /// The reactors that have members.
    #[inline]
    pub(super) fn reactors(&self) -> impl Iterator<Item = ReactorId> {
        self.interest.iter().map(|(reactor, _)| *reactor)
    }

    /// One more member; a `user` where the topic keeps presence. `seed` is that of a large room's table.
    pub(super) fn add(&mut self, reactor: ReactorId, user: Option<&Arc<str>>, seed: u64) {
        match self.interest.iter_mut().find(|(at, _)| *at == reactor) {
            Some((_, members)) => *members += 1,
            None => self.interest.push((reactor, 1)),
        }
        if let Some(user) = user {
            self.users.get_or_insert_default().add(user, seed);
        }
    }

    /// One member less.
    pub(super) fn remove(&mut self, reactor: ReactorId, user: Option<&str>) {
        let at = self.interest.iter().position(|(at, _)| *at == reactor).expect("a member leaves where it joined");
        self.interest[at].1 -= 1;
        if self.interest[at].1 == 0 {
            self.interest.swap_remove(at);
        }
        if let (Some(user), Some(users)) = (user, &mut self.users) {
            users.remove(user);
            if users.len() == 0 {
                self.users = None;
            }
        }
    }

    /// How many users are in the room, each once.
    pub(super) fn users_count(&self) -> usize {
        self.users.as_ref().map_or(0, |users| users.len())
    }

    /// The users in the room, in no order, each to be shared.
    pub(super) fn users_shared(&self) -> impl Iterator<Item = &Arc<str>> + Clone {
        self.users.iter().flat_map(|users| users.iter())
    }
}

/// Rooms up to this size are searched through; a larger one gets a table, for good.
const FEW_USERS_MAX: usize = 8;

/// The users of a room, each with its number of connections.
#[derive(Debug)]
enum Users {
    Few(SmallVec<[(Arc<str>, u32); 1]>),
    Many(HashMap<Arc<str>, u32, FixedState>),
}

impl Default for Users {
    fn default() -> Users {
        Users::Few(SmallVec::new())
    }
}

impl Users {
    fn add(&mut self, user: &Arc<str>, seed: u64) {
        match self {
            Users::Few(few) => match few.iter().position(|(name, _)| name == user) {
                Some(at) => few[at].1 += 1,
                None if few.len() < FEW_USERS_MAX => few.push((user.clone(), 1)),
                None => {
                    let mut many = HashMap::with_hasher(FixedState::with_seed(seed));
                    many.extend(few.drain(..));
                    many.insert(user.clone(), 1);
                    *self = Users::Many(many);
                }
            },
            Users::Many(many) => *many.entry_ref(user).or_insert(0) += 1,
        }
    }

    fn remove(&mut self, user: &str) {
        match self {
            Users::Few(few) => {
                let at = few.iter().position(|(name, _)| &**name == user).expect("a user leaves where it joined");
                few[at].1 -= 1;
                if few[at].1 == 0 {
                    few.swap_remove(at);
                }
            }
            Users::Many(many) => {
                let connections = many.get_mut(user).expect("a user leaves where it joined");
                *connections -= 1;
                if *connections == 0 {
                    many.remove(user);
                }
            }
        }
    }

    fn len(&self) -> usize {
        match self {
            Users::Few(few) => few.len(),
            Users::Many(many) => many.len(),
        }
    }

    fn iter(&self) -> impl Iterator<Item = &Arc<str>> + Clone {
        let (few, many) = match self {
            Users::Few(few) => (few.as_slice(), None),
            Users::Many(many) => ([].as_slice(), Some(many.keys())),
        };
        few.iter().map(|(name, _)| name).chain(many.into_iter().flatten())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn who_is_there_equals_a_map(steps in proptest::collection::vec((0_u8..20, 0_u16..3, any::<bool>()), 0..200)) {
            let mut home = Home::default();
            let mut model: BTreeMap<(u8, u16), u32> = BTreeMap::new();
            for (user, reactor, join) in steps {
                let name: Arc<str> = format!("user{user}").into();
                let count = model.entry((user, reactor)).or_insert(0);
                if join {
                    *count += 1;
                    home.add(ReactorId(reactor), Some(&name), 1);
                } else if *count > 0 {
                    *count -= 1;
                    home.remove(ReactorId(reactor), Some(&name));
                }
                model.retain(|_, count| *count > 0);
                let mut users: Vec<&str> = home.users_shared().map(|name| &**name).collect();
                users.sort_unstable();
                let mut expected: Vec<String> = model.keys().map(|(user, _)| format!("user{user}")).collect();
                expected.sort_unstable();
                expected.dedup();
                prop_assert_eq!(home.users_count(), users.len());
                prop_assert_eq!(users, expected);
                prop_assert_eq!(home.members(), model.values().map(|count| u64::from(*count)).sum::<u64>());
                prop_assert_eq!(home.is_empty(), model.is_empty());
            }
        }
    }
}
