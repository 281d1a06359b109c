//! What a node of a cluster and its Redis tell each other, sans-IO: who is here goes in, calls of the script come out, and
//! their answers bring the events that this node is to deliver.
//!
//! Redis counts the nodes that have a subject, and keeps what receivers were told, the differences that wait, and the
//! events that are not delivered (`tell.lua`). One node is the *teller*: it makes events of differences, and delivers them.
//! Another takes its place when its lease is over, and has all that was not delivered.
//!
//! ```text
//!                   first call                           more than a lease without a call,
//!   unregistered ──────────────► registering ─► registered ──── or the connection was lost ──► unregistered
//!                                 all that is here            (the earlier registration stays until the next one
//!                                 is said                      has said all; then it is swept as a dead node's is)
//!
//!                another's lease is over         all that was told is read
//!   follower ──────────────────────────► loading ─────────────────────────► telling ◄──┐ another epoch, or fewer events
//!      ▲                                    │                                  │       │ than there were: Redis has lost
//!      └────────────────────────────────────┴──────────────────────────────────┴► restoring
//!              another is the teller, or the teller goes away and has given its lease up
//! ```
//!
//! What is here and which events are not finished is state. What was told is Redis' state, of which the teller keeps a
//! copy, so that a Redis that comes back empty learns it again.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use super::event::{Event, Subject};
use crate::cluster::tell::{Change, Tell, Told};
use crate::limits::{
    WEBHOOK_CALL_CHANGES_MAX, WEBHOOK_CALL_EVENTS_MAX, WEBHOOK_CALL_MS, WEBHOOK_FRESH_VOLUNTEER_MS, WEBHOOK_GATHER_MS,
    WEBHOOK_HOLD_MS, WEBHOOK_LEASE_MS, WEBHOOK_LOST_HOLD_MS, WEBHOOK_LOST_VOLUNTEER_MS, WEBHOOK_REGISTRATIONS_MAX,
    WEBHOOK_SWEEP_AFTER_MS, WEBHOOK_SWEEP_HOLD_MS, WEBHOOK_TELLER_CALL_MS,
};
use crate::time::Millis;

/// What an answer means for what is being delivered.
#[derive(Debug, PartialEq, Eq)]
pub enum News {
    /// This is to be delivered.
    Event(Arc<Event>),
    /// Another node delivers from now on, or all is given out anew: what is here is not to be tried again.
    Forget,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Registry {
    base: Arc<str>,
    run: u64,
    events_max: usize,
    generation: u64,
    /// Calls so far: no two begin an epoch of the same name.
    calls: u64,
    is_first_call: bool,
    earlier: Vec<String>,
    here: HashMap<Subject, Here>,
    /// Subjects of which Redis is to hear, each once.
    changed: VecDeque<Subject>,
    /// What the call under way says of them.
    said: Vec<(Subject, bool)>,
    call: Call,
    /// Since when calls have been answered without a break.
    answered_since: Option<Millis>,
    /// Not before then does this node take the teller's place.
    volunteers_at: Option<Millis>,
    epoch: Option<String>,
    role: Role,
    /// When the last answered call was made: so long the lease counts from.
    leased_at: Option<Millis>,
    /// Whether the call under way ends the earlier registrations.
    ends_earlier: bool,
    /// The last event known.
    last: u64,
    /// Subjects that receivers were told are present, as the teller knows them.
    told: HashSet<String>,
    /// Events that are not finished, with their texts in Redis.
    events: BTreeMap<u64, String>,
    finished: Vec<u64>,
    coalesced: u64,
    /// Whether the node goes away: it is the teller no more, once it can give that up.
    is_leaving: bool,
}

#[derive(Clone, Copy, Debug)]
struct Here {
    is_present: bool,
    /// What the registration says in Redis.
    is_said: bool,
    hold_ms: u64,
    is_queued: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Call {
    /// None is under way; the next is due then.
    Due(Millis),
    /// Made then, and not answered.
    UnderWay(Millis),
}

#[derive(Debug)]
enum Role {
    /// Another is the teller, or none.
    Follower,
    /// The teller, which reads what was told from there on.
    Loading(String),
    /// The teller.
    Telling,
    /// It has what Redis has lost: the changes that are still to be said, and whether it is the teller.
    Restoring(VecDeque<Change>, bool),
}

impl Registry {
    /// For the node with this run. Names in Redis begin with `prefix`; there are at most `events_max` events.
    pub fn new(prefix: &str, run: u64, events_max: usize) -> Registry {
        Registry {
            base: format!("{prefix}:webhooks:{{w}}").into(),
            run,
            events_max,
            generation: 0,
            calls: 0,
            is_first_call: true,
            earlier: Vec::new(),
            here: HashMap::new(),
            changed: VecDeque::new(),
            said: Vec::new(),
            call: Call::Due(Millis(0)),
            answered_since: None,
            volunteers_at: None,
            epoch: None,
            role: Role::Follower,
            leased_at: None,
            ends_earlier: false,
            last: 0,
            told: HashSet::new(),
            events: BTreeMap::new(),
            finished: Vec::new(),
            coalesced: 0,
            is_leaving: false,
        }
    }

