//! permessage-deflate (RFC 7692) on the client's side: single messages for those who cut frames by hand, and a stream
//! that puts it beneath [`Client`](super::Client).

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use flate2::{Compress, Compression, FlushCompress, Status};

use super::client::Stream;
use super::inflate::inflate;
use super::raw::{BINARY, CLOSE, EXTENSIONS, PING, PONG, RawConn, TEXT, cut_frame, header_of, masked, unmasked};

/// Marks a message as compressed, in the first byte of its first frame.
pub const RSV1: u8 = 0x40;

/// What every flushed block ends with, and what is left out of a message (RFC 7692 §7.2.1).
const TAIL: [u8; 4] = [0x00, 0x00, 0xFF, 0xFF];

/// Compresses the messages of one client.
pub struct Packer {
    zlib: Compress,
    takeover: bool,
}

impl Packer {
    /// With a window of so many bits; with `takeover` each message may refer to those before it.
    pub fn new(bits: u8, takeover: bool) -> Packer {
        Packer { zlib: Compress::new_with_window_bits(Compression::new(6), false, bits), takeover }
    }

    /// A whole message.
    pub fn pack(&mut self, message: &[u8]) -> Vec<u8> {
        self.begin();
        if message.is_empty() {
            // zlib has nothing to flush then; RFC 7692 §7.2.3.6 says what to send.
            return vec![0];
        }
        let mut out = self.part(message);
        assert!(out.ends_with(&TAIL), "a flushed block");
        out.truncate(out.len() - TAIL.len());
        out
    }

    /// A message begins that is made of parts.
    pub fn begin(&mut self) {
        if !self.takeover {
            self.zlib.reset();
        }
    }

    /// A part of a message, all of which can be read from its bytes and those before.
    pub fn part(&mut self, part: &[u8]) -> Vec<u8> {
        self.flush(part, FlushCompress::Sync)
    }

    /// A part that ends zlib's stream (RFC 7692 §7.2.3.4); what follows, be it only a zero byte, is a new one.
    pub fn last_part(&mut self, part: &[u8]) -> Vec<u8> {
        let out = self.flush(part, FlushCompress::Finish);
        self.zlib.reset();
        out
    }

    fn flush(&mut self, input: &[u8], flush: FlushCompress) -> Vec<u8> {
        let (mut out, before) = (Vec::new(), self.zlib.total_in());
        loop {
            out.reserve(input.len() + 64);
            let taken = (self.zlib.total_in() - before) as usize;
            let status = self.zlib.compress_vec(&input[taken..], &mut out, flush).expect("zlib compresses anything");
            if status == Status::StreamEnd || out.len() < out.capacity() {
                return out;
            }
        }
    }
}

/// What a compressed message holds, read with a window of so many bits and nothing of earlier messages.
///
/// # Panics
///
/// Where it is malformed, or refers to something outside of that window.
#[track_caller]
pub fn unpack(bits: u8, payload: &[u8]) -> Vec<u8> {
    try_unpack(bits, payload).unwrap_or_else(|| panic!("no message for {bits} bits: {}", payload.escape_ascii()))
}

/// As [`unpack`], or `None`.
pub fn try_unpack(bits: u8, payload: &[u8]) -> Option<Vec<u8>> {
    inflate(&[payload, &TAIL].concat(), 1 << bits)
}

/// What a server's answer to an offer says.
#[derive(Debug)]
pub struct Agreed {
    /// The window of what the server sends.
    pub server_bits: u8,
    /// The window of what the client sends.
    pub client_bits: u8,
    /// Whether the client's messages may refer to earlier ones.
    pub client_takeover: bool,
}

impl Agreed {
    /// Reads the value of `Sec-WebSocket-Extensions`.
    #[track_caller]
    pub fn of(answer: &str) -> Agreed {
        let mut parameters = answer.split("; ");
        assert_eq!(parameters.next(), Some("permessage-deflate"), "{answer}");
        let mut agreed = Agreed { server_bits: 15, client_bits: 15, client_takeover: true };
        let bits = |value: Option<&str>| value.and_then(|bits| bits.parse().ok()).expect("a number of bits");
        for parameter in parameters {
            let (name, value) = match parameter.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (parameter, None),
            };
            match name {
                "server_no_context_takeover" => {}
                "client_no_context_takeover" => agreed.client_takeover = false,
                "server_max_window_bits" => agreed.server_bits = bits(value),
                "client_max_window_bits" => agreed.client_bits = bits(value),
                other => panic!("{other} in {answer}"),
            }
        }
        agreed
    }

    /// The compressor of a client that keeps to this.
    pub fn packer(&self) -> Packer {
        Packer::new(self.client_bits, self.client_takeover)
    }
}

/// A whole message from the server.
#[derive(Debug, PartialEq, Eq)]
pub struct Received {
    /// Whether it is text.
    pub text: bool,
    /// Whether it came compressed.
    pub compressed: bool,
    /// What it holds.
    pub bytes: Vec<u8>,
}

impl RawConn {
    /// As [`RawConn::offer`] with one offer that the server must take.
    #[track_caller]
    pub fn deflating(server: &dyn super::Entrance, target: &str, offer: &str) -> (RawConn, Agreed) {
        let (conn, answer) = RawConn::offer(server, target, &[offer]);
        (conn, Agreed::of(&answer.unwrap_or_else(|| panic!("the server should take {offer:?}"))))
    }

