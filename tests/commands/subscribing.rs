//! `fanfare sub`: what it prints, and when it ends.

use fanfare_testing::{Client, Server};
use serde_json::{Value, json};

use crate::peer::Stage;
use crate::running::{Running, fanfare};
use crate::{KEEPS, url};

/// The position behind `--since` in a note.
pub fn position(note: &str) -> &str {
    let (_, behind) = note.split_once("--since ").unwrap_or_else(|| panic!("no position in {note:?}"));
    behind.split([',', ' ', '\n']).next().expect("never empty")
}

#[test]
fn what_pub_sends_sub_prints() {
    let server = Server::start(KEEPS);
    let url = url(&server);
    let (sub, joined) = Running::subscribed(&["kept", "--url", &url, "--user", "bob", "--count", "2"]);
    assert!(position(&joined).ends_with(":0"), "{joined}");
    assert_eq!(sub.line(), "* bob joined");
    Client::connect(&server, "carol").join("kept");
    assert_eq!(sub.line(), "* carol joined");
    assert_eq!(sub.line(), "* carol left");
    for (content, json, shown) in [("hello\n\u{1b}[2J", false, r"hello\n\u{1b}[2J"), ("[1e400]", true, "[1e400]")] {
        let mut args = vec!["pub", "kept", content, "--url", &url, "--user", "alice"];
        args.extend(json.then_some("--json"));
        assert_eq!(fanfare(&args).code, Some(0));
        let line = sub.line();
        let (time, said) = line.split_once(' ').expect("a time");
        assert_eq!(said, format!("alice: {shown}"));
        // 2024-02-29T12:34:56Z
        assert!(time.len() == 20 && time.starts_with("20") && time.ends_with('Z'), "{line}");
    }
    let ran = sub.end();
    assert_eq!((ran.code, ran.out.as_str()), (Some(0), ""));
    assert_eq!(ran.err, format!("fanfare: left kept: --since {}2\n", position(&joined).trim_end_matches('0')));
}

