//! One slot of the reactor's slab.
//!
//! ```text
//!  accept ─► Handshake ─┬─► Authorizing ─┐ (who it is, and what it may do, is found out)
//!                       │                ▼
//!                       ├─────────► Opening ─► Json | Raw ─┬─► Closing ─► Leaving ─► released
//!                       │   (the home confirms)    │   (our close frame first)   ▲
//!                       │                          └─► Quiescing ┬────────────────┘ (the peer's close frame first)
//!                       │            (what it published comes   └─► Leaving ─► Lingering ─► released
//!                       │             back from other reactors)                      (protocol errors)
//!                       ├─► Leaving ─► Lingering ─► released                            (refused requests)
//!                       └─► handed to the control thread                                (plain HTTP)
//! ```
//!
//! Phases change here only, in the transitions of [`Connection`].
//!
//! What is released or handed over frees its slot at once, or is `Terminating` until the driver has nothing of it under way.

use std::num::NonZeroU64;

use super::addresses::AddressRef;
use super::backend::{Ticket, Token};
use super::driver::RemoteAddr;
use super::handover::Arrival;
use super::identity::{Authority, Grant, Identity, Passport, Pending, Subject};
use super::intake::Intake;
use crate::compress::Agreement;
use crate::conn::{ControlFrames, Decoder, Forwarded, HeadReader, Outbox, PeerError, Upgrade};
use crate::limits::{CONNECTION_BYTES_MAX, EARLY_BYTES_MAX, READ_BYTES, REQUEST_BYTES_FREE};
use crate::time::Millis;

/// No batch of this turn.
pub(super) const NO_BATCH: u32 = u32::MAX;

/// The hot part of a connection.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) generation: u32,
    /// The batch of this turn that comes behind everything in the outbox.
    pub(super) batch: u32,
    phase: Phase,
    pub(super) outbox: Outbox,
    pub(super) decoder: Decoder,
    /// What was agreed about compression.
    pub(super) agreement: Option<Agreement>,
    /// Whether what it sends is decoded.
    pub(super) intake: Intake,
    /// What is held of its input, as it was counted last: an incomplete message, and what waits to be decoded.
    pub(super) partial_bytes: u32,
    pub(super) heartbeat: Heartbeat,
    /// What of control frames it has sent lately.
    pub(super) control_frames: ControlFrames,
    /// What it may do, where it is bounded.
    pub(super) grant: Option<Box<Grant>>,
    /// Whether it is in the list of connections to flush.
    pub(super) dirty: bool,
    pub(super) room: Room,
    /// Whether it gets parts only of the batch being delivered.
    pub(super) excluded_from_batch: bool,
    pub(super) admission: Admission,
    /// Where its address is counted, if it is.
    pub(super) address: Option<AddressRef>,
    /// Whether it has sent a message.
    pub(super) has_published: bool,
    /// Whether it was given a round of a keyed room.
    pub(super) has_rounds: bool,
}

const _: () = assert!(size_of::<Connection>() <= CONNECTION_BYTES_MAX);

/// Whether a socket takes bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Room {
    /// As far as is known.
    Some,
    /// It took less than it was given, and the driver has not said since that it takes more.
    None,
    /// The driver has said that it takes more; what waits for it has not been sent yet.
    Regained,
}

/// What a connection is admitted as: which of the node's permits are given back when its slot is free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Admission {
    /// A socket.
    Socket,
    /// A socket, and one of the node's WebSocket connections.
    WebSocket,
}

