//! A blocking WebSocket client around tungstenite, with the waiting and the failure messages that tests need.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tungstenite::error::Error;
use tungstenite::handshake::HandshakeError;
use tungstenite::protocol::WebSocketConfig;
use tungstenite::{Bytes, Message, WebSocket};

use super::deflate::{DeflateStream, Tally};
use super::{Entrance, PATIENCE, percent_encode};

/// A byte stream with a read timeout: TCP or a Unix socket.
pub trait Stream: Read + Write + Send {
    /// Makes reads fail with `WouldBlock` after `timeout`.
    fn limit_reads(&self, timeout: Duration) -> io::Result<()>;
}

impl Stream for TcpStream {
    fn limit_reads(&self, timeout: Duration) -> io::Result<()> {
        self.set_read_timeout(Some(timeout))
    }
}

impl Stream for UnixStream {
    fn limit_reads(&self, timeout: Duration) -> io::Result<()> {
        self.set_read_timeout(Some(timeout))
    }
}

/// An HTTP answer in place of the upgrade.
#[derive(Debug)]
pub struct Rejection {
    /// The status code.
    pub status: u16,
    /// The `Retry-After` header.
    pub retry_after: Option<String>,
}

/// One WebSocket connection.
pub struct Client {
    socket: WebSocket<Box<dyn Stream>>,
    /// Read from the socket while waiting for something else, oldest first.
    held: VecDeque<Message>,
    welcome: Value,
    next_id: u32,
    tally: Option<Arc<Tally>>,
}

impl Client {
    /// Connects as `user` and takes the welcome.
    #[track_caller]
    pub fn connect(server: &dyn Entrance, user: &str) -> Client {
        Client::greeted(server, &format!("/?userId={}", percent_encode(user)))
    }

    /// Connects without a user id and takes the welcome.
    #[track_caller]
    pub fn anonymous(server: &dyn Entrance) -> Client {
        Client::greeted(server, "/")
    }

    /// Connects to a request target of the JSON dialect and takes the welcome.
    #[track_caller]
    pub fn greeted(server: &dyn Entrance, target: &str) -> Client {
        let mut client = Client::open(server, target);
        client.take_welcome();
        client
    }

    /// Connects to any request target, such as `/raw/room`; no message is awaited.
    #[track_caller]
    pub fn open(server: &dyn Entrance, target: &str) -> Client {
        Client::try_open(server, target).unwrap_or_else(|rejection| panic!("{target} should upgrade: {rejection:?}"))
    }

    /// As [`open`](Client::open), or the server's HTTP answer.
    #[track_caller]
    pub fn try_open(server: &dyn Entrance, target: &str) -> Result<Client, Rejection> {
        let addr = server.next_addr();
        let stream = TcpStream::connect(addr).expect("the server should accept");
        stream.set_nodelay(true).expect("TCP has no-delay");
        Client::over(Box::new(stream), &format!("ws://{addr}{target}"))
    }

    /// Connects to any request target with an offer of compression, which the server must take: every message is sent
    /// compressed then, and those that come compressed are counted.
    #[track_caller]
    pub fn deflating(server: &dyn Entrance, target: &str, offer: &str) -> Client {
        let addr = server.next_addr();
        let tcp = TcpStream::connect(addr).expect("the server should accept");
        tcp.set_nodelay(true).expect("TCP has no-delay");
        let stream = DeflateStream::new(tcp, offer);
        let tally = stream.tally();
        let mut client = Client::over(Box::new(stream), &format!("ws://{addr}{target}"))
            .unwrap_or_else(|rejection| panic!("{target} should upgrade: {rejection:?}"));
        client.tally = Some(tally);
        if !target.starts_with("/raw/") {
            client.take_welcome();
        }
        client
    }

    /// What came from the server to a deflating client so far.
    #[track_caller]
    pub fn tally(&self) -> &Tally {
        self.tally.as_deref().expect("a deflating client")
    }

    /// Upgrades a stream that is connected already.
    #[track_caller]
    pub fn over(stream: Box<dyn Stream>, url: &str) -> Result<Client, Rejection> {
        stream.limit_reads(PATIENCE).expect("a timeout above zero");
        let config = WebSocketConfig::default().read_buffer_size(8 * 1024).write_buffer_size(0);
        match tungstenite::client::client_with_config(url, stream, Some(config)) {
            Ok((socket, _response)) => {
                Ok(Client { socket, held: VecDeque::new(), welcome: Value::Null, next_id: 0, tally: None })
            }
            Err(HandshakeError::Failure(Error::Http(response))) => Err(Rejection {
                status: response.status().as_u16(),
                retry_after: response
                    .headers()
                    .get("retry-after")
                    .and_then(|value| value.to_str().ok())
                    .map(str::to_owned),
            }),
            Err(HandshakeError::Failure(error)) => panic!("{url}: {error}"),
            Err(HandshakeError::Interrupted(_)) => panic!("{url}: no answer within {PATIENCE:?}"),
        }
    }

