//! What two moments of a run have between them: rates, CPU, and whether the generator may have been the bottleneck.

use std::time::Duration;

use super::limits::BUSY_PERCENT;
use super::process::Sample;
use super::report::{Figure, Report, Round};

/// The stretch between two samples.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stretch {
    /// Its start.
    pub(super) from: Sample,
    /// Its end.
    pub(super) to: Sample,
}

impl Stretch {
    /// Its length.
    pub(super) fn elapsed(&self) -> Duration {
        self.to.at.saturating_duration_since(self.from.at)
    }

    /// So many things a second.
    pub(super) fn per_second(&self, count: u64) -> f64 {
        count as f64 / self.elapsed().as_secs_f64().max(f64::MIN_POSITIVE)
    }

    /// Appends the CPU figures: the server's time for each of `count` things, how busy both were. Warns where the
    /// generator was the busier one.
    pub(super) fn cpu(&self, count: u64, round: &mut Round, report: &mut Report) {
        let mut push = |name, value| round.push(Figure { name, value });
        let busy = |time: Duration| 100.0 * time.as_secs_f64() / self.elapsed().as_secs_f64().max(f64::MIN_POSITIVE);
        let own_busy = busy(self.to.own.since(self.from.own).total());
        push("generator_busy_percent", own_busy);
        let server = self.to.server.zip(self.from.server).map(|(to, from)| to.since(from));
        let server_busy = server.map(|used| busy(used.total()));
        if let Some((used, server_busy)) = server.zip(server_busy) {
            let each_us = |time: Duration| time.as_secs_f64() * 1e6 / (count.max(1) as f64);
            push("server_busy_percent", server_busy);
            push("server_user_us_each", each_us(used.user));
            push("server_system_us_each", each_us(used.system));
        }
        if own_busy > BUSY_PERCENT && server_busy.is_none_or(|server| server < BUSY_PERCENT) {
            report.warn(match server_busy {
                Some(_) => {
                    "the load generator's core was full while the server's was not: the server can do more than \
                            was measured"
                        .to_owned()
                }
                None => "the load generator's core was full: without --server-pid it is unknown whether the server's \
                         was, too"
                    .to_owned(),
            });
        }
    }
}
