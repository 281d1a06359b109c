//! From a publish to batches: through the topic's home to every reactor with members, and there into the turn's batch.

use super::batch::Batch;
use super::cluster::ToCluster;
use super::history::Place;
use super::mail::{Ack, Content, Mail, Publish, Published};
use super::topic::{Kind, NO_BATCH, TopicIndex, TopicKey, TopicRef};
use super::{Answer, Router, Sink};
use crate::compress::SharedFrame;
use crate::ids::{ClientId, ConnId, ReactorId};
use crate::limits::{BATCH_POOL_BYTES_MAX, BATCH_POOL_MAX, FRAME_SHARE_BYTES};

impl Router {
    /// Publishes to a topic. With an `id` the publisher is told when the topic's home has routed it, or when it is in
    /// history.
    #[inline]
    pub fn publish(&mut self, publish: Publish<'_>, id: Option<&str>, sink: &mut impl Sink) {
        let Publish { topic, frame, exclude, key, publisher } = publish;
        let hash = self.topics.hasher().hash(topic);
        let home = self.topics.hasher().home(topic.kind, hash);
        if home == self.me && (self.cluster.is_none() || self.is_plain(hash, topic)) {
            if self.cluster.is_some() {
                self.publish_abroad(hash, topic, frame);
            }
            let place = self.keep_and_fan_out(hash, &publish, None, sink);
            if let Some(id) = id {
                sink.answer(publisher, Answer::Acked { id, place: place.as_ref().map(Place::in_epoch) });
            }
            return;
        }
        let publish = Published {
            topic: TopicKey { kind: topic.kind, name: topic.name.into() },
            frame: frame.into(),
            exclude,
            key: key.map(Into::into),
            publisher,
            id: id.map(Into::into),
        };
        self.send(home, Content::Publish(Box::new(publish)), sink);
    }

    /// Sends a whole frame to one connection, wherever it is.
    pub fn direct(&mut self, to: ConnId, frame: &[u8], ack: Option<(ConnId, &str)>, sink: &mut impl Sink) {
        if to.reactor == self.me {
            sink.direct(to, frame);
            if let Some((to, id)) = ack {
                sink.answer(to, Answer::Acked { id, place: None });
            }
        } else if to.reactor.0 < self.reactors {
            let ack = ack.map(|(to, id)| Box::new(Ack { to, id: id.into(), place: None }));
            self.outgoing.push((to.reactor, Mail(Content::Direct { to, frame: frame.into(), ack })));
        } else if let Some((to, id)) = ack {
            sink.answer(to, Answer::Acked { id, place: None });
        }
    }

    /// Whether there are other nodes.
    pub fn is_clustered(&self) -> bool {
        self.cluster.is_some()
    }

    /// Sends a whole frame to a connection of another node of the cluster, if there is one with this id.
    pub fn direct_elsewhere(&mut self, to: ClientId, frame: &[u8]) {
        self.ask_cluster(ToCluster::Direct { to, frame: frame.into() });
    }

    /// The turn ends: hands every open batch to the members.
    pub fn end_turn(&mut self, sink: &mut impl Sink) {
        for (topic, batch) in self.open.drain(..).flatten() {
            let topic = self.topics.get_mut(topic);
            topic.batch = NO_BATCH;
            sink.deliver(batch, &topic.members);
        }
        self.open_bytes = 0;
        self.post_abroad();
        self.frames.shrink(BATCH_POOL_BYTES_MAX);
    }

    /// Takes back the buffer of a joined batch that nothing refers to any more.
    pub fn recycle(&mut self, mut buffer: Vec<u8>) {
        if self.pool.len() < BATCH_POOL_MAX && buffer.capacity() <= BATCH_POOL_BYTES_MAX {
            buffer.clear();
            self.pool.push(buffer);
        }
    }

    /// From which size on a frame is worth compressing for a connection here; `usize::MAX` where none agreed on that.
    pub fn compress_from(&mut self, frame_bytes: usize) {
        self.compress_from_bytes = frame_bytes;
    }

    /// Bytes gathered in open batches, and for other nodes: beyond `limits::TURN_BYTES_MAX` the turn is to be flushed early.
    pub fn open_bytes(&self) -> usize {
        self.open_bytes + self.abroad.bytes()
    }

    /// At home: the frame goes to every reactor with members. `shared` is the frame where it is shared already.
    #[inline]
    pub(super) fn fan_out(
        &mut self,
        hash: u64,
        topic: TopicRef<'_>,
        frame: &[u8],
        shared: Option<&SharedFrame>,
        exclude: Option<ConnId>,
        sink: &mut impl Sink,
    ) {
        let Some(index) = self.topics.find(hash, topic) else { return };
        let mut shared = shared.cloned();
        let me = self.me;
        let found = self.topics.get(index);
        let mut post = |reactor: ReactorId| {
            let frame = shared.get_or_insert_with(|| frame.into()).clone();
            self.outgoing.push((reactor, Mail(Content::Deliver { topic: found.key.clone(), frame, exclude })));
        };
        match topic.kind {
            Kind::Everyone => (0..self.reactors).map(ReactorId).filter(|&at| at != me).for_each(&mut post),
            Kind::Room | Kind::Inbox | Kind::Raw => found.home.reactors().filter(|&at| at != me).for_each(&mut post),
        }
        self.deliver_here(index, frame, shared.as_ref(), exclude, sink);
    }

    /// The frame goes to this reactor's members: into the topic's batch of this turn, or, if large, as it is.
    #[inline]
    pub(super) fn deliver_here(
        &mut self,
        index: TopicIndex,
        frame: &[u8],
        shared: Option<&SharedFrame>,
        exclude: Option<ConnId>,
        sink: &mut impl Sink,
    ) {
        if self.topics.get(index).members.is_empty() {
            return;
        }
        let compressible = frame.len() >= self.compress_from_bytes;
        if frame.len() >= FRAME_SHARE_BYTES {
            self.seal(index, sink);
            let frame = shared.cloned().unwrap_or_else(|| frame.into());
            sink.deliver(Batch::of_frame(frame, exclude, compressible), &self.topics.get(index).members);
            return;
        }
        let batch = self.batch(index);
        if compressible {
            batch.mark_compressible(shared);
        }
        batch.push(frame, exclude);
        self.open_bytes += frame.len();
    }

    /// The topic's batch of this turn.
    #[inline]
    pub(super) fn batch(&mut self, index: TopicIndex) -> &mut Batch {
        let topic = self.topics.get_mut(index);
        if topic.batch == NO_BATCH {
            topic.batch = self.open.len() as u32;
            self.open.push(Some((index, Batch::joined(self.pool.pop().unwrap_or_default()))));
        }
        let (_, batch) = self.open[topic.batch as usize].as_mut().expect("a topic's batch is open");
        batch
    }

    /// Membership is about to change, or order would: what was published so far goes to the members of now.
    pub(super) fn seal(&mut self, index: TopicIndex, sink: &mut impl Sink) {
        if let Some(batch) = self.take_batch(index) {
            sink.deliver(batch, &self.topics.get(index).members);
        }
    }

    pub(super) fn take_batch(&mut self, index: TopicIndex) -> Option<Batch> {
        let at = std::mem::replace(&mut self.topics.get_mut(index).batch, NO_BATCH);
        let (_, batch) = self.open.get_mut(at as usize)?.take()?;
        self.open_bytes = self.open_bytes.saturating_sub(batch.bytes().len());
        Some(batch)
    }
}
