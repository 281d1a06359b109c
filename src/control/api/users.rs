//! `/api/v1/users…`: a user's connections, and their end.

use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;
use utoipa::ToSchema;

use super::error::json_response;
use super::query::{UserName, query, reply_of};
use super::{Api, ApiError, Caller};
use crate::clock;
use crate::config::Verb;
use crate::control::Busy;
use crate::ids::node_name;
use crate::router::cluster::Order;
use crate::router::{ConnectionFound, Found, Reply, Survey};

/// A user's connections.
#[derive(Serialize, ToSchema)]
struct Connections {
    connections: Vec<Connection>,
    /// Whether there are more connections, or rooms of one, than an answer holds.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    #[schema(required = false)]
    truncated: bool,
}

/// A connection that speaks JSON.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Connection {
    client_id: String,
    /// The node that it is on.
    node: String,
    /// When it opened, in Unix milliseconds.
    since: u64,
    /// Rooms that it is a member of.
    rooms: Vec<String>,
}

/// How connections are ended.
#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct DisconnectParams {
    /// Whether the user's tokens are refused from now on that were made up to this second, or do not say when.
    #[param(default = false)]
    revoke: Option<bool>,
}

/// So many nodes have heard an order.
#[derive(Serialize, ToSchema)]
pub(super) struct Nodes {
    nodes: u64,
}

impl Nodes {
    /// The answer to an order that is given.
    pub(super) async fn heard(asked: Result<oneshot::Receiver<Reply>, Busy>) -> Result<Response, ApiError> {
        match reply_of(asked).await? {
            Reply::Heard(nodes) => Ok(Nodes::response(nodes)),
            _ => Err(ApiError::unavailable()),
        }
    }

    fn response(nodes: u64) -> Response {
        json_response(StatusCode::OK, &Nodes { nodes })
    }
}

/// A user's connections that speak JSON, on all nodes. Needs the verb `read` and all rooms.
#[utoipa::path(
    get,
    path = "/api/v1/users/{user}",
    params(UserName),
    responses((status = 200, description = "The connections.", body = Connections), ApiError),
    security(("key" = [])),
)]
pub(super) async fn user(
    State(api): State<Api>,
    caller: Caller,
    UserName { user }: UserName,
) -> Result<Response, ApiError> {
    caller.needs_all_rooms(Verb::Read)?;
    let asked = api.requests.survey(&Survey::Connections { user: user.into() });
    let Reply::Found(found) = reply_of(asked).await? else { return Err(ApiError::unavailable()) };
    let mut answer = Connections { connections: Vec::new(), truncated: false };
    for node in found.iter() {
        let Found::Connections(found) = &node.found else { continue };
        let name = node_name(node.run.unwrap_or(api.node.run));
        answer.truncated |= found.is_truncated;
        answer.connections.extend(found.connections.iter().map(|connection| Connection::of(connection, &name)));
    }
    Ok(json_response(StatusCode::OK, &answer))
}

impl Connection {
    fn of(found: &ConnectionFound, node: &str) -> Connection {
        let ConnectionFound { client_id, since_unix_ms, rooms } = found;
        let rooms = rooms.iter().map(|room| room.to_string()).collect();
        Connection { client_id: client_id.to_string(), node: node.to_owned(), since: *since_unix_ms, rooms }
    }
}

/// Ends all connections of a user, on all nodes, raw rooms included: with close code 1008. Needs the verb `kick` and all
/// rooms.
#[utoipa::path(
    delete,
    path = "/api/v1/users/{user}/connections",
    params(UserName, DisconnectParams),
    responses((status = 200, description = "So many nodes have heard it.", body = Nodes), ApiError),
    security(("key" = [])),
)]
pub(super) async fn disconnect(
    State(api): State<Api>,
    caller: Caller,
    UserName { user }: UserName,
    uri: Uri,
) -> Result<Response, ApiError> {
    caller.needs_all_rooms(Verb::Kick)?;
    let DisconnectParams { revoke } = query(&uri)?;
    let now_s = clock::unix_s();
    // Where no tokens are asked for there is none to revoke.
    let revocations = api.node.revocations.as_ref().filter(|_| revoke == Some(true));
    if api.node.metrics.cluster.is_some() {
        if revocations.is_some_and(|revocations| !revocations.has_room_for(&user, now_s)) {
            return Err(full());
        }
        let order = Order::Disconnect { user: user.into(), revoke_unix_s: revocations.map(|_| now_s) };
        return Nodes::heard(api.requests.order(order)).await;
    }
    if let Some(revocations) = revocations {
        revocations.revoke(&user, now_s).map_err(|_| full())?;
    }
    reply_of(api.requests.survey(&Survey::Disconnect { user: user.into() })).await?;
    Ok(Nodes::response(1))
}

fn full() -> ApiError {
    ApiError::unavailable_because("as many users as this server remembers have their tokens revoked: nothing was done")
}
