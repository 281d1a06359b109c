//! From `/proc` and `/sys` to a [`Machine`]. What cannot be read, or reads differently than expected, is `None`.

use std::fs;
use std::path::{Path, PathBuf};

use super::machine::{Cores, Descriptors, Machine, Memory, Neighbour, Network, Nic};
use crate::cgroup::{self, Limit};

const PIDS: Limit = Limit { controller: "pids", v2: "pids.max", v1: "pids.max" };
const CPU: Limit = Limit { controller: "cpu", v2: "cpu.max", v1: "cpu.cfs_quota_us" };

/// Limits of version 1 that mean none are written as numbers near the top of 64 bits.
const NO_LIMIT_BYTES: u64 = 1 << 60;

impl Machine {
    /// Reads the machine whose `proc` and `sys` lie in `root`: `/` for this one, a folder for a recorded one.
    pub fn read(root: &Path) -> Machine {
        let tree = Tree { root };
        let allowed = tree.cores_allowed();
        Machine {
            descriptors: tree.descriptors(),
            network: tree.network(),
            memory: tree.memory(),
            cores: tree.cores(allowed),
        }
    }
}

struct Tree<'a> {
    root: &'a Path,
}

impl Tree<'_> {
    fn path(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    fn text(&self, path: &str) -> Option<String> {
        fs::read_to_string(self.path(path)).ok().map(|text| text.trim().to_owned())
    }

    fn number(&self, path: &str) -> Option<u64> {
        self.text(path)?.parse().ok()
    }

    fn sysctl(&self, key: &str) -> Option<u64> {
        self.number(&format!("proc/sys/{key}"))
    }

    fn sysctls<const N: usize>(&self, key: &str) -> Option<[u64; N]> {
        let text = self.text(&format!("proc/sys/{key}"))?;
        let numbers: Option<Vec<u64>> = text.split_whitespace().map(|number| number.parse().ok()).collect();
        numbers?.try_into().ok()
    }

    /// Names in a folder, in order.
    fn names(&self, path: &str) -> Vec<String> {
        let entries = fs::read_dir(self.path(path)).into_iter().flatten().flatten();
        let mut names: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.sort();
        names
    }

    fn descriptors(&self) -> Descriptors {
        let limits = self.text("proc/self/limits").unwrap_or_default();
        let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
        let limit = |at| match line?.split_whitespace().nth(at)? {
            "unlimited" => Some(u64::MAX),
            number => number.parse().ok(),
        };
        let open = self.text("proc/sys/fs/file-nr");
        Descriptors {
            soft: limit(0),
            hard: limit(1),
            nr_open: self.sysctl("fs/nr_open"),
            file_max: self.sysctl("fs/file-max"),
            files_open: open.and_then(|counts| counts.split_whitespace().next()?.parse().ok()),
        }
    }

    fn network(&self) -> Network {
        Network {
            somaxconn: self.sysctl("net/core/somaxconn"),
            syn_backlog: self.sysctl("net/ipv4/tcp_max_syn_backlog"),
            syncookies: self.sysctl("net/ipv4/tcp_syncookies"),
            ports: self.sysctls("net/ipv4/ip_local_port_range"),
            tw_reuse: self.sysctl("net/ipv4/tcp_tw_reuse"),
            rmem: self.sysctls("net/ipv4/tcp_rmem"),
            wmem: self.sysctls("net/ipv4/tcp_wmem"),
            tcp_mem_pages: self.sysctls("net/ipv4/tcp_mem"),
            rmem_max: self.sysctl("net/core/rmem_max"),
            wmem_max: self.sysctl("net/core/wmem_max"),
            conntrack_max: self.sysctl("net/netfilter/nf_conntrack_max"),
            conntrack_count: self.sysctl("net/netfilter/nf_conntrack_count"),
            busy_poll_us: self.sysctl("net/core/busy_poll"),
            nics: self.nics(),
        }
    }

    /// Interfaces that a device stands behind, virtual machines' included.
    fn nics(&self) -> Vec<Nic> {
        let folder = "sys/class/net";
        let real = |name: &String| self.path(&format!("{folder}/{name}/device")).exists();
        let nic = |name: String| {
            let queues = format!("{folder}/{name}/queues");
            let of = |kind: &str| -> Vec<String> {
                self.names(&queues).into_iter().filter(|queue| queue.starts_with(kind)).collect()
            };
            let (rx, tx) = (of("rx-"), of("tx-"));
            let set = |queue: &String, file: &str| {
                let mask = self.text(&format!("{queues}/{queue}/{file}")).unwrap_or_default();
                mask.chars().any(|digit| digit != '0' && digit != ',')
            };
            Nic {
                rps: rx.iter().any(|queue| set(queue, "rps_cpus")),
                xps: tx.iter().any(|queue| set(queue, "xps_cpus")),
                rx_queues: rx.len(),
                tx_queues: tx.len(),
                name,
            }
        };
        self.names(folder).into_iter().filter(real).map(nic).collect()
    }

    fn memory(&self) -> Memory {
        let meminfo = self.text("proc/meminfo").unwrap_or_default();
        let bytes = |key: &str| {
            let line = meminfo.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
            line.trim().trim_end_matches(" kB").parse::<u64>().ok().map(|kib| kib * 1024)
        };
        let huge_pages = self.text("sys/kernel/mm/transparent_hugepage/enabled");
        let limits = self.cgroup_files(cgroup::MEMORY).into_iter().filter_map(|file| self.number(&file));
        Memory {
            total_bytes: bytes("MemTotal"),
            available_bytes: bytes("MemAvailable"),
            cgroup_bytes: limits.filter(|limit| *limit < NO_LIMIT_BYTES).min(),
            swap_bytes: bytes("SwapTotal"),
            swappiness: self.sysctl("vm/swappiness"),
            huge_pages: huge_pages.and_then(|words| Some(words.split_once('[')?.1.split_once(']')?.0.to_owned())),
        }
    }

    fn cores(&self, allowed: Vec<usize>) -> Cores {
        let folder = |core: &usize| format!("sys/devices/system/cpu/cpu{core}");
        let governor = |core| self.text(&format!("{}/cpufreq/scaling_governor", folder(core)));
        let mut governors: Vec<String> = allowed.iter().filter_map(governor).collect();
        governors.sort();
        governors.dedup();
        Cores {
            quota_millicores: self.quota_millicores(),
            threads_left: self.threads_left(),
            governors,
            wake_us_max: allowed.iter().filter_map(|core| self.wake_us_max(&folder(core))).max(),
            io_uring_disabled: self.sysctl("kernel/io_uring_disabled"),
            neighbours: self.neighbours(&allowed),
            allowed,
        }
    }

    fn cores_allowed(&self) -> Vec<usize> {
        self.cores_of("proc/self/status").unwrap_or_default()
    }

    fn cores_of(&self, status: &str) -> Option<Vec<usize>> {
        parse_cores(&self.status(status, "Cpus_allowed_list")?)
    }

    /// The value of a line of a process's or a thread's status.
    fn status(&self, path: &str, key: &str) -> Option<String> {
        let status = self.text(path)?;
        let value = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
        Some(value.trim().to_owned())
    }

    /// Other processes with reactors on the allowed cores, or with threads that keep to some of these.
    fn neighbours(&self, allowed: &[usize]) -> Option<Vec<Neighbour>> {
        let own = self.status("proc/self/status", "Pid").and_then(|pid| pid.parse().ok());
        let mut pids: Vec<u64> = self.names("proc").iter().filter_map(|name| name.parse().ok()).collect();
        pids.sort_unstable();
        if pids.is_empty() {
            return None;
        }
        let others = pids.into_iter().filter(|pid| Some(*pid) != own);
        Some(others.filter_map(|pid| self.neighbour(pid, allowed)).collect())
    }

    fn neighbour(&self, pid: u64, allowed: &[usize]) -> Option<Neighbour> {
        let folder = format!("proc/{pid}");
        // Threads of the kernel have no memory of their own. They keep to cores, too, and are everywhere.
        self.status(&format!("{folder}/status"), "VmSize")?;
        let name = self.text(&format!("{folder}/comm"))?;
        let is_node = name == "fanfare";
        // A process may call itself anything, and this is shown on a terminal.
        let name = name.chars().map(|letter| if letter.is_control() { '?' } else { letter }).collect();
        let mut neighbour = Neighbour { name, pid, ..Neighbour::default() };
        for task in self.names(&format!("{folder}/task")) {
            let Some(cores) = self.cores_of(&format!("{folder}/task/{task}/status")) else { continue };
            let here = allowed.iter().filter(|core| cores.contains(core));
            let count = here.clone().count();
            let thread = self.text(&format!("{folder}/task/{task}/comm")).unwrap_or_default();
            if is_node && count > 0 && thread.starts_with("reactor-") {
                neighbour.reactors += 1;
            }
            if count < allowed.len() {
                neighbour.pinned.extend(here);
            }
        }
        neighbour.pinned.sort_unstable();
        neighbour.pinned.dedup();
        (neighbour.reactors > 0 || !neighbour.pinned.is_empty()).then_some(neighbour)
    }

    fn wake_us_max(&self, core: &str) -> Option<u64> {
        let idle = format!("{core}/cpuidle");
        let states = self.names(&idle).into_iter().filter(|name| name.starts_with("state"));
        let enabled = states.filter(|state| self.number(&format!("{idle}/{state}/disable")) != Some(1));
        enabled.filter_map(|state| self.number(&format!("{idle}/{state}/latency"))).max()
    }

    fn cgroup_files(&self, limit: Limit) -> Vec<String> {
        cgroup::limit_files(&self.text("proc/self/cgroup").unwrap_or_default(), limit).collect()
    }

    fn threads_left(&self) -> Option<u64> {
        let left = |file: String| {
            let current = self.number(&format!("{}pids.current", file.strip_suffix("pids.max")?)).unwrap_or(0);
            Some(self.number(&file)?.saturating_sub(current))
        };
        self.cgroup_files(PIDS).into_iter().filter_map(left).min()
    }

    fn quota_millicores(&self) -> Option<u64> {
        let quota = |file: String| {
            let (quota_us, period_us) = match file.strip_suffix("cpu.cfs_quota_us") {
                Some(folder) => (self.number(&file)?, self.number(&format!("{folder}cpu.cfs_period_us"))?),
                None => {
                    let text = self.text(&file)?;
                    let (quota, period) = text.split_once(' ')?;
                    (quota.parse().ok()?, period.parse().ok()?)
                }
            };
            (quota_us * 1000_u64).checked_div(period_us)
        };
        self.cgroup_files(CPU).into_iter().filter_map(quota).min()
    }
}

/// Reads `0-2,5`.
fn parse_cores(list: &str) -> Option<Vec<usize>> {
    let mut cores = Vec::new();
    for range in list.split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        cores.extend(first..=last);
    }
    Some(cores)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_cores_are_read() {
        assert_eq!(parse_cores("0"), Some(vec![0]));
        assert_eq!(parse_cores("0-2,5"), Some(vec![0, 1, 2, 5]));
        assert_eq!(parse_cores(""), None);
        assert_eq!(parse_cores("a-b"), None);
    }

    #[test]
    fn nothing_to_read_is_no_error() {
        assert_eq!(Machine::read(Path::new("/nowhere")), Machine::default());
    }
}
