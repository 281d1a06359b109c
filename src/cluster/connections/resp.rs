//! Values of Redis' protocol (RESP2) as bytes: where one ends, and what is in those that come most.

use std::io;

/// How deep arrays may be in each other. Scripts of ours return two levels.
const DEPTH_MAX: usize = 8;

/// The longest text that a server may send, in bytes: what Redis itself allows.
const TEXT_BYTES_MAX: usize = 512 << 20;

/// The most parts that an array may have.
const PARTS_MAX: usize = 1 << 20;

/// The bytes of the value at the front; `None` where it is not whole.
///
/// # Errors
/// It is no value.
pub(super) fn value_length(bytes: &[u8]) -> io::Result<Option<usize>> {
    let mut at = 0;
    // How many values are left at each level.
    let mut left = [0_usize; DEPTH_MAX];
    left[0] = 1;
    let mut depth = 0;
    loop {
        while left[depth] == 0 {
            match depth {
                0 => return Ok(Some(at)),
                _ => depth -= 1,
            }
        }
        left[depth] -= 1;
        let Some((kind, rest, next)) = line(bytes, at) else { return Ok(None) };
        at = next;
        match kind {
            b'+' | b'-' | b':' => {}
            b'$' => {
                if let Some(length) = length(rest, TEXT_BYTES_MAX)? {
                    at += length + 2;
                }
                if at > bytes.len() {
                    return Ok(None);
                }
            }
            b'*' => {
                if let Some(parts @ 1..) = length(rest, PARTS_MAX)? {
                    depth += 1;
                    *left.get_mut(depth).ok_or_else(malformed)? = parts;
                }
            }
            _ => return Err(malformed()),
        }
    }
}

/// A message on a channel: `message`, the channel's name, the payload.
pub(super) struct Message<'a> {
    pub(super) channel: &'a str,
    pub(super) payload: &'a [u8],
}

