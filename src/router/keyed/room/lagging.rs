//! Subscribers of a room that have a position of their own: how they come to it, what they are sent, and how they get level
//! again.

use super::super::filter::ItemFilter;
use super::super::items::Item;
use super::super::lag::{Entering, Held, Lag, Promised};
use super::super::piece::Piece;
use super::super::schedule::{Queued, Schedule};
use super::{KeyedRoom, Standing, Sub};
use crate::ids::{ConnId, Slot};
use crate::router::Sink;

/// What a subscriber was not told while its socket was full.
#[derive(Clone, Copy, Debug, Default)]
pub(in super::super) struct Owed {
    /// Whether something is published; with this offset.
    pub(in super::super) freshness_at: Option<u64>,
    /// That what it was sent says nothing of the items any more.
    pub(in super::super) is_lost: bool,
}

impl KeyedRoom {
    /// What a subscriber waits for, if it waits for an answer.
    pub(in super::super) fn entering_mut(&mut self, conn: ConnId) -> Option<&mut Entering> {
        let lag = self.lags.get_mut(&conn.slot.0).filter(|lag| lag.conn == conn)?;
        lag.entering.as_deref_mut()
    }

    /// A socket took of a round only what is up to `since`.
    pub(in super::super) fn fell_behind(&mut self, conn: ConnId, since: u64, schedule: &mut Schedule) {
        let Some(sub) = self.sub(conn) else { return };
        match sub.standing {
            Standing::Lagging(_) => {
                let lag = self.lags.get_mut(&conn.slot.0).expect("who lags has a lag");
                lag.since = lag.since.min(since);
            }
            Standing::Member(_) => {
                let target = self.rounds(sub.cohort).map_or(since, |rounds| rounds.target);
                self.stand_down(conn.slot, schedule);
                self.stand_behind(Lag::new(conn, since, target, self.is_stale), schedule);
            }
        }
    }

    /// A member lags from now on.
    fn part_with(&mut self, slot: Slot, schedule: &mut Schedule) {
        let Some(&sub) = self.subs.get(&slot.0) else { return };
        let since = self.offset_of(slot, sub);
        let target = self.rounds(sub.cohort).map_or(since, |rounds| rounds.target.max(since));
        let conn = ConnId { reactor: schedule.me, slot, generation: sub.generation };
        self.stand_down(slot, schedule);
        self.stand_behind(Lag::new(conn, since, target, self.is_stale), schedule);
    }

    /// Nothing is published any more, or something is again: who is to be told of it now, each with the offset up to which it has
    /// been sent what it wants. Who lags is told when it is sent something, however often that changes meanwhile.
    pub(in super::super) fn set_freshness(
        &mut self,
        is_stale: bool,
        schedule: &mut Schedule,
        sink: &impl Sink,
    ) -> Vec<(ConnId, u64)> {
        let mut told = Vec::new();
        for slot in self.slots().collect::<Vec<_>>() {
            let sub = self.subs[&slot.0];
            match sub.standing {
                Standing::Member(_) if self.is_stalled(slot, sink) => self.part_with(slot, schedule),
                Standing::Member(_) => {
                    let conn = ConnId { reactor: schedule.me, slot, generation: sub.generation };
                    told.push((conn, self.offset_of(slot, sub)));
                }
                Standing::Lagging(_) => {}
            }
        }
        self.is_stale = is_stale;
        for slot in self.slots_that_take(sink) {
            self.queue(slot, schedule);
        }
        told
    }

    /// The same where nobody is told.
    pub(in super::super) fn set_freshness_silently(&mut self, is_stale: bool) {
        self.is_stale = is_stale;
        self.lags.values_mut().for_each(|lag| lag.told_stale = is_stale);
    }

    /// Whether one that lags is to be told now whether something is published, and with which offset: that something is, in
    /// front of what is; that nothing is, behind all that was.
    pub(in super::super) fn owed_freshness(&mut self, slot: Slot) -> Option<(ConnId, u64)> {
        let is_stale = self.is_stale;
        let lag = self.lags.get_mut(&slot.0).filter(|lag| lag.told_stale != is_stale)?;
        let is_level = lag.since == lag.target && lag.entering.is_none();
        (is_level || !is_stale).then(|| {
            lag.told_stale = is_stale;
            (lag.conn, lag.since)
        })
    }

    /// What a subscriber was not told while its socket was full, which it is told now.
    pub(in super::super) fn take_owed(&mut self, conn: ConnId) -> Owed {
        let is_stale = self.is_stale;
        let Some(lag) = self.lags.get_mut(&conn.slot.0).filter(|lag| lag.conn == conn) else { return Owed::default() };
        let freshness_at = (lag.told_stale != is_stale).then_some(lag.since);
        lag.told_stale = is_stale;
        Owed { freshness_at, is_lost: std::mem::take(&mut lag.is_lost) }
    }

