//! The proxies of `deploy/`, each with its own file from there, in front of servers under test.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::{Certificates, TlsTunnel, eventually, free_addr, http_get, temporary_path};

/// The addresses in the files of `deploy/`: two nodes, as HAProxy reaches them and as the others do.
const NODES: [&str; 2] = ["10.0.0.11", "10.0.0.12"];

/// Which proxy stands in front.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proxy {
    /// `deploy/nginx`, which names clients by `X-Forwarded-For`.
    Nginx,
    /// `deploy/haproxy`, which names them by the PROXY protocol.
    Haproxy,
    /// `deploy/caddy`, which names them by `X-Forwarded-For`.
    Caddy,
}

impl Proxy {
    /// All of them.
    pub const ALL: [Proxy; 3] = [Proxy::Nginx, Proxy::Haproxy, Proxy::Caddy];

    /// Flags of a node that this proxy reaches at `entry`, beside its `--listen` of another address for the test itself.
    pub fn node_flags(self, entry: SocketAddr) -> Vec<String> {
        let listener = match self {
            Proxy::Nginx | Proxy::Caddy => format!("address={entry}"),
            Proxy::Haproxy => format!("address={entry},proxy_protocol=true"),
        };
        ["--proxy.trusted", "127.0.0.1", "--listener", &listener].map(str::to_owned).to_vec()
    }
}

/// A running proxy, ended when dropped. It speaks TLS, and a tunnel to it is there for clients that do not.
pub struct Front {
    proxy: Proxy,
    process: Child,
    tunnel: TlsTunnel,
    secured: SocketAddr,
    certificates: Certificates,
    folder: PathBuf,
}

impl Front {
    /// In front of two nodes: where it reaches them, as [`Proxy::node_flags`] has said. Returns once a request comes through.
    ///
    /// # Panics
    ///
    /// Where the proxy is not installed, does not start, or its file in `deploy/` has not what is replaced in it.
    #[track_caller]
    pub fn before(proxy: Proxy, nodes: [SocketAddr; 2]) -> Front {
        Front::changed(proxy, nodes, &[])
    }

    /// The same with more replacements in its file: a text that stands there, and what takes its place.
    #[track_caller]
    pub fn changed(proxy: Proxy, nodes: [SocketAddr; 2], more: &[(&str, &str)]) -> Front {
        let folder = temporary_path("front");
        fs::create_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        let (certificates, secured) = (Certificates::make(), free_addr());
        let place = Place { folder: &folder, certificates: &certificates, secured, nodes };
        let mut command = match proxy {
            Proxy::Nginx => place.nginx(more),
            Proxy::Haproxy => place.haproxy(more),
            Proxy::Caddy => place.caddy(more),
        };
        let log = fs::File::create(folder.join("stderr")).expect("a file of our own");
        let process = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap_or_else(|error| {
            panic!("{:?} does not start ({error}): run tests/run, which installs it", command.get_program())
        });
        let tunnel = TlsTunnel::to(secured, &certificates);
        let mut front = Front { proxy, process, tunnel, secured, certificates, folder };
        eventually(&format!("{proxy:?} listens"), || TcpStream::connect(secured).is_ok() || front.has_ended());
        assert!(!front.has_ended(), "{proxy:?} has ended:\n{}", front.log());
        eventually(&format!("{proxy:?} has a node"), || http_get(&front.addr(), "/health/ready").status == 200);
        front
    }

    /// Where clients without TLS connect.
    pub fn addr(&self) -> SocketAddr {
        self.tunnel.addr()
    }

    /// Where it speaks TLS.
    pub fn secured_addr(&self) -> SocketAddr {
        self.secured
    }

    /// Its certificate's authority, and others of the same.
    pub fn certificates(&self) -> &Certificates {
        &self.certificates
    }

    /// The process: nginx's master.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Has nginx read its file again: new workers, and the old ones stay as long as their connections.
    #[track_caller]
    pub fn reload(&self) {
        assert_eq!(self.proxy, Proxy::Nginx, "SIGHUP is a reload for nginx alone");
        kill_process(Pid::from_child(&self.process), Signal::HUP).expect("nginx should be running");
    }

    /// What it has written so far.
    pub fn log(&self) -> String {
        ["stderr", "error.log"].map(|name| fs::read_to_string(self.folder.join(name)).unwrap_or_default()).concat()
    }

