//! What the exhibits count with: allocations of the part that is looked at, and memory of the server's process.

use fanfare_testing::Server;

/// What some work asked of the allocator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cost {
    /// Blocks, those included that one was moved to because it grew.
    pub allocations: u64,
    /// Bytes held at once, at most.
    pub peak_bytes: u64,
}

/// What `work` costs on this thread, with what it leaves behind.
pub fn cost_of<T>(work: impl FnOnce() -> T) -> (Cost, T) {
    let mut result = None;
    let info = allocation_counter::measure(|| result = Some(work()));
    (Cost { allocations: info.count_total, peak_bytes: info.bytes_max }, result.expect("the work was done"))
}

/// The most memory the server's process ever had in use, in bytes.
pub fn peak_bytes(server: &Server) -> u64 {
    memory(server, "status", "VmHWM:")
}

/// The memory that the server's process has in use now, in bytes, exactly.
pub fn resident_bytes(server: &Server) -> u64 {
    memory(server, "smaps_rollup", "Rss:")
}

fn memory(server: &Server, file: &str, key: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{}/{file}", server.pid())).expect("the server runs");
    let found = text.lines().find_map(|line| line.strip_prefix(key)).expect("the kernel tells how much");
    found.trim().trim_end_matches(" kB").parse::<u64>().expect("a number of KiB") * 1024
}
