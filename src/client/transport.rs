//! A socket that never blocks, plain or with TLS around what goes through it.

use std::fmt::{self, Debug, Formatter};
use std::io::{self, ErrorKind, Read, Write};

use rustls::ClientConnection;

use super::Tls;

/// Bytes that a session holds for its socket, and before the handshake is over for the session itself. Beyond it, writing
/// has to wait: `WouldBlock`.
const HELD_BYTES_MAX: usize = 128 * 1024;

/// What bytes are read from and written to. With TLS the handshake goes on whenever either is tried: there is no other
/// state than that of the socket, and `WouldBlock` means what it means there.
pub enum Transport<S> {
    /// The socket itself.
    Plain(S),
    /// With a session of TLS.
    Secure(Box<Secure<S>>),
}

/// A session and its socket.
pub struct Secure<S> {
    session: ClientConnection,
    socket: S,
    /// Bytes that are decrypted and not read yet.
    decrypted_bytes: usize,
}

impl<S: Read + Write> Transport<S> {
    /// Over a socket, which may still be connecting.
    ///
    /// # Errors
    ///
    /// Where the TLS library refuses its configuration.
    pub fn new(socket: S, tls: Option<&Tls>) -> io::Result<Transport<S>> {
        let Some(tls) = tls else { return Ok(Transport::Plain(socket)) };
        let mut session = tls.session()?;
        session.set_buffer_limit(Some(HELD_BYTES_MAX));
        Ok(Transport::Secure(Box::new(Secure { session, socket, decrypted_bytes: 0 })))
    }

    /// The socket.
    pub fn socket(&self) -> &S {
        match self {
            Transport::Plain(socket) => socket,
            Transport::Secure(secure) => &secure.socket,
        }
    }

    /// The socket, to be registered or set up. Bytes go through the transport.
    pub fn socket_mut(&mut self) -> &mut S {
        match self {
            Transport::Plain(socket) => socket,
            Transport::Secure(secure) => &mut secure.socket,
        }
    }

    /// Whether there is something to read that the socket's readiness does not tell of.
    pub fn holds_bytes(&self) -> bool {
        match self {
            Transport::Plain(_) => false,
            Transport::Secure(secure) => secure.decrypted_bytes > 0,
        }
    }

    /// Whether a read that brought less than it had room for took all there was (epoll(7), question 9). With TLS it took
    /// what one record brought, and there may be more.
    pub fn is_emptied_by_short_read(&self) -> bool {
        matches!(self, Transport::Plain(_))
    }

    /// Says that nothing more will be sent (RFC 8446 §6.1), as far as the socket takes it.
    pub fn part(&mut self) {
        if let Transport::Secure(secure) = self {
            secure.session.send_close_notify();
            // The socket is about to be closed: what it does not take now is lost.
            let _ = secure.push();
        }
    }
}

impl<S: Read + Write> Read for Transport<S> {
    #[inline]
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Transport::Plain(socket) => socket.read(buffer),
            Transport::Secure(secure) => secure.read(buffer),
        }
    }
}

impl<S: Read + Write> Write for Transport<S> {
    #[inline]
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Transport::Plain(socket) => socket.write(bytes),
            Transport::Secure(secure) => secure.write(bytes),
        }
    }

    /// With TLS: hands the socket what is held for it.
    #[inline]
    fn flush(&mut self) -> io::Result<()> {
        match self {
            Transport::Plain(socket) => socket.flush(),
            Transport::Secure(secure) => secure.push(),
        }
    }
}

impl<S: Debug> Debug for Transport<S> {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Transport::Plain(socket) => out.debug_tuple("Plain").field(socket).finish(),
            Transport::Secure(secure) => out.debug_tuple("Secure").field(&secure.socket).finish(),
        }
    }
}

impl<S: Read + Write> Secure<S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.session.reader().read(buffer) {
                Ok(taken) => {
                    self.decrypted_bytes = self.decrypted_bytes.saturating_sub(taken);
                    return Ok(taken);
                }
                // An end without close_notify is an end: WebSockets say goodbye by themselves (RFC 6455 §7.1.5).
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(0),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
            self.session.read_tls(&mut self.socket)?;
            match self.session.process_new_packets() {
                Ok(state) => self.decrypted_bytes = state.plaintext_bytes_to_read(),
                Err(error) => {
                    // The alert that says why, as far as the socket takes it.
                    let _ = self.push();
                    return Err(io::Error::new(ErrorKind::InvalidData, error));
                }
            }
            self.push_what_goes()?;
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.push()?;
        let taken = self.session.writer().write(bytes)?;
        if taken == 0 && !bytes.is_empty() {
            return Err(ErrorKind::WouldBlock.into());
        }
        self.push_what_goes()?;
        Ok(taken)
    }

    /// Hands the socket all that is held for it.
    fn push(&mut self) -> io::Result<()> {
        while self.session.wants_write() {
            self.session.write_tls(&mut self.socket)?;
        }
        Ok(())
    }

    /// What the socket does not take now goes with the next write or flush.
    fn push_what_goes(&mut self) -> io::Result<()> {
        match self.push() {
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(()),
            outcome => outcome,
        }
    }
}
