//! A real nginx in front of a server: `nginx` on a free port, in a folder of its own, with nothing of this machine's
//! configuration, ended with the test.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use super::{Entrance, eventually, free_addr, temporary_path};

/// An `nginx`, killed when dropped. At `/` it does what it does by itself, which is to pass on requests without their
/// upgrade; at `/push/` it does what `examples/cluster/nginx.conf` says. At `/upgrade/` it leaves no mark but what it writes
/// into `Connection`, at `/unmarked/` none at all; at `/forwarded/` and `/forwarded-upgrade/` it says whom it asks for.
pub struct Nginx {
    process: Child,
    addr: SocketAddr,
    folder: PathBuf,
}

impl Nginx {
    /// In front of this server. Returns once it listens.
    ///
    /// # Panics
    ///
    /// Where it is not installed, or does not start.
    #[track_caller]
    pub fn before(server: &dyn Entrance) -> Nginx {
        Nginx::configured(|addr, folder| configuration(addr, server.next_addr(), folder))
    }

    /// In front of this server, to which it keeps a connection, for requests of all kinds; over `http` or `https`.
    ///
    /// # Panics
    ///
    /// As [`Nginx::before`].
    #[track_caller]
    pub fn keeping(server: &dyn Entrance, scheme: &str) -> Nginx {
        Nginx::configured(|addr, folder| keeping(addr, server.next_addr(), folder, scheme))
    }

    #[track_caller]
    fn configured(configuration: impl FnOnce(SocketAddr, &str) -> String) -> Nginx {
        let folder = temporary_path("nginx");
        fs::create_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        let addr = free_addr();
        let settings = folder.join("nginx.conf");
        let text = configuration(addr, &folder.display().to_string());
        fs::write(&settings, text).unwrap_or_else(|error| panic!("{}: {error}", settings.display()));
        let process = Command::new("nginx")
            .arg("-e")
            .arg(folder.join("error.log"))
            .arg("-c")
            .arg(&settings)
            .stdin(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("`nginx` does not start ({error}): run tests/run, which installs it"));
        let nginx = Nginx { process, addr, folder };
        eventually("nginx listens", || TcpStream::connect(addr).is_ok());
        nginx
    }

    /// In front of several servers, at any path: the one with the fewest connections gets the next, as in `deploy/nginx`.
    ///
    /// # Panics
    ///
    /// As [`Nginx::before`].
    #[track_caller]
    pub fn balancing(servers: &[SocketAddr]) -> Nginx {
        Nginx::configured(|addr, folder| balancer(addr, servers, folder))
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // One process: it is master and worker at once.
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// What stands in front of every configuration.
fn beginning(folder: &str, connections: usize) -> String {
    format!(
        "daemon off;
master_process off;
pid {folder}/nginx.pid;
events {{ worker_connections {connections}; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
"
    )
}

fn keeping(addr: SocketAddr, server: SocketAddr, folder: &str, scheme: &str) -> String {
    let beginning = beginning(folder, 512);
    format!(
        "{beginning}
  map $http_upgrade $connection_header {{ default upgrade; '' ''; }}
  upstream push {{
    server {server};
    keepalive 1;
  }}
  server {{
    listen {addr};
    location / {{
      proxy_pass {scheme}://push;
      proxy_http_version 1.1;
      proxy_set_header Upgrade $http_upgrade;
      proxy_set_header Connection $connection_header;
      proxy_set_header Host $http_host;
      proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
    }}
  }}
}}
"
    )
}

fn configuration(addr: SocketAddr, server: SocketAddr, folder: &str) -> String {
    let beginning = beginning(folder, 512);
    format!(
        "{beginning}
  map $http_upgrade $connection_header {{ default upgrade; '' close; }}
  server {{
    listen {addr};
    location / {{ proxy_pass http://{server}; }}
    location /push/ {{
      proxy_pass http://{server}/;
      proxy_http_version 1.1;
      proxy_set_header Upgrade $http_upgrade;
      proxy_set_header Connection $connection_header;
      proxy_set_header Host $host;
      proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
      proxy_buffering off;
    }}
    location /upgrade/ {{
      proxy_pass http://{server}/;
      proxy_http_version 1.1;
      proxy_set_header Upgrade $http_upgrade;
      proxy_set_header Connection upgrade;
    }}
    location /forwarded/ {{
      proxy_pass http://{server}/;
      proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
    }}
    location /forwarded-upgrade/ {{
      proxy_pass http://{server}/;
      proxy_http_version 1.1;
      proxy_set_header Upgrade $http_upgrade;
      proxy_set_header Connection $connection_header;
      proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
    }}
    location /unmarked/ {{
      proxy_pass http://{server}/;
      proxy_http_version 1.1;
      proxy_set_header Connection '';
    }}
  }}
}}
"
    )
}

fn balancer(addr: SocketAddr, servers: &[SocketAddr], folder: &str) -> String {
    let beginning = beginning(folder, 4096);
    let servers: String = servers.iter().map(|server| format!("    server {server};\n")).collect();
    format!(
        "{beginning}
  upstream nodes {{
    least_conn;
{servers}  }}
  server {{
    listen {addr};
    location / {{
      proxy_pass http://nodes;
      proxy_http_version 1.1;
      proxy_set_header Upgrade $http_upgrade;
      proxy_set_header Connection upgrade;
      proxy_set_header Host $host;
      proxy_read_timeout 1h;
    }}
  }}
}}
"
    )
}
