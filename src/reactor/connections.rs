//! All connections of a reactor and what is on its way to them in this turn.
//!
//! The router hands over batches; a connection takes note of one by its index, which costs nothing. Only where a
//! second batch, an answer or a full socket comes in between does a batch become a shared segment with references.

use std::rc::Rc;

use slab::Slab;

use super::connection::{Connection, NO_BATCH, Phase};
use crate::conn::{Chunk, Ledger, Segment, Target, Unit, write_upgrade};
use crate::frame::{FrameBuilder, Opcode};
use crate::ids::{ClientIdCodec, ConnId, ReactorId, Slot};
use crate::metrics::Counts;
use crate::protocol;
use crate::router::{Answer, Batch, BatchBody, Excluded, Sink};
use crate::time::Millis;

/// Belongs to no connection in particular.
const NOBODY: u32 = u32::MAX;

/// Generations stay below 2^31 so that a driver can put more into a token.
const GENERATIONS_MASK: u32 = 0x7FFF_FFFF;

/// Frames on their way in this turn.
pub(super) struct TurnBatch {
    body: TurnBody,
    /// The connection whose answers these are.
    owner: u32,
    unit: Unit,
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
            self.body = TurnBody::Segment(Segment::local(std::mem::take(bytes), self.unit, ledger));
        }
        match &self.body {
            TurnBody::Segment(segment) => segment.clone(),
            TurnBody::Local(_) => unreachable!("it was made a segment above"),
        }
    }
}

pub(super) struct Connections {
    me: ReactorId,
    codec: ClientIdCodec,
    heartbeat_ms: u64,
    slab: Slab<Connection>,
    generations: Vec<u32>,
    dirty: Vec<u32>,
    batches: Vec<TurnBatch>,
    spare: Vec<Vec<u8>>,
    /// Connections that opened in this turn, with what they sent behind their request head.
    opened: Vec<(u32, Vec<u8>)>,
    frames: FrameBuilder,
    pub(super) ledger: Ledger,
    /// Bytes of incomplete incoming messages.
    partial_bytes: usize,
    pub(super) counts: Counts,
    /// The time of this turn.
    pub(super) now: Millis,
    /// Bytes of large frames and answers in this turn.
    pub(super) turn_bytes: usize,
}

impl Connections {
    pub(super) fn new(me: ReactorId, codec: ClientIdCodec, heartbeat_ms: u64) -> Connections {
        Connections {
            me,
            codec,
            heartbeat_ms,
            slab: Slab::new(),
            generations: Vec::new(),
            dirty: Vec::new(),
            batches: Vec::new(),
            spare: Vec::new(),
            opened: Vec::new(),
            frames: FrameBuilder::default(),
            ledger: Ledger::default(),
            partial_bytes: 0,
            counts: Counts::default(),
            now: Millis(0),
            turn_bytes: 0,
        }
    }

    pub(super) fn codec(&self) -> &ClientIdCodec {
        &self.codec
    }

    pub(super) fn insert(&mut self, until: Millis) -> ConnId {
        let now = self.now;
        let entry = self.slab.vacant_entry();
        let at = entry.key();
        if at >= self.generations.len() {
            self.generations.resize(at + 1, 0);
        }
        let generation = self.generations[at];
        entry.insert(Connection::new(generation, now, until));
        ConnId { reactor: self.me, slot: Slot(at as u32), generation }
    }

    pub(super) fn remove(&mut self, slot: u32) -> Connection {
        let generation = &mut self.generations[slot as usize];
        *generation = (*generation + 1) & GENERATIONS_MASK;
        let connection = self.slab.remove(slot as usize);
        self.partial_bytes -= connection.partial_bytes as usize;
        connection
    }

    /// Counts what a connection holds of an incomplete message now.
    #[inline]
    pub(super) fn count_partial(&mut self, slot: u32) {
        if let Some(connection) = self.slab.get_mut(slot as usize) {
            let held_bytes = connection.decoder.held_bytes();
            if connection.partial_bytes as usize != held_bytes {
                self.partial_bytes = self.partial_bytes - connection.partial_bytes as usize + held_bytes;
                connection.partial_bytes = u32::try_from(held_bytes).expect("a message is at most 256 MiB");
            }
        }
    }

    /// Bytes this reactor holds for its connections: queues, shared bytes once, and incomplete messages.
    pub(super) fn held_bytes(&self) -> u64 {
        (self.ledger.bytes() + self.partial_bytes) as u64
    }

    #[inline]
    pub(super) fn get(&self, slot: u32) -> Option<&Connection> {
        self.slab.get(slot as usize)
    }

    #[inline]
    pub(super) fn get_mut(&mut self, slot: u32) -> Option<&mut Connection> {
        self.slab.get_mut(slot as usize)
    }

