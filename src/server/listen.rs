//! Listening sockets: one a reactor and address, so that the kernel spreads the clients; or those that were passed to this
//! process, which reactors share where there are fewer.

use std::io;
use std::net::SocketAddr;

use socket2::{Domain, Protocol, Socket, Type};

use super::ServeError;
use super::inherited::Inherited;
use super::unix::UnixSocket;
use crate::config::{Listen, Listener, Tcp, Unix};
use crate::control::BoundListener;
use crate::reactor::ListenerId;

/// What is listened on.
pub(super) struct Listeners {
    /// For each reactor, its sockets, each with the index of its listener in the configuration.
    pub(super) sockets: Vec<Vec<(ListenerId, Socket)>>,
    /// What to print, in the order of the configuration.
    pub(super) addresses: Vec<String>,
    /// What the threads of plain HTTP know of each, in the same order.
    pub(super) bound: Vec<BoundListener>,
    /// Those of Unix, which the reactors accept from in turns.
    pub(super) unix: Vec<UnixSocket>,
}

/// Has every listener listened on, by `reactors` reactors.
///
/// # Errors
/// An address cannot be listened on, or a socket that was passed belongs to none.
pub(super) fn bind(
    listen: &[Listener],
    reactors: usize,
    mut inherited: Inherited,
    tcp: &Tcp,
    unix: &Unix,
) -> Result<Listeners, ServeError> {
    let mut listeners = Listeners {
        sockets: (0..reactors).map(|_| Vec::new()).collect(),
        addresses: Vec::new(),
        bound: Vec::new(),
        unix: Vec::new(),
    };
    for (at, Listener { address, tls, role, .. }) in listen.iter().enumerate() {
        let fail = |error| ServeError::Listen { address: address.to_string(), error };
        let passed = inherited.take(address, listen);
        let (sockets, bound) = match address {
            Listen::Tcp(_) if !passed.is_empty() => {
                let bound = adopt(&passed, tcp).map_err(fail)?;
                (share(&passed, reactors).map_err(fail)?, Some(bound))
            }
            Listen::Tcp(address) => {
                let (sockets, bound) = bind_tcp(*address, reactors, tcp).map_err(fail)?;
                (sockets.into_iter().map(|socket| vec![socket]).collect(), Some(bound))
            }
            // Its file belongs to who passed it.
            Listen::Unix(_) if !passed.is_empty() => (share(&passed, reactors).map_err(fail)?, None),
            Listen::Unix(path) => {
                let bound = UnixSocket::bind(path, unix, backlog(tcp))?;
                let sockets = (0..reactors).map(|_| Ok(vec![bound.listener()?])).collect::<Result<_, ServeError>>()?;
                listeners.unix.push(bound);
                (sockets, None)
            }
        };
        let id = ListenerId(at as u16);
        for (all, sockets) in listeners.sockets.iter_mut().zip(sockets) {
            all.extend(sockets.into_iter().map(|socket| (id, socket)));
        }
        let scheme = if tls.is_some() { "https" } else { "http" };
        listeners.addresses.push(bound.map_or_else(|| address.to_string(), |bound| format!("{scheme}://{bound}/")));
        listeners.bound.push(BoundListener { address: bound, role: *role });
    }
    inherited.finish()?;
    Ok(listeners)
}

/// Sets up TCP sockets that were passed as our own are, and says where they listen.
fn adopt(passed: &[Socket], tcp: &Tcp) -> io::Result<SocketAddr> {
    for socket in passed {
        set_options(socket, tcp)?;
    }
    let address = passed.first().map(Socket::local_addr).transpose()?.and_then(|address| address.as_socket());
    address.ok_or_else(|| io::Error::other("its address is none of TCP"))
}

