//! `/api/v1/rooms…`: which rooms there are, who is in one, what it keeps; and what removes from it.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::error::{is_false, json_response};
use super::query::{Limit, RoomName, RoomUser, check_number, cursor_of, query, reply_of, text_of_cursor};
use super::users::Nodes;
use super::{Api, ApiError, Caller};
use crate::config::{Pattern, Verb};
use crate::control::JSON_HEADERS;
use crate::limits::{
    API_ROOMS_MAX, API_SURVEYS_MAX, HISTORY_PAGE_MAX, KICK_REASON_BYTES_MAX, PRESENCE_USERS_MAX, ROOM_ID_BYTES_MAX,
};
use crate::protocol::ErrorCode;
use crate::router::cluster::Order;
use crate::router::{Found, NodeFound, PageRange, Question, Reply, RoomFilter, RoomsQuery, Survey};

/// Which rooms are listed.
#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct RoomsParams {
    /// Only rooms that this pattern means: `*` stands for any run of characters.
    #[serde(rename = "match")]
    #[param(example = "chat.*", min_length = 1, max_length = 255)]
    matching: Option<String>,
    /// Where the page before ended: its `next`.
    after: Option<String>,
    /// At most so many rooms.
    #[param(minimum = 1, default = 100)]
    limit: Option<u64>,
}

/// Some rooms with members. A page may hold fewer than `limit`, or none, and still have a `next`.
#[derive(Serialize, ToSchema)]
struct Rooms {
    rooms: Vec<Room>,
    /// Goes into `after`; absent behind the last page.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    next: Option<String>,
}

/// A room with members.
#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Room {
    room_id: String,
    /// Connections that are members, on all nodes.
    members: u64,
    /// Distinct users among the members on this node.
    users: u64,
}

/// Which users are listed.
#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct PresenceParams {
    /// Where the page before ended: its `next`.
    after: Option<String>,
    /// At most so many users.
    #[param(minimum = 1, default = 1_000)]
    limit: Option<u64>,
}

/// Who is in a room.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Presence {
    room_id: String,
    /// Distinct users, on all nodes.
    count: u64,
    /// Some of them, in the order of their ids.
    users: Vec<String>,
    /// Whether there are users that no page lists: pages list 1,000 at most.
    #[serde(skip_serializing_if = "is_false")]
    #[schema(required = false)]
    truncated: bool,
    /// Whether `count` is an estimate.
    #[serde(skip_serializing_if = "is_false")]
    #[schema(required = false)]
    approximate: bool,
    /// Goes into `after`; absent behind the last page.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    next: Option<String>,
}

/// Which messages are listed.
#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct HistoryParams {
    /// The oldest messages behind this offset. Not with `before`.
    after: Option<u64>,
    /// The newest messages in front of this offset. Without `after` and `before` the newest of all.
    before: Option<u64>,
    /// At most so many messages; never more than fit into 256 KiB, but for one that is larger.
    #[param(minimum = 1, default = 1_000)]
    limit: Option<u64>,
}

/// A page of what a room has kept. Nothing is kept of a room without an `epoch`.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct History<'a> {
    room_id: &'a str,
    /// In which the offsets count.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    epoch: Option<&'a str>,
    /// The offset of the newest message; 0 before the first.
    offset: u64,
    /// Oldest first, as members get them.
    #[schema(value_type = Vec<serde_json::Value>)]
    messages: &'a RawValue,
    /// Goes into the `after` or `before` of this page; absent where it was the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    next: Option<u64>,
}

/// Why a user is removed.
#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct KickParams {
    /// Told to the user: at most 1,024 bytes.
    reason: Option<String>,
}

/// It is done.
#[derive(Serialize, ToSchema)]
pub(super) struct Done {}

/// Lists rooms with members, of those that the key is good for, on all nodes: what has members throughout is listed once. Raw
/// rooms are not listed. Needs the verb `read`.
#[utoipa::path(
    get,
    path = "/api/v1/rooms",
    params(RoomsParams),
    responses((status = 200, description = "Some rooms.", body = Rooms), ApiError),
    security(("key" = [])),
)]
pub(super) async fn rooms(State(api): State<Api>, caller: Caller, uri: Uri) -> Result<Response, ApiError> {
    caller.needs(Verb::Read)?;
    let RoomsParams { matching, after, limit } = query(&uri)?;
    let limit = Limit { default: 100, max: API_ROOMS_MAX }.of(limit)?;
    let matching = matching.map(|text| text.parse::<Pattern>()).transpose();
    let matching = matching.map_err(|why| ApiError::wire(ErrorCode::BadOptions, format!("match: {why}")))?;
    let filter = filter(caller.rooms(), matching);
    let mut after = after.as_deref().map(text_of_cursor).transpose()?;
    let mut rooms = Vec::new();
    for _ in 0..API_SURVEYS_MAX {
        let query = RoomsQuery { after: after.take().unwrap_or_default().into(), filter: filter.clone() };
        let Reply::Found(found) = reply_of(api.requests.survey(&Survey::Rooms(query))).await? else {
            return Err(ApiError::unavailable());
        };
        after = put_together(&mut rooms, &found);
        if after.is_none() || rooms.len() >= limit {
            break;
        }
    }
    if rooms.len() > limit {
        rooms.truncate(limit);
        after = rooms.last().map(|room| room.room_id.clone());
    }
    Ok(json_response(StatusCode::OK, &Rooms { rooms, next: after.as_deref().map(cursor_of) }))
}

