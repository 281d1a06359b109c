//! The upgrade request, and what its answer must say (RFC 6455 §4.1).

use super::deflate::{Agreement, OFFER};
use super::limits::{HEAD_BYTES_MAX, HEADERS_MAX};
use super::options::Target;

/// One key for all connections: what a server makes of it is checked each time.
#[derive(Debug)]
pub(super) struct Handshake {
    target: Target,
    key: String,
    accept: String,
}

/// A server's consent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Consent {
    /// Bytes of the response head.
    pub(super) head_bytes: usize,
    /// What was agreed on compression, where it was offered.
    pub(super) deflate: Option<Agreement>,
}

impl Handshake {
    /// With this server.
    pub(super) fn new(target: Target) -> Handshake {
        let key = tungstenite::handshake::client::generate_key();
        Handshake { target, accept: tungstenite::handshake::derive_accept_key(key.as_bytes()), key }
    }

    /// Where the server is.
    pub(super) fn target(&self) -> &Target {
        &self.target
    }

    /// The request of a user, who may offer permessage-deflate.
    pub(super) fn request(&self, user: &str, deflate: bool) -> String {
        let Target { authority, path, .. } = &self.target;
        let extensions = if deflate { format!("Sec-WebSocket-Extensions: {OFFER}\r\n") } else { String::new() };
        format!(
            "GET {path}?userId={user} HTTP/1.1\r\nHost: {authority}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: {}\r\nSec-WebSocket-Version: 13\r\n{extensions}\r\n",
            self.key,
        )
    }

    /// Checks the answer to a request that did or did not offer permessage-deflate; `None` while it is not whole.
    ///
    /// # Errors
    ///
    /// What is wrong with it, in words.
    pub(super) fn consent(&self, bytes: &[u8], deflate: bool) -> Result<Option<Consent>, String> {
        let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut response = httparse::Response::new(&mut headers);
        let head_bytes = match response.parse(bytes) {
            Ok(httparse::Status::Complete(head_bytes)) => head_bytes,
            Ok(httparse::Status::Partial) if bytes.len() <= HEAD_BYTES_MAX => return Ok(None),
            Ok(httparse::Status::Partial) => return Err("the server's response head does not end".to_owned()),
            Err(error) => return Err(format!("the server's response is no HTTP/1.1: {error}")),
        };
        match response.code {
            Some(101) => {}
            code => return Err(format!("the server answered {} instead of 101", code.unwrap_or(0))),
        }
        let named = |name: &'static str| {
            let fields = response.headers.iter().filter(move |header| header.name.eq_ignore_ascii_case(name));
            fields.map(|header| header.value.trim_ascii())
        };
        if named("Sec-WebSocket-Accept").next() != Some(self.accept.as_bytes()) {
            return Err("the server's Sec-WebSocket-Accept is not the answer to the key (RFC 6455 §4.1)".to_owned());
        }
        let extensions: Vec<_> = named("Sec-WebSocket-Extensions").map(String::from_utf8_lossy).collect();
        let deflate = match (deflate, extensions.join(",")) {
            (true, answer) => Some(Agreement::parse(&answer)?),
            (false, answer) if answer.is_empty() => None,
            (false, answer) => {
                return Err(format!("the server agrees to {answer:?}, which was not offered (RFC 6455 §4.1)"));
            }
        };
        Ok(Some(Consent { head_bytes, deflate }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn handshake() -> Handshake {
        let address = "127.0.0.1:1".parse().unwrap();
        let (url, authority, path) = ("ws://h".to_owned(), "h".to_owned(), "/".to_owned());
        Handshake::new(Target { url, authority, path, address })
    }

    fn answer(handshake: &Handshake, extensions: &str) -> String {
        let Handshake { accept, .. } = handshake;
        format!("HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: {accept}\r\n{extensions}\r\n")
    }

    #[test]
    fn an_answer_is_taken_whole() {
        let handshake = handshake();
        let whole = answer(&handshake, "");
        let consent = Consent { head_bytes: whole.len(), deflate: None };
        assert_eq!(handshake.consent(format!("{whole}more").as_bytes(), false), Ok(Some(consent)));
        for cut in 0..whole.len() {
            assert_eq!(handshake.consent(&whole.as_bytes()[..cut], false), Ok(None));
        }
        assert!(handshake.consent(b"HTTP/1.1 503 No\r\n\r\n", false).unwrap_err().contains("503"));
        let foreign = whole.replace("Accept: ", "Accept: x");
        assert!(handshake.consent(foreign.as_bytes(), false).unwrap_err().contains("Accept"));
    }

    #[test]
    fn an_extension_is_agreed_on_where_it_was_offered() {
        let handshake = handshake();
        assert!(handshake.request("u", true).contains("\r\nSec-WebSocket-Extensions: permessage-deflate"));
        assert!(!handshake.request("u", false).contains("Extensions"));
        let agreed = answer(&handshake, "sec-websocket-extensions: permessage-deflate\r\n");
        let consent = handshake.consent(agreed.as_bytes(), true).unwrap().unwrap();
        assert_eq!(consent.deflate, Some(Agreement { keeps_window: true }));
        assert!(handshake.consent(agreed.as_bytes(), false).unwrap_err().contains("not offered"));
        let plain = answer(&handshake, "");
        assert!(handshake.consent(plain.as_bytes(), true).unwrap_err().contains("does not agree"));
    }
}
