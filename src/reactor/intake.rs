//! Backpressure on one connection: what it asks for comes no faster than it takes the answers.
//!
//! A small command can have a large answer. So a connection has a *share*: bytes of answers that it may cause before
//! what is there is sent. Beyond its share its decoding pauses, the rest of what came is kept, and its socket is not
//! read, until its socket has taken enough of the answers. Answers that come by mail are not here to be counted: for
//! them the connection owes an estimate, and where that passes the share, a fence goes round behind the commands.
//!
//! ```text
//!                      share used up                     fences are back
//!   Open ──┬────────────────────────────► Drained  ◄──────────────────── Answered
//!     ▲    └── answers owed by others ──────────────────────────────────►   (n fences)
//!     │                                      │ its socket took enough
//!     └────────── its turn comes ── Turn ◄───┘
//! ```
//!
//! Where a command waits for a thread that is no reactor, its connection is paused until `Elsewhere` has answered, then for
//! its turn.
//!
//! The bound: for each connection that sends commands, its answers that wait are at most
//! `limits::INTAKE_BYTES_MAX` and the largest single answer, or the few answers that may be under way by mail.

use std::collections::VecDeque;

use super::connection::{Connection, Phase};
use super::driver::{Driver, SlotKey};
use super::identity::Pending;
use super::worker::Worker;
use crate::limits::RESUMED_BYTES_PER_TURN;
use crate::protocol::{Command, Request, Rooms};

/// Pages of history and lists of users that may be under way to a connection: more are asked for when they are here.
const PAGES_UNDER_WAY: usize = 4;

/// What a join or a leave under way is estimated as, in bytes.
const SUBSCRIPTION_BYTES: usize = 256;

/// What a recovery that another reactor sends is estimated as, in bytes: its frames are the history's.
const RECOVERY_BYTES: usize = 4 * 1024;

/// Whether what a connection sends is decoded. All of it can be built again, but for the bytes that were not decoded.
#[derive(Debug)]
pub(super) enum Intake {
    /// It is.
    Open {
        /// Estimated bytes of answers that other threads may still have for it.
        owed_bytes: u32,
    },
    /// It is not.
    Paused(Box<Paused>),
}

/// A connection that has asked for enough for now.
#[derive(Debug)]
pub(super) struct Paused {
    /// What came and was not decoded yet, from `start` on.
    input: Vec<u8>,
    start: usize,
    owed_bytes: u32,
    until: Until,
}

/// What a paused connection waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Until {
    /// So many reactors have not yet sent all that they have for it.
    Answered(u16),
    /// Its socket has not taken enough of its answers yet.
    Drained,
    /// It stands in the list of those that go on.
    Turn,
    /// Its command waits for a thread that is no reactor.
    Elsewhere,
}

/// How far a connection's input was decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decoded {
    /// All of it, or as much as has a meaning.
    All,
    /// The share is used up; so many bytes are left.
    Part { left_bytes: usize },
}

/// Connections that go on in a next turn, first come, first served. An entry may be outdated.
#[derive(Debug, Default)]
pub(super) struct Resumable(VecDeque<SlotKey>);

impl Resumable {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A paused connection goes on when its turn comes.
    fn admit(&mut self, slot: SlotKey, paused: &mut Paused) {
        paused.until = Until::Turn;
        self.0.push_back(slot);
    }
}

impl Default for Intake {
    fn default() -> Intake {
        Intake::Open { owed_bytes: 0 }
    }
}

impl Intake {
    pub(super) fn is_paused(&self) -> bool {
        match self {
            Intake::Paused(_) => true,
            Intake::Open { .. } => false,
        }
    }

    /// Bytes that are kept until they are decoded.
    pub(super) fn held_bytes(&self) -> usize {
        match self {
            Intake::Paused(paused) => paused.input.capacity(),
            Intake::Open { .. } => 0,
        }
    }

    #[inline]
    pub(super) fn owed_bytes(&self) -> usize {
        match self {
            Intake::Open { owed_bytes } => *owed_bytes as usize,
            Intake::Paused(paused) => paused.owed_bytes as usize,
        }
    }

    /// Its share is used up, whatever it was.
    pub(super) fn exhaust(&mut self) {
        self.owe(usize::MAX);
    }

