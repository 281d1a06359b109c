//! The floor: what the kernel alone costs.
//!
//! A bare loop that answers the same commands as a server of the user dialect, as far as the load generator uses them,
//! and does nothing else: no JSON, no UTF-8, no limits, no timers, no slow consumers. Names are digits at fixed places.
//! It must never face anything but `fanfare bench` on the same machine. What it reaches is what a server that did no
//! work of its own would reach.
//!
//! ```text
//! floor message 127.0.0.1:9001     one send per subscriber and message
//! floor turn    127.0.0.1:9001     one send per subscriber and turn of the loop, with all its messages
//! ```
//!
//! Private messages are one receive and one send each in either mode, and connecting is accept and handshake. Connections to
//! `/echo` get all messages of a read back in one send.

use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::process::ExitCode;

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};

const LISTENER: Token = Token(usize::MAX);
const BUFFER_BYTES: usize = 64 * 1024;
const EVENTS: usize = 1024;

/// What a server adds to a message, in the same number of bytes: the sender and the time.
const ROOM_SUFFIX: &[u8] = br#","from":"p000000","time":1700000000000}"#;
const PRIVATE_SUFFIX: &[u8] = br#","time":1700000000000}"#;

const WELCOME: &[u8] =
    br#"{"type":"welcome","clientId":"00000000-0000-4000-8000-000000000000","userId":"u000000","heartbeat":30000}"#;
const JOINED: &[u8] = br#"{"type":"joined","id":1,"roomId":"r000000"}"#;
const PONG: &[u8] = br#"{"type":"pong"}"#;

/// Where the digits of a name stand in the commands that the generator sends.
const JOIN_ROOM_AT: usize = r#"{"type":"join_room","roomId":"r"#.len();
const ROOM_AT: usize = r#"{"type":"room_msg","roomId":"r"#.len();
const USER_AT: usize = r#"{"type":"private_msg","toUser":"u"#.len();
const NAME_DIGITS: usize = 6;

/// When a room's messages leave.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sends {
    Message,
    Turn,
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (sends, address) = match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["message", address] => (Sends::Message, address.parse::<SocketAddr>()),
        ["turn", address] => (Sends::Turn, address.parse::<SocketAddr>()),
        _ => {
            eprintln!("floor: say floor message ADDRESS or floor turn ADDRESS");
            return ExitCode::from(2);
        }
    };
    let served = address.map_err(io::Error::other).and_then(|address| serve(sends, address));
    let Err(error) = served;
    eprintln!("floor: {error}");
    ExitCode::FAILURE
}

struct Peer {
    stream: TcpStream,
    upgraded: bool,
    /// Whether all its messages come back.
    echo: bool,
    room: Option<usize>,
    /// Bytes of a head or frame that is not whole yet.
    partial: Vec<u8>,
}

#[derive(Default)]
struct Room {
    members: Vec<usize>,
    /// Frames of this turn.
    pending: Vec<u8>,
}

struct Floor {
    sends: Sends,
    peers: Vec<Option<Peer>>,
    vacant: Vec<usize>,
    rooms: Vec<Room>,
    /// Rooms with pending frames.
    dirty: Vec<usize>,
    /// The connection of each user.
    users: Vec<usize>,
    frame: Vec<u8>,
}

