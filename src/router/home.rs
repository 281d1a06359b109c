//! What a topic's home knows: which reactors have members, how many there are, and, for rooms, who they are.

use std::sync::Arc;

use hashbrown::HashMap;
use smallvec::SmallVec;

use crate::ids::ReactorId;

/// Connections of each user in a room.
type Users = HashMap<Arc<str>, u32, foldhash::fast::FixedState>;

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

    /// One more member; a `user` where the topic keeps presence.
    pub(super) fn add(&mut self, reactor: ReactorId, user: Option<&Arc<str>>, seed: u64) {
        match self.interest.iter_mut().find(|(at, _)| *at == reactor) {
            Some((_, members)) => *members += 1,
            None => self.interest.push((reactor, 1)),
        }
        if let Some(user) = user {
            let users = self
                .users
                .get_or_insert_with(|| Box::new(Users::with_hasher(foldhash::fast::FixedState::with_seed(seed))));
            *users.entry_ref(user).or_insert(0) += 1;
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
            let connections = users.get_mut(user).expect("a user leaves where it joined");
            *connections -= 1;
            if *connections == 0 {
                users.remove(user);
            }
            if users.is_empty() {
                self.users = None;
            }
        }
    }

    /// How many users are in the room, each once.
    pub(super) fn users_count(&self) -> usize {
        self.users.as_ref().map_or(0, |users| users.len())
    }

    /// The users in the room, in no order.
    pub(super) fn users(&self) -> impl Iterator<Item = &str> {
        self.users.iter().flat_map(|users| users.keys()).map(|user| &**user)
    }
}
