//! What the process does with its surroundings: streams that nobody reads, signals, Unix sockets and their files, sockets
//! and news of a supervisor.

mod drain;
mod signals;
mod sockets;
mod streams;
mod systemd;
