//! What counts as loopback: a request that was made on this machine, for this machine.
//!
//! What is only for loopback asks [`is_loopback`], and nothing else. An address alone says little: behind a proxy on this
//! machine every stranger comes from 127.0.0.1, and a page on another site can have a browser of this machine ask. So
//! everything has to be right: the listener, the peer, the host and port that the request is for, and that nothing
//! between has left a mark. A Unix socket never counts: it is made for a proxy, which calls its host `localhost`.
//!
//! A proxy that leaves no mark, and writes the server's own address into `Host`, cannot be told from a program of this
//! machine. `admin.loopback = false` is for that.
//!
//! Imports nothing.

use core::net::{IpAddr, SocketAddr};

/// The two ends of a request's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    /// What the listener is bound to; none of a Unix socket.
    pub listener: Option<SocketAddr>,
    /// Where the client connected from; none through a Unix socket.
    pub peer: Option<SocketAddr>,
    /// Whether a PROXY header came.
    pub proxied: bool,
}

/// What a request's first line says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestLine {
    /// Whether it is one of HTTP/1.1 or HTTP/2. Many a proxy asks in HTTP/1.0 unless it is told otherwise, nginx before
    /// 1.29.7 for one; browsers and scrapers do not.
    pub is_of_a_client: bool,
    /// Whether its target is a path (RFC 9112 §3.2.1), in HTTP/2 beside `:authority`, which then counts as `Host`. In the
    /// other forms `Host` is not what counts.
    pub is_origin_form: bool,
}

/// Fields that proxies add, in lower case.
const FORWARDING: [&str; 10] = [
    "forwarded",
    "via",
    "x-real-ip",
    "x-client-ip",
    "x-cluster-client-ip",
    "x-proxyuser-ip",
    "x-request-id",
    "true-client-ip",
    "client-ip",
    "proxy-client-ip",
];

/// What the names of fields begin with that proxies add, in lower case.
const FORWARDING_PREFIXES: [&str; 8] =
    ["x-forwarded", "x-original-", "x-envoy-", "x-amzn-", "x-azure-", "x-appengine-", "cf-", "fly-"];

/// Ports that a URL leaves out (RFC 9110 §4.2).
const DEFAULT_PORTS: [u16; 2] = [80, 443];

/// Whether a request counts as loopback. `fields` are its header fields, each with its value.
pub fn is_loopback<'r>(ends: Ends, line: RequestLine, fields: impl IntoIterator<Item = (&'r str, &'r [u8])>) -> bool {
    let (Some(listener), Some(peer)) = (ends.listener, ends.peer) else { return false };
    let is_near = is_loopback_address(listener.ip()) && is_loopback_address(peer.ip()) && !ends.proxied;
    if !is_near || !line.is_of_a_client || !line.is_origin_form {
        return false;
    }
    let mut host = None;
    let (mut asks_for_upgrade, mut has_upgrade) = (false, false);
    for (name, value) in fields {
        let name = name.to_ascii_lowercase();
        let is_forwarding = FORWARDING.contains(&name.as_str());
        if is_forwarding || FORWARDING_PREFIXES.iter().any(|prefix| name.starts_with(prefix)) {
            return false;
        }
        match name.as_str() {
            "host" if host.is_some() => return false,
            "host" => host = Some(value),
            "upgrade" => has_upgrade = true,
            // A list (RFC 9110 §7.6.1).
            "connection" => {
                let mut options = value.split(|byte| *byte == b',');
                asks_for_upgrade |= options.any(|option| option.trim_ascii().eq_ignore_ascii_case(b"upgrade"));
            }
            _ => {}
        }
    }
    // A proxy that says `Connection: upgrade` of every request passes on those that ask for none as well.
    host.is_some_and(|host| is_own_host(host, listener.port())) && asks_for_upgrade == has_upgrade
}

/// Whether `Host` names this machine, and the listener's port: a proxy that passes on its own clients' `Host` has another.
fn is_own_host(host: &[u8], port: u16) -> bool {
    let Ok(host) = core::str::from_utf8(host) else { return false };
    let host = host.trim();
    let (name, said) = match host.rsplit_once(':') {
        Some((name, digits)) if !digits.contains(']') => match digits.parse::<u16>() {
            Ok(number) => (name, Some(number)),
            Err(_) => return false,
        },
        Some(_) | None => (host, None),
    };
    let is_own_port = said.map_or(DEFAULT_PORTS.contains(&port), |said| said == port);
    let bare = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let is_here = match bare {
        Some(bare) => bare.parse().is_ok_and(|address| is_loopback_address(IpAddr::V6(address))),
        None => {
            name.eq_ignore_ascii_case("localhost")
                || name.parse().is_ok_and(|address| is_loopback_address(IpAddr::V4(address)))
        }
    };
    is_here && is_own_port
}

