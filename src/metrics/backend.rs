//! What is counted of the team's services: the backend, and key sets behind a URL.

use std::sync::atomic::{AtomicU64, Ordering};

use super::label::{Counters, Grid, label};

label! {
    /// How the fetch of a key set has ended.
    pub enum Fetch as "outcome" {
        /// With keys.
        Good = "good",
        /// Without an answer of 200 within the bounds.
        Failed = "failed",
        /// With an answer in which there are no keys.
        Unusable = "unusable",
    }
}

label! {
    /// What the backend is asked about.
    pub enum About as "about" {
        /// Connections.
        Connect = "connect",
        /// Joins.
        Join = "join",
    }
}

label! {
    /// How a question to the backend was answered.
    pub enum Answered as "outcome" {
        /// All of it is allowed.
        Allowed = "allowed",
        /// Not all of it is.
        Refused = "refused",
        /// As the same question a moment ago, without a request.
        Cached = "cached",
        /// Not at all, or not in a way that is understood.
        Unavailable = "unavailable",
        /// Not asked: the connection was gone before its turn came.
        Withdrawn = "withdrawn",
    }
}

/// What the team's services were asked, and have answered.
#[derive(Debug, Default)]
pub struct BackendMetrics {
    /// Fetches of the key set, by how they ended.
    pub fetches: Counters<Fetch, { Fetch::COUNT }>,
    /// Questions, by how they were answered.
    pub answers: Grid<About, Answered, { About::COUNT }, { Answered::COUNT }>,
    crowded: AtomicU64,
}

impl BackendMetrics {
    /// A question was not asked: too many are under way.
    pub fn count_crowded(&self) {
        self.crowded.fetch_add(1, Ordering::Relaxed);
    }

    /// How many questions were not asked.
    pub fn crowded(&self) -> u64 {
        self.crowded.load(Ordering::Relaxed)
    }
}