    /// The id of the connection in a slot that is taken.
    #[inline]
    pub(super) fn id(&self, slot: u32) -> ConnId {
        ConnId { reactor: self.me, slot: Slot(slot), generation: self.slab[slot as usize].generation }
    }

    /// Whether this very connection is in its slot.
    #[inline]
    pub(super) fn is_here(&self, slot: u32, generation: u32) -> bool {
        self.get(slot).is_some_and(|connection| connection.generation == generation)
    }

    pub(super) fn len(&self) -> usize {
        self.slab.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &Connection)> {
        self.slab.iter().map(|(slot, connection)| (slot as u32, connection))
    }

    /// The connections to flush.
    pub(super) fn take_dirty(&mut self) -> Vec<u32> {
        std::mem::take(&mut self.dirty)
    }

    pub(super) fn is_dirty(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// Gives the emptied list back for reuse.
    pub(super) fn give_back_dirty(&mut self, mut list: Vec<u32>) {
        list.clear();
        if self.dirty.is_empty() {
            self.dirty = list;
        }
    }

    pub(super) fn mark_dirty(&mut self, slot: u32) {
        if let Some(connection) = self.slab.get_mut(slot as usize)
            && !connection.dirty
        {
            connection.dirty = true;
            self.dirty.push(slot);
        }
    }

    /// A connection that opened in this turn, with what it sent behind its request head.
    pub(super) fn next_opened(&mut self) -> Option<(u32, Vec<u8>)> {
        self.opened.pop()
    }

    pub(super) fn batch_bytes(&self, batch: u32) -> &[u8] {
        self.batches[batch as usize].bytes()
    }

    /// A batch that a connection took note of goes into its outbox, from byte `from` on.
    pub(super) fn queue_batch(&mut self, slot: u32, from: usize) {
        let connection = &mut self.slab[slot as usize];
        let batch = std::mem::replace(&mut connection.batch, NO_BATCH);
        if batch != NO_BATCH {
            let segment = self.batches[batch as usize].segment(&self.ledger);
            let end = segment.bytes().len();
            connection.outbox.push(Chunk::new(segment, from, end), self.now);
        }
    }

    /// What waits for a connection is dropped, but for the rest of a frame that it has seen a part of.
    pub(super) fn drop_queue(&mut self, slot: u32) {
        if let Some(connection) = self.slab.get_mut(slot as usize) {
            connection.batch = NO_BATCH;
            connection.outbox.truncate_to_frame();
        }
    }

    /// The turn is over and nothing is dirty: the batches end. Buffers nobody refers to are handed to `recycle`.
    pub(super) fn end_turn(&mut self, mut recycle: impl FnMut(Vec<u8>)) {
        for batch in self.batches.drain(..) {
            match batch.body {
                TurnBody::Local(bytes) if batch.owner == NOBODY => recycle(bytes),
                TurnBody::Local(mut bytes) => {
                    if self.spare.len() < 64 && bytes.capacity() <= 4096 {
                        bytes.clear();
                        self.spare.push(bytes);
                    }
                }
                TurnBody::Segment(_) => {}
            }
        }
        self.turn_bytes = 0;
    }

    /// Where this connection's own frames of this turn go, behind everything that is queued for it.
    pub(super) fn words(&mut self, slot: u32) -> &mut Vec<u8> {
        self.own_batch(slot, Unit::Frames)
    }

    /// Where an HTTP response to this connection goes, with what belongs to it, behind everything that is queued for it.
    pub(super) fn response(&mut self, slot: u32) -> &mut Vec<u8> {
        self.own_batch(slot, Unit::Whole)
    }

    fn own_batch(&mut self, slot: u32, unit: Unit) -> &mut Vec<u8> {
        self.mark_dirty(slot);
        let batch = self.slab[slot as usize].batch;
        let fits = |batch: &TurnBatch| batch.owner == slot && batch.unit == unit;
        if batch == NO_BATCH || !fits(&self.batches[batch as usize]) {
            self.queue_batch(slot, 0);
            self.slab[slot as usize].batch = self.batches.len() as u32;
            let buffer = self.spare.pop().unwrap_or_default();
            self.batches.push(TurnBatch { body: TurnBody::Local(buffer), owner: slot, unit });
        }
        let batch = self.slab[slot as usize].batch;
        match &mut self.batches[batch as usize].body {
            TurnBody::Local(bytes) => bytes,
            TurnBody::Segment(_) => unreachable!("a batch that is noted and owned is not shared yet"),
        }
    }

    /// Queues one whole frame for one connection.
    pub(super) fn frame(&mut self, slot: u32, opcode: Opcode, write: impl FnOnce(&mut Vec<u8>)) {
        let mut frames = std::mem::take(&mut self.frames);
        let frame = frames.build(opcode, write);
        self.turn_bytes += frame.len();
        self.words(slot).extend_from_slice(frame);
        self.frames = frames;
    }

    /// Queues one JSON message for one connection.
    pub(super) fn message(&mut self, slot: u32, write: impl FnOnce(&mut Vec<u8>)) {
        self.counts.messages_out += 1;
        self.frame(slot, Opcode::Text, write);
    }

    /// Its first topic is joined: the handshake is answered, and a JSON connection welcomed.
    fn open(&mut self, id: ConnId) {
        let connection = &mut self.slab[id.slot.0 as usize];
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
        let response = self.response(id.slot.0);
        write_upgrade(response, &opening.upgrade);
        if let Target::Json { .. } = opening.upgrade.target {
            let (client_id, heartbeat_ms) = (self.codec.encode(id), self.heartbeat_ms);
            let welcome = frames.build(Opcode::Text, |out| {
                protocol::welcome(out, client_id.as_str(), &opening.user, heartbeat_ms);
            });
            self.response(id.slot.0).extend_from_slice(welcome);
            self.counts.messages_out += 1;
        }
        self.frames = frames;
        self.opened.push((id.slot.0, opening.early));
    }
}

impl Sink for Connections {
    fn deliver(&mut self, batch: Batch, members: &[Slot]) {
        let Batch { body, frames, excluded } = batch;
        let index = self.batches.len() as u32;
        let body = match body {
            BatchBody::Joined(bytes) => TurnBody::Local(bytes),
            BatchBody::Frame(frame) => {
                self.turn_bytes += frame.len();
                TurnBody::Segment(Segment::shared(frame, &self.ledger))
            }
        };
        self.batches.push(TurnBatch { body, owner: NOBODY, unit: Unit::Frames });
        let deliveries = u64::from(frames) * members.len() as u64;
        self.counts.messages_out += deliveries;
        self.counts.deliveries += deliveries;
        for excluded in &excluded {
            if excluded.conn.reactor == self.me
                && let Some(connection) = self.slab.get_mut(excluded.conn.slot.0 as usize)
                && connection.generation == excluded.conn.generation
            {
                connection.passed_over = true;
            }
        }
        for &Slot(slot) in members {
            let connection = &mut self.slab[slot as usize];
            if connection.passed_over {
                let id = ConnId { reactor: self.me, slot: Slot(slot), generation: connection.generation };
                self.deliver_parts(id, index, &excluded);
                continue;
            }
            if connection.batch != NO_BATCH {
                self.queue_batch(slot, 0);
            }
            let connection = &mut self.slab[slot as usize];
            connection.batch = index;
            if !connection.dirty {
                connection.dirty = true;
                self.dirty.push(slot);
            }
        }
        for excluded in &excluded {
            if excluded.conn.reactor == self.me
                && let Some(connection) = self.slab.get_mut(excluded.conn.slot.0 as usize)
            {
                connection.passed_over = false;
            }
        }
    }

