//! Who is in a room, each with the number of its connections.

use arcstr::ArcStr;
use foldhash::fast::FixedState;
use hashbrown::HashMap;

use crate::growth::Grow;

/// Rooms with up to so many members are searched through; a larger one gets a table, for good.
const FEW_MEMBERS_MAX: usize = 32;

/// The users of a room.
#[derive(Debug)]
pub(super) enum Users {
    /// One name for each member: a user with two connections stands here twice.
    Few(Vec<ArcStr>),
    /// Each with its number of connections.
    Many(Box<HashMap<ArcStr, u32, FixedState>>),
}

impl Default for Users {
    fn default() -> Users {
        Users::Few(Vec::new())
    }
}

impl Users {
    /// One more connection of a user. `seed` is that of a large room's table.
    pub(super) fn add(&mut self, user: &ArcStr, seed: u64) {
        match self {
            Users::Few(few) if few.len() < FEW_MEMBERS_MAX => {
                few.make_room_for_one();
                few.push(user.clone());
            }
            Users::Few(few) => {
                let mut many = table(few.drain(..).map(|user| (user, 1)), seed);
                *many.entry_ref(user).or_insert(0) += 1;
                *self = Users::Many(Box::new(many));
            }
            Users::Many(many) => *many.entry_ref(user).or_insert(0) += 1,
        }
    }

    /// One connection less.
    pub(super) fn remove(&mut self, user: &ArcStr) {
        match self {
            Users::Few(few) => {
                let at = few.iter().position(|name| name == user).expect("a user leaves where it joined");
                few.swap_remove(at);
            }
            Users::Many(many) => {
                let connections = many.get_mut(user).expect("a user leaves where it joined");
                *connections -= 1;
                if *connections == 0 {
                    many.remove(user);
                }
                if many.is_empty() {
                    *self = Users::default();
                }
            }
        }
    }

    /// How many users, each once.
    pub(super) fn count(&self) -> usize {
        match self {
            Users::Few(_) => self.iter().count(),
            Users::Many(many) => many.len(),
        }
    }

    /// The users in no order, each once.
    pub(super) fn iter(&self) -> impl Iterator<Item = &ArcStr> + Clone {
        let (few, many) = match self {
            Users::Few(few) => (few.as_slice(), None),
            Users::Many(many) => ([].as_slice(), Some(many.keys())),
        };
        let each_once = few.iter().enumerate().filter(|(at, name)| !few[..*at].contains(name)).map(|(_, name)| name);
        each_once.chain(many.into_iter().flatten())
    }

    /// The table is built again.
    #[cfg(any(test, debug_assertions))]
    pub(super) fn rebuild(&mut self, seed: u64) {
        if let Users::Many(many) = self {
            **many = table(many.drain(), seed);
        }
    }
}

fn table(users: impl Iterator<Item = (ArcStr, u32)>, seed: u64) -> HashMap<ArcStr, u32, FixedState> {
    let mut table = HashMap::with_hasher(FixedState::with_seed(seed));
    users.for_each(|(user, connections)| *table.entry(user).or_insert(0) += connections);
    table
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn who_is_there_equals_a_map(steps in proptest::collection::vec((0_u8..50, 0_u8..5), 0..400)) {
            let mut users = Users::default();
            let mut model: BTreeMap<u8, u32> = BTreeMap::new();
            for (user, step) in steps {
                let name: ArcStr = format!("user{user}").into();
                let count = model.entry(user).or_insert(0);
                match step {
                    0..3 => {
                        *count += 1;
                        users.add(&name, 1);
                    }
                    3 if *count > 0 => {
                        *count -= 1;
                        users.remove(&name);
                    }
                    3 => {}
                    _ => users.rebuild(2),
                }
                model.retain(|_, count| *count > 0);
                let mut names: Vec<&str> = users.iter().map(|name| &**name).collect();
                names.sort_unstable();
                let mut expected: Vec<String> = model.keys().map(|user| format!("user{user}")).collect();
                expected.sort_unstable();
                prop_assert_eq!(users.count(), expected.len());
                prop_assert_eq!(names, expected);
            }
        }
    }
}
