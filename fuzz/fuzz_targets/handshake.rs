//! Any bytes as a client's request, in any pieces.
//!
//! `HeadReader` must find the end of the head in the very piece that brings it, or refuse in the very piece that fills
//! the limit or shows that this is no head, and hand back every byte that came. Until then it holds what came and no more than the limit.
//!
//! `parse_head` must call a head an upgrade, and a lost one, exactly where a second reader does: one that goes line by line through
//! RFC 9112 §2–5 and RFC 6455 §4.2.1 and knows nothing of the first. Both must read the same out of it. Every answer,
//! upgrade or refusal, is one well-formed HTTP response.
//!
//! Input: the choice of limits, then [`fanfare_seeds::pieces`].

#![no_main]

use fanfare::compress::{Offer, WindowBits};
use fanfare::conn::{
    Head, HeadLimits, HeadReader, HttpRefusal, ItemOptions, ItemWords, Target, Upgrade, parse_head, write_refusal,
    write_upgrade,
};
use fanfare::limits::{ROOM_ID_BYTES_MAX, USER_ID_BYTES_MAX};
use fanfare_fuzz::memory::Watch;
use fanfare_seeds::pieces;
use libfuzzer_sys::{Corpus, fuzz_target};
use tungstenite::handshake::derive_accept_key;

/// What the bounds of a head are chosen from.
const LIMITS: [HeadLimits; 4] = [
    HeadLimits { bytes_max: 1_500, headers_max: 64 },
    HeadLimits { bytes_max: 200, headers_max: 64 },
    HeadLimits { bytes_max: 1_500, headers_max: 5 },
    HeadLimits { bytes_max: 1_500, headers_max: 100 },
];

fuzz_target!(|input: &[u8]| -> Corpus {
    let Some((&choice, input)) = input.split_first() else { return Corpus::Reject };
    let (sizes, bytes) = pieces::read(input);
    let limits = LIMITS[usize::from(choice) % LIMITS.len()];
    let head_end = head_end(bytes, limits);
    for ends in [pieces::ends(sizes, bytes.len()), pieces::ends(&[], bytes.len())] {
        check_reader(bytes, &ends, head_end, limits);
    }
    if let End::At(end) = head_end {
        check_head(&bytes[..end], limits);
    }
    Corpus::Keep
});

/// What a request's first bytes amount to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// The head ends here.
    At(usize),
    /// So many bytes show that it is too large.
    TooLarge(usize),
    /// So many bytes show that it is none.
    Malformed(usize),
    /// It goes on.
    Open,
}

fn head_end(bytes: &[u8], limits: HeadLimits) -> End {
    let first = bytes.first().is_some_and(|first| !b"\r\n".contains(first) && !is_token(&[*first]));
    let bare = bytes.iter().enumerate().find(|(at, byte)| **byte == b'\n' && (*at == 0 || bytes[at - 1] != b'\r'));
    let malformed = first.then_some(1).or(bare.map(|(at, _)| at + 1));
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n").map(|at| at + 4);
    match (end, malformed) {
        (end, Some(at)) if at <= limits.bytes_max && end.is_none_or(|end| at < end) => End::Malformed(at),
        (Some(end), _) if end <= limits.bytes_max => End::At(end),
        _ if bytes.len() >= limits.bytes_max => End::TooLarge(limits.bytes_max),
        _ => End::Open,
    }
}

