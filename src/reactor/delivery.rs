//! What the router has for this reactor's connections: batches to members, frames and answers to one connection.

use std::ops::Range;

use smallvec::SmallVec;

use super::connection::Room;
use super::connections::Connections;
use super::driver::SlotKey;
use super::egress::FanOut;
use crate::compress::{SharedFrame, WindowBits};
use crate::conn::{Cause, Chunk, CloseReason, FrameSource, Front};
use crate::frame::Opcode;
use crate::ids::{ConnId, Slot};
use crate::limits::SCRAP_FACTOR;
use crate::protocol::{self, ErrorCode, Rejection};
use crate::router::{
    Answer, Batch, BatchBody, Described, Excluded, KeyedAnswer, Sink, Slice, StaleUpdates, TooManyItems,
};
use crate::time::Stamp;

/// One form of a batch: its index, and what of it single members are not to get.
struct Form {
    batch: u32,
    excluded: SmallVec<[Excluded; 1]>,
}

impl Form {
    /// The parts of a batch of `end` bytes that a connection has not sent itself, some of them empty.
    fn others(&self, conn: ConnId, end: usize) -> impl Iterator<Item = Range<usize>> {
        let own = self.excluded.iter().filter(move |excluded| excluded.conn == conn);
        let cuts = own.map(|own| (own.start as usize, own.end as usize)).chain([(end, end)]);
        cuts.scan(0, |from, (start, next)| Some(std::mem::replace(from, next)..start))
    }
}

/// All forms of a batch that were needed: plain, and compressed for each window that a member has.
struct Forms {
    plain: Form,
    deflated: SmallVec<[(WindowBits, Form); 1]>,
    /// Frames that are compressed once for all reactors.
    shared: Vec<(u32, SharedFrame)>,
}

/// Messages of a history as one connection gets them.
#[derive(Debug)]
struct Recovered {
    slice: Slice,
    /// How many of them were sent.
    next: usize,
    /// The window for which all that are worth it were compressed before: what is not yet is not for a recovery.
    bits: Option<WindowBits>,
}

impl Recovered {
    fn new(slice: Slice, bits: Option<WindowBits>) -> Recovered {
        let bits = bits.filter(|&bits| slice.frames().iter().all(|frame| frame.made(bits).is_some()));
        Recovered { slice, next: 0, bits }
    }
}

impl FrameSource for Recovered {
    fn pull(&mut self, _front: Front, frames_max: usize) -> usize {
        frames_max.min(self.slice.frames().len() - self.next)
    }

    fn frame(&self, at: usize) -> &[u8] {
        let frame = &self.slice.frames()[self.next + at];
        self.bits.and_then(|bits| frame.made(bits)).unwrap_or_else(|| frame.plain())
    }

    fn advance(&mut self, frames: usize) {
        self.next += frames;
    }

    fn reference_bytes(&self) -> usize {
        size_of_val(self.slice.frames())
    }
}

impl Sink for Connections {
    fn deliver(&mut self, batch: Batch, members: &[Slot]) {
        let Batch { body, frames, excluded, compressible, published_at, mut shared, round } = batch;
        if let (true, BatchBody::Frame(frame)) = (compressible, &body) {
            shared.push((0, frame.clone()));
        }
        let fan_out = FanOut { messages: frames, members: members.len() as u32, published_at };
        let is_round = round.is_some();
        let plain = self.egress.push_batch(body, fan_out, round);
        let deliveries = u64::from(frames) * members.len() as u64;
        self.counts.messages_out += deliveries;
        self.counts.deliveries += deliveries;
        self.mark_excluded(&excluded, true);
        let mut forms = Forms { plain: Form { batch: plain, excluded }, deflated: SmallVec::new(), shared };
        for &member in members {
            let form = match compressible {
                true => self.form(&mut forms, self.sessions.member(member), members),
                false => &forms.plain,
            };
            let (slot, connection) = self.sessions.member_mut(member);
            if is_round {
                self.egress.note_round(connection, slot);
            }
            if self.egress.note_batch(connection, slot, form.batch) {
                continue;
            }
            match connection.excluded_from_batch {
                true => self.deliver_parts(slot, form),
                false => {
                    self.egress.queue_batch(connection, 0);
                    self.egress.note_batch(connection, slot, form.batch);
                }
            }
        }
        self.mark_excluded(&forms.plain.excluded, false);
    }

    fn takes_rounds(&self, member: Slot) -> bool {
        let connection = self.get(self.sessions.member(member));
        connection.is_some_and(|connection| connection.is_open() && connection.room == Room::Some)
    }

