//! A hashed timer wheel with at most one deadline per slot of a connection slab.
//!
//! A deadline belongs to the tick of [`TICK_MS`] it falls into, a tick to the bucket with its
//! number modulo [`BUCKETS`]. A deadline more than one revolution away waits in its bucket and is
//! passed over until its revolution. Arming and disarming are O(1); finding the next occupied
//! bucket takes two bit scans, so that an empty stretch of time costs nothing.
//!
//! ```text
//!            cursor: the first tick not entirely past
//!               v
//!  buckets  ... o o . . o . . o ...      overdue: deadlines armed for a tick before the cursor
//!               |       |
//!               a-b     c                doubly linked rings through `nodes`
//! ```

use super::Millis;
use crate::growth::Grow;

/// Resolution in milliseconds: how late a deadline may be seen by a loop that sleeps until
/// [`Wheel::next_at`].
pub const TICK_MS: u64 = 8;

/// Buckets on the wheel.
pub const BUCKETS: usize = 4096;

/// Milliseconds the wheel spans; a lone deadline further off costs one wake per revolution.
pub const REVOLUTION_MS: u64 = TICK_MS * BUCKETS as u64;

/// Slots the wheel can hold, numbered from 0. Memory grows with the highest slot ever armed.
pub const SLOTS_MAX: u32 = u32::MAX - LISTS;

/// Ring heads stand in front of the slots in `nodes`: one per bucket, then the overdue ring.
const LISTS: u32 = OVERDUE + 1;
const OVERDUE: u32 = BUCKETS as u32;

const WORD_BITS: usize = u64::BITS as usize;
const WORDS: usize = BUCKETS / WORD_BITS;

const _: () = assert!(WORDS == WORD_BITS, "one summary word covers the bitmap");
const _: () = assert!(TICK_MS.is_power_of_two());
const _: () = assert!(size_of::<Node>() == 16);

/// The timer wheel. Single-threaded, and without a clock: `now` comes in with [`Wheel::expire`].
pub struct Wheel {
    nodes: Vec<Node>,
    occupied: Occupancy,
    /// Every deadline in a bucket is of this tick or later; earlier ones stand in the overdue ring.
    cursor: u64,
    armed_count: usize,
}

impl Wheel {
    /// An empty wheel standing at [`Millis::ZERO`].
    #[must_use]
    pub fn new() -> Self {
        Self { nodes: (0..LISTS).map(Node::unlinked).collect(), occupied: Occupancy::new(), cursor: 0, armed_count: 0 }
    }

    /// Gives `slot` the deadline `at` in place of any it had. A deadline that has already passed
    /// fires at the next [`Wheel::expire`].
    ///
    /// Allocates only where `slot` is higher than any before it: 16 bytes per slot up to it.
    ///
    /// # Panics
    /// If `slot` is not below [`SLOTS_MAX`]: slots are indexes of a dense slab.
    pub fn arm(&mut self, slot: u32, at: Millis) {
        let node = self.node_for(slot);
        if self.is_linked(node) {
            self.unlink(node);
        } else {
            self.armed_count += 1;
        }
        let list = if tick_of(at) < self.cursor { OVERDUE } else { bucket_of(tick_of(at)) as u32 };
        self.nodes[node as usize].at = at;
        self.link(node, list);
    }

    /// Takes away the deadline of `slot`; nothing happens where it has none.
    pub fn disarm(&mut self, slot: u32) {
        if self.armed_at(slot).is_some() {
            self.unlink(slot + LISTS);
            self.armed_count -= 1;
        }
    }

    /// The deadline of `slot`, if it is armed.
    #[must_use]
    pub fn armed_at(&self, slot: u32) -> Option<Millis> {
        let node = slot.checked_add(LISTS)?;
        let entry = self.nodes.get(node as usize)?;
        (entry.next != node).then_some(entry.at)
    }

