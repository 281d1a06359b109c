//! The judge is judged first: it must find nothing in a run as it should be, and each kind of fault in one that is not.

use super::audit::{Content, Heard, Journal, Outcome, Place, Publish, ROOMS};
use super::judge::{Verdict, judge};

/// A run with one room that matters, one subscriber that is there all the time, and one that comes back.
struct Run {
    publishes: Vec<Publish>,
    steady: Vec<Heard>,
    returning: Vec<Heard>,
    end: Place,
}

const fn at(epoch: u32, offset: u64) -> Place {
    Place { epoch, offset }
}

fn content(number: u32) -> Content {
    Content { publisher: 7, number }
}

fn message(number: u32) -> Heard {
    Heard::Message { offset: u64::from(number), content: content(number) }
}

fn good_run() -> Run {
    let publish = |number: u32| Publish {
        room: 0,
        content: content(number),
        connection: 1,
        attempts: 1,
        episode: 1,
        outcome: Outcome::Acked(at(u32::from(number > 6), u64::from(number))),
    };
    let mut steady = vec![Heard::Asked { since: None }, Heard::Joined { place: at(0, 0), recovered: None }];
    steady.extend((1..=6).map(message));
    // The epoch changes, and offsets go on from where they are.
    steady.push(Heard::Gap { place: at(1, 6) });
    steady.extend((7..=9).map(message));

    let mut returning =
        vec![Heard::Asked { since: None }, Heard::Joined { place: at(0, 1), recovered: None }, message(2)];
    returning.extend([Heard::Asked { since: Some(at(0, 2)) }, Heard::Unavailable]);
    returning.extend([Heard::Asked { since: Some(at(0, 2)) }, message(3), message(4)]);
    // Lost in the middle of what was missed.
    returning.extend([Heard::Asked { since: Some(at(0, 4)) }, message(5), message(6)]);
    returning
        .extend([Heard::Joined { place: at(0, 6), recovered: Some(true) }, Heard::Asked { since: Some(at(0, 6)) }]);
    returning.extend([Heard::Joined { place: at(1, 8), recovered: Some(false) }, message(9)]);
    Run { publishes: (1..=9).map(publish).collect(), steady, returning, end: at(1, 9) }
}

impl Run {
    fn verdict(self) -> Verdict {
        let journal = |subscriber: usize, heard: Vec<Heard>| Journal {
            subscriber,
            is_page: false,
            room: 0,
            entries: heard.into_iter().map(|heard| (1, heard)).collect(),
        };
        let mut ends = [at(0, 0); ROOMS.len()];
        ends[0] = self.end;
        judge(&self.publishes, &[journal(0, self.steady), journal(1, self.returning)], &ends)
    }
}

/// Changes a good run; the fault that must be found, as counted by `count`.
fn finds(what: &str, change: impl FnOnce(&mut Run), count: impl FnOnce(&Verdict) -> u64) {
    let mut run = good_run();
    change(&mut run);
    let verdict = run.verdict();
    assert!(count(&verdict) > 0 && !verdict.is_clean(), "the judge does not see {what}: {verdict:#?}");
    assert!(!verdict.findings.is_empty(), "{what} is told in words");
}

/// # Panics
///
/// Where the judge is wrong.
pub fn prove() {
    let verdict = good_run().verdict();
    let told = (verdict.told_joins, verdict.told_gaps, verdict.told_within_epoch, verdict.deliveries);
    assert!(verdict.is_clean() && verdict.findings.is_empty() && told == (1, 1, 0, 15), "{verdict:#?}");

    finds("a message left out", |run| _ = run.steady.remove(4), |found| found.silent_gaps);
    finds("a message left out of what was missed", |run| _ = run.returning.remove(6), |found| found.silent_gaps);
    finds("the last one left out of what was missed", |run| _ = run.returning.remove(9), |found| found.silent_gaps);
    finds("messages left out behind a gap", |run| _ = run.steady.remove(9), |found| found.silent_gaps);
    finds(
        "a gap where nothing is gone",
        |run| run.steady[4] = Heard::Gap { place: at(0, 3) },
        |found| found.needless_gaps,
    );
    finds("a double", |run| run.steady.insert(5, message(3)), |found| found.doubles);
    finds("two messages exchanged", |run| run.steady.swap(3, 4), |found| found.reorderings);
    finds(
        "another order for another subscriber",
        |run| run.steady[3] = Heard::Message { offset: 2, content: content(3) },
        |found| found.reorderings,
    );
    finds(
        "a message before a refused join",
        |run| {
            run.returning[4..=6].rotate_right(1);
            run.returning[6] = Heard::Asked { since: Some(at(0, 3)) };
        },
        |found| found.contradictions,
    );
    finds(
        "an answer from nowhere",
        |run| run.returning.insert(3, Heard::Joined { place: at(0, 2), recovered: Some(true) }),
        |found| found.contradictions,
    );
    finds(
        "a gap that leads back",
        |run| run.steady.insert(5, Heard::Gap { place: at(0, 1) }),
        |found| found.contradictions,
    );
    prove_of_publishes();
}

/// What a publish says against what was heard.
fn prove_of_publishes() {
    finds("a message that nobody sent", |run| _ = run.publishes.remove(4), |found| found.strangers);
    finds(
        "a refused message",
        |run| run.publishes[4].outcome = Outcome::Refused("forbidden".to_owned()),
        |found| found.strangers,
    );
    finds(
        "an ack for another's place",
        |run| run.publishes[4].outcome = Outcome::Acked(at(0, 4)),
        |found| found.false_acks,
    );
    finds("an ack without a place", |run| run.publishes[4].outcome = Outcome::AckedNowhere, |found| found.false_acks);
    finds(
        "an ack for what is nowhere",
        |run| {
            let lost = Publish { content: content(10), outcome: Outcome::Acked(at(1, 10)), ..run.publishes[8].clone() };
            run.publishes.push(lost);
        },
        |found| found.false_acks,
    );
    finds("somebody left behind", |run| _ = run.steady.pop(), |found| found.left_behind);
    finds("somebody left outside", |run| drop(run.returning.drain(14..)), |found| found.left_behind);
    finds(
        "one message at two places",
        |run| {
            run.publishes.remove(5);
            let again = Heard::Message { offset: 6, content: content(5) };
            (run.steady[7], run.returning[10]) = (again, again);
        },
        |found| found.doubles,
    );
    finds(
        "a publisher's order turned round",
        |run| {
            run.publishes.swap(1, 2);
            run.publishes[1].content = content(11);
            run.publishes[1].outcome = Outcome::Acked(at(0, 2));
            run.publishes[2].outcome = Outcome::Unknown;
            let early = Heard::Message { offset: 2, content: content(11) };
            (run.steady[3], run.returning[2]) = (early, early);
        },
        |found| found.reorderings,
    );
}
