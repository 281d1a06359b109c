//! A read-only scanner for RFC 8259 text: it validates a whole text and hands
//! out the spans of an object's members, or of an array's elements, as they
//! stand in the input.
//!
//! It decodes nothing, so it has no opinion on what a value means: `1e400`,
//! integers of any length and the escape of a lone surrogate are valid by the
//! grammar and pass. Nesting is bounded by [`NESTING_MAX`] and kept in a bit
//! set, not on the stack, so that no text can exhaust it.

use super::NESTING_MAX;
use std::fmt;

/// Why a text is not what RFC 8259 allows, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed {
    /// Offset in bytes of the first one that cannot be right; the length of
    /// the text if it ends too early.
    pub at: usize,
    /// What is wrong there.
    pub fault: Fault,
}

/// What is wrong with a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The text stops inside a value.
    UnexpectedEnd,
    /// An object must begin here.
    ExpectedObject,
    /// An array must begin here.
    ExpectedArray,
    /// A member's name in quotes must stand here.
    ExpectedName,
    /// The colon between a member's name and its value must stand here.
    ExpectedColon,
    /// A value must begin here.
    ExpectedValue,
    /// A number must have a digit here (RFC 8259, section 6).
    ExpectedDigit,
    /// An object must go on or end here.
    ExpectedCommaOrBrace,
    /// An array must go on or end here.
    ExpectedCommaOrBracket,
    /// A byte below 0x20 inside a string (RFC 8259, section 7).
    ControlCharacter,
    /// A backslash that begins no escape (RFC 8259, section 7).
    BadEscape,
    /// More than [`NESTING_MAX`] levels.
    TooDeep,
    /// Something other than white space after the value.
    TrailingText,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.fault {
            Fault::UnexpectedEnd => f.write_str("the text ends too early")?,
            Fault::ExpectedObject => f.write_str("expected an object")?,
            Fault::ExpectedArray => f.write_str("expected an array")?,
            Fault::ExpectedName => f.write_str("expected a name in quotes")?,
            Fault::ExpectedColon => f.write_str("expected `:`")?,
            Fault::ExpectedValue => f.write_str("expected a value")?,
            Fault::ExpectedDigit => f.write_str("expected a digit")?,
            Fault::ExpectedCommaOrBrace => f.write_str("expected `,` or `}`")?,
            Fault::ExpectedCommaOrBracket => f.write_str("expected `,` or `]`")?,
            Fault::ControlCharacter => f.write_str("control character in a string")?,
            Fault::BadEscape => f.write_str("not an escape")?,
            Fault::TooDeep => write!(f, "nested more than {NESTING_MAX} levels deep")?,
            Fault::TrailingText => f.write_str("text after the end of the value")?,
        }
        write!(f, ", at byte {}", self.at)
    }
}

impl std::error::Error for Malformed {}

/// A string as it stands in the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawString<'a> {
    /// What stands between the quotes, escapes as they were sent.
    pub inner: &'a str,
    /// Whether it holds an escape; without one, `inner` is the string itself.
    pub escaped: bool,
}

/// What kind of value a text is; its first byte tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A string without escapes: what stands between its quotes is its value.
    PlainString,
    /// A string with at least one escape.
    EscapedString,
    /// A number.
    Number,
    /// An object.
    Object,
    /// An array.
    Array,
    /// `true`, `false` or `null`.
    Literal,
}

/// A value as it stands in the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawValue<'a> {
    /// The value's JSON text, byte for byte, without the white space around it.
    pub raw: &'a str,
    /// What it is.
    pub kind: Kind,
}

impl<'a> RawValue<'a> {
    /// What `raw` is, which must be a value by RFC 8259 without white space
    /// around it.
    #[must_use]
    pub fn of(raw: &'a str) -> Self {
        let kind = match byte_at(raw.as_bytes(), 0) {
            b'"' if raw.contains('\\') => Kind::EscapedString,
            b'"' => Kind::PlainString,
            b'{' => Kind::Object,
            b'[' => Kind::Array,
            b'-' | b'0'..=b'9' => Kind::Number,
            _ => Kind::Literal,
        };
        Self { raw, kind }
    }

