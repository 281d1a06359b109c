//! Many messages in one request.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};

use fanfare_testing::{ApiKey, Client, PATIENCE};
use serde_json::{Value, json};

use super::{publisher, server};

pub(super) fn a_batch_is_published_in_order_and_answered_in_order(reactors: usize) {
    let key = ApiKey::for_rooms("backend", "publish private", "r.*");
    let server = server(reactors, &[&key], &["--limits.message_bytes_max", "1KiB"]);
    let mut bob = Client::connect(&server, "bob");
    bob.join("r.den");
    bob.join("r.hall");
    let large = "x".repeat(1_100);
    let commands = json!({"commands": [
        {"publish": {"roomId": "r.den", "content": 1}},
        {"publish": {"roomId": "r.den"}},
        {"private": {"toUser": "bob", "content": 1}},
        {"broadcast": {"content": 1}},
        {"publish": {"roomId": "attic", "content": 1}},
        {"publish": {"roomId": "r.den", "content": large}},
        {"join": {}},
        {"publish": {"roomId": "r.den", "content": 1}, "private": {"toUser": "bob", "content": 1}},
        {"publish": 5},
        5,
        {"publish": {"roomId": "r.den", "item": "a", "remove": true}},
        {"publish": {"roomId": "", "content": 1}},
        {"publish": {"roomId": "r.hall", "content": 2}},
        {"publish": {"roomId": "r.den", "content": 3, "key": ""}},
        {"publish": {"roomId": "r.den", "content": 4, "from": 5}},
        {"publish": {"roomId": "r.den", "content": 5}},
    ]});
    let answer = key.post(&server, "/api/v1/batch", &commands.to_string()).json();
    let codes: Vec<Value> =
        answer["results"].as_array().unwrap().iter().map(|one| one["error"]["code"].clone()).collect();
    let none = Value::Null;
    let expected = [
        none.clone(),
        json!("missing_field"),
        json!("forbidden"),
        json!("forbidden"),
        json!("forbidden"),
        json!("too_large"),
        json!("unknown_type"),
        json!("bad_json"),
        json!("bad_json"),
        json!("bad_json"),
        json!("missing_field"),
        json!("bad_room_id"),
        none.clone(),
        json!("bad_key"),
        json!("bad_user_id"),
        none,
    ];
    assert_eq!(codes, expected);
    let contents: Vec<(Value, Value)> = (0..3)
        .map(|_| bob.expect_type("room_msg"))
        .map(|message| (message["roomId"].clone(), message["content"].clone()))
        .collect();
    let of = |room: &str| -> Vec<&Value> {
        contents.iter().filter(|(of, _)| of == room).map(|(_, content)| content).collect()
    };
    assert_eq!((of("r.den"), of("r.hall")), (vec![&json!(1), &json!(5)], vec![&json!(2)]));
    bob.barrier();
    assert_eq!(key.post(&server, "/api/v1/batch", r#"{"commands":[]}"#).json(), json!({"results": []}));
    let last_wins = r#"{"commands":[5],"commands":[{"publish":{"roomId":"r.den","content":9}}]}"#;
    assert_eq!(key.post(&server, "/api/v1/batch", last_wins).json(), json!({"results": [{}]}));
    assert_eq!(bob.expect_type("room_msg")["content"], 9);
}

pub(super) fn lines_are_commands_and_each_has_its_result(reactors: usize) {
    let key = publisher();
    let server = server(reactors, &[&key], &[]);
    let mut bob = Client::connect(&server, "bob");
    bob.join("den");
    let lines = "{\"publish\":{\"roomId\":\"den\",\"content\":1}}\r\n\n{\"publish\":\n{\"private\":{\"toUser\":\"bob\",\"content\":2}} x\n  \
                 {\"publish\":{\"roomId\":\"den\",\"content\":3}}";
    let fields = "Content-Type: application/x-ndjson; charset=utf-8\r\n";
    let answer = key.ask(&server, "POST", "/api/v1/batch", fields, lines).json();
    let codes: Vec<&Value> = answer["results"].as_array().unwrap().iter().map(|one| &one["error"]["code"]).collect();
    assert_eq!(codes, [&Value::Null, &json!("bad_json"), &json!("bad_json"), &Value::Null]);
    assert_eq!(bob.expect_type("room_msg")["content"], 1);
    assert_eq!(bob.expect_type("room_msg")["content"], 3);
    bob.barrier();
}

/// To rooms at home on all reactors, by turns.
pub(super) fn a_batch_of_ten_thousand_arrives_whole_and_in_order(reactors: usize) {
    const COMMANDS: usize = 10_000;
    const ROOMS: usize = 7;
    let key = publisher();
    let server = server(reactors, &[&key], &[]);
    let mut bob = Client::connect(&server, "bob");
    (0..ROOMS).for_each(|room| drop(bob.join(&format!("room-{room}"))));
    bob.barrier();
    let command = |n: usize| json!({"publish": {"roomId": format!("room-{}", n % ROOMS), "content": n}});
    let commands: Vec<Value> = (0..COMMANDS).map(command).collect();
    let answer = key.post(&server, "/api/v1/batch", &json!({"commands": commands}).to_string()).json();
    assert_eq!(answer["results"], Value::Array(vec![json!({}); COMMANDS]));
    let mut next: Vec<usize> = (0..ROOMS).collect();
    for _ in 0..COMMANDS {
        let message = bob.expect_type("room_msg");
        let content = message["content"].as_u64().unwrap() as usize;
        assert_eq!(content, next[content % ROOMS], "each room has its order");
        next[content % ROOMS] += ROOMS;
    }
    let more: Vec<Value> = (0..=COMMANDS).map(command).collect();
    let answer = key.post(&server, "/api/v1/batch", &json!({"commands": more}).to_string());
    assert_eq!(answer.refusal(), (413, "too_many_commands".to_owned()));
    bob.barrier();
}

/// The connection ends in the middle of the body, behind a whole command.
pub(super) fn a_batch_that_is_cut_off_publishes_nothing(reactors: usize) {
    let key = publisher();
    let server = server(reactors, &[&key], &[]);
    let mut bob = Client::connect(&server, "bob");
    bob.join("den");
    bob.expect_type("system");
    let line = "{\"publish\":{\"roomId\":\"den\",\"content\":1}}\n";
    let head = format!(
        "POST /api/v1/batch HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nContent-Type: application/x-ndjson\r\n\
         Content-Length: {}\r\n\r\n",
        key.secret(),
        2 * line.len()
    );
    let mut stream = TcpStream::connect(server.addr()).expect("it is served");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout above zero");
    stream.write_all(format!("{head}{line}").as_bytes()).expect("a head is taken");
    stream.shutdown(Shutdown::Write).expect("it is open");
    // The server has seen the end when it says so, or ends its side.
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    assert!(!answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
    key.post(&server, "/api/v1/publish", r#"{"roomId":"den","content":2}"#).json();
    assert_eq!(bob.expect_type("room_msg")["content"], 2, "nothing before it");
}

/// Two bytes for each command in, an error for each out.
#[test]
fn the_answer_to_a_batch_is_bounded_by_its_commands() {
    const COMMANDS: usize = 10_000;
    let key = publisher();
    let server = server(1, &[&key], &[]);
    for command in ["1", "{}", r#"{"publish":{}}"#, r#"{"publish":{"roomId":5}}"#, r#"{"join":{}}"#] {
        let body = format!(r#"{{"commands":[{}]}}"#, vec![command; COMMANDS].join(","));
        let answer = key.post(&server, "/api/v1/batch", &body);
        assert_eq!(answer.json()["results"].as_array().map(Vec::len), Some(COMMANDS));
        assert!(answer.body.len() <= 250 * COMMANDS, "{command}: {} bytes", answer.body.len());
    }
}
