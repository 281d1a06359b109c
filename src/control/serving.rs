//! One connection of plain HTTP, from the socket that a reactor hands over to its end, or to the request for an upgrade with
//! which it goes back.
//!
//! ```text
//!   Guest ─► HTTP/2 preface? ─┬─ yes ─► hyper, HTTP/2 ──► ended
//!                             └─ no ──► hyper, HTTP/1.1 ─┬─► ended
//!                                                        └─► a request behind the first asks for an upgrade ─► WayBack
//! ```
//!
//! hyper reads the heads. A request that asks for an upgrade is not answered: its service never is ready, and once all
//! answers before it are with the kernel the connection is taken apart. The reactor gets the head again, written from what
//! hyper has read, and every byte behind it. The reactor has found the first request to be none that asks so: it is answered
//! in any case, and no socket goes round in circles.

use std::convert::Infallible;
use std::future::{Future, pending, poll_fn};
use std::io::Write;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use axum::Router;
use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Uri, Version, header};
use axum::response::IntoResponse;
use hyper::body::{Body as _, Bytes, Frame, Incoming, SizeHint};
use hyper::server::conn::{http1, http2};
use hyper::service::Service;
use hyper_util::rt::{TokioExecutor, TokioIo};
use socket2::Socket;
use tower_service::Service as _;

use super::access::Access;
use super::lanes::refuse;
use super::places::{Asked, Link, Place, UnderWay};
use super::transport::Transport;
use crate::conn::{HeadLimits, is_http_2};
use crate::ids::ReactorId;
use crate::limits::{
    HTTP_HEAD_BYTES_MIN, HTTP_HEADERS_FREE, HTTP2_ERROR_RESETS_MAX, HTTP2_RESETS_WAITING_MAX, HTTP2_SEND_BYTES_MAX,
    HTTP2_STREAMS_MAX, HTTP2_WINDOW_BYTES,
};
use crate::reactor::{Arrival, Errand, Handover, WayBack};
use crate::tls;

/// What all connections of a lane have in common.
pub(super) struct Site {
    /// What is served.
    pub(super) routes: Router,
    /// Who may see what.
    pub(super) access: Arc<Access>,
    /// Bounds of a request's head.
    pub(super) head: HeadLimits,
    /// How sockets go back to the reactors.
    pub(super) way_back: Arc<WayBack<tls::Stream<Socket>>>,
}

/// A socket on its way to being served.
#[derive(Debug)]
pub(super) struct Guest {
    pub(super) stream: tls::Stream<Socket>,
    pub(super) read: Vec<u8>,
    pub(super) arrival: Arrival,
    /// The reactor that it came from.
    pub(super) from: ReactorId,
}

/// Serves a guest to its end.
pub(super) async fn serve(site: Arc<Site>, guest: Guest, place: Place) {
    let Guest { stream, read, arrival, from } = guest;
    let is_http_2 = is_http_2(&read);
    let transport = match Transport::new(stream, read, place.link.clone()) {
        Ok(transport) => TokioIo::new(transport),
        Err(error) => return tracing::debug!(%error, "plain HTTP: a socket cannot be served"),
    };
    let visit = Visit(Arc::new(Visitor { site, link: place.link.clone(), arrival, wanted: OnceLock::new() }));
    match is_http_2 {
        true => serve_http_2(transport, visit, &place).await,
        false => serve_http_1(transport, visit, place, from).await,
    }
}

