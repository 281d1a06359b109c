//! Tokens, end to end: the built binary with keys, against tungstenite's client and bytes of our own. Tokens are signed
//! here, with the cryptography alone. Each case runs on one reactor and on two.

mod connecting;
mod entering;
mod joining;
mod key_sets;
mod open_mode;
mod permissions;
mod refresh;
mod reload;
mod service;
mod tokens;

fanfare_testing::suite! {
    entering:
        a_token_names_the_user_wherever_it_stands,
        who_has_no_good_token_is_refused_and_told_how_to_get_one,
        anonymous_lets_in_who_has_no_token_and_nobody_with_a_bad_one,
        a_page_from_elsewhere_is_refused_before_its_token_is_looked_at,
        many_tokens_of_a_public_key_at_once,
        a_token_of_a_public_key_that_is_not_good,
        little_may_come_before_a_token_was_looked_at;
    permissions:
        each_command_is_asked_for,
        of_many_rooms_those_that_are_forbidden_are_told_and_the_others_joined,
        publishing_needs_membership,
        publishing_into_a_keyed_room_needs_no_membership,
        raw_rooms_are_asked_for_by_their_name,
        keyed_raw_rooms_need_the_same_permissions,
        the_tokens_rate_replaces_the_configured_one;
    refresh:
        other_permissions_are_in_force_at_once,
        what_is_no_good_token_changes_nothing,
        rooms_that_are_forbidden_are_left_before_the_answer,
        what_stands_behind_a_refresh_waits_for_it,
        a_token_that_ends_closes_its_connection,
        a_refresh_keeps_the_connection;
    connecting:
        who_the_backend_knows_is_let_in_as_it_says,
        who_the_backend_refuses_is_told_so,
        a_token_is_checked_first_and_the_backend_wins,
        what_is_no_answer_lets_nobody_in,
        a_backend_that_is_down_lets_nobody_in_and_is_asked_again,
        the_handshakes_deadline_holds_while_the_backend_thinks,
        no_more_is_asked_at_once_than_is_allowed_and_the_others_wait,
        those_who_wait_too_long_for_their_turn_take_no_time_from_who_is_asked_about,
        who_is_gone_is_not_asked_about,
        a_decision_holds_for_a_while_for_the_same_question,
        visitors_of_whom_nothing_is_known_are_asked_about_one_by_one,
        a_backend_that_hangs_delays_nobody_who_is_open,
        the_example_decides,
        a_connection_ends_when_the_backend_says,
        the_backend_decides_about_another_token;
    joining:
        a_room_is_joined_where_the_backend_allows_it,
        many_rooms_are_one_question,
        publishing_is_as_the_backend_says_and_else_as_the_token,
        what_stands_behind_a_join_waits_for_it,
        a_connection_may_go_while_its_join_is_decided,
        without_an_answer_nothing_is_joined,
        raw_rooms_are_asked_about_by_their_name,
        both_decisions_meet_in_a_raw_room,
        joins_do_not_wait_behind_handshakes,
        more_rooms_than_there_may_be_are_not_asked_about,
        what_a_waiting_join_holds_is_counted_once;
    key_sets:
        tokens_are_checked_by_keys_of_the_url,
        a_new_key_is_known_at_its_first_token,
        a_refresh_waits_for_a_new_key,
        made_up_kids_cause_one_fetch,
        the_server_starts_without_its_keys_and_learns_them,
        the_last_good_keys_stay,
        a_token_waits_for_its_key_no_longer_than_its_handshake,
        an_encrypted_url_is_believed_by_its_certificate_alone;
    reload:
        other_keys_take_the_place_of_those_before,
        a_fault_leaves_all_keys_as_they_were,
        a_file_that_hangs_keeps_nobody_from_ending_the_server,
        keys_of_a_url_stay_where_files_are_read_again,
        keys_of_programs_are_read_again,
        the_console_makes_tokens_with_the_new_secret;
    open_mode:
        without_keys_tokens_mean_nothing,
        origins_are_asked_without_keys_where_they_are_set;
}
