//! What this process may have: descriptors and memory.

use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::cgroup;

/// Raises the soft descriptor limit to the hard one; the limit that is in force then, and what the kernel said.
pub(super) fn raise_descriptor_limit() -> (u64, io::Result<()>) {
    let limit = getrlimit(Resource::Nofile);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    (getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX), raised.map_err(io::Error::from))
}

/// Lets the kernel's descriptor table grow to its final size now. It doubles as descriptors come, and in a process with
/// threads each doubling stops the thread that opens one for a grace period of the kernel's: some 15 ms in the middle of a crowd
/// that connects.
pub(super) fn grow_descriptor_table(descriptors: u64, wanted: u64) {
    let last = descriptors.min(wanted).saturating_sub(1);
    if let (Ok(null), Ok(last)) = (std::fs::File::open("/dev/null"), i32::try_from(last)) {
        // Where it fails the table grows later.
        let _ = rustix::io::fcntl_dupfd_cloexec(&null, last);
    }
}

/// The memory this process may use, in bytes: the machine's, or its control group's limit where that is less.
pub(super) fn available_bytes() -> u64 {
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let cgroup = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let limits = cgroup::limit_files(&cgroup, cgroup::MEMORY).filter_map(|path| std::fs::read_to_string(path).ok());
    least(&meminfo, limits)
}

/// The least of the machine's memory and the limits.
fn least(meminfo: &str, limits: impl Iterator<Item = String>) -> u64 {
    let total_kib = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))
        .and_then(|rest| rest.trim().trim_end_matches(" kB").parse::<u64>().ok());
    let machine = total_kib.map_or(1 << 30, |kib| kib * 1024);
    limits.filter_map(|limit| limit.trim().parse().ok()).fold(machine, u64::min)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_limit_counts() {
        let meminfo = "MemTotal:       2048 kB\nMemFree: 1 kB\n";
        let limits = |texts: &[&str]| least(meminfo, texts.iter().map(|text| (*text).to_owned()));
        assert_eq!(limits(&[]), 2 << 20);
        assert_eq!(limits(&["max\n"]), 2 << 20);
        assert_eq!(limits(&["1048576\n", "max", "9223372036854771712"]), 1 << 20);
    }
}
