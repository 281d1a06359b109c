//! What a subscriber gets of an item, taken apart; and the mark that every value carries.
//!
//! A value's content holds `#000123:00000042@1700000000000000`: update 42 of item 123 was meant to leave at that time, in
//! microseconds of Unix time. It is found wherever in the content it stands.

use std::borrow::Cow;
use std::fmt::Write;

use memchr::memchr_iter;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::bench::wire::{NAME_DIGITS, SEQUENCE_DIGITS};

/// Digits of a mark's time.
const TIME_DIGITS: usize = 16;

/// Bytes of a mark.
pub(super) const MARK_BYTES: usize = 1 + NAME_DIGITS + 1 + SEQUENCE_DIGITS + 1 + TIME_DIGITS;

/// What a value is marked with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    /// The number of its item.
    pub(super) item: u32,
    /// The number of the update among those of the item, from 0.
    pub(super) update: u32,
    /// When it was meant to leave, in microseconds of Unix time.
    pub(super) at_us: u64,
}

impl Mark {
    /// Appends it.
    pub(super) fn write(self, out: &mut String) {
        let Mark { item, update, at_us } = self;
        let _ = write!(out, "#{item:0NAME_DIGITS$}:{update:0SEQUENCE_DIGITS$}@{at_us:0TIME_DIGITS$}");
    }

    /// The first in a text.
    fn find(text: &[u8]) -> Option<Mark> {
        memchr_iter(b'#', text).find_map(|at| Mark::read(&text[at + 1..]))
    }

    /// What stands behind its first letter.
    fn read(text: &[u8]) -> Option<Mark> {
        let (item, rest) = digits::<NAME_DIGITS>(text)?;
        let (update, rest) = digits::<SEQUENCE_DIGITS>(rest.strip_prefix(b":")?)?;
        let (at_us, _) = digits::<TIME_DIGITS>(rest.strip_prefix(b"@")?)?;
        Some(Mark { item: item as u32, update: update as u32, at_us })
    }
}

/// The name of an item.
pub(super) fn item_name(item: u32) -> String {
    format!("i{item:0NAME_DIGITS$}")
}

/// The state of an item, as a subscriber gets it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Quote {
    /// The number in the item's name.
    pub(super) item: u32,
    /// The item's own number of updates.
    pub(super) seq: u64,
    /// The room's.
    pub(super) offset: u64,
    /// What its value is marked with; none where the item was removed.
    pub(super) mark: Option<Mark>,
}

/// Reads the messages of one room.
#[derive(Debug)]
pub(super) struct QuoteReader {
    /// How this server's messages begin, up to the digits of the item's name.
    prefix: Vec<u8>,
    room: String,
}

#[derive(Deserialize)]
struct RoomMsg<'a> {
    #[serde(rename = "type")]
    kind: Cow<'a, str>,
    #[serde(rename = "roomId")]
    room: Cow<'a, str>,
    item: Cow<'a, str>,
    seq: u64,
    offset: u64,
    #[serde(default)]
    removed: bool,
    #[serde(borrow)]
    content: Option<&'a RawValue>,
}

