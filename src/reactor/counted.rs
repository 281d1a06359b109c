//! As what refusals are counted.

use crate::auth::TokenError;
use crate::conn::{HttpRefusal, Unauthorized};
use crate::metrics::{CommandRefusal, RequestRefusal, TokenFault};
use crate::protocol::ErrorCode;

/// Of a request.
pub(super) fn request_refusal(refusal: HttpRefusal) -> RequestRefusal {
    match refusal {
        HttpRefusal::Bad(_) => RequestRefusal::Bad,
        HttpRefusal::Unauthorized(Unauthorized::Missing) => RequestRefusal::TokenMissing,
        HttpRefusal::Unauthorized(Unauthorized::Several) => RequestRefusal::TokenSeveral,
        HttpRefusal::Unauthorized(Unauthorized::Invalid(_)) => RequestRefusal::TokenInvalid,
        HttpRefusal::Unauthorized(Unauthorized::Unknown) => RequestRefusal::Unknown,
        HttpRefusal::Forbidden(_) => RequestRefusal::Forbidden,
        HttpRefusal::NotFound | HttpRefusal::PagesOnly => RequestRefusal::NotFound,
        HttpRefusal::Timeout => RequestRefusal::Timeout,
        HttpRefusal::Version | HttpRefusal::UpgradeLost => RequestRefusal::Upgrade,
        HttpRefusal::TooMany { .. } => RequestRefusal::TooMany,
        HttpRefusal::HeadTooLarge | HttpRefusal::TooManyHeaders => RequestRefusal::HeadTooLarge,
        HttpRefusal::Undecided { .. } => RequestRefusal::Undecided,
        HttpRefusal::AtCapacity { .. } => RequestRefusal::AtCapacity,
    }
}

/// Of a token.
pub(super) fn token_fault(error: &TokenError) -> TokenFault {
    match error {
        TokenError::TooLong
        | TokenError::Malformed
        | TokenError::Alg
        | TokenError::Critical
        | TokenError::UnknownKey
        | TokenError::KeyAlg
        | TokenError::Signature => TokenFault::Signature,
        TokenError::Claims | TokenError::Missing(_) | TokenError::Claim(_) => TokenFault::Claims,
        TokenError::Issuer => TokenFault::Issuer,
        TokenError::Audience => TokenFault::Audience,
        TokenError::Expired => TokenFault::Expired,
        TokenError::NotYet => TokenFault::NotYet,
        TokenError::Revoked => TokenFault::Revoked,
    }
}

/// Of a command.
pub(super) fn command_refusal(code: ErrorCode) -> CommandRefusal {
    match code {
        ErrorCode::BadJson
        | ErrorCode::UnknownType
        | ErrorCode::MissingField
        | ErrorCode::BadRoomId
        | ErrorCode::BadUserId
        | ErrorCode::BadClientId
        | ErrorCode::BadId
        | ErrorCode::BadPosition
        | ErrorCode::AlreadyJoined
        | ErrorCode::BadKey
        | ErrorCode::BadItem
        | ErrorCode::BadOptions
        | ErrorCode::NotJoined => CommandRefusal::Malformed,
        ErrorCode::RateLimited => CommandRefusal::RateLimited,
        ErrorCode::TooManyRooms => CommandRefusal::TooManyRooms,
        ErrorCode::TooManyItems => CommandRefusal::TooManyItems,
        ErrorCode::Forbidden => CommandRefusal::Forbidden,
        ErrorCode::Unauthorized => CommandRefusal::Unauthorized,
        ErrorCode::Unavailable => CommandRefusal::Unavailable,
    }
}
