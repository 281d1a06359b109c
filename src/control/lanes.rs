//! Who waits for whom: a request for health waits for no other client, and the operator for no stranger.
//!
//! ```text
//!                 ┌─ /health/… ────────────────► newest ─┐
//!  reactor ─ give ┼─ unread: no place for it ──► newest ─┴─► thread `health`: 32 + 32, 2 s each
//!                 ├─ through admin.listen ─────► places ─┐
//!                 ├─ through api.listen ───────► places ─┼─► thread `control`: 16, 256 and 256, kept (`places`)
//!                 └─ everything else ──────────► places ─┘
//! ```
//!
//! A descriptor is kept back for each (`descriptors`). On the thread `control` connections are kept between requests, and who
//! idles makes room for who asks; where all are busy, one more is refused. Of health each connection serves one request, the
//! newest is served, and the oldest makes room for it: nothing tells those who will ask about health from those who will say
//! nothing, and who is not served at once will not be.
//!
//! The address of a client is not counted while the thread has its connection: what bounds it are the places.

use std::collections::VecDeque;
use std::future::Future;
use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::future::{Either, join, join_all, select};
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use socket2::Socket;
use tokio::io::AsyncWriteExt;
use tokio::sync::{Notify, Semaphore, mpsc, oneshot};

use super::access::Access;
use super::places::{Link, Place, Places};
use super::serving::{Guest, Site, serve};
use super::transport::Transport;
use super::{Node, Requests};
use crate::config::Role;
use crate::conn::HeadLimits;
use crate::ids::ReactorId;
use crate::limits::{HEALTH_MS_MAX, RETRY_AFTER_S_MAX};
use crate::reactor::{Errand, Handover, WayBack};
use crate::tls;

/// How many sockets each thread may have.
#[derive(Clone, Copy, Debug)]
pub struct Capacity {
    /// All that is not about health.
    pub pages: usize,
    /// The same through listeners of the operator's own.
    pub admin: usize,
    /// The same through listeners of the API.
    pub api: usize,
    /// Health; as many that came when the node had no place for another socket; and as many of both that wait.
    pub health: usize,
}

/// Hands sockets to the threads of plain HTTP; clone it for every reactor.
#[derive(Clone, Debug)]
pub struct Handoff {
    pages: Lane,
    admin: Lane,
    api: Lane,
    health: Arc<Newest>,
    late: Arc<Newest>,
    access: Arc<Access>,
}

impl Handoff {
    /// Takes a socket from a reactor. Where the thread has no place for it, it is answered 503; one whose TLS has not begun is
    /// closed.
    pub fn give(&self, from: ReactorId, handover: Handover<tls::Stream<Socket>>) {
        let Handover { stream, read, arrival, errand } = handover;
        let guest = Guest { stream, read, arrival, from };
        match errand {
            Errand::Refuse => refuse(guest.stream),
            // Many handshakes would keep those from their answers who ask about health.
            Errand::FindOut if matches!(guest.stream.layer, tls::Layer::Wanted(_)) => refuse(guest.stream),
            Errand::FindOut => self.late.give(guest),
            Errand::Serve if path(&guest.read).starts_with(b"/health/") => self.health.give(guest),
            Errand::Serve => match self.access.role(arrival.provenance.listener) {
                Role::Clients => self.pages.give(guest),
                Role::Admin => self.admin.give(guest),
                Role::Api => self.api.give(guest),
            },
        }
    }
}

/// The path in a request's first line, whatever stands in front of it (RFC 9112 §2.2, §3.2.2). Empty without a line.
fn path(head: &[u8]) -> &[u8] {
    let line = head.split(|byte| *byte == b'\n').find(|line| !line.trim_ascii().is_empty()).unwrap_or_default();
    let target = line.split(|byte| *byte == b' ').nth(1).unwrap_or_default();
    let target = target.split(|byte| *byte == b'?').next().unwrap_or_default();
    if target.starts_with(b"/") {
        return target;
    }
    let behind_scheme = memchr::memmem::find(target, b"://").map_or(target, |at| &target[at + 3..]);
    memchr::memchr(b'/', behind_scheme).map_or(&[][..], |at| &behind_scheme[at..])
}

