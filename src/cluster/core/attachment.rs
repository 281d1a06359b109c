//! How a feed stands with its topic's home.
//!
//! ```text
//!                open                    opened
//!   Detached ───────────► Pending ───────────────────► Attached
//!    ▲  ▲  ▲                │  │ out of reach            │ ▲
//!    │  │  └──── close ─────┘  ▼                         │ │
//!    │  └─────── close ──── LocalOnly ───── opened ──────┼─┘
//!    └────────────────────── close ──────────────────────┘
//! ```
//!
//! `open` leads to `Pending` from everywhere. What a state holds ends with it: tickets are given back, acks go out, and
//! the answer to a load that comes later is dropped.

use std::collections::{BTreeSet, VecDeque};

use super::Core;
use super::fences::{HeldAck, Ticket};
use super::loads::Load;
use crate::limits::CLUSTER_LINGER_MS;
use crate::router::cluster::AttachId;
use crate::time::Millis;

/// See the module's documentation.
///
/// Which state it is, its attach, since when a member is missing and the acks that are held are state. Tickets follow
/// from what is waited for, and a check or a load can be asked for again.
#[derive(Debug)]
pub(super) enum Attachment {
    /// The home does not want the feed: it lingers, in case a member comes back.
    Detached {
        /// Since when there is no member here.
        since: Millis,
    },
    /// The home waits to hear that the feed is open.
    Pending { attach: AttachId, ticket: Ticket },
    /// The home was told that the cluster is out of reach: its members have only each other.
    LocalOnly { attach: AttachId },
    /// The home gets what comes.
    Attached(Attached),
}

/// What there is only while a home gets what comes.
#[derive(Debug)]
pub(super) struct Attached {
    pub(super) attach: AttachId,
    /// Since when there is no member here, as far as the home has said so.
    pub(super) idle_since: Option<Millis>,
    /// Held while the home waits to hear that all that is new is here.
    pub(super) check: Option<Ticket>,
    /// Acks of messages that are not here yet, in order.
    pub(super) acks: VecDeque<HeldAck>,
    /// Older messages that the home waits for.
    pub(super) load: Option<Load>,
}

impl Attachment {
    pub(super) fn attached(attach: AttachId) -> Attachment {
        Attachment::Attached(Attached { attach, idle_since: None, check: None, acks: VecDeque::new(), load: None })
    }

    /// By which the home knows what is for it; `None` where it wants nothing.
    pub(super) fn attach(&self) -> Option<AttachId> {
        match self {
            Attachment::Detached { .. } => None,
            Attachment::Pending { attach, .. } | Attachment::LocalOnly { attach } => Some(*attach),
            Attachment::Attached(attached) => Some(attached.attach),
        }
    }

    /// Since when there is no member here, as far as that is known.
    pub(super) fn idle_since(&self) -> Option<Millis> {
        match self {
            Attachment::Detached { since } => Some(*since),
            Attachment::Pending { .. } | Attachment::LocalOnly { .. } => None,
            Attachment::Attached(attached) => attached.idle_since,
        }
    }

    pub(super) fn as_attached(&self) -> Option<&Attached> {
        match self {
            Attachment::Attached(attached) => Some(attached),
            Attachment::Detached { .. } | Attachment::Pending { .. } | Attachment::LocalOnly { .. } => None,
        }
    }

    pub(super) fn as_attached_mut(&mut self) -> Option<&mut Attached> {
        match self {
            Attachment::Attached(attached) => Some(attached),
            Attachment::Detached { .. } | Attachment::Pending { .. } | Attachment::LocalOnly { .. } => None,
        }
    }

    /// The tickets it holds.
    #[cfg(any(test, debug_assertions))]
    pub(super) fn tickets(&self) -> impl Iterator<Item = &Ticket> {
        let pending = match self {
            Attachment::Pending { ticket, .. } => Some(ticket),
            Attachment::Detached { .. } | Attachment::LocalOnly { .. } | Attachment::Attached(_) => None,
        };
        let of_attached = self.as_attached().into_iter().flat_map(|attached| {
            let of_acks = attached.acks.iter().map(|ack| &ack.ticket);
            of_acks.chain(&attached.check).chain(attached.load.as_ref().map(|load| &load.ticket))
        });
        pending.into_iter().chain(of_attached)
    }

    /// Whether the home waits for nothing, or cannot be helped.
    #[cfg(any(test, debug_assertions))]
    pub(super) fn is_at_rest(&self) -> bool {
        match self {
            Attachment::Detached { .. } => true,
            Attachment::Pending { .. } | Attachment::LocalOnly { .. } => false,
            Attachment::Attached(attached) => attached.check.is_none() && attached.load.is_none(),
        }
    }
}

/// Feeds without a member here, each once, by when it has lingered long enough. It follows from the feeds.
#[derive(Debug, Default)]
pub(super) struct Lingering(BTreeSet<(Millis, usize)>);

impl Lingering {
    fn note(&mut self, at: usize, since: Option<Millis>) {
        if let Some(since) = since {
            self.0.insert((since.saturating_add(CLUSTER_LINGER_MS), at));
        }
    }

    fn forget(&mut self, at: usize, since: Option<Millis>) {
        if let Some(since) = since {
            self.0.remove(&(since.saturating_add(CLUSTER_LINGER_MS), at));
        }
    }

    pub(super) fn take_due(&mut self, now: Millis) -> Option<usize> {
        let due = self.0.pop_first()?;
        if due.0 > now {
            self.0.insert(due);
            return None;
        }
        Some(due.1)
    }
}

impl Core {
    /// All changes of state go through here.
    pub(super) fn set_attachment(&mut self, at: usize, next: Attachment) {
        let since = next.idle_since();
        let before = std::mem::replace(&mut self.feeds[at].attachment, next);
        self.lingering.forget(at, before.idle_since());
        self.lingering.note(at, since);
        match before {
            Attachment::Detached { .. } | Attachment::LocalOnly { .. } => {}
            Attachment::Pending { ticket, .. } => self.tickets.give_back(ticket),
            Attachment::Attached(Attached { check, acks, load, .. }) => {
                let tickets = check.into_iter().chain(load.map(|load| load.ticket));
                tickets.for_each(|ticket| self.tickets.give_back(ticket));
                acks.into_iter().for_each(|ack| self.send_ack(ack));
            }
        }
    }

    /// There is no member here any more. The home keeps the topic open in case a member comes back.
    pub(super) fn set_idle(&mut self, at: usize, attach: AttachId) {
        let Some(attached) = self.feeds[at].attachment.as_attached_mut() else { return };
        if attached.attach == attach {
            let before = attached.idle_since.replace(self.now);
            self.lingering.forget(at, before);
            self.lingering.note(at, Some(self.now));
        }
    }
}
