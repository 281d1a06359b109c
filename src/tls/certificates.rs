//! Certificates with their keys, and which of them a client is shown; whose certificate a client has shown.

use std::fmt;
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::client::verify_server_name;
use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::{ClientHello, ParsedCertificate, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use x509_cert::attr::AttributeTypeAndValue;
use x509_cert::der::asn1::ObjectIdentifier;
use x509_cert::der::{Decode, Tag, Tagged};

use crate::limits::USER_ID_BYTES_MAX;

/// What is wrong with a certificate or its key, in a few words. Holds nothing of the key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateError(String);

impl CertificateError {
    pub(super) fn new(error: &dyn fmt::Display) -> CertificateError {
        CertificateError(error.to_string())
    }
}

impl fmt::Display for CertificateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for CertificateError {}

/// A chain of certificates, the server's own first, and the key of that one.
#[derive(Clone, Debug)]
pub struct Certificate(Arc<CertifiedKey>);

impl Certificate {
    /// From PEM: all certificates of `chain`, and the first private key of `key` (PKCS #8, PKCS #1 or SEC 1).
    ///
    /// # Errors
    /// Where there is none in either, where the key is of a kind that TLS does not sign with, or where it is another
    /// certificate's.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Certificate, CertificateError> {
        let chain = certificates(chain)?;
        let key = PrivateKeyDer::from_pem_slice(key)
            .map_err(|_| CertificateError("there is no private key in PEM in its key file".to_owned()))?;
        let key = any_supported_type(&key).map_err(|_| {
            CertificateError("its key is of no kind that TLS signs with: RSA, ECDSA or Ed25519".to_owned())
        })?;
        let certified = CertifiedKey::new(chain, key);
        certified.keys_match().map_err(|_| CertificateError("its key is another certificate's".to_owned()))?;
        Ok(Certificate(Arc::new(certified)))
    }

    /// When it ends, in seconds of Unix time; `None` where it does not say so in a way that is understood.
    pub fn ends_at(&self) -> Option<u64> {
        let own = x509_cert::Certificate::from_der(self.0.cert.first()?).ok()?;
        Some(own.tbs_certificate().validity().not_after.to_unix_duration().as_secs())
    }

    /// Whether it is for a server of this name.
    fn is_for(&self, name: &ServerName<'_>) -> bool {
        let Some(own) = self.0.cert.first() else { return false };
        ParsedCertificate::try_from(own).is_ok_and(|own| verify_server_name(&own, name).is_ok())
    }
}

/// All certificates of a PEM text.
fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match found {
        Ok(found) if !found.is_empty() => match ParsedCertificate::try_from(&found[0]) {
            Ok(_) => Ok(found),
            Err(error) => Err(CertificateError(format!("its first certificate cannot be read: {error}"))),
        },
        Ok(_) | Err(_) => Err(CertificateError("there is no certificate in PEM in it".to_owned())),
    }
}

/// The authorities of a PEM text.
///
/// # Errors
/// Where there is none in it, or one cannot be read.
pub fn authorities(pem: &[u8]) -> Result<RootCertStore, CertificateError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(pem)? {
        roots.add(certificate).map_err(|error| CertificateError(format!("an authority cannot be read: {error}")))?;
    }
    Ok(roots)
}

/// The certificates of a listener, of which a client is shown the first that is for the name it asks for and whose key
/// it understands; or else the first whose key it understands.
#[derive(Clone, Debug)]
pub struct Certificates(Vec<Certificate>);

impl Certificates {
    /// In the order in which they are tried.
    pub fn new(certificates: Vec<Certificate>) -> Certificates {
        Certificates(certificates)
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let understood =
            |certificate: &&Certificate| certificate.0.key.choose_scheme(hello.signature_schemes()).is_some();
        let name = hello.server_name().and_then(|name| ServerName::try_from(name).ok());
        let named =
            name.and_then(|name| self.0.iter().filter(understood).find(|certificate| certificate.is_for(&name)));
        named.or_else(|| self.0.iter().find(understood)).map(|certificate| certificate.0.clone())
    }
}

/// What a client's certificate says of who it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientName {
    /// It has shown none.
    NotShown,
    /// A user: the common name of its subject.
    User(String),
    /// Nobody: its subject has no such name, or more than one, or it is no user id.
    Nameless,
}

impl ClientName {
    pub(super) fn of(certificate: &CertificateDer<'_>) -> ClientName {
        user_of(certificate).map_or(ClientName::Nameless, ClientName::User)
    }
}

/// The common name of the subject (RFC 5280 §4.1.2.6), where it is a user id.
fn user_of(certificate: &CertificateDer<'_>) -> Option<String> {
    let certificate = x509_cert::Certificate::from_der(certificate).ok()?;
    let subject = certificate.tbs_certificate().subject();
    let mut names = subject.iter().filter(|attribute| attribute.oid == COMMON_NAME);
    let (name, others) = (names.next()?, names.next());
    let name = text(name)?;
    let is_user_id = !name.is_empty() && name.len() <= USER_ID_BYTES_MAX;
    (is_user_id && others.is_none()).then(|| name.to_owned())
}

/// 2.5.4.3, `id-at-commonName`.
const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");

/// A name that is UTF-8 or ASCII; older alphabets are none that a user id is compared in.
fn text(attribute: &AttributeTypeAndValue) -> Option<&str> {
    match attribute.value.tag() {
        Tag::Utf8String | Tag::PrintableString | Tag::Ia5String => std::str::from_utf8(attribute.value.value()).ok(),
        _ => None,
    }
}
