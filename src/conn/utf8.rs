//! UTF-8 validation of text messages and close reasons (RFC 6455 §8.1), whole or piece by piece.

use std::fmt;
use std::str;

/// Bytes that are not UTF-8 (RFC 3629), sent where text is due: the peer's fault, close code 1007.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidUtf8;

impl fmt::Display for InvalidUtf8 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("text is not valid UTF-8: send text messages and close reasons as UTF-8")
    }
}

impl std::error::Error for InvalidUtf8 {}

/// `bytes` as text, if the whole of it is UTF-8.
///
/// # Errors
/// [`InvalidUtf8`] where it is not.
pub fn validate(bytes: &[u8]) -> Result<&str, InvalidUtf8> {
    simdutf8::basic::from_utf8(bytes).map_err(|_| InvalidUtf8)
}

/// Validates a message that arrives in pieces, cut anywhere, and fails at the first byte that
/// cannot be part of valid UTF-8, even in the middle of a sequence.
///
/// ```text
///              a sequence is cut off            ┌──┐ more of it
///    Between ─────────────────────────► Within ─┘◄─┘
///      │  ▲                               │ │
///      │  └──── the sequence is whole ────┘ │
///      │                                    │
///      └────────► Failed ◄──────────────────┘
///        an impossible byte
///
///    finish: from every state back to Between; only there it is no error
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Utf8Stream(State);

/// Longest beginning of a sequence that is not the whole of it.
const PARTIAL_BYTES_MAX: usize = 3;

const _: () = assert!(size_of::<Utf8Stream>() <= 8);

#[derive(Clone, Copy, Debug, Default)]
enum State {
    /// All that came so far are whole sequences.
    #[default]
    Between,
    /// The last `len` bytes begin a sequence that can still be completed.
    Within { bytes: [u8; PARTIAL_BYTES_MAX], len: u8 },
    /// An impossible byte came; nothing that follows can make the message valid.
    Failed,
}

impl Utf8Stream {
    /// A stream at the beginning of a message.
    #[must_use]
    pub const fn new() -> Self {
        Self(State::Between)
    }

    /// Takes the next piece of the message. A sequence cut off by the piece's end is no error yet.
    ///
    /// # Errors
    /// [`InvalidUtf8`] as soon as no continuation can make the message valid, and from then on
    /// until [`Utf8Stream::finish`].
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), InvalidUtf8> {
        let (state, rest) = match self.0 {
            State::Between => (State::Between, bytes),
            State::Within { bytes: partial, len } => complete(&partial[..usize::from(len)], bytes),
            State::Failed => (State::Failed, bytes),
        };
        self.0 = match state {
            State::Between => validate_bulk(rest),
            State::Within { .. } | State::Failed => state,
        };
        match self.0 {
            State::Between | State::Within { .. } => Ok(()),
            State::Failed => Err(InvalidUtf8),
        }
    }

    /// Ends the message; the stream then stands at the beginning of the next.
    ///
    /// # Errors
    /// [`InvalidUtf8`] where the last sequence is incomplete or the message had already failed.
    pub fn finish(&mut self) -> Result<(), InvalidUtf8> {
        match std::mem::take(&mut self.0) {
            State::Between => Ok(()),
            State::Within { .. } | State::Failed => Err(InvalidUtf8),
        }
    }
}

/// Continues the sequence begun by `partial` with `bytes`: the state behind it, and what of
/// `bytes` is left. Something is left only in `Between` and `Failed`.
fn complete<'a>(partial: &[u8], bytes: &'a [u8]) -> (State, &'a [u8]) {
    let mut sequence = [0; PARTIAL_BYTES_MAX + 1];
    sequence[..partial.len()].copy_from_slice(partial);
    let mut len = partial.len();
    for (taken, &byte) in bytes.iter().enumerate() {
        sequence[len] = byte;
        len += 1;
        match str::from_utf8(&sequence[..len]) {
            Ok(_) => return (State::Between, &bytes[taken + 1..]),
            Err(error) if error.error_len().is_some() => return (State::Failed, &bytes[taken..]),
            Err(_) => {}
        }
    }
    (within(&sequence[..len]), &[])
}

/// The state behind `bytes`, which begin with a new sequence.
fn validate_bulk(bytes: &[u8]) -> State {
    match simdutf8::compat::from_utf8(bytes) {
        Ok(_) => State::Between,
        Err(error) if error.error_len().is_some() => State::Failed,
        Err(error) => within(&bytes[error.valid_up_to()..]),
    }
}

