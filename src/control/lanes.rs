//! Who waits for whom: a request for health waits for no other client, and the operator for no stranger.
//!
//! ```text
//!                 ┌─ /health/… ─────────────────► newest ─┐
//!  reactor ─ give ┼─ unread: no place for it ───► newest ─┴─► thread `health`: 32 + 32, 2 s each
//!                 ├─ through admin.listen ──────► places ─┐
//!                 └─ everything else ───────────► places ─┴─► thread `control`: 16 + 256
//! ```
//!
//! A descriptor is kept back for each (`descriptors`). A page that finds no place is refused. Of health the newest is
//! served, and the oldest makes room for it: nothing tells those who will ask about health from those who will say
//! nothing, and who is not served at once will not be.
//!
//! A place for a page is held while its answer is taken: the head is whole, and no body is waited for, but that of the
//! console itself. Its client's address is not counted meanwhile, since what bounds the time are the places.

use std::collections::VecDeque;
use std::future::Future;
use std::io::{self, Write};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::http::{StatusCode, header};
use axum::middleware::AddExtension;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Router};
use futures_util::future::{Either, join, join3, select};
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use socket2::{Domain, Socket};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio_io_timeout::TimeoutWriter;
use tower_layer::Layer;

use super::access::Access;
use super::secured::SecuredStream;
use super::{Node, Requests};
use crate::limits::{HEALTH_MS_MAX, HTTP_MS_MAX, HTTP_STALL_MS_MAX, RETRY_AFTER_S_MAX};
use crate::reactor::Provenance;
use crate::tls;
use crate::tls::Secured;

/// How many sockets each thread may have.
#[derive(Clone, Copy, Debug)]
pub struct Places {
    /// All that is not about health.
    pub pages: usize,
    /// The same through listeners of the operator's own.
    pub admin: usize,
    /// Health; as many that came when the node had no place for another socket; and as many of both that wait.
    pub health: usize,
}

/// Hands sockets to the threads of plain HTTP; clone it for every reactor.
#[derive(Clone, Debug)]
pub struct Handoff {
    pages: Lane,
    admin: Lane,
    health: Arc<Newest>,
    late: Arc<Newest>,
    access: Arc<Access>,
}

impl Handoff {
    /// Gives up a socket with the bytes already read from it, and where they came from: a whole head, or nothing where the
    /// node has no place for another socket. Where the thread has no place for it either, it is answered 503; one whose TLS
    /// has not begun is closed.
    pub fn give(&self, socket: tls::Stream<Socket>, read: Vec<u8>, provenance: Provenance) {
        let of_health = path(&read).map(|path| path.starts_with(b"/health/"));
        let guest = Guest { socket, read, provenance };
        match of_health {
            // Many handshakes would keep those from their answers who ask about health.
            None if matches!(guest.socket.layer, tls::Layer::Wanted(_)) => refuse(guest.socket),
            None => self.late.give(guest),
            Some(true) => self.health.give(guest),
            Some(false) if self.access.is_admin(&provenance) => self.admin.give(guest),
            Some(false) => self.pages.give(guest),
        }
    }
}

/// The path in a request's first line, whatever stands in front of it (RFC 9112 §2.2, §3.2.2). `None` without a line.
fn path(head: &[u8]) -> Option<&[u8]> {
    let line = head.split(|byte| *byte == b'\n').find(|line| !line.trim_ascii().is_empty())?;
    let target = line.split(|byte| *byte == b' ').nth(1).unwrap_or_default();
    let target = target.split(|byte| *byte == b'?').next().unwrap_or_default();
    if target.starts_with(b"/") {
        return Some(target);
    }
    let behind_scheme = memchr::memmem::find(target, b"://").map_or(target, |at| &target[at + 3..]);
    Some(memchr::memchr(b'/', behind_scheme).map_or(&[][..], |at| &behind_scheme[at..]))
}

/// The way of one kind of request.
#[derive(Clone, Debug)]
struct Lane {
    places: Arc<Semaphore>,
    guests: mpsc::UnboundedSender<(Guest, OwnedSemaphorePermit)>,
}

/// A socket on its way.
#[derive(Debug)]
struct Guest {
    socket: tls::Stream<Socket>,
    read: Vec<u8>,
    provenance: Provenance,
}

impl Lane {
    fn new(places: usize) -> (Lane, mpsc::UnboundedReceiver<(Guest, OwnedSemaphorePermit)>) {
        // As many wait in it as there are places.
        let (guests, receiver) = mpsc::unbounded_channel();
        (Lane { places: Arc::new(Semaphore::new(places)), guests }, receiver)
    }

