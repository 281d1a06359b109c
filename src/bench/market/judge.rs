//! The judge of a keyed room: what each subscriber shows of each item, and what went wrong on the way there.
//!
//! Sees no socket. It holds a server to this:
//! - a value is never older than one that was shown (`seq` and `offset` grow), and comes once;
//! - in mode `all` no update is left out once the subscriber has joined, and where it wants all items offsets have no gap;
//! - a `seq` belongs to one update: both grow by one together (unless updates may be sent again, when both grow);
//! - only wanted items come, and only what was published;
//! - what a join brings is in order, ends at its `offset`, and holds nothing older than what was acked before it;
//! - rounds come no sooner than the interval;
//! - at the end everyone shows the last update of every item it wants.

use std::time::{Duration, Instant};

use super::options::Mode;
use super::quote::Quote;
use super::tape::Tape;
use crate::bench::dialect::StreamPosition;
use crate::bench::ledger::Faults;

/// What a subscriber wants.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wish {
    /// How it gets updates.
    pub(super) mode: Mode,
    /// The time between two rounds.
    pub(super) interval: Duration,
    /// The first of its items; the others follow it, and behind the last item comes the first.
    pub(super) first: u32,
    /// How many.
    pub(super) count: u32,
}

/// What a subscriber shows of an item.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Shown {
    /// The item's number of updates; 0: nothing has come.
    seq: u64,
    /// The number of the update, of the last value where the item is removed.
    update: u32,
    removed: bool,
}

/// A join that is not answered yet.
#[derive(Debug)]
struct Entry {
    /// When it was begun.
    since: Instant,
    /// Whether it named a position.
    resumes: bool,
    /// Offset of the first update that came, and of the last.
    first: Option<u64>,
    last: u64,
    /// What came.
    shown: Vec<Shown>,
    messages: u64,
    bytes: u64,
    /// How many updates of each wanted item had been acked before.
    owed: Vec<u32>,
}

/// One subscriber.
#[derive(Debug)]
struct View {
    wish: Wish,
    shown: Vec<Shown>,
    /// The epoch, and the highest offset that came.
    epoch: Option<String>,
    offset: u64,
    entry: Option<Entry>,
    /// When it asked to be let in, and how many updates of its first item have come since it was.
    entered: Instant,
    rounds: u64,
}

/// How a subscriber was let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entrance {
    /// Whether it named a position and was told that nothing is missing.
    pub(super) recovered: bool,
    /// How long it took from the join's connection on.
    pub(super) took: Duration,
    /// Updates that came before the answer.
    pub(super) messages: u64,
    /// Their bytes, frame headers included.
    pub(super) bytes: u64,
}

/// What an answer to a join says.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    /// The epoch and the offset.
    pub(super) position: StreamPosition,
    /// Whether a position was recovered, where one was named.
    pub(super) recovered: Option<bool>,
}

/// All subscribers.
#[derive(Debug)]
pub(super) struct Judge {
    views: Vec<View>,
    /// The `seq` of each item's update 0 less 1, once it is known: then `seq` is that and the number of updates.
    bases: Vec<Option<u64>>,
    /// Whether each `seq` belongs to one update.
    strict: bool,
    /// The first subscriber that may not show the last of everything.
    unsettled: usize,
}

impl Judge {
    /// Nobody is in yet.
    pub(super) fn new(wishes: impl Iterator<Item = Wish>, instruments: u32, strict: bool) -> Judge {
        let now = Instant::now();
        let view = |wish: Wish| View {
            shown: vec![Shown::default(); wish.count as usize],
            wish,
            epoch: None,
            offset: 0,
            entry: None,
            entered: now,
            rounds: 0,
        };
        Judge { views: wishes.map(view).collect(), bases: vec![None; instruments as usize], strict, unsettled: 0 }
    }

    /// What a subscriber wants.
    pub(super) fn wish(&self, at: usize) -> Wish {
        self.views[at].wish
    }

    /// Where a subscriber stands.
    pub(super) fn position(&self, at: usize) -> Option<StreamPosition> {
        let View { epoch, offset, .. } = &self.views[at];
        epoch.clone().map(|epoch| StreamPosition { epoch, offset: *offset })
    }

