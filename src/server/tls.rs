//! Certificates and keys of the listeners, as the configuration names them: the files are read here, at the start and
//! again when they are to be read again.

use std::collections::BTreeSet;
use std::sync::Arc;

use rustls::ServerConfig;

use super::credential_error::CredentialError;
use crate::config::{ClientCertificates, Listener, TlsFiles, read_at_most};
use crate::metrics::{CertificateEnd, NodeMetrics};
use crate::tls::{Acceptor, Certificate, Certificates, ClientAuth, authorities, server_config};

/// Largest file with certificates or a key, in bytes. A larger one is refused.
const PEM_FILE_BYTES_MAX: usize = 1 << 20;

/// What each listener begins TLS sessions with; `None` where it speaks no TLS.
///
/// # Errors
/// A file that cannot be read, or is not what it has to be.
pub(super) fn load(listeners: &[Listener], metrics: &NodeMetrics) -> Result<Vec<Option<Acceptor>>, CredentialError> {
    let configs = configs(listeners, metrics)?;
    Ok(configs.into_iter().map(|config| config.map(Acceptor::new)).collect())
}

/// Sessions from now on begin with these; open ones are as they were.
pub(super) fn replace(acceptors: &[Option<Acceptor>], configs: Vec<Option<ServerConfig>>) {
    for (acceptor, config) in acceptors.iter().zip(configs) {
        if let (Some(acceptor), Some(config)) = (acceptor, config) {
            acceptor.replace(config);
        }
    }
}

/// What stands in the files of all listeners now.
///
/// # Errors
/// As [`load`].
pub(super) fn configs(
    listeners: &[Listener],
    metrics: &NodeMetrics,
) -> Result<Vec<Option<ServerConfig>>, CredentialError> {
    let mut ends = BTreeSet::new();
    let mut config = |listener: &Listener| {
        let files = listener.tls.as_ref();
        files.map(|files| config(listener, files, &mut ends)).transpose()
    };
    let configs = listeners.iter().map(&mut config).collect::<Result<_, _>>()?;
    metrics.set_certificates(ends.into_iter().collect());
    Ok(configs)
}

fn config(
    listener: &Listener,
    files: &TlsFiles,
    ends: &mut BTreeSet<CertificateEnd>,
) -> Result<ServerConfig, CredentialError> {
    let fault = |what: String| CredentialError(format!("TLS of {}: {what}", listener.address));
    let pem = |path: &std::path::Path| {
        read_at_most(path, PEM_FILE_BYTES_MAX).map_err(|what| fault(format!("{path:?}: {what}")))
    };
    let certificates = files.certificates.iter().map(|files| {
        let (chain, key) = (pem(&files.certificate)?, pem(&files.key)?);
        let certificate =
            Certificate::from_pem(&chain, &key).map_err(|error| fault(format!("{:?}: {error}", files.certificate)))?;
        let file = files.certificate.display().to_string();
        ends.extend(certificate.ends_at().map(|unix_s| CertificateEnd { file, unix_s }));
        Ok(certificate)
    });
    let certificates = Certificates::new(certificates.collect::<Result<_, _>>()?);
    let roots = match &files.client_ca {
        None => None,
        Some(path) => {
            let roots = authorities(&pem(path)?).map_err(|error| fault(format!("{path:?}: {error}")))?;
            Some(Arc::new(roots))
        }
    };
    let clients = match (files.client_certificates, roots) {
        (ClientCertificates::None, _) | (_, None) => ClientAuth::None,
        (ClientCertificates::Optional, Some(roots)) => ClientAuth::Optional(roots),
        (ClientCertificates::Required, Some(roots)) => ClientAuth::Required(roots),
    };
    server_config(certificates, clients).map_err(|error| fault(error.to_string()))
}
