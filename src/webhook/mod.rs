//! Webhooks: the team's own services hear which rooms are occupied and which users are online.
//!
//! Owns the thread `webhooks`, which exists where a webhook is configured: it hears of edges from the topics' homes, holds
//! them until they last, and sends events. It is a thread of its own, and no part of the backend's: a receiver that is
//! slow, and events that wait, are nothing that a client waits for. URLs come from the configuration alone; redirects are
//! not followed. Nothing of it costs a node without webhooks more than one comparison at a topic's first and last member.
//!
//! ```text
//!   homes ── edges ──► ledger (a node alone)      ── events ──► queue of each receiver ── POST ──► receiver
//!                      registry ◄── tell.lua ──► Redis
//! ```
//!
//! [`event`], [`ledger`], [`registry`] and [`queue`] decide everything and see no socket and no clock; `thread` has those,
//! `journal` the files of a node alone.
//! May import `backend` (its HTTP client), `cluster` (Redis), `config`, `reactor` (its mailbox), `router`, `metrics`, `ids`,
//! `current`, `time`, `clock`, `limits`.

mod edges;
pub mod event;
mod journal;
pub mod ledger;
pub mod queue;
mod receiver;
pub mod registry;
mod signature;
mod thread;

pub use event::EventName;
pub use receiver::ReceiverSettings;
pub use signature::{SIGNATURE_FIELD, SignatureError, SigningSecret};
pub use thread::{WebhookCluster, WebhookSettings, WebhookWaker, spawn};