    /// A subject has turned present or absent on this node.
    pub fn turned(&mut self, subject: Subject, is_present: bool, hold_ms: u64, now: Millis) {
        let fresh = Here { is_present: false, is_said: false, hold_ms, is_queued: false };
        let here = self.here.entry(subject.clone()).or_insert(fresh);
        (here.is_present, here.hold_ms) = (is_present, hold_ms);
        if !here.is_queued {
            here.is_queued = true;
            self.changed.push_back(subject);
            self.hasten(now);
        }
    }

    /// An event was delivered, or given up: Redis need not keep it.
    pub fn finished(&mut self, number: u64, now: Millis) {
        if self.events.remove(&number).is_some() {
            self.finished.push(number);
            self.hasten(now);
        }
    }

    /// Whether events may be delivered: this node is the teller, as far as it can know.
    pub fn may_deliver(&self, now: Millis) -> bool {
        match self.role {
            Role::Follower | Role::Restoring(_, false) => false,
            Role::Loading(_) | Role::Telling | Role::Restoring(_, true) => {
                self.leased_at.is_some_and(|at| now.since(at) < WEBHOOK_LEASE_MS)
            }
        }
    }

    /// Whether this node is the teller.
    pub fn is_teller(&self) -> bool {
        !matches!(self.role, Role::Follower | Role::Restoring(_, false))
    }

    /// The node goes away: where it is the teller, its next call gives that up, and another need not wait for the end of the
    /// lease. It does not become it again.
    pub fn leave(&mut self, now: Millis) {
        self.is_leaving = true;
        if let (true, Call::Due(due)) = (self.gives_up(), self.call) {
            self.call = Call::Due(due.min(now));
        }
    }

    /// Whether the next call ends this node's time as the teller. What Redis has lost it learns again before.
    fn gives_up(&self) -> bool {
        self.is_leaving && matches!(self.role, Role::Loading(_) | Role::Telling)
    }

    /// Whether Redis has heard of all that is here, and of all that is finished.
    pub fn is_settled(&self) -> bool {
        self.changed.is_empty() && self.said.is_empty() && self.finished.is_empty()
    }

    /// Changes that Redis has not heard of.
    pub fn waiting(&self) -> usize {
        self.changed.len() + self.said.len()
    }

    /// Changes that were undone before Redis heard of them.
    pub fn coalesced(&self) -> u64 {
        self.coalesced
    }

    /// When [`Registry::next_call`] has a call, if none is under way.
    pub fn next_at(&self) -> Option<Millis> {
        match self.call {
            Call::Due(due) => Some(due),
            Call::UnderWay(_) => None,
        }
    }

