//! Revoking tokens.

use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use data_encoding::BASE64URL_NOPAD;
use fanfare_testing::{Client, Cluster, Way, eventually, run_fanfare, temporary_path};
use ring::hmac;
use serde_json::{Value, json};

use super::{delete, nodes, operator, servers};

const SECRET: &str = "a secret of the tests, of more than 32 bytes";

fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("it is later").as_secs()
}

fn token(user: &str, issued_s: Option<u64>) -> String {
    let mut claims = json!({"sub": user, "exp": now_s() + 3_600});
    if let Some(issued_s) = issued_s {
        claims["iat"] = issued_s.into();
    }
    let word = |value: &Value| BASE64URL_NOPAD.encode(value.to_string().as_bytes());
    let signed = format!("{}.{}", word(&json!({"alg": "HS256"})), word(&claims));
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes()), signed.as_bytes());
    format!("{signed}.{}", BASE64URL_NOPAD.encode(tag.as_ref()))
}

/// Whether each node lets a token in.
fn lets_in(cluster: &Cluster, node: usize, token: &str) -> bool {
    match Client::try_open(&cluster.at(node), &format!("/?token={token}")) {
        Ok(_) => true,
        Err(rejection) => {
            assert_eq!(rejection.status, 401, "{rejection:?}");
            false
        }
    }
}

pub(super) fn tokens_up_to_the_second_are_refused_from_then_on(way: Way) {
    let secret = temporary_path("secret");
    fs::write(&secret, SECRET).expect("a file");
    let auth = format!("alg=HS256,secret_file={}", secret.display());
    let key = operator();
    let mut cluster = servers(way, &[&key], &["--auth.key", &auth]);
    let (old, timeless, others) = (token("alice", Some(now_s() - 10)), token("alice", None), token("bob", None));
    let open = |token: &str| Client::greeted(&cluster, &format!("/?token={token}"));
    let (alices, mut bob) = ([open(&old), open(&timeless), open(&old)], open(&others));
    let mut keeps = open(&others);
    assert_eq!(delete(&key, &cluster, "/api/v1/users/alice/connections?revoke=true"), json!({"nodes": nodes(way)}));
    let called_s = now_s();
    for mut alice in alices {
        assert_eq!(alice.close_frame(), (1008, "disconnected".to_owned()));
    }
    let new = token("alice", Some(called_s + 1));
    for node in 0..cluster.nodes_count() {
        for refused in [&old, &timeless] {
            assert!(!lets_in(&cluster, node, refused), "on node {node}");
        }
        assert!(lets_in(&cluster, node, &new) && lets_in(&cluster, node, &others), "on node {node}");
    }
    let mut alice = open(&new);
    let refreshed = alice.request(json!({"type": "refresh", "token": old}));
    assert_eq!(refreshed["code"], "unauthorized");
    assert_eq!(alice.request(json!({"type": "refresh", "token": new}))["type"], "ack");
    bob.barrier();
    keeps.barrier();
    if way == Way::TwoNodes {
        // A node that comes later knows it from Redis.
        cluster.restart(1);
        cluster.await_ready();
        eventually("the node that came later refuses it", || !lets_in(&cluster, 1, &old));
        assert!(lets_in(&cluster, 1, &new));
    }
    // The command does the same, over the API and through Redis.
    let mut gone: Vec<Client> = (0..2).map(|_| Client::greeted(&cluster, &format!("/?token={others}"))).collect();
    let url = format!("http://{}", cluster.at(0));
    let over_api =
        run_fanfare(&["disconnect", "bob", "--revoke", "--url", &url], &[("FANFARE_OPERATOR_KEY", key.secret())]);
    assert_eq!((over_api.0, &*over_api.2), (Some(0), ""));
    if way == Way::TwoNodes {
        let carols = token("carol", Some(now_s() - 10));
        gone.push(Client::greeted(&cluster, &format!("/?token={carols}")));
        let through_redis = run_fanfare(&["disconnect", "carol", "--revoke", "--redis", &cluster.redis().url()], &[]);
        assert_eq!(through_redis, (Some(0), "2 nodes have heard it\n".to_owned(), String::new()));
        assert!((0..2).all(|node| !lets_in(&cluster, node, &carols)));
    }
    for mut one in gone {
        assert_eq!(one.close_frame(), (1008, "disconnected".to_owned()));
    }
    assert!((0..cluster.nodes_count()).all(|node| !lets_in(&cluster, node, &others)));
    fs::remove_file(&secret).expect("it is there");
}
