//! permessage-deflate from the client's side (RFC 7692): the offer, what the server agreed to, and messages inflated.
//!
//! Most compressed messages are counted and not inflated, so that the generator's own work stays out of the figures.
//! Those that are inflated are the scenario's choice; where the server keeps its window from message to message
//! (context takeover), a connection's messages are inflated from the first one on, or not at all.

use std::fmt::{self, Debug, Formatter};

use flate2::{Decompress, FlushDecompress, Status};

use super::limits::RECEIVE_BYTES;

/// What a subscriber offers. It takes any window, and never compresses itself.
pub(super) const OFFER: &str = "permessage-deflate; client_max_window_bits";

/// What a sender cuts off a message's end (RFC 7692 §7.2.1).
const TAIL: [u8; 4] = [0x00, 0x00, 0xFF, 0xFF];

/// Windows have 2⁸ to 2¹⁵ bytes (RFC 7692 §7.1.2).
const WINDOW_BITS: std::ops::RangeInclusive<u8> = 8..=15;

/// What client and server agreed on, as far as it concerns who receives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Agreement {
    /// The server's messages refer to those before them.
    pub(super) keeps_window: bool,
}

impl Agreement {
    /// Reads the answer to [`OFFER`] (RFC 7692 §7.1).
    ///
    /// # Errors
    ///
    /// Where it is no consent, or one that breaks the RFC.
    pub(super) fn parse(answer: &str) -> Result<Agreement, String> {
        let wrong = || format!("the server answers {answer:?} to {OFFER:?} (RFC 7692 §7.1)");
        if answer.trim().is_empty() {
            return Err("the server does not agree to permessage-deflate; turn compression on there".to_owned());
        }
        let mut words = answer.split(';').map(str::trim);
        if words.next() != Some("permessage-deflate") {
            return Err(wrong());
        }
        let mut seen = Vec::new();
        for word in words {
            let (name, value) = match word.split_once('=') {
                Some((name, value)) => (name.trim(), Some(value.trim().trim_matches('"'))),
                None => (word, None),
            };
            let bits = || value.and_then(|value| value.parse().ok()).is_some_and(|bits| WINDOW_BITS.contains(&bits));
            let known = match name {
                "server_no_context_takeover" | "client_no_context_takeover" => value.is_none(),
                "server_max_window_bits" | "client_max_window_bits" => bits(),
                _ => false,
            };
            if !known || seen.contains(&name) {
                return Err(wrong());
            }
            seen.push(name);
        }
        Ok(Agreement { keeps_window: !seen.contains(&"server_no_context_takeover") })
    }
}

/// What the compressed messages of one connection are.
#[derive(Debug)]
pub(super) enum Reading {
    /// A breach of the protocol: nothing was agreed on.
    Forbidden,
    /// Inflated, each by itself.
    Alone,
    /// Inflated, with the window of those before; there is none before the first.
    Window(Option<Box<Inflater>>),
    /// Counted.
    Unread,
}

impl Reading {
    /// As agreed.
    pub(super) fn new(agreement: Option<Agreement>) -> Reading {
        match agreement {
            None => Reading::Forbidden,
            Some(Agreement { keeps_window: true }) => Reading::Window(None),
            Some(Agreement { keeps_window: false }) => Reading::Alone,
        }
    }
}

/// Inflates messages.
pub(super) struct Inflater {
    state: Decompress,
}

impl Inflater {
    /// With an empty window.
    pub(super) fn new() -> Inflater {
        Inflater { state: Decompress::new(false) }
    }

    /// Forgets the window.
    pub(super) fn reset(&mut self) {
        self.state.reset(false);
    }

    /// Inflates one message, which becomes all that is in `out`.
    ///
    /// # Errors
    ///
    /// Where it is none, or a larger one than any that was published.
    pub(super) fn inflate(&mut self, message: &[u8], out: &mut Vec<u8>) -> Result<(), String> {
        out.clear();
        out.reserve_exact(RECEIVE_BYTES);
        for piece in [message, &TAIL] {
            let mut left = piece;
            while !left.is_empty() {
                let before = self.state.total_in();
                let outcome = self.state.decompress_vec(left, out, FlushDecompress::Sync);
                let status =
                    outcome.map_err(|error| format!("the server sent a message that is not DEFLATE: {error}"))?;
                let used = (self.state.total_in() - before) as usize;
                left = &left[used..];
                match status {
                    // A final block ends a stream, and an empty one follows (RFC 7692 §7.2.3.4). Its window is gone.
                    Status::StreamEnd => self.state.reset(false),
                    Status::Ok | Status::BufError if used == 0 || out.len() >= RECEIVE_BYTES => {
                        return Err(format!(
                            "the server sent a message that inflates to more than {RECEIVE_BYTES} bytes"
                        ));
                    }
                    Status::Ok | Status::BufError => {}
                }
            }
        }
        Ok(())
    }
}