    /// The first message, which must be the welcome.
    #[track_caller]
    pub fn take_welcome(&mut self) {
        let welcome = self.recv_json();
        assert_eq!(welcome["type"], "welcome", "the first message: {welcome}");
        self.welcome = welcome;
    }

    /// The welcome message.
    pub fn welcome(&self) -> &Value {
        &self.welcome
    }

    /// The client id that the server gave.
    #[track_caller]
    pub fn client_id(&self) -> &str {
        self.welcome["clientId"].as_str().expect("a welcome")
    }

    /// The user id that the server knows this connection by.
    #[track_caller]
    pub fn user_id(&self) -> &str {
        self.welcome["userId"].as_str().expect("a welcome")
    }

    /// Sends a JSON command.
    #[track_caller]
    pub fn send(&mut self, command: &Value) {
        self.send_text(&command.to_string());
    }

    /// Sends a text message as it is.
    #[track_caller]
    pub fn send_text(&mut self, text: &str) {
        self.send_message(Message::text(text));
    }

    /// Sends a message or a control frame.
    #[track_caller]
    pub fn send_message(&mut self, message: Message) {
        self.socket.send(message).unwrap_or_else(|error| panic!("the connection should take a message: {error}"));
    }

    /// Sends a command with an `id` and returns the one reply that carries it. What comes before it is kept.
    #[track_caller]
    pub fn request(&mut self, mut command: Value) -> Value {
        self.next_id += 1;
        let id = json!(format!("request-{}", self.next_id));
        command["id"] = id.clone();
        self.send(&command);
        self.reply(&id)
    }

    /// The reply that carries `id`. What comes before it is kept for later calls.
    #[track_caller]
    pub fn reply(&mut self, id: &Value) -> Value {
        let already = std::mem::take(&mut self.held);
        let mut found = None;
        for message in already {
            match parsed(&message) {
                Some(json) if found.is_none() && json["id"] == *id => found = Some(json),
                Some(_) | None => self.held.push_back(message),
            }
        }
        if let Some(reply) = found {
            return reply;
        }
        let deadline = Instant::now() + PATIENCE;
        while let Some(message) = self.next_from_socket(deadline) {
            match parsed(&message) {
                Some(json) if json["id"] == *id => return json,
                Some(_) | None => self.held.push_back(message),
            }
        }
        panic!("no reply with id {id} after {PATIENCE:?}; held: {:?}", self.held)
    }

    /// Joins a room and waits until the server says so: every publish from now on arrives.
    #[track_caller]
    pub fn join(&mut self, room: &str) -> Value {
        let reply = self.request(json!({"type": "join_room", "roomId": room}));
        assert_eq!(reply["type"], "joined", "the answer to a join: {reply}");
        assert_eq!(reply["roomId"], room, "the answer to a join: {reply}");
        reply
    }

    /// Publishes and waits until the server has routed it.
    #[track_caller]
    pub fn publish(&mut self, command: Value) -> Value {
        let reply = self.request(command);
        assert_eq!(reply["type"], "ack", "the answer to a publish: {reply}");
        reply
    }

    /// The next text or binary message.
    #[track_caller]
    pub fn recv(&mut self) -> Message {
        self.try_recv(PATIENCE).unwrap_or_else(|| panic!("no message within {PATIENCE:?}"))
    }

    /// The next text or binary message, `None` if none comes in time.
    #[track_caller]
    pub fn try_recv(&mut self, patience: Duration) -> Option<Message> {
        if let Some(message) = self.held.pop_front() {
            return Some(message);
        }
        self.next_from_socket(Instant::now() + patience)
    }

    /// The next message, which must be text.
    #[track_caller]
    pub fn recv_text(&mut self) -> String {
        match self.recv() {
            Message::Text(text) => text.as_str().to_owned(),
            other => panic!("expected a text message, got {other:?}"),
        }
    }

