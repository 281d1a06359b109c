//! The configuration in force, for people.

use std::collections::BTreeMap;
use std::fmt;

use super::listener;
use super::source::Source;
use super::table::{LISTS, List, ROOM, SETTINGS};
use super::values::Values;

/// Every setting's value, every entry of the lists, and where each came from. Displays as a TOML file that gives the same
/// configuration again, with each value's source as a comment.
#[derive(Debug, Clone, PartialEq)]
pub struct Effective {
    pub(super) settings: Values,
    /// Entries by the name of their list, where a source gave some, right or wrong.
    lists: BTreeMap<&'static str, Vec<Values>>,
}

impl Effective {
    pub(super) fn defaults() -> Effective {
        Effective { settings: Values::defaults(SETTINGS), lists: BTreeMap::new() }
    }

    /// Takes the entries that a source gives, right or wrong. Rules for rooms of a later source come before those of the
    /// sources so far.
    pub(super) fn add(&mut self, list: &'static List, entries: Vec<Values>) {
        let all = self.lists.entry(list.name).or_default();
        let at = if list.name == ROOM.name { 0 } else { all.len() };
        all.splice(at..at, entries);
    }

    /// The entries of a list. Rules for rooms are in the order in which they are tried.
    pub(super) fn entries(&self, list: &List) -> &[Values] {
        self.lists.get(list.name).map_or(&[], Vec::as_slice)
    }

    /// Whether a source gives entries of a list, right or wrong.
    pub(super) fn gives(&self, list: &List) -> bool {
        self.lists.contains_key(list.name)
    }

    /// Whether both have the same entries of a list, wherever these came from.
    pub(super) fn agree(&self, other: &Effective, list: &List) -> bool {
        let (mine, theirs) = (self.entries(list), other.entries(list));
        mine.len() == theirs.len() && mine.iter().zip(theirs).all(|(mine, theirs)| mine.agree_in_all(theirs))
    }

    /// Takes the entries of a list that the other has.
    pub(super) fn replace(&mut self, other: &Effective, list: &List) {
        match other.lists.get(list.name) {
            Some(entries) => self.lists.insert(list.name, entries.clone()),
            None => self.lists.remove(list.name),
        };
    }

    /// Where the value of `key`, one of [`SETTINGS`], came from. Panics where the table has none of that name.
    pub fn source(&self, key: &str) -> &Source {
        self.settings.source(key)
    }
}

impl fmt::Display for Effective {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "# The effective configuration of fanfare: default < file < environment < flag.\n")?;
        let mut section = None;
        for (setting, value, source) in self.settings.lines() {
            // Read back, it would be more than its default.
            if setting.key == "listen" && !listener::serves_listen(self) {
                continue;
            }
            if setting.section() != section {
                section = setting.section();
                writeln!(f, "\n[{}]", section.unwrap_or_default())?;
            }
            writeln!(f, "{} = {value} # {}", setting.name(), source.describe())?;
        }
        for list in LISTS {
            for entry in self.entries(list) {
                writeln!(f, "\n[[{}]]", list.name)?;
                for (setting, value, source) in entry.lines() {
                    if !list.has_defaults && *source == Source::Default {
                        continue;
                    }
                    let name = setting.name_in_entry().unwrap_or(setting.key);
                    writeln!(f, "{name} = {value} # {}", source.describe())?;
                }
            }
        }
        Ok(())
    }
}
