//! Why a node did not start, or did not end well.

use std::fmt;
use std::io;

use super::credential_error::CredentialError;

/// Why a node did not start, or did not end well. Each says what to do.
#[derive(Debug)]
pub enum ServeError {
    /// An address cannot be listened on.
    Listen {
        /// The address as configured.
        address: String,
        /// What the kernel said.
        error: io::Error,
    },
    /// The file of a Unix socket cannot be given to the group that was asked for.
    Group {
        /// The socket as configured.
        address: String,
        /// The group as configured.
        group: String,
        /// What the system said.
        error: io::Error,
    },
    /// A socket that was passed to the process cannot be served: what is wrong, and what to do.
    Inherited(String),
    /// A key or a certificate that the configuration names is not there, or is none.
    Credential(CredentialError),
    /// A core that was asked for is not there.
    Core(usize),
    /// The process may have too few descriptors for a single connection.
    Descriptors {
        /// How many it may have.
        limit: u64,
        /// How many the configuration asks for.
        wanted: u64,
    },
    /// The operating system refused something else.
    Io {
        /// What was being done.
        what: &'static str,
        /// What it said.
        error: io::Error,
    },
}

impl fmt::Display for ServeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ServeError::Listen { address, error } if error.kind() == io::ErrorKind::AddrInUse => {
                write!(f, "{address} is in use: stop what listens there, or choose another address with --listen")
            }
            ServeError::Listen { address, error } => {
                write!(f, "cannot listen on {address}: {error}; choose another address with --listen")
            }
            ServeError::Group { address, group, error } => write!(
                f,
                "cannot give {address} to the group {group}: {error}; name one with --unix.group that there is, and that \
                 the server's user is in"
            ),
            ServeError::Inherited(what) => write!(f, "socket activation: {what}"),
            ServeError::Credential(error) => write!(f, "{error}"),
            ServeError::Core(core) => {
                write!(f, "core {core} is not available to this process: choose others with --pin, or --pin none")
            }
            ServeError::Descriptors { limit, wanted } => {
                write!(
                    f,
                    "a limit of {limit} open files leaves none for connections: raise it, best to {wanted} (ulimit -Hn)"
                )
            }
            ServeError::Io { what, error } => write!(f, "{what}: {error}"),
        }
    }
}

impl std::error::Error for ServeError {}

pub(super) fn io_error(what: &'static str) -> impl FnOnce(io::Error) -> ServeError {
    move |error| ServeError::Io { what, error }
}
