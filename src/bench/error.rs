//! What keeps a measurement from being made, as opposed to what a measurement finds.

use std::fmt::{self, Display, Formatter};
use std::io;
use std::time::Duration;

/// Why there is no report.
#[derive(Debug)]
pub enum BenchError {
    /// The command line asks for something that cannot be.
    Options(String),
    /// The machine does not allow it: descriptors, cores.
    Machine(String),
    /// The server could not be reached, or refused a connection.
    Server(String),
    /// The server's process could not be looked at.
    Process {
        /// Its id.
        pid: u32,
        /// What the kernel said.
        error: io::Error,
    },
    /// The server did not answer in time.
    Silent {
        /// What was waited for.
        what: String,
        /// How long.
        patience: Duration,
    },
    /// The kernel refused what an event loop needs.
    Io(io::Error),
    /// The report could not be written.
    Output(io::Error),
}

impl Display for BenchError {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        match self {
            BenchError::Options(what) | BenchError::Machine(what) | BenchError::Server(what) => out.write_str(what),
            BenchError::Process { pid, error } => {
                write!(out, "--server-pid: cannot look at process {pid}: {error}; name the server's process")
            }
            BenchError::Silent { what, patience } => {
                write!(out, "{what} within {patience:?}; see the server's log, or raise --timeout")
            }
            BenchError::Io(error) => write!(out, "the load generator's event loop failed: {error}"),
            BenchError::Output(error) => write!(out, "cannot write to stdout: {error}"),
        }
    }
}

impl std::error::Error for BenchError {}

impl From<io::Error> for BenchError {
    fn from(error: io::Error) -> BenchError {
        BenchError::Io(error)
    }
}
