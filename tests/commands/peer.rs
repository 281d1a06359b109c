//! What stands between a command and the server, or in the server's place: a proxy that can be cut, and a server whose
//! every message the test itself writes.

use std::io::{self, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use fanfare_testing::{PATIENCE, eventually};
use serde_json::{Value, json};
use tungstenite::protocol::CloseFrame;
use tungstenite::{Bytes, Message, WebSocket};

/// Passes bytes on to a server until it is cut; then it refuses everyone until it is mended.
pub struct Proxy {
    address: SocketAddr,
    /// The streams that are open; `None` while it is cut.
    streams: Arc<Mutex<Option<Vec<TcpStream>>>>,
}

impl Proxy {
    /// To this server, for as long as the process lives.
    pub fn to(server: SocketAddr) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let streams = Arc::new(Mutex::new(Some(Vec::new())));
        let of_thread = Arc::clone(&streams);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if let Some(streams) = of_thread.lock().expect("nobody panics").as_mut() {
                    let server = TcpStream::connect(server).expect("the server should accept");
                    pass(&client, &server);
                    pass(&server, &client);
                    streams.extend([client, server]);
                }
            }
        });
        Proxy { address, streams }
    }

    /// Where it listens.
    pub fn url(&self) -> String {
        format!("ws://{}/?token=secret", self.address)
    }

    /// Ends every connection, without a close frame.
    pub fn cut(&self) {
        for stream in self.streams.lock().expect("nobody panics").take().into_iter().flatten() {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Lets clients through again.
    pub fn mend(&self) {
        *self.streams.lock().expect("nobody panics") = Some(Vec::new());
    }
}

fn pass(from: &TcpStream, to: &TcpStream) {
    let (mut from, mut to) = (from.try_clone().expect("a descriptor"), to.try_clone().expect("a descriptor"));
    thread::spawn(move || {
        // An error is an end.
        let _ = io::copy(&mut from, &mut to);
        let _ = to.shutdown(Shutdown::Write);
    });
}

/// A server's listener, on which the test accepts.
pub struct Stage(TcpListener);

impl Stage {
    /// On a free port.
    pub fn new() -> Stage {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        listener.set_nonblocking(true).expect("a listener");
        Stage(listener)
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.0.local_addr().expect("it is bound")
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("ws://{}/?token=secret", self.0.local_addr().expect("it is bound"))
    }

    /// The next client, upgraded and welcomed.
    #[track_caller]
    pub fn welcome(&self) -> Peer {
        let mut peer = self.upgrade();
        peer.send(&json!({"type": "welcome", "clientId": "c", "userId": "u", "heartbeat": 30000}));
        peer
    }

    /// The next client, upgraded.
    #[track_caller]
    pub fn upgrade(&self) -> Peer {
        let stream = self.accept();
        Peer(tungstenite::accept(stream).unwrap_or_else(|error| panic!("it should ask for an upgrade: {error}")))
    }

    /// The next client.
    #[track_caller]
    pub fn accept(&self) -> TcpStream {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.0.accept() {
                Ok((stream, _)) => {
                    stream.set_nonblocking(false).expect("a stream");
                    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout above zero");
                    return stream;
                }
                Err(error) => assert!(Instant::now() < deadline, "nobody came: {error}"),
            }
            thread::sleep(Duration::from_millis(2));
        }
    }
}

/// What is written without an end.
pub struct Flood(Arc<AtomicU64>);

impl Flood {
    /// Waits until so many bytes were taken.
    #[track_caller]
    pub fn await_bytes(&self, bytes: u64) {
        eventually("the client reads", || self.0.load(Ordering::Relaxed) >= bytes);
    }
}

/// The server's end of a connection.
pub struct Peer(WebSocket<TcpStream>);

impl Peer {
    /// Sends a message.
    #[track_caller]
    pub fn send(&mut self, message: &Value) {
        self.0.send(Message::text(message.to_string())).expect("the client should be there");
    }

    /// The next command.
    #[track_caller]
    pub fn recv(&mut self) -> Value {
        match self.0.read() {
            Ok(Message::Text(text)) => serde_json::from_str(&text).expect("JSON"),
            other => panic!("a command should come, not {other:?}"),
        }
    }

    /// Asks for a pong, and answers with the commands that came before it.
    #[track_caller]
    pub fn barrier(&mut self) -> Vec<Value> {
        self.0.send(Message::Ping(Bytes::from_static(b"barrier"))).expect("the client should be there");
        let mut commands = Vec::new();
        loop {
            match self.0.read() {
                Ok(Message::Text(text)) => commands.push(serde_json::from_str(&text).expect("JSON")),
                Ok(Message::Pong(_)) => return commands,
                other => panic!("a pong should come, not {other:?}"),
            }
        }
    }

    /// From now on writes `first` and then `rest` again and again, and reads nothing. Ends with the connection.
    pub fn flood(self, first: &'static [u8], rest: &'static [u8]) -> Flood {
        let written = Arc::new(AtomicU64::new(0));
        let of_thread = Arc::clone(&written);
        thread::spawn(move || {
            let stream = self.0.get_ref();
            let mut stream = stream.try_clone().expect("a descriptor");
            let piece = rest.repeat(8 * 1024 / rest.len());
            let mut next = stream.write_all(first);
            while next.is_ok() {
                of_thread.fetch_add(piece.len() as u64, Ordering::Relaxed);
                next = stream.write_all(&piece);
            }
        });
        Flood(written)
    }

    /// Closes with a code and a reason.
    #[track_caller]
    pub fn close(mut self, code: u16, reason: &str) {
        let frame = CloseFrame { code: code.into(), reason: reason.to_owned().into() };
        self.0.close(Some(frame)).expect("the client should be there");
        // Its echo, or its end.
        while self.0.read().is_ok() {}
    }
}