/// The way of one kind of request.
#[derive(Clone, Debug)]
struct Lane {
    places: Arc<Places>,
    /// Each with its place: there are no more than that.
    guests: mpsc::UnboundedSender<(Guest, Place)>,
}

impl Lane {
    /// A lane, and what serves those who come through it until the process ends.
    fn new(places_max: usize, site: Site) -> (Lane, impl Future<Output = ()> + Send) {
        let (guests, mut receiver) = mpsc::unbounded_channel();
        let places = Places::new(places_max);
        let watch = places.clone().watch();
        let site = Arc::new(site);
        let serving = async move {
            while let Some((guest, place)) = receiver.recv().await {
                tokio::spawn(serve(site.clone(), guest, place));
            }
        };
        let serving = async move {
            join(watch, serving).await;
        };
        (Lane { places, guests }, serving)
    }

    fn give(&self, guest: Guest) {
        let Some(place) = self.places.take() else {
            tracing::debug!("plain HTTP refused: too many at once");
            return refuse(guest.stream);
        };
        // It fails only where the thread has ended, and with it the process.
        let _ = self.guests.send((guest, place));
    }
}

/// The way of what is about health, or may be.
#[derive(Debug)]
struct Newest {
    waiting: Mutex<VecDeque<Guest>>,
    places: usize,
    /// One more waits.
    news: Notify,
}

impl Newest {
    fn new(places: usize) -> Arc<Newest> {
        Arc::new(Newest { waiting: Mutex::default(), places, news: Notify::new() })
    }

    fn give(&self, guest: Guest) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.push_back(guest);
        let oldest = if waiting.len() > self.places { waiting.pop_front() } else { None };
        drop(waiting);
        if let Some(oldest) = oldest {
            refuse(oldest.stream);
        }
        self.news.notify_one();
    }

    async fn next(&self) -> Guest {
        loop {
            if let Some(next) = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).pop_front() {
                return next;
            }
            self.news.notified().await;
        }
    }
}

const NO_PLACE: &str = "this node has no room for this request now: try again later\n";

/// The answer where nothing of the request is looked at.
fn no_place() -> String {
    let retry_after_s = fastrand::u32(1..=RETRY_AFTER_S_MAX);
    format!(
        "HTTP/1.1 503 Service Unavailable\r\nRetry-After: {retry_after_s}\r\nContent-Type: text/plain; charset=utf-8\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n{NO_PLACE}",
        NO_PLACE.len()
    )
}

/// The same, where it was.
async fn answer_no_room() -> Response {
    let retry_after_s = fastrand::u32(1..=RETRY_AFTER_S_MAX);
    (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, retry_after_s.to_string())], NO_PLACE).into_response()
}

/// Says no, as far as the kernel takes it at once; nothing where a TLS handshake would have to come first.
pub(super) fn refuse(stream: tls::Stream<Socket>) {
    let tls::Stream { mut socket, layer } = stream;
    let answer = match layer {
        tls::Layer::Plain => no_place().into_bytes(),
        tls::Layer::Wanted(_) => Vec::new(),
        tls::Layer::Open(mut secured) => {
            let mut records = std::mem::take(&mut secured.owed);
            // Without keys there is nothing that it could be told with.
            let _ = secured.session.seal(no_place().as_bytes(), &mut records);
            secured.session.close(&mut records);
            records
        }
    };
    let _ = socket.set_nonblocking(true);
    let _ = socket.write(&answer);
    let _ = socket.shutdown(std::net::Shutdown::Write);
}

