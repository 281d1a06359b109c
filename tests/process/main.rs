//! What the process does with its surroundings: streams that nobody reads, signals, Unix sockets and their files, sockets
//! and news of a supervisor.

mod drain;
mod reload;
mod signals;
mod sockets;
mod storms;
mod streams;
mod systemd;
