//! SIGHUP has keys read again from the same files.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use fanfare_testing::raw::{RawConn, status_of, upgrade_request};
use fanfare_testing::{Client, Server, Signal, eventually, hears_hangups, http_ask, temporary_path};
use serde_json::{Value, json};

use super::service::{Reply, Service};
use super::tokens::{NamedKey, now_s, sign_hs256};

/// A file with a key, removed when dropped.
struct KeyFile(PathBuf);

impl KeyFile {
    fn new(contents: &str) -> KeyFile {
        let file = KeyFile(temporary_path("key"));
        file.write(contents);
        file
    }

    fn write(&self, contents: &str) {
        fs::write(&self.0, contents).unwrap();
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for KeyFile {
    fn drop(&mut self) {
        // A test has removed it, or not.
        let _ = fs::remove_file(Path::new(&self.0));
    }
}

fn start(reactors: usize, settings: &[&str]) -> Server {
    let reactors = reactors.to_string();
    Server::changed(hears_hangups, &[&["--reactors", &reactors], settings].concat())
}

/// Sends the signal and waits until this line came once more.
fn reload(server: &Server, line: &str) {
    let before = server.log().matches(line).count();
    server.signal(Signal::HUP);
    eventually("the files are read", || server.log().matches(line).count() > before);
}

fn status(server: &Server, token: &str) -> u16 {
    let mut conn = RawConn::connect(server);
    conn.send(upgrade_request(&format!("/?token={token}"), &[]).as_bytes());
    status_of(&conn.read_head())
}

fn claims() -> Value {
    json!({"sub": "alice", "exp": now_s() + 3_600})
}

const READ: &str = "read the keys for tokens again";
const NOT_READ: &str = "cannot read the keys for tokens again";

pub fn other_keys_take_the_place_of_those_before(reactors: usize) {
    let secrets = ["the first secret, of at least 32 bytes", "the second one, which has 32 bytes and more"];
    let pems = [NamedKey::new(None), NamedKey::new(None)];
    let sets = [NamedKey::new(Some("a")), NamedKey::new(Some("b"))];
    let set = |key: &NamedKey| json!({ "keys": [key.jwk()] }).to_string();
    let (secret, pem, jwks) = (KeyFile::new(secrets[0]), KeyFile::new(&pems[0].pem()), KeyFile::new(&set(&sets[0])));
    let keys = format!("alg=HS256,secret_file={};alg=ES256,public_key_file={}", secret.path(), pem.path());
    let server = start(reactors, &["--auth.key", &keys, "--auth.jwks_file", jwks.path()]);
    let tokens =
        |at: usize| [sign_hs256(secrets[at].as_bytes(), &claims()), pems[at].sign(&claims()), sets[at].sign(&claims())];
    let statuses = |at: usize| tokens(at).map(|token| status(&server, &token));
    assert_eq!((statuses(0), statuses(1)), ([101; 3], [401; 3]));
    let mut open = Client::greeted(&server, &format!("/?token={}", tokens(0)[0]));
    secret.write(secrets[1]);
    pem.write(&pems[1].pem());
    jwks.write(&set(&sets[1]));
    assert_eq!((statuses(0), statuses(1)), ([101; 3], [401; 3]), "nothing is read by itself");
    reload(&server, READ);
    assert_eq!((statuses(0), statuses(1)), ([401; 3], [101; 3]));
    assert_eq!(open.user_id(), "alice");
    open.barrier();
    let refresh = |token: &str| json!({"type": "refresh", "token": token});
    assert_eq!(open.request(refresh(&tokens(0)[1]))["code"], "unauthorized");
    assert_eq!(open.request(refresh(&tokens(1)[1]))["type"], "ack");
}

pub fn a_fault_leaves_all_keys_as_they_were(reactors: usize) {
    let (first, second) = ("the first secret, of at least 32 bytes", "the second one, which has 32 bytes and more");
    let named = NamedKey::new(Some("a"));
    let (secret, jwks) = (KeyFile::new(first), KeyFile::new(&json!({ "keys": [named.jwk()] }).to_string()));
    let key = format!("alg=HS256,secret_file={}", secret.path());
    let server = start(reactors, &["--auth.key", &key, "--auth.jwks_file", jwks.path()]);
    let old = [sign_hs256(first.as_bytes(), &claims()), named.sign(&claims())];
    let both = || old.clone().map(|token| status(&server, &token));
    secret.write(second);
    for fault in ["no keys: hunter2", "{\"keys\":[]}"] {
        jwks.write(fault);
        reload(&server, NOT_READ);
        assert_eq!(both(), [101; 2]);
        assert_eq!(status(&server, &sign_hs256(second.as_bytes(), &claims())), 401, "all or nothing");
    }
    fs::remove_file(jwks.path()).unwrap();
    reload(&server, NOT_READ);
    assert_eq!(both(), [101; 2]);
    let log = server.log();
    assert!(log.contains(jwks.path()) && !log.contains("hunter2") && !log.contains(second), "{log}");
    jwks.write(&json!({ "keys": [named.jwk()] }).to_string());
    reload(&server, READ);
    assert_eq!(both(), [401, 101]);
}

pub fn a_file_that_hangs_keeps_nobody_from_ending_the_server(reactors: usize) {
    let secret = KeyFile::new("the first secret, of at least 32 bytes");
    let key = format!("alg=HS256,secret_file={}", secret.path());
    let mut server = start(reactors, &["--auth.key", &key]);
    fs::remove_file(secret.path()).unwrap();
    // To open it waits for who writes into it.
    assert!(Command::new("mkfifo").arg(secret.path()).status().unwrap().success());
    for _ in 0..3 {
        server.signal(Signal::HUP);
    }
    eventually("the signal is told of", || server.log().contains("SIGHUP"));
    let token = sign_hs256("the first secret, of at least 32 bytes".as_bytes(), &claims());
    assert_eq!(status(&server, &token), 101);
    server.signal(Signal::TERM);
    assert_eq!(server.wait_exit().code(), Some(0));
}

pub fn keys_of_a_url_stay_where_files_are_read_again(reactors: usize) {
    let (fetched, filed) = (NamedKey::new(Some("fetched")), NamedKey::new(Some("filed")));
    let reply = json!({ "keys": [fetched.jwk()] });
    let service = Service::start(move |_| Reply::Json(200, reply.clone()));
    let jwks = KeyFile::new(&json!({ "keys": [NamedKey::new(Some("other")).jwk()] }).to_string());
    let server = start(reactors, &["--auth.jwks_file", jwks.path(), "--auth.jwks_url", &service.url("/keys")]);
    assert_eq!(status(&server, &fetched.sign(&claims())), 101);
    jwks.write(&json!({ "keys": [filed.jwk()] }).to_string());
    reload(&server, READ);
    assert_eq!(status(&server, &filed.sign(&claims())), 101);
    assert_eq!(status(&server, &fetched.sign(&claims())), 101);
}

pub fn keys_of_programs_are_read_again(reactors: usize) {
    let keys = ["the-first-key-which-has-32-bytes-or-more", "the-second-one-which-has-32-bytes-and-more"];
    let file = KeyFile::new(keys[0]);
    let key = format!("name=monitor,secret_file={},verbs=read", file.path());
    let server = start(reactors, &["--admin.loopback", "false", "--api.key", &key]);
    let statuses = || {
        keys.map(|key| {
            let request = format!("GET /stats HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n\r\n");
            http_ask(&server, &request).status
        })
    };
    assert_eq!(statuses(), [200, 401]);
    file.write(keys[1]);
    assert_eq!(statuses(), [200, 401], "nothing is read by itself");
    reload(&server, "read the keys of programs again");
    assert_eq!(statuses(), [401, 200]);
    file.write("short");
    reload(&server, "cannot read the keys of programs again");
    assert_eq!(statuses(), [401, 200], "a fault changes nothing");
    assert!(keys.iter().all(|key| !server.log().contains(key)), "{}", server.log());
}

pub fn the_console_makes_tokens_with_the_new_secret(reactors: usize) {
    let secret = KeyFile::new("the first secret, of at least 32 bytes");
    let server = start(reactors, &["--auth.key", &format!("alg=HS256,secret_file={}", secret.path())]);
    let made = || {
        let (addr, body) = (server.addr(), json!({"sub": "alice"}).to_string());
        let request = format!(
            "POST /console/token HTTP/1.1\r\nHost: {addr}\r\nX-Fanfare-Console: 1\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let answer = http_ask(&server, &request);
        let body: Value = serde_json::from_str(&answer.body).unwrap_or_else(|_| panic!("{answer:?}"));
        body["token"].as_str().expect("a token").to_owned()
    };
    let old = made();
    assert_eq!(status(&server, &old), 101);
    secret.write("the second one, which has 32 bytes and more");
    reload(&server, READ);
    assert_eq!(status(&server, &old), 401);
    assert_eq!(status(&server, &made()), 101);
}
