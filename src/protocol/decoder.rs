//! Decodes the strings of a message that the server itself needs.

use super::scan::RawString;
use simd_json::{Buffers, Node, to_tape_with_buffers};
use std::borrow::Cow;

/// The longest escape, `\u0041`, stands for at least one byte: a string of more
/// than this many times the bytes allowed is too long whatever it holds.
const ESCAPE_BYTES_MAX: usize = 6;

/// Decodes strings. Keeps what `simd-json` needs for it from one string of a
/// message to the next, so that a message full of escapes costs no allocation
/// for each; nothing is allocated before the first.
#[derive(Default)]
pub struct Decoder {
    buffers: Option<Buffers>,
    copy: Vec<u8>,
}

impl Decoder {
    /// The string that `string` stands for; `None` if it is longer than
    /// `bytes_max`, or no Unicode text.
    #[inline]
    pub fn decode_within<'a>(&mut self, string: RawString<'a>, bytes_max: usize) -> Option<Cow<'a, str>> {
        if string.inner.len() > bytes_max * ESCAPE_BYTES_MAX {
            return None;
        }
        self.decode(string).filter(|decoded| decoded.len() <= bytes_max)
    }

    /// The string that `string` stands for; `None` if it is no Unicode text,
    /// since an escape in it is half a surrogate pair.
    #[inline]
    pub fn decode<'a>(&mut self, string: RawString<'a>) -> Option<Cow<'a, str>> {
        if string.escaped {
            self.decode_escapes(string.inner).map(Cow::Owned)
        } else {
            Some(Cow::Borrowed(string.inner))
        }
    }

    #[cold]
    fn decode_escapes(&mut self, inner: &str) -> Option<String> {
        self.copy.clear();
        self.copy.push(b'"');
        self.copy.extend_from_slice(inner.as_bytes());
        self.copy.push(b'"');
        let buffers = self.buffers.get_or_insert_with(|| Buffers::new(inner.len()));
        let tape = to_tape_with_buffers(&mut self.copy, buffers).ok()?;
        match tape.0.as_slice() {
            [Node::String(decoded)] => Some((*decoded).to_owned()),
            _ => None,
        }
    }
}