    /// Other threads will have answers for it, of so many bytes.
    fn owe(&mut self, bytes: usize) {
        let owed_bytes = match self {
            Intake::Open { owed_bytes } => owed_bytes,
            Intake::Paused(paused) => &mut paused.owed_bytes,
        };
        *owed_bytes = owed_bytes.saturating_add(u32::try_from(bytes).unwrap_or(u32::MAX));
    }

    /// A reactor has sent all that it had for this connection; whether that was the last one it waits for.
    pub(super) fn fenced(&mut self) -> bool {
        let Intake::Paused(paused) = self else { return false };
        match paused.until {
            Until::Answered(1) => {
                paused.until = Until::Drained;
                true
            }
            Until::Answered(reactors) => {
                paused.until = Until::Answered(reactors - 1);
                false
            }
            Until::Drained | Until::Turn | Until::Elsewhere => false,
        }
    }
}

impl Connection {
    /// Whether it has used up its share, with `work_bytes` of answers and decompressed messages in this turn.
    #[inline]
    pub(super) fn is_over_share(&self, work_bytes: u64, share_bytes: usize) -> bool {
        self.outbox.own_bytes() + work_bytes as usize > share_bytes || self.intake.owed_bytes() > share_bytes
    }
}

impl<D: Driver> Worker<D> {
    /// Estimates what a command will make others send to its connection: nothing where its answer is here already.
    pub(super) fn note_owed(&mut self, slot: SlotKey, request: &Request<'_>) {
        if self.router.is_alone() {
            return;
        }
        let id_bytes = request.id.map_or(0, str::len);
        let owed_bytes = match &request.command {
            Command::History { .. } | Command::Presence { .. } => self.settings.intake_bytes_max / PAGES_UNDER_WAY + 1,
            // What they bring are references into a history, or comes as the socket takes it.
            Command::Resume { .. }
            | Command::Tune { .. }
            | Command::JoinRoom { rooms: Rooms::One(_), position: Some(_), .. }
            | Command::JoinRoom { rooms: Rooms::One(_), options: Some(_), .. } => RECOVERY_BYTES,
            Command::JoinRoom { rooms: Rooms::Many(rooms), position: Some(_), .. } => {
                rooms.len() * (RECOVERY_BYTES + id_bytes)
            }
            // Until the home has confirmed them, the connection keeps a subscription for each.
            Command::JoinRoom { rooms: Rooms::Many(rooms), position: None, .. } => {
                rooms.len() * (SUBSCRIPTION_BYTES + id_bytes)
            }
            Command::JoinRoom { rooms: Rooms::One(_), position: None, options: None } | Command::LeaveRoom { .. } => {
                SUBSCRIPTION_BYTES
            }
            // Their answers are not much larger than they are.
            Command::PrivateMsg { .. }
            | Command::Private { .. }
            | Command::Broadcast(_)
            | Command::RoomMsg { .. }
            | Command::RoomMsgs { .. }
            | Command::Refresh { .. }
            | Command::Ping => 0,
        };
        if owed_bytes > 0
            && let Some(connection) = self.connections.get_mut(slot)
        {
            connection.intake.owe(owed_bytes);
        }
    }

    /// Its share is used up: what is left of its input is kept.
    pub(super) fn pause(&mut self, slot: SlotKey, input: Vec<u8>, start: usize) {
        let id = self.connections.id(slot);
        let Some(connection) = self.connections.get_mut(slot) else { return };
        let owed_bytes = connection.intake.owed_bytes();
        let pending = connection.authority().and_then(|authority| authority.pending.as_deref());
        let is_elsewhere = pending.is_some_and(Pending::is_elsewhere);
        let fences = match owed_bytes > self.settings.intake_bytes_max && !is_elsewhere {
            true => self.router.fence(id, &mut self.connections),
            false => 0,
        };
        let (until, owed_bytes) = match fences {
            0 if is_elsewhere => (Until::Elsewhere, 0),
            0 => (Until::Drained, owed_bytes as u32),
            fences => (Until::Answered(fences), 0),
        };
        let Some(connection) = self.connections.get_mut(slot) else { return };
        connection.intake = Intake::Paused(Box::new(Paused { input, start, owed_bytes, until }));
        self.connections.counts.pauses += 1;
        self.driver.pause(slot);
        // The flush at the end of the turn finds what its socket took.
        self.connections.mark_dirty(slot);
    }

