//! Close codes and reasons (RFC 6455 §7.4) and the one table from peers' errors to them.

use std::fmt;

use tungstenite::protocol::frame::coding::CloseCode;

use crate::compress::InflateError;
use crate::frame::{Opcode, encode_header};
use crate::limits::CONTROL_BYTES_MAX;

/// Registered with IANA after RFC 6455, and unknown to the library's table: a gateway's upstream failed.
const BAD_GATEWAY: u16 = 1014;

/// What a client did that its connection cannot survive. `code` maps each to its close code; a bad command is not
/// among them, it gets an error reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerError {
    /// A reserved bit is set though no extension was agreed on (RFC 6455 §5.2).
    ReservedBits,
    /// An opcode RFC 6455 does not define.
    UnknownOpcode,
    /// A frame without a mask (RFC 6455 §5.1).
    Unmasked,
    /// A control frame in fragments (RFC 6455 §5.5).
    FragmentedControl,
    /// A control frame of more than 125 bytes (RFC 6455 §5.5).
    LongControl,
    /// A length not in its shortest form, or with its top bit set (RFC 6455 §5.2).
    BadLength,
    /// A continuation without a message to continue (RFC 6455 §5.4).
    StrayContinuation,
    /// A new message inside a fragmented one (RFC 6455 §5.4).
    InterleavedMessage,
    /// A close frame with one byte of payload or a code that may not be sent (RFC 6455 §7.4).
    BadClose,
    /// Text, or a close reason, that is not UTF-8 (RFC 6455 §8.1).
    InvalidUtf8,
    /// A message over `limits.message_bytes_max`.
    MessageTooBig,
    /// A message of more than `limits.fragments_max` fragments.
    TooManyFragments,
    /// A compressed message that is not what a compressor makes (RFC 7692 §7.2.2).
    BadDeflate,
    /// Persistently over the rate.
    RateAbuse,
    /// A message to a raw room in which its token lets it listen only.
    NotAllowed,
    /// A message to a keyed raw room that is no update of an item.
    BadItem,
}

impl PeerError {
    /// The close code a connection ends with.
    pub fn code(self) -> CloseCode {
        match self {
            PeerError::ReservedBits
            | PeerError::UnknownOpcode
            | PeerError::Unmasked
            | PeerError::FragmentedControl
            | PeerError::LongControl
            | PeerError::BadLength
            | PeerError::StrayContinuation
            | PeerError::InterleavedMessage
            | PeerError::BadClose => CloseCode::Protocol,
            PeerError::InvalidUtf8 | PeerError::BadDeflate => CloseCode::Invalid,
            PeerError::MessageTooBig => CloseCode::Size,
            PeerError::TooManyFragments | PeerError::RateAbuse | PeerError::NotAllowed | PeerError::BadItem => {
                CloseCode::Policy
            }
        }
    }
}

impl fmt::Display for PeerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PeerError::ReservedBits => "reserved bits are set",
            PeerError::UnknownOpcode => "unknown opcode",
            PeerError::Unmasked => "client frames must be masked",
            PeerError::FragmentedControl => "control frames must not be fragmented",
            PeerError::LongControl => "control frames hold at most 125 bytes",
            PeerError::BadLength => "frame length is not minimal or too large",
            PeerError::StrayContinuation => "continuation without a message",
            PeerError::InterleavedMessage => "new message inside a fragmented one",
            PeerError::BadClose => "close code is not allowed",
            PeerError::InvalidUtf8 => "text is not valid UTF-8",
            PeerError::MessageTooBig => "message is too big",
            PeerError::TooManyFragments => "too many fragments in one message",
            PeerError::BadDeflate => "compressed message is malformed",
            PeerError::RateAbuse => "rate limit persistently exceeded",
            PeerError::NotAllowed => "the token does not allow publishing here",
            PeerError::BadItem => "no update: 2 bytes of the item's length, the item, the payload",
        })
    }
}

impl std::error::Error for PeerError {}

impl From<InflateError> for PeerError {
    fn from(error: InflateError) -> PeerError {
        match error {
            InflateError::TooBig => PeerError::MessageTooBig,
            InflateError::Malformed => PeerError::BadDeflate,
        }
    }
}

/// Why the server ends a connection: the documented table of close codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// The server is going away: 1001 with the reason `{"retry_ms":N}`.
    GoingAway {
        /// When the client should come back, in milliseconds.
        retry_ms: u64,
    },
    /// The peer broke a rule; see [`PeerError::code`].
    Peer(PeerError),
    /// The node's memory for messages is full and this connection holds the most of it: 1013.
    AtCapacity,
    /// A keyed raw room, or the node, holds as many items, or bytes of them, as it may, and this connection has sent one
    /// more: 1013.
    TooManyItems,
    /// Its raw room needs Redis, which does not answer: 1013.
    Unavailable,
    /// It did not read fast enough: 4008.
    SlowConsumer,
    /// An operator has ended the connections of its user: 1008.
    Disconnected,
    /// Its token has come to its end: 4001.
    Expired,
    /// Its user has as many connections as `limits.user_connections_max` allows: 1008.
    TooManyConnections,
    /// A newer connection of the same user takes its place: 4009.
    Replaced,
}