fn within(partial: &[u8]) -> State {
    let mut bytes = [0; PARTIAL_BYTES_MAX];
    bytes[..partial.len()].copy_from_slice(partial);
    State::Within { bytes, len: partial.len() as u8 }
}

#[cfg(test)]
mod tests {
    use std::ops::RangeInclusive;

    use proptest::prelude::*;

    use super::*;

    /// The table of RFC 3629 §4 as a machine that eats one byte at a time: the ranges that the
    /// next continuation bytes must lie in. Shares nothing with the code under test.
    #[derive(Default)]
    struct Scalar(Vec<RangeInclusive<u8>>);

    impl Scalar {
        fn push(&mut self, byte: u8) -> Result<(), InvalidUtf8> {
            const TAIL: RangeInclusive<u8> = 0x80..=0xbf;
            if let Some(range) = self.0.pop() {
                return range.contains(&byte).then_some(()).ok_or(InvalidUtf8);
            }
            // Last range first.
            self.0 = match byte {
                0x00..=0x7f => vec![],
                0xc2..=0xdf => vec![TAIL],
                0xe0 => vec![TAIL, 0xa0..=0xbf],
                0xe1..=0xec | 0xee..=0xef => vec![TAIL, TAIL],
                0xed => vec![TAIL, 0x80..=0x9f],
                0xf0 => vec![TAIL, TAIL, 0x90..=0xbf],
                0xf1..=0xf3 => vec![TAIL, TAIL, TAIL],
                0xf4 => vec![TAIL, TAIL, 0x80..=0x8f],
                0x80..=0xc1 | 0xf5..=0xff => return Err(InvalidUtf8),
            };
            Ok(())
        }

        fn is_between(&self) -> bool {
            self.0.is_empty()
        }

        /// Index of the first impossible byte of `bytes`.
        fn failure_in(bytes: &[u8]) -> (Self, Option<usize>) {
            let mut machine = Self::default();
            let failure = bytes.iter().position(|byte| machine.push(*byte).is_err());
            (machine, failure)
        }
    }

    fn failure_byte_by_byte(bytes: &[u8]) -> Option<usize> {
        let mut stream = Utf8Stream::new();
        bytes.iter().position(|byte| stream.push(&[*byte]).is_err())
    }

    #[test]
    fn fails_at_the_first_impossible_byte() {
        let cases: [(&[u8], usize); 12] = [
            (&[0xf4, 0x90, 0x80, 0x80], 1),
            (&[0xe0, 0x80, 0x80], 1),
            (&[0xed, 0xa0, 0x80], 1),
            (&[0xf0, 0x8f, 0xbf, 0xbf], 1),
            (&[0xc0, 0x80], 0),
            (&[0xc1, 0xbf], 0),
            (&[0xf5], 0),
            (&[0xff], 0),
            (&[0x80], 0),
            (&[b'a', 0xe2, 0x82, b'a'], 3),
            (&[0xc3, 0xc3], 1),
            (&[0xf0, 0x9f, 0x98, 0x41], 3),
        ];
        for (bytes, place) in cases {
            assert_eq!(failure_byte_by_byte(bytes), Some(place), "{bytes:x?}");
            assert_eq!(Utf8Stream::new().push(bytes), Err(InvalidUtf8));
            assert_eq!(Utf8Stream::new().push(&bytes[..=place]), Err(InvalidUtf8));
            assert_eq!(Utf8Stream::new().push(&bytes[..place]), Ok(()));
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "a million characters")]
    fn every_scalar_value_passes_cut_anywhere() {
        let mut text = [0; 4];
        for value in (0..=0x10_ffff).filter_map(char::from_u32) {
            let bytes = value.encode_utf8(&mut text).as_bytes();
            for cut in 0..bytes.len() {
                let mut stream = Utf8Stream::new();
                assert_eq!(stream.push(&bytes[..cut]), Ok(()));
                assert_eq!(stream.push(&bytes[cut..]), Ok(()));
                assert_eq!(stream.finish(), Ok(()));
            }
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "65,536 pairs of bytes")]
    fn the_first_two_bytes_fail_where_the_table_says() {
        for first in 0..=u8::MAX {
            for second in 0..=u8::MAX {
                let bytes = [first, second, 0x80];
                let (_, expected) = Scalar::failure_in(&bytes);
                assert_eq!(failure_byte_by_byte(&bytes), expected, "{bytes:x?}");
            }
        }
    }

