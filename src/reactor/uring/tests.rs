use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use super::*;
use crate::limits::{RING_BUFFER_BYTES, RING_BUFFERS, RING_COMPLETIONS, RING_REQUESTS};
use crate::reactor::driver::Accepted;

/// A driver without sockets; `None` where this machine offers no io_uring, which is said.
fn driver(listeners: Vec<(ListenerId, Socket)>) -> Option<(Uring, Arc<UringWaker>)> {
    Uring::new(listeners, Instant::now()).map_err(|error| eprintln!("not tested, there is no io_uring: {error}")).ok()
}

fn slot(at: usize) -> SlotKey {
    SlotKey::new(at as u32, 7)
}

/// Attaches a socket to a slot; its other end.
fn attached(driver: &mut Uring, at: usize) -> UnixStream {
    let (mine, peer) = UnixStream::pair().expect("a pair of sockets");
    mine.set_nonblocking(true).expect("a socket that does not block");
    peer.set_nonblocking(true).expect("a socket that does not block");
    driver.attach(slot(at), Socket::from(mine)).expect("a slot");
    peer
}

/// What was told.
#[derive(Debug, Default)]
struct Told {
    received: Vec<(usize, Vec<u8>)>,
    ended: Vec<usize>,
    writable: Vec<usize>,
    released: Vec<usize>,
    detached: Vec<(usize, Socket)>,
    accepted: Vec<Accepted<Socket>>,
}

impl Told {
    fn bytes_of(&self, at: usize) -> Vec<u8> {
        self.received.iter().filter(|(of, _)| *of == at).flat_map(|(_, bytes)| bytes.clone()).collect()
    }
}

/// A turn, as a worker takes it.
fn turn(driver: &mut Uring, told: &mut Told) {
    driver.wait(Some(0)).expect("a wait");
    while let Some(completion) = driver.next() {
        match completion {
            Completion::Received(slot, mut buffer) => {
                told.received.push((slot.index(), buffer.as_mut().to_vec()));
                driver.give_back(buffer);
            }
            Completion::Ended(slot) => told.ended.push(slot.index()),
            Completion::Writable(slot) => told.writable.push(slot.index()),
            Completion::Released(slot) => told.released.push(slot.index()),
            Completion::Detached(slot, socket) => told.detached.push((slot.index(), socket)),
            Completion::Accepted(accepted) => told.accepted.push(accepted),
            Completion::Proxied(..) | Completion::NotProxied(_) => panic!("io_uring knows of no proxies"),
        }
    }
}

/// Turns, until something is true.
fn turns_until(driver: &mut Uring, told: &mut Told, is_over: impl Fn(&Told) -> bool) {
    for _ in 0..10_000 {
        turn(driver, told);
        if is_over(told) {
            return;
        }
    }
    panic!("not in 10,000 turns: {told:?}");
}

fn shortfalls(driver: &mut Uring) -> Vec<(SlotKey, Shortfall)> {
    driver.submit();
    std::iter::from_fn(|| driver.next_shortfall()).collect()
}

fn read_all(peer: &mut UnixStream) -> Vec<u8> {
    let (mut bytes, mut part) = (Vec::new(), [0; 4096]);
    while let Ok(count @ 1..) = peer.read(&mut part) {
        bytes.extend_from_slice(&part[..count]);
    }
    bytes
}

/// Bytes of which each piece is known by where it stands.
fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at / 7) as u8).collect()
}

