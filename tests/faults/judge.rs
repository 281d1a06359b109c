//! The judge: what everybody heard against what was published and promised.
//!
//! Within an epoch a subscriber's messages of a room are contiguous from where its join said, each once and in order. Only
//! `recovered:false`, in an answer to a join or in a gap, may break that. What was acked stands at the place that its ack
//! named, what was refused nowhere, and in the end everybody stands where the room does.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::audit::{Content, Heard, Journal, Outcome, Place, Publish, ROOMS, keeps_all};

/// So many findings are told in words.
const FINDINGS_MAX: usize = 40;

/// What was found. Everything but the told gaps and the repeats must be zero.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Breaks in a subscriber's messages that it was not told of, and how many messages are missing in them.
    pub silent_gaps: u64,
    pub messages_missing: u64,
    /// Messages that a subscriber got again, or that have two places.
    pub doubles: u64,
    /// Messages behind later ones, places with two messages, and publishers whose own order is another.
    pub reorderings: u64,
    /// Acks for places where something else stands or nothing.
    pub false_acks: u64,
    /// Messages that nobody sent, or that were refused.
    pub strangers: u64,
    /// Answers that contradict what came with them.
    pub contradictions: u64,
    /// Subscribers that do not stand where their room does in the end.
    pub left_behind: u64,
    /// Told gaps within an epoch in rooms that still had everything.
    pub needless_gaps: u64,
    /// Told with `recovered:false`: in answers to joins, in gaps of members, and gaps within one epoch among those.
    pub told_joins: u64,
    pub told_gaps: u64,
    pub told_within_epoch: u64,
    /// Messages sent again by their key that came in a second epoch: its history knew nothing of the first.
    pub repeats: u64,
    /// Deliveries to subscribers.
    pub deliveries: u64,
    /// The first of what was found, in words.
    pub findings: Vec<String>,
}

impl Verdict {
    /// Whether every promise was kept.
    pub fn is_clean(&self) -> bool {
        self.faults() == 0
    }

    fn faults(&self) -> u64 {
        self.silent_gaps
            + self.doubles
            + self.reorderings
            + self.false_acks
            + self.strangers
            + self.contradictions
            + self.left_behind
            + self.needless_gaps
    }

    fn find(&mut self, finding: impl FnOnce() -> String) {
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(finding());
        }
    }
}

/// Judges a whole run. `ends` are the positions of the rooms after everything has settled.
pub fn judge(publishes: &[Publish], journals: &[Journal], ends: &[Place; ROOMS.len()]) -> Verdict {
    let mut verdict = Verdict::default();
    let mut rooms: [Truth; ROOMS.len()] = std::array::from_fn(|_| Truth::default());
    let begins = begins_of(journals);
    for journal in journals {
        let begun;
        let journal = match journal.is_page {
            true => {
                begun = page_of_epoch(journal, &begins);
                &begun
            }
            false => journal,
        };
        let end = Follower::new(journal, &mut verdict, &mut rooms[journal.room]).follow();
        if end != Some(ends[journal.room]) {
            verdict.left_behind += 1;
            let (who, room, where_to) = (journal.subscriber, ROOMS[journal.room], ends[journal.room]);
            verdict.find(|| format!("subscriber {who} stands at {end:?} of {room}, which is at {where_to:?}"));
        }
    }
    let sent: HashMap<Content, &Publish> = publishes.iter().map(|publish| (publish.content, publish)).collect();
    for (room, truth) in rooms.iter().enumerate() {
        room_is_as_published(room, truth, &sent, &mut verdict);
    }
    for publish in publishes {
        ack_is_true(publish, &rooms[publish.room], ends[publish.room], &mut verdict);
    }
    verdict
}

/// Where each room's epochs begin, as far as anybody was told.
fn begins_of(journals: &[Journal]) -> HashMap<(usize, u32), u64> {
    let mut begins = HashMap::new();
    for journal in journals.iter().filter(|journal| !journal.is_page) {
        for (_, heard) in &journal.entries {
            if let Heard::Joined { place, .. } | Heard::Gap { place } = heard {
                let begin = begins.entry((journal.room, place.epoch)).or_insert(place.offset);
                *begin = place.offset.min(*begin);
            }
        }
    }
    begins
}

