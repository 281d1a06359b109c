//! TLS to a server (RFC 8446, RFC 5246): whose certificates are taken, and what its failures mean.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, ClientConnection, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
};

use super::Url;
use crate::config::read_at_most;

/// The protocol inside (RFC 7301): a WebSocket begins as a request of HTTP/1.1.
const ALPN: &[u8] = b"http/1.1";

/// Largest file with certificates, in bytes; those of whole systems have a quarter of it. A larger one is refused.
const AUTHORITIES_BYTES_MAX: usize = 1 << 20;

/// Whose word on a server's certificate is taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trust {
    /// That of the system's authorities, or of those in `SSL_CERT_FILE` and `SSL_CERT_DIR`.
    System,
    /// That of the authorities in this PEM file, and of no others.
    Authorities(PathBuf),
    /// Nobody's is asked for: whoever answers is taken for the server.
    Unverified,
}

impl Trust {
    /// What `--ca` and `--insecure` say together.
    ///
    /// # Errors
    ///
    /// Where both are given.
    pub fn from_flags(ca: Option<&str>, insecure: bool) -> Result<Trust, String> {
        match (ca, insecure) {
            (None, false) => Ok(Trust::System),
            (Some(path), false) => Ok(Trust::Authorities(path.into())),
            (None, true) => Ok(Trust::Unverified),
            (Some(_), true) => Err("--ca verifies the server and --insecure does not; give one of them".to_owned()),
        }
    }
}

/// What a client needs for TLS with one server, however many connections there are.
#[derive(Clone, Debug)]
pub struct Tls {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
}

impl Tls {
    /// For the server of a URL; `None` where the URL asks for no TLS.
    ///
    /// # Errors
    ///
    /// Where the authorities cannot be read, the host is no name for a certificate, or a flag about TLS is given
    /// without TLS.
    pub fn of(url: &Url, trust: &Trust) -> Result<Option<Tls>, String> {
        if !url.is_secure() {
            return match trust {
                Trust::System => Ok(None),
                Trust::Authorities(_) => Err(format!("--ca is for wss:// URLs, and {url} has no TLS; leave it out")),
                Trust::Unverified => Err(format!("--insecure is for wss:// URLs, and {url} has no TLS; leave it out")),
            };
        }
        let name = ServerName::try_from(url.host().to_owned())
            .map_err(|_| format!("the host of {url} is no name that a certificate can have; check --url"))?;
        let provider = Arc::new(ring::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| format!("TLS cannot be set up: {error}"))?;
        let builder = match trust {
            Trust::System => builder.with_root_certificates(system_authorities()?),
            Trust::Authorities(path) => builder.with_root_certificates(authorities(path)?),
            Trust::Unverified => {
                builder.dangerous().with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
            }
        };
        let mut config = builder.with_no_client_auth();
        config.alpn_protocols = vec![ALPN.to_vec()];
        Ok(Some(Tls { config: Arc::new(config), name }))
    }

    /// The same for connections that are clients of their own: none resumes the session of another (RFC 8446 §2.2).
    #[must_use]
    pub fn without_resumption(self) -> Tls {
        let mut config = Arc::unwrap_or_clone(self.config);
        config.resumption = Resumption::disabled();
        Tls { config: Arc::new(config), name: self.name }
    }

    /// A session before its first byte.
    ///
    /// # Errors
    ///
    /// Where the library refuses its configuration.
    pub(super) fn session(&self) -> io::Result<ClientConnection> {
        ClientConnection::new(Arc::clone(&self.config), self.name.clone()).map_err(io::Error::other)
    }

    /// The first bytes that a client sends (RFC 8446 §4.1.2).
    ///
    /// # Errors
    ///
    /// As [`Transport::new`](super::Transport::new).
    pub fn client_hello(&self) -> io::Result<Vec<u8>> {
        let (mut session, mut hello) = (self.session()?, Vec::new());
        while session.wants_write() {
            session.write_tls(&mut hello)?;
        }
        Ok(hello)
    }
}

/// What TLS failed with and what to do, in words; `None` of an error that is not of TLS.
pub fn tls_failure(error: &io::Error) -> Option<String> {
    let error = error.get_ref()?.downcast_ref::<Error>()?;
    let advice = match error {
        Error::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature) => {
            "name the authority that has signed it with --ca FILE"
        }
        Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => "write a name that it is for into the URL",
        Error::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. }) => {
            "the server needs a new one"
        }
        Error::InvalidMessage(_) => "what answers there speaks no TLS: write ws:// if it is meant to",
        _ => return Some(format!("TLS failed: {error}")),
    };
    Some(format!("TLS failed: {error}; {advice}"))
}

fn system_authorities() -> Result<RootCertStore, String> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    // Systems have some that no library takes.
    let (taken, _) = roots.add_parsable_certificates(found.certs);
    match (taken, found.errors.first()) {
        (0, Some(error)) => Err(format!("the system's certificates cannot be read: {error}; name some with --ca FILE")),
        (0, None) => Err("the system has no certificates; install ca-certificates, or name some with --ca FILE".into()),
        (1.., _) => Ok(roots),
    }
}

fn authorities(path: &PathBuf) -> Result<RootCertStore, String> {
    let pem = read_at_most(path, AUTHORITIES_BYTES_MAX).map_err(|what| format!("--ca: {path:?} {what}"))?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let added = certificate.map_err(|error| error.to_string());
        let added = added.and_then(|certificate| roots.add(certificate).map_err(|error| error.to_string()));
        added.map_err(|error| format!("--ca: {path:?} has a certificate that is none: {error}"))?;
    }
    match roots.is_empty() {
        true => Err(format!("--ca: {path:?} has no certificate in it; name a PEM file (-----BEGIN CERTIFICATE-----)")),
        false => Ok(roots),
    }
}

/// Takes every certificate, and still asks its holder to prove that it holds the key.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