#[test]
fn bytes_come_in_order_and_an_idle_connection_holds_no_buffer() {
    let Some((mut driver, _)) = driver(Vec::new()) else { return };
    let mut peers: Vec<UnixStream> = (0..600).map(|at| attached(&mut driver, at)).collect();
    let mut told = Told::default();
    turn(&mut driver, &mut told);
    assert_eq!(driver.buffers.free(), usize::from(RING_BUFFERS), "nobody has sent anything");
    for (at, peer) in peers.iter_mut().enumerate() {
        peer.write_all(&[at as u8; 11]).expect("room");
    }
    turns_until(&mut driver, &mut told, |told| told.received.len() == 600);
    assert!((0..600).all(|at| told.bytes_of(at) == [at as u8; 11]));
    assert_eq!(driver.buffers.free(), usize::from(RING_BUFFERS));

    let sent = pattern(RING_BUFFER_BYTES * 40);
    let (mut written, mut told) = (0, Told::default());
    while told.bytes_of(3).len() < sent.len() {
        written += peers[3].write(&sent[written..]).unwrap_or(0);
        turn(&mut driver, &mut told);
    }
    assert_eq!(told.bytes_of(3), sent);
}

#[test]
fn a_socket_that_eats_every_buffer_keeps_nobody_waiting() {
    let Some((mut driver, _)) = driver(Vec::new()) else { return };
    let mut hot = attached(&mut driver, 0);
    hot.set_nonblocking(true).expect("a socket that does not block");
    let mut others: Vec<UnixStream> = (1..400).map(|at| attached(&mut driver, at)).collect();
    let mut told = Told::default();
    turn(&mut driver, &mut told);
    // What comes is not looked at for a while, so that the buffers run out.
    driver.set_reading(false);
    let mut sent = 0;
    for _ in 0..200 {
        sent += hot.write(&pattern(64 * 1024)).unwrap_or(0);
        for peer in &mut others {
            let _ = peer.write(b"x");
        }
        turn(&mut driver, &mut told);
    }
    assert!(told.received.is_empty(), "nothing was wanted");
    driver.set_reading(true);
    turns_until(&mut driver, &mut told, |told| {
        let all: usize = told.received.iter().map(|(_, bytes)| bytes.len()).sum();
        all == sent + 200 * 399
    });
    assert!((1..400).all(|at| told.bytes_of(at) == [b'x'; 200]));
    assert_eq!(driver.buffers.free(), usize::from(RING_BUFFERS));
}

#[test]
fn a_send_that_falls_short_is_told_before_submit_returns() {
    let Some((mut driver, _)) = driver(Vec::new()) else { return };
    let mut peers = [attached(&mut driver, 0), attached(&mut driver, 1)];
    let mut told = Told::default();
    turn(&mut driver, &mut told);
    let bytes = pattern(8 << 20);
    assert_eq!(driver.send(slot(0), &bytes), Sent::Queued);
    assert_eq!(driver.send(slot(1), &bytes[..1000]), Sent::Queued);
    let [(of, Shortfall::Took(taken))] = shortfalls(&mut driver)[..] else { panic!("one fell short") };
    assert_eq!(of, slot(0));
    assert!((1..bytes.len()).contains(&taken), "{taken}");
    assert_eq!(read_all(&mut peers[1]), bytes[..1000], "the other was sent");
    turn(&mut driver, &mut told);
    assert!(told.writable.is_empty(), "nothing was read");
    let mut got = read_all(&mut peers[0]);
    turns_until(&mut driver, &mut told, |told| told.writable == [0]);
    assert_eq!(driver.send(slot(0), &bytes[taken..taken + 500]), Sent::Queued);
    assert!(shortfalls(&mut driver).is_empty());
    got.extend(read_all(&mut peers[0]));
    assert_eq!(got, bytes[..taken + 500]);
}

#[test]
fn a_flush_of_more_sends_than_the_ring_holds_reaches_everybody() {
    let Some((mut driver, _)) = driver(Vec::new()) else { return };
    let count = 2 * RING_REQUESTS as usize + 100;
    let mut peers: Vec<UnixStream> = (0..count).map(|at| attached(&mut driver, at)).collect();
    let mut told = Told::default();
    turn(&mut driver, &mut told);
    let bytes = pattern(200);
    for at in 0..count {
        assert_eq!(driver.send(slot(at), &bytes), Sent::Queued);
    }
    assert!(shortfalls(&mut driver).is_empty());
    assert!(peers.iter_mut().all(|peer| read_all(peer) == bytes));
}

