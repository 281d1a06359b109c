//! HTTP/2, with curl.

use std::process::Command;

use fanfare_testing::{Certificates, Client, Server, TlsTunnel};

/// What curl says of these URLs, asked for on one connection if they can be: of each its status, its version of HTTP, and
/// how many connections were made for it.
#[track_caller]
fn curl(options: &[&str], urls: &[String]) -> Vec<String> {
    let output = Command::new("curl")
        .args(["--silent", "--show-error", "--output", "/dev/null", "--write-out"])
        .arg("%{response_code} %{http_version} %{num_connects}\n")
        .args(options)
        .args(urls.iter().flat_map(|url| [url.as_str(), "--output", "/dev/null"]))
        .output()
        .expect("curl starts: apt-get install curl");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
}

fn urls(base: &str, paths: &[&str]) -> Vec<String> {
    paths.iter().map(|path| format!("{base}{path}")).collect()
}

pub fn curl_asks_as_it_likes(reactors: usize) {
    let server = Server::with_reactors(reactors, &[]);
    let base = format!("http://{}", server.addr());
    let paths = ["/", "/health/live", "/nothing", "/metrics", "/ws"];
    let statuses = [200, 200, 404, 200, 426];
    // One at a time: curl 7.88 uses no connection twice that began with the preface.
    for (url, status) in urls(&base, &paths).into_iter().zip(statuses) {
        assert_eq!(curl(&["--http2-prior-knowledge"], &[url]), [format!("{status} 2 1")]);
    }
    let said = curl(&["--http1.1"], &urls(&base, &["/", "/nothing", "/"]));
    assert_eq!(said, ["200 1.1 1", "404 1.1 0", "200 1.1 0"]);
    // Without knowing, it asks for an upgrade of HTTP, which may be passed over (RFC 9110 §7.8).
    let said = curl(&["--http2"], &urls(&base, &["/", "/"]));
    assert_eq!(said, ["200 1.1 1", "200 1.1 0"]);
}

pub fn tls_agrees_on_the_first_that_both_speak(reactors: usize) {
    let certificates = Certificates::make();
    let (certificate, key) = (certificates.path("server.pem"), certificates.path("server.key"));
    let server = Server::with_reactors(reactors, &["--tls.certificate", &certificate, "--tls.key", &key]);
    let base = format!("https://{}", server.addr());
    let ca = certificates.path("ca.pem");
    let paths = urls(&base, &["/", "/stats", "/nothing"]);
    for (option, version) in [("--http2", "2"), ("--http1.1", "1.1"), ("--no-alpn", "1.1")] {
        let expected: Vec<String> =
            [(200, 1), (200, 0), (404, 0)].map(|(status, connects)| format!("{status} {version} {connects}")).to_vec();
        assert_eq!(curl(&["--cacert", &ca, option], &paths), expected, "{option}");
    }
    // Who says nothing of it speaks HTTP/1.1, as clients of WebSocket do.
    let way = TlsTunnel::to(server.addr(), &certificates).addr();
    Client::connect(&way, "alice").leave();
}

pub fn what_is_for_loopback_is_for_loopback(reactors: usize) {
    let server = Server::with_reactors(reactors, &[]);
    let (addr, port) = (server.addr(), server.addr().port());
    let stats = urls(&format!("http://{addr}"), &["/stats"]);
    let known = "--http2-prior-knowledge";
    assert_eq!(curl(&[known], &stats), ["200 2 1"]);
    for field in ["Host: push.example.com", "X-Forwarded-For: 127.0.0.1", "Via: 2 x"] {
        assert_eq!(curl(&[known, "--header", field], &stats), ["401 2 1"], "{field}");
    }
    let named = urls(&format!("http://evil.example:{port}"), &["/stats"]);
    let resolved = format!("evil.example:{port}:127.0.0.1");
    assert_eq!(curl(&[known, "--resolve", &resolved], &named), ["401 2 1"]);
}

pub fn a_websocket_is_told_to_speak_http_1_1(reactors: usize) {
    let server = Server::with_reactors(reactors, &[]);
    for url in urls(&format!("http://{}", server.addr()), &["/ws", "/raw/den"]) {
        assert_eq!(curl(&["--http2-prior-knowledge"], &[url]), ["426 2 1"]);
    }
}
