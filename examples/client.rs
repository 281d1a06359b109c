//! A small client: `cargo run --example client -- ws://127.0.0.1:8080 alice`

use serde_json::json;
use tungstenite::{Error, Message, connect};

fn main() -> Result<(), Error> {
    let mut args = std::env::args().skip(1);
    let server = args.next().unwrap_or("ws://127.0.0.1:8080".to_owned());
    let user = args.next().unwrap_or("alice".to_owned());
    let (mut socket, _response) = connect(format!("{server}/?userId={user}"))?;
    let hello = format!("hello from {user}");
    socket.send(Message::text(json!({"type": "join_room", "roomId": "lobby"}).to_string()))?;
    socket.send(Message::text(json!({"type": "room_msg", "roomId": "lobby", "content": hello}).to_string()))?;
    loop {
        if let Message::Text(text) = socket.read()? {
            println!("{text}");
        }
    }
}
