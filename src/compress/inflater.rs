//! Decompressing messages (RFC 7692 §7.2.2), never beyond what a message may hold.
//!
//! A decompressor's state is needed only while a message is incomplete: between messages all that counts is the window,
//! the last bytes of what was sent before (§7.2.3.2). So a reactor has one decompressor for messages that arrive in
//! one piece, a bounded number for those that do not, and each connection keeps its [`History`], which is no longer than
//! what it has really sent.

use std::cell::Cell;
use std::fmt;
use std::rc::Rc;

use flate2::{Decompress, FlushDecompress, Status};

use super::WindowBits;
use super::deflater::TAIL;
use crate::limits::{DEFLATE_STREAMS_MAX, INFLATE_STEP_BYTES, INFLATE_STREAMS_MAX};

/// What is wrong with a compressed message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InflateError {
    /// It holds more than it may.
    TooBig,
    /// It is not what a compressor makes.
    Malformed,
}

/// The last bytes that a client's messages held, for its next message to refer to.
#[derive(Debug, Default)]
pub struct History {
    bytes: Vec<u8>,
}

impl History {
    /// Bytes held.
    pub fn held_bytes(&self) -> usize {
        self.bytes.capacity()
    }

    /// A message is complete: its last bytes count, at most `bytes_max`.
    pub fn push(&mut self, message: &[u8], bytes_max: usize) {
        let tail = &message[message.len().saturating_sub(bytes_max)..];
        let keep = self.bytes.len().min(bytes_max - tail.len());
        self.bytes.drain(..self.bytes.len() - keep);
        let needed = self.bytes.len() + tail.len();
        if needed > self.bytes.capacity() {
            // By doubling, and never beyond the window.
            let capacity = needed.next_power_of_two().min(bytes_max);
            self.bytes.reserve_exact(capacity - self.bytes.len());
        }
        self.bytes.extend_from_slice(tail);
    }
}

/// The decompressors of one reactor.
#[derive(Debug, Default)]
pub struct Inflaters {
    whole: Option<State>,
    spare: Vec<State>,
    counts: Rc<Counts>,
    buffer: Vec<u8>,
}

impl Inflaters {
    /// Decompresses a message that is here in one piece, into `out`, which then holds at most `bytes_max`.
    ///
    /// # Errors
    /// [`InflateError`]; what `out` holds then has no meaning.
    pub fn inflate(
        &mut self,
        payload: &[u8],
        history: Option<&History>,
        out: &mut Vec<u8>,
        bytes_max: usize,
    ) -> Result<(), InflateError> {
        let state = self.whole.get_or_insert_default();
        state.begin(history);
        let before = out.len();
        let result = state.push(payload, history, out, bytes_max).and_then(|()| state.end(history, out, bytes_max));
        self.counts.add_bytes(out.len() - before);
        self.counts.take_bytes(payload.len());
        result
    }

    /// A decompressor for a message that comes in pieces; `None` where `limits::INFLATE_STREAMS_MAX` of them are out:
    /// the message is to be gathered then, and decompressed when it is whole.
    pub fn take(&mut self, history: Option<&History>) -> Option<Stream> {
        if self.in_pieces() == INFLATE_STREAMS_MAX {
            return None;
        }
        let mut state = self.spare.pop().unwrap_or_default();
        state.begin(history);
        Some(Stream { state, lease: Lease::new(&self.counts) })
    }

    /// Takes one back for the next message.
    pub fn give_back(&mut self, stream: Stream) {
        self.spare.push(stream.state);
    }

    /// Messages that are being decompressed as they arrive.
    pub fn in_pieces(&self) -> usize {
        self.counts.in_pieces.get()
    }

    /// Bytes decompressed so far, those of refused messages included.
    pub fn inflated_bytes(&self) -> u64 {
        self.counts.inflated_bytes.get()
    }

    /// Bytes that these were made of.
    pub fn deflated_bytes(&self) -> u64 {
        self.counts.deflated_bytes.get()
    }

    /// An empty buffer for a message.
    pub fn buffer(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.buffer)
    }

    /// Takes a buffer back, unless one large message made it grow beyond `bytes_max`.
    pub fn recycle(&mut self, mut buffer: Vec<u8>, bytes_max: usize) {
        if buffer.capacity() <= bytes_max && buffer.capacity() > self.buffer.capacity() {
            buffer.clear();
            self.buffer = buffer;
        }
    }
}

