//! Unmasking of what clients send (RFC 6455 §5.3).

/// Length of a masking key, and its period.
const KEY_BYTES: usize = 4;
/// Bytes XORed per step of the main loop: four SSE2 or two AVX2 registers.
const BLOCK_BYTES: usize = 64;
const WORD_BYTES: usize = size_of::<u64>();

/// XORs `bytes` in place with the masking `key` (RFC 6455 §5.3); masking and unmasking are the
/// same act. `offset` is the position of `bytes[0]` in the frame's payload, so that a payload may
/// be unmasked piece by piece as it arrives.
pub fn unmask(bytes: &mut [u8], key: [u8; KEY_BYTES], offset: usize) {
    let mut key = key;
    key.rotate_left(offset % KEY_BYTES);
    let [a, b, c, d] = key;
    let word = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);

    let (blocks, rest) = bytes.as_chunks_mut::<BLOCK_BYTES>();
    for block in blocks {
        xor_words(block, word);
    }
    // Blocks and words are whole keys long, so the key starts anew behind each.
    let words_bytes = rest.len() - rest.len() % WORD_BYTES;
    let (words, tail) = rest.split_at_mut(words_bytes);
    xor_words(words, word);
    for (byte, key_byte) in tail.iter_mut().zip([a, b, c, d, a, b, c]) {
        *byte ^= key_byte;
    }
}

/// XORs the whole words of `bytes`; the loop is plain enough to be vectorised.
#[inline(always)]
fn xor_words(bytes: &mut [u8], word: u64) {
    let (words, _) = bytes.as_chunks_mut::<WORD_BYTES>();
    for bytes in words {
        *bytes = (u64::from_ne_bytes(*bytes) ^ word).to_ne_bytes();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The formula of RFC 6455 §5.3, byte by byte.
    fn unmask_scalar(bytes: &mut [u8], key: [u8; 4], offset: usize) {
        for (i, byte) in bytes.iter_mut().enumerate() {
            *byte ^= key[(offset % 4 + i) % 4];
        }
    }

    #[test]
    fn the_example_of_the_rfc() {
        // RFC 6455 §5.7: a single-frame masked text message "Hello".
        let mut bytes = [0x7f, 0x9f, 0x4d, 0x51, 0x58];
        unmask(&mut bytes, [0x37, 0xfa, 0x21, 0x3d], 0);
        assert_eq!(&bytes, b"Hello");
    }

    #[test]
    #[cfg_attr(miri, ignore = "minutes for what `any_alignment_…` samples")]
    fn every_length_and_offset_equals_the_formula() {
        let key = [0x12, 0x34, 0x56, 0x78];
        for len in 0..=3 * BLOCK_BYTES {
            for offset in [0, 1, 2, 3, 4, 7, 65, usize::MAX] {
                let mut fast: Vec<u8> = (0..len).map(|i| i as u8).collect();
                let mut slow = fast.clone();
                unmask(&mut fast, key, offset);
                unmask_scalar(&mut slow, key, offset);
                assert_eq!(fast, slow, "{len} bytes at offset {offset}");
            }
        }
    }

    proptest! {
        #[test]
        fn any_alignment_length_and_offset_equals_the_formula(
            bytes in proptest::collection::vec(any::<u8>(), 0..600),
            skip in 0usize..64,
            key: [u8; 4],
            offset: usize,
        ) {
            let skip = skip.min(bytes.len());
            let (mut fast, mut slow) = (bytes.clone(), bytes.clone());
            unmask(&mut fast[skip..], key, offset);
            unmask_scalar(&mut slow[skip..], key, offset);
            prop_assert_eq!(&fast, &slow);
            unmask(&mut fast[skip..], key, offset);
            prop_assert_eq!(fast, bytes);
        }

        #[test]
        fn pieces_equal_the_whole(
            bytes in proptest::collection::vec(any::<u8>(), 0..600),
            cut in 0usize..600,
            key: [u8; 4],
        ) {
            let cut = cut.min(bytes.len());
            let (mut whole, mut pieces) = (bytes.clone(), bytes);
            unmask(&mut whole, key, 0);
            let (first, second) = pieces.split_at_mut(cut);
            unmask(first, key, 0);
            unmask(second, key, cut);
            prop_assert_eq!(whole, pieces);
        }
    }
}
