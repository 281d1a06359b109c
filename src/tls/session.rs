//! One connection's TLS.

use std::fmt;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncodeTlsData, EncryptError, InsufficientSizeError, UnbufferedStatus, WriteTraffic,
};

use super::certificates::ClientName;
use crate::limits::{TLS_HANDSHAKE_BYTES_MAX, TLS_RECORD_BYTES_MAX};

/// What rustls adds to a record at most: header, explicit nonce, content type and tag.
const RECORD_OVERHEAD_BYTES: usize = 5 + 8 + 1 + 16;

/// What a peer's record may have beyond its application data: header and expansion (RFC 5246 §6.2.3, RFC 8446 §5.2).
const EXPANSION_BYTES_MAX: usize = 5 + 2048;

/// The answer to a client that speaks HTTP without TLS; browsers show it.
const PLAIN_HTTP: &[u8] =
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 45\r\n\
      Connection: close\r\n\r\nthis port speaks TLS: use https:// or wss://\n";

/// How far a session is.
#[derive(Clone, Debug, PartialEq)]
pub enum Progress {
    /// It goes on.
    Open,
    /// The peer sends nothing more (`close_notify`); what it sent before is there.
    PeerClosed,
    /// It is broken. What is to be sent holds the alert that says so.
    Failed(SessionError),
}

/// Why a session broke.
#[derive(Clone, Debug, PartialEq)]
pub enum SessionError {
    /// The peer speaks no TLS, but HTTP.
    PlainHttp,
    /// A message of the handshake is larger than `limits::TLS_HANDSHAKE_BYTES_MAX`, or one behind it than a record.
    TooLarge,
    /// What rustls says.
    Tls(rustls::Error),
}

impl fmt::Display for SessionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SessionError::PlainHttp => f.write_str("the client speaks HTTP without TLS"),
            SessionError::TooLarge => f.write_str("a message of the client's handshake is too large"),
            SessionError::Tls(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for SessionError {}

/// See the module's documentation. All of it is what a connection *is*: nothing can be built again.
pub struct Session {
    tls: UnbufferedServerConnection,
    /// The front of a record or of a handshake message whose rest has not come. At most a record, and
    /// `limits::TLS_HANDSHAKE_BYTES_MAX` before the handshake is over. Without an allocation where it is empty.
    partial: Vec<u8>,
    state: State,
}

/// What a session takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    /// The peer sends nothing more: whatever comes is no part of the session.
    PeerClosed,
    /// We have ended our side, and look at nothing more.
    Closed,
    Broken,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("partial_bytes", &self.partial.len()).finish_non_exhaustive()
    }
}

impl Session {
    /// A session before its handshake.
    ///
    /// # Errors
    /// Where rustls cannot begin with this configuration.
    pub fn new(config: Arc<ServerConfig>) -> Result<Session, SessionError> {
        let tls = UnbufferedServerConnection::new(config).map_err(SessionError::Tls)?;
        Ok(Session { tls, partial: Vec::new(), state: State::Open })
    }

    /// Whether nothing may be sealed yet.
    #[inline]
    pub fn is_handshaking(&self) -> bool {
        self.tls.is_handshaking()
    }

    /// Bytes held of what is not complete.
    #[inline]
    pub fn partial_bytes(&self) -> usize {
        self.partial.len()
    }

    /// Whether the next step of the handshake may be the one with the signature.
    #[inline]
    pub fn awaits_hello(&self) -> bool {
        self.tls.handshake_kind().is_none()
    }

    /// Whether an earlier session's ticket spared the signature. `None` before the handshake is over.
    pub fn is_resumed(&self) -> Option<bool> {
        let kind = self.tls.handshake_kind().filter(|_| !self.is_handshaking())?;
        Some(kind == rustls::HandshakeKind::Resumed)
    }

    /// What the client's certificate says of who it is.
    pub fn client_name(&self) -> ClientName {
        let certificate = self.tls.peer_certificates().and_then(<[_]>::first);
        certificate.map_or(ClientName::NotShown, ClientName::of)
    }

