//! What only the pages of this server may ask for: tokens of the console, and what the doctor says.
//!
//! Whoever gets a token of the console may do everything, as any user. So it is made only for what counts as loopback,
//! and only for the page itself: a page of another site can have a browser of this machine ask, but it cannot set the
//! field that is asked for, and its browser says where it comes from.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use ring::rand::SystemRandom;
use serde::Deserialize;
use serde_json::json;
use tokio::sync::Mutex;

use super::access::{Loopback, Reader};
use super::{JSON_HEADERS, Node, json_answer};
use crate::auth::SigningKey;
use crate::clock;
use crate::limits::{CONSOLE_BODY_MS_MAX, CONSOLE_TOKEN_S, DOCTOR_MS_MAX, USER_ID_BYTES_MAX};

/// The field that the page sends when it asks for a token. A browser asks the server before it lets a page of another
/// site send it, and the server does not agree (CORS).
const PAGE_FIELD: &str = "x-fanfare-console";

/// How clients of the node get in.
#[derive(Debug, Default)]
pub struct Tokens {
    /// Whether tokens mean anything.
    pub asked: bool,
    /// Whether nobody gets in without one.
    pub required: bool,
    /// What tokens of the console are made with, where the server has a secret for it.
    pub minter: Option<Arc<Minter>>,
}

/// What tokens of the console are made with.
pub struct Minter {
    /// A secret that tokens are checked by.
    pub key: SigningKey,
    /// The name of that key.
    pub kid: Option<String>,
    /// What `iss` has to be, if anything.
    pub issuer: Option<String>,
    /// What `aud` has to be, if anything.
    pub audience: Option<String>,
}

impl fmt::Debug for Minter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Minter").field("kid", &self.kid).finish_non_exhaustive()
    }
}

impl Minter {
    /// A token that allows everything, for so many seconds from `now_s`, Unix time. `None` where the system has no random
    /// numbers.
    fn mint(&self, sub: &str, now_s: u64) -> Option<String> {
        let mut claims = json!({
            "sub": sub,
            "iat": now_s,
            "exp": now_s + CONSOLE_TOKEN_S,
            "fanfare": {"join": ["*"], "publish": ["*"], "presence": ["*"], "private": true, "broadcast": true},
        });
        for (name, value) in [("iss", &self.issuer), ("aud", &self.audience)] {
            if let Some(value) = value {
                claims[name] = value.as_str().into();
            }
        }
        self.key.sign(self.kid.as_deref(), &claims.to_string(), &SystemRandom::new())
    }
}

/// What `fanfare doctor` says here, asked for by the operator's page.
pub struct Doctor {
    examine: Box<dyn Fn() -> String + Send + Sync>,
    /// The last answer, and when it was given. It is locked while the machine is read: once for all who ask.
    last: Mutex<Option<(Instant, String)>>,
}

impl Doctor {
    /// `examine` reads the machine and gives JSON.
    pub fn new(examine: impl Fn() -> String + Send + Sync + 'static) -> Doctor {
        Doctor { examine: Box::new(examine), last: Mutex::default() }
    }

    /// What was found, at most `limits::DOCTOR_MS_MAX` ago.
    async fn findings(self: Arc<Doctor>) -> String {
        let mut last = self.last.lock().await;
        if let Some((at, findings)) = &*last
            && at.elapsed() < Duration::from_millis(DOCTOR_MS_MAX)
        {
            return findings.clone();
        }
        let doctor = Arc::clone(&self);
        // Files of the kernel are read on a thread of their own.
        let findings = tokio::task::spawn_blocking(move || (doctor.examine)()).await.unwrap_or_default();
        *last = Some((Instant::now(), findings.clone()));
        findings
    }
}

impl fmt::Debug for Doctor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Doctor")
    }
}

pub(super) async fn doctor(_: Reader, State(node): State<Node>) -> Response {
    (JSON_HEADERS, node.doctor.findings().await).into_response()
}

/// Whether the page needs tokens, and where they come from.
pub(super) async fn tokens(State(node): State<Node>, Loopback(loopback): Loopback) -> Response {
    let current = node.tokens.get();
    let Tokens { asked, required, minter } = &*current;
    let tokens = match (asked, minter) {
        (false, _) => "none",
        (true, Some(_)) if loopback => "made",
        (true, _) => "asked",
    };
    json_answer(StatusCode::OK, &json!({ "tokens": tokens, "required": required }))
}

/// What the page asks for.
#[derive(Deserialize)]
struct Wanted {
    sub: String,
}

/// The console itself asks, on this machine, and the server has a secret for its tokens. It stands in front of the body:
/// whoever is refused has none read, and holds no place meanwhile.
pub(super) struct OfThePage(Arc<Minter>);

impl FromRequestParts<Node> for OfThePage {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, node: &Node) -> Result<OfThePage, Response> {
        let Some(minter) = node.tokens.get().minter.clone() else {
            return Err(refuse(
                StatusCode::FORBIDDEN,
                "this server makes no tokens: it asks for none, or has no secret for them",
            ));
        };
        let is_json = only(&parts.headers, "content-type") == Some(b"application/json");
        if !node.access.is_loopback(parts) || !is_json || !is_of_the_page(&parts.headers) {
            return Err(refuse(
                StatusCode::FORBIDDEN,
                "tokens are made for the console alone, on this machine, at the address that the server listens on: make \
                 one with fanfare token",
            ));
        }
        Ok(OfThePage(minter))
    }
}

/// A body that has come in time; only for whom [`OfThePage`] has let through.
pub(super) struct PromptBody(Bytes);

