//! What is to be shown: families with their samples, whatever the format.

use super::super::Node;
use super::table::{FAMILIES, Family, Read};
use crate::metrics::{Counters, Counts, Grid, Histogram, Label, Snapshot, Tally};

/// A family with what it is now.
pub(super) struct Shown {
    pub(super) family: &'static Family,
    pub(super) samples: Vec<Sample>,
}

/// One number, or one histogram, with the values of the family's labels.
#[derive(Debug, PartialEq)]
pub(super) struct Sample {
    pub(super) labels: Vec<String>,
    pub(super) value: Value,
}

#[derive(Debug, PartialEq)]
pub(super) enum Value {
    Number(f64),
    Histogram(Snapshot),
}

/// The samples of one family; see [`Read`].
#[derive(Default)]
pub(super) struct Samples {
    /// Values of the first labels, for all that follow.
    front: Vec<String>,
    samples: Vec<Sample>,
}

/// All families that this node has something of.
pub(super) fn collect(node: &Node) -> Vec<Shown> {
    let reactors: Vec<Counts> = node.metrics.reactors.iter().map(|reactor| reactor.read()).collect();
    let shown = FAMILIES.iter().map(|family| {
        let mut samples = Samples::default();
        match family.read {
            Read::One(read) => read(node, &mut samples),
            Read::Reactor(read) => samples.each(&reactors, |samples, counts| samples.number(read(counts))),
            Read::ReactorBy(_, read) => samples.each(&reactors, |samples, counts| read(counts, samples)),
            Read::ReactorHistogram(read) => {
                samples.each(&node.metrics.reactors, |samples, reactor| samples.histogram(read(reactor)));
            }
            Read::Cluster(read) => {
                if let Some(cluster) = &node.metrics.cluster {
                    samples.number(read(&cluster.read()));
                }
            }
            Read::Webhooks(read) => {
                if let Some(webhooks) = &node.metrics.webhooks {
                    samples.number(read(&webhooks.read()));
                }
            }
            Read::By(_, read) => read(node, &mut samples),
        }
        Shown { family, samples: samples.samples }
    });
    shown.filter(|shown| !shown.samples.is_empty()).collect()
}

impl Samples {
    /// The only number of the family.
    pub(super) fn number(&mut self, value: impl Number) {
        self.labelled(&[], value);
    }

    /// One number, with the values of the family's labels.
    pub(super) fn labelled(&mut self, labels: &[&str], value: impl Number) {
        self.push(labels, Value::Number(value.number()));
    }

    /// A number for each value of a label.
    pub(super) fn by<L: Label, const N: usize>(&mut self, counters: &Counters<L, N>) {
        self.tally(&counters.read());
    }

    /// The same of a thread's own counts.
    pub(super) fn tally<L: Label, const N: usize>(&mut self, tally: &Tally<L, N>) {
        for value in L::VALUES {
            self.labelled(&[value.name()], tally.of(*value));
        }
    }

    /// A number for each pair of values of two labels.
    pub(super) fn grid<A: Label, B: Label, const M: usize, const N: usize>(&mut self, grid: &Grid<A, B, M, N>) {
        for row in A::VALUES {
            for value in B::VALUES {
                self.labelled(&[row.name(), value.name()], grid.of(*row, *value));
            }
        }
    }

    /// One histogram, with the labels that stand in front.
    pub(super) fn histogram(&mut self, histogram: &Histogram) {
        self.push(&[], Value::Histogram(histogram.read()));
    }

    fn each<T>(&mut self, reactors: &[T], mut read: impl FnMut(&mut Samples, &T)) {
        for (reactor, counts) in reactors.iter().enumerate() {
            self.front = vec![reactor.to_string()];
            read(self, counts);
        }
    }

    fn push(&mut self, labels: &[&str], value: Value) {
        let labels = self.front.iter().cloned().chain(labels.iter().map(|label| (*label).to_owned())).collect();
        self.samples.push(Sample { labels, value });
    }
}

impl Shown {
    /// A sample's labels with their names.
    pub(super) fn labels<'a>(&self, sample: &'a Sample) -> impl Iterator<Item = (&'static str, &'a str)> {
        let names = self.family.labels();
        assert_eq!(names.len(), sample.labels.len(), "{}", self.family.name);
        names.into_iter().zip(sample.labels.iter().map(String::as_str))
    }
}

/// What can be shown as a number.
pub(super) trait Number {
    fn number(self) -> f64;
}

impl Number for u64 {
    fn number(self) -> f64 {
        self as f64
    }
}

impl Number for usize {
    fn number(self) -> f64 {
        self as f64
    }
}

impl Number for f64 {
    fn number(self) -> f64 {
        self
    }
}

impl Number for bool {
    fn number(self) -> f64 {
        f64::from(u8::from(self))
    }
}