async fn serve_http_2(transport: TokioIo<Transport>, visit: Visit, place: &Place) {
    place.link.note_http_2();
    let head_bytes_max = u32::try_from(visit.0.site.head.bytes_max).unwrap_or(u32::MAX);
    let mut connection = http2::Builder::new(TokioExecutor::new())
        .max_concurrent_streams(HTTP2_STREAMS_MAX)
        .initial_stream_window_size(HTTP2_WINDOW_BYTES)
        .initial_connection_window_size(HTTP2_WINDOW_BYTES)
        .max_send_buf_size(HTTP2_SEND_BYTES_MAX)
        .max_header_list_size(head_bytes_max)
        .max_pending_accept_reset_streams(HTTP2_RESETS_WAITING_MAX)
        .max_local_error_reset_streams(HTTP2_ERROR_RESETS_MAX)
        .serve_connection(transport, visit);
    let link = &place.link;
    let mut finishes = false;
    let ended = poll_fn(|cx| {
        let asked = link.asked(cx.waker());
        if asked == Asked::Cut {
            return Poll::Ready(Ok(()));
        }
        if (asked == Asked::Finish || place.is_last) && !std::mem::replace(&mut finishes, true) {
            Pin::new(&mut connection).graceful_shutdown();
        }
        match Pin::new(&mut connection).poll(cx) {
            // Its peer knows that nothing more is taken (GOAWAY).
            Poll::Pending if finishes && link.is_idle() && (link.has_served() || !place.is_last) => Poll::Ready(Ok(())),
            outcome => outcome,
        }
    });
    if let Err(error) = ended.await {
        tracing::debug!(%error, "plain HTTP/2 connection failed");
    }
}

/// How serving HTTP/1.1 ends.
enum End {
    Over(hyper::Result<()>),
    Upgrade,
}

async fn serve_http_1(transport: TokioIo<Transport>, visit: Visit, place: Place, from: ReactorId) {
    let HeadLimits { bytes_max, headers_max } = visit.0.site.head;
    let visitor = visit.0.clone();
    let mut builder = http1::Builder::new();
    builder.keep_alive(!place.is_last).max_header_size(bytes_max).max_buf_size(bytes_max.max(HTTP_HEAD_BYTES_MIN));
    if headers_max > HTTP_HEADERS_FREE {
        builder.max_headers(headers_max);
    }
    let mut connection = builder.serve_connection(transport, visit);
    let link = place.link.clone();
    let mut finishes = false;
    let end = poll_fn(|cx| {
        match link.asked(cx.waker()) {
            Asked::Nothing => {}
            Asked::Finish if finishes => {}
            Asked::Finish => {
                finishes = true;
                Pin::new(&mut connection).graceful_shutdown();
            }
            Asked::Cut => return Poll::Ready(End::Over(Ok(()))),
        }
        match Pin::new(&mut connection).poll(cx) {
            Poll::Ready(outcome) => Poll::Ready(End::Over(outcome)),
            Poll::Pending if visitor.wanted.get().is_some() && link.is_flushed() => Poll::Ready(End::Upgrade),
            Poll::Pending => Poll::Pending,
        }
    });
    match end.await {
        End::Over(Ok(())) => {}
        End::Over(Err(error)) => tracing::debug!(%error, "plain HTTP connection failed"),
        End::Upgrade => {
            let parts = connection.into_parts();
            drop(place);
            give_back(&visitor, parts.io.into_inner(), &parts.read_buf, from);
        }
    }
}

/// A request asks for an upgrade: the reactor that has accepted the socket gets it again.
fn give_back(visitor: &Visitor, transport: Transport, behind: &[u8], from: ReactorId) {
    let (Some(head), Some((stream, rest))) = (visitor.wanted.get(), transport.into_parts()) else { return };
    let read = [head, behind, &*rest].concat();
    let handover = Handover { stream, read, arrival: visitor.arrival, errand: Errand::Serve };
    if let Err(handover) = visitor.site.way_back.give(from, handover) {
        tracing::debug!("an upgrade refused: too many sockets wait for their reactor");
        refuse(handover.stream);
    }
}

/// Answers the requests of one connection.
#[derive(Clone)]
struct Visit(Arc<Visitor>);

struct Visitor {
    site: Arc<Site>,
    link: Arc<Link>,
    arrival: Arrival,
    /// The head of a request that asks for an upgrade: nothing is answered behind it.
    wanted: OnceLock<Vec<u8>>,
}

type Answer = Result<Response<AnswerBody>, Infallible>;

