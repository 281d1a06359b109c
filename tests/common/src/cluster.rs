//! Several servers with a Redis between them, and the ways in which the end-to-end suite runs.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;

use super::{
    Certificates, Client, Entrance, Front, Proxy, Redis, Server, Signal, TlsTunnel, eventually, free_addr, http_get,
};

/// How a case's clients are served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// By one process with so many reactors.
    Reactors(usize),
    /// By one process with two reactors, over TLS.
    Secured,
    /// By one process with two reactors on io_uring, over TLS or without.
    OnRing {
        /// Whether it is over TLS.
        secured: bool,
    },
    /// By two processes with a Redis between them, in turn.
    TwoNodes,
    /// By the same two processes, through a proxy of `deploy/` with the file that is there.
    Behind(Proxy),
}

impl Way {
    /// Servers of this kind, each with these settings.
    #[track_caller]
    pub fn start(self, settings: &[&str]) -> Cluster {
        match self {
            Way::Reactors(count) => Cluster::alone(count, settings),
            Way::Secured => Cluster::secured(2, settings),
            Way::OnRing { secured: false } => Cluster::alone(2, &[&["--io", "uring"], settings].concat()),
            Way::OnRing { secured: true } => Cluster::secured(2, &[&["--io", "uring"], settings].concat()),
            Way::TwoNodes => Cluster::start(2, settings),
            Way::Behind(proxy) => Cluster::behind(proxy, settings),
        }
    }
}

/// Nodes, and the Redis that they share. Clients connect to the nodes in turn, to [`one`](Cluster::at) of them, or, where there
/// is a proxy, to that.
pub struct Cluster {
    nodes: Vec<Server>,
    redis: Option<Redis>,
    /// The way to a single node that speaks TLS.
    tunnel: Option<TlsTunnel>,
    /// The proxy in front of two nodes.
    front: Option<Front>,
    next: AtomicUsize,
}

impl Cluster {
    /// A single node with so many reactors and no Redis.
    #[track_caller]
    pub fn alone(reactors: usize, settings: &[&str]) -> Cluster {
        let addr = free_addr().to_string();
        let node = Server::with_reactors(reactors, &[&["--listen", &addr], settings].concat());
        Cluster::of(vec![node])
    }

    /// A single node that speaks TLS, and a way to it for clients that do not.
    #[track_caller]
    pub fn secured(reactors: usize, settings: &[&str]) -> Cluster {
        let certificates = Certificates::make();
        let (certificate, key) = (certificates.path("server.pem"), certificates.path("server.key"));
        let tls = ["--tls.certificate", &certificate, "--tls.key", &key];
        let cluster = Cluster::alone(reactors, &[&tls, settings].concat());
        let tunnel = TlsTunnel::to(cluster.nodes[0].addr(), &certificates);
        Cluster { tunnel: Some(tunnel), ..cluster }
    }

    /// So many nodes around a Redis of their own that keeps nothing on disk. Returns once all are ready.
    #[track_caller]
    pub fn start(nodes: usize, settings: &[&str]) -> Cluster {
        let cluster = Cluster::around(Redis::start(), nodes, settings);
        cluster.await_ready();
        cluster
    }

    /// Two nodes around a Redis of their own, and a proxy in front of them. Returns once all are ready.
    #[track_caller]
    pub fn behind(proxy: Proxy, settings: &[&str]) -> Cluster {
        Cluster::behind_changed(proxy, settings, &[])
    }

    /// The same with more replacements in the proxy's file.
    #[track_caller]
    pub fn behind_changed(proxy: Proxy, settings: &[&str], replacements: &[(&str, &str)]) -> Cluster {
        let redis = Redis::start();
        let entries = [free_addr(), free_addr()];
        let nodes = entries.map(|entry| {
            let flags = proxy.node_flags(entry);
            let (direct, url) = (free_addr().to_string(), redis.url());
            let own: Vec<&str> = flags.iter().map(String::as_str).collect();
            Server::with_reactors(1, &[&["--listen", &direct, "--redis", &url], &own[..], settings].concat())
        });
        let mut cluster = Cluster::of(nodes.into());
        cluster.redis = Some(redis);
        cluster.await_ready();
        cluster.front = Some(Front::changed(proxy, entries, replacements));
        cluster
    }

    fn of(nodes: Vec<Server>) -> Cluster {
        Cluster { nodes, redis: None, tunnel: None, front: None, next: AtomicUsize::new(0) }
    }

    /// So many nodes around a Redis that may be absent. Returns once they listen.
    #[track_caller]
    pub fn around(redis: Redis, nodes: usize, settings: &[&str]) -> Cluster {
        let cluster = Cluster::at_url(&redis.url(), nodes, settings);
        Cluster { redis: Some(redis), ..cluster }
    }

