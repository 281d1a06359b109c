use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;

use super::*;
use crate::limits::ACCEPTS_PER_TURN;
use crate::reactor::driver::{Accepted, RemoteAddr};

const SLOT: SlotKey = SlotKey::new(0, 0);

/// A driver with one socket in slot 0, and the other end of it.
fn one() -> (Epoll, UnixStream) {
    let (mut driver, _) = Epoll::new(Vec::new(), Instant::now()).expect("an epoll");
    let (mine, peer) = UnixStream::pair().expect("a pair of sockets");
    mine.set_nonblocking(true).expect("a socket that does not block");
    peer.set_nonblocking(true).expect("a socket that does not block");
    driver.attach(SLOT, Socket::from(mine)).expect("room in epoll");
    (driver, peer)
}

/// A listener on a free port.
fn listener() -> Socket {
    let socket = Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    socket.bind(&"127.0.0.1:0".parse::<SocketAddr>().expect("an address").into()).expect("a port");
    socket.listen(64).expect("a backlog");
    socket.set_nonblocking(true).expect("a socket that does not block");
    socket
}

/// Sends what the socket has room for.
fn fill(peer: &mut UnixStream) {
    while let Ok(1..) = peer.write(&[0; 4096]) {}
}

/// What a turn brings: reads, and ends.
fn turn(driver: &mut Epoll, mut between: impl FnMut()) -> (usize, usize) {
    driver.wait(Some(0)).expect("a wait");
    let (mut reads, mut ends) = (0, 0);
    while let Some(completion) = driver.next() {
        match completion {
            Completion::Received(_, buffer) => {
                reads += 1;
                driver.give_back(buffer);
            }
            Completion::Ended(_) => ends += 1,
            Completion::Accepted(_) | Completion::Writable(_) => {}
            Completion::Detached(..) | Completion::Released(_) => panic!("epoll has nothing under way"),
            Completion::Proxied(..) | Completion::NotProxied(_) => panic!("epoll knows of no proxies"),
        }
        between();
    }
    (reads, ends)
}

#[test]
fn a_socket_is_read_once_in_a_turn_however_much_comes_meanwhile() {
    let (mut driver, mut peer) = one();
    for _ in 0..200 {
        fill(&mut peer);
        assert_eq!(turn(&mut driver, || fill(&mut peer)), (1, 0));
        assert!(driver.again.len() + driver.readable.len() <= 1, "one entry");
    }
}

#[test]
fn a_paused_socket_is_not_read_and_misses_nothing() {
    for queued in [false, true] {
        let (mut driver, mut peer) = one();
        turn(&mut driver, || {});
        if queued {
            fill(&mut peer);
            assert_eq!(turn(&mut driver, || {}), (1, 0));
        }
        driver.pause(SLOT);
        fill(&mut peer);
        for _ in 0..3 {
            assert_eq!(turn(&mut driver, || {}), (0, 0));
        }
        driver.resume(SLOT);
        assert_eq!(turn(&mut driver, || {}), (1, 0));
    }
}

#[test]
fn a_paused_socket_that_is_quiet_waits_for_an_event() {
    let (mut driver, mut peer) = one();
    turn(&mut driver, || {});
    driver.pause(SLOT);
    driver.resume(SLOT);
    assert_eq!(turn(&mut driver, || {}), (0, 0));
    peer.write_all(b"x").expect("room for a byte");
    assert_eq!(turn(&mut driver, || {}), (1, 0));
}

#[test]
fn a_paused_socket_tells_that_it_broke() {
    let (mut driver, mut peer) = one();
    turn(&mut driver, || {});
    fill(&mut peer);
    driver.pause(SLOT);
    drop(peer);
    assert_eq!(turn(&mut driver, || {}), (0, 1));
}

fn numbered<const N: usize>(listeners: [Socket; N]) -> Vec<(ListenerId, Socket)> {
    (0..).map(ListenerId).zip(listeners).collect()
}

#[test]
fn listeners_take_turns() {
    let listeners = [listener(), listener()];
    let addresses = listeners.each_ref().map(|socket| socket.local_addr().expect("an address"));
    let ports = addresses.each_ref().map(|address| address.as_socket().expect("TCP").port());
    let (mut driver, _) = Epoll::new(numbered(listeners), Instant::now()).expect("an epoll");
    let connect = |at: usize| std::net::TcpStream::connect(("127.0.0.1", ports[at])).expect("a connection");
    let _clients: Vec<_> = [0, 0, 0, 0, 1, 1].into_iter().map(connect).collect();
    driver.wait(Some(1_000)).expect("a wait");
    let mut accepted = Vec::new();
    while let Some(Completion::Accepted(Accepted { stream, listener, remote })) = driver.next() {
        let address = |address: io::Result<socket2::SockAddr>| address.expect("an address").as_socket().expect("TCP");
        assert_eq!(address(stream.local_addr()).port(), ports[usize::from(listener.0)]);
        assert_eq!(remote, RemoteAddr::Tcp(address(stream.peer_addr())));
        accepted.push(listener.0);
    }
    assert_eq!(accepted, [0, 1, 0, 1, 0, 0]);
}

/// However many clients come at once, those who are connected already wait for a few of them only.
#[test]
fn a_turn_accepts_so_many_and_the_rest_wait_for_the_next() {
    let listener = listener();
    let port = listener.local_addr().expect("an address").as_socket().expect("TCP").port();
    let (mut driver, _) = Epoll::new(numbered([listener]), Instant::now()).expect("an epoll");
    let connect = |_| std::net::TcpStream::connect(("127.0.0.1", port)).expect("a connection");
    let _clients: Vec<_> = (0..ACCEPTS_PER_TURN + 5).map(connect).collect();
    for accepted in [ACCEPTS_PER_TURN, 5, 0] {
        driver.wait(Some(0)).expect("a wait");
        let of_this_turn: Vec<_> = std::iter::from_fn(|| driver.next()).collect();
        assert!(of_this_turn.iter().all(|completion| matches!(completion, Completion::Accepted(_))));
        assert_eq!(of_this_turn.len(), accepted);
    }
}

/// Bytes that a socket takes in frames of 200 bytes for a client that does not read.
fn taken(is_bounded: bool) -> usize {
    let listener = listener();
    let client = Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    client.connect(&listener.local_addr().expect("its address")).expect("a connection");
    let (mine, _) = listener.accept().expect("the client");
    mine.set_nonblocking(true).expect("a socket that does not block");
    let (mut driver, _) = Epoll::new(Vec::new(), Instant::now()).expect("an epoll");
    driver.attach(SLOT, mine).expect("room in epoll");
    if is_bounded {
        driver.bound_unsent(SLOT);
    }
    let mut taken = 0;
    for _ in 0..1_000_000 {
        match driver.send(SLOT, &[0; 200]) {
            Sent::Took(200) => taken += 200,
            Sent::Took(part) => return taken + part,
            Sent::Queued | Sent::Broken => panic!("epoll says at once what was taken, and nothing breaks here"),
        }
    }
    panic!("a socket takes gigabytes for a client that does not read");
}

#[test]
fn a_socket_whose_unsent_bytes_are_bounded_takes_little_for_a_client_that_does_not_read() {
    let (unbounded, bounded) = (taken(false), taken(true));
    println!("{unbounded} bytes, bounded {bounded}");
    assert!(bounded < 512 * 1024 && 2 * bounded < unbounded, "{bounded} of {unbounded}");
}
