//! Headers of the PROXY protocol as proxies write them, and what is nearly so.

use crate::Seed;

/// The first inputs of the target `proxy`.
pub fn seeds() -> Vec<Seed> {
    let any = |bytes: &[u8]| [b"0", bytes].concat();
    let told = |bytes: &[u8]| [b"1", bytes].concat();
    vec![
        ("text-ipv4", any(b"PROXY TCP4 192.0.2.7 10.0.0.1 4711 80\r\nGET / HTTP/1.1\r\n")),
        ("text-ipv6", any(b"PROXY TCP6 2001:db8::7 ::1 65535 0\r\n")),
        ("text-unknown", any(b"PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n")),
        ("text-bare-line-feed", any(b"PROXY TCP4 192.0.2.7 10.0.0.1 4711 80\n")),
        ("text-signed-port", any(b"PROXY TCP4 192.0.2.7 10.0.0.1 +1 80\r\n")),
        ("binary-cut", any(b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xC0\0\x02")),
        ("request", any(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")),
        ("ipv4", told(b"\x21\x11\xC0\0\x02\x07\x0A\0\0\x01\x12\x67\0\x50")),
        ("ipv4-with-more", told(b"\x21\x11\xC0\0\x02\x07\x0A\0\0\x01\x12\x67\0\x50\x04\0\x02\x01\x02")),
        ("ipv4-short", told(b"\x21\x11\xC0\0\x02\x07\x0A\0\0\x01\x12")),
        ("ipv6", told(&[&b"\x21\x21"[..], &[0xFE; 36]].concat())),
        ("unix", told(&[&b"\x21\x31"[..], &[0; 216]].concat())),
        ("local", told(b"\x20\0")),
        ("other-version", told(b"\x11\x11\xC0\0\x02\x07\x0A\0\0\x01\x12\x67\0\x50")),
    ]
}
