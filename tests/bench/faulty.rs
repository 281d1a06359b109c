//! A server that does one thing wrong, on purpose. Otherwise it is a slow and simple server of the user dialect, with or
//! without compression.

use std::collections::HashMap;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use flate2::{Compress, Compression, FlushCompress};
use serde_json::{Value, json};
use socket2::Socket;
use tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tungstenite::http::HeaderValue;
use tungstenite::protocol::Role;
use tungstenite::protocol::frame::coding::{Data, OpCode};
use tungstenite::protocol::frame::{Frame, FrameHeader};
use tungstenite::{Message, WebSocket};

/// What goes wrong, once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    #[default]
    None,
    /// A message is not delivered.
    Drop,
    /// A message is delivered twice.
    Double,
    /// A message is delivered after its successor.
    Swap,
    /// A message goes to another user instead.
    Misroute,
    /// The connection is closed.
    Close,
    /// The connection ends in the very segment that brings the message.
    End,
    /// The message is answered with an error, beside being delivered.
    Refuse,
    /// A byte of the message is another.
    Alter,
    /// A message is sent as compressed, and is not.
    Garble,
}

/// What is compressed, and how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Deflate {
    /// Nothing.
    #[default]
    Never,
    /// Everything, for whom it was agreed with; each message by itself.
    Alone,
    /// The same, but messages refer to those before them.
    Window,
    /// Everything, with whomever nothing was agreed.
    Unasked,
    /// Nothing, although it is agreed.
    Idle,
}

/// What a server does wrong, and to whom.
#[derive(Clone, Copy, Debug)]
pub struct Manners {
    /// What.
    pub fault: Fault,
    /// The user whose deliveries go wrong.
    pub victim: &'static str,
    /// Which delivery to the victim, counted from 1, is the wrong one.
    pub fault_at: u32,
    /// How it compresses.
    pub deflate: Deflate,
}

impl Default for Manners {
    fn default() -> Manners {
        Manners { fault: Fault::None, victim: "u000000", fault_at: 3, deflate: Deflate::Never }
    }
}

/// Starts a server without compression, which lives as long as the process.
pub fn start(fault: Fault) -> SocketAddr {
    start_with(Manners { fault, ..Manners::default() })
}

/// Starts the server, which lives as long as the process.
pub fn start_with(manners: Manners) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    let hub = Arc::new(Mutex::new(Hub { manners, ..Hub::default() }));
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let hub = Arc::clone(&hub);
            thread::spawn(move || serve(stream, &hub));
        }
    });
    address
}

/// The sending half of a connection.
pub struct Writer {
    socket: WebSocket<TcpStream>,
    deflate: Option<(Deflate, Compress)>,
}

impl Writer {
    /// Sends a text in one frame.
    pub fn send(&mut self, text: &str) {
        match self.compress(text) {
            Some(payload) => self.send_as_compressed(payload),
            None => {
                let _ = self.socket.send(Message::text(text));
            }
        }
    }

    /// Sends a text in frames of at most so many bytes each; 0: in one.
    pub fn send_in_fragments(&mut self, text: &str, fragment_bytes: usize) {
        if fragment_bytes == 0 {
            return self.send(text);
        }
        let compressed = self.compress(text);
        let payload = compressed.as_deref().unwrap_or(text.as_bytes());
        let count = payload.chunks(fragment_bytes).count();
        for (at, part) in payload.chunks(fragment_bytes).enumerate() {
            let opcode = OpCode::Data(if at == 0 { Data::Text } else { Data::Continue });
            let (is_final, rsv1) = (at + 1 == count, at == 0 && compressed.is_some());
            let header = FrameHeader { is_final, rsv1, opcode, ..FrameHeader::default() };
            let _ = self.socket.send(Message::Frame(Frame::from_payload(header, part.to_vec().into())));
        }
    }

    /// Sends a text, and the end of the connection with it.
    pub fn send_and_end(&mut self, text: &str) {
        let stream = Socket::from(self.socket.get_ref().try_clone().expect("a descriptor"));
        stream.set_tcp_cork(true).expect("TCP");
        self.send(text);
        stream.shutdown(Shutdown::Write).expect("it is open");
    }

    /// Closes the connection.
    pub fn close(&mut self) {
        let _ = self.socket.close(None);
    }

    /// What a text becomes where compression is agreed.
    fn compress(&mut self, text: &str) -> Option<Vec<u8>> {
        let (deflate, state) = self.deflate.as_mut()?;
        if *deflate != Deflate::Window {
            state.reset();
        }
        let mut payload = Vec::with_capacity(text.len() + 1024);
        state.compress_vec(text.as_bytes(), &mut payload, FlushCompress::Sync).expect("there is room");
        // What RFC 7692 §7.2.1 has a sender cut off.
        payload.truncate(payload.len() - 4);
        Some(payload)
    }

    fn send_as_compressed(&mut self, payload: Vec<u8>) {
        let header = FrameHeader { rsv1: true, opcode: OpCode::Data(Data::Text), ..FrameHeader::default() };
        let _ = self.socket.send(Message::Frame(Frame::from_payload(header, payload.into())));
    }
}

#[derive(Default)]
struct Hub {
    manners: Manners,
    delivered_to_victim: u32,
    held: Option<String>,
    writers: HashMap<String, Writer>,
    /// Room to members, in the order in which they joined.
    rooms: HashMap<String, Vec<String>>,
}

