//! The opening handshake, server side (RFC 6455 §4.2): the request head in, 101 or a refusal out.
//!
//! A head is gathered incrementally and every byte is looked at once for its end; it is parsed once, when complete.

use std::borrow::Cow;

use tungstenite::handshake::derive_accept_key;

use crate::compress::{Agreement, Offer};
use crate::limits::{ROOM_ID_BYTES_MAX, USER_ID_BYTES_MAX};

/// The one subprotocol the server ever selects.
const SUBPROTOCOL: &str = "fanfare.v1";

/// The end of the last header line and the empty line behind it: a head ends with it.
const EMPTY_LINE: &[u8] = b"\r\n\r\n";

/// Bounds of a request head.
#[derive(Clone, Copy, Debug)]
pub struct HeadLimits {
    /// Bytes up to and with the empty line; more is 431.
    pub bytes_max: usize,
    /// Header fields; more is 431.
    pub headers_max: usize,
}

/// Gathers a request head that came in pieces.
#[derive(Debug, Default)]
pub struct HeadReader {
    bytes: Vec<u8>,
}

impl HeadReader {
    /// Takes `input`, which may hold more than the head. Once the head is complete: all bytes so far and the head's
    /// length in them. `None`: more is needed.
    ///
    /// # Errors
    /// [`HttpRefusal::HeadTooLarge`] when `limits.bytes_max` bytes hold no end.
    pub fn push(&mut self, input: &[u8], limits: HeadLimits) -> Result<Option<(Vec<u8>, usize)>, HttpRefusal> {
        self.push_searching(input, limits, |bytes| memchr::memmem::find(bytes, EMPTY_LINE))
    }

    /// As [`push`](HeadReader::push), with the search for the empty line from outside, so that a test can count the
    /// bytes that are looked at.
    ///
    /// # Errors
    /// As [`push`](HeadReader::push).
    pub fn push_searching(
        &mut self,
        input: &[u8],
        limits: HeadLimits,
        mut find: impl FnMut(&[u8]) -> Option<usize>,
    ) -> Result<Option<(Vec<u8>, usize)>, HttpRefusal> {
        let searched = self.bytes.len().saturating_sub(EMPTY_LINE.len() - 1);
        let mut head_end = |bytes: &[u8]| find(&bytes[searched..]).map(|at| searched + at + EMPTY_LINE.len());
        let room = limits.bytes_max.saturating_sub(self.bytes.len());
        if input.len() <= room {
            self.bytes.extend_from_slice(input);
            return match head_end(&self.bytes) {
                Some(end) => Ok(Some((std::mem::take(&mut self.bytes), end))),
                None if self.bytes.len() >= limits.bytes_max => Err(HttpRefusal::HeadTooLarge),
                None => Ok(None),
            };
        }
        self.bytes.extend_from_slice(&input[..room]);
        match head_end(&self.bytes) {
            Some(end) => {
                self.bytes.extend_from_slice(&input[room..]);
                Ok(Some((std::mem::take(&mut self.bytes), end)))
            }
            None => Err(HttpRefusal::HeadTooLarge),
        }
    }

    /// Bytes held.
    pub fn held_bytes(&self) -> usize {
        self.bytes.len()
    }
}

/// What a request head asks for.
#[derive(Debug, PartialEq, Eq)]
pub enum Head {
    /// A WebSocket connection.
    Upgrade(Upgrade),
    /// Plain HTTP: not the reactors' business.
    Http,
}

/// A valid request for a WebSocket connection.
#[derive(Debug, PartialEq, Eq)]
pub struct Upgrade {
    /// The value of `Sec-WebSocket-Accept` that answers the client's key (RFC 6455 §4.2.2).
    pub accept: String,
    /// What is asked for.
    pub target: Target,
    /// Whether `fanfare.v1` was offered and is therefore selected.
    pub subprotocol: bool,
    /// The first acceptable offer of compression.
    pub offer: Option<Offer>,
}

/// What an upgrade's path and query name.
#[derive(Debug, PartialEq, Eq)]
pub enum Target {
    /// A connection that speaks JSON commands; anonymous without a user.
    Json {
        /// The decoded user id.
        user: Option<String>,
    },
    /// A member of a raw room.
    Raw {
        /// The decoded room id.
        room: String,
        /// Whether the sender gets its own messages too.
        echo: bool,
    },
}

