//! Keyed rooms: updates of items, and what a subscriber wants of them.
//!
//! Whether a room is keyed is not known here. A command carries what only a
//! keyed room makes sense of as it was sent; who knows the room reads it with
//! [`KeyedFields::update`] or [`read_updates`].

use super::command::Rejection;
use super::decoder::Decoder;
use super::envelope::{Refusal, integer};
use super::error::ErrorCode;
use super::scan::{Elements, Member, Members, RawValue};
use crate::limits::{ITEM_BYTES_MAX, ITEM_PATTERNS_MAX, ITEM_UPDATES_MAX, ROUND_INTERVAL_MS_MAX};
use std::borrow::Cow;

/// What stands at the end of a pattern for any rest of an item's name.
pub const WILDCARD: char = '*';

/// The fields of an update beside its `content`: their JSON text as it stands
/// in the message, for most messages go where it has no meaning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeyedFields<'a> {
    /// `item`: the item's name.
    pub item: Option<&'a str>,
    /// `remove`: whether it is removed.
    pub remove: Option<&'a str>,
    /// `version`: the publisher's own number of the update.
    pub version: Option<&'a str>,
}

/// An update of one item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Update<'a> {
    /// Its name: 1 to [`ITEM_BYTES_MAX`] bytes without `*`.
    pub item: Cow<'a, str>,
    /// Not above the item's last one, it is stale.
    pub version: Option<i64>,
    /// What becomes of the item.
    pub body: Body<'a>,
}

/// What becomes of an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body<'a> {
    /// It has this value: any JSON value, its text untouched.
    Content(&'a str),
    /// It is removed.
    Removal,
}

/// Why there is no update.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpdateError {
    /// The first of several updates that is at fault, from 0.
    pub index: Option<usize>,
    /// For programs: `missing_field` of one update alone, `bad_item`, or
    /// `too_many_items`.
    pub code: ErrorCode,
    /// For people: what is wrong, and what would be right.
    pub message: Cow<'static, str>,
}

impl UpdateError {
    /// The refusal of the command that it was in.
    pub fn about<'a>(self, id: Option<&'a str>, room: Cow<'a, str>) -> Rejection<'a> {
        let Self { index, code, message } = self;
        Rejection { id, code, message, room: Some(room), index }
    }

    fn of_fault(index: Option<usize>, fault: Fault) -> Self {
        let code = match (index, fault) {
            (None, Fault::NoItem | Fault::NoContent) => ErrorCode::MissingField,
            (Some(_), Fault::NoItem | Fault::NoContent)
            | (_, Fault::NoObject | Fault::Item | Fault::Remove | Fault::Both | Fault::Version) => ErrorCode::BadItem,
        };
        Self { index, code, message: fault.message() }
    }
}

/// How often a subscriber is sent an item.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Mode {
    /// `all`: with every update of it.
    #[default]
    All,
    /// `latest`: with its newest value in each round.
    Latest,
}

/// What a client wants of a keyed room, as far as it says so.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SubscribeOptions<'a> {
    /// `mode`.
    pub mode: Option<Mode>,
    /// `interval`: milliseconds between two rounds at least, none to
    /// [`ROUND_INTERVAL_MS_MAX`].
    pub interval_ms: Option<u64>,
    /// `items`: up to [`ITEM_PATTERNS_MAX`] names, each of 1 to [`ITEM_BYTES_MAX`]
    /// bytes; one that ends with [`WILDCARD`] stands for all that begin so.
    /// [`WILDCARD`] stands nowhere else.
    pub items: Option<Vec<Cow<'a, str>>>,
    /// `snapshot`: whether what is there is sent first.
    pub snapshot: Option<bool>,
}

impl SubscribeOptions<'_> {
    /// The same, which borrows nothing.
    #[must_use]
    pub fn into_owned(self) -> SubscribeOptions<'static> {
        let items = self.items.map(|items| items.into_iter().map(|item| Cow::Owned(item.into_owned())).collect());
        SubscribeOptions { mode: self.mode, interval_ms: self.interval_ms, items, snapshot: self.snapshot }
    }

    /// Bytes that it takes where it borrows nothing.
    pub fn held_bytes(&self) -> usize {
        let items = self.items.as_deref().unwrap_or_default();
        size_of::<Self>() + size_of_val(items) + items.iter().map(|item| item.len()).sum::<usize>()
    }
}