#[test]
fn more_completions_than_the_ring_holds_are_all_told() {
    let Some((mut driver, _)) = driver(Vec::new()) else { return };
    let count = RING_COMPLETIONS as usize + 500;
    let peers: Vec<UnixStream> = (0..count).map(|at| attached(&mut driver, at)).collect();
    let mut told = Told::default();
    turn(&mut driver, &mut told);
    for at in 0..count / 2 {
        assert_eq!(driver.release(slot(at)), Release::Later, "it is being received from");
    }
    drop(peers);
    turns_until(&mut driver, &mut told, |told| told.ended.len() + told.released.len() == count);
    told.released.sort_unstable();
    told.ended.sort_unstable();
    assert_eq!(told.released, (0..count / 2).collect::<Vec<_>>());
    assert_eq!(told.ended, (count / 2..count).collect::<Vec<_>>());
    assert!((count / 2..count).all(|at| driver.release(slot(at)) == Release::Done), "nothing is under way");
}

#[test]
fn a_paused_socket_misses_nothing_and_its_end_waits() {
    let Some((mut driver, _)) = driver(Vec::new()) else { return };
    let mut peer = attached(&mut driver, 0);
    let mut told = Told::default();
    turn(&mut driver, &mut told);
    for round in 0..50 {
        driver.pause(slot(0));
        turn(&mut driver, &mut told);
        let before = told.received.len();
        peer.write_all(b"abc").expect("room");
        for _ in 0..3 {
            turn(&mut driver, &mut told);
        }
        assert_eq!(told.received.len(), before, "it is paused");
        driver.resume(slot(0));
        turns_until(&mut driver, &mut told, |told| told.bytes_of(0).len() == 3 * (round + 1));
    }
    driver.pause(slot(0));
    drop(peer.write_all(b"end"));
    peer.shutdown(std::net::Shutdown::Write).expect("it is open");
    for _ in 0..3 {
        turn(&mut driver, &mut told);
    }
    assert!(told.ended.is_empty(), "bytes stand before it");
    driver.resume(slot(0));
    turns_until(&mut driver, &mut told, |told| told.ended == [0]);
    assert!(told.bytes_of(0).ends_with(b"end"));
}

#[test]
fn a_paused_socket_tells_that_it_broke() {
    let Some((mut driver, _)) = driver(Vec::new()) else { return };
    let peer = attached(&mut driver, 0);
    let mut told = Told::default();
    turn(&mut driver, &mut told);
    driver.pause(slot(0));
    turn(&mut driver, &mut told);
    drop(peer);
    turns_until(&mut driver, &mut told, |told| told.ended == [0]);
}

#[test]
fn a_released_socket_is_closed_when_nothing_is_under_way() {
    let Some((mut driver, _)) = driver(Vec::new()) else { return };
    let mut told = Told::default();
    for round in 0..200 {
        let mut peer = attached(&mut driver, 0);
        match round % 4 {
            // Before the kernel has heard of it.
            0 => {}
            1 => turn(&mut driver, &mut told),
            2 => {
                turn(&mut driver, &mut told);
                driver.pause(slot(0));
            }
            _ => {
                turn(&mut driver, &mut told);
                let bytes = pattern(4 << 20);
                assert_eq!(driver.send(slot(0), &bytes), Sent::Queued);
                assert_eq!(shortfalls(&mut driver).len(), 1, "a request waits for room");
                peer.write_all(b"unread").expect("room");
            }
        }
        assert_eq!(driver.release(slot(0)), Release::Later);
        turns_until(&mut driver, &mut told, |told| told.released.len() == round + 1);
        read_all(&mut peer);
        let ended = matches!(peer.read(&mut [0; 1]), Ok(0) | Err(_)) && peer.write(b"x").is_err();
        assert!(ended, "round {round}: the peer sees that it is closed");
    }
    assert!(told.ended.is_empty() && told.writable.is_empty(), "what is released is told of no more: {told:?}");
    assert_eq!(driver.buffers.free(), usize::from(RING_BUFFERS));
}

