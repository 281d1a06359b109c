//! What the simulations share: the reactors of a node, a client's end of its connection, and the sweep over seeds.

#![allow(dead_code, reason = "each simulation uses its own part of this module")]

pub mod end;
pub mod seats;
pub mod seeds;
pub mod tally;
pub mod trace;
