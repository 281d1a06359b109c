//! fanfare: a thread-per-core WebSocket push server.
//!
//! The library holds everything the `fanfare` binary does, in layers. Imports run downward only: a module may import
//! what stands behind its arrow, and all of that stands below it.
//!
//! ```text
//! main        → cli
//! cli         → bench, client, cluster, config, doctor, server, webhook, auth, clock, limits
//! bench       → auth, client, config, frame, niceness
//! client      → config
//! server      → webhook, backend, cluster, config, control, doctor, reactor, auth, tls, router, conn, compress, metrics,
//!               ids, current, descriptors, cgroup, niceness, limits
//! doctor      → config, cgroup, descriptors
//! control     → auth, tls, config, loopback, reactor, router, conn, protocol, metrics, ids, time, clock, process, current,
//!               network, limits
//! webhook     → backend, cluster, config, reactor, router, metrics, ids, current, time, clock, limits
//! backend     → config, reactor, auth, metrics, limits
//! cluster     → config, reactor, router, compress, protocol, metrics, frame, ids, time, process, limits
//! reactor     → auth, tls, router, conn, compress, protocol, metrics, frame, ids, time, clock, growth, network, limits
//! auth        → config, limits
//! tls         → current, limits
//! config      → network, limits
//! router      → compress, protocol, frame, ids, time, growth, limits
//! conn        → compress, frame, time, limits
//! compress    → frame, limits
//! protocol    → limits
//! metrics     →
//! frame       →
//! ids         →
//! time        → growth
//! growth      →
//! current     →
//! loopback    →
//! descriptors → limits
//! cgroup      →
//! network     →
//! niceness    →
//! process     →
//! clock       →
//! limits      →
//! ```
//!
//! What is sans-IO mentions no descriptor, clock, thread or die:
//!
//! ```text
//! webhook/event, webhook/ledger, webhook/queue, webhook/registry, webhook/signature, cluster/core, cluster/follower,
//! cluster/names, cluster/record, cluster/tell, doctor/checks, auth, tls, router, conn, compress, protocol,
//! frame, ids, time, growth, loopback, descriptors, cgroup, network
//! ```
//!
//! Both lists are what `tests/layers.rs` checks the sources against. `ARCHITECTURE.md` tells the life of a message.

#![warn(unreachable_pub)]

pub mod auth;
pub mod backend;
pub mod bench;
pub mod cgroup;
pub mod cli;
pub mod client;
mod clock;
pub mod cluster;
pub mod compress;
pub mod config;
pub mod conn;
pub mod control;
pub mod current;
pub mod descriptors;
pub mod doctor;
pub mod frame;
mod growth;
pub mod ids;
pub mod limits;
pub mod loopback;
pub mod metrics;
pub mod network;
mod niceness;
mod process;
pub mod protocol;
pub mod reactor;
pub mod router;
pub mod server;
pub mod time;
pub mod tls;
pub mod webhook;
