//! What is refused, and how.

use std::io::Write;
use std::net::TcpStream;

use fanfare_testing::raw::header_of;
use fanfare_testing::{ApiKey, PATIENCE, Server, ask_api, eventually, http_ask_over};
use serde_json::json;

use super::{publisher, server};

const ROOM_MSG: &str = r#"{"roomId":"den","content":1}"#;

#[test]
fn without_keys_there_is_no_api() {
    let server = Server::start(&[]);
    for (method, target) in [
        ("POST", "/api/v1/publish"),
        ("GET", "/api/v1/publish"),
        ("GET", "/api/v1/openapi.json"),
        ("GET", "/api/v1/node"),
        ("GET", "/api"),
    ] {
        let answer = ask_api(&server, method, target, "", "");
        assert_eq!(answer.refusal(), (404, "not_found".to_owned()), "{method} {target}");
    }
}

#[test]
fn paths_and_methods_are_looked_at_before_keys() {
    let key = publisher();
    let server = server(1, &[&key], &[]);
    for target in ["/api", "/api/", "/api/v1", "/api/v1/", "/api/v1/nothing", "/api/v2/publish", "/api/v1/publish/"] {
        assert_eq!(ask_api(&server, "POST", target, "", "").refusal(), (404, "not_found".to_owned()), "{target}");
    }
    for (method, target, allow) in
        [("GET", "/api/v1/publish", "POST"), ("DELETE", "/api/v1/batch", "POST"), ("POST", "/api/v1/node", "GET,HEAD")]
    {
        let answer = ask_api(&server, method, target, "", "");
        assert_eq!(answer.refusal(), (405, "method_not_allowed".to_owned()), "{method} {target}");
        assert_eq!(header_of(&answer.head, "allow"), Some(allow), "{method} {target}");
    }
}

#[test]
fn who_shows_no_key_or_another_ones_is_told_which_is_missing() {
    let key = publisher();
    let server = server(1, &[&key], &[]);
    for (fields, challenge) in [
        ("", "Bearer"),
        ("Authorization: Basic eDp5\r\n", "Bearer"),
        ("Authorization: Bearer another-key-of-more-than-32-bytes-in-all\r\n", "Bearer error=\"invalid_token\""),
    ] {
        let answer = ask_api(&server, "POST", "/api/v1/publish", fields, ROOM_MSG);
        assert_eq!(answer.refusal(), (401, "unauthorized".to_owned()), "{fields}");
        assert_eq!(header_of(&answer.head, "www-authenticate"), Some(challenge), "{fields}");
    }
}

