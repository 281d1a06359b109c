//! The opening handshake, server side (RFC 6455 §4.2): the request head in, 101 or a refusal out.
//!
//! A head is gathered incrementally and every byte is looked at once for its end; it is parsed once, when complete.

use std::borrow::Cow;
use std::fmt;

use tungstenite::handshake::derive_accept_key;

use super::target::{Target, is_of_authority, path_and_query, query_tokens};
use crate::compress::{Agreement, Offer};

/// The one subprotocol the server ever selects.
const SUBPROTOCOL: &str = "fanfare.v1";

/// What a token follows in the name of a subprotocol: browsers can send one no other way, but in the URL.
const BEARER_SUBPROTOCOL: &str = "bearer.";

/// The end of the last header line and the empty line behind it: a head ends with it.
const EMPTY_LINE: &[u8] = b"\r\n\r\n";

/// The first byte of a TLS connection: a record with a handshake message (RFC 8446 §5.1).
const TLS_HANDSHAKE: u8 = 0x16;

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
    /// [`HttpRefusal::HeadTooLarge`] when `limits.bytes_max` bytes hold no end. [`HttpRefusal::Bad`] as soon as no head
    /// can begin so, or a line has ended without a carriage return: the end that is waited for may never come.
    pub fn push(&mut self, input: &[u8], limits: HeadLimits) -> Result<Option<(Vec<u8>, usize)>, HttpRefusal> {
        self.push_searching(input, limits, |bytes| memchr::memchr(b'\n', bytes))
    }

    /// As [`push`](HeadReader::push), with the search for the next line feed from outside, so that a test can count the
    /// bytes that are looked at.
    ///
    /// # Errors
    /// As [`push`](HeadReader::push).
    pub fn push_searching(
        &mut self,
        input: &[u8],
        limits: HeadLimits,
        mut find_line_feed: impl FnMut(&[u8]) -> Option<usize>,
    ) -> Result<Option<(Vec<u8>, usize)>, HttpRefusal> {
        if self.bytes.is_empty()
            && let Some(first) = input.first()
        {
            check_first_byte(*first)?;
        }
        let mut searched = self.bytes.len();
        let room = limits.bytes_max.saturating_sub(self.bytes.len());
        let (within, beyond) = input.split_at(input.len().min(room));
        self.bytes.extend_from_slice(within);
        while let Some(at) = find_line_feed(&self.bytes[searched..]) {
            searched += at + 1;
            let so_far = &self.bytes[..searched];
            if so_far.ends_with(EMPTY_LINE) {
                self.bytes.extend_from_slice(beyond);
                return Ok(Some((std::mem::take(&mut self.bytes), searched)));
            }
            if !so_far.ends_with(b"\r\n") {
                return Err(HttpRefusal::Bad("a line of the request head ends with a bare line feed: send CR LF"));
            }
        }
        match self.bytes.len() >= limits.bytes_max {
            true => Err(HttpRefusal::HeadTooLarge),
            false => Ok(None),
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
    /// What it shows, where that was asked for.
    pub credentials: Option<Box<Credentials>>,
}

/// By what a request says whose it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Naming {
    /// By its own word, `userId`. What else it shows is not looked for.
    OwnWord,
    /// By its own word, and it shows from which page it comes.
    OwnWordAndOrigin,
    /// By what it shows: `userId` means nothing.
    Token,
}

/// What a request shows of who is asking. Not larger than its head.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Credentials {
    /// The token.
    pub token: Presented,
    /// The page that asks, as its browser says (RFC 6454 §7).
    pub origin: Option<String>,
    /// The host that is asked.
    pub host: String,
}

/// The token that came: in the query, in `Authorization`, or as a subprotocol.
#[derive(Default, PartialEq, Eq)]
pub enum Presented {
    /// None.
    #[default]
    Nothing,
    /// One, be it in several places. It may be anything.
    Token(String),
    /// Several that differ.
    Several,
}

impl Presented {
    fn add(&mut self, token: Cow<'_, str>) {
        match self {
            Presented::Nothing => *self = Presented::Token(token.into_owned()),
            Presented::Token(first) if *first == token => {}
            Presented::Token(_) | Presented::Several => *self = Presented::Several,
        }
    }
}

/// Without the token: it is a secret.
impl fmt::Debug for Presented {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Presented::Nothing => "Nothing",
            Presented::Token(_) => "Token(…)",
            Presented::Several => "Several",
        })
    }
}

