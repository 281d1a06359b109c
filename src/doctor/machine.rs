//! A machine as the checks see it. `None`: it could not be read, as in a container that hides it.

/// What was read of a machine and of the process's own limits on it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Machine {
    /// Descriptors.
    pub descriptors: Descriptors,
    /// TCP and what lies below it.
    pub network: Network,
    /// Memory.
    pub memory: Memory,
    /// Cores and threads.
    pub cores: Cores,
}

/// Limits of descriptors; `u64::MAX` is no limit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Descriptors {
    /// The process's soft limit.
    pub soft: Option<u64>,
    /// The process's hard limit.
    pub hard: Option<u64>,
    /// `fs.nr_open`: as high as a hard limit may be set.
    pub nr_open: Option<u64>,
    /// `fs.file-max`: open files of the machine.
    pub file_max: Option<u64>,
    /// Of these, open now.
    pub files_open: Option<u64>,
}

/// Settings of TCP and of what lies below it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Network {
    /// `net.core.somaxconn`.
    pub somaxconn: Option<u64>,
    /// `net.ipv4.tcp_max_syn_backlog`.
    pub syn_backlog: Option<u64>,
    /// `net.ipv4.tcp_syncookies`: 0 is off.
    pub syncookies: Option<u64>,
    /// `net.ipv4.ip_local_port_range`: first and last.
    pub ports: Option<[u64; 2]>,
    /// `net.ipv4.tcp_tw_reuse`: 0 off, 1 on, 2 on for loopback.
    pub tw_reuse: Option<u64>,
    /// `net.ipv4.tcp_rmem`: least, default and most bytes of a receive buffer.
    pub rmem: Option<[u64; 3]>,
    /// `net.ipv4.tcp_wmem`: least, default and most bytes of a send buffer.
    pub wmem: Option<[u64; 3]>,
    /// `net.ipv4.tcp_mem`: pages of all TCP at which it is relaxed, saves, and drops.
    pub tcp_mem_pages: Option<[u64; 3]>,
    /// `net.core.rmem_max`: the most SO_RCVBUF grants.
    pub rmem_max: Option<u64>,
    /// `net.core.wmem_max`: the most SO_SNDBUF grants.
    pub wmem_max: Option<u64>,
    /// `net.netfilter.nf_conntrack_max`; `None` where connection tracking is not loaded.
    pub conntrack_max: Option<u64>,
    /// Entries in its table now.
    pub conntrack_count: Option<u64>,
    /// `net.core.busy_poll`, in microseconds; 0 is off.
    pub busy_poll_us: Option<u64>,
    /// Network cards.
    pub nics: Vec<Nic>,
}

/// One network card.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Nic {
    /// Its interface.
    pub name: String,
    /// Queues for receiving, each with an interrupt of its own.
    pub rx_queues: usize,
    /// Queues for sending.
    pub tx_queues: usize,
    /// Whether some queue hands packets on to other cores (RPS).
    pub rps: bool,
    /// Whether some queue is chosen by the sending core (XPS).
    pub xps: bool,
}

/// Memory, in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// The machine's.
    pub total_bytes: Option<u64>,
    /// Of it, available to new work.
    pub available_bytes: Option<u64>,
    /// The least limit of the process's control groups; `None` is no limit.
    pub cgroup_bytes: Option<u64>,
    /// Swap space.
    pub swap_bytes: Option<u64>,
    /// `vm.swappiness`.
    pub swappiness: Option<u64>,
    /// The chosen word of transparent huge pages.
    pub huge_pages: Option<String>,
}

/// Cores and threads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cores {
    /// Cores this process may use, a cpuset respected; none where that cannot be read.
    pub allowed: Vec<usize>,
    /// What the least CPU quota of the control groups grants, in thousandths of a core; `None` is no quota.
    pub quota_millicores: Option<u64>,
    /// Threads and processes the control groups leave room for; `None` is no limit.
    pub threads_left: Option<u64>,
    /// Frequency governors of the allowed cores, each named once.
    pub governors: Vec<String>,
    /// Time to wake from the deepest idle state that is enabled on an allowed core.
    pub wake_us_max: Option<u64>,
    /// `kernel.io_uring_disabled`: 0 allowed, 1 for some, 2 for none.
    pub io_uring_disabled: Option<u64>,
    /// Other processes that keep to some of the allowed cores, and other nodes; `None` where no process is seen.
    pub neighbours: Option<Vec<Neighbour>>,
}

/// Another process on the allowed cores.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Neighbour {
    /// What its program is called.
    pub name: String,
    /// Its number.
    pub pid: u64,
    /// Reactors, where it is a node.
    pub reactors: u64,
    /// Those of the allowed cores to which threads keep that may not run on all of them.
    pub pinned: Vec<usize>,
}
