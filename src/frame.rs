//! The wire form of a server's frames (RFC 6455 §5.2): opcodes, headers, whole frames.
//!
//! A base layer: both the connections and the router write frames. Reading a client's frames is `conn`'s business.

/// Marks a message as compressed, in a frame's first byte (RFC 7692 §6).
pub const RSV1: u8 = 0x40;

/// Shortest header a server writes.
pub const FRAME_HEADER_BYTES_MIN: usize = 2;

/// Longest header a server writes: it never masks.
pub const FRAME_HEADER_BYTES_MAX: usize = 10;

/// The opcodes RFC 6455 §11.8 defines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opcode {
    /// A further part of a fragmented message.
    Continuation,
    /// UTF-8 text.
    Text,
    /// Bytes.
    Binary,
    /// The closing handshake.
    Close,
    /// Heartbeat, to be answered.
    Ping,
    /// The answer to a ping.
    Pong,
}

impl Opcode {
    /// The opcode's four bits.
    pub fn bits(self) -> u8 {
        match self {
            Opcode::Continuation => 0x0,
            Opcode::Text => 0x1,
            Opcode::Binary => 0x2,
            Opcode::Close => 0x8,
            Opcode::Ping => 0x9,
            Opcode::Pong => 0xA,
        }
    }

    /// Whether it is a control frame's opcode (RFC 6455 §5.5).
    pub fn is_control(self) -> bool {
        self.bits() & 0x8 != 0
    }

    /// The opcode of four bits; `None` where RFC 6455 defines none.
    pub fn from_bits(bits: u8) -> Option<Opcode> {
        Some(match bits {
            0x0 => Opcode::Continuation,
            0x1 => Opcode::Text,
            0x2 => Opcode::Binary,
            0x8 => Opcode::Close,
            0x9 => Opcode::Ping,
            0xA => Opcode::Pong,
            _ => return None,
        })
    }
}

/// Builds whole frames in one reused buffer: the payload is written once, its header placed in front of it.
#[derive(Debug, Default)]
pub struct FrameBuilder {
    bytes: Vec<u8>,
}

impl FrameBuilder {
    /// The frame whose payload `write` appends. It lives until the next call.
    #[inline]
    pub fn build(&mut self, opcode: Opcode, write: impl FnOnce(&mut Vec<u8>)) -> &[u8] {
        self.bytes.clear();
        self.bytes.extend_from_slice(&[0; FRAME_HEADER_BYTES_MAX]);
        write(&mut self.bytes);
        let payload_bytes = self.bytes.len() - FRAME_HEADER_BYTES_MAX;
        let gap = self.bytes.first_chunk_mut::<FRAME_HEADER_BYTES_MAX>().expect("it was put there above");
        let start = place_header(gap, opcode, payload_bytes);
        &self.bytes[start..]
    }

    /// Frees the buffer where one large message made it grow beyond `bytes_max`.
    pub fn shrink(&mut self, bytes_max: usize) {
        if self.bytes.capacity() > bytes_max {
            self.bytes = Vec::new();
        }
    }
}

/// Appends the header of a server's unfragmented, unmasked frame with `payload_bytes` to follow.
#[inline]
pub fn encode_header(out: &mut Vec<u8>, opcode: Opcode, payload_bytes: usize) {
    append_header(out, 0x80 | opcode.bits(), payload_bytes);
}

/// As [`encode_header`], for a compressed message (RFC 7692 §6).
pub fn encode_compressed_header(out: &mut Vec<u8>, opcode: Opcode, payload_bytes: usize) {
    append_header(out, 0x80 | RSV1 | opcode.bits(), payload_bytes);
}

/// The opcode and payload of a whole frame that this server wrote, uncompressed.
///
/// # Panics
/// Where it is no such frame.
pub fn split_frame(frame: &[u8]) -> (Opcode, &[u8]) {
    let header_bytes = match frame[1] {
        127 => 10,
        126 => 4,
        _ => 2,
    };
    let opcode = Opcode::from_bits(frame[0] & !0x80).expect("the server writes known opcodes, uncompressed here");
    (opcode, &frame[header_bytes..])
}

/// The frames that stand one after another, each whole, uncompressed and unmasked, as a server writes messages. Ends
/// where anything else begins.
pub fn whole_frames(mut frames: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let [first, second, rest @ ..] = frames else { return None };
        let is_message = [0x80 | Opcode::Text.bits(), 0x80 | Opcode::Binary.bits()].contains(first);
        let (header_bytes, payload_bytes): (usize, usize) = match second {
            127 => (10, usize::try_from(u64::from_be_bytes(*rest.first_chunk()?)).ok()?),
            126 => (4, usize::from(u16::from_be_bytes(*rest.first_chunk()?))),
            short => (2, usize::from(*short)),
        };
        if !is_message || *second >= 128 {
            return None;
        }
        let (frame, rest) = frames.split_at_checked(header_bytes.checked_add(payload_bytes)?)?;
        frames = rest;
        Some(frame)
    })
}

