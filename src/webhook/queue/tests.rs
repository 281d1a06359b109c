use std::collections::HashMap;

use proptest::prelude::*;

use super::*;
use crate::router::Kind;

fn event(number: u64, name: &str) -> Arc<Event> {
    let subject = Subject::of_topic(Kind::Room, &name.into()).expect("a room");
    Arc::new(Event { number, id: number.to_string().into(), subject, is_present: number % 2 == 1 })
}

fn numbers(events: &[Arc<Event>]) -> Vec<u64> {
    events.iter().map(|event| event.number).collect()
}

fn fail(queue: &mut Queue, batch: BatchId, now_ms: u64) -> Ended {
    queue.ended(batch, Outcome::Failed, 0, Millis(now_ms))
}

#[test]
fn what_is_ready_goes_together_and_of_each_subject_one_at_a_time() {
    let mut queue = Queue::new(2);
    for (number, name) in [(1, "a"), (2, "b"), (3, "a"), (4, "a")] {
        queue.push(event(number, name));
    }
    let first = queue.next(Millis(0)).expect("an attempt");
    assert_eq!((numbers(&first.events), first.body), (vec![1, 2], None));
    assert!(queue.next(Millis(0)).is_none() && queue.next_at().is_none(), "the others wait behind it");
    queue.push(event(5, "c"));
    let other = queue.next(Millis(0)).expect("another subject is not held up");
    assert_eq!(numbers(&other.events), [5]);
    queue.push(event(6, "d"));
    assert!(queue.next(Millis(0)).is_none(), "no more at once");
    assert_eq!(queue.ended(first.batch, Outcome::Delivered, 0, Millis(1)), Ended::Delivered(first.events));
    assert_eq!(numbers(&queue.next(Millis(1)).expect("its turn").events), [6, 3]);
    assert_eq!((queue.len(), queue.under_way()), (5 - 1, 2));
}

#[test]
fn the_same_body_goes_again_after_growing_pauses_until_it_is_given_up() {
    let mut queue = Queue::new(1);
    queue.push(event(1, "a"));
    let mut now_ms = 0;
    let mut pauses = Vec::new();
    let mut sent: Option<Arc<[u8]>> = None;
    loop {
        let attempt = queue.next(Millis(now_ms)).expect("it is due");
        assert_eq!(attempt.body, sent);
        if sent.is_none() {
            sent = Some(b"body"[..].into());
            queue.keep_body(attempt.batch, b"body"[..].into());
        }
        match fail(&mut queue, attempt.batch, now_ms) {
            Ended::Retried(count) => assert_eq!(count, 1),
            Ended::GivenUp(events) => {
                assert_eq!(numbers(&events), [1]);
                break;
            }
            Ended::Delivered(_) => panic!("it has failed"),
        }
        let next_ms = queue.next_at().expect("it is tried again").0;
        assert!(queue.next(Millis(next_ms - 1)).is_none());
        pauses.push(next_ms - now_ms);
        now_ms = next_ms;
    }
    assert_eq!(pauses[..7], [1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000]);
    assert_eq!((now_ms, queue.is_empty()), (WEBHOOK_GIVE_UP_MS, true));
}

#[test]
fn a_batch_that_fails_while_others_go_through_is_split() {
    let mut queue = Queue::new(2);
    (1..=4).for_each(|number| queue.push(event(number, &number.to_string())));
    let mut now_ms = 0;
    let mut delivered = Vec::new();
    for round in 0.. {
        queue.push(event(100 + round, &format!("other {round}")));
        while let Some(attempt) = queue.next(Millis(now_ms)) {
            let is_bad = attempt.events.iter().any(|event| event.number == 3);
            let outcome = if is_bad { Outcome::Failed } else { Outcome::Delivered };
            if let Ended::Delivered(events) = queue.ended(attempt.batch, outcome, 0, Millis(now_ms)) {
                delivered.extend(numbers(&events));
            }
        }
        if [1, 2, 4].iter().all(|number| delivered.contains(number)) {
            break;
        }
        now_ms = queue.next_at().expect("the bad one is tried again").0;
    }
    assert!(now_ms <= 3_000, "after {WEBHOOK_SPLIT_AFTER} attempts: {now_ms}");
    assert_eq!(queue.len(), 1);
}

#[test]
fn while_nothing_goes_through_one_batch_is_split_and_new_ones_are_full() {
    let mut queue = Queue::new(4);
    let (mut now_ms, mut number, mut requests) = (0, 0, 0);
    while now_ms < 60_000 {
        // A thousand a second.
        (0..10).for_each(|_| {
            number += 1;
            queue.push(event(number, &number.to_string()));
        });
        while let Some(attempt) = queue.next(Millis(now_ms)) {
            requests += 1;
            assert!(matches!(fail(&mut queue, attempt.batch, now_ms), Ended::Retried(_)));
        }
        now_ms += 10;
    }
    assert_eq!(queue.len(), 60_000);
    // About four new ones a second, each tried again a few times in the minute; and the parts of one.
    assert!(requests < 4_000, "{requests}");
    let mut at_end = 0;
    while !queue.is_empty() {
        match queue.next(Millis(now_ms)) {
            Some(attempt) => {
                at_end += 1;
                queue.ended(attempt.batch, Outcome::Delivered, 0, Millis(now_ms));
            }
            None => now_ms = queue.next_at().expect("something waits").0,
        }
    }
    assert!(at_end < 600, "{at_end}");
    assert!(now_ms < 60_000 + WEBHOOK_PAUSE_MS_MAX + 1_000, "{now_ms}");
}

