//! What only a keyed room's home knows: who has a mirror, which publishes were seen, and when the last one was.

use crate::ids::ReactorId;
use crate::router::keys::Keys;
use crate::time::Millis;

/// All of it is what it is.
#[derive(Debug, Default)]
pub(super) struct Source {
    /// Reactors that have the items, and are told of each update.
    pub(super) mirrors: Vec<ReactorId>,
    /// By which publish an update came, so that a retry is known.
    pub(super) keys: Option<Box<Keys>>,
    /// When something was published last; `None` before the first.
    pub(super) published_at: Option<Millis>,
    /// In a cluster: items that are too old were told of, and are told of again then.
    pub(super) expires_again_at: Option<Millis>,
}
