//! Any text as what a client offers in `Sec-WebSocket-Extensions`, in any number of fields.
//!
//! What the server takes and answers is compared with a second reader, which is written after the grammar of RFC 6455
//! §9.1 and the rules of RFC 7692 §7.1 and shares nothing with the first.
//!
//! Input: the fields, one in a line.

#![no_main]

use fanfare::compress::{Offer, WindowBits};
use libfuzzer_sys::{Corpus, fuzz_target};

/// The largest window that a client is told to keep to.
const CLIENT_BITS_MAX: u8 = 12;

fuzz_target!(|input: &[u8]| -> Corpus {
    let Ok(text) = str::from_utf8(input) else { return Corpus::Reject };
    let client_bits_max = WindowBits::new(CLIENT_BITS_MAX).expect("a window");
    let offer = Offer::first_acceptable(text.lines());
    let answer = offer.map(|offer| {
        let mut out = Vec::new();
        offer.agree(client_bits_max).write(&mut out);
        String::from_utf8(out).expect("an answer is text")
    });
    let expected = text.lines().flat_map(|field| parts(field, ',')).find_map(|element| expected(&element));
    assert_eq!(answer, expected, "{text:?}");
    Corpus::Keep
});

/// The answer to one element of a field; None where it is to be declined.
fn expected(element: &str) -> Option<String> {
    let parts = parts(element, ';');
    let (name, parameters) = parts.split_first()?;
    if !name.trim().eq_ignore_ascii_case("permessage-deflate") {
        return None;
    }
    let (mut names, mut answer) = (Vec::new(), "permessage-deflate; server_no_context_takeover".to_owned());
    let (mut server, mut client, mut no_takeover) = (None, None, false);
    for parameter in parameters {
        let parameter = parameter.trim();
        let (name, value) = match parameter.find('=') {
            Some(at) => (parameter[..at].trim_end(), Some(parameter[at + 1..].trim_start())),
            None => (parameter, None),
        };
        let name = name.to_ascii_lowercase();
        match (&name[..], value) {
            ("server_no_context_takeover", None) => {}
            ("client_no_context_takeover", None) => no_takeover = true,
            ("server_max_window_bits", Some(value)) => server = Some(bits(value)?),
            ("client_max_window_bits", None) => client = Some(15),
            ("client_max_window_bits", Some(value)) => client = Some(bits(value)?),
            _ => return None,
        }
        if names.contains(&name) {
            return None;
        }
        names.push(name);
    }
    if no_takeover {
        answer += "; client_no_context_takeover";
    }
    if let Some(bits) = server {
        answer += &format!("; server_max_window_bits={bits}");
    }
    if let Some(bits) = client {
        answer += &format!("; client_max_window_bits={}", bits.min(CLIENT_BITS_MAX));
    }
    Some(answer)
}

/// 9 to 15, perhaps in quotes; 8 would be allowed, and is declined.
fn bits(value: &str) -> Option<u8> {
    let words = ["9", "10", "11", "12", "13", "14", "15"];
    let at = words.iter().position(|word| value == *word || value == format!("\"{word}\""))?;
    Some(9 + at as u8)
}

/// The parts between separators that stand outside of quotes.
fn parts(text: &str, separator: char) -> Vec<String> {
    let (mut parts, mut quoted) = (vec![String::new()], false);
    for character in text.chars() {
        quoted ^= character == '"';
        match character == separator && !quoted {
            true => parts.push(String::new()),
            false => parts.last_mut().expect("there is one").push(character),
        }
    }
    parts
}
