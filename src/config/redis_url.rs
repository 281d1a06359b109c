//! Where Redis is: a URL that may hold a password, which is never shown.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use percent_encoding::percent_decode_str;

/// Longest URL, in bytes.
const URL_BYTES_MAX: usize = 4096;

const SERVER_PORT: u16 = 6379;
const SENTINEL_PORT: u16 = 26379;

/// What a URL may look like, for errors and help.
pub(super) const FORMS: &str = "redis://HOST:PORT/, rediss:// for TLS, redis+unix:///PATH, \
    redis+sentinel://HOST:PORT/NAME, redis+cluster://HOST:PORT";

/// The URL of a Redis, or of none.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct RedisUrl {
    text: String,
    address: Option<RedisAddress>,
}

/// What the URL says.
#[derive(Clone, PartialEq, Eq)]
pub struct RedisAddress {
    /// What kind of Redis, and where.
    pub kind: RedisKind,
    /// Whether connections are encrypted, and certificates checked.
    pub tls: bool,
    /// The user of its access control list; none is its default user.
    pub user: Option<String>,
    /// The password.
    pub password: Option<String>,
    /// The number of the database.
    pub database: u32,
}

/// The kinds of Redis that nodes may have between them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RedisKind {
    /// One server.
    Server(RedisHost),
    /// One server of this machine, by its socket.
    Unix(PathBuf),
    /// A primary that Sentinels know.
    Sentinel {
        /// Where to ask.
        sentinels: Vec<RedisHost>,
        /// Whether to ask with TLS, if the servers have it.
        tls: bool,
        /// What they call it.
        name: String,
    },
    /// A Redis Cluster.
    Cluster(Vec<RedisHost>),
}

/// A host and a port.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RedisHost {
    /// Name or address, an IPv6 address without brackets.
    pub name: String,
    /// The port.
    pub port: u16,
}

impl RedisUrl {
    /// What it says, the password too; `None` where there is no Redis.
    pub fn address(&self) -> Option<&RedisAddress> {
        self.address.as_ref()
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
        Ok(RedisUrl { address: Some(address(text)?), text: text.to_owned() })
    }
}

/// The URL with `***` in place of the password.
impl fmt::Display for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some((scheme, rest)) = self.text.split_once("://") else { return f.write_str(&self.text) };
        let (userinfo, location) = split_userinfo(scheme, rest);
        match userinfo.and_then(|userinfo| userinfo.split_once(':')) {
            None => f.write_str(&self.text),
            Some((user, _)) => write!(f, "{scheme}://{user}:***@{location}"),
        }
    }
}

impl fmt::Debug for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RedisUrl({self})")
    }
}

/// Without the password.
impl fmt::Debug for RedisAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let RedisAddress { kind, tls, user, password: _, database } = self;
        write!(f, "RedisAddress({kind:?}, tls {tls}, user {user:?}, database {database})")
    }
}

impl fmt::Display for RedisHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name.contains(':') {
            true => write!(f, "[{}]:{}", self.name, self.port),
            false => write!(f, "{}:{}", self.name, self.port),
        }
    }
}

fn address(text: &str) -> Result<RedisAddress, String> {
    let unknown = || format!("this is no URL of a Redis; write {FORMS}");
    let (scheme, rest) = text.split_once("://").ok_or_else(unknown)?;
    let (userinfo, location) = split_userinfo(scheme, rest);
    let (location, fragment) = location.split_once('#').unwrap_or((location, ""));
    if !fragment.is_empty() {
        return Err("a URL of Redis has nothing behind a #; certificates are always checked, and redis.tls_ca names \
            a certificate authority of your own"
            .to_owned());
    }
    let (location, query) = location.split_once('?').unwrap_or((location, ""));
    let (hosts, path) = location.split_once('/').unwrap_or((location, ""));
    let (plain, tls) = match scheme.strip_prefix("rediss") {
        Some(plain) => (plain, true),
        None => (scheme.strip_prefix("redis").ok_or_else(unknown)?, false),
    };
    let mut at = Location { hosts, path, query };
    let (kind, database) = match plain {
        "" => at.server()?,
        "+unix" if !tls => at.socket()?,
        "+sentinel" => at.sentinels(tls)?,
        "+cluster" => at.cluster()?,
        _ => return Err(unknown()),
    };
    if !at.query.is_empty() {
        return Err("the URL has something behind its ? that does not belong there; leave it out".to_owned());
    }
    let (user, password) = userinfo.map(credentials).transpose()?.unwrap_or_default();
    Ok(RedisAddress { kind, tls, user, password, database })
}