#[test]
fn a_key_is_good_for_its_verbs_and_rooms_alone() {
    let reader = ApiKey::new("reader", "read");
    let limited = ApiKey::for_rooms("limited", "publish private broadcast read", "chat.*");
    let server = server(1, &[&reader, &limited], &[]);
    let private = r#"{"toUser":"bob","content":1}"#;
    let forbidden = (403, "forbidden".to_owned());
    for (key, target, body) in [
        (&reader, "/api/v1/publish", ROOM_MSG),
        (&reader, "/api/v1/private", private),
        (&reader, "/api/v1/broadcast", r#"{"content":1}"#),
        (&limited, "/api/v1/publish", r#"{"roomId":"chat","content":1}"#),
        (&limited, "/api/v1/private", private),
        (&limited, "/api/v1/broadcast", r#"{"content":1}"#),
    ] {
        assert_eq!(key.post(&server, target, body).refusal(), forbidden, "{target} {body}");
    }
    for room in ["chat.", "chat.a"] {
        let body = json!({"roomId": room, "content": 1}).to_string();
        assert_eq!(limited.post(&server, "/api/v1/publish", &body).json(), json!({}));
    }
    let node = reader.get(&server, "/api/v1/node").json();
    assert_eq!((&node["connections"], &node["cluster"]), (&json!(0), &json!(null)), "{node}");
    assert_eq!(node["reactors"].as_array().map(Vec::len), Some(1));
    assert_eq!(publisher().get(&server, "/api/v1/node").status, 401);
}

#[test]
fn bodies_that_are_not_as_they_must_be_are_refused_with_what_is_wrong() {
    let key = publisher();
    let settings = ["--limits.message_bytes_max", "1KiB", "--api.body_bytes_max", "4KiB"];
    let server = server(1, &[&key], &settings);
    let deep = format!(r#"{{"roomId":"den","content":{}{}}}"#, "[".repeat(129), "]".repeat(129));
    let large = json!({"roomId": "den", "content": "x".repeat(1_023)}).to_string();
    let larger = json!({"roomId": "den", "content": "x".repeat(5_000)}).to_string();
    let long_room = json!({"roomId": "x".repeat(256), "content": 1}).to_string();
    for (body, status, code) in [
        ("", 400, "bad_json"),
        ("[]", 400, "bad_json"),
        (r#"{"roomId":"den","content":1"#, 400, "bad_json"),
        (r#"{"roomId":"den","content":1}x"#, 400, "bad_json"),
        (r#"{"roomId":"den","content":01}"#, 400, "bad_json"),
        (&deep, 400, "bad_json"),
        (r#"{"content":1}"#, 400, "missing_field"),
        (r#"{"roomId":"den"}"#, 400, "missing_field"),
        (r#"{"roomId":5,"content":1}"#, 400, "bad_room_id"),
        (r#"{"roomId":"","content":1}"#, 400, "bad_room_id"),
        (r#"{"roomId":"\ud800","content":1}"#, 400, "bad_room_id"),
        (&long_room, 400, "bad_room_id"),
        (r#"{"roomId":"den","content":1,"from":""}"#, 400, "bad_user_id"),
        (r#"{"roomId":"den","content":1,"key":7}"#, 400, "bad_key"),
        (r#"{"roomId":"den","item":"a","remove":true}"#, 400, "missing_field"),
        (&large, 413, "too_large"),
        (&larger, 413, "too_large"),
    ] {
        assert_eq!(key.post(&server, "/api/v1/publish", body).refusal(), (status, code.to_owned()), "{body}");
    }
    for media_type in ["text/plain", "application/x-ndjson", "application/x-www-form-urlencoded"] {
        let answer = key.ask(&server, "POST", "/api/v1/publish", &format!("Content-Type: {media_type}\r\n"), ROOM_MSG);
        assert_eq!(answer.refusal(), (415, "unsupported_media_type".to_owned()), "{media_type}");
    }
    for (body, code) in
        [("{}", "missing_field"), (r#"{"commands":{}}"#, "bad_json"), (r#"{"commands":[1,]}"#, "bad_json")]
    {
        assert_eq!(key.post(&server, "/api/v1/batch", body).refusal(), (400, code.to_owned()), "{body}");
    }
}

/// Without a length in front: what comes is counted.
#[test]
fn a_body_in_pieces_is_bounded_as_well() {
    let key = publisher();
    let server = server(1, &[&key], &["--api.body_bytes_max", "4KiB"]);
    let ask = |pieces: usize| {
        let mut stream = TcpStream::connect(server.addr()).expect("it is served");
        let head = format!(
            "POST /api/v1/publish HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {}\r\n\
             Transfer-Encoding: chunked\r\n\r\n",
            key.secret()
        );
        stream.write_all(head.as_bytes()).expect("a head is taken");
        let blank = format!("400\r\n{}\r\n", " ".repeat(0x400)).repeat(pieces);
        http_ask_over(stream, &format!("{blank}1c\r\n{ROOM_MSG}\r\n0\r\n\r\n"))
    };
    assert_eq!(ask(3).json(), json!({}));
    assert_eq!(ask(4).refusal(), (413, "too_large".to_owned()));
}

/// The connection says no more behind the half of a body, for twenty seconds.
#[test]
fn a_body_that_does_not_come_is_waited_for_so_long_and_no_longer() {
    let key = publisher();
    let server = server(1, &[&key], &[]);
    let mut slow = TcpStream::connect(server.addr()).expect("it is served");
    slow.set_read_timeout(Some(6 * PATIENCE)).expect("a time limit of this end");
    let head = format!(
        "POST /api/v1/publish HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nContent-Length: {}\r\n\r\n",
        key.secret(),
        ROOM_MSG.len()
    );
    slow.write_all(head.as_bytes()).expect("a head is taken");
    let waiting = std::thread::spawn(move || http_ask_over(slow, "{"));
    assert_eq!(key.post(&server, "/api/v1/publish", ROOM_MSG).status, 200, "others are served meanwhile");
    assert_eq!(waiting.join().expect("it is answered").refusal(), (408, "timeout".to_owned()));
}

#[test]
fn with_tokens_no_room_is_called_as_raw_rooms_are() {
    let key = publisher();
    let secret = fanfare_testing::temporary_path("token-secret");
    std::fs::write(&secret, "a secret of the tests, of more than 32 bytes").unwrap();
    let auth = format!("alg=HS256,secret_file={}", secret.display());
    let server = server(1, &[&key], &["--auth.key", &auth]);
    let _ = std::fs::remove_file(&secret);
    let answer = key.post(&server, "/api/v1/publish", r#"{"roomId":"raw/den","content":1}"#);
    assert_eq!(answer.refusal(), (400, "bad_room_id".to_owned()));
}

/// What is announced counts before it comes: four bodies of 16 MiB, and then no more until one is gone.
#[test]
fn bodies_together_are_bounded() {
    const BODY_BYTES: usize = 16 << 20;
    let key = publisher();
    let server = server(1, &[&key], &[]);
    let announce = || {
        let mut stream = TcpStream::connect(server.addr()).expect("it is served");
        let head = format!(
            "POST /api/v1/batch HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nContent-Length: {BODY_BYTES}\r\n\r\n ",
            key.secret()
        );
        stream.write_all(head.as_bytes()).expect("a head is taken");
        stream
    };
    let held = [(); 4].map(|()| announce());
    let one_more = || key.post(&server, "/api/v1/publish", ROOM_MSG);
    eventually("the bodies count", || one_more().status == 429);
    let answer = one_more();
    assert_eq!(answer.refusal(), (429, "rate_limited".to_owned()));
    assert_eq!(header_of(&answer.head, "retry-after"), Some("1"));
    drop(held);
    eventually("who is gone holds nothing", || one_more().status == 200);
}
