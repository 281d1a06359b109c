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
        Told::Other(other) => other_word(other),
    };
    told.iter().map(word).collect::<Vec<_>>().join(" ")
}

fn other_word(told: &str) -> String {
    let offset = told.split("offset: ").nth(1).and_then(|rest| rest.split([',', ' ']).next()).unwrap_or_default();
    match told {
        told if told.contains("\"system\"") => "notice".to_owned(),
        told if told.contains("is_stale: true") => format!("stale{offset}"),
        told if told.contains("is_stale: false") => format!("live{offset}"),
        told if told.contains("Gap") => format!("gap{offset}"),
        other => other.to_owned(),
    }
}

const POLICY: KeyedPolicy =
    KeyedPolicy { items_max: 100, bytes_max: 1 << 20, ttl_ms: None, removed_ttl_ms: 1_000_000, stale_after_ms: None };

impl Run {
    /// With two members of `latest`, one for each reactor, in a room of one item.
    fn of_two(policy: KeyedPolicy, noticed_max: u64) -> Run {
        let subscribers = vec![Subscriber::default(); MEMBERS as usize];
        let mut run = Run { node: Node::of(policy, noticed_max), subscribers };
        run.publish(0);
        for member in [0, 1] {
            run.join(member, latest(0), false);
            run.node.settle();
        }
        run
    }

    fn publish(&mut self, item: usize) {
        self.node.publish(&[(item, false)], false, PUBLISHER);
        self.node.settle();
    }

    /// Nothing is published for a while.
    fn rest(&mut self) {
        self.node.now_ms += 200;
        self.node.settle();
    }

    /// A member's socket takes nothing.
    fn fill(&mut self, member: u32) {
        self.node.sockets[conn(member).reactor.0 as usize].full.insert(member);
    }

    fn empty(&mut self, member: u32) {
        self.take_again(member);
        self.node.settle();
    }

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

#[test]
fn who_is_stalled_hears_whether_something_is_published_when_it_takes_bytes_again() {
    let mut run = Run::of_two(KeyedPolicy { stale_after_ms: Some(100), ..POLICY }, 0);
    run.fill(1);
    run.rest();
    run.publish(1);
    run.rest();
    assert_eq!(run.told(0), "a1 joined1 stale1 live1 b2 stale2");
    assert_eq!(run.told(1), "a1 joined1");
    run.empty(1);
    assert_eq!(run.told(1), "a1 joined1 b2 stale2", "that it is stale comes behind all that was");
    run.fill(1);
    run.publish(2);
    run.empty(1);
    assert_eq!(run.told(1), "a1 joined1 b2 stale2 live2 c3", "and that it is not, in front of all that is");
    run.fill(1);
    run.rest();
    run.publish(3);
    run.empty(1);
    assert_eq!(run.told(1), "a1 joined1 b2 stale2 live2 c3 d4", "nothing of what was undone meanwhile");
    run.rest();
    assert!(run.told(1).ends_with("d4 stale4"), "and then as everybody");
    run.fill(1);
    run.publish(4);
    let conn = conn(1);
    let tune = Tune { id: Some("2".into()), change: TermsChange { interval_ms: Some(5), ..TermsChange::default() } };
    run.node.with(conn.reactor.0, |router, sockets| router.tune(conn, ROOM, tune, sockets));
    run.node.settle();
    run.empty(1);
    assert!(run.told(1).ends_with("d4 stale4 live4 e5 tuned5"), "{}", run.told(1));
}

#[test]
fn notices_do_not_wait_for_who_is_stalled() {
    let mut run = Run::of_two(POLICY, 100);
    let (before, told) = (run.told(1), |run: &Run, member| run.told(member).matches("notice").count());
    let of_all = told(&run, 0);
    run.fill(1);
    let other = conn(2);
    let come_and_go = |run: &mut Run| {
        let joined = run.node.with(0, |router, sockets| router.join(other, ROOM, JoinReply::Silent, sockets));
        assert_eq!(joined, Ok(()));
        run.node.settle();
        run.node.with(0, |router, sockets| router.leave(other, ROOM, None, sockets));
        run.node.settle();
    };
    (0..50).for_each(|_| come_and_go(&mut run));
    assert_eq!((told(&run, 0), run.told(1)), (of_all + 100, before), "two notices each time, and none in a queue");
    run.publish(1);
    run.empty(1);
    let of_slow = told(&run, 1);
    come_and_go(&mut run);
    assert_eq!(told(&run, 1), of_slow + 2, "then it gets them again");
    assert!(run.told(1).contains("b2"));
}

#[test]
fn who_is_stalled_when_a_new_epoch_begins_is_told_later_and_begins_anew() {
    let mut run = Run::of_two(POLICY, 0);
    run.publish(1);
    run.fill(1);
    let conn = conn(1);
    run.node.with(conn.reactor.0, |router, sockets| {
        let index =
            router.topics.find(router.topics.hashed(TopicRef { kind: Kind::Room, name: ROOM })).expect("a room");
        router.keyed.set_epoch(index, &"other".into(), sockets);
    });
    run.node.settle();
    assert_eq!(run.told(1), "a1 joined1 b2");
    run.empty(1);
    assert_eq!(run.told(1), "a1 joined1 b2 gap2 a1 b2");
    run.publish(0);
    assert_eq!(run.told(1), "a1 joined1 b2 gap2 a1 b2 a3", "and then as everybody");
}
