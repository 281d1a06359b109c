//! Compressing whole messages (RFC 7692 §7.2.1), each for itself: the result is the same for every receiver.

use std::fmt;

use flate2::{Compress, Compression, FlushCompress, Status};

use super::WindowBits;
use crate::frame::{encode_compressed_header, split_frame};

/// What every flushed block ends with, and what is left out of a message (RFC 7692 §7.2.1).
pub(super) const TAIL: [u8; 4] = [0x00, 0x00, 0xFF, 0xFF];

/// The compressors of one reactor: one per window that was needed.
pub struct Deflater {
    level: Compression,
    min_bytes: usize,
    states: [Option<Compress>; WindowBits::COUNT],
    scratch: Vec<u8>,
    runs: u64,
    discarded: u64,
    bytes_before: u64,
    bytes_after: u64,
}

impl Deflater {
    /// Compresses at `level` (1 to 9) messages of at least `min_bytes`.
    pub fn new(level: u32, min_bytes: usize) -> Deflater {
        Deflater {
            level: Compression::new(level),
            min_bytes,
            states: Default::default(),
            scratch: Vec::new(),
            runs: 0,
            discarded: 0,
            bytes_before: 0,
            bytes_after: 0,
        }
    }

    /// Bytes of payload from which a message is compressed.
    pub fn min_bytes(&self) -> usize {
        self.min_bytes
    }

    /// How many messages it has compressed, those included that did not become smaller.
    pub fn runs(&self) -> u64 {
        self.runs
    }

    /// How many of them are never sent: another reactor had the same message ready first.
    pub fn discarded(&self) -> u64 {
        self.discarded
    }

    /// Bytes of payload that it has compressed, and of what they became: themselves where they did not become smaller.
    pub fn bytes(&self) -> (u64, u64) {
        (self.bytes_before, self.bytes_after)
    }

    /// The last run was for nothing.
    pub(super) fn discard(&mut self) {
        self.discarded += 1;
    }

    /// Appends `frame`, a whole unfragmented server frame, as a connection with this window gets it: compressed where
    /// it is a message of at least `min_bytes` that becomes smaller, else as it is. Whether it was compressed.
    pub fn append(&mut self, bits: WindowBits, frame: &[u8], out: &mut Vec<u8>) -> bool {
        let (opcode, payload) = split_frame(frame);
        if payload.len() < self.min_bytes || opcode.is_control() {
            out.extend_from_slice(frame);
            return false;
        }
        let mut compressed = std::mem::take(&mut self.scratch);
        compressed.clear();
        let smaller = self.deflate(bits, payload, &mut compressed);
        self.bytes_before += payload.len() as u64;
        self.bytes_after += if smaller { compressed.len() } else { payload.len() } as u64;
        if smaller {
            encode_compressed_header(out, opcode, compressed.len());
            out.extend_from_slice(&compressed);
        } else {
            out.extend_from_slice(frame);
        }
        self.scratch = compressed;
        smaller
    }

    /// Frees the buffer where one large message made it grow beyond `bytes_max`.
    pub fn shrink(&mut self, bytes_max: usize) {
        if self.scratch.capacity() > bytes_max {
            self.scratch = Vec::new();
        }
    }

    /// Compresses a payload into `out`; `false` as soon as it would not become smaller.
    fn deflate(&mut self, bits: WindowBits, payload: &[u8], out: &mut Vec<u8>) -> bool {
        let level = self.level;
        let state =
            self.states[bits.index()].get_or_insert_with(|| Compress::new_with_window_bits(level, false, bits.bits()));
        state.reset();
        // More room than a result that is worth sending fills: where some is left, the flush was complete.
        out.reserve(payload.len() + 2 * TAIL.len());
        let status = state.compress_vec(payload, out, FlushCompress::Sync);
        self.runs += 1;
        let whole =
            matches!(status, Ok(Status::Ok)) && state.total_in() == payload.len() as u64 && out.ends_with(&TAIL);
        out.truncate(out.len().saturating_sub(TAIL.len()));
        whole && out.len() < payload.len()
    }
}

impl fmt::Debug for Deflater {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Deflater")
            .field("level", &self.level)
            .field("min_bytes", &self.min_bytes)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{Inflaters, SharedFrame};
    use super::*;
    use crate::frame::{FrameBuilder, Opcode};

