//! What this process may have: descriptors and memory.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::cgroup;
use crate::current::Current;
use crate::limits::MEMORY_LOOK_MS;
use crate::metrics::NodeMetrics;
use crate::reactor::PostOffice;

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

/// What the process may take in bytes, as `limits.memory_max` says it.
pub(super) fn bytes_max(configured: usize) -> u64 {
    match configured {
        0 => available_bytes() / 10 * 9,
        bytes => bytes as u64,
    }
}

/// Starts the thread that looks what the process takes of `bytes_max`, and has the reactors turn where that is all of it.
///
/// # Errors
/// The operating system gives no thread.
pub(super) fn watch(bytes_max: Current<u64>, metrics: Arc<NodeMetrics>, post: PostOffice) -> io::Result<()> {
    let look = move || {
        loop {
            std::thread::sleep(Duration::from_millis(MEMORY_LOOK_MS));
            let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
            let permille = permille(&statm, rustix::param::page_size() as u64, *bytes_max.get());
            metrics.memory_permille.store(permille, Ordering::Relaxed);
            metrics.memory_looks.fetch_add(1, Ordering::Release);
            if permille >= 1_000 {
                post.nudge_all();
            }
        }
    };
    std::thread::Builder::new().name("memory".into()).spawn(look).map(drop)
}

/// What a process takes of `bytes_max`, in thousandths, by what the kernel says of it (proc_pid_statm(5)).
fn permille(statm: &str, page_bytes: u64, bytes_max: u64) -> u32 {
    let pages = statm.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0);
    u32::try_from(pages.saturating_mul(page_bytes).saturating_mul(1_000) / bytes_max.max(1)).unwrap_or(u32::MAX)
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
    fn what_is_resident_counts() {
        assert_eq!(permille("9999 250 3 1 0 5 0\n", 4_096, 4_096_000), 250);
        assert_eq!(permille("9999 2000 3 1 0 5 0\n", 4_096, 4_096_000), 2_000);
        assert_eq!((permille("", 4_096, 1), permille("1 1", u64::MAX, 0)), (0, u32::MAX));
    }

    #[test]
    fn the_least_limit_counts() {
        let meminfo = "MemTotal:       2048 kB\nMemFree: 1 kB\n";
        let limits = |texts: &[&str]| least(meminfo, texts.iter().map(|text| (*text).to_owned()));
        assert_eq!(limits(&[]), 2 << 20);
        assert_eq!(limits(&["max\n"]), 2 << 20);
        assert_eq!(limits(&["1048576\n", "max", "9223372036854771712"]), 1 << 20);
    }
}
