//! Bytes on a TCP connection, for what no WebSocket library would send.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Instant;

use super::{Entrance, PATIENCE};

/// First byte of a final text frame.
pub const TEXT: u8 = 0x81;
/// First byte of a final binary frame.
pub const BINARY: u8 = 0x82;
/// First byte of a final continuation frame.
pub const CONTINUATION: u8 = 0x80;
/// First byte of a close frame.
pub const CLOSE: u8 = 0x88;
/// First byte of a ping frame.
pub const PING: u8 = 0x89;
/// First byte of a pong frame.
pub const PONG: u8 = 0x8A;
/// The FIN bit of a frame's first byte.
pub const FIN: u8 = 0x80;

/// The header field by which extensions are offered and answered.
pub const EXTENSIONS: &str = "Sec-WebSocket-Extensions";

const MASK: [u8; 4] = [0x37, 0xFA, 0x21, 0x3D];

/// A frame from the server.
#[derive(Debug, PartialEq, Eq)]
pub struct Frame {
    /// FIN, reserved bits and opcode.
    pub first: u8,
    /// The payload, at most 16 MiB.
    pub payload: Vec<u8>,
}

/// A TCP connection to the server, written byte by byte and read frame by frame.
pub struct RawConn {
    stream: TcpStream,
    unread: Vec<u8>,
}

impl RawConn {
    /// Connects; nothing is sent.
    #[track_caller]
    pub fn connect(server: &dyn Entrance) -> RawConn {
        let stream = TcpStream::connect(server.next_addr()).expect("the server should accept");
        stream.set_nodelay(true).expect("TCP has no-delay");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout above zero");
        RawConn { stream, unread: Vec::new() }
    }

    /// Connects from an address of this machine; nothing is sent.
    #[track_caller]
    pub fn connect_from(source: Ipv4Addr, addr: SocketAddr) -> RawConn {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a descriptor");
        socket.bind(&SocketAddr::from((source, 0)).into()).expect("an address of this machine");
        socket.connect(&addr.into()).expect("the kernel accepts");
        let stream = TcpStream::from(socket);
        stream.set_nodelay(true).expect("TCP has no-delay");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout above zero");
        RawConn { stream, unread: Vec::new() }
    }

    /// Connects with room for so many bytes that are not read, as far as the kernel goes so low; nothing is sent.
    #[track_caller]
    pub fn narrow(server: &dyn Entrance, receive_bytes: usize) -> RawConn {
        let addr = server.next_addr();
        let socket = socket2::Socket::new(socket2::Domain::for_address(addr), socket2::Type::STREAM, None);
        let socket = socket.expect("a descriptor");
        socket.set_recv_buffer_size(receive_bytes).expect("a buffer");
        socket.connect(&addr.into()).expect("the server should accept");
        let stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout above zero");
        RawConn { stream, unread: Vec::new() }
    }

    /// Connects and upgrades to `target`, with no extension and no subprotocol.
    #[track_caller]
    pub fn upgrade(server: &dyn Entrance, target: &str) -> RawConn {
        RawConn::offer(server, target, &[]).0
    }

    /// Connects and upgrades to `target` with a `Sec-WebSocket-Extensions` field for each of `offers`; that of the answer.
    #[track_caller]
    pub fn offer(server: &dyn Entrance, target: &str, offers: &[&str]) -> (RawConn, Option<String>) {
        let mut conn = RawConn::connect(server);
        let fields: Vec<(&str, &str)> = offers.iter().map(|offer| (EXTENSIONS, *offer)).collect();
        conn.send(upgrade_request(target, &fields).as_bytes());
        let head = conn.read_head();
        assert_eq!(status_of(&head), 101, "{target} should upgrade: {head}");
        let answer = header_of(&head, EXTENSIONS).map(str::to_owned);
        (conn, answer)
    }

    /// Connects to the JSON dialect as `user` and takes the welcome.
    #[track_caller]
    pub fn connect_as(server: &dyn Entrance, user: &str) -> RawConn {
        let mut conn = RawConn::upgrade(server, &format!("/?userId={user}"));
        let welcome = conn.read_frame().expect("a welcome");
        assert_eq!(welcome.first, TEXT, "the welcome is text");
        conn
    }

