//! What the simulations and the fuzzer of whole nodes share: the reactors of a node, a client's end of its connection, and the sweep over seeds.

pub mod end;
pub mod message;
pub mod replies;
pub mod seats;
pub mod seeds;
pub mod tally;
pub mod trace;
