//! Redis as more than one process: a primary with a replica and a Sentinel, and a Redis Cluster.

use std::fs;
use std::process::{Child, Command, Stdio};

use fanfare_testing::{Redis, eventually, free_addr, temporary_path};

/// A primary, its replica, and a Sentinel that puts the one in place of the other.
pub(crate) struct Sentinel {
    process: Child,
    folder: std::path::PathBuf,
    port: u16,
    /// Both servers, the one first that was the primary at the start.
    pub(crate) servers: Vec<Redis>,
}

impl Sentinel {
    /// What the Sentinel calls the primary.
    pub(crate) const NAME: &'static str = "main";

    /// Starts all, the servers with these settings, the Sentinel with these lines more in its configuration. Returns once
    /// the Sentinel could put the replica in the primary's place.
    #[track_caller]
    pub(crate) fn start(settings: &[&str], lines: &str) -> Sentinel {
        let settings = [settings, &["--repl-diskless-sync-delay", "0"]].concat();
        let primary = Redis::with(&settings);
        let (host, port) = (primary.addr().ip().to_string(), primary.addr().port().to_string());
        let replica = Redis::with(&[&settings[..], &["--replicaof", &host, &port]].concat());
        let mut sentinel = Sentinel::watching(primary.addr().port(), lines);
        sentinel.servers = vec![primary, replica];
        eventually("the Sentinel knows a replica that is in step", || {
            let replicas = sentinel.command(&["SENTINEL", "REPLICAS", Sentinel::NAME]);
            replicas.contains("master-link-status\nok") && replicas.contains("flags\nslave\n")
        });
        sentinel
    }

