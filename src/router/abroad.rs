//! What is published here for the members on other nodes: gathered per topic during a turn, and handed to the cluster as
//! one piece; and the same on its way in.

use std::sync::Arc;

use hashbrown::HashTable;

use super::cluster::ToCluster;
use super::mail::{Content, Mail};
use super::topic::{Kind, TopicHasher, TopicIndex, TopicKey, TopicRef};
use super::{Router, Sink};
use crate::frame::whole_frames;
use crate::ids::ReactorId;
use crate::limits::CLUSTER_SINGLE_FRAME_BYTES;

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Abroad {
    topics: HashTable<Gathered>,
    bytes: usize,
}

#[derive(Debug)]
struct Gathered {
    topic: TopicKey,
    frames: Vec<u8>,
    messages: u64,
}

impl Abroad {
    fn gather(&mut self, hasher: &TopicHasher, hash: u64, topic: TopicRef<'_>, frame: &[u8]) {
        self.bytes += frame.len();
        let found = self.topics.find_mut(hash, |gathered| gathered.topic.borrow() == topic);
        if let Some(gathered) = found {
            gathered.frames.extend_from_slice(frame);
            gathered.messages += 1;
            return;
        }
        let topic = TopicKey { kind: topic.kind, name: topic.name.into() };
        let gathered = Gathered { topic, frames: frame.to_vec(), messages: 1 };
        self.topics.insert_unique(hash, gathered, |gathered| hasher.hash(gathered.topic.borrow()));
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Router {
    /// A message for the members on other nodes. It goes out at the end of the turn, or ahead of whatever else the
    /// cluster is asked before that.
    pub(super) fn publish_abroad(&mut self, hash: u64, topic: TopicRef<'_>, frame: &[u8]) {
        self.abroad.gather(self.topics.hasher(), hash, topic, frame);
    }

    pub(super) fn post_abroad(&mut self) {
        let Some(cluster) = self.cluster.filter(|_| self.abroad.bytes > 0) else { return };
        self.abroad.bytes = 0;
        for Gathered { topic, frames, messages } in self.abroad.topics.drain() {
            let publish = ToCluster::Publish { topic, frames, messages };
            self.outgoing.push((cluster, Mail(Content::ToCluster(Box::new(publish)))));
        }
    }

    /// At home: frames from another node, one after another, go to every reactor with members.
    pub(super) fn fan_out_many(&mut self, hash: u64, topic: &TopicKey, frames: Arc<[u8]>, sink: &mut impl Sink) {
        let Some(index) = self.topics.find(hash, topic.borrow()) else { return };
        let mut parts = Vec::new();
        let mut small_from = 0;
        let mut at = 0;
        for frame in whole_frames(&frames) {
            if frame.len() >= CLUSTER_SINGLE_FRAME_BYTES {
                parts.push((small_from..at, at..at + frame.len()));
                small_from = at + frame.len();
            }
            at += frame.len();
        }
        for (small, single) in parts {
            self.fan_out_small(index, topic, &frames[small], sink);
            // By itself it is compressed at most once for all reactors.
            self.fan_out(hash, topic.borrow(), &frames[single], None, None, sink);
        }
        match small_from {
            0 => self.fan_out_joined(index, topic, frames, sink),
            from => self.fan_out_small(index, topic, &frames[from..], sink),
        }
    }

    fn fan_out_small(&mut self, index: TopicIndex, topic: &TopicKey, frames: &[u8], sink: &mut impl Sink) {
        if !frames.is_empty() {
            self.fan_out_joined(index, topic, frames.into(), sink);
        }
    }

    fn fan_out_joined(&mut self, index: TopicIndex, topic: &TopicKey, frames: Arc<[u8]>, sink: &mut impl Sink) {
        let me = self.me;
        let found = self.topics.get(index);
        let mut post = |reactor: ReactorId| {
            let content = Content::DeliverMany { topic: topic.clone(), frames: frames.clone() };
            self.outgoing.push((reactor, Mail(content)));
        };
        match topic.kind {
            Kind::Everyone => (0..self.reactors).map(ReactorId).filter(|&at| at != me).for_each(&mut post),
            Kind::Room | Kind::Inbox | Kind::Raw => found.home.reactors().filter(|&at| at != me).for_each(&mut post),
        }
        self.deliver_many_here(index, &frames, sink);
    }

    /// Small frames go to this reactor's members, as they are, into the topic's batch of this turn.
    pub(super) fn deliver_many_here(&mut self, index: TopicIndex, frames: &[u8], sink: &mut impl Sink) {
        if self.topics.get(index).members.is_empty() {
            return;
        }
        if whole_frames(frames).any(|frame| frame.len() >= self.compress_from_bytes) {
            for frame in whole_frames(frames) {
                self.deliver_here(index, frame, None, None, sink);
            }
            return;
        }
        self.batch(index).push_many(frames);
        self.open_bytes += frames.len();
    }
}
