//! Which web pages may connect: browsers say in `Origin` where a page comes from (RFC 6454 §7), and a page cannot lie.

use crate::config::Pattern;

/// Origins that are allowed. Who sends none is no web page, and is not asked.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Origins {
    allowed: Vec<Pattern>,
}

impl Origins {
    /// Those that a pattern matches; without patterns those of the host that the request names, and of this machine.
    pub fn new(allowed: Vec<Pattern>) -> Origins {
        Origins { allowed }
    }

    /// Whether a page of `origin` may connect to what the request calls `host`. `null` is the origin of a page that may be
    /// from anywhere.
    pub fn allow(&self, origin: &str, host: Option<&str>) -> bool {
        if !self.allowed.is_empty() {
            return self.allowed.iter().any(|pattern| pattern.matches(origin));
        }
        let Some(origin) = origin_host(origin) else {
            return false;
        };
        is_loopback(origin) || host.is_some_and(|host| without_port(host).eq_ignore_ascii_case(origin))
    }
}

/// Whether `Host` says this port. Without one it says none, whatever the scheme's own is.
pub fn says_port(host: &str, port: u16) -> bool {
    let name = without_port(host);
    host[name.len()..].strip_prefix(':').is_some_and(|said| said.parse() == Ok(port))
}

/// The host in `https://host:port`.
fn origin_host(origin: &str) -> Option<&str> {
    let (scheme, authority) = origin.split_once("://")?;
    let is_web = scheme.eq_ignore_ascii_case("https") || scheme.eq_ignore_ascii_case("http");
    let host = without_port(authority);
    (is_web && !host.is_empty() && !authority.contains(['/', '@', '\\'])).then_some(host)
}

/// A host without its port; the brackets around an address of IPv6 stay.
fn without_port(authority: &str) -> &str {
    match authority.rfind(']') {
        Some(end) => &authority[..=end],
        None => authority.rsplit_once(':').map_or(authority, |(host, _)| host),
    }
}

fn is_loopback(host: &str) -> bool {
    let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    host.eq_ignore_ascii_case("localhost")
        || bare.parse::<core::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_patterns_the_same_host_and_this_machine() {
        let origins = Origins::default();
        for (origin, host) in [
            ("https://app.example.com", "app.example.com"),
            ("https://APP.example.com:8443", "app.example.com:80"),
            ("http://[2001:db8::1]:3000", "[2001:db8::1]:8080"),
            ("http://localhost:3000", "app.example.com"),
            ("http://127.0.0.1", "app.example.com"),
            ("http://[::1]:5173", "app.example.com"),
        ] {
            assert!(origins.allow(origin, Some(host)), "{origin} {host}");
        }
        for (origin, host) in [
            ("https://evil.example", "app.example.com"),
            ("https://app.example.com.evil.example", "app.example.com"),
            ("https://example.com", "app.example.com"),
            ("https://localhost.evil.example", "app.example.com"),
            ("https://127.0.0.1.evil.example", "app.example.com"),
            ("https://evil.example/app.example.com", "app.example.com"),
            ("https://app.example.com@evil.example", "app.example.com"),
            ("https://app.example.com:80@evil.example", "app.example.com"),
            ("file://app.example.com", "app.example.com"),
            ("null", "null"),
            ("", ""),
            ("https://", ""),
            ("https://:80", ":80"),
        ] {
            assert!(!origins.allow(origin, Some(host)), "{origin} {host}");
        }
        assert!(!origins.allow("https://app.example.com", None));
    }

    #[test]
    fn a_port_is_said_or_it_is_not() {
        for host in ["evil.example:8080", "127.0.0.1:8080", "[::1]:8080", "[2001:db8::1]:08080"] {
            assert!(says_port(host, 8080), "{host}");
        }
        for host in ["app.example.com", "app.example.com:443", "[::8080]", "[::1]:80", "8080", ":", "", "x:80800"] {
            assert!(!says_port(host, 8080), "{host}");
        }
    }

    #[test]
    fn patterns_take_the_place_of_that() {
        let origins = Origins::new(vec!["https://*.example.com".parse().expect("a pattern")]);
        assert!(origins.allow("https://app.example.com", None));
        for other in ["http://app.example.com", "https://example.com", "http://localhost", "null"] {
            assert!(!origins.allow(other, Some("example.com")), "{other}");
        }
    }
}
