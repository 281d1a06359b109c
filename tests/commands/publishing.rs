//! `fanfare pub`: what it sends, and when it says that all is well.

use std::io::Write;

use fanfare_testing::{Client, Server};
use serde_json::json;

use crate::peer::Stage;
use crate::running::{Running, fanfare, fanfare_with};
use crate::{KEEPS, url};

#[test]
fn a_message_is_acked_with_its_place() {
    let server = Server::start(KEEPS);
    let url = url(&server);
    let mut member = Client::connect(&server, "bob");
    let epoch = member.join("kept")["epoch"].as_str().expect("a word").to_owned();
    member.join("plain");
    for number in 1..=2 {
        let ran = fanfare(&["pub", "kept", "say \"hi\"", "--url", &url, "--user", "alice"]);
        let place = format!("offset {number} epoch {epoch}\n");
        assert_eq!((ran.code, ran.out, ran.err.as_str()), (Some(0), place, ""));
        let message = member.expect_type("room_msg");
        assert_eq!((&message["from"], &message["content"]), (&json!("alice"), &json!("say \"hi\"")));
    }
    let ran = fanfare(&["pub", "plain", "-5", "--url", &url]);
    assert_eq!((ran.code, ran.out.as_str(), ran.err.as_str()), (Some(0), "", ""));
    assert_eq!(member.expect_type("room_msg")["content"], "-5");
}

#[test]
fn json_goes_out_as_it_is() {
    let server = Server::start(&[]);
    let mut member = Client::connect(&server, "bob");
    member.join("den");
    let content = r#"{ "b":1e400,"a": [0.10, "\ud800"]}"#;
    let ran = fanfare(&["pub", "den", &format!("\n{content} "), "--json", "--url", &url(&server)]);
    assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""));
    member.expect_type("system");
    let text = member.recv_text();
    assert!(text.contains(&format!(r#""content":{content},"time""#)), "{text}");
}

#[test]
fn a_refusal_is_told_with_its_code() {
    let server = Server::start(&[]);
    let room = "x".repeat(256);
    let ran = fanfare(&["pub", &room, "hello", "--url", &url(&server)]);
    assert_eq!((ran.code, ran.out.as_str()), (Some(1), ""));
    assert!(ran.err.starts_with("fanfare: the server refused it: bad_room_id: "), "{}", ran.err);
    // Nested so deeply that the server cannot say by its id which message it was.
    let deep = "[".repeat(200) + &"]".repeat(200);
    let ran = fanfare(&["pub", "den", &deep, "--json", "--url", &url(&server)]);
    assert_eq!((ran.code, ran.out.as_str()), (Some(1), ""));
    assert!(ran.err.starts_with("fanfare: the server refused it: bad_json: "), "{}", ran.err);
    assert_eq!(ran.err.lines().count(), 1, "{}", ran.err);
}

#[test]
fn a_message_that_is_too_large_is_told_with_the_close_code() {
    let server = Server::start(&["--limits.message_bytes_max", "1KiB"]);
    let ran = fanfare_with(&["pub", "den", "-", "--url", &url(&server)], &[b'x'; 4 * 1024 * 1024]);
    assert_eq!((ran.code, ran.out.as_str()), (Some(1), ""));
    let line = "fanfare: the server closed the connection with 1009: message is too big; whether line 1 was taken is \
                not known\n";
    assert_eq!(ran.err, line);
}

#[test]
fn each_line_of_stdin_is_a_message() {
    let server = Server::start(KEEPS);
    let mut member = Client::connect(&server, "bob");
    let epoch = member.join("kept")["epoch"].as_str().expect("a word").to_owned();
    let lines: Vec<String> = (1..=500).map(|number| format!("line {number}")).collect();
    let ran = fanfare_with(&["pub", "kept", "-", "--url", &url(&server)], lines.join("\r\n").as_bytes());
    assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""));
    let places: String = (1..=500).map(|number| format!("offset {number} epoch {epoch}\n")).collect();
    assert_eq!(ran.out, places);
    for line in lines {
        assert_eq!(member.expect_type("room_msg")["content"], line);
    }
    let ran = fanfare_with(&["pub", "kept", "-", "--url", &url(&server)], b"");
    assert_eq!((ran.code, ran.out.as_str(), ran.err.as_str()), (Some(0), "", ""));
}

#[test]
fn a_line_that_cannot_be_sent_is_told_and_the_others_are_sent() {
    let server = Server::start(&[]);
    let mut member = Client::connect(&server, "bob");
    member.join("den");
    let ran = fanfare_with(&["pub", "den", "-", "--json", "--url", &url(&server)], b"1\n{\n\"\xff\"\n4\n");
    assert_eq!((ran.code, ran.out.as_str()), (Some(1), ""));
    let told: Vec<&str> = ran.err.lines().map(|line| line.split(": ").nth(1).unwrap_or_default()).collect();
    assert_eq!(told, ["line 2", "line 3"], "{}", ran.err);
    for content in [1, 4] {
        assert_eq!(member.expect_type("room_msg")["content"], content);
    }
}

