//! What the system's clock shows. It may be set while the server runs, so it is for what people and other programs read, and
//! no deadline counts by it.

use std::time::{SystemTime, UNIX_EPOCH};

/// Milliseconds of Unix time; 0 where the clock is set to before it.
pub(crate) fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

/// Whole seconds of Unix time; 0 as above.
pub(crate) fn unix_s() -> u64 {
    unix_ms() / 1000
}