/// User and password, and what is behind them. A password may have any character but a percent sign, which begins an
/// encoded one; the path of a socket may have an `@`.
fn split_userinfo<'a>(scheme: &str, rest: &'a str) -> (Option<&'a str>, &'a str) {
    let split = match scheme {
        "redis+unix" if rest.starts_with('/') => None,
        "redis+unix" => rest.split_once("@/").map(|(userinfo, path)| (userinfo, &rest[rest.len() - path.len() - 1..])),
        _ => rest.rsplit_once('@'),
    };
    split.map_or((None, rest), |(userinfo, location)| (Some(userinfo), location))
}

fn credentials(userinfo: &str) -> Result<(Option<String>, Option<String>), String> {
    let decoded = |text: &str| match percent_decode_str(text).decode_utf8() {
        Ok(text) => Ok((!text.is_empty()).then(|| text.into_owned())),
        Err(_) => Err("user or password are not UTF-8 once decoded; write % as %25".to_owned()),
    };
    match userinfo.split_once(':') {
        Some((user, password)) => Ok((decoded(user)?, decoded(password)?)),
        None => Err("a user needs a password: write USER:PASSWORD@HOST, or :PASSWORD@HOST without a user".to_owned()),
    }
}

/// What is behind user and password.
struct Location<'a> {
    hosts: &'a str,
    path: &'a str,
    query: &'a str,
}

impl Location<'_> {
    fn server(&mut self) -> Result<(RedisKind, u32), String> {
        let mut hosts = self.hosts(SERVER_PORT)?;
        match (hosts.pop(), hosts.is_empty()) {
            (Some(host), true) => Ok((RedisKind::Server(host), database(self.path)?)),
            _ => {
                Err("this URL has room for one server; redis+sentinel:// and redis+cluster:// take several".to_owned())
            }
        }
    }

    fn socket(&mut self) -> Result<(RedisKind, u32), String> {
        if !self.hosts.is_empty() || self.path.is_empty() {
            return Err("a socket is named by its whole path: redis+unix:///run/redis.sock".to_owned());
        }
        let number = self.query.strip_prefix("db=");
        if number.is_some() {
            self.query = "";
        }
        Ok((RedisKind::Unix(PathBuf::from(format!("/{}", self.path))), database(number.unwrap_or_default())?))
    }

    fn sentinels(&mut self, tls: bool) -> Result<(RedisKind, u32), String> {
        let (name, number) = self.path.split_once('/').unwrap_or((self.path, ""));
        if name.is_empty() {
            return Err("the Sentinels' name of the primary is missing: redis+sentinel://HOST:PORT/NAME".to_owned());
        }
        let plain = tls && self.query == "sentinels=plain";
        if plain {
            self.query = "";
        }
        let (sentinels, name) = (self.hosts(SENTINEL_PORT)?, name.to_owned());
        Ok((RedisKind::Sentinel { sentinels, tls: tls && !plain, name }, database(number)?))
    }

    fn cluster(&mut self) -> Result<(RedisKind, u32), String> {
        match database(self.path)? {
            0 => Ok((RedisKind::Cluster(self.hosts(SERVER_PORT)?), 0)),
            _ => Err("a Redis Cluster has no numbered databases; leave the number out".to_owned()),
        }
    }

    fn hosts(&self, port: u16) -> Result<Vec<RedisHost>, String> {
        self.hosts.split(',').map(|text| host(text, port)).collect()
    }
}

fn host(text: &str, port_default: u16) -> Result<RedisHost, String> {
    let wrong = || format!("there is no host where one belongs; write {FORMS}");
    let (name, port) = match text.strip_prefix('[') {
        Some(bracketed) => bracketed.split_once(']').ok_or_else(wrong)?,
        None => text.split_at(text.find(':').unwrap_or(text.len())),
    };
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b':');
    if name.is_empty() || !name.bytes().all(is_name) {
        return Err(wrong());
    }
    let port = match port.strip_prefix(':') {
        None if port.is_empty() => port_default,
        Some(digits) => digits.parse().ok().filter(|port| *port != 0).ok_or("a port is a number from 1 to 65535")?,
        None => return Err(wrong()),
    };
    Ok(RedisHost { name: name.to_owned(), port })
}

