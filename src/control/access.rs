//! Who is shown what is not for everybody: who counts as loopback, who shows a key, and who asks on a listener of the
//! operator's own.

use std::net::SocketAddr;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, Version, header};
use axum::response::{IntoResponse, Response};

use super::{Current, Node};
use crate::auth::ApiKeys;
use crate::config::Verb;
use crate::loopback::{Ends, RequestLine, is_loopback};
use crate::reactor::{Provenance, RemoteAddr};

/// What plain HTTP asks of those who want more than everybody gets.
#[derive(Clone, Debug)]
pub struct Access {
    /// Each listener, by its [`ListenerId`](crate::reactor::ListenerId).
    pub listeners: Vec<BoundListener>,
    /// Keys of programs.
    pub keys: Current<ApiKeys>,
    /// Whether what counts as loopback needs none.
    pub loopback: bool,
}

/// A listener, as far as what comes through it is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BoundListener {
    /// Where it really is; none of a Unix socket.
    pub address: Option<SocketAddr>,
    /// Whether it is the operator's alone.
    pub admin: bool,
}

impl Access {
    /// Whether a request may do what is only for loopback.
    pub(super) fn is_loopback(&self, parts: &Parts) -> bool {
        let Some(provenance) = parts.extensions.get::<Provenance>() else { return false };
        let peer = match provenance.remote {
            RemoteAddr::Tcp(address) => Some(address),
            RemoteAddr::Unix => None,
        };
        let listener = self.listener(provenance).and_then(|listener| listener.address);
        let ends = Ends { listener, peer, proxied: provenance.proxied };
        let line = RequestLine {
            is_http_1_1: parts.version == Version::HTTP_11,
            is_origin_form: parts.uri.authority().is_none(),
        };
        let fields = parts.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
        self.loopback && is_loopback(ends, line, fields)
    }

    fn listener(&self, provenance: &Provenance) -> Option<&BoundListener> {
        self.listeners.get(usize::from(provenance.listener.0))
    }

    /// Whether something came through a listener of the operator's own.
    pub(super) fn is_admin(&self, provenance: &Provenance) -> bool {
        self.listener(provenance).is_some_and(|listener| listener.admin)
    }

    /// Whether a request may read the node's counters.
    fn check_reader(&self, parts: &Parts) -> Result<(), Refusal> {
        if parts.extensions.get::<Provenance>().is_some_and(|provenance| self.is_admin(provenance)) {
            return Ok(());
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

/// The key that a request shows (RFC 6750 §2.1). Of several none counts.
fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
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
}

impl IntoResponse for Refusal {
    /// With a challenge (RFC 6750 §3).
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

/// A request that may do what is only for loopback, or may not.
pub(super) struct Loopback(pub(super) bool);

impl FromRequestParts<Node> for Loopback {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, node: &Node) -> Result<Loopback, Self::Rejection> {
        Ok(Loopback(node.access.is_loopback(parts)))
    }
}
