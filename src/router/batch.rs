//! What one topic sends to one reactor's members in one turn: the frames, one after another, built once.

use std::rc::Rc;

use smallvec::SmallVec;

use super::topic::TopicKey;
use crate::compress::SharedFrame;
use crate::frame::whole_frames;
use crate::ids::ConnId;
use crate::time::Stamp;

/// Whole server frames for all members of a topic.
#[derive(Debug)]
pub struct Batch {
    /// The frames.
    pub body: BatchBody,
    /// How many frames there are.
    pub frames: u32,
    /// Parts that single members are not to get: their own messages. In order of `start`.
    pub excluded: SmallVec<[Excluded; 1]>,
    /// Whether a frame in it is worth compressing for those who agreed on that.
    pub compressible: bool,
    /// When the oldest of its messages was published.
    pub published_at: Stamp,
    /// Frames worth compressing that other reactors share, by where they start: the reactor that compresses one does it for all.
    pub shared: Vec<(u32, SharedFrame)>,
    /// What it is a round of, if it is one: then a socket that takes less than all of it is sent no more of it than the frame
    /// that has begun, and the router hears of that ([`Router::fell_behind`](super::Router::fell_behind)). No member is
    /// excluded from a part of a round.
    pub round: Option<Rc<Round>>,
}

/// A round of a keyed room on its way: what becomes of it where a socket takes only a part.
#[derive(Debug)]
pub struct Round {
    /// The room.
    pub topic: TopicKey,
    /// Where in the room's offsets a member stands that takes nothing of it: in front of its first frame.
    pub since: u64,
    /// The offset of each frame, in order.
    pub offsets: Vec<u64>,
}

/// The bytes of a batch.
#[derive(Debug)]
pub enum BatchBody {
    /// Frames copied together; the buffer is to be given back by `Router::recycle`.
    Joined(Vec<u8>),
    /// One large frame, shared with other reactors.
    Frame(SharedFrame),
}

/// One frame that one connection is not to get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Excluded {
    /// The connection that sent it.
    pub conn: ConnId,
    /// Where the frame starts in the batch.
    pub start: u32,
    /// Where it ends.
    pub end: u32,
}

impl Batch {
    pub(super) fn joined(buffer: Vec<u8>, published_at: Stamp) -> Batch {
        let body = BatchBody::Joined(buffer);
        Batch {
            body,
            frames: 0,
            excluded: SmallVec::new(),
            compressible: false,
            published_at,
            shared: Vec::new(),
            round: None,
        }
    }

    pub(super) fn of_frame(
        frame: SharedFrame,
        exclude: Option<ConnId>,
        compressible: bool,
        published_at: Stamp,
    ) -> Batch {
        let end = frame.plain().len() as u32;
        let excluded = exclude.into_iter().map(|conn| Excluded { conn, start: 0, end }).collect();
        let body = BatchBody::Frame(frame);
        Batch { body, frames: 1, excluded, compressible, published_at, shared: Vec::new(), round: None }
    }

    #[inline]
    pub(super) fn push(&mut self, frame: &[u8], exclude: Option<ConnId>) {
        let BatchBody::Joined(bytes) = &mut self.body else { unreachable!("only joined batches stay open") };
        let start = bytes.len() as u32;
        bytes.extend_from_slice(frame);
        self.frames += 1;
        if let Some(conn) = exclude {
            self.excluded.push(Excluded { conn, start, end: bytes.len() as u32 });
        }
    }

    /// Several frames for all members, none of them worth compressing.
    pub(super) fn push_many(&mut self, frames: &[u8]) {
        let BatchBody::Joined(bytes) = &mut self.body else { unreachable!("only joined batches stay open") };
        bytes.extend_from_slice(frames);
        self.frames += whole_frames(frames).count() as u32;
    }

    /// The next frame to be pushed is worth compressing.
    pub(super) fn mark_compressible(&mut self, shared: Option<&SharedFrame>) {
        self.compressible = true;
        if let Some(frame) = shared {
            self.shared.push((self.bytes().len() as u32, frame.clone()));
        }
    }

    /// The frames.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        match &self.body {
            BatchBody::Joined(bytes) => bytes,
            BatchBody::Frame(frame) => frame.plain(),
        }
    }
}
