//! URLs that lead somewhere else than they say: each is told in the log, and how to write it.

use fanfare_testing::{Cluster, Redis, eventually, free_addr};

use crate::servers::{Sentinel, Shards};

/// A node with this URL says so; it serves all the same, and is not ready.
#[track_caller]
fn assert_told(url: &str, told: &[&str]) {
    let cluster = Cluster::at_url(url, 1, &[]);
    eventually(&format!("the log says {told:?}"), || {
        let log = cluster.log(0);
        told.iter().all(|told| log.contains(told))
    });
    cluster.await_readiness(503);
}

#[test]
fn a_server_of_another_kind_is_told() {
    let (single, sentinel) = (Redis::start(), Sentinel::start(&[], ""));
    let (member, _) = Shards::server(&[]);
    assert_told(&format!("redis+cluster://{}", single.addr()), &["cluster support disabled"]);
    assert_told(&format!("redis://{}", member.addr()), &["redis+cluster://"]);
    assert_told(&format!("redis+cluster://{}", member.addr()), &["no server has a slot"]);
    assert_told(&format!("redis://{}", sentinel.host()), &["redis+sentinel://"]);
    assert_told(&format!("redis+sentinel://{}/{}", single.addr(), Sentinel::NAME), &["Sentinels"]);
    assert_told(&format!("redis+sentinel://{}/other", sentinel.host()), &["Sentinels", "none knows a primary"]);
    assert_told(&format!("redis://{}", sentinel.servers[1].addr()), &["replica"]);
    let nobody = free_addr();
    assert_told(&format!("redis://{nobody}"), &["Connection refused", &nobody.to_string()]);
    assert_told("redis+unix:///nowhere/redis.sock", &["No such file", "/nowhere/redis.sock"]);
}
