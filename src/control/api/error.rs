//! What a request of the HTTP API is refused with: one table of codes, each with its status.

use std::borrow::Cow;

use axum::http::header::{RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use crate::control::JSON_HEADERS;
use crate::limits::API_RETRY_AFTER_S;
use crate::protocol::ErrorCode;

/// Why a request, or a command of a batch, is refused. The word is [`Code::as_str`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::control) enum Code {
    /// As on the wire.
    Wire(ErrorCode),
    /// Nothing is served at this path.
    NotFound,
    /// The path is served, but not with this method.
    MethodNotAllowed,
    /// The body did not come in whole in time.
    Timeout,
    /// The body, or a `content`, is larger than allowed.
    TooLarge,
    /// A batch has more commands than allowed.
    TooManyCommands,
    /// The body is of another type.
    UnsupportedMediaType,
}

impl Code {
    /// The word, in `code`.
    pub(in crate::control) fn as_str(self) -> &'static str {
        match self {
            Code::Wire(code) => code.as_str(),
            Code::NotFound => "not_found",
            Code::MethodNotAllowed => "method_not_allowed",
            Code::Timeout => "timeout",
            Code::TooLarge => "too_large",
            Code::TooManyCommands => "too_many_commands",
            Code::UnsupportedMediaType => "unsupported_media_type",
        }
    }

    /// The status of a response with it.
    pub(in crate::control) fn status(self) -> StatusCode {
        match self {
            Code::Wire(code) => match code {
                ErrorCode::Unauthorized => StatusCode::UNAUTHORIZED,
                ErrorCode::Forbidden => StatusCode::FORBIDDEN,
                ErrorCode::RateLimited => StatusCode::TOO_MANY_REQUESTS,
                ErrorCode::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
                ErrorCode::AlreadyJoined | ErrorCode::NotJoined => StatusCode::CONFLICT,
                ErrorCode::BadJson
                | ErrorCode::UnknownType
                | ErrorCode::MissingField
                | ErrorCode::BadRoomId
                | ErrorCode::BadUserId
                | ErrorCode::BadClientId
                | ErrorCode::BadId
                | ErrorCode::BadPosition
                | ErrorCode::TooManyRooms
                | ErrorCode::BadKey
                | ErrorCode::BadItem
                | ErrorCode::TooManyItems
                | ErrorCode::BadOptions => StatusCode::BAD_REQUEST,
            },
            Code::NotFound => StatusCode::NOT_FOUND,
            Code::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Code::Timeout => StatusCode::REQUEST_TIMEOUT,
            Code::TooLarge | Code::TooManyCommands => StatusCode::PAYLOAD_TOO_LARGE,
            Code::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        }
    }
}

/// A refusal: nothing has happened, but of a batch what stands in its results.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::control) struct ApiError {
    code: Code,
    /// For people: what is wrong, and what would be right.
    message: Cow<'static, str>,
    /// Of 401 and 403 (RFC 6750 §3).
    challenge: Option<&'static str>,
}

/// The body of a refusal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub(in crate::control) struct ErrorBody {
    error: ErrorDetail,
}

/// What is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub(super) struct ErrorDetail {
    /// For programs: one of a fixed set of words.
    #[schema(example = "missing_field")]
    code: &'static str,
    /// For people: what is wrong, and what would be right.
    message: Cow<'static, str>,
}

impl ApiError {
    pub(in crate::control) fn new(code: Code, message: impl Into<Cow<'static, str>>) -> ApiError {
        ApiError { code, message: message.into(), challenge: None }
    }

    /// With a code of the wire.
    pub(in crate::control) fn wire(code: ErrorCode, message: impl Into<Cow<'static, str>>) -> ApiError {
        ApiError::new(Code::Wire(code), message)
    }

    /// No key is shown.
    pub(super) fn no_key() -> ApiError {
        let message = "a key is needed: send Authorization: Bearer KEY with an [[api.key]] of this server";
        ApiError { challenge: Some("Bearer"), ..ApiError::wire(ErrorCode::Unauthorized, message) }
    }

