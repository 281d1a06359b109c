//! The HTTP API over HTTP/2 and TLS, with curl.

use std::io::Write;
use std::process::{Command, Stdio};

use fanfare_testing::{ApiKey, Certificates, Client, Server, TlsTunnel};
use serde_json::{Value, json};

use super::{publisher, server};

/// A server with TLS that knows this key, and its certificates.
fn secured(reactors: usize, key: &ApiKey) -> (Certificates, Server) {
    let certificates = Certificates::make();
    let (certificate, secret) = (certificates.path("server.pem"), certificates.path("server.key"));
    let server = server(reactors, &[key], &["--tls.certificate", &certificate, "--tls.key", &secret]);
    (certificates, server)
}

/// What curl is answered to a POST over HTTP/2: the status, and the body.
#[track_caller]
fn post(
    server: &Server,
    certificates: &Certificates,
    key: &str,
    target: &str,
    media: &str,
    body: &str,
) -> (u64, Value) {
    // Without a body there is none to be sent when the answer is there already, which curl 7.88 takes for a failure.
    let sent: &[&str] = if body.is_empty() { &["--request", "POST"] } else { &["--data-binary", "@-"] };
    let mut curl = Command::new("curl")
        .args(["--silent", "--show-error", "--http2", "--cacert", &certificates.path("ca.pem")])
        .args(sent)
        .args(["--header", &format!("Content-Type: {media}"), "--header", &format!("Authorization: Bearer {key}")])
        .args(["--write-out", "\n%{response_code} %{http_version}", &format!("https://{}{target}", server.addr())])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("curl starts: apt-get install curl");
    curl.stdin.take().expect("it is piped").write_all(body.as_bytes()).expect("curl takes it");
    let output = curl.wait_with_output().expect("curl ends");
    assert!(output.status.success(), "{}", output.status);
    let said = String::from_utf8(output.stdout).expect("an answer is text");
    let (answer, outcome) = said.rsplit_once('\n').expect("curl writes what came out");
    let (status, version) = outcome.split_once(' ').expect("a status and a version");
    assert_eq!(version, "2");
    (status.parse().expect("a status"), serde_json::from_str(answer).unwrap_or_else(|_| json!(answer)))
}

pub(super) fn messages_and_batches_go_over_http_2_and_tls(reactors: usize) {
    let key = publisher();
    let (certificates, server) = secured(reactors, &key);
    let way = TlsTunnel::to(server.addr(), &certificates).addr();
    let mut alice = Client::connect(&way, "alice");
    alice.join("den");
    let ask = |target: &str, media: &str, body: &str| post(&server, &certificates, key.secret(), target, media, body);
    let one = r#"{"roomId":"den","content":"one"}"#;
    assert_eq!(ask("/api/v1/publish", "application/json", one), (200, json!({})));
    assert_eq!(alice.expect_type("room_msg")["content"], "one");
    // Larger than the window that a stream of HTTP/2 begins with: it goes on as the server reads.
    let content = "x".repeat(30_000);
    let line = json!({"publish": {"roomId": "den", "content": content}}).to_string() + "\n";
    let (status, answer) = ask("/api/v1/batch", "application/x-ndjson", &line.repeat(10));
    assert_eq!((status, answer["results"].as_array().map(Vec::len)), (200, Some(10)), "{answer}");
    for _ in 0..10 {
        assert_eq!(alice.expect_type("room_msg")["content"], content);
    }
}

pub(super) fn what_is_refused_over_http_2_is_refused_in_the_same_words(reactors: usize) {
    let key = publisher();
    let (certificates, server) = secured(reactors, &key);
    let another = "another-key-of-more-than-32-bytes-in-all";
    for (secret, target, media, body, status, code) in [
        (another, "/api/v1/publish", "application/json", "", 401, "unauthorized"),
        (key.secret(), "/api/v1/nothing", "application/json", "", 404, "not_found"),
        (key.secret(), "/api/v1/publish", "text/plain", "", 415, "unsupported_media_type"),
        (key.secret(), "/api/v1/publish", "application/json", "[]", 400, "bad_json"),
    ] {
        let (found, answer) = post(&server, &certificates, secret, target, media, body);
        assert_eq!((found, &answer["error"]["code"]), (status, &json!(code)), "{target} {answer}");
    }
}