impl Hub {
    fn send(&mut self, user: &str, text: &str) {
        if let Some(writer) = self.writers.get_mut(user) {
            writer.send(text);
        }
    }

    fn deliver(&mut self, user: &str, text: &str) {
        let Manners { fault, victim, fault_at, .. } = self.manners;
        if user != victim {
            return self.send(user, text);
        }
        self.delivered_to_victim += 1;
        let faulty = self.delivered_to_victim == fault_at;
        match fault {
            Fault::Drop if faulty => {}
            Fault::Double if faulty => {
                self.send(user, text);
                self.send(user, text);
            }
            Fault::Swap if faulty => self.held = Some(text.to_owned()),
            Fault::Misroute if faulty => self.send("u000001", text),
            Fault::Close if faulty => {
                if let Some(writer) = self.writers.get_mut(user) {
                    let _ = writer.socket.close(None);
                }
            }
            Fault::End if faulty => {
                if let Some(writer) = self.writers.get_mut(user) {
                    writer.send_and_end(text);
                }
            }
            Fault::Refuse if faulty => {
                self.send(user, text);
                self.send(user, r#"{"type":"error","code":"rate_limited","message":"too fast"}"#);
            }
            // Behind the stamp, which says what message it is.
            Fault::Alter if faulty => self.send(user, &text.replacen(r#"":[{"ask":""#, r#"":[{"ask":"9"#, 1)),
            Fault::Garble if faulty => {
                if let Some(writer) = self.writers.get_mut(user) {
                    writer.send_as_compressed(text.as_bytes().to_vec());
                }
            }
            Fault::None
            | Fault::Alter
            | Fault::Garble
            | Fault::Drop
            | Fault::Double
            | Fault::Swap
            | Fault::Misroute
            | Fault::Close
            | Fault::End
            | Fault::Refuse => {
                self.send(user, text);
                if let Some(held) = self.held.take() {
                    self.send(user, &held);
                }
            }
        }
    }

    fn command(&mut self, user: &str, command: &Value) {
        let text = |key: &str| command[key].as_str().unwrap_or_default().to_owned();
        match text("type").as_str() {
            "join_room" => {
                self.rooms.entry(text("roomId")).or_default().push(user.to_owned());
                self.send(
                    user,
                    &json!({"type": "joined", "id": command["id"], "roomId": command["roomId"]}).to_string(),
                );
            }
            "room_msg" => {
                let message = json!({"type": "room_msg", "from": user, "content": command["content"]}).to_string();
                for member in self.rooms.get(&text("roomId")).cloned().unwrap_or_default() {
                    self.deliver(&member, &message);
                }
            }
            "private_msg" => {
                let message = json!({"type": "private_msg", "from": user, "content": command["content"]}).to_string();
                self.deliver(&text("toUser"), &message);
            }
            "ping" => self.send(user, r#"{"type":"pong"}"#),
            _ => {}
        }
    }
}

/// A connection, once it is upgraded: what it receives, what sends to it, and the query of its request.
pub struct Accepted {
    /// The receiving half.
    pub reader: WebSocket<TcpStream>,
    /// The sending half.
    pub writer: Writer,
    /// What stands behind the question mark.
    pub query: String,
}

/// Upgrades a connection, with compression or without; `None` where it is no WebSocket.
pub fn accept(stream: TcpStream, deflate: Deflate) -> Option<Accepted> {
    let writer = stream.try_clone().expect("a second handle");
    let mut query = String::new();
    let mut compresses = deflate == Deflate::Unasked;
    #[allow(clippy::result_large_err, reason = "the callback's type is tungstenite's")]
    let agree = |request: &Request, mut response: Response| -> Result<Response, ErrorResponse> {
        query = request.uri().query().unwrap_or_default().to_owned();
        let answer = match deflate {
            Deflate::Never | Deflate::Unasked => None,
            Deflate::Alone => Some("permessage-deflate; server_no_context_takeover"),
            Deflate::Window | Deflate::Idle => Some("permessage-deflate"),
        };
        if let (Some(answer), true) = (answer, request.headers().contains_key("sec-websocket-extensions")) {
            response.headers_mut().insert("sec-websocket-extensions", HeaderValue::from_static(answer));
            compresses = deflate != Deflate::Idle;
        }
        Ok(response)
    };
    let reader = tungstenite::accept_hdr(stream, agree).ok()?;
    let deflate = compresses.then(|| (deflate, Compress::new(Compression::default(), false)));
    let socket = WebSocket::from_raw_socket(writer, Role::Server, None);
    Some(Accepted { reader, writer: Writer { socket, deflate }, query })
}

fn lock(hub: &Mutex<Hub>) -> MutexGuard<'_, Hub> {
    hub.lock().unwrap_or_else(PoisonError::into_inner)
}

fn serve(stream: TcpStream, hub: &Mutex<Hub>) {
    let deflate = lock(hub).manners.deflate;
    let Some(Accepted { mut reader, writer, query }) = accept(stream, deflate) else { return };
    let user = query.trim_start_matches("userId=").to_owned();
    {
        let mut hub = lock(hub);
        hub.writers.insert(user.clone(), writer);
        hub.send(&user, &json!({"type": "welcome", "clientId": user, "userId": user, "heartbeat": 30_000}).to_string());
    }
    while let Ok(message) = reader.read() {
        let command = serde_json::from_slice(&message.into_data()).unwrap_or_default();
        lock(hub).command(&user, &command);
    }
}
