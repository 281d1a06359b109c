//! What one receiver is sent, in which order, and when again.
//!
//! ```text
//!   push ─► ready ─► batch ─► under way ─┬─ delivered ─► finished
//!      │      ▲                 ▲        │
//!      ▼      │                 │        ├─ failed ─► pausing ─► under way, the same body
//!    lanes ───┘ its turn        └────────┤              └─► split in two, where others go through
//!                                        └─ failed for too long ─► given up: finished
//! ```
//!
//! Of each subject there is one event at most in `ready` and in batches; those behind it wait in the subject's lane. So the
//! order of a subject is kept, and a batch that is tried again holds up no others. A batch that fails while others go
//! through is split, so that one bad event holds up none beside it for long.
//!
//! While nothing goes through, batches begin at a slower pace, so that they are full. All of it is what it is, but for the
//! orders by time and the counts, which are built again from the batches.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use super::event::{Event, Subject};
use crate::limits::{
    WEBHOOK_BATCH_EVENTS_MAX, WEBHOOK_DOWN_AFTER, WEBHOOK_DOWN_PACE_MS, WEBHOOK_GIVE_UP_MS, WEBHOOK_PAUSE_MS_MAX,
    WEBHOOK_PAUSE_MS_MIN, WEBHOOK_SPLIT_AFTER,
};
use crate::time::Millis;

/// Which batch of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BatchId(u64);

/// What is to be sent now.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// [`Queue::ended`] takes it.
    pub batch: BatchId,
    /// What it holds; at least one event, none twice, each of another subject.
    pub events: Arc<[Arc<Event>]>,
    /// What was sent before with it, for the same body again; [`Queue::keep_body`] has it kept.
    pub body: Option<Arc<[u8]>>,
}

/// What became of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// 2xx.
    Delivered,
    /// Anything else.
    Failed,
}

/// What became of a batch's events by an attempt's end.
#[derive(Debug, PartialEq, Eq)]
pub enum Ended {
    /// The receiver has them.
    Delivered(Arc<[Arc<Event>]>),
    /// They were tried for [`WEBHOOK_GIVE_UP_MS`], and are not tried again.
    GivenUp(Arc<[Arc<Event>]>),
    /// They, so many, are tried again.
    Retried(usize),
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Queue {
    concurrency: usize,
    ready: VecDeque<Arc<Event>>,
    /// Of each subject in `ready` or in a batch, the events behind that one.
    lanes: HashMap<Subject, VecDeque<Arc<Event>>>,
    batches: BTreeMap<BatchId, Batch>,
    next_batch: u64,
    /// Batches that are tried again, by when.
    pausing: BTreeSet<(Millis, BatchId)>,
    under_way: usize,
    /// How many of those are tried again.
    again_under_way: usize,
    events_count: usize,
    /// Failures since something went through last.
    failures: u32,
    delivered_at: Option<Millis>,
    /// Not before then does a new batch begin.
    fresh_at: Millis,
    /// Whether a batch was split although nothing went through; one at a time is.
    is_probing: bool,
}

#[derive(Debug)]
struct Batch {
    events: Arc<[Arc<Event>]>,
    body: Option<Arc<[u8]>>,
    /// Attempts that have failed.
    failures: u32,
    first_at: Millis,
    /// Whether it is part of one that was split although nothing went through.
    is_probe: bool,
}

impl Queue {
    /// An empty one, with so many attempts at once at most.
    pub fn new(concurrency: usize) -> Queue {
        assert!(concurrency > 0);
        Queue {
            concurrency,
            ready: VecDeque::new(),
            lanes: HashMap::new(),
            batches: BTreeMap::new(),
            next_batch: 0,
            pausing: BTreeSet::new(),
            under_way: 0,
            again_under_way: 0,
            events_count: 0,
            failures: 0,
            delivered_at: None,
            fresh_at: Millis(0),
            is_probing: false,
        }
    }

    /// One more event, behind all others of its subject.
    pub fn push(&mut self, event: Arc<Event>) {
        self.events_count += 1;
        match self.lanes.get_mut(&event.subject) {
            Some(lane) => lane.push_back(event),
            None => {
                self.lanes.insert(event.subject.clone(), VecDeque::new());
                self.ready.push_back(event);
            }
        }
    }

    /// The next attempt to begin, if one may.
    pub fn next(&mut self, now: Millis) -> Option<Attempt> {
        if self.under_way >= self.concurrency {
            return None;
        }
        let may_repeat = self.again_under_way < self.again_max();
        let due = self.pausing.first().filter(|(at, _)| *at <= now && may_repeat).copied();
        let batch = match due {
            Some((at, batch)) => {
                self.pausing.remove(&(at, batch));
                batch
            }
            None if self.ready.is_empty() || self.fresh_at > now => return None,
            None => {
                let count = self.ready.len().min(WEBHOOK_BATCH_EVENTS_MAX);
                let events: Arc<[Arc<Event>]> = self.ready.drain(..count).collect();
                self.insert(Batch { events, body: None, failures: 0, first_at: now, is_probe: false })
            }
        };
        let Batch { events, body, failures, .. } = &self.batches[&batch];
        self.under_way += 1;
        self.again_under_way += usize::from(*failures > 0);
        Some(Attempt { batch, events: events.clone(), body: body.clone() })
    }