/// A page without what it has from before its epoch: a Redis that kept its data has the messages of earlier ones, at the
/// places where they were.
fn page_of_epoch(page: &Journal, begins: &HashMap<(usize, u32), u64>) -> Journal {
    let mut entries = page.entries.clone();
    if let Some((_, Heard::Joined { place, .. })) = entries.get_mut(1)
        && let Some(&begin) = begins.get(&(page.room, place.epoch))
    {
        place.offset = place.offset.max(begin);
        entries.retain(|(_, heard)| !matches!(heard, Heard::Message { offset, .. } if *offset <= begin));
    }
    Journal { entries, ..*page }
}

/// What stands at each place of a room, as the first who heard it says.
#[derive(Default)]
struct Truth {
    at: BTreeMap<Place, Content>,
}

/// Reads one subscriber's journal of one room.
struct Follower<'a> {
    journal: &'a Journal,
    verdict: &'a mut Verdict,
    truth: &'a mut Truth,
    /// Up to where it has everything, in the epoch it is in.
    place: Option<Place>,
    standing: Standing,
    heard: HashSet<Place>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Standing {
    Outside,
    /// With so many messages since the join was sent.
    Asked {
        since: Option<Place>,
        replayed: u64,
    },
    Member,
}

impl<'a> Follower<'a> {
    fn new(journal: &'a Journal, verdict: &'a mut Verdict, truth: &'a mut Truth) -> Follower<'a> {
        Follower { journal, verdict, truth, place: None, standing: Standing::Outside, heard: HashSet::new() }
    }

    fn follow(mut self) -> Option<Place> {
        for &(episode, heard) in &self.journal.entries {
            match heard {
                Heard::Asked { since } => {
                    assert_eq!(since, self.place, "subscribers ask from where they are");
                    self.standing = Standing::Asked { since, replayed: 0 };
                }
                Heard::Unavailable => {
                    if let Standing::Asked { replayed: 1.., .. } = self.standing {
                        self.contradiction(episode, "messages came before a join was refused");
                    }
                    self.standing = Standing::Outside;
                }
                Heard::Joined { place, recovered } => self.joined(episode, place, recovered),
                Heard::Gap { place } => self.gap(episode, place),
                Heard::Message { offset, content } => self.message(episode, offset, content),
            }
        }
        self.place
    }

    fn joined(&mut self, episode: u16, place: Place, recovered: Option<bool>) {
        match (self.standing, recovered) {
            (Standing::Asked { since: None, replayed: 0 }, _) => {}
            (Standing::Asked { since: Some(_), .. }, Some(true)) => match self.place {
                Some(here) if here == place => {}
                Some(here) if here.epoch == place.epoch && here.offset < place.offset => {
                    self.silent_gap(episode, here, place.offset, "recovered:true came too early");
                }
                here => self.contradiction(episode, &format!("at {here:?} it was recovered to {place:?}")),
            },
            (Standing::Asked { since: Some(_), replayed: 0 }, Some(false)) => {
                self.verdict.told_joins += 1;
                if self.place.is_some_and(|here| here.epoch == place.epoch) {
                    self.told_within_epoch(episode, place);
                }
            }
            _ => self.contradiction(episode, "an answer to a join does not belong to what came before it"),
        }
        self.place = Some(place);
        self.standing = Standing::Member;
    }

    fn gap(&mut self, episode: u16, place: Place) {
        self.verdict.told_gaps += 1;
        match (self.standing, self.place) {
            (Standing::Member, Some(here)) if here.epoch != place.epoch => {}
            (Standing::Member, Some(here)) if here.offset <= place.offset => self.told_within_epoch(episode, place),
            (_, here) => self.contradiction(episode, &format!("at {here:?} a gap leads to {place:?}")),
        }
        self.place = Some(place);
    }

    fn message(&mut self, episode: u16, offset: u64, content: Content) {
        self.verdict.deliveries += 1;
        match &mut self.standing {
            Standing::Asked { since: Some(_), replayed } => *replayed += 1,
            Standing::Member => {}
            Standing::Asked { since: None, .. } | Standing::Outside => {
                self.contradiction(episode, "a message came to somebody outside");
                return;
            }
        }
        let Some(here) = self.place else { return };
        let place = Place { epoch: here.epoch, offset };
        if offset <= here.offset {
            let again = self.heard.contains(&place);
            *(if again { &mut self.verdict.doubles } else { &mut self.verdict.reorderings }) += 1;
            let what = if again { "came again" } else { "came late" };
            self.find(episode, &format!("at {here:?}, {content:?} of offset {offset} {what}"));
        } else if offset > here.offset + 1 {
            self.silent_gap(episode, here, offset - 1, "nothing told of it");
        }
        self.heard.insert(place);
        self.place = Some(Place { epoch: here.epoch, offset: offset.max(here.offset) });
        let first = *self.truth.at.entry(place).or_insert(content);
        if first != content {
            self.verdict.reorderings += 1;
            self.find(episode, &format!("{place:?} is {first:?} to somebody else and {content:?} here"));
        }
    }

    fn told_within_epoch(&mut self, episode: u16, place: Place) {
        self.verdict.told_within_epoch += 1;
        if keeps_all(self.journal.room) {
            self.verdict.needless_gaps += 1;
            self.find(episode, &format!("at {:?} it was told of a gap to {place:?}: nothing was gone", self.place));
        }
    }

    /// Messages up to and with `until` are missing.
    fn silent_gap(&mut self, episode: u16, here: Place, until: u64, why: &str) {
        self.verdict.silent_gaps += 1;
        self.verdict.messages_missing += until - here.offset;
        self.find(episode, &format!("at {here:?} the messages up to {until} are missing: {why}"));
    }

    fn contradiction(&mut self, episode: u16, what: &str) {
        self.verdict.contradictions += 1;
        self.find(episode, what);
    }

    fn find(&mut self, episode: u16, what: &str) {
        let (who, room) = (self.journal.subscriber, ROOMS[self.journal.room]);
        self.verdict.find(|| format!("episode {episode}, subscriber {who}, {room}: {what}"));
    }
}

/// Each message was sent, stands once in an epoch, and a connection's own ones stand in their order.
fn room_is_as_published(room: usize, truth: &Truth, sent: &HashMap<Content, &Publish>, verdict: &mut Verdict) {
    let mut places: HashMap<Content, Place> = HashMap::new();
    let mut newest: HashMap<(u32, u32, u32), u32> = HashMap::new();
    for (&place, &content) in &truth.at {
        let name = ROOMS[room];
        let Some(publish) = sent.get(&content).filter(|publish| publish.room == room) else {
            verdict.strangers += 1;
            verdict.find(|| format!("{name}: nobody sent {content:?}, which is at {place:?}"));
            continue;
        };
        if let Outcome::Refused(code) = &publish.outcome {
            verdict.strangers += 1;
            verdict.find(|| format!("{name}: {content:?} was refused ({code}) and is at {place:?}"));
        }
        if let Some(earlier) = places.insert(content, place) {
            if earlier.epoch != place.epoch && publish.attempts > 1 {
                verdict.repeats += 1;
            } else {
                verdict.doubles += 1;
                let attempts = publish.attempts;
                verdict.find(|| format!("{name}: {content:?}, sent {attempts} times, is at {earlier:?} and {place:?}"));
            }
        }
        if publish.attempts == 1 {
            let of = (place.epoch, content.publisher, publish.connection);
            let before = newest.insert(of, content.number).filter(|before| *before > content.number);
            if let Some(before) = before {
                verdict.reorderings += 1;
                verdict.find(|| format!("{name}: at {place:?} {content:?} stands behind the connection's {before}"));
            }
        }
    }
}

/// What an ack names is there: what somebody heard at the place is this message, and no place is beyond the room's end.
fn ack_is_true(publish: &Publish, truth: &Truth, end: Place, verdict: &mut Verdict) {
    let place = match publish.outcome {
        Outcome::Acked(place) => place,
        Outcome::AckedNowhere => {
            verdict.false_acks += 1;
            verdict.find(|| format!("{publish:?} has no place"));
            return;
        }
        Outcome::Refused(_) | Outcome::Unknown => return,
    };
    let found = truth.at.get(&place);
    if found.is_some_and(|found| *found != publish.content) || (place.epoch == end.epoch && place.offset > end.offset) {
        verdict.false_acks += 1;
        let episode = publish.episode;
        verdict
            .find(|| format!("episode {episode}: {publish:?}, but there is {found:?}, and the room ends at {end:?}"));
    }
}
