//! Listening sockets: one a reactor and address, so that the kernel spreads the clients.

use std::io;
use std::net::SocketAddr;

use socket2::{Domain, Protocol, Socket, Type};

use super::ServeError;
use super::unix::UnixSocket;
use crate::config::{Listen, Listener, Tcp, Unix};
use crate::control::BoundListener;

/// What is listened on.
pub(super) struct Listeners {
    /// For each reactor, its sockets, one for each listener of the configuration and in their order.
    pub(super) sockets: Vec<Vec<Socket>>,
    /// What to print, in the order of the configuration.
    pub(super) addresses: Vec<String>,
    /// What the threads of plain HTTP know of each, in the same order.
    pub(super) bound: Vec<BoundListener>,
    /// Those of Unix, which the reactors accept from in turns.
    pub(super) unix: Vec<UnixSocket>,
}

pub(super) fn bind(listen: &[Listener], reactors: usize, tcp: &Tcp, unix: &Unix) -> Result<Listeners, ServeError> {
    let mut listeners = Listeners {
        sockets: (0..reactors).map(|_| Vec::new()).collect(),
        addresses: Vec::new(),
        bound: Vec::new(),
        unix: Vec::new(),
    };
    for Listener { address, tls, admin, .. } in listen {
        match address {
            Listen::Tcp(address) => {
                let fail = |error| ServeError::Listen { address: address.to_string(), error };
                let bound = bind_tcp(*address, &mut listeners.sockets, tcp).map_err(fail)?;
                let scheme = if tls.is_some() { "https" } else { "http" };
                listeners.addresses.push(format!("{scheme}://{bound}/"));
                listeners.bound.push(BoundListener { address: Some(bound), admin: *admin });
            }
            Listen::Unix(path) => {
                let bound = UnixSocket::bind(path, unix, backlog(tcp))?;
                for sockets in &mut listeners.sockets {
                    sockets.push(bound.listener()?);
                }
                listeners.addresses.push(address.to_string());
                listeners.bound.push(BoundListener { address: None, admin: *admin });
                listeners.unix.push(bound);
            }
        }
    }
    Ok(listeners)
}

/// The same address once a reactor (SO_REUSEPORT), and where it really is: port 0 becomes a port.
fn bind_tcp(address: SocketAddr, reactors: &mut [Vec<Socket>], tcp: &Tcp) -> io::Result<SocketAddr> {
    // A port with a listener, even one with SO_REUSEPORT, is in use: two servers would each get half the clients.
    if address.port() != 0 {
        let probe = tcp_socket(address)?;
        probe.bind(&address.into())?;
        probe.listen(1)?;
    }
    let mut bound = address;
    for sockets in reactors {
        let socket = tcp_socket(bound)?;
        socket.set_reuse_port(true)?;
        set_options(&socket, tcp)?;
        // Sockets that are accepted inherit it.
        socket.set_tcp_nodelay(tcp.nodelay)?;
        socket.bind(&bound.into())?;
        socket.listen(backlog(tcp))?;
        bound = socket.local_addr()?.as_socket().unwrap_or(bound);
        sockets.push(socket);
    }
    Ok(bound)
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

fn set_options(socket: &Socket, tcp: &Tcp) -> io::Result<()> {
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
        bind(&[listener], reactors, &config.tcp, &config.unix)
    }

    #[test]
    fn every_reactor_listens_on_the_same_port() {
        let bound = bind_default(Listen::Tcp("127.0.0.1:0".parse().unwrap()), 3).unwrap();
        let port = |socket: &Socket| socket.local_addr().unwrap().as_socket().unwrap().port();
        let ports: Vec<u16> = bound.sockets.iter().map(|sockets| port(&sockets[0])).collect();
        assert!(ports[0] != 0 && ports.iter().all(|port| *port == ports[0]), "{ports:?}");
        let taken = Listen::Tcp(([127, 0, 0, 1], ports[0]).into());
        let Err(error) = bind_default(taken, 1) else { panic!("the port is taken") };
        assert!(error.to_string().contains("is in use"), "{error}");
    }
}
