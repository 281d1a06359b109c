//! What a request is for: its target, in the forms of RFC 9112 §3.2.

use std::borrow::Cow;

use super::handshake::{HttpRefusal, Naming};
use crate::limits::{ROOM_ID_BYTES_MAX, USER_ID_BYTES_MAX};

/// The schemes of the absolute form. Which of them a client or a proxy writes makes no difference here.
const SCHEMES: [&str; 4] = ["http", "https", "ws", "wss"];

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
        /// What it wants, where the room is keyed.
        options: ItemOptions,
    },
    /// Every message comes back, and nothing else does.
    Echo,
}

/// What a request says of the items that it wants. Only a keyed room makes sense of it.
#[derive(Debug, Default, PartialEq, Eq)]
pub enum ItemOptions {
    /// Nothing.
    #[default]
    None,
    /// What is said with each word, decoded.
    Said(Box<ItemWords>),
    /// One of them is badly encoded, or no UTF-8.
    Malformed,
}

/// The values of the words, each the first of its name.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct ItemWords {
    /// `mode`.
    pub mode: Option<String>,
    /// `interval`.
    pub interval: Option<String>,
    /// `items`.
    pub items: Option<String>,
    /// `since`.
    pub since: Option<String>,
}

impl ItemOptions {
    fn parse(query: &str) -> ItemOptions {
        let word = |name| query_value(query, name).map(|raw| decode(raw).ok_or(())).transpose();
        let words = || {
            let (mode, interval) = (word("mode")?, word("interval")?);
            Ok(ItemWords { mode, interval, items: word("items")?, since: word("since")? })
        };
        match words() {
            Ok(words) if words == ItemWords::default() => ItemOptions::None,
            Ok(words) => ItemOptions::Said(Box::new(words)),
            Err(()) => ItemOptions::Malformed,
        }
    }

    fn held_bytes(&self) -> usize {
        match self {
            ItemOptions::None | ItemOptions::Malformed => 0,
            ItemOptions::Said(words) => {
                let ItemWords { mode, interval, items, since } = &**words;
                let texts = [mode, interval, items, since].into_iter().flatten();
                size_of::<ItemWords>() + texts.map(String::capacity).sum::<usize>()
            }
        }
    }
}

impl Target {
    /// Bytes that what it names takes.
    pub(super) fn held_bytes(&self) -> usize {
        match self {
            Target::Json { user } => user.as_ref().map_or(0, String::capacity),
            Target::Raw { room, echo: _, options } => room.capacity() + options.held_bytes(),
            Target::Echo => 0,
        }
    }

    /// What [`path_and_query`] has found, as an endpoint.
    pub(super) fn parse(path: &str, query: &str, naming: Naming) -> Result<Target, HttpRefusal> {
        let user = match query_value(query, "userId").filter(|_| naming != Naming::Token) {
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
                let (echo, options) = (query_value(query, "echo") == Some("1"), ItemOptions::parse(query));
                Ok(Target::Raw { room, echo, options })
            }
            _ => Err(HttpRefusal::NotFound),
        }
    }
}

/// The path and the query of a request's target. Of the absolute form nothing else counts (RFC 9112 §3.2.2); `*` is a
/// path of its own (§3.2.4).
pub(super) fn path_and_query(target: &str) -> Result<(&str, &str), HttpRefusal> {
    let (before_query, query) = target.split_once('?').unwrap_or((target, ""));
    if before_query.starts_with('/') || target == "*" {
        return Ok((before_query, query));
    }
    let absolute = before_query.split_once("://");
    let absolute = absolute.filter(|(scheme, _)| SCHEMES.iter().any(|known| scheme.eq_ignore_ascii_case(known)));
    let Some((_, rest)) = absolute else {
        return Err(HttpRefusal::Bad("the request's target is no path and no URL of this server"));
    };
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    // RFC 9110 §4.2.1, §4.2.4: a host has to be there, and a user's name may not be.
    if authority.is_empty() || !authority.bytes().all(|byte| is_of_authority(&byte)) {
        return Err(HttpRefusal::Bad("the URL in the request's target has no host, or more than a host and port"));
    }
    Ok((if path.is_empty() { "/" } else { path }, query))
}

/// Whether a host and a port may have this byte (RFC 3986 §3.2.2, §3.2.3).
pub(super) fn is_of_authority(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=:[]".contains(byte)
}

