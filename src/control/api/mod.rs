//! The HTTP API under `/api/v1`: programs of the operator publish, read and remove.
//!
//! ```text
//!   request ─► route ─► Caller: a key, with its verbs and rooms ─► body ─► handler ─► Requests ─► reactors
//!               404, 405          401, 404 without keys            415, 413    400, 403       429, 503
//! ```
//!
//! A handler has its path, its types and its answers beside it, and the OpenAPI document is made from those
//! ([`openapi`]). Every refusal is an [`ApiError`]. What waits is bounded: requests in `control::requests`, bytes in `body`.
//! Never touches a reactor; knows HTTP, and of the router the messages.

mod batch;
mod body;
mod caller;
mod command;
mod error;
mod items;
mod node;
mod openapi;
mod publish;
mod query;
mod rooms;
mod users;

use std::ops::Deref;
use std::sync::Arc;

use axum::extract::{MatchedPath, Request, State};
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::{Extension, Router};
use tokio::sync::Semaphore;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(in crate::control) use caller::Caller;
pub(in crate::control) use error::ApiError;

use super::{Node, Requests};
use caller::{Enabled, ThroughPage};
use error::Code;

use crate::limits::API_BODIES_BYTES_MAX;
use crate::metrics::{ApiRoute, ApiStatus};
use crate::protocol::ErrorCode;
use crate::router::KeyedRooms;

/// What the API is told to do.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Bytes of one body.
    pub body_bytes_max: usize,
    /// Bytes of one `content`.
    pub message_bytes_max: usize,
    /// Whether clients show tokens: then no room's id begins with `raw/`.
    pub has_tokens: bool,
    /// Which rooms are keyed, as long as the server runs; `None` where none is.
    pub keyed: Option<KeyedRooms>,
}

/// What handlers share; clones are the same.
#[derive(Clone, Debug)]
pub(in crate::control) struct Api(Arc<Shared>);

#[derive(Debug)]
pub(in crate::control) struct Shared {
    /// What is known of the node.
    pub(in crate::control) node: Node,
    /// The way to the reactors.
    pub(in crate::control) requests: Requests,
    pub(in crate::control) settings: Settings,
    /// Bytes that bodies may hold yet.
    bodies: Semaphore,
    /// The OpenAPI document.
    document: String,
}

impl Deref for Api {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.0
    }
}

impl Api {
    /// Whether a room is keyed.
    pub(in crate::control) fn is_keyed(&self, room: &str) -> bool {
        self.settings.keyed.as_ref().is_some_and(|keyed| (keyed.0)(room).is_some())
    }

    /// Whether a room may have this id: permissions call raw rooms so, and no other room has such a name.
    ///
    /// # Errors
    /// `bad_room_id`.
    pub(in crate::control) fn check_room_id(&self, room: &str) -> Result<(), ApiError> {
        match self.settings.has_tokens && room.starts_with("raw/") {
            false => Ok(()),
            true => {
                let message = "a room id must not begin with raw/: that is how tokens call raw rooms";
                Err(ApiError::wire(ErrorCode::BadRoomId, message))
            }
        }
    }
}

/// Everything that is served under `/api`, for keys alone, and under `/console/api` for the pages of this server.
pub(super) fn routes(node: Node, requests: Requests) -> Router {
    let (routes, document) = documented().split_for_parts();
    let settings = node.api.clone();
    let document = document.to_json().expect("texts and numbers are JSON");
    let bodies = Semaphore::new(API_BODIES_BYTES_MAX);
    let api = Api(Arc::new(Shared { node, requests, settings, bodies, document }));
    let routes = routes
        .method_not_allowed_fallback(not_allowed)
        .route("/api", axum::routing::any(nothing))
        .route("/api/", axum::routing::any(nothing))
        .route("/api/{*rest}", axum::routing::any(nothing))
        .layer(middleware::from_fn_with_state(api.clone(), count))
        .with_state(api);
    routes.clone().nest(PAGES, routes.layer(Extension(ThroughPage::new())))
}

/// Where the API begins that the pages of this server take.
const PAGES: &str = "/console";

/// Counts a request by its route and its answer.
async fn count(State(api): State<Api>, path: MatchedPath, request: Request, next: Next) -> Response {
    let path = path.as_str();
    let route = ApiRoute::of_path(path.strip_prefix(PAGES).unwrap_or(path));
    let answer = next.run(request).await;
    api.0.node.metrics.api.count(route, ApiStatus::of(answer.status().as_u16()));
    answer
}

/// The routes, each with what the document says of it.
fn documented() -> OpenApiRouter<Api> {
    OpenApiRouter::with_openapi(openapi::document())
        .routes(routes!(publish::publish))
        .routes(routes!(publish::private))
        .routes(routes!(publish::broadcast))
        .routes(routes!(batch::batch))
        .routes(routes!(node::node))
        .routes(routes!(rooms::rooms))
        .routes(routes!(rooms::presence))
        .routes(routes!(rooms::history, rooms::forget_history))
        .routes(routes!(items::items))
        .routes(routes!(rooms::kick))
        .routes(routes!(users::user))
        .routes(routes!(users::disconnect))
        .routes(routes!(openapi::openapi))
}

async fn nothing() -> ApiError {
    ApiError::not_found()
}

async fn not_allowed(_: Enabled) -> ApiError {
    ApiError::new(Code::MethodNotAllowed, "this path is served, but not with this method: see Allow")
}
