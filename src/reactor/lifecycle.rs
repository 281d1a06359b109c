//! How a connection begins, is kept alive and ends.

use std::borrow::Cow;

use super::addresses::AddressRef;
use super::commands::Message;
use super::connection::{
    Admission, CloseCause, Connection, Detached, Handshake, Heartbeat, Opening, Phase, Terminating, Then, Unanswered,
};
use super::counted;
use super::driver::{Accepted, Detach, Driver, Provenance, Release, SlotKey};
use super::handover::{Arrival, Errand, Handover};
use super::identity::{Identity, Passport, Rates, Subject};
use super::intake::Decoded;
use super::worker::{DeflateSettings, Settings, Worker};
use crate::compress::{Agreement, Offer};
use crate::conn::{
    CloseReason, Decoder, Event, Head, HeadReader, HttpRefusal, Upgrade, is_http_2, parse_head_by, write_refusal,
};
use crate::frame::Opcode;
use crate::limits::{CLOSE_MS_MAX, READ_BYTES, RETRY_AFTER_S_MAX};
use crate::metrics::{Ending, NodeMetrics};
use crate::router::JoinReply;
use crate::time::Millis;

/// RFC 6455 §4.1: a client waits for the answer before it sends frames.
pub(super) const TOO_EARLY: HttpRefusal = HttpRefusal::Bad("frames were sent before the handshake was complete");

impl<D: Driver> Worker<D> {
    /// A client has connected; its request is awaited.
    pub(super) fn accept(&mut self, accepted: Accepted<D::Stream>) {
        let Accepted { stream, listener, remote } = accepted;
        let provenance = Provenance { listener, remote, proxied: false };
        let arrival = Arrival { provenance, is_unnamed: false };
        let Ok(address) = self.welcome(provenance) else { return };
        if !self.take_socket() {
            self.leave_address(address, Admission::Socket);
            // It may ask about health, for which descriptors are kept back. Nothing else is answered there.
            return (self.http)(Handover { stream, read: Vec::new(), arrival, errand: Errand::FindOut });
        }
        self.seat(stream, arrival, address);
    }

    /// A socket that has its admission gets a slot, where its request is awaited; `None` where the driver does not take it.
    pub(super) fn seat(&mut self, stream: D::Stream, arrival: Arrival, address: Option<AddressRef>) -> Option<SlotKey> {
        let until = self.now.saturating_add(self.settings.handshake_ms_max);
        let handshake = Handshake { reader: HeadReader::default(), arrival, until };
        let slot = self.connections.sessions.insert(handshake, self.now, address);
        if self.driver.attach(slot, stream).is_err() {
            self.free(slot);
            return None;
        }
        self.arm(slot);
        Some(slot)
    }

    /// Bytes have come on a connection.
    #[inline]
    pub(super) fn received(&mut self, slot: SlotKey, bytes: &mut [u8]) {
        let now = self.now;
        self.connections.counts.bytes_in += bytes.len() as u64;
        let Some(connection) = self.connections.get_mut(slot) else { return };
        connection.heartbeat.heard_at = now;
        if connection.intake.is_paused() {
            return self.keep_input(slot, bytes);
        }
        match connection.phase() {
            Phase::Json | Phase::Raw { .. } | Phase::Closing { .. } => self.frames_received(slot, bytes),
            Phase::Handshake(_) => self.head_received(slot, bytes),
            // Or the driver had them before it heard that the socket is to go elsewhere.
            Phase::Authorizing(_) | Phase::Opening(_) | Phase::Terminating(Terminating::Detached(_)) => {
                self.keep_received(slot, bytes)
            }
            Phase::Quiescing(_)
            | Phase::Leaving { .. }
            | Phase::Lingering { .. }
            | Phase::Terminating(Terminating::Released) => {}
        }
    }