    /// What a batch is sent as, so that the next attempt sends the same.
    pub fn keep_body(&mut self, batch: BatchId, body: Arc<[u8]>) {
        if let Some(batch) = self.batches.get_mut(&batch) {
            batch.body = Some(body);
        }
    }

    /// An attempt has ended so. `chance` decides by how much a pause is shortened: 0 not at all, 255 by a quarter.
    pub fn ended(&mut self, batch: BatchId, outcome: Outcome, chance: u8, now: Millis) -> Ended {
        let Some(ended) = self.batches.remove(&batch) else { return Ended::Retried(0) };
        self.under_way -= 1;
        self.again_under_way -= usize::from(ended.failures > 0);
        match outcome {
            Outcome::Delivered => {
                (self.failures, self.delivered_at, self.fresh_at) = (0, Some(now), now);
                self.is_probing = false;
                self.finish(&ended.events);
                Ended::Delivered(ended.events)
            }
            Outcome::Failed => {
                self.failures = self.failures.saturating_add(1);
                if self.failures >= WEBHOOK_DOWN_AFTER {
                    self.fresh_at = now.saturating_add(WEBHOOK_DOWN_PACE_MS);
                }
                self.failed(batch, ended, chance, now)
            }
        }
    }

    /// When [`Queue::next`] may have an attempt that it has not now, if no other ends before.
    pub fn next_at(&self) -> Option<Millis> {
        if self.under_way >= self.concurrency {
            return None;
        }
        let fresh = (!self.ready.is_empty()).then_some(self.fresh_at);
        let again = self.pausing.first().filter(|_| self.again_under_way < self.again_max()).map(|(at, _)| *at);
        [fresh, again].into_iter().flatten().min()
    }

    /// Events that are not finished.
    pub fn len(&self) -> usize {
        self.events_count
    }

    /// Whether all events are finished.
    pub fn is_empty(&self) -> bool {
        self.events_count == 0
    }

    /// Whether there are events that were never sent and may be.
    pub fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Attempts under way.
    pub fn under_way(&self) -> usize {
        self.under_way
    }

    /// Another node tells from now on what is here: all of it is forgotten. Attempts under way end as ever.
    pub fn clear(&mut self) {
        let concurrency = self.concurrency;
        let next_batch = self.next_batch;
        let (under_way, again) = (self.under_way, self.again_under_way);
        let pausing: BTreeSet<BatchId> = self.pausing.iter().map(|(_, batch)| *batch).collect();
        let mut batches = std::mem::take(&mut self.batches);
        batches.retain(|batch, _| !pausing.contains(batch));
        *self = Queue { next_batch, under_way, again_under_way: again, ..Queue::new(concurrency) };
        for event in batches.values().flat_map(|batch| batch.events.iter()) {
            self.lanes.insert(event.subject.clone(), VecDeque::new());
            self.events_count += 1;
        }
        self.batches = batches;
    }

    /// What is tried again leaves half of the places to what is new.
    fn again_max(&self) -> usize {
        (self.concurrency / 2).max(1)
    }

    fn insert(&mut self, batch: Batch) -> BatchId {
        let id = BatchId(self.next_batch);
        self.next_batch += 1;
        self.batches.insert(id, batch);
        id
    }

    /// The next of each subject has its turn.
    fn finish(&mut self, events: &[Arc<Event>]) {
        self.events_count -= events.len();
        for event in events {
            match self.lanes.get_mut(&event.subject).and_then(VecDeque::pop_front) {
                Some(next) => self.ready.push_back(next),
                None => _ = self.lanes.remove(&event.subject),
            }
        }
    }

    fn failed(&mut self, id: BatchId, mut batch: Batch, chance: u8, now: Millis) -> Ended {
        batch.failures = batch.failures.saturating_add(1);
        let until = batch.first_at.saturating_add(WEBHOOK_GIVE_UP_MS);
        if now >= until {
            self.finish(&batch.events);
            return Ended::GivenUp(batch.events);
        }
        let others_go_through = self.delivered_at.is_some_and(|at| at >= batch.first_at);
        let may_split = batch.events.len() > 1 && (batch.failures >= WEBHOOK_SPLIT_AFTER || batch.is_probe);
        if may_split && (others_go_through || batch.is_probe || !self.is_probing) {
            let count = batch.events.len();
            self.is_probing |= !others_go_through;
            let is_at_once = others_go_through || !batch.is_probe;
            let due = if is_at_once { now } else { pause(batch.failures, chance, now).min(until) };
            let (left, right) = batch.events.split_at(batch.events.len() / 2);
            for events in [left, right] {
                let part =
                    self.insert(Batch { events: events.into(), body: None, is_probe: !others_go_through, ..batch });
                self.pausing.insert((due, part));
            }
            return Ended::Retried(count);
        }
        let count = batch.events.len();
        self.pausing.insert((pause(batch.failures, chance, now).min(until), id));
        self.batches.insert(id, batch);
        Ended::Retried(count)
    }
}

/// When a batch is tried again after so many failures.
fn pause(failures: u32, chance: u8, now: Millis) -> Millis {
    let doubled = WEBHOOK_PAUSE_MS_MIN.saturating_mul(1 << failures.saturating_sub(1).min(16));
    let ms = doubled.min(WEBHOOK_PAUSE_MS_MAX);
    now.saturating_add(ms - ms / 4 * u64::from(chance) / 255)
}

#[cfg(test)]
mod tests;