    fn recover(&mut self, to: ConnId, slice: Slice) {
        let (slot, now) = (SlotKey::from(to), self.now);
        let Some(connection) = self.get(slot).filter(|connection| connection.is_open()) else { return };
        let bits = connection.agreement.map(|agreement| agreement.server_bits);
        let messages = slice.frames().len() as u64;
        self.counts.messages_out += messages;
        self.counts.deliveries += messages;
        self.queue_batch(slot, 0);
        let recovered = Box::new(Recovered::new(slice, bits));
        if let Some(connection) = self.get_mut(slot) {
            connection.outbox.push_source(recovered, now);
        }
        self.mark_dirty(slot);
    }

    fn direct(&mut self, to: ConnId, frame: &[u8], published_at: Stamp) {
        if self.get(to.into()).is_some_and(|connection| connection.is_json()) {
            self.egress.count_direct(published_at);
            self.counts.messages_out += 1;
            self.counts.deliveries += 1;
            self.own_frame(to.into(), frame, Cause::Others);
        }
    }

    fn reply(&mut self, to: ConnId, frame: &[u8]) {
        if self.get(to.into()).is_some_and(|connection| connection.is_json()) {
            self.counts.messages_out += 1;
            self.own_frame(to.into(), frame, Cause::Own);
        }
    }

    fn answer(&mut self, to: ConnId, answer: Answer<'_>) {
        let slot = SlotKey::from(to);
        let Some(connection) = self.get(slot) else { return };
        let open = connection.is_open();
        match answer {
            Answer::Connected { inbox } => self.open(to, inbox),
            Answer::Joined { id, room, position, recovered } if open => {
                self.message(slot, |out| protocol::joined(out, id, room, position, recovered));
            }
            // A raw room has no words for an error: there is only the end.
            Answer::Keyed(KeyedAnswer::Refused { .. }) if connection.is_raw() => {
                self.sessions.dismiss(slot, CloseReason::TooManyItems);
            }
            Answer::Unavailable { .. } if connection.is_raw() => match open {
                true => self.sessions.dismiss(slot, CloseReason::Unavailable),
                false => self.open_to_close(to, CloseReason::Unavailable),
            },
            Answer::Keyed(answer) if open => self.keyed_answer(slot, &answer),
            Answer::Resumed { id, position, recovered } if open => {
                self.message(slot, |out| protocol::resumed(out, id, position, recovered));
            }
            Answer::Acked { id, position } if open => {
                self.message(slot, |out| protocol::ack(out, id, position));
            }
            Answer::Unavailable { id, room } if open => {
                let message = "Redis, or another node, does not answer in time: try again";
                let rejection = Rejection::new(id, ErrorCode::Unavailable, message);
                self.rejected(slot, &Rejection { room: room.map(Into::into), ..rejection });
            }
            Answer::Left { room, reason } if open => self.message(slot, |out| protocol::left(out, room, reason)),
            Answer::Forbidden { id, room } if open => {
                self.forbidden_room(slot, id, room);
            }
            Answer::Disconnected if open => self.sessions.dismiss(slot, CloseReason::Disconnected),
            Answer::Replaced if open => self.sessions.dismiss(slot, CloseReason::Replaced),
            Answer::Full => self.open_to_close(to, CloseReason::TooManyConnections),
            Answer::Fenced => self.fenced(slot),
            Answer::Joined { .. }
            | Answer::Keyed(_)
            | Answer::Resumed { .. }
            | Answer::Acked { .. }
            | Answer::Unavailable { .. }
            | Answer::Left { .. }
            | Answer::Forbidden { .. }
            | Answer::Disconnected
            | Answer::Replaced => {}
        }
    }

    fn disconnect(&mut self, user: &str) {
        self.sessions.dismiss_others(user, CloseReason::Disconnected);
    }

    fn describe(&self, conn: ConnId) -> Option<Described> {
        let slot = SlotKey::from(conn);
        self.get(slot).filter(|connection| connection.is_open())?;
        let since_unix_ms = self.unix_ms.saturating_sub(self.sessions.open_ms(slot, self.now));
        Some(Described { client_id: self.codec().encode(conn), since_unix_ms })
    }

    fn revoke(&mut self, user: &str, unix_s: u64) {
        self.revocations.force(user, unix_s);
    }
}