/// What comes to one that subscribes.
pub(super) enum Pushed<'a> {
    Message(Message<'a>),
    Subscribed(&'a str),
    Unsubscribed,
    /// It is refused; the whole value.
    Error(&'a [u8]),
}

/// Reads a whole value that came to one that subscribes.
///
/// # Errors
/// It is something else.
pub(super) fn pushed(value: &[u8]) -> io::Result<Pushed<'_>> {
    if value.first() == Some(&b'-') {
        return Ok(Pushed::Error(value));
    }
    let (_, _, at) = line(value, 0).filter(|(kind, ..)| *kind == b'*').ok_or_else(malformed)?;
    let (kind, at) = text(value, at)?;
    let (channel, at) = text(value, at)?;
    let channel = || std::str::from_utf8(channel).map_err(|_| malformed());
    match kind {
        b"message" => Ok(Pushed::Message(Message { channel: channel()?, payload: text(value, at)?.0 })),
        b"subscribe" => Ok(Pushed::Subscribed(channel()?)),
        b"unsubscribe" => Ok(Pushed::Unsubscribed),
        _ => Err(malformed()),
    }
}

/// The number of a whole value, where it is one.
pub(super) fn integer(value: &[u8]) -> Option<i64> {
    let digits = value.strip_prefix(b":")?.strip_suffix(b"\r\n")?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// Appends a command.
pub(super) fn put_command(out: &mut Vec<u8>, parts: &[&[u8]]) {
    let mut digits = itoa::Buffer::new();
    let mut head = |out: &mut Vec<u8>, kind: u8, number: usize| {
        out.push(kind);
        out.extend_from_slice(digits.format(number).as_bytes());
        out.extend_from_slice(b"\r\n");
    };
    head(out, b'*', parts.len());
    for part in parts {
        head(out, b'$', part.len());
        out.extend_from_slice(part);
        out.extend_from_slice(b"\r\n");
    }
}

/// The kind and the rest of the line at `at`, and where the next begins.
fn line(bytes: &[u8], at: usize) -> Option<(u8, &[u8], usize)> {
    let line = bytes.get(at..)?;
    let end = memchr::memchr(b'\n', line)?;
    let (kind, rest) = line[..end].split_first()?;
    Some((*kind, rest.strip_suffix(b"\r").unwrap_or(rest), at + end + 1))
}

/// A text, and what is behind it.
fn text(value: &[u8], at: usize) -> io::Result<(&[u8], usize)> {
    let (_, rest, from) = line(value, at).filter(|(kind, ..)| *kind == b'$').ok_or_else(malformed)?;
    let length = length(rest, TEXT_BYTES_MAX)?.ok_or_else(malformed)?;
    let text = value.get(from..from + length).ok_or_else(malformed)?;
    Ok((text, from + length + 2))
}

/// A length, which is `None` as `-1`.
fn length(digits: &[u8], max: usize) -> io::Result<Option<usize>> {
    if digits == b"-1" {
        return Ok(None);
    }
    let is_number = (1..=10).contains(&digits.len()) && digits.iter().all(u8::is_ascii_digit);
    let number = digits.iter().fold(0, |number, digit| number * 10 + usize::from(digit.wrapping_sub(b'0')));
    match is_number && number <= max {
        true => Ok(Some(number)),
        false => Err(malformed()),
    }
}

fn malformed() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "what came is not what Redis says")
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALUES: [&[u8]; 8] = [
        b"+OK\r\n",
        b"-ERR no\r\n",
        b":12\r\n",
        b"$-1\r\n",
        b"$0\r\n\r\n",
        b"*0\r\n",
        b"*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$4\r\na\r\nb\r\n",
        b"*3\r\n*2\r\n:1\r\n*1\r\n$2\r\n\r\n\r\n*-1\r\n+x\r\n",
    ];

    #[test]
    fn a_value_ends_where_it_ends_however_it_is_cut() {
        for value in VALUES {
            for cut in 0..value.len() {
                assert_eq!(value_length(&value[..cut]).unwrap(), None, "{:?}", String::from_utf8_lossy(&value[..cut]));
            }
            let more = [value, b"+more\r\n"].concat();
            assert_eq!(value_length(&more).unwrap(), Some(value.len()), "{:?}", String::from_utf8_lossy(value));
            assert!(redis::parse_redis_value(value).is_ok());
        }
    }

    #[test]
    fn what_is_no_value_is_refused() {
        for wrong in ["x\r\n", "$-2\r\n", "$1x\r\n", "$99999999999\r\n", "*2000000\r\n", "\r\n\r\n"] {
            assert!(value_length(wrong.as_bytes()).is_err(), "{wrong:?}");
        }
        assert!(value_length("*1\r\n".repeat(DEPTH_MAX).as_bytes()).is_err(), "too deep");
    }

    #[test]
    fn what_is_pushed_is_read_without_a_copy() {
        let Ok(Pushed::Message(message)) = pushed(VALUES[6]) else { panic!("a message") };
        assert_eq!((message.channel, message.payload), ("c", &b"a\r\nb"[..]));
        let subscribed = b"*3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n";
        assert!(matches!(pushed(subscribed), Ok(Pushed::Subscribed("c"))));
        assert!(matches!(pushed(b"-NOPERM x\r\n"), Ok(Pushed::Error(_))));
        assert!(pushed(b"*1\r\n$4\r\npong\r\n").is_err());
    }

    #[test]
    fn commands_are_written_as_redis_reads_them() {
        let mut out = Vec::new();
        put_command(&mut out, &[b"PUBLISH", b"c", b"\x00\xff"]);
        assert_eq!(out, redis::cmd("PUBLISH").arg("c").arg(&b"\x00\xff"[..]).get_packed_command());
        assert_eq!(integer(b":12\r\n"), Some(12));
        assert_eq!(integer(b"$2\r\n12\r\n"), None);
    }
}
