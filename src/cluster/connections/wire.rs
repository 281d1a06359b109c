//! A socket to one server that the cluster's thread reads and writes itself, within its own turn: what is said leaves at
//! once, what comes is looked at as soon as it is there, and no other task has to run in between.
//!
//! The `redis` crate signs in over the same socket and is done with it then. Values are RESP2.

use std::io::{self, Read, Write};
use std::net;
use std::os::unix::net as unix;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::task::noop_waker_ref;
use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::{AsyncConnectionConfig, Client, ConnectionAddr, Pipeline, Value};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use super::reason;
use super::resp::value_length;
use crate::limits::{CLUSTER_BACKLOG_BYTES_MAX, CLUSTER_READ_BUFFER_BYTES, CLUSTER_READ_BUFFER_BYTES_MAX};

/// See the module's documentation.
///
/// Where nothing waits for what comes, the socket can be *unwatched*: then it wakes no thread, and is read when the thread is
/// awake for something else.
pub(super) struct Wire {
    socket: Socket,
    incoming: Incoming,
    outgoing: Outgoing,
}

enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
    UnwatchedTcp(net::TcpStream),
    UnwatchedUnix(unix::UnixStream),
    /// A change of the above has failed: the connection is lost.
    Lost,
}

/// What was read: whole values, and the beginning of one at the end.
struct Incoming {
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

/// What the socket has not taken yet.
#[derive(Default)]
struct Outgoing {
    bytes: Vec<u8>,
    sent: usize,
}

/// Whether a socket wakes the thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Watch {
    On,
    Off,
}

impl Wire {
    /// Connects, signs in and has the commands in `preparation` carried out; with the answers to them.
    pub(super) async fn connect(client: &Client, preparation: &Pipeline) -> Result<(Wire, Vec<Value>), String> {
        let failed = |error: io::Error| error.to_string();
        // The crate gets a descriptor of its own for the same socket, and closes it when it is done.
        let (socket, answers) = match client.get_connection_info().addr() {
            ConnectionAddr::Tcp(host, port) => {
                let stream = TcpStream::connect((host.as_str(), *port)).await.map_err(failed)?;
                stream.set_nodelay(true).map_err(failed)?;
                let stream = stream.into_std().map_err(failed)?;
                let twin = stream.try_clone().and_then(TcpStream::from_std).map_err(failed)?;
                let answers = sign_in(client, twin, preparation).await?;
                (Socket::Tcp(TcpStream::from_std(stream).map_err(failed)?), answers)
            }
            ConnectionAddr::Unix(path) => {
                let stream = UnixStream::connect(path).await.map_err(failed)?;
                let stream = stream.into_std().map_err(failed)?;
                let twin = stream.try_clone().and_then(UnixStream::from_std).map_err(failed)?;
                let answers = sign_in(client, twin, preparation).await?;
                (Socket::Unix(UnixStream::from_std(stream).map_err(failed)?), answers)
            }
            other => return Err(format!("{other} is no plain socket")),
        };
        let incoming = Incoming { buffer: vec![0; CLUSTER_READ_BUFFER_BYTES], start: 0, end: 0 };
        Ok((Wire { socket, incoming, outgoing: Outgoing::default() }, answers))
    }

    /// Has the socket wake the thread no more. Where something is still to be written it goes on to.
    ///
    /// # Errors
    /// The connection is lost.
    pub(super) fn unwatch(&mut self) -> io::Result<Watch> {
        if !self.outgoing.bytes.is_empty() {
            return Ok(Watch::On);
        }
        self.socket = match std::mem::replace(&mut self.socket, Socket::Lost) {
            Socket::Tcp(stream) => Socket::UnwatchedTcp(stream.into_std()?),
            Socket::Unix(stream) => Socket::UnwatchedUnix(stream.into_std()?),
            unwatched @ (Socket::UnwatchedTcp(_) | Socket::UnwatchedUnix(_) | Socket::Lost) => unwatched,
        };
        Ok(Watch::Off)
    }

    /// Has the socket wake the thread again, also for what has come meanwhile.
    ///
    /// # Errors
    /// The connection is lost.
    pub(super) fn watch(&mut self) -> io::Result<()> {
        self.socket = match std::mem::replace(&mut self.socket, Socket::Lost) {
            Socket::UnwatchedTcp(stream) => Socket::Tcp(TcpStream::from_std(stream)?),
            Socket::UnwatchedUnix(stream) => Socket::Unix(UnixStream::from_std(stream)?),
            watched @ (Socket::Tcp(_) | Socket::Unix(_) | Socket::Lost) => watched,
        };
        Ok(())
    }

