//! What the webhooks' thread counts.

use std::sync::atomic::{AtomicU64, Ordering};

use super::label::{Counters, label};

label! {
    /// How a request to a receiver of webhooks has ended.
    pub enum Request as "outcome" {
        /// With 2xx.
        Delivered = "delivered",
        /// With another status.
        Refused = "refused",
        /// Without an answer in time.
        Unanswered = "unanswered",
    }
}

label! {
    /// What became of an event.
    pub enum EventOutcome as "outcome" {
        /// It was made, or taken over from another node, for some receiver.
        Queued = "queued",
        /// A receiver has taken it; each receiver is counted, and the same below.
        Delivered = "delivered",
        /// An attempt has failed, and there will be another.
        Retried = "retried",
        /// It is not tried again.
        GivenUp = "given_up",
    }
}

/// What was done so far, and what waits.
#[derive(Debug, Default)]
pub struct WebhookMetrics {
    /// Events, by what became of them.
    pub events: Counters<EventOutcome, { EventOutcome::COUNT }>,
    /// Requests, by how they ended.
    pub requests: Counters<Request, { Request::COUNT }>,
    coalesced: AtomicU64,
    waiting: AtomicU64,
    edges_waiting: AtomicU64,
    teller: AtomicU64,
}

/// What stands behind the counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WebhookState {
    /// Edges that were undone before they were told.
    pub coalesced: u64,
    /// Events that are not taken by all.
    pub waiting: u64,
    /// Edges that wait to be undone, or for Redis.
    pub edges_waiting: u64,
    /// 1 where this node sends the events, else 0.
    pub teller: u64,
}

impl WebhookMetrics {
    /// Publishes; called by the webhooks' thread only.
    pub fn publish(&self, state: WebhookState) {
        let WebhookState { coalesced, waiting, edges_waiting, teller } = state;
        self.coalesced.store(coalesced, Ordering::Relaxed);
        self.waiting.store(waiting, Ordering::Relaxed);
        self.edges_waiting.store(edges_waiting, Ordering::Relaxed);
        self.teller.store(teller, Ordering::Relaxed);
    }

    /// What was published last.
    pub fn read(&self) -> WebhookState {
        WebhookState {
            coalesced: self.coalesced.load(Ordering::Relaxed),
            waiting: self.waiting.load(Ordering::Relaxed),
            edges_waiting: self.edges_waiting.load(Ordering::Relaxed),
            teller: self.teller.load(Ordering::Relaxed),
        }
    }
}
