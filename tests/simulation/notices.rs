//! Join and leave notices. They carry no name of their own, so they are counted: between two rests of the network
//! every member hears at least those that it must, and at most those that it may.

use std::collections::{BTreeMap, BTreeSet};

use super::oracle::{Death, GuestAt, NEVER, Op, Tick, TopicAt, Verdict, verdict};

/// How many members a room may have and still get notices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Audience {
    Nobody,
    /// Depends on how many there are at that moment.
    Few,
    #[default]
    All,
}

/// See the module's documentation.
#[derive(Default)]
pub struct Notices {
    pub audience: Audience,
    /// The topics that have notices.
    pub rooms: BTreeSet<TopicAt>,
    heard: BTreeMap<Hearing, usize>,
}

/// Who heard of whom: room, listener, user, and whether it was a join.
type Hearing = (TopicAt, GuestAt, String, bool);

/// The model's joins and leaves by room and guest.
type Ops = BTreeMap<(TopicAt, GuestAt), Vec<Op>>;

/// Everybody's user and death.
pub type People<'a> = [(&'a str, Option<Death>)];

/// Something that members are told of.
struct Event {
    room: TopicAt,
    by: GuestAt,
    joins: bool,
    sent: Tick,
    done: Tick,
    /// Whether it took place for sure.
    is_certain: bool,
}

impl Notices {
    /// A notice has come.
    pub fn hear(&mut self, room: TopicAt, guest: GuestAt, user: &str, joins: bool) {
        *self.heard.entry((room, guest, user.to_owned(), joins)).or_default() += 1;
    }

    /// Judges everything from `since` to `now`, when the network is at rest.
    pub fn settle(&mut self, ops: &Ops, people: &People<'_>, since: Tick, now: Tick, lenient: bool) {
        let events: Vec<Event> = ops
            .iter()
            .filter(|((room, _), _)| self.rooms.contains(room))
            .flat_map(|(&(room, by), ops)| events_of(room, by, ops, people[by].1, since, now))
            .collect();
        let mut bounds: BTreeMap<Hearing, (usize, usize)> = BTreeMap::new();
        for (&(room, guest), ops) in ops {
            for event in events.iter().filter(|event| event.room == room) {
                let verdict = match event.by == guest {
                    true if event.joins => Verdict::Must,
                    true => Verdict::MustNot,
                    false => verdict(ops, event.sent, event.done),
                };
                let demanded = event.is_certain && !lenient && people[guest].1.is_none();
                let user = people[event.by].0.to_owned();
                let (least, most) = bounds.entry((room, guest, user, event.joins)).or_default();
                *least += usize::from(verdict == Verdict::Must && demanded && self.audience == Audience::All);
                *most += usize::from(verdict != Verdict::MustNot && self.audience != Audience::Nobody);
            }
        }
        for hearing in self.heard.keys() {
            bounds.entry(hearing.clone()).or_default();
        }
        for (hearing, (least, most)) in bounds {
            let heard = self.heard.get(&hearing).copied().unwrap_or(0);
            let (room, guest, user, joins) = &hearing;
            let what = if *joins { "joins" } else { "leaves" };
            assert!(
                (least..=most).contains(&heard),
                "guest {guest} heard of {heard} {what} of {user} in {room:?}: at least {least}, at most {most}"
            );
        }
        self.heard.clear();
    }
}

/// What the members of a room are told of one guest.
fn events_of(room: TopicAt, by: GuestAt, ops: &[Op], death: Option<Death>, since: Tick, now: Tick) -> Vec<Event> {
    let done = |at: usize| ops[at..].iter().map(|op| op.done).min().unwrap_or(NEVER);
    let changes = ops.iter().enumerate().filter(|(_, op)| op.changes && op.sent > since);
    let mut events: Vec<Event> = changes
        .map(|(at, op)| {
            let is_certain = death.is_none() || done(at) != NEVER;
            Event { room, by, joins: op.joins, sent: op.sent, done: done(at).min(now), is_certain }
        })
        .collect();
    if let (Some(death), Some(last)) = (death, ops.last()) {
        let known = last.done != NEVER;
        if last.joins || !known {
            let sent = if death.is_certain { death.at } else { since };
            events.push(Event { room, by, joins: false, sent, done: now, is_certain: known });
        }
    }
    events
}