    /// Bytes have come that are for later.
    fn keep_received(&mut self, slot: SlotKey, bytes: &[u8]) {
        let Some(connection) = self.connections.get_mut(slot) else { return };
        let Some(kept) = connection.kept_mut() else { return };
        kept.extend_from_slice(bytes);
        let kept_bytes = kept.len();
        if connection.early_bytes_max().is_some_and(|bytes_max| kept_bytes > bytes_max) {
            return self.refuse(slot, TOO_EARLY);
        }
        self.connections.sessions.count_partial(slot);
    }

    /// A connection is open: its heartbeat begins, and what it sent early is taken.
    pub(super) fn opened(&mut self, slot: SlotKey, early: &mut [u8]) {
        let ping_at = self.next_ping_at();
        let now = self.now;
        let Some(connection) = self.connections.get_mut(slot).filter(|connection| connection.is_open()) else { return };
        connection.heartbeat = Heartbeat { heard_at: now, ping_at, unanswered: Unanswered::default() };
        self.arm(slot);
        match early {
            [] => self.connections.sessions.count_partial(slot),
            early => self.frames_received(slot, early),
        }
    }

    /// A deadline of this connection may have come.
    pub(super) fn timer(&mut self, slot: SlotKey) {
        let now = self.now;
        let Some(connection) = self.connections.get_mut(slot) else { return };
        match connection.phase() {
            Phase::Handshake(handshake) if handshake.until <= now => self.refuse(slot, HttpRefusal::Timeout),
            Phase::Authorizing(authorizing) if authorizing.until <= now => {
                let retry_after_s = self.random.u32(1..=RETRY_AFTER_S_MAX);
                self.refuse(slot, HttpRefusal::Undecided { retry_after_s });
            }
            Phase::Opening(opening) if opening.until <= now => {
                let refusal = self.at_capacity();
                self.refuse(slot, refusal);
            }
            Phase::Closing { until } | Phase::Leaving { until, .. } | Phase::Lingering { until } if *until <= now => {
                self.release(slot);
            }
            Phase::Quiescing(quiescing) if quiescing.until <= now => self.quiesced(slot),
            Phase::Json | Phase::Raw { .. } => self.heartbeat(slot),
            Phase::Handshake(_)
            | Phase::Authorizing(_)
            | Phase::Opening(_)
            | Phase::Quiescing(_)
            | Phase::Closing { .. }
            | Phase::Leaving { .. }
            | Phase::Lingering { .. }
            | Phase::Terminating(_) => self.arm(slot),
        }
    }

    /// Sets the timer to the connection's next deadline, unless it goes off earlier anyway.
    pub(super) fn arm(&mut self, slot: SlotKey) {
        let Some(connection) = self.connections.get(slot) else { return };
        let Some(at) = self.deadline(slot, connection) else { return };
        if self.wheel.armed_at(slot.slot()).is_none_or(|armed| at < armed) {
            self.wheel.arm(slot.slot(), at);
        }
    }

    /// Ends an open connection with a close frame, and awaits the peer's.
    pub(super) fn close(&mut self, slot: SlotKey, reason: CloseReason) {
        let ending = ending_of(reason);
        let back_ms = match reason {
            CloseReason::GoingAway { retry_ms } => u32::try_from(retry_ms).unwrap_or(u32::MAX),
            CloseReason::Peer(_)
            | CloseReason::AtCapacity
            | CloseReason::TooManyItems
            | CloseReason::Unavailable
            | CloseReason::SlowConsumer
            | CloseReason::Disconnected
            | CloseReason::Expired
            | CloseReason::TooManyConnections
            | CloseReason::Replaced => 0,
        };
        self.ended(slot, ending, back_ms);
        if reason == CloseReason::SlowConsumer
            && let Some(connection) = self.connections.sessions.get_mut(slot)
        {
            self.connections.egress.drop_queue(connection);
        }
        self.connections.own_frames(slot, |frames| reason.encode(frames));
        let until = self.now.saturating_add(CLOSE_MS_MAX);
        let Some(connection) = self.connections.get_mut(slot) else { return };
        match reason {
            CloseReason::GoingAway { .. }
            | CloseReason::SlowConsumer
            | CloseReason::Disconnected
            | CloseReason::Expired
            | CloseReason::TooManyConnections
            | CloseReason::Replaced => {
                connection.close(until);
            }
            // What the peer sends has no meaning any more (RFC 6455 §7.1.7), or there is no room for it.
            CloseReason::Peer(_) | CloseReason::AtCapacity | CloseReason::TooManyItems | CloseReason::Unavailable => {
                connection.leave(until, Then::Linger);
                connection.decoder = Decoder::default();
                self.connections.sessions.count_partial(slot);
            }
        }
        tracing::debug!(reactor = self.me.0, slot = slot.slot(), reason = ending.name(), "closing");
        self.resume_to_close(slot);
        self.arm(slot);
    }

