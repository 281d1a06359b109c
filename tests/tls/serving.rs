//! What is served over TLS, and how.

use std::process::Command;

use fanfare_testing::{Certificates, Client, Server, eventually, free_addr};
use rustls::version::{TLS12, TLS13};
use serde_json::json;

use super::peers::{Secured, said};

const REQUEST: &str = "GET /health/live HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n";

pub fn both_versions_serve_pages_and_upgrades(reactors: usize) {
    let secured = Secured::start(reactors, &[]);
    for (version, option) in [(&TLS12, "-tls1_2"), (&TLS13, "-tls1_3")] {
        let page = said(&secured.openssl(&[option, "-quiet", "-ign_eof"], REQUEST));
        assert!(page.contains("HTTP/1.1 200 OK") && page.contains("live\n"), "{page}");
        let mut client = secured.open(secured.config(version), "/?userId=alice");
        client.take_welcome();
        client.join("den");
        assert_eq!(client.request(json!({ "type": "ping" }))["type"], "pong");
        client.leave();
    }
}

pub fn older_versions_and_weak_ciphers_are_refused(reactors: usize) {
    let secured = Secured::start(reactors, &[]);
    let weak = "DEFAULT:@SECLEVEL=0";
    for options in [
        &["-tls1", "-cipher", weak][..],
        &["-tls1_1", "-cipher", weak],
        &["-tls1_2", "-cipher", "AES128-SHA:AES256-SHA:@SECLEVEL=0"],
        &["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-SHA:@SECLEVEL=0"],
        &["-tls1_2", "-cipher", "aNULL:eNULL:@SECLEVEL=0"],
    ] {
        let output = secured.openssl(options, "");
        assert!(!output.status.success(), "{options:?}: {}", said(&output));
    }
    assert!(secured.openssl(&["-tls1_2"], "").status.success(), "and the server is there");
    // What TLS 1.2 lets clients ask for in the middle is not done (RFC 5746): `R` asks for it.
    let output = secured.openssl(&["-tls1_2"], "R\n");
    assert!(said(&output).contains("RENEGOTIATING"), "{}", said(&output));
    assert!(secured.openssl(&["-tls1_2"], "").status.success(), "and the server is there");
}

pub fn a_ticket_resumes_a_session(reactors: usize) {
    let secured = Secured::start(reactors, &[]);
    let kept = secured.certificates.path("session");
    for option in ["-tls1_2", "-tls1_3"] {
        let first = said(&secured.openssl(&[option, "-sess_out", &kept, "-ign_eof"], REQUEST));
        assert!(first.contains("New, TLSv1"), "{first}");
        let second = said(&secured.openssl(&[option, "-sess_in", &kept, "-ign_eof"], REQUEST));
        assert!(second.contains("Reused, TLSv1"), "{second}");
    }
    // Each question is a handshake with a signature, which may be counted a moment later.
    let mut asked = 0;
    eventually("all handshakes are counted", || {
        asked += 1;
        let (full, resumed) = handshakes(&secured);
        assert!(full <= 2 + asked && resumed <= 2, "{full} with a signature, {resumed} by a ticket");
        full >= 2 && resumed == 2
    });
}

/// Those with a signature, and those by a ticket.
fn handshakes(secured: &Secured) -> (u64, u64) {
    let page = secured.page("/stats");
    let stats = page.lines().find(|line| line.starts_with('{')).expect("statistics");
    let stats: serde_json::Value = serde_json::from_str(stats).expect("JSON");
    let sum = |name: &str| -> u64 {
        let reactors = stats["reactors"].as_array().expect("a list");
        reactors.iter().map(|reactor| reactor[name].as_u64().expect("a number")).sum()
    };
    (sum("tls_full"), sum("tls_resumed"))
}

pub fn http_2_or_1_1_is_what_is_spoken_behind_it(reactors: usize) {
    let secured = Secured::start(reactors, &[]);
    for (offered, agreed) in [
        ("h2,http/1.1", "h2"),
        ("http/1.1,h2", "h2"),
        ("h2", "h2"),
        ("http/1.1", "http/1.1"),
        ("x,http/1.1", "http/1.1"),
    ] {
        let said = said(&secured.openssl(&["-alpn", offered], ""));
        assert!(said.contains(&format!("ALPN protocol: {agreed}\n")), "{offered}: {said}");
    }
    let refused = secured.openssl(&["-alpn", "h3"], "");
    assert!(!refused.status.success(), "{}", said(&refused));
}

pub fn pages_and_health_are_served_on_the_same_port(reactors: usize) {
    let secured = Secured::start(reactors, &[]);
    let ca = secured.certificates.path("ca.pem");
    for (path, expected) in [("/health/ready", "ready"), ("/", "<!doctype html>"), ("/nothing", "nothing here")] {
        let url = format!("https://{}{path}", secured.server.addr());
        let curl = Command::new("curl").args(["--silent", "--show-error", "--cacert", &ca, &url]).output();
        let page = said(&curl.expect("curl starts: apt-get install curl"));
        assert!(page.to_lowercase().contains(expected), "{path}: {page}");
    }
    assert_eq!(secured.server.listeners(), [format!("https://{}/", secured.server.addr())]);
}

pub fn one_port_may_be_plain_and_another_not(reactors: usize) {
    let certificates = Certificates::make();
    let (plain, secured) = (free_addr().to_string(), free_addr().to_string());
    let entry = format!(
        "address={secured},certificate={},key={}",
        certificates.path("server.pem"),
        certificates.path("server.key")
    );
    let server = Server::with_reactors(reactors, &["--listen", &plain, "--listener", &entry]);
    let mut alice = Client::connect(&server, "alice");
    alice.join("den");
    assert_eq!(server.listeners(), [format!("http://{plain}/"), format!("https://{secured}/")]);
    let way = fanfare_testing::TlsTunnel::to(secured.parse().expect("an address"), &certificates);
    let mut bob = Client::connect(&way.addr(), "bob");
    bob.join("den");
    bob.publish(json!({ "type": "room_msg", "roomId": "den", "content": 7 }));
    assert_eq!(alice.expect_type("room_msg")["content"], 7);
}
