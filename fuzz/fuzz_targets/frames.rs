//! Any bytes as a client's frames, in any pieces.
//!
//! The bytes are decoded one at a time first, which says what they amount to and at which byte: every event, and the
//! error if there is one. Then they are decoded in the pieces that the input gives, and all at once, and it must come
//! to the same: behind each piece there is exactly what the bytes up to there amount to, no later and no earlier. So
//! an error is never found later than in the piece with the first byte that shows it.
//!
//! An unfinished message holds no more memory than the bytes that came of it account for, however much was announced;
//! between messages nothing is held.
//!
//! Input: the choice of `message_bytes_max`, then [`fanfare_seeds::pieces`].

#![no_main]

use fanfare::compress::Inflaters;
use fanfare::conn::Decoder;
use fanfare_fuzz::decoding::{in_pieces, limits, outcomes};
use fanfare_fuzz::memory::Watch;
use fanfare_seeds::pieces;
use libfuzzer_sys::{Corpus, fuzz_target};

/// What `message_bytes_max` is chosen from.
const MESSAGE_BYTES_MAX: [usize; 4] = [1, 100, 1_000, 1 << 20];

/// What an unfinished message needs besides its bytes: its state, and the first allocation of each buffer.
const STATE_BYTES_MAX: usize = 512;

fuzz_target!(|input: &[u8]| -> Corpus {
    let Some((&choice, input)) = input.split_first() else { return Corpus::Reject };
    let (sizes, bytes) = pieces::read(input);
    let max = MESSAGE_BYTES_MAX[usize::from(choice) % MESSAGE_BYTES_MAX.len()];
    let truth = outcomes(bytes, &(1..=bytes.len()).collect::<Vec<_>>(), max);
    for ends in [pieces::ends(sizes, bytes.len()), pieces::ends(&[], bytes.len())] {
        assert_eq!(outcomes(bytes, &ends, max), in_pieces(&truth, &ends), "pieces up to {ends:?} of {bytes:?}");
        check_memory(bytes, &ends, max);
    }
    Corpus::Keep
});

/// Decodes once more, and compares what is allocated with what has come.
fn check_memory(bytes: &[u8], ends: &[usize], max: usize) {
    let mut bytes = bytes.to_vec();
    let mut decoder = Decoder::default();
    let mut inflaters = Inflaters::default();
    let watch = Watch::start();
    let (mut from, mut boundary) = (0, 0);
    for &end in ends {
        let mut piece = &mut bytes[from..end];
        from = end;
        loop {
            match decoder.next(&mut piece, limits(max), &mut inflaters) {
                Ok(None) => break,
                Ok(Some(_)) => {}
                Err(_) => return,
            }
            if !decoder.is_partial() {
                boundary = end - piece.len();
            }
        }
        let live_bytes = watch.live_bytes();
        let unfinished_bytes = end - boundary;
        if decoder.is_partial() {
            // A buffer that grows has up to twice the room that it needs.
            let bytes_max = 2 * unfinished_bytes.min(max + 125) + STATE_BYTES_MAX;
            assert!(live_bytes <= bytes_max, "{live_bytes} bytes are held for {unfinished_bytes} that came");
            assert!(decoder.held_bytes() <= live_bytes, "what is said to be held is held");
        } else {
            assert_eq!((live_bytes, decoder.held_bytes()), (0, 0), "nothing is held between messages");
        }
    }
}
