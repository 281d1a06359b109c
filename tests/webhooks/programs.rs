//! Receivers that others run: `fanfare webhook`, and the examples of the document in Python and for Node.

use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};

use fanfare_testing::{Client, Server, binary, eventually, free_addr};

use super::receiver::SECRET;
use super::secret_file;

/// A process that ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Running {
    fn start(mut command: Command) -> Running {
        Running(command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("the program should start"))
    }

    fn lines(&mut self) -> impl Iterator<Item = String> {
        BufReader::new(self.0.stdout.take().expect("stdout is piped")).lines().map_while(Result::ok)
    }
}

/// What a receiver prints of a user and a room that come and go.
#[track_caller]
fn assert_hears(url: &str, lines: &mut impl Iterator<Item = String>, with_ids: bool) {
    let server = Server::start(&["--webhook", &format!("url={url},secret_file={}", secret_file())]);
    let mut client = Client::connect(&server, "olivia");
    client.join("den\u{9b}2J");
    let mut next = |count: usize| {
        let mut found: Vec<String> = lines.take(count).collect();
        if with_ids {
            found.iter_mut().for_each(|line| *line = line.split_once(' ').expect("an id").1.to_owned());
        }
        found.sort();
        found
    };
    assert!(next(2)[1].starts_with("user_online olivia"));
    client.leave();
    let left = next(2);
    assert!(left[0].starts_with("room_vacated den") && left[1] == "user_offline olivia", "{left:?}");
    assert!(!with_ids || !left[0].contains('\u{9b}'), "what others have named stays on its line: {left:?}");
}

#[test]
fn the_command_prints_what_comes_and_refuses_what_is_not_signed() {
    let mut command = Command::new(binary());
    command.args(["webhook", "--listen", "127.0.0.1:0", "--secret-file", &secret_file()]);
    let mut running = Running::start(command);
    let mut lines = running.lines();
    let first = lines.next().expect("it says where it listens");
    let url = first.strip_prefix("listening on ").expect("a URL").to_owned();
    assert_hears(&url, &mut lines, true);
    let addr: std::net::SocketAddr =
        url.trim_start_matches("http://").trim_end_matches('/').parse().expect("an address");
    let forged = "POST / HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: 13\r\n\r\n{\"events\":[]}";
    assert_eq!(fanfare_testing::http_ask(&addr, forged).status, 401);
    assert_eq!(lines.next().as_deref(), Some("refused: the signature is not t=T,v1=HEX"));
}

/// Runs one of the examples on a port, and lets it hear events and a forged one.
#[track_caller]
fn assert_example_works(program: &str, path: &str) {
    let addr = free_addr();
    let mut command = Command::new(program);
    command.arg(format!("{}/{path}", env!("CARGO_MANIFEST_DIR"))).arg(addr.port().to_string());
    command.env("WEBHOOK_SECRET", SECRET);
    let mut running = Running::start(command);
    eventually("it listens", || TcpStream::connect(addr).is_ok());
    let mut lines = running.lines();
    let forged = "POST / HTTP/1.1\r\nHost: h\r\nConnection: close\r\nX-Fanfare-Signature: t=1,v1=00\r\nContent-Length: \
                  13\r\n\r\n{\"events\":[]}";
    assert_eq!(fanfare_testing::http_ask(&addr, forged).status, 401);
    assert_hears(&format!("http://{addr}/"), &mut lines, false);
}

#[test]
fn the_example_in_python_works() {
    assert_example_works("python3", "examples/webhook_receiver.py");
}

#[test]
fn the_example_for_node_works() {
    assert_example_works("node", "examples/webhook_receiver.mjs");
}
