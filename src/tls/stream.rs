//! A socket with the TLS that is spoken over it, between the drivers and whoever takes it over.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use rustls::ServerConfig;

use super::session::{Session, SessionError};

/// What a listener's new sessions are made with. It may be replaced; sessions keep what they began with.
#[derive(Debug)]
pub struct Acceptor(RwLock<Arc<ServerConfig>>);

impl Acceptor {
    /// Begins with this configuration.
    pub fn new(config: ServerConfig) -> Acceptor {
        Acceptor(RwLock::new(Arc::new(config)))
    }

    /// The configuration of the next session.
    pub fn config(&self) -> Arc<ServerConfig> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Sessions from now on begin with another one.
    pub fn replace(&self, config: ServerConfig) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(config);
    }
}

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
