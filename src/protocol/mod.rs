//! The JSON protocol: what a client's text message asks for, and the text of
//! every message the server sends.
//!
//! Owns the grammar of the envelope (`type`, `id`, `roomId`, …), the error
//! codes, and the field order of each server message. `content` and `data`
//! belong to the clients: they are validated, and then passed on as the very
//! bytes that came in.
//!
//! Never does I/O, never reads a clock, never knows who is connected, and never
//! changes its input. Peer input never panics here.
//!
//! May import `limits`; `simd-json` to decode the few strings with escapes that
//! the server itself needs, `itoa` to print integers.

pub mod command;
mod decoder;
mod envelope;
pub mod error;
pub mod event;
pub mod keyed;
pub mod scan;

#[cfg(test)]
mod tests;

pub use command::{Body, Command, Position, Rejection, Request, Rooms, parse};
pub use decoder::Decoder;
pub use error::{ERROR_CODES, ErrorCode};
pub use event::{
    InEpoch, Notice, REMOVED_AT, Stale, UserCount, ack, broadcast_content, broadcast_data, error, expiring,
    forbidden_room, freshness, gap, history, inbox_gap, joined, joined_keyed, keyed_head, keyed_tail, left, notice,
    pong, presence, presence_end, presence_head, private, private_msg, put_offset, raw_keyed, refreshed, resumed,
    room_msg, tuned, updated, welcome,
};
pub use keyed::{KeyedFields, Mode, SubscribeOptions, Update, UpdateError};

/// Levels of nesting in a message: 128 in a value, and the message's own object
/// around it. One level more is `bad_json`.
pub const NESTING_MAX: u32 = 129;

/// Bytes of a command's `id` as it was sent, quotes included. A longer one is
/// `bad_id`.
pub const REQUEST_ID_BYTES_MAX: usize = 1024;

/// Bytes of a publish's `key`. A longer one is `bad_key`.
pub const PUBLISH_KEY_BYTES_MAX: usize = 64;

/// Entries of one `roomIds`. A longer list is `too_many_rooms`.
pub const ROOM_IDS_MAX: usize = 1024;

/// Bytes that the `id` of a command with `roomIds` comes to when each room is
/// answered with it. More is `too_many_rooms`.
pub const ROOM_IDS_ECHO_BYTES_MAX: usize = 64 * 1024;
