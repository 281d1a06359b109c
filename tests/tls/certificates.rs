//! Which certificate a client is shown, and whom its own names.

use std::io::{Read, Write};
use std::net::TcpListener;

use fanfare_testing::{Certificates, Client, Server, Signal, eventually};
use rustls::version::TLS13;

use super::peers::{Secured, said};

pub fn the_name_asked_for_chooses_the_certificate(reactors: usize) {
    let certificates = Certificates::make();
    certificates.sign("chat", "/CN=chat", "DNS:chat.example");
    certificates.sign("wild", "/CN=wild", "DNS:*.wild.example,DNS:wild.example");
    let files =
        |kind: &str| ["server", "chat", "wild"].map(|name| certificates.path(&format!("{name}.{kind}"))).join(",");
    let (chains, keys) = (files("pem"), files("key"));
    let server = Server::with_reactors(reactors, &["--tls.certificate", &chains, "--tls.key", &keys]);
    let secured = Secured { server, certificates };
    for (name, subject) in [
        ("chat.example", "CN = chat"),
        ("a.wild.example", "CN = wild"),
        ("wild.example", "CN = wild"),
        ("other.example", "CN = server"),
    ] {
        let shown = said(&secured.openssl(&["-servername", name], ""));
        assert!(shown.contains(&format!("subject={subject}")), "{name}: {shown}");
    }
    assert!(said(&secured.openssl(&["-noservername"], "")).contains("subject=CN = server"));
}

/// Settings under which clients show a certificate of the server's own authority.
fn asking<'a>(ca: &'a str, how: &'a str) -> [&'a str; 4] {
    ["--tls.client_ca", ca, "--tls.client_certificates", how]
}

fn with_clients() -> (Certificates, String) {
    let certificates = Certificates::make();
    certificates.sign("alice", "/CN=alice", "");
    certificates.sign("nobody", "/O=nobody in particular", "");
    let ca = certificates.path("ca.pem");
    (certificates, ca)
}

pub fn a_client_certificate_is_its_user(reactors: usize) {
    let (certificates, ca) = with_clients();
    let secured = Secured::with(certificates, reactors, &asking(&ca, "optional"));
    let user = |mut client: Client| {
        client.take_welcome();
        client.user_id().to_owned()
    };
    assert_eq!(user(secured.open(secured.certified("alice"), "/?userId=bob")), "alice", "whatever it says itself");
    assert_eq!(user(secured.open(secured.config(&TLS13), "/?userId=bob")), "bob");
    let rejection =
        secured.try_open(secured.certified("nobody"), "/?userId=bob").err().expect("a subject without a name");
    assert_eq!(rejection.status, 403, "who shows a certificate is not believed another name");
}

