//! Messages of the wire as clients write and read them.

use std::collections::BTreeMap;

use serde_json::value::RawValue;

/// The fields of a server's message, each as its text.
pub type Fields = BTreeMap<String, Box<RawValue>>;

/// One message that a client said. Each carries its number in its text.
pub type Serial = usize;

/// A place in a history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    /// The epoch's word.
    pub epoch: String,
    /// The number of a message in it; 0 before the first.
    pub offset: u64,
}

/// What a client that joins wants of the past.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wish {
    /// Only what is new.
    Nothing,
    /// All behind this.
    Since(Position),
    /// So many of the newest.
    Last(u64),
}

/// A page of history that is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page {
    /// In front of this offset, or at the end.
    pub before: Option<u64>,
    /// So many messages at most.
    pub limit: u64,
}

impl Wish {
    /// What a `join_room` says of it, behind its other fields.
    pub fn fields(&self) -> String {
        match self {
            Wish::Nothing => String::new(),
            Wish::Last(count) => format!(r#","last":{count}"#),
            Wish::Since(Position { epoch, offset }) => format!(r#","since":{{"epoch":"{epoch}","offset":{offset}}}"#),
        }
    }
}

impl Page {
    /// What a `history` says of it, behind its other fields.
    pub fn fields(&self) -> String {
        let before = self.before.map_or_else(String::new, |before| format!(r#","before":{before}"#));
        format!(r#"{before},"limit":{}"#, self.limit)
    }
}

/// Reads a server's message.
///
/// # Panics
/// Where it is no JSON object.
pub fn fields(text: &str) -> Fields {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// A field that has to be a string.
///
/// # Panics
/// Where it is none, or not there.
pub fn string(fields: &Fields, name: &str) -> String {
    let text = fields.get(name).unwrap_or_else(|| panic!("no {name} in {fields:?}"));
    serde_json::from_str(text.get()).unwrap_or_else(|error| panic!("{name} is no string: {error}: {fields:?}"))
}

/// A field that has to be a number, if it is there.
///
/// # Panics
/// Where it is none.
pub fn number(fields: &Fields, name: &str) -> Option<u64> {
    let text = fields.get(name)?.get();
    Some(text.parse().unwrap_or_else(|error| panic!("{name} is no number: {error}: {fields:?}")))
}

/// The place that a message names, if it names one.
///
/// # Panics
/// Where an epoch has no offset.
pub fn position(fields: &Fields) -> Option<Position> {
    fields.contains_key("epoch").then(|| {
        let offset = number(fields, "offset").expect("an epoch comes with an offset");
        Position { epoch: string(fields, "epoch"), offset }
    })
}

/// Whether all that was missed came, if that was asked for.
pub fn recovered(fields: &Fields) -> Option<bool> {
    fields.get("recovered").map(|told| told.get() == "true")
}

/// The serial that every message carries between two signs.
///
/// # Panics
/// Where there is none: no client said that.
pub fn serial_in(bytes: &[u8]) -> Serial {
    let mut parts = bytes.split(|&byte| byte == b'#');
    let serial = parts.nth(1).and_then(|digits| str::from_utf8(digits).ok()).and_then(|text| text.parse().ok());
    serial.unwrap_or_else(|| panic!("a message no client sent: {:?}", String::from_utf8_lossy(bytes)))
}

/// Text as a JSON string.
pub fn json(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// Text for a path or a query.
pub fn percent(text: &str) -> String {
    let one = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => char::from(byte).to_string(),
        other => format!("%{other:02X}"),
    };
    text.bytes().map(one).collect()
}

/// The rooms' names: one needs escapes in JSON and in paths.
pub fn room_name(at: usize) -> String {
    match at {
        1 => "\"größe\" & more".into(),
        at => format!("room{at}"),
    }
}