impl QuoteReader {
    /// Of this room.
    pub(super) fn new(room: &str) -> QuoteReader {
        QuoteReader {
            prefix: format!(r#"{{"type":"room_msg","roomId":"{room}","item":"i"#).into_bytes(),
            room: room.to_owned(),
        }
    }

    /// A message that tells of an item of the room; `None` for all others.
    #[inline]
    pub(super) fn read(&self, payload: &[u8]) -> Option<Quote> {
        self.read_as_usual(payload).or_else(|| self.parse(payload))
    }

    /// A value as this server writes it.
    #[inline]
    fn read_as_usual(&self, payload: &[u8]) -> Option<Quote> {
        let (item, rest) = digits::<NAME_DIGITS>(payload.strip_prefix(&self.prefix[..])?)?;
        let (seq, rest) = number(rest.strip_prefix(br#"","seq":"#)?)?;
        let (offset, rest) = number(rest.strip_prefix(br#","offset":"#)?)?;
        Some(Quote { item: item as u32, seq, offset, mark: Some(Mark::find(rest)?) })
    }

    /// A message however it is written.
    #[cold]
    fn parse(&self, payload: &[u8]) -> Option<Quote> {
        let RoomMsg { kind, room, item, seq, offset, removed, content } = serde_json::from_slice(payload).ok()?;
        let (item, rest) = digits::<NAME_DIGITS>(item.strip_prefix('i')?.as_bytes())?;
        if kind != "room_msg" || room != self.room || !rest.is_empty() {
            return None;
        }
        let mark = match (removed, content) {
            (true, None) => None,
            (false, Some(content)) => Some(Mark::find(content.get().as_bytes())?),
            (true, Some(_)) | (false, None) => return None,
        };
        Some(Quote { item: item as u32, seq, offset, mark })
    }
}

/// So many digits, and what stands behind them.
#[inline]
fn digits<const COUNT: usize>(text: &[u8]) -> Option<(u64, &[u8])> {
    let (digits, rest) = text.split_first_chunk::<COUNT>()?;
    let mut number = 0;
    for digit in digits {
        number = number * 10 + u64::from(digit.wrapping_sub(b'0'));
        if !digit.is_ascii_digit() {
            return None;
        }
    }
    Some((number, rest))
}

/// A number of up to eighteen digits, and what stands behind it.
#[inline]
fn number(text: &[u8]) -> Option<(u64, &[u8])> {
    let count = text.iter().take(19).take_while(|byte| byte.is_ascii_digit()).count();
    let number = text[..count].iter().fold(0, |number, digit| number * 10 + u64::from(digit - b'0'));
    (1..=18).contains(&count).then(|| (number, &text[count..]))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_value_is_read_however_it_is_written(
            item in 0_u32..1_000_000, update in 0_u32..100_000_000, at_us in 0_u64..10_000_000_000_000_000,
            seq in 0_u64..1_000_000_000_000, offset in 0_u64..1_000_000_000_000, before in "[a-z#]{0,8}",
        ) {
            let reader = QuoteReader::new("r000007");
            let mark = Mark { item, update, at_us };
            let mut text = before;
            mark.write(&mut text);
            let name = item_name(item);
            let quote = Some(Quote { item, seq, offset, mark: Some(mark) });
            let usual = format!(
                r#"{{"type":"room_msg","roomId":"r000007","item":"{name}","seq":{seq},"offset":{offset},"from":"p","content":"{text}"}}"#
            );
            prop_assert_eq!(reader.read_as_usual(usual.as_bytes()), quote);
            prop_assert_eq!(reader.parse(usual.as_bytes()), quote);
            let other = format!(
                r#"{{"content": {{"a":"{text}"}}, "offset":{offset}, "seq": {seq}, "item":"{name}", "roomId":"r000007","type":"room_msg"}}"#
            );
            prop_assert_eq!(reader.read(other.as_bytes()), quote);
        }
    }

    #[test]
    fn a_removal_has_no_mark() {
        let text = r#"{"type":"room_msg","roomId":"r000007","item":"i000001","seq":3,"offset":9,"removed":true}"#;
        let quote = Quote { item: 1, seq: 3, offset: 9, mark: None };
        assert_eq!(QuoteReader::new("r000007").read(text.as_bytes()), Some(quote));
        assert_eq!(QuoteReader::new("r000008").read(text.as_bytes()), None);
    }

    #[test]
    fn what_tells_of_no_item_is_no_quote() {
        let reader = QuoteReader::new("r000007");
        for text in [
            r#"{"type":"joined","roomId":"r000007","offset":9}"#,
            r#"{"type":"room_msg","roomId":"r000007","content":"x"}"#,
            r##"{"type":"room_msg","roomId":"r000007","item":"i000001","seq":3,"offset":9,"content":"#1:2@3"}"##,
            r#"{"type":"room_msg","roomId":"r000007","item":"x000001","seq":3,"offset":9,"removed":true}"#,
            "",
        ] {
            assert_eq!(reader.read(text.as_bytes()), None, "{text}");
        }
    }
}
