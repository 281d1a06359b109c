//! Rounds of a workload: warm up, measure, let the rest arrive, judge.

use std::time::{Duration, Instant};

use super::crowd::{Crowd, Receiver};
use super::inbox::Inbox;
use super::meter::Stretch;
use super::process::Sample;
use super::progress::Progress;
use super::report::{Figure, Report, Round};
use super::{BenchError, Options};

/// Something that sends messages and receives them.
pub(super) trait Workload: Receiver {
    /// What it has received.
    fn inbox(&mut self) -> &mut Inbox;

    /// Messages that all their receivers have.
    fn done(&self) -> u64;

    /// Whether deliveries are on their way.
    fn is_waiting(&mut self) -> bool;

    /// Sends what is due, at the end of a turn.
    fn send(&mut self, crowd: &mut Crowd) -> Result<(), BenchError>;

    /// Sends nothing new from now on.
    fn stop(&mut self);

    /// Forgets what the last round timed.
    fn begin_round(&mut self) {}

    /// Appends what this round timed.
    fn figures(&mut self, _round: &mut Round) {}
}

/// Drives a workload.
pub(super) struct Runner<'a, W> {
    options: &'a Options,
    crowd: Crowd,
    workload: W,
    progress: &'a mut Progress,
    /// Deliveries when there last were more, and when that was.
    seen: (u64, Instant),
    stalled: bool,
}

impl<'a, W: Workload> Runner<'a, W> {
    /// Over a crowd that is open.
    pub(super) fn new(options: &'a Options, crowd: Crowd, workload: W, progress: &'a mut Progress) -> Runner<'a, W> {
        Runner { options, crowd, workload, progress, seen: (0, Instant::now()), stalled: false }
    }

    /// All rounds of a run, and its end; the workload comes back to close its books.
    pub(super) fn run(mut self, report: &mut Report) -> Result<W, BenchError> {
        self.warm_up()?;
        for number in 1..=self.options.rounds {
            if self.is_over() {
                break;
            }
            let round = self.round(&format!("round {number} of {}", self.options.rounds), report)?;
            report.round(round);
        }
        self.settle()
    }

    /// What comes before the first round.
    pub(super) fn warm_up(&mut self) -> Result<(), BenchError> {
        match self.options.warmup {
            Duration::ZERO => Ok(()),
            warmup => self.until("warming up", warmup, None),
        }
    }

    /// One round, and its figures.
    pub(super) fn round(&mut self, title: &str, report: &mut Report) -> Result<Round, BenchError> {
        self.measure(report, |runner| runner.until(title, runner.options.duration, runner.options.messages))
    }

    /// The figures of the time in which something else goes on.
    pub(super) fn round_beside(
        &mut self,
        title: &str,
        report: &mut Report,
        goes_on: impl Fn() -> bool,
    ) -> Result<Round, BenchError> {
        self.measure(report, |runner| runner.while_waiting(title, goes_on))
    }

    fn measure(
        &mut self,
        report: &mut Report,
        run: impl FnOnce(&mut Self) -> Result<(), BenchError>,
    ) -> Result<Round, BenchError> {
        self.workload.begin_round();
        let before = (self.workload.inbox().delivered(), self.workload.done(), self.crowd.traffic());
        let from = Sample::take(self.options)?;
        run(self)?;
        let stretch = Stretch { from, to: Sample::take(self.options)? };
        let deliveries = self.workload.inbox().delivered() - before.0;
        let messages = self.workload.done() - before.1;
        let mut round = vec![
            Figure { name: "seconds", value: stretch.elapsed().as_secs_f64() },
            Figure { name: "deliveries_per_s", value: stretch.per_second(deliveries) },
            Figure { name: "messages_per_s", value: stretch.per_second(messages) },
        ];
        self.workload.figures(&mut round);
        let traffic = self.crowd.traffic().since(before.2);
        stretch.traffic(traffic, deliveries, self.options.deflate, &mut round, report);
        stretch.cpu(deliveries, &mut round, report);
        Ok(round)
    }

    /// What runs, and its connections.
    pub(super) fn parts(&mut self) -> (&mut W, &mut Crowd) {
        (&mut self.workload, &mut self.crowd)
    }

    /// What was timed since the last round began, what came behind its end included.
    pub(super) fn timed(&mut self) -> Round {
        let mut timed = Round::new();
        self.workload.figures(&mut timed);
        timed
    }

    /// Runs for so long, or until so many more messages are done. A fault or a stall ends it early.
    fn until(&mut self, title: &str, duration: Duration, messages: Option<u64>) -> Result<(), BenchError> {
        let start = Instant::now();
        let done_before = self.workload.done();
        loop {
            self.turn()?;
            let fraction = match messages {
                Some(messages) => (self.workload.done() - done_before) as f64 / messages as f64,
                None => start.elapsed().as_secs_f64() / duration.as_secs_f64(),
            };
            if fraction >= 1.0 || self.is_over() {
                return Ok(());
            }
            self.progress.show(title, fraction);
        }
    }

    /// Goes on as before while something else is to end, or until there is no use in it.
    pub(super) fn while_waiting(&mut self, title: &str, is_waiting: impl Fn() -> bool) -> Result<(), BenchError> {
        while is_waiting() && !self.is_over() {
            self.turn()?;
            self.progress.show(title, 1.0);
        }
        Ok(())
    }

    fn turn(&mut self) -> Result<(), BenchError> {
        self.workload.send(&mut self.crowd)?;
        self.crowd.turn(&mut self.workload, None)?;
        let delivered = self.workload.inbox().delivered();
        if delivered > self.seen.0 || !self.workload.is_waiting() {
            self.seen = (delivered, Instant::now());
        } else {
            self.stalled = self.seen.1.elapsed() > self.options.timeout;
        }
        Ok(())
    }

    /// Whether there is no use in another round: a fault was found, or nothing comes any more.
    pub(super) fn is_over(&mut self) -> bool {
        self.stalled || self.workload.inbox().is_faulty()
    }

    /// Publishes no more, waits for what is on its way, and then for what may come unasked.
    pub(super) fn settle(mut self) -> Result<W, BenchError> {
        self.workload.stop();
        while self.workload.is_waiting() && !self.stalled {
            self.turn()?;
            self.progress.show("waiting for the last deliveries", 1.0);
        }
        self.workload.inbox().raise_barrier(&mut self.crowd, self.options);
        let start = Instant::now();
        while self.workload.inbox().is_before_barrier() && start.elapsed() < self.options.timeout {
            self.turn()?;
        }
        Ok(self.workload)
    }
}
