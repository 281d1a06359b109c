//! Bounds of keyed rooms.

/// Dead places that the log of a keyed room may have beside as many as it has items; with more it is compacted.
pub const ITEMS_COMPACT_MIN: usize = 32;

/// Bytes of rounds or of what one subscriber lacks that are put together at a time; one frame may go beyond. The next piece
/// follows when the sockets have taken this one, or in the next turn.
pub const ROUND_PIECE_BYTES: usize = 64 * 1024;

/// Bytes of rounds and pieces that a reactor puts together in one turn; what is more, the next turns do.
pub const ROUND_BYTES_PER_TURN: usize = 1024 * 1024;

/// How often a subscriber is sent what changed while it was sent the rest, before it is answered; what changes since comes
/// behind the answer.
pub const SNAPSHOT_PASSES_MAX: u32 = 8;

/// Commands for other terms that may wait until their subscriber is answered; one more is refused (`unavailable`).
pub const TUNES_WAITING_MAX: usize = 16;

/// Keyed rooms that do in one turn what they have to do by themselves; the others do it in the next turns.
pub const ITEM_CHORES_PER_TURN: usize = 64;

/// Items of one room that are removed or forgotten by themselves in one turn; the others in the next turns.
pub const ITEMS_PER_CHORE: usize = 1_000;

/// Until removals are looked at again that somebody had not been sent when they were to be forgotten, in milliseconds.
pub const FORGET_AGAIN_MS: u64 = 1_000;

/// Bytes of a message of a keyed room in front of what its publisher composes, beside the names of room and item: twice,
/// since names are escaped.
pub const ITEM_HEAD_BYTES: usize = 128;

/// How long a home in a cluster waits until it asks once more for the removal of items that nobody has updated, in
/// milliseconds.
pub const ITEMS_EXPIRY_AGAIN_MS: u64 = 1_000;
