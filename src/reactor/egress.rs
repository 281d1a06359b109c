//! What is on its way to a reactor's connections in this turn.
//!
//! The router hands over batches; a connection takes note of one by its index, which costs nothing. Only where a
//! second batch, an answer or a full socket comes in between does a batch become a shared segment with references.

use std::rc::Rc;

use super::connection::{Connection, NO_BATCH};
use super::driver::SlotKey;
use crate::compress::{Deflater, SharedFrame, WindowBits};
use crate::conn::{Cause, Chunk, Ledger, RoundNumber, Segment, Unit};
use crate::frame::{FRAME_HEADER_BYTES_MIN, FrameBuilder, frame_boundary};
use crate::ids::ConnId;
use crate::limits::{BATCH_POOL_BYTES_MAX, OWN_BATCH_BYTES_MAX};
use crate::metrics::ReactorMetrics;
use crate::router::{BatchBody, Excluded, Round};
use crate::time::{Millis, Stamp};

/// Whose frames a batch holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owner {
    /// The members of a topic: its buffer is the router's.
    Topic,
    /// Those members of a topic that agreed on the same compression.
    Compressed,
    /// One connection: they are its own.
    Connection(SlotKey),
}

/// Spare buffers kept for later turns, of each kind; more are freed.
const SPARE_MAX: usize = 64;

/// Frames on their way in this turn.
pub(super) struct TurnBatch {
    body: TurnBody,
    owner: Owner,
    unit: Unit,
    cause: Cause,
    /// Of a topic's batch; nothing of others.
    fan_out: FanOut,
    /// What it is a round of, if it is one: its cause has its own index then.
    round: Option<Rc<Round>>,
}

/// What is told of a batch when it is sent.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct FanOut {
    /// How many messages it has.
    pub(super) messages: u32,
    /// How many members get it.
    pub(super) members: u32,
    /// When the oldest of the messages was published.
    pub(super) published_at: Stamp,
}

enum TurnBody {
    /// No queue refers to it so far.
    Local(Vec<u8>),
    Segment(Rc<Segment>),
}

impl TurnBatch {
    pub(super) fn bytes(&self) -> &[u8] {
        match &self.body {
            TurnBody::Local(bytes) => bytes,
            TurnBody::Segment(segment) => segment.bytes(),
        }
    }

    fn segment(&mut self, ledger: &Ledger) -> Rc<Segment> {
        if let TurnBody::Local(bytes) = &mut self.body {
            self.body = TurnBody::Segment(Segment::local(std::mem::take(bytes), self.unit, self.cause, ledger));
        }
        match &self.body {
            TurnBody::Segment(segment) => segment.clone(),
            TurnBody::Local(_) => unreachable!("it was made a segment above"),
        }
    }
}

/// See the module's documentation.
pub(super) struct Egress {
    /// Connections to flush.
    dirty: Vec<SlotKey>,
    /// Those that were given a round for the first time.
    new_to_rounds: Vec<SlotKey>,
    batches: Vec<TurnBatch>,
    spare: Vec<Vec<u8>>,
    spare_compressed: Vec<Vec<u8>>,
    /// Makes the compressed forms of frames; `None` where compression is off.
    deflater: Option<Box<Deflater>>,
    /// Where frames for one connection are built.
    pub(super) frames: FrameBuilder,
    ledger: Ledger,
    /// The time of this turn.
    now: Millis,
    /// Bytes of large frames and answers in this turn.
    turn_bytes: usize,
    /// Messages to single connections in this turn.
    direct: FanOut,
    /// Bytes that single connections have caused so far: answers before compression, and what their compressed messages
    /// held. Time goes with them.
    work_bytes: u64,
}

impl Egress {
    pub(super) fn new(deflater: Option<Box<Deflater>>) -> Egress {
        Egress {
            dirty: Vec::new(),
            new_to_rounds: Vec::new(),
            batches: Vec::new(),
            spare: Vec::new(),
            spare_compressed: Vec::new(),
            deflater,
            frames: FrameBuilder::default(),
            ledger: Ledger::default(),
            now: Millis(0),
            turn_bytes: 0,
            direct: FanOut::default(),
            work_bytes: 0,
        }
    }

