//! One question to the backend, from the cache or by a request, within its time.

use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use futures_util::future::{Either, select};
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{HeaderName, HeaderValue};
use hyper::{Request, Uri, header};

use super::Withdrawn;
use super::cache::{Cache, QuestionKey, key_of};
use super::client::{Client, place};
use super::places::{Place, Places};
use crate::auth::{Decision, Denial, Question};
use crate::config;
use crate::limits::DECISION_KEPT_BYTES_MAX;
use crate::metrics::{About, Answered, BackendMetrics};
use crate::reactor::{Inquiry, PostOffice, Token};

/// Asks questions. Clones share what is kept and how much may be under way.
#[derive(Clone)]
pub(super) struct Asking(Arc<Shared>);

struct Shared {
    client: Client,
    connect_url: Option<Uri>,
    join_url: Option<Uri>,
    under_way: Places,
    cache: Mutex<Cache>,
    post: PostOffice,
    metrics: Arc<BackendMetrics>,
}

impl Asking {
    pub(super) fn new(
        client: Client,
        settings: &config::Auth,
        post: PostOffice,
        metrics: Arc<BackendMetrics>,
    ) -> Asking {
        Asking(Arc::new(Shared {
            client,
            connect_url: settings.connect_url.uri().cloned(),
            join_url: settings.join_url.uri().cloned(),
            under_way: Places::new(settings.url_concurrency),
            cache: Mutex::new(Cache::new(settings.url_cache)),
            post,
            metrics,
        }))
    }

    /// Finds the decision and sends it to who waits for it, if that is still there. It takes `auth.url_timeout` at most, the
    /// wait for others included.
    pub(super) async fn answer(&self, inquiry: Inquiry, withdrawn: Withdrawn) {
        let shared = &*self.0;
        let asker = inquiry.asker;
        let (about, setting, url) = match &inquiry.question {
            Question::Connect(_) => (About::Connect, "auth.connect_url", &shared.connect_url),
            Question::Join { .. } => (About::Join, "auth.join_url", &shared.join_url),
        };
        let decided = match url {
            Some(url) => self.decide(about, url, inquiry, withdrawn).await,
            None => Err("it is not configured".to_owned().into()),
        };
        let decision = match decided {
            Ok(decision) => decision,
            Err(Undecided::Withdrawn) => return shared.metrics.answers.count(about, Answered::Withdrawn),
            Err(Undecided::Fault(error)) => {
                let url = url.as_ref().map(place);
                tracing::warn!(url, error, "{setting} has decided nothing: who asked is refused");
                shared.metrics.answers.count(about, Answered::Unavailable);
                Decision::Denied(Denial::Unavailable)
            }
        };
        shared.post.decided(asker, decision);
    }

    async fn decide(
        &self,
        about: About,
        url: &Uri,
        inquiry: Inquiry,
        withdrawn: Withdrawn,
    ) -> Result<Decision, Undecided> {
        let shared = &*self.0;
        let body = inquiry.question.body();
        let key = key_of_inquiry(url, &inquiry, &body);
        if let Some(decision) = self.with_cache(|cache, now| cache.find(&key, now)) {
            shared.metrics.answers.count(about, Answered::Cached);
            return Ok(decision);
        }
        let is_nameless = is_nameless(&inquiry);
        let Inquiry { question, token, forwarded, auth, is_open, asker: _ } = inquiry;
        let request = request(url, body, token.as_ref(), &forwarded.0)?;
        let until = Instant::now() + shared.client.timeout();
        let _place = self.turn(is_open, withdrawn).await?;
        // What is sent is not broken off where its connection goes: the service would work on, beside the next one.
        let answered = shared.client.send(request, question.answer_bytes_max());
        let answer = tokio::time::timeout_at(until.into(), answered).await;
        let answer = answer.map_err(|_| "there was no decision within auth.url_timeout".to_owned())?;
        let answer = answer.map_err(|error| error.to_string())?;
        let decision = question.read(&auth, answer.status, &answer.body).map_err(|fault| fault.to_string())?;
        let is_shared = !(is_nameless && matches!(decision, Decision::Grant(_)));
        if is_shared && answer.body.len() <= DECISION_KEPT_BYTES_MAX {
            self.with_cache(|cache, now| cache.keep(key, &decision, now));
        }
        let is_allowed = match &decision {
            Decision::Grant(_) => true,
            Decision::Rooms(rooms) => rooms.iter().all(|room| room.allow),
            Decision::Denied(_) => false,
        };
        shared.metrics.answers.count(about, if is_allowed { Answered::Allowed } else { Answered::Refused });
        Ok(decision)
    }

