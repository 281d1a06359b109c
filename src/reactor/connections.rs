//! Where the connections of a reactor and what is on its way to them meet: what the router and the worker tell them.

use std::sync::Arc;

use super::connection::{Connection, Opening};
use super::counted;
use super::driver::SlotKey;
use super::egress::Egress;
use super::identity::{Identity, Pending, Subject};
use super::sessions::Sessions;
use crate::auth::Revocations;
use crate::compress::Deflater;
use crate::conn::{Cause, CloseReason, Unit, write_upgrade};
use crate::frame::Opcode;
use crate::ids::{ClientIdCodec, ConnId, ReactorId};
use crate::metrics::{CommandRefusal, Counts, ReactorMetrics};
use crate::protocol::{self, InEpoch, Rejection};
use crate::time::{Millis, Stamp};

/// See the module's documentation.
pub(super) struct Connections {
    pub(super) sessions: Sessions,
    pub(super) egress: Egress,
    pub(super) counts: Counts,
    codec: ClientIdCodec,
    heartbeat_ms: u64,
    /// The time of this turn.
    pub(super) now: Millis,
    /// The same in Unix milliseconds.
    pub(super) unix_ms: u64,
    /// Whose tokens are revoked, on all reactors.
    pub(super) revocations: Arc<Revocations>,
}

impl Connections {
    pub(super) fn new(
        me: ReactorId,
        codec: ClientIdCodec,
        heartbeat_ms: u64,
        deflater: Option<Box<Deflater>>,
        revocations: Arc<Revocations>,
    ) -> Connections {
        Connections {
            sessions: Sessions::new(me),
            egress: Egress::new(deflater),
            counts: Counts::default(),
            codec,
            heartbeat_ms,
            now: Millis(0),
            unix_ms: 0,
            revocations,
        }
    }

    pub(super) fn codec(&self) -> &ClientIdCodec {
        &self.codec
    }

    /// A turn begins at `now`, which is `unix_ms`.
    pub(super) fn begin_turn(&mut self, now: Millis, unix_ms: u64) {
        (self.now, self.unix_ms) = (now, unix_ms);
        self.egress.begin_turn(now);
    }

    /// As [`Egress::end_turn`].
    pub(super) fn end_turn(&mut self, now: Stamp, metrics: &ReactorMetrics, recycle: impl FnMut(Vec<u8>)) {
        self.egress.end_turn(now, metrics, recycle);
        if let Some(deflater) = self.egress.deflater() {
            self.counts.compressions = deflater.runs() - deflater.discarded();
            self.counts.compressions_discarded = deflater.discarded();
            (self.counts.compressed_bytes_before, self.counts.compressed_bytes_after) = deflater.bytes();
        }
    }

    /// As [`Sessions::get`].
    #[inline]
    pub(super) fn get(&self, slot: SlotKey) -> Option<&Connection> {
        self.sessions.get(slot)
    }

    /// As [`Sessions::get`].
    #[inline]
    pub(super) fn get_mut(&mut self, slot: SlotKey) -> Option<&mut Connection> {
        self.sessions.get_mut(slot)
    }

    /// What a connection is to the router.
    #[inline]
    pub(super) fn id(&self, slot: SlotKey) -> ConnId {
        self.sessions.id(slot)
    }

    /// The size from which a frame is worth compressing for a connection here; `usize::MAX` where none agreed on that.
    pub(super) fn compress_from_bytes(&self) -> usize {
        match self.sessions.is_deflating() {
            true => self.egress.compress_from_bytes(),
            false => usize::MAX,
        }
    }

    /// Bytes this reactor holds for its connections: queues, shared bytes once, and incomplete messages.
    pub(super) fn held_bytes(&self) -> u64 {
        (self.egress.queued_bytes() + self.sessions.partial_bytes()) as u64
    }

    /// No queue holds much more memory than it needs.
    pub(super) fn copy_scraps(&mut self) {
        for connection in self.sessions.iter_mut() {
            self.egress.copy_scraps(connection);
        }
    }

    /// A connection is to be flushed.
    pub(super) fn mark_dirty(&mut self, slot: SlotKey) {
        if let Some(connection) = self.sessions.get_mut(slot) {
            self.egress.mark_dirty(connection, slot);
        }
    }

    /// A batch that a connection took note of goes into its outbox, from byte `from` on.
    pub(super) fn queue_batch(&mut self, slot: SlotKey, from: usize) {
        if let Some(connection) = self.sessions.get_mut(slot) {
            self.egress.queue_batch(connection, from);
        }
    }

    /// Writes a connection's own frames of this turn, behind everything that is queued for it.
    pub(super) fn own_frames(&mut self, slot: SlotKey, write: impl FnOnce(&mut Vec<u8>)) {
        if let Some(connection) = self.sessions.get_mut(slot) {
            write(self.egress.own_batch(connection, slot, Unit::Frames, Cause::Own));
        }
    }

    /// Writes an HTTP response to this connection, with what belongs to it, behind everything that is queued for it.
    pub(super) fn response(&mut self, slot: SlotKey, write: impl FnOnce(&mut Vec<u8>)) {
        if let Some(connection) = self.sessions.get_mut(slot) {
            write(self.egress.own_batch(connection, slot, Unit::Whole, Cause::Own));
        }
    }

