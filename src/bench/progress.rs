//! The line on a terminal that says how far a run is. Nothing where stderr is no terminal.

use std::io::Write;
use std::time::{Duration, Instant};

use super::Options;

/// Columns of the bar itself.
const BAR_COLUMNS: usize = 30;

/// Time between two drawings.
const PACE: Duration = Duration::from_millis(100);

/// Redraws one line of stderr.
#[derive(Debug)]
pub(super) struct Progress {
    enabled: bool,
    title: &'static str,
    drawn: Option<Instant>,
}

impl Progress {
    /// Nothing is drawn yet.
    pub(super) fn new(options: &Options, terminal: bool) -> Progress {
        Progress { enabled: terminal, title: options.scenario.name(), drawn: None }
    }

    /// One that draws nothing.
    pub(super) fn hidden() -> Progress {
        Progress { enabled: false, title: "", drawn: None }
    }

    /// Draws how much of `what` is done, from 0 to 1, unless it did so a moment ago.
    pub(super) fn show(&mut self, what: &str, done: f64) {
        if !self.enabled || self.drawn.is_some_and(|drawn| drawn.elapsed() < PACE) {
            return;
        }
        self.drawn = Some(Instant::now());
        let full = (done.clamp(0.0, 1.0) * BAR_COLUMNS as f64) as usize;
        let bar = format!("{}{}", "█".repeat(full), "░".repeat(BAR_COLUMNS - full));
        // A terminal that is gone has no reader.
        let _ = write!(std::io::stderr(), "\r\x1b[K{} {bar} {what}", self.title);
    }

    /// Removes the line.
    pub(super) fn clear(&mut self) {
        if self.drawn.take().is_some() {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}
