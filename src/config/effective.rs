//! Every setting's value and where it came from.

use std::fmt;
use std::time::Duration;

use super::Pin;
use super::error::Problem;
use super::kind::Value;
use super::listen::Listen;
use super::source::Source;
use super::table::{SETTINGS, Setting};

/// Every setting's value and where it came from. Displays as a TOML file that gives the same configuration again,
/// with each value's source as a comment.
///
/// The accessors take a key of the table and panic where the table has none of that kind: the defaults are read
/// through all of them, so that a test, not an operator, meets the panic.
#[derive(Debug, Clone, PartialEq)]
pub struct Effective {
    /// One per row of the table, in its order.
    entries: Vec<Entry>,
}

#[derive(Debug, Clone, PartialEq)]
struct Entry {
    value: Value,
    source: Source,
    /// A source said something that could not be used.
    faulty: bool,
}

impl Effective {
    pub(super) fn defaults() -> Effective {
        let entry = |setting: &Setting| match setting.kind.parse(setting.default) {
            Ok(value) => Entry { value, source: Source::Default, faulty: false },
            Err(error) => panic!("the default of {} is wrong: {error}", setting.key),
        };
        Effective { entries: SETTINGS.iter().map(entry).collect() }
    }

    /// Takes what a source says about a setting: its value, or what is wrong with it.
    pub(super) fn set(
        &mut self,
        setting: &'static Setting,
        source: Source,
        parsed: Result<Value, String>,
        problems: &mut Vec<Problem>,
    ) {
        let entry = &mut self.entries[index(setting.key)];
        match parsed {
            Ok(value) => {
                entry.value = value;
                entry.source = source;
            }
            Err(what) => {
                entry.faulty = true;
                problems.push(Problem::new(source, setting.key, what));
            }
        }
    }

    /// Where the value of `key` came from.
    pub fn source(&self, key: &str) -> &Source {
        &self.entries[index(key)].source
    }

    pub(super) fn is_faulty(&self, key: &str) -> bool {
        self.entries[index(key)].faulty
    }

    pub(super) fn number(&self, key: &str) -> u64 {
        match self.value(key) {
            Value::Integer(number) | Value::Bytes(number) => *number,
            other => unfit(key, other),
        }
    }

    /// As `number`, for what is held in memory: more than the machine can address is all of it.
    pub(super) fn size(&self, key: &str) -> usize {
        usize::try_from(self.number(key)).unwrap_or(usize::MAX)
    }

    pub(super) fn duration(&self, key: &str) -> Duration {
        match self.value(key) {
            Value::Millis(millis) => Duration::from_millis(*millis),
            other => unfit(key, other),
        }
    }

    pub(super) fn switch(&self, key: &str) -> bool {
        match self.value(key) {
            Value::Bool(switch) => *switch,
            other => unfit(key, other),
        }
    }

    pub(super) fn text(&self, key: &str) -> &str {
        match self.value(key) {
            Value::Text(text) => text,
            other => unfit(key, other),
        }
    }

    pub(super) fn word(&self, key: &str) -> &'static str {
        match self.value(key) {
            Value::Word(word) => word,
            other => unfit(key, other),
        }
    }

    pub(super) fn listen(&self, key: &str) -> &[Listen] {
        match self.value(key) {
            Value::Addresses(addresses) => addresses,
            other => unfit(key, other),
        }
    }

    pub(super) fn pin(&self, key: &str) -> &Pin {
        match self.value(key) {
            Value::Pin(pin) => pin,
            other => unfit(key, other),
        }
    }

    fn value(&self, key: &str) -> &Value {
        &self.entries[index(key)].value
    }
}

impl fmt::Display for Effective {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "# The effective configuration of fanfare: default < file < environment < flag.\n")?;
        let mut section = None;
        for (setting, entry) in SETTINGS.iter().zip(&self.entries) {
            if setting.section() != section {
                section = setting.section();
                writeln!(f, "\n[{}]", section.unwrap_or_default())?;
            }
            writeln!(f, "{} = {} # {}", setting.name(), entry.value.to_toml(), entry.source.describe())?;
        }
        Ok(())
    }
}

fn index(key: &str) -> usize {
    match SETTINGS.iter().position(|setting| setting.key == key) {
        Some(index) => index,
        None => panic!("the table has no {key}"),
    }
}

fn unfit(key: &str, value: &Value) -> ! {
    panic!("{key} is asked for as another kind than {value:?}")
}
