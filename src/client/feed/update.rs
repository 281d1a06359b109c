//! One update of an item: as a line or an entry of a stream has it, and as a command carries it.

use std::borrow::Cow;
use std::fmt::{self, Display, Formatter};

use serde::{Deserialize, Deserializer};
use serde_json::Value;
use serde_json::value::RawValue;

/// Bytes of an item's name.
const ITEM_BYTES_MAX: usize = 128;

/// Bits of a version that hold the second number of an entry's id; the first, milliseconds of Unix time, stands above.
const SEQUENCE_BITS: u32 = 21;

/// What a line has to look like.
pub(super) const LINE_FORM: &str =
    r#"write {"item":"NAME","content":…} or {"item":"NAME","remove":true}, with "version":N if you like"#;

/// What an entry has to look like.
pub(super) const ENTRY_FORM: &str =
    "an entry has the fields item and content (JSON), or item and remove (true), and version if you like";

/// Where an update was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// A line of stdin, from 1.
    Line(u64),
    /// An entry of a stream, by its id.
    Entry(String),
}

impl Display for Place {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Place::Line(number) => write!(out, "line {number}"),
            Place::Entry(id) => write!(out, "entry {id}"),
        }
    }
}

/// An update.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Update {
    /// The item's name.
    pub(super) item: String,
    /// The object of a command's `updates`.
    pub(super) json: String,
    /// Where it was read.
    pub(super) place: Place,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line<'a> {
    #[serde(borrow)]
    item: Cow<'a, str>,
    #[serde(borrow, default, deserialize_with = "present")]
    content: Option<&'a RawValue>,
    remove: Option<bool>,
    version: Option<i64>,
}

/// A value that is there; `null` is one.
fn present<'de, D: Deserializer<'de>>(value: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(value).map(Some)
}

impl Update {
    /// Reads a line.
    ///
    /// # Errors
    ///
    /// Why it is no update.
    pub(super) fn of_line(line: &[u8], number: u64) -> Result<Update, String> {
        let Line { item, content, remove, version } =
            serde_json::from_slice(line).map_err(|error| format!("is no update: {error}; {LINE_FORM}"))?;
        Update::new(&item, content.map(RawValue::get), remove, version, Place::Line(number))
            .map_err(|why| format!("{why}; {LINE_FORM}"))
    }

    /// Reads an entry of a stream. Where it says no version and `versions` are wanted its id is one.
    ///
    /// # Errors
    ///
    /// Why it is no update.
    pub(super) fn of_entry(id: String, fields: &[(Vec<u8>, Vec<u8>)], versions: bool) -> Result<Update, String> {
        let wrong = |why: &str| format!("{why}; {ENTRY_FORM}");
        let (mut item, mut content, mut remove, mut version) = (None, None, None, None);
        for (name, value) in fields {
            let text = str::from_utf8(value).map_err(|error| wrong(&format!("is not UTF-8: {error}")))?;
            match &name[..] {
                b"item" => item = Some(text),
                b"content" => {
                    let value: &RawValue = serde_json::from_str(text)
                        .map_err(|error| wrong(&format!("its content is no JSON: {error}")))?;
                    content = Some(value.get());
                }
                b"remove" => remove = Some(matches!(text, "true" | "1")),
                b"version" => {
                    version = Some(text.parse().map_err(|_| wrong("its version is no whole number of 64 bits"))?);
                }
                // Streams carry what others need as well.
                _ => {}
            }
        }
        let version = match (version, versions) {
            (None, true) => Some(version_of_id(&id).ok_or_else(|| {
                wrong("its id is no time, from which a version could be made: give it a version, or say --no-versions")
            })?),
            (version, _) => version,
        };
        let item = item.ok_or_else(|| wrong("has no item"))?;
        Update::new(item, content, remove, version, Place::Entry(id)).map_err(|why| wrong(&why))
    }

