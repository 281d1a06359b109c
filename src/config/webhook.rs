//! Receivers of events: where they are, what they are sent.

use std::time::Duration;

use super::api::SecretPlace;
use super::effective::Effective;
use super::error::Problem;
use super::http_url::HttpUrl;
use super::pattern::Pattern;
use super::table::{WEBHOOK, WEBHOOK_URL};
use super::values::Values;
use crate::limits::WEBHOOKS_MAX;

const SECRET: &str = "webhook.secret";
const SECRET_FILE: &str = "webhook.secret_file";
const EVENTS: &str = "webhook.events";

/// A receiver of events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Webhook {
    /// Where it is written, for messages: `file f.toml:3`.
    pub place: String,
    /// Where it is; set always.
    pub url: HttpUrl,
    /// What requests are signed with, or where that is.
    pub secret: SecretPlace,
    /// The words of the events it is sent, at least one.
    pub events: Vec<&'static str>,
    /// Rooms whose events it is sent.
    pub rooms: Vec<Pattern>,
    /// The file with certificate authorities of one's own; empty is the system's.
    pub ca: String,
    /// Time it has to answer.
    pub timeout: Duration,
    /// Requests under way at once, at least one.
    pub concurrency: usize,
}

/// What holds for all receivers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Webhooks {
    /// Events that are not delivered yet.
    pub queue_max: usize,
    /// Where a node alone keeps them; empty is in memory.
    pub directory: String,
}

impl Webhook {
    pub(super) fn from_values(from: &Values) -> Webhook {
        Webhook {
            place: from.source(WEBHOOK_URL).describe(),
            url: from.http_url(WEBHOOK_URL).clone(),
            secret: match from.is_said(SECRET) {
                true => SecretPlace::Here(from.secret(SECRET).clone()),
                false => SecretPlace::File(from.text(SECRET_FILE).to_owned()),
            },
            events: from.words(EVENTS).to_vec(),
            rooms: from.patterns("webhook.rooms").to_vec(),
            ca: from.text("webhook.ca").to_owned(),
            timeout: from.duration("webhook.timeout"),
            concurrency: from.size("webhook.concurrency"),
        }
    }

    /// Whether its receiver is reached over TLS.
    pub fn is_tls(&self) -> bool {
        self.url.is_tls()
    }

    /// Sockets that it may have at most: those in use, and those kept for the next request.
    pub fn sockets_max(&self) -> u64 {
        2 * self.concurrency as u64
    }
}

impl Webhooks {
    pub(super) fn from_values(from: &Values) -> Webhooks {
        Webhooks { queue_max: from.size("webhooks.queue_max"), directory: from.text("webhooks.directory").to_owned() }
    }
}

/// What is wrong with a webhook as a whole.
pub(super) fn fault(webhook: &Values) -> Option<String> {
    let text = match (webhook.is_said(SECRET), webhook.is_said(SECRET_FILE)) {
        _ if !webhook.http_url(WEBHOOK_URL).is_set() => "the webhook says not where its receiver is; add url",
        (false, false) => "there is no secret in it, so that its receiver could believe nothing; add secret_file",
        (true, true) => "the secret stands in it twice; keep secret or secret_file",
        _ if webhook.words(EVENTS).is_empty() => "the webhook is sent nothing; add events, or leave them out for all",
        (true, false) | (false, true) => return None,
    };
    Some(text.to_owned())
}

/// No more webhooks than are allowed, and one place where events are kept.
pub(super) fn check(effective: &Effective, problems: &mut Vec<Problem>) {
    let webhooks = effective.entries(&WEBHOOK);
    if let Some(beyond) = webhooks.get(WEBHOOKS_MAX) {
        let text = format!("{} webhooks are too many; write at most {WEBHOOKS_MAX}", webhooks.len());
        problems.push(Problem::new(beyond.source(WEBHOOK_URL).clone(), WEBHOOK.name, text));
    }
    const DIRECTORY: &str = "webhooks.directory";
    let settings = &effective.settings;
    let is_faulty = settings.is_faulty(DIRECTORY) || settings.is_faulty("redis.url");
    if !is_faulty && !settings.text(DIRECTORY).is_empty() && settings.redis_url("redis.url").address().is_some() {
        let text = "with redis.url Redis keeps the events that are not delivered; leave this out";
        problems.push(Problem::new(settings.source(DIRECTORY).clone(), DIRECTORY, text.to_owned()));
    }
}
