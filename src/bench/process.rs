//! Processes as `/proc` shows them: CPU time, memory. And what the generator's own process needs before it starts.

use std::fs;
use std::io;
use std::time::{Duration, Instant};

use core_affinity::CoreId;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::limits::DESCRIPTORS_SPARE;
use super::{BenchError, Options};

/// Gives the process the descriptors and the core that the options ask for, and sees whether the server's is there.
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
    options.server_pid.map(CpuTime::of).transpose()?;
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
    /// In user space, to a tick of the kernel's accounting clock.
    pub(super) user: Duration,
    /// In the kernel on its behalf, to a tick.
    pub(super) system: Duration,
    /// Both together, exactly.
    pub(super) total: Duration,
    /// Time in which it was ready to run and something else had its core.
    pub(super) waited: Duration,
}

impl CpuTime {
    /// Of the process with this id: `/proc/PID/stat` (proc(5)) and the scheduler's `/proc/PID/task/TID/schedstat`.
    pub(super) fn of(pid: u32) -> Result<CpuTime, BenchError> {
        let failed = |error| BenchError::Process { pid, error };
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).map_err(failed)?;
        let (user, system) = split(&stat, rustix::param::clock_ticks_per_second())
            .ok_or_else(|| failed(io::Error::other("its stat file reads differently")))?;
        let (mut total, mut waited) = (Duration::ZERO, Duration::ZERO);
        for task in fs::read_dir(format!("/proc/{pid}/task")).map_err(failed)? {
            // A thread that has just ended has nothing more to say, and a kernel without these figures never had.
            let Ok(task) = task else { continue };
            let Ok(schedstat) = fs::read_to_string(task.path().join("schedstat")) else { continue };
            if let Some((ran, queued)) = scheduled(&schedstat) {
                total += ran;
                waited += queued;
            }
        }
        Ok(CpuTime { user, system, total: if total.is_zero() { user + system } else { total }, waited })
    }

    /// Of this process.
    pub(super) fn own() -> Result<CpuTime, BenchError> {
        CpuTime::of(std::process::id())
    }

    /// What was used since `earlier`.
    pub(super) fn since(self, earlier: CpuTime) -> CpuTime {
        CpuTime {
            user: self.user.saturating_sub(earlier.user),
            system: self.system.saturating_sub(earlier.system),
            total: self.total.saturating_sub(earlier.total),
            waited: self.waited.saturating_sub(earlier.waited),
        }
    }
}

/// The user and the system time in a stat line.
fn split(stat: &str, ticks_per_s: u64) -> Option<(Duration, Duration)> {
    // The second field is the command's name in parentheses, and may itself hold spaces and parentheses.
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace().skip(11);
    let mut time = || {
        let ticks = fields.next()?.parse::<u64>().ok()?;
        Some(Duration::from_micros(ticks * 1_000_000 / ticks_per_s.max(1)))
    };
    Some((time()?, time()?))
}

/// The time on a core and the time in its queue, of a thread's schedstat line.
fn scheduled(schedstat: &str) -> Option<(Duration, Duration)> {
    let mut fields = schedstat.split_ascii_whitespace();
    let mut time = || Some(Duration::from_nanos(fields.next()?.parse().ok()?));
    Some((time()?, time()?))
}

/// Memory of a process that is resident, in bytes: exact where the kernel sums it up, its running estimate elsewhere.
pub(super) fn resident_bytes(pid: u32) -> Result<u64, BenchError> {
    memory(pid, "smaps_rollup", "Rss:").or_else(|_| memory(pid, "status", "VmRSS:"))
}

/// Has the most that was resident count from now on, where the kernel lets this user (proc(5), `clear_refs`).
pub(super) fn forget_resident_peak(pid: u32) {
    let _ = fs::write(format!("/proc/{pid}/clear_refs"), "5");
}

/// The most that has been resident since [`forget_resident_peak`], or since the process started, in bytes.
pub(super) fn resident_peak_bytes(pid: u32) -> Result<u64, BenchError> {
    memory(pid, "status", "VmHWM:")
}

fn memory(pid: u32, file: &str, key: &str) -> Result<u64, BenchError> {
    let failed = |error| BenchError::Process { pid, error };
    let text = fs::read_to_string(format!("/proc/{pid}/{file}")).map_err(failed)?;
    let line = text.lines().find_map(|line| line.strip_prefix(key));
    let kib = line.and_then(|rest| rest.trim().strip_suffix(" kB")).and_then(|kib| kib.trim().parse::<u64>().ok());
    kib.map(|kib| kib * 1024).ok_or_else(|| failed(io::Error::other(format!("{file} names no {key}"))))
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
        assert_eq!(split(stat, 100), Some((Duration::from_millis(2500), Duration::from_millis(750))));
        assert_eq!(split("42 (a) S 1", 100), None);
        assert_eq!(scheduled("1500 30 7\n"), Some((Duration::from_nanos(1500), Duration::from_nanos(30))));
        assert_eq!(scheduled("1500"), None);
    }

    #[test]
    fn a_process_sees_itself() {
        assert!(CpuTime::own().unwrap().total > Duration::ZERO);
        forget_resident_peak(std::process::id());
        let resident = resident_bytes(std::process::id()).unwrap();
        assert!(resident > 100_000 && resident_peak_bytes(std::process::id()).unwrap() > 100_000);
        assert!(matches!(resident_bytes(u32::MAX), Err(BenchError::Process { pid: u32::MAX, .. })));
    }
}