    /// A place among the requests under way. The wait for it is over after half of `auth.url_timeout`: the request has the
    /// other half at least, so that under a storm what is sent has the time to be answered.
    async fn turn(&self, is_open: bool, withdrawn: Withdrawn) -> Result<Place, Undecided> {
        let shared = &*self.0;
        let place = pin!(shared.under_way.take(is_open));
        match tokio::time::timeout(shared.client.timeout() / 2, select(withdrawn, place)).await {
            Ok(Either::Left(_)) => Err(Undecided::Withdrawn),
            Ok(Either::Right((place, _))) => Ok(place),
            Err(_) => Err("its turn did not come within half of auth.url_timeout".to_owned().into()),
        }
    }

    fn with_cache<T>(&self, with: impl FnOnce(&mut Cache, Instant) -> T) -> T {
        with(&mut self.0.cache.lock().unwrap_or_else(PoisonError::into_inner), Instant::now())
    }
}

/// Why there is no decision.
enum Undecided {
    /// The connection that asked is gone.
    Withdrawn,
    /// What is wrong, without anything that was asked or answered.
    Fault(String),
}

impl From<String> for Undecided {
    fn from(fault: String) -> Undecided {
        Undecided::Fault(fault)
    }
}

fn request(
    url: &Uri,
    body: Vec<u8>,
    token: Option<&Token>,
    forwarded: &[(String, Vec<u8>)],
) -> Result<Request<Full<Bytes>>, String> {
    let mut request = Request::post(url.clone())
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::ACCEPT, "application/json");
    let fields = request.headers_mut().ok_or("the request cannot be made")?;
    for (name, value) in forwarded {
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|error| error.to_string())?;
        fields.append(name, secret(value)?);
    }
    if let Some(token) = token {
        fields.insert(header::AUTHORIZATION, secret(format!("Bearer {}", token.0).as_bytes())?);
    }
    request.body(Full::new(Bytes::from(body))).map_err(|error| error.to_string())
}

/// Whether nothing in a question tells one visitor from another: a grant is then this visitor's alone, such as a guest's
/// fresh user id.
fn is_nameless(inquiry: &Inquiry) -> bool {
    match &inquiry.question {
        Question::Connect(visitor) => {
            visitor.certificate_user.is_none() && inquiry.token.is_none() && inquiry.forwarded.0.is_empty()
        }
        Question::Join { .. } => false,
    }
}

fn key_of_inquiry(url: &Uri, inquiry: &Inquiry, body: &[u8]) -> QuestionKey {
    let url = url.to_string();
    let token = inquiry.token.as_ref().map_or("", |token| &token.0);
    let fields = inquiry.forwarded.0.iter().flat_map(|(name, value)| [name.as_bytes(), value]);
    key_of([url.as_bytes(), body, token.as_bytes()].into_iter().chain(fields))
}

/// A field's value that no log shows.
fn secret(value: &[u8]) -> Result<HeaderValue, String> {
    let mut value = HeaderValue::from_bytes(value).map_err(|_| "a header field cannot be passed on".to_owned())?;
    value.set_sensitive(true);
    Ok(value)
}