/// The first value of a query parameter, still encoded.
fn query_value<'q>(query: &'q str, name: &str) -> Option<&'q str> {
    query.split('&').find_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (key == name).then_some(value)
    })
}

/// The tokens in a query, decoded. What is badly encoded stays as it is, and is no token.
pub(super) fn query_tokens(query: &str) -> impl Iterator<Item = Cow<'_, str>> {
    let tokens = query.split('&').filter_map(|pair| match pair.split_once('=').unwrap_or((pair, "")) {
        ("token", raw) => Some(raw),
        (_, _) => None,
    });
    tokens.map(|raw| decode_id(raw, raw.len()).map_or(Cow::Borrowed(raw), Cow::Owned))
}

/// An id, percent-decoded. `None` where it is empty, too long, badly encoded or no UTF-8.
fn decode_id(raw: &str, bytes_max: usize) -> Option<String> {
    decode(raw).filter(|id| !id.is_empty() && id.len() <= bytes_max)
}

/// Percent-decodes (RFC 3986 §2.1; `+` is a plus). `None` where it is badly encoded or no UTF-8.
fn decode(raw: &str) -> Option<String> {
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
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(text: &str) -> Result<Target, HttpRefusal> {
        path_and_query(text).and_then(|(path, query)| Target::parse(path, query, Naming::OwnWord))
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

    fn raw(room: &str, echo: bool, options: ItemOptions) -> Result<Target, HttpRefusal> {
        Ok(Target::Raw { room: room.to_owned(), echo, options })
    }

    #[test]
    fn raw_rooms_are_one_segment() {
        assert_eq!(target("/raw/r%2Fx?echo=1"), raw("r/x", true, ItemOptions::None));
        assert_eq!(target("/raw/r?userId=a&echo=0"), raw("r", false, ItemOptions::None));
        assert_eq!(target("/raw/a/b"), Err(HttpRefusal::NotFound));
        assert!(matches!(target("/raw/"), Err(HttpRefusal::Bad(_))));
        assert_eq!(target("/other"), Err(HttpRefusal::NotFound));
    }

    #[test]
    fn what_is_wanted_of_items_is_decoded() {
        let said = |words| ItemOptions::Said(Box::new(words));
        let text = |text: &str| Some(text.to_owned());
        let query = "/raw/r?mode=latest&items=a%2Cb,fx.*&items=c&since=E%3A7&interval=";
        let words = ItemWords { mode: text("latest"), interval: text(""), items: text("a,b,fx.*"), since: text("E:7") };
        assert_eq!(target(query), raw("r", false, said(words)));
        assert_eq!(
            target("/raw/r?items"),
            raw("r", false, said(ItemWords { items: text(""), ..ItemWords::default() }))
        );
        for bad in ["mode=%", "items=a,%FF", "since=%zz", "interval=1&mode=%C3"] {
            assert_eq!(target(&format!("/raw/r?{bad}")), raw("r", false, ItemOptions::Malformed), "{bad}");
        }
    }

    /// Found by fuzzing: a slash in the query was taken for the beginning of the path.
    #[test]
    fn the_absolute_form_names_the_same() {
        let user = || Ok(Target::Json { user: Some("a/ws".into()) });
        for scheme in ["http", "https", "ws", "wss", "HTTP", "Wss"] {
            let target = |rest: &str| target(&format!("{scheme}://{rest}"));
            assert_eq!(target("x:80"), Ok(Target::Json { user: None }));
            assert_eq!(target("[::1]:8080/"), Ok(Target::Json { user: None }));
            assert_eq!(target("x/ws?userId=a/ws"), user());
            assert_eq!(target("x?userId=a/ws"), user());
            assert_eq!(target("x/raw/r"), raw("r", false, ItemOptions::None));
            assert_eq!(target("x/ws/y"), Err(HttpRefusal::NotFound));
            for bad in ["", "/ws", ":secret@x/ws", "a@x/ws", "x y/ws", "x#/ws"] {
                assert!(matches!(target(bad), Err(HttpRefusal::Bad(_))), "{scheme}://{bad}");
            }
        }
    }

    #[test]
    fn other_forms_are_no_endpoints() {
        assert_eq!(path_and_query("*"), Ok(("*", "")));
        assert_eq!(target("*"), Err(HttpRefusal::NotFound));
        for bad in ["", "ws", "x:443", "ftp://x/ws", "://x/ws", "*?x", "http:/ws", "?userId=a"] {
            assert!(matches!(target(bad), Err(HttpRefusal::Bad(_))), "{bad}");
        }
    }
}