#[test]
fn a_retry_with_its_key_is_the_same_message() {
    let server = Server::start(KEEPS);
    let url = url(&server);
    let mut member = Client::connect(&server, "bob");
    member.join("kept");
    let once = ["pub", "kept", "once", "--key", "k", "--user", "alice", "--url", &url];
    let lines = ["pub", "kept", "-", "--key", "k", "--user", "alice", "--url", &url];
    let first = (fanfare(&once), fanfare_with(&lines, b"one\ntwo\n"));
    let again = (fanfare(&once), fanfare_with(&lines, b"one\ntwo\nthree\n"));
    assert_eq!((first.0.code, &first.0.out), (Some(0), &again.0.out));
    assert_eq!(again.1.out.lines().take(2).collect::<Vec<_>>(), first.1.out.lines().collect::<Vec<_>>());
    for content in ["once", "one", "two", "three"] {
        assert_eq!(member.expect_type("room_msg")["content"], content);
    }
    member.nothing_for(20);
}

#[test]
fn sixty_four_lines_wait_for_their_acks_and_no_more() {
    let stage = Stage::new();
    let mut running = Running::start(&["pub", "den", "-", "--url", &stage.url()]);
    running.stdin().write_all("line\n".repeat(100).as_bytes()).expect("a pipe has room");
    let mut peer = stage.welcome();
    let mut ids: Vec<_> = (0..64).map(|_| peer.recv()["id"].clone()).collect();
    assert_eq!(peer.barrier().len(), 0);
    // An ack makes room for one line, whichever it is for.
    peer.send(&json!({"type": "ack", "id": ids.swap_remove(40)}));
    ids.push(peer.recv()["id"].clone());
    assert_eq!(peer.barrier().len(), 0);
    for number in 1..=100 {
        if let Some(id) = ids.pop() {
            peer.send(&json!({"type": "ack", "id": id}));
        }
        if number <= 35 {
            ids.push(peer.recv()["id"].clone());
        }
    }
    let ran = running.end();
    assert_eq!((ran.code, ran.out.as_str(), ran.err.as_str()), (Some(0), "", ""));
}

/// The server pings; a person thinks about the next line meanwhile.
#[test]
fn pings_are_answered_while_stdin_says_nothing() {
    let stage = Stage::new();
    let mut running = Running::start(&["pub", "den", "-", "--url", &stage.url()]);
    let mut peer = stage.welcome();
    assert_eq!(peer.barrier().len(), 0);
    running.stdin().write_all(b"at last\n").expect("a pipe has room");
    let command = peer.recv();
    assert_eq!((&command["content"], &command["id"]), (&json!("at last"), &json!(1)));
    peer.send(&json!({"type": "ack", "id": 1, "epoch": "e", "offset": 7}));
    assert_eq!(running.line(), "offset 7 epoch e");
    assert_eq!(running.end().code, Some(0));
}

#[test]
fn without_its_ack_a_message_is_not_said_to_be_there() {
    for (args, lines, line) in [
        (&["pub", "den", "hello"][..], "", "whether the message was taken is not known"),
        (
            &["pub", "den", "hello", "--key", "k", "--user", "u"],
            "",
            "whether the message was taken is not known: with the same --key it may be sent again",
        ),
        (
            &["pub", "den", "-"],
            "1\n2\n3\n",
            "whether 2 lines from line 2 on was taken is not known; nothing behind line 3 was sent",
        ),
    ] {
        let stage = Stage::new();
        let mut running = Running::start(&[args, &["--url", &stage.url()]].concat());
        running.stdin().write_all(lines.as_bytes()).expect("a pipe has room");
        let mut peer = stage.welcome();
        peer.recv();
        for _ in lines.lines().skip(1) {
            peer.recv();
        }
        if !lines.is_empty() {
            peer.send(&json!({"type": "ack", "id": 1}));
        }
        peer.close(1013, "full");
        // It ends by itself: stdin is still open.
        let err = running.note("whether");
        assert_eq!(err, format!("fanfare: the server closed the connection with 1013: full; {line}"));
        assert_eq!(running.end().code, Some(1));
    }
}

#[test]
fn an_unavailable_history_is_no_ack() {
    let stage = Stage::new();
    let running = Running::start(&["pub", "den", "hello", "--url", &stage.url()]);
    let mut peer = stage.welcome();
    let id = peer.recv()["id"].clone();
    peer.send(&json!({"type": "error", "id": id, "code": "unavailable", "message": "try again"}));
    let ran = running.end();
    assert_eq!((ran.code, ran.out.as_str()), (Some(1), ""));
    assert_eq!(ran.err, "fanfare: the server refused it: unavailable: try again\n");
}

#[test]
fn what_says_no_welcome_is_no_server_of_this_dialect() {
    let stage = Stage::new();
    let running = Running::start(&["pub", "den", "hello", "--url", &stage.url()]);
    stage.upgrade().send(&json!({"type": "hello"}));
    let ran = running.end();
    assert_eq!((ran.code, ran.out.as_str()), (Some(1), ""));
    assert!(ran.err.contains("is no welcome; name a server of this dialect, and / or /ws as the path"), "{}", ran.err);
}