    /// A subscriber is about to join, with its position or from the beginning. `acked` says how many updates of each item
    /// are acked.
    pub(super) fn enters(&mut self, at: usize, resumes: bool, now: Instant, acked: &[u32]) {
        let instruments = self.bases.len() as u32;
        let view = &mut self.views[at];
        let Wish { first, count, .. } = view.wish;
        view.entry = Some(Entry {
            since: now,
            resumes,
            first: None,
            last: 0,
            shown: vec![Shown::default(); count as usize],
            messages: 0,
            bytes: 0,
            owed: (0..count).map(|index| acked[((first + index) % instruments) as usize]).collect(),
        });
    }

    /// Whether a subscriber's join is not answered yet.
    #[inline]
    pub(super) fn is_entering(&self, at: usize) -> bool {
        self.views[at].entry.is_some()
    }

    /// A subscriber has lost its connection.
    pub(super) fn left(&mut self, at: usize) {
        self.views[at].entry = None;
    }

    /// Judges an update that has come. Answers whether it counts as a delivery.
    #[inline]
    pub(super) fn came(&mut self, at: usize, quote: Quote, bytes: u64, tape: &Tape, faults: &mut Faults) -> bool {
        let instruments = self.bases.len() as u32;
        let view = &mut self.views[at];
        let Wish { first, count, .. } = view.wish;
        let index = (quote.item + instruments - first) % instruments;
        if quote.item >= instruments || index >= count {
            return misrouted(at, quote, faults);
        }
        let Some(new) = shown_by(quote, &mut self.bases, self.strict, tape) else { return altered(at, quote, faults) };
        let is_first_item = index == 0;
        let index = index as usize;
        if let Some(entry) = &mut view.entry {
            return entry.takes(at, index, (quote, new), bytes, faults);
        }
        let old = view.shown[index];
        if new.seq == old.seq {
            return doubled(at, quote, view.offset, faults);
        }
        if new.seq < old.seq || quote.offset <= view.offset || !follows(old, new) {
            return reordered(at, quote, view.offset, old.seq, faults);
        }
        let skipped = match view.wish.mode {
            Mode::All if count == instruments => quote.offset - view.offset - 1,
            Mode::All if old.seq > 0 => new.seq - old.seq - 1,
            Mode::All | Mode::Latest => 0,
        };
        if skipped > 0 {
            missing(at, quote, skipped, faults);
        }
        view.offset = quote.offset;
        view.shown[index] = Shown { update: if new.removed { old.update.max(new.update) } else { new.update }, ..new };
        if is_first_item {
            view.counts_round(at, faults);
        }
        true
    }

    /// Judges the answer to a join.
    pub(super) fn joined(
        &mut self,
        at: usize,
        answer: Answer,
        now: Instant,
        tape: &Tape,
        faults: &mut Faults,
    ) -> Option<Entrance> {
        self.unsettled = self.unsettled.min(at);
        let view = &mut self.views[at];
        let entry = view.entry.take()?;
        let Answer { position, recovered } = answer;
        let mut wrong = |what: &str| {
            faults.reordered += 1;
            faults.tell(|text| text.push_str(&format!("subscriber {at}: {what}")));
        };
        if entry.last > position.offset {
            wrong("what came before `joined` is newer than its offset");
        }
        let recovered = entry.resumes && recovered == Some(true);
        if recovered && entry.first.is_some_and(|first| first <= view.offset) {
            wrong("what a position had already came again");
        }
        if recovered && view.epoch.as_ref() != Some(&position.epoch) {
            wrong("a position was recovered in another epoch");
        }
        if !recovered {
            view.shown.fill(Shown::default());
        }
        for (old, new) in view.shown.iter_mut().zip(&entry.shown) {
            match (new.seq, *old) {
                (0, _) => {}
                (_, old) if !follows(old, *new) => wrong("an item is older after a return than before"),
                (_, _) => *old = *new,
            }
        }
        // Of what is removed a snapshot says nothing.
        if !tape.has_removals() {
            let behind = view.shown.iter().zip(&entry.owed);
            let behind = behind.filter(|(shown, owed)| **owed > 0 && (shown.seq == 0 || shown.update + 1 < **owed));
            let count = behind.count() as u64;
            if count > 0 {
                faults.missing += count;
                faults.tell(|text| {
                    text.push_str(&format!("subscriber {at} joined without {count} values that were acked before"));
                });
            }
        }
        (view.epoch, view.offset) = (Some(position.epoch), position.offset);
        (view.entered, view.rounds) = (entry.since, 0);
        let took = now.saturating_duration_since(entry.since);
        Some(Entrance { recovered, took, messages: entry.messages, bytes: entry.bytes })
    }

