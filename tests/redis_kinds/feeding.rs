//! `fanfare feed` reads a stream from Redis of every kind, and keeps there how far it has come.

use std::process::{Child, Command, Stdio};

use fanfare_testing::{Certificates, Client, Redis, Server, eventually, free_addr, socket_path};
use serde_json::json;

use crate::servers::{Sentinel, Shards};
use crate::tls::{tls_settings, words};

/// A feed that runs, a node that it feeds, and one who watches.
struct Fed {
    feed: Child,
    server: Server,
    watcher: Client,
}

impl Fed {
    /// Feeds the room `px` with this stream.
    #[track_caller]
    fn start(url: &str, stream: &str, args: &[&str]) -> Fed {
        let server = Server::start(&["--room", "match=px,keyed=true"]);
        let mut watcher = Client::connect(&server, "watcher");
        watcher.join("px");
        let feed = Command::new(env!("CARGO_BIN_EXE_fanfare"))
            .args(["feed", "px", "--redis-stream", stream, "--url", &server.url("/")])
            .args(args)
            .env("FANFARE_REDIS_URL", url)
            .stdin(Stdio::null())
            .spawn()
            .expect("the binary runs");
        Fed { feed, server, watcher }
    }

    /// The next value that is fed is this one.
    #[track_caller]
    fn expect(&mut self, content: u64) {
        assert_eq!(self.watcher.expect_type("room_msg")["content"], json!(content), "{}", self.server.addr());
    }
}

impl Drop for Fed {
    fn drop(&mut self) {
        // An error means that it has ended already.
        let _ = self.feed.kill();
        let _ = self.feed.wait();
    }
}

fn add(redis: &Redis, stream: &str, content: u64) -> String {
    redis.command(&["XADD", stream, "*", "item", "A", "content", &content.to_string()])
}

fn assert_kept(redis: &Redis, key: &str, id: &str) {
    eventually("how far it has come is kept", || redis.command(&["GET", key]) == id);
}

#[test]
fn a_stream_may_be_behind_a_socket_or_tls() {
    let path = socket_path();
    let redis = Redis::with(&["--unixsocket", path.to_str().expect("a name of ours")]);
    let mut fed = Fed::start(&format!("redis+unix://{}", path.display()), "ticks", &[]);
    let id = add(&redis, "ticks", 1);
    fed.expect(1);
    assert_kept(&redis, "ticks:fanfare:px", &id);

    let certificates = Certificates::make();
    let port = free_addr().port();
    let redis = Redis::with(&words(&tls_settings(&certificates, port)));
    let ca = certificates.path("ca.pem");
    let mut fed = Fed::start(&format!("rediss://127.0.0.1:{port}/"), "ticks", &["--redis-ca", &ca]);
    let id = add(&redis, "ticks", 1);
    fed.expect(1);
    assert_kept(&redis, "ticks:fanfare:px", &id);
}

#[test]
fn a_stream_is_followed_to_another_primary() {
    let sentinel = Sentinel::start(&[], "");
    let url = format!("redis+sentinel://{}/{}", sentinel.host(), Sentinel::NAME);
    let mut fed = Fed::start(&url, "ticks", &[]);
    for content in 1..=2 {
        let primary = &sentinel.servers[sentinel.primary()];
        let id = add(primary, "ticks", content);
        fed.expect(content);
        assert_kept(primary, "ticks:fanfare:px", &id);
        if content == 1 {
            sentinel.fail_over();
        }
    }
}

#[test]
fn a_stream_is_found_on_any_shard() {
    let shards = Shards::start(0);
    let names: Vec<String> = (0..Shards::PRIMARIES).map(|shard| shards.room_at(shard, "s")).collect();
    for (shard, name) in names.iter().enumerate() {
        let (stream, other) = (format!("ticks:{{{name}}}"), (shard + 1) % Shards::PRIMARIES);
        // How far it has come may be kept on another shard than the stream.
        let key = format!("place:{{{}}}", names[other]);
        let mut fed = Fed::start(&shards.url(), &stream, &["--position-key", &key]);
        let id = add(&shards.servers[shard], &stream, 1);
        fed.expect(1);
        assert_kept(&shards.servers[other], &key, &id);
    }
    // A slot that moves is followed.
    let stream = format!("ticks:{{{}}}", names[0]);
    let key = format!("{stream}:fanfare:px");
    let mut fed = Fed::start(&shards.url(), &stream, &[]);
    fed.expect(1);
    shards.move_slot(shards.slot_of(&names[0]), 0, 1);
    let id = add(&shards.servers[1], &stream, 2);
    fed.expect(2);
    assert_kept(&shards.servers[1], &key, &id);
}
