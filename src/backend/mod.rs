//! The team's own services, as `[auth]` names them: the backend that decides about connections and joins, and the key set
//! behind a URL.
//!
//! Owns the thread `backend`, its HTTP client, what is kept of decisions, and the fetching of keys. What is asked, what an
//! answer means, and when keys are fetched is decided in `auth`. URLs come from the configuration alone; redirects are not
//! followed. Whatever a service does, a reactor waits for nothing but mail: an answer that does not come in time, is too
//! long or not understood is a denial, and the keys that are here stay.
//!
//! ```text
//!   reactors ─ ask ───────► one task a question: cache ─► url_concurrency ─► POST ─► decision ─► mailbox
//!   reactors ─ want_keys ─► one loop: due? ─► GET ─► keyring ─► mailboxes
//! ```
//!
//! Webhooks have the same client. May import `config`, `reactor`, `auth`, `metrics`, `limits`.

mod asking;
mod cache;
mod client;
mod keys;
mod places;

use std::convert::Infallible;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use asking::Asking;
pub use client::{Answer, Authorities, Client, RequestError, place};
use futures_util::future::join;
use keys::KeySource;
use places::{Place, Places};
use tokio::sync::{mpsc, oneshot};

use crate::config;
use crate::limits::QUESTIONS_MAX;
use crate::metrics::BackendMetrics;
use crate::reactor::{Backend, BackendAccess, Inquiry, Keyring, KeysWanted, PostOffice, Ticket};

/// Threads that look up the addresses of hosts.
const LOOKUPS_MAX: usize = 2;

/// What reactors ask, and the thread that asks in their place before it runs.
#[derive(Debug)]
pub struct Desk {
    questions: mpsc::UnboundedReceiver<Asked>,
    wants: mpsc::UnboundedReceiver<KeysWanted>,
    client: Client,
    settings: config::Auth,
    metrics: Arc<BackendMetrics>,
}

/// A question with its place among those that there may be.
#[derive(Debug)]
struct Asked {
    inquiry: Inquiry,
    place: Place,
    withdrawn: Withdrawn,
}

/// Ends when the connection has dropped its [`Ticket`].
type Withdrawn = oneshot::Receiver<Infallible>;

/// The reactors' end.
struct Handle {
    places: Places,
    // As many wait in it as there are places.
    questions: mpsc::UnboundedSender<Asked>,
    // Each reactor has one in it at most.
    wants: mpsc::UnboundedSender<KeysWanted>,
    metrics: Arc<BackendMetrics>,
}

impl Backend for Handle {
    fn ask(&self, inquiry: Inquiry) -> Option<Ticket> {
        let Some(place) = self.places.try_take(inquiry.is_open) else {
            self.metrics.count_crowded();
            return None;
        };
        let (held, withdrawn) = oneshot::channel();
        self.questions.send(Asked { inquiry, place, withdrawn }).ok()?;
        Some(Ticket::new(held))
    }

    fn want_keys(&self, wanted: KeysWanted) {
        // The thread ends with the process alone.
        let _ = self.wants.send(wanted);
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Handle")
    }
}

/// What reactors ask by, and the thread to be; `None` where no URL is configured.
pub fn prepare(
    config: &config::Auth,
    authorities: Authorities,
    metrics: Arc<BackendMetrics>,
) -> Option<(BackendAccess, Desk)> {
    if !config.has_urls() {
        return None;
    }
    let (questions, asked) = mpsc::unbounded_channel();
    let (wants, wanted) = mpsc::unbounded_channel();
    let places = Places::new(QUESTIONS_MAX);
    let access = BackendAccess {
        backend: Arc::new(Handle { places, questions, wants, metrics: metrics.clone() }),
        decides_connects: config.connect_url.is_set(),
        decides_joins: config.join_url.is_set(),
        has_keys: config.jwks_url.is_set(),
        forward: config.forward_headers.iter().map(|name| name.as_str().to_owned()).collect(),
    };
    let client = Client::new(authorities, config.url_concurrency, config.url_timeout);
    Some((access, Desk { questions: asked, wants: wanted, client, settings: config.clone(), metrics }))
}

impl Desk {
    /// Starts the thread, which ends with the process.
    ///
    /// # Errors
    /// Where a thread or its event loop cannot be made.
    pub fn start(self, post: PostOffice, keyring: Keyring) -> io::Result<()> {
        let runtime =
            tokio::runtime::Builder::new_current_thread().max_blocking_threads(LOOKUPS_MAX).enable_all().build()?;
        let body = move || runtime.block_on(self.run(post, keyring));
        std::thread::Builder::new().name("backend".into()).spawn(body).map(drop)
    }

    async fn run(self, post: PostOffice, keyring: Keyring) {
        let Desk { mut questions, wants, client, settings, metrics } = self;
        let asking = Asking::new(client.clone(), &settings, post.clone(), metrics.clone());
        let answer = async move {
            while let Some(Asked { inquiry, place, withdrawn }) = questions.recv().await {
                let asking = asking.clone();
                tokio::spawn(async move {
                    asking.answer(inquiry, withdrawn).await;
                    drop(place);
                });
            }
        };
        let fetch = async move {
            if let Some(url) = settings.jwks_url.uri() {
                let every: Duration = settings.jwks_refresh;
                KeySource { client, url: url.clone(), every, keyring, post, metrics }.run(wants).await;
            }
        };
        join(answer, fetch).await;
    }
}
