//! Why a command was not carried out, and why a connection ended.

use std::fmt::{self, Display, Formatter};
use std::io;
use std::time::Duration;

use super::message::Refusal;

/// Why a command was not carried out.
#[derive(Debug)]
pub enum ClientError {
    /// The command line asks for something that cannot be.
    Options(String),
    /// There is no connection, or none any more.
    Lost(String),
    /// The server answered the command with an `error`.
    Refused(String),
    /// Signals cannot be caught, or stdin not be read.
    Io {
        /// What was tried.
        what: &'static str,
        /// What the kernel said.
        error: io::Error,
    },
    /// The output could not be written.
    Output(io::Error),
}

impl Display for ClientError {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        match self {
            ClientError::Options(what) | ClientError::Lost(what) | ClientError::Refused(what) => out.write_str(what),
            ClientError::Io { what, error } => write!(out, "cannot {what}: {error}"),
            ClientError::Output(error) => write!(out, "cannot write to stdout: {error}"),
        }
    }
}

impl std::error::Error for ClientError {}

impl From<Loss> for ClientError {
    fn from(loss: Loss) -> ClientError {
        ClientError::Lost(loss.why)
    }
}

impl From<Refusal> for ClientError {
    fn from(refusal: Refusal) -> ClientError {
        ClientError::Refused(refusal.to_string())
    }
}

/// Why there is no connection, or none any more.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Loss {
    /// In words.
    pub(super) why: String,
    /// Whether to come back.
    pub(super) retry: Retry,
    /// The code of the close frame, where there was one.
    pub(super) code: Option<u16>,
}

/// Whether to come back, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Retry {
    /// The same would happen again.
    Never,
    /// After a random pause that grows with every failure.
    Backoff,
    /// When the server said.
    After(Duration),
}

impl Loss {
    /// One to come back from.
    pub(super) fn passing(why: impl Into<String>) -> Loss {
        Loss { why: why.into(), retry: Retry::Backoff, code: None }
    }

    /// One that would happen again.
    pub(super) fn lasting(why: impl Into<String>) -> Loss {
        Loss { why: why.into(), retry: Retry::Never, code: None }
    }
}
