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

/// What the preface of HTTP/2 begins with, in the form of a request head (RFC 9113 §3.4).
const HTTP_2: &[u8] = b"PRI * HTTP/2.0\r\n\r\n";

/// Whether a request begins as HTTP/2 does; `bytes` has its whole head.
pub fn is_http_2(bytes: &[u8]) -> bool {
    bytes.starts_with(HTTP_2)
}

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

impl Upgrade {
    /// Bytes that it holds of its request, but for its credentials.
    pub fn held_bytes(&self) -> usize {
        self.accept.capacity() + self.target.held_bytes()
    }
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
    /// The fields that were to be passed on, in their order.
    pub forwarded: Forwarded,
}

/// Header fields that are passed on as they came, each with its name. They may hold secrets, and are never shown.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Forwarded(pub Vec<(String, Vec<u8>)>);

impl Forwarded {
    /// Bytes of the fields, and of their list.
    pub fn held_bytes(&self) -> usize {
        let texts: usize = self.0.iter().map(|(name, value)| name.capacity() + value.capacity()).sum();
        texts + self.0.capacity() * size_of::<(String, Vec<u8>)>()
    }
}

impl fmt::Debug for Forwarded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Forwarded({})", self.0.len())
    }
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
    /// 404: there is none at any path of this address, which serves the operator's pages.
    PagesOnly,
    /// 408: the head did not arrive within `limits.handshake_timeout`.
    Timeout,
    /// 426: a WebSocket version other than 13 (RFC 6455 §4.4).
    Version,
    /// 426: a WebSocket handshake whose upgrade was lost on its way (RFC 9110 §7.8).
    UpgradeLost,
    /// 429: its address has all that one may have (RFC 6585 §4).
    TooMany {
        /// Seconds after which a client may try again.
        retry_after_s: u32,
    },
    /// 431: the head is over `limits.head_bytes_max`.
    HeadTooLarge,
    /// 431: the head has more than `limits.headers_max` fields.
    TooManyHeaders,
    /// 503: whoever decides who gets in does not answer.
    Undecided {
        /// Seconds after which a client may try again.
        retry_after_s: u32,
    },
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
    /// Whoever decides who gets in does not know it.
    Unknown,
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
    parse_head_by(head, limits, &HeadRules { naming, forward: &[], echo: &[] })
}

/// How a node reads request heads.
pub struct HeadRules<'r> {
    /// What is to say whose a request is.
    pub naming: Naming,
    /// The names of fields that are passed on with the credentials, in lower case.
    pub forward: &'r [String],
    /// Paths, as they are sent, whose connections get back what they send, whatever else the paths might mean.
    pub echo: &'r [Box<str>],
}

/// As [`parse_head`], by these rules.
///
/// # Errors
/// The [`HttpRefusal`] to answer with.
pub fn parse_head_by(head: &[u8], limits: HeadLimits, rules: &HeadRules<'_>) -> Result<Head, HttpRefusal> {
    let HeadRules { naming, forward, echo } = *rules;
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
    let target = match echo.iter().any(|known| **known == *path) {
        true => Target::Echo,
        false => Target::parse(path, query, naming)?,
    };
    let accept = check_upgrade(&request)?;
    let subprotocol = header_tokens(&request, "sec-websocket-protocol").any(|token| token == SUBPROTOCOL);
    let offer = Offer::first_acceptable(header_values(&request, "sec-websocket-extensions"));
    let credentials = match naming {
        Naming::OwnWord => None,
        Naming::OwnWordAndOrigin | Naming::Token => Some(Box::new(credentials(&request, query, forward))),
    };
    Ok(Head::Upgrade(Upgrade { accept, target, subprotocol, offer, credentials }))
}

/// What a request shows. A field that is no UTF-8 counts as well: what is in its place is no token and no origin.
fn credentials(request: &httparse::Request<'_, '_>, query: &str, forward: &[String]) -> Credentials {
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
        if let Some(name) = forward.iter().find(|forward| name.eq_ignore_ascii_case(forward)) {
            found.forwarded.0.push((name.clone(), header.value.to_vec()));
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
        HttpRefusal::PagesOnly => {
            let body = "this address serves the operator's pages only: connect to one of listen";
            ("404 Not Found", String::new(), body.into())
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
        HttpRefusal::TooMany { retry_after_s } => (
            "429 Too Many Requests",
            format!("Retry-After: {retry_after_s}\r\n"),
            "too many connections or requests come from this address: try again later".into(),
        ),
        HttpRefusal::HeadTooLarge => {
            ("431 Request Header Fields Too Large", String::new(), "the request head is too large".into())
        }
        HttpRefusal::TooManyHeaders => {
            ("431 Request Header Fields Too Large", String::new(), "the request has too many header fields".into())
        }
        HttpRefusal::Undecided { retry_after_s } => (
            "503 Service Unavailable",
            format!("Retry-After: {retry_after_s}\r\n"),
            "it cannot be found out now who may connect: try again later".into(),
        ),
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
        Unauthorized::Unknown => {
            ("WWW-Authenticate: Bearer\r\n".into(), "the service that decides who may connect does not know you".into())
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
mod tests;
