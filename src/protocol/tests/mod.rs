//! Tests of the protocol as a whole; `serde_json` is the independent judge.

mod command;
mod event;
mod keyed;
mod scan;
