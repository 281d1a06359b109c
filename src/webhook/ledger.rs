//! What is there, what receivers were told, and which differences wait to be undone, of a node alone.
//!
//! ```text
//!                      turned                      the hold is over
//!   as told ─────────────────────────► differs ─────────────────────► an event: as told
//!      ▲                                  │
//!      └──── turned back: coalesced ──────┘
//! ```
//!
//! All of it is what it is. Of a subject that is absent and told so nothing is kept. Where the queue is full, no event is
//! made: differences wait here, and undo each other.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use super::event::{Event, Subject};
use crate::time::Millis;

/// See the module's documentation.
#[derive(Debug)]
pub struct Ledger {
    /// What ids begin with.
    epoch: Arc<str>,
    next_number: u64,
    subjects: HashMap<Subject, State>,
    due: BTreeSet<(Millis, Subject)>,
    coalesced: u64,
}

#[derive(Clone, Copy, Debug)]
struct State {
    is_present: bool,
    is_told: bool,
    /// When the difference is told.
    due: Option<Millis>,
}

impl Ledger {
    /// Nothing is there and nothing was told. No other run of a server has this epoch.
    pub fn new(epoch: &str) -> Ledger {
        Ledger { epoch: epoch.into(), next_number: 1, subjects: HashMap::new(), due: BTreeSet::new(), coalesced: 0 }
    }

    /// An earlier run has told receivers that this subject is present. Where it is not here, it may come back until then.
    pub fn told_before(&mut self, subject: Subject, until: Millis) {
        let fresh = State { is_present: false, is_told: false, due: None };
        let state = self.subjects.entry(subject.clone()).or_insert(fresh);
        state.is_told = true;
        match (state.is_present, state.due.take()) {
            (true, Some(due)) => _ = self.due.remove(&(due, subject)),
            (true, None) => {}
            (false, _) => {
                state.due = Some(until);
                self.due.insert((until, subject));
            }
        }
    }

    /// Events of an earlier run have numbers up to this one.
    pub fn go_on_behind(&mut self, number: u64) {
        self.next_number = self.next_number.max(number + 1);
    }

    /// A subject has turned present or absent. The difference is told after `hold_ms`, unless it is undone.
    pub fn turned(&mut self, subject: Subject, is_present: bool, hold_ms: u64, now: Millis) {
        let fresh = State { is_present: false, is_told: false, due: None };
        let state = self.subjects.entry(subject.clone()).or_insert(fresh);
        state.is_present = is_present;
        match (state.is_present == state.is_told, state.due) {
            (true, Some(due)) => {
                state.due = None;
                self.due.remove(&(due, subject.clone()));
                self.coalesced += 1;
            }
            (false, None) => {
                let due = now.saturating_add(hold_ms);
                state.due = Some(due);
                self.due.insert((due, subject.clone()));
            }
            (true, None) | (false, Some(_)) => {}
        }
        let state = *state;
        if !state.is_present && !state.is_told {
            self.subjects.remove(&subject);
        }
    }

    /// The next difference whose hold is over, as an event.
    pub fn take_due(&mut self, now: Millis) -> Option<Event> {
        if self.due.first().is_none_or(|(due, _)| *due > now) {
            return None;
        }
        let (_, subject) = self.due.pop_first()?;
        let state = self.subjects.get_mut(&subject)?;
        state.due = None;
        state.is_told = state.is_present;
        let is_present = state.is_present;
        if !is_present {
            self.subjects.remove(&subject);
        }
        let number = self.next_number;
        self.next_number += 1;
        Some(Event { number, id: format!("{}-{number}", self.epoch).into(), subject, is_present })
    }

    /// When the next difference is due.
    pub fn next_at(&self) -> Option<Millis> {
        self.due.first().map(|(due, _)| *due)
    }

    /// Differences that wait.
    pub fn held(&self) -> usize {
        self.due.len()
    }