/// The item that a `room_msg` of a keyed room is about, as
/// [`keyed_head`](super::keyed_head) has written it.
pub fn item_of(message: &[u8]) -> Option<Cow<'_, str>> {
    let mut members = Members::new(std::str::from_utf8(message).ok()?);
    while let Some(Member { key, value }) = members.next_member().ok()? {
        if key.inner == "item" {
            return Decoder::default().decode_within(value.as_string()?, ITEM_BYTES_MAX);
        }
    }
    None
}

/// Whether an item may have this name.
pub fn is_item(name: &str) -> bool {
    (1..=ITEM_BYTES_MAX).contains(&name.len()) && !name.contains(WILDCARD)
}

/// An update as publishers of a raw keyed room send it: 2 bytes of the item's
/// length, big endian, the item, and the payload, which is empty where the item
/// is removed. `None` where it is none.
pub fn raw_update(message: &[u8]) -> Option<(&str, &[u8])> {
    let (length, rest) = message.split_first_chunk()?;
    let (item, payload) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
    let item = str::from_utf8(item).ok()?;
    is_item(item).then_some((item, payload))
}

impl<'a> KeyedFields<'a> {
    /// The update that these fields are with the `content` beside them.
    ///
    /// # Errors
    /// [`UpdateError`] without an index.
    pub fn update(&self, content: Option<&'a str>) -> Result<Update<'a>, UpdateError> {
        let update = self.read(content, &mut Decoder::default());
        update.map_err(|fault| UpdateError::of_fault(None, fault))
    }

    fn read(&self, content: Option<&'a str>, decoder: &mut Decoder) -> Result<Update<'a>, Fault> {
        let item = RawValue::of(self.item.ok_or(Fault::NoItem)?).as_string();
        let item = item.and_then(|item| decoder.decode_within(item, ITEM_BYTES_MAX));
        let item = item.filter(|item| is_item(item)).ok_or(Fault::Item)?;
        let removes = self.remove.map_or(Some(false), switch_of).ok_or(Fault::Remove)?;
        let body = match (removes, content) {
            (false, Some(content)) => Body::Content(content),
            (true, None) => Body::Removal,
            (true, Some(_)) => return Err(Fault::Both),
            (false, None) => return Err(Fault::NoContent),
        };
        let version = self.version.map(str::parse).transpose().map_err(|_| Fault::Version)?;
        Ok(Update { item, version, body })
    }
}

/// Reads the `updates` of a command, in their order.
///
/// # Errors
/// [`UpdateError`] with the index of the first that is none, or of the first
/// beyond [`ITEM_UPDATES_MAX`]; without an index where `updates` is no array.
pub fn read_updates(updates: RawValue<'_>) -> Result<Vec<Update<'_>>, UpdateError> {
    let mut decoder = Decoder::default();
    let mut elements = Elements::new(updates.raw);
    let mut found = Vec::new();
    loop {
        let element = elements.next_element().map_err(|malformed| UpdateError {
            index: None,
            code: ErrorCode::BadItem,
            message: format!("`updates` must be an array: {malformed}").into(),
        })?;
        let Some(element) = element else { return Ok(found) };
        let index = found.len();
        if index == ITEM_UPDATES_MAX {
            let message = format!("a command may have {ITEM_UPDATES_MAX} updates: send the others in another one");
            return Err(UpdateError { index: Some(index), code: ErrorCode::TooManyItems, message: message.into() });
        }
        let update = read_object(element, &mut decoder);
        found.push(update.map_err(|fault| UpdateError::of_fault(Some(index), fault))?);
    }
}

fn read_object<'a>(update: RawValue<'a>, decoder: &mut Decoder) -> Result<Update<'a>, Fault> {
    let (mut fields, mut content) = (KeyedFields::default(), None);
    let mut members = Members::new(update.raw);
    while let Some(Member { key, value }) = members.next_member().map_err(|_| Fault::NoObject)? {
        match decoder.decode_within(key, KEY_BYTES_MAX).as_deref() {
            Some("item") => fields.item = Some(value.raw),
            Some("content") => content = Some(value.raw),
            Some("remove") => fields.remove = Some(value.raw),
            Some("version") => fields.version = Some(value.raw),
            _ => {}
        }
    }
    fields.read(content, decoder)
}

/// The longest name of a field of an update.
const KEY_BYTES_MAX: usize = "content".len();

/// What is wrong with an update.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    NoObject,
    NoItem,
    Item,
    Remove,
    Both,
    NoContent,
    Version,
}

