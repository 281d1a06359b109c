//! Headers of a client's frames (RFC 6455 §5.2), read strictly.

use super::PeerError;
use crate::frame::{Opcode, RSV1};
use crate::limits::CONTROL_BYTES_MAX;

/// The header of a client's frame; the mask is there, since an unmasked frame is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Whether this is the message's last frame.
    pub fin: bool,
    /// Whether the message is compressed (RFC 7692 §6).
    pub compressed: bool,
    /// What the frame carries.
    pub opcode: Opcode,
    /// The masking key.
    pub key: [u8; 4],
    /// Bytes of payload that follow.
    pub payload_bytes: u64,
}

/// Reads the header of a client's frame from the front of `bytes`: the header and its length, or `None` while more
/// bytes are needed. `deflate` tells whether permessage-deflate was agreed on: only then may a message's first frame
/// have RSV1 set (RFC 7692 §6.1).
///
/// # Errors
/// As early as the bytes show it: reserved bits, an unknown opcode, a fragmented or long control frame, no mask, a
/// length that is not minimal or has its top bit set. All are protocol errors (1002).
#[inline]
pub fn parse_header(bytes: &[u8], deflate: bool) -> Result<Option<(Header, usize)>, PeerError> {
    let Some(&first) = bytes.first() else { return Ok(None) };
    let fin = first & 0x80 != 0;
    let compressed = first & RSV1 != 0;
    if first & 0x30 != 0 || (compressed && !deflate) {
        return Err(PeerError::ReservedBits);
    }
    let opcode = Opcode::from_bits(first & 0x0F).ok_or(PeerError::UnknownOpcode)?;
    if compressed && !matches!(opcode, Opcode::Text | Opcode::Binary) {
        return Err(PeerError::ReservedBits);
    }
    let control = opcode.is_control();
    if control && !fin {
        return Err(PeerError::FragmentedControl);
    }
    let Some(&second) = bytes.get(1) else { return Ok(None) };
    if second & 0x80 == 0 {
        return Err(PeerError::Unmasked);
    }
    let short = second & 0x7F;
    if control && usize::from(short) > CONTROL_BYTES_MAX {
        return Err(PeerError::LongControl);
    }
    let (payload_bytes, at) = match short {
        126 => match bytes.get(2..4) {
            Some(length) => (u64::from(u16::from_be_bytes([length[0], length[1]])), 4),
            None => return Ok(None),
        },
        127 => match bytes.get(2..10).and_then(|length| length.try_into().ok()) {
            Some(length) => (u64::from_be_bytes(length), 10),
            None => return Ok(None),
        },
        short => (u64::from(short), 2),
    };
    let minimal = match at {
        4 => payload_bytes > 125,
        10 => payload_bytes > u64::from(u16::MAX) && payload_bytes >> 63 == 0,
        _ => true,
    };
    if !minimal {
        return Err(PeerError::BadLength);
    }
    let Some(key) = bytes.get(at..at + 4) else { return Ok(None) };
    let key = [key[0], key[1], key[2], key[3]];
    Ok(Some((Header { fin, compressed, opcode, key, payload_bytes }, at + 4)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn client_header(first: u8, length: u64, form: u8) -> Vec<u8> {
        let mut bytes = vec![first];
        match form {
            0 => bytes.push(0x80 | length as u8),
            1 => {
                bytes.push(0x80 | 126);
                bytes.extend_from_slice(&(length as u16).to_be_bytes());
            }
            _ => {
                bytes.push(0x80 | 127);
                bytes.extend_from_slice(&length.to_be_bytes());
            }
        }
        bytes.extend_from_slice(&[1, 2, 3, 4]);
        bytes
    }

    #[test]
    fn refuses_what_the_rfc_forbids_at_the_first_byte_that_shows_it() {
        assert_eq!(parse_header(&[0xC1], false), Err(PeerError::ReservedBits));
        assert_eq!(parse_header(&[0x83], false), Err(PeerError::UnknownOpcode));
        assert_eq!(parse_header(&[0x8B], false), Err(PeerError::UnknownOpcode));
        assert_eq!(parse_header(&[0x09], false), Err(PeerError::FragmentedControl));
        assert_eq!(parse_header(&[0x81, 0x05], false), Err(PeerError::Unmasked));
        assert_eq!(parse_header(&[0x89, 0xFE], false), Err(PeerError::LongControl));
        assert_eq!(parse_header(&client_header(0x81, 125, 1), false), Err(PeerError::BadLength));
        assert_eq!(parse_header(&client_header(0x81, 65_535, 2), false), Err(PeerError::BadLength));
        assert_eq!(parse_header(&client_header(0x81, 1 << 63, 2), false), Err(PeerError::BadLength));
    }

    #[test]
    fn only_the_first_frame_of_a_message_may_be_marked_as_compressed() {
        assert_eq!(parse_header(&[0xC0], true), Err(PeerError::ReservedBits), "a continuation");
        assert_eq!(parse_header(&[0xC9], true), Err(PeerError::ReservedBits), "a ping");
        assert_eq!(parse_header(&[0xA1], true), Err(PeerError::ReservedBits), "RSV2");
        assert_eq!(parse_header(&[0x91], true), Err(PeerError::ReservedBits), "RSV3");
        let (header, _) = parse_header(&client_header(0x41, 3, 0), true).unwrap().unwrap();
        assert!(header.compressed && !header.fin);
    }

    proptest! {
        #[test]
        fn every_length_round_trips_in_its_minimal_form(length in prop_oneof![0_u64..300, 65_000..66_000_u64, any::<u64>().prop_map(|n| n >> 1)]) {
            let form = if length < 126 { 0 } else if length <= 65_535 { 1 } else { 2 };
            let bytes = client_header(0x82, length, form);
            let (header, used) = parse_header(&bytes, false).unwrap().unwrap();
            prop_assert_eq!(header, Header { fin: true, compressed: false, opcode: Opcode::Binary, key: [1, 2, 3, 4], payload_bytes: length });
            prop_assert_eq!(used, bytes.len());
            for cut in 0..bytes.len() {
                prop_assert_eq!(parse_header(&bytes[..cut], false), Ok(None));
            }
        }

    }
}