#[test]
fn a_detached_socket_comes_with_all_that_was_received() {
    let Some((mut driver, _)) = driver(Vec::new()) else { return };
    for is_known in [false, true] {
        let mut told = Told::default();
        let mut peer = attached(&mut driver, 0);
        if is_known {
            turn(&mut driver, &mut told);
        }
        peer.write_all(b"GET / HTTP/1.1\r\n\r\n").expect("room");
        assert!(matches!(driver.detach(slot(0)), Detach::Later));
        turns_until(&mut driver, &mut told, |told| !told.detached.is_empty());
        let (0, mut socket) = told.detached.pop().expect("it was just there") else { panic!("another slot") };
        let mut rest = [0; 64];
        let count = socket.read(&mut rest).unwrap_or(0);
        let all = [told.bytes_of(0), rest[..count].to_vec()].concat();
        assert_eq!(all, b"GET / HTTP/1.1\r\n\r\n", "each byte once, here or there");
        socket.write_all(b"answer").expect("it is open");
        assert_eq!(read_all(&mut peer), b"answer");
    }
}

#[test]
fn a_peer_that_resets_breaks_its_own_connection_only() {
    let Some((mut driver, _)) = driver(Vec::new()) else { return };
    let listener = Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    listener.bind(&"127.0.0.1:0".parse::<std::net::SocketAddr>().expect("an address").into()).expect("a port");
    listener.listen(64).expect("a backlog");
    let address = listener.local_addr().expect("an address").as_socket().expect("TCP");
    let mut told = Told::default();
    let mut bystander = attached(&mut driver, 1);
    for _ in 0..50 {
        let client = Socket::from(std::net::TcpStream::connect(address).expect("a connection"));
        let (mine, _) = listener.accept().expect("a client");
        mine.set_nonblocking(true).expect("a socket that does not block");
        driver.attach(slot(0), mine).expect("a slot");
        turn(&mut driver, &mut told);
        assert_eq!(driver.send(slot(0), &pattern(1000)), Sent::Queued);
        assert_eq!(driver.send(slot(1), b"y"), Sent::Queued);
        client.set_linger(Some(Duration::ZERO)).expect("an option");
        drop(client);
        assert!(shortfalls(&mut driver).iter().all(|told| *told == (slot(0), Shortfall::Broken)));
        assert_eq!(read_all(&mut bystander), b"y");
        let released = told.released.len();
        turns_until(&mut driver, &mut told, |told| told.ended.len() > released);
        if driver.release(slot(0)) == Release::Later {
            turns_until(&mut driver, &mut told, |told| told.released.len() > released);
        } else {
            told.released.push(0);
        }
        assert_eq!(told.ended.len(), told.released.len(), "each end once");
    }
}

#[test]
fn clients_are_accepted_and_the_waker_ends_a_wait() {
    let listener = Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    listener.bind(&"127.0.0.1:0".parse::<std::net::SocketAddr>().expect("an address").into()).expect("a port");
    listener.listen(64).expect("a backlog");
    listener.set_nonblocking(true).expect("a socket that does not block");
    let address = listener.local_addr().expect("an address").as_socket().expect("TCP");
    let Some((mut driver, waker)) = driver(vec![(ListenerId(3), listener)]) else { return };
    let mut told = Told::default();
    for round in 1..=100 {
        let client = std::net::TcpStream::connect(address).expect("a connection");
        turns_until(&mut driver, &mut told, |told| told.accepted.len() == round);
        let last = told.accepted.last().expect("one has come");
        assert_eq!(last.listener, ListenerId(3));
        assert_eq!(last.remote.tcp(), client.local_addr().ok());
        let wakes = waker.clone();
        let waking = std::thread::spawn(move || wakes.wake());
        // Without the waker this would take until the test is ended.
        driver.wait(None).expect("a wait");
        waking.join().expect("it has only woken");
    }
    driver.stop_accepting();
    turn(&mut driver, &mut told);
    assert!(std::net::TcpStream::connect(address).is_err(), "nobody listens any more");
}
