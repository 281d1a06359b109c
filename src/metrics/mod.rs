//! Counters of a node: written by the threads that own them, read by anyone.
//!
//! Owns what is counted and how it is kept: counts by the value of a label (`label`), histograms, and what each kind of thread
//! counts. How it is served, and the one table of all families with their names and help texts, is in `control::metrics`. A
//! reactor publishes its counts once a turn; other threads count in place.

mod api;
mod backend;
mod cluster;
mod histogram;
mod label;
mod reactor;
mod recent;
mod vitals;
mod webhooks;

use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

pub use api::{ApiRequests, ApiRoute, ApiStatus};
pub use backend::{About, Answered, BackendMetrics, Fetch};
pub use cluster::{ClusterCounts, ClusterMetrics, Connection};
pub use histogram::{Histogram, SCHEMA, Snapshot, Unit};
pub use label::{Counters, Grid, Label, Tally};
pub use reactor::{
    CommandRefusal, CommandRefusals, Counts, Ending, Endings, ReactorMetrics, Refusal, Refusals, RequestRefusal,
    RequestRefusals, TlsCounts, TokenFault, TokenFaults,
};
pub use recent::Recent;
pub use vitals::{ClusterNodes, NodeVitals, Vitals};
pub use webhooks::{EventOutcome, Request, WebhookMetrics, WebhookState};

/// Log lines of this process that were dropped: no room was left in the queue, or they could not be written.
pub static LOG_LINES_DROPPED: AtomicU64 = AtomicU64::new(0);

/// A certificate that listeners show.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CertificateEnd {
    /// Its file, as the configuration names it.
    pub file: String,
    /// When it ends, in seconds of Unix time.
    pub unix_s: u64,
}

/// What the reactors of a node share: the counts that bound it, and the metrics of each reactor.
#[derive(Debug)]
pub struct NodeMetrics {
    /// WebSocket connections of the node, those in their handshake included from the moment they are let in.
    pub connections: AtomicUsize,
    /// Sockets of the node, whatever they are doing.
    pub sockets: AtomicUsize,
    /// Connections whose client may refer to its earlier compressed messages.
    pub deflate_contexts: AtomicUsize,
    /// Bytes these may take.
    pub deflate_bytes: AtomicUsize,
    /// Requests of the HTTP API.
    pub api: ApiRequests,
    /// The certificates that listeners show.
    certificates: Mutex<Vec<CertificateEnd>>,
    /// What the process takes of the memory that it may, in thousandths, as of the last look.
    pub memory_permille: AtomicU32,
    /// How often that was looked at; wraps around.
    pub memory_looks: AtomicU32,
    /// Of a node of a cluster.
    pub cluster: Option<ClusterMetrics>,
    /// The nodes of that cluster.
    pub cluster_nodes: ClusterNodes,
    /// Of a node that asks the team's services.
    pub backend: Option<Arc<BackendMetrics>>,
    /// Of a node with webhooks.
    pub webhooks: Option<Arc<WebhookMetrics>>,
    /// One entry a reactor.
    pub reactors: Vec<ReactorMetrics>,
}

impl NodeMetrics {
    /// For a node of so many reactors.
    pub fn new(reactors: usize) -> NodeMetrics {
        NodeMetrics {
            connections: AtomicUsize::new(0),
            sockets: AtomicUsize::new(0),
            deflate_contexts: AtomicUsize::new(0),
            deflate_bytes: AtomicUsize::new(0),
            api: ApiRequests::default(),
            certificates: Mutex::default(),
            memory_permille: AtomicU32::new(0),
            memory_looks: AtomicU32::new(0),
            cluster: None,
            cluster_nodes: ClusterNodes::default(),
            backend: None,
            webhooks: None,
            reactors: (0..reactors).map(|_| ReactorMetrics::default()).collect(),
        }
    }

    /// The same, for a node of a cluster.
    pub fn in_cluster(self) -> NodeMetrics {
        NodeMetrics { cluster: Some(ClusterMetrics::default()), ..self }
    }

    /// The same, for a node that asks the team's services.
    pub fn with_backend(self, backend: Option<Arc<BackendMetrics>>) -> NodeMetrics {
        NodeMetrics { backend, ..self }
    }

    /// The same, for a node with webhooks.
    pub fn with_webhooks(self, webhooks: Option<Arc<WebhookMetrics>>) -> NodeMetrics {
        NodeMetrics { webhooks, ..self }
    }

    /// From now on listeners show these certificates.
    pub fn set_certificates(&self, certificates: Vec<CertificateEnd>) {
        *self.certificates.lock().unwrap_or_else(PoisonError::into_inner) = certificates;
    }

    /// The certificates that listeners show, each file once.
    pub fn certificates(&self) -> Vec<CertificateEnd> {
        self.certificates.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes one of `max` permits of a count; `false` where all are taken.
    pub fn take_permit(count: &AtomicUsize, max: usize) -> bool {
        NodeMetrics::take(count, 1, max)
    }

    /// Gives a permit back.
    pub fn give_permit(count: &AtomicUsize) {
        count.fetch_sub(1, Ordering::Relaxed);
    }

    /// Takes room for one compression context of so many bytes, of `contexts_max` and `bytes_max` in all; `false` where
    /// there is none.
    pub fn take_context(&self, bytes: usize, contexts_max: usize, bytes_max: usize) -> bool {
        if !NodeMetrics::take(&self.deflate_contexts, 1, contexts_max) {
            return false;
        }
        let taken = NodeMetrics::take(&self.deflate_bytes, bytes, bytes_max);
        if !taken {
            NodeMetrics::give_permit(&self.deflate_contexts);
        }
        taken
    }

    /// Gives the room of a context back.
    pub fn give_context(&self, bytes: usize) {
        NodeMetrics::give_permit(&self.deflate_contexts);
        self.deflate_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    fn take(count: &AtomicUsize, amount: usize, max: usize) -> bool {
        if count.fetch_add(amount, Ordering::Relaxed).saturating_add(amount) <= max {
            return true;
        }
        count.fetch_sub(amount, Ordering::Relaxed);
        false
    }
}
