//! The HTTP API against the built server: what programs publish, and what they are refused with.

mod batches;
mod document;
mod publishing;
mod refusals;
mod secured;

use fanfare_testing::{ApiKey, Server};

fanfare_testing::suite! {
    publishing:
        a_message_to_a_room_looks_like_a_clients_but_for_its_author,
        a_message_to_a_user_reaches_all_its_connections,
        a_broadcast_reaches_everyone,
        contents_are_passed_on_as_the_same_text,
        history_gives_positions_and_knows_retries;
    batches:
        a_batch_is_published_in_order_and_answered_in_order,
        lines_are_commands_and_each_has_its_result,
        a_batch_of_ten_thousand_arrives_whole_and_in_order,
        a_batch_that_is_cut_off_publishes_nothing;
    secured:
        messages_and_batches_go_over_http_2_and_tls,
        what_is_refused_over_http_2_is_refused_in_the_same_words;
}

/// A server of so many reactors that knows these keys.
fn server(reactors: usize, keys: &[&ApiKey], settings: &[&str]) -> Server {
    let flags: Vec<&str> =
        keys.iter().flat_map(|key| ["--api.key", key.settings()]).chain(settings.iter().copied()).collect();
    Server::with_reactors(reactors, &flags)
}

/// A key that is good for all that publishes.
fn publisher() -> ApiKey {
    ApiKey::new("backend", "publish private broadcast")
}
