//! What two moments of a run have between them: rates, CPU, and whether the generator may have been the bottleneck.

use std::time::Duration;

use super::limits::{BUSY_PERCENT, WAITED_PERCENT};
use super::process::{CpuTime, Sample};
use super::report::{Figure, Report, Round};

/// What connections have received so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Traffic {
    /// Bytes of the TCP streams, handshakes and control frames included.
    pub(super) bytes: u64,
    /// Messages.
    pub(super) messages: u64,
    /// Those of them that were compressed.
    pub(super) compressed: u64,
    /// Those of these that were inflated.
    pub(super) inflated: u64,
}

impl Traffic {
    /// What was received since `earlier`.
    pub(super) fn since(self, earlier: Traffic) -> Traffic {
        Traffic {
            bytes: self.bytes - earlier.bytes,
            messages: self.messages - earlier.messages,
            compressed: self.compressed - earlier.compressed,
            inflated: self.inflated - earlier.inflated,
        }
    }
}

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

    /// Appends the figures of what was received for `count` deliveries. Warns where nothing of it was compressed that
    /// might have been.
    pub(super) fn traffic(&self, traffic: Traffic, count: u64, deflate: bool, round: &mut Round, report: &mut Report) {
        let share = |part: u64, whole: u64| 100.0 * part as f64 / whole.max(1) as f64;
        let mut push = |name, value| round.push(Figure { name, value });
        push("received_bytes_per_s", self.per_second(traffic.bytes));
        push("received_bytes_each", traffic.bytes as f64 / count.max(1) as f64);
        if deflate {
            push("compressed_percent", share(traffic.compressed, traffic.messages));
            push("inflated_percent", share(traffic.inflated, traffic.compressed));
            if traffic.compressed == 0 && count > 0 {
                report.warn("the server agreed to compress messages and compressed none".to_owned());
            }
        }
    }

    /// Appends the CPU figures: the server's time for each of `count` things, how busy both were and how long they had
    /// to wait for their cores. Warns where that puts the other figures in doubt.
    pub(super) fn cpu(&self, count: u64, round: &mut Round, report: &mut Report) {
        let mut push = |name, value| round.push(Figure { name, value });
        let own = self.to.own.since(self.from.own);
        push("generator_busy_percent", self.percent(own.total));
        push("generator_waited_percent", self.percent(own.waited));
        let server = self.to.server.zip(self.from.server).map(|(to, from)| to.since(from));
        if let Some(used) = server {
            let each_us = |time: Duration| time.as_secs_f64() * 1e6 / (count.max(1) as f64);
            push("server_busy_percent", self.percent(used.total));
            push("server_waited_percent", self.percent(used.waited));
            push("server_cpu_us_each", each_us(used.total));
            push("server_user_us_each", each_us(used.user));
            push("server_system_us_each", each_us(used.system));
        }
        self.doubts(own, server).into_iter().for_each(|doubt| report.warn(doubt.to_owned()));
    }

    fn percent(&self, time: Duration) -> f64 {
        100.0 * time.as_secs_f64() / self.elapsed().as_secs_f64().max(f64::MIN_POSITIVE)
    }

    fn doubts(&self, own: CpuTime, server: Option<CpuTime>) -> Vec<&'static str> {
        let mut doubts = Vec::new();
        let full = |used: CpuTime| self.percent(used.total) > BUSY_PERCENT;
        let shared = |used: CpuTime| self.percent(used.waited) > WAITED_PERCENT;
        match server {
            Some(server) if full(own) && !full(server) => doubts.push(
                "the load generator's core was full while the server's was not: the server can do more than was measured",
            ),
            None if full(own) => doubts.push(
                "the load generator's core was full: without --server-pid it is unknown whether the server's was, too",
            ),
            Some(_) | None => {}
        }
        if shared(own) {
            doubts
                .push("the load generator had to wait for its core: something else runs there, and rates are too low");
        }
        if server.is_some_and(shared) {
            doubts.push(
                "the server had to wait for its core: something else runs there, and rates are too low; CPU times per \
                 delivery still hold",
            );
        }
        doubts
    }
}
