//! Clients with tokens: how they are given, what is sent, and what is said where a server does not take them.

use std::fs;
use std::io::{Read, Write};
use std::path::PathBuf;

use fanfare_testing::{Server, temporary_path};
use serde_json::Value;

use crate::peer::Stage;
use crate::running::{Running, fanfare, fanfare_in};

/// A server that asks for tokens, and the key that makes them.
struct Guarded {
    server: Server,
    key: String,
    path: PathBuf,
}

impl Guarded {
    #[track_caller]
    fn start(settings: &[&str]) -> Guarded {
        let path = temporary_path("secret");
        fs::write(&path, "a secret of the tests, of more than 32 bytes").expect("a file of our own");
        let key = format!("alg=HS256,secret_file={}", path.display());
        Guarded { server: Server::start(&[&["--auth.key", &key], settings].concat()), key, path }
    }

    /// A token of a user who may do everything in `den`.
    #[track_caller]
    fn token(&self, user: &str, ttl: &str) -> String {
        let may = ["--join", "den", "--publish", "den", "--presence", "den"];
        let ran = fanfare(&[&["token", "--auth.key", &self.key, "--sub", user, "--ttl", ttl], &may[..]].concat());
        assert_eq!(ran.code, Some(0), "{}", ran.err);
        ran.out.trim().to_owned()
    }

    fn url(&self) -> String {
        self.server.url("/")
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        // What is left behind lies among the temporary files.
        let _ = fs::remove_file(&self.path);
    }
}

#[test]
fn a_token_says_who_it_is_however_it_is_given() {
    let guarded = Guarded::start(&[]);
    let url = guarded.url();
    let listener = guarded.token("bob", "1h");
    let sub = Running::start_in(&[("FANFARE_TOKEN", &listener)], &["sub", "den", "--messages-only", "--url", &url]);
    sub.note("joined den");
    let (alice, carol, dave) =
        (guarded.token("alice", "1h"), guarded.token("carol", "1h"), guarded.token("dave", "1h"));
    let file = temporary_path("token");
    fs::write(&file, format!("{carol}\n")).expect("a file of our own");
    let name = file.to_str().expect("a name of ours");
    for (env, flags, user) in [
        (&[("FANFARE_TOKEN", alice.as_str())][..], &[][..], "alice"),
        // A flag goes before the environment.
        (&[("FANFARE_TOKEN", alice.as_str())], &["--token-file", name], "carol"),
        (&[("FANFARE_TOKEN", alice.as_str())], &["--token", &dave], "dave"),
    ] {
        let ran = fanfare_in(env, &[&["pub", "den", "hello", "--url", &url], flags].concat());
        assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""), "{user}");
        let line = sub.line();
        assert!(line.ends_with(&format!(" {user}: hello")), "{line}");
        let ran = fanfare_in(env, &[&["presence", "den", "--url", &url, "--json"], flags].concat());
        let reply: Value = serde_json::from_str(&ran.out).unwrap_or_else(|error| panic!("{error}: {}", ran.err));
        assert_eq!(reply["users"], serde_json::json!(["bob"]), "{user}");
        let other = Running::start_in(env, &[&["sub", "den", "--url", &url], flags].concat());
        assert_eq!(other.line(), format!("* {user} joined"));
    }
    fs::remove_file(file).expect("it is there");
}

/// Only members publish where tokens are asked for: what was refused because of that is sent again, before what is new.
#[test]
fn lines_are_published_once_and_in_order_by_who_was_no_member() {
    const LINES: usize = 200;
    let guarded = Guarded::start(&[]);
    let url = guarded.url();
    let (listener, alice) = (guarded.token("bob", "1h"), guarded.token("alice", "1h"));
    let listening = ["sub", "den", "--messages-only", "--url", &url];
    let sub = Running::start_in(&[("FANFARE_TOKEN", &listener)], &listening);
    sub.note("joined den");
    let mut publishing = Running::start_in(&[("FANFARE_TOKEN", &alice)], &["pub", "den", "-", "--url", &url]);
    let lines: String = (0..LINES).map(|at| format!("line {at}\n")).collect();
    publishing.stdin().write_all(lines.as_bytes()).expect("it reads");
    let ran = publishing.end();
    assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""));
    for at in 0..LINES {
        let line = sub.line();
        assert!(line.ends_with(&format!(" alice: line {at}")), "{at}: {line}");
    }
    // Who may not join is told what is forbidden, once for each line.
    let may = ["--publish", "den"];
    let made = fanfare(&[&["token", "--auth.key", &guarded.key, "--sub", "eve"], &may[..]].concat());
    let mut publishing = Running::start_in(&[("FANFARE_TOKEN", made.out.trim())], &["pub", "den", "-", "--url", &url]);
    publishing.stdin().write_all(b"one\ntwo\n").expect("it reads");
    let ran = publishing.end();
    assert_eq!((ran.code, ran.err.matches("forbidden").count()), (Some(1), 2), "{}", ran.err);
}