#[derive(Debug)]
pub(super) enum Phase {
    /// The request head is awaited.
    Handshake(Box<Handshake>),
    /// The request is good; its token is looked at, or the backend decides. It is no connection of the node's yet.
    Authorizing(Box<Authorizing>),
    /// The request is good; the 101 waits until the first topic is joined.
    Opening(Box<Opening>),
    /// Open, speaking JSON.
    Json,
    /// Open, without commands: a member of a raw room, or an echo.
    Raw { messages: RawMessages },
    /// Nothing the peer sends counts any more; what it had sent before is still on its way through other reactors, and is
    /// answered first. It is a member of its topics until then.
    Quiescing(Box<Quiescing>),
    /// Our close frame is on its way; the peer's is awaited.
    Closing { until: Millis },
    /// Once the outbox is empty, it ends.
    Leaving { until: Millis, then: Then },
    /// We have ended our side; what still comes is thrown away until the peer ends its own.
    Lingering { until: Millis },
    /// It has no socket any more. The slot, and its admission, are held until the driver has nothing of it under way.
    Terminating(Terminating),
}

/// What the messages of a connection without commands are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RawMessages {
    /// Bytes for the others; whether it gets its own too.
    Bytes { echo: bool },
    /// Updates of items: the room is keyed.
    Updates,
    /// What comes back. It is in no room.
    Echo,
}

/// What became of the socket of a connection whose slot is not free yet.
#[derive(Debug)]
pub(super) enum Terminating {
    /// It was closed.
    Released,
    /// It goes to the control thread.
    Detached(Box<Detached>),
}

#[derive(Debug)]
pub(super) struct Detached {
    /// What was read from it: it goes with the socket.
    pub(super) read: Vec<u8>,
    /// So does this.
    pub(super) arrival: Arrival,
}

#[derive(Debug)]
pub(super) struct Quiescing {
    pub(super) cause: CloseCause,
    /// Whether it speaks JSON.
    pub(super) json: bool,
    /// Reactors through which something may still come.
    pub(super) awaited: u16,
    pub(super) until: Millis,
}

/// What ended a peer's side of the conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CloseCause {
    /// Its close frame, with the code it gave.
    Close(Option<u16>),
    /// It broke a rule.
    Error(PeerError),
}

/// What follows when the outbox is empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Then {
    /// Both close frames are exchanged: close at once.
    Release,
    /// The peer may still be sending: end our side and give it time to read.
    Linger,
}

#[derive(Debug)]
pub(super) struct Handshake {
    pub(super) reader: HeadReader,
    pub(super) arrival: Arrival,
    pub(super) until: Millis,
}

/// Holds no more than the handshake's bytes.
#[derive(Debug)]
pub(super) struct Authorizing {
    /// Until it is known who asks.
    pub(super) upgrade: Option<Upgrade>,
    /// Until it is looked at.
    pub(super) token: Option<Token>,
    /// As what it gets in, while it is found out whether it may be in its raw room.
    pub(super) passport: Option<Passport>,
    /// Where it comes from.
    pub(super) remote: RemoteAddr,
    /// The user that its certificate names.
    pub(super) certified: Option<String>,
    /// The page that asks.
    pub(super) origin: Option<String>,
    /// What goes with a question to the backend.
    pub(super) forwarded: Forwarded,
    /// Of its question to the backend, if one is under way.
    pub(super) ticket: Option<Ticket>,
    /// Bytes that came behind the request head.
    pub(super) early: Vec<u8>,
    /// The handshake's deadline.
    pub(super) until: Millis,
}

impl Authorizing {
    /// Bytes of what came with the request, and behind it.
    fn held_bytes(&self) -> usize {
        let Authorizing {
            upgrade,
            token,
            passport: _,
            remote: _,
            origin,
            forwarded,
            certified,
            ticket,
            early,
            until: _,
        } = self;
        let request = upgrade.as_ref().map_or(0, Upgrade::held_bytes) + forwarded.held_bytes();
        let texts = [origin, certified].into_iter().flatten().map(String::capacity).sum::<usize>();
        let shown = token.as_ref().map_or(0, |token| token.0.capacity()) + texts;
        request + shown + ticket.as_ref().map_or(0, |ticket| ticket.bytes) + early.capacity()
    }
}

