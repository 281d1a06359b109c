//! Memory: of idle connections, of their queues, and what slows it down.

use super::{Node, bytes, capacity, good, grouped, note, sysctl, unreadable};
use crate::doctor::{Finding, Level, Memory};

/// Kernel memory of an idle connection: an estimate, measured as socket, file and buffers of both ends of a loopback
/// pair. A connection from elsewhere takes about half.
const KERNEL_BYTES_PER_CONNECTION: u64 = 7 * 1024;

/// fanfare's own memory of an idle connection with a user id and one room: an estimate.
const USER_BYTES_PER_CONNECTION: u64 = 400;

const BYTES_PER_CONNECTION: u64 = KERNEL_BYTES_PER_CONNECTION + USER_BYTES_PER_CONNECTION;

/// Least of `outbox.node_bytes_max` that is worth advising.
const QUEUE_BYTES_MIN: u64 = 1 << 20;

pub(super) fn check(memory: &Memory, node: &Node<'_>) -> Vec<Finding> {
    let mut findings = match free_bytes(memory) {
        Some((free, source)) => vec![idle(free, source, node), queues(memory, free, node)],
        None => vec![unreadable("memory", "/proc/meminfo")],
    };
    findings.push(swap(memory));
    findings.push(huge_pages(memory));
    findings
}

/// What connections may take: what is available, or the control group's limit where that is less.
fn free_bytes(memory: &Memory) -> Option<(u64, &'static str)> {
    let available = memory.available_bytes.or(memory.total_bytes)?;
    match memory.cgroup_bytes {
        Some(limit) if limit < available => Some((limit, "the control group's limit")),
        Some(_) | None => Some((available, "available")),
    }
}

fn idle(free: u64, source: &str, node: &Node<'_>) -> Finding {
    let carries = free / BYTES_PER_CONNECTION;
    let read = format!("{} {source}, about {BYTES_PER_CONNECTION} bytes a connection", bytes(free));
    let then = "idle connections alone take all memory: the kernel ends the process";
    let mend = format!("fanfare serve --limits.connections_max {}   # or more memory", carries / 4 * 3);
    capacity("memory", read, carries, node, then, mend)
}

/// Idle connections, and all queues full to the node's bound.
fn queues(memory: &Memory, free: u64, node: &Node<'_>) -> Finding {
    let machine = memory.total_bytes.unwrap_or(free);
    let (bound, how) = match node.config.outbox.node_bytes_max as u64 {
        0 => (memory.cgroup_bytes.map_or(machine, |limit| limit.min(machine)) / 4, "a quarter of memory"),
        bytes => (bytes, "as configured"),
    };
    let read = format!("outbox.node_bytes_max {} ({how})", bytes(bound));
    let then = "idle connections and full queues together take all memory: the kernel ends the process";
    let left = free.saturating_sub(node.connections.saturating_mul(BYTES_PER_CONNECTION));
    let carries = free.saturating_sub(bound) / BYTES_PER_CONNECTION;
    let mend = match left / 4 * 3 {
        fits if fits >= QUEUE_BYTES_MIN => format!("fanfare serve --outbox.node_bytes_max {fits}"),
        _ => format!("fanfare serve --limits.connections_max {}   # or more memory", carries / 4 * 3),
    };
    let finding = capacity("queue_memory", read, carries, node, then, mend);
    match finding.level {
        Level::Good => Finding { means: format!("{} beside full queues", finding.means), ..finding },
        Level::Note | Level::Bites => finding,
    }
}

fn swap(memory: &Memory) -> Finding {
    let check = "swap";
    let Some(swap) = memory.swap_bytes else { return unreadable(check, "/proc/meminfo") };
    if swap == 0 {
        return good(check, "no swap".to_owned(), "no connection's memory waits for a disk");
    }
    let swappiness = memory.swappiness.unwrap_or(60);
    let read = format!("{} of swap, vm.swappiness {}", bytes(swap), grouped(swappiness));
    match swappiness {
        0..=1 => good(check, read, "used only where nothing else is left"),
        _ => {
            let means = "idle connections' memory may be moved to disk: their next message is late";
            note(check, read, means, Some(sysctl("vm.swappiness", 1)))
        }
    }
}

fn huge_pages(memory: &Memory) -> Finding {
    let check = "huge_pages";
    let file = "/sys/kernel/mm/transparent_hugepage/enabled";
    let Some(word) = &memory.huge_pages else { return unreadable(check, file) };
    let read = format!("transparent huge pages: {word}");
    if word == "always" {
        let means = "the kernel may halt the process to join pages, and give it 2 MiB where it needs 4 KiB";
        return note(check, read, means, Some(format!("echo madvise > {file}")));
    }
    good(check, read, "only where a program asks for them")
}
