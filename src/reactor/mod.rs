//! The loop of one core: sockets, connections, timers, mail.
//!
//! ```text
//!  driver ──► completions ──► conn (bytes to messages) ──► commands ──► router ──► connections (batches, outboxes)
//!  mailbox ─► mail ───────────────────────────────────────────────────► router ──┘            │
//!  wheel ───► timers                                                                          ▼
//!             one flush of every dirty connection at the end of the turn ──────────────────► driver
//! ```
//!
//! A [`Worker`] is generic over its [`Driver`]: `epoll` or `uring` on a real machine, `sim` under a seed. It owns everything of
//! its connections; nothing on the frame path is shared or locked. It never serves HTTP and never waits for anything
//! but its driver. May import `conn`, `router` and the layers below.

mod addresses;
mod authority;
mod backend;
mod commands;
mod connection;
mod connections;
mod counted;
mod decisions;
mod delivery;
mod drain;
mod driver;
mod egress;
pub mod epoll;
mod flush;
mod gate;
mod handover;
mod identity;
mod intake;
mod keyed;
mod lifecycle;
mod listeners;
#[cfg(all(test, feature = "loom"))]
mod loom_tests;
mod mailbox;
mod pressure;
mod proxied;
mod pulse;
mod rates;
mod raw;
#[cfg(test)]
mod rounds_tests;
mod sessions;
pub mod sim;
mod socket;
mod strangers;
mod sync;
mod tls;
pub mod uring;
mod verifier;
mod worker;

pub use addresses::{AddressLimits, AddressRef, Addresses};
pub use backend::{Asker, Backend, BackendAccess, Inquiry, Keyring, KeysOutcome, KeysWanted, Ticket, Token};
pub use driver::{
    Accepted, Completion, Detach, Driver, ListenerId, Provenance, Release, RemoteAddr, Sent, Shortfall, SlotKey,
};
pub use gate::Gate;
pub use handover::{Arrival, Errand, Handover, Returns, WayBack};
pub use mailbox::{Mailbox, News, Order, Parcel, PostOffice, Wake, Wakers, post_office};
pub use proxied::{Behind, Proxied};
pub use pulse::{Pulse, Silence};
pub use tls::Tls;
pub use verifier::{Jobs, Verifier, verifier};
pub use worker::{Assignment, DeflateSettings, HttpHandoff, NodeState, Settings, Turn, Worker};
