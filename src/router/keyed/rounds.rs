//! What keyed rooms send when a turn ends: batches of each update, rounds, and pieces for those who lag.

use super::answer::KeyedAnswer;
use super::lag::{Entering, Promised, Tune};
use super::piece::Piece;
use super::schedule::Place;
use super::{Keyed, KeyedRoom};
use crate::ids::{ConnId, Slot};
use crate::limits::ROUND_BYTES_PER_TURN;
use crate::router::batch::Round;
use crate::router::batches::Batches;
use crate::router::topic::{Kind, TopicIndex, Topics};
use crate::router::{Answer, Sink};

/// Commands that waited until their subscriber was answered.
pub(super) type Waited = Vec<(TopicIndex, ConnId, Vec<Tune>)>;

impl Keyed {
    /// Sends what there is to send. What is more than a turn may send, the next ones do. Of subscribers that were answered,
    /// the commands that waited for that.
    pub(super) fn send(&mut self, topics: &Topics, batches: &mut Batches, sink: &mut impl Sink) -> Waited {
        self.schedule.compress_from_bytes = batches.compress_from_bytes();
        for place in std::mem::take(&mut self.schedule.open) {
            if let Some(room) = self.rooms.get_mut(&place.topic) {
                room.seal(place.cohort, sink);
            }
        }
        self.schedule.open_bytes = 0;
        self.send_rounds(topics, batches, sink);
        self.send_pieces(topics, batches, sink)
    }

    fn send_rounds(&mut self, topics: &Topics, batches: &mut Batches, sink: &mut impl Sink) {
        for _ in 0..self.schedule.ready.len() {
            // Those who lag have their part of the turn as well.
            if self.schedule.sent_bytes >= ROUND_BYTES_PER_TURN / 2 {
                return;
            }
            let Some(place) = self.schedule.ready.pop_front() else { return };
            self.go_on_with_round(place, topics, batches, sink);
        }
    }

    /// One piece of a round for all members of its cohort that can take it.
    fn go_on_with_round(&mut self, place: Place, topics: &Topics, batches: &mut Batches, sink: &mut impl Sink) {
        let Keyed { rooms, schedule, .. } = self;
        let Some(room) = rooms.get_mut(&place.topic) else { return };
        let target = room.items.last_offset();
        let Some(rounds) = room.rounds_mut(place.cohort) else { return };
        // Who lags gets the round in pieces of its own: where nobody else is there, the next one waits for it all the same.
        if rounds.begin(target) && room.raise_targets(place.cohort, target, schedule, sink) {
            room.sent(place.cohort, schedule);
        }
        room.part_with_slow(place.cohort, schedule, sink);
        let Some(rounds) = room.rounds_mut(place.cohort) else { return };
        let (since, target) = (rounds.since, rounds.target);
        let Some(cohort) = room.cohort(place.cohort) else { return };
        let mut reached = target;
        if !cohort.members.is_empty() {
            let mut piece = Piece::new(batches.take_buffer(), schedule.compress_from_bytes);
            reached = room.gather(cohort, since, target, None, &mut piece);
            if piece.is_empty() {
                batches.recycle(piece.into_buffer());
            } else {
                schedule.sent_bytes += piece.bytes();
                let topic = topics.get(place.topic).key.clone();
                sink.deliver(piece.into_batch(topic, since, schedule.published_at), &cohort.members);
                room.sent(place.cohort, schedule);
            }
        }
        let Some(rounds) = room.rounds_mut(place.cohort) else { return };
        rounds.since = reached;
        if reached < target {
            return schedule.ready.push_back(place);
        }
        rounds.end(place, schedule);
        room.rejoin_all(place.cohort, schedule);
    }

    fn send_pieces(&mut self, topics: &Topics, batches: &mut Batches, sink: &mut impl Sink) -> Waited {
        let mut waited = Waited::new();
        for _ in 0..self.schedule.catching_up.len() {
            if self.schedule.sent_bytes >= ROUND_BYTES_PER_TURN {
                break;
            }
            let Some((topic, slot, queued)) = self.schedule.catching_up.pop_front() else { break };
            if self.rooms.get_mut(&topic).is_some_and(|room| room.unqueue(slot, queued)) {
                self.catch_up(topic, slot, topics, batches, sink, &mut waited);
            }
        }
        waited
    }