    fn give(&self, guest: Guest) {
        let Ok(place) = self.places.clone().try_acquire_owned() else {
            tracing::debug!("plain HTTP refused: too many at once");
            return refuse(guest.socket);
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
            refuse(oldest.socket);
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

const NO_PLACE: &str = "this node has no place for another connection now: try again later\n";

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
async fn answer_no_place() -> Response {
    let retry_after_s = fastrand::u32(1..=RETRY_AFTER_S_MAX);
    (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, retry_after_s.to_string())], NO_PLACE).into_response()
}

/// Says no, as far as the kernel takes it at once; nothing where a TLS handshake would have to come first.
fn refuse(stream: tls::Stream<Socket>) {
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
pub fn start(node: Node, places: Places, requests: Requests) -> io::Result<Handoff> {
    let access = node.access.clone();
    let (pages, page_guests) = Lane::new(places.pages);
    let (admin, admin_guests) = Lane::new(places.admin);
    let routes = super::all_but_health(node.clone(), requests.clone());
    spawn("control", async move {
        join3(serve(routes.clone(), page_guests), serve(routes, admin_guests), requests.run()).await;
    })?;
    let (health, late) = (Newest::new(places.health), Newest::new(places.health));
    let routes = super::health(node);
    let late_routes = routes.clone().fallback(answer_no_place);
    let (of_health, of_late) = (Arc::clone(&health), Arc::clone(&late));
    spawn("health", async move {
        join(serve_newest(routes, &of_health), serve_newest(late_routes, &of_late)).await;
    })?;
    Ok(Handoff { pages, admin, health, late, access })
}

fn spawn(name: &str, task: impl Future<Output = ()> + Send + 'static) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new().name(name.into()).spawn(move || runtime.block_on(task)).map(drop)
}

/// Serves every guest.
async fn serve(routes: Router, mut guests: mpsc::UnboundedReceiver<(Guest, OwnedSemaphorePermit)>) {
    while let Some((guest, place)) = guests.recv().await {
        let routes = routes.clone();
        tokio::spawn(async move {
            let served = async { connection(routes, guest)?.await.map_err(io::Error::other) };
            match tokio::time::timeout(Duration::from_millis(HTTP_MS_MAX), served).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::debug!(%error, "plain HTTP connection failed"),
                Err(_) => tracing::debug!("plain HTTP connection took too long"),
            }
            drop(place);
        });
    }
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

/// A socket of either kind, with TLS or without, and with what was read from it already in front.
type Stream = Pin<Box<dyn ReadWrite>>;

trait ReadWrite: AsyncRead + AsyncWrite + Send {}

impl<T: AsyncRead + AsyncWrite + Send> ReadWrite for T {}

fn stream(stream: tls::Stream<Socket>, read: Vec<u8>) -> io::Result<Stream> {
    let tls::Stream { socket, layer } = stream;
    let secured = layer.into_secured().map_err(io::Error::other)?;
    if socket.domain()? == Domain::UNIX {
        Ok(joined(read, tokio::net::UnixStream::from_std(std::os::fd::OwnedFd::from(socket).into())?, secured))
    } else {
        Ok(joined(read, tokio::net::TcpStream::from_std(std::os::fd::OwnedFd::from(socket).into())?, secured))
    }
}

fn joined<S>(read: Vec<u8>, socket: S, secured: Option<Box<Secured>>) -> Stream
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    match secured {
        Some(secured) => Box::pin(impatient(SecuredStream::new(socket, secured, read))),
        None => {
            let (reader, writer) = tokio::io::split(socket);
            Box::pin(tokio::io::join(io::Cursor::new(read).chain(reader), impatient(writer)))
        }
    }
}

/// Gives up a client that takes nothing.
fn impatient<W: AsyncWrite>(writer: W) -> TimeoutWriter<W> {
    let mut writer = TimeoutWriter::new(writer);
    writer.set_timeout(Some(Duration::from_millis(HTTP_STALL_MS_MAX)));
    writer
}

type Connection = http1::Connection<TokioIo<Stream>, TowerToHyperService<AddExtension<Router, Provenance>>>;

/// Serves a guest's one request, which knows where it came from.
fn connection(routes: Router, guest: Guest) -> io::Result<Connection> {
    let Guest { socket, read, provenance } = guest;
    let stream = stream(socket, read)?;
    let service = TowerToHyperService::new(Extension(provenance).layer(routes));
    Ok(http1::Builder::new().keep_alive(false).serve_connection(TokioIo::new(stream), service))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_is_found_in_every_form_of_a_target() {
        for (head, found) in [
            ("GET /health/live HTTP/1.1\r\n\r\n", Some("/health/live")),
            ("\r\n\r\nHEAD /health/ready?x HTTP/1.0\r\n\r\n", Some("/health/ready")),
            ("GET https://x:80/health/live HTTP/1.1\r\n\r\n", Some("/health/live")),
            ("GET HTTP://x?/health/live HTTP/1.1\r\n\r\n", Some("")),
            ("GET /?http://x/health/live HTTP/1.1\r\n\r\n", Some("/")),
            ("GET http://x HTTP/1.1\r\n\r\n", Some("")),
            ("OPTIONS * HTTP/1.1\r\n\r\n", Some("")),
            ("GET\r\n\r\n", Some("")),
            ("\r\n", None),
            ("", None),
        ] {
            assert_eq!(path(head.as_bytes()), found.map(str::as_bytes), "{head:?}");
        }
    }
}