    /// The next call, if it is due.
    pub fn next_call(&mut self, now: Millis) -> Option<Tell> {
        let Call::Due(due) = self.call else { return None };
        if due > now {
            return None;
        }
        self.call = Call::UnderWay(now);
        self.calls += 1;
        let mut changes = self.restored();
        let gives_up = self.gives_up();
        let makes_events = matches!(self.role, Role::Telling) && !gives_up;
        self.say_changes(&mut changes);
        let told_cursor = match &self.role {
            Role::Loading(cursor) => Some(cursor.clone()),
            Role::Follower | Role::Telling | Role::Restoring(..) => None,
        };
        self.ends_earlier = self.changed.is_empty();
        let volunteers = match self.role {
            Role::Telling | Role::Follower | Role::Loading(_) if self.is_leaving => false,
            // Whoever knows what was told comes first; the others do not know yet whether Redis still has it.
            Role::Telling | Role::Restoring(_, true) => true,
            Role::Restoring(_, false) => false,
            Role::Follower | Role::Loading(_) => {
                self.answered_since.is_some() && self.volunteers_at.is_some_and(|at| at <= now)
            }
        };
        let connected_ms = self.answered_since.map(|since| now.since(since));
        let finished = self.finished[..self.finished.len().min(WEBHOOK_CALL_CHANGES_MAX)].to_vec();
        Some(Tell {
            base: self.base.clone(),
            registration: self.registration(),
            is_first: self.is_first_call,
            seed: format!("{:016x}.{}", self.run, self.calls),
            caller: format!("{:016x}", self.run),
            volunteers,
            lease_ms: WEBHOOK_LEASE_MS,
            teller_lease_ms: if gives_up { 0 } else { WEBHOOK_LEASE_MS },
            last: self.last,
            events_wanted: WEBHOOK_CALL_EVENTS_MAX,
            events_max: self.events_max,
            makes_events,
            sweeps: connected_ms.is_some_and(|ms| ms >= WEBHOOK_SWEEP_AFTER_MS),
            sweep_hold_ms: WEBHOOK_SWEEP_HOLD_MS,
            told_cursor,
            earlier: self.earlier.clone(),
            earlier_are_over: self.ends_earlier,
            finished,
            changes,
        })
    }

    /// The call was not answered, or not as it should be: if it `was_sent`, what became of it is not known. The next is made
    /// after `again_ms`.
    pub fn failed(&mut self, was_sent: bool, again_ms: u64, now: Millis) {
        self.call = Call::Due(now.saturating_add(again_ms));
        self.answered_since = None;
        match was_sent {
            true => self.register_anew(),
            false => self.take_back(),
        }
        if let Role::Restoring(_, is_teller) = self.role {
            self.role = self.restoring(is_teller, false);
        }
    }

    /// The call was answered.
    pub fn answered(&mut self, told: Told, now: Millis) -> Vec<News> {
        let Call::UnderWay(made_at) = self.call else { return Vec::new() };
        if !told.is_registered {
            // Redis may have lost everything: what it has is not known before the next answer.
            self.answered_since = None;
            self.call = Call::Due(now);
            self.register_anew();
            return Vec::new();
        }
        self.answered_since.get_or_insert(now);
        self.leased_at = Some(made_at);
        self.is_first_call = false;
        self.heard();
        let mut news = Vec::new();
        self.take_role(&told, now, &mut news);
        let is_between = matches!(self.role, Role::Loading(_) | Role::Restoring(..));
        for (number, text) in &told.events {
            self.take_event(*number, text, &mut news);
        }
        let is_full = self.changed.len() + self.finished.len() >= WEBHOOK_CALL_CHANGES_MAX;
        let has_more = told.has_more || is_between || is_full || told.events.len() >= WEBHOOK_CALL_EVENTS_MAX;
        let pause_ms = match (self.changed.is_empty() && self.finished.is_empty(), self.is_teller()) {
            _ if has_more || self.gives_up() => 0,
            (false, _) => WEBHOOK_GATHER_MS,
            (true, true) => WEBHOOK_TELLER_CALL_MS,
            (true, false) => WEBHOOK_CALL_MS,
        };
        self.call = Call::Due(made_at.saturating_add(pause_ms).max(now));
        news
    }

