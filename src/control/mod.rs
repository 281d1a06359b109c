//! Plain HTTP on the reactors' own port: the console page, health, statistics, metrics.
//!
//! A reactor hands over a socket whose request is no upgrade, with the bytes it has read; from there a well-kept HTTP
//! library serves it on one thread of its own. Every response closes its connection, so that a client's next request,
//! which may be an upgrade, meets a reactor again. May import `metrics` and `limits`; it never touches a reactor.

mod metrics;
mod stats;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderName, StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use socket2::{Domain, Socket};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::sync::{Semaphore, mpsc};

use crate::limits::{HTTP_CONNECTIONS_MAX, HTTP_MS_MAX};
use crate::metrics::NodeMetrics;

const CONSOLE: &str = include_str!("console.html");

/// The console is one page without outside resources, and nothing else may run in it.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; \
     connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// What the control thread knows of the node.
#[derive(Clone, Debug)]
pub struct Node {
    /// Everybody's counters.
    pub metrics: Arc<NodeMetrics>,
    /// When the node started.
    pub started: Instant,
    /// Whether new connections are welcome: not before all reactors run, nor once the node goes away.
    pub ready: Arc<AtomicBool>,
}

/// Hands sockets to the control thread; clone it for every reactor.
#[derive(Clone, Debug)]
pub struct Handoff(mpsc::Sender<(Socket, Vec<u8>)>);

impl Handoff {
    /// Gives up a socket with the bytes already read from it. Where the control thread is overwhelmed the socket is
    /// closed.
    pub fn give(&self, socket: Socket, read: Vec<u8>) {
        if self.0.try_send((socket, read)).is_err() {
            tracing::warn!("plain HTTP request dropped: too many at once");
        }
    }
}

/// Starts the control thread; it ends with the process.
///
/// # Errors
/// Where the thread or its event loop cannot be made.
pub fn start(node: Node) -> io::Result<Handoff> {
    let (sender, receiver) = mpsc::channel(HTTP_CONNECTIONS_MAX);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new().name("control".into()).spawn(move || runtime.block_on(serve(node, receiver)))?;
    Ok(Handoff(sender))
}

async fn serve(node: Node, mut sockets: mpsc::Receiver<(Socket, Vec<u8>)>) {
    let routes = routes(node);
    let places = Arc::new(Semaphore::new(HTTP_CONNECTIONS_MAX));
    while let Some((socket, read)) = sockets.recv().await {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        let routes = routes.clone();
        tokio::spawn(async move {
            let served = tokio::time::timeout(Duration::from_millis(HTTP_MS_MAX), serve_socket(routes, socket, read));
            match served.await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::debug!(%error, "plain HTTP connection failed"),
                Err(_) => tracing::debug!("plain HTTP connection took too long"),
            }
            drop(place);
        });
    }
}

fn routes(node: Node) -> Router {
    Router::new()
        .route("/", get(console))
        .route("/ws", get(|| async { upgrade_required() }))
        .route("/health/live", get(|| async { "live\n" }))
        .route("/health/ready", get(ready))
        .route("/stats", get(stats))
        .route("/metrics", get(metrics))
        .fallback(|| async { (StatusCode::NOT_FOUND, "nothing here: / is the console\n") })
        .with_state(node)
}

async fn serve_socket(routes: Router, socket: Socket, read: Vec<u8>) -> io::Result<()> {
    if socket.domain()? == Domain::UNIX {
        let stream = tokio::net::UnixStream::from_std(std::os::fd::OwnedFd::from(socket).into())?;
        let (reader, writer) = stream.into_split();
        serve_stream(routes, read, reader, writer).await
    } else {
        let stream = tokio::net::TcpStream::from_std(std::os::fd::OwnedFd::from(socket).into())?;
        let (reader, writer) = stream.into_split();
        serve_stream(routes, read, reader, writer).await
    }
}

async fn serve_stream(
    routes: Router,
    read: Vec<u8>,
    reader: impl AsyncRead + Unpin + 'static,
    writer: impl AsyncWrite + Unpin + 'static,
) -> io::Result<()> {
    let stream = tokio::io::join(io::Cursor::new(read).chain(reader), writer);
    hyper::server::conn::http1::Builder::new()
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(routes))
        .await
        .map_err(io::Error::other)
}

async fn console() -> impl IntoResponse {
    let headers = [
        (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-cache"),
    ];
    (headers, Html(CONSOLE))
}

fn upgrade_required() -> Response {
    let headers: [(HeaderName, &str); 1] = [(header::UPGRADE, "websocket")];
    (StatusCode::UPGRADE_REQUIRED, headers, "this is a WebSocket endpoint\n").into_response()
}

async fn ready(State(node): State<Node>) -> (StatusCode, &'static str) {
    let reachable = node.metrics.cluster.as_ref().is_none_or(|cluster| cluster.read().reachable == 1);
    match (node.ready.load(Ordering::Relaxed), reachable) {
        (true, true) => (StatusCode::OK, "ready\n"),
        (true, false) => (StatusCode::SERVICE_UNAVAILABLE, "not ready: Redis cannot be reached\n"),
        (false, _) => (StatusCode::SERVICE_UNAVAILABLE, "not ready: starting, or going away\n"),
    }
}

async fn stats(State(node): State<Node>) -> impl IntoResponse {
    let headers = [(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store")];
    (headers, stats::json(&node))
}

async fn metrics(State(node): State<Node>) -> impl IntoResponse {
    let headers = [(header::CONTENT_TYPE, metrics::CONTENT_TYPE), (header::CACHE_CONTROL, "no-store")];
    (headers, metrics::text(&node))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_console_needs_nothing_from_outside() {
        for outside in ["http://", "https://", "src=\"//", "@import", "<link"] {
            let allowed =
                CONSOLE.matches("http://www.w3.org/").count() + CONSOLE.matches("https://www.w3.org/").count();
            assert!(CONSOLE.matches(outside).count() <= allowed, "the console mentions {outside}");
        }
    }
}