    /// Keeps bytes for later, without a look at them.
    ///
    /// # Errors
    /// More than a handshake may hold.
    pub fn keep(&mut self, bytes: &[u8]) -> Result<(), SessionError> {
        if self.partial.len() + bytes.len() > TLS_HANDSHAKE_BYTES_MAX {
            return Err(SessionError::TooLarge);
        }
        self.partial.extend_from_slice(bytes);
        Ok(())
    }

    /// Takes what came, puts what it says behind `plain` and what is to be sent because of it behind `out`. What is put
    /// behind `plain` is never more than came, this time and before.
    pub fn receive(&mut self, bytes: &mut [u8], plain: &mut Vec<u8>, out: &mut Vec<u8>) -> Progress {
        match self.state {
            State::Open => {}
            State::Closed => return Progress::Open,
            State::PeerClosed => return Progress::PeerClosed,
            State::Broken => return Progress::Failed(SessionError::Tls(rustls::Error::HandshakeNotComplete)),
        }
        let progress = match self.partial.is_empty() {
            true => {
                let (used, progress) = self.process(bytes, plain, out);
                self.partial = bytes[used..].to_vec();
                progress
            }
            false => {
                let mut whole = std::mem::take(&mut self.partial);
                whole.extend_from_slice(bytes);
                let (used, progress) = self.process(&mut whole, plain, out);
                // It may be a long record in many pieces: it is not copied for each.
                self.partial = if used == 0 { whole } else { whole[used..].to_vec() };
                progress
            }
        };
        let partial_bytes_max = match self.is_handshaking() {
            true => TLS_HANDSHAKE_BYTES_MAX,
            false => TLS_RECORD_BYTES_MAX + EXPANSION_BYTES_MAX,
        };
        let progress = match progress {
            Progress::Open if self.partial.len() > partial_bytes_max => Progress::Failed(SessionError::TooLarge),
            progress => progress,
        };
        match progress {
            Progress::Open => return progress,
            Progress::PeerClosed => self.state = State::PeerClosed,
            Progress::Failed(_) => self.state = State::Broken,
        }
        self.partial = Vec::new();
        progress
    }

