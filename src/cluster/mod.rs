//! Several nodes as one, through Redis.
//!
//! ```text
//!   reactors ── mail ──► cluster thread: Core ──► connection for commands   ──► Redis ──► the other nodes
//!            ◄── mail ──                      ◄── connection that subscribes ◄──
//! ```
//!
//! [`core`] decides everything and sees no socket; `thread` has the clock, `connections` what there is of Redis, be it one
//! server or many. What the nodes say to each other is in [`record`], how a history is followed in [`follower`], what
//! things are called in Redis in [`names`]. What nodes have between them of webhooks goes over a connection of its own:
//! [`Telling`]. [`StreamReader`] is of no cluster at all: a process that is no node reads a stream with it.
//! May import `config` (where Redis is), `reactor` (its mailbox), `router` and the layers below.

mod connections;
pub mod core;
pub mod follower;
pub mod items;
pub mod names;
mod order;
pub mod record;
mod redis;
mod stream;
mod survey_record;
pub mod tell;
mod telling;
mod thread;
mod vitals;

pub use order::{Order, OrderError, give};
pub use stream::{StreamEntry, StreamReader};
pub use telling::{TellAddress, TellError, Telling};
pub use thread::{ClusterSettings, ClusterWaker, spawn};
