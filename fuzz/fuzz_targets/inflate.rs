//! Any bytes as compressed messages of one client, in any pieces.
//!
//! Each message is decoded whole and in pieces, with what came before in memory: both must come to the same, if not
//! always in the same words. Where zlib itself, without a bound, says what a message holds, the server says the same;
//! where that is more than a message may hold, the server says so. Whatever comes, no more memory is allocated than a
//! message may hold, with what its state takes.
//!
//! Input: the choice of `message_bytes_max`, whether earlier messages may be referred to, then
//! [`fanfare_seeds::pieces`]: its bytes are the messages, each behind two bytes that give its length.

#![no_main]

use fanfare::compress::{Agreement, Inflaters, Offer, WindowBits};
use fanfare::conn::{Decoder, PeerError};
use fanfare_fuzz::decoding::{Outcome, limits, outcomes_agreed};
use fanfare_fuzz::memory::Watch;
use fanfare_seeds::pieces;
use flate2::{Decompress, FlushDecompress, Status};
use libfuzzer_sys::{Corpus, fuzz_target};

/// What `message_bytes_max` is chosen from.
const MESSAGE_BYTES_MAX: [usize; 4] = [1, 100, 5_000, 200_000];

/// What an unfinished message needs besides what it holds: its state, the first step of its buffer, the window that zlib
/// is given at a new start, and zlib itself.
const STATE_BYTES_MAX: usize = 160 * 1024;

/// What a compressed message is sent without (RFC 7692 §7.2.1).
const TAIL: [u8; 4] = [0, 0, 0xFF, 0xFF];

fuzz_target!(|input: &[u8]| -> Corpus {
    let [choice, takeover, input @ ..] = input else { return Corpus::Reject };
    let max = MESSAGE_BYTES_MAX[usize::from(*choice) % MESSAGE_BYTES_MAX.len()];
    let offer = if takeover % 2 == 0 { "permessage-deflate" } else { "permessage-deflate; client_no_context_takeover" };
    let agreement = Offer::first_acceptable([offer]).expect("an offer").agree(WindowBits::MAX);
    let (sizes, bytes) = pieces::read(input);
    let messages = messages(bytes);
    let frames: Vec<u8> = messages.iter().flat_map(|message| frame(message)).collect();
    let in_pieces = told(agreement, &frames, &pieces::ends(sizes, frames.len()), max);
    assert_eq!(in_pieces, told(agreement, &frames, &[frames.len()], max), "in pieces and at once");
    if let (Some(first), Some(outcome)) = (messages.first(), in_pieces.first()) {
        compare(first, outcome, max);
    }
    check_memory(agreement, &frames, &pieces::ends(sizes, frames.len()), max);
    Corpus::Keep
});

/// The messages of an input.
fn messages(mut bytes: &[u8]) -> Vec<&[u8]> {
    let mut messages = Vec::new();
    while let Some((length, rest)) = bytes.split_first_chunk::<2>() {
        let (message, rest) = rest.split_at(rest.len().min(usize::from(u16::from_be_bytes(*length))));
        messages.push(message);
        bytes = rest;
    }
    messages
}

/// A whole compressed binary message, with a mask of zeros.
fn frame(payload: &[u8]) -> Vec<u8> {
    let mut out = vec![0xC2];
    match payload.len() {
        short @ 0..126 => out.push(0x80 | short as u8),
        length => {
            out.push(0x80 | 126);
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
    }
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(payload);
    out
}

fn told(agreement: Agreement, frames: &[u8], ends: &[usize], max: usize) -> Vec<Outcome> {
    let ends = if frames.is_empty() { &[] } else { ends };
    let outcomes = outcomes_agreed(agreement, frames, ends, max).into_iter();
    outcomes
        .map(|(_, outcome)| match outcome {
            // Of a message that is both, the pieces decide what shows first.
            Outcome::Error(PeerError::MessageTooBig) => Outcome::Error(PeerError::BadDeflate),
            outcome => outcome,
        })
        .collect()
}

/// What the server made of the first message, and what zlib makes of it.
fn compare(payload: &[u8], outcome: &Outcome, max: usize) {
    let mut zlib = Decompress::new(false);
    let mut message = Vec::with_capacity(max + 1);
    let Ok(status) = zlib.decompress_vec(payload, &mut message, FlushDecompress::Sync) else {
        assert!(matches!(outcome, Outcome::Error(_)), "zlib refuses it");
        return;
    };
    if message.len() > max {
        assert!(matches!(outcome, Outcome::Error(_)), "it holds more than {max} bytes");
        return;
    }
    // A stream that ends within the message is read on by the server, and not by zlib; and zlib says what is wrong with
    // the rest only when it gets to it.
    if status != Status::StreamEnd && zlib.total_in() == payload.len() as u64 && is_whole(payload, &message) {
        assert_eq!(outcome, &Outcome::Binary(message));
    }
}

/// Whether a payload ends where a block ends: behind it and the tail, zlib reads a last block and nothing else. (That
/// the tail makes no bytes would not say it: a payload can break off within the description of a block's codes.)
fn is_whole(payload: &[u8], message: &[u8]) -> bool {
    const LAST_BLOCK: &[u8; 21] = b"\x01\x10\x00\xEF\xFFthe last block's";
    let stream = [payload, &TAIL, LAST_BLOCK].concat();
    let expected = [message, &LAST_BLOCK[5..]].concat();
    let mut out = Vec::with_capacity(expected.len() + 1);
    let mut zlib = Decompress::new(false);
    let status = zlib.decompress_vec(&stream, &mut out, FlushDecompress::Sync);
    matches!(status, Ok(Status::StreamEnd)) && zlib.total_in() == stream.len() as u64 && out == expected
}

/// Decodes once more, and looks at what is allocated behind each piece.
fn check_memory(agreement: Agreement, frames: &[u8], ends: &[usize], max: usize) {
    let mut frames = frames.to_vec();
    let watch = Watch::start();
    let mut decoder = Decoder::new(Some(agreement));
    let mut inflaters = Inflaters::default();
    let mut from = 0;
    for &end in ends {
        let mut piece = &mut frames[from..end];
        from = end;
        let mut over = false;
        loop {
            match decoder.next(&mut piece, limits(max), &mut inflaters) {
                Ok(None) => break,
                Ok(Some(_)) => {}
                Err(_) => {
                    over = true;
                    break;
                }
            }
        }
        let live_bytes = watch.live_bytes();
        let history_bytes = agreement.history_bytes_max();
        assert!(live_bytes <= 2 * max + history_bytes + STATE_BYTES_MAX, "{live_bytes} bytes for messages of {max}");
        if over {
            return;
        }
    }
}
