//! Patterns that rooms are meant by, compiled for many questions.

use crate::config::Pattern;

/// Which rooms a list of patterns means: the same as asking each of them, but names and names' beginnings are found by
/// halving, however many there are. Only patterns with a `*` elsewhere than at the end are asked one by one.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Patterns {
    /// Without a `*`, sorted.
    names: Box<[Box<str>]>,
    /// What stands before the only `*`, at the end; sorted, and none the beginning of another.
    beginnings: Box<[Box<str>]>,
    others: Box<[Other]>,
}

/// A pattern with a `*` elsewhere than at its end.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Other {
    /// What stands before its first `*` and behind its last: nearly all rooms that it does not mean differ there.
    head: Box<str>,
    tail: Box<str>,
    pattern: Pattern,
}

impl Patterns {
    pub(super) fn new(patterns: &[Pattern]) -> Patterns {
        let (mut names, mut beginnings, mut others) = (Vec::new(), Vec::<Box<str>>::new(), Vec::new());
        for pattern in patterns {
            let text = pattern.as_str();
            match text.split_once('*') {
                None => names.push(text.into()),
                Some((beginning, "")) => beginnings.push(beginning.into()),
                Some((head, rest)) => {
                    let tail = rest.rsplit_once('*').map_or(rest, |(_, tail)| tail);
                    others.push(Other { head: head.into(), tail: tail.into(), pattern: pattern.clone() });
                }
            }
        }
        names.sort_unstable();
        beginnings.sort_unstable();
        beginnings.dedup_by(|later, earlier| later.starts_with(&**earlier));
        Patterns { names: names.into(), beginnings: beginnings.into(), others: others.into() }
    }

    /// How many are asked one by one.
    pub(super) fn others(&self) -> usize {
        self.others.len()
    }

    pub(super) fn match_room(&self, room: &str) -> bool {
        self.is_begun(room) || self.is_named(room) || self.others.iter().any(|other| other.match_room(room))
    }

    /// A beginning of the room's id stands directly before where the id itself would stand: what stands between the two in
    /// order would begin with it, too.
    fn is_begun(&self, room: &str) -> bool {
        let behind = self.beginnings.partition_point(|beginning| **beginning <= *room);
        behind.checked_sub(1).is_some_and(|at| room.starts_with(&*self.beginnings[at]))
    }

    fn is_named(&self, room: &str) -> bool {
        self.names.binary_search_by(|name| (**name).cmp(room)).is_ok()
    }
}

impl Other {
    fn match_room(&self, room: &str) -> bool {
        room.ends_with(&*self.tail) && room.starts_with(&*self.head) && self.pattern.matches(room)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Few letters, so that they meet often.
        #[test]
        fn they_mean_what_each_of_them_means(
            texts in prop::collection::vec("[ab]{0,3}\\*|[ab]{1,4}|[ab*]{1,5}", 0..12),
            rooms in prop::collection::vec("[ab]{0,5}", 1..20),
        ) {
            let patterns: Vec<Pattern> = texts.iter().map(|text| text.parse().expect("a pattern")).collect();
            let compiled = Patterns::new(&patterns);
            for room in rooms {
                let is_meant = patterns.iter().any(|pattern| pattern.matches(&room));
                prop_assert_eq!(compiled.match_room(&room), is_meant, "{:?} {}", texts, room);
            }
        }
    }
}
