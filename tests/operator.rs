//! What is not for everybody, against the built server: the counters, and the tokens of the console. Who counts as loopback
//! behind a proxy is looked at in `proxies`, the page itself in `interop`.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use fanfare_testing::raw::{RawConn, header_of, status_of, upgrade_request};
use fanfare_testing::{
    Client, HttpAnswer, Server, free_addr, http_ask, http_ask_over, http_get, socket_path, temporary_path,
};
use fanfare_testing::{refused_start, remove_socket};
use serde_json::{Value, json};

const READ_KEY: &str = "a-key-of-the-tests-that-is-good-for-reading";
const NEXT_READ_KEY: &str = "another-key-of-the-tests-that-is-good-for-reading";
const KICK_KEY: &str = "a-key-of-the-tests-that-is-good-for-kicking";
const SECRET: &str = "a secret of the tests, of more than 32 bytes";

/// A file that goes with the test.
struct File(PathBuf);

impl File {
    fn new(text: &str) -> File {
        let path = temporary_path("secret");
        fs::write(&path, text).unwrap();
        File(path)
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

fn api_key(name: &str, verbs: &str, file: &File) -> String {
    format!("name={name},verbs={verbs},secret_file={}", file.0.display())
}

/// A server with keys of all kinds.
fn server_with_keys(settings: &[&str]) -> Server {
    let files = [READ_KEY, NEXT_READ_KEY, KICK_KEY].map(|key| File::new(&format!("{key}\n")));
    let keys = [
        api_key("scraper", "read", &files[0]),
        api_key("scraper", "read publish", &files[1]),
        api_key("janitor", "kick", &files[2]),
    ];
    let flags: Vec<&str> = keys.iter().flat_map(|key| ["--api.key", key]).chain(settings.iter().copied()).collect();
    Server::start(&flags)
}

/// A server that asks for tokens which it can make.
fn server_with_secret(settings: &[&str]) -> Server {
    let secret = File::new(SECRET);
    let key = format!("alg=HS256,kid=a,secret_file={}", secret.0.display());
    Server::start(&[&["--auth.key", &key, "--auth.issuer", "me", "--auth.audience", "us"], settings].concat())
}

/// The answer to a request with these fields beside what has to be there.
fn ask(addr: SocketAddr, line: &str, host: &str, fields: &[(&str, &str)], body: &str) -> HttpAnswer {
    let fields: String = fields.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    http_ask(&addr, &format!("{line}\r\nHost: {host}\r\n{fields}Content-Length: {}\r\n\r\n{body}", body.len()))
}

fn get(addr: SocketAddr, target: &str, fields: &[(&str, &str)]) -> HttpAnswer {
    ask(addr, &format!("GET {target} HTTP/1.1"), &addr.to_string(), fields, "")
}

/// As a stranger does it: the host is another one.
fn get_from_afar(addr: SocketAddr, target: &str, fields: &[(&str, &str)]) -> HttpAnswer {
    ask(addr, &format!("GET {target} HTTP/1.1"), "push.example.com", fields, "")
}

const COUNTERS: [&str; 2] = ["/metrics", "/stats"];

#[test]
fn counters_are_for_loopback_alone_without_a_key() {
    let server = Server::start(&[]);
    let addr = server.addr();
    let port = addr.port();
    for target in COUNTERS {
        assert_eq!(get(addr, target, &[]).status, 200, "{target}");
        let local = ask(addr, &format!("GET {target} HTTP/1.1"), &format!("localhost:{port}"), &[], "");
        assert_eq!(local.status, 200, "{target}");
        for (line, host, fields) in [
            (format!("GET {target} HTTP/1.1"), "push.example.com".to_owned(), &[][..]),
            (format!("GET {target} HTTP/1.1"), "127.0.0.1".to_owned(), &[]),
            (format!("GET {target} HTTP/1.1"), format!("push.example.com:{port}"), &[]),
            (format!("GET {target} HTTP/1.0"), addr.to_string(), &[]),
            (format!("GET http://{addr}{target} HTTP/1.1"), addr.to_string(), &[]),
            (format!("GET {target} HTTP/1.1"), addr.to_string(), &[("X-Forwarded-For", "127.0.0.1")]),
            (format!("GET {target} HTTP/1.1"), addr.to_string(), &[("Forwarded", "for=127.0.0.1")]),
            (format!("GET {target} HTTP/1.1"), addr.to_string(), &[("X-Real-IP", "127.0.0.1")]),
            (format!("GET {target} HTTP/1.1"), addr.to_string(), &[("Via", "1.1 x")]),
            (format!("GET {target} HTTP/1.1"), addr.to_string(), &[("Connection", "upgrade")]),
        ] {
            let answer = ask(addr, &line, &host, fields, "");
            assert_eq!(answer.status, 401, "{line} {host} {fields:?}");
            assert_eq!(header_of(&answer.head, "www-authenticate"), Some("Bearer"));
            assert!(answer.body.contains("[[api.key]]") && answer.body.contains("admin.listen"), "{}", answer.body);
        }
    }
    for target in ["/", "/health/live", "/health/ready"] {
        assert_eq!(get_from_afar(addr, target, &[]).status, 200, "{target} is for everybody");
    }
    let strict = Server::start(&["--admin.loopback", "false"]);
    for target in COUNTERS {
        assert_eq!(get(strict.addr(), target, &[]).status, 401, "{target}");
    }
}

#[test]
fn neither_an_address_of_all_nor_a_unix_socket_counts_as_loopback() {
    let path = socket_path();
    let unix = format!("unix:{}", path.display());
    let all = free_addr();
    let world = format!("0.0.0.0:{}", all.port());
    let server = Server::start(&["--listen", &world, "--listen", &unix, "--open"]);
    for target in COUNTERS {
        assert_eq!(get(all, target, &[]).status, 401, "{target}");
        let request = format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        let answer = http_ask_over(UnixStream::connect(&path).expect("it is served"), &request);
        assert_eq!(answer.status, 401, "{target}");
    }
    drop(server);
    remove_socket(&path);
}

#[test]
fn a_key_that_may_read_is_shown_the_counters_from_anywhere() {
    let server = server_with_keys(&[]);
    let addr = server.addr();
    for target in COUNTERS {
        for key in [READ_KEY, NEXT_READ_KEY] {
            for bearer in [format!("Bearer {key}"), format!("bearer {key}")] {
                assert_eq!(get_from_afar(addr, target, &[("Authorization", &bearer)]).status, 200, "{target}");
            }
        }
        let answer = get_from_afar(addr, target, &[("Authorization", &format!("Bearer {KICK_KEY}"))]);
        assert_eq!(answer.status, 403, "{target}");
        assert_eq!(header_of(&answer.head, "www-authenticate"), Some("Bearer error=\"insufficient_scope\""));
        assert!(answer.body.contains("add read to its verbs"), "{}", answer.body);
        for wrong in [
            format!("Bearer {READ_KEY}x"),
            format!("Bearer {}", &READ_KEY[1..]),
            "Bearer".to_owned(),
            "Bearer ".to_owned(),
            format!("Basic {READ_KEY}"),
            format!("Bearer {}", "x".repeat(5_000)),
        ] {
            assert_eq!(get_from_afar(addr, target, &[("Authorization", &wrong)]).status, 401, "{wrong}");
        }
        let twice = [("Authorization", "Bearer x"), ("Authorization", &format!("Bearer {READ_KEY}")[..])];
        assert_eq!(get_from_afar(addr, target, &twice).status, 401, "of two none counts");
        let answer = get_from_afar(addr, target, &[("Authorization", "Bearer x")]);
        assert_eq!(header_of(&answer.head, "www-authenticate"), Some("Bearer error=\"invalid_token\""));
        let in_query = format!("{target}?token={READ_KEY}");
        assert_eq!(get_from_afar(addr, &in_query, &[]).status, 401, "a key stands in no URL");
    }
    let log = server.log();
    assert!(![READ_KEY, NEXT_READ_KEY, KICK_KEY].iter().any(|key| log.contains(key)), "{log}");
}

#[test]
fn a_key_that_is_none_keeps_the_server_from_starting() {
    for (keys, message) in [
        (&["short"][..], "the key has 5 bytes, few enough to be guessed"),
        (&["a key of the tests with blanks in it, though long"], "the key has blanks or letters beyond ASCII"),
        (&[READ_KEY, READ_KEY], "another key is the same"),
    ] {
        let files: Vec<File> = keys.iter().map(|key| File::new(key)).collect();
        let keys: Vec<String> = files.iter().map(|file| api_key("a", "read", file)).collect();
        let flags: Vec<&str> = keys.iter().flat_map(|key| ["--api.key", key]).collect();
        let refusal = refused_start(&flags);
        assert!(refusal.stderr.contains(message) && refusal.code == Some(2), "{refusal:?}");
    }
    let refusal = refused_start(&["--api.key", "name=a,verbs=read,secret_file=/nowhere/at/all"]);
    assert!(refusal.stderr.contains("cannot be read"), "{refusal:?}");
}

#[test]
fn a_listener_of_the_operator_shows_counters_to_all_and_serves_no_websocket() {
    let (public, admin) = (free_addr(), free_addr());
    let listen = [public, admin].map(|addr| addr.to_string());
    let server = Server::start(&["--listen", &listen[0], "--admin.listen", &listen[1], "--admin.loopback", "false"]);
    let listening: Vec<String> = listen.iter().map(|addr| format!("http://{addr}/")).collect();
    assert_eq!(server.listeners(), listening);
    for target in COUNTERS {
        assert_eq!(get_from_afar(admin, target, &[("X-Forwarded-For", "10.0.0.1")]).status, 200, "{target}");
        assert_eq!(get(public, target, &[]).status, 401, "{target}");
    }
    assert_eq!(http_get(&admin, "/health/live").status, 200);
    for target in ["/", "/ws?userId=alice", "/raw/den"] {
        let answer = http_ask(&admin, &upgrade_request(target, &[]));
        assert_eq!(answer.status, 404, "{target}");
        assert!(answer.body.starts_with("this address serves the operator's pages only"), "{}", answer.body);
    }
    drop(Client::greeted(&public, "/ws?userId=alice"));
}

/// A page whose name was made to lead to the operator's listener is read by its own site in the operator's browser.
#[test]
fn a_page_of_another_site_reads_no_counters_through_the_operators_browser() {
    let (public, admin) = (free_addr(), free_addr());
    let listen = [public, admin].map(|addr| addr.to_string());
    let _server = Server::start(&["--listen", &listen[0], "--admin.listen", &listen[1]]);
    let language = ("Accept-Language", "en");
    let rebound = format!("evil.example:{}", admin.port());
    for target in COUNTERS {
        let line = format!("GET {target} HTTP/1.1");
        for (host, fields) in [
            (&*rebound, &[language][..]),
            (&listen[1], &[language, ("Sec-Fetch-Site", "cross-site")]),
            (&listen[1], &[("Origin", "https://evil.example")]),
        ] {
            let answer = ask(admin, &line, host, fields, "");
            assert_eq!(answer.status, 403, "{line} {host} {fields:?}");
            assert!(answer.body.contains("a web page of another site"), "{}", answer.body);
        }
        for (host, fields) in [
            ("metrics.internal", &[("User-Agent", "Prometheus/3.0.0")][..]),
            (&listen[1], &[language]),
            (&listen[1], &[language, ("Sec-Fetch-Site", "none")]),
        ] {
            assert_eq!(ask(admin, &line, host, fields, "").status, 200, "{line} {host} {fields:?}");
        }
    }
}

/// As many as strangers may hold at once (`HTTP_CONNECTIONS_MAX`), and some more.
const STRANGERS: usize = 256 + 8;

#[test]
fn a_stranger_whose_body_does_not_come_holds_no_place() {
    let admin = free_addr().to_string();
    let server = server_with_secret(&["--admin.listen", &admin]);
    let addr = server.addr();
    let fields = "Host: push.example.com\r\nContent-Type: application/json\r\n";
    let body =
        ["Content-Length: 9\r\n", "Transfer-Encoding: chunked\r\n", "Expect: 100-continue\r\nContent-Length: 9\r\n"];
    let mut strangers = Vec::new();
    for at in 0..STRANGERS {
        let mut stranger = RawConn::connect(&addr);
        stranger.send(format!("POST /console/token HTTP/1.1\r\n{fields}{}\r\n", body[at % body.len()]).as_bytes());
        assert_eq!(status_of(&stranger.read_head()), 403, "{at}");
        strangers.push(stranger);
    }
    for (line, status) in [
        ("GET / HTTP/1.1", 200),
        ("POST / HTTP/1.1", 405),
        ("OPTIONS * HTTP/1.1", 200),
        ("GET /console/tokens HTTP/1.1", 200),
        ("PUT /ws HTTP/1.1", 405),
        ("GET /metrics HTTP/1.1", 401),
        ("POST /nowhere HTTP/1.1", 404),
        ("POST /health/live HTTP/1.1", 405),
    ] {
        let answer = http_ask(&addr, &format!("{line}\r\n{fields}{}\r\n", body[0]));
        assert_eq!(answer.status, status, "{line}: its answer waits for no body");
    }
    drop(strangers);
}

#[test]
fn the_console_sends_its_body_in_time_or_not_at_all() {
    let server = server_with_secret(&[]);
    let addr = server.addr();
    let head = format!(
        "POST /console/token HTTP/1.1\r\nHost: {addr}\r\nOrigin: http://{addr}\r\nX-Fanfare-Console: 1\r\n\
         Content-Type: application/json\r\nContent-Length: 15\r\n\r\n"
    );
    assert_eq!(http_ask(&addr, &head).status, 408);
    assert_eq!(http_ask(&addr, &format!("{head}{{\"sub\":\"alice\"}}")).status, 200);
}

#[test]
fn strangers_do_not_take_the_places_of_the_operator() {
    let (public, admin) = (free_addr(), free_addr());
    let listen = [public, admin].map(|addr| addr.to_string());
    let server = Server::start(&["--listen", &listen[0], "--admin.listen", &listen[1], "--tcp.send_buffer", "4KiB"]);
    // They ask for the console and do not read it.
    let mut strangers: Vec<RawConn> = (0..STRANGERS)
        .map(|_| {
            let mut stranger = RawConn::narrow(&public, 2_048);
            stranger.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n");
            stranger
        })
        .collect();
    for stranger in &mut strangers {
        assert!([200, 503].contains(&status_of(&stranger.read_head())));
    }
    for target in COUNTERS {
        assert_eq!(get(admin, target, &[]).status, 200, "{target}");
    }
    drop((strangers, server));
}

/// Asks for a token as the console does, with other fields in place of its own.
fn ask_for_token(addr: SocketAddr, host: &str, others: &[(&str, &str)], body: &str) -> HttpAnswer {
    let origin = format!("http://{addr}");
    let own = [
        ("Origin", origin.as_str()),
        ("Sec-Fetch-Site", "same-origin"),
        ("X-Fanfare-Console", "1"),
        ("Content-Type", "application/json"),
    ];
    let kept = own.iter().filter(|(name, _)| others.iter().all(|(other, _)| other != name));
    let fields: Vec<(&str, &str)> = kept.chain(others).copied().filter(|(_, value)| !value.is_empty()).collect();
    ask(addr, "POST /console/token HTTP/1.1", host, &fields, body)
}

fn how_tokens_come(addr: SocketAddr, host: &str) -> Value {
    let answer = ask(addr, "GET /console/tokens HTTP/1.1", host, &[], "");
    serde_json::from_str::<Value>(&answer.body).expect("it is JSON")["tokens"].clone()
}

#[test]
fn the_console_gets_a_token_that_allows_everything() {
    let server = server_with_secret(&[]);
    let addr = server.addr();
    let host = addr.to_string();
    assert_eq!(how_tokens_come(addr, &host), "made");
    let answer = ask_for_token(addr, &host, &[], r#"{"sub":"alice"}"#);
    assert_eq!((answer.status, header_of(&answer.head, "cache-control")), (200, Some("no-store")), "{}", answer.body);
    let token =
        serde_json::from_str::<Value>(&answer.body).expect("it is JSON")["token"].as_str().expect("one").to_owned();
    let mut alice = Client::greeted(&server, &format!("/ws?token={token}"));
    assert_eq!(alice.user_id(), "alice");
    alice.join("den");
    for command in [
        json!({"type": "room_msg", "roomId": "den", "content": 1, "id": 1}),
        json!({"type": "private_msg", "toUser": "bob", "content": 1, "id": 2}),
        json!({"type": "broadcast", "content": 1, "id": 3}),
        json!({"type": "refresh", "token": token, "id": 4}),
    ] {
        alice.send(&command);
        let reply = alice.expect(|json| json["id"] == command["id"]);
        assert_eq!(reply["type"], "ack", "{command} {reply}");
    }
    drop(RawConn::upgrade(&server, &format!("/raw/den?token={token}")));
    assert!(!server.log().contains(&token));
}

#[test]
fn nobody_else_gets_a_token_of_the_console() {
    let server = server_with_secret(&[]);
    let addr = server.addr();
    let host = addr.to_string();
    let body = r#"{"sub":"alice"}"#;
    for (name, value) in [
        ("Origin", "https://evil.example"),
        ("Origin", "http://127.0.0.1:1"),
        ("Origin", "null"),
        ("Sec-Fetch-Site", "cross-site"),
        ("Sec-Fetch-Site", "same-site"),
        ("X-Fanfare-Console", ""),
        ("Content-Type", "text/plain"),
        ("X-Forwarded-For", "127.0.0.1"),
        ("Forwarded", "for=127.0.0.1"),
    ] {
        let answer = ask_for_token(addr, &host, &[(name, value)], body);
        assert_eq!(answer.status, 403, "{name}: {value}");
        assert!(header_of(&answer.head, "access-control-allow-origin").is_none(), "{}", answer.head);
    }
    let origin = format!("http://evil.example:{}", addr.port());
    let rebound = ask_for_token(addr, &origin["http://".len()..], &[("Origin", &origin)], body);
    assert_eq!(rebound.status, 403, "a name that leads here is not this machine's");
    // What a browser asks before it lets a page of another site send such a field.
    let asked = ask(addr, "OPTIONS /console/token HTTP/1.1", &host, &[("Origin", "https://evil.example")], "");
    assert!(header_of(&asked.head, "access-control-allow-origin").is_none(), "{}", asked.head);
    assert_eq!(get(addr, "/console/token", &[]).status, 405);
    for body in ["", "{}", "{\"sub\":7}", "{\"sub\":\"\"}", "[", &format!("{{\"sub\":\"{}\"}}", "x".repeat(129))] {
        assert_eq!(ask_for_token(addr, &host, &[], body).status, 400, "{body}");
    }
    let long = format!("{{\"sub\":\"{}\"}}", "x".repeat(2_000));
    assert_eq!(ask_for_token(addr, &host, &[], &long).status, 413);
    let body = r#"{"sub":"alice"}"#;
    let strict = server_with_secret(&["--admin.loopback", "false"]);
    let open = Server::start(&[]);
    let anonymous = server_with_secret(&["--auth.anonymous"]);
    let answer = ask(anonymous.addr(), "GET /console/tokens HTTP/1.1", "push.example.com", &[], "");
    let answer: Value = serde_json::from_str(&answer.body).expect("it is JSON");
    assert_eq!(answer, json!({"tokens": "asked", "required": false}));
    for (server, how) in [(&strict, "asked"), (&open, "none")] {
        let addr = server.addr();
        assert_eq!(how_tokens_come(addr, &addr.to_string()), how);
        assert_eq!(ask_for_token(addr, &addr.to_string(), &[], body).status, 403);
    }
    assert_eq!(how_tokens_come(addr, "push.example.com"), "asked");
}
