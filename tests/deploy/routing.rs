//! Which node a client gets: one that serves, whatever becomes of the other.

use fanfare_testing::{
    Client, Cluster, Front, Proxy, Redis, Server, await_metric, eventually, free_addr, http_get, metric,
};

const CLIENTS: u64 = 20;

/// Clients that come while a node ends, and after it has. One that is refused, or gets anything but the upgrade, fails here.
#[test]
fn a_node_that_ends_refuses_nobody_behind_a_proxy() {
    for proxy in Proxy::ALL {
        let mut cluster = Cluster::behind(proxy, &["--drain.timeout", "2s"]);
        let front = cluster.front().addr();
        let connect = |name: &str| -> Vec<Client> {
            (0..CLIENTS).map(|at| Client::connect(&front, &format!("{name}-{at}"))).collect()
        };
        let settled = connect("settled");
        let on_first = metric(&cluster.at(0), "fanfare_connections");
        assert!(on_first > 0 && on_first < CLIENTS, "{proxy:?}: both nodes have some, the first one {on_first}");

        cluster.drain(0);
        let meanwhile = connect("meanwhile");
        cluster.await_end(0);
        let on_second = metric(&cluster.at(1), "fanfare_connections");
        let later = connect("later");
        await_metric(&cluster.at(1), "fanfare_connections", on_second + CLIENTS);
        drop((settled, meanwhile, later));
    }
}

/// It answers, and cannot serve rooms with history. nginx has no check of its own.
#[test]
fn a_node_that_has_lost_its_redis_gets_no_new_client() {
    for proxy in [Proxy::Haproxy, Proxy::Caddy] {
        let mut redises = [Redis::start(), Redis::start()];
        let entries = [free_addr(), free_addr()];
        let nodes = [0, 1].map(|at| {
            let flags = proxy.node_flags(entries[at]);
            let own: Vec<&str> = flags.iter().map(String::as_str).collect();
            let (direct, url) = (free_addr().to_string(), redises[at].url());
            Server::with_reactors(1, &[&["--listen", &direct, "--redis", &url], &own[..]].concat())
        });
        let is_ready = |node: &Server| http_get(node, "/health/ready").status == 200;
        eventually("both nodes are ready", || nodes.iter().all(is_ready));
        let front = Front::before(proxy, entries);
        redises[0].kill();
        eventually("the node is not ready", || !is_ready(&nodes[0]));
        // The node with fewer connections gets the next one, unless it is left out.
        let mut clients = Vec::new();
        eventually("new clients come to the other node alone", || {
            let before = metric(&nodes[0], "fanfare_connections");
            clients.push(Client::connect(&front.addr(), "alice"));
            let [first, second] = [0, 1].map(|at| metric(&nodes[at], "fanfare_connections"));
            first == before && first + 5 < second
        });
        assert!(!is_ready(&nodes[0]));
    }
}
