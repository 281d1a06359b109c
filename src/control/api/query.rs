//! What paths and queries of requests say.

use std::time::Duration;

use axum::extract::rejection::PathRejection;
use axum::extract::{FromRequestParts, Path, Query};
use axum::http::Uri;
use axum::http::request::Parts;
use data_encoding::BASE64URL_NOPAD;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::sync::oneshot;

use super::{Api, ApiError};
use crate::control::Busy;
use crate::limits::{API_ANSWER_MS_MAX, USER_ID_BYTES_MAX};
use crate::protocol::ErrorCode;
use crate::router::Reply;

/// The parameters of a query.
///
/// # Errors
/// `bad_options`.
pub(super) fn query<T: DeserializeOwned>(uri: &Uri) -> Result<T, ApiError> {
    match Query::try_from_uri(uri) {
        Ok(Query(params)) => Ok(params),
        Err(rejection) => Err(ApiError::wire(ErrorCode::BadOptions, rejection.body_text())),
    }
}

/// The reply to what is asked of the reactors.
///
/// # Errors
/// `rate_limited` where too much is under way; `unavailable` where Redis does not answer, or nobody does in time.
pub(super) async fn reply_of(asked: Result<oneshot::Receiver<Reply>, Busy>) -> Result<Reply, ApiError> {
    match in_time(asked.map_err(|Busy| ApiError::busy())?).await? {
        Reply::Unavailable => Err(ApiError::unavailable()),
        reply => Ok(reply),
    }
}

/// What the reactors say.
///
/// # Errors
/// `unavailable` where they do not in time: the node goes away.
pub(super) async fn in_time<T>(asked: oneshot::Receiver<T>) -> Result<T, ApiError> {
    let said = tokio::time::timeout(Duration::from_millis(API_ANSWER_MS_MAX), asked).await;
    said.ok().and_then(Result::ok).ok_or_else(ApiError::unavailable)
}

/// How much an answer may list.
pub(super) struct Limit {
    pub(super) default: usize,
    /// More is not listed, whatever is asked for.
    pub(super) max: usize,
}

impl Limit {
    /// What `limit` says.
    ///
    /// # Errors
    /// `bad_options`.
    pub(super) fn of(&self, limit: Option<u64>) -> Result<usize, ApiError> {
        match limit {
            None => Ok(self.default),
            Some(0) => Err(ApiError::wire(ErrorCode::BadOptions, "limit is a number from 1 on")),
            Some(limit) => {
                check_number(limit).map(|()| usize::try_from(limit).map_or(self.max, |limit| limit.min(self.max)))
            }
        }
    }
}

/// Numbers have 63 bits, as the document says of them.
///
/// # Errors
/// `bad_options`.
pub(super) fn check_number(number: u64) -> Result<(), ApiError> {
    match i64::try_from(number) {
        Ok(_) => Ok(()),
        Err(_) => Err(ApiError::wire(ErrorCode::BadOptions, "a number is larger than any that means something here")),
    }
}

/// Where a page ends in a list that is ordered by text: clients see no meaning in it.
pub(super) fn cursor_of(text: &str) -> String {
    BASE64URL_NOPAD.encode(text.as_bytes())
}

/// The text of a cursor.
///
/// # Errors
/// `bad_options`.
pub(super) fn text_of_cursor(cursor: &str) -> Result<String, ApiError> {
    let bytes = BASE64URL_NOPAD.decode(cursor.as_bytes()).ok();
    let text = bytes.and_then(|bytes| String::from_utf8(bytes).ok());
    text.ok_or_else(|| ApiError::wire(ErrorCode::BadOptions, "after is the next of the page before, as it was"))
}

/// The room in a path, percent-decoded.
#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct RoomName {
    /// The room's id, percent-encoded.
    #[param(min_length = 1)]
    pub(super) room: String,
}

/// The room and the user in a path, percent-decoded.
#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct RoomUser {
    /// The room's id, percent-encoded.
    #[param(min_length = 1)]
    pub(super) room: String,
    /// The user's id, percent-encoded.
    #[param(min_length = 1)]
    pub(super) user: String,
}

/// The user in a path, percent-decoded.
#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct UserName {
    /// The user's id, percent-encoded.
    #[param(min_length = 1)]
    pub(super) user: String,
}

impl FromRequestParts<Api> for RoomName {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<RoomName, ApiError> {
        named(Path::from_request_parts(parts, api).await, ErrorCode::BadRoomId)
    }
}

impl FromRequestParts<Api> for RoomUser {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<RoomUser, ApiError> {
        let named: RoomUser = named(Path::from_request_parts(parts, api).await, ErrorCode::BadRoomId)?;
        check_user(&named.user)?;
        Ok(named)
    }
}

impl FromRequestParts<Api> for UserName {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<UserName, ApiError> {
        let named: UserName = named(Path::from_request_parts(parts, api).await, ErrorCode::BadUserId)?;
        check_user(&named.user)?;
        Ok(named)
    }
}

fn named<T>(path: Result<Path<T>, PathRejection>, code: ErrorCode) -> Result<T, ApiError> {
    let message = "a name in a path is percent-encoded UTF-8";
    path.map(|Path(named)| named).map_err(|_| ApiError::wire(code, message))
}

fn check_user(user: &str) -> Result<(), ApiError> {
    match user.len() {
        1..=USER_ID_BYTES_MAX => Ok(()),
        _ => {
            let message = format!("a user id has 1 to {USER_ID_BYTES_MAX} bytes");
            Err(ApiError::wire(ErrorCode::BadUserId, message))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_comes_back_as_it_was_and_nothing_else_is_one() {
        for text in ["", "a", "chat.ü", "\u{10ffff}\n"] {
            assert_eq!(text_of_cursor(&cursor_of(text)).as_deref(), Ok(text));
        }
        assert!(text_of_cursor("*").is_err() && text_of_cursor("gA").is_err());
    }
}
