//! What a node says to Redis about webhooks, and what it is answered: the arguments and the answer of `tell.lua`, sans-IO.

use std::sync::Arc;

/// One call of the script.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tell {
    /// What the names of its keys begin with; all of them are in one slot of a Redis Cluster.
    pub base: Arc<str>,
    /// The node's registration.
    pub registration: String,
    /// Whether it is made with this call.
    pub is_first: bool,
    /// What an epoch begins as, if there is none.
    pub seed: String,
    /// The node's run, as the teller is known by.
    pub caller: String,
    /// Whether the node would be the teller where there is none.
    pub volunteers: bool,
    /// How long registrations are believed without another call, in milliseconds.
    pub lease_ms: u64,
    /// The same of the teller; 0 where it is the teller no more.
    pub teller_lease_ms: u64,
    /// The last event it knows; 0 where it is not the teller.
    pub last: u64,
    /// Events that it takes now.
    pub events_wanted: usize,
    /// Events that there may be before no more are made.
    pub events_max: usize,
    /// Whether differences become events.
    pub makes_events: bool,
    /// Whether registrations whose lease is over are swept.
    pub sweeps: bool,
    /// How long the differences of those wait, in milliseconds.
    pub sweep_hold_ms: u64,
    /// Where to read on in what was told, if anywhere.
    pub told_cursor: Option<String>,
    /// The node's earlier registrations.
    pub earlier: Vec<String>,
    /// Whether these are over.
    pub earlier_are_over: bool,
    /// Events that need not be kept any more, by their numbers.
    pub finished: Vec<u64>,
    /// What has changed, in order.
    pub changes: Vec<Change>,
}

/// One change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The node has this subject. The difference, if it is one, waits so many milliseconds; the same below.
    Present(String, u64),
    /// It has it no more.
    Absent(String, u64),
    /// What was told is not known any more: what follows is all of it.
    ClearTold,
    /// Receivers were told that this subject is present.
    WasTold(String, u64),
    /// Numbers of events go on behind this one.
    Last(u64),
    /// An event that is not delivered yet; with number 0 it gets the next.
    Event(String, u64),
}

impl Change {
    /// What, of whom, how much: as the script reads it.
    pub(super) fn parts(&self) -> (&'static str, &str, u64) {
        match self {
            Change::Present(subject, hold_ms) => ("+", subject, *hold_ms),
            Change::Absent(subject, hold_ms) => ("-", subject, *hold_ms),
            Change::ClearTold => ("clear", "", 0),
            Change::WasTold(subject, hold_ms) => ("told", subject, *hold_ms),
            Change::Last(number) => ("last", "", *number),
            Change::Event(text, number) => ("event", text, *number),
        }
    }
}

/// The answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// Whether the registration was good; otherwise nothing has changed, and the node registers again.
    pub is_registered: bool,
    /// Which life of what is known in Redis.
    pub epoch: String,
    /// Whether the node is the teller.
    pub is_teller: bool,
    /// Whether it has become that with this call: another was it before, or none.
    pub has_become_teller: bool,
    /// The last event's number.
    pub last: u64,
    /// Whether there is more to do at once.
    pub has_more: bool,
    /// Where to read on in what was told; `0` is its end.
    pub told_cursor: String,
    /// Subjects that receivers were told are present.
    pub told: Vec<String>,
    /// Events that are not finished, behind the last known: number and text.
    pub events: Vec<(u64, String)>,
}