/// The decompressor of one message that comes in pieces. It counts as long as it lives.
#[derive(Debug)]
pub struct Stream {
    state: State,
    lease: Lease,
}

impl Stream {
    /// Takes more of the message; what it holds is appended to `out`.
    ///
    /// # Errors
    /// [`InflateError`], as soon as the bytes show it.
    pub fn push(
        &mut self,
        piece: &[u8],
        history: Option<&History>,
        out: &mut Vec<u8>,
        bytes_max: usize,
    ) -> Result<(), InflateError> {
        let before = out.len();
        let result = self.state.push(piece, history, out, bytes_max);
        self.lease.0.add_bytes(out.len() - before);
        self.lease.0.take_bytes(piece.len());
        result
    }

    /// The message is complete; nothing more is appended to `out` where it is well formed.
    ///
    /// # Errors
    /// [`InflateError`].
    pub fn end(&mut self, history: Option<&History>, out: &mut Vec<u8>, bytes_max: usize) -> Result<(), InflateError> {
        let before = out.len();
        let result = self.state.end(history, out, bytes_max);
        self.lease.0.add_bytes(out.len() - before);
        result
    }
}

#[derive(Debug, Default)]
struct Counts {
    in_pieces: Cell<usize>,
    inflated_bytes: Cell<u64>,
    deflated_bytes: Cell<u64>,
}

impl Counts {
    fn add_bytes(&self, bytes: usize) {
        self.inflated_bytes.set(self.inflated_bytes.get() + bytes as u64);
    }

    fn take_bytes(&self, bytes: usize) {
        self.deflated_bytes.set(self.deflated_bytes.get() + bytes as u64);
    }
}

/// One of the bounded number of streams.
#[derive(Debug)]
struct Lease(Rc<Counts>);

impl Lease {
    fn new(counts: &Rc<Counts>) -> Lease {
        counts.in_pieces.set(counts.in_pieces.get() + 1);
        Lease(counts.clone())
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.0.in_pieces.set(self.0.in_pieces.get() - 1);
    }
}

/// zlib's state, and how often the message made it start anew.
struct State {
    zlib: Decompress,
    restarts: u32,
}

impl State {
    fn begin(&mut self, history: Option<&History>) {
        self.restarts = 0;
        self.zlib.reset(false);
        if let Some(history) = history.filter(|history| !history.bytes.is_empty()) {
            self.remember(&history.bytes);
        }
    }

    fn push(
        &mut self,
        mut input: &[u8],
        history: Option<&History>,
        out: &mut Vec<u8>,
        bytes_max: usize,
    ) -> Result<(), InflateError> {
        loop {
            if out.len() > bytes_max {
                return Err(InflateError::TooBig);
            }
            if out.len() == out.capacity() {
                // One byte of room beyond the bound shows what goes beyond it.
                let step = out.len().max(INFLATE_STEP_BYTES).min(bytes_max + 1 - out.len());
                out.reserve_exact(step);
            }
            let (taken_before, given_before) = (self.zlib.total_in(), out.len());
            let status =
                self.zlib.decompress_vec(input, out, FlushDecompress::Sync).map_err(|_| InflateError::Malformed)?;
            let taken = (self.zlib.total_in() - taken_before) as usize;
            input = &input[taken..];
            match status {
                // A compressor may end its stream within a message (RFC 7692 §7.2.3.4); what follows is a new one.
                Status::StreamEnd => self.restart(history, out)?,
                Status::Ok | Status::BufError if out.len() < out.capacity() && input.is_empty() => break,
                Status::Ok | Status::BufError
                    if taken == 0 && out.len() == given_before && out.len() < out.capacity() =>
                {
                    return Err(InflateError::Malformed);
                }
                Status::Ok | Status::BufError => {}
            }
        }
        match out.len() > bytes_max {
            true => Err(InflateError::TooBig),
            false => Ok(()),
        }
    }