fn check_reader(bytes: &[u8], ends: &[usize], head_end: End, limits: HeadLimits) {
    let watch = Watch::start();
    let mut reader = HeadReader::default();
    let mut from = 0;
    for &end in ends {
        let found = reader.push(&bytes[from..end], limits);
        match (head_end, &found) {
            (End::At(at), Ok(Some((all, found)))) if end >= at => {
                assert_eq!((&all[..], *found), (&bytes[..end], at), "what came, and the end of the head in it");
                assert_eq!(reader.held_bytes(), 0, "everything was handed over");
                return;
            }
            (End::TooLarge(at), Err(HttpRefusal::HeadTooLarge)) if end >= at => return,
            (End::Malformed(at), Err(HttpRefusal::Bad(_))) if end >= at => return,
            (End::At(at) | End::TooLarge(at) | End::Malformed(at), Ok(None)) if end < at => {}
            (End::Open, Ok(None)) => {}
            _ => panic!("{head_end:?} of pieces up to {ends:?}, and behind {end} bytes there is {found:?}"),
        }
        from = end;
        assert_eq!(reader.held_bytes(), end, "everything that came is held");
        let live_bytes = watch.live_bytes();
        // A buffer that grows has up to twice the room that it needs.
        assert!(live_bytes <= 2 * end.max(8) && end < limits.bytes_max, "{live_bytes} bytes are held for {end}");
    }
}

fn check_head(head: &[u8], limits: HeadLimits) {
    let found = parse_head(head, limits);
    let mut answer = Vec::new();
    match &found {
        Ok(Head::Upgrade(upgrade)) => {
            write_upgrade(&mut answer, upgrade, upgrade.offer.map(|offer| offer.agree(WindowBits::MAX)))
        }
        Ok(Head::Http) => {}
        Err(refusal) => write_refusal(&mut answer, *refusal),
    }
    check_response(&answer, &found);
    let request = Request::read(head, limits);
    let expected = request.as_ref().and_then(Request::upgrade);
    let is_lost = request.as_ref().is_some_and(Request::has_lost_its_upgrade);
    assert_eq!(found == Err(HttpRefusal::UpgradeLost), is_lost, "{:?}", String::from_utf8_lossy(head));
    let is_plain = request.is_some_and(|request| request.is_plain());
    assert_eq!(found == Ok(Head::Http), is_plain, "{:?}", String::from_utf8_lossy(head));
    let found = match found {
        Ok(Head::Upgrade(upgrade)) => Some(upgrade),
        Ok(Head::Http) | Err(_) => None,
    };
    assert_eq!(found, expected, "{:?}", String::from_utf8_lossy(head));
}

/// One response that a client can read, with the status that belongs to the outcome.
fn check_response(answer: &[u8], outcome: &Result<Head, HttpRefusal>) {
    let status = match outcome {
        Ok(Head::Http) => return assert!(answer.is_empty()),
        Ok(Head::Upgrade(_)) => 101,
        Err(HttpRefusal::Bad(_)) => 400,
        Err(HttpRefusal::NotFound) => 404,
        Err(HttpRefusal::Version | HttpRefusal::UpgradeLost) => 426,
        Err(HttpRefusal::HeadTooLarge | HttpRefusal::TooManyHeaders) => 431,
        Err(
            HttpRefusal::Unauthorized(_)
            | HttpRefusal::Forbidden(_)
            | HttpRefusal::PagesOnly
            | HttpRefusal::Timeout
            | HttpRefusal::TooMany { .. }
            | HttpRefusal::Undecided { .. }
            | HttpRefusal::AtCapacity { .. },
        ) => panic!("{outcome:?} is not about the form of the head"),
    };
    let mut headers = [httparse::EMPTY_HEADER; 8];
    let mut response = httparse::Response::new(&mut headers);
    let Ok(httparse::Status::Complete(head_bytes)) = response.parse(answer) else { panic!("no response: {answer:?}") };
    let header = |name| response.headers.iter().find(|header| header.name == name).map(|header| header.value);
    let length = header("Content-Length").map(|value| String::from_utf8_lossy(value).parse().expect("a length"));
    assert_eq!((response.code, length.unwrap_or(0)), (Some(status), answer.len() - head_bytes));
}

/// A request head, read line by line.
struct Request<'a> {
    method: &'a str,
    target: &'a str,
    version: &'a str,
    headers: Vec<(String, &'a [u8])>,
}

