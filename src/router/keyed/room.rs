//! One keyed room on one reactor: its items, and the subscribers here. Those of them that lag are in `lagging`.

mod lagging;

use std::collections::HashMap;

use arcstr::ArcStr;
use foldhash::fast::FixedState;
use slab::Slab;

use super::cohort::{Cohort, Rounds, Sending, Terms};
use super::items::{Applied, Item, ItemIndex, Items, Next};
use super::lag::{Entering, Held, Lag, Promised};
use super::piece::Piece;
use super::schedule::{Place, Schedule};
use super::source::Source;
use crate::ids::{ConnId, ReactorId, Slot};
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

    /// Reactors that mirror it, where it is at home here.
    pub(super) fn mirrors(&self) -> &[ReactorId] {
        self.source.as_deref().map_or(&[], |source| &source.mirrors)
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

    /// All of them but those who get rounds and whose sockets are full.
    pub(super) fn slots_that_take(&self, sink: &impl Sink) -> Vec<Slot> {
        self.slots().filter(|&slot| !self.is_stalled(slot, sink)).collect()
    }

    /// Whether a subscriber gets rounds, and its socket takes none now.
    fn is_stalled(&self, slot: Slot, sink: &impl Sink) -> bool {
        let cohort = self.subs.get(&slot.0).map(|sub| sub.cohort);
        cohort.is_some_and(|cohort| self.rounds(cohort).is_some()) && !sink.takes_rounds(slot)
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
        self.forget_surplus(1);
    }

    /// Takes an update that comes behind all others.
    pub(super) fn apply(&mut self, applied: &Applied, exclude: Option<ConnId>, schedule: &mut Schedule) {
        let at = self.items.apply(applied, schedule.now);
        self.changed(at, applied, Reach::All { exclude }, schedule);
        self.forget_surplus(1);
    }

    /// The same, where [`Items::next`] said that it comes. Removals are forgotten when all of its command is there.
    pub(super) fn put(&mut self, next: Next, applied: &Applied, exclude: Option<ConnId>, schedule: &mut Schedule) {
        let at = self.items.put_next(next, applied, schedule.now);
        self.changed(at, applied, Reach::All { exclude }, schedule);
    }

    /// Hands out the batch of a cohort that gets each update.
    pub(super) fn seal(&mut self, cohort: u32, sink: &mut impl Sink) {
        if let Some(cohort) = self.cohorts.get_mut(cohort as usize) {
            cohort.seal(sink);
        }
    }

    /// The same for all cohorts: what comes next comes behind it.
    pub(super) fn seal_all(&mut self, sink: &mut impl Sink) {
        self.cohorts.iter_mut().for_each(|(_, cohort)| cohort.seal(sink));
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
        let is_joining = entering.as_ref().is_some_and(|entering| matches!(entering.answer, Promised::Joined { .. }));
        // Who joins is told with its answer.
        let mut lag = Lag::new(conn, since, target, self.is_stale && !is_joining);
        lag.entering = entering.map(Box::new);
        self.stand_behind(lag, schedule);
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

    /// What is in force for a subscriber between rounds, in milliseconds; `None` where it gets none.
    pub(super) fn interval_ms(&self, conn: ConnId) -> Option<u32> {
        let (terms, _) = self.terms(conn)?;
        (terms.mode == Mode::Latest).then_some(terms.interval_ms)
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