    /// Bytes have come for a connection that is paused: they wait behind the others.
    pub(super) fn keep_input(&mut self, slot: SlotKey, bytes: &[u8]) {
        if let Some(Connection { intake: Intake::Paused(paused), .. }) = self.connections.get_mut(slot) {
            paused.input.extend_from_slice(bytes);
            self.connections.sessions.count_partial(slot);
        }
    }

    /// A paused connection was flushed: where its socket has taken enough, it goes on in the next turn.
    pub(super) fn resume_if_drained(&mut self, slot: SlotKey) {
        let share_bytes = self.settings.intake_bytes_max;
        let Some(connection) = self.connections.get_mut(slot) else { return };
        let Intake::Paused(paused) = &mut connection.intake else { return };
        if paused.until == Until::Drained && connection.outbox.own_bytes() <= share_bytes / 2 {
            self.resumable.admit(slot, paused);
        }
    }

    /// Its command is answered, or has to wait for no other thread but reactors: it goes on, once it has left the rooms that
    /// it may not be in any more.
    pub(super) fn resume_held_up(&mut self, slot: SlotKey) {
        let id = self.connections.id(slot);
        let Some(connection) = self.connections.get(slot) else { return };
        let is_leaving = connection.authority().is_some_and(|authority| authority.pending.is_some());
        let fences = if is_leaving { self.router.fence(id, &mut self.connections) } else { 0 };
        let Some(connection) = self.connections.get_mut(slot) else { return };
        let Intake::Paused(paused) = &mut connection.intake else { return };
        if is_leaving {
            // Its fences go behind all that is owed.
            paused.owed_bytes = 0;
        }
        if paused.until == Until::Elsewhere {
            match fences {
                0 => self.resumable.admit(slot, paused),
                fences => paused.until = Until::Answered(fences),
            }
        }
    }

    /// Our side of the connection ends: nothing that it sends has an answer any more, so nothing is waited for.
    pub(super) fn resume_to_close(&mut self, slot: SlotKey) {
        let Some(connection) = self.connections.get_mut(slot) else { return };
        let Intake::Paused(paused) = &mut connection.intake else { return };
        if paused.until != Until::Turn {
            self.resumable.admit(slot, paused);
        }
    }

    /// Connections that waited for their turn go on, until together they have caused their part of this turn.
    pub(super) fn resume_some(&mut self) {
        let end_bytes = self.connections.egress.work_bytes() + RESUMED_BYTES_PER_TURN;
        for _ in 0..self.resumable.0.len() {
            // Nor do clients go on while mail finds no room.
            if self.spilled || self.connections.egress.work_bytes() >= end_bytes {
                break;
            }
            let Some(slot) = self.resumable.0.pop_front() else { break };
            self.resume(slot);
            self.settle();
        }
    }

    fn resume(&mut self, slot: SlotKey) {
        let Some(connection) = self.connections.get_mut(slot) else { return };
        let paused = match std::mem::take(&mut connection.intake) {
            Intake::Paused(paused) if paused.until == Until::Turn => *paused,
            intake => {
                connection.intake = intake;
                return;
            }
        };
        connection.intake = Intake::Open { owed_bytes: paused.owed_bytes };
        self.driver.resume(slot);
        match connection.phase() {
            Phase::Json | Phase::Raw { .. } | Phase::Closing { .. } => {
                let Paused { mut input, start, .. } = paused;
                if let Decoded::Part { left_bytes } = self.take_frames(slot, &mut input[start..]) {
                    let start = input.len() - left_bytes;
                    self.pause(slot, input, start);
                }
            }
            // What it sent has no meaning any more.
            Phase::Handshake(_)
            | Phase::Authorizing(_)
            | Phase::Opening(_)
            | Phase::Quiescing(_)
            | Phase::Leaving { .. }
            | Phase::Lingering { .. }
            | Phase::Terminating(_) => {}
        }
        self.connections.sessions.count_partial(slot);
    }
}
