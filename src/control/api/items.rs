//! Items of keyed rooms.

use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::error::json_response;
use super::query::{Limit, RoomName, check_number, query, reply_of};
use super::rooms::check_room;
use super::{Api, ApiError, Caller};
use crate::config::Verb;
use crate::limits::HISTORY_PAGE_MAX;
use crate::protocol::ErrorCode;
use crate::router::Reply;

/// Which items are listed.
#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct ItemsParams {
    /// Only items whose last update is behind this offset.
    after: Option<u64>,
    /// At most so many items; never more than fit into 256 KiB, but for one that is larger.
    #[param(minimum = 1, default = 1_000)]
    limit: Option<u64>,
}

/// Items of a keyed room that have a value, in the order of their last update. Nothing is known of a room without an `epoch`.
#[derive(Serialize, ToSchema)]
struct Items<'a> {
    /// In which the offsets count.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    epoch: Option<&'a str>,
    /// The offset of the room's last update; 0 before the first.
    offset: u64,
    items: Vec<Item<'a>>,
    /// Goes into `after`; absent behind the last page.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    next: Option<u64>,
}

/// An item, as its last update has left it.
#[derive(Deserialize, Serialize, ToSchema)]
struct Item<'a> {
    /// Its name.
    #[serde(borrow)]
    #[schema(value_type = String)]
    item: &'a RawValue,
    /// The item's own count of its updates.
    seq: u64,
    /// The room's count of all updates, of the last one of this item.
    offset: u64,
    /// Its value, the text as it was sent.
    #[serde(borrow)]
    #[schema(value_type = serde_json::Value)]
    content: &'a RawValue,
    /// When that was, in Unix time in milliseconds.
    time: u64,
}

/// The newest values of a keyed room's items. An item that is updated between two pages may be on both, with a larger `offset`.
/// Needs the verb `read` and the room.
#[utoipa::path(
    get,
    path = "/api/v1/rooms/{room}/items",
    params(RoomName, ItemsParams),
    responses((status = 200, description = "Some items.", body = Items), ApiError),
    security(("key" = [])),
)]
pub(super) async fn items(
    State(api): State<Api>,
    caller: Caller,
    RoomName { room }: RoomName,
    uri: Uri,
) -> Result<Response, ApiError> {
    check_room(&api, &caller, Verb::Read, &room)?;
    let ItemsParams { after, limit } = query(&uri)?;
    let limit = Limit { default: HISTORY_PAGE_MAX, max: HISTORY_PAGE_MAX }.of(limit)?;
    let after = after.unwrap_or(0);
    check_number(after)?;
    if !api.is_keyed(&room) {
        return Err(ApiError::wire(ErrorCode::BadOptions, "this room is not keyed: it has no items"));
    }
    let asked = api.requests.read_items(&room, after, limit);
    let Reply::History(page) = reply_of(asked).await? else { return Err(ApiError::unavailable()) };
    let (epoch, offset) = page.position.as_ref().map_or((None, 0), |at| (Some(&*at.epoch), at.offset));
    let items = serde_json::from_slice(&page.messages).map_err(|_| ApiError::unavailable())?;
    Ok(json_response(StatusCode::OK, &Items { epoch, offset, items, next: page.next }))
}