fn is_loopback_address(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: RequestLine = RequestLine { is_of_a_client: true, is_origin_form: true };

    fn ends(listener: &str, peer: &str) -> Ends {
        let address = |text: &str| Some(text.parse().expect(text));
        Ends { listener: address(listener), peer: address(peer), proxied: false }
    }

    fn near() -> Ends {
        ends("127.0.0.1:8080", "127.0.0.1:50000")
    }

    fn counts(ends: Ends, line: RequestLine, fields: &[(&str, &str)]) -> bool {
        is_loopback(ends, line, fields.iter().map(|(name, value)| (*name, value.as_bytes())))
    }

    fn with_host(ends: Ends, host: &str) -> bool {
        counts(ends, LINE, &[("Host", host)])
    }

    #[test]
    fn listener_peer_and_host_have_to_be_of_this_machine() {
        for host in
            ["127.0.0.1:8080", "localhost:8080", "LOCALHOST:8080", "127.9.9.9:8080", "[::1]:8080", " [::1]:8080 "]
        {
            assert!(with_host(near(), host), "{host}");
        }
        assert!(with_host(ends("[::1]:80", "[::1]:1"), "[::1]"));
        assert!(with_host(ends("127.0.0.1:443", "127.0.0.1:1"), "localhost"));
        assert!(with_host(ends("[::ffff:127.0.0.1]:8080", "[::ffff:127.0.0.1]:1"), "localhost:8080"));
        for (listener, peer) in [
            ("0.0.0.0:8080", "127.0.0.1:1"),
            ("[::]:8080", "[::1]:1"),
            ("127.0.0.1:8080", "10.0.0.1:1"),
            ("10.0.0.1:8080", "10.0.0.1:1"),
            ("127.0.0.1:8080", "[::ffff:10.0.0.1]:1"),
        ] {
            assert!(!with_host(ends(listener, peer), "127.0.0.1:8080"), "{listener} {peer}");
        }
    }

    #[test]
    fn a_host_of_another_name_or_port_does_not_count() {
        for host in [
            "example.com",
            "example.com:8080",
            "localhost",
            "127.0.0.1",
            "[::1]",
            "localhost:80",
            "localhost:08081",
            "localhost:",
            "localhost:x",
            "localhost.evil.example:8080",
            "evil.localhost:8080",
            "0.0.0.0:8080",
            "127.1:8080",
            "2130706433:8080",
            "::1:8080",
            "[127.0.0.1]:8080",
            "[::1:8080",
            "user@localhost:8080",
            "10.0.0.1:8080",
            ":8080",
            "",
        ] {
            assert!(!with_host(near(), host), "{host}");
        }
        assert!(!counts(near(), LINE, &[]), "none");
        assert!(!counts(near(), LINE, &[("Host", "localhost:8080"), ("host", "localhost:8080")]), "two");
        assert!(!is_loopback(near(), LINE, [("Host", &b"local\xffhost:8080"[..])]));
    }

    #[test]
    fn a_mark_of_a_proxy_does_not_count() {
        for name in [
            "Forwarded",
            "X-Forwarded-For",
            "x-forwarded-for",
            "X-Forwarded-Host",
            "X-Forwarded-Proto",
            "X-Forwarded",
            "X-Real-IP",
            "Via",
            "True-Client-IP",
            "CF-Connecting-IP",
            "X-Envoy-External-Address",
            "X-Original-Forwarded-For",
        ] {
            assert!(!counts(near(), LINE, &[("Host", "localhost:8080"), (name, "127.0.0.1")]), "{name}");
            assert!(!counts(near(), LINE, &[(name, ""), ("Host", "localhost:8080")]), "{name}");
        }
        assert!(!with_host(Ends { proxied: true, ..near() }, "localhost:8080"));
        for line in [RequestLine { is_of_a_client: false, ..LINE }, RequestLine { is_origin_form: false, ..LINE }] {
            assert!(!counts(near(), line, &[("Host", "localhost:8080")]));
        }
        let host = ("Host", "localhost:8080");
        assert!(!counts(near(), LINE, &[host, ("Connection", "upgrade")]));
        assert!(counts(near(), LINE, &[host, ("Connection", "keep-alive, Upgrade"), ("Upgrade", "websocket")]));
        assert!(counts(near(), LINE, &[host, ("Connection", "close"), ("User-Agent", "x"), ("Accept", "*/*")]));
    }

    #[test]
    fn a_unix_socket_does_not_count() {
        for ends in [Ends { listener: None, ..near() }, Ends { peer: None, ..near() }] {
            assert!(!with_host(ends, "localhost:8080"));
        }
    }
}
