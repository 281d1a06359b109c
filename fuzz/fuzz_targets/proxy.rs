//! Any bytes as a header of the PROXY protocol.
//!
//! Every beginning of them waits for more up to the byte that decides, and from there on nothing changes: a header that
//! comes in pieces is read as the whole one, and what is none is known at the first byte that shows it. What it comes to is
//! compared with a second reader, which takes the whole apart after the specification. A header of the second version is
//! made of the input as well, so that its lengths are good more often than by chance.
//!
//! Input: a byte; if it is odd, then command, family and what a header tells, else any bytes.

#![no_main]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use fanfare::conn::{NoProxyHeader, ProxyHeader, parse_proxy};
use fanfare::limits::PROXY_HEADER_BYTES_MAX;
use libfuzzer_sys::{Corpus, fuzz_target};

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

type Outcome = Result<Option<ProxyHeader>, NoProxyHeader>;

fuzz_target!(|input: &[u8]| -> Corpus {
    let Some((first, rest)) = input.split_first() else { return Corpus::Reject };
    match (first % 2, rest) {
        (1, [command, family, told @ ..]) => {
            let length = (told.len() as u16).to_be_bytes();
            check(&[SIGNATURE, &[*command, *family], &length, told, b"behind"].concat());
        }
        (1, _) => return Corpus::Reject,
        (_, bytes) => check(bytes),
    }
    Corpus::Keep
});

fn check(bytes: &[u8]) {
    let whole = parse_proxy(bytes);
    assert_eq!(whole, read(bytes), "{}", bytes.escape_ascii());
    let ends = 0..=bytes.len().min(PROXY_HEADER_BYTES_MAX + 1);
    let decided = ends.clone().find(|end| parse_proxy(&bytes[..*end]) != Ok(None));
    for end in ends {
        let expected = if decided.is_some_and(|decided| end >= decided) { whole } else { Ok(None) };
        assert_eq!(parse_proxy(&bytes[..end]), expected, "the first {end} of {}", bytes.escape_ascii());
    }
    if let (Ok(Some(header)), Some(decided)) = (whole, decided) {
        assert_eq!(header.bytes, decided, "a header ends where it is known to be one");
    }
    assert!(decided.is_some() || bytes.len() < PROXY_HEADER_BYTES_MAX, "what is gathered is bounded");
}

/// The second reader.
fn read(bytes: &[u8]) -> Outcome {
    let common = bytes.iter().zip(SIGNATURE).take_while(|(byte, sign)| byte == sign).count();
    if common == bytes.len().min(SIGNATURE.len()) {
        return read_binary(&bytes[common..]);
    }
    let common = bytes.iter().zip(b"PROXY ").take_while(|(byte, sign)| byte == sign).count();
    match common == bytes.len().min(6) {
        true => read_text(bytes),
        false => Err(NoProxyHeader),
    }
}

fn read_text(bytes: &[u8]) -> Outcome {
    let lines: Vec<&[u8]> = bytes.splitn(2, |byte| *byte == b'\n').collect();
    let line = match lines[..] {
        [line, _] if line.len() < 107 => line,
        [unfinished] if unfinished.len() < 107 => return Ok(None),
        _ => return Err(NoProxyHeader),
    };
    let text = String::from_utf8(line.to_vec()).map_err(|_| NoProxyHeader)?;
    let text = text.strip_suffix('\r').ok_or(NoProxyHeader)?;
    let port = |text: &str| {
        let is_number = !text.is_empty() && text.chars().all(|letter| letter.is_ascii_digit());
        text.parse::<u64>().ok().filter(|port| is_number && *port <= 65_535).map(|port| port as u16)
    };
    let source = match text.split(' ').collect::<Vec<_>>()[..] {
        ["PROXY", "UNKNOWN", ..] => None,
        ["PROXY", family @ ("TCP4" | "TCP6"), from, to, from_port, to_port] => {
            let ips = match family {
                "TCP4" => [from, to].map(|ip| ip.parse::<Ipv4Addr>().ok().map(IpAddr::from)),
                _ => [from, to].map(|ip| ip.parse::<Ipv6Addr>().ok().map(IpAddr::from)),
            };
            match (ips, [port(from_port), port(to_port)]) {
                ([Some(from), Some(_)], [Some(from_port), Some(_)]) => Some(SocketAddr::new(from, from_port)),
                _ => return Err(NoProxyHeader),
            }
        }
        _ => return Err(NoProxyHeader),
    };
    Ok(Some(ProxyHeader { bytes: line.len() + 1, source }))
}

/// What stands behind the signature.
fn read_binary(bytes: &[u8]) -> Outcome {
    let (is_local, family, told, length) = match bytes {
        [] => return Ok(None),
        [command, ..] if *command >> 4 != 2 || *command & 15 > 1 => return Err(NoProxyHeader),
        [command, family, high, low, told @ ..] => {
            (command & 15 == 0, *family, told, usize::from(*high) << 8 | usize::from(*low))
        }
        _ => return Ok(None),
    };
    if length > 2_048 {
        return Err(NoProxyHeader);
    }
    if told.len() < length {
        return Ok(None);
    }
    let told = &told[..length];
    let source = match (family >> 4, family & 15) {
        _ if is_local => None,
        (0, 0) | (3, 1) => None,
        (1, 1) if length >= 12 => {
            let ip = Ipv4Addr::new(told[0], told[1], told[2], told[3]);
            Some(SocketAddr::new(ip.into(), u16::from(told[8]) << 8 | u16::from(told[9])))
        }
        (2, 1) if length >= 36 => {
            let words =
                told[..16].chunks(2).fold(0_u128, |ip, word| ip << 16 | u128::from(word[0]) << 8 | u128::from(word[1]));
            Some(SocketAddr::new(Ipv6Addr::from(words).into(), u16::from(told[32]) << 8 | u16::from(told[33])))
        }
        _ => return Err(NoProxyHeader),
    };
    Ok(Some(ProxyHeader { bytes: SIGNATURE.len() + 4 + length, source }))
}