impl Fault {
    #[cold]
    fn message(self) -> Cow<'static, str> {
        match self {
            Self::NoObject => "an update must be an object".into(),
            Self::NoItem => "an update needs the field `item`".into(),
            Self::Item => format!("`item` must be a string of 1 to {ITEM_BYTES_MAX} bytes in UTF-8 without `*`").into(),
            Self::Remove => "`remove` must be either true or false".into(),
            Self::Both => "`content` and `remove` exclude each other".into(),
            Self::NoContent => "an update needs the field `content`, or `remove` with true".into(),
            Self::Version => "`version` must be an integer of 64 bits, like 7".into(),
        }
    }
}

pub(super) fn mode(value: RawValue<'_>, decoder: &mut Decoder) -> Result<Mode, Refusal> {
    let word = value.as_string().and_then(|word| decoder.decode_within(word, "latest".len()));
    match word.as_deref() {
        Some("all") => Ok(Mode::All),
        Some("latest") => Ok(Mode::Latest),
        _ => Err(bad_options("`mode` must be either \"all\" or \"latest\"")),
    }
}

/// So many milliseconds, at most [`ROUND_INTERVAL_MS_MAX`]: more is taken for so
/// much.
pub(super) fn interval(value: RawValue<'_>) -> Result<u64, Refusal> {
    match integer(value) {
        Some(interval_ms) => Ok(interval_ms.min(ROUND_INTERVAL_MS_MAX)),
        None => Err(bad_options("`interval` must be a whole number of milliseconds, like 100")),
    }
}

pub(super) fn snapshot(value: RawValue<'_>) -> Result<bool, Refusal> {
    switch(value).ok_or_else(|| bad_options("`snapshot` must be either true or false"))
}

pub(super) fn patterns<'a>(value: RawValue<'a>, decoder: &mut Decoder) -> Result<Vec<Cow<'a, str>>, Refusal> {
    let rule = || {
        let message = format!(
            "`items` must be an array of strings, each of 1 to {ITEM_BYTES_MAX} bytes in UTF-8, with `*` at most at its end"
        );
        Refusal::new(ErrorCode::BadOptions, message)
    };
    let mut elements = Elements::new(value.raw);
    let mut patterns = Vec::new();
    while let Some(element) = elements.next_element().map_err(|_| rule())? {
        if patterns.len() == ITEM_PATTERNS_MAX {
            let message = format!("a subscription may name {ITEM_PATTERNS_MAX} items: use patterns like \"fx.*\"");
            return Err(Refusal::new(ErrorCode::TooManyItems, message));
        }
        let pattern = element.as_string().and_then(|pattern| decoder.decode_within(pattern, ITEM_BYTES_MAX));
        patterns.push(pattern.filter(|pattern| is_pattern(pattern)).ok_or_else(rule)?);
    }
    Ok(patterns)
}

/// `true` or `false`.
pub(super) fn switch(value: RawValue<'_>) -> Option<bool> {
    switch_of(value.raw)
}

fn switch_of(raw: &str) -> Option<bool> {
    match raw {
        "true" => Some(true),
        "false" => Some(false),
        _ => None,
    }
}

/// Whether it may stand in a list of wanted items: a name, or the beginning of names in front of [`WILDCARD`].
pub fn is_pattern(pattern: &str) -> bool {
    pattern == "*" || is_item(pattern.strip_suffix(WILDCARD).unwrap_or(pattern))
}

#[cold]
fn bad_options(message: &'static str) -> Refusal {
    Refusal::new(ErrorCode::BadOptions, message)
}
