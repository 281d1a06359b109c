//! Listening sockets that were there before this process: those of a socket unit (sd_listen_fds(3)). Their backlog holds
//! clients from the end of one process to the start of the next, so that none is refused.
//!
//! A socket belongs to the listener of the configuration that has its address. One that belongs to none is an error: its
//! clients would wait in vain.

use std::io;
use std::net::{IpAddr, SocketAddr};

use listenfd::ListenFd;
use socket2::{SockAddr, Socket};

use super::ServeError;
use crate::config::{Listen, Listener};
use crate::limits::INHERITED_MAX;

/// Sockets that no listener has taken yet.
#[derive(Default)]
pub(super) struct Inherited {
    sockets: Vec<(Listen, Socket)>,
}

impl Inherited {
    /// The sockets that the environment tells of, if it tells of them to this process. To be called before the first
    /// thread starts: the variables are removed.
    ///
    /// # Errors
    /// What was passed is no listening socket, or there are more than [`INHERITED_MAX`].
    pub(super) fn from_env() -> Result<Inherited, ServeError> {
        let mut given = ListenFd::from_env();
        let count = given.len();
        if count > INHERITED_MAX {
            return Err(ServeError::Inherited(format!(
                "{count} sockets were passed: {INHERITED_MAX} at most are taken"
            )));
        }
        let take = |at: usize| take(&mut given, at).map_err(|error| fault(at, &error));
        Ok(Inherited { sockets: (0..count).map(take).collect::<Result<_, _>>()? })
    }

    /// Takes the sockets out that belong to one of the listeners; none where it is to be bound.
    pub(super) fn take(&mut self, address: &Listen, all: &[Listener]) -> Vec<Socket> {
        let belongs = |at: &Listen, socket: &Socket| {
            at == address || (is_dual_of(at, socket, address) && !all.iter().any(|listener| listener.address == *at))
        };
        let (taken, left) = std::mem::take(&mut self.sockets).into_iter().partition(|(at, socket)| belongs(at, socket));
        self.sockets = left;
        taken.into_iter().map(|(_, socket)| socket).collect()
    }

    /// To be called when all listeners have theirs.
    ///
    /// # Errors
    /// A socket is left.
    pub(super) fn finish(self) -> Result<(), ServeError> {
        match self.sockets.first() {
            None => Ok(()),
            Some((address, _)) => Err(ServeError::Inherited(format!(
                "a socket that listens on {address} was passed, and no listener has this address: name it in listen, or \
                 take it out of the socket unit"
            ))),
        }
    }
}

fn take(given: &mut ListenFd, at: usize) -> io::Result<(Listen, Socket)> {
    let socket = match given.take_tcp_listener(at) {
        Ok(Some(socket)) => Some(Socket::from(socket)),
        Ok(None) => None,
        Err(_) => given.take_unix_listener(at)?.map(Socket::from),
    };
    let socket = socket.ok_or_else(|| io::Error::other("it is not there"))?;
    if !socket.is_listener()? {
        return Err(io::Error::other("it does not listen: a socket unit with Accept=yes, or a connection"));
    }
    socket.set_nonblocking(true)?;
    let address = address_of(&socket.local_addr()?).ok_or_else(|| io::Error::other("its address is no path"))?;
    Ok((address, socket))
}

fn fault(at: usize, error: &io::Error) -> ServeError {
    ServeError::Inherited(format!(
        "descriptor {} was passed, and is no TCP or Unix stream socket that listens: {error}",
        3 + at
    ))
}

fn address_of(address: &SockAddr) -> Option<Listen> {
    match address.as_socket() {
        Some(address) => Some(Listen::Tcp(SocketAddr::new(address.ip().to_canonical(), address.port()))),
        None => address.as_pathname().map(|path| Listen::Unix(path.to_owned())),
    }
}

/// Whether a socket on `[::]` takes what `0.0.0.0` stands for as well, which is systemd's default, and this is asked for.
fn is_dual_of(at: &Listen, socket: &Socket, wanted: &Listen) -> bool {
    let (Listen::Tcp(at), Listen::Tcp(wanted)) = (at, wanted) else { return false };
    let is_any = |ip: IpAddr| ip.is_unspecified();
    let is_same_port = at.port() == wanted.port() && is_any(at.ip()) && is_any(wanted.ip());
    is_same_port && at.is_ipv6() && wanted.is_ipv4() && socket.only_v6().is_ok_and(|only_v6| !only_v6)
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use socket2::{Domain, Type};

    use super::*;
    use crate::config::Config;

    fn listening(address: SocketAddr, only_v6: bool) -> (Listen, Socket) {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
        if address.is_ipv6() {
            socket.set_only_v6(only_v6).unwrap();
        }
        socket.bind(&address.into()).unwrap();
        socket.listen(1).unwrap();
        (address_of(&socket.local_addr().unwrap()).unwrap(), socket)
    }

    fn listener(address: Listen) -> Listener {
        Listener { address, ..Config::default().listeners[0].clone() }
    }

    fn port(address: &Listen) -> u16 {
        let Listen::Tcp(address) = address else { panic!("of TCP") };
        address.port()
    }

    #[test]
    fn a_socket_goes_to_the_listener_with_its_address() {
        let (own, other) = (listening(([127, 0, 0, 1], 0).into(), false), listening(([127, 0, 0, 1], 0).into(), false));
        let all = [listener(own.0.clone()), listener(Listen::Tcp(([127, 0, 0, 1], 0).into()))];
        let (address, left) = (own.0.clone(), other.0.clone());
        let mut inherited = Inherited { sockets: vec![own, other] };
        assert_eq!(inherited.take(&all[1].address, &all).len(), 0, "port 0 is a new one");
        assert_eq!(inherited.take(&address, &all).len(), 1);
        assert_eq!(inherited.take(&address, &all).len(), 0);
        let Err(error) = inherited.finish() else { panic!("one is left") };
        assert!(error.to_string().contains(&left.to_string()), "{error}");
    }

    #[test]
    fn a_socket_for_both_families_stands_for_the_one_that_is_asked_for() {
        if Socket::new(Domain::IPV6, Type::STREAM, None).is_err() {
            eprintln!("this machine has no IPv6: nothing to test");
            return;
        }
        for (only_v6, taken) in [(false, 1), (true, 0)] {
            let both = listening((Ipv6Addr::UNSPECIFIED, 0).into(), only_v6);
            let (v4, v6) = (Listen::Tcp((Ipv4Addr::UNSPECIFIED, port(&both.0)).into()), both.0.clone());
            let mut inherited = Inherited { sockets: vec![both] };
            let named_both = [listener(v4.clone()), listener(v6.clone())];
            assert_eq!(inherited.take(&v4, &named_both).len(), 0, "[::] is asked for itself");
            assert_eq!(inherited.take(&v4, &[listener(v4.clone())]).len(), taken);
            assert_eq!(inherited.take(&v6, &named_both).len(), 1 - taken);
        }
    }
}
