//! Where a service of the team's own is asked: a fixed URL, which no client has a word in. What stands behind its host may be
//! a secret, and is never shown.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use hyper::Uri;

/// Longest URL, in bytes.
const URL_BYTES_MAX: usize = 4096;

/// What a URL may look like, for errors and help.
pub(super) const FORMS: &str = "https://HOST/PATH, or http:// for a host of this machine";

/// The URL of a service over HTTP, or of none.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct HttpUrl(Option<Uri>);

impl HttpUrl {
    /// Where it is; `None` where there is none.
    pub fn uri(&self) -> Option<&Uri> {
        self.0.as_ref()
    }

    /// Whether there is one.
    pub fn is_set(&self) -> bool {
        self.0.is_some()
    }

    /// Whether it is encrypted.
    pub(super) fn is_tls(&self) -> bool {
        self.0.as_ref().is_some_and(|uri| uri.scheme_str() == Some("https"))
    }
}

impl FromStr for HttpUrl {
    type Err = String;

    /// The text itself is never part of the error: it may hold a secret.
    fn from_str(text: &str) -> Result<HttpUrl, String> {
        let text = text.trim();
        if text.is_empty() {
            return Ok(HttpUrl(None));
        }
        if text.len() > URL_BYTES_MAX {
            return Err(format!("the URL has {} bytes; write at most {URL_BYTES_MAX}", text.len()));
        }
        let no_url = || format!("this is no URL of a service; write {FORMS}");
        let uri: Uri = text.parse().map_err(|_| no_url())?;
        let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else { return Err(no_url()) };
        if authority.as_str().contains('@') {
            return Err(
                "the URL holds a user's name or a password; leave it out, and let the service know this server \
                        by its address or by the certificate"
                    .to_owned(),
            );
        }
        if text.contains('#') || authority.host().is_empty() {
            return Err(no_url());
        }
        match scheme {
            "https" => {}
            "http" if is_of_this_machine(authority.host()) => {}
            "http" => {
                return Err(format!(
                    "http://{authority} is not encrypted, so that whoever is on the way could answer in its place; write \
                     https://, or http:// for a host of this machine alone, such as 127.0.0.1"
                ));
            }
            _ => return Err(no_url()),
        }
        Ok(HttpUrl(Some(uri)))
    }
}

/// The URL with `***` in place of what stands behind the host.
impl fmt::Display for HttpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(uri) = &self.0 else { return Ok(()) };
        let (scheme, authority) = (uri.scheme_str(), uri.authority());
        let hidden = if uri.path() == "/" && uri.query().is_none() { "" } else { "***" };
        write!(f, "{}://{}/{hidden}", scheme.unwrap_or_default(), authority.map_or("", |authority| authority.as_str()))
    }
}

impl fmt::Debug for HttpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HttpUrl({self})")
    }
}

fn is_of_this_machine(host: &str) -> bool {
    let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    host.eq_ignore_ascii_case("localhost") || bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_fixed_encrypted_and_without_passwords() {
        for (text, shown) in [
            ("https://id.example.com/.well-known/jwks.json", "https://id.example.com/***"),
            ("https://id.example.com:8443/keys?set=1", "https://id.example.com:8443/***"),
            ("https://id.example.com?set=1", "https://id.example.com/***"),
            ("https://[2001:db8::1]/", "https://[2001:db8::1]/"),
            ("http://127.0.0.1:3000/connect", "http://127.0.0.1:3000/***"),
            ("http://[::1]:3000/connect", "http://[::1]:3000/***"),
            ("http://localhost/x", "http://localhost/***"),
        ] {
            let url: HttpUrl = text.parse().expect(text);
            let uri = url.uri().map(Uri::to_string).expect(text);
            assert_eq!((uri.replace("/?", "?"), url.to_string()), (text.to_owned(), shown.to_owned()));
            assert_eq!(format!("{url:?}"), format!("HttpUrl({shown})"));
        }
        assert_eq!(" ".parse(), Ok(HttpUrl::default()));
        for text in [
            "keys.json",
            "/keys",
            "ftp://h/keys",
            "wss://h/",
            "https://",
            "https:///keys",
            "https://h/#x",
            "http://a b/",
        ] {
            let told = text.parse::<HttpUrl>().expect_err(text);
            assert_eq!(told, format!("this is no URL of a service; write {FORMS}"));
        }
        for text in [
            "http://id.example.com/",
            "http://localhost.example.com/",
            "http://10.0.0.1/",
            "http://127.0.0.1.example.com/",
        ] {
            let told = text.parse::<HttpUrl>().expect_err(text);
            assert!(told.contains("is not encrypted"), "{told}");
        }
        for text in ["http://id.example.com/hunter2", "https://h/hunter2 x", "https://h/?k=hunter2#x", "hunter2"] {
            let told = text.parse::<HttpUrl>().expect_err(text);
            assert!(!told.contains("hunter2"), "{told}");
        }
        let told = "https://me:hunter2@id.example.com/".parse::<HttpUrl>().expect_err("a password");
        assert!(told.contains("password") && !told.contains("hunter2"), "{told}");
    }
}
