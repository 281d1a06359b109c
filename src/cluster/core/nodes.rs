//! The other nodes: who is there, and how a client id of theirs is read.
//!
//! Each node tells the others the key of its client ids, when it comes and every few seconds. A client id that this node
//! has not made is tried with the others' keys; so any node finds the connection, and nothing about it is stored.

use std::collections::HashMap;

use super::super::record::Record;
use super::Core;
use crate::compress::SharedFrame;
use crate::frame::split_frame;
use crate::ids::{ClientId, ClientIdCodec, ConnId};
use crate::limits::CLUSTER_HELLO_MS;
use crate::metrics::{NodeVitals, Vitals};
use crate::time::Millis;

/// The other nodes, by their runs.
#[derive(Debug, Default)]
pub(super) struct Peers {
    peers: HashMap<u64, Peer>,
    /// Whether something has changed since it was asked for last.
    has_changed: bool,
}

#[derive(Debug)]
struct Peer {
    codec: ClientIdCodec,
    heard_at: Millis,
    vitals: Vitals,
}

impl Peers {
    pub(super) fn count(&self) -> usize {
        self.peers.len()
    }

    pub(super) fn forget_silent(&mut self, now: Millis) {
        let count = self.peers.len();
        self.peers.retain(|_, peer| now.since(peer.heard_at) <= 4 * CLUSTER_HELLO_MS);
        self.has_changed |= self.peers.len() != count;
    }

    /// The node, by its run, and the connection that a client id names.
    fn find(&self, id: ClientId) -> Option<(u64, ConnId)> {
        self.peers.iter().find_map(|(run, peer)| {
            let decoded = peer.codec.decode(id.as_str()).filter(|decoded| decoded.node == peer.codec.node())?;
            Some((*run, decoded.conn))
        })
    }
}

impl Core {
    /// Tells all nodes that this one is there.
    pub(super) fn publish_hello(&mut self, asks: bool) {
        self.hello_at = self.now.saturating_add(CLUSTER_HELLO_MS);
        let channel = self.everyone.clone();
        let hello = self.hello(asks);
        self.publish(&channel, &hello);
    }

    /// Whether this node is about to tell the others how it is doing.
    pub fn wants_vitals(&self, now: Millis) -> bool {
        self.reachable && self.hello_at <= now
    }

    /// How this node is doing.
    pub fn set_vitals(&mut self, vitals: Vitals) {
        self.vitals = vitals;
        self.peers.has_changed = true;
    }

    /// How each node was doing when it was heard of last, this one first; `None` where nothing has changed since the last call.
    pub fn poll_nodes(&mut self) -> Option<Vec<NodeVitals>> {
        if !std::mem::take(&mut self.peers.has_changed) {
            return None;
        }
        let own = NodeVitals { run: self.me.run, is_own: true, vitals: self.vitals };
        let mut nodes: Vec<NodeVitals> = self
            .peers
            .peers
            .iter()
            .map(|(&run, peer)| NodeVitals { run, is_own: false, vitals: peer.vitals })
            .collect();
        nodes.sort_unstable_by_key(|node| node.run);
        nodes.insert(0, own);
        Some(nodes)
    }

    fn hello(&self, asks: bool) -> Record<'static> {
        Record::Hello { node: self.me.codec.node(), key: self.me.key, asks, vitals: self.vitals }
    }

    pub(super) fn heard_hello(&mut self, run: u64, codec: ClientIdCodec, asks: bool, vitals: Vitals) {
        if run == self.me.run {
            return;
        }
        let peer = Peer { codec, heard_at: self.now, vitals };
        self.peers.peers.insert(run, peer);
        self.peers.has_changed = true;
        if asks && self.commands_up {
            let channel = self.names.node(run);
            let hello = self.hello(false);
            self.publish(&channel, &hello);
        }
    }

    /// A message for a connection of another node; a client id of no connection goes nowhere.
    pub(super) fn direct(&mut self, to: ClientId, frame: &SharedFrame) {
        let Some((run, conn)) = self.peers.find(to) else { return };
        if !self.commands_up || self.pending.is_full() {
            self.counts.dropped += 1;
            return;
        }
        self.counts.published += 1;
        let channel = self.names.node(run);
        self.publish(&channel, &Record::Direct { to: conn, payload: split_frame(frame.plain()).1 });
    }
}
