//! What the process does with its surroundings: streams that nobody reads, signals, Unix sockets and their files.

mod signals;
mod sockets;
mod streams;
