//! What is no TLS, or no good peer.

use std::io::{Read, Write};
use std::net::TcpStream;

use fanfare_testing::raw::RawConn;
use fanfare_testing::{Certificates, Client, PATIENCE, TlsTunnel, refused_start, temporary_path};
use rustls::version::TLS13;
use serde_json::json;

use super::peers::Secured;

pub fn a_client_without_tls_is_told_so(reactors: usize) {
    let secured = Secured::start(reactors, &[]);
    let mut conn = RawConn::connect(&secured.server);
    conn.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    let answer = String::from_utf8(conn.read_to_end("it ends")).expect("text");
    assert!(answer.starts_with("HTTP/1.1 400 ") && answer.ends_with("use https:// or wss://\n"), "{answer}");
}

pub fn a_handshake_has_its_time(reactors: usize) {
    let secured = Secured::start(reactors, &["--limits.handshake_timeout", "1s"]);
    for beginning in [&b""[..], b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"] {
        let mut conn = RawConn::connect(&secured.server);
        conn.send(beginning);
        assert_eq!(conn.read_to_end("its time is over"), b"", "{beginning:?}");
    }
    // Behind its handshake the request has the same time.
    let mut stream = secured.dial(secured.config(&TLS13));
    stream.tcp().set_read_timeout(Some(PATIENCE)).expect("a timeout above zero");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("an answer, and the end as TLS tells it");
    assert!(answer.starts_with(b"HTTP/1.1 408 "), "{}", String::from_utf8_lossy(&answer));
}

pub fn a_stalled_reader_is_a_slow_consumer_and_others_are_not_held_up(reactors: usize) {
    let secured = Secured::start(reactors, &["--outbox.bytes_max", "64KiB", "--tcp.send_buffer", "16KiB"]);
    let way = TlsTunnel::to(secured.server.addr(), &secured.certificates);
    let mut stalled = secured.open(secured.config(&TLS13), "/?userId=stalled");
    stalled.take_welcome();
    stalled.join("den");
    let (mut reader, mut speaker) = (Client::connect(&way.addr(), "reader"), Client::connect(&way.addr(), "speaker"));
    reader.join("den");
    speaker.join("den");
    let content = "x".repeat(10_000);
    let mut told = 0;
    for number in 0..2_000 {
        speaker.publish(json!({ "type": "room_msg", "roomId": "den", "content": [number, content] }));
        assert_eq!(reader.expect_type("room_msg")["content"][0], number);
        told += 1;
        if number % 50 == 49 && secured.page("/stats").contains("\"slow_consumers\":1") {
            break;
        }
    }
    assert!(told < 2_000, "it is let go, whatever its kernel has taken");
    let (code, _) = stalled.close_frame();
    assert_eq!(code, 4008);
}

pub fn what_is_no_handshake_costs_its_connection_alone(reactors: usize) {
    let secured = Secured::start(reactors, &[]);
    let way = TlsTunnel::to(secured.server.addr(), &secured.certificates);
    let mut client = Client::connect(&way.addr(), "alice");
    let mut random = fastrand::Rng::with_seed(7);
    for round in 0..200 {
        let mut conn = TcpStream::connect(secured.server.addr()).expect("the server should accept");
        let mut bytes: Vec<u8> = (0..random.usize(1..2_000)).map(|_| random.u8(..)).collect();
        if round % 2 == 0 {
            bytes[0] = 22;
        }
        // The server may have broken off in the middle.
        let _ = conn.write_all(&bytes);
    }
    client.barrier();
}

pub fn a_certificate_that_is_not_there_is_told(_reactors: usize) {
    let certificates = Certificates::make();
    let (certificate, key) = (certificates.path("server.pem"), certificates.path("server.key"));
    certificates.sign("other", "/CN=other", "");
    let other = certificates.path("other.key");
    let nothing = temporary_path("nothing").to_str().expect("a name of ours").to_owned();
    for (certificate, key, what) in [
        (&nothing, &key, "cannot be read"),
        (&certificate, &nothing, "cannot be read"),
        (&key, &key, "there is no certificate in PEM in it"),
        (&certificate, &certificate, "there is no private key in PEM in its key file"),
        (&certificate, &other, "its key is another certificate's"),
    ] {
        let log = refused_start(&["--tls.certificate", certificate, "--tls.key", key]).stderr;
        assert!(log.contains(what) && log.contains("TLS of 127.0.0.1"), "{what}: {log}");
    }
}
