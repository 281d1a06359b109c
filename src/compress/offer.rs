//! The extension's negotiation (RFC 7692 §5 and §7.1): what a client offers, and what is agreed on.

use std::num::NonZeroU8;

/// The extension's registered name (RFC 7692 §7).
const EXTENSION: &str = "permessage-deflate";

/// The base-2 logarithm of an LZ77 window's size, 9 to 15. RFC 7692 allows 8 as well, which zlib cannot write: it would
/// send what a window of 9 bits is needed for, so that 8 is declined rather than corrupted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct WindowBits(NonZeroU8);

impl WindowBits {
    /// 512 bytes.
    pub const MIN: WindowBits = WindowBits(NonZeroU8::new(9).unwrap());
    /// 32 KiB: what is used where nothing else is said.
    pub const MAX: WindowBits = WindowBits(NonZeroU8::new(15).unwrap());
    /// How many windows there are.
    pub const COUNT: usize = 7;

    /// A window of so many bits; `None` outside of 9 to 15.
    pub fn new(bits: u8) -> Option<WindowBits> {
        let bits = WindowBits(NonZeroU8::new(bits)?);
        (WindowBits::MIN..=WindowBits::MAX).contains(&bits).then_some(bits)
    }

    /// The number of bits.
    pub fn bits(self) -> u8 {
        self.0.get()
    }

    /// Its size in bytes.
    pub fn window_bytes(self) -> usize {
        1 << self.0.get()
    }

    /// Its place among all windows, from the smallest.
    pub fn index(self) -> usize {
        usize::from(self.0.get() - WindowBits::MIN.0.get())
    }
}

/// One acceptable offer of a client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offer {
    /// The client asks that its own context is not taken over, or tells that it will not.
    client_no_context_takeover: bool,
    /// The largest window the client wants to be sent.
    server_bits: Option<WindowBits>,
    /// Whether the client would keep to a window it is told, and the largest it uses otherwise.
    client_bits: Option<WindowBits>,
}

/// What both sides keep to: four bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Agreement {
    /// The window of what the server sends.
    pub server_bits: WindowBits,
    /// The window of what the client sends.
    pub client_bits: WindowBits,
    /// Whether the client may refer to its earlier messages.
    pub client_takeover: bool,
    /// Which windows the answer names.
    named: Named,
}

/// A window is named in the answer only where the offer named it (RFC 7692 §7.1.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Named {
    Neither,
    Server,
    Client,
    Both,
}

impl Offer {
    /// The first acceptable offer of all the `Sec-WebSocket-Extensions` fields of a request, in order. `None` where
    /// there is none: the connection goes uncompressed, whatever was wrong with the offers (RFC 7692 §5.1).
    pub fn first_acceptable<'a>(fields: impl IntoIterator<Item = &'a str>) -> Option<Offer> {
        fields.into_iter().flat_map(|field| split_unquoted(field, ',')).find_map(Offer::parse)
    }

    /// One element of the field: the extension's name and its parameters, none unknown, none twice, none out of range.
    fn parse(element: &str) -> Option<Offer> {
        let mut parts = split_unquoted(element, ';').map(str::trim);
        if !parts.next()?.eq_ignore_ascii_case(EXTENSION) {
            return None;
        }
        let mut offer = Offer::default();
        let mut seen: [bool; 4] = [false; 4];
        for part in parts {
            let (name, value) = match part.split_once('=') {
                Some((name, value)) => (name.trim_end(), Some(unquote(value.trim_start())?)),
                None => (part, None),
            };
            let which = match (name.to_ascii_lowercase().as_str(), value) {
                // Nothing the server sends refers to an earlier message, whether that is asked for or not.
                ("server_no_context_takeover", None) => 0,
                ("client_no_context_takeover", None) => {
                    offer.client_no_context_takeover = true;
                    1
                }
                ("server_max_window_bits", Some(bits)) => {
                    offer.server_bits = Some(parse_bits(bits)?);
                    2
                }
                ("client_max_window_bits", bits) => {
                    offer.client_bits = Some(bits.map_or(Some(WindowBits::MAX), parse_bits)?);
                    3
                }
                _ => return None,
            };
            if std::mem::replace(&mut seen[which], true) {
                return None;
            }
        }
        Some(offer)
    }

    /// What this offer comes to. A client that would keep to a window gets at most `client_bits_max`.
    pub fn agree(self, client_bits_max: WindowBits) -> Agreement {
        let named = match (self.server_bits, self.client_bits) {
            (None, None) => Named::Neither,
            (Some(_), None) => Named::Server,
            (None, Some(_)) => Named::Client,
            (Some(_), Some(_)) => Named::Both,
        };
        Agreement {
            server_bits: self.server_bits.unwrap_or(WindowBits::MAX),
            client_bits: self.client_bits.map_or(WindowBits::MAX, |bits| bits.min(client_bits_max)),
            client_takeover: !self.client_no_context_takeover,
            named,
        }
    }
}

impl Agreement {
    /// The same without context takeover by the client, which a server may ask for at any time (RFC 7692 §7.1.1.2).
    pub fn without_takeover(self) -> Agreement {
        Agreement { client_takeover: false, ..self }
    }

    /// Bytes that the client's earlier messages may take.
    pub fn history_bytes_max(self) -> usize {
        match self.client_takeover {
            true => self.client_bits.window_bytes(),
            false => 0,
        }
    }

