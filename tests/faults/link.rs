//! A client's connection whose every failure is a value: here servers are expected to vanish.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use serde_json::Value;
use tungstenite::error::Error;
use tungstenite::handshake::HandshakeError;
use tungstenite::protocol::WebSocketConfig;
use tungstenite::{Message, WebSocket};

/// A node that has not answered a handshake for so long is taken for dead.
const CONNECT_MS_MAX: u64 = 2_000;
/// How long nothing at all comes before a ping is sent, and how long before the connection is taken for dead.
const PING_MS: u64 = 500;
const SILENCE_MS_MAX: u64 = 2_500;

/// Why a connection cannot be used any more. The next one goes to another node.
#[derive(Debug)]
pub struct Lost;

/// One connection, welcomed.
pub struct Link {
    socket: WebSocket<TcpStream>,
    heard_at: Instant,
    pinged_at: Instant,
}

impl Link {
    pub fn connect(addr: SocketAddr, user: &str) -> Result<Link, Lost> {
        let patience = Duration::from_millis(CONNECT_MS_MAX);
        let stream = TcpStream::connect_timeout(&addr, patience).map_err(|_| Lost)?;
        stream.set_nodelay(true).map_err(|_| Lost)?;
        stream.set_read_timeout(Some(patience)).map_err(|_| Lost)?;
        stream.set_write_timeout(Some(patience)).map_err(|_| Lost)?;
        let config = WebSocketConfig::default().read_buffer_size(8 * 1024).write_buffer_size(0);
        let url = format!("ws://{addr}/?userId={user}");
        let socket = match tungstenite::client::client_with_config(url, stream, Some(config)) {
            Ok((socket, _)) => socket,
            Err(HandshakeError::Failure(_) | HandshakeError::Interrupted(_)) => return Err(Lost),
        };
        let now = Instant::now();
        let mut link = Link { socket, heard_at: now, pinged_at: now };
        match link.receive(patience)? {
            Some(welcome) if welcome["type"] == "welcome" => Ok(link),
            _ => Err(Lost),
        }
    }

    pub fn send(&mut self, command: &Value) -> Result<(), Lost> {
        self.socket.send(Message::text(command.to_string())).map_err(|_| Lost)
    }

    /// The next JSON message; none where nothing comes for a while. Pings where it is silent for long, and ends where it
    /// stays so.
    pub fn receive(&mut self, patience: Duration) -> Result<Option<Value>, Lost> {
        let deadline = Instant::now() + patience;
        loop {
            let now = Instant::now();
            if now.duration_since(self.heard_at) > Duration::from_millis(SILENCE_MS_MAX) {
                return Err(Lost);
            }
            if now.duration_since(self.heard_at.max(self.pinged_at)) > Duration::from_millis(PING_MS) {
                self.pinged_at = now;
                self.socket.send(Message::Ping(tungstenite::Bytes::new())).map_err(|_| Lost)?;
            }
            let left = deadline.saturating_duration_since(now).max(Duration::from_millis(1));
            self.socket.get_ref().set_read_timeout(Some(left)).map_err(|_| Lost)?;
            match self.socket.read() {
                Ok(message) => {
                    self.heard_at = Instant::now();
                    match message {
                        Message::Text(text) => return serde_json::from_str(text.as_str()).map(Some).map_err(|_| Lost),
                        Message::Close(_) => return Err(Lost),
                        _ => {}
                    }
                }
                Err(Error::Io(error))
                    if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) =>
                {
                    if Instant::now() >= deadline {
                        return Ok(None);
                    }
                }
                Err(_) => return Err(Lost),
            }
        }
    }
}