    /// A connection is ended from elsewhere. The order may come twice, or to one that is about to end by itself.
    pub(super) fn dismissed(&mut self, slot: SlotKey, reason: CloseReason) {
        let Some(connection) = self.connections.get(slot) else { return };
        match connection.phase() {
            Phase::Json | Phase::Raw { .. } => self.close(slot, reason),
            Phase::Opening(_) => self.refuse(slot, HttpRefusal::Forbidden("disconnected by an operator")),
            Phase::Handshake(_)
            | Phase::Authorizing(_)
            | Phase::Quiescing(_)
            | Phase::Closing { .. }
            | Phase::Leaving { .. }
            | Phase::Lingering { .. }
            | Phase::Terminating(_) => {}
        }
    }

    /// The socket is closed; the slot is free now, or when the driver says so.
    pub(super) fn release(&mut self, slot: SlotKey) {
        self.release_as(slot, Ending::Lost);
    }

    /// As [`Worker::release`]; an open connection ends like this.
    pub(super) fn release_as(&mut self, slot: SlotKey, ending: Ending) {
        if self.connections.get(slot).is_none_or(|connection| matches!(connection.phase(), Phase::Terminating(_))) {
            return;
        }
        self.ended(slot, ending, 0);
        self.wheel.disarm(slot.slot());
        match self.driver.release(slot) {
            Release::Done => self.free(slot),
            Release::Later => self.connections.sessions.terminate(slot, Terminating::Released),
        }
    }

    /// Nothing of a connection is under way any more: its slot is free, and its admission another's.
    pub(super) fn free(&mut self, slot: SlotKey) {
        let connection = self.connections.sessions.remove(slot);
        self.give_permits(&connection);
    }

    /// The driver has nothing more of a connection that was to be released, or has lost a socket that was to be handed over.
    pub(super) fn released(&mut self, slot: SlotKey) {
        let connection = self.connections.get(slot);
        if connection.is_some_and(|connection| matches!(connection.phase(), Phase::Terminating(_))) {
            self.free(slot);
        }
    }

    /// The driver gives out a socket that is to be handed over.
    pub(super) fn detached(&mut self, slot: SlotKey, stream: D::Stream) {
        if let Some((read, arrival)) = self.connections.get_mut(slot).and_then(Connection::take_detached) {
            self.free(slot);
            (self.http)(Handover { stream, read, arrival, errand: Errand::Serve });
        }
    }

    /// If it was open, this was its end; what it was a member of hears of it, and within how many milliseconds the client was
    /// told to come back.
    fn ended(&mut self, slot: SlotKey, ending: Ending, back_ms: u32) {
        if self.connections.get(slot).is_some_and(Connection::is_open) {
            self.connections.counts.connections -= 1;
            self.connections.counts.endings.count(ending);
        }
        self.leave_topics(slot, back_ms);
    }

    /// Nothing is delivered to this connection any more, and its rooms hear that it left.
    fn leave_topics(&mut self, slot: SlotKey, back_ms: u32) {
        if self.connections.get(slot).is_none() {
            return;
        }
        let id = self.connections.id(slot);
        self.router.send_away(id, back_ms, &mut self.connections);
    }