impl Service<Request<Incoming>> for Visit {
    type Response = Response<AnswerBody>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Answer> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let Visit(visitor) = self;
        let (parts, body) = request.into_parts();
        if parts.version != Version::HTTP_2 && visitor.link.has_served() && asks_for_upgrade(&parts.headers) {
            // It is the last: nothing is read behind it.
            let _ = visitor.wanted.set(head_of(&parts));
            return Box::pin(pending());
        }
        let under_way = visitor.link.begin();
        let visitor = visitor.clone();
        Box::pin(async move {
            let answer = visitor.answer(parts, body).await;
            let (parts, body) = answer.into_parts();
            Ok(Response::from_parts(parts, AnswerBody::new(body, under_way)))
        })
    }
}

impl Visitor {
    async fn answer(&self, mut parts: Parts, body: Incoming) -> Response<Body> {
        // A proxy that reads the other length would see the next request elsewhere: it is the last (RFC 9112 §6.1).
        let is_last = parts.headers.contains_key(header::TRANSFER_ENCODING);
        if let Err(what) = name_host(&mut parts) {
            return (StatusCode::BAD_REQUEST, [(header::CONNECTION, "close")], what).into_response();
        }
        let provenance = self.site.access.provenance(self.arrival, &parts.headers);
        parts.extensions.insert(provenance);
        let body = if body.is_end_stream() { Body::empty() } else { Body::new(body) };
        let mut routes = self.site.routes.clone();
        let Ok(mut answer) = routes.call(Request::from_parts(parts, body)).await;
        if is_last {
            answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        answer
    }
}

/// An answer's body, at whose end the request is over.
struct AnswerBody {
    body: Body,
    _under_way: UnderWay,
}

impl AnswerBody {
    fn new(body: Body, under_way: UnderWay) -> AnswerBody {
        AnswerBody { body, _under_way: under_way }
    }
}

impl hyper::body::Body for AnswerBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.get_mut().body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Sees to it that a request names its host once, in `Host`, and has a path for its target where it is one of HTTP/2: there
/// the host stands in `:authority` (RFC 9113 §8.3.1).
///
/// # Errors
/// What is wrong with it.
fn name_host(parts: &mut Parts) -> Result<(), &'static str> {
    if parts.version == Version::HTTP_2
        && let Some(authority) = parts.uri.authority()
    {
        let named = HeaderValue::from_str(authority.as_str()).map_err(|_| ":authority is no host and port\n")?;
        if parts.headers.get(header::HOST).is_some_and(|host| *host != named) {
            return Err("Host is another than :authority\n");
        }
        parts.headers.insert(header::HOST, named);
        if let Some(path) = parts.uri.path_and_query() {
            parts.uri = Uri::from(path.clone());
        }
    }
    let mut hosts = parts.headers.get_all(header::HOST).iter();
    match (hosts.next(), hosts.next()) {
        (None, _) if parts.version != Version::HTTP_10 => Err("the Host header is missing\n"),
        (Some(_), Some(_)) => Err("the request has more than one Host header\n"),
        (None | Some(_), None) | (None, Some(_)) => Ok(()),
    }
}

/// Whether a request is one for a reactor: it asks for a WebSocket, or shows a key of one whose upgrade was lost. The reactor
/// decides about it.
fn asks_for_upgrade(headers: &HeaderMap) -> bool {
    let names_websocket = |value: &HeaderValue| {
        value.as_bytes().split(|byte| *byte == b',').any(|token| token.trim_ascii().eq_ignore_ascii_case(b"websocket"))
    };
    headers.contains_key(header::SEC_WEBSOCKET_KEY) || headers.get_all(header::UPGRADE).iter().any(names_websocket)
}

/// A request's head, as a reactor reads it: what hyper has read of it, field by field.
fn head_of(parts: &Parts) -> Vec<u8> {
    let version = if parts.version == Version::HTTP_10 { "1.0" } else { "1.1" };
    let mut head = Vec::with_capacity(512);
    // Writing to memory does not fail.
    let _ = write!(head, "{} {} HTTP/{version}\r\n", parts.method, parts.uri);
    for (name, value) in &parts.headers {
        head.extend_from_slice(name.as_str().as_bytes());
        head.extend_from_slice(b": ");
        head.extend_from_slice(value.as_bytes());
        head.extend_from_slice(b"\r\n");
    }
    head.extend_from_slice(b"\r\n");
    head
}
