//! All connections of a reactor and what is on its way to them in this turn.
//!
//! The router hands over batches; a connection takes note of one by its index, which costs nothing. Only where a
//! second batch, an answer or a full socket comes in between does a batch become a shared segment with references.

use std::rc::Rc;

use slab::Slab;

use super::connection::{Connection, Handshake, NO_BATCH, Phase, Terminating};
use super::driver::SlotKey;
use crate::compress::{Agreement, Deflater, SharedFrame, WindowBits};
use crate::conn::{Cause, Chunk, Decoder, Ledger, Segment, Target, Unit, write_upgrade};
use crate::frame::{FRAME_HEADER_BYTES_MIN, FrameBuilder, Opcode, frame_boundary};
use crate::ids::{ClientIdCodec, ConnId, ReactorId, Slot};
use crate::limits::{BATCH_POOL_BYTES_MAX, OWN_BATCH_BYTES_MAX};
use crate::metrics::Counts;
use crate::protocol::{self, InEpoch};
use crate::router::{BatchBody, Excluded};
use crate::time::Millis;

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

/// Generations stay below 2^31 so that a driver can put more beside them, see [`SlotKey`].
const GENERATIONS_MASK: u32 = 0x7FFF_FFFF;

/// Frames on their way in this turn.
pub(super) struct TurnBatch {
    body: TurnBody,
    owner: Owner,
    unit: Unit,
    cause: Cause,
}

enum TurnBody {
    /// Nobody refers to it beyond this turn so far.
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

pub(super) struct Connections {
    pub(super) me: ReactorId,
    codec: ClientIdCodec,
    heartbeat_ms: u64,
    slab: Slab<Connection>,
    generations: Vec<u32>,
    dirty: Vec<SlotKey>,
    batches: Vec<TurnBatch>,
    spare: Vec<Vec<u8>>,
    spare_compressed: Vec<Vec<u8>>,
    /// Makes the compressed forms of frames; `None` where compression is off.
    deflater: Option<Box<Deflater>>,
    /// Connections that agreed on compression.
    deflating: usize,
    /// Connections that opened in this turn, with what they sent behind their request head.
    opened: Vec<(SlotKey, Vec<u8>)>,
    /// Connections to which nothing more comes of what they have sent.
    quiesced: Vec<SlotKey>,
    /// Connections that an operator ends.
    disconnected: Vec<SlotKey>,
    frames: FrameBuilder,
    pub(super) ledger: Ledger,
    /// Bytes of incomplete incoming messages.
    partial_bytes: usize,
    pub(super) counts: Counts,
    /// The time of this turn.
    pub(super) now: Millis,
    /// Bytes of large frames and answers in this turn.
    pub(super) turn_bytes: usize,
    /// Bytes that single connections have caused so far: answers before compression, and what their compressed messages
    /// held. Time goes with them.
    pub(super) work_bytes: u64,
}

impl Connections {
    pub(super) fn new(
        me: ReactorId,
        codec: ClientIdCodec,
        heartbeat_ms: u64,
        deflater: Option<Box<Deflater>>,
    ) -> Connections {
        Connections {
            me,
            codec,
            heartbeat_ms,
            slab: Slab::new(),
            generations: Vec::new(),
            dirty: Vec::new(),
            batches: Vec::new(),
            spare: Vec::new(),
            spare_compressed: Vec::new(),
            deflater,
            deflating: 0,
            opened: Vec::new(),
            quiesced: Vec::new(),
            disconnected: Vec::new(),
            frames: FrameBuilder::default(),
            ledger: Ledger::default(),
            partial_bytes: 0,
            counts: Counts::default(),
            now: Millis(0),
            turn_bytes: 0,
            work_bytes: 0,
        }
    }

    pub(super) fn codec(&self) -> &ClientIdCodec {
        &self.codec
    }

    pub(super) fn insert(&mut self, handshake: Handshake) -> SlotKey {
        let now = self.now;
        let entry = self.slab.vacant_entry();
        let at = entry.key();
        if at >= self.generations.len() {
            self.generations.resize(at + 1, 0);
        }
        let generation = self.generations[at];
        entry.insert(Connection::new(generation, now, handshake));
        SlotKey::new(at as u32, generation)
    }

