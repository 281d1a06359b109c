//! The bytes of a connection of plain HTTP: a socket of either kind, with TLS or without, and with what was read from it
//! already in front.

use std::io::{self, IoSlice};
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use socket2::Domain;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use super::places::Link;
use super::secured::SecuredStream;
use crate::tls::{self, Layer};

/// A socket, as the runtime of the thread knows it. It tells its [`Link`] what moves.
#[derive(Debug)]
struct Socket {
    kind: Kind,
    link: Arc<Link>,
}

#[derive(Debug)]
enum Kind {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Socket {
    /// Has the runtime of this thread watch it.
    fn new(socket: socket2::Socket, link: Arc<Link>) -> io::Result<Socket> {
        let is_unix = socket.domain()? == Domain::UNIX;
        let descriptor = OwnedFd::from(socket);
        let kind = match is_unix {
            true => Kind::Unix(UnixStream::from_std(descriptor.into())?),
            false => Kind::Tcp(TcpStream::from_std(descriptor.into())?),
        };
        Ok(Socket { kind, link })
    }

    /// Takes it from the runtime again.
    fn into_inner(self) -> io::Result<socket2::Socket> {
        let descriptor = match self.kind {
            Kind::Tcp(socket) => OwnedFd::from(socket.into_std()?),
            Kind::Unix(socket) => OwnedFd::from(socket.into_std()?),
        };
        Ok(descriptor.into())
    }

    fn note(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        self.link.note_written(written.is_ready());
        written
    }
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        let outcome = match &mut this.kind {
            Kind::Tcp(socket) => Pin::new(socket).poll_read(cx, buffer),
            Kind::Unix(socket) => Pin::new(socket).poll_read(cx, buffer),
        };
        if buffer.filled().len() > before {
            this.link.note_read();
        }
        outcome
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = match &mut this.kind {
            Kind::Tcp(socket) => Pin::new(socket).poll_write(cx, bytes),
            Kind::Unix(socket) => Pin::new(socket).poll_write(cx, bytes),
        };
        this.note(written)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = match &mut this.kind {
            Kind::Tcp(socket) => Pin::new(socket).poll_write_vectored(cx, slices),
            Kind::Unix(socket) => Pin::new(socket).poll_write_vectored(cx, slices),
        };
        this.note(written)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // What is written is with the kernel.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().kind {
            Kind::Tcp(socket) => Pin::new(socket).poll_shutdown(cx),
            Kind::Unix(socket) => Pin::new(socket).poll_shutdown(cx),
        }
    }
}

/// What is spoken over a socket.
#[derive(Debug)]
enum Spoken {
    /// No TLS; what was read already, from `at` on, comes first.
    Plain {
        socket: Socket,
        read: Vec<u8>,
        at: usize,
    },
    Tls(SecuredStream<Socket>),
}

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Transport {
    spoken: Spoken,
    link: Arc<Link>,
}

impl Transport {
    /// Goes on where a reactor stopped.
    ///
    /// # Errors
    /// Where the runtime cannot watch the socket, or TLS cannot begin.
    pub(super) fn new(stream: tls::Stream<socket2::Socket>, read: Vec<u8>, link: Arc<Link>) -> io::Result<Transport> {
        let tls::Stream { socket, layer } = stream;
        let socket = Socket::new(socket, link.clone())?;
        let spoken = match layer.into_secured().map_err(io::Error::other)? {
            Some(secured) => Spoken::Tls(SecuredStream::new(socket, secured, read)),
            None => Spoken::Plain { socket, read, at: 0 },
        };
        Ok(Transport { spoken, link })
    }

    /// What a reactor goes on with, and what was read and not taken from here yet. `None` where the peer sends nothing
    /// more.
    pub(super) fn into_parts(self) -> Option<(tls::Stream<socket2::Socket>, Vec<u8>)> {
        let (socket, layer, rest) = match self.spoken {
            Spoken::Plain { socket, read, at } => (socket, Layer::Plain, read[at..].to_vec()),
            Spoken::Tls(stream) => {
                let (socket, secured, rest) = stream.into_parts()?;
                (socket, Layer::Open(secured), rest)
            }
        };
        Some((tls::Stream { socket: socket.into_inner().ok()?, layer }, rest))
    }
}

impl AsyncRead for Transport {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().spoken {
            Spoken::Plain { read, at, .. } if *at < read.len() => {
                let count = buffer.remaining().min(read.len() - *at);
                buffer.put_slice(&read[*at..*at + count]);
                *at += count;
                if *at == read.len() {
                    (*read, *at) = (Vec::new(), 0);
                }
                Poll::Ready(Ok(()))
            }
            Spoken::Plain { socket, .. } => Pin::new(socket).poll_read(cx, buffer),
            Spoken::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Transport {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.link.note_flushed(false);
        match &mut this.spoken {
            Spoken::Plain { socket, .. } => Pin::new(socket).poll_write(cx, bytes),
            Spoken::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.link.note_flushed(false);
        match &mut this.spoken {
            Spoken::Plain { socket, .. } => Pin::new(socket).poll_write_vectored(cx, slices),
            Spoken::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
        }
    }

    /// Not over TLS: one buffer becomes one record.
    fn is_write_vectored(&self) -> bool {
        matches!(self.spoken, Spoken::Plain { .. })
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let outcome = match &mut this.spoken {
            Spoken::Plain { .. } => Poll::Ready(Ok(())),
            Spoken::Tls(stream) => Pin::new(stream).poll_flush(cx),
        };
        if let Poll::Ready(Ok(())) = outcome {
            this.link.note_flushed(true);
        }
        outcome
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().spoken {
            Spoken::Plain { socket, .. } => Pin::new(socket).poll_shutdown(cx),
            Spoken::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
