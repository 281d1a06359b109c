//! Counts by the value of a label. The values of a label are an enum, so that there are never more of them than the code
//! names: neither users nor rooms are one.

use std::marker::PhantomData;
use std::sync::atomic::{AtomicU64, Ordering};

/// The values of a label.
pub trait Label: Copy + PartialEq + 'static {
    /// What the label is called.
    const LABEL: &'static str;

    /// All values, each at its own index.
    const VALUES: &'static [Self];

    /// Where it stands among them.
    fn index(self) -> usize;

    /// A stable word for metrics and logs.
    fn name(self) -> &'static str;
}

/// Declares an enum whose variants are the values of a label, each with its word.
macro_rules! label {
    (
        $(#[doc = $doc:literal])+
        pub enum $name:ident as $label:literal {
            $($(#[doc = $variant_doc:literal])+ $variant:ident = $word:literal,)+
        }
    ) => {
        $(#[doc = $doc])+
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name {
            $($(#[doc = $variant_doc])+ $variant,)+
        }

        impl $name {
            /// How many there are.
            pub const COUNT: usize = $name::ALL.len();

            /// All of them, each at its own index.
            pub const ALL: [$name; [$($word),+].len()] = [$($name::$variant),+];

            /// A stable word for metrics and logs.
            pub fn name(self) -> &'static str {
                match self {
                    $($name::$variant => $word,)+
                }
            }
        }

        impl $crate::metrics::Label for $name {
            const LABEL: &'static str = $label;
            const VALUES: &'static [$name] = &$name::ALL;

            #[inline]
            fn index(self) -> usize {
                self as usize
            }

            fn name(self) -> &'static str {
                $name::name(self)
            }
        }
    };
}

pub(crate) use label;

/// Counts of one thread, by the value of a label. `N` is how many values there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tally<L, const N: usize> {
    counts: [u64; N],
    label: PhantomData<L>,
}

impl<L: Label, const N: usize> Tally<L, N> {
    /// One more.
    #[inline]
    pub fn count(&mut self, value: L) {
        self.counts[value.index()] += 1;
    }

    /// How many of this value.
    pub fn of(&self, value: L) -> u64 {
        self.counts[value.index()]
    }

    /// How many in all.
    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }
}

impl<L, const N: usize> Default for Tally<L, N> {
    fn default() -> Tally<L, N> {
        Tally { counts: [0; N], label: PhantomData }
    }
}

/// Counts that any thread may add to, by the value of a label; also a [`Tally`] as it is published. `N` is how many values
/// there are.
#[derive(Debug)]
pub struct Counters<L, const N: usize> {
    counts: [AtomicU64; N],
    label: PhantomData<fn() -> L>,
}

impl<L: Label, const N: usize> Counters<L, N> {
    /// One more.
    pub fn count(&self, value: L) {
        self.add(value, 1);
    }

    /// So many more.
    pub fn add(&self, value: L, more: u64) {
        self.counts[value.index()].fetch_add(more, Ordering::Relaxed);
    }

    /// How many of this value.
    pub fn of(&self, value: L) -> u64 {
        self.counts[value.index()].load(Ordering::Relaxed)
    }

    /// Publishes; called by the owner of the tally only.
    pub(super) fn publish(&self, tally: &Tally<L, N>) {
        for (counter, count) in self.counts.iter().zip(tally.counts) {
            counter.store(count, Ordering::Relaxed);
        }
    }

    /// All of them.
    pub fn read(&self) -> Tally<L, N> {
        Tally { counts: self.counts.each_ref().map(|count| count.load(Ordering::Relaxed)), label: PhantomData }
    }
}

impl<L, const N: usize> Default for Counters<L, N> {
    fn default() -> Counters<L, N> {
        Counters { counts: std::array::from_fn(|_| AtomicU64::new(0)), label: PhantomData }
    }
}

/// Counts that any thread may add to, by the values of two labels, of which there are `M` and `N`.
#[derive(Debug)]
pub struct Grid<A, B, const M: usize, const N: usize> {
    rows: [Counters<B, N>; M],
    label: PhantomData<fn() -> A>,
}

impl<A: Label, B: Label, const M: usize, const N: usize> Grid<A, B, M, N> {
    /// One more.
    pub fn count(&self, row: A, value: B) {
        self.rows[row.index()].count(value);
    }

    /// How many of these values.
    pub fn of(&self, row: A, value: B) -> u64 {
        self.rows[row.index()].of(value)
    }
}

impl<A, B, const M: usize, const N: usize> Default for Grid<A, B, M, N> {
    fn default() -> Grid<A, B, M, N> {
        Grid { rows: std::array::from_fn(|_| Counters::default()), label: PhantomData }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::About;

    #[test]
    fn each_value_has_its_own_count() {
        let grid = Grid::<About, About, { About::COUNT }, { About::COUNT }>::default();
        grid.count(About::Connect, About::Join);
        grid.count(About::Connect, About::Join);
        grid.count(About::Join, About::Connect);
        assert_eq!((grid.of(About::Connect, About::Join), grid.of(About::Join, About::Connect)), (2, 1));
        assert_eq!((grid.of(About::Connect, About::Connect), grid.of(About::Join, About::Join)), (0, 0));
        let mut tally = Tally::<About, { About::COUNT }>::default();
        tally.count(About::Join);
        let counters = Counters::default();
        counters.publish(&tally);
        assert_eq!((counters.read(), counters.of(About::Join), tally.total()), (tally, 1, 1));
        assert_eq!(About::ALL.map(Label::name), ["connect", "join"]);
    }
}