    /// Disarms every slot whose deadline is at or before `now` and appends it to `out`: never
    /// early, and none is left behind. The order within a tick is arbitrary, and so it is across
    /// ticks where more than one revolution has passed since the last call.
    ///
    /// Visits each bucket at most once, however far `now` jumped.
    pub fn expire(&mut self, now: Millis, out: &mut Vec<u32>) {
        self.expire_list(OVERDUE, now, out);
        let ticks = (tick_of(now) + 1).saturating_sub(self.cursor).min(BUCKETS as u64) as usize;
        let start = bucket_of(self.cursor);
        let mut passed = 0;
        while passed < ticks {
            let from = (start + passed) % BUCKETS;
            let Some(distance) = self.occupied.distance_from(from) else {
                break;
            };
            passed += distance;
            if passed >= ticks {
                break;
            }
            let bucket = (start + passed) % BUCKETS;
            self.expire_list(bucket as u32, now, out);
            passed += 1;
        }
        // A tick whose last millisecond has come is over. Leaving it is what keeps a deadline of
        // a later revolution in the same bucket from asking for the same wake again.
        self.cursor = self.cursor.max(tick_of(now.saturating_add(1)));
    }

    /// When to call [`Wheel::expire`] next; `None` where nothing is armed.
    ///
    /// A loop that sleeps until this moment, expires and asks again sees every deadline less than
    /// [`TICK_MS`] late. The moment lies after the last `now`, unless a deadline of a tick already
    /// over is waiting: then it has passed, and the caller should not sleep. A deadline more than
    /// a revolution away may ask for one wake per [`REVOLUTION_MS`] that expires nothing.
    #[must_use]
    pub fn next_at(&self) -> Option<Millis> {
        if self.is_linked(OVERDUE) {
            return Some(Millis(self.cursor * TICK_MS - 1));
        }
        let distance = self.occupied.distance_from(bucket_of(self.cursor))?;
        let tick = self.cursor + distance as u64;
        Some(Millis(tick.saturating_mul(TICK_MS).saturating_add(TICK_MS - 1)))
    }

    /// Number of slots armed.
    #[must_use]
    pub fn len(&self) -> usize {
        self.armed_count
    }

    /// Whether no slot is armed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.armed_count == 0
    }

    fn expire_list(&mut self, list: u32, now: Millis, out: &mut Vec<u32>) {
        let mut node = self.nodes[list as usize].next;
        while node != list {
            let Node { at, next, .. } = self.nodes[node as usize];
            if at <= now {
                self.unlink(node);
                self.armed_count -= 1;
                out.push(node - LISTS);
            }
            node = next;
        }
    }

    /// The node of `slot`, made along with those before it where it is new.
    fn node_for(&mut self, slot: u32) -> u32 {
        assert!(slot < SLOTS_MAX, "slot {slot} is not an index of a slab: the wheel holds {SLOTS_MAX} slots");
        let node = slot + LISTS;
        let known = self.nodes.len() as u32;
        if node >= known {
            self.nodes.make_room_for_one();
            self.nodes.extend((known..=node).map(Node::unlinked));
        }
        node
    }

    /// For a slot's node: whether it is armed. For a list's head: whether the list has entries.
    fn is_linked(&self, node: u32) -> bool {
        self.nodes[node as usize].next != node
    }

    fn link(&mut self, node: u32, list: u32) {
        let first = self.nodes[list as usize].next;
        self.nodes[list as usize].next = node;
        self.nodes[first as usize].prev = node;
        let entry = &mut self.nodes[node as usize];
        entry.prev = list;
        entry.next = first;
        if list != OVERDUE {
            self.occupied.set(list as usize);
        }
    }

    fn unlink(&mut self, node: u32) {
        let Node { next, prev, .. } = self.nodes[node as usize];
        self.nodes[prev as usize].next = next;
        self.nodes[next as usize].prev = prev;
        let entry = &mut self.nodes[node as usize];
        entry.next = node;
        entry.prev = node;
        // Both neighbours are the same head: the list is empty now.
        if next == prev && next < OVERDUE {
            self.occupied.clear(next as usize);
        }
    }
}

