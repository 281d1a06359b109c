//! Prometheus' text format, version 0.0.4. A histogram has few buckets here: the native ones need the other format.

use std::fmt::{Display, Write};

use super::samples::{Sample, Shown, Value};
use crate::metrics::Snapshot;

/// What a scraper is told this is.
pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The page.
pub(super) fn page(shown: &[Shown]) -> String {
    let mut page = Page(String::new());
    for shown in shown {
        page.family(shown.family.name, shown.family.kind.name(), shown.family.help);
        for sample in &shown.samples {
            let labels: Vec<(&str, &str)> = shown.labels(sample).collect();
            page.sample(shown.family.name, &labels, sample);
        }
    }
    page.0
}

/// The page as far as it is written.
struct Page(String);

impl Page {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        self.line(format_args!("# HELP {name} {}\n# TYPE {name} {kind}", escaped(help, false)));
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], sample: &Sample) {
        match &sample.value {
            Value::Number(value) => self.number(name, "", labels, value),
            Value::Histogram(snapshot) => self.histogram(name, labels, snapshot),
        }
    }

    fn histogram(&mut self, name: &str, labels: &[(&str, &str)], snapshot: &Snapshot) {
        let count = snapshot.count();
        let ends = snapshot.classic().into_iter().map(|(end, below)| (end.to_string(), below));
        for (end, below) in ends.chain([("+Inf".to_owned(), count)]) {
            let labels: Vec<_> = labels.iter().copied().chain([("le", &*end)]).collect();
            self.number(name, "_bucket", &labels, below);
        }
        self.number(name, "_sum", labels, snapshot.sum());
        self.number(name, "_count", labels, count);
    }

    fn number(&mut self, name: &str, suffix: &str, labels: &[(&str, &str)], value: impl Display) {
        if labels.is_empty() {
            return self.line(format_args!("{name}{suffix} {value}"));
        }
        let labels: Vec<String> =
            labels.iter().map(|(label, value)| format!("{label}=\"{}\"", escaped(value, true))).collect();
        self.line(format_args!("{name}{suffix}{{{}}} {value}", labels.join(",")));
    }

    fn line(&mut self, line: impl Display) {
        writeln!(self.0, "{line}").expect("a string takes all that is written");
    }
}

/// Backslashes and line ends may not stand in help texts and label values, nor quotes in the latter.
fn escaped(text: &str, quotes: bool) -> String {
    let text = text.replace('\\', "\\\\").replace('\n', "\\n");
    match quotes {
        true => text.replace('"', "\\\""),
        false => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_break_a_line_is_escaped() {
        let mut page = Page(String::new());
        page.family("a_total", "counter", "say \"\\\" and\nstop");
        page.number("a_total", "", &[("b", "x\\y\"z\n"), ("c", "7")], 8);
        assert_eq!(
            page.0,
            "# HELP a_total say \"\\\\\" and\\nstop\n# TYPE a_total counter\na_total{b=\"x\\\\y\\\"z\\n\",c=\"7\"} 8\n"
        );
    }
}
