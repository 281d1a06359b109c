//! Keys behind a URL: fetched, rotated, and kept whatever the URL does.

use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::{fs, thread};

use fanfare_testing::raw::{RawConn, status_of, upgrade_request};
use fanfare_testing::{Client, Server, eventually, free_addr, metric, temporary_path};
use serde_json::{Value, json};

use super::service::{Reply, Service};
use super::tokens::{Guarded, NamedKey, now_s};

fn claims(user: &str) -> Value {
    json!({"sub": user, "exp": now_s() + 3_600})
}

fn served(keys: &[&NamedKey]) -> Reply {
    Reply::Json(200, json!({ "keys": keys.iter().map(|key| key.jwk()).collect::<Vec<_>>() }))
}

fn with_keys_of(service: &Service, reactors: usize, settings: &[&str]) -> Server {
    let url = service.url("/keys");
    Server::with_reactors(reactors, &[&["--auth.jwks_url", &url], settings].concat())
}

fn status(server: &Server, token: &str) -> u16 {
    let mut conn = RawConn::connect(server);
    conn.send(upgrade_request(&format!("/?token={token}"), &[]).as_bytes());
    status_of(&conn.read_head())
}

/// How often the key set was fetched, by how that ended.
fn fetches(server: &Server, outcome: &str) -> u64 {
    metric(server, &format!("fanfare_key_set_fetches_total{{outcome=\"{outcome}\"}}"))
}

pub fn tokens_are_checked_by_keys_of_the_url(reactors: usize) {
    let (named, nameless, other) = (NamedKey::new(Some("a")), NamedKey::new(None), NamedKey::new(Some("a")));
    let reply = served(&[&named, &nameless]);
    let service = Service::start(move |_| reply.clone());
    let server = with_keys_of(&service, reactors, &[]);
    // At once: a token that is faster than the keys waits for them.
    assert_eq!(status(&server, &named.sign(&claims("alice"))), 101);
    assert_eq!(status(&server, &nameless.sign(&claims("alice"))), 101);
    assert_eq!(status(&server, &other.sign(&claims("alice"))), 401);
    let seen = service.seen();
    assert_eq!((&*seen[0].method, &*seen[0].path, &seen[0].body), ("GET", "/keys", &Value::Null));
    assert!(seen.len() <= 2, "at the start, and for who came before that: {}", seen.len());
    // The keys of the settings hold beside them.
    let guarded = Guarded::start(reactors, &["--auth.jwks_url", &service.url("/keys")]);
    assert_eq!(status(&guarded.server, &guarded.token("bob", json!({}))), 101);
    assert_eq!(status(&guarded.server, &named.sign(&claims("alice"))), 101);
}

pub fn a_new_key_is_known_at_its_first_token(reactors: usize) {
    let (old, new) = (NamedKey::new(Some("old")), NamedKey::new(Some("new")));
    let reply = served(&[&old]);
    let service = Service::start(move |_| reply.clone());
    let server = with_keys_of(&service, reactors, &[]);
    let mut open = Client::greeted(&server, &format!("/?token={}", old.sign(&claims("alice"))));
    let before = service.count();
    let reply = served(&[&new]);
    service.behave(move |_| reply.clone());
    assert_eq!(status(&server, &new.sign(&claims("alice"))), 101);
    assert_eq!(service.count(), before + 1);
    assert_eq!(status(&server, &old.sign(&claims("alice"))), 401, "it is gone");
    // Who is open keeps its identity, and gets along with the new key.
    open.barrier();
    let refresh = |key: &NamedKey| json!({"type": "refresh", "token": key.sign(&claims("alice"))});
    assert_eq!(open.request(refresh(&new))["type"], "ack");
    assert_eq!(open.request(refresh(&old))["code"], "unauthorized");
    assert_eq!(service.count(), before + 1);
}

