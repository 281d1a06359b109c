//! Bombers: connections that send one message that is more than it looks, are closed for it, and come back with the
//! next. There are two charges: a deflate bomb, and a message of nothing but empty fragments.

use std::fmt::{self, Debug, Formatter};
use std::io::{ErrorKind, Read, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use flate2::{Compress, Compression, FlushCompress};
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};

use super::handshake::{Consent, Handshake};
use super::limits::{BOMB_PART_BYTES, EMPTY_FRAGMENTS, RECEIVE_BYTES};
use super::target::Target;
use super::wire::{Frame, Opcode, Parsed, masked, parse};
use super::{BenchError, Options};
use crate::client::Transport;

/// What is sent: whole frames, made once.
#[derive(Clone)]
pub(super) struct Charge {
    frames: Arc<[u8]>,
    deflate: bool,
}

impl Charge {
    /// A compressed message of so many zeros.
    pub(super) fn bomb(inflated_bytes: u64, mask: [u8; 4]) -> Charge {
        Charge { frames: masked(Opcode::Compressed, &deflated_zeros(inflated_bytes), mask).into(), deflate: true }
    }

    /// The beginning of a text message, and fragments of it without a byte or an end (RFC 6455 §5.4).
    pub(super) fn empty_fragments() -> Charge {
        const TEXT: [u8; 6] = [0x01, 0x80, 0, 0, 0, 0];
        const CONTINUATION: [u8; 6] = [0x00, 0x80, 0, 0, 0, 0];
        let mut frames = TEXT.to_vec();
        frames.extend_from_slice(&CONTINUATION.repeat(EMPTY_FRAGMENTS - 1));
        Charge { frames: frames.into(), deflate: false }
    }
}

impl Debug for Charge {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        out.debug_struct("Charge").field("bytes", &self.frames.len()).field("deflate", &self.deflate).finish()
    }
}

/// What became of the messages sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Blasts {
    /// Messages begun.
    pub(super) sent: u64,
    /// Answered with a close frame.
    pub(super) closed: u64,
    /// The last close frame's code; 0 where there was none.
    pub(super) code: u16,
}

#[derive(Debug)]
enum Stage {
    Down,
    Connecting,
    Upgrading,
    Armed,
    Sending { sent: usize },
    Sent,
}

#[derive(Debug)]
struct Bomber {
    stage: Stage,
    /// When this stage began.
    since: Instant,
    stream: Option<Transport<TcpStream>>,
    /// Bytes received of a head or frame that is not whole yet.
    partial: Vec<u8>,
}

/// All bombers with the same charge.
#[derive(Debug)]
pub(super) struct Bombers {
    bombers: Vec<Bomber>,
    charge: Charge,
    /// The token of the first.
    token: usize,
    start: Instant,
    /// The messages are spread over this time.
    duration: Duration,
    bombs: usize,
    timeout: Duration,
    blasts: Blasts,
    buffer: Vec<u8>,
}

impl Bombers {
    /// None is connected yet.
    pub(super) fn new(options: &Options, count: usize, charge: Charge, token: usize, start: Instant) -> Bombers {
        let down = || Bomber { stage: Stage::Down, since: start, stream: None, partial: Vec::new() };
        Bombers {
            bombers: (0..count).map(|_| down()).collect(),
            charge,
            token,
            start,
            duration: options.duration,
            bombs: options.bombs,
            timeout: options.timeout,
            blasts: Blasts::default(),
            buffer: vec![0; RECEIVE_BYTES],
        }
    }

    /// Whether this token is one of theirs.
    pub(super) fn holds(&self, token: usize) -> bool {
        (self.token..self.token + self.bombers.len()).contains(&token)
    }

    /// What became of the messages so far.
    pub(super) fn blasts(&self) -> Blasts {
        self.blasts
    }

    /// Whether all messages are sent, and answered or given up.
    pub(super) fn is_over(&self) -> bool {
        let is_firing = |bomber: &Bomber| matches!(bomber.stage, Stage::Sending { .. } | Stage::Sent);
        self.bombers.is_empty() || self.is_spent() && !self.bombers.iter().any(is_firing)
    }