fn database(text: &str) -> Result<u32, String> {
    match text.trim_end_matches('/') {
        "" => Ok(0),
        digits => digits.parse().map_err(|_| "a database of Redis is a number, such as redis://HOST:PORT/1".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(url: &str) -> RedisAddress {
        url.parse::<RedisUrl>().unwrap_or_else(|error| panic!("{url}: {error}")).address().expect(url).clone()
    }

    fn at(name: &str, port: u16) -> RedisHost {
        RedisHost { name: name.to_owned(), port }
    }

    #[test]
    fn the_password_is_shown_to_nobody() {
        for (url, shown) in [
            ("redis://user:ge:hei@m@host:1/2", "redis://user:***@host:1/2"),
            ("rediss+sentinel://:geheim@a,b/main", "rediss+sentinel://:***@a,b/main"),
            ("redis+unix://u:ge@heim@/run/r@1.sock", "redis+unix://u:***@/run/r@1.sock"),
        ] {
            let url: RedisUrl = url.parse().unwrap();
            assert_eq!(url.to_string(), shown);
            assert_eq!(format!("{url:?}"), format!("RedisUrl({shown})"));
            assert!(!format!("{:?}", url.address()).contains("hei"), "{:?}", url.address());
        }
        for wrong in ["http://user:secret@host", "redis://secret@host", "redis://u:secret@host#x", "redis://u:secret@"]
        {
            let wrong = wrong.parse::<RedisUrl>().unwrap_err();
            assert!(!wrong.contains("secret"), "{wrong}");
        }
    }

    #[test]
    fn users_and_passwords_are_decoded() {
        let address = parsed("redis://us%65r:pa:ss@w%25@host:1/2");
        assert_eq!((address.user.as_deref(), address.password.as_deref()), (Some("user"), Some("pa:ss@w%")));
        assert_eq!((address.kind, address.tls, address.database), (RedisKind::Server(at("host", 1)), false, 2));
        assert_eq!(parsed("redis://:p@h").user, None);
    }

    #[test]
    fn urls_of_every_kind() {
        assert_eq!("".parse::<RedisUrl>().unwrap().address(), None);
        assert_eq!(parsed("rediss://[::1]").kind, RedisKind::Server(at("::1", 6379)));
        assert!(parsed("rediss://h").tls);
        assert_eq!(parsed("redis+unix:///run/r@1.sock").kind, RedisKind::Unix("/run/r@1.sock".into()));
        let address = parsed("redis+unix://u:p@/run/r.sock?db=3");
        assert_eq!((address.kind, address.database), (RedisKind::Unix("/run/r.sock".into()), 3));
        let sentinels = vec![at("a", 1), at("b", 26379)];
        let address = parsed("redis+sentinel://a:1,b/main/4");
        let kind = RedisKind::Sentinel { sentinels: sentinels.clone(), tls: false, name: "main".into() };
        assert_eq!((address.kind, address.database), (kind, 4));
        for (url, tls) in [("rediss+sentinel://a:1,b/m", true), ("rediss+sentinel://a:1,b/m?sentinels=plain", false)] {
            assert_eq!(parsed(url).kind, RedisKind::Sentinel { sentinels: sentinels.clone(), tls, name: "m".into() });
            assert!(parsed(url).tls);
        }
        let nodes = vec![at("10.0.0.1", 7000), at("::2", 7001)];
        assert_eq!(parsed("rediss+cluster://10.0.0.1:7000,[::2]:7001/").kind, RedisKind::Cluster(nodes));
    }

    #[test]
    fn what_is_no_url_is_said() {
        for (wrong, why) in [
            ("127.0.0.1:6379", "no URL"),
            ("redis:/h", "no URL"),
            ("amqp://h", "no URL"),
            ("rediss+unix:///r", "no URL"),
            ("redis://", "no host"),
            ("redis://user:x@", "no host"),
            ("redis://h:0", "a port"),
            ("redis://h:1x", "a port"),
            ("redis://[::1", "no host"),
            ("redis://a,b", "one server"),
            ("redis://h/x", "a number"),
            ("redis://user@h", "needs a password"),
            ("rediss://h/#insecure", "always checked"),
            ("redis://h?protocol=resp3", "behind its ?"),
            ("redis+unix://run/r.sock", "whole path"),
            ("redis+sentinel://a:1", "name of the primary"),
            ("redis+sentinel://a:1/m?sentinels=plain", "behind its ?"),
            ("redis+cluster://a:1/2", "no numbered"),
        ] {
            let error = wrong.parse::<RedisUrl>().expect_err(wrong);
            assert!(error.contains(why), "{wrong}: {error}");
        }
    }
}