    fn has_ended(&mut self) -> bool {
        !matches!(self.process.try_wait(), Ok(None))
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        // nginx's master ends its workers at SIGTERM, and would leave them behind at SIGKILL.
        if !self.has_ended() {
            let _ = kill_process(Pid::from_child(&self.process), Signal::TERM);
            if crate::await_exit(&mut self.process).is_none() {
                let _ = self.process.kill();
                let _ = self.process.wait();
            }
        }
        if std::thread::panicking() {
            eprintln!("---- the log of {:?} ----\n{}", self.proxy, self.log());
        }
        // What is left behind lies among the temporary files.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Where a proxy runs: what takes the place of the paths and addresses in its file.
struct Place<'t> {
    folder: &'t Path,
    certificates: &'t Certificates,
    secured: SocketAddr,
    nodes: [SocketAddr; 2],
}

impl Place<'_> {
    fn nginx(&self, more: &[(&str, &str)]) -> Command {
        let folder = self.folder.display().to_string();
        let main = replaced(
            "nginx/nginx.conf",
            &[
                ("/run/nginx.pid", &format!("{folder}/nginx.pid")),
                ("/var/log/nginx/error.log", &format!("{folder}/error.log")),
                ("/var/log/nginx/access.log", &format!("{folder}/access.log")),
                ("/etc/nginx/conf.d/*.conf", &format!("{folder}/fanfare.conf")),
                // As much as a container may have.
                ("worker_rlimit_nofile 200000", "worker_rlimit_nofile 8192"),
                ("worker_processes auto", "worker_processes 2"),
                ("worker_connections 65536", "worker_connections 4096"),
            ],
            more,
        );
        // Folders for bodies, which Debian's nginx has in /var/lib/nginx.
        let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|kind| format!("  {kind}_temp_path {folder}/{kind};\n"))
            .concat();
        let main = main.replace("http {\n", &format!("http {{\n{temporary}"));
        let [one, other] = self.nodes.map(|node| node.to_string());
        let site = replaced(
            "nginx/fanfare.conf",
            &[
                ("  listen 80;", &format!("  listen {};", free_addr())),
                ("  listen 443 ssl;", &format!("  listen {} ssl;", self.secured)),
                ("server 10.0.0.11:8080", &format!("server {one}")),
                ("server 10.0.0.12:8080", &format!("server {other}")),
                ("/etc/ssl/fanfare/fullchain.pem", &self.certificates.path("server.pem")),
                ("/etc/ssl/fanfare/privkey.pem", &self.certificates.path("server.key")),
            ],
            &[],
        );
        let file = self.write("nginx.conf", &main);
        self.write("fanfare.conf", &site);
        let mut command = Command::new("nginx");
        command.arg("-e").arg(self.folder.join("error.log")).args(["-g", "daemon off;", "-c"]).arg(file);
        command
    }

    fn haproxy(&self, more: &[(&str, &str)]) -> Command {
        // HAProxy wants both in one file.
        let pem = ["server.pem", "server.key"]
            .map(|name| fs::read_to_string(self.certificates.path(name)).expect("a file of our own"))
            .concat();
        let pem = self.write("both.pem", &pem);
        let [one, other] = self.nodes.map(|node| node.to_string());
        let text = replaced(
            "haproxy/haproxy.cfg",
            &[
                ("  user haproxy\n  group haproxy\n", ""),
                ("/run/haproxy/admin.sock", &self.folder.join("admin.sock").display().to_string()),
                ("bind :443 ", &format!("bind {} ", self.secured)),
                ("/etc/haproxy/certs/push.example.com.pem", &pem.display().to_string()),
                ("server node-1 10.0.0.11:8081", &format!("server node-1 {one}")),
                ("server node-2 10.0.0.12:8081", &format!("server node-2 {other}")),
                ("maxconn 100000", "maxconn 4000"),
            ],
            more,
        );
        let mut command = Command::new("haproxy");
        command.args(["-db", "-f"]).arg(self.write("haproxy.cfg", &text));
        command
    }

    fn caddy(&self, more: &[(&str, &str)]) -> Command {
        let (certificate, key) = (self.certificates.path("server.pem"), self.certificates.path("server.key"));
        let text = replaced(
            "caddy/Caddyfile",
            &[
                ("/var/lib/caddy/admin.sock", &self.folder.join("admin.sock").display().to_string()),
                // A certificate that is there, for whatever name the clients use.
                (
                    "{$FANFARE_SITE:push.example.com} {",
                    &format!("{{$FANFARE_SITE}} {{\n\tbind 127.0.0.1\n\ttls {certificate} {key}"),
                ),
                // It would answer on port 80 as well.
                ("\tservers {", "\tauto_https disable_redirects\n\tservers {"),
            ],
            more,
        );
        assert!(NODES.iter().all(|node| text.contains(node)), "the nodes that stand there by default");
        let [one, other] = self.nodes.map(|node| node.to_string());
        let mut command = Command::new("caddy");
        command.args(["run", "--adapter", "caddyfile", "--config"]).arg(self.write("Caddyfile", &text));
        command
            .env("FANFARE_SITE", format!("https://:{}", self.secured.port()))
            .env("FANFARE_NODES", format!("{one} {other}"))
            .env("HOME", self.folder)
            .env("XDG_DATA_HOME", self.folder)
            .env("XDG_CONFIG_HOME", self.folder);
        command
    }

    #[track_caller]
    fn write(&self, name: &str, text: &str) -> PathBuf {
        let file = self.folder.join(name);
        fs::write(&file, text).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        file
    }
}

/// A file of `deploy/` in which each text, which has to stand there, is replaced.
#[track_caller]
fn replaced(name: &str, own: &[(&str, &str)], more: &[(&str, &str)]) -> String {
    let mut text = deployed(name);
    for (old, new) in own.iter().chain(more) {
        assert!(text.contains(old), "deploy/{name} has no `{old}`");
        text = text.replace(old, new);
    }
    text
}

/// The text of a file in `deploy/`.
///
/// # Panics
///
/// Where it is not there.
#[track_caller]
pub fn deployed(name: &str) -> String {
    let file = deploy_folder().join(name);
    fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

/// The folder `deploy/` of the sources.
pub fn deploy_folder() -> PathBuf {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("the sources are two folders above");
    sources.join("deploy")
}
