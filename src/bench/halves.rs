//! Rounds of two halves: in calm, and beside something that may disturb.

use super::process::{forget_resident_peak, resident_bytes, resident_peak_bytes};
use super::report::{Figure, Round};
use super::{BenchError, Options};

/// A figure of both halves: its name in a half, in calm, and beside.
pub(super) type Twice = (&'static str, &'static str, &'static str);

const PEAK: &str = "resident_peak_bytes";

/// One half of a round.
#[derive(Debug)]
pub(super) struct Half {
    figures: Round,
    /// What the server had resident at its beginning.
    resident_bytes: Option<u64>,
}

impl Half {
    /// Measures one, with the server's memory.
    pub(super) fn measure(
        options: &Options,
        run: impl FnOnce() -> Result<Round, BenchError>,
    ) -> Result<Half, BenchError> {
        let before = options.server_pid.map(resident_bytes).transpose().ok().flatten();
        options.server_pid.into_iter().for_each(forget_resident_peak);
        let mut figures = run()?;
        // A process that has ended has no memory; that its connections ended is a fault and told as one.
        if let Some(Ok(bytes)) = options.server_pid.map(resident_peak_bytes) {
            figures.push(Figure { name: PEAK, value: bytes as f64 });
        }
        Ok(Half { figures, resident_bytes: before })
    }

    /// Puts these figures in place of those with their names.
    pub(super) fn replace(&mut self, newer: &Round) {
        for figure in &mut self.figures {
            if let Some(newer) = newer.iter().find(|newer| newer.name == figure.name) {
                figure.value = newer.value;
            }
        }
    }

    /// The figures of both, and under `ratio` how many times as long the p99 beside is as that in calm.
    pub(super) fn pair(calm: &Half, beside: &Half, figures: &[Twice], ratio: &'static str) -> Round {
        let mut round = Round::new();
        for (name, calm_name, beside_name) in figures {
            let (Some(in_calm), Some(other)) = (calm.value(name), beside.value(name)) else { continue };
            round.push(Figure { name: calm_name, value: in_calm });
            round.push(Figure { name: beside_name, value: other });
        }
        let p99 = |half: &Half| half.value("p99_us").unwrap_or_default().max(1.0);
        round.push(Figure { name: ratio, value: p99(beside) / p99(calm) });
        round
    }

    /// By how much the server's memory was larger at its peak than at the beginning, in bytes.
    pub(super) fn grown_bytes(&self) -> Option<f64> {
        let (peak, before) = (self.value(PEAK)?, self.resident_bytes?);
        Some((peak - before as f64).max(0.0))
    }

    fn value(&self, name: &str) -> Option<f64> {
        self.figures.iter().find(|figure| figure.name == name).map(|figure| figure.value)
    }
}
