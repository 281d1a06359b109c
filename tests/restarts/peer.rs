//! A client that takes one thread with thousands of others.

use std::net::SocketAddr;
use std::time::Duration;

use fanfare_testing::raw::{CLOSE, Frame, PING, PONG, TEXT, cut_frame, masked, status_of, upgrade_request};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// An open connection.
pub struct Peer {
    stream: TcpStream,
    unread: Vec<u8>,
}

/// What comes from the server.
#[derive(Debug)]
pub enum Heard {
    /// A message.
    Message(Value),
    /// It goes away, and the client is to come back after this.
    GoingAway(Duration),
    /// The connection has ended otherwise.
    Lost(String),
}

impl Peer {
    /// Connects and is let in.
    ///
    /// # Errors
    /// Why not: no connection, or another answer than 101.
    pub async fn open(addr: SocketAddr, target: &str) -> Result<Peer, String> {
        let stream = TcpStream::connect(addr).await.map_err(|error| format!("no connection: {error}"))?;
        stream.set_nodelay(true).map_err(|error| error.to_string())?;
        let mut peer = Peer { stream, unread: Vec::new() };
        peer.write(upgrade_request(target, &[]).as_bytes()).await.map_err(|error| format!("no request: {error}"))?;
        loop {
            if let Some(end) = peer.unread.windows(4).position(|window| window == b"\r\n\r\n") {
                let rest = peer.unread.split_off(end + 4);
                let head = String::from_utf8_lossy(&std::mem::replace(&mut peer.unread, rest)).into_owned();
                return match status_of(&head) {
                    101 => Ok(peer),
                    status => Err(format!("answered {status}")),
                };
            }
            peer.read().await.map_err(|error| format!("no answer: {error}"))?;
        }
    }

    /// Sends a command.
    ///
    /// # Errors
    /// The connection is gone.
    pub async fn send(&mut self, command: &Value) -> Result<(), String> {
        self.write(&masked(TEXT, command.to_string().as_bytes())).await.map_err(|error| error.to_string())
    }

    /// The next thing that comes. Pings are answered.
    pub async fn hear(&mut self) -> Heard {
        loop {
            match cut_frame(&mut self.unread, false) {
                Some(Frame { first: TEXT, payload }) => {
                    return match serde_json::from_slice(&payload) {
                        Ok(message) => Heard::Message(message),
                        Err(error) => Heard::Lost(error.to_string()),
                    };
                }
                Some(Frame { first: PING, payload }) => {
                    // Whether it is gone shows when it is read.
                    let _ = self.write(&masked(PONG, &payload)).await;
                }
                Some(Frame { first: CLOSE, payload }) => {
                    let _ = self.write(&masked(CLOSE, &payload)).await;
                    return closed(&payload);
                }
                Some(frame) => return Heard::Lost(format!("an unexpected frame: {frame:?}")),
                None => {
                    if let Err(error) = self.read().await {
                        return Heard::Lost(error);
                    }
                }
            }
        }
    }

    async fn read(&mut self) -> Result<(), String> {
        match self.stream.read_buf(&mut self.unread).await {
            Ok(0) => Err("it ended".to_owned()),
            Ok(_) => Ok(()),
            Err(error) => Err(error.to_string()),
        }
    }

    async fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.write_all(bytes).await
    }
}

/// What a close frame says.
fn closed(payload: &[u8]) -> Heard {
    let (code, reason) = payload.split_at(payload.len().min(2));
    let reason: Value = serde_json::from_slice(reason).unwrap_or_default();
    match (code, reason["retry_ms"].as_u64()) {
        ([0x03, 0xE9], Some(ms)) => Heard::GoingAway(Duration::from_millis(ms)),
        _ => Heard::Lost(format!("closed with {code:?} {reason}")),
    }
}
