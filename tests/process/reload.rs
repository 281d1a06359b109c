//! SIGHUP and `fanfare reload` have the configuration read again: all of it or nothing, and what cannot change is named.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use fanfare_testing::raw::{RawConn, TEXT, status_of, upgrade_request};
use fanfare_testing::{Client, Server, Signal, eventually, http_ask, http_get, run_fanfare, temporary_path, wrap};
use serde_json::{Value, json};

/// A configuration file, removed when dropped.
pub struct File(PathBuf);

impl File {
    pub fn new(text: &str) -> File {
        let file = File(temporary_path("toml"));
        file.write(text);
        file
    }

    pub fn write(&self, text: &str) {
        fs::write(&self.0, text).expect("a file of our own");
    }

    pub fn path(&self) -> &str {
        self.0.to_str().expect("a path of our own")
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// A server with this file.
pub fn start(file: &File, settings: &[&str]) -> Server {
    let caught = |command: &mut Command| wrap(command, "env", &["--default-signal=HUP", "--unset=RUST_LOG"]);
    Server::changed(caught, &[&["--config", file.path(), "--reactors", "2"], settings].concat())
}

/// `fanfare reload`: its exit code, and what it says.
fn reload(server: &Server) -> (Option<i32>, String) {
    let (code, stdout, stderr) = run_fanfare(&["reload", &server.addr().to_string()], &[]);
    (code, stdout + &stderr)
}

fn joins(client: &mut Client, rooms: &[&str]) -> Vec<Value> {
    rooms.iter().map(|room| client.request(json!({"type": "join_room", "roomId": room}))["type"].clone()).collect()
}

#[test]
fn limits_and_texts_change_for_connections_that_are_there() {
    let file = File::new("[limits]\nrooms_max = 1\n");
    let server = start(&file, &[]);
    let mut alice = Client::connect(&server, "alice");
    assert_eq!(joins(&mut alice, &["a", "b"]), ["joined", "error"]);
    file.write("[limits]\nrooms_max = 3\nmessage_bytes_max = \"2KiB\"\n[rooms]\njoin_text = \"{user} is here\"\n");
    assert_eq!(joins(&mut alice, &["b"]), ["error"], "nothing is read by itself");
    let (code, said) = reload(&server);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(said, "changed: limits.message_bytes_max, limits.rooms_max, rooms.join_text\n");
    assert_eq!(joins(&mut alice, &["b", "c", "d"]), ["joined", "joined", "error"]);
    let mut bob = Client::connect(&server, "bob");
    bob.join("a");
    assert_eq!(alice.expect(|message| message["userId"] == "bob")["content"], "bob is here");
    let mut raw = RawConn::connect_as(&server, "carol");
    raw.send_frame(TEXT, &[b' '; 3_000]);
    raw.expect_close(1009, "the new bound holds");
    assert_eq!(reload(&server).1, "no setting has changed; keys and certificates were read again\n");
}

#[test]
fn what_needs_a_restart_is_named_and_the_rest_is_applied() {
    let file = File::new("[limits]\nrooms_max = 1\n");
    let server = start(&file, &[]);
    file.write("listen = [\"127.0.0.1:1\"]\n[limits]\nrooms_max = 2\n[heartbeat]\ninterval = \"1s\"\n[[listener]]\naddress = \"127.0.0.1:2\"\n");
    let (code, said) = reload(&server);
    assert_eq!(code, Some(0), "{said}");
    // The flag --listen of the server counts more than the file.
    let expected = "changed: limits.rooms_max\nneeds a restart, and is left as it was: heartbeat.interval, listener\n";
    assert_eq!(said, expected);
    assert_eq!(joins(&mut Client::connect(&server, "alice"), &["a", "b"]), ["joined", "joined"]);
    eventually("it is logged", || server.log().contains("needs a restart"));
}

#[test]
fn a_bad_file_changes_nothing_and_says_where() {
    let file = File::new("[limits]\nrooms_max = 1\n");
    let server = start(&file, &[]);
    for (text, what) in [
        ("[limits]\nrooms_max = 2\nrooms_maxx = 3\n", ":3:"),
        (
            "[limits]\nrooms_max = 2\n[[api.key]]\nname = \"x\"\nverbs = [\"read\"]\nsecret_file = \"/nowhere\"\n",
            "/nowhere",
        ),
        ("no toml", ":1:"),
    ] {
        file.write(text);
        let (code, said) = reload(&server);
        assert!(code == Some(1) && said.contains(what) && said.lines().count() == 1, "{text:?}: {code:?} {said}");
        assert_eq!(joins(&mut Client::connect(&server, "alice"), &["a", "b"]), ["joined", "error"], "{text:?}");
    }
    fs::remove_file(file.path()).expect("it was there");
    assert_eq!(reload(&server).0, Some(1));
    server.signal(Signal::HUP);
    eventually("the fault is logged", || {
        server.log().contains("cannot read the configuration again: the one before stays")
    });
    file.write("[limits]\nrooms_max = 2\n");
    assert_eq!(reload(&server).0, Some(0));
    assert_eq!(joins(&mut Client::connect(&server, "alice"), &["a", "b"]), ["joined", "joined"]);
}

#[test]
fn rules_for_rooms_hold_for_rooms_that_are_there_and_those_that_come() {
    let publish = |client: &mut Client, room: &str, content: u64| {
        client.publish(json!({"type": "room_msg", "roomId": room, "content": content}))
    };
    let contents = |client: &mut Client, room: &str| {
        client.send(&json!({"type": "join_room", "roomId": room, "last": 100, "id": 1}));
        let before = client.until(|message| message["type"] == "joined");
        before.iter().filter_map(|message| message["content"].as_u64()).collect::<Vec<_>>()
    };
    let rule = |size: u32| format!("[[room]]\nmatch = \"kept*\"\nhistory.size = {size}\nhistory.ttl = \"1h\"\n");
    let file = File::new(&rule(5));
    let server = start(&file, &[]);
    let mut alice = Client::connect(&server, "alice");
    alice.join("kept");
    alice.join("plain");
    (1..=7).for_each(|content| drop(publish(&mut alice, "kept", content)));
    assert_eq!(contents(&mut Client::connect(&server, "bob"), "kept"), [3, 4, 5, 6, 7]);
    file.write(&(rule(3) + "[[room]]\nmatch = \"*\"\nhistory.size = 10\n"));
    assert_eq!(reload(&server).1, "changed: room\n");
    eventually("the narrower bound holds", || {
        publish(&mut alice, "kept", 9);
        contents(&mut Client::connect(&server, "bob"), "kept") == [9, 9, 9]
    });
    // A promise to those who are members already is kept as it was given.
    assert!(publish(&mut alice, "plain", 1).get("offset").is_none());
    alice.join("new");
    assert_eq!(publish(&mut alice, "new", 1)["offset"], 1);
    file.write("");
    assert_eq!(reload(&server).1, "changed: room\n");
    assert!(publish(&mut alice, "kept", 10).get("offset").is_some());
    alice.join("newer");
    assert!(publish(&mut alice, "newer", 1).get("offset").is_none());
}

#[test]
fn permissions_and_origins_change_for_those_who_come() {
    let text = |anonymous: bool, join: &str| {
        format!(
            "[auth]\nanonymous = {anonymous}\norigins = [\"https://{join}.example\"]\n[auth.default]\njoin = [\"{join}\"]\n\
             [[auth.key]]\nalg = \"HS256\"\nsecret = \"a secret of at least 32 bytes, here\"\n"
        )
    };
    let file = File::new(&text(true, "a"));
    let server = start(&file, &[]);
    let status = |origin: &str| {
        let mut conn = RawConn::connect(&server);
        conn.send(upgrade_request("/", &[("Origin", origin)]).as_bytes());
        status_of(&conn.read_head())
    };
    let mut before = Client::anonymous(&server);
    assert_eq!(joins(&mut before, &["a", "b"]), ["joined", "error"]);
    assert_eq!((status("https://a.example"), status("https://b.example")), (101, 403));
    file.write(&text(true, "b"));
    assert_eq!(reload(&server).1, "changed: auth.origins, auth.default.join\n");
    assert_eq!(joins(&mut Client::anonymous(&server), &["a", "b"]), ["error", "joined"]);
    assert_eq!(joins(&mut before, &["b"]), ["error"], "what was granted stays");
    assert_eq!((status("https://a.example"), status("https://b.example")), (403, 101));
    file.write(&text(false, "b"));
    assert_eq!(reload(&server).1, "changed: auth.anonymous\n");
    assert_eq!(status("https://b.example"), 401);
    // Without keys everybody would be let in: that is not what a slip in a file is to do.
    file.write("");
    let (code, said) = reload(&server);
    assert_eq!((code, said.contains("auth.key") && said.starts_with("no setting")), (Some(0), true), "{said}");
    assert_eq!(status("https://b.example"), 401);
}

#[test]
fn the_level_of_the_log_changes() {
    let file = File::new("log_level = \"warn\"\n");
    let server = start(&file, &[]);
    assert!(!server.log().contains("serving"), "{}", server.log());
    file.write("log_level = \"debug\"\n");
    assert_eq!(reload(&server).1, "changed: log_level\n");
    Client::connect(&server, "alice").leave();
    server.signal(Signal::USR1);
    eventually("lines of the new level", || server.log().contains("signal ignored"));
    file.write("log_level = \"error\"\n");
    assert_eq!(reload(&server).1, "changed: log_level\n");
}

#[test]
fn only_the_operator_has_it_read() {
    let file = File::new("");
    let server = start(&file, &["--admin.listen", "127.0.0.2:0"]);
    let addr = server.addr();
    let post = |fields: &str| {
        http_ask(
            &server,
            &format!("POST /reload HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\nContent-Length: 0\r\n{fields}\r\n"),
        )
        .status
    };
    assert_eq!(post(""), 200);
    assert_eq!(post("X-Forwarded-For: 192.0.2.1\r\n"), 403, "a proxy passes it on");
    assert_eq!(post("Origin: https://evil.example\r\n"), 403, "a page has a browser ask");
    assert_eq!(http_get(&server, "/reload").status, 405);
    let admin = server.listeners()[1].trim_start_matches("http://").trim_end_matches('/').to_owned();
    assert_eq!(run_fanfare(&["reload", &admin], &[]).0, Some(0));
    assert_eq!(run_fanfare(&["reload", "127.0.0.1:1"], &[]).0, Some(2), "no server");
    let locked = start(&file, &["--admin.loopback", "false"]);
    let (code, said) = reload(&locked);
    assert!(code == Some(1) && said.contains("admin.listen"), "{said}");
}
