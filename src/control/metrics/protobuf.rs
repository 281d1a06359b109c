//! Prometheus' protobuf format, which has native histograms: messages of `io.prometheus.client`, each with its length in front.
//!
//! A histogram has its few classic buckets as well: a Prometheus without native histograms keeps these.

use prost::Message;

use super::samples::{Sample, Shown, Value};
use super::table::Kind;
use crate::metrics::{SCHEMA, Snapshot};

/// What a scraper is told this is.
pub(super) const CONTENT_TYPE: &str =
    "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited";

/// The page.
pub(super) fn page(shown: &[Shown]) -> Vec<u8> {
    let mut page = Vec::new();
    for shown in shown {
        family(shown).encode_length_delimited(&mut page).expect("a vector takes all that is written");
    }
    page
}

fn family(shown: &Shown) -> MetricFamily {
    let kind = match shown.family.kind {
        Kind::Counter => MetricType::Counter,
        Kind::Gauge => MetricType::Gauge,
        Kind::Histogram => MetricType::Histogram,
    };
    MetricFamily {
        name: shown.family.name.to_owned(),
        help: shown.family.help.to_owned(),
        kind: kind as i32,
        metric: shown.samples.iter().map(|sample| metric(shown, sample)).collect(),
    }
}

fn metric(shown: &Shown, sample: &Sample) -> Metric {
    let label = shown.labels(sample).map(|(name, value)| LabelPair { name: name.to_owned(), value: value.to_owned() });
    let metric = Metric { label: label.collect(), ..Metric::default() };
    match (&sample.value, shown.family.kind) {
        (Value::Histogram(snapshot), _) => Metric { histogram: Some(histogram(snapshot)), ..metric },
        (Value::Number(value), Kind::Gauge) => Metric { gauge: Some(Number { value: *value }), ..metric },
        (Value::Number(value), Kind::Counter | Kind::Histogram) => {
            Metric { counter: Some(Number { value: *value }), ..metric }
        }
    }
}

fn histogram(snapshot: &Snapshot) -> Histogram {
    let (mut spans, mut deltas) = (Vec::<BucketSpan>::new(), Vec::new());
    let (mut next, mut last) = (0, 0);
    for (index, count) in snapshot.native() {
        match spans.last_mut() {
            Some(span) if index == next => span.length += 1,
            _ => spans.push(BucketSpan { offset: index - next, length: 1 }),
        }
        deltas.push(count as i64 - last);
        (next, last) = (index + 1, count as i64);
    }
    if spans.is_empty() {
        // What tells a native histogram without observations from a classic one.
        spans.push(BucketSpan { offset: 0, length: 0 });
    }
    let bucket =
        snapshot.classic().into_iter().map(|(upper_bound, cumulative_count)| Bucket { cumulative_count, upper_bound });
    Histogram {
        sample_count: snapshot.count(),
        sample_sum: snapshot.sum(),
        bucket: bucket.collect(),
        schema: SCHEMA as i32,
        zero_threshold: 0.0,
        zero_count: 0,
        positive_span: spans,
        positive_delta: deltas,
    }
}

#[derive(Clone, PartialEq, Message)]
struct MetricFamily {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    help: String,
    #[prost(enumeration = "MetricType", tag = "3")]
    kind: i32,
    #[prost(message, repeated, tag = "4")]
    metric: Vec<Metric>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
enum MetricType {
    Counter = 0,
    Gauge = 1,
    Histogram = 4,
}

#[derive(Clone, PartialEq, Message)]
struct Metric {
    #[prost(message, repeated, tag = "1")]
    label: Vec<LabelPair>,
    #[prost(message, optional, tag = "2")]
    gauge: Option<Number>,
    #[prost(message, optional, tag = "3")]
    counter: Option<Number>,
    #[prost(message, optional, tag = "7")]
    histogram: Option<Histogram>,
}

#[derive(Clone, PartialEq, Message)]
struct LabelPair {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    value: String,
}

/// A `Counter` or a `Gauge`.
#[derive(Clone, PartialEq, Message)]
struct Number {
    #[prost(double, tag = "1")]
    value: f64,
}

#[derive(Clone, PartialEq, Message)]
struct Histogram {
    #[prost(uint64, tag = "1")]
    sample_count: u64,
    #[prost(double, tag = "2")]
    sample_sum: f64,
    #[prost(message, repeated, tag = "3")]
    bucket: Vec<Bucket>,
    #[prost(sint32, tag = "5")]
    schema: i32,
    #[prost(double, tag = "6")]
    zero_threshold: f64,
    #[prost(uint64, tag = "7")]
    zero_count: u64,
    #[prost(message, repeated, tag = "12")]
    positive_span: Vec<BucketSpan>,
    #[prost(sint64, repeated, tag = "13")]
    positive_delta: Vec<i64>,
}

#[derive(Clone, PartialEq, Message)]
struct Bucket {
    #[prost(uint64, tag = "1")]
    cumulative_count: u64,
    #[prost(double, tag = "2")]
    upper_bound: f64,
}

#[derive(Clone, PartialEq, Message)]
struct BucketSpan {
    #[prost(sint32, tag = "1")]
    offset: i32,
    #[prost(uint32, tag = "2")]
    length: u32,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Unit;

    #[test]
    fn buckets_that_are_used_stand_in_spans_with_differences() {
        let recorded = crate::metrics::Histogram::new(Unit::Count);
        for (value, times) in [(1, 5), (2, 3), (4, 1), (5, 2)] {
            recorded.record(value, times);
        }
        let shown = histogram(&recorded.read());
        let spans: Vec<_> = shown.positive_span.iter().map(|span| (span.offset, span.length)).collect();
        // The buckets 0, 8, 16 and 19.
        assert_eq!(spans, [(0, 1), (7, 1), (7, 1), (2, 1)]);
        assert_eq!(shown.positive_delta, [5, -2, -2, 1]);
        assert_eq!((shown.sample_count, shown.sample_sum), (11, 25.0));
        let empty = histogram(&crate::metrics::Histogram::new(Unit::Nanoseconds).read());
        assert_eq!((empty.positive_span.len(), empty.positive_delta.len()), (1, 0));
    }
}