impl Debug for Inflater {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        out.debug_struct("Inflater").field("inflated_bytes", &self.state.total_out()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use flate2::{Compress, Compression, FlushCompress};
    use proptest::prelude::*;

    use super::*;

    fn deflate(state: &mut Compress, message: &[u8], flush: FlushCompress) -> Vec<u8> {
        let mut out = Vec::with_capacity(message.len() + 1024);
        state.compress_vec(message, &mut out, flush).unwrap();
        out
    }

    proptest! {
        #[test]
        fn messages_come_out_as_they_went_in(messages in prop::collection::vec("[a-d]{1,2000}", 1..8), keeps: bool) {
            let mut sender = Compress::new(Compression::default(), false);
            let mut receiver = Inflater::new();
            let mut out = Vec::new();
            for message in messages {
                if !keeps {
                    sender.reset();
                    receiver.reset();
                }
                let bytes = deflate(&mut sender, message.as_bytes(), FlushCompress::Sync);
                prop_assert!(bytes.ends_with(&TAIL));
                receiver.inflate(&bytes[..bytes.len() - TAIL.len()], &mut out).unwrap();
                prop_assert_eq!(&out, message.as_bytes());
            }
        }
    }

    #[test]
    fn a_window_is_kept_only_where_it_was_agreed_on() {
        let mut sender = Compress::new(Compression::default(), false);
        let text = b"the same text again";
        let [first, second] = [(); 2].map(|()| deflate(&mut sender, text, FlushCompress::Sync));
        let mut receiver = Inflater::new();
        let mut out = Vec::new();
        receiver.inflate(&first, &mut out).unwrap();
        receiver.reset();
        assert!(receiver.inflate(&second, &mut out).is_err(), "it refers to what the reset has forgotten");
    }

    /// The example of RFC 7692 §7.2.3.4.
    #[test]
    fn a_final_block_ends_no_connection() {
        let mut receiver = Inflater::new();
        let mut out = Vec::new();
        for _ in 0..2 {
            receiver.inflate(&[0xF3, 0x48, 0xCD, 0xC9, 0xC9, 0x07, 0x00, 0x00], &mut out).unwrap();
            assert_eq!(out, b"Hello");
        }
    }

    #[test]
    fn what_is_no_message_is_refused() {
        let mut out = Vec::new();
        assert!(Inflater::new().inflate(b"\xFF\xFF\xFF", &mut out).unwrap_err().contains("not DEFLATE"));
        let bomb =
            deflate(&mut Compress::new(Compression::best(), false), &vec![0; RECEIVE_BYTES + 1], FlushCompress::Sync);
        assert!(Inflater::new().inflate(&bomb, &mut out).unwrap_err().contains("more than"));
        assert_eq!(out.capacity(), RECEIVE_BYTES);
    }

    #[test]
    fn answers_are_checked() {
        for (answer, keeps_window) in [
            ("permessage-deflate", true),
            ("permessage-deflate; server_no_context_takeover", false),
            ("permessage-deflate;client_max_window_bits=\"9\" ; server_max_window_bits = 15", true),
            ("permessage-deflate; client_no_context_takeover; server_no_context_takeover", false),
        ] {
            assert_eq!(Agreement::parse(answer), Ok(Agreement { keeps_window }), "{answer}");
        }
        for answer in [
            "",
            "x-webkit-deflate-frame",
            "permessage-deflate, permessage-deflate",
            "permessage-deflate; client_max_window_bits",
            "permessage-deflate; server_max_window_bits=16",
            "permessage-deflate; server_no_context_takeover=1",
            "permessage-deflate; server_no_context_takeover; server_no_context_takeover",
            "permessage-deflate; level=9",
        ] {
            assert!(Agreement::parse(answer).is_err(), "{answer}");
        }
    }
}