    /// One piece for one subscriber; where it lacks nothing any more, what it was promised.
    fn catch_up(
        &mut self,
        index: TopicIndex,
        slot: Slot,
        topics: &Topics,
        batches: &mut Batches,
        sink: &mut impl Sink,
        waited: &mut Waited,
    ) {
        let Keyed { rooms, schedule, .. } = self;
        let Some(room) = rooms.get_mut(&index) else { return };
        // One whose socket is full is queued again when it takes bytes.
        if !sink.takes_rounds(slot) {
            return;
        }
        let is_raw = topics.get(index).key.kind == Kind::Raw;
        // A raw room says so with the end of the snapshot that follows.
        if let (Some(conn), false) = (room.begin_anew_if_lost(slot, is_raw), is_raw) {
            let (room_name, position) = (&topics.get(index).key.name, room.items.position());
            let gap = KeyedAnswer::Gap { room: room_name, position: position.in_epoch() };
            sink.answer(conn, Answer::Keyed(gap));
        }
        tell_owed_freshness(room, slot, topics, sink);
        let Some(lag) = room.lag(slot) else { return };
        if lag.since < lag.target {
            let mut piece = Piece::new(batches.take_buffer(), schedule.compress_from_bytes);
            match room.piece_for(slot, &mut piece) {
                Some(since) => {
                    schedule.sent_bytes += piece.bytes();
                    let topic = topics.get(index).key.clone();
                    sink.deliver(piece.into_batch(topic, since, schedule.published_at), &[slot]);
                    // Whether its socket has taken that is known when it is looked at next.
                    return room.queue_again(slot, schedule);
                }
                None => batches.recycle(piece.into_buffer()),
            }
        }
        if let Some((conn, entering)) = room.entered(slot, schedule) {
            let tunes = promise(room, conn, entering, topics, sink);
            if !tunes.is_empty() {
                waited.push((index, conn, tunes));
            }
        }
        tell_owed_freshness(room, slot, topics, sink);
        room.rejoin(slot, schedule);
    }

    /// A connection's socket took only the first `taken` frames of a round: the rest is not sent.
    pub(in crate::router) fn fell_behind(&mut self, index: TopicIndex, conn: ConnId, round: &Round, taken: usize) {
        let Keyed { rooms, schedule, .. } = self;
        let since = taken.checked_sub(1).map_or(round.since, |last| round.offsets[last]);
        if let Some(room) = rooms.get_mut(&index) {
            room.fell_behind(conn, since, schedule);
        }
    }

    /// The socket of a slot that lags takes bytes again.
    pub(in crate::router) fn takes_again(&mut self, slot: Slot) {
        let Keyed { rooms, schedule, .. } = self;
        for index in schedule.lags_in(slot) {
            if let Some(room) = rooms.get_mut(&index) {
                room.queue(slot, schedule);
            }
        }
    }

    /// Rounds whose time has come are ready.
    pub(super) fn wake_due(&mut self) {
        let Keyed { rooms, schedule, .. } = self;
        while let Some(&(at, place)) = schedule.due.first()
            && at <= schedule.now
        {
            schedule.due.pop_first();
            let room = rooms.get_mut(&place.topic);
            if let Some(rounds) = room.and_then(|room| room.rounds_mut(place.cohort)) {
                rounds.come_due(place, schedule);
            }
        }
    }
}

/// Tells one that lags whether something is published, where it has not heard of that.
fn tell_owed_freshness(room: &mut KeyedRoom, slot: Slot, topics: &Topics, sink: &mut impl Sink) {
    let is_stale = room.is_stale;
    if let Some((conn, offset)) = room.owed_freshness(slot) {
        let name = &topics.get(room.topic).key.name;
        sink.answer(conn, Answer::Keyed(KeyedAnswer::Freshness { room: name, offset, is_stale }));
    }
}

/// Tells a subscriber what it was promised; the commands that waited for that.
pub(super) fn promise(
    room: &KeyedRoom,
    conn: ConnId,
    entering: Entering,
    topics: &Topics,
    sink: &mut impl Sink,
) -> Vec<Tune> {
    let topic = &topics.get(room.topic).key;
    let position = room.position_of(conn);
    let interval_ms = room.interval_ms(conn);
    match entering.answer {
        Promised::Joined { id, recovered } => {
            let (id, position) = (id.as_deref(), position.in_epoch());
            let room_name = &topic.name;
            let joined = KeyedAnswer::Joined { id, room: room_name, position, recovered, interval_ms };
            sink.answer(conn, Answer::Keyed(joined));
            if room.is_stale {
                let told = KeyedAnswer::Freshness { room: room_name, offset: position.offset, is_stale: true };
                sink.answer(conn, Answer::Keyed(told));
            }
        }
        Promised::Tuned { id: Some(id) } => {
            let position = position.in_epoch();
            sink.answer(conn, Answer::Keyed(KeyedAnswer::Tuned { id: &id, position, interval_ms }));
        }
        Promised::Tuned { id: None } | Promised::Nothing => {}
        Promised::Raw { recovered } => {
            let position = position.in_epoch();
            sink.answer(conn, Answer::Keyed(KeyedAnswer::SnapshotEnd { position, recovered }));
        }
    }
    entering.tunes
}