#[derive(Debug)]
pub(super) struct Opening {
    pub(super) upgrade: Upgrade,
    pub(super) identity: Identity,
    /// What it sends, where it becomes a raw room's member.
    pub(super) raw: Option<RawMessages>,
    /// Bytes that came behind the request head.
    pub(super) early: Vec<u8>,
    pub(super) until: Millis,
}

/// When a connection was heard of and when it is to be asked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Heartbeat {
    pub(super) heard_at: Millis,
    pub(super) ping_at: Millis,
    /// The first ping since then that nothing has come after.
    pub(super) unanswered: Unanswered,
}

/// When the ping was that nothing has come after, if there is one: in the bytes of its time, since every connection has it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Unanswered(Option<NonZeroU64>);

impl Unanswered {
    /// Since a ping of this moment, of which the clock's first two are one.
    pub(super) fn since(pinged: Millis) -> Unanswered {
        Unanswered(Some(NonZeroU64::new(pinged.0).unwrap_or(NonZeroU64::MIN)))
    }

    /// When the ping was.
    pub(super) fn pinged(self) -> Option<Millis> {
        self.0.map(|ms| Millis(ms.get()))
    }
}

/// What a connection waits for behind a fence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fenced {
    /// More of them.
    Awaiting,
    /// Nothing any more: it may end.
    Quiesced,
    /// Nothing any more: it may be decoded again.
    Answered,
}

impl Connection {
    /// A connection in its handshake.
    pub(super) fn new(generation: u32, now: Millis, handshake: Handshake, address: Option<AddressRef>) -> Connection {
        let until = handshake.until;
        Connection { address, ..Connection::in_phase(generation, Phase::Handshake(Box::new(handshake)), now, until) }
    }

    /// How far it is.
    #[inline]
    pub(super) fn phase(&self) -> &Phase {
        &self.phase
    }

    /// Its handshake, where it is in it.
    pub(super) fn handshake_mut(&mut self) -> Option<&mut Handshake> {
        match &mut self.phase {
            Phase::Handshake(handshake) => Some(handshake),
            Phase::Authorizing(_)
            | Phase::Opening(_)
            | Phase::Json
            | Phase::Raw { .. }
            | Phase::Quiescing(_)
            | Phase::Closing { .. }
            | Phase::Leaving { .. }
            | Phase::Lingering { .. }
            | Phase::Terminating(_) => None,
        }
    }

    /// Where bytes are kept that come while they are not decoded: before it is open, and while it is handed over.
    pub(super) fn kept_mut(&mut self) -> Option<&mut Vec<u8>> {
        match &mut self.phase {
            Phase::Opening(opening) => Some(&mut opening.early),
            Phase::Authorizing(authorizing) => Some(&mut authorizing.early),
            Phase::Terminating(Terminating::Detached(detached)) => Some(&mut detached.read),
            Phase::Handshake(_)
            | Phase::Json
            | Phase::Raw { .. }
            | Phase::Quiescing(_)
            | Phase::Closing { .. }
            | Phase::Leaving { .. }
            | Phase::Lingering { .. }
            | Phase::Terminating(Terminating::Released) => None,
        }
    }

    /// The request is good, and it is to be found out who asks.
    pub(super) fn begin_authorizing(&mut self, authorizing: Authorizing) {
        assert!(matches!(self.phase, Phase::Handshake(_)), "a request is read once");
        self.phase = Phase::Authorizing(Box::new(authorizing));
    }

    /// Its request, while it is found out who asks.
    pub(super) fn authorizing_mut(&mut self) -> Option<&mut Authorizing> {
        if let Phase::Authorizing(authorizing) = &mut self.phase { Some(authorizing) } else { None }
    }

    /// What its token allows, where tokens are asked for.
    pub(super) fn authority(&self) -> Option<&Authority> {
        self.grant.as_ref()?.authority()
    }