    fn registration(&self) -> String {
        format!("{:016x}.{}", self.run, self.generation)
    }

    /// What is to be restored next.
    fn restored(&mut self) -> Vec<Change> {
        match &mut self.role {
            Role::Restoring(changes, _) => {
                let count = changes.len().min(WEBHOOK_CALL_CHANGES_MAX);
                changes.drain(..count).collect()
            }
            Role::Follower | Role::Loading(_) | Role::Telling => Vec::new(),
        }
    }

    /// What Redis has to hear of the subjects here, as much as fits into one call.
    fn say_changes(&mut self, changes: &mut Vec<Change>) {
        while changes.len() < WEBHOOK_CALL_CHANGES_MAX
            && let Some(subject) = self.changed.pop_front()
        {
            let Some(here) = self.here.get_mut(&subject) else { continue };
            here.is_queued = false;
            if here.is_present == here.is_said {
                self.coalesced += 1;
                if !here.is_present {
                    self.here.remove(&subject);
                }
                continue;
            }
            let text = subject.encode();
            changes.push(match here.is_present {
                true => Change::Present(text, here.hold_ms),
                false => Change::Absent(text, here.hold_ms),
            });
            self.said.push((subject, here.is_present));
        }
    }

    /// Redis has heard what the call said.
    fn heard(&mut self) {
        for (subject, is_present) in std::mem::take(&mut self.said) {
            let Some(here) = self.here.get_mut(&subject) else { continue };
            here.is_said = is_present;
            if !here.is_present && !here.is_said && !here.is_queued {
                self.here.remove(&subject);
            }
        }
        let finished = self.finished.len().min(WEBHOOK_CALL_CHANGES_MAX);
        self.finished.drain(..finished);
        if self.ends_earlier {
            self.earlier.clear();
        }
    }

    /// The next call comes soon, where Redis answers.
    fn hasten(&mut self, now: Millis) {
        if let (Some(_), Call::Due(due)) = (self.answered_since, self.call) {
            self.call = Call::Due(due.min(now.saturating_add(WEBHOOK_GATHER_MS)));
        }
    }

    /// What the call said is to be said again.
    fn take_back(&mut self) {
        for (subject, _) in std::mem::take(&mut self.said) {
            if let Some(here) = self.here.get_mut(&subject)
                && !here.is_queued
            {
                here.is_queued = true;
                self.changed.push_back(subject);
            }
        }
    }

    /// Redis may have lost what was said last: all that is here is said under a new registration.
    fn register_anew(&mut self) {
        let registration = self.registration();
        self.earlier.push(registration);
        if self.earlier.len() > WEBHOOK_REGISTRATIONS_MAX {
            self.earlier.remove(0);
        }
        self.generation += 1;
        self.is_first_call = true;
        self.said.clear();
        self.changed.clear();
        self.here.retain(|_, here| here.is_present);
        for (subject, here) in &mut self.here {
            (here.is_said, here.is_queued, here.hold_ms) = (false, true, WEBHOOK_HOLD_MS);
            self.changed.push_back(subject.clone());
        }
    }