    /// What subscribers were sent says nothing of the items any more: those whose sockets are full are told of it when they
    /// take bytes again, and begin anew then.
    pub(in super::super) fn lose_stalled(&mut self, schedule: &mut Schedule, sink: &impl Sink) {
        for slot in self.slots().collect::<Vec<_>>() {
            if !self.is_stalled(slot, sink) {
                continue;
            }
            if let Some(Sub { standing: Standing::Member(_), .. }) = self.subs.get(&slot.0) {
                self.part_with(slot, schedule);
            }
            if let Some(lag) = self.lags.get_mut(&slot.0) {
                lag.is_lost = true;
            }
        }
    }

    /// A subscriber that lags can take more.
    pub(in super::super) fn queue(&mut self, slot: Slot, schedule: &mut Schedule) {
        let Some(lag) = self.lags.get_mut(&slot.0) else { return };
        let is_told = !lag.is_lost && lag.told_stale == self.is_stale;
        if lag.queued.is_none() && (lag.since < lag.target || lag.entering.is_some() || !is_told) {
            lag.queued = Some(schedule.queue(self.topic, slot));
        }
    }

    /// A subscriber's place in the queue has come: whether it is still the one that it has. It has none any more.
    pub(in super::super) fn unqueue(&mut self, slot: Slot, queued: Queued) -> bool {
        let lag = self.lags.get_mut(&slot.0);
        lag.is_some_and(|lag| lag.queued.take_if(|own| *own == queued).is_some())
    }

    pub(in super::super) fn lag(&self, slot: Slot) -> Option<&Lag> {
        self.lags.get(&slot.0)
    }

    /// A piece was sent to it: whether its socket has taken that is known when it is looked at next.
    pub(in super::super) fn queue_again(&mut self, slot: Slot, schedule: &mut Schedule) {
        if let Some(lag) = self.lags.get_mut(&slot.0) {
            lag.queued = Some(schedule.queue(self.topic, slot));
        }
    }

    /// Whoever has been sent all that it was to be sent first, and waits for its answer, is to be answered now. What has changed
    /// since is newer than the answer.
    pub(in super::super) fn entered(&mut self, slot: Slot, schedule: &mut Schedule) -> Option<(ConnId, Entering)> {
        self.lags.get(&slot.0)?.entering.as_ref()?;
        let last = self.items.last_offset();
        let cohort = self.subs.get(&slot.0)?.cohort;
        let sent_to = self.rounds(cohort).map_or(0, |rounds| rounds.target);
        let wants_more = self.wants_any(cohort, self.lags.get(&slot.0)?.target);
        let lag = self.lags.get_mut(&slot.0)?;
        if !wants_more {
            (lag.since, lag.target) = (last, last);
        }
        let (conn, entering) = (lag.conn, *lag.entering.take()?);
        if let Promised::Joined { .. } = entering.answer {
            lag.told_stale = self.is_stale;
        }
        // The cohort's rounds went on without it, up to the end of one that is running.
        if sent_to > lag.since {
            lag.target = sent_to;
            self.queue_again(slot, schedule);
        }
        Some((conn, entering))
    }

    /// Whether anything has changed behind an offset that a cohort wants.
    fn wants_any(&self, cohort: u32, since: u64) -> bool {
        let Some(cohort) = self.cohorts.get(cohort as usize) else { return false };
        let item_of = |watch: &u32| self.watches[*watch as usize].item.map(|at| self.items.get(at));
        match &cohort.watches {
            Some(watches) => watches.iter().filter_map(item_of).any(|item| item.offset > since),
            None => {
                let mut changed = self.items.changed(since, u64::MAX);
                changed.any(|(_, item)| cohort.terms.filter.wants(&item.name))
            }
        }
    }

    /// The next piece for a subscriber that lags, and where it stands behind that; `None` where it lacks nothing more.
    pub(in super::super) fn piece_for(&mut self, slot: Slot, piece: &mut Piece) -> Option<u64> {
        let last = self.items.last_offset();
        self.lags.get_mut(&slot.0)?.aim(last);
        let (lag, sub) = (self.lags.get(&slot.0)?, self.subs.get(&slot.0)?);
        let cohort = &self.cohorts[sub.cohort as usize];
        let held = lag.entering.as_deref().map(|entering| &entering.held);
        let reached = self.gather(cohort, lag.since, lag.target, held, piece);
        let lag = self.lags.get_mut(&slot.0).expect("it was there");
        let since = std::mem::replace(&mut lag.since, reached);
        (!piece.is_empty()).then_some(since)
    }

