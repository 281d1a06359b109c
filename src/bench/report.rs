//! What a run found: figures by round, their medians, faults and warnings; as a table or as JSON.

use std::fmt::Write;

use serde_json::{Map, Value, json};

use super::Options;
use super::ledger::Faults;
use crate::config::{one_json_line, one_line};

/// One figure: its unit stands last in its name.
#[derive(Clone, Copy, Debug)]
pub(super) struct Figure {
    /// As in `deliveries_per_s`.
    pub(super) name: &'static str,
    /// The value.
    pub(super) value: f64,
}

/// The figures of one round, every round with the same names in the same order.
pub(super) type Round = Vec<Figure>;

/// What a run found.
#[derive(Debug)]
pub struct Report {
    scenario: &'static str,
    settings: Vec<(&'static str, Value)>,
    rounds: Vec<Round>,
    faults: Faults,
    warnings: Vec<String>,
}

impl Report {
    /// Of a run with these options. `settings` are those that shaped the scenario.
    pub(super) fn new(options: &Options, settings: &[(&'static str, u64)]) -> Report {
        let mut all = vec![("url", json!(options.target.url))];
        all.extend(settings.iter().map(|(name, value)| (*name, json!(value))));
        all.push(("deflate", json!(options.deflate)));
        all.push(("tokens", json!(options.credentials.name())));
        all.push(("dialect", json!(options.dialect.name())));
        Report {
            scenario: options.scenario.name(),
            settings: all,
            rounds: Vec::new(),
            faults: Faults::default(),
            warnings: Vec::new(),
        }
    }

    /// Names a further setting that shaped the scenario.
    pub(super) fn setting(&mut self, name: &'static str, value: impl Into<Value>) {
        self.settings.push((name, value.into()));
    }

    /// Adds a round.
    pub(super) fn round(&mut self, round: Round) {
        self.rounds.push(round);
    }

    /// Says what went wrong.
    pub(super) fn faults(&mut self, faults: Faults) {
        self.faults = faults;
    }

    /// Says why the figures may not mean what they seem to; the same words only once.
    pub(super) fn warn(&mut self, what: String) {
        if !self.warnings.contains(&what) {
            self.warnings.push(what);
        }
    }

    /// Whether the server did right.
    pub fn is_clean(&self) -> bool {
        self.faults.is_empty()
    }

    /// For people.
    pub fn table(&self) -> String {
        let mut out = String::new();
        let settings: Vec<_> = self.settings.iter().map(|(name, value)| format!("{name} {}", plain(value))).collect();
        let _ = writeln!(out, "{}: {}\n", self.scenario, one_line(&settings.join(", ")));
        let median = self.median();
        let width = median.iter().map(|figure| figure.name.len()).max().unwrap_or(0);
        let several = self.rounds.len() > 1;
        for (row, figure) in median.iter().enumerate() {
            let _ = write!(out, "  {:width$}  {:>14}", figure.name, digits(figure.value));
            if several {
                let of_round = |round: &Round| round.get(row).map_or(String::new(), |figure| digits(figure.value));
                let rounds: Vec<_> = self.rounds.iter().map(of_round).collect();
                let _ = write!(out, "  median of {}", rounds.join(" "));
            }
            out.push('\n');
        }
        let found: Vec<_> = self.faults.counts().iter().map(|(name, count)| format!("{name} {count}")).collect();
        let _ = writeln!(out, "\n  {}", found.join(", "));
        for told in &self.faults.told {
            let _ = writeln!(out, "  fault: {}", one_line(told));
        }
        for warning in &self.warnings {
            let _ = writeln!(out, "  warning: {}", one_line(warning));
        }
        out
    }

    /// For machines: one line.
    pub fn json(&self) -> String {
        let object = |round: &Round| -> Value {
            round.iter().map(|figure| (figure.name.to_owned(), json!(figure.value))).collect::<Map<_, _>>().into()
        };
        let mut faults: Map<_, _> =
            self.faults.counts().iter().map(|(name, count)| ((*name).to_owned(), json!(count))).collect();
        faults.insert("told".to_owned(), json!(self.faults.told));
        let settings: Map<_, _> =
            self.settings.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        let report = json!({
            "scenario": self.scenario,
            "version": env!("CARGO_PKG_VERSION"),
            "settings": settings,
            "rounds": self.rounds.iter().map(object).collect::<Vec<_>>(),
            "median": object(&self.median()),
            "faults": faults,
            "warnings": self.warnings,
        });
        format!("{}\n", one_json_line(&report.to_string()))
    }

    fn median(&self) -> Round {
        let Some(first) = self.rounds.first() else { return Vec::new() };
        let of = |(row, figure): (usize, &Figure)| {
            let values = self.rounds.iter().filter_map(|round| round.get(row)).map(|figure| figure.value).collect();
            Figure { name: figure.name, value: median(values) }
        };
        first.iter().enumerate().map(of).collect()
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => 0.0,
        count if count.is_multiple_of(2) => f64::midpoint(values[middle - 1], values[middle]),
        _ => values[middle],
    }
}

/// Three digits behind the point where they say something, thousands apart where there are any.
fn digits(value: f64) -> String {
    if value.abs() < 1000.0 {
        let text = format!("{value:.3}");
        return text.trim_end_matches('0').trim_end_matches('.').to_owned();
    }
    let whole = format!("{:.0}", value.abs());
    let mut out = String::from(if value < 0.0 { "-" } else { "" });
    for (at, digit) in whole.chars().enumerate() {
        if at > 0 && (whole.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_are_of_the_middle() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(median(Vec::new()), 0.0);
    }

    #[test]
    fn numbers_are_for_people() {
        for (value, text) in
            [(0.0, "0"), (0.0345, "0.035"), (12.5, "12.5"), (999.9996, "1000"), (1_234_567.8, "1,234,568")]
        {
            assert_eq!(digits(value), text);
        }
        assert_eq!(digits(-4200.0), "-4,200");
    }
}