    /// What the answer says about who is the teller, and what Redis has lost.
    fn take_role(&mut self, answer: &Told, now: Millis, news: &mut Vec<News>) {
        let has_lost_all = self.epoch.as_ref().is_some_and(|known| *known != answer.epoch);
        let is_new_here = self.epoch.is_none();
        self.epoch = Some(answer.epoch.clone());
        if is_new_here {
            self.volunteers_at.get_or_insert(now.saturating_add(WEBHOOK_FRESH_VOLUNTEER_MS));
        }
        let has_copy = !matches!(self.role, Role::Follower | Role::Loading(_));
        let has_lost_some = answer.is_teller && !answer.has_become_teller && answer.last < self.last;
        if has_copy && (has_lost_all || has_lost_some) {
            self.role = self.restoring(answer.is_teller, has_lost_all);
            return;
        }
        if has_lost_all && !answer.is_teller {
            // Whoever was the teller knows what was told, and comes first.
            self.volunteers_at = Some(now.saturating_add(WEBHOOK_LOST_VOLUNTEER_MS));
        }
        if !answer.is_teller {
            match &self.role {
                Role::Restoring(changes, false) if !changes.is_empty() => {}
                Role::Follower => {}
                Role::Loading(_) | Role::Telling | Role::Restoring(..) => {
                    match self.is_leaving {
                        true => tracing::info!("this node leaves telling the webhooks' receivers to another"),
                        false => tracing::info!("another node tells the webhooks' receivers from now on"),
                    }
                    self.forget(Role::Follower, news);
                }
            }
            return;
        }
        if answer.has_become_teller {
            tracing::info!("this node tells the webhooks' receivers from now on");
            return self.forget(Role::Loading("0".to_owned()), news);
        }
        match &mut self.role {
            Role::Loading(cursor) => {
                self.told.extend(answer.told.iter().cloned());
                match &*answer.told_cursor {
                    "0" | "" => self.role = Role::Telling,
                    next => next.clone_into(cursor),
                }
            }
            Role::Restoring(changes, _) if changes.is_empty() => self.role = Role::Telling,
            Role::Restoring(..) => {}
            Role::Follower => self.forget(Role::Loading("0".to_owned()), news),
            Role::Telling => {}
        }
    }

    /// What this node knows and Redis does not: all of it, or what may be wrong there.
    fn restoring(&self, is_teller: bool, has_lost_all: bool) -> Role {
        tracing::warn!(
            told = self.told.len(),
            events = self.events.len(),
            "Redis has lost what receivers were told: it learns it again"
        );
        let mut changes = VecDeque::new();
        if is_teller && !has_lost_all {
            changes.push_back(Change::ClearTold);
        }
        changes.push_back(Change::Last(self.last));
        let number_of = |number| if is_teller { number } else { 0 };
        changes.extend(self.events.iter().map(|(number, text)| Change::Event(text.clone(), number_of(*number))));
        changes.extend(self.told.iter().map(|subject| Change::WasTold(subject.clone(), WEBHOOK_LOST_HOLD_MS)));
        Role::Restoring(changes, is_teller)
    }

    fn forget(&mut self, role: Role, news: &mut Vec<News>) {
        self.role = role;
        self.last = 0;
        self.told.clear();
        self.events.clear();
        self.finished.clear();
        news.push(News::Forget);
    }

    fn take_event(&mut self, number: u64, text: &str, news: &mut Vec<News>) {
        if !self.is_teller() || self.events.contains_key(&number) {
            return;
        }
        self.last = self.last.max(number);
        let Some((is_present, id, subject)) = read_event(text) else { return self.finished.push(number) };
        match is_present {
            true => _ = self.told.insert(subject.encode()),
            false => _ = self.told.remove(&subject.encode()),
        }
        self.events.insert(number, text.to_owned());
        news.push(News::Event(Arc::new(Event { number, id: id.into(), subject, is_present })));
    }
}

/// An event as Redis keeps it: `1` or `0`, the id, a blank, the subject.
fn read_event(text: &str) -> Option<(bool, &str, Subject)> {
    let (id, subject) = text.get(1..)?.split_once(' ')?;
    Some((text.starts_with('1'), id, Subject::decode(subject)?))
}

#[cfg(test)]
mod tests;
