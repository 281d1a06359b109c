use std::ops::Range;

use proptest::prelude::*;

use super::*;
use crate::compress::{Offer, WindowBits};
use crate::limits::INFLATE_STREAMS_MAX;

const MAX: usize = 1 << 20;

fn limits(bytes_max: usize) -> MessageLimits {
    MessageLimits { bytes_max, fragments_max: 131_072 }
}

/// Around the bound of the middle length form; smaller under Miri, which takes a second for a thousand bytes.
const LARGE_BYTES: Range<usize> = if cfg!(miri) { 300..400 } else { 65_500..65_600 };

/// A client's frame: masked, with the shortest length form.
fn frame(fin: bool, opcode: u8, payload: &[u8]) -> Vec<u8> {
    let key = [0x37, 0xFA, 0x21, 0x3D];
    let mut out = vec![if fin { 0x80 } else { 0 } | opcode];
    match payload.len() {
        short @ 0..=125 => out.push(0x80 | short as u8),
        medium @ 126..=65_535 => {
            out.push(0x80 | 126);
            out.extend_from_slice(&(medium as u16).to_be_bytes());
        }
        long => {
            out.push(0x80 | 127);
            out.extend_from_slice(&(long as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(&key);
    out.extend(payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key));
    out
}

/// Everything the bytes amount to, fed in pieces of the given sizes: a debug line an event, then the error if any.
fn decode(bytes: &[u8], pieces: &[usize], max: usize) -> Vec<String> {
    decode_agreed(bytes, pieces, max, None, 0)
}

/// As `decode`, with compression agreed on and so many other messages being decompressed in pieces.
fn decode_agreed(
    bytes: &[u8],
    pieces: &[usize],
    max: usize,
    agreement: Option<Agreement>,
    others: usize,
) -> Vec<String> {
    let mut decoder = Decoder::new(agreement);
    let mut inflaters = Inflaters::default();
    let _others: Vec<Stream> = (0..others).map(|_| inflaters.take(None).unwrap()).collect();
    let mut log = Vec::new();
    let mut at = 0;
    let mut sizes = pieces.iter().copied().cycle();
    while at < bytes.len() {
        let size = sizes.next().unwrap_or(bytes.len()).clamp(1, bytes.len() - at);
        let mut piece = bytes[at..at + size].to_vec();
        at += size;
        let mut input = piece.as_mut_slice();
        loop {
            match decoder.next(&mut input, limits(max), &mut inflaters) {
                Ok(Some(Event::Text(payload))) => log.push(format!("text {:?}", payload.as_bytes())),
                Ok(Some(Event::Binary(payload))) => log.push(format!("binary {:?}", &payload[..])),
                Ok(Some(Event::Ping(payload))) => log.push(format!("ping {:?}", &payload[..])),
                Ok(Some(Event::Pong)) => log.push("pong".into()),
                Ok(Some(Event::Close(code))) => log.push(format!("close {code:?}")),
                Ok(None) => break,
                Err(error) => {
                    log.push(format!("error {error:?}"));
                    return log;
                }
            }
        }
        assert!(input.is_empty(), "all input is taken");
    }
    log
}

#[test]
fn messages_control_frames_between_fragments_and_close() {
    let mut bytes = frame(true, 1, b"hello");
    bytes.extend(frame(false, 1, "h\u{e9}".as_bytes()));
    bytes.extend(frame(true, 9, b"p"));
    bytes.extend(frame(false, 0, b""));
    bytes.extend(frame(true, 0xA, b""));
    bytes.extend(frame(true, 0, b"!"));
    bytes.extend(frame(true, 8, &[3, 0xE8]));
    let expected = [
        format!("text {:?}", b"hello"),
        format!("ping {:?}", b"p"),
        "pong".into(),
        format!("text {:?}", "h\u{e9}!".as_bytes()),
        "close Some(1000)".into(),
    ];
    assert_eq!(decode(&bytes, &[bytes.len()], MAX), expected);
    assert_eq!(decode(&bytes, &[1], MAX), expected);
}

#[test]
fn a_character_split_over_fragments_is_whole_again() {
    let text = "\u{1F600}".as_bytes();
    let mut bytes = frame(false, 1, &text[..1]);
    bytes.extend(frame(false, 0, &text[1..3]));
    bytes.extend(frame(true, 0, &text[3..]));
    assert_eq!(decode(&bytes, &[3], MAX), [format!("text {text:?}")]);
}

#[test]
fn bad_utf8_is_refused_at_the_byte_that_shows_it() {
    let mut bytes = frame(false, 1, b"ok \xF4\x90");
    bytes.extend(vec![0; 3]);
    assert_eq!(decode(&bytes, &[1], MAX), ["error InvalidUtf8"]);
    let mut announced = frame(true, 1, &[b'a', 0xC0, b'c', b'd']);
    announced.truncate(announced.len() - 2);
    assert_eq!(decode(&announced, &[1], MAX), ["error InvalidUtf8"], "before the frame is complete");
    assert_eq!(decode(&frame(true, 1, b"\xE2\x82"), &[99], MAX), ["error InvalidUtf8"]);
}

#[test]
fn sizes_are_refused_from_the_header() {
    let mut announced = frame(true, 2, &[0; 200]);
    announced.truncate(8);
    assert_eq!(decode(&announced, &[1], 199), ["error MessageTooBig"]);
    let mut fragments = frame(false, 2, &[0; 150]);
    fragments.extend(&frame(true, 0, &[0; 51])[..8]);
    assert_eq!(decode(&fragments, &[7], 200), ["error MessageTooBig"]);
    let mut fits = frame(false, 2, &[0; 150]);
    fits.extend(frame(true, 0, &[0; 50]));
    assert_eq!(decode(&fits, &[7], 200).len(), 1);
}

#[test]
#[cfg_attr(miri, ignore = "masks a megabyte, a byte at a time")]
fn an_announced_length_allocates_nothing() {
    let mut decoder = Decoder::default();
    let mut bytes = frame(true, 2, &vec![0; 1 << 20]);
    let mut input = &mut bytes[..100];
    assert!(decoder.next(&mut input, limits(MAX), &mut Inflaters::default()).unwrap().is_none());
    assert!(decoder.held_bytes() <= 256, "held {}", decoder.held_bytes());
}

#[test]
#[cfg_attr(miri, ignore = "131,072 frames")]
fn fragments_are_counted_even_when_empty() {
    let mut bytes = frame(false, 1, b"");
    for _ in 0..limits(MAX).fragments_max {
        bytes.extend(frame(false, 0, b""));
    }
    assert_eq!(decode(&bytes, &[65_536], MAX), ["error TooManyFragments"]);
}

#[test]
fn wrong_order_of_frames_is_refused() {
    assert_eq!(decode(&frame(true, 0, b"x"), &[99], MAX), ["error StrayContinuation"]);
    let mut bytes = frame(false, 1, b"x");
    bytes.extend(frame(true, 1, b"y"));
    assert_eq!(decode(&bytes, &[99], MAX), ["error InterleavedMessage"]);
    assert_eq!(decode(&bytes, &[1], MAX), ["error InterleavedMessage"]);
}

#[test]
#[cfg_attr(miri, ignore = "masks 70,000 bytes, a byte at a time")]
fn nothing_is_held_between_messages() {
    let mut decoder = Decoder::default();
    for size in [0, 10, 200, 70_000] {
        let mut bytes = frame(true, 2, &vec![1; size]);
        for piece in bytes.chunks_mut(1000) {
            let mut input = piece;
            while decoder.next(&mut input, limits(MAX), &mut Inflaters::default()).unwrap().is_some() {}
        }
        assert!(!decoder.is_partial());
    }
}

/// A client that compresses with a window of 15 bits and refers to its earlier messages.
struct Compressor(flate2::Compress);

impl Compressor {
    fn new() -> Compressor {
        Compressor(flate2::Compress::new(flate2::Compression::new(6), false))
    }

    fn payload(&mut self, message: &[u8]) -> Vec<u8> {
        if message.is_empty() {
            // zlib has nothing to flush then; RFC 7692 §7.2.3.6 says what to send.
            return vec![0];
        }
        let mut out = Vec::with_capacity(message.len() + 100);
        self.0.compress_vec(message, &mut out, flate2::FlushCompress::Sync).unwrap();
        out.truncate(out.len() - 4);
        out
    }

    /// The message in fragments of so many bytes, with a ping between them.
    fn frames(&mut self, opcode: u8, message: &[u8], fragment_bytes: usize) -> Vec<u8> {
        let payload = self.payload(message);
        let count = payload.len().div_ceil(fragment_bytes);
        let mut out = Vec::new();
        for (at, fragment) in payload.chunks(fragment_bytes).enumerate() {
            let first = if at == 0 { 0x40 | opcode } else { 0 };
            out.extend(frame(at + 1 == count, first, fragment));
            if at + 1 < count {
                out.extend(frame(true, 9, b"p"));
            }
        }
        out
    }
}

fn agreement() -> Option<Agreement> {
    Some(Offer::first_acceptable(["permessage-deflate"]).unwrap().agree(WindowBits::MAX))
}

#[test]
fn a_compressed_bomb_is_refused_wherever_it_is_cut() {
    let bytes = Compressor::new().frames(2, &vec![0; 8 << 20], 1 << 20);
    for pieces in [bytes.len(), 1_000, 3] {
        assert_eq!(decode_agreed(&bytes, &[pieces], 5_000, agreement(), 0), ["error MessageTooBig"]);
        assert_eq!(decode_agreed(&bytes, &[pieces], 5_000, agreement(), INFLATE_STREAMS_MAX), ["error MessageTooBig"]);
    }
}

#[test]
fn compressed_text_is_checked_as_it_arrives() {
    let bytes = Compressor::new().frames(1, b"fine until \xFF here", 10);
    for (others, expected) in [(0, "error InvalidUtf8"), (INFLATE_STREAMS_MAX, "error InvalidUtf8")] {
        for pieces in [1, 5, 1_000] {
            let log = decode_agreed(&bytes, &[pieces], MAX, agreement(), others);
            assert_eq!(log.last().map(String::as_str), Some(expected), "{log:?}");
        }
    }
}

#[test]
fn garbage_that_says_it_is_compressed_is_malformed() {
    for payload in [&b"\xFF\xFF\xFF"[..], b"no deflate at all"] {
        let bytes = frame(true, 0x42, payload);
        assert_eq!(decode_agreed(&bytes, &[100], MAX, agreement(), 0), ["error BadDeflate"]);
        assert_eq!(decode_agreed(&bytes, &[1], MAX, agreement(), 0), ["error BadDeflate"]);
        assert_eq!(decode_agreed(&bytes, &[100], MAX, None, 0), ["error ReservedBits"]);
    }
}

#[test]
fn a_decompressor_comes_back_however_its_message_ends() {
    let mut inflaters = Inflaters::default();
    let mut bytes = Compressor::new().frames(2, &[7; 1_000], 5);
    let half = bytes.len() / 2;
    let mut decoder = Decoder::new(agreement());
    let mut input = &mut bytes[..half];
    while decoder.next(&mut input, limits(MAX), &mut inflaters).unwrap().is_some() {}
    assert_eq!(inflaters.in_pieces(), 1);
    assert!(decoder.held_bytes() >= INFLATE_STREAM_BYTES);
    drop(decoder);
    assert_eq!(inflaters.in_pieces(), 0);
}

fn any_frames() -> impl Strategy<Value = Vec<u8>> {
    let payload = prop_oneof![
        4 => proptest::collection::vec(any::<u8>(), 0..300),
        4 => "[a-z\u{e9}\u{20ac}\u{1F600}]{0,80}".prop_map(String::into_bytes),
        1 => proptest::collection::vec(any::<u8>(), LARGE_BYTES),
    ];
    let opcode = prop_oneof![4 => Just(1_u8), 4 => Just(2), 4 => Just(0), 1 => Just(8), 2 => Just(9), 2 => Just(10), 1 => 3..8_u8];
    let one = (any::<bool>(), opcode, payload).prop_map(|(fin, opcode, mut payload)| {
        if opcode >= 8 {
            payload.truncate(125);
        }
        frame(fin || opcode >= 8, opcode, &payload)
    });
    proptest::collection::vec(one, 1..8).prop_map(|frames| frames.concat())
}

proptest! {
    #[test]
    fn any_chunking_gives_the_same_events(bytes in any_frames(), pieces in proptest::collection::vec(1_usize..400, 1..10)) {
        prop_assert_eq!(decode(&bytes, &pieces, 66_000), decode(&bytes, &[bytes.len()], 66_000));
    }

    #[test]
    fn compressed_messages_are_the_same_in_any_pieces(
        messages in proptest::collection::vec((proptest::collection::vec("[a-e]{0,40}", 0..60), 1_usize..400), 1..6),
        pieces in proptest::collection::vec(1_usize..400, 1..10),
        crowded in any::<bool>(),
    ) {
        let mut compressor = Compressor::new();
        let (mut bytes, mut expected) = (Vec::new(), Vec::new());
        for (words, fragment_bytes) in messages {
            let message = words.concat();
            bytes.extend(compressor.frames(1, message.as_bytes(), fragment_bytes));
            expected.push(format!("text {:?}", message.as_bytes()));
        }
        let others = if crowded { INFLATE_STREAMS_MAX } else { 0 };
        let mut log = decode_agreed(&bytes, &pieces, MAX, agreement(), others);
        log.retain(|line| !line.starts_with("ping"));
        prop_assert_eq!(log, expected);
    }

    #[test]
    fn encode_then_decode_is_identity(payload in proptest::collection::vec(any::<u8>(), 0..LARGE_BYTES.end), pieces in proptest::collection::vec(1_usize..9_000, 1..5)) {
        prop_assert_eq!(decode(&frame(true, 2, &payload), &pieces, MAX), [format!("binary {payload:?}")]);
    }

    #[test]
    fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..600), pieces in proptest::collection::vec(1_usize..20, 1..10)) {
        decode(&bytes, &pieces, 1_000);
    }
}
