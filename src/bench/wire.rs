//! Bytes of a dialect from the client's side: masked frames prepared once, and a scan of the server's frames that looks
//! for nothing but the stamp in each message.
//!
//! Every published content starts with a stamp: `#000123:00000042` is message 42 of stream 123. It is found again in
//! whatever envelope a server puts around it, without parsing JSON.

use super::limits::RECEIVE_BYTES;

/// Bytes of a stamp: `#`, six digits, `:`, eight digits.
pub(super) const STAMP_BYTES: usize = 16;

/// Bytes of a stamp that name its stream.
const TAG_BYTES: usize = 8;

/// The stream's half of a stamp, compared as one number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tag(u64);

impl Tag {
    /// The tag of a stream.
    pub(super) fn new(stream: u32) -> Tag {
        let mut bytes = [0; TAG_BYTES];
        bytes.copy_from_slice(format!("#{stream:06}:").as_bytes());
        Tag(u64::from_le_bytes(bytes))
    }
}

/// What a message is stamped with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    /// Its stream.
    pub(super) tag: Tag,
    /// Its number within the stream, from 0.
    pub(super) sequence: u32,
}

/// Finds stamps. It remembers where the last one stood: messages of one server look alike.
#[derive(Debug, Default)]
pub(super) struct StampScanner {
    at: usize,
}

impl StampScanner {
    /// The stamp of a message; `None` where there is none, as in a welcome.
    #[inline]
    pub(super) fn find(&mut self, payload: &[u8]) -> Option<Stamp> {
        payload.get(self.at..).and_then(stamp).or_else(|| self.search(payload))
    }

    #[cold]
    fn search(&mut self, payload: &[u8]) -> Option<Stamp> {
        let found = memchr::memchr_iter(b'#', payload).find_map(|at| Some((at, stamp(&payload[at..])?)));
        found.map(|(at, stamp)| {
            self.at = at;
            stamp
        })
    }
}

/// The stamp that `text` starts with.
#[inline]
fn stamp(text: &[u8]) -> Option<Stamp> {
    let stamp: &[u8; STAMP_BYTES] = text.first_chunk()?;
    if stamp[0] != b'#' || stamp[TAG_BYTES - 1] != b':' {
        return None;
    }
    let (tag, digits) = stamp.split_first_chunk::<TAG_BYTES>()?;
    let sequence = eight_digits(u64::from_le_bytes(*digits.first_chunk()?))?;
    Some(Stamp { tag: Tag(u64::from_le_bytes(*tag)), sequence })
}

/// Eight ASCII digits, the first in the lowest byte, as a number: pairs, then fours, then all eight at once.
#[inline]
fn eight_digits(text: u64) -> Option<u32> {
    const HIGH: u64 = 0xF0F0_F0F0_F0F0_F0F0;
    const ZEROS: u64 = 0x3030_3030_3030_3030;
    const SIXES: u64 = 0x0606_0606_0606_0606;
    if text & HIGH != ZEROS || text.wrapping_add(SIXES) & HIGH != ZEROS {
        return None;
    }
    let pairs = (text & 0x0F0F_0F0F_0F0F_0F0F).wrapping_mul(10 << 8 | 1) >> 8;
    let fours = (pairs & 0x00FF_00FF_00FF_00FF).wrapping_mul(100 << 16 | 1) >> 16;
    let eight = (fours & 0x0000_FFFF_0000_FFFF).wrapping_mul(10_000 << 32 | 1) >> 32;
    Some(eight as u32)
}

/// Digits of a stream's, a room's and a user's number.
pub(super) const NAME_DIGITS: usize = 6;

/// Digits of a sequence number.
pub(super) const SEQUENCE_DIGITS: usize = 8;

/// A masked text frame (RFC 6455 §5.3), ready but for the sequence number and the names.
#[derive(Debug)]
pub(super) struct Template {
    frame: Vec<u8>,
    mask: [u8; 4],
    payload_at: usize,
    /// Where the stamp, the room's number and the receiver's number stand in the payload.
    stamp_at: usize,
    room_at: Option<usize>,
    receiver_at: Option<usize>,
}

