//! Log lines on standard error: for people, or as JSON for machines.
//!
//! `RUST_LOG` chooses what is said (default `info`). Tokens and message content are never in any line.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use crate::config::Log;

pub(super) fn init(log: Log) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    // A process that serves twice, as a test may, keeps its first log.
    let _ = match log {
        Log::Json => lines.json().flatten_event(true).try_init(),
        Log::Auto | Log::Human => lines.with_ansi(std::io::stderr().is_terminal()).try_init(),
    };
}
