//! A socket with the TLS that is spoken over it, between the drivers and whoever takes it over.

use std::fmt;
use std::sync::Arc;

use rustls::ServerConfig;

use super::session::{Session, SessionError};
use crate::current::Current;

/// What a listener's new sessions are made with. Another may take its place; sessions keep what they began with.
pub type Acceptor = Current<ServerConfig>;

/// A session, and its records that were not sent yet.
#[derive(Debug)]
pub struct Secured {
    /// The session.
    pub session: Session,
    /// Records that go in front of all others; the first may have been sent in part.
    pub owed: Vec<u8>,
}

/// What is spoken over a socket.
pub enum Layer {
    /// No TLS.
    Plain,
    /// TLS, of which nothing was said yet.
    Wanted(Arc<ServerConfig>),
    /// TLS, under way.
    Open(Box<Secured>),
}

impl fmt::Debug for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Layer::Plain => "Plain",
            Layer::Wanted(_) => "Wanted",
            Layer::Open(_) => "Open",
        })
    }
}

impl Layer {
    /// The session, which begins now where it has not; `None` without TLS.
    ///
    /// # Errors
    /// Where rustls cannot begin.
    pub fn into_secured(self) -> Result<Option<Box<Secured>>, SessionError> {
        match self {
            Layer::Plain => Ok(None),
            Layer::Wanted(config) => {
                Session::new(config).map(|session| Some(Box::new(Secured { session, owed: Vec::new() })))
            }
            Layer::Open(secured) => Ok(Some(secured)),
        }
    }
}

/// A socket that belongs to no slot, and what is spoken over it.
#[derive(Debug)]
pub struct Stream<S> {
    /// The socket.
    pub socket: S,
    /// What is spoken over it.
    pub layer: Layer,
}