impl Template {
    /// The frame of a JSON text that carries one stamp, and perhaps a `roomId`, a `channel` or a `toUser`.
    ///
    /// # Panics
    ///
    /// Where it carries no stamp.
    pub(super) fn new(json: &str, mask: [u8; 4]) -> Template {
        let behind = |name: &str| json.find(name).map(|at| at + name.len());
        let frame = masked(Opcode::Text, json.as_bytes(), mask);
        Template {
            payload_at: frame.len() - json.len(),
            stamp_at: json.find('#').expect("a template carries a stamp"),
            room_at: behind(r#""roomId":"r"#).or_else(|| behind(r#""channel":"r"#)),
            receiver_at: behind(r#""toUser":"u"#),
            frame,
            mask,
        }
    }

    /// Appends the frame with this sequence number to `out`.
    #[inline]
    pub(super) fn append(&mut self, sequence: u32, out: &mut Vec<u8>) {
        self.patch::<SEQUENCE_DIGITS>(self.stamp_at + TAG_BYTES, sequence);
        out.extend_from_slice(&self.frame);
    }

    /// As [`append`](Template::append), into this room, which is the stream as well.
    #[inline]
    pub(super) fn append_into(&mut self, room: u32, sequence: u32, out: &mut Vec<u8>) {
        if let Some(at) = self.room_at {
            self.patch::<NAME_DIGITS>(at, room);
        }
        self.patch::<NAME_DIGITS>(self.stamp_at + 1, room);
        self.append(sequence, out);
    }

    /// As [`append`](Template::append), for this receiver.
    #[inline]
    pub(super) fn append_to(&mut self, receiver: u32, sequence: u32, out: &mut Vec<u8>) {
        if let Some(at) = self.receiver_at {
            self.patch::<NAME_DIGITS>(at, receiver);
        }
        self.append(sequence, out);
    }

    #[inline]
    fn patch<const DIGITS: usize>(&mut self, at: usize, number: u32) {
        let mut left = number;
        for offset in (at..at + DIGITS).rev() {
            self.frame[self.payload_at + offset] = (b'0' + (left % 10) as u8) ^ self.mask[offset % 4];
            left /= 10;
        }
    }
}

/// What a client's frame may be.
#[derive(Clone, Copy, Debug)]
pub(super) enum Opcode {
    /// A message.
    Text,
    /// A compressed message (RFC 7692 §6).
    Compressed,
    /// A ping.
    Ping,
    /// The answer to a ping.
    Pong,
}

/// A whole client frame.
pub(super) fn masked(opcode: Opcode, payload: &[u8], mask: [u8; 4]) -> Vec<u8> {
    let opcode = match opcode {
        Opcode::Text => 0x1,
        Opcode::Compressed => 0x41,
        Opcode::Ping => 0x9,
        Opcode::Pong => 0xA,
    };
    let mut frame = vec![0x80 | opcode];
    match payload.len() {
        length @ 0..=125 => frame.push(0x80 | length as u8),
        length => match u16::try_from(length) {
            Ok(length) => {
                frame.push(0x80 | 126);
                frame.extend_from_slice(&length.to_be_bytes());
            }
            Err(_) => {
                frame.push(0x80 | 127);
                frame.extend_from_slice(&(length as u64).to_be_bytes());
            }
        },
    }
    frame.extend_from_slice(&mask);
    frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

/// One frame of the server.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Frame<'a> {
    /// A whole message, text or binary.
    Message(&'a [u8]),
    /// A whole message, compressed (RFC 7692 §6).
    Compressed(&'a [u8]),
    /// The first fragment of a message.
    First {
        /// What it carries of the message.
        payload: &'a [u8],
        /// Whether the message is compressed.
        is_compressed: bool,
    },
    /// Another fragment of a message.
    Further {
        /// What it carries of the message.
        payload: &'a [u8],
        /// Whether the message ends with it.
        is_last: bool,
    },
    /// A ping, to be answered with its payload.
    Ping(&'a [u8]),
    /// A pong.
    Pong,
    /// The server's goodbye: status code and reason.
    Close(&'a [u8]),
}

/// What stands at the start of the bytes received.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Parsed<'a> {
    /// A frame, and the bytes it takes.
    Frame(Frame<'a>, usize),
    /// The beginning of a frame.
    Partial,
    /// No frame that this client asked for: masked, of an unknown kind, or too large.
    Malformed,
}

/// Reads the frame at the start of `bytes` (RFC 6455 §5.2).
#[inline]
pub(super) fn parse(bytes: &[u8]) -> Parsed<'_> {
    let (payload_bytes, header_bytes) = match bytes {
        [_, 126, high, low, ..] => (usize::from(u16::from_be_bytes([*high, *low])), 4),
        [_, 127, tail @ ..] => match tail.first_chunk::<8>() {
            Some(length) => (usize::try_from(u64::from_be_bytes(*length)).unwrap_or(usize::MAX), 10),
            None => return Parsed::Partial,
        },
        [_, 126, ..] | [] | [_] => return Parsed::Partial,
        [_, length, ..] if *length < 126 => (usize::from(*length), 2),
        [..] => return Parsed::Malformed,
    };
    if payload_bytes > RECEIVE_BYTES - header_bytes {
        return Parsed::Malformed;
    }
    let end = header_bytes + payload_bytes;
    let Some(payload) = bytes.get(header_bytes..end) else { return Parsed::Partial };
    let frame = match bytes[0] {
        0x81 | 0x82 => Frame::Message(payload),
        0xC1 | 0xC2 => Frame::Compressed(payload),
        0x01 | 0x02 => Frame::First { payload, is_compressed: false },
        0x41 | 0x42 => Frame::First { payload, is_compressed: true },
        0x00 => Frame::Further { payload, is_last: false },
        0x80 => Frame::Further { payload, is_last: true },
        0x88 => Frame::Close(payload),
        0x89 => Frame::Ping(payload),
        0x8A => Frame::Pong,
        _ => return Parsed::Malformed,
    };
    Parsed::Frame(frame, end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_stamp_is_found_wherever_it_stands(
            stream in 0_u32..1_000_000, sequence in 0_u32..100_000_000, before in "[^#]{0,80}", after in ".{0,20}",
        ) {
            let text = format!("{before}#{stream:06}:{sequence:08}{after}");
            let mut scanner = StampScanner::default();
            let expected = Some(Stamp { tag: Tag::new(stream), sequence });
            prop_assert_eq!(scanner.find(text.as_bytes()), expected);
            prop_assert_eq!(scanner.find(text.as_bytes()), expected, "and again, where it stood before");
        }

        #[test]
        fn what_is_no_number_is_no_stamp(digits in "[0-9:/a ]{8}") {
            let found = StampScanner::default().find(format!("#000001:{digits}").as_bytes());
            prop_assert_eq!(found.map(|stamp| stamp.sequence), digits.parse().ok());
        }

        #[test]
        fn a_template_is_the_masked_frame_of_its_text(
            name in 0_u32..1_000_000, sequence in 0_u32..100_000_000, mask: [u8; 4], padding in 0_usize..300,
        ) {
            let padding = "x".repeat(padding);
            let into = |name, sequence| {
                format!("{{\"roomId\":\"r{name:06}\",\"content\":\"#{name:06}:{sequence:08}{padding}\"}}")
            };
            let mut out = Vec::new();
            Template::new(&into(0, 0), mask).append_into(name, sequence, &mut out);
            prop_assert_eq!(&out, &masked(Opcode::Text, into(name, sequence).as_bytes(), mask));
            let json = |name, sequence| {
                format!("{{\"toUser\":\"u{name:06}\",\"content\":\"#000007:{sequence:08}{padding}\"}}")
            };
            out.clear();
            Template::new(&json(0, 0), mask).append_to(name, sequence, &mut out);
            prop_assert_eq!(&out, &masked(Opcode::Text, json(name, sequence).as_bytes(), mask));
            let (header, length) = tungstenite::protocol::frame::FrameHeader::parse(
                &mut std::io::Cursor::new(&out)).unwrap().unwrap();
            prop_assert_eq!((header.mask, length), (Some(mask), json(0, 0).len() as u64));
        }

        #[test]
        fn frames_are_read_whole_or_not_at_all(payload_bytes in 0_usize..70_000, cut in 0_usize..70_014) {
            let mut bytes = Vec::new();
            crate::frame::encode_header(&mut bytes, crate::frame::Opcode::Text, payload_bytes);
            bytes.resize(bytes.len() + payload_bytes, b'x');
            let end = bytes.len();
            let cut = cut.min(end);
            prop_assert_eq!(parse(&bytes), Parsed::Frame(Frame::Message(&bytes[end - payload_bytes..]), end));
            if cut < end {
                prop_assert_eq!(parse(&bytes[..cut]), Parsed::Partial);
            }
        }
    }

    #[test]
    fn fragments_say_where_they_belong() {
        for (bytes, frame) in [
            (&b"\x01\x01x"[..], Frame::First { payload: b"x", is_compressed: false }),
            (b"\x41\x01x", Frame::First { payload: b"x", is_compressed: true }),
            (b"\x00\x01x", Frame::Further { payload: b"x", is_last: false }),
            (b"\x80\x00", Frame::Further { payload: b"", is_last: true }),
        ] {
            assert_eq!(parse(bytes), Parsed::Frame(frame, bytes.len()));
        }
    }

    #[test]
    fn what_was_not_asked_for_is_malformed() {
        for bytes in [
            &b"\x03\x01x"[..],
            b"\xA1\x01x",
            b"\x40\x01x",
            b"\xC9\x01x",
            b"\x81\x81abcdx",
            b"\x81\x7F\0\0\0\0\xFF\0\0\0",
        ] {
            assert_eq!(parse(bytes), Parsed::Malformed, "{bytes:?}");
        }
    }
}