    /// The value as a string, if it is one.
    #[must_use]
    #[inline]
    pub fn as_string(self) -> Option<RawString<'a>> {
        let escaped = match self.kind {
            Kind::PlainString => false,
            Kind::EscapedString => true,
            Kind::Number | Kind::Object | Kind::Array | Kind::Literal => return None,
        };
        let inner = &self.raw[1..self.raw.len() - 1];
        Some(RawString { inner, escaped })
    }
}

/// One member of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member<'a> {
    /// The name.
    pub key: RawString<'a>,
    /// The value.
    pub value: RawValue<'a>,
}

/// Reads the members of the object that a text consists of, in their order,
/// duplicates included. The text is proven valid once [`Members::next_member`]
/// has returned `None`, and not before.
#[derive(Debug)]
pub struct Members<'a> {
    text: &'a str,
    cursor: Cursor,
}

impl<'a> Members<'a> {
    /// Starts at the beginning of `text`.
    #[must_use]
    #[inline]
    pub fn new(text: &'a str) -> Self {
        let cursor = Cursor::Before;
        Self { text, cursor }
    }

    /// The next member; `None` once the object and the text have ended.
    ///
    /// # Errors
    /// [`Malformed`] where the text is not an object by RFC 8259; and again if
    /// it is asked once more.
    // Always, since a member that is returned through memory costs as much as
    // the scanning of it: the stores and the loads that follow differ in width.
    #[inline(always)]
    pub fn next_member(&mut self) -> Result<Option<Member<'a>>, Malformed> {
        let bytes = self.text.as_bytes();
        let Some(start) = next_in(bytes, &mut self.cursor, b'{', b'}')? else {
            return Ok(None);
        };
        let (key_end, escaped, value_start) = skip_key(bytes, start)?;
        let inner = &self.text[start + 1..key_end - 1];
        let key = RawString { inner, escaped };
        let (end, kind) = skip_value(bytes, value_start)?;
        let raw = &self.text[value_start..end];
        let value = RawValue { raw, kind };
        self.cursor = Cursor::Inside(end);
        Ok(Some(Member { key, value }))
    }
}

/// Reads the elements of the array that a text consists of, in their order.
/// The text is proven valid once [`Elements::next_element`] has returned
/// `None`, and not before.
#[derive(Debug)]
pub struct Elements<'a> {
    text: &'a str,
    cursor: Cursor,
}

impl<'a> Elements<'a> {
    /// Starts at the beginning of `text`.
    #[must_use]
    pub fn new(text: &'a str) -> Self {
        let cursor = Cursor::Before;
        Self { text, cursor }
    }

    /// The next element; `None` once the array and the text have ended.
    ///
    /// # Errors
    /// [`Malformed`] where the text is not an array by RFC 8259; and again if
    /// it is asked once more.
    pub fn next_element(&mut self) -> Result<Option<RawValue<'a>>, Malformed> {
        let bytes = self.text.as_bytes();
        let Some(start) = next_in(bytes, &mut self.cursor, b'[', b']')? else {
            return Ok(None);
        };
        let (end, kind) = skip_value(bytes, start)?;
        let raw = &self.text[start..end];
        self.cursor = Cursor::Inside(end);
        Ok(Some(RawValue { raw, kind }))
    }
}

/// Reads a text from the outside in, each byte once: whoever reads says which objects and arrays it enters, and takes other
/// values whole. Each value taken may be nested as deeply as a message's.
#[derive(Debug)]
pub struct Walk<'a> {
    text: &'a str,
    at: usize,
    /// Nothing of the innermost object or array was read.
    opened: bool,
}

impl<'a> Walk<'a> {
    /// Starts at the text's value.
    #[must_use]
    pub fn new(text: &'a str) -> Self {
        let at = skip_space(text.as_bytes(), 0);
        Self { text, at, opened: true }
    }

