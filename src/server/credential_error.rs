//! Why a key or a certificate that the configuration names is of no use.

use std::fmt;

use crate::config::one_line;

/// What is wrong with a key or a certificate, where, and what to do, in one line. Holds nothing of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CredentialError(pub(super) String);

impl fmt::Display for CredentialError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&one_line(&self.0))
    }
}

impl std::error::Error for CredentialError {}