    /// A subscriber is told that continuity is lost: what it shows counts for nothing, and all of it comes again.
    pub(super) fn gap(&mut self, at: usize, position: StreamPosition) {
        self.unsettled = self.unsettled.min(at);
        let view = &mut self.views[at];
        view.shown.fill(Shown::default());
        // The values that follow are older than the position.
        (view.epoch, view.offset) = (Some(position.epoch), 0);
    }

    /// Whether everyone shows the last update of every item it wants, of all that were published.
    pub(super) fn is_settled(&mut self, tape: &Tape) -> bool {
        while let Some(view) = self.views.get(self.unsettled) {
            if view.entry.is_some() || view.behind(tape).next().is_some() {
                return false;
            }
            self.unsettled += 1;
        }
        true
    }

    /// Closes the books: what a subscriber does not show now is missing.
    pub(super) fn close(self, tape: &Tape, faults: &mut Faults) {
        for (at, view) in self.views.iter().enumerate() {
            let mut behind = view.behind(tape);
            let Some((item, shown)) = behind.next() else { continue };
            let count = 1 + behind.count() as u64;
            faults.missing += count;
            faults.tell(|text| {
                let last = tape.published(item).saturating_sub(1);
                let what = match shown.seq {
                    0 => "nothing".to_owned(),
                    seq => format!("update {} (seq {seq})", shown.update),
                };
                text.push_str(&format!(
                    "subscriber {at} shows {what} of item {item}, whose last update is {last}; {count} items are not \
                     the newest"
                ));
            });
        }
    }
}

impl View {
    /// Items of which this does not show the last, with what it shows.
    fn behind<'a>(&'a self, tape: &'a Tape) -> impl Iterator<Item = (u32, Shown)> + 'a {
        let instruments = tape.instruments();
        let item = move |index: usize| (self.wish.first + index as u32) % instruments;
        self.shown.iter().enumerate().map(move |(index, shown)| (item(index), *shown)).filter(|(item, shown)| {
            let Some(last) = tape.published(*item).checked_sub(1) else { return false };
            match tape.is_removal(last) {
                true => !shown.removed && shown.seq > 0,
                false => shown.removed || shown.seq == 0 || shown.update != last,
            }
        })
    }

    /// Rounds are counted by updates of one item: each has at most one.
    fn counts_round(&mut self, at: usize, faults: &mut Faults) {
        let interval_ms = self.wish.interval.as_millis() as u64;
        if self.wish.mode == Mode::All || interval_ms == 0 {
            return;
        }
        self.rounds += 1;
        let most = self.entered.elapsed().as_millis() as u64 / interval_ms + 2;
        if self.rounds > most {
            faults.hurried += 1;
            faults.tell(|text| {
                text.push_str(&format!(
                    "subscriber {at} got round {} where {most} fit into the time since it joined",
                    self.rounds
                ));
            });
        }
    }
}

impl Entry {
    /// An item that changes while the rest is sent may come again, newer; of a history in mode `all` every value comes.
    fn takes(
        &mut self,
        at: usize,
        index: usize,
        (quote, new): (Quote, Shown),
        bytes: u64,
        faults: &mut Faults,
    ) -> bool {
        let old = self.shown[index];
        if new.seq == old.seq {
            return doubled(at, quote, self.last, faults);
        }
        if quote.offset <= self.last || !follows(old, new) {
            return reordered(at, quote, self.last, old.seq, faults);
        }
        self.first.get_or_insert(quote.offset);
        self.last = quote.offset;
        self.shown[index] = new;
        self.messages += 1;
        self.bytes += bytes;
        true
    }
}

/// Whether one state may come after another.
fn follows(old: Shown, new: Shown) -> bool {
    new.seq > old.seq && (old.seq == 0 || new.removed || new.update > old.update)
}