    /// What kind of value begins here, which may turn out to be none.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match byte_at(self.text.as_bytes(), self.at) {
            b'"' => Kind::PlainString,
            b'{' => Kind::Object,
            b'[' => Kind::Array,
            b'-' | b'0'..=b'9' => Kind::Number,
            _ => Kind::Literal,
        }
    }

    /// Enters the object that begins here.
    ///
    /// # Errors
    /// [`Malformed`] where none does.
    pub fn enter_object(&mut self) -> Result<(), Malformed> {
        self.enter(b'{', Fault::ExpectedObject)
    }

    /// Enters the array that begins here.
    ///
    /// # Errors
    /// [`Malformed`] where none does.
    pub fn enter_array(&mut self) -> Result<(), Malformed> {
        self.enter(b'[', Fault::ExpectedArray)
    }

    /// The name of the object's next member, whose value begins here then; `None` where the object has ended.
    ///
    /// # Errors
    /// [`Malformed`].
    #[inline(always)]
    pub fn next_member(&mut self) -> Result<Option<RawString<'a>>, Malformed> {
        if !self.goes_on(b'}')? {
            return Ok(None);
        }
        let start = self.at;
        let (end, escaped, value) = skip_key(self.text.as_bytes(), start)?;
        self.at = value;
        Ok(Some(RawString { inner: &self.text[start + 1..end - 1], escaped }))
    }

    /// Whether the array has a next element, which begins here then; else the array has ended.
    ///
    /// # Errors
    /// [`Malformed`].
    #[inline]
    pub fn next_element(&mut self) -> Result<bool, Malformed> {
        self.goes_on(b']')
    }

    /// Takes the value that begins here.
    ///
    /// # Errors
    /// [`Malformed`].
    #[inline(always)]
    pub fn value(&mut self) -> Result<RawValue<'a>, Malformed> {
        let start = self.at;
        let (end, kind) = skip_value(self.text.as_bytes(), start)?;
        self.at = end;
        self.opened = false;
        Ok(RawValue { raw: &self.text[start..end], kind })
    }

    /// The text ends here, but for white space.
    ///
    /// # Errors
    /// [`Malformed`] where it goes on.
    pub fn end(self) -> Result<(), Malformed> {
        let bytes = self.text.as_bytes();
        let at = skip_space(bytes, self.at);
        match at < bytes.len() {
            true => malformed(bytes, at, Fault::TrailingText),
            false => Ok(()),
        }
    }

    fn enter(&mut self, open: u8, fault: Fault) -> Result<(), Malformed> {
        let bytes = self.text.as_bytes();
        if byte_at(bytes, self.at) != open {
            return malformed(bytes, self.at, fault);
        }
        self.at += 1;
        self.opened = true;
        Ok(())
    }

    /// Whether there is one more in front of `close`, at which it stands then; else it stands behind that.
    #[inline(always)]
    fn goes_on(&mut self, close: u8) -> Result<bool, Malformed> {
        let bytes = self.text.as_bytes();
        let at = skip_space(bytes, self.at);
        let next = byte_at(bytes, at);
        if next == close {
            (self.at, self.opened) = (at + 1, false);
            return Ok(false);
        }
        self.at = match (std::mem::take(&mut self.opened), next) {
            (true, _) => at,
            (false, b',') => skip_space(bytes, at + 1),
            (false, _) => return malformed(bytes, at, expected_next(close == b'}')),
        };
        Ok(true)
    }
}

/// The offset, from `from` on, of the first byte that cannot stand in a JSON
/// string as it is: a quote, a backslash or a control character. The length of
/// `bytes` if there is none.
#[inline]
pub(super) fn find_special(bytes: &[u8], from: usize) -> usize {
    let mut at = from;
    // Most strings of an envelope are shorter than this: words first, and only
    // then the wide blocks, whose set-up costs more.
    for _ in 0..WORDS_BEFORE_BLOCKS {
        let Some(word) = bytes.get(at..).and_then(<[u8]>::first_chunk) else {
            return find_special_in_tail(bytes, at);
        };
        let hits = special_bytes(*word);
        if hits != 0 {
            return at + hits.trailing_zeros() as usize / 8;
        }
        at += WORD_BYTES;
    }
    find_special_in_blocks(bytes, at)
}

