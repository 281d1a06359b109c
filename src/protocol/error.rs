//! The error codes: the stable words by which a client tells one refusal from
//! another. One table, used by the replies and by the documentation.

/// Why a command was refused. The word on the wire is [`ErrorCode::as_str`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorCode {
    /// The message is no JSON object, or its fields contradict each other.
    BadJson,
    /// `type` is no string, or none of the commands.
    UnknownType,
    /// A field that the command needs is missing.
    MissingField,
    /// `roomId` or an entry of `roomIds` cannot be a room id.
    BadRoomId,
    /// `toUser` cannot be a user id.
    BadUserId,
    /// `to` cannot be a client id.
    BadClientId,
    /// `id` is neither a string nor a number, or too long to be sent back.
    BadId,
    /// `since` or `last` is not well formed, or not to be had in the room.
    BadPosition,
    /// The connection sends more than its rate allows.
    RateLimited,
    /// One command names, or one connection is in, more rooms than allowed.
    TooManyRooms,
    /// `since`, or options, were given for a room the connection is in already.
    AlreadyJoined,
    /// `key` cannot be a publish's key.
    BadKey,
    /// What was asked for is for others only.
    Forbidden,
    /// What is needed for it cannot be reached now.
    Unavailable,
    /// The token of a `refresh` is not valid, or the backend refuses it.
    Unauthorized,
    /// An update of an item of a keyed room is not well formed.
    BadItem,
    /// There would be more items than allowed.
    TooManyItems,
    /// What is asked for is not to be had there, or is not well formed.
    BadOptions,
    /// The connection is not in the room.
    NotJoined,
}

/// Every error code with its meaning, in the order of [`ErrorCode`].
pub const ERROR_CODES: &[(ErrorCode, &str)] = &[
    (
        ErrorCode::BadJson,
        "The message is not a JSON object (RFC 8259, at most 128 levels deep), or carries two fields that exclude each other.",
    ),
    (ErrorCode::UnknownType, "`type` is not a string, or not the name of a command."),
    (ErrorCode::MissingField, "A field that the command needs is missing; the message names it."),
    (ErrorCode::BadRoomId, "`roomId` is not a string of 1 to 255 bytes, or `roomIds` not an array of such strings."),
    (ErrorCode::BadUserId, "`toUser` is not a string of 1 to 128 bytes."),
    (ErrorCode::BadClientId, "`to` is not a string."),
    (ErrorCode::BadId, "`id` is neither a string nor a number, or longer than 1,024 bytes. The reply carries no `id`."),
    (
        ErrorCode::BadPosition,
        "`since` is not `{\"epoch\":string,\"offset\":integer}`, or `last` not an integer, or both were given, or `last` for a keyed room that keeps no history for it. Integers are not negative.",
    ),
    (
        ErrorCode::RateLimited,
        "The connection sends more than its rate allows. The command had no effect; send it again later.",
    ),
    (
        ErrorCode::TooManyRooms,
        "`roomIds` has more than 1,024 entries, or the connection is in as many rooms as it may be.",
    ),
    (
        ErrorCode::AlreadyJoined,
        "`since`, or options of a subscription, were given for a room that the connection is in already: leave it first, or use `tune`.",
    ),
    (ErrorCode::BadKey, "`key` is not a string of 1 to 64 bytes."),
    (
        ErrorCode::Forbidden,
        "The history of a room is for its members, and the connection is none; or the connection's token, or the backend, does not allow the command. Nothing has happened.",
    ),
    (
        ErrorCode::Unavailable,
        "It needs Redis, which keeps history, other nodes, or the backend that decides about it, and they do not answer in time. A publish may have been stored all the same: send it again with the same `key` later.",
    ),
    (
        ErrorCode::Unauthorized,
        "The token of a `refresh` is not valid, or the backend refuses it; the message says why. The one before stays in force to its end.",
    ),
    (
        ErrorCode::BadItem,
        "An update of a keyed room is not well formed: `item` is not a string of 1 to 128 bytes without `*`, `version` not an integer of 64 bits, or there is not one of `content` and `remove`. Of `room_msgs` none was carried out, and `index` says which is at fault.",
    ),
    (
        ErrorCode::TooManyItems,
        "The keyed room, or the node, has as many items or bytes as it may have; or a command has more than 10,000 updates, a subscription more than 1,000 items, a connection's subscriptions more bytes of items than allowed. Nothing was changed.",
    ),
    (
        ErrorCode::BadOptions,
        "An option is not well formed, or not to be had: `mode`, `interval`, `items`, `snapshot`, `tune` and `room_msgs` are for a keyed room, options for one `roomId`.",
    ),
    (ErrorCode::NotJoined, "`tune` is for members of the room, and the connection is none."),
];

impl ErrorCode {
    /// The word for this code on the wire, in `"code"` of an `error` message.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::BadJson => "bad_json",
            Self::UnknownType => "unknown_type",
            Self::MissingField => "missing_field",
            Self::BadRoomId => "bad_room_id",
            Self::BadUserId => "bad_user_id",
            Self::BadClientId => "bad_client_id",
            Self::BadId => "bad_id",
            Self::BadPosition => "bad_position",
            Self::RateLimited => "rate_limited",
            Self::TooManyRooms => "too_many_rooms",
            Self::AlreadyJoined => "already_joined",
            Self::BadKey => "bad_key",
            Self::Forbidden => "forbidden",
            Self::Unavailable => "unavailable",
            Self::Unauthorized => "unauthorized",
            Self::BadItem => "bad_item",
            Self::TooManyItems => "too_many_items",
            Self::BadOptions => "bad_options",
            Self::NotJoined => "not_joined",
        }
    }
}

// The table lists every code once, in order: a new variant must come last here
// and in the table, or this does not compile.
const _: () = {
    assert!(ERROR_CODES.len() == ErrorCode::NotJoined as usize + 1);
    let mut index = 0;
    while index < ERROR_CODES.len() {
        assert!(ERROR_CODES[index].0 as usize == index);
        index += 1;
    }
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_distinct_lower_snake_case() {
        let mut words: Vec<&str> = ERROR_CODES.iter().map(|(code, _)| code.as_str()).collect();
        for word in &words {
            assert!(word.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{word}");
        }
        words.sort_unstable();
        words.dedup();
        assert_eq!(words.len(), ERROR_CODES.len());
    }

    #[test]
    fn every_meaning_is_a_sentence() {
        for (code, meaning) in ERROR_CODES {
            assert!(meaning.ends_with('.'), "{}", code.as_str());
        }
    }
}
