//! What is published here for the members on other nodes: a batch for each topic and turn, handed to the cluster as one
//! piece.

use hashbrown::HashTable;

use super::cluster::ToCluster;
use super::topic::{HashedTopic, TopicKey};

/// The remote publish batches of this turn. They are what it is; their order by hash is built again.
#[derive(Debug, Default)]
pub(super) struct RemotePublish {
    batches: HashTable<RemoteBatch>,
    bytes: usize,
}

#[derive(Debug)]
struct RemoteBatch {
    topic: TopicKey,
    frames: Vec<u8>,
    messages: u64,
}

impl RemotePublish {
    /// One more message for the members on other nodes.
    pub(super) fn push(&mut self, topic: HashedTopic<'_>, frame: &[u8]) {
        self.bytes += frame.len();
        let hash = topic.hash.spread();
        if let Some(batch) = self.batches.find_mut(hash, |batch| batch.topic.hashed() == topic) {
            batch.frames.extend_from_slice(frame);
            batch.messages += 1;
            return;
        }
        let batch = RemoteBatch { topic: topic.to_key(), frames: frame.to_vec(), messages: 1 };
        self.batches.insert_unique(hash, batch, |batch| batch.topic.hashed().hash.spread());
    }

    /// Bytes gathered.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// All of it, for the cluster.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = ToCluster> {
        self.bytes = 0;
        self.batches.drain().map(|RemoteBatch { topic, frames, messages }| ToCluster::Publish {
            topic,
            frames,
            messages,
        })
    }
}
