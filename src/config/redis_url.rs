//! Where Redis is: a URL that may hold a password, which is shown to nobody.

use std::fmt;
use std::str::FromStr;

/// Longest URL, in bytes.
const URL_BYTES_MAX: usize = 4096;

/// Schemes, and what they stand for.
const SCHEMES: &[&str] =
    &["redis", "rediss", "redis+sentinel", "rediss+sentinel", "redis+cluster", "rediss+cluster", "redis+unix"];

/// The place of a Redis server, of the Sentinels that know one, or of some nodes of a Redis Cluster; or of none.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct RedisUrl(String);

impl RedisUrl {
    /// The URL with its password; `None` where there is no Redis.
    pub fn secret(&self) -> Option<&str> {
        (!self.0.is_empty()).then_some(&*self.0)
    }
}

impl FromStr for RedisUrl {
    type Err = String;

    /// The text itself is never part of the error: it may hold a password.
    fn from_str(text: &str) -> Result<RedisUrl, String> {
        let text = text.trim();
        if text.is_empty() {
            return Ok(RedisUrl::default());
        }
        if text.len() > URL_BYTES_MAX {
            return Err(format!("the URL has {} bytes; write at most {URL_BYTES_MAX}", text.len()));
        }
        let known = |(scheme, rest): (&str, &str)| SCHEMES.contains(&scheme) && !host(rest).is_empty();
        match text.split_once("://").is_some_and(known) {
            true => Ok(RedisUrl(text.to_owned())),
            false => Err("this is no URL of a Redis; write redis://HOST:PORT/ or rediss:// for TLS, \
                redis+sentinel://HOST:PORT,HOST:PORT/NAME, redis+cluster://HOST:PORT,HOST:PORT or redis+unix:///PATH"
                .to_owned()),
        }
    }
}

/// The URL with `***` in place of the password.
impl fmt::Display for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some((scheme, rest)) = self.0.split_once("://") else { return f.write_str(&self.0) };
        match rest.rsplit_once('@') {
            None => f.write_str(&self.0),
            Some((who, host)) => match who.split_once(':') {
                Some((user, _)) => write!(f, "{scheme}://{user}:***@{host}"),
                None => write!(f, "{scheme}://{who}@{host}"),
            },
        }
    }
}

impl fmt::Debug for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RedisUrl({self})")
    }
}

/// What is behind the user and the password.
fn host(rest: &str) -> &str {
    rest.rsplit_once('@').map_or(rest, |(_, host)| host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_password_is_shown_to_nobody() {
        let url: RedisUrl = "redis://user:pa:ss@w@host:1/2".parse().unwrap();
        assert_eq!(url.to_string(), "redis://user:***@host:1/2");
        assert_eq!(format!("{url:?}"), "RedisUrl(redis://user:***@host:1/2)");
        assert_eq!(url.secret(), Some("redis://user:pa:ss@w@host:1/2"));
        let wrong = "http://user:password@host".parse::<RedisUrl>().unwrap_err();
        assert!(!wrong.contains("password"), "{wrong}");
    }

    #[test]
    fn urls_of_every_kind() {
        for url in
            ["redis://127.0.0.1:6379/", "rediss://h", "redis+sentinel://a:1,b:2/main", "redis+unix:///run/r.sock"]
        {
            assert_eq!(url.parse::<RedisUrl>().unwrap().to_string(), url);
        }
        assert_eq!("".parse::<RedisUrl>().unwrap().secret(), None);
        for wrong in ["127.0.0.1:6379", "redis://", "redis:/h", "amqp://h", "redis://user:x@"] {
            assert!(wrong.parse::<RedisUrl>().is_err(), "{wrong}");
        }
    }
}
