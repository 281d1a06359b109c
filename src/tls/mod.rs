//! TLS of one connection, sans-IO: bytes and records in, records and bytes out.
//!
//! A [`Session`] is rustls' unbuffered connection and what is left of an incomplete record. It holds no buffer while
//! nothing is under way, which is most of what an idle TLS connection would cost otherwise. [`server_config`] makes what
//! a listener's sessions share; [`Certificates`] chooses among several by the name that a client asks for (SNI).
//!
//! Who drives it: on a reactor the driver layer `reactor::tls`, on the threads of plain HTTP `control`. May import
//! `current` and `limits`; it never sees a descriptor, a clock or a thread.

mod certificates;
mod session;
mod stream;

use std::sync::Arc;

use rustls::crypto::ring;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::version::{TLS12, TLS13};
use rustls::{RootCertStore, ServerConfig};

pub use certificates::{Certificate, CertificateError, Certificates, ClientName, authorities};
pub use session::{Progress, Session, SessionError};
pub use stream::{Acceptor, Layer, Secured, Stream};

/// What clients may negotiate behind TLS (RFC 7301), the first that they offer. HTTP/2 has no upgrade as WebSocket clients ask
/// for it, and WebSocket over HTTP/2 (RFC 8441) is not spoken: a client that wants a WebSocket does not offer `h2`, or offers
/// it and finds that the server has not said `SETTINGS_ENABLE_CONNECT_PROTOCOL`.
const ALPN: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// Whether clients show a certificate, and by which authorities.
#[derive(Clone, Debug)]
pub enum ClientAuth {
    /// They are not asked.
    None,
    /// They are asked; who has none is a guest.
    Optional(Arc<RootCertStore>),
    /// Who has none does not get in.
    Required(Arc<RootCertStore>),
}

/// What the sessions of one listener have in common: TLS 1.2 and 1.3, `h2` and `http/1.1` behind it, and tickets instead of kept
/// sessions. Keys of tickets rotate every six hours, and are new with each configuration; where clients are asked for
/// certificates there are no tickets, so that each shows its own each time.
///
/// # Errors
/// Where the operating system gives no random bytes for the keys of tickets, or an authority is of no use.
pub fn server_config(certificates: Certificates, clients: ClientAuth) -> Result<ServerConfig, CertificateError> {
    let provider = Arc::new(ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&TLS13, &TLS12])
        .map_err(|error| CertificateError::new(&error))?;
    let verifier = |roots| WebPkiClientVerifier::builder_with_provider(roots, provider.clone());
    let verifier: Option<Arc<dyn ClientCertVerifier>> = match clients {
        ClientAuth::None => None,
        ClientAuth::Optional(roots) => {
            Some(verifier(roots).allow_unauthenticated().build().map_err(|error| CertificateError::new(&error))?)
        }
        ClientAuth::Required(roots) => Some(verifier(roots).build().map_err(|error| CertificateError::new(&error))?),
    };
    let asks_clients = verifier.is_some();
    let builder = match verifier {
        None => builder.with_no_client_auth(),
        Some(verifier) => builder.with_client_cert_verifier(verifier),
    };
    let mut config = builder.with_cert_resolver(Arc::new(certificates));
    config.alpn_protocols = ALPN.map(<[u8]>::to_vec).to_vec();
    config.session_storage = Arc::new(NoServerSessionStorage {});
    // A session that is resumed has its client's certificate from the ticket, whatever became of it since.
    if !asks_clients {
        config.ticketer = ring::Ticketer::new().map_err(|error| CertificateError::new(&error))?;
    }
    Ok(config)
}

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