    fn head_received(&mut self, slot: SlotKey, bytes: &[u8]) {
        let Some(handshake) = self.connections.get_mut(slot).and_then(Connection::handshake_mut) else { return };
        let Handshake { reader, until, arrival } = handshake;
        let (arrival, until) = (*arrival, *until);
        let provenance = arrival.provenance;
        let (bytes, head_bytes) = match reader.push(bytes, self.settings.head) {
            Ok(None) => return self.connections.sessions.count_partial(slot),
            Ok(Some(complete)) => complete,
            Err(refusal) => {
                tracing::debug!(reactor = self.me.0, ?provenance, "no request head");
                return self.refuse(slot, refusal);
            }
        };
        if is_http_2(&bytes[..head_bytes]) {
            return self.hand_over(slot, bytes, arrival);
        }
        let Settings { head, gate, .. } = &self.settings;
        let head = match parse_head_by(&bytes[..head_bytes], *head, &gate.head_rules()) {
            Ok(head) => head,
            Err(refusal) => {
                tracing::debug!(reactor = self.me.0, ?provenance, "no good request");
                return self.refuse(slot, refusal);
            }
        };
        let provenance = match self.trace(slot, arrival, &bytes[..head_bytes]) {
            Ok(provenance) => provenance,
            // A socket that counts for no address does not stay: a proxy reads on, whatever its client does.
            Err(refusal) => return self.refuse_then(slot, refusal, Then::Release),
        };
        match head {
            Head::Upgrade(_) if self.settings.gate.pages_only.contains(&provenance.listener) => {
                self.refuse(slot, HttpRefusal::PagesOnly);
            }
            Head::Upgrade(upgrade) => {
                self.admit(slot, upgrade, bytes[head_bytes..].to_vec(), until, provenance);
                self.connections.sessions.count_partial(slot);
            }
            Head::Http => self.hand_over(slot, bytes, arrival),
        }
    }

    /// A request is plain HTTP: its socket goes to the threads of that.
    fn hand_over(&mut self, slot: SlotKey, read: Vec<u8>, arrival: Arrival) {
        self.wheel.disarm(slot.slot());
        match self.driver.detach(slot) {
            Detach::Done(stream) => {
                (self.http)(Handover { stream, read, arrival, errand: Errand::Serve });
                self.free(slot);
            }
            Detach::Later => {
                let detached = Box::new(Detached { read, arrival });
                self.connections.sessions.terminate(slot, Terminating::Detached(detached));
            }
            Detach::Lost => self.free(slot),
        }
    }

    /// The request is good: the connection is admitted and joins its first topic.
    pub(super) fn upgrade(
        &mut self,
        slot: SlotKey,
        upgrade: Upgrade,
        early: Vec<u8>,
        until: Millis,
        passport: Passport,
        may_publish: Option<bool>,
    ) {
        let raw = match self.raw_entry(&upgrade.target) {
            Ok(raw) => raw,
            Err(refusal) => return self.refuse(slot, refusal),
        };
        if let Err(refusal) = self.admit_to_memory(slot, &passport) {
            return self.refuse(slot, refusal);
        }
        if !NodeMetrics::take_permit(&self.node.metrics.connections, self.settings.connections_max) {
            let refusal = self.at_capacity();
            return self.refuse(slot, refusal);
        }
        if let Err(refusal) = self.admit_address(slot) {
            NodeMetrics::give_permit(&self.node.metrics.connections);
            return self.refuse(slot, refusal);
        }
        let id = self.connections.id(slot);
        let Settings { messages_per_second, bytes_per_second, .. } = self.settings;
        let rates = Rates { messages: messages_per_second, bytes: bytes_per_second };
        let (random, codec) = (&mut self.random, self.connections.codec());
        let jitter = |most_ms| random.u64(0..=most_ms);
        let identity =
            Identity::new(&upgrade.target, passport, || codec.encode(id), rates, self.now, jitter, may_publish);
        let subject = identity.subject.clone();
        let Some(connection) = self.connections.get_mut(slot) else { return };
        let offer = upgrade.offer;
        let (messages, reply) = raw.map_or((None, JoinReply::Silent), |raw| (Some(raw.messages), raw.reply));
        connection.begin_opening(Opening { upgrade, identity, raw: messages, early, until });
        if let Some(agreement) = offer.and_then(|offer| self.agree(offer)) {
            self.connections.sessions.set_agreement(slot, agreement);
        }
        match subject {
            Subject::User(user) => self.router.connect(id, &user, &mut self.connections),
            Subject::RawRoom(room) => self.router.connect_raw(id, &room, reply, &mut self.connections),
            // The router has nothing to do with it.
            Subject::Echo => self.connections.open(id, None),
        }
    }