    /// The next message, which must be JSON text.
    #[track_caller]
    pub fn recv_json(&mut self) -> Value {
        let text = self.recv_text();
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error} in {text:?}"))
    }

    /// The next message, which must be of this `type`.
    #[track_caller]
    pub fn recv_type(&mut self, kind: &str) -> Value {
        let json = self.recv_json();
        assert_eq!(json["type"], kind, "expected a `{kind}`: {json}");
        json
    }

    /// The first message that `wanted` accepts; those before it are dropped.
    #[track_caller]
    pub fn expect(&mut self, wanted: impl Fn(&Value) -> bool) -> Value {
        self.until(wanted).pop().expect("never empty")
    }

    /// The first message of this `type`; those before it are dropped.
    #[track_caller]
    pub fn expect_type(&mut self, kind: &str) -> Value {
        self.expect(|json| json["type"] == kind)
    }

    /// Every message up to and with the first that `wanted` accepts.
    #[track_caller]
    pub fn until(&mut self, wanted: impl Fn(&Value) -> bool) -> Vec<Value> {
        let mut seen = Vec::new();
        let deadline = Instant::now() + PATIENCE;
        loop {
            let Some(message) = self.try_recv(deadline.saturating_duration_since(Instant::now())) else {
                panic!("it did not come within {PATIENCE:?}; seen: {seen:#?}")
            };
            let json = parsed(&message).unwrap_or_else(|| panic!("a message is no JSON: {message:?}"));
            let done = wanted(&json);
            seen.push(json);
            if done {
                return seen;
            }
        }
    }

    /// Every message that the server sent before it answered a ping: all that was on its way to us.
    #[track_caller]
    pub fn drain(&mut self) -> Vec<Message> {
        self.barrier();
        self.held.drain(..).collect()
    }

    /// A ping and its pong. What comes before the pong is kept.
    #[track_caller]
    pub fn barrier(&mut self) {
        self.next_id += 1;
        let payload = Bytes::from(format!("barrier-{}", self.next_id));
        self.send_message(Message::Ping(payload.clone()));
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.read_until(deadline) {
                Ok(Some(Message::Pong(answer))) if answer == payload => return,
                Ok(Some(Message::Ping(_) | Message::Pong(_))) => {}
                Ok(Some(message)) => self.held.push_back(message),
                Ok(None) => panic!("no pong within {PATIENCE:?}"),
                Err(error) => panic!("the connection ended before the pong: {error}"),
            }
        }
    }

    /// Fails if anything but replies to pings comes: at once, before the pongs of two pings, or in the `ms`
    /// milliseconds after them.
    #[track_caller]
    pub fn nothing_for(&mut self, ms: u64) {
        self.barrier();
        self.barrier();
        if let Some(message) = self.try_recv(Duration::from_millis(ms)) {
            panic!("nothing should have come, but this did: {message:?}");
        }
    }

    /// Reads to the server's close frame, dropping messages, and returns its code and reason.
    #[track_caller]
    pub fn close_frame(&mut self) -> (u16, String) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.read_until(deadline) {
                Ok(Some(Message::Close(Some(close)))) => {
                    return (u16::from(close.code), close.reason.as_str().to_owned());
                }
                Ok(Some(Message::Close(None))) => panic!("a close frame without a code"),
                Ok(Some(_)) => {}
                Ok(None) => panic!("no close frame within {PATIENCE:?}"),
                Err(error) => panic!("the connection ended without a close frame: {error}"),
            }
        }
    }

    /// Says goodbye and waits until the server has closed the connection.
    #[track_caller]
    pub fn leave(mut self) {
        self.socket.close(None).unwrap_or_else(|error| panic!("the connection should take a close: {error}"));
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.read_until(deadline) {
                Ok(Some(_)) => {}
                Ok(None) => panic!("no answer to the close within {PATIENCE:?}"),
                Err(_) => return,
            }
        }
    }

    /// The next data message on the socket; control frames are answered by tungstenite and dropped.
    #[track_caller]
    fn next_from_socket(&mut self, deadline: Instant) -> Option<Message> {
        loop {
            match self.read_until(deadline) {
                Ok(Some(message @ (Message::Text(_) | Message::Binary(_)))) => {
                    return Some(message);
                }
                Ok(Some(Message::Close(close))) => panic!("the server closed: {close:?}"),
                Ok(Some(_)) => {}
                Ok(None) => return None,
                Err(error) => panic!("the connection ended: {error}"),
            }
        }
    }

    fn read_until(&mut self, deadline: Instant) -> Result<Option<Message>, Error> {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            self.socket.get_ref().limit_reads(left.max(Duration::from_millis(1)))?;
            match self.socket.read() {
                Ok(message) => return Ok(Some(message)),
                Err(Error::Io(error))
                    if matches!(
                        error.kind(),
                        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted
                    ) => {}
                Err(error) => return Err(error),
            }
        }
    }
}

fn parsed(message: &Message) -> Option<Value> {
    match message {
        Message::Text(text) => serde_json::from_str(text.as_str()).ok(),
        _ => None,
    }
}
