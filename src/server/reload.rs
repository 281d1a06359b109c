//! What SIGHUP has the server read again: files that the configuration names, each from the same path as at the start. The
//! configuration itself is not read again.
//!
//! Each kind of file is taken as a whole or not at all: a fault leaves what was in force, and one line says which file and
//! why. Open connections keep what they have. A thread of its own reads: a disk that hangs keeps nobody from ending the
//! server.

use std::io;
use std::sync::Arc;

use crossbeam_channel::{Sender, bounded};

use super::supervisor::Supervisor;
use super::{auth, tls, webhook};
use crate::auth::ApiKeys;
use crate::config;
use crate::control::Tokens;
use crate::current::Current;
use crate::metrics::NodeMetrics;
use crate::reactor::{Keyring, PostOffice};
use crate::tls::Acceptor;
use crate::webhook::SigningSecret;

/// What is read again, and who is told.
pub(super) struct Reloads {
    pub(super) auth: config::Auth,
    /// Where tokens are asked for.
    pub(super) keyring: Option<Keyring>,
    /// What tokens of the console are made with.
    pub(super) tokens: Current<Tokens>,
    pub(super) api: config::Api,
    pub(super) api_keys: Current<ApiKeys>,
    pub(super) webhook: Vec<config::Webhook>,
    /// What requests to the receivers of webhooks are signed with, where there are some.
    pub(super) webhook_secrets: Option<Current<Vec<SigningSecret>>>,
    pub(super) post: PostOffice,
    pub(super) listeners: Vec<config::Listener>,
    /// What TLS sessions begin with, by listener.
    pub(super) acceptors: Vec<Option<Acceptor>>,
    pub(super) supervisor: Supervisor,
    /// Is told of certificates.
    pub(super) metrics: Arc<NodeMetrics>,
}

impl Reloads {
    /// Starts the thread, which reads once for each request that it gets. One may wait while it reads: with another it would
    /// read the same twice.
    ///
    /// # Errors
    /// The operating system gives no thread.
    pub(super) fn start(self) -> io::Result<Sender<()>> {
        let (sender, requests) = bounded(1);
        let body = move || requests.iter().for_each(|()| self.read_all());
        std::thread::Builder::new().name("reload".into()).spawn(body)?;
        Ok(sender)
    }

    fn read_all(&self) {
        self.supervisor.reloading();
        self.keys();
        self.api_keys();
        self.webhook_secrets();
        self.certificates();
        self.supervisor.serving("serving; read files again");
    }

    fn keys(&self) {
        let Some(keyring) = &self.keyring else { return };
        match auth::keys(&self.auth).and_then(|keys| Ok((keys, auth::tokens(&self.auth)?))) {
            Ok((keys, tokens)) => {
                tracing::info!(keys = keys.len(), "read the keys for tokens again");
                keyring.configured(keys, &self.post);
                self.tokens.replace(tokens);
            }
            Err(error) => tracing::error!(%error, "cannot read the keys for tokens again: the ones before stay"),
        }
    }

    fn api_keys(&self) {
        if self.api.key.is_empty() {
            return;
        }
        match auth::api_keys(&self.api) {
            Ok(keys) => {
                tracing::info!(keys = self.api.key.len(), "read the keys of programs again");
                self.api_keys.replace(keys);
            }
            Err(error) => tracing::error!(%error, "cannot read the keys of programs again: the ones before stay"),
        }
    }

    fn webhook_secrets(&self) {
        let Some(secrets) = &self.webhook_secrets else { return };
        match webhook::secrets(&self.webhook) {
            Ok(read) => {
                tracing::info!(secrets = read.len(), "read the secrets of webhooks again");
                secrets.replace(read);
            }
            Err(error) => tracing::error!(%error, "cannot read the secrets of webhooks again: the ones before stay"),
        }
    }

    fn certificates(&self) {
        let secured = self.acceptors.iter().flatten().count();
        if secured == 0 {
            return;
        }
        match tls::reload(&self.listeners, &self.acceptors, &self.metrics) {
            Ok(()) => {
                tracing::info!(listeners = secured, "read the certificates again: new connections are shown them")
            }
            Err(error) => tracing::error!(%error, "cannot read the certificates again: the ones before stay"),
        }
    }
}
