//! Without keys nothing is asked.

use fanfare_testing::raw::{RawConn, status_of, upgrade_request};
use fanfare_testing::{Client, Server};
use serde_json::json;

pub fn without_keys_tokens_mean_nothing(reactors: usize) {
    let server = Server::with_reactors(reactors, &[]);
    for target in ["/?userId=alice&token=x", "/?token=x&token=y&userId=alice"] {
        let mut client = Client::greeted(&server, target);
        assert_eq!(client.user_id(), "alice");
        client.join("raw/x");
        let refused = client.request(json!({"type": "refresh", "token": "x"}));
        assert_eq!(refused["code"], "unknown_type");
        assert!(!refused["message"].as_str().unwrap().contains("refresh"), "as ever: {refused}");
    }
    let mut conn = RawConn::connect(&server);
    conn.send(upgrade_request("/", &[("Origin", "https://evil.example"), ("Authorization", "Bearer x")]).as_bytes());
    assert_eq!(status_of(&conn.read_head()), 101);
}

pub fn origins_are_asked_without_keys_where_they_are_set(reactors: usize) {
    let server = Server::with_reactors(reactors, &["--auth.origins", "https://app.example.com"]);
    for (origin, status) in [(Some("https://app.example.com"), 101), (Some("http://127.0.0.1"), 403), (None, 101)] {
        let mut conn = RawConn::connect(&server);
        let fields: Vec<(&str, &str)> = origin.map(|origin| ("Origin", origin)).into_iter().collect();
        conn.send(upgrade_request("/?userId=alice", &fields).as_bytes());
        assert_eq!(status_of(&conn.read_head()), status, "{origin:?}");
        if status == 101 {
            assert!(conn.read_text().contains("\"userId\":\"alice\""));
        }
    }
}
