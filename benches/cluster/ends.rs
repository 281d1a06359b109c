//! Those who publish and those who get it, through Redis alone and through two nodes: whole bursts in one write, and a
//! reader that counts messages without looking into them.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use super::MESSAGE_BYTES;
use super::processes::Node;

/// Bytes of one read.
const READ_BYTES: usize = 256 * 1024;

/// The longest that a read may wait: beyond it something was lost.
const READ_MAX: Duration = Duration::from_secs(20);

pub(super) trait Publisher {
    /// Sends so many messages at once.
    fn publish(&mut self, messages: u64);
}

pub(super) trait Subscriber {
    /// Waits for something to read; how many messages it completed.
    fn receive(&mut self) -> u64;
}

/// Writes the same bytes for every message.
struct Repeating {
    stream: TcpStream,
    message: Vec<u8>,
    burst: Vec<u8>,
    /// Drains what the other side answers.
    answers: TcpStream,
}

impl Repeating {
    fn new(stream: TcpStream, message: Vec<u8>) -> Repeating {
        let answers = stream.try_clone().expect("a socket can be cloned");
        Repeating { stream, message, burst: Vec::new(), answers }
    }
}

impl Publisher for Repeating {
    fn publish(&mut self, messages: u64) {
        let bytes = self.message.len() * messages as usize;
        if self.burst.len() < bytes {
            self.burst = self.message.repeat(messages as usize);
        }
        self.stream.write_all(&self.burst[..bytes]).expect("what is published is taken");
        self.answers.set_nonblocking(true).expect("a socket option");
        let mut nothing = [0; 65_536];
        while matches!(self.answers.read(&mut nothing), Ok(1..)) {}
        self.answers.set_nonblocking(false).expect("a socket option");
    }
}

/// Counts messages in what comes.
struct Counting {
    stream: TcpStream,
    held: Vec<u8>,
    buffer: Vec<u8>,
    /// The bytes of the message at the front, if it is whole.
    next: fn(&[u8]) -> Option<usize>,
}

impl Subscriber for Counting {
    fn receive(&mut self) -> u64 {
        let bytes = self.stream.read(&mut self.buffer).expect("messages come in time");
        assert!(bytes > 0, "the other side has ended");
        self.held.extend_from_slice(&self.buffer[..bytes]);
        let (mut messages, mut at) = (0, 0);
        while let Some(length) = (self.next)(&self.held[at..]) {
            at += length;
            messages += 1;
        }
        self.held.drain(..at);
        messages
    }
}

fn counting(stream: TcpStream, next: fn(&[u8]) -> Option<usize>) -> Box<dyn Subscriber> {
    Box::new(Counting { stream, held: Vec::new(), buffer: vec![0; READ_BYTES], next })
}

fn connect(port: u16) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", port)).expect("it listens");
    stream.set_nodelay(true).expect("a socket option");
    stream.set_read_timeout(Some(READ_MAX)).expect("a socket option");
    stream
}

/// A publisher and a subscriber of Redis.
pub(super) fn raw_ends(port: u16, channel: &str) -> (Box<dyn Publisher>, Box<dyn Subscriber>) {
    let mut subscriber = connect(port);
    let subscribe = format!("*2\r\n$9\r\nSUBSCRIBE\r\n${}\r\n{channel}\r\n", channel.len());
    subscriber.write_all(subscribe.as_bytes()).expect("Redis takes it");
    let mut confirmed = [0; 256];
    let bytes = subscriber.read(&mut confirmed).expect("Redis answers");
    assert!(confirmed[..bytes].starts_with(b"*3"), "subscribed");
    let payload = "x".repeat(MESSAGE_BYTES);
    let publish =
        format!("*3\r\n$7\r\nPUBLISH\r\n${}\r\n{channel}\r\n${MESSAGE_BYTES}\r\n{payload}\r\n", channel.len());
    (Box::new(Repeating::new(connect(port), publish.into_bytes())), counting(subscriber, resp_message))
}

/// `*3` and three strings, each with its length in front (`$7\r\nmessage\r\n`).
fn resp_message(bytes: &[u8]) -> Option<usize> {
    let mut at = line(bytes)?;
    for _ in 0..3 {
        let end = at + line(&bytes[at..])?;
        let length: usize = std::str::from_utf8(&bytes[at + 1..end - 2]).ok()?.parse().ok()?;
        at = end + length + 2;
    }
    (at <= bytes.len()).then_some(at)
}

fn line(bytes: &[u8]) -> Option<usize> {
    bytes.iter().position(|byte| *byte == b'\n').map(|at| at + 1)
}

/// A publisher at one node, and a subscriber at the same or another.
pub(super) fn fanfare_ends(
    publish_at: &Node,
    subscribe_at: &Node,
    room: &str,
) -> (Box<dyn Publisher>, Box<dyn Subscriber>) {
    let publisher = websocket(publish_at.port, "p");
    let mut subscriber = websocket(subscribe_at.port, "s");
    let join = format!(r#"{{"type":"join_room","roomId":"{room}","id":1}}"#);
    subscriber.write_all(&frame(&join)).expect("the node takes it");
    // The welcome, the answer, and the notice of the join.
    let mut counting = Counting { stream: subscriber, held: Vec::new(), buffer: vec![0; READ_BYTES], next: ws_message };
    let mut before = 0;
    while before < 3 {
        before += counting.receive();
    }
    let envelope = format!(r#"{{"type":"room_msg","roomId":"{room}","from":"p","content":"","time":1234567890123}}"#);
    let content = "x".repeat(MESSAGE_BYTES - envelope.len());
    let message = format!(r#"{{"type":"room_msg","roomId":"{room}","content":"{content}"}}"#);
    (Box::new(Repeating::new(publisher, frame(&message))), Box::new(counting))
}

pub(super) fn websocket(port: u16, user: &str) -> TcpStream {
    let mut stream = connect(port);
    let request = format!(
        "GET /?userId={user} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).expect("the node takes it");
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).expect("the node answers");
        head.push(byte[0]);
    }
    assert!(head.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&head));
    stream
}

/// A masked text frame, its mask being zeros.
pub(super) fn frame(text: &str) -> Vec<u8> {
    let mut out = vec![0x81];
    match u8::try_from(text.len()) {
        Ok(length @ 0..126) => out.push(0x80 | length),
        _ => {
            out.push(0x80 | 126);
            out.extend_from_slice(&(text.len() as u16).to_be_bytes());
        }
    }
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(text.as_bytes());
    out
}

pub(super) fn ws_message(bytes: &[u8]) -> Option<usize> {
    let length = match *bytes.get(1)? {
        126 => 4 + usize::from(u16::from_be_bytes([*bytes.get(2)?, *bytes.get(3)?])),
        short => 2 + usize::from(short),
    };
    (length <= bytes.len()).then_some(length)
}
