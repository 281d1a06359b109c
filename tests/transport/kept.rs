//! HTTP/1.1 connections that are kept.

use fanfare_testing::raw::{RawConn, header_of, status_of};
use fanfare_testing::{Entrance, Server, Signal, eventually, http_get};

/// Requests on one connection, one after another.
pub struct Kept(pub RawConn);

impl Kept {
    pub fn connect(server: &dyn Entrance) -> Kept {
        Kept(RawConn::connect(server))
    }

    /// The head and the body of the next answer.
    #[track_caller]
    pub fn answer(&mut self) -> (String, Vec<u8>) {
        let head = self.0.read_head();
        let length = header_of(&head, "content-length").expect("a length").parse().expect("a number");
        let body = self.0.read_bytes(length);
        (head, body)
    }

    /// The status of the answer to a request for a page.
    #[track_caller]
    pub fn get(&mut self, target: &str) -> u16 {
        self.0.send(get(target).as_bytes());
        status_of(&self.answer().0)
    }
}

pub fn get(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n")
}

const PAGES: [(&str, u16); 5] =
    [("/", 200), ("/health/live", 200), ("/console/tokens", 200), ("/nothing", 404), ("/metrics", 401)];

pub fn many_requests_are_answered_on_one_connection(reactors: usize) {
    let server = Server::with_reactors(reactors, &[]);
    let mut kept = Kept::connect(&server);
    for _ in 0..20 {
        for (target, status) in PAGES {
            assert_eq!(kept.get(target), status, "{target}");
        }
    }
    // All at once, and in pieces that end nowhere in particular.
    let all: String = PAGES.iter().cycle().take(50).map(|(target, _)| get(target)).collect();
    kept.0.send(all.as_bytes());
    for (target, status) in PAGES.iter().cycle().take(50) {
        assert_eq!(status_of(&kept.answer().0), *status, "{target}");
    }
    for piece in all.as_bytes().chunks(7) {
        kept.0.send(piece);
    }
    for (target, status) in PAGES.iter().cycle().take(50) {
        assert_eq!(status_of(&kept.answer().0), *status, "{target}");
    }
}

pub fn a_connection_ends_where_it_is_asked_to(reactors: usize) {
    let server = Server::with_reactors(reactors, &[]);
    let close = "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    for last in [close, "GET / HTTP/1.0\r\nHost: x\r\n\r\n"] {
        let mut kept = Kept::connect(&server);
        assert_eq!(kept.get("/"), 200);
        kept.0.send(last.as_bytes());
        assert_eq!(status_of(&kept.answer().0), 200);
        assert_eq!(kept.0.read_to_end("it was the last"), b"");
    }
    // Health is asked on a thread of its own, which serves one request of each: it waits for nobody.
    let mut kept = Kept::connect(&server);
    kept.0.send(get("/health/live").as_bytes());
    let (head, _) = kept.answer();
    assert_eq!(header_of(&head, "connection"), Some("close"), "{head}");
    assert_eq!(kept.0.read_to_end("it was the last"), b"");
}

pub fn a_request_that_others_may_read_differently_is_the_last(reactors: usize) {
    let server = Server::with_reactors(reactors, &[]);
    let second = get("/nothing");
    let chunked = "POST /nothing HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    let both = format!(
        "POST /nothing HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        5 + second.len()
    );
    for (behind, (request, status)) in
        [(false, (chunked, 404)), (true, (chunked, 404)), (false, (&both, 404)), (true, (&both, 404))]
    {
        let mut kept = Kept::connect(&server);
        if behind {
            assert_eq!(kept.get("/"), 200);
        }
        kept.0.send(format!("{request}{second}").as_bytes());
        let (head, _) = kept.answer();
        assert_eq!(status_of(&head), status, "{head}");
        assert_eq!(header_of(&head, "connection"), Some("close"), "{head}");
        assert_eq!(kept.0.read_to_end("nothing behind it is answered"), b"");
    }
    let two_hosts = "GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n";
    for bad in ["GET / HTTP/1.1\r\n\r\n", two_hosts, "GET /\x01 HTTP/1.1\r\nHost: x\r\n\r\n"] {
        let mut kept = Kept::connect(&server);
        assert_eq!(kept.get("/"), 200);
        kept.0.send(format!("{bad}{second}").as_bytes());
        let head = kept.0.read_head();
        assert_eq!(status_of(&head), 400, "{bad:?}");
        kept.0.expect_end("nothing behind it is answered");
    }
}

/// As many as there are places (`HTTP_CONNECTIONS_MAX`).
const PLACES: usize = 256;

pub fn who_idles_makes_room_for_who_asks(reactors: usize) {
    let server = Server::with_reactors(reactors, &[]);
    let mut idle: Vec<Kept> = (0..PLACES).map(|_| Kept::connect(&server)).collect();
    for kept in &mut idle {
        assert_eq!(kept.get("/nothing"), 404);
    }
    // The first asks once more: it is not the one that has idled for longest.
    assert_eq!(idle[0].get("/nothing"), 404);
    let mut asking: Vec<Kept> = (0..20).map(|_| Kept::connect(&server)).collect();
    for kept in &mut asking {
        assert_eq!(kept.get("/nothing"), 404);
    }
    for kept in idle.drain(1..21) {
        let Kept(mut conn) = kept;
        assert_eq!(conn.read_to_end("it made room"), b"");
    }
    for kept in idle.iter_mut().chain(&mut asking) {
        assert_eq!(kept.get("/nothing"), 404, "it did not");
    }
    assert_eq!(http_get(&server, "/health/live").status, 200);
}

pub fn a_draining_node_ends_those_that_idle(reactors: usize) {
    let mut server = Server::with_reactors(reactors, &[]);
    let mut kept = Kept::connect(&server);
    assert_eq!(kept.get("/"), 200);
    server.signal(Signal::TERM);
    assert_eq!(kept.0.read_to_end("it idles"), b"");
    assert!(server.wait_exit().success());
    eventually("nobody listens any more", || std::net::TcpStream::connect(server.addr()).is_err());
}
