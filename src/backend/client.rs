//! HTTP to the team's services: one request, one answer up to a bound, within a time. Connections are kept; redirects are
//! not followed.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::{Request, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use crate::limits::RESPONSE_HEAD_BYTES_MAX;

/// How long a connection is kept without a request.
const IDLE: Duration = Duration::from_secs(60);

/// Which certificates services are believed by.
#[derive(Clone, Debug)]
pub struct Authorities(RootCertStore);

impl Authorities {
    /// Those in a PEM file.
    ///
    /// # Errors
    /// What is wrong with the file.
    pub fn from_file(path: &str) -> Result<Authorities, String> {
        let mut roots = RootCertStore::empty();
        let unreadable = |error| format!("cannot be read: {error}; name a file that this process may read");
        let certificates = CertificateDer::pem_file_iter(Path::new(path)).map_err(unreadable)?;
        for certificate in certificates {
            let certificate = certificate.map_err(unreadable)?;
            roots.add(certificate).map_err(|error| format!("holds what is no certificate: {error}"))?;
        }
        match roots.is_empty() {
            true => Err("has no certificate in it; it starts with -----BEGIN CERTIFICATE-----".to_owned()),
            false => Ok(Authorities(roots)),
        }
    }

    /// Those of the system. Without one, no encrypted service is believed.
    pub fn of_system() -> Authorities {
        let mut roots = RootCertStore::empty();
        let found = rustls_native_certs::load_native_certs();
        // Old ones that are not understood are common, and harm nothing.
        roots.add_parsable_certificates(found.certs);
        Authorities(roots)
    }

    /// None at all, where nothing is encrypted.
    pub fn none() -> Authorities {
        Authorities(RootCertStore::empty())
    }
}

/// What a service has answered.
#[derive(Debug)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The body, within its bound.
    pub body: Bytes,
}

/// Why there is no answer. Holds nothing of it, nor of the request.
#[derive(Debug)]
pub enum RequestError {
    /// The time is over.
    Late,
    /// It is longer than the bound.
    TooLong,
    /// There is no connection, or it broke.
    Broken(Box<dyn std::error::Error + Send + Sync>),
}

impl fmt::Display for RequestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RequestError::Late => f.write_str("it did not answer in time"),
            RequestError::TooLong => f.write_str("its answer is too long"),
            RequestError::Broken(error) => {
                write!(f, "{error}")?;
                let mut source = error.source();
                while let Some(cause) = source {
                    write!(f, ": {cause}")?;
                    source = cause.source();
                }
                Ok(())
            }
        }
    }
}

/// Clones share their connections.
#[derive(Clone, Debug)]
pub struct Client {
    http: legacy::Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    timeout: Duration,
}

impl Client {
    /// Keeps so many connections to a host.
    pub fn new(authorities: Authorities, connections_max: usize, timeout: Duration) -> Client {
        let provider = rustls::crypto::ring::default_provider();
        let tls = rustls::ClientConfig::builder_with_provider(provider.into())
            .with_safe_default_protocol_versions()
            .expect("ring speaks the usual versions of TLS")
            .with_root_certificates(authorities.0)
            .with_no_client_auth();
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(timeout));
        let connector =
            HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().wrap_connector(tcp);
        let http = legacy::Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(connections_max)
            .http1_max_buf_size(RESPONSE_HEAD_BYTES_MAX)
            .build(connector);
        Client { http, timeout }
    }

    /// How long an answer may take.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Sends a request and reads its answer, of which the body has so many bytes at most.
    ///
    /// # Errors
    /// [`RequestError`].
    pub async fn send(&self, request: Request<Full<Bytes>>, bytes_max: usize) -> Result<Answer, RequestError> {
        let answered = async {
            let response = self.http.request(request).await.map_err(|error| RequestError::Broken(error.into()))?;
            let status = response.status().as_u16();
            match Limited::new(response.into_body(), bytes_max).collect().await {
                Ok(body) => Ok(Answer { status, body: body.to_bytes() }),
                Err(error) if error.is::<http_body_util::LengthLimitError>() => Err(RequestError::TooLong),
                Err(error) => Err(RequestError::Broken(error)),
            }
        };
        tokio::time::timeout(self.timeout, answered).await.unwrap_or(Err(RequestError::Late))
    }
}

/// A URL for a log line: what stands behind the host may be a secret.
pub fn place(url: &Uri) -> String {
    format!("{}://{}", url.scheme_str().unwrap_or_default(), url.authority().map_or("", |authority| authority.as_str()))
}
