//! Subscribers whose sockets are slow, or take nothing for a while.

use super::*;

fn latest(interval_ms: u32) -> Terms {
    Terms { mode: Mode::Latest, interval_ms, filter: ItemFilter::All }
}

/// What a member was told, in words: items with their offsets, and everything else by its name.
fn words(told: &[Told]) -> String {
    let word = |told: &Told| match told {
        Told::Update(seen) if seen.content.is_none() => format!("-{}{}", seen.item, seen.offset),
        Told::Update(seen) => format!("{}{}", seen.item, seen.offset),
        Told::Joined { offset, .. } => format!("joined{offset}"),
        Told::Tuned { offset } => format!("tuned{offset}"),
        Told::Other(other) => other.clone(),
    };
    told.iter().map(word).collect::<Vec<_>>().join(" ")
}

impl Run {
    /// The next frames that a member's socket takes of rounds; then it is full.
    fn takes_only(&mut self, member: u32, frames: usize) {
        self.act(Act::Stall { member, after: frames });
    }

    fn told(&self, member: u32) -> String {
        words(self.since_join(member))
    }
}

#[test]
fn what_changes_during_a_snapshot_comes_where_it_stands_then() {
    let mut run = Run::new(1_000_000);
    let every = [0, 1, 2, 3, 4, 5].map(|item| (item, false));
    run.node.publish(&every, false, PUBLISHER);
    run.node.settle();
    run.takes_only(0, 3);
    run.join(0, latest(0), false);
    run.node.settle();
    assert_eq!(run.told(0), "a1 b2 c3");
    // One that it has, one that it has not, and one that goes.
    run.node.publish(&[(0, false), (5, false), (3, true)], false, PUBLISHER);
    run.node.settle();
    run.take_again(0);
    run.node.settle();
    assert_eq!(run.told(0), "a1 b2 c3 e5 a7 f8 -d9 joined9");
    run.check(0);
}

#[test]
fn an_item_that_never_rests_is_in_a_snapshot_all_the_same() {
    let mut run = Run::new(1_000_000);
    run.node.publish(&[(0, false), (1, false)], false, PUBLISHER);
    run.node.settle();
    run.join(0, latest(0), false);
    for _ in 0..20 {
        run.node.publish(&[(0, false)], false, PUBLISHER);
        (0..REACTORS).for_each(|reactor| run.node.turn(reactor));
    }
    let told = run.told(0);
    let (before, after) = told.split_once("joined").expect("it is answered");
    let (before, after): (Vec<&str>, Vec<&str>) = (before.split(' ').collect(), after.split(' ').collect());
    assert!(before[0] == "b2" && before[1].starts_with('a') && before.len() == 3, "each once in front of it: {told}");
    assert_eq!(before[1][1..], *after[0], "as of the answer's offset: {told}");
    assert!(after.len() > 10, "and then what is newer: {told}");
}
