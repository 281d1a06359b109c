//! Regressions of others: what broke other servers that speak WebSocket, each as a named test of this one.
//!
//! The comment on an exhibit says what happened to whom and which bound holds here. An exhibit asserts counts against
//! that bound: bytes held, bytes looked at, allocations, answers, turns of the loop; never a time. Where the faulty way
//! can be shown, it stands beside: a few lines that do it as it was done there, and a count that breaks the bound.
//!
//! `cargo test --test regressions cve_2023_43669` runs one of them. Where the mended part is sans-IO it is driven alone,
//! through `parts`; the rest is shown on the built binary.

mod compression;
mod counting;
mod descriptors;
mod dribble;
mod fragments;
mod heads;
mod lengths;
mod logs;
mod parts;
mod smuggling;
