//! One keyed room on one reactor: its items, and the subscribers here.

use std::collections::HashMap;

use arcstr::ArcStr;
use foldhash::fast::FixedState;
use slab::Slab;

use super::cohort::{Cohort, Rounds, Sending, Terms};
use super::filter::ItemFilter;
use super::items::{Applied, Item, ItemIndex, Items, Next};
use super::lag::{Entering, Held, Lag, Promised};
use super::piece::Piece;
use super::schedule::{Place, Queued, Schedule};
use super::source::Source;
use crate::ids::{ConnId, Slot};
use crate::protocol::Mode;
use crate::router::Sink;
use crate::router::batch::Batch;
use crate::router::history::StreamPosition;
use crate::router::policy::KeyedPolicy;
use crate::router::topic::TopicIndex;
use crate::time::Millis;

/// Where a subscriber stands.
#[derive(Clone, Copy, Debug)]
struct Sub {
    generation: u32,
    cohort: u32,
    standing: Standing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// Its index among the cohort's members.
    Member(u32),
    /// Its index among those of the cohort that lag.
    Lagging(u32),
}

/// Whom an update reaches.
#[derive(Clone, Copy, Debug)]
enum Reach {
    /// Who gets each update, one connection perhaps excluded, and who gets rounds.
    All { exclude: Option<ConnId> },
    /// Only who gets rounds.
    Rounds,
}

/// A name that some subscriber wants, and nothing but names.
#[derive(Debug)]
struct Watch {
    name: ArcStr,
    item: Option<ItemIndex>,
    cohorts: Vec<u32>,
}

/// See the module's documentation. The items, who wants what, and how far each cohort and lag has been sent is what it is;
/// lists, watches and indices are built again from that.
#[derive(Debug)]
pub(super) struct KeyedRoom {
    pub(super) topic: TopicIndex,
    pub(super) items: Items,
    pub(super) policy: KeyedPolicy,
    /// Of the room's name.
    pub(super) name_bytes: usize,
    /// What only the home knows.
    pub(super) source: Option<Box<Source>>,
    /// Whether members were told that nothing is published any more.
    pub(super) is_stale: bool,
    /// Removals are not forgotten before, since somebody has not been sent the oldest.
    pub(super) forget_from: Millis,
    /// When it has something to do by itself, as far as that is noted.
    pub(super) chore: Option<Millis>,
    subs: HashMap<u32, Sub, FixedState>,
    cohorts: Slab<Cohort>,
    by_terms: HashMap<Terms, u32, FixedState>,
    /// Cohorts that want more than names.
    wide: Vec<u32>,
    watches: Slab<Watch>,
    watch_by_name: HashMap<ArcStr, u32, FixedState>,
    lags: HashMap<u32, Lag, FixedState>,
}

impl KeyedRoom {
    pub(super) fn new(topic: TopicIndex, name: &str, items: Items, policy: KeyedPolicy) -> KeyedRoom {
        KeyedRoom {
            topic,
            items,
            policy,
            name_bytes: name.len(),
            source: None,
            is_stale: false,
            forget_from: Millis::ZERO,
            chore: None,
            subs: HashMap::default(),
            cohorts: Slab::new(),
            by_terms: HashMap::default(),
            wide: Vec::new(),
            watches: Slab::new(),
            watch_by_name: HashMap::default(),
            lags: HashMap::default(),
        }
    }

    /// The subscribers here that are no plain members of the topic.
    pub(super) fn slots(&self) -> impl Iterator<Item = Slot> {
        self.subs.keys().map(|&slot| Slot(slot))
    }

    /// Those of them who get each update that they want.
    pub(super) fn slots_of_each(&self) -> Vec<Slot> {
        let each = self.cohorts.iter().filter(|(_, cohort)| matches!(cohort.sending, Sending::Each(_)));
        each.flat_map(|(_, cohort)| cohort.members.iter().copied()).collect()
    }

    /// Of those, the slot, the generation, and up to where it was sent what it wants.
    pub(super) fn positions(&self) -> impl Iterator<Item = (Slot, u32, u64)> {
        self.subs.iter().map(|(&slot, &sub)| (Slot(slot), sub.generation, self.offset_of(Slot(slot), sub)))
    }

    fn sub(&self, conn: ConnId) -> Option<Sub> {
        self.subs.get(&conn.slot.0).copied().filter(|sub| sub.generation == conn.generation)
    }

