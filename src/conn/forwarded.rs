//! From which address a request really comes, where proxies that are believed have passed it on: `X-Forwarded-For`.
//!
//! Every proxy appends the address that it got the request from, so the list is read from its end: the first address that
//! is no such proxy is the client's, and what stands in front of it may be anything.

use core::net::{IpAddr, SocketAddr};

use crate::limits::PROXY_HOPS_MAX;

/// The field, which every proxy appends to.
const FIELD: &str = "x-forwarded-for";

/// The values of a head's fields `X-Forwarded-For`, in their order. None of a head that cannot be read, or that has more
/// fields than there is room for in `headers`: it names nobody, and is refused.
pub fn forwarded_for<'h, 'b>(
    head: &'b [u8],
    headers: &'h mut [httparse::Header<'b>],
) -> impl DoubleEndedIterator<Item = &'b [u8]> + use<'h, 'b> {
    let mut request = httparse::Request::new(headers);
    let is_read = request.parse(head).is_ok();
    let headers: &'h [httparse::Header<'b>] = request.headers;
    let fields = headers.iter().filter(|header| header.name.eq_ignore_ascii_case(FIELD));
    fields.map(|header| header.value).filter(move |_| is_read)
}

/// The client of a request that a trusted proxy at `peer` has passed on (`None`: through a Unix socket), by the values of its
/// fields `X-Forwarded-For`. A hop that is no address ends the list: the client is the last one, from the end, that was. So
/// it is where all of them are trusted, and behind `limits::PROXY_HOPS_MAX` hops; without any it is the peer.
///
/// Several fields are one list (RFC 9110 §5.3). A hop may have a port, and an IPv6 address brackets.
pub fn client_among<'f>(
    fields: impl DoubleEndedIterator<Item = &'f [u8]>,
    peer: Option<IpAddr>,
    is_trusted: impl Fn(IpAddr) -> bool,
) -> Option<IpAddr> {
    let hops = fields.rev().flat_map(|value| value.rsplit(|byte| *byte == b','));
    let mut client = peer;
    for hop in hops.take(PROXY_HOPS_MAX) {
        let Some(address) = address_of(hop) else { break };
        client = Some(address);
        if !is_trusted(address) {
            break;
        }
    }
    client
}

fn address_of(hop: &[u8]) -> Option<IpAddr> {
    let hop = std::str::from_utf8(hop).ok()?.trim_matches([' ', '\t']);
    let bare = || hop.parse::<IpAddr>().ok();
    let with_port = || Some(hop.parse::<SocketAddr>().ok()?.ip());
    let in_brackets = || Some(IpAddr::V6(hop.strip_prefix('[')?.strip_suffix(']')?.parse().ok()?));
    bare().or_else(with_port).or_else(in_brackets).map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client_behind(
        head: &[u8],
        headers_max: usize,
        peer: Option<IpAddr>,
        is_trusted: impl Fn(IpAddr) -> bool,
    ) -> Option<IpAddr> {
        let mut headers = vec![httparse::EMPTY_HEADER; headers_max];
        client_among(forwarded_for(head, &mut headers), peer, is_trusted)
    }

    const PEER: IpAddr = IpAddr::V4(core::net::Ipv4Addr::new(10, 0, 0, 1));

    /// The client where proxies are in 10.0.0.0/8, of a request with these fields.
    fn client(fields: &[&str]) -> String {
        let fields: String = fields.iter().map(|value| format!("X-Forwarded-For: {value}\r\n")).collect();
        let head = format!("GET / HTTP/1.1\r\nHost: x\r\n{fields}Accept: 1.1.1.1\r\n\r\n");
        let is_trusted = |address| matches!(address, IpAddr::V4(address) if address.octets()[0] == 10);
        client_behind(head.as_bytes(), 64, Some(PEER), is_trusted).expect("a peer with an address").to_string()
    }

    #[test]
    fn the_last_address_that_is_no_proxy_is_the_clients() {
        for (fields, expected) in [
            (&[][..], "10.0.0.1"),
            (&["192.0.2.7"], "192.0.2.7"),
            (&["1.1.1.1, 192.0.2.7"], "192.0.2.7"),
            (&["1.1.1.1,192.0.2.7,10.9.9.9"], "192.0.2.7"),
            (&["1.1.1.1", "192.0.2.7", "10.9.9.9, 10.8.8.8"], "192.0.2.7"),
            (&["192.0.2.7:1234"], "192.0.2.7"),
            (&["2001:db8::7"], "2001:db8::7"),
            (&["[2001:db8::7]"], "2001:db8::7"),
            (&["[2001:db8::7]:80"], "2001:db8::7"),
            (&["1.1.1.1, ::ffff:192.0.2.7 \t"], "192.0.2.7"),
            (&["1.1.1.1, ::ffff:10.2.2.2"], "1.1.1.1"),
            (&["10.1.1.1, 10.2.2.2"], "10.1.1.1"),
        ] {
            assert_eq!(client(fields), expected, "{fields:?}");
        }
    }

    #[test]
    fn behind_what_is_no_address_nobody_is_believed() {
        for hop in ["", "unknown", "_hidden", "1.2.3", "1.2.3.4:99999", "[::1", "\"1.1.1.1\"", "192.0.2.7 10.1.1.1"] {
            assert_eq!(client(&[&format!("1.1.1.1, {hop}")]), "10.0.0.1", "{hop}");
            assert_eq!(client(&[&format!("1.1.1.1, {hop}, 10.3.3.3")]), "10.3.3.3", "{hop}");
            assert_eq!(client(&["1.1.1.1", hop, "10.3.3.3"]), "10.3.3.3", "{hop}");
        }
        assert_eq!(client(&["1.1.1.1, \u{fc}"]), "10.0.0.1");
    }

    #[test]
    fn only_so_many_hops_are_looked_at() {
        let proxies = |count: usize| vec!["10.7.7.7"; count].join(",");
        assert_eq!(client(&[&format!("192.0.2.7,{}", proxies(PROXY_HOPS_MAX - 1))]), "192.0.2.7");
        assert_eq!(client(&[&format!("192.0.2.7,{}", proxies(PROXY_HOPS_MAX))]), "10.7.7.7");
    }

    #[test]
    fn a_head_that_cannot_be_read_names_nobody() {
        let head = b"GET / HTTP/1.1\r\nX-Forwarded-For: 1.1.1.1\r\nbad header\r\n\r\n";
        assert_eq!(client_behind(head, 64, Some(PEER), |_| true), Some(PEER));
        let head = b"GET / HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 1.1.1.1\r\n\r\n";
        assert_eq!(client_behind(head, 1, None, |_| true), None);
    }
}
