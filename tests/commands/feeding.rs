//! `fanfare feed`: what it sends, what it sends again, and up to where it has come.

use std::io::Write;

use fanfare_testing::{Client, Data, Redis, Server, eventually};
use serde_json::{Value, json};

use crate::peer::{Peer, Proxy, Stage};
use crate::running::{Running, fanfare_with};

const LINES: &[u8] =
    b"{\"item\":\"A\",\"content\":1.50}\n\n{\"item\":\"B\",\"remove\":true}\r\n{\"item\":\"A\",\"content\":{\"b\":1}}";

/// Feeds a scripted server from stdin.
fn feed(stage: &Stage, args: &[&str]) -> Running {
    Running::start(&[&["feed", "px", "--stdin", "--url", &stage.url()], args].concat())
}

fn ack(peer: &mut Peer, command: &Value) {
    peer.send(&json!({"type": "ack", "id": command["id"], "epoch": "e", "offset": 1}));
}

/// The lines of a command, by their contents.
fn contents(command: &Value) -> Vec<Value> {
    command["updates"].as_array().expect("updates").iter().map(|update| update["content"].clone()).collect()
}

#[test]
fn what_has_been_read_goes_as_one_command() {
    let stage = Stage::new();
    let mut running = feed(&stage, &[]);
    running.stdin().write_all(LINES).expect("it reads");
    let mut peer = stage.welcome();
    let command = peer.recv();
    assert_eq!((&command["type"], &command["roomId"]), (&json!("room_msgs"), &json!("px")));
    let updates = json!([{"item": "A", "content": 1.50}, {"item": "B", "remove": true}]);
    assert_eq!(command["updates"], updates, "the last line has no end yet");
    assert!(command["key"].as_str().is_some_and(|key| key.len() <= 64 && key.ends_with("-0")), "{command}");
    peer.send(&json!({"type": "ack", "id": command["id"], "epoch": "e", "offset": 2, "stale": [1]}));
    let finish = std::thread::spawn(|| running.end());
    let last = peer.recv();
    assert_eq!(last["updates"], json!([{"item": "A", "content": {"b": 1}}]));
    ack(&mut peer, &last);
    let ran = finish.join().expect("it ends");
    assert_eq!((ran.code, ran.out.as_str()), (Some(0), ""));
    assert_eq!(ran.err, "fanfare: 3 updates are acked, 1 of them were stale\n");
}

/// From a program's output to the screen of another, over a real server.
#[test]
fn what_is_fed_is_what_subscribers_see() {
    let server = Server::start(&["--room", "match=px*,keyed=true", "--rooms.notice_members_max", "0"]);
    let url = server.url("/?token=secret");
    let lines = b"{\"item\":\"AAPL\",\"content\":1}\n{\"item\":\"MSFT\",\"content\":\"two\"}\n{\"item\":\"AAPL\",\"content\":3}\n";
    let ran = fanfare_with(&["feed", "px", "--stdin", "--url", &url], lines);
    assert_eq!((ran.code, ran.err.as_str()), (Some(0), "fanfare: 3 updates are acked\n"));
    let latest = ["px", "--mode", "latest", "--interval", "10ms", "--url", &url];
    let (all, joined) = Running::subscribed(&latest);
    assert!(joined.ends_with(":3"), "{joined}");
    assert!(all.line().ends_with(" MSFT: two") && all.line().ends_with(" AAPL: 3"));
    let (some, _) = Running::subscribed(&[&latest[..], &["--items", "MSFT,G*", "--json"]].concat());
    let first: Value = serde_json::from_str(&some.line()).expect("JSON");
    assert_eq!((&first["item"], &first["seq"], &first["offset"]), (&json!("MSFT"), &json!(1), &json!(2)));
    let lines = b"{\"item\":\"AAPL\",\"remove\":true}\n{\"item\":\"GOOG\",\"content\":4,\"version\":7}\n";
    let ran = fanfare_with(&["feed", "px", "--stdin", "--url", &url], lines);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    assert!(all.line().ends_with(" AAPL is removed") && all.line().ends_with(" GOOG: 4"));
    let ran =
        fanfare_with(&["feed", "px", "--stdin", "--url", &url], b"{\"item\":\"GOOG\",\"content\":5,\"version\":6}");
    assert_eq!(ran.err, "fanfare: 1 updates are acked, 1 of them were stale\n");
    let told: Value = serde_json::from_str(&some.line()).expect("JSON");
    assert_eq!((&told["item"], &told["content"]), (&json!("GOOG"), &json!(4)));
    let ran = fanfare_with(&["feed", "plain", "--stdin", "--url", &url], LINES);
    assert_eq!(ran.code, Some(1));
    assert!(ran.err.contains("bad_options") && ran.err.contains("the room has to be keyed"), "{}", ran.err);
}

