//! What the simulations and the fuzzers of whole nodes share: the reactors of a node, a client's end of its connection, what
//! clients may be sent, and the sweep over seeds.

pub mod end;
pub mod keyed;
pub mod message;
pub mod node;
pub mod replies;
pub mod seats;
pub mod seeds;
pub mod tally;
pub mod trace;
