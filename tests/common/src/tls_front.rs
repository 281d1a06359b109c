//! TLS in front of a server that has none, so that a client's side of it can be tested by itself.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection};

use crate::Certificates;

/// Bytes that are passed on at once.
const PIECE_BYTES: usize = 16 * 1024;

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
                thread::spawn(move || serve(&client, server, config));
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

/// An error is an end, whichever side it is on.
fn serve(client: &TcpStream, server: SocketAddr, config: Arc<ServerConfig>) {
    let (Ok(server), Ok(session)) = (TcpStream::connect(server), ServerConnection::new(config)) else { return };
    let session = Mutex::new(session);
    thread::scope(|scope| {
        scope.spawn(|| {
            let _ = inward(client, &server, &session);
            let _ = server.shutdown(Shutdown::Both);
        });
        let _ = outward(client, &server, &session);
        let _ = client.shutdown(Shutdown::Both);
        let _ = server.shutdown(Shutdown::Both);
    });
}

fn inward(mut client: &TcpStream, mut server: &TcpStream, session: &Mutex<ServerConnection>) -> io::Result<()> {
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        let filled = client.read(&mut piece)?;
        let mut bytes = &piece[..filled];
        let mut plain = Vec::new();
        {
            let mut session = session.lock().unwrap_or_else(PoisonError::into_inner);
            while !bytes.is_empty() {
                session.read_tls(&mut bytes)?;
                let outcome = session.process_new_packets();
                // An alert, where something is wrong.
                flush(&mut session, client)?;
                let held = outcome.map_err(io::Error::other)?.plaintext_bytes_to_read();
                let before = plain.len();
                plain.resize(before + held, 0);
                session.reader().read_exact(&mut plain[before..])?;
            }
        }
        if filled == 0 {
            return Ok(());
        }
        server.write_all(&plain)?;
    }
}

fn outward(client: &TcpStream, mut server: &TcpStream, session: &Mutex<ServerConnection>) -> io::Result<()> {
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        let filled = server.read(&mut piece)?;
        let mut session = session.lock().unwrap_or_else(PoisonError::into_inner);
        if filled == 0 {
            session.send_close_notify();
            return flush(&mut session, client);
        }
        session.writer().write_all(&piece[..filled])?;
        flush(&mut session, client)?;
    }
}

fn flush(session: &mut ServerConnection, mut client: &TcpStream) -> io::Result<()> {
    while session.wants_write() {
        session.write_tls(&mut client)?;
    }
    Ok(())
}