const WORD_BYTES: usize = size_of::<u64>();
const WORDS_BEFORE_BLOCKS: usize = 3;
const BLOCK_BYTES: usize = 32;

/// Goes block by block, which the compiler turns into vector instructions.
fn find_special_in_blocks(bytes: &[u8], from: usize) -> usize {
    let mut at = from;
    while let Some(block) = bytes[at..].first_chunk::<BLOCK_BYTES>() {
        let special = block.iter().fold(0, |any, &byte| any | u8::from(is_special(byte)));
        if special != 0 {
            break;
        }
        at += BLOCK_BYTES;
    }
    while let Some(word) = bytes[at..].first_chunk() {
        let hits = special_bytes(*word);
        if hits != 0 {
            return at + hits.trailing_zeros() as usize / 8;
        }
        at += WORD_BYTES;
    }
    find_special_in_tail(bytes, at)
}

fn find_special_in_tail(bytes: &[u8], from: usize) -> usize {
    let tail = bytes.get(from..).unwrap_or_default();
    let length = tail.iter().position(|&byte| is_special(byte));
    length.map_or(bytes.len(), |length| from + length)
}

fn is_special(byte: u8) -> bool {
    (byte == b'"') | (byte == b'\\') | (byte < b' ')
}

/// Eight bytes at a time: the lowest bit set marks the first special byte (the
/// bits above it may be wrong, since subtraction borrows upward only).
#[inline]
fn special_bytes(word: [u8; WORD_BYTES]) -> u64 {
    const LOW: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = LOW << 7;
    let word = u64::from_le_bytes(word);
    let quotes = word ^ (LOW * b'"' as u64);
    let backslashes = word ^ (LOW * b'\\' as u64);
    let controls = word.wrapping_sub(LOW * b' ' as u64) & !word;
    let quotes = quotes.wrapping_sub(LOW) & !quotes;
    let backslashes = backslashes.wrapping_sub(LOW) & !backslashes;
    (controls | quotes | backslashes) & HIGH
}

/// Where a reader of members or elements stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cursor {
    /// At the beginning of the text.
    Before,
    /// Behind a member or element that ended at this offset.
    Inside(usize),
    /// Behind the end of the whole, which was valid.
    After,
}

/// Where the next member or element of the text's outermost container begins;
/// `None` behind the last, if nothing but white space follows the end.
#[inline(always)]
fn next_in(bytes: &[u8], cursor: &mut Cursor, open: u8, close: u8) -> Result<Option<usize>, Malformed> {
    let at = match *cursor {
        Cursor::Before => {
            let at = skip_space(bytes, 0);
            if byte_at(bytes, at) != open {
                return malformed(bytes, at, expected_outermost(open == b'{'));
            }
            let at = skip_space(bytes, at + 1);
            if byte_at(bytes, at) != close {
                return Ok(Some(at));
            }
            at
        }
        Cursor::Inside(end) => {
            let at = skip_space(bytes, end);
            match byte_at(bytes, at) {
                b',' => return Ok(Some(skip_space(bytes, at + 1))),
                byte if byte == close => at,
                _ => return malformed(bytes, at, expected_next(close == b'}')),
            }
        }
        Cursor::After => return Ok(None),
    };
    let at = skip_space(bytes, at + 1);
    if at < bytes.len() {
        return malformed(bytes, at, Fault::TrailingText);
    }
    *cursor = Cursor::After;
    Ok(None)
}

