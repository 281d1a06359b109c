//! One request of the HTTP API, as an operator's command makes it.

use std::fmt::{self, Debug, Formatter};
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::time::Duration;

use socket2::{Domain, SockAddr, Socket, Type};

use super::{Tls, Token, Transport, Trust, Url, tls_failure};

/// How long connecting, and each step of the answer, may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Bytes of an answer that are read. A longer one is none.
const ANSWER_BYTES_MAX: u64 = 64 * 1024;

/// Fields of an answer.
const FIELDS_MAX: usize = 64;

/// A server's HTTP API, and the key for it.
pub struct Api {
    url: Url,
    tls: Option<Tls>,
    key: Token,
}

/// What the API has answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiAnswer {
    /// The status code.
    pub status: u16,
    /// The body, of text.
    pub body: String,
}

impl Api {
    /// At a URL: `http://HOST:PORT`, `https://HOST` or `unix:/path`, with a path in front of `/api` where a proxy serves it.
    ///
    /// # Errors
    ///
    /// Where the URL is none, or the authorities of `trust` cannot be read.
    pub fn new(url: &str, trust: &Trust, key: Token) -> Result<Api, String> {
        // It names the server as a WebSocket's URL does.
        let url: Url = match url.strip_prefix("http") {
            Some(rest) if rest.starts_with("://") || rest.starts_with("s://") => format!("ws{rest}").parse()?,
            Some(_) | None if url.starts_with("unix:") => url.parse()?,
            Some(_) | None => {
                return Err("the URL names no server; write http://HOST:PORT, https://HOST or unix:/path".to_owned());
            }
        };
        let tls = Tls::of(&url, trust)?;
        Ok(Api { url, tls, key })
    }

    /// The answer to a `DELETE` of a target that begins with `/api`.
    ///
    /// # Errors
    ///
    /// Where there is no answer, in words.
    pub fn delete(&self, target: &str) -> Result<ApiAnswer, String> {
        let failed = |error: io::Error| match tls_failure(&error) {
            Some(what) => format!("{}: {what}", self.url),
            None => format!("{}: {error}", self.url),
        };
        let answer = self.exchange(target).map_err(failed)?;
        read(&answer).ok_or_else(|| format!("{}: what answers there is no HTTP server", self.url))
    }

    fn exchange(&self, target: &str) -> io::Result<Vec<u8>> {
        let mut transport = Transport::new(self.dial()?, self.tls.as_ref())?;
        let (path, host) = (self.url.path().trim_end_matches('/'), self.url.authority());
        let host = if host.is_empty() { "localhost" } else { host };
        let request = format!(
            "DELETE {path}{target} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {}\r\nConnection: close\r\n\r\n",
            self.key.as_str()
        );
        transport.write_all(request.as_bytes())?;
        transport.flush()?;
        let mut answer = Vec::new();
        transport.take(ANSWER_BYTES_MAX).read_to_end(&mut answer)?;
        Ok(answer)
    }

    fn dial(&self) -> io::Result<Socket> {
        let connect = |domain: Domain, address: &SockAddr| {
            let socket = Socket::new(domain, Type::STREAM, None)?;
            socket.connect_timeout(address, PATIENCE)?;
            socket.set_read_timeout(Some(PATIENCE))?;
            socket.set_write_timeout(Some(PATIENCE))?;
            Ok(socket)
        };
        if let Some(path) = self.url.socket() {
            return connect(Domain::UNIX, &SockAddr::unix(path)?);
        }
        let mut failure = None;
        for address in self.url.resolve()? {
            match connect(Domain::for_address(address), &SockAddr::from(address)) {
                Ok(socket) => return Ok(socket),
                Err(error) => failure = Some(told_of(address, &error)),
            }
        }
        Err(failure.unwrap_or_else(|| io::ErrorKind::NotFound.into()))
    }
}

impl Debug for Api {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        write!(out, "Api({})", self.url)
    }
}

fn told_of(address: SocketAddr, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("cannot connect to {address}: {error}"))
}

/// An answer whose end is that of the connection.
fn read(answer: &[u8]) -> Option<ApiAnswer> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut head = httparse::Response::new(&mut fields);
    let httparse::Status::Complete(body_at) = head.parse(answer).ok()? else { return None };
    Some(ApiAnswer { status: head.code?, body: String::from_utf8_lossy(&answer[body_at..]).into_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_taken_apart_and_what_is_none_is_told() {
        let answer = read(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\n{}").expect("it is one");
        assert_eq!(answer, ApiAnswer { status: 403, body: "{}".to_owned() });
        for none in [&b""[..], b"HTTP/1.1 200 OK\r\n", b"SSH-2.0-OpenSSH_9\r\n\r\n"] {
            assert_eq!(read(none), None);
        }
    }

    #[test]
    fn a_server_is_named_by_http_or_a_unix_socket() {
        let api = |url: &str| Api::new(url, &Trust::System, "a-key".parse().expect("a key"));
        for (url, shown) in [("http://h:1/x", "Api(ws://h:1/x)"), ("unix:/run/f.sock", "Api(unix:/run/f.sock)")] {
            assert_eq!(format!("{:?}", api(url).expect(url)), shown);
        }
        for url in ["ws://h", "h:1", "httpx://h", "http://", ""] {
            assert!(api(url).is_err(), "{url}");
        }
    }
}
