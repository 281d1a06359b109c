//! `GET /api/v1/openapi.json`: the document of the API, made from the types and the routes that serve it.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{
    ComponentsBuilder, Content, InfoBuilder, OpenApi, OpenApiBuilder, Ref, RefOr, ResponseBuilder, response,
};
use utoipa::{IntoResponses, ToSchema};

use super::caller::Enabled;
use super::error::ErrorBody;
use super::{Api, ApiError};
use crate::control::JSON_HEADERS;

/// The document, before there are routes in it.
pub(super) fn document() -> OpenApi {
    let info = InfoBuilder::new()
        .title("fanfare")
        .description(Some("Publishes to the clients of a fanfare server, and reads and removes what it holds."))
        .version(env!("CARGO_PKG_VERSION"))
        .build();
    let key =
        HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some("An `[[api.key]]` of the server.")).build();
    let components =
        ComponentsBuilder::new().security_scheme("key", SecurityScheme::Http(key)).schema_from::<ErrorBody>().build();
    OpenApiBuilder::new().info(info).components(Some(components)).build()
}

/// The refusals of any request, by status.
impl IntoResponses for ApiError {
    fn responses() -> BTreeMap<String, RefOr<response::Response>> {
        let body = || Content::new(Some(Ref::from_schema_name(ErrorBody::name())));
        let refusal = |&(status, description): &(&str, &str)| {
            let response = ResponseBuilder::new().description(description).content("application/json", body()).build();
            (status.to_owned(), response.into())
        };
        let head = ResponseBuilder::new()
            .description("The head of the request is larger than allowed; without a body.")
            .build();
        REFUSALS.iter().map(refusal).chain([("431".to_owned(), head.into())]).collect()
    }
}

const REFUSALS: &[(&str, &str)] = &[
    ("400", "The body, or the query, is not as it must be."),
    ("401", "No key is shown, or one that this server does not know."),
    ("403", "The key is not good for it."),
    ("404", "Nothing is served at this path."),
    ("408", "The body took too long to come in."),
    ("413", "The body, a `content` or the number of commands is larger than allowed."),
    ("415", "The body is of another type."),
    ("429", "Too much is under way: `Retry-After` says when to come back."),
    ("503", "Redis does not answer, or the node goes away: `Retry-After` says when to come back."),
];

/// The OpenAPI document. Needs no key.
#[utoipa::path(
    get,
    path = "/api/v1/openapi.json",
    responses((status = 200, description = "This document.", content_type = "application/json")),
)]
pub(super) async fn openapi(_: Enabled, State(api): State<Api>) -> Response {
    (JSON_HEADERS, api.document.clone()).into_response()
}
