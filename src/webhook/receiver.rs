//! One receiver: what it is sent, and the requests to it.

use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::{Request, Uri, header};

use super::event::{Event, EventName, Subject};
use super::queue::Queue;
use super::signature::{SIGNATURE_FIELD, SigningSecret};
use crate::backend::{Authorities, Client, place};
use crate::config::Pattern;
use crate::limits::{WEBHOOK_ANSWER_BYTES_MAX, WEBHOOK_WARNING_MS};
use crate::metrics::Request as Counted;
use crate::time::Millis;

/// What there is to know of a receiver.
#[derive(Debug)]
pub struct ReceiverSettings {
    /// Where it is.
    pub url: Uri,
    /// Events that it is sent.
    pub events: Vec<EventName>,
    /// Rooms whose events it is sent.
    pub rooms: Vec<Pattern>,
    /// Which certificates it is believed by.
    pub authorities: Authorities,
    /// Time it has to answer.
    pub timeout: Duration,
    /// Requests under way at once, at least one.
    pub concurrency: usize,
}

/// See the module's documentation.
pub(super) struct Receiver {
    url: Uri,
    events: Vec<EventName>,
    rooms: Vec<Pattern>,
    client: Client,
    pub(super) queue: Queue,
    warned_at: Option<Millis>,
}

impl Receiver {
    pub(super) fn new(settings: ReceiverSettings) -> Receiver {
        let ReceiverSettings { url, events, rooms, authorities, timeout, concurrency } = settings;
        let client = Client::new(authorities, concurrency, timeout);
        Receiver { url, events, rooms, client, queue: Queue::new(concurrency), warned_at: None }
    }

    /// Whether it is sent this event.
    pub(super) fn wants(&self, event: &Event) -> bool {
        self.events.contains(&event.name()) && self.is_about(&event.subject)
    }

    /// Whether it is sent anything of this subject.
    pub(super) fn is_about(&self, subject: &Subject) -> bool {
        let is_event =
            [true, false].into_iter().any(|is_present| self.events.contains(&subject.event_name(is_present)));
        is_event && subject.room().is_none_or(|room| self.rooms.iter().any(|rooms| rooms.matches(&room)))
    }

    /// A request with this body, to be awaited: how it ended, and what is wrong if something is.
    pub(super) fn send(
        &self,
        body: &Arc<[u8]>,
        secret: &SigningSecret,
        time_unix_ms: u64,
    ) -> impl Future<Output = (Counted, Option<String>)> + use<> {
        let signature = secret.sign(time_unix_ms, body);
        let request = Request::post(self.url.clone())
            .header(header::CONTENT_TYPE, "application/json")
            .header(SIGNATURE_FIELD, signature)
            .header(header::USER_AGENT, concat!("fanfare/", env!("CARGO_PKG_VERSION")))
            .body(Full::new(Bytes::from_owner(body.clone())));
        let client = self.client.clone();
        async move {
            let request = match request {
                Ok(request) => request,
                Err(error) => return (Counted::Unanswered, Some(error.to_string())),
            };
            match client.send(request, WEBHOOK_ANSWER_BYTES_MAX).await {
                Ok(answer) if (200..300).contains(&answer.status) => (Counted::Delivered, None),
                Ok(answer) => (Counted::Refused, Some(format!("it answered {}, not 2xx", answer.status))),
                Err(error) => (Counted::Unanswered, Some(error.to_string())),
            }
        }
    }

    /// Says from time to time that events wait, and why.
    pub(super) fn warn(&mut self, error: &str, now: Millis) {
        if self.warned_at.is_some_and(|at| now.since(at) < WEBHOOK_WARNING_MS) {
            return;
        }
        self.warned_at = Some(now);
        let (url, waiting) = (place(&self.url), self.queue.len());
        tracing::warn!(url, error, waiting, "a webhook's receiver has not taken events: they are sent again");
    }

    /// Says that events are lost to the receiver.
    pub(super) fn warn_of_loss(&self, count: usize) {
        let url = place(&self.url);
        tracing::error!(url, count, "a webhook's receiver has not taken events for five minutes: they are given up");
    }
}