/// Why a request is refused, each with its HTTP status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HttpRefusal {
    /// 400: the request is malformed, with what is wrong.
    Bad(&'static str),
    /// 404: there is no WebSocket endpoint at this path.
    NotFound,
    /// 408: the head did not arrive within `limits.handshake_timeout`.
    Timeout,
    /// 426: a WebSocket version other than 13 (RFC 6455 §4.4).
    Version,
    /// 431: the head is over `limits.head_bytes_max`.
    HeadTooLarge,
    /// 431: the head has more than `limits.headers_max` fields.
    TooManyHeaders,
    /// 503: the node has all the connections it may have, or is going away.
    AtCapacity {
        /// Seconds after which a client may try again.
        retry_after_s: u32,
    },
}

/// Parses a complete request head.
///
/// # Errors
/// The [`HttpRefusal`] to answer with.
pub fn parse_head(head: &[u8], limits: HeadLimits) -> Result<Head, HttpRefusal> {
    if head.len() > limits.bytes_max {
        return Err(HttpRefusal::HeadTooLarge);
    }
    let mut few = [httparse::EMPTY_HEADER; 64];
    let mut many = Vec::new();
    let headers = match limits.headers_max {
        max @ 0..=64 => &mut few[..max],
        max => {
            many.resize(max, httparse::EMPTY_HEADER);
            &mut many[..]
        }
    };
    let mut request = httparse::Request::new(headers);
    match request.parse(head) {
        Ok(httparse::Status::Complete(end)) if end == head.len() => {}
        // Lines may end without a carriage return (RFC 9112 §2.2): then an empty one is the end before ours.
        Ok(httparse::Status::Complete(_) | httparse::Status::Partial) => {
            return Err(HttpRefusal::Bad("the request head is malformed"));
        }
        Err(httparse::Error::TooManyHeaders) => return Err(HttpRefusal::TooManyHeaders),
        Err(_) => return Err(HttpRefusal::Bad("the request head is not valid HTTP/1.1")),
    }
    if !header_tokens(&request, "upgrade").any(|token| token.eq_ignore_ascii_case("websocket")) {
        return Ok(Head::Http);
    }
    let target = parse_target(request.path.unwrap_or("/"))?;
    let accept = check_upgrade(&request)?;
    let subprotocol = header_tokens(&request, "sec-websocket-protocol").any(|token| token == SUBPROTOCOL);
    let offer = Offer::first_acceptable(header_values(&request, "sec-websocket-extensions"));
    Ok(Head::Upgrade(Upgrade { accept, target, subprotocol, offer }))
}

/// The comma-separated elements of a field's value, without the blanks around them (RFC 9110 §5.6.1). What a comma and
/// a blank are comes from outside, so that a test can count how often it is asked.
pub fn field_elements<'v>(
    value: &'v str,
    comma: impl Fn(char) -> bool + 'v,
    blank: impl Fn(char) -> bool + 'v,
) -> impl Iterator<Item = &'v str> {
    value.split(comma).map(move |element| element.trim_matches(&blank))
}

/// Appends the response that completes the handshake, with what was agreed about compression.
pub fn write_upgrade(out: &mut Vec<u8>, upgrade: &Upgrade, agreement: Option<Agreement>) {
    out.extend_from_slice(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ",
    );
    out.extend_from_slice(upgrade.accept.as_bytes());
    if upgrade.subprotocol {
        out.extend_from_slice(b"\r\nSec-WebSocket-Protocol: ");
        out.extend_from_slice(SUBPROTOCOL.as_bytes());
    }
    if let Some(agreement) = agreement {
        out.extend_from_slice(b"\r\nSec-WebSocket-Extensions: ");
        agreement.write(out);
    }
    out.extend_from_slice(b"\r\n\r\n");
}

/// Appends a refusal: status, reason and a sentence for the person at the other end. The connection ends with it.
pub fn write_refusal(out: &mut Vec<u8>, refusal: HttpRefusal) {
    let (status, extra, body): (&str, String, Cow<'_, str>) = match refusal {
        HttpRefusal::Bad(what) => ("400 Bad Request", String::new(), what.into()),
        HttpRefusal::NotFound => {
            ("404 Not Found", String::new(), "no WebSocket endpoint here: connect to /, /ws or /raw/ROOM".into())
        }
        HttpRefusal::Timeout => ("408 Request Timeout", String::new(), "the request head took too long".into()),
        HttpRefusal::Version => (
            "426 Upgrade Required",
            "Sec-WebSocket-Version: 13\r\n".into(),
            "only WebSocket version 13 is spoken here".into(),
        ),
        HttpRefusal::HeadTooLarge => {
            ("431 Request Header Fields Too Large", String::new(), "the request head is too large".into())
        }
        HttpRefusal::TooManyHeaders => {
            ("431 Request Header Fields Too Large", String::new(), "the request has too many header fields".into())
        }
        HttpRefusal::AtCapacity { retry_after_s } => (
            "503 Service Unavailable",
            format!("Retry-After: {retry_after_s}\r\n"),
            "this node takes no more connections now: try again later".into(),
        ),
    };
    let response = format!(
        "HTTP/1.1 {status}\r\n{extra}Content-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{body}\n",
        body.len() + 1
    );
    out.extend_from_slice(response.as_bytes());
}