    const LARGE: usize = 1 << 24;

    fn frame(payload: &[u8]) -> Vec<u8> {
        FrameBuilder::default().build(Opcode::Text, |out| out.extend_from_slice(payload)).to_vec()
    }

    /// What a client makes of a frame: its payload, and whether it was compressed.
    fn read(frame: &[u8]) -> (Vec<u8>, bool) {
        let compressed = frame[0] & 0x40 != 0;
        let plain = [&[frame[0] & !0x40], &frame[1..]].concat();
        let (opcode, payload) = split_frame(&plain);
        assert_eq!(opcode, Opcode::Text);
        if !compressed {
            return (payload.to_vec(), false);
        }
        let mut out = Vec::new();
        Inflaters::default().inflate(payload, None, &mut out, LARGE).unwrap();
        (out, true)
    }

    #[test]
    fn a_message_below_the_threshold_and_a_control_frame_go_plain() {
        let mut deflater = Deflater::new(6, 100);
        for (payload, compressed) in [(99, false), (100, true)] {
            let mut out = Vec::new();
            assert_eq!(deflater.append(WindowBits::MAX, &frame(&vec![b'a'; payload]), &mut out), compressed);
            assert_eq!(read(&out), (vec![b'a'; payload], compressed));
        }
        let mut out = Vec::new();
        let ping = FrameBuilder::default().build(Opcode::Ping, |out| out.extend_from_slice(&[b'a'; 120])).to_vec();
        assert!(!deflater.append(WindowBits::MAX, &ping, &mut out));
        assert_eq!(out, ping);
    }

    #[test]
    fn what_does_not_become_smaller_goes_plain() {
        let mut random = fastrand::Rng::with_seed(1);
        let noise: Vec<u8> = (0..5_000).map(|_| random.u8(..)).collect();
        let mut out = Vec::new();
        assert!(!Deflater::new(6, 0).append(WindowBits::MAX, &frame(&noise), &mut out));
        assert_eq!(out, frame(&noise));
        out.clear();
        assert!(!Deflater::new(6, 0).append(WindowBits::MAX, &frame(b""), &mut out));
    }

    #[test]
    fn a_shared_frame_is_compressed_once_for_each_window() {
        let shared = SharedFrame::from(&frame(&[b'a'; 1_000])[..]);
        let mut deflater = Deflater::new(6, 0);
        for bits in [15, 9, 14, 15, 9] {
            let bits = WindowBits::new(bits).unwrap();
            let first = shared.deflated(bits, &mut deflater).as_ptr();
            assert_eq!(read(shared.deflated(bits, &mut deflater)), (vec![b'a'; 1_000], true));
            assert_eq!(first, shared.clone().deflated(bits, &mut deflater).as_ptr());
        }
    }

    /// What lies further back than the window reaches is sent anew. The decompressor would not tell: it reads references
    /// beyond the window it was made for as well.
    #[test]
    fn a_window_is_kept_to() {
        let mut random = fastrand::Rng::with_seed(2);
        let block: Vec<u8> = (0..300).map(|_| random.u8(..)).collect();
        let gap: Vec<u8> = (0..20_000).map(|_| random.alphanumeric() as u8).collect();
        let message = [&block[..], &gap, &block].concat();
        let compressed_bytes = |bits| {
            let mut out = Vec::new();
            assert!(Deflater::new(9, 0).append(WindowBits::new(bits).unwrap(), &frame(&message), &mut out));
            assert_eq!(read(&out), (message.clone(), true));
            out.len()
        };
        let widest_bytes = compressed_bytes(15);
        for bits in 9..15 {
            let bytes = compressed_bytes(bits);
            assert!(bytes > widest_bytes + 250, "{bits} bits: {bytes} bytes, and with 15 {widest_bytes}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_compressed_comes_back(
            words in proptest::collection::vec("[a-z]{1,9}|[0-9]{1,20}", 0..400),
            level in 1_u32..10,
            bits in 9_u8..16,
        ) {
            let message = words.join(" ").into_bytes();
            let mut deflater = Deflater::new(level, 0);
            for _ in 0..2 {
                let mut out = Vec::new();
                deflater.append(WindowBits::new(bits).unwrap(), &frame(&message), &mut out);
                prop_assert_eq!(read(&out).0, message.clone());
            }
        }
    }
}
