//! `GET /api/v1/node`: what this node is.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

use super::error::json_response;
use super::{Api, ApiError, Caller};
use crate::config::Verb;

/// What a node is.
#[derive(Serialize, ToSchema)]
struct NodeInfo {
    /// The version of the server.
    version: &'static str,
    /// Time since it started, in milliseconds.
    uptime_ms: u64,
    /// Connections of clients that are open.
    connections: u64,
    /// Its reactors.
    reactors: Vec<ReactorInfo>,
    /// What it knows of the cluster; `null` of a node alone.
    cluster: Option<ClusterInfo>,
}

/// A reactor: a thread that serves connections.
#[derive(Serialize, ToSchema)]
struct ReactorInfo {
    /// Connections of clients that are open.
    connections: u64,
}

/// What a node knows of its cluster.
#[derive(Serialize, ToSchema)]
struct ClusterInfo {
    /// Whether Redis answers.
    reachable: bool,
    /// Nodes that were heard of lately, this one included.
    nodes: u64,
}

/// Tells what this node is. Needs the verb `read`.
#[utoipa::path(
    get,
    path = "/api/v1/node",
    responses((status = 200, description = "What the node is.", body = NodeInfo), ApiError),
    security(("key" = [])),
)]
pub(super) async fn node(State(api): State<Api>, caller: Caller) -> Result<Response, ApiError> {
    caller.needs(Verb::Read)?;
    let metrics = &api.node.metrics;
    let reactors: Vec<ReactorInfo> =
        metrics.reactors.iter().map(|reactor| ReactorInfo { connections: reactor.read().connections }).collect();
    let cluster = metrics.cluster.as_ref().map(|cluster| {
        let counts = cluster.read();
        ClusterInfo { reachable: counts.reachable == 1, nodes: counts.peers + 1 }
    });
    let info = NodeInfo {
        version: env!("CARGO_PKG_VERSION"),
        uptime_ms: api.node.started.elapsed().as_millis() as u64,
        connections: reactors.iter().map(|reactor| reactor.connections).sum(),
        reactors,
        cluster,
    };
    Ok(json_response(StatusCode::OK, &info))
}