    /// A turn begins at `now`.
    pub(super) fn begin_turn(&mut self, now: Millis) {
        self.now = now;
    }

    /// The size from which a frame is worth compressing; `usize::MAX` where compression is off.
    pub(super) fn compress_from_bytes(&self) -> usize {
        self.deflater
            .as_ref()
            .map_or(usize::MAX, |deflater| deflater.min_bytes().saturating_add(FRAME_HEADER_BYTES_MIN))
    }

    /// Bytes of all queues, shared bytes once.
    pub(super) fn queued_bytes(&self) -> usize {
        self.ledger.bytes()
    }

    /// Bytes of large frames and answers in this turn.
    pub(super) fn turn_bytes(&self) -> usize {
        self.turn_bytes
    }

    /// Bytes that single connections have caused so far.
    pub(super) fn work_bytes(&self) -> u64 {
        self.work_bytes
    }

    /// A connection has caused so many bytes.
    pub(super) fn count_work(&mut self, bytes: usize) {
        self.work_bytes += bytes as u64;
    }

    /// The connections to flush.
    pub(super) fn take_dirty(&mut self) -> Vec<SlotKey> {
        std::mem::take(&mut self.dirty)
    }

    pub(super) fn is_dirty(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// Gives the emptied list back for reuse.
    pub(super) fn give_back_dirty(&mut self, mut list: Vec<SlotKey>) {
        list.clear();
        if self.dirty.is_empty() {
            self.dirty = list;
        }
    }

    /// A connection is to be flushed.
    #[inline]
    pub(super) fn mark_dirty(&mut self, connection: &mut Connection, slot: SlotKey) {
        if !connection.dirty {
            connection.dirty = true;
            self.dirty.push(slot);
        }
    }

    /// Notes a batch for a connection; `false`, and nothing done, where it has another one or is to get parts only.
    #[inline]
    pub(super) fn note_batch(&mut self, connection: &mut Connection, slot: SlotKey, batch: u32) -> bool {
        if connection.batch != NO_BATCH || connection.excluded_from_batch {
            return false;
        }
        connection.batch = batch;
        self.mark_dirty(connection, slot);
        true
    }

    /// A connection is given a round.
    #[inline]
    pub(super) fn note_round(&mut self, connection: &mut Connection, slot: SlotKey) {
        if !std::mem::replace(&mut connection.has_rounds, true) {
            self.new_to_rounds.push(slot);
        }
    }

    /// A connection that was given a round for the first time. It may have ended since.
    pub(super) fn next_new_to_rounds(&mut self) -> Option<SlotKey> {
        self.new_to_rounds.pop()
    }

    pub(super) fn batch_bytes(&self, batch: u32) -> &[u8] {
        self.batches[batch as usize].bytes()
    }

    /// A batch that a connection took note of goes into its outbox, from byte `from` on.
    pub(super) fn queue_batch(&mut self, connection: &mut Connection, from: usize) {
        let batch = std::mem::replace(&mut connection.batch, NO_BATCH);
        if batch != NO_BATCH {
            let segment = self.batches[batch as usize].segment(&self.ledger);
            let end = segment.bytes().len();
            connection.outbox.push(Chunk::new(segment, from, end), self.now);
        }
    }

    /// A socket took less than it was given: what of rounds has not begun is not sent. `told` hears of each round that lost
    /// frames, in their order, with how many of its frames were sent or have begun.
    pub(super) fn cut_rounds(&self, connection: &mut Connection, mut told: impl FnMut(&Round, usize)) {
        connection.outbox.cut_rounds(&self.ledger, |RoundNumber(batch), taken| {
            let round = self.batches[batch as usize].round.as_ref();
            told(round.expect("a round is known by the index of its batch, and is gone before that"), taken);
        });
    }

    /// Copies scraps out of the segments that a connection's queue holds for them.
    pub(super) fn copy_scraps(&self, connection: &mut Connection) {
        connection.outbox.copy_scraps(&self.ledger);
    }

    /// What waits for a connection is dropped, but for the rest of a frame that it has seen a part of.
    pub(super) fn drop_queue(&self, connection: &mut Connection) {
        connection.batch = NO_BATCH;
        connection.outbox.truncate_to_frame(&self.ledger);
    }

    /// Bytes of others for one connection, in a segment of their own.
    pub(super) fn queue_copy(&self, connection: &mut Connection, bytes: Vec<u8>) {
        let end = bytes.len();
        let segment = Segment::local(bytes, Unit::Frames, Cause::Others, &self.ledger);
        connection.outbox.push(Chunk::new(segment, 0, end), self.now);
    }

    /// One connection gets a message of another.
    pub(super) fn count_direct(&mut self, published_at: Stamp) {
        let earlier = if self.direct.messages == 0 { published_at } else { self.direct.published_at };
        self.direct =
            FanOut { messages: self.direct.messages + 1, members: 1, published_at: earlier.earlier(published_at) };
    }

    /// The turn is over and nothing is dirty: the batches end, and are counted as sent at `now`. Buffers that no queue refers
    /// to are handed to `recycle`.
    pub(super) fn end_turn(&mut self, now: Stamp, metrics: &ReactorMetrics, mut recycle: impl FnMut(Vec<u8>)) {
        let sent = |FanOut { messages, members, published_at }| {
            if messages > 0 {
                metrics.delivery_latency.record(now.ns_since(published_at), u64::from(messages));
                metrics.fan_out.record(u64::from(members), u64::from(messages));
            }
        };
        sent(std::mem::take(&mut self.direct));
        for batch in self.batches.drain(..) {
            sent(batch.fan_out);
            let buffer = match batch.body {
                TurnBody::Local(bytes) => Some(bytes),
                TurnBody::Segment(segment) => Segment::into_buffer(segment),
            };
            let Some(mut bytes) = buffer else { continue };
            let (spare, bytes_max) = match batch.owner {
                Owner::Topic => {
                    recycle(bytes);
                    continue;
                }
                Owner::Compressed => (&mut self.spare_compressed, BATCH_POOL_BYTES_MAX),
                Owner::Connection(_) => (&mut self.spare, 4096),
            };
            if spare.len() < SPARE_MAX && bytes.capacity() <= bytes_max {
                bytes.clear();
                spare.push(bytes);
            }
        }
        self.turn_bytes = 0;
        if let Some(deflater) = &mut self.deflater {
            deflater.shrink(BATCH_POOL_BYTES_MAX);
        }
    }

    /// What compresses, where it was agreed to.
    pub(super) fn deflater(&self) -> Option<&Deflater> {
        self.deflater.as_deref()
    }

    /// The batch of a connection's own bytes of this turn, behind everything that is queued for it.
    pub(super) fn own_batch(
        &mut self,
        connection: &mut Connection,
        slot: SlotKey,
        unit: Unit,
        cause: Cause,
    ) -> &mut Vec<u8> {
        self.mark_dirty(connection, slot);
        let fits = |batch: &TurnBatch| {
            let has_room = batch.bytes().len() < OWN_BATCH_BYTES_MAX;
            batch.owner == Owner::Connection(slot) && batch.unit == unit && batch.cause == cause && has_room
        };
        if connection.batch == NO_BATCH || !fits(&self.batches[connection.batch as usize]) {
            self.queue_batch(connection, 0);
            connection.batch = self.batches.len() as u32;
            let buffer = self.spare.pop().unwrap_or_default();
            let (body, owner) = (TurnBody::Local(buffer), Owner::Connection(slot));
            self.batches.push(TurnBatch { body, owner, unit, cause, fan_out: FanOut::default(), round: None });
        }
        match &mut self.batches[connection.batch as usize].body {
            TurnBody::Local(bytes) => bytes,
            TurnBody::Segment(_) => unreachable!("a batch that is noted and owned is not shared yet"),
        }
    }

    /// Queues a whole frame for one connection, compressed where that is agreed on and worth it.
    pub(super) fn own_frame(&mut self, connection: &mut Connection, slot: SlotKey, frame: &[u8], cause: Cause) {
        let bits = connection.agreement.map(|agreement| agreement.server_bits);
        let mut deflater = self.deflater.take();
        let frames = self.own_batch(connection, slot, Unit::Frames, cause);
        let before = frames.len();
        match (bits, &mut deflater) {
            (Some(bits), Some(deflater)) => {
                deflater.append(bits, frame, frames);
            }
            (_, _) => frames.extend_from_slice(frame),
        }
        let queued = frames.len() - before;
        self.turn_bytes += queued;
        if cause == Cause::Own {
            self.count_work(frame.len());
        }
        self.deflater = deflater;
    }

    /// Takes a batch of the router's into this turn; its index.
    pub(super) fn push_batch(&mut self, body: BatchBody, fan_out: FanOut, round: Option<Rc<Round>>) -> u32 {
        let cause = self.cause_of_next(round.as_ref());
        let body = match body {
            BatchBody::Joined(bytes) => TurnBody::Local(bytes),
            BatchBody::Frame(frame) => {
                self.turn_bytes += frame.plain().len();
                TurnBody::Segment(Segment::shared(frame, cause, &self.ledger))
            }
        };
        self.batches.push(TurnBatch { body, owner: Owner::Topic, unit: Unit::Frames, cause, fan_out, round });
        self.batches.len() as u32 - 1
    }

    /// What causes the batch of a topic that comes next: as a round it is known by its index.
    fn cause_of_next(&self, round: Option<&Rc<Round>>) -> Cause {
        round.map_or(Cause::Others, |_| Cause::Round(RoundNumber(self.batches.len() as u32)))
    }

    /// Makes the form of a batch that connections with this window get; its index. `excluded` are mapped to it. Where
    /// one connection is the `only_reader` of this form, what it sent itself stays as it is: no connection gets that.
    pub(super) fn compress_batch(
        &mut self,
        batch: u32,
        bits: WindowBits,
        shared: &[(u32, SharedFrame)],
        excluded: &mut [Excluded],
        only_reader: Option<ConnId>,
    ) -> u32 {
        let Some(deflater) = &mut self.deflater else { return batch };
        let frames = self.batches[batch as usize].bytes();
        let mut out = self.spare_compressed.pop().unwrap_or_default();
        let (mut shared, mut excluded) = (shared.iter().peekable(), excluded.iter_mut().peekable());
        let mut at = 0;
        while at < frames.len() {
            let end = at + frame_boundary(&frames[at..], 1);
            let start = out.len();
            let shared = shared.next_if(|(from, _)| *from as usize == at);
            let own = excluded.next_if(|excluded| excluded.start as usize == at);
            match shared {
                _ if own.as_ref().is_some_and(|own| Some(own.conn) == only_reader) => {
                    out.extend_from_slice(&frames[at..end]);
                }
                Some((_, frame)) => out.extend_from_slice(frame.deflated(bits, deflater)),
                None => {
                    deflater.append(bits, &frames[at..end], &mut out);
                }
            }
            if let Some(own) = own {
                (own.start, own.end) = (start as u32, out.len() as u32);
            }
            at = end;
        }
        self.turn_bytes += out.len();
        let round = self.batches[batch as usize].round.clone();
        self.batches.push(TurnBatch {
            body: TurnBody::Local(out),
            owner: Owner::Compressed,
            unit: Unit::Frames,
            cause: self.cause_of_next(round.as_ref()),
            fan_out: FanOut::default(),
            round,
        });
        self.batches.len() as u32 - 1
    }

    /// A batch as something that outlives the turn.
    pub(super) fn batch_segment(&mut self, batch: u32) -> Rc<Segment> {
        self.batches[batch as usize].segment(&self.ledger)
    }
}
