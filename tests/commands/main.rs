//! `fanfare pub`, `sub`, `presence` and `feed` against the built server, and against servers that do what it seldom does.

mod feeding;
mod peer;
mod publishing;
mod returning;
mod running;
mod secure;
mod subscribing;
mod tokens;

use std::net::TcpListener;

use fanfare_testing::{Client, Server, remove_socket, socket_path};

use running::fanfare;

/// Rooms that keep history, and others.
const KEEPS: &[&str] = &["--room", "match=kept*,history.size=1000,history.ttl=1h"];

/// The URL of a server, with what must never be printed.
fn url(server: &Server) -> String {
    server.url("/?token=secret")
}

#[test]
fn presence_says_how_many_and_who() {
    let server = Server::start(&[]);
    let url = url(&server);
    let mut members: Vec<Client> =
        ["bob", "alice", "a\nb", "bob"].iter().map(|user| Client::connect(&server, user)).collect();
    for member in &mut members {
        member.join("den");
    }
    let ran = fanfare(&["presence", "den", "--url", &url]);
    assert_eq!((ran.code, ran.out.as_str(), ran.err.as_str()), (Some(0), "3\na\\nb\nalice\nbob\n", ""));
    let ran = fanfare(&["presence", "nobody's", "--url", &url, "--user", "carol"]);
    assert_eq!((ran.code, ran.out.as_str(), ran.err.as_str()), (Some(0), "0\n", ""));
    let ran = fanfare(&["presence", "nobody's", "--url", &url, "--json"]);
    let reply = r#"{"type":"presence","roomId":"nobody's","count":0,"users":[],"id":1}"#;
    assert_eq!((ran.code, ran.out, ran.err.as_str()), (Some(0), format!("{reply}\n"), ""));
    let ran = fanfare(&["presence", "", "--url", &url]);
    assert_eq!((ran.code, ran.out.as_str()), (Some(1), ""));
    assert!(ran.err.starts_with("fanfare: the server refused it: bad_room_id: "), "{}", ran.err);
}

#[test]
fn names_that_others_chose_stay_on_their_line() {
    let server = Server::start(&[]);
    let url = url(&server);
    let mut members: Vec<Client> =
        ["\u{9b}2J", "a\u{2028}b", "\u{202e}eve\u{7f}"].iter().map(|user| Client::connect(&server, user)).collect();
    for member in &mut members {
        member.join("den");
    }
    let ran = fanfare(&["presence", "den", "--url", &url]);
    assert_eq!(ran.out, "3\na\\u{2028}b\n\\u{9b}2J\n\\u{202e}eve\\u{7f}\n");
    let ran = fanfare(&["presence", "den", "--url", &url, "--json"]);
    let line = ran.out.strip_suffix('\n').expect("a line");
    assert!(!line.chars().any(|letter| letter.is_control() || "\u{2028}\u{202e}".contains(letter)), "{line:?}");
    let reply: serde_json::Value = serde_json::from_str(line).expect("JSON");
    assert_eq!(reply["users"].as_array().map(Vec::len), Some(3));
}

/// A deadline is one, whatever comes meanwhile.
#[test]
fn an_answer_that_does_not_come_is_not_waited_for_longer_because_of_pings() {
    let stage = peer::Stage::new();
    let presence = running::Running::start(&["presence", "den", "--url", &stage.url()]);
    let mut server = stage.welcome();
    server.recv();
    let _flood = server.flood(b"", &[0x89, 0]);
    let ran = presence.end();
    assert_eq!((ran.code, ran.out.as_str()), (Some(1), ""));
    assert!(ran.err.contains("no answer within 10s"), "{}", ran.err);
}

#[test]
fn a_unix_socket_is_a_server_too() {
    let path = socket_path();
    let listen = format!("unix:{}", path.display());
    let _server = Server::start(&["--listen", &listen]);
    let ran = fanfare(&["pub", "den", "hello", "--url", &listen]);
    assert_eq!((ran.code, ran.out.as_str(), ran.err.as_str()), (Some(0), "", ""));
    let ran = fanfare(&["presence", "den", "--url", "unix:/nowhere/f.sock?token=secret"]);
    assert_eq!(ran.code, Some(1));
    assert_eq!(
        ran.err,
        "fanfare: cannot connect to unix:/nowhere/f.sock: No such file or directory (os error 2); start the server, or \
         name it with --url\n"
    );
    remove_socket(&path);
}

