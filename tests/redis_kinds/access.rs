//! A user of the access control list, and a server behind a socket.

use std::fs;
use std::path::Path;

use fanfare_testing::{Cluster, Redis, eventually, socket_path};

use crate::servers::Shards;
use crate::{assert_works, nodes};

/// The `ACL SETUSER` lines of the document, in order.
pub(crate) fn documented() -> Vec<Vec<String>> {
    let document = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/redis.md");
    let text = fs::read_to_string(document).expect("the document is there");
    let joined = text.replace("\\\n", " ");
    let lines = joined.lines().filter(|line| line.starts_with("ACL SETUSER"));
    lines.map(|line| line.split_whitespace().map(str::to_owned).collect()).collect()
}

#[track_caller]
pub(crate) fn allow(redis: &Redis, line: &[String]) {
    let words: Vec<&str> = line.iter().map(String::as_str).collect();
    assert_eq!(redis.command(&words), "OK", "{words:?}");
}

/// Nothing that the user does is refused.
#[track_caller]
pub(crate) fn assert_nothing_refused(redis: &Redis) {
    assert_eq!(redis.command(&["ACL", "LOG"]), "", "nothing was refused");
}

#[test]
fn the_documented_user_is_enough() {
    let redis = Redis::start();
    documented()[..3].iter().for_each(|line| allow(&redis, line));
    let cluster = nodes(&format!("redis://fanfare:PASSWORD@{}/1", redis.addr()), &[]);
    assert_works(&cluster);
    assert_nothing_refused(&redis);
    let (log, other) = (cluster.log(0), redis.command(&["ACL", "GETUSER", "fanfare"]));
    assert!(!log.contains("PASSWORD"), "{log}");
    assert!(!other.contains("+@all"), "{other}");
}

#[test]
fn the_documented_user_is_enough_in_a_redis_cluster() {
    let shards = Shards::start(0);
    for (server, line) in
        shards.servers.iter().flat_map(|server| documented().into_iter().map(move |line| (server, line)))
    {
        allow(server, &line);
    }
    let url = shards.url().replace("://", "://fanfare:PASSWORD@");
    let cluster = nodes(&url, &[]);
    assert_works(&cluster);
    shards.servers.iter().for_each(assert_nothing_refused);
}

/// What a user may not do is in the log, with the name of the user and of the command, and without the password.
#[test]
fn what_a_user_may_not_do_is_told() {
    let redis = Redis::start();
    let mut line = documented()[0].clone();
    line.push("-evalsha".to_owned());
    allow(&redis, &line);
    let url = format!("redis://fanfare:PASSWORD@{}/", redis.addr());
    let cluster = nodes(&url, &[]);
    let mut client = fanfare_testing::Client::connect(&cluster.at(0), "alice");
    let answer = client.request(crate::room_msg("kept", 1));
    assert_eq!(answer["code"], "unavailable", "{answer}");
    eventually("the log says what is refused", || {
        let log = cluster.log(0);
        log.contains("refuses") && log.contains("evalsha")
    });
    allow(&redis, &["ACL", "SETUSER", "fanfare", "off"].map(str::to_owned));
    redis.command(&["CLIENT", "KILL", "USER", "fanfare"]);
    eventually("the log says that the user is refused", || cluster.log(0).contains("authentication failed"));
    assert!(!cluster.log(0).contains("PASSWORD"), "{}", cluster.log(0));
}

#[test]
fn a_server_behind_a_socket_works() {
    let path = socket_path();
    let redis = Redis::with(&["--unixsocket", path.to_str().expect("a name of ours")]);
    let cluster = nodes(&format!("redis+unix://{}?db=2", path.display()), &[]);
    assert_works(&cluster);
    assert!(redis.command(&["INFO", "keyspace"]).contains("db2:"), "the history is in the database that was named");
    let _: Cluster = cluster;
}
