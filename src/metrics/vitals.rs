//! What a node tells the other nodes about itself every few seconds, for its operators.

use std::sync::{Mutex, PoisonError};

/// How a node is doing. Percentiles are of the time since the last such message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Vitals {
    /// WebSocket connections that are open.
    pub connections: u64,
    /// Deliveries in a second.
    pub deliveries_per_s: u64,
    /// From publish to the last send, in microseconds; `None` where nothing was delivered.
    pub delivery_latency_p99_us: Option<u64>,
    /// A reactor's turn, in microseconds; `None` where there was none.
    pub turn_p99_us: Option<u64>,
    /// Resident memory of the process.
    pub resident_bytes: u64,
}

/// How a number that is not there is written.
const NONE: u64 = u64::MAX;

impl Vitals {
    /// Bytes that it is written as.
    pub const BYTES: usize = 40;

    /// As it goes to the other nodes: five numbers of 8 bytes, the highest first.
    pub fn to_bytes(&self) -> [u8; Vitals::BYTES] {
        let numbers = [
            self.connections,
            self.deliveries_per_s,
            self.delivery_latency_p99_us.unwrap_or(NONE),
            self.turn_p99_us.unwrap_or(NONE),
            self.resident_bytes,
        ];
        let mut bytes = [0; Vitals::BYTES];
        for (chunk, number) in bytes.as_chunks_mut::<8>().0.iter_mut().zip(numbers) {
            *chunk = number.to_be_bytes();
        }
        bytes
    }

    /// What was written so.
    pub fn from_bytes(bytes: &[u8; Vitals::BYTES]) -> Vitals {
        let mut numbers = bytes.as_chunks::<8>().0.iter().map(|chunk| u64::from_be_bytes(*chunk));
        let mut next = || numbers.next().unwrap_or_default();
        let known = |number| Some(number).filter(|number| *number != NONE);
        Vitals {
            connections: next(),
            deliveries_per_s: next(),
            delivery_latency_p99_us: known(next()),
            turn_p99_us: known(next()),
            resident_bytes: next(),
        }
    }
}

/// One node of the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeVitals {
    /// Its run, which names it.
    pub run: u64,
    /// Whether it is this one.
    pub is_own: bool,
    /// How it was doing when it was heard of last.
    pub vitals: Vitals,
}

/// The nodes of the cluster, as this one has heard of them lately. Nodes are few; what is read is a copy.
#[derive(Debug, Default)]
pub struct ClusterNodes(Mutex<Vec<NodeVitals>>);

impl ClusterNodes {
    /// Called by the cluster's thread.
    pub fn replace(&self, nodes: Vec<NodeVitals>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = nodes;
    }

    /// This one first, the others in the order of their runs.
    pub fn read(&self) -> Vec<NodeVitals> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_is_read_again() {
        let full = Vitals {
            connections: 1,
            deliveries_per_s: 2,
            delivery_latency_p99_us: Some(3),
            turn_p99_us: Some(0),
            resident_bytes: u64::MAX,
        };
        for vitals in [full, Vitals::default()] {
            assert_eq!(Vitals::from_bytes(&vitals.to_bytes()), vitals);
        }
    }
}
