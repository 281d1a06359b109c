//! Handshakes that never get anywhere.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use fanfare_testing::raw::{status_of, upgrade_request};
use fanfare_testing::{Client, PATIENCE, Server, metric};
use rustix::process::{Resource, getrlimit};

use crate::counting::peak_bytes;

/// As many as half the descriptors of an ordinary machine (20,000).
const CROWD: u64 = 10_000;

/// A second lies between two bytes of each: a request of 150 bytes would be there after minutes.
const ROUNDS_MAX: usize = 60;

/// What a connection that has sent a few bytes of its request may hold, its place in all tables included.
const HELD_BYTES_MAX: u64 = 1024;

/// Turns of the loop for each byte that comes and for each client's beginning and end.
const TURNS_PER_CLIENT: u64 = 3;

/// A client that dribbles its request, a byte now and a byte then, keeps a connection of a server that has no deadline
/// for it, or one that moves with every byte. That is Slowloris, of 2009; ten years later websocketpp's defaults were
/// open to it (zaphoyd/websocketpp#789) and Netty's WebSocket handlers had no deadline (netty/netty#8841). Here the deadline counts from the accept (`limits.handshake_timeout`, 5 seconds) and does not move: 10,000
/// such clients are all answered 408 and gone, and until then each holds less than 1 KiB.
#[test]
fn ten_thousand_dribbled_handshakes_end_at_the_deadline() {
    let server = Server::with_reactors(2, &[]);
    let crowd = crowd_that_fits();
    let mut bystander = Client::connect(&server, "bystander");
    let (peak_before, turns_before) = (peak_bytes(&server), metric(&server, "fanfare_turns_total"));
    let request = upgrade_request("/?userId=slow", &[]);
    assert!(request.len() > ROUNDS_MAX, "nobody gets to the end of the request");

    let mut dribblers: Vec<Dribbler> = (0..crowd).map(|_| Dribbler::connect(&server)).collect();
    let mut sent = 0;
    for byte in &request.as_bytes()[..ROUNDS_MAX] {
        sent += dribblers.iter_mut().map(|dribbler| u64::from(dribbler.dribble(*byte))).sum::<u64>();
        if dribblers.iter().all(|dribbler| dribbler.ended) {
            break;
        }
        bystander.barrier();
        std::thread::sleep(Duration::from_secs(1));
    }
    let ended = dribblers.iter().filter(|dribbler| dribbler.ended).count() as u64;
    let timed_out = dribblers.iter().filter(|dribbler| dribbler.is_timed_out()).count() as u64;
    assert_eq!((ended, timed_out), (crowd, crowd), "connections that ended, and that were answered 408");

    let deadline = Instant::now() + PATIENCE;
    // The bystander and, perhaps, the one that asks.
    while metric(&server, "fanfare_sockets") > 2 {
        assert!(Instant::now() < deadline, "sockets are left over");
    }
    assert_eq!(metric(&server, "fanfare_connections_opened_total"), 1, "the bystander alone got in");
    let held = peak_bytes(&server).saturating_sub(peak_before) / crowd;
    assert!(held <= HELD_BYTES_MAX, "{held} bytes a connection");
    let turns = metric(&server, "fanfare_turns_total") - turns_before;
    assert!(turns <= sent + TURNS_PER_CLIENT * crowd, "{turns} turns for {crowd} clients and {sent} bytes");
}

/// Each is a descriptor here and one in the server, which inherits the limit; half are left to the other tests.
fn crowd_that_fits() -> u64 {
    let descriptors = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let crowd = CROWD.min(descriptors / 2);
    if crowd < CROWD {
        // Past the test harness, which shows what a test prints only if it fails.
        let notice = format!("\nMUSEUM: only {crowd} of {CROWD} dribbled handshakes: ulimit -n is {descriptors}\n");
        std::io::stderr().write_all(notice.as_bytes()).expect("standard error is open");
    }
    crowd
}

struct Dribbler {
    stream: TcpStream,
    answer: Vec<u8>,
    ended: bool,
}

impl Dribbler {
    fn connect(server: &Server) -> Dribbler {
        let stream = TcpStream::connect(server.addr()).expect("the server should accept");
        stream.set_nodelay(true).expect("TCP has no-delay");
        stream.set_nonblocking(true).expect("a socket need not block");
        Dribbler { stream, answer: Vec::new(), ended: false }
    }

    /// Reads what is there, then sends one byte more; whether the kernel took it.
    fn dribble(&mut self, byte: u8) -> bool {
        let mut buffer = [0; 1024];
        while !self.ended {
            match self.stream.read(&mut buffer) {
                Ok(0) => self.ended = true,
                Ok(read) => self.answer.extend_from_slice(&buffer[..read]),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => break,
                Err(_) => self.ended = true,
            }
        }
        if self.ended {
            // Both sides have said all: the socket goes.
            let _ = self.stream.shutdown(std::net::Shutdown::Both);
            return false;
        }
        self.stream.write(&[byte]).is_ok()
    }

    fn is_timed_out(&self) -> bool {
        let answer = String::from_utf8_lossy(&self.answer);
        answer.matches("HTTP/1.1 ").count() == 1 && status_of(&answer) == 408
    }
}