    pub(super) fn remove(&mut self, slot: SlotKey) -> Connection {
        let generation = &mut self.generations[slot.index()];
        *generation = (*generation + 1) & GENERATIONS_MASK;
        let connection = self.slab.remove(slot.index());
        self.partial_bytes -= connection.partial_bytes as usize;
        self.deflating -= usize::from(connection.agreement.is_some());
        connection
    }

    /// The connection in this slot has no socket any more, and the slot is not free yet.
    pub(super) fn terminate(&mut self, slot: SlotKey, terminating: Terminating) {
        if let Some(connection) = self.get_mut(slot) {
            connection.terminate(terminating);
            self.count_partial(slot);
        }
    }

    /// This was agreed about compression with the client in this slot.
    pub(super) fn set_agreement(&mut self, slot: SlotKey, agreement: Agreement) {
        let connection = &mut self.slab[slot.index()];
        connection.agreement = Some(agreement);
        connection.decoder = Decoder::new(Some(agreement));
        self.deflating += 1;
    }

    /// The size from which a frame is worth compressing for someone here; `usize::MAX` where nobody agreed on that.
    pub(super) fn compress_from_bytes(&self) -> usize {
        match &self.deflater {
            Some(deflater) if self.deflating > 0 => deflater.min_bytes().saturating_add(FRAME_HEADER_BYTES_MIN),
            Some(_) | None => usize::MAX,
        }
    }

    /// Counts what is held of a connection's input now.
    #[inline]
    pub(super) fn count_partial(&mut self, slot: SlotKey) {
        if let Some(connection) = self.get_mut(slot) {
            let held_bytes = connection.decoder.held_bytes() + connection.intake.held_bytes();
            let before_bytes = connection.partial_bytes as usize;
            if before_bytes != held_bytes {
                connection.partial_bytes = u32::try_from(held_bytes)
                    .expect("a message is at most 256 MiB, and what waits behind it a few reads");
                self.partial_bytes = self.partial_bytes - before_bytes + held_bytes;
            }
        }
    }

    /// Bytes this reactor holds for its connections: queues, shared bytes once, and incomplete messages.
    pub(super) fn held_bytes(&self) -> u64 {
        (self.ledger.bytes() + self.partial_bytes) as u64
    }

    #[inline]
    pub(super) fn get(&self, slot: SlotKey) -> Option<&Connection> {
        self.slab.get(slot.index()).filter(|connection| connection.generation == slot.generation())
    }

    #[inline]
    pub(super) fn get_mut(&mut self, slot: SlotKey) -> Option<&mut Connection> {
        self.slab.get_mut(slot.index()).filter(|connection| connection.generation == slot.generation())
    }

    /// What a connection is to the router.
    #[inline]
    pub(super) fn id(&self, slot: SlotKey) -> ConnId {
        ConnId { reactor: self.me, slot: Slot(slot.slot()), generation: slot.generation() }
    }

    /// The connection that the router has as a member, which is there for as long as it is one.
    #[inline]
    pub(super) fn member(&self, Slot(slot): Slot) -> SlotKey {
        SlotKey::new(slot, self.slab[slot as usize].generation)
    }

    /// The connection whose timer is in this slot of the wheel, if it is there still.
    pub(super) fn in_wheel(&self, slot: u32) -> Option<SlotKey> {
        let connection = self.slab.get(slot as usize)?;
        Some(SlotKey::new(slot, connection.generation))
    }

