//! `POST /api/v1/publish`, `/private` and `/broadcast`: one message.

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::body::Format;
use super::command::{Broadcast, Command, Fields, Kind, Private, Publish, RoomsNamed};
use super::error::{is_false, json_response};
use super::query::in_time;
use super::{Api, ApiError, Caller};
use crate::clock;
use crate::control::JSON_HEADERS;
use crate::protocol::scan::{Malformed, Walk};
use crate::protocol::{Decoder, ErrorCode};
use crate::router::{Fate, StreamPosition};

/// A message is routed or, where history is kept and in keyed rooms, stored: then with its position.
#[derive(Serialize, ToSchema)]
pub(super) struct Accepted<'a> {
    /// The epoch in which the offset counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(super) epoch: Option<&'a str>,
    /// The message's number.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(super) offset: Option<u64>,
    /// Whether it was an update of an item whose version was not above the item's last one: it was dropped.
    #[serde(skip_serializing_if = "is_false")]
    #[schema(required = false)]
    pub(super) stale: bool,
}

impl<'a> Accepted<'a> {
    /// What a publish has come to.
    ///
    /// # Errors
    /// `unavailable`, `too_many_items`.
    pub(super) fn of(fate: &'a Fate) -> Result<Accepted<'a>, ApiError> {
        match fate {
            Fate::Acked(Some(position)) => Ok(Accepted::at(position, false)),
            Fate::Acked(None) => Ok(Accepted { epoch: None, offset: None, stale: false }),
            Fate::Updated { position, is_stale } => Ok(Accepted::at(position, *is_stale)),
            Fate::TooManyItems => Err(ApiError::too_many_items()),
            Fate::Unavailable => Err(ApiError::unavailable()),
            Fate::Open => unreachable!("a request is answered when nothing of it is open"),
        }
    }

    fn at(position: &StreamPosition, stale: bool) -> Accepted<'_> {
        Accepted { epoch: Some(&position.epoch), offset: Some(position.offset), stale }
    }
}

/// Publishes to the members of a room, or updates an item of a keyed one. Needs the verb `publish` and the room.
#[utoipa::path(
    post,
    path = "/api/v1/publish",
    request_body = Publish,
    responses((status = 200, description = "Routed, or stored.", body = Accepted), ApiError),
    security(("key" = [])),
)]
pub(super) async fn publish(State(api): State<Api>, caller: Caller, request: Request) -> Result<Response, ApiError> {
    one(&api, &caller, request, Kind::Publish).await
}

/// Publishes to every connection of a user. Needs the verb `private` and all rooms.
#[utoipa::path(
    post,
    path = "/api/v1/private",
    request_body = Private,
    responses((status = 200, description = "Routed, or stored.", body = Accepted), ApiError),
    security(("key" = [])),
)]
pub(super) async fn private(State(api): State<Api>, caller: Caller, request: Request) -> Result<Response, ApiError> {
    one(&api, &caller, request, Kind::Private).await
}

/// Publishes to every connection. Needs the verb `broadcast` and all rooms.
#[utoipa::path(
    post,
    path = "/api/v1/broadcast",
    request_body = Broadcast,
    responses((status = 200, description = "Routed.", body = Accepted), ApiError),
    security(("key" = [])),
)]
pub(super) async fn broadcast(State(api): State<Api>, caller: Caller, request: Request) -> Result<Response, ApiError> {
    one(&api, &caller, request, Kind::Broadcast).await
}

async fn one(api: &Api, caller: &Caller, request: Request, kind: Kind) -> Result<Response, ApiError> {
    let body = api.read(request, &[Format::Json]).await?;
    let command = read(api, utf8(&body.bytes)?, kind)?;
    command.check(api, caller)?;
    let publication = [command.publication(caller)].into_iter();
    let asked = api.requests.publish(clock::unix_ms(), publication).map_err(|_| ApiError::busy())?;
    let fates = in_time(asked).await?;
    match &fates[0] {
        Fate::Acked(None) => Ok((JSON_HEADERS, "{}").into_response()),
        fate => Accepted::of(fate).map(|accepted| json_response(StatusCode::OK, &accepted)),
    }
}

fn read<'a>(api: &Api, text: &'a str, kind: Kind) -> Result<Command<'a>, ApiError> {
    let mut decoder = Decoder::default();
    let mut walk = Walk::new(text);
    let fields = Fields::read(&mut walk, &mut decoder).and_then(|fields| walk.end().map(|()| fields));
    fields.map_err(malformed)?.command(kind, &mut decoder, &mut RoomsNamed::new(api))
}

/// A body that is no JSON.
pub(super) fn malformed(malformed: Malformed) -> ApiError {
    ApiError::wire(ErrorCode::BadJson, format!("the body must be JSON (RFC 8259): {malformed}"))
}

/// A body as text.
///
/// # Errors
/// `bad_json`.
pub(super) fn utf8(bytes: &[u8]) -> Result<&str, ApiError> {
    simdutf8::basic::from_utf8(bytes)
        .map_err(|_| ApiError::wire(ErrorCode::BadJson, "the body must be JSON in UTF-8 (RFC 8259)"))
}