/// Steps over a member's name and the colon behind it. Returns where the name
/// ended, whether it has escapes, and where the value begins.
#[inline(always)]
fn skip_key(bytes: &[u8], at: usize) -> Result<(usize, bool, usize), Malformed> {
    if byte_at(bytes, at) != b'"' {
        return malformed(bytes, at, Fault::ExpectedName);
    }
    let (end, escaped) = skip_string(bytes, at)?;
    let at = skip_space(bytes, end);
    if byte_at(bytes, at) != b':' {
        return malformed(bytes, at, Fault::ExpectedColon);
    }
    Ok((end, escaped, skip_space(bytes, at + 1)))
}

/// Steps over a whole value, whatever it holds.
#[inline(always)]
fn skip_value(bytes: &[u8], at: usize) -> Result<(usize, Kind), Malformed> {
    Ok(match byte_at(bytes, at) {
        b'"' => match skip_string(bytes, at)? {
            (end, false) => (end, Kind::PlainString),
            (end, true) => (end, Kind::EscapedString),
        },
        b'{' => (skip_container(bytes, at)?, Kind::Object),
        b'[' => (skip_container(bytes, at)?, Kind::Array),
        b'-' | b'0'..=b'9' => (skip_number(bytes, at)?, Kind::Number),
        _ => (skip_literal(bytes, at)?, Kind::Literal),
    })
}

/// Steps over an object or array and everything inside.
fn skip_container(bytes: &[u8], mut at: usize) -> Result<usize, Malformed> {
    let mut nesting = Nesting::default();
    loop {
        // A value begins at `at`.
        let first = byte_at(bytes, at);
        let opened = matches!(first, b'{' | b'[');
        at = match first {
            b'"' => skip_string(bytes, at)?.0,
            b'{' | b'[' => {
                if nesting.is_full() {
                    return malformed(bytes, at, Fault::TooDeep);
                }
                nesting.push(first == b'{');
                at + 1
            }
            b'-' | b'0'..=b'9' => skip_number(bytes, at)?,
            _ => skip_literal(bytes, at)?,
        };
        match skip_to_next_value(bytes, at, &mut nesting, opened)? {
            Step::Value(next) => at = next,
            Step::End(end) => return Ok(end),
        }
    }
}

/// What comes after a value inside a container.
enum Step {
    /// Another value, at this offset.
    Value(usize),
    /// The end of the outermost container, before this offset.
    End(usize),
}

/// Goes on from the end of a value, or from behind an opening bracket, out of
/// all containers that end before the next value.
#[inline(always)]
fn skip_to_next_value(bytes: &[u8], mut at: usize, nesting: &mut Nesting, mut opened: bool) -> Result<Step, Malformed> {
    loop {
        at = skip_space(bytes, at);
        let in_object = nesting.in_object();
        match (byte_at(bytes, at), in_object) {
            (b'}', true) | (b']', false) => {
                nesting.pop();
                at += 1;
                if nesting.is_empty() {
                    return Ok(Step::End(at));
                }
                opened = false;
                continue;
            }
            _ if opened => {}
            (b',', _) => at = skip_space(bytes, at + 1),
            _ => return malformed(bytes, at, expected_next(in_object)),
        }
        if in_object {
            at = skip_key(bytes, at)?.2;
        }
        return Ok(Step::Value(at));
    }
}

/// The open containers of a value, the innermost in the lowest bit: 1 is an
/// object, 0 an array. The one that the reader itself walks is not among them.
#[derive(Default)]
struct Nesting {
    kinds: u128,
    depth: u32,
}

const DEPTH_MAX: u32 = NESTING_MAX - 1;
const _: () = assert!(DEPTH_MAX <= u128::BITS);

impl Nesting {
    #[inline]
    fn push(&mut self, is_object: bool) {
        self.kinds = self.kinds << 1 | u128::from(is_object);
        self.depth += 1;
    }

    #[inline]
    fn pop(&mut self) {
        self.kinds >>= 1;
        self.depth -= 1;
    }

    #[inline]
    fn in_object(&self) -> bool {
        self.kinds & 1 == 1
    }

    #[inline]
    fn is_full(&self) -> bool {
        self.depth == DEPTH_MAX
    }

