//! fanfare: a thread-per-core WebSocket push server.
//!
//! The library holds everything the `fanfare` binary does, in layers whose imports run downward only:
//!
//! ```text
//! main → server, config, cli          arguments to Config to server::run
//! bench   → client                     the load generator: a client of any server of the user dialect
//! client  → config                     the client for people: publish, subscribe, presence
//! doctor  → config                     this machine's settings against the configuration
//! server  → reactor, cluster, control  spawn, pin, listen, drain
//! control → metrics (messages only)    HTTP that is no upgrade: console page, health, statistics
//! cluster → config, reactor (mailbox), router   several nodes as one, through Redis; its core is sans-IO
//! reactor → conn, router, drivers      the loop: mail, completions, timers, flush, wake peers
//! router  → compress, protocol         topics, membership, fan-out plan, presence: sans-IO
//! conn    → compress                   handshake, frames, assembly, outbox: sans-IO
//! compress, protocol                   RFC 7692; JSON commands and events
//! frame, time, ids, limits, metrics    frames on the wire, clocks, identities, every bound, counters
//! descriptors                          what they are for
//! ```
//!
//! `ARCHITECTURE.md` tells the life of a message; `tests/layers.rs` checks the arrows.

#![warn(unreachable_pub)]

pub mod bench;
pub mod cgroup;
pub mod cli;
pub mod client;
pub mod cluster;
pub mod compress;
pub mod config;
pub mod conn;
pub mod control;
pub mod descriptors;
pub mod doctor;
pub mod frame;
pub mod ids;
pub mod limits;
pub mod metrics;
pub mod protocol;
pub mod reactor;
pub mod router;
pub mod server;
pub mod time;