impl FromRequest<Node> for PromptBody {
    type Rejection = Response;

    async fn from_request(request: Request, node: &Node) -> Result<PromptBody, Response> {
        let body = Bytes::from_request(request, node);
        match tokio::time::timeout(Duration::from_millis(CONSOLE_BODY_MS_MAX), body).await {
            Ok(Ok(body)) => Ok(PromptBody(body)),
            Ok(Err(rejection)) => Err(rejection.into_response()),
            Err(_) => {
                Err(refuse(StatusCode::REQUEST_TIMEOUT, "the body did not come in time: send it with the request"))
            }
        }
    }
}

/// A token for the page.
pub(super) async fn token(OfThePage(minter): OfThePage, PromptBody(body): PromptBody) -> Response {
    let wanted = serde_json::from_slice::<Wanted>(&body).ok();
    let Some(Wanted { sub }) = wanted.filter(|wanted| (1..=USER_ID_BYTES_MAX).contains(&wanted.sub.len())) else {
        return refuse(StatusCode::BAD_REQUEST, "send {\"sub\":\"USER\"} with a user id of 1 to 128 bytes");
    };
    let now_s = clock::unix_s();
    match minter.mint(&sub, now_s) {
        Some(token) => json_answer(StatusCode::OK, &json!({ "token": token })),
        None => refuse(StatusCode::SERVICE_UNAVAILABLE, "the operating system has no random numbers: try again"),
    }
}

/// The value of a field that is there once.
fn only<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a [u8]> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => Some(value.as_bytes()),
        (_, _) => None,
    }
}

/// Whether a page of this server itself asks: no other page can.
pub(super) fn is_of_the_page(headers: &HeaderMap) -> bool {
    let is_absent = |name: &str| !headers.contains_key(name);
    let is_own_origin = match (only(headers, "origin"), only(headers, "host")) {
        (Some(origin), Some(host)) => [&b"http://"[..], b"https://"].iter().any(|scheme| {
            origin.strip_prefix(*scheme).is_some_and(|rest| rest.eq_ignore_ascii_case(host.trim_ascii()))
        }),
        (_, _) => is_absent("origin"),
    };
    let is_own_fetch = is_absent("sec-fetch-site") || only(headers, "sec-fetch-site") == Some(b"same-origin");
    is_own_origin && is_own_fetch && only(headers, PAGE_FIELD).is_some()
}

fn refuse(status: StatusCode, what: &str) -> Response {
    (status, [(header::CACHE_CONTROL, "no-store")], format!("{what}\n")).into_response()
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;
    use crate::auth::{Alg, Allowance, Auth, Key, Settings, When};

    const GOOD: [(&str, &str); 4] = [
        ("host", "127.0.0.1:8080"),
        ("origin", "http://127.0.0.1:8080"),
        ("sec-fetch-site", "same-origin"),
        ("x-fanfare-console", "1"),
    ];

    fn headers(fields: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_str(value).expect(value));
        }
        headers
    }

    #[test]
    fn only_the_console_itself_gets_a_token() {
        assert!(is_of_the_page(&headers(&GOOD)));
        let without = |name: &str| GOOD.into_iter().filter(|(other, _)| *other != name).collect::<Vec<_>>();
        for (name, needed) in [("origin", false), ("sec-fetch-site", false), ("x-fanfare-console", true)] {
            assert_eq!(is_of_the_page(&headers(&without(name))), !needed, "without {name}");
        }
        for (name, value) in [
            ("origin", "null"),
            ("origin", "https://evil.example"),
            ("origin", "http://localhost:8080"),
            ("origin", "http://127.0.0.1:3000"),
            ("origin", "http://127.0.0.1"),
            ("origin", "file://127.0.0.1:8080"),
            ("origin", ""),
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-site", "same-site"),
            ("sec-fetch-site", "none"),
        ] {
            let other = [&without(name)[..], &[(name, value)]].concat();
            assert!(!is_of_the_page(&headers(&other)), "{name}: {value}");
        }
        for field in GOOD {
            let twice = [&GOOD[..], &[field]].concat();
            assert!(!is_of_the_page(&headers(&twice)), "{} twice", field.0);
        }
    }

    #[test]
    fn a_token_of_the_console_allows_everything_and_ends_soon() {
        let secret = [7; 32];
        let key = SigningKey::secret(Alg::Hs256, &secret).expect("it is long enough");
        let minter =
            Minter { key, kid: Some("a".to_owned()), issuer: Some("me".to_owned()), audience: Some("us".to_owned()) };
        let settings = Settings {
            issuer: Some("me".to_owned()),
            audience: Some("us".to_owned()),
            anonymous: false,
            leeway_ms: 0,
            expiry_required: true,
            default: Allowance::default(),
        };
        let auth = Auth::new(settings, vec![Key::secret(Alg::Hs256, Some("a"), &secret).expect("it is long enough")]);
        let token = minter.mint("älice", 1_000).expect("there is randomness");
        let grant = auth.verify(&token, 1_000_000, When::Handshake).expect("it is good");
        assert_eq!((&*grant.user, grant.expires_unix_ms), ("älice", Some((1_000 + CONSOLE_TOKEN_S) * 1_000)));
        assert!(grant.permissions.may_join("den") && grant.permissions.may_publish("raw/den"));
        assert!(
            grant.permissions.may_presence("den")
                && grant.permissions.may_private()
                && grant.permissions.may_broadcast()
        );
        assert!(!format!("{minter:?}").contains("7, 7"));
    }
}