    #[inline]
    fn is_empty(&self) -> bool {
        self.depth == 0
    }
}

/// Steps over a string (RFC 8259, section 7). Returns where it ended and
/// whether it has escapes.
#[inline(always)]
fn skip_string(bytes: &[u8], at: usize) -> Result<(usize, bool), Malformed> {
    let at = find_special(bytes, at + 1);
    if byte_at(bytes, at) == b'"' {
        return Ok((at + 1, false));
    }
    Ok((skip_escapes(bytes, at)?, true))
}

/// Goes on with a string at its first byte that needs a closer look.
#[inline(never)]
fn skip_escapes(bytes: &[u8], mut at: usize) -> Result<usize, Malformed> {
    loop {
        at += match bytes.get(at..).unwrap_or_default() {
            [b'"', ..] => return Ok(at + 1),
            [b'\\', b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't', ..] => 2,
            [b'\\', b'u', digits @ ..] if starts_with_four_hex_digits(digits) => 6,
            [b'\\', ..] => return malformed(bytes, at, Fault::BadEscape),
            [_, ..] => return malformed(bytes, at, Fault::ControlCharacter),
            [] => return malformed(bytes, at, Fault::UnexpectedEnd),
        };
        at = find_special(bytes, at);
    }
}

fn starts_with_four_hex_digits(bytes: &[u8]) -> bool {
    bytes.first_chunk::<4>().is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
}

/// Steps over a number (RFC 8259, section 6).
#[inline]
fn skip_number(bytes: &[u8], mut at: usize) -> Result<usize, Malformed> {
    if byte_at(bytes, at) == b'-' {
        at += 1;
    }
    at = match byte_at(bytes, at) {
        b'0' => at + 1,
        _ => skip_digits(bytes, at)?,
    };
    if byte_at(bytes, at) == b'.' {
        at = skip_digits(bytes, at + 1)?;
    }
    if let b'e' | b'E' = byte_at(bytes, at) {
        at += 1;
        if let b'+' | b'-' = byte_at(bytes, at) {
            at += 1;
        }
        at = skip_digits(bytes, at)?;
    }
    Ok(at)
}

/// Steps over one digit or more.
#[inline]
fn skip_digits(bytes: &[u8], start: usize) -> Result<usize, Malformed> {
    let mut at = start;
    while byte_at(bytes, at).is_ascii_digit() {
        at += 1;
    }
    if at == start {
        return malformed(bytes, at, Fault::ExpectedDigit);
    }
    Ok(at)
}

#[inline]
fn skip_literal(bytes: &[u8], at: usize) -> Result<usize, Malformed> {
    match bytes.get(at..).unwrap_or_default() {
        [b't', b'r', b'u', b'e', ..] | [b'n', b'u', b'l', b'l', ..] => Ok(at + 4),
        [b'f', b'a', b'l', b's', b'e', ..] => Ok(at + 5),
        _ => malformed(bytes, at, Fault::ExpectedValue),
    }
}

#[inline]
fn skip_space(bytes: &[u8], mut at: usize) -> usize {
    while let b' ' | b'\t' | b'\n' | b'\r' = byte_at(bytes, at) {
        at += 1;
    }
    at
}

/// The byte at `at`; at the end a NUL, which JSON allows nowhere.
#[inline]
fn byte_at(bytes: &[u8], at: usize) -> u8 {
    bytes.get(at).copied().unwrap_or(0)
}

fn expected_outermost(object: bool) -> Fault {
    if object { Fault::ExpectedObject } else { Fault::ExpectedArray }
}

fn expected_next(in_object: bool) -> Fault {
    if in_object { Fault::ExpectedCommaOrBrace } else { Fault::ExpectedCommaOrBracket }
}

#[cold]
fn malformed<T>(bytes: &[u8], at: usize, fault: Fault) -> Result<T, Malformed> {
    let fault = match at < bytes.len() {
        true => fault,
        false => Fault::UnexpectedEnd,
    };
    Err(Malformed { at, fault })
}