    /// Appends the value of `Sec-WebSocket-Extensions` in the handshake's answer.
    pub fn write(self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"permessage-deflate; server_no_context_takeover");
        if !self.client_takeover {
            out.extend_from_slice(b"; client_no_context_takeover");
        }
        if matches!(self.named, Named::Server | Named::Both) {
            out.extend_from_slice(format!("; server_max_window_bits={}", self.server_bits.bits()).as_bytes());
        }
        if matches!(self.named, Named::Client | Named::Both) {
            out.extend_from_slice(format!("; client_max_window_bits={}", self.client_bits.bits()).as_bytes());
        }
    }
}

/// A decimal without leading zeros (RFC 7692 §7.1.2.1).
fn parse_bits(text: &str) -> Option<WindowBits> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit()) && !text.starts_with('0');
    WindowBits::new(text.parse().ok().filter(|_| digits)?)
}

/// A parameter's value is a token, or a token in quotes (RFC 6455 §9.1).
fn unquote(value: &str) -> Option<&str> {
    match value.strip_prefix('"') {
        Some(rest) => rest.strip_suffix('"').filter(|inner| !inner.contains('"')),
        None => Some(value),
    }
}

/// Splits where the separator stands outside of quotes.
fn split_unquoted(text: &str, separator: char) -> impl Iterator<Item = &str> {
    let mut quoted = false;
    text.split(move |character| {
        quoted ^= character == '"';
        character == separator && !quoted
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn answer(field: &str) -> Option<String> {
        let agreement = Offer::first_acceptable([field])?.agree(WindowBits::new(12).unwrap());
        let mut out = Vec::new();
        agreement.write(&mut out);
        Some(String::from_utf8(out).unwrap())
    }

    #[test]
    fn each_parameter_is_answered_where_it_was_offered() {
        let plain = "permessage-deflate; server_no_context_takeover";
        for (offer, expected) in [
            ("permessage-deflate", plain.to_owned()),
            ("Permessage-Deflate ;  SERVER_no_context_takeover", plain.to_owned()),
            ("permessage-deflate; client_no_context_takeover", format!("{plain}; client_no_context_takeover")),
            ("permessage-deflate; server_max_window_bits=9", format!("{plain}; server_max_window_bits=9")),
            ("permessage-deflate; server_max_window_bits=\"15\"", format!("{plain}; server_max_window_bits=15")),
            ("permessage-deflate; client_max_window_bits", format!("{plain}; client_max_window_bits=12")),
            ("permessage-deflate; client_max_window_bits = 10", format!("{plain}; client_max_window_bits=10")),
            (
                "permessage-deflate; client_max_window_bits=15; server_max_window_bits=11",
                format!("{plain}; server_max_window_bits=11; client_max_window_bits=12"),
            ),
        ] {
            assert_eq!(answer(offer), Some(expected), "{offer}");
        }
    }

    #[test]
    fn what_is_not_acceptable_is_declined() {
        for offer in [
            "",
            "x-webkit-deflate-frame",
            "permessage-deflates",
            "permessage-deflate; unknown",
            "permessage-deflate;",
            "permessage-deflate; server_max_window_bits",
            "permessage-deflate; server_max_window_bits=8",
            "permessage-deflate; client_max_window_bits=8",
            "permessage-deflate; server_max_window_bits=16",
            "permessage-deflate; server_max_window_bits=09",
            "permessage-deflate; server_max_window_bits=+9",
            "permessage-deflate; server_max_window_bits=",
            "permessage-deflate; server_max_window_bits=\"9",
            "permessage-deflate; server_max_window_bits=265",
            "permessage-deflate; client_no_context_takeover=1",
            "permessage-deflate; server_no_context_takeover; server_no_context_takeover",
            "permessage-deflate; client_max_window_bits; client_max_window_bits=10",
        ] {
            assert_eq!(answer(offer), None, "{offer}");
        }
    }

    #[test]
    fn of_several_offers_the_first_acceptable_one_is_taken() {
        let offers = [
            "x-other; a=\"b, permessage-deflate\"",
            "permessage-deflate; server_max_window_bits=8, \
            permessage-deflate; server_max_window_bits=10, permessage-deflate",
        ];
        assert_eq!(Offer::first_acceptable(offers).unwrap().server_bits, WindowBits::new(10));
    }

    #[test]
    fn a_client_that_was_not_asked_uses_the_largest_window() {
        let agreement = Offer::first_acceptable(["permessage-deflate"]).unwrap().agree(WindowBits::MIN);
        assert_eq!(agreement.history_bytes_max(), 32_768);
        assert_eq!(agreement.without_takeover().history_bytes_max(), 0);
    }

    proptest! {
        #[test]
        fn whatever_is_offered_the_answer_is_a_subset_of_it(
            field in "(permessage-deflate(; ?(server|client)_(no_context_takeover|max_window_bits)(=\"?[0-9]{1,2}\"?)?){0,4},? ?){1,3}"
        ) {
            if let Some(answer) = answer(&field) {
                for name in ["server_max_window_bits", "client_max_window_bits"] {
                    prop_assert!(!answer.contains(name) || field.contains(name), "{} for {}", answer, field);
                }
            }
        }
    }
}
