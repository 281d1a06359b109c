//! The HTTP API against the built server: what it tells of rooms and users, and what it removes. Each case runs on one
//! reactor, on two, and on two nodes with a Redis between them.

mod histories;
mod members;
mod orders;
mod refusals;
mod rooms;
mod tokens;
mod users;

use fanfare_testing::{ApiKey, Cluster, Entrance, Way};
use serde_json::Value;

macro_rules! everywhere {
    ($($module:ident: $($case:ident),* $(,)?;)*) => {
        mod one_reactor {
            $($(#[test] fn $case() { super::$module::$case(fanfare_testing::Way::Reactors(1)); })*)*
        }
        mod two_reactors {
            $($(#[test] fn $case() { super::$module::$case(fanfare_testing::Way::Reactors(2)); })*)*
        }
        mod two_nodes {
            $($(#[test] fn $case() { super::$module::$case(fanfare_testing::Way::TwoNodes); })*)*
        }
    };
}

everywhere! {
    rooms:
        rooms_are_listed_once_in_pages_with_their_members,
        a_key_is_told_of_its_own_rooms,
        users_are_listed_in_pages;
    histories:
        a_history_is_read_in_pages_in_both_directions,
        a_history_that_is_forgotten_begins_anew,
        a_room_without_history_has_none;
    members:
        who_is_removed_is_told_why_and_may_come_back,
        any_name_stands_in_a_path;
    users:
        a_users_connections_are_told_wherever_they_are,
        a_users_connections_end_wherever_they_are,
        more_connections_than_an_answer_holds;
    tokens:
        tokens_up_to_the_second_are_refused_from_then_on;
    orders:
        orders_go_through_the_api_of_any_server;
    refusals:
        what_a_key_is_not_good_for_is_forbidden,
        what_is_not_as_it_must_be_is_told;
}

/// Servers of this kind that know these keys.
fn servers(way: Way, keys: &[&ApiKey], settings: &[&str]) -> Cluster {
    let flags = keys.iter().flat_map(|key| ["--api.key", key.settings()]);
    way.start(&flags.chain(settings.iter().copied()).collect::<Vec<_>>())
}

/// A key that is good for all that reads and removes.
fn operator() -> ApiKey {
    ApiKey::new("operator", "read kick publish")
}

/// The answer to a `DELETE`.
#[track_caller]
fn delete(key: &ApiKey, server: &dyn Entrance, target: &str) -> Value {
    key.ask(server, "DELETE", target, "", "").json()
}

/// How many nodes there are that hear of everything.
fn nodes(way: Way) -> u64 {
    match way {
        Way::TwoNodes => 2,
        Way::Reactors(_) | Way::Secured | Way::OnRing { .. } => 1,
        Way::Behind(_) => unreachable!("no case goes through a proxy"),
    }
}

/// The texts of an array.
#[track_caller]
fn texts(array: &Value) -> Vec<String> {
    let texts = array.as_array().unwrap_or_else(|| panic!("{array} is no array"));
    texts.iter().map(|text| text.as_str().unwrap_or_else(|| panic!("{text} is no text")).to_owned()).collect()
}