/// The comma-separated elements of every header field called `name`.
fn header_tokens<'r>(request: &'r httparse::Request<'_, '_>, name: &'r str) -> impl Iterator<Item = &'r str> {
    header_values(request, name)
        .flat_map(|value| field_elements(value, |letter| letter == ',', |letter| matches!(letter, ' ' | '\t')))
}

/// The values of every header field called `name`.
fn header_values<'r>(request: &'r httparse::Request<'_, '_>, name: &'r str) -> impl Iterator<Item = &'r str> {
    request
        .headers
        .iter()
        .filter(move |header| header.name.eq_ignore_ascii_case(name))
        .filter_map(|header| std::str::from_utf8(header.value).ok())
}

/// RFC 6455 §4.2.1, point by point; the answer to the client's key.
fn check_upgrade(request: &httparse::Request<'_, '_>) -> Result<String, HttpRefusal> {
    let has = |name| request.headers.iter().any(|header| header.name.eq_ignore_ascii_case(name));
    if request.method != Some("GET") || request.version != Some(1) {
        return Err(HttpRefusal::Bad("a WebSocket handshake is an HTTP/1.1 GET"));
    }
    if !has("host") {
        return Err(HttpRefusal::Bad("the Host header is missing"));
    }
    if !header_tokens(request, "connection").any(|token| token.eq_ignore_ascii_case("upgrade")) {
        return Err(HttpRefusal::Bad("the Connection header does not say Upgrade"));
    }
    if has("transfer-encoding") || header_tokens(request, "content-length").any(|length| length != "0") {
        return Err(HttpRefusal::Bad("a WebSocket handshake has no body"));
    }
    if header_tokens(request, "sec-websocket-version").ne(["13"]) {
        return Err(HttpRefusal::Version);
    }
    let mut keys = header_tokens(request, "sec-websocket-key");
    let (Some(key), None) = (keys.next(), keys.next()) else {
        return Err(HttpRefusal::Bad("exactly one Sec-WebSocket-Key is needed"));
    };
    if !is_base64_of_16_bytes(key) {
        return Err(HttpRefusal::Bad("Sec-WebSocket-Key is not 16 bytes in base64"));
    }
    Ok(derive_accept_key(key.as_bytes()))
}

fn is_base64_of_16_bytes(key: &str) -> bool {
    let alphabet = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    key.len() == 24 && key.ends_with("==") && key.as_bytes()[..22].iter().all(alphabet)
}

fn parse_target(target: &str) -> Result<Target, HttpRefusal> {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    // RFC 9112 §3.2.2: a server accepts the absolute form as well.
    let path = match path.strip_prefix("http://") {
        Some(rest) => rest.find('/').map_or("/", |slash| &rest[slash..]),
        None => path,
    };
    let user = match query_value(query, "userId") {
        Some(raw) => Some(
            decode_id(raw, USER_ID_BYTES_MAX)
                .ok_or(HttpRefusal::Bad("userId must be 1 to 128 bytes of percent-encoded UTF-8"))?,
        ),
        None => None,
    };
    if path == "/" || path == "/ws" {
        return Ok(Target::Json { user });
    }
    match path.strip_prefix("/raw/") {
        Some(segment) if !segment.contains('/') => {
            let room = decode_id(segment, ROOM_ID_BYTES_MAX)
                .ok_or(HttpRefusal::Bad("a raw room's id must be 1 to 255 bytes of percent-encoded UTF-8"))?;
            Ok(Target::Raw { room, echo: query_value(query, "echo") == Some("1") })
        }
        _ => Err(HttpRefusal::NotFound),
    }
}

/// The first value of a query parameter, still encoded.
fn query_value<'q>(query: &'q str, name: &str) -> Option<&'q str> {
    query.split('&').find_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (key == name).then_some(value)
    })
}

