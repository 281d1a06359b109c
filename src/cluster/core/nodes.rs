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
use crate::time::Millis;

/// The other nodes, by their runs.
#[derive(Debug, Default)]
pub(super) struct Peers {
    peers: HashMap<u64, Peer>,
}

#[derive(Debug)]
struct Peer {
    codec: ClientIdCodec,
    heard_at: Millis,
}

impl Peers {
    pub(super) fn count(&self) -> usize {
        self.peers.len()
    }

    pub(super) fn forget_silent(&mut self, now: Millis) {
        self.peers.retain(|_, peer| now.since(peer.heard_at) <= 4 * CLUSTER_HELLO_MS);
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

    fn hello(&self, asks: bool) -> Record<'static> {
        Record::Hello { node: self.me.codec.node(), key: self.me.key, asks }
    }

    pub(super) fn heard_hello(&mut self, run: u64, node: u16, key: [u8; 16], asks: bool) {
        if run == self.me.run {
            return;
        }
        let peer = Peer { codec: ClientIdCodec::new(key, node), heard_at: self.now };
        self.peers.peers.insert(run, peer);
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