    fn new(
        item: &str,
        content: Option<&str>,
        remove: Option<bool>,
        version: Option<i64>,
        place: Place,
    ) -> Result<Update, String> {
        if item.is_empty() || item.len() > ITEM_BYTES_MAX || item.contains('*') {
            return Err(format!("has an item that is none: a name has 1 to {ITEM_BYTES_MAX} bytes and no *"));
        }
        let body = match (content, remove.unwrap_or(false)) {
            (Some(content), false) => format!(r#""content":{content}"#),
            (None, true) => r#""remove":true"#.to_owned(),
            (Some(_), true) => return Err("has a content and removes its item".to_owned()),
            (None, false) => return Err("has no content".to_owned()),
        };
        let version = version.map_or(String::new(), |version| format!(r#","version":{version}"#));
        let json = format!(r#"{{"item":{},{body}{version}}}"#, Value::from(item));
        Ok(Update { item: item.to_owned(), json, place })
    }
}

/// A number that grows with the ids of a stream: `MS-SEQUENCE`, of which the second is below 2^21 and the first is a time
/// before the year 2109.
fn version_of_id(id: &str) -> Option<i64> {
    let (ms, sequence) = id.split_once('-')?;
    let (ms, sequence): (u64, u64) = (ms.parse().ok()?, sequence.parse().ok()?);
    let fits = ms < 1 << (i64::BITS - 1 - SEQUENCE_BITS) && sequence < 1 << SEQUENCE_BITS;
    fits.then_some((ms << SEQUENCE_BITS | sequence) as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str) -> Result<String, String> {
        Update::of_line(text.as_bytes(), 7).map(|update| update.json)
    }

    #[test]
    fn a_line_keeps_the_text_of_its_content() {
        for (text, json) in [
            (r#"{"item":"A","content":1e400}"#, r#"{"item":"A","content":1e400}"#),
            (
                r#" { "content" : {"b": 1, "a":["\ud800"]}, "item":"A\u0042" } "#,
                r#"{"item":"AB","content":{"b": 1, "a":["\ud800"]}}"#,
            ),
            (r#"{"item":"A","remove":true,"version":-5}"#, r#"{"item":"A","remove":true,"version":-5}"#),
            (r#"{"item":"A","content":null,"remove":false}"#, r#"{"item":"A","content":null}"#),
        ] {
            assert_eq!(line(text).as_deref(), Ok(json), "{text}");
        }
    }

    #[test]
    fn what_is_no_update_is_said() {
        for (text, why) in [
            ("", "is no update"),
            ("[]", "is no update"),
            (r#"{"content":1}"#, "missing field `item`"),
            (r#"{"item":"A"}"#, "has no content"),
            (r#"{"item":"A","content":1,"remove":true}"#, "has a content and removes"),
            (r#"{"item":"A*","content":1}"#, "no *"),
            (r#"{"item":"","content":1}"#, "1 to 128 bytes"),
            (r#"{"item":"A","content":1,"vresion":3}"#, "unknown field `vresion`"),
            (r#"{"item":"A","content":1,"version":1.5}"#, "version"),
        ] {
            let error = line(text).unwrap_err();
            assert!(error.contains(why) || why == "version", "{text}: {error}");
            assert!(error.ends_with(LINE_FORM), "{error}");
        }
    }

    #[test]
    fn an_entry_has_its_id_for_a_version() {
        let fields = |pairs: &[(&str, &str)]| -> Vec<(Vec<u8>, Vec<u8>)> {
            pairs.iter().map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec())).collect()
        };
        let read = |id: &str, pairs: &[(&str, &str)], versions| {
            Update::of_entry(id.to_owned(), &fields(pairs), versions).map(|update| update.json)
        };
        let usual = [("item", "A"), ("content", "[1]"), ("source", "x")];
        assert_eq!(read("1-2", &usual, false).unwrap(), r#"{"item":"A","content":[1]}"#);
        assert_eq!(read("1-2", &usual, true).unwrap(), r#"{"item":"A","content":[1],"version":2097154}"#);
        let own = [("item", "A"), ("remove", "true"), ("version", "9")];
        assert_eq!(read("1-2", &own, true).unwrap(), r#"{"item":"A","remove":true,"version":9}"#);
        assert!(read("1-2097152", &usual, true).unwrap_err().contains("--no-versions"));
        assert!(read("1-2", &[("item", "A"), ("content", "x")], true).unwrap_err().contains("no JSON"));
        assert!(read("1-2", &[("content", "1")], true).unwrap_err().contains("has no item"));
    }

    #[test]
    fn versions_grow_with_ids() {
        let ids =
            ["0-1", "0-2", "1-0", "1700000000000-0", "1700000000000-1", "1700000000001-0", "4398046511103-2097151"];
        let versions: Vec<i64> = ids.iter().map(|id| version_of_id(id).unwrap()).collect();
        assert!(versions.is_sorted_by(|one, two| one < two), "{versions:?}");
        assert_eq!(versions.last(), Some(&i64::MAX));
        for id in ["", "5", "a-b", "4398046511104-0"] {
            assert_eq!(version_of_id(id), None, "{id}");
        }
    }
}