    /// Reads what has come on an unwatched socket.
    ///
    /// # Errors
    /// The connection is lost.
    pub(super) fn read_unwatched(&mut self) -> io::Result<()> {
        self.incoming.make_room()?;
        let free = &mut self.incoming.buffer[self.incoming.end..];
        let outcome = match &mut self.socket {
            Socket::UnwatchedTcp(stream) => stream.read(free),
            Socket::UnwatchedUnix(stream) => stream.read(free),
            Socket::Tcp(_) | Socket::Unix(_) | Socket::Lost => return Ok(()),
        };
        match outcome {
            Ok(0) => Err(closed()),
            Ok(bytes) => {
                self.incoming.end += bytes;
                Ok(())
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Where commands are appended, for the next [`Wire::flush`].
    pub(super) fn outgoing(&mut self) -> &mut Vec<u8> {
        &mut self.outgoing.bytes
    }

    /// Writes as much as the socket takes; [`Wire::ready`] goes on with the rest.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        match self.outgoing.poll_write(&mut self.socket, &mut Context::from_waker(noop_waker_ref())) {
            Poll::Ready(outcome) => outcome,
            // Only a watched socket tells when it takes more.
            Poll::Pending => self.watch(),
        }
    }

    /// Waits for the socket, and reads what has come or writes what has to go. May be given up at any time.
    pub(super) async fn ready(&mut self) -> io::Result<()> {
        std::future::poll_fn(|context| {
            let Wire { socket, incoming, outgoing } = self;
            if !outgoing.bytes.is_empty()
                && let Poll::Ready(Err(error)) = outgoing.poll_write(socket, context)
            {
                return Poll::Ready(Err(error));
            }
            incoming.poll_read(socket, context)
        })
        .await
    }

    /// The next whole value.
    ///
    /// # Errors
    /// What came is no value.
    pub(super) fn next_value(&mut self) -> io::Result<Option<&[u8]>> {
        let Incoming { buffer, start, end } = &mut self.incoming;
        let Some(bytes) = value_length(&buffer[*start..*end])? else { return Ok(None) };
        let from = *start;
        *start += bytes;
        Ok(Some(&buffer[from..*start]))
    }

    /// Bytes that were read and not looked at.
    pub(super) fn waiting_bytes(&self) -> usize {
        self.incoming.end - self.incoming.start
    }
}

impl Incoming {
    /// Reads once.
    fn poll_read(&mut self, socket: &mut Socket, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.make_room()?;
        let mut free = ReadBuf::new(&mut self.buffer[self.end..]);
        let outcome = match socket {
            Socket::Tcp(stream) => Pin::new(stream).poll_read(context, &mut free),
            Socket::Unix(stream) => Pin::new(stream).poll_read(context, &mut free),
            Socket::UnwatchedTcp(_) | Socket::UnwatchedUnix(_) => Poll::Pending,
            Socket::Lost => Poll::Ready(Err(closed())),
        };
        let bytes = free.filled().len();
        match outcome {
            Poll::Ready(Ok(())) if bytes == 0 => Poll::Ready(Err(closed())),
            Poll::Ready(Ok(())) => {
                self.end += bytes;
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => Poll::Pending,
        }
    }

    fn make_room(&mut self) -> io::Result<()> {
        let was_full = self.end == self.buffer.len();
        let held_bytes = self.end - self.start;
        if self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, held_bytes);
        }
        let bytes = self.buffer.len();
        if held_bytes == bytes || (was_full && bytes < CLUSTER_READ_BUFFER_BYTES_MAX) {
            // One read more than the backlog, so that the caller sees that there is too much.
            let bytes_max = CLUSTER_BACKLOG_BYTES_MAX + CLUSTER_READ_BUFFER_BYTES_MAX;
            if bytes >= bytes_max {
                return Err(io::Error::other("it sends more than is taken"));
            }
            self.buffer.resize((2 * bytes).min(bytes_max), 0);
        } else if held_bytes == 0 && bytes > CLUSTER_READ_BUFFER_BYTES_MAX {
            self.buffer.truncate(CLUSTER_READ_BUFFER_BYTES);
            self.buffer.shrink_to_fit();
        }
        Ok(())
    }
}

impl Outgoing {
    /// Writes until nothing is left.
    fn poll_write(&mut self, socket: &mut Socket, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.sent < self.bytes.len() {
            let rest = &self.bytes[self.sent..];
            let written = match socket {
                Socket::Tcp(stream) => Pin::new(stream).poll_write(context, rest),
                Socket::Unix(stream) => Pin::new(stream).poll_write(context, rest),
                Socket::UnwatchedTcp(stream) => written_now(stream.write(rest)),
                Socket::UnwatchedUnix(stream) => written_now(stream.write(rest)),
                Socket::Lost => Poll::Ready(Err(closed())),
            };
            match written {
                Poll::Ready(Ok(bytes)) => self.sent += bytes,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            }
        }
        self.sent = 0;
        self.bytes.clear();
        self.bytes.shrink_to(CLUSTER_READ_BUFFER_BYTES_MAX);
        Poll::Ready(Ok(()))
    }
}