impl<'a> Request<'a> {
    /// None where the head is not what RFC 9112 allows, has not one host (§3.2), or a target of which nothing is known.
    /// Empty lines in front of the first are allowed (§2.2).
    fn read(head: &'a [u8], limits: HeadLimits) -> Option<Request<'a>> {
        let lines = head.strip_suffix(b"\r\n")?.split(|&byte| byte == b'\n');
        let mut lines = lines.map(|line| line.strip_suffix(b"\r").unwrap_or(line)).skip_while(|line| line.is_empty());
        let mut words = str::from_utf8(lines.next()?).ok()?.split(' ');
        let (method, target, version) = (words.next()?, words.next()?, words.next()?);
        let is_target = !target.is_empty() && !target.bytes().any(|byte| byte < b'!' || byte == 0x7F);
        if words.next().is_some() || !is_token(method.as_bytes()) || !is_target {
            return None;
        }
        let mut headers = Vec::new();
        // The head ends with its first empty line: nothing may be left.
        let fields = lines.by_ref().take_while(|line| !line.is_empty());
        for line in fields {
            let (name, value) = line.split_at(line.iter().position(|&byte| byte == b':')?);
            let value = without_space(&value[1..]);
            let is_value = value.iter().all(|&byte| byte == b'\t' || byte >= b' ' && byte != 0x7F);
            if !is_token(name) || !is_value {
                return None;
            }
            headers.push((str::from_utf8(name).ok()?.to_ascii_lowercase(), value));
        }
        let is_whole = lines.next().is_none();
        let request = Request { method, target, version, headers };
        let is_known = ["HTTP/1.0", "HTTP/1.1"].contains(&version) && request.has_its_host();
        let is_small = request.headers.len() <= limits.headers_max;
        (is_whole && is_known && is_small && request.path_and_query().is_some()).then_some(request)
    }

    fn has_its_host(&self) -> bool {
        let hosts: Vec<_> = self.headers.iter().filter(|(name, _)| name == "host").collect();
        match hosts[..] {
            [] => self.version == "HTTP/1.0",
            [(_, host)] => is_authority(host),
            _ => false,
        }
    }

    fn has(&self, name: &str) -> bool {
        self.headers.iter().any(|(known, _)| known == name)
    }

    fn names(&self, name: &str, wanted: &str) -> bool {
        self.list(name).iter().any(|token| token.eq_ignore_ascii_case(wanted))
    }

    /// Whether a WebSocket handshake was meant, of which a proxy has taken away what makes it one (RFC 9110 §7.8).
    fn has_lost_its_upgrade(&self) -> bool {
        let is_whole =
            self.version == "HTTP/1.1" && self.names("upgrade", "websocket") && self.names("connection", "upgrade");
        self.has("sec-websocket-key") && !is_whole
    }

    fn is_plain(&self) -> bool {
        !self.has("sec-websocket-key") && !self.names("upgrade", "websocket")
    }

    /// None where RFC 6455 §4.2.1 does not allow it, or there is no endpoint for it.
    fn upgrade(&self) -> Option<Upgrade> {
        let is_upgrade = self.method == "GET"
            && self.version == "HTTP/1.1"
            && self.names("upgrade", "websocket")
            && self.names("connection", "upgrade")
            && self.list("sec-websocket-version") == ["13"]
            && !self.has("transfer-encoding")
            && self.list("content-length").iter().all(|length| *length == "0");
        let [key] = self.list("sec-websocket-key")[..] else { return None };
        // 16 bytes in base64 are 22 digits and two that fill up.
        let is_digit = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'+' || byte == b'/';
        let is_key = key.strip_suffix("==").is_some_and(|digits| digits.len() == 22 && digits.bytes().all(is_digit));
        if !is_upgrade || !is_key {
            return None;
        }
        let subprotocol = self.list("sec-websocket-protocol").contains(&"fanfare.v1");
        // What is offered is the target `offers`' business.
        let fields = self.headers.iter().filter(|(known, _)| known == "sec-websocket-extensions");
        let offer = Offer::first_acceptable(fields.filter_map(|(_, value)| str::from_utf8(value).ok()));
        Some(Upgrade {
            accept: derive_accept_key(key.as_bytes()),
            target: self.target()?,
            subprotocol,
            offer,
            credentials: None,
        })
    }

    /// The elements of a list in all fields of this name (RFC 9110 §5.6.1).
    fn list(&self, name: &str) -> Vec<&'a str> {
        let fields = self.headers.iter().filter(|(known, _)| known == name);
        let texts = fields.filter_map(|(_, value)| str::from_utf8(value).ok());
        texts.flat_map(|text| text.split(',').map(|element| element.trim_matches([' ', '\t']))).collect()
    }

