//! What the process does with its surroundings: streams that nobody reads, signals, Unix sockets and their files.

mod common;

#[path = "process/signals.rs"]
mod signals;
#[path = "process/sockets.rs"]
mod sockets;
#[path = "process/streams.rs"]
mod streams;
