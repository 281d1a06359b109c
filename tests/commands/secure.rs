//! Clients over TLS: whom they trust, and what they say where they do not.

use fanfare_testing::{Certificates, Client, Server, TlsFront};
use serde_json::Value;

use crate::KEEPS;
use crate::peer::Stage;
use crate::running::{Running, fanfare, fanfare_in};

#[test]
fn a_server_with_a_certificate_of_a_named_authority_is_spoken_to() {
    let certificates = Certificates::make();
    let authority = certificates.path("ca.pem");
    let server = Server::start(KEEPS);
    let url = TlsFront::to(server.addr(), &certificates).url("/?token=secret");
    let given = ["--url", &url, "--ca", &authority];
    let (sub, joined) = Running::subscribed(&[&["kept", "--messages-only", "--count", "3"], &given[..]].concat());
    assert!(joined.contains("joined kept"), "{joined}");
    let ran = fanfare(&[&["pub", "kept", "hello", "--user", "alice"], &given[..]].concat());
    assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""));
    let mut lines = Running::start(&[&["pub", "kept", "-", "--user", "bob"], &given[..]].concat());
    std::io::Write::write_all(lines.stdin(), b"one\ntwo\n").expect("it reads");
    assert_eq!(lines.end().code, Some(0));
    for said in [" alice: hello", " bob: one", " bob: two"] {
        let line = sub.line();
        assert!(line.ends_with(said), "{line}");
    }
    assert_eq!(sub.end().code, Some(0));
    // The system's authorities are those of a file here.
    let ran = fanfare_in(&[("SSL_CERT_FILE", &authority)], &["presence", "kept", "--url", &url]);
    assert_eq!((ran.code, ran.out.as_str(), ran.err.as_str()), (Some(0), "0\n", ""));
}

/// Much more than one record, and more than a turn reads: what is decrypted already makes no socket readable.
#[test]
fn a_long_message_comes_whole() {
    let certificates = Certificates::make();
    let server = Server::start(&["--rooms.notice_members_max", "0"]);
    let front = TlsFront::to(server.addr(), &certificates);
    let (url, authority) = (front.url("/"), certificates.path("ca.pem"));
    let (sub, _) = Running::subscribed(&["den", "--json", "--count", "2", "--url", &url, "--ca", &authority]);
    let mut member = Client::connect(&server, "alice");
    member.join("den");
    for letter in ["a", "b"] {
        let content = letter.repeat(900_000);
        member.publish(serde_json::json!({"type": "room_msg", "roomId": "den", "content": content}));
        let message: Value = serde_json::from_str(&sub.line()).expect("JSON");
        assert!(message["content"] == content, "a message of {letter}");
    }
    assert_eq!(sub.end().code, Some(0));
}

#[test]
fn who_cannot_be_trusted_is_told_with_what_to_do() {
    let certificates = Certificates::make();
    let server = Server::start(&[]);
    let front = TlsFront::to(server.addr(), &certificates);
    let (url, shown) = (front.url("/?token=secret"), front.url("/"));
    let other = Certificates::make().path("ca.pem");
    let others = Certificates::make();
    let named = format!("wss://localhost:{}/", front.addr().port());
    let plain = format!("wss://{}/", server.addr());
    for (url, flags, why) in [
        (
            &url,
            vec!["--ca".to_owned(), others.path("ca.pem")],
            format!(
                "{shown}: TLS failed: invalid peer certificate: UnknownIssuer; name the authority that has signed it"
            ),
        ),
        (
            &named,
            vec!["--ca".to_owned(), certificates.path("ca.pem")],
            format!("{named}: TLS failed: invalid peer certificate: certificate not valid for name \"localhost\""),
        ),
        (&plain, vec!["--insecure".to_owned()], format!("{plain}: TLS failed: ")),
        // A file that was removed.
        (&url, vec!["--ca".to_owned(), other.clone()], format!("--ca: {other:?} cannot be read: ")),
        (
            &url,
            vec!["--ca".to_owned(), certificates.path("server.key")],
            format!("--ca: {:?} has no certificate in it", certificates.path("server.key")),
        ),
    ] {
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        for command in [&["pub", "den", "hello"][..], &["sub", "den"], &["presence", "den"]] {
            let ran = fanfare(&[command, &["--url", url], &flags[..]].concat());
            let code = if why.starts_with("--ca") { 2 } else { 1 };
            assert_eq!((ran.code, ran.out.as_str()), (Some(code), ""), "{command:?}: {}", ran.err);
            let line = ran.err.lines().last().unwrap_or_default();
            assert!(line.starts_with(&format!("fanfare: {why}")), "{command:?}: {}", ran.err);
            assert!(!ran.err.contains("secret"), "{}", ran.err);
        }
    }
}

#[test]
fn whoever_answers_is_taken_where_that_is_asked_for_and_a_warning_says_so() {
    let certificates = Certificates::make();
    let server = Server::start(&[]);
    let front = TlsFront::to(server.addr(), &certificates);
    let url = format!("wss://localhost:{}/", front.addr().port());
    let ran = fanfare(&["presence", "den", "--url", &url, "--insecure"]);
    assert_eq!((ran.code, ran.out.as_str()), (Some(0), "0\n"));
    assert_eq!(
        ran.err,
        "fanfare: --insecure: the server's certificate is not verified; whoever answers gets the token and what is \
         sent\n"
    );
}

/// A server that is lost is found again, over TLS as well.
#[test]
fn a_subscriber_comes_back_over_tls() {
    let certificates = Certificates::make();
    let stage = Stage::new();
    let front = TlsFront::to(stage.addr(), &certificates);
    let (url, authority) = (front.url("/"), certificates.path("ca.pem"));
    let sub = Running::start(&["sub", "den", "--messages-only", "--url", &url, "--ca", &authority]);
    let mut server = stage.welcome();
    server.recv();
    server.send(&serde_json::json!({"type": "joined", "roomId": "den", "id": 1}));
    sub.note("joined den");
    server.close(1001, r#"{"retry_ms":1}"#);
    sub.note("going away (1001)");
    let mut server = stage.welcome();
    assert_eq!(server.recv()["roomId"], "den");
    sub.interrupt();
    assert_eq!(sub.end().code, Some(0));
}
