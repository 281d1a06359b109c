//! The key set behind a URL: fetched when `auth::KeyRefresh` says so. The last good set stays, whatever the URL does.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::{Request, Uri, header};
use tokio::sync::mpsc;

use super::client::{Client, place};
use crate::auth::{Key, KeyRefresh, Want, key_set};
use crate::limits::KEY_SET_BYTES_MAX;
use crate::metrics::{BackendMetrics, Fetch};
use crate::reactor::{Keyring, KeysOutcome, KeysWanted, PostOffice};

pub(super) struct KeySource {
    pub(super) client: Client,
    pub(super) url: Uri,
    pub(super) every: Duration,
    pub(super) keyring: Keyring,
    pub(super) post: PostOffice,
    pub(super) metrics: Arc<BackendMetrics>,
}

impl KeySource {
    /// Fetches until the last reactor is gone. `wants` tells of reactors with a token whose key is not here.
    pub(super) async fn run(self, mut wants: mpsc::UnboundedReceiver<KeysWanted>) {
        let started = Instant::now();
        let now_ms = || u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let every_ms = u64::try_from(self.every.as_millis()).unwrap_or(u64::MAX);
        let mut refresh = KeyRefresh::new(every_ms, now_ms());
        let mut waiting = Vec::new();
        loop {
            let now = now_ms();
            if refresh.due_at() <= now {
                let is_good = self.fetch_and_keep().await;
                refresh.ended(now_ms(), is_good, |most| fastrand::u64(0..=most));
                // Those who came meanwhile have waited for the same.
                waiting.extend(std::iter::from_fn(|| wants.try_recv().ok()).map(|wanted| wanted.reactor));
                waiting.drain(..).for_each(|reactor| self.post.keys_settled(reactor, outcome(&refresh)));
                continue;
            }
            let due = Duration::from_millis(refresh.due_at() - now);
            match tokio::time::timeout(due, wants.recv()).await {
                // Newer ones than it knew of are on their way to it.
                Ok(Some(wanted)) if wanted.generation < self.keyring.fetched_generation() => {
                    self.post.keys_settled(wanted.reactor, KeysOutcome::Newest);
                }
                Ok(Some(wanted)) => match refresh.want(now_ms()) {
                    Want::Wait => waiting.push(wanted.reactor),
                    Want::Settled => self.post.keys_settled(wanted.reactor, outcome(&refresh)),
                },
                Ok(None) => return,
                Err(_) => {}
            }
        }
    }

    /// Whether there was a good set.
    async fn fetch_and_keep(&self) -> bool {
        match self.fetch().await {
            Ok((keys, skipped)) => {
                tracing::debug!(url = place(&self.url), keys = keys.len(), skipped, "fetched the key set");
                self.keyring.fetched(keys, &self.post);
                self.metrics.fetches.count(Fetch::Good);
                true
            }
            Err((fetch, error)) => {
                let url = place(&self.url);
                tracing::warn!(url, error, "auth.jwks_url brought no keys: those of the last time stay");
                self.metrics.fetches.count(fetch);
                false
            }
        }
    }

    async fn fetch(&self) -> Result<(Vec<Key>, usize), (Fetch, String)> {
        let request =
            Request::get(self.url.clone()).header(header::ACCEPT, "application/json, application/jwk-set+json");
        let request = request.body(Full::<Bytes>::default()).map_err(|error| (Fetch::Failed, error.to_string()))?;
        let answer = self.client.send(request, KEY_SET_BYTES_MAX).await;
        let answer = answer.map_err(|error| (Fetch::Failed, error.to_string()))?;
        if answer.status != 200 {
            return Err((Fetch::Failed, format!("it answered {}, not 200", answer.status)));
        }
        let set = key_set(&answer.body).map_err(|error| (Fetch::Unusable, error.to_string()))?;
        Ok((set.keys, set.skipped))
    }
}

/// What is known of the URL's keys where none are fetched any more for whoever asks.
fn outcome(refresh: &KeyRefresh) -> KeysOutcome {
    if refresh.is_good() { KeysOutcome::Newest } else { KeysOutcome::Unavailable }
}