    /// The items that a client lacks of those that it wants, in the order of offsets.
    pub(in super::super) fn lacking<'a>(
        &'a self,
        wanted: &'a ItemFilter,
        held: &'a Held,
    ) -> impl Iterator<Item = &'a Item> {
        let changed = self.items.changed(held.cursor(wanted), u64::MAX).map(|(_, item)| item);
        changed.filter(|item| wanted.wants(&item.name) && held.lacks(item))
    }

    /// A round begins: who lags may be sent what it holds as well, if it takes anything. Whether there is somebody.
    pub(in super::super) fn raise_targets(
        &mut self,
        cohort: u32,
        target: u64,
        schedule: &mut Schedule,
        sink: &impl Sink,
    ) -> bool {
        let Some(cohort) = self.cohorts.get(cohort as usize) else { return false };
        let mut is_for_somebody = false;
        for &slot in &cohort.lagging {
            let lag = self.lags.get_mut(&slot.0).expect("who lags has a lag");
            if lag.entering.is_some() {
                continue;
            }
            (lag.target, is_for_somebody) = (target, true);
            if lag.queued.is_none() && lag.since < target && sink.takes_rounds(slot) {
                lag.queued = Some(schedule.queue(self.topic, slot));
            }
        }
        is_for_somebody
    }

    /// Of a cohort's members, those whose sockets are full lag from now on.
    pub(in super::super) fn part_with_slow(&mut self, cohort: u32, schedule: &mut Schedule, sink: &impl Sink) {
        let Some(rounds) = self.rounds(cohort) else { return };
        let since = rounds.since;
        let members = &self.cohorts[cohort as usize].members;
        let is_lost = since < self.items.forgotten_to();
        let slow: Vec<Slot> = members.iter().copied().filter(|&slot| is_lost || !sink.takes_rounds(slot)).collect();
        for slot in slow {
            self.part_with(slot, schedule);
            self.queue(slot, schedule);
        }
    }

    /// Where a removal was forgotten of which a subscriber that lags was not told, it is to forget all that it has, and begins
    /// anew; who that is.
    pub(in super::super) fn begin_anew_if_lost(&mut self, slot: Slot, is_raw: bool) -> Option<ConnId> {
        let (last, forgotten_to) = (self.items.last_offset(), self.items.forgotten_to());
        let lag = self.lags.get_mut(&slot.0)?;
        let held_to = lag.entering.as_deref().map_or(0, |entering| entering.held.since);
        if !std::mem::take(&mut lag.is_lost) && forgotten_to <= lag.since.max(held_to) {
            return None;
        }
        (lag.since, lag.target) = (0, last);
        let held = Held::nothing(last);
        match &mut lag.entering {
            Some(entering) => {
                (entering.held, entering.pass_to) = (held, last);
                entering.answer.is_not_recovered();
            }
            None => {
                let answer = if is_raw { Promised::Raw { recovered: false } } else { Promised::Nothing };
                lag.entering = Some(Box::new(Entering::new(answer, held, last)));
            }
        }
        Some(lag.conn)
    }

    /// Who lags and has been sent all that the members have been sent is a member again.
    pub(in super::super) fn rejoin(&mut self, slot: Slot, schedule: &mut Schedule) {
        let (Some(lag), Some(sub)) = (self.lags.get(&slot.0), self.subs.get(&slot.0)) else { return };
        let (since, last) = (lag.since, self.items.last_offset());
        let is_told = !lag.is_lost && lag.told_stale == self.is_stale;
        let is_idle = lag.entering.is_none() && lag.since == lag.target && is_told;
        let Some(rounds) = self.rounds_mut(sub.cohort) else { return };
        if rounds.is_quiet() && since >= rounds.since {
            // Nothing that it wants has changed behind either.
            (rounds.since, rounds.target) = (last, last);
        } else if rounds.is_running() || rounds.since != since {
            return;
        }
        if is_idle {
            self.stand_down(slot, schedule);
            self.stand_as_member(slot);
        }
    }

    /// The same for all that lag behind a cohort, whose round has ended.
    pub(in super::super) fn rejoin_all(&mut self, cohort: u32, schedule: &mut Schedule) {
        let Some(lagging) = self.cohorts.get(cohort as usize).map(|cohort| cohort.lagging.clone()) else { return };
        for slot in lagging {
            self.rejoin(slot, schedule);
        }
    }

    /// The answer that a subscriber waits for, which it does not wait for any more.
    pub(in super::super) fn take_entering(&mut self, conn: ConnId) -> Option<Entering> {
        let lag = self.lags.get_mut(&conn.slot.0).filter(|lag| lag.conn == conn)?;
        lag.entering.take().map(|entering| *entering)
    }
}
