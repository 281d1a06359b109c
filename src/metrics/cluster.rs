//! What the cluster's thread counts.

use std::sync::atomic::{AtomicU64, Ordering};

use super::histogram::{Histogram, Unit};
use super::label::{Counters, label};

label! {
    /// What a connection to Redis is for.
    pub enum Connection as "connection" {
        /// For commands.
        Commands = "commands",
        /// For subscriptions.
        Subscriptions = "subscriptions",
    }
}

/// Declares the numbers, each by its name in `/stats`.
macro_rules! cluster_counts {
    ($($(#[doc = $doc:literal])+ $name:ident,)+) => {
        /// What a node of a cluster has done since it started.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct ClusterCounts {
            $($(#[doc = $doc])+ pub $name: u64,)+
        }

        /// The same, published, and what the thread counts in place.
        #[derive(Debug)]
        pub struct ClusterMetrics {
            $($name: AtomicU64,)+
            /// From handing commands to a connection until all their answers are there.
            pub round_trip: Histogram,
            /// Connections that were there and ended, by what for.
            pub lost: Counters<Connection, { Connection::COUNT }>,
        }

        impl Default for ClusterMetrics {
            fn default() -> ClusterMetrics {
                ClusterMetrics {
                    $($name: AtomicU64::new(0),)+
                    round_trip: Histogram::new(Unit::Nanoseconds),
                    lost: Counters::default(),
                }
            }
        }

        impl ClusterMetrics {
            /// Publishes; called by the cluster's thread only.
            pub fn publish(&self, counts: &ClusterCounts) {
                $(self.$name.store(counts.$name, Ordering::Relaxed);)+
            }

            /// What was published last.
            pub fn read(&self) -> ClusterCounts {
                ClusterCounts { $($name: self.$name.load(Ordering::Relaxed),)+ }
            }
        }

        impl ClusterCounts {
            /// Each with its name.
            pub fn named(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name),)+]
            }
        }
    };
}

cluster_counts! {
    /// 1 while Redis can be reached, else 0.
    reachable,
    /// Other nodes that were heard of lately.
    peers,
    /// Milliseconds for which the node has waited for its own message to come back through Redis; 0 while it waits for none.
    lag_ms,
    /// Topics that are followed.
    feeds,
    /// Messages given to Redis for other nodes.
    published,
    /// Messages without history that could not be given to Redis.
    dropped,
    /// Messages stored in history.
    stored,
    /// Publishes into history that were answered `unavailable`.
    refused,
    /// Messages that came from Redis, live or read again.
    received,
    /// Reads of streams because something was missing, or might be.
    repairs,
    /// Gaps that were told to members.
    gaps,
    /// Messages on channels that no node of this version wrote.
    unreadable,
}
