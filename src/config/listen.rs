//! Addresses the server listens on.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use super::error::shown;

/// Longest path of a Unix socket in bytes: `sun_path` holds 108 with its end.
const UNIX_PATH_BYTES_MAX: usize = 107;

const UNIX_PREFIX: &str = "unix:";

/// An address the server listens on. Written `IP:PORT`, `[IPv6]:PORT` or `unix:/path`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listen {
    /// A TCP address; port 0 is a port of the kernel's choice.
    Tcp(SocketAddr),
    /// An absolute path of a Unix stream socket, at most 107 bytes.
    Unix(PathBuf),
}

impl Listen {
    /// Whether only this machine can reach it: loopback, or a Unix socket.
    pub fn is_local(&self) -> bool {
        match self {
            Listen::Tcp(address) => address.ip().to_canonical().is_loopback(),
            Listen::Unix(_) => true,
        }
    }

    /// Whether it stands for all addresses of the machine, the other one among them: the kernel gives a port to one of
    /// the two.
    pub(super) fn includes(&self, other: &Listen) -> bool {
        let (Listen::Tcp(all), Listen::Tcp(one)) = (self, other) else { return false };
        let same_place = all.is_ipv4() == one.is_ipv4() && all.port() == one.port() && all.port() != 0;
        same_place && all.ip().is_unspecified() && !one.ip().is_unspecified()
    }
}

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some(path) = text.strip_prefix(UNIX_PREFIX) {
            return parse_unix(path);
        }
        if let Ok(address) = text.parse() {
            return Ok(Listen::Tcp(unmapped(address)));
        }
        Err(match likely(text) {
            Some(address) => format!("{} is no address; did you mean {address}?", shown(text)),
            None => {
                format!("{} is no address; write IP:PORT, [IPv6]:PORT or unix:/path, as 127.0.0.1:8080", shown(text))
            }
        })
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Listen::Tcp(address) => address.fmt(f),
            Listen::Unix(path) => write!(f, "{UNIX_PREFIX}{}", path.display()),
        }
    }
}

/// `127.0.0.1:80` for `[::ffff:127.0.0.1]:80`: a socket that is IPv6 alone cannot be bound to that.
fn unmapped(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V6(mapped) => match mapped.ip().to_ipv4_mapped() {
            Some(ip) => (ip, mapped.port()).into(),
            None => address,
        },
        SocketAddr::V4(_) => address,
    }
}

fn parse_unix(path: &str) -> Result<Listen, String> {
    if !path.starts_with('/') || path.ends_with('/') || path.contains('\0') {
        let text = shown(&format!("{UNIX_PREFIX}{path}"));
        return Err(format!("{text} is no socket; write an absolute path, as unix:/run/fanfare.sock"));
    }
    if path.len() > UNIX_PATH_BYTES_MAX {
        return Err(format!(
            "the path of a Unix socket has at most {UNIX_PATH_BYTES_MAX} bytes, this one {}; choose a shorter one",
            path.len()
        ));
    }
    Ok(Listen::Unix(PathBuf::from(path)))
}

/// What someone probably meant who wrote a name, a bare port or an IPv6 address without brackets.
fn likely(text: &str) -> Option<SocketAddr> {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) => (host, port.parse::<u16>().ok()?),
        None => ("", text.parse::<u16>().ok()?),
    };
    match host {
        "" | "localhost" => format!("127.0.0.1:{port}").parse().ok(),
        "*" => format!("0.0.0.0:{port}").parse().ok(),
        _ => format!("[{host}]:{port}").parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_written() {
        for text in ["127.0.0.1:8080", "0.0.0.0:0", "[::1]:9", "[::]:65535", "unix:/run/fanfare.sock", "unix:/a b/ü"] {
            let listen: Listen = text.parse().expect(text);
            assert_eq!(listen.to_string(), text);
        }
    }

    #[test]
    fn a_mapped_address_is_the_one_of_ipv4() {
        for (text, same) in [
            ("[::ffff:127.0.0.1]:80", "127.0.0.1:80"),
            ("[::ffff:0:0]:0", "0.0.0.0:0"),
            ("[::ffff:a00:1]:1", "10.0.0.1:1"),
            ("[::127.0.0.1]:1", "[::127.0.0.1]:1"),
        ] {
            assert_eq!(text.parse::<Listen>(), same.parse(), "{text}");
        }
    }

    #[test]
    fn local_is_what_strangers_cannot_reach() {
        for (text, local) in [
            ("127.0.0.1:80", true),
            ("127.8.9.1:80", true),
            ("[::1]:80", true),
            ("[::ffff:127.0.0.1]:80", true),
            ("unix:/run/x", true),
            ("0.0.0.0:80", false),
            ("[::]:80", false),
            ("10.0.0.1:80", false),
            ("[::ffff:10.0.0.1]:80", false),
        ] {
            assert_eq!(text.parse::<Listen>().expect(text).is_local(), local, "{text}");
        }
    }

    #[test]
    fn a_wrong_address_says_what_to_write() {
        let form = "write IP:PORT, [IPv6]:PORT or unix:/path, as 127.0.0.1:8080";
        for (text, message) in [
            ("", format!("\"\" is no address; {form}")),
            ("example.org:80", format!("\"example.org:80\" is no address; {form}")),
            ("127.0.0.1:99999", format!("\"127.0.0.1:99999\" is no address; {form}")),
            ("127.0.0.1", format!("\"127.0.0.1\" is no address; {form}")),
            ("localhost:8080", "\"localhost:8080\" is no address; did you mean 127.0.0.1:8080?".to_owned()),
            (":8080", "\":8080\" is no address; did you mean 127.0.0.1:8080?".to_owned()),
            ("8080", "\"8080\" is no address; did you mean 127.0.0.1:8080?".to_owned()),
            ("*:8080", "\"*:8080\" is no address; did you mean 0.0.0.0:8080?".to_owned()),
            ("::1:8080", "\"::1:8080\" is no address; did you mean [::1]:8080?".to_owned()),
            ("unix:", "\"unix:\" is no socket; write an absolute path, as unix:/run/fanfare.sock".to_owned()),
            (
                "unix:x.sock",
                "\"unix:x.sock\" is no socket; write an absolute path, as unix:/run/fanfare.sock".to_owned(),
            ),
            (
                "unix:/a\0b",
                "\"unix:/a\\0b\" is no socket; write an absolute path, as unix:/run/fanfare.sock".to_owned(),
            ),
        ] {
            assert_eq!(text.parse::<Listen>(), Err(message));
        }
    }

    #[test]
    fn a_socket_path_fits_the_kernel() {
        let longest = format!("unix:/{}", "x".repeat(UNIX_PATH_BYTES_MAX - 1));
        assert!(longest.parse::<Listen>().is_ok());
        assert_eq!(
            format!("{longest}x").parse::<Listen>(),
            Err("the path of a Unix socket has at most 107 bytes, this one 108; choose a shorter one".to_owned())
        );
    }
}
