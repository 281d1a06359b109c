//! A client's end of its connection: bytes out at a pace of its own, frames in.

use std::collections::VecDeque;

use fanfare::reactor::sim::{Client, World};
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress};

/// The key of RFC 6455 §1.3, and what answers it.
pub const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// The opcode of a text message (RFC 6455 §5.2).
pub const TEXT: u8 = 1;
/// The opcode of a binary one.
pub const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;
/// Marks a compressed message (RFC 7692 §6).
const RSV1: u8 = 0x40;

/// What a compressed message ends with, and is sent without (RFC 7692 §7.2.1).
const TAIL: [u8; 4] = [0, 0, 0xFF, 0xFF];

/// Something whole that came from the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// The status of the response head.
    Status(u16),
    /// A message and its opcode.
    Message(u8, Vec<u8>),
    /// A ping and its payload.
    Ping(Vec<u8>),
    /// A pong and its payload.
    Pong(Vec<u8>),
    /// The code, if there is one, and the reason.
    Close(Option<u16>, String),
}

/// See the module's documentation.
pub struct End {
    /// The connection.
    pub client: Client,
    /// What the network does not have yet.
    unsent: VecDeque<u8>,
    is_partly_sent: bool,
    unparsed: Vec<u8>,
    stage: Stage,
    key: Key,
    deflate: Option<Deflate>,
    /// Compressed messages that came.
    pub compressed: u64,
}

/// What was agreed about compression (RFC 7692), as the client sees it.
struct Deflate {
    /// The window of what the server sends, which refers to nothing before.
    server_bits: u8,
    compress: Compress,
    takeover: bool,
}

/// What a client asks with.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Key {
    /// [`KEY`].
    Usual,
    /// Any, or none.
    Other,
}

/// How far the server's side of the conversation is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Head,
    Frames,
    /// A refusal's body, to the end of the connection.
    Body,
    Closed,
}

impl End {
    /// The end of a connection that has begun.
    pub fn new(client: Client) -> End {
        End {
            client,
            unsent: VecDeque::new(),
            is_partly_sent: false,
            unparsed: Vec::new(),
            stage: Stage::Head,
            key: Key::Usual,
            deflate: None,
            compressed: 0,
        }
    }

    /// Its request has another key than the usual one, or may have.
    pub fn has_other_key(&mut self) {
        self.key = Key::Other;
    }

    /// Bytes the network does not have yet.
    pub fn unsent(&self) -> usize {
        self.unsent.len()
    }

    /// Whether the network has a part of what is to be sent.
    pub fn is_speaking(&self) -> bool {
        self.is_partly_sent && !self.unsent.is_empty()
    }

    /// Lets the network have so many bytes of what is to be sent.
    pub fn flush(&mut self, world: &World, bytes_max: usize) {
        let bytes: Vec<u8> = self.unsent.drain(..bytes_max.min(self.unsent.len())).collect();
        self.is_partly_sent = true;
        world.send(self.client, &bytes);
    }

    /// Takes bytes that have come; `hear` gets everything that became whole.
    pub fn take(&mut self, bytes: &[u8], mut hear: impl FnMut(Heard)) {
        self.unparsed.extend_from_slice(bytes);
        let mut from = 0;
        while from < self.unparsed.len() {
            let rest = &self.unparsed[from..];
            let parsed = match self.stage {
                Stage::Head => head(rest, self.key, &mut self.deflate),
                Stage::Frames => frame(rest, self.deflate.as_ref()),
                Stage::Body => return self.unparsed.clear(),
                Stage::Closed => panic!("nothing follows a close frame"),
            };
            let Some((heard, used)) = parsed else { break };
            self.compressed += u64::from(self.stage == Stage::Frames && rest[0] & RSV1 != 0);
            from += used;
            self.stage = match heard {
                Heard::Status(101) | Heard::Message(..) | Heard::Ping(_) | Heard::Pong(_) => Stage::Frames,
                Heard::Status(_) => Stage::Body,
                Heard::Close(..) => Stage::Closed,
            };
            hear(heard);
        }
        self.unparsed.drain(..from);
    }

