//! TLS in front of a server that has none, so that a client's side of it can be tested by itself.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection};

use crate::Certificates;
use crate::tls_pump::pump;

/// Speaks TLS with clients and passes on what is in it, for as long as the process lives.
pub struct TlsFront {
    address: SocketAddr,
}

impl TlsFront {
    /// In front of this server.
    ///
    /// # Panics
    ///
    /// Where the certificates cannot be read.
    pub fn to(server: SocketAddr, certificates: &Certificates) -> TlsFront {
        let chain: Vec<_> = CertificateDer::pem_file_iter(certificates.path("server.pem"))
            .and_then(Iterator::collect)
            .expect("a certificate in PEM");
        let key = PrivateKeyDer::from_pem_file(certificates.path("server.key")).expect("a key in PEM");
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
            .expect("a key for this certificate");
        let config = Arc::new(config);
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let config = Arc::clone(&config);
                thread::spawn(move || {
                    let (Ok(server), Ok(session)) = (TcpStream::connect(server), ServerConnection::new(config)) else {
                        return;
                    };
                    pump(&server, &client, session.into());
                });
            }
        });
        TlsFront { address }
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.address
    }

    /// The WebSocket URL of a request target such as `/?userId=alice`.
    pub fn url(&self, path_and_query: &str) -> String {
        format!("wss://{}{path_and_query}", self.address)
    }
}