    /// Starts a Sentinel alone, for a primary that the caller has. Returns once it answers.
    #[track_caller]
    pub(crate) fn watching(primary: u16, lines: &str) -> Sentinel {
        let folder = temporary_path("sentinel");
        fs::create_dir(&folder).expect("a folder of our own");
        let (port, name) = (free_addr().port(), Sentinel::NAME);
        let configuration = format!(
            "port {port}\nbind 127.0.0.1\nlogfile sentinel.log\n{lines}\nsentinel monitor {name} 127.0.0.1 {primary} 1\n\
             sentinel down-after-milliseconds {name} 500\nsentinel failover-timeout {name} 3000\n"
        );
        fs::write(folder.join("sentinel.conf"), configuration).expect("a file of our own");
        let process = Command::new("redis-server")
            .args(["sentinel.conf", "--sentinel"])
            .current_dir(&folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server runs, as it did for the servers");
        let sentinel = Sentinel { process, folder, port, servers: Vec::new() };
        eventually("the Sentinel answers", || sentinel.command(&["PING"]) == "PONG");
        sentinel
    }

    /// Where it listens.
    pub(crate) fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The index of the server that it names.
    #[track_caller]
    pub(crate) fn primary(&self) -> usize {
        let named = self.command(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", Sentinel::NAME]).replace('\n', ":");
        let at = self.servers.iter().position(|server| server.addr().to_string() == named);
        at.unwrap_or_else(|| panic!("the Sentinel names {named}"))
    }

    /// Has the replica take the primary's place while both live.
    #[track_caller]
    pub(crate) fn fail_over(&self) {
        let before = self.primary();
        eventually("the failover is accepted", || self.command(&["SENTINEL", "FAILOVER", Sentinel::NAME]) == "OK");
        eventually("the Sentinel names the other server", || self.primary() != before);
    }

    /// Runs a command at the Sentinel, of which an error is the answer, too.
    #[track_caller]
    pub(crate) fn command(&self, words: &[&str]) -> String {
        let port = self.port.to_string();
        let run = Command::new("redis-cli").args(["-p", &port]).args(words).output();
        String::from_utf8_lossy(&run.expect("redis-cli is there where redis-server is").stdout).trim().to_owned()
    }
}

impl Drop for Sentinel {
    fn drop(&mut self) {
        // An error means that the process has ended already, which is what is wanted.
        let _ = self.process.kill();
        let _ = self.process.wait();
        if std::thread::panicking() {
            eprintln!(
                "---- the Sentinel's log ----\n{}",
                fs::read_to_string(self.folder.join("sentinel.log")).unwrap_or_default()
            );
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// A Redis Cluster: three primaries, of which the first may have a replica.
pub(crate) struct Shards {
    /// The primaries, then the replica.
    pub(crate) servers: Vec<Redis>,
}

impl Shards {
    /// How many primaries there are at the start.
    pub(crate) const PRIMARIES: usize = 3;

    const SLOTS: [(u16, u16); Shards::PRIMARIES] = [(0, 5_460), (5_461, 10_922), (10_923, 16_383)];

    /// Starts so many replicas of the first primary, too. Returns once all agree on who serves what.
    #[track_caller]
    pub(crate) fn start(replicas: usize) -> Shards {
        let mut servers: Vec<(Redis, String)> =
            (0..Shards::PRIMARIES + replicas).map(|_| Shards::server(&[])).collect();
        for (at, (server, bus)) in servers.iter().enumerate() {
            server.command(&["CLUSTER", "SET-CONFIG-EPOCH", &(at + 1).to_string()]);
            if let Some((first, last)) = Shards::SLOTS.get(at) {
                server.command(&["CLUSTER", "ADDSLOTSRANGE", &first.to_string(), &last.to_string()]);
            }
            let (ip, port) = (server.addr().ip().to_string(), server.addr().port().to_string());
            servers[0].0.command(&["CLUSTER", "MEET", &ip, &port, bus]);
        }
        let shards = Shards { servers: servers.drain(..).map(|(server, _)| server).collect() };
        shards.await_agreement(shards.servers.len());
        let first = shards.servers[0].command(&["CLUSTER", "MYID"]);
        for replica in &shards.servers[Shards::PRIMARIES..] {
            eventually("the replica knows its primary", || replica.command(&["CLUSTER", "NODES"]).contains(&first));
            replica.command(&["CLUSTER", "REPLICATE", &first]);
            let id = replica.command(&["CLUSTER", "MYID"]);
            eventually("the primary knows its replica", || {
                shards.servers[0].command(&["CLUSTER", "REPLICAS", &first]).contains(&id)
            });
            eventually("the replica is in step", || {
                replica.command(&["INFO", "replication"]).contains("link_status:up")
            });
        }
        shards
    }

    /// A server for a cluster, and the port of its bus.
    #[track_caller]
    pub(crate) fn server(settings: &[&str]) -> (Redis, String) {
        let bus = free_addr().port().to_string();
        let own = ["--cluster-enabled", "yes", "--cluster-port", &bus, "--cluster-node-timeout", "1000"];
        let more = ["--repl-diskless-sync-delay", "0", "--cluster-replica-validity-factor", "0"];
        (Redis::with(&[&own[..], &more, settings].concat()), bus)
    }

    #[track_caller]
    fn await_agreement(&self, nodes: usize) {
        for server in &self.servers {
            eventually("all know each other", || {
                let info = server.command(&["CLUSTER", "INFO"]);
                info.contains("cluster_state:ok") && info.contains(&format!("cluster_known_nodes:{nodes}"))
            });
        }
    }

    /// The URL that names the last two primaries.
    pub(crate) fn url(&self) -> String {
        format!("redis+cluster://{},{}", self.servers[1].addr(), self.servers[2].addr())
    }

    /// The first name of a room that begins with `prefix` and is on this primary, as the servers are at the start.
    #[track_caller]
    pub(crate) fn room_at(&self, shard: usize, prefix: &str) -> String {
        let (first, last) = Shards::SLOTS[shard];
        let here = |room: &String| (first..=last).contains(&self.slot_of(room));
        (0..).map(|number: u32| format!("{prefix}{number}")).find(here).expect("a third of them")
    }

    /// The slot of a room.
    #[track_caller]
    pub(crate) fn slot_of(&self, room: &str) -> u16 {
        let slot = self.servers[1].command(&["CLUSTER", "KEYSLOT", &format!("fanfare:room:{{{room}}}")]);
        slot.parse().unwrap_or_else(|_| panic!("a slot, not {slot}"))
    }

    /// Moves a slot with its keys, as `redis-cli --cluster reshard` does.
    #[track_caller]
    pub(crate) fn move_slot(&self, slot: u16, from: usize, to: usize) {
        let slot = slot.to_string();
        let (from, to) = (&self.servers[from], &self.servers[to]);
        let (source, target) = (from.command(&["CLUSTER", "MYID"]), to.command(&["CLUSTER", "MYID"]));
        assert_eq!(to.command(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &source]), "OK");
        assert_eq!(from.command(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &target]), "OK");
        let (host, port) = (to.addr().ip().to_string(), to.addr().port().to_string());
        loop {
            let keys = from.command(&["CLUSTER", "GETKEYSINSLOT", &slot, "100"]);
            if keys.is_empty() {
                break;
            }
            for key in keys.lines() {
                let moved = from.command(&["MIGRATE", &host, &port, key, "0", "5000"]);
                assert!(matches!(&*moved, "OK" | "NOKEY"), "{moved}");
            }
        }
        for server in [to, from].into_iter().chain(&self.servers[..Shards::PRIMARIES]) {
            assert_eq!(server.command(&["CLUSTER", "SETSLOT", &slot, "NODE", &target]), "OK");
        }
    }
}
