//! A subscriber with a position of its own: one that comes, that asks for other terms, or whose socket was full.

use crate::ids::ConnId;
use crate::limits::SNAPSHOT_PASSES_MAX;
use crate::protocol::Mode;

use super::cohort::Terms;
use super::filter::ItemFilter;
use super::items::{Item, ItemState};
use super::schedule::Queued;

/// It is sent what it wants between `since` and `target`, piece by piece, each when its socket has taken the one before.
#[derive(Debug)]
pub(super) struct Lag {
    pub(super) conn: ConnId,
    /// Up to this offset it has been sent all.
    pub(super) since: u64,
    /// Up to this one it may be sent more now; what comes behind that is for the next round.
    pub(super) target: u64,
    /// Its place among those that are about to be sent a piece, if it has one.
    pub(super) queued: Option<Queued>,
    /// What it is told when it has been sent all.
    pub(super) entering: Option<Box<Entering>>,
    /// Whether it was told that nothing is published, as of when its socket took bytes.
    pub(super) told_stale: bool,
    /// Whether it is to be told that what it was sent says nothing of the items any more.
    pub(super) is_lost: bool,
}

/// A subscriber that waits for an answer.
#[derive(Debug)]
pub(super) struct Entering {
    pub(super) answer: Promised,
    /// What it had before: of that it is not sent what has not changed.
    pub(super) held: Held,
    /// Where the room was when its pass over the items began.
    pub(super) pass_to: u64,
    /// How many passes may still be made before it is answered.
    pub(super) passes_left: u32,
    /// Commands for other terms that came meanwhile.
    pub(super) tunes: Vec<Tune>,
}

impl Entering {
    /// `answer` is owed to a subscriber that has `held`, in a room that is at `last`.
    pub(super) fn new(answer: Promised, held: Held, last: u64) -> Entering {
        Entering { answer, held, pass_to: last, passes_left: SNAPSHOT_PASSES_MAX, tunes: Vec::new() }
    }

    /// A subscriber that has been sent all up to `since` is to be sent more, of a room that is at `last` by now: whether up to
    /// there. What changed meanwhile is met where it stands now, so nothing of what it wants is passed over; but where
    /// more changes than its socket takes, that has to end.
    fn goes_on(&mut self, since: u64, last: u64) -> bool {
        if since >= self.pass_to {
            self.pass_to = last;
            self.passes_left = self.passes_left.saturating_sub(1);
        }
        self.passes_left > 0
    }
}

impl Lag {
    /// One that waits for no answer.
    pub(super) fn new(conn: ConnId, since: u64, target: u64, told_stale: bool) -> Lag {
        Lag { conn, since, target, queued: None, entering: None, told_stale, is_lost: false }
    }

    /// It is about to be sent more: one that waits for an answer, of what has changed up to now as well.
    pub(super) fn aim(&mut self, last: u64) {
        if let Some(entering) = self.entering.as_deref_mut()
            && self.since < self.target
            && entering.goes_on(self.since, last)
        {
            self.target = last;
        }
    }
}

/// What a subscriber is told when it has been sent all.
#[derive(Debug)]
pub(super) enum Promised {
    /// `joined`, with the command's id as JSON text.
    Joined { id: Option<Box<str>>, recovered: Option<bool> },
    /// `ack` of a `tune`, where that has an id.
    Tuned { id: Option<Box<str>> },
    /// The end of a raw room's snapshot.
    Raw { recovered: bool },
    /// Nothing: it was told of a gap, and had asked for nothing.
    Nothing,
}

impl Promised {
    /// What it asked for behind a position cannot be told any more.
    pub(super) fn is_not_recovered(&mut self) {
        match self {
            Promised::Joined { recovered, .. } => *recovered = recovered.map(|_| false),
            Promised::Raw { recovered } => *recovered = false,
            Promised::Tuned { .. } | Promised::Nothing => {}
        }
    }
}

/// What a client has of a room before it is sent anything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Held {
    /// Of `items`, all up to this offset.
    pub(super) since: u64,
    /// Of these.
    pub(super) items: HeldItems,
}

/// Of which items a client has something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum HeldItems {
    /// Of none.
    None,
    /// Of those that its filter wanted.
    Wanted(ItemFilter),
}

/// A command for other terms.
#[derive(Clone, Debug)]
pub struct Tune {
    /// The command's id as JSON text.
    pub id: Option<Box<str>>,
    /// What is to change.
    pub change: TermsChange,
}

/// What of a subscriber's terms is to change; the rest stays.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TermsChange {
    /// Which updates.
    pub mode: Option<Mode>,
    /// Between rounds, in milliseconds.
    pub interval_ms: Option<u32>,
    /// Of which items.
    pub filter: Option<ItemFilter>,
}

impl TermsChange {
    /// The terms that follow.
    pub fn applied_to(&self, terms: &Terms) -> Terms {
        let mode = self.mode.unwrap_or(terms.mode);
        let interval_ms = match mode {
            Mode::All => 0,
            Mode::Latest => self.interval_ms.unwrap_or(terms.interval_ms),
        };
        Terms { mode, interval_ms, filter: self.filter.clone().unwrap_or_else(|| terms.filter.clone()) }
    }
}

impl Held {
    /// Nothing: of each item that has a value at `since`, that is wanted first.
    pub(super) fn nothing(since: u64) -> Held {
        Held { since, items: HeldItems::None }
    }

    /// Where the walk begins that finds what is missing.
    pub(super) fn cursor(&self, wanted: &ItemFilter) -> u64 {
        match &self.items {
            HeldItems::Wanted(held) if held == wanted || *held == ItemFilter::All => self.since,
            HeldItems::Wanted(_) | HeldItems::None => 0,
        }
    }

    /// Whether a client has to be sent an item: it has changed, or the client has nothing of it and it has a value.
    pub(super) fn lacks(&self, item: &Item) -> bool {
        item.offset > self.since || (item.state == ItemState::Present && !self.has(&item.name))
    }

    fn has(&self, item: &str) -> bool {
        match &self.items {
            HeldItems::None => false,
            HeldItems::Wanted(filter) => filter.wants(item),
        }
    }
}
