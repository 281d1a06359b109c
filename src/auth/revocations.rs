//! Users whose tokens are refused although they are not over: all that were made up to a second.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::limits::{REVOCATION_KEPT_S, REVOCATIONS_MAX};

/// Whose tokens are revoked. All threads that check tokens share it; it is looked at when a token is, and nowhere else.
///
/// At most [`REVOCATIONS_MAX`] users, each with the last Unix second whose tokens are refused. It is state, and ends with the
/// process; in a cluster Redis has it, too.
#[derive(Default)]
pub struct Revocations(RwLock<Table>);

#[derive(Default)]
struct Table {
    until: HashMap<Box<str>, u64>,
    /// The same by that second, so that the first is found.
    order: BTreeSet<(u64, Box<str>)>,
}

/// There is no room for one more user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RevocationsFull;

impl Revocations {
    /// Tokens of a user that were made in this Unix second or before, or do not say when, are refused from now on.
    ///
    /// # Errors
    /// [`RevocationsFull`]: nothing has changed then.
    pub fn revoke(&self, user: &str, unix_s: u64) -> Result<(), RevocationsFull> {
        let mut table = self.write();
        match table.has_room_for(user, unix_s) {
            true => {
                table.put(user, unix_s);
                Ok(())
            }
            false => Err(RevocationsFull),
        }
    }

    /// Whether [`Revocations::revoke`] would find room.
    pub fn has_room_for(&self, user: &str, unix_s: u64) -> bool {
        self.read().has_room_for(user, unix_s)
    }

    /// The same as another node has done it, which has looked whether there is room: the first goes where there is none.
    pub fn force(&self, user: &str, unix_s: u64) {
        self.write().put(user, unix_s);
    }

    /// Whether a token of a user is refused that was made in this Unix second, or does not say when.
    pub fn refuse(&self, user: &str, issued_unix_s: Option<u64>) -> bool {
        let table = self.read();
        table.until.get(user).is_some_and(|until| issued_unix_s.is_none_or(|issued| issued <= *until))
    }

    /// Users whose tokens are revoked.
    pub fn count(&self) -> usize {
        self.read().until.len()
    }

    fn read(&self) -> RwLockReadGuard<'_, Table> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Table> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn has_room_for(&self, user: &str, unix_s: u64) -> bool {
        self.until.contains_key(user)
            || self.until.len() < REVOCATIONS_MAX
            || self.order.first().is_some_and(|(first, _)| first + REVOCATION_KEPT_S < unix_s)
    }

    fn put(&mut self, user: &str, unix_s: u64) {
        match self.until.get_mut(user) {
            Some(until) if *until >= unix_s => return,
            Some(until) => {
                self.order.remove(&(*until, Box::from(user)));
                *until = unix_s;
            }
            None => {
                self.until.insert(user.into(), unix_s);
            }
        }
        self.order.insert((unix_s, user.into()));
        if self.until.len() > REVOCATIONS_MAX
            && let Some((_, first)) = self.order.pop_first()
        {
            self.until.remove(&first);
        }
    }
}

impl fmt::Debug for Revocations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Revocations({})", self.count())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_up_to_the_second_and_those_without_one_are_refused() {
        let revocations = Revocations::default();
        assert!(!revocations.refuse("alice", None));
        revocations.revoke("alice", 100).expect("there is room");
        assert!(revocations.refuse("alice", Some(100)) && revocations.refuse("alice", None));
        assert!(!revocations.refuse("alice", Some(101)) && !revocations.refuse("bob", Some(1)));
        revocations.force("alice", 90);
        assert!(revocations.refuse("alice", Some(100)), "an earlier one takes nothing back");
        revocations.force("alice", 110);
        assert!(revocations.refuse("alice", Some(110)) && revocations.count() == 1);
    }

    #[test]
    fn users_are_bounded_and_the_first_makes_room_only_when_it_is_old() {
        let revocations = Revocations::default();
        for user in 0..REVOCATIONS_MAX as u64 {
            revocations.revoke(&user.to_string(), 1_000 + user).expect("there is room");
        }
        let late = 1_000 + REVOCATION_KEPT_S;
        assert_eq!(revocations.revoke("one more", late), Err(RevocationsFull));
        revocations.revoke("7", late).expect("it is there already");
        revocations.revoke("one more", late + 1).expect("the first is old");
        assert!(!revocations.refuse("0", Some(1)) && revocations.refuse("1", Some(1)));
        assert_eq!(revocations.count(), REVOCATIONS_MAX);
        revocations.force("another", late);
        assert!(!revocations.refuse("1", Some(1)) && revocations.count() == REVOCATIONS_MAX);
    }
}
