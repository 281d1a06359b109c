//! Whose request it is, and what its key is good for.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;

use super::{Api, ApiError};
use crate::auth::ApiGrant;
use crate::config::{Pattern, Verb};
use crate::control::access::bearer;
use crate::control::console::is_of_the_page;

/// A program that has shown a key of this server.
#[derive(Clone, Debug)]
pub(in crate::control) struct Caller(Arc<ApiGrant>);

impl Caller {
    /// The name of its key.
    pub(in crate::control) fn name(&self) -> &str {
        &self.0.name
    }

    /// Whether the key is good for something with all rooms: what goes beyond single rooms.
    ///
    /// # Errors
    /// `forbidden`.
    pub(in crate::control) fn needs_all_rooms(&self, verb: Verb) -> Result<(), ApiError> {
        self.needs(verb)?;
        match self.0.rooms.iter().any(|pattern| pattern.as_str() == "*") {
            true => Ok(()),
            false => Err(ApiError::forbidden("this goes beyond single rooms: it needs a key with rooms = [\"*\"]")),
        }
    }

    /// Whether the key is good for something with a room.
    ///
    /// # Errors
    /// `forbidden`.
    pub(in crate::control) fn needs_room(&self, verb: Verb, room: &str) -> Result<(), ApiError> {
        self.needs(verb)?;
        match self.covers(room) {
            true => Ok(()),
            false => Err(ApiError::forbidden("this key is not good for this room: see its rooms in [[api.key]]")),
        }
    }

    /// The rooms that the key is good for.
    pub(in crate::control) fn rooms(&self) -> &[Pattern] {
        &self.0.rooms
    }

    /// Whether the room is one of those that the key is good for.
    pub(in crate::control) fn covers(&self, room: &str) -> bool {
        self.0.rooms.iter().any(|pattern| pattern.matches(room))
    }

    /// Whether the key is good for something.
    ///
    /// # Errors
    /// `forbidden`.
    pub(in crate::control) fn needs(&self, verb: Verb) -> Result<(), ApiError> {
        match self.0.may(verb) {
            true => Ok(()),
            false => Err(ApiError::forbidden(match verb {
                Verb::Publish => "this key may not publish to rooms: add publish to its verbs",
                Verb::Private => "this key may not publish to users: add private to its verbs",
                Verb::Broadcast => "this key may not publish to everyone: add broadcast to its verbs",
                Verb::Read => "this key may not read: add read to its verbs",
                Verb::Kick => "this key may not remove anything: add kick to its verbs",
            })),
        }
    }
}

impl FromRequestParts<Api> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Caller, ApiError> {
        let access = &api.node.access;
        let keys = access.keys.get();
        let through_page = parts.extensions.get::<ThroughPage>();
        if keys.is_empty() && through_page.is_none() {
            return Err(ApiError::not_found());
        }
        match (bearer(&parts.headers), through_page) {
            (Some(shown), _) => keys.find(shown).cloned().map(Caller).ok_or_else(ApiError::unknown_key),
            (None, Some(ThroughPage(grant))) if access.is_loopback(parts) && is_of_the_page(&parts.headers) => {
                Ok(Caller(grant.clone()))
            }
            (None, _) => Err(ApiError::no_key()),
        }
    }
}

/// A request came by the way that only the pages of this server take: on the machine itself they need no key.
#[derive(Clone, Debug)]
pub(super) struct ThroughPage(Arc<ApiGrant>);

impl ThroughPage {
    /// Whoever is at the machine itself may do everything.
    pub(super) fn new() -> ThroughPage {
        let all = "*".parse().expect("it is a pattern");
        ThroughPage(Arc::new(ApiGrant { name: "console".to_owned(), verbs: Verb::all().collect(), rooms: vec![all] }))
    }
}

/// A request that needs no key, on a server that has some.
pub(super) struct Enabled;

impl FromRequestParts<Api> for Enabled {
    type Rejection = ApiError;

    async fn from_request_parts(_: &mut Parts, api: &Api) -> Result<Enabled, ApiError> {
        match api.node.access.keys.get().is_empty() {
            true => Err(ApiError::not_found()),
            false => Ok(Enabled),
        }
    }
}