    /// A subscriber's terms and what it has been sent, up to which offset; `None` where it is a plain member, or none.
    pub(super) fn terms(&self, conn: ConnId) -> Option<(&Terms, u64)> {
        let sub = self.sub(conn)?;
        Some((&self.cohorts[sub.cohort as usize].terms, self.offset_of(conn.slot, sub)))
    }

    fn offset_of(&self, slot: Slot, sub: Sub) -> u64 {
        match (sub.standing, &self.cohorts[sub.cohort as usize].sending) {
            (Standing::Lagging(_), _) => self.lags[&slot.0].since,
            (Standing::Member(_), Sending::Rounds(rounds)) if rounds.is_quiet() => self.items.last_offset(),
            (Standing::Member(_), Sending::Rounds(rounds)) => rounds.since,
            (Standing::Member(_), Sending::Each(_)) => self.items.last_offset(),
        }
    }

    /// What a subscriber waits for, if it waits for an answer.
    pub(super) fn entering_mut(&mut self, conn: ConnId) -> Option<&mut Entering> {
        let lag = self.lags.get_mut(&conn.slot.0).filter(|lag| lag.conn == conn)?;
        lag.entering.as_deref_mut()
    }

    /// An update has come, of an item that is new or known: it goes to those who get each, and wakes the others.
    fn changed(&mut self, at: ItemIndex, applied: &Applied, reach: Reach, schedule: &mut Schedule) {
        if self.cohorts.is_empty() {
            return;
        }
        if self.items.get(at).watch.is_none()
            && !self.watch_by_name.is_empty()
            && let Some(&watch) = self.watch_by_name.get(&applied.item)
        {
            self.watches[watch as usize].item = Some(at);
            self.items.set_watch(at, Some(watch));
        }
        let watch = self.items.get(at).watch;
        let watching = watch.map_or(&[][..], |watch| &self.watches[watch as usize].cohorts[..]);
        let frame = applied.frame.plain();
        for &at in watching.iter().chain(&self.wide) {
            let cohort = &mut self.cohorts[at as usize];
            let place = Place { topic: self.topic, cohort: at };
            match (&mut cohort.sending, reach) {
                (Sending::Rounds(rounds), _) => rounds.wake(applied.offset - 1, place, schedule),
                (Sending::Each(batch), Reach::All { exclude }) if cohort.terms.filter.wants(&applied.item) => {
                    if batch.is_none() {
                        schedule.open.push(place);
                    }
                    let batch = batch.get_or_insert_with(|| Batch::joined(Vec::new(), schedule.published_at));
                    if frame.len() >= schedule.compress_from_bytes {
                        batch.mark_compressible(Some(&applied.frame));
                    }
                    batch.push(frame, exclude);
                    schedule.open_bytes += frame.len();
                }
                (Sending::Each(_), _) => {}
            }
        }
    }

    /// Takes the newest update of an item of which some were missed.
    pub(super) fn catch_up(&mut self, applied: &Applied, at: Millis, schedule: &mut Schedule) {
        let item = self.items.apply(applied, at);
        self.changed(item, applied, Reach::Rounds, schedule);
        self.forget_surplus();
    }

    /// Takes an update that comes behind all others.
    pub(super) fn apply(&mut self, applied: &Applied, exclude: Option<ConnId>, schedule: &mut Schedule) {
        let at = self.items.apply(applied, schedule.now);
        self.changed(at, applied, Reach::All { exclude }, schedule);
        self.forget_surplus();
    }

    /// The same, where [`Items::next`] said that it comes.
    pub(super) fn put(&mut self, next: Next, applied: &Applied, exclude: Option<ConnId>, schedule: &mut Schedule) {
        let at = self.items.put_next(next, applied, schedule.now);
        self.changed(at, applied, Reach::All { exclude }, schedule);
        self.forget_surplus();
    }

    /// Hands out the batch of a cohort that gets each update.
    pub(super) fn seal(&mut self, cohort: u32, sink: &mut impl Sink) {
        let Some(cohort) = self.cohorts.get_mut(cohort as usize) else { return };
        if let Sending::Each(batch) = &mut cohort.sending
            && let Some(batch) = batch.take()
        {
            sink.deliver(batch, &cohort.members);
        }
    }

