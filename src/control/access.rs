//! Who is shown what is not for everybody: who counts as loopback, who shows a key, and who asks on a listener of the
//! operator's own.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Version, header};
use axum::response::{IntoResponse, Response};

use super::Node;
use crate::auth::ApiKeys;
use crate::config::{Role, Verb};
use crate::current::Current;
use crate::loopback::{Ends, RequestLine, is_loopback};
use crate::network::Networks;
use crate::reactor::{Arrival, ListenerId, Provenance, RemoteAddr};

/// What plain HTTP asks of those who want more than everybody gets.
#[derive(Clone, Debug)]
pub struct Access {
    /// Each listener, by its [`ListenerId`](crate::reactor::ListenerId).
    pub listeners: Vec<BoundListener>,
    /// Keys of programs.
    pub keys: Current<ApiKeys>,
    /// Whether what counts as loopback needs none.
    pub loopback: bool,
    /// Proxies that are believed when they say whose a request is.
    pub trusted: Arc<Networks>,
}

/// A listener, as far as what comes through it is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BoundListener {
    /// Where it really is; none of a Unix socket.
    pub address: Option<SocketAddr>,
    /// For whom it is.
    pub role: Role,
}

impl Access {
    /// Whether a request may do what is only for loopback.
    pub(super) fn is_loopback(&self, parts: &Parts) -> bool {
        let Some(provenance) = parts.extensions.get::<Provenance>() else { return false };
        let listener = self.listener(provenance).and_then(|listener| listener.address);
        let ends = Ends { listener, peer: provenance.remote.tcp(), proxied: provenance.proxied };
        let line = RequestLine {
            is_of_a_client: matches!(parts.version, Version::HTTP_11 | Version::HTTP_2),
            is_origin_form: parts.uri.authority().is_none(),
        };
        let fields = parts.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
        self.loopback && is_loopback(ends, line, fields)
    }

    fn listener(&self, provenance: &Provenance) -> Option<&BoundListener> {
        self.listeners.get(usize::from(provenance.listener.0))
    }

    /// Whether something came through a listener of the operator's own.
    fn is_admin(&self, provenance: &Provenance) -> bool {
        self.role(provenance.listener) == Role::Admin
    }

    /// Whether there is a listener of this kind.
    pub(super) fn has_listener(&self, role: Role) -> bool {
        self.listeners.iter().any(|listener| listener.role == role)
    }

    /// For whom a listener is.
    pub(super) fn role(&self, listener: ListenerId) -> Role {
        self.listeners.get(usize::from(listener.0)).map_or(Role::Clients, |listener| listener.role)
    }

    /// Where a request really comes from: on one connection of a proxy each may be another client's.
    pub(super) fn provenance(&self, arrival: Arrival, headers: &HeaderMap) -> Provenance {
        arrival.of_request(headers.get_all(FORWARDED_FOR).iter().map(HeaderValue::as_bytes), &self.trusted)
    }

    /// Whether a request may have the configuration read again: it comes through a listener of the operator's own, or counts
    /// as loopback, and no web page of another site sends it.
    fn is_operators(&self, parts: &Parts) -> bool {
        let is_admin = parts.extensions.get::<Provenance>().is_some_and(|provenance| self.is_admin(provenance));
        (is_admin || self.is_loopback(parts)) && !is_of_a_foreign_page(&parts.headers)
    }

    /// Whether a request may read the node's counters.
    fn check_reader(&self, parts: &Parts) -> Result<(), Refusal> {
        if let Some(provenance) = parts.extensions.get::<Provenance>().filter(|provenance| self.is_admin(provenance)) {
            // What comes through a Unix socket comes from a program, or from a proxy that knows whom it lets in.
            let may_be_a_browser = provenance.remote != RemoteAddr::Unix;
            return match may_be_a_browser && is_of_a_foreign_page(&parts.headers) {
                true => Err(Refusal::ForeignPage),
                false => Ok(()),
            };
        }
        let shown = bearer(&parts.headers);
        let keys = self.keys.get();
        let grant = shown.and_then(|shown| keys.find(shown));
        match grant {
            Some(grant) if grant.may(Verb::Read) => Ok(()),
            _ if self.is_loopback(parts) => Ok(()),
            Some(_) => Err(Refusal::MayNotRead),
            None if shown.is_some() => Err(Refusal::UnknownKey),
            None => Err(Refusal::NoKey),
        }
    }
}

/// Whether a web page of another site asks in the browser of one who may. A browser says so itself in `Origin` and
/// `Sec-Fetch-Site`. It says the latter to no plain `http:` address but of its own machine: there a page whose name was made
/// to lead here looks like one of this server, and only its name tells. Programs, which are asked for by all kinds of names,
/// do not say which language they would like to read.
fn is_of_a_foreign_page(headers: &HeaderMap) -> bool {
    let mut sites = headers.get_all(SEC_FETCH_SITE).iter().peekable();
    if headers.contains_key(header::ORIGIN) || sites.peek().is_some() {
        return headers.contains_key(header::ORIGIN) || !sites.all(|site| site == "same-origin" || site == "none");
    }
    headers.contains_key(header::ACCEPT_LANGUAGE) && headers.get_all(header::HOST).iter().any(is_a_name)
}

/// What proxies say of whom they ask for.
const FORWARDED_FOR: &str = "x-forwarded-for";

/// What browsers say of the page that asks (Fetch Metadata Request Headers, W3C).
const SEC_FETCH_SITE: &str = "sec-fetch-site";