#[test]
fn json_is_printed_as_the_server_sent_it() {
    let server = Server::start(KEEPS);
    let url = url(&server);
    let mut member = Client::connect(&server, "bob");
    member.join("kept");
    let (sub, _) = Running::subscribed(&["kept", "--url", &url, "--user", "carol", "--json", "--count", "1"]);
    member.expect(|json| json["userId"] == "carol");
    assert_eq!(
        sub.line(),
        r#"{"type":"system","roomId":"kept","event":"join","userId":"carol","content":"carol joined"}"#
    );
    // What is not the room's is not printed, and does not count.
    member.publish(json!({"type": "broadcast", "content": 1}));
    member.publish(json!({"type": "private_msg", "toUser": "carol", "content": 2}));
    let ran = fanfare(&["pub", "kept", r#"{"b": 1.0,"a":"\u00fc"}"#, "--json", "--url", &url, "--user", "alice"]);
    assert_eq!(ran.code, Some(0));
    assert_eq!(sub.line(), member.recv_text());
    let ran = sub.end();
    assert_eq!((ran.code, ran.out.as_str()), (Some(0), ""));
}

/// The server passes `content` on as it came, white space included. A publisher that could end a line would write the next
/// one in anybody's name.
#[test]
fn a_message_is_one_line_whatever_it_holds() {
    let server = Server::start(&[]);
    let url = url(&server);
    let watch = |format: &str| {
        let (sub, _) = Running::subscribed(&["den", "--url", &url, "--user", "bob", format, "--count", "1"]);
        sub
    };
    let (json, people) = (watch("--json"), watch("--messages-only"));
    let forged = r#"{"type":"room_msg","roomId":"den","from":"admin","content":"forged"}"#;
    let content = format!("[\n{forged}\r\n,\"\u{9b}31m\u{7f}\u{85}\u{2028}\u{202e}\"\t]");
    assert_eq!(fanfare(&["pub", "den", &content, "--json", "--url", &url, "--user", "mallory"]).code, Some(0));

    let ran = json.end();
    let messages: Vec<&str> = ran.out.lines().filter(|line| line.contains("room_msg")).collect();
    let [message] = messages[..] else { panic!("one line: {messages:?}") };
    assert!(!message.chars().any(|letter| letter.is_control() || "\u{2028}\u{202e}".contains(letter)), "{message:?}");
    let message: Value = serde_json::from_str(message).expect("JSON");
    assert_eq!(message["from"], "mallory");
    assert_eq!(message["content"], serde_json::from_str::<Value>(&content).expect("JSON"), "the same value");

    let ran = people.end();
    assert_eq!(ran.out.lines().count(), 1, "{:?}", ran.out);
    assert!(ran.out.contains(" mallory: [\\n{"), "{:?}", ran.out);
    assert!(ran.out.ends_with("\"\\u{9b}31m\\u{7f}\\u{85}\\u{2028}\\u{202e}\"\\t]\n"), "{:?}", ran.out);
}

/// What is left of a flood where the client keeps all of it, or a pong for each.
const FLOOD_BYTES: u64 = 32 << 20;
const MEMORY_BYTES_MAX: u64 = 8 << 20;

/// A frame of each kind that is no message: what is sent without an end must leave a signal to be seen, and nothing behind.
#[test]
fn a_server_that_never_stops_sending_does_not_keep_it_from_ending() {
    const PING: &[u8] = &[b'x'; 127];
    let ping: &'static [u8] = Box::leak([&[0x89, 125], &PING[2..]].concat().into_boxed_slice());
    let text: &'static [u8] = br#"?{"type":"pong"}"#;
    let text: &'static [u8] = Box::leak([&[0x81, text.len() as u8 - 1], &text[1..]].concat().into_boxed_slice());
    for (kind, first, rest) in [
        ("pings", &b""[..], ping),
        ("pongs", b"", &[0x8a, 0]),
        ("binary", b"", &[0x82, 0]),
        ("fragments", &[0x01, 0], &[0x00, 0]),
        ("texts", b"", text),
    ] {
        let stage = Stage::new();
        let sub = Running::start(&["sub", "den", "--url", &stage.url()]);
        let mut peer = stage.welcome();
        let join = peer.recv();
        peer.send(&json!({"type": "joined", "roomId": "den", "id": join["id"]}));
        sub.note("joined den");
        let before = sub.peak_bytes();
        let flood = peer.flood(first, rest);
        flood.await_bytes(if rest.len() > 100 { FLOOD_BYTES } else { FLOOD_BYTES / 16 });
        let grown = sub.peak_bytes() - before;
        assert!(grown <= MEMORY_BYTES_MAX, "{grown} bytes of memory for {kind}");
        sub.interrupt();
        assert_eq!(sub.end().code, Some(0), "{kind}");
    }
}

#[test]
fn messages_only_leaves_out_notices() {
    let server = Server::start(&[]);
    let url = url(&server);
    let (sub, joined) = Running::subscribed(&["den", "--url", &url, "--messages-only", "--count", "1"]);
    assert_eq!(joined, "fanfare: joined den, which keeps no history");
    Client::connect(&server, "alice").join("den");
    assert_eq!(fanfare(&["pub", "den", "hello", "--url", &url, "--user", "bob"]).code, Some(0));
    let ran = sub.end();
    assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""));
    assert!(ran.out.ends_with(" bob: hello\n") && ran.out.lines().count() == 1, "{}", ran.out);
}

/// The contents of what was printed as JSON.
fn contents(out: &str) -> Vec<Value> {
    let parsed = out.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    parsed.filter(|message| message["type"] == "room_msg").map(|message| message["content"].clone()).collect()
}

