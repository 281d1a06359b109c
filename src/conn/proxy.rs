//! The PROXY protocol, versions 1 and 2 (<https://www.haproxy.org/download/3.2/doc/proxy-protocol.txt>): what a proxy puts
//! in front of a connection to say from where it really comes.
//!
//! A header is looked at as a whole, as far as it is there. What comes in pieces is gathered by who asks, up to
//! [`PROXY_HEADER_BYTES_MAX`].

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::limits::PROXY_HEADER_BYTES_MAX;

/// What a header of version 1 begins with.
const TEXT_SIGNATURE: &[u8] = b"PROXY ";

/// The longest header of version 1, its line end included (§2.1).
const TEXT_BYTES_MAX: usize = 107;

/// What a header of version 2 begins with (§2.2).
const BINARY_SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// Bytes in front of the addresses of version 2: the signature, version and command, family and protocol, length.
const BINARY_HEAD_BYTES: usize = 16;

/// Version 2 in the upper half of its byte, and the commands in the lower.
const LOCAL: u8 = 0x20;
const PROXY: u8 = 0x21;

/// Families and protocols of version 2: addresses that are not told, and streams over IPv4, IPv6 and Unix sockets.
const UNSPECIFIED: u8 = 0x00;
const STREAM_IPV4: u8 = 0x11;
const STREAM_IPV6: u8 = 0x21;
const STREAM_UNIX: u8 = 0x31;

/// A whole header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProxyHeader {
    /// Its length; what stands behind it is the client's.
    pub bytes: usize,
    /// Where the connection comes from; `None` where the proxy does not say (`LOCAL`, `UNKNOWN`, no address).
    pub source: Option<SocketAddr>,
}

/// It does not begin with a PROXY header, or with one that is malformed or too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoProxyHeader;

/// Reads the header that `bytes` begin with; `None` where more of it is to come. Takes time linear in
/// [`PROXY_HEADER_BYTES_MAX`] at most.
///
/// # Errors
/// [`NoProxyHeader`] as early as the bytes show it.
pub fn parse_proxy(bytes: &[u8]) -> Result<Option<ProxyHeader>, NoProxyHeader> {
    let begins_as = |signature: &[u8]| {
        let shown = bytes.len().min(signature.len());
        bytes[..shown] == signature[..shown]
    };
    if begins_as(TEXT_SIGNATURE) {
        parse_text(bytes)
    } else if begins_as(BINARY_SIGNATURE) {
        parse_binary(bytes)
    } else {
        Err(NoProxyHeader)
    }
}

/// Version 1: one line of ASCII.
fn parse_text(bytes: &[u8]) -> Result<Option<ProxyHeader>, NoProxyHeader> {
    let within = &bytes[..bytes.len().min(TEXT_BYTES_MAX)];
    let Some(end) = memchr::memchr(b'\n', within) else {
        return if within.len() < TEXT_BYTES_MAX { Ok(None) } else { Err(NoProxyHeader) };
    };
    let line = within[..end].strip_suffix(b"\r").and_then(|line| std::str::from_utf8(line).ok());
    let mut words = line.ok_or(NoProxyHeader)?.split(' ').skip(1);
    let source = match words.next() {
        // Whatever follows is to be ignored.
        Some("UNKNOWN") => None,
        Some("TCP4") => Some(text_source::<Ipv4Addr>(words)?),
        Some("TCP6") => Some(text_source::<Ipv6Addr>(words)?),
        Some(_) | None => return Err(NoProxyHeader),
    };
    Ok(Some(ProxyHeader { bytes: end + 1, source }))
}

/// The two addresses and the two ports, of which the first each are the client's.
fn text_source<'w, A: std::str::FromStr + Into<IpAddr>>(
    mut words: impl Iterator<Item = &'w str>,
) -> Result<SocketAddr, NoProxyHeader> {
    let mut address = || words.next()?.parse::<A>().ok();
    let (source, _destination) = address().zip(address()).ok_or(NoProxyHeader)?;
    let mut port = || words.next().filter(|word| word.bytes().all(|digit| digit.is_ascii_digit()))?.parse::<u16>().ok();
    let (port, _destination_port) = port().zip(port()).ok_or(NoProxyHeader)?;
    match words.next() {
        None => Ok(SocketAddr::new(source.into(), port)),
        Some(_) => Err(NoProxyHeader),
    }
}

/// Version 2: lengths are told, and what follows the addresses is passed over.
fn parse_binary(bytes: &[u8]) -> Result<Option<ProxyHeader>, NoProxyHeader> {
    let Some(command) = bytes.get(12) else { return Ok(None) };
    if !matches!(*command, LOCAL | PROXY) {
        return Err(NoProxyHeader);
    }
    let Some(head) = bytes.first_chunk::<BINARY_HEAD_BYTES>() else { return Ok(None) };
    let end = BINARY_HEAD_BYTES + usize::from(u16::from_be_bytes([head[14], head[15]]));
    if end > PROXY_HEADER_BYTES_MAX {
        return Err(NoProxyHeader);
    }
    let Some(told) = bytes.get(BINARY_HEAD_BYTES..end) else { return Ok(None) };
    let source = match (*command, head[13]) {
        (LOCAL, _) | (_, UNSPECIFIED) => None,
        (_, STREAM_IPV4) => Some(binary_source::<4>(told)?),
        (_, STREAM_IPV6) => Some(binary_source::<16>(told)?),
        // Its clients have no address.
        (_, STREAM_UNIX) => None,
        (_, _) => return Err(NoProxyHeader),
    };
    Ok(Some(ProxyHeader { bytes: end, source }))
}

