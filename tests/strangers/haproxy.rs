//! A real HAProxy in front of the built server: it says in front of each connection whose it is.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use fanfare_testing::{Client, eventually, free_addr, temporary_path};
use serde_json::json;

use crate::proxy_protocol::Behind;
use crate::{ALICE, BOB, ask, refused};

/// A `haproxy`, killed when dropped.
struct Haproxy {
    process: Child,
    addr: SocketAddr,
    settings: PathBuf,
}

impl Haproxy {
    /// In front of this address, with the version of the header that `send_proxy` is the word for.
    #[track_caller]
    fn before(proxied: SocketAddr, send_proxy: &str) -> Haproxy {
        let (addr, settings) = (free_addr(), temporary_path("haproxy"));
        let text = format!(
            "defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 60s\n  timeout server 60s\n\
             frontend in\n  bind {addr}\n  default_backend node\nbackend node\n  server node {proxied} {send_proxy}\n"
        );
        fs::write(&settings, text).unwrap_or_else(|error| panic!("{}: {error}", settings.display()));
        let process = Command::new("haproxy")
            .args(["-db", "-f"])
            .arg(&settings)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("`haproxy` does not start ({error}): run tests/run, which installs it"));
        let haproxy = Haproxy { process, addr, settings };
        eventually("haproxy listens", || TcpStream::connect(addr).is_ok());
        haproxy
    }
}

impl Drop for Haproxy {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = fs::remove_file(&self.settings);
    }
}

pub fn haproxy_names_the_client(reactors: usize) {
    for send_proxy in ["send-proxy", "send-proxy-v2"] {
        let settings = ["--address.connections_max", "2", "--proxy.trusted", "127.0.0.1"];
        let Behind { server, proxied } = Behind::start(reactors, &settings);
        let haproxy = Haproxy::before(proxied, send_proxy);
        let open = [ask(ALICE, haproxy.addr, b"", &[]), ask(ALICE, haproxy.addr, b"", &[])];
        assert!(open.iter().all(|(status, _)| *status == 101), "{send_proxy}");
        assert_eq!(ask(ALICE, haproxy.addr, b"", &[]).0, 429, "{send_proxy}");
        assert_eq!(ask(BOB, haproxy.addr, b"", &[]).0, 101, "{send_proxy}");
        let mut alice = Client::greeted(&haproxy.addr, "/?userId=alice");
        alice.publish(json!({"type": "private_msg", "toUser": "alice", "content": "through haproxy"}));
        alice.expect(|json| json["content"] == "through haproxy");
        assert_eq!(refused(&server, "no_proxy_header"), 0);
    }
}
