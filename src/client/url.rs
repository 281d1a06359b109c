//! Where a server is: `ws://HOST:PORT/PATH?QUERY`, `wss://…` with TLS, or `unix:/path/of/a/socket`.

use std::fmt::{self, Debug, Display, Formatter};
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use tungstenite::http::Uri;

use crate::config::Listen;

/// The port of `ws://` without one (RFC 6455 §3).
const PORT: u16 = 80;

/// The port of `wss://` without one.
const SECURE_PORT: u16 = 443;

/// The query parameter that names the user.
const USER: &str = "userId";

/// The query parameter that holds a token.
const TOKEN: &str = "token";

/// The scheme of a WebSocket over TLS (RFC 6455 §3).
const SECURE: &str = "wss";

/// The URL of a server. Shown without its query, which may hold a secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Url {
    /// The Unix socket, where it is one.
    socket: Option<PathBuf>,
    /// What is asked for; on a Unix socket the host is `localhost`.
    uri: Uri,
}

impl Url {
    /// The Unix socket, where it is one.
    pub fn socket(&self) -> Option<&Path> {
        self.socket.as_deref()
    }

    /// Host and port as they were given, for the `Host` field.
    pub fn authority(&self) -> &str {
        self.uri.authority().map_or("", |authority| authority.as_str())
    }

    /// The path, `/` where none was given.
    pub fn path(&self) -> &str {
        self.uri.path()
    }

    /// What stands behind the `?`.
    pub fn query(&self) -> Option<&str> {
        self.uri.query()
    }

    /// Whether it asks for TLS.
    pub fn is_secure(&self) -> bool {
        self.uri.scheme_str() == Some(SECURE)
    }

    /// The host, an IPv6 address without its brackets; `localhost` of a Unix socket.
    pub fn host(&self) -> &str {
        let host = self.uri.host().unwrap_or_default();
        host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
    }

    /// Whether the query says who the user is.
    pub fn names_user(&self) -> bool {
        self.has(USER)
    }

    /// Whether the query holds a token.
    pub fn holds_token(&self) -> bool {
        self.has(TOKEN)
    }

    fn has(&self, name: &str) -> bool {
        let mut pairs = self.query().unwrap_or_default().split('&');
        pairs.any(|pair| pair.split('=').next() == Some(name))
    }

    /// The addresses of the host, at least one; none of a Unix socket.
    ///
    /// # Errors
    ///
    /// Where the name is not known, or has no address.
    pub fn resolve(&self) -> io::Result<Vec<SocketAddr>> {
        if self.socket.is_some() {
            return Ok(Vec::new());
        }
        let usual = if self.is_secure() { SECURE_PORT } else { PORT };
        let addresses: Vec<_> = (self.host(), self.uri.port_u16().unwrap_or(usual)).to_socket_addrs()?.collect();
        match addresses.is_empty() {
            true => Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address")),
            false => Ok(addresses),
        }
    }

    /// The request of a user.
    ///
    /// # Errors
    ///
    /// Where it becomes too long.
    pub(super) fn request(&self, user: Option<&str>) -> Result<Uri, String> {
        let Some(user) = user else { return Ok(self.uri.clone()) };
        let user = utf8_percent_encode(user, NON_ALPHANUMERIC);
        let query = match self.query() {
            Some(query) if !query.is_empty() => format!("{query}&{USER}={user}"),
            Some(_) | None => format!("{USER}={user}"),
        };
        let uri = format!("{}://{}{}?{query}", self.scheme(), self.authority(), self.path());
        uri.parse().map_err(|error| format!("--user makes no request: {error}; write a shorter one"))
    }
}

impl Url {
    fn scheme(&self) -> &'static str {
        if self.is_secure() { SECURE } else { "ws" }
    }
}

impl FromStr for Url {
    type Err = String;

    fn from_str(text: &str) -> Result<Url, String> {
        // Messages show what is left of the query alone, and nothing where a password may stand.
        let (shown, query) = text.split_once('?').map_or((text, None), |(shown, query)| (shown, Some(query)));
        let wrong = |why: &str| {
            let what = if shown.contains('@') { "the URL".to_owned() } else { format!("{shown:?}") };
            format!("{what} {why}")
        };
        if shown.starts_with("unix:") {
            let Listen::Unix(path) = shown.parse()? else { return Err(wrong("is no Unix socket")) };
            let uri = format!("ws://localhost/?{}", query.unwrap_or_default());
            let uri = uri.parse().map_err(|error| wrong(&format!("has a query that is none: {error}")))?;
            return Ok(Url { socket: Some(path), uri });
        }
        match shown.split_once("://").map(|(scheme, _)| scheme) {
            Some("ws" | SECURE) => {}
            Some("https") => return Err(wrong("is not how a WebSocket is named; write wss:// in place of https://")),
            Some("http") => return Err(wrong("is not how a WebSocket is named; write ws:// in place of http://")),
            Some(_) | None => {
                return Err(wrong("is no ws:// or wss:// URL; write ws://HOST:PORT, wss://HOST or unix:/path"));
            }
        }
        if text.contains('#') {
            return Err(wrong("has a fragment (#…), which is never sent; leave it out"));
        }
        let uri: Uri =
            text.parse().map_err(|error| wrong(&format!("is no URL ({error}); write ws://HOST:PORT or unix:/path")))?;
        let authority = uri.authority().map_or("", |authority| authority.as_str());
        if authority.contains('@') {
            return Err(wrong("holds a name or a password, which a WebSocket has no use for; leave them out"));
        }
        let host = uri.host().unwrap_or_default();
        if host.is_empty() || host == "[]" {
            return Err(wrong("names no host; write ws://HOST:PORT"));
        }
        if authority.len() > host.len() && uri.port_u16().is_none_or(|port| port == 0) {
            return Err(wrong("has a port that is none; write a number from 1 to 65535"));
        }
        Ok(Url { socket: None, uri })
    }
}

