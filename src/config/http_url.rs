//! Where a service of the team's own is asked: a fixed URL, which no client has a word in.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use hyper::Uri;

use super::error::shown;

/// Longest URL, in bytes.
const URL_BYTES_MAX: usize = 4096;

/// What a URL may look like, for errors and help.
pub(super) const FORMS: &str = "https://HOST/PATH, or http:// for a host of this machine";

/// The URL of a service over HTTP, or of none.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
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

    fn from_str(text: &str) -> Result<HttpUrl, String> {
        let text = text.trim();
        if text.is_empty() {
            return Ok(HttpUrl(None));
        }
        if text.len() > URL_BYTES_MAX {
            return Err(format!("the URL has {} bytes; write at most {URL_BYTES_MAX}", text.len()));
        }
        let no_url = || format!("{} is no URL; write {FORMS}", shown(text));
        let uri: Uri = text.parse().map_err(|_| no_url())?;
        let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else { return Err(no_url()) };
        if authority.as_str().contains('@') {
            // It is not repeated: it may hold a password.
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
                    "{} is not encrypted, so that whoever is on the way could answer in its place; write https://, \
                     or http:// for a host of this machine alone, such as 127.0.0.1",
                    shown(text)
                ));
            }
            _ => return Err(no_url()),
        }
        Ok(HttpUrl(Some(uri)))
    }
}

impl fmt::Display for HttpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_ref().map_or(Ok(()), |uri| uri.fmt(f))
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
        for text in [
            "https://id.example.com/.well-known/jwks.json",
            "https://id.example.com:8443/keys?set=1",
            "https://[2001:db8::1]/",
            "http://127.0.0.1:3000/connect",
            "http://[::1]:3000/connect",
            "http://localhost/x",
        ] {
            let url: HttpUrl = text.parse().expect(text);
            assert_eq!((url.to_string(), url.is_set()), (text.to_owned(), true));
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
            assert_eq!(told, format!("{text:?} is no URL; write {FORMS}"));
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
        let told = "https://me:hunter2@id.example.com/".parse::<HttpUrl>().expect_err("a password");
        assert!(told.contains("password") && !told.contains("hunter2"), "{told}");
    }
}