/// A server that is started again is fed again, and has every item that was published since.
#[test]
fn a_feed_outlives_its_server() {
    let server = Server::start(&["--room", "match=px*,keyed=true"]);
    let proxy = Proxy::to(server.addr());
    let mut witness = Client::connect(&server, "alice");
    witness.join("px");
    let mut running = Running::start(&["feed", "px", "--stdin", "--url", &proxy.url()]);
    let mut stdin = running.take_stdin();
    let mut lines = (0..).map(|number| format!("{{\"item\":\"I{}\",\"content\":{number}}}\n", number % 50));
    for _ in 0..5 {
        for line in lines.by_ref().take(200) {
            stdin.write_all(line.as_bytes()).expect("it reads");
        }
        // Only a connection that was there once is made again.
        let first = witness.expect_type("room_msg");
        assert!(first["from"].as_str().is_some_and(|user| user.starts_with("feed-")), "the same each time: {first}");
        proxy.cut();
        running.note("again in");
        proxy.mend();
    }
    let last = lines.next().expect("there is always one more");
    stdin.write_all(last.as_bytes()).expect("it reads");
    drop(stdin);
    let ran = running.end();
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    let mut member = Client::connect(&server, "bob");
    member.send(&json!({"type": "join_room", "roomId": "px", "mode": "latest", "id": 1}));
    let mut newest = 0;
    loop {
        let message = member.recv_json();
        match message["type"].as_str() {
            Some("room_msg") => newest = newest.max(message["content"].as_u64().expect("a number")),
            // Each of them once: what was sent again was known by its key.
            Some("joined") => break assert_eq!(message["offset"], 1001, "{message}"),
            _ => {}
        }
    }
    assert_eq!(newest, 1000);
}

#[test]
fn a_bad_line_is_told_with_its_number_and_left_out_or_is_the_end() {
    let lines =
        b"{\"item\":\"A\",\"content\":1}\n{\"item\":\"A*\",\"content\":2}\nnonsense\n{\"item\":\"A\",\"content\":3}\n";
    for (args, expected, last) in [
        (&[][..], vec![json!(1), json!(3)], "2 lines or entries were bad"),
        (&["--strict"], vec![json!(1)], "(--strict)"),
    ] {
        let stage = Stage::new();
        let mut running = feed(&stage, args);
        running.stdin().write_all(lines).expect("it reads");
        let finish = std::thread::spawn(|| running.end());
        let mut peer = stage.welcome();
        let command = peer.recv();
        assert_eq!(contents(&command), expected);
        ack(&mut peer, &command);
        let ran = finish.join().expect("it ends");
        assert_eq!(ran.code, Some(1), "{}", ran.err);
        assert!(ran.err.contains("line 2: has an item that is none"), "{}", ran.err);
        assert!(ran.err.contains(last), "{}", ran.err);
    }
}

#[test]
fn an_update_that_the_server_refuses_is_told_and_the_others_go_again() {
    let stage = Stage::new();
    let mut running = feed(&stage, &[]);
    running.stdin().write_all(&[LINES, b"\n"].concat()).expect("it reads");
    let mut peer = stage.welcome();
    let command = peer.recv();
    assert_eq!(contents(&command).len(), 3);
    peer.send(&json!({"type": "error", "id": command["id"], "code": "too_many_items", "message": "full", "index": 1}));
    let again = peer.recv();
    assert_eq!((&again["id"], &again["key"]), (&command["id"], &command["key"]));
    assert_eq!(contents(&again), [json!(1.5), json!({"b": 1})]);
    ack(&mut peer, &again);
    let ran = running.end();
    assert_eq!(ran.code, Some(1), "{}", ran.err);
    assert!(ran.err.contains("line 3: the server refused it: too_many_items: full"), "{}", ran.err);
}

