//! What the process does with its surroundings: streams that nobody reads, signals, Unix sockets and their files.

#[path = "../common/mod.rs"]
mod common;

mod signals;
mod sockets;
mod streams;
