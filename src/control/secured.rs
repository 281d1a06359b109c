//! TLS over a socket that a reactor has handed over, as the HTTP library reads and writes it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::limits::TLS_RECORD_BYTES_MAX;
use crate::tls::{Progress, Secured};

/// A socket and the session that goes on over it.
#[derive(Debug)]
pub(super) struct SecuredStream<S> {
    socket: S,
    secured: Box<Secured>,
    /// What was received and not read yet: from `at` on.
    opened: Vec<u8>,
    at: usize,
    /// What the socket's bytes are read into, while the thread of plain HTTP has the connection.
    buffer: Vec<u8>,
    /// The peer sends no more.
    is_over: bool,
    is_closed: bool,
}

impl<S> SecuredStream<S> {
    /// Goes on with what was opened already.
    pub(super) fn new(socket: S, secured: Box<Secured>, opened: Vec<u8>) -> SecuredStream<S> {
        let buffer = vec![0; TLS_RECORD_BYTES_MAX];
        SecuredStream { socket, secured, opened, at: 0, buffer, is_over: false, is_closed: false }
    }

    /// What someone else goes on with: the socket, the session, and what was opened and not read. `None` where one side
    /// has ended.
    pub(super) fn into_parts(self) -> Option<(S, Box<Secured>, Vec<u8>)> {
        let SecuredStream { socket, secured, opened, at, buffer: _, is_over, is_closed } = self;
        (!is_over && !is_closed).then(|| (socket, secured, opened[at..].to_vec()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> SecuredStream<S> {
    /// Sends what is owed.
    fn poll_owed(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let owed = &mut self.secured.owed;
        while !owed.is_empty() {
            let taken = ready!(Pin::new(&mut self.socket).poll_write(cx, owed))?;
            if taken == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            owed.drain(..taken);
        }
        Poll::Ready(Ok(()))
    }

    /// Takes records from the socket. `Ready` where there is something new to read, or will be nothing more.
    fn poll_records(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut buffer = ReadBuf::new(&mut self.buffer);
        ready!(Pin::new(&mut self.socket).poll_read(cx, &mut buffer))?;
        let records = buffer.filled_mut();
        if records.is_empty() {
            self.is_over = true;
            return Poll::Ready(Ok(()));
        }
        let Secured { session, owed } = &mut *self.secured;
        match session.receive(records, &mut self.opened, owed) {
            Progress::Open => {}
            Progress::PeerClosed => self.is_over = true,
            Progress::Failed(error) => {
                // The connection ends with an error whether the alert finds its way or not.
                let _ = self.poll_owed(cx);
                return Poll::Ready(Err(io::Error::other(error)));
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for SecuredStream<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            if this.at < this.opened.len() {
                let count = buffer.remaining().min(this.opened.len() - this.at);
                buffer.put_slice(&this.opened[this.at..this.at + count]);
                this.at += count;
                return Poll::Ready(Ok(()));
            }
            this.opened.clear();
            this.at = 0;
            if this.is_over {
                return Poll::Ready(Ok(()));
            }
            // A handshake waits for its answers; another time they leave with what is written.
            if let Poll::Ready(Err(error)) = this.poll_owed(cx) {
                return Poll::Ready(Err(error));
            }
            ready!(this.poll_records(cx))?;
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for SecuredStream<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_owed(cx))?;
        let sealed = &bytes[..bytes.len().min(TLS_RECORD_BYTES_MAX)];
        let Secured { session, owed } = &mut *this.secured;
        session.seal(sealed, owed).map_err(io::Error::other)?;
        match this.poll_owed(cx) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            // The rest goes in front of the next write, or with the flush.
            Poll::Ready(Ok(())) | Poll::Pending => Poll::Ready(Ok(sealed.len())),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_owed(cx))?;
        Pin::new(&mut this.socket).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !std::mem::replace(&mut this.is_closed, true) {
            let Secured { session, owed } = &mut *this.secured;
            session.close(owed);
        }
        ready!(this.poll_owed(cx))?;
        Pin::new(&mut this.socket).poll_shutdown(cx)
    }
}
