//! `fanfare doctor`: what of this machine's settings is good for a node as configured, what will bite at which
//! connection count, and the command that mends it.
//!
//! ```text
//!   /proc, /sys ──► read ──► Machine ─┐
//!                                     ├─► checks (pure) ──► findings ──► report: a table, or JSON
//!   Config ───────────────────────────┘
//! ```
//!
//! Owns what is known about a kernel's settings. Changes nothing, and reads nothing but those two trees, in one place.
//! May import `config`, `descriptors`, `limits` and `cgroup`.

mod checks;
mod machine;
mod read;
mod report;

pub use checks::examine;
pub use machine::{Cores, Descriptors, Machine, Memory, Neighbour, Network, Nic};
pub use report::{json, table};

/// How a setting stands to what is configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Fits what is configured.
    Good,
    /// Costs something, bites under a condition, or cannot be read: to be known.
    Note,
    /// Will bite within the configured limits.
    Bites,
}

impl Level {
    /// The level in a word.
    pub fn name(self) -> &'static str {
        match self {
            Level::Good => "good",
            Level::Note => "note",
            Level::Bites => "bites",
        }
    }
}

/// What one check found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The check: a stable word.
    pub check: &'static str,
    /// How it stands.
    pub level: Level,
    /// What was read, and where.
    pub read: String,
    /// What that means.
    pub means: String,
    /// The connection count from which it bites, where it depends on one; the finding bites where this many are
    /// allowed.
    pub bites_from: Option<u64>,
    /// The command that mends it, as root where it changes the kernel; none where there is nothing to mend.
    pub mend: Option<String>,
}

/// Whether something will bite at the configured limits.
pub fn bites(findings: &[Finding]) -> bool {
    findings.iter().any(|finding| finding.level == Level::Bites)
}
