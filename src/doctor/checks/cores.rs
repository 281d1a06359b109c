//! Cores: whether each reactor has one, and how fast it wakes.

use super::{Node, fatal, good, grouped, neighbours, note};
use crate::config::Pin;
use crate::doctor::{Cores, Finding};

/// Threads beside the reactors and that of a cluster: main, control, signals, log, and at the start the one that prints `listening on`.
const OWN_THREADS: u64 = 5;

/// Time to wake from an idle state that is felt in latencies of some tens of microseconds.
const WAKE_US_MAX: u64 = 50;

pub(super) fn check(cores: &Cores, node: &Node<'_>) -> Vec<Finding> {
    let mut findings = vec![reactors(cores, node), pinning(cores, node), neighbours::check(cores, node)];
    findings.extend(quota(cores, node));
    findings.push(threads(cores, node));
    findings.push(governor(cores));
    findings.push(idle_states(cores));
    findings.push(io_uring(cores));
    findings
}

fn reactors(cores: &Cores, node: &Node<'_>) -> Finding {
    let check = "reactors";
    let (reactors, allowed) = (node.reactors, cores.allowed.len() as u64);
    if allowed == 0 {
        return super::unreadable(check, "Cpus_allowed_list of /proc/self/status");
    }
    let read = format!("{allowed} cores allowed, {reactors} reactors");
    if reactors > allowed {
        let means = "reactors share cores: more switching, nothing gained, and none is pinned";
        return note(check, read, means, Some(format!("fanfare serve --reactors {allowed}")));
    }
    let means = match allowed - reactors {
        0 => "a core for each".to_owned(),
        left => format!("a core for each, {left} left for everything else"),
    };
    good(check, read, means)
}

fn pinning(cores: &Cores, node: &Node<'_>) -> Finding {
    let check = "pinning";
    let allowed = &cores.allowed;
    match &node.config.pin {
        Pin::None => {
            let means = "the scheduler may move reactors away from their warm caches";
            note(check, "pin none".to_owned(), means, Some("fanfare serve --pin auto".to_owned()))
        }
        Pin::Auto if node.reactors > allowed.len() as u64 => {
            note(check, "pin auto".to_owned(), "there are fewer cores than reactors: none is pinned", None)
        }
        Pin::Auto if node.reactors < allowed.len() as u64 => {
            let means = "fewer reactors than cores: none is pinned, so that the scheduler may find them a free one";
            good(check, "pin auto".to_owned(), means)
        }
        Pin::Auto => good(check, "pin auto".to_owned(), "each reactor keeps to a core of its own"),
        Pin::Cores(listed) => {
            let asked: Vec<usize> = listed.iter().copied().take(node.reactors as usize).collect();
            let read = format!("pin {}, allowed {}", list(listed), list(allowed));
            let missing: Vec<usize> = asked.iter().copied().filter(|core| !allowed.contains(core)).collect();
            if allowed.is_empty() || missing.is_empty() {
                return good(check, read, "each reactor keeps to the core it is given");
            }
            let means = format!("core {} is not allowed to this process: fanfare does not start", list(&missing));
            let mend = match asked.len() <= allowed.len() {
                true => format!("fanfare serve --pin {}", list(&allowed[..asked.len()])),
                false => "fanfare serve --pin auto".to_owned(),
            };
            fatal(check, read, means, mend)
        }
    }
}

/// The cores to which the node's reactors keep.
pub(super) fn kept_cores<'a>(cores: &'a Cores, node: &'a Node<'_>) -> &'a [usize] {
    match &node.config.pin {
        Pin::Auto if node.reactors == cores.allowed.len() as u64 => &cores.allowed,
        Pin::Auto | Pin::None => &[],
        Pin::Cores(listed) => &listed[..listed.len().min(node.reactors as usize)],
    }
}

pub(super) fn list(cores: &[usize]) -> String {
    cores.iter().map(usize::to_string).collect::<Vec<_>>().join(",")
}

fn quota(cores: &Cores, node: &Node<'_>) -> Option<Finding> {
    let check = "cpu_quota";
    let millicores = cores.quota_millicores?;
    let read = format!("the control group grants {}.{:03} cores", millicores / 1000, millicores % 1000);
    if millicores >= node.reactors * 1000 {
        return Some(good(check, read, "a whole core for each reactor"));
    }
    let means = "reactors that have used it up stand still for the rest of each period, up to 100 ms";
    let reactors = (millicores / 1000).max(1);
    Some(note(check, read, means, Some(format!("fanfare serve --reactors {reactors}   # or a larger quota"))))
}

fn threads(cores: &Cores, node: &Node<'_>) -> Finding {
    let check = "threads";
    let cluster = u64::from(node.config.redis.url.address().is_some());
    let needed = node.reactors + OWN_THREADS + cluster;
    let Some(left) = cores.threads_left else {
        return good(check, "no limit of threads in the control groups".to_owned(), format!("{needed} are needed"));
    };
    let read = format!("the control groups leave room for {} threads", grouped(left));
    match left >= needed {
        true => good(check, read, format!("{needed} are needed")),
        false => {
            let means = format!("{needed} are needed: fanfare does not start");
            fatal(check, read, means, format!("raise pids.max of the control group by {}", needed - left))
        }
    }
}

fn governor(cores: &Cores) -> Finding {
    let check = "governor";
    if cores.governors.is_empty() {
        let read = "frequency governors cannot be read here".to_owned();
        return note(check, read, "on a virtual machine its host decides; on other machines look into the BIOS", None);
    }
    let read = format!("frequency governor: {}", cores.governors.join(", "));
    match cores.governors.iter().all(|governor| governor == "performance") {
        true => good(check, read, "cores run at full speed"),
        false => {
            let means = "a core that was idle starts slowly: latency at low load, and figures that vary";
            note(check, read, means, Some("cpupower frequency-set -g performance".to_owned()))
        }
    }
}

fn idle_states(cores: &Cores) -> Finding {
    let check = "idle_states";
    let Some(wake_us) = cores.wake_us_max else {
        let read = "idle states cannot be read here".to_owned();
        return note(check, read, "on a virtual machine its host decides", None);
    };
    let read = format!("waking from the deepest idle state takes {} µs", grouped(wake_us));
    match wake_us <= WAKE_US_MAX {
        true => good(check, read, "little beside a packet's way through the kernel"),
        false => {
            let means = "added to the first message after a pause";
            note(check, read, means, Some(format!("cpupower idle-set -D {WAKE_US_MAX}")))
        }
    }
}

fn io_uring(cores: &Cores) -> Finding {
    let check = "io_uring";
    let Some(disabled) = cores.io_uring_disabled else {
        let read = "kernel.io_uring_disabled is not there".to_owned();
        return good(check, read, "information only: kernels before 6.6 allow io_uring to all where they have it");
    };
    let read = format!("kernel.io_uring_disabled {disabled}");
    match disabled {
        0 => good(check, read, "information only: io_uring is allowed"),
        1 => good(check, read, "information only: io_uring is allowed to privileged processes"),
        _ => good(check, read, "information only: io_uring is allowed to no process"),
    }
}