pub fn a_refresh_waits_for_a_new_key(reactors: usize) {
    let (old, new) = (NamedKey::new(Some("old")), NamedKey::new(Some("new")));
    let reply = served(&[&old]);
    let service = Service::start(move |_| reply.clone());
    let server = with_keys_of(&service, reactors, &[]);
    let mut client = Client::greeted(&server, &format!("/?token={}", old.sign(&claims("alice"))));
    let reply = served(&[&new]);
    service.behave(move |_| reply.clone());
    client.send(&json!({"type": "refresh", "token": new.sign(&claims("alice")), "id": 1}));
    client.send(&json!({"type": "ping", "id": 2}));
    assert_eq!(client.recv_json()["type"], "ack");
    assert_eq!(client.recv_json()["type"], "pong");
}

pub fn made_up_kids_cause_one_fetch(reactors: usize) {
    const MANY: usize = 1_000;
    let key = NamedKey::new(Some("a"));
    let reply = served(&[&key]);
    let service = Service::start(move |_| reply.clone());
    let server = with_keys_of(&service, reactors, &[]);
    eventually("the keys are here", || fetches(&server, "good") == 1);
    let before = std::time::Instant::now();
    let made_up = |number: usize| key.sign_as(&format!("made-up-{number}"), &claims("mallory"));
    for hundred in 0..MANY / 100 {
        let mut conns: Vec<RawConn> = (0..100).map(|_| RawConn::connect(&server)).collect();
        for (at, conn) in conns.iter_mut().enumerate() {
            let target = format!("/?token={}", made_up(hundred * 100 + at));
            conn.send(upgrade_request(&target, &[]).as_bytes());
        }
        for conn in &mut conns {
            assert_eq!(status_of(&conn.read_head()), 401);
        }
    }
    let rests = 1 + before.elapsed().as_secs() as usize / 10;
    assert!(service.count() <= 1 + rests, "{} fetches in {:?}", service.count(), before.elapsed());
    assert_eq!(status(&server, &key.sign(&claims("alice"))), 101);
}

pub fn the_server_starts_without_its_keys_and_learns_them(reactors: usize) {
    let addr = free_addr();
    let key = NamedKey::new(Some("a"));
    let guarded = Guarded::start(reactors, &["--auth.jwks_url", &format!("http://{addr}/keys")]);
    let token = key.sign(&claims("alice"));
    for _ in 0..3 {
        assert_eq!(status(&guarded.server, &token), 503, "whether it is good is not known");
    }
    let mut bob = guarded.connect("bob", json!({}));
    assert_eq!(bob.request(json!({"type": "refresh", "token": token}))["code"], "unavailable");
    assert_eq!(bob.request(json!({"type": "ping"}))["type"], "pong", "other keys hold");
    let reply = served(&[&key]);
    let _service = Service::at(TcpListener::bind(addr).unwrap(), move |_| reply.clone());
    eventually("the keys are fetched again", || fetches(&guarded.server, "good") == 1);
    assert_eq!(status(&guarded.server, &key.sign(&claims("alice"))), 101);
    assert!(guarded.server.log().contains("auth.jwks_url brought no keys"), "{}", guarded.server.log());
}