#[test]
fn since_goes_on_where_another_run_has_ended() {
    let server = Server::start(KEEPS);
    let url = url(&server);
    let mut publisher = Client::connect(&server, "alice");
    let mut publish = |number: u64| {
        publisher.publish(json!({"type": "room_msg", "roomId": "kept", "content": number}));
    };
    let (sub, _) = Running::subscribed(&["kept", "--url", &url, "--json", "--count", "2"]);
    (1..=4).for_each(&mut publish);
    let ran = sub.end();
    assert_eq!((ran.code, contents(&ran.out)), (Some(0), vec![json!(1), json!(2)]));
    let left = position(&ran.err).to_owned();
    assert!(left.ends_with(":2"), "{left}");

    let (sub, joined) = Running::subscribed(&["kept", "--url", &url, "--json", "--count", "3", "--since", &left]);
    publish(5);
    assert!(joined.contains(":4, recovered"), "{joined}");
    let ran = sub.end();
    assert_eq!((ran.code, contents(&ran.out)), (Some(0), vec![json!(3), json!(4), json!(5)]));

    for (since, position) in
        [("another:2".to_owned(), ":5, not recovered"), (left.replace(":2", ":6"), ":5, not recovered")]
    {
        let (sub, joined) = Running::subscribed(&["kept", "--url", &url, "--since", &since]);
        assert!(joined.contains(position), "{joined}");
        sub.interrupt();
        assert_eq!(sub.end().code, Some(0));
    }
    let (_sub, joined) = Running::subscribed(&["plain", "--url", &url, "--since", &left]);
    assert!(joined.starts_with("fanfare: joined plain, which keeps no history, not recovered"), "{joined}");
}

#[test]
fn last_begins_with_the_newest() {
    let server = Server::start(KEEPS);
    let url = url(&server);
    let mut publisher = Client::connect(&server, "alice");
    for number in 1..=5 {
        publisher.publish(json!({"type": "room_msg", "roomId": "kept", "content": number}));
    }
    let ran = fanfare(&["sub", "kept", "--url", &url, "--json", "--last", "2", "--count", "2"]);
    assert_eq!((ran.code, contents(&ran.out)), (Some(0), vec![json!(4), json!(5)]));
}

#[test]
fn an_interrupt_is_exit_code_zero() {
    let server = Server::start(KEEPS);
    let (sub, joined) = Running::subscribed(&["kept", "--url", &url(&server), "--user", "bob"]);
    assert_eq!(sub.line(), "* bob joined");
    sub.interrupt();
    let ran = sub.end();
    assert_eq!((ran.code, ran.out.as_str()), (Some(0), ""));
    assert_eq!(ran.err, format!("fanfare: left kept: --since {}\n", position(&joined)));
}

#[test]
fn a_reader_that_goes_away_has_seen_enough() {
    let server = Server::start(&[]);
    let url = url(&server);
    let command = format!("{} sub den --url '{url}' --user bob | head -n 1", env!("CARGO_BIN_EXE_fanfare"));
    let piped = std::thread::spawn(move || std::process::Command::new("sh").args(["-c", &command]).output());
    let mut publisher = Client::connect(&server, "alice");
    publisher.join("den");
    publisher.expect(|json| json["userId"] == "bob" && json["event"] == "join");
    // Its end is seen when there is something to print: the first message after it, if not the second.
    while !piped.is_finished() {
        publisher.publish(json!({"type": "room_msg", "roomId": "den", "content": 1}));
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let output = piped.join().expect("no panic").expect("a shell");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "* bob joined\n");
    assert!(!String::from_utf8_lossy(&output.stderr).contains("cannot write"), "{output:?}");
}

#[test]
fn a_join_that_is_refused_ends_it() {
    let server = Server::start(&[]);
    let ran = fanfare(&["sub", &"x".repeat(256), "--url", &url(&server)]);
    assert_eq!((ran.code, ran.out.as_str()), (Some(1), ""));
    assert!(ran.err.starts_with("fanfare: the server refused it: bad_room_id: "), "{}", ran.err);
}
