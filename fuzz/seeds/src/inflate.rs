//! Compressed messages: those of RFC 7692 §7.2.3, and some that are none.

use fanfare_seeds::pieces;

use crate::Seed;

const HELLO: &[u8] = &[0xF2, 0x48, 0xCD, 0xC9, 0xC9, 0x07, 0x00];

/// The first inputs of the target `inflate`.
pub fn seeds() -> Vec<Seed> {
    let again: &[u8] = &[0xF2, 0x00, 0x11, 0x00, 0x00];
    let stored: &[u8] = &[0x00, 0x05, 0x00, 0xFA, 0xFF, 0x48, 0x65, 0x6C, 0x6C, 0x6F, 0x00];
    let last: &[u8] = &[0xF3, 0x48, 0xCD, 0xC9, 0xC9, 0x07, 0x00, 0x00];
    let two_blocks: &[u8] = &[0xF2, 0x48, 0x05, 0x00, 0x00, 0x00, 0xFF, 0xFF, 0xCA, 0xC9, 0xC9, 0x07, 0x00];
    // A block with a code table of its own, which says 258 times the same byte again and again.
    let zeros: Vec<u8> =
        [&[0xEC, 0xC1, 0x01, 0x01, 0x00, 0x00, 0x00, 0x80, 0x90, 0xFE, 0xAF, 0xEE][..], &[0; 60]].concat();
    let streams = [0x03, 0x00].repeat(15);
    vec![
        ("hello", input(2, 0, &[], &[HELLO])),
        ("takeover", input(2, 0, &[3], &[HELLO, again, again])),
        ("no-takeover", input(2, 1, &[1], &[HELLO, HELLO])),
        ("stored", input(1, 0, &[2], &[stored])),
        ("last-block", input(1, 0, &[5], &[last, HELLO])),
        ("two-blocks", input(1, 0, &[], &[two_blocks])),
        ("empty", input(0, 0, &[], &[&[0], &[]])),
        ("bomb", input(1, 0, &[9], &[&zeros])),
        ("streams", input(3, 0, &[1], &[&streams])),
        ("broken-off", input(3, 0, &[1], &[&HELLO[..4]])),
    ]
}

fn input(choice: u8, takeover: u8, sizes: &[u8], messages: &[&[u8]]) -> Vec<u8> {
    let with_length = |message: &&[u8]| [&(message.len() as u16).to_be_bytes()[..], message].concat();
    let bytes: Vec<u8> = messages.iter().flat_map(with_length).collect();
    [&[choice, takeover][..], &pieces::write(sizes, &bytes)].concat()
}
