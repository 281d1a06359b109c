//! Updates of a keyed room through one Redis: a publisher at one node, subscribers of the newest values at both.
//!
//! Each command has [`UPDATES`] updates, of items that take turns; so many are under way that all processes have work. What
//! is told is how many updates were acked a second, and the CPU time of each process for one update.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process;
use std::thread;
use std::time::{Duration, Instant};

use super::ends::{frame, websocket, ws_message};
use super::processes::{Node, Redis};
use super::{Options, median};

/// Updates in one command.
const UPDATES: usize = 100;

/// Items of the room.
const ITEMS: usize = 1_000;

/// Commands under way.
const WINDOW: usize = 200;

/// The time between two rounds of the subscribers, in milliseconds.
const INTERVAL_MS: u64 = 100;

/// What one round has found.
struct Figures {
    per_second: f64,
    /// CPU time for an update, in microseconds: of Redis, the two nodes, and this process.
    cpu_us: [f64; 4],
    /// Messages that a subscriber got, for each update.
    conflated_to: f64,
}

pub(super) fn run(options: &Options) {
    let redis = Redis::start();
    let nodes = [Node::start(&redis), Node::start(&redis)];
    println!(
        "updates of {ITEMS} items in commands of {UPDATES}, through one Redis and two nodes, {} rounds",
        options.rounds
    );
    let figures: Vec<Figures> =
        (0..options.rounds).map(|round| measure(&redis, &nodes, &format!("px.{round}"), options.measured)).collect();
    for Figures { per_second, cpu_us: [redis, first, second, own], conflated_to } in &figures {
        println!(
            "  {per_second:>9.0} updates/s   CPU for each, µs: Redis {redis:.2}, nodes {first:.2} and {second:.2}, \
             publisher and subscribers {own:.2}   {conflated_to:.3} messages for each"
        );
    }
    println!("median: {:.0} updates/s", median(figures.iter().map(|figures| figures.per_second).collect()));
}

fn measure(redis: &Redis, nodes: &[Node; 2], room: &str, measured: Duration) -> Figures {
    let readers: Vec<_> = nodes.iter().map(|node| subscribe(node.port, room)).collect();
    let mut publisher = websocket(nodes[0].port, "p");
    let commands: Vec<Vec<u8>> = (0..ITEMS / UPDATES).map(|part| command(room, part)).collect();
    let (mut sent, mut acked) = (0, 0);
    let (warm_up, start) = (measured / 4, Instant::now());
    let mut counted_from = None;
    let mut held = Vec::new();
    let mut buffer = vec![0; 256 * 1024];
    let pids = [redis.pid(), nodes[0].pid(), nodes[1].pid(), process::id()];
    while start.elapsed() < warm_up + measured {
        // Several in one write.
        if sent - acked <= WINDOW - commands.len() {
            publisher.write_all(&commands.concat()).expect("the node takes it");
            sent += commands.len();
            continue;
        }
        acked += acks(&mut publisher, &mut held, &mut buffer);
        if counted_from.is_none() && start.elapsed() >= warm_up {
            counted_from = Some((Instant::now(), acked, pids.map(cpu_seconds)));
        }
    }
    let (from, acked_before, cpu_before) = counted_from.expect("the warm-up is shorter than the whole");
    let updates = ((acked - acked_before) * UPDATES) as f64;
    let (elapsed, cpu) = (from.elapsed(), pids.map(cpu_seconds));
    while acked < sent {
        acked += acks(&mut publisher, &mut held, &mut buffer);
    }
    let messages: Vec<u64> = readers
        .into_iter()
        .map(|(stream, reader)| {
            // One more round, and the end.
            thread::sleep(Duration::from_millis(2 * INTERVAL_MS));
            stream.shutdown(std::net::Shutdown::Both).expect("it is open");
            reader.join().expect("a reader")
        })
        .collect();
    Figures {
        per_second: updates / elapsed.as_secs_f64(),
        cpu_us: std::array::from_fn(|at| (cpu[at] - cpu_before[at]) / updates * 1e6),
        conflated_to: messages[1] as f64 / (sent * UPDATES) as f64,
    }
}

/// A member that gets the newest values, and counts what comes.
fn subscribe(port: u16, room: &str) -> (TcpStream, thread::JoinHandle<u64>) {
    let mut stream = websocket(port, "s");
    let join = format!(r#"{{"type":"join_room","roomId":"{room}","mode":"latest","interval":{INTERVAL_MS}}}"#);
    stream.write_all(&frame(&join)).expect("the node takes it");
    let mut reading = stream.try_clone().expect("a socket can be cloned");
    let reader = thread::spawn(move || {
        let (mut held, mut buffer, mut messages) = (Vec::new(), vec![0; 256 * 1024], 0);
        while let Ok(bytes @ 1..) = reading.read(&mut buffer) {
            messages += take_messages(&mut held, &buffer[..bytes]) as u64;
        }
        messages
    });
    (stream, reader)
}

/// A command with updates of one part of the items.
fn command(room: &str, part: usize) -> Vec<u8> {
    let update = |item: usize| {
        let item = part * UPDATES + item;
        format!(r#"{{"item":"SYM{item:04}","content":{{"bid":101.25,"ask":101.50,"size":{item}}}}}"#)
    };
    let updates: Vec<String> = (0..UPDATES).map(update).collect();
    frame(&format!(r#"{{"type":"room_msgs","roomId":"{room}","id":1,"updates":[{}]}}"#, updates.join(",")))
}

/// Waits for something to read; how many commands were acked.
fn acks(publisher: &mut TcpStream, held: &mut Vec<u8>, buffer: &mut [u8]) -> usize {
    let bytes = publisher.read(buffer).expect("acks come in time");
    assert!(bytes > 0, "the node has ended");
    let refused = b"\"type\":\"error\"";
    assert!(!buffer[..bytes].windows(refused.len()).any(|part| part == refused), "a command is refused");
    let welcome = b"\"type\":\"welcome\"";
    let welcomes = usize::from(buffer[..bytes].windows(welcome.len()).any(|part| part == welcome));
    take_messages(held, &buffer[..bytes]) - welcomes
}

fn take_messages(held: &mut Vec<u8>, bytes: &[u8]) -> usize {
    held.extend_from_slice(bytes);
    let (mut messages, mut at) = (0, 0);
    while let Some(length) = ws_message(&held[at..]) {
        at += length;
        messages += 1;
    }
    held.drain(..at);
    messages
}

/// The CPU time that a process has taken.
fn cpu_seconds(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
    let fields: Vec<&str> = stat.rsplit(')').next().expect("a name").split_whitespace().collect();
    let ticks = |at: usize| fields[at].parse::<f64>().expect("a number");
    // USER_HZ is 100 on every Linux.
    (ticks(11) + ticks(12)) / 100.0
}
