//! Plain HTTP on the reactors' own port: the console page, health, statistics, metrics.
//!
//! A reactor hands over a socket whose request is no upgrade, with the bytes it has read; from there a well-kept HTTP
//! library serves it on a thread of its own, HTTP/1.1 and HTTP/2, health on another (`lanes`, `serving`). Connections are kept
//! for further requests, within bounds (`places`, `bodies`); one whose next request asks for an upgrade goes back to its
//! reactor. What a request asks of topics goes to their homes by mail, and is answered by mail (`requests`). Who may see what
//! is not for everybody is in `access`. May import `auth` and `config` for keys, `loopback`, `metrics`, `limits`, `protocol`, `tls`, of
//! `conn` the bounds of a head, `network`, and of `router` and `reactor` the messages, the mailbox and the way back; it never
//! touches a reactor.

mod access;
mod api;
mod console;
mod lanes;
mod metrics;
mod pages;
mod places;
mod publication;
mod reload;
mod requests;
mod secured;
mod serving;
mod stats;
mod transport;
mod window;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, post};
use crossbeam_channel::Sender;

pub use access::{Access, BoundListener};
pub use api::Settings as ApiSettings;
pub use console::{Doctor, Minter, Tokens};
pub use lanes::{Capacity, Handoff, start};
pub use reload::{ReloadRequest, Reloaded};
pub use requests::{Busy, ControlWaker, Requests};
pub use window::Window;

use access::Reader;

use crate::auth::Revocations;
use crate::config::Role;
use crate::current::Current;
use crate::limits::{CONSOLE_REQUEST_BYTES_MAX, PULSE_LOOK_MS, PULSE_MS_MAX};
use crate::metrics::NodeMetrics;
use crate::reactor::{PostOffice, Pulse, Silence};

/// What the control thread knows of the node.
#[derive(Clone, Debug)]
pub struct Node {
    /// The counters of all reactors.
    pub metrics: Arc<NodeMetrics>,
    /// When the node started.
    pub started: Instant,
    /// Whether new connections are welcome: not before all reactors run, nor once the node goes away.
    pub ready: Arc<AtomicBool>,
    /// Whether its reactors turn.
    pub pulse: Arc<Pulse>,
    /// How long a reactor may be silent that is asked to turn.
    pub stall_max: Duration,
    /// Where it is asked for that the configuration is read again.
    pub reload: Sender<ReloadRequest>,
    /// Who is shown what is not for everybody.
    pub access: Arc<Access>,
    /// How clients get in.
    pub tokens: Current<Tokens>,
    /// The mailboxes of the node's threads.
    pub post: PostOffice,
    /// What percentiles of a recent time are made from.
    pub window: Arc<Window>,
    /// What the operator's page is told about the machine.
    pub doctor: Arc<Doctor>,
    /// What the HTTP API is told to do.
    pub api: ApiSettings,
    /// A number that no other run of a server has: the node's name.
    pub run: u64,
    /// Whose tokens are revoked; `None` where none is asked for.
    pub revocations: Option<Arc<Revocations>>,
}

/// All that is served through listeners of a kind. The API is served where it is meant to be: on its own listeners where
/// there are such.
fn routes(node: Node, api: Router, role: Role) -> Router {
    let has_own_listener = node.access.has_listener(Role::Api);
    let routes = match role {
        Role::Api => health(node),
        Role::Clients | Role::Admin => health(node.clone()).merge(pages(node)),
    };
    match role == Role::Clients && has_own_listener {
        true => routes.fallback(nothing),
        false => routes.merge(api).fallback(nothing),
    }
}

