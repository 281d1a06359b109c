//! One connection of the user dialect, waited on together with other descriptors.

use std::cmp;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::{Domain, SockAddr, Socket, Type};
use tungstenite::error::{CapacityError, Error, ProtocolError};
use tungstenite::handshake::HandshakeError;
use tungstenite::http::{Response, StatusCode};
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::protocol::{CloseFrame, WebSocketConfig};
use tungstenite::{ClientRequestBuilder, Utf8Bytes, WebSocket};

use super::error::{Loss, Retry};
use super::message::Message;
use super::{ClientError, Target, Transport, Url, tls_failure};
use crate::config::one_line;

/// How long an answer may take.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// How long the server has to answer a close frame.
const PARTING: Duration = Duration::from_secs(1);

/// Bytes of a message that is read: what any server may be configured to pass on, and an envelope around it.
const RECEIVED_BYTES_MAX: usize = 257 * 1024 * 1024;

/// Bytes that are taken from the socket before its turn is over, and what else is waited for has its own: a server that
/// never stops sending keeps neither a signal nor a deadline from being seen.
const TURN_BYTES: usize = 64 * 1024;

/// Bytes of pongs that may wait for a server that does not read them; beyond it the newest ping is answered, later.
const UNSENT_BYTES_MAX: usize = 256 * 1024;

/// What to do where there is no welcome.
const NO_WELCOME: &str = "name a server of this dialect, and / or /ws as the path";

/// The close code that says that the connection's token has ended.
const EXPIRED: u16 = 4001;

/// Characters of a refusal's body that are shown.
const BODY_CHARS_MAX: usize = 200;

/// A connection that was welcomed.
pub(super) struct Link {
    socket: WebSocket<Turn>,
    /// How long nothing may come. The server pings (`heartbeat` in the welcome).
    silence_max: Option<Duration>,
    heard_at: Instant,
    /// Whether the kernel has not taken everything yet.
    is_unflushed: bool,
    /// What sending failed with. The server's reason may still be there to be read.
    broken: Option<Loss>,
}

/// What a connection's turn has come to.
#[derive(Debug)]
pub(super) enum Event {
    /// A message of the server.
    Message(Utf8Bytes),
    /// One of the other descriptors can be read.
    Other,
    /// The time is up.
    Late,
}

/// Why a connection was left otherwise than it should be.
pub(super) enum Fault {
    /// It is gone: there may be another.
    Loss(Loss),
    /// For good.
    Final(ClientError),
}

impl From<Loss> for Fault {
    fn from(loss: Loss) -> Fault {
        Fault::Loss(loss)
    }
}

impl From<ClientError> for Fault {
    fn from(error: ClientError) -> Fault {
        Fault::Final(error)
    }
}

impl Link {
    /// Connects, shakes hands and takes the welcome.
    pub(super) fn open(target: &Target) -> Result<Link, Loss> {
        let url = &target.url;
        let socket = dial(url)?;
        let socket = shake_hands(target, socket)?;
        let mut link = Link { socket, silence_max: None, heard_at: Instant::now(), is_unflushed: false, broken: None };
        let Event::Message(text) = link.next(&[], Some(Instant::now() + PATIENCE))? else {
            return Err(Loss::passing(format!("{url} said no welcome within {PATIENCE:?}; {NO_WELCOME}")));
        };
        let welcome = Message::parse(&text).filter(|message| message.kind() == "welcome");
        let Some(welcome) = welcome else {
            return Err(Loss::lasting(format!("the first message of {url} is no welcome; {NO_WELCOME}")));
        };
        let heartbeat = welcome.number("heartbeat").filter(|ms| *ms > 0).map(Duration::from_millis);
        link.silence_max = heartbeat.map(|heartbeat| heartbeat.saturating_mul(2).saturating_add(PATIENCE));
        Ok(link)
    }

    /// Sends a command. What goes wrong is told by [`next`](Link::next), behind what the server still had to say.
    pub(super) fn send(&mut self, command: String) {
        // Pongs that wait leave room for one command, however long it is.
        let unsent_bytes_max = UNSENT_BYTES_MAX.saturating_add(command.len());
        self.socket.set_config(|config| config.max_write_buffer_size = unsent_bytes_max);
        let sent = self.socket.write(tungstenite::Message::text(command));
        self.took(sent);
        self.flush();
    }