    /// What an offer of compression comes to. Where the node has no room for one more client's earlier messages, this one
    /// is told not to refer to them.
    fn agree(&self, offer: Offer) -> Option<Agreement> {
        let DeflateSettings { client_bits_max, contexts_max, memory_bytes_max, .. } = self.settings.deflate?;
        let agreement = offer.agree(client_bits_max);
        let bytes = agreement.history_bytes_max();
        match bytes == 0 || self.node.metrics.take_context(bytes, contexts_max, memory_bytes_max) {
            true => Some(agreement),
            false => Some(agreement.without_takeover()),
        }
    }

    /// Answers a request that does not become a connection; what the client sent behind it is thrown away.
    pub(super) fn refuse(&mut self, slot: SlotKey, refusal: HttpRefusal) {
        self.refuse_then(slot, refusal, Then::Linger);
    }

    /// As [`Worker::refuse`]; `then` follows when the answer is out.
    fn refuse_then(&mut self, slot: SlotKey, refusal: HttpRefusal, then: Then) {
        self.leave_topics(slot, 0);
        self.connections.counts.request_refusals.count(counted::request_refusal(refusal));
        self.connections.response(slot, |response| write_refusal(response, refusal));
        let until = self.now.saturating_add(CLOSE_MS_MAX);
        if let Some(connection) = self.connections.get_mut(slot) {
            connection.leave(until, then);
        }
        self.connections.sessions.count_partial(slot);
        self.arm(slot);
    }

    #[inline]
    fn frames_received(&mut self, slot: SlotKey, bytes: &mut [u8]) {
        if let Decoded::Part { left_bytes } = self.take_frames(slot, bytes) {
            let left = bytes[bytes.len() - left_bytes..].to_vec();
            self.pause(slot, left, 0);
        }
        self.connections.sessions.count_partial(slot);
    }