    fn direct(&mut self, to: ConnId, frame: &[u8]) {
        let open = self.is_here(to.slot.0, to.generation) && matches!(self.slab[to.slot.0 as usize].phase, Phase::Json);
        if open {
            self.counts.messages_out += 1;
            self.counts.deliveries += 1;
            self.turn_bytes += frame.len();
            self.words(to.slot.0).extend_from_slice(frame);
        }
    }

    fn answer(&mut self, to: ConnId, answer: Answer<'_>) {
        if !self.is_here(to.slot.0, to.generation) {
            return;
        }
        let open = self.slab[to.slot.0 as usize].is_open();
        match answer {
            Answer::Connected => self.open(to),
            Answer::Joined { id, room, recovered } if open => {
                self.message(to.slot.0, |out| protocol::joined(out, id, room, recovered));
            }
            Answer::Acked { id } if open => self.message(to.slot.0, |out| protocol::ack(out, id)),
            Answer::Joined { .. } | Answer::Acked { .. } => {}
        }
    }
}

impl Connections {
    /// A member that sent some of a batch's frames gets the others, part by part.
    fn deliver_parts(&mut self, id: ConnId, batch: u32, excluded: &[Excluded]) {
        let slot = id.slot.0;
        let own = || excluded.iter().filter(|excluded| excluded.conn == id);
        let own_messages = own().count() as u64;
        self.counts.messages_out -= own_messages;
        self.counts.deliveries -= own_messages;
        let own_bytes: usize = own().map(|own| (own.end - own.start) as usize).sum();
        let end = self.batch_bytes(batch).len();
        if own_bytes == end {
            return;
        }
        self.queue_batch(slot, 0);
        let segment = self.batches[batch as usize].segment(&self.ledger);
        let outbox = &mut self.slab[slot as usize].outbox;
        let mut from = 0;
        for own in own() {
            outbox.push(Chunk::new(segment.clone(), from, own.start as usize), self.now);
            from = own.end as usize;
        }
        outbox.push(Chunk::new(segment, from, end), self.now);
        self.mark_dirty(slot);
    }
}
