//! Where the server is.

use std::fmt::Display;
use std::io;
use std::net::SocketAddr;

use mio::net::TcpStream;

use super::BenchError;
use crate::client::{Tls, Transport, Trust, Url};

/// Where the server is.
#[derive(Clone, Debug)]
pub struct Target {
    /// The URL as it was given.
    pub url: String,
    /// Its host and port, for the `Host` header.
    pub authority: String,
    /// Its path.
    pub path: String,
    /// Its address.
    pub address: SocketAddr,
    /// What TLS with it needs, where the URL asks for TLS.
    pub tls: Option<Tls>,
}

impl Target {
    /// Reads the URL that a flag gave.
    pub(super) fn parse(flag: &str, text: &str, trust: &Trust) -> Result<Target, BenchError> {
        let wrong = |why: &dyn Display| BenchError::Options(format!("--{flag}: {why}"));
        let url: Url = text.parse().map_err(|why: String| wrong(&why))?;
        if url.socket().is_some() {
            return Err(wrong(&format_args!("{url} is a Unix socket; bench needs ws://HOST:PORT or wss://HOST:PORT")));
        }
        if url.query().is_some() {
            return Err(wrong(&format_args!("{url} has a query, where bench puts its own; leave it out")));
        }
        let addresses = url
            .resolve()
            .map_err(|error| wrong(&format_args!("cannot find the host of {url}: {error}; write ws://HOST:PORT")))?;
        // Connections stand for clients of their own, who have not been here before.
        let tls = Tls::of(&url, trust).map_err(BenchError::Options)?.map(Tls::without_resumption);
        let (authority, path) = (url.authority().to_owned(), url.path().to_owned());
        Ok(Target { url: text.to_owned(), authority, path, address: addresses[0], tls })
    }

    /// A connection that is being made.
    pub(super) fn dial(&self) -> io::Result<Transport<TcpStream>> {
        Transport::new(TcpStream::connect(self.address)?, self.tls.as_ref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_taken_apart() {
        let parse = |url| Target::parse("url", url, &Trust::System);
        let target = parse("ws://127.0.0.1:81/ws").unwrap();
        assert_eq!((target.authority.as_str(), target.path.as_str()), ("127.0.0.1:81", "/ws"));
        assert_eq!(parse("ws://127.0.0.1").unwrap().address.port(), 80);
        assert_eq!(parse("ws://[::1]:9").unwrap().path, "/");
        for url in ["http://127.0.0.1", "ws://127.0.0.1:1/?a=b", "ws://", "unix:/run/f.sock"] {
            assert!(matches!(parse(url), Err(BenchError::Options(_))), "{url}");
        }
    }
}