    /// As [`Connection::authority`].
    pub(super) fn authority_mut(&mut self) -> Option<&mut Authority> {
        self.grant.as_mut()?.authority_mut()
    }

    /// Whose it is, where it is a raw room's member, or about to be, and a token, the backend or a certificate has said so.
    pub(super) fn raw_user(&self) -> Option<&str> {
        let grant = match &self.phase {
            Phase::Raw { .. } => &self.grant,
            Phase::Opening(opening) => &opening.identity.grant,
            Phase::Handshake(_)
            | Phase::Authorizing(_)
            | Phase::Json
            | Phase::Quiescing(_)
            | Phase::Closing { .. }
            | Phase::Leaving { .. }
            | Phase::Lingering { .. }
            | Phase::Terminating(_) => &None,
        };
        grant.as_ref()?.raw_user()
    }

    /// The user of a connection that is about to open.
    pub(super) fn opening_user(&self) -> Option<&str> {
        let Phase::Opening(opening) = &self.phase else { return None };
        match &opening.identity.subject {
            Subject::User(user) => Some(user),
            Subject::RawRoom(_) | Subject::Echo => None,
        }
    }

    /// The request is good, and the node has room: the first topic is joined next.
    pub(super) fn begin_opening(&mut self, opening: Opening) {
        assert!(matches!(self.phase, Phase::Handshake(_) | Phase::Authorizing(_)), "a connection begins once");
        self.admission = Admission::WebSocket;
        self.phase = Phase::Opening(Box::new(opening));
    }

    /// Whether it is a raw room's member, or about to be.
    pub(super) fn is_raw(&self) -> bool {
        match &self.phase {
            Phase::Raw { .. } => true,
            Phase::Opening(opening) => opening.raw.is_some(),
            Phase::Quiescing(quiescing) => !quiescing.json,
            Phase::Handshake(_)
            | Phase::Authorizing(_)
            | Phase::Json
            | Phase::Closing { .. }
            | Phase::Leaving { .. }
            | Phase::Lingering { .. }
            | Phase::Terminating(_) => false,
        }
    }

    /// The first topic is joined; what opened, unless it was given up meanwhile.
    pub(super) fn open(&mut self) -> Option<Opening> {
        match std::mem::replace(&mut self.phase, Phase::Json) {
            Phase::Opening(opening) => {
                if let Some(messages) = opening.raw {
                    self.phase = Phase::Raw { messages };
                }
                Some(*opening)
            }
            other => {
                self.phase = other;
                None
            }
        }
    }

    /// The peer has said its last: `awaited` reactors may still have something that comes of what it sent before.
    pub(super) fn quiesce(&mut self, cause: CloseCause, awaited: u16, until: Millis) {
        assert!(matches!(self.phase, Phase::Json | Phase::Raw { .. }), "a peer ends its side once");
        let json = self.is_json();
        self.decoder = Decoder::default();
        self.phase = Phase::Quiescing(Box::new(Quiescing { cause, json, awaited, until }));
    }

    /// A reactor has sent all that it had of what this connection has sent.
    pub(super) fn fenced(&mut self) -> Fenced {
        if let Phase::Quiescing(quiescing) = &mut self.phase {
            quiescing.awaited -= 1;
            return if quiescing.awaited == 0 { Fenced::Quiesced } else { Fenced::Awaiting };
        }
        if self.intake.fenced() { Fenced::Answered } else { Fenced::Awaiting }
    }

    /// Our close frame is queued; the peer's is awaited.
    pub(super) fn close(&mut self, until: Millis) {
        assert!(self.is_open(), "an open connection is closed, once");
        self.give_up_pending();
        self.phase = Phase::Closing { until };
    }

    /// The last of what we have for it is queued; `then` follows when it is out.
    pub(super) fn leave(&mut self, until: Millis, then: Then) {
        assert!(
            !matches!(self.phase, Phase::Leaving { .. } | Phase::Lingering { .. } | Phase::Terminating(_)),
            "a connection leaves once"
        );
        self.give_up_pending();
        self.phase = Phase::Leaving { until, then };
    }