    /// The same for all cohorts: what comes next comes behind it.
    pub(super) fn seal_all(&mut self, sink: &mut impl Sink) {
        for (_, cohort) in &mut self.cohorts {
            if let Sending::Each(batch) = &mut cohort.sending
                && let Some(batch) = batch.take()
            {
                sink.deliver(batch, &cohort.members);
            }
        }
    }

    /// A subscriber that has been sent all up to `since` becomes one of a cohort. `entering` says what it is sent first, and
    /// told then.
    pub(super) fn enter(
        &mut self,
        conn: ConnId,
        terms: Terms,
        since: u64,
        entering: Option<Entering>,
        schedule: &mut Schedule,
        sink: &mut impl Sink,
    ) {
        let at = self.cohort_of(terms);
        let target = self.items.last_offset();
        let sub = Sub { generation: conn.generation, cohort: at, standing: Standing::Member(0) };
        self.subs.insert(conn.slot.0, sub);
        let cohort = &mut self.cohorts[at as usize];
        let is_level = match &mut cohort.sending {
            Sending::Each(_) => {
                self.seal(at, sink);
                true
            }
            Sending::Rounds(rounds) => {
                if rounds.is_quiet() {
                    (rounds.since, rounds.target) = (target, target);
                }
                rounds.since == since && !rounds.is_running()
            }
        };
        if is_level && entering.is_none() {
            return self.stand_as_member(conn.slot);
        }
        let target = if entering.is_some() { target } else { since };
        let entering = entering.map(Box::new);
        self.stand_behind(Lag { conn, since, target, queued: None, entering }, schedule);
        if self.lags[&conn.slot.0].entering.is_some() {
            self.queue(conn.slot, schedule);
        }
    }

    /// A subscriber goes.
    pub(super) fn leave(&mut self, slot: Slot, schedule: &mut Schedule, sink: &mut impl Sink) {
        let Some(sub) = self.subs.get(&slot.0).copied() else { return };
        self.seal(sub.cohort, sink);
        self.stand_down(slot, schedule);
        self.subs.remove(&slot.0);
        self.drop_cohort_if_empty(sub.cohort, schedule);
    }

    /// A socket took of a round only what is up to `since`.
    pub(super) fn fell_behind(&mut self, conn: ConnId, since: u64, schedule: &mut Schedule) {
        let Some(sub) = self.sub(conn) else { return };
        match sub.standing {
            Standing::Lagging(_) => {
                let lag = self.lags.get_mut(&conn.slot.0).expect("who lags has a lag");
                lag.since = lag.since.min(since);
            }
            Standing::Member(_) => {
                let target = self.rounds(sub.cohort).map_or(since, |rounds| rounds.target);
                self.stand_down(conn.slot, schedule);
                self.stand_behind(Lag { conn, since, target, queued: None, entering: None }, schedule);
            }
        }
    }

    /// A subscriber that lags can take more.
    pub(super) fn queue(&mut self, slot: Slot, schedule: &mut Schedule) {
        let Some(lag) = self.lags.get_mut(&slot.0) else { return };
        if lag.queued.is_none() && (lag.since < lag.target || lag.entering.is_some()) {
            lag.queued = Some(schedule.queue(self.topic, slot));
        }
    }

    /// A subscriber's place in the queue has come: whether it is still the one that it has. It has none any more.
    pub(super) fn unqueue(&mut self, slot: Slot, queued: Queued) -> bool {
        let lag = self.lags.get_mut(&slot.0);
        lag.is_some_and(|lag| lag.queued.take_if(|own| *own == queued).is_some())
    }

    pub(super) fn lag(&self, slot: Slot) -> Option<&Lag> {
        self.lags.get(&slot.0)
    }

    /// A piece was sent to it: whether its socket has taken that is known when it is looked at next.
    pub(super) fn queue_again(&mut self, slot: Slot, schedule: &mut Schedule) {
        if let Some(lag) = self.lags.get_mut(&slot.0) {
            lag.queued = Some(schedule.queue(self.topic, slot));
        }
    }

