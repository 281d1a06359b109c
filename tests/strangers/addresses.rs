//! What one address may have.

use std::time::Instant;

use fanfare_testing::raw::{RawConn, status_of, upgrade_request};
use fanfare_testing::{Client, Server, await_metric, eventually};

use crate::{ALICE, BOB, ask, await_refused, refused};

/// Nobody is exempt, this machine included; the tests' own questions come from it.
const EXEMPT_NONE: [&str; 2] = ["--address.exempt", ""];

pub fn an_address_has_so_many_connections_on_all_reactors(reactors: usize) {
    let server = Server::with_reactors(reactors, &[EXEMPT_NONE[0], EXEMPT_NONE[1], "--address.connections_max", "3"]);
    let mut open = Vec::new();
    for _ in 0..3 {
        let (status, conn) = ask(ALICE, server.addr(), b"", &[]);
        assert_eq!(status, 101);
        open.push(conn);
    }
    for _ in 0..5 {
        assert_eq!(ask(ALICE, server.addr(), b"", &[]).0, 429);
    }
    assert_eq!(ask(BOB, server.addr(), b"", &[]).0, 101);
    await_refused(&server, "address_connections", 5);
    drop(open.pop());
    eventually("the place is free again", || ask(ALICE, server.addr(), b"", &[]).0 == 101);
}

pub fn sockets_without_a_request_are_bounded_for_each_address(reactors: usize) {
    let settings = [EXEMPT_NONE[0], EXEMPT_NONE[1], "--address.half_open_max", "5"];
    let server = Server::with_reactors(reactors, &[&settings[..], &["--limits.handshake_timeout", "5m"]].concat());
    let request = upgrade_request("/", &[]);
    let mut half_open: Vec<RawConn> = (0..5)
        .map(|_| {
            let mut conn = RawConn::connect_from(ALICE, server.addr());
            conn.send(&request.as_bytes()[..10]);
            conn
        })
        .collect();
    await_metric(&server, "fanfare_sockets", 5);
    for _ in 0..10 {
        assert_eq!(RawConn::connect_from(ALICE, server.addr()).read_until_it_breaks(), 0);
    }
    await_refused(&server, "address_half_open", 10);
    assert_eq!(ask(BOB, server.addr(), b"", &[]).0, 101);
    let mut last = half_open.pop().expect("five of them");
    last.send(&request.as_bytes()[10..]);
    assert_eq!(status_of(&last.read_head()), 101, "each may still complete");
    eventually("a connection is not half open", || {
        let mut conn = RawConn::connect_from(ALICE, server.addr());
        conn.try_send(request.as_bytes()) && conn.read_until(b"101 ")
    });
}

pub fn handshakes_in_a_second_are_bounded_for_each_address(reactors: usize) {
    const PER_SECOND: u64 = 5;
    let server =
        Server::with_reactors(reactors, &[EXEMPT_NONE[0], EXEMPT_NONE[1], "--address.handshakes_per_second", "5"]);
    let began = Instant::now();
    let request = upgrade_request("/", &[]);
    let served = (0..60)
        .filter(|_| {
            let mut conn = RawConn::connect_from(ALICE, server.addr());
            conn.try_send(request.as_bytes()) && conn.read_until(b"101 ")
        })
        .count() as u64;
    // However long that took, and with the seconds at both ends.
    let most = PER_SECOND * (began.elapsed().as_secs() + 2);
    assert!((PER_SECOND..=most).contains(&served), "{served} of at most {most}");
    assert_eq!(ask(BOB, server.addr(), b"", &[]).0, 101);
    eventually("the next second is another one", || {
        let mut conn = RawConn::connect_from(ALICE, server.addr());
        conn.try_send(request.as_bytes()) && conn.read_until(b"101 ")
    });
}

pub fn this_machine_is_exempt_unless_told_otherwise(reactors: usize) {
    let settings = ["--address.connections_max", "1", "--address.half_open_max", "1"];
    let server = Server::with_reactors(reactors, &settings);
    let _clients: Vec<Client> = (0..5).map(|at| Client::connect(&server, &format!("user-{at}"))).collect();
    let _silent: Vec<RawConn> = (0..5).map(|_| RawConn::connect(&server)).collect();
    assert_eq!(refused(&server, "address_connections"), 0);
    assert_eq!(ask(ALICE, server.addr(), b"", &[]).0, 101);
}