    pub(super) fn len(&self) -> usize {
        self.slab.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (SlotKey, &Connection)> {
        self.slab.iter().map(|(at, connection)| (SlotKey::new(at as u32, connection.generation), connection))
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

    pub(super) fn mark_dirty(&mut self, slot: SlotKey) {
        if let Some(connection) = self.slab.get_mut(slot.index())
            && connection.generation == slot.generation()
            && !connection.dirty
        {
            connection.dirty = true;
            self.dirty.push(slot);
        }
    }

    /// A connection that opened in this turn, with what it sent behind its request head.
    pub(super) fn next_opened(&mut self) -> Option<(SlotKey, Vec<u8>)> {
        self.opened.pop()
    }

    /// Notes a batch for a connection; `false`, and nothing done, where it has another one or is to get parts only.
    #[inline]
    pub(super) fn note_batch(&mut self, slot: SlotKey, batch: u32) -> bool {
        let connection = &mut self.slab[slot.index()];
        if connection.batch != NO_BATCH || connection.excluded_from_batch {
            return false;
        }
        connection.batch = batch;
        if !connection.dirty {
            connection.dirty = true;
            self.dirty.push(slot);
        }
        true
    }

    /// A reactor has sent all that it had of what this connection has sent.
    pub(super) fn fenced(&mut self, slot: SlotKey) {
        let Some(connection) = self.get_mut(slot) else { return };
        if let Phase::Quiescing(quiescing) = &mut connection.phase {
            quiescing.awaited -= 1;
            if quiescing.awaited == 0 {
                self.quiesced.push(slot);
            }
        } else if connection.intake.fenced() {
            self.mark_dirty(slot);
        }
    }

    /// A connection that has had all it is to have before it ends.
    pub(super) fn next_quiesced(&mut self) -> Option<SlotKey> {
        self.quiesced.pop()
    }

    /// An operator ends it; [`Connections::next_disconnected`] says so to the worker.
    pub(super) fn disconnect(&mut self, slot: SlotKey) {
        self.disconnected.push(slot);
    }

    /// A connection that an operator ends.
    pub(super) fn next_disconnected(&mut self) -> Option<SlotKey> {
        self.disconnected.pop()
    }

    pub(super) fn batch_bytes(&self, batch: u32) -> &[u8] {
        self.batches[batch as usize].bytes()
    }

    /// A batch that a connection took note of goes into its outbox, from byte `from` on.
    pub(super) fn queue_batch(&mut self, slot: SlotKey, from: usize) {
        let connection = &mut self.slab[slot.index()];
        let batch = std::mem::replace(&mut connection.batch, NO_BATCH);
        if batch != NO_BATCH {
            let segment = self.batches[batch as usize].segment(&self.ledger);
            let end = segment.bytes().len();
            connection.outbox.push(Chunk::new(segment, from, end), self.now);
        }
    }

    /// No queue holds much more memory than it needs.
    pub(super) fn copy_scraps(&mut self) {
        for (_, connection) in &mut self.slab {
            connection.outbox.copy_scraps(&self.ledger);
        }
    }

    /// What waits for a connection is dropped, but for the rest of a frame that it has seen a part of.
    pub(super) fn drop_queue(&mut self, slot: SlotKey) {
        if let Some(connection) = self.slab.get_mut(slot.index()) {
            connection.batch = NO_BATCH;
            connection.outbox.truncate_to_frame(&self.ledger);
        }
    }

    /// The turn is over and nothing is dirty: the batches end. Buffers nobody refers to are handed to `recycle`.
    pub(super) fn end_turn(&mut self, mut recycle: impl FnMut(Vec<u8>)) {
        for batch in self.batches.drain(..) {
            let TurnBody::Local(mut bytes) = batch.body else { continue };
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
            self.counts.compressions = deflater.runs() - deflater.discarded();
            self.counts.compressions_discarded = deflater.discarded();
        }
    }

    /// Where this connection's own frames of this turn go, behind everything that is queued for it.
    pub(super) fn own_frames(&mut self, slot: SlotKey) -> &mut Vec<u8> {
        self.own_batch(slot, Unit::Frames, Cause::Own)
    }

    /// Where an HTTP response to this connection goes, with what belongs to it, behind everything that is queued for it.
    pub(super) fn response(&mut self, slot: SlotKey) -> &mut Vec<u8> {
        self.own_batch(slot, Unit::Whole, Cause::Own)
    }

    fn own_batch(&mut self, slot: SlotKey, unit: Unit, cause: Cause) -> &mut Vec<u8> {
        self.mark_dirty(slot);
        let batch = self.slab[slot.index()].batch;
        let fits = |batch: &TurnBatch| {
            let has_room = batch.bytes().len() < OWN_BATCH_BYTES_MAX;
            batch.owner == Owner::Connection(slot) && batch.unit == unit && batch.cause == cause && has_room
        };
        if batch == NO_BATCH || !fits(&self.batches[batch as usize]) {
            self.queue_batch(slot, 0);
            self.slab[slot.index()].batch = self.batches.len() as u32;
            let buffer = self.spare.pop().unwrap_or_default();
            self.batches.push(TurnBatch { body: TurnBody::Local(buffer), owner: Owner::Connection(slot), unit, cause });
        }
        let batch = self.slab[slot.index()].batch;
        match &mut self.batches[batch as usize].body {
            TurnBody::Local(bytes) => bytes,
            TurnBody::Segment(_) => unreachable!("a batch that is noted and owned is not shared yet"),
        }
    }

    /// Queues one whole frame for one connection.
    pub(super) fn frame(&mut self, slot: SlotKey, opcode: Opcode, write: impl FnOnce(&mut Vec<u8>)) {
        let mut frames = std::mem::take(&mut self.frames);
        self.own_frame(slot, frames.build(opcode, write), Cause::Own);
        self.frames = frames;
    }

    /// Queues a whole frame for one connection, compressed where that is agreed on and worth it.
    pub(super) fn own_frame(&mut self, slot: SlotKey, frame: &[u8], cause: Cause) {
        let bits = self.slab[slot.index()].agreement.map(|agreement| agreement.server_bits);
        let mut deflater = self.deflater.take();
        let frames = self.own_batch(slot, Unit::Frames, cause);
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
            self.work_bytes += frame.len() as u64;
        }
        self.deflater = deflater;
    }

    /// Takes a batch of the router's into this turn; its index.
    pub(super) fn push_batch(&mut self, body: BatchBody) -> u32 {
        let body = match body {
            BatchBody::Joined(bytes) => TurnBody::Local(bytes),
            BatchBody::Frame(frame) => {
                self.turn_bytes += frame.plain().len();
                TurnBody::Segment(Segment::shared(frame, &self.ledger))
            }
        };
        self.batches.push(TurnBatch { body, owner: Owner::Topic, unit: Unit::Frames, cause: Cause::Others });
        self.batches.len() as u32 - 1
    }

    /// Makes the form of a batch that connections with this window get; its index. `excluded` are mapped to it. Where
    /// one connection is the `only_reader` of this form, what it sent itself stays as it is: nobody gets that.
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
        self.batches.push(TurnBatch {
            body: TurnBody::Local(out),
            owner: Owner::Compressed,
            unit: Unit::Frames,
            cause: Cause::Others,
        });
        self.batches.len() as u32 - 1
    }