pub fn who_has_to_have_a_certificate_does_not_get_in_without(reactors: usize) {
    let (certificates, ca) = with_clients();
    let secured = Secured::with(certificates, reactors, &asking(&ca, "required"));
    let mut client = secured.open(secured.certified("alice"), "/");
    client.take_welcome();
    assert_eq!(client.user_id(), "alice");
    let output = secured.openssl(&["-quiet", "-ign_eof"], "GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(!said(&output).contains("HTTP/1.1 200"), "{}", said(&output));
    let strangers = Certificates::make();
    strangers.sign("alice", "/CN=alice", "");
    let (certificate, key) = (strangers.path("alice.pem"), strangers.path("alice.key"));
    let output =
        secured.openssl(&["-cert", &certificate, "-key", &key, "-quiet", "-ign_eof"], "GET / HTTP/1.1\r\n\r\n");
    assert!(!said(&output).contains("HTTP/1.1"), "{}", said(&output));
}

pub fn a_certificate_gets_in_where_tokens_are_asked_for(reactors: usize) {
    let (certificates, ca) = with_clients();
    let config = certificates.path("keys.toml");
    std::fs::write(
        &config,
        "[[auth.key]]\nalg = \"HS256\"\nsecret = \"0123456789abcdef0123456789abcdef\"\n[auth.default]\njoin = [\"den\"]\n",
    )
    .expect("a file of our own");
    let secured =
        Secured::with(certificates, reactors, &[&asking(&ca, "optional")[..], &["--config", &config]].concat());
    let mut alice = secured.open(secured.certified("alice"), "/");
    alice.take_welcome();
    assert_eq!(alice.user_id(), "alice");
    alice.join("den");
    let refused = alice.request(serde_json::json!({ "type": "join_room", "roomId": "other" }));
    assert_eq!(refused["code"], "forbidden", "auth.default says what it may do");
    let rejection = secured.try_open(secured.config(&TLS13), "/").err().expect("no certificate and no token");
    assert_eq!(rejection.status, 401);
    let rejection = secured.try_open(secured.certified("alice"), "/?token=x").err().expect("a token that is none");
    assert_eq!(rejection.status, 401, "a bad token is not made good by a certificate");
}

/// A backend that names a client after what it was asked about it, as `USER-of-us`; its URL.
fn naming_backend() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let addr = listener.local_addr().expect("it is bound");
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut asked = Vec::new();
            // The question is an object, and nothing stands behind it.
            while !asked.ends_with(b"}") {
                let mut bytes = [0; 1024];
                let count = stream.read(&mut bytes).expect("a question");
                asked.extend_from_slice(&bytes[..count]);
            }
            let asked = String::from_utf8(asked).expect("a question is UTF-8");
            let (_, body) = asked.split_once("\r\n\r\n").expect("a body stands behind the head");
            let question: serde_json::Value = serde_json::from_str(body).expect("JSON");
            let user = format!("{}-of-us", question["certificate_user"].as_str().unwrap_or("nobody"));
            let answer = serde_json::json!({ "user": user }).to_string();
            let head = format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", answer.len());
            stream.write_all((head + &answer).as_bytes()).expect("it reads the answer");
        }
    });
    format!("http://{addr}/connect")
}

pub fn the_backend_is_told_whose_certificate_it_is(reactors: usize) {
    let (certificates, ca) = with_clients();
    let url = naming_backend();
    let settings = [&asking(&ca, "optional")[..], &["--auth.connect_url", &url]].concat();
    let secured = Secured::with(certificates, reactors, &settings);
    let user = |mut client: Client| {
        client.take_welcome();
        client.user_id().to_owned()
    };
    assert_eq!(user(secured.open(secured.certified("alice"), "/")), "alice-of-us", "its answer counts");
    assert_eq!(user(secured.open(secured.config(&TLS13), "/")), "nobody-of-us");
}

pub fn a_reload_shows_new_certificates_and_drops_nobody(reactors: usize) {
    let secured = Secured::start(reactors, &[]);
    let mut before = secured.open(secured.config(&TLS13), "/?userId=alice");
    before.take_welcome();
    before.join("den");
    let shows = |name: &str| said(&secured.openssl(&[], "")).contains(&format!("subject=CN = {name}"));
    assert!(shows("server"));
    secured.certificates.sign("server", "/CN=renewed", "IP:127.0.0.1");
    assert!(shows("server"), "files are read when that is asked for");
    secured.server.signal(Signal::HUP);
    eventually("the new certificate is shown", || shows("renewed"));
    std::fs::write(secured.certificates.path("server.key"), "no key").expect("a file of our own");
    secured.server.signal(Signal::HUP);
    eventually("the fault is told", || {
        secured.server.log().contains("cannot read the certificates again: the ones before stay")
    });
    assert!(shows("renewed"));
    let mut behind = secured.open(secured.config(&TLS13), "/?userId=bob");
    behind.take_welcome();
    behind.join("den");
    behind.publish(serde_json::json!({ "type": "room_msg", "roomId": "den", "content": 7 }));
    assert_eq!(before.expect_type("room_msg")["content"], 7, "who was connected is connected");
}
