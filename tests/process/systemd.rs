//! What a supervisor has to do with the process: sockets that it passes, what it is told, its watchdog.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use fanfare_testing::activation::pass;
use fanfare_testing::raw::{RawConn, upgrade_request};
use fanfare_testing::{
    Client, PATIENCE, Server, Signal, eventually, free_addr, hears_hangups, http_ask_over, http_get, socket_path,
    temporary_path,
};
use nix::sys::ptrace;
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;

/// Lets `systemd-socket-activate` start the command, with a socket for each address. It waits for the first client.
fn activate(command: &mut Command, addresses: &[&str]) {
    let mut activated = Command::new("systemd-socket-activate");
    for address in addresses {
        activated.args(["--listen", address]);
    }
    activated.arg(command.get_program()).args(command.get_args());
    activated.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    *command = activated;
}

fn connected(address: SocketAddr) -> TcpStream {
    let mut stream = None;
    eventually("the socket is there", || {
        stream = TcpStream::connect(address).ok();
        stream.is_some()
    });
    stream.expect("a stream")
}

#[test]
fn sockets_of_a_unit_are_served_whichever_they_are() {
    let (first, second, path) = (free_addr(), free_addr(), socket_path());
    let texts = [first.to_string(), second.to_string(), path.display().to_string()];
    let early = thread::spawn(move || Client::over(Box::new(connected(first)), "ws://localhost/?userId=early"));
    let settings = [
        "--listen",
        &texts[0],
        "--listen",
        &texts[1],
        "--listen",
        &format!("unix:{}", texts[2]),
        "--listen",
        "127.0.0.1:0",
    ];
    let addresses = [&*texts[0], &texts[1], &texts[2]];
    let settings = [&["--reactors", "3"], &settings[..]].concat();
    let server = Server::changed(|command| activate(command, &addresses), &settings);
    let mut early = early.join().expect("no panic").expect("who came before the process is served");
    early.take_welcome();
    early.barrier();
    assert!(
        server.listeners()[..2] == [format!("http://{first}/"), format!("http://{second}/")],
        "{:?}",
        server.listeners()
    );
    // A socket that reactors share has clients on several of them.
    let mut clients: Vec<Client> = (0..30).map(|at| Client::connect(&first, &format!("user-{at}"))).collect();
    clients.push(Client::connect(&second, "second"));
    for _ in 0..2 {
        let stream = UnixStream::connect(&path).expect("the socket of the unit");
        let mut client = Client::over(Box::new(stream), "ws://localhost/?userId=local").expect("an upgrade");
        client.take_welcome();
        clients.push(client);
    }
    clients.iter_mut().for_each(Client::barrier);
    assert_eq!(http_get(&server, "/health/live").status, 200);
    drop(server);
    assert!(path.exists(), "the file is the supervisor's");
    let _ = fs::remove_file(path);
}

/// The kernel holds clients for the next process.
#[test]
fn nobody_is_refused_between_one_process_and_the_next() {
    let socket = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = socket.local_addr().expect("it is bound");
    let start =
        || Server::changed(|command| pass(command, &socket), &["--reactors", "2", "--listen", &address.to_string()]);
    let mut server = start();
    for round in 0..3 {
        let mut told = Client::connect(&address, "told");
        server.signal(Signal::TERM);
        assert_eq!(told.close_frame().0, 1001);
        drop(told);
        assert_eq!(server.wait_exit().code(), Some(0));
        let mut waiting: Vec<RawConn> = (0..20).map(|_| RawConn::connect(&address)).collect();
        for conn in &mut waiting {
            conn.send(upgrade_request("/?userId=waiting", &[]).as_bytes());
        }
        server = start();
        for conn in &mut waiting {
            assert!(conn.read_head().starts_with("HTTP/1.1 101"), "round {round}");
        }
    }
}

#[test]
fn a_socket_that_belongs_to_no_listener_is_named() {
    let socket = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = socket.local_addr().expect("it is bound").to_string();
    let mut command = Command::new(fanfare_testing::binary());
    command.args(["serve", "--listen", "127.0.0.1:0"]);
    pass(&mut command, &socket);
    let ended = command.output().expect("it runs");
    let stderr = String::from_utf8_lossy(&ended.stderr);
    assert_eq!((ended.status.code(), stderr.lines().count()), (Some(2), 1), "{stderr}");
    assert!(stderr.contains(&address) && stderr.contains("no listener has this address"), "{stderr}");
}

/// A supervisor's end of the socket that news come to.
struct News {
    socket: UnixDatagram,
    path: PathBuf,
}

impl News {
    fn new() -> News {
        let path = temporary_path("notify");
        let socket = UnixDatagram::bind(&path).expect("a free path");
        socket.set_read_timeout(Some(PATIENCE)).expect("a time above zero");
        News { socket, path }
    }