    /// Tells a connection that a command of its was refused.
    pub(super) fn rejected(&mut self, slot: SlotKey, rejection: &Rejection<'_>) {
        self.counts.command_refusals.count(counted::command_refusal(rejection.code));
        self.message(slot, |out| protocol::error(out, rejection));
    }

    /// Tells a connection that a room of several is not for it.
    pub(super) fn forbidden_room(&mut self, slot: SlotKey, id: Option<&str>, room: &str) {
        self.counts.command_refusals.count(CommandRefusal::Forbidden);
        self.message(slot, |out| protocol::forbidden_room(out, id, room));
    }

    /// Queues one whole frame for one connection.
    pub(super) fn frame(&mut self, slot: SlotKey, opcode: Opcode, write: impl FnOnce(&mut Vec<u8>)) {
        let mut frames = std::mem::take(&mut self.egress.frames);
        self.own_frame(slot, frames.build(opcode, write), Cause::Own);
        self.egress.frames = frames;
    }

    /// Sends a client's message back.
    pub(super) fn echo(&mut self, slot: SlotKey, opcode: Opcode, message: &[u8]) {
        self.counts.messages_out += 1;
        self.frame(slot, opcode, |out| out.extend_from_slice(message));
    }

    /// Asks a client whether it is there, unless it has not been sent what asked it last.
    pub(super) fn ping(&mut self, slot: SlotKey) {
        if self.get(slot).is_some_and(|connection| connection.outbox.has_ping()) {
            return;
        }
        let mut frames = std::mem::take(&mut self.egress.frames);
        self.own_frame(slot, frames.build(Opcode::Ping, |_| {}), Cause::Heartbeat);
        self.egress.frames = frames;
    }

    /// Queues a whole frame for one connection, compressed where that is agreed on and worth it.
    pub(super) fn own_frame(&mut self, slot: SlotKey, frame: &[u8], cause: Cause) {
        if let Some(connection) = self.sessions.get_mut(slot) {
            self.egress.own_frame(connection, slot, frame, cause);
        }
    }

    /// Queues one JSON message for one connection.
    pub(super) fn message(&mut self, slot: SlotKey, write: impl FnOnce(&mut Vec<u8>)) {
        self.counts.messages_out += 1;
        self.frame(slot, Opcode::Text, write);
    }

    /// A reactor has sent all that it had of what this connection has sent.
    pub(super) fn fenced(&mut self, slot: SlotKey) {
        if self.sessions.fenced(slot) {
            self.answer_refresh(slot);
            self.mark_dirty(slot);
        }
    }

    /// It has left the rooms that its new token does not allow: the `refresh` is answered behind that.
    fn answer_refresh(&mut self, slot: SlotKey) {
        let authority = self.sessions.get_mut(slot).and_then(|connection| connection.authority_mut());
        let Some(authority) = authority else { return };
        let Some(pending) = authority.pending.take_if(|pending| !pending.is_elsewhere()) else { return };
        if let Pending::Leaving { id, expires_unix_ms } = *pending {
            self.message(slot, |out| protocol::refreshed(out, &id, expires_unix_ms));
        }
    }

    /// Its first topic is joined: the handshake is answered, and a JSON connection welcomed.
    pub(super) fn open(&mut self, id: ConnId, inbox: Option<InEpoch<'_>>) {
        let slot = SlotKey::from(id);
        let Some((subject, early)) = self.complete_handshake(slot) else { return };
        // The handshake's answer and the welcome leave together, as one piece.
        if let Subject::User(user) = subject {
            let (client_id, heartbeat_ms) = (self.codec.encode(id), self.heartbeat_ms);
            let mut frames = std::mem::take(&mut self.egress.frames);
            let welcome = frames.build(Opcode::Text, |out| {
                protocol::welcome(out, client_id.as_str(), &user, heartbeat_ms, inbox);
            });
            self.response(slot, |response| response.extend_from_slice(welcome));
            self.egress.frames = frames;
            self.counts.messages_out += 1;
        }
        self.sessions.note_opened(slot, early);
    }

    /// It may not stay. The handshake is completed all the same, since a page in a browser is shown the code of a close
    /// frame, but not the status of a refusal. What it sent has no meaning.
    pub(super) fn open_to_close(&mut self, id: ConnId, reason: CloseReason) {
        let slot = SlotKey::from(id);
        if self.complete_handshake(slot).is_some() {
            self.sessions.dismiss(slot, reason);
        }
    }

    /// The connection is open, and its handshake answered: whose it is, and what it sent behind its request head. `None`
    /// where it was given up meanwhile.
    fn complete_handshake(&mut self, slot: SlotKey) -> Option<(Subject, Vec<u8>)> {
        let connection = self.sessions.get_mut(slot)?;
        let agreement = connection.agreement;
        let Opening { upgrade, identity, early, raw: _, until: _ } = connection.open()?;
        let Identity { subject, grant } = identity;
        connection.grant = grant;
        self.sessions.note_opened_at(slot, self.now);
        self.counts.connections += 1;
        self.counts.opened += 1;
        self.response(slot, |response| write_upgrade(response, &upgrade, agreement));
        Some((subject, early))
    }
}