pub fn the_last_good_keys_stay(reactors: usize) {
    let (old, new) = (NamedKey::new(Some("old")), NamedKey::new(Some("new")));
    let elsewhere_reply = served(&[&new]);
    let elsewhere = Service::start(move |_| elsewhere_reply.clone());
    let redirect = format!("HTTP/1.1 302 Found\r\nLocation: {}\r\nContent-Length: 0\r\n\r\n", elsewhere.url("/keys"));
    let huge = json!({"keys": [new.jwk()], "more": "x".repeat(300_000)});
    let secret = json!({"kty": "oct", "kid": "new", "k": "c2VjcmV0"});
    let faults = [
        (Reply::Silence, "failed"),
        (Reply::Endless, "failed"),
        (Reply::Json(200, huge), "failed"),
        (Reply::Json(500, json!({"keys": [new.jwk()]})), "failed"),
        (Reply::Bytes(redirect.into_bytes()), "failed"),
        (Reply::Bytes(Vec::new()), "failed"),
        (Reply::Json(200, json!({"keys": []})), "unusable"),
        (Reply::Json(200, json!({"keys": [secret]})), "unusable"),
        (Reply::Json(200, json!(["no", "keys"])), "unusable"),
        (Reply::Bytes(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n<html>".to_vec()), "unusable"),
    ];
    let run = |fault: Reply, outcome: &str| {
        let reply = served(&[&old]);
        let service = Service::start(move |_| reply.clone());
        let server = with_keys_of(&service, reactors, &["--auth.url_timeout", "500ms"]);
        assert_eq!(status(&server, &old.sign(&claims("alice"))), 101);
        let told = format!("{fault:.80?}");
        service.behave(move |_| fault.clone());
        // It has the set fetched, and waits for that; the second one finds that it rests.
        for _ in 0..2 {
            assert_eq!(status(&server, &new.sign(&claims("alice"))), 503, "{told}");
        }
        assert!(fetches(&server, outcome) >= 1, "{told}");
        assert_eq!(status(&server, &old.sign(&claims("alice"))), 101, "{told}");
    };
    thread::scope(|scope| {
        for (fault, outcome) in faults {
            scope.spawn(|| run(fault, outcome));
        }
    });
    assert_eq!(elsewhere.count(), 0, "redirects are not followed");
}

pub fn a_token_waits_for_its_key_no_longer_than_its_handshake(reactors: usize) {
    let key = NamedKey::new(Some("a"));
    let service = Service::start(|_| Reply::Silence);
    let settings = ["--limits.handshake_timeout", "300ms", "--auth.url_timeout", "1m"];
    let server = with_keys_of(&service, reactors, &settings);
    assert_eq!(status(&server, &key.sign(&claims("alice"))), 503);
}

pub fn an_encrypted_url_is_believed_by_its_certificate_alone(reactors: usize) {
    let key = NamedKey::new(Some("a"));
    let folder = temporary_path("tls");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("keys"), json!({ "keys": [key.jwk()] }).to_string()).unwrap();
    let openssl = |words: &[&str]| {
        let mut command = Command::new("openssl");
        command.args(words).current_dir(&folder).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    };
    let ec = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"];
    let own = ["req", "-x509", "-keyout", "key.pem", "-out", "cert.pem", "-subj", "/CN=127.0.0.1"];
    let names = ["-addext", "subjectAltName=IP:127.0.0.1", "-addext", "basicConstraints=critical,CA:FALSE"];
    assert!(openssl(&[&own, &ec[..], &names].concat()).status().unwrap().success());
    let addr = free_addr();
    let port = addr.port().to_string();
    let serve = ["s_server", "-accept", &port, "-cert", "cert.pem", "-key", "key.pem", "-HTTP", "-quiet"];
    fs::write(
        folder.join("answer"),
        format!("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{}", json!({ "keys": [key.jwk()] })),
    )
    .unwrap();
    let mut service = openssl(&serve).spawn().unwrap();
    eventually("openssl listens", || std::net::TcpStream::connect(addr).is_ok());
    let (url, ca) = (format!("https://{addr}/answer"), folder.join("cert.pem"));
    let settings = ["--auth.jwks_url", &url, "--auth.url_ca", ca.to_str().unwrap()];
    let server = Server::with_reactors(reactors, &settings);
    let by_system = Server::with_reactors(reactors, &["--auth.jwks_url", &url]);
    eventually("the keys are fetched", || fetches(&server, "good") >= 1);
    assert_eq!(status(&server, &key.sign(&claims("alice"))), 101);
    eventually("the other one has tried", || fetches(&by_system, "failed") >= 1);
    assert_eq!(status(&by_system, &key.sign(&claims("alice"))), 503);
    service.kill().unwrap();
    service.wait().unwrap();
    fs::remove_dir_all(&folder).unwrap();
}