    /// Connects those that are down, and has those that are not send what is due.
    pub(super) fn tick(&mut self, now: Instant, target: &Target, registry: &Registry) -> Result<(), BenchError> {
        for at in 0..self.bombers.len() {
            let (is_due, is_spent) = (self.is_due(now), self.is_spent());
            let bomber = &mut self.bombers[at];
            match bomber.stage {
                Stage::Down if !is_spent => {
                    let mut stream = target.dial()?;
                    let both = Interest::READABLE | Interest::WRITABLE;
                    registry.register(stream.socket_mut(), Token(self.token + at), both)?;
                    *bomber =
                        Bomber { stage: Stage::Connecting, since: now, stream: Some(stream), partial: Vec::new() };
                }
                Stage::Armed if is_due => {
                    bomber.stage = Stage::Sending { sent: 0 };
                    bomber.since = now;
                    self.blasts.sent += 1;
                    bomber.send(&self.charge);
                }
                Stage::Connecting | Stage::Upgrading | Stage::Sending { .. } | Stage::Sent
                    if now - bomber.since > self.timeout =>
                {
                    bomber.fall();
                }
                Stage::Down
                | Stage::Connecting
                | Stage::Upgrading
                | Stage::Armed
                | Stage::Sending { .. }
                | Stage::Sent => {}
            }
        }
        Ok(())
    }

    /// Goes on with one whose socket is ready.
    ///
    /// # Errors
    ///
    /// Where the server does not take its handshake: then there is no attack.
    pub(super) fn ready(&mut self, token: usize, writable: bool, handshake: &Handshake) -> Result<(), BenchError> {
        let Some(bomber) = token.checked_sub(self.token).and_then(|at| self.bombers.get_mut(at)) else { return Ok(()) };
        if writable {
            if let Some(stream) = &mut bomber.stream {
                // What TLS holds. Where the socket is broken, its end is read.
                let _ = stream.flush();
            }
            match &bomber.stage {
                Stage::Connecting => {
                    let request = handshake.request("bomber", self.charge.deflate)?;
                    // A socket that has just connected takes a request whole; one that has not takes nothing.
                    if bomber.stream.as_mut().is_some_and(|stream| stream.write(request.as_bytes()).is_ok()) {
                        bomber.stage = Stage::Upgrading;
                    }
                }
                Stage::Sending { .. } => bomber.send(&self.charge),
                Stage::Down | Stage::Upgrading | Stage::Armed | Stage::Sent => {}
            }
        }
        while let Some(stream) = &mut bomber.stream {
            let filled = match stream.read(&mut self.buffer) {
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected) => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Ok(filled @ 1..) => filled,
                Ok(0) | Err(_) => {
                    bomber.fall();
                    break;
                }
            };
            bomber.partial.extend_from_slice(&self.buffer[..filled]);
            if matches!(bomber.stage, Stage::Upgrading) {
                match handshake.consent(&bomber.partial, self.charge.deflate) {
                    Ok(None) => continue,
                    Ok(Some(Consent { head_bytes, .. })) => {
                        bomber.partial.drain(..head_bytes);
                        bomber.stage = Stage::Armed;
                    }
                    Err(why) => {
                        let flag = if self.charge.deflate { "--bombers" } else { "--fragmenters" };
                        return Err(BenchError::Server(format!("an attacker: {why}; or leave it out with {flag} 0")));
                    }
                }
            }
            if let Some(code) = bomber.goodbye() {
                if matches!(bomber.stage, Stage::Sending { .. } | Stage::Sent) {
                    self.blasts.closed += 1;
                    self.blasts.code = code;
                }
                bomber.fall();
            }
        }
        Ok(())
    }

    fn is_due(&self, now: Instant) -> bool {
        let share = self.blasts.sent as f64 / self.bombs as f64;
        !self.is_spent() && now >= self.start + self.duration.mul_f64(share)
    }

    fn is_spent(&self) -> bool {
        self.blasts.sent >= self.bombs as u64
    }
}