/// Percent-decodes an id (RFC 3986 §2.1; `+` is a plus). `None` where it is empty, too long, badly encoded or no UTF-8.
fn decode_id(raw: &str, bytes_max: usize) -> Option<String> {
    let mut bytes = Vec::with_capacity(raw.len());
    let mut rest = raw.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let high = char::from(rest.next()?).to_digit(16)?;
        let low = char::from(rest.next()?).to_digit(16)?;
        bytes.push((high << 4 | low) as u8);
    }
    let id = String::from_utf8(bytes).ok()?;
    (!id.is_empty() && id.len() <= bytes_max).then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIMITS: HeadLimits = HeadLimits { bytes_max: 8192, headers_max: 64 };

    fn request(target: &str, extra: &str) -> String {
        format!(
            "GET {target} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n{extra}\r\n"
        )
    }

    fn target(text: &str) -> Result<Target, HttpRefusal> {
        match parse_head(request(text, "").as_bytes(), LIMITS)? {
            Head::Upgrade(upgrade) => Ok(upgrade.target),
            Head::Http => panic!("{text} is an upgrade"),
        }
    }

    #[test]
    fn the_rfcs_own_example() {
        let Ok(Head::Upgrade(upgrade)) = parse_head(request("/", "").as_bytes(), LIMITS) else { panic!() };
        assert_eq!(upgrade.accept, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        let mut out = Vec::new();
        write_upgrade(&mut out, &upgrade, None);
        assert!(out.starts_with(b"HTTP/1.1 101 ") && out.ends_with(b"\r\n\r\n"));
        assert!(!String::from_utf8(out).unwrap().contains("Protocol:"));
    }

    #[test]
    fn users_are_decoded_and_bounded() {
        let user = |id: &str| Ok(Target::Json { user: Some(id.to_owned()) });
        assert_eq!(target("/?userId=alice"), user("alice"));
        assert_eq!(target("/ws?x=1&userId=a%20b+c%22%0A%F0%9F%98%80"), user("a b+c\"\n\u{1F600}"));
        assert_eq!(target("/ws"), Ok(Target::Json { user: None }));
        assert_eq!(target(&format!("/?userId={}", "u".repeat(128))), user(&"u".repeat(128)));
        for bad in ["", "%FF", "%4", "%zz", "%C3", &"u".repeat(129)] {
            assert!(matches!(target(&format!("/?userId={bad}")), Err(HttpRefusal::Bad(_))), "{bad}");
        }
    }

    #[test]
    fn raw_rooms_are_one_segment() {
        assert_eq!(target("/raw/r%2Fx?echo=1"), Ok(Target::Raw { room: "r/x".into(), echo: true }));
        assert_eq!(target("/raw/r?userId=a&echo=0"), Ok(Target::Raw { room: "r".into(), echo: false }));
        assert_eq!(target("/raw/a/b"), Err(HttpRefusal::NotFound));
        assert!(matches!(target("/raw/"), Err(HttpRefusal::Bad(_))));
        assert_eq!(target("/other"), Err(HttpRefusal::NotFound));
    }

    /// Found by fuzzing: a slash in the query was taken for the beginning of the path.
    #[test]
    fn the_absolute_form_names_the_same() {
        let user = Ok(Target::Json { user: Some("a/ws".into()) });
        assert_eq!(target("http://x:80"), Ok(Target::Json { user: None }));
        assert_eq!(target("http://x/ws?userId=a/ws"), user);
        assert_eq!(target("http://x?userId=a/ws"), user);
        assert_eq!(target("http://x/raw/r"), Ok(Target::Raw { room: "r".into(), echo: false }));
        assert_eq!(target("http://x/ws/y"), Err(HttpRefusal::NotFound));
    }

    /// Found by fuzzing: other white space than a field may have around its value (RFC 9110 §5.6.3) was taken away.
    #[test]
    fn white_space_is_spaces_and_tabs() {
        let version = |text: &str| parse_head(request("/", "").replace("13", text).as_bytes(), LIMITS);
        assert!(matches!(version("\t13 \t"), Ok(Head::Upgrade(_))));
        assert_eq!(version("13\u{a0}"), Err(HttpRefusal::Version));
    }

    #[test]
    fn each_rule_of_the_handshake_is_checked() {
        let without = |field: &str| {
            let text = request("/", "");
            let lines: Vec<&str> = text.split("\r\n").filter(|line| !line.starts_with(field)).collect();
            parse_head(lines.join("\r\n").as_bytes(), LIMITS)
        };
        assert_eq!(without("Upgrade"), Ok(Head::Http));
        for field in ["Host", "Connection", "Sec-WebSocket-Key"] {
            assert!(matches!(without(field), Err(HttpRefusal::Bad(_))), "{field}");
        }
        assert_eq!(without("Sec-WebSocket-Version"), Err(HttpRefusal::Version));
        for extra in [
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
            "Content-Length: 4\r\n",
            "Transfer-Encoding: chunked\r\n",
        ] {
            assert!(matches!(parse_head(request("/", extra).as_bytes(), LIMITS), Err(HttpRefusal::Bad(_))), "{extra}");
        }
        let post = request("/", "").replace("GET", "POST");
        assert!(matches!(parse_head(post.as_bytes(), LIMITS), Err(HttpRefusal::Bad(_))));
        assert!(matches!(parse_head(b"PRI * HTTP/2.0\r\n\r\n", LIMITS), Err(HttpRefusal::Bad(_))));
        assert_eq!(parse_head(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", LIMITS), Ok(Head::Http));
    }

    /// Found by fuzzing: what stood between the two ends was passed over, as if it belonged to the head.
    #[test]
    fn a_head_ends_with_its_first_empty_line() {
        let bare = request("/", "").replace("\r\n", "\n");
        let refusal = Err(HttpRefusal::Bad("the request head is malformed"));
        assert_eq!(parse_head(format!("{bare}frames\r\n\r\n").as_bytes(), LIMITS), refusal);
        let last = bare.strip_suffix("\n\n").unwrap();
        assert!(matches!(parse_head(format!("{last}\r\n\r\n").as_bytes(), LIMITS), Ok(Head::Upgrade(_))));
    }

    #[test]
    fn only_our_subprotocol_is_selected() {
        for (offer, selected) in [("chat", false), ("fanfare.v1", true), ("bearer.x.y, fanfare.v1", true)] {
            let head = request("/", &format!("Sec-WebSocket-Protocol: {offer}\r\n"));
            let Ok(Head::Upgrade(upgrade)) = parse_head(head.as_bytes(), LIMITS) else { panic!() };
            assert_eq!(upgrade.subprotocol, selected, "{offer}");
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "searches a megabyte")]
    fn heads_are_bounded_in_bytes_and_fields() {
        let fields = "X: y\r\n".repeat(60);
        assert_eq!(parse_head(request("/", &fields).as_bytes(), LIMITS), Err(HttpRefusal::TooManyHeaders));
        let mut reader = HeadReader::default();
        let mut pushed = 0;
        let refusal = loop {
            match reader.push(b"x", LIMITS) {
                Ok(None) => pushed += 1,
                Ok(Some(_)) => panic!("no end was sent"),
                Err(refusal) => break refusal,
            }
        };
        assert_eq!((refusal, pushed), (HttpRefusal::HeadTooLarge, 8191));
        assert!(reader.held_bytes() <= 8192);
        assert_eq!(HeadReader::default().push(&vec![b'x'; 1 << 20], LIMITS), Err(HttpRefusal::HeadTooLarge));
    }

    #[test]
    fn every_refusal_is_whole_http() {
        for refusal in [
            HttpRefusal::Bad("x"),
            HttpRefusal::NotFound,
            HttpRefusal::Timeout,
            HttpRefusal::Version,
            HttpRefusal::HeadTooLarge,
            HttpRefusal::TooManyHeaders,
            HttpRefusal::AtCapacity { retry_after_s: 3 },
        ] {
            let mut out = Vec::new();
            write_refusal(&mut out, refusal);
            let mut headers = [httparse::EMPTY_HEADER; 16];
            let mut response = httparse::Response::new(&mut headers);
            let httparse::Status::Complete(end) = response.parse(&out).unwrap() else { panic!() };
            let length = response.headers.iter().find(|header| header.name == "Content-Length").unwrap();
            assert_eq!(std::str::from_utf8(length.value).unwrap().parse::<usize>().unwrap(), out.len() - end);
        }
    }

    proptest! {
        #[test]
        fn any_chunking_finds_the_same_end(pieces in proptest::collection::vec(1_usize..50, 1..8), tail in proptest::collection::vec(any::<u8>(), 0..40)) {
            let mut bytes = request("/?userId=a", "").into_bytes();
            let end = bytes.len();
            bytes.extend(&tail);
            let mut reader = HeadReader::default();
            let mut at = 0;
            let mut sizes = pieces.iter().cycle();
            loop {
                let size = (*sizes.next().unwrap()).min(bytes.len() - at);
                at += size;
                if let Some((all, found)) = reader.push(&bytes[at - size..at], LIMITS).unwrap() {
                    prop_assert_eq!(found, end);
                    prop_assert_eq!(&all[..], &bytes[..at]);
                    break;
                }
            }
        }

        #[test]
        fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse_head(&bytes, LIMITS);
        }
    }
}