    /// Decodes and handles what came, until the connection's share of this turn is used up.
    #[inline]
    pub(super) fn take_frames(&mut self, slot: SlotKey, bytes: &mut [u8]) -> Decoded {
        let mut input = bytes;
        let work_before = self.connections.egress.work_bytes();
        loop {
            let work_bytes = self.connections.egress.work_bytes() - work_before;
            let Some(connection) = self.connections.get_mut(slot) else { return Decoded::All };
            let open = match connection.phase() {
                Phase::Json | Phase::Raw { .. } => true,
                Phase::Closing { .. } => false,
                Phase::Handshake(_)
                | Phase::Authorizing(_)
                | Phase::Opening(_)
                | Phase::Quiescing(_)
                | Phase::Leaving { .. }
                | Phase::Lingering { .. }
                | Phase::Terminating(_) => return Decoded::All,
            };
            if open && connection.is_over_share(work_bytes, self.settings.intake_bytes_max) {
                return Decoded::Part { left_bytes: input.len() };
            }
            match connection.decoder.next(&mut input, self.settings.message, &mut self.inflaters) {
                Ok(None) => return Decoded::All,
                Ok(Some(Event::Text(text))) if open => {
                    self.message(slot, Message::Text(&text));
                    if let Cow::Owned(text) = text {
                        self.connections.egress.count_work(text.len());
                        self.inflaters.recycle(text.into_bytes(), READ_BYTES);
                    }
                }
                Ok(Some(Event::Binary(bytes))) if open => {
                    self.message(slot, Message::Binary(&bytes));
                    if let Cow::Owned(bytes) = bytes {
                        self.connections.egress.count_work(bytes.len());
                        self.inflaters.recycle(bytes, READ_BYTES);
                    }
                }
                Ok(Some(Event::Ping(payload))) if open => self.ping(slot, &payload),
                Ok(Some(Event::Pong)) if open => self.pong(slot),
                Ok(Some(Event::Text(_) | Event::Binary(_) | Event::Ping(_) | Event::Pong)) => {}
                Ok(Some(Event::Close(code))) if open => {
                    self.quiesce(slot, CloseCause::Close(code));
                    return Decoded::All;
                }
                Ok(Some(Event::Close(code))) => {
                    self.peer_closed(slot, false, code);
                    return Decoded::All;
                }
                Err(error) if open => {
                    self.quiesce(slot, CloseCause::Error(error));
                    return Decoded::All;
                }
                Err(_) => {
                    self.release(slot);
                    return Decoded::All;
                }
            }
        }
    }

    /// The peer has closed or broken a rule. What it sent before may still be on its way through other reactors: it gets what
    /// comes of that first (RFC 6455 §5.5.1 allows an endpoint to finish what it is sending).
    pub(super) fn quiesce(&mut self, slot: SlotKey, cause: CloseCause) {
        let id = self.connections.id(slot);
        let has_published = self.connections.get(slot).is_some_and(|connection| connection.has_published);
        let awaited = if has_published { self.router.fence(id, &mut self.connections) } else { 0 };
        if awaited == 0 {
            return self.end_because(slot, cause);
        }
        let Some(connection) = self.connections.get_mut(slot) else { return };
        connection.quiesce(cause, awaited, self.now.saturating_add(CLOSE_MS_MAX));
        self.connections.sessions.count_partial(slot);
        self.arm(slot);
    }

    /// All it sent has been answered, or took too long.
    pub(super) fn quiesced(&mut self, slot: SlotKey) {
        if let Some(Phase::Quiescing(quiescing)) = self.connections.get(slot).map(Connection::phase) {
            let cause = quiescing.cause;
            self.end_because(slot, cause);
        }
    }

    fn end_because(&mut self, slot: SlotKey, cause: CloseCause) {
        match cause {
            CloseCause::Close(code) => self.peer_closed(slot, true, code),
            CloseCause::Error(error) => self.close(slot, CloseReason::Peer(error)),
        }
    }

    /// The peer's close frame: answered where it came first (RFC 6455 §5.5.1); then nothing is left to say.
    fn peer_closed(&mut self, slot: SlotKey, first: bool, code: Option<u16>) {
        self.ended(slot, Ending::Client, 0);
        if first {
            self.connections.own_frames(slot, |frames| match code {
                Some(code) => crate::conn::close_payload(frames, code, ""),
                None => crate::frame::encode_header(frames, Opcode::Close, 0),
            });
        }
        self.connections.mark_dirty(slot);
        let until = self.now.saturating_add(CLOSE_MS_MAX);
        if let Some(connection) = self.connections.get_mut(slot) {
            connection.leave(until, Then::Release);
        }
        self.arm(slot);
    }