#[test]
fn what_is_forgotten_ends_without_effect() {
    let mut queue = Queue::new(2);
    queue.push(event(1, "a"));
    let under_way = queue.next(Millis(0)).expect("an attempt");
    queue.push(event(3, "a"));
    queue.push(event(2, "b"));
    let failed = queue.next(Millis(0)).expect("an attempt");
    fail(&mut queue, failed.batch, 0);
    queue.clear();
    assert_eq!((queue.len(), queue.under_way(), queue.next_at()), (1, 1, None));
    queue.push(event(1, "a"));
    assert!(queue.next(Millis(0)).is_none(), "what is under way goes first");
    queue.ended(under_way.batch, Outcome::Delivered, 0, Millis(1));
    assert_eq!(numbers(&queue.next(Millis(1)).expect("its turn").events), [1]);
}

#[derive(Clone, Debug)]
enum Step {
    Push(u8),
    Next,
    /// One of those under way ends; whether it was delivered.
    End(prop::sample::Index, bool),
    Wait(u16),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0_u8..6).prop_map(Step::Push),
        4 => Just(Step::Next),
        4 => (any::<prop::sample::Index>(), prop::bool::weighted(0.4)).prop_map(|(at, delivered)| Step::End(at, delivered)),
        2 => (0_u16..20_000).prop_map(Step::Wait),
    ]
}

proptest! {
    /// Whatever fails: each event ends once, of each subject one is under way at a time, they end in order, and bodies stay
    /// with their events.
    #[test]
    fn each_event_ends_once_and_in_the_order_of_its_subject(
        steps in prop::collection::vec(step(), 1..300),
        concurrency in 1_usize..5,
    ) {
        let mut queue = Queue::new(concurrency);
        let (mut now, mut number) = (0_u64, 0_u64);
        let mut under_way: Vec<Attempt> = Vec::new();
        let mut ended: HashMap<String, Vec<u64>> = HashMap::new();
        let mut ended_count = 0;
        let mut take = |ended_now: Ended| {
            if let Ended::Delivered(events) | Ended::GivenUp(events) = ended_now {
                for event in events.iter() {
                    ended_count += 1;
                    ended.entry(event.subject.encode()).or_default().push(event.number);
                }
            }
        };
        let check = |under_way: &[Attempt]| {
            let mut subjects: Vec<_> = under_way.iter().flat_map(|attempt| attempt.events.iter()).map(|event| event.subject.encode()).collect();
            subjects.sort();
            let before = subjects.len();
            subjects.dedup();
            assert_eq!(before, subjects.len(), "one of a subject at a time");
        };
        for step in steps {
            match step {
                Step::Push(name) => {
                    number += 1;
                    queue.push(event(number, &name.to_string()));
                }
                Step::Next => if let Some(attempt) = queue.next(Millis(now)) {
                    let text: Arc<[u8]> = format!("{:?}", numbers(&attempt.events)).into_bytes().into();
                    if let Some(body) = &attempt.body {
                        prop_assert_eq!(body, &text);
                    }
                    queue.keep_body(attempt.batch, text);
                    under_way.push(attempt);
                    prop_assert!(under_way.len() <= concurrency);
                    check(&under_way);
                },
                Step::End(at, is_delivered) if !under_way.is_empty() => {
                    let attempt = under_way.swap_remove(at.index(under_way.len()));
                    let outcome = if is_delivered { Outcome::Delivered } else { Outcome::Failed };
                    take(queue.ended(attempt.batch, outcome, 0, Millis(now)));
                }
                Step::End(..) => {}
                Step::Wait(ms) => now += u64::from(ms),
            }
            prop_assert_eq!(queue.under_way(), under_way.len());
        }
        for attempt in under_way {
            take(queue.ended(attempt.batch, Outcome::Delivered, 0, Millis(now)));
        }
        let mut turns = 0;
        while !queue.is_empty() {
            turns += 1;
            prop_assert!(turns < 10_000, "it gets on");
            match queue.next(Millis(now)) {
                Some(attempt) => take(queue.ended(attempt.batch, Outcome::Delivered, 0, Millis(now))),
                None => now = now.max(queue.next_at().expect("something waits").0),
            }
        }
        prop_assert_eq!(ended_count, number);
        prop_assert!(ended.values().all(|numbers| numbers.is_sorted_by(|left, right| left < right)));
        prop_assert!(queue.lanes.is_empty() && queue.batches.is_empty() && queue.pausing.is_empty());
        prop_assert_eq!((queue.under_way, queue.again_under_way), (0, 0));
    }
}