/// Whether `Host` is a name, and no address: `localhost` leads nowhere else.
fn is_a_name(host: &HeaderValue) -> bool {
    let authority = host.to_str().ok().and_then(|host| host.trim().parse::<Authority>().ok());
    authority.is_none_or(|authority| {
        let name = authority.host();
        let bare = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(name);
        !name.eq_ignore_ascii_case("localhost") && bare.parse::<IpAddr>().is_err()
    })
}

/// The key that a request shows (RFC 6750 §2.1). Of several none counts.
pub(super) fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let mut fields = headers.get_all(header::AUTHORIZATION).iter();
    let (field, None) = (fields.next()?, fields.next()) else { return None };
    let (scheme, key) = field.as_bytes().split_at_checked("Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then_some(key.trim_ascii())
}

/// Why a request may not read the node's counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    NoKey,
    UnknownKey,
    MayNotRead,
    ForeignPage,
}

impl IntoResponse for Refusal {
    /// With a challenge (RFC 6750 §3), where a key would help.
    fn into_response(self) -> Response {
        let (status, challenge, body) = match self {
            Refusal::NoKey => (
                StatusCode::UNAUTHORIZED,
                "Bearer",
                "a key is needed: send Authorization: Bearer KEY with an [[api.key]] that may read, ask on an address of \
                 admin.listen, or from this machine at the address that the server itself listens on\n",
            ),
            Refusal::UnknownKey => (
                StatusCode::UNAUTHORIZED,
                "Bearer error=\"invalid_token\"",
                "this is no key of this server: see [[api.key]] in its configuration\n",
            ),
            Refusal::MayNotRead => (
                StatusCode::FORBIDDEN,
                "Bearer error=\"insufficient_scope\"",
                "this key may not read: add read to its verbs\n",
            ),
            Refusal::ForeignPage => {
                let body = "a web page of another site may not read this: in a browser, open this address by its number, \
                            as localhost, or over https\n";
                return (StatusCode::FORBIDDEN, [(header::CACHE_CONTROL, "no-store")], body).into_response();
            }
        };
        (status, [(header::WWW_AUTHENTICATE, challenge), (header::CACHE_CONTROL, "no-store")], body).into_response()
    }
}

/// Who may read the node's counters.
pub(super) struct Reader;

impl FromRequestParts<Node> for Reader {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, node: &Node) -> Result<Reader, Refusal> {
        node.access.check_reader(parts).map(|()| Reader)
    }
}

/// Who may have the configuration read again.
pub(super) struct Operator;

impl FromRequestParts<Node> for Operator {
    type Rejection = (StatusCode, &'static str);

    async fn from_request_parts(parts: &mut Parts, node: &Node) -> Result<Operator, Self::Rejection> {
        let what = "the configuration is read again for requests on an address of admin.listen, or from this machine at the \
                    address that the server itself listens on\n";
        node.access.is_operators(parts).then_some(Operator).ok_or((StatusCode::FORBIDDEN, what))
    }
}

/// A request that may do what is only for loopback, or may not.
pub(super) struct Loopback(pub(super) bool);

impl FromRequestParts<Node> for Loopback {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, node: &Node) -> Result<Loopback, Self::Rejection> {
        Ok(Loopback(node.access.is_loopback(parts)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_foreign(fields: &[(&'static str, &'static str)]) -> bool {
        let fields =
            fields.iter().map(|(name, value)| (name.parse().expect("a name"), HeaderValue::from_static(value)));
        is_of_a_foreign_page(&HeaderMap::from_iter(fields))
    }

    #[test]
    fn programs_may_ask_by_any_name_and_pages_only_by_what_leads_nowhere_else() {
        for host in ["metrics.internal:9090", "evil.example", "127.0.0.1:9090", "[::1]:9090", "localhost", ""] {
            assert!(!is_foreign(&[("host", host), ("user-agent", "Prometheus/3.0.0"), ("accept", "*/*")]), "{host}");
        }
        let language = ("accept-language", "en");
        for host in ["127.0.0.1:9090", "127.0.0.1", "[::1]:9090", "[::1]", "10.1.2.3:80", "LocalHost:9090", "localhost"]
        {
            assert!(!is_foreign(&[("host", host), language]), "{host}");
            assert!(!is_foreign(&[("host", host), language, ("sec-fetch-site", "same-origin")]), "{host}");
        }
        for host in
            ["evil.example:9090", "localhost.evil.example", "127.0.0.1.evil.example:9090", "1.2.3.4.5", "x y", ""]
        {
            assert!(is_foreign(&[("host", host), language]), "{host}");
            assert!(is_foreign(&[("host", host), ("accept-language", "")]), "{host}");
        }
        let (own, name) = (("host", "127.0.0.1:9090"), ("host", "metrics.internal"));
        for site in ["same-origin", "none"] {
            assert!(!is_foreign(&[name, language, ("sec-fetch-site", site)]), "https, through a proxy");
        }
        for site in ["cross-site", "same-site", ""] {
            assert!(is_foreign(&[own, ("sec-fetch-site", site)]), "{site}");
            assert!(is_foreign(&[own, ("sec-fetch-site", "same-origin"), ("sec-fetch-site", site)]), "{site}");
        }
        for origin in ["https://evil.example", "null", "http://127.0.0.1:9090"] {
            assert!(is_foreign(&[own, ("origin", origin)]), "{origin}");
        }
    }
}
