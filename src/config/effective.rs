//! The configuration in force, for people.

use std::fmt;

use super::source::Source;
use super::table::{ROOM, SETTINGS};
use super::values::Values;

/// Every setting's value, every rule for rooms, and where each came from. Displays as a TOML file that gives the same
/// configuration again, with each value's source as a comment.
#[derive(Debug, Clone, PartialEq)]
pub struct Effective {
    pub(super) settings: Values,
    /// In the order in which they are tried.
    pub(super) rules: Vec<Values>,
}

impl Effective {
    pub(super) fn defaults() -> Effective {
        Effective { settings: Values::defaults(SETTINGS), rules: Vec::new() }
    }

    /// Takes the rules of a later source: they come before those of the sources so far.
    pub(super) fn put_first(&mut self, rules: Vec<Values>) {
        self.rules.splice(..0, rules);
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
            if setting.section() != section {
                section = setting.section();
                writeln!(f, "\n[{}]", section.unwrap_or_default())?;
            }
            writeln!(f, "{} = {value} # {}", setting.name(), source.describe())?;
        }
        for rule in &self.rules {
            writeln!(f, "\n[[{ROOM}]]")?;
            for (setting, value, source) in rule.lines() {
                let name = setting.name_in_rule().unwrap_or(setting.key);
                writeln!(f, "{name} = {value} # {}", source.describe())?;
            }
        }
        Ok(())
    }
}