    /// The tail that the message's sender left out comes back (RFC 7692 §7.2.2). It is an empty block: where bytes come
    /// out of it, the message broke off within a block of its own.
    fn end(&mut self, history: Option<&History>, out: &mut Vec<u8>, bytes_max: usize) -> Result<(), InflateError> {
        let before = out.len();
        self.push(&TAIL, history, out, bytes_max)?;
        match out.len() == before {
            true => Ok(()),
            false => Err(InflateError::Malformed),
        }
    }

    fn restart(&mut self, history: Option<&History>, out: &[u8]) -> Result<(), InflateError> {
        self.restarts += 1;
        if self.restarts == DEFLATE_STREAMS_MAX {
            return Err(InflateError::Malformed);
        }
        self.zlib.reset(false);
        let mut window = History::default();
        for part in [history.map_or(&[][..], |history| &history.bytes), out] {
            window.push(part, WindowBits::MAX.window_bytes());
        }
        self.remember(&window.bytes);
        Ok(())
    }

    fn remember(&mut self, window: &[u8]) {
        self.zlib.set_dictionary(window).expect("a raw stream takes a dictionary at its start");
    }
}

impl Default for State {
    fn default() -> State {
        State { zlib: Decompress::new(false), restarts: 0 }
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State").field("restarts", &self.restarts).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use flate2::{Compress, Compression, FlushCompress};
    use proptest::prelude::*;

    use super::*;

    /// A client that takes its context over, or ends its stream with each message.
    struct Client {
        state: Compress,
        finish: bool,
    }

    impl Client {
        fn new(bits: u8, finish: bool) -> Client {
            Client { state: Compress::new_with_window_bits(Compression::new(6), false, bits), finish }
        }

        fn message(&mut self, payload: &[u8]) -> Vec<u8> {
            let mut out = Vec::with_capacity(payload.len() * 2 + 100);
            if self.finish {
                self.state.reset();
                self.state.compress_vec(payload, &mut out, FlushCompress::Finish).unwrap();
                out.push(0);
                return out;
            }
            if payload.is_empty() {
                // zlib has nothing to flush then; RFC 7692 §7.2.3.6 says what to send.
                return vec![0];
            }
            self.state.compress_vec(payload, &mut out, FlushCompress::Sync).unwrap();
            assert!(out.ends_with(&TAIL));
            out.truncate(out.len() - TAIL.len());
            out
        }
    }

    fn inflate(payload: &[u8], bytes_max: usize) -> Result<Vec<u8>, InflateError> {
        let mut out = Vec::new();
        Inflaters::default().inflate(payload, None, &mut out, bytes_max).map(|()| out)
    }

    #[test]
    fn the_rfcs_own_examples() {
        // RFC 7692 §7.2.3.1, §7.2.3.3 (a stored block), §7.2.3.4 (a final block) and §7.2.3.5 (two blocks).
        for payload in [
            &[0xF2, 0x48, 0xCD, 0xC9, 0xC9, 0x07, 0x00][..],
            &[0x00, 0x05, 0x00, 0xFA, 0xFF, 0x48, 0x65, 0x6C, 0x6C, 0x6F, 0x00],
            &[0xF3, 0x48, 0xCD, 0xC9, 0xC9, 0x07, 0x00, 0x00],
            &[0xF2, 0x48, 0x05, 0x00, 0x00, 0x00, 0xFF, 0xFF, 0xCA, 0xC9, 0xC9, 0x07, 0x00],
        ] {
            assert_eq!(inflate(payload, 5).unwrap(), b"Hello");
            assert_eq!(inflate(payload, 4), Err(InflateError::TooBig));
        }
        // §7.2.3.6: an empty message.
        assert_eq!(inflate(&[0x00], 0).unwrap(), b"");
    }

    #[test]
    fn a_second_message_refers_to_the_first() {
        // RFC 7692 §7.2.3.2.
        let (mut inflaters, mut history, mut out) = (Inflaters::default(), History::default(), Vec::new());
        for payload in [&[0xF2, 0x48, 0xCD, 0xC9, 0xC9, 0x07, 0x00][..], &[0xF2, 0x00, 0x11, 0x00, 0x00]] {
            out.clear();
            inflaters.inflate(payload, Some(&history), &mut out, 100).unwrap();
            assert_eq!(out, b"Hello");
            history.push(&out, 512);
        }
        assert_eq!(inflate(&[0xF2, 0x00, 0x11, 0x00, 0x00], 100), Err(InflateError::Malformed));
    }

    #[test]
    fn a_message_that_breaks_off_within_a_block_is_malformed() {
        let hello = [0xF2, 0x48, 0xCD, 0xC9, 0xC9, 0x07, 0x00];
        // A stored block of 100 bytes, of which 5 are there; and all beginnings of a block that end within a symbol.
        let stored = [0x00, 0x64, 0x00, 0x9B, 0xFF, 0x48, 0x65, 0x6C, 0x6C, 0x6F];
        for payload in [&stored[..], &hello[..2], &hello[..3], &hello[..4], &hello[..5]] {
            assert_eq!(inflate(payload, 200), Err(InflateError::Malformed), "{payload:x?}");
            let (mut inflaters, mut out) = (Inflaters::default(), Vec::new());
            let mut stream = inflaters.take(None).unwrap();
            stream.push(payload, None, &mut out, 200).unwrap();
            assert_eq!(stream.end(None, &mut out, 200), Err(InflateError::Malformed), "{payload:x?}");
        }
    }

    #[test]
    fn endless_streams_in_one_message_are_refused() {
        let streams = |count: u32| [0x03, 0x00].repeat(count as usize);
        assert!(inflate(&[&streams(DEFLATE_STREAMS_MAX - 1)[..], &[0]].concat(), 10).is_ok());
        assert_eq!(inflate(&streams(DEFLATE_STREAMS_MAX), 10), Err(InflateError::Malformed));
    }

    #[test]
    fn messages_in_pieces_are_bounded_in_number() {
        let mut inflaters = Inflaters::default();
        let streams: Vec<_> = (0..INFLATE_STREAMS_MAX).map(|_| inflaters.take(None).unwrap()).collect();
        assert!(inflaters.take(None).is_none());
        assert_eq!(inflaters.in_pieces(), INFLATE_STREAMS_MAX);
        streams.into_iter().for_each(|stream| inflaters.give_back(stream));
        assert!(inflaters.take(None).is_some());
    }

    #[test]
    fn a_bomb_is_noticed_at_the_bound() {
        let bomb = Client::new(15, false).message(&vec![0; 32 << 20]);
        let mut out = Vec::new();
        assert_eq!(Inflaters::default().inflate(&bomb, None, &mut out, 100_000), Err(InflateError::TooBig));
        assert!(out.capacity() <= 100_001 + INFLATE_STEP_BYTES, "{} bytes", out.capacity());
    }

    proptest! {
        #[test]
        fn garbage_never_panics_nor_goes_beyond_the_bound(
            garbage in proptest::collection::vec(any::<u8>(), 0..600),
            bytes_max in 0_usize..2_000,
        ) {
            if let Ok(message) = inflate(&garbage, bytes_max) {
                prop_assert!(message.len() <= bytes_max);
            }
        }

        #[test]
        fn with_and_without_pieces_and_takeover_the_messages_are_the_same(
            messages in proptest::collection::vec((proptest::collection::vec("[a-f]{1,300}", 0..30), any::<bool>()), 1..12),
            bits in 9_u8..16,
            finish in any::<bool>(),
            piece in 1_usize..700,
        ) {
            let mut client = Client::new(bits, finish);
            let (mut inflaters, mut history) = (Inflaters::default(), History::default());
            for (words, in_pieces) in messages {
                let message = words.concat().into_bytes();
                let payload = client.message(&message);
                let mut out = Vec::new();
                if in_pieces {
                    let mut stream = inflaters.take(Some(&history)).unwrap();
                    for piece in payload.chunks(piece) {
                        stream.push(piece, Some(&history), &mut out, message.len()).unwrap();
                    }
                    stream.end(Some(&history), &mut out, message.len()).unwrap();
                    inflaters.give_back(stream);
                } else {
                    inflaters.inflate(&payload, Some(&history), &mut out, message.len()).unwrap();
                }
                prop_assert_eq!(&out, &message);
                history.push(&out, 1 << bits);
                prop_assert!(history.held_bytes() <= 1 << bits);
            }
        }
    }
}
