//! Seeds of `frames`: messages whole and in fragments, control frames, and every kind of error.

use fanfare_seeds::frame::{BINARY, CLOSE, CONTINUATION, Frame, LengthForm, PING, PONG, TEXT};
use fanfare_seeds::pieces;

use super::Seed;

pub fn seeds() -> Vec<Seed> {
    let key = [0x37, 0xFA, 0x21, 0x3D];
    let text = |payload: &str| Frame::new(TEXT, payload);
    let fragments = vec![
        text("h\u{e9}").unfinished(),
        Frame::new(PING, "p").masked(key),
        Frame::new(CONTINUATION, "").unfinished(),
        Frame::new(PONG, ""),
        Frame::new(CONTINUATION, "l\u{1F600}").masked(key),
        Frame::new(CLOSE, [3, 0xE8]),
    ];
    let emoji = "\u{1F600}".as_bytes();
    let split_character = vec![Frame::new(TEXT, &emoji[..1]).unfinished(), Frame::new(CONTINUATION, &emoji[1..])];
    let frames = [
        ("text", vec![text("hello"), text("").masked(key), text("hello").masked(key)]),
        ("binary", vec![Frame::new(BINARY, [0, 255, 128]), Frame::new(BINARY, vec![7; 126]).masked(key)]),
        ("fragments", fragments),
        ("split-character", split_character),
        ("close", vec![Frame::new(CLOSE, [&[0x0F, 0xA0][..], b"bye"].concat()), text("behind it")]),
        ("close-without-code", vec![Frame::new(CLOSE, "")]),
        ("close-with-half-a-code", vec![Frame::new(CLOSE, [3])]),
        ("close-with-a-bad-code", vec![Frame::new(CLOSE, [3, 0xED])]),
        ("not-utf8", vec![Frame::new(TEXT, [b'a', 0xC0, b'b'])]),
        ("unmasked", vec![Frame { key: None, ..text("x") }]),
        ("reserved-bit", vec![Frame { reserved: 4, ..text("x") }]),
        ("unknown-opcode", vec![Frame::new(3, "x")]),
        ("fragmented-ping", vec![Frame::new(PING, "x").unfinished()]),
        ("long-ping", vec![Frame::new(PING, vec![b'x'; 126])]),
        ("long-form", vec![Frame { form: LengthForm::Long, ..text("x") }]),
        ("stray", vec![Frame::new(CONTINUATION, "x")]),
        ("interleaved", vec![text("x").unfinished(), text("y")]),
        ("too-big", vec![Frame::new(BINARY, vec![0; 90]).unfinished(), Frame::new(CONTINUATION, vec![0; 20])]),
    ];
    let sizes: [&[u8]; 3] = [&[], &[1], &[5, 2, 0]];
    let input = |(at, (name, frames)): (usize, (&'static str, Vec<Frame>))| {
        // The last of the four limits takes them all, the second those of a hundred bytes.
        let limit = if name == "too-big" { 1 } else { 3 };
        let bytes: Vec<u8> = frames.iter().flat_map(Frame::bytes).collect();
        (name, [vec![limit], pieces::write(sizes[at % sizes.len()], &bytes)].concat())
    };
    frames.into_iter().enumerate().map(input).collect()
}