/// The state that a message tells of; `None` where it is not what was published.
fn shown_by(quote: Quote, bases: &mut [Option<u64>], strict: bool, tape: &Tape) -> Option<Shown> {
    let published = tape.published(quote.item);
    let base = &mut bases[quote.item as usize];
    let by_seq = base.and_then(|base| quote.seq.checked_sub(base + 1)).and_then(|update| u32::try_from(update).ok());
    let update = match (quote.mark, strict) {
        (Some(mark), _) if mark.item != quote.item || tape.is_removal(mark.update) => return None,
        (Some(mark), false) => mark.update,
        (Some(mark), true) => {
            let own = quote.seq.checked_sub(u64::from(mark.update) + 1)?;
            if *base.get_or_insert(own) != own {
                return None;
            }
            mark.update
        }
        (None, true) => by_seq.filter(|update| tape.is_removal(*update))?,
        // Which removal it is cannot be told; no value before it counts any more.
        (None, false) if tape.has_removals() => 0,
        (None, false) => return None,
    };
    (update < published && quote.seq > 0).then_some(Shown { seq: quote.seq, update, removed: quote.mark.is_none() })
}

#[cold]
fn misrouted(at: usize, quote: Quote, faults: &mut Faults) -> bool {
    faults.misrouted += 1;
    faults.tell(|text| text.push_str(&format!("subscriber {at} got item {}, which it does not want", quote.item)));
    false
}

#[cold]
fn altered(at: usize, quote: Quote, faults: &mut Faults) -> bool {
    faults.altered += 1;
    faults.tell(|text| {
        let what = quote.mark.map_or("a removal".to_owned(), |mark| format!("update {}", mark.update));
        text.push_str(&format!(
            "subscriber {at} got {what} as seq {} of item {}, which is not what was published",
            quote.seq, quote.item
        ));
    });
    false
}

#[cold]
fn doubled(at: usize, quote: Quote, offset: u64, faults: &mut Faults) -> bool {
    faults.doubled += 1;
    faults.tell(|text| {
        text.push_str(&format!(
            "subscriber {at} got seq {} of item {} again, with offset {} behind {offset}",
            quote.seq, quote.item, quote.offset
        ));
    });
    false
}

#[cold]
fn reordered(at: usize, quote: Quote, offset: u64, seq: u64, faults: &mut Faults) -> bool {
    faults.reordered += 1;
    faults.tell(|text| {
        text.push_str(&format!(
            "subscriber {at} got seq {} of item {} with offset {} behind seq {seq} and offset {offset}",
            quote.seq, quote.item, quote.offset
        ));
    });
    false
}