impl Display for Url {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        match &self.socket {
            Some(path) => write!(out, "unix:{}", path.display()),
            None => write!(out, "{}://{}{}", self.scheme(), self.authority(), self.path()),
        }
    }
}

impl Debug for Url {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        Display::fmt(self, out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        text.parse().unwrap_or_else(|why| panic!("{text}: {why}"))
    }

    #[test]
    fn urls_are_taken_apart() {
        for (text, authority, path, query, shown) in [
            ("ws://127.0.0.1:81/ws", "127.0.0.1:81", "/ws", None, "ws://127.0.0.1:81/ws"),
            ("ws://h", "h", "/", None, "ws://h/"),
            ("wss://h", "h", "/", None, "wss://h/"),
            ("wss://h:1/x?token=secret", "h:1", "/x", Some("token=secret"), "wss://h:1/x"),
            ("ws://[::1]:9?a=b", "[::1]:9", "/", Some("a=b"), "ws://[::1]:9/"),
            ("ws://h:1/x?token=secret", "h:1", "/x", Some("token=secret"), "ws://h:1/x"),
            ("unix:/run/f.sock?token=secret", "localhost", "/", Some("token=secret"), "unix:/run/f.sock"),
        ] {
            let url = url(text);
            assert_eq!((url.authority(), url.path(), url.query()), (authority, path, query), "{text}");
            assert_eq!((url.to_string().as_str(), format!("{url:?}").as_str()), (shown, shown));
        }
        assert_eq!(url("unix:/run/f.sock").socket(), Some(Path::new("/run/f.sock")));
    }

    #[test]
    fn addresses_are_looked_up() {
        assert_eq!(url("ws://127.0.0.1").resolve().unwrap(), ["127.0.0.1:80".parse().unwrap()]);
        assert_eq!(url("wss://127.0.0.1").resolve().unwrap(), ["127.0.0.1:443".parse().unwrap()]);
        assert_eq!((url("wss://[::1]:9/").host(), url("unix:/s").host()), ("::1", "localhost"));
        assert_eq!(url("ws://[::1]:9/").resolve().unwrap(), ["[::1]:9".parse().unwrap()]);
        assert_eq!(url("unix:/run/f.sock").resolve().unwrap(), []);
    }

    #[test]
    fn the_user_is_one_more_parameter() {
        for (text, user, request) in [
            ("ws://h", Some("alice"), "ws://h/?userId=alice"),
            ("ws://h/ws?", Some("a b&c=d/ü"), "ws://h/ws?userId=a%20b%26c%3Dd%2F%C3%BC"),
            ("ws://h/?token=secret", Some("bob"), "ws://h/?token=secret&userId=bob"),
            ("ws://h/?token=secret", None, "ws://h/?token=secret"),
            ("wss://h/?token=secret", Some("bob"), "wss://h/?token=secret&userId=bob"),
            ("unix:/s?token=secret", Some("bob"), "ws://localhost/?token=secret&userId=bob"),
        ] {
            assert_eq!(url(text).request(user).unwrap().to_string(), request);
        }
        assert!(url("ws://h").request(Some(&"x".repeat(70_000))).unwrap_err().contains("too long"));
        for (text, names) in [("ws://h/?a=b&userId=c", true), ("ws://h/?userId", true), ("ws://h/?xuserId=c", false)] {
            assert_eq!(url(text).names_user(), names, "{text}");
        }
        assert!(url("ws://h/?a=b&token=c").holds_token() && !url("ws://h/?tokens=c").holds_token());
    }

    #[test]
    fn a_wrong_url_says_what_to_write_and_shows_no_secret() {
        for (text, why) in [
            ("http://h:1/", "\"http://h:1/\" is not how a WebSocket is named; write ws:// in place of http://"),
            (
                "https://h/?token=secret",
                "\"https://h/\" is not how a WebSocket is named; write wss:// in place of https://",
            ),
            (
                "127.0.0.1:80",
                "\"127.0.0.1:80\" is no ws:// or wss:// URL; write ws://HOST:PORT, wss://HOST or unix:/path",
            ),
            ("ftp://me:secret@h/", "the URL is no ws:// or wss:// URL; write ws://HOST:PORT, wss://HOST or unix:/path"),
            (
                "ws://me:secret@h/",
                "the URL holds a name or a password, which a WebSocket has no use for; leave them out",
            ),
            ("ws://h/#a", "\"ws://h/#a\" has a fragment (#…), which is never sent; leave it out"),
            ("ws://:80/", "\"ws://:80/\" names no host; write ws://HOST:PORT"),
            ("ws://h:0/", "\"ws://h:0/\" has a port that is none; write a number from 1 to 65535"),
            ("ws://h:65536/", "\"ws://h:65536/\" has a port that is none; write a number from 1 to 65535"),
            (
                "ws://h/ x?token=secret",
                "\"ws://h/ x\" is no URL (invalid uri character); write ws://HOST:PORT or unix:/path",
            ),
            (
                "unix:x.sock?token=secret",
                "\"unix:x.sock\" is no socket; write an absolute path, as unix:/run/fanfare.sock",
            ),
        ] {
            assert_eq!(text.parse::<Url>().unwrap_err(), why);
        }
        for text in ["ws://", "ws:///x", "ws://[]", "ws://[::1", "ws://h:", "ws://h:x", "unix:/s?a b", ""] {
            assert!(text.parse::<Url>().is_err(), "{text}");
        }
    }
}
