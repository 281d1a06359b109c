//! Proxies that say in a header whose request it is.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use fanfare_testing::nginx::Nginx;
use fanfare_testing::raw::upgrade_request;
use fanfare_testing::{PATIENCE, Server, remove_socket, socket_path};

use crate::{ALICE, BOB, ask, ask_for, descriptors};

const FIELD: &str = "X-Forwarded-For";

fn settings(trusted: &str) -> Vec<&str> {
    vec!["--address.exempt", "", "--address.connections_max", "2", "--proxy.trusted", trusted]
}

pub fn a_trusted_proxy_names_the_client(reactors: usize) {
    let server = Server::with_reactors(reactors, &settings("127.0.0.2,10.0.0.0/8"));
    let by_proxy = |fields: &[(&str, &str)]| ask(ALICE, server.addr(), b"", fields);
    let mut open = Vec::new();
    // One client, however it is named; what stands in front of it may be forged.
    for fields in [&[(FIELD, "192.0.2.7")][..], &[(FIELD, "192.0.2.8, 192.0.2.7:4711, 10.1.1.1")]] {
        let (status, conn) = by_proxy(fields);
        assert_eq!(status, 101, "{fields:?}");
        open.push(conn);
    }
    for fields in [
        &[(FIELD, "192.0.2.8,192.0.2.7")][..],
        &[(FIELD, "192.0.2.7"), (FIELD, "10.1.1.1")],
        &[(FIELD, "192.0.2.8"), (FIELD, "192.0.2.7")],
        &[(FIELD, "::ffff:192.0.2.7")],
    ] {
        assert_eq!(by_proxy(fields).0, 429, "{fields:?}");
    }
    for fields in [&[(FIELD, "192.0.2.8")][..], &[(FIELD, "[2001:db8::7]:80")], &[(FIELD, "2001:db8:0:1::7")]] {
        let (status, conn) = by_proxy(fields);
        assert_eq!(status, 101, "{fields:?}");
        open.push(conn);
    }
    // The /64 of the client above has one more, and no further.
    let (status, _open) = by_proxy(&[(FIELD, "2001:db8::8")]);
    assert_eq!((status, by_proxy(&[(FIELD, "2001:db8::9")]).0), (101, 429));
}

pub fn what_others_say_about_the_client_is_not_heard(reactors: usize) {
    let server = Server::with_reactors(reactors, &settings("127.0.0.2"));
    let mut open = Vec::new();
    for (client, expected) in [("192.0.2.1", 101), ("192.0.2.2", 101), ("192.0.2.3", 429), ("127.0.0.2", 429)] {
        let (status, conn) = ask(BOB, server.addr(), b"", &[(FIELD, client)]);
        assert_eq!(status, expected, "{client}");
        open.push(conn);
    }
}

pub fn nginx_names_the_client(reactors: usize) {
    let server = Server::with_reactors(reactors, &settings("127.0.0.1"));
    let nginx = Nginx::before(&server);
    let by_nginx = |source, said: &str| ask_for("/push/", source, nginx.addr(), b"", &[(FIELD, said)]);
    let open = [by_nginx(ALICE, "192.0.2.1"), by_nginx(ALICE, "192.0.2.2")];
    assert!(open.iter().all(|(status, _)| *status == 101));
    assert_eq!(by_nginx(ALICE, "192.0.2.3").0, 429, "what a client says it is counts for nothing");
    assert_eq!(by_nginx(BOB, "127.0.0.2").0, 101);
}

pub fn a_proxy_behind_a_unix_socket_is_trusted_by_name(reactors: usize) {
    let path = socket_path();
    let listen = format!("unix:{}", path.display());
    let ask_by_unix = |client: &str| {
        let mut stream = UnixStream::connect(&path).expect("the server should accept");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout above zero");
        stream.write_all(upgrade_request("/", &[(FIELD, client)]).as_bytes()).expect("a request is taken");
        let mut status = [0; 12];
        stream.read_exact(&mut status).expect("an answer");
        (String::from_utf8_lossy(&status[9..]).into_owned(), stream)
    };
    for (trusted, third) in [("unix", "429"), ("127.0.0.1", "101")] {
        let listen = ["--listen", "127.0.0.1:0", "--listen", &listen];
        let server = Server::with_reactors(reactors, &[&listen[..], &settings(trusted)[..]].concat());
        let open: Vec<_> = (0..2).map(|_| ask_by_unix("192.0.2.7")).collect();
        assert!(open.iter().all(|(status, _)| status == "101"));
        assert_eq!(ask_by_unix("192.0.2.7").0, third, "{trusted}");
        drop(server);
        remove_socket(&path);
    }
}

/// Until its request is read, a proxy's socket counts for no address; one that is refused then goes at once, and does not
/// wait for its client.
pub fn a_refused_request_of_a_proxy_keeps_no_socket(reactors: usize) {
    let settings = [&settings("127.0.0.2")[..], &["--address.handshakes_per_second", "1"]].concat();
    let server = Server::with_reactors(reactors, &settings);
    let before = descriptors(&server);
    let (mut open, mut refused) = (Vec::new(), Vec::new());
    for _ in 0..30 {
        match ask(ALICE, server.addr(), b"", &[(FIELD, "192.0.2.7")]) {
            (101, conn) => open.push(conn),
            (429, mut conn) => {
                conn.read_to_end("a refusal");
                refused.push(conn);
            }
            (status, _) => panic!("{status}"),
        }
    }
    assert!(!refused.is_empty(), "30 requests take less than 30 seconds");
    assert_eq!(descriptors(&server), before + open.len(), "{} were refused, and none has gone", refused.len());
}
