//! What SIGHUP and `fanfare reload` have the server read again: the configuration, from the same file, environment and flags
//! as at the start, and the files that it names.
//!
//! All of it is read and made before anything changes: a fault anywhere leaves what was in force, and one line says what and
//! where. What a running server cannot change is named, and left as it was. Open connections keep what they were granted. A
//! thread of its own reads: a disk that hangs keeps nobody from ending the server.

use std::fmt::Display;
use std::io;
use std::sync::Arc;

use crossbeam_channel::Receiver;
use rustls::ServerConfig;

use super::settings::{ms, settings};
use super::supervisor::Supervisor;
use super::{auth, log, memory, tls, webhook};
use crate::auth::{ApiKeys, Key};
use crate::config::{self, Changes, Config, ConfigError, Effective};
use crate::control::{ReloadRequest, Reloaded, Tokens};
use crate::current::Current;
use crate::descriptors;
use crate::metrics::NodeMetrics;
use crate::reactor::{Gate, Keyring, PostOffice};
use crate::tls::Acceptor;
use crate::webhook::SigningSecret;

/// Loads the configuration from where the one in force came from.
pub type Reread = Box<dyn Fn() -> Result<(Config, Effective), ConfigError> + Send>;

/// What is read again, and who is told.
pub(super) struct Reloads {
    pub(super) reread: Reread,
    /// The configuration in force.
    pub(super) running: Effective,
    /// Descriptors of the process, and those of the node's own.
    pub(super) descriptors: (u64, u64),
    /// Who gets in.
    pub(super) gate: Gate,
    /// Where tokens are asked for.
    pub(super) keyring: Option<Keyring>,
    /// What tokens of the console are made with.
    pub(super) tokens: Current<Tokens>,
    pub(super) api_keys: Current<ApiKeys>,
    /// What requests to the receivers of webhooks are signed with, where there are some.
    pub(super) webhook_secrets: Option<Current<Vec<SigningSecret>>>,
    pub(super) post: PostOffice,
    /// What TLS sessions begin with, by listener.
    pub(super) acceptors: Vec<Option<Acceptor>>,
    pub(super) drain: Current<config::Drain>,
    pub(super) memory_max: Current<u64>,
    pub(super) supervisor: Supervisor,
    /// Is told of certificates.
    pub(super) metrics: Arc<NodeMetrics>,
}

/// What a configuration comes to, before it is in force.
struct Prepared {
    keys: Vec<Key>,
    tokens: Tokens,
    api_keys: ApiKeys,
    webhook_secrets: Vec<SigningSecret>,
    certificates: Vec<Option<ServerConfig>>,
}

impl Reloads {
    /// Starts the thread, which reads once for each request.
    ///
    /// # Errors
    /// The operating system gives no thread.
    pub(super) fn start(mut self, requests: Receiver<ReloadRequest>) -> io::Result<()> {
        let body = move || {
            for ReloadRequest { answer } in requests {
                self.supervisor.reloading();
                let outcome = self.reload();
                self.supervisor.serving(match &outcome {
                    Ok(_) => "serving, with the configuration that was read last",
                    Err(_) => "serving; the last reload has failed, and has changed nothing: see the log",
                });
                if let Some(answer) = answer {
                    // Who has asked may have gone.
                    let _ = answer.send(outcome);
                }
            }
        };
        std::thread::Builder::new().name("reload".into()).spawn(body).map(drop)
    }

    fn reload(&mut self) -> Result<Reloaded, String> {
        let read =
            (self.reread)().map(|(_, read)| read).map_err(told("the configuration again: the one before stays"))?;
        let (config, effective, changes) = Config::reloaded(&self.running, &read);
        let prepared = self.prepare(&config)?;
        self.apply(&config, prepared, &changes);
        self.running = effective;
        let Changes { applied, left } = changes;
        tracing::info!(changed = applied.join(", "), "read the configuration again");
        if !left.is_empty() {
            tracing::warn!(settings = left.join(", "), "what has changed here needs a restart: it is left as it was");
        }
        Ok(Reloaded { applied, needs_restart: left })
    }

    /// Reads the files that the configuration names.
    fn prepare(&self, config: &Config) -> Result<Prepared, String> {
        let keys_and_tokens = auth::keys(&config.auth).and_then(|keys| Ok((keys, auth::tokens(&config.auth)?)));
        let (keys, tokens) = keys_and_tokens.map_err(told("the keys for tokens again: the ones before stay"))?;
        let api_keys = auth::api_keys(&config.api).map_err(told("the keys of programs again: the ones before stay"))?;
        let webhook_secrets =
            webhook::secrets(&config.webhook).map_err(told("the secrets of webhooks again: the ones before stay"))?;
        // The last, since the metrics tell of them from here on.
        let certificates = tls::configs(&config.listeners, &self.metrics)
            .map_err(told("the certificates again: the ones before stay"))?;
        Ok(Prepared { keys, tokens, api_keys, webhook_secrets, certificates })
    }

    fn apply(&mut self, config: &Config, prepared: Prepared, changes: &Changes) {
        let Prepared { keys, tokens, api_keys, webhook_secrets, certificates } = prepared;
        if let Some(keyring) = &self.keyring {
            tracing::info!(keys = keys.len(), "read the keys for tokens again");
            keyring.configured(auth::settings(&config.auth), keys, &self.post);
            self.tokens.replace(tokens);
        }
        if !config.api.key.is_empty() || changes.applied.contains(&config::API_KEY.name) {
            tracing::info!(keys = config.api.key.len(), "read the keys of programs again");
            self.api_keys.replace(api_keys);
        }
        if let Some(secrets) = &self.webhook_secrets {
            tracing::info!(secrets = webhook_secrets.len(), "read the secrets of webhooks again");
            secrets.replace(webhook_secrets);
        }
        let secured = self.acceptors.iter().flatten().count();
        if secured > 0 {
            tls::replace(&self.acceptors, certificates);
            tracing::info!(listeners = secured, "read the certificates again: new connections are shown them");
        }
        if changes.applied.is_empty() {
            return;
        }
        log::set_level(config.log_level);
        self.drain.replace(config.drain.clone());
        self.memory_max.replace(memory::bytes_max(config.limits.memory_max));
        self.gate.echo = auth::echo_paths(config);
        self.gate.origins = auth::origins(&config.auth).map(Arc::new);
        self.gate.expiring_before_ms = ms(config.auth.expiring_before);
        if let Some(addresses) = &self.gate.addresses {
            addresses.set_limits(auth::address_limits(&config.address));
        }
        let (descriptors, own) = self.descriptors;
        let shares = descriptors::divide(descriptors, own, config.limits.connections_max as u64);
        self.post.settings(&settings(config, shares, self.gate.clone()));
    }
}

/// Logs that something cannot be read, and gives the error's text on.
fn told<E: Display>(what: &'static str) -> impl FnOnce(E) -> String {
    move |error| {
        tracing::error!(%error, "cannot read {what}");
        error.to_string()
    }
}
