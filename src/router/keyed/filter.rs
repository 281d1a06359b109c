//! Which items of a keyed room a subscriber wants.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::protocol::keyed::WILDCARD;

/// The items that a subscriber wants. Equal filters of one room share a cohort.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum ItemFilter {
    /// All of them.
    #[default]
    All,
    /// Those that are named, or begin as a pattern says.
    Some(Arc<Wanted>),
}

/// Names and beginnings of names, each once.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Wanted {
    /// In order.
    names: Box<[Box<str>]>,
    /// In order; none begins with another.
    prefixes: Box<[Box<str>]>,
}

impl ItemFilter {
    /// From what a client lists: names, and patterns that end in `*`, as [`is_pattern`](crate::protocol::keyed::is_pattern)
    /// takes them.
    pub fn new<'a>(listed: impl IntoIterator<Item = &'a str>) -> ItemFilter {
        let (mut names, mut prefixes) = (BTreeSet::new(), BTreeSet::new());
        for item in listed {
            match item.strip_suffix(WILDCARD) {
                Some(prefix) => prefixes.insert(prefix),
                None => names.insert(item),
            };
        }
        if prefixes.contains("") {
            return ItemFilter::All;
        }
        let mut shortest: Vec<Box<str>> = Vec::new();
        for prefix in prefixes {
            if !shortest.last().is_some_and(|shorter| prefix.starts_with(&**shorter)) {
                shortest.push(prefix.into());
            }
        }
        let prefixes = shortest.into_boxed_slice();
        let names = names.into_iter().filter(|name| !begins(&prefixes, name)).map(Into::into).collect();
        ItemFilter::Some(Arc::new(Wanted { names, prefixes }))
    }

    /// Whether an item is wanted.
    #[inline]
    pub fn wants(&self, item: &str) -> bool {
        match self {
            ItemFilter::All => true,
            ItemFilter::Some(wanted) => wanted.wants(item),
        }
    }

    /// The names, where nothing else is wanted: then items are found from their side.
    pub(super) fn only_names(&self) -> Option<&[Box<str>]> {
        match self {
            ItemFilter::Some(wanted) if wanted.prefixes.is_empty() => Some(&wanted.names),
            ItemFilter::Some(_) | ItemFilter::All => None,
        }
    }

    /// Bytes of what the client listed, as it counts against its connection's bound.
    pub fn bytes(&self) -> usize {
        match self {
            ItemFilter::All => 0,
            ItemFilter::Some(wanted) => wanted.names.iter().chain(&wanted.prefixes).map(|text| text.len() + 1).sum(),
        }
    }
}

impl Wanted {
    fn wants(&self, item: &str) -> bool {
        self.names.binary_search_by(|name| (**name).cmp(item)).is_ok() || begins(&self.prefixes, item)
    }
}

/// Whether a name begins with one of the prefixes, of which none begins with another: that can only be the last one in
/// front of it.
fn begins(prefixes: &[Box<str>], name: &str) -> bool {
    let behind = prefixes.partition_point(|prefix| **prefix <= *name);
    behind.checked_sub(1).is_some_and(|at| name.starts_with(&*prefixes[at]))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_empty_list_wants_nothing_and_a_star_everything() {
        let none = ItemFilter::new([]);
        assert!(!none.wants("A") && none.only_names() == Some(&[]));
        assert_eq!(ItemFilter::new(["A", "*"]), ItemFilter::All);
    }

    #[test]
    fn equal_lists_are_equal_filters() {
        assert_eq!(ItemFilter::new(["B", "A", "AB*", "A*"]), ItemFilter::new(["A*", "B", "B"]));
    }

    proptest! {
        #[test]
        fn a_filter_wants_what_its_list_says(
            listed in proptest::collection::vec("[ab]{1,3}\\*?|\\*", 0..6),
            item in "[ab]{1,4}",
        ) {
            let filter = ItemFilter::new(listed.iter().map(String::as_str));
            let expected = listed.iter().any(|listed| match listed.strip_suffix('*') {
                Some(prefix) => item.starts_with(prefix),
                None => *listed == item,
            });
            prop_assert_eq!(filter.wants(&item), expected);
        }
    }
}