fn filter(any_of: &[Pattern], matching: Option<Pattern>) -> RoomFilter {
    let texts: Vec<&str> = any_of.iter().map(Pattern::as_str).collect();
    let filter = RoomFilter::new(&texts, matching.as_ref().map(Pattern::as_str));
    let any_of = any_of.to_vec();
    filter.tested_by(move |room| Pattern::any_means(&any_of, matching.as_ref(), room))
}

/// Appends the rooms that all reactors have told of, each once; up to which room they have, if there may be more.
fn put_together(rooms: &mut Vec<Room>, found: &[NodeFound]) -> Option<String> {
    let parts = || {
        found.iter().filter_map(|node| match &node.found {
            Found::Rooms(rooms) => Some((node.run.is_none(), rooms)),
            Found::Connections(_) | Found::Done => None,
        })
    };
    let up_to = parts().filter_map(|(_, part)| part.up_to.as_deref()).min();
    let mut by_name: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    for (is_here, part) in parts() {
        for room in part.rooms.iter().filter(|room| up_to.is_none_or(|up_to| *room.name <= *up_to)) {
            let (members, users) = by_name.entry(&room.name).or_default();
            *members += room.members;
            *users += if is_here { room.users } else { 0 };
        }
    }
    let room = |(name, (members, users)): (&str, _)| Room { room_id: name.to_owned(), members, users };
    rooms.extend(by_name.into_iter().map(room));
    up_to.map(str::to_owned)
}

/// Who is in a room, on all nodes. A room that nobody is in has a `count` of 0. Needs the verb `read` and the room.
#[utoipa::path(
    get,
    path = "/api/v1/rooms/{room}/presence",
    params(RoomName, PresenceParams),
    responses((status = 200, description = "Who is there.", body = Presence), ApiError),
    security(("key" = [])),
)]
pub(super) async fn presence(
    State(api): State<Api>,
    caller: Caller,
    RoomName { room }: RoomName,
    uri: Uri,
) -> Result<Response, ApiError> {
    check_room(&api, &caller, Verb::Read, &room)?;
    let PresenceParams { after, limit } = query(&uri)?;
    let limit = Limit { default: PRESENCE_USERS_MAX, max: PRESENCE_USERS_MAX }.of(limit)?;
    let after = after.as_deref().map(text_of_cursor).transpose()?;
    let asked = api.requests.ask(Question::Presence { room: room.clone() });
    let Reply::Message(message) = reply_of(asked).await? else { return Err(ApiError::unavailable()) };
    let OnTheWire { count, mut users, truncated, approximate } =
        serde_json::from_slice(&message).map_err(|_| ApiError::unavailable())?;
    users.sort_unstable();
    let from = after.map_or(0, |after| users.partition_point(|user| *user <= after));
    let mut users = users.split_off(from);
    let has_more = users.len() > limit;
    users.truncate(limit);
    let next = if has_more { users.last().map(|user| cursor_of(user)) } else { None };
    let presence = Presence { room_id: room, count, users, truncated, approximate, next };
    Ok(json_response(StatusCode::OK, &presence))
}

/// Who is in a room, as clients are told.
#[derive(Deserialize)]
struct OnTheWire {
    count: u64,
    users: Vec<String>,
    #[serde(default)]
    truncated: bool,
    #[serde(default)]
    approximate: bool,
}

