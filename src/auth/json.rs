//! JSON objects as types, more strictly than usual: an array is no object, and `null` is not as good as absent.

use serde::{Deserialize, Deserializer};

/// An object. A derived type would take an array of its fields' values, too.
pub(super) fn object<'a, T: Deserialize<'a>>(text: &'a str) -> serde_json::Result<T> {
    match text.trim_start_matches([' ', '\t', '\n', '\r']).starts_with(['[', '"']) {
        true => Err(serde::de::Error::custom("no object")),
        false => serde_json::from_str(text),
    }
}

/// What is there has to be of its type. Stands beside `default` at a field.
pub(super) fn present<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}