    /// So many nodes around a Redis that the caller has. Returns once they listen.
    #[track_caller]
    pub fn at_url(url: &str, nodes: usize, settings: &[&str]) -> Cluster {
        let nodes = (0..nodes).map(|at| {
            let addr = free_addr().to_string();
            let own = ["--listen", &addr, "--redis", url];
            // Nodes need not be alike: every second one has two reactors.
            Server::with_reactors(1 + at % 2, &[&own, settings].concat())
        });
        Cluster::of(nodes.collect())
    }

    /// How many nodes there are.
    pub fn nodes_count(&self) -> usize {
        self.nodes.len()
    }

    /// The address of one node.
    pub fn at(&self, node: usize) -> SocketAddr {
        self.tunnel.as_ref().map_or_else(|| self.nodes[node].addr(), TlsTunnel::addr)
    }

    /// The URL of a request target at the next node.
    pub fn url(&self, path_and_query: &str) -> String {
        format!("ws://{}{path_and_query}", self.next_addr())
    }

    /// The proxy in front of the nodes.
    #[track_caller]
    pub fn front(&self) -> &Front {
        self.front.as_ref().expect("a cluster behind a proxy")
    }

    /// The Redis between the nodes.
    #[track_caller]
    pub fn redis(&self) -> &Redis {
        self.redis.as_ref().expect("a cluster has a Redis")
    }

    /// The Redis between the nodes, to end it or start it again.
    #[track_caller]
    pub fn redis_mut(&mut self) -> &mut Redis {
        self.redis.as_mut().expect("a cluster has a Redis")
    }

    /// What a node has written to stderr since it was started last (the newest 64 KiB).
    pub fn log(&self, node: usize) -> String {
        self.nodes[node].log()
    }

    /// A node that has ended, if there is one.
    pub fn ended_node(&mut self) -> Option<usize> {
        self.nodes.iter_mut().position(|node| !node.is_running())
    }

    /// Ends a node with SIGKILL.
    pub fn kill(&mut self, node: usize) {
        self.nodes[node].kill();
    }

    /// Starts a node on the same port with the same settings, after a SIGKILL if it still runs. Returns once it listens.
    #[track_caller]
    pub fn restart(&mut self, node: usize) {
        self.nodes[node].restart();
    }

    /// Tells a node to go away (SIGTERM).
    pub fn drain(&self, node: usize) {
        self.nodes[node].signal(Signal::TERM);
    }

    /// Waits until a node that was told to go away has ended.
    #[track_caller]
    pub fn await_end(&mut self, node: usize) {
        let status = self.nodes[node].wait_exit();
        assert!(status.success(), "node {node} ended with {status}:\n{}", self.log(node));
    }

    /// Stops a node with SIGSTOP: connections stay, answers do not come.
    pub fn stop(&self, node: usize) {
        self.nodes[node].signal(Signal::STOP);
    }

    /// Lets a stopped node go on.
    pub fn cont(&self, node: usize) {
        self.nodes[node].signal(Signal::CONT);
    }

    /// Returns when every node has what any of them has said until now. Within one node there is nothing to wait for: who
    /// was answered is ahead of all that comes later.
    #[track_caller]
    pub fn settle(&self) {
        const USER: &str = "who waits until all is settled";
        if self.nodes.len() < 2 {
            return;
        }
        let mut clients: Vec<Client> = self.addrs().iter().map(|node| Client::connect(node, USER)).collect();
        for client in &mut clients {
            client.publish(json!({"type": "private_msg", "toUser": USER, "content": "all of it"}));
        }
        let nodes_count = self.nodes.len();
        for mut client in clients {
            (0..nodes_count).for_each(|_| drop(client.recv_type("private_msg")));
            client.leave();
        }
    }

    /// Waits until every node says that it is ready.
    #[track_caller]
    pub fn await_ready(&self) {
        self.await_readiness(200);
    }

    /// Waits until every node answers a question for its readiness with this status.
    #[track_caller]
    pub fn await_readiness(&self, status: u16) {
        for node in self.addrs() {
            eventually(&format!("/health/ready of {node} answers {status}"), || {
                http_get(&node, "/health/ready").status == status
            });
        }
    }
}

impl Entrance for Cluster {
    fn next_addr(&self) -> SocketAddr {
        match &self.front {
            Some(front) => front.addr(),
            None => self.at(self.next.fetch_add(1, Ordering::Relaxed) % self.nodes.len()),
        }
    }

    fn addrs(&self) -> Vec<SocketAddr> {
        (0..self.nodes.len()).map(|node| self.at(node)).collect()
    }
}
