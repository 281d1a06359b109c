//! Frames of a server of which only the beginning is of interest, however long they are.

use super::limits::START_BYTES;

/// A whole frame, as far as it is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Skimmed<'a> {
    /// The opcode (RFC 6455 §5.2).
    pub(super) opcode: u8,
    /// The first bytes of the payload.
    pub(super) start: &'a [u8],
}

/// Reads frames in pieces of any size and keeps next to nothing of them.
#[derive(Debug, Default)]
pub(super) struct Skim {
    /// The header so far, while the payload has not begun.
    header: Vec<u8>,
    start: Vec<u8>,
    /// Bytes of the payload that are still to come, once the header is whole.
    left: Option<u64>,
}

impl Skim {
    /// Takes bytes that have come, and tells of every frame that ends in them.
    pub(super) fn take(&mut self, bytes: &[u8], mut each: impl FnMut(Skimmed<'_>)) {
        let mut bytes = bytes;
        loop {
            match self.left {
                None => {
                    let Some((first, rest)) = bytes.split_first() else { return };
                    self.header.push(*first);
                    bytes = rest;
                    self.left = payload_bytes(&self.header);
                }
                Some(0) => {
                    each(Skimmed { opcode: self.header[0] & 0x0F, start: &self.start });
                    *self = Skim::default();
                }
                Some(left) => {
                    let taken = usize::try_from(left).map_or(bytes.len(), |left| left.min(bytes.len()));
                    if taken == 0 {
                        return;
                    }
                    let (now, rest) = bytes.split_at(taken);
                    let wanted = (START_BYTES - self.start.len()).min(taken);
                    self.start.extend_from_slice(&now[..wanted]);
                    self.left = Some(left - taken as u64);
                    bytes = rest;
                }
            }
        }
    }
}

/// The length that a header names, if it is whole. A server's has no mask.
fn payload_bytes(header: &[u8]) -> Option<u64> {
    match header {
        [_, 126, high, low] => Some(u16::from_be_bytes([*high, *low]).into()),
        [_, 127, length @ ..] => Some(u64::from_be_bytes(*length.first_chunk()?)),
        [_, length] if *length < 126 => Some((*length).into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn frames_are_told_alike_in_pieces_of_any_size(lengths in prop::collection::vec(0_usize..70_000, 1..6), piece in 1_usize..9_000) {
            let mut bytes = Vec::new();
            for length in &lengths {
                crate::frame::encode_header(&mut bytes, crate::frame::Opcode::Text, *length);
                bytes.extend((0..*length).map(|at| at as u8));
            }
            let mut found = Vec::new();
            let mut skim = Skim::default();
            for piece in bytes.chunks(piece) {
                skim.take(piece, |frame| found.push((frame.opcode, frame.start.to_vec())));
            }
            let start = |length: &usize| (1, (0..(*length).min(START_BYTES)).map(|at| at as u8).collect());
            prop_assert_eq!(found, lengths.iter().map(start).collect::<Vec<(u8, Vec<u8>)>>());
        }
    }
}
