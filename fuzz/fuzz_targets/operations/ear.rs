//! What comes to a client, read strictly by RFC 6455: one response, whole unmasked frames, and nothing behind a close.

use fanfare_seeds::frame::{BINARY, CLOSE, PING, PONG, TEXT};

/// What answers the key of [`super::guest::KEY`] (RFC 6455 §1.3).
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// Something whole that came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// The status of the response.
    Status(u16),
    Text(String),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong,
    /// The code, if there is one.
    Close(Option<u16>),
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Head,
    Frames,
    /// A refusal's body, to the end of the connection.
    Body,
    Closed,
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct Ear {
    unread: Vec<u8>,
    stage: Stage,
    /// Whether the key of the request is not the usual one.
    pub is_own_key: bool,
}

impl Ear {
    /// Takes bytes that have come: everything that became whole with them.
    pub fn take(&mut self, bytes: &[u8]) -> Vec<Heard> {
        self.unread.extend_from_slice(bytes);
        let mut heard = Vec::new();
        while !self.unread.is_empty() {
            let whole = match self.stage {
                Stage::Head => self.head(),
                Stage::Frames => frame(&self.unread),
                Stage::Body => None,
                Stage::Closed => panic!("nothing follows a close frame, and here is {:?}", self.unread),
            };
            if self.stage == Stage::Body {
                self.unread.clear();
            }
            let Some((one, used)) = whole else { break };
            self.unread.drain(..used);
            self.stage = match one {
                Heard::Status(101) => Stage::Frames,
                Heard::Status(_) => Stage::Body,
                Heard::Close(_) => Stage::Closed,
                Heard::Text(_) | Heard::Binary(_) | Heard::Ping(_) | Heard::Pong => Stage::Frames,
            };
            heard.push(one);
        }
        heard
    }

    /// Whether what came ends in the middle of something.
    pub fn is_cut(&self) -> bool {
        !self.unread.is_empty()
    }

    fn head(&self) -> Option<(Heard, usize)> {
        let mut headers = [httparse::EMPTY_HEADER; 8];
        let mut response = httparse::Response::new(&mut headers);
        let parsed = response.parse(&self.unread).unwrap_or_else(|error| panic!("{error}: {:?}", self.unread));
        let httparse::Status::Complete(head_bytes) = parsed else { return None };
        let status = response.code.expect("a whole response has a status");
        let accept = response.headers.iter().find(|header| header.name == "Sec-WebSocket-Accept");
        let is_answer = accept.is_some_and(|accept| self.is_own_key || accept.value == ACCEPT.as_bytes());
        assert_eq!(status == 101, is_answer, "a key is answered where the connection is accepted");
        Some((Heard::Status(status), head_bytes))
    }
}

/// The frame at the front, and its length. A server's frames are whole messages and have no mask (RFC 6455 §5.1).
fn frame(bytes: &[u8]) -> Option<(Heard, usize)> {
    let (payload_bytes, header_bytes) = match *bytes {
        [_, 126, high, low, ..] => (u64::from(u16::from_be_bytes([high, low])), 4),
        [_, 127, ref rest @ ..] => (u64::from_be_bytes(*rest.first_chunk()?), 10),
        [_, 126, ..] => return None,
        [_, length, ..] => {
            assert!(length < 126, "a server's frames have no mask: {bytes:?}");
            (u64::from(length), 2)
        }
        _ => return None,
    };
    let shortest = if payload_bytes > 0xFFFF {
        10
    } else if payload_bytes > 125 {
        4
    } else {
        2
    };
    assert_eq!(header_bytes, shortest, "a length is written in its shortest form");
    let end = header_bytes + payload_bytes as usize;
    let payload = bytes.get(header_bytes..end)?.to_vec();
    assert_eq!(bytes[0] & 0xF0, 0x80, "a server's frames are whole messages");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("what is sent as text is UTF-8");
    let heard = match bytes[0] & 0x0F {
        TEXT => Heard::Text(text(payload)),
        BINARY => Heard::Binary(payload),
        PING => Heard::Ping(payload),
        PONG => Heard::Pong,
        CLOSE => match payload.split_at_checked(2) {
            None => {
                assert!(payload.is_empty(), "a close frame holds no code, or two bytes of one");
                Heard::Close(None)
            }
            Some((code, reason)) => {
                text(reason.to_vec());
                Heard::Close(Some(u16::from_be_bytes([code[0], code[1]])))
            }
        },
        opcode => panic!("no server sends opcode {opcode}"),
    };
    Some((heard, end))
}
