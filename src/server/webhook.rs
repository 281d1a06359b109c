//! Webhooks as the configuration names them: secrets and certificate authorities are read here.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use crossbeam_channel::Receiver;

use super::auth::secret_at;
use super::credential_error::CredentialError;
use crate::backend::Authorities;
use crate::config::{self, Config};
use crate::current::Current;
use crate::metrics::WebhookMetrics;
use crate::reactor::{Mailbox, NodeState};
use crate::router::Watched;
use crate::webhook::{self, EventName, ReceiverSettings, SigningSecret, WebhookCluster, WebhookSettings, WebhookWaker};

/// Shortest secret that nobody guesses, in bytes.
const SECRET_BYTES_GOOD: usize = 32;

/// What the webhooks' thread needs before it is there; without a webhook there is none.
pub(super) struct Webhooks {
    pub(super) watched: Watched,
    pub(super) metrics: Arc<WebhookMetrics>,
    pub(super) secrets: Current<Vec<SigningSecret>>,
    receivers: Vec<ReceiverSettings>,
    queue_max: usize,
    directory: String,
    cluster: Option<WebhookCluster>,
}

impl Webhooks {
    /// Reads the files that the configuration names.
    ///
    /// # Errors
    ///
    /// A file that cannot be read, or is not what it should be.
    pub(super) fn new(config: &Config) -> Result<Option<Webhooks>, CredentialError> {
        if config.webhook.is_empty() {
            return Ok(None);
        }
        let secrets = Current::new(secrets(&config.webhook)?);
        let receivers = config.webhook.iter().map(receiver).collect::<Result<Vec<_>, _>>()?;
        let (mut rooms, mut inboxes) = (false, false);
        for event in receivers.iter().flat_map(|receiver| &receiver.events) {
            match event {
                EventName::RoomOccupied | EventName::RoomVacated => rooms = true,
                EventName::UserOnline | EventName::UserOffline => inboxes = true,
            }
        }
        let cluster = config.redis.url.address().map(|address| WebhookCluster {
            address: address.clone(),
            tls_ca: config.redis.tls_ca.clone(),
            prefix: config.redis.prefix.clone(),
        });
        Ok(Some(Webhooks {
            watched: Watched { rooms, inboxes },
            metrics: Arc::default(),
            secrets,
            receivers,
            queue_max: config.webhooks.queue_max,
            directory: config.webhooks.directory.clone(),
            cluster,
        }))
    }

    /// Starts the thread, whose mailbox is the last one.
    ///
    /// # Errors
    ///
    /// As [`webhook::spawn`].
    pub(super) fn start(
        self,
        mailboxes: &mut Vec<Mailbox>,
        waker: Arc<WebhookWaker>,
        started: Instant,
        state: &NodeState,
    ) -> io::Result<Receiver<()>> {
        let mailbox = mailboxes.pop().expect("the last is that of webhooks");
        let (run, codec) = (state.run, state.codec.clone());
        let Webhooks { watched: _, metrics, secrets, receivers, queue_max, directory, cluster } = self;
        let settings = WebhookSettings { receivers, secrets, queue_max, directory, cluster, run, codec };
        webhook::spawn(settings, mailbox, waker, metrics, started)
    }
}

/// What requests to each receiver are signed with.
///
/// # Errors
///
/// A file that cannot be read, or holds no secret.
pub fn secrets(webhooks: &[config::Webhook]) -> Result<Vec<SigningSecret>, CredentialError> {
    webhooks.iter().map(secret).collect()
}

fn secret(webhook: &config::Webhook) -> Result<SigningSecret, CredentialError> {
    let (secret, name) = secret_at(&webhook.secret, &webhook.place, "webhook")?;
    if secret.is_empty() {
        return Err(CredentialError(format!("{name}there is no secret in it")));
    }
    if secret.len() < SECRET_BYTES_GOOD {
        let place = &webhook.place;
        tracing::warn!(place, "a webhook's secret may be guessed: make one with `openssl rand -base64 48`");
    }
    Ok(SigningSecret::new(&secret))
}

fn receiver(webhook: &config::Webhook) -> Result<ReceiverSettings, CredentialError> {
    let wrong = |what: String| CredentialError(format!("{}: webhook.{what}", webhook.place));
    let authorities = match &*webhook.ca {
        _ if !webhook.is_tls() => Authorities::none(),
        "" => Authorities::of_system(),
        path => Authorities::from_file(path).map_err(|what| wrong(format!("ca: {path:?} {what}")))?,
    };
    let named = |(word, name): &(&'static str, EventName)| webhook.events.contains(word).then_some(*name);
    Ok(ReceiverSettings {
        url: webhook.url.uri().cloned().ok_or_else(|| wrong("url: there is none".to_owned()))?,
        events: EventName::ALL.iter().filter_map(named).collect(),
        rooms: webhook.rooms.clone(),
        authorities,
        timeout: webhook.timeout,
        concurrency: webhook.concurrency,
    })
}
