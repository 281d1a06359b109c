//! One connection, sans-IO: bytes, the time and limits come in; events and bytes go out.
//!
//! Owns the handshake, the frame decoder, message assembly, UTF-8 and masking, the outbox with its references into
//! shared segments, rates and the closing handshake. It never sees a descriptor, a clock, a thread or another
//! connection. May import `compress`, `frame`, `time`, `limits` and nothing above them.

mod close;
mod decoder;
mod forwarded;
mod frame;
mod handshake;
mod mask;
mod outbox;
mod proxy;
mod rate;
mod segment;
mod source;
mod target;
mod utf8;

pub use close::{CloseReason, PeerError, close_payload, parse_close};
pub use decoder::{Decoder, Event, MessageLimits};
pub use forwarded::{client_among, forwarded_for};
pub use frame::{Header, parse_header};
pub use handshake::{
    Credentials, Forwarded, Head, HeadLimits, HeadReader, HeadRules, HttpRefusal, Naming, Presented, Unauthorized,
    Upgrade, field_elements, is_http_2, parse_head, parse_head_by, parse_head_named, write_refusal, write_upgrade,
};
pub use mask::unmask;
pub use outbox::Outbox;
pub use proxy::{NoProxyHeader, ProxyHeader, parse_proxy};
pub use rate::{ControlFrames, TokenBucket};
pub use segment::{Cause, Chunk, Ledger, RoundNumber, Segment, Unit};
pub use source::{FrameSource, Front};
pub use target::{ItemOptions, ItemWords, Target};
pub use utf8::{InvalidUtf8, Utf8Stream, validate};
