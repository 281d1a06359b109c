//! What the server's messages say. A value that is passed on stays the text it was, digits and escapes included.

use std::collections::HashMap;
use std::fmt::{self, Display, Formatter};
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use serde_json::value::RawValue;

/// A place in what a room keeps, as `EPOCH:OFFSET`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    /// The word within which offsets count.
    pub epoch: String,
    /// The number of the last message that one has.
    pub offset: u64,
}

impl FromStr for Position {
    type Err = String;

    fn from_str(text: &str) -> Result<Position, String> {
        // An epoch is the server's word, and may have a colon of its own.
        let parts = text.rsplit_once(':').filter(|(epoch, _)| !epoch.is_empty());
        let position = parts
            .and_then(|(epoch, offset)| offset.parse().ok().map(|offset| Position { epoch: epoch.to_owned(), offset }));
        position.ok_or_else(|| {
            format!("{text:?} is no position; write EPOCH:OFFSET, as fanfare sub says on stderr when it has joined")
        })
    }
}

impl Display for Position {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        write!(out, "{}:{}", self.epoch, self.offset)
    }
}

impl Position {
    /// The flag by which one comes back here, as a shell takes it.
    pub(super) fn flag(&self) -> String {
        let text = self.to_string();
        let is_plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte));
        match is_plain {
            true => format!("--since {text}"),
            false => format!("--since '{}'", text.replace('\'', r"'\''")),
        }
    }
}

/// What an `error` says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    /// For programs.
    pub(super) code: String,
    /// For people.
    pub(super) message: String,
}

impl Display for Refusal {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        write!(out, "the server refused it: {}: {}", self.code, self.message)
    }
}

/// A message of the server: one JSON object.
#[derive(Debug)]
pub(super) struct Message<'a> {
    fields: HashMap<String, &'a RawValue>,
}

impl<'a> Message<'a> {
    /// `None` where it is no JSON object.
    pub(super) fn parse(text: &'a str) -> Option<Message<'a>> {
        serde_json::from_str(text).ok().map(|fields| Message { fields })
    }

    /// The text of a field.
    pub(super) fn raw(&self, name: &str) -> Option<&'a str> {
        self.fields.get(name).map(|value| value.get())
    }

    /// A string.
    pub(super) fn string(&self, name: &str) -> Option<String> {
        serde_json::from_str(self.raw(name)?).ok()
    }

    /// A whole number.
    pub(super) fn number(&self, name: &str) -> Option<u64> {
        self.raw(name)?.parse().ok()
    }

    /// True or false.
    pub(super) fn flag(&self, name: &str) -> Option<bool> {
        self.raw(name)?.parse().ok()
    }

    /// Strings, those that are none left out.
    pub(super) fn strings(&self, name: &str) -> Vec<String> {
        let values: Vec<serde_json::Value> =
            self.raw(name).and_then(|raw| serde_json::from_str(raw).ok()).unwrap_or_default();
        values.into_iter().filter_map(|value| value.as_str().map(str::to_owned)).collect()
    }

    /// Its type, empty where it has none.
    pub(super) fn kind(&self) -> String {
        self.string("type").unwrap_or_default()
    }

    /// A place in a room's history, where there is one.
    pub(super) fn position(&self) -> Option<Position> {
        Some(Position { epoch: self.string("epoch")?, offset: self.number("offset")? })
    }

    /// What an `error` says.
    pub(super) fn refusal(&self) -> Refusal {
        let text = |name| self.string(name).unwrap_or_default();
        Refusal { code: text("code"), message: text("message") }
    }

    /// A value for people: a string as it is, all else as JSON.
    pub(super) fn shown(&self, name: &str) -> String {
        let raw = self.raw(name).unwrap_or_default();
        serde_json::from_str(raw).unwrap_or_else(|_| raw.to_owned())
    }

    /// When it was sent, in UTC.
    pub(super) fn time(&self) -> Option<String> {
        let at = SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(self.number("time")?))?;
        // The library knows no years of five digits.
        (at < SystemTime::UNIX_EPOCH + Duration::from_secs(YEAR_10000_S))
            .then(|| humantime::format_rfc3339_seconds(at).to_string())
    }
}

/// When the year 10000 begins, in seconds of Unix time.
const YEAR_10000_S: u64 = 253_402_300_800;

#[cfg(test)]
mod tests {
    use super::*;

    fn message(text: &str) -> Message<'_> {
        Message::parse(text).expect("an object")
    }

    #[test]
    fn positions_are_read_and_written() {
        for (text, epoch, offset) in [("5f-1:42", "5f-1", 42), ("a:b:0", "a:b", 0)] {
            let position: Position = text.parse().unwrap();
            assert_eq!(position, Position { epoch: epoch.to_owned(), offset });
            assert_eq!(position.flag(), format!("--since {text}"));
        }
        for text in ["", ":", ":5", "5", "a:", "a:-1", "a:18446744073709551616"] {
            assert!(text.parse::<Position>().unwrap_err().contains("write EPOCH:OFFSET"), "{text}");
        }
    }

    #[test]
    fn a_position_that_is_pasted_runs_nothing() {
        let position = Position { epoch: "$(reboot)'; x".to_owned(), offset: 1 };
        assert_eq!(position.flag(), r"--since '$(reboot)'\''; x:1'");
    }

    #[test]
    fn values_are_shown_for_people() {
        for (content, shown) in [
            (r#""hi \"bob\" ü""#, "hi \"bob\" ü"),
            (r#""a\nb""#, "a\nb"),
            (r#"{"price": 1e400,"b":[1]}"#, r#"{"price": 1e400,"b":[1]}"#),
            (r#""\ud800""#, r#""\ud800""#),
            ("[\n1]", "[\n1]"),
            ("null", "null"),
        ] {
            assert_eq!(message(&format!(r#"{{"content":{content}}}"#)).shown("content"), shown);
        }
        assert_eq!(message("{}").shown("content"), "");
    }

    #[test]
    fn times_are_shown_in_utc() {
        for (time, shown) in [
            ("0", Some("1970-01-01T00:00:00Z")),
            ("1709210096789", Some("2024-02-29T12:34:56Z")),
            ("253402300799999", Some("9999-12-31T23:59:59Z")),
            ("253402300800000", None),
            ("18446744073709551615", None),
            ("-1", None),
            ("\"0\"", None),
        ] {
            assert_eq!(message(&format!(r#"{{"time":{time}}}"#)).time().as_deref(), shown, "{time}");
        }
    }

    #[test]
    fn what_is_no_object_is_no_message() {
        for text in ["", "[]", "1", "{\"a\":}", "{} {}"] {
            assert!(Message::parse(text).is_none(), "{text}");
        }
    }
}
