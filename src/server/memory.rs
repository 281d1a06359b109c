//! What this process may have: descriptors and memory.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors a node needs for itself: standard streams, epoll, wakers, listeners, the reserve.
const OWN_DESCRIPTORS: u64 = 64;

/// Raises the soft descriptor limit to the hard one; the limit that is in force then.
pub(super) fn raise_descriptor_limit() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    if let Err(error) = raised {
        tracing::warn!(%error, "cannot raise the soft descriptor limit to the hard one");
    }
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// How many connections so many descriptors allow.
pub(super) fn connections_possible(descriptors: u64) -> u64 {
    descriptors.saturating_sub(OWN_DESCRIPTORS)
}

/// The memory this process may use, in bytes: the machine's, or its control group's limit where that is less.
pub(super) fn available_bytes() -> u64 {
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let cgroup = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let limits = cgroup_limit_files(&cgroup).filter_map(|path| std::fs::read_to_string(path).ok());
    least(&meminfo, limits)
}

/// Where the limits of a process's control groups stand, version 2 and 1: its own and all above it.
fn cgroup_limit_files(cgroup: &str) -> impl Iterator<Item = String> {
    cgroup.lines().flat_map(|line| {
        let mut fields = line.splitn(3, ':');
        let (controllers, path) = (fields.nth(1).unwrap_or(""), fields.next().unwrap_or("/").to_owned());
        let (root, file) = match controllers {
            "" => ("/sys/fs/cgroup", "memory.max"),
            _ if controllers.split(',').any(|name| name == "memory") => {
                ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")
            }
            _ => ("", ""),
        };
        let ends: Vec<usize> = match root {
            "" => Vec::new(),
            _ => path.match_indices('/').map(|(at, _)| at).chain([path.len()]).collect(),
        };
        ends.into_iter().map(move |end| format!("{root}{}/{file}", path[..end].trim_end_matches('/')))
    })
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

    #[test]
    fn groups_of_both_versions_are_found() {
        let files: Vec<String> = cgroup_limit_files("0::/a/b\n").collect();
        assert_eq!(
            files,
            ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/a/memory.max", "/sys/fs/cgroup/a/b/memory.max"]
        );
        let files: Vec<String> = cgroup_limit_files("5:cpu,memory:/x\n4:pids:/y\n").collect();
        assert_eq!(
            files,
            ["/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/x/memory.limit_in_bytes"]
        );
    }
}
