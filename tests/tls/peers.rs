//! A server that speaks TLS, and clients that do: openssl, and rustls under tungstenite.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use fanfare_testing::client::{Rejection, Stream};
use fanfare_testing::{Certificates, Client, Server, hears_hangups};
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned, SupportedProtocolVersion};

/// A server, and the authority that its certificate is of.
pub struct Secured {
    pub server: Server,
    pub certificates: Certificates,
}

impl Secured {
    #[track_caller]
    pub fn start(reactors: usize, settings: &[&str]) -> Secured {
        Secured::with(Certificates::make(), reactors, settings)
    }

    #[track_caller]
    pub fn with(certificates: Certificates, reactors: usize, settings: &[&str]) -> Secured {
        let (certificate, key) = (certificates.path("server.pem"), certificates.path("server.key"));
        let tls = ["--tls.certificate", &certificate, "--tls.key", &key];
        let reactors = reactors.to_string();
        let server = Server::changed(hears_hangups, &[&["--reactors", &reactors][..], &tls, settings].concat());
        Secured { server, certificates }
    }

    /// What openssl's client says of a connection, with these options; `input` is what it sends.
    #[track_caller]
    pub fn openssl(&self, options: &[&str], input: &str) -> Output {
        let (address, ca) = (self.server.addr().to_string(), self.certificates.path("ca.pem"));
        let client = ["s_client", "-connect", &address, "-CAfile", &ca, "-verify_return_error"];
        let mut child = Command::new("openssl")
            .args(client)
            .args(options)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("openssl starts: apt-get install openssl");
        // It may have given up already.
        let _ = child.stdin.take().expect("it is piped").write_all(input.as_bytes());
        child.wait_with_output().expect("it ends with its input")
    }

    /// A page of the server, with its head, as a program on this machine gets it.
    #[track_caller]
    pub fn page(&self, path: &str) -> String {
        let address = self.server.addr();
        let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        said(&self.openssl(&["-quiet", "-ign_eof"], &request))
    }

    /// A socket to the server, its handshake still to come.
    #[track_caller]
    pub fn dial(&self, config: ClientConfig) -> TlsStream {
        let tcp = TcpStream::connect(self.server.addr()).expect("the server should accept");
        tcp.set_nodelay(true).expect("TCP has no-delay");
        let session = ClientConnection::new(Arc::new(config), self.server.addr().ip().into()).expect("a client");
        TlsStream(StreamOwned::new(session, tcp))
    }

    pub fn config(&self, version: &'static SupportedProtocolVersion) -> ClientConfig {
        self.builder(version).with_no_client_auth()
    }

    /// One that shows this certificate.
    #[track_caller]
    pub fn certified(&self, name: &str) -> ClientConfig {
        let path = |kind: &str| self.certificates.path(&format!("{name}.{kind}"));
        let certificate = CertificateDer::from_pem_file(path("pem")).expect("a certificate");
        let key = PrivateKeyDer::from_pem_file(path("key")).expect("a key");
        self.builder(&rustls::version::TLS13)
            .with_client_auth_cert(vec![certificate], key)
            .expect("both belong together")
    }

    fn builder(
        &self,
        version: &'static SupportedProtocolVersion,
    ) -> rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(self.certificates.path("ca.pem")).expect("PEM")).expect("an authority");
        ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&[version])
            .expect("a version that there is")
            .with_root_certificates(roots)
    }

    #[track_caller]
    pub fn open(&self, config: ClientConfig, target: &str) -> Client {
        self.try_open(config, target).unwrap_or_else(|rejection| panic!("{target} should upgrade: {rejection:?}"))
    }

    #[track_caller]
    pub fn try_open(&self, config: ClientConfig, target: &str) -> Result<Client, Rejection> {
        Client::over(Box::new(self.dial(config)), &format!("wss://{}{target}", self.server.addr()))
    }
}

pub struct TlsStream(StreamOwned<ClientConnection, TcpStream>);

impl TlsStream {
    pub fn tcp(&self) -> &TcpStream {
        &self.0.sock
    }
}

impl Read for TlsStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Write for TlsStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl Stream for TlsStream {
    fn limit_reads(&self, timeout: Duration) -> io::Result<()> {
        self.0.sock.set_read_timeout(Some(timeout))
    }
}

/// What a program has said, on both streams.
pub fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}