/// Starts the threads; they end with the process.
///
/// # Errors
/// Where a thread or its event loop cannot be made.
pub fn start(
    node: Node,
    capacity: Capacity,
    head: HeadLimits,
    requests: Requests,
    way_back: WayBack<tls::Stream<Socket>>,
) -> io::Result<Handoff> {
    let access = node.access.clone();
    let way_back = Arc::new(way_back);
    let api = super::api::routes(node.clone(), requests.clone());
    let site = |role| Site {
        routes: super::routes(node.clone(), api.clone(), role),
        access: access.clone(),
        head,
        way_back: way_back.clone(),
    };
    let (pages, serve_pages) = Lane::new(capacity.pages, site(Role::Clients));
    let (admin, serve_admin) = Lane::new(capacity.admin, site(Role::Admin));
    let (api, serve_api) = Lane::new(capacity.api, site(Role::Api));
    let draining = requests.draining();
    let lanes = [pages.places.clone(), admin.places.clone(), api.places.clone()];
    let drain = async move {
        draining.notified().await;
        lanes.iter().for_each(|places| places.drain());
    };
    spawn("control", async move {
        join(join_all([serve_pages, serve_admin, serve_api]), join(drain, requests.run())).await;
    })?;
    let (health, late) = (Newest::new(capacity.health), Newest::new(capacity.health));
    let routes = super::health(node);
    let late_routes = routes.clone().fallback(answer_no_room);
    let routes = routes.fallback(super::nothing);
    let (of_health, of_late) = (Arc::clone(&health), Arc::clone(&late));
    spawn("health", async move {
        join(serve_newest(routes, &of_health), serve_newest(late_routes, &of_late)).await;
    })?;
    Ok(Handoff { pages, admin, api, health, late, access })
}

fn spawn(name: &str, task: impl Future<Output = ()> + Send + 'static) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new().name(name.into()).spawn(move || runtime.block_on(task)).map(drop)
}

/// Serves every guest; where all places are taken, the oldest goes.
async fn serve_newest(routes: Router, guests: &Newest) {
    let places = Arc::new(Semaphore::new(guests.places));
    let mut open: VecDeque<oneshot::Sender<()>> = VecDeque::new();
    loop {
        let next = guests.next().await;
        open.retain(|guest| !guest.is_closed());
        if places.available_permits() == 0
            && let Some(oldest) = open.pop_front()
        {
            // It may have been served just now.
            let _ = oldest.send(());
        }
        let Ok(place) = places.clone().acquire_owned().await else { return };
        let (guest, sent_away) = oneshot::channel();
        open.push_back(guest);
        let routes = routes.clone();
        tokio::spawn(async move {
            if let Ok(connection) = connection(routes, next) {
                serve_until(connection, sent_away).await;
            }
            drop(place);
        });
    }
}

/// Answers a request, or refuses once there is no more time for it.
async fn serve_until(mut connection: Connection, sent_away: oneshot::Receiver<()>) {
    let over = tokio::time::timeout(Duration::from_millis(HEALTH_MS_MAX), sent_away);
    if let Either::Right(_) = select(&mut connection, std::pin::pin!(over)).await {
        let mut stream = connection.into_parts().io.into_inner();
        // It is refused all the same where it cannot be told.
        let _ = stream.write_all(no_place().as_bytes()).await;
        let _ = stream.shutdown().await;
    }
}

type Connection = http1::Connection<TokioIo<Transport>, TowerToHyperService<Router>>;

/// Serves a guest's one request.
fn connection(routes: Router, guest: Guest) -> io::Result<Connection> {
    let transport = Transport::new(guest.stream, guest.read, Link::alone())?;
    let service = TowerToHyperService::new(routes);
    Ok(http1::Builder::new().keep_alive(false).serve_connection(TokioIo::new(transport), service))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_is_found_in_every_form_of_a_target() {
        for (head, found) in [
            ("GET /health/live HTTP/1.1\r\n\r\n", "/health/live"),
            ("\r\n\r\nHEAD /health/ready?x HTTP/1.0\r\n\r\n", "/health/ready"),
            ("GET https://x:80/health/live HTTP/1.1\r\n\r\n", "/health/live"),
            ("GET HTTP://x?/health/live HTTP/1.1\r\n\r\n", ""),
            ("GET /?http://x/health/live HTTP/1.1\r\n\r\n", "/"),
            ("GET http://x HTTP/1.1\r\n\r\n", ""),
            ("OPTIONS * HTTP/1.1\r\n\r\n", ""),
            ("GET\r\n\r\n", ""),
            ("\r\n", ""),
            ("", ""),
        ] {
            assert_eq!(path(head.as_bytes()), found.as_bytes(), "{head:?}");
        }
    }
}