    /// Whoever has been sent all that it was to be sent first, and waits for its answer, is to be answered now. What has changed
    /// since is newer than the answer.
    pub(super) fn entered(&mut self, slot: Slot, schedule: &mut Schedule) -> Option<(ConnId, Entering)> {
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

    /// Up to which offset everybody here has been sent all that it wants.
    pub(super) fn sent_to(&self) -> u64 {
        let rounds = self.cohorts.iter().filter_map(|(_, cohort)| match &cohort.sending {
            Sending::Rounds(rounds) => (!rounds.is_quiet()).then_some(rounds.since),
            Sending::Each(_) => None,
        });
        rounds.chain(self.lags.values().map(|lag| lag.since)).min().unwrap_or(u64::MAX)
    }

    /// How far a subscriber has been sent all that it wants.
    pub(super) fn position_of(&self, conn: ConnId) -> StreamPosition {
        let offset = self.terms(conn).map_or_else(|| self.items.last_offset(), |(_, since)| since);
        StreamPosition { offset, ..self.items.position() }
    }

    /// The next piece for a subscriber that lags, and where it stands behind that; `None` where it lacks nothing more.
    pub(super) fn piece_for(&mut self, slot: Slot, piece: &mut Piece) -> Option<u64> {
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

    /// What a cohort wants of what has changed behind `since` and not behind `target`, as far as a piece holds it; where the
    /// piece ends.
    pub(super) fn gather(
        &self,
        cohort: &Cohort,
        since: u64,
        target: u64,
        held: Option<&Held>,
        piece: &mut Piece,
    ) -> u64 {
        let lacks = |item: &Item| held.is_none_or(|held| held.lacks(item));
        match &cohort.watches {
            Some(watches) => {
                let mut found: Vec<(u64, ItemIndex)> = Vec::with_capacity(watches.len());
                for &watch in watches {
                    let Some(at) = self.watches[watch as usize].item else { continue };
                    let item = self.items.get(at);
                    if item.offset > since && item.offset <= target && lacks(item) {
                        found.push((item.offset, at));
                    }
                }
                found.sort_unstable();
                piece.fill(found.iter().map(|(_, at)| self.items.get(*at)), target)
            }
            None => {
                let changed = self.items.changed(since, target).map(|(_, item)| item);
                piece.fill(changed.filter(|item| cohort.terms.filter.wants(&item.name) && lacks(item)), target)
            }
        }
    }

    /// The items that a client lacks of those that it wants, in the order of offsets.
    pub(super) fn lacking<'a>(&'a self, wanted: &'a ItemFilter, held: &'a Held) -> impl Iterator<Item = &'a Item> {
        let changed = self.items.changed(held.cursor(wanted), u64::MAX).map(|(_, item)| item);
        changed.filter(|item| wanted.wants(&item.name) && held.lacks(item))
    }

    pub(super) fn cohort(&self, at: u32) -> Option<&Cohort> {
        self.cohorts.get(at as usize)
    }

    pub(super) fn rounds_mut(&mut self, at: u32) -> Option<&mut Rounds> {
        match &mut self.cohorts.get_mut(at as usize)?.sending {
            Sending::Rounds(rounds) => Some(rounds),
            Sending::Each(_) => None,
        }
    }

    fn rounds(&self, at: u32) -> Option<&Rounds> {
        match &self.cohorts.get(at as usize)?.sending {
            Sending::Rounds(rounds) => Some(rounds),
            Sending::Each(_) => None,
        }
    }

    /// Something of a cohort's round is sent.
    pub(super) fn sent(&mut self, cohort: u32, schedule: &Schedule) {
        let Some(Cohort { terms, sending: Sending::Rounds(rounds), .. }) = self.cohorts.get_mut(cohort as usize) else {
            return;
        };
        rounds.sent(terms.interval_ms, schedule.now);
    }

