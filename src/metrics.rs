//! Counters of a node: written by the reactor that owns them once a turn, read by anyone.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// What one reactor has done since it started; plain numbers on the reactor's own side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// WebSocket connections open now.
    pub connections: u64,
    /// Messages received from clients.
    pub messages_in: u64,
    /// Messages queued for clients, each receiver counted.
    pub messages_out: u64,
    /// Bytes received from sockets.
    pub bytes_in: u64,
    /// Bytes the kernel took for sockets.
    pub bytes_out: u64,
    /// Calls to the kernel that sent something.
    pub sends: u64,
    /// Bytes in segments that queues refer to now, shared ones once.
    pub queue_bytes: u64,
    /// Connections ended as slow consumers.
    pub slow_consumers: u64,
    /// Turns of the loop.
    pub turns: u64,
}

/// One reactor's published counters, on cache lines of their own.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct ReactorMetrics {
    connections: AtomicU64,
    messages_in: AtomicU64,
    messages_out: AtomicU64,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
    sends: AtomicU64,
    queue_bytes: AtomicU64,
    slow_consumers: AtomicU64,
    turns: AtomicU64,
}

impl ReactorMetrics {
    /// Publishes; called by the owner only.
    pub fn publish(&self, counts: &Counts) {
        let set = |counter: &AtomicU64, value| counter.store(value, Ordering::Relaxed);
        set(&self.connections, counts.connections);
        set(&self.messages_in, counts.messages_in);
        set(&self.messages_out, counts.messages_out);
        set(&self.bytes_in, counts.bytes_in);
        set(&self.bytes_out, counts.bytes_out);
        set(&self.sends, counts.sends);
        set(&self.queue_bytes, counts.queue_bytes);
        set(&self.slow_consumers, counts.slow_consumers);
        set(&self.turns, counts.turns);
    }

    /// What was published last; the numbers may stem from neighbouring turns.
    pub fn read(&self) -> Counts {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts {
            connections: get(&self.connections),
            messages_in: get(&self.messages_in),
            messages_out: get(&self.messages_out),
            bytes_in: get(&self.bytes_in),
            bytes_out: get(&self.bytes_out),
            sends: get(&self.sends),
            queue_bytes: get(&self.queue_bytes),
            slow_consumers: get(&self.slow_consumers),
            turns: get(&self.turns),
        }
    }

    /// Bytes in this reactor's queues.
    pub fn queue_bytes(&self) -> u64 {
        self.queue_bytes.load(Ordering::Relaxed)
    }
}

/// What the reactors of a node share: the two counts that bound it, and everybody's metrics.
#[derive(Debug)]
pub struct NodeMetrics {
    /// WebSocket connections of the node, those in their handshake included from the moment they are let in.
    pub connections: AtomicUsize,
    /// Sockets of the node, whatever they are doing.
    pub sockets: AtomicUsize,
    /// One entry a reactor.
    pub reactors: Vec<ReactorMetrics>,
}

impl NodeMetrics {
    /// For a node of so many reactors.
    pub fn new(reactors: usize) -> NodeMetrics {
        NodeMetrics {
            connections: AtomicUsize::new(0),
            sockets: AtomicUsize::new(0),
            reactors: (0..reactors).map(|_| ReactorMetrics::default()).collect(),
        }
    }

    /// Takes one of `max` places in a count; `false` where all are taken.
    pub fn take_place(count: &AtomicUsize, max: usize) -> bool {
        if count.fetch_add(1, Ordering::Relaxed) < max {
            return true;
        }
        count.fetch_sub(1, Ordering::Relaxed);
        false
    }

    /// Gives a place back.
    pub fn give_place(count: &AtomicUsize) {
        count.fetch_sub(1, Ordering::Relaxed);
    }
}
