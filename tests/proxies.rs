//! A real nginx in front of the built server: one that passes on no upgrade, and one that puts it under a path of its own.
//! The console behind it is looked at in `interop`.

use std::fs;

use fanfare_testing::nginx::Nginx;
use fanfare_testing::raw::{RawConn, header_of, status_of, upgrade_request};
use fanfare_testing::{Client, Server, http_ask, http_get, temporary_path};
use serde_json::{Value, json};

/// What nginx does where nobody has told it of WebSocket: the key comes through, the upgrade does not.
#[test]
fn an_upgrade_that_nginx_drops_is_told_of() {
    let server = Server::start(&[]);
    let nginx = Nginx::before(&server);
    for target in ["/", "/ws?userId=alice", "/raw/den", "/nope"] {
        let mut conn = RawConn::connect(&nginx.addr());
        conn.send(upgrade_request(target, &[]).as_bytes());
        let head = conn.read_head();
        assert_eq!(status_of(&head), 426, "{target}: {head}");
        let length = header_of(&head, "Content-Length").expect("a length").parse().expect("a number");
        let body = String::from_utf8(conn.read_bytes(length)).expect("text");
        assert!(body.contains("have the proxy in between"), "{body}");
    }
    for (target, status) in [("/", 200), ("/health/live", 200), ("/ws", 426), ("/nope", 404)] {
        assert_eq!(http_get(&nginx.addr(), target).status, status, "{target}");
    }
}

#[test]
fn everything_is_there_under_a_path_of_nginx() {
    let server = Server::start(&[]);
    let nginx = Nginx::before(&server);
    let mut alice = Client::greeted(&nginx.addr(), "/push/ws?userId=alice");
    let mut bob = Client::greeted(&nginx.addr(), "/push/?userId=bob");
    bob.join("den");
    alice.publish(json!({"type": "room_msg", "roomId": "den", "content": "through nginx"}));
    bob.expect(|json| json["content"] == "through nginx");
    drop(RawConn::upgrade(&nginx.addr(), "/push/raw/den"));
    for target in ["/push/", "/push/health/ready"] {
        assert_eq!(http_get(&nginx.addr(), target).status, 200, "{target}");
    }
}

/// To the server all of them come from 127.0.0.1.
#[test]
fn strangers_behind_nginx_get_nothing_that_is_for_loopback() {
    let secret = temporary_path("secret");
    fs::write(&secret, "a secret of the tests, of more than 32 bytes").unwrap();
    let key = format!("alg=HS256,secret_file={}", secret.display());
    for strict in ["false", "true"] {
        let server =
            Server::start(&["--auth.key", &key, "--admin.loopback", if strict == "true" { "false" } else { "true" }]);
        let nginx = Nginx::before(&server);
        let (near, far) = (server.addr(), nginx.addr());
        let marked = ["", "/push", "/upgrade", "/forwarded", "/forwarded-upgrade"];
        // A proxy that leaves no mark is not told from a program of this machine: that is what the setting is for.
        let all: Vec<&str> = marked.into_iter().chain((strict == "true").then_some("/unmarked")).collect();
        for place in all {
            // The host is the server's own where nginx does not pass on another, and what a stranger claims elsewhere.
            for host in [far.to_string(), near.to_string(), "push.example.com".to_owned()] {
                for target in ["/metrics", "/stats"] {
                    let request = format!("GET {place}{target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
                    assert_eq!(http_ask(&far, &request).status, 401, "{place}{target} {host}");
                    let mut conn = RawConn::connect(&far);
                    conn.send(upgrade_request(&format!("{place}{target}"), &[]).as_bytes());
                    let status = status_of(&conn.read_head());
                    assert!(matches!(status, 404 | 426), "{place}{target}: {status}");
                }
                let origin = format!("http://{host}");
                let request = format!(
                    "POST {place}/console/token HTTP/1.1\r\nHost: {host}\r\nOrigin: {origin}\r\nX-Fanfare-Console: 1\r\n\
                     Content-Type: application/json\r\nConnection: close\r\nContent-Length: 13\r\n\r\n{{\"sub\":\"eve\"}}"
                );
                assert_eq!(http_ask(&far, &request).status, 403, "{place} {host}");
                let request =
                    format!("GET {place}/console/tokens HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
                let answer: Value = serde_json::from_str(&http_ask(&far, &request).body).expect("it is JSON");
                assert_eq!(answer, json!({"tokens": "asked", "required": true}), "{place} {host}");
            }
        }
        let expected = if strict == "true" { 401 } else { 200 };
        assert_eq!(http_get(&near, "/metrics").status, expected, "the machine itself");
    }
    fs::remove_file(secret).unwrap();
}