fn serve(sends: Sends, address: SocketAddr) -> io::Result<std::convert::Infallible> {
    let mut poll = Poll::new()?;
    let mut listener = listen(address)?;
    println!("listening on {}", listener.local_addr()?);
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    let mut events = Events::with_capacity(EVENTS);
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut floor = Floor {
        sends,
        peers: Vec::new(),
        vacant: Vec::new(),
        rooms: Vec::new(),
        dirty: Vec::new(),
        users: Vec::new(),
        frame: Vec::new(),
    };
    loop {
        match poll.poll(&mut events, None) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            outcome => outcome?,
        }
        for event in &events {
            match event.token() {
                LISTENER => floor.accept(&listener, &poll)?,
                Token(at) => floor.receive(at, &mut buffer),
            }
        }
        floor.flush();
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    const BACKLOG: i32 = 4096;
    let socket = socket2::Socket::new(socket2::Domain::for_address(address), socket2::Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(TcpListener::from_std(socket.into()))
}

impl Floor {
    fn accept(&mut self, listener: &TcpListener, poll: &Poll) -> io::Result<()> {
        loop {
            let mut stream = match listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            stream.set_nodelay(true)?;
            let at = self.vacant.pop().unwrap_or(self.peers.len());
            poll.registry().register(&mut stream, Token(at), Interest::READABLE)?;
            let peer = Some(Peer { stream, upgraded: false, echo: false, room: None, partial: Vec::new() });
            match self.peers.get_mut(at) {
                Some(place) => *place = peer,
                None => self.peers.push(peer),
            }
        }
    }

    fn receive(&mut self, at: usize, buffer: &mut [u8]) {
        while let Some(peer) = &mut self.peers[at] {
            let held = peer.partial.len();
            buffer[..held].copy_from_slice(&peer.partial);
            let filled = match peer.stream.read(&mut buffer[held..]) {
                Ok(taken @ 1..) => held + taken,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Ok(0) | Err(_) => return self.drop(at),
            };
            let used = self.handle(at, &mut buffer[..filled]);
            if let Some(peer) = &mut self.peers[at] {
                peer.partial.clear();
                peer.partial.extend_from_slice(&buffer[used..filled]);
            }
            if filled < buffer.len() {
                return;
            }
        }
    }

    fn drop(&mut self, at: usize) {
        let Some(peer) = self.peers[at].take() else { return };
        if let Some(room) = peer.room {
            self.rooms[room].members.retain(|member| *member != at);
        }
        self.vacant.push(at);
    }

    fn handle(&mut self, at: usize, bytes: &mut [u8]) -> usize {
        let mut used = 0;
        if self.peers[at].as_ref().is_some_and(|peer| !peer.upgraded) {
            match self.upgrade(at, bytes) {
                Some(head_bytes) => used = head_bytes,
                None => return 0,
            }
        }
        if self.peers[at].as_ref().is_some_and(|peer| peer.echo) {
            return used + self.echo(at, &mut bytes[used..]);
        }
        while let Some((payload_at, payload_bytes)) = masked_frame(&mut bytes[used..]) {
            let start = used + payload_at;
            used = start + payload_bytes;
            self.command(at, &bytes[start..used]);
        }
        used
    }

    /// Sends back all messages of a read in one piece; pings are answered.
    fn echo(&mut self, at: usize, bytes: &mut [u8]) -> usize {
        const PING: u8 = 0x89;
        const EMPTY_PONG: [u8; 2] = [0x8A, 0];
        let mut used = 0;
        self.frame.clear();
        while let Some((payload_at, payload_bytes)) = masked_frame(&mut bytes[used..]) {
            let (head, start) = (bytes[used], used + payload_at);
            used = start + payload_bytes;
            match head {
                PING => self.frame.extend_from_slice(&EMPTY_PONG),
                _ => append_frame(&mut self.frame, &[&bytes[start..used]]),
            }
        }
        if let Some(peer) = &mut self.peers[at]
            && !self.frame.is_empty()
        {
            send(&mut peer.stream, &self.frame);
        }
        used
    }

    /// Answers the handshake and the welcome in one send.
    fn upgrade(&mut self, at: usize, head: &[u8]) -> Option<usize> {
        const KEY: &[u8] = b"Sec-WebSocket-Key: ";
        const KEY_BYTES: usize = 24;
        const USER: &[u8] = b"?userId=u";
        const ECHO: &[u8] = b"GET /echo";
        let end = memchr::memmem::find(head, b"\r\n\r\n")? + 4;
        let key_at = memchr::memmem::find(head, KEY)? + KEY.len();
        let accept = tungstenite::handshake::derive_accept_key(&head[key_at..key_at + KEY_BYTES]);
        self.frame.clear();
        self.frame.extend_from_slice(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ",
        );
        self.frame.extend_from_slice(accept.as_bytes());
        self.frame.extend_from_slice(b"\r\n\r\n");
        let echo = head.starts_with(ECHO);
        if !echo {
            append_frame(&mut self.frame, &[WELCOME]);
        }
        if let Some(user_at) = memchr::memmem::find(&head[..end], USER) {
            let user = number(&head[user_at + USER.len()..]);
            if self.users.len() <= user {
                self.users.resize(user + 1, usize::MAX);
            }
            self.users[user] = at;
        }
        let peer = self.peers[at].as_mut()?;
        (peer.upgraded, peer.echo) = (true, echo);
        send(&mut peer.stream, &self.frame);
        Some(end)
    }

    fn command(&mut self, at: usize, payload: &[u8]) {
        // The letters that tell the commands apart: {"type":"r…, j…, pr…, pi…
        match (payload.get(9), payload.get(10)) {
            (Some(b'r'), _) => self.publish(payload),
            (Some(b'j'), _) => self.join(at, number(&payload[JOIN_ROOM_AT..])),
            (Some(b'p'), Some(b'r')) => {
                self.frame.clear();
                append_frame(&mut self.frame, &[&payload[..payload.len() - 1], PRIVATE_SUFFIX]);
                let to = self.users[number(&payload[USER_AT..])];
                if let Some(peer) = &mut self.peers[to] {
                    send(&mut peer.stream, &self.frame);
                }
            }
            (Some(b'p'), _) => self.reply(at, PONG),
            _ => {}
        }
    }

    fn publish(&mut self, payload: &[u8]) {
        let number = number(&payload[ROOM_AT..]);
        let Some(room) = self.rooms.get_mut(number) else { return };
        if self.sends == Sends::Turn && room.pending.is_empty() {
            self.dirty.push(number);
        }
        append_frame(&mut room.pending, &[&payload[..payload.len() - 1], ROOM_SUFFIX]);
        if self.sends == Sends::Message {
            self.flush_room(number);
        }
    }

    fn flush(&mut self) {
        while let Some(room) = self.dirty.pop() {
            self.flush_room(room);
        }
    }

    fn flush_room(&mut self, number: usize) {
        let room = &mut self.rooms[number];
        for member in &room.members {
            if let Some(peer) = &mut self.peers[*member] {
                send(&mut peer.stream, &room.pending);
            }
        }
        room.pending.clear();
    }

    fn join(&mut self, at: usize, room: usize) {
        if self.rooms.len() <= room {
            self.rooms.resize_with(room + 1, Room::default);
        }
        self.rooms[room].members.push(at);
        if let Some(peer) = &mut self.peers[at] {
            peer.room = Some(room);
        }
        self.reply(at, JOINED);
    }

    fn reply(&mut self, at: usize, payload: &[u8]) {
        self.frame.clear();
        append_frame(&mut self.frame, &[payload]);
        if let Some(peer) = &mut self.peers[at] {
            send(&mut peer.stream, &self.frame);
        }
    }
}

/// Unmasks the frame at the start of `bytes` where it stands: where its payload is, and how long.
fn masked_frame(bytes: &mut [u8]) -> Option<(usize, usize)> {
    let (payload_bytes, mask_at) = match *bytes {
        [_, 0xFE, high, low, ..] => (usize::from(u16::from_be_bytes([high, low])), 4),
        [_, length, ..] if length < 0xFE => (usize::from(length & 0x7F), 2),
        _ => return None,
    };
    let mask: [u8; 4] = *bytes.get(mask_at..)?.first_chunk()?;
    let payload_at = mask_at + 4;
    let payload = bytes.get_mut(payload_at..payload_at + payload_bytes)?;
    let mut words = payload.chunks_exact_mut(4);
    for word in &mut words {
        for (byte, mask) in word.iter_mut().zip(mask) {
            *byte ^= mask;
        }
    }
    for (byte, mask) in words.into_remainder().iter_mut().zip(mask) {
        *byte ^= mask;
    }
    Some((payload_at, payload_bytes))
}

/// Appends an unmasked text frame whose payload is these pieces.
fn append_frame(out: &mut Vec<u8>, pieces: &[&[u8]]) {
    let payload_bytes: usize = pieces.iter().map(|piece| piece.len()).sum();
    out.push(0x81);
    if payload_bytes < 126 {
        out.push(payload_bytes as u8);
    } else {
        out.push(126);
        out.extend_from_slice(&(payload_bytes as u16).to_be_bytes());
    }
    for piece in pieces {
        out.extend_from_slice(piece);
    }
}

/// The number of a name.
fn number(digits: &[u8]) -> usize {
    digits.iter().take(NAME_DIGITS).fold(0, |number, digit| number * 10 + usize::from(digit & 0xF))
}

/// Sends. What the socket does not take is lost, and the generator will say so.
fn send(stream: &mut TcpStream, bytes: &[u8]) {
    match stream.write(bytes) {
        Ok(sent) if sent == bytes.len() => {}
        Ok(_) => eprintln!("floor: a socket is full"),
        Err(error) if error.kind() == ErrorKind::WouldBlock => eprintln!("floor: a socket is full"),
        // Its end is read.
        Err(_) => {}
    }
}
