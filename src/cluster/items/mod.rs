//! Items of keyed rooms as the nodes of a cluster and Redis tell each other of them: as bytes, and as the script takes them.
//!
//! A *record* is one update as its publisher's node has made it. The script gives those that are not stale their place,
//! stores the last of each item, and publishes them in two messages: the *placement*, and the records as they came.
//!
//! ```text
//!   record:    length (4) │ length of the name (1) │ name │ flags (1) │ version or offset (8)? │ excluded (18)? │ tail
//!   placement: 'P' │ epoch '\n' │ first offset (8) │ { 0 (1) │ count (4) │ seq or 0 (8) … } or { 1 (1) │ count (4) │ seq (8), record … } …
//!   records:   'V' │ record …
//!   stored:    offset (8) │ time (8) │ seq (8) │ state (1) │ bytes of the record (4) │ version (8)?       and the record
//!   entry:     255 (8 times) │ seq (8) │ record                                             in the stream of a history
//! ```
//!
//! Whatever comes in may be anything: what cannot be read is skipped.

mod call;
#[cfg(any(test, debug_assertions))]
pub mod model;
mod placement;
mod record;

pub use call::{ItemsCall, NewItems};
pub(super) use call::{ItemsGather, RECORDS};
pub(super) use placement::PLACEMENT;
pub use placement::{Placed, Placement, read_records};
pub use record::{ItemRecord, StoredItem, UpdateRule, read_entry, write_entry};