fn written_now(outcome: io::Result<usize>) -> Poll<io::Result<usize>> {
    match outcome {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Poll::Pending,
        outcome => Poll::Ready(outcome),
    }
}

fn closed() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "it was closed")
}

/// What the `redis` crate does when it connects, and some commands.
async fn sign_in(
    client: &Client,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    preparation: &Pipeline,
) -> Result<Vec<Value>, String> {
    let config = AsyncConnectionConfig::new().set_response_timeout(None).set_connection_timeout(None);
    let settings = client.get_connection_info().redis_settings();
    let made = MultiplexedConnection::new_with_config(settings, stream, config).await;
    let (mut connection, driver) = made.map_err(|error| reason(&error))?;
    if preparation.is_empty() {
        return Ok(Vec::new());
    }
    tokio::select! {
        answers = connection.req_packed_commands(preparation, 0, preparation.len()) => {
            answers.map_err(|error| reason(&error))
        }
        () = driver => Err("it was closed".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread::JoinHandle;

    use redis::{IntoConnectionInfo, RedisConnectionInfo};

    use super::*;

    /// A wire to a server that does as `serve` says, and what that returns.
    fn with_server<T: Send + 'static>(
        serve: impl FnOnce(net::TcpStream) -> T + Send + 'static,
        test: impl AsyncFnOnce(Wire),
    ) -> T {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let port = listener.local_addr().expect("it is bound").port();
        let server: JoinHandle<T> = std::thread::spawn(move || serve(listener.accept().expect("it connects").0));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            // Nothing is said before the test begins.
            let quiet = RedisConnectionInfo::default().set_skip_set_lib_name();
            let address = ConnectionAddr::Tcp("127.0.0.1".to_owned(), port).into_connection_info();
            let client = Client::open(address.expect("an address").set_redis_settings(quiet)).expect("a client");
            let (wire, _) = Wire::connect(&client, &redis::pipe()).await.expect("it connects");
            test(wire).await;
        });
        server.join().expect("the server ends")
    }

    /// Waits for the next value.
    async fn next(wire: &mut Wire) -> io::Result<Vec<u8>> {
        loop {
            if let Some(value) = wire.next_value()? {
                return Ok(value.to_vec());
            }
            wire.ready().await?;
        }
    }

    #[test]
    fn values_come_whole_and_then_the_end() {
        let text = "x".repeat(3 * CLUSTER_READ_BUFFER_BYTES);
        let long = format!("${}\r\n{text}\r\n", text.len());
        let sent = format!("+one\r\n{long}:3\r\n");
        with_server(
            move |mut stream| sent.as_bytes().chunks(1_000).for_each(|chunk| stream.write_all(chunk).unwrap()),
            async |mut wire| {
                assert_eq!(next(&mut wire).await.unwrap(), b"+one\r\n");
                assert_eq!(next(&mut wire).await.unwrap(), long.as_bytes());
                assert_eq!(next(&mut wire).await.unwrap(), b":3\r\n");
                assert_eq!(next(&mut wire).await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
            },
        );
    }

    #[test]
    fn what_the_socket_does_not_take_at_once_goes_out_later() {
        const BYTES: usize = 32 << 20;
        let read = with_server(
            |mut stream| {
                let mut read = vec![0; BYTES];
                stream.read_exact(&mut read).unwrap();
                stream.write_all(b"+OK\r\n").unwrap();
                read.into_iter().filter(|byte| *byte == b'x').count()
            },
            async |mut wire| {
                wire.outgoing().resize(BYTES, b'x');
                wire.flush().unwrap();
                assert_eq!(next(&mut wire).await.unwrap(), b"+OK\r\n");
                assert!(wire.outgoing().is_empty());
            },
        );
        assert_eq!(read, BYTES);
    }

    #[test]
    fn an_unwatched_socket_is_read_in_passing_and_watched_again() {
        with_server(
            |mut stream| {
                let mut byte = [0];
                for answer in [b":1\r\n", b":2\r\n"] {
                    stream.read_exact(&mut byte).unwrap();
                    stream.write_all(answer).unwrap();
                }
            },
            async |mut wire| {
                assert_eq!(wire.unwatch().unwrap(), Watch::Off);
                wire.outgoing().push(b'x');
                wire.flush().unwrap();
                let first = loop {
                    wire.read_unwatched().unwrap();
                    match wire.next_value().unwrap() {
                        Some(value) => break value.to_vec(),
                        None => tokio::task::yield_now().await,
                    }
                };
                assert_eq!(first, b":1\r\n");
                wire.outgoing().push(b'x');
                wire.flush().unwrap();
                wire.watch().unwrap();
                assert_eq!(next(&mut wire).await.unwrap(), b":2\r\n");
            },
        );
    }
}