impl Default for Wheel {
    fn default() -> Self {
        Self::new()
    }
}

fn tick_of(at: Millis) -> u64 {
    at.0 / TICK_MS
}

fn bucket_of(tick: u64) -> usize {
    (tick % BUCKETS as u64) as usize
}

/// An element of a doubly linked ring; linked to itself it is a disarmed slot or an empty list.
#[derive(Clone, Copy)]
struct Node {
    at: Millis,
    next: u32,
    prev: u32,
}

impl Node {
    fn unlinked(node: u32) -> Self {
        Self { at: Millis::ZERO, next: node, prev: node }
    }
}

/// One bit per bucket, and one summary bit per word of them.
struct Occupancy {
    words: [u64; WORDS],
    summary: u64,
}

impl Occupancy {
    fn new() -> Self {
        Self { words: [0; WORDS], summary: 0 }
    }

    fn set(&mut self, bucket: usize) {
        self.words[bucket / WORD_BITS] |= 1 << (bucket % WORD_BITS);
        self.summary |= 1 << (bucket / WORD_BITS);
    }

    fn clear(&mut self, bucket: usize) {
        let word = &mut self.words[bucket / WORD_BITS];
        *word &= !(1 << (bucket % WORD_BITS));
        if *word == 0 {
            self.summary &= !(1 << (bucket / WORD_BITS));
        }
    }

