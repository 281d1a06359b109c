//! The contract between a worker and what does its input and output.

use std::io::{self, IoSlice};

use crate::time::Millis;

/// Names one connection's socket to a driver: a late completion for an earlier one in the same slot is told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Token {
    /// Index in the worker's slab.
    pub slot: u32,
    /// Which of the slot's connections.
    pub generation: u32,
}

/// Something that happened.
#[derive(Debug)]
pub enum Completion<S> {
    /// A client connected.
    Accepted(S),
    /// Bytes came: this many, in the buffer given to [`Driver::next`].
    Received(Token, usize),
    /// A socket that had taken fewer bytes than it was given takes more now.
    Writable(Token),
    /// The peer has closed its side, or the connection broke.
    Ended(Token),
}

/// What became of bytes handed to a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// So many were taken; if fewer than given, [`Completion::Writable`] follows.
    Took(usize),
    /// The connection is broken.
    Broken,
}

/// Input and output of one reactor. Nothing blocks but `wait`, and that no longer than it is told.
pub trait Driver {
    /// An accepted socket that belongs to no slot (yet, or any more).
    type Stream;

    /// Waits for something to happen, at most `timeout_ms` (`None`: as long as it takes). Returns at once where
    /// completions of an earlier wait are left.
    ///
    /// # Errors
    /// Only what makes the reactor unable to go on.
    fn wait(&mut self, timeout_ms: Option<u64>) -> io::Result<()>;

    /// The next completion of this turn; received bytes are in the front of `buffer`.
    fn next(&mut self, buffer: &mut [u8]) -> Option<Completion<Self::Stream>>;

    /// Puts an accepted socket into a slot; completions for it begin.
    ///
    /// # Errors
    /// The socket is lost then.
    fn attach(&mut self, token: Token, stream: Self::Stream) -> io::Result<()>;

    /// Sends bytes on the socket in a slot.
    fn send(&mut self, slot: u32, bytes: &[u8]) -> Sent;

    /// Sends several slices in one go.
    fn send_slices(&mut self, slot: u32, slices: &[IoSlice<'_>]) -> Sent;

    /// No more will be sent: the peer sees the end of the stream.
    fn finish(&mut self, slot: u32);

    /// Closes the socket in a slot.
    fn release(&mut self, slot: u32);

    /// Takes the socket out of its slot, for the threads of plain HTTP.
    fn detach(&mut self, slot: u32) -> Option<Self::Stream>;

    /// Stops or resumes taking bytes from clients; accepting goes on.
    fn set_reading(&mut self, reading: bool);

    /// Takes no bytes from the socket in a slot; its breaking is still told. What was received already is the worker's.
    fn pause(&mut self, slot: u32);

    /// Takes bytes from the socket in a slot again.
    fn resume(&mut self, slot: u32);

    /// Closes the listeners.
    fn stop_accepting(&mut self);

    /// The node's own clock.
    fn now(&self) -> Millis;

    /// Unix time in milliseconds, for the messages.
    fn unix_ms(&self) -> u64;
}