impl Connections {
    fn keyed_answer(&mut self, slot: SlotKey, answer: &KeyedAnswer<'_>) {
        match *answer {
            KeyedAnswer::Joined { id, room, position, recovered, interval_ms } => {
                let interval_ms = interval_ms.map(u64::from);
                self.message(slot, |out| protocol::joined_keyed(out, id, room, position, interval_ms, recovered));
            }
            KeyedAnswer::Gap { room, position } => self.message(slot, |out| protocol::gap(out, room, position)),
            KeyedAnswer::Tuned { id, position, interval_ms } => {
                self.message(slot, |out| protocol::tuned(out, id, position, interval_ms.map(u64::from)));
            }
            KeyedAnswer::NotJoined { id, room } => {
                let message = "only a subscription can be tuned: join the room first";
                let rejection = Rejection::new(id, ErrorCode::NotJoined, message).about(room.into());
                self.rejected(slot, &rejection);
            }
            KeyedAnswer::Refused { id, room, error: TooManyItems { index } } => {
                let message =
                    "the room, or the node, holds as many items, or bytes of them, as it may: remove some first";
                let rejection = Rejection::new(id, ErrorCode::TooManyItems, message).about(room.into());
                self.rejected(slot, &Rejection { index: index.map(|index| index as usize), ..rejection });
            }
            KeyedAnswer::Freshness { room, offset, is_stale } => {
                self.message(slot, |out| protocol::freshness(out, room, offset, is_stale));
            }
            KeyedAnswer::SnapshotEnd { position, recovered } => {
                self.frame(slot, Opcode::Binary, |out| {
                    protocol::raw_keyed(out, "", u64::from(recovered), position.offset, position.epoch.as_bytes());
                });
            }
            KeyedAnswer::Updated { id, position, stale } => {
                let stale = match stale {
                    StaleUpdates::One(is_stale) => protocol::Stale::One(*is_stale),
                    StaleUpdates::Of(indexes) => protocol::Stale::Of(indexes),
                };
                self.message(slot, |out| protocol::updated(out, id, position, stale));
            }
        }
    }

    /// The form of a batch that this connection gets, made when it is first needed.
    fn form<'f>(&mut self, forms: &'f mut Forms, slot: SlotKey, members: &[Slot]) -> &'f Form {
        let Some(agreement) = self.get(slot).and_then(|connection| connection.agreement) else { return &forms.plain };
        let bits = agreement.server_bits;
        let at = match forms.deflated.iter().position(|(window, _)| *window == bits) {
            Some(at) => at,
            None => {
                let mut excluded = forms.plain.excluded.clone();
                let reader = match excluded.is_empty() {
                    true => None,
                    false => self.only_reader(bits, members),
                };
                let batch = self.egress.compress_batch(forms.plain.batch, bits, &forms.shared, &mut excluded, reader);
                forms.deflated.push((bits, Form { batch, excluded }));
                forms.deflated.len() - 1
            }
        };
        &forms.deflated[at].1
    }

    /// The member with this window, where there is but one.
    fn only_reader(&self, bits: WindowBits, members: &[Slot]) -> Option<ConnId> {
        let reads = |&&member: &&Slot| {
            let agreement = self.get(self.sessions.member(member)).and_then(|connection| connection.agreement);
            agreement.is_some_and(|agreement| agreement.server_bits == bits)
        };
        let mut readers = members.iter().filter(reads);
        match (readers.next(), readers.next()) {
            (Some(&only), None) => Some(self.id(self.sessions.member(only))),
            (_, _) => None,
        }
    }

    /// Notes which connections get only parts of a batch, or forgets it again.
    fn mark_excluded(&mut self, excluded: &[Excluded], excluded_from_batch: bool) {
        for excluded in excluded {
            if excluded.conn.reactor == self.sessions.reactor()
                && let Some(connection) = self.get_mut(excluded.conn.into())
            {
                connection.excluded_from_batch = excluded_from_batch;
            }
        }
    }

    /// A member that sent some of a batch's frames gets the others, part by part.
    fn deliver_parts(&mut self, slot: SlotKey, form: &Form) {
        let id = self.id(slot);
        let own = || form.excluded.iter().filter(|excluded| excluded.conn == id);
        let own_messages = own().count() as u64;
        self.counts.messages_out -= own_messages;
        self.counts.deliveries -= own_messages;
        let own_bytes: usize = own().map(|own| (own.end - own.start) as usize).sum();
        let end = self.egress.batch_bytes(form.batch).len();
        if own_bytes == end {
            return;
        }
        self.queue_batch(slot, 0);
        let segment = match (end - own_bytes) * SCRAP_FACTOR < end {
            true => return self.deliver_scraps(slot, form),
            false => self.egress.batch_segment(form.batch),
        };
        let now = self.now;
        let Some(connection) = self.get_mut(slot) else { return };
        for others in form.others(id, end) {
            connection.outbox.push(Chunk::new(segment.clone(), others.start, others.end), now);
        }
        self.mark_dirty(slot);
    }

    /// The same, where the others' frames are few: they are copied, so that they do not hold the whole batch.
    fn deliver_scraps(&mut self, slot: SlotKey, form: &Form) {
        let id = self.id(slot);
        let batch = self.egress.batch_bytes(form.batch);
        let mut bytes = Vec::new();
        for others in form.others(id, batch.len()) {
            bytes.extend_from_slice(&batch[others]);
        }
        if let Some(connection) = self.sessions.get_mut(slot) {
            self.egress.queue_copy(connection, bytes);
            self.egress.mark_dirty(connection, slot);
        }
    }
}