    /// What is shown is no key.
    pub(super) fn unknown_key() -> ApiError {
        let message = "this is no key of this server: see [[api.key]] in its configuration";
        let challenge = Some("Bearer error=\"invalid_token\"");
        ApiError { challenge, ..ApiError::wire(ErrorCode::Unauthorized, message) }
    }

    /// The key is not good for it.
    pub(super) fn forbidden(message: impl Into<Cow<'static, str>>) -> ApiError {
        let challenge = Some("Bearer error=\"insufficient_scope\"");
        ApiError { challenge, ..ApiError::wire(ErrorCode::Forbidden, message) }
    }

    /// Nothing is served at the path.
    pub(super) fn not_found() -> ApiError {
        ApiError::new(Code::NotFound, "nothing is served at this path: see /api/v1/openapi.json")
    }

    /// More is under way than the node holds.
    pub(in crate::control) fn busy() -> ApiError {
        let message = "too many requests are under way: send it again a little later, and fewer at once";
        ApiError::wire(ErrorCode::RateLimited, message)
    }

    /// It needs Redis, which does not answer.
    pub(in crate::control) fn unavailable() -> ApiError {
        let message =
            "Redis does not answer: a publish may have been stored all the same, send it again with the same key";
        ApiError::wire(ErrorCode::Unavailable, message)
    }

    /// A keyed room has no room for an item.
    pub(super) fn too_many_items() -> ApiError {
        let message = "the room, or the node, holds as many items, or bytes of them, as it may: remove some first";
        ApiError::wire(ErrorCode::TooManyItems, message)
    }

    /// It cannot be done now, for another reason.
    pub(super) fn unavailable_because(message: &'static str) -> ApiError {
        ApiError::wire(ErrorCode::Unavailable, message)
    }

    /// What it says, for people and programs.
    pub(super) fn into_detail(self) -> ErrorDetail {
        ErrorDetail { code: self.code.as_str(), message: self.message }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let (status, challenge) = (self.code.status(), self.challenge);
        let mut response = json_response(status, &ErrorBody { error: self.into_detail() });
        let headers = response.headers_mut();
        if let Some(challenge) = challenge {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        }
        if matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
            headers.insert(RETRY_AFTER, HeaderValue::from(API_RETRY_AFTER_S));
        }
        response
    }
}

/// A response with a body as JSON.
pub(in crate::control) fn json_response(status: StatusCode, body: &impl Serialize) -> Response {
    let body = serde_json::to_vec(body).expect("texts and numbers are JSON");
    (status, JSON_HEADERS, body).into_response()
}

/// What is said in answers only where it is so.
pub(super) fn is_false(value: &bool) -> bool {
    !value
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::ERROR_CODES;

    #[test]
    fn every_code_of_the_wire_has_a_status_of_a_refusal_and_no_word_has_two_meanings() {
        let own = [
            Code::NotFound,
            Code::MethodNotAllowed,
            Code::Timeout,
            Code::TooLarge,
            Code::TooManyCommands,
            Code::UnsupportedMediaType,
        ];
        let all: Vec<Code> = ERROR_CODES.iter().map(|(code, _)| Code::Wire(*code)).chain(own).collect();
        let mut words: Vec<&str> = all.iter().map(|code| code.as_str()).collect();
        words.sort_unstable();
        words.dedup();
        assert_eq!(words.len(), all.len());
        assert!(all.iter().all(|code| code.status().is_client_error() || code.status() == 503));
    }

    #[test]
    fn who_is_to_come_back_is_told_when() {
        for (error, status) in [(ApiError::busy(), 429), (ApiError::unavailable(), 503)] {
            let response = error.into_response();
            assert_eq!(response.status(), status);
            assert_eq!(response.headers()[RETRY_AFTER], "1");
        }
        let response = ApiError::no_key().into_response();
        assert_eq!(
            (response.status().as_u16(), &response.headers()[WWW_AUTHENTICATE]),
            (401, &"Bearer".parse().unwrap())
        );
    }
}