/// Everything but the API and what is about health.
fn pages(node: Node) -> Router {
    Router::new()
        .route("/", page(get(pages::console)))
        .route("/operator", page(get(pages::operator)))
        .route("/ladder", page(get(pages::ladder)))
        .route("/assets/{name}", page(get(pages::asset)))
        .route("/console/tokens", page(get(console::tokens)))
        .route("/console/token", post(console::token).layer(DefaultBodyLimit::max(CONSOLE_REQUEST_BYTES_MAX)))
        .route("/console/doctor", page(get(console::doctor)))
        .route("/ws", page(get(upgrade_required)))
        .route("/raw/{room}", page(get(upgrade_required)))
        .route("/stats", page(get(stats)))
        .route("/metrics", page(get(metrics)))
        .route("/reload", post(reload::reload))
        .with_state(node)
}

/// What every answer of JSON says of it: it is of this moment.
const JSON_HEADERS: [(HeaderName, HeaderValue); 2] = [
    (header::CONTENT_TYPE, HeaderValue::from_static("application/json")),
    (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
];

/// An answer of JSON that ends its line.
fn json_answer(status: StatusCode, body: &serde_json::Value) -> Response {
    (status, JSON_HEADERS, format!("{body}\n")).into_response()
}

/// What balancers and supervisors ask. Some do it with `OPTIONS`, and mean the same.
fn health(node: Node) -> Router {
    Router::new()
        .route("/health/live", get(live).options(live))
        .route("/health/ready", get(ready).options(ready))
        .with_state(node)
}

/// A balancer's check may be an `OPTIONS` of any page.
fn page(get: MethodRouter<Node>) -> MethodRouter<Node> {
    get.options(options)
}

async fn options() -> Response {
    (StatusCode::OK, [(header::ALLOW, "GET, HEAD, OPTIONS")]).into_response()
}

async fn nothing(method: Method, uri: Uri) -> Response {
    // About the server as a whole (RFC 9110 §9.3.7).
    if method == Method::OPTIONS && uri.path() == "*" {
        return options().await;
    }
    (StatusCode::NOT_FOUND, "nothing here: / is the console\n").into_response()
}

async fn upgrade_required() -> Response {
    let headers = [(header::UPGRADE, "websocket"), (header::CONNECTION, "close, Upgrade")];
    let body = "this is a WebSocket endpoint: connect with a WebSocket client, and let proxies pass on Upgrade\n";
    (StatusCode::UPGRADE_REQUIRED, headers, body).into_response()
}

/// Every reactor is asked to turn. One that has been silent for too long is named: its connections hang, however well this
/// thread does.
async fn live(State(node): State<Node>) -> (StatusCode, String) {
    let asked = Instant::now();
    node.pulse.ask(asked);
    loop {
        let now = Instant::now();
        let silent = node.pulse.silent(now);
        if silent.is_empty() {
            return (StatusCode::OK, "live\n".to_owned());
        }
        let stalled = silent.iter().find(|silence| silence.lasts >= node.stall_max);
        if let Some(Silence { reactor, lasts }) = stalled {
            let body = format!("not live: reactor {} has not turned for {} ms\n", reactor.0, lasts.as_millis());
            return (StatusCode::SERVICE_UNAVAILABLE, body);
        }
        if now - asked >= Duration::from_millis(PULSE_MS_MAX) {
            return (StatusCode::OK, "live, and busy\n".to_owned());
        }
        tokio::time::sleep(Duration::from_millis(PULSE_LOOK_MS)).await;
    }
}

async fn ready(State(node): State<Node>) -> (StatusCode, &'static str) {
    let reachable = node.metrics.cluster.as_ref().is_none_or(|cluster| cluster.read().reachable == 1);
    match (node.ready.load(Ordering::Relaxed), reachable) {
        (true, true) => (StatusCode::OK, "ready\n"),
        (true, false) => (StatusCode::SERVICE_UNAVAILABLE, "not ready: Redis cannot be reached\n"),
        (false, _) => (StatusCode::SERVICE_UNAVAILABLE, "not ready: starting, or going away\n"),
    }
}

async fn stats(_: Reader, State(node): State<Node>) -> impl IntoResponse {
    (JSON_HEADERS, stats::json(&node))
}

async fn metrics(_: Reader, State(node): State<Node>, headers: HeaderMap) -> Response {
    metrics::page(&node, &headers)
}
