//! The museum of failures: what broke other servers that speak WebSocket, each as a named test of this one.
//!
//! The comment on an exhibit says what happened to whom and which bound holds here. An exhibit asserts counts against
//! that bound: bytes held, bytes looked at, allocations, answers, turns of the loop; never a time. Where the faulty way
//! can be shown, it stands beside: a few lines that do it as it was done there, and a count that breaks the bound.
//!
//! `cargo test --test museum cve_2023_43669` runs one of them. Where the mended part is sans-IO it is driven alone,
//! through `parts`; the rest is shown on the built binary.

mod common;

#[path = "museum/compression.rs"]
mod compression;
#[path = "museum/counting.rs"]
mod counting;
#[path = "museum/descriptors.rs"]
mod descriptors;
#[path = "museum/dribble.rs"]
mod dribble;
#[path = "museum/fragments.rs"]
mod fragments;
#[path = "museum/heads.rs"]
mod heads;
#[path = "museum/lengths.rs"]
mod lengths;
#[path = "museum/logs.rs"]
mod logs;
#[path = "museum/parts.rs"]
mod parts;
#[path = "museum/smuggling.rs"]
mod smuggling;