/// A page of what a room has kept. Needs the verb `read` and the room.
#[utoipa::path(
    get,
    path = "/api/v1/rooms/{room}/history",
    params(RoomName, HistoryParams),
    responses((status = 200, description = "Some messages.", body = History), ApiError),
    security(("key" = [])),
)]
pub(super) async fn history(
    State(api): State<Api>,
    caller: Caller,
    RoomName { room }: RoomName,
    uri: Uri,
) -> Result<Response, ApiError> {
    check_room(&api, &caller, Verb::Read, &room)?;
    let HistoryParams { after, before, limit } = query(&uri)?;
    let limit = Limit { default: HISTORY_PAGE_MAX, max: HISTORY_PAGE_MAX }.of(limit)?;
    [after, before].into_iter().flatten().try_for_each(check_number)?;
    let range = match (after, before) {
        (Some(_), Some(_)) => {
            return Err(ApiError::wire(
                ErrorCode::BadOptions,
                "after and before go in two directions: say one of them",
            ));
        }
        (Some(after), None) => PageRange::After(after),
        (None, before) => PageRange::Before(before),
    };
    let asked = api.requests.read_history(&room, range, limit);
    let Reply::History(page) = reply_of(asked).await? else { return Err(ApiError::unavailable()) };
    let (epoch, offset) = page.position.as_ref().map_or((None, 0), |at| (Some(&*at.epoch), at.offset));
    let messages = serde_json::from_slice(&page.messages).map_err(|_| ApiError::unavailable())?;
    let page = History { room_id: &room, epoch, offset, messages, next: page.next };
    Ok(json_response(StatusCode::OK, &page))
}

/// Forgets what a room has kept: a new epoch begins, and members are told. Needs the verb `kick` and the room.
#[utoipa::path(
    delete,
    path = "/api/v1/rooms/{room}/history",
    params(RoomName),
    responses((status = 200, description = "It is forgotten.", body = Done), ApiError),
    security(("key" = [])),
)]
pub(super) async fn forget_history(
    State(api): State<Api>,
    caller: Caller,
    RoomName { room }: RoomName,
) -> Result<Response, ApiError> {
    check_room(&api, &caller, Verb::Kick, &room)?;
    reply_of(api.requests.purge(&room)).await?;
    Ok((JSON_HEADERS, "{}").into_response())
}

/// Removes a user from a room, on all nodes: each connection gets `left`, and may join again. Needs the verb `kick` and the
/// room.
#[utoipa::path(
    delete,
    path = "/api/v1/rooms/{room}/users/{user}",
    params(RoomUser, KickParams),
    responses((status = 200, description = "So many nodes have heard it.", body = Nodes), ApiError),
    security(("key" = [])),
)]
pub(super) async fn kick(
    State(api): State<Api>,
    caller: Caller,
    RoomUser { room, user }: RoomUser,
    uri: Uri,
) -> Result<Response, ApiError> {
    check_room(&api, &caller, Verb::Kick, &room)?;
    let KickParams { reason } = query(&uri)?;
    let reason = reason.unwrap_or_default();
    if reason.len() > KICK_REASON_BYTES_MAX {
        let message = format!("reason has {} bytes; at most {KICK_REASON_BYTES_MAX} are told", reason.len());
        return Err(ApiError::wire(ErrorCode::BadOptions, message));
    }
    let order = Order::Kick { room: room.into(), user: user.into(), reason: reason.into() };
    Nodes::heard(api.requests.order(order)).await
}

/// Whether there may be such a room, and the key is good for it.
pub(super) fn check_room(api: &Api, caller: &Caller, verb: Verb, room: &str) -> Result<(), ApiError> {
    caller.needs(verb)?;
    if room.len() > ROOM_ID_BYTES_MAX {
        let message = format!("a room id has 1 to {ROOM_ID_BYTES_MAX} bytes");
        return Err(ApiError::wire(ErrorCode::BadRoomId, message));
    }
    api.check_room_id(room)?;
    caller.needs_room(verb, room)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::router::{RoomFound, RoomsFound};

    fn part(run: Option<u64>, rooms: &[(&str, u64, u64)], up_to: Option<&str>) -> NodeFound {
        let room = |&(name, members, users): &(&str, u64, u64)| RoomFound { name: name.into(), members, users };
        let rooms = rooms.iter().map(room).collect();
        NodeFound { run, found: Found::Rooms(RoomsFound { rooms, up_to: up_to.map(Into::into) }) }
    }

    #[test]
    fn rooms_of_several_reactors_and_nodes_are_one_list_as_far_as_all_have_told() {
        let found = [
            part(None, &[("a", 1, 1), ("d", 2, 1)], Some("d")),
            part(None, &[("b", 3, 2)], Some("c")),
            part(Some(7), &[("a", 5, 5), ("c", 1, 1)], None),
        ];
        let mut rooms = Vec::new();
        assert_eq!(put_together(&mut rooms, &found).as_deref(), Some("c"));
        let listed: Vec<_> = rooms.iter().map(|room| (&*room.room_id, room.members, room.users)).collect();
        assert_eq!(listed, [("a", 6, 1), ("b", 3, 2), ("c", 1, 0)]);
        assert_eq!(put_together(&mut rooms, &[part(None, &[], None)]), None);
    }
}