/// Spreads sockets over reactors: each has one at least, which it shares with others where there are fewer sockets than
/// reactors, and each socket has a reactor.
fn share(passed: &[Socket], reactors: usize) -> io::Result<Vec<Vec<Socket>>> {
    let of_reactor = |reactor: usize| {
        let mine = (reactor % passed.len()..passed.len()).step_by(reactors);
        mine.map(|at| passed[at].try_clone()).collect()
    };
    (0..reactors).map(of_reactor).collect()
}

/// The same address once a reactor (SO_REUSEPORT), and where it really is: port 0 becomes a port.
fn bind_tcp(address: SocketAddr, reactors: usize, tcp: &Tcp) -> io::Result<(Vec<Socket>, SocketAddr)> {
    // A port with a listener, even one with SO_REUSEPORT, is in use: two servers would each get half the clients.
    if address.port() != 0 {
        let probe = tcp_socket(address)?;
        probe.bind(&address.into())?;
        probe.listen(1)?;
    }
    let (mut sockets, mut bound) = (Vec::new(), address);
    for _ in 0..reactors {
        let socket = tcp_socket(bound)?;
        socket.set_reuse_port(true)?;
        set_options(&socket, tcp)?;
        socket.bind(&bound.into())?;
        socket.listen(backlog(tcp))?;
        bound = socket.local_addr()?.as_socket().unwrap_or(bound);
        sockets.push(socket);
    }
    Ok((sockets, bound))
}

fn tcp_socket(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// Sockets that are accepted inherit them.
fn set_options(socket: &Socket, tcp: &Tcp) -> io::Result<()> {
    socket.set_tcp_nodelay(tcp.nodelay)?;
    if tcp.send_buffer > 0 {
        socket.set_send_buffer_size(tcp.send_buffer)?;
    }
    if tcp.receive_buffer > 0 {
        socket.set_recv_buffer_size(tcp.receive_buffer)?;
    }
    Ok(())
}

fn backlog(tcp: &Tcp) -> i32 {
    i32::try_from(tcp.backlog).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn bind_default(address: Listen, reactors: usize) -> Result<Listeners, ServeError> {
        let config = Config::default();
        let listener = Listener { address, ..config.listeners[0].clone() };
        bind(&[listener], reactors, Inherited::default(), &config.tcp, &config.unix)
    }

    #[test]
    fn every_reactor_listens_on_the_same_port() {
        let bound = bind_default(Listen::Tcp("127.0.0.1:0".parse().unwrap()), 3).unwrap();
        let port = |socket: &Socket| socket.local_addr().unwrap().as_socket().unwrap().port();
        let ports: Vec<u16> = bound.sockets.iter().map(|sockets| port(&sockets[0].1)).collect();
        assert!(ports[0] != 0 && ports.iter().all(|port| *port == ports[0]), "{ports:?}");
        let taken = Listen::Tcp(([127, 0, 0, 1], ports[0]).into());
        let Err(error) = bind_default(taken, 1) else { panic!("the port is taken") };
        assert!(error.to_string().contains("is in use"), "{error}");
    }

    #[test]
    fn every_passed_socket_has_a_reactor_and_every_reactor_a_socket() {
        for (passed, reactors) in [(1, 1), (1, 4), (2, 5), (4, 4), (5, 2), (7, 3)] {
            let sockets: Vec<Socket> = (0..passed)
                .map(|_| {
                    let socket = tcp_socket(([127, 0, 0, 1], 0).into()).unwrap();
                    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
                    socket
                })
                .collect();
            let port = |socket: &Socket| socket.local_addr().unwrap().as_socket().unwrap().port();
            let shared = share(&sockets, reactors).unwrap();
            assert!(shared.iter().all(|of_reactor| !of_reactor.is_empty()), "{passed} for {reactors}");
            for socket in &sockets {
                let holders = shared.iter().flatten().filter(|held| port(held) == port(socket)).count();
                assert!(holders >= 1 && (holders == 1 || passed < reactors), "{passed} for {reactors}: {holders}");
            }
        }
    }
}