    /// A batch as something that outlives the turn.
    pub(super) fn batch_segment(&mut self, batch: u32) -> Rc<Segment> {
        self.batches[batch as usize].segment(&self.ledger)
    }

    /// Queues one JSON message for one connection.
    pub(super) fn message(&mut self, slot: SlotKey, write: impl FnOnce(&mut Vec<u8>)) {
        self.counts.messages_out += 1;
        self.frame(slot, Opcode::Text, write);
    }

    /// Its first topic is joined: the handshake is answered, and a JSON connection welcomed.
    pub(super) fn open(&mut self, id: ConnId, inbox: Option<InEpoch<'_>>) {
        let slot = SlotKey::from(id);
        let connection = &mut self.slab[slot.index()];
        let agreement = connection.agreement;
        let opening = match std::mem::replace(&mut connection.phase, Phase::Json) {
            Phase::Opening(opening) => *opening,
            other => {
                connection.phase = other;
                return;
            }
        };
        if let Target::Raw { echo, .. } = opening.upgrade.target {
            connection.phase = Phase::Raw { echo };
        }
        self.counts.connections += 1;
        self.counts.opened += 1;
        // The handshake's answer and the welcome leave together, as one piece.
        let mut frames = std::mem::take(&mut self.frames);
        let response = self.response(slot);
        write_upgrade(response, &opening.upgrade, agreement);
        if let Target::Json { .. } = opening.upgrade.target {
            let (client_id, heartbeat_ms) = (self.codec.encode(id), self.heartbeat_ms);
            let welcome = frames.build(Opcode::Text, |out| {
                protocol::welcome(out, client_id.as_str(), &opening.user, heartbeat_ms, inbox);
            });
            self.response(slot).extend_from_slice(welcome);
            self.counts.messages_out += 1;
        }
        self.frames = frames;
        self.opened.push((slot, opening.early));
    }
}
