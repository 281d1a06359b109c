//! What requests are refused with.

use fanfare_testing::raw::header_of;
use fanfare_testing::{ApiKey, Cluster, HttpAnswer, Way};
use serde_json::Value;

use super::{operator, servers};

#[track_caller]
fn assert_refused(answer: &HttpAnswer, status: u16, code: &str) {
    let body: Value = serde_json::from_str(&answer.body).unwrap_or_else(|error| panic!("{error}: {}", answer.body));
    assert_eq!((answer.status, body["error"]["code"].as_str()), (status, Some(code)), "{}", answer.body);
    assert!(body["error"]["message"].is_string());
}

/// All requests, each with the verb that it needs, and whether it needs all rooms.
const REQUESTS: &[(&str, &str, &str, bool)] = &[
    ("GET", "/api/v1/rooms/den/presence", "read", false),
    ("GET", "/api/v1/rooms/den/history", "read", false),
    ("DELETE", "/api/v1/rooms/den/history", "kick", false),
    ("DELETE", "/api/v1/rooms/den/users/alice", "kick", false),
    ("GET", "/api/v1/users/alice", "read", true),
    ("DELETE", "/api/v1/users/alice/connections", "kick", true),
];

pub(super) fn what_a_key_is_not_good_for_is_forbidden(way: Way) {
    let (reads, kicks) = (ApiKey::new("reads", "read"), ApiKey::new("kicks", "kick"));
    let (den, hall) = (ApiKey::for_rooms("den", "read kick", "d*"), ApiKey::for_rooms("hall", "read kick", "hall"));
    let cluster = servers(way, &[&reads, &kicks, &den, &hall], &[]);
    for &(method, target, verb, needs_all) in REQUESTS {
        let ask = |key: &ApiKey| key.ask(&cluster, method, target, "", "");
        let (good, bad) = if verb == "read" { (&reads, &kicks) } else { (&kicks, &reads) };
        ask(good).json();
        assert_refused(&ask(bad), 403, "forbidden");
        assert_refused(&ask(&hall), 403, "forbidden");
        match needs_all {
            true => assert_refused(&ask(&den), 403, "forbidden"),
            false => drop(ask(&den).json()),
        }
        let keyless = fanfare_testing::ask_api(&cluster, method, target, "", "");
        assert_refused(&keyless, 401, "unauthorized");
    }
    assert_refused(&kicks.get(&cluster, "/api/v1/rooms"), 403, "forbidden");
    hall.get(&cluster, "/api/v1/rooms").json();
}

pub(super) fn what_is_not_as_it_must_be_is_told(way: Way) {
    let key = operator();
    let cluster = servers(way, &[&key], &[]);
    let long = "x".repeat(256);
    for (method, target, code) in [
        ("GET", "/api/v1/rooms/den/items", "bad_options"),
        ("GET", "/api/v1/rooms?limit=0", "bad_options"),
        ("GET", "/api/v1/rooms?limit=-1", "bad_options"),
        ("GET", "/api/v1/rooms?limit=1&limit=2", "bad_options"),
        ("GET", "/api/v1/rooms?match=", "bad_options"),
        ("GET", &format!("/api/v1/rooms?match={long}"), "bad_options"),
        ("GET", "/api/v1/rooms?after=*", "bad_options"),
        ("GET", "/api/v1/rooms/den/presence?limit=x", "bad_options"),
        ("GET", "/api/v1/rooms/den/history?after=1&before=2", "bad_options"),
        ("GET", "/api/v1/rooms/den/history?before=9223372036854775808", "bad_options"),
        ("GET", &format!("/api/v1/rooms/{long}/presence"), "bad_room_id"),
        ("GET", "/api/v1/rooms/%ff/history", "bad_room_id"),
        ("GET", "/api/v1/users/%ff", "bad_user_id"),
        ("GET", &format!("/api/v1/users/{}", &long[..129]), "bad_user_id"),
        ("DELETE", &format!("/api/v1/rooms/den/users/{}", &long[..129]), "bad_user_id"),
        ("DELETE", &format!("/api/v1/rooms/den/users/alice?reason={}", "x".repeat(1_025)), "bad_options"),
        ("DELETE", "/api/v1/users/alice/connections?revoke=yes", "bad_options"),
    ] {
        assert_refused(&key.ask(&cluster, method, target, "", ""), 400, code);
    }
    for (method, target) in [("GET", "/api/v1/rooms/den"), ("GET", "/api/v1/rooms/"), ("GET", "/api/v1/users")] {
        assert_refused(&key.ask(&cluster, method, target, "", ""), 404, "not_found");
    }
    let posted = key.ask(&cluster, "POST", "/api/v1/rooms/den/history", "", "");
    assert_refused(&posted, 405, "method_not_allowed");
    let allowed = header_of(&posted.head, "allow").unwrap_or_default().to_owned();
    assert!(allowed.contains("GET") && allowed.contains("DELETE"), "{allowed}");
}

/// Without Redis nothing is known of the cluster, and nothing is done by halves.
#[test]
fn without_redis_what_needs_the_cluster_is_unavailable() {
    let key = operator();
    let settings = ["--api.key", key.settings(), "--room", "match=den,history.size=5,history.ttl=1h"];
    let mut cluster = Cluster::start(2, &settings);
    let mut alice = fanfare_testing::Client::connect(&cluster, "alice");
    cluster.redis_mut().kill();
    cluster.await_readiness(503);
    for (method, target, ..) in REQUESTS.iter().chain(&[("GET", "/api/v1/rooms", "read", true)]) {
        // Who is here is known all the same.
        if !target.ends_with("/presence") {
            let answer = key.ask(&cluster, method, target, "", "");
            assert_refused(&answer, 503, "unavailable");
            assert!(header_of(&answer.head, "retry-after").is_some(), "{}", answer.head);
        }
    }
    alice.barrier();
}
