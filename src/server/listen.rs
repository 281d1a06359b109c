//! Listening sockets: one a reactor and address, so that the kernel spreads the clients.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::ServeError;
use crate::config::{Listen, Tcp};

/// What is listened on.
pub(super) struct Listeners {
    /// For each reactor, its sockets.
    pub(super) sockets: Vec<Vec<Socket>>,
    /// What to print, in the order of the configuration.
    pub(super) addresses: Vec<String>,
    /// Unix sockets, to be removed at the end.
    pub(super) paths: Vec<PathBuf>,
}

pub(super) fn bind(listen: &[Listen], reactors: usize, tcp: &Tcp) -> Result<Listeners, ServeError> {
    let mut listeners =
        Listeners { sockets: (0..reactors).map(|_| Vec::new()).collect(), addresses: Vec::new(), paths: Vec::new() };
    for address in listen {
        match address {
            Listen::Tcp(address) => {
                let fail = |error| ServeError::Listen { address: address.to_string(), error };
                let bound = bind_tcp(*address, &mut listeners.sockets, tcp).map_err(fail)?;
                listeners.addresses.push(format!("http://{bound}/"));
            }
            Listen::Unix(path) => {
                let fail = |error| ServeError::Listen { address: format!("unix:{}", path.display()), error };
                bind_unix(path, &mut listeners.sockets, tcp).map_err(fail)?;
                listeners.addresses.push(format!("unix:{}", path.display()));
                listeners.paths.push(path.clone());
            }
        }
    }
    Ok(listeners)
}

/// The same address once a reactor (SO_REUSEPORT), and where it really is: port 0 becomes a port.
fn bind_tcp(address: SocketAddr, reactors: &mut [Vec<Socket>], tcp: &Tcp) -> io::Result<SocketAddr> {
    // A port that anybody listens on, even with SO_REUSEPORT, is in use: two servers would each get half the clients.
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

/// One Unix socket, which the reactors accept from in turns. A path left over by a server that is gone is reused.
fn bind_unix(path: &Path, reactors: &mut [Vec<Socket>], tcp: &Tcp) -> io::Result<()> {
    let address = SockAddr::unix(path)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    let mut bound = socket.bind(&address);
    if bound.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::AddrInUse) && is_stale(path, &address)? {
        std::fs::remove_file(path)?;
        bound = socket.bind(&address);
    }
    bound?;
    socket.set_nonblocking(true)?;
    socket.listen(backlog(tcp))?;
    for sockets in reactors {
        sockets.push(socket.try_clone()?);
    }
    Ok(())
}

fn backlog(tcp: &Tcp) -> i32 {
    i32::try_from(tcp.backlog).unwrap_or(i32::MAX)
}

/// Whether the path is a socket that nobody listens on.
fn is_stale(path: &Path, address: &SockAddr) -> io::Result<bool> {
    use std::os::unix::fs::FileTypeExt;
    if !std::fs::symlink_metadata(path)?.file_type().is_socket() {
        return Ok(false);
    }
    let probe = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    Ok(probe.connect(address).is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn tcp() -> Tcp {
        Config::default().tcp
    }

    #[test]
    fn every_reactor_listens_on_the_same_port() {
        let bound = bind(&[Listen::Tcp("127.0.0.1:0".parse().unwrap())], 3, &tcp()).unwrap();
        let port = |socket: &Socket| socket.local_addr().unwrap().as_socket().unwrap().port();
        let ports: Vec<u16> = bound.sockets.iter().map(|sockets| port(&sockets[0])).collect();
        assert!(ports[0] != 0 && ports.iter().all(|port| *port == ports[0]), "{ports:?}");
        let taken = Listen::Tcp(([127, 0, 0, 1], ports[0]).into());
        let Err(error) = bind(&[taken], 1, &tcp()) else { panic!("the port is taken") };
        assert!(error.to_string().contains("is in use"), "{error}");
    }

    #[test]
    fn a_stale_unix_socket_is_replaced_and_a_living_one_is_not() {
        let path = std::env::temp_dir().join(format!("fanfare-listen-{}.sock", std::process::id()));
        let listen = [Listen::Unix(path.clone())];
        let first = bind(&listen, 2, &tcp()).unwrap();
        assert!(bind(&listen, 1, &tcp()).is_err(), "somebody listens");
        drop(first);
        assert!(bind(&listen, 1, &tcp()).is_ok(), "nobody does any more");
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "mine").unwrap();
        assert!(bind(&listen, 1, &tcp()).is_err(), "a file is not a socket");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "mine");
        std::fs::remove_file(&path).unwrap();
    }
}