/// Two addresses of `N` bytes and two ports, of which the first each are the client's.
fn binary_source<const N: usize>(told: &[u8]) -> Result<SocketAddr, NoProxyHeader>
where
    IpAddr: From<[u8; N]>,
{
    let source = told.first_chunk::<N>().ok_or(NoProxyHeader)?;
    let ports = told.get(2 * N..2 * N + 4).ok_or(NoProxyHeader)?;
    Ok(SocketAddr::new(IpAddr::from(*source), u16::from_be_bytes([ports[0], ports[1]])))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A header of version 2.
    fn binary(command: u8, family: u8, told: &[u8]) -> Vec<u8> {
        let length = u16::try_from(told.len()).expect("short enough for its length").to_be_bytes();
        [BINARY_SIGNATURE, &[command, family], &length, told].concat()
    }

    fn from(address: &str) -> Option<SocketAddr> {
        Some(address.parse().expect(address))
    }

    /// 192.0.2.7:4660 to 10.0.0.1:80.
    const IPV4: [u8; 12] = [192, 0, 2, 7, 10, 0, 0, 1, 0x12, 0x34, 0, 80];

    fn good() -> Vec<(Vec<u8>, Option<SocketAddr>)> {
        let ipv6 = [&Ipv6Addr::LOCALHOST.octets()[..], &[0xFE; 16], &[0x12, 0x34, 0, 80]].concat();
        let with_more = [&IPV4[..], &[4, 0, 3, 1, 2, 3]].concat();
        let text = |text: &str| text.as_bytes().to_vec();
        vec![
            (text("PROXY TCP4 192.0.2.7 10.0.0.1 4660 80\r\n"), from("192.0.2.7:4660")),
            (text("PROXY TCP6 ::1 fefe::fefe 4660 80\r\n"), from("[::1]:4660")),
            (text("PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n"), from("255.255.255.255:65535")),
            (text("PROXY UNKNOWN\r\n"), None),
            (text("PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n"), None),
            (binary(PROXY, STREAM_IPV4, &IPV4), from("192.0.2.7:4660")),
            (binary(PROXY, STREAM_IPV4, &with_more), from("192.0.2.7:4660")),
            (binary(PROXY, STREAM_IPV6, &ipv6), from("[::1]:4660")),
            (binary(PROXY, STREAM_UNIX, &[0; 216]), None),
            (binary(PROXY, UNSPECIFIED, &[]), None),
            (binary(LOCAL, STREAM_IPV4, &IPV4), None),
            (binary(LOCAL, 0xFF, &[]), None),
            (binary(LOCAL, UNSPECIFIED, &[0; PROXY_HEADER_BYTES_MAX - BINARY_HEAD_BYTES]), None),
        ]
    }

    #[test]
    fn a_header_says_where_the_client_is_and_where_it_ends() {
        for (header, source) in good() {
            let bytes = header.len();
            for behind in [&b""[..], b"GET / HTTP/1.1\r\n", &[0xFF; 3_000]] {
                let input = [&header, behind].concat();
                assert_eq!(parse_proxy(&input), Ok(Some(ProxyHeader { bytes, source })), "{}", header.escape_ascii());
            }
        }
    }

    #[test]
    fn every_beginning_of_a_header_waits_for_more() {
        for (header, _) in good() {
            for end in 0..header.len() {
                assert_eq!(parse_proxy(&header[..end]), Ok(None), "{}", header[..end].escape_ascii());
            }
        }
    }

    #[test]
    fn what_is_no_header_is_refused_at_the_byte_that_shows_it() {
        let long_line = format!("PROXY UNKNOWN {}\r\n", "x".repeat(92));
        let text = |text: &str| text.as_bytes().to_vec();
        let mut huge = binary(LOCAL, UNSPECIFIED, &[]);
        huge[14..].copy_from_slice(&u16::to_be_bytes((PROXY_HEADER_BYTES_MAX - BINARY_HEAD_BYTES + 1) as u16));
        let cases = [
            (text("GET / HTTP/1.1\r\n"), 1),
            (text("PROXYTCP4"), 6),
            (text("\r\nGET"), 3),
            (text("\x16\x03\x01"), 1),
            (text("PROXY TCP4 192.0.2.7 10.0.0.1 4660 80\n"), 38),
            (text("PROXY TCP4 192.0.2.7 10.0.0.1 4660\r\n"), 36),
            (text("PROXY TCP4 192.0.2.7 10.0.0.1 4660 80 1\r\n"), 41),
            (text("PROXY TCP4 192.0.2.7 10.0.0.1 +4660 80\r\n"), 40),
            (text("PROXY TCP4 192.0.2.7 10.0.0.1 66000 80\r\n"), 40),
            (text("PROXY TCP4  192.0.2.7 10.0.0.1 4660 80\r\n"), 40),
            (text("PROXY TCP4 ::1 ::1 4660 80\r\n"), 28),
            (text("PROXY TCP6 192.0.2.7 10.0.0.1 4660 80\r\n"), 39),
            (text("PROXY UDP4 192.0.2.7 10.0.0.1 4660 80\r\n"), 39),
            (text("PROXY \r\n"), 8),
            (text(&long_line), 107),
            (binary(0x11, STREAM_IPV4, &IPV4), 13),
            (binary(0x22, STREAM_IPV4, &IPV4), 13),
            (binary(PROXY, 0x12, &IPV4), 28),
            (binary(PROXY, STREAM_IPV4, &IPV4[..11]), 27),
            (binary(PROXY, STREAM_IPV6, &IPV4), 28),
            (huge, 16),
        ];
        for (input, shown) in cases {
            assert_eq!(parse_proxy(&input[..shown - 1]), Ok(None), "{}", input.escape_ascii());
            assert_eq!(parse_proxy(&input[..shown]), Err(NoProxyHeader), "{}", input.escape_ascii());
        }
    }
}