    /// Nothing that its command waits for is of use any more.
    fn give_up_pending(&mut self) {
        if let Some(authority) = self.authority_mut() {
            authority.pending = None;
        }
    }

    /// All is out, and our side has ended.
    pub(super) fn linger(&mut self, until: Millis) {
        assert!(matches!(self.phase, Phase::Leaving { then: Then::Linger, .. }), "what lingers was leaving");
        self.phase = Phase::Lingering { until };
    }

    /// Gives up all but what counts against the node until the slot is free.
    pub(super) fn terminate(&mut self, terminating: Terminating) {
        let Heartbeat { heard_at, ping_at, .. } = self.heartbeat;
        *self = Connection {
            agreement: self.agreement,
            admission: self.admission,
            address: self.address,
            partial_bytes: self.partial_bytes,
            dirty: self.dirty,
            ..Connection::in_phase(self.generation, Phase::Terminating(terminating), heard_at, ping_at)
        };
    }

    /// What goes with its socket to the control thread, while the driver is asked for that.
    pub(super) fn take_detached(&mut self) -> Option<(Vec<u8>, Arrival)> {
        match &mut self.phase {
            Phase::Terminating(Terminating::Detached(detached)) => {
                Some((std::mem::take(&mut detached.read), detached.arrival))
            }
            Phase::Handshake(_)
            | Phase::Authorizing(_)
            | Phase::Opening(_)
            | Phase::Json
            | Phase::Raw { .. }
            | Phase::Quiescing(_)
            | Phase::Closing { .. }
            | Phase::Leaving { .. }
            | Phase::Lingering { .. }
            | Phase::Terminating(Terminating::Released) => None,
        }
    }

    fn in_phase(generation: u32, phase: Phase, now: Millis, until: Millis) -> Connection {
        Connection {
            generation,
            batch: NO_BATCH,
            phase,
            outbox: Outbox::default(),
            decoder: Decoder::default(),
            agreement: None,
            intake: Intake::default(),
            partial_bytes: 0,
            heartbeat: Heartbeat { heard_at: now, ping_at: until, unanswered: Unanswered::default() },
            control_frames: ControlFrames::default(),
            grant: None,
            dirty: false,
            room: Room::Some,
            excluded_from_batch: false,
            admission: Admission::Socket,
            address: None,
            has_published: false,
            has_rounds: false,
        }
    }

    /// Whether something follows when everything it has is out.
    #[inline]
    pub(super) fn awaits_flush(&self) -> bool {
        matches!(self.phase, Phase::Leaving { .. }) || self.intake.is_paused() || self.room == Room::Regained
    }

    /// Whether messages go to it, and it counts as a connection.
    pub(super) fn is_open(&self) -> bool {
        match self.phase {
            Phase::Json | Phase::Raw { .. } | Phase::Quiescing(_) => true,
            Phase::Handshake(_)
            | Phase::Authorizing(_)
            | Phase::Opening(_)
            | Phase::Closing { .. }
            | Phase::Leaving { .. }
            | Phase::Lingering { .. }
            | Phase::Terminating(_) => false,
        }
    }

    /// Whether it is open and speaks JSON.
    pub(super) fn is_json(&self) -> bool {
        match &self.phase {
            Phase::Json => true,
            Phase::Quiescing(quiescing) => quiescing.json,
            Phase::Handshake(_)
            | Phase::Authorizing(_)
            | Phase::Opening(_)
            | Phase::Raw { .. }
            | Phase::Closing { .. }
            | Phase::Leaving { .. }
            | Phase::Lingering { .. }
            | Phase::Terminating(_) => false,
        }
    }