#[test]
fn what_is_not_acked_goes_again_to_the_next_server_with_its_key() {
    let (first, second) = (Stage::new(), Stage::new());
    let mut running = feed(&first, &["--url", &second.url(), "--batch", "1"]);
    running.stdin().write_all(LINES).expect("it reads");
    let mut peer = first.welcome();
    let commands = [peer.recv(), peer.recv()];
    ack(&mut peer, &commands[0]);
    peer.close(1001, r#"{"retry_ms":1}"#);
    let mut peer = second.welcome();
    assert_eq!(peer.recv(), commands[1]);
    ack(&mut peer, &commands[1]);
    let finish = std::thread::spawn(|| running.end());
    let last = peer.recv();
    ack(&mut peer, &last);
    let ran = finish.join().expect("it ends");
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    assert!(ran.err.contains("the server is going away (1001); again in 1 ms with"), "{}", ran.err);
    assert!(ran.err.contains("3 updates are acked, 1 times the connection was opened again"), "{}", ran.err);
    assert!(!ran.err.contains("secret"), "{}", ran.err);
}

#[test]
fn what_is_refused_for_now_goes_again_later() {
    let stage = Stage::new();
    let mut running = feed(&stage, &["--batch", "1"]);
    running.stdin().write_all(LINES).expect("it reads");
    let mut peer = stage.welcome();
    let commands = [peer.recv(), peer.recv()];
    for command in &commands {
        peer.send(&json!({"type": "error", "id": command["id"], "code": "unavailable", "message": "no Redis"}));
    }
    for command in &commands {
        assert_eq!(&peer.recv(), command);
        ack(&mut peer, command);
    }
    let note = running.note("unavailable");
    assert!(note.contains("it is sent again every 500ms"), "{note}");
    let finish = std::thread::spawn(|| running.end());
    let last = peer.recv();
    ack(&mut peer, &last);
    assert_eq!(finish.join().expect("it ends").code, Some(0));
}

#[test]
fn no_more_is_read_than_may_wait_for_acks() {
    let stage = Stage::new();
    let mut running = feed(&stage, &["--batch", "1"]);
    let mut stdin = running.take_stdin();
    let writer = std::thread::spawn(move || {
        let line = format!("{{\"item\":\"A\",\"content\":\"{}\"}}\n", "x".repeat(1000));
        (0..2_000).try_for_each(|_| stdin.write_all(line.as_bytes())).map(|()| drop(stdin))
    });
    let mut peer = stage.welcome();
    let mut commands: Vec<Value> = (0..64).map(|_| peer.recv()).collect();
    assert_eq!(peer.barrier(), Vec::<Value>::new(), "the window is full");
    assert!(!writer.is_finished(), "a pipe, a buffer and a window do not hold two megabytes");
    let finish = std::thread::spawn(|| running.end());
    let mut count = 0;
    while let Some(command) = commands.pop() {
        count += 1;
        ack(&mut peer, &command);
        if count + commands.len() < 2_000 && commands.is_empty() {
            commands.push(peer.recv());
        }
    }
    writer.join().expect("it writes").expect("all is read");
    let ran = finish.join().expect("it ends");
    assert_eq!((ran.code, ran.err.as_str()), (Some(0), "fanfare: 2000 updates are acked\n"));
}

#[test]
fn what_no_retry_will_mend_is_the_end() {
    let stage = Stage::new();
    let mut running = feed(&stage, &[]);
    running.stdin().write_all(LINES).expect("it reads");
    let mut peer = stage.welcome();
    let command = peer.recv();
    peer.send(&json!({"type": "error", "id": command["id"], "code": "bad_options", "message": "not keyed"}));
    let ran = running.end();
    assert_eq!(ran.code, Some(1));
    assert!(
        ran.err.contains("the room has to be keyed: [[room]]") && ran.err.contains("begins with line 1"),
        "{}",
        ran.err
    );

    let mut running = feed(&stage, &[]);
    running.stdin().write_all(LINES).expect("it reads");
    let mut peer = stage.welcome();
    peer.recv();
    peer.close(1009, "too big");
    let ran = running.end();
    assert_eq!(ran.code, Some(1));
    assert!(ran.err.contains("lower --batch-bytes") && ran.err.contains("from line 1 on"), "{}", ran.err);
}

/// As many lines as are acked, whoever hears a signal.
#[test]
fn a_signal_waits_for_what_is_on_its_way() {
    let stage = Stage::new();
    let mut running = feed(&stage, &["--batch", "1"]);
    running.stdin().write_all(LINES).expect("it reads");
    let mut peer = stage.welcome();
    let commands = [peer.recv(), peer.recv()];
    running.interrupt();
    for command in &commands {
        ack(&mut peer, command);
    }
    let ran = running.end();
    assert_eq!((ran.code, ran.err.as_str()), (Some(0), "fanfare: 2 updates are acked\n"));
}

#[test]
fn a_stream_goes_on_where_it_was_acked() {
    let redis = Redis::start();
    let add = |id: &str, fields: &[&str]| {
        redis.command(&[&["XADD", "ticks", id], fields].concat());
    };
    add("1-0", &["item", "A", "content", "1"]);
    add("1-1", &["item", "A", "content", "2", "source", "x"]);
    let stage = Stage::new();
    let start = |args: &[&str]| {
        let url = redis.url();
        let feed = ["feed", "px", "--redis-stream", "ticks", "--redis-url", &url, "--url", &stage.url()];
        Running::start(&[&feed[..], args].concat())
    };
    let running = start(&[]);
    running.note("reads the stream behind 0-0");
    let mut peer = stage.welcome();
    let command = peer.recv();
    let version = |ms: u64, sequence: u64| ms << 21 | sequence;
    let updates = json!([
        {"item": "A", "content": 1, "version": version(1, 0)},
        {"item": "A", "content": 2, "version": version(1, 1)},
    ]);
    assert_eq!(command["updates"], updates);
    ack(&mut peer, &command);
    eventually("the place is kept", || redis.command(&["GET", "ticks:fanfare:px"]) == "1-1");
    // Two that are not acked before the end, of which the second is none.
    add("2-0", &["item", "B", "content", "3"]);
    add("2-1", &["item", "B", "content", "nonsense"]);
    let lost = peer.recv();
    assert_eq!(lost["updates"].as_array().map(Vec::len), Some(1));
    drop(running);
    let running = start(&["--no-versions"]);
    running.note("reads the stream behind 1-1");
    let mut peer = stage.welcome();
    let command = peer.recv();
    assert_eq!(command["updates"], json!([{"item": "B", "content": 3}]));
    running.note("entry 2-1: its content is no JSON");
    running.interrupt();
    ack(&mut peer, &command);
    let ran = running.end();
    assert_eq!(ran.code, Some(1), "one was bad: {}", ran.err);
    // The bad one is done with, too, where it was read together with the other.
    assert!(["2-0", "2-1"].contains(&redis.command(&["GET", "ticks:fanfare:px"]).as_str()));
}

#[test]
fn a_stream_begins_where_it_is_told_to() {
    let redis = Redis::start();
    redis.command(&["XADD", "ticks", "1-0", "item", "A", "content", "1"]);
    let stage = Stage::new();
    let url = redis.url();
    let start = |from: &str, key: &str| {
        let stage_url = stage.url();
        Running::start(&[
            "feed",
            "px",
            "--redis-stream",
            "ticks",
            "--redis-url",
            &url,
            "--url",
            &stage_url,
            "--from",
            from,
            "--position-key",
            key,
        ])
    };
    let running = start("$", "end");
    running.note("reads the stream behind 1-0");
    let mut peer = stage.welcome();
    redis.command(&["XADD", "ticks", "1-1", "item", "A", "content", "2"]);
    assert_eq!(contents(&peer.recv()), [json!(2)]);
    drop(running);
    let running = start("0", "beginning");
    running.note("reads the stream behind 0");
    assert_eq!(contents(&stage.welcome().recv()), [json!(1), json!(2)]);
}

#[test]
fn the_documented_user_is_enough() {
    let redis = Redis::start();
    let document = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/redis.md")).expect("it is there");
    let line = document.lines().find(|line| line.starts_with("ACL SETUSER feed ")).expect("the line of the user");
    assert_eq!(redis.command(&line.split_whitespace().collect::<Vec<_>>()), "OK");
    redis.command(&["XADD", "ticks", "1-0", "item", "A", "content", "1"]);
    let url = format!("redis://feed:PASSWORD@{}/", redis.addr());
    for from in ["$", "0"] {
        let stage = Stage::new();
        let running = Running::start(&[
            "feed",
            "px",
            "--redis-stream",
            "ticks",
            "--redis-url",
            &url,
            "--url",
            &stage.url(),
            "--from",
            from,
        ]);
        let mut peer = stage.welcome();
        if from == "0" {
            let command = peer.recv();
            ack(&mut peer, &command);
        }
        running.interrupt();
        assert_eq!(running.end().code, Some(0));
    }
    assert_eq!(redis.command(&["GET", "ticks:fanfare:px"]), "1-0");
    assert_eq!(redis.command(&["ACL", "LOG"]), "", "nothing was refused");
}

/// A Redis that goes away and comes back is told of, and nothing is lost.
#[test]
fn a_stream_that_is_lost_comes_back() {
    let mut redis = Redis::durable();
    redis.command(&["XADD", "ticks", "1-0", "item", "A", "content", "1"]);
    let stage = Stage::new();
    let running =
        Running::start(&["feed", "px", "--redis-stream", "ticks", "--redis-url", &redis.url(), "--url", &stage.url()]);
    let mut peer = stage.welcome();
    let command = peer.recv();
    ack(&mut peer, &command);
    eventually("the place is kept", || redis.command(&["GET", "ticks:fanfare:px"]) == "1-0");
    redis.kill();
    running.note("the stream cannot be read: ");
    redis.restart(Data::Kept);
    running.note("the stream is there again");
    redis.command(&["XADD", "ticks", "2-0", "item", "A", "content", "2"]);
    assert_eq!(contents(&peer.recv()), [json!(2)]);
}

#[test]
fn a_wrong_command_line_is_one_clear_line() {
    for (args, line) in [
        (&["feed"][..], "feed needs a room; say fanfare feed ROOM --stdin, or --redis-stream NAME"),
        (&["feed", "px"], "say where updates come from: --stdin, or --redis-stream NAME"),
        (
            &["feed", "px", "--stdin", "--redis-stream", "s"],
            "--stdin and --redis-stream are two sources; give one of them",
        ),
        (&["feed", "px", "--stdin", "--from", "$"], "--from is for --redis-stream; leave it out"),
        (&["feed", "px", "--redis-stream", "s"], "say where the stream is: --redis-url redis://HOST:PORT/"),
        (
            &["feed", "px", "--redis-stream", "s", "--redis-url", "redis://:secret@h/", "--from", "x"],
            "--from: \"x\" is no id; write MS-SEQUENCE, or $ for the newest",
        ),
        (
            &["feed", "px", "--redis-stream", "s", "--redis-url", "redis://h/", "--position-key", "s"],
            "--position-key is the stream itself; name another key",
        ),
        (&["feed", "px", "--stdin", "--batch", "0"], "--batch: \"0\" is out of bounds; write 1 to 10000"),
        (&["feed", "px", "--stdni"], "unknown flag --stdni; did you mean --stdin?"),
    ] {
        let ran = fanfare_with(args, b"");
        assert_eq!((ran.code, ran.out.as_str(), ran.err), (Some(2), "", format!("fanfare: {line}\n")), "{args:?}");
    }
    let ran = fanfare_with(&["feed", "px", "--redis-stream", "s", "--redis-url", "redis://:secret@127.0.0.1:1/"], b"");
    assert_eq!(ran.code, Some(1));
    assert!(ran.err.starts_with("fanfare: the stream cannot be read: "), "{}", ran.err);
    assert!(!ran.err.contains("secret"), "{}", ran.err);
}
