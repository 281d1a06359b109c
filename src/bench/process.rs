//! Processes as `/proc` shows them: CPU time, memory. And what the generator's own process needs before it starts.

use std::fs;
use std::io;
use std::time::{Duration, Instant};

use core_affinity::CoreId;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::limits::DESCRIPTORS_SPARE;
use super::{BenchError, Options};

/// Gives the process the descriptors and the core that the options ask for.
pub(super) fn prepare(options: &Options) -> Result<(), BenchError> {
    let needed = options.sockets() as u64 + DESCRIPTORS_SPARE;
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current.is_some_and(|current| current < needed) {
        if maximum.is_some_and(|maximum| maximum < needed) {
            return Err(BenchError::Machine(format!(
                "{} connections need {needed} descriptors, and this process may have {}; lower --connections, or raise \
                 the hard limit (ulimit -Hn)",
                options.sockets(),
                maximum.unwrap_or_default(),
            )));
        }
        setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).map_err(io::Error::from)?;
    }
    match options.pin {
        Some(core) if !core_affinity::set_for_current(CoreId { id: core }) => {
            Err(BenchError::Machine(format!("--pin: this process may not run on core {core}; name another core")))
        }
        Some(_) | None => Ok(()),
    }
}

/// CPU time a process has used so far, all its threads together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct CpuTime {
    /// In user space.
    pub(super) user: Duration,
    /// In the kernel, on its behalf.
    pub(super) system: Duration,
}

impl CpuTime {
    /// Of the process with this id (proc(5), `/proc/PID/stat`), to a tick of the kernel's accounting clock.
    pub(super) fn of(pid: u32) -> Result<CpuTime, BenchError> {
        let failed = |error| BenchError::Process { pid, error };
        let text = fs::read_to_string(format!("/proc/{pid}/stat")).map_err(failed)?;
        CpuTime::parse(&text, rustix::param::clock_ticks_per_second())
            .ok_or_else(|| failed(io::Error::other("its stat file reads differently")))
    }

    /// Of this process.
    pub(super) fn own() -> Result<CpuTime, BenchError> {
        CpuTime::of(std::process::id())
    }

    /// Both together.
    pub(super) fn total(self) -> Duration {
        self.user + self.system
    }

    /// What was used since `earlier`.
    pub(super) fn since(self, earlier: CpuTime) -> CpuTime {
        CpuTime { user: self.user.saturating_sub(earlier.user), system: self.system.saturating_sub(earlier.system) }
    }

    fn parse(stat: &str, ticks_per_s: u64) -> Option<CpuTime> {
        // The second field is the command's name in parentheses, and may itself hold spaces and parentheses.
        let (_, rest) = stat.rsplit_once(')')?;
        let mut fields = rest.split_ascii_whitespace().skip(11);
        let mut ticks = || fields.next()?.parse::<u64>().ok();
        let time = |ticks: u64| Duration::from_micros(ticks * 1_000_000 / ticks_per_s.max(1));
        Some(CpuTime { user: time(ticks()?), system: time(ticks()?) })
    }
}

/// Memory of a process that is resident, in bytes: exact where the kernel sums it up, its running estimate elsewhere.
pub(super) fn resident_bytes(pid: u32) -> Result<u64, BenchError> {
    let read = |file: &str, key: &str| {
        let text = fs::read_to_string(format!("/proc/{pid}/{file}"))?;
        let line = text.lines().find_map(|line| line.strip_prefix(key));
        let kib = line.and_then(|rest| rest.trim().strip_suffix(" kB")).and_then(|kib| kib.trim().parse::<u64>().ok());
        kib.map(|kib| kib * 1024).ok_or_else(|| io::Error::other(format!("{file} names no {key}")))
    };
    read("smaps_rollup", "Rss:")
        .or_else(|_| read("status", "VmRSS:"))
        .map_err(|error| BenchError::Process { pid, error })
}

/// CPU of the generator and of the server at one moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    /// When.
    pub(super) at: Instant,
    /// The generator's.
    pub(super) own: CpuTime,
    /// The server's, where its process is known.
    pub(super) server: Option<CpuTime>,
}

impl Sample {
    /// Now.
    pub(super) fn take(options: &Options) -> Result<Sample, BenchError> {
        let server = options.server_pid.map(CpuTime::of).transpose()?;
        Ok(Sample { own: CpuTime::own()?, server, at: Instant::now() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stat_line_is_read_whatever_the_command_is_called() {
        let stat = "42 (a) b (c) S 1 42 42 0 -1 4194560 100 0 0 0 250 75 0 0 20 0 3 0 100 1000 200";
        let expected = CpuTime { user: Duration::from_millis(2500), system: Duration::from_millis(750) };
        assert_eq!(CpuTime::parse(stat, 100), Some(expected));
        assert_eq!(CpuTime::parse("42 (a) S 1", 100), None);
    }

    #[test]
    fn a_process_sees_itself() {
        assert!(CpuTime::own().is_ok());
        assert!(resident_bytes(std::process::id()).unwrap() > 100_000);
        assert!(matches!(resident_bytes(u32::MAX), Err(BenchError::Process { pid: u32::MAX, .. })));
    }
}