    /// What a connection's timer is for now, if it has one.
    fn deadline(&self, slot: SlotKey, connection: &Connection) -> Option<Millis> {
        match connection.phase() {
            Phase::Handshake(handshake) => Some(handshake.until),
            Phase::Authorizing(authorizing) => Some(authorizing.until),
            Phase::Opening(opening) => Some(opening.until),
            Phase::Quiescing(quiescing) => Some(quiescing.until),
            Phase::Closing { until } | Phase::Leaving { until, .. } | Phase::Lingering { until } => Some(*until),
            Phase::Terminating(_) => None,
            Phase::Json | Phase::Raw { .. } => {
                let Heartbeat { ping_at, unanswered, .. } = connection.heartbeat;
                let silent_at = unanswered.pinged().map(|pinged| pinged.saturating_add(self.settings.heartbeat_ms));
                let progress = connection.outbox.progress_at();
                let stuck_at = progress.map(|at| at.saturating_add(self.settings.outbox_age_ms_max));
                [Some(ping_at), silent_at, stuck_at, self.expiry_at(slot)].into_iter().flatten().min()
            }
        }
    }

    /// An open connection's timer went off: it is silent, stuck, due for a ping, or the timer was early.
    fn heartbeat(&mut self, slot: SlotKey) {
        if self.expire(slot) {
            return;
        }
        let now = self.now;
        let interval_ms = self.settings.heartbeat_ms;
        let ping_at = self.next_ping_at();
        let spilled = self.spilled;
        let Some(connection) = self.connections.get_mut(slot) else { return };
        let reading_paused = spilled || connection.intake.is_paused();
        let heartbeat = &mut connection.heartbeat;
        if let Some(pinged) = heartbeat.unanswered.pinged() {
            if heartbeat.heard_at >= pinged {
                heartbeat.unanswered = Unanswered::default();
            } else if reading_paused {
                // It may have answered: its socket was not read.
                heartbeat.unanswered = Unanswered::since(now);
            } else if pinged.saturating_add(interval_ms) <= now {
                tracing::debug!(
                    reactor = self.me.0,
                    slot = slot.slot(),
                    "nothing came after a ping for a whole interval"
                );
                return self.release_as(slot, Ending::Silent);
            }
        }
        let stuck = connection.outbox.progress_at().is_some_and(|at| now.since(at) >= self.settings.outbox_age_ms_max);
        if stuck {
            return self.close(slot, CloseReason::SlowConsumer);
        }
        if heartbeat.ping_at <= now {
            heartbeat.ping_at = ping_at;
            if heartbeat.unanswered.pinged().is_none() {
                heartbeat.unanswered = Unanswered::since(now);
            }
            self.connections.ping(slot);
        }
        self.arm(slot);
    }

    /// The interval less up to a tenth, so that connections do not ping in step.
    fn next_ping_at(&mut self) -> Millis {
        let interval_ms = self.settings.heartbeat_ms;
        let jitter_ms = self.random.u64(0..=interval_ms / 10);
        self.now.saturating_add(interval_ms - jitter_ms)
    }

    pub(super) fn too_many(&mut self) -> HttpRefusal {
        HttpRefusal::TooMany { retry_after_s: self.random.u32(1..=RETRY_AFTER_S_MAX) }
    }

    pub(super) fn at_capacity(&mut self) -> HttpRefusal {
        HttpRefusal::AtCapacity { retry_after_s: self.random.u32(1..=RETRY_AFTER_S_MAX) }
    }
}

/// Under which word a close is counted.
pub(super) fn ending_of(reason: CloseReason) -> Ending {
    match reason {
        CloseReason::GoingAway { .. } => Ending::GoingAway,
        CloseReason::AtCapacity | CloseReason::TooManyItems | CloseReason::Unavailable => Ending::AtCapacity,
        CloseReason::SlowConsumer => Ending::SlowConsumer,
        CloseReason::Disconnected | CloseReason::TooManyConnections => Ending::Policy,
        CloseReason::Expired => Ending::Expired,
        CloseReason::Replaced => Ending::Replaced,
        CloseReason::Peer(error) => match u16::from(error.code()) {
            1007 => Ending::InvalidUtf8,
            1008 => Ending::Policy,
            1009 => Ending::TooBig,
            _ => Ending::ProtocolError,
        },
    }
}
