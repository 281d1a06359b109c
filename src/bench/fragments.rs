//! A message that travels in several frames (RFC 6455 §5.4): Centrifugo's, when they are large and compressed.

use super::limits::RECEIVE_BYTES;

/// What has come so far of one connection's message.
#[derive(Debug, Default)]
pub(super) struct Fragments {
    message: Option<Fragmented>,
}

/// A message in fragments.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fragmented {
    /// Whether it is compressed as a whole (RFC 7692 §6.1).
    pub(super) is_compressed: bool,
    /// The fragments so far, one after another.
    pub(super) payload: Vec<u8>,
}

impl Fragments {
    /// Takes the first fragment. Says whether one may begin here.
    pub(super) fn begin(&mut self, payload: &[u8], is_compressed: bool) -> bool {
        let may_begin = self.message.is_none();
        self.message = Some(Fragmented { is_compressed, payload: payload.to_vec() });
        may_begin
    }

    /// Takes another fragment; the message, where that was its last.
    ///
    /// # Errors
    ///
    /// Where none has begun, or the message is larger than a frame may be.
    pub(super) fn go_on(&mut self, payload: &[u8], is_last: bool) -> Result<Option<Fragmented>, ()> {
        let message = self.message.as_mut().ok_or(())?;
        if message.payload.len() + payload.len() > RECEIVE_BYTES {
            return Err(());
        }
        message.payload.extend_from_slice(payload);
        Ok(if is_last { self.message.take() } else { None })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fragments_become_one_message_and_the_next_one_begins_anew() {
        let mut fragments = Fragments::default();
        for is_compressed in [true, false] {
            assert!(fragments.begin(b"a", is_compressed));
            assert_eq!(fragments.go_on(b"b", false), Ok(None));
            let whole = Fragmented { is_compressed, payload: b"abc".to_vec() };
            assert_eq!(fragments.go_on(b"c", true), Ok(Some(whole)));
        }
    }

    #[test]
    fn fragments_out_of_order_and_messages_without_end_are_seen() {
        let mut fragments = Fragments::default();
        assert_eq!(fragments.go_on(b"b", true), Err(()));
        assert!(fragments.begin(b"a", false) && !fragments.begin(b"a", false));
        assert_eq!(fragments.go_on(&vec![0; RECEIVE_BYTES], false), Err(()));
    }
}
