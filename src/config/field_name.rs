//! Names of header fields that are passed on from a request to a service of the team's own.

use std::fmt;
use std::str::FromStr;

use hyper::header::HeaderName;

use super::error::shown;

/// What says how a message travels, and what this server says itself (RFC 9110 §7.6.1): never passed on.
const KEPT: [&str; 17] = [
    "accept",
    "accept-encoding",
    "authorization",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "expect",
    "host",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// What the fields of the WebSocket handshake begin with (RFC 6455 §4.1): a token may be among them.
const KEPT_PREFIX: &str = "sec-websocket-";

/// The name of a header field that may be passed on, in lower case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldName(HeaderName);

impl FieldName {
    /// The name, in lower case.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl FromStr for FieldName {
    type Err = String;

    fn from_str(text: &str) -> Result<FieldName, String> {
        let name: HeaderName =
            text.parse().map_err(|_| format!("{} is no name of a header field; write it as cookie", shown(text)))?;
        match KEPT.contains(&name.as_str()) || name.as_str().starts_with(KEPT_PREFIX) {
            true => Err(format!("{name} is not passed on, since it is between two neighbours, or said by this server")),
            false => Ok(FieldName(name)),
        }
    }
}

impl fmt::Display for FieldName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_between_neighbours_is_not_passed_on() {
        for (text, name) in [("Cookie", "cookie"), ("X-Session", "x-session"), ("accept-language", "accept-language")] {
            assert_eq!(text.parse::<FieldName>().expect(text).as_str(), name);
        }
        for text in KEPT.iter().copied().chain(["Authorization", "Sec-WebSocket-Protocol", "", "a b", "x:", "é", "x\n"])
        {
            text.parse::<FieldName>().expect_err(text);
        }
        assert!(KEPT.is_sorted());
    }
}
