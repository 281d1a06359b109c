//! Behind a real nginx that keeps its connections to the server, for pages and upgrades alike.

use fanfare_testing::nginx::Nginx;
use fanfare_testing::{Certificates, Client, Server, await_metric, http_ask, http_get};
use serde_json::json;

use crate::tap::Tap;

/// Pages and upgrades in turns, through nginx: as many connections are made to the server as there are upgrades, and one.
#[track_caller]
fn pages_and_upgrades(server: &Server, nginx: &Nginx, tap: &Tap) {
    let mut members: Vec<Client> = Vec::new();
    for upgrades in 0..6 {
        for target in ["/", "/nothing", "/ws", "/"] {
            let status = match target {
                "/" => 200,
                "/ws" => 426,
                _ => 404,
            };
            assert_eq!(http_get(&nginx.addr(), target).status, status, "{target}");
        }
        // A 426 ends its connection: the next request makes another.
        assert_eq!(tap.connections(), 2 * (upgrades + 1), "the last one serves the upgrade as well");
        let mut member = Client::greeted(&nginx.addr(), &format!("/ws?userId=user-{upgrades}"));
        assert_eq!(tap.connections(), 2 * (upgrades + 1), "it goes on as a WebSocket");
        member.join("den");
        members.push(member);
    }
    let (first, others) = members.split_first_mut().expect("there are six");
    first.publish(json!({"type": "room_msg", "roomId": "den", "content": "through nginx"}));
    for other in others {
        other.expect(|json| json["content"] == "through nginx");
    }
    await_metric(server, "fanfare_connections_opened_total", 6);
}

pub fn kept_connections_serve_pages_and_upgrades(reactors: usize) {
    let server = Server::with_reactors(reactors, &[]);
    let tap = Tap::before(server.addr());
    pages_and_upgrades(&server, &Nginx::keeping(&tap, "http"), &tap);
}

pub fn kept_connections_over_tls_serve_pages_and_upgrades(reactors: usize) {
    let certificates = Certificates::make();
    let (certificate, key) = (certificates.path("server.pem"), certificates.path("server.key"));
    let admin = fanfare_testing::free_addr();
    let server = Server::with_reactors(
        reactors,
        &["--tls.certificate", &certificate, "--tls.key", &key, "--admin.listen", &admin.to_string()],
    );
    let tap = Tap::before(server.addr());
    let nginx = Nginx::keeping(&tap, "https");
    let mut members = Vec::new();
    for upgrades in 1..=6 {
        for _ in 0..3 {
            assert_eq!(http_get(&nginx.addr(), "/").status, 200);
        }
        assert_eq!(tap.connections(), upgrades, "one serves them all");
        let mut member = Client::greeted(&nginx.addr(), &format!("/ws?userId=user-{upgrades}"));
        assert_eq!(tap.connections(), upgrades, "it goes on as a WebSocket");
        member.join("den");
        members.push(member);
    }
    await_metric(&admin, "fanfare_connections_opened_total", 6);
}

/// On one connection of a proxy that is believed, requests of several clients: none of them is loopback for another's sake.
pub fn each_request_is_its_own_clients(reactors: usize) {
    let server = Server::with_reactors(reactors, &["--proxy.trusted", "127.0.0.1"]);
    let tap = Tap::before(server.addr());
    let nginx = Nginx::keeping(&tap, "http");
    for _ in 0..3 {
        let host = format!("Host: {}\r\nConnection: close\r\n", server.addr());
        let asked =
            |fields: &str| http_ask(&nginx.addr(), &format!("GET /stats HTTP/1.1\r\n{host}{fields}\r\n")).status;
        assert_eq!(asked(""), 401);
        assert_eq!(asked("X-Forwarded-For: 192.0.2.7\r\n"), 401);
    }
    assert_eq!(tap.connections(), 1);
}
