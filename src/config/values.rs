//! The values of one table of settings, and where each came from.

use std::path::PathBuf;
use std::time::Duration;

use super::Pin;
use super::auth::Secret;
use super::error::Problem;
use super::field_name::FieldName;
use super::http_url::HttpUrl;
use super::kind::Value;
use super::listen::Listen;
use super::pattern::Pattern;
use super::redis_url::RedisUrl;
use super::source::Source;
use super::table::Setting;
use crate::network::Networks;

/// A value for each row of a table, and where it came from.
///
/// The accessors take a key of the table and panic where the table has none of that kind: the defaults are read
/// through all of them, so that a test, not an operator, meets the panic.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Values {
    rows: &'static [Setting],
    /// One per row, in their order.
    entries: Vec<Entry>,
}

#[derive(Debug, Clone, PartialEq)]
struct Entry {
    value: Value,
    source: Source,
    /// A source said something that could not be used.
    faulty: bool,
}

impl Values {
    pub(super) fn defaults(rows: &'static [Setting]) -> Values {
        let entry = |setting: &Setting| match setting.kind.parse(setting.default) {
            Ok(value) => Entry { value, source: Source::Default, faulty: false },
            Err(error) => panic!("the default of {} is wrong: {error}", setting.key),
        };
        Values { rows, entries: rows.iter().map(entry).collect() }
    }

    /// Takes what a source says about a setting: its value, or what is wrong with it.
    pub(super) fn take(
        &mut self,
        setting: &'static Setting,
        source: Source,
        parsed: Result<Value, String>,
        problems: &mut Vec<Problem>,
    ) {
        match parsed {
            Ok(value) => self.set(setting, source, value),
            Err(what) => {
                self.fault(setting);
                problems.push(Problem::new(source, setting.key, what));
            }
        }
    }

    /// Takes a value that a source says.
    pub(super) fn set(&mut self, setting: &'static Setting, source: Source, value: Value) {
        let entry = self.entry_mut(setting.key);
        entry.value = value;
        entry.source = source;
    }

    /// Notes that a source said something that could not be used.
    pub(super) fn fault(&mut self, setting: &'static Setting) {
        self.entry_mut(setting.key).faulty = true;
    }

    /// Whether two of the same table have the same value of `key`, wherever it came from.
    pub(super) fn agree(&self, other: &Values, key: &str) -> bool {
        self.value(key) == other.value(key)
    }

    /// Whether they have the same of every key.
    pub(super) fn agree_in_all(&self, other: &Values) -> bool {
        self.rows.iter().all(|setting| self.agree(other, setting.key))
    }

    /// Takes the value of `key` that the other has.
    pub(super) fn take_from(&mut self, other: &Values, key: &str) {
        *self.entry_mut(key) = other.entry(key).clone();
    }

    /// The table.
    pub(super) fn rows(&self) -> &'static [Setting] {
        self.rows
    }

    /// Each row with its value as TOML and where that came from.
    pub(super) fn lines(&self) -> impl Iterator<Item = (&'static Setting, String, &Source)> {
        self.rows.iter().zip(&self.entries).map(|(setting, entry)| (setting, entry.value.to_toml(), &entry.source))
    }

    /// Where the value of `key` came from.
    pub(super) fn source(&self, key: &str) -> &Source {
        &self.entry(key).source
    }

    pub(super) fn is_faulty(&self, key: &str) -> bool {
        self.entry(key).faulty
    }

    /// Whether a source said anything about `key`, right or wrong.
    pub(super) fn is_said(&self, key: &str) -> bool {
        let entry = self.entry(key);
        entry.faulty || entry.source != Source::Default
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

    pub(super) fn words(&self, key: &str) -> &[&'static str] {
        match self.value(key) {
            Value::Words(words) => words,
            other => unfit(key, other),
        }
    }

    pub(super) fn listen(&self, key: &str) -> &[Listen] {
        match self.value(key) {
            Value::Addresses(addresses) => addresses,
            other => unfit(key, other),
        }
    }

    pub(super) fn address(&self, key: &str) -> &Listen {
        match self.value(key) {
            Value::Address(address) => address,
            other => unfit(key, other),
        }
    }

    pub(super) fn paths(&self, key: &str) -> &[PathBuf] {
        match self.value(key) {
            Value::Paths(paths) => paths,
            other => unfit(key, other),
        }
    }

    pub(super) fn pin(&self, key: &str) -> &Pin {
        match self.value(key) {
            Value::Pin(pin) => pin,
            other => unfit(key, other),
        }
    }

    pub(super) fn mode(&self, key: &str) -> u32 {
        match self.value(key) {
            Value::Mode(mode) => *mode,
            other => unfit(key, other),
        }
    }

    pub(super) fn pattern(&self, key: &str) -> &Pattern {
        match self.value(key) {
            Value::Pattern(pattern) => pattern,
            other => unfit(key, other),
        }
    }

    pub(super) fn patterns(&self, key: &str) -> &[Pattern] {
        match self.value(key) {
            Value::Patterns(patterns) => patterns,
            other => unfit(key, other),
        }
    }

    pub(super) fn networks(&self, key: &str) -> &Networks {
        match self.value(key) {
            Value::Networks(networks) => networks,
            other => unfit(key, other),
        }
    }

    pub(super) fn fields(&self, key: &str) -> &[FieldName] {
        match self.value(key) {
            Value::Fields(names) => names,
            other => unfit(key, other),
        }
    }

    pub(super) fn http_url(&self, key: &str) -> &HttpUrl {
        match self.value(key) {
            Value::HttpUrl(url) => url,
            other => unfit(key, other),
        }
    }

    pub(super) fn secret(&self, key: &str) -> &Secret {
        match self.value(key) {
            Value::Secret(secret) => secret,
            other => unfit(key, other),
        }
    }

    pub(super) fn redis_url(&self, key: &str) -> &RedisUrl {
        match self.value(key) {
            Value::RedisUrl(url) => url,
            other => unfit(key, other),
        }
    }

    fn value(&self, key: &str) -> &Value {
        &self.entry(key).value
    }

    fn entry(&self, key: &str) -> &Entry {
        &self.entries[self.index(key)]
    }

    fn entry_mut(&mut self, key: &str) -> &mut Entry {
        let index = self.index(key);
        &mut self.entries[index]
    }

    fn index(&self, key: &str) -> usize {
        match self.rows.iter().position(|setting| setting.key == key) {
            Some(index) => index,
            None => panic!("the table has no {key}"),
        }
    }
}

fn unfit(key: &str, value: &Value) -> ! {
    panic!("{key} is asked for as another kind than {value:?}")
}