/// Why a request is refused, each with its HTTP status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HttpRefusal {
    /// 400: the request is malformed, with what is wrong.
    Bad(&'static str),
    /// 401: who asks is not known (RFC 6750 §3).
    Unauthorized(Unauthorized),
    /// 403: whoever asks may not, with what is refused.
    Forbidden(&'static str),
    /// 404: there is no WebSocket endpoint at this path.
    NotFound,
    /// 408: the head did not arrive within `limits.handshake_timeout`.
    Timeout,
    /// 426: a WebSocket version other than 13 (RFC 6455 §4.4).
    Version,
    /// 426: a WebSocket handshake whose upgrade was lost on its way (RFC 9110 §7.8).
    UpgradeLost,
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

/// Why it is not known who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unauthorized {
    /// There is no token.
    Missing,
    /// There are several, and they differ.
    Several,
    /// It is not valid, with what is wrong.
    Invalid(&'static str),
}

/// Parses a complete request head that says by its own word whose it is.
///
/// # Errors
/// The [`HttpRefusal`] to answer with.
pub fn parse_head(head: &[u8], limits: HeadLimits) -> Result<Head, HttpRefusal> {
    parse_head_named(head, limits, Naming::OwnWord)
}

/// As [`parse_head`], with what is to say whose it is.
///
/// # Errors
/// The [`HttpRefusal`] to answer with.
pub fn parse_head_named(head: &[u8], limits: HeadLimits, naming: Naming) -> Result<Head, HttpRefusal> {
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
        Ok(httparse::Status::Complete(_) | httparse::Status::Partial) => {
            return Err(HttpRefusal::Bad("the request head is malformed"));
        }
        Err(httparse::Error::TooManyHeaders) => return Err(HttpRefusal::TooManyHeaders),
        Err(httparse::Error::Version) => {
            return Err(HttpRefusal::Bad("HTTP/1.1 is spoken here, and HTTP/1.0 but for WebSocket: use one of them"));
        }
        Err(_) => return Err(HttpRefusal::Bad("the request head is not valid HTTP/1.1")),
    }
    check_host(&request)?;
    let target = request.path.unwrap_or("/");
    let (path, query) = path_and_query(target)?;
    if !asks_for_upgrade(&request) {
        return match has_field(&request, "sec-websocket-key") {
            true => Err(HttpRefusal::UpgradeLost),
            false => Ok(Head::Http),
        };
    }
    let target = Target::parse(path, query, naming)?;
    let accept = check_upgrade(&request)?;
    let subprotocol = header_tokens(&request, "sec-websocket-protocol").any(|token| token == SUBPROTOCOL);
    let offer = Offer::first_acceptable(header_values(&request, "sec-websocket-extensions"));
    let credentials = match naming {
        Naming::OwnWord => None,
        Naming::OwnWordAndOrigin | Naming::Token => Some(Box::new(credentials(&request, query))),
    };
    Ok(Head::Upgrade(Upgrade { accept, target, subprotocol, offer, credentials }))
}

/// What a request shows. A field that is no UTF-8 counts as well: what is in its place is no token and no origin.
fn credentials(request: &httparse::Request<'_, '_>, query: &str) -> Credentials {
    let mut found = Credentials::default();
    query_tokens(query).for_each(|token| found.token.add(token));
    for header in request.headers.iter() {
        let value = String::from_utf8_lossy(header.value);
        let name = header.name;
        if name.eq_ignore_ascii_case("authorization") {
            bearer(&value).into_iter().for_each(|token| found.token.add(token.into()));
        } else if name.eq_ignore_ascii_case("sec-websocket-protocol") {
            let offers = field_elements(&value, |letter| letter == ',', |letter| matches!(letter, ' ' | '\t'));
            let tokens = offers.filter_map(|offer| offer.strip_prefix(BEARER_SUBPROTOCOL));
            tokens.for_each(|token| found.token.add(token.into()));
        } else if name.eq_ignore_ascii_case("host") {
            found.host = value.trim().to_owned();
        } else if name.eq_ignore_ascii_case("origin") {
            // Two of them are the origin of nobody.
            let before = found.origin.take().map(|before| before + ",").unwrap_or_default();
            found.origin = Some(before + value.trim());
        }
    }
    found
}

/// The token of an `Authorization` field (RFC 6750 §2.1); other schemes are others' business.
fn bearer(value: &str) -> Option<&str> {
    let (scheme, token) = value.trim().split_once(' ').unwrap_or((value.trim(), ""));
    scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
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
        HttpRefusal::Unauthorized(why) => {
            let (challenge, body) = unauthorized(why);
            ("401 Unauthorized", challenge, body)
        }
        HttpRefusal::Forbidden(what) => ("403 Forbidden", String::new(), what.into()),
        HttpRefusal::NotFound => {
            ("404 Not Found", String::new(), "no WebSocket endpoint here: connect to /, /ws or /raw/ROOM".into())
        }
        HttpRefusal::Timeout => ("408 Request Timeout", String::new(), "the request head took too long".into()),
        HttpRefusal::Version => (
            "426 Upgrade Required",
            "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n".into(),
            "only WebSocket version 13 is spoken here".into(),
        ),
        HttpRefusal::UpgradeLost => (
            "426 Upgrade Required",
            "Upgrade: websocket\r\n".into(),
            "this WebSocket handshake came without its upgrade: have the proxy in between speak HTTP/1.1 and pass on \
             Upgrade and Connection"
                .into(),
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
    // Who sends `Upgrade` names it here (RFC 9110 §7.8).
    let connection = match refusal {
        HttpRefusal::Version | HttpRefusal::UpgradeLost => "close, Upgrade",
        _ => "close",
    };
    let response = format!(
        "HTTP/1.1 {status}\r\n{extra}Content-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\n\
         Connection: {connection}\r\n\r\n{body}\n",
        body.len() + 1
    );
    out.extend_from_slice(response.as_bytes());
}

/// The challenge and the sentence of a 401 (RFC 6750 §3). The token itself is in none of them.
fn unauthorized(why: Unauthorized) -> (String, Cow<'static, str>) {
    let challenge = |error: &str| format!("WWW-Authenticate: Bearer error=\"{error}\"\r\n");
    match why {
        Unauthorized::Missing => (
            "WWW-Authenticate: Bearer\r\n".into(),
            "a token is needed: send it as ?token=, as Authorization: Bearer, or as the subprotocol bearer.TOKEN beside \
             fanfare.v1"
                .into(),
        ),
        Unauthorized::Several => {
            (challenge("invalid_request"), "the request has several tokens that differ: send one".into())
        }
        Unauthorized::Invalid(what) => (challenge("invalid_token"), format!("the token is not valid: {what}").into()),
    }
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

fn has_field(request: &httparse::Request<'_, '_>, name: &str) -> bool {
    request.headers.iter().any(|header| header.name.eq_ignore_ascii_case(name))
}

/// Whether it says `Upgrade: websocket` in a way that counts: on HTTP/1.0, and where `Connection` does not name the field,
/// a recipient has to pass over it (RFC 9110 §7.6.1, §7.8). Where no key shows that a WebSocket handshake was meant and
/// broken on its way, the field alone counts, so that what is missing can be told.
fn asks_for_upgrade(request: &httparse::Request<'_, '_>) -> bool {
    let names = |field, token: &str| header_tokens(request, field).any(|found| found.eq_ignore_ascii_case(token));
    let counts = request.version == Some(1) && names("connection", "upgrade");
    names("upgrade", "websocket") && (counts || !has_field(request, "sec-websocket-key"))
}

/// RFC 9112 §3.2: one host, and on HTTP/1.1 no less than one.
fn check_host(request: &httparse::Request<'_, '_>) -> Result<(), HttpRefusal> {
    let mut hosts = request.headers.iter().filter(|header| header.name.eq_ignore_ascii_case("host"));
    match (hosts.next(), hosts.next()) {
        (None, _) if request.version == Some(1) => Err(HttpRefusal::Bad("the Host header is missing")),
        (Some(_), Some(_)) => Err(HttpRefusal::Bad("the request has more than one Host header")),
        (Some(host), None) if !host.value.iter().all(is_of_authority) => {
            Err(HttpRefusal::Bad("the Host header is no host and port"))
        }
        (None | Some(_), None) | (None, Some(_)) => Ok(()),
    }
}

/// A request begins with its method, or with empty lines in front of it (RFC 9112 §2.2, §3).
fn check_first_byte(byte: u8) -> Result<(), HttpRefusal> {
    match byte {
        TLS_HANDSHAKE => Err(HttpRefusal::Bad(
            "this port does not speak TLS: connect with ws:// or http://, or put a proxy that ends TLS in front",
        )),
        b'\r' | b'\n' => Ok(()),
        byte if byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte) => Ok(()),
        _ => Err(HttpRefusal::Bad("this is not HTTP: HTTP/1.1 and WebSocket are spoken here")),
    }
}

/// RFC 6455 §4.2.1, point by point; the answer to the client's key.
fn check_upgrade(request: &httparse::Request<'_, '_>) -> Result<String, HttpRefusal> {
    if request.method != Some("GET") || request.version != Some(1) {
        return Err(HttpRefusal::Bad("a WebSocket handshake is an HTTP/1.1 GET"));
    }
    if !header_tokens(request, "connection").any(|token| token.eq_ignore_ascii_case("upgrade")) {
        return Err(HttpRefusal::Bad("the Connection header does not say Upgrade"));
    }
    if has_field(request, "transfer-encoding") || header_tokens(request, "content-length").any(|length| length != "0") {
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

    #[test]
    fn the_rfcs_own_example() {
        let Ok(Head::Upgrade(upgrade)) = parse_head(request("/", "").as_bytes(), LIMITS) else { panic!() };
        assert_eq!(upgrade.accept, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        let mut out = Vec::new();
        write_upgrade(&mut out, &upgrade, None);
        assert!(out.starts_with(b"HTTP/1.1 101 ") && out.ends_with(b"\r\n\r\n"));
        assert!(!String::from_utf8(out).unwrap().contains("Protocol:"));
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
        for field in ["Upgrade", "Connection"] {
            assert_eq!(without(field), Err(HttpRefusal::UpgradeLost), "{field}");
        }
        for field in ["Host", "Sec-WebSocket-Key"] {
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

    /// A proxy that does not know of WebSocket passes the key on, and neither the upgrade nor, as nginx does by itself,
    /// the version of HTTP.
    #[test]
    fn a_handshake_without_its_upgrade_is_told_so_wherever_it_was_sent() {
        let refused = |head: &str| parse_head(head.as_bytes(), LIMITS);
        let good = request("/", "");
        for target in ["/", "/ws", "/raw/x", "/raw/a/b", "/nowhere", "http://x/ws"] {
            let without = request(target, "").replace("Upgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n", "");
            assert_eq!(refused(&without), Err(HttpRefusal::UpgradeLost), "{target}");
        }
        for (from, to) in [
            ("Upgrade: websocket", "Upgrade: h2c"),
            ("keep-alive, Upgrade", "close"),
            ("HTTP/1.1", "HTTP/1.0"),
            ("keep-alive, Upgrade\r\n", "keep-alive\r\nSec-WebSocket-Key: \r\n"),
        ] {
            assert_eq!(refused(&good.replace(from, to)), Err(HttpRefusal::UpgradeLost), "{to}");
        }
    }

    #[test]
    fn a_request_has_one_host() {
        let plain = |fields: &str| parse_head(format!("GET / HTTP/1.1\r\n{fields}\r\n").as_bytes(), LIMITS);
        for good in ["Host:\r\n", "host: x:80\r\n", "Host: [::1]:8080\r\n", "HOST: a_b.example\r\n"] {
            assert_eq!(plain(good), Ok(Head::Http), "{good}");
        }
        for bad in
            ["", "Host: x\r\nHost: x\r\n", "Host: x\r\nhost: y\r\n", "Host: x, y\r\n", "Host: x/\r\n", "Host: a@x\r\n"]
        {
            assert!(matches!(plain(bad), Err(HttpRefusal::Bad(_))), "{bad}");
            let upgrade = request("/", "").replace("Host: x\r\n", bad);
            assert!(matches!(parse_head(upgrade.as_bytes(), LIMITS), Err(HttpRefusal::Bad(_))), "{bad}");
        }
        // A balancer's check; HTTP/1.0 knows no hosts.
        assert_eq!(parse_head(b"OPTIONS / HTTP/1.0\r\n\r\n", LIMITS), Ok(Head::Http));
        assert_eq!(parse_head(b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n", LIMITS), Ok(Head::Http));
    }

    /// Once it was waited for an end that could not come, and once what stood between two ends was passed over (found by
    /// fuzzing).
    #[test]
    fn what_cannot_become_a_head_is_refused_with_the_byte_that_shows_it() {
        for (bytes, shows_at) in [
            (&b"\x16\x03\x01\x02\x00\x01"[..], 1),
            (b"\x80\x2e\x01", 1),
            (b"\x81\x85", 1),
            (b"\0", 1),
            (b" GET / HTTP/1.1\r\n", 1),
            (b"\nGET / HTTP/1.1\r\n", 1),
            (b"GET / HTTP/1.1\nHost: x\n\n", 15),
            (b"GET / HTTP/1.1\r\nHost: x\n\r\n", 24),
            (b"GET / HTTP/1.1\r\n\n", 17),
        ] {
            let mut reader = HeadReader::default();
            let mut pushed = bytes.iter().map(|byte| reader.push(&[*byte], LIMITS));
            let refused_at = pushed.position(|pushed| matches!(pushed, Err(HttpRefusal::Bad(_)))).map(|at| at + 1);
            assert_eq!(refused_at, Some(shows_at), "{}", bytes.escape_ascii());
            assert!(matches!(HeadReader::default().push(bytes, LIMITS), Err(HttpRefusal::Bad(_))));
        }
        let mut first = HeadReader::default();
        assert_eq!(first.push(b"\r\nGET / HTTP/1.1\r\n", LIMITS), Ok(None), "an empty line may stand in front");
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
    fn a_token_is_found_wherever_it_may_stand() {
        let shown = |target: &str, extra: &str| {
            let head = request(target, extra);
            let parsed = parse_head_named(head.as_bytes(), LIMITS, Naming::Token);
            let Ok(Head::Upgrade(upgrade)) = parsed else { panic!("{target} {extra}: {parsed:?}") };
            upgrade.credentials.unwrap().token
        };
        let token = |token: &str| Presented::Token(token.to_owned());
        for (target, extra, expected) in [
            ("/", "", Presented::Nothing),
            ("/?token=a.b", "", token("a.b")),
            ("/ws?x&token=a%2Eb", "", token("a.b")),
            ("/raw/r?echo=1&token=a", "", token("a")),
            ("/?token=", "", token("")),
            ("/?token=%zz", "", token("%zz")),
            ("/", "Authorization: Bearer a.b\r\n", token("a.b")),
            ("/", "authorization: bearer  a.b \r\n", token("a.b")),
            ("/", "Authorization: Bearer\r\n", token("")),
            ("/", "Authorization: Basic YTpi\r\n", Presented::Nothing),
            ("/", "Sec-WebSocket-Protocol: fanfare.v1, bearer.a.b\r\n", token("a.b")),
            ("/?token=a", "Authorization: Bearer a\r\nSec-WebSocket-Protocol: bearer.a\r\n", token("a")),
            ("/?token=a", "Authorization: Bearer b\r\n", Presented::Several),
            ("/?token=a&token=b", "", Presented::Several),
            ("/", "Authorization: Bearer a\r\nAuthorization: Bearer b\r\n", Presented::Several),
            ("/", "Sec-WebSocket-Protocol: bearer.a, bearer.b, bearer.a\r\n", Presented::Several),
        ] {
            assert!(shown(target, extra) == expected, "{target} {extra}");
        }
        assert!(matches!(
            parse_head(request("/?token=a", "").as_bytes(), LIMITS),
            Ok(Head::Upgrade(Upgrade { credentials: None, .. }))
        ));
    }

    #[test]
    fn what_names_itself_by_credentials_has_no_user_by_its_own_word() {
        for target in ["/?userId=alice", "/?userId=", "/ws?userId=%FF"] {
            let head = request(target, "Origin: https://a.example\r\n");
            let Ok(Head::Upgrade(upgrade)) = parse_head_named(head.as_bytes(), LIMITS, Naming::Token) else {
                panic!("{target}")
            };
            assert_eq!(upgrade.target, Target::Json { user: None });
            let credentials = upgrade.credentials.unwrap();
            assert_eq!((credentials.origin.as_deref(), &*credentials.host), (Some("https://a.example"), "x"));
        }
        let two = request("/", "Origin: https://a.example\r\nOrigin: https://b.example\r\n");
        let Ok(Head::Upgrade(upgrade)) = parse_head_named(two.as_bytes(), LIMITS, Naming::Token) else { panic!() };
        assert_eq!(upgrade.credentials.unwrap().origin.as_deref(), Some("https://a.example,https://b.example"));
    }

    #[test]
    fn a_token_never_shows() {
        let head = request("/?token=secret", "");
        let upgrade = parse_head_named(head.as_bytes(), LIMITS, Naming::Token);
        assert!(!format!("{upgrade:?}").contains("secret"));
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
            HttpRefusal::Unauthorized(Unauthorized::Missing),
            HttpRefusal::Unauthorized(Unauthorized::Several),
            HttpRefusal::Unauthorized(Unauthorized::Invalid("x")),
            HttpRefusal::Forbidden("x"),
            HttpRefusal::NotFound,
            HttpRefusal::Timeout,
            HttpRefusal::Version,
            HttpRefusal::UpgradeLost,
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