    #[test]
    fn finish_refuses_an_incomplete_sequence_and_starts_anew() {
        let mut stream = Utf8Stream::new();
        assert_eq!(stream.push("€".as_bytes().split_at(2).0), Ok(()));
        assert_eq!(stream.push(&[]), Ok(()));
        assert_eq!(stream.finish(), Err(InvalidUtf8));
        assert_eq!(stream.push("€".as_bytes()), Ok(()));
        assert_eq!(stream.finish(), Ok(()));
        assert_eq!(stream.finish(), Ok(()));
    }

    #[test]
    fn a_failed_message_stays_failed_until_its_end() {
        let mut stream = Utf8Stream::new();
        assert_eq!(stream.push(&[0xff]), Err(InvalidUtf8));
        assert_eq!(stream.push(b"fine"), Err(InvalidUtf8));
        assert_eq!(stream.push(&[]), Err(InvalidUtf8));
        assert_eq!(stream.finish(), Err(InvalidUtf8));
        assert_eq!(stream.push(b"fine"), Ok(()));
    }

    #[test]
    fn an_error_far_inside_a_long_piece_is_found() {
        let mut bytes = "grüße, 世界 🎺 ".repeat(100).into_bytes();
        assert!(validate(&bytes).is_ok());
        let place = bytes.iter().rposition(|byte| *byte == 0xf0).unwrap();
        bytes[place + 1] = b'!';
        assert_eq!(validate(&bytes), Err(InvalidUtf8));
        assert_eq!(Utf8Stream::new().push(&bytes), Err(InvalidUtf8));
        assert_eq!(failure_byte_by_byte(&bytes), Some(place + 1));
    }

    /// Mostly valid text with some bytes overwritten, or bytes from the edges of the table.
    fn nearly_text() -> impl Strategy<Value = Vec<u8>> {
        let edges = proptest::sample::select(
            &[
                0x00, 0x41, 0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf, 0xc0, 0xc1, 0xc2, 0xdf, 0xe0, 0xe1, 0xec, 0xed,
                0xee, 0xef, 0xf0, 0xf1, 0xf3, 0xf4, 0xf5, 0xff,
            ][..],
        );
        let text = proptest::collection::vec(any::<char>(), 0..120)
            .prop_map(|chars| chars.into_iter().collect::<String>().into_bytes());
        let spoilt =
            (text.clone(), any::<proptest::sample::Index>(), any::<u8>()).prop_map(|(mut bytes, place, byte)| {
                if !bytes.is_empty() {
                    let place = place.index(bytes.len());
                    bytes[place] = byte;
                }
                bytes
            });
        let cut = (text.clone(), 0usize..4).prop_map(|(mut bytes, less)| {
            bytes.truncate(bytes.len().saturating_sub(less));
            bytes
        });
        prop_oneof![text, spoilt, cut, proptest::collection::vec(edges, 0..12)]
    }

    proptest! {
        #[test]
        fn any_cutting_gives_the_answer_of_the_whole(
            bytes in nearly_text(),
            sizes in proptest::collection::vec(prop_oneof![0usize..5, 0usize..200], 1..20),
        ) {
            let (machine, failure) = Scalar::failure_in(&bytes);
            let whole_is_valid = str::from_utf8(&bytes).is_ok();
            prop_assert_eq!(failure.is_none() && machine.is_between(), whole_is_valid);
            prop_assert_eq!(validate(&bytes).is_ok(), whole_is_valid);
            prop_assert_eq!(failure_byte_by_byte(&bytes), failure);

            let mut stream = Utf8Stream::new();
            let mut sizes = sizes.iter().cycle().copied();
            let mut end = 0;
            // Pieces of size 0 in a row are bounded, so that the cutting comes to its end.
            for _ in 0..100 {
                let start = end;
                end = (start + sizes.next().unwrap()).min(bytes.len());
                let failed_so_far = failure.is_some_and(|place| place < end);
                prop_assert_eq!(stream.push(&bytes[start..end]).is_err(), failed_so_far);
            }
            let failed = failure.is_some();
            prop_assert_eq!(stream.push(&bytes[end..]).is_err(), failed);
            prop_assert_eq!(stream.finish().is_ok(), whole_is_valid);
            prop_assert_eq!(stream.finish(), Ok(()));
        }
    }
}
