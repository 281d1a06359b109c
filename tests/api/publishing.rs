//! Single messages.

use fanfare_testing::{ApiKey, Client, Cluster};
use serde_json::json;

use super::{publisher, server};

/// The same message of a client and of the API, each without its time.
pub(super) fn a_message_to_a_room_looks_like_a_clients_but_for_its_author(reactors: usize) {
    let key = publisher();
    let server = server(reactors, &[&key], &[]);
    let (mut alice, mut bob) = (Client::connect(&server, "alice"), Client::connect(&server, "bob"));
    for room in ["den", "hall", "r\u{f6}\"om"] {
        alice.join(room);
        bob.join(room);
        alice.send(&json!({"type": "room_msg", "roomId": room, "content": {"a": 1}}));
        let texts = [true, false].map(|is_of_a_client| {
            if !is_of_a_client {
                let body = json!({"roomId": room, "content": {"a": 1}, "from": "alice", "other": [1]});
                assert_eq!(key.post(&server, "/api/v1/publish", &body.to_string()).json(), json!({}));
            }
            let mut text = bob.expect_type("room_msg");
            let time = text["time"].take();
            assert!(time.as_u64().is_some_and(|time| time > 1_700_000_000_000), "{time}");
            text.to_string()
        });
        assert_eq!(texts[0], texts[1]);
        alice.expect(|message| message["type"] == "room_msg" && message["roomId"] == room);
    }
    key.post(&server, "/api/v1/publish", r#"{"roomId":"den","content":"x"}"#).json();
    assert_eq!(bob.expect_type("room_msg")["from"], "backend", "the name of the key");
    let nobodys = key.post(&server, "/api/v1/publish", r#"{"roomId":"empty","content":"x"}"#);
    assert_eq!(nobodys.json(), json!({}), "a room that nobody is in is no error");
}

pub(super) fn a_message_to_a_user_reaches_all_its_connections(reactors: usize) {
    let key = publisher();
    let server = server(reactors, &[&key], &[]);
    let mut bobs = [(); 4].map(|()| Client::connect(&server, "bob"));
    let mut alice = Client::connect(&server, "alice");
    let body = r#"{"toUser":"bob","content":[1],"from":"shop"}"#;
    assert_eq!(key.post(&server, "/api/v1/private", body).json(), json!({}));
    for bob in &mut bobs {
        let message = bob.expect_type("private_msg");
        assert_eq!((&message["from"], &message["content"]), (&json!("shop"), &json!([1])));
        assert!(message["time"].is_u64());
    }
    alice.barrier();
}

pub(super) fn a_broadcast_reaches_everyone(reactors: usize) {
    let key = publisher();
    let server = server(reactors, &[&key], &[]);
    let mut all = ["a", "b", "c", "d"].map(|user| Client::connect(&server, user));
    assert_eq!(key.post(&server, "/api/v1/broadcast", r#"{"content":"all"}"#).json(), json!({}));
    for client in &mut all {
        let message = client.expect_type("broadcast");
        assert_eq!((&message["from"], &message["content"]), (&json!("backend"), &json!("all")));
    }
}

/// Escapes in names are read; the text of a content is not touched.
pub(super) fn contents_are_passed_on_as_the_same_text(reactors: usize) {
    let key = publisher();
    let server = server(reactors, &[&key], &[]);
    let mut bob = Client::connect(&server, "bob");
    bob.join("den");
    bob.expect_type("system");
    let deep = format!("{}{}", "[".repeat(128), "]".repeat(128));
    for content in [
        r#""\ud800""#,
        "1e400",
        "123456789012345678901234567890",
        r#"{"b" : 1, "a":[ ],"b":2}"#,
        r#""\u0041\/""#,
        "null",
        &deep,
    ] {
        for body in [
            format!(r#"{{"roomId":"den","content":{content}}}"#),
            format!(r#" {{"room\u0049d":"d\u0065n" , "content": 7,"content" : {content} }} "#),
        ] {
            key.post(&server, "/api/v1/publish", &body).json();
            let text = bob.recv_text();
            assert!(text.contains(&format!(r#""content":{content},"#)), "{text}");
        }
        let batch = format!(r#"{{"commands":[{{"publish":{{"roomId":"den","content":{content}}}}}]}}"#);
        assert_eq!(key.post(&server, "/api/v1/batch", &batch).json(), json!({"results": [{}]}));
        let text = bob.recv_text();
        assert!(text.contains(&format!(r#""content":{content},"#)), "{text}");
    }
}

/// Where history is kept. Keys of publishes are those of the key's name, whatever `from` says.
pub(super) fn history_gives_positions_and_knows_retries(reactors: usize) {
    let (key, other) = (publisher(), ApiKey::new("other", "publish"));
    let next = ApiKey::new("backend", "publish");
    let server = server(reactors, &[&key, &other, &next], &["--room", "match=*,history.size=10"]);
    knows_retries(&server, &key, &other, &next);
}

fn knows_retries(server: &dyn fanfare_testing::Entrance, key: &ApiKey, other: &ApiKey, next: &ApiKey) {
    let mut bob = Client::connect(server, "backend");
    bob.join("den");
    let body = r#"{"roomId":"den","content":1,"key":"k"}"#;
    let first = key.post(server, "/api/v1/publish", body).json();
    assert_eq!(first["offset"], 1, "{first}");
    assert!(first["epoch"].is_string());
    let of_other_author = r#"{"roomId":"den","content":2,"key":"k","from":"alice"}"#;
    assert_eq!(key.post(server, "/api/v1/publish", of_other_author).json(), first, "a retry");
    assert_eq!(next.post(server, "/api/v1/publish", body).json(), first, "a key that takes the place of another");
    assert_eq!(other.post(server, "/api/v1/publish", body).json()["offset"], 2, "keys of publishes are each name's");
    let of_client = bob.request(json!({"type": "room_msg", "roomId": "den", "content": 3, "key": "k"}));
    assert_eq!(of_client["offset"], 3, "a client of the same name has keys of its own");
    let batch =
        r#"{"commands":[{"publish":{"roomId":"den","content":1,"key":"k"}},{"publish":{"roomId":"den","content":4}}]}"#;
    let results = key.post(server, "/api/v1/batch", batch).json();
    assert_eq!(results["results"][0], first);
    assert_eq!(results["results"][1]["offset"], 4);
    let offsets: Vec<u64> = (0..3).map(|_| bob.expect_type("room_msg")["offset"].as_u64().unwrap()).collect();
    assert_eq!(offsets, [1, 2, 4]);
}

/// On two nodes: stored by one, known as a retry by the other.
#[test]
fn in_a_cluster_an_answer_means_stored() {
    let (key, other, next) = (publisher(), ApiKey::new("other", "publish"), ApiKey::new("backend", "publish"));
    let mut settings = vec!["--room", "match=*,history.size=1000"];
    for key in [&key, &other, &next] {
        settings.extend(["--api.key", key.settings()]);
    }
    let mut cluster = Cluster::start(2, &settings);
    knows_retries(&cluster, &key, &other, &next);
    let mut bob = Client::connect(&cluster.at(1), "bob");
    bob.join("hall");
    bob.expect_type("system");
    let batch: Vec<_> = (0..300).map(|n| json!({"publish": {"roomId": "hall", "content": n}})).collect();
    let answer = key.post(&cluster.at(0), "/api/v1/batch", &json!({"commands": batch}).to_string()).json();
    for n in 0..300 {
        assert_eq!(answer["results"][n]["offset"], n + 1);
        assert_eq!(bob.expect_type("room_msg")["content"], n);
    }
    cluster.redis_mut().kill();
    let answer = key.post(&cluster.at(0), "/api/v1/publish", r#"{"roomId":"hall","content":1}"#);
    assert_eq!(answer.refusal(), (503, "unavailable".to_owned()));
    assert!(answer.head.to_ascii_lowercase().contains("retry-after: "), "{}", answer.head);
    let batch = r#"{"commands":[{"publish":{"roomId":"hall","content":1}}]}"#;
    let answer = key.post(&cluster.at(0), "/api/v1/batch", batch).json();
    assert_eq!(answer["results"][0]["error"]["code"], "unavailable", "{answer}");
}