    /// Whether what came ends in the middle of something.
    pub fn is_cut(&self) -> bool {
        !self.unparsed.is_empty()
    }

    /// Asks for a connection at this path, and offers compression of some kind or none.
    pub fn ask_upgrade(&mut self, target: &str, random: &mut fastrand::Rng) {
        let parameters = ["", "; client_max_window_bits", "; client_max_window_bits=9", "; server_max_window_bits=10"];
        let takeover = if random.bool() { "" } else { "; client_no_context_takeover" };
        let offer = match random.choice(parameters).filter(|_| random.bool()) {
            Some(parameter) => format!("Sec-WebSocket-Extensions: permessage-deflate{takeover}{parameter}\r\n"),
            None => String::new(),
        };
        self.say_raw(&upgrade_request(target, &offer));
    }

    /// Says bytes as they are.
    pub fn say_raw(&mut self, bytes: &[u8]) {
        self.unsent.extend(bytes);
    }

    /// Says a message, compressed or in fragments if the dice want it so, with `ping` between two of them.
    pub fn say(
        &mut self,
        opcode: u8,
        payload: &[u8],
        fragments: usize,
        ping: Option<&[u8]>,
        random: &mut fastrand::Rng,
    ) {
        let deflate = self.deflate.as_mut().filter(|_| random.bool());
        let (marks, payload) = match deflate {
            Some(deflate) => (RSV1 | opcode, &deflate.payload(payload)[..]),
            None => (opcode, payload),
        };
        let mut cuts: Vec<usize> = (1..fragments).map(|_| random.usize(0..=payload.len())).collect();
        cuts.sort_unstable();
        cuts.push(payload.len());
        let (mut from, last) = (0, cuts.len() - 1);
        for (at, to) in cuts.into_iter().enumerate() {
            self.say_frame(at == last, if at == 0 { marks } else { 0 }, &payload[from..to], random);
            from = to;
            if let (0, Some(ping)) = (at, ping) {
                self.say_frame(true, PING, ping, random);
            }
        }
    }

    /// Answers a ping.
    pub fn pong(&mut self, payload: &[u8], random: &mut fastrand::Rng) {
        self.say_frame(true, PONG, payload, random);
    }

    /// Says or answers a close.
    pub fn close(&mut self, code: u16, random: &mut fastrand::Rng) {
        self.say_frame(true, CLOSE, &code.to_be_bytes(), random);
    }

    fn say_frame(&mut self, is_last: bool, opcode: u8, payload: &[u8], random: &mut fastrand::Rng) {
        self.unsent.push_back(u8::from(is_last) << 7 | opcode);
        match payload.len() {
            short @ 0..126 => self.unsent.push_back(0x80 | short as u8),
            middle @ 126..65_536 => {
                self.unsent.push_back(0x80 | 126);
                self.unsent.extend((middle as u16).to_be_bytes());
            }
            long => {
                self.unsent.push_back(0x80 | 127);
                self.unsent.extend((long as u64).to_be_bytes());
            }
        }
        let mask = random.u32(..).to_be_bytes();
        self.unsent.extend(mask);
        self.unsent.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    }
}

impl Deflate {
    /// Reads what the server agreed to.
    fn agreed(head: &str) -> Option<Deflate> {
        let line = head.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Extensions: permessage-deflate"))?;
        let bits = |name: &str| {
            let value = line.split("; ").find_map(|part| part.strip_prefix(name)?.strip_prefix('='));
            value.map_or(15, |value| value.parse().expect("bits are a number"))
        };
        assert!(line.contains("server_no_context_takeover"), "what is sent to many refers to nothing before: {line}");
        Some(Deflate {
            server_bits: bits("server_max_window_bits"),
            compress: Compress::new_with_window_bits(Compression::fast(), false, bits("client_max_window_bits")),
            takeover: !line.contains("client_no_context_takeover"),
        })
    }