    /// How many bytes of `bytes` are done with, and how it stands. What is left has been decrypted in place as far as
    /// that went, and has to come again as it is.
    fn process(&mut self, bytes: &mut [u8], plain: &mut Vec<u8>, out: &mut Vec<u8>) -> (usize, Progress) {
        let mut used = 0;
        let mut progress = Progress::Open;
        if self.is_handshaking() && is_http(bytes) {
            out.extend_from_slice(PLAIN_HTTP);
            return (used, Progress::Failed(SessionError::PlainHttp));
        }
        loop {
            let UnbufferedStatus { mut discard, state } = self.tls.process_tls_records(&mut bytes[used..]);
            match state {
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(record) = traffic.next_record() {
                        match record {
                            Ok(record) => {
                                plain.extend_from_slice(record.payload);
                                discard += record.discard;
                            }
                            Err(error) => return (used + discard, Progress::Failed(SessionError::Tls(error))),
                        }
                    }
                }
                Ok(ConnectionState::EncodeTlsData(data)) => encode(data, out),
                Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
                Ok(ConnectionState::PeerClosed) => progress = Progress::PeerClosed,
                Ok(ConnectionState::Closed) => return (used + discard, Progress::PeerClosed),
                Ok(ConnectionState::BlockedHandshake | ConnectionState::WriteTraffic(_)) => {
                    return (used + discard, progress);
                }
                // It is not offered.
                Ok(ConnectionState::ReadEarlyData(_) | _) => {
                    return (used + discard, Progress::Failed(SessionError::Tls(rustls::Error::HandshakeNotComplete)));
                }
                Err(error) => {
                    self.take_alert(&mut bytes[used + discard..], out);
                    return (used + discard, Progress::Failed(SessionError::Tls(error)));
                }
            }
            used += discard;
        }
    }

    /// What a broken session has to say. rustls is shown the bytes again that it has not discarded, and asked no
    /// further than that: it must not look at them once more.
    fn take_alert(&mut self, rest: &mut [u8], out: &mut Vec<u8>) {
        while self.tls.wants_write()
            && let Ok(ConnectionState::EncodeTlsData(data)) = self.tls.process_tls_records(rest).state
        {
            encode(data, out);
        }
    }

    /// Puts `plain` behind `out`, as records. Records that rustls has to send itself come first.
    ///
    /// # Errors
    /// Where the handshake is not over, or the keys are used up.
    pub fn seal(&mut self, plain: &[u8], out: &mut Vec<u8>) -> Result<(), SessionError> {
        let records = plain.len().div_ceil(TLS_RECORD_BYTES_MAX);
        let guess = plain.len() + records * RECORD_OVERHEAD_BYTES;
        self.write(out, guess, |traffic, room| traffic.encrypt(plain, room))
    }

    /// Puts the end of our side behind `out` (`close_notify`, RFC 8446 §6.1), once; what comes from then on is not looked at.
    pub fn close(&mut self, out: &mut Vec<u8>) {
        if self.state == State::Closed {
            return;
        }
        // Without keys there is nothing that an end could be told of.
        let _ = self.write(out, RECORD_OVERHEAD_BYTES + 2, |traffic, room| traffic.queue_close_notify(room));
        if self.state != State::Broken {
            self.state = State::Closed;
        }
        self.partial = Vec::new();
    }

    fn write(
        &mut self,
        out: &mut Vec<u8>,
        guess: usize,
        mut write: impl FnMut(&mut WriteTraffic<'_, ServerConnectionData>, &mut [u8]) -> Result<usize, EncryptError>,
    ) -> Result<(), SessionError> {
        if matches!(self.state, State::Broken | State::Closed) || self.is_handshaking() {
            return Err(SessionError::Tls(rustls::Error::HandshakeNotComplete));
        }
        loop {
            // Nothing of what is kept is whole: it is shown because rustls refers to it.
            let UnbufferedStatus { discard, state } = self.tls.process_tls_records(&mut self.partial);
            let written = match state {
                Ok(ConnectionState::WriteTraffic(mut traffic)) => {
                    let mut written = Ok(());
                    append(out, guess, |room| {
                        write(&mut traffic, room).map_err(|error| match error {
                            EncryptError::InsufficientSize(size) => Some(size),
                            EncryptError::EncryptExhausted => {
                                written = Err(SessionError::Tls(rustls::Error::EncryptError));
                                None
                            }
                        })
                    });
                    Some(written)
                }
                Ok(ConnectionState::EncodeTlsData(data)) => {
                    encode(data, out);
                    None
                }
                Ok(ConnectionState::TransmitTlsData(data)) => {
                    data.done();
                    None
                }
                Ok(_) => Some(Err(SessionError::Tls(rustls::Error::HandshakeNotComplete))),
                Err(error) => Some(Err(SessionError::Tls(error))),
            };
            self.partial.drain(..discard);
            if let Some(written) = written {
                return written;
            }
        }
    }
}

fn encode<Data>(mut data: EncodeTlsData<'_, Data>, out: &mut Vec<u8>) {
    append(out, 0, |room| {
        data.encode(room).map_err(|error| match error {
            EncodeError::InsufficientSize(size) => Some(size),
            EncodeError::AlreadyEncoded => None,
        })
    });
}

/// Has `write` put bytes behind `out`: into so much room as is guessed, or else as it says.
fn append(
    out: &mut Vec<u8>,
    guess: usize,
    mut write: impl FnMut(&mut [u8]) -> Result<usize, Option<InsufficientSizeError>>,
) {
    let begin = out.len();
    let mut room = guess;
    loop {
        out.resize(begin + room, 0);
        match write(&mut out[begin..]) {
            Ok(written) => return out.truncate(begin + written),
            Err(Some(InsufficientSizeError { required_size })) if required_size > room => room = required_size,
            Err(_) => return out.truncate(begin),
        }
    }
}

/// Whether these are the first bytes of an HTTP request; TLS begins with another one (RFC 8446 §5.1).
fn is_http(bytes: &[u8]) -> bool {
    bytes.first().is_some_and(u8::is_ascii_uppercase)
}
