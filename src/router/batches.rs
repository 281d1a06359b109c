//! What topics send to this reactor's members in one turn: a batch for each topic, handed out when the turn ends.

use super::Sink;
use super::batch::{Batch, BatchBody};
use super::members::Members;
use super::topic::{NO_BATCH, Topic, TopicIndex, Topics};
use crate::compress::SharedFrame;
use crate::frame::whole_frames;
use crate::ids::ConnId;
use crate::limits::{BATCH_POOL_BYTES_MAX, BATCH_POOL_MAX, FRAME_SHARE_BYTES};
use crate::time::Stamp;

/// A frame for a topic's members.
#[derive(Clone, Copy, Debug)]
pub(super) struct Delivery<'a> {
    /// A whole frame.
    pub(super) frame: &'a [u8],
    /// The same where it is shared already.
    pub(super) shared: Option<&'a SharedFrame>,
    /// A member that is not to get it.
    pub(super) exclude: Option<ConnId>,
}

/// The open batches. They are what it is; the pool of buffers is filled again in time.
#[derive(Debug)]
pub(super) struct Batches {
    /// Batches opened in this turn; a sealed or dropped one is `None`.
    open: Vec<Option<(TopicIndex, Batch)>>,
    open_bytes: usize,
    pool: Vec<Vec<u8>>,
    compress_from_bytes: usize,
    /// When what is delivered now was published.
    published_at: Stamp,
}

impl Batches {
    /// None, and nothing is worth compressing.
    pub(super) fn new() -> Batches {
        Batches {
            open: Vec::new(),
            open_bytes: 0,
            pool: Vec::new(),
            compress_from_bytes: usize::MAX,
            published_at: Stamp::default(),
        }
    }

    /// When what is delivered now was published.
    #[inline]
    pub(super) fn published_at(&self) -> Stamp {
        self.published_at
    }

    /// What is delivered from now on was published then. When what was delivered so far was.
    #[inline]
    pub(super) fn deliver_as_of(&mut self, published_at: Stamp) -> Stamp {
        std::mem::replace(&mut self.published_at, published_at)
    }

    /// From which size on a frame is worth compressing.
    pub(super) fn compress_from(&mut self, frame_bytes: usize) {
        self.compress_from_bytes = frame_bytes;
    }

    /// The same, as it is.
    pub(super) fn compress_from_bytes(&self) -> usize {
        self.compress_from_bytes
    }

    /// A spare buffer, or a new one.
    pub(super) fn take_buffer(&mut self) -> Vec<u8> {
        self.pool.pop().unwrap_or_default()
    }

    /// Bytes gathered.
    pub(super) fn bytes(&self) -> usize {
        self.open_bytes
    }

    /// Takes back the buffer of a joined batch that nothing refers to any more.
    pub(super) fn recycle(&mut self, mut buffer: Vec<u8>) {
        if self.pool.len() < BATCH_POOL_MAX && buffer.capacity() <= BATCH_POOL_BYTES_MAX {
            buffer.clear();
            self.pool.push(buffer);
        }
    }

    /// Hands every batch to the members.
    pub(super) fn end_turn(&mut self, topics: &mut Topics, members: &Members, sink: &mut impl Sink) {
        for (index, batch) in self.open.drain(..).flatten() {
            let topic = topics.get_mut(index);
            topic.batch = NO_BATCH;
            sink.deliver(batch, members.of(topic));
        }
        self.open_bytes = 0;
    }

    /// A frame goes to this reactor's members: into the topic's batch, or, if large, as it is.
    #[inline]
    pub(super) fn deliver(
        &mut self,
        topics: &mut Topics,
        members: &Members,
        index: TopicIndex,
        delivery: Delivery<'_>,
        sink: &mut impl Sink,
    ) {
        let topic = topics.get_mut(index);
        if members.of(topic).is_empty() {
            return;
        }
        let Delivery { frame, shared, exclude } = delivery;
        let compressible = frame.len() >= self.compress_from_bytes;
        if frame.len() >= FRAME_SHARE_BYTES {
            self.seal(topic, members, sink);
            let frame = shared.cloned().unwrap_or_else(|| frame.into());
            let batch = Batch::of_frame(frame, exclude, compressible, self.published_at);
            sink.deliver(batch, members.of(topic));
            return;
        }
        let batch = self.batch(index, topic);
        if compressible {
            batch.mark_compressible(shared);
        }
        batch.push(frame, exclude);
        self.open_bytes += frame.len();
    }

    /// Small frames, one after another, go to this reactor's members, as they are, into the topic's batch.
    pub(super) fn deliver_many(
        &mut self,
        topics: &mut Topics,
        members: &Members,
        index: TopicIndex,
        frames: &[u8],
        sink: &mut impl Sink,
    ) {
        let topic = topics.get_mut(index);
        if members.of(topic).is_empty() {
            return;
        }
        if whole_frames(frames).any(|frame| frame.len() >= self.compress_from_bytes) {
            for frame in whole_frames(frames) {
                self.deliver(topics, members, index, Delivery { frame, shared: None, exclude: None }, sink);
            }
            return;
        }
        self.batch(index, topic).push_many(frames);
        self.open_bytes += frames.len();
    }

    /// The topic's batch of this turn.
    #[inline]
    fn batch(&mut self, index: TopicIndex, topic: &mut Topic) -> &mut Batch {
        if topic.batch == NO_BATCH {
            topic.batch = self.open.len() as u32;
            let batch = Batch::joined(self.pool.pop().unwrap_or_default(), self.published_at);
            self.open.push(Some((index, batch)));
        }
        let (_, batch) = self.open[topic.batch as usize].as_mut().expect("a topic's batch is open");
        batch.published_at = batch.published_at.earlier(self.published_at);
        batch
    }

    /// Membership is about to change, or order would: what was published so far goes to the members of now.
    pub(super) fn seal(&mut self, topic: &mut Topic, members: &Members, sink: &mut impl Sink) {
        if let Some(batch) = self.take(topic) {
            sink.deliver(batch, members.of(topic));
        }
    }

    /// The topic goes, and has no member.
    pub(super) fn discard(&mut self, topic: &mut Topic) {
        if let Some(Batch { body: BatchBody::Joined(buffer), .. }) = self.take(topic) {
            self.recycle(buffer);
        }
    }

    fn take(&mut self, topic: &mut Topic) -> Option<Batch> {
        let at = std::mem::replace(&mut topic.batch, NO_BATCH);
        let (_, batch) = self.open.get_mut(at as usize)?.take()?;
        self.open_bytes = self.open_bytes.saturating_sub(batch.bytes().len());
        Some(batch)
    }

    /// The batches of topics with other indices than before.
    #[cfg(any(test, debug_assertions))]
    pub(super) fn rebuild(&mut self, topics: &mut Topics, renamed: impl Fn(TopicIndex) -> TopicIndex) {
        self.pool.clear();
        for (at, open) in self.open.iter_mut().enumerate() {
            if let Some((index, _)) = open {
                *index = renamed(*index);
                topics.get_mut(*index).batch = at as u32;
            }
        }
    }
}
