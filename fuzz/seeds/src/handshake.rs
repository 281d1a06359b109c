//! Seeds of `handshake`: good requests of each kind, those a server refuses, and plain HTTP.

use fanfare_seeds::pieces;

use super::Seed;

/// What every good request has.
const FIELDS: &str = "Host: x\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n\
                      Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n";

pub fn seeds() -> Vec<Seed> {
    let get = |target: &str, more: &str| format!("GET {target} HTTP/1.1\r\n{FIELDS}{more}\r\n");
    let large = format!("X: {}\r\n", "x".repeat(1_400));
    let many: String = (0..61).map(|at| format!("X{at}: \r\n")).collect();
    let heads = [
        ("anonymous", get("/", "")),
        ("user", get("/ws?userId=Zo%C3%AB+%2F&x", "")),
        ("two-users", get("/?userId=a&userId=b", "")),
        ("bad-user", get("/?userId=%F0%9F%98", "")),
        ("raw", get("/raw/den%2Fone", "")),
        ("raw-echo", get("/raw/den?echo=1&userId=x", "")),
        ("raw-items", get("/raw/px?mode=latest&items=a%2Cfx.*&interval=9&since=e:7", "")),
        ("absolute", get("http://x:80?userId=a/ws", "")),
        ("absolute-tls", get("WSS://x/ws", "")),
        ("with-a-user", get("http://a@x/ws", "")),
        ("nowhere", get("/nowhere", "")),
        ("subprotocol", get("/", "Sec-WebSocket-Protocol: chat, fanfare.v1\r\n")),
        ("extension", get("/", "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n")),
        ("with-a-body", get("/", "Content-Length: 5\r\n")),
        ("in-chunks", get("/", "Transfer-Encoding: chunked\r\n")),
        ("two-keys", get("/", "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n")),
        ("old-version", get("/", "").replace("13", "8")),
        ("odd-white-space", get("/", "").replace("13", "13\u{a0}")),
        ("post", get("/", "").replace("GET", "POST")),
        ("http-1.0", get("/", "").replace("HTTP/1.1", "HTTP/1.0")),
        ("bare-line-feeds", get("/", "").replace("\r\n", "\n")),
        ("two-hosts", get("/", "Host: y\r\n")),
        ("upgrade-lost", get("/raw/x", "").replace("Upgrade: websocket\r\n", "")),
        ("tls", "\u{16}\u{3}\u{1}\u{2}\0\u{1}".into()),
        ("asterisk", "OPTIONS * HTTP/1.0\r\n\r\n".into()),
        ("empty-line-first", format!("\r\n{}", get("/", ""))),
        ("plain-http", "GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n".into()),
        ("large", get("/", &large)),
        ("many-fields", get("/", &many)),
        ("early-frames", get("/", "") + "\u{1}\u{0}more"),
    ];
    let sizes: [&[u8]; 3] = [&[], &[1], &[7, 100, 3, 0]];
    let input = |(at, (name, head)): (usize, (&'static str, String))| {
        let limits = if name == "many-fields" { 0 } else { at as u8 % 4 };
        (name, [vec![limits], pieces::write(sizes[at % sizes.len()], head.as_bytes())].concat())
    };
    heads.into_iter().enumerate().map(input).collect()
}
