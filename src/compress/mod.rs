//! permessage-deflate (RFC 7692), sans-IO: offers into agreements, whole frames into compressed ones, compressed
//! messages into what they hold.
//!
//! ```text
//!  Sec-WebSocket-Extensions ──► Offer ──► Agreement (kept per connection: four bytes)
//!  whole frame ──► Deflater ──► compressed frame, the same for every connection of a window (no context takeover)
//!                     └── SharedFrame keeps it for the node's other reactors
//!  compressed bytes ──► Inflaters ──► message, never more than it may hold
//!                          └── History: the last bytes of earlier messages, where the client refers to them
//! ```
//!
//! Owns negotiation, compressors, decompressors and their bounds. Never sees a socket or a connection's state. May
//! import `frame` and `limits`.

mod deflater;
mod inflater;
mod offer;
mod shared;

pub use deflater::Deflater;
pub use inflater::{History, InflateError, Inflaters, Stream};
pub use offer::{Agreement, Offer, WindowBits};
pub use shared::{Account, HeldBytes, SharedFrame};
