//! One connection of a crowd: its state, its socket, and what waits on either side of it.

use std::io::{ErrorKind, Write};
use std::time::Instant;

use mio::net::TcpStream;

use super::deflate::Reading;
use super::fragments::Fragments;
use super::seat::Seat;
use crate::client::Transport;

/// ```text
///   Vacant ──► Connecting ──► Upgrading ──► Entering ──► Open ──► Ended
///     ▲                                                  │         │
///     └───────────── Crowd::drop_all, drop_one ──────────┴─────────┘
/// ```
#[derive(Debug)]
pub(super) enum State {
    /// No socket.
    Vacant,
    /// The TCP connection is being made.
    Connecting,
    /// The upgrade request is sent.
    Upgrading,
    /// Upgraded: the welcome and, with a room, the answer to the join are awaited.
    Entering { welcomed: bool, joined: bool },
    /// Welcomed and joined.
    Open,
    /// Ended by the server.
    Ended,
}

/// A connection, or the place of one.
#[derive(Debug)]
pub(super) struct Link {
    /// Who sits here.
    pub(super) seat: Seat,
    /// What it says who it is by, where that is a token.
    pub(super) token: Option<Box<str>>,
    /// How far it is.
    pub(super) state: State,
    /// What its compressed messages are.
    pub(super) reading: Reading,
    /// Its socket.
    pub(super) stream: Option<Transport<TcpStream>>,
    /// Bytes received of a frame or head that is not whole yet.
    pub(super) partial: Vec<u8>,
    /// What it has of a message that travels in fragments.
    pub(super) fragments: Fragments,
    /// Bytes that the socket did not take yet.
    pub(super) unsent: Vec<u8>,
    /// Whether nothing of it is read for now.
    pub(super) is_stalled: bool,
    /// When its TCP connection was begun.
    pub(super) started: Instant,
}

impl Link {
    /// One that is not connected.
    pub(super) fn vacant(seat: Seat, token: Option<String>) -> Link {
        Link {
            seat,
            token: token.map(String::into_boxed_str),
            state: State::Vacant,
            reading: Reading::Forbidden,
            stream: None,
            partial: Vec::new(),
            fragments: Fragments::default(),
            unsent: Vec::new(),
            is_stalled: false,
            started: Instant::now(),
        }
    }

    /// Drops the connection, without a goodbye.
    pub(super) fn vacate(&mut self) {
        self.stream = None;
        self.state = State::Vacant;
        self.partial.clear();
        self.fragments = Fragments::default();
        self.unsent.clear();
        self.is_stalled = false;
    }

    /// Sends bytes, or keeps what the socket does not take.
    #[inline]
    pub(super) fn send(&mut self, bytes: &[u8]) {
        if !self.unsent.is_empty() {
            self.unsent.extend_from_slice(bytes);
            return;
        }
        let Some(stream) = &mut self.stream else { return };
        let sent = write_some(stream, bytes);
        self.unsent.extend_from_slice(&bytes[sent..]);
    }

    /// Sends what was kept.
    pub(super) fn flush(&mut self) {
        let Some(stream) = &mut self.stream else { return };
        if !self.unsent.is_empty() {
            let sent = write_some(stream, &self.unsent);
            self.unsent.drain(..sent);
        }
        // What TLS holds. Where the socket is broken, its end is read.
        let _ = stream.flush();
    }
}

/// How much the socket took. A broken socket takes nothing: its end is read.
fn write_some(stream: &mut Transport<TcpStream>, bytes: &[u8]) -> usize {
    let mut sent = 0;
    while sent < bytes.len() {
        match stream.write(&bytes[sent..]) {
            Ok(taken) => sent += taken,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
    sent
}