    /// Steps from `start` to the first occupied bucket going round the wheel; 0 if it is `start`.
    fn distance_from(&self, start: usize) -> Option<usize> {
        let word = start / WORD_BITS;
        let rest_of_word = self.words[word] & (u64::MAX << (start % WORD_BITS));
        let found = if rest_of_word != 0 {
            word * WORD_BITS + rest_of_word.trailing_zeros() as usize
        } else {
            let after = u64::MAX << word << 1;
            let candidates = match self.summary & after {
                0 => self.summary,
                later => later,
            };
            if candidates == 0 {
                return None;
            }
            let word = candidates.trailing_zeros() as usize;
            word * WORD_BITS + self.words[word].trailing_zeros() as usize
        };
        Some((found + BUCKETS - start) % BUCKETS)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    const SLOTS: u32 = 24;

    fn expire(wheel: &mut Wheel, now: u64) -> Vec<u32> {
        let mut out = Vec::new();
        wheel.expire(Millis(now), &mut out);
        out.sort_unstable();
        out
    }

    /// Compares the lists, the bitmap and the count with one another.
    fn check_invariants(wheel: &Wheel) {
        let mut seen = 0;
        for list in 0..LISTS {
            let mut node = list;
            loop {
                let next = wheel.nodes[node as usize].next;
                assert_eq!(wheel.nodes[next as usize].prev, node);
                if next == list {
                    break;
                }
                let tick = tick_of(wheel.nodes[next as usize].at);
                if list == OVERDUE {
                    assert!(tick < wheel.cursor);
                } else {
                    assert!(tick >= wheel.cursor);
                    assert_eq!(bucket_of(tick) as u32, list);
                }
                seen += 1;
                node = next;
            }
            if list != OVERDUE {
                let bucket = list as usize;
                let bit = wheel.occupied.words[bucket / 64] >> (bucket % 64) & 1;
                assert_eq!(bit == 1, node != list, "bucket {bucket}");
            }
        }
        for (index, word) in wheel.occupied.words.iter().enumerate() {
            assert_eq!(wheel.occupied.summary >> index & 1 == 1, *word != 0);
        }
        assert_eq!(seen, wheel.len());
    }

    #[test]
    fn fires_at_its_deadline_and_not_before() {
        let mut wheel = Wheel::new();
        wheel.arm(3, Millis(1001));
        wheel.arm(4, Millis(1002));
        assert_eq!(wheel.len(), 2);
        assert_eq!(expire(&mut wheel, 1000), [0_u32; 0]);
        assert_eq!(expire(&mut wheel, 1001), [3]);
        assert_eq!(wheel.armed_at(3), None);
        assert_eq!(wheel.armed_at(4), Some(Millis(1002)));
        assert_eq!(expire(&mut wheel, 1002), [4]);
        assert!(wheel.is_empty());
        assert_eq!(wheel.next_at(), None);
    }

    #[test]
    fn moving_and_disarming() {
        let mut wheel = Wheel::new();
        wheel.arm(0, Millis(100));
        wheel.arm(0, Millis(500));
        assert_eq!(wheel.len(), 1);
        assert_eq!(expire(&mut wheel, 499), [0_u32; 0]);
        wheel.disarm(0);
        wheel.disarm(0);
        wheel.disarm(7);
        wheel.disarm(u32::MAX);
        assert_eq!(wheel.armed_at(u32::MAX), None);
        assert_eq!(wheel.len(), 0);
        assert_eq!(expire(&mut wheel, 10_000), [0_u32; 0]);
    }

    #[test]
    fn a_deadline_in_the_past_fires_at_once() {
        let mut wheel = Wheel::new();
        assert_eq!(expire(&mut wheel, 50_000), [0_u32; 0]);
        wheel.arm(1, Millis(0));
        wheel.arm(2, Millis(49_999));
        wheel.arm(3, Millis(50_000));
        assert!(wheel.next_at() <= Some(Millis(50_000)));
        assert_eq!(expire(&mut wheel, 50_000), [1, 2, 3]);
    }

    #[test]
    fn a_clock_set_back_fires_nothing_early_and_loses_nothing() {
        let mut wheel = Wheel::new();
        assert_eq!(expire(&mut wheel, 1_000), [0_u32; 0]);
        wheel.arm(1, Millis(500));
        assert_eq!(expire(&mut wheel, 499), [0_u32; 0]);
        assert_eq!(expire(&mut wheel, 500), [1]);
    }

    #[test]
    fn a_far_deadline_wakes_about_once_per_revolution() {
        let mut wheel = Wheel::new();
        let at = 10 * REVOLUTION_MS + 5;
        wheel.arm(0, Millis(at));
        let mut wakes = 0;
        let mut last = None;
        while let Some(next) = wheel.next_at() {
            assert!(Some(next) > last);
            last = Some(next);
            wakes += 1;
            assert!(wakes <= 11, "still awaited at {next:?}");
            expire(&mut wheel, next.0);
        }
        assert_eq!(last, Some(Millis(at | 7)));
        assert_eq!(wakes, 11);
    }

    #[test]
    fn a_jump_over_many_revolutions_takes_all_and_only_what_is_due() {
        let mut wheel = Wheel::new();
        let now = 1 << 40;
        for slot in 0..2_000 {
            wheel.arm(slot, Millis(u64::from(slot) * 12_345_678));
        }
        wheel.arm(2_000, Millis(now));
        wheel.arm(2_001, Millis(now + 1));
        wheel.arm(2_002, Millis(now + REVOLUTION_MS));
        let fired = expire(&mut wheel, now);
        assert_eq!(fired, (0..=2_000).collect::<Vec<_>>());
        check_invariants(&wheel);
        assert_eq!(expire(&mut wheel, now + REVOLUTION_MS), [2_001, 2_002]);
    }

    #[test]
    fn the_end_of_time_is_reached() {
        let mut wheel = Wheel::new();
        wheel.arm(0, Millis(u64::MAX));
        assert_eq!(expire(&mut wheel, u64::MAX - 1), [0_u32; 0]);
        assert_eq!(wheel.next_at(), Some(Millis(u64::MAX)));
        assert_eq!(expire(&mut wheel, u64::MAX), [0]);
        wheel.arm(0, Millis(u64::MAX));
        assert_eq!(wheel.next_at(), Some(Millis(u64::MAX)));
        assert_eq!(expire(&mut wheel, u64::MAX), [0]);
    }

    #[test]
    #[should_panic(expected = "is not an index of a slab")]
    fn a_slot_out_of_range_is_refused() {
        Wheel::new().arm(SLOTS_MAX, Millis::ZERO);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Arm { slot: u32, ahead_ms: i64 },
        Disarm { slot: u32 },
        Advance { ms: u64 },
        AdvanceToNext,
    }

    fn step() -> impl Strategy<Value = Step> {
        let revolution = REVOLUTION_MS as i64;
        let ahead_ms =
            prop_oneof![-100i64..=0, 0i64..40, 0..revolution, revolution - 20..revolution + 20, 0..5 * revolution,];
        let ms =
            prop_oneof![0u64..=20, 0..REVOLUTION_MS, REVOLUTION_MS - 20..REVOLUTION_MS + 20, 0..20 * REVOLUTION_MS,];
        prop_oneof![
            6 => (0..SLOTS, ahead_ms).prop_map(|(slot, ahead_ms)| Step::Arm { slot, ahead_ms }),
            1 => (0..SLOTS).prop_map(|slot| Step::Disarm { slot }),
            2 => ms.prop_map(|ms| Step::Advance { ms }),
            2 => Just(Step::AdvanceToNext),
        ]
    }

    fn check_against(model: &BTreeMap<u32, u64>, wheel: &Wheel, now: u64) {
        assert_eq!(wheel.len(), model.len());
        for slot in 0..SLOTS {
            assert_eq!(wheel.armed_at(slot), model.get(&slot).copied().map(Millis));
        }
        match model.values().min() {
            None => assert_eq!(wheel.next_at(), None),
            Some(&earliest) => {
                let next = wheel.next_at().expect("a slot is armed").0;
                assert!(next <= now.max(earliest | (TICK_MS - 1)));
                assert!(next > now || earliest <= now, "a wake for nothing");
            }
        }
    }

    proptest! {
        #[test]
        fn equals_a_map_of_deadlines(steps in proptest::collection::vec(step(), 1..120)) {
            let mut wheel = Wheel::new();
            let mut model = BTreeMap::new();
            let mut now = 0u64;
            for step in steps {
                let to = match step {
                    Step::Arm { slot, ahead_ms } => {
                        let at = now.saturating_add_signed(ahead_ms);
                        wheel.arm(slot, Millis(at));
                        model.insert(slot, at);
                        None
                    }
                    Step::Disarm { slot } => {
                        wheel.disarm(slot);
                        model.remove(&slot);
                        None
                    }
                    Step::Advance { ms } => Some(now + ms),
                    Step::AdvanceToNext => wheel.next_at().map(|next| next.0.max(now)),
                };
                if let Some(to) = to {
                    now = to;
                    let is_due = |at: &u64| *at <= now;
                    let due: Vec<u32> =
                        model.iter().filter(|(_, at)| is_due(at)).map(|(slot, _)| *slot).collect();
                    model.retain(|_, at| !is_due(at));
                    prop_assert_eq!(expire(&mut wheel, now), due);
                }
                check_against(&model, &wheel, now);
            }
            check_invariants(&wheel);
        }

        #[test]
        fn sleeping_until_next_at_is_prompt_and_rare(
            deadlines in proptest::collection::vec(0..4 * REVOLUTION_MS, 1..20),
        ) {
            let mut wheel = Wheel::new();
            for (slot, at) in deadlines.iter().enumerate() {
                wheel.arm(slot as u32, Millis(*at));
            }
            let wakes_max: u64 = deadlines.iter().map(|at| at / REVOLUTION_MS + 1).sum();
            let mut wakes = 0;
            while let Some(next) = wheel.next_at() {
                for slot in expire(&mut wheel, next.0) {
                    let at = deadlines[slot as usize];
                    prop_assert!(at <= next.0 && next.0 - at < TICK_MS);
                }
                wakes += 1;
                prop_assert!(wakes <= wakes_max, "more than {} wakes", wakes_max);
            }
            prop_assert!(wheel.is_empty());
        }
    }
}