#[cold]
fn missing(at: usize, quote: Quote, count: u64, faults: &mut Faults) {
    faults.missing += count;
    faults.tell(|text| {
        text.push_str(&format!(
            "subscriber {at} in mode all was not sent {count} updates in front of seq {} of item {} (offset {})",
            quote.seq, quote.item, quote.offset
        ));
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::market::quote::Mark;

    /// Two items, of which four updates each are published, and one subscriber.
    fn judge(mode: Mode) -> (Judge, Tape) {
        let wish = Wish { mode, interval: Duration::ZERO, first: 0, count: 2 };
        let mut tape = Tape::of_items(2);
        while tape.published(1) < 4 {
            tape.take(0);
        }
        (Judge::new([wish].into_iter(), 2, true), tape)
    }

    fn quote(item: u32, update: u32, offset: u64) -> Quote {
        Quote { item, seq: u64::from(update) + 1, offset, mark: Some(Mark { item, update, at_us: 0 }) }
    }

    fn hear(judge: &mut Judge, quotes: &[Quote], tape: &Tape, faults: &mut Faults) {
        for quote in quotes {
            judge.came(0, *quote, 1, tape, faults);
        }
    }

    fn answer(epoch: &str, offset: u64, recovered: Option<bool>) -> Answer {
        Answer { position: StreamPosition { epoch: epoch.to_owned(), offset }, recovered }
    }

    /// What comes before the answer to the first join, which ends at offset 4; and then on.
    fn counts(mode: Mode, first: &[Quote], then: &[Quote]) -> [u64; 8] {
        let (mut judge, tape) = judge(mode);
        let mut faults = Faults::default();
        let now = Instant::now();
        judge.enters(0, false, now, &[1, 1]);
        hear(&mut judge, first, &tape, &mut faults);
        judge.joined(0, answer("e", 4, None), now, &tape, &mut faults);
        hear(&mut judge, then, &tape, &mut faults);
        judge.close(&tape, &mut faults);
        faults.counts().map(|(_, count)| count)
    }

    #[test]
    fn what_is_wrong_is_counted_as_what_it_is() {
        let snapshot = [quote(0, 1, 3), quote(1, 1, 4)];
        let last = [quote(0, 3, 7), quote(1, 3, 8)];
        assert_eq!(counts(Mode::Latest, &snapshot, &last), [0; 8]);
        assert_eq!(counts(Mode::All, &snapshot, &last), [2, 0, 0, 0, 0, 0, 0, 0], "offsets 5 and 6");
        let lacks = [quote(0, 1, 3)];
        assert_eq!(counts(Mode::Latest, &lacks, &last), [1, 0, 0, 0, 0, 0, 0, 0], "acked before the join");
        assert_eq!(counts(Mode::Latest, &snapshot, &last[..1]), [1, 0, 0, 0, 0, 0, 0, 0], "the last never comes");
        let again = [last[0], last[0], last[1]];
        assert_eq!(counts(Mode::Latest, &snapshot, &again), [0, 1, 0, 0, 0, 0, 0, 0]);
        let older = [last[0], quote(0, 2, 5), last[1]];
        assert_eq!(counts(Mode::Latest, &snapshot, &older), [0, 0, 1, 0, 0, 0, 0, 0]);
        let foreign = [quote(2, 0, 5), last[0], last[1]];
        assert_eq!(counts(Mode::Latest, &snapshot, &foreign), [0, 0, 0, 1, 0, 0, 0, 0]);
        let unpublished = [last[0], last[1], quote(0, 4, 9)];
        assert_eq!(counts(Mode::Latest, &snapshot, &unpublished), [0, 0, 0, 0, 1, 0, 0, 0]);
        let behind = [quote(0, 1, 3), quote(1, 2, 6)];
        assert_eq!(counts(Mode::Latest, &behind, &last), [0, 0, 1, 0, 0, 0, 0, 0], "newer than the answer's offset");
    }

    #[test]
    fn a_position_is_recovered_or_everything_is_new() {
        for (epoch, recovered, comes, faults) in [
            ("e", Some(true), &[quote(0, 3, 7), quote(1, 3, 8)][..], 0),
            // What had come before.
            ("e", Some(true), &[quote(1, 1, 4), quote(0, 3, 7), quote(1, 3, 8)][..], 1),
            // Without the rest, and without a word of that.
            ("e", Some(true), &[quote(0, 3, 7)][..], 1),
            ("f", Some(false), &[quote(0, 3, 1), quote(1, 3, 2)][..], 0),
            ("f", Some(true), &[quote(0, 3, 7), quote(1, 3, 8)][..], 1),
        ] {
            let (mut judge, tape) = judge(Mode::Latest);
            let (mut found, now) = (Faults::default(), Instant::now());
            judge.enters(0, false, now, &[1, 1]);
            hear(&mut judge, &[quote(0, 1, 3), quote(1, 1, 4)], &tape, &mut found);
            judge.joined(0, answer("e", 4, None), now, &tape, &mut found);
            judge.left(0);
            assert_eq!(judge.position(0).map(|position| position.offset), Some(4));
            judge.enters(0, true, now, &[4, 4]);
            hear(&mut judge, comes, &tape, &mut found);
            let offset = comes.last().map_or(4, |quote| quote.offset);
            let entrance = judge.joined(0, answer(epoch, offset, recovered), now, &tape, &mut found);
            assert_eq!(entrance.map(|entrance| entrance.recovered), Some(recovered == Some(true)));
            let count: u64 = found.counts().iter().map(|(_, count)| count).sum();
            assert_eq!(count.min(1), faults, "{epoch} {recovered:?} {comes:?}: {:?}", found.told);
        }
    }
}
