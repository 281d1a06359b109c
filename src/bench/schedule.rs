//! The open loop's clock: when messages ought to leave, and how late the generator itself was.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};

use super::BenchError;
use super::crowd::Crowd;

/// Message N is to leave N intervals after the start.
#[derive(Debug)]
pub(super) struct Schedule {
    /// Wakes turns at the interval, finer than the milliseconds that a poll's timeout has.
    timer: OwnedFd,
    start: Instant,
    interval: Duration,
    released: u32,
    late_max: Duration,
}

impl Schedule {
    /// Starts now; `crowd`'s turns are woken by it.
    pub(super) fn start(rate_per_s: u64, crowd: &mut Crowd) -> Result<Schedule, BenchError> {
        let interval = Duration::from_secs(1) / u32::try_from(rate_per_s).unwrap_or(u32::MAX).max(1);
        Schedule::start_every(interval, interval, crowd)
    }

    /// Starts now, with so much time between two messages; `crowd`'s turns are woken as often as it says.
    pub(super) fn start_every(
        interval: Duration,
        wake_every: Duration,
        crowd: &mut Crowd,
    ) -> Result<Schedule, BenchError> {
        let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)
            .map_err(io::Error::from)?;
        crowd.watch(&mut SourceFd(&timer.as_raw_fd()))?;
        // Armed after the start was taken: the timer fires at the intended time or right behind it, never before.
        let start = Instant::now();
        let every = Timespec { tv_sec: wake_every.as_secs() as i64, tv_nsec: wake_every.subsec_nanos().into() };
        let spec = Itimerspec { it_interval: every, it_value: every };
        timerfd_settime(&timer, TimerfdTimerFlags::empty(), &spec).map_err(io::Error::from)?;
        Ok(Schedule { timer, start, interval, released: 0, late_max: Duration::ZERO })
    }

    /// Releases the messages that are due by now: how many.
    pub(super) fn release(&mut self) -> u32 {
        // The kernel arms the timer for its next expiry when this one is read; before it, there is nothing to read.
        let mut expirations = [0; size_of::<u64>()];
        let _ = rustix::io::read(&self.timer, &mut expirations);
        let now = Instant::now();
        let before = self.released;
        while self.intended(self.released) <= now {
            self.late_max = self.late_max.max(now - self.intended(self.released));
            self.released += 1;
        }
        self.released - before
    }

    /// When message `number` ought to leave.
    pub(super) fn intended(&self, number: u32) -> Instant {
        self.start + self.interval * number
    }

    /// The longest time by which a message left late since this was last asked.
    pub(super) fn take_late_max(&mut self) -> Duration {
        std::mem::take(&mut self.late_max)
    }
}