#[inline]
fn append_header(out: &mut Vec<u8>, first: u8, payload_bytes: usize) {
    // Lengths the compiler knows: a copy of unknown length costs more than all the rest.
    if payload_bytes <= 125 {
        out.extend_from_slice(&[first, payload_bytes as u8]);
    } else if let Ok(length) = u16::try_from(payload_bytes) {
        let [high, low] = length.to_be_bytes();
        out.extend_from_slice(&[first, 126, high, low]);
    } else {
        let [a, b, c, d, e, f, g, h] = (payload_bytes as u64).to_be_bytes();
        out.extend_from_slice(&[first, 127, a, b, c, d, e, f, g, h]);
    }
}

/// Puts the header at the end of the gap in front of its payload; where it starts.
#[inline]
fn place_header(gap: &mut [u8; FRAME_HEADER_BYTES_MAX], opcode: Opcode, payload_bytes: usize) -> usize {
    let first = 0x80 | opcode.bits();
    if payload_bytes <= 125 {
        [gap[8], gap[9]] = [first, payload_bytes as u8];
        8
    } else if let Ok(length) = u16::try_from(payload_bytes) {
        let [high, low] = length.to_be_bytes();
        [gap[6], gap[7], gap[8], gap[9]] = [first, 126, high, low];
        6
    } else {
        let [a, b, c, d, e, f, g, h] = (payload_bytes as u64).to_be_bytes();
        *gap = [first, 127, a, b, c, d, e, f, g, h];
        0
    }
}

/// The end of the frame that holds byte `at` of `frames`, whole server frames one after another: where a stream cut
/// at `at` may stop without cutting a frame. `at` on a boundary is its own answer.
pub fn frame_boundary(frames: &[u8], at: usize) -> usize {
    let mut boundary = 0;
    while boundary < at {
        let Some(rest) = frames.get(boundary..) else { break };
        let (payload_bytes, header_bytes) = match rest {
            [_, 126, high, low, ..] => (usize::from(u16::from_be_bytes([*high, *low])), 4),
            [_, 127, tail @ ..] => match tail.first_chunk::<8>() {
                Some(length) => (u64::from_be_bytes(*length) as usize, 10),
                None => break,
            },
            [_, short, ..] => (usize::from(*short), 2),
            _ => break,
        };
        boundary += header_bytes + payload_bytes;
    }
    boundary.clamp(at, frames.len())
}

/// How many frames of a server there are, one after another, whatever they are.
pub fn count_frames(frames: &[u8]) -> usize {
    let (mut count, mut at) = (0, 0);
    while at < frames.len() {
        (count, at) = (count + 1, at + frame_boundary(&frames[at..], 1));
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_boundary_is_found_inside_and_between_frames() {
        let mut frames = Vec::new();
        let mut boundaries = vec![0];
        for payload in [0_usize, 5, 126, 70_000, 1] {
            encode_header(&mut frames, Opcode::Text, payload);
            frames.resize(frames.len() + payload, b'x');
            boundaries.push(frames.len());
        }
        for at in (0..frames.len()).step_by(37).chain(boundaries.clone()) {
            let expected = *boundaries.iter().find(|&&boundary| boundary >= at).unwrap();
            assert_eq!(frame_boundary(&frames, at), expected, "at {at}");
        }
    }

    #[test]
    fn whole_frames_end_where_anything_else_begins() {
        let mut frames = Vec::new();
        for payload in [0_usize, 5, 126, 70_000] {
            encode_header(&mut frames, Opcode::Binary, payload);
            frames.resize(frames.len() + payload, b'x');
        }
        let lengths: Vec<usize> = whole_frames(&frames).map(|frame| split_frame(frame).1.len()).collect();
        assert_eq!(lengths, [0, 5, 126, 70_000]);
        assert_eq!(whole_frames(&frames[..frames.len() - 1]).count(), 3, "the last is not whole");
        for other in [&[0x81_u8, 0x80, 0, 0, 0, 0][..], &[0x88, 0], &[0xC1, 0], &[0x01, 0], &[0x81, 127, 0xFF]] {
            assert_eq!(whole_frames(&[&frames[..2], other].concat()).count(), 1, "{other:?}");
        }
    }

    proptest! {
        #[test]
        fn what_the_server_writes_tungstenite_reads(length in 0_usize..200_000) {
            let mut builder = FrameBuilder::default();
            let out = builder.build(Opcode::Text, |payload| payload.resize(payload.len() + length, b'x'));
            let (header, payload_bytes) =
                tungstenite::protocol::frame::FrameHeader::parse(&mut std::io::Cursor::new(out)).unwrap().unwrap();
            prop_assert_eq!(payload_bytes, length as u64);
            prop_assert!(header.is_final && header.mask.is_none());
            let mut header = Vec::new();
            encode_header(&mut header, Opcode::Text, length);
            prop_assert_eq!(&out[..header.len()], &header[..]);
            prop_assert_eq!(out.len(), header.len() + length);
        }
    }
}