    fn payload(&mut self, message: &[u8]) -> Vec<u8> {
        if !self.takeover {
            self.compress.reset();
        }
        let mut out = Vec::with_capacity(message.len() * 2 + 100);
        self.compress.compress_vec(message, &mut out, FlushCompress::Sync).expect("zlib compresses anything");
        out.truncate(out.len() - TAIL.len());
        out
    }

    fn message(&self, payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(1 << 20);
        let mut inflate = Decompress::new_with_window_bits(false, self.server_bits);
        for part in [payload, &TAIL] {
            inflate.decompress_vec(part, &mut out, FlushDecompress::Sync).expect("it is what a compressor makes");
        }
        out
    }
}

/// A request for a connection at this path, with more lines of a head.
pub fn upgrade_request(target: &str, more: &str) -> Vec<u8> {
    format!(
        "GET {target} HTTP/1.1\r\nHost: sim\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n{more}\r\n"
    )
    .into_bytes()
}

/// The response head at the front, and its length.
fn head(bytes: &[u8], key: Key, deflate: &mut Option<Deflate>) -> Option<(Heard, usize)> {
    let mut headers = [httparse::EMPTY_HEADER; 16];
    let mut response = httparse::Response::new(&mut headers);
    let text = String::from_utf8_lossy(bytes);
    let parsed = response.parse(bytes).unwrap_or_else(|error| panic!("{error}: {text}"));
    let httparse::Status::Complete(head_bytes) = parsed else { return None };
    let status = response.code.expect("a whole response has a status");
    let accept = response.headers.iter().find(|header| header.name == "Sec-WebSocket-Accept");
    let is_answer = accept.is_some_and(|accept| key == Key::Other || accept.value == ACCEPT.as_bytes());
    assert_eq!(status == 101, is_answer, "a key is answered where the connection is accepted: {text}");
    *deflate = Deflate::agreed(&text);
    Some((Heard::Status(status), head_bytes))
}

/// The frame at the front, and its length. A server's frames are whole messages and have no mask (RFC 6455 §5.1).
fn frame(bytes: &[u8], deflate: Option<&Deflate>) -> Option<(Heard, usize)> {
    let (payload_bytes, header_bytes) = match *bytes {
        [_, 126, high, low, ..] => (usize::from(u16::from_be_bytes([high, low])), 4),
        [_, 127, ref rest @ ..] => (u64::from_be_bytes(*rest.first_chunk()?) as usize, 10),
        [_, 126, ..] => return None,
        [_, length, ..] => {
            assert!(length < 126, "a server's frames have no mask: {:?}", &bytes[..2]);
            (usize::from(length), 2)
        }
        _ => return None,
    };
    let shortest = match payload_bytes {
        0..=125 => 2,
        126..=0xFFFF => 4,
        _ => 10,
    };
    assert_eq!(header_bytes, shortest, "a length is written in its shortest form");
    let payload = bytes.get(header_bytes..header_bytes + payload_bytes)?.to_vec();
    let marks = bytes[0] & 0xF0;
    let heard = match bytes[0] & 0x0F {
        opcode @ (TEXT | BINARY) if marks == 0x80 | RSV1 => {
            let deflate = deflate.expect("only who agreed on compression gets something compressed");
            Heard::Message(opcode, deflate.message(&payload))
        }
        _ if marks != 0x80 => panic!("a server's frames are whole messages: {marks:x}"),
        opcode @ (TEXT | BINARY) => Heard::Message(opcode, payload),
        PING => Heard::Ping(payload),
        PONG => Heard::Pong(payload),
        CLOSE => match *payload {
            [] => Heard::Close(None, String::new()),
            [high, low, ref reason @ ..] => Heard::Close(
                Some(u16::from_be_bytes([high, low])),
                String::from_utf8(reason.to_vec()).expect("a reason is UTF-8"),
            ),
            [_] => panic!("a close frame holds no code, or two bytes of one"),
        },
        opcode => panic!("no server sends opcode {opcode}"),
    };
    Some((heard, header_bytes + payload_bytes))
}
