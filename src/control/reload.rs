//! `POST /reload`: the configuration is read again, and the answer says what that came to.

use std::time::Duration;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;
use tokio::sync::oneshot;

use super::access::Operator;
use super::{Node, json_answer};
use crate::limits::RELOAD_MS_MAX;

/// Asks for the configuration to be read again.
#[derive(Debug)]
pub struct ReloadRequest {
    /// Where the outcome is awaited, if it is.
    pub answer: Option<oneshot::Sender<Result<Reloaded, String>>>,
}

/// What reading it again came to, by the names of settings.
#[derive(Debug)]
pub struct Reloaded {
    /// What has changed, and is in force.
    pub applied: Vec<&'static str>,
    /// What has changed, and is not before a restart.
    pub needs_restart: Vec<&'static str>,
}

/// At most one request waits beside the one that is under way.
pub(super) async fn reload(_: Operator, State(node): State<Node>) -> Response {
    let (answer, outcome) = oneshot::channel();
    if node.reload.try_send(ReloadRequest { answer: Some(answer) }).is_err() {
        let body = json!({ "error": { "code": "unavailable", "message": "a reload is under way already: try again" } });
        return (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "1")], format!("{body}\n")).into_response();
    }
    let (status, body) = match tokio::time::timeout(Duration::from_millis(RELOAD_MS_MAX), outcome).await {
        Ok(Ok(Ok(Reloaded { applied, needs_restart }))) => {
            (StatusCode::OK, json!({ "applied": applied, "needs_restart": needs_restart }))
        }
        Ok(Ok(Err(message))) => {
            (StatusCode::UNPROCESSABLE_ENTITY, json!({ "error": { "code": "bad_config", "message": message } }))
        }
        Ok(Err(_)) | Err(_) => {
            let message = "the files could not be read in time: the log says what becomes of it";
            (StatusCode::GATEWAY_TIMEOUT, json!({ "error": { "code": "unavailable", "message": message } }))
        }
    };
    json_answer(status, &body)
}