    /// A path with its query, as it is or behind a scheme and an authority. The authority ends with a slash, a query or
    /// the whole (RFC 3986 §3.2), and is not looked at any further.
    fn path_and_query(&self) -> Option<(&'a str, &'a str)> {
        let target = self.target;
        if target == "*" || target.starts_with('/') {
            return Some(target.split_once('?').unwrap_or((target, "")));
        }
        let (scheme, rest) = target.split_once("://")?;
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let is_known = ["http", "https", "ws", "wss"].contains(&scheme.to_ascii_lowercase().as_str());
        if !is_known || end == 0 || !is_authority(&rest.as_bytes()[..end]) {
            return None;
        }
        let (path, query) = rest[end..].split_once('?').unwrap_or((&rest[end..], ""));
        Some((if path.is_empty() { "/" } else { path }, query))
    }

    fn target(&self) -> Option<Target> {
        let (path, query) = self.path_and_query()?;
        let pairs: Vec<(&str, &str)> =
            query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, ""))).collect();
        let first = |name: &str| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| *value);
        let user = match first("userId") {
            Some(user) => Some(decoded(user, USER_ID_BYTES_MAX)?),
            None => None,
        };
        match path {
            "/" | "/ws" => Some(Target::Json { user }),
            _ => {
                let room = path.strip_prefix("/raw/").filter(|room| !room.contains('/'))?;
                let room = decoded(room, ROOM_ID_BYTES_MAX)?;
                let word = |name: &str| first(name).map(percent_decoded);
                let [mode, interval, items, since] = ["mode", "interval", "items", "since"].map(word);
                let options = match [&mode, &interval, &items, &since] {
                    words if words.iter().any(|word| **word == Some(None)) => ItemOptions::Malformed,
                    words if words.iter().all(|word| word.is_none()) => ItemOptions::None,
                    _ => ItemOptions::Said(Box::new(ItemWords {
                        mode: mode.flatten(),
                        interval: interval.flatten(),
                        items: items.flatten(),
                        since: since.flatten(),
                    })),
                };
                Some(Target::Raw { room, echo: first("echo") == Some("1"), options })
            }
        }
    }
}

fn is_token(bytes: &[u8]) -> bool {
    let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    !bytes.is_empty() && bytes.iter().all(is_part)
}

/// A host and a port, as far as single bytes tell (RFC 3986 §3.2.2).
fn is_authority(bytes: &[u8]) -> bool {
    let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=%:[]".contains(byte);
    bytes.iter().all(is_part)
}

/// A field's value without the white space around it (RFC 9110 §5.6.3).
fn without_space(value: &[u8]) -> &[u8] {
    let is_space = |byte: &u8| matches!(byte, b' ' | b'\t');
    let start = value.iter().position(|byte| !is_space(byte)).unwrap_or(value.len());
    let end = value.iter().rposition(|byte| !is_space(byte)).map_or(start, |last| last + 1);
    &value[start..end]
}

/// An id without its percent signs.
fn decoded(id: &str, bytes_max: usize) -> Option<String> {
    percent_decoded(id).filter(|id| (1..=bytes_max).contains(&id.len()))
}

/// A text without its percent signs (RFC 3986 §2.1).
fn percent_decoded(text: &str) -> Option<String> {
    let mut parts = text.split('%');
    let mut bytes = parts.next()?.as_bytes().to_vec();
    for part in parts {
        let (digits, rest) = part.as_bytes().split_at_checked(2)?;
        let digits =
            str::from_utf8(digits).ok().filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()))?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        bytes.extend_from_slice(rest);
    }
    String::from_utf8(bytes).ok()
}