    /// Writes bytes.
    #[track_caller]
    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap_or_else(|error| panic!("the server should still read: {error}"));
    }

    /// Writes bytes to a server that may have closed the connection already; true if all were taken.
    pub fn try_send(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).is_ok()
    }

    /// Writes one masked frame.
    #[track_caller]
    pub fn send_frame(&mut self, first: u8, payload: &[u8]) {
        self.send(&masked(first, payload));
    }

    /// A second handle for another thread to write with.
    #[track_caller]
    pub fn writer(&self) -> TcpStream {
        self.stream.try_clone().expect("a spare descriptor")
    }

    /// Reads to the end of a response head and returns it.
    #[track_caller]
    pub fn read_head(&mut self) -> String {
        loop {
            if let Some(end) = self.unread.windows(4).position(|four| four == b"\r\n\r\n") {
                let rest = self.unread.split_off(end + 4);
                let head = std::mem::replace(&mut self.unread, rest);
                return String::from_utf8_lossy(&head).into_owned();
            }
            match self.fill() {
                Ok(0) => panic!("the connection ended inside the head: {:?}", self.unread),
                Ok(_) => {}
                Err(error) => panic!("no response head: {error}"),
            }
        }
    }

    /// The next so many bytes.
    #[track_caller]
    pub fn read_bytes(&mut self, count: usize) -> Vec<u8> {
        while self.unread.len() < count {
            match self.fill() {
                Ok(0) => panic!("the connection ended after {} of {count} bytes", self.unread.len()),
                Ok(_) => {}
                Err(error) => panic!("{} of {count} bytes: {error}", self.unread.len()),
            }
        }
        let rest = self.unread.split_off(count);
        std::mem::replace(&mut self.unread, rest)
    }

    /// How many bytes come until the connection ends or breaks, those that have been read ahead included.
    #[track_caller]
    pub fn read_until_it_breaks(&mut self) -> usize {
        loop {
            match self.fill() {
                Ok(0) => return self.unread.len(),
                Ok(_) => {}
                Err(error) if is_timeout(&error) => panic!("the connection should end"),
                Err(_) => return self.unread.len(),
            }
        }
    }

    /// Whether these bytes come before the connection ends or breaks; what stands in front of them is dropped.
    #[track_caller]
    pub fn read_until(&mut self, wanted: &[u8]) -> bool {
        loop {
            if let Some(at) = self.unread.windows(wanted.len()).position(|window| window == wanted) {
                self.unread.drain(..at + wanted.len());
                return true;
            }
            match self.fill() {
                Ok(0) => return false,
                Ok(_) => {}
                Err(error) if is_timeout(&error) => panic!("the connection should answer or end"),
                Err(_) => return false,
            }
        }
    }

    /// The next frame, `None` where the server ended the connection.
    ///
    /// # Panics
    ///
    /// After ten seconds without a byte, and on a masked frame.
    #[track_caller]
    pub fn read_frame(&mut self) -> Option<Frame> {
        self.read_frame_of("a frame")
    }

    #[track_caller]
    fn read_frame_of(&mut self, what: &str) -> Option<Frame> {
        loop {
            if let Some(frame) = cut_frame(&mut self.unread, false) {
                return Some(frame);
            }
            match self.fill() {
                Ok(0) => return None,
                Ok(_) => {}
                Err(error) if is_timeout(&error) => {
                    panic!("{what}: nothing came within {PATIENCE:?}")
                }
                Err(_) => return None,
            }
        }
    }

    /// The next frame that is neither ping nor pong, which must be text.
    #[track_caller]
    pub fn read_text(&mut self) -> String {
        loop {
            let frame = self.read_frame().expect("a text frame, not the end of the connection");
            match frame.first {
                PING | PONG => {}
                TEXT => return String::from_utf8(frame.payload).expect("text is UTF-8"),
                other => panic!("a frame {other:#04x}: {:?}", frame.payload),
            }
        }
    }

    /// Fails if anything else comes before the pongs of two pings: the first was answered in a turn behind that of what
    /// was read before, the second behind the counters of that turn.
    #[track_caller]
    pub fn nothing_more(&mut self) {
        for payload in [b"first", &b"second"[..]] {
            self.send_frame(PING, payload);
            let frame = self.read_frame().expect("a pong");
            assert_eq!(frame, Frame { first: PONG, payload: payload.to_vec() }, "nothing else should have come");
        }
    }

    /// Reads to a close frame, which must carry `code`, and then to the end of the connection.
    #[track_caller]
    pub fn expect_close(&mut self, code: u16, what: &str) {
        loop {
            let Some(frame) = self.read_frame_of(what) else {
                panic!("{what}: the connection ended without close frame {code}")
            };
            if frame.first != CLOSE {
                continue;
            }
            assert!(frame.payload.len() >= 2, "{what}: a close frame without a code");
            let told = u16::from_be_bytes([frame.payload[0], frame.payload[1]]);
            let reason = String::from_utf8_lossy(&frame.payload[2..]);
            assert_eq!(told, code, "{what}: closed with reason {reason:?}");
            self.expect_end(what);
            return;
        }
    }

    /// Reads and drops everything to the end of the connection.
    ///
    /// # Panics
    ///
    /// If it is still open after ten seconds.
    #[track_caller]
    pub fn expect_end(&mut self, what: &str) {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            match self.fill() {
                Ok(0) => return,
                Ok(_) => self.unread.clear(),
                Err(error) if is_timeout(&error) => break,
                Err(_) => return,
            }
        }
        panic!("{what}: the connection is still open")
    }

    /// Everything up to the end of the connection.
    ///
    /// # Panics
    ///
    /// If it is still open ten seconds after the last byte.
    #[track_caller]
    pub fn read_to_end(&mut self, what: &str) -> Vec<u8> {
        loop {
            match self.fill() {
                Ok(0) => return std::mem::take(&mut self.unread),
                Ok(_) => {}
                Err(error) if is_timeout(&error) => panic!("{what}: the connection is still open"),
                Err(_) => return std::mem::take(&mut self.unread),
            }
        }
    }

    fn fill(&mut self) -> io::Result<usize> {
        let mut chunk = [0; 64 * 1024];
        let count = self.stream.read(&mut chunk)?;
        self.unread.extend_from_slice(&chunk[..count]);
        Ok(count)
    }
}

