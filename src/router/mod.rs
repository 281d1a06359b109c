//! One routing primitive, sans-IO: everything that is sent goes to a topic.
//!
//! A topic is a room, a user's inbox, a raw room or everyone. Every topic has a *home* reactor, found by hash. The
//! home knows which reactors have members and orders everything that happens to the topic:
//!
//! ```text
//!   join, leave, publish, presence ──► home reactor ──► Joined, Left, Deliver ──► reactors with members
//!                     (mail)             one order            (mail, FIFO per pair of reactors)
//! ```
//!
//! A join takes effect where the home put it in that order, so "joined" is answered exactly between what the member
//! misses and what it gets. Where the home is this very reactor, the same steps are plain calls.
//!
//! Owns topics, membership, fan-out batches and presence. Never sees sockets, clocks or threads: calls come in, mail
//! goes to `poll_mail`, and what concerns this reactor's own connections goes to the [`Sink`]. May import `protocol`,
//! `frame`, `ids`, `limits`.

mod batch;
mod home;
mod mail;
mod router;
mod subscriber;
mod topic;

pub use batch::{Batch, BatchBody, Excluded};
pub use mail::{Ask, Mail, ManyJoin};
pub use router::{Answer, JoinError, NoticeSettings, Router, Sink};
pub use topic::{Kind, TopicRef};

#[cfg(test)]
mod tests;