    /// Differences that were undone before they were told.
    pub fn coalesced(&self) -> u64 {
        self.coalesced
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::limits::WEBHOOK_HOLD_MS;
    use crate::router::Kind;

    fn room(name: &str) -> Subject {
        Subject::of_topic(Kind::Room, &name.into()).expect("a room")
    }

    fn told(ledger: &mut Ledger, now_ms: u64) -> Vec<(u64, bool)> {
        std::iter::from_fn(|| ledger.take_due(Millis(now_ms))).map(|event| (event.number, event.is_present)).collect()
    }

    #[test]
    fn an_edge_is_told_when_its_hold_is_over_and_not_when_it_is_undone_before() {
        let mut ledger = Ledger::new("e");
        ledger.turned(room("a"), true, 3_000, Millis(0));
        assert_eq!((ledger.next_at(), told(&mut ledger, 2_999)), (Some(Millis(3_000)), vec![]));
        assert_eq!(told(&mut ledger, 3_000), [(1, true)]);
        ledger.turned(room("a"), false, 8_000, Millis(4_000));
        ledger.turned(room("a"), true, 3_000, Millis(11_999));
        assert_eq!((told(&mut ledger, 60_000), ledger.coalesced(), ledger.held()), (vec![], 1, 0));
        ledger.turned(room("a"), false, 3_000, Millis(60_000));
        assert_eq!(told(&mut ledger, 63_000), [(2, false)]);
        assert!(ledger.subjects.is_empty());
        ledger.turned(room("b"), true, 3_000, Millis(0));
        ledger.turned(room("b"), false, 3_000, Millis(1));
        assert_eq!((told(&mut ledger, 60_000), ledger.coalesced()), (vec![], 2));
        assert!(ledger.subjects.is_empty() && ledger.due.is_empty());
    }

    #[test]
    fn what_an_earlier_run_told_is_told_back_unless_it_comes_again() {
        let mut ledger = Ledger::new("e");
        for name in ["gone", "back"] {
            ledger.told_before(room(name), Millis(8_000));
        }
        ledger.turned(room("back"), true, 3_000, Millis(5_000));
        let event = ledger.take_due(Millis(8_000)).expect("an event");
        assert_eq!((event.subject, event.is_present), (room("gone"), false));
        assert_eq!((ledger.take_due(Millis(u64::MAX)), ledger.subjects.len()), (None, 1));
    }

    proptest! {
        /// Against a model that looks at each subject's whole past: an event comes exactly where a subject has differed from
        /// what was told for the whole hold, in turns, with numbers that grow.
        #[test]
        fn events_are_the_differences_that_last(steps in prop::collection::vec((0_u8..4, any::<bool>(), 0_u64..5_000), 1..200)) {
            let mut ledger = Ledger::new("e");
            let mut model = [(false, false, 0_u64); 4];
            let (mut now, mut number) = (0, 0);
            for (which, is_present, wait) in steps {
                now += wait;
                let mut expected: Vec<(u64, u8, bool)> = Vec::new();
                for (at, (present, told, since)) in model.iter_mut().enumerate() {
                    if present != told && *since + WEBHOOK_HOLD_MS <= now {
                        *told = *present;
                        expected.push((*since, at as u8, *told));
                    }
                }
                expected.sort_unstable();
                let mut events = Vec::new();
                while let Some(event) = ledger.take_due(Millis(now)) {
                    number += 1;
                    prop_assert_eq!((event.number, event.id.to_string()), (number, format!("e-{number}")));
                    events.push((event.subject.room().expect("a room").to_string(), event.is_present));
                }
                let expected: Vec<_> = expected.into_iter().map(|(_, at, told)| (at.to_string(), told)).collect();
                prop_assert_eq!(events, expected);
                let state = &mut model[usize::from(which)];
                if state.0 != is_present {
                    (state.0, state.2) = (is_present, now);
                    ledger.turned(room(&which.to_string()), is_present, WEBHOOK_HOLD_MS, Millis(now));
                }
            }
            let kept = model.iter().filter(|(present, told, _)| *present || *told).count();
            prop_assert_eq!(ledger.subjects.len(), kept);
        }
    }
}
