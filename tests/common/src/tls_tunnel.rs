//! A way through TLS for clients that have none, so that every test can be run against a server that has it.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;

use rustls::crypto::ring;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use socket2::{Domain, Socket, Type};

use crate::Certificates;
use crate::tls_pump::pump;

/// Listens for clients without TLS and passes on what they say within it, for as long as the process lives.
pub struct TlsTunnel {
    address: SocketAddr,
}

impl TlsTunnel {
    /// To this server.
    ///
    /// # Panics
    ///
    /// Where the certificates cannot be read.
    pub fn to(server: SocketAddr, certificates: &Certificates) -> TlsTunnel {
        // Of the same port, so that the `Host` of those who come through it is one that the server has.
        TlsTunnel::between((Ipv4Addr::new(127, 0, 0, 2), server.port()), None, server, certificates)
    }

    /// To this server, to which all clients of it come from an address of this machine.
    ///
    /// # Panics
    ///
    /// Where the certificates cannot be read.
    pub fn from(source: Ipv4Addr, server: SocketAddr, certificates: &Certificates) -> TlsTunnel {
        TlsTunnel::between((Ipv4Addr::LOCALHOST, 0), Some(source), server, certificates)
    }

    fn between(
        entry: (Ipv4Addr, u16),
        source: Option<Ipv4Addr>,
        server: SocketAddr,
        certificates: &Certificates,
    ) -> TlsTunnel {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(certificates.path("ca.pem")).expect("PEM")).expect("an authority");
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions that there are")
            .with_root_certificates(roots)
            .with_no_client_auth();
        let config = Arc::new(config);
        let listener = TcpListener::bind(entry).expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let config = Arc::clone(&config);
                // A client whose server is not there finds its connection closed.
                thread::spawn(move || serve(&client, source, server, config));
            }
        });
        TlsTunnel { address }
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.address
    }
}

fn serve(
    client: &TcpStream,
    source: Option<Ipv4Addr>,
    server: SocketAddr,
    config: Arc<ClientConfig>,
) -> io::Result<()> {
    let server_stream = connect(source, server)?;
    server_stream.set_nodelay(true)?;
    client.set_nodelay(true)?;
    let session = ClientConnection::new(config, server.ip().into()).map_err(io::Error::other)?;
    pump(client, &server_stream, session.into());
    Ok(())
}

fn connect(source: Option<Ipv4Addr>, server: SocketAddr) -> io::Result<TcpStream> {
    let Some(source) = source else { return TcpStream::connect(server) };
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SocketAddr::from((source, 0)).into())?;
    socket.connect(&server.into())?;
    Ok(socket.into())
}