    /// The next frame that is neither ping nor pong, which must be a message, decompressed by itself.
    #[track_caller]
    pub fn read_message(&mut self, bits: u8) -> Received {
        loop {
            let frame = self.read_frame().expect("a message, not the end of the connection");
            let compressed = frame.first & RSV1 != 0;
            match frame.first & !RSV1 {
                PING | PONG => {}
                first @ (TEXT | BINARY) => {
                    let bytes = if compressed { unpack(bits, &frame.payload) } else { frame.payload };
                    return Received { text: first == TEXT, compressed, bytes };
                }
                other => panic!("a frame {other:#04x}: {}", frame.payload.escape_ascii()),
            }
        }
    }
}

/// Messages that came from the server.
#[derive(Debug, Default)]
pub struct Tally {
    compressed: AtomicU64,
    plain: AtomicU64,
}

impl Tally {
    /// How many came compressed and how many did not.
    pub fn counts(&self) -> (u64, u64) {
        (self.compressed.load(Ordering::Relaxed), self.plain.load(Ordering::Relaxed))
    }
}

/// A TCP stream that adds an offer to the request passing through, compresses the messages that pass behind it, and
/// decompresses what comes, so that the library above needs to know nothing of compression.
pub struct DeflateStream {
    tcp: TcpStream,
    offer: String,
    asked: bool,
    agreed: Option<(Agreed, Packer)>,
    /// Written by the library, no whole frame yet.
    unsent: Vec<u8>,
    /// Received, no whole frame yet.
    unread: Vec<u8>,
    /// For the library to read, from `taken` on.
    ready: Vec<u8>,
    taken: usize,
    tally: Arc<Tally>,
}

impl DeflateStream {
    /// Before its request.
    pub fn new(tcp: TcpStream, offer: &str) -> DeflateStream {
        DeflateStream {
            tcp,
            offer: offer.to_owned(),
            asked: false,
            agreed: None,
            unsent: Vec::new(),
            unread: Vec::new(),
            ready: Vec::new(),
            taken: 0,
            tally: Arc::default(),
        }
    }

    /// The counts of what comes.
    pub fn tally(&self) -> Arc<Tally> {
        self.tally.clone()
    }

    /// Turns what was received into what the library is to read.
    fn translate(&mut self) {
        if self.agreed.is_none() {
            let Some(end) = head_end(&self.unread) else { return };
            let head: Vec<u8> = self.unread.drain(..end).collect();
            let text = String::from_utf8_lossy(&head).into_owned();
            let answer = header_of(&text, EXTENSIONS)
                .unwrap_or_else(|| panic!("the server should take {:?}: {text}", self.offer));
            let agreed = Agreed::of(answer);
            let packer = agreed.packer();
            self.agreed = Some((agreed, packer));
            // The library has not offered it.
            let other_lines = text.split_inclusive("\r\n").filter(|line| !line.starts_with(EXTENSIONS));
            other_lines.for_each(|line| self.ready.extend_from_slice(line.as_bytes()));
        }
        let bits = self.agreed.as_ref().map_or(15, |(agreed, _)| agreed.server_bits);
        while let Some(frame) = cut_frame(&mut self.unread, false) {
            let first = frame.first & !RSV1;
            let payload = match frame.first & RSV1 != 0 {
                true => unpack(bits, &frame.payload),
                false => frame.payload,
            };
            if !matches!(first, PING | PONG | CLOSE) {
                let count = if first == frame.first { &self.tally.plain } else { &self.tally.compressed };
                count.fetch_add(1, Ordering::Relaxed);
            }
            self.ready.extend(unmasked(first, &payload));
        }
    }
}

impl Read for DeflateStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.taken == self.ready.len() {
            self.ready.clear();
            self.taken = 0;
            let mut chunk = [0; 64 * 1024];
            let count = self.tcp.read(&mut chunk)?;
            if count == 0 {
                return Ok(0);
            }
            self.unread.extend_from_slice(&chunk[..count]);
            self.translate();
        }
        let count = buffer.len().min(self.ready.len() - self.taken);
        buffer[..count].copy_from_slice(&self.ready[self.taken..][..count]);
        self.taken += count;
        Ok(count)
    }
}

impl Write for DeflateStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.unsent.extend_from_slice(bytes);
        if !self.asked {
            let Some(end) = head_end(&self.unsent) else { return Ok(bytes.len()) };
            let field = format!("{EXTENSIONS}: {}\r\n", self.offer);
            // In front of the empty line.
            self.unsent.splice(end - 2..end - 2, field.into_bytes());
            self.tcp.write_all(&std::mem::take(&mut self.unsent))?;
            self.asked = true;
        }
        while let Some(frame) = cut_frame(&mut self.unsent, true) {
            let frame = match (frame.first, &mut self.agreed) {
                (TEXT | BINARY, Some((_, packer))) => masked(frame.first | RSV1, &packer.pack(&frame.payload)),
                (first, _) => masked(first, &frame.payload),
            };
            self.tcp.write_all(&frame)?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.tcp.flush()
    }
}

impl Stream for DeflateStream {
    fn limit_reads(&self, timeout: Duration) -> io::Result<()> {
        self.tcp.set_read_timeout(Some(timeout))
    }
}

fn head_end(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4)
}
