//! A client's frames (RFC 6455 §5.2), the broken ones too.

/// In which form a length is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LengthForm {
    /// The shortest that holds it, which is the only one allowed.
    Shortest,
    /// In 16 bits, however small.
    Middle,
    /// In 64 bits, however small.
    Long,
}

/// One frame. [`Frame::text`] and the like make those that nothing is wrong with.
#[derive(Clone, Debug)]
pub struct Frame {
    /// Whether it is its message's last.
    pub fin: bool,
    /// The three reserved bits.
    pub reserved: u8,
    /// The four bits of the opcode.
    pub opcode: u8,
    /// The masking key; a client has to have one.
    pub key: Option<[u8; 4]>,
    /// How the length is written.
    pub form: LengthForm,
    /// What it carries, unmasked.
    pub payload: Vec<u8>,
}

/// Opcodes (RFC 6455 §11.8).
pub const CONTINUATION: u8 = 0;
/// See [`CONTINUATION`].
pub const TEXT: u8 = 1;
/// See [`CONTINUATION`].
pub const BINARY: u8 = 2;
/// See [`CONTINUATION`].
pub const CLOSE: u8 = 8;
/// See [`CONTINUATION`].
pub const PING: u8 = 9;
/// See [`CONTINUATION`].
pub const PONG: u8 = 10;

impl Frame {
    /// A whole message or control frame. Its key is zero, so that the payload stands in the bytes as it is and a
    /// dictionary's words have a meaning there.
    pub fn new(opcode: u8, payload: impl Into<Vec<u8>>) -> Frame {
        let (key, payload) = (Some([0; 4]), payload.into());
        Frame { fin: true, reserved: 0, opcode, key, form: LengthForm::Shortest, payload }
    }

    /// The same, but not its message's last.
    pub fn unfinished(self) -> Frame {
        Frame { fin: false, ..self }
    }

    /// The same under another key.
    pub fn masked(self, key: [u8; 4]) -> Frame {
        Frame { key: Some(key), ..self }
    }

    /// Bytes of the header.
    pub fn header_bytes(&self) -> usize {
        2 + self.length_bytes() + self.key.map_or(0, |key| key.len())
    }

    /// Bytes of the length behind its first seven bits.
    pub fn length_bytes(&self) -> usize {
        match (self.form, self.payload.len()) {
            (LengthForm::Shortest, 0..=125) => 0,
            (LengthForm::Shortest | LengthForm::Middle, 0..=0xFFFF) => 2,
            (LengthForm::Shortest | LengthForm::Middle | LengthForm::Long, _) => 8,
        }
    }

    /// Appends the frame as it goes over the wire.
    pub fn write(&self, out: &mut Vec<u8>) {
        let payload_bytes = self.payload.len();
        out.push(u8::from(self.fin) << 7 | (self.reserved & 7) << 4 | self.opcode & 0xF);
        let masked = u8::from(self.key.is_some()) << 7;
        match self.length_bytes() {
            0 => out.push(masked | payload_bytes as u8),
            2 => {
                out.push(masked | 126);
                out.extend((payload_bytes as u16).to_be_bytes());
            }
            _ => {
                out.push(masked | 127);
                out.extend((payload_bytes as u64).to_be_bytes());
            }
        }
        out.extend(self.key.into_iter().flatten());
        match self.key {
            // Byte by byte takes its time under a fuzzer, and this is most of the frames.
            None | Some([0, 0, 0, 0]) => out.extend_from_slice(&self.payload),
            Some(key) => out.extend(self.payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key)),
        }
    }

    /// The frame as it goes over the wire.
    pub fn bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.write(&mut out);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The examples of RFC 6455 §5.7.
    #[test]
    fn the_rfcs_own_examples() {
        let hello = Frame::new(TEXT, "Hello").masked([0x37, 0xFA, 0x21, 0x3D]);
        assert_eq!(hello.bytes(), [0x81, 0x85, 0x37, 0xFA, 0x21, 0x3D, 0x7F, 0x9F, 0x4D, 0x51, 0x58]);
        let unmasked = Frame { key: None, ..Frame::new(BINARY, vec![0; 256]) };
        assert_eq!(unmasked.bytes()[..4], [0x82, 0x7E, 0x01, 0x00]);
        assert_eq!(Frame { key: None, ..Frame::new(BINARY, vec![0; 65_536]) }.bytes()[..4], [0x82, 0x7F, 0, 0]);
        assert_eq!(Frame::new(TEXT, "Hel").unfinished().bytes()[0], 0x01);
    }

    #[test]
    fn a_header_is_as_long_as_it_says() {
        for payload_bytes in [0, 125, 126, 65_535, 65_536] {
            for form in [LengthForm::Shortest, LengthForm::Middle, LengthForm::Long] {
                let frame = Frame { form, ..Frame::new(BINARY, vec![0; payload_bytes]) };
                assert_eq!(frame.bytes().len(), frame.header_bytes() + payload_bytes);
            }
        }
    }
}