impl CloseReason {
    /// The close code sent.
    pub fn code(self) -> u16 {
        match self {
            CloseReason::GoingAway { .. } => CloseCode::Away.into(),
            CloseReason::Peer(error) => error.code().into(),
            CloseReason::AtCapacity | CloseReason::TooManyItems | CloseReason::Unavailable => CloseCode::Again.into(),
            CloseReason::Expired => 4001,
            CloseReason::Replaced => 4009,
            CloseReason::SlowConsumer => 4008,
            CloseReason::Disconnected | CloseReason::TooManyConnections => CloseCode::Policy.into(),
        }
    }

    /// Appends the whole close frame.
    pub fn encode(self, out: &mut Vec<u8>) {
        let reason = match self {
            CloseReason::GoingAway { retry_ms } => format!("{{\"retry_ms\":{retry_ms}}}"),
            CloseReason::Peer(error) => error.to_string(),
            CloseReason::AtCapacity => "at capacity: try again later".to_owned(),
            CloseReason::TooManyItems => "too many items: remove some first".to_owned(),
            CloseReason::Unavailable => "unavailable: try again later".to_owned(),
            CloseReason::SlowConsumer => "slow consumer: messages were not read in time".to_owned(),
            CloseReason::Disconnected => "disconnected".to_owned(),
            CloseReason::Expired => "token expired: connect again with a new one".to_owned(),
            CloseReason::TooManyConnections => "too many connections of this user: close another one first".to_owned(),
            CloseReason::Replaced => "replaced by a newer connection of the same user".to_owned(),
        };
        close_payload(out, self.code(), &reason);
    }
}

/// Appends a close frame with `code` and as much of the `reason` as a control frame takes.
pub fn close_payload(out: &mut Vec<u8>, code: u16, reason: &str) {
    let mut end = reason.len().min(CONTROL_BYTES_MAX - 2);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    encode_header(out, Opcode::Close, 2 + end);
    out.extend_from_slice(&code.to_be_bytes());
    out.extend_from_slice(&reason.as_bytes()[..end]);
}

/// Reads a close frame's payload: its code, `None` where it has none.
///
/// # Errors
/// [`PeerError::BadClose`] for a payload of one byte or a code no endpoint may send (RFC 6455 §7.4.2),
/// [`PeerError::InvalidUtf8`] for a reason that is not UTF-8 (§5.5.1).
pub fn parse_close(payload: &[u8]) -> Result<Option<u16>, PeerError> {
    let (code, reason) = match payload {
        [] => return Ok(None),
        [_] => return Err(PeerError::BadClose),
        [high, low, reason @ ..] => (u16::from_be_bytes([*high, *low]), reason),
    };
    if !(CloseCode::from(code).is_allowed() || code == BAD_GATEWAY) {
        return Err(PeerError::BadClose);
    }
    super::validate(reason).map_err(|_| PeerError::InvalidUtf8)?;
    Ok(Some(code))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_that_may_be_sent_are_told_from_those_that_may_not() {
        for code in [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999_u16]
        {
            assert_eq!(parse_close(&code.to_be_bytes()), Ok(Some(code)), "{code}");
        }
        for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535_u16] {
            assert_eq!(parse_close(&code.to_be_bytes()), Err(PeerError::BadClose), "{code}");
        }
        assert_eq!(parse_close(&[]), Ok(None));
        assert_eq!(parse_close(&[3]), Err(PeerError::BadClose));
        assert_eq!(parse_close(&[3, 0xE8, 0xFF]), Err(PeerError::InvalidUtf8));
    }

    #[test]
    fn a_long_reason_is_cut_at_a_character() {
        let mut out = Vec::new();
        close_payload(&mut out, 1000, &"é".repeat(100));
        assert!(out.len() <= 2 + CONTROL_BYTES_MAX);
        assert_eq!(parse_close(&out[2..]), Ok(Some(1000)));
    }

    #[test]
    fn every_reason_encodes_to_its_code() {
        for (reason, code) in [
            (CloseReason::GoingAway { retry_ms: 12 }, 1001_u16),
            (CloseReason::AtCapacity, 1013),
            (CloseReason::TooManyItems, 1013),
            (CloseReason::Unavailable, 1013),
            (CloseReason::SlowConsumer, 4008),
            (CloseReason::Disconnected, 1008),
            (CloseReason::Expired, 4001),
            (CloseReason::TooManyConnections, 1008),
            (CloseReason::Replaced, 4009),
            (CloseReason::Peer(PeerError::NotAllowed), 1008),
            (CloseReason::Peer(PeerError::BadItem), 1008),
            (CloseReason::Peer(PeerError::MessageTooBig), 1009),
            (CloseReason::Peer(PeerError::InvalidUtf8), 1007),
            (CloseReason::Peer(PeerError::RateAbuse), 1008),
            (CloseReason::Peer(PeerError::Unmasked), 1002),
        ] {
            let mut out = Vec::new();
            reason.encode(&mut out);
            assert_eq!(parse_close(&out[2..]), Ok(Some(code)));
        }
    }
}