    /// A round begins: who lags may be sent what it holds as well, if it takes anything. Whether there is somebody.
    pub(super) fn raise_targets(
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
    pub(super) fn part_with_slow(&mut self, cohort: u32, schedule: &mut Schedule, sink: &impl Sink) {
        let Some(rounds) = self.rounds(cohort) else { return };
        let (since, target) = (rounds.since, rounds.target);
        let members = &self.cohorts[cohort as usize].members;
        let is_lost = since < self.items.forgotten_to();
        let slow: Vec<Slot> = members.iter().copied().filter(|&slot| is_lost || !sink.takes_rounds(slot)).collect();
        for slot in slow {
            let conn = ConnId { reactor: schedule.me, slot, generation: self.subs[&slot.0].generation };
            self.stand_down(slot, schedule);
            self.stand_behind(Lag { conn, since, target, queued: None, entering: None }, schedule);
            self.queue(slot, schedule);
        }
    }

    /// Where a removal was forgotten of which a subscriber that lags was not told, it is to forget all that it has, and begins
    /// anew; who that is.
    pub(super) fn begin_anew_if_lost(&mut self, slot: Slot, is_raw: bool) -> Option<ConnId> {
        let (last, forgotten_to) = (self.items.last_offset(), self.items.forgotten_to());
        let lag = self.lags.get_mut(&slot.0)?;
        let held_to = lag.entering.as_deref().map_or(0, |entering| entering.held.since);
        if forgotten_to <= lag.since.max(held_to) {
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
    pub(super) fn rejoin(&mut self, slot: Slot, schedule: &mut Schedule) {
        let (Some(lag), Some(sub)) = (self.lags.get(&slot.0), self.subs.get(&slot.0)) else { return };
        let (since, last) = (lag.since, self.items.last_offset());
        let is_idle = lag.entering.is_none() && lag.since == lag.target;
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
    pub(super) fn rejoin_all(&mut self, cohort: u32, schedule: &mut Schedule) {
        let Some(lagging) = self.cohorts.get(cohort as usize).map(|cohort| cohort.lagging.clone()) else { return };
        for slot in lagging {
            self.rejoin(slot, schedule);
        }
    }

    /// What is in force for a subscriber between rounds, in milliseconds; `None` where it gets none.
    pub(super) fn interval_ms(&self, conn: ConnId) -> Option<u32> {
        let (terms, _) = self.terms(conn)?;
        (terms.mode == Mode::Latest).then_some(terms.interval_ms)
    }

    /// The answer that a subscriber waits for, which it does not wait for any more.
    pub(super) fn take_entering(&mut self, conn: ConnId) -> Option<Entering> {
        let lag = self.lags.get_mut(&conn.slot.0).filter(|lag| lag.conn == conn)?;
        lag.entering.take().map(|entering| *entering)
    }

    /// Other items are in place of those here: what subscribers have been sent of these says nothing of them, so they are
    /// sent all of them.
    pub(super) fn replace_items(&mut self, items: Items, schedule: &mut Schedule) {
        self.items = items;
        for (_, watch) in &mut self.watches {
            watch.item = self.items.find(&watch.name);
        }
        for (at, watch) in &self.watches {
            if let Some(item) = watch.item {
                self.items.set_watch(item, Some(at as u32));
            }
        }
        for lag in self.lags.values_mut() {
            (lag.since, lag.target) = (0, self.items.last_offset());
            if let Some(entering) = &mut lag.entering {
                (entering.held, entering.pass_to) = (Held::nothing(lag.target), lag.target);
            }
        }
        for (at, cohort) in &mut self.cohorts {
            if let Sending::Rounds(rounds) = &mut cohort.sending {
                rounds.since = 0;
                rounds.target = self.items.last_offset();
                rounds.wake(0, Place { topic: self.topic, cohort: at as u32 }, schedule);
            }
        }
        let lagging: Vec<u32> = self.lags.keys().copied().collect();
        for slot in lagging {
            self.queue(Slot(slot), schedule);
        }
    }

    /// An item is forgotten that a watch was for.
    pub(super) fn unwatch(&mut self, watch: u32) {
        if let Some(watch) = self.watches.get_mut(watch as usize) {
            watch.item = None;
        }
    }

    fn stand_as_member(&mut self, slot: Slot) {
        let sub = self.subs.get_mut(&slot.0).expect("who stands somewhere subscribes");
        let members = &mut self.cohorts[sub.cohort as usize].members;
        sub.standing = Standing::Member(members.len() as u32);
        members.push(slot);
    }

    fn stand_behind(&mut self, lag: Lag, schedule: &mut Schedule) {
        let slot = lag.conn.slot;
        let sub = self.subs.get_mut(&slot.0).expect("who stands somewhere subscribes");
        let lagging = &mut self.cohorts[sub.cohort as usize].lagging;
        sub.standing = Standing::Lagging(lagging.len() as u32);
        lagging.push(slot);
        self.lags.insert(slot.0, lag);
        schedule.begin_lag(self.topic, slot);
    }

    /// Takes a subscriber out of the list that it is in; the last one there gets its index.
    fn stand_down(&mut self, slot: Slot, schedule: &mut Schedule) {
        let Some(&Sub { cohort, standing, .. }) = self.subs.get(&slot.0) else { return };
        let cohort = &mut self.cohorts[cohort as usize];
        let (list, at) = match standing {
            Standing::Member(at) => (&mut cohort.members, at),
            Standing::Lagging(at) => {
                self.lags.remove(&slot.0);
                schedule.end_lag(self.topic, slot);
                (&mut cohort.lagging, at)
            }
        };
        list.swap_remove(at as usize);
        if let Some(moved) = list.get(at as usize) {
            let moved = self.subs.get_mut(&moved.0).expect("who stands somewhere subscribes");
            moved.standing = standing;
        }
    }

    fn cohort_of(&mut self, terms: Terms) -> u32 {
        if let Some(&at) = self.by_terms.get(&terms) {
            return at;
        }
        let at = self.cohorts.vacant_key() as u32;
        let watches = match terms.filter.only_names() {
            None => {
                self.wide.push(at);
                None
            }
            Some(names) => {
                let names: Vec<ArcStr> = names.iter().map(|name| ArcStr::from(&**name)).collect();
                Some(names.into_iter().map(|name| self.watch(name, at)).collect())
            }
        };
        let sending = match terms.mode {
            Mode::All => Sending::Each(None),
            Mode::Latest => Sending::Rounds(Rounds::new(self.items.last_offset())),
        };
        self.by_terms.insert(terms.clone(), at);
        self.cohorts.insert(Cohort { terms, watches, members: Vec::new(), lagging: Vec::new(), sending });
        at
    }

    fn watch(&mut self, name: ArcStr, cohort: u32) -> u32 {
        if let Some(&watch) = self.watch_by_name.get(&name) {
            self.watches[watch as usize].cohorts.push(cohort);
            return watch;
        }
        let item = self.items.find(&name);
        let watch = self.watches.insert(Watch { name: name.clone(), item, cohorts: vec![cohort] }) as u32;
        self.watch_by_name.insert(name, watch);
        if let Some(at) = item {
            self.items.set_watch(at, Some(watch));
        }
        watch
    }

    fn drop_cohort_if_empty(&mut self, at: u32, schedule: &mut Schedule) {
        let cohort = &self.cohorts[at as usize];
        if !cohort.members.is_empty() || !cohort.lagging.is_empty() {
            return;
        }
        let cohort = self.cohorts.remove(at as usize);
        self.by_terms.remove(&cohort.terms);
        self.wide.retain(|wide| *wide != at);
        if let Sending::Rounds(rounds) = &cohort.sending {
            rounds.cancel(Place { topic: self.topic, cohort: at }, schedule);
        }
        for watch in cohort.watches.into_iter().flatten() {
            let watching = &mut self.watches[watch as usize];
            watching.cohorts.retain(|cohort| *cohort != at);
            if watching.cohorts.is_empty() {
                let Watch { name, item, .. } = self.watches.remove(watch as usize);
                self.watch_by_name.remove(&name);
                if let Some(item) = item {
                    self.items.set_watch(item, None);
                }
            }
        }
    }
}

#[cfg(any(test, debug_assertions))]
impl KeyedRoom {
    /// Checks who stands where against what each subscriber has.
    pub(super) fn check(&self) {
        self.items.check();
        let (mut members, mut lagging) = (0, 0);
        for (at, cohort) in &self.cohorts {
            assert_eq!(self.by_terms.get(&cohort.terms), Some(&(at as u32)));
            for (list, standing) in [
                (&cohort.members, Standing::Member as fn(u32) -> Standing),
                (&cohort.lagging, Standing::Lagging as fn(u32) -> Standing),
            ] {
                for (index, slot) in list.iter().enumerate() {
                    let sub = &self.subs[&slot.0];
                    assert_eq!((sub.cohort, sub.standing), (at as u32, standing(index as u32)));
                }
            }
            (members, lagging) = (members + cohort.members.len(), lagging + cohort.lagging.len());
            assert!(!cohort.members.is_empty() || !cohort.lagging.is_empty(), "a cohort has somebody in it");
        }
        assert_eq!(
            (members + lagging, lagging),
            (self.subs.len(), self.lags.len()),
            "each subscriber stands somewhere"
        );
        for (at, watch) in &self.watches {
            assert_eq!(watch.item, self.items.find(&watch.name), "a watch knows its item");
            assert_eq!(self.watch_by_name.get(&watch.name), Some(&(at as u32)));
            if let Some(item) = watch.item {
                assert_eq!(self.items.get(item).watch, Some(at as u32));
            }
        }
    }
}
