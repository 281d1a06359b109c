//! Keyed rooms against the built server: raw ones, and those that programs publish into and read over HTTP.

mod http;
mod raw_rooms;

fanfare_testing::suite! {
    http:
        an_update_looks_like_a_clients_and_is_answered_with_its_place,
        an_update_that_is_not_above_the_last_version_is_stale,
        a_retry_with_the_same_key_is_one_update,
        updates_that_are_none_are_refused,
        elsewhere_an_item_has_no_meaning,
        each_update_of_a_batch_has_its_own_result,
        what_has_no_room_in_a_batch_is_refused_alone,
        a_batch_of_ten_thousand_updates_is_stored_whole_and_in_order,
        items_are_read_in_pages,
        contents_are_read_as_the_same_text,
        a_page_is_bounded_in_bytes;
    raw_rooms:
        a_snapshot_its_end_and_what_is_newer_come_in_order,
        every_update_but_ones_own_comes_where_nothing_is_said,
        who_comes_back_gets_what_has_changed,
        items_are_named_in_the_query,
        what_is_no_update_ends_the_connection,
        one_item_too_many_ends_the_connection,
        options_that_mean_nothing_are_refused,
        other_raw_rooms_pass_bytes_on;
}
