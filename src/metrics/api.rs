//! What is counted of the HTTP API.

use super::label::{Grid, label};

label! {
    /// What a request of the HTTP API is for.
    pub enum ApiRoute as "route" {
        /// `/api/v1/publish`.
        Publish = "publish",
        /// `/api/v1/private`.
        Private = "private",
        /// `/api/v1/broadcast`.
        Broadcast = "broadcast",
        /// `/api/v1/batch`.
        Batch = "batch",
        /// Rooms: presence, history, members.
        Rooms = "rooms",
        /// Users and their connections.
        Users = "users",
        /// `/api/v1/node`.
        Node = "node",
        /// The document of the API.
        Document = "openapi.json",
        /// All else.
        Other = "other",
    }
}

impl ApiRoute {
    /// By the path of a route, as it is declared.
    pub fn of_path(path: &str) -> ApiRoute {
        let behind = path.strip_prefix("/api/v1/").unwrap_or_default();
        let first = behind.split('/').next().unwrap_or_default();
        ApiRoute::ALL.into_iter().find(|route| route.name() == first).unwrap_or(ApiRoute::Other)
    }
}

label! {
    /// The status that a request of the HTTP API was answered with.
    pub enum ApiStatus as "status" {
        /// 200.
        Ok = "200",
        /// 400.
        BadRequest = "400",
        /// 401.
        Unauthorized = "401",
        /// 403.
        Forbidden = "403",
        /// 404.
        NotFound = "404",
        /// 405.
        MethodNotAllowed = "405",
        /// 408.
        Timeout = "408",
        /// 409.
        Conflict = "409",
        /// 413.
        TooLarge = "413",
        /// 415.
        MediaType = "415",
        /// 429.
        TooMany = "429",
        /// 500.
        Internal = "500",
        /// 503.
        Unavailable = "503",
        /// All others.
        Other = "other",
    }
}

impl ApiStatus {
    /// By its number.
    pub fn of(status: u16) -> ApiStatus {
        let number = status.to_string();
        ApiStatus::ALL.into_iter().find(|known| known.name() == number).unwrap_or(ApiStatus::Other)
    }
}

/// Requests of the HTTP API, by what they are for and what they were answered with.
pub type ApiRequests = Grid<ApiRoute, ApiStatus, { ApiRoute::COUNT }, { ApiStatus::COUNT }>;

impl ApiRequests {
    /// Those that have occurred, and of each route those that were answered with 200.
    pub fn occurred(&self) -> Vec<(ApiRoute, ApiStatus, u64)> {
        let of = |route| ApiStatus::ALL.into_iter().map(move |status| (route, status, self.of(route, status)));
        let all = ApiRoute::ALL.into_iter().flat_map(of);
        all.filter(|(_, status, count)| *count > 0 || *status == ApiStatus::Ok).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_and_a_status_have_their_values() {
        for (path, route) in [
            ("/api/v1/publish", ApiRoute::Publish),
            ("/api/v1/rooms/{room}/history", ApiRoute::Rooms),
            ("/api/v1/openapi.json", ApiRoute::Document),
            ("/api/{*rest}", ApiRoute::Other),
            ("/api", ApiRoute::Other),
        ] {
            assert_eq!(ApiRoute::of_path(path), route, "{path}");
        }
        assert_eq!((ApiStatus::of(413), ApiStatus::of(418)), (ApiStatus::TooLarge, ApiStatus::Other));
        let requests = ApiRequests::default();
        requests.count(ApiRoute::Batch, ApiStatus::TooMany);
        assert_eq!(requests.occurred().len(), ApiRoute::COUNT + 1);
        assert!(requests.occurred().contains(&(ApiRoute::Batch, ApiStatus::TooMany, 1)));
    }
}
