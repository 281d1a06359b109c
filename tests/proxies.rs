//! A real nginx in front of the built server: one that passes on no upgrade, and one that puts it under a path of its own.
//! The console behind it is looked at in `interop`.

use fanfare_testing::nginx::Nginx;
use fanfare_testing::raw::{RawConn, header_of, status_of, upgrade_request};
use fanfare_testing::{Client, Server, http_get};
use serde_json::json;

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
    for target in ["/push/", "/push/stats", "/push/metrics", "/push/health/ready"] {
        assert_eq!(http_get(&nginx.addr(), target).status, 200, "{target}");
    }
}