    /// Bytes that it may have sent behind its request: fewer before its token was looked at. `None` where it has said none
    /// yet, or it is answered.
    pub(super) fn early_bytes_max(&self) -> Option<usize> {
        match &self.phase {
            Phase::Authorizing(_) => Some(EARLY_BYTES_MAX),
            Phase::Opening(_) => Some(READ_BYTES),
            Phase::Handshake(_)
            | Phase::Json
            | Phase::Raw { .. }
            | Phase::Quiescing(_)
            | Phase::Closing { .. }
            | Phase::Leaving { .. }
            | Phase::Lingering { .. }
            | Phase::Terminating(_) => None,
        }
    }

    /// Bytes that it holds of what it has sent, before it is let in, where they are more than a usual request.
    pub(super) fn stranger_bytes(&self) -> usize {
        let bytes = match &self.phase {
            Phase::Handshake(handshake) => handshake.reader.held_bytes(),
            Phase::Authorizing(authorizing) => authorizing.held_bytes(),
            Phase::Opening(_)
            | Phase::Json
            | Phase::Raw { .. }
            | Phase::Quiescing(_)
            | Phase::Closing { .. }
            | Phase::Leaving { .. }
            | Phase::Lingering { .. }
            | Phase::Terminating(_) => 0,
        };
        if bytes > REQUEST_BYTES_FREE { bytes } else { 0 }
    }

    /// Bytes of its command that waits for others.
    pub(super) fn pending_bytes(&self) -> usize {
        let pending = self.authority().and_then(|authority| authority.pending.as_deref());
        pending.map_or(0, Pending::held_bytes)
    }

    /// Whether its request is not answered yet.
    pub(super) fn is_beginning(&self) -> bool {
        matches!(self.phase, Phase::Handshake(_) | Phase::Authorizing(_) | Phase::Opening(_))
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::super::driver::{ListenerId, Provenance};
    use super::*;
    use crate::conn::{ItemOptions, Target};

    /// What waits to be decided about is all that its client has sent: each part of it counts.
    #[test]
    fn what_waits_for_a_decision_counts_with_all_that_it_holds() {
        let remote = RemoteAddr::Tcp(SocketAddr::from(([192, 0, 2, 7], 1)));
        let authorizing = || Authorizing {
            upgrade: Some(Upgrade {
                accept: String::new(),
                target: Target::Json { user: None },
                subprotocol: false,
                offer: None,
                credentials: None,
            }),
            token: None,
            passport: None,
            remote,
            origin: None,
            forwarded: Forwarded::default(),
            certified: None,
            ticket: None,
            early: Vec::new(),
            until: Millis(0),
        };
        let bytes = REQUEST_BYTES_FREE + 1;
        let text = || "x".repeat(bytes);
        let target = Target::Raw { room: text(), echo: false, options: ItemOptions::None };
        let upgrade = authorizing().upgrade.map(|upgrade| Upgrade { target, ..upgrade });
        let forwarded = Forwarded(vec![("cookie".to_owned(), text().into_bytes())]);
        for (held, what) in [
            (Authorizing { forwarded, ..authorizing() }, "fields for the backend"),
            (Authorizing { origin: Some(text()), ..authorizing() }, "the page"),
            (Authorizing { token: Some(Token(text())), ..authorizing() }, "the token"),
            (Authorizing { early: text().into_bytes(), ..authorizing() }, "what came early"),
            (Authorizing { upgrade, ..authorizing() }, "the target"),
        ] {
            let provenance = Provenance { listener: ListenerId(0), remote, proxied: false };
            let reader = HeadReader::default();
            let arrival = Arrival { provenance, is_unnamed: false };
            let handshake = Handshake { reader, arrival, until: Millis(0) };
            let mut connection = Connection::new(0, Millis(0), handshake, None);
            connection.begin_authorizing(held);
            let counted = connection.stranger_bytes();
            assert!((bytes..bytes + 100).contains(&counted), "{what}: {counted} of {bytes}");
        }
    }
}