/// Takes a whole frame from the front of `bytes`, unmasked; `None` while it is incomplete.
///
/// # Panics
///
/// Where it is masked and should not be, or the other way round (RFC 6455 §5.1).
#[track_caller]
pub fn cut_frame(bytes: &mut Vec<u8>, masked: bool) -> Option<Frame> {
    let [first, second] = *bytes.first_chunk::<2>()?;
    assert_eq!(second & 0x80 != 0, masked, "clients mask, and the server does not");
    let (header_bytes, payload_bytes) = match second & 0x7F {
        126 => {
            let header = bytes.first_chunk::<4>()?;
            (4, usize::from(u16::from_be_bytes([header[2], header[3]])))
        }
        127 => {
            let header = bytes.first_chunk::<10>()?;
            let length = u64::from_be_bytes(header[2..].try_into().expect("eight bytes"));
            (10, usize::try_from(length).expect("64-bit sizes"))
        }
        short => (2, usize::from(short)),
    };
    assert!(payload_bytes <= 16 << 20, "a frame of {payload_bytes} bytes");
    let start = header_bytes + if masked { MASK.len() } else { 0 };
    if bytes.len() < start + payload_bytes {
        return None;
    }
    let rest = bytes.split_off(start + payload_bytes);
    let mut frame = std::mem::replace(bytes, rest);
    let mut payload = frame.split_off(start);
    for (byte, mask) in payload.iter_mut().zip(frame[header_bytes..].iter().cycle()) {
        *byte ^= mask;
    }
    Some(Frame { first, payload })
}

/// The head of an upgrade request: five headers and then `extra`.
pub fn upgrade_request(target: &str, extra: &[(&str, &str)]) -> String {
    let mut request = format!(
        "GET {target} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    );
    for (name, value) in extra {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    request.push_str("\r\n");
    request
}

/// One masked frame, as a client sends it, with the shortest length encoding.
///
/// # Panics
///
/// On payloads above 4 GiB.
pub fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = header(first, 0x80, payload.len());
    frame.extend_from_slice(&MASK);
    frame.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

/// One frame as a server sends it.
///
/// # Panics
///
/// On payloads above 4 GiB.
pub fn unmasked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = header(first, 0, payload.len());
    frame.extend_from_slice(payload);
    frame
}

fn header(first: u8, mask_bit: u8, payload_bytes: usize) -> Vec<u8> {
    match payload_bytes {
        short @ 0..126 => vec![first, mask_bit | u8::try_from(short).expect("below 126")],
        medium @ 126..65_536 => {
            let mut header = vec![first, mask_bit | 126];
            header.extend_from_slice(&u16::try_from(medium).expect("below 65536").to_be_bytes());
            header
        }
        long => {
            let mut header = vec![first, mask_bit | 127];
            let length = u32::try_from(long).expect("below 4 GiB");
            header.extend_from_slice(&u64::from(length).to_be_bytes());
            header
        }
    }
}

/// The status code of a response head.
#[track_caller]
pub fn status_of(head: &str) -> u16 {
    head.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or_else(|| panic!("no status line in {head:?}"))
}

/// The value of a header in a response head.
pub fn header_of<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().skip(1).find_map(|line| {
        let (found, value) = line.split_once(':')?;
        found.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}
