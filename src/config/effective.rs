//! The configuration in force, for people.

use std::fmt;

use super::source::Source;
use super::table::{AUTH_KEY, ROOM, SETTINGS};
use super::values::Values;

/// Every setting's value, every rule for rooms, and where each came from. Displays as a TOML file that gives the same
/// configuration again, with each value's source as a comment.
#[derive(Debug, Clone, PartialEq)]
pub struct Effective {
    pub(super) settings: Values,
    /// In the order in which they are tried.
    pub(super) rules: Vec<Values>,
    /// Keys for tokens.
    pub(super) auth_keys: Vec<Values>,
    /// A source gave one, right or wrong.
    pub(super) is_auth_meant: bool,
}

impl Effective {
    pub(super) fn defaults() -> Effective {
        Effective {
            settings: Values::defaults(SETTINGS),
            rules: Vec::new(),
            auth_keys: Vec::new(),
            is_auth_meant: false,
        }
    }

    /// Takes the rules of a later source: they come before those of the sources so far.
    pub(super) fn put_first(&mut self, rules: Vec<Values>) {
        self.rules.splice(..0, rules);
    }

    /// Takes the keys for tokens of a source that gives some, right or wrong.
    pub(super) fn add_auth_keys(&mut self, keys: Vec<Values>) {
        self.is_auth_meant = true;
        self.auth_keys.extend(keys);
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
        let rules = self.rules.iter().map(|rule| (ROOM, rule));
        let keys = self.auth_keys.iter().map(|key| (AUTH_KEY, key));
        for (list, rule) in rules.chain(keys) {
            writeln!(f, "\n[[{list}]]")?;
            for (setting, value, source) in rule.lines() {
                if list == AUTH_KEY && *source == Source::Default {
                    continue;
                }
                let name = setting.name_in_rule().unwrap_or(setting.key);
                writeln!(f, "{name} = {value} # {}", source.describe())?;
            }
        }
        Ok(())
    }
}
