//! Certificates and clients for the tests of TLS.

use std::io::Read;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, SignatureAlgorithm};
use rustls::crypto::ring;
use rustls::pki_types::ServerName;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, ClientConnection, RootCertStore, SupportedProtocolVersion};

use super::{Certificate, Certificates, ClientAuth, authorities, server_config};

/// An authority that signs certificates of one day.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key, in PEM.
pub(crate) struct Pair {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

impl Authority {
    pub(crate) fn new() -> Authority {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        Authority(CertifiedIssuer::self_signed(params, key).expect("an authority"))
    }

    /// For a server with these names.
    pub(crate) fn server(&self, names: &[&str]) -> Pair {
        self.sign(names, &[], &rcgen::PKCS_ECDSA_P256_SHA256)
    }

    /// For a client whose subject has these common names.
    pub(crate) fn client(&self, common_names: &[&str]) -> Pair {
        self.sign(&[], common_names, &rcgen::PKCS_ED25519)
    }

    pub(crate) fn sign(&self, names: &[&str], common_names: &[&str], alg: &'static SignatureAlgorithm) -> Pair {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("good names");
        params.distinguished_name = rcgen::DistinguishedName::new();
        for name in common_names {
            params.distinguished_name.push(DnType::CommonName, *name);
        }
        let key = KeyPair::generate_for(alg).expect("a key");
        let certificate = params.signed_by(&key, &self.0).expect("a certificate");
        Pair { certificate: certificate.pem(), key: key.serialize_pem() }
    }

    pub(crate) fn roots(&self) -> Arc<RootCertStore> {
        Arc::new(authorities(self.0.pem().as_bytes()).expect("an authority"))
    }

    /// What a listener with certificates for these servers begins sessions with.
    pub(crate) fn config(&self, servers: &[&str], clients: ClientAuth) -> rustls::ServerConfig {
        let certificates = servers.iter().map(|name| self.server(&[name]).parse()).collect();
        server_config(Certificates::new(certificates), clients).expect("a configuration")
    }
}

impl Pair {
    pub(crate) fn parse(&self) -> Certificate {
        Certificate::from_pem(self.certificate.as_bytes(), self.key.as_bytes()).expect("a certificate and its key")
    }
}

/// A client of a server with this name.
pub(crate) struct Client(ClientConnection);

impl Client {
    pub(crate) fn config(roots: Arc<RootCertStore>, version: &'static SupportedProtocolVersion) -> ClientConfig {
        Client::builder(roots, version).with_no_client_auth()
    }

    /// One with a certificate.
    pub(crate) fn certified(roots: Arc<RootCertStore>, pair: &Pair) -> ClientConfig {
        let chain = vec![CertificateDer::from_pem_slice(pair.certificate.as_bytes()).expect("a certificate")];
        let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).expect("a key");
        let builder = Client::builder(roots, &rustls::version::TLS13);
        builder.with_client_auth_cert(chain, key).expect("a certificate and its key")
    }

    fn builder(
        roots: Arc<RootCertStore>,
        version: &'static SupportedProtocolVersion,
    ) -> rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert> {
        ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&[version])
            .expect("a version that there is")
            .with_root_certificates(roots)
    }

    pub(crate) fn new(config: &Arc<ClientConfig>, server: &str) -> Client {
        let server = ServerName::try_from(server.to_owned()).expect("a name");
        let mut client = ClientConnection::new(config.clone(), server).expect("a client");
        client.set_buffer_limit(None);
        Client(client)
    }

    pub(crate) fn tls(&mut self) -> &mut ClientConnection {
        &mut self.0
    }

    /// What it has to send.
    pub(crate) fn output(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        while self.0.wants_write() {
            self.0.write_tls(&mut bytes).expect("memory takes everything");
        }
        bytes
    }

    /// Takes records; what they say.
    ///
    /// # Errors
    /// What is wrong with them.
    pub(crate) fn input(&mut self, mut bytes: &[u8]) -> Result<Vec<u8>, rustls::Error> {
        let mut plain = Vec::new();
        while !bytes.is_empty() {
            self.0.read_tls(&mut bytes).expect("memory gives everything");
            self.0.process_new_packets()?;
            // Nothing more for now is an error of its kind.
            let _ = self.0.reader().read_to_end(&mut plain);
        }
        Ok(plain)
    }

    pub(crate) fn say(&mut self, plain: &[u8]) -> Vec<u8> {
        std::io::Write::write_all(&mut self.0.writer(), plain).expect("memory takes everything");
        self.output()
    }
}