    fn next(&self) -> String {
        let mut news = [0; 4096];
        let length = self.socket.recv(&mut news).expect("news within some seconds");
        String::from_utf8_lossy(&news[..length]).into_owned()
    }

    /// The next that is about more than the watchdog.
    fn next_event(&self) -> String {
        loop {
            let news = self.next();
            if news != "WATCHDOG=1\n" {
                return news;
            }
        }
    }

    /// How often the watchdog was fed in some time.
    fn feeds_in(&self, time: Duration) -> usize {
        let until = Instant::now() + time;
        let mut feeds = 0;
        self.socket.set_nonblocking(true).expect("a socket");
        while Instant::now() < until {
            let mut news = [0; 4096];
            match self.socket.recv(&mut news) {
                Ok(length) => feeds += usize::from(&news[..length] == b"WATCHDOG=1\n"),
                Err(_) => thread::sleep(Duration::from_millis(5)),
            }
        }
        self.socket.set_nonblocking(false).expect("a socket");
        feeds
    }
}

impl Drop for News {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

#[test]
fn a_supervisor_is_told_of_start_reload_and_stop() {
    let news = News::new();
    let caught = |command: &mut Command| {
        hears_hangups(command);
        command.env("NOTIFY_SOCKET", &news.path);
    };
    let mut server = Server::changed(caught, &["--drain.timeout", "7s", "--drain.delay", "10ms"]);
    assert!(news.next().starts_with("READY=1\nSTATUS="));
    Client::connect(&server, "alice").barrier();
    server.signal(Signal::HUP);
    let reloading = news.next();
    let since = reloading.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap_or_else(|| panic!("{reloading}"));
    assert!(since.trim().parse::<u64>().is_ok_and(|since| since > 0), "{reloading}");
    assert!(news.next().starts_with("READY=1\nSTATUS="));
    server.signal(Signal::TERM);
    let stopping = news.next();
    assert!(stopping.starts_with("STOPPING=1\nEXTEND_TIMEOUT_USEC=12010000\n"), "{stopping}");
    assert_eq!(server.wait_exit().code(), Some(0));
}

/// A thread of a server that stands still.
struct Stopped(Pid);

impl Stopped {
    fn thread(server: &Server, name: &str) -> Stopped {
        let tasks = fs::read_dir(format!("/proc/{}/task", server.pid())).expect("a running server");
        let is_named = |task: &PathBuf| fs::read_to_string(task.join("comm")).is_ok_and(|comm| comm.trim() == name);
        let task = tasks.filter_map(|task| Some(task.ok()?.path())).find(is_named).expect("a thread of this name");
        let id = task.file_name().and_then(|id| id.to_str()?.parse().ok()).expect("a number");
        let thread = Pid::from_raw(id);
        ptrace::attach(thread).expect("a thread of our own child");
        waitpid(thread, Some(WaitPidFlag::__WALL)).expect("it stops");
        Stopped(thread)
    }

    fn go_on(self) {
        ptrace::detach(self.0, None).expect("it goes on");
    }
}

/// Over a socket that all reactors accept from, so that another one answers.
fn live(path: &Path) -> (u16, String) {
    let stream = UnixStream::connect(path).expect("the server listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a time above zero");
    let answer = http_ask_over(stream, "GET /health/live HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    (answer.status, answer.body)
}

/// One reactor of several may stand still while the others, and the threads of plain HTTP, do well.
#[test]
fn a_reactor_that_stands_still_is_named_and_the_watchdog_is_not_fed() {
    let (news, path) = (News::new(), socket_path());
    let listen = format!("unix:{}", path.display());
    let watched = |command: &mut Command| {
        command.env("NOTIFY_SOCKET", &news.path).env("WATCHDOG_USEC", "300000");
    };
    let settings = ["--reactors", "3", "--listen", "127.0.0.1:0", "--listen", &listen, "--health.stall_max", "200ms"];
    let server = Server::changed(watched, &settings);
    assert!(news.next_event().starts_with("READY=1"));
    assert_eq!(news.next(), "WATCHDOG=1\n");
    assert_eq!(news.next(), "WATCHDOG=1\n", "it is fed again and again");
    assert_eq!(live(&path), (200, "live\n".to_owned()));
    for reactor in [0, 2] {
        let stopped = Stopped::thread(&server, &format!("reactor-{reactor}"));
        let expected = format!("not live: reactor {reactor} has not turned for ");
        eventually("it is named", || {
            let (status, body) = live(&path);
            status == 503 && body.starts_with(&expected)
        });
        news.feeds_in(Duration::from_millis(50));
        assert_eq!(news.feeds_in(Duration::from_millis(700)), 0, "the supervisor is to notice");
        assert!(server.log().contains("the watchdog is not fed"), "{}", server.log());
        stopped.go_on();
        eventually("it lives again", || live(&path) == (200, "live\n".to_owned()));
        assert_eq!(news.next(), "WATCHDOG=1\n");
    }
    fanfare_testing::remove_socket(&path);
}
