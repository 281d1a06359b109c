//! Plain HTTP of the built binary over connections that are kept: HTTP/1.1 and HTTP/2, the way back to a reactor, and who
//! makes room. Behind a real nginx in `nginx`, with curl in `http2`.

mod api_listener;
mod frames;
mod http2;
mod kept;
mod nginx;
mod returning;
mod tap;

fanfare_testing::suite! {
    kept:
        many_requests_are_answered_on_one_connection,
        a_connection_ends_where_it_is_asked_to,
        a_request_that_others_may_read_differently_is_the_last,
        who_idles_makes_room_for_who_asks,
        a_draining_node_ends_those_that_idle;
    returning:
        an_upgrade_behind_requests_is_a_connection,
        an_upgrade_comes_in_pieces_and_with_what_is_behind_it,
        an_upgrade_over_tls_goes_on_with_its_session,
        what_is_refused_to_others_is_refused_behind_requests,
        a_full_node_refuses_it,
        addresses_are_counted_as_they_come_back;
    http2:
        curl_asks_as_it_likes,
        tls_agrees_on_the_first_that_both_speak,
        what_is_for_loopback_is_for_loopback,
        a_websocket_is_told_to_speak_http_1_1;
    frames:
        all_streams_of_a_connection_are_answered,
        a_flood_of_resets_ends_its_connection_alone,
        a_flood_of_continuations_ends_its_connection_alone,
        a_preface_that_goes_no_further_takes_no_place_from_others;
    nginx:
        kept_connections_serve_pages_and_upgrades,
        kept_connections_over_tls_serve_pages_and_upgrades,
        each_request_is_its_own_clients;
    api_listener:
        it_serves_health_and_no_pages_or_websocket,
        without_keys_it_says_so;
}