impl Bomber {
    fn send(&mut self, charge: &Charge) {
        let (Stage::Sending { sent }, Some(stream)) = (&mut self.stage, &mut self.stream) else { return };
        loop {
            match stream.write(&charge.frames[*sent..]) {
                Ok(taken) => *sent += taken,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                // Its end, and why, is read.
                Err(_) => *sent = charge.frames.len(),
            }
            if *sent == charge.frames.len() {
                self.stage = Stage::Sent;
                return;
            }
        }
    }

    /// The code of the close frame, if one has come. Everything before it is of no interest.
    fn goodbye(&mut self) -> Option<u16> {
        let mut used = 0;
        let code = loop {
            match parse(&self.partial[used..]) {
                Parsed::Frame(Frame::Close(payload), _) => {
                    break Some(payload.first_chunk().map_or(1005, |code| u16::from_be_bytes(*code)));
                }
                Parsed::Frame(
                    Frame::Message(_)
                    | Frame::Compressed(_)
                    | Frame::First { .. }
                    | Frame::Further { .. }
                    | Frame::Ping(_)
                    | Frame::Pong,
                    frame_bytes,
                ) => used += frame_bytes,
                Parsed::Partial | Parsed::Malformed => break None,
            }
        };
        self.partial.drain(..used);
        code
    }

    fn fall(&mut self) {
        self.stage = Stage::Down;
        self.stream = None;
        self.partial.clear();
    }
}

/// DEFLATE of so many zeros, as a message: parts that all come to the same bytes, each flushed, the last one without
/// its tail (RFC 7692 §7.2.1). Compressing one part is enough.
fn deflated_zeros(inflated_bytes: u64) -> Vec<u8> {
    const TAIL_BYTES: usize = 4;
    static PIECE: [u8; 64 * 1024] = [0; 64 * 1024];
    let part_bytes = inflated_bytes.min(BOMB_PART_BYTES);
    let mut state = Compress::new(Compression::best(), false);
    let mut part = Vec::with_capacity(part_bytes as usize / 512 + 1024);
    let outcome = (|| {
        while state.total_in() < part_bytes {
            let left = (part_bytes - state.total_in()).min(PIECE.len() as u64);
            state.compress_vec(&PIECE[..left as usize], &mut part, FlushCompress::None)?;
        }
        state.compress_vec(&[], &mut part, FlushCompress::Sync)
    })();
    outcome.expect("zeros can be compressed, and there is room for them");
    let mut message = part.repeat(inflated_bytes.div_ceil(part_bytes) as usize);
    message.truncate(message.len() - TAIL_BYTES);
    message
}

#[cfg(test)]
mod tests {
    use flate2::read::DeflateDecoder;

    use super::*;

    /// A server that takes messages of 1 MiB takes it, and has to notice while it inflates.
    #[test]
    fn a_bomb_of_a_gigabyte_is_a_message_below_a_megabyte() {
        let bomb = Charge::bomb(1 << 30, [1, 2, 3, 4]);
        assert!((1_000_000..1 << 20).contains(&bomb.frames.len()), "{}", bomb.frames.len());
        assert_eq!(bomb.frames[0], 0xC1);
    }

    #[test]
    fn a_bomb_inflates_to_what_it_should() {
        for bytes in [1 << 20, BOMB_PART_BYTES, BOMB_PART_BYTES * 2] {
            let mut message = deflated_zeros(bytes);
            // Its tail, and a final block, for a decoder that wants an end.
            message.extend_from_slice(&[0x00, 0x00, 0xFF, 0xFF, 0x03, 0x00]);
            let mut decoder = DeflateDecoder::new(&message[..]);
            assert_eq!(std::io::copy(&mut decoder, &mut std::io::sink()).unwrap(), bytes);
        }
    }

    #[test]
    fn empty_fragments_are_one_message_without_an_end() {
        let Charge { frames, .. } = Charge::empty_fragments();
        assert_eq!(frames.len(), EMPTY_FRAGMENTS * 6);
        let firsts: Vec<_> = frames.chunks(6).map(|frame| frame[0]).collect();
        assert_eq!((firsts[0], firsts.iter().filter(|first| **first == 0).count()), (0x01, EMPTY_FRAGMENTS - 1));
    }
}
