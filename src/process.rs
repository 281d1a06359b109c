//! What the kernel says of this process, for those who read counters. Each is read when it is asked for.

use std::fs;

use rustix::process::{Resource, getrlimit};

/// Bytes of memory that the process has in RAM; 0 where the kernel does not say.
pub(crate) fn resident_bytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kib =
        status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    kib.map_or(0, |kib| kib * 1024)
}

/// Seconds of CPU time that all threads have used; `None` where the kernel does not say.
pub(crate) fn cpu_seconds() -> Option<f64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // Behind the name, which may hold anything: the state is the third field, user and system time the 14th and 15th.
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    let ticks = fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?;
    Some(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
}

/// Descriptors that are open; `None` before Linux 6.2, where they would have to be counted one by one.
pub(crate) fn descriptors() -> Option<u64> {
    let count = fs::metadata("/proc/self/fd").ok()?.len();
    (count > 0).then_some(count)
}

/// Descriptors that may be open.
pub(crate) fn descriptors_max() -> Option<u64> {
    getrlimit(Resource::Nofile).current
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_says_what_the_process_has() {
        assert!(resident_bytes() > 1 << 20);
        assert!(cpu_seconds().is_some_and(|seconds| seconds >= 0.0));
        assert!(descriptors().is_none_or(|open| open > 2));
        assert!(descriptors_max() >= descriptors());
    }
}