#[test]
fn a_token_stands_in_the_request_and_nowhere_else() {
    let stage = Stage::new();
    let url = format!("ws://{}/", stage.addr());
    let running = Running::start_in(&[("FANFARE_TOKEN", "head.claims.signature")], &["sub", "den", "--url", &url]);
    let mut stream = stage.accept();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).expect("a request");
        head.extend_from_slice(&byte);
    }
    let head = String::from_utf8(head).expect("text");
    assert!(head.to_lowercase().contains("\r\nauthorization: bearer head.claims.signature\r\n"), "{head}");
    assert_eq!(head.matches("signature").count(), 1, "{head}");
    drop(stream);
    let ran = running.end();
    assert!(!ran.err.contains("signature") && ran.code == Some(1), "{}", ran.err);
}

#[test]
fn a_server_that_asks_for_a_token_or_another_one_says_so() {
    let guarded = Guarded::start(&[]);
    let url = guarded.url();
    let expired = guarded.token("alice", "1h");
    let (signed, signature) = expired.rsplit_once('.').expect("three parts");
    let (first, rest) = signature.split_at(1);
    let broken = format!("{signed}.{}{rest}", if first == "A" { "B" } else { "A" });
    for command in [&["pub", "den", "hello"][..], &["sub", "den"], &["presence", "den"]] {
        let ran = fanfare(&[command, &["--url", &url]].concat());
        assert_eq!((ran.code, ran.out.as_str()), (Some(1), ""), "{command:?}");
        let line = format!("fanfare: {url} answered 401 Unauthorized: a token is needed: ");
        let advice = "; give a token with FANFARE_TOKEN or --token-file\n";
        assert!(ran.err.starts_with(&line) && ran.err.ends_with(advice), "{command:?}: {}", ran.err);
        let ran = fanfare_in(&[("FANFARE_TOKEN", &broken)], &[command, &["--url", &url]].concat());
        assert_eq!((ran.code, ran.out.as_str()), (Some(1), ""), "{command:?}");
        let line =
            format!("fanfare: {url} answered 401 Unauthorized: the token is not valid: it is not signed by a key");
        let advice = "; give another token with FANFARE_TOKEN or --token-file\n";
        assert!(ran.err.starts_with(&line) && ran.err.ends_with(advice), "{command:?}: {}", ran.err);
        assert!(!ran.err.contains(&broken[broken.len() - 20..]), "{}", ran.err);
    }
}

#[test]
fn the_end_of_a_token_ends_a_subscription_and_is_told() {
    let guarded = Guarded::start(&["--auth.expiring_before", "1s"]);
    let token = guarded.token("alice", "3s");
    let sub = Running::start_in(&[("FANFARE_TOKEN", &token)], &["sub", "den", "--json", "--url", &guarded.url()]);
    sub.note("joined den");
    let expiring = sub.note("the token expires in ");
    assert!(expiring.ends_with("; the connection ends with it"), "{expiring}");
    // Up to five seconds behind the end.
    let ended = sub.note("the token has expired");
    assert_eq!(ended, "fanfare: the token has expired (4001): get a new one, and come back with it");
    let ran = sub.end();
    let notices: Vec<&str> = ran.out.lines().filter(|line| !line.contains("\"type\":\"system\"")).collect();
    assert_eq!((ran.code, notices), (Some(1), vec![]));
}

#[test]
fn what_is_wrong_with_a_token_is_told_without_showing_it() {
    for (env, args, line) in [
        (&[][..], &["--token", "a b secret"][..], "--token: has a character that no token has; is it a token?"),
        (&[("FANFARE_TOKEN", "secret\u{fc}")], &[], "FANFARE_TOKEN: has a character that no token has; is it a token?"),
        (
            &[],
            &["--token", "secret", "--token-file", "/x"],
            "--token and --token-file are two ways to give a token; give one of them",
        ),
        (
            &[],
            &["--token-file", "/nowhere/token"],
            "--token-file: \"/nowhere/token\" cannot be read: No such file or directory (os error 2); name a file that \
             this process may read",
        ),
        (
            &[],
            &["--token", "secret", "--url", "ws://h/?token=secret"],
            "the URL holds a token already; leave out --token and --token-file",
        ),
        (&[], &["--ca", "/x"], "--ca is for wss:// URLs, and ws://127.0.0.1:8080/ has no TLS; leave it out"),
        (&[], &["--insecure"], "--insecure is for wss:// URLs, and ws://127.0.0.1:8080/ has no TLS; leave it out"),
        (&[], &["--ca", "/x", "--insecure"], "--ca verifies the server and --insecure does not; give one of them"),
    ] {
        let ran = fanfare_in(env, &[&["presence", "den"], args].concat());
        assert_eq!((ran.code, ran.out.as_str(), ran.err), (Some(2), "", format!("fanfare: {line}\n")), "{args:?}");
    }
}
