//! The upgrade request, and what its answer must say (RFC 6455 §4.1).

use super::credentials::Credentials;
use super::deflate::{Agreement, OFFER};
use super::limits::{HEAD_BYTES_MAX, HEADERS_MAX};
use super::target::Target;
use super::{BenchError, Options};

/// One key for all connections: what a server makes of it is checked each time.
#[derive(Debug)]
pub(super) struct Handshake {
    target: Target,
    credentials: Credentials,
    brings_token: bool,
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
    /// With the server of these options, by their credentials.
    pub(super) fn new(options: &Options) -> Handshake {
        Handshake::with(&options.target, options)
    }

    /// With another server, by the credentials of these options.
    pub(super) fn with(target: &Target, options: &Options) -> Handshake {
        let key = tungstenite::handshake::client::generate_key();
        Handshake {
            target: target.clone(),
            credentials: options.credentials.clone(),
            brings_token: options.dialect.brings_token_in_request(),
            accept: tungstenite::handshake::derive_accept_key(key.as_bytes()),
            key,
        }
    }

    /// Where the server is.
    pub(super) fn target(&self) -> &Target {
        &self.target
    }

    /// The token of a user, where there is one.
    pub(super) fn token(&self, user: &str) -> Result<Option<String>, BenchError> {
        self.credentials.token(user)
    }

    /// The request of a user, who has a token made for it and may offer permessage-deflate.
    pub(super) fn request(&self, user: &str, deflate: bool) -> Result<String, BenchError> {
        Ok(self.request_with(user, self.token(user)?.as_deref(), deflate))
    }

    /// The request of a user with this token.
    pub(super) fn request_with(&self, user: &str, token: Option<&str>, deflate: bool) -> String {
        let Target { authority, path, .. } = &self.target;
        // Where there is a token a user id means nothing.
        let (query, authorization) = match token {
            Some(token) if self.brings_token => (String::new(), format!("Authorization: Bearer {token}\r\n")),
            Some(_) => Default::default(),
            None => (format!("?userId={user}"), String::new()),
        };
        let extensions = if deflate { format!("Sec-WebSocket-Extensions: {OFFER}\r\n") } else { String::new() };
        format!(
            "GET {path}{query} HTTP/1.1\r\nHost: {authority}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: {}\r\nSec-WebSocket-Version: 13\r\n{authorization}{extensions}\r\n",
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
            Some(401) => {
                return Err(
                    "the server asks for another token, or for one at all (401); give connections tokens with \
                            --token-secret-file or --token-key-file, or all the same with FANFARE_TOKEN"
                        .to_owned(),
                );
            }
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
        let target = Target { url, authority, path, address, tls: None };
        let key = tungstenite::handshake::client::generate_key();
        let accept = tungstenite::handshake::derive_accept_key(key.as_bytes());
        Handshake { target, credentials: Credentials::UserId, brings_token: true, key, accept }
    }

    #[test]
    fn a_token_stands_in_place_of_the_user_id() {
        let handshake = handshake();
        let request = handshake.request_with("u", Some("t"), false);
        assert!(request.starts_with("GET / HTTP/1.1\r\n") && request.contains("\r\nAuthorization: Bearer t\r\n"));
        let request = handshake.request_with("u", None, false);
        assert!(request.starts_with("GET /?userId=u HTTP/1.1\r\n") && !request.contains("Authorization"));
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
        assert!(handshake.request_with("u", None, true).contains("\r\nSec-WebSocket-Extensions: permessage-deflate"));
        assert!(!handshake.request_with("u", None, false).contains("Extensions"));
        let agreed = answer(&handshake, "sec-websocket-extensions: permessage-deflate\r\n");
        let consent = handshake.consent(agreed.as_bytes(), true).unwrap().unwrap();
        assert_eq!(consent.deflate, Some(Agreement { keeps_window: true }));
        assert!(handshake.consent(agreed.as_bytes(), false).unwrap_err().contains("not offered"));
        let plain = answer(&handshake, "");
        assert!(handshake.consent(plain.as_bytes(), true).unwrap_err().contains("does not agree"));
    }
}
