//! The sans-IO parts as the exhibits drive them: the one place here that knows their signatures.

use fanfare::compress::Inflaters;
use fanfare::conn::{CloseReason, Decoder, HeadLimits, MessageLimits, PeerError};
use fanfare_testing::raw::masked;

/// The default bounds of a request head: 8 KiB and 64 fields.
pub const HEAD: HeadLimits = HeadLimits { bytes_max: 8 * 1024, headers_max: 64 };

/// The default size of a message.
pub const MESSAGE_BYTES_MAX: usize = 1 << 20;

/// The default number of fragments in a message.
pub const FRAGMENTS_MAX: usize = 131_072;

/// The inbound half of a connection without compression, under the default bounds.
#[derive(Default)]
pub struct Inbound {
    decoder: Decoder,
    inflaters: Inflaters,
}

impl Inbound {
    /// Takes frames in pieces of `piece_bytes`: the messages and control frames they made.
    ///
    /// # Errors
    /// The close code they were answered with.
    pub fn take(&mut self, frames: &mut [u8], piece_bytes: usize) -> Result<usize, u16> {
        let limits = MessageLimits { bytes_max: MESSAGE_BYTES_MAX, fragments_max: FRAGMENTS_MAX as u32 };
        let mut events = 0;
        for piece in frames.chunks_mut(piece_bytes) {
            let mut input = piece;
            while self.decoder.next(&mut input, limits, &mut self.inflaters).map_err(code)?.is_some() {
                events += 1;
            }
        }
        Ok(events)
    }

    /// Bytes held for an incomplete message.
    pub fn held_bytes(&self) -> usize {
        self.decoder.held_bytes()
    }
}

/// The header of a frame whose length is written in eight bytes, whatever it is, and nothing behind its mask.
pub fn header_of_64_bits(first: u8, payload_bytes: u64) -> Vec<u8> {
    let mut header = vec![first, 0x80 | 127];
    header.extend_from_slice(&payload_bytes.to_be_bytes());
    header.extend_from_slice(&[1, 2, 3, 4]);
    header
}

/// `first` and then continuations of it, `count` fragments in all and none the last, each with this payload.
pub fn fragments(first: u8, count: usize, payload: &[u8]) -> Vec<u8> {
    let mut frames = masked(first & !0x80, payload);
    frames.extend(masked(0, payload).repeat(count - 1));
    frames
}

fn code(error: PeerError) -> u16 {
    CloseReason::Peer(error).code()
}
