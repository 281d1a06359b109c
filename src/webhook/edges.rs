//! Where events come from: the ledger of a node alone, with its journal, or the registry of a node of a cluster.

use super::event::{Event, Subject};
use super::journal::{Journal, Place};
use super::ledger::Ledger;
use super::registry::{News, Registry};
use crate::limits::WEBHOOK_RETURN_MS;
use crate::time::Millis;

/// See the module's documentation.
pub(super) enum Edges {
    Alone(Ledger, Kept),
    Cluster(Registry),
}

/// Where a node alone keeps its events.
pub(super) enum Kept {
    /// In memory.
    Memory,
    /// In files that another process still has, or that cannot be used: tried again then.
    Awaited(Place, Millis),
    Journal(Journal),
}

/// Between two attempts to open the journal, in milliseconds.
const OPEN_AGAIN_MS: u64 = 500;

impl Edges {
    pub(super) fn turned(&mut self, subject: Subject, is_present: bool, hold_ms: u64, now: Millis) {
        match self {
            Edges::Alone(ledger, _) => ledger.turned(subject, is_present, hold_ms, now),
            Edges::Cluster(registry) => registry.turned(subject, is_present, hold_ms, now),
        }
    }

    /// The next event of a node alone, where there may be one more.
    pub(super) fn take_due(&mut self, now: Millis) -> Option<Event> {
        match self {
            Edges::Alone(_, Kept::Awaited(..)) | Edges::Cluster(_) => None,
            Edges::Alone(ledger, Kept::Memory) => ledger.take_due(now),
            Edges::Alone(ledger, Kept::Journal(journal)) => {
                let event = ledger.take_due(now)?;
                journal.made(&event);
                Some(event)
            }
        }
    }

    /// An event was delivered to all, or given up.
    pub(super) fn finished(&mut self, number: u64, now: Millis) {
        match self {
            Edges::Alone(_, Kept::Journal(journal)) => journal.finished(number),
            Edges::Alone(_, Kept::Memory | Kept::Awaited(..)) => {}
            Edges::Cluster(registry) => registry.finished(number, now),
        }
    }

    /// What was written down in this turn goes to the file. Opens the journal, if that is due: what an earlier run has not
    /// delivered is to be delivered now.
    pub(super) fn keep(&mut self, now: Millis) -> Vec<News> {
        let Edges::Alone(ledger, kept) = self else { return Vec::new() };
        match kept {
            Kept::Memory => Vec::new(),
            Kept::Journal(journal) => {
                journal.flush();
                Vec::new()
            }
            Kept::Awaited(_, due) if *due > now => Vec::new(),
            Kept::Awaited(place, due) => match place.open() {
                Ok((journal, events, told)) => {
                    *kept = Kept::Journal(journal);
                    let until = now.saturating_add(WEBHOOK_RETURN_MS);
                    told.into_iter().for_each(|subject| ledger.told_before(subject, until));
                    ledger.go_on_behind(events.last().map_or(0, |event| event.number));
                    events.into_iter().map(|event| News::Event(event.into())).collect()
                }
                Err(error) => {
                    place.warn(&error);
                    *due = now.saturating_add(OPEN_AGAIN_MS);
                    Vec::new()
                }
            },
        }
    }

    /// Whether events may be delivered by this node.
    pub(super) fn may_deliver(&self, now: Millis) -> bool {
        match self {
            Edges::Alone(..) => true,
            Edges::Cluster(registry) => registry.may_deliver(now),
        }
    }

    /// When there is something to do, at the latest.
    pub(super) fn next_at(&self) -> Option<Millis> {
        match self {
            Edges::Alone(_, Kept::Awaited(_, due)) => Some(*due),
            Edges::Alone(ledger, _) => ledger.next_at(),
            Edges::Cluster(registry) => registry.next_at(),
        }
    }

    /// Edges that wait here, and how many were undone.
    pub(super) fn counts(&self) -> (u64, u64) {
        match self {
            Edges::Alone(ledger, _) => (ledger.held() as u64, ledger.coalesced()),
            Edges::Cluster(registry) => (registry.waiting() as u64, registry.coalesced()),
        }
    }

    /// Whether this node is the one that delivers.
    pub(super) fn is_teller(&self) -> bool {
        match self {
            Edges::Alone(..) => true,
            Edges::Cluster(registry) => registry.is_teller(),
        }
    }

    /// The node goes away, and leaves what is to be delivered to another; whether it has.
    pub(super) fn leave(&mut self, now: Millis) -> bool {
        match self {
            Edges::Alone(..) => true,
            Edges::Cluster(registry) => {
                registry.leave(now);
                !registry.is_teller()
            }
        }
    }

    /// Whether nothing is left to be said to others.
    pub(super) fn is_settled(&self) -> bool {
        match self {
            Edges::Alone(..) => true,
            Edges::Cluster(registry) => registry.is_settled(),
        }
    }
}