/// A server that cannot be reached is exit code 1 for every command; the secret in its URL is shown by none.
#[test]
fn a_server_that_is_not_there_is_one_clear_line() {
    let nobody = {
        let listener = TcpListener::bind("127.0.0.81:0").expect("a free port");
        listener.local_addr().expect("it is bound")
    };
    // Too long for a label (RFC 1035 §2.3.4): no name server is asked.
    let unknown = format!("{}.example", "x".repeat(64));
    let server = Server::start(&[]);
    for (url, line) in [
        (
            format!("ws://{nobody}/ws?token=secret"),
            format!(
                "cannot connect to ws://{nobody}/ws: Connection refused (os error 111); start the server, or name it \
                 with --url"
            ),
        ),
        (format!("ws://{unknown}/?token=secret"), format!("cannot find the host of ws://{unknown}/: ")),
        (server.url("/nowhere?token=secret"), format!("{} answered 404 Not Found", server.url("/nowhere"))),
        (
            server.url("/nowhere"),
            format!("{} answered 404 Not Found: no WebSocket endpoint here", server.url("/nowhere")),
        ),
    ] {
        for command in [&["pub", "den", "hello"][..], &["sub", "den"], &["presence", "den"]] {
            let ran = fanfare(&[command, &["--url", &url]].concat());
            assert_eq!((ran.code, ran.out.as_str()), (Some(1), ""), "{command:?}");
            assert!(ran.err.starts_with(&format!("fanfare: {line}")), "{command:?}: {}", ran.err);
            assert_eq!(ran.err.lines().count(), 1, "{}", ran.err);
            assert!(!ran.err.contains("secret"), "{}", ran.err);
        }
    }
}

#[test]
fn a_full_server_says_so() {
    let server = Server::start(&["--limits.connections_max", "1"]);
    let _member = Client::connect(&server, "alice");
    let ran = fanfare(&["pub", "den", "hello", "--url", &server.url("/")]);
    assert_eq!(ran.code, Some(1));
    let line = format!("fanfare: {} answered 503 Service Unavailable: this node takes no more", server.url("/"));
    assert!(ran.err.starts_with(&line), "{}", ran.err);
}

#[test]
fn a_wrong_command_line_is_exit_code_two_and_one_clear_line() {
    for (args, line) in [
        (&["pub"][..], "pub needs a room and a message; say fanfare pub ROOM MESSAGE (- for the lines of stdin)"),
        (&["pub", "den"], "pub needs a room and a message; say fanfare pub ROOM MESSAGE (- for the lines of stdin)"),
        (&["sub"], "sub needs a room; say fanfare sub ROOM"),
        (&["presence"], "presence needs a room; say fanfare presence ROOM"),
        (&["disconnect"], "disconnect needs a user; say fanfare disconnect USER"),
        (&["kick", "den"], "kick needs a room and a user; say fanfare kick ROOM USER"),
        (
            &["disconnect", "alice"],
            "an order needs --redis URL, or a key for the HTTP API of a server: say --key-file FILE, or set FANFARE_OPERATOR_KEY; \
             the key is an [[api.key]] with the verb kick",
        ),
        (&["kick", "", "alice", "--redis", "redis://h"], "a room id is a text of 1 to 255 bytes"),
        (&["kick", "den", "alice", "--raeson", "x"], "unknown flag --raeson; did you mean --reason?"),
        (
            &["disconnect", "alice", "--redis.ulr=redis://:secret@h"],
            "unknown flag --redis.ulr; did you mean --redis.url?",
        ),
        (
            &["disconnect", "alice", "redis://:secret@h"],
            "there is an argument too many; quote one that has spaces (fanfare disconnect --help tells more)",
        ),
        (
            &["pub", "den", "hello", "ws://h/?token=secret"],
            "there is an argument too many; quote one that has spaces (fanfare pub --help tells more)",
        ),
        (&["pub", "den", "-x"], "\"-x\" is not expected here; write -- in front of what begins with - and is no flag"),
        (&["sub", "den", "--ulr=ws://h/?token=secret"], "unknown flag --ulr; did you mean --url?"),
        (&["sub", "den", "--tls"], "unknown flag --tls; fanfare sub --help lists them"),
        (&["sub", "den", "--url"], "--url <URL> needs a value"),
        (
            &["pub", "den", "hello", "--url", "https://h/?token=secret"],
            "--url: \"https://h/\" is not how a WebSocket is named; write wss:// in place of https://",
        ),
        (
            &["presence", "den", "--url", "http://127.0.0.1:8080/?token=secret"],
            "--url: \"http://127.0.0.1:8080/\" is not how a WebSocket is named; write ws:// in place of http://",
        ),
        (
            &["sub", "den", "--url", "ws://h/?userId=a", "--user", "b"],
            "--user: the URL says userId already; give one of them",
        ),
        (
            &["pub", "den", "{\"a\":", "--json"],
            "MESSAGE is no JSON: EOF while parsing a value at line 1 column 5; leave out --json to send it as a text",
        ),
        (
            &["pub", "den", "hello", "--key", "k"],
            "--key counts for one user, and an anonymous connection is another one each time; add --user or a token",
        ),
        (
            &["sub", "den", "--since", "42"],
            "--since: \"42\" is no position; write EPOCH:OFFSET, as fanfare sub says on stderr when it has joined",
        ),
        (
            &["sub", "den", "--since", "e:1", "--last", "2"],
            "--since and --last are two ways to begin; give one of them",
        ),
        (&["sub", "den", "--last", "-1"], "--last: \"-1\" is out of bounds; write 0 to 1000000"),
        (&["sub", "den", "--count", "0"], "--count: \"0\" is out of bounds; write 1 to 1000000000000"),
        (
            &["sub", "den", "--json", "--messages-only"],
            "--json prints all that comes, --messages-only does not; give one of them",
        ),
    ] {
        let ran = fanfare(args);
        assert_eq!((ran.code, ran.out.as_str(), ran.err), (Some(2), "", format!("fanfare: {line}\n")), "{args:?}");
    }
}