    /// Whether what was sent waits for the kernel.
    pub(super) fn is_unflushed(&self) -> bool {
        self.is_unflushed
    }

    /// The next message, or that one of `others` can be read, or that it is `until`. Answers pings.
    pub(super) fn next(&mut self, others: &[BorrowedFd<'_>], until: Option<Instant>) -> Result<Event, Loss> {
        loop {
            match self.socket.read() {
                Ok(message) => {
                    self.heard_at = Instant::now();
                    match message {
                        tungstenite::Message::Text(text) => return Ok(Event::Message(text)),
                        tungstenite::Message::Close(close) => {
                            self.flush();
                            return Err(farewell(close.as_ref()));
                        }
                        tungstenite::Message::Binary(_)
                        | tungstenite::Message::Ping(_)
                        | tungstenite::Message::Pong(_)
                        | tungstenite::Message::Frame(_) => continue,
                    }
                }
                Err(Error::Io(error)) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(self.broken.take().unwrap_or_else(|| broken(&error))),
            }
            self.flush();
            if let Some(loss) = self.broken.take() {
                return Err(loss);
            }
            if until.is_some_and(|until| until <= Instant::now()) {
                return Ok(Event::Late);
            }
            match self.wait(others, until)? {
                Readiness::Socket => {
                    self.heard_at = Instant::now();
                    self.socket.get_mut().begin();
                }
                Readiness::Other => return Ok(Event::Other),
                Readiness::Late if until.is_some_and(|until| until <= Instant::now()) => return Ok(Event::Late),
                Readiness::Late => {
                    return Err(Loss::passing(format!("nothing came for {:.1?}", self.heard_at.elapsed())));
                }
            }
        }
    }

    /// Says goodbye and waits a moment for the answer.
    pub(super) fn leave(mut self) {
        let until = Instant::now() + PARTING;
        let parted = self.socket.close(Some(CloseFrame { code: CloseCode::Normal, reason: Utf8Bytes::default() }));
        self.took(parted);
        while Instant::now() < until && matches!(self.next(&[], Some(until)), Ok(Event::Message(_))) {}
        self.socket.get_mut().stream.part();
    }

    fn wait(&self, others: &[BorrowedFd<'_>], until: Option<Instant>) -> Result<Readiness, Loss> {
        let silent_at = self.silence_max.and_then(|silence_max| self.heard_at.checked_add(silence_max));
        let until = [until, silent_at].into_iter().flatten().reduce(cmp::min);
        let flags = if self.is_unflushed { PollFlags::IN | PollFlags::OUT } else { PollFlags::IN };
        let stream = &self.socket.get_ref().stream;
        // What is decrypted already does not make the socket readable.
        let until = if stream.holds_bytes() { Some(Instant::now()) } else { until };
        let ready = wait(Some((stream.socket().as_fd(), flags)), others, until)
            .map_err(|error| Loss::lasting(format!("cannot wait for the connection: {error}")))?;
        Ok(if ready == Readiness::Late && stream.holds_bytes() { Readiness::Socket } else { ready })
    }

    fn flush(&mut self) {
        let flushed = self.socket.flush();
        self.took(flushed);
    }

    fn took(&mut self, outcome: Result<(), Error>) {
        match outcome {
            Ok(()) => self.is_unflushed = false,
            Err(Error::Io(error)) if error.kind() == ErrorKind::WouldBlock => self.is_unflushed = true,
            Err(error) => {
                self.broken.get_or_insert_with(|| broken(&error));
            }
        }
    }
}

/// A socket that has no more to read once a turn's bytes were taken from it.
#[derive(Debug)]
struct Turn {
    stream: Transport<Socket>,
    left_bytes: usize,
}

impl Turn {
    fn of(stream: Transport<Socket>) -> Turn {
        Turn { stream, left_bytes: TURN_BYTES }
    }

    /// The next turn begins.
    fn begin(&mut self) {
        self.left_bytes = TURN_BYTES;
    }
}

impl Read for Turn {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left_bytes == 0 {
            return Err(ErrorKind::WouldBlock.into());
        }
        let room = buffer.len().min(self.left_bytes);
        let read = self.stream.read(&mut buffer[..room])?;
        self.left_bytes -= read;
        Ok(read)
    }
}

impl Write for Turn {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

/// What a wait has come to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Readiness {
    /// The socket has something, an end perhaps.
    Socket,
    /// One of the other descriptors has.
    Other,
    /// The time is up.
    Late,
}

/// Waits for a socket, for other descriptors (which go first), or for a time.
pub(super) fn wait(
    socket: Option<(BorrowedFd<'_>, PollFlags)>,
    others: &[BorrowedFd<'_>],
    until: Option<Instant>,
) -> io::Result<Readiness> {
    let all = others.iter().map(|other| (*other, PollFlags::IN)).chain(socket);
    let mut watched: Vec<_> = all.map(|(fd, flags)| PollFd::from_borrowed_fd(fd, flags)).collect();
    loop {
        let left = until.map(|until| until.saturating_duration_since(Instant::now()));
        // A time beyond what the kernel can count is no limit.
        let left = left.and_then(|left| Timespec::try_from(left).ok());
        match poll(&mut watched, left.as_ref()) {
            Ok(0) => return Ok(Readiness::Late),
            Ok(_) if watched[..others.len()].iter().any(|fd| !fd.revents().is_empty()) => return Ok(Readiness::Other),
            Ok(_) => return Ok(Readiness::Socket),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// A socket to the first address that answers.
fn dial(url: &Url) -> Result<Socket, Loss> {
    let unreachable = |error: &io::Error| {
        Loss::passing(format!("cannot connect to {url}: {error}; start the server, or name it with --url"))
    };
    let addresses = match url.socket() {
        Some(path) => vec![SockAddr::unix(path).map_err(|error| unreachable(&error))?],
        None => {
            let found = url.resolve();
            let found =
                found.map_err(|error| Loss::passing(format!("cannot find the host of {url}: {error}; check --url")))?;
            found.into_iter().map(SockAddr::from).collect()
        }
    };
    let mut failure = io::Error::from(ErrorKind::NotFound);
    for address in addresses {
        match connect(&address) {
            Ok(socket) => return Ok(socket),
            Err(error) => failure = error,
        }
    }
    Err(unreachable(&failure))
}

fn connect(address: &SockAddr) -> io::Result<Socket> {
    let socket = Socket::new(address.domain(), Type::STREAM, None)?;
    socket.connect_timeout(address, PATIENCE)?;
    if address.domain() != Domain::UNIX {
        socket.set_tcp_nodelay(true)?;
    }
    socket.set_nonblocking(true)?;
    Ok(socket)
}

fn shake_hands(target: &Target, socket: Socket) -> Result<WebSocket<Turn>, Loss> {
    let Target { url, user, token, tls } = target;
    let mut request = ClientRequestBuilder::new(url.request(user.as_deref()).map_err(Loss::lasting)?);
    if let Some(token) = token {
        request = request.with_header("Authorization", format!("Bearer {}", token.as_str()));
    }
    let stream = Transport::new(socket, tls.as_ref())
        .map_err(|error| Loss::lasting(format!("TLS with {url} cannot be set up: {error}")))?;
    let config = WebSocketConfig::default()
        .max_message_size(Some(RECEIVED_BYTES_MAX))
        .max_frame_size(Some(RECEIVED_BYTES_MAX))
        .max_write_buffer_size(UNSENT_BYTES_MAX);
    let until = Instant::now() + PATIENCE;
    let mut step = tungstenite::client::client_with_config(request, Turn::of(stream), Some(config));
    loop {
        let mut half = match step {
            Ok((socket, _)) => return Ok(socket),
            Err(HandshakeError::Interrupted(half)) => half,
            Err(HandshakeError::Failure(error)) => return Err(no_upgrade(target, &error)),
        };
        let turn = half.get_mut().get_mut();
        turn.begin();
        match wait(Some((turn.stream.socket().as_fd(), PollFlags::IN)), &[], Some(until)) {
            Ok(Readiness::Socket | Readiness::Other) if Instant::now() < until => step = half.handshake(),
            Ok(_) => {
                return Err(Loss::passing(format!("{url} did not answer the handshake within {PATIENCE:?}")));
            }
            Err(error) => return Err(Loss::lasting(format!("cannot wait for the connection: {error}"))),
        }
    }
}

/// Why there was no upgrade.
fn no_upgrade(target: &Target, error: &Error) -> Loss {
    let url = &target.url;
    match error {
        Error::Http(response) => refused_upgrade(target, response),
        Error::Io(error) if tls_failure(error).is_some() => {
            Loss::lasting(format!("{url}: {}", tls_failure(error).unwrap_or_default()))
        }
        Error::Io(error) => Loss::passing(format!("{url} broke off the handshake: {error}")),
        Error::Protocol(ProtocolError::HandshakeIncomplete) => {
            Loss::passing(format!("{url} ended the connection instead of answering the handshake"))
        }
        error => Loss::lasting(format!("what answers at {url} is no WebSocket server: {error}")),
    }
}

fn refused_upgrade(target: &Target, response: &Response<Option<Vec<u8>>>) -> Loss {
    let Target { url, token, .. } = target;
    let status = response.status();
    let mut why = format!("{url} answered {status}");
    let body = String::from_utf8_lossy(response.body().as_deref().unwrap_or_default());
    // An answer may repeat the request, and with it a secret.
    if url.query().is_none() && !token.as_ref().is_some_and(|token| token.is_told_by(&body)) {
        let line: String = body.lines().next().unwrap_or_default().chars().take(BODY_CHARS_MAX).collect();
        if !line.is_empty() && !line.starts_with('<') {
            why = format!("{why}: {}", one_line(&line));
        }
    }
    why += match (status, target.brings_token()) {
        (StatusCode::UNAUTHORIZED, false) => "; give a token with FANFARE_TOKEN or --token-file",
        (StatusCode::UNAUTHORIZED, true) => "; give another token with FANFARE_TOKEN or --token-file",
        (StatusCode::FORBIDDEN, true) => "; give a token that allows it, with FANFARE_TOKEN or --token-file",
        (StatusCode::FORBIDDEN, false) => "; ask for the permission where the server is run",
        _ => "",
    };
    let told = response.headers().get("retry-after").and_then(|value| value.to_str().ok()?.trim().parse().ok());
    let passes = status.is_server_error()
        || [StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_EARLY, StatusCode::TOO_MANY_REQUESTS].contains(&status);
    let retry = match (passes, told) {
        (false, _) => Retry::Never,
        (true, Some(seconds)) => Retry::After(Duration::from_secs(seconds)),
        (true, None) => Retry::Backoff,
    };
    Loss { why, retry, code: None }
}

/// What the server's close frame means for a client.
fn farewell(close: Option<&CloseFrame>) -> Loss {
    let Some(CloseFrame { code, reason }) = close else {
        return Loss::passing("the server closed the connection without a reason");
    };
    let code = u16::from(*code);
    if code == 1001 {
        let told = Message::parse(reason).and_then(|reason| reason.number("retry_ms")).map(Duration::from_millis);
        return Loss {
            code: Some(code),
            why: "the server is going away (1001)".to_owned(),
            retry: told.map_or(Retry::Backoff, Retry::After),
        };
    }
    if code == EXPIRED {
        return Loss::lasting(format!("the token has expired ({EXPIRED}): get a new one, and come back with it"));
    }
    let why = match reason.as_str() {
        "" => format!("the server closed the connection with {code}"),
        reason => format!("the server closed the connection with {code}: {}", one_line(reason)),
    };
    let retry = match code {
        // What was sent is wrong, or a newer connection stands in for this one.
        1002 | 1003 | 1007 | 1010 | 4009 => Retry::Never,
        _ => Retry::Backoff,
    };
    Loss { why, retry, code: Some(code) }
}

/// An end without a close frame.
fn broken(error: &Error) -> Loss {
    match error {
        Error::Io(error) => Loss::passing(format!("the connection broke: {error}")),
        Error::ConnectionClosed
        | Error::AlreadyClosed
        | Error::Protocol(ProtocolError::ResetWithoutClosingHandshake | ProtocolError::SendAfterClosing) => {
            Loss::passing("the connection ended without a close frame")
        }
        Error::Capacity(CapacityError::MessageTooLong { size, .. }) => {
            Loss::lasting(format!("the server sent a message of {size} bytes, more than a client takes"))
        }
        error => Loss::lasting(format!("the server broke RFC 6455: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(url: &str, token: Option<&str>) -> Target {
        let token = token.map(|token| token.parse().unwrap());
        Target { url: url.parse().unwrap(), user: None, token, tls: None }
    }

    fn closed(code: u16, reason: &'static str) -> Loss {
        farewell(Some(&CloseFrame { code: code.into(), reason: reason.into() }))
    }

    #[test]
    fn a_close_code_says_whether_to_come_back() {
        assert_eq!(closed(1001, r#"{"retry_ms":1234}"#).retry, Retry::After(Duration::from_millis(1234)));
        assert_eq!(closed(1001, "").retry, Retry::Backoff);
        let slow = closed(4008, "too\nslow");
        assert_eq!((slow.code, slow.retry), (Some(4008), Retry::Backoff));
        assert_eq!(slow.why, r"the server closed the connection with 4008: too\nslow");
        for code in [1000, 1008, 1009, 1011, 1013, 4008, 4999] {
            assert_eq!(closed(code, "").retry, Retry::Backoff, "{code}");
        }
        for code in [1002, 1007, 4001, 4009] {
            assert_eq!(closed(code, "").retry, Retry::Never, "{code}");
        }
        assert_eq!(farewell(None).retry, Retry::Backoff);
    }

    #[test]
    fn an_http_answer_says_whether_to_come_back() {
        let answer = |url: &str, status: u16, retry_after: Option<&str>, body: &str| {
            let mut response = Response::builder().status(status);
            if let Some(seconds) = retry_after {
                response = response.header("Retry-After", seconds);
            }
            refused_upgrade(&target(url, None), &response.body(Some(body.into())).unwrap())
        };
        for (status, retry_after, retry) in [
            (503, Some("3"), Retry::After(Duration::from_secs(3))),
            (503, Some("Fri, 31 Dec 1999 23:59:59 GMT"), Retry::Backoff),
            (502, None, Retry::Backoff),
            (429, None, Retry::Backoff),
            (400, Some("3"), Retry::Never),
            (404, None, Retry::Never),
            (200, None, Retry::Never),
        ] {
            assert_eq!(answer("ws://h", status, retry_after, "").retry, retry, "{status}");
        }
        let why = |url, body| answer(url, 404, None, body).why;
        assert_eq!(why("ws://h/x", "no such thing\nas this"), "ws://h/x answered 404 Not Found: no such thing");
        assert_eq!(why("ws://h/x", "<html>"), "ws://h/x answered 404 Not Found");
        assert_eq!(why("ws://h/x?token=secret", "no /x?token=secret here"), "ws://h/x answered 404 Not Found");
    }

    #[test]
    fn a_refusal_says_whether_a_token_or_another_one_is_wanted() {
        let answer = |token: Option<&str>, status: u16, body: &str| {
            let response = Response::builder().status(status).body(Some(body.into())).unwrap();
            refused_upgrade(&target("ws://h/", token), &response).why
        };
        assert_eq!(
            answer(None, 401, "a token is needed"),
            "ws://h/ answered 401 Unauthorized: a token is needed; give a token with FANFARE_TOKEN or --token-file"
        );
        assert_eq!(
            answer(Some("aaaaaaaa.bbbbbbbb.c"), 401, "it has expired"),
            "ws://h/ answered 401 Unauthorized: it has expired; give another token with FANFARE_TOKEN or --token-file"
        );
        assert_eq!(
            answer(Some("aaaaaaaa.bbbbbbbb.c"), 403, "no Bearer bbbbbbbb"),
            "ws://h/ answered 403 Forbidden; give a token that allows it, with FANFARE_TOKEN or --token-file"
        );
    }
}
