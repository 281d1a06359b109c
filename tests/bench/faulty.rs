//! A server that does one thing wrong, on purpose. Otherwise it is a slow and simple server of the user dialect.

use std::collections::HashMap;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use serde_json::{Value, json};
use tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tungstenite::protocol::Role;
use tungstenite::{Message, WebSocket};

/// Which delivery to the victim, counted from 1, is the wrong one.
const FAULT_AT: u32 = 3;

/// The user whose deliveries go wrong.
const VICTIM: &str = "u000000";

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
    /// The message is answered with an error, beside being delivered.
    Refuse,
}

/// Starts the server, which lives as long as the process.
pub fn start(fault: Fault) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    let hub = Arc::new(Mutex::new(Hub { fault, ..Hub::default() }));
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let hub = Arc::clone(&hub);
            thread::spawn(move || serve(stream, &hub));
        }
    });
    address
}

#[derive(Default)]
struct Hub {
    fault: Fault,
    delivered_to_victim: u32,
    held: Option<String>,
    writers: HashMap<String, WebSocket<TcpStream>>,
    /// Room to members, in the order in which they joined.
    rooms: HashMap<String, Vec<String>>,
}

impl Hub {
    fn send(&mut self, user: &str, text: &str) {
        if let Some(writer) = self.writers.get_mut(user) {
            let _ = writer.send(Message::text(text));
        }
    }

    fn deliver(&mut self, user: &str, text: &str) {
        if user != VICTIM {
            return self.send(user, text);
        }
        self.delivered_to_victim += 1;
        let faulty = self.delivered_to_victim == FAULT_AT;
        match self.fault {
            Fault::Drop if faulty => {}
            Fault::Double if faulty => {
                self.send(user, text);
                self.send(user, text);
            }
            Fault::Swap if faulty => self.held = Some(text.to_owned()),
            Fault::Misroute if faulty => self.send("u000001", text),
            Fault::Close if faulty => {
                if let Some(writer) = self.writers.get_mut(user) {
                    let _ = writer.close(None);
                }
            }
            Fault::Refuse if faulty => {
                self.send(user, text);
                self.send(user, r#"{"type":"error","code":"rate_limited","message":"too fast"}"#);
            }
            Fault::None
            | Fault::Drop
            | Fault::Double
            | Fault::Swap
            | Fault::Misroute
            | Fault::Close
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

fn lock(hub: &Mutex<Hub>) -> MutexGuard<'_, Hub> {
    hub.lock().unwrap_or_else(PoisonError::into_inner)
}

fn serve(stream: TcpStream, hub: &Mutex<Hub>) {
    let writer = stream.try_clone().expect("a second handle");
    let mut user = String::new();
    #[allow(clippy::result_large_err, reason = "the callback's type is tungstenite's")]
    let note_user = |request: &Request, response: Response| -> Result<Response, ErrorResponse> {
        user = request.uri().query().unwrap_or_default().trim_start_matches("userId=").to_owned();
        Ok(response)
    };
    let Ok(mut reader) = tungstenite::accept_hdr(stream, note_user) else { return };
    {
        let mut hub = lock(hub);
        hub.writers.insert(user.clone(), WebSocket::from_raw_socket(writer, Role::Server, None));
        hub.send(&user, &json!({"type": "welcome", "clientId": user, "userId": user, "heartbeat": 30_000}).to_string());
    }
    while let Ok(message) = reader.read() {
        let command = serde_json::from_slice(&message.into_data()).unwrap_or_default();
        lock(hub).command(&user, &command);
    }
}
